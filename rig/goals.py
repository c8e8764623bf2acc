"""The goals: apply, build, test, report. Each does what is not up to date, and says so."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rig import __version__
from rig.errors import HostError
from rig.front.ui import Ui
from rig.kernels.build import BrokenSeries
from rig.model import Judgement, Kernel, Side, Status
from rig.pipeline import Options, Pipeline
from rig.reports import github, reporting
from rig.runs import evidence, results, rundir
from rig.runs.campaign import Campaign
from rig.runs.results import Run
from rig.settings.config import Config, Trials
from rig.verdicts import expectations, statistics
from rig.verdicts.questions import rules_of

PASSED, FAILED, UNDECIDED = 0, 1, 4
EXIT_CODES = {
    Judgement.CLEAN: PASSED,
    Judgement.FIXED: PASSED,
    Judgement.KNOWN: PASSED,
    Judgement.REGRESSION: FAILED,
    Judgement.INCONCLUSIVE: UNDECIDED,
}


def run(goals: Sequence[str], config: Config, options: Options, ui: Ui, *, as_json: bool = False) -> int:
    """Reach the goals in the order of the data flow and return the exit code."""
    pipeline = Pipeline(config, options, ui)
    _ = pipeline.known  # an entry that is not right is told before anything is built
    try:
        if options.dry_run:
            return _dry_run(pipeline, goals)
        if "apply" in goals:
            with ui.section("apply", "Apply the series"):
                _ = pipeline.applied
        if "build" in goals:
            build(pipeline)
        code = PASSED
        if "test" in goals:
            done = test(pipeline)
            code = finish(done, config.results / done.id, ui, as_json=as_json)
        elif "report" in goals:
            code = report(rundir.latest(config.results), ui, config.known_issues, as_json=as_json)
        return code
    finally:
        ui.settle()


def build(pipeline: Pipeline) -> Mapping[tuple[str, Side], Kernel]:
    """Return the kernels. Raises BrokenSeries, with the reports of a failed run written, when a patch breaks them."""
    with pipeline.ui.section("build", "Build the kernels"):
        try:
            return pipeline.kernels
        except BrokenSeries as error:
            _tell_github(reporting.broken_build(pipeline, error))
            raise


def finish(done: Run, folder: Path, ui: Ui, *, as_json: bool) -> int:
    """Say what came out of a run, whose reports are in `folder`, and return the exit code."""
    ui.settle()
    if as_json:
        json.dump(results.to_json(done), sys.stdout, indent=1)
        print()
    else:
        ui.verdict(done, Path(ui.path(folder)))
        ui.tell(f"\nresults: {ui.path(folder)}/ ({', '.join(reporting.FILES)})")
    _tell_github(done)
    return exit_code(done)


def _tell_github(done: Run) -> None:
    for line in github.tell(done, os.environ):
        print(line, file=sys.stderr)


def exit_code(done: Run) -> int:
    """Return the exit code of a run, by the table of `rig --help`."""
    code = EXIT_CODES[done.verdict.judgement]
    lost = sum(one.status is Status.LOST for one in done.trials)
    return HostError.exit_code if code == UNDECIDED and lost == len(done.trials) else code


def _dry_run(pipeline: Pipeline, goals: Sequence[str]) -> int:
    """Say what would be done. Applying is half a second's work in the store and is done for real."""
    applied, ui = pipeline.applied, pipeline.ui
    if {"build", "test"} & set(goals):
        for prefix in (0, len(applied.series.patches)):
            for flavour in pipeline.flavours:
                known = not pipeline.options.always and pipeline.builder.up_to_date(prefix, flavour)
                ui.stage(
                    "build",
                    f"{flavour.name} {'base' if prefix == 0 else f'base+{prefix}'}"
                    + (" (up to date)" if known else " (would build)"),
                )
    if "test" in goals:
        config = pipeline.config
        ui.stage(
            "test",
            f"would run {_how_many(pipeline)} trials of {len(pipeline.cells)} cells on {' and '.join(config.sides)}, "
            f"{config.budget:g} s each",
        )
        ui.stage("test", _how_sure(pipeline))
    return PASSED


def _how_many(pipeline: Pipeline) -> str:
    """Return how many trials a run comes to: at least, and at most where something is in doubt."""
    sides, trials = len(pipeline.config.sides), pipeline.trials
    least = sum(trials.values()) * sides
    most = len(trials) * pipeline.config.trials.max * sides
    return f"{least} to {most}" if _adaptive(pipeline) else str(least)


def _adaptive(pipeline: Pipeline) -> bool:
    trials = pipeline.config.trials
    return trials.max > trials.min and len(pipeline.config.sides) == len(Side)


def _how_sure(pipeline: Pipeline) -> str:
    """Return what it takes that a single finding is a regression."""
    trials, many = pipeline.config.trials, sum(pipeline.trials.values())
    if len(pipeline.config.sides) < len(Side):
        return "one side alone is compared with nothing: whatever is found stays INCONCLUSIVE"
    percent = f"{100 * trials.confidence:g} %"
    if _adaptive(pipeline):
        pairs = statistics.pairs_needed(trials.confidence)
        what = f"in {pairs} pairs of trials"
    elif (failures := statistics.failures_needed(many, trials.confidence)) is not None:
        what = f"in {failures} of {many} trials"
    else:
        return f"no number of failures in {many} trial{'s' * (many != 1)} excludes luck at {percent}"
    return f"a single finding is a regression when the patched kernel alone shows it {what} ({percent} confidence)"


# -- test -------------------------------------------------------------------------------------------------------------


def test(pipeline: Pipeline) -> Run:
    """Run all trials and return the run, whose reports are written. Raises HostError when the host cannot run any."""
    try:
        with pipeline.ui.section("build", "Apply the series and build the kernels"):
            kernels = pipeline.kernels
    except BrokenSeries as error:
        pipeline.ui.say(str(error))
        return reporting.broken_build(pipeline, error)
    wanted = plan(pipeline, kernels)
    with rundir.open_run(
        pipeline.config.results, pipeline.applied.series, wanted, resume=not pipeline.options.always
    ) as folder:
        try:
            with pipeline.ui.section("trials", "Run the trials"):
                trials, accelerator = Campaign(pipeline, kernels, folder).run()
            done = reporting.collect(pipeline, folder, kernels, accelerator, trials)
            removed = evidence.bound(folder.path, done.trials, pipeline.config.evidence)
            if removed.size:
                pipeline.ui.stage("test", str(removed))
            reporting.write(folder.path, done)
        finally:
            rundir.remove_secrets(folder.path)
    for gone in pipeline.store.evict(pipeline.config.store_limit_mib * 2**20):
        pipeline.ui.stage("store", f"evicted {gone} (store_limit)")
    return done


#: Keys of the configuration that make no difference to a trial.
_BESIDE = {"results", "store", "store_limit_mib", "evidence", "parts"}


def plan(pipeline: Pipeline, kernels: Mapping[tuple[str, Side], Kernel]) -> dict[str, Any]:
    """Return all that the outcome of the trials depends on: a run with an equal plan may be resumed."""
    config = pipeline.config
    return {
        "config": config.model_dump(mode="json", exclude=_BESIDE),
        "series": pipeline.applied.series.key,
        "kernels": {f"{flavour} {side}": kernel.key for (flavour, side), kernel in kernels.items()},
        "image": pipeline.base_image.parent.name,
        "cells": [cell.id for cell in pipeline.cells],
        "store": str(config.store),
        "rig": __version__,
    }


def report(path: Path, ui: Ui, known_issues: Path | None = None, *, as_json: bool = False) -> int:
    """Write all reports of the run in the folder `path` anew; returns the exit code of its verdict.

    Raises HostError when the run was interrupted, and ConfigError when the known issues cannot be read.
    """
    if not (path / rundir.RESULTS).exists():
        raise HostError(f"{path.name} was interrupted and has no results yet", hint="`rig test` resumes it")
    done = results.read_results(path / rundir.RESULTS)
    # By the rules of the run, whatever rig.yaml says now; but by the known issues of today, as of the day of the run.
    known = expectations.read(known_issues, datetime.fromisoformat(done.started).date())
    rules = rules_of(Trials.model_validate(done.config.get("trials", 1)), known, done.kernels)
    verdict = reporting.fold(done.trials, done.kernels, rules)
    done = replace(done, verdict=verdict, schema_version=results.SCHEMA_VERSION)
    ui.stage("report", f"{path.name}: {', '.join(reporting.FILES)}")
    reporting.write(path, done)
    return finish(done, path, ui, as_json=as_json)
