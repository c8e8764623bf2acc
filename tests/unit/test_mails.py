"""The series in a thread of a list's archive: versions, answers, cover letters, copies, and what is missing."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threads import ANSWERS, DIFF, SEPARATOR, V1, V2, mail, patch

from rig.errors import SeriesError
from rig.trees import mails


def read(*parts: str, wanted: str = "") -> list[str]:
    """What the patches of the series in a thread add."""
    data = "".join(parts).encode("utf-8", "surrogateescape")
    return [one.split(b"\n+")[-1].split(b"\n")[0].decode() for _, one in mails.split(data, "t.mbox", wanted=wanted)]


def test_the_newest_version_is_taken_in_its_order() -> None:
    assert read(*V1, *ANSWERS, *V2) == ["v2-first", "v2-second"]
    assert read(*V2, *V1[::-1]) == ["v2-first", "v2-second"]
    assert read(*V1, *ANSWERS) == ["v1-first", "v1-second"]


def test_a_message_names_its_version() -> None:
    assert read(*V1, *V2, wanted="PATCH-1/2-first@b.c") == ["v1-first", "v1-second"]
    assert read(*V1, *V2, wanted="cover@b.c") == ["v1-first", "v1-second"]
    assert read(*V1, *V2, wanted="wanted@b.c") == ["v2-first", "v2-second"]
    assert read(*V1, *V2, wanted="absent@b.c") == ["v2-first", "v2-second"]


def test_a_copy_that_came_over_another_list_counts_once() -> None:
    assert read(*V1, V1[1], V1[2]) == ["v1-first", "v1-second"]


def test_a_series_that_is_not_whole_is_refused() -> None:
    with pytest.raises(SeriesError, match="version 2 of the series is not whole: no patch 1 of 2"):
        read(*V1, V2[2])
    with pytest.raises(SeriesError, match="the series is not whole: no patch 2 of 2"):
        read(V1[0], V1[2], patch("[PATCH] a proposal", "x"))
    with pytest.raises(SeriesError, match="no patch 2 of 2"):
        read(V1[0], V1[2])
    with pytest.raises(SeriesError, match="3 mails for 2 patches"):
        read(*V1, patch("[PATCH 1/2] first again", "x"))


def test_a_proposal_in_an_answer_is_no_part_of_the_series() -> None:
    assert read(*V1, patch("[PATCH] fix the fix", "proposal")) == ["v1-first", "v1-second"]


def test_what_is_no_thread_stays_as_it_is() -> None:
    alone = "From: A <a@b.c>\nSubject: [PATCH 2/5] x\n\n" + DIFF.format("alone")
    assert read(alone) == ["alone"]
    in_reply = patch("[PATCH 2/5] x", "reply")
    assert read(in_reply) == ["reply"]
    loose = [patch(f"[PATCH] {name}", name, headers="") for name in ("b", "a")]
    assert read(*loose) == ["b", "a"]


def test_tags_of_all_kinds() -> None:
    assert read(
        patch("[RFC PATCH v10 02/10] b", "b"),
        patch("[PATCH v9 1/1] old", "old"),
        *(patch(f"[PATCH 6.12 v10 {n:02}/10] x", f"n{n}") for n in (1, *range(3, 11))),
    ) == ["n1", "b", *(f"n{n}" for n in range(3, 11))]


def test_a_cover_letter_that_cannot_be_read_is_one_all_the_same() -> None:
    strange = mail("[PATCH 0/2] x", "\udcff\udcfe", key="cover", headers="Content-Type: text/plain; charset=utf-8\n")
    assert read(strange, *V1[1:]) == ["v1-first", "v1-second"]


def test_a_thread_as_the_archive_packs_it(tmp_path: Path) -> None:
    file = tmp_path / "t.mbox.gz"
    file.write_bytes(gzip.compress("".join(V1).encode()))
    assert mails.load(file) == "".join(V1).encode()
    file.write_bytes(gzip.compress(b"x" * 100)[:-9])
    with pytest.raises(SeriesError, match="damaged gzip"):
        mails.load(file)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mails, "LARGEST", 100_000)
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(b"\n" * 200_000))
    assert file.stat().st_size < 1000
    with pytest.raises(SeriesError, match="which is no series"):
        mails.load(file)


@given(st.lists(st.sampled_from([*V1, *ANSWERS, *V2, "garbage\n", SEPARATOR]), max_size=12), st.binary(max_size=30))
def test_any_thread_is_read_or_refused_in_a_sentence(parts: list[str], more: bytes) -> None:
    try:
        found = mails.split("".join(parts).encode("utf-8", "replace") + more, "t.mbox")
    except SeriesError as error:
        found = []
        said = str(error)
    else:
        said = "t.mbox"
    assert said.startswith("t.mbox")
    assert all(b"diff --git" in data for _, data in found)
