"""From trials to the files of a run: everything is folded into one Run, and every report is made from that."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rig import __version__
from rig.clock import now
from rig.kernels.build import BrokenSeries
from rig.machines import qemu
from rig.machines.accel import Accelerator
from rig.model import CaseResult, Cell, Finding, Kernel, Side, Status, Timing, TrialResult, Verdict
from rig.pipeline import Pipeline
from rig.reports import junit, sourcelines, summary
from rig.runs import results, rundir
from rig.runs.results import Base, Host, Patch, Run, SeriesInfo
from rig.runs.rundir import RunFolder
from rig.store import write_atomically
from rig.trees.series import Applied
from rig.trials.signature import signature
from rig.verdicts import verdict
from rig.verdicts.questions import Rules

#: What `write` leaves in a run's folder.
FILES = ("report.html", "junit.xml", "results.json", "summary.md", "summary.txt")

#: For a run in which nothing was booted.
NO_ACCELERATOR = Accelerator(name="none", reason="nothing was booted")


def fold(trials: Sequence[TrialResult], kernels: Sequence[Kernel], rules: Rules) -> Verdict:
    """Return the verdict over the trials, with what the compiler said of the series among its notes."""
    folded = verdict.fold(trials, rules)
    warnings = sorted({f"new warning ({kernel.flavour}): {text}" for kernel in kernels for text in kernel.warnings})
    return replace(folded, notes=(*folded.notes, *warnings))


def collect(
    pipeline: Pipeline,
    folder: RunFolder,
    kernels: Mapping[tuple[str, Side], Kernel],
    accelerator: Accelerator,
    trials: Sequence[TrialResult],
) -> Run:
    """Fold the trials and return all that is known of the run."""
    applied = pipeline.applied
    ordered = sorted(trials, key=lambda one: (one.cell.id, one.index, one.side))
    judged = fold(ordered, tuple(kernels.values()), pipeline.rules(kernels.values()))
    with pipeline.ledger.time("lines"):
        say = partial(pipeline.ui.stage, "report")
        told = sourcelines.with_lines(ordered, judged, kernels, pipeline.store, applied.base.commit, say)
    return Run(
        id=folder.id,
        started=folder.started,
        finished=now().isoformat(timespec="seconds"),
        rig_version=__version__,
        complete=True,
        host=_host(accelerator, pipeline.builder.compiler),
        base=Base(
            source=f"{applied.base.source} ({applied.base.version})", commit=applied.base.commit, tree=applied.base.tree
        ),
        series=_series_info(pipeline),
        kernels=tuple(kernels.values()),
        config=pipeline.config.model_dump(mode="json"),
        trials=told,
        verdict=judged,
        stages=tuple(pipeline.ledger.stages),
        overrides=pipeline.options.overrides,
    )


def _series_info(pipeline: Pipeline) -> SeriesInfo:
    series = pipeline.applied.series
    patches = tuple(
        Patch(number=prefix.number, subject=prefix.subject, commit=prefix.commit, tree=prefix.tree, functions=functions)
        for prefix, functions in zip(pipeline.applied.prefixes[1:], pipeline.touched_by_each, strict=True)
    )
    return SeriesInfo(name=series.name, path=", ".join(pipeline.config.series), patches=patches, key=series.key)


def _host(accelerator: Accelerator, compiler: str) -> Host:
    return Host(
        kernel=platform.release(),
        cpus=len(os.sched_getaffinity(0)),
        memory_kib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024,
        accelerator=accelerator.name,
        accelerator_reason=accelerator.reason,
        qemu=qemu.version() if accelerator is not NO_ACCELERATOR else "not run",
        compiler=compiler,
    )


def write(path: Path, done: Run) -> None:
    """Write all reports below the run's folder `path`; results.json last, as it marks the run as complete."""
    from rig.reports import html  # and jinja2: not before the first machine has started

    junit.write_junit(path / "junit.xml", done, path)
    html.write_html(path / "report.html", done, path)
    write_atomically(path / "summary.txt", summary.text(done))
    write_atomically(path / "summary.md", summary.markdown(done))
    results.write_results(path / rundir.RESULTS, done)


def broken_build(pipeline: Pipeline, error: BrokenSeries) -> Run:
    """Return a run that says which patch breaks the build: a regression, with the same reports as any other."""
    failure, applied = error.failure, pipeline.applied
    plan = {
        "config": pipeline.config.model_dump(mode="json"),
        "series": applied.series.key,
        "broken": failure.prefix.commit,
    }
    with rundir.open_run(pipeline.config.results, applied.series, plan, resume=False) as folder:
        cell = Cell(flavour=failure.flavour, machine="host", workload="build", filesystem="none")
        trials = (
            _build_trial(folder, cell, Side.BASE, applied, None, error),
            _build_trial(folder, cell, Side.PATCHED, applied, failure.log, error),
        )
        done = collect(pipeline, folder, {}, NO_ACCELERATOR, trials)
        write(folder.path, done)
        return done


def _build_trial(
    folder: RunFolder, cell: Cell, side: Side, applied: Applied, log: Path | None, error: BrokenSeries
) -> TrialResult:
    place = Path("trials") / side / cell.id / "0"
    (folder.path / place).mkdir(parents=True, exist_ok=True)
    findings: tuple[Finding, ...] = ()
    if log is not None:
        shutil.copyfile(log, folder.path / place / "console.log")
        heading = f"patch {error.failure.prefix.number} breaks the {cell.flavour} build"
        text = "\n".join((error.summary, *error.failure.errors))
        findings = (
            Finding(
                oracle="build",
                kind="build",
                title=heading,
                signature=signature("build", error.failure.errors[0]),
                text=text,
            ),
        )
    status = Status.FAIL if log is not None else Status.PASS
    prefix = error.failure.prefix.number if log is not None else 0
    result = TrialResult(
        cell=cell,
        side=side,
        prefix=prefix,
        tree=applied.prefixes[prefix].tree,
        index=0,
        seed=0,
        status=status,
        reason=error.summary if log is not None else "the base builds",
        accelerator="none",
        started=now().isoformat(timespec="seconds"),
        evidence=str(place),
        cases=(
            CaseResult(name="build", status=status, reason=error.summary if log is not None else "", findings=findings),
        ),
        findings=findings,
        timing=Timing(),
    )
    results.write_trial(folder.path / place, result)
    return result
