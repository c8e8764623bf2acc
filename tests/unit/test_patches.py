"""What patches/ holds: every series and control can be read, and what the READMEs say of them is what was recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rig.records import controls, prefixes, recorded, tables
from rig.records.controls import Control
from rig.records.subjects import Subject, subjects
from rig.settings import matrix
from rig.settings.reading import load
from rig.trees import series

ROOT = Path(__file__).parents[2]
PATCHES = ROOT / "patches"
CONTROLS = sorted(path.name for path in (PATCHES / "controls").iterdir() if path.is_dir())
FOLDERS = sorted({path.parent for path in PATCHES.glob("**/0001-*.patch")})
FRAGMENTS = {path.stem for path in (ROOT / "kconfigs").glob("*.config")}


@pytest.fixture(scope="module")
def known() -> dict[str, Control]:
    """The controls by their names."""
    return {one.name: one for one in controls.read(PATCHES / "controls")}


def test_there_are_enough_controls(known: dict[str, Control]) -> None:
    kinds = [one.kind for one in known.values()]
    assert kinds.count("bad") >= 16
    assert kinds.count("good") >= 4


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_can_be_run(known: dict[str, Control], name: str) -> None:
    one = known[name]
    assert not (PATCHES / name).exists(), "its name is that of a series"
    assert set(one.kconfig) <= FRAGMENTS
    stack = series.read(*(str(ROOT / origin) for origin in one.series))
    assert (PATCHES / "controls" / name / stack.patches[-1].name.rpartition("/")[2]).is_file()


@pytest.mark.parametrize("name", CONTROLS)
def test_the_globs_of_a_signature_mean_something(known: dict[str, Control], name: str) -> None:
    for glob in known[name].signature:
        assert " ".join(glob.split()) == glob, "no title has such spaces"
        assert glob.count("[") == glob.count("]"), "fnmatch takes a bracket that is not closed for itself"
        assert len(re.findall(r"[A-Za-z]", glob)) >= 4, "it matches whatever comes"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_patch_has_a_subject_and_is_signed_off(folder: Path) -> None:
    for patch in series.read(str(folder)).patches:
        assert patch.subject
        assert re.search(rb"^Signed-off-by: .+ <.+>$", patch.mail, re.MULTILINE)


def test_the_tables_are_what_is_recorded() -> None:
    """When this fails: `ci/record-verdicts`."""
    assert tables.complaint(ROOT, subjects(ROOT), load(ROOT / "rig.yaml").flavours) is None


SERIES = [one for one in subjects(ROOT) if one.control is None]


@pytest.mark.parametrize("one", SERIES, ids=lambda one: one.name)
def test_no_prefix_on_record_is_broken(one: Subject) -> None:
    """The tip is left out: what a series breaks at its end is in its verdict."""
    record = recorded.read(ROOT)
    for number, key in enumerate(one.prefix_keys[:-1], start=1):
        states = prefixes.states(record.of_prefix(key), load(ROOT / "rig.yaml").flavours)
        assert not [(number, name, state) for name, state in states.items() if state.warnings or state.failed]


@pytest.mark.parametrize("one", SERIES, ids=lambda one: one.name)
def test_a_prefix_is_the_stack_of_its_files(one: Subject) -> None:
    for number, key in enumerate(one.prefix_keys, start=1):
        assert series.read(*(str(ROOT / file) for file in one.files[:number])).key == key


def test_the_smoke_trial_is_a_cell_of_every_flavour() -> None:
    config = load(ROOT / "rig.yaml", ["matrix={}", f"select={prefixes.SMOKE}"])
    assert sorted(cell.flavour for cell in matrix.cells(config)) == sorted(config.flavours)


def test_what_is_recorded_holds_no_path_of_a_host() -> None:
    text = (PATCHES / recorded.FILE).read_text()
    assert not re.search(r"(?<![\w./~-])/(?:home|root|tmp|work|usr|var|srv|opt)/", text)
