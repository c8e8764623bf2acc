"""When two series of measurements differ: the statistics of `rig bench`, pure.

Counts and times are judged apart. A count hardly varies, and what it varies by is known: a difference is claimed when
the ranges of the two sides do not overlap. Under the null hypothesis that all 2n values of n pairs are exchangeable
this happens in 2 of C(2n, n) cases, less often where values are equal: 0.8 % with 5 pairs, and 33 % with 2. So with
fewer than 5 nothing is claimed at level 0.99.

A time varies by factors on a shared machine. It is compared within pairs, which ran one after the other; the median of
the logarithms of their ratios has a percentile bootstrap interval (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13), and a difference is claimed when that leaves out zero and the signs of the pairs agree more
often than chance has them (the exact sign test): with 8 pairs the interval alone was wrong in 3 % of all cases where it
should be in 1 %. At level 0.99 nothing is claimed with fewer than 8 pairs, and with 8 they all have to agree.
How often both claim something of two equal kernels is measured, not believed: `rig bench null`, `ci/bench-null`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

RESAMPLES = 4000


class Claim(StrEnum):
    """What is claimed of the second side."""

    LESS = "less"
    MORE = "more"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Measurements of one side."""

    low: float
    median: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The second side against the first: in units of the metric, or as a share of the first one (0.1: 10 % more)."""

    first: Spread
    second: Spread
    change: float
    low: float  # of the interval
    high: float
    claim: Claim


def spread(values: Sequence[float]) -> Spread:
    """Return the range and the median of at least one value."""
    return Spread(low=min(values), median=median(values), high=max(values), count=len(values))


def fewest_pairs(level: float) -> int:
    """Return how many pairs it takes until signs that all agree by chance are rarer than 1 - level."""
    return math.ceil(1 - math.log2(1 - level))


def apart_by_luck(first: int, second: int) -> float:
    """Return the chance that the ranges of so many equal values on each side do not overlap."""
    return 2 / math.comb(first + second, first)


def fewest_counted(level: float) -> int:
    """Return how many values each side takes until ranges that are apart by chance are rarer than 1 - level."""
    return next(n for n in itertools.count(1) if apart_by_luck(n, n) <= 1 - level)


def counted(first: Sequence[float], second: Sequence[float], *, relative: bool, level: float) -> Difference:
    """Compare counts. The interval is from the smallest to the largest difference that any two values have.

    A relative change from nothing to something is given as 1, or -1.
    """
    a, b = spread(first), spread(second)
    claim = Claim.NONE
    if apart_by_luck(a.count, b.count) <= 1 - level:
        claim = Claim.MORE if b.low > a.high else Claim.LESS if b.high < a.low else Claim.NONE
    least, most = b.low - a.high, b.high - a.low
    change = b.median - a.median
    if relative:
        least, change, most = (_share(value, a.median) for value in (least, change, most))
    return Difference(first=a, second=b, change=change, low=least, high=most, claim=claim)


def _share(value: float, of: float) -> float:
    if of:
        return value / of
    return 0.0 if value == 0 else math.copysign(1.0, value)


def timed(first: Sequence[float], second: Sequence[float], *, level: float, seed: int = 0) -> Difference:
    """Compare times, or rates, that are positive: `first[i]` and `second[i]` ran one after the other.

    The change is the median of the ratios of pairs, less one.
    """
    ratios = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    middle = median(ratios)
    low, high = _interval(ratios, level, seed)
    claim = Claim.NONE
    if _signs(ratios) <= 1 - level:
        claim = Claim.MORE if low > 0 else Claim.LESS if high < 0 else Claim.NONE
    return Difference(
        first=spread(first),
        second=spread(second),
        change=math.expm1(middle),
        low=math.expm1(low),
        high=math.expm1(high),
        claim=claim,
    )


def _signs(values: Sequence[float]) -> float:
    """Return the chance that so many signs agree when both are as likely: the sign test, two-sided."""
    agree = max(sum(value > 0 for value in values), sum(value < 0 for value in values))
    count = len(values)
    return min(1.0, sum(math.comb(count, k) for k in range(agree, count + 1)) / 2.0 ** (count - 1))


def _interval(values: Sequence[float], level: float, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of the median: the same for the same arguments."""
    if min(values) == max(values):
        return values[0], values[0]
    import numpy as np  # here, as they take long to load, and most of the rig does without
    from scipy import stats

    found = stats.bootstrap(
        (values,),
        np.median,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often something was claimed that is not there."""

    claims: int
    comparisons: int
    low: float  # exact 95 % interval of the rate (Clopper and Pearson, 1934)
    high: float

    @property
    def value(self) -> float:
        """The rate, 0 to 1."""
        return self.claims / self.comparisons if self.comparisons else 0.0


def rate(claims: int, comparisons: int) -> Rate:
    """Return the rate of claims with its interval; of no comparisons nothing is known."""
    if not comparisons:
        return Rate(claims=0, comparisons=0, low=0.0, high=1.0)
    from scipy import stats

    interval = stats.binomtest(claims, comparisons).proportion_ci(0.95)
    return Rate(claims=claims, comparisons=comparisons, low=float(interval.low), high=float(interval.high))
