"""Kconfig fragments to a final .config, with proof that what was asked for is what came out.

The merging is the kernel's own (`scripts/kconfig/merge_config.sh`, over allnoconfig); the proof is ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rig import proc
from rig.errors import BuildError, ConfigError, HostError
from rig.trees.git import Git

_SETTING = re.compile(r"^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$")


def fragments(names: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Return the files of fragments by name; raises ConfigError for one that is not there."""
    found = []
    for name in names:
        path = folder / f"{name}.config"
        if "/" in name or not path.is_file():
            known = sorted(file.stem for file in folder.glob("*.config"))
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"flavours: no Kconfig fragment {name!r}, expected one of {', '.join(known) or 'none'}"
                + (f"; did you mean {close[0]!r}?" if close else ""),
                hint=f"fragments are the files NAME.config in {folder}",
            )
        found.append(path)
    return tuple(found)


def settings(text: str) -> dict[str, str]:
    """Return the symbols of a .config or fragment with their values; `n` for what is not set."""
    found = {}
    for line in text.splitlines():
        if match := _SETTING.match(line.strip()):
            found[match[1] or match[3]] = match[2] if match[1] else "n"
    return found


def dropped(requested: Mapping[str, str], final: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the symbols whose final value is not the requested one, with both values."""
    return {name: (want, final.get(name, "n")) for name, want in requested.items() if final.get(name, "n") != want}


def configure(source: Path, objects: Path, files: Sequence[Path], *, log: Path, env: Mapping[str, str]) -> str:
    """Merge fragments into `objects/.config` and return its text.

    Raises BuildError with the list of what was dropped, and the missing dependency where Kconfig tells it.
    """
    objects.mkdir(parents=True, exist_ok=True)
    argv = ["scripts/kconfig/merge_config.sh", "-n", "-O", str(objects), *map(str, files)]
    done = proc.run(argv, cwd=source, timeout=600, log=log, env=dict(env))
    final = objects / ".config"
    if not done.ok or not final.exists():
        tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        if "not found" in tail[0]:
            raise HostError(f"Kconfig's tools do not build: {tail[0]}", hint="run `rig doctor`", evidence=log)
        raise BuildError(f"merging the Kconfig fragments failed: {tail[0]}", evidence=log)
    text = final.read_text()
    requested: dict[str, str] = {}
    for file in files:
        requested |= settings(file.read_text())
    if lost := dropped(requested, settings(text)):
        raise BuildError(
            "\n".join(_explain(lost, settings(text), source)), hint="see kconfigs/ for the fragments", evidence=log
        )
    return text


def _explain(lost: Mapping[str, tuple[str, str]], final: Mapping[str, str], source: Path) -> Iterator[str]:
    yield f"Kconfig dropped {len(lost)} requested symbol{'s' if len(lost) > 1 else ''}:"
    for name, (want, got) in lost.items():
        reason = missing_dependency(name, final, source)
        yield f"    CONFIG_{name}: asked for {want}, got {got}" + (f" ({reason})" if reason else "")


def missing_dependency(name: str, final: Mapping[str, str], source: Path) -> str | None:
    """Return why a symbol cannot be set: it is unknown, or the symbols it depends on that are not set."""
    found = Git(source).run("grep", "-l", "-E", rf"^\s*(menu)?config {name}$", "--", "*Kconfig*")
    files = [source / line for line in found.stdout.splitlines()]
    if not files:
        return "no such symbol in this kernel"
    needs = [need for file in files for need in dependencies(file.read_text(errors="replace"), name)]
    unset = sorted({symbol for need in needs for symbol in _unset(need, final)})
    return f"needs {', '.join(unset)}" if unset else None


def _unset(expression: str, final: Mapping[str, str]) -> Iterator[str]:
    """Yield the symbols of the conjuncts of an expression that have no set alternative."""
    for conjunct in expression.split("&&"):
        symbols = re.findall(r"(!?)\s*\b([A-Z0-9_]{2,})\b", conjunct)
        if symbols and not any((final.get(symbol, "n") in ("y", "m")) != bool(bang) for bang, symbol in symbols):
            yield " or ".join(bang + symbol for bang, symbol in symbols)


def dependencies(text: str, name: str) -> tuple[str, ...]:
    """Return the expressions that a symbol depends on in one Kconfig file: its own and those of the `if`s around it."""
    around: list[str] = []
    inside = False
    found: list[str] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = line.split("#")[0].strip()
        if re.match(r"(?:menu)?config \w+$", words):
            inside = words.split()[1] == name
            if inside:
                found += around
        elif words.startswith("if "):
            around.append(words[3:])
            inside = False
        elif words == "endif" and around:
            around.pop()
            inside = False
        elif inside and words.startswith("depends on "):
            found.append(words.removeprefix("depends on "))
    return tuple(found)
