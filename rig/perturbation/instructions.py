"""Chooses the instructions at which a kprobe stalls a CPU: a random sample of those of some functions.

From a disassembly alone, as a kprobe is refused in the middle of an instruction. A place is named by its symbol, and by
the first symbol of the kernel's code where several functions have the same name, of which a kprobe would take any.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rig import proc

#: The symbol that names what cannot be named by its own.
ANCHOR = "_stext"
SECONDS = 120.0

_HEADING = re.compile(r"^([0-9a-f]+) <([^>+]+)(?:\+0x([0-9a-f]+))?>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S[^\n]*)$")
_SYMBOL = re.compile(r"^([0-9a-f]+) (?:[0-9a-f]+ )?([tTwW]) (\S+)$")
#: Nothing happens at these: they fill gaps, or are patched at run time, where the kernel refuses a kprobe.
_FILLING = re.compile(r"^(?:(?:cs|ds|data16|rex\S*)\s+)*(?:nop\w*|int3|xchg\s+%ax,%ax)\b")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """One instruction, as a kprobe takes it."""

    symbol: str
    offset: int  # bytes from the symbol

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the names of a kernel's code stand for."""

    addresses: dict[str, int]  # of the names that stand for one address each
    ambiguous: frozenset[str] = frozenset()


def parse_names(listing: str) -> Names:
    """Return the names that `nm` lists as code."""
    found = [(match[3], int(match[1], 16)) for line in listing.splitlines() if (match := _SYMBOL.match(line))]
    times = Counter(name for name, _ in set(found))
    return Names(
        addresses={name: address for name, address in found if times[name] == 1},
        ambiguous=frozenset(name for name, count in times.items() if count > 1),
    )


def places(disassembly: str, names: Names) -> tuple[Place, ...]:
    """Return the instructions of an `objdump -d --no-show-raw-insn` that are worth a probe, in order.

    Those of a symbol that is not the only one of its name are given relative to ANCHOR; they are left out when the
    kernel has none.
    """
    return tuple(_places(disassembly, names))


def _places(disassembly: str, names: Names) -> Iterator[Place]:
    symbol, base = "", 0
    for line in disassembly.splitlines():
        if heading := _HEADING.match(line):
            symbol, base = heading[2], int(heading[1], 16) - int(heading[3] or "0", 16)
            if symbol in names.ambiguous:
                base = names.addresses.get(ANCHOR, 0)
                symbol = ANCHOR if base else ""
        elif symbol and (match := _INSTRUCTION.match(line)) and not _FILLING.match(match[2]):
            yield Place(symbol=symbol, offset=int(match[1], 16) - base)


def sample(groups: Iterable[Sequence[Place]], count: int, seed: int) -> tuple[Place, ...]:
    """Return at most `count` places, the same for the same arguments, sorted.

    Each group (what belongs to one function, say) has one if there are enough, so that a small one is not left out;
    the rest are drawn from all alike, as nobody knows where a window is.
    """
    draw = random.Random(f"kprobes {seed}")  # noqa: S311  # to be repeated, not to be secret
    filled = [tuple(dict.fromkeys(group)) for group in groups if group]
    chosen = {draw.choice(group) for group in draw.sample(filled, min(count, len(filled)))}
    rest = sorted(set(chain.from_iterable(filled)) - chosen)
    return tuple(sorted(chosen.union(draw.sample(rest, min(count - len(chosen), len(rest))))))


def read_names(vmlinux: Path) -> Names:
    """Return the names of a kernel's code; raises HostError when binutils cannot read it."""
    return parse_names(proc.check(["nm", "--defined-only", vmlinux], timeout=SECONDS))


def read_places(vmlinux: Path, spans: Iterable[tuple[int, int]], names: Names) -> tuple[tuple[Place, ...], ...]:
    """Return the places of each span (address, length in bytes) of a kernel; raises HostError when objdump fails."""
    words = ["objdump", "-d", "--no-show-raw-insn"]
    return tuple(
        places(
            proc.check(
                [*words, f"--start-address={start:#x}", f"--stop-address={start + length:#x}", vmlinux],
                timeout=SECONDS,
            ),
            names,
        )
        for start, length in spans
    )


def spans_of(functions: Collection[str], listing: str) -> tuple[tuple[int, int], ...]:
    """Return (address, length in bytes) of functions, their clones and cold parts, from what `nm -S` lists."""
    found = set()
    for line in listing.splitlines():
        words = line.split()
        if len(words) == 4 and words[2] in "tTwW" and words[3].split(".")[0] in functions:
            found.add((int(words[0], 16), int(words[1], 16)))
    return tuple(sorted(found))
