"""What was found in the series and controls of patches/, kept with them.

    results.json ──► facts ──► verdicts.json ──► folding ──► the tables of the READMEs of patches/

An entry belongs to the bytes of the patches: when they change, what is recorded of them says nothing any more. Runs are
kept one by one, each under its id, so that none counts twice. Runs of the first patches of a series are kept below the
digest of these patches, as several series may begin with them; see prefixes.py. Nothing of the host's folders gets into
the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rig.errors import ConfigError, HostError
from rig.records.facts import RunFacts, as_prefix, condense
from rig.records.prefixes import PrefixRun
from rig.records.subjects import PATCHES, Subject, prefix_of
from rig.runs import rundir
from rig.runs.results import Run, from_json, read_results, to_json
from rig.store import write_atomically

FILE = "verdicts.json"
SCHEMA_VERSION = 1
R = TypeVar("R", "RunFacts", PrefixRun)
LINE = 120  # columns of verdicts.json, so that a change of one fact is a change of one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """All that is recorded of one series."""

    key: str
    runs: tuple[RunFacts, ...]  # by their ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is recorded."""

    series: Mapping[str, Entry]  # and controls, by name
    prefixes: Mapping[str, tuple[PrefixRun, ...]]  # of series, by key; runs of whole series are in their entries

    def of_prefix(self, key: str) -> tuple[PrefixRun, ...]:
        """Return the runs of exactly these patches; they may be a whole series as well."""
        whole = (as_prefix(run) for entry in self.series.values() if entry.key == key for run in entry.runs)
        return (*self.prefixes.get(key, ()), *whole)


EMPTY = Record(series={}, prefixes={})


# -- what was tested --------------------------------------------------------------------------------------------------


def results_file(place: Path) -> Path:
    """Return the results of a run that is named by its folder or by the file; raises ConfigError if there are none."""
    path = place / rundir.RESULTS if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(
            f"{path}: not there, so nothing is recorded",
            hint="the run was cut off, or its patches do not apply; `rig test` says which",
        )
    return path


def key_of(path: Path, run: Run) -> str:
    """Return the key of the series that a run tested; older results have it in the plan beside them."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return run.series.key or str(json.loads((path.parent / rundir.PLAN).read_text())["series"])
    return ""


def tested(key: str, run: Run, known: Sequence[Subject]) -> Subject:
    """Return the series of patches/ that a run tested; raises ConfigError when its bytes are those of none."""
    if (subject := next((one for one in known if one.key == key), None)) is not None:
        return subject
    last = run.series.path.split(", ")[-1].rstrip("/")
    folder = last.rpartition("/")[0] if last.endswith(".patch") else last
    meant = next((one for one in known if f"/{folder}".endswith(f"/{one.origins[-1]}")), None)
    if meant is not None:
        raise ConfigError(
            f"run {run.id} tested other patches than {PATCHES}/{meant.name} holds now, so nothing is recorded",
            hint=f"run it again: ci/judge-patches {meant.name}",
        )
    raise ConfigError(f"run {run.id} tested {run.series.name}, which is no series of {PATCHES}/")


def merge(entry: Entry | None, key: str, facts: RunFacts) -> Entry:
    """Return `entry` with one more run; the same run again takes the place of what was known of it."""
    return Entry(key=key, runs=_with(entry.runs if entry is not None and entry.key == key else (), facts))


def _with(known: Iterable[R], run: R) -> tuple[R, ...]:
    by_id = {one.id: one for one in known} | {run.id: run}
    return tuple(by_id[name] for name in sorted(by_id))


# -- the file ---------------------------------------------------------------------------------------------------------


def read(root: Path) -> Record:
    """Return what is recorded; nothing if there is no file yet.

    Raises HostError when the file is not what `write` makes.
    """
    path = root / PATCHES / FILE
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"expected schema version {SCHEMA_VERSION}")
        return Record(
            series={str(name): from_json(Entry, entry) for name, entry in data["series"].items()},
            prefixes={
                str(key): tuple(from_json(PrefixRun, run) for run in found)
                for key, found in data.get("prefixes", {}).items()
            },
        )
    except FileNotFoundError:
        return EMPTY
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise HostError(
            f"{PATCHES}/{FILE} cannot be read: {error}", hint="take it back from git, then record the runs again"
        ) from None


def write(root: Path, record: Record) -> None:
    """Publish what is recorded."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "series": {name: to_json(entry) for name, entry in sorted(record.series.items())},
        "prefixes": {key: to_json(found) for key, found in sorted(record.prefixes.items())},
    }
    write_atomically(root / PATCHES / FILE, laid_out(data) + "\n")


def laid_out(value: Any, depth: int = 0) -> str:
    """Return JSON in which what fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=True, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(flat) + depth <= LINE:
        return flat
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {laid_out(item, depth + 1)}" for key, item in value.items()]
    else:
        lines = [pad + laid_out(item, depth + 1) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return start + "\n" + ",\n".join(lines) + f"\n{' ' * depth}{end}"


def stale(entries: Mapping[str, Entry], known: Sequence[Subject]) -> tuple[str, ...]:
    """Return the names under which other bytes are recorded than the files hold, or that have no files any more."""
    keys = {subject.name: subject.key for subject in known}
    return tuple(name for name in sorted(entries) if keys.get(name) != entries[name].key)


def stale_prefixes(record: Record, known: Sequence[Subject]) -> tuple[str, ...]:
    """Return the keys of prefixes that no series has any more."""
    return tuple(key for key in sorted(record.prefixes) if prefix_of(key, known) is None)


def add(root: Path, places: Sequence[Path], known: Sequence[Subject], default: Mapping[str, Any]) -> tuple[str, ...]:
    """Record the runs at `places`, drop what is stale, write the file, and return what was done in words.

    Raises ConfigError or HostError for a run that cannot be recorded; then nothing is written.
    """
    with _locked(root / PATCHES):
        record, said = read(root), []
        entries, prefixes = dict(record.series), dict(record.prefixes)
        for name in stale(entries, known):
            del entries[name]
            said.append(f"{PATCHES}/{name}: its patches are not what was recorded; dropped")
        if gone := stale_prefixes(record, known):
            prefixes = {key: kept for key, kept in prefixes.items() if key not in gone}
            said.append(f"{PATCHES}: {len(gone)} prefix{'es' * (len(gone) != 1)} that no series has any more; dropped")
        whole = {subject.key for subject in known}
        for place in places:
            path = results_file(place)
            run = read_results(path)
            key = key_of(path, run)
            if key not in whole and (found := prefix_of(key, known)):
                subject, number = found
                prefixes[key] = _with(prefixes.get(key, ()), as_prefix(condense(run, subject.files[:number], default)))
                said.append(f"{PATCHES}/{subject.name}: {run.verdict.judgement} recorded of its prefix {number}")
                continue
            subject = tested(key, run, known)
            facts = condense(run, subject.origins, default)
            entries[subject.name] = merge(entries.get(subject.name), subject.key, facts)
            count = len(entries[subject.name].runs)
            said.append(f"{PATCHES}/{subject.name}: {run.verdict.judgement} recorded ({count} run{'s' * (count != 1)})")
        if said:
            write(root, Record(series=entries, prefixes=prefixes))
    return tuple(said)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against others that record at the same time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
