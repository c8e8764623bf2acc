"""What the kernel counts, in one look: /proc/vmstat, the huge pages of /proc/meminfo, and tracepoints.

Two looks at a guest, around the workload, serve the memory audit (audit.py) and race coverage (coverage.py) alike. A
look is a piece of shell for the guest and a parser for what it prints: names and whole numbers, a line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Sample = Mapping[str, int]

#: Tracepoints whose hits are counted, with the group they are in; where a kernel has none of a name, nothing is.
TRACEPOINTS = (("filemap", "mm_filemap_map_pages"), ("filemap", "mm_filemap_fault"))

_LINE = re.compile(r"(\w[\w()]*):?\s+(-?\d+)(?: kB)?$")
_HUGE = "grep -E '^(HugePages_|Hugepagesize|HardwareCorrupted)' /proc/meminfo || true"

#: What is in per-CPU batches is on no LRU list yet. drop_caches drains them all (lru_add_drain_all in fs/drop_caches.c)
#: before it drops anything, so a second time drains what the first one has put into them.
DRAIN = "echo 1 >/proc/sys/vm/drop_caches"
#: stat_refresh folds the counters of each CPU into those that are shown. /proc/vmstat shows a negative one as 0; the
#: kernel's log names it (mm/vmstat.c), and `negative_NAME` is what becomes of that here.
LOOK = (
    f"dmesg -c >/dev/null; cat /proc/sys/vm/stat_refresh /proc/vmstat; {_HUGE}; "
    "dmesg | sed -n 's/.*vmstat_refresh: \\([a-z_]*\\) -/negative_\\1 /p'"
)


def _instance(event: str) -> str:
    return f"/sys/kernel/tracing/instances/rig-{event}"


def _each(commands: Iterable[str]) -> str:
    return "; ".join(commands) or ":"


def start_counting(tracepoints: Iterable[tuple[str, str]] = TRACEPOINTS) -> str:
    """Return the shell that counts tracepoints from here on: each in an instance of its own, with the least buffer.

    Nobody reads the buffer: it is overwritten, and what was written and what was lost add up to the count.
    """
    return _each(
        f"mkdir {_instance(event)} && echo 4 >{_instance(event)}/buffer_size_kb"
        f" && echo 1 >{_instance(event)}/events/{group}/{event}/enable"
        for group, event in tracepoints
    )


def stop_counting(tracepoints: Iterable[tuple[str, str]] = TRACEPOINTS) -> str:
    """Return the shell that stops it and prints `trace_EVENT COUNT` for each tracepoint that could be counted."""
    return _each(
        f"[ ! -e {_instance(event)}/events/{group}/{event} ] || {{ echo 0 >{_instance(event)}/tracing_on; "
        f"cat {_instance(event)}/per_cpu/cpu*/stats | "
        f"awk '/^(entries|overrun):/ {{n += $2}} END {{print \"trace_{event}\", n + 0}}'; }}"
        for group, event in tracepoints
    )


def parse(text: str) -> Sample:
    """Return the counters in what a look printed, by their names as the kernel writes them; kB stay kB."""
    return {match[1]: int(match[2]) for line in text.splitlines() if (match := _LINE.match(line.strip()))}
