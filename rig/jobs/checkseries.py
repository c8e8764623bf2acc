"""`rig check-series`: test a series unless a finished run of just this is there, and say it to b4 if asked.

b4 starts the commands of b4.review-series-check-cmd and b4.review-perpatch-check-cmd in the kernel's tree, with the
cover letter or one patch on standard input, and reads a JSON array of `tool`, `status` (pass, warn or fail), `summary`,
`url` and `details` from standard output. The series is what `series=` names, or the one that the mail belongs to: in
the branch that b4 put it on, as B4_TRACKING_FILE says, or in the lists' archive.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rig import goals
from rig.errors import BuildError, ConfigError, RigError, SeriesError
from rig.front.ui import Ui
from rig.jobs import ci
from rig.model import Judgement, Side
from rig.pipeline import Options, Pipeline
from rig.reports import summary
from rig.runs import results, rundir
from rig.runs.results import Run
from rig.settings.config import Config
from rig.trees.series import Series

TOOL = "rig"
LARGEST_MAIL = 16 << 20  # bytes
LARGEST_TRACKING = 64 << 20
DETAILS = 20_000  # characters

#: What a verdict is to a reviewer. Nothing conclusive, or a bug that the base has, is worth a look and nobody's fault.
STATUS = {
    Judgement.CLEAN: "pass",
    Judgement.FIXED: "pass",
    Judgement.KNOWN: "warn",
    Judgement.INCONCLUSIVE: "warn",
    Judgement.REGRESSION: "fail",
}

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_CHANGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def run(config: Config, options: Options, ui: Ui, *, b4: bool, named: bool, as_json: bool) -> int:
    """Test the series, or take the run that is there, and return the exit code of the documented table.

    Without `named` the series of the configuration is for other purposes, and a mail's own is meant.
    """
    if not b4:
        done, _ = _done(config, options, ui)
        return goals.finish(done, config.results / done.id, ui, as_json=as_json)
    if sys.stdin.isatty():
        raise ConfigError("check-series --b4 reads a mail on standard input", hint="see `b4.review-series-check-cmd`")
    mail = email.message_from_bytes(sys.stdin.buffer.read(LARGEST_MAIL), policy=email.policy.default)
    message_id = str(mail.get("Message-ID", "")).strip().strip("<>")
    number = patch_number(str(mail.get("Subject", "")))
    try:
        if not named:
            config = config.model_copy(update={"series": (origin_of(message_id),)})
        done, series = _done(config, options, ui)
        answer, code = of_run(done, number, len(series.patches), config.results / done.id), goals.exit_code(done)
    except RigError as error:
        answer, code = of_error(error), error.exit_code
    print(json.dumps(answer, indent=1))
    return code


def patch_number(subject: str) -> int:
    """Return which patch of its series a mail is by its subject, 0 for a cover letter; 1 when it stands alone."""
    match = re.match(r"\s*(?:\[[^\]]*?\b(\d{1,4})/\d{1,4}\b[^\]]*\]|\[[^\]]*\])", subject)
    return int(match[1]) if match and match[1] else 1


def origin_of(message_id: str, environment: Mapping[str, str] = os.environ, tree: Path | None = None) -> str:
    """Return the origin of the series that a message belongs to; raises ConfigError when nothing says it."""
    if (span := _tracked(environment)) is not None:
        return f"git:{tree or Path.cwd()}#{span}"
    if not message_id:
        raise ConfigError("the mail has no Message-ID, and nothing else says which series it is of", hint="series=…")
    return f"lore:{message_id}"


def _tracked(environment: Mapping[str, str]) -> str | None:
    """Return the range of commits that b4 keeps the series in, as its tracking data says."""
    file = environment.get("B4_TRACKING_FILE")
    try:
        if not file or Path(file).stat().st_size > LARGEST_TRACKING:
            return None
        known: Any = json.loads(Path(file).read_bytes())
        first, change = known["series"]["first-patch-commit"], known["series"]["change-id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (
        isinstance(first, str) and _COMMIT.fullmatch(first) and isinstance(change, str) and _CHANGE.fullmatch(change)
    ):
        return None
    return f"{first}~1..b4/review/{change}~1"  # the commit at the tip is b4's own


def _done(config: Config, options: Options, ui: Ui) -> tuple[Run, Series]:
    """Return a finished and conclusive run of exactly this, which is made when there is none, and the series."""
    pipeline = Pipeline(config, options, ui)
    series = pipeline.applied.series
    if not options.always and (known := _known(pipeline)) is not None:
        ui.stage("check", f"{known.id} has it")
        return known, series
    return goals.test(pipeline), series


def _known(pipeline: Pipeline) -> Run | None:
    try:
        folder = rundir.finished(pipeline.config.results, goals.plan(pipeline, pipeline.kernels))
    except BuildError:
        return None  # goals.test() makes the reports of that
    done = results.read_results(folder / rundir.RESULTS) if folder else None
    return done if done and goals.exit_code(done) in (goals.PASSED, goals.FAILED) else None


# -- what b4 is told --------------------------------------------------------------------------------------------------


def of_run(done: Run, number: int, count: int, root: Path) -> list[dict[str, str]]:
    """Return what to say about a mail: all of it below the cover letter (0), below patch `number` what it alone did.

    A series of one patch has no cover letter. An empty list means that there is nothing to say.
    """
    if number and count > 1:
        return _of_patch(done, number)
    return [
        _entry(
            STATUS[done.verdict.judgement],
            f"{done.verdict.judgement}: {done.verdict.sentence}",
            summary.text(done, root),
        )
    ]


def _of_patch(done: Run, number: int) -> list[dict[str, str]]:
    broken = [
        finding
        for trial in done.trials
        if trial.side is Side.PATCHED and trial.prefix == number
        for finding in trial.findings
        if finding.oracle == "build"
    ]
    return [_entry("fail", finding.title, finding.text) for finding in broken]


def of_error(error: RigError) -> list[dict[str, str]]:
    """Return what to say when there is no run: only a series that cannot be tested fails for it."""
    blamed = isinstance(error, (SeriesError, BuildError))
    return [
        _entry("fail" if blamed else "warn", error.summary if blamed else f"not tested: {error.summary}", str(error))
    ]


def _entry(status: str, text: str, details: str) -> dict[str, str]:
    return {
        "tool": TOOL,
        "status": status,
        "summary": " ".join(text.split()),
        "url": ci.job_url(),
        "details": details[:DETAILS],
    }
