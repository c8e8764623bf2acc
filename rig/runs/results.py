"""What a run leaves behind as JSON, and how it is read back.

One trial is `trial.json` in its own folder, written when the trial ends, so that a run that is killed can be resumed.
The whole run is `results.json`; `rig/schemas/results.schema.json` describes it. Files appear whole or not at all, and
whatever cannot be read back as it was meant counts as not there.

The JSON follows the dataclasses: an object for each, an array for each tuple, `[key, value]` for pairs, whose order
means something.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, Union

from rig.errors import HostError
from rig.model import Kernel, TrialResult, Verdict
from rig.store import write_atomically
from rig.touches.touched import Function

SCHEMA_VERSION = 2
#: Fields of later versions have defaults, so what these wrote is read as if they had said nothing of them.
READABLE = (1, SCHEMA_VERSION)
SCHEMA = Path(__file__).parents[1] / "schemas" / "results.schema.json"
TRIAL_FILE = "trial.json"
LARGEST = 512 << 20  # bytes of a results.json that is read

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine the run was made on. TCG is weaker evidence on timing than KVM, so the accelerator has a reason."""

    kernel: str  # `uname -r`
    cpus: int
    memory_kib: int
    accelerator: str  # kvm or tcg
    accelerator_reason: str
    qemu: str  # version
    compiler: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The tree that the series is applied to."""

    source: str  # as configured, e.g. debian:linux-source-6.12
    commit: str
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch of the series, and the tree that it leads to."""

    number: int  # counted from 1
    subject: str
    commit: str
    tree: str
    functions: tuple[Function, ...] = ()  # that it touches; () in results of older rigs, too


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesInfo:
    """The series that was tested."""

    name: str
    path: str  # as configured; of a stack: all of them, with commas between
    patches: tuple[Patch, ...]
    key: str = ""  # the digest of the patches' bytes, see trees/series.py; "" in results of older rigs


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything a report is made from."""

    id: str
    started: str  # ISO 8601, UTC
    finished: str  # "" while it goes on
    rig_version: str
    complete: bool  # every trial that was planned is in it
    host: Host
    base: Base
    series: SeriesInfo
    kernels: tuple[Kernel, ...]
    config: Mapping[str, Any]  # rig.yaml as it was resolved
    trials: tuple[TrialResult, ...]
    verdict: Verdict
    stages: tuple[tuple[str, float], ...] = ()  # name, seconds
    overrides: tuple[str, ...] = ()  # KEY=VALUE of the command line; () in results of older rigs, too
    schema_version: int = SCHEMA_VERSION


def write_trial(directory: Path, trial: TrialResult) -> Path:
    """Publish `trial.json` in `directory`, which is made if need be; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / TRIAL_FILE
    write_atomically(path, _dump({"schema_version": SCHEMA_VERSION, "trial": to_json(trial)}))
    return path


def read_trial(directory: Path) -> TrialResult | None:
    """Return the trial in `directory`; None if there is none, or none that is whole and of this version."""
    try:
        data = json.loads((directory / TRIAL_FILE).read_bytes())
        if not isinstance(data, dict) or data.get("schema_version") not in READABLE:
            return None
        return from_json(TrialResult, data.get("trial"))
    except (OSError, ValueError, RecursionError):
        return None


def write_results(path: Path, run: Run) -> None:
    """Publish a whole run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _dump(to_json(run)))


def read_results(path: Path) -> Run:
    """Return the run in `path`. Raises HostError if it is not there or is not the results of a run."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST >> 20} MiB")
        data = json.loads(path.read_bytes(), parse_constant=finite, parse_float=finite)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version not in READABLE:
            raise ValueError(f"schema version {version!r}, expected {' or '.join(map(str, READABLE))}")
        return from_json(Run, data)
    except (OSError, ValueError, RecursionError) as error:
        raise HostError(
            f"{path} cannot be read as the results of a run: {error}", hint="run `rig test` again"
        ) from None


def finite(text: str) -> float:
    """Return a number of JSON, which knows neither NaN nor infinity, as no report could show them."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _dump(data: object) -> str:
    # ASCII only: a lone surrogate from a guest's broken UTF-8 is valid in JSON as an escape, and in no encoding.
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def to_json(value: object) -> Any:
    """Return `value`, made of dataclasses, enums, paths and tuples, as JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: object) -> T:
    """Return `data` as a `kind`, the inverse of to_json. Raises ValueError where it does not fit."""
    value: T = _decode(kind, data, kind.__name__)
    return value


def _decode(kind: Any, data: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, where)
    if origin in (Union, types.UnionType):
        return _decode_optional(typing.get_args(kind), data, where)
    if origin is not None:  # Mapping[str, Any]
        return _checked(dict, data, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind is float:
        return float(_checked((int, float), data, where))
    if kind is Path:
        return Path(_checked(str, data, where))
    return _checked(kind, data, where)


def _checked(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ValueError(f"{where}: {data!r:.40} is not {kind}")
    return data


def _decode_dataclass(kind: Any, data: object, where: str) -> Any:
    values = _checked(dict, data, where)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}")
    missing = [f.name for f in fields.values() if f.name not in values and f.default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{where}: no {', '.join(missing)}")
    return kind(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _decode_tuple(kinds: tuple[Any, ...], data: object, where: str) -> tuple[Any, ...]:
    items = _checked(list, data, where)
    if kinds[-1] is Ellipsis:
        return tuple(_decode(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if len(items) != len(kinds):
        raise ValueError(f"{where}: {len(items)} items, expected {len(kinds)}")
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True)))


def _decode_optional(kinds: tuple[Any, ...], data: object, where: str) -> Any:
    if data is None and types.NoneType in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not types.NoneType)
    return _decode(kind, data, where)
