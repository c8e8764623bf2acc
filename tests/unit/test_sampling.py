"""How often a cell is run: where it is in doubt, while it can change, and never so that a good patch is accused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from madeup import BUG, STALE, cell, trial

from rig.model import Cell, Finding, Judgement, Side, Status, Stopped, TrialResult, Verdict
from rig.verdicts.expectations import Issue, Known
from rig.verdicts.questions import ask
from rig.verdicts.sampling import asked, more
from rig.verdicts.statistics import pairs_needed
from rig.verdicts.verdict import Rules, fold

BASE, PATCHED = Side.BASE, Side.PATCHED
RULES = Rules(least=1, most=8)
CELLS = (cell("tmpfs"), cell("ext4"), cell("xfs"))

#: What a kernel shows in a trial: a cell and an index in, findings out.
Nature = Callable[[Side, Cell, int], Sequence[Finding]]


def run(nature: Nature, rules: Rules = RULES, cells: Sequence[Cell] = CELLS) -> list[TrialResult]:
    """Return the trials of a whole run as the campaign makes them."""

    def pair(where: Cell, index: int) -> list[TrialResult]:
        shown = {side: nature(side, where, index) for side in Side}
        return [
            trial(side, Status.CRASH if found else Status.PASS, *found, where=where, index=index)
            for side, found in shown.items()
        ]

    done = [one for index in range(rules.least) for where in cells for one in pair(where, index)]
    names = tuple(one.id for one in cells)
    while chosen := more(done, names, rules):
        ran = asked(done)
        done += [one for where in cells if where.id in chosen for one in pair(where, ran[where.id])]
    return done


def always_in(where: Cell, *findings: Finding, side: Side = PATCHED) -> Nature:
    return lambda here, there, _: findings if here is side and there == where else ()


def judged(nature: Nature, rules: Rules = RULES) -> tuple[Verdict, dict[str, int]]:
    done = run(nature, rules)
    return fold(done, rules), dict(asked(done))


# -- where and how long -----------------------------------------------------------------------------------------------


def test_a_good_patch_is_run_no_more_often_than_it_must() -> None:
    verdict, ran = judged(lambda *_: ())
    assert verdict.judgement is Judgement.CLEAN
    assert set(ran.values()) == {1}
    assert verdict.sampling is not None
    assert (verdict.sampling.stopped, verdict.sampling.extended) == (Stopped.CLEAR, ())
    assert "no cell went on; it ended as soon as the answer was clear" in verdict.notes[0]


def test_a_bad_one_is_run_where_it_shows_until_it_is_clear_and_no_longer() -> None:
    verdict, ran = judged(always_in(CELLS[1], BUG))
    assert ran == {CELLS[0].id: 1, CELLS[1].id: pairs_needed(), CELLS[2].id: 1}
    (found,) = verdict.findings
    assert (found.judgement, found.stopped, found.test) == (Judgement.REGRESSION, Stopped.CLEAR, "pairs")
    assert verdict.sampling is not None
    assert verdict.sampling.extended == ((CELLS[1].id, 5),)
    assert "1 cell went on, debug/smp4/truncate-race/ext4 to 5" in verdict.sampling.sentence


def test_what_was_a_lucky_hit_goes_on_to_the_end_and_accuses_nobody() -> None:
    verdict, ran = judged(lambda side, where, index: [BUG] * (side is PATCHED and where == CELLS[0] and index == 0))
    assert verdict.judgement is Judgement.INCONCLUSIVE
    (found,) = verdict.findings
    assert found.stopped in (Stopped.BUDGET, Stopped.FUTILE)
    assert 1 < ran[CELLS[0].id] <= RULES.most
    assert ran[CELLS[1].id] == 1


def test_it_ends_when_the_trials_that_are_left_cannot_tell() -> None:
    few = Rules(least=1, most=pairs_needed() - 1)
    verdict, ran = judged(always_in(CELLS[0], BUG), few)
    assert set(ran.values()) == {1}
    assert verdict.findings[0].stopped is Stopped.FUTILE
    assert "could not have changed it" in verdict.notes[0]
    assert "those left could not have told" in verdict.findings[0].sentence


def test_it_ends_at_the_greatest_number() -> None:
    """Seen in every second pair: in doubt at each look, and within reach until the last."""
    rules = Rules(least=1, most=6)
    verdict, ran = judged(
        lambda side, where, index: [BUG] * (side is PATCHED and (where in CELLS[:2] or index == 0) and index < 3), rules
    )
    assert max(ran.values()) <= 6
    assert verdict.sampling is not None
    assert verdict.sampling.stopped in (Stopped.CLEAR, Stopped.BUDGET, Stopped.FUTILE)


def test_what_both_kernels_show_is_known_at_once() -> None:
    verdict, ran = judged(lambda side, where, index: [BUG] * (where == CELLS[0]))
    assert verdict.judgement is Judgement.KNOWN
    assert set(ran.values()) == {1}
    assert verdict.findings[0].stopped is Stopped.CLEAR


def test_what_the_base_alone_shows_is_followed_up_too() -> None:
    verdict, ran = judged(always_in(CELLS[0], BUG, side=BASE))
    assert verdict.judgement is Judgement.FIXED
    assert ran[CELLS[0].id] == 5


def test_a_certain_regression_ends_the_run_and_other_doubts_stay() -> None:
    def nature(side: Side, where: Cell, index: int) -> Sequence[Finding]:
        if side is BASE:
            return ()
        return [BUG] if where == CELLS[0] else [STALE] * (where == CELLS[1] and index == 0)

    rules = Rules(least=10, most=30)
    verdict, ran = judged(nature, rules)
    assert verdict.judgement is Judgement.REGRESSION
    assert set(ran.values()) == {10}
    by_title = {found.title: found for found in verdict.findings}
    assert by_title[BUG.title].stopped is Stopped.CLEAR
    assert (by_title[STALE.title].judgement, by_title[STALE.title].stopped) == (
        Judgement.INCONCLUSIVE,
        Stopped.DECIDED,
    )
    assert "another finding had decided the run" in by_title[STALE.title].sentence


def test_the_cell_that_shows_it_most_often_is_run_again() -> None:
    def nature(side: Side, where: Cell, index: int) -> Sequence[Finding]:
        return [BUG] * (side is PATCHED and (where == CELLS[2] or (where == CELLS[0] and index == 0)))

    done = run(nature, Rules(least=2, most=2))
    assert more(done, tuple(one.id for one in CELLS), Rules(least=2, most=9)) == (CELLS[2].id,)


def test_a_known_issue_is_no_reason_to_go_on() -> None:
    known = Known("k", (Issue(title=BUG.title, reason="flaky"),))
    verdict, ran = judged(always_in(CELLS[0], BUG), Rules(least=1, most=8, known=known))
    assert verdict.judgement is Judgement.KNOWN
    assert set(ran.values()) == {1}


def test_one_side_alone_and_a_fixed_number_never_go_on() -> None:
    done = [trial(PATCHED, Status.CRASH, BUG)]
    assert more(done, (cell().id,), RULES) == ()
    assert more([*done, trial(BASE)], (cell().id,), RULES) == (cell().id,)
    assert more([*done, trial(BASE)], (cell().id,), Rules(least=1, most=1)) == ()
    assert fold(done, RULES).findings[0].stopped is Stopped.FIXED


def test_a_pair_whose_machine_was_lost_decides_nothing_and_counts_as_asked() -> None:
    done = [
        *(trial(BASE, Status.LOST, index=i) for i in range(5)),
        *(trial(PATCHED, Status.CRASH, BUG, index=i) for i in range(5)),
    ]
    (found,) = fold(done, Rules(least=5, most=10)).findings
    assert found.p_value == 1.0
    assert asked(done) == {cell().id: 5}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 6))
def test_what_comes_next_hangs_on_the_trials_and_not_on_their_order(seed: int, least: int, extra: int) -> None:
    """A run that is resumed reads its trials in any order, and goes the same way."""
    rules, source = Rules(least=least, most=least + extra), random.Random(seed)
    dice = {(side, where, index): source.random() for side in Side for where in CELLS for index in range(20)}
    done = run(lambda side, where, index: [BUG] * (dice[side, where, index] < 0.3), rules)
    names = tuple(one.id for one in CELLS)
    assert all(least <= number <= rules.most for number in asked(done).values())
    assert more(done, names, rules) == ()
    for _ in range(3):
        part = sorted(done, key=lambda one: one.index)[: 2 * least * len(CELLS)]
        expected = more(part, names, rules)
        source.shuffle(part)
        assert more(part, names, rules) == expected


# -- honesty ----------------------------------------------------------------------------------------------------------


def flaky(rates: Sequence[float], dice: random.Random, worse: float = 1.0) -> Nature:
    """Kernels with a bug for each rate; the patched one shows them `worse` times as often."""
    bugs = [Finding(oracle="o", kind="bug", title=f"bug {n}", signature=f"bug:{n}") for n in range(len(rates))]

    def nature(side: Side, where: Cell, index: int) -> Sequence[Finding]:
        factor = worse if side is PATCHED else 1.0
        return [bug for bug, rate in zip(bugs, rates, strict=True) if dice.random() < rate * factor]

    return nature


def accused(done: Sequence[TrialResult], rules: Rules) -> bool:
    """Whether fold() would call it a REGRESSION; without the rest of its work."""
    _, findings, together = ask(done, rules)
    return any(rules.sure(one.worse_adjusted) for one in (*findings, together))


def share_accused(rates: Sequence[float], rules: Rules, runs: int, worse: float = 1.0) -> float:
    dice = random.Random(f"{rates} {rules.most}")
    return sum(accused(run(flaky(rates, dice, worse), rules, CELLS[:2]), rules) for _ in range(runs)) / runs


@pytest.mark.parametrize("rates", [(0.3,), (0.05,), (0.5, 0.5), (0.1,) * 6, (0.9, 0.02, 0.02)], ids=str)
@pytest.mark.parametrize("rules", [Rules(least=1, most=10), Rules(least=3, most=3)], ids=["adaptive", "fixed"])
def test_a_good_patch_on_a_flaky_base_is_accused_no_more_often_than_the_confidence_allows(
    rates: Sequence[float], rules: Rules
) -> None:
    """The whole procedure, simulated from a fixed seed: which cells go on, when it ends, many questions at once."""
    assert share_accused(rates, rules, 1000) <= 1 - rules.confidence


def test_a_bad_patch_is_caught_in_the_same_simulation() -> None:
    assert share_accused((0.05,), Rules(least=1, most=10), 50, worse=18.0) > 0.9


def test_the_simulation_is_about_what_a_run_is_called() -> None:
    for nature in (always_in(CELLS[0], BUG), always_in(CELLS[0], BUG, side=BASE), lambda *_: ()):
        done = run(nature)
        assert accused(done, RULES) == (fold(done, RULES).judgement is Judgement.REGRESSION)
