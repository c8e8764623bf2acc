"""What a kernel did while a workload worked, by symbol: the plugin's spans before a trial, its counts after it.

Every symbol of the kernel's code is a span, and one with a place where folios are visited (visits.py) is two: whoever
enters the second one visits. Clones and cold parts of a function are added to it, and what is inlined counts for the
function around it. A trial's counts.json holds what was counted in each phase of its workload, which is
what stood between two marks.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig import proc
from rig.costs import countctl, visits
from rig.costs.countctl import Role
from rig.errors import HostError
from rig.machines.qemu import StallPlugin
from rig.perturbation import plugin
from rig.perturbation.plugin import COUNTS
from rig.runs import results
from rig.store import Store, write_atomically

CONTROL, FILE = "counts.ctl", "counts.json"
#: Room in the control block: cases of one workload, and instructions that lock (a kernel of the rig executes 2000).
PHASES, SITES = 20, 8192
SECONDS = 120.0

#: Where the kernel's code is on x86-64 (Documentation/arch/x86/x86_64/mm.rst).
_KERNEL_TEXT = 0xFFFFFFFF80000000
_SYMBOL = re.compile(r"^([0-9a-f]{16}) [tTwW] (\S+)$", re.MULTILINE)
#: After the last symbol: no function is longer, and what follows is no code.
_LAST = 4096

FAULT_ENTRY = "asm_exc_page_fault"


def _role(name: str) -> Role:
    if name == FAULT_ENTRY:
        return Role.FAULT
    if name.startswith("asm_sysvec_") or name in ("asm_common_interrupt", "asm_spurious_interrupt"):
        return Role.INTERRUPT
    return Role.SWITCH if name == "__switch_to_asm" else Role.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The symbols of a kernel's code, disjoint and in order."""

    starts: tuple[int, ...]
    names: tuple[str, ...]
    visits: tuple[int, ...] = ()  # addresses of instructions, see visits.py

    @property
    def pieces(self) -> tuple[tuple[int, str], ...]:
        """(start, symbol) of each span."""
        found = [*zip(self.starts, self.names, strict=True), *((start, self.place(start)[0]) for start in self.visits)]
        return tuple(sorted(found))

    @property
    def spans(self) -> tuple[tuple[int, int, Role], ...]:
        """(start, end, role) of each span."""
        pieces = self.pieces
        ends = [start for start, _ in pieces[1:]] + [start + _LAST for start, _ in pieces[-1:]]
        return tuple((start, end, _role(name)) for (start, name), end in zip(pieces, ends, strict=True))

    def of(self, function: str) -> tuple[tuple[int, int], ...]:
        """Return (start, end) of the symbols of a function."""
        return tuple(
            (start, end)
            for (start, end, _), (_, name) in zip(self.spans, self.pieces, strict=True)
            if function_of(name) == function
        )

    def place(self, address: int) -> tuple[str, int]:
        """Return the symbol at an address and the bytes from its start; ("", address) for none."""
        position = bisect_right(self.starts, address) - 1
        return (self.names[position], address - self.starts[position]) if position >= 0 else ("", address)


def parse_code(listing: str) -> Code:
    """Return the code that `nm` lists. Of several names for one address the shortest counts, then the first by name."""
    by_address: dict[int, str] = {}
    for match in _SYMBOL.finditer(listing):
        address, name = int(match[1], 16), match[2]
        if address >= _KERNEL_TEXT:
            by_address[address] = min(by_address.get(address, name), name, key=lambda one: (len(one), one))
    ordered = sorted(by_address.items())
    return Code(starts=tuple(start for start, _ in ordered), names=tuple(name for _, name in ordered))


def read_code(vmlinux: Path) -> Code:
    """Return the code of a kernel; raises HostError when binutils cannot read it."""
    code = parse_code(proc.check(["nm", "--defined-only", vmlinux], timeout=SECONDS))
    return replace(code, visits=visits.read(vmlinux, code.of(visits.WALK)))


def function_of(symbol: str) -> str:
    """Return the function that a symbol is a clone or a part of."""
    return symbol.split(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one function did in one phase, in page faults of user space and in system calls."""

    function: str
    instructions: tuple[int, int]
    locked: tuple[int, int]
    entered: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedAt:
    """A locked read-modify-write that was executed."""

    symbol: str
    offset: int  # bytes from the symbol
    executed: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What was counted between two marks."""

    work: tuple[Work, ...]  # by function
    locked_at: tuple[LockedAt, ...] = ()
    visited: int | None = None  # folios, by fault-around; None of a kernel that does not say where

    def entered(self, function: str) -> int:
        """Return how often a function was entered, from page faults or elsewhere."""
        return sum(sum(one.entered) for one in self.work if one.function == function)

    @property
    def skipped(self) -> float | None:
        """The share of the visited folios that fault-around left out; None where that is not known.

        Each call of WALK ends with a folio to be mapped, or with none left, which ends the call of filemap_map_pages().
        """
        walks, around = self.entered(visits.WALK), self.entered("filemap_map_pages")
        # A huge page is mapped as a whole, and nobody asks for the folio after it.
        if not self.visited or not walks or self.entered("do_set_pmd"):
            return None
        return (self.visited - (walks - around)) / self.visited


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted in one trial."""

    phases: tuple[Phase, ...]
    note: str = ""  # why something is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What counting takes: the plugin and the code of each kernel by its key, or a note on why there is none."""

    library: Path | None
    code: Mapping[str, Code]
    note: str = ""

    def write_control(self, folder: Path, kernel: str, vcpus: int) -> StallPlugin | None:
        """Write the control block of a trial on a kernel into its folder; None without a plugin."""
        if self.library is None:
            return None
        path = folder / CONTROL
        countctl.write(path, self.code[kernel].spans, vcpus=vcpus, phases=PHASES, sites=SITES)
        return StallPlugin(library=self.library, control=path)

    def keep(self, folder: Path, kernel: str) -> Counts:
        """Condense the control block in a trial's folder into counts.json, remove it, and return what was counted."""
        path = folder / CONTROL
        try:
            found = condense(countctl.read(path), self.code[kernel])
        except (OSError, ValueError) as error:
            found = Counts(phases=(), note=str(error))
        path.unlink(missing_ok=True)
        write_atomically(folder / FILE, json.dumps(results.to_json(found)) + "\n")
        return found


def kit(store: Store, compiler: str, kernels: Mapping[str, Path], accelerator: str) -> Kit:
    """Return what counting takes on kernels (key to vmlinux); what is not at hand makes a note of it and no error."""
    if accelerator != "tcg":
        return Kit(library=None, code={}, note=f"QEMU takes plugins under TCG only, not under {accelerator.upper()}")
    made = plugin.get(store, compiler, COUNTS)
    if made.library is None:
        return Kit(library=None, code={}, note=made.note)
    try:
        return Kit(library=made.library, code={key: read_code(path) for key, path in kernels.items()})
    except HostError as error:
        return Kit(library=None, code={}, note=error.summary)


def read(folder: Path) -> Counts | None:
    """Return what was kept of a trial; None when nothing was, or it cannot be read."""
    try:
        return results.from_json(Counts, json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def condense(reading: countctl.Reading, code: Code) -> Counts:
    """Return what a control block says, by function."""
    notes = []
    if not reading.loaded:
        notes.append("QEMU has not loaded the plugin")
    if reading.begun > len(reading.phases):
        notes.append(f"{reading.begun - len(reading.phases)} phases had no room")
    if reading.lost_sites:
        notes.append(f"{reading.lost_sites} locked instructions are known by their function only")
    pieces = code.pieces
    return Counts(phases=tuple(_phase(one, code, pieces) for one in reading.phases), note="; ".join(notes))


def _phase(phase: countctl.Phase, code: Code, pieces: Sequence[tuple[int, str]]) -> Phase:
    sums: dict[str, list[tuple[int, int]]] = {}
    visited = 0
    for position, counted in phase.spans:
        start, symbol = pieces[position]
        visit = start in code.visits
        visited += sum(counted.entered) if visit else 0
        # A jump into a cold part or a clone's tail is no call of the function, nor is a visit.
        entered = counted.entered if ".cold" not in symbol and not visit else (0, 0)
        fresh = [counted.instructions, counted.locked, entered]
        old = sums.get(function_of(symbol))
        sums[function_of(symbol)] = fresh if old is None else [_add(a, b) for a, b in zip(old, fresh, strict=True)]
    work = (Work(function=name, instructions=a, locked=b, entered=c) for name, (a, b, c) in sorted(sums.items()))
    places: Sequence[tuple[str, int, tuple[int, int]]] = [
        (*code.place(one.address), one.executed) for one in phase.sites
    ]
    return Phase(
        work=tuple(work),
        locked_at=tuple(LockedAt(symbol=a, offset=b, executed=c) for a, b, c in sorted(places)),
        visited=visited if code.visits else None,
    )


def _add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
