"""The memory audit: does the kernel have after the workload what it had before?

MemFree is too noisy for that; the following identity is exact but for pages under way. Every page on an LRU list is in
the page cache (that of shmem and of swap included) and counted by nr_file_pages, or is an anonymous page that somebody
maps, and counted by nr_anon_pages (v6.12: filemap_add_folio, shmem_add_to_page_cache, __folio_add_anon_rmap). A page
that was removed from the page cache, or unmapped for the last time, leaves its LRU list when its last reference is
dropped (__folio_put). So what is left of

    LRU lists + isolated pages - nr_file_pages - nr_anon_pages

are pages that nobody can reach and somebody holds. It is never above zero on a healthy machine, and mostly just below:
a page is counted before it is on its LRU list, on the way to which each CPU keeps up to 31 folios (PAGEVEC_SIZE), and
mapped pages in the swap cache count twice. Both hide leaks and neither makes one.

The gauges beside it must come back to where they were, as everything that the workload had is gone: its processes have
ended, its file system is unmounted and caches are dropped. Of huge pages as many must be in use and reserved as before.

Measured with v6.12 under TCG, debug kernels, 4 and 8 CPUs, 18 trials of truncate-race and fault-stress on tmpfs, ext4
and xfs, and 9 of workloads that swap, migrate, split, poison and write back: what is left was -16 to -12 pages before
and after, and no gauge had gained more than 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rig.model import Finding
from rig.trials.sample import DRAIN, LOOK, Sample
from rig.trials.signature import plain_function, signature, title

#: Pages that are taken for a leak at least: the counters are not read all at the same instant.
LEAST = 16
#: Pages that the daemons of the guest may gain or lose between two looks.
SLACK = 64
PAGE_KB = 4
#: Looks at a guest that seems to leak, with pauses between them, until it is accused: exits and RCU callbacks finish.
LOOKS = 5
PAUSE = 0.5  # seconds

#: All of /proc/vmstat that is on an LRU list or was taken from one for a moment.
LRU = ("nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
       "nr_isolated_anon", "nr_isolated_file")  # fmt: skip
REACHED = ("nr_file_pages", "nr_anon_pages")

KMEMLEAK = "/sys/kernel/debug/kmemleak"
#: How the look after the workload begins. Files that a workload has left in hugetlbfs are not the kernel's.
CLEAR = (
    "umount /mnt/test; rm -rf /dev/hugepages/* 2>/dev/null; "
    f"echo 3 >/proc/sys/vm/drop_caches; {DRAIN}; [ ! -e {KMEMLEAK} ] || echo kmemleak; cat /proc/sys/kernel/tainted"
)
AGAIN = f"sleep {PAUSE}; {DRAIN}; {LOOK}"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A counter that must come back."""

    names: tuple[str, ...]  # of /proc/vmstat, summed
    heading: str  # the title of the finding
    slack: int = SLACK


#: What must not be larger after the workload than before it, by more than the bound.
GAUGES: tuple[Gauge, ...] = (
    # daemons may come to map more of their programs than they did: sixteen windows of fault-around
    Gauge(("nr_mapped",), "leaked mappings: file pages counted as mapped and nobody maps them", slack=256),
    Gauge(("nr_shmem",), "leaked shmem: pages counted and their file system is gone"),
    Gauge(("nr_page_table_pages",), "leaked page tables"),
    Gauge(("nr_isolated_anon", "nr_isolated_file"), "leaked isolation: pages taken from LRU lists and not put back"),
    Gauge(("nr_dirty",), "leaked dirty pages: counted and nothing is left to write"),
    Gauge(("nr_writeback",), "leaked writeback: pages counted and nothing is left to write"),
    Gauge(("nr_mlock",), "leaked mlock: pages counted as locked and nobody locks them"),
    Gauge(("nr_shmem_hugepages", "nr_file_hugepages", "nr_shmem_pmdmapped", "nr_file_pmdmapped"),
          "leaked huge pages: counted in a file and the file is gone", slack=1),
)  # fmt: skip

#: The pool of huge pages: what is in use and reserved is exact, but for what memory failure has taken out of it.
#: Its size is whatever the workload could get when it put it back.
POOL = ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp")


def residue(sample: Sample) -> int:
    """Return the pages on LRU lists that are neither cached nor mapped; zero or less on a healthy machine."""
    return sum(sample.get(name, 0) for name in LRU) - sum(sample.get(name, 0) for name in REACHED)


def judge(before: Sample, after: Sample, *, unmounted: bool = True) -> tuple[Finding, ...]:
    """Return what is missing or left over `after` the workload.

    `unmounted`: the file system under test could be unmounted; if not, what is in it is not counted as left over. A
    sample that lacks what is to be compared accuses nobody.
    """
    found = []
    if all(name in sample for name in (*LRU, *REACHED) for sample in (before, after)):
        # A poisoned page may stay where it was, with a reference for ever.
        gained = residue(after) - max(0, residue(before)) - _poisoned(before, after)
        if gained > LEAST:
            found.append(
                _leak(
                    "leaked pages: on an LRU list, neither cached nor mapped",
                    [
                        f"{gained} pages that were not there before the workload",
                        *(f"{name}: {before[name]} before, {after[name]} after" for name in (*LRU, *REACHED)),
                    ],
                )
            )
    if unmounted:
        found += [leak for gauge in GAUGES if (leak := _judge_gauge(gauge, before, after))]
    return (*found, *_judge_signs(before, after), *_judge_pool(before, after))


def _judge_gauge(gauge: Gauge, before: Sample, after: Sample) -> Finding | None:
    names = [name for name in gauge.names if name in before and name in after]
    gained = sum(after[name] - before[name] for name in names)
    if gained <= gauge.slack:
        return None
    return _leak(gauge.heading, [f"{name}: {before[name]} before, {after[name]} after" for name in names])


def _judge_signs(before: Sample, after: Sample) -> Iterable[Finding]:
    """A counter may be negative for a moment, between two CPUs; one that stays so was lowered too often."""
    for name in after:
        if name.startswith("negative_") and name not in before:
            yield _leak(f"vmstat counter {name.removeprefix('negative_')} is negative", [f"it is -{after[name]}"])


def _judge_pool(before: Sample, after: Sample) -> Iterable[Finding]:
    if _poisoned(before, after):  # memory failure dissolves huge pages, and the pool is smaller for good reason
        return
    if not all(name in sample for name in POOL for sample in (before, after)):
        return
    text = [f"{name}: {before[name]} before, {after[name]} after" for name in POOL]
    used = [sample["HugePages_Total"] - sample["HugePages_Free"] for sample in (before, after)]
    if used[0] != used[1]:
        yield _leak("leak: HugePages_Free is not HugePages_Total less what was in use before the workload", text)
    for name in ("HugePages_Rsvd", "HugePages_Surp"):
        if after[name] != before[name]:
            yield _leak(f"leak: {name} is not what it was before the workload", text)


def _poisoned(before: Sample, after: Sample) -> int:
    """Pages that memory failure has taken out of use meanwhile; each keeps a reference for ever."""
    return max(0, after.get("HardwareCorrupted", 0) - before.get("HardwareCorrupted", 0)) // PAGE_KB


def _leak(heading: str, lines: Iterable[str]) -> Finding:
    return Finding(
        oracle="audit",
        kind="leak",
        title=title(heading),
        signature=signature("leak", heading),
        text="\n".join([heading, *lines]),
    )


# -- kmemleak and page_owner, where the kernel has them ---------------------------------------------------------------

_OWNERS = "/sys/kernel/debug/page_owner_stacks"
SCAN_SECONDS = 120.0  # for two scans of all memory under TCG
OWNERS_CAP = 6000  # characters of stacks that go into a finding

#: An object is only reported when two scans found it unreferenced and unchanged (update_checksum in mm/kmemleak.c).
SCAN = f"[ ! -e {KMEMLEAK} ] || {{ echo scan >{KMEMLEAK}; echo scan >{KMEMLEAK}; head -c 65536 {KMEMLEAK}; }}"

_OBJECT = re.compile(r"unreferenced object \S+ \(size \d+\):")
_FRAME = re.compile(r"\s*\[<[0-9a-f]+>\] (\w[\w.]*)(?:\+|$)|\s*(\w[\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
#: Allocators are in every backtrace; whoever called them has lost the memory.
_ALLOCATORS = re.compile(
    r"kmemleak_\w+|k[mzv]\w*alloc\w*|kcalloc\w*|__kmalloc\w*|kmem_cache_\w+|__?do_kmalloc\w*|kmalloc\w*|kstrdup\w*|kmemdup\w*"
    r"|v[mz]alloc\w*|__vmalloc\w*|krealloc\w*|slab_\w+|\w*alloc_pages\w*|pcpu_alloc\w*|__alloc_percpu\w*"
)


def owners(pages: int) -> str:
    """Return the shell that prints the stacks that hold at least an eighth of `pages` pages, with page_owner=on."""
    least = max(1, pages // 8)
    return (
        f"[ ! -e {_OWNERS}/show_stacks ] || {{ echo {least} >{_OWNERS}/count_threshold; "
        f"head -c {OWNERS_CAP} {_OWNERS}/show_stacks; }}"
    )


def lost_objects(text: str) -> tuple[Finding, ...]:
    """Return what kmemleak has found, one finding for each place of allocation."""
    found: dict[str, Finding] = {}
    for block in re.split(r"(?=unreferenced object )", text):
        if not _OBJECT.match(block):
            continue
        frames = [match[1] or match[2] for line in block.splitlines() if (match := _FRAME.match(line))]
        function = next((plain_function(name) for name in frames if not _ALLOCATORS.fullmatch(name)), None)
        heading = f"memory leak in {function}" if function else "memory leak"
        found.setdefault(
            heading,
            Finding(
                oracle="audit",
                kind="leak",
                title=title(heading),
                signature=signature("leak", function or heading),
                function=function,
                text=block.strip(),
            ),
        )
    return tuple(found.values())


def with_owners(findings: tuple[Finding, ...], stacks: str) -> tuple[Finding, ...]:
    """Return `findings` with the stacks that page_owner told as evidence in the text of the first, if it told any."""
    if not findings or not stacks.strip():
        return findings
    first = findings[0]
    text = f"{first.text}\n\nwho allocated, by page_owner:\n{stacks.strip()[:OWNERS_CAP]}"
    return (replace(first, text=text), *findings[1:])


def as_json(before: Sample, after: Sample) -> Mapping[str, object]:
    """Return both looks for the evidence folder."""
    return {"before": dict(before), "after": dict(after), "residue": [residue(before), residue(after)]}
