"""rig.yaml and KEY=VALUE overrides, validated into frozen models.

Every refusal reads `file:line: what, expected what, did you mean`. The models below are the reference of the keys;
`rig.yaml` at the project's root is the commented example.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from rig.errors import ConfigError

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=60)]  # becomes part of cell ids and of folder names
Filesystem = Literal["tmpfs", "ext4", "xfs"]
HUGEPAGE_MIB = 2  # x86-64's default huge page
KEY_HELP = "see `rig.yaml` for an example of every key"

M = TypeVar("M", bound=BaseModel)

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
    races: Words = Field((), description="which it drives: names of races.py")
    quick: bool = Field(False, description="needs no race and a second: comes first in a hunt")
    needs: Mapping[Name, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="kernel counters (coverage.py) that a pass takes, with the least they gain"
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
    """Stalls inside the functions that the series touches; see stalls.py."""

    share: float = Field(0, ge=0, le=0.5, description="of its time that a vCPU may be stalled for; 0: none")
    by: Literal["auto", "plugin", "kprobes"] = Field(
        "auto", description="a plugin of QEMU (TCG), or a module in the guest; auto: the plugin wherever it can be"
    )
    longest_ms: float = Field(20, ge=0.1, le=1000, description="of a stall; each episode draws its own up to this")
    episode_ms: float = Field(1500, ge=50, le=60_000, description="mean length of an episode")


class Perturb(Model):
    """What the rig does to the schedule of a machine while a workload runs; see perturb.py and stalls.py."""

    jitter: bool = Field(False, description="stall vCPU threads of the host at random, from the trial's seed")
    interval_ms: float = Field(10, ge=1, le=10_000, description="mean pause between two stalls")
    length_ms: float = Field(10, ge=1, le=1000, description="the longest stall")
    stalls: StallsAt = StallsAt()


class Trials(Model):
    """How often a cell runs on each side: `min` times, and up to `max` times where a finding is in doubt; a bare number
    is both. See sampling.py."""

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
    """How much of the logs of a run's trials is kept; see evidence.py."""

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
    """What `rig bench` measures; see benchrun.py."""

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


class Guest(Model):
    """What the guest image holds beside busybox, dropbear and the workloads."""

    binaries: Words = ()
    disk_mib: Mebibytes = Field(512, ge=320, alias="disk")


class Config(Model):
    """A whole configuration; see rig.yaml."""

    kernel: KernelSource = KernelSource()
    series: Words = Field((), description="origins (see series.py), applied one after another as one series")
    flavours: Mapping[Name, Words] = Field(default_factory=lambda: {"debug": ("base", "debug-vm")}, min_length=1)
    machines: Mapping[Name, Machine] = Field(min_length=1)
    workloads: Mapping[Name, Workload] = Field(min_length=1)
    matrix: Matrix = Matrix()
    select: Words = ("*",)
    part: Words = Field((), description="which of the selected cells this run takes: K/N or globs; see parts.py")
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


#: Short names that the command line knows for keys.
ALIASES = {"out": "results", "flavour": "flavours", "machine": "machines", "workload": "workloads"}


class _Positions:
    """Remembers in which line each key of a YAML document stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[tuple[str | int, ...], int] = {}

    def where(self, path: Sequence[str | int]) -> str:
        for length in range(len(path), -1, -1):
            if (line := self.lines.get(tuple(path[:length]))) is not None:
                return f"{self.file}:{line}"
        return self.file

    def read(self, node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> Any:
        """Turn a composed node into plain data, noting lines and refusing keys that stand twice."""
        if node is None:
            return {}
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                line = key_node.start_mark.line + 1
                if key in found:
                    raise ConfigError(f"{self.file}:{line}: {_dotted((*path, key))}: stands twice")
                self.lines[(*path, key)] = line
                found[key] = self.read(value_node, (*path, key))
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:float":
            return node.value  # as it is written: version 6.10 is not 6.1, and pydantic makes numbers of words
        return yaml.SafeLoader("").construct_object(node)


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def _parse(text: str, name: str, hint: str = KEY_HELP) -> tuple[Any, _Positions]:
    positions = _Positions(name)
    try:
        return positions.read(yaml.compose(text, Loader=yaml.SafeLoader)), positions
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}", hint=hint) from error
    except yaml.YAMLError as error:  # e.g. control characters
        raise ConfigError(f"{name}: not valid YAML: {str(error).splitlines()[0]}", hint=hint) from error


def _value(text: str, override: str) -> Any:
    """Return the value of an override: YAML where it is, else the words as they stand (`*/xfs` and `[*/xfs, a]`)."""
    try:
        return _parse(text, f"command line: {override}")[0]
    except ConfigError:
        if match := re.fullmatch(r"\[([^][{}\"']*)\]", text.strip()):
            return [word.strip() for word in match[1].split(",")]
        if text.lstrip().startswith(("[", "{", '"', "'")):
            raise
        return text


def _put(data: dict[str, Any], override: str) -> tuple[str, ...]:
    key, _, text = override.partition("=")
    path = tuple(key.strip().split("."))
    path = (ALIASES.get(path[0], path[0]), *path[1:])
    value = _value(text, override)
    node = data
    for part in path[:-1]:
        below = node.get(part)
        if below is None:
            below = node[part] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"command line: {override}: {part} is not a group of keys", hint=KEY_HELP)
        node = below
    node[path[-1]] = value if text.strip() else None
    return path


def _known_keys(path: Sequence[str | int], model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys that are known at `path` of a `model`, for `did you mean`."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        inner = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        model = inner or model  # a name of a mapping or an index of a list stays at the model of its values
    return tuple(field.alias or name for name, field in model.model_fields.items() if name != "name")


def _explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[tuple[str | int, ...], str]:
    path, kind = tuple(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1], model)
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        return path, f"unknown key, expected one of {', '.join(known)}" + (
            f"; did you mean {close[0]!r}?" if close else ""
        )
    if kind == "value_error":
        return path, str(error["ctx"]["error"])
    if kind == "literal_error":
        close = difflib.get_close_matches(
            str(error["input"]), re.findall(r"'([^']+)'", str(error["ctx"])), n=1, cutoff=0.5
        )
        return path, f"{error['input']!r}, expected {error['ctx']['expected']}" + (
            f"; did you mean {close[0]!r}?" if close else ""
        )
    if kind in ("too_short", "missing"):
        return path, "empty, expected at least one entry" if kind == "too_short" else "missing"
    message = error["msg"][0].lower() + error["msg"][1:]
    return path, f"{error['input']!r}: {message.replace('input should be', 'expected')}"


def load(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read, override and validate a configuration.

    Relative paths in it are resolved against the folder of `path`. Raises ConfigError for anything that is not right,
    one line per fault.
    """
    data: Any = {}
    positions = _Positions("command line")
    if path is not None:
        data, positions = _read(path, path.name, KEY_HELP, absent="run in the project's root, or name one with -f FILE")
    config = _validated(Config, data, positions, overrides, KEY_HELP)
    return _resolved(config, path.parent if path else Path.cwd())


def read_model(path: Path, model: type[M], *, name: str, hint: str) -> M:
    """Return the YAML file `path` as a `model`; raises ConfigError, which calls the file `name`, as `load` does."""
    data, positions = _read(path, name, hint, absent=hint)
    return _validated(model, data, positions, (), hint)


def _read(path: Path, name: str, hint: str, *, absent: str) -> tuple[Any, _Positions]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=absent) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return _parse(text, name, hint)


def _validated(model: type[M], data: Any, positions: _Positions, overrides: Sequence[str], hint: str) -> M:
    if not isinstance(data, dict):
        raise ConfigError(f"{positions.file}:1: {type(data).__name__}, expected keys and values", hint=hint)
    overridden = {_put(data, override): override for override in overrides}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, model, positions, overridden)), hint=hint) from None


def _lines(
    error: ValidationError,
    model: type[BaseModel],
    positions: _Positions,
    overridden: Mapping[tuple[str, ...], str],
) -> list[str]:
    """Return one line per fault; pydantic's doubled reports (unions, aliases) are folded."""
    lines: dict[str, None] = {}
    for details in error.errors():
        path, text = _explain(details, model)
        source = next(
            (o for p, o in overridden.items() if path[: len(p)] == p or (path and p[: len(path)] == path)), None
        )
        where = f"command line: {source}" if source else positions.where(path)
        lines[f"{where}: {_dotted(path)}: {text}" if path else f"{where}: {text}"] = None
    return list(lines)


def default_store() -> Path:
    """Return where kernels are kept when the configuration does not say: below the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rig"


def _origin(root: Path, word: str) -> str:
    path = root / Path(word).expanduser()
    return str(path) if word and path.exists() else word  # a git range, or wrong: series.py knows


#: Beside rig.yaml, and read when it is there.
KNOWN_ISSUES = "known-issues.yaml"


def _known_issues(root: Path, configured: Path | None) -> Path | None:
    if configured is not None:
        return root / configured.expanduser()
    return path if (path := root / KNOWN_ISSUES).is_file() else None


def _resolved(config: Config, root: Path) -> Config:
    root = root.resolve()
    return config.model_copy(
        update={
            "known_issues": _known_issues(root, config.known_issues),
            "results": root / config.results,
            "kconfigs": root / config.kconfigs,
            "guest_workloads": root / config.guest_workloads,
            "store": (root / config.store.expanduser()) if config.store != Path() else default_store(),
            "series": tuple(_origin(root, word) for word in config.series),
        }
    )
