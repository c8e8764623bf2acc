"""What is asked of a run: of each finding, and of all failures together, whether the patched kernel has it more often.

Many signatures are tested at once, and one of twenty good patches would be accused if each had its own 5 %. So the
p-values are adjusted for as many questions as were asked (Holm), which are those about findings that were seen at all,
on whichever side: which side it was is what is asked. Known issues are no question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rig.model import Kernel, Side, Tally, TrialResult
from rig.settings.config import Trials
from rig.verdicts import statistics
from rig.verdicts.expectations import NOTHING, Known
from rig.verdicts.sightings import Evidence, Sighting, gather

#: Findings that are the same whenever one looks: one sighting is enough.
CERTAIN = ("build",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what a run is judged."""

    least: int = 1  # trials of a cell on each side
    most: int = 1  # the same, where a finding is in doubt
    confidence: float = statistics.CONFIDENCE
    known: Known = NOTHING

    @property
    def adaptive(self) -> bool:
        """Whether the run looks at its numbers and goes on: then only a test that may look often is honest."""
        return self.most > self.least

    @property
    def test(self) -> str:
        """The name of the test."""
        return "pairs" if self.adaptive else "boschloo"

    def sure(self, p_value: float) -> bool:
        """Whether luck is excluded."""
        return statistics.sure(p_value, self.confidence)


def rules_of(trials: Trials, known: Known = NOTHING, kernels: Iterable[Kernel] = ()) -> Rules:
    """Return the rules of a run with such trials on such kernels."""
    releases = {kernel.tree: kernel.release for kernel in kernels}
    return Rules(
        least=trials.min, most=trials.max, confidence=trials.confidence, known=replace(known, releases=releases)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One of them, with its numbers and the probabilities that luck alone does as much."""

    sighting: Sighting
    base: Tally  # in the cells that both sides ran, or where it was seen if it was seen in none of these
    patched: Tally
    worse: float  # the patched kernel has it more often
    better: float  # the base has
    worse_adjusted: float = 1.0  # for all questions at once
    better_adjusted: float = 1.0
    asked: int = 0  # so many at once; 0: it is not asked, as it is a known issue or the same as another

    share: float = 1.0  # of the confidence

    @property
    def known(self) -> bool:
        """Whether it is a known issue wherever the patched kernel shows it."""
        return self.sighting.entry is not None and not self.sighting.patched


def ask(trials: Sequence[TrialResult], rules: Rules) -> tuple[Evidence, tuple[Question, ...], Question]:
    """Return what was seen, the question of each finding, and that of all failures together."""
    evidence = gather(trials, rules.known)
    found = [_question(sighting, evidence, rules) for sighting in evidence.sightings.values()]
    together = _question(evidence.failures, evidence, rules)
    surprises = [question for question in found if not question.known]
    # A single finding and all failures are one question. Else the latter has as great a share as all findings together:
    # a bug with many faces must not be harder to prove than one with a single face.
    asked = [*surprises, together] if len(surprises) > 1 else surprises
    weights = [1.0] * len(surprises) + [float(len(surprises))] * (len(asked) - len(surprises))
    worse = statistics.holm([question.worse for question in asked], weights)
    better = statistics.holm([question.better for question in asked], weights)
    answers = {
        id(question.sighting): replace(
            question,
            worse_adjusted=worse[n],
            better_adjusted=better[n],
            asked=len(asked),
            share=weights[n] / sum(weights),
        )
        for n, question in enumerate(asked)
    }
    return (
        evidence,
        tuple(answers.get(id(question.sighting), question) for question in found),
        answers.get(id(together.sighting), together),
    )


def _question(sighting: Sighting, evidence: Evidence, rules: Rules) -> Question:
    shared = evidence.shared
    # Seen only where one side has nothing to compare with? Then the numbers are of those cells; the sentence says so.
    cells = shared if shared & sighting.cells or not sighting.cells else sighting.cells
    known = not sighting.patched
    base = evidence.tally(sighting, Side.BASE, cells)
    patched = evidence.tally(sighting, Side.PATCHED, cells, known=known)
    if sighting.first.kind in CERTAIN:
        worse, better = float(not patched.failures), float(not base.failures)
    elif rules.adaptive:
        alone, other = sighting.alone[Side.PATCHED], sighting.alone[Side.BASE]
        worse, better = statistics.by_pairs(alone, other), statistics.by_pairs(other, alone)
    else:
        worse = statistics.exact(patched.failures, patched.trials, base.failures, base.trials)
        better = statistics.exact(base.failures, base.trials, patched.failures, patched.trials)
    return Question(sighting=sighting, base=base, patched=patched, worse=worse, better=better)
