"""The memory audit on real kernels: a leaked reference is seen, the base is not accused, and the counters are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rig import goals
from rig.front.ui import Ui
from rig.model import Kernel, Side
from rig.pipeline import Options
from rig.records import controls
from rig.settings.reading import load
from rig.trials import audit

ROOT = Path(__file__).parents[2]
CONTROL = next(one for one in controls.read(ROOT / "patches/controls") if one.name == "reference-leaked")

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def trials(
    real_store: Path, real_kernels: dict[tuple[str, Side], Kernel], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The trials of the control that leaks references, on the cell where it leaks most, with what was looked at.

    Its kernel may stop with a BUG before it can be audited; the others may not.
    """
    assert real_kernels  # the base is built, of which the control is one file away
    results = tmp_path_factory.mktemp("results")
    overrides = [
        f"store={real_store}",
        f"out={results}",
        f"series={ROOT / CONTROL.series[0]}",
        "flavours={debug: [base, debug-vm]}",
        "matrix={}",
        "select=debug/smp4/truncate-race/xfs",
        "workloads.truncate-race.needs={trace_mm_filemap_map_pages: 100}",
        "perturb.stalls.share=0",  # the leak needs no race, and what a stalled kernel does with it may be a BUG
        "trials=3",
        "budget=10",
    ]
    goals.run(("test",), load(ROOT / "rig.yaml", overrides), Options(jobs=2), Ui())
    folder = results / "latest"
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["trials"]
    for trial in found:
        file = folder / trial["evidence"] / "audit.json"
        assert file.exists() or (trial["side"], trial["status"]) == ("patched", "CRASH")
        trial["looks"] = json.loads(file.read_text()) if file.exists() else None
    return found


def test_leaked_references_are_seen_and_the_base_is_not_accused(trials: list[dict[str, Any]]) -> None:
    titles = {
        side: {finding["title"] for trial in trials if trial["side"] == side for finding in trial["findings"]}
        for side in ("base", "patched")
    }
    assert titles["base"] == set()
    assert any(map(CONTROL.sees, titles["patched"]))


def test_a_healthy_machine_has_nothing_left_over(trials: list[dict[str, Any]]) -> None:
    for trial in (one for one in trials if one["looks"]):
        before, after = trial["looks"]["residue"]
        assert before <= 0
        assert trial["side"] == "patched" or after <= 0


def test_the_counters_are_those_that_the_audit_and_the_needs_ask_for(trials: list[dict[str, Any]]) -> None:
    asked = {*audit.LRU, *audit.REACHED, *audit.POOL, *(name for gauge in audit.GAUGES for name in gauge.names)}
    for trial in (one for one in trials if one["looks"]):
        assert asked <= trial["looks"]["before"].keys()
        counted = dict(trial["coverage"])
        assert counted["pgfault"] > 1000
        assert counted["trace_mm_filemap_map_pages"] >= 100
