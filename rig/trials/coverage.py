"""How near a trial came to its race, by the kernel's own count: what its counters gained while the workload ran.

A workload counts for itself how often two parties met. Whether the kernel did what the race is about (a page was
migrated, a huge page split, swap was written to) only the kernel knows. A trial in which it did less than the workload
needs has not exercised its race, and is INCONCLUSIVE, not a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from rig.trials.sample import Sample

#: The events of /proc/vmstat (v6.12) that a race is made of; the rest counts what is there, or what nobody races with.
KEPT = (
    "pgfault",
    "pgmajfault",
    "pgreuse",
    "pglazyfree*",
    "thp_*",
    "pgmigrate_*",
    "compact_*",
    "pswp*",
    "swp*_zero",
    "swap_ra*",
    "pgsteal_*",
    "pgscan_*",
    "drop_*",
    "htlb_*",
    "workingset_refault_*",
    "workingset_activate_*",
    "numa_pages_migrated",
    "numa_hint_faults",
    "oom_kill",
    "nr_dirtied",
    "nr_written",
    "nr_foll_pin_acquired",
    "unevictable_pgs_mlocked",
    "trace_*",
)
#: What a run's summary and JUnit tell of it, where it is not zero.
TOLD = (
    "pgfault",
    "trace_mm_filemap_map_pages",
    "pgmigrate_success",
    "pswpin",
    "thp_collapse_alloc",
    "thp_split_page",
)

Coverage = tuple[tuple[str, int], ...]


def gained(before: Sample, after: Sample) -> Coverage:
    """Return what each counter of KEPT gained, sorted by name, zeros included: a zero is what the reader looks for.

    A tracepoint is counted from 0 and is not in `before`. Nothing at all when one of the looks saw no counters.
    """
    if "pgfault" not in before or "pgfault" not in after:
        return ()
    names = sorted(name for name in after if any(fnmatchcase(name, glob) for glob in KEPT))
    return tuple((name, max(0, after[name] - before.get(name, 0))) for name in names)


def missing(coverage: Coverage | None, needs: Mapping[str, int]) -> str:
    """Return what of `needs` was not reached, in words for a reason; empty when all was.

    None or nothing as `coverage` means that the kernel's counters could not be read, which meets no need.
    """
    if not needs:
        return ""
    if not coverage:
        return "the kernel's counters could not be read"
    had = dict(coverage)
    for name, least in needs.items():
        if name not in had:
            return f"this kernel has no counter {name}"
        if had[name] < least:
            return f"kernel counter {name}={had[name]} below {least}"
    return ""


def least(coverages: Iterable[Coverage]) -> Coverage:
    """Return what is told of several trials: of each counter of TOLD the smallest count, zeros left out."""
    known = [dict(coverage) for coverage in coverages if coverage]
    told = ((name, min(one.get(name, 0) for one in known)) for name in TOLD) if known else ()
    return tuple((name, count) for name, count in told if count)
