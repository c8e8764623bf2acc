"""The guest image: a deterministic initramfs, written without root.

Two parts, one file: the base (busybox, dropbear, the workloads, /init) depends only on the bytes that go in and can be
kept in the store; the keys of a run are appended as a second archive, which the kernel unpacks over the first
(Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rig import proc
from rig.errors import ConfigError, HostError
from rig.guests.keys import RunKeys
from rig.store import write_atomically

#: Raise when the layout of the image changes in a way its inputs do not show.
FORMAT = 1

GUEST_FILES = Path(__file__).parent / "guestfiles"

_DIRECTORIES = (
    *("dev", "proc", "sys", "run", "tmp", "mnt", "mnt/test", "etc", "etc/dropbear", "root", "root/.ssh", "var"),
    *("var/log", "lib", "usr", "usr/bin", "usr/sbin", "usr/local", "usr/local/bin"),
)
#: Merged /usr, and one flat folder of libraries that every distribution's dynamic linker searches.
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib64": "lib",
    "usr/lib": "../lib",
    "usr/lib64": "../lib",
    "var/run": "../run",
}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "rig-guest\n",
    "etc/fstab": (
        "proc /proc proc defaults 0 0\n"
        "sys /sys sysfs defaults 0 0\n"
        "pts /dev/pts devpts mode=620,ptmxmode=666 0 0\n"
        "shm /dev/shm tmpfs mode=1777 0 0\n"
        "debug /sys/kernel/debug debugfs nofail 0 0\n"
        "trace /sys/kernel/tracing tracefs nofail 0 0\n"
    ),
}
#: Debian packages that hold what the image needs, for the hint when it is missing.
_PACKAGES = {"busybox": "busybox-static", "dropbear": "dropbear-bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of the archive. Regular files have `data` or `source`, links have their target in `data`."""

    path: str  # relative to the guest's root
    mode: int  # type and permission bits
    data: bytes = b""
    source: Path | None = None
    device: tuple[int, int] = (0, 0)

    def read(self) -> bytes:
        """Return the contents."""
        return self.source.read_bytes() if self.source else self.data


def _pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _member(entry: Entry, number: int) -> Iterator[bytes]:
    """One member in the newc format: owned by root, dated 1970, so that the same contents give the same bytes."""
    data, name = entry.read(), entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(data), 0, 0, *entry.device, len(name), 0)
    yield _pad(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    yield _pad(data)


def archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Return a cpio archive (newc) of `entries` in the order given, in pieces; a multiple of 512 bytes long."""
    length = 0
    trailer = Entry(path="TRAILER!!!", mode=0)
    for number, entry in enumerate((*entries, trailer), start=1):
        for piece in _member(entry, number if entry is not trailer else 0):
            length += len(piece)
            yield piece
    yield b"\0" * (-length % 512)


def _directory(path: str) -> Entry:
    mode = {"tmp": 0o1777, "root": 0o700, "root/.ssh": 0o700, "etc/dropbear": 0o700}.get(path, 0o755)
    return Entry(path=path, mode=stat.S_IFDIR | mode)


def _program(path: str, source: Path) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | 0o755, source=source)


def _link(path: str, target: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def _file(path: str, data: bytes, mode: int) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | mode, data=data)


def find_program(name: str) -> Path:
    """Return the path of host program `name` (a name on PATH or in an sbin folder, or a path); else HostError."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    found = shutil.which(name, path=search)
    if found is None:
        package = _PACKAGES.get(name)
        hint = f"apt install {package}" if package else "install it, or take it out of the configuration"
        raise HostError(f"{name}: program not found; the guest image needs it", hint=hint)
    return Path(found)


def interpreter(elf: bytes) -> str | None:
    """Return the dynamic linker that an ELF file names (PT_INTERP), or None for a static one or another format."""
    if elf[:6] != b"\x7fELF\2\1" or len(elf) < 64:  # 64-bit, little endian: x86-64
        return None
    offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    for header in (offset + size * index for index in range(count)):
        if header + 40 > len(elf):
            return None  # cut short; the guest will say so
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", elf, header)
        if kind == 3:
            return elf[start : start + length].rstrip(b"\0").decode(errors="replace")
    return None


def parse_linker_list(text: str) -> tuple[tuple[str, str | None], ...]:
    """Parse what `ld.so --list` prints into (soname, path) pairs; the path is None where it was not found."""
    pairs: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow:
            pairs.append((name, None if rest.startswith("not found") else rest.rpartition(" (")[0]))
        elif name.startswith("/"):
            path = name.rpartition(" (")[0]
            pairs.append((PurePosixPath(path).name, path))
    return tuple(pairs)


def libraries(program: Path) -> dict[str, Path]:
    """Return soname → host path of every library `program` loads, its dynamic linker included; empty when static."""
    linker = interpreter(program.read_bytes())
    if linker is None:
        return {}
    found = {linker.lstrip("/"): Path(linker)}
    done = proc.run([linker, "--list", program], timeout=20)
    if not done.ok:
        raise HostError(f"{program}: its libraries cannot be listed: {done.stderr.strip() or done.status}")
    for name, path in parse_linker_list(done.stdout):
        if path is None:
            raise HostError(f"{program}: its library {name} is not on this host")
        if path != linker:
            found[f"lib/{name}"] = Path(path)
    return found


def _applets(busybox: Path) -> tuple[str, ...]:
    """Names of the commands this busybox is; `sh` must be one."""
    names = proc.check([busybox, "--list"], timeout=20).split()
    if "sh" not in names or interpreter(busybox.read_bytes()) is not None:
        raise HostError(f"{busybox}: not a static busybox with a shell", hint="apt install busybox-static")
    return tuple(sorted(names))


def contents(binaries: Mapping[str, Path], extra: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Return the members of the base image: `binaries` (name in the guest → host path) and `extra` host programs.

    An extra program with the name of a busybox command has to be called by its path (/usr/bin/NAME), because busybox's
    shell prefers its own. Raises HostError for a program or library that this host lacks, ConfigError for a workload
    that could never be called.
    """
    busybox = find_program("busybox")
    applets = _applets(busybox)
    if hidden := sorted(set(binaries) & set(applets)):
        raise ConfigError(f"workload {hidden[0]}: the guest's busybox has a command of that name", hint="rename it")
    programs = {"usr/bin/busybox": busybox, "usr/sbin/dropbear": find_program("dropbear")}
    programs |= {f"usr/bin/{path.name}": path for path in map(find_program, extra)}
    programs |= {f"usr/bin/{name}": path for name, path in binaries.items()}
    libs: dict[str, Path] = {}
    for source in programs.values():
        try:
            libs |= libraries(source)
        except OSError as error:
            raise HostError(f"{source}: cannot be read for the guest image: {error.strerror}") from error

    directories = set(_DIRECTORIES)
    files: dict[str, Entry] = {"init": _program("init", GUEST_FILES / "init")}
    for path, text in _TEXTS.items():
        files[path] = _file(path, text.encode(), 0o644)
    for path, target in _LINKS.items():
        files[path] = _link(path, target)
    for name in applets:
        files[f"usr/bin/{name}"] = _link(f"usr/bin/{name}", "busybox")
    for path, source in {**libs, **programs}.items():
        place = path.replace("lib64/", "lib/", 1) if path.startswith("lib64/") else path
        directories |= {str(parent) for parent in PurePosixPath(place).parents if str(parent) != "."}
        files[place] = _program(place, source)
    # The kernel opens /dev/console for init before init can mount devtmpfs.
    files["dev/console"] = Entry(path="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1))
    return (
        *(_directory(path) for path in sorted(directories)),
        *(files[path] for path in sorted(files)),
    )


def fingerprint(entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """Return (path and mode, SHA-256 of the contents) of every member: what the base image is a function of."""
    rows = ((f"{entry.path} {entry.mode:o} {entry.device}", entry.read()) for entry in entries)
    return (("format", str(FORMAT)), *((name, hashlib.sha256(data).hexdigest()) for name, data in rows))


def image_inputs(binaries: Mapping[str, Path], extra: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return what the bytes of base_image() depend on, as (name, value) pairs to hash into a key."""
    return fingerprint(contents(binaries, extra))


def base_image(target: Path, *, binaries: Mapping[str, Path], extra: Sequence[str] = ()) -> Path:
    """Write the base image to `target` and return it. The same inputs give the same bytes."""
    write_atomically(target, archive(contents(binaries, extra)))
    return target


def overlay(keys: RunKeys) -> bytes:
    """Return the archive that gives the base image the keys of a run."""
    return b"".join(
        archive(
            (
                _directory("root"),
                _directory("root/.ssh"),
                _file("root/.ssh/authorized_keys", f"{keys.client_public}\n".encode(), 0o600),
                _directory("etc"),
                _directory("etc/dropbear"),
                _file("etc/dropbear/dropbear_ed25519_host_key", keys.host_private, 0o600),
            )
        )
    )


def run_image(target: Path, base: Path, keys: RunKeys) -> Path:
    """Write to `target` the image that a run boots: the base, then its keys (mode 0600, it holds a private one)."""
    write_atomically(target, (base.read_bytes(), overlay(keys)), mode=0o600)
    return target
