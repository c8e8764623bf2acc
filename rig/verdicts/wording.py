"""A verdict in sentences that explain themselves: the numbers first, then what they mean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rig.model import Expected, FindingVerdict, Judgement, Side, Status, Stopped, Tally, TrialResult
from rig.verdicts.questions import CERTAIN, Question, Rules
from rig.verdicts.sightings import Evidence
from rig.verdicts.statistics import excluded_rate

#: What to say of an answer that stayed in doubt, by why no more trials were run.
IN_DOUBT = {
    Stopped.FIXED: "more trials would tell",
    Stopped.BUDGET: "and no more trials were allowed",
    Stopped.FUTILE: "and those left could not have told",
    Stopped.DECIDED: "and another finding had decided the run",
}


def explain(question: Question, judgement: Judgement, rules: Rules, stopped: Stopped, *, worse: bool) -> str:
    """Return the numbers of one finding and what they mean; `worse`: the p-value is that the patched kernel is."""
    base, patched, sighting = question.base, question.patched, question.sighting
    if not base.trials or not patched.trials:
        text = _one_sided(base, patched)
    elif sighting.first.kind in CERTAIN:
        text = f"patched {patched}, base {base}: no matter of luck"
    else:
        text = f"{_numbers(question, worse=worse)}: {_meaning(question, judgement, rules, stopped)}"
    expected = rules.known.entry(sighting.entry) if sighting.entry is not None else None
    return text if expected is None else f"{text}; {_reason(expected, question)}"


def _one_sided(base: Tally, patched: Tally) -> str:
    if base.trials:
        return f"base {base}, no patched trial to compare with"
    return f"patched {patched}, no base trial to compare with: it may be older than the series"


def _numbers(question: Question, *, worse: bool = True) -> str:
    p_value = question.worse if worse else question.better
    adjusted = question.worse_adjusted if worse else question.better_adjusted
    several = f" ({_p(adjusted)} for {question.asked} questions at once)" if question.asked > 1 else ""
    return f"patched {question.patched}, base {question.base}, {_p(p_value)}{several}"


def _meaning(question: Question, judgement: Judgement, rules: Rules, stopped: Stopped) -> str:
    sighting = question.sighting
    less = rules.sure(question.better_adjusted)
    if judgement is Judgement.FIXED:
        return "seen on the base only, not by chance"
    if judgement is Judgement.REGRESSION and sighting.base:
        return "the base has it too, but less often, not by chance"
    if judgement is Judgement.REGRESSION:
        return "seen on the patched kernel only, not by chance"
    if judgement is Judgement.INCONCLUSIVE:
        doubt = IN_DOUBT.get(stopped, "more trials would tell")
        return f"seen on the patched kernel only; so few sightings can be luck, {doubt}"
    if not sighting.patched and not sighting.known:
        return "seen on the base only, which may be chance"
    return (
        "the base has it too, and more often, not by chance"
        if less
        else "the base has it too, and not clearly less often"
    )


def _reason(expected: Expected, question: Question) -> str:
    number = question.sighting.known.total()
    what = "known" if question.known else f"known in {number} more patched trial{'s' * (number != 1)}"
    link = f" ({expected.link})" if expected.link else ""
    until = f", until {expected.expires}" if expected.expires else ""
    return f"{what} by {expected.entry}{until}: {expected.reason}{link}"


def _p(value: float) -> str:
    if value < 0.0001:
        return "p < 0.0001"
    return f"p = {value:.2f}" if value >= 0.01 else f"p = {value:.1g}"


def percent(share: float) -> str:
    """Return a share as people write it: 95 %, 2.3 %, 0.04 %."""
    number = 100 * share
    return f"{number:.1f}".removesuffix(".0") + " %" if number >= 1 else f"{number:.1g} %"


def sentence(
    judgement: Judgement,
    findings: Sequence[FindingVerdict],
    together: Question,
    evidence: Evidence,
    holes: Sequence[str],
    rules: Rules,
) -> str:
    """Return what a run comes to."""
    chosen = [found for found in findings if found.judgement is judgement]
    more = f", and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    patched, base = (_trials(evidence.total(side)) for side in (Side.PATCHED, Side.BASE))
    if judgement is Judgement.REGRESSION and not chosen:  # no finding by itself is certain, their sum is
        doubtful = [found for found in findings if found.judgement is Judgement.INCONCLUSIVE]
        more = f", and {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
        numbers = _numbers(together)
        named = f": {doubtful[0].title}{more}" if doubtful else ""
        return f"The patched kernel fails{named}. All in all: {numbers}: not by chance."
    if judgement is Judgement.REGRESSION and len(chosen) > 1:
        return f"The patched kernel fails: {chosen[0].title}{more}. All in all: {_numbers(together)}."
    if chosen:
        start = {
            Judgement.REGRESSION: "The patched kernel fails",
            Judgement.INCONCLUSIVE: "The patched kernel failed, and it may be luck",
            Judgement.KNOWN: "The base is broken already",
            Judgement.FIXED: "The series seems to fix something",
        }[judgement]
        if judgement is Judgement.KNOWN and all(found.expected for found in chosen):
            start = "Only what is known"
        return f"{start}: {chosen[0].title}{more} ({chosen[0].sentence})."
    if judgement is Judgement.INCONCLUSIVE and holes:
        return f"Nothing found in {patched} of the patched kernel, but all trials of {holes[0]} were lost."
    if judgement is Judgement.INCONCLUSIVE:
        return f"Nothing can be said: no patched trial came to a result ({base} of the base did)."
    ran = evidence.trials[Side.PATCHED]
    cells = f"{len(ran)} cell" + "s" * (len(ran) != 1)
    rate = percent(excluded_rate(ran.total(), rules.confidence))
    return (
        f"Nothing found in {patched} of the patched kernel over {cells}: "
        f"failure rate below {rate} at {percent(rules.confidence)}."
    )


def _trials(number: int) -> str:
    return f"{number} trial" + "s" * (number != 1)


def notes(trials: Sequence[TrialResult], evidence: Evidence, rules: Rules) -> tuple[str, ...]:
    """Return what weakens a verdict: trials that say nothing, cells without a twin, known issues that are none."""
    lines: list[str] = []
    ran = {side: evidence.trials[side].keys() for side in Side}
    by_status: dict[Status, list[TrialResult]] = defaultdict(list)
    for trial in trials:
        by_status[trial.status].append(trial)
    for status, what in (
        (Status.LOST, "lost: the machine, not the kernel, failed"),
        (Status.INCONCLUSIVE, "inconclusive: the race never came near happening"),
        (Status.SKIP, "skipped"),
    ):
        if some := by_status[status]:
            lines.append(f"{_trials(len(some))} {what}; the first: {some[0].cell.id} ({some[0].reason})")
    silent = sorted({t.cell.id for t in trials if t.side is Side.PATCHED} - ran[Side.PATCHED])
    if silent:
        lines.append(f"no patched trial counts in: {', '.join(silent)}")
    lonely = sorted(ran[Side.PATCHED] - ran[Side.BASE])
    if ran[Side.BASE] and lonely:
        lines.append(f"no base trial counts in: {', '.join(lonely)}")
    if ran[Side.PATCHED] and not ran[Side.BASE]:
        lines.append("no base trial counts: what was found cannot be laid on the series")
    if any(trial.accelerator == "tcg" for trial in trials):
        lines.append("ran under TCG: timing differs from hardware, and weak memory ordering cannot show")
    return (*lines, *rules.known.notes(evidence.matched, {trial.cell.id for trial in trials}))
