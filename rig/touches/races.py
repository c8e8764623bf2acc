"""The races that the rig knows: which kernel files are a party to them, who sees them, and what the kernel must have.

One table for three questions: which workloads concern a series (the files that it touches), which oracle would see the
damage, and whether the kernel and the machine that were chosen can have the race and see it at all (front/explain.py).
Lines of kernel code that are named here are those of v6.12.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Somebody who can see that a race was lost, and what that takes."""

    name: str
    where: str  # console, workload or audit
    about: str  # what it sees, in a few words
    kconfig: tuple[str, ...] = ()  # symbols it needs
    without: tuple[str, ...] = ()  # symbols that keep it from ever speaking
    cmdline: tuple[str, ...] = ()  # words of the kernel's command line it needs


ORACLES: tuple[Oracle, ...] = (
    # -- the workload itself, by what a program can see; no assertion has to stop the kernel for these
    Oracle(name="stamp", where="workload", about="whole stamp of a generation that was removed, or of another page"),
    Oracle(name="data", where="workload", about="written data lost, zeroes instead of data, private data changed"),
    Oracle(name="pagemap", where="workload", about="page present past the end of the file",
           kconfig=("PROC_PAGE_MONITOR",)),
    Oracle(name="sigbus", where="workload", about="access past the end of the file without SIGBUS"),
    Oracle(name="mceerr", where="workload", about="poisoned page that can be read, no SIGBUS",
           kconfig=("MEMORY_FAILURE",)),
    Oracle(name="hang", where="workload", about="a worker that does not come back from the kernel"),
    # -- the rig's own look before and after
    Oracle(name="lru-audit", where="audit", about="pages on an LRU list, neither cached nor mapped"),
    Oracle(name="mapped-audit", where="audit", about="mapped pages, shmem, page tables counted when nobody is left"),
    Oracle(name="hugetlb-audit", where="audit", about="HugePages_* not what they were", kconfig=("HUGETLBFS",)),
    Oracle(name="kmemleak", where="audit", about="kernel objects that nothing points to", kconfig=("DEBUG_KMEMLEAK",)),
    # -- the kernel's own words
    Oracle(name="unaccount-bug", where="console", kconfig=("DEBUG_VM",),
           about="kernel BUG in filemap_unaccount_folio: still mapped when deleted"),
    Oracle(name="bad-page-cache", where="console", without=("DEBUG_VM",),
           about="BUG: Bad page cache: still mapped when deleted"),
    Oracle(name="invalidate-bug", where="console",
           about="kernel BUG or WARNING in invalidate_inode_pages2_range, Page cache invalidation failure"),
    Oracle(name="swapout-bug", where="console", about="kernel BUG in shmem_writepage: mapped when swapped out",
           kconfig=("SWAP", "SHMEM")),
    Oracle(name="bad-page-state", where="console", kconfig=("DEBUG_VM",),
           about="BUG: Bad page state: mapped, referenced or flagged when freed"),
    Oracle(name="vm-bug", where="console", kconfig=("DEBUG_VM",),
           about="VM_BUG_ON of rmap.c, huge_memory.c, khugepaged.c, migrate.c, hugetlb.c"),
    Oracle(name="page-table-check", where="console", kconfig=("PAGE_TABLE_CHECK", "PAGE_TABLE_CHECK_ENFORCED"),
           about="kernel BUG in page_table_check: mapped twice, freed while mapped"),
    Oracle(name="bad-rss", where="console", about="BUG: Bad rss-counter state, non-zero pgtables_bytes, at exit"),
    Oracle(name="bad-page-map", where="console", about="BUG: Bad page map: PTE of a page that has no mapping"),
    Oracle(name="page-poison", where="console", about="freed page was written to; 0xaa read through a stale mapping",
           kconfig=("PAGE_POISONING",), cmdline=("page_poison=1",)),
    Oracle(name="kasan", where="console", about="use after free of the kernel's own objects", kconfig=("KASAN",)),
    Oracle(name="lockdep", where="console", about="lock order, before it deadlocks", kconfig=("PROVE_LOCKING",)),
    Oracle(name="kcsan", where="console", about="plain accesses that race", kconfig=("KCSAN",)),
    Oracle(name="hung-task", where="console", about="task blocked for minutes", kconfig=("DETECT_HUNG_TASK",)),
    Oracle(name="soft-lockup", where="console", about="CPU that does not schedule", kconfig=("SOFTLOCKUP_DETECTOR",)),
)  # fmt: skip
#: Those who watch every race alike; having only them does not make a race visible.
GENERAL = ("kasan", "kcsan", "lockdep", "kmemleak", "hung-task", "soft-lockup", "hang")


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What two parties in the kernel may lose against each other."""

    name: str
    about: str  # one line
    paths: tuple[str, ...]  # globs over files of the kernel tree whose patches concern it
    functions: tuple[str, ...]  # globs over the functions that are a party to it, whatever their file
    cases: tuple[str, ...]  # globs over the names of the workloads' cases that drive it
    oracles: tuple[str, ...]  # who sees its damage, beside GENERAL
    kconfig: tuple[str, ...] = ()  # symbols without which it cannot happen
    cpus: int = 2  # that the machine must have
    nodes: int = 1  # NUMA nodes without which only a part of it can happen


#: Files of fault-around and of the removal of pages concern all that removes pages from under it.
_CACHE = ("mm/filemap.c", "mm/truncate.c", "mm/memory.c", "mm/rmap.c", "mm/internal.h", "include/linux/mm.h")
_AROUND = ("filemap_map_*", "next_uptodate_folio", "set_pte_range", "do_fault_around", "do_read_fault")
_UNMAP = ("unmap_mapping_*", "zap_pte_range", "filemap_unaccount_folio", "truncate_inode_pages*", "truncate_cleanup_*",
          "folio_maybe_mapped")  # fmt: skip
#: A page that stays mapped after it was removed: one of the two speaks on every kernel, and accounting comes out wrong.
_MAPPED = (
    "unaccount-bug",
    "bad-page-cache",
    "bad-page-state",
    "page-table-check",
    "mapped-audit",
    "lru-audit",
    "page-poison",
)

RACES: tuple[Race, ...] = (
    Race(name="truncate", about="fault-around against truncate and extension", paths=(*_CACHE, "fs/*", "mm/shmem.c"),
         functions=(*_AROUND, *_UNMAP, "*truncate_pagecache*", "truncate_setsize", "shmem_undo_range"),
         cases=("truncate-*", "extend-*", "*-truncate", "past-eof"),
         oracles=("stamp", "pagemap", "sigbus", *_MAPPED)),
    Race(name="hole-punch", about="fault-around against hole punching", paths=(*_CACHE, "fs/*", "mm/shmem.c"),
         functions=(*_AROUND, *_UNMAP, "*punch*", "*fallocate*", "shmem_undo_range"),
         cases=("punch*", "*-punch", "zero-*", "collapse-private", "insert-*"),
         oracles=("stamp", "data", *_MAPPED)),
    Race(name="invalidate", about="fault-around against direct writes and fadvise", paths=(*_CACHE, "fs/*"),
         functions=(*_AROUND, "filemap_unaccount_folio", "folio_maybe_mapped", "*invalidate_*", "mapping_evict_folio"),
         cases=("direct-*", "*-direct", "rewrite"),
         oracles=("stamp", "invalidate-bug", *_MAPPED)),
    Race(name="cow", about="private copies against truncate", paths=("mm/memory.c", "mm/filemap.c", "mm/truncate.c"),
         functions=("do_cow_fault", "finish_fault", "*wp_page*", "set_pte_range"),
         cases=("*cow*", "private-copies"),
         oracles=("pagemap", "stamp", "data", "bad-rss", "page-table-check")),
    Race(name="fault", about="faults of all kinds against each other", paths=(*_CACHE, "mm/huge_memory.c"),
         functions=(*_AROUND, "do_*_fault", "finish_fault", "do_anonymous_page", "filemap_fault"),
         cases=("large-*",),
         oracles=("data", "stamp", "bad-rss", "bad-page-map", "vm-bug", *_MAPPED)),
    Race(name="reclaim", about="reclaim and swap against faults and truncation",
         paths=("mm/vmscan.c", "mm/rmap.c", "mm/shmem.c", "mm/swap*", "mm/page_io.c", "mm/madvise.c", "mm/truncate.c"),
         functions=("shrink_*", "try_to_unmap*", "*pageout*", "shmem_*swap*", "shmem_writepage", "shmem_undo_range",
                    "*lazyfree*", "shmem_*partial*"),
         cases=("punch", "truncate", "lazyfree", "anon", "eof-tail"),
         oracles=("stamp", "data", "swapout-bug", "bad-page-state", "vm-bug", "lru-audit"),
         kconfig=("SWAP", "ZRAM", "SHMEM")),
    Race(name="migration", about="migration and compaction against faults",
         paths=("mm/migrate*", "mm/compaction.c", "mm/rmap.c", "mm/mempolicy.c"),
         functions=("*migrat*", "folio_expected_ref*", "compact_*", "isolate_*"),
         cases=("coherent-*", "read-*", "write-*", "dirty-*"),
         oracles=("data", "stamp", "vm-bug", "bad-page-map", "bad-page-state", "lru-audit"),
         kconfig=("MIGRATION", "COMPACTION", "NUMA"), nodes=2),
    Race(name="collapse", about="khugepaged against faults and pins", paths=("mm/khugepaged.c", "mm/huge_memory.c"),
         functions=("*collapse_*", "khugepaged*", "retract_page_tables"),
         cases=("collapse-*",),
         oracles=("data", "stamp", "vm-bug", "bad-rss", "bad-page-state", "mapped-audit", "lru-audit"),
         kconfig=("TRANSPARENT_HUGEPAGE",)),
    Race(name="split", about="splits of huge pages against faults",
         paths=("mm/huge_memory.c", "mm/truncate.c", "mm/shmem.c", "mm/rmap.c", "mm/memory.c"),
         functions=("*split_*", "truncate_inode_partial_folio", "zap_huge_*", "unmap_mapping_folio", "zap_pmd_range"),
         cases=("split-*", "pinned-*", "zap-*"),
         oracles=("stamp", "data", "vm-bug", "bad-rss", *_MAPPED),
         kconfig=("TRANSPARENT_HUGEPAGE", "SHMEM", "DEBUG_FS")),
    Race(name="hugetlb", about="hugetlb faults against truncation and punching",
         paths=("mm/hugetlb*", "fs/hugetlbfs/*"),
         functions=("*huge*_range*", "*hugetlb*", "remove_inode_hugepages"),
         cases=("*",),
         oracles=("hugetlb-audit", "stamp", "sigbus", "vm-bug"), kconfig=("HUGETLBFS",)),
    Race(name="mremap", about="moving, unmapping and forking against other CPUs' accesses",
         paths=("mm/mremap.c", "mm/mmap.c", "mm/memory.c", "mm/mmu_gather.c", "kernel/fork.c"),
         functions=("move_*", "mremap*", "zap_pte_range", "tlb_*", "copy_*_range", "unmap_page_range"),
         cases=("move-*", "zap-store"),
         oracles=("data", "stamp", "bad-rss", "bad-page-map", "page-table-check", "page-poison")),
    Race(name="writeback", about="writeback against shared writes and appends",
         paths=("mm/page-writeback.c", "fs/*", "mm/memory.c", "mm/filemap.c", "mm/rmap.c"),
         functions=("*writepage*", "*write_iter*", "*page_mkwrite*", "iomap_write*", "*mkclean*"),
         cases=("append-*", "shared-*", "mixed-*"),
         oracles=("data", "stamp", "mapped-audit")),
    Race(name="memory-failure", about="poisoned pages against faults", paths=("mm/memory-failure.c", "mm/filemap.c"),
         functions=("*memory_failure*", "*hwpoison*", "soft_offline*", "me_*"),
         cases=("*poison*", "file-*", "soft-*"),
         oracles=("mceerr", "data", "bad-page-state"), kconfig=("MEMORY_FAILURE",)),
)  # fmt: skip
NAMES = tuple(race.name for race in RACES)


def oracle(name: str) -> Oracle:
    """Return the oracle of that name; raises KeyError when there is none."""
    return {one.name: one for one in ORACLES}[name]


def race(name: str) -> Race:
    """Return the race of that name; raises KeyError when there is none."""
    return {one.name: one for one in RACES}[name]


#: How much a race concerns a patch that touches a file of it, and none of its functions.
BY_FILE = 0.5


def concerning(paths: Iterable[str], functions: Iterable[str] = ()) -> dict[str, float]:
    """Return for each race how much it concerns a patch to these files and functions, 0 to 1.

    1 when a function of the race is touched; else BY_FILE times the share of the files that are the race's.
    """
    touched, named = tuple(paths), tuple(functions)
    return {
        race.name: 1.0
        if any(fnmatchcase(name, glob) for name in named for glob in race.functions)
        else BY_FILE
        * sum(any(fnmatchcase(path, glob) for glob in race.paths) for path in touched)
        / max(1, len(touched))
        for race in RACES
    }


def favoured(driven: Iterable[str], functions: Iterable[str]) -> tuple[str, ...]:
    """Return globs over the cases of a workload that drives these races which are about the touched functions."""
    concern = concerning((), functions)
    return tuple(dict.fromkeys(glob for name in driven if concern[name] == 1.0 for glob in race(name).cases))
