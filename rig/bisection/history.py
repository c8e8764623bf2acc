"""A piece of git history as something that can be bisected: the good commit is the base, each later one a patch on it.

Merges stay merges: which commits are in which kernel is what git says, and not the order in which they are listed.
Only with more than MOST commits the search goes along the first parents, as `git bisect --first-parent` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rig.errors import ConfigError
from rig.store import Store, digest
from rig.trees.git import Git
from rig.trees.series import Applied, Patch, Prefix, Series
from rig.trees.source import BaseTree, repository

#: With more commits, their ancestry alone (a number for each pair) would take more than 128 MB.
MOST = 4000

_START, _FIELD = "\x01", "\x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Commits as prefixes, and what is in each."""

    applied: Applied
    parents: tuple[tuple[int, ...], ...]  # of commit 1 ... N by number; 0 is the good commit
    first_parent: bool  # merges stand for what they brought
    remote: str  # address or path of the repository


def read(source: str, good: str, bad: str, store: Store) -> History:
    """Return the commits after `good` up to `bad`, fetched into the store; parents come before their children.

    Raises ConfigError when the source is no git tree, a ref is not there, or `bad` does not come after `good`.
    """
    kind, _, rest = source.partition(":")
    if kind != "git" or not rest:
        raise ConfigError(
            f"good={good} bad={bad}: kernel.source={source} is no git tree", hint="kernel.source=git:URL-OR-PATH"
        )
    url = rest.partition("#")[0]
    local = Path(url).expanduser()
    remote = str(local.resolve()) if local.exists() else url
    with store.lock("linux.git"):
        git = repository(store)
        first, last = (_fetched(git, remote, ref, key) for ref, key in ((good, "good"), (bad, "bad")))
    if first == last or not git.run("merge-base", "--is-ancestor", first, last).ok:
        raise ConfigError(
            f"bad={bad} does not come after good={good}", hint="both are refs of kernel.source, good the older one"
        )
    count = int(git("rev-list", "--count", "--ancestry-path", f"{first}..{last}"))
    chain = count > MOST
    commits = _listed(git, first, last, first_parent=chain)
    numbers = {first: 0} | {commit.hash: number for number, commit in enumerate(commits, 1)}
    parents = tuple(
        (number - 1,) if chain else tuple(numbers[one] for one in commit.parents if one in numbers)
        for number, commit in enumerate(commits, 1)
    )
    patches = tuple(
        Patch(number=number, name=commit.hash, subject=commit.subject, mail=b"", paths=commit.paths)
        for number, commit in enumerate(commits, 1)
    )
    name = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in ref) for ref in (good, "to", bad))[:60]
    base = BaseTree(source=source, version=good, commit=first, tree=git.trees_of([first])[0])
    hashes = [first, *(commit.hash for commit in commits)]
    subjects = [git("log", "-1", "--format=%s", first), *(commit.subject for commit in commits)]
    prefixes = tuple(
        Prefix(number=number, commit=commit, tree=tree, subject=subject)
        for number, (commit, tree, subject) in enumerate(zip(hashes, _trees(git, hashes), subjects, strict=True))
    )
    series = Series(name=name.strip("-."), origin=f"git:{remote}#{good}..{bad}", patches=patches)
    return History(
        applied=Applied(base=base, series=series, prefixes=prefixes), parents=parents, first_parent=chain, remote=remote
    )


@dataclass(frozen=True, slots=True)
class _Commit:
    hash: str
    parents: tuple[str, ...]
    subject: str
    paths: tuple[str, ...]


def _fetched(git: Git, remote: str, ref: str, key: str) -> str:
    """Fetch a ref with all of its history and return its commit."""
    if ref.startswith("-") or not ref:
        raise ConfigError(f"{key}={ref}: not a ref")
    kept = f"refs/rig/bisect/{digest(remote, ref)[:32]}"
    # What only the repository itself understands (`v6.12~3`, an abbreviated hash) is looked up there first.
    local = Path(remote)
    asked = (Git(local).commit_of(ref) if local.exists() else None) or ref
    done = git.run("fetch", "--quiet", "--no-tags", "--", remote, f"+{asked}:{kept}", timeout=7200)
    commit = git.commit_of(kept)
    if not done.ok or commit is None:
        why = (done.stderr.strip() or "no such ref").splitlines()[-1]
        raise ConfigError(f"{key}={ref}: {why}", hint=f"expected a ref of {remote}")
    return commit


def _listed(git: Git, first: str, last: str, *, first_parent: bool) -> list[_Commit]:
    words = ["log", "--reverse", "--topo-order", "--ancestry-path", "-m", "--name-only", "--no-renames"]
    words += ["--first-parent"] * first_parent
    done = git(*words, f"--format={_START}%H{_FIELD}%P{_FIELD}%s{_FIELD}", f"{first}..{last}", timeout=1800)
    found: dict[str, _Commit] = {}
    for entry in done.split(_START)[1:]:
        name, parents, subject, rest = entry.split(_FIELD, 3)
        known = found.get(name)  # a merge stands once for each of its parents
        paths = {line for line in rest.splitlines() if line} | set(known.paths if known else ())
        found[name] = _Commit(name, tuple(parents.split()), subject, tuple(sorted(paths)))
    return list(found.values())


def _trees(git: Git, commits: list[str]) -> list[str]:
    trees: list[str] = []
    for at in range(0, len(commits), 500):  # as many as a command line holds
        trees += git.trees_of(commits[at : at + 500])
    return trees
