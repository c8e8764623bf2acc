"""Reading a patch series, and applying it: each prefix becomes a commit with a recorded tree.

The series is applied in a worktree of the rig's own that holds only the files the series touches (a sparse checkout),
with the semantics of `git am -3`. Committer and date are pinned, so the same patches on the same base give the same
commits, and a second apply finds them by name.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rig.errors import SeriesError
from rig.store import Store, digest
from rig.trees import lore, mails
from rig.trees.git import IDENTITY, Git
from rig.trees.source import BaseTree, repository

_HEADER_PATHS = re.compile(
    r"^(?:--- |\+\+\+ |rename (?:from|to) |copy (?:from|to) )(\"?.*?\"?)(?:\t.*)?$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch as a mail that `git am` takes."""

    number: int  # from 1
    name: str  # of the file, or of the mail in its mbox
    subject: str  # without the [PATCH n/m] prefix
    mail: bytes
    paths: tuple[str, ...]  # that it touches, relative to the tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """An ordered list of patches."""

    name: str  # of a stack: those of its parts, joined by +
    origin: str
    patches: tuple[Patch, ...]

    @property
    def key(self) -> str:
        """The identity of the series: the bytes of its patches in their order."""
        return digest(*(patch.mail for patch in self.patches))

    @property
    def prefix_keys(self) -> tuple[str, ...]:
        """The keys of its first patch alone, its first two, and so on to the whole series."""
        parts = [patch.mail for patch in self.patches]
        return tuple(digest(*parts[:number]) for number in range(1, len(parts) + 1))

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths that it touches, sorted."""
        return tuple(sorted({path for patch in self.patches for path in patch.paths}))


#: For a tree as it is.
NONE = Series(name="tree", origin="", patches=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The base plus the first `number` patches."""

    number: int
    commit: str
    tree: str
    subject: str  # of its last patch; "base" for prefix 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A series on its base: prefixes 0 to N."""

    base: BaseTree
    series: Series
    prefixes: tuple[Prefix, ...]

    @property
    def tip(self) -> Prefix:
        """The base plus the whole series."""
        return self.prefixes[-1]


# -- reading ----------------------------------------------------------------------------------------------------------


def read(*origins: str, source: str = "") -> Series:
    """Read a series from a folder, an mbox, a single patch, or a git range (`git:REPO#A..B`, or `A..B` of the source).

    Several origins are a stack: one series of the patches of all of them, in this order. Raises SeriesError, which
    names the origin, when one is not there, empty, damaged, not text, or touches paths outside the tree.
    """
    if not origins or "" in origins:
        raise SeriesError("no series is named", hint="series=FOLDER, MBOX, PATCH, git:REPO#A..B or a list of them")
    patches: list[Patch] = []
    names = []
    for origin in origins:
        try:
            name, found = _part(origin, source)
            # Below the name of its origin: both parts of a stack may well have a 0001-….patch.
            label = f"{name}/" if len(origins) > 1 else ""
            patches += [_patch(n, label + file, mail) for n, (file, mail) in enumerate(found, start=len(patches) + 1)]
        except SeriesError as error:
            if len(origins) == 1 or error.summary.startswith(f"series={origin}: "):
                raise
            raise SeriesError(f"series={origin}: {error.summary}", hint=error.hint, evidence=error.evidence) from None
        names.append(name)
    return Series(name="+".join(names)[:60], origin=", ".join(origins), patches=tuple(patches))


def _part(origin: str, source: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the name of one origin and its mails, each with the name of its file; there is at least one."""
    path = Path(origin).expanduser()
    if path.exists():
        found = _folder(path) if path.is_dir() else mails.split(mails.load(path), path.name)
        name = path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem
    elif origin.startswith(lore.PREFIXES):
        data, name = lore.fetch(origin)
        found = mails.split(data, name, wanted=name)
    elif ".." in origin.rpartition("#")[2]:
        found, name = _range(origin, source)
    else:
        raise SeriesError(
            f"series={origin}: no such folder, mbox or patch",
            hint="patches/ holds examples; a git range is written git:REPO#A..B, a thread of a list lore:MESSAGE-ID",
        )
    if not found:
        raise SeriesError(
            f"series={origin}: holds no patch", hint="expected *.patch files as `git format-patch` writes them"
        )
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "series", found


def _folder(path: Path) -> list[tuple[str, bytes]]:
    listing = path / "series"
    if listing.is_file():  # quilt: order, and -p1 as we take it anyway
        words = (line.split("#")[0].split() for line in listing.read_text(errors="replace").splitlines())
        names = [line[0] for line in words if line]
        for name in names:
            if not (path / name).is_file() or ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise SeriesError(f"{listing}: names {name!r}, which is not a patch in the folder")
        files = [path / name for name in names]
    else:
        files = sorted([*path.glob("*.patch"), *path.glob("*.mbox")])
    return [mail for file in files for mail in mails.split(mails.load(file), file.name)]


def _patch(number: int, name: str, mail: bytes) -> Patch:
    text = mails.text(mail, name)
    diff = text[match.start() :] if (match := mails.DIFF_START.search(text)) else ""
    if not re.search(
        r"^(?:@@ |GIT binary patch|rename |copy |new file mode |deleted file mode |old mode )", diff, re.MULTILINE
    ):
        raise SeriesError(f"{name}: a damaged patch (its diff has no hunk)")
    title, paths = mails.subject(mail) or name, tuple(_touched(diff, name))
    return Patch(number=number, name=name, subject=title, mail=mail, paths=paths)


def _touched(diff: str, name: str) -> Iterator[str]:
    seen = set()
    for line in _headers(diff):
        for raw in _header_paths(line):
            path = raw[2:] if raw[:2] in ("a/", "b/") else raw
            parts = PurePosixPath(path).parts
            if path.startswith("/") or ".." in parts or ".git" in parts or not parts:
                raise SeriesError(
                    f"{name}: touches {path!r}, which is outside the tree", hint="the rig refuses such patches"
                )
            if path not in seen:
                seen.add(path)
                yield path


def _headers(diff: str) -> Iterator[str]:
    """Yield the header lines of a diff: hunks are counted over, as a removed line may look like a header."""
    left_old = left_new = 0
    for line in diff.splitlines():
        if left_old > 0 or left_new > 0:
            left_old -= line[:1] in ("-", " ", "")
            left_new -= line[:1] in ("+", " ", "")
            continue
        if hunk := re.match(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", line):
            left_old, left_new = int(hunk[1] or 1), int(hunk[2] or 1)
        else:
            yield line


def _header_paths(line: str) -> Iterator[str]:
    if match := _HEADER_PATHS.match(line):
        raw = match[1]
        path = raw[1:-1].encode().decode("unicode_escape", "replace") if raw.startswith('"') else raw
        if line.startswith(("rename", "copy")):
            yield path
        elif path != "/dev/null":
            # The prefix is a/ or b/; a path without one is refused by `git am` in its own words.
            yield path


def _range(origin: str, source: str) -> tuple[list[tuple[str, bytes]], str]:
    repo, _, span = origin.removeprefix("git:").rpartition("#")
    repo = repo or source.removeprefix("git:").partition("#")[0]
    local = Path(repo).expanduser()
    if not repo or not local.exists() or span.startswith("-"):
        raise SeriesError(f"series={origin}: no repository to take the range from", hint="write git:PATH#A..B")
    done = Git(local.resolve()).run(
        "format-patch", "--stdout", "--no-signature", "--no-renames", "--zero-commit", span, "--", timeout=120
    )
    if not done.ok:
        raise SeriesError(f"series={origin}: {(done.stderr.strip() or 'no such range').splitlines()[-1]}")
    if not done.stdout.strip():
        raise SeriesError(f"series={origin}: the range holds no commit")
    return mails.split(done.stdout.encode(), span), span.replace("..", "-to-")


# -- applying ---------------------------------------------------------------------------------------------------------


def place(base: str, key: str) -> str:
    """Return below which ref the store keeps the prefixes of a series on the commit `base`, as /1, /2, …"""
    return f"refs/rig/series/{digest(base, key)[:32]}"


def apply(base: BaseTree, series: Series, store: Store) -> tuple[Applied, bool]:
    """Return the prefixes of `series` on `base` and whether any work was done; they are kept in the store.

    Raises SeriesError naming patch, file, hunk and base on a conflict, and leaves the tree for inspection.
    """
    git = repository(store)
    refs = place(base.commit, series.key)
    commits = [base.commit, *(git.commit_of(f"{refs}/{patch.number}") for patch in series.patches)]
    fresh = None in commits
    if fresh:
        with store.lock("apply"):
            commits = [base.commit, *_am(git, base, series, store)]
            for number, commit in enumerate(commits[1:], start=1):
                git("update-ref", f"{refs}/{number}", str(commit))
    known = [commit for commit in commits if commit is not None]
    subjects = ["base", *(patch.subject for patch in series.patches)]
    prefixes = tuple(
        Prefix(number=number, commit=commit, tree=tree, subject=subject)
        for number, (commit, tree, subject) in enumerate(zip(known, git.trees_of(known), subjects, strict=True))
    )
    return Applied(base=base, series=series, prefixes=prefixes), fresh


def _am(git: Git, base: BaseTree, series: Series, store: Store) -> list[str]:
    home = Path(tempfile.mkdtemp(prefix="apply-", dir=store.root / "work"))
    tree = Git(home / series.name)
    git("worktree", "add", "--quiet", "--detach", "--no-checkout", tree.at, base.commit)
    patterns = "\n".join("/" + re.sub(r"([*?[\\ ])", r"\\\1", path) for path in series.paths)
    tree("sparse-checkout", "set", "--no-cone", "--stdin", stdin=patterns.encode())
    tree("checkout", "--quiet", "--detach", base.commit)
    commits = []
    for patch in series.patches:
        done = tree.run(
            "am",
            "-3",
            "--quiet",
            "--keep-non-patch",
            "--committer-date-is-author-date",
            stdin=patch.mail,
            env=_committer(),
        )
        if not done.ok:
            raise _conflict(tree, base, series, patch, done.stdout + done.stderr)
        commits.append(tree("rev-parse", "HEAD"))
    git("worktree", "remove", "--force", tree.at)
    shutil.rmtree(home, ignore_errors=True)
    return commits


def _committer() -> dict[str, str]:
    return {name: value for name, value in IDENTITY.items() if "COMMITTER" in name and not name.endswith("DATE")}


def _conflict(tree: Git, base: BaseTree, series: Series, patch: Patch, words: str) -> SeriesError:
    """Say which hunk of which file of which patch does not fit, by trying the patch without the three-way merge."""
    shown = tree.run("am", "--show-current-patch=diff")
    dry = tree.run("apply", "--check", "--verbose", "-", stdin=shown.stdout.encode()) if shown.ok else None
    detail = (dry.stderr if dry else "") + words
    failed = re.search(r"^error: patch failed: (.+):(\d+)$", detail, re.MULTILINE)
    missing = re.search(
        r"^error: (.+): (does not exist in index|No such file or directory|already exists in index)",
        detail,
        re.MULTILINE,
    )
    merged = re.search(r"^CONFLICT \(.*?\): .* in (.+)$", words, re.MULTILINE)
    if failed:
        where = f"{failed[1]}, hunk at line {failed[2]}"
    elif missing:
        where = (
            f"{missing[1]} {missing[2].replace(' in index', '').replace('No such file or directory', 'does not exist')}"
        )
    elif merged:
        where = f"{merged[1]}"
    else:
        where = next(
            (line for line in detail.splitlines() if line.startswith(("error:", "fatal:"))), "git am refused it"
        )
    return SeriesError(
        f"patch {patch.number}/{len(series.patches)} ({patch.name}: {patch.subject!r}) does not apply to {base.source} "
        f"({base.version}): {where}",
        hint="rebase the series onto this base, or name the base it was made for with kernel.source=…; "
        "`git am --show-current-patch=diff` in the tree shows the patch",
        evidence=tree.at,
    )
