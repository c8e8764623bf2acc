"""Sources, series, Kconfig and builds against a small tree that is really fetched, patched and compiled."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import fakelinux
import pytest
from fakelinux import BREAKS, GOOD, MENDS, WARNS

from rig.errors import BuildError, ConfigError, HostError, SeriesError
from rig.front.ui import Ui
from rig.kernels.build import BrokenSeries, Builder, flavours_of
from rig.store import Store
from rig.trees.git import Git
from rig.trees.series import Applied, apply, read
from rig.trees.source import BaseTree, repository, resolve


def resolved(tree: Path, store: Store) -> BaseTree:
    return resolve(f"git:{tree}#main", None, store)


def applied(tree: Path, store: Store, tmp_path: Path, edits: Sequence[tuple[str, str, str, str]]) -> Applied:
    folder = fakelinux.make_series(tree, tmp_path / "demo", edits)
    return apply(resolved(tree, store), read(str(folder)), store)[0]


def builder(made: Applied, store: Store, *, always: bool = False) -> Builder:
    return Builder(made, store, Ui(quiet=True), jobs=2, timeout=60, always=always)


def flavours(fragments: Path, **named: list[str]) -> tuple[object, ...]:
    return flavours_of(named or {"debug": ["base", "debug-vm"]}, fragments)


# -- sources ----------------------------------------------------------------------------------------------------------


def make_tarball(tree: Path, target: Path, extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    with tarfile.open(target, "w:xz") as tar:
        tar.add(
            tree, arcname="linux-6.12", filter=lambda m: None if "/.git" in m.name and m.name.endswith(".git") else m
        )
        for member in extra:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return target


def test_all_forms_of_a_source_give_the_same_tree(tree: Path, store: Store, tmp_path: Path) -> None:
    archive = make_tarball(tree, tmp_path / "linux.tar.xz")
    plain = fakelinux.make_tree(tmp_path / "plain")
    bases = [resolve(s, None, store) for s in (f"git:{tree}#main", f"tarball:{archive}", f"dir:{tree}", f"dir:{plain}")]
    assert {base.tree for base in bases} == {fakelinux.git(tree, "rev-parse", "main^{tree}")}
    assert "6.12.99" in bases[0].version
    assert resolve(f"tarball:{archive}", None, store).commit == bases[1].commit


def test_a_dirty_folder_is_taken_as_it_is_and_left_alone(tree: Path, store: Store) -> None:
    before = resolve(f"dir:{tree}", None, store)
    (tree / "mm/memory.c").write_text("int memory;\n")
    status = fakelinux.git(tree, "status", "--porcelain")
    after = resolve(f"dir:{tree}", None, store)
    assert before.tree != after.tree
    assert repository(store)("show", f"{after.commit}:mm/memory.c") == "int memory;"
    assert fakelinux.git(tree, "status", "--porcelain") == status


@pytest.mark.parametrize("name", ["linux/../../evil", "/etc/evil", "linux/.git/hooks/post-checkout"])
def test_members_that_leave_the_folder_are_refused(tree: Path, store: Store, tmp_path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = 1
    with pytest.raises(ConfigError, match="leaves the folder"):
        resolve(f"tarball:{make_tarball(tree, tmp_path / 'evil.tar.xz', [member])}", None, store)


def test_devices_in_an_archive_are_refused(tree: Path, store: Store, tmp_path: Path) -> None:
    member = tarfile.TarInfo("linux/dev")
    member.type = tarfile.CHRTYPE
    with pytest.raises(ConfigError, match="neither file, folder nor symbolic link"):
        resolve(f"tarball:{make_tarball(tree, tmp_path / 'dev.tar.xz', [member])}", None, store)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("svn:x", "expected debian:PACKAGE"),
        ("debian:../x", "no Debian package name"),
        ("tarball:/no/such/file", "No such file"),
        ("dir:/tmp", "no kernel tree"),
        ("git:/no/such/repo#x", "git:/no/such/repo"),
        ("git:--upload-pack=x#y", "not an address"),
    ],
)
def test_sources_that_cannot_be(store: Store, source: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve(source, None, store)


def test_a_truncated_archive(tree: Path, store: Store, tmp_path: Path) -> None:
    archive = make_tarball(tree, tmp_path / "t.tar.xz")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ConfigError, match="not a sound tar archive"):
        resolve(f"tarball:{archive}", None, store)


def test_a_pinned_version(tree: Path, store: Store) -> None:
    assert resolve(f"git:{tree}#main", "6.12.99", store)
    with pytest.raises(ConfigError, match=r"is version 6.12.99, expected 6.1"):
        resolve(f"git:{tree}#main", "6.1", store)


# -- applying ---------------------------------------------------------------------------------------------------------


def test_prefixes_are_commits_with_trees(tree: Path, store: Store, tmp_path: Path) -> None:
    made = applied(tree, store, tmp_path, [GOOD, WARNS_AFTER_GOOD])
    assert [prefix.subject for prefix in made.prefixes] == ["base", GOOD[0], WARNS_AFTER_GOOD[0]]
    assert len({prefix.tree for prefix in made.prefixes}) == 3
    again, fresh = apply(made.base, made.series, store)
    assert (again, fresh) == (made, False)
    assert not [path for path in (store.root / "work").iterdir() if path.name.startswith("apply-")]


WARNS_AFTER_GOOD = ("mm: keep a spare", "mm/memory.c", "\treturn 4;", "\tint spare;\n\treturn 4;")


def test_a_conflict_names_patch_file_hunk_and_base_and_leaves_the_tree(
    tree: Path, store: Store, tmp_path: Path
) -> None:
    folder = fakelinux.make_series(tree, tmp_path / "demo", [GOOD, ("mm: b", "mm/filemap.c", "return 2", "return 9")])
    (tree / "mm/filemap.c").write_text("int rewritten;\n")
    fakelinux.git(tree, "commit", "-qam", "rewrite")
    with pytest.raises(SeriesError) as caught:
        apply(resolved(tree, store), read(str(folder)), store)
    text = str(caught.value)
    assert "patch 2/2" in text
    assert "0002-mm-b.patch" in text
    assert "mm/filemap.c" in text
    assert "6.12.99" in text
    assert caught.value.evidence is not None
    assert Git(caught.value.evidence)("rev-parse", "HEAD")


def test_a_conflict_in_a_stack_names_the_part(tree: Path, store: Store, tmp_path: Path) -> None:
    below = fakelinux.make_series(tree, tmp_path / "below", [GOOD])
    above = fakelinux.make_series(tree, tmp_path / "above", [WARNS])
    with pytest.raises(SeriesError, match=r"patch 2/2 \(above/0001-.* does not apply .*mm/memory.c"):
        apply(resolved(tree, store), read(str(below), str(above)), store)


def test_a_patch_for_a_file_that_is_not_there(tree: Path, store: Store, tmp_path: Path) -> None:
    folder = fakelinux.make_series(tree, tmp_path / "demo", [GOOD])
    for path in folder.glob("0001*"):
        # Without the index line there is no blob by which a three-way merge could find the file under another name.
        lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("index ")]
        path.write_text("".join(lines).replace("mm/memory.c", "mm/absent.c"))
    with pytest.raises(SeriesError, match=r"mm/absent.c does not exist"):
        apply(resolved(tree, store), read(str(folder)), store)


def test_three_way_merge_as_git_am_does_it(tree: Path, store: Store, tmp_path: Path) -> None:
    folder = fakelinux.make_series(tree, tmp_path / "demo", [("mm: b", "mm/filemap.c", "return 2", "return 9")])
    (tree / "mm/filemap.c").write_text("\n\n\n\n\n" + (tree / "mm/filemap.c").read_text())
    fakelinux.git(tree, "commit", "-qam", "move down")
    assert apply(resolved(tree, store), read(str(folder)), store)[1]


# -- building ---------------------------------------------------------------------------------------------------------


def test_base_and_tip_are_built_and_then_found(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    made = applied(tree, store, tmp_path, [GOOD])
    some = flavours_of({"debug": ["base", "debug-vm"], "release": ["base"]}, fragments)
    first = builder(made, store)
    kernels = first.kernels([0, 1], some)
    assert first.built == 4
    assert len({kernel.key for kernel in kernels}) == 4
    assert kernels[0].release == "6.12.99"
    assert "CONFIG_DEBUG_VM=y" in kernels[0].config.read_text()
    assert b"\nrig\n" in kernels[0].bzimage.read_bytes()
    again = builder(made, store)
    assert again.kernels([0, 1], some) == kernels
    assert again.built == 0


def test_only_changed_files_are_compiled_again(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    made = applied(tree, store, tmp_path, [GOOD])
    kernels = builder(made, store).kernels([0, 1], flavours_of({"debug": ["base"]}, fragments))
    logs = [(kernel.bzimage.parent / "build.log").read_text() for kernel in kernels]
    assert "CC      mm/filemap.o" in logs[0]
    assert "CC      mm/filemap.o" not in logs[1]
    assert "CC      mm/memory.o" in logs[1]


def test_two_builds_of_a_key_give_the_same_bytes(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    made = applied(tree, store, tmp_path, [GOOD])
    one = builder(made, store).kernels([1], flavours_of({"debug": ["base"]}, fragments))[0].bzimage.read_bytes()
    other_store = Store(tmp_path / "other-store")
    again = apply(resolved(tree, other_store), made.series, other_store)[0]
    assert (
        builder(again, other_store).kernels([1], flavours_of({"debug": ["base"]}, fragments))[0].bzimage.read_bytes()
        == one
    )


def test_a_build_error_is_laid_at_the_patch_that_brought_it(
    tree: Path, store: Store, tmp_path: Path, fragments: Path
) -> None:
    made = applied(tree, store, tmp_path, [GOOD, BREAKS, ("mm: b", "mm/filemap.c", "return 2", "return 9")])
    with pytest.raises(BrokenSeries) as caught:
        builder(made, store).kernels([0, 3], flavours_of({"debug": ["base"]}, fragments))
    assert "patch 2/3 ('mm: a typo') breaks the debug build: mm/filemap.c:3: " in str(caught.value)
    assert caught.value.evidence is not None
    assert "retrun" in caught.value.evidence.read_text()


def test_a_series_that_mends_itself_builds_at_its_ends(
    tree: Path, store: Store, tmp_path: Path, fragments: Path
) -> None:
    made = applied(tree, store, tmp_path, [BREAKS, MENDS])
    assert len(builder(made, store).kernels([0, 2], flavours_of({"debug": ["base"]}, fragments))) == 2
    with pytest.raises(BrokenSeries, match="patch 1/2"):
        builder(made, store).kernels([0, 1, 2], flavours_of({"debug": ["base"]}, fragments))


def test_keep_going_builds_the_other_flavours_first(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    made = applied(tree, store, tmp_path, [BREAKS])
    some = flavours_of({"debug": ["base", "debug-vm"], "release": ["base"]}, fragments)
    with pytest.raises(BrokenSeries):
        builder(made, store).kernels([0, 1], some, keep_going=True)
    assert all(builder(made, store).up_to_date(0, flavour) for flavour in some)


def test_a_base_that_does_not_build_is_not_the_series_fault(
    tree: Path, store: Store, tmp_path: Path, fragments: Path
) -> None:
    (tree / "mm/memory.c").write_text("int memory(void) { return 3 }\n")
    fakelinux.git(tree, "commit", "-qam", "broken base")
    made = applied(tree, store, tmp_path, [("mm: c", "mm/filemap.c", "return 1", "return 7")])
    with pytest.raises(HostError, match=r"the base does not build in flavour debug: mm/memory\.c:1"):
        builder(made, store).kernels([0, 1], flavours_of({"debug": ["base"]}, fragments))


def test_new_warnings_in_touched_files_are_told(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    (tree / "mm/filemap.c").write_text("int filemap(void)\n{\n\tint old;\n\treturn 1;\n}\n")
    fakelinux.git(tree, "commit", "-qam", "warns already")
    made = applied(tree, store, tmp_path, [WARNS, ("mm: d", "mm/filemap.c", "return 1", "return 8")])
    some = flavours_of({"debug": ["base"]}, fragments)
    for _ in range(2):  # built, and then found in the store
        base, tip = builder(made, store).kernels([0, 2], some)
        assert base.warnings == ()
        assert len(tip.warnings) == 1
        assert tip.warnings[0].startswith("mm/memory.c: unused variable")


def test_dropped_symbols_stop_the_build_and_say_why(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    (fragments / "base.config").write_text("CONFIG_SMP=y\nCONFIG_NO_SUCH=y\n")
    made = applied(tree, store, tmp_path, [GOOD])
    with pytest.raises(BuildError) as caught:
        builder(made, store).kernels([0], flavours_of({"debug": ["base"]}, fragments))
    assert "CONFIG_NO_SUCH: asked for y, got n (no such symbol in this kernel)" in str(caught.value)


def test_a_build_past_its_deadline_is_killed(tree: Path, store: Store, tmp_path: Path, fragments: Path) -> None:
    made = applied(tree, store, tmp_path, [("mm: slow", "Makefile", '\t@echo "  LD', '\t@sleep 60; echo "  LD')])
    slow = Builder(made, store, Ui(quiet=True), jobs=1, timeout=3)
    with pytest.raises(BuildError, match="took longer than 3 s"):
        slow.kernels([1], flavours_of({"debug": ["base"]}, fragments))


def test_an_unknown_fragment(fragments: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Kconfig fragment 'debug-mv'.*did you mean 'debug-vm'"):
        flavours_of({"debug": ["base", "debug-mv"]}, fragments)
