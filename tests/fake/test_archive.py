"""Archives of kernels that were tampered with: nothing of them gets anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fakelinux
import pytest
from fakelinux import GOOD

from rig.errors import ConfigError, HostError
from rig.front.ui import Ui
from rig.jobs import archive
from rig.kernels import build
from rig.pipeline import Options, Pipeline
from rig.settings.config import Config
from rig.settings.reading import load
from rig.store import Store

Edit = Callable[[dict[str, bytes], dict[str, Any]], None]


@pytest.fixture
def config(tmp_path: Path, tree: Path, fragments: Path) -> Config:
    fakelinux.make_series(tree, tmp_path / "demo", [GOOD])
    file = tmp_path / "rig.yaml"
    file.write_text(
        f"kernel: {{source: 'git:{tree}#main'}}\nseries: demo\nstore: store\n"
        "machines: {small: {cpus: 2}}\nworkloads: {race: {}}\n"
    )
    return load(file)


@pytest.fixture
def exported(tmp_path: Path, config: Config) -> Path:
    """An archive of two kernels."""
    archive.export(Pipeline(config, Options(jobs=2), Ui(quiet=True)), tmp_path / "good.rig")
    return tmp_path / "good.rig"


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


def parts(file: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    with zipfile.ZipFile(file) as source:
        members = {name: source.read(name) for name in source.namelist()}
    return members, json.loads(members.pop(archive.LISTING))


def sign(members: dict[str, bytes], listing: dict[str, Any]) -> None:
    """Make the list true again, as whoever tampers with an archive would."""
    listing["members"] = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
    ]


def changed(file: Path, target: Path, edit: Edit, *, signed: bool = True) -> Path:
    members, listing = parts(file)
    edit(members, listing)
    if signed:
        sign(members, listing)
    with zipfile.ZipFile(target, "w") as sink:
        sink.writestr(archive.LISTING, json.dumps(listing))
        for name, data in members.items():
            sink.writestr(name, data)
    return target


def untouched(store: Store) -> bool:
    """Whether nothing of an archive is in a store."""
    return not any(
        (store.root / name).exists() and list((store.root / name).iterdir()) for name in ("objects", "imports", "tmp")
    )


def test_a_good_archive_is_taken_in_whole(exported: Path, other: Store, config: Config, tmp_path: Path) -> None:
    made = archive.take_in(exported, other)
    assert [kernel.prefix for kernel in made.kernels] == [0, 1]
    assert all(other.get("kernel", kernel.key) for kernel in made.kernels)
    assert not list((other.root / "tmp").iterdir())
    root = archive.open_store(exported, other)
    assert archive.open_store(exported, other) == root
    again = Pipeline(config.model_copy(update={"store": root}), Options(jobs=1), Ui(quiet=True))
    shutil.rmtree(tmp_path / "linux")
    assert {kernel.key for kernel in again.kernels.values()} == {kernel.key for kernel in made.kernels}
    assert again.applied.base.source == made.base.source
    assert again.touched == ("memory",)
    with pytest.raises(HostError, match="holds no source"), again.builder.objects(0, again.flavours[0]):
        pass


def first(members: dict[str, bytes], end: str) -> str:
    return next(name for name in members if name.endswith(end))


def rename(old: str, new: str) -> Edit:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        members[new] = members.pop(first(members, old))

    return edit


def put(end: str, data: bytes) -> Edit:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        members[first(members, end)] = data

    return edit


def put_kernel(name: str, data: bytes) -> Edit:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        members[f"objects/kernel/{listing['kernels'][0]['key']}/{name}"] = data

    return edit


def say(**words: Any) -> Edit:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        listing.update(words)

    return edit


def of_another_tree(members: dict[str, bytes], listing: dict[str, Any]) -> None:
    """The patched kernel passed off as the base's."""
    one, two = listing["kernels"]
    one["prefix"], two["prefix"] = two["prefix"], one["prefix"]
    one["tree"], two["tree"] = two["tree"], one["tree"]


def only_the_number(members: dict[str, bytes], listing: dict[str, Any]) -> None:
    one, two = listing["kernels"]
    one["prefix"], two["prefix"] = two["prefix"], one["prefix"]


KEY = "a" * 64
UNSOUND: Sequence[tuple[str, Edit, str]] = (
    ("climbs", rename("/vmlinux", "objects/kernel/../../../../escaped"), "which the rig does not know"),
    ("absolute", rename("/vmlinux", "/tmp/escaped"), "which the rig does not know"),
    ("manifest", rename("/vmlinux", f"objects/kernel/{KEY}/manifest.json"), "which the rig does not know"),
    ("plugin", rename("/vmlinux", f"objects/plugin/{KEY}/libstalls.so"), "which the rig does not know"),
    ("image", rename("/vmlinux", f"objects/image/{KEY}/base.cpio"), "which the rig does not know"),
    ("hidden", rename("/vmlinux", f"objects/kernel/{KEY}/.git"), "which the rig does not know"),
    ("not whole", rename("/vmlinux", f"objects/kmod/{KEY}/vmlinux"), "is not whole"),
    ("stranger", rename("/vmlinux", f"objects/kernel/{KEY}/vmlinux"), "not those that it lists"),
    ("kernel's config", put_kernel("config", b"CONFIG_EVIL=y\n"), "is not one of its tree, configuration"),
    ("kconfig", put("/config", b"CONFIG_EVIL=y\n"), "a configuration of no kernel in it"),
    ("swapped", of_another_tree, "is not one of its tree, configuration and compiler"),
    ("release", put("/release", b"\x1b[31m"), "has no release"),
    ("warnings", put("/warnings.json", b'{"a": 1}'), "its warnings are none"),
    ("format", say(format=99), "format 99, expected 1"),
    ("name", say(series="../up"), "its base or its series has no name"),
    ("commits", say(commits=["--upload-pack=x"]), "its commits are none"),
    ("more", say(more=1), "unknown more"),
)  # fmt: skip


@pytest.mark.parametrize(("edit", "why"), [case[1:] for case in UNSOUND], ids=[case[0] for case in UNSOUND])
def test_what_is_unsound_is_refused_and_leaves_nothing(
    exported: Path, other: Store, tmp_path: Path, edit: Edit, why: str
) -> None:
    bad = changed(exported, tmp_path / "bad.rig", edit)
    for use in (archive.take_in, archive.open_store):
        with pytest.raises(ConfigError, match=why):
            use(bad, other)
        assert untouched(other)
    assert not (tmp_path / "escaped").exists()


def test_a_kernel_of_another_prefix_than_it_says_is_found_out(exported: Path, other: Store, tmp_path: Path) -> None:
    bad = changed(exported, tmp_path / "bad.rig", only_the_number)
    with pytest.raises(ConfigError, match="another tree than it says"):
        archive.open_store(bad, other)
    assert untouched(other)


def test_bytes_that_are_not_those_of_the_list_are_refused(exported: Path, other: Store, tmp_path: Path) -> None:
    bad = changed(exported, tmp_path / "bad.rig", put("/bzImage", b"evil"), signed=False)
    with pytest.raises(ConfigError, match="not as it is listed"):
        archive.take_in(bad, other)
    members, _ = parts(exported)
    size = len(members[first(members, "/bzImage")])
    bad = changed(exported, tmp_path / "bad.rig", put("/bzImage", b"e" * size), signed=False)
    with pytest.raises(ConfigError, match="is not what its hash says"):
        archive.take_in(bad, other)
    assert untouched(other)


def test_patches_and_commits_must_be_those_of_the_kernels(exported: Path, other: Store, tmp_path: Path) -> None:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        name = first(members, ".patch")
        members[name] = members[name].replace(b"return 4", b"return 5")

    with pytest.raises(ConfigError, match="its patches are not those"):
        archive.open_store(changed(exported, tmp_path / "bad.rig", edit), other)
    with pytest.raises(ConfigError, match="git refuses them"):
        archive.open_store(changed(exported, tmp_path / "bad.rig", put("git.pack", b"PACK garbage")), other)
    assert untouched(other)


def test_two_members_of_one_name_and_links_are_refused(exported: Path, other: Store, tmp_path: Path) -> None:
    twice = tmp_path / "twice.rig"
    shutil.copy(exported, twice)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(twice, "a") as sink:
        sink.writestr(archive.LISTING, "{}")
    with pytest.raises(ConfigError, match="a name stands twice"):
        archive.take_in(twice, other)
    link = tmp_path / "link.rig"
    shutil.copy(exported, link)
    with zipfile.ZipFile(link, "a") as sink:
        info = zipfile.ZipInfo("series/9999.patch")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        sink.writestr(info, "/etc/passwd")
    with pytest.raises(ConfigError, match="its list is not that of its members"):
        archive.take_in(link, other)
    assert untouched(other)


def test_what_is_no_archive_and_what_was_cut_off(exported: Path, other: Store, tmp_path: Path) -> None:
    data = exported.read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="not an archive of"):
            archive.take_in(tmp_path / name, other)
    with pytest.raises(ConfigError, match="no such archive"):
        archive.read(tmp_path / "absent")
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(ConfigError):
        archive.take_in(tmp_path / "damaged", other)
    assert untouched(other)


def test_what_unpacks_to_too_much_is_refused(
    exported: Path, other: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST", 1000)
    with pytest.raises(ConfigError, match="it unpacks to more than"):
        archive.take_in(exported, other)
    assert untouched(other)


def test_another_compiler_is_said(exported: Path, config: Config, tmp_path: Path) -> None:
    def edit(members: dict[str, bytes], listing: dict[str, Any]) -> None:
        listing["compiler"] = "gcc 1"
        for kernel in listing["kernels"]:
            old = f"objects/kernel/{kernel['key']}/"
            kernel["key"] = build.key(kernel["tree"], members[f"{old}config"].decode(), "gcc 1")
            for name in [name for name in members if name.startswith(old)]:
                members[f"objects/kernel/{kernel['key']}/{name.removeprefix(old)}"] = members.pop(name)

    file = changed(exported, tmp_path / "foreign.rig", edit)
    foreign = archive.used(config, file, Ui(quiet=True))
    with pytest.raises(ConfigError, match="were built with gcc 1, and this host has"), foreign:
        pass
