"""The words of the rig as data: what flows from one stage to the next.

series, prefix, kernel, cell, trial, finding, status and verdict mean here exactly what they mean in the documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Status(StrEnum):
    """What became of a trial or of one case in it. A trial starts as LOST; only evidence changes that."""

    PASS = "PASS"  # noqa: S105  # a status, not a password
    FAIL = "FAIL"
    CRASH = "CRASH"
    TIMEOUT = "TIMEOUT"
    SKIP = "SKIP"
    LOST = "LOST"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def bad(self) -> bool:
        """Whether it counts against the kernel. LOST counts against the host, INCONCLUSIVE against nobody."""
        return self in (Status.FAIL, Status.CRASH, Status.TIMEOUT)


class Side(StrEnum):
    """Which of the two kernels that are compared."""

    BASE = "base"
    PATCHED = "patched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the matrix; run on the base and on the patched kernel alike."""

    flavour: str
    machine: str
    workload: str
    filesystem: str

    @property
    def id(self) -> str:
        """`flavour/machine/workload/filesystem`, stable between runs."""
        return f"{self.flavour}/{self.machine}/{self.workload}/{self.filesystem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A built prefix of the series in one flavour."""

    prefix: int  # 0 is the base
    flavour: str
    commit: str
    tree: str
    config_hash: str
    compiler: str
    key: str  # under which the store keeps it
    bzimage: Path
    vmlinux: Path
    config: Path
    release: str  # `uname -r` of it
    warnings: tuple[str, ...] = ()  # `file: text`: in files that the series touches, and not given by the base


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something an oracle saw.

    `title` is stable across runs; two findings with the same `signature` are the same bug.
    """

    oracle: str  # console, workload, audit, taint or machine
    kind: str  # bug, warning, oops, kasan, lockdep, bad-page, data, silent-hang, ...
    title: str
    signature: str
    function: str | None = None
    text: str = ""
    first_line: int | None = None  # of the console log, counted from 1
    last_line: int | None = None
    fatal: bool = False  # the kernel cannot be trusted to go on after it
    echo: bool = False  # came after a fatal one, which most likely caused it
    corrupted: bool = False  # cut short or mixed with other output: title and function are a guess


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One KTAP case of a workload."""

    name: str
    status: Status
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestState:
    """The machine as the guest itself reports it; what was asked for may differ."""

    release: str
    cpus: int
    nodes: int
    memory_kib: int
    thp: str
    shmem_thp: str
    hugepages: int
    hugepage_kib: int
    taint: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of wall time in the parts of a trial."""

    boot: float = 0.0  # QEMU's start to the first SSH command done
    workload: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStalls:
    """What was done in one function."""

    function: str  # by the name of the source
    kind: str  # touched, inlined, caller, partner or callee, see functions.Kind
    executed: int  # instructions
    stalls: int
    stalled: float  # seconds, summed over the vCPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectedStalls:
    """How vCPUs were stalled inside the functions of the series, see perturbation/stalls.py."""

    means: str  # tcg-plugin; "": none was at hand
    executed: int  # instructions of these functions, while switched on
    stalls: int
    stalled: float  # seconds, summed over the vCPUs
    withheld: int  # stalls that were due and would have taken too much of the time
    functions: tuple[FunctionStalls, ...]
    note: str = ""  # what could not be done, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """What the rig did to the schedule of a machine while the workload ran."""

    kinds: tuple[str, ...]  # of jitter that were in effect, see perturbation/perturb.py: idle, nice, pin
    steps: int  # stalls of vCPUs by jitter
    stalled: float  # seconds, summed over the vCPUs
    note: str = ""  # what could not be done, and why
    directed: DirectedStalls | None = None  # switched off


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One execution of a cell on one kernel with one seed."""

    cell: Cell
    side: Side
    prefix: int
    tree: str
    index: int  # counted from 0 within cell and side
    seed: int
    status: Status
    reason: str  # one line: why this status
    accelerator: str
    started: str  # ISO 8601, UTC
    evidence: str  # the trial's directory, relative to the run's
    cases: tuple[CaseResult, ...] = ()
    findings: tuple[Finding, ...] = ()  # all of them, those of the cases included, the first is the cause
    guest: GuestState | None = None
    timing: Timing = Timing()
    params: tuple[tuple[str, str], ...] = ()  # what the workload drew from the seed
    perturbation: Perturbation | None = None  # switched off, or the workload never ran
    coverage: tuple[tuple[str, int], ...] = ()  # what the kernel's counters gained, see coverage.py; () if not known
    first_finding: float | None = None  # seconds from the workload's start until the host saw the first finding


class Judgement(StrEnum):
    """Base against patched, over all trials."""

    REGRESSION = "REGRESSION"
    FIXED = "FIXED"
    KNOWN = "KNOWN"
    CLEAN = "CLEAN"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often something was seen: `failures` of `trials`."""

    failures: int
    trials: int

    def __str__(self) -> str:
        return f"{self.failures}/{self.trials}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval of a failure rate; both ends between 0 and 1."""

    low: float
    high: float


class Stopped(StrEnum):
    """Why no more trials were run."""

    FIXED = "fixed"  # so many were asked for
    CLEAR = "clear"  # the answer was
    BUDGET = "budget"  # the answer was in doubt still, and the most trials that may be were done
    FUTILE = "futile"  # in doubt, and whatever those left had shown, it would have stayed so
    DECIDED = "decided"  # in doubt, but a regression was certain already


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The entry of the known issues that a finding is one of, see verdicts/expectations.py."""

    entry: str  # where it stands: file and number
    reason: str
    link: str = ""
    expires: str = ""  # ISO 8601; "" is never


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingVerdict:
    """What the comparison says about one signature."""

    signature: str
    title: str
    judgement: Judgement
    base: Tally
    patched: Tally
    p_value: float  # that luck alone does as much, in the direction of the judgement; by `test`
    cells: tuple[str, ...]  # ids of the cells it was seen in
    example: str  # evidence folder of the first trial that saw it
    sentence: str
    kind: str = ""
    base_there: Tally = Tally(failures=0, trials=0)  # over `cells` alone
    patched_there: Tally = Tally(failures=0, trials=0)
    p_adjusted: float | None = None  # the same, for as many questions as were asked at once; None: of an older rig
    test: str = ""  # boschloo, or pairs where one looked at the numbers more than once, see statistics.py; "": Fisher's
    base_interval: Interval | None = None  # of the rates of `base` and `patched`; None: not a trial
    patched_interval: Interval | None = None
    expected: Expected | None = None  # it is a known issue
    stopped: Stopped | None = None  # why its cells were not run more often


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """What it means that nothing was found in a cell of the patched kernel."""

    cell: str
    trials: int  # all of them passes
    rate: float  # a greater failure rate is excluded, with the verdict's confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How many trials a run made, and why no more."""

    least: int  # trials of a cell on each side
    most: int
    extended: tuple[tuple[str, int], ...]  # cells that ran more often than planned, with their trials on each side
    stopped: Stopped
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The fold over a whole run."""

    judgement: Judgement
    sentence: str
    findings: tuple[FindingVerdict, ...]
    notes: tuple[str, ...] = ()  # lost trials, inconclusive cells, weak evidence
    confidence: float = 0.95  # of the judgements, the intervals and what is excluded
    excluded_rate: float | None = None  # a greater one of the patched kernel is excluded; None: failures, or no trials
    excludes: tuple[Excluded, ...] = ()  # the same by cell, for those in which nothing was found
    sampling: Sampling | None = None  # None: of an older rig, or not known
