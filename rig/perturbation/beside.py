"""Something that is done beside the workload, by a thread that lives as long as a context."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Beside:
    """Runs `work` in a thread of its own until the context is left; a failure of it, a bug of ours, is raised there."""

    name = "rig-beside"  # of the thread

    def __init__(self) -> None:
        """Nothing is done before the context is entered."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def work(self) -> None:
        """What is done; it comes to its end soon after `_stop` was set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._guarded, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _guarded(self) -> None:
        try:
            self.work()
        except BaseException as failure:
            self._failure = failure
