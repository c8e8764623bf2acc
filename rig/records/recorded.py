"""What was found in the series and controls of patches/, condensed from the results of real runs and kept with them.

    results.json ──► condense ──► verdicts.json ──► the tables of patches/README.md and patches/controls/README.md

An entry belongs to the bytes of the patches: when they change, what is recorded of them says nothing any more. Runs are
kept one by one, each under its id, so that none counts twice; what they say together is folded by the rules of
verdict.py. Runs of the first patches of a series are kept below the digest of these patches, as several series may
begin with them; see prefixes.py. Nothing of the host's folders gets into the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rig.errors import ConfigError, HostError
from rig.model import Cell, Finding, Judgement, Side, Status, Tally, TrialResult, Verdict
from rig.records import controls
from rig.records.controls import Control
from rig.records.prefixes import Built, PrefixRun
from rig.records.subjects import PATCHES, Subject, prefix_of
from rig.runs import rundir
from rig.runs.results import Run, from_json, read_results, to_json
from rig.settings.config import Trials
from rig.store import write_atomically
from rig.verdicts import verdict

FILE = "verdicts.json"
SCHEMA_VERSION = 1
R = TypeVar("R", "RunFacts", PrefixRun)
LINE = 120  # columns of verdicts.json, so that a change of one fact is a change of one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How the trials of one cell on one side ended."""

    cell: str
    side: Side
    statuses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One trial that accused its kernel."""

    cell: str
    side: Side
    seed: int
    status: Status
    findings: tuple[int, ...]  # positions in the findings of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the verdict of one run says about one signature."""

    signature: str
    kind: str
    title: str
    judgement: Judgement
    base: Tally
    patched: Tally
    p_value: float
    cells: tuple[str, ...]
    reproduce: str  # the example's command line, in a clone of this project


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is kept of one run."""

    id: str
    started: str
    rig_version: str
    base: str  # source and version
    base_tree: str
    accelerator: str
    qemu: str
    compiler: str
    cpus: int  # of the host
    flavours: tuple[tuple[str, tuple[str, ...]], ...]  # that were built, with their fragments
    prefixes: str  # which kernels: ends or all
    patches: int  # that applied: all of them
    warnings: tuple[str, ...]  # new ones, of the compiler
    budget: float  # seconds of workload time per trial
    seeds: tuple[int, ...]
    judgement: Judgement
    trials: tuple[Count, ...]
    findings: tuple[Found, ...]
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """All that is recorded of one series."""

    key: str
    runs: tuple[RunFacts, ...]  # by their ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is recorded."""

    series: Mapping[str, Entry]  # and controls, by name
    prefixes: Mapping[str, tuple[PrefixRun, ...]]  # of series, by key; runs of whole series are in their entries

    def of_prefix(self, key: str) -> tuple[PrefixRun, ...]:
        """Return the runs of exactly these patches; they may be a whole series as well."""
        whole = (as_prefix(run) for entry in self.series.values() if entry.key == key for run in entry.runs)
        return (*self.prefixes.get(key, ()), *whole)


EMPTY = Record(series={}, prefixes={})


# -- what was tested --------------------------------------------------------------------------------------------------


def results_file(place: Path) -> Path:
    """Return the results of a run that is named by its folder or by the file; raises ConfigError if there are none."""
    path = place / rundir.RESULTS if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(
            f"{path}: not there, so nothing is recorded",
            hint="the run was cut off, or its patches do not apply; `rig test` says which",
        )
    return path


def key_of(path: Path, run: Run) -> str:
    """Return the key of the series that a run tested; older results have it in the plan beside them."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return run.series.key or str(json.loads((path.parent / rundir.PLAN).read_text())["series"])
    return ""


def tested(key: str, run: Run, known: Sequence[Subject]) -> Subject:
    """Return the series of patches/ that a run tested; raises ConfigError when its bytes are those of none."""
    if (subject := next((one for one in known if one.key == key), None)) is not None:
        return subject
    last = run.series.path.split(", ")[-1].rstrip("/")
    folder = last.rpartition("/")[0] if last.endswith(".patch") else last
    meant = next((one for one in known if f"/{folder}".endswith(f"/{one.origins[-1]}")), None)
    if meant is not None:
        raise ConfigError(
            f"run {run.id} tested other patches than {PATCHES}/{meant.name} holds now, so nothing is recorded",
            hint=f"run it again: ci/judge-patches {meant.name}",
        )
    raise ConfigError(f"run {run.id} tested {run.series.name}, which is no series of {PATCHES}/")


# -- condensing -------------------------------------------------------------------------------------------------------


def condense(run: Run, origins: Sequence[str], default: Mapping[str, Any]) -> RunFacts:
    """Return what is kept of a run of the series `origins`; `default` is the configuration that a clone comes with.

    Raises ConfigError for a run in which a kernel did not build, as there is nothing to judge then, and for one that
    decided by what it saw how often to look: what is recorded is judged by the test for one look.
    """
    if not run.kernels:
        raise ConfigError(
            f"run {run.id} has no kernels, so nothing is recorded: {run.verdict.sentence}",
            hint="every patch of a series in patches/ builds",
        )
    if (planned := Trials.model_validate(run.config.get("trials", 1))).max > planned.min:
        raise ConfigError(
            f"run {run.id} went on where it was in doubt, and is not recorded: added up, it would say too much",
            hint="run it with a fixed number of trials: trials=2",
        )
    judged = verdict.fold(run.trials)  # by today's rules, as all that is recorded is
    positions = {found.signature: number for number, found in enumerate(judged.findings)}
    commands = {trial.evidence: _reproduce(run, trial, origins, default) for trial in run.trials}
    flavours = run.config.get("flavours", {})
    facts = RunFacts(
        id=run.id,
        started=run.started,
        rig_version=run.rig_version,
        base=run.base.source,
        base_tree=run.base.tree,
        accelerator=run.host.accelerator,
        qemu=run.host.qemu,
        compiler=run.host.compiler,
        cpus=run.host.cpus,
        flavours=tuple((name, tuple(flavours.get(name, ()))) for name in sorted({one.flavour for one in run.kernels})),
        prefixes=str(run.config.get("prefixes", "ends")),
        patches=len(run.series.patches),
        warnings=tuple(sorted({f"{kernel.flavour}: {text}" for kernel in run.kernels for text in kernel.warnings})),
        budget=float(run.config.get("budget", 0)),
        seeds=tuple(sorted({trial.seed for trial in run.trials})),
        judgement=judged.judgement,
        trials=_counts(run.trials),
        findings=tuple(
            Found(
                signature=found.signature,
                kind=found.kind,
                title=found.title,
                judgement=found.judgement,
                base=found.base,
                patched=found.patched,
                p_value=found.p_value,
                cells=found.cells,
                reproduce=commands.get(found.example, ""),
            )
            for found in judged.findings
        ),
        sightings=tuple(
            Sighting(cell=trial.cell.id, side=trial.side, seed=trial.seed, status=trial.status, findings=seen)
            for trial in run.trials
            if verdict.counts(trial) and (seen := tuple(positions[one.signature] for one in verdict.causes(trial)))
        ),
    )
    return from_json(RunFacts, _portable(to_json(facts)))


def _counts(trials: Iterable[TrialResult]) -> tuple[Count, ...]:
    counted: dict[tuple[str, Side], Counter[str]] = {}
    for trial in trials:
        counted.setdefault((trial.cell.id, trial.side), Counter())[trial.status.value] += 1
    return tuple(
        Count(cell=cell, side=side, statuses=tuple(sorted(statuses.items())))
        for (cell, side), statuses in sorted(counted.items())
    )


def _reproduce(run: Run, trial: TrialResult, origins: Sequence[str], default: Mapping[str, Any]) -> str:
    """Return the command line that runs a trial and its twin on the other side in a clone of the project.

    What the run had otherwise than `default` is in it, and `matrix={}`, as the matrix may leave out this cell one day.
    """
    cell = trial.cell
    words = [controls.series_word(origins), "matrix={}", f"select={cell.id}", f"seed={trial.seed}", "trials=1"]
    words.append(f"budget={run.config.get('budget', 10):g}")
    for group, name in (
        ("kernel", "source"),
        ("flavours", cell.flavour),
        ("machines", cell.machine),
        ("workloads", cell.workload),
        ("perturb", "jitter"),
        ("perturb", "interval_ms"),
        ("perturb", "length_ms"),
    ):
        ours = run.config.get(group, {}).get(name)
        if ours is not None and ours != default.get(group, {}).get(name):
            words.append(f"{group}.{name}={ours if isinstance(ours, str) else controls.flow(ours)}")
    return shlex.join(["rig", "test", *words])


#: An absolute path and its last part; not the // of a URL, not a cell, not a path below some folder.
_ABSOLUTE = re.compile(r"""(?<![\w./~-])/(?!/)(?:[^\s/'"`(),\]]+/)*([^\s/'"`(),\]]+)""")


def _portable(value: Any) -> Any:
    """Return JSON with every absolute path cut down to its last part: a host's folders are nobody else's business."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"\1", value)
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    return [_portable(item) for item in value] if isinstance(value, list) else value


def as_prefix(facts: RunFacts) -> PrefixRun:
    """Return what a run says of its patches as a prefix."""
    return PrefixRun(
        id=facts.id,
        started=facts.started,
        base_tree=facts.base_tree,
        accelerator=facts.accelerator,
        builds=tuple(
            Built(
                flavour=name,
                fragments=fragments,
                warnings=tuple(
                    text.removeprefix(f"{name}: ") for text in facts.warnings if text.startswith(f"{name}: ")
                ),
            )
            for name, fragments in facts.flavours
        ),
        trials=tuple((count.cell, count.statuses) for count in facts.trials if count.side is Side.PATCHED),
    )


def merge(entry: Entry | None, key: str, facts: RunFacts) -> Entry:
    """Return `entry` with one more run; the same run again takes the place of what was known of it."""
    return Entry(key=key, runs=_with(entry.runs if entry is not None and entry.key == key else (), facts))


def _with(known: Iterable[R], run: R) -> tuple[R, ...]:
    by_id = {one.id: one for one in known} | {run.id: run}
    return tuple(by_id[name] for name in sorted(by_id))


# -- folding ----------------------------------------------------------------------------------------------------------


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


# -- the file ---------------------------------------------------------------------------------------------------------


def read(root: Path) -> Record:
    """Return what is recorded; nothing if there is no file yet.

    Raises HostError when the file is not what `write` makes.
    """
    path = root / PATCHES / FILE
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"expected schema version {SCHEMA_VERSION}")
        return Record(
            series={str(name): from_json(Entry, entry) for name, entry in data["series"].items()},
            prefixes={
                str(key): tuple(from_json(PrefixRun, run) for run in found)
                for key, found in data.get("prefixes", {}).items()
            },
        )
    except FileNotFoundError:
        return EMPTY
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise HostError(
            f"{PATCHES}/{FILE} cannot be read: {error}", hint="take it back from git, then record the runs again"
        ) from None


def write(root: Path, record: Record) -> None:
    """Publish what is recorded."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "series": {name: to_json(entry) for name, entry in sorted(record.series.items())},
        "prefixes": {key: to_json(found) for key, found in sorted(record.prefixes.items())},
    }
    write_atomically(root / PATCHES / FILE, laid_out(data) + "\n")


def laid_out(value: Any, depth: int = 0) -> str:
    """Return JSON in which what fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=True, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(flat) + depth <= LINE:
        return flat
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {laid_out(item, depth + 1)}" for key, item in value.items()]
    else:
        lines = [pad + laid_out(item, depth + 1) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return start + "\n" + ",\n".join(lines) + f"\n{' ' * depth}{end}"


def stale(entries: Mapping[str, Entry], known: Sequence[Subject]) -> tuple[str, ...]:
    """Return the names under which other bytes are recorded than the files hold, or that have no files any more."""
    keys = {subject.name: subject.key for subject in known}
    return tuple(name for name in sorted(entries) if keys.get(name) != entries[name].key)


def stale_prefixes(record: Record, known: Sequence[Subject]) -> tuple[str, ...]:
    """Return the keys of prefixes that no series has any more."""
    return tuple(key for key in sorted(record.prefixes) if prefix_of(key, known) is None)


def add(root: Path, places: Sequence[Path], known: Sequence[Subject], default: Mapping[str, Any]) -> tuple[str, ...]:
    """Record the runs at `places`, drop what is stale, write the file, and return what was done in words.

    Raises ConfigError or HostError for a run that cannot be recorded; then nothing is written.
    """
    with _locked(root / PATCHES):
        record, said = read(root), []
        entries, prefixes = dict(record.series), dict(record.prefixes)
        for name in stale(entries, known):
            del entries[name]
            said.append(f"{PATCHES}/{name}: its patches are not what was recorded; dropped")
        if gone := stale_prefixes(record, known):
            prefixes = {key: kept for key, kept in prefixes.items() if key not in gone}
            said.append(f"{PATCHES}: {len(gone)} prefix{'es' * (len(gone) != 1)} that no series has any more; dropped")
        whole = {subject.key for subject in known}
        for place in places:
            path = results_file(place)
            run = read_results(path)
            key = key_of(path, run)
            if key not in whole and (found := prefix_of(key, known)):
                subject, number = found
                prefixes[key] = _with(prefixes.get(key, ()), as_prefix(condense(run, subject.files[:number], default)))
                said.append(f"{PATCHES}/{subject.name}: {run.verdict.judgement} recorded of its prefix {number}")
                continue
            subject = tested(key, run, known)
            facts = condense(run, subject.origins, default)
            entries[subject.name] = merge(entries.get(subject.name), subject.key, facts)
            count = len(entries[subject.name].runs)
            said.append(f"{PATCHES}/{subject.name}: {run.verdict.judgement} recorded ({count} run{'s' * (count != 1)})")
        if said:
            write(root, Record(series=entries, prefixes=prefixes))
    return tuple(said)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against others that record at the same time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
