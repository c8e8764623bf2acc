"""The one module that reads the clock, so that every wait in the program has a deadline."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

monotonic = time.monotonic
sleep = time.sleep


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time, made from a number of seconds from now."""

    seconds: float
    _end: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_end", monotonic() + self.seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return monotonic() >= self._end


@dataclass(slots=True)
class Stopwatch:
    """Seconds since it was made, or since the last lap."""

    _start: float = field(default_factory=monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the present lap."""
        return monotonic() - self._start

    def lap(self) -> float:
        """Return the seconds of the present lap and begin a new one."""
        end = monotonic()
        seconds, self._start = end - self._start, end
        return seconds
