"""Folds the runs of the parts of one run (`rig test part=…`) into one run with all reports.

Only what belongs together is folded: the same patches on the same base, the same kernels, one configuration. A cell
that no part has is a lost trial and not a pass. Results come from other jobs and other machines: nothing in them is
believed that can be checked, and no path of theirs is followed out of their folder.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from rig import __version__
from rig.clock import now
from rig.errors import ConfigError, RigError
from rig.front.ui import Ui
from rig.model import Cell, Kernel, Side, Status, TrialResult
from rig.reports import reporting
from rig.runs import evidence, results, rundir
from rig.runs.results import Host, Run
from rig.settings import matrix
from rig.settings.config import NAME, Config
from rig.store import write_atomically
from rig.trees import series
from rig.trees.series import Series
from rig.verdicts import expectations
from rig.verdicts.questions import rules_of

#: Keys of a configuration in which parts may differ: where they ran, and which part they are.
FREE = frozenset(
    {
        "part", "parts", "series", "results", "store", "store_limit_mib", "kconfigs", "guest_workloads", "evidence",
        "accel", "known_issues",
    }
)  # fmt: skip
LARGEST_LOG = 256 << 20  # bytes of one file of a trial
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Part:
    """One run that was read."""

    folder: Path
    run: Run

    def __str__(self) -> str:
        return str(self.folder)


def merge(places: Sequence[Path], config: Config, ui: Ui) -> Run:
    """Fold the runs in `places` (their folders, or folders of such) into a new one below `config.results`.

    Returns it with its reports written. Raises ConfigError, which names two runs, when they do not belong together.
    """
    if not places:
        raise ConfigError("usage: rig merge RUN... [out=DIR]", hint="RUN: the folder of a run, or a folder of such")
    found = _parts(places, ui)
    _same(found)
    first = found[0].run
    whole = _config(found[0])
    patches = _patches(found)
    trials = [trial for part in found for trial in part.run.trials]
    lost = _missing(whole, first, trials)
    kernels = tuple({(k.flavour, k.prefix): k for part in found for k in part.run.kernels}.values())
    known = expectations.read(config.known_issues, now().date())
    settings = whole.model_dump(mode="json")
    plan = {
        "config": settings,
        "series": first.series.key,
        "merged": [part.run.id for part in found],
        "store": str(config.store),
        "rig": __version__,
    }
    with rundir.open_run(config.results, patches, plan, resume=False) as folder:
        for part in found:
            for trial in part.run.trials:
                _copy(part.folder.resolve() / trial.evidence, part.folder.resolve(), folder.path / trial.evidence)
        for trial in lost:
            _describe(folder.path / trial.evidence, trial, whole, kernels)
        trials = sorted([*trials, *lost], key=lambda one: (one.cell.id, one.index, one.side))
        done = replace(
            first,
            id=folder.id,
            started=min(part.run.started for part in found),
            finished=max([part.run.finished for part in found] or [now().isoformat(timespec="seconds")]),
            complete=not lost and all(part.run.complete for part in found),
            host=_host([part.run.host for part in found]),
            kernels=kernels,
            config=settings,
            trials=tuple(trials),
            verdict=reporting.fold(trials, kernels, rules_of(whole.trials, known, kernels)),
            stages=_stages(found),
        )
        removed = evidence.bound(folder.path, done.trials, config.evidence)
        if removed.size:
            ui.stage("merge", str(removed))
        reporting.write(folder.path, done)
    ui.stage("merge", f"{len(found)} runs, {len(done.trials)} trials" + (f", {len(lost)} missing" if lost else ""))
    return done


# -- reading ----------------------------------------------------------------------------------------------------------


def _parts(places: Sequence[Path], ui: Ui) -> list[Part]:
    folders: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise ConfigError(f"{place}: no folder of a run", hint="RUN: results/<run>, or a folder of such")
        inside = list(_runs_below(place))
        if not inside:
            ui.say(f"  note: {place} holds no run: its job left nothing")
        folders |= {path.resolve(): None for path in inside}
    found = []
    for folder in folders:
        if not (folder / rundir.RESULTS).is_file():
            ui.say(f"  note: {folder} was cut off and has no {rundir.RESULTS}: what only it has counts as lost")
            continue
        part = Part(folder, results.read_results(folder / rundir.RESULTS))
        try:
            json.dumps(results.to_json(part.run), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{part}: text in its results is none (half a surrogate pair)") from None
        for trial in part.run.trials:
            _checked(part, trial)
        found.append(part)
    if not found:
        raise ConfigError("rig merge: none of these is a finished run", hint="`rig test part=…` makes them")
    return found


def _runs_below(place: Path, depth: int = 3) -> Iterator[Path]:
    """Yield the runs in a folder; how deep they lie depends on how a pipeline brings artifacts from job to job."""
    if (place / rundir.RESULTS).is_file() or (place / rundir.PLAN).is_file():
        yield place
    elif depth:
        for path in sorted(place.iterdir()):
            # `latest` is a link to its neighbour, and some services make a folder of it.
            if path.is_dir() and not path.is_symlink() and path.name != "latest":
                yield from _runs_below(path, depth - 1)


def _checked(part: Part, trial: TrialResult) -> None:
    """Refuse a trial whose names would lead elsewhere, or which is of other trees than its run says."""
    cell, run = trial.cell, part.run
    names = (cell.flavour, cell.machine, cell.workload, cell.filesystem)
    place = Path("trials") / trial.side / cell.id / str(trial.index)
    if not all(re.fullmatch(NAME.strip("^$"), name) and len(name) <= 60 for name in names) or trial.index < 0:
        raise ConfigError(f"{part}: a trial of the cell {cell.id[:80]!r}, which is none", hint="do not use this run")
    if trial.evidence != str(place):
        raise ConfigError(f"{part}: {cell.id}: evidence in {trial.evidence[:80]!r}, expected {place}")
    trees = {0: run.base.tree} | {patch.number: patch.tree for patch in run.series.patches}
    if trial.tree != trees.get(trial.prefix):
        raise ConfigError(f"{part}: {cell.id} ran tree {trial.tree[:12]!r}, which is not one of its series")


def _config(part: Part) -> Config:
    """The configuration of the whole run, of which the parts took their cells."""
    try:
        return Config.model_validate(dict(part.run.config) | {"part": ()})
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{part}: its configuration is not one of this rig: {str(error).splitlines()[0]}") from None


def _patches(found: Sequence[Part]) -> Series:
    """Return the series as the first folder that has it whole keeps it; its bytes are those that were tested."""
    key, name = found[0].run.series.key, found[0].run.series.name
    for part in found:
        folder = part.folder / "series"
        if folder.is_symlink() or not folder.is_dir() or any(path.is_symlink() for path in folder.iterdir()):
            continue
        try:
            read = series.read(str(folder))
        except (RigError, OSError):
            continue
        if read.key == key:
            return replace(read, name=re.sub(r"[^A-Za-z0-9.+_-]+", "-", name).strip("-.")[:60] or "series")
    raise ConfigError(f"{found[0]}: the patches beside the results are not those that were tested")


# -- what belongs together --------------------------------------------------------------------------------------------


def _same(found: Sequence[Part]) -> None:
    """Raise ConfigError when two of the runs are not parts of one."""
    first = found[0]
    kernels: dict[tuple[str, int], tuple[Part, Kernel]] = {}
    seen: dict[tuple[str, Side, int], Part] = {}
    for part in found:
        for what, one, other in (
            ("series", _series_of(first.run), _series_of(part.run)),
            ("base", f"{first.run.base.source} {first.run.base.tree[:12]}", _base_of(part.run)),
            ("version of the rig", first.run.rig_version, part.run.rig_version),
        ):
            if one != other:
                raise _differ(first, part, what, one, other)
        ours, theirs = (_compared(run.run.config) for run in (first, part))
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                raise _differ(first, part, key, json.dumps(ours.get(key)), json.dumps(theirs.get(key)))
        for kernel in part.run.kernels:
            at = (kernel.flavour, kernel.prefix)
            where, known = kernels.setdefault(at, (part, kernel))
            if known.key != kernel.key:
                name = f"{kernel.flavour} kernel of prefix {kernel.prefix}"
                raise _differ(where, part, name, known.compiler, kernel.compiler)
        for trial in part.run.trials:
            other_part = seen.setdefault((trial.cell.id, trial.side, trial.index), part)
            if other_part is not part:
                raise ConfigError(
                    f"{other_part} and {part} both have trial {trial.index} of {trial.cell.id} on the {trial.side} "
                    "kernel: it would count twice",
                    hint="merge each part once",
                )


def _series_of(run: Run) -> str:
    return f"{run.series.name} ({run.series.key[:12]})" if run.series.key else run.series.name


def _base_of(run: Run) -> str:
    return f"{run.base.source} {run.base.tree[:12]}"


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in FREE}


def _differ(one: Part, other: Part, what: str, ours: str, theirs: str) -> ConfigError:
    return ConfigError(
        f"{one} and {other} are not parts of one run: the {what} differs: {ours[:120]} and {theirs[:120]}",
        hint="merge what one pipeline made",
    )


# -- folding ----------------------------------------------------------------------------------------------------------


def _missing(whole: Config, first: Run, trials: Iterable[TrialResult]) -> list[TrialResult]:
    """A trial starts as LOST: one for each cell and side of the whole of which no part has any."""
    have = {(trial.cell, trial.side) for trial in trials}
    built = {cell.workload for cell, _ in have} == {"build"}  # the series does not build: nothing else was to be run
    cells: tuple[Cell, ...] = () if built else matrix.cells(whole)
    numbers = {Side.BASE: 0, Side.PATCHED: len(first.series.patches)}
    trees = {0: first.base.tree} | {patch.number: patch.tree for patch in first.series.patches}
    return [
        TrialResult(
            cell=cell,
            side=side,
            prefix=numbers[side],
            tree=trees[numbers[side]],
            index=0,
            seed=whole.seed,
            status=Status.LOST,
            reason="no part of the run has this cell: its job left no results",
            accelerator="none",
            started=first.started,
            evidence=str(Path("trials") / side / cell.id / "0"),
        )
        for cell in cells
        for side in map(Side, whole.sides)
        if (cell, side) not in have
    ]


def _host(hosts: Sequence[Host]) -> Host:
    """The first host, with what ran the machines of all."""
    ran = Counter((host.accelerator, host.accelerator_reason) for host in hosts)
    if len(ran) == 1:
        return hosts[0]
    reasons = (f"{name} in {count} of {len(hosts)} parts: {reason}" for (name, reason), count in sorted(ran.items()))
    return replace(hosts[0], accelerator_reason="; ".join(reasons))


def _stages(found: Sequence[Part]) -> tuple[tuple[str, float], ...]:
    total: dict[str, float] = {}
    for part in found:
        for name, seconds in part.run.stages:
            total[name] = total.get(name, 0.0) + seconds
    return tuple(total.items())


def _describe(folder: Path, trial: TrialResult, whole: Config, kernels: Sequence[Kernel]) -> None:
    """Leave the plan of a trial that never ran, so that `rig rerun` can make up for it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = next((k.key for k in kernels if (k.flavour, k.prefix) == (trial.cell.flavour, trial.prefix)), "")
    plan = {
        "cell": trial.cell.id, "side": trial.side, "prefix": trial.prefix, "index": trial.index, "seed": trial.seed,
        "budget": whole.budget, "kernel": key, "tree": trial.tree,
    }  # fmt: skip
    write_atomically(folder / "plan.json", json.dumps(plan, indent=1) + "\n")
    results.write_trial(folder, trial)


def _copy(source: Path, root: Path, target: Path) -> None:
    """Copy the files of a trial's folder: regular ones with plain names, that lie where they seem to."""
    target.mkdir(parents=True, exist_ok=True)
    if not source.is_dir() or source.resolve() != source or not source.is_relative_to(root):
        return
    for entry in sorted(source.iterdir()):
        if not _FILE.fullmatch(entry.name):
            continue
        try:
            # Neither through a link nor waiting for the other end of a pipe.
            descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_LOG:
            os.close(descriptor)
            continue
        with os.fdopen(descriptor, "rb") as file:
            write_atomically(target / entry.name, _pieces(file), mode=status.st_mode & 0o755)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(1 << 20):
        yield data
