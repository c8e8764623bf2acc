"""The fold: base against patched, in numbers."""

from __future__ import annotations

import madeup as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from madeup import BUG, STALE, cell, trial

from rig.model import Excluded, Finding, FindingVerdict, Judgement, Side, Status, Tally, TrialResult
from rig.verdicts.verdict import Rules, causes, excluded_rate, fold

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


# -- judgements -------------------------------------------------------------------------------------------------------


def test_one_crash_beside_a_clean_base_accuses_nobody_and_is_told_all_the_same() -> None:
    trials = [*passes(BASE, 4), *crashes(PATCHED, 1), *passes(PATCHED, 3, start=1)]
    found = only(trials)
    assert found.judgement is Judgement.INCONCLUSIVE
    assert (str(found.patched), str(found.base)) == ("1/4", "0/4")
    assert found.sentence.startswith("patched 1/4, base 0/4, p = 0.36: seen on the patched kernel only")
    assert "can be luck, more trials would tell" in found.sentence
    assert found.example == trials[4].evidence
    assert fold(trials).judgement is Judgement.INCONCLUSIVE
    assert f"failed, and it may be luck: {BUG.title} (patched 1/4" in fold(trials).sentence


def test_rates_have_intervals() -> None:
    found = only([*passes(BASE, 4), *crashes(PATCHED, 1), *passes(PATCHED, 3, start=1)])
    assert found.base_interval is not None
    assert found.patched_interval is not None
    assert found.base_interval.low == 0.0
    assert found.base_interval.high == pytest.approx(1 - 0.025 ** (1 / 4))
    assert found.patched_interval.low == pytest.approx(1 - 0.975 ** (1 / 4))
    alone = only(crashes(PATCHED, 1))
    assert alone.base_interval is None


def test_a_build_that_fails_is_no_matter_of_luck() -> None:
    broken = Finding(oracle="build", kind="build", title="patch 2 breaks the build", signature="build:x")
    found = only([*passes(BASE, 1), *crashes(PATCHED, 1, finding=broken)])
    assert (found.judgement, found.p_value) == (Judgement.REGRESSION, 0.0)
    assert found.sentence == "patched 1/1, base 0/1: no matter of luck"


def test_many_questions_at_once_take_more_to_be_sure() -> None:
    """Of 20 findings of a good kernel one has p = 0.05 by luck."""
    faces = [Finding(oracle="console", kind="bug", title=f"bug in f{n}", signature=f"bug:f{n}") for n in range(20)]
    alone = [*passes(BASE, 10), *crashes(PATCHED, 4), *passes(PATCHED, 6, start=4)]
    assert only(alone).judgement is Judgement.REGRESSION
    others = [trial(side, Status.CRASH, *faces, index=20) for side in (BASE, PATCHED)]
    found = next(one for one in fold([*alone, *others]).findings if one.signature == BUG.signature)
    assert found.judgement is Judgement.INCONCLUSIVE
    assert found.p_value < 0.05 < (found.p_adjusted or 0)
    assert "for 22 questions at once)" in found.sentence  # 21 findings, and all of them together


def test_many_crashes_are_no_luck() -> None:
    found = only([*passes(BASE, 6), *crashes(PATCHED, 6)])
    assert found.p_value < 0.01
    assert "not by chance" in found.sentence


@pytest.mark.parametrize(("number", "words"), [(3, "p = 0.02"), (4, "p = 0.004"), (8, "p < 0.0001")])
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
    assert found.p_value == pytest.approx(1 / 256)
    once = only([*crashes(BASE, 1), *passes(PATCHED, 1)])
    assert once.judgement is Judgement.KNOWN
    assert "seen on the base only, which may be chance" in once.sentence


def test_on_both_sides_but_far_less_often_is_known_and_told() -> None:
    found = only([*crashes(BASE, 15), *passes(BASE, 5, start=15), *crashes(PATCHED, 1), *passes(PATCHED, 19, start=1)])
    assert found.judgement is Judgement.KNOWN
    assert found.p_value < 0.0001
    assert "the base has it too, and more often, not by chance" in found.sentence


def test_nothing_found_says_what_it_excludes() -> None:
    verdict = fold([*passes(BASE, 4), *passes(PATCHED, 40)])
    assert verdict.judgement is Judgement.CLEAN
    assert "failure rate below 7.2 % at 95 %" in verdict.sentence
    assert verdict.excluded_rate == excluded_rate(40)
    sure = fold([*passes(BASE, 4), *passes(PATCHED, 40)], Rules(least=40, most=40, confidence=0.99))
    assert "failure rate below 10.9 % at 99 %" in sure.sentence


def test_each_cell_without_findings_says_what_it_excludes() -> None:
    verdict = fold([*crashes(PATCHED, 1), *passes(PATCHED, 3, start=1), *passes(PATCHED, 9, where="xfs")])
    assert verdict.excluded_rate is None
    assert verdict.excludes == (Excluded(cell=cell("xfs").id, trials=9, rate=excluded_rate(9)),)
    assert fold([trial(PATCHED, Status.LOST)]).excludes == ()


def test_the_gravest_judgement_names_the_run() -> None:
    known = [*crashes(BASE, 2), *crashes(PATCHED, 2)]
    fixed = crashes(BASE, 5, start=2, finding=STALE)
    assert fold([*known, *fixed]).judgement is Judgement.KNOWN
    kasan = Finding(oracle="console", kind="kasan", title="k", signature="k:k")
    doubt = crashes(PATCHED, 1, start=5, finding=kasan)
    assert fold([*known, *fixed, *doubt, *passes(PATCHED, 4, start=6)]).judgement is Judgement.INCONCLUSIVE
    worse = crashes(PATCHED, 8, start=5, finding=kasan)
    assert fold([*known, *fixed, *worse]).judgement is Judgement.REGRESSION
    assert fold([*fixed, *passes(PATCHED, 5)]).judgement is Judgement.FIXED


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
    assert found.judgement is Judgement.INCONCLUSIVE
    assert found.patched == Tally(failures=1, trials=1)
    assert "no base trial to compare with" in found.sentence


def test_seen_on_both_sides_in_different_cells_is_known_and_not_fixed() -> None:
    trials = [*crashes(BASE, 2, where="xfs"), *passes(PATCHED, 2, where="xfs"), *crashes(PATCHED, 2)]
    assert only(trials).judgement is Judgement.KNOWN


def test_a_run_without_base() -> None:
    verdict = fold([*crashes(PATCHED, 1), *passes(PATCHED, 3, start=1)])
    assert verdict.judgement is Judgement.INCONCLUSIVE
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
    hung = [trial(PATCHED, Status.TIMEOUT, reason="hung at 77 %", index=index) for index in range(3)]
    found = only([*hung, *passes(BASE, 3)])
    assert found.judgement is Judgement.REGRESSION
    assert found.title == "hung at 77 %"


@settings(deadline=None)
@given(st.lists(made.trials, max_size=12), st.sampled_from([Rules(), Rules(least=1, most=4)]))
def test_any_trials_fold(trials: list[TrialResult], rules: Rules) -> None:
    verdict = fold(trials, rules)
    if any(found.judgement is Judgement.REGRESSION for found in verdict.findings):
        assert verdict.judgement is Judgement.REGRESSION
    for found in verdict.findings:
        assert 0 <= found.p_value <= 1
        assert found.base.failures <= found.base.trials
        assert found.patched.failures <= found.patched.trials
    if any(t.side is PATCHED and t.status.bad for t in trials):
        assert verdict.judgement in (Judgement.REGRESSION, Judgement.INCONCLUSIVE, Judgement.KNOWN)


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
    assert all(one.judgement is Judgement.INCONCLUSIVE for one in found.findings)
    assert found.judgement is Judgement.REGRESSION
    assert "patched 4/4, base 0/4, p = 0.004 (p = 0.008 for 3 questions at once): not by chance" in found.sentence
    alone = fold([*crashes(PATCHED, 1), *crashes(PATCHED, 1, start=1, finding=STALE), *passes(BASE, 2)])
    assert alone.judgement is Judgement.INCONCLUSIVE
