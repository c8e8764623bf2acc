"""From a configuration to the cells that it makes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase

from rig.errors import ConfigError
from rig.model import Cell
from rig.settings.config import Config, Pattern


def cells(config: Config) -> tuple[Cell, ...]:
    """Return the cells in the order they are run, selection applied.

    Raises ConfigError when nothing is left, with what there would have been.
    """
    every = tuple(
        Cell(flavour=flavour, machine=machine, workload=workload, filesystem=filesystem)
        for flavour in config.flavours
        for machine in config.machines
        for workload, spec in config.workloads.items()
        for filesystem in spec.filesystems
    )
    chosen = pairwise(every) if config.matrix.mode == "pairwise" else every
    included = tuple(cell for cell in every if any(_matches(cell, pattern) for pattern in config.matrix.include))
    if config.matrix.include and config.matrix.mode == "product":
        chosen = included
    kept = dict.fromkeys((*chosen, *included))
    kept = {c: None for c in kept if not any(_matches(c, pattern) for pattern in config.matrix.exclude)}
    if not kept:
        raise ConfigError("matrix: excludes every cell, expected at least one to be left")
    selected = tuple(cell for cell in kept if any(_glob(cell.id, glob) for glob in config.select))
    if not selected:
        raise ConfigError(
            f"select={' '.join(config.select)}: picks no cell",
            hint="cells look like " + ", ".join(cell.id for cell in tuple(kept)[:3]) + "; see `rig list`",
        )
    return selected


def _glob(cell_id: str, glob: str) -> bool:
    # The whole id, its beginning (debug/smp4), or one of its parts (xfs).
    return fnmatchcase(cell_id, glob) or fnmatchcase(cell_id, f"{glob}/*") or glob in cell_id.split("/")


def _matches(cell: Cell, pattern: Pattern) -> bool:
    return (
        fnmatchcase(cell.flavour, pattern.flavour)
        and fnmatchcase(cell.machine, pattern.machine)
        and fnmatchcase(cell.workload, pattern.workload)
        and fnmatchcase(cell.filesystem, pattern.filesystem)
    )


def _pairs(cell: Cell) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    parts = enumerate((cell.flavour, cell.machine, cell.workload, cell.filesystem))
    return set(itertools.combinations(parts, 2))


def pairwise(every: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return a small subset of `every` in which each pair of values that occurs together at all still does.

    Greedy set cover (Chvátal 1979: within a factor ln n of the smallest), in the order of `every` so that it is stable.
    """
    missing = set().union(*(_pairs(cell) for cell in every)) if every else set()
    chosen: list[Cell] = []
    while missing:
        best = max(every, key=lambda cell: len(_pairs(cell) & missing))
        chosen.append(best)
        missing -= _pairs(best)
    return tuple(cell for cell in every if cell in chosen)
