"""Reads rig.yaml and KEY=VALUE overrides into the models of config.py.

Every refusal reads `file:line: what, expected what, did you mean`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rig.errors import ConfigError
from rig.settings.config import Config

KEY_HELP = "see `rig.yaml` for an example of every key"

M = TypeVar("M", bound=BaseModel)
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
    return str(path) if word and path.exists() else word  # a git range, or wrong: trees/series.py knows


#: Beside rig.yaml, and read when it is there.
KNOWN_ISSUES = "known-issues.yaml"


def _known_issues(root: Path, configured: Path | None) -> Path | None:
    if configured is not None:
        return root / configured.expanduser()
    return path if (path := root / KNOWN_ISSUES).is_file() else None


def _below(root: Path, path: Path | None) -> Path | None:
    return None if path is None else root / path.expanduser()


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
            "bench": config.bench.model_copy(update={"will_it_scale": _below(root, config.bench.will_it_scale)}),
        }
    )
