"""The store: atomic, verified, shared, evicted by age."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import HostError
from rig.store import MANIFEST, Store, digest, write_atomically


def fill_with(text: str, name: str = "a") -> object:
    def fill(target: Path) -> None:
        (target / name).write_text(text)

    return fill


def put(store: Store, key: str, text: str = "x") -> Path:
    return store.publish("thing", key, fill_with(text))  # type: ignore[arg-type]


def test_what_is_published_is_found_and_verified(store: Store) -> None:
    assert store.get("thing", "k") is None
    path = put(store, "k", "hello")
    assert store.get("thing", "k") == path
    assert (path / "a").read_text() == "hello"
    assert not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["change", "remove", "manifest", "empty"])
def test_a_damaged_object_is_removed_not_returned(store: Store, damage: str) -> None:
    path = put(store, "k")
    if damage == "change":
        (path / "a").write_text("y")
    elif damage == "remove":
        (path / "a").unlink()
    elif damage == "manifest":
        (path / MANIFEST).unlink()
    else:
        (path / MANIFEST).write_text("")
    assert store.get("thing", "k") is None
    assert not path.exists()
    assert store.get("thing", "k") is None


def test_a_fill_that_fails_leaves_nothing(store: Store) -> None:
    def fill(target: Path) -> None:
        (target / "a").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.publish("thing", "k", fill)
    assert store.get("thing", "k") is None
    assert not list((store.root / "tmp").iterdir())


def test_a_full_disk_is_the_hosts_fault(store: Store) -> None:
    def fill(target: Path) -> None:
        with Path("/dev/full").open("w") as file:
            file.write("x")

    with pytest.raises(HostError, match="no space left"):
        store.publish("thing", "k", fill)
    assert store.get("thing", "k") is None


def test_two_publishers_of_one_key_agree(store: Store) -> None:
    barrier = threading.Barrier(4)
    paths: list[Path] = []

    def fill(target: Path) -> None:
        (target / "a").write_text("same")
        barrier.wait(10)

    threads = [threading.Thread(target=lambda: paths.append(store.publish("thing", "k", fill))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert store.get("thing", "k") == paths[0]


def test_eviction_takes_the_least_recently_used(store: Store) -> None:
    for age, key in ((300, "old"), (200, "used"), (100, "new")):
        manifest = put(store, key, "x" * 100_000) / MANIFEST
        os.utime(manifest, (manifest.stat().st_mtime - age,) * 2)
    store.get("thing", "used")
    gone = store.evict(store.size() - 50_000)
    assert gone == ("objects/thing/old",)
    assert store.get("thing", "used")
    assert store.get("thing", "new")


def test_nothing_is_evicted_or_cleaned_while_another_rig_is_there(store: Store) -> None:
    put(store, "k")
    other = Store(store.root)
    assert store.evict(0) == ()
    with pytest.raises(HostError, match="in use"):
        store.clean()
    del other


def test_clean_empties(store: Store) -> None:
    put(store, "k")
    assert store.clean() > 0
    assert store.get("thing", "k") is None


def test_a_lock_keeps_others_out_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = Store(tmp_path / "s"), Store(tmp_path / "s", say=said.append)
    with first.lock("a/b"), pytest.raises(HostError, match="another rig"), second.lock("a/b", seconds=0.5):
        pass
    assert said == ["waiting for another rig that uses a/b"]
    with second.lock("a/b", seconds=0.5):
        pass


def test_an_atomic_write_keeps_the_old_bytes_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@given(st.lists(st.binary()), st.lists(st.binary()))
def test_digests_tell_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)
