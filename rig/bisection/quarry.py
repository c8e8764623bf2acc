"""What a bisection hunts: a finding, how a trial shows it, and what is known of it so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from rig.bisection.posterior import Belief, Lineup
from rig.bisection.workbench import Hole
from rig.model import Cell, Finding, Status, TrialResult
from rig.verdicts.verdict import causes

#: So many trials of a prefix that say nothing of a finding, and none that does: it cannot be tried for this one.
MUTE = 3

#: What a trial says of what is hunted: that it is there, that it is not, or nothing (None).
Observe = Callable[[TrialResult], bool | None]


def shows(signature: str) -> Observe:
    """Return what says of a trial whether it shows the finding with this signature.

    A trial that went down with another finding says nothing: the one that is hunted may have come later.
    """

    def observe(trial: TrialResult) -> bool | None:
        if trial.status.bad and any(cause.signature == signature for cause in causes(trial)):
            return True
        whole = trial.status in (Status.PASS, Status.FAIL) and not any(finding.fatal for finding in trial.findings)
        return False if whole else None

    return observe


@dataclass(frozen=True, eq=False, kw_only=True)
class Hunt:
    """One finding that is hunted, in the cell that showed it first: in another one its rate would be another."""

    finding: Finding
    cell: Cell
    lineup: Lineup
    observe: Observe


@dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """What the trials and builds so far say of a hunt."""

    hunt: Hunt
    belief: Belief
    holes: Mapping[int, str]  # why a prefix cannot be tried
    wasted: Mapping[int, int]  # trials that say nothing of it, by prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A patch that breaks the build of a flavour, and the one that mends it again."""

    flavour: str
    introduced: int
    fixed: int | None
    error: str


def known(hunt: Hunt, trials: Iterable[TrialResult], holes: Iterable[Hole]) -> Known:
    """Return what is known of a hunt from the trials of its cell and the prefixes that cannot be tried."""
    failures, passes = np.zeros(hunt.lineup.states, np.int64), np.zeros(hunt.lineup.states, np.int64)
    wasted: Counter[int] = Counter()
    reasons: dict[int, str] = {}
    for trial in trials:
        if trial.cell != hunt.cell:
            continue
        seen = hunt.observe(trial)
        if seen is None:
            wasted[trial.prefix] += 1
            reasons.setdefault(trial.prefix, trial.reason)
        else:
            (failures if seen else passes)[trial.prefix] += 1
    words = {hole.number: hole_words(hole) for hole in holes if hole.flavour == hunt.cell.flavour}
    for number, count in wasted.items():
        if count >= MUTE:
            words.setdefault(number, f"its trials say nothing of it: {reasons[number]}")
    words = {number: text for number, text in words.items() if not failures[number] + passes[number]}
    belief = Belief(lineup=hunt.lineup, failures=failures, passes=passes, holes=frozenset(words))
    return Known(hunt=hunt, belief=belief, holes=words, wasted=wasted)


def hole_words(hole: Hole) -> str:
    """Return why a prefix cannot be tried."""
    return f"does not {'build' if hole.state == 'broken' else 'boot'}: {hole.reason}"


def sightings(
    trials: Iterable[TrialResult], accusing: Callable[[int], bool], globs: Iterable[str]
) -> dict[str, tuple[Finding, Cell]]:
    """Return each signature that trials of accusing prefixes show, with the finding and the cell that showed it first.

    With `globs` only those count of which the signature or the title matches one.
    """
    wanted = tuple(globs)
    found: dict[str, tuple[Finding, Cell]] = {}
    for trial in trials:
        if trial.status.bad and accusing(trial.prefix):
            for cause in causes(trial):
                if not wanted or matches(cause, wanted):
                    found.setdefault(cause.signature, (cause, trial.cell))
    return found


def matches(finding: Finding, globs: Iterable[str]) -> bool:
    """Whether a finding is one of those that are meant."""
    return any(fnmatchcase(finding.signature, glob) or fnmatchcase(finding.title, glob) for glob in globs)


def on_the_side(trials: Iterable[TrialResult], hunted: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Return the titles of findings that are not hunted, by prefix."""
    known_ones = set(hunted)
    found: dict[int, dict[str, None]] = defaultdict(dict)
    for trial in trials:
        for cause in causes(trial) if trial.status.bad else ():
            if cause.signature not in known_ones:
                found[trial.prefix][cause.title] = None
    return {number: tuple(titles) for number, titles in found.items()}
