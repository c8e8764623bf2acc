"""What a command in the guest prints: kept up to a bound, and cut into lines as it comes. Pure."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

#: What is kept of the output of a command; the middle of more than this is dropped.
OUTPUT_CAP = 8 << 20


class Kept:
    """Text of bounded size: the first and the last half of `cap` bytes of what is added."""

    def __init__(self, cap: int = OUTPUT_CAP) -> None:
        self._half = cap // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        """Add `chunk` at the end."""
        room = max(0, self._half - len(self._head))
        self._head += chunk[:room]
        if rest := chunk[room:]:
            self._tail.append(rest)
            self._tail_size += len(rest)
            while self._tail_size - len(self._tail[0]) >= self._half:
                gone = len(self._tail.popleft())
                self._tail_size -= gone
                self._dropped += gone

    def text(self) -> str:
        """Return what was kept, with a note where something is missing."""
        note = f"\n[rig: {self._dropped} bytes of output dropped here]\n".encode() if self._dropped else b""
        return (bytes(self._head) + note + b"".join(self._tail)).decode(errors="replace")


class Lines:
    """Cuts a stream of bytes into lines of text for a callback."""

    LONGEST = 1 << 16  # a line longer than this is cut

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._partial = ""

    def add(self, chunk: bytes) -> None:
        """Hand on every line that `chunk` completes."""
        if self._on_line is None:
            return
        *lines, self._partial = (self._partial + self._decoder.decode(chunk)).split("\n")
        if len(self._partial) > self.LONGEST:
            lines.append(self._partial)
            self._partial = ""
        for line in lines:
            self._on_line(line.removesuffix("\r"))

    def end(self) -> None:
        """Hand on a last line that has no end."""
        rest = self._partial + self._decoder.decode(b"", final=True)
        if self._on_line is not None and rest:
            self._on_line(rest)
