"""How much code the functions are that a series touches, before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from rig.costs.counts import function_of
from rig.costs.metrics import CodeSize
from rig.touches import functions

#: The whole of the kernel's functions, in the place of a function's name.
ALL = "all functions"


def changes(subject: str, flavour: str, before: Path, after: Path, touched: Collection[str]) -> tuple[CodeSize, ...]:
    """Return the touched functions whose size differs between two vmlinux, and what all functions come to.

    A function that is inlined everywhere is part of the size of others. Raises HostError when binutils cannot read one.
    """
    old, new = _sizes(before), _sizes(after)
    # What a touched function is inlined into changes, too, and is not touched.
    names = sorted(name for name in old.keys() | new.keys() if old[name] != new[name])
    rows = [(name, old[name], new[name]) for name in names]
    rows.sort(key=lambda row: (row[0] not in touched, -abs(row[2] - row[1]), row[0]))
    rows = [(ALL, old.total(), new.total()), *rows]
    return tuple(CodeSize(subject=subject, flavour=flavour, function=name, before=a, after=b) for name, a, b in rows)


def _sizes(vmlinux: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for symbol in functions.read_symbols(vmlinux).all:
        found[function_of(symbol.name)] += symbol.size
    return found
