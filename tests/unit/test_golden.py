"""Consoles of real machines (see ci/record-golden): each crash is seen for what it is, no healthy boot is accused."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from rig.splats.scanner import scan_bytes

GOLDEN = Path(__file__).parents[1] / "golden"


def logs(name: str) -> dict[str, bytes]:
    found = {}
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


HEALTHY = logs("healthy")
BAD = logs("bad")
INDEX = json.loads((GOLDEN / "index.json").read_text())

_PREFIX = re.compile(rb"^\[ *(\d+)\.(\d{6})\](?:\[ *([TC]\d+)\])? ", re.MULTILINE)


def _dmesg_t(match: re.Match[bytes]) -> bytes:
    seconds = int(match[1])
    return b"[Thu Nov 26 08:%02d:%02d 2026] " % (seconds // 60, seconds % 60)


#: How else the same lines are logged.
LOGGED: dict[str, Callable[[bytes], bytes]] = {
    "dmesg -T": lambda log: _PREFIX.sub(_dmesg_t, log),
    "dmesg -x": lambda log: _PREFIX.sub(lambda m: b"kern  :warn  : " + m[0], log),
    "dmesg --time-format iso": lambda log: _PREFIX.sub(rb"2026-11-26T08:00:00,\2+00:00 ", log),
    "journalctl -k": lambda log: _PREFIX.sub(b"Nov 26 08:00:00 host kernel: ", log),
    "journalctl -o short-iso": lambda log: _PREFIX.sub(b"2026-11-26T08:00:00+0100 host kernel: ", log),
    "journalctl -o short-monotonic": lambda log: _PREFIX.sub(rb"[ \1.\2] host kernel: ", log),
    "syslog": lambda log: _PREFIX.sub(lambda m: b"Nov  6 08:00:00 host-1.example kernel: " + m[0], log),
    "rsyslog": lambda log: _PREFIX.sub(lambda m: b"2026-11-26T08:00:00.123456+01:00 host kernel: " + m[0], log),
    "netconsole": lambda log: _PREFIX.sub(rb"4,1234,\1\2,-;", log),
    "netconsole with release": lambda log: _PREFIX.sub(rb"6.12.0-rc1,4,1234,\1\2,-;", log),
    "serial": lambda log: log.replace(b"\n", b"\r\r\n"),
    "levels": lambda log: _PREFIX.sub(lambda m: b"<4>" + m[0], log),
    "colours": lambda log: _PREFIX.sub(lambda m: b"\x1b[32m" + m[0].rstrip() + b"\x1b[0m \x1b[31m", log),
    "conserver": lambda log: re.sub(rb"(?m)^(?=.)", b"[2026-11-26 08:00:00] ", log),
    "lava": lambda log: re.sub(rb"(?m)^(?=.)", b"2026-11-26T08:00:00.123456  ", log),
    "no time stamps": lambda log: _PREFIX.sub(b"", log),
}


def test_there_are_enough_of_them() -> None:
    assert len(HEALTHY) >= 50
    assert {path.partition("/")[2] for path in INDEX} == set(BAD)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_machine_is_not_accused(name: str) -> None:
    assert scan_bytes(HEALTHY[name]) == ()


@pytest.mark.parametrize("name", BAD)
def test_what_broke_is_seen_for_what_it_is(name: str) -> None:
    expected = INDEX[f"bad/{name}"]
    first = scan_bytes(BAD[name])[0]
    assert first.kind == expected["kind"]
    assert fnmatchcase(first.title, expected["title"])
    assert first.function == expected["function"] or expected["function"] is None
    assert not first.corrupted
    assert not first.echo


@pytest.mark.parametrize("way", LOGGED)
def test_however_it_is_logged_the_findings_are_the_same(way: str) -> None:
    """One log of each title: the other ways have no caller, so that reports of several tasks would run into another."""
    ones = {INDEX[f"bad/{name}"]["title"]: name for name in BAD}
    for name in ones.values():
        first = scan_bytes(BAD[name])[0]
        again = scan_bytes(LOGGED[way](BAD[name]))
        assert again, name
        assert (again[0].kind, again[0].title) == (first.kind, first.title), name


@pytest.mark.parametrize("way", LOGGED)
def test_however_it_is_logged_a_healthy_machine_is_not_accused(way: str) -> None:
    for name in sorted(HEALTHY)[::7]:
        assert scan_bytes(LOGGED[way](HEALTHY[name])) == (), name


#: What programs print about the kernel's words, one behind the other.
CHATTER = b"""\
ls: cannot open 'BUG: KASAN: use-after-free in main'
BUG: KASAN: use-after-free in main
kernel BUG at my.c:12!
WARNING: CPU: 0 PID: 1 at home
BUG: unable to handle kernel NULL pointer dereference at 0000000000000000
general protection fault in line 3 of the manual [#1]
WARNING: apt does not have a stable CLI interface.
BUG: soft lockup - CPU#0 stuck for 22s! would be bad
"""


@pytest.mark.parametrize("way", ["levels", "syslog", "serial", "no time stamps"])
def test_programs_that_talk_like_the_kernel_accuse_nobody(way: str) -> None:
    log = HEALTHY[min(HEALTHY)]
    middle = log.index(b"\n", len(log) // 2) + 1
    assert scan_bytes(LOGGED[way](log[:middle] + CHATTER + log[middle:])) == ()


def test_no_log_says_where_it_was_made() -> None:
    for log in (*HEALTHY.values(), *BAD.values()):
        assert not re.search(rb"/root/|/home/|/work/|/tmp/(?!x|big)", log)
