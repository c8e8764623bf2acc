"""File systems made on sparse files by the real tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rig.errors import ConfigError, HostError
from rig.guests.disks import MAKERS, disk_inputs, disk_uuid, make_disk

SIZES = {"ext4": 64, "xfs": 300}


@pytest.mark.parametrize("fs", MAKERS)
def test_makes_a_sparse_file_system(tmp_path: Path, fs: str) -> None:
    disk = make_disk(tmp_path / "disk", fs, SIZES[fs])
    assert disk.stat().st_size == SIZES[fs] << 20
    assert disk.stat().st_blocks * 512 < disk.stat().st_size / 2
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    if shutil.which("blkid"):
        shown = subprocess.run(["blkid", "-p", "-o", "export", disk], capture_output=True, text=True, check=True).stdout
        assert f"TYPE={fs}\n" in shown
        assert f"UUID={disk_uuid(fs, SIZES[fs])}\n" in shown


def test_ext4_is_the_same_every_time(tmp_path: Path) -> None:
    one, two = (make_disk(tmp_path / name, "ext4", 64).read_bytes() for name in ("one", "two"))
    assert one == two


def test_inputs_tell_requests_apart() -> None:
    assert disk_inputs("ext4", 64) == disk_inputs("ext4", 64)
    assert len({disk_inputs("ext4", 64), disk_inputs("ext4", 65), disk_inputs("xfs", 300)}) == 3


@pytest.mark.parametrize(("fs", "size"), [("btrfs", 512), ("tmpfs", 512), ("xfs", 299), ("ext4", 1)])
def test_what_cannot_be_is_refused(tmp_path: Path, fs: str, size: int) -> None:
    with pytest.raises(ConfigError):
        make_disk(tmp_path / "disk", fs, size)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_tool_is_a_host_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "mke2fs"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'mke2fs: no space' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    with pytest.raises(HostError, match="mke2fs: no space"):
        make_disk(tmp_path / "out" / "disk", "ext4", 64)
    assert list((tmp_path / "out").iterdir()) == []
