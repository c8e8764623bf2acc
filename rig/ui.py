"""What the rig tells a person: plain lines in a pipe, one live line below them on a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rig import ci
from rig.ci import Service
from rig.clock import Stopwatch, monotonic

if TYPE_CHECKING:
    from rich.status import Status as RichStatus

_PIPE_INTERVAL = 20.0  # seconds between progress lines where no terminal shows a live one


class Ui:
    """Speaks on standard error; standard output is for what a program may want to read."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.service = ci.service()
        pipeline = self.service is not Service.NONE
        self.live = not quiet and sys.stderr.isatty() and not pipeline and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._status: RichStatus | None = None
        self._last = 0.0
        self._watch = Stopwatch()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        if self.quiet:
            return
        with self._lock:
            if self._status is not None:
                self._status.console.print(text, markup=False, highlight=False)
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

    def progress(self, text: str) -> None:
        """Show what is going on right now; in a pipe now and then, on a terminal at once."""
        if self.quiet:
            return
        if self.live:
            with self._lock:
                if self._status is None:
                    from rich.console import Console

                    self._status = Console(stderr=True).status("")
                    self._status.start()
                from rich.text import Text

                # Text, not markup: it may quote a guest. One line: a wrapped one would leave its pieces behind.
                self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif monotonic() - self._last > _PIPE_INTERVAL:
            self._last = monotonic()
            self.say(f"          … {text} ({self._watch.elapsed:.0f} s)")

    def path(self, path: Path) -> str:
        """Return a path as a person wants to paste it: relative when it is below the present folder."""
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

    def settle(self) -> None:
        """Take the live line away."""
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None
        self._last = monotonic()
        self._watch.lap()
