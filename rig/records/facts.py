"""What is kept of one run of a series or control of patches/: condensed, and the same on every host."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rig.errors import ConfigError
from rig.model import Judgement, Side, Status, Tally, TrialResult
from rig.records import controls
from rig.records.prefixes import Built, PrefixRun
from rig.runs.results import Run, from_json, to_json
from rig.settings.config import Trials
from rig.verdicts import verdict


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
