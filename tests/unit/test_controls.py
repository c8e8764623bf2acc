"""control.yaml: what is refused, in which words, and what a control gives to the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.errors import ConfigError
from rig.records.controls import Control, flow, read, series_word
from rig.settings.reading import load

ROOT = Path(__file__).parents[2]
BAD = """\
kind: bad
wrong: It forgets the lock. And looks right.
race: truncate
oracle: the console
signature: ["kernel BUG in filemap_*", "stale data*"]
"""
GOOD = "kind: good\nchanges: A name. It is only a name.\n"


def control(root: Path, name: str, text: str, *, patch: bool = True) -> Path:
    """Write a control below `root` and return the folder to read."""
    home = root / "patches/controls" / name
    home.mkdir(parents=True)
    (home / "control.yaml").write_text(text)
    if patch:
        (home / "0001-x.patch").touch()
    (root / "patches/demo").mkdir(exist_ok=True)
    (root / "patches/demo/0001-x.patch").touch()
    return home.parent


def test_controls_are_sorted_by_name_and_know_their_place(tmp_path: Path) -> None:
    control(tmp_path, "b", BAD + "on: demo\n")
    folder = control(tmp_path, "a", GOOD)
    (folder / "README.md").touch()
    good, bad = read(folder)
    assert (good.name, good.series, good.description) == ("a", ("patches/controls/a",), "A name. It is only a name.")
    assert (bad.name, bad.series) == ("b", ("patches/demo", "patches/controls/b"))
    assert series_word(good.series) == "series=patches/controls/a"
    assert series_word(bad.series) == "series=[patches/demo, patches/controls/b]"
    assert read(tmp_path / "nowhere") == ()


def test_a_signature_is_globs_over_titles(tmp_path: Path) -> None:
    (one,) = read(control(tmp_path, "a", BAD))
    assert one.sees("kernel BUG in filemap_unaccount_folio")
    assert one.sees("stale data after hole punch")
    assert not one.sees("a kernel BUG in filemap_unaccount_folio")
    assert not one.sees("Stale data")


def test_kconfig_goes_into_every_flavour_once(tmp_path: Path) -> None:
    config = load(ROOT / "rig.yaml", ["flavours={debug: [base, debug-vm], k: [base, kasan]}"])
    plain, more = read(control(tmp_path, "a", GOOD)), read(control(tmp_path, "b", GOOD + "kconfig: [kasan, lockdep]\n"))
    assert plain[0].overrides(config) == ()
    (word,) = more[1].overrides(config)
    assert word == "flavours={debug: [base, debug-vm, kasan, lockdep], k: [base, kasan, lockdep]}"
    assert load(ROOT / "rig.yaml", [word]).flavours["k"] == ("base", "kasan", "lockdep")


def test_flow_is_what_the_command_line_reads() -> None:
    value = {"run": "x", "args": {"a: b": 1}, "cmdline": ["a=b, c", "#"], "none": []}
    assert "\n" not in flow(value)
    config = load(ROOT / "rig.yaml", [f"machines.m={flow({'cpus': 3, 'cmdline': ['a=b, c', '#']})}"])
    assert config.machines["m"].cmdline == ("a=b, c", "#")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: ugly\n", "patches/controls/x/control.yaml:1: kind: 'ugly', expected 'bad' or 'good'"),
        ("wrong: it\n", "control.yaml:1: kind: missing"),
        (BAD.replace("race:", "rcae:"), "control.yaml:3: rcae: unknown key.*did you mean 'race'"),
        (BAD.replace("truncate", "trunk"), "control.yaml:3: race: 'trunk', expected 'truncate'"),
        (BAD.replace("race: truncate\n", ""), "a bad control says wrong, race, oracle, signature; missing: race"),
        (BAD + "changes: something\n", "changes: only for a control that is good"),
        (GOOD + "race: cow\n", "race: only for a control that is bad"),
        (GOOD.replace("A name. It is only a name.", "''"), "control.yaml:2: changes: ''"),
        ("kind: good\n", "a good control says changes; missing: changes"),
        (BAD.replace("stale data*", ""), "signature: an empty glob"),
        (BAD + "name: other\n", "control.yaml:6: name: unknown key"),
        (BAD + "on: absent\n", "patches/controls/x/control.yaml: on: 'absent' is not a series of patches/"),
        (BAD + "on: ../demo\n", "on: '../demo'"),
        (BAD + "kconfig: {a: b}\n", "kconfig"),
        ("kind: [\n", r"control.yaml:\d: not valid YAML"),
        ("- kind\n", "expected keys and values"),
        ("", "kind: missing"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        read(control(tmp_path, "x", text))
    assert str(caught.value).endswith("patches/controls/README.md describes the keys of a control")


def test_a_control_has_a_patch_and_a_file(tmp_path: Path) -> None:
    folder = control(tmp_path, "x", BAD, patch=False)
    (folder / "x/0000-cover-letter.patch").touch()
    with pytest.raises(ConfigError, match=r"^patches/controls/x: holds no \*.patch"):
        read(folder)
    (folder / "x/control.yaml").unlink()
    with pytest.raises(ConfigError, match=r"x/control.yaml: no such file"):
        read(folder)


def test_a_control_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Control.model_validate({"kind": "good", "changes": "x"}).kind = "bad"  # type: ignore[misc]
