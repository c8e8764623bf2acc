"""What a report quotes of logs, of which a guest may have written a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rig.reports.printable import shown

BEFORE, AFTER = 30, 15  # lines of context
MOST_LINES = 160
LONGEST = 400  # characters of a line


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log, by its number counted from 1."""

    number: int
    text: str
    inside: bool  # of what was asked for, not of its surroundings


def excerpt(log: Path, first: int, last: int) -> tuple[Line, ...]:
    """Return lines `first` to `last` of a log with their surroundings, bounded; () when it cannot be read."""
    start = max(1, first - BEFORE)
    end = min(last + AFTER, start + MOST_LINES - 1)
    try:
        with log.open("rb") as file:
            # Not by readline(): one line may have a gigabyte as well.
            chosen = islice(_lines(file.fileno()), start - 1, end)
            return tuple(Line(number, text, first <= number <= last) for number, text in enumerate(chosen, start))
    except OSError:
        return ()


def _lines(file: int) -> Iterator[str]:
    """Yield the lines of an open file, each cut to LONGEST."""
    import os

    line = b""
    length = 0
    while chunk := os.read(file, 1 << 16):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield _text(line + piece[: LONGEST + 1], length + len(piece))
            line, length = b"", 0
        line, length = (line + rest)[: LONGEST + 1], length + len(rest)
    if length:
        yield _text(line, length)


def _text(line: bytes, length: int) -> str:
    text = shown(line[:LONGEST].decode("utf-8", "backslashreplace").rstrip("\r"))
    return f"{text} [... {length - LONGEST} bytes more]" if length > LONGEST else text
