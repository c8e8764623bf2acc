"""The order of trials, slots and boot deadlines."""

from __future__ import annotations

import threading

import pytest

from rig.model import Cell, Side
from rig.runs.schedule import BOOT_FACTOR, BOOT_FLOOR, BootClock, execute, order, slots

CELLS = tuple(Cell(flavour="d", machine="m", workload=w, filesystem="tmpfs") for w in "abc")
BOTH = (Side.BASE, Side.PATCHED)
FOUR = dict.fromkeys(CELLS, 4)


def test_every_trial_once_and_the_sides_side_by_side() -> None:
    tasks = order(CELLS, BOTH, FOUR)
    assert len(tasks) == len(set(tasks)) == 3 * 2 * 4
    pairs = list(zip(tasks[::2], tasks[1::2], strict=True))
    assert all(one[0] == other[0] and one[2] == other[2] and one[1] != other[1] for one, other in pairs)
    first = [one[1] for one, _ in pairs]
    assert first.count(Side.BASE) == first.count(Side.PATCHED)


def test_one_side_alone_has_the_same_trials() -> None:
    alone = order(CELLS, (Side.PATCHED,), FOUR)
    assert len(alone) == len(set(alone)) == 3 * 4
    assert alone == tuple(task for task in order(CELLS, BOTH, FOUR) if task[1] is Side.PATCHED)


def test_a_cell_has_as_many_trials_as_it_was_given() -> None:
    tasks = order(CELLS, BOTH, dict(zip(CELLS, (2, 0, 1), strict=True)))
    assert [(cell.workload, index) for cell, side, index in tasks if side is Side.BASE] == [
        ("a", 0),
        ("c", 0),
        ("a", 1),
    ]


def test_slots() -> None:
    assert slots(2, [4, 8]) == 1
    assert slots(16, [4]) == 4
    assert slots(16, [4, 8]) == 2


def test_boot_deadlines_scale_with_what_was_measured() -> None:
    clock = BootClock(300)
    assert clock.deadline("debug") == 300
    clock.note("debug", 3)
    clock.note("debug", 2)
    assert clock.deadline("debug") == BOOT_FLOOR + 3 * BOOT_FACTOR
    assert clock.deadline("release") == 300
    clock.note("debug", 1000)
    assert clock.deadline("debug") == 300


def test_all_tasks_run_on_that_many_slots() -> None:
    seen: list[int] = []
    together = threading.Barrier(3)

    def run(number: int) -> None:
        together.wait(10)
        seen.append(number)

    execute(range(9), run, count=3, stop=threading.Event())
    assert sorted(seen) == list(range(9))


def test_a_failure_stops_the_rest_and_is_raised() -> None:
    stop = threading.Event()
    seen: list[int] = []

    def run(number: int) -> None:
        seen.append(number)
        if number == 2:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        execute(range(100), run, count=1, stop=stop)
    assert seen == [0, 1, 2]
    assert stop.is_set()
