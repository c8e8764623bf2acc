"""Two runs side by side: yesterday and today, or two versions of a series. Pure: two runs in, one Comparison out.

Findings are compared by signature over the cells that both runs have, on the patched kernel, so that a run over more
cells is not worse for that. The patches are matched as `git range-diff` does it: first by what they change, then by
subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rig.model import FindingVerdict, Judgement, Side, Tally
from rig.runs.results import Patch, Run
from rig.verdicts import statistics
from rig.verdicts.sightings import Evidence, Sighting, gather

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parents[1] / "schemas" / "compare.schema.json"


class Change(StrEnum):
    """What became of a finding or a patch from the first run to the second."""

    NEW = "new"
    GONE = "gone"
    WORSE = "worse"  # of findings: more often, not by chance, or a regression now
    BETTER = "better"
    SAME = "same"
    CHANGED = "changed"  # of patches: the same subject, other changes
    UNKNOWN = "unknown"  # of patches: the same subject, and the patches themselves are not at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One of the two runs."""

    id: str
    started: str
    judgement: Judgement
    sentence: str
    series: str
    trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingChange:
    """One finding in both runs."""

    signature: str
    title: str
    change: Change
    counts: bool  # new or worse, and the second run's series may have to do with it
    a: Tally  # on the patched kernel, in the cells that both runs have, or where it was seen if it was in none of these
    b: Tally
    a_base: Tally
    b_base: Tally
    a_judgement: Judgement | None  # None: not seen
    b_judgement: Judgement | None
    p_value: float  # that luck alone makes such a difference between the patched kernels
    p_adjusted: float  # for all findings at once
    cells: tuple[str, ...]  # where the second run saw it, or the first if it is gone
    example: str  # evidence folder, relative to that run's
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchChange:
    """One patch in both series."""

    a: int | None  # number in the first series, counted from 1
    b: int | None
    subject: str
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something about the surroundings that weakens the comparison."""

    what: str
    a: str
    b: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two runs have to say about each other."""

    a: Named
    b: Named
    worse: bool  # some finding counts
    sentence: str
    findings: tuple[FindingChange, ...]
    patches: tuple[PatchChange, ...]
    cells_new: tuple[str, ...]  # of the patched kernel, with a trial that counts
    cells_gone: tuple[str, ...]
    differences: tuple[Difference, ...]
    schema_version: int = SCHEMA_VERSION


#: The order in which findings are told.
ORDER = (Change.NEW, Change.WORSE, Change.GONE, Change.BETTER, Change.SAME)


def compare(a: Run, b: Run, a_ids: Sequence[str] = (), b_ids: Sequence[str] = ()) -> Comparison:
    """Return what changed from run `a` to run `b`; the ids are the `git patch-id`s of their patches, where known."""
    before, after = gather(a.trials), gather(b.trials)
    names = tuple(dict.fromkeys((*after.sightings, *before.sightings)))
    rows = [_numbers(before.sightings.get(name), after.sightings.get(name), before, after) for name in names]
    worse = statistics.holm([statistics.exact(*_table(y, x)) for x, y in rows], [1.0] * len(rows))
    better = statistics.holm([statistics.exact(*_table(x, y)) for x, y in rows], [1.0] * len(rows))
    changes = [
        _finding(name, numbers, (worse[n], better[n]), (a, before), (b, after))
        for n, (name, numbers) in enumerate(zip(names, rows, strict=True))
    ]
    findings = tuple(sorted(changes, key=lambda one: (ORDER.index(one.change), not one.counts, one.p_value, one.title)))
    ran = before.trials[Side.PATCHED].keys(), after.trials[Side.PATCHED].keys()
    return Comparison(
        a=_named(a),
        b=_named(b),
        worse=any(one.counts for one in findings),
        sentence=_sentence(findings),
        findings=findings,
        patches=match(a.series.patches, b.series.patches, a_ids, b_ids),
        cells_new=tuple(sorted(ran[1] - ran[0])),
        cells_gone=tuple(sorted(ran[0] - ran[1])),
        differences=tuple(_differences(a, b)),
    )


def _named(run: Run) -> Named:
    return Named(
        id=run.id,
        started=run.started,
        judgement=run.verdict.judgement,
        sentence=run.verdict.sentence,
        series=run.series.name,
        trials=len(run.trials),
    )


# -- findings ---------------------------------------------------------------------------------------------------------


def _numbers(x: Sighting | None, y: Sighting | None, before: Evidence, after: Evidence) -> tuple[Tally, Tally]:
    shared = before.trials[Side.PATCHED].keys() & after.trials[Side.PATCHED].keys()
    seen = {cell for one in (x, y) if one is not None for cell in one.patched}
    cells = shared if shared & seen or not seen else seen
    return _tally(x, before, Side.PATCHED, cells), _tally(y, after, Side.PATCHED, cells)


def _tally(sighting: Sighting | None, evidence: Evidence, side: Side, cells: Any) -> Tally:
    if sighting is None:
        return Tally(failures=0, trials=evidence.total(side, cells))
    return evidence.tally(sighting, side, cells)


def _table(one: Tally, other: Tally) -> tuple[int, int, int, int]:
    return one.failures, one.trials, other.failures, other.trials


def _finding(
    name: str,
    numbers: tuple[Tally, Tally],
    adjusted: tuple[float, float],
    first: tuple[Run, Evidence],
    second: tuple[Run, Evidence],
) -> FindingChange:
    (a, before), (b, after) = first, second
    x, y = before.sightings.get(name), after.sightings.get(name)
    sighting = y or x
    assert sighting is not None
    was, now = _verdict_on(name, a), _verdict_on(name, b)
    change = _change(x, y, adjusted, was, now)
    up = change in (Change.NEW, Change.WORSE, Change.SAME)
    p_value = statistics.exact(*(_table(numbers[1], numbers[0]) if up else _table(numbers[0], numbers[1])))
    # The same base kernel had it in the first run as well; it only was not seen. And what is known is not new.
    old = now is not None and (
        now.expected is not None or (now.judgement in (Judgement.KNOWN, Judgement.FIXED) and a.base.tree == b.base.tree)
    )
    cells = (y or sighting).cells
    return FindingChange(
        signature=name,
        title=sighting.first.title,
        change=change,
        counts=change in (Change.NEW, Change.WORSE) and not old,
        a=numbers[0],
        b=numbers[1],
        a_base=_tally(x, before, Side.BASE, before.trials[Side.BASE].keys()),
        b_base=_tally(y, after, Side.BASE, after.trials[Side.BASE].keys()),
        a_judgement=was.judgement if was else None,
        b_judgement=now.judgement if now else None,
        p_value=p_value,
        p_adjusted=adjusted[0] if up else adjusted[1],
        cells=tuple(sorted(cells)),
        example=sighting.example,
        sentence=_explain(change, numbers, p_value, now, old=old),
    )


def _verdict_on(name: str, run: Run) -> FindingVerdict | None:
    return next((found for found in run.verdict.findings if found.signature == name), None)


def _change(
    x: Sighting | None,
    y: Sighting | None,
    adjusted: tuple[float, float],
    was: FindingVerdict | None,
    now: FindingVerdict | None,
) -> Change:
    if x is None or y is None:
        return Change.NEW if x is None else Change.GONE
    accused = [one is not None and one.judgement is Judgement.REGRESSION for one in (was, now)]
    if statistics.sure(adjusted[0], statistics.CONFIDENCE) or accused == [False, True]:
        return Change.WORSE
    return Change.BETTER if statistics.sure(adjusted[1], statistics.CONFIDENCE) else Change.SAME


def _explain(
    change: Change, numbers: tuple[Tally, Tally], p_value: float, now: FindingVerdict | None, *, old: bool
) -> str:
    a, b = numbers
    if change is Change.NEW and not a.trials:
        text = f"patched {b} now, in cells that the first run does not have"
    elif change is Change.GONE and not b.trials:
        text = f"patched {a} before, in cells that the second run does not have"
    else:
        luck = "" if statistics.sure(p_value, statistics.CONFIDENCE) else ", which can be luck"
        text = f"patched {a} before, {b} now, p = {p_value:.2g}{luck}"
    if old and now is not None and change in (Change.NEW, Change.WORSE):
        text += f"; {'a known issue' if now.expected else 'the base has it too'}"
    return text


def _sentence(findings: Sequence[FindingChange]) -> str:
    counted = [one for one in findings if one.counts]
    if counted:
        more = f", and {len(counted) - 1} more" if len(counted) > 1 else ""
        return f"{counted[0].title} is {counted[0].change}{more} ({counted[0].sentence})."
    numbers = {change: sum(one.change is change for one in findings) for change in ORDER}
    rest = ", ".join(f"{number} {change}" for change, number in numbers.items() if number)
    return f"No new and no worse finding that the series could have to do with ({rest or 'no findings at all'})."


# -- patches ----------------------------------------------------------------------------------------------------------


def match(
    a: Sequence[Patch], b: Sequence[Patch], a_ids: Sequence[str] = (), b_ids: Sequence[str] = ()
) -> tuple[PatchChange, ...]:
    """Return the patches of both series, matched by patch id, then by subject; in the order of the second series.

    Those that are gone stand behind the one that they stood behind.
    """
    ids = [dict(zip((one.number for one in some), known, strict=False)) for some, known in ((a, a_ids), (b, b_ids))]
    partner: dict[int, int] = {}  # number in b → number in a
    subjects = [{one.number: one.subject.casefold() for one in some} for some in (a, b)]
    for ours, keys in (ids, subjects):
        for theirs in b:
            wanted = keys.get(theirs.number)
            if theirs.number in partner or not wanted:
                continue
            free = (mine.number for mine in a if mine.number not in partner.values())
            if (found := next((mine for mine in free if ours.get(mine) == wanted), None)) is not None:
                partner[theirs.number] = found
    changes = [_patch(one, partner.get(one.number), *ids) for one in b]
    for mine in a:
        if mine.number not in partner.values():
            at = max((n for n, one in enumerate(changes, 1) if one.a and one.a < mine.number), default=0)
            changes.insert(at, PatchChange(a=mine.number, b=None, subject=mine.subject, change=Change.GONE))
    return tuple(changes)


def _patch(patch: Patch, mine: int | None, a_ids: Mapping[int, str], b_ids: Mapping[int, str]) -> PatchChange:
    if mine is None:
        change = Change.NEW
    elif not a_ids.get(mine) or not b_ids.get(patch.number):
        change = Change.UNKNOWN
    else:
        change = Change.SAME if a_ids[mine] == b_ids[patch.number] else Change.CHANGED
    return PatchChange(a=mine, b=patch.number, subject=patch.subject, change=change)


# -- surroundings -----------------------------------------------------------------------------------------------------

FINDS_MORE = "longer or more trials find more"
OTHER_TIMING = "timing decides which races are seen"


def _differences(a: Run, b: Run) -> list[Difference]:
    """Return what was different around the two runs, with what that means for the comparison."""
    facts = (
        ("accelerator", lambda run: run.host.accelerator, "TCG and KVM show different races, and TCG fewer"),
        ("compiler", lambda run: run.host.compiler, "other code has other windows"),
        ("base", lambda run: f"{run.base.source}, tree {run.base.tree[:12]}", "the change may be the base's"),
        ("budget", lambda run: f"{run.config.get('budget', '?')} s", FINDS_MORE),
        ("trials", lambda run: _plan(run), FINDS_MORE),
        ("perturbation", lambda run: _flat(run.config.get("perturb")), OTHER_TIMING),
        ("flavours", lambda run: _flat(run.config.get("flavours")), "an assertion that is off accuses nobody"),
        ("machines", lambda run: _flat(run.config.get("machines")), OTHER_TIMING),
        ("workloads", lambda run: _flat(run.config.get("workloads")), "what is not driven is not found"),
        ("CPUs of the host", lambda run: str(run.host.cpus), OTHER_TIMING),
        ("QEMU", lambda run: run.host.qemu, OTHER_TIMING),
        ("rig", lambda run: run.rig_version, "its workloads and oracles may have changed"),
        ("complete", lambda run: "yes" if run.complete else "no", "what did not run was not seen"),
    )
    told = ((what, fact(a), fact(b), why) for what, fact, why in facts)
    return [Difference(what=what, a=mine, b=theirs, why=why) for what, mine, theirs, why in told if mine != theirs]


def _plan(run: Run) -> str:
    trials = run.config.get("trials", "?")
    if isinstance(trials, Mapping):
        least, most = trials.get("min"), trials.get("max")
        return str(least) if least == most else f"{least} to {most}"
    return str(trials)


def _flat(value: Any, name: str = "") -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(_flat(item, str(key)) for key, item in sorted(value.items()))
        return f"{name} {{{inner}}}" if name else inner
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"{name} {text}".strip()
