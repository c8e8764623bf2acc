"""The table of a run while it goes on: whatever the size of the screen, and whatever order things happen in."""

from __future__ import annotations

import dataclasses
import io

import pytest
from madeup import BUG, cell, trial
from rich.console import Console

from rig.front.board import BESIDE, Board
from rig.model import Cell, Side, Status
from rig.runs.schedule import order

CELLS = tuple(cell(machine=f"m{number}") for number in range(30))


class Clock:
    """Time that stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def board(clock: Clock, cells: tuple[Cell, ...] = CELLS[:3]) -> Board:
    made = Board(budget=10.0, clock=clock)
    made.expect([cell for cell, _, _ in order(cells, tuple(Side), dict.fromkeys(cells, 1))])
    return made


def drawn(made: Board, width: int = 120, height: int = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None, force_terminal=False).print(made)
    return out.getvalue().rstrip("\n").split("\n")


def test_what_runs_what_is_done_and_what_failed(clock: Clock) -> None:
    made = board(clock)
    made.started(CELLS[0], Side.PATCHED)
    made.said(CELLS[0], Side.PATCHED, "ok 3 punch")
    made.ended(trial(where=CELLS[1], side=Side.BASE))
    made.ended(trial(Side.PATCHED, Status.CRASH, BUG, where=CELLS[1]))
    clock.now += 4
    lines = drawn(made)
    assert lines[0].startswith(
        "2 of 6 trials, 1 failed, about 56 s left"
    )  # the median of 18 s, 14 s and 14 s, four times
    first, second, third = (line for line in lines if line.startswith("debug/"))
    assert "▶ 10 s left" in first
    assert "patched: ok 3 punch" in first
    assert ["1", "pass", "1", "crash", *BUG.title.split()] == second.split()[1:]
    assert third.split() == [CELLS[2].id]


def test_the_time_that_is_left_is_first_guessed_and_then_measured(clock: Clock) -> None:
    made = board(clock)
    assert made.seconds_left == 6 * (10 + BESIDE)
    made.slots = 2
    assert made.seconds_left == 3 * (10 + BESIDE)
    for _ in range(3):
        made.ended(dataclasses.replace(trial(where=CELLS[0]), timing=dataclasses.replace(trial().timing, total=30.0)))
    assert made.seconds_left == 3 * 30.0 / 2
    for _ in range(9):  # a trial that was lost is run again
        made.ended(trial(where=CELLS[0]))
    assert made.seconds_left == 0


@pytest.mark.parametrize("width", [20, 40, 79, 80, 200])
@pytest.mark.parametrize("height", [4, 10, 60])
def test_it_fits_every_screen_and_shows_what_matters_first(clock: Clock, width: int, height: int) -> None:
    made = board(clock, CELLS)
    made.started(CELLS[-1], Side.BASE)
    made.ended(trial(Side.PATCHED, Status.FAIL, BUG, where=CELLS[20]))
    lines = drawn(made, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        shown = [line.split()[0] for line in lines if line.startswith("debug/")]
        assert CELLS[-1].id in shown
        assert (CELLS[20].id in shown) is (height > 6)
        assert shown == [one.id for one in CELLS if one.id in shown]  # in the order of the run
        assert (f"{len(CELLS) - len(shown)} more cells" in lines[0]) is (len(shown) < len(CELLS))


def test_a_trial_that_is_cut_off_leaves_nothing_behind(clock: Clock) -> None:
    made = board(clock)
    made.started(CELLS[0], Side.BASE)
    made.stopped(CELLS[0], Side.BASE)
    made.said(CELLS[0], Side.BASE, "ok 1 late")
    assert "▶" not in "".join(drawn(made))
    assert "late" not in "".join(drawn(made))


def test_what_a_guest_says_is_no_markup(clock: Clock) -> None:
    made = board(clock)
    made.started(CELLS[0], Side.BASE)
    made.said(CELLS[0], Side.BASE, "ok 1 [red]x[/red] \x1b[31m")
    assert "[red]x[/red]" in "".join(drawn(made, 200))
    assert "\x1b" not in "".join(drawn(made, 200))
