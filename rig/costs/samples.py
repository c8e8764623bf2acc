"""From a trial of bench-faults to samples: what the workload said, and what the plugin counted meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rig.costs import counts
from rig.costs.latencies import histogram
from rig.costs.metrics import WHOLE, Kind, Sample, Where, counts_of, slow_of, times_of, work_of
from rig.model import Status, TrialResult


def samples(result: TrialResult, subject: str, kind: Kind, counted: counts.Counts | None) -> Iterator[Sample]:
    """Yield what a trial says of its cases; the phases that were counted are those of the cases that did work."""
    worked = [case for case in result.cases if dict(case.counters).get("elapsed_ns")]
    phases: Sequence[counts.Phase | None] = counted.phases if counted else [None] * len(worked)
    if len(phases) != len(worked):
        return

    def made(case: str, values: tuple[tuple[str, float], ...]) -> Sample:
        cell = result.cell
        cpus = int(cell.machine.removeprefix("cpus"))
        where = Where(flavour=cell.flavour, cpus=cpus, filesystem=cell.filesystem, case=case)
        return Sample(subject=subject, kind=kind, where=where, index=result.index, seed=result.seed, values=values)

    for case, phase in zip(worked, phases, strict=True):
        counters = dict(case.counters)
        if case.status is not Status.PASS:
            continue
        if kind is Kind.TIMED:
            yield replace(made(case.name, times_of(counters)), latencies=histogram(counters))
        else:
            work = work_of(case.name, counters, phase) if phase else ()
            yield replace(made(case.name, counts_of(case.name, counters, phase)), work=work)
    if kind is Kind.COUNTED and (slow := slow_of(dict(result.coverage))):
        yield made(WHOLE, slow)
