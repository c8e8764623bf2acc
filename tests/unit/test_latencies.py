"""Histograms of latencies: their buckets, what a guest may say, and the bands that are drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from madebench import WHERE, made, sample

from rig.costs import latencies
from rig.costs.latencies import Histogram, band, bucket_end, histogram
from rig.costs.metrics import BASE, Kind, compare


def least(nanoseconds: int) -> int:
    """The bucket of a latency, by its first four binary digits."""
    shift = max(0, nanoseconds.bit_length() - 4)
    return nanoseconds >> shift << shift


histograms = st.dictionaries(st.integers(0, 2**32 - 1).map(least), st.integers(1, 1000), min_size=1, max_size=8).map(
    lambda found: tuple(sorted(found.items()))
)


@given(st.integers(0, 2**32 - 1))
def test_each_latency_is_in_one_bucket_that_is_an_eighth_of_an_octave_at_most(nanoseconds: int) -> None:
    low = least(nanoseconds)
    assert low <= nanoseconds < bucket_end(low)
    assert bucket_end(low) == low + 1 or bucket_end(low) / low <= 9 / 8
    assert least(bucket_end(low)) == bucket_end(low)


def test_a_histogram_is_among_the_counters_of_a_case() -> None:
    said = {"pages": 3, "latency_2048": 5, "p99_ns": 9, "latency_960": 1, "latency_1024": 0}
    assert histogram(said) == ((960, 1), (2048, 5))
    assert histogram({"pages": 3}) == ()


@pytest.mark.parametrize("name", ["latency_2049", "latency_-5", "latency_x", "latency_99999999999", "xlatency_8"])
def test_what_is_no_bucket_is_left_out(name: str) -> None:
    assert histogram({name: 7, "latency_8": 1}) == ((8, 1),)


@given(st.lists(histograms, min_size=1, max_size=6))
def test_the_area_is_all_faults_and_the_band_holds_the_mean(trials: list[Histogram]) -> None:
    found = band(trials, 0.99)
    assert len(found.edges) == len(found.middle) + 1
    octaves = [math.log2(b / max(a, 0.5)) for a, b in zip(found.edges, found.edges[1:], strict=False)]
    area = sum(share * width for share, width in zip(found.middle, octaves, strict=True))
    assert area == pytest.approx(1)
    for low, middle, high in zip(found.low, found.middle, found.high, strict=True):
        assert 0 <= low <= middle * (1 + 1e-9)
        assert middle <= high * (1 + 1e-9)


def test_trials_that_agree_leave_no_doubt_and_those_that_differ_do() -> None:
    one, other = ((1024, 3), (2048, 1)), ((1024, 1), (2048, 3))
    same = band([one] * 5, 0.99)
    assert same.low == same.middle == same.high
    both = band([one, other] * 4, 0.99)
    assert both.low[0] < both.middle[0] < both.high[0]
    assert both.middle[0] == pytest.approx(0.5 / math.log2(9 / 8))
    assert both == band([one, other] * 4, 0.99)
    wide, narrow = (value.high[0] - value.low[0] for value in (both, band([one, other] * 32, 0.99)))
    assert narrow < wide


def test_each_trial_counts_as_much_however_many_faults_it_took() -> None:
    found = band([((1024, 1),), ((1152, 1000),)], 0.99)
    shares = [share * math.log2(b / a) for share, a, b in zip(found.middle, found.edges, found.edges[1:], strict=False)]
    assert shares == pytest.approx([0.5, 0.5])


def test_the_histograms_of_a_case_are_those_of_its_timed_trials() -> None:
    timed = sample(BASE, 0, Kind.TIMED, rate=1.0)
    elsewhere = replace(timed, where=replace(WHERE, cpus=9))
    samples = [timed, elsewhere, sample(BASE, 1, atomics=1.0), sample("s", 0, Kind.TIMED, rate=1.0)]
    assert latencies.of_case(samples, BASE, WHERE) == (timed.latencies,)
    assert timed.latencies


def test_a_histogram_claims_nothing() -> None:
    done = made()
    without = [replace(one, latencies=()) for one in done.samples]
    assert compare(without, "s", 0.99) == compare(done.samples, "s", 0.99)
