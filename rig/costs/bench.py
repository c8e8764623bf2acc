"""`rig bench`: what a series buys and what it costs, in exact counts and in time.

results/bench/<run>/
    plan.json, config.json          what the run is made of; a run without bench.json is resumed
    counts/<subject>/trials/...     trials in which a plugin of QEMU counts what the kernel does
    times/<subject>/trials/...      trials in which nothing is in the way
    bench.json, junit.xml, summary.txt, summary.md, bench.html

A subject is the base, a series, or the base once more (the null control). They take turns, trial by trial and with the
same seeds, one machine at a time: what drifts on the host hits all alike.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rig import __version__
from rig.clock import now
from rig.costs import codesize, counts, report, visits, willitscale
from rig.costs.metrics import BASE, NULL, RESULT, Bench, Kind, Sample, Subject, Trouble, compare, function_changes
from rig.costs.samples import samples
from rig.errors import ConfigError
from rig.front.ui import Ui
from rig.machines import guest
from rig.machines.accel import Accelerator
from rig.model import Cell, Kernel, Side, Status, TrialResult
from rig.pipeline import Options, Pipeline
from rig.records.subjects import PATCHES
from rig.runs import campaign, results, rundir, schedule
from rig.runs.rundir import RunFolder
from rig.settings.config import Config, Machine, Matrix, Perturb, Workload
from rig.store import write_atomically
from rig.trees.series import Series
from rig.trials.trial import Interrupted, Lab, TrialSpec

FOLDER = "bench"
WORKLOAD = "bench-faults"
COSTS = "costs"  # below patches/: what is known to cost
#: MiB of a machine.
MEMORY = 1024
#: Seconds that a workload of fixed size may take; on a loaded host under emulation it takes ten.
BUDGET = 300.0
#: With one CPU the kernel would take the lock prefixes out of its code, and there would be no atomics to count.
CMDLINE = ("noreplace-smp",)


def settle(config: Config) -> Config:
    """Return the configuration whose cells are those of a bench."""
    own = config.bench
    kept = {name: words for name, words in config.flavours.items() if name in own.flavours}
    scale = willitscale.chosen(config)
    memory = {n: willitscale.memory_mib(MEMORY, n) if scale else MEMORY for n in own.cpus}
    machines = {
        f"cpus{n}": Machine(name=f"cpus{n}", cpus=n, memory_mib=mib, cmdline=CMDLINE) for n, mib in memory.items()
    }
    args = {"cases": ",".join(own.cases), "faults": own.faults}
    workloads = {WORKLOAD: Workload(run=WORKLOAD, args=args, filesystems=own.filesystems)}
    if scale:  # its files are in /tmp, whatever the cell says, which is in the guest's memory
        workloads[willitscale.NAME] = Workload(run=willitscale.NAME, filesystems=("tmpfs",))
    return config.model_copy(
        update={
            "flavours": kept or config.flavours,
            "machines": machines,
            "workloads": workloads,
            "matrix": Matrix(),
            "perturb": Perturb(),
            "budget": BUDGET,
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A kernel of each flavour that is measured."""

    name: str
    key: str
    patches: int
    pipeline: Pipeline
    kernels: Mapping[str, Kernel]  # by flavour

    @property
    def side(self) -> Side:
        """Base, or patched."""
        return Side.BASE if self.name in (BASE, NULL) else Side.PATCHED


def choose(root: Path, globs: Sequence[str]) -> tuple[str, ...]:
    """Return the folders of patches/ that globs name, and NULL, in the order of the globs.

    Raises ConfigError for a glob that names nothing.
    """
    from rig.records import controls

    folder = root / PATCHES
    known = [
        str(path.relative_to(folder))
        for path in (*sorted(folder.glob("*")), *sorted((folder / COSTS).glob("*")))
        if path.is_dir() and controls.has_patches(path)
    ]
    chosen: list[str] = []
    for glob in globs:
        found = [name for name in (*known, NULL) if fnmatchcase(name, glob)]
        if not found:
            raise ConfigError(f"no series is called {glob!r}", hint=f"one of {', '.join((*known, NULL))}")
        chosen += found
    return tuple(dict.fromkeys(chosen))


def run(
    root: Path,
    config: Config,
    options: Options,
    ui: Ui,
    names: Sequence[str],
    *,
    against: str = "",
    as_json: bool = False,
) -> int:
    """Measure the series of `names` below patches/, or that of the configuration, and return the exit code."""
    config = settle(config)
    chosen = choose(root, names)
    wanted: dict[str, tuple[str, ...]] = {name: (str(root / PATCHES / name),) for name in chosen if name != NULL}
    if not names:
        wanted = {Path(config.series[-1]).name if config.series else "": config.series}
    bench = _Bench(config, options, ui, wanted, null=NULL in chosen, against=against)
    if options.dry_run:
        bench.say_plan()
        return 0
    try:
        done, folder = bench.run()
    finally:
        ui.settle()
    if as_json:
        print(json.dumps(results.to_json(done), indent=1))
    else:
        print(report.text(done))
        print(f"\nresults: {ui.path(folder)}/ ({RESULT}, junit.xml, summary.md, bench.html)")
    return report.exit_code(done)


class _Bench:
    """One run: what is done and what is left."""

    def __init__(
        self,
        config: Config,
        options: Options,
        ui: Ui,
        wanted: Mapping[str, tuple[str, ...]],
        *,
        null: bool,
        against: str,
    ) -> None:
        self.config = config
        self.options = options
        self.ui = ui
        self.wanted = wanted
        self.null = null
        self.against = against
        self._boots = schedule.BootClock(config.timeouts.boot)
        self._stop = threading.Event()
        self._troubles: list[Trouble] = []
        self._notes: list[str] = []
        self._samples: list[Sample] = []

    def say_plan(self) -> None:
        """Say what would be done."""
        cells = Pipeline(self.config, self.options, self.ui).cells
        own, kernels = self.config.bench, 1 + len(self.wanted) + self.null
        for kind, number in ((Kind.COUNTED, own.counted), (Kind.TIMED, own.pairs)):
            mine = _cells_for(kind, cells)
            self.ui.stage(FOLDER, f"{kind}: would run {number} trials of {len(mine)} cells on {kernels} kernels")

    def run(self) -> tuple[Bench, Path]:
        """Do what is left to do, write the reports, and return the whole and its folder."""
        threading.Thread(target=guest.preload, daemon=True).start()
        contestants = self._contestants()
        plan = self._plan(contestants)
        names = [one.name.replace("/", "-") for one in contestants if one.name != BASE]
        label = Series(name=names[0] if len(names) == 1 else FOLDER, origin="", patches=())
        place = self.config.results / FOLDER
        with rundir.open_run(place, label, plan, resume=not self.options.always, last=RESULT) as folder:
            try:
                accelerator = self._all(contestants, folder, plan)
                done = self._collect(contestants, folder, accelerator)
                report.write(folder.path, done)
                write_atomically(
                    folder.path / RESULT, json.dumps(results.to_json(done), indent=1, sort_keys=True) + "\n"
                )
            finally:
                rundir.remove_secrets(folder.path)
        return done, folder.path

    def _contestants(self) -> tuple[Contestant, ...]:
        pipelines = {
            name: Pipeline(self.config.model_copy(update={"series": series}), self.options, self.ui)
            for name, series in self.wanted.items()
        }
        # Applied first, all of them: a series that does not apply says so before anything is built.
        found = [
            Contestant(
                name=name or one.applied.series.name,
                key=one.applied.series.key,
                patches=len(one.applied.series.patches),
                pipeline=one,
                kernels=one.built(len(one.applied.series.patches)),
            )
            for name, one in pipelines.items()
            if one.applied
        ]
        origin = found[0].pipeline if found else Pipeline(self.config, self.options, self.ui)
        if self.against:
            other = Pipeline(self.config.model_copy(update={"series": (self.against,)}), self.options, self.ui)
            base = other.built(len(other.applied.series.patches))
        else:
            other, base = origin, origin.built(0)
        first = Contestant(name=BASE, key="", patches=0, pipeline=other, kernels=base)
        return (first, *found, *([replace(first, name=NULL)] if self.null else []))

    def _plan(self, contestants: Sequence[Contestant]) -> dict[str, Any]:
        """All that the outcome depends on: a run with an equal plan may be resumed."""
        return {
            "config": self.config.model_dump(mode="json", exclude={"results", "store", "store_limit_mib", "series"}),
            "kernels": {one.name: {name: kernel.key for name, kernel in one.kernels.items()} for one in contestants},
            "against": self.against,
            "image": contestants[0].pipeline.base_image.parent.name,
            "store": str(self.config.store),
            "rig": __version__,
        }

    def _all(self, contestants: Sequence[Contestant], folder: RunFolder, plan: Mapping[str, Any]) -> Accelerator:
        origin, own = contestants[0].pipeline, self.config.bench
        lab, accelerator = campaign.lab_on(origin, folder.path, next(iter(contestants[0].kernels.values())), self._stop)
        kernels = {kernel.key: kernel.vmlinux for one in contestants for kernel in one.kernels.values()}
        kit = counts.kit(origin.store, origin.builder.compiler, kernels, accelerator.name)
        if kit.note:
            self._notes.append(f"instructions and atomics are not counted: {kit.note}")
            self.ui.stage(FOLDER, self._notes[-1])
        self._notes += [
            f"skipped pages are not counted on {one.name}: the {name} kernel has no {visits.WALK}() of its own"
            for one in contestants
            for name, kernel in one.kernels.items()
            if kit.library and not kit.code[kernel.key].visits
        ]
        planned = {Kind.COUNTED: own.counted, Kind.TIMED: own.pairs}
        turns = [
            (kind, *turn)
            for kind, number in planned.items()
            for turn in order(_cells_for(kind, origin.cells), contestants, number)
        ]
        self.ui.stage(FOLDER, f"{len(turns)} trials of {len(origin.cells)} cells on {len(contestants)} kernels")
        for one in contestants:
            for kind in planned:
                rundir.describe(folder.path / kind / one.name, one.pipeline.applied.series, dict(plan))
        for number, (kind, index, cell, one) in enumerate(turns, start=1):
            home = folder.path / kind / one.name
            try:
                self._one(kind, index, cell, one, replace(lab, root=home), kit, folder, f"[{number}/{len(turns)}]")
            except Interrupted:
                raise KeyboardInterrupt from None
        return accelerator

    def _one(
        self,
        kind: Kind,
        index: int,
        cell: Cell,
        one: Contestant,
        lab: Lab,
        kit: counts.Kit,
        folder: RunFolder,
        label: str,
    ) -> None:
        """Run a trial, or take over what an interrupted run has of it, and keep its samples."""
        kernel = one.kernels[cell.flavour]
        spec = self._spec(kind, index, cell, one, kernel, kit)
        known = _kept(spec, lab, kernel)
        plugged = kind is Kind.COUNTED and kit.library is not None
        counted = counts.read(lab.root / spec.place) if plugged and known else None
        if known is None or (plugged and counted is None):
            self.ui.progress(f"{label} {kind} {one.name}: {cell.id} #{index}")
            known = campaign.attempt(spec, lab, self._boots, say=self.ui.say)
            if plugged:
                counted = kit.keep(lab.root / spec.place, kernel.key)
            self.ui.say(
                f"  {known.status:<12} {label} {kind} {one.name}: {cell.id} #{index} ({known.timing.total:.1f} s)"
                + (f" {known.reason}" if known.status is not Status.PASS else "")
            )
        if counted is not None and counted.note:
            self._notes.append(f"{one.name} {cell.id} #{index}: {counted.note}")
        if known.status is not Status.PASS:
            evidence = str((lab.root / spec.place).relative_to(folder.path))
            self._troubles.append(
                Trouble(
                    subject=one.name,
                    cell=cell.id,
                    kind=kind,
                    status=known.status,
                    reason=known.reason,
                    evidence=evidence,
                )
            )
        if plugged and counted is None:
            return
        self._samples += samples(known, one.name, kind, counted)

    def _spec(self, kind: Kind, index: int, cell: Cell, one: Contestant, kernel: Kernel, kit: counts.Kit) -> TrialSpec:
        spec = campaign.spec_of(one.pipeline, kernel, cell, one.side, index=index, seed=self.config.seed + index)
        return counting(spec, kit) if kind is Kind.COUNTED else replace(spec, favour=(), tracepoints=())

    def _collect(self, contestants: Sequence[Contestant], folder: RunFolder, accelerator: Accelerator) -> Bench:
        own, origin = self.config.bench, contestants[0].pipeline
        others = [one for one in contestants if one.name != BASE]
        kept = tuple(self._samples)
        sizes = [
            size
            for one in others
            if one.name != NULL
            for flavour, kernel in one.kernels.items()
            for size in codesize.changes(
                one.name, flavour, contestants[0].kernels[flavour].vmlinux, kernel.vmlinux, one.pipeline.touched
            )
        ]
        return Bench(
            id=folder.id,
            started=folder.started,
            finished=now().isoformat(timespec="seconds"),
            rig_version=__version__,
            accelerator=accelerator.name,
            accelerator_reason=accelerator.reason,
            host_cpus=len(os.sched_getaffinity(0)),
            base=f"{origin.applied.base.source} ({origin.applied.base.version})",
            against=self.against,
            level=own.level,
            threshold=own.threshold,
            counted=own.counted,
            timed=own.pairs,
            subjects=tuple(Subject(name=one.name, key=one.key, patches=one.patches) for one in others),
            comparisons=tuple(found for one in others for found in compare(kept, one.name, own.level)),
            functions=tuple(found for one in others for found in function_changes(kept, one.name)),
            sizes=tuple(sizes),
            samples=tuple(replace(one, work=()) for one in kept),
            troubles=tuple(self._troubles),
            notes=tuple(dict.fromkeys(self._notes)),
            config=self.config.model_dump(mode="json", exclude={"results", "store"}),
        )


def counting(spec: TrialSpec, kit: counts.Kit) -> TrialSpec:
    """Return a trial with the plugin that counts; where there is none, the kernel's tracepoints are all there is."""
    spec = replace(spec, favour=())
    if kit.library is None:
        return spec
    key, cpus = spec.kernel.key, spec.machine.cpus
    # Tracepoints cost instructions and atomics of their own.
    return replace(spec, tracepoints=(), plugin=lambda folder: kit.write_control(folder, key, cpus))


def order(
    cells: Sequence[Cell], contestants: Sequence[Contestant], number: int
) -> Iterator[tuple[int, Cell, Contestant]]:
    """Yield (index, cell, contestant): each cell once before any again, and who begins changes from turn to turn."""
    for index in range(number):
        for position, cell in enumerate(cells):
            first = (index + position) % len(contestants)
            for one in (*contestants[first:], *contestants[:first]):
                yield index, cell, one


def _cells_for(kind: Kind, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Nothing is counted of what runs for a time, and not for an amount."""
    return tuple(cell for cell in cells if kind is Kind.TIMED or cell.workload == WORKLOAD)


def _kept(spec: TrialSpec, lab: Lab, kernel: Kernel) -> TrialResult | None:
    known = results.read_trial(lab.root / spec.place)
    same = (
        known is not None and known.seed == spec.seed and known.tree == kernel.tree and known.status is not Status.LOST
    )
    return known if same else None
