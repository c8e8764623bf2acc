"""Kernels in one file, from the job that built them to the jobs that run them: `rig export` and `rig import`.

A zip archive of what the store has of a series' kernels, the patches, and those few git objects of the base that the
stages after the build read. Its first member lists every other one with size and SHA-256.

`rig import` takes the kernels into a store. `rig test from=FILE` makes a store of their own of all of it, which knows
one base and builds nothing: no job then depends on what the base's source has become meanwhile.

An archive may come from anywhere. Nothing is written before the list was checked, nothing is published before every
hash was; its names are a closed set, and nothing in it runs on the host. Kernels and modules run in guests only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from rig import __version__
from rig.errors import ConfigError, HostError
from rig.front.ui import Ui
from rig.kernels import build
from rig.perturbation import kmod
from rig.pipeline import Pipeline
from rig.runs.results import from_json, to_json
from rig.settings.config import Config
from rig.store import IMPORTED, MANIFEST, Store, digest, file_digest, no_space_is_a_host_error, write_atomically
from rig.touches.targets import Found
from rig.trees import series
from rig.trees.series import Applied
from rig.trees.source import BaseTree, repository

FORMAT = 1
LISTING = "rig-export.json"
PACK = "git.pack"
KINDS = ("kconfig", "kernel", "targets", "kmod")
KERNEL_FILES = {"bzImage", "vmlinux", "config", "release", "warnings.json"}
LARGEST_LISTING = 16 << 20  # bytes
LARGEST = 64 << 30  # bytes of all that an archive unpacks to

_WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"
_OBJECT = re.compile(rf"objects/({'|'.join(KINDS)})/([0-9a-f]{{64}})/((?!{re.escape(MANIFEST)}$){_WORD})")
_PATCH = re.compile(r"series/\d{4}\.patch")
_HEX = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of an archive."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One kernel of an archive."""

    flavour: str
    prefix: int
    tree: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What an archive says of itself."""

    format: int
    rig: str  # version
    compiler: str
    base: BaseTree
    series: str  # its name
    series_key: str
    commits: tuple[str, ...]  # of the prefixes, the base first
    kernels: tuple[Packed, ...]
    members: tuple[Member, ...]


# -- export -----------------------------------------------------------------------------------------------------------


def export(pipeline: Pipeline, file: Path) -> Listing:
    """Write the kernels of the pipeline's cells into `file`, and what else their trials need, whole or not at all."""
    applied, kernels, store = pipeline.applied, pipeline.kernels, pipeline.store
    wanted = pipeline.config.accel
    for accelerator in ("tcg", "kvm") if wanted == "auto" else (wanted,):  # who imports it knows what runs there
        pipeline.stall_kit(kernels.values(), accelerator)
    built = {kernel.key for kernel in pipeline.every_kernel}
    places = {
        f"objects/{kind}/{key}/{path.name}": path
        for kind, key in sorted(store.used)
        if kind in KINDS and (kind != "kernel" or key in built)
        for path in sorted((store.root / "objects" / kind / key).iterdir())
        if path.name != MANIFEST
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with no_space_is_a_host_error(file.parent), tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as name:
        folder = Path(name)
        places[PACK] = _packed(applied, store, folder)
        for patch in applied.series.patches:
            place = f"series/{patch.number:04}.patch"
            places[place] = folder / f"{patch.number:04}.patch"
            places[place].write_bytes(patch.mail)
        made = Listing(
            format=FORMAT,
            rig=__version__,
            compiler=pipeline.builder.compiler,
            base=applied.base,
            series=re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._+-]", "", applied.series.name) or "series",
            series_key=applied.series.key,
            commits=tuple(prefix.commit for prefix in applied.prefixes),
            kernels=tuple(
                Packed(flavour=one.flavour, prefix=one.prefix, tree=one.tree, key=one.key)
                for one in pipeline.every_kernel
            ),
            members=tuple(
                Member(name=name, size=path.stat().st_size, sha256=file_digest(path)) for name, path in places.items()
            ),
        )
        _write(folder / "archive", made, places)
        (folder / "archive").replace(file)
    return made


#: What git insists on looking into before it takes a tree (fsck.c: gitattributesMissing, gitmodulesMissing).
LOOKED_AT = (".gitattributes", ".gitmodules")


def _packed(applied: Applied, store: Store, folder: Path) -> Path:
    """Return a git pack of the prefixes with those trees and blobs that are read after a build."""
    git = repository(store)
    blobs = {"Makefile", *applied.series.paths}
    trees = {str(parent) for path in (*blobs, *kmod.MATTERS) for parent in PurePosixPath(path).parents} - {"."}
    blobs |= {f"{folder}/{name}".removeprefix("./") for folder in (*trees, ".") for name in LOOKED_AT}
    wanted = [f"{prefix.commit}:{path}" for prefix in applied.prefixes for path in sorted(blobs | trees)]
    # What a prefix does not have is answered with `missing`.
    answers = git("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(wanted).encode())
    names = {line.split()[0] for line in answers.splitlines() if line.endswith((" blob", " tree"))}
    names |= {name for prefix in applied.prefixes for name in (prefix.commit, prefix.tree)}
    made = git("pack-objects", "-q", folder / "git", stdin="\n".join(sorted(names)).encode() + b"\n")
    return folder / f"git-{made}.pack"


def _write(target: Path, made: Listing, places: dict[str, Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        listing = json.dumps(to_json(made), indent=1).encode()
        archive.writestr(zipfile.ZipInfo(LISTING), listing, zipfile.ZIP_DEFLATED)
        for name, path in places.items():
            with path.open("rb") as source, archive.open(_info(name), "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # of 1980: the same kernels are the same bytes
    info.compress_type = zipfile.ZIP_STORED if name == PACK else zipfile.ZIP_DEFLATED
    return info


# -- import -----------------------------------------------------------------------------------------------------------


def read(file: Path) -> Listing:
    """Return what an archive holds; raises ConfigError when its list is not one or not that of its members."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _listing(archive)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such archive", hint="`rig export FILE` makes one") from None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, RecursionError, NotImplementedError) as error:
        raise ConfigError(f"{file}: not an archive of `rig export`: {error}", hint="do not use it") from None


def _listing(archive: zipfile.ZipFile) -> Listing:
    infos = {info.filename: info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise ValueError("a name stands twice in it")
    if LISTING not in infos or infos[LISTING].file_size > LARGEST_LISTING:
        raise ValueError(f"no sound {LISTING} in it")
    with archive.open(LISTING) as file:
        made = from_json(Listing, json.loads(file.read(LARGEST_LISTING)))
    if made.format != FORMAT:
        raise ValueError(f"format {made.format}, expected {FORMAT}")
    names = [member.name for member in made.members]
    if len(set(names)) != len(names) or {*names, LISTING} != set(infos):
        raise ValueError("its list is not that of its members")
    for member in made.members:
        info = infos[member.name]
        if not (member.name == PACK or _PATCH.fullmatch(member.name) or _OBJECT.fullmatch(member.name)):
            raise ValueError(f"a member {member.name[:80]!r}, which the rig does not know")
        if info.file_size != member.size or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.name}: not as it is listed")
    if sum(member.size for member in made.members) > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST >> 30} GiB")
    if not made.commits or not all(map(_HEX.fullmatch, (*made.commits, made.base.commit, made.base.tree))):
        raise ValueError("its commits are none")
    if made.commits[0] != made.base.commit or not re.fullmatch(_WORD, made.series):
        raise ValueError("its base or its series has no name")
    return made


def take_in(file: Path, store: Store) -> Listing:
    """Publish the kernels of an archive in a store; raises ConfigError, with nothing published, if it is unsound."""
    made = read(file)
    with _unpacked(file, made, store) as folder:
        _publish(Path(folder), made, store)
    return made


def open_store(file: Path, main: Store) -> Path:
    """Return the root of a store made of an archive, below the `main` one; raises ConfigError if it is unsound."""
    made = read(file)
    target = main.root / "imports" / digest(json.dumps(to_json(made), sort_keys=True))[:32]
    if (target / IMPORTED).is_file():
        os.utime(target)  # the mark that eviction goes by
        return target
    with _unpacked(file, made, main) as name:
        folder = Path(name)
        fresh = Store(folder / "store")
        _publish(folder, made, fresh)
        _take_git(folder / PACK, made, fresh)
        home = fresh.root / "series" / made.series
        home.mkdir(parents=True)
        for patch in sorted((folder / "series").iterdir()):
            shutil.move(patch, home / patch.name)
        patches = series.read(str(home))
        if patches.key != made.series_key or len(made.commits) != len(patches.patches) + 1:
            raise ConfigError(f"{file}: its patches are not those that it names", hint="do not use it")
        write_atomically(fresh.root / IMPORTED, json.dumps({"base": to_json(made.base), "compiler": made.compiler}))
        target.parent.mkdir(exist_ok=True)
        try:
            fresh.root.rename(target)
        except OSError:
            if not (target / IMPORTED).is_file():  # else another rig was quicker
                raise
    return target


def _unpacked(file: Path, made: Listing, store: Store) -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the members, every one as it is listed; raises ConfigError otherwise."""
    with no_space_is_a_host_error(store.root):
        free = shutil.disk_usage(store.root).free
        if sum(member.size for member in made.members) > free:
            raise HostError(f"{file}: unpacks to more than the {free >> 20} MiB that are free below {store.root}")
        folder = tempfile.TemporaryDirectory(prefix="import-", dir=store.root / "tmp")
        try:
            with zipfile.ZipFile(file) as archive:
                for member in made.members:
                    _extract(archive, member, Path(folder.name) / member.name)
            _check_objects(Path(folder.name), made)
        except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
            folder.cleanup()
            raise ConfigError(f"{file}: {error}", hint="it is damaged: export it again") from None
        except BaseException:
            folder.cleanup()
            raise
    return folder


def _extract(archive: zipfile.ZipFile, member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member.name) as source, target.open("xb") as sink:
        left = member.size
        while left and (data := source.read(min(left, 1 << 20))):
            sink.write(data)
            left -= len(data)
    if left or file_digest(target) != member.sha256:
        raise ValueError(f"{member.name} is not what its hash says")


def _check_objects(folder: Path, made: Listing) -> None:
    """Raise ValueError unless each kernel is that of its key, and the rest can be read as what it is."""
    objects = folder / "objects"
    if {path.name for path in (objects / "kernel").glob("*")} != {kernel.key for kernel in made.kernels}:
        raise ValueError("its kernels are not those that it lists")
    for kernel in made.kernels:
        home = objects / "kernel" / kernel.key
        if not {path.name for path in home.iterdir()} >= KERNEL_FILES:
            raise ValueError(f"kernel {kernel.key[:12]} is not whole")
        if build.key(kernel.tree, (home / "config").read_text(), made.compiler) != kernel.key:
            raise ValueError(f"kernel {kernel.key[:12]} is not one of its tree, configuration and compiler")
        if not re.fullmatch(_WORD, (home / "release").read_text().strip()):
            raise ValueError(f"kernel {kernel.key[:12]} has no release")
        warnings = json.loads((home / "warnings.json").read_text())
        if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
            raise ValueError(f"kernel {kernel.key[:12]}: its warnings are none")
    for found in (objects / "targets").glob("*/*"):
        from_json(Found, json.loads(found.read_text()))
    known = {(objects / "kernel" / kernel.key / "config").read_text() for kernel in made.kernels}
    if any(config.read_text() not in known for config in (objects / "kconfig").glob("*/*")):
        raise ValueError("a configuration of no kernel in it")


def _publish(folder: Path, made: Listing, store: Store) -> None:
    kinds = {tuple(member.name.split("/")[1:3]) for member in made.members if member.name.startswith("objects/")}
    for kind, key in sorted(kinds):
        if store.get(kind, key) is None:
            store.publish(kind, key, partial(_move, folder / "objects" / kind / key))


def _move(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.move(path, target / path.name)


def _take_git(pack: Path, made: Listing, store: Store) -> None:
    """Give a fresh store the commits of the prefixes; git itself checks that every object is what its name says."""
    git = repository(store)
    # The history before the base is not there, and need not be.
    (git.at / "shallow").write_text(f"{made.base.commit}\n")
    done = git.run("index-pack", "--stdin", "--fsck-objects", stdin=pack.read_bytes())
    trees = git.run("rev-parse", *(f"{commit}^{{tree}}" for commit in made.commits))
    if not done.ok or not trees.ok or trees.stdout.split()[0] != made.base.tree:
        raise ConfigError("the archive's commits are damaged: git refuses them", hint="export it again")
    if any(kernel.tree not in trees.stdout.split()[kernel.prefix : kernel.prefix + 1] for kernel in made.kernels):
        raise ConfigError("the archive holds a kernel of another tree than it says", hint="do not use it")
    for number, commit in enumerate(made.commits[1:], start=1):
        git("update-ref", f"{series.place(made.base.commit, made.series_key)}/{number}", commit)


@contextmanager
def used(config: Config, file: Path, ui: Ui) -> Iterator[Config]:
    """Yield the configuration with the store that the archive is; raises ConfigError for another compiler."""
    main = Store(config.store, say=partial(ui.stage, "store"))  # open meanwhile: nobody evicts what is below
    root = open_store(file, main)
    made = read(file)
    have = build.compiler()
    if made.compiler != have:
        raise ConfigError(
            f"{file}: its kernels were built with {made.compiler}, and this host has {have}",
            hint="use one image for the jobs that build and those that test",
        )
    ui.stage("import", f"{file.name}: {len(made.kernels)} kernels of {made.series} on {made.base.version}")
    yield config.model_copy(update={"store": root})
    del main


def contents(made: Listing) -> Iterable[str]:
    """Yield what is in an archive, a line each."""
    for kernel in made.kernels:
        yield f"{kernel.flavour} {'base' if kernel.prefix == 0 else f'base+{kernel.prefix}'}, tree {kernel.tree[:12]}"
