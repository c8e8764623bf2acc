"""Who did it? Bayes over the patches of a series, given trials that fail only now and then. Pure: counts in, odds out.

A state is a kernel that can be tried: the base (0) and what each patch leads to (1 ... N). A suspect is a patch that
may have brought the finding, with the patch that took it away again if one did; it says in which states the finding is.
There it shows in a trial with an unknown rate, which is integrated out over a beta prior; elsewhere with the small rate
STRAY, so that a crash which came out of nowhere is a possibility that every suspect has for an alibi.

The next trial goes where it tells most per second: the mutual information between its outcome and whether the finding
is in that state, as in noisy search after Burnashev and Zigangirov (1974), here with the noise learnt as it goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: The beta prior of the failure rate: any is as likely as any other.
RATE = (1.0, 1.0)
#: How often a trial fails, in the very same way, on a kernel that has not got the bug.
STRAY = 0.001
#: What is believed beforehand of a finding that the tip showed: that the base has it too, or that it was a stray one.
BASE_HAS_IT, NOBODY = 0.05, 0.1
#: Of the doubt that the confidence leaves, what is used: the rate is not drawn from its prior, it is what it is.
CAUTION = 0.5
#: Struck out any one failure, the answer must still be this likely: one stray crash convicts nobody.
WITHOUT_ONE = 0.8
#: So often a finding is to be seen before the search begins: to know the rate at all saves more trials than it costs.
SEEN = 3
#: How many trials in a row are weighed against each other: a kernel that must be built first has to pay for it.
BATCHES = (1, 2, 4, 8, 16, 32)
#: Bits per second below which nothing is worth a trial.
LEAST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """Who may have brought a finding: a patch, the base (0), or nobody (None), as it was a stray one."""

    introduced: int | None
    fixed: int | None = None  # the patch that took it away again


@dataclass(frozen=True, eq=False, kw_only=True)
class Lineup:
    """All suspects, what is believed of them beforehand, and in which states each would show."""

    suspects: tuple[Suspect, ...]
    prior: Floats  # of each suspect, sums to 1
    bears: Floats  # suspects x states: 1 where the finding would be there, else 0

    @property
    def states(self) -> int:
        """How many states there are, the base included."""
        return int(self.bears.shape[1])


def series(weights: Sequence[float], *, mends: bool = False) -> Lineup:
    """Return the suspects of a series, given what makes each patch suspicious (relative, above 0).

    With `mends` a later patch may have taken away what an earlier one brought.
    """
    count = len(weights)
    states = np.arange(count + 1)
    suspects = [Suspect(introduced=None), Suspect(introduced=0)]
    rows = [np.zeros(count + 1, bool), np.ones(count + 1, bool)]
    prior = [NOBODY, BASE_HAS_IT]
    rest = (1 - NOBODY - BASE_HAS_IT) / sum(weights)
    for patch, weight in enumerate(weights, 1):
        ends = [None, *range(patch + 1, count + 1)] if mends else [None]
        for fixed in ends:
            suspects.append(Suspect(introduced=patch, fixed=fixed))
            rows.append((states >= patch) & (states < (count + 1 if fixed is None else fixed)))
            # As likely to be mended as not, and by any later patch alike.
            share = 1.0 if len(ends) == 1 else 0.5 if fixed is None else 0.5 / (len(ends) - 1)
            prior.append(weight * rest * share)
    return Lineup(suspects=tuple(suspects), prior=np.array(prior), bears=np.array(rows, float))


def history(parents: tuple[tuple[int, ...], ...], weights: Sequence[float]) -> Lineup:
    """Return the suspects of a history: commit k (from 1) is in each state that descends from it.

    `parents` has those of each commit, in an order in which parents come first; 0 is the good commit.
    """
    rest = (1 - NOBODY - BASE_HAS_IT) / sum(weights)
    return Lineup(
        suspects=(Suspect(introduced=None), *(Suspect(introduced=number) for number in range(len(parents) + 1))),
        prior=np.array([NOBODY, BASE_HAS_IT, *(weight * rest for weight in weights)]),
        bears=_descendants(parents),
    )


@lru_cache(maxsize=1)  # it is large, and the same for all findings
def _descendants(parents: tuple[tuple[int, ...], ...]) -> Floats:
    """Return which states bear nothing, what the base brings, and what each commit brings, a row for each."""
    count = len(parents)
    reached = [0]  # by state, as a set of bits: the commits in it
    for number, before in enumerate(parents, 1):
        bits = 1 << number
        for parent in before:
            bits |= reached[parent]
        reached.append(bits)
    size = (count + 8) // 8
    packed = np.frombuffer(b"".join(bits.to_bytes(size, "little") for bits in reached), np.uint8)
    inside = np.unpackbits(packed.reshape(count + 1, size), axis=1, bitorder="little")[:, 1 : count + 1]
    return np.vstack([np.zeros(count + 1), np.ones(count + 1), inside.T])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The likeliest answer: suspects that no state tells apart, the likeliest first."""

    suspects: tuple[tuple[Suspect, float], ...]  # with the probability of each
    probability: float  # of all of them together
    without_one: float  # the least that is left of it when any one failure is struck out


@dataclass(frozen=True, eq=False, kw_only=True)
class Belief:
    """What the trials so far say of the suspects."""

    lineup: Lineup
    failures: NDArray[np.int64]  # by state
    passes: NDArray[np.int64]
    holes: frozenset[int] = frozenset()  # states that cannot be tried

    @classmethod
    def of(cls, lineup: Lineup) -> Belief:
        """Return the belief before the first trial."""
        nothing = np.zeros(lineup.states, np.int64)
        return cls(lineup=lineup, failures=nothing, passes=nothing)

    def after(self, state: int, *, failures: int = 0, passes: int = 0) -> Belief:
        """Return the belief after so many more trials of a state."""
        return replace(self, failures=_plus(self.failures, state, failures), passes=_plus(self.passes, state, passes))

    def without(self, state: int) -> Belief:
        """Return the belief when a state cannot be tried, and never could."""
        return replace(self, holes=self.holes | {state})

    # -- odds ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Failures and passes in the states that would show a suspect, by suspect."""
        tried = np.flatnonzero(self.failures + self.passes)
        bears = self.lineup.bears[:, tried]
        return _whole(bears @ self.failures[tried]), _whole(bears @ self.passes[tried])

    @cached_property
    def posterior(self) -> Floats:
        """The probability of each suspect."""
        failed, passed = self._counts
        strays, quiet = self.failures.sum() - failed, self.passes.sum() - passed
        log = _evidence(failed, passed) + strays * math.log(STRAY) + quiet * math.log1p(-STRAY)
        log = log + np.log(self.lineup.prior)
        odds = np.exp(log - log.max())
        return np.asarray(odds / odds.sum())

    @property
    def measured(self) -> bool:
        """Whether the finding was seen often enough to know its rate somewhat."""
        return bool(self.failures.sum() >= SEEN)

    @property
    def rate(self) -> tuple[float, float]:
        """The failure rate where the finding is: mean and standard deviation, over all suspects that mean it."""
        failed, passed = self._counts
        a, b = RATE[0] + failed, RATE[1] + passed
        weight = self.posterior * (self.lineup.bears.any(axis=1))
        weight = weight / max(weight.sum(), 1e-300)
        mean = a / (a + b)
        spread = mean * (1 - mean) / (a + b + 1) + mean**2
        middle = float(weight @ mean)
        return middle, math.sqrt(max(0.0, float(weight @ spread) - middle**2))

    @cached_property
    def _groups(self) -> NDArray[np.int64]:
        """The number of each suspect's group: suspects that no state which can be tried tells apart are one answer."""
        return _indistinguishable(self.lineup, self.holes)

    @cached_property
    def _likeliest(self) -> tuple[int, float]:
        """The group of the likeliest answer, and its probability."""
        totals = np.bincount(self._groups, weights=self.posterior)
        return int(totals.argmax()), float(totals.max())

    @cached_property
    def answer(self) -> Answer:
        """The likeliest answer as it stands."""
        best, probability = self._likeliest
        members = np.flatnonzero(self._groups == best)
        named = sorted(((self.lineup.suspects[m], float(self.posterior[m])) for m in members), key=lambda one: -one[1])
        left = min((float(one.posterior[members].sum()) for one in self._doubts), default=probability)
        return Answer(suspects=tuple(named), probability=probability, without_one=left)

    @cached_property
    def _doubts(self) -> tuple[Belief, ...]:
        """What would be believed if one failure had not been there, for each state that has any."""
        return tuple(self.after(int(state), failures=-1) for state in np.flatnonzero(self.failures))

    def settled(self, confidence: float) -> bool:
        """Whether the answer is as sure as is asked for, and does not hang on any one failure."""
        return self._likeliest[1] >= _needed(confidence) and self.answer.without_one >= min(WITHOUT_ONE, confidence)

    def doubted(self, confidence: float) -> Belief:
        """Return the belief to plan with: this one, or what is left of it without the failure that it hangs on."""
        group, probability = self._likeliest
        if probability < _needed(confidence) or not self._doubts:
            return self
        members = np.flatnonzero(self._groups == group)
        return min(self._doubts, key=lambda one: float(one.posterior[members].sum()))

    # -- what to try next ---------------------------------------------------------------------------------------------

    def information(self, trials: int) -> Floats:
        """Return the bits that so many trials of each state are expected to tell of whether the finding is in it."""
        failed, passed = self._counts
        bears = self.lineup.bears
        # states x failures, times the probability that the finding is there, or that it is not
        bad = bears.T @ (self.posterior[:, None] * _outcomes(failed, passed, trials))
        there = np.minimum(self.posterior @ bears, 1.0)
        good = (1 - there)[:, None] * _binomial(trials, STRAY)[None, :]
        told = (
            _entropy_of(bad + good)
            - _entropy_of(bad)
            - _entropy_of(good)
            + _entropy_of(np.stack([there, 1 - there], 1))
        )
        told[list(self.holes)] = 0.0
        return np.maximum(told, 0.0)


def _needed(confidence: float) -> float:
    return 1 - CAUTION * (1 - confidence)


def _whole(numbers: Floats) -> NDArray[np.int64]:
    return np.asarray(numbers.round().astype(np.int64))


def _plus(counts: NDArray[np.int64], state: int, number: int) -> NDArray[np.int64]:
    if not number:
        return counts
    changed = counts.copy()
    changed[state] += number
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to try next."""

    state: int
    trials: int  # that were weighed; after each one it may be something else
    gain: float  # bits per second


def best(beliefs: Sequence[Belief], prepare: Floats, seconds: Floats) -> Choice | None:
    """Return the state to try next, for all `beliefs` at once; None if nothing would tell anything.

    `prepare` are the seconds until the first trial of each state can begin, `seconds` those of a trial.
    """
    known = [belief for belief in beliefs if belief.measured]
    if beliefs and not known:
        seen = max(beliefs, key=lambda belief: int(belief.failures.sum())).failures
        return Choice(state=int(seen.argmax()), trials=SEEN, gain=math.inf)
    chosen = Choice(state=0, trials=0, gain=LEAST)
    # Where everything is ready one trial is enough to look ahead, as the next one is planned after it.
    for trials in BATCHES if prepare.any() else BATCHES[:1]:
        told = sum((belief.information(trials) for belief in known), np.zeros(len(prepare)))
        gain = told / (prepare + trials * seconds)
        state = int(gain.argmax())
        if gain[state] > chosen.gain * (1 + 1e-9):
            chosen = Choice(state=state, trials=trials, gain=float(gain[state]))
    return chosen if chosen.trials else None


# -- mathematics ------------------------------------------------------------------------------------------------------


def _grown(table: Floats, size: int, start: float) -> Floats:
    more = np.array([math.lgamma(start + n) for n in range(len(table), size)])
    return np.concatenate([table, more])


class _LogGamma:
    """log gamma(start + n) for whole n, looked up."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._table = np.empty(0)

    def __call__(self, n: NDArray[np.int64]) -> Floats:
        most = int(n.max(initial=0))
        if most >= len(self._table):
            self._table = _grown(self._table, 2 * most + 64, self._start)
        return np.asarray(self._table[n])


_OF_FAILURES, _OF_PASSES, _OF_BOTH = _LogGamma(RATE[0]), _LogGamma(RATE[1]), _LogGamma(sum(RATE))
_NONE = np.zeros(1, np.int64)


def _evidence(failed: NDArray[np.int64], passed: NDArray[np.int64]) -> Floats:
    """Return log B(a + failed, b + passed) / B(a, b): how likely these outcomes are, in their order, at any rate."""
    nothing = _OF_FAILURES(_NONE) + _OF_PASSES(_NONE) - _OF_BOTH(_NONE)
    return np.asarray(_OF_FAILURES(failed) + _OF_PASSES(passed) - _OF_BOTH(failed + passed) - nothing)


def _outcomes(failed: NDArray[np.int64], passed: NDArray[np.int64], trials: int) -> Floats:
    """Return the beta-binomial probabilities of 0 ... `trials` failures in as many more trials, a row for each pair."""
    more = np.arange(trials + 1)
    ways = np.log([math.comb(trials, k) for k in more])
    after = _evidence(failed[:, None] + more, passed[:, None] + trials - more)
    return np.exp(ways + after - _evidence(failed, passed)[:, None])


@lru_cache(maxsize=64)
def _binomial(trials: int, rate: float) -> Floats:
    return np.array([math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)])


def _entropy_of(masses: Floats) -> Floats:
    """Return -sum(m log2 m) over the last axis."""
    safe = np.where(masses > 0, masses, 1.0)
    return np.asarray(-(masses * np.log2(safe)).sum(axis=-1))


@lru_cache(maxsize=64)
def _indistinguishable(lineup: Lineup, holes: frozenset[int]) -> NDArray[np.int64]:
    tried = [state for state in range(lineup.states) if state not in holes]
    if not tried:
        return np.zeros(len(lineup.suspects), np.int64)
    packed = np.packbits(lineup.bears[:, tried] > 0, axis=1)
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    return np.asarray(np.unique(rows, return_inverse=True)[1]).ravel()
