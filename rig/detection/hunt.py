"""In which order the cells are tried when something is hunted: pure, so that the same hunt takes the same way again.

A patch concerns some races more than others, by the files that it touches (touches/races.py), and a workload drives
some races and not others. So the cells whose workload concerns the patch most come first and come again sooner; but all
of them come, as a mistake may well show where nobody expects it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from rig.model import Cell

#: The share of turns of a workload that concerns nothing, by one that concerns the patch with all that it does.
FLOOR = 0.1
#: Seconds of every trial of a workload that is quick.
QUICK = 1.0


def relevance(driven: Iterable[str], concern: Mapping[str, float]) -> float:
    """Return how much a workload that drives these races concerns a patch: 0 (not at all) to 1.

    `concern` is that of each race (races.concerning). The most concerned one counts most: what else a workload does
    takes little from it, as the cases about the patch are favoured.
    """
    known = [concern[name] for name in driven]
    return 0.8 * max(known) + 0.2 * sum(known) / len(known) if known else 0.0


def attention(
    cells: Sequence[Cell], relevances: Mapping[str, float], trials: int, elsewhere: int | None
) -> dict[Cell, int]:
    """Return how many trials each cell gets, the most relevant first: `trials`, or `elsewhere` if it concerns nothing.

    All get `trials` when `elsewhere` is None, or when nothing is concerned: then nobody knows where to look.
    """
    ranked = sorted(cells, key=lambda cell: -relevances.get(cell.workload, 0.0))
    if elsewhere is None or not any(relevances.get(cell.workload) for cell in cells):
        return dict.fromkeys(ranked, trials)
    return {cell: trials if relevances.get(cell.workload) else min(trials, elsewhere) for cell in ranked}


def rotation(
    cells: Sequence[Cell], relevances: Mapping[str, float], quick: Collection[str] = frozenset()
) -> Iterator[Cell]:
    """Yield cells for ever, by the relevance of their workloads (name → 0 to 1); nothing when there are none.

    Each cell of a workload that is `quick` and concerned at all comes once before anything else: what can be seen
    without a race is seen on the right file system at once, or not at all.

    Workloads take turns by stride scheduling (Waldspurger and Weihl, 1995): one with twice the weight has twice the
    turns, evenly spread, and of equally relevant ones each comes once before any comes again. The cells of a workload
    take its turns one after the other, so that one with many file systems does not crowd out the rest.
    """
    by_workload: dict[str, list[Cell]] = defaultdict(list)
    for cell in dict.fromkeys(cells):
        by_workload[cell.workload].append(cell)
    yield from (cell for cell in dict.fromkeys(cells) if cell.workload in quick and relevances.get(cell.workload))
    weights = {name: FLOOR + (1 - FLOOR) * min(1.0, max(0.0, relevances.get(name, 0.0))) ** 2 for name in by_workload}
    own = {name: itertools.cycle(_mixed(mine)) for name, mine in by_workload.items()}
    turns = [(1 / weights[name], number, name) for number, name in enumerate(by_workload)]
    heapq.heapify(turns)
    while turns:
        at, number, name = turns[0]
        yield next(own[name])
        heapq.heapreplace(turns, (at + 1 / weights[name], number, name))


def growing(turn: int, first: float, longest: float) -> float:
    """Return the seconds of a workload's trial in its turn number `turn`, counted from 0: `first`, then twice that …

    Most of what can be found at all is found in the first seconds of the right workload, and nobody knows which one
    that is: a short look at each comes before a long one at any (iterative deepening).
    """
    return min(longest, first * 2.0 ** min(turn, 30))


def _mixed(cells: Sequence[Cell]) -> list[Cell]:
    """Put the cells of one workload in an order in which neighbours differ in machine, where they can."""
    left, mixed = list(cells), list[Cell]()
    while left:
        fresh = (cell for cell in left if not mixed or cell.machine != mixed[-1].machine)
        mixed.append(next(fresh, left[0]))
        left.remove(mixed[-1])
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
