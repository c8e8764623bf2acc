"""Bisections of made-up series: how many trials they take, and whom they convict wrongly.

The same beliefs and plans as in `rig bisect`, with a kernel that is one number: how often a trial of it fails. Beside
it what a plain bisection would take that runs a fixed number of trials at each step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from rig.bisection import posterior
from rig.bisection.posterior import Belief, Lineup, Suspect

#: A simulation that has not come to an end by then is undecided.
MOST_TRIALS = 20_000
#: Rates over which a belief of the rate is summed up, for the plain bisection.
_GRID = np.linspace(0.0005, 0.9995, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is true."""

    guilty: Suspect
    rate: float  # of failures where the bug is
    stray: float = 0.0  # and where it is not
    holes: frozenset[int] = frozenset()  # states that do not build


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What became of one bisection."""

    named: tuple[Suspect, ...]  # whom it convicts; () when it is undecided
    right: bool
    trials: int  # after the finding was first seen, the trials of base and tip included
    until_seen: int
    measured: int  # of `trials`: those until the rate was known somewhat
    failures: int  # among the trials of the tip, until then


def simulate(lineup: Lineup, world: World, rng: random.Random, *, confidence: float = 0.95) -> Simulated:
    """Return what a bisection comes to whose tip shows the finding; the tip is tried until it does."""
    tip = lineup.states - 1
    here = lineup.bears[lineup.suspects.index(world.guilty)] > 0
    belief = Belief.of(lineup)
    tried = 0

    def once(state: int) -> bool:
        nonlocal belief, tried
        failed = rng.random() < (world.rate if here[state] else world.stray)
        belief = belief.after(state, failures=int(failed), passes=int(not failed))
        tried += 1
        return failed

    while not once(tip):
        pass
    until_seen, measured, failures = tried, 0, 1
    once(0)
    nothing, one = np.zeros(lineup.states), np.ones(lineup.states)
    while tried < MOST_TRIALS and not belief.settled(confidence):
        choice = posterior.best([belief.doubted(confidence)], nothing, one)
        if choice is None:
            break
        if choice.state in world.holes:
            belief = belief.without(choice.state)
            continue
        failed = once(choice.state)
        if choice.trials == posterior.SEEN:
            measured, failures = tried - until_seen, failures + failed
    settled = belief.settled(confidence)
    named = tuple(suspect for suspect, _ in belief.answer.suspects) if settled else ()
    return Simulated(
        named=named,
        right=world.guilty in named,
        trials=tried - until_seen,
        until_seen=until_seen,
        measured=measured,
        failures=failures,
    )


def fixed_when_told(patches: int, rate: float, wrong: float) -> float:
    """Return the trials of a bisection with a fixed number per step that knows the rate and is wrong that seldom.

    A step goes wrong when a prefix that has the bug (every second one) passes all of its trials. This is more than any
    bisection of a real bug is told.
    """
    return _fixed(patches, lambda number: (1 - rate) ** number, wrong)


def fixed_alike(patches: int, done: Simulated, wrong: float) -> float:
    """Return the trials of a bisection with a fixed number per step that knows of the rate what the rig knew.

    That is what the first trials of the tip showed; its number per step is the least with which it is wrong that
    seldom, over all rates that this leaves possible.
    """
    passes = done.until_seen + done.measured - 1 - done.failures  # without the trial of the base
    density = _GRID**done.failures * (1 - _GRID) ** max(0, passes)
    density /= density.sum()
    return max(0, done.measured) + _fixed(patches, lambda number: (1 - _GRID) ** number, wrong, density)


def _fixed(
    patches: int, missed: Callable[[int], object], wrong: float, density: Sequence[float] | object = 1.0
) -> float:
    steps = np.log2(patches)
    low, high = 0, 1
    while _wrong(missed(high), steps, density) > wrong:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _wrong(missed(middle), steps, density) > wrong else (low, middle)
    return float(high * steps)


def _wrong(missed: object, steps: float, density: object) -> float:
    return float(np.sum(density * (1 - (1 - np.asarray(missed) / 2) ** steps)))  # type: ignore[operator]


def holes_of(patches: int, count: int, spare: Collection[int], rng: random.Random) -> frozenset[int]:
    """Return so many states of a series that do not build, none of them in `spare`."""
    return frozenset(rng.sample([state for state in range(1, patches) if state not in spare], count))
