"""Folds all trials of a run into one verdict: base against patched, signature by signature.

What counts as a trial: one that could have failed and be seen to. LOST and SKIP say nothing, and neither does an
INCONCLUSIVE one, whose race never came near happening. Base and patched are compared over the cells in which both have
such trials, so that a cell that only one side ran does not tip the scales.

A single crash of the patched kernel beside a clean base is reported as a regression: the rig says what it saw. How
sure that is, is in the sentence, as numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import comb

from rig.model import Finding, FindingVerdict, Judgement, Side, Status, Tally, TrialResult, Verdict
from rig.signature import signature

SIGNIFICANT = 0.05
CONFIDENCE = 0.95

#: The gravest first: what a run with several findings is called.
GRAVITY = (Judgement.REGRESSION, Judgement.KNOWN, Judgement.FIXED)


def fold(trials: Sequence[TrialResult]) -> Verdict:
    """Return the verdict over `trials` of both sides; no base, or nothing at all, is allowed."""
    tallies = _Tallies.of(trials)
    findings = sorted(
        (_compare(sighting, tallies) for sighting in _sightings(trials)),
        key=lambda found: (GRAVITY.index(found.judgement), found.p_value, found.title),
    )
    holes = _holes(trials, tallies)
    judgement = _overall(findings, tallies, holes)
    return Verdict(
        judgement=judgement,
        sentence=_sentence(judgement, findings, tallies, holes, _failed(trials, tallies)),
        findings=tuple(findings),
        notes=_notes(trials, tallies),
    )


def fisher(failures: int, trials: int, other_failures: int, other_trials: int) -> float:
    """Return the probability of `failures` or more of `trials` if both sides fail alike.

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution with both margins fixed
    (R. A. Fisher, 1922). 1.0 if either side has no trials.
    """
    both, bad = trials + other_trials, failures + other_failures
    ways = comb(both, trials)
    tail = sum(comb(bad, k) * comb(both - bad, trials - k) for k in range(failures, min(bad, trials) + 1))
    return min(1.0, tail / ways)


def excluded_rate(trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the failure rate that `trials` passes in a row exclude: the p with (1-p)^trials = 1-confidence."""
    return 1.0 if trials == 0 else 1.0 - (1.0 - confidence) ** (1.0 / trials)


def counts(trial: TrialResult) -> bool:
    """Whether the trial says anything about its kernel."""
    return trial.status is Status.PASS or trial.status.bad


def causes(trial: TrialResult) -> tuple[Finding, ...]:
    """Return what a trial accuses the kernel of, echoes left out, each signature once."""
    found = [finding for finding in trial.findings if not finding.echo] or list(trial.findings)
    if not found and trial.status.bad:
        kind = trial.status.lower()
        found = [Finding(oracle="rig", kind=kind, title=trial.reason, signature=signature(kind, trial.reason))]
    return tuple({finding.signature: finding for finding in reversed(found)}.values())[::-1]


# -- counting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tallies:
    """How many trials count, by cell and side."""

    base: dict[str, int]
    patched: dict[str, int]

    @classmethod
    def of(cls, trials: Iterable[TrialResult]) -> _Tallies:
        sides: dict[Side, dict[str, int]] = {Side.BASE: defaultdict(int), Side.PATCHED: defaultdict(int)}
        for trial in trials:
            if counts(trial):
                sides[trial.side][trial.cell.id] += 1
        return cls(dict(sides[Side.BASE]), dict(sides[Side.PATCHED]))

    @property
    def shared(self) -> frozenset[str]:
        """The cells in which both sides have trials that count."""
        return frozenset(self.base.keys() & self.patched.keys())

    def total(self, side: Side, cells: Iterable[str] | None = None) -> int:
        """Trials that count on `side`, in all cells or in those given."""
        numbers = self.base if side is Side.BASE else self.patched
        return sum(numbers.values()) if cells is None else sum(numbers.get(cell, 0) for cell in cells)


@dataclass(slots=True)
class _Sighting:
    """Where one signature was seen."""

    first: Finding
    example: str
    base: dict[str, int]  # trials that saw it, by cell
    patched: dict[str, int]

    @property
    def cells(self) -> frozenset[str]:
        return frozenset(self.base.keys() | self.patched.keys())

    def tally(self, side: Side, cells: Iterable[str], tallies: _Tallies) -> Tally:
        chosen = tuple(cells)
        seen = self.base if side is Side.BASE else self.patched
        return Tally(failures=sum(seen.get(cell, 0) for cell in chosen), trials=tallies.total(side, chosen))


def _sightings(trials: Sequence[TrialResult]) -> list[_Sighting]:
    """Gather findings by signature; the example is the first trial of the patched kernel that saw it, if any did."""
    found: dict[str, _Sighting] = {}
    for trial in sorted(trials, key=lambda t: t.side is Side.BASE):
        for finding in causes(trial) if counts(trial) else ():
            sighting = found.setdefault(finding.signature, _Sighting(finding, trial.evidence, {}, {}))
            seen = sighting.base if trial.side is Side.BASE else sighting.patched
            seen[trial.cell.id] = seen.get(trial.cell.id, 0) + 1
    return list(found.values())


# -- judging ----------------------------------------------------------------------------------------------------------


def _compare(sighting: _Sighting, tallies: _Tallies) -> FindingVerdict:
    shared = tallies.shared
    # Seen only where one side has nothing to compare with? Then the numbers are of those cells; the sentence says so.
    cells = shared if shared & sighting.cells else sighting.cells
    base = sighting.tally(Side.BASE, cells, tallies)
    patched = sighting.tally(Side.PATCHED, cells, tallies)
    worse = fisher(patched.failures, patched.trials, base.failures, base.trials)
    better = fisher(base.failures, base.trials, patched.failures, patched.trials)
    judgement = Judgement.REGRESSION
    if not sighting.patched:
        judgement = Judgement.FIXED if patched.trials else Judgement.KNOWN
    elif sighting.base and worse >= SIGNIFICANT:
        judgement = Judgement.KNOWN
    p_value = better if judgement is Judgement.FIXED else worse
    return FindingVerdict(
        signature=sighting.first.signature,
        title=sighting.first.title,
        judgement=judgement,
        base=base,
        patched=patched,
        p_value=p_value,
        cells=tuple(sorted(sighting.cells)),
        example=sighting.example,
        sentence=_explain(judgement, base, patched, p_value),
        kind=sighting.first.kind,
        base_there=sighting.tally(Side.BASE, sighting.cells, tallies),
        patched_there=sighting.tally(Side.PATCHED, sighting.cells, tallies),
    )


def _explain(judgement: Judgement, base: Tally, patched: Tally, p_value: float) -> str:
    numbers = f"patched {patched}, base {base}, {_p(p_value)}"
    sure = p_value < SIGNIFICANT
    if not base.trials:
        return f"patched {patched}, no base trial to compare with: it may be older than the series"
    if not patched.trials:
        return f"base {base}, no patched trial to compare with"
    if judgement is Judgement.FIXED:
        return f"{numbers}: seen on the base only, " + ("not by chance" if sure else "which may be chance")
    if judgement is Judgement.KNOWN:
        return f"{numbers}: the base has it too, and not clearly less often"
    if base.failures:
        return f"{numbers}: the base has it too, but less often, not by chance"
    if sure:
        return f"{numbers}: seen on the patched kernel only, not by chance"
    return f"{numbers}: seen on the patched kernel only; so few sightings can be luck, more trials would tell"


def _explain_failed(base: Tally, patched: Tally) -> str:
    """Compare failures of any kind."""
    if not base.trials:
        return f"patched {patched}, no base trial to compare with"
    p_value = fisher(patched.failures, patched.trials, base.failures, base.trials)
    chance = "not by chance" if p_value < SIGNIFICANT else "which may be chance, more trials would tell"
    return f"patched {patched}, base {base}, {_p(p_value)}: {chance}"


def _p(value: float) -> str:
    if value < 0.0001:
        return "p < 0.0001"
    return f"p = {value:.2f}" if value >= 0.01 else f"p = {value:.1g}"


def _failed(trials: Sequence[TrialResult], tallies: _Tallies) -> tuple[Tally, Tally]:
    """How many trials failed in whatever way, on the base and on the patched kernel, in the cells that both have.

    One bug has many faces: stale data in one trial, an assertion in the next. Together they are surer than each alone.
    """
    cells = tallies.shared or frozenset(tallies.patched)
    bad = [trial for trial in trials if trial.status.bad and trial.cell.id in cells]
    return (
        Tally(failures=sum(t.side is Side.BASE for t in bad), trials=tallies.total(Side.BASE, cells)),
        Tally(failures=sum(t.side is Side.PATCHED for t in bad), trials=tallies.total(Side.PATCHED, cells)),
    )


def _holes(trials: Sequence[TrialResult], tallies: _Tallies) -> tuple[str, ...]:
    """The cells of the patched kernel about which nothing is known because the host failed."""
    lost = {t.cell.id for t in trials if t.side is Side.PATCHED and t.status is Status.LOST}
    return tuple(sorted(lost - tallies.patched.keys()))


def _overall(findings: Sequence[FindingVerdict], tallies: _Tallies, holes: Sequence[str]) -> Judgement:
    judgements = {found.judgement for found in findings}
    if Judgement.REGRESSION in judgements:
        return Judgement.REGRESSION
    if not tallies.patched:
        return Judgement.KNOWN if judgements else Judgement.INCONCLUSIVE
    nothing = Judgement.INCONCLUSIVE if holes else Judgement.CLEAN
    return next((judgement for judgement in GRAVITY if judgement in judgements), nothing)


def _sentence(
    judgement: Judgement,
    findings: Sequence[FindingVerdict],
    tallies: _Tallies,
    holes: Sequence[str],
    failed: tuple[Tally, Tally],
) -> str:
    patched, base = tallies.total(Side.PATCHED), tallies.total(Side.BASE)
    if judgement is Judgement.INCONCLUSIVE and holes:
        return f"Nothing found in {_trials(patched)} of the patched kernel, but all trials of {holes[0]} were lost."
    if judgement is Judgement.INCONCLUSIVE:
        return f"Nothing can be said: no patched trial came to a result ({_trials(base)} of the base did)."
    if judgement is Judgement.CLEAN:
        rate = 100 * excluded_rate(patched)
        cells = f"{len(tallies.patched)} cell" + "s" * (len(tallies.patched) != 1)
        return (
            f"Nothing found in {_trials(patched)} of the patched kernel over {cells}: "
            f"a failure rate above {rate:.1f} % per trial is excluded at 95 %."
        )
    chosen = [found for found in findings if found.judgement is judgement]
    more = f", and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    if judgement is Judgement.REGRESSION and len(chosen) > 1:
        return f"The patched kernel fails: {chosen[0].title}{more}. All in all: {_explain_failed(*failed)}."
    start = {
        Judgement.REGRESSION: "The patched kernel fails",
        Judgement.KNOWN: "The base is broken already",
        Judgement.FIXED: "The series seems to fix something",
    }[judgement]
    return f"{start}: {chosen[0].title}{more} ({chosen[0].sentence})."


def _trials(number: int) -> str:
    return f"{number} trial" + "s" * (number != 1)


def _notes(trials: Sequence[TrialResult], tallies: _Tallies) -> tuple[str, ...]:
    notes: list[str] = []
    by_status: dict[Status, list[TrialResult]] = defaultdict(list)
    for trial in trials:
        by_status[trial.status].append(trial)
    for status, what in (
        (Status.LOST, "lost: the machine, not the kernel, failed"),
        (Status.INCONCLUSIVE, "inconclusive: the race never came near happening"),
        (Status.SKIP, "skipped"),
    ):
        if some := by_status[status]:
            notes.append(f"{_trials(len(some))} {what}; the first: {some[0].cell.id} ({some[0].reason})")
    silent = sorted({t.cell.id for t in trials if t.side is Side.PATCHED} - tallies.patched.keys())
    if silent:
        notes.append(f"no patched trial counts in: {', '.join(silent)}")
    lonely = sorted(tallies.patched.keys() - tallies.base.keys())
    if tallies.base and lonely:
        notes.append(f"no base trial counts in: {', '.join(lonely)}")
    if not tallies.base and tallies.patched:
        notes.append("no base trial counts: what was found cannot be laid on the series")
    if any(trial.accelerator == "tcg" for trial in trials):
        notes.append("ran under TCG: timing differs from hardware, and weak memory ordering cannot show")
    return tuple(notes)
