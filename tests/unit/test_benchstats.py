"""What is claimed of two series of measurements, and how rarely when there is nothing to claim."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rig.costs import differences
from rig.costs.differences import Claim, counted, fewest_pairs, rate, timed

COUNTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=8)
TIMES = st.lists(st.floats(1e-3, 1e6), min_size=8, max_size=8)


def test_counts_whose_ranges_do_not_overlap_differ() -> None:
    found = counted([6.0, 6.1], [4.0, 4.2], relative=False, level=0.6)
    assert found.claim is Claim.LESS
    assert found.change == pytest.approx(-1.95)
    assert found.low == pytest.approx(-2.1)
    assert found.high == pytest.approx(-1.8)
    found = counted([4.0] * 5, [6.0] * 5, relative=True, level=0.99)
    assert found.change == pytest.approx(0.5)
    assert found.claim is Claim.MORE


def test_nothing_is_claimed_of_counts_that_are_too_few_to_keep_the_level() -> None:
    assert counted([4.0] * 4, [6.0] * 4, relative=True, level=0.99).claim is Claim.NONE
    assert counted([4.0] * 4, [6.0] * 4, relative=True, level=0.97).claim is Claim.MORE


def test_equal_and_overlapping_counts_do_not() -> None:
    assert counted([2.0] * 5, [2.0] * 5, relative=True, level=0.99).claim is Claim.NONE
    assert counted([1.0, 3.0] * 3, [2.0, 4.0] * 3, relative=True, level=0.99).claim is Claim.NONE


def test_a_share_of_nothing_is_the_whole() -> None:
    assert counted([0.0], [0.5], relative=True, level=0.99).change == 1
    assert counted([0.0], [0.0], relative=True, level=0.99).change == 0


@given(COUNTS, COUNTS)
def test_counts_are_compared_the_same_from_both_sides(first: list[float], second: list[float]) -> None:
    there, back = (counted(*pair, relative=False, level=0.9) for pair in ((first, second), (second, first)))
    assert there.change == -back.change
    assert (there.low, there.high) == (-back.high, -back.low)
    assert {there.claim, back.claim} in ({Claim.NONE}, {Claim.LESS, Claim.MORE})
    assert there.low <= there.high
    if there.claim is not Claim.NONE:
        assert there.low > 0 or there.high < 0


@given(COUNTS)
def test_nothing_is_claimed_of_the_same_counts(values: list[float]) -> None:
    assert counted(values, values, relative=True, level=0.6).claim is Claim.NONE


def test_a_time_that_always_changes_is_claimed_and_one_that_wavers_is_not() -> None:
    first = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1.0, 2.0]  # a host whose speed drifts hits both of a pair alike
    found = timed(first, [value * 0.8 for value in first], level=0.99)
    assert found.claim is Claim.LESS
    assert found.change == pytest.approx(-0.2)
    wavering = [value * factor for value, factor in zip(first, [0.5, 2.0] * 4, strict=True)]
    assert timed(first, wavering, level=0.99).claim is Claim.NONE


def test_nothing_is_claimed_of_a_time_with_too_few_pairs() -> None:
    assert fewest_pairs(0.99) == 8
    assert fewest_pairs(0.95) == 6
    assert timed([1.0] * 7, [2.0] * 7, level=0.99).claim is Claim.NONE
    assert timed([1.0] * 8, [2.0] * 8, level=0.99).claim is Claim.MORE


@settings(max_examples=25)
@given(TIMES, TIMES)
def test_the_interval_holds_the_change(first: list[float], second: list[float]) -> None:
    found = timed(first, second, level=0.99)
    assert found.low <= found.change * (1 + 1e-9) + 1e-9
    assert found.change <= found.high + abs(found.high) * 1e-9 + 1e-9
    assert found == timed(first, second, level=0.99)


@settings(max_examples=25)
@given(TIMES, st.floats(0.1, 10))
def test_a_unit_changes_nothing(values: list[float], scale: float) -> None:
    doubled = [2 * value for value in values]
    one = timed(values, doubled, level=0.99)
    other = timed([scale * value for value in values], [scale * value for value in doubled], level=0.99)
    assert one.change == pytest.approx(other.change)
    assert one.claim is other.claim is Claim.MORE


@pytest.mark.parametrize("pairs", [8, 12])
def test_of_equal_kernels_hardly_anything_is_claimed(pairs: int) -> None:
    """The level is kept where times vary by a factor of two: nominally 4 of 400, and up to 12 by chance."""
    draw = random.Random(5)
    claims = 0
    for _ in range(400):
        first, second = ([draw.lognormvariate(0, 0.7) for _ in range(pairs)] for _ in range(2))
        claims += timed(first, second, level=0.99).claim is not Claim.NONE
    assert claims <= 12


def test_counts_that_are_noise_are_claimed_as_rarely_as_is_said() -> None:
    draw = random.Random(5)
    claims = 0
    for _ in range(2000):
        first, second = ([draw.random() for _ in range(5)] for _ in range(2))
        claims += counted(first, second, relative=True, level=0.99).claim is not Claim.NONE
    assert 4 <= claims <= 32  # 2 of C(10, 5) is 16 of 2000


def test_a_rate_comes_with_what_it_may_be() -> None:
    found = rate(1, 100)
    assert found.value == 0.01
    assert 0 < found.low < 0.01 < found.high < 0.06
    assert (rate(0, 0).low, rate(0, 0).high) == (0.0, 1.0)
    assert differences.rate(0, 100).high < 0.04
