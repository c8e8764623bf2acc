"""What all tests share: a store, a fake kernel tree, and the real kernel of the boot tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import fakelinux
import hypothesis
import pytest

from rig.front.ui import Ui
from rig.model import Kernel, Side
from rig.pipeline import Options, Pipeline
from rig.settings.reading import default_store, load
from rig.store import Store

ROOT = Path(__file__).parent.parent

# A loaded host is slow, which is not what these properties are about.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With RIG_NO_SKIP=1 a skipped test has failed: what it wants can be installed."""
    report = yield
    if report.skipped and os.environ.get("RIG_NO_SKIP") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, which RIG_NO_SKIP=1 forbids: {report.longrepr}"
    return report


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A fake kernel tree in a git repository."""
    return fakelinux.make_repository(tmp_path / "linux")


@pytest.fixture
def fragments(tmp_path: Path) -> Path:
    folder = tmp_path / "kconfigs"
    folder.mkdir()
    (folder / "base.config").write_text("# needed\nCONFIG_SMP=y\nCONFIG_NET=y\n")
    (folder / "debug-vm.config").write_text("CONFIG_DEBUG_VM=y\n")
    return folder


@pytest.fixture(scope="session")
def real_store() -> Path:
    """Where the boot tests keep real kernels: RIG_TEST_STORE, or the user's own store: a second run is quick."""
    return Path(os.environ.get("RIG_TEST_STORE") or default_store())


@pytest.fixture(scope="session")
def real_pipeline(real_store: Path) -> Pipeline:
    """The default configuration cut down to the debug flavour."""
    config = load(ROOT / "rig.yaml", [f"store={real_store}", "flavours={debug: [base, debug-vm]}"])
    return Pipeline(config, Options(jobs=len(os.sched_getaffinity(0))), Ui())


@pytest.fixture(scope="session")
def real_kernels(real_pipeline: Pipeline) -> dict[tuple[str, Side], Kernel]:
    """Base and patched kernel of the default series, built when the store does not have them (minutes)."""
    return real_pipeline.kernels


@pytest.fixture(scope="session")
def built_kernel(real_kernels: dict[tuple[str, Side], Kernel]) -> Kernel:
    """The base kernel in the debug flavour."""
    return real_kernels["debug", Side.BASE]
