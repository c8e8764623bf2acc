"""Two runs side by side: what is new, gone, worse or better, and what weakens the comparison."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import madeup as made
import pytest
from hypothesis import HealthCheck, given, settings
from madeup import BUG, STALE, cell, trial

from rig.comparison.changes import SCHEMA, Change, Comparison, FindingChange, PatchChange, compare, match
from rig.comparison.compare import text
from rig.model import Finding, Judgement, Side, Status, TrialResult
from rig.runs.results import Patch, Run, to_json
from rig.verdicts.expectations import Issue, Known
from rig.verdicts.verdict import Rules, fold

BASE, PATCHED = Side.BASE, Side.PATCHED


def trials(
    failing: int, number: int = 4, finding: Finding = BUG, side: Side = PATCHED, **more: Any
) -> list[TrialResult]:
    bad = [trial(side, Status.CRASH, finding, index=i, **more) for i in range(failing)]
    return [*bad, *(trial(side, index=i, **more) for i in range(failing, number))]


def a_run(*some: list[TrialResult], **changes: Any) -> Run:
    return dataclasses.replace(made.run(*(one for part in some for one in part)), **changes)


def only(a: Run, b: Run) -> FindingChange:
    (found,) = compare(a, b).findings
    return found


CLEAN = a_run(trials(0), trials(0, side=BASE))


def test_nothing_to_nothing() -> None:
    compared = compare(CLEAN, CLEAN)
    assert (compared.worse, compared.findings, compared.differences) == (False, (), ())
    assert "no findings at all" in compared.sentence


def test_a_new_finding_counts_and_says_how_sure_it_is() -> None:
    found = only(CLEAN, a_run(trials(3), trials(0, side=BASE)))
    assert (found.change, found.counts, str(found.a), str(found.b)) == (Change.NEW, True, "0/4", "3/4")
    assert (found.a_judgement, found.b_judgement) == (None, Judgement.REGRESSION)
    assert found.sentence.startswith("patched 0/4 before, 3/4 now, p = 0.0")
    assert "luck" not in found.sentence
    once = only(CLEAN, a_run(trials(1), trials(0, side=BASE)))
    assert (once.change, once.counts) == (Change.NEW, True)
    assert "which can be luck" in once.sentence


def test_a_finding_that_is_gone_does_not_count() -> None:
    found = only(a_run(trials(3), trials(0, side=BASE)), CLEAN)
    assert (found.change, found.counts, found.b_judgement) == (Change.GONE, False, None)
    assert found.example == trials(3)[0].evidence


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [(1, 18, Change.WORSE), (18, 1, Change.BETTER), (9, 11, Change.SAME), (9, 9, Change.SAME)],
)
def test_how_often_it_is_seen(before: int, now: int, change: Change) -> None:
    a, b = (a_run(trials(number, 20), trials(1, 20, side=BASE)) for number in (before, now))
    found = only(a, b)
    assert found.change is change
    assert found.counts == (change is Change.WORSE and found.b_judgement is Judgement.REGRESSION)


def test_what_has_become_a_regression_is_worse() -> None:
    found = only(a_run(trials(2), trials(2, side=BASE)), a_run(trials(3), trials(0, side=BASE)))
    assert (found.a_judgement, found.b_judgement, found.change) == (Judgement.KNOWN, Judgement.REGRESSION, Change.WORSE)
    assert found.counts


def test_what_the_same_base_has_is_not_the_series() -> None:
    b = a_run(trials(1), trials(1, side=BASE))
    assert not only(CLEAN, b).counts
    assert "the base has it too" in only(CLEAN, b).sentence
    other = dataclasses.replace(b, base=dataclasses.replace(b.base, tree="9" * 40))
    assert only(CLEAN, other).counts


def test_a_known_issue_is_told_and_does_not_count() -> None:
    some = [*trials(3), *trials(0, side=BASE)]
    rules = Rules(known=Known("k", (Issue(title=BUG.title, reason="flaky"),)))
    b = dataclasses.replace(a_run(some), verdict=fold(some, rules))
    assert (only(CLEAN, b).change, only(CLEAN, b).counts) == (Change.NEW, False)
    assert "a known issue" in only(CLEAN, b).sentence


def test_cells_that_only_one_run_has_do_not_tip_the_scales_and_are_named() -> None:
    xfs = cell("xfs")
    a = a_run(trials(4), trials(0, side=BASE))
    b = a_run(trials(4), trials(0, side=BASE), trials(0, 50, where=xfs))
    found = only(a, b)
    assert (found.change, str(found.b)) == (Change.SAME, "4/4")
    assert (compare(a, b).cells_new, compare(a, b).cells_gone) == ((xfs.id,), ())
    assert (compare(b, a).cells_new, compare(b, a).cells_gone) == ((), (xfs.id,))
    there = only(CLEAN, a_run(trials(0), trials(2, 2, where=xfs)))
    assert (there.change, there.counts, there.sentence) == (
        Change.NEW,
        True,
        "patched 2/2 now, in cells that the first run does not have",
    )


def test_the_worst_is_told_first() -> None:
    compared = compare(a_run(trials(4, finding=STALE)), a_run(trials(4)))
    assert [one.change for one in compared.findings] == [Change.NEW, Change.GONE]
    assert compared.sentence.startswith(f"{BUG.title} is new (")


# -- patches ----------------------------------------------------------------------------------------------------------


def patches(*subjects: str) -> tuple[Patch, ...]:
    return tuple(Patch(number=n, subject=name, commit="c", tree="t") for n, name in enumerate(subjects, 1))


def matched(a: str, b: str, a_ids: str, b_ids: str) -> list[tuple[int | None, int | None, str]]:
    found = match(patches(*a), patches(*b), tuple(a_ids), tuple(b_ids))
    return [(one.a, one.b, str(one.change)) for one in found]


def test_patches_are_matched_by_what_they_change_and_then_by_subject() -> None:
    assert matched("abc", "abc", "123", "123") == [(1, 1, "same"), (2, 2, "same"), (3, 3, "same")]
    assert matched("abc", "abc", "123", "193") == [(1, 1, "same"), (2, 2, "changed"), (3, 3, "same")]
    assert matched("ab", "xa", "12", "21") == [(2, 1, "same"), (1, 2, "same")]  # renamed, and moved
    assert matched("abc", "acd", "123", "134") == [(1, 1, "same"), (2, None, "gone"), (3, 2, "same"), (None, 3, "new")]
    assert matched("ab", "", "12", "") == [(1, None, "gone"), (2, None, "gone")]
    assert matched("aa", "aaa", "12", "345") == [(1, 1, "changed"), (2, 2, "changed"), (None, 3, "new")]


def test_without_the_patches_the_subject_alone_speaks() -> None:
    assert matched("ab", "ac", "", "") == [(1, 1, "unknown"), (2, None, "gone"), (None, 2, "new")]
    (one,) = match(patches("mm: Do it"), patches("mm: do it"))
    assert one == PatchChange(a=1, b=1, subject="mm: do it", change=Change.UNKNOWN)


# -- surroundings, text, JSON -----------------------------------------------------------------------------------------


def test_what_weakens_the_comparison_is_told() -> None:
    other = dataclasses.replace(
        CLEAN,
        host=dataclasses.replace(CLEAN.host, accelerator="kvm", compiler="clang"),
        base=dataclasses.replace(CLEAN.base, tree="9" * 40),
        config={**CLEAN.config, "budget": 99, "trials": {"min": 2, "max": 8, "confidence": 0.95}},
        complete=False,
    )
    told = {one.what: (one.a, one.b) for one in compare(CLEAN, other).differences}
    assert told.keys() == {"accelerator", "compiler", "base", "budget", "trials", "complete"}
    assert told["accelerator"] == ("tcg", "kvm")
    assert told["trials"][1] == "2 to 8"


def test_plain_text_has_everything() -> None:
    b = a_run(trials(3), trials(0, side=BASE), trials(0, where=cell("xfs")))
    b = dataclasses.replace(b, host=dataclasses.replace(b.host, qemu="9.0"))
    lines = text(compare(CLEAN, b), Path("old"), Path("new"))
    assert lines.startswith(f"WORSE: {BUG.title} is new (patched 0/4 before, 3/4 now")
    for piece in (
        f"  new     {BUG.title}",
        "A not seen, B REGRESSION; in debug/smp4/truncate-race/ext4",
        "rig rerun new/trials/patched/debug-smp4-truncate-race-ext4-0",
        "cell only in B: debug/smp4/truncate-race/xfs",
        "differs: QEMU: 7.2.9 -> 9.0; timing",
    ):
        assert piece in lines
    assert "rig rerun old/" in text(compare(b, CLEAN), Path("old"), Path("new"))
    assert text(compare(CLEAN, CLEAN), Path("a"), Path("b")).startswith("NOTHING NEW: ")


def schema() -> Any:
    return json.loads(SCHEMA.read_text())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(made.runs, made.runs)
def test_any_two_runs_compare_and_fit_the_schema(a: Run, b: Run) -> None:
    compared = compare(a, b)
    jsonschema.Draft202012Validator(schema()).validate(to_json(compared))
    assert compared.worse == any(one.counts for one in compared.findings)
    assert not any(one.counts for one in compare(a, a).findings)
    assert text(compared, Path("a"), Path("b"))


def test_the_schema_names_every_field() -> None:
    described = schema()
    jsonschema.Draft202012Validator.check_schema(described)
    for kind, place in ((Comparison, described), (FindingChange, described["$defs"]["FindingChange"])):
        assert place["properties"].keys() == {field.name for field in dataclasses.fields(kind)}
