"""The whole rig on real kernels: the known-bad series must be caught, the base must stay clean."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import xmlschema

from rig import goals
from rig.front.ui import Ui
from rig.model import Kernel, Side
from rig.pipeline import Options
from rig.settings.reading import load

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests/unit/data/junit.xsd"

pytestmark = pytest.mark.boot

#: Trials per side: a race that is seen in every second trial is proven in 96 of 100 runs.
TRIALS = "{min: 3, max: 16}"


@pytest.fixture(scope="module")
def run(
    real_store: Path, real_kernels: dict[tuple[str, Side], Kernel], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    """The default series on one cell: exit code and folder of the run."""
    assert real_kernels
    results = tmp_path_factory.mktemp("results")
    overrides = [
        f"store={real_store}",
        f"out={results}",
        "select=debug/smp4/truncate-race/tmpfs",
        f"trials={TRIALS}",
        "budget=10",
        "workloads.truncate-race.args={cases: punch-private}",
        "matrix.mode=product",
    ]
    code = goals.run(("test",), load(ROOT / "rig.yaml", overrides), Options(jobs=2), Ui())
    return code, results / "latest"


def trials(folder: Path, side: str) -> list[dict[str, Any]]:
    data = json.loads((folder / "results.json").read_text())
    return [trial for trial in data["trials"] if trial["side"] == side]


def test_the_known_bad_series_is_caught(run: tuple[int, Path]) -> None:
    code, folder = run
    assert code == 1
    assert json.loads((folder / "results.json").read_text())["verdict"]["judgement"] == "REGRESSION"
    bad = [trial for trial in trials(folder, "patched") if trial["status"] in ("FAIL", "CRASH")]
    assert bad
    assert all(trial["findings"] for trial in bad)


def test_the_base_is_not_accused(run: tuple[int, Path]) -> None:
    statuses = [trial["status"] for trial in trials(run[1], "base")]
    assert set(statuses) <= {"PASS", "INCONCLUSIVE"}  # a loaded host may keep a race from being run
    assert "PASS" in statuses
    assert not any(trial["findings"] for trial in trials(run[1], "base"))


def test_junit_is_valid_and_tells_base_from_patched(run: tuple[int, Path]) -> None:
    path = run[1] / "junit.xml"
    xmlschema.XMLSchema(SCHEMA).validate(path)
    failures = {
        suite.get("name"): len(list(suite.iter("failure"))) for suite in ET.parse(path).getroot().iter("testsuite")
    }
    assert failures["debug/smp4 base"] == 0
    assert failures["debug/smp4 patched"] > 0


def test_the_evidence_is_there(run: tuple[int, Path]) -> None:
    folder = run[1]
    for trial in trials(folder, "patched"):
        place = folder / trial["evidence"]
        assert {"console.log", "plan.json", "reproduce.sh", "qemu.cmd", "trial.json"} <= {
            path.name for path in place.iterdir()
        }
        assert trial["guest"]["cpus"] == 4
        assert trial["guest"]["thp"] == "madvise"
        assert "Linux version 6.12" in (place / "console.log").read_text(errors="replace")
