"""Some crashes on purpose, in real machines: one that is quick of each way in which a kernel goes down, or does not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rig.detection import lkdtm
from rig.front.ui import Ui
from rig.model import Kernel
from rig.pipeline import Options, Pipeline
from rig.runs.campaign import lab_on
from rig.trials.trial import Lab

pytestmark = pytest.mark.boot

QUICK = ("BUG", "WARNING", "PANIC", "EXCEPTION", "CORRUPT_STACK", "CORRUPT_LIST_DEL", "REPORT_STACK_CANARY")
BOOT_SECONDS = 300.0


@pytest.fixture(scope="module")
def crashing(real_pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kernel, Lab]:
    flavours = {lkdtm.FRAGMENT: ("base", "debug-vm", lkdtm.FRAGMENT)}
    config = real_pipeline.config.model_copy(update={"flavours": flavours})
    pipeline = Pipeline(config, Options(jobs=len(os.sched_getaffinity(0))), Ui())
    kernel = pipeline.built(0)[lkdtm.FRAGMENT]
    lab, _ = lab_on(pipeline, tmp_path_factory.mktemp("lkdtm"), kernel, threading.Event())
    return kernel, lab


@pytest.mark.parametrize(
    "crash", [crash for crash in lkdtm.CRASHES if crash.name in QUICK], ids=lambda crash: crash.name
)
def test_a_crash_on_purpose_is_seen_for_what_it_is(
    crashing: tuple[Kernel, Lab], crash: lkdtm.Crash, tmp_path: Path
) -> None:
    kernel, lab = crashing
    seen = lkdtm.provoke(crash, kernel, lab, tmp_path / "vm", BOOT_SECONDS)
    assert seen.ok, f"{seen.kind}: {seen.title}: {seen.reason}"
