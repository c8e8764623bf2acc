"""Where functions stand in a kernel: address ranges by symbol, and what they call directly.

Read from vmlinux with binutils, which every host that builds kernels has. Ranges are kept as (symbol, offset, length),
which means the same to a plugin of QEMU (plus the symbol's address: the kernels run with nokaslr) and to a kprobe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from rig import proc
from rig.touches.touched import Function

#: What gcc appends to the name of a clone of a function, or of the part of it that it takes for unlikely.
_VARIANT = re.compile(r"(?:\.(?:isra|constprop|part|cold|localalias)|\.\d+)*")
_SYMBOL = re.compile(r"^\s*\d+:\s+([0-9a-f]+)\s+(\d+|0x[0-9a-f]+)\s+(FUNC|NOTYPE|FILE)\s+(\w+)\s+\w+\s+(\w+)\s+(\S+)$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t([a-z]\S*)\s*([^\n]*)$")
_TARGET = re.compile(r"^([0-9a-f]+) <")
SECONDS = 120.0

#: Callees in which a stall buys nothing, by the beginning of the name.
DULL = re.compile(
    r"""
    # They run for everybody all the time, so that nearly all stalls would be spent on callers which have nothing to do
    # with the series; a stall of the caller itself, before or after the call, holds the same window open.
    _raw_ | raw_spin | spin_ | queued_ | _*mutex_ | _*(down|up)_(read|write) | rwsem_ | _*rcu_ | _*percpu_ | _*this_cpu_
    | _*preempt_ | check_preemption_ | _*local_ | kmem_cache_ | _*kmalloc | kv?free | kvmalloc | slab_ | xas?_ | __xa_
    | radix_tree_ | idr_ | _find_ | _*bitmap_ | _*hweight | _*list_(add|del) | jiffies | ktime_ | get_random | _*sched_
    | css_ | cgroup_rstat | mem_cgroup_from_ | _*mod_(node|zone|lruvec|memcg) | _*count_(memcg|vm)
    | (const_)?folio_flags
    # They only watch, or only talk.
    | __fentry__ | _*(asan|kasan|kcsan|tsan|ubsan|kmsan|sanitizer)_ | kmemleak_ | _*page_owner | _*lockdep_
    | debug_lockdep_ | _*lock_(acquire|release|is_held|contended) | debug_(smp|check)_ | _*might_ | _*trace_ | perf_
    | __page_table_check_ | __probestub_ | __traceiter_
    | __SC[TK]__ | __mmap_lock_ | mm_trace_ | _*v?printk | dump_ | _*warn_ | __WARN
    | panic | report_ | __bug | print_ | pr_ | __dynamic_ | should_fail
    # They move bytes, belong to the machine and not to the race, or are thunks.
    | _*mem(cpy|set|move|cmp) | (clear|copy)_page | rep_ | _*(put|get)_user | _*copy_(from|to)_ | __x86_ | __stack_chk
    | asm_ | native_ | pv_ | paravirt | _*static_call | __cfi | delay_ | _*udelay
    # They wait already.
    | _*schedule | __cond_resched | io_schedule | _*wake_up
    """,
    re.VERBOSE,
)


class Kind(StrEnum):
    """What a range has to do with the series."""

    TOUCHED = "touched"  # the function itself
    INLINED = "inlined"  # a touched function, where it was inlined into another one
    CALLER = "caller"  # of the files of the series, calls a touched function
    PARTNER = "partner"  # of the other side of a race that the series concerns, see partners.py
    CALLEE = "callee"  # called by a touched function


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Range:
    """Bytes of code; instruction boundaries at both ends."""

    symbol: str
    file: str  # base name of the file that the symbol was compiled from, "" for a global one
    offset: int  # bytes from the symbol
    length: int  # bytes
    function: str  # by the name of the source
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A function in a vmlinux."""

    name: str
    address: int
    size: int  # bytes
    file: str  # base name of the C file of a local symbol; "" for a global one


class Symbols:
    """The functions of a vmlinux or of an object file, by name and by address."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._named: dict[str, list[Symbol]] = {}
        self._at: dict[int, Symbol] = {}
        for symbol in symbols:
            self._named.setdefault(symbol.name, []).append(symbol)
            self._at.setdefault(symbol.address, symbol)

    @property
    def all(self) -> tuple[Symbol, ...]:
        """Every function, those of one name together."""
        return tuple(symbol for known in self._named.values() for symbol in known)

    def one(self, name: str, file: str) -> Symbol | None:
        """Return the symbol `name`, the one of `file` where there are several; None if there is none or no telling."""
        known = self._named.get(name, [])
        here = [symbol for symbol in known if symbol.file in (file, "")] or known
        return here[0] if len(here) == 1 else None

    def variants(self, name: str, file: str) -> tuple[Symbol, ...]:
        """Return the symbols of the function `name` of `file`: itself, its clones, its cold part."""
        found = []
        for other in self._named:
            if other.startswith(name) and _VARIANT.fullmatch(other, len(name)):
                symbol = self.one(other, file)
                if symbol is not None and symbol.size:
                    found.append(symbol)
        return tuple(found)

    def named(self, name: str) -> tuple[Symbol, ...]:
        """Return all functions of that very name."""
        return tuple(self._named.get(name, ()))

    def at(self, address: int) -> Symbol | None:
        """Return the function that begins at `address`."""
        return self._at.get(address)


def parse_symbols(listing: str) -> Symbols:
    """Return what `readelf -sW` lists: local symbols stand behind the name of their file."""
    found = []
    file = ""
    for line in listing.splitlines():
        match = _SYMBOL.match(line)
        if match is None:
            continue
        address, size, kind, bind, section, name = match.groups()
        if kind == "FILE":
            file = PurePosixPath(name).name
        elif kind == "FUNC" and section != "UND":
            local = file if bind == "LOCAL" else ""
            found.append(Symbol(name=name, address=int(address, 16), size=int(size, 0), file=local))
    return Symbols(found)


def read_symbols(binary: Path) -> Symbols:
    """Return the functions of an ELF file; raises HostError when binutils cannot read it."""
    return parse_symbols(proc.check(["readelf", "-sW", binary], timeout=SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction of a disassembly."""

    address: int
    mnemonic: str
    operands: str


def parse_disassembly(listing: str) -> tuple[Instruction, ...]:
    """Return the instructions that `objdump -d --no-show-raw-insn` prints."""
    matches = (_INSTRUCTION.match(line) for line in listing.splitlines())
    return tuple(
        Instruction(address=int(match[1], 16), mnemonic=match[2], operands=match[3]) for match in matches if match
    )


def disassemble(binary: Path, start: int, length: int) -> tuple[Instruction, ...]:
    """Return the instructions of `length` bytes from the address `start`; raises HostError when objdump fails."""
    bounds = (f"--start-address={start:#x}", f"--stop-address={start + length:#x}")
    return parse_disassembly(proc.check(["objdump", "-d", "--no-show-raw-insn", *bounds, binary], timeout=SECONDS))


def called(instructions: Iterable[Instruction], symbols: Symbols) -> frozenset[Symbol]:
    """Return the functions that are called, or jumped to as a last act, and are worth a stall: see DULL."""
    found = set()
    for one in instructions:
        target = _TARGET.match(one.operands)
        if target is None or not (one.mnemonic.startswith(("call", "jmp"))):
            continue
        symbol = symbols.at(int(target[1], 16))
        if symbol is not None and symbol.size and not DULL.match(symbol.name):
            found.add(symbol)
    return frozenset(found)


def own_ranges(touched: Iterable[Function], symbols: Symbols) -> tuple[Range, ...]:
    """Return the whole of each touched function that has code of its own, clones and cold parts included."""
    return tuple(
        _whole(symbol, one.name, Kind.TOUCHED)
        for one in touched
        for symbol in symbols.variants(one.name, PurePosixPath(one.path).name)
    )


def caller_ranges(callers: Mapping[str, Iterable[str]], symbols: Symbols) -> tuple[Range, ...]:
    """Return the whole of the functions that call touched ones; `callers`: names by path."""
    return tuple(
        _whole(symbol, name, Kind.CALLER)
        for path, names in callers.items()
        for name in sorted(names)
        for symbol in symbols.variants(name, PurePosixPath(path).name)
    )


def partner_ranges(names: Iterable[str], symbols: Symbols) -> tuple[Range, ...]:
    """Return the whole of functions that are given by name alone, as far as this kernel has just one of that name."""
    return tuple(_whole(symbol, name, Kind.PARTNER) for name in names for symbol in symbols.variants(name, ""))


def callee_ranges(callees: Iterable[tuple[str, str]], symbols: Symbols) -> tuple[Range, ...]:
    """Return the whole of functions that are given by name and file, as far as this kernel has them."""
    found = (symbols.one(name, file) for name, file in callees)
    return tuple(_whole(symbol, symbol.name, Kind.CALLEE) for symbol in found if symbol is not None and symbol.size)


def _whole(symbol: Symbol, function: str, kind: Kind) -> Range:
    return Range(
        symbol=symbol.name, file=symbol.file, offset=0, length=symbol.size, function=function.split(".")[0], kind=kind
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range at its address in a kernel."""

    start: int
    length: int  # bytes
    range: Range


def placed(ranges: Iterable[Range], symbols: Symbols) -> tuple[Span, ...]:
    """Return disjoint spans in order of their addresses: where ranges overlap, the one that comes first has it."""
    taken: list[tuple[int, int]] = []
    found: list[Span] = []
    for one in ranges:
        symbol = symbols.one(one.symbol, one.file)
        if symbol is None:
            continue
        for start, end in _without(symbol.address + one.offset, one.length, taken):
            found.append(Span(start=start, length=end - start, range=one))
            taken.append((start, end))
    return tuple(sorted(found, key=lambda span: span.start))


def _without(start: int, length: int, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    left = [(start, start + length)]
    for low, high in taken:
        left = [piece for a, b in left for piece in ((a, min(b, low)), (max(a, high), b)) if piece[0] < piece[1]]
    return left
