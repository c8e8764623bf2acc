"""What patches/ holds: every series and control can be read, and what the READMEs say of them is what was recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rig import controls, recorded, series, tables
from rig.controls import Control

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
    assert tables.complaint(ROOT, recorded.subjects(ROOT)) is None


def test_what_is_recorded_holds_no_path_of_a_host() -> None:
    text = (PATCHES / recorded.FILE).read_text()
    assert not re.search(r"(?<![\w./~-])/(?:home|root|tmp|work|usr|var|srv|opt)/", text)
