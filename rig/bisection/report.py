"""From what is known of each hunt to the files of a bisection: who did it, in words, numbers and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import __version__
from rig.bisection import outcomes, plot, quarry
from rig.bisection.outcomes import Bisection, Count, Culprit, Hunted, Outcome, PrefixState, names, percent
from rig.bisection.posterior import Suspect
from rig.bisection.quarry import Break, Known
from rig.bisection.workbench import Bench
from rig.clock import now
from rig.machines.accel import Accelerator
from rig.model import TrialResult
from rig.pipeline import Pipeline
from rig.reports import junit
from rig.runs.rundir import RunFolder
from rig.store import write_atomically
from rig.trials.signature import signature

RESULT, PLOT = "bisect.json", "bisect.svg"
MORE = "the same command with a higher limit=SECONDS goes on"
#: Suspects that are named while nothing is decided.
MOST_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a bisection was made with."""

    folder: RunFolder
    command: str
    mode: str
    accelerator: Accelerator
    out_of_time: bool
    looked: bool  # everywhere where something might have shown, before the time was up


def collect(
    pipeline: Pipeline, bench: Bench, facts: Facts, known: Sequence[Known], breaks: Sequence[Break]
) -> Bisection:
    """Fold all that is known into one Bisection."""
    own = pipeline.config.bisect
    findings = (*(broken(pipeline, one) for one in breaks), *(_hunted(pipeline, bench, facts, one) for one in known))
    status = outcomes.overall(findings)
    if status is Outcome.CLEAN and not facts.looked:
        status = Outcome.UNDECIDED
    prefixes = states(
        pipeline,
        bench,
        shown=lambda trial: any(one.hunt.observe(trial) for one in known),
        others=quarry.on_the_side(bench.trials, (one.hunt.finding.signature for one in known)),
        numbers=(number for one in known for number in _told(pipeline, one, ())),
    )
    sentence = _sentence(status, findings, facts, bench, own.confidence)
    return whole(pipeline, bench, facts, findings, prefixes, status, sentence, own.confidence)


def whole(
    pipeline: Pipeline,
    bench: Bench,
    facts: Facts,
    findings: tuple[Hunted, ...],
    prefixes: tuple[PrefixState, ...],
    status: Outcome,
    sentence: str,
    confidence: float,
) -> Bisection:
    """Return the Bisection that these are parts of."""
    applied = pipeline.applied
    return Bisection(
        id=facts.folder.id,
        started=facts.folder.started,
        finished=now().isoformat(timespec="seconds"),
        rig_version=__version__,
        command=facts.command,
        mode=facts.mode,
        series=applied.series.name,
        base=f"{applied.base.source} ({applied.base.version})",
        accelerator=facts.accelerator.name,
        accelerator_reason=facts.accelerator.reason,
        confidence=confidence,
        status=status,
        sentence=sentence,
        trials=len(bench.trials),
        seconds=round(bench.seconds, 1),
        findings=findings,
        culprits=outcomes.blamed(findings),
        prefixes=prefixes,
        config=pipeline.config.model_dump(mode="json"),
    )


# -- one finding ------------------------------------------------------------------------------------------------------


def _hunted(pipeline: Pipeline, bench: Bench, facts: Facts, one: Known) -> Hunted:
    confidence = pipeline.config.bisect.confidence
    answer, belief = one.belief.answer, one.belief
    settled = belief.settled(confidence)
    suspects = answer.suspects if settled else _credible(one, confidence)
    first = answer.suspects[0][0].introduced
    outcome = Outcome.FOUND if settled else Outcome.UNDECIDED
    if settled and not first:
        outcome = Outcome.STRAY if first is None else Outcome.BASE
    culprits = tuple(
        culprit_of(pipeline, suspect, chance) for suspect, chance in suspects if suspect.introduced is not None
    )
    shown = next((trial for trial in _examples(bench, one, culprits)), None)
    place = facts.folder.path / bench.place(shown) if shown else None
    mean, spread = belief.rate
    has_it = belief.posterior @ belief.lineup.bears
    numbers = _told(pipeline, one, culprits)
    return Hunted(
        signature=one.hunt.finding.signature,
        title=one.hunt.finding.title,
        kind=one.hunt.finding.kind,
        cell=one.hunt.cell.id,
        outcome=outcome,
        sentence=_words(outcome, culprits, one, facts),
        probability=round(sum(chance for _, chance in suspects), 6),
        culprits=() if outcome in (Outcome.STRAY, Outcome.BASE) else culprits,
        rate=round(mean, 4) if belief.failures.any() else None,
        rate_sd=round(spread, 4) if belief.failures.any() else None,
        counts=tuple(
            Count(
                number=number,
                trials=int(belief.failures[number] + belief.passes[number]),
                failures=int(belief.failures[number]),
                probability=round(min(1.0, float(has_it[number])), 6),
                hole=one.holes.get(number, ""),
            )
            for number in numbers
        ),
        example=str(bench.place(shown)) if shown else "",
        reproduce=f"{pipeline.options.rig} rerun {pipeline.ui.path(place)}" if place else "",
    )


def _examples(bench: Bench, one: Known, culprits: Sequence[Culprit]) -> list[TrialResult]:
    """Return the trials that show the finding, those of the likeliest culprit first."""
    order = {culprit.number: rank for rank, culprit in enumerate(culprits)}
    seen = [trial for trial in bench.tried(one.hunt.cell) if one.hunt.observe(trial)]
    return sorted(seen, key=lambda trial: (order.get(trial.prefix, len(order)), trial.prefix, trial.index))


def _credible(one: Known, confidence: float) -> tuple[tuple[Suspect, float], ...]:
    """Return the fewest suspects that together are as sure as is asked for, not too many of them."""
    belief, total, named = one.belief, 0.0, []
    for index in belief.posterior.argsort()[::-1][:MOST_NAMED]:
        named.append((belief.lineup.suspects[index], float(belief.posterior[index])))
        total += named[-1][1]
        if total >= confidence:
            break
    return tuple(named)


def culprit_of(pipeline: Pipeline, suspect: Suspect, chance: float) -> Culprit:
    """Return who a suspect is, and how likely it was that one."""
    prefix = pipeline.applied.prefixes[suspect.introduced or 0]
    return Culprit(
        number=prefix.number,
        subject=prefix.subject,
        commit=prefix.commit,
        probability=round(chance, 6),
        fixed_by=suspect.fixed,
    )


def _told(pipeline: Pipeline, one: Known, culprits: Sequence[Culprit]) -> list[int]:
    """Return the prefixes that the table of a finding lists: all of a series, of a history those that matter."""
    count = len(pipeline.applied.prefixes)
    if count <= 65:
        return list(range(count))
    tried = {number for number in range(count) if one.belief.failures[number] + one.belief.passes[number]}
    return sorted(tried | set(one.holes) | {culprit.number for culprit in culprits})


def _words(outcome: Outcome, culprits: Sequence[Culprit], one: Known, facts: Facts) -> str:
    plain = "commit" if facts.mode == "history" else "patch"
    if outcome is Outcome.BASE:
        return (
            f"The base has it, too: {one.belief.failures[0]} of {one.belief.failures[0] + one.belief.passes[0]} trials."
        )
    if outcome is Outcome.STRAY:
        return (
            f"It was seen {int(one.belief.failures.sum())} times in "
            f"{int((one.belief.failures + one.belief.passes).sum())} trials: too seldom to blame anybody."
        )
    real = [culprit for culprit in culprits if culprit.number]
    sure = percent(sum(culprit.probability for culprit in culprits))
    if outcome is Outcome.UNDECIDED:
        seen = int(one.belief.failures.sum())
        why = f"the time is up; {MORE}" if facts.out_of_time else "nothing that can be tried tells more"
        if not one.belief.measured:
            why = f"seen only {seen} time{'s' * (seen != 1)}; signature=GLOB hunts it alone"
        return f"Not decided ({why}): likeliest {names(real or culprits, plain=plain)} ({sure})."
    who = names(culprits, plain=plain)
    if len(culprits) == 1 and culprits[0].fixed_by is None:
        return f"{who.capitalize()} brought it ({sure}): {culprits[0].subject!r}."
    if len(culprits) == 1:
        return (
            f"{plain.capitalize()} {culprits[0].number} brought it and {plain} {culprits[0].fixed_by} took it away "
            f"again ({sure}): the tip is clean, but the series is not bisectable."
        )
    near = range(min(c.number for c in culprits) - 1, max(max(c.number, c.fixed_by or 0) for c in culprits) + 1)
    gaps = "; ".join(f"{number} {one.holes[number]}" for number in near if number in one.holes)
    return f"{who.capitalize()} brought it ({sure}), and nothing tells them apart: {gaps}."


def broken(pipeline: Pipeline, one: Break) -> Hunted:
    """Return a patch that breaks the build as a finding of its own."""
    culprit = culprit_of(pipeline, Suspect(introduced=one.introduced, fixed=one.fixed), 1.0)
    mended = f", and patch {one.fixed} mends it: the series is not bisectable" if one.fixed else ""
    return Hunted(
        signature=signature("build", one.error),
        title=f"the {one.flavour} kernel does not build: {one.error}",
        kind="build",
        cell="",
        outcome=Outcome.FOUND,
        sentence=f"Patch {one.introduced} breaks the build{mended}: {culprit.subject!r}.",
        probability=1.0,
        culprits=(culprit,),
        rate=None,
        rate_sd=None,
        counts=(),
    )


# -- all of them ------------------------------------------------------------------------------------------------------


def states(
    pipeline: Pipeline,
    bench: Bench,
    *,
    shown: Callable[[TrialResult], bool],
    others: Mapping[int, tuple[str, ...]],
    numbers: Iterable[int] = (),
) -> tuple[PrefixState, ...]:
    """Return what is known of each prefix; of a long history, of those that were tried and of `numbers`.

    `shown` says of a trial whether it has something that is hunted, and `others` what else each prefix has.
    """
    prefixes = pipeline.applied.prefixes
    tried: dict[int, list[TrialResult]] = {}
    for trial in bench.trials:
        tried.setdefault(trial.prefix, []).append(trial)
    holes = {number: hole for (number, _), hole in bench.holes.items()}
    told = set(range(len(prefixes))) if len(prefixes) <= 65 else {*tried, *holes, *numbers}
    found = []
    for number in sorted(told):
        prefix, hole = prefixes[number], holes.get(number)
        built = any(bench.is_built(number, flavour.name) for flavour in pipeline.flavours)
        found.append(
            PrefixState(
                number=number,
                subject=prefix.subject,
                commit=prefix.commit,
                tree=prefix.tree,
                state=hole.state if hole else "built" if built else "untried",
                reason=hole.reason if hole else "",
                trials=len(tried.get(number, ())),
                failures=sum(shown(trial) for trial in tried.get(number, ())),
                others=others.get(number, ()),
            )
        )
    return tuple(found)


def _sentence(status: Outcome, findings: Sequence[Hunted], facts: Facts, bench: Bench, confidence: float) -> str:
    count = len(bench.trials)
    if status is Outcome.CLEAN:
        where = "any prefix" if facts.mode == "every-prefix" else "the tip"
        # A kernel that fails more often than this would hardly have passed all of its trials.
        tip = sum(trial.prefix == bench.tip for trial in bench.trials)
        rate = 100 * (1 - (1 - confidence) ** (1 / max(1, tip)))
        return (
            f"Nothing was found on {where} in {count} trials: there is nothing to bisect "
            f"(failure rates above {rate:.0f} % per trial are excluded at {100 * confidence:g} %; "
            f"more looks=N see rarer ones)."
        )
    if not findings:
        return f"Nothing was found in {count} trials, and the time is up: {MORE}."
    first = next(one for one in findings if one.outcome is status)
    more = f" {len(findings) - 1} more below." if len(findings) > 1 else ""
    return f"{first.title}: {first.sentence}{more}"


def write(path: Path, done: Bisection) -> None:
    """Write all reports of a bisection into its folder."""
    write_atomically(path / "junit.xml", junit.bisection_xml(done))
    write_atomically(path / "summary.txt", outcomes.text(done))
    write_atomically(path / "summary.md", outcomes.markdown(done))
    write_atomically(path / PLOT, plot.svg(done))
    write_atomically(path / RESULT, json.dumps(outcomes.dump(done), indent=1, sort_keys=True) + "\n")
