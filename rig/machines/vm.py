"""One virtual machine from its start to its end, whatever that end is.

The console, QMP and the process itself decide whether the machine lives; SSH never does. A thread waits on all of them
at once, so that an end is known when it happens. How a machine boots and how it ends are values (ends.py): only a
host that cannot start QEMU raises.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import shlex
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from rig.clock import Deadline, Stopwatch, sleep
from rig.errors import HostError
from rig.machines.consolelog import DEFAULT_CAP, ConsoleLog
from rig.machines.ends import BootKind, BootOutcome, VmEnd, classify
from rig.machines.qemu import TERMINAL, VmSpec, Wiring, argv
from rig.machines.qmp import Qmp, QmpError, QmpEvent
from rig.proc import Child

#: Seconds QEMU has to answer on QMP before any guest code runs. A loaded host needs one; a broken one never does it.
START_SECONDS = 30.0

#: Seconds between two reads of output. QEMU writes byte by byte; a wake-up for each would take a core from the guest.
BREATH = 0.004

#: Seconds between two looks at whether a machine is still wanted.
GLANCE = 0.1

#: Bytes of output read at once: all that a pipe may hold.
GULP = 1 << 20

#: Most that is kept of what init and sshd say, in bytes.
CHANNEL_CAP = 1 << 20


class Vm:
    """A running QEMU. Use as a context manager; leaving it ends the machine.

    In `directory`: qemu.cmd (a shell script that boots the same machine with its console on the terminal), console.log,
    channel.log (what init and sshd said) and qemu.stderr.
    """

    @classmethod
    def start(
        cls,
        spec: VmSpec,
        directory: Path,
        on_console: Callable[[bytes], None] | None = None,
        *,
        console_cap: int = DEFAULT_CAP,
    ) -> Vm:
        """Start QEMU and return when the guest begins to run; raises HostError when QEMU does not get that far.

        `on_console` gets every chunk of console output, in a thread of the machine; what it raises comes out of stop().
        """
        vm = cls(spec, directory, on_console, console_cap)
        try:
            vm._attach()
        except BaseException:
            vm._cleanup()
            raise
        return vm

    def __init__(
        self, spec: VmSpec, directory: Path, on_console: Callable[[bytes], None] | None, console_cap: int
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.spec = spec
        self.directory = directory
        self.watch = Stopwatch()
        self.ended = threading.Event()  # set once `end` is known
        self.end: VmEnd | None = None
        self.port = 0  # of SSH, on 127.0.0.1
        self.vcpu_threads: tuple[int, ...] = ()  # host thread ids, in order of the vCPUs
        self._stage = "qemu"
        self._broken: str | None = None
        self._partial = b""
        self._shutdown: QmpEvent | None = None
        self._frozen = ""
        self._killed = False
        self._change = threading.Condition()
        self._qmp: Qmp | None = None

        for name in ("kernel", "initrd", "disk"):
            path = getattr(spec, name)
            if path is not None and not os.access(path, os.R_OK):
                raise HostError(f"{path}: the machine's {name} cannot be read")
        (directory / "qemu.cmd").write_text(
            "#!/bin/sh\n# The machine of this directory, its console on this terminal: Ctrl-A X ends it.\n"
            f"exec {shlex.join(argv(spec, TERMINAL))}\n"
        )
        (directory / "qemu.cmd").chmod(0o755)
        with ExitStack() as mine, ExitStack() as theirs:
            self.console = mine.enter_context(
                ConsoleLog(directory / "console.log", cap=console_cap, on_bytes=on_console)
            )
            self.channel = mine.enter_context(
                ConsoleLog(directory / "channel.log", cap=CHANNEL_CAP, on_bytes=self._on_channel)
            )
            self._channel_socket, channel = _pair(mine, theirs)
            self._qmp_socket, qmp = _pair(mine, theirs)
            self._wake, self._waker = _pair(mine, mine)
            stdin, self._keyboard = _pipe(reader=theirs, writer=mine)
            self._screen, stdout = _pipe(reader=mine, writer=theirs)
            os.set_blocking(self._screen, False)
            self._channel_socket.setblocking(False)
            stderr = theirs.enter_context((directory / "qemu.stderr").open("wb"))
            numbers = (channel.fileno(), qmp.fileno())
            # TMPDIR: where QEMU keeps what the guest writes to its disk (unlinked at once).
            self._child = Child(
                argv(spec, Wiring.inherited(*numbers)),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=numbers,
                env={"TMPDIR": str(directory)},
            )
            self._open = mine.pop_all()
        self._thread = threading.Thread(target=self._monitor, name="rig-vm", daemon=True)
        self._thread.start()

    def _attach(self) -> None:
        """Take hold of QEMU before the guest runs its first instruction, then let it run."""
        try:
            self._qmp = Qmp(self._qmp_socket, seconds=START_SECONDS, on_event=self._on_event)
            self.port = forwarded_port(self._qmp.human("info usernet"))
            cpus = self._qmp.call("query-cpus-fast")
            self.vcpu_threads = tuple(cpu["thread-id"] for cpu in sorted(cpus, key=lambda cpu: int(cpu["cpu-index"])))
            self._qmp.call("cont")
        except QmpError as error:
            self.ended.wait(1.0)
            said = self._stderr().strip()
            why = said.splitlines()[-1] if said else str(error)
            raise HostError(
                f"QEMU does not start a machine: {why}",
                hint=f"try it by hand: {self.directory / 'qemu.cmd'}",
                evidence=self.directory / "qemu.stderr",
            ) from error

    # What the outside sees.

    @property
    def alive(self) -> bool:
        """Whether the machine still runs."""
        return not self.ended.is_set()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._child.pid

    @property
    def console_path(self) -> Path:
        """Where the console output goes."""
        return self.console.path

    def wait_ready(self, deadline: Deadline, wanted: Callable[[], bool] | None = None) -> BootOutcome:
        """Wait until init says that sshd listens, or until that cannot happen any more, or is not `wanted` any more."""

        def settled() -> bool:
            return self._stage == "ready" or self._broken is not None or not self.alive

        with self._change:
            while not settled() and not deadline.expired and (wanted is None or wanted()):
                self._change.wait(deadline.remaining if wanted is None else min(GLANCE, deadline.remaining))
        if self._stage == "ready" and self.alive:
            return self.outcome(BootKind.READY, "the machine is up")
        if self._broken is not None:
            return self.outcome(BootKind.BROKEN, f"init cannot set the machine up: {self._broken}")
        if not self.alive:
            assert self.end is not None
            return self.outcome(BootKind.DIED, f"the machine ended during boot: {self.end.detail}")
        return self.outcome(
            BootKind.HUNG, f"no sign of sshd after {self.watch.elapsed:.1f} s, last stage {self._stage}"
        )

    def outcome(self, kind: BootKind, detail: str) -> BootOutcome:
        """Return the outcome of the boot at this moment, with the evidence there is."""
        return BootOutcome(
            kind=kind,
            detail=detail,
            stage=self._stage,
            seconds=self.watch.elapsed,
            last_line=self.console.last_line,
            end=self.end,
        )

    def wait_end(self, seconds: float) -> VmEnd | None:
        """Return how the machine ended, or None when it still runs after `seconds`."""
        self.ended.wait(seconds)
        return self.end

    def qmp(self, command: str, arguments: dict[str, object] | None = None, *, seconds: float = 5.0) -> object:
        """Run a QMP command; raises QmpError when QEMU fails it, does not answer in time or is gone."""
        if self._qmp is None:
            raise QmpError(f"QMP {command}: not connected")
        return self._qmp.call(command, arguments, seconds=seconds)

    def sysrq(self, key: str) -> None:
        """Send a magic SysRq over the console (`w`: blocked tasks, `l`: backtraces of all CPUs, `t`: all tasks).

        Works on a guest that answers nothing else; for the evidence on a hang. Does nothing on a machine that ended.
        """
        with suppress(QmpError, OSError):
            self.qmp("chardev-send-break", {"id": "console"})
            os.write(self._keyboard, key.encode())

    def stop(self) -> VmEnd:
        """End the machine if it still runs, and return how it ended. May be called more than once."""
        self._cleanup()
        assert self.end is not None
        if self.console.callback_error is not None:
            raise self.console.callback_error
        return self.end

    def __enter__(self) -> Vm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._cleanup()

    # What happens inside.

    def _cleanup(self) -> None:
        if self.alive:
            self._killed = True
            if self._qmp is not None:
                with suppress(QmpError):
                    self._qmp.call("quit", seconds=1.0)
                    self.ended.wait(2.0)
            self._child.stop(grace=0)
        self._thread.join()
        if self._qmp is not None:
            self._qmp.close()
        self._open.close()

    def _on_event(self, event: QmpEvent) -> None:
        if event.name == "SHUTDOWN":
            self._shutdown = self._shutdown or event
        elif event.name == "BLOCK_IO_ERROR":
            self._frozen = f"an I/O error of the host on the guest's disk: {event.data.get('reason', 'unknown')}"
        elif event.name == "STOP":
            with suppress(OSError):
                self._waker.send(b"!")

    def _on_channel(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        self._partial = self._partial[-4096:]
        for line in lines:
            mark, _, rest = line.decode(errors="replace").strip().partition("rig: ")
            if mark or not rest:
                continue
            with self._change:
                word, _, argument = rest.partition(" ")
                if word == "stage":
                    self._stage = argument
                elif word == "ready":
                    self._stage = "ready"
                elif word == "broken":
                    self._broken = argument
                self._change.notify_all()

    def _monitor(self) -> None:
        """Wait for output and for the end; runs in the machine's thread."""
        pidfd = os.pidfd_open(self._child.pid)
        wake, channel = self._wake.fileno(), self._channel_socket.fileno()
        logs = {self._screen: self.console, channel: self.channel}
        try:
            with selectors.DefaultSelector() as selector:
                for number in (pidfd, wake, *logs):
                    selector.register(number, selectors.EVENT_READ)
                exited = False
                while not exited:
                    for key, _ in selector.select():
                        if key.fd == pidfd:
                            exited = True
                        elif key.fd == wake:
                            self._wake.recv(64)
                            self._check_frozen()
                        elif not _pump(key.fd, logs[key.fd]):
                            selector.unregister(key.fd)
                    if not exited:
                        sleep(BREATH)
            for number, log in logs.items():
                while _pump(number, log):
                    pass
        except OSError as error:
            self._frozen = f"the rig cannot keep the machine's output: {error.strerror}"
        finally:
            os.close(pidfd)
            self._conclude()

    def _check_frozen(self) -> None:
        """QEMU says that it stopped the guest. Nothing here asks it to, so the machine is lost."""
        try:
            answer = self.qmp("query-status")
            status = answer.get("status", "unknown") if isinstance(answer, dict) else "unknown"
        except QmpError as error:
            status = str(error)
        if status != "running" and self._shutdown is None:
            self._frozen = self._frozen or f"QEMU stopped the guest: {status}"
            self._child.stop(grace=0)

    def _conclude(self) -> None:
        status = self._child.stop(grace=0)
        if self._qmp is not None:
            self._qmp.closed.wait(START_SECONDS)  # the reason of the shutdown may still be on its way to us
        reason = "" if self._shutdown is None else str(self._shutdown.data.get("reason", ""))
        kind, detail = classify(reason=reason, status=status, frozen=self._frozen, killed=self._killed)
        self.console.close()  # whole before anybody is told of the end
        self.channel.close()
        self.end = VmEnd(
            kind=kind, detail=detail, status=status, stderr=self._stderr(), last_line=self.console.last_line
        )
        self.ended.set()
        with self._change:
            self._change.notify_all()

    def _stderr(self, size: int = 4096) -> str:
        with suppress(OSError), (self.directory / "qemu.stderr").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
        return ""


def _pair(one: ExitStack, other: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A socket pair whose ends are closed by `one` and `other`."""
    first, second = socket.socketpair()
    one.callback(first.close)
    other.callback(second.close)
    return first, second


def _pipe(*, reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe, as large as an ordinary user may have one, whose ends are closed by `reader` and `writer`."""
    source, sink = os.pipe()
    reader.callback(os.close, source)
    writer.callback(os.close, sink)
    with suppress(OSError):
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, GULP)
    return source, sink


def _pump(source: int, log: ConsoleLog) -> bool:
    """Move one chunk from `source` to `log`; False when there is nothing (more) to come."""
    try:
        chunk = os.read(source, GULP)
    except (BlockingIOError, ConnectionError):
        return False
    if chunk:
        log.write(chunk)
    return bool(chunk)


def forwarded_port(text: str) -> int:
    """Return the host port of the forwarded TCP connection from what `info usernet` prints; QmpError without one."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0].startswith("TCP[HOST_FORWARD]") and len(words) >= 4:
            return int(words[3])
    raise QmpError(f"no forwarded port in {text!r}")
