"""The verdict on a terminal: narrow or wide, and its commands whole."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from madeup import BUG, run, runs, trial
from rich.console import Console

from rig.front import screen
from rig.model import Side, Status
from rig.reports import again
from rig.runs.results import Run

REGRESSION = run(
    *(trial(Side.BASE, index=i) for i in range(4)),
    trial(),
    *(trial(Side.PATCHED, Status.CRASH, BUG, index=i) for i in (1, 2, 3)),
)


def told(whole: Run, width: int) -> str:
    out = io.StringIO()
    screen.show(Console(file=out, width=width, color_system=None), whole, Path("results/now"))
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 72, 200])
def test_everything_is_told_and_commands_can_be_copied(width: int) -> None:
    text = told(REGRESSION, width)
    words = "".join(text.split())
    for piece in ("REGRESSION", BUG.title, "0/4", "3/4", "p = 0.0", "TCG", "debian:linux-source-6.12"):
        assert piece.replace(" ", "") in words
    assert f"1  {again.anywhere(REGRESSION, REGRESSION.trials[5])}\n" in text


def test_a_finding_of_no_known_trial_is_rerun_by_its_folder() -> None:
    lost = dataclasses.replace(REGRESSION, trials=())
    assert "rig rerun results/now/trials/patched/debug-smp4-truncate-race-ext4-1\n" in told(lost, 40)


@settings(suppress_health_check=list(HealthCheck))
@given(runs)
def test_any_run_can_be_told(whole: Run) -> None:
    text = told(whole, 60)
    assert str(whole.verdict.judgement) in text
    assert "\x1b" not in text
