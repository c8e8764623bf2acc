"""How to see a finding again: from the evidence of the run, or with nothing but the series.

The commands name nothing of this host: evidence relative to where the rig works, a series by what it is called.
"""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path, PurePath

from rig.model import TrialResult
from rig.runs.results import Run
from rig.settings.reading import ALIASES

#: Keys that the command says itself, and those that concern this host and this run only.
_OWN = {"series", "select", "matrix", "seed", "trials", "elsewhere", "budget", "sides", "prefixes"}
_HERE = {"results", "store", "store_limit", "selfcheck", "part", "parts", "from", "evidence", "known_issues"}

SURE = 0.95  # the chance to see it once more that `trials=` is meant for
MOST = 50  # trials that are worth suggesting


def near(path: Path) -> Path:
    """Return `path` relative to where the rig works: what GitLab wants of an attachment, and a person can type."""
    return Path(os.path.relpath(path.resolve()))


def rerun(evidence: str, root: Path | None = None) -> str:
    """Return the command that runs the trial in the folder `evidence` of the run in `root` again."""
    return f"rig rerun {shlex.quote(str(root / evidence if root else evidence))}"


def anywhere(run: Run, trial: TrialResult) -> str:
    """Return the command that tests the cell of a trial from its seed, on whatever host has the series.

    It asks for as many trials as are likely to show it once more, by how often the cell failed in this run.
    """
    words = [
        f"series={_series(run.series.path) or run.series.name}",
        *(word for word in run.overrides if _key(word) not in _OWN | _HERE),
        f"select={trial.cell.id}",
        "matrix={}",  # whatever the matrix left out, this cell was in it
        f"seed={trial.seed}",
        f"trials={_enough(run, trial)}",
    ]
    if isinstance(budget := run.config.get("budget"), (int, float)):
        words.append(f"budget={budget:g}")
    return shlex.join(["rig", "test", *words])


def _key(override: str) -> str:
    word = override.partition("=")[0].split(".")[0].strip()
    return ALIASES.get(word, word)


def _series(path: str) -> str:
    """The paths of a series, a stack as a list; those outside of where the rig works by their names alone."""
    parts = [_short(part) for part in path.split(", ") if part]
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]" if parts else ""


def _short(part: str) -> str:
    path = PurePath(part)
    if not path.is_absolute():
        return part
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _enough(run: Run, trial: TrialResult) -> int:
    same = [one for one in run.trials if one.cell == trial.cell and one.side is trial.side]
    return trials_to_see(sum(one.status.bad for one in same), len(same))


def trials_to_see(failures: int, trials: int) -> int:
    """Return how many trials show with SURE what failed in `failures` of `trials`: the n with (1-p)^n = 1-SURE.

    At least 1 and at most MOST. The rate is taken as (failures + 1) / (trials + 2), Laplace's rule of succession, as
    few trials say little.
    """
    rate = (failures + 1) / (trials + 2)
    return min(MOST, max(1, math.ceil(math.log(1 - SURE) / math.log(1 - rate))))


def example(run: Run, evidence: str) -> TrialResult | None:
    """Return the trial whose evidence is in that folder."""
    return next((trial for trial in run.trials if trial.evidence == evidence), None)
