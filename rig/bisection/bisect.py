"""`rig bisect`: which patch of a series, or which commit of a history, brought a finding?

First the tip and the base are tried; what the tip shows is hunted over the prefixes between them, each finding with a
belief of its own (posterior.py), all of them with the same trials. What was built and tried is kept by workbench.py.

results/bisect/<run>/
    plan.json, config.json, series/   what it is made of
    prefixes/<n>/                     see workbench.py
    bisect.json, bisect.svg, junit.xml, summary.txt, summary.md
    settled                           nothing is left to do; a run without it is resumed by the same command
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rig import __version__
from rig.bisection import history, outcomes, posterior, quarry, report, suspicion
from rig.bisection.history import History
from rig.bisection.outcomes import Bisection, Outcome
from rig.bisection.posterior import Choice, Lineup
from rig.bisection.quarry import Break, Hunt, Known, shows
from rig.bisection.suspicion import Touches
from rig.bisection.workbench import Bench, Hole
from rig.detection import hunt
from rig.front.ui import Ui
from rig.machines import guest
from rig.machines.accel import Accelerator
from rig.model import Cell, Finding
from rig.pipeline import Options, Pipeline
from rig.runs import campaign, rundir
from rig.settings.config import Config
from rig.touches.targets import touched_by
from rig.trees.series import NONE, Applied, Series
from rig.trials.trial import Lab

FOLDER, SETTLED = "bisect", "settled"
#: Findings that are hunted at most; what more there is is told on the side.
MOST_FINDINGS = 8
#: Trials of each cell before the tip counts as clean, whoever bisects believes that it is not; and each prefix.
LOOKS, LOOKS_EACH = 12, 3


def looks(config: Config) -> int:
    """Return how many trials of each cell it takes before a kernel counts as clean."""
    return config.bisect.looks or (LOOKS_EACH if config.bisect.every_prefix else LOOKS)


class HistoryPipeline(Pipeline):
    """The pipeline over a history: its prefixes are commits, and what all of them touch is no hint."""

    def __init__(self, config: Config, options: Options, ui: Ui) -> None:
        calm = config.perturb.model_copy(
            update={"stalls": config.perturb.stalls.model_copy(update={"share": 0.0})}
        )  # there are no few functions to stall in
        super().__init__(config.model_copy(update={"series": (), "perturb": calm, "sides": ("base",)}), options, ui)

    @cached_property
    def history(self) -> History:
        """The commits between good and bad."""
        config = self.config
        self.ui.stage("source", f"commits {config.bisect.good}..{config.bisect.bad} of {config.kernel.source}")
        return history.read(config.kernel.source, config.bisect.good, config.bisect.bad, self.store)

    @cached_property
    def applied(self) -> Applied:
        """The good commit, and each later one."""
        return self.history.applied

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """Nothing is favoured."""
        return ()


def run(config: Config, options: Options, ui: Ui, *, command: str, as_json: bool = False) -> int:
    """Bisect, print what came of it, and return the exit code; `command` is what makes it again."""
    whole = bool(config.bisect.good)
    pipeline = HistoryPipeline(config, options, ui) if whole else Pipeline(config, options, ui)
    return carry_out(Bisector(pipeline, command), as_json=as_json)


def carry_out(bisector: Bisector, *, as_json: bool) -> int:
    """Bisect, or only say what that would be, print what came of it, and return the exit code."""
    options, ui = bisector.pipeline.options, bisector.ui
    try:
        if options.dry_run:
            ui.stage(FOLDER, bisector.plan_in_words())
            return 0
        done, folder = bisector.run()
    finally:
        ui.settle()
    if as_json:
        json.dump(outcomes.dump(done), sys.stdout, indent=1)
        print()
    else:
        print(outcomes.text(done))
        print(f"results: {ui.path(folder)}/ ({report.RESULT}, {report.PLOT}, junit.xml, summary.md)")
    return done.exit_code


class Bisector:
    """One bisection: what is known, and what to try next."""

    def __init__(self, pipeline: Pipeline, command: str) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config
        self.own = pipeline.config.bisect
        self.ui = pipeline.ui
        self.command = command
        self.hunts: list[Hunt] = []
        self._stop = threading.Event()

    @property
    def whole(self) -> bool:
        """Whether the prefixes are the commits of a history."""
        return isinstance(self.pipeline, HistoryPipeline)

    @property
    def mode(self) -> str:
        """What is searched, and how."""
        return "history" if self.whole else "every-prefix" if self.own.every_prefix else "series"

    @cached_property
    def tip(self) -> int:
        """The number of the last prefix."""
        return len(self.pipeline.applied.prefixes) - 1

    def plan_in_words(self) -> str:
        """Return what would be done."""
        own = self.own
        what = "each prefix" if own.every_prefix else "the tip and the base"
        return (
            f"would try {what} in {len(self.pipeline.cells)} cells, up to {looks(self.config)} times each, "
            f"then search {self.tip} patches for up to {own.limit:g} s "
            f"until one of them is {100 * own.confidence:g} % sure"
        )

    def run(self) -> tuple[Bisection, Path]:
        """Do what is left to do, write the reports, and return the whole and its folder."""
        threading.Thread(target=guest.preload, daemon=True).start()
        pipeline, config = self.pipeline, self.config
        cells = pipeline.cells  # first: an empty selection is refused before anything is applied or built
        applied = pipeline.applied
        kept = NONE if self.whole else applied.series
        with rundir.open_run(
            config.results / FOLDER, kept, self._plan(), resume=not pipeline.options.always, last=SETTLED
        ) as folder:
            self.ui.stage(
                FOLDER, f"{'resuming ' if folder.resumed else ''}{folder.id}: {self.tip} patches, {len(cells)} cells"
            )
            try:
                base = pipeline.builder.alone(0, pipeline.flavours[0])
                lab, accelerator = campaign.lab_on(pipeline, folder.path, base, self._stop)
                self.bench = self._workbench(folder.path, lab)
                if self.bench.trials:
                    self.ui.stage(FOLDER, f"{len(self.bench.trials)} trials are there already")
                done = self._all(folder, accelerator)
            finally:
                rundir.remove_secrets(folder.path)
        return done, folder.path

    def _workbench(self, path: Path, lab: Lab) -> Bench:
        return Bench(self.pipeline, path, lab, self._describe, whole=self.whole)

    def _all(self, folder: rundir.RunFolder, accelerator: Accelerator) -> Bisection:
        looked = self._first_look()
        self._search()
        facts = report.Facts(
            folder=folder,
            command=self.command,
            mode=self.mode,
            accelerator=accelerator,
            out_of_time=self._out_of_time,
            looked=looked,
        )
        done = self._collect(facts)
        report.write(folder.path, done)
        left = facts.out_of_time and any(one.outcome is Outcome.UNDECIDED for one in done.findings)
        if done.status is not Outcome.UNDECIDED and not left:
            (folder.path / SETTLED).touch()
        return done

    def _collect(self, facts: report.Facts) -> Bisection:
        breaks = () if self.whole else self._breaks()
        return report.collect(self.pipeline, self.bench, facts, [self._known(one) for one in self.hunts], breaks)

    def _plan(self) -> dict[str, Any]:
        """All that the outcome of a trial depends on; how sure the answer must be, and how soon, may be changed."""
        skip = {"results": True, "store": True, "store_limit_mib": True, "bisect": {"limit", "confidence"}}
        return {
            "config": self.config.model_dump(mode="json", exclude=skip),  # type: ignore[arg-type]
            "series": [prefix.commit for prefix in self.pipeline.applied.prefixes[:: max(1, self.tip)]],
            "patches": self.pipeline.applied.series.key if not self.whole else "",
            "store": str(self.config.store),
            "rig": __version__,
        }

    def _describe(self, number: int) -> dict[str, Any]:
        """What a commit is made of, so that `rig rerun` finds it; {} for a prefix, which the run itself describes."""
        if not isinstance(self.pipeline, HistoryPipeline):
            return {}
        source = f"git:{self.pipeline.history.remote}#{self.pipeline.applied.prefixes[number].commit}"
        config = self.config.model_dump(mode="json", exclude={"results", "store", "store_limit_mib"})
        config |= {"kernel": {"source": source}, "bisect": {}}
        return {"config": config, "store": str(self.config.store), "rig": __version__}

    # -- tip and base -------------------------------------------------------------------------------------------------

    @cached_property
    def _ranked(self) -> tuple[Cell, ...]:
        """The cells, those first that concern what the series touches."""
        return tuple(hunt.attention(self.pipeline.cells, self.pipeline.relevances, 1, None))

    def _first_look(self) -> bool:
        """Try the tip, and the base where the tip showed something; with `every_prefix` all of them, everywhere.

        Returns whether there was time for all of that.
        """
        looked_at = range(self.tip + 1) if self.own.every_prefix else (self.tip,)
        for number in looked_at:  # in their order, which rebuilds least
            for flavour in self.pipeline.flavours:
                self.bench.kernel(number, flavour.name)
        for index in range(looks(self.config)):
            jobs = [
                (number, cell)
                for number in looked_at
                for cell in self._ranked
                if self._count(number, cell) <= index and (number, cell.flavour) not in self.bench.holes
            ]
            for batch in _batches(jobs, self.bench.slots):
                if self._out_of_time:
                    self._take_hunts()
                    return False
                if self._sightings() and not self._thorough:
                    break
                self.bench.run(batch)
            if self._sightings() and not self.own.every_prefix:
                break
        self._take_hunts()
        unseen = dict.fromkeys(one.cell for one in self.hunts if not self._count(0, one.cell))
        for batch in _batches([(0, cell) for cell in unseen], self.bench.slots):
            self.bench.run(batch)
        return True

    @property
    def _thorough(self) -> bool:
        """Whether each cell is looked at, and not only as many as it takes to find something."""
        return self.own.every_prefix or self.config.select != ("*",)

    def _count(self, number: int, cell: Cell) -> int:
        return sum(trial.prefix == number for trial in self.bench.tried(cell))

    def _sightings(self) -> dict[str, tuple[Finding, Cell]]:
        rank = {cell: number for number, cell in enumerate(self._ranked)}
        ordered = sorted(self.bench.trials, key=lambda one: (one.index, rank[one.cell], one.prefix))
        return quarry.sightings(ordered, lambda number: self.own.every_prefix or number == self.tip, self.own.signature)

    def _take_hunts(self) -> None:
        """Hunt what the tip shows; with `every_prefix` what any prefix shows."""
        known = {one.finding.signature for one in self.hunts}
        for signature, (finding, cell) in self._sightings().items():
            if signature not in known and len(self.hunts) < MOST_FINDINGS:
                self.ui.stage(FOLDER, f"hunting {finding.title} ({cell.id})")
                self.hunts.append(
                    Hunt(finding=finding, cell=cell, lineup=self._lineup(finding, cell), observe=shows(signature))
                )

    def _lineup(self, finding: Finding, cell: Cell) -> Lineup:
        weights = suspicion.weights(self._touches, finding, self.config.workloads[cell.workload].races)
        if isinstance(self.pipeline, HistoryPipeline):
            return posterior.history(self.pipeline.history.parents, weights)
        return posterior.series(weights, mends=self.own.every_prefix)

    @cached_property
    def _touches(self) -> tuple[Touches, ...]:
        """What each patch touches; of a history only the files, as reading thousands of texts would take for ever."""
        applied, store = self.pipeline.applied, self.pipeline.store
        if self.whole:
            return tuple(Touches(paths=patch.paths, functions=frozenset()) for patch in applied.series.patches)
        found = []
        for before, after, patch in zip(applied.prefixes, applied.prefixes[1:], applied.series.patches, strict=False):
            one = Applied(
                base=replace(applied.base, commit=before.commit, tree=before.tree),
                series=Series(name="", origin="", patches=(patch,)),
                prefixes=(before, after),
            )
            functions = frozenset(function.name for function in touched_by(one, store))
            found.append(Touches(paths=patch.paths, functions=functions))
        return tuple(found)

    # -- the search ---------------------------------------------------------------------------------------------------

    @property
    def _out_of_time(self) -> bool:
        return self.bench.seconds >= self.own.limit

    def _known(self, one: Hunt) -> Known:
        return quarry.known(one, self.bench.trials, self.bench.holes.values())

    def _search(self) -> None:
        """Try what tells most per second until every hunt is decided, nothing tells any more, or the time is up."""
        while not self._out_of_time:
            known = [self._known(one) for one in self.hunts]
            left = [one for one in known if not one.belief.settled(self.own.confidence)]
            found = any(one.belief.answer.suspects[0][0].introduced for one in known if one not in left)
            if found and not any(one.belief.measured for one in left):
                return  # what is so much rarer than a finding that is decided would take all the time that there is
            chosen = self._choose(left)
            if chosen is None:
                return
            cell, choice = chosen
            if isinstance(self.bench.kernel(choice.state, cell.flavour), Hole):
                continue
            here = [one for one in left if one.hunt.cell == cell]
            # With a single one there is nothing to wait for once it was seen.
            stop_at = here[0].hunt.finding.title if len(here) == 1 else ""
            count = min(choice.trials, self.bench.slots)
            self._say(here, choice)
            self.bench.run([(choice.state, cell)] * count, stop_at=stop_at)
            self._take_hunts()

    def _choose(self, left: Sequence[Known]) -> tuple[Cell, Choice] | None:
        """Return the cell and the prefix in which the next trial tells most, over all findings that show there."""
        cells = dict.fromkeys(one.hunt.cell for one in left)
        chosen: tuple[Cell, Choice] | None = None
        for cell in cells:
            here = [one for one in left if one.hunt.cell == cell]
            prepare = np.array(self.bench.effort(cell.flavour))
            seconds = np.full(len(prepare), self.bench.trial_seconds(cell))
            for one in here:  # where trials are wasted, one that tells something costs more than one
                for number, wasted in one.wasted.items():
                    told = int(one.belief.failures[number] + one.belief.passes[number])
                    seconds[number] *= 1 + wasted / (told + 1)
            choice = posterior.best([one.belief.doubted(self.own.confidence) for one in here], prepare, seconds)
            if choice is not None and (chosen is None or choice.gain > chosen[1].gain):
                chosen = cell, choice
        return chosen

    def _say(self, here: Sequence[Known], choice: Choice) -> None:
        """Show how the search stands."""
        answer = max((one.belief.answer for one in here), key=lambda one: one.probability)
        patches = " or ".join(str(suspect.introduced) for suspect, _ in answer.suspects[:4])
        self.ui.progress(
            f"patch {choice.state} next, {choice.trials} trials planned; so far patch {patches}: "
            f"{100 * answer.probability:.0f} %"
        )

    # -- what does not build ------------------------------------------------------------------------------------------

    def _breaks(self) -> tuple[Break, ...]:
        """Return who broke and who mended the build, for all prefixes that were seen not to build."""
        found: list[Break] = []
        for flavour in (one.name for one in self.pipeline.flavours):
            for number in range(1, self.tip + 1):
                hole = self.bench.holes.get((number, flavour))
                inside = any(
                    one.flavour == flavour and one.introduced <= number < (one.fixed or self.tip + 1) for one in found
                )
                if hole is None or hole.state != "broken" or inside:
                    continue
                self.bench.kernel(0, flavour)  # which builds, or it is the host's fault
                above = [n for n in range(number + 1, self.tip + 1) if self.bench.is_built(n, flavour)]
                below = [n for n in range(number) if self.bench.is_built(n, flavour)]
                first = self._edge(flavour, below[-1], number)
                fixed = self._edge(flavour, above[0], number) if above else None
                if fixed is None and not isinstance(self.bench.kernel(self.tip, flavour), Hole):
                    fixed = self._edge(flavour, self.tip, number)
                error = self.bench.holes[first, flavour].reason
                found.append(Break(flavour=flavour, introduced=first, fixed=fixed, error=error))
        return tuple(found)

    def _edge(self, flavour: str, good: int, bad: int) -> int:
        """Return the patch that breaks the build between a prefix that builds and a later one that does not.

        With the one that builds later: the patch that mends it.
        """
        step = 1 if good < bad else -1
        while abs(good - bad) > 1:
            middle = (good + bad) // 2
            if isinstance(self.bench.kernel(middle, flavour), Hole):
                bad = middle
            else:
                good = middle
        return bad if step > 0 else good


def _batches(jobs: Sequence[tuple[int, Cell]], size: int) -> Iterator[Sequence[tuple[int, Cell]]]:
    """Yield the jobs in pieces, after each of which one may look at what came out."""
    for at in range(0, len(jobs), size):
        yield jobs[at : at + size]
