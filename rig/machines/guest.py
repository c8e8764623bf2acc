"""The one module that speaks SSH.

One connection per machine, and over it any number of commands, each in a session (process group) of its own in the
guest. A deadline kills that group through a second channel. Whether the machine lives is not for SSH to say: a command
asks the machine, and comes back as lost when it is gone, even if the TCP connection still stands.
"""

from __future__ import annotations

import itertools
import logging
import shlex
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rig.clock import Deadline, Stopwatch
from rig.errors import HostError
from rig.guests.keys import HOST_ALIAS, RunKeys
from rig.machines.ends import BootKind, BootOutcome
from rig.machines.output import OUTPUT_CAP, Kept, Lines
from rig.machines.state import COMMAND, parse_state
from rig.machines.vm import Vm
from rig.model import GuestState

if TYPE_CHECKING:
    from paramiko import Channel, Transport


#: Seconds between two looks at the machine while a command is silent.
GLANCE = 0.05

#: Seconds a killed command has to be gone before its channel is given up.
KILL_SECONDS = 5.0

T = TypeVar("T")

_SILENCE = logging.NullHandler()


class NoAnswerError(Exception):
    """The machine runs and its sshd does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRun:
    """What became of a command in the guest."""

    status: int | None  # None when it was lost or killed; 128 + n for death by signal n
    stdout: str  # undecodable bytes are U+FFFD; the middle of very long output is replaced by a note
    stderr: str
    seconds: float
    timed_out: bool = False  # its group was killed at the deadline
    lost: bool = False  # the machine, or the connection to it, ended first

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.status == 0


class _Running:
    """A command in the guest: its channel, and what was kept of its output."""

    #: Chunks taken in one step, so that a command that floods does not keep its deadline from being looked at.
    CHUNKS = 64

    def __init__(self, cap: int, on_line: Callable[[str], None] | None) -> None:
        self.channel: Channel | None = None
        self.news = threading.Event()  # set by output and by its end
        self.stdout, self.stderr = Kept(cap), Kept(cap)
        self._lines = Lines(on_line)

    def step(self, *, final: bool) -> bool:
        """Take what output there is, all of it when `final`; True when the command is over."""
        assert self.channel is not None
        self.news.clear()
        # Looked at before the output is taken, so that nothing can come after it.
        ended = self.channel.closed or (self.channel.exit_status_ready() and bool(self.channel.eof_received))
        chunks = 0
        while self.channel.recv_stderr_ready():
            self.stderr.add(self.channel.recv_stderr(1 << 16))
        while self.channel.recv_ready() and (final or ended or chunks < self.CHUNKS):
            chunk = self.channel.recv(1 << 16)
            self.stdout.add(chunk)
            self._lines.add(chunk)
            chunks += 1
        if chunks == self.CHUNKS:
            self.news.set()
        return ended or final

    def close(self) -> int | None:
        """Close the channel and return the exit status, None when the command did not leave one."""
        if self.channel is None:
            return None
        self._lines.end()
        status = self.channel.recv_exit_status() if self.channel.exit_status_ready() else -1
        with suppress(Exception):  # the connection may be gone, of which the exit status told all there is to know
            self.channel.close()
        return None if status == -1 else status


class Guest:
    """A logged-in connection to a machine."""

    def __init__(self, connection: Any, vm_alive: Callable[[], bool]) -> None:
        """Use connect()."""
        self._connection = connection
        self._vm_alive = vm_alive
        self._numbers = itertools.count(1)

    @classmethod
    def connect(cls, port: int, keys: RunKeys, deadline: Deadline, vm_alive: Callable[[], bool]) -> Guest:
        """Log in as root on 127.0.0.1:`port`; the host key must be the one of `keys`.

        Raises NoAnswerError when sshd does not let us in before `deadline` (or the machine ends), and HostError when
        something else answers on that port.
        """
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        attempt = 0
        error: Exception | None = None
        while not deadline.expired and vm_alive():
            attempt += 1
            connection = _connection(port, keys, deadline)
            try:
                _attended(connection.open, deadline, vm_alive)
                return cls(connection, vm_alive)
            except BadHostKeyException as wrong:
                raise HostError(
                    f"127.0.0.1:{port} answers with another host key than this run's guest has",
                    hint="something else took the port; look at what listens there",
                ) from wrong
            except (SSHException, OSError, EOFError, _Lost) as failure:
                transport = connection.client.get_transport()
                # paramiko also says so when the connection breaks while it logs in; only then is it worth another try.
                refused = isinstance(failure, AuthenticationException) and transport is not None and transport.active
                connection.client.close()
                if refused:
                    raise NoAnswerError(f"sshd refuses the key of this run ({failure})") from failure
                error = failure
                # A refused or reset connection: sshd said it listens, so it is about to, or it never will.
                threading.Event().wait(min(0.05 * attempt, 0.5, deadline.remaining))
        why = f"{type(error).__name__}: {error}" if error is not None else "no time left"
        raise NoAnswerError(f"sshd did not let us in after {attempt} attempts ({why})")

    def run(
        self,
        command: str,
        seconds: float,
        on_line: Callable[[str], None] | None = None,
        *,
        cap: int = OUTPUT_CAP,
        stdin: bytes | None = None,
    ) -> GuestRun:
        """Run a shell command for at most `seconds` and return what became of it.

        `on_line` gets every line of standard output as it comes; `stdin` is all that the command can read. At the
        deadline the command's process group is killed in the guest. When the machine ends, this returns at once with
        `lost`.
        """
        watch, deadline = Stopwatch(), Deadline(seconds)
        group = f"/run/rig.{next(self._numbers)}"
        running = _Running(cap, on_line)
        timed_out = False
        try:
            inner = f"echo $$ >{group}; {command}"
            running.channel = self._start(f"exec setsid sh -c {shlex.quote(inner)}", deadline, running.news)
            if stdin is not None:
                self._feed(running.channel, stdin, deadline)
            while not running.step(final=not self._here()):
                if not deadline.expired:
                    running.news.wait(min(GLANCE, deadline.remaining))
                elif timed_out:
                    break
                else:
                    timed_out, deadline = True, Deadline(KILL_SECONDS)
                    self._kill(group, deadline)
        except TimeoutError:
            timed_out = True
        except _Lost:
            pass
        finally:
            status = running.close()
        return GuestRun(
            status=None if timed_out else status,
            stdout=running.stdout.text(),
            stderr=running.stderr.text(),
            seconds=watch.elapsed,
            timed_out=timed_out,
            lost=status is None and not timed_out,
        )

    def read_state(self, seconds: float = 30.0) -> GuestState:
        """Ask the guest what machine it is, in one command; raises NoAnswerError when it does not say."""
        done = self.run(COMMAND, seconds)
        if not done.ok:
            raise NoAnswerError(f"the guest does not tell its state (status {done.status}): {done.stderr.strip()}")
        return parse_state(done.stdout)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _here(self) -> bool:
        """Whether the machine runs and the connection stands."""
        return self._vm_alive() and self._transport.is_active()

    @property
    def _transport(self) -> Transport:
        transport: Transport = self._connection.transport
        return transport

    def _start(self, line: str, deadline: Deadline, news: threading.Event | None = None) -> Channel:
        """Start a command line of the guest's shell; raises _Lost or TimeoutError."""
        from paramiko import SSHException

        def work() -> Channel:
            channel = self._transport.open_session(timeout=max(1.0, deadline.remaining))
            if news is not None:
                channel.in_buffer.set_event(news)
                channel.in_stderr_buffer.set_event(news)
            channel.exec_command(line)
            return channel

        try:
            return _attended(work, deadline, self._here)
        except TimeoutError:
            raise
        except (SSHException, OSError, EOFError) as error:
            raise _Lost from error

    def _feed(self, channel: Channel, data: bytes, deadline: Deadline) -> None:
        """Write the standard input of a command and close it, as far as the deadline allows; raises _Lost."""

        def work() -> None:
            with suppress(OSError):  # the command did not want it all; why is for its exit status to say
                channel.sendall(data)
                channel.shutdown_write()

        with suppress(TimeoutError):  # the caller looks at the deadline next, and kills the command
            _attended(work, deadline, self._here)

    def _kill(self, group: str, deadline: Deadline) -> None:
        """Kill the session that left its id in the guest's file `group`."""
        with suppress(_Lost, TimeoutError):
            self._start(f"read p <{group} && kill -KILL -$p", deadline)


class _Lost(Exception):
    """The machine or the connection is gone."""


def _attended(work: Callable[[], T], deadline: Deadline, alive: Callable[[], bool]) -> T:
    """Return what `work` returns or raises, unless the deadline (TimeoutError) or the machine's end (_Lost) is first.

    What paramiko waits for, it waits for without an eye on the machine; so it waits in a thread, which ends when the
    caller closes the connection.
    """
    box: list[T] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            box.append(work())
        except BaseException as error:
            failure.append(error)
        done.set()

    threading.Thread(target=run, name="rig-ssh", daemon=True).start()
    while not done.wait(min(GLANCE, deadline.remaining)):
        if not alive():
            raise _Lost("the machine ended")
        if deadline.expired:
            raise TimeoutError("no answer in time")
    if failure:
        raise failure[0]
    return box[0]


def _connection(port: int, keys: RunKeys, deadline: Deadline) -> Any:
    """Return a fabric connection, yet to be opened, that trusts the pinned host key and offers the run's key alone."""
    from fabric import Config, Connection
    from paramiko import Ed25519Key, RejectPolicy
    from paramiko.hostkeys import HostKeyEntry

    pinned = HostKeyEntry.from_line(f"{HOST_ALIAS} {keys.host_public}")
    assert pinned is not None
    assert pinned.key is not None
    left = max(1.0, deadline.remaining)
    connection = Connection(
        "127.0.0.1",
        user="root",
        port=port,
        config=Config(lazy=True, overrides={"load_ssh_configs": False}),
        connect_timeout=left,
        connect_kwargs={
            "pkey": Ed25519Key.from_private_key_file(str(keys.client_private)),
            "allow_agent": False,
            "look_for_keys": False,
            "compress": False,
            "banner_timeout": left,
            "auth_timeout": left,
            "channel_timeout": left,
            "transport_factory": _transport,
        },
    )
    connection.client.set_missing_host_key_policy(RejectPolicy())
    connection.client.get_host_keys().add(f"[127.0.0.1]:{port}", "ssh-ed25519", pinned.key)
    # paramiko logs tracebacks of what it raises anyway; without a handler they would go to the terminal.
    logging.getLogger("paramiko").addHandler(_SILENCE)
    return connection


def _transport(sock: socket.socket, **kwargs: Any) -> Transport:
    """A transport with what is cheapest in an emulated guest: one key exchange to agree on, AES-CTR, SHA-256."""
    from paramiko import Transport

    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = Transport(sock, default_window_size=1 << 23, **kwargs)
    options = transport.get_security_options()
    options.kex = ("curve25519-sha256@libssh.org",)
    options.ciphers = ("aes128-ctr",)
    options.digests = ("hmac-sha2-256",)
    return transport


def preload() -> None:
    """Import what connect() needs; a third of a second of work to be done while a machine boots."""
    import fabric
    import paramiko

    _ = fabric, paramiko


def reach(
    vm: Vm, keys: RunKeys, deadline: Deadline, alive: Callable[[], bool] | None = None
) -> tuple[BootOutcome, Guest | None]:
    """Wait for the machine to boot and log in. The guest is None unless the outcome is READY.

    `alive` says whether the machine is still worth waiting for (default: as long as it runs); a command in the guest
    comes back as lost when it is not.

    Raises HostError when the machine's port is answered by something else.
    """
    preload()
    outcome = vm.wait_ready(deadline, alive)
    if not outcome.ok:
        return outcome, None
    try:
        guest = Guest.connect(vm.port, keys, deadline, alive or (lambda: vm.alive))
    except NoAnswerError as error:
        if vm.wait_end(0.2) is not None:
            assert vm.end is not None
            return vm.outcome(BootKind.DIED, f"the machine ended before it let us in: {vm.end.detail}"), None
        return vm.outcome(BootKind.NO_SSH, str(error)), None
    return vm.outcome(BootKind.READY, "the machine is up and logged in to"), guest
