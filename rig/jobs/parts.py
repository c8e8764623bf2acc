"""A run in parts: which cells a part takes, and the jobs that a CI pipeline makes of them.

`rig list --ci` deals the cells to jobs, each job runs `rig test part=…`, and `rig merge` folds what they leave.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import yaml

from rig.errors import ConfigError
from rig.model import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a pipeline."""

    name: str
    part: str  # for `part=`


def part(cells: Sequence[Cell], words: Sequence[str]) -> tuple[Cell, ...]:
    """Return those of `cells` that the words pick: `2/5`, the second of five equal parts, or globs over their ids.

    All of them without words; raises ConfigError when none is left.
    """
    if not words:
        return tuple(cells)
    chosen: set[Cell] = set()
    for word in words:
        if match := re.fullmatch(r"(\d+)/(\d+)", word):
            number, count = int(match[1]), int(match[2])
            if not 1 <= number <= count:
                raise ConfigError(f"part={word}: expected K/N with K from 1 to N")
            chosen.update(cells[number - 1 :: count])
        else:
            chosen.update(cell for cell in cells if fnmatchcase(cell.id, word))
    if not chosen:
        raise ConfigError(
            f"part={' '.join(words)}: holds none of the {len(cells)} cells", hint="`rig list --ci github` shows parts"
        )
    return tuple(cell for cell in cells if cell in chosen)


def deal(cells: Sequence[Cell], most: int) -> tuple[Job, ...]:
    """Return the jobs of a pipeline: one for each cell, or `most` that share them evenly."""
    if len(cells) <= most:
        return tuple(Job(name=cell.id, part=cell.id) for cell in cells)
    return tuple(Job(name=f"{number} of {most}", part=f"{number}/{most}") for number in range(1, most + 1))


def _github(jobs: Sequence[Job]) -> str:
    """A matrix for fromJSON(), in one line, as $GITHUB_OUTPUT wants it."""
    return json.dumps({"include": [{"name": job.name, "part": job.part} for job in jobs]})


def _gitlab(jobs: Sequence[Job]) -> str:
    """The jobs that ci/gitlab-ci.yml lacks to be the child pipeline."""
    matrix = [{"RIG_PART": [job.part for job in jobs]}]
    made = {
        "rig-cells": {"extends": ".rig-cells", "parallel": {"matrix": matrix}},
        "rig-report": {"extends": ".rig-report"},
    }
    return yaml.safe_dump(made, sort_keys=False).rstrip()


def _jenkins(jobs: Sequence[Job]) -> str:
    """One part per line."""
    return "\n".join(job.part for job in jobs)


#: The forms of `rig list --ci`.
FORMS: Mapping[str, Callable[[Sequence[Job]], str]] = {"github": _github, "gitlab": _gitlab, "jenkins": _jenkins}


def listing(cells: Sequence[Cell], most: int, form: str) -> str:
    """Return the jobs in one of FORMS; raises ConfigError for another."""
    if form not in FORMS:
        raise ConfigError(f"--ci {form}: expected one of {', '.join(FORMS)}")
    return FORMS[form](deal(cells, most))
