"""Tests of will-it-scale as a workload of the rig: compiled from a source tree of it that the user has.

A tree has tests/*.c, each with a function testcase() that loops for ever, and maybe testcase_prepare() and
testcase_cleanup(). All tests come into one program: their functions are renamed, and what else they define is made
local, as many of them use the same names. will-it-scale's main() stays out, see guests/guestfiles/will-it-scale.c.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from rig import proc
from rig.errors import ConfigError
from rig.settings.config import Config
from rig.store import Store, digest

NAME = "will-it-scale"
#: Ahead of the name of a test in that of a case.
PREFIX = f"{NAME}."
DRIVER = Path(__file__).parents[1] / "guests" / "guestfiles" / f"{NAME}.c"
FLAGS = ("-std=gnu11", "-O2", "-static", "-pthread")
#: What a test defines for its main(), and what that is called here, after a symbol of the test's own.
FUNCTIONS = {"testcase": "testcase", "testcase_prepare": "prepare", "testcase_cleanup": "cleanup"}
#: What a task may take: 128 MiB of a file, as many of private copies, and the tables for both.
TASK_MIB = 288
SECONDS = 300.0

_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)


def tests(tree: Path, globs: Iterable[str]) -> tuple[Path, ...]:
    """Return the sources of the tests that globs name, each once, in the order of the globs.

    Raises ConfigError when `tree` is none of will-it-scale, or a glob names no test of it.
    """
    known = {file.stem: file for file in sorted(tree.glob("tests/*.c")) if _NAME.fullmatch(file.stem)}
    if not known:
        raise ConfigError(
            f"{tree} is no source tree of will-it-scale: it has no tests/*.c",
            hint="will_it_scale=PATH takes a checkout of https://github.com/antonblanchard/will-it-scale",
        )
    chosen: dict[str, Path] = {}
    for glob in globs:
        found = {name: file for name, file in known.items() if fnmatchcase(name, glob)}
        if not found:
            raise ConfigError(f"will-it-scale has no test {glob!r} in {tree}", hint=f"one of {', '.join(known)}")
        chosen |= found
    return tuple(chosen.values())


def memory_mib(least: int, cpus: int) -> int:
    """Return the MiB of a machine for a task on each CPU. Their files are in /tmp, which may take half of it."""
    return max(least, 512 + TASK_MIB * cpus)


def of_bench(config: Config, store: Store, compiler: str) -> Path:
    """Return the program with the tests that a bench times; raises ConfigError when there is none."""
    return program(chosen(config), config.guest_workloads, store, compiler)


def chosen(config: Config) -> tuple[Path, ...]:
    """Return the sources of the tests that a bench times, none without a tree; raises ConfigError as tests() does."""
    own = config.bench
    return tests(own.will_it_scale, own.tests) if own.will_it_scale else ()


def program(files: Sequence[Path], include: Path, store: Store, compiler: str) -> Path:
    """Return the program that has these tests as cases, from the store; `include` has rig.h.

    Raises ConfigError when one does not compile.
    """
    folders = sorted({file.parent for file in files} | {file.parent.parent for file in files})
    headers = [header for folder in folders for header in sorted(folder.glob("*.h"))]
    sources = (DRIVER, *sorted(include.glob("*.h")), *headers, *files)
    words = (word for file in sources for word in (file.name, file.read_bytes()))
    key = digest("will-it-scale-1", compiler, *FLAGS, *words)
    stored = store.get("workload", key) or store.publish("workload", key, partial(_compile, files, include))
    return stored / NAME


def _compile(files: Sequence[Path], include: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="will-it-scale-") as name:
        folder = Path(name)
        objects = [_object(file, folder) for file in files]
        (folder / "tests.h").write_text(_table(files))
        words: list[str | Path] = ["-I", folder, "-I", include, "-o", target / NAME, DRIVER, *objects]
        _run("the tests of will-it-scale do not link", words)


def _table(files: Sequence[Path]) -> str:
    """Return what the driver has of the tests: the functions of each, and a row with NULL for those that it lacks."""
    symbols = {file.stem: _symbol(file) for file in files}
    lines = [
        f"extern void {one}_prepare(unsigned long tasks) RIG_ATTRIBUTE(__weak__);\n"
        f"extern void {one}_testcase(unsigned long long *iterations, unsigned long nr);\n"
        f"extern void {one}_cleanup(void) RIG_ATTRIBUTE(__weak__);\n"
        for one in symbols.values()
    ]
    rows = [
        f'\t{{ {{ "{PREFIX}{name}", 1 }}, {one}_prepare, {one}_testcase, {one}_cleanup }},\n'
        for name, one in symbols.items()
    ]
    return "".join([*lines, "static const struct test tests[] = {\n", *rows, "};\n"])


def _object(file: Path, folder: Path) -> Path:
    """Return a test compiled, with no names but its own."""
    made, symbol = folder / f"{file.stem}.o", _symbol(file)
    names = {old: f"{symbol}_{new}" for old, new in FUNCTIONS.items()}
    defines = [f"-D{old}={new}" for old, new in names.items()]
    _run(
        f"will-it-scale's {file.stem} does not compile",
        ["-w", "-D_GNU_SOURCE=", *defines, "-I", file.parent, "-I", file.parent.parent, "-c", "-o", made, file],
    )
    proc.check(["objcopy", *(f"--keep-global-symbol={new}" for new in names.values()), made], timeout=SECONDS)
    return made


def _symbol(file: Path) -> str:
    return "test_" + file.stem.replace("-", "_")


def _run(failed: str, words: Sequence[str | Path]) -> None:
    done = proc.run(["gcc", *FLAGS, *words], timeout=SECONDS)
    if not done.ok:
        lines = done.stderr.splitlines()
        why = next((line for line in lines if "error" in line or "undefined" in line), "gcc does not say why")
        raise ConfigError(f"{failed}: {why}", hint="tests=[NAME, ...] names those that are wanted")
