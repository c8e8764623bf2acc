"""In which order cells are tried, and the statistics of what came of it."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rig.detection.hunt import FLOOR, attention, growing, median, quantile, relevance, rotation
from rig.model import Cell
from rig.touches import races

names = st.sampled_from(["a", "b", "c", "d"])
cells = st.lists(
    st.builds(
        Cell,
        flavour=st.just("debug"),
        machine=st.sampled_from(["smp4", "numa8"]),
        workload=names,
        filesystem=st.sampled_from(["tmpfs", "ext4", "xfs"]),
    ),
    unique=True,
    min_size=1,
    max_size=24,
)
weights = st.dictionaries(names, st.integers(0, 8).map(lambda eighths: eighths / 8), max_size=4)


def by_workload(cell: Cell) -> str:
    return cell.workload


def take(number: int, which: list[Cell], relevances: dict[str, float]) -> list[Cell]:
    return list(itertools.islice(rotation(which, relevances), number))


@given(cells, weights)
def test_every_cell_comes_and_the_most_relevant_first(which: list[Cell], relevances: dict[str, float]) -> None:
    """Of `n` workloads one of no relevance has every turn but the first within n / FLOOR turns of the others."""
    count = Counter(cell.workload for cell in which)
    turns = take(math.ceil(max(count.values()) * len(count) / FLOOR) + len(count), which, relevances)
    assert set(turns) == set(which)
    best = max(relevances.get(cell.workload, 0.0) for cell in which)
    assert relevances.get(turns[0].workload, 0.0) == best


@given(cells, weights, st.integers(1, 200))
def test_who_is_more_relevant_has_never_had_fewer_turns(
    which: list[Cell], relevances: dict[str, float], number: int
) -> None:
    turns = Counter(cell.workload for cell in take(number, which, relevances))
    for one, other in itertools.permutations({cell.workload for cell in which}, 2):
        if relevances.get(one, 0.0) > relevances.get(other, 0.0):
            assert turns[one] >= turns[other]


@given(cells, weights)
def test_the_cells_of_a_workload_take_its_turns_one_after_the_other(
    which: list[Cell], relevances: dict[str, float]
) -> None:
    for name, mine in itertools.groupby(sorted(take(200, which, relevances), key=by_workload), key=by_workload):
        turns = list(mine)
        cells_of_it = [cell for cell in which if cell.workload == name]
        for start in range(0, len(turns) - len(cells_of_it), len(cells_of_it)):
            assert set(turns[start : start + len(cells_of_it)]) == set(cells_of_it)


@given(cells)
def test_of_equals_each_workload_comes_before_any_comes_again(which: list[Cell]) -> None:
    workloads = {cell.workload for cell in which}
    assert {cell.workload for cell in take(len(workloads), which, {})} == workloads


def test_neighbours_differ_in_machine_where_they_can() -> None:
    which = [
        Cell(flavour="debug", machine=machine, workload="a", filesystem=fs)
        for machine in ("smp4", "numa8")
        for fs in ("tmpfs", "ext4")
    ]
    assert [cell.machine for cell in take(4, which, {})] == ["smp4", "numa8", "smp4", "numa8"]


def test_a_workload_twice_as_heavy_comes_twice_as_often() -> None:
    one, other = (Cell(flavour="debug", machine="m", workload=name, filesystem="tmpfs") for name in "ab")
    half = math.sqrt((1 / 2 - FLOOR) / (1 - FLOOR))  # weighs half of 1 with the floor beneath it
    turns = take(300, [one, other], {"a": 1.0, "b": half})
    assert turns.count(one) == 200


def test_no_cells_no_turns() -> None:
    assert list(rotation([], {})) == []


@given(st.lists(st.sampled_from(races.NAMES), max_size=5), st.lists(st.text(max_size=9), max_size=4))
def test_relevance_is_a_share(driven: list[str], paths: list[str]) -> None:
    assert 0 <= relevance(driven, races.concerning([*paths, "mm/filemap.c"])) <= 1 + 1e-9


def test_the_most_concerned_race_counts_most() -> None:
    concern = races.concerning(["mm/khugepaged.c"])
    assert relevance(["collapse"], concern) == races.BY_FILE
    assert races.BY_FILE > relevance(["collapse", "hugetlb"], concern) > 0.8 * races.BY_FILE
    assert relevance(["hugetlb"], concern) == relevance([], concern) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_median_is_that_of_the_library(values: list[float]) -> None:
    assert median(values) == statistics.median(values)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.9, 1.0]))
def test_a_quantile_is_the_smallest_value_that_covers_the_share(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found is not None
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_nothing_has_no_median_and_a_miss_is_endless() -> None:
    assert median([]) is quantile([], 0.9) is None
    assert median([1.0, math.inf, 3.0]) == 3.0
    assert median([1.0, math.inf]) == math.inf


def test_what_concerns_the_series_comes_first_and_more_often() -> None:
    near, far, other = (Cell(flavour="d", machine="m", workload=w, filesystem="tmpfs") for w in ("near", "far", "x"))
    assert attention([far, near, other], {"near": 1.0, "x": 0.4}, 5, 1) == {near: 5, other: 5, far: 1}
    assert list(attention([far, near, other], {"near": 1.0, "x": 0.4}, 5, 1)) == [near, other, far]
    assert attention([far, near], {"near": 1.0}, 5, 0) == {near: 5, far: 0}
    assert attention([far, near], {"near": 1.0}, 2, 9) == {near: 2, far: 2}  # never more than elsewhere


def test_all_get_all_when_nothing_is_concerned_or_nobody_asks_for_less() -> None:
    near, far = (Cell(flavour="d", machine="m", workload=w, filesystem="tmpfs") for w in ("near", "far"))
    assert attention([far, near], {}, 5, 1) == {far: 5, near: 5}
    assert attention([far, near], {"near": 1.0}, 5, None) == {near: 5, far: 5}


@given(st.integers(0, 2000), st.floats(1, 100), st.floats(1, 100))
def test_later_turns_are_longer_and_never_too_long(turn: int, first: float, longest: float) -> None:
    assert growing(turn, first, longest) <= growing(turn + 1, first, longest) <= longest
    assert growing(0, first, longest) == min(first, longest)


def test_what_needs_no_race_comes_first_and_once_per_cell() -> None:
    fast = [Cell(flavour="d", machine="m", workload="fast", filesystem=fs) for fs in ("tmpfs", "ext4")]
    slow = Cell(flavour="d", machine="m", workload="slow", filesystem="tmpfs")
    concern = {"fast": 0.1, "slow": 1.0}
    assert list(itertools.islice(rotation([slow, *fast], concern, {"fast"}), 4)) == [*fast, slow, slow]
    assert next(rotation([slow, *fast], {"slow": 1.0}, {"fast"})) == slow  # concerned by nothing: no reason to hurry
