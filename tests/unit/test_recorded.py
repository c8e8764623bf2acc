"""Results of runs, condensed, merged, folded and rendered."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import madeup as made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from madeup import BUG, STALE, cell, trial

from rig.errors import ConfigError, HostError
from rig.model import Finding, Judgement, Side, Status, TrialResult
from rig.records import recorded, tables
from rig.records.controls import Control
from rig.records.facts import RunFacts, as_prefix, condense
from rig.records.folding import folded, outcome, trials_of
from rig.records.recorded import Entry, Record, merge
from rig.records.subjects import Subject, subjects
from rig.records.tables import BEGIN, END, controls_table, filled, first_sentence, series_table
from rig.runs.results import SCHEMA, Base, Run, to_json, write_results
from rig.settings import matrix
from rig.settings.reading import load
from rig.trees import series
from rig.verdicts.verdict import fold

ROOT = Path(__file__).parents[2]
BASE, PATCHED = Side.BASE, Side.PATCHED
ORIGINS = ("patches/demo",)
CONFIG: dict[str, Any] = {
    "budget": 15.0,
    "prefixes": "ends",
    "series": ["/home/me/rig/patches/demo"],
    "results": "/home/me/rig/results",
    "kernel": {"source": "debian:linux-source-6.12", "version": None},
    "flavours": {"debug": ["base", "debug-vm"], "release": ["base", "release"]},
    "machines": {"smp4": {"name": "smp4", "cpus": 4}},
    "workloads": {"truncate-race": {"run": "truncate-race", "args": {}}},
}
KEY = "k" * 64
FIRST = "1" * 64
FLAVOURS = {"debug": ("base", "debug-vm")}


def a_run(*trials: TrialResult, name: str = "20260102-030405-demo", **changes: Any) -> Run:
    kernels = tuple(made.kernel(prefix=prefix) for prefix in (0, 1))
    run = dataclasses.replace(made.run(*trials), id=name, kernels=kernels, config=CONFIG)
    run = dataclasses.replace(run, **changes)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(to_json(run))
    return run


def entry(*runs: Run) -> Entry:
    made_of = None
    for run in runs:
        made_of = merge(made_of, KEY, condense(run, ORIGINS, CONFIG))
    assert made_of is not None
    return made_of


MIXED = (
    *(trial(BASE, index=i) for i in range(3)),
    trial(BASE, Status.LOST, index=3, reason="QEMU died"),
    trial(PATCHED, Status.CRASH, BUG, index=0),
    trial(PATCHED, Status.FAIL, STALE, BUG, index=1),
    trial(PATCHED, index=2),
    trial(PATCHED, Status.INCONCLUSIVE, index=3),
    trial(PATCHED, Status.TIMEOUT, where=cell("xfs"), reason="hung in boot"),
)


# -- condensing and merging -------------------------------------------------------------------------------------------


def test_a_run_is_condensed_to_its_facts() -> None:
    facts = condense(a_run(*MIXED), ORIGINS, CONFIG)
    assert (facts.base, facts.accelerator, facts.qemu, facts.budget) == ("debian:linux-source-6.12", "tcg", "7.2.9", 15)
    assert facts.flavours == (("debug", ("base", "debug-vm")),)  # release was not built
    assert facts.seeds == (1000, 1001, 1002, 1003)
    assert facts.warnings == ("debug: mm/filemap.c: unused variable",)
    counted = {(one.cell.rpartition("/")[2], one.side): dict(one.statuses) for one in facts.trials}
    assert counted == {
        ("ext4", BASE): {"PASS": 3, "LOST": 1},
        ("ext4", PATCHED): {"CRASH": 1, "FAIL": 1, "PASS": 1, "INCONCLUSIVE": 1},
        ("xfs", PATCHED): {"TIMEOUT": 1},
    }
    bug = next(one for one in facts.findings if one.title == BUG.title)
    assert (str(bug.patched), str(bug.base), bug.judgement) == ("2/3", "0/3", Judgement.INCONCLUSIVE)
    assert [one.status for one in facts.sightings] == ["CRASH", "FAIL", "TIMEOUT"]


def test_what_is_kept_is_enough_for_the_same_verdict() -> None:
    run = a_run(*MIXED)
    again, before = folded(entry(run)), fold(run.trials)
    assert (again.judgement, again.sentence) == (before.judgement, before.sentence)
    numbers = [dataclasses.replace(one, example="") for one in before.findings]
    assert list(again.findings) == numbers


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(made.trials, max_size=6))
def test_any_trials_keep_their_numbers(trials: list[TrialResult]) -> None:
    run = dataclasses.replace(made.run(*trials), kernels=(made.kernel(),), config=CONFIG)
    kept = entry(run)
    before, after = fold(trials), folded(kept)
    assert after.judgement is before.judgement
    assert sorted(str(one.patched) for one in after.findings) == sorted(str(one.patched) for one in before.findings)
    assert len(trials_of(kept)) == len(trials)


def test_runs_are_added_up_and_each_counts_once() -> None:
    one = a_run(trial(BASE), trial(PATCHED, Status.CRASH, BUG))
    other = a_run(trial(BASE, index=1), trial(PATCHED, index=1), name="20260103-000000-demo")
    both = entry(other, one, other)
    assert [run.id for run in both.runs] == [one.id, other.id]
    assert both == entry(one, other)
    (found,) = folded(both).findings
    assert (str(found.patched), str(found.base)) == ("1/2", "0/2")
    assert found.p_value == pytest.approx(5 / 16)


def test_a_run_of_other_bytes_starts_anew() -> None:
    one, other = a_run(trial()), a_run(trial(), name="later")
    fresh = merge(entry(one), "another key", condense(other, ORIGINS, CONFIG))
    assert (fresh.key, [run.id for run in fresh.runs]) == ("another key", ["later"])


def test_no_path_of_the_host_is_kept() -> None:
    odd = Finding(oracle="console", kind="bug", title="in /home/me/a b", signature="bug:/home/me/a", text="")
    base = dataclasses.replace(made.run().base, source="dir:/home/me/linux (6.12.1)")
    config = CONFIG | {"kernel": {"source": "dir:/home/me/linux"}}
    text = json.dumps(
        to_json(condense(a_run(trial(PATCHED, Status.CRASH, odd), base=base, config=config), ORIGINS, CONFIG))
    )
    assert "/home" not in text
    assert "me/" not in text
    assert "dir:linux (6.12.1)" in text
    assert "debug/smp4/truncate-race/ext4" in text
    url = dataclasses.replace(base, source="git:https://git.kernel.org/pub/linux.git#v6.12")
    assert condense(a_run(trial(), base=url), ORIGINS, CONFIG).base == url.source


def test_the_command_shows_the_example_again_in_a_clone() -> None:
    default = load(ROOT / "rig.yaml").model_dump(mode="json")
    ours = load(
        ROOT / "rig.yaml",
        ["flavours.debug=[base, debug-vm, lockdep]", "machines.smp4.cpus=3", "budget=2.5", "trials=2"],
    ).model_dump(mode="json")
    facts = condense(
        a_run(trial(BASE), trial(PATCHED, Status.CRASH, BUG), config=ours), ("patches/a", "patches/controls/b"), default
    )
    words = shlex.split(facts.findings[0].reproduce)
    assert words[:3] == ["rig", "test", "series=[patches/a, patches/controls/b]"]
    config = load(ROOT / "rig.yaml", words[2:])
    assert (config.seed, config.trials.min, config.trials.max, config.budget) == (1000, 1, 1, 2.5)
    assert [one.id for one in matrix.cells(config)] == [cell().id]
    assert config.flavours["debug"] == ("base", "debug-vm", "lockdep")
    assert config.machines["smp4"].cpus == 3
    assert not [word for word in words if word.startswith(("workloads", "kernel"))]


def test_a_run_that_went_on_where_it_was_in_doubt_is_not_recorded() -> None:
    for trials in (2, {"min": 2, "max": 2}):
        condense(a_run(trial(BASE), config={**CONFIG, "trials": trials}), ORIGINS, CONFIG)
    with pytest.raises(ConfigError, match="went on where it was in doubt"):
        condense(a_run(trial(BASE), config={**CONFIG, "trials": {"min": 1, "max": 2}}), ORIGINS, CONFIG)


def test_a_kernel_that_does_not_build_is_not_recorded() -> None:
    with pytest.raises(ConfigError, match="no kernels, so nothing is recorded: The patched kernel failed"):
        condense(a_run(trial(PATCHED, Status.FAIL, STALE), kernels=()), ORIGINS, CONFIG)


# -- controls ---------------------------------------------------------------------------------------------------------

BAD = Control(kind="bad", wrong="x", race="truncate", oracle="y", signature=("kernel BUG in filemap_*",))
GOOD = Control(kind="good", changes="x")


@pytest.mark.parametrize(
    ("control", "trials", "words", "by"),
    [
        (BAD, [trial(BASE), trial(PATCHED, Status.CRASH, BUG), trial(index=1)], "caught 1/2", BUG.title),
        (BAD, [trial(BASE), trial(PATCHED, Status.CRASH, STALE, BUG)], "caught 1/1", BUG.title),
        (BAD, [trial(BASE), trial(PATCHED, Status.FAIL, STALE)], "caught otherwise 1/1", STALE.title),
        (BAD, [trial(BASE), trial(PATCHED, Status.TIMEOUT, reason="hung")], "caught otherwise 1/1", "hung"),
        (BAD, [trial(BASE), trial(), trial(index=1)], "missed 0/2", ""),
        (BAD, [trial(BASE, Status.CRASH, BUG), trial(PATCHED, Status.CRASH, BUG)], "missed 0/1", ""),
        (BAD, [trial(BASE), trial(PATCHED, Status.LOST), trial(PATCHED, Status.SKIP)], "no trial counts", ""),
        (GOOD, [trial(BASE), trial(), trial(index=1)], "accused 0/2", ""),
        (GOOD, [trial(BASE), trial(PATCHED, Status.FAIL, STALE), trial(index=1)], "accused 1/2", STALE.title),
    ],
)
def test_what_became_of_a_control(control: Control, trials: list[TrialResult], words: str, by: str) -> None:
    result = outcome(control, entry(a_run(*trials)))
    assert (result.words, result.by, result.hit) == (words, by, bool(by))
    assert outcome(control, None).words == "no run yet"


ALONE = (trial(PATCHED, Status.CRASH, BUG), trial(index=1))


def test_a_control_that_was_run_without_the_base_is_caught() -> None:
    result = outcome(BAD, entry(a_run(*ALONE)))
    assert (result.words, result.by) == ("caught 1/2", BUG.title)


def test_what_the_base_showed_in_other_runs_accuses_nobody() -> None:
    alone, tree = entry(a_run(*ALONE)), made.run().base

    def other(*trials: TrialResult, tree: Base = tree) -> Entry:
        return dataclasses.replace(entry(a_run(*trials, base=tree)), key="other")

    seen = other(trial(BASE, Status.CRASH, BUG), trial())
    elsewhere = other(trial(BASE, Status.CRASH, BUG), tree=dataclasses.replace(tree, tree="f" * 40))
    clean = other(trial(BASE), trial(PATCHED, Status.CRASH, BUG))
    assert outcome(BAD, alone, [alone, seen]).words == "missed 0/2"
    assert outcome(GOOD, alone, [seen, clean]).words == "accused 0/2"
    assert outcome(BAD, alone, [alone, elsewhere, clean]).words == "caught 1/2"
    # Where both kernels were run, and the base showed it less often, it is the numbers that speak.
    both = [trial(BASE, index=i) for i in range(20)] + [trial(PATCHED, Status.CRASH, BUG, index=i) for i in range(20)]
    both[0] = trial(BASE, Status.CRASH, BUG)
    assert outcome(BAD, entry(a_run(*both)), []).words == "caught 20/20"
    known = Record(series={"controls/c": alone, "one": seen}, prefixes={})
    assert "caught 0 of 1" in controls_table([subject("controls/c", BAD)], known)


def test_the_most_frequent_finding_is_named() -> None:
    control = BAD.model_copy(update={"signature": ("*",)})
    trials = [trial(BASE, index=i) for i in range(3)]
    trials += [trial(PATCHED, Status.FAIL, STALE, index=i) for i in range(2)]
    result = outcome(control, entry(a_run(*trials, trial(PATCHED, Status.CRASH, BUG, index=2))))
    assert (result.words, result.by) == ("caught 3/3", STALE.title)


# -- tables -----------------------------------------------------------------------------------------------------------


def subject(name: str, control: Control | None = None) -> Subject:
    key = "other" if name == "two" else KEY
    keys = () if control else (FIRST, key)
    return Subject(name=name, origins=(f"patches/{name}",), key=key, patches=2, control=control, prefix_keys=keys)


def record_of(**entries: Entry) -> Record:
    return Record(series=entries, prefixes={})


def rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| [")]


def test_the_table_of_the_series() -> None:
    known = [subject("one"), subject("two"), subject("controls/c", BAD)]
    table = series_table(known, record_of(one=entry(a_run(*MIXED))), FLAVOURS)
    assert rows(table) == [
        [
            "[`one`](one/)",
            "2",
            "debian:linux-source-6.12",
            "0/2 prefixes: debug; not run: 1, 2; 1 new warning",
            "**INCONCLUSIVE**, base 3, patched 4 trials, 1 lost, 1 inconclusive (TCG)",
            "<br>".join(
                (
                    "kernel BUG in filemap_unaccount_folio: patched 2/3, base 0/3 in debug (inconclusive)",
                    "stale data after hole punch: patched 1/3, base 0/3 in debug (inconclusive)",
                    "hung in boot: patched 1/1, base 0/0 in debug (inconclusive)",
                )
            ),
        ],
        ["[`two`](two/)", "2", "-", "-", "no run yet", "-"],
    ]
    evidence = table.partition("To see a finding again:")[2].splitlines()
    assert [line for line in evidence if line.startswith("- ")] == [
        "- `one`: kernel BUG in filemap_unaccount_folio in debug/smp4/truncate-race/ext4",
        "- `one`: stale data after hole punch in debug/smp4/truncate-race/ext4",
        "- `one`: hung in boot in debug/smp4/truncate-race/xfs",
    ]
    commands = [line for line in evidence if line.startswith("      rig test ")]
    assert len(commands) == 3
    assert all("series=" in line and "seed=" in line for line in commands)


def test_no_finding_no_evidence() -> None:
    table = series_table([subject("one")], record_of(one=entry(a_run(trial(BASE), trial()))), FLAVOURS)
    assert len(table.splitlines()) == 3


def test_the_table_of_the_controls_has_the_bad_ones_first() -> None:
    def of(name: str, control: Control) -> Subject:
        return subject(f"controls/{name}", control.at(f"patches/controls/{name}"))

    known = [of("a", GOOD), of("b", BAD), of("c", BAD), of("d", GOOD), subject("series")]
    known[2] = of("c", BAD.model_copy(update={"wrong": "It is `a|b`,\n *very*. So it is."}))
    entries = {
        "controls/a": entry(a_run(trial(BASE), trial(), trial(index=1), trial(PATCHED, Status.LOST))),
        "controls/c": entry(a_run(trial(BASE), trial(PATCHED, Status.CRASH, BUG))),
    }
    table = controls_table(known, Record(series=entries, prefixes={}))
    assert table.splitlines()[0] == (
        "caught 1 of 2 known-bad, 0 of 2 known-good accused in 2 trials (2 without a run yet)"
    )
    assert [row[0] for row in rows(table)] == ["[`b`](b/)", "[`c`](c/)", "[`a`](a/)", "[`d`](d/)"]
    assert rows(table)[1][1:] == [
        "bad",
        r"It is \`a\|b\`, \*very\*.",
        "truncate",
        "debug; 1 new warning",
        "caught 1/1",
        "kernel BUG in filemap_unaccount_folio",
        "base 1, patched 1 trials (TCG)",
    ]
    assert rows(table)[0][4:] == ["-", "no run yet", "-", "-"]


@given(st.text(st.characters(), max_size=30))
def test_no_title_breaks_a_table(title: str) -> None:
    finding = dataclasses.replace(BUG, title=title, signature="x")
    record = record_of(one=entry(a_run(trial(BASE), trial(PATCHED, Status.FAIL, finding))))
    table, _, evidence = series_table([subject("one")], record, FLAVOURS).partition("\n\n")
    assert len(table.splitlines()) == 3
    assert sum(line.startswith("- ") for line in evidence.splitlines()) == 1
    assert len({line.count("|") - line.count("\\|") for line in table.splitlines()}) == 1
    table.encode()


@pytest.mark.parametrize(
    ("text", "first"),
    [("One. Two.", "One."), ("a.b() is\n  gone; yes. No", "a.b() is gone; yes."), ("none", "none"), ("", "")],
)
def test_a_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_a_readme_keeps_what_people_wrote() -> None:
    text = f"# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n"
    once = filled(text, "| new |", "README.md")
    assert once == f"# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nmore\n"
    assert filled(once, "| new |", "README.md") == once
    for broken in ("", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}"):
        with pytest.raises(ConfigError, match=r"README.md: expected one line"):
            filled(broken, "", "README.md")


# -- a project --------------------------------------------------------------------------------------------------------

PATCH = "Subject: [PATCH] {0}\n\n---\n--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-a\n+b\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the series `demo` and the control `wrong` on it."""
    patches = tmp_path / "patches"
    for home in (patches / "demo", patches / "controls/wrong"):
        home.mkdir(parents=True)
        (home / "0001-x.patch").write_text(PATCH.format(home.name))
    text = "kind: bad\nwrong: w\nrace: none\noracle: o\nsignature: kernel BUG*\non: demo\n"
    (patches / "controls/wrong/control.yaml").write_text(text)
    for home in (patches, patches / "controls"):
        (home / "README.md").write_text(f"{BEGIN}\n{END}\n")
    return tmp_path


def finished(project: Path, *origins: str, name: str = "20260102-030405-demo", old: bool = False) -> Path:
    """Write the results of a run of `origins` and return its folder."""
    read = series.read(*(str(project / origin) for origin in origins))
    run = a_run(trial(BASE), trial(PATCHED, Status.CRASH, BUG), name=name)
    info = dataclasses.replace(run.series, name=read.name, path=read.origin, key="" if old else read.key)
    folder = project / "results" / name
    write_results(folder / "results.json", dataclasses.replace(run, series=info))
    (folder / "plan.json").write_text(json.dumps({"series": read.key}))
    return folder


def record(project: Path, *places: Path) -> tuple[str, ...]:
    known = subjects(project)
    said = recorded.add(project, places, known, CONFIG)
    return (*said, *tables.write(project, known, FLAVOURS))


def complaint(project: Path) -> str | None:
    return tables.complaint(project, subjects(project), FLAVOURS)


def test_runs_are_recorded_for_the_series_that_has_their_bytes(project: Path) -> None:
    stack = ("patches/demo", "patches/controls/wrong")
    said = record(
        project, finished(project, "patches/demo"), finished(project, *stack, name="2", old=True) / "results.json"
    )
    assert said[:2] == (
        "patches/demo: INCONCLUSIVE recorded (1 run)",
        "patches/controls/wrong: INCONCLUSIVE recorded (1 run)",
    )
    assert list(recorded.read(project).series) == ["controls/wrong", "demo"]
    assert "caught 1 of 1 known-bad" in (project / "patches/controls/README.md").read_text()
    assert complaint(project) is None
    before = (project / "patches/verdicts.json").read_bytes()
    record(project, project / "results/2")
    assert (project / "patches/verdicts.json").read_bytes() == before
    assert str(project) not in before.decode()
    assert max(map(len, before.decode().splitlines())) < 300
    assert record(project) == ()


def test_other_bytes_are_refused_and_what_is_stale_is_dropped(project: Path) -> None:
    folder = finished(project, "patches/demo")
    record(project, folder)
    (project / "patches/demo/0001-x.patch").write_text(PATCH.format("y"))
    assert complaint(project) == (
        "patches/verdicts.json is about other patches than those of demo: "
        "run `ci/judge-patches` for them, or `ci/record-verdicts` to drop what was recorded"
    )
    before = (project / "patches/verdicts.json").read_bytes()
    with pytest.raises(
        ConfigError, match=r"tested other patches than patches/demo holds now.*\n.*ci/judge-patches demo"
    ):
        record(project, folder)
    assert (project / "patches/verdicts.json").read_bytes() == before
    assert record(project)[0] == "patches/demo: its patches are not what was recorded; dropped"
    assert complaint(project) is None
    (project / "elsewhere").mkdir()
    (project / "elsewhere/x.patch").write_text(PATCH.format("z"))
    with pytest.raises(ConfigError, match=r"tested elsewhere, which is no series of patches/"):
        record(project, finished(project, "elsewhere"))


def test_a_control_is_stale_when_what_it_is_stacked_on_changes(project: Path) -> None:
    record(project, finished(project, "patches/demo", "patches/controls/wrong"))
    (project / "patches/demo/0001-x.patch").write_text(PATCH.format("y"))
    assert "those of controls/wrong" in str(complaint(project))


def test_a_readme_that_was_edited_is_told(project: Path) -> None:
    assert "patches/README.md is not what" in str(complaint(project))
    record(project)
    assert complaint(project) is None
    control = project / "patches/controls/wrong/control.yaml"
    control.write_text(control.read_text().replace("race: none", "race: cow"))
    assert "patches/controls/README.md is not what" in str(complaint(project))


def test_a_run_without_results_is_not_recorded(project: Path) -> None:
    (project / "results").mkdir()
    with pytest.raises(ConfigError, match=r"results.json: not there, so nothing is recorded"):
        record(project, project / "results")


def test_two_series_may_not_be_the_same(project: Path) -> None:
    (project / "patches/demo/0001-x.patch").rename(project / "patches/demo/x.patch")
    (project / "patches/twin").mkdir()
    (project / "patches/twin/y.patch").write_text(PATCH.format("demo"))
    with pytest.raises(ConfigError, match="patches/twin and patches/demo are the same patches"):
        subjects(project)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(schema_version=2),
        lambda data: data.pop("series"),
        lambda data: data.update(series=[]),
        lambda data: data["series"]["demo"].update(extra=1),
        lambda data: data.update(prefixes=[]),
        lambda data: data.update(prefixes={"x": 1}),
        lambda data: data.update(prefixes={"x": [{"id": "1"}]}),
        lambda data: data["series"]["demo"]["runs"][0].pop("id"),
    ],
)
def test_a_file_that_is_damaged_is_told(project: Path, spoil: Callable[[Any], object]) -> None:
    record(project, finished(project, "patches/demo"))
    path = project / "patches/verdicts.json"
    data = json.loads(path.read_bytes())
    spoil(data)
    path.write_text(json.dumps(data))
    with pytest.raises(HostError, match=r"patches/verdicts.json cannot be read"):
        recorded.read(project)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(made.trials, max_size=4))
def test_what_is_written_is_what_is_read(tmp_path: Path, trials: list[TrialResult]) -> None:
    run = dataclasses.replace(made.run(*trials), kernels=(made.kernel(),), config=CONFIG)
    facts: RunFacts = entry(run).runs[0]
    assert facts.patches == 1
    record = Record(series={"demo": entry(run)}, prefixes={KEY: (as_prefix(facts),)})
    recorded.write(tmp_path, record)
    assert recorded.read(tmp_path) == record
