"""The workbench of a bisection by counts: trials in which a plugin of QEMU counts, and what they counted.

Beside each trial.json lies counts.json; without it, where there is a plugin, a trial was cut off and is run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rig.bisection.workbench import Bench
from rig.costs import counts
from rig.costs.bench import counting
from rig.costs.metrics import BASE, Kind, Sample, Where
from rig.costs.samples import samples
from rig.model import Cell, Kernel, TrialResult
from rig.pipeline import Pipeline
from rig.trials.trial import Lab, TrialSpec


def subject(number: int) -> str:
    """Return the subject that samples of a prefix have."""
    return f"prefix {number}" if number else BASE


class CountBench(Bench):
    """Kernels of prefixes, and trials of them that count."""

    def __init__(self, pipeline: Pipeline, path: Path, lab: Lab, describe: Callable[[int], dict[str, Any]]) -> None:
        """Take up what is in `path` already."""
        self._accelerator = lab.accelerator
        self._samples: dict[Path, tuple[Sample, ...]] = {}
        self._kits: dict[str, counts.Kit] = {}
        self._bare = counts.kit(pipeline.store, pipeline.builder.compiler, {}, lab.accelerator)
        super().__init__(pipeline, path, lab, describe)

    @property
    def note(self) -> str:
        """Why only what the workload and the kernel itself count is counted; "" when the plugin is there."""
        return self._bare.note

    def complete(self, folder: Path) -> bool:
        """Whether what a trial counted was kept, too."""
        return super().complete(folder) and (not self._bare.library or counts.read(folder) is not None)

    def spec(self, kernel: Kernel, cell: Cell, index: int) -> TrialSpec:
        """Return a trial of a prefix in a cell that counts."""
        return counting(super().spec(kernel, cell, index), self._kit(kernel))

    def attempt(self, spec: TrialSpec, lab: Lab) -> TrialResult:
        """Run a trial, keep what it counted, and return what came of it."""
        found = super().attempt(spec, lab)
        kit = self._kit(spec.kernel)
        if kit.library:
            kit.keep(lab.root / spec.place, spec.kernel.key)
        return found

    def _kit(self, kernel: Kernel) -> counts.Kit:
        if kernel.key not in self._kits:
            store, compiler = self.pipeline.store, self.pipeline.builder.compiler
            self._kits[kernel.key] = counts.kit(store, compiler, {kernel.key: kernel.vmlinux}, self._accelerator)
        return self._kits[kernel.key]

    def samples_of(self, trial: TrialResult) -> tuple[Sample, ...]:
        """Return what a trial counted; nothing of one that came to nothing."""
        place = self.place(trial)
        if place not in self._samples:
            counted = counts.read(self.path / place) if self._bare.library else None
            if self._bare.library and counted is None:
                return ()
            self._samples[place] = tuple(samples(trial, subject(trial.prefix), Kind.COUNTED, counted))
        return self._samples[place]

    def value(self, trial: TrialResult, metric: str, where: Where) -> float | None:
        """Return what a trial counted of one metric of one case; None when it did not."""
        here = (dict(one.values).get(metric) for one in self.samples_of(trial) if one.where == where)
        return next((value for value in here if value is not None), None)

    def values(self, metric: str, where: Where) -> dict[int, list[float]]:
        """Return what the trials of each prefix counted of one metric of one case."""
        found: dict[int, list[float]] = {}
        for trial in self.trials:
            if (value := self.value(trial, metric, where)) is not None:
                found.setdefault(trial.prefix, []).append(value)
        return found

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All that was counted."""
        return tuple(one for trial in self.trials for one in self.samples_of(trial))


def renamed(some: Iterable[Sample], number: int, name: str) -> tuple[Sample, ...]:
    """Return the samples of a prefix under another name, numbered in their order within each case.

    A trial that was lost leaves no gap, in which its partner would be for nothing.
    """
    seen: Counter[Where] = Counter()
    found = []
    for one in sorted((one for one in some if one.subject == subject(number)), key=lambda one: one.index):
        found.append(replace(one, subject=name, index=seen[one.where]))
        seen[one.where] += 1
    return tuple(found)
