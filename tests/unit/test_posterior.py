"""Beliefs about who did it: odds, what they hang on, and what to try next."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rig.bisection import posterior, simulation
from rig.bisection.posterior import BASE_HAS_IT, NOBODY, SEEN, STRAY, Belief, Suspect
from rig.bisection.simulation import World

PATCH = [Suspect(introduced=number) for number in range(9)]


def belief(count: int, trials: dict[int, tuple[int, int]], *, mends: bool = False) -> Belief:
    """What is believed of `count` patches after (failures, passes) of some states."""
    made = Belief.of(posterior.series([1.0] * count, mends=mends))
    for state, (failures, passes) in trials.items():
        made = made.after(state, failures=failures, passes=passes)
    return made


def chance(of: Belief, suspect: Suspect) -> float:
    return float(of.posterior[of.lineup.suspects.index(suspect)])


def test_the_odds_are_those_of_bayes() -> None:
    made = belief(2, {2: (1, 0), 1: (0, 2)})
    # With a uniform rate, f failures and p passes in some order have the probability f! p! / (f + p + 1)!.
    nobody = NOBODY * STRAY * (1 - STRAY) ** 2
    base = BASE_HAS_IT * math.factorial(1) * math.factorial(2) / math.factorial(4)
    each = (1 - NOBODY - BASE_HAS_IT) / 2
    first, second = each * 2 / 24, each * 0.5 * (1 - STRAY) ** 2
    total = nobody + base + first + second
    assert made.posterior == pytest.approx(np.array([nobody, base, first, second]) / total, rel=1e-9)


def test_weights_are_odds_before_the_first_trial() -> None:
    lineup = posterior.series([1.0, 3.0])
    assert lineup.prior.sum() == pytest.approx(1)
    assert lineup.prior[3] / lineup.prior[2] == pytest.approx(3)


def test_one_failure_and_one_pass_convict_nobody_but_a_few_more_do() -> None:
    once = belief(4, {4: (3, 0), 0: (0, 1), 2: (1, 0), 1: (0, 20)})
    assert once.answer.suspects[0][0] == PATCH[2]
    assert once.answer.probability > 0.95
    assert once.answer.without_one < 0.5
    assert not once.settled(0.95)
    assert once.after(2, failures=1).settled(0.95)


def test_what_is_doubted_is_what_the_plan_goes_by() -> None:
    once = belief(4, {4: (3, 0), 0: (0, 1), 2: (1, 0), 1: (0, 20)})
    plain = posterior.best([once.doubted(0.95)], np.zeros(5), np.ones(5))
    assert plain is not None
    assert plain.state == 2


def test_passes_acquit_only_as_far_as_the_rate_allows() -> None:
    often = belief(2, {2: (9, 1), 1: (0, 5), 0: (0, 5)})
    seldom = belief(2, {2: (3, 57), 1: (0, 5), 0: (0, 5)})
    assert chance(often, PATCH[2]) > 0.99
    assert chance(seldom, PATCH[1]) > 0.2
    assert often.rate[0] == pytest.approx(10 / 12, abs=0.01)
    assert seldom.rate[1] < 0.05


def test_a_single_crash_long_ago_is_a_stray_one() -> None:
    made = belief(3, {3: (1, 2000), 0: (0, 10)})
    assert not belief(3, {3: (1, 20), 0: (0, 10)}).settled(0.95)
    assert made.answer.suspects[0][0].introduced is None
    assert made.settled(0.95)


def test_a_base_that_fails_has_it() -> None:
    assert belief(3, {3: (3, 0), 0: (3, 0)}).answer.suspects[0][0] == PATCH[0]


def test_holes_make_one_answer_of_several_patches() -> None:
    made = belief(5, {5: (3, 0), 4: (3, 0), 0: (0, 3), 1: (0, 9)}).without(2).without(3)
    assert sorted(suspect.introduced or 0 for suspect, _ in made.answer.suspects) == [2, 3, 4]
    assert made.settled(0.95)
    assert made.information(1)[[2, 3]].tolist() == [0, 0]


def test_what_a_later_patch_mends_is_seen_only_where_that_is_asked_for() -> None:
    trials = {0: (0, 9), 1: (0, 9), 2: (9, 0), 3: (9, 0), 4: (0, 9), 5: (0, 9)}
    mended = belief(5, trials, mends=True)
    assert mended.answer.suspects[0][0] == Suspect(introduced=2, fixed=4)
    assert mended.settled(0.95)
    assert all(suspect.fixed is None for suspect in belief(5, trials).lineup.suspects)


def test_information_is_what_an_outcome_is_worth() -> None:
    made = belief(8, {8: (3, 3), 0: (0, 4)})
    one, many = made.information(1), made.information(16)
    assert (one >= 0).all()
    assert (many >= one - 1e-12).all()
    assert (many <= 1 + 1e-9).all()
    assert one[8] < one[4]
    # By hand, for one trial of a state: the entropy of the outcome less what is left of it when the state is known.
    there = made.lineup.bears[:, 4] * made.posterior
    rates = np.where(made.lineup.bears[:, 0] > 0, (1 + 3) / (2 + 10), (1 + 3) / (2 + 6))  # the base passed four times
    fails = float((there * rates).sum() / there.sum())
    q = float(there.sum())

    def entropy(p: float) -> float:
        return -p * math.log2(p) - (1 - p) * math.log2(1 - p)

    expected = entropy(q * fails + (1 - q) * STRAY) - q * entropy(fails) - (1 - q) * entropy(STRAY)
    assert one[4] == pytest.approx(expected, abs=1e-3)


def test_a_kernel_that_must_be_built_has_to_pay_for_it() -> None:
    made = belief(8, {8: (3, 0), 0: (0, 1)})
    prepare = np.full(9, 1e5)
    prepare[6] = 0.0
    chosen = posterior.best([made], prepare, np.ones(9))
    assert chosen is not None
    assert chosen.state == 6
    free = posterior.best([made], np.zeros(9), np.ones(9))
    assert free is not None
    assert free.state in (3, 4, 5)


def test_the_rate_is_learnt_first() -> None:
    once, often = belief(8, {8: (1, 4)}), belief(8, {8: (4, 1), 0: (0, 1)})
    assert (once.measured, often.measured) == (False, True)
    both = posterior.best([once, often], np.zeros(9), np.ones(9))
    assert both is not None
    assert both.state < 8  # a rare one does not keep one that is not from being hunted
    chosen = posterior.best([once], np.zeros(9), np.ones(9))
    assert chosen is not None
    assert (chosen.state, chosen.trials) == (8, SEEN)


def test_two_findings_are_served_by_one_trial() -> None:
    early = belief(8, {8: (3, 0), 0: (0, 3), 4: (3, 0)})
    late = belief(8, {8: (3, 0), 0: (0, 3), 4: (0, 6)})
    both = posterior.best([early, early, early, late], np.zeros(9), np.ones(9))
    assert both is not None
    assert both.state < 4


def test_a_history_is_what_its_ancestry_says() -> None:
    # 1 - 2 - 4 - 5, and 3 beside 2: 4 merges both
    lineup = posterior.history(((0,), (1,), (1,), (2, 3), (4,)), [1.0] * 5)
    rows = {
        suspect.introduced: row.astype(int).tolist() for suspect, row in zip(lineup.suspects, lineup.bears, strict=True)
    }
    assert rows[0] == [1] * 6
    assert rows[None] == [0] * 6
    assert rows[2] == [0, 0, 1, 0, 1, 1]
    assert rows[3] == [0, 0, 0, 1, 1, 1]
    assert rows[4] == [0, 0, 0, 0, 1, 1]


def test_thousands_of_commits_take_a_handful_of_kernels() -> None:
    count = 1500
    lineup = posterior.history(tuple((number,) for number in range(count)), [1.0] * count)
    tried: set[int] = set()
    made = Belief.of(lineup).after(count, failures=3).after(0, passes=1)
    while not made.settled(0.95):
        chosen = posterior.best(
            [made.doubted(0.95)],
            np.where(np.isin(np.arange(count + 1), list(tried)), 0.0, 60.0),
            np.full(count + 1, 10.0),
        )
        assert chosen is not None
        tried.add(chosen.state)
        made = made.after(chosen.state, **{"failures" if chosen.state >= 777 else "passes": 1})
    assert made.answer.suspects[0][0].introduced == 777
    assert len(tried) <= 2 * math.log2(count)


@settings(max_examples=60)
@given(st.integers(1, 8), st.data())
def test_probabilities_are_probabilities_whatever_was_seen(count: int, data: st.DataObject) -> None:
    states = st.integers(0, count)
    trials = data.draw(st.dictionaries(states, st.tuples(st.integers(0, 40), st.integers(0, 400))))
    made = belief(count, trials, mends=data.draw(st.booleans()))
    for hole in data.draw(st.sets(states)) - trials.keys():
        made = made.without(hole)
    assert made.posterior.sum() == pytest.approx(1)
    assert 0 <= made.answer.probability <= 1 + 1e-9
    assert (made.information(2) >= 0).all()


@settings(max_examples=60)
@given(st.integers(2, 8), st.data())
def test_a_failure_accuses_what_is_in_it_and_a_pass_acquits_it(count: int, data: st.DataObject) -> None:
    made = belief(count, {count: (2, 2), 0: (0, 1)})
    state = data.draw(st.integers(1, count - 1))
    inside = made.lineup.bears[:, state] > 0
    before = made.posterior[inside].sum()
    assert made.after(state, failures=1).posterior[inside].sum() > before
    assert made.after(state, passes=1).posterior[inside].sum() < before


# -- simulated bisections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "runs"), [(1.0, 60), (0.5, 60), (0.2, 40), (0.1, 20)])
def test_few_are_convicted_wrongly(rate: float, runs: int) -> None:
    rng = random.Random(f"wrong {rate}")
    wrong = 0
    for _ in range(runs):
        patches = rng.choice([2, 5, 16, 64])
        guilty = Suspect(introduced=rng.randint(1, patches))
        done = simulation.simulate(posterior.series([1.0] * patches), World(guilty=guilty, rate=rate), rng)
        wrong += not done.right
    assert wrong <= 0.05 * runs


def test_strays_and_holes_and_misleading_hints_convict_hardly_anybody() -> None:
    rng = random.Random("all at once")
    wrong = 0
    for _ in range(40):
        guilty = rng.randint(1, 16)
        weights = [5.0 if number == 1 + guilty % 16 else 1.0 for number in range(1, 17)]
        holes = simulation.holes_of(16, 3, (), rng)
        world = World(guilty=Suspect(introduced=guilty), rate=0.4, stray=0.001, holes=holes)
        wrong += not simulation.simulate(posterior.series(weights), world, rng).right
    assert wrong <= 2


def test_half_the_trials_of_a_bisection_with_a_fixed_number_per_step() -> None:
    rng = random.Random("half")
    lineup = posterior.series([1.0] * 64)
    trials, plain = 0.0, 0.0
    for rate in (1.0, 0.5, 0.3):
        for _ in range(30):
            world = World(guilty=Suspect(introduced=rng.randint(1, 64)), rate=rate)
            done = simulation.simulate(lineup, world, rng)
            trials += done.trials
            plain += simulation.fixed_alike(64, done, 0.02)
    assert trials <= 0.5 * plain


def test_a_fixed_number_per_step_is_as_many_as_it_takes() -> None:
    # Six steps, every second prefix bad: 1 - (1 - 0.9^n / 2)^6 <= 0.05 from n = 39 on.
    assert simulation.fixed_when_told(64, 0.1, 0.05) == 6 * 39
    assert simulation.fixed_when_told(64, 1.0, 0.05) == 6
