"""How often a cell is run: on where the answer is in doubt, and no longer than it can change.

Every cell runs `least` times on both sides. As long as no regression is certain, a finding in doubt then gets one more
pair of trials at a time, with the same seed on both sides, in the cell that showed it most often, up to `most`: there a
pair is most likely to tell the two kernels apart. What comes next is worked out from the trials that were asked for so
far and nothing else, so a run that is resumed goes the same way. That one looks after each pair is accounted for in the
test (statistics.by_pairs), and so is the choice of the cell, as each pair is a fair coin there, whichever was chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rig.model import Sampling, Side, Stopped, TrialResult
from rig.verdicts import statistics
from rig.verdicts.questions import Question, Rules, ask


def more(trials: Sequence[TrialResult], cells: Sequence[str], rules: Rules) -> tuple[str, ...]:
    """Return the ids of the `cells` that are to run once more on both sides; () when the run is done."""
    rules = applicable(rules, trials)
    ran = asked(trials)
    _, findings, together = ask(sorted(trials, key=lambda one: (one.cell.id, one.index, one.side)), rules)
    questions = (*findings, together)
    doubtful = [one for one in questions if why_no_more(one, questions, ran, rules) is None]

    def promise(question: Question, cell: str) -> float:
        seen = sum(where[cell] for where in (question.sighting.base, question.sighting.patched))
        return seen / ran[cell]

    chosen = {max(_left(one, cells, ran, rules), key=lambda cell: promise(one, cell)) for one in doubtful}
    return tuple(cell for cell in cells if cell in chosen)


def applicable(rules: Rules, trials: Iterable[TrialResult]) -> Rules:
    """Return the rules as they are for a run of these trials: with one side alone no pair can tell anything."""
    sides = {trial.side for trial in trials}
    return rules if len(sides) == len(Side) else replace(rules, most=rules.least)


def asked(trials: Iterable[TrialResult]) -> Counter[str]:
    """Return how often each cell was asked for on each side, lost trials included."""
    ran = Counter[str]()
    for trial in trials:
        ran[trial.cell.id] = max(ran[trial.cell.id], trial.index + 1)
    return ran


def why_no_more(
    question: Question, questions: Sequence[Question], ran: Mapping[str, int], rules: Rules
) -> Stopped | None:
    """Return why the cells of a finding are not run again, given all the questions of the run; None if they are."""
    if not rules.adaptive:
        return Stopped.FIXED
    sighting = question.sighting
    certain = rules.sure(question.worse_adjusted) or rules.sure(question.better_adjusted)
    ahead, behind = sorted((sighting.alone[side] for side in Side), reverse=True)
    even = ahead == behind and bool(sighting.base) == bool(sighting.patched)
    if certain or even or not question.asked:
        return Stopped.CLEAR
    if any(rules.sure(one.worse_adjusted) for one in questions):
        return Stopped.DECIDED
    left = sum(rules.most - ran[cell] for cell in _left(question, sighting.cells, ran, rules))
    if not left:
        return Stopped.BUDGET
    at_best = statistics.by_pairs(ahead + left, behind) / question.share
    return None if rules.sure(at_best) else Stopped.FUTILE


def _left(question: Question, cells: Iterable[str], ran: Mapping[str, int], rules: Rules) -> list[str]:
    """Return those of the `cells` that showed it and may run again, in their order."""
    return [cell for cell in cells if cell in question.sighting.cells and ran[cell] < rules.most]


def summarise(questions: Sequence[Question], ran: Mapping[str, int], rules: Rules) -> Sampling:
    """Return how often the cells of a run that is done were run, and why no more."""
    reasons = {why_no_more(question, questions, ran, rules) or Stopped.BUDGET for question in questions}
    certain = any(rules.sure(question.worse_adjusted) for question in questions)
    stopped = Stopped.CLEAR if rules.adaptive else Stopped.FIXED
    if not certain:
        stopped = next((one for one in (Stopped.BUDGET, Stopped.FUTILE) if one in reasons), stopped)
    # What is folded without a plan of its own was asked for as it is.
    least = rules.least if rules.adaptive else max(ran.values(), default=rules.least)
    extended = tuple(sorted((cell, number) for cell, number in ran.items() if number > least))
    return Sampling(
        least=least,
        most=max(least, rules.most),
        extended=extended,
        stopped=stopped,
        sentence=_sentence(stopped, extended, rules),
    )


def _sentence(stopped: Stopped, extended: Sequence[tuple[str, int]], rules: Rules) -> str:
    if stopped is Stopped.FIXED:
        return "as many trials as were asked for"
    more = f"{len(extended)} cell{'s' * (len(extended) != 1)} went on" if extended else "no cell went on"
    if extended:
        most_often = max(extended, key=lambda one: one[1])
        more += f", {most_often[0]} to {most_often[1]}"
    why = {
        Stopped.CLEAR: "it ended as soon as the answer was clear",
        Stopped.BUDGET: "it ended with the answer in doubt, as no more trials are allowed",
        Stopped.FUTILE: "it ended with the answer in doubt, as the trials that were left could not have changed it",
    }[stopped]
    return f"{rules.least} to {rules.most} trials of a cell on each side: {more}; {why}"
