"""The console scanner against golden logs: real boots, and reports written by hand in the formats of the kernel."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.model import Finding
from rig.splats.formats import ANY_HEAD
from rig.splats.reports import MAX_LINES
from rig.splats.scanner import MAX_SAME, MAX_SIGNATURES, Scanner, in_order, scan_bytes, scan_file

LOGS = Path(__file__).parent / "data" / "console"

#: kind, title, function, fatal, echo
Row = tuple[str, str, str | None, bool, bool]

EXPECTED: dict[str, list[Row]] = {
    "arm64-oops": [
        (
            "page-fault",
            "BUG: unable to handle kernel paging request in shmem_undo_range",
            "shmem_undo_range",
            True,
            False,
        )
    ],
    "bad-page-cache-then-bug": [
        ("bad-page", "BUG: Bad page cache in filemap_unaccount_folio", "filemap_unaccount_folio", False, False),
        ("bug", "kernel BUG in invalidate_inode_pages2_range", "invalidate_inode_pages2_range", True, False),
        ("warning", "WARNING in do_exit", "do_exit", False, True),
    ],
    "boot-failure-no-root": [("boot-failure", "VFS: Unable to mount root fs", "mount_root_generic", True, False)],
    "bug-filemap": [("bug", "kernel BUG in filemap_unaccount_folio", "filemap_unaccount_folio", True, False)],
    "bug-filemap-direct-write": [
        ("bug", "kernel BUG in filemap_unaccount_folio", "filemap_unaccount_folio", True, False)
    ],
    "hung-task": [("hung-task", "INFO: task hung in mnt_want_write", "mnt_want_write", False, False)] * 2,
    "kasan-uaf": [("kasan", "KASAN: slab-use-after-free Read in ext4_readdir", "ext4_readdir", True, False)],
    "lockdep-circular": [("lockdep", "possible deadlock in filldir64", "filldir64", False, False)],
    "many-small": [
        ("bad-rss", "BUG: Bad rss-counter state MM_FILEPAGES", None, False, False),
        ("bad-rss", "BUG: non-zero pgtables_bytes on freeing mm: NUM", None, False, False),
        ("refcount", "WARNING: refcount bug in kobject_put", "kobject_put", False, False),
        (
            "bug",
            "BUG: sleeping function called from invalid context in xfs_buf_alloc_pages",
            "xfs_buf_alloc_pages",
            False,
            False,
        ),
        (
            "bad-page",
            "BUG: Bad page state in truncate_inode_pages_range",
            "truncate_inode_pages_range",
            False,
            False,
        ),
        (
            "ubsan",
            "UBSAN: array-index-out-of-bounds in xfs_attr3_leaf_add_work",
            "xfs_attr3_leaf_add_work",
            False,
            False,
        ),
        ("kcsan", "KCSAN: data-race in next_uptodate_folio / xas_clear_mark", "next_uptodate_folio", False, False),
        ("bad-page", "BUG: Bad page map", "zap_present_ptes", False, False),
        ("list-corruption", "BUG: corrupted list in lru_cache_disable", "lru_cache_disable", True, False),
    ],
    "no-timestamps-gpf": [
        ("gpf", "general protection fault in page_counter_try_charge", "page_counter_try_charge", True, False)
    ],
    "old-4.4-nullderef": [
        ("page-fault", "BUG: unable to handle kernel NULL pointer dereference in free_block", "free_block", True, False)
    ],
    "panic-init-exited": [("panic", "kernel panic: Attempted to kill init!", "do_exit", True, False)],
    "panic-sysrq": [("panic", "kernel panic: sysrq triggered crash", "sysrq_handle_crash", True, False)],
    "stalls-interleaved": [
        ("soft-lockup", "BUG: soft lockup in zap_pte_range", "zap_pte_range", False, False),
        ("rcu-stall", "INFO: rcu detected stall in shrink_folio_list", "shrink_folio_list", False, False),
    ],
}


def row(finding: Finding) -> Row:
    return finding.kind, finding.title, finding.function, finding.fatal, finding.echo


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_golden_log(name: str) -> None:
    assert [row(finding) for finding in scan_file(LOGS / f"{name}.log")] == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(path.stem for path in LOGS.glob("healthy-*.log")))
def test_healthy_boot_is_not_accused(name: str) -> None:
    log = (LOGS / f"{name}.log").read_bytes()
    assert len(log) > 5000
    scanner = Scanner()
    assert scanner.feed(log) + scanner.finish() == []
    assert not scanner.fatal


#: What memory failure, swap, loop devices, hugetlb, dropped caches and an out-of-memory kill print, beside one another.
UNSUSPICIOUS = (
    "Injecting memory failure for pfn",
    "Soft offlining pfn",
    "recovery action for clean LRU page: Recovered",
    "recovery action for huge page: Recovered",
    "Sending SIGBUS to",
    "Adding 262140k swap on /dev/zram0",
    "zram0: detected capacity change",
    "loop0: detected capacity change",
    "drop_caches: 3",
    "HugeTLB: registered",
    "invoked oom-killer",
    "Memory cgroup out of memory: Killed process",
)
#: The same kernel says these on other occasions: formats of kernel/module/main.c, mm/hugetlb.c, mm/memory-failure.c,
#: mm/swapfile.c and mm/huge_memory.c of v6.12.
SELDOM = (
    "rig_stall: loading out-of-tree module taints kernel.",
    "HugeTLB: allocating 512 of page size 2.00 MiB failed.  Only allocated 300 hugepages.",
    "Memory failure: 0x1be1: recovery action for already poisoned page: Failed",
    "Memory failure: 0x1be1: unhandlable page.",
    "Soft offline: 0x85c3: page migration failed 1, type 0x4fffc000080038(uptodate|dirty|lru|swapbacked|node=1)",
    "Soft offline: 0x2377: page already poisoned",
    "Unpoison: 0x2377: software-unpoisoned page",
    "Unable to find swap-space signature",
    "huge_memory: 12 of 14 THP split",
    "khugepaged: min_free_kbytes is not updated to 2048 because user defined value 4096 is preferred",
    "page_owner is disabled",
    "vmstat_refresh: nr_isolated_file -1",  # may pass; the memory audit judges it
    "kmemleak: Kernel memory leak detector initialized (mem pool available: 15500)",
    "zram: Added device: zram0",
    "zram: Removed device: zram0",
)


def test_what_memory_management_says_on_duty_accuses_nobody() -> None:
    log = (LOGS / "healthy-memory-messages.log").read_text()
    assert [words for words in UNSUSPICIOUS if words not in log] == []
    said = "".join(f"[   12.{number:06d}][  T140] {words}\n" for number, words in enumerate(SELDOM))
    assert scan_bytes(log.encode() + said.encode()) == ()


POISON = """\
pagealloc: memory corruption
00000000a1b2c3d4: aa aa aa 01 aa aa aa aa                          ........
CPU: 1 UID: 0 PID: 145 Comm: race Not tainted 6.12.117 #1
Call Trace:
 <TASK>
 dump_stack_lvl+0x4f/0x60
 __kernel_unpoison_pages+0x10d/0x120
 post_alloc_hook+0xa1/0xd0
 </TASK>
"""


def test_a_freed_page_that_was_written_to_is_a_finding() -> None:
    log = "".join(f"[   12.000001][  T140] {line}\n" for line in POISON.splitlines())
    (found,) = scan_bytes(log.encode())
    assert (found.kind, found.title) == ("bad-page", "page poison: memory corruption in __kernel_unpoison_pages")


def test_every_golden_log_is_expected() -> None:
    named = {path.stem for path in LOGS.glob("*.log") if not path.stem.startswith(("healthy-", "lkdtm-"))}
    assert named == EXPECTED.keys()


# -- the shape of a report --------------------------------------------------------------------------------------------


def test_text_holds_the_page_dump_and_the_panic_and_nothing_of_other_tasks() -> None:
    (bug,) = scan_file(LOGS / "bug-filemap.log")
    lines = bug.text.splitlines()
    assert "page: refcount:35 mapcount:1" in lines[0]
    assert any("page dumped because" in line for line in lines)
    assert any("Kernel panic - not syncing: Fatal exception" in line for line in lines)
    assert not any("T217" in line or "C2]" in line for line in lines)
    assert (bug.first_line, bug.last_line) == (5, 42)


def test_interleaved_stalls_are_taken_apart() -> None:
    soft, _ = scan_file(LOGS / "stalls-interleaved.log")
    assert all("[    C1]" in line for line in soft.text.splitlines())


def test_a_finding_of_one_line_does_not_end_the_report_around_it() -> None:
    hung = ["INFO: task race:77 blocked for more than 120 seconds.", "race            D    0    77      1 0x00000004"]
    trace = ["Call Trace:", " __schedule+0x8eb/0x2060", " schedule+0xf0/0x430", " widget_open+0x10/0x20"]
    line = "unregister_netdevice: waiting for lo to become free. Usage count = 3"
    for place in (1, 2, 3, 5):
        log = [*(hung + trace)[:place], line, *(hung + trace)[place:]]
        findings = scan_bytes("".join(f"[   12.000000] {text}\n" for text in log).encode())
        assert {(f.title, f.function, f.corrupted) for f in findings} == {
            ("INFO: task hung in widget_open", "widget_open", False),
            ("unregister_netdevice: waiting for DEV to become free", None, False),
        }


def test_signature_knows_neither_addresses_nor_processes() -> None:
    log = (LOGS / "many-small.log").read_text()
    other = re.sub(r"pfn:\w+", "pfn:11111", log).replace("+0x", "+0x1").replace("process race", "process other-7")
    other = re.sub(r"\.constprop\.0", ".constprop.17.isra.2", other)
    assert other != log
    assert [f.signature for f in scan_bytes(other.encode())] == [f.signature for f in scan_bytes(log.encode())]


def test_the_same_race_found_the_other_way_round_is_the_same_bug() -> None:
    log = (LOGS / "many-small.log").read_text()
    turned = log.replace(
        "data-race in xas_clear_mark / next_uptodate_folio", "data-race in next_uptodate_folio / xas_clear_mark"
    )
    assert turned != log
    assert scan_bytes(turned.encode())[6].signature == scan_bytes(log.encode())[6].signature


def test_clone_suffixes_are_stripped() -> None:
    log = (
        (LOGS / "bug-filemap.log")
        .read_bytes()
        .replace(b"filemap_unaccount_folio+", b"filemap_unaccount_folio.part.0.cold+")
    )
    assert scan_bytes(log)[0].function == "filemap_unaccount_folio"


def test_frames_with_a_question_mark_are_ignored() -> None:
    log = (LOGS / "hung-task.log").read_bytes()
    assert b"? percpu_rwsem_wait" in log
    swapped = log.replace(b"  mnt_want_write+", b"  ? mnt_want_write+")
    assert scan_bytes(swapped)[0].function == "path_openat"


# -- fatal, and what follows ------------------------------------------------------------------------------------------


def test_fatal_is_known_while_the_splat_still_runs() -> None:
    log = (LOGS / "bug-filemap.log").read_bytes()
    head = log.index(b"Oops: invalid opcode")
    end = log.index(b"\n", head) + 1
    scanner, fatal = Scanner(), list[bool]()
    for piece in (log[:head], log[head:end]):
        assert scanner.feed(piece) == []
        fatal.append(scanner.fatal)
    assert fatal == [False, True]
    (finding,) = scanner.feed(log[end:]) + scanner.finish()
    assert "Fatal exception" in finding.text


def test_panic_on_warn_makes_the_warning_fatal_and_is_no_second_finding() -> None:
    log = (LOGS / "many-small.log").read_text()
    start = log.index("[    4.000000]")
    warning = log[start : log.index("[    5.000000]")]
    panic = "[    4.001200][  T202] Kernel panic - not syncing: kernel: panic_on_warn set ...\n"
    (finding,) = scan_bytes((warning + panic).encode())
    assert (finding.kind, finding.fatal) == ("refcount", True)
    assert not scan_bytes(warning.encode())[0].fatal


def test_panic_that_has_nothing_to_do_with_a_warning_stands_alone() -> None:
    log = (LOGS / "many-small.log").read_text()
    warning = log[log.index("[    4.000000]") : log.index("[    5.000000]")]
    panic = "[    4.900000][    T1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
    findings = scan_bytes((warning + panic).encode())
    assert [(f.kind, f.fatal, f.echo) for f in findings] == [("refcount", False, False), ("boot-failure", True, False)]


def test_echo_panic_long_after_a_harmless_finding_still_says_that_the_machine_is_dead() -> None:
    log = (LOGS / "hung-task.log").read_text()
    filler = "".join(f"[   1{i % 10}.000000][   T{i}] something\n" for i in range(400))
    panic = "[   20.000000][   T27] Kernel panic - not syncing: hung_task: blocked tasks\n"
    findings = scan_bytes((log + filler + panic).encode())
    assert [(f.kind, f.fatal, f.echo) for f in findings][-1] == ("panic", True, True)


def test_machine_that_dies_within_the_head_is_still_a_finding() -> None:
    log = b"[    1.000000][    T1] x\n[    2.000000][   T20] kernel BUG at mm/filemap.c:154!\n"
    (finding,) = scan_bytes(log)
    assert (finding.kind, finding.title, finding.corrupted) == ("bug", "kernel BUG", True)


# -- what programs write accuses nobody -------------------------------------------------------------------------------

FAKES = [
    "BUG: unable to handle page fault for address: 0xdeadbeef",
    "Kernel panic - not syncing: just kidding",
    "kernel BUG at mm/filemap.c:1!",
    "BUG: KASAN: use-after-free in foo+0x1/0x2",
    "WARNING: CPU: 0 PID: 1 at mm/filemap.c:155 filemap_unaccount_folio+0x1/0x2",
    "INFO: task x:1 blocked for more than 120 seconds.",
    "BUG: Bad rss-counter state mm:1 type:MM_FILEPAGES val:1",
]


@pytest.mark.parametrize("fake", FAKES)
def test_words_without_a_printk_prefix_are_a_programs(fake: str) -> None:
    log = f"[    0.000000][    T0] Linux version 6.12\n{fake}\nCPU: 0 PID: 1\nCall Trace:\n foo+0x1/0x2\n"
    assert scan_bytes(log.encode()) == ()


@pytest.mark.parametrize("fake", [*FAKES[:2], "BUG: oh no", "WARNING: disk full", "Oops", "INFO: task done", "KASAN"])
def test_words_behind_a_programs_name_in_kmsg_are_a_programs(fake: str) -> None:
    log = f"[    1.000000][   T10] rig: {fake}\n[    1.100000][   T10] rig: Call Trace:\n"
    assert scan_bytes(log.encode()) == ()


@pytest.mark.parametrize("fake", [fake for fake in FAKES if not fake.startswith(("Kernel panic", "BUG: Bad rss"))])
def test_a_lone_head_in_kmsg_proves_nothing(fake: str) -> None:
    rest = "".join(f"[    2.{i:06}][   T10] rig: ok {i} case\n" for i in range(20))
    assert scan_bytes(f"[    1.000000][   T10] {fake}\n{rest}".encode()) == ()


def test_kernel_message_behind_a_prompt_without_newline_counts() -> None:
    log = (LOGS / "panic-sysrq.log").read_bytes()
    position = log.rindex(b"\n", 0, log.index(b"Kernel panic")) + 1
    (finding,) = scan_bytes(log[:position] + b"login: " + log[position:])
    assert finding.kind == "panic"


# -- streaming --------------------------------------------------------------------------------------------------------

ALL = b"".join((LOGS / f"{name}.log").read_bytes() for name in ("hung-task", "many-small", "kasan-uaf"))


@given(st.lists(st.integers(0, len(ALL)), max_size=30))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    scanner, findings, start = Scanner(), [], 0
    for cut in [*sorted(cuts), len(ALL)]:
        findings += scanner.feed(ALL[start:cut])
        start = cut
    assert in_order(findings + scanner.finish()) == scan_bytes(ALL)


def test_line_by_line_and_byte_by_byte() -> None:
    log = (LOGS / "bug-filemap.log").read_bytes()
    for pieces in (log.splitlines(keepends=True), [bytes([byte]) for byte in log]):
        scanner, findings = Scanner(), list[Finding]()
        for piece in pieces:
            findings += scanner.feed(piece)
        assert in_order(findings + scanner.finish()) == scan_file(LOGS / "bug-filemap.log")


def test_carriage_returns_colours_and_broken_bytes() -> None:
    log = (
        (LOGS / "bug-filemap.log").read_bytes().replace(b"\n", b"\r\n").replace(b"[   14.88370", b"\x1b[0m[   14.88370")
    )
    log = log.replace(b"name(?)", b"na\xff\xfe\x00")
    (finding,) = scan_bytes(log)
    assert finding.title == "kernel BUG in filemap_unaccount_folio"
    assert "\x00" not in finding.text
    assert "\r" not in finding.text


@given(st.binary(max_size=400), st.integers(0, len(ALL)))
def test_any_bytes_anywhere_never_raise(junk: bytes, position: int) -> None:
    scan_bytes(ALL[:position] + junk + ALL[position:])


@given(st.lists(st.sampled_from(ALL.splitlines(keepends=True)), max_size=60))
def test_shuffled_reports_never_raise(lines: list[bytes]) -> None:
    scan_bytes(b"".join(lines))


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_line_without_end_is_not_kept() -> None:
    scanner = Scanner()
    for _ in range(50):
        assert scanner.feed(b"x" * 100_000) == []
        assert len(scanner._partial) <= 65536
    scanner.feed(b"\n")
    (finding,) = scanner.feed((LOGS / "panic-sysrq.log").read_bytes()) + scanner.finish()
    assert finding.first_line == 239 + 1


def test_a_storm_of_splats_is_bounded() -> None:
    def warning(number: int, function: str) -> str:
        prefix = f"[{number:5}.000000][  T{number}]"
        return (
            f"{prefix} WARNING: CPU: 0 PID: 9 at mm/x.c:1 {function}+0x1/0x2\n{prefix} Modules linked in:\n"
            f"{prefix} RIP: 0010:{function}+0x1/0x2\n{prefix} ---[ end trace 0 ]---\n"
        )

    same = "".join(warning(i, "same") for i in range(300))
    assert len(scan_bytes(same.encode())) == MAX_SAME
    scanner = Scanner()
    findings = []
    for i in range(MAX_SIGNATURES * 3):
        findings += scanner.feed(warning(i, f"function_{i}").encode())
        assert len(scanner._open) <= 64
    assert len(findings + scanner.finish()) == MAX_SIGNATURES


def test_an_endless_report_is_cut_and_says_so() -> None:
    prefix = "[    3.000000][   T30]"
    frames = f"{prefix}  ? frame+0x1/0x2\n" * 1500
    (finding,) = scan_bytes(f"{prefix} kernel BUG at mm/x.c:1!\n{prefix} Call Trace:\n{frames}".encode())
    assert finding.text.count("\n") == MAX_LINES
    assert finding.text.endswith(" more lines]")


# -- the table itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "Command line: BUG: x WARNING: y",
        "BUG: Bad page map: 12 messages suppressed",
        "INFO: NMI handler (x) took too long to run: 1.000 msecs",
        "INFO: lockdep is turned off.",
        "WARNING: polling idle and HT enabled, performance may degrade",
        "[Firmware Bug]: TSC_DEADLINE disabled due to Errata",
        "traps: race[12] general protection fault ip:401 sp:7ffe error:0",
        "race[12]: segfault at 0 ip 0000000000401136 sp 00007ffd error 4",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled",
        "EXT4-fs warning (device vda): x",
    ],
)
def test_harmless_kernel_lines_are_no_heads(line: str) -> None:
    assert not ANY_HEAD.match(line)


def test_a_gigabyte_of_clean_lines_costs_little_memory_in_miniature() -> None:
    import tracemalloc

    line = b"[   12.345678][  T123] systemd[1]: Started something with BUG in its name\n"
    noise = bytes(random.Random(1).randbytes(100_000)).replace(b"\n", b"")
    block = line * 2000 + noise + b"\n"
    scanner = Scanner()
    scanner.feed(block)
    tracemalloc.start()
    for _ in range(40):
        scanner.feed(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(block)


def test_a_deadlock_is_named_after_who_takes_the_lock() -> None:
    log = (LOGS / "lockdep-circular.log").read_text()
    taken = log.replace("at: __might_fault+0x3b/0x70", "at: ext4_map_blocks+0x3b/0x70")
    assert scan_bytes(taken.encode())[0].title == "possible deadlock in ext4_map_blocks"
    returning = (
        "[    1.000000][   T77] WARNING: lock held when returning to user space!\n"
        "[    1.000100][   T77] ------------------------------------------------\n"
        "[    1.000200][   T77] race/77 is leaving the kernel with locks still held!\n"
        "[    1.000300][   T77]  #0: ffff888004b22b50 (&f->lock){+.+.}-{3:3}, at: leaky_ioctl+0x54/0x170\n"
    )
    assert scan_bytes(returning.encode())[0].title == "WARNING: lock held when returning to user space in leaky_ioctl"


def test_lines_long_after_a_report_are_not_of_it() -> None:
    head = "[    1.000000][   T30] kernel BUG at mm/x.c:1!\n[    1.000100][   T30] CPU: 0 PID: 1\n"
    near = scan_bytes(f"{head}[   20.000000][   T30] RIP: 0010:foo+0x1/0x2\n".encode())
    late = scan_bytes(f"{head}[   99.000000][   T30] RIP: 0010:foo+0x1/0x2\n".encode())
    assert [finding.function for finding in (*near, *late)] == ["foo", None]


def test_the_line_after_one_without_end_is_whole() -> None:
    scanner = Scanner()
    for piece in (b"[    0.1] x" * 10_000, b"y" * 100):
        scanner.feed(piece)
    findings = scanner.feed(b"\n[    2.000000][    T1] Kernel panic - not syncing: now\n") + scanner.finish()
    assert [finding.title for finding in findings] == ["kernel panic: now"]


def test_the_panic_that_kasan_asked_for_is_in_its_text() -> None:
    log = (LOGS / "kasan-uaf.log").read_text()
    assert scan_bytes(log.encode())[0].text.endswith("Kernel Offset: disabled")


def test_a_report_that_has_begun_can_be_seen_before_it_ends() -> None:
    head = b"[    5.0][  T12] BUG: Bad page state in process cat  pfn:12345\n".replace(b"5.0]", b"5.000000]")
    scanner = Scanner()
    assert scanner.feed(head) == []
    assert scanner.pending() == ()  # a head alone proves nothing
    assert scanner.feed(b"[    5.000001][  T12] page: refcount:0 mapcount:1 mapping:0 index:0x0 pfn:0x12345\n") == []
    (seen,) = scanner.pending()
    assert seen.title == "BUG: Bad page state"
    assert [finding.title for finding in scanner.finish()] == [seen.title]
    assert scanner.pending() == ()
