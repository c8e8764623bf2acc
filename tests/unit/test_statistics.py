"""The figures behind a verdict: by hand, by plain count, and by exact enumeration of what luck does."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rig.verdicts.statistics import (
    TABLES,
    by_pairs,
    evidence,
    exact,
    excluded_rate,
    failures_needed,
    holm,
    interval,
    pairs_needed,
    sure,
)


def fisher(failures: int, trials: int, other_failures: int, other_trials: int) -> float:
    ways = list(combinations(range(trials + other_trials), failures + other_failures))
    return sum(sum(who < trials for who in failed) >= failures for failed in ways) / len(ways)


# -- one look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((1, 1, 0, 1), 1 / 4),  # by hand: r(1-r) is 1/4 at most, at r = 1/2
        ((2, 2, 0, 2), 1 / 16),
        ((3, 3, 0, 3), 1 / 64),  # where Fisher has 1/20
        ((4, 4, 0, 4), 1 / 256),
        ((0, 4, 0, 4), 1.0),
        ((0, 4, 4, 4), 1.0),
        ((0, 0, 0, 0), 1.0),
        ((2, 2, 0, 0), 1.0),
    ],
)
def test_the_exact_test_by_hand(table: tuple[int, int, int, int], expected: float) -> None:
    assert exact(*table) == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_the_exact_test_is_never_stricter_than_fishers(trials: int, other: int, data: st.DataObject) -> None:
    failures, other_failures = data.draw(st.integers(0, trials)), data.draw(st.integers(0, other))
    assert exact(failures, trials, other_failures, other) <= fisher(failures, trials, other_failures, other) + 1e-9


@pytest.mark.parametrize("trials", [2, 5, 9])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_one_look_accuses_a_good_patch_no_more_often_than_it_says(trials: int, rate: float) -> None:
    """Every outcome of both sides with the same rate, each with its probability."""
    chance = [comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)]
    wrong = sum(
        chance[patched] * chance[base]
        for patched in range(trials + 1)
        for base in range(trials + 1)
        if sure(exact(patched, trials, base, trials), 0.95)
    )
    assert wrong <= 0.05


def test_many_trials_are_not_enumerated_and_exact_all_the_same() -> None:
    assert TABLES < 1000 * 1000
    assert 0 < exact(300, 1000, 200, 1000) < 1e-6
    assert exact(3, 1000, 0, 1000) == pytest.approx(1 / 8, abs=0.001)


# -- any number of looks ----------------------------------------------------------------------------------------------


def test_evidence_by_hand() -> None:
    assert evidence(0, 0) == 1
    assert evidence(1, 0) == Fraction(2 + Fraction(3, 2)) / 2  # doubled, and a mixture of 3/2
    assert evidence(0, 1) == Fraction(1, 4)  # of the half on all shares a half is left
    assert by_pairs(5, 0) == pytest.approx(1 / 21.25)


@given(st.integers(0, 60), st.integers(0, 60))
def test_evidence_is_a_fair_game(alone: int, other: int) -> None:
    """Whatever has happened, the next toss of a fair coin is worth nothing: then Ville's inequality holds."""
    heads, tails = evidence(alone + 1, other), evidence(alone, other + 1)
    assert (heads + tails) / 2 == evidence(alone, other)
    assert heads >= tails  # so a coin that falls for the base more often makes it worth less


def chance_ever(threshold: float, horizon: int, heads: Fraction = Fraction(1, 2)) -> float:
    """The probability that a gambler's p-value is ever as low in so many tosses, by exact enumeration."""
    alive: dict[int, Fraction] = {0: Fraction(1)}
    hit = Fraction(0)
    for tosses in range(1, horizon + 1):
        after: dict[int, Fraction] = defaultdict(Fraction)
        for count, chance in alive.items():
            after[count + 1] += chance * heads
            after[count] += chance * (1 - heads)
        hit += sum(after.pop(count) for count in list(after) if by_pairs(count, tosses - count) <= threshold)
        alive = after
    return float(hit)


@pytest.mark.parametrize("threshold", [0.2, 0.1, 0.05, 0.01])
def test_who_looks_after_every_pair_is_wrong_no_more_often_than_it_says(threshold: float) -> None:
    assert 0 < chance_ever(threshold, 60) <= threshold
    assert chance_ever(threshold, 60, Fraction(1, 3)) < chance_ever(threshold, 60)


def test_a_bad_patch_is_found_out() -> None:
    assert chance_ever(0.05, 12, Fraction(1)) == 1
    assert chance_ever(0.05, 40, Fraction(9, 10)) > 0.99


def test_huge_numbers_do_not_overflow() -> None:
    assert by_pairs(2000, 0) == 0
    assert by_pairs(0, 2000) == 1
    assert by_pairs(1100, 1000) > 0.05


def test_how_many_it_takes() -> None:
    assert [pairs_needed(0.95, questions) for questions in (1, 2, 3, 10)] == [5, 6, 7, 9]
    assert by_pairs(pairs_needed(0.99) - 1, 0) > 0.01 >= by_pairs(pairs_needed(0.99), 0)
    assert [failures_needed(trials) for trials in (1, 2, 3, 40)] == [None, None, 3, 4]
    assert exact(3, 40, 0, 40) > 0.05 >= exact(4, 40, 0, 40)


# -- several questions, rates -----------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([], []) == ()
    assert holm([0.03], [7.0]) == (0.03,)
    assert holm([0.04, 0.01, 0.03], [1, 1, 1]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.9, 0.8], [1, 1]) == (1.0, 1.0)
    assert holm([0.02, 0.02, 0.02], [1, 1, 2]) == pytest.approx((0.04, 0.04, 0.04))
    assert holm([0.02, 0.02, 0.2], [1, 1, 2]) == pytest.approx((0.08, 0.08, 0.2))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([1.0, 2.0, 5.0])), max_size=8))
def test_holm_is_between_no_correction_and_bonferronis_and_keeps_the_order(asked: list[tuple[float, float]]) -> None:
    values, weights = [value for value, _ in asked], [weight for _, weight in asked]
    adjusted = holm(values, weights)
    for value, weight, after in zip(values, weights, adjusted, strict=True):
        assert value <= after * (1 + 1e-9)
        assert after <= min(1.0, value * sum(weights) / weight) + 1e-9
    order = sorted(range(len(values)), key=lambda n: (values[n] / weights[n], n))
    assert [adjusted[n] for n in order] == sorted(adjusted)


@given(st.integers(1, 25), st.sampled_from([0.8, 0.95, 0.99]), st.data())
@settings(deadline=None)
def test_an_interval_holds_the_rate_and_covers_as_often_as_it_says(
    trials: int, confidence: float, data: st.DataObject
) -> None:
    rate = data.draw(st.floats(0, 1))
    covered = 0.0
    for failures in range(trials + 1):
        found = interval(failures, trials, confidence)
        assert found is not None
        assert 0 <= found.low <= failures / trials <= found.high <= 1
        covered += (
            comb(trials, failures)
            * rate**failures
            * (1 - rate) ** (trials - failures)
            * (found.low <= rate <= found.high)
        )
    assert covered >= confidence - 1e-9


def test_no_trials_no_interval() -> None:
    assert interval(0, 0) is None


@pytest.mark.parametrize(("trials", "rate"), [(0, 1.0), (1, 0.95), (4, 0.527), (40, 0.0722), (131, 0.0226)])
def test_rate_that_is_excluded(trials: int, rate: float) -> None:
    assert excluded_rate(trials) == pytest.approx(rate, abs=0.0005)


@given(st.integers(1, 10_000), st.floats(0.5, 0.999))
def test_what_is_excluded_would_have_shown(trials: int, confidence: float) -> None:
    rate = excluded_rate(trials, confidence)
    assert (1 - rate) ** trials == pytest.approx(1 - confidence)
