"""What the rig tells a person: plain lines in a pipe, and on a terminal, below them, what is going on right now."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rig.clock import Stopwatch, monotonic
from rig.jobs import ci
from rig.jobs.ci import Service
from rig.model import Status, TrialResult
from rig.reports import summary
from rig.runs.results import Run

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from rig.front.board import Board

REFRESH = 1.0  # times a second that the screen is drawn anew: it must not take a core from the machines
_PIPE_INTERVAL = 20.0  # seconds between progress lines where no terminal shows a live one


class Ui:
    """Speaks on standard error; standard output is for what a program may want to read."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.service = ci.service()
        self.live = not quiet and self._for_people(sys.stderr)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._line: Text | None = None  # what is shown live, when no board is
        self._board: Board | None = None
        self._last = 0.0
        self._watch = Stopwatch()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        if self.quiet:
            return
        with self._lock:
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(ci.plain(text, self.service), file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """Print what the user asked for, on standard output, also when the rig is quiet."""
        print(ci.plain(text, self.service), flush=True)

    @contextmanager
    def section(self, name: str, title: str) -> Iterator[None]:
        """Fold what the block says into a section of the log, where a pipeline's log has sections. They do not nest."""
        begin = ci.begin(self.service, name, title)
        if self.quiet or not begin:
            yield
            return
        print(begin, file=sys.stderr, flush=True)
        try:
            yield
        finally:
            self.settle()
            print(ci.end(self.service, name), file=sys.stderr, flush=True)

    def stage(self, goal: str, text: str) -> None:
        """Say what a goal does, as make does: `  BUILD  debug base`."""
        self._watch.lap()
        self.say(f"  {goal.upper():<7} {text}")

    def trial(self, result: TrialResult, number: str) -> None:
        """Say how a trial ended; one that passed needs no line of its own where the board shows it."""
        if result.status is Status.PASS and self._board is not None:
            return
        self.say(
            f"  {result.status:<12} {number} {result.cell.id} {result.side} #{result.index} seed {result.seed} "
            f"({result.timing.total:.1f} s) {result.reason if result.status is not Status.PASS else ''}".rstrip()
        )

    def progress(self, text: str) -> None:
        """Show what is going on right now; in a pipe now and then, on a terminal at once."""
        if self.quiet or self._board is not None:
            return
        if self.live:
            from rich.text import Text

            with self._lock:
                # Text, not markup: it may quote a guest. One line: a wrapped one would leave its pieces behind.
                self._line = Text(text, no_wrap=True, overflow="ellipsis")
                self._start()
        elif monotonic() - self._last > _PIPE_INTERVAL:
            self._last = monotonic()
            self.say(f"          … {text} ({self._watch.elapsed:.0f} s)")

    @contextmanager
    def showing(self, board: Board) -> Iterator[None]:
        """Show the board while the block runs, where there is a terminal to show it on."""
        if not self.live:
            yield
            return
        with self._lock:
            self._board = board
            self._start()
        try:
            yield
        finally:
            self.settle()

    def _start(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True), get_renderable=self._shown, refresh_per_second=REFRESH, transient=True
            )
            self._live.start()

    def _shown(self) -> RenderableType:
        from rich.spinner import Spinner

        return self._board or Spinner("dots", self._line or "")

    def verdict(self, run: Run, root: Path) -> None:
        """Print what came out, on standard output; `root` is the run's folder as a person would type it."""
        if self._for_people(sys.stdout):
            from rich.console import Console

            from rig.front import screen

            screen.show(Console(), run, root)
        else:
            self.tell(summary.text(run, root))

    def path(self, path: Path) -> str:
        """Return a path as a person wants to paste it: relative when it is below the present folder."""
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

    def settle(self) -> None:
        """Take away what is shown live."""
        with self._lock:
            live, self._live, self._board = self._live, None, None
        if live is not None:  # not below the lock: its thread may be drawing
            live.stop()
        self._last = monotonic()
        self._watch.lap()

    def _for_people(self, stream: TextIO) -> bool:
        """Whether somebody watches: a terminal that can draw, and no pipeline."""
        return stream.isatty() and self.service is Service.NONE and os.environ.get("TERM") != "dumb"
