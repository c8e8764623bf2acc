"""Trials as test cases: what goes together under one name, and what it comes to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rig.model import CaseResult, Finding, Status, TrialResult
from rig.trials.signature import signature
from rig.verdicts.verdict import causes

WHOLE_TRIAL = "run"  # the test case of a trial that has no cases
#: The worst first: what several trials of one case come to.
WORST = (
    Status.CRASH,
    Status.TIMEOUT,
    Status.FAIL,
    Status.LOST,
    Status.PASS,
    Status.INCONCLUSIVE,
    Status.SKIP,
)

_NUMBERED = re.compile(r"case-(\d+)$")


@dataclass(slots=True)
class Case:
    """One test case: a workload's case in one cell on one kernel, over all trials."""

    workload: str
    filesystem: str
    name: str
    results: list[tuple[TrialResult, CaseResult]] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The worst of all trials."""
        return min((case.status for _, case in self.results), key=WORST.index)


def case_names(trials: Iterable[TrialResult]) -> dict[tuple[str, int], str]:
    """Return the names of cases by workload and number, learnt from the trials in which they reported.

    A case that went down with the machine never said its name; under `case-3` it would be a stranger in the history.
    """
    names: dict[tuple[str, int], str] = {}
    for trial in trials:
        for number, case in enumerate(trial.cases, 1):
            if not _NUMBERED.match(case.name):
                names.setdefault((trial.cell.workload, number), case.name)
    return names


def cases_of(trials: Sequence[TrialResult], names: dict[tuple[str, int], str]) -> list[Case]:
    cases: dict[tuple[str, str, str], Case] = {}
    for trial in trials:
        workload, filesystem = trial.cell.workload, trial.cell.filesystem
        for number, result in enumerate(_with_verdict(trial), 1):
            name = names.get((workload, number), result.name) if _NUMBERED.match(result.name) else result.name
            case = cases.setdefault((workload, filesystem, name), Case(workload, filesystem, name))
            case.results.append((trial, result))
    return [cases[key] for key in sorted(cases)]


def _with_verdict(trial: TrialResult) -> tuple[CaseResult, ...]:
    """The trial's cases, and a case `run` for what is not the fault of any: a splat beside cases that all passed."""
    of_cases = {finding.signature for case in trial.cases for finding in case.findings}
    beside = tuple(finding for finding in causes(trial) if finding.signature not in of_cases)
    explained = any(case.status is trial.status for case in trial.cases) and not beside
    if trial.cases and explained:
        return trial.cases
    blamed = next((i for i, case in enumerate(trial.cases) if case.status in (Status.CRASH, Status.TIMEOUT)), None)
    if blamed is not None:
        case = trial.cases[blamed]
        whole = CaseResult(
            name=case.name, status=case.status, reason=case.reason, findings=(*beside, *case.findings),
            counters=case.counters, seconds=case.seconds,
        )  # fmt: skip
        return (*trial.cases[:blamed], whole, *trial.cases[blamed + 1 :])
    return (*trial.cases, CaseResult(name=WHOLE_TRIAL, status=trial.status, reason=trial.reason, findings=beside))


def of_status(case: Case, status: Status) -> tuple[TrialResult, CaseResult]:
    return next((trial, one) for trial, one in case.results if one.status is status)


def distinct(case: Case) -> Iterator[tuple[TrialResult, CaseResult, Finding | None]]:
    """The failures of a case, each signature once, with the first trial that showed it."""
    seen: set[str] = set()
    for trial, one in case.results:
        if not one.status.bad:
            continue
        for finding in one.findings or (None,):
            key = finding.signature if finding else signature(one.status, one.reason)
            if key not in seen:
                seen.add(key)
                yield trial, one, finding


def seconds_of(trial: TrialResult, case: CaseResult) -> float:
    """A workload that does not time its cases has spent its time on all of them alike."""
    return case.seconds or trial.timing.workload / max(1, len(trial.cases))


def often(case: Case, result: CaseResult, finding: Finding | None) -> str:
    """` (2 of 3 trials)`, where there are several: what fails now and then must not look like what always does."""
    counted = [one for _, one in case.results if one.status is Status.PASS or one.status.bad]
    if len(counted) < 2:
        return ""
    if finding:
        seen = sum(any(other.signature == finding.signature for other in one.findings) for one in counted)
    else:
        seen = sum(one.status is result.status and not one.findings for one in counted)
    return f" ({seen} of {len(counted)} trials)"
