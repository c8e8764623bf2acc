"""The table of report formats, row by row: each has an example, written after the format strings of the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig.model import Finding
from rig.splats.formats import ANY_HEAD, FORMATS, MARKS, OPENINGS, REFINEMENTS
from rig.splats.scanner import scan_bytes

DATA = Path(__file__).parent / "data" / "formats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A report and what it comes to."""

    kind: str
    title: str
    function: str | None
    corrupted: bool
    lines: tuple[str, ...]


def examples() -> list[Example]:
    """Return the examples: `=== kind | title | function [| corrupted]`, and then the lines of the report."""
    found: list[Example] = []
    for path in sorted(DATA.glob("*.txt")):
        for block in path.read_text().split("=== ")[1:]:
            if "\n" not in block or " | " not in block.splitlines()[0]:
                pytest.fail(f"{path.name}: {block[:40]!r} has no expectation")
            expected, *lines = block.splitlines()
            kind, title, function, *flags = (part.strip() for part in expected.split(" | "))
            found.append(
                Example(
                    kind=kind,
                    title=title,
                    function=None if function == "None" else function,
                    corrupted=flags == ["corrupted"],
                    lines=tuple(lines),
                )
            )
    return found


EXAMPLES = examples()


def outcome(finding: Finding) -> tuple[str, str, str | None, bool]:
    return finding.kind, finding.title, finding.function, finding.corrupted


def row_of(line: str) -> int | None:
    return next((i for i, row in enumerate(FORMATS) if row.head.match(line)), None)


@pytest.mark.parametrize("prefix", ["", "[   12.345678] ", "[   12.345678][  T201] ", "<4>[   12.345678] "])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_example(example: Example, prefix: str) -> None:
    log = "".join(f"{prefix}{line}\n" for line in example.lines)
    (finding,) = scan_bytes(log.encode())
    assert outcome(finding) == (example.kind, example.title, example.function, example.corrupted)


def test_every_row_has_an_example() -> None:
    rows = {row_of(line) for example in EXAMPLES for line in example.lines}
    assert [row.head.pattern for i, row in enumerate(FORMATS) if i not in rows] == []


def test_every_refinement_has_an_example() -> None:
    titles = " ".join(example.title for example in EXAMPLES)
    forms = [re.escape(refinement.title).replace(r"\{function\}", r"\w+") for refinement in REFINEMENTS]
    assert [form for form in forms if not re.search(form, titles)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_head_is_searched_for(example: Example) -> None:
    heads = [line for line in example.lines if row_of(line) is not None]
    assert heads
    assert all(ANY_HEAD.match(head) for head in heads)
    assert all(re.match(OPENINGS, head) or any(mark in head.encode() for mark in MARKS) for head in heads)


#: Lines of healthy kernels, and of programs that write to the kernel's log, that look like a row's head and are none.
NEAR_MISSES = (
    "WARNING: /etc/ssh/moduli does not exist, using fixed modulus",
    "WARNING: workqueue cpumask: online intersect > possible intersect",
    "WARNING: Unprivileged eBPF is enabled, data leaks possible via Spectre v2 BHB attacks!",
    "WARNING: kernel stack is fine",
    "EXT4-fs (loop1): INFO: recovery required on readonly filesystem",
    "INFO: task race:91 blocked on a mutex likely owned by task cat:92.",
    "INFO: task finished",
    "INFO: rcu is fine",
    "rcu: \tOffload RCU callbacks from CPUs: (none).",
    "BUG: this line was written by a program",
    "BUG: KASAN: is what the test expects",
    "BUG kmalloc-64 is not tainted",
    "BUG: soft lockup detection is on",
    "kernel BUG at a place unknown",
    "Kernel panic - not syncing is what it says then",
    "kasan: KernelAddressSanitizer initialized",
    "kfence: initialized - using 2097152 bytes for 255 objects at 0x(____ptrval____)-0x(____ptrval____)",
    "kmemleak: Automatic memory scanning thread started",
    "unreferenced objects are shown in /sys/kernel/debug/kmemleak",
    "UBSAN: enabled",
    "VFS: Mounted root (ext4 filesystem) readonly on device 254:0.",
    "VFS: Disk quotas dquot_6.6.0",
    "unregister_netdevice: nothing to wait for",
    "Unable to handle that request",
    "Unhandled fault injection mode",
    "traps: race[12] general protection fault ip:401 sp:7ffe error:0",
    "general protection fault is what the test expects",
    "divide error expected",
    "irq 16: somebody cared",
    "trusty: boot args ok",
    "SError handling is on",
    "CFI failures are fatal",
    "RTNL: assertions are on",
    "pagealloc: guard page",
    "PANIC: not yet",
    "do_IRQ: 1.55 No irq handler for vector",
)


@pytest.mark.parametrize("line", NEAR_MISSES)
def test_near_miss_accuses_nobody(line: str) -> None:
    assert not ANY_HEAD.match(line)
    trace = "CPU: 0 PID: 91 Comm: race Not tainted 6.1.0 #1\nCall Trace:\n widget_open+0x1/0x2\n"
    assert scan_bytes(f"{line}\n{trace}".encode()) == ()
