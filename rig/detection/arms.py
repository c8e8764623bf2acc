"""The same hunts with different means: what jitter or stalls buy, and what others' stress tests catch.

An arm is a name and overrides of the configuration. For each control `rig selfcheck` is run once with each arm, one arm
after the other, so that drift of the host hits all alike; what came of it is kept in one JSON file, and what is in it
already, with the same patches and the same words, is not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.detection import outcomes, selfcheck
from rig.detection.hunt import median
from rig.detection.outcomes import Cleared, Hunted, Outcome, Selfcheck
from rig.errors import ConfigError, HostError
from rig.records.subjects import Subject
from rig.reports.mdtable import markdown as markdown
from rig.runs import results
from rig.store import write_atomically

SCHEMA_VERSION = 1
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A way to hunt."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What came of one control, or of the base, with one arm."""

    arm: str
    name: str
    key: str  # the digest of the control's patches; "" for the base
    words: tuple[str, ...]  # of the command line
    check: str  # the selfcheck's folder
    hunted: Hunted | None = None
    cleared: Cleared | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All entries."""

    entries: tuple[Entry, ...] = ()
    schema_version: int = SCHEMA_VERSION


def read(path: Path) -> Record:
    """Return the record in `path`, an empty one when there is none. Raises HostError when it is not one."""
    if not path.exists():
        return Record()
    try:
        return results.from_json(Record, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise HostError(f"{path} cannot be read as a record: {error}", hint="move it away to start anew") from None


def known(record: Record, arm: Arm, subject: Subject | None, words: Sequence[str]) -> bool:
    """Whether what is to be run has been, with these patches and these words."""
    name, key = _name(subject), subject.key if subject else ""
    wanted = (arm.name, name, key, tuple(words))
    return any((entry.arm, entry.name, entry.key, entry.words) == wanted for entry in record.entries)


def add(record: Record, entry: Entry) -> Record:
    """Return the record with the entry in place of any older one for the same arm and name.

    What an arm finds on the base is kept beside what it found there with other words.
    """

    def replaced(one: Entry) -> bool:
        return (one.arm, one.name) == (entry.arm, entry.name) and (one.hunted is not None or one.words == entry.words)

    return Record(entries=(*(one for one in record.entries if not replaced(one)), entry))


def run(root: Path, path: Path, arms: Sequence[Arm], chosen: Sequence[Subject | None], words: Sequence[str]) -> Record:
    """Run what is not in the record at `path` yet, keep what came of it there, and return the whole record.

    None among the chosen stands for the base. Raises KeyboardInterrupt when interrupted, HostError when a selfcheck
    ends without a result.
    """
    record = read(path)
    for subject in chosen:
        for arm in arms:
            mine = (*words, *arm.overrides)
            if known(record, arm, subject, mine):
                continue
            record = add(record, _run(root, path.parent / arm.name, arm, subject, mine))
            write_atomically(path, json.dumps(results.to_json(record), indent=1, sort_keys=True) + "\n")
    return record


def _name(subject: Subject | None) -> str:
    return subject.control.name if subject and subject.control else selfcheck.BASE


def _run(root: Path, out: Path, arm: Arm, subject: Subject | None, words: tuple[str, ...]) -> Entry:
    name = _name(subject)
    argv = [sys.executable, "-m", "rig", "-C", str(root), "--json", "selfcheck", name, *words, f"out={out}"]
    print(f"{arm.name}: {name}", file=sys.stderr, flush=True)
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    if done.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode not in (0, 1):
        kind = ConfigError if done.returncode == ConfigError.exit_code else HostError
        raise kind(f"{arm.name}: rig selfcheck {name} ended with {done.returncode}")
    check = results.from_json(Selfcheck, json.loads(done.stdout))
    return Entry(
        arm=arm.name,
        name=name,
        key=subject.key if subject else "",
        words=words,
        check=str(out / selfcheck.FOLDER / check.id),
        hunted=next(iter(check.controls), None),
        cleared=next(iter(check.goods), None),
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def hunts(record: Record, arm: str) -> dict[str, Hunted]:
    """Return what the arm made of the controls, by name; what it finds on the base as well is no catch."""
    mine = [entry for entry in record.entries if entry.arm == arm]
    shown = [alarm.signature for entry in mine if entry.cleared for alarm in entry.cleared.alarms]
    return {entry.name: outcomes.without_known(entry.hunted, shown) for entry in mine if entry.hunted}


def seconds(hunted: Hunted | None) -> str:
    """Return a cell of the table: the median time to detection, and in how many hunts there was one."""
    if hunted is None:
        return ""
    if hunted.outcome is Outcome.BROKEN:
        return "broken"
    of = f"{hunted.caught}/{len(hunted.hunts)}"
    if hunted.seconds is not None:
        return f"{hunted.seconds:.1f} s ({of})"
    return f"otherwise ({of})" if hunted.outcome is Outcome.OTHERWISE else f"- ({of})"


def table(record: Record, arms: Sequence[Arm]) -> str:
    """Return control x arm as Markdown, the number of controls caught in the last line."""
    by_arm = {arm.name: hunts(record, arm.name) for arm in arms}
    names = sorted({name for found in by_arm.values() for name in found})
    rows = [[name, *(seconds(by_arm[arm.name].get(name)) for arm in arms)] for name in names]
    return markdown(["control", *(arm.name for arm in arms)], [*rows, ["caught", *map(_sum, by_arm.values())]])


def _sum(found: dict[str, Hunted]) -> str:
    caught = sum(one.outcome is Outcome.CAUGHT for one in found.values())
    times = [one.seconds for one in found.values() if one.seconds is not None]
    middle = median(times)
    return f"{caught}/{len(found)}" + (f", median {middle:.1f} s" if middle is not None else "")
