"""Known issues: findings that are expected, each with a reason, a place where it is followed up, and mostly an end.

    issues:
      - title: "INFO: task hung in *"       # a glob over the title; or signature: hung-task:*
        cells: "*/writeback-race/ext4"      # globs over cell ids (default: all)
        kernels: base                       # base, patched, or globs over `uname -r` (default: both)
        reason: the writeback worker starves under TCG
        link: https://lore.kernel.org/r/...
        expires: 2027-03-31

What matches is judged KNOWN and shown with its reason. Nothing is dropped, and an entry that is past its end or that
nothing matched is reported, so that the file cannot rot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, model_validator

from rig.model import Expected, Finding, TrialResult
from rig.settings.config import Model, Words
from rig.settings.reading import read_model

HINT = "an entry has title or signature, reason, and if need be cells, kernels, link and expires (2027-03-31)"


class Issue(Model):
    """One entry."""

    title: str | None = Field(None, min_length=1)
    signature: str | None = Field(None, min_length=1)
    cells: Words = Field(("*",), min_length=1)
    kernels: Words = Field(("*",), min_length=1)
    reason: str = Field(min_length=1)
    link: str = ""
    expires: date | None = Field(None, description="the last day on which it holds")

    @model_validator(mode="after")
    def _of_something(self) -> Issue:
        if self.title is None and self.signature is None:
            raise ValueError("neither title nor signature, expected at least one of them")
        return self

    def covers(self, finding: Finding, trial: TrialResult, release: str) -> bool:
        """Whether a finding of a trial, on a kernel that calls itself `release`, is this issue."""
        return (
            (self.title is None or fnmatchcase(finding.title, self.title))
            and (self.signature is None or fnmatchcase(finding.signature, self.signature))
            and any(fnmatchcase(trial.cell.id, glob) for glob in self.cells)
            and any(fnmatchcase(word, glob) for glob in self.kernels for word in (trial.side, release) if word)
        )


class File(Model):
    """known-issues.yaml."""

    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """The known issues on a day, and how the kernels of a run call themselves."""

    file: str = ""
    issues: tuple[Issue, ...] = ()
    today: date = date.min
    releases: Mapping[str, str] = field(default_factory=dict)  # tree of a kernel → its `uname -r`

    def match(self, finding: Finding, trial: TrialResult) -> int | None:
        """Return the number of the first entry that a finding is, counted from 1; None if it is not known."""
        release = trial.guest.release if trial.guest else self.releases.get(trial.tree, "")
        for number, issue in enumerate(self.issues, 1):
            if not self._expired(issue) and issue.covers(finding, trial, release):
                return number
        return None

    def entry(self, number: int) -> Expected:
        """Return what an entry says."""
        issue = self.issues[number - 1]
        expires = issue.expires.isoformat() if issue.expires else ""
        return Expected(entry=f"{self.file} entry {number}", reason=issue.reason, link=issue.link, expires=expires)

    def notes(self, matched: Collection[int], cells: Collection[str]) -> tuple[str, ...]:
        """Return a line for each entry that has expired or that nothing matched in a run of these cells."""
        lines = []
        for number, issue in enumerate(self.issues, 1):
            name = f"{self.file} entry {number} ({issue.title or issue.signature})"
            if self._expired(issue):
                lines.append(f"{name} expired on {issue.expires} and was not applied: {issue.reason}")
            elif number not in matched:
                ran = any(fnmatchcase(cell, glob) for cell in cells for glob in issue.cells)
                lines.append(f"{name} {'matched nothing' if ran else 'is about cells that did not run'}")
        return tuple(lines)

    def _expired(self, issue: Issue) -> bool:
        return issue.expires is not None and issue.expires < self.today


NOTHING = Known()


def read(path: Path | None, today: date) -> Known:
    """Return the known issues of a file, none without one; raises ConfigError for an entry that is not right."""
    if path is None:
        return NOTHING
    return Known(path.name, read_model(path, File, name=path.name, hint=HINT).issues, today)
