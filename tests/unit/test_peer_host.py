"""peer.c on the host, with programs that end as they are told in place of the real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig.model import Status
from rig.pipeline import WORKLOAD_FLAGS
from rig.trials.ktap import KtapReport, parse
from rig.trials.oracles import Evidence, judge

SOURCE = Path(__file__).resolve().parents[2] / "guest-workloads/peer.c"
WAIT = 60.0  # seconds; only a broken program takes so long


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("peer") / "peer"
    subprocess.run(["gcc", *WORKLOAD_FLAGS, "-o", binary, SOURCE], check=True)
    return binary


def run(peer: Path, folder: Path, script: str, case: str, budget: str = "2") -> tuple[int, KtapReport]:
    """Run one case with a program that is `script`."""
    for name in ("stress-ng", "cow", "map_populate"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "work").mkdir()
    done = subprocess.run(
        [peer, "--dir", folder / "work", "--seed", "1", "--budget", budget, "--cases", case],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
    )
    return done.returncode, parse(done.stdout)


@pytest.mark.parametrize(
    ("case", "script", "status", "title"),
    [
        ("stress-ng.fault", "exit 0", Status.PASS, ""),
        ("stress-ng.fault", "exit 7", Status.PASS, ""),
        ("stress-ng.fault", "echo 'fail: data is wrong'; exit 2", Status.FAIL, "stress-ng --fault --verify fails"),
        ("stress-ng.fault", "exit 5", Status.FAIL, "stress-ng --fault --verify fails"),
        ("stress-ng.fault", "exit 3", Status.SKIP, ""),
        ("stress-ng.fault", "exit 4", Status.SKIP, ""),
        ("stress-ng.fault", "kill -BUS $$", Status.FAIL, "stress-ng --fault dies of a signal"),
        ("stress-ng.fault", "kill -KILL $$", Status.SKIP, ""),
        ("selftest.cow", "exit 0", Status.PASS, ""),
        ("selftest.cow", "echo 'not ok 3 data'; echo bye; exit 1", Status.FAIL, "selftest cow fails"),
        ("selftest.cow", "exit 2", Status.PASS, ""),
        ("selftest.cow", "exit 4", Status.SKIP, ""),
        ("selftest.cow", "exit 99", Status.SKIP, ""),
        ("selftest.cow", "sleep 600", Status.SKIP, ""),
        ("selftest.uffd-stress", "exit 0", Status.SKIP, ""),  # is not there
    ],
)
def test_what_a_program_says_is_what_the_case_says(
    peer: Path, tmp_path: Path, case: str, script: str, status: Status, title: str
) -> None:
    code, report = run(peer, tmp_path, script, case)
    (found,) = report.cases
    assert (found.name, found.status, report.errors) == (case, status, ())
    assert [finding.title for finding in found.findings] == ([title] if title else [])
    ruling = judge(Evidence(booted=True, ssh=True, exit_status=code, ktap=report, taint_before=0, taint_after=0))
    assert ruling.status is status


def test_the_line_that_tells_of_the_failure_is_the_detail(peer: Path, tmp_path: Path) -> None:
    _, report = run(peer, tmp_path, "echo 'not ok 3 data'; echo bye; exit 1", "selftest.cow")
    assert "not ok 3 data" in report.cases[0].findings[0].text


def test_the_seed_draws_the_order_and_every_case_reports(peer: Path, tmp_path: Path) -> None:
    code, report = run(peer, tmp_path, "exit 0", "selftest.*", budget="30")
    assert code == 0
    assert report.plan == len(report.cases) > 30
    assert {case.name for case in report.cases if case.status is Status.PASS} == {
        "selftest.cow",
        "selftest.map_populate",
    }


def test_stress_ng_gets_its_share_of_the_budget_and_is_told_to_verify(peer: Path, tmp_path: Path) -> None:
    _, report = run(peer, tmp_path, 'echo "fail: $*"; exit 2', "stress-ng.fault", budget="3")
    assert "--verify" in report.cases[0].findings[0].text
    assert "--timeout 3 --fault 0" in report.cases[0].findings[0].text
