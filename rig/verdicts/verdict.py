"""Folds all trials of a run into one verdict: base against patched, signature by signature.

Base and patched are compared over the cells in which both have trials that count, so that a cell that only one side ran
does not tip the scales. The series is accused when luck is excluded, and not before: what was seen on the patched
kernel only and may be luck is INCONCLUSIVE, which is neither a pass nor an accusation. How sure it is stands in the
sentence, as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from rig.model import Excluded, FindingVerdict, Judgement, Side, Status, Stopped, TrialResult, Verdict
from rig.verdicts import sampling, statistics, wording
from rig.verdicts.questions import Question, Rules, ask
from rig.verdicts.sightings import Evidence, causes, counts
from rig.verdicts.statistics import excluded_rate

__all__ = ["Rules", "causes", "counts", "excluded_rate", "fold"]

#: The gravest first: what a run with several findings is called.
GRAVITY = (Judgement.REGRESSION, Judgement.INCONCLUSIVE, Judgement.KNOWN, Judgement.FIXED)


def fold(trials: Sequence[TrialResult], rules: Rules | None = None) -> Verdict:
    """Return the verdict over `trials` of both sides; no base, or nothing at all, is allowed."""
    rules = sampling.applicable(rules or Rules(), trials)
    evidence, questions, together = ask(trials, rules)
    everything, ran = (*questions, together), sampling.asked(trials)
    findings = tuple(
        sorted(
            (_judge(one, evidence, rules, sampling.why_no_more(one, everything, ran, rules)) for one in questions),
            key=lambda found: (GRAVITY.index(found.judgement), found.p_value, found.title),
        )
    )
    holes = _holes(trials, evidence)
    judgement = _overall(findings, together, evidence, holes, rules)
    done = sampling.summarise(everything, ran, rules)
    notes = wording.notes(trials, evidence, rules)
    excludes = _excludes(evidence, rules)
    patched = evidence.trials[Side.PATCHED]
    return Verdict(
        judgement=judgement,
        sentence=wording.sentence(judgement, findings, together, evidence, holes, rules),
        findings=findings,
        notes=(done.sentence, *notes) if rules.adaptive else notes,
        confidence=rules.confidence,
        excluded_rate=excluded_rate(patched.total(), rules.confidence) if 0 < len(patched) == len(excludes) else None,
        excludes=excludes,
        sampling=done,
    )


def _excludes(evidence: Evidence, rules: Rules) -> tuple[Excluded, ...]:
    """Return what it means that nothing was found, for each cell of the patched kernel of which that is true."""
    found = {cell for one in evidence.sightings.values() for cell in (*one.patched, *one.known)}
    return tuple(
        Excluded(cell=cell, trials=number, rate=excluded_rate(number, rules.confidence))
        for cell, number in sorted(evidence.trials[Side.PATCHED].items())
        if cell not in found
    )


# -- judging ----------------------------------------------------------------------------------------------------------


def _judge(question: Question, evidence: Evidence, rules: Rules, stopped: Stopped | None) -> FindingVerdict:
    sighting, base, patched = question.sighting, question.base, question.patched
    judgement = _judgement(question, rules)
    # Of two p-values the one that the judgement is about.
    worse = judgement in (Judgement.REGRESSION, Judgement.INCONCLUSIVE) or (
        bool(sighting.patched) and not rules.sure(question.better_adjusted)
    )
    p_value = question.worse if worse else question.better
    return FindingVerdict(
        signature=sighting.first.signature,
        title=sighting.first.title,
        judgement=judgement,
        base=base,
        patched=patched,
        p_value=p_value,
        cells=tuple(sorted(sighting.cells)),
        example=sighting.example,
        sentence=wording.explain(question, judgement, rules, stopped or Stopped.BUDGET, worse=worse),
        kind=sighting.first.kind,
        base_there=evidence.tally(sighting, Side.BASE, sighting.cells),
        patched_there=evidence.tally(sighting, Side.PATCHED, sighting.cells, known=not sighting.patched),
        p_adjusted=(question.worse_adjusted if worse else question.better_adjusted) if question.asked else None,
        test=rules.test,
        base_interval=statistics.interval(base.failures, base.trials, rules.confidence),
        patched_interval=statistics.interval(patched.failures, patched.trials, rules.confidence),
        expected=rules.known.entry(sighting.entry) if sighting.entry is not None else None,
        stopped=stopped,
    )


def _judgement(question: Question, rules: Rules) -> Judgement:
    sighting = question.sighting
    if question.known:
        return Judgement.KNOWN
    if not sighting.patched:
        return Judgement.FIXED if rules.sure(question.better_adjusted) else Judgement.KNOWN
    if rules.sure(question.worse_adjusted):
        return Judgement.REGRESSION
    return Judgement.KNOWN if sighting.base else Judgement.INCONCLUSIVE


def _holes(trials: Sequence[TrialResult], evidence: Evidence) -> tuple[str, ...]:
    """Return the cells of the patched kernel about which nothing is known because the host failed."""
    lost = {t.cell.id for t in trials if t.side is Side.PATCHED and t.status is Status.LOST}
    return tuple(sorted(lost - evidence.trials[Side.PATCHED].keys()))


def _overall(
    findings: Sequence[FindingVerdict], together: Question, evidence: Evidence, holes: Sequence[str], rules: Rules
) -> Judgement:
    judgements = {found.judgement for found in findings}
    if Judgement.REGRESSION in judgements or (together.asked and rules.sure(together.worse_adjusted)):
        return Judgement.REGRESSION
    if not evidence.trials[Side.PATCHED]:
        return Judgement.KNOWN if judgements else Judgement.INCONCLUSIVE
    nothing = Judgement.INCONCLUSIVE if holes else Judgement.CLEAN
    return next((judgement for judgement in GRAVITY if judgement in judgements), nothing)
