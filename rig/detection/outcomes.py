"""What `rig selfcheck` finds out, as data: what was caught and how soon, and who was accused wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from rig.detection.hunt import median, quantile
from rig.runs.results import to_json

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parents[1] / "schemas" / "selfcheck.schema.json"


class Outcome(StrEnum):
    """What became of a bad control."""

    CAUGHT = "caught"
    OTHERWISE = "otherwise"  # something else was found, which the base does not show
    MISSED = "missed"
    BROKEN = "broken"  # it does not apply or build, or none of its trials says anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A finding, and where it was seen."""

    oracle: str
    title: str
    signature: str
    cell: str
    seed: int
    evidence: str  # the trial's folder, relative to that of the selfcheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """One bad control hunted once."""

    seed: int  # of its first trial; the others have those that follow
    outcome: Outcome
    seconds: float  # of workload time: until the finding was seen, or all that was used
    trials: int
    lost: int  # trials among them that say nothing: LOST or SKIP
    inconclusive: int
    found: Sighting | None = None  # what caught it
    others: tuple[Sighting, ...] = ()  # each signature once
    cells: tuple[str, ...] = ()  # that were tried, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunted:
    """One bad control and all hunts for it."""

    name: str
    key: str  # the digest of its patches' bytes
    race: str
    wrong: str
    outcome: Outcome
    caught: int  # hunts in which it was
    seconds: float | None  # the median over the hunts, one that missed taken for endless; None when that is endless
    hunts: tuple[Hunt, ...]
    reason: str = ""  # why it is broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The base or one good control, and who accused it."""

    name: str  # base, or the control's
    key: str
    trials: int  # that count
    lost: int
    inconclusive: int
    alarms: tuple[Sighting, ...]  # each is false
    reason: str = ""  # why there are no trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Provoked:
    """A crash on purpose, and what the console oracles made of it."""

    crash: str  # as LKDTM calls it
    expected_kind: str
    expected_title: str  # a glob
    kind: str
    title: str
    ok: bool
    reason: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The numbers of a selfcheck."""

    caught: int
    controls: int
    false_alarms: int  # trials of base and good controls with a finding
    good_trials: int
    median_seconds: float | None  # over the controls that were caught
    p90_seconds: float | None
    console_ok: int
    console: int
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Selfcheck:
    """A whole selfcheck, as selfcheck.json holds it."""

    id: str
    started: str  # ISO 8601, UTC
    finished: str
    rig_version: str
    accelerator: str
    accelerator_reason: str
    base: str  # commit
    config: Mapping[str, Any]
    controls: tuple[Hunted, ...]
    goods: tuple[Cleared, ...]
    console: tuple[Provoked, ...]
    summary: Summary
    schema_version: int = SCHEMA_VERSION


def fold(name: str, key: str, race: str, wrong: str, hunts: Sequence[Hunt], *, reason: str = "") -> Hunted:
    """Return what the hunts for one control come to: caught when most of them caught it."""
    times = [hunt.seconds if hunt.outcome is Outcome.CAUGHT else math.inf for hunt in hunts]
    middle = median(times)
    outcome = Outcome.BROKEN
    if middle is not None and math.isfinite(middle):
        outcome = Outcome.CAUGHT
    elif any(hunt.others for hunt in hunts):
        outcome = Outcome.OTHERWISE
    elif any(hunt.outcome is not Outcome.BROKEN for hunt in hunts):
        outcome = Outcome.MISSED
    return Hunted(
        name=name,
        key=key,
        race=race,
        wrong=wrong,
        outcome=outcome,
        caught=sum(math.isfinite(seconds) for seconds in times),
        seconds=middle if middle is not None and math.isfinite(middle) else None,
        hunts=tuple(hunts),
        reason=reason or ("none of its trials says anything" if outcome is Outcome.BROKEN and hunts else ""),
    )


def without_known(hunted: Hunted, known: Iterable[str]) -> Hunted:
    """Return the control judged anew, with what the base shows as well (signatures) taken from its other findings."""
    shown = set(known)
    hunts = []
    for hunt in hunted.hunts:
        others = tuple(one for one in hunt.others if one.signature not in shown)
        outcome = Outcome.MISSED if hunt.outcome is Outcome.OTHERWISE and not others else hunt.outcome
        hunts.append(replace(hunt, others=others, outcome=outcome))
    return fold(hunted.name, hunted.key, hunted.race, hunted.wrong, hunts, reason=hunted.reason)


def summarise(
    controls: Sequence[Hunted], goods: Sequence[Cleared], console: Sequence[Provoked], threshold: float
) -> Summary:
    """Return the numbers; passed when enough was caught, nobody accused wrongly and every crash seen for what it is."""
    caught = [one for one in controls if one.outcome is Outcome.CAUGHT]
    times = [one.seconds for one in caught if one.seconds is not None]
    alarms = len({(good.name, alarm.evidence) for good in goods for alarm in good.alarms})
    seen = sum(one.ok for one in console)
    enough = len(caught) >= threshold * len(controls)
    unheard = any(good.trials == 0 for good in goods)
    return Summary(
        caught=len(caught),
        controls=len(controls),
        false_alarms=alarms,
        good_trials=sum(good.trials for good in goods),
        median_seconds=median(times),
        p90_seconds=quantile(times, 0.9),
        console_ok=seen,
        console=len(console),
        passed=enough and not alarms and not unheard and seen == len(console),
    )


def sentence(summary: Summary) -> str:
    """Return the numbers in one line."""
    parts = []
    if summary.controls:
        parts.append(f"caught {summary.caught}/{summary.controls}")
    if summary.good_trials:
        parts.append(f"false alarms {summary.false_alarms}/{summary.good_trials}")
    if summary.median_seconds is not None and summary.p90_seconds is not None:
        parts.append(f"median time to detection {summary.median_seconds:.1f} s (p90 {summary.p90_seconds:.1f} s)")
    if summary.console:
        parts.append(f"crashes on purpose seen right {summary.console_ok}/{summary.console}")
    return ", ".join(parts) or "nothing was checked"


def lines(check: Selfcheck) -> list[str]:
    """Return the selfcheck for people: a line for each control, and the numbers last."""
    names = [*(one.name for one in check.controls), *(one.name for one in check.goods)]
    names += [one.crash for one in check.console]
    width = max(map(len, names), default=0)
    said = [control_line(one, width) for one in check.controls]
    said += [good_line(one, width) for one in check.goods]
    said += [console_line(one, width) for one in check.console]
    return [*said, "", sentence(check.summary)]


def control_line(one: Hunted, width: int = 0) -> str:
    """Return what became of a bad control, in one line."""
    trials = sum(hunt.trials for hunt in one.hunts)
    head = f"{one.outcome:<10} {one.name:<{width}}  "
    if one.reason:
        return head + one.reason
    of = f" in {one.caught} of {len(one.hunts)} hunts" if len(one.hunts) > 1 else ""
    found = next((hunt.found for hunt in one.hunts if hunt.found), None)
    if one.outcome is Outcome.CAUGHT and found:
        return f"{head}{one.seconds:5.1f} s{of}, {trials} trials: {found.oracle}: {found.title} ({found.cell})"
    used = sum(hunt.seconds for hunt in one.hunts)
    others = [f"{other.oracle}: {other.title} ({other.cell})" for hunt in one.hunts for other in hunt.others]
    return f"{head}{used:5.1f} s used{of}, {trials} trials" + (f": {others[0]}" if others else "")


def console_line(one: Provoked, width: int = 0) -> str:
    """Return what the console oracles made of a crash on purpose, in one line."""
    seen = f"{one.kind}: {one.title}" if one.title else one.kind
    text = seen if one.ok else f"{seen or 'nothing'}: {one.reason}"
    return f"{'seen' if one.ok else 'NOT SEEN':<10} {one.crash:<{width}}  {text}"


def good_line(one: Cleared, width: int = 0) -> str:
    """Return what became of somebody innocent, in one line; one more for each false alarm."""
    head = f"{'ACCUSED' if one.alarms else 'clean':<10} {one.name:<{width}}  "
    if one.reason:
        return head + one.reason
    rest = f", {one.lost} lost" * bool(one.lost) + f", {one.inconclusive} inconclusive" * bool(one.inconclusive)
    alarms = "".join(f"\n{'':12}{alarm.title} ({alarm.cell}): {alarm.evidence}" for alarm in one.alarms)
    return f"{head}{one.trials} trials{rest}{alarms}"


def dump(check: Selfcheck) -> Any:
    """Return the selfcheck as JSON's own types."""
    return to_json(check)
