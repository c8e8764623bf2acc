"""The keys of rig.yaml, as frozen models that refuse what cannot be.

The models are the reference of the keys; `rig.yaml` at the project's root is the commented example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=60)]  # becomes part of cell ids and of folder names
Filesystem = Literal["tmpfs", "ext4", "xfs"]
HUGEPAGE_MIB = 2  # x86-64's default huge page


_UNITS = {"": 1, "k": 1 / 1024, "m": 1, "g": 1024, "t": 1024 * 1024}


def mebibytes(value: object) -> object:
    """Turn `512M`, `2G` or a bare number of MiB into whole MiB; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", value.strip().lower())):
        size = int(match[1]) * _UNITS[match[2]]
        if size == int(size):
            return int(size)
        raise ValueError("a whole number of MiB")
    return value


def _tuple(value: object) -> object:
    """Let a single word stand for a list of one."""
    return [value] if isinstance(value, (str, int)) else value


def _once(sides: tuple[SideName, ...]) -> tuple[SideName, ...]:
    if len(set(sides)) < len(sides):
        raise ValueError("a side stands twice, expected each at most once")
    return sides


SideName = Literal["base", "patched"]
Sides = Annotated[tuple[SideName, ...], BeforeValidator(_tuple), AfterValidator(_once)]
Mebibytes = Annotated[int, BeforeValidator(mebibytes)]
Words = Annotated[tuple[str, ...], BeforeValidator(_tuple)]


class Model(BaseModel):
    """Frozen, and strangers are refused: a mistyped key must not be silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, coerce_numbers_to_str=True)


class KernelSource(Model):
    """Where the base tree comes from."""

    source: str = "debian:linux-source-6.12"
    version: str | None = Field(
        None, description="refuse any other version of the source package or `make kernelversion`"
    )


class Machine(Model):
    """A QEMU machine."""

    name: Name = ""
    cpus: int = Field(4, ge=1, le=64)
    sockets: int = Field(1, ge=1, le=8)
    nodes: int = Field(1, ge=1, le=8, description="NUMA nodes")
    memory_mib: Mebibytes = Field(1024, ge=256, alias="memory")
    hugepages: int = Field(0, ge=0, description="hugetlb pages of 2 MiB")
    thp: Literal["always", "madvise", "never"] = "madvise"
    shmem_thp: Literal["always", "within_size", "advise", "never"] = "never"
    cmdline: Words = ()

    @model_validator(mode="after")
    def _possible(self) -> Machine:
        if self.nodes > self.cpus:
            raise ValueError(f"{self.nodes} NUMA nodes but only {self.cpus} CPUs; expected nodes <= cpus")
        if self.cpus % self.sockets:
            raise ValueError(f"{self.cpus} CPUs do not divide into {self.sockets} sockets; expected a divisor of cpus")
        if self.memory_mib % self.nodes:
            raise ValueError(f"{self.memory_mib} MiB do not divide into {self.nodes} NUMA nodes")
        huge = self.hugepages * HUGEPAGE_MIB
        if huge > self.memory_mib * 3 // 4:
            raise ValueError(
                f"{self.hugepages} huge pages take {huge} MiB of {self.memory_mib} MiB; "
                f"expected at most {self.memory_mib * 3 // 4 // HUGEPAGE_MIB}, as the guest needs the rest"
            )
        return self


class Workload(Model):
    """A program of guest-workloads/ with its arguments."""

    run: Name = ""
    args: Mapping[str, str | int | float] = Field(default_factory=dict)
    filesystems: tuple[Filesystem, ...] = Field(("tmpfs",), min_length=1)
    races: Words = Field((), description="which it drives: names of touches/races.py")
    quick: bool = Field(False, description="needs no race and a second: comes first in a hunt")
    needs: Mapping[Name, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="kernel counters (trials/coverage.py) that a pass takes, with the least they gain",
    )


class Pattern(Model):
    """Picks cells: each key is a glob, a missing key picks all."""

    flavour: str = "*"
    machine: str = "*"
    workload: str = "*"
    filesystem: str = "*"


class Matrix(Model):
    """How flavours, machines, workloads and file systems are combined."""

    mode: Literal["product", "pairwise"] = "product"
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()


class Timeouts(Model):
    """Deadlines in seconds. `boot` is for the first boot of a flavour; later ones are scaled from what it took."""

    apply: float = Field(600, gt=0)
    build: float = Field(7200, gt=0)
    boot: float = Field(300, gt=0)
    workload: float = Field(60, gt=0, description="past the budget, before a workload counts as hung")


class StallsAt(Model):
    """Stalls inside the functions that the series touches; see perturbation/stalls.py."""

    share: float = Field(0, ge=0, le=0.5, description="of its time that a vCPU may be stalled for; 0: none")
    by: Literal["auto", "plugin", "kprobes"] = Field(
        "auto", description="a plugin of QEMU (TCG), or a module in the guest; auto: the plugin wherever it can be"
    )
    longest_ms: float = Field(20, ge=0.1, le=1000, description="of a stall; each episode draws its own up to this")
    episode_ms: float = Field(1500, ge=50, le=60_000, description="mean length of an episode")


class Perturb(Model):
    """What the rig does to the schedule of a machine while a workload runs; see perturbation/."""

    jitter: bool = Field(False, description="stall vCPU threads of the host at random, from the trial's seed")
    interval_ms: float = Field(10, ge=1, le=10_000, description="mean pause between two stalls")
    length_ms: float = Field(10, ge=1, le=1000, description="the longest stall")
    stalls: StallsAt = StallsAt()


class Trials(Model):
    """How often a cell runs on each side: `min` times, and up to `max` times where a finding is in doubt; a bare number
    is both. See verdicts/sampling.py."""

    min: int = Field(1, ge=1, le=10_000)
    max: int = Field(1, ge=1, le=10_000)
    confidence: float = Field(0.95, ge=0.5, lt=1, description="with which luck is excluded before a series is accused")

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= 10_000:
                raise ValueError(f"{value}, expected 1 to 10000")
            return {"min": value, "max": value}
        if not isinstance(value, (dict, Trials)):
            raise ValueError(f"{value!r}, expected a number or {{min: N, max: N, confidence: 0.95}}")
        return {"max": value["min"], **value} if isinstance(value, dict) and "min" in value else value

    @model_validator(mode="after")
    def _ordered(self) -> Trials:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}")
        return self


class Selfcheck(Model):
    """How `rig selfcheck` hunts the controls."""

    flavours: Words = Field(("debug",), description="which of the flavours it runs on; all when none of them is there")
    limit: float = Field(120, gt=0, description="seconds of workload time after which a bad control counts as missed")
    first: float = Field(3, gt=0, description="seconds of a workload's first trial; the next takes twice as long")
    budget: float = Field(10, gt=0, description="seconds of workload time per trial, at most")
    seeds: int = Field(1, ge=1, le=99, description="how often each bad control is hunted, each time with other seeds")
    good_trials: int = Field(200, ge=1, le=100_000, description="trials over the base and all good controls together")
    threshold: float = Field(0.9, ge=0, le=1, description="the share of the bad controls that must be caught")


class Evidence(Model):
    """How much of the logs of a run's trials is kept; see runs/evidence.py."""

    passing_mib: Mebibytes = Field(1024, ge=0, alias="passing", description="logs of trials that did not fail")
    total_mib: Mebibytes = Field(8192, ge=1, alias="total", description="all logs")


class Bisect(Model):
    """How `rig bisect` searches."""

    signature: Words = Field((), description="globs over signatures and titles of findings: hunt these only")
    confidence: float = Field(0.95, ge=0.5, lt=1, description="how sure it must be to name a patch")
    limit: float = Field(3600, gt=0, description="seconds of building and trials after which it says what it knows")
    looks: int = Field(
        0, ge=0, le=1000, description="trials of each cell before a kernel counts as clean; 0: as the mode has it"
    )
    every_prefix: bool = Field(False, description="build and try each prefix, also when the tip is clean")
    counts: bool = Field(False, description="hunt what the series costs, in exact counts, instead of findings")
    count: Words = Field((), description="globs over names and titles of counts: hunt these only")
    good: str = Field("", description="with `bad`: a ref of kernel.source, the history between which is searched")
    bad: str = ""

    @model_validator(mode="after")
    def _both(self) -> Bisect:
        if bool(self.good) != bool(self.bad):
            raise ValueError("good and bad go together; expected refs of kernel.source for both")
        if self.counts:
            for key in ("good", "bad", "every_prefix", "signature", "looks", "confidence"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"counts are hunted between the base and the tip of a series, without {key}")
        return self


class Bench(Model):
    """What `rig bench` measures; see costs/bench.py."""

    flavours: Words = Field(
        ("release",), description="which of the flavours: assertions cost more than what is measured"
    )
    cpus: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], BeforeValidator(_tuple)] = Field(
        (1, 2, 4), min_length=1, description="a machine of each size"
    )
    filesystems: Annotated[tuple[Filesystem, ...], BeforeValidator(_tuple)] = Field(("tmpfs", "ext4"), min_length=1)
    cases: Words = Field(("*",), description="globs over the cases of bench-faults")
    counted: int = Field(5, ge=0, le=1000, description="pairs of trials in which the kernel's work is counted")
    pairs: int = Field(8, ge=0, le=1000, description="pairs of trials whose time is taken")
    level: float = Field(0.99, gt=0.5, lt=1, description="of confidence that a change of a time takes")
    threshold: float = Field(0.05, ge=0, description="a claimed change for the worse beyond this share fails")
    faults: int = Field(4000, ge=16, le=200_000, description="that a case takes in one trial")
    will_it_scale: Path | None = Field(None, description="a source tree of will-it-scale; its tests are timed, too")
    tests: Words = Field(
        ("page_fault1", "page_fault2", "page_fault3"), description="globs over the tests of will-it-scale"
    )


class Guest(Model):
    """What the guest image holds beside busybox, dropbear and the workloads."""

    binaries: Words = ()
    disk_mib: Mebibytes = Field(512, ge=320, alias="disk")


class Config(Model):
    """A whole configuration; see rig.yaml."""

    kernel: KernelSource = KernelSource()
    series: Words = Field((), description="origins (see trees/series.py), applied one after another as one series")
    flavours: Mapping[Name, Words] = Field(default_factory=lambda: {"debug": ("base", "debug-vm")}, min_length=1)
    machines: Mapping[Name, Machine] = Field(min_length=1)
    workloads: Mapping[Name, Workload] = Field(min_length=1)
    matrix: Matrix = Matrix()
    select: Words = ("*",)
    part: Words = Field((), description="which of the selected cells this run takes: K/N or globs; see jobs/parts.py")
    parts: int = Field(20, ge=1, le=200, description="jobs that `rig list --ci` deals the cells to, at most")
    budget: float = Field(10, gt=0, description="seconds of workload time per trial")
    sides: Sides = Field(
        ("base", "patched"), min_length=1, description="which kernels run; without the base nothing is compared"
    )
    trials: Trials = Trials()
    elsewhere: int | None = Field(
        None, ge=0, description="trials of cells whose races the files of the series have no part in, unless selected"
    )
    seed: int = Field(1, ge=0, lt=2**31, description="trial i of every cell runs with seed + i, on base and patched")
    timeouts: Timeouts = Timeouts()
    perturb: Perturb = Perturb()
    selfcheck: Selfcheck = Selfcheck()
    bisect: Bisect = Bisect()
    bench: Bench = Bench()
    prefixes: Literal["ends", "all"] = "ends"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    guest: Guest = Guest()
    evidence: Evidence = Evidence()
    known_issues: Path | None = Field(
        None,
        description="findings to be expected, see expectations.py; none: known-issues.yaml beside rig.yaml, if any",
    )
    results: Path = Path("results")
    store: Path = Path()
    store_limit_mib: Mebibytes = Field(40 * 1024, ge=1024, alias="store_limit")
    kconfigs: Path = Path("kconfigs")
    guest_workloads: Path = Path("guest-workloads")

    @model_validator(mode="after")
    def _named(self) -> Config:
        for name, machine in self.machines.items():
            object.__setattr__(machine, "name", name)
        for name, workload in self.workloads.items():
            if not workload.run:
                object.__setattr__(workload, "run", name)
        for flavour, fragments in self.flavours.items():
            if not fragments:
                raise ValueError(f"flavour {flavour} has no Kconfig fragments; expected names of files in kconfigs/")
        return self
