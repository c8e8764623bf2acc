"""`rig compare RUN_A RUN_B`: reads two runs, says what changed, and exits with 1 when something is new or worse.

Two runs of `rig test`, or two of `rig bench`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rig.comparison.changes import Change, Comparison, PatchChange, compare
from rig.costs import contrastwords, record
from rig.costs.contrast import contrast
from rig.costs.metrics import RESULT as BENCH
from rig.errors import ConfigError, HostError
from rig.reports.again import rerun
from rig.runs import results, rundir
from rig.runs.results import Run
from rig.trees.git import Git

USAGE = "usage: rig compare RUN_A RUN_B"
#: As git range-diff marks patches.
MARKS = {Change.SAME: "=", Change.CHANGED: "!", Change.NEW: ">", Change.GONE: "<", Change.UNKNOWN: "?"}
SHOWN = 20  # findings and cells of a kind; JSON has all


def run(words: Sequence[str], *, as_json: bool) -> int:
    """Compare two runs and return the exit code: 1 when a finding is new or worse. Raises ConfigError for bad usage."""
    if len(words) != 2:
        raise ConfigError(
            USAGE, hint="each the folder of a run, results/latest or results/bench/latest for one, or the file in it"
        )
    places = [Path(word) for word in words]
    benches = [is_bench(place) for place in places]
    if all(benches):
        return _benches(*places, as_json=as_json)
    if any(benches):
        _read(places[benches.index(False)])  # it may be no run at all
        names = ["a bench" if one else "a run of `rig test`" for one in benches]
        raise ConfigError(
            f"{words[0]} is {names[0]} and {words[1]} is {names[1]}: one counts costs, the other findings",
            hint="compare two runs of `rig bench`, or two of `rig test`",
        )
    (a_path, a), (b_path, b) = (_read(place) for place in places)
    compared = compare(a, b, patch_ids(a_path.parent, a), patch_ids(b_path.parent, b))
    if as_json:
        print(json.dumps(results.to_json(compared), indent=1, sort_keys=True, allow_nan=False))
    else:
        print(text(compared, Path(words[0]), Path(words[1])))
    return int(compared.worse)


def is_bench(place: Path) -> bool:
    """Whether a place is the folder or the file of a bench that came to its end, and not of anything else."""
    if place.is_dir():
        return (place / BENCH).is_file()
    if place.name in (BENCH, rundir.RESULTS):
        return place.name == BENCH and place.is_file()
    try:
        if not place.is_file() or place.stat().st_size > results.LARGEST:
            return False
        data = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # and no run either, which _read() will say
    return isinstance(data, dict) and "subjects" in data


def _benches(a: Path, b: Path, *, as_json: bool) -> int:
    """Compare two benches and return the exit code: 4 when there was nothing to compare."""
    compared = contrast(*(record.read_bench(place) for place in (a, b)))
    if as_json:
        print(json.dumps(results.to_json(compared), indent=1, sort_keys=True, allow_nan=False))
    else:
        print(contrastwords.text(compared))
    return 1 if compared.worse else 0 if compared.rows else 4


def _read(place: Path) -> tuple[Path, Run]:
    path = place / rundir.RESULTS if place.is_dir() else place
    if not path.is_file():
        why = "was interrupted and has no results yet" if (place / rundir.PLAN).is_file() else "is no run"
        raise ConfigError(
            f"{place} {why}", hint=f"{USAGE}, each a folder with {rundir.RESULTS} or {BENCH}, or that file"
        )
    try:
        return path, results.read_results(path)
    except HostError as error:  # it is what was asked for that is wrong, not the host
        raise ConfigError(error.summary, hint=USAGE) from None


def patch_ids(folder: Path, run: Run) -> tuple[str, ...]:
    """Return the `git patch-id --stable` of each patch of a run, "" where it is not known; () without the patches."""
    files = sorted((folder / "series").glob("*.patch"))
    if len(files) != len(run.series.patches):
        return ()
    git = Git(folder)
    words = (git.run("patch-id", "--stable", stdin=file.read_bytes()).stdout.split() for file in files)
    return tuple(next(iter(some), "") for some in words)


def text(compared: Comparison, a: Path, b: Path) -> str:
    """Return the comparison as plain lines; `a` and `b` are where the runs are."""
    lines = [f"{'WORSE' if compared.worse else 'NOTHING NEW'}: {compared.sentence}", ""]
    for name, which in (("A", compared.a), ("B", compared.b)):
        lines.append(f"  {name}  {which.id}: {which.judgement}, {which.series}, {which.trials} trials, {which.started}")
    lines.append("")
    for found in compared.findings[:SHOWN]:
        where = a if found.change is Change.GONE else b
        lines += [
            f"  {found.change:<7} {found.title}",
            f"          {found.sentence}",
            f"          A {found.a_judgement or 'not seen'}, B {found.b_judgement or 'not seen'}; in {found.cells[0]}"
            + (f" and {len(found.cells) - 1} more" if len(found.cells) > 1 else ""),
            f"          {rerun(found.example, where)}",
        ]
    lines += _more(len(compared.findings), "findings")
    for what, cells in (("only in A", compared.cells_gone), ("only in B", compared.cells_new)):
        lines += [f"  cell {what}: {cell}" for cell in cells[:SHOWN]] + _more(len(cells), f"cells {what}")
    if any(patch.change is not Change.SAME for patch in compared.patches):
        lines += [_patch(patch) for patch in compared.patches]
    lines += [f"  differs: {one.what}: {one.a} -> {one.b}; {one.why}" for one in compared.differences]
    return "\n".join(lines).rstrip()


def _patch(patch: PatchChange) -> str:
    a, b = (str(number) if number else "-" for number in (patch.a, patch.b))
    return f"  patch {a:>2} {MARKS[patch.change]} {b:>2}  {patch.subject}"


def _more(number: int, what: str) -> list[str]:
    return [f"  and {number - SHOWN} more {what}; --json has them all"] if number > SHOWN else []
