"""All trials of one run: what is left of them is run on the slots, and each is kept as soon as it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rig.front.board import Board
from rig.guests import keys
from rig.machines import guest, tsc
from rig.machines.accel import Accelerator
from rig.model import Cell, Kernel, Side, Status, TrialResult
from rig.perturbation import perturb
from rig.perturbation.stalls import NO_KIT
from rig.pipeline import Pipeline
from rig.runs import results, schedule
from rig.runs.rundir import RunFolder
from rig.settings.config import Perturb
from rig.trials import trial
from rig.trials.trial import Interrupted, Lab, TrialSpec
from rig.verdicts import sampling

#: A trial whose machine was lost is run once more before it is given up.
ATTEMPTS = 2


def open_lab(
    pipeline: Pipeline,
    root: Path,
    kernels: Mapping[tuple[str, Side], Kernel],
    stop: threading.Event,
    *,
    perturbed: bool = True,
) -> tuple[Lab, Accelerator]:
    """Return what the trials below `root` share, with keys made for them, and what runs the machines and why.

    The accelerator is probed with a base kernel: whether the patched one boots is what is to be found out. Without
    `perturbed` nothing is prepared that disturbs a machine, whatever the configuration says.
    """
    base = next(kernel for (_, side), kernel in kernels.items() if side is Side.BASE)
    lab, accelerator = lab_on(pipeline, root, base, stop)
    if not perturbed:
        return lab, accelerator
    return perturb_in(lab, pipeline, kernels.values()), accelerator


def lab_on(pipeline: Pipeline, root: Path, base: Kernel, stop: threading.Event) -> tuple[Lab, Accelerator]:
    """Return what open_lab() does, given the kernel to probe the accelerator with, and nothing that disturbs."""
    made = keys.make_keys(root / "keys")
    image = pipeline.run_image(root / "image.cpio", made)
    accelerator = pipeline.accelerator(base, image)
    lab = Lab(
        root=root,
        image=image,
        keys=made,
        disks=pipeline.disks,
        accelerator=accelerator.name,
        stop=stop,
        able=perturb.NOTHING,
        cmdline=tsc.cmdline(pipeline.store.root / "accel") if accelerator.name == "tcg" else (),
        stalls=NO_KIT,
        rig=pipeline.options.rig,
    )
    return lab, accelerator


def perturb_in(lab: Lab, pipeline: Pipeline, kernels: Iterable[Kernel]) -> Lab:
    """Return the lab with what disturbs machines that run these kernels of the pipeline's series, as configured."""
    return replace(
        lab,
        able=perturb.means() if pipeline.config.perturb.jitter else perturb.NOTHING,
        stalls=pipeline.stall_kit(kernels, lab.accelerator),
    )


def spec_of(pipeline: Pipeline, kernel: Kernel, cell: Cell, side: Side, *, index: int, seed: int) -> TrialSpec:
    """Return one trial of a cell as the configuration describes it."""
    config = pipeline.config
    workload = config.workloads[cell.workload]
    return TrialSpec(
        cell=cell,
        side=side,
        index=index,
        seed=seed,
        kernel=kernel,
        machine=config.machines[cell.machine],
        workload=workload,
        budget=config.budget,
        boot_timeout=config.timeouts.boot,
        workload_timeout=config.timeouts.workload,
        perturb=Perturb() if workload.quick else config.perturb,  # without a race there is nothing to win
        favour=pipeline.favoured(cell.workload),
    )


def attempt(
    spec: TrialSpec,
    lab: Lab,
    boots: schedule.BootClock,
    *,
    on_line: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> TrialResult:
    """Run a trial, once more when its machine was lost, and return the result; `boots` learns how long the boot took.

    Raises Interrupted when the run is to end.
    """
    for number in range(1, ATTEMPTS + 1):
        spec = replace(spec, boot_timeout=boots.deadline(spec.cell.flavour))
        result = trial.run(spec, lab, on_line=on_line)
        if result.status is not Status.LOST or number == ATTEMPTS:
            break
        say(f"          {spec.cell.id} {spec.side} #{spec.index}: {result.reason}; once more")
    if result.timing.boot:
        boots.note(spec.cell.flavour, result.timing.boot)
    return result


class Campaign:
    """The trials of one run, on kernels that are built, in a folder that is locked."""

    def __init__(self, pipeline: Pipeline, kernels: Mapping[tuple[str, Side], Kernel], folder: RunFolder) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config
        self.ui = pipeline.ui
        self.kernels = kernels
        self.folder = folder
        self.done: list[TrialResult] = []
        self._rules = pipeline.rules(kernels.values())
        self._boots = schedule.BootClock(self.config.timeouts.boot)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.board = Board(budget=self.config.budget)

    def run(self) -> tuple[tuple[TrialResult, ...], Accelerator]:
        """Run what is not done yet; returns all trials and what ran the machines."""
        threading.Thread(target=guest.preload, daemon=True).start()
        lab, accelerator = open_lab(self.pipeline, self.folder.path, self.kernels, self._stop)
        if lab.able.note:
            self.ui.stage("perturb", f"vCPU jitter: {lab.able.note}")
        if lab.stalls.note:
            self.ui.stage("perturb", f"no stalls inside functions: {lab.stalls.note}")
        trials = self.pipeline.trials
        specs = self._specs(schedule.order(tuple(trials), self._sides, trials))
        left = self._left(specs)
        if self.folder.resumed:
            self.ui.stage(
                "test", f"resuming {self.folder.id}: {len(specs) - len(left)} of {len(specs)} trials are done"
            )
        else:
            self.ui.stage("test", f"{len(specs)} trials of {self.config.budget:g} s in {self.folder.id}")
        count = schedule.slots(self.pipeline.options.jobs, (spec.machine.cpus for spec in specs))
        self.board.slots = count
        with self.pipeline.ledger.time("trials"), self.ui.showing(self.board):
            while specs:
                schedule.execute(left, lambda spec: self._one(spec, lab), count=count, stop=self._stop)
                specs = self._further()
                left = self._left(specs)
        return tuple(self.done), accelerator

    @property
    def _sides(self) -> tuple[Side, ...]:
        return tuple(map(Side, self.config.sides))

    def _further(self) -> tuple[TrialSpec, ...]:
        """Return the next trials of what is in doubt, given those so far, wherever they come from."""
        cells = {cell.id: cell for cell in self.pipeline.trials}
        ran = sampling.asked(self.done)
        doubtful = sampling.more(self.done, tuple(cells), self._rules)
        if doubtful:
            self.ui.stage("test", f"in doubt, once more on both sides: {', '.join(doubtful)}")
        indices = {cells[name]: ran[name] for name in doubtful}
        return self._specs(schedule.round_of(tuple(cells.values()), self._sides, indices))

    def _specs(self, order: Iterable[tuple[Cell, Side, int]]) -> tuple[TrialSpec, ...]:
        seed = self.config.seed
        return tuple(
            spec_of(self.pipeline, self.kernels[cell.flavour, side], cell, side, index=index, seed=seed + index)
            for cell, side, index in order
        )

    def _left(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """Return those of these trials that are not done yet."""
        self.board.expect(spec.cell for spec in specs)
        return [spec for spec in specs if not self._is_done(spec)]

    def _is_done(self, spec: TrialSpec) -> bool:
        """Take over the result of an earlier attempt at this run."""
        if not self.folder.resumed:
            return False
        known = results.read_trial(self.folder.path / spec.place)
        if known is None or known.status is Status.LOST or known.seed != spec.seed:
            return False
        self.done.append(known)
        self.board.ended(known)
        return True

    def _one(self, spec: TrialSpec, lab: Lab) -> None:
        self.board.started(spec.cell, spec.side)
        try:
            result = attempt(spec, lab, self._boots, on_line=lambda line: self._progress(spec, line), say=self.ui.say)
        except Interrupted:
            return
        finally:
            self.board.stopped(spec.cell, spec.side)
        with self._lock:
            self.done.append(result)
        self.board.ended(result)
        self.ui.trial(result, f"[{self.board.done}/{self.board.total}]")

    def _progress(self, spec: TrialSpec, line: str) -> None:
        if line.startswith(("ok ", "not ok ")):
            case = line.partition("#")[0].strip()[:60]
            self.board.said(spec.cell, spec.side, case)
            self.ui.progress(f"[{self.board.done}/{self.board.total}] {spec.cell.id} {spec.side}: {case}")
