"""The races that the rig knows: which kernel files are a party to them, who sees them, and what the kernel must have.

One table for three questions: which workloads concern a series (the files that it touches), which oracle would see the
damage, and whether the kernel that was chosen can see it at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What two parties in the kernel may lose against each other."""

    name: str
    about: str  # one line
    paths: tuple[str, ...]  # globs over files of the kernel tree whose patches concern it


#: Files of fault-around and of the removal of pages concern all that removes pages from under it.
_CACHE = ("mm/filemap.c", "mm/truncate.c", "mm/memory.c", "mm/rmap.c", "mm/internal.h", "include/linux/mm.h")

RACES: tuple[Race, ...] = (
    Race(name="truncate", about="fault-around against truncate and extension", paths=(*_CACHE, "fs/*", "mm/shmem.c")),
    Race(name="hole-punch", about="fault-around against hole punching", paths=(*_CACHE, "fs/*", "mm/shmem.c")),
    Race(name="invalidate", about="fault-around against direct writes and fadvise", paths=(*_CACHE, "fs/*")),
    Race(name="cow", about="private copies against truncate", paths=("mm/memory.c", "mm/filemap.c", "mm/truncate.c")),
    Race(name="fault", about="faults of all kinds against each other", paths=(*_CACHE, "mm/huge_memory.c")),
    Race(name="reclaim", about="reclaim and swap against faults and truncation",
         paths=("mm/vmscan.c", "mm/rmap.c", "mm/shmem.c", "mm/swap*", "mm/page_io.c", "mm/madvise.c", "mm/truncate.c")),
    Race(name="migration", about="migration and compaction against faults",
         paths=("mm/migrate*", "mm/compaction.c", "mm/rmap.c", "mm/mempolicy.c")),
    Race(name="collapse", about="khugepaged against faults and pins", paths=("mm/khugepaged.c", "mm/huge_memory.c")),
    Race(name="split", about="splits of huge pages against faults",
         paths=("mm/huge_memory.c", "mm/truncate.c", "mm/shmem.c", "mm/rmap.c", "mm/memory.c")),
    Race(name="hugetlb", about="hugetlb faults against truncation and punching",
         paths=("mm/hugetlb*", "fs/hugetlbfs/*")),
    Race(name="mremap", about="moving, unmapping and forking against other CPUs' accesses",
         paths=("mm/mremap.c", "mm/mmap.c", "mm/memory.c", "mm/mmu_gather.c", "kernel/fork.c")),
    Race(name="writeback", about="writeback against shared writes and appends",
         paths=("mm/page-writeback.c", "fs/*", "mm/memory.c", "mm/filemap.c", "mm/rmap.c")),
    Race(name="memory-failure", about="poisoned pages against faults", paths=("mm/memory-failure.c", "mm/filemap.c")),
)  # fmt: skip
NAMES = tuple(race.name for race in RACES)


def concerning(paths: Iterable[str]) -> dict[str, float]:
    """Return for each race the share of `paths` that concern it, 0 to 1; all 0 when there are no paths."""
    touched = tuple(paths)
    return {
        race.name: sum(any(fnmatchcase(path, glob) for glob in race.paths) for path in touched) / max(1, len(touched))
        for race in RACES
    }
