"""Which patches of a series make a count go up: a plain bisection, as a count hardly varies from trial to trial. Pure.

The prefixes that were measured stand in a row, and between two neighbours lies what the patches between them cost. The
widest gaps are halved until neighbours are a patch apart, so that several patches that cost something are all found.
One trial places a prefix; a patch is named when the ranges of its prefix and of the one before do not overlap and both
have so many trials that chance hardly does that: the rule by which `rig bench` claims the cost of the whole series.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from rig.costs.differences import Spread, apart_by_luck, spread
from rig.costs.metrics import BY_NAME, Where

#: Where no patch alone is beyond the threshold, as many small ones add up, half of it will do, and so on, so often.
HALVINGS = 8

Values = Mapping[int, Sequence[float]]  # by prefix: what its trials counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Quest:
    """A count that is higher on the tip than on the base, by a claim and beyond the threshold."""

    metric: str
    where: Where
    base: float  # median
    tip: float
    level: float  # of confidence that a claim takes
    threshold: float  # as a share of the base, or in the metric's unit where that is a share itself

    @property
    def signature(self) -> str:
        """`cost:metric:where`, the same in every run."""
        return f"cost:{self.metric}:{self.where.id}"

    @property
    def title(self) -> str:
        """`atomics per page in one-private-read`."""
        return f"{BY_NAME[self.metric].title} in {self.where.case}"

    @property
    def total(self) -> float:
        """What the whole series costs, in units of the threshold."""
        return self.change(self.base, self.tip)

    def change(self, before: float, after: float) -> float:
        """Return how much more `after` is, as a share of what the base has, or where that is nothing, as it is."""
        return (after - before) / (self.base if BY_NAME[self.metric].relative and self.base else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Two prefixes that can be tried, with nothing that can between them, the second of which costs more."""

    before: int
    after: int
    first: Spread
    second: Spread
    change: float  # in units of the threshold
    luck: float  # the chance that the ranges are apart by nothing else

    @property
    def patches(self) -> tuple[int, ...]:
        """Who may have done it: one patch, or several that nothing tells apart."""
        return tuple(range(self.before + 1, self.after + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a search stands."""

    steps: tuple[Step, ...]  # that are certain, the largest first
    wanted: tuple[int, ...]  # prefixes of which a trial is needed next, the most telling first
    between: tuple[int, int]  # the neighbours that are furthest apart and not decided; the ends when none are
    limit: float  # a step is one from here on, in units of the threshold


def look(quest: Quest, values: Values, holes: Collection[int]) -> Look:
    """Return how the search for a count stands, given what was measured of each prefix and which cannot be tried."""
    limit = quest.threshold
    found = _look(quest, values, holes, limit)
    for _ in range(HALVINGS):
        if found.steps or found.wanted:
            break
        limit /= 2
        found = _look(quest, values, holes, limit)
    return found


def _look(quest: Quest, values: Values, holes: Collection[int], limit: float) -> Look:
    known = sorted(number for number, some in values.items() if some)
    middle = {number: median(values[number]) for number in known}
    gaps = [(quest.change(middle[low], middle[high]), low, high) for low, high in pairwise(known)]
    steps: list[Step] = []
    wanted: list[int] = []
    doubtful: list[tuple[int, int]] = []
    for change, low, high in sorted(gaps, key=lambda gap: (-gap[0], gap[1])):
        if change <= limit:
            break
        first, second = spread(values[low]), spread(values[high])
        luck = apart_by_luck(first.count, second.count)
        inside = [number for number in range(low + 1, high) if number not in holes]
        if not inside and luck <= 1 - quest.level:
            if second.low > first.high:
                steps.append(Step(before=low, after=high, first=first, second=second, change=change, luck=luck))
            continue  # or noise, however far the medians are apart
        doubtful.append((low, high))
        if inside:
            wanted.append(inside[len(inside) // 2])
        else:
            wanted.append(low if first.count <= second.count else high)
    return Look(
        steps=tuple(steps),
        wanted=tuple(dict.fromkeys(wanted)),
        between=doubtful[0] if doubtful else (known[0], known[-1]),
        limit=limit,
    )
