"""The fold: base against patched, in numbers."""

from __future__ import annotations

from itertools import combinations

import madeup as made
import pytest
from hypothesis import given
from hypothesis import strategies as st
from madeup import BUG, STALE, cell, trial

from rig.model import Finding, FindingVerdict, Judgement, Side, Status, Tally, TrialResult
from rig.verdict import causes, excluded_rate, fisher, fold

BASE, PATCHED = Side.BASE, Side.PATCHED


def crashes(
    side: Side, number: int, *, start: int = 0, finding: Finding = BUG, where: str = "ext4"
) -> list[TrialResult]:
    return [trial(side, Status.CRASH, finding, where=cell(where), index=start + i) for i in range(number)]


def passes(side: Side, number: int, *, start: int = 0, where: str = "ext4") -> list[TrialResult]:
    return [trial(side, where=cell(where), index=start + i) for i in range(number)]


def only(trials: list[TrialResult]) -> FindingVerdict:
    (found,) = fold(trials).findings
    return found


# -- Fisher's test ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((1, 4, 0, 4), 0.5),  # by hand: C(7,3) / C(8,4)
        ((3, 3, 0, 3), 0.05),  # the lady tasting tea, with six cups
        ((4, 4, 0, 4), 1 / 70),  # and with eight
        ((0, 4, 0, 4), 1.0),
        ((0, 0, 0, 0), 1.0),
        ((2, 2, 0, 0), 1.0),
        ((0, 4, 4, 4), 1.0),
    ],
)
def test_fisher_by_hand(table: tuple[int, int, int, int], expected: float) -> None:
    assert fisher(*table) == pytest.approx(expected)


@given(st.integers(0, 5), st.integers(0, 5), st.data())
def test_fisher_agrees_with_a_plain_count(trials: int, other: int, data: st.DataObject) -> None:
    failures, other_failures = data.draw(st.integers(0, trials)), data.draw(st.integers(0, other))
    ways = list(combinations(range(trials + other), failures + other_failures))
    as_bad = sum(sum(who < trials for who in failed) >= failures for failed in ways)
    assert fisher(failures, trials, other_failures, other) == pytest.approx(as_bad / len(ways))


def test_fisher_of_many_trials_is_exact_and_finite() -> None:
    assert 0 < fisher(300, 1000, 200, 1000) < 1e-6


@pytest.mark.parametrize(("trials", "rate"), [(0, 1.0), (1, 0.95), (4, 0.527), (40, 0.0722), (131, 0.0226)])
def test_rate_that_is_excluded(trials: int, rate: float) -> None:
    assert excluded_rate(trials) == pytest.approx(rate, abs=0.0005)


# -- judgements -------------------------------------------------------------------------------------------------------


def test_one_crash_beside_a_clean_base_is_a_regression_that_says_how_sure_it_is() -> None:
    trials = [*passes(BASE, 4), *crashes(PATCHED, 1), *passes(PATCHED, 3, start=1)]
    found = only(trials)
    assert found.judgement is Judgement.REGRESSION
    assert (str(found.patched), str(found.base)) == ("1/4", "0/4")
    assert found.sentence.startswith("patched 1/4, base 0/4, p = 0.50")
    assert "luck" in found.sentence
    assert found.example == trials[4].evidence
    assert fold(trials).judgement is Judgement.REGRESSION
    assert BUG.title in fold(trials).sentence


def test_many_crashes_are_no_luck() -> None:
    found = only([*passes(BASE, 6), *crashes(PATCHED, 6)])
    assert found.p_value < 0.01
    assert "not by chance" in found.sentence


@pytest.mark.parametrize(("number", "words"), [(4, "p = 0.01"), (6, "p = 0.001"), (8, "p < 0.0001")])
def test_a_p_value_is_told_as_people_write_it(number: int, words: str) -> None:
    found = only(crashes(PATCHED, number) + passes(BASE, number))
    assert found.sentence.startswith(f"patched {number}/{number}, base 0/{number}, {words}: ")


def test_on_both_sides_alike_is_known() -> None:
    found = only([*crashes(BASE, 2), *passes(BASE, 2, start=2), *crashes(PATCHED, 3), *passes(PATCHED, 1, start=3)])
    assert found.judgement is Judgement.KNOWN
    assert found.p_value > 0.05


def test_on_both_sides_but_far_more_often_is_a_regression() -> None:
    found = only([*crashes(BASE, 1), *passes(BASE, 19, start=1), *crashes(PATCHED, 15), *passes(PATCHED, 5, start=15)])
    assert found.judgement is Judgement.REGRESSION
    assert "less often" in found.sentence


def test_on_the_base_only_is_fixed() -> None:
    found = only([*crashes(BASE, 4), *passes(PATCHED, 4)])
    assert found.judgement is Judgement.FIXED
    assert found.p_value == pytest.approx(1 / 70)
    assert "may be chance" in only([*crashes(BASE, 1), *passes(PATCHED, 1)]).sentence


def test_nothing_found_says_what_it_excludes() -> None:
    verdict = fold([*passes(BASE, 4), *passes(PATCHED, 40)])
    assert verdict.judgement is Judgement.CLEAN
    assert "above 7.2 % per trial is excluded at 95 %" in verdict.sentence


def test_the_gravest_judgement_names_the_run() -> None:
    known = [*crashes(BASE, 2), *crashes(PATCHED, 2)]
    fixed = crashes(BASE, 2, start=2, finding=STALE)
    assert fold([*known, *fixed]).judgement is Judgement.KNOWN
    worse = crashes(PATCHED, 1, start=5, finding=Finding(oracle="console", kind="kasan", title="k", signature="k:k"))
    assert fold([*known, *fixed, *worse]).judgement is Judgement.REGRESSION
    assert fold([*fixed, *passes(PATCHED, 2)]).judgement is Judgement.FIXED


# -- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.LOST, Status.SKIP, Status.INCONCLUSIVE])
def test_what_says_nothing_does_not_count(status: Status) -> None:
    nothing = [trial(PATCHED, status, index=9), trial(BASE, status, index=9)]
    found = only([*passes(BASE, 2), *crashes(PATCHED, 2), *nothing])
    assert (found.patched, found.base) == (Tally(failures=2, trials=2), Tally(failures=0, trials=2))
    verdict = fold(nothing)
    assert verdict.judgement is Judgement.INCONCLUSIVE
    assert any(cell().id in note for note in verdict.notes)


def test_cells_that_only_one_side_ran_do_not_tip_the_scales() -> None:
    found = only([*passes(BASE, 2), *crashes(PATCHED, 1), *passes(PATCHED, 1, start=1), *passes(BASE, 50, where="xfs")])
    assert (str(found.patched), str(found.base)) == ("1/2", "0/2")


def test_numbers_of_the_cells_it_was_seen_in_alone() -> None:
    found = only(
        [*passes(BASE, 2), *crashes(PATCHED, 2), *passes(BASE, 3, where="xfs"), *passes(PATCHED, 3, where="xfs")]
    )
    assert (str(found.patched), str(found.base)) == ("2/5", "0/5")
    assert (str(found.patched_there), str(found.base_there)) == ("2/2", "0/2")
    assert found.cells == (cell().id,)


def test_a_crash_where_the_base_was_lost_is_still_told() -> None:
    found = only(
        [
            trial(BASE, Status.LOST),
            *crashes(PATCHED, 1),
            *passes(BASE, 4, where="xfs"),
            *passes(PATCHED, 4, where="xfs"),
        ]
    )
    assert found.judgement is Judgement.REGRESSION
    assert found.patched == Tally(failures=1, trials=1)
    assert "no base trial to compare with" in found.sentence


def test_seen_on_both_sides_in_different_cells_is_known_and_not_fixed() -> None:
    trials = [*crashes(BASE, 2, where="xfs"), *passes(PATCHED, 2, where="xfs"), *crashes(PATCHED, 2)]
    assert only(trials).judgement is Judgement.KNOWN


def test_a_run_without_base() -> None:
    verdict = fold([*crashes(PATCHED, 1), *passes(PATCHED, 3, start=1)])
    assert verdict.judgement is Judgement.REGRESSION
    assert "1/4, no base trial" in verdict.sentence
    assert any("cannot be laid on the series" in note for note in verdict.notes)
    assert fold(passes(PATCHED, 3)).judgement is Judgement.CLEAN


def test_a_run_of_the_base_alone() -> None:
    assert fold(crashes(BASE, 2)).judgement is Judgement.KNOWN
    assert fold(passes(BASE, 2)).judgement is Judgement.INCONCLUSIVE
    assert fold([]).judgement is Judgement.INCONCLUSIVE


def test_a_cell_that_the_host_lost_leaves_the_verdict_open() -> None:
    verdict = fold([*passes(BASE, 2), *passes(PATCHED, 2), trial(PATCHED, Status.LOST, where=cell("xfs"))])
    assert verdict.judgement is Judgement.INCONCLUSIVE
    assert "debug/smp4/truncate-race/xfs were lost" in verdict.sentence
    assert fold([*passes(PATCHED, 2), trial(PATCHED, Status.LOST, index=5)]).judgement is Judgement.CLEAN


def test_tcg_is_named() -> None:
    assert any("TCG" in note for note in fold(passes(PATCHED, 1)).notes)


def test_echoes_accuse_nobody_and_a_signature_counts_once_a_trial() -> None:
    echo = Finding(oracle="console", kind="warning", title="echo", signature="warning:do_exit", echo=True)
    found = only([trial(PATCHED, Status.CRASH, BUG, echo, BUG), *passes(BASE, 1)])
    assert found.signature == BUG.signature
    assert found.patched == Tally(failures=1, trials=1)
    assert causes(trial(PATCHED, Status.CRASH, echo)) == (echo,)


def test_a_bad_trial_without_any_finding_is_found_all_the_same() -> None:
    found = only([trial(PATCHED, Status.TIMEOUT, reason="hung at 77 %"), *passes(BASE, 1)])
    assert found.judgement is Judgement.REGRESSION
    assert found.title == "hung at 77 %"


@given(st.lists(made.trials, max_size=12))
def test_any_trials_fold(trials: list[TrialResult]) -> None:
    verdict = fold(trials)
    assert (verdict.judgement is Judgement.REGRESSION) == any(
        found.judgement is Judgement.REGRESSION for found in verdict.findings
    )
    for found in verdict.findings:
        assert 0 <= found.p_value <= 1
        assert found.base.failures <= found.base.trials
        assert found.patched.failures <= found.patched.trials
    if any(t.side is PATCHED and t.status.bad for t in trials):
        assert verdict.judgement in (Judgement.REGRESSION, Judgement.KNOWN)


def test_only_cells_lost_on_the_patched_side_are_holes() -> None:
    others = [trial(BASE, Status.LOST, where=cell("xfs")), trial(PATCHED, Status.INCONCLUSIVE, where=cell("tmpfs"))]
    assert fold([*passes(BASE, 2), *passes(PATCHED, 2), *others]).judgement is Judgement.CLEAN


def test_notes_say_what_is_missing_and_no_more() -> None:
    assert fold([*passes(BASE, 1), *passes(PATCHED, 1)]).notes == (
        "ran under TCG: timing differs from hardware, and weak memory ordering cannot show",
    )
    notes = fold([*passes(BASE, 1), *passes(PATCHED, 1), *passes(PATCHED, 1, where="xfs")]).notes
    assert "no base trial counts in: debug/smp4/truncate-race/xfs" in notes
    assert not any("no base trial counts in" in note for note in fold(passes(PATCHED, 1)).notes)
    lost = fold([trial(BASE, Status.LOST, reason="QEMU died"), *passes(BASE, 1, start=1), *passes(PATCHED, 1)]).notes
    assert (
        "1 trial lost: the machine, not the kernel, failed; the first: debug/smp4/truncate-race/ext4 (QEMU died)"
        in lost
    )


def test_sentences() -> None:
    known = [*crashes(BASE, 2), *crashes(PATCHED, 2)]
    assert "the base has it too, and not clearly less often" in only(known).sentence
    assert " more" not in fold(known).sentence
    both = [trial(side, Status.CRASH, BUG, STALE) for side in (BASE, PATCHED)]
    assert f"{BUG.title}, and 1 more (" in fold(both).sentence


def test_the_faces_of_one_bug_are_surer_together() -> None:
    bad = [*crashes(PATCHED, 2), *crashes(PATCHED, 2, start=2, finding=STALE)]
    found = fold([*bad, *passes(BASE, 4)])
    assert all(one.p_value > 0.05 for one in found.findings)
    assert "patched 4/4, base 0/4, p = 0.01: not by chance" in found.sentence
    alone = fold([*crashes(PATCHED, 1), *crashes(PATCHED, 1, start=1, finding=STALE), *passes(BASE, 1)])
    assert "which may be chance" in alone.sentence
