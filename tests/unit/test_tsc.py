"""The rate of the time stamp counter, measured for real, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.machines import tsc


def test_the_rate_is_the_same_twice() -> None:
    one, other = tsc.measure(), tsc.measure()
    assert one is not None
    assert other is not None
    assert abs(one - other) < one / 1000


def test_it_is_measured_once_and_kept(tmp_path: Path) -> None:
    (word,) = tsc.cmdline(tmp_path)
    (file,) = tmp_path.iterdir()
    assert word == f"tsc_early_khz={file.read_text().strip()}"
    file.write_text("2345678\n")
    assert tsc.cmdline(tmp_path) == ("tsc_early_khz=2345678",)


@pytest.mark.parametrize("kept", ["", "fast", "12", "-2345678", "99999999999", "2345678 kHz"])
def test_what_cannot_be_a_rate_is_measured_again(tmp_path: Path, kept: str) -> None:
    fresh = tsc.cmdline(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(kept)
    assert abs(int(tsc.cmdline(tmp_path)[0].split("=")[1]) - int(fresh[0].split("=")[1])) < 10_000
