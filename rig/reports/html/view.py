"""From a run to what the page shows of it: chosen, counted and bounded, and nothing formatted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from rig.model import CaseResult, Finding, FindingVerdict, GuestState, Side, Status, Tally, TrialResult
from rig.reports import again
from rig.reports.html.logs import Line, excerpt
from rig.reports.html.plots import Figure
from rig.reports.printable import cut
from rig.reports.words import failed, headline
from rig.runs.results import Run
from rig.verdicts.blame import Blame, blame, cases_of, function_of
from rig.verdicts.verdict import causes, counts

MOST_FINDINGS = 30  # told in full; the rest stand in the table
MOST_SIGHTINGS = 40  # trials listed with a finding
MOST_TRIALS = 600
MOST_TEXT = 32768  # characters of a splat
#: Keys of the configuration that say where things lie on this host, and nothing about the run.
LOCAL = ("results", "store", "store_limit_mib", "kconfigs", "guest_workloads", "series", "known_issues")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplatLine:
    """A line of a splat; `patches` touch the function that it names."""

    text: str
    patches: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A trial that saw a finding."""

    trial: TrialResult
    cases: tuple[str, ...]
    logs: tuple[str, ...]  # paths of the evidence that is there, relative to the page


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """All that is told of one finding."""

    number: int
    verdict: FindingVerdict
    finding: Finding | None  # as the example saw it
    example: TrialResult | None
    blame: Blame | None
    splat: tuple[SplatLine, ...]
    console: tuple[Line, ...]
    sightings: tuple[Sighting, ...]
    more_sightings: int
    machines: tuple[str, ...]
    rerun: str
    anywhere: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One side of one cell of the heat map."""

    tally: Tally
    statuses: tuple[tuple[Status, int], ...]

    @property
    def heat(self) -> int:
        """0 for no failure, else 1 to 5 by the share of failures."""
        return -(-5 * self.tally.failures // self.tally.trials) if self.tally.failures else 0

    @property
    def words(self) -> str:
        """`2 CRASH, 1 PASS`."""
        return ", ".join(f"{count} {status}" for status, count in self.statuses) or "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """A workload on a file system, over all kernels and machines; None where the matrix has no cell."""

    workload: str
    filesystem: str
    squares: tuple[tuple[Square, Square] | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """The matrix: columns are (flavour, machine)."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[HeatRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Medians over the trials, base and patched, of what was counted: rows of (name, (base, patched) per column)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float | None, float | None], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """What was done inside one function, summed over all trials, base and patched."""

    function: str
    kind: str
    executed: tuple[int, int]
    stalls: tuple[int, int]
    seconds: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The page."""

    run: Run
    headline: str
    failed: tuple[Tally, Tally]  # base, patched, in whatever way
    findings: tuple[FindingView, ...]
    heat: HeatMap
    figures: tuple[Figure, ...]
    cases: tuple[Counters, ...]
    kernel: Counters | None
    stalled: tuple[Stalled, ...]
    perturbation: tuple[str, ...]  # notes
    trials: tuple[TrialResult, ...]
    accelerators: tuple[str, ...]
    machines: tuple[tuple[str, GuestState], ...]  # by name, as the first guest reported them
    configuration: str  # YAML, without paths of this host


def of_run(run: Run, root: Path, figures: tuple[Figure, ...] = ()) -> View:
    """Return what the page of a run shows, with these figures; the evidence is read below `root`."""
    return View(
        run=run,
        headline=headline(run),
        failed=failed(run),
        findings=tuple(
            _finding(run, root, number, one) for number, one in enumerate(run.verdict.findings[:MOST_FINDINGS], 1)
        ),
        heat=heat_map(run.trials),
        figures=figures,
        cases=tuple(_case_counters(run.trials)),
        kernel=_kernel_counters(run.trials),
        stalled=_stalled(run.trials),
        perturbation=_notes(run.trials),
        trials=tuple(sorted(run.trials, key=lambda trial: (not trial.status.bad, trial.cell.id, trial.index)))[
            :MOST_TRIALS
        ],
        accelerators=tuple(sorted({trial.accelerator for trial in run.trials} or {run.host.accelerator})),
        machines=_machines(run.trials),
        configuration=yaml.safe_dump(
            {key: value for key, value in run.config.items() if key not in LOCAL}, sort_keys=False, width=100
        ),
    )


# -- findings ---------------------------------------------------------------------------------------------------------


def _finding(run: Run, root: Path, number: int, verdict: FindingVerdict) -> FindingView:
    seen = [
        (trial, finding)
        for trial in run.trials
        if counts(trial)
        for finding in causes(trial)
        if finding.signature == verdict.signature
    ]
    example, finding = next(((t, f) for t, f in seen if t.evidence == verdict.example), (None, None))
    console: tuple[Line, ...] = ()
    if example and finding and finding.first_line is not None:
        log = root / example.evidence / "console.log"
        console = excerpt(log, finding.first_line, max(finding.first_line, finding.last_line or 0))
    return FindingView(
        number=number,
        verdict=verdict,
        finding=finding,
        example=example,
        blame=blame(run, example, finding) if example and finding else None,
        splat=_splat(run, finding.text) if finding else (),
        console=console,
        sightings=tuple(_sighting(root, trial, verdict.signature) for trial, _ in seen[:MOST_SIGHTINGS]),
        more_sightings=max(0, len(seen) - MOST_SIGHTINGS),
        machines=tuple(sorted({f"{trial.cell.machine} ({trial.cell.flavour})" for trial, _ in seen})),
        rerun=again.rerun(verdict.example),
        anywhere=again.anywhere(run, example) if example else "",
    )


def _splat(run: Run, text: str) -> tuple[SplatLine, ...]:
    touched: dict[str, set[int]] = {}
    for patch in run.series.patches:
        for function in patch.functions:
            touched.setdefault(function.name, set()).add(patch.number)
    return tuple(
        SplatLine(text=line, patches=tuple(sorted(touched.get(function_of(line) or "", ()))))
        for line in cut(text, MOST_TEXT).splitlines()
    )


def _sighting(root: Path, trial: TrialResult, signature: str) -> Sighting:
    names = ("console.log", "ktap.log", "reproduce.sh")
    return Sighting(
        trial=trial,
        cases=cases_of(trial, signature),
        logs=tuple(f"{trial.evidence}/{name}" for name in names if (root / trial.evidence / name).exists()),
    )


# -- the matrix -------------------------------------------------------------------------------------------------------


def heat_map(trials: Sequence[TrialResult]) -> HeatMap:
    """Return the matrix of a run: how often each cell failed on each side."""
    columns = tuple(sorted({(trial.cell.flavour, trial.cell.machine) for trial in trials}))
    rows = sorted({(trial.cell.workload, trial.cell.filesystem) for trial in trials})
    at: dict[tuple[tuple[str, str], tuple[str, str]], dict[Side, list[TrialResult]]] = {}
    for trial in trials:
        cell = trial.cell
        place = ((cell.workload, cell.filesystem), (cell.flavour, cell.machine))
        at.setdefault(place, {side: [] for side in Side})[trial.side].append(trial)
    return HeatMap(
        columns=columns,
        rows=tuple(
            HeatRow(
                workload=row[0],
                filesystem=row[1],
                squares=tuple(
                    (_square(sides[Side.BASE]), _square(sides[Side.PATCHED]))
                    if (sides := at.get((row, column)))
                    else None
                    for column in columns
                ),
            )
            for row in rows
        ),
    )


def _square(trials: Sequence[TrialResult]) -> Square:
    counted = [trial for trial in trials if counts(trial)]
    found = {status: sum(trial.status is status for trial in trials) for status in Status}
    return Square(
        tally=Tally(failures=sum(trial.status.bad for trial in counted), trials=len(counted)),
        statuses=tuple((status, count) for status, count in found.items() if count),
    )


def _machines(trials: Iterable[TrialResult]) -> tuple[tuple[str, GuestState], ...]:
    found: dict[str, GuestState] = {}
    for trial in trials:
        if trial.guest:
            found.setdefault(trial.cell.machine, trial.guest)
    return tuple(sorted(found.items()))


# -- how near ---------------------------------------------------------------------------------------------------------


def _case_counters(trials: Sequence[TrialResult]) -> Iterable[Counters]:
    for workload in sorted({trial.cell.workload for trial in trials}):
        cases: dict[str, list[tuple[Side, CaseResult]]] = {}
        for trial in trials:
            for case in trial.cases if trial.cell.workload == workload else ():
                if case.counters:
                    cases.setdefault(case.name, []).append((trial.side, case))
        columns = tuple(dict.fromkeys(name for some in cases.values() for _, case in some for name, _ in case.counters))
        if columns:
            rows = tuple(
                (
                    name,
                    tuple(
                        _middles((side, dict(case.counters).get(column)) for side, case in some) for column in columns
                    ),
                )
                for name, some in cases.items()
            )
            yield Counters(title=workload, columns=columns, rows=rows)


def _kernel_counters(trials: Sequence[TrialResult]) -> Counters | None:
    """The kernel's own counters by workload, those that moved at all."""
    moved = sorted({name for trial in trials for name, count in trial.coverage if count})
    workloads = tuple(sorted({trial.cell.workload for trial in trials if trial.coverage}))
    known = [(trial, dict(trial.coverage)) for trial in trials if trial.coverage]
    if not moved:
        return None
    rows = tuple(
        (
            name,
            tuple(
                _middles((trial.side, had.get(name)) for trial, had in known if trial.cell.workload == workload)
                for workload in workloads
            ),
        )
        for name in moved
    )
    return Counters(title="kernel", columns=workloads, rows=rows)


def _middles(values: Iterable[tuple[Side, int | None]]) -> tuple[float | None, float | None]:
    sides: dict[Side, list[int]] = {side: [] for side in Side}
    for side, value in values:
        if value is not None:
            sides[side].append(value)
    base, patched = (median(sides[side]) if sides[side] else None for side in (Side.BASE, Side.PATCHED))
    return base, patched


def _stalled(trials: Sequence[TrialResult]) -> tuple[Stalled, ...]:
    """What was done inside functions, those that ran and those of the series, the latter first."""
    sums: dict[tuple[str, str], dict[Side, list[float]]] = {}
    for trial in trials:
        directed = trial.perturbation.directed if trial.perturbation else None
        for one in directed.functions if directed else ():
            row = sums.setdefault((one.kind, one.function), {side: [0, 0, 0.0] for side in Side})[trial.side]
            for column, value in enumerate((one.executed, one.stalls, one.stalled)):
                row[column] += value
    ranks = ("touched", "inlined", "partner", "caller")
    found = []
    for (kind, function), sides in sums.items():
        base, patched = sides[Side.BASE], sides[Side.PATCHED]
        if kind in ranks[:2] or base[0] or patched[0]:
            found.append(
                Stalled(
                    function=function,
                    kind=kind,
                    executed=(int(base[0]), int(patched[0])),
                    stalls=(int(base[1]), int(patched[1])),
                    seconds=(base[2], patched[2]),
                )
            )
    order = {kind: rank for rank, kind in enumerate(ranks)}
    return tuple(sorted(found, key=lambda one: (order.get(one.kind, len(ranks)), -sum(one.executed), one.function)))


def _notes(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    said: dict[str, None] = {}
    for trial in trials:
        if one := trial.perturbation:
            if one.kinds:
                said[f"jitter of vCPU threads was on ({', '.join(one.kinds)})"] = None
            for note in (one.note, one.directed.note if one.directed else ""):
                if note:
                    said[note] = None
            if one.directed and one.directed.means:
                said[f"stalls inside functions by {one.directed.means}"] = None
    return tuple(said)
