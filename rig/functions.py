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
from rig.touched import Function

#: What gcc appends to the name of a clone of a function, or of the part of it that it takes for unlikely.
_VARIANT = re.compile(r"(?:\.(?:isra|constprop|part|cold|localalias)|\.\d+)*")
_SYMBOL = re.compile(r"^\s*\d+:\s+([0-9a-f]+)\s+(\d+|0x[0-9a-f]+)\s+(FUNC|NOTYPE|FILE)\s+(\w+)\s+\w+\s+(\w+)\s+(\S+)$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t([a-z]\S*)\s*([^\n]*)$")
_TARGET = re.compile(r"^([0-9a-f]+) <")
SECONDS = 120.0

#: Callees in which a stall buys nothing, by the beginning of the name. Four kinds of reasons:
#: - they run for everybody all the time (locks, RCU, per-CPU and scheduler helpers, the allocators): nearly all stalls
#:   would be spent on callers that have nothing to do with the series, and the caller's own stall just before or after
#:   the call holds the same window open;
#: - they only watch (tracing, lockdep, KASAN, KCSAN, kcov, page_owner) or only talk (printk, dump_page, BUG);
#: - a stall in them delays the machine and no race (interrupt entry, stack and retpoline thunks, memcpy and memset);
#: - they wait already (schedule, cond_resched).
DULL = tuple(
    """
    __fentry__ __x86_ __sanitizer_ __asan_ __kasan_ kasan_ __kcsan_ kcsan_ __tsan_ __ubsan_ kmsan_ kmemleak_
    lock_ lockdep_ __lock_ rcu_ __rcu_ debug_lockdep_ __might_ might_ preempt_ __preempt_ debug_smp_ debug_check_
    __this_cpu_ this_cpu_ check_preemption_ local_ __local_ trace_ __trace __traceiter_ trace __probestub_ perf_
    _printk printk vprintk dump_ __warn warn_ __WARN panic report_ __bug __stack_chk print_ pr_ __dynamic_
    raw_spin _raw_ spin_ mutex_ __mutex_ down_ up_ __down __up rwsem_ schedule __cond_resched preempt_schedule io_schedule
    __schedule wake_up __wake_up kmem_cache_ kmalloc __kmalloc kfree kvfree kvmalloc slab_ memcpy memset memmove __memcpy
    __memset __memmove memcmp clear_page copy_page rep_ __put_user __get_user copy_from_ copy_to_ _copy_ __SCT__ __SCK__
    xa_ xas_ __xa radix_tree_ idr_ percpu_ __percpu_ _find_ find_ __bitmap bitmap_ __sw_hweight hweight asm_ static_call
    cgroup_rstat css_ mod_node __mod_ mod_lruvec __mod __count count_ should_fail get_random prandom delay_ __delay udelay
    ktime_ sched_ jiffies blk_ __list_ list_ queued_ native_ pv_ paravirt __static_ __cfi page_owner __page_owner
    const_folio_flags folio_flags __mmap_lock_ mm_trace_ mem_cgroup_from_
    """.split()
)


class Kind(StrEnum):
    """What a range has to do with the series."""

    TOUCHED = "touched"  # the function itself
    INLINED = "inlined"  # a touched function, where it was inlined into another one
    CALLER = "caller"  # calls a touched function that has no code of its own: where it does is not known
    CALLEE = "callee"  # called by one of these


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
    words = [
        "objdump",
        "-d",
        "--no-show-raw-insn",
        f"--start-address={start:#x}",
        f"--stop-address={start + length:#x}",
    ]
    return parse_disassembly(proc.check([*words, binary], timeout=SECONDS))


def called(instructions: Iterable[Instruction], symbols: Symbols) -> frozenset[Symbol]:
    """Return the functions that are called, or jumped to as a last act, and are worth a stall: see DULL."""
    found = set()
    for one in instructions:
        target = _TARGET.match(one.operands)
        if target is None or not (one.mnemonic.startswith(("call", "jmp"))):
            continue
        symbol = symbols.at(int(target[1], 16))
        if symbol is not None and symbol.size and not symbol.name.startswith(DULL):
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
    """Return the whole of the functions that stand for those which were inlined; `callers`: names by path."""
    return tuple(
        _whole(symbol, name, Kind.CALLER)
        for path, names in callers.items()
        for name in sorted(names)
        for symbol in symbols.variants(name, PurePosixPath(path).name)
    )


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


def probe_points(vmlinux: Path, spans: Iterable[Span]) -> tuple[tuple[str, int], ...]:
    """Return the (symbol, offset) of every instruction in the spans: where a kprobe can be put.

    Raises HostError when objdump cannot read the kernel.
    """
    points = []
    for span in spans:
        base = span.start - span.range.offset
        for one in disassemble(vmlinux, span.start, span.length):
            points.append((span.range.symbol, one.address - base))
    return tuple(points)
