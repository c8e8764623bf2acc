"""QMP, synchronously: a thread of its own runs the asyncio client, and every call has a deadline."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

T = TypeVar("T")


class QmpError(Exception):
    """QEMU did not answer, answered with an error, or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QmpEvent:
    """Something QEMU reported by itself, such as SHUTDOWN or STOP."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Qmp:
    """A connection to QEMU's monitor."""

    def __init__(self, sock: socket.socket, *, seconds: float, on_event: Callable[[QmpEvent], None]) -> None:
        """Negotiate over the connected `sock`; raises QmpError when QEMU does not within `seconds`.

        `on_event` is called in the connection's thread, once per event, in order; it must not block. `closed` is set
        after the last event was delivered.
        """
        from qemu.qmp import QMPClient

        self.closed = threading.Event()
        self._on_event = on_event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rig-qmp", daemon=True)
        self._client: QMPClient = QMPClient()
        self._client.logger = _quiet_logger()
        self._sock = sock
        self._watch: asyncio.Task[None] | None = None
        self._thread.start()
        try:
            self._await(self._connect(), seconds)
        except BaseException:
            self.close()
            raise

    def call(self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = 5.0) -> Any:
        """Run `command` and return its answer; raises QmpError when it fails or takes longer than `seconds`."""
        return self._await(self._client.execute(command, arguments), seconds, what=command)

    def human(self, command: str, *, seconds: float = 5.0) -> str:
        """Run a command of the human monitor and return what it prints."""
        return str(self.call("human-monitor-command", {"command-line": command}, seconds=seconds))

    def close(self) -> None:
        """Disconnect and end the thread. May be called more than once."""
        if self._thread.is_alive() and not self._loop.is_closed():
            with suppress(QmpError):
                self._await(self._disconnect(), 2.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2.0)
        self._sock.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.close()
            self.closed.set()

    async def _connect(self) -> None:
        from qemu.qmp import EventListener

        # A filter that takes nothing sees every event as it arrives, in order, the last one before the end included.
        self._client.register_listener(EventListener(event_filter=self._report))
        await self._client.connect(self._sock)
        self._watch = self._loop.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        from qemu.qmp import Runstate

        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()
        self.closed.set()

    def _report(self, message: Mapping[str, Any]) -> bool:
        self._on_event(QmpEvent(name=str(message["event"]), data=message.get("data", {})))
        return False

    async def _disconnect(self) -> None:
        try:
            await self._client.disconnect()
        except Exception as error:
            raise QmpError(str(error)) from error

    def _await(self, work: Coroutine[Any, Any, T], seconds: float, what: str = "connection") -> T:
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
            raise QmpError(f"QMP {what}: the connection is closed")
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop)
        try:
            return future.result(seconds + 1.0)
        except QmpError:
            raise
        except (TimeoutError, FutureTimeout) as error:
            future.cancel()
            raise QmpError(f"QMP {what}: no answer within {seconds:g} s") from error
        except Exception as error:  # qemu.qmp wraps, and its base class is not that of every error it lets through
            raise QmpError(f"QMP {what}: {str(error) or type(error).__name__}") from error


def _quiet_logger() -> logging.Logger:
    """A logger without an outlet: what goes wrong is raised to the caller, who knows whether it matters."""
    logger = logging.Logger("rig.qmp")
    logger.addHandler(logging.NullHandler())
    return logger
