"""How suspicious each patch is before any trial: by what it touches, and by what the finding names. Pure.

Weights only steer where the search looks first and how sure it is between patches that trials tell apart badly; the
largest is a few times the smallest, so that no amount of circumstance outweighs a dozen trials.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rig.detection import hunt
from rig.model import Finding
from rig.touches import races
from rig.trials.signature import plain_function

#: What is added to 1 for a patch that touches a function which the finding names, or a file, or the races of the
#: workload that showed it (times how much it concerns them).
FUNCTION, FILE, RACE = 2.0, 1.0, 1.0

_ON_STACK = re.compile(r"\b([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_IN_FILE = re.compile(r"\b((?:[\w-]+/)+[\w-]+\.[chS]):\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Touches:
    """What one patch touches."""

    paths: tuple[str, ...]
    functions: frozenset[str]


def named(finding: Finding) -> tuple[frozenset[str], frozenset[str]]:
    """Return the functions and the files that a finding names: on its stack, and where it says it happened."""
    functions = {plain_function(name) for name in _ON_STACK.findall(finding.text)}
    if finding.function:
        functions.add(plain_function(finding.function))
    return frozenset(functions), frozenset(_IN_FILE.findall(finding.text))


def weights(patches: Sequence[Touches], finding: Finding, driven: Iterable[str]) -> tuple[float, ...]:
    """Return the weight of each patch; `driven` are the races that the workload drives which showed the finding."""
    functions, files = named(finding)
    drives = tuple(driven)
    return tuple(_weight(patch, functions, files, drives) for patch in patches)


def _weight(patch: Touches, functions: Collection[str], files: Collection[str], drives: Collection[str]) -> float:
    weight = 1.0 + RACE * hunt.relevance(drives, races.concerning(patch.paths, patch.functions))
    weight += FUNCTION * any(name in functions for name in patch.functions)
    return weight + FILE * any(path in files for path in patch.paths)
