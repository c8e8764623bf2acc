"""Which trial runs when, and on which slot.

Base and patched run the same cells with the same seeds, side by side in time: whatever drifts on the host (heat, other
load, a filling disk) then hits both alike.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from rig.model import Cell, Side

T = TypeVar("T")

#: Past the slowest boot seen: a loaded host must not turn into an accusation.
BOOT_FACTOR, BOOT_FLOOR = 10.0, 20.0


def order(
    cells: Sequence[Cell], sides: Sequence[Side], trials: Mapping[Cell, int]
) -> tuple[tuple[Cell, Side, int], ...]:
    """Return (cell, side, index) of all trials: every cell once before any runs again, the sides taking turns.

    `trials` has the number of each cell on each side.
    """
    rounds = (
        round_of(cells, sides, {cell: index for cell in cells if index < trials[cell]})
        for index in range(max(trials.values(), default=0))
    )
    return tuple(itertools.chain.from_iterable(rounds))


def round_of(
    cells: Sequence[Cell], sides: Sequence[Side], indices: Mapping[Cell, int]
) -> tuple[tuple[Cell, Side, int], ...]:
    """Return (cell, side, index) of one more trial on each side, for those of the `cells` that have an index."""
    turns = [tuple(sides), tuple(reversed(sides))]
    return tuple(
        (cell, side, indices[cell])
        for number, cell in enumerate(cells)
        if cell in indices
        for side in turns[(indices[cell] + number) % 2]
    )


def slots(jobs: int, vcpus: Iterable[int]) -> int:
    """Return how many machines run at once: as many as have a core for each vCPU, and at least one."""
    return max(1, jobs // max(vcpus, default=1))


class BootClock:
    """The deadline of a boot: the configured one at first, later scaled from what boots of the flavour took."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._slowest: dict[str, float] = {}
        self._lock = threading.Lock()

    def deadline(self, flavour: str) -> float:
        """Return the seconds that a boot of this flavour may take."""
        with self._lock:
            slowest = self._slowest.get(flavour)
        return self._first if slowest is None else min(self._first, BOOT_FLOOR + BOOT_FACTOR * slowest)

    def note(self, flavour: str, seconds: float) -> None:
        """Take the measured seconds of a boot into account."""
        with self._lock:
            self._slowest[flavour] = max(seconds, self._slowest.get(flavour, 0.0))


def execute(tasks: Sequence[T], run: Callable[[T], None], *, count: int, stop: threading.Event) -> None:
    """Run every task on one of `count` slots.

    The first exception of a task, or an interrupt here, sets `stop` (which the tasks watch) and is raised when all
    slots have come to rest.
    """
    waiting = deque(tasks)
    failures: list[BaseException] = []

    def slot() -> None:
        while not stop.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                run(task)
            except BaseException as error:
                failures.append(error)
                stop.set()

    threads = [threading.Thread(target=slot, name=f"rig-slot-{number}") for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)  # in pieces, so that an interrupt is seen
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]
