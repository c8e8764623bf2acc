"""What benches measured of the series in patches/, kept beside them, and the tables that are made from it.

`patches/bench.json` holds the comparisons and the changed functions of each series, the digest of its patches, and
the null control that ran with it. What a later bench says of a series takes the place of what an earlier one said.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rig.costs.differences import Claim
from rig.costs.metrics import BY_NAME, NULL, RESULT, SCHEMA_VERSION, Bench, Comparison, Functions, Kind, compare, named
from rig.costs.words import CASE, SHOWN, cell, legend, null_lines, percent, sentence
from rig.errors import ConfigError
from rig.records.recorded import laid_out
from rig.records.subjects import PATCHES
from rig.reports.mdtable import markdown, placed
from rig.runs import results
from rig.store import write_atomically
from rig.trees.series import read as read_series

FILE = f"{PATCHES}/bench.json"
README = f"{PATCHES}/README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
#: Of the functions that changed so many are kept of each case.
FUNCTIONS = 8
#: The columns of the table: (heading, case, metric). What was measured of no series is left out.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("atomics per page", CASE, "atomics"),
    ("kernel instructions per fault", CASE, "per_fault"),
    ("excess faults", CASE, "excess"),
    ("skipped pages", CASE, "skipped"),
    ("waits per fault", CASE, "waits"),
    ("excess faults, 2 MiB around each", "many-private-read-2m", "excess"),
    ("faults per second, 2 MiB around each", "many-private-read-2m", "rate"),
    ("faults per second", CASE, "rate"),
    ("atomics per page, write faults", "many-private-cow", "atomics"),
    ("waits per fault, write faults", "many-private-cow", "waits"),
    ("one process: atomics per page", "one-private-read", "atomics"),
    ("one process: instructions per fault", "one-private-read", "per_fault"),
    ("one process: median latency", "one-private-read", "median"),
    ("one process: 99th percentile", "one-private-read", "p99"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is recorded: condensed benches, each of at least one series."""

    benches: tuple[Bench, ...] = ()


def read_bench(place: Path) -> Bench:
    """Return the bench of a bench.json, or of the folder that holds one; raises ConfigError for any other."""
    file = place / RESULT if place.is_dir() else place
    try:
        if file.stat().st_size > results.LARGEST:
            raise ValueError(f"larger than {results.LARGEST >> 20} MiB")
        data = json.loads(file.read_bytes(), parse_constant=results.finite, parse_float=results.finite)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ConfigError(
                f"{file} is of schema version {version}, and this rig reads {SCHEMA_VERSION}",
                hint="a newer rig wrote it, and reads it",
            )
        found = results.from_json(Bench, data)
        _check(found)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} is no bench, or was cut off: {error}", hint="`rig bench` writes one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no bench: {error}", hint="`rig bench` writes one") from None
    if not found.samples:
        return found
    judged = (one for subject in found.subjects for one in compare(found.samples, subject.name, found.level))
    return replace(found, comparisons=tuple(judged))  # by today's rules, as all that is recorded is


def _check(bench: Bench) -> None:
    """Raise ValueError for samples that no bench makes, and that nothing can be worked out from."""
    for one in bench.samples:
        for name, value in one.values:
            if name not in BY_NAME or BY_NAME[name].kind is not one.kind:
                raise ValueError(f"{one.where.id}: unknown metric {name!r}")
            if one.kind is Kind.TIMED and value <= 0:
                raise ValueError(f"{one.where.id}: {name} {value:g} is no time")


def read(root: Path) -> Record:
    """Return what is recorded; nothing if there is no file. Raises ConfigError when it is not what `record` makes."""
    file = root / FILE
    if not file.exists():
        return Record()
    try:
        return results.from_json(Record, json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{FILE} is no record of benches: {error}", hint="take it back from git") from None


def condense(bench: Bench) -> Bench:
    """Return the bench without samples and folders, and with the cases that are shown."""
    columns = {case for _, case, _ in COLUMNS}
    shown = {case for case, _ in SHOWN} | columns
    most = max((one.where.cpus for one in bench.functions), default=0)
    return replace(
        bench,
        accelerator_reason="",
        samples=(),
        config={key: bench.config[key] for key in ("bench", "flavours", "seed") if key in bench.config},
        comparisons=tuple(one for one in bench.comparisons if one.where.case in shown or one.subject == NULL),
        functions=tuple(
            replace(one, changes=one.changes[:FUNCTIONS])
            for one in bench.functions
            if one.where.case in columns and one.where.cpus == most and one.subject != NULL
        ),
        troubles=tuple(replace(one, evidence="") for one in bench.troubles),
    )


def without(bench: Bench, names: Collection[str]) -> Bench | None:
    """Return the bench without what it says of these series; None when nothing is left."""
    kept = [one for one in bench.comparisons if one.subject not in names]
    return _reduced(bench, kept, [one for one in bench.functions if one.subject not in names])


def _reduced(bench: Bench, comparisons: Sequence[Comparison], functions: Sequence[Functions]) -> Bench | None:
    left = {one.subject for one in comparisons}
    if not left or (left == {NULL} and len(bench.subjects) > 1):
        return None  # a null control says how much its bench is worth; one that ran alone stays
    return replace(
        bench,
        subjects=tuple(one for one in bench.subjects if one.name in left),
        comparisons=tuple(comparisons),
        functions=tuple(functions),
        sizes=tuple(one for one in bench.sizes if one.subject in left),
    )


def add(record: Record, bench: Bench) -> Record:
    """Return the record with a bench: what it measured takes the place of what others did, number by number.

    The null control of each bench stays: it says how much the bench is worth.
    """
    numbers = {(one.subject, one.metric, one.where) for one in bench.comparisons if one.subject != NULL}
    cases = {(one.subject, one.where) for one in bench.functions}
    older = [
        _reduced(
            one,
            [two for two in one.comparisons if (two.subject, two.metric, two.where) not in numbers],
            [two for two in one.functions if (two.subject, two.where) not in cases],
        )
        for one in record.benches
        if one.id != bench.id
    ]
    return Record(benches=(*(one for one in older if one is not None), condense(bench)))


def of_subject(whole: Record, name: str) -> Bench:
    """Return all that is recorded of a series as one bench: the newest one, with what the others say of it besides."""
    mine = [bench for bench in whole.benches if any(one.name == name for one in bench.subjects)]
    return replace(
        mine[-1],
        comparisons=tuple(one for bench in reversed(mine) for one in named(bench.comparisons, subject=name)),
        functions=tuple(one for bench in reversed(mine) for one in bench.functions if one.subject == name),
        counted=max(bench.counted for bench in mine),
        timed=max(bench.timed for bench in mine),
    )


def stale(root: Path, record: Record) -> tuple[str, ...]:
    """Return the names of series whose patches are not those that were measured, or that are gone."""
    found = []
    for one in (subject for bench in record.benches for subject in bench.subjects if subject.name != NULL):
        folder = root / PATCHES / one.name
        if not folder.is_dir() or read_series(str(folder)).key != one.key:
            found.append(one.name)
    return tuple(found)


def record(root: Path, places: Sequence[Path]) -> Record:
    """Put the benches of `places` on record below `root`, over what is there, and render the README."""
    whole = read(root)
    for place in places:
        whole = add(whole, read_bench(place))
    gone = stale(root, whole)
    whole = Record(benches=tuple(kept for one in whole.benches if (kept := without(one, gone)) is not None))
    data = _rounded(results.to_json(whole))
    whole = results.from_json(Record, data)  # what is rendered is what is kept
    write_atomically(root / FILE, laid_out(data) + "\n")
    write_atomically(root / README, rendered(root, whole))
    return whole


def _rounded(value: Any) -> Any:
    """Return JSON whose numbers have as many digits as a difference may be in."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def complaint(root: Path) -> str:
    """Return what is not true of the record and the README any more, in a sentence; "" when all is."""
    whole = read(root)
    if gone := stale(root, whole):
        return f"{FILE}: measured other patches than {', '.join(gone)} hold now; run `rig bench` on them"
    if (root / README).read_text(encoding="utf-8") != rendered(root, whole):
        return f"{README}: its table is not that of {FILE}; run ci/record-bench"
    return ""


# -- tables -----------------------------------------------------------------------------------------------------------


def rendered(root: Path, whole: Record) -> str:
    """Return the README with the tables between its markers; raises ConfigError when they do not stand there."""
    return placed((root / README).read_text(encoding="utf-8"), BEGIN, END, tables(whole), name=README)


def tables(whole: Record) -> str:
    """Return all that is recorded as Markdown: a table for all series, then a sentence for each, then the controls."""
    found = {one.name for bench in whole.benches for one in bench.subjects}
    names = sorted(found, key=lambda name: (name == NULL, "/" in name, name))
    if not names:
        return "Nothing is on record."
    merged = {name: of_subject(whole, name) for name in names}
    series = [name for name in names if name != NULL]
    rows = [row for name in names for row in _rows(merged[name], name)]
    null = replace(whole.benches[-1], comparisons=tuple(one for bench in whole.benches for one in bench.comparisons))
    parts = [
        markdown(*_filled(("series", "vCPUs", *(title for title, _, _ in COLUMNS)), rows)),
        legend(
            replace(
                merged[names[0]],
                counted=max(one.counted for one in whole.benches),
                timed=max(one.timed for one in whole.benches),
            )
        ),
        "\n".join(f"- {sentence(merged[name], name)}" for name in series),
        "\n".join(line for name in series if (line := _sizes(merged[name], name))),
        "\n".join(f"- {line}" for line in null_lines(null)),
    ]
    return "\n\n".join(part for part in parts if part)


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the table without the columns that are empty."""
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    return [head[number] for number in kept], [[row[number] for number in kept] for row in rows]


def _rows(bench: Bench, subject: str) -> list[tuple[str, ...]]:
    rows = []
    for cpus in sorted({one.where.cpus for one in bench.comparisons}):
        here = [one for one in bench.comparisons if one.where.cpus == cpus]
        cells = [_cell(here, case, metric) for _, case, metric in COLUMNS]
        rows.append((f"`{subject}`", str(cpus), *cells))
    return rows


def _cell(here: Sequence[Comparison], case: str, metric: str) -> str:
    found = [one for one in here if one.where.case == case and one.metric == metric]
    if not found:
        return ""
    one = next((one for one in found if one.where.filesystem == "tmpfs"), found[0])
    if BY_NAME[metric].relative and metric == "per_fault" and one.difference.claim is not Claim.NONE:
        return f"{cell(one)} ({percent(one.difference.change)})"
    return cell(one)


def _sizes(bench: Bench, subject: str) -> str:
    mine = [one for one in bench.sizes if one.subject == subject and one.before != one.after][:5]
    shown = ", ".join(f"{one.function} {one.after - one.before:+d}" for one in mine)
    return f"- code of `{subject}`, bytes: {shown}" if shown else ""
