"""The figures behind a verdict: how likely luck alone does as much, and what a failure rate may be.

Two tests, as it matters how often one looks. A run of a fixed number of trials is judged once, when all are done:
Boschloo's exact test. A run that goes on until its answer is clear looks after every round, and any test made for one
look would accuse sooner or later. So it bets: base and patched run in pairs, with the same seed in the same cell, and
each pair in which one kernel alone shows the finding is the toss of a coin if the patches have no part in it, whatever
the cell, the rate and how often it was tossed before. What a gambler who bets on the patched kernel has made of 1 is a
test martingale: it exceeds 20 at any time at all with a probability of 1/20 at most (J. Ville, 1939).

scipy takes most of a second to import, and is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import count
from math import comb

from rig.model import Interval

CONFIDENCE = 0.95
#: More tables than that are not enumerated; Fisher's test takes Boschloo's place, which is exact and never less strict.
TABLES = 50_000
#: 1 - 0.95 is a little more than 0.05 in binary, and 1 - 0.9 a little less than 0.1.
ROUNDING = 1e-12


@lru_cache(maxsize=4096)
def exact(failures: int, trials: int, other_failures: int, other_trials: int) -> float:
    """Return the probability that luck alone makes one side so much worse than the other; 1.0 without trials.

    Boschloo's test (R. D. Boschloo, 1970), one-sided: Fisher's p-value as the statistic, and the worst common failure
    rate. It is exact as Fisher's is and never finds less, as the number of failures is not given beforehand, that of
    trials alone is: 3/3 beside 0/3 is 0.016 and not 0.05. Trials are what is dear here.
    """
    if not trials or not other_trials or not failures:
        return 1.0
    import numpy as np
    from scipy import stats

    table = np.array([[failures, other_failures], [trials - failures, other_trials - other_failures]])
    if (trials + 1) * (other_trials + 1) > TABLES:
        return min(1.0, float(stats.fisher_exact(table, alternative="greater").pvalue))
    return min(1.0, float(stats.boschloo_exact(table, alternative="greater").pvalue))


def evidence(alone: int, other_alone: int) -> Fraction:
    """Return what 1 has become by bets on the first kernel, over pairs that it or the other one alone failed in.

    Half of it is bet on the other one never failing alone, half on all shares of the first above 1/2 alike (a uniform
    mixture), so that only the numbers matter and not their order. Worth 1 or less on average if the first kernel does
    not fail more often, in any cell and after any number of pairs: 1/evidence is a p-value at any number of looks.
    See G. Shafer, Testing by betting, 2021. Passes in pairs do not matter, so neither do cells that show nothing; that
    equal seeds may fail together makes pairs that decide nothing, and no wrong ones.
    """
    pairs = alone + other_alone
    never = Fraction(2**pairs if other_alone == 0 else 0)
    # 2^n times the integral of 2 s^k (1-s)^(n-k) over s from 1/2 to 1, an incomplete beta function of whole numbers.
    mixed = Fraction(sum(comb(pairs + 1, k) for k in range(alone + 1)), (pairs + 1) * comb(pairs, alone))
    return (never + mixed) / 2


@lru_cache(maxsize=4096)
def by_pairs(alone: int, other_alone: int) -> float:
    """Return the probability that luck alone makes as much evidence, at any number of looks."""
    return float(min(Fraction(1), 1 / evidence(alone, other_alone)))


def pairs_needed(confidence: float = CONFIDENCE, questions: int = 1) -> int:
    """Return in how many pairs one kernel must fail alone, and the other never, to be sure at this confidence."""
    return next(n for n in count(1) if sure(by_pairs(n, 0) * questions, confidence))


def failures_needed(trials: int, confidence: float = CONFIDENCE) -> int | None:
    """Return how many of so many trials must fail, and none on the other side, to be sure; None if all are too few."""
    return next((n for n in range(1, trials + 1) if sure(exact(n, trials, 0, trials), confidence)), None)


def sure(p_value: float, confidence: float) -> bool:
    """Whether luck is excluded with this confidence."""
    return p_value <= 1 - confidence + ROUNDING


def holm(p_values: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values as they are when all the questions are asked at once, in the same order.

    The probability that any of them answers wrongly stays what it is for one alone. A question with a greater weight
    has a greater share of it (S. Holm, 1979, with weights).
    """
    adjusted, so_far, left = dict[int, float](), 0.0, sum(weights)
    for _, number in sorted((p / weights[n], n) for n, p in enumerate(p_values)):
        so_far = adjusted[number] = max(so_far, min(1.0, p_values[number] * left / weights[number]))
        left -= weights[number]
    return tuple(adjusted[number] for number in range(len(p_values)))


@lru_cache(maxsize=4096)
def interval(failures: int, trials: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Return where the failure rate may be (C. J. Clopper and E. S. Pearson, 1934: exact); None without trials."""
    if not trials:
        return None
    from scipy.stats import binomtest

    found = binomtest(failures, trials).proportion_ci(confidence, method="exact")
    return Interval(low=float(found.low), high=float(found.high))


def excluded_rate(trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the failure rate that `trials` passes in a row exclude: the p with (1-p)^trials = 1-confidence."""
    return 1.0 if trials == 0 else 1.0 - (1.0 - confidence) ** (1.0 / trials)
