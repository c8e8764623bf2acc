"""git, run the same way on every host: no user or system configuration, no hooks, no prompts, a pinned identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import proc
from rig.errors import HostError

IDENTITY = {
    "GIT_AUTHOR_NAME": "rig",
    "GIT_AUTHOR_EMAIL": "rig@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "rig",
    "GIT_COMMITTER_EMAIL": "rig@localhost",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}
_ENVIRONMENT = IDENTITY | {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_EDITOR": "true",
}
_SETTINGS = (
    "gc.auto=0",  # a collection must not race another rig's fetch
    "core.hooksPath=/dev/null",
    "core.autocrlf=false",
    "core.fsyncMethod=batch",
    "safe.directory=*",  # reading somebody else's tree runs nothing of theirs: hooks are off, no submodules
    "am.threeWay=true",
    "checkout.workers=2",
    "core.compression=1",
)


@dataclass(frozen=True, slots=True)
class Git:
    """A repository, seen from a folder in it (or the repository itself when it is bare)."""

    at: Path

    def run(
        self, *words: str | Path, timeout: float = 600, env: Mapping[str, str] | None = None, stdin: bytes | None = None
    ) -> proc.Completed:
        """Run a git command and return it finished, whatever its status."""
        return proc.run(self.argv(*words), timeout=timeout, env=_ENVIRONMENT | dict(env or {}), stdin=stdin)

    def __call__(
        self, *words: str | Path, timeout: float = 600, env: Mapping[str, str] | None = None, stdin: bytes | None = None
    ) -> str:
        """Run a git command and return its output, stripped; raises HostError when it fails."""
        done = self.run(*words, timeout=timeout, env=env, stdin=stdin)
        if not done.ok:
            why = "timed out" if done.timed_out else (done.stderr.strip() or done.stdout.strip() or "no output")
            raise HostError(f"git {' '.join(map(str, words[:2]))} failed: {why.splitlines()[-1]}", evidence=self.at)
        return done.stdout.strip()

    def argv(self, *words: str | Path) -> tuple[str, ...]:
        """Return the command line of a git command."""
        return ("git", "-C", str(self.at), *(w for s in _SETTINGS for w in ("-c", s)), *map(str, words))

    def environment(self) -> dict[str, str]:
        """Return what `argv` wants in its environment."""
        return dict(_ENVIRONMENT)

    def commit_of(self, name: str) -> str | None:
        """Return the commit that a name stands for, or None."""
        done = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return done.stdout.strip() if done.ok else None

    def trees_of(self, commits: Sequence[str]) -> tuple[str, ...]:
        """Return the tree hashes of commits."""
        return tuple(self("rev-parse", *(f"{commit}^{{tree}}" for commit in commits)).split())
