"""Processes: deadlines kill whole groups, and nothing outlives the rig."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rig import proc
from rig.errors import HostError


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_output_status_and_input() -> None:
    done = proc.run(["sh", "-c", "cat; echo err >&2; exit 3"], timeout=10, stdin=b"in\xff")
    assert (done.status, done.stdout, done.stderr, done.ok) == (3, "in\ufffd", "err\n", False)


def test_a_deadline_kills_grandchildren_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 100 & echo $! > {pids}; echo $$ >> {pids}; wait"
    done = proc.run(["sh", "-c", script], timeout=0.5)
    assert done.timed_out
    assert not done.ok
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_program_that_is_not_there_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match="no-such-program: program not found"):
        proc.run(["no-such-program"], timeout=1)


def test_check_quotes_the_last_line() -> None:
    with pytest.raises(HostError, match="the reason"):
        proc.check(["sh", "-c", "echo noise >&2; echo the reason >&2; exit 1"], timeout=10)


def test_a_log_gets_both_streams(tmp_path: Path) -> None:
    proc.run(["sh", "-c", "echo out; echo err >&2"], timeout=10, log=tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_the_environment_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("MAKEFLAGS", "-k")
    out = proc.run(["env"], timeout=10).stdout
    assert "GIT_DIR" not in out
    assert "MAKEFLAGS" not in out
    assert "LC_ALL=C.UTF-8" in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_death_of_the_rig(tmp_path: Path, number: signal.Signals) -> None:
    pids = tmp_path / "pids"
    code = (
        "from rig import proc; import time\n"
        f"script = 'sleep 100 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait'\n"
        "c = proc.Child(['sh', '-c', script])\n"
        "time.sleep(100)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as rig:
        while not pids.exists():
            time.sleep(0.02)
        rig.send_signal(number)
        rig.wait(10)
    assert all(gone(int(pid)) for pid in pids.read_text().split())
