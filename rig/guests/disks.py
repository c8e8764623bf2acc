"""File systems under test: sparse raw images with a fresh file system, made without root.

A guest never writes to them (QEMU's snapshot mode), so one image serves every trial.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from rig import proc
from rig.errors import ConfigError, HostError

#: Raise when the options below change, so that stored images are made anew.
FORMAT = 1

_NAMESPACE = uuid.UUID("8b6f3c1e-6f5d-4f0e-9a43-4c1f3b1b7a52")
_SECONDS = 120.0


def disk_uuid(fs: str, size_mib: int) -> str:
    """Return the UUID of the file system: the same for the same request."""
    return str(uuid.uuid5(_NAMESPACE, f"{fs} {size_mib}"))


def _ext4(image: Path, size_mib: int) -> tuple[str, ...]:
    unique = disk_uuid("ext4", size_mib)
    # Nothing left for the guest's kernel to initialise in the background, where it would disturb the workload.
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    extended = f"hash_seed={unique},root_owner=0:0,{lazy}"
    return ("mke2fs", "-q", "-F", "-t", "ext4", "-U", unique, "-E", extended, str(image), f"{size_mib}M")


def _xfs(image: Path, size_mib: int) -> tuple[str, ...]:
    unique = disk_uuid("xfs", size_mib)
    return ("mkfs.xfs", "-q", "-f", "-m", f"uuid={unique}", "-d", f"file,name={image},size={size_mib}m")


#: File system → (command that makes it, the least it can be in MiB). mkfs.xfs refuses less than 300 MiB since 5.19.
#: A new file system is an entry here and a Kconfig symbol in kconfigs/base.config.
MAKERS: dict[str, tuple[Callable[[Path, int], tuple[str, ...]], int]] = {"ext4": (_ext4, 16), "xfs": (_xfs, 300)}

_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}

#: For mke2fs (1.47): the date of everything in the new file system.
_ENVIRONMENT = {"E2FSPROGS_FAKE_TIME": "1", "SOURCE_DATE_EPOCH": "1"}


def disk_inputs(fs: str, size_mib: int) -> tuple[tuple[str, str], ...]:
    """Return what an image is a function of, as (name, value) pairs to hash into a key.

    The version of the tool belongs to it, because it decides the features of the file system.
    """
    maker, _ = _maker(fs)
    command = maker(Path("image"), size_mib)
    done = proc.run([_tool(command[0]), "-V"], timeout=20)
    version = (done.stdout + done.stderr).strip().splitlines()
    return (
        ("format", str(FORMAT)),
        ("command", " ".join(command)),
        ("version", version[0] if version else ""),
        ("size", str(size_mib)),
    )


def _maker(fs: str) -> tuple[Callable[[Path, int], tuple[str, ...]], int]:
    if fs not in MAKERS:
        raise ConfigError(f"file system {fs!r}: expected one of {', '.join(MAKERS)}, or tmpfs, which needs no disk")
    return MAKERS[fs]


def _tool(name: str) -> Path:
    from rig.guests.image import find_program

    try:
        return find_program(name)
    except HostError as error:
        fs = "xfs" if "xfs" in name else "ext4"
        raise HostError(f"{name}: program not found", hint=f"apt install {_PACKAGES[fs]}") from error


def make_disk(target: Path, fs: str, size_mib: int) -> Path:
    """Write a raw image of `size_mib` MiB with a fresh `fs` (ext4 or xfs) to `target`, atomically, and return it.

    Raises ConfigError for an unknown file system or one too small, HostError when the tool is missing or fails.
    """
    maker, least = _maker(fs)
    if size_mib < least:
        raise ConfigError(f"a disk of {size_mib} MiB is too small for {fs}: it needs {least} MiB or more")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        image = Path(folder, "image")
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        name, *rest = maker(image, size_mib)
        done = proc.run([_tool(name), *rest], timeout=_SECONDS, env=_ENVIRONMENT)
        if not done.ok:
            why = "timed out" if done.timed_out else (done.stderr.strip() or "no output").splitlines()[-1]
            raise HostError(f"{name} fails to make a {fs} of {size_mib} MiB: {why}")
        image.rename(target)
    return target
