"""What a selfcheck comes to: outcomes, numbers, JSON with its schema, JUnit, and which controls are picked."""

from __future__ import annotations

import dataclasses
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from madeup import BUG, STALE, cell, trial

from rig.commandline import selfcheck_words, sort_words
from rig.detection import lkdtm, outcomes
from rig.detection.outcomes import Cleared, Hunt, Hunted, Outcome, Provoked, Selfcheck, Sighting, Summary
from rig.detection.selfcheck import choose, settle
from rig.detection.tally import OTHERS, Tally, cleared
from rig.errors import ConfigError
from rig.model import Finding, Status, Timing
from rig.records.controls import Control
from rig.records.subjects import Subject
from rig.reports import junit
from rig.runs import results
from rig.settings.reading import load
from rig.splats.scanner import scan_file

ROOT = Path(__file__).resolve().parents[2]
CONSOLES = Path(__file__).parent / "data/console"
WHERE = Path("controls/x/0")


def sighting(title: str = BUG.title, signature: str = BUG.signature) -> Sighting:
    return Sighting(oracle="console", title=title, signature=signature, cell=cell().id, seed=1, evidence="controls/x/t")


def hunt(outcome: Outcome = Outcome.CAUGHT, seconds: float = 5.0, *others: Sighting) -> Hunt:
    found = sighting() if outcome is Outcome.CAUGHT else None
    return Hunt(
        seed=1, outcome=outcome, seconds=seconds, trials=2, lost=0, inconclusive=0, found=found, others=others,
        cells=(cell().id,),
    )  # fmt: skip


def fold(*hunts: Hunt, name: str = "one") -> Hunted:
    return outcomes.fold(name, "k", "truncate", "something", hunts)


def innocent(name: str = "base", trials: int = 10, *alarms: Sighting) -> Cleared:
    return Cleared(name=name, key="", trials=trials, lost=0, inconclusive=0, alarms=alarms)


def provoked(*, ok: bool = True) -> Provoked:
    return Provoked(
        crash="BUG", expected_kind="bug", expected_title="x", kind="bug", title="x", ok=ok,
        reason="" if ok else "expected bug: x", evidence="console/BUG",
    )  # fmt: skip


def check(
    controls: tuple[Hunted, ...] = (), goods: tuple[Cleared, ...] = (), console: tuple[Provoked, ...] = ()
) -> Selfcheck:
    return Selfcheck(
        id="20260102-030405-selfcheck", started="2026-01-02T03:04:05+00:00", finished="2026-01-02T04:04:05+00:00",
        rig_version="0.1.0", accelerator="tcg", accelerator_reason="no KVM", base="b" * 40, config={"seed": 1},
        controls=controls, goods=goods, console=console,
        summary=outcomes.summarise(controls, goods, console, 0.9),
    )  # fmt: skip


# -- one hunt ---------------------------------------------------------------------------------------------------------


def sees(title: str) -> bool:
    return title.startswith("kernel BUG")


def ran(status: Status, *findings: Finding, seconds: float = 4.0, first: float | None = None, fs: str = "ext4") -> Any:
    made = trial(status=status, where=cell(fs))
    return replace(made, status=status, findings=findings, timing=Timing(workload=seconds), first_finding=first)


def test_a_hunt_ends_when_the_finding_was_seen_and_takes_the_time_until_then() -> None:
    tally = Tally(30, 3, 10)
    ours = cell("ext4").workload
    assert tally.budget(ours) == 3
    tally.take(ran(Status.PASS, seconds=10.0), sees, WHERE)
    assert (tally.over, tally.budget(ours), tally.budget("another")) == (False, 6, 3)
    tally.take(ran(Status.CRASH, BUG, seconds=5.0, first=3.5), sees, WHERE)
    done = tally.hunt(7)
    assert tally.over
    assert (done.outcome, done.seconds, done.trials, done.seed) == (Outcome.CAUGHT, 13.5, 2, 7)
    assert done.found is not None
    assert done.found.evidence.startswith("controls/x/0/trials/")


def test_a_finding_that_nobody_saw_come_counts_at_the_end_of_its_trial() -> None:
    tally = Tally(30, 3, 10)
    tally.take(ran(Status.CRASH, BUG, seconds=5.0), sees, WHERE)
    assert tally.hunt(1).seconds == 5.0


def test_a_hunt_ends_when_its_time_is_used_up() -> None:
    tally = Tally(15, 3, 10)
    tally.take(ran(Status.PASS, seconds=10.0), sees, WHERE)
    assert (tally.over, tally.budget(cell("ext4").workload)) == (False, 5)  # all that is left
    tally.take(ran(Status.INCONCLUSIVE, seconds=5.0), sees, WHERE)
    assert tally.over
    assert (tally.hunt(1).outcome, tally.hunt(1).inconclusive) == (Outcome.MISSED, 1)


def test_other_findings_are_kept_and_end_the_hunt_when_nothing_else_comes() -> None:
    tally = Tally(1000, 3, 10)
    for _ in range(OTHERS):
        assert not tally.over
        tally.take(ran(Status.FAIL, STALE, seconds=0.5), sees, WHERE)
    assert tally.over
    done = tally.hunt(1)
    assert (done.outcome, [other.title for other in done.others]) == (Outcome.OTHERWISE, [STALE.title])


def test_what_says_nothing_is_not_tried_again_and_makes_no_miss() -> None:
    tally = Tally(100, 3, 10)
    tally.take(ran(Status.LOST, seconds=0.0), sees, WHERE)
    tally.take(ran(Status.SKIP, seconds=0.0, fs="xfs"), sees, WHERE)
    assert tally.useless == {cell().id, cell("xfs").id}
    assert tally.hunt(1).outcome is Outcome.BROKEN


def test_trials_that_end_at_once_end_the_hunt_as_well() -> None:
    tally = Tally(20, 3, 10)
    while not tally.over:
        tally.take(ran(Status.PASS, seconds=0.0), sees, WHERE)
    assert tally.trials < 100


def test_whoever_accuses_the_innocent_is_named_with_the_evidence() -> None:
    trials = [ran(Status.PASS), ran(Status.FAIL, STALE), ran(Status.LOST), ran(Status.INCONCLUSIVE)]
    found = cleared("base", "", trials, Path("good/base"))
    assert (found.trials, found.lost, found.inconclusive) == (2, 1, 1)
    (alarm,) = found.alarms
    assert alarm.evidence.startswith("good/base/trials/")


def test_a_bad_trial_without_a_finding_is_a_false_alarm_too() -> None:
    assert cleared("base", "", [ran(Status.TIMEOUT)], WHERE).alarms


# -- over several hunts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hunts", "outcome", "seconds"),
    [
        ([hunt(seconds=3), hunt(seconds=9), hunt(seconds=5)], Outcome.CAUGHT, 5),
        ([hunt(seconds=3), hunt(Outcome.MISSED, 120), hunt(seconds=9)], Outcome.CAUGHT, 9),
        ([hunt(seconds=3), hunt(Outcome.MISSED, 120), hunt(Outcome.MISSED, 120)], Outcome.MISSED, None),
        ([hunt(seconds=3), hunt(Outcome.MISSED, 120)], Outcome.MISSED, None),
        ([hunt(Outcome.OTHERWISE, 9, sighting("x", "y")), hunt(Outcome.MISSED, 9)], Outcome.OTHERWISE, None),
        ([hunt(Outcome.BROKEN, 0)], Outcome.BROKEN, None),
        ([], Outcome.BROKEN, None),
    ],
)
def test_a_control_is_caught_when_most_hunts_catch_it(
    hunts: list[Hunt], outcome: Outcome, seconds: float | None
) -> None:
    found = fold(*hunts)
    assert (found.outcome, found.seconds) == (outcome, seconds)


def test_what_the_base_shows_as_well_is_no_catch() -> None:
    found = fold(hunt(Outcome.OTHERWISE, 9, sighting("noise", "noise:1"), sighting("x", "x:1")))
    assert outcomes.without_known(found, ["noise:1"]).outcome is Outcome.OTHERWISE
    left = outcomes.without_known(found, ["noise:1", "x:1"])
    assert (left.outcome, left.hunts[0].outcome, left.hunts[0].others) == (Outcome.MISSED, Outcome.MISSED, ())


def test_the_numbers() -> None:
    caught = tuple(fold(hunt(seconds=seconds)) for seconds in (1, 2, 3, 40))
    controls = (*caught, fold(hunt(Outcome.MISSED, 120)))
    summary = outcomes.summarise(controls, (innocent(), innocent("good-x", 20)), (provoked(),), 0.8)
    assert summary == Summary(
        caught=4, controls=5, false_alarms=0, good_trials=30, median_seconds=2.5, p90_seconds=40, console_ok=1,
        console=1, passed=True,
    )  # fmt: skip
    assert outcomes.sentence(summary) == (
        "caught 4/5, false alarms 0/30, median time to detection 2.5 s (p90 40.0 s), crashes on purpose seen right 1/1"
    )


@pytest.mark.parametrize(
    ("controls", "goods", "console", "passed"),
    [
        ((fold(hunt()),), (innocent(),), (), True),
        ((fold(hunt()), fold(hunt(Outcome.MISSED, 120))), (), (), False),
        ((fold(hunt()),), (innocent("base", 10, sighting()),), (), False),
        ((), (innocent("base", 0),), (), False),  # nothing was tried: silence is no success
        ((), (), (provoked(ok=False),), False),
    ],
)
def test_when_it_passes(
    controls: tuple[Hunted, ...], goods: tuple[Cleared, ...], console: tuple[Provoked, ...], passed: bool
) -> None:
    done = check(controls, goods, console)
    assert done.summary.passed is passed
    text = junit.selfcheck_xml(done)
    xmlschema.XMLSchema(Path(__file__).parent / "data/junit.xsd").validate(text)
    root = ET.fromstring(text)
    bad = int(root.get("failures", "0")) + int(root.get("errors", "0"))
    assert (bad == 0) is passed


def test_two_findings_of_one_trial_are_one_false_alarm() -> None:
    accused = innocent("base", 10, sighting(), sighting("x", "y"))
    assert outcomes.summarise((), (accused,), (), 0.9).false_alarms == 1


# -- JSON -------------------------------------------------------------------------------------------------------------

texts = st.text(max_size=8)
naturals = st.integers(0, 10**6)
seconds = st.floats(0, 1e6)
sightings = st.builds(Sighting, seed=naturals)
hunts = st.builds(
    Hunt,
    found=st.none() | sightings,
    others=st.lists(sightings, max_size=2).map(tuple),
    seconds=seconds,
    seed=naturals,
    trials=naturals,
    lost=naturals,
    inconclusive=naturals,
)
hunteds = st.builds(
    outcomes.fold, name=texts, key=texts, race=texts, wrong=texts, hunts=st.lists(hunts, max_size=2), reason=texts
)
cleareds = st.builds(
    Cleared, alarms=st.lists(sightings, max_size=2).map(tuple), trials=naturals, lost=naturals, inconclusive=naturals
)


@given(
    st.lists(hunteds, max_size=3).map(tuple),
    st.lists(cleareds, max_size=3).map(tuple),
    st.lists(st.builds(Provoked), max_size=3).map(tuple),
)
def test_any_check_fits_the_schema_and_comes_back(
    controls: tuple[Hunted, ...], goods: tuple[Cleared, ...], console: tuple[Provoked, ...]
) -> None:
    done = check(controls, goods, console)
    data = json.loads(json.dumps(outcomes.dump(done)))
    schema = json.loads(outcomes.SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    assert results.from_json(Selfcheck, data) == done
    ET.fromstring(junit.selfcheck_xml(done))
    assert outcomes.lines(done)


def test_the_schema_names_every_field_and_no_other() -> None:
    schema = json.loads(outcomes.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for kind in (Hunted, Hunt, Sighting, Cleared, Provoked, Summary, Selfcheck):
        described = schema if kind is Selfcheck else schema["$defs"][kind.__name__]
        assert (
            set(described["properties"])
            == {field.name for field in dataclasses.fields(kind)}
            == set(get_type_hints(kind))
        )
        assert described["additionalProperties"] is False
        assert sorted(described["required"]) == sorted(described["properties"])


def test_an_endless_median_is_never_written() -> None:
    assert not math.isinf(fold(hunt(Outcome.MISSED, 120)).seconds or 0)


# -- what is asked for ------------------------------------------------------------------------------------------------


def subject(name: str, kind: str) -> Subject:
    said: dict[str, Any] = {"wrong": "w", "race": "none", "oracle": "o", "signature": ["x"]}
    control = Control.model_validate({"kind": kind, **(said if kind == "bad" else {"changes": "c"})})
    placed = control.at(f"patches/controls/{name}")
    return Subject(name=f"controls/{name}", origins=placed.series, key=name, patches=1, control=placed)


KNOWN = (subject("eof", "bad"), subject("ptl", "bad"), subject("good-eof", "good"), subject("good-ptl", "good"))


@pytest.mark.parametrize(
    ("globs", "bad", "good", "base", "console"),
    [
        ([], ["eof", "ptl"], ["good-eof", "good-ptl"], True, True),
        (["eof"], ["eof"], [], False, False),
        (["good-*", "base"], [], ["good-eof", "good-ptl"], True, False),
        (["console"], [], [], False, True),
    ],
)
def test_names_pick_controls(globs: list[str], bad: list[str], good: list[str], base: bool, console: bool) -> None:
    wanted = choose(KNOWN, globs)
    assert [one.control.name for one in wanted.bad if one.control] == bad
    assert [one.control.name for one in wanted.good if one.control] == good
    assert (wanted.base, wanted.console, wanted.innocents) == (base, console, 3)


def test_a_name_that_is_none_is_refused_with_one_that_is() -> None:
    with pytest.raises(ConfigError, match="no control is called 'eoff'; did you mean eof"):
        choose(KNOWN, ["eof", "eoff"])


def test_the_words_of_the_command() -> None:
    words = sort_words(["selfcheck", "good-*", "limit=5", "select=eof ptl", "cells=*/xfs", "seed=3", "budget=2"])
    names, overrides = selfcheck_words(words, console=False)
    assert names == ("good-*", "eof", "ptl")
    assert overrides == ["selfcheck.limit=5", "select=*/xfs", "seed=3", "selfcheck.budget=2"]
    assert selfcheck_words(sort_words(["selfcheck"]), console=True)[0] == ("console",)


def test_only_debug_kernels_unless_told_otherwise() -> None:
    config = settle(load(ROOT / "rig.yaml", ["selfcheck.budget=7"]))
    assert (list(config.flavours), config.budget) == (["debug"], 7)
    assert list(settle(load(ROOT / "rig.yaml", ["selfcheck.flavours=[release]"])).flavours) == ["release"]
    assert list(settle(load(ROOT / "rig.yaml", ["flavours={mine: [base]}"])).flavours) == ["mine"]


# -- crashes on purpose -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", lkdtm.CRASHES, ids=lambda crash: crash.name)
def test_the_console_of_a_crash_on_purpose_is_read_right(crash: lkdtm.Crash) -> None:
    """The consoles were printed by real kernels of the rig, and cut to what matters."""
    log = CONSOLES / f"lkdtm-{crash.name.lower()}.log"
    ok, kind, title, reason = lkdtm.judge(crash, scan_file(log))
    assert ok, f"{kind}: {title}: {reason}"


def test_there_is_a_console_for_each_crash_and_no_other() -> None:
    assert {log.stem for log in CONSOLES.glob("lkdtm-*.log")} == {f"lkdtm-{one.name.lower()}" for one in lkdtm.CRASHES}


@pytest.mark.parametrize(
    ("crash", "findings", "ok"),
    [
        (lkdtm.Crash(name="BUG", kind="bug", title="kernel BUG in *"), (BUG,), True),
        (lkdtm.Crash(name="BUG", kind="bug", title="kernel BUG in lkdtm_*"), (BUG,), False),
        (lkdtm.Crash(name="BUG", kind="oops", title="*"), (BUG,), False),
        (lkdtm.Crash(name="BUG", kind="bug", title="*"), (replace(BUG, corrupted=True),), False),
        (lkdtm.Crash(name="BUG", kind="bug", title="*"), (), False),
        (lkdtm.Crash(name="X", kind=lkdtm.NOTHING, title=""), (), True),
        (lkdtm.Crash(name="X", kind=lkdtm.NOTHING, title=""), (BUG,), False),
    ],
)
def test_only_what_is_expected_is_right(crash: lkdtm.Crash, findings: tuple[Finding, ...], ok: bool) -> None:
    assert lkdtm.judge(crash, findings)[0] is ok


def test_each_crash_stands_once_in_the_table() -> None:
    names = [crash.name for crash in lkdtm.CRASHES]
    assert len(set(names)) == len(names)
