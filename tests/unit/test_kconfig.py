"""Fragments: what was dropped, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.kernels.kconfig import dependencies, dropped, settings

FRAGMENTS = sorted((Path(__file__).parents[2] / "kconfigs").glob("*.config"))

KCONFIG = """\
menu "Network"
if NET_CORE
config VIRTIO_NET
\ttristate "Virtio"
\tdepends on VIRTIO && \\
\t\tINET
\tselect NET_FAILOVER
if DEEPER
config DEEP
\tbool
endif
config OTHER
\tbool
\tdepends on X
endif
"""


def test_settings_of_a_config() -> None:
    text = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\n# a comment\nCONFIG_D=12\n'
    assert settings(text) == {"A": "y", "B": "n", "C": '"x y"', "D": "12"}


def test_dropped_symbols() -> None:
    final = {"A": "y", "C": "m"}
    assert dropped({"A": "y", "B": "n", "C": "y", "D": "y"}, final) == {"C": ("y", "m"), "D": ("y", "n")}


def test_dependencies_of_a_symbol_and_of_the_ifs_around_it() -> None:
    assert dependencies(KCONFIG, "VIRTIO_NET") == ("NET_CORE", "VIRTIO &&  INET")
    assert dependencies(KCONFIG, "DEEP") == ("NET_CORE", "DEEPER")
    assert dependencies(KCONFIG, "OTHER") == ("NET_CORE", "X")
    assert dependencies(KCONFIG, "ABSENT") == ()


@pytest.mark.parametrize("file", FRAGMENTS, ids=lambda path: path.stem)
def test_every_option_says_why(file: Path) -> None:
    """A comment stands above each option or above the group of options that it explains."""
    explained = False
    for line in file.read_text().splitlines():
        if not line.strip():
            explained = False
        elif line.startswith("# CONFIG_") or line.startswith("CONFIG_"):
            assert explained, f"{file.name}: {line} has no reason above it"
        else:
            explained = True
    assert settings(file.read_text())
