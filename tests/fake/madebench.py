"""A bench that was made up: a series with two atomics fewer for each page, and the base against itself."""

from __future__ import annotations

from dataclasses import replace

from rig.costs import metrics
from rig.costs.metrics import BASE, NULL, Bench, Kind, Sample, Subject, Where, Work, compare

CASE = "many-private-read"
WHERE = Where(flavour="release", cpus=4, filesystem="tmpfs", case=CASE)


def sample(subject: str, index: int, kind: Kind = Kind.COUNTED, **values: float) -> Sample:
    return Sample(
        subject=subject,
        kind=kind,
        where=WHERE,
        index=index,
        seed=index,
        values=tuple(values.items()),
        latencies=((8192, 90 + index), (9216, 9), (65536, 1)) if kind is Kind.TIMED else (),
        work=(Work(function="folio_unlock", atomics=1.0 if subject == BASE else 0.0, instructions=5.0, entered=1.0),),
    )


def made(subject: str = "s", *, atomics: float = 4.0, rate: float = 120.0, null: bool = True) -> Bench:
    found = [sample(BASE, n, atomics=6.0 + n / 100, excess=0.02, per_fault=500.0) for n in range(5)]
    found += [sample(BASE, n, Kind.TIMED, rate=100.0 + n) for n in range(8)]
    found += [sample(subject, n, atomics=atomics + n / 100, excess=0.0, per_fault=510.0) for n in range(5)]
    found += [sample(subject, n, Kind.TIMED, rate=rate + n) for n in range(8)]
    names = [subject]
    if null:
        names.append(NULL)
        found += [replace(one, subject=NULL) for one in found if one.subject == BASE]
    return Bench(
        id="run",
        started="2026-01-01T00:00:00+00:00",
        finished="",
        rig_version="1",
        accelerator="tcg",
        accelerator_reason="none",
        host_cpus=2,
        base="debian (6.12)",
        against="",
        level=0.99,
        threshold=0.05,
        counted=5,
        timed=8,
        subjects=tuple(Subject(name=name, key="k", patches=1) for name in names),
        comparisons=tuple(one for name in names for one in compare(found, name, 0.99)),
        functions=tuple(one for name in names for one in metrics.function_changes(found, name)),
        sizes=(metrics.CodeSize(subject=subject, flavour="release", function="f", before=10, after=20),),
        samples=tuple(replace(one, work=()) for one in found),
        troubles=(),
        notes=("a note",),
        config={},
    )
