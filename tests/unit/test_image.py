"""The guest image: the archive format, determinism, and what goes in."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import ConfigError, HostError
from rig.guests import image
from rig.guests.image import Entry, archive, base_image, contents, fingerprint, image_inputs, run_image
from rig.guests.keys import make_keys

PATHS = st.lists(st.text("abcdefgh._-é", min_size=1, max_size=20), unique=True, max_size=8)


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of newc archives that follows Documentation/driver-api/early-userspace/buffer-format.rst."""
    file = io.BytesIO(data)
    members: dict[str, tuple[int, bytes]] = {}
    while True:
        header = file.read(110)
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = file.read(name_size)[:-1].decode()
        file.seek(-file.tell() % 4, os.SEEK_CUR)
        body = file.read(size)
        file.seek(-file.tell() % 4, os.SEEK_CUR)
        if name == "TRAILER!!!":
            assert set(data[file.tell() :]) <= {0}
            return members
        assert fields[2] == fields[3] == fields[5] == 0  # root's, root's, 1970
        members[name] = (mode, body)


@given(PATHS, st.binary(max_size=50))
def test_an_archive_holds_what_was_put_in(paths: list[str], data: bytes) -> None:
    entries = [Entry(path=path, mode=stat.S_IFREG | 0o640, data=data) for path in paths]
    packed = b"".join(archive(entries))
    assert len(packed) % 512 == 0
    assert unpack(packed) == dict.fromkeys(paths, (stat.S_IFREG | 416, data))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_lists_the_image(tmp_path: Path) -> None:
    target = base_image(tmp_path / "base", binaries={})
    with target.open("rb") as file:
        listed = subprocess.run(["cpio", "-tv"], stdin=file, capture_output=True, text=True, check=True).stdout
    assert "bin/busybox" in listed
    assert " -> usr/bin" in listed
    assert listed.count("dev/console") == 1


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    first = base_image(tmp_path / "one", binaries={"tool": tool}).read_bytes()
    os.utime(tool, (1, 1))
    assert base_image(tmp_path / "two", binaries={"tool": tool}).read_bytes() == first


def test_the_inputs_change_when_and_only_when_the_image_does(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"one")
    before = image_inputs({"tool": tool})
    assert image_inputs({"tool": tool}) == before
    tool.write_bytes(b"two")
    assert image_inputs({"tool": tool}) != before
    assert image_inputs({"other": tool}) != image_inputs({"tool": tool})
    assert image_inputs({}) != before


def test_a_mode_is_part_of_the_inputs() -> None:
    one = Entry(path="x", mode=stat.S_IFREG | 0o755)
    two = Entry(path="x", mode=stat.S_IFREG | 0o644)
    assert fingerprint([one]) != fingerprint([two])


def test_what_a_guest_needs_is_there(tmp_path: Path) -> None:
    tool = tmp_path / "truncate-race"
    tool.write_bytes(b"\x7fELF")
    members = unpack(b"".join(archive(contents({"truncate-race": tool}))))
    assert members["init"][1].startswith(b"#!/bin/sh\n")
    assert members["usr/bin/truncate-race"] == (stat.S_IFREG | 0o755, b"\x7fELF")
    assert stat.S_ISLNK(members["usr/bin/sh"][0])
    assert stat.S_ISCHR(members["dev/console"][0])
    assert "usr/sbin/dropbear" in members
    assert "lib/libc.so.6" in members
    parents = {str(parent) for path in members for parent in Path(path).parents} - {"."}
    assert {path for path in parents if not stat.S_ISDIR(members[path][0])} == set()


def test_a_directory_comes_before_what_is_in_it() -> None:
    seen: set[str] = set()
    for entry in contents({}):
        parent = str(Path(entry.path).parent)
        assert parent == "." or parent in seen
        seen.add(entry.path)


def test_extra_programs_bring_their_libraries() -> None:
    paths = {entry.path for entry in contents({}, extra=["mke2fs"])}
    assert "usr/bin/mke2fs" in paths
    assert any(path.startswith("lib/libext2fs") for path in paths)


def test_a_missing_program_is_a_host_error() -> None:
    with pytest.raises(HostError, match="no-such-program: program not found"):
        contents({}, extra=["no-such-program"])


def test_a_missing_workload_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        contents({"gone": tmp_path / "gone"})


def test_a_workload_that_busybox_would_hide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workload timeout"):
        contents({"timeout": tmp_path / "timeout"})


def test_libraries_of_a_program() -> None:
    found = image.libraries(image.find_program("dropbear"))
    assert "lib/libc.so.6" in found
    assert all(path.exists() for path in found.values())
    assert image.libraries(image.find_program("busybox")) == {}


def test_the_list_of_the_dynamic_linker() -> None:
    text = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n"
        "\tlibgone.so.2 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
    )
    assert image.parse_linker_list(text) == (
        ("libz.so.1", "/lib/x86_64-linux-gnu/libz.so.1"),
        ("libgone.so.2", None),
        ("ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
    )


@given(st.sampled_from([b"", b"\x7fELF", b"\x7fELF\2\1"]), st.binary(max_size=200))
def test_a_damaged_program_does_not_stop_the_image(magic: bytes, data: bytes) -> None:
    image.interpreter(magic + data)
    assert image.interpreter(data) is None or data.startswith(b"\x7fELF")


def test_a_run_gets_its_keys_and_the_base_stays_as_it_is(tmp_path: Path) -> None:
    base = base_image(tmp_path / "base", binaries={})
    before = base.read_bytes()
    keys = make_keys(tmp_path / "keys")
    made = run_image(tmp_path / "run", base, keys)
    assert base.read_bytes() == before
    data = made.read_bytes()
    assert data.startswith(before)
    members = unpack(data[len(before) :])
    assert members["root/.ssh/authorized_keys"] == (stat.S_IFREG | 0o600, f"{keys.client_public}\n".encode())
    assert members["etc/dropbear/dropbear_ed25519_host_key"] == (stat.S_IFREG | 0o600, keys.host_private)
    assert made.stat().st_mode & 0o777 == 0o600
    assert keys.client_private.read_bytes() not in data


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_image(tmp_path / "run", tmp_path / "no-base", make_keys(tmp_path / "keys"))
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_init_passes_shellcheck() -> None:
    subprocess.run(["shellcheck", image.GUEST_FILES / "init"], check=True)
