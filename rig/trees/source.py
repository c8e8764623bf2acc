"""Base trees: whatever the configuration names becomes one pinned commit in the store's own repository.

A tarball is never unpacked: its members stream into `git fast-import`, which is quicker than unpacking and adding, does
not care for a `.gitignore` that ends in `/*` (Debian's does), and has no folder that a hostile member could leave.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rig import proc
from rig.errors import ConfigError, HostError
from rig.store import Store, digest
from rig.trees.git import Git

FORMS = "debian:PACKAGE, git:URL-OR-PATH#REF, tarball:PATH-OR-URL or dir:PATH"
_EPOCH = "946684800 +0000"  # 2000-01-01: the commit of a tree depends on the tree alone


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTree:
    """A base in the store's repository."""

    source: str  # as configured
    version: str  # of the package, or `make kernelversion`
    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    mode: str
    size: int
    open: Callable[[], IO[bytes]] | None
    target: str = ""


def repository(store: Store) -> Git:
    """Return the store's repository, made when it is not there."""
    path = store.root / "linux.git"
    if not (path / "HEAD").exists():
        path.mkdir(exist_ok=True)
        Git(path)("init", "--quiet", "--bare")
        # Sparse checkouts keep settings of their own, and then `bare` is a setting of the repository's own, too.
        Git(path)("config", "extensions.worktreeConfig", "true")
        Git(path)("config", "--worktree", "core.bare", "true")
        Git(path)("config", "--unset", "core.bare")
    return Git(path)


def resolve(source: str, version: str | None, store: Store, *, say: Callable[[str], None] = lambda _: None) -> BaseTree:
    """Return the base tree that `source` names, importing it into the store when it is not there yet.

    Raises ConfigError for a source that is not of a known form, not there or not of the pinned version.
    """
    if kept := store.imported:
        if source != kept["base"]["source"] or version not in (None, kept["base"]["version"]):
            raise ConfigError(
                f"kernel.source: the imported archive is of {kept['base']['source']} ({kept['base']['version']}), "
                f"not of {source}" + (f" ({version})" if version else "")
            )
        return BaseTree(**kept["base"])
    kind, _, rest = source.partition(":")
    if kind not in _KINDS or not rest:
        raise ConfigError(f"kernel.source: {source!r}, expected {FORMS}")
    with store.lock("linux.git"):
        git = repository(store)
        commit = _KINDS[kind](rest, git, store, say)
        text, tree = git("log", "-1", "--format=%B", commit), git.trees_of([commit])[0]
    found = (
        text.splitlines()[0].removeprefix("rig base ") if text.startswith("rig base ") else _kernel_version(git, commit)
    )
    if version is not None and version not in (found, _kernel_version(git, commit)):
        raise ConfigError(
            f"kernel.version: {source} is version {found}, expected {version}",
            hint="install that version, or change or remove kernel.version",
        )
    return BaseTree(source=source, version=found, commit=commit, tree=tree)


def _kernel_version(git: Git, commit: str) -> str:
    done = git.run("show", f"{commit}:Makefile")
    fields = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)$", done.stdout, re.MULTILINE))
    if not done.ok or not {"VERSION", "PATCHLEVEL"} <= fields.keys():
        raise ConfigError("kernel.source: no kernel tree (its Makefile gives no VERSION and PATCHLEVEL)")
    return f"{fields['VERSION']}.{fields['PATCHLEVEL']}.{fields.get('SUBLEVEL') or 0}{fields.get('EXTRAVERSION', '')}"


# -- the four forms ---------------------------------------------------------------------------------------------------


def _debian(package: str, git: Git, store: Store, say: Callable[[str], None]) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", package):
        raise ConfigError(f"kernel.source: {package!r} is no Debian package name")
    shown = proc.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package], timeout=30)
    state, _, version = shown.stdout.partition(" ")
    archive = Path("/usr/src") / f"{package}.tar.xz"
    if not (shown.ok and state == "installed" and archive.exists()):
        archive, version = _downloaded(package, store, say)
    return _archive(archive, git, say, version=version)


def _downloaded(package: str, store: Store, say: Callable[[str], None]) -> tuple[Path, str]:
    """Fetch a source package with apt as an ordinary user, without installing it."""
    work = store.work(f"debian-{package}")
    packed = sorted(work.glob(f"{package}_*.deb"))
    if not packed:
        say(f"{package} is not installed: downloading it with apt")
        done = proc.run(["apt-get", "download", package], timeout=1800, cwd=work)
        packed = sorted(work.glob(f"{package}_*.deb"))
        if not done.ok or not packed:
            why = (done.stderr.strip() or "no output").splitlines()[-1]
            raise HostError(
                f"{package} is neither installed nor can apt download it: {why}", hint=f"apt-get install {package}"
            )
    proc.check(["dpkg-deb", "-x", packed[-1], work / "unpacked"], timeout=600)
    version = proc.check(["dpkg-deb", "-f", packed[-1], "Version"], timeout=30).strip()
    return work / "unpacked/usr/src" / f"{package}.tar.xz", version


def _tarball(rest: str, git: Git, store: Store, say: Callable[[str], None]) -> str:
    if not re.match(r"^https?://", rest):
        return _archive(Path(rest).expanduser(), git, say)
    import urllib.request

    target = store.work("downloads") / digest(rest)[:16]
    if not target.exists():
        say(f"downloading {rest}")
        partial = target.with_suffix(".partial")
        try:
            with urllib.request.urlopen(rest, timeout=60) as answer, partial.open("wb") as file:  # noqa: S310  # scheme checked
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
        except OSError as error:
            raise HostError(f"{rest}: cannot be downloaded: {error}") from error
        partial.replace(target)
    return _archive(target, git, say)


def _git(rest: str, git: Git, _store: Store, say: Callable[[str], None]) -> str:
    url, _, ref = rest.partition("#")
    if url.startswith("-") or ref.startswith("-"):
        raise ConfigError(f"kernel.source: git:{rest} is not an address")
    local = Path(url).expanduser()
    remote = str(local.resolve()) if local.exists() else url
    cached = f"refs/rig/source/{digest('git', remote, ref)[:32]}"
    pinned = re.fullmatch(r"[0-9a-f]{40}", ref) is not None
    if pinned and (commit := git.commit_of(cached)):
        return commit
    say(f"fetching {ref or 'HEAD'} of {url}")
    # A shallow fetch of a far repository: gigabytes of history would serve nothing here.
    depth = () if local.exists() else ("--depth=1",)
    done = git.run("fetch", "--quiet", "--no-tags", *depth, "--", remote, f"+{ref or 'HEAD'}:{cached}", timeout=7200)
    if not done.ok and local.exists():  # an abbreviated hash or `v6.12~3`: only the repository itself can tell
        commit = Git(local).commit_of(ref or "HEAD")
        if commit:
            done = git.run("fetch", "--quiet", "--no-tags", "--", remote, f"+{commit}:{cached}", timeout=7200)
    commit = git.commit_of(cached)
    if not done.ok or commit is None:
        why = (done.stderr.strip() or "no such ref").splitlines()[-1]
        raise ConfigError(f"kernel.source: git:{rest}: {why}", hint="expected git:URL-OR-PATH#REF")
    return commit


def _dir(rest: str, git: Git, _store: Store, say: Callable[[str], None]) -> str:
    root = Path(rest).expanduser().resolve()
    if not (root / "Makefile").exists():
        raise ConfigError(f"kernel.source: dir:{rest}: no kernel tree there (no Makefile)")
    names = list(_names_in(root))
    marks = []
    for name in names:
        status = (root / name).lstat()
        marks.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_mode}")
    entries = (_file_entry(root, name) for name in names)
    return _imported(digest("dir", str(root), *marks), entries, git, say, label=f"dir:{root}")


def _names_in(root: Path) -> Iterator[str]:
    if (root / ".git").exists():  # what git knows or would add: no object files of an in-tree build
        listed = Git(root)("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        yield from (name for name in sorted(set(listed)) if name and os.path.lexists(root / name))
        return
    for folder, folders, files in os.walk(root):
        folders.sort()
        at = Path(folder)
        links = [name for name in folders if (at / name).is_symlink()]
        yield from (str((at / name).relative_to(root)) for name in sorted([*files, *links]))


def _file_entry(root: Path, name: str) -> _Entry:
    path = root / name
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return _Entry(name, "120000", 0, None, str(path.readlink()))
    return _Entry(name, "100755" if status.st_mode & 0o100 else "100644", status.st_size, lambda: path.open("rb"))


_KINDS: dict[str, Callable[[str, Git, Store, Callable[[str], None]], str]] = {
    "debian": _debian,
    "tarball": _tarball,
    "git": _git,
    "dir": _dir,
}

# -- streaming into git -----------------------------------------------------------------------------------------------


def _archive(archive: Path, git: Git, say: Callable[[str], None], *, version: str = "") -> str:
    try:
        status = archive.stat()
    except OSError as error:
        raise ConfigError(f"kernel.source: {archive}: {error.strerror}", hint=f"expected {FORMS}") from error
    mark = digest("tar", str(archive.resolve()), str(status.st_size), str(status.st_mtime_ns), version)
    try:
        with _decompressed(archive) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            return _imported(mark, _tar_entries(tar, archive.name), git, say, label=version or archive.name)
    except (tarfile.TarError, EOFError) as error:
        raise ConfigError(f"kernel.source: {archive}: not a sound tar archive: {error}") from error


@contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    """Open the archive's bytes, unpacked by a process of its own where it is xz: that fills the second core."""
    with archive.open("rb") as file:
        if file.read(6) != b"\xfd7zXZ\x00":
            file.seek(0)
            yield file
            return
    with proc.Child(["xz", "-dc", "-T0", archive], stdout=proc.PIPE) as child:
        assert child.popen.stdout is not None
        yield child.popen.stdout


def _tar_entries(tar: tarfile.TarFile, name: str) -> Iterator[_Entry]:
    """Yield the files of a tarball without its top folder; refuses members that would leave it."""
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or ".git" in parts:
            raise ConfigError(
                f"kernel.source: {name}: member {member.name!r} leaves the folder", hint="do not use this archive"
            )
        path = "/".join(part for part in parts if part != ".").partition("/")[2]
        if not path or member.isdir():
            continue
        if member.issym():
            yield _Entry(path, "120000", 0, None, member.linkname)
        elif member.isfile():
            mode = "100755" if member.mode & 0o100 else "100644"
            yield _Entry(path, mode, member.size, lambda m=member: _extracted(tar, m))  # type: ignore[misc]
        else:
            raise ConfigError(
                f"kernel.source: {name}: member {member.name!r} is neither file, folder nor symbolic link"
            )


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None  # regular files only come here
    return file


def _imported(mark: str, entries: Iterable[_Entry], git: Git, say: Callable[[str], None], *, label: str) -> str:
    """Return the commit of a tree, streaming it in when the repository does not have the mark yet."""
    ref = f"refs/rig/source/{mark[:32]}"
    if commit := git.commit_of(ref):
        return commit
    say(f"importing {label} into the store (once)")
    message = f"rig base {label}\n".encode()
    argv = git.argv("fast-import", "--quiet", "--force", "--done", "--depth=0")
    with proc.Child(argv, env=git.environment(), stdin=proc.PIPE, stderr=proc.PIPE) as child:
        sink = child.popen.stdin
        assert sink is not None
        assert child.popen.stderr is not None
        try:
            sink.write(b"commit %s\ncommitter rig <rig@localhost> %s\n" % (ref.encode(), _EPOCH.encode()))
            sink.write(b"data %d\n%s\ndeleteall\n" % (len(message), message))
            for entry in entries:
                _write(sink, entry)
            sink.write(b"done\n")
            sink.close()
        except BrokenPipeError:
            pass  # its own words follow
        if child.wait(600) != 0:
            words = child.popen.stderr.read().decode(errors="replace").strip().splitlines() or ["no output"]
            raise HostError(f"git fast-import of {label} failed: {words[0]}", evidence=git.at)
    commit = git.commit_of(ref)
    if commit is None:
        raise HostError(f"git fast-import of {label} left no commit", evidence=git.at)
    _kernel_version(git, commit)
    return commit


def _write(sink: IO[bytes], entry: _Entry) -> None:
    quoted = (
        entry.path.encode("utf-8", "surrogateescape")
        .replace(b"\\", b"\\\\")
        .replace(b'"', b'\\"')
        .replace(b"\n", b"\\n")
    )
    sink.write(b'M %s inline "%s"\n' % (entry.mode.encode(), quoted))
    if entry.open is None:
        target = entry.target.encode("utf-8", "surrogateescape")
        sink.write(b"data %d\n%s\n" % (len(target), target))
        return
    with entry.open() as file:
        data = file.read()
    sink.write(b"data %d\n%s\n" % (len(data), data))
