"""What is going on in a run, as a table that is drawn anew every second: done, running, failed.

The state is told by the campaign's threads and drawn by the screen's; it keeps counts only, so a long run costs no more
than a short one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from rig.clock import monotonic
from rig.model import Cell, Side, Status, TrialResult
from rig.reports.printable import shown
from rig.reports.words import SHORT, duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


#: Before any trial has ended: what one takes beside its budget, in seconds.
BESIDE = 8.0
REMEMBERED = 50  # durations of trials that the time left is worked out from
STYLES = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.CRASH: "bold red",
    Status.TIMEOUT: "bold red",
    Status.LOST: "magenta",
    Status.INCONCLUSIVE: "yellow",
    Status.SKIP: "dim",
}


@dataclass(slots=True)
class _Row:
    cell: Cell
    done: dict[Side, dict[Status, int]] = field(default_factory=lambda: {side: {} for side in Side})
    running: dict[Side, tuple[float, str]] = field(default_factory=dict)  # since when, and what it said last
    title: str = ""  # of the first failure

    @property
    def bad(self) -> bool:
        return any(status.bad for side in self.done.values() for status in side)


class Board:
    """Cells and what became of their trials. All methods may be called from any thread."""

    def __init__(self, *, budget: float, clock: Callable[[], float] = monotonic) -> None:
        self.total = 0  # trials
        self.done = 0
        self.slots = 1  # machines that run at once
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[Cell, _Row] = {}
        self._took: deque[float] = deque([budget + BESIDE], maxlen=REMEMBERED)
        self._failed = 0

    def expect(self, trials: Iterable[Cell]) -> None:
        """These trials are planned, each by its cell, in the order in which they are run."""
        with self._lock:
            for cell in trials:
                self.total += 1
                self._rows.setdefault(cell, _Row(cell))

    def started(self, cell: Cell, side: Side) -> None:
        """A trial is running."""
        with self._lock:
            self._rows.setdefault(cell, _Row(cell)).running[side] = (self._clock(), "boots")

    def said(self, cell: Cell, side: Side, text: str) -> None:
        """The trial that is running said something worth a few words."""
        with self._lock:
            if known := self._rows[cell].running.get(side):
                self._rows[cell].running[side] = (known[0], text)

    def stopped(self, cell: Cell, side: Side) -> None:
        """The trial is over, with a result or without."""
        with self._lock:
            self._rows[cell].running.pop(side, None)

    def ended(self, result: TrialResult) -> None:
        """There is a result, of this run or of an earlier attempt at it."""
        with self._lock:
            row = self._rows.setdefault(result.cell, _Row(result.cell))
            counted = row.done[result.side]
            counted[result.status] = counted.get(result.status, 0) + 1
            self.done += 1
            self._failed += result.status.bad
            self._took.append(result.timing.total)
            if result.status.bad and not row.title:
                row.title = result.findings[0].title if result.findings else result.reason

    @property
    def seconds_left(self) -> float:
        """What the trials that are left will take, by the median of those that are done."""
        return max(0, self.total - self.done) * median(self._took) / self.slots

    def headline(self) -> str:
        """Return how far the run is, in one line."""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self.done} of {self.total} trials{failed}, about {duration(self.seconds_left)} left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            room = max(1, (options.height or console.height) - 4)
            ranked = sorted(self._rows.values(), key=lambda row: (not row.running, not row.bad))
            # Those that run and those that failed, if not all find room; in the order of the run.
            chosen = {id(row) for row in ranked[:room]}
            narrow = options.max_width < 80
            table = Table(box=None, pad_edge=False, padding=(0, 1), expand=True, show_header=not narrow)
            for head in ("cell", "base", "patched", *(() if narrow else ("",))):
                table.add_column(head, ratio=None if head else 1, no_wrap=True, overflow="ellipsis")
            for row in self._rows.values():
                if id(row) in chosen:
                    words = [Text(row.cell.id), *(self._side(row, side) for side in (Side.BASE, Side.PATCHED))]
                    table.add_row(*words, *(() if narrow else (self._remark(row),)))
            hidden = len(self._rows) - len(chosen)
            head = Text(self.headline() + (f"; {hidden} more cells" if hidden else ""), style="bold")
        head.no_wrap, head.overflow = True, "ellipsis"
        yield head
        yield table

    def _side(self, row: _Row, side: Side) -> Text:
        from rich.text import Text

        told = Text()
        for status, name in SHORT.items():
            if number := row.done[side].get(status):
                told.append(f"{number} {name} ", STYLES[status])
        if side in row.running:
            left = median(self._took) - (self._clock() - row.running[side][0])
            told.append(f"▶ {left:.0f} s left" if left > 0 else "▶ soon", "cyan")
        return told

    def _remark(self, row: _Row) -> Text:
        from rich.text import Text

        if row.running:
            side, (_, said) = next(iter(row.running.items()))
            return Text(shown(f"{side}: {said}"), "cyan")
        return Text(shown(row.title), "red")
