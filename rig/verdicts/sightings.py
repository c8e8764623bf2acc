"""What was seen where: trials that count, by cell and side, and the findings in them, by signature.

What counts is a trial that could have failed and be seen to. LOST and SKIP say nothing, and neither does an
INCONCLUSIVE one, whose race never came near happening.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rig.model import Finding, Side, Status, Tally, TrialResult
from rig.trials.signature import signature
from rig.verdicts.expectations import NOTHING, Known


def counts(trial: TrialResult) -> bool:
    """Whether the trial says anything about its kernel."""
    return trial.status is Status.PASS or trial.status.bad


def causes(trial: TrialResult) -> tuple[Finding, ...]:
    """Return what a trial accuses the kernel of, echoes left out, each signature once."""
    found = [finding for finding in trial.findings if not finding.echo] or list(trial.findings)
    if not found and trial.status.bad:
        kind = trial.status.lower()
        found = [Finding(oracle="rig", kind=kind, title=trial.reason, signature=signature(kind, trial.reason))]
    return tuple({finding.signature: finding for finding in reversed(found)}.values())[::-1]


@dataclass(slots=True)
class Sighting:
    """Where one signature was seen, in trials that count.

    Where it is a known issue of the patched kernel it accuses nobody. Where it is one of the base, it is evidence all
    the same that the base has it.
    """

    first: Finding
    example: str = ""
    base: Counter[str] = field(default_factory=Counter)  # trials that saw it, by cell
    patched: Counter[str] = field(default_factory=Counter)  # without those in which it is a known issue
    known: Counter[str] = field(default_factory=Counter)  # of the patched kernel, by cell
    alone: Counter[Side] = field(default_factory=Counter)  # pairs in which this side saw it, and not the other
    entry: int | None = None  # of the known issues, which it is somewhere

    @property
    def cells(self) -> frozenset[str]:
        """The cells it was seen in, known issue or not."""
        return frozenset(self.base.keys() | self.patched.keys() | self.known.keys())

    def seen(self, side: Side) -> Counter[str]:
        """Return the trials of one side that saw it and in which that was not to be expected, by cell."""
        return self.base if side is Side.BASE else self.patched


@dataclass(slots=True)
class Evidence:
    """All that is counted over a run."""

    trials: dict[Side, Counter[str]]  # that count, by cell
    sightings: dict[str, Sighting]  # by signature, the patched kernel's first
    failures: Sighting  # trials that failed in whatever way: one bug has many faces, and together they are surer
    matched: frozenset[int]  # entries of the known issues

    @property
    def shared(self) -> frozenset[str]:
        """The cells in which both sides have trials that count."""
        return frozenset(self.trials[Side.BASE].keys() & self.trials[Side.PATCHED].keys())

    def total(self, side: Side, cells: Iterable[str] | None = None) -> int:
        """Return the trials that count on `side`, in all cells or in those given."""
        numbers = self.trials[side]
        return sum(numbers.values()) if cells is None else sum(numbers[cell] for cell in cells)

    def tally(self, sighting: Sighting, side: Side, cells: Iterable[str], *, known: bool = False) -> Tally:
        """Return how many trials of `side` in these cells saw it, with those in which it is `known` or without."""
        chosen, seen = tuple(cells), sighting.seen(side)
        if known and side is Side.PATCHED:
            seen = seen + sighting.known
        return Tally(failures=sum(seen[cell] for cell in chosen), trials=self.total(side, chosen))


def gather(trials: Sequence[TrialResult], known: Known = NOTHING) -> Evidence:
    """Return what was seen in the trials, which may come in any order."""
    evidence = Evidence(
        trials={side: Counter() for side in Side},
        sightings={},
        failures=Sighting(Finding(oracle="rig", kind="any", title="any failure", signature="")),
        matched=frozenset(),
    )
    pairs: dict[tuple[str, int], dict[Side, tuple[list[Sighting], list[Sighting]]]] = defaultdict(dict)
    matched = set[int]()
    # The patched kernel's first, as the example of a finding is to be the first trial of it that saw it, if any did.
    for trial in sorted(trials, key=lambda one: one.side is Side.BASE):
        if not counts(trial):
            continue
        cell, side = trial.cell.id, trial.side
        evidence.trials[side][cell] += 1
        saw, expected, surprise = list[Sighting](), list[Sighting](), False
        for finding in causes(trial):
            sighting = evidence.sightings.setdefault(finding.signature, Sighting(finding, trial.evidence))
            if (entry := known.match(finding, trial)) is not None:
                matched.add(entry)
                sighting.entry = sighting.entry or entry
            if entry is not None and side is Side.PATCHED:
                sighting.known[cell] += 1
                expected.append(sighting)
                continue
            surprise = surprise or entry is None
            sighting.seen(side)[cell] += 1
            saw.append(sighting)
        if trial.status.bad and surprise:
            evidence.failures.seen(side)[cell] += 1
            saw.append(evidence.failures)
        pairs[cell, trial.index][side] = saw, expected
    for twins in pairs.values():
        if len(twins) == len(Side):
            for side, other in ((Side.BASE, Side.PATCHED), (Side.PATCHED, Side.BASE)):
                there = {id(one) for some in twins[other] for one in some}
                for sighting in twins[side][0]:
                    sighting.alone[side] += id(sighting) not in there
    evidence.matched = frozenset(matched)
    return evidence
