"""The lines of a console: where they begin, what the kernel puts ahead of each, and which of them may matter."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rig.splatformats import CUT_HERE, PREAMBLE, TRIGGERS

MAX_LINE = 4096  # bytes of a line that are looked at
PREAMBLE_LINES = 40
PREAMBLE_BYTES = 6000

_PREFIX = re.compile(
    r"(?:<\d{1,3}>)?(?:\[ *(?P<time>\d{1,9}\.\d{6})\](?:\[ *(?P<caller>[TC]\d+)\])?|\[ *(?P<only>[TC]\d+)\])(?: |$)"
)
_LATE = re.compile(r"\[ *\d{1,9}\.\d{6}\](?:\[ *[TC]\d+\])? ")
PREFIX_BYTES = re.compile(rb"^(?:<\d{1,3}>)?\[ *(?:\d{1,9}\.\d{6}\]|[TC]\d+\] )", re.MULTILINE)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class Line:
    """One line, taken apart."""

    number: int
    text: str  # as it was printed
    message: str  # without the printk prefix
    caller: str | None
    time: float | None
    kernel: bool  # has a printk prefix


@dataclass(frozen=True, slots=True)
class Context:
    """The bytes ahead of a line, cut out only when they are asked for."""

    before: bytes
    block: bytes
    start: int

    def preamble(self, head: Line, taken: int) -> list[Line]:
        """Return the lines right ahead of `head`, of the same caller, that belong to it; none that is <= `taken`."""
        data = self.block[max(0, self.start - PREAMBLE_BYTES) : self.start]
        if self.start < PREAMBLE_BYTES:
            data = self.before[-(PREAMBLE_BYTES - self.start) :] + data
        raws = data.split(b"\n")[:-1][-PREAMBLE_LINES:]
        lines = [take_apart(raw[:MAX_LINE], head.number - len(raws) + i) for i, raw in enumerate(raws)]
        mine = [
            line for line in lines if line.caller == head.caller and line.number > taken and line.kernel == head.kernel
        ]
        cut = next((i for i in range(len(mine) - 1, -1, -1) if CUT_HERE.match(mine[i].message)), None)
        first = len(mine)
        if cut is not None and len(mine) - cut <= 6:
            first = cut
        while first > 0 and PREAMBLE.match(mine[first - 1].message):
            first -= 1
        return mine[first:]


class Triggers:
    """Finds the next place in a block at which any of the trigger words stands."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._next = dict.fromkeys(TRIGGERS, -1)  # -1: not searched yet
        self._gone = len(block) + 1

    def after(self, position: int) -> int:
        """Return the first hit at or after `position`, or -1."""
        for word, where in self._next.items():
            if where < position:
                hit = self._block.find(word, position)
                self._next[word] = self._gone if hit < 0 else hit
        first = min(self._next.values())
        return -1 if first >= self._gone else first


def take_apart(raw: bytes, number: int) -> Line:
    """Return line `number`: its text without escape sequences, and what the kernel put ahead of the message."""
    text = raw.rstrip(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    match = _PREFIX.match(text) or _late_prefix(text)
    if match is None:
        return Line(number, text, text, None, None, kernel=False)
    time = float(match["time"]) if match["time"] else None
    return Line(number, text, text[match.end() :], match["caller"] or match["only"], time, kernel=True)


def _late_prefix(text: str) -> re.Match[str] | None:
    """The prefix of a kernel message behind a program's output that did not end its line, such as a prompt."""
    bracket = _LATE.search(text)
    return _PREFIX.match(text, bracket.start()) if bracket else None
