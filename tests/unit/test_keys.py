"""Keys of a run: private, pinned, and understood by the programs that read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rig.errors import HostError
from rig.guests.keys import HOST_ALIAS, load_keys, make_keys, ssh_argv


def test_private_files_are_private(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    assert keys.client_private.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "keys").iterdir():
        if b"PRIVATE" in file.read_bytes() or file.name.startswith("dropbear"):
            assert file.stat().st_mode & 0o077 == 0


def test_keys_are_new_each_time_and_load_as_made(tmp_path: Path) -> None:
    first = make_keys(tmp_path / "one")
    assert load_keys(tmp_path / "one") == first
    second = make_keys(tmp_path / "two")
    assert first.client_public != second.client_public
    assert first.host_public != second.host_public
    again = make_keys(tmp_path / "one")
    assert again.host_public != first.host_public


def test_missing_keys_are_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        load_keys(tmp_path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path).client_private.chmod(0o644)
    with pytest.raises(HostError, match="readable by others"):
        load_keys(tmp_path)


def test_paramiko_reads_the_client_key(tmp_path: Path) -> None:
    from paramiko import Ed25519Key

    keys = make_keys(tmp_path)
    key = Ed25519Key.from_private_key_file(str(keys.client_private))
    assert keys.client_public.startswith(f"ssh-ed25519 {key.get_base64()}")


@pytest.mark.skipif(shutil.which("dropbearkey") is None, reason="dropbearkey is not installed")
def test_dropbear_reads_the_host_key(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    shown = subprocess.run(
        ["dropbearkey", "-y", "-f", tmp_path / "dropbear_ed25519_host_key"], capture_output=True, text=True, check=True
    )
    assert keys.host_public in shown.stdout


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_openssh_finds_the_pinned_host_key(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    found = subprocess.run(
        ["ssh-keygen", "-F", HOST_ALIAS, "-f", keys.known_hosts], capture_output=True, text=True, check=True
    )
    assert keys.host_public in found.stdout


def test_host_keys_are_always_checked(tmp_path: Path) -> None:
    command = ssh_argv(make_keys(tmp_path), 2222)
    assert "StrictHostKeyChecking=yes" in command
    assert f"HostKeyAlias={HOST_ALIAS}" in command
    assert command[-3:] == ("-p", "2222", "root@127.0.0.1")
