"""What patches/ holds applies to the default base; it and the C of the workloads are clean under its checkpatch.

That every prefix builds and boots is on record (patches/verdicts.json); what is not, is tried here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import goals
from rig.errors import RigError
from rig.front.ui import Ui
from rig.pipeline import Options, Pipeline
from rig.records import controls, prefixes, recorded
from rig.records.subjects import Subject, subjects
from rig.settings.config import Config
from rig.settings.reading import load
from rig.trees.series import apply, read
from rig.trees.source import repository

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


def debug_only(store: Path, *overrides: str) -> Config:
    """Return the default configuration cut down to one smoke trial of a debug kernel, without the base."""
    cut = f"select={prefixes.SMOKE.replace('*', 'debug', 1)}"
    return load(ROOT / "rig.yaml", [f"store={store}", *prefixes.SMOKE_TRIALS, cut, *overrides])


def unrecorded_prefixes() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield name and files of each prefix whose debug kernel is not on record, once if several series have it."""
    record, done = recorded.read(ROOT), set()
    flavours = {"debug": load(ROOT / "rig.yaml").flavours["debug"]}
    for subject in SUBJECTS:
        for number, key in enumerate(subject.prefix_keys, start=1):
            if key not in done and not prefixes.known(record.of_prefix(key), flavours):
                yield f"{subject.name}, prefix {number}", subject.files[:number]
            done.add(key)


def trouble(config: Config, results: Path | None = None) -> str:
    """Build what `config` describes and, with a place for results, run its one trial; "" when all is well."""
    options = Options(jobs=len(os.sched_getaffinity(0)))
    try:
        kernels = Pipeline(config, options, Ui()).kernels.values()
        if new := [warning for kernel in kernels for warning in kernel.warnings]:
            return f"new warnings: {', '.join(new)}"
        if results is None:
            return ""
        goals.run(("test",), config, options, Ui())
        ended = [trial["status"] for trial in json.loads((results / "latest/results.json").read_text())["trials"]]
        return "" if ended == ["PASS"] else f"the smoke trial ended with {', '.join(ended)}; see {results}"
    except RigError as error:
        return str(error)


def test_prefixes_that_are_not_on_record_pass_a_smoke_trial(
    real_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Usually there are none: `ci/judge-patches --prefixes` records them."""
    found = {}
    for name, files in unrecorded_prefixes():
        out = tmp_path_factory.mktemp("prefix")
        found[name] = trouble(debug_only(real_store, controls.series_word(files), f"out={out}"), out)
    assert {name: words for name, words in found.items() if words} == {}


def test_controls_that_are_not_on_record_build_without_new_warnings(real_store: Path) -> None:
    """Usually there are none: `ci/judge-patches controls/NAME` records them."""
    record, found = recorded.read(ROOT), {}
    for subject in SUBJECTS:
        built = {build.flavour for run in record.of_prefix(subject.key) for build in run.builds}
        if subject.control and "debug" not in built:
            words = (controls.series_word(subject.origins), *subject.control.overrides(debug_only(real_store)))
            found[subject.name] = trouble(debug_only(real_store, *words))
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.name)
def test_a_workload_is_clean_under_checkpatch(checkpatch: Path, file: Path) -> None:
    # Not --strict: that wants u32 for uint32_t and other things that belong into the kernel.
    assert complaints(checkpatch, "--max-line-length=100", "-f", file) == ""
