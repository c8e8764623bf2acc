"""The workbench of a bisection: kernels of single prefixes, and trials of them, all kept in its folder.

prefixes/<n>/
    <flavour>.json              whether it was built, in how many seconds, or why it does not build
    config.json                 of a commit of a history: what it takes to run any trial below again
    trials/<side>/<cell>/<index>/

Whatever is there when a bisection is taken up again counts as if it had been done just now.
"""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from rig.clock import Stopwatch
from rig.detection import hunt
from rig.errors import BuildError, HostError
from rig.kernels.build import BrokenSeries
from rig.model import Cell, Kernel, Side, Status, TrialResult
from rig.pipeline import Pipeline
from rig.runs import campaign, results, rundir, schedule
from rig.runs.campaign import attempt, spec_of
from rig.store import write_atomically
from rig.trees.series import NONE
from rig.trials.signature import signature
from rig.trials.trial import Interrupted, Lab, TrialSpec

#: So many trials of a prefix that never come as far as the guest's shell: it does not boot.
BOOTS = 2
#: So many trials in a row without a machine: it is the host.
LOST = 4
#: Of a series with more prefixes it is not looked up which kernels are in the store: each look reads a kernel.
MOST_LOOKED_UP = 65
#: What a file that has to be compiled again costs, and what everything that includes a header costs, in seconds, until
#: builds were measured; linking comes with every build.
LINK, FILE, HEADER = 40.0, 4.0, 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A prefix that cannot be tried in a flavour."""

    number: int
    flavour: str
    state: str  # broken or unbootable
    reason: str  # the error, or what the console says
    signature: str


class Bench:
    """What was built and tried, and the means to build and try more."""

    def __init__(
        self,
        pipeline: Pipeline,
        path: Path,
        lab: Lab,
        describe: Callable[[int], dict[str, Any]],
        *,
        whole: bool = False,
    ) -> None:
        """Take up what is in `path` already.

        With `whole` each prefix is a tree of its own, that has no patches on it; `describe` returns what it is made of
        (see runs.describe()), and {} for what `path` says.
        """
        self.pipeline = pipeline
        self.path = path
        self.lab = lab
        self.holes: dict[tuple[int, str], Hole] = {}
        self.trials: list[TrialResult] = []
        self._describe = describe
        self._whole = whole
        self._flavours = {flavour.name: flavour for flavour in pipeline.flavours}
        self._kernels: dict[tuple[int, str], Kernel] = {}
        self._built: dict[str, dict[int, float]] = defaultdict(dict)  # seconds, by flavour and prefix
        self._stored: dict[str, set[int]] = {}
        self._at: dict[str, int] = {}  # the prefix that the object directory of a flavour is at
        self._boots = schedule.BootClock(pipeline.config.timeouts.boot)
        self._slots = schedule.slots(
            pipeline.options.jobs, (pipeline.config.machines[cell.machine].cpus for cell in pipeline.cells)
        )
        self._lost = 0
        self._lock = threading.Lock()
        self._take_up()

    # -- what is known ------------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        for file in sorted(self.path.glob("prefixes/*/*.json")):
            if file.stem in self._flavours and file.parent.name.isdigit():
                with suppress(OSError, ValueError, KeyError):
                    self._know(int(file.parent.name), file.stem, json.loads(file.read_text()))
        for file in sorted(self.path.glob(f"prefixes/*/trials/**/{results.TRIAL_FILE}")):
            known = results.read_trial(file.parent)
            if known is not None and known.status is not Status.LOST and self.complete(file.parent):
                self.trials.append(known)
        self._look_at_boots()

    def complete(self, folder: Path) -> bool:
        """Whether a trial that an interrupted bisection left in a folder has all that it is to have."""
        return (folder / results.TRIAL_FILE).is_file()

    def _know(self, number: int, flavour: str, state: dict[str, Any]) -> None:
        self._built[flavour][number] = float(state["seconds"])
        if state["error"]:
            self.holes[number, flavour] = Hole(
                number=number,
                flavour=flavour,
                state="broken",
                reason=state["error"],
                signature=signature("build", state["error"]),
            )

    @property
    def seconds(self) -> float:
        """The seconds of building and of trials so far, those before an interruption included."""
        built = sum(seconds for known in self._built.values() for seconds in known.values())
        return built + sum(trial.timing.total for trial in self.trials) / self._slots

    @property
    def slots(self) -> int:
        """How many machines run at once."""
        return self._slots

    @property
    def tip(self) -> int:
        """The number of the last prefix."""
        return len(self.pipeline.applied.prefixes) - 1

    def tried(self, cell: Cell) -> list[TrialResult]:
        """Return the trials of a cell on all prefixes."""
        return [trial for trial in self.trials if trial.cell == cell]

    def place(self, trial: TrialResult) -> Path:
        """Return the folder of a trial, relative to that of the bisection."""
        return Path("prefixes") / str(trial.prefix) / trial.evidence

    def trial_seconds(self, cell: Cell) -> float:
        """Return what a trial of a cell takes: the mean so far, or a guess before the first one."""
        known = [trial.timing.total for trial in self.tried(cell)] or [trial.timing.total for trial in self.trials]
        return sum(known) / len(known) if known else self.pipeline.config.budget + 8.0

    # -- kernels ------------------------------------------------------------------------------------------------------

    def is_built(self, number: int, flavour: str) -> bool:
        """Whether the kernel of a prefix is at hand."""
        return number in self._built[flavour] and (number, flavour) not in self.holes

    def effort(self, flavour: str) -> list[float]:
        """Return the seconds that it takes to have the kernel of each prefix: 0 for those at hand.

        What lies between the prefix that was built last and the wanted one must be compiled again, and no more.
        """
        patches = self.pipeline.applied.series.patches
        at = self._at.get(flavour, 0)
        estimates = [0.0] * (len(patches) + 1)
        for span in (range(at, len(patches)), range(at - 1, -1, -1)):
            files: set[str] = set()
            for index in span:
                files |= set(patches[index].paths)
                estimates[index + 1 if span.step > 0 else index] = _estimate(files)
        scale = self._scale(flavour)
        known = self._at_hand(flavour)
        return [0.0 if number in known else scale * one for number, one in enumerate(estimates)]

    def _scale(self, flavour: str) -> float:
        """How much longer builds take on this host than was guessed, from those that were made."""
        # The median: the first build of all may have been that of a whole kernel.
        taken = hunt.median([seconds for seconds in self._built[flavour].values() if seconds > 0])
        return taken / (LINK + FILE) if taken else 1.0

    def _at_hand(self, flavour: str) -> set[int]:
        """Return the prefixes whose kernels nobody has to build, of a series that is not too long to look."""
        if flavour not in self._stored:
            count, builder = len(self.pipeline.applied.prefixes), self.pipeline.builder
            numbers = range(count) if count <= MOST_LOOKED_UP else ()
            self._stored[flavour] = {n for n in numbers if builder.up_to_date(n, self._flavours[flavour])}
        return self._stored[flavour] | self._built[flavour].keys()

    def kernel(self, number: int, flavour: str) -> Kernel | Hole:
        """Return the kernel of a prefix, built if need be, or why there is none; raises HostError for the base."""
        key = (number, flavour)
        if key in self.holes and self.holes[key].state == "broken":
            return self.holes[key]
        if key in self._kernels:
            return self._kernels[key]
        watch, error, log = Stopwatch(), "", None
        made: Kernel | None = None
        builder, before = self.pipeline.builder, self.pipeline.builder.built
        try:
            made = builder.alone(number, self._flavours[flavour])
        except BrokenSeries as broken:
            error, log = broken.failure.errors[0], broken.failure.log
        except BuildError as broken:  # a symbol that it does not have any more, or it takes for ever
            error, log = broken.summary, broken.evidence
        home = self.path / "prefixes" / str(number)
        home.mkdir(parents=True, exist_ok=True)
        if log is not None:
            shutil.copyfile(log, home / f"build-{flavour}.log")
        fresh = builder.built > before or error
        seconds = self._built[flavour].get(number, 0.0) + (watch.elapsed if fresh else 0.0)
        state = {"error": error, "seconds": round(seconds, 3)}
        write_atomically(home / f"{flavour}.json", json.dumps(state) + "\n")
        self._know(number, flavour, state)
        if fresh:
            self._at[flavour] = number
        if made is None:
            self.pipeline.ui.say(f"  BROKEN  {flavour} base+{number}: {error}")
            return self.holes[key]
        self._kernels[key] = made
        return made

    # -- trials -------------------------------------------------------------------------------------------------------

    def run(self, jobs: Sequence[tuple[int, Cell]], *, stop_at: str = "") -> None:
        """Run a trial of each prefix in its cell, several at once where the host has the cores, and keep them.

        A trial ends soon after a finding with the title `stop_at` was seen. Prefixes without a kernel are left out.
        Raises HostError when machine after machine is lost.
        """
        taken: dict[tuple[int, Cell], set[int]] = defaultdict(set)
        for trial in self.trials:
            taken[trial.prefix, trial.cell].add(trial.index)
        specs = []
        for number, cell in jobs:
            kernel = self.kernel(number, cell.flavour)
            if isinstance(kernel, Hole):
                continue
            index = next(free for free in itertools.count() if free not in taken[number, cell])
            taken[number, cell].add(index)
            specs.append((kernel, cell, index))
        labs = {kernel.key: self._lab(kernel) for kernel, _, _ in specs}

        def one(job: tuple[Kernel, Cell, int]) -> None:
            kernel, cell, index = job
            spec = self.spec(kernel, cell, index)
            if stop_at:
                spec = replace(spec, wanted=(escape(stop_at),), stop_on_finding=True)
            with suppress(Interrupted):
                self._keep(self.attempt(spec, labs[kernel.key]))

        schedule.execute(specs, one, count=self._slots, stop=self.lab.stop)
        self._look_at_boots()
        if self._lost >= LOST:
            last = self.trials[-1]
            raise HostError(
                f"{self._lost} trials in a row were lost: {last.reason}",
                hint="the same command goes on when the host is well again",
                evidence=self.path / self.place(last),
            )

    def spec(self, kernel: Kernel, cell: Cell, index: int) -> TrialSpec:
        """Return a trial of a prefix in a cell."""
        seed = self.pipeline.config.seed + index
        return spec_of(self.pipeline, kernel, cell, self._side(kernel), index=index, seed=seed)

    def attempt(self, spec: TrialSpec, lab: Lab) -> TrialResult:
        """Run a trial and return what came of it; raises Interrupted when the run is to end."""
        ui, label = self.pipeline.ui, f"{spec.kernel.prefix} {spec.cell.id} seed {spec.seed}"

        def progress(line: str) -> None:
            if line.startswith(("ok", "not")):
                ui.progress(f"{label}: {line}")

        return attempt(spec, lab, self._boots, on_line=progress, say=ui.say)

    def _keep(self, trial: TrialResult) -> None:
        with self._lock:
            self.trials.append(trial)
            self._lost = self._lost + 1 if trial.status is Status.LOST else 0
        what = f": {trial.reason}" if trial.status is not Status.PASS else ""
        self.pipeline.ui.say(
            f"  {trial.status:<12} patch {trial.prefix}, {trial.cell.id} #{trial.index} "
            f"({trial.timing.total:.1f} s){what}"
        )

    def _side(self, kernel: Kernel) -> Side:
        return Side.BASE if self._whole or kernel.prefix == 0 else Side.PATCHED

    def _lab(self, kernel: Kernel) -> Lab:
        """Return the lab of a prefix: its own folder, and stalls in the functions that the whole series touches."""
        home = self.path / "prefixes" / str(kernel.prefix)
        if (words := self._describe(kernel.prefix)) and not (home / rundir.PLAN).exists():
            rundir.describe(home, NONE, words)
        ends = [self._kernels.get((number, kernel.flavour)) for number in (0, self.tip)]
        known = {one.key: one for one in (*ends, kernel) if one is not None}
        return campaign.perturb_in(replace(self.lab, root=home), self.pipeline, known.values())

    def _look_at_boots(self) -> None:
        """Give up prefixes that never booted."""
        by_prefix: dict[tuple[int, str], list[TrialResult]] = defaultdict(list)
        for trial in self.trials:
            by_prefix[trial.prefix, trial.cell.flavour].append(trial)
        for (number, flavour), tried in by_prefix.items():
            dead = [trial for trial in tried if trial.guest is None and trial.status.bad]
            if len(dead) >= BOOTS and len(dead) == len(tried):
                first = dead[0].findings[0] if dead[0].findings else None
                reason = first.title if first else dead[0].reason
                self.holes.setdefault(
                    (number, flavour),
                    Hole(
                        number=number,
                        flavour=flavour,
                        state="unbootable",
                        reason=reason,
                        signature=first.signature if first else signature("boot", reason),
                    ),
                )


def _estimate(files: Iterable[str]) -> float:
    return LINK + sum(HEADER if name.endswith(".h") else FILE for name in files)
