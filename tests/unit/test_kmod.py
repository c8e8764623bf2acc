"""The module beside a kernel: what it needs, what it says of itself, and what its key depends on."""

from __future__ import annotations

from pathlib import Path

from rig.perturbation.kmod import NEEDS, SOURCES, key, missing, vermagic

ALL = "".join(f"CONFIG_{name}=y\n" for name in NEEDS)


def test_a_configuration_says_what_it_lacks() -> None:
    assert missing(ALL) == ()
    assert missing(ALL.replace("CONFIG_KPROBES=y", "# CONFIG_KPROBES is not set")) == ("KPROBES",)
    assert missing("CONFIG_DEBUG_FS=m\n") == NEEDS


def test_the_vermagic_of_a_module_is_found() -> None:
    assert vermagic(b"ELF\0license=GPL\0vermagic=6.12.1 SMP preempt mod_unload \0name=x\0") == (
        "6.12.1 SMP preempt mod_unload"
    )
    assert vermagic(b"vermagic=6.1\0") == "6.1"
    assert vermagic(b"no magic=1\0notvermagic=1\0") == ""


def test_the_sources_are_there_and_all_of_them_count(tmp_path: Path) -> None:
    assert {path.name for path in SOURCES.iterdir()} >= {"Kbuild", "rig_stall.c"}
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    first, second = tmp_path / "a", tmp_path / "b"
    known = {
        key("config", "gcc", "6.12", ["1"], [first, second]),
        key("other", "gcc", "6.12", ["1"], [first, second]),
        key("config", "clang", "6.12", ["1"], [first, second]),
        key("config", "gcc", "6.13", ["1"], [first, second]),
        key("config", "gcc", "6.12", ["2"], [first, second]),
        key("config", "gcc", "6.12", ["1"], [first]),
    }
    assert len(known) == 6
    assert key("config", "gcc", "6.12", ["1"], [second, first]) in known
    first.write_text("changed")
    assert key("config", "gcc", "6.12", ["1"], [first, second]) not in known
