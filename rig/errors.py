"""What can go wrong, by who has to act.

ConfigError is the user's (exit 2), SeriesError and BuildError are the submitter's (exit 1), HostError is the
operator's (exit 3). Anything else that escapes is a bug of the rig and keeps its traceback. What a test finds is a
value (a finding), never an exception.
"""

from __future__ import annotations

from pathlib import Path


class RigError(Exception):
    """One clear sentence, a hint on what to do about it, and where the evidence lies."""

    exit_code = 3

    def __init__(self, summary: str, *, hint: str | None = None, evidence: Path | None = None) -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint
        self.evidence = evidence

    def __str__(self) -> str:
        lines = [self.summary]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        if self.evidence:
            lines.append(f"  see:  {self.evidence}")
        return "\n".join(lines)


class ConfigError(RigError):
    """The command line or the configuration asks for something that cannot be."""

    exit_code = 2


class SeriesError(RigError):
    """The series cannot be read or does not apply."""

    exit_code = 1


class BuildError(RigError):
    """A kernel of the series (or the base) does not configure or build."""

    exit_code = 1


class HostError(RigError):
    """The machine the rig runs on lacks something or failed; says nothing about the series."""

    exit_code = 3
