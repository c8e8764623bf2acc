"""What all recorded runs of a series or control say together, by the rules of verdict.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rig.model import Cell, Finding, Judgement, Side, Status, TrialResult, Verdict
from rig.records.controls import Control
from rig.records.facts import Found, RunFacts
from rig.records.recorded import Entry
from rig.verdicts import verdict


def trials_of(entry: Entry) -> tuple[TrialResult, ...]:
    """Return the trials of all runs, as far as a verdict needs them."""
    return tuple(trial for run in entry.runs for trial in _trials(run))


def _trials(run: RunFacts) -> Iterator[TrialResult]:
    told: Counter[tuple[str, Side, str]] = Counter()
    for one in run.sightings:
        told[one.cell, one.side, one.status.value] += 1
        known = (run.findings[number] for number in one.findings)
        yield _trial(run, one.cell, one.side, one.status, one.seed, tuple(known))
    for count in run.trials:
        for status, number in count.statuses:
            for _ in range(number - told[count.cell, count.side, status]):
                yield _trial(run, count.cell, count.side, Status(status), 0, ())


def _trial(run: RunFacts, cell: str, side: Side, status: Status, seed: int, found: tuple[Found, ...]) -> TrialResult:
    flavour, machine, workload, filesystem = cell.split("/", 3)
    return TrialResult(
        cell=Cell(flavour=flavour, machine=machine, workload=workload, filesystem=filesystem),
        side=side,
        prefix=0 if side is Side.BASE else run.patches,
        tree="",
        index=0,
        seed=seed,
        status=status,
        reason="",
        accelerator=run.accelerator,
        started=run.started,
        evidence="",
        findings=tuple(Finding(oracle="", kind=one.kind, title=one.title, signature=one.signature) for one in found),
    )


def folded(entry: Entry) -> Verdict:
    """Return the verdict over all runs together."""
    return verdict.fold(trials_of(entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a control."""

    words: str  # caught 3/4, caught otherwise 1/4, missed 0/4, accused 0/4, no run yet
    hit: bool  # a bad one was caught, a good one accused
    by: str = ""  # the title of the finding that did it most often


#: What a finding may be called that the base does not have, too.
ACCUSING = (Judgement.REGRESSION, Judgement.INCONCLUSIVE)
NO_RUN = Outcome(words="no run yet", hit=False)


def outcome(control: Control, entry: Entry | None, entries: Iterable[Entry] = ()) -> Outcome:
    """Return what became of a control: how many of the patched trials that count saw something that the base has not.

    A bad control is caught by a finding that it names, and caught otherwise when there are only others. Here a single
    sighting is enough, lucky or not: of a bad control it is known that it is bad, and a good one is to be accused by
    none. A finding that the base has as well and not clearly less often accuses nobody. As a control may have been run
    without the base, neither does one that the same base showed in a run of another of `entries`.
    """
    if entry is None:
        return NO_RUN
    accused = {one.signature for one in folded(entry).findings if one.judgement in ACCUSING}
    old = _on_the_base(one for one in entries if one.key != entry.key)
    patched = [
        (trial, accused - old[run.base_tree])
        for run in entry.runs
        for trial in _trials(run)
        if trial.side is Side.PATCHED and verdict.counts(trial)
    ]
    seen = [[one.title for one in verdict.causes(trial) if one.signature in new] for trial, new in patched]
    named = [[title for title in titles if control.sees(title)] for titles in seen]
    good = control.kind == "good"
    for word, titles in (("accused", seen),) if good else (("caught", named), ("caught otherwise", seen)):
        if hits := sum(map(bool, titles)):
            often = Counter(title for some in titles for title in some)
            by = max(sorted(often), key=lambda title: often[title])
            return Outcome(words=f"{word} {hits}/{len(patched)}", hit=True, by=by)
    if not patched:
        return Outcome(words="no trial counts", hit=False)
    return Outcome(words=f"{'accused' if good else 'missed'} 0/{len(patched)}", hit=False)


def _on_the_base(entries: Iterable[Entry]) -> defaultdict[str, set[str]]:
    """Return the signatures that base kernels showed, by the tree of the base."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for run in (run for entry in entries for run in entry.runs):
        for one in run.sightings:
            if one.side is Side.BASE:
                found[run.base_tree] |= {run.findings[number].signature for number in one.findings}
    return found
