"""Where in a kernel's code fault-around visits a folio: the instruction that each folio it comes by passes once.

next_uptodate_folio() walks over the page cache with xas_next_entry(), which is inlined, so no symbol says how many
folios it saw. But whatever comes from there is first compared with XA_ZERO_ENTRY, in xas_retry() (v5.0 and later), a
constant that no other comparison of the function has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rig.touches import functions

#: Returns the next folio that may be mapped, and takes no notice of the others.
WALK = "next_uptodate_folio"
#: XA_ZERO_ENTRY, xa_mk_internal(257), of include/linux/xarray.h.
_ZERO_ENTRY = 257 << 2 | 2
_OPERANDS = re.compile(rf"^\${_ZERO_ENTRY:#x},%r")


def places(instructions: Iterable[functions.Instruction]) -> tuple[int, ...]:
    """Return the addresses of the instructions of WALK that each visited folio passes one of."""
    return tuple(
        one.address for one in instructions if one.mnemonic.startswith("cmp") and _OPERANDS.match(one.operands)
    )


def read(vmlinux: Path, spans: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Return the places in spans (start, end) of a kernel's code; raises HostError when binutils cannot read it."""
    return tuple(place for start, end in spans for place in places(functions.disassemble(vmlinux, start, end - start)))
