"""SSH to a guest, with a server in this process that runs real commands in place of the guest."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakessh import FakeSsh, Reply

from rig.clock import Deadline, Stopwatch
from rig.errors import HostError
from rig.guests.keys import RunKeys, make_keys
from rig.machines.guest import Guest, NoAnswerError
from rig.machines.output import Kept, Lines
from rig.machines.state import parse_state

LONG = 60.0  # a deadline that only a broken rig reaches
PROMPT = 10.0  # far above what a prompt return takes, far below the deadline that would hide a slow one


@pytest.fixture
def run_keys(tmp_path: Path) -> RunKeys:
    return make_keys(tmp_path / "keys")


def serve(run_keys: RunKeys, tmp_path: Path, *replies: Reply) -> FakeSsh:
    return FakeSsh(run_keys.host_private, run_keys.client_public, tmp_path, replies=replies)


@pytest.fixture
def server(run_keys: RunKeys, tmp_path: Path) -> Iterator[FakeSsh]:
    made = serve(run_keys, tmp_path)
    yield made
    made.close()


@pytest.fixture
def connection(server: FakeSsh, run_keys: RunKeys) -> Iterator[Guest]:
    with Guest.connect(server.port, run_keys, Deadline(LONG), lambda: True) as made:
        yield made


def test_a_command_gives_its_status_and_both_outputs(connection: Guest) -> None:
    done = connection.run("echo out; echo err >&2; exit 7", LONG)
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert not done.ok
    assert not done.lost
    assert not done.timed_out


def test_one_connection_serves_all_commands(connection: Guest, server: FakeSsh) -> None:
    for number in range(3):
        assert connection.run(f"echo {number}", LONG).stdout == f"{number}\n"
    assert len(server.transports) == 1


def test_quoting_reaches_the_shell_unharmed(connection: Guest) -> None:
    assert connection.run("""printf '%s|' "a b" 'c"d' $((1 + 1)); x=1; echo "$x" """, LONG).stdout == 'a b|c"d|2|1\n'


def test_standard_input_reaches_the_command_whole_and_ends(connection: Guest, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)  # more than any window
    done = connection.run(f"cat >{tmp_path}/got; echo end", LONG, stdin=data)
    assert (done.status, done.stdout) == (0, "end\n")
    assert (tmp_path / "got").read_bytes() == data


def test_a_command_may_leave_its_standard_input_alone(connection: Guest) -> None:
    assert connection.run("echo done; exit 3", LONG, stdin=b"x" * (3 << 20)).status == 3


def test_a_command_that_never_reads_ends_at_its_deadline(connection: Guest) -> None:
    done = connection.run("echo $$; sleep 60", 1.0, stdin=b"x" * (32 << 20))
    assert done.timed_out
    assert done.seconds < PROMPT
    end = Deadline(LONG)
    while _runs(int(done.stdout)):
        assert not end.expired, "the command outlived its deadline"
        time.sleep(0.02)


def test_lines_are_handed_on_while_it_runs(connection: Guest, tmp_path: Path) -> None:
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        (tmp_path / "go").touch()  # the command waits for this: it only ends if lines come while it runs

    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; printf 'second\\r\\nlast'"
    done = connection.run(script, LONG, on_line)
    assert done.ok
    assert lines == ["first", "second", "last"]


def test_a_deadline_kills_the_whole_group(connection: Guest, tmp_path: Path) -> None:
    done = connection.run(f"sleep 1000 & echo $! $$ >{tmp_path}/pids; while :; do :; done", 1.0)
    assert done.timed_out
    assert not done.lost
    assert done.status is None
    for pid in (tmp_path / "pids").read_text().split():
        end = Deadline(LONG)
        while _runs(int(pid)):
            assert not end.expired, f"process {pid} outlived its deadline"
            time.sleep(0.02)
    assert connection.run("echo still here", LONG).ok


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_output_before_the_deadline_is_kept(connection: Guest) -> None:
    assert connection.run("echo early; sleep 1000", 1.0).stdout == "early\n"


def test_a_dead_machine_ends_a_command_though_tcp_stands(server: FakeSsh, run_keys: RunKeys) -> None:
    alive = threading.Event()
    alive.set()
    with Guest.connect(server.port, run_keys, Deadline(LONG), alive.is_set) as connection:
        threading.Timer(0.5, alive.clear).start()
        watch = Stopwatch()
        done = connection.run("echo x; sleep 1000", LONG)
        assert done.lost
        assert not done.timed_out
        assert done.stdout == "x\n"
        assert watch.elapsed < PROMPT
        assert connection.run("true", LONG).lost


def test_a_guest_that_stops_answering_is_a_timeout(connection: Guest, server: FakeSsh) -> None:
    server.answering.clear()
    watch = Stopwatch()
    done = connection.run("true", 1.0)
    assert done.timed_out
    assert watch.elapsed < PROMPT


def test_a_lost_connection_is_not_a_status(connection: Guest, server: FakeSsh) -> None:
    threading.Timer(0.5, server.close).start()
    done = connection.run("sleep 1000", LONG)
    assert done.lost
    assert done.status is None
    assert connection.run("true", LONG).lost


def test_another_host_key_is_refused(server: FakeSsh, run_keys: RunKeys, tmp_path: Path) -> None:
    other = make_keys(tmp_path / "other")
    with pytest.raises(HostError, match="another host key"):
        Guest.connect(server.port, other, Deadline(LONG), lambda: True)
    assert server.commands == []


def test_another_client_key_is_refused(run_keys: RunKeys, tmp_path: Path) -> None:
    other = make_keys(tmp_path / "other")
    server = FakeSsh(run_keys.host_private, other.client_public, tmp_path)
    with pytest.raises(NoAnswerError, match="Authentication"):
        Guest.connect(server.port, run_keys, Deadline(2.0), lambda: True)
    server.close()


def test_nobody_listens(run_keys: RunKeys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswerError, match="did not let us in"):
        Guest.connect(port, run_keys, Deadline(1.0), lambda: True)


def test_a_silent_port_ends_at_the_deadline(run_keys: RunKeys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watch = Stopwatch()
        with pytest.raises(NoAnswerError):
            Guest.connect(listener.getsockname()[1], run_keys, Deadline(1.0), lambda: True)
        assert watch.elapsed < PROMPT


def test_a_machine_that_dies_ends_the_attempts(run_keys: RunKeys) -> None:
    alive = threading.Event()
    alive.set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Timer(0.3, alive.clear).start()
        watch = Stopwatch()
        with pytest.raises(NoAnswerError):
            Guest.connect(listener.getsockname()[1], run_keys, Deadline(LONG), alive.is_set)
        assert watch.elapsed < PROMPT


def test_huge_output_is_bounded_and_keeps_both_ends(connection: Guest) -> None:
    lines = 0

    def count(line: str) -> None:
        nonlocal lines
        lines += 1

    done = connection.run("seq 1 2000000", LONG, count, cap=1 << 20)
    assert done.ok
    assert lines == 2_000_000
    assert len(done.stdout) < (1 << 20) + (1 << 17)
    assert done.stdout.startswith("1\n2\n")
    assert done.stdout.endswith("\n2000000\n")
    assert "bytes of output dropped here" in done.stdout


def test_bytes_that_are_not_text_survive(connection: Guest) -> None:
    lines: list[str] = []
    done = connection.run(r"printf 'a\377b\nc\303'", LONG, lines.append)
    assert done.stdout == "a\ufffdb\nc\ufffd"
    assert lines == ["a\ufffdb", "c\ufffd"]


def test_the_state_is_read_in_one_command(connection: Guest, server: FakeSsh) -> None:
    state = connection.read_state()
    assert len(server.commands) == 1
    assert state.release == os.uname().release
    assert state.cpus == len(os.sched_getaffinity(0))
    assert state.memory_kib > 0


def test_a_guest_without_a_state_is_an_error(run_keys: RunKeys, tmp_path: Path) -> None:
    server = serve(run_keys, tmp_path, Reply("meminfo", status=1))
    with (
        Guest.connect(server.port, run_keys, Deadline(LONG), lambda: True) as connection,
        pytest.raises(NoAnswerError, match="does not tell its state"),
    ):
        connection.read_state()
    server.close()


def test_state_of_a_guest() -> None:
    state = parse_state(
        "release 6.12.0\ncpus 4\nnodes 2\nthp always [madvise] never\nshmem_thp always within_size [advise] never\n"
        "taint 512\nMemTotal:        1007916 kB\nHugePages_Total:      16\nHugepagesize:       2048 kB\n"
    )
    assert (state.release, state.cpus, state.nodes, state.memory_kib) == ("6.12.0", 4, 2, 1007916)
    assert (state.thp, state.shmem_thp, state.hugepages, state.hugepage_kib) == ("madvise", "advise", 16, 2048)
    assert state.taint == 512


def test_state_of_a_kernel_without_huge_pages() -> None:
    state = parse_state("release 6.12.0\ncpus 1\nnodes 0\nthp\nshmem_thp\ntaint 0\nMemTotal: 5 kB\n")
    assert (state.thp, state.shmem_thp, state.hugepages) == ("", "", 0)


def test_kept_text_is_whole_while_it_fits() -> None:
    kept = Kept(cap=100)
    for _ in range(10):
        kept.add(b"0123456789")
    assert kept.text() == "0123456789" * 10


def test_lines_without_end_are_cut() -> None:
    lines: list[str] = []
    cutter = Lines(lines.append)
    for _ in range(10):
        cutter.add(b"x" * 20000)
    assert lines
    cutter.end()
    assert sum(map(len, lines)) == 200_000
