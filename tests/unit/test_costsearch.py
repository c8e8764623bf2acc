"""Which patches make a count go up: the search, on made-up series whose prefixes count what a table says."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rig.bisection.costreport import functions
from rig.bisection.costsearch import Look, Quest, look
from rig.bisection.countbench import renamed, subject
from rig.costs.metrics import Kind, Sample, Where, Work

WHERE = Where(flavour="release", cpus=1, filesystem="tmpfs", case="one-private-read")
FIVE = 5  # trials of base and tip, as `rig bench` makes


@dataclass
class World:
    """A series whose prefixes count `levels`, with noise; some cannot be tried."""

    levels: Sequence[float]
    holes: Collection[int] = ()
    noise: Callable[[], float] = lambda: 0.0
    metric: str = "atomics"
    threshold: float = 0.05

    def __post_init__(self) -> None:
        self.values: dict[int, list[float]] = {}
        for number in (0, len(self.levels) - 1):
            for _ in range(FIVE):
                self.measure(number)
        self.before = self.trials

    def measure(self, number: int) -> None:
        self.values.setdefault(number, []).append(self.levels[number] + self.noise())

    @property
    def trials(self) -> int:
        return sum(map(len, self.values.values()))

    @property
    def quest(self) -> Quest:
        ends = median(self.values[0]), median(self.values[len(self.levels) - 1])
        return Quest(metric=self.metric, where=WHERE, base=ends[0], tip=ends[1], level=0.99, threshold=self.threshold)

    def search(self) -> Look:
        known: set[int] = set()  # holes, as they are found out
        while True:
            found = look(self.quest, self.values, known)
            if not found.wanted:
                return found
            assert self.trials < 5000
            number = found.wanted[0]
            if number in self.holes:
                assert number not in known
                known.add(number)
            else:
                self.measure(number)


def named(found: Look) -> list[tuple[int, ...]]:
    return sorted(step.patches for step in found.steps)


@pytest.mark.parametrize("guilty", [1, 2, 5, 8])
def test_the_patch_that_costs_is_named_after_a_handful_of_trials(guilty: int) -> None:
    world = World([6.0 + 2.0 * (number >= guilty) for number in range(9)])
    found = world.search()
    assert named(found) == [(guilty,)]
    (step,) = found.steps
    assert (step.first.median, step.second.median) == (6.0, 8.0)
    assert step.change == pytest.approx(1 / 3)
    assert step.luck == pytest.approx(2 / 252)
    assert world.trials - world.before <= 3 + 2 * (FIVE - 1)  # three halvings, and a claim on both sides
    assert len(world.values) <= 5


def test_all_patches_that_cost_are_found_and_what_buys_something_is_not_one() -> None:
    world = World([6.0, 6.0, 7.0, 7.0, 6.5, 6.5, 9.0, 9.0, 9.0])
    assert named(world.search()) == [(2,), (6,)]
    assert [step.after for step in world.search().steps] == [6, 2]  # the dearest first


def test_many_small_costs_that_add_up_are_named_one_by_one() -> None:
    found = World([6.0 + 0.2 * number for number in range(5)]).search()  # 3.3 % each, 13 % in all
    assert named(found) == [(1,), (2,), (3,), (4,)]
    assert found.limit < 0.05


def test_a_hole_widens_the_answer_and_stops_nothing() -> None:
    levels = [6.0, 6.0, 6.0, 8.0, 8.0, 8.0]
    assert named(World(levels, holes={3}).search()) == [(3, 4)]
    assert named(World(levels, holes={1, 4}).search()) == [(3,)]
    assert named(World(levels, holes={1, 2, 3, 4}).search()) == [(1, 2, 3, 4, 5)]


def test_one_wrong_trial_blames_nobody() -> None:
    world = World([6.0] * 4 + [8.0] * 5)
    world.values[2] = [8.0]  # it looks as if patch 2 or an earlier one had done it
    assert named(world.search()) == [(4,)]
    assert len(world.values[2]) > 1


def test_what_is_no_more_than_noise_is_not_named() -> None:
    noise = random.Random(5)
    world = World([6.0] * 7 + [6.5], noise=lambda: noise.gauss(0, 0.02))
    world.values[7] = [6.5] * FIVE
    assert named(world.search()) == [(7,)]
    wild = World([6.0, 6.1], noise=lambda: noise.uniform(-2, 2))
    wild.values[0], wild.values[1] = [5.0, 6.0, 6.0, 6.0, 7.0], [6.5, 6.5, 6.9, 6.9, 6.9]
    found = wild.search()
    assert found.steps == ()
    assert found.between == (0, 1)


def test_a_share_is_judged_by_its_points_and_nothing_divides_by_a_base_of_nothing() -> None:
    shares = World([0.0, 0.0, 0.04, 0.44], metric="excess")
    found = shares.search()
    assert named(found) == [(3,)]  # 4 points are below the threshold
    assert found.steps[0].change == pytest.approx(0.4)
    assert named(World([0.0, 2.0], metric="atomics").search()) == [(1,)]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 3.0]), min_size=1, max_size=24).filter(any),
    st.data(),
)
def test_whatever_costs_more_than_the_threshold_is_found(costs: list[float], data: st.DataObject) -> None:
    levels = [6.0]
    for cost in costs:
        levels.append(levels[-1] + cost)
    inner = range(1, len(costs))
    holes = data.draw(st.sets(st.sampled_from(inner), max_size=3)) if inner else set()
    found = World(levels, holes=holes).search()
    assert found.steps
    guilty = {number for number, cost in enumerate(costs, 1) if cost}
    told = {number for step in found.steps for number in step.patches}
    assert guilty == {number for number in told if costs[number - 1]}
    assert all(any(costs[number - 1] for number in step.patches) for step in found.steps)


def test_the_functions_that_do_more_are_named() -> None:
    def counted(number: int, **atomics: float) -> Sample:
        work = [Work(function=name, atomics=value, instructions=0.0, entered=1.0) for name, value in atomics.items()]
        return Sample(
            subject=subject(number),
            kind=Kind.COUNTED,
            where=WHERE,
            index=0,
            seed=1,
            values=(("atomics", sum(atomics.values())),),
            work=tuple(work),
        )

    world = World([6.0, 6.0, 8.0, 8.0])
    (step,) = world.search().steps
    samples = [counted(0, lock=9.0), counted(1, lock=2.0, cpu=2.0), counted(2, lock=4.0, cpu=1.0, map=1.5)]
    assert functions(samples, world.quest, step) == ", lock +2.00, map +1.50 atomics per page"
    assert functions(samples, replace(world.quest, metric="excess"), step) == ""
    elsewhere = replace(WHERE, case="exec")
    assert functions([replace(one, where=elsewhere) for one in samples], world.quest, step) == ""


def test_a_trial_that_was_lost_leaves_no_gap() -> None:
    def counted(number: int, index: int) -> Sample:
        return Sample(subject=subject(number), kind=Kind.COUNTED, where=WHERE, index=index, seed=index, values=())

    some = [counted(0, 4), counted(1, 0), counted(0, 1), counted(0, 2)]
    assert [(one.subject, one.index, one.seed) for one in renamed(some, 0, "base")] == [
        ("base", 0, 1),
        ("base", 1, 2),
        ("base", 2, 4),
    ]
