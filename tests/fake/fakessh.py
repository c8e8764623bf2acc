"""An SSH server for tests: it runs real commands on this host, in place of a guest's dropbear.

The guest side files of the rig (/run/rig.*) are redirected into a folder of the server, so that the rig's own wrapper,
its sessions and its kills run as they do in a guest. A command that a `Reply` matches is answered by it instead.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED


@dataclass(frozen=True)
class Reply:
    """What a command that matches `pattern` does: print, take its time, and end or never end."""

    pattern: str
    stdout: str = ""
    status: int = 0
    seconds: float = 0.0
    then: str = ""  # name of something that happens to the machine after the output


def host_key(dropbear: bytes) -> paramiko.Ed25519Key:
    """Convert a host key in dropbear's format."""
    seed = dropbear[-64:-32]
    pem = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key.from_private_key(io.StringIO(pem.decode()))


class _Session(paramiko.ServerInterface):
    def __init__(self, server: FakeSsh) -> None:
        self.server = server

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and f"{key.get_name()} {key.get_base64()}" in self.server.authorized
        return AUTH_SUCCESSFUL if good else AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.server.answering.wait()
        # A moment later: the answer to this very request must be out before a quick command closes the channel.
        threading.Timer(0.05, self.server.execute, args=(channel, command.decode())).start()
        return True


class FakeSsh:
    """Listens on 127.0.0.1 until closed. `port` is where; `commands` are those it was sent."""

    def __init__(
        self,
        key: bytes,
        authorized: str,
        folder: Path,
        *,
        replies: Sequence[Reply] = (),
        on_event: Callable[[str], None] = lambda _: None,
        listener: socket.socket | None = None,
    ) -> None:
        self.authorized = authorized
        self.folder = folder
        self.replies = replies
        self.commands: list[str] = []
        self.transports: list[paramiko.Transport] = []
        self.answering = threading.Event()  # while it is clear, a command is taken and never answered
        self.answering.set()
        self._key = host_key(key)
        self._on_event = on_event
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, drop every connection, and end what a rig that fails its test left running."""
        self._listener.close()
        self.answering.set()
        for transport in self.transports:
            transport.close()
        for file in self.folder.glob("rig.*"):
            with suppress(OSError, ValueError):
                os.killpg(int(file.read_text()), signal.SIGKILL)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self._key)
            try:
                transport.start_server(server=_Session(self))
            except (paramiko.SSHException, EOFError, OSError):
                continue
            self.transports.append(transport)

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """Run one command, as its own thread."""
        self.commands.append(command)
        try:
            for reply in self.replies:
                if re.search(reply.pattern, command):
                    channel.sendall(reply.stdout.encode())
                    time.sleep(reply.seconds)
                    if reply.then:
                        self._on_event(reply.then)
                    channel.send_exit_status(reply.status)
                    return
            self._really(channel, command)
        except (OSError, EOFError, paramiko.SSHException):
            pass  # the client is gone
        finally:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()

    def _really(self, channel: paramiko.Channel, command: str) -> None:
        here = command.replace("/run/rig.", f"{self.folder}/rig.")
        with subprocess.Popen(
            ["sh", "-c", here], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            source, sink = process.stderr, process.stdin

            def hand_in() -> None:
                with contextlib.suppress(OSError, ValueError), sink:
                    while chunk := channel.recv(1 << 16):
                        sink.write(chunk)

            threading.Thread(target=hand_in, daemon=True).start()

            def pass_errors_on() -> None:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException, ValueError):
                    channel.sendall_stderr(source.read())

            errors = threading.Thread(target=pass_errors_on, daemon=True)
            errors.start()
            try:
                while chunk := process.stdout.read(1 << 16):  # unbuffered: what there is
                    channel.sendall(chunk)
            except OSError:
                process.kill()
                raise
            errors.join()
            status = process.wait()
        channel.send_exit_status(status if status >= 0 else 128 - status)
