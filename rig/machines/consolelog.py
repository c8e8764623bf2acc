"""The log of a guest's console: live, complete in ordinary life, and bounded when a guest floods it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

DEFAULT_CAP = 64 << 20


class ConsoleLog:
    """Writes every chunk to a file and hands it to a callback.

    The first half of `cap` bytes and at least the last quarter are kept; what was between is replaced by a line that
    says how much is missing. While it runs the head is in `path` and the tail in up to two files beside it
    (`.tail`, `.tail.old`), which close() joins. Memory use does not depend on what the guest prints.
    """

    def __init__(self, path: Path, *, cap: int = DEFAULT_CAP, on_bytes: Callable[[bytes], None] | None = None) -> None:
        self.path = path
        self.total = 0  # bytes the guest printed
        self.dropped = 0  # bytes that are not kept
        self.callback_error: Exception | None = None
        self._head_size, self._tail_size = cap // 2, cap // 4
        self._on_bytes = on_bytes
        self._tail, self._old = path.with_name(path.name + ".tail"), path.with_name(path.name + ".tail.old")
        for stale in (self._tail, self._old):
            stale.unlink(missing_ok=True)
        self._file: BinaryIO | None = path.open("wb", buffering=0)
        self._room = self._head_size
        self._last = b""

    def write(self, chunk: bytes) -> None:
        """Keep `chunk`, then hand it on. An exception of the callback is kept and ends the handing on, not the log."""
        self.total += len(chunk)
        self._last = (self._last + chunk)[-4096:]
        rest = memoryview(chunk)
        while rest and self._file is not None:
            if not self._room:
                self._next_file()
            part = rest[: self._room]
            self._file.write(part)
            self._room -= len(part)
            rest = rest[len(part) :]
        if self._on_bytes is not None and self.callback_error is None:
            try:
                self._on_bytes(chunk)
            except Exception as error:
                self.callback_error = error

    def _next_file(self) -> None:
        assert self._file is not None
        self._file.close()
        if self._tail.exists():
            if self._old.exists():
                self.dropped += self._old.stat().st_size
            self._tail.replace(self._old)
        self._file = self._tail.open("wb", buffering=0)
        self._room = self._tail_size

    @property
    def last_line(self) -> str:
        """The last line with something in it, for a sentence on how the machine ended."""
        lines = [line.strip() for line in self._last.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def close(self) -> None:
        """Join the parts into one file. May be called more than once."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        tails = [part for part in (self._old, self._tail) if part.exists()]
        if not tails:
            return
        with self.path.open("ab") as log:
            if self.dropped:
                log.write(f"\n[rig: {self.dropped} bytes of console output dropped here]\n".encode())
            for part in tails:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, log, 1 << 20)
                part.unlink()

    def __enter__(self) -> ConsoleLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
