"""Reading series in all their forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import fakelinux
import pytest
from fakelinux import GOOD, WARNS
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import SeriesError
from rig.trees.series import read

EDITS = (GOOD, ("mm: return five", "mm/memory.c", "return 4", "return 5"))


@pytest.fixture
def folder(tree: Path, tmp_path: Path) -> Path:
    return fakelinux.make_series(tree, tmp_path / "demo", EDITS)


def subjects(origin: Path | str) -> list[str]:
    return [patch.subject for patch in read(str(origin)).patches]


def test_a_folder_without_its_cover_letter(folder: Path) -> None:
    series = read(str(folder))
    assert series.name == "demo"
    assert [patch.subject for patch in series.patches] == ["mm: return four", "mm: return five"]
    assert series.paths == ("mm/memory.c",)
    assert [patch.number for patch in series.patches] == [1, 2]


def test_a_quilt_series_file_gives_the_order(folder: Path) -> None:
    names = sorted(path.name for path in folder.glob("000[12]*"))
    (folder / "series").write_text(f"# first\n{names[1]} # why\n\n{names[0]}\n")
    assert subjects(folder) == ["mm: return five", "mm: return four"]
    (folder / "series").write_text("../../etc/passwd\n")
    with pytest.raises(SeriesError, match="not a patch in the folder"):
        read(str(folder))


def test_an_mbox_is_put_in_order_and_answers_are_left_out(folder: Path, tmp_path: Path) -> None:
    mails = [path.read_text() for path in sorted(folder.glob("*.patch"))]
    answer = mails[1].replace("Subject: [PATCH 1/2]", "Subject: Re: [PATCH 1/2]")
    mbox = tmp_path / "thread.mbox"
    mbox.write_text("\n".join([mails[0], mails[2], answer, mails[1]]))
    assert subjects(mbox) == ["mm: return four", "mm: return five"]


def test_a_single_patch_and_a_bare_diff(folder: Path, tmp_path: Path) -> None:
    first = sorted(folder.glob("0001*"))[0]
    assert subjects(first) == ["mm: return four"]
    bare = tmp_path / "bare.patch"
    text = first.read_text()
    bare.write_text(text[text.index("diff --git") :])
    series = read(str(bare))
    assert [patch.subject for patch in series.patches] == ["bare"]
    assert series.paths == ("mm/memory.c",)


def test_a_git_range(tree: Path, folder: Path) -> None:
    fakelinux.git(tree, "am", *(str(path) for path in sorted(folder.glob("000[12]*"))))
    assert subjects(f"git:{tree}#HEAD~2..HEAD") == ["mm: return four", "mm: return five"]
    assert [patch.subject for patch in read("HEAD~1..HEAD", source=f"git:{tree}#main").patches] == ["mm: return five"]
    with pytest.raises(SeriesError, match="holds no commit"):
        read(f"git:{tree}#HEAD..HEAD")
    with pytest.raises(SeriesError, match="nonsense"):
        read(f"git:{tree}#nonsense..HEAD")


def test_a_line_that_looks_like_a_header_is_content(tmp_path: Path) -> None:
    patch = tmp_path / "sql.patch"
    patch.write_text(
        "From: a <a@b>\nSubject: [PATCH] x\n\n---\ndiff --git a/mm/a.c b/mm/a.c\n--- a/mm/a.c\n+++ b/mm/a.c\n"
        "@@ -1,2 +1,2 @@\n--- /etc/passwd\n+++ ../../up\n same\n"
    )
    assert read(str(patch)).paths == ("mm/a.c",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("Subject: [PATCH] x\n\nwords only\n", "holds no patch"),
        ("From abc\nSubject: x\n", "damaged mbox"),
        ("Subject: x\n\n---\ndiff --git a/x b/x\n--- a/x\n+++ b/x\nno hunk\n", "its diff has no hunk"),
        ("Subject: x\n\n---\n--- a/../../x\n+++ b/../../x\n@@ -1 +1 @@\n-a\n+b\n", "outside the tree"),
        ("Subject: x\n\n---\n--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "outside the tree"),
        ("Subject: x\n\n---\n--- a/.git/config\n+++ b/.git/config\n@@ -1 +1 @@\n-a\n+b\n", "outside the tree"),
        ("Subject: x\n\n---\ndiff --git a/x b/../y\nrename from x\nrename to ../y\n", "outside the tree"),
        (
            "Subject: x\nContent-Type: text/plain; charset=klingon\n\n---\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
            "klingon",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.patch"
    path.write_text(text)
    with pytest.raises(SeriesError, match=expected):
        read(str(path))


def test_encodings(folder: Path, tmp_path: Path) -> None:
    mail = sorted(folder.glob("0001*"))[0].read_bytes().replace(b"Why it is so.", b"Gr\xfc\xdfe.")
    path = tmp_path / "latin.patch"
    path.write_bytes(mail)
    with pytest.raises(SeriesError, match=r"latin.patch: not valid UTF-8 at byte \d+ \(line \d+"):
        read(str(path))
    path.write_bytes(mail.replace(b"Subject:", b"Content-Type: text/plain; charset=iso-8859-1\nSubject:", 1))
    assert subjects(path) == ["mm: return four"]
    path.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(SeriesError, match="NUL"):
        read(str(path))


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SeriesError, match="holds no patch"):
        read(str(tmp_path / "empty"))
    with pytest.raises(SeriesError, match="no such folder, mbox or patch"):
        read(str(tmp_path / "absent"))
    with pytest.raises(SeriesError, match="no series is named"):
        read("")


def test_the_key_is_the_content(tree: Path, tmp_path: Path) -> None:
    one = fakelinux.make_series(tree, tmp_path / "one", [GOOD])
    other = fakelinux.make_series(tree, tmp_path / "other", [WARNS])
    assert read(str(one)).key != read(str(other)).key
    (tmp_path / "copy").mkdir()
    for path in one.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    assert read(str(one)).key == read(str(tmp_path / "copy")).key


def test_a_stack_is_one_series(tree: Path, tmp_path: Path) -> None:
    below = fakelinux.make_series(tree, tmp_path / "below", EDITS)
    above = fakelinux.make_series(tree, tmp_path / "on top!", [WARNS])
    stack = read(str(below), str(above))
    assert stack.name == "below+on-top"
    assert stack.origin == f"{below}, {above}"
    assert [patch.number for patch in stack.patches] == [1, 2, 3]
    assert [patch.subject for patch in stack.patches] == ["mm: return four", "mm: return five", "mm: keep a spare"]
    assert len({patch.name for patch in stack.patches}) == 3
    assert stack.patches[2].name.startswith("on-top/0001-")
    assert stack.key not in (read(str(below)).key, read(str(above), str(below)).key)
    assert read(str(below)).patches[0].name == stack.patches[0].name.removeprefix("below/")


def test_a_stack_names_the_part_that_is_at_fault(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(SeriesError) as caught:
        read(str(folder), str(bad))
    assert str(caught.value).startswith(f"series={bad}: holds no patch")
    (bad / "0001-x.patch").write_text("Subject: x\n\n---\n--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n")
    with pytest.raises(SeriesError, match=rf"^series={bad}: bad/0001-x.patch: touches '../x'.*\n  hint: "):
        read(str(folder), str(bad))
    (bad / "0001-x.patch").write_text("")
    with pytest.raises(SeriesError, match=rf"^series={bad}: 0001-x.patch: the file is empty"):
        read(str(folder), str(bad))
    with pytest.raises(SeriesError, match=r"series=absent: no such folder"):
        read(str(folder), "absent")
    with pytest.raises(SeriesError, match="no series is named"):
        read(str(folder), "")
    with pytest.raises(SeriesError, match="no series is named"):
        read()


FOLDERS = st.lists(st.tuples(st.text("ab+ü /-", min_size=1, max_size=40), st.integers(1, 3)), min_size=1, max_size=4)


@given(FOLDERS)
def test_any_stack_is_its_parts_one_after_another(parts: list[tuple[str, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        origins = []
        for place, (name, count) in enumerate(parts):
            folder = Path(root) / str(place) / name.replace("/", "_")
            folder.mkdir(parents=True)
            origins.append(str(folder))
            for number in range(count):
                text = f"Subject: {place}.{number}\n\n---\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
                (folder / f"{number}.patch").write_text(text)
        stack, alone = read(*origins), [read(origin) for origin in origins]
    assert [patch.mail for patch in stack.patches] == [patch.mail for one in alone for patch in one.patches]
    assert [patch.number for patch in stack.patches] == list(range(1, len(stack.patches) + 1))
    assert stack.name == "+".join(one.name for one in alone)[:60]
    assert "/" not in stack.name
    assert len(parts) > 1 or stack == alone[0]


@given(st.binary(max_size=300))
def test_no_bytes_are_a_traceback(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.patch"
        path.write_bytes(data)
        with pytest.raises(SeriesError):
            read(str(path))
