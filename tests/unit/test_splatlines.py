"""Lines of a console: what stands ahead of a message, whoever logged it, and reports that interleave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.front.scan import parser
from rig.splats.formats import FORMATS, REFINEMENTS
from rig.splats.lines import Block, may_begin, take_apart
from rig.splats.scanner import Scanner, in_order, scan_bytes

BUG = "kernel BUG at mm/filemap.c:12!"


@pytest.mark.parametrize(
    ("ahead", "caller", "time"),
    [
        ("[    1.500000] ", None, 1.5),
        ("<4>[    1.500000][   T12] ", "T12", 1.5),
        ("[   C0] ", "C0", None),
        ("[    1.500000 <    0.000012>] ", None, 1.5),
        ("[Thu Nov 26 08:00:00 2026] ", None, None),
        ("[Thu Nov 26 08:00:00 2026] [   T12] ", "T12", None),
        ("2026-11-26T08:00:00,123456+00:00 ", None, None),
        ("kern  :alert : [    1.500000] ", None, 1.5),
        ("Nov  6 08:00:00 host kernel: ", None, None),
        ("Nov 26 08:00:00 host-1.example kernel: [    1.500000] ", None, 1.5),
        ("2026-11-26T08:00:00.123456+01:00 host kernel: [    1.500000][   T12] ", "T12", 1.5),
        ("Thu 2026-11-26 08:00:00 UTC host kernel: ", None, None),
        ("Thu Nov 26 08:00:00 2026 kern.alert kernel: [    1.500000] ", None, 1.5),
        ("[    1.500000] host kernel: ", None, 1.5),
        ("4,1234,1500000,-;", None, 1.5),
        ("6.12.0-rc1+,4,1234,1500000,-,caller=T12;", "T12", 1.5),
        ("[2026-11-26 08:00:00] [    1.500000] ", None, 1.5),
        ("2026-11-26T08:00:00.123456  <4>[    1.500000] ", None, 1.5),
        ("login: [    1.500000] ", None, 1.5),
        ("\x1b[31m[    1.500000] \x1b[0m", None, 1.5),
        ("[    1.500000] [2: kworker/u16:3:  123] ", None, 1.5),
    ],
)
def test_what_stands_ahead_is_the_kernels(ahead: str, caller: str | None, time: float | None) -> None:
    raw = (ahead + BUG).encode()
    line = take_apart(raw, 1)
    assert (line.message, line.caller, line.time, line.kernel) == (BUG, caller, time, True)
    assert may_begin(raw)
    assert Block(b"before\n" + raw + b"\nafter\n").head(0) == len(b"before\n")


@pytest.mark.parametrize(
    "ahead",
    [
        "Nov 26 08:00:00 host sshd[12]: ",
        "Nov 26 08:00:00 host my-kernel: ",
        "2026-11-26T08:00:00+01:00 host systemd[1]: ",
        "2026/11/26 08:00:00 executing program 0: ",
        "ok 17 - ",
        "$ ",
        "main: ",
    ],
)
def test_what_programs_say_begins_no_report(ahead: str) -> None:
    raw = (ahead + BUG).encode()
    line = take_apart(raw, 1)
    assert not line.kernel
    assert not may_begin(raw)
    assert Block(b"before\n" + raw + b"\n").head(0) == -1


def test_programs_in_a_journal_accuse_nobody_even_with_all_the_words() -> None:
    report = (BUG, "CPU: 0 PID: 1 Comm: x Not tainted 6.1.0", "RIP: 0010:foo+0x1/0x2", "Call Trace:", " bar+0x1/0x2")
    for who, found in (("kernel", 1), ("logger[7]", 0)):
        log = "".join(f"Nov 26 08:00:00 host {who}: {line}\n" for line in report)
        assert len(scan_bytes(log.encode())) == found


def test_all_kinds_are_those_that_the_help_promises() -> None:
    promised = set(parser().format_help().partition("kind ")[2].partition("title")[0].split())
    assert {row.kind for row in FORMATS} | {refinement.kind for refinement in REFINEMENTS} <= promised


def report(task: int, function: str) -> list[bytes]:
    lines = (
        "------------[ cut here ]------------",
        f"WARNING: CPU: {task} PID: {task} at mm/{function}.c:12 {function}+0x12/0x40",
        f"CPU: {task} UID: 0 PID: {task} Comm: race Not tainted 6.12.0 #1",
        f"RIP: 0010:{function}+0x12/0x40",
        "Call Trace:",
        " <TASK>",
        f" {function}_caller+0x33/0x120",
        " entry_SYSCALL_64_after_hwframe+0x76/0x7e",
        " </TASK>",
        "---[ end trace 0000000000000000 ]---",
    )
    return [f"[   12.000000][{f'T{task}':>6}] {line}\n".encode() for line in lines]


@given(st.lists(st.integers(0, 3), min_size=60, max_size=60), st.lists(st.integers(0, 3000), max_size=10))
def test_reports_of_several_tasks_are_taken_apart_however_they_interleave(turns: list[int], cuts: list[int]) -> None:
    waiting = [report(i, f"guilty_{'abc'[i]}") for i in range(3)]
    alone = [scan_bytes(b"".join(lines))[0] for lines in waiting]
    program = b"executing program 0: WARNING: CPU: 0 PID: 0 at home\n"
    log = b""
    for turn in [*turns, *(i for i in range(3) for _ in range(10))]:
        log += waiting[turn].pop(0) if turn < 3 and waiting[turn] else program if turn == 3 else b""
    scanner, found = Scanner(), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        found += scanner.feed(log[start:end])
    got = in_order(found + scanner.finish())
    assert {(one.title, one.text, one.corrupted) for one in got} == {
        (one.title, one.text, one.corrupted) for one in alone
    }
