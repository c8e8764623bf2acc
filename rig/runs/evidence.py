"""How much of the logs of a run is kept: a run in CI must not fill a disk, whatever its guests print.

The logs of trials that did not fail go first. What does not fit of the others keeps its two ends, as what led to a
splat stands before it and where it stopped at the end. What it takes to understand and repeat a trial always stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.model import Status, TrialResult
from rig.settings.config import Evidence
from rig.verdicts.verdict import causes

ALWAYS = ("trial.json", "plan.json", "qemu.cmd", "reproduce.sh", "audit.json")
END = 64 << 10  # bytes that are kept of each end of a log that does not fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What went."""

    trials: int = 0  # whose logs were removed
    cut: int = 0  # logs of which only the ends are left
    size: int = 0  # bytes

    def __str__(self) -> str:
        return f"logs of {self.trials} trials removed and {self.cut} logs cut, {self.size / 2**20:.1f} MiB"


def bound(root: Path, trials: Sequence[TrialResult], limits: Evidence) -> Removed:
    """Remove from the run's folder `root` what is beyond the limits, and return what went."""
    removed = cut = size = 0
    room = limits.total_mib << 20
    for trial in _worst_first(trial for trial in trials if trial.status not in _QUIET):
        for log in _logs(root / trial.evidence):
            have = log.stat().st_size
            if have > room and (gone := _keep_ends(log)):
                cut, size = cut + 1, size + gone
            room = max(0, room - have)
    room = min(room, limits.passing_mib << 20)
    for trial in sorted((t for t in trials if t.status in _QUIET), key=lambda t: (t.index, t.cell.id, t.side)):
        logs = _logs(root / trial.evidence)
        have = sum(log.stat().st_size for log in logs)
        if have <= room:
            room -= have
            continue
        for log in logs:
            log.unlink()
        removed, size = removed + 1, size + have
    return Removed(trials=removed, cut=cut, size=size)


_QUIET = (Status.PASS, Status.SKIP, Status.INCONCLUSIVE)


def _worst_first(trials: Iterable[TrialResult]) -> list[TrialResult]:
    """The first trial of each finding before all repetitions."""
    seen: set[str] = set()
    first: list[TrialResult] = []
    more: list[TrialResult] = []
    for trial in sorted(trials, key=lambda t: (t.index, t.cell.id, t.side)):
        fresh = {finding.signature for finding in causes(trial)} - seen
        (first if fresh else more).append(trial)
        seen |= fresh
    return [*first, *more]


def _logs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and path.name not in ALWAYS
    )


def _keep_ends(log: Path) -> int:
    """Cut the middle out of a log; returns the bytes that went, 0 when it is too short for that."""
    size = log.stat().st_size
    if size <= 2 * END + 200:
        return 0
    with log.open("r+b") as file:
        file.seek(-END, os.SEEK_END)
        tail = file.read()
        file.seek(END)
        file.write(f"\n[... {size - 2 * END} bytes are not kept here: evidence.total ...]\n".encode() + tail)
        file.truncate()
        return size - file.tell()
