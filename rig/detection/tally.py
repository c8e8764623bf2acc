"""What a hunt has used and seen so far, and what the trials of somebody innocent come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rig.detection.hunt import QUICK, growing
from rig.detection.outcomes import Cleared, Hunt, Outcome, Sighting
from rig.model import Finding, Status, TrialResult
from rig.verdicts.verdict import causes, counts

#: A control that shows other findings so often is caught otherwise, and no more time is spent on it.
OTHERS = 6

#: Of a trial: below that many seconds there is no point in starting a machine.
LEAST = 1.0


class Tally:
    """What a hunt has used and seen so far."""

    def __init__(self, limit: float, first: float, budget: float) -> None:
        self.limit = limit
        self._first = first
        self._budget = budget
        self.used = 0.0
        self.trials = 0
        self.lost = 0
        self.inconclusive = 0
        self.found: Sighting | None = None
        self.others: dict[str, Sighting] = {}
        self.cells: list[str] = []
        self.useless: set[str] = set()  # cells that say nothing
        self._with_others = 0
        self._turns: Counter[str] = Counter()  # of each workload

    def budget(self, workload: str, *, quick: bool = False) -> float:
        """Return the seconds of the next trial, of this workload."""
        wanted = QUICK if quick else growing(self._turns[workload], self._first, self._budget)
        return min(wanted, self._budget, self.limit - self.used)

    @property
    def over(self) -> bool:
        """Whether the hunt has come to its end. Trials that crash at once use next to no time, and end as well."""
        spent = self.limit - self.used < LEAST or self.trials >= 3 * self.limit / self._budget + OTHERS
        return self.found is not None or spent or self._with_others >= OTHERS

    def take(self, result: TrialResult, sees: Callable[[str], bool], where: Path) -> None:
        """Take a trial into account; `where` is what its evidence is relative to."""
        self.trials += 1
        self.cells.append(result.cell.id)
        self._turns[result.cell.workload] += 1
        sightings = [(finding, sighted(result, finding, where)) for finding in result.findings]
        match = next((sighting for finding, sighting in sightings if sees(finding.title)), None)
        if match is not None:
            self.found = match
            self.used += result.timing.workload if result.first_finding is None else result.first_finding
            return
        self.used += max(result.timing.workload, result.first_finding or 0.0)
        self.inconclusive += result.status is Status.INCONCLUSIVE
        if result.status in (Status.LOST, Status.SKIP):
            self.lost += 1
            self.useless.add(result.cell.id)
        blamed = {finding.signature for finding in causes(result)}
        mine = [sighting for finding, sighting in sightings if finding.signature in blamed]
        self._with_others += bool(mine)
        for sighting in mine:
            self.others.setdefault(sighting.signature, sighting)

    def hunt(self, seed: int) -> Hunt:
        """Return the hunt, which is over."""
        outcome = Outcome.MISSED
        if self.found:
            outcome = Outcome.CAUGHT
        elif self.others:
            outcome = Outcome.OTHERWISE
        elif self.lost == self.trials:
            outcome = Outcome.BROKEN
        return Hunt(
            seed=seed,
            outcome=outcome,
            seconds=round(self.used, 3),
            trials=self.trials,
            lost=self.lost,
            inconclusive=self.inconclusive,
            found=self.found,
            others=tuple(self.others.values()),
            cells=tuple(self.cells),
        )


def sighted(result: TrialResult, finding: Finding, where: Path) -> Sighting:
    """Return where a trial has seen a finding."""
    return Sighting(
        oracle=finding.oracle,
        title=finding.title,
        signature=finding.signature,
        cell=result.cell.id,
        seed=result.seed,
        evidence=str(where / result.evidence),
    )


def cleared(name: str, key: str, trials: Sequence[TrialResult], where: Path) -> Cleared:
    """Return what the trials of somebody innocent come to: every cause that any of them names is a false alarm."""
    alarms = [sighted(one, cause, where) for one in trials if one.status.bad for cause in causes(one)]
    return Cleared(
        name=name,
        key=key,
        trials=sum(map(counts, trials)),
        lost=sum(one.status in (Status.LOST, Status.SKIP) for one in trials),
        inconclusive=sum(one.status is Status.INCONCLUSIVE for one in trials),
        alarms=tuple(alarms),
    )
