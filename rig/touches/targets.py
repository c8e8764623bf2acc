"""What of a kernel is worth a stall for a series: worked out once per kernel and kept in the store.

The base and the patched kernel are stalled in the same functions by name, also in those callees that only one of them
calls, as otherwise one of them would have the harder time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rig.errors import HostError
from rig.kernels.make import PINNED
from rig.model import Kernel
from rig.runs.results import from_json, to_json
from rig.store import Store, digest, write_atomically
from rig.touches import functions, inlines, partners, touched
from rig.touches.functions import Range, Span, Symbols
from rig.touches.touched import Function
from rig.trees.git import Git
from rig.trees.series import Applied
from rig.trees.source import repository

FORMAT = "targets-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one kernel has of the touched functions."""

    ranges: tuple[Range, ...]
    callees: tuple[tuple[str, str], ...]  # of these ranges: name and base name of the file ("" for a global function)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where one kernel is to be stalled."""

    spans: tuple[Span, ...]  # disjoint, by address
    notes: tuple[str, ...] = ()

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions in it, sorted."""
        return tuple(sorted({span.range.function for span in self.spans}))


def touched_by(applied: Applied, store: Store) -> tuple[Function, ...]:
    """Return the functions in which the base and the tip of the series differ."""
    git = repository(store)
    before = _texts(git, applied.base.commit, applied.series.paths)
    after = _texts(git, applied.tip.commit, applied.series.paths)
    return touched.of_series(before, after)


def touched_by_each(applied: Applied, store: Store) -> tuple[tuple[Function, ...], ...]:
    """Return the functions that each patch of the series touches, in the order of the patches."""
    git = repository(store)
    return tuple(
        touched.of_series(_texts(git, before.commit, patch.paths), _texts(git, after.commit, patch.paths))
        for patch, before, after in zip(
            applied.series.patches, applied.prefixes[:-1], applied.prefixes[1:], strict=True
        )
    )


def _texts(git: Git, commit: str, paths: Iterable[str]) -> dict[str, str]:
    shown = {path: git.run("show", f"{commit}:{path}") for path in paths if path.endswith((".c", ".h"))}
    return {path: done.stdout for path, done in shown.items() if done.ok}


class Finder:
    """Finds the touched functions of one series in its kernels."""

    def __init__(self, applied: Applied, store: Store, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.applied = applied
        self.store = store
        self.touched = touched_by(applied, store)
        self._say = say
        self._base = applied.base.commit[:12]

    def targets(self, kernels: Iterable[Kernel]) -> Mapping[str, Targets]:
        """Return the targets of each of `kernels`, by its key; raises HostError when binutils are missing or fail."""
        known = list(kernels)
        found = {kernel.key: self.found(kernel) for kernel in known}
        callees = sorted({callee for one in found.values() for callee in one.callees})
        made = {}
        for kernel in known:
            one, symbols = found[kernel.key], functions.read_symbols(kernel.vmlinux)
            others = functions.partner_ranges(partners.of(self.applied.series.paths), symbols)
            ranges = (*one.ranges, *others, *functions.callee_ranges(callees, symbols))
            made[kernel.key] = Targets(spans=functions.placed(ranges, symbols), notes=one.notes)
        return made

    def found(self, kernel: Kernel) -> Found:
        """Return what one kernel has of the touched functions, from the store where it is there."""
        wanted = (word for one in self.touched for word in (one.path, one.name))
        key = digest(FORMAT, kernel.key, self._base, functions.DULL.pattern, *wanted)
        stored = self.store.get("targets", key)
        if stored is not None:
            return from_json(Found, json.loads((stored / "found.json").read_text()))
        found, whole = self._find(kernel)
        if whole:  # what was worked out without the object directory is worth another try next time

            def fill(target: Path) -> None:
                write_atomically(target / "found.json", json.dumps(to_json(found), indent=1))

            self.store.publish("targets", key, fill)
        return found

    def _find(self, kernel: Kernel) -> tuple[Found, bool]:
        symbols = functions.read_symbols(kernel.vmlinux)
        own = functions.own_ranges(self.touched, symbols)
        inlined, notes, failed = self._inlined(kernel, symbols)
        callers = self._callers(kernel, symbols, own)
        if failed:
            notes.append(f"inlined functions of {', '.join(failed)} are represented by their callers")
        calls: set[functions.Symbol] = set()
        for span in functions.placed((*inlined, *own, *(callers if failed else ())), symbols):
            calls |= functions.called(functions.disassemble(kernel.vmlinux, span.start, span.length), symbols)
        names = {one.name for one in self.touched}
        callees = tuple(sorted((one.name, one.file) for one in calls if one.name.split(".")[0] not in names))
        # The innermost first: an inlined part goes by its own name, and not by that of the function around it.
        return Found(ranges=(*inlined, *own, *callers), callees=callees, notes=tuple(notes)), not failed

    def _inlined(self, kernel: Kernel, symbols: Symbols) -> tuple[tuple[Range, ...], list[str], list[str]]:
        """Return the inlined ranges, notes, and the files that could not be looked at."""
        names = frozenset(one.name for one in self.touched)
        files = sorted({path for path in self.applied.series.paths if path.endswith(".c")})
        work = self.store.root / "work" / f"build-{self._base}"
        source, objects = work / "source", work / f"obj-{kernel.flavour}"
        if not objects.is_dir():
            return (), ["the object directory of the kernel is gone"], files
        found: list[Range] = []
        notes: list[str] = []
        failed: list[str] = []
        self._say(f"{kernel.flavour} {kernel.tree[:12]}: compiling {len(files)} touched files again, for inlined code")
        with tempfile.TemporaryDirectory(prefix="rig-inlines-") as folder:
            tree = Path(folder) / "tree"
            try:
                inlines.write_tree(repository(self.store), kernel.commit, files, tree)
            except HostError as error:
                return (), [error.summary], files
            for path in files:
                place = PurePosixPath(path)
                command = _command(objects / place.parent / f".{place.stem}.o.cmd")
                if command is None or not (tree / path).is_file():
                    if command is not None or (objects / place.with_suffix(".o")).exists():
                        failed.append(path)
                    continue  # not part of this kernel
                target = Path(folder) / "again.o"
                why = inlines.recompile(
                    command, objects=objects, source=source, tree=tree, path=path, target=target, env=PINNED
                )
                if why:
                    notes.append(why)
                    failed.append(path)
                    continue
                ranges, more = inlines.of_object(target, names, symbols, path)
                found += ranges
                notes += more
        return tuple(found), notes, failed

    def _callers(self, kernel: Kernel, symbols: Symbols, own: Iterable[Range]) -> tuple[Range, ...]:
        """Return the functions that mention touched ones: a window often reaches to what the caller does next."""
        names = {one.name for one in self.touched}
        texts = _texts(repository(self.store), kernel.commit, self.applied.series.paths)
        callers = {path: touched.callers(text, names) for path, text in texts.items()}
        known = {one.function for one in own}
        return functions.caller_ranges({path: found - known for path, found in callers.items()}, symbols)


def _command(file: Path) -> tuple[str, ...] | None:
    try:
        return inlines.saved_command(file.read_text())
    except OSError:
        return None
