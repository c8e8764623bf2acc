"""How much of a run's logs is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import madeup as made
import pytest

from rig.model import Side, Status, TrialResult
from rig.runs import evidence
from rig.settings.config import Evidence

MIB = 1 << 20


def kept(root: Path, trials: list[TrialResult], sizes: dict[str, int], **limits: int) -> dict[str, list[int]]:
    """Write logs of the sizes (by status), bound them, and return what is left by status."""
    for trial in trials:
        folder = root / trial.evidence
        folder.mkdir(parents=True)
        (folder / "trial.json").write_text("{}" * 1000)
        (folder / "console.log").write_bytes(b"head " + b"x" * (sizes[trial.status] - 10) + b" tail")
    evidence.bound(root, trials, Evidence(**limits))
    left: dict[str, list[int]] = {}
    for trial in trials:
        log = root / trial.evidence / "console.log"
        assert (root / trial.evidence / "trial.json").stat().st_size == 2000
        left.setdefault(trial.status, []).append(log.stat().st_size if log.exists() else -1)
    return left


@pytest.fixture
def trials() -> list[TrialResult]:
    crash = [made.trial(Side.PATCHED, Status.CRASH, made.BUG, index=n) for n in range(3)]
    other = made.trial(Side.PATCHED, Status.FAIL, made.STALE, index=3)
    good = [made.trial(Side.BASE, Status.PASS, index=n) for n in range(4)]
    return [*crash, other, *good]


def test_what_fits_is_left_alone(tmp_path: Path, trials: list[TrialResult]) -> None:
    left = kept(tmp_path, trials, {"CRASH": MIB, "FAIL": MIB, "PASS": MIB}, passing_mib=4, total_mib=8)
    assert left == {"CRASH": [MIB] * 3, "FAIL": [MIB], "PASS": [MIB] * 4}


def test_logs_of_passing_trials_go_first_and_the_first_of_each_finding_stays(
    tmp_path: Path, trials: list[TrialResult]
) -> None:
    left = kept(tmp_path, trials, {"CRASH": 2 * MIB, "FAIL": MIB, "PASS": MIB}, passing_mib=3, total_mib=4)
    # Of 4 MiB: the first crash and the other finding; the repetitions keep their ends, the passing ones nothing.
    assert (left["CRASH"][0], left["FAIL"], left["PASS"]) == (2 * MIB, [MIB], [-1] * 4)
    for size in left["CRASH"][1:]:
        assert 2 * evidence.END < size < 2 * evidence.END + 200
    text = (tmp_path / trials[1].evidence / "console.log").read_bytes()
    assert text.startswith(b"head x")
    assert text.endswith(b"x tail")
    assert b"bytes are not kept here: evidence.total" in text


def test_the_limit_of_passing_trials_is_one_of_its_own(tmp_path: Path, trials: list[TrialResult]) -> None:
    left = kept(tmp_path, trials, {"CRASH": 1000, "FAIL": 1000, "PASS": MIB}, passing_mib=2, total_mib=100)
    assert left["PASS"] == [MIB, MIB, -1, -1]
    none = kept(tmp_path / "b", trials, {"CRASH": 1000, "FAIL": 1000, "PASS": 100}, passing_mib=0, total_mib=100)
    assert none == {"CRASH": [1000] * 3, "FAIL": [1000], "PASS": [-1] * 4}


def test_links_are_no_logs(tmp_path: Path) -> None:
    trial = replace(made.trial(status=Status.PASS), evidence="t")
    (tmp_path / "t").mkdir()
    (tmp_path / "precious").write_text("x" * 100)
    (tmp_path / "t/console.log").symlink_to(tmp_path / "precious")
    assert evidence.bound(tmp_path, [trial], Evidence(passing_mib=0, total_mib=1)).size == 0
    assert (tmp_path / "precious").exists()
