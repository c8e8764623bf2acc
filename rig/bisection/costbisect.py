"""`rig bisect --counts`: which patch of a series made an exact count go up?

First the base and the tip are counted as `rig bench` counts, without times. What the tip is claimed to cost is hunted
over the prefixes between them, see costsearch.py; all that is hunted in a cell comes from the same trials. Kernels and
trials are kept by countbench.py, in the folder that bisect.py describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rig.bisection import bisect, costreport
from rig.bisection.bisect import Bisector
from rig.bisection.costreport import Search
from rig.bisection.costsearch import Look, Quest, look
from rig.bisection.countbench import CountBench, renamed
from rig.bisection.outcomes import Bisection
from rig.bisection.quarry import MUTE, hole_words
from rig.bisection.report import Facts
from rig.bisection.workbench import Hole
from rig.costs import bench
from rig.costs.differences import apart_by_luck, fewest_counted
from rig.costs.metrics import BASE, METRICS, Comparison, Kind, Where, compare
from rig.errors import ConfigError
from rig.front.ui import Ui
from rig.model import Cell, Status
from rig.pipeline import Options, Pipeline
from rig.settings.config import Config
from rig.trials.trial import Lab

#: Counts that are hunted at most; what more became worse is told on the side.
MOST = 8
TIP = "tip"
#: Trials at once of a prefix that is looked at, where there is room for so many machines.
AT_ONCE = 2
#: All that the words for people and the claims depend on, and no trial does.
_FREE = {"bench": ("counted", "pairs", "level", "threshold", "tests"), "bisect": ("count",)}


def run(config: Config, options: Options, ui: Ui, *, command: str, as_json: bool = False) -> int:
    """Bisect, print what came of it, and return the exit code; `command` is what makes it again.

    Raises ConfigError when no count is meant, or none could be claimed with so few trials.
    """
    chosen(config.bisect.count)
    own = config.bench
    if apart_by_luck(own.counted, own.counted) > 1 - own.level:
        need = fewest_counted(own.level)
        raise ConfigError(
            f"counted={own.counted} trials of base and tip can claim nothing at level={own.level:g}",
            hint=f"counted={need}, or a lower level",
        )
    # Tests of will-it-scale run for a time, and not for an amount: nothing is counted of them.
    config = bench.settle(config.model_copy(update={"bench": own.model_copy(update={"will_it_scale": None})}))
    return bisect.carry_out(CostBisector(Pipeline(config, options, ui), command), as_json=as_json)


def chosen(globs: Sequence[str]) -> frozenset[str]:
    """Return the names of the counts that globs over names and titles mean: of none, all. Raises ConfigError."""
    known = [metric for metric in METRICS if metric.kind is Kind.COUNTED]
    names: set[str] = set()
    for glob in globs:
        found = {one.name for one in known if fnmatchcase(one.name, glob) or fnmatchcase(one.title, glob)}
        if not found:
            times = [one.title for one in METRICS if one.kind is Kind.TIMED]
            why = " (times are no counts)" if any(glob in (one.name, one.title) for one in METRICS) else ""
            raise ConfigError(
                f"no count is called {glob!r}{why}",
                hint=f"one of {', '.join(f'{one.title!r}' for one in known)}; not {', '.join(times)}",
            )
        names |= found
    return frozenset(names or {one.name for one in known})


class CostBisector(Bisector):
    """One bisection by counts: what is known, and what to try next."""

    bench: CountBench

    def __init__(self, pipeline: Pipeline, command: str) -> None:
        super().__init__(pipeline, command)
        self.names = chosen(self.own.count)
        self.quests: list[Quest] = []
        self.compared = 0  # counts, on base and tip
        self.others: list[str] = []  # what else the tip costs

    @property
    def mode(self) -> str:
        """What is searched, and how."""
        return "counts"

    def plan_in_words(self) -> str:
        """Return what would be done."""
        cells = len(self.pipeline.cells)
        return (
            f"would count on the base and the tip in {cells} cell{'s' * (cells != 1)}, {self.config.bench.counted} "
            f"times each, then search {self.tip} patches for up to {self.own.limit:g} s "
            f"for what costs more than {100 * self.config.bench.threshold:g} %"
        )

    def _workbench(self, path: Path, lab: Lab) -> CountBench:
        made = CountBench(self.pipeline, path, lab, self._describe)
        if made.note:
            self.ui.stage(bisect.FOLDER, f"instructions and atomics are not counted: {made.note}")
        return made

    def _plan(self) -> dict[str, Any]:
        plan = super()._plan()
        for name, keys in _FREE.items():
            for key in keys:
                plan["config"][name].pop(key)
        return plan

    # -- tip and base -------------------------------------------------------------------------------------------------

    @cached_property
    def _ranked(self) -> tuple[Cell, ...]:
        return self.pipeline.cells

    def _first_look(self) -> bool:
        """Count on the base and on the tip, cell by cell, until the tip costs more in one of them.

        With `select` in all of them. Returns whether there was time for that.
        """
        ends = (0, self.tip)
        for cell in self._ranked:
            if any(isinstance(self.bench.kernel(number, cell.flavour), Hole) for number in ends):
                continue
            wanted = self.config.bench.counted
            turns = [(number, cell) for index in range(wanted) for number in ends if self._count(number, cell) <= index]
            for at in range(0, len(turns), self.bench.slots):
                if self._out_of_time:
                    return False
                self.bench.run(turns[at : at + self.bench.slots])
            self._take_quests(cell)
            if self.quests and not self._thorough:
                break
        return True

    def _count(self, number: int, cell: Cell) -> int:
        return sum(one.prefix == number and one.status is not Status.LOST for one in self.bench.tried(cell))

    def _take_quests(self, cell: Cell) -> None:
        """Hunt what the tip costs in a cell: the largest change of each count, then the next of each, MOST in all."""
        here = tuple(one for one in self.bench.samples if of_cell(one.where, cell))
        pairs = (*renamed(here, 0, BASE), *renamed(here, self.tip, TIP))
        own = self.config.bench
        meant = [one for one in compare(pairs, TIP, own.level) if one.metric in self.names]
        self.compared += len(meant)
        worse = [one for one in meant if one.better is False and one.difference.change > own.threshold]
        worse.sort(key=lambda one: -one.difference.change)
        ranks = zip_longest(*([one for one in worse if one.metric == metric.name] for metric in METRICS))
        for found in (one for rank in ranks for one in rank if one is not None):
            quest = self._quest(found)
            if len(self.quests) < MOST:
                self.ui.stage(
                    bisect.FOLDER, f"hunting {quest.title} ({cell.id}): {costreport.gain(quest, quest.base, quest.tip)}"
                )
                self.quests.append(quest)
            else:
                self.others.append(f"{quest.title} ({cell.id}): {costreport.gain(quest, quest.base, quest.tip)}")

    def _quest(self, found: Comparison) -> Quest:
        return Quest(
            metric=found.metric,
            where=found.where,
            base=found.difference.first.median,
            tip=found.difference.second.median,
            level=self.config.bench.level,
            threshold=self.config.bench.threshold,
        )

    # -- the search ---------------------------------------------------------------------------------------------------

    def _look(self, quest: Quest) -> Look:
        return look(quest, self.bench.values(quest.metric, quest.where), self._holes(quest))

    def _cell(self, quest: Quest) -> Cell:
        return next(cell for cell in self._ranked if of_cell(quest.where, cell))

    def _holes(self, quest: Quest) -> dict[int, str]:
        """Return why prefixes cannot be tried for a count."""
        known = self.bench.values(quest.metric, quest.where)
        cell = self._cell(quest)
        words = {hole.number: hole_words(hole) for hole in self.bench.holes.values() if hole.flavour == cell.flavour}
        mute: dict[int, list[str]] = {}
        for trial in self.bench.tried(cell):
            mute.setdefault(trial.prefix, []).append(trial.reason)
        for number, reasons in mute.items():
            if len(reasons) >= MUTE:
                words.setdefault(number, f"its trials say nothing of it: {reasons[0]}")
        return {number: text for number, text in words.items() if number not in known}

    def _search(self) -> None:
        """Measure prefixes until each count is laid on its patches, or the time is up."""
        while not self._out_of_time:
            jobs = [(found.wanted[0], quest) for quest in self.quests if (found := self._look(quest)).wanted]
            if not jobs:
                return
            number, quest = jobs[0]
            cell = self._cell(quest)
            if isinstance(self.bench.kernel(number, cell.flavour), Hole):
                continue
            self.ui.progress(f"patch {number} next, for {quest.title}")
            self.bench.run([(number, cell)] * min(AT_ONCE, self.bench.slots))

    def _collect(self, facts: Facts) -> Bisection:
        breaks = self._breaks()  # which may try more prefixes
        searches = [
            Search(quest=one, cell=self._cell(one), look=self._look(one), holes=self._holes(one)) for one in self.quests
        ]
        report = costreport.Report(pipeline=self.pipeline, bench=self.bench, facts=facts)
        return report.collect(searches, breaks, self.others, self.compared)


def of_cell(where: Where, cell: Cell) -> bool:
    """Whether a place is one of a cell."""
    return (where.flavour, f"cpus{where.cpus}", where.filesystem) == (cell.flavour, cell.machine, cell.filesystem)
