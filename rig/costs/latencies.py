"""How long the faults of a case took: histograms, and what the trials leave open about them. Pure.

A bucket is an eighth of an octave, and known by the least number of nanoseconds in it. Within an octave buckets are
equally wide, so their bounds are whole numbers (HdrHistogram's layout): the workload takes the first four digits of a
binary number and no logarithm. Histograms are shown and nothing is claimed of them; median and 99th percentile, which
the workload takes of the faults themselves and not of their buckets, are compared as every time is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rig.costs.differences import RESAMPLES
from rig.costs.metrics import Kind, Sample, Where

#: (least nanoseconds, faults) of each bucket that is not empty, in order.
Histogram = tuple[tuple[int, int], ...]

_COUNTER = re.compile(r"latency_(\d{1,10})")
_DIGITS = 3  # of a binary number after its first


def bucket_end(low: int) -> int:
    """Return the first nanosecond after the bucket that begins with `low`."""
    return low + (1 << max(0, low.bit_length() - 1 - _DIGITS))


def histogram(counters: Mapping[str, int]) -> Histogram:
    """Return the histogram among the counters of a case; empty without one."""
    found = ((_COUNTER.fullmatch(name), count) for name, count in counters.items())
    buckets = sorted((int(match[1]), count) for match, count in found if match and count > 0)
    return tuple((low, count) for low, count in buckets if low % (bucket_end(low) - low) == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How many of all faults took how long: the mean over trials, and bounds, for each bucket, without gaps.

    As shares per octave, as buckets are not equally wide there: the area is the share of the faults.
    """

    edges: tuple[int, ...]  # nanoseconds; one more than there are buckets
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]


def of_case(samples: Iterable[Sample], subject: str, where: Where) -> tuple[Histogram, ...]:
    """Return the histograms of a case, one for each trial that has one."""
    return tuple(
        one.latencies
        for one in samples
        if one.subject == subject and one.where == where and one.kind is Kind.TIMED and one.latencies
    )


def band(trials: Sequence[Histogram], level: float) -> Band:
    """Return what at least one trial says of each bucket, with percentile bootstrap intervals over the trials.

    Trials are resampled as wholes: the faults of one are not independent of each other. One trial alone has no width.
    """
    import numpy as np  # here, as it takes long to load, and most of the rig does without

    edges = _edges(min(one[0][0] for one in trials), max(one[-1][0] for one in trials))
    lows = edges[:-1]
    octaves = np.log2(edges[1:]) - np.log2(np.maximum(lows, 0.5))
    position = {low: number for number, low in enumerate(lows)}
    shares = np.zeros((len(trials), len(lows)))
    for row, one in enumerate(trials):
        for low, count in one:
            shares[row, position[low]] = count
    shares /= shares.sum(axis=1, keepdims=True) * octaves
    drawn = np.random.default_rng(0).multinomial(len(trials), [1 / len(trials)] * len(trials), size=RESAMPLES)
    means = drawn @ shares / len(trials)
    bounds = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(
        edges=tuple(edges),
        low=tuple(bounds[0].tolist()),
        middle=tuple(shares.mean(axis=0).tolist()),
        high=tuple(bounds[1].tolist()),
    )


def _edges(first: int, last: int) -> list[int]:
    """Return where buckets begin, from that at `first` to the end of that at `last`."""
    found = [first]
    while found[-1] <= last:
        found.append(bucket_end(found[-1]))
    return found
