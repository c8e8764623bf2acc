"""The control block of the counting plugin (qemuplugin/counts.h): written by the rig, mapped by QEMU, read at the end.

The numbers are in the byte order of the host: both sides run on it. What the counters mean, and for which code, is the
business of counts.py.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from rig.perturbation.stallctl import offsets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = 0x746E6F63
VERSION = 1

#: (name, format) of the fields, in order; no padding anywhere, which a test compares with the C compiler's opinion.
HEAD: tuple[tuple[str, str], ...] = (
    ("magic", "I"),
    ("version", "I"),
    ("spans", "I"),
    ("vcpus", "I"),
    ("phases", "I"),
    ("most_sites", "I"),
    ("loaded", "I"),
    ("begun", "I"),
    ("sites", "I"),
    ("on", "I"),
)
SPAN: tuple[tuple[str, str], ...] = (("start", "Q"), ("end", "Q"), ("role", "I"), ("unused", "I"))
#: Of a span and of a site: each for faults, then for the rest.
IN_SPAN: tuple[tuple[str, str], ...] = (("instructions", "2Q"), ("locked", "2Q"), ("entered", "2Q"))
AT_SITE: tuple[tuple[str, str], ...] = (("executed", "2Q"),)


class Role(IntEnum):
    """What a span of code is to the plugin, beside something to be counted."""

    PLAIN = 0
    FAULT = 1  # the entry of a page fault
    INTERRUPT = 2  # the entry of an interrupt
    SWITCH = 3  # goes from the stack of one task to that of another


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one span did in one phase, over all vCPUs: in page faults of user space, and elsewhere in system calls."""

    instructions: tuple[int, int]
    locked: tuple[int, int]  # read-modify-writes
    entered: tuple[int, int]  # at its first instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A locked read-modify-write that was executed in a phase."""

    address: int
    executed: tuple[int, int]  # in page faults, and elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What was counted between two marks; what is zero is left out."""

    spans: tuple[tuple[int, Counted], ...]  # by the position of the span
    sites: tuple[Site, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A block when the machine has ended."""

    loaded: bool  # whether a plugin has taken the block
    begun: int  # phases, those without room included
    phases: tuple[Phase, ...]
    lost_sites: int  # for which there was no room; their executions are in their spans all the same


_HEAD, _SPAN = offsets(HEAD), offsets(SPAN)


def block(spans: Sequence[tuple[int, int, Role]], *, vcpus: int, phases: int, sites: int) -> bytes:
    """Return the bytes that a block begins with; `spans` are disjoint (start, end, role), in order.

    The counters that follow are zero, and as many as `size` says.
    """
    values = {
        "magic": MAGIC,
        "version": VERSION,
        "spans": len(spans),
        "vcpus": vcpus,
        "phases": phases,
        "most_sites": sites,
    }
    head = struct.pack("=" + "".join(kind for _, kind in HEAD), *(values.get(name, 0) for name, _ in HEAD))
    return head + b"".join(struct.pack("=QQII", start, end, role, 0) for start, end, role in spans) + bytes(8 * sites)


def size(*, spans: int, vcpus: int, phases: int, sites: int) -> int:
    """Return the bytes of a whole block."""
    per_vcpu = 8 * (6 * spans + 2 * sites)
    return _HEAD[""] + spans * _SPAN[""] + 8 * sites + phases * vcpus * per_vcpu


def write(path: Path, spans: Sequence[tuple[int, int, Role]], *, vcpus: int, phases: int, sites: int) -> None:
    """Write a block to a new sparse file: counters that are never used take no room on the disk."""
    with path.open("xb") as file:
        file.write(block(spans, vcpus=vcpus, phases=phases, sites=sites))
        file.truncate(size(spans=len(spans), vcpus=vcpus, phases=phases, sites=sites))


def read(path: Path) -> Reading:
    """Return what is in the block at `path`; raises OSError, or ValueError when it is no block or cut off."""
    import numpy as np  # here, as it takes long to load, and most of the rig does without

    with path.open("rb") as file:
        data = file.read(_HEAD[""])
    if len(data) < _HEAD[""]:
        raise ValueError(f"{path}: too short for a control block")
    head = dict(zip((name for name, _ in HEAD), struct.unpack_from(f"={len(HEAD)}I", data), strict=True))
    spans, vcpus, sites = head["spans"], head["vcpus"], head["most_sites"]
    if head["magic"] != MAGIC or head["version"] != VERSION:
        raise ValueError(f"{path}: no control block of version {VERSION}")
    if path.stat().st_size != size(spans=spans, vcpus=vcpus, phases=head["phases"], sites=sites):
        raise ValueError(f"{path}: a control block that is cut off")
    words = np.memmap(path, dtype=np.uint64, mode="r")
    first_site = (_HEAD[""] + spans * _SPAN[""]) // 8
    addresses = words[first_site : first_site + sites]
    phases = words[first_site + sites :].reshape(head["phases"], vcpus, 6 * spans + 2 * sites)
    return Reading(
        loaded=head["loaded"] == VERSION,
        begun=head["begun"],
        phases=tuple(
            _phase(phases[number].sum(axis=0), addresses, spans) for number in range(min(head["begun"], head["phases"]))
        ),
        lost_sites=max(0, head["sites"] - sites),
    )


def _phase(counters: NDArray[np.uint64], addresses: NDArray[np.uint64], spans: int) -> Phase:
    """Return what the counters of one phase say, those of all vCPUs added up."""
    import numpy as np

    in_spans = counters[: 6 * spans].reshape(spans, 6)
    at_sites = counters[6 * spans :].reshape(len(addresses), 2)
    return Phase(
        spans=tuple(
            (int(position), Counted(instructions=(a, b), locked=(c, d), entered=(e, f)))
            for position in np.flatnonzero(in_spans.any(axis=1))
            for a, b, c, d, e, f in [in_spans[position].tolist()]
        ),
        sites=tuple(
            Site(address=int(addresses[position]), executed=(a, b))
            for position in np.flatnonzero(at_sites.any(axis=1))
            for a, b in [at_sites[position].tolist()]
        ),
    )
