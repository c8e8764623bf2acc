"""The content-addressed store: what is expensive is made once, published atomically and verified when read.

    objects/<kind>/<key>/   finished things with a manifest of their hashes, never changed after the rename
    work/<name>/            object directories and checkouts that builds change in place, each below a lock
    imports/<key>/          stores of their own, made of archives (see jobs/archive.py)
    linux.git               every base tree and every prefix (see trees/source.py and trees/series.py)
    locks/, tmp/

Several rigs may share a store. A reader holds a shared lock on the store as a whole; only eviction wants it alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rig.clock import Deadline, sleep
from rig.errors import HostError

MANIFEST = "manifest.json"
IMPORTED = "import.json"  # in a store that was made of an archive, see jobs/archive.py
_CHUNK = 1 << 20


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of the parts, each with its length before it so that no two lists collide."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Write a file, whole or in pieces, so that a reader sees the old bytes or the new ones, also after a power cut."""
    pieces = [data.encode()] if isinstance(data, str) else [data] if isinstance(data, bytes) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def no_space_is_a_host_error(where: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a HostError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(where).free // 2**20
            raise HostError(
                f"no space left below {where} ({free} MiB free)",
                hint="`rig clean` empties the store; store=DIR or out=DIR puts it elsewhere",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise HostError(
                f"{error.filename or where}: {error.strerror}", hint="store=DIR or out=DIR puts it elsewhere"
            ) from error
        raise


class Store:
    """A store at `root`, made when it is not there."""

    def __init__(self, root: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._say = say
        with no_space_is_a_host_error(root.parent):
            for name in ("objects", "work", "locks", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._users = os.open(root / "locks" / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.used: set[tuple[str, str]] = set()  # (kind, key) of the objects that were asked for and are there
        weakref.finalize(self, os.close, self._users)
        fcntl.flock(self._users, fcntl.LOCK_SH)

    @cached_property
    def imported(self) -> Mapping[str, Any] | None:
        """What is known of a store that was made of an archive: its one base and the compiler; None of any other."""
        file = self.root / IMPORTED
        return json.loads(file.read_text()) if file.exists() else None

    def work(self, name: str) -> Path:
        """Return a folder that is changed in place; hold `lock(name)` while changing it."""
        path = self.root / "work" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def lock(self, name: str, *, seconds: float = 7200) -> Iterator[None]:
        """Hold the lock `name` against other rigs and other threads; raises HostError when it is not had in time."""
        with (self.root / "locks" / name.replace("/", "-")).open("w") as file:
            deadline, told = Deadline(seconds), False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        self._say(f"waiting for another rig that uses {name}")
                        told = True
                    if deadline.expired:
                        raise HostError(f"another rig has used {name} for {seconds:.0f} s") from None
                    sleep(0.2)
            yield

    def get(self, kind: str, key: str) -> Path | None:
        """Return the folder of a finished object, its bytes verified, or None; a damaged one is removed."""
        path = self.root / "objects" / kind / key
        manifest = path / MANIFEST
        try:
            expected: dict[str, str] = json.loads(manifest.read_text())
            sound = all(file_digest(path / name) == value for name, value in expected.items())
        except FileNotFoundError:
            sound = not path.exists()
            if sound:
                return None
        except (OSError, ValueError, AttributeError):
            sound = False
        if not sound:
            self._say(f"the store's {kind} {key[:12]} is damaged: it is made again")
            self._discard(path)
            return None
        os.utime(manifest)  # the mark that eviction goes by
        self.used.add((kind, key))
        return path

    def publish(self, kind: str, key: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write into a fresh folder and publish it atomically; returns where it is then.

        When another rig was quicker its object is kept, as both are the same. Raises HostError on a full disk.
        """
        target = self.root / "objects" / kind / key
        with no_space_is_a_host_error(self.root):
            fresh = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.root / "tmp"))
            try:
                fill(fresh)
                files = sorted(path for path in fresh.rglob("*") if path.is_file())
                manifest = {str(path.relative_to(fresh)): file_digest(path) for path in files}
                for path in files:
                    _sync(path)
                write_atomically(fresh / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    fresh.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                _sync(target.parent)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        self.used.add((kind, key))
        return target

    def size(self) -> int:
        """Return the bytes on disk of all that is in the store."""
        return sum(_usage(path) for path in self._evictable()) + _usage(self.root / "linux.git")

    def evict(self, limit: int) -> tuple[str, ...]:
        """Remove what was used least recently until at most `limit` bytes are left; returns what went.

        Nothing is removed while another rig uses the store.
        """
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ()
        try:
            gone: list[str] = []
            total = self.size()
            for path in sorted(self._evictable(), key=_last_use):
                if total <= limit:
                    break
                total -= _usage(path)
                self._discard(path)
                gone.append(str(path.relative_to(self.root)))
            return tuple(gone)
        finally:
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def clean(self) -> int:
        """Empty the store and return the bytes freed; raises HostError while another rig uses it."""
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError("the store is in use by another rig", hint="wait for it to end") from None
        freed = self.size()
        for name in ("objects", "work", "tmp", "imports", "linux.git"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        fcntl.flock(self._users, fcntl.LOCK_SH)
        return freed

    def _evictable(self) -> Iterable[Path]:
        yield from (self.root / "objects").glob("*/*")
        yield from (self.root / "work").iterdir()
        yield from (self.root / "tmp").iterdir()
        yield from (self.root / "imports").glob("*")

    def _discard(self, path: Path) -> None:
        # Renamed first: a reader must never find half an object.
        grave = Path(tempfile.mkdtemp(prefix="gone-", dir=self.root / "tmp"))
        with contextlib.suppress(FileNotFoundError):
            path.rename(grave / "it")
        shutil.rmtree(grave, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _usage(path: Path) -> int:
    if not path.is_dir():
        return 0
    return sum(entry.lstat().st_blocks * 512 for entry in path.rglob("*"))


def _last_use(path: Path) -> float:
    mark = path / MANIFEST
    with contextlib.suppress(OSError):
        return (mark if mark.exists() else path).stat().st_mtime
    return 0.0
