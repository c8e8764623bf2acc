"""In which order the cells are tried when something is hunted: pure, so that the same hunt takes the same way again.

A patch concerns some races more than others, by the files that it touches (races.py), and a workload drives some races
and not others. So the cells whose workload concerns the patch most come first and come again sooner; but all of them
come, as a mistake may well show where nobody expects it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rig import races
from rig.model import Cell

#: The share of turns of a cell that concerns nothing, measured by one that concerns the patch with all it does.
FLOOR = 0.2


def relevance(driven: Iterable[str], paths: Iterable[str]) -> float:
    """Return how much a workload that drives these races concerns a patch to `paths`: 0 (not at all) to 1.

    The mean over the races, so that one which does nothing else comes before one that does it now and then; 0 for a
    workload that names none.
    """
    shares = races.concerning(paths)
    known = [shares[name] for name in driven]
    return sum(known) / len(known) if known else 0.0


def rotation(cells: Sequence[Cell], relevances: Mapping[str, float]) -> Iterator[Cell]:
    """Yield cells for ever, by the relevance of their workloads (name → 0 to 1); nothing when there are none.

    Stride scheduling (Waldspurger and Weihl, 1995): a cell with twice the weight has twice the turns, evenly spread.
    Of equally relevant cells each workload has its first before any has its second, and neighbours differ in machine.
    """
    weights = {cell: FLOOR + (1 - FLOOR) * min(1.0, max(0.0, relevances.get(cell.workload, 0.0))) for cell in cells}
    rank = {cell: number for number, cell in enumerate(_mixed(cells))}
    turns = [(1 / weights[cell], rank[cell], cell) for cell in rank]
    heapq.heapify(turns)
    while turns:
        at, order, cell = turns[0]
        yield cell
        heapq.heapreplace(turns, (at + 1 / weights[cell], order, cell))


def _mixed(cells: Sequence[Cell]) -> list[Cell]:
    """Each workload's first cell, then each one's second, and so on; where there is a choice, of the other machine."""
    by_workload: dict[str, list[Cell]] = defaultdict(list)
    for cell in dict.fromkeys(cells):
        by_workload[cell.workload].append(cell)
    mixed: list[Cell] = []
    while any(by_workload.values()):
        for left in by_workload.values():
            if left:
                fresh = (cell for cell in left if not mixed or cell.machine != mixed[-1].machine)
                chosen = next(fresh, left[0])
                left.remove(chosen)
                mixed.append(chosen)
    return mixed


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest of `values` that at least `share` of them do not exceed (nearest rank); None for none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float | None:
    """Return the median, the mean of the middle two for an even number; infinite values are allowed; None for none."""
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
