"""The one module that starts processes.

Every child leads a process group of its own. A deadline kills that whole group: TERM, then KILL, then wait. Should the
rig itself die, by SIGKILL even, a guardian process kills every group that still runs: it holds the read end of a pipe
whose write end only the rig has, so the end of the file is the death of the rig. PR_SET_PDEATHSIG would not do: it is
bound to the thread that forked, and it does not reach grandchildren such as the compilers under make.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rig.clock import Deadline, Stopwatch
from rig.errors import HostError

#: What a child gets of the rig's environment. The rest (LD_PRELOAD, GIT_DIR, MAKEFLAGS, KBUILD_*, ...) would make a
#: result depend on the shell it was started from.
KEPT_ENVIRONMENT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "CCACHE_DIR", "SSL_CERT_FILE")

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT

GRACE = 3.0  # seconds between TERM and KILL

_GUARDIAN = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    sign, number = line[0], int(line[1:])
    groups.add(number) if sign == "+" else groups.discard(number)
for number in groups:
    try:
        os.killpg(number, signal.SIGKILL)
    except OSError:
        pass
"""


class _Guardian:
    """Kills what the rig leaves behind; see the head of the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, sign: str, group: int) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _GUARDIAN],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{sign}{group}\n".encode())
                self._process.stdin.flush()


_guardian = _Guardian()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: what is kept, a fixed locale and time zone, and `extra`."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC"} | dict(extra or {})


class Child:
    """A running process that leads its own group and does not outlive the rig."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start `argv`; raises HostError when the program is not there."""
        self.argv = tuple(str(word) for word in argv)
        try:
            self.popen = subprocess.Popen(
                self.argv,
                cwd=cwd,
                env=environment(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                process_group=0,
            )
        except FileNotFoundError as error:
            raise HostError(
                f"{self.argv[0]}: program not found", hint="run `rig doctor` to see what this host lacks"
            ) from error
        except OSError as error:
            raise HostError(f"{self.argv[0]}: cannot start: {error.strerror}") from error
        _guardian.tell("+", self.pid)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs; negative for death by signal."""
        status = self.popen.poll()
        if status is not None:
            _guardian.tell("-", self.pid)
        return status

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None when it still runs after `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)
        return self.poll()

    def stop(self, grace: float = GRACE) -> int:
        """End the whole group: TERM, after `grace` seconds KILL. Returns the exit status."""
        status = self.poll()
        if status is None and grace > 0:
            self._signal(signal.SIGTERM)
            status = self.wait(grace)
        self._signal(signal.SIGKILL)  # also for grandchildren that outlived the leader
        self.popen.wait()
        _guardian.tell("-", self.pid)
        return self.popen.returncode

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.returncode is None:
            self.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A finished process. `stdout` and `stderr` are empty when they went to a log file."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it exited with 0 in time."""
        return self.status == 0 and not self.timed_out


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    log: Path | None = None,
) -> Completed:
    """Run `argv` to its end and return what became of it, killing its group after `timeout` seconds.

    With `log`, both outputs are appended to that file instead of being returned. Undecodable bytes come back as U+FFFD.
    Raises HostError when the program cannot be started; a non-zero status is the caller's to judge.
    """
    watch, deadline = Stopwatch(), Deadline(timeout)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab")) if log else None
        child = stack.enter_context(
            Child(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.STDOUT if sink else subprocess.PIPE,
            )
        )
        timed_out = False
        try:
            out, err = child.popen.communicate(stdin, timeout=deadline.remaining)
        except subprocess.TimeoutExpired:
            timed_out = True
            child.stop()
            out, err = child.popen.communicate()
        status = child.stop(grace=0) if child.poll() is None else child.popen.returncode
    return Completed(
        argv=child.argv,
        status=status,
        stdout=(out or b"").decode(errors="replace"),
        stderr=(err or b"").decode(errors="replace"),
        seconds=watch.elapsed,
        timed_out=timed_out,
    )


def check(argv: Sequence[str | Path], *, timeout: float, cwd: Path | None = None, **kwargs: object) -> str:
    """Run `argv` and return its standard output; raises HostError with the last line of stderr when it fails."""
    done = run(argv, timeout=timeout, cwd=cwd, **kwargs)  # type: ignore[arg-type]  # forwarded to run() as they are
    if not done.ok:
        why = "timed out" if done.timed_out else (done.stderr.strip() or done.stdout.strip() or "no output")
        raise HostError(f"{' '.join(done.argv[:4])} … failed (status {done.status}): {why.splitlines()[-1]}")
    return done.stdout
