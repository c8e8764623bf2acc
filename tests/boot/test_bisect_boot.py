"""`rig bisect` on real kernels: series of five, made of controls, whose wrong patch is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rig.bisection.outcomes import SCHEMA
from rig.model import Kernel

ROOT = Path(__file__).parents[2]
CONTROLS = Path("patches/controls")
BISECTED = Path("tests/boot/bisected")
SECONDS = 3600.0

#: Each is right, and they apply on top of each other and of `pte-overwritten`.
GOOD = [
    CONTROLS / f"good-{name}" for name in ("truncate-zeroes-after-split", "truncate-unmaps-batch", "cow-fault-in-two")
]
BAD = CONTROLS / "pte-overwritten"  # seen in nearly every trial, which keeps the test short
BREAKS, MENDS = BISECTED / "mm-memory-ask-vmf_is_cow-in-do_fault.patch", BISECTED / "mm-memory-add-vmf_is_cow.patch"
FIXES = BISECTED / "mm-filemap-check-the-PTE-that-is-going-to-be-set.patch"

pytestmark = pytest.mark.boot


def bisect(store: Path, out: Path, series: Sequence[Path], *words: str) -> dict[str, Any]:
    """Bisect the series on one cell and return its bisect.json; exits other than with a verdict fail the test."""
    argv = [sys.executable, "-m", "rig", "-C", str(ROOT), "bisect", f"series=[{','.join(map(str, series))}]"]
    config = ["flavours={debug: [base, debug-vm]}", "matrix={}", "select=*/smp4/truncate-race/tmpfs", "budget=3"]
    done = subprocess.run(
        [*argv, *config, *words, f"store={store}", f"out={out}"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr[-4000:]
    data: dict[str, Any] = json.loads((out / "bisect/latest/bisect.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    return data


def accused(data: dict[str, Any], kind: str = "") -> list[tuple[int, int | None]]:
    found = [one for one in data["findings"] if (one["kind"] == "build") == (kind == "build")]
    return [(one["number"], one["fixed_by"]) for finding in found for one in finding["culprits"]]


def test_the_patch_is_named_behind_one_that_breaks_the_build(
    real_store: Path, built_kernel: Kernel, tmp_path: Path
) -> None:
    assert built_kernel
    data = bisect(real_store, tmp_path, [GOOD[0], BREAKS, MENDS, BAD, GOOD[1]])
    assert data["status"] == "found"
    assert set(accused(data)) == {(4, None)}
    assert all(one["probability"] >= 0.95 for one in data["findings"] if one["kind"] != "build")


def test_a_patch_that_breaks_the_build_is_named_beside_the_bug(
    real_store: Path, built_kernel: Kernel, tmp_path: Path
) -> None:
    assert built_kernel
    data = bisect(real_store, tmp_path, [GOOD[0], BREAKS, MENDS, BAD, GOOD[1]], "--every-prefix", "looks=2")
    assert accused(data, "build") == [(2, 3)]
    assert set(accused(data)) == {(4, None)}
    assert {prefix["number"]: prefix["state"] for prefix in data["prefixes"]}[2] == "broken"


def test_what_one_patch_brings_and_another_takes_away_is_found_with_every_prefix(
    real_store: Path, built_kernel: Kernel, tmp_path: Path
) -> None:
    assert built_kernel
    data = bisect(real_store, tmp_path, [GOOD[0], BAD, GOOD[2], FIXES, GOOD[1]], "--every-prefix", "looks=2")
    assert (data["status"], data["mode"]) == ("found", "every-prefix")
    assert set(accused(data)) == {(2, 4)}
    failures = {prefix["number"]: prefix["failures"] for prefix in data["prefixes"]}
    assert [number for number, count in failures.items() if count] == [2, 3]
