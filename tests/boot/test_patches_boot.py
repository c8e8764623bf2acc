"""What patches/ holds applies to the default base; it and the C of the workloads are clean under its checkpatch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig.pipeline import Pipeline
from rig.recorded import Subject, subjects
from rig.series import apply, read
from rig.source import repository

ROOT = Path(__file__).parents[2]
SUBJECTS = subjects(ROOT)
SOURCES = sorted((ROOT / "guest-workloads").glob("*.[ch]"))

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def checkpatch(real_pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base tree's own checkpatch.pl and the files it reads."""
    git, commit = repository(real_pipeline.store), real_pipeline.applied.base.commit
    folder = tmp_path_factory.mktemp("checkpatch")
    for name in ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch"):
        (folder / name).write_text(git("show", f"{commit}:scripts/{name}") + "\n")
    return folder / "checkpatch.pl"


def complaints(checkpatch: Path, *words: str | Path) -> str:
    argv = ["perl", checkpatch, "--no-tree", "--no-summary", "--terse", *words]
    # It leaves a cache file where it is run.
    folder = checkpatch.parent
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False).stdout


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda one: one.name)
def test_a_series_applies(real_pipeline: Pipeline, subject: Subject) -> None:
    series = read(*(str(ROOT / origin) for origin in subject.origins))
    applied, _ = apply(real_pipeline.applied.base, series, real_pipeline.store)
    assert len({prefix.tree for prefix in applied.prefixes}) == len(series.patches) + 1


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda one: one.name)
def test_a_series_is_clean_under_checkpatch(checkpatch: Path, subject: Subject) -> None:
    patches = sorted((ROOT / subject.origins[-1]).glob("*.patch"))
    assert complaints(checkpatch, "--strict", *(path for path in patches if not path.name.startswith("0000-"))) == ""


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.name)
def test_a_workload_is_clean_under_checkpatch(checkpatch: Path, file: Path) -> None:
    # Not --strict: that wants u32 for uint32_t and other things that belong into the kernel.
    assert complaints(checkpatch, "--max-line-length=100", "-f", file) == ""
