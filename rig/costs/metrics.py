"""What `rig bench` measures and keeps: metrics, samples, and what is folded from them. Pure.

A sample is one case of one trial. Trials are of two kinds: in one that is counted a plugin of QEMU counts the kernel's
work, which is exact and slows the machine down; in one that is timed nothing is in the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from rig.costs.counts import FAULT_ENTRY, Phase
from rig.costs.differences import Claim, Difference, counted, timed

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).parents[1] / "schemas" / "bench.schema.json"
#: The file of a bench that came to its end.
RESULT = "bench.json"
#: Names in the place of a series: the base, and the base once more, against which nothing may be claimed.
BASE, NULL = "base", "null"
#: Functions that are kept of a comparison, the most changed first.
FUNCTIONS = 24
#: Changes of a function below so many atomics or instructions per page are left out.
LEAST_LOCKED, LEAST_INSTRUCTIONS = 0.02, 1.0

EXEC = "exec"
#: In the place of a case: what only the whole of a trial is known for.
WHOLE = "all-cases"
#: Cases without the ideal of fault-around: what is cold is read ahead, and an exec faults on what it likes.
_NO_IDEAL = ("cold-", EXEC)


class Kind(StrEnum):
    """What a trial is for."""

    COUNTED = "counts"
    TIMED = "times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Something that is measured of a case."""

    name: str
    title: str
    unit: str
    kind: Kind
    relative: bool = True  # compared as a share of the base's, not by its difference
    more_is_better: bool = False


METRICS: tuple[Metric, ...] = (
    Metric(name="atomics", title="atomics per page", unit="", kind=Kind.COUNTED),
    Metric(name="instructions", title="kernel instructions per page", unit="", kind=Kind.COUNTED),
    Metric(name="per_fault", title="kernel instructions per fault", unit="", kind=Kind.COUNTED),
    Metric(name="excess", title="excess faults", unit="of ideal", kind=Kind.COUNTED, relative=False),
    Metric(name="slow", title="slow path", unit="of map_pages", kind=Kind.COUNTED, relative=False),
    Metric(name="skipped", title="skipped pages", unit="of visited", kind=Kind.COUNTED, relative=False),
    Metric(name="waits", title="waits on a page", unit="per fault", kind=Kind.COUNTED, relative=False),
    Metric(name="rate", title="faults per second", unit="1/s", kind=Kind.TIMED, more_is_better=True),
    # What an iteration is depends on the test: in page_fault1 to 4 it is a page, touched for the first time.
    Metric(
        name="iterations",
        title="will-it-scale, iterations per second",
        unit="1/s",
        kind=Kind.TIMED,
        more_is_better=True,
    ),
    Metric(name="median", title="median latency", unit="µs", kind=Kind.TIMED),
    Metric(name="p99", title="99th percentile of latency", unit="µs", kind=Kind.TIMED),
)
BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What a case ran on."""

    flavour: str
    cpus: int
    filesystem: str
    case: str

    @property
    def id(self) -> str:
        """`flavour/cpusN/file system/case`."""
        return f"{self.flavour}/cpus{self.cpus}/{self.filesystem}/{self.case}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one function did, per page."""

    function: str
    atomics: float
    instructions: float
    entered: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was measured of one case in one trial."""

    subject: str
    kind: Kind
    where: Where
    index: int
    seed: int
    values: tuple[tuple[str, float], ...]
    work: tuple[Work, ...] = ()
    latencies: tuple[tuple[int, int], ...] = ()  # of a trial that was timed; see latencies.py


def times_of(counters: Mapping[str, int]) -> tuple[tuple[str, float], ...]:
    """Return the metrics of the time of one case; nothing of a case that did no work."""
    if counters.get("iterations") and counters.get("elapsed_ns"):
        return (("iterations", counters["iterations"] / counters["elapsed_ns"] * 1e9),)
    done, nanoseconds = counters.get("timed", 0), counters.get("elapsed_ns", 0)
    if not done or not nanoseconds:
        return ()
    found = {
        "rate": done / nanoseconds * 1e9,
        "median": counters.get("median_ns", 0) / 1000,
        "p99": counters.get("p99_ns", 0) / 1000,
    }
    return tuple((name, value) for name, value in found.items() if value > 0)


def counts_of(case: str, counters: Mapping[str, int], phase: Phase | None) -> tuple[tuple[str, float], ...]:
    """Return the metrics of the work of one case, as the workload and, if it was counted, the plugin have it.

    Nothing at all of a case that did no work.
    """
    pages, ideal = counters.get("pages", 0), counters.get("ideal", 0)
    found: dict[str, float] = {}
    if pages and ideal and not case.startswith(_NO_IDEAL):
        found["excess"] = (counters.get("minflt", 0) + counters.get("majflt", 0)) / ideal - 1
    if not pages or phase is None:
        return tuple(found.items())
    faults = phase.entered(FAULT_ENTRY)
    # An exec is more than its faults; elsewhere system calls are the workload's own affair.
    classes = (0, 1) if case == EXEC else (0,)
    found["atomics"] = sum(one.locked[part] for one in phase.work for part in classes) / pages
    found["instructions"] = sum(one.instructions[part] for one in phase.work for part in classes) / pages
    if faults:
        found["per_fault"] = sum(one.instructions[0] for one in phase.work) / faults
        found["waits"] = phase.entered("folio_wait_bit_common") / faults
    if around := phase.entered("filemap_map_pages"):
        found["slow"] = phase.entered("filemap_fault") / around
    if (skipped := phase.skipped) is not None:
        found["skipped"] = skipped
    return tuple(found.items())


def slow_of(coverage: Mapping[str, int]) -> tuple[tuple[str, float], ...]:
    """Return the slow-path ratio of a whole trial by the kernel's tracepoints, where it has them."""
    around = coverage.get("trace_mm_filemap_map_pages", 0)
    return (("slow", coverage.get("trace_mm_filemap_fault", 0) / around),) if around else ()


def work_of(case: str, counters: Mapping[str, int], phase: Phase) -> tuple[Work, ...]:
    """Return what each function did per page, those left out that hardly did anything."""
    pages = counters.get("pages", 0)
    parts = (0, 1) if case == EXEC else (0,)
    if not pages:
        return ()
    found = (
        Work(
            function=one.function,
            atomics=sum(one.locked[part] for part in parts) / pages,
            instructions=sum(one.instructions[part] for part in parts) / pages,
            entered=sum(one.entered[part] for part in parts) / pages,
        )
        for one in phase.work
    )
    return tuple(one for one in found if one.atomics >= LEAST_LOCKED / 4 or one.instructions >= LEAST_INSTRUCTIONS / 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of one case, a series against the base."""

    subject: str
    metric: str
    where: Where
    difference: Difference

    @property
    def better(self) -> bool | None:
        """Whether the claim is for the better; None when nothing is claimed."""
        if self.difference.claim is Claim.NONE:
            return None
        return (self.difference.claim is Claim.MORE) is BY_NAME[self.metric].more_is_better


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionChange:
    """What one function does per page, before and after: medians."""

    function: str
    atomics: tuple[float, float]
    instructions: tuple[float, float]
    entered: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """The functions in which the work of one case changed."""

    subject: str
    where: Where
    changes: tuple[FunctionChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSize:
    """Bytes of a function, clones and cold parts included; 0: not there, or inlined everywhere."""

    subject: str
    flavour: str
    function: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A series that is compared with the base."""

    name: str
    key: str  # the digest of its patches; "" for the null control
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A trial that did not come to its end as it should."""

    subject: str
    cell: str
    kind: Kind
    status: str
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything that a report is made from."""

    id: str
    started: str
    finished: str
    rig_version: str
    accelerator: str
    accelerator_reason: str
    host_cpus: int
    base: str  # source and version
    against: str  # what the series are compared with
    level: float
    threshold: float
    counted: int  # trials of each cell and kernel
    timed: int
    subjects: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...]
    functions: tuple[Functions, ...]
    sizes: tuple[CodeSize, ...]
    samples: tuple[Sample, ...]
    troubles: tuple[Trouble, ...]
    notes: tuple[str, ...]
    config: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION


def regressions(bench: Bench) -> tuple[Comparison, ...]:
    """Return what is claimed to have become worse by more than the threshold, the null control left out."""
    return tuple(
        one
        for one in bench.comparisons
        if one.subject != NULL and one.better is False and abs(one.difference.change) > bench.threshold
    )


# -- folding ----------------------------------------------------------------------------------------------------------

Key = tuple[str, Where, str]  # kind, where, metric


def compare(samples: Iterable[Sample], subject: str, level: float) -> tuple[Comparison, ...]:
    """Return all metrics of all cases that both the base and the subject have, in the order of the samples."""
    mine = _by_index(samples, subject)
    base = _by_index(samples, BASE)
    found = []
    for (kind, where, metric), values in base.items():
        others = mine.get((kind, where, metric), {})
        pairs = sorted(values.keys() & others.keys())
        if not pairs:
            continue
        first, second = [values[n] for n in pairs], [others[n] for n in pairs]
        difference = (
            timed(first, second, level=level)
            if kind == Kind.TIMED
            else counted(first, second, relative=BY_NAME[metric].relative, level=level)
        )
        found.append(Comparison(subject=subject, metric=metric, where=where, difference=difference))
    return tuple(found)


def _by_index(samples: Iterable[Sample], subject: str) -> dict[Key, dict[int, float]]:
    found: dict[Key, dict[int, float]] = defaultdict(dict)
    for one in samples:
        if one.subject == subject:
            for metric, value in one.values:
                found[one.kind, one.where, metric][one.index] = value
    return found


def function_changes(samples: Sequence[Sample], subject: str) -> tuple[Functions, ...]:
    """Return for each case the functions whose work changed between base and subject, the most changed first."""
    found = []
    for where in dict.fromkeys(one.where for one in samples if one.work):
        before = [one.work for one in samples if one.where == where and one.subject == BASE and one.work]
        after = [one.work for one in samples if one.where == where and one.subject == subject and one.work]
        if not before or not after:
            continue
        names = sorted({one.function for work in (*before, *after) for one in work})
        changes = [
            FunctionChange(
                function=name,
                atomics=_pair(before, after, name, lambda one: one.atomics),
                instructions=_pair(before, after, name, lambda one: one.instructions),
                entered=_pair(before, after, name, lambda one: one.entered),
            )
            for name in names
        ]
        kept = [one for one in changes if _moved(one.atomics) >= LEAST_LOCKED or _moved(one.instructions) >= 1]
        kept.sort(key=lambda one: (-_moved(one.atomics), -_moved(one.instructions)))
        found.append(Functions(subject=subject, where=where, changes=tuple(kept[:FUNCTIONS])))
    return tuple(found)


def _moved(pair: tuple[float, float]) -> float:
    return abs(pair[1] - pair[0])


def _pair(
    before: Sequence[Sequence[Work]], after: Sequence[Sequence[Work]], name: str, value: Callable[[Work], float]
) -> tuple[float, float]:
    return _middle(before, name, value), _middle(after, name, value)


def _middle(works: Sequence[Sequence[Work]], name: str, value: Callable[[Work], float]) -> float:
    return median(next((value(one) for one in work if one.function == name), 0.0) for work in works)


def named(comparisons: Iterable[Comparison], **wanted: object) -> tuple[Comparison, ...]:
    """Return the comparisons whose subject, metric, case, cpus, filesystem and flavour are as wanted."""
    return tuple(
        one
        for one in comparisons
        if all(
            getattr(one, key, None) == value or getattr(one.where, key, None) == value for key, value in wanted.items()
        )
    )
