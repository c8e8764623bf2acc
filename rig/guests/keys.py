"""The SSH keys of one run: made for it, pinned, and gone with it.

The client's key opens the guests of this run and nothing else; the guest's host key is made on the host, so that the
client knows it before the first connection and never has to trust what it is shown.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from pathlib import Path

from rig.errors import HostError

#: The name under which the host key is pinned. Ports change from guest to guest; this does not.
HOST_ALIAS = "rig-guest"

_CLIENT, _CLIENT_PUBLIC = "id_ed25519", "id_ed25519.pub"
_HOST, _HOST_PUBLIC = "dropbear_ed25519_host_key", "host_ed25519.pub"
_KNOWN_HOSTS = "known_hosts"
_KIND = b"ssh-ed25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKeys:
    """The two key pairs of a run. The private files have mode 0600."""

    client_private: Path  # OpenSSH format
    client_public: str  # one line for authorized_keys
    host_private: bytes  # dropbear's format
    host_public: str  # "ssh-ed25519 AAAA..."
    known_hosts: Path  # for ssh(1); pins the host key to HOST_ALIAS


def _string(data: bytes) -> bytes:
    """SSH's wire format of a string (RFC 4251, 5)."""
    return struct.pack(">I", len(data)) + data


def _public_line(public: bytes) -> str:
    return f"{_KIND.decode()} {base64.b64encode(_string(_KIND) + _string(public)).decode()}"


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a new file that never had a wider mode than `mode`."""
    path.unlink(missing_ok=True)
    path.touch(mode=mode, exist_ok=False)
    path.write_bytes(data)


def make_keys(directory: Path) -> RunKeys:
    """Make the keys of a run below `directory` (created with mode 0700 when missing) and return them."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    def public(key: Ed25519PrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    seed = host.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(
        directory / _CLIENT,
        client.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        0o600,
    )
    _write(directory / _CLIENT_PUBLIC, f"{_public_line(public(client))} rig\n".encode(), 0o644)
    # dropbear's file: the kind, then the 32-byte seed and the 32-byte public key as one string.
    _write(directory / _HOST, _string(_KIND) + _string(seed + public(host)), 0o600)
    _write(directory / _HOST_PUBLIC, f"{_public_line(public(host))}\n".encode(), 0o644)
    _write(directory / _KNOWN_HOSTS, f"{HOST_ALIAS} {_public_line(public(host))}\n".encode(), 0o644)
    return load_keys(directory)


def load_keys(directory: Path) -> RunKeys:
    """Return the keys that make_keys() left in `directory`; raises HostError when they are not all there."""
    try:
        private = directory / _CLIENT
        if private.stat().st_mode & 0o077:
            raise HostError(f"{private}: the key is readable by others", hint="chmod 600, or delete the run's keys")
        return RunKeys(
            client_private=private,
            client_public=(directory / _CLIENT_PUBLIC).read_text().strip(),
            host_private=(directory / _HOST).read_bytes(),
            host_public=(directory / _HOST_PUBLIC).read_text().strip(),
            known_hosts=directory / _KNOWN_HOSTS,
        )
    except OSError as error:
        raise HostError(f"{directory}: the keys of the run cannot be read: {error.strerror}") from error


def ssh_argv(keys: RunKeys, port: int) -> tuple[str, ...]:
    """Return the ssh(1) command that logs in to a guest of this run, its host key checked against the pinned one."""
    options = {
        "IdentityFile": keys.client_private,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": keys.known_hosts,
        "GlobalKnownHostsFile": "none",
        "HostKeyAlias": HOST_ALIAS,
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ("ssh", "-F", "none", *words, "-p", str(port), "root@127.0.0.1")
