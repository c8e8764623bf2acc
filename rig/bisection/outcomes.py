"""What `rig bisect` finds out, as data, and how it reads: for people, for a mail, and as bisect.json.

`rig/schemas/bisect.schema.json` describes the JSON, which follows the dataclasses below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rig.costs.words import growth, level
from rig.runs.results import to_json

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parents[1] / "schemas" / "bisect.schema.json"

PASSED, FAILED, UNDECIDED = 0, 1, 4


class Outcome(StrEnum):
    """What is known of a finding in the end, and of the whole bisection: the first that any finding has."""

    FOUND = "found"  # a patch is named, or several that nothing tells apart
    UNDECIDED = "undecided"  # the time is used up, or no kernel that can be tried tells more
    BASE = "base"  # the base has it, too
    STRAY = "stray"  # seen, and so seldom since that nobody can be blamed
    CLEAN = "clean"  # nothing was seen at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A patch that may have brought a finding."""

    number: int  # counted from 1; 0 is the base
    subject: str
    commit: str
    probability: float
    fixed_by: int | None = None  # the patch that took the finding away again


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The trials of one prefix that say something of a finding."""

    number: int
    trials: int
    failures: int
    probability: float  # that the finding is in this prefix
    hole: str = ""  # why this prefix cannot be tried, for this finding
    value: float | None = None  # what its trials counted: the median, in units of the metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunted:
    """One finding and who did it."""

    signature: str
    title: str
    kind: str
    cell: str  # "": of the build
    outcome: Outcome
    sentence: str
    probability: float  # of the culprits together
    culprits: tuple[Culprit, ...]  # the likeliest first
    rate: float | None  # of failures per trial where the finding is, estimated
    rate_sd: float | None
    counts: tuple[Count, ...]
    example: str = ""  # the folder of a trial that shows it, relative to that of the bisection
    reproduce: str = ""  # the command that runs this trial again, or measures the count again
    metric: str = ""  # the count that is hunted, as bench.json names it; "": it is a finding


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixState:
    """What is known of one prefix, over all findings."""

    number: int
    subject: str
    commit: str
    tree: str
    state: str  # built, broken (does not build), unbootable, or untried
    reason: str  # why it cannot be tried
    trials: int  # all of them, whatever came of them
    failures: int  # those with one of the findings that are hunted
    others: tuple[str, ...]  # titles of other findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """A whole bisection, as bisect.json holds it."""

    id: str
    started: str  # ISO 8601, UTC
    finished: str
    rig_version: str
    command: str  # that makes it again
    mode: str  # series, every-prefix, history or counts
    series: str
    base: str  # source and version
    accelerator: str
    accelerator_reason: str
    confidence: float
    status: Outcome
    sentence: str
    trials: int
    seconds: float  # of building and of trials, also before an interruption
    findings: tuple[Hunted, ...]
    culprits: tuple[Culprit, ...]  # of all findings that are decided, each patch once
    prefixes: tuple[PrefixState, ...]  # of a history: those that were tried
    config: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def exit_code(self) -> int:
        """1 when a patch is to blame, 0 when the series is clean, 4 when that is not known."""
        if self.status is Outcome.FOUND:
            return FAILED
        return UNDECIDED if self.status is Outcome.UNDECIDED else PASSED


def overall(findings: Sequence[Hunted]) -> Outcome:
    """Return what a bisection with these findings is called."""
    outcomes = {one.outcome for one in findings}
    return next((outcome for outcome in Outcome if outcome in outcomes), Outcome.CLEAN)


def blamed(findings: Sequence[Hunted]) -> tuple[Culprit, ...]:
    """Return the culprits of all findings that are decided, each patch once, the surest first."""
    every = [culprit for one in findings if one.outcome is Outcome.FOUND for culprit in one.culprits]
    surest: dict[tuple[int, int | None], Culprit] = {}
    for culprit in sorted(every, key=lambda one: (-one.probability, one.number)):
        surest.setdefault((culprit.number, culprit.fixed_by), culprit)
    return tuple(surest.values())


def names(culprits: Sequence[Culprit], *, plain: str = "patch") -> str:
    """Return `patch 3`, or `patch 3 or 4`, each with who mended it."""

    def one(culprit: Culprit) -> str:
        return f"{culprit.number}" + (f" (fixed by {culprit.fixed_by})" if culprit.fixed_by else "")

    words = list(dict.fromkeys(one(culprit) for culprit in sorted(culprits, key=lambda c: (c.number, c.fixed_by or 0))))
    if len(words) > 4:
        words = [*words[:3], f"… {words[-1]}"]
    return f"{plain} {' or '.join([', '.join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]}"


def percent(probability: float) -> str:
    """Return a probability for people; never 100 %, as nothing is certain here."""
    return "> 99.9 %" if probability > 0.999 else "< 0.1 %" if probability < 0.001 else f"{100 * probability:.1f} %"


# -- for people -------------------------------------------------------------------------------------------------------


def table(one: Hunted, states: Sequence[PrefixState]) -> list[str]:
    """Return the prefixes of a finding in a line each: failures of trials, and how likely it is in this one."""
    known = {state.number: state for state in states}
    lines = []
    for count in one.counts:
        state = known[count.number]
        mark = (
            "►"
            if any(culprit.number == count.number for culprit in one.culprits) and one.outcome is Outcome.FOUND
            else " "
        )
        cells = (f"{cell:>{width}}" for cell, width in zip(_cells(one, count), (9, 8), strict=True))
        lines.append(f"  {mark} {count.number:>4}  {'  '.join(cells)}  {_short(state, count)}")
    return [f"  patch  {'  '.join(_heads(one))}", *lines]


def _heads(one: Hunted) -> tuple[str, str]:
    return ("median", "over the base") if one.metric else ("failures/trials", "has it")


def _cells(one: Hunted, count: Count) -> tuple[str, str]:
    """Return what the tables say of a prefix: how often it failed and whether it has it, or what it counts."""
    if not one.metric:
        tally = f"{count.failures}/{count.trials}" if count.trials else "-"
        return tally, percent(count.probability)
    base = one.counts[0].value
    if count.value is None or base is None:
        return "-", ""
    return level(one.metric, count.value), growth(one.metric, base, count.value)


def _short(state: PrefixState, count: Count) -> str:
    subject = state.subject if len(state.subject) <= 70 else state.subject[:69] + "…"
    return f"{subject} ({count.hole})" if count.hole else subject


def text(done: Bisection) -> str:
    """Return the bisection for a terminal."""
    lines = [done.sentence, ""]
    for one in done.findings:
        lines += [f"{one.outcome.upper()}: {one.title}" + (f" ({one.cell})" if one.cell else ""), f"  {one.sentence}"]
        if one.rate is not None and one.rate_sd is not None:
            lines.append(f"  fails in {100 * one.rate:.0f} ± {100 * one.rate_sd:.0f} % of the trials where it is")
        if one.reproduce:
            lines.append(f"  reproduce: {one.reproduce}")
        lines += [*(table(one, done.prefixes) if one.counts else []), ""]
    others = [f"  {state.number}: {title}" for state in done.prefixes for title in state.others]
    if others:
        lines += ["seen on the side, and not followed:", *others, ""]
    lines.append(
        f"{done.trials} trials, {done.seconds / 60:.1f} min of building and trials, {done.accelerator.upper()}"
    )
    return "\n".join(lines) + "\n"


def markdown(done: Bisection) -> str:
    """Return the bisection as a block to paste into a mail or a merge request."""
    lines = [f"**rig bisect**: {done.sentence}", ""]
    for one in done.findings:
        lines += [
            f"- **{one.outcome}**: `{one.title}`" + (f" in `{one.cell}`" if one.cell else "") + f": {one.sentence}"
        ]
        if one.counts:
            lines += ["", f"  | patch | {' | '.join(_heads(one))} | |", "  |---|---|---|---|"]
            known = {state.number: state for state in done.prefixes}
            for count in one.counts:
                words = _short(known[count.number], count).replace("|", "\\|").replace("<", "&lt;")
                lines.append(f"  | {count.number} | {' | '.join(_cells(one, count))} | {words} |")
            lines.append("")
        if one.reproduce:
            lines += [f"  Reproduce: `{one.reproduce}`", ""]
    trials = f"{done.trials} trials, confidence {done.confidence:g}, {done.accelerator.upper()}"
    lines.append(f"{done.series} on {done.base}; {trials}")
    return "\n".join(lines) + "\n"


def dump(done: Bisection) -> Any:
    """Return the bisection as JSON's own types."""
    return to_json(done)
