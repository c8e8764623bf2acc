"""The one module that starts processes.

Every child leads a process group of its own. A deadline kills that whole group: TERM, then KILL, then wait. Should the
rig itself die, by SIGKILL even, a guardian process kills what it started: it holds the read end of a pipe whose write
end only the rig has, so the end of the file is the death of the rig, and it knows the rig's descendants by a mark in
their environment. PR_SET_PDEATHSIG would not do: it is bound to the thread that forked, and it does not reach
grandchildren such as the compilers under make.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import uuid
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

_MARK = f"RIG_FAMILY={uuid.uuid4().hex}"  # in the environment of every descendant

_GUARDIAN = """
import os, signal, sys, time
sys.stdin.read()
mark = sys.argv[1].encode()
for _ in range(50):
    found = False
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\\0"):
                    found = True
                    os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass
    if not found:
        break
    time.sleep(0.02)  # once more: one of them may have been about to fork
"""


class _Guardian:
    """Kills what the rig leaves behind; see the head of the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe = -1

    def begin(self) -> None:
        """Start the process, unless it runs already. In a session of its own: no Ctrl-C of the rig's reaches it."""
        with self._lock:
            if self._pipe >= 0:
                return
            end, self._pipe = os.pipe()
            null = os.open(os.devnull, os.O_RDWR)
            argv = [sys.executable, "-I", "-S", "-c", _GUARDIAN, _MARK]
            streams = [(os.POSIX_SPAWN_DUP2, end, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
            os.posix_spawn(sys.executable, argv, {}, file_actions=streams, setsid=True)
            os.close(end)
            os.close(null)


_guardian = _Guardian()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: what is kept, a fixed locale and time zone, and `extra`."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    name, _, value = _MARK.partition("=")
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC", name: value} | dict(extra or {})


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
        foreground: bool = False,
    ) -> None:
        """Start `argv`; raises HostError when the program is not there.

        With `foreground` it stays in the rig's own process group, as a program that talks to the terminal must.
        """
        self.argv = tuple(str(word) for word in argv)
        self._foreground = foreground
        _guardian.begin()
        try:
            self.popen = subprocess.Popen(
                self.argv,
                cwd=cwd,
                env=environment(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                process_group=None if foreground else 0,
            )
        except FileNotFoundError as error:
            raise HostError(
                f"{self.argv[0]}: program not found", hint="run `rig doctor` to see what this host lacks"
            ) from error
        except OSError as error:
            raise HostError(f"{self.argv[0]}: cannot start: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs; negative for death by signal."""
        return self.popen.poll()

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
        return self.popen.returncode

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            (os.kill if self._foreground else os.killpg)(self.pid, number)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.returncode is None:
            self.stop()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


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
