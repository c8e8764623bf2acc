"""The control block of the stall plugin (qemuplugin/stall.h): written by the rig, mapped by QEMU, read back at the end.

The numbers are in the byte order of the host: both sides run on it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MAGIC = 0x6C617473
VERSION = 1

#: (name, format) of the fields, in order; no padding anywhere, which a test compares with the C compiler's opinion.
HEAD: tuple[tuple[str, str], ...] = (
    ("magic", "I"),
    ("version", "I"),
    ("ranges", "I"),
    ("vcpus", "I"),
    ("loaded", "I"),
    ("episode", "I"),
    ("at_most", "I"),
    ("share", "I"),
    ("seed", "Q"),
    ("distance", "Q"),
    ("shortest", "Q"),
    ("longest", "Q"),
)
RANGE: tuple[tuple[str, str], ...] = (("start", "Q"), ("end", "Q"), ("weight", "I"), ("unused", "I"))
COUNT: tuple[tuple[str, str], ...] = (("executed", "Q"), ("stalls", "Q"), ("stalled", "Q"), ("withheld", "Q"))


def offsets(fields: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return where each field stands, in bytes from the start, and the size of all as `""`."""
    found, at = {}, 0
    for name, kind in fields:
        found[name] = at
        at += struct.calcsize(f"={kind}")
    return found | {"": at}


_HEAD, _RANGE, _COUNT = offsets(HEAD), offsets(RANGE), offsets(COUNT)
_COUNTS = struct.Struct("=" + "".join(kind for _, kind in COUNT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What holds for one episode."""

    distance: int  # weighted instructions between two stalls of a vCPU, on average
    shortest: float  # seconds
    longest: float  # seconds
    weights: tuple[int, ...]  # per range; 0: left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the plugin did in one range, over all vCPUs."""

    executed: int  # instructions, while switched on
    stalls: int
    stalled: float  # seconds, summed over the vCPUs
    withheld: int  # stalls that the share or the other sleepers forbade


def block(spans: Sequence[tuple[int, int]], *, vcpus: int, at_most: int, share: float, seed: int) -> bytes:
    """Return the bytes of a block that is switched off; `spans` are disjoint (start, end), in order."""
    values = {
        "magic": MAGIC,
        "version": VERSION,
        "ranges": len(spans),
        "vcpus": vcpus,
        "at_most": at_most,
        "share": round(share * 1_000_000),
        "seed": seed % 2**64,
    }
    head = struct.pack("=" + "".join(kind for _, kind in HEAD), *(values.get(name, 0) for name, _ in HEAD))
    ranges = b"".join(struct.pack("=QQII", start, end, 0, 0) for start, end in spans)
    return head + ranges + bytes(vcpus * len(spans) * _COUNT[""])


class Block:
    """A control block, mapped. Use as a context manager; leaving it switches off."""

    def __init__(self, path: Path) -> None:
        """Map the file at `path`, which block() made; raises OSError or ValueError when it is not one."""
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        if self._word("magic") != MAGIC or self._word("version") != VERSION:
            self._map.close()
            raise ValueError(f"{path}: no control block of version {VERSION}")
        self.ranges = self._word("ranges")
        self.vcpus = self._word("vcpus")
        self._episode = 0

    @property
    def loaded(self) -> bool:
        """Whether a plugin has taken the block."""
        return self._word("loaded") == VERSION

    def begin(self, setting: Setting) -> None:
        """Begin an episode with `setting`; the first one switches on."""
        self.adjust(setting)
        self._episode += 1
        struct.pack_into("=I", self._map, _HEAD["episode"], self._episode)  # last: the plugin looks at it first

    def adjust(self, setting: Setting) -> None:
        """Go on with `setting` in the same episode."""
        for number, weight in enumerate(setting.weights):
            struct.pack_into("=I", self._map, _HEAD[""] + number * _RANGE[""] + _RANGE["weight"], weight)
        nanoseconds = (round(setting.shortest * 1e9), round(setting.longest * 1e9))
        struct.pack_into("=QQQ", self._map, _HEAD["distance"], setting.distance, *nanoseconds)

    def stop(self) -> None:
        """Switch off. A vCPU that stands still goes on when its time is up."""
        struct.pack_into("=I", self._map, _HEAD["episode"], 0)

    def counts(self) -> tuple[Count, ...]:
        """Return what was done in each range up to now."""
        first = _HEAD[""] + self.ranges * _RANGE[""]
        sums = [[0] * len(COUNT) for _ in range(self.ranges)]
        for index in range(self.vcpus * self.ranges):
            values = _COUNTS.unpack_from(self._map, first + index * _COUNT[""])
            sums[index % self.ranges] = [a + b for a, b in zip(sums[index % self.ranges], values, strict=True)]
        return tuple(Count(executed=a, stalls=b, stalled=c / 1e9, withheld=d) for a, b, c, d in sums)

    def _word(self, name: str) -> int:
        return int(struct.unpack_from("=I", self._map, _HEAD[name])[0])

    def __enter__(self) -> Block:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._map.close()
