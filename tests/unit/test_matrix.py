"""Cells: product, pairwise, include, exclude, select."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import ConfigError
from rig.model import Cell
from rig.settings.config import Config
from rig.settings.matrix import cells, pairwise
from rig.settings.reading import load

TEXT = """\
flavours: {debug: [base], release: [base]}
machines: {smp4: {}, numa8: {}}
workloads:
  truncate-race: {filesystems: [tmpfs, xfs]}
  fault-stress: {filesystems: [tmpfs]}
"""


def config(tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "rig.yaml"
    path.write_text(TEXT)
    return load(path, overrides)


def ids(configuration: Config) -> list[str]:
    return [cell.id for cell in cells(configuration)]


def test_product_has_every_combination_once(tmp_path: Path) -> None:
    found = ids(config(tmp_path))
    assert len(found) == len(set(found)) == 2 * 2 * 3
    assert found[0] == "debug/smp4/truncate-race/tmpfs"


def test_exclude_include_and_select(tmp_path: Path) -> None:
    assert all("xfs" not in name for name in ids(config(tmp_path, "matrix.exclude=[{filesystem: xfs}]")))
    only = ids(config(tmp_path, "matrix.include=[{machine: numa*, workload: fault-stress}]"))
    assert only == ["debug/numa8/fault-stress/tmpfs", "release/numa8/fault-stress/tmpfs"]
    assert ids(config(tmp_path, "select=release/*/truncate-race/*")) == [
        f"release/{machine}/truncate-race/{fs}" for machine in ("smp4", "numa8") for fs in ("tmpfs", "xfs")
    ]
    assert ids(config(tmp_path, "select=debug/smp4/truncate-race")) == [
        f"debug/smp4/truncate-race/{fs}" for fs in ("tmpfs", "xfs")
    ]
    assert {name.split("/")[1] for name in ids(config(tmp_path, "select=numa8"))} == {"numa8"}


def test_nothing_left_is_refused_with_examples(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="excludes every cell"):
        cells(config(tmp_path, "matrix.exclude=[{}]"))
    with pytest.raises(ConfigError, match="debug/smp4/truncate-race/tmpfs"):
        cells(config(tmp_path, "select=arm64"))


def test_pairwise_adds_what_is_included(tmp_path: Path) -> None:
    pairs = ids(config(tmp_path, "matrix.mode=pairwise"))
    more = ids(config(tmp_path, "matrix.mode=pairwise", "matrix.include=[{}]"))
    assert len(pairs) < len(more) == 12
    assert set(pairs) < set(more)


@given(st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_pairwise_covers_every_pair(sizes: list[int]) -> None:
    axes = [[f"{axis}{value}" for value in range(size)] for axis, size in zip("fmws", sizes, strict=True)]
    every = [Cell(flavour=f, machine=m, workload=w, filesystem=s) for f, m, w, s in itertools.product(*axes)]

    def pairs(some: list[Cell]) -> set[tuple[str, str]]:
        parts = [(c.flavour, c.machine, c.workload, c.filesystem) for c in some]
        return {pair for part in parts for pair in itertools.combinations(part, 2)}

    chosen = list(pairwise(every))
    assert pairs(chosen) == pairs(every)
    assert len(chosen) <= len(every)
