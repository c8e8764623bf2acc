"""`rig test --bisect`: one tree, judged as `git bisect run` wants it.

0     good: the finding was not seen in any trial
1     bad: it was
125   cannot be judged: does not build, does not boot for another reason, or no trial says anything
128   the host or the command line is not right: git stops, and nothing is taken for good or bad
130   interrupted, as git's own
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

from rig import goals
from rig.bisection import quarry
from rig.errors import BuildError, SeriesError
from rig.front.ui import Ui
from rig.kernels.build import BrokenBase
from rig.model import Side, Status, TrialResult
from rig.pipeline import Options, Pipeline
from rig.settings.config import Config
from rig.verdicts.verdict import causes

GOOD, BAD, SKIP, ABORT, INTERRUPTED = 0, 1, 125, 128, 130


def guarded(main: Callable[[], int]) -> int:
    """Return the exit code of `main`, which must not take a broken host, a mistyped word or a bug for an answer."""
    try:
        code = main()
    except SystemExit as end:
        code = ABORT if end.code else 0
    except Exception:
        traceback.print_exc()
        code = ABORT
    return code if code in (GOOD, BAD, SKIP, INTERRUPTED) else ABORT


def run(config: Config, options: Options, ui: Ui) -> int:
    """Build and try the tree, and return the exit code."""
    side = Side(config.sides[0])
    pipeline = Pipeline(config, options, ui)
    try:
        kernels = pipeline.kernels
        done = goals.test(pipeline)
    except (BrokenBase, BuildError, SeriesError) as error:
        ui.say(f"  SKIP    {error.summary}")
        return SKIP
    finally:
        ui.settle()
    code, why = judge([trial for trial in done.trials if trial.side is side], config.bisect.signature)
    commit = next(iter(kernels.values())).commit[:12]
    print(f"{ {GOOD: 'good', BAD: 'bad', SKIP: 'skip'}[code] }: {commit}: {why}")
    print(f"results: {ui.path(config.results / done.id)}/")
    return code


def judge(trials: Sequence[TrialResult], signature: Sequence[str]) -> tuple[int, str]:
    """Return the exit code and why, for the trials of one tree; `signature` are globs over what is looked for."""
    for trial in trials:
        found = causes(trial) if trial.status.bad else ()
        wanted = [cause for cause in found if quarry.matches(cause, signature or ("*",))]
        # Without a signature any finding is meant, but not a kernel that never came to the workload.
        if wanted and (signature or trial.guest is not None):
            return BAD, wanted[0].title
    passed = sum(trial.status is Status.PASS for trial in trials)
    if passed:
        return GOOD, f"nothing in {passed} trial{'s' * (passed != 1)}"
    first = f": {trials[0].reason}" if trials else ""
    return SKIP, f"no trial says anything{first}"
