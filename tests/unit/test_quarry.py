"""What a trial says of a finding, who looks suspicious beforehand, and how a bisection reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import jsonschema
import pytest
from madeup import BUG, STALE, cell, trial

from rig.bisection import gitrun, outcomes, plot, posterior, quarry, suspicion
from rig.bisection.outcomes import Bisection, Count, Culprit, Hunted, Outcome, PrefixState
from rig.bisection.quarry import Hunt, shows
from rig.bisection.suspicion import Touches
from rig.bisection.workbench import Hole
from rig.model import Finding, Side, Status, TrialResult
from rig.reports import junit

OTHER = replace(STALE, signature="data:other", title="something else")


def made(status: Status, *findings: Finding, prefix: int = 1, index: int = 0, booted: bool = True) -> TrialResult:
    one = trial(Side.PATCHED, status, *findings, prefix=prefix, index=index)
    return one if booted else replace(one, guest=None)


@pytest.mark.parametrize(
    ("status", "findings", "says"),
    [
        (Status.PASS, (), False),
        (Status.FAIL, (STALE,), True),
        (Status.FAIL, (OTHER,), False),  # its workload came to its end all the same
        (Status.CRASH, (BUG,), None),  # it went down before it could show
        (Status.CRASH, (STALE, BUG), True),
        (Status.LOST, (), None),
        (Status.SKIP, (), None),
        (Status.INCONCLUSIVE, (), None),
        (Status.TIMEOUT, (), None),
    ],
)
def test_what_a_trial_says_of_a_finding(status: Status, findings: tuple[Finding, ...], says: bool | None) -> None:
    assert shows(STALE.signature)(made(status, *findings)) is says


def test_what_follows_from_the_trials_and_the_holes() -> None:
    hunt = Hunt(finding=STALE, cell=cell(), lineup=posterior.series([1.0] * 4), observe=shows(STALE.signature))
    elsewhere = replace(made(Status.FAIL, STALE, prefix=1), cell=cell("xfs"))
    trials = [
        made(Status.FAIL, STALE, prefix=4),
        made(Status.PASS, prefix=4, index=1),
        *(made(Status.CRASH, BUG, prefix=2, index=index) for index in range(quarry.MUTE)),
        made(Status.CRASH, BUG, prefix=1),
        elsewhere,
    ]
    holes = [
        Hole(number=3, flavour="debug", state="broken", reason="a.c:1: no", signature="build:no"),
        Hole(number=1, flavour="release", state="broken", reason="a.c:1: no", signature="build:no"),
        Hole(number=4, flavour="debug", state="unbootable", reason="it is what is hunted", signature=STALE.signature),
    ]
    known = quarry.known(hunt, trials, holes)
    assert known.belief.failures.tolist() == [0, 0, 0, 0, 1]
    assert known.belief.passes.tolist() == [0, 0, 0, 0, 1]
    assert sorted(known.holes) == [2, 3]
    assert known.holes[3] == "does not build: a.c:1: no"
    assert "say nothing" in known.holes[2]
    assert known.wasted == {2: quarry.MUTE, 1: 1}


def test_something_else_than_a_signature_may_be_hunted() -> None:
    slow = Hunt(finding=STALE, cell=cell(), lineup=posterior.series([1.0]), observe=lambda one: one.timing.workload > 5)
    assert quarry.known(slow, [made(Status.PASS)], ()).belief.failures.tolist() == [0, 1]


def test_what_is_hunted_is_what_the_tip_shows_and_the_rest_is_told_on_the_side() -> None:
    trials = [made(Status.FAIL, STALE, prefix=2), made(Status.FAIL, OTHER, prefix=1), made(Status.CRASH, BUG, prefix=2)]
    seen = quarry.sightings(trials, lambda number: number == 2, ())
    assert list(seen) == [STALE.signature, BUG.signature]
    assert list(quarry.sightings(trials, lambda number: number == 2, ("*BUG*",))) == [BUG.signature]
    assert list(quarry.sightings(trials, lambda number: number == 2, ("data:*",))) == [STALE.signature]
    assert quarry.on_the_side(trials, seen) == {1: (OTHER.title,)}


def test_a_patch_that_touches_what_is_on_the_stack_is_more_suspicious() -> None:
    text = (
        "kernel BUG at mm/filemap.c:154!\nRIP: 0010:filemap_unaccount_folio+0x1d5/0x200\n next_uptodate.isra.0+0x1/0x2"
    )
    finding = replace(BUG, text=text)
    functions, files = suspicion.named(finding)
    assert {"filemap_unaccount_folio", "next_uptodate"} <= functions
    assert files == {"mm/filemap.c"}
    far = Touches(paths=("fs/proc/base.c",), functions=frozenset({"proc_open"}))
    near = Touches(paths=("mm/filemap.c",), functions=frozenset({"other"}))
    inside = Touches(paths=("mm/filemap.c",), functions=frozenset({"next_uptodate"}))
    weights = suspicion.weights((far, near, inside), finding, ())
    assert weights[0] == 1.0 < weights[1] < weights[2]
    assert weights[2] <= 1 + suspicion.FUNCTION + suspicion.FILE + suspicion.RACE
    assert suspicion.weights((far, near), STALE, ("truncate",))[1] > 1.0


# -- git bisect run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trials", "signature", "code"),
    [
        ((made(Status.PASS), made(Status.FAIL, STALE)), (), gitrun.BAD),
        ((made(Status.PASS), made(Status.PASS)), (), gitrun.GOOD),
        ((made(Status.PASS), made(Status.FAIL, STALE)), ("data:other",), gitrun.GOOD),
        ((made(Status.FAIL, STALE),), ("data:other",), gitrun.SKIP),
        ((made(Status.FAIL, OTHER, STALE),), ("something*",), gitrun.BAD),
        ((made(Status.CRASH, BUG, booted=False),), (), gitrun.SKIP),
        ((made(Status.CRASH, BUG, booted=False),), ("bug:*",), gitrun.BAD),
        ((made(Status.LOST),), (), gitrun.SKIP),
        ((), (), gitrun.SKIP),
    ],
)
def test_the_exit_code_for_git(trials: tuple[TrialResult, ...], signature: tuple[str, ...], code: int) -> None:
    assert gitrun.judge(trials, signature)[0] == code


def boom() -> int:
    raise RuntimeError("a bug")


def refuse() -> int:
    raise SystemExit(2)


@pytest.mark.parametrize(("code", "becomes"), [(0, 0), (1, 1), (125, 125), (2, 128), (3, 128), (4, 128), (130, 130)])
def test_git_never_takes_trouble_for_an_answer(code: int, becomes: int) -> None:
    assert gitrun.guarded(lambda: code) == becomes


def test_neither_a_bug_nor_a_mistyped_flag_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert gitrun.guarded(boom) == 128
    assert "a bug" in capsys.readouterr().err
    assert gitrun.guarded(refuse) == 128


# -- how it reads -----------------------------------------------------------------------------------------------------

CULPRITS = (
    Culprit(number=2, subject="mm: <b> | $x$", commit="c" * 40, probability=0.7),
    Culprit(number=3, subject="mm: three", commit="d" * 40, probability=0.28, fixed_by=4),
)


def hunted(outcome: Outcome = Outcome.FOUND, *, cell_id: str = "debug/smp4/race/tmpfs") -> Hunted:
    counts = (
        Count(number=0, trials=4, failures=0, probability=0.01),
        Count(number=1, trials=0, failures=0, probability=0.5, hole="does not build: a.c:1: no"),
        Count(number=2, trials=9, failures=5, probability=1.0),
    )
    return Hunted(
        signature="data:stale",
        title="stale $data$",
        kind="data",
        cell=cell_id,
        outcome=outcome,
        sentence="Patch 2 or 3 brought it.",
        probability=0.98,
        culprits=CULPRITS if outcome is Outcome.FOUND else (),
        rate=0.5,
        rate_sd=0.1,
        counts=counts if cell_id else (),
        example="prefixes/2/trials/x",
        reproduce="rig rerun x",
    )


def done(*findings: Hunted) -> Bisection:
    states = tuple(
        PrefixState(
            number=number,
            subject=f"mm: {number} <b> |",
            commit="c" * 40,
            tree="e" * 40,
            state="broken" if number == 1 else "built",
            reason="a.c:1: no" if number == 1 else "",
            trials=4,
            failures=1,
            others=("on the side",) if number == 2 else (),
        )
        for number in range(3)
    )
    return Bisection(
        id="20260102-030405-demo",
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:14:05+00:00",
        rig_version="0.1.0",
        command="rig bisect",
        mode="series",
        series="demo",
        base="dir:x (6.12)",
        accelerator="tcg",
        accelerator_reason="no KVM",
        confidence=0.95,
        status=outcomes.overall(findings),
        sentence="stale data: Patch 2 or 3 brought it.",
        trials=13,
        seconds=100.0,
        findings=findings,
        culprits=outcomes.blamed(findings),
        prefixes=states,
        config={},
    )


def test_the_gravest_outcome_gives_the_name_and_the_exit_code() -> None:
    assert outcomes.overall([]) is Outcome.CLEAN
    assert outcomes.overall([hunted(Outcome.BASE), hunted(), hunted(Outcome.UNDECIDED)]) is Outcome.FOUND
    codes = {outcome: done(hunted(outcome)).exit_code for outcome in Outcome}
    assert codes == {
        Outcome.FOUND: 1,
        Outcome.UNDECIDED: 4,
        Outcome.BASE: 0,
        Outcome.STRAY: 0,
        Outcome.CLEAN: 0,
    }


def test_json_is_what_its_schema_says() -> None:
    schema = json.loads(outcomes.SCHEMA.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    data = outcomes.dump(done(hunted(), hunted(Outcome.STRAY), hunted(cell_id="")))
    validator.validate(json.loads(json.dumps(data)))
    assert [one["number"] for one in data["culprits"]] == [2, 3]
    for gone in data:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({key: value for key, value in data.items() if key != gone})


def test_reports_hold_what_is_hostile_and_say_what_there_is() -> None:
    made_up = done(hunted())
    words = outcomes.text(made_up)
    assert "► " in words
    assert "5/9" in words
    assert "does not build: a.c:1: no" in words
    assert "2: on the side" in words
    table = [line for line in outcomes.markdown(made_up).splitlines() if line.startswith("  | 2 |")]
    assert table == ["  | 2 | 5/9 | > 99.9 % | mm: 2 &lt;b> \\| |"]
    cases = list(ET.fromstring(junit.bisection_xml(made_up)).iter("testcase"))  # our own
    assert [case.find("failure") is not None for case in cases] == [False, False, True]
    assert [case.find("skipped") is not None for case in cases] == [False, True, False]
    picture = plot.svg(made_up)
    ET.fromstring(picture)
    assert picture == plot.svg(made_up)
    assert "stale $data$" in picture
    assert "5/9" in picture
    assert ET.fromstring(plot.svg(done())) is not None


def test_patches_are_named_as_people_do() -> None:
    assert outcomes.names(CULPRITS[:1]) == "patch 2"
    assert outcomes.names(CULPRITS) == "patch 2 or 3 (fixed by 4)"
    many = tuple(replace(CULPRITS[0], number=number) for number in range(1, 9))
    assert outcomes.names(many, plain="commit") == "commit 1, 2, 3 or … 8"
    assert (outcomes.percent(0.99999), outcomes.percent(0.5), outcomes.percent(0.0)) == (
        "> 99.9 %",
        "50.0 %",
        "< 0.1 %",
    )
