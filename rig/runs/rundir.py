"""The folder of a run: made, locked, resumed, closed.

results/<run>/
    plan.json        what the run is made of, before anything is started; a run without results.json can be resumed
    config.json      the configuration as it was resolved; series/ the patches: enough to run any trial again
    trials/<side>/<cell>/<index>/   evidence, see trials/trial.py
    results.json, junit.xml, report.html, summary.txt, summary.md
results/latest       a link to the newest run
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.clock import now
from rig.errors import ConfigError, HostError
from rig.store import digest, no_space_is_a_host_error, write_atomically
from rig.trees.series import Series

RESULTS = "results.json"
PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder that this process holds the lock of."""

    path: Path
    resumed: bool

    @property
    def id(self) -> str:
        """The name of the run."""
        return self.path.name

    @property
    def started(self) -> str:
        """When the run was begun, ISO 8601 in UTC."""
        return str(json.loads((self.path / PLAN).read_text())["started"])


@contextlib.contextmanager
def open_run(
    results: Path, series: Series, plan: Mapping[str, Any], *, resume: bool, last: str = RESULTS
) -> Iterator[RunFolder]:
    """Yield the folder of an interrupted run with the same plan, or of a new one, locked against other rigs.

    `last` is the file that is written last: a run that has it is not to be resumed.

    Raises HostError when the folder cannot be made.
    """
    key = _key(plan)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{results}: cannot be made: {error.strerror}", hint="out=DIR names another place") from error
    with no_space_is_a_host_error(results), contextlib.ExitStack() as stack:
        folder = (_interrupted(results, key, last, stack) if resume else None) or _new(
            results, series, key, plan, stack
        )
        _point_latest(results, folder.path)
        yield folder


def latest(results: Path) -> Path:
    """Return the newest run's folder; raises ConfigError when there is none."""
    path = results / "latest"
    if not (path / PLAN).exists():
        raise ConfigError(f"{results}: no run there yet", hint="`rig test` makes one; out=DIR names another place")
    return path.resolve()


def named(start: Path, word: str) -> Path:
    """Return the folder of the run that `word` names: its path, or that of a file in it, seen from `start`."""
    path = start / word
    path = path.parent if path.is_file() else path
    if not (path / PLAN).exists() and not (path / RESULTS).exists():
        raise ConfigError(f"{word}: not the folder of a run", hint="usage: rig report [results/RUN]")
    return path.resolve()


def finished(results: Path, plan: Mapping[str, Any]) -> Path | None:
    """Return the newest run with the same plan that is not to be resumed, None when there is none."""
    return next((path for path in _of_plan(results, _key(plan)) if (path / RESULTS).is_file()), None)


def _key(plan: Mapping[str, Any]) -> str:
    return digest(json.dumps(plan, sort_keys=True))


def _of_plan(results: Path, key: str) -> Iterator[Path]:
    for path in sorted(
        (entry.parent for entry in results.glob(f"*/{PLAN}") if not entry.parent.is_symlink()), reverse=True
    ):
        try:
            same = json.loads((path / PLAN).read_text())["key"] == key
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same:
            yield path


def _interrupted(results: Path, key: str, last: str, stack: contextlib.ExitStack) -> RunFolder | None:
    for path in _of_plan(results, key):
        if not (path / last).exists() and _lock(path, stack):
            return RunFolder(path, resumed=True)
    return None


def _new(results: Path, series: Series, key: str, plan: Mapping[str, Any], stack: contextlib.ExitStack) -> RunFolder:
    moment = now()
    for attempt in range(100):
        path = results / (moment.strftime("%Y%m%d-%H%M%S") + (f".{attempt}" if attempt else "") + f"-{series.name}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        if not _lock(path, stack):
            continue
        describe(path, series, {"key": key, "started": moment.isoformat(timespec="seconds"), **plan})
        return RunFolder(path, resumed=False)
    raise HostError(f"{results}: no free name for a run's folder")


def describe(path: Path, series: Series, plan: Mapping[str, Any]) -> None:
    """Write into a folder what it takes to run any trial below it again: patches, configuration and plan."""
    (path / "series").mkdir(parents=True, exist_ok=True)
    for patch in series.patches:
        (path / "series" / f"{patch.number:04}.patch").write_bytes(patch.mail)
    # In the order of the configuration, which is the order in which cells are made.
    write_atomically(path / "config.json", json.dumps(plan["config"], indent=1) + "\n")
    write_atomically(path / PLAN, json.dumps(plan, indent=1, sort_keys=True) + "\n")


def _lock(path: Path, stack: contextlib.ExitStack) -> bool:
    file = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    stack.callback(os.close, file)
    return True


def _point_latest(results: Path, path: Path) -> None:
    fresh = results / f".latest-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(path.name)
    link = results / "latest"
    if link.is_dir() and not link.is_symlink():
        raise HostError(f"{link} is a folder, and the rig keeps a link there", hint="move it away")
    fresh.replace(link)


def remove_secrets(path: Path) -> None:
    """Remove the keys and the image that holds them; a new run makes its own."""
    shutil.rmtree(path / "keys", ignore_errors=True)
    for image in path.glob("*.cpio"):
        image.unlink(missing_ok=True)
