"""From what was counted of each prefix to the files of a bisection: which patches cost what."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rig.bisection import outcomes, quarry, report
from rig.bisection.costsearch import Look, Quest, Step
from rig.bisection.countbench import CountBench, renamed
from rig.bisection.outcomes import Bisection, Count, Culprit, Hunted, Outcome, names
from rig.bisection.posterior import Suspect
from rig.bisection.quarry import Break
from rig.bisection.report import MORE, Facts, culprit_of
from rig.costs.metrics import BASE, WHOLE, Sample, function_changes
from rig.costs.words import growth, level
from rig.model import Cell, TrialResult
from rig.pipeline import Pipeline
from rig.settings.config import Bench as BenchKeys
from rig.settings.config import Bisect as BisectKeys

#: Functions that are named of a step, the most changed first.
FUNCTIONS = 3
#: Of a series with more patches only those prefixes are listed that were tried.
MOST_LISTED = 65
#: What a count says of the work of functions.
_WORK = {"atomics": "atomics", "instructions": "instructions", "per_fault": "instructions"}
#: Words of the command line that are the bisection's own.
_OWN = {*BenchKeys.model_fields, *BisectKeys.model_fields, "case", "select", "out", "results", "bench", "bisect"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """A count that was hunted, and how that stands in the end."""

    quest: Quest
    cell: Cell
    look: Look
    holes: Mapping[int, str]  # why prefixes cannot be tried


def gain(quest: Quest, before: float, after: float) -> str:
    """Return what a count gained: `6.43 -> 8.43 (+31 %)`."""
    metric = quest.metric
    return f"{level(metric, before)} -> {level(metric, after)} ({growth(metric, before, after)})"


def shows(bench: CountBench, search: Search) -> quarry.Observe:
    """Return what says of a trial whether a count is higher than on the base, by more than what makes a step."""

    def observe(trial: TrialResult) -> bool | None:
        quest = search.quest
        value = bench.value(trial, quest.metric, quest.where)
        return None if value is None else quest.change(quest.base, value) > search.look.limit

    return observe


def functions(samples: Iterable[Sample], quest: Quest, step: Step) -> str:
    """Return in which functions the kernel does more behind a step, if counted: `, f +2.00 atomics per page`."""
    if quest.metric not in _WORK:
        return ""
    here = tuple(one for one in samples if one.where == quest.where)
    pair = (*renamed(here, step.before, BASE), *renamed(here, step.after, "after"))
    moved: list[tuple[str, float]] = []
    for one in function_changes(pair, "after"):
        for change in one.changes:
            before, after = getattr(change, _WORK[quest.metric])
            moved.append((change.function, after - before))
    moved.sort(key=lambda one: -one[1])
    shown = [f"{name} {more:+.2f}" for name, more in moved[:FUNCTIONS] if more > 0]
    return f", {', '.join(shown)} {_WORK[quest.metric]} per page" if shown else ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What the words and numbers of a bisection are made from."""

    pipeline: Pipeline
    bench: CountBench
    facts: Facts

    def collect(
        self, searches: Sequence[Search], breaks: Sequence[Break], others: Sequence[str], compared: int
    ) -> Bisection:
        """Fold all that is known into one Bisection.

        `others` is what else the tip costs; `compared` counts were known of both base and tip.
        """
        found = [one for search in searches for one in self._hunted(search)]
        findings = (*(report.broken(self.pipeline, one) for one in breaks), *found)
        status = outcomes.overall(findings)
        if status is Outcome.CLEAN and not (self.facts.looked and compared):
            status = Outcome.UNDECIDED
        aside = quarry.on_the_side(self.bench.trials, ())
        observers = [shows(self.bench, search) for search in searches]
        prefixes = report.states(
            self.pipeline,
            self.bench,
            shown=lambda trial: any(observe(trial) for observe in observers),
            others={**aside, self.bench.tip: (*aside.get(self.bench.tip, ()), *others)},
            numbers=(count.number for one in found for count in one.counts),
        )
        sentence = self._sentence(status, findings, compared)
        confidence = self.pipeline.config.bench.level
        return report.whole(self.pipeline, self.bench, self.facts, findings, prefixes, status, sentence, confidence)

    # -- one count ----------------------------------------------------------------------------------------------------

    def _hunted(self, search: Search) -> Iterator[Hunted]:
        """Yield a finding for each patch that is named; one that is undecided when none is, or some may be left."""
        for step in search.look.steps:
            yield self._found(search, step)
        if search.look.wanted or not search.look.steps:
            yield self._left(search)

    def _found(self, search: Search, step: Step) -> Hunted:
        quest, sure = search.quest, 1 - step.luck
        culprits = self._culprits(step.before, step.after, sure)
        cost = gain(quest, step.first.median, step.second.median)
        words = f"{names(culprits).capitalize()} brought {cost}{functions(self.bench.samples, quest, step)}"
        words += f" ({outcomes.percent(sure)} sure)"
        if len(search.look.steps) > 1 or abs(step.change - quest.total) > quest.threshold:
            words += f", of {gain(quest, quest.base, quest.tip)} over the whole series"
        if len(culprits) == 1:
            words += f": {culprits[0].subject!r}."
        else:
            gaps = "; ".join(f"{number} {search.holes[number]}" for number in step.patches if number in search.holes)
            words += f", and nothing tells them apart: {gaps}."
        return self._one(search, Outcome.FOUND, words, culprits, (step.before, step.after), sure)

    def _left(self, search: Search) -> Hunted:
        quest, (low, high) = search.quest, search.look.between
        culprits = self._culprits(low, high, 1.0)
        late = self.facts.out_of_time and search.look.wanted
        why = f"the time is up; {MORE}" if late else "what single patches cost cannot be told from noise"
        words = (
            f"Not decided ({why}): {gain(quest, quest.base, quest.tip)} over the whole series, "
            f"the largest part of what is left by {names(culprits)}."
        )
        return self._one(search, Outcome.UNDECIDED, words, culprits, (low, high), 1.0)

    def _culprits(self, low: int, high: int, sure: float) -> tuple[Culprit, ...]:
        suspects = range(low + 1, high + 1)
        share = sure / len(suspects)
        return tuple(culprit_of(self.pipeline, Suspect(introduced=number), share) for number in suspects)

    def _one(
        self,
        search: Search,
        outcome: Outcome,
        sentence: str,
        culprits: tuple[Culprit, ...],
        gap: tuple[int, int],
        sure: float,
    ) -> Hunted:
        observe, quest = shows(self.bench, search), search.quest
        seen = [trial for trial in self.bench.tried(search.cell) if observe(trial)]
        example = min(seen, key=lambda trial: (trial.prefix != gap[1], trial.prefix, trial.index), default=None)
        return Hunted(
            signature=quest.signature,
            title=quest.title,
            kind="cost",
            cell=search.cell.id,
            outcome=outcome,
            sentence=sentence,
            probability=round(sure, 6),
            culprits=culprits[: report.MOST_NAMED],
            rate=None,
            rate_sd=None,
            counts=tuple(self._counts(search, gap, sure)),
            example=str(self.bench.place(example)) if example else "",
            reproduce=self._again(quest),
            metric=quest.metric,
        )

    def _counts(self, search: Search, gap: tuple[int, int], sure: float) -> Iterator[Count]:
        """Yield what was counted of each prefix, and whether it has what the gap between two prefixes is."""
        quest, (low, high) = search.quest, gap
        values = self.bench.values(quest.metric, quest.where)
        told: Sequence[int] = range(self.bench.tip + 1)
        if len(told) > MOST_LISTED:
            told = sorted({0, *values, *search.holes, *range(low + 1, high + 1)})
        for number in told:
            mine = values.get(number, [])
            yield Count(
                number=number,
                trials=len(mine),
                failures=sum(quest.change(quest.base, value) > search.look.limit for value in mine),
                probability=round(min(sure, max(1 - sure, (number - low) / (high - low))), 6),
                hole=search.holes.get(number, ""),
                value=median(mine) if mine else None,
            )

    def _again(self, quest: Quest) -> str:
        """Return the command that counts on base and tip again."""
        words = self.pipeline.options.overrides
        kept = [word for word in words if not {word.partition("=")[0], word.partition(".")[0]} & _OWN]
        where, own = quest.where, self.pipeline.config.bench
        size = [f"bench.flavours={where.flavour}", f"cpus={where.cpus}", f"filesystems={where.filesystem}"]
        cases = "*" if where.case == WHOLE else where.case
        work = [f"cases={cases}", f"faults={own.faults}", f"counted={own.counted}", "pairs=0"]
        return f"{self.pipeline.options.rig} {shlex.join(['bench', *kept, *size, *work])}"

    # -- all of them --------------------------------------------------------------------------------------------------

    def _sentence(self, status: Outcome, findings: Sequence[Hunted], compared: int) -> str:
        count = len(self.bench.trials)
        if findings:
            first = next(one for one in findings if one.outcome is status)
            more = f" {len(findings) - 1} more below." if len(findings) > 1 else ""
            return f"{first.title}: {first.sentence}{more}"
        if status is Outcome.CLEAN:
            return (
                f"The tip costs nothing: of {compared} counts none is claimed to be more than "
                f"{100 * self.pipeline.config.bench.threshold:g} % higher than on the base after {count} trials; "
                f"there is nothing to bisect."
            )
        if self.facts.out_of_time:
            return f"Nothing was found in {count} trials, and the time is up: {MORE}."
        silent = (one.reason for one in self.bench.trials if one.reason and not self.bench.samples_of(one))
        why = next(silent, self.bench.note)
        said = f" ({why})" if why else ""
        return f"Base and tip cannot be compared: nothing that is meant was counted on both{said}."
