"""What GitHub shows: annotations and a summary in which nothing a guest printed is acted on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from madeup import BUG, run, runs, trial

from rig.model import Side, Status
from rig.reports import github
from rig.runs.results import Run

EVIL = "BUG in x|y`</td><img src=x>\n::error::made up\n@torvalds [a](http://x) %0A"


def made() -> Run:
    bug = dataclasses.replace(BUG, title=EVIL, text=f"splat\n\n{EVIL}\n\n# heading")
    base = [trial(Side.BASE, index=i) for i in range(4)]
    return run(*base, *(trial(Side.PATCHED, Status.CRASH, bug, index=i) for i in range(4)))


def test_elsewhere_nothing_is_said(tmp_path: Path) -> None:
    place = tmp_path / "summary"
    assert github.tell(made(), {"GITHUB_STEP_SUMMARY": str(place)}) == ()
    part = dataclasses.replace(made(), config={"part": "1/3"})
    assert github.tell(part, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(place)}) == ()
    assert not place.exists()


def test_the_verdict_and_each_finding_are_annotations(tmp_path: Path) -> None:
    lines = github.tell(made(), {"GITHUB_ACTIONS": "true"})
    assert lines[0].startswith("::error title=rig%3A REGRESSION::The kernel breaks with the series")
    assert lines[1].startswith("::error title=REGRESSION%3A BUG in x|y`</td><img src=x> %3A%3Aerror%3A%3Amade up")
    assert "%0ASee it again: rig test series=patches/fault-around-private" in lines[1]
    assert "%250A" in lines[1]
    assert all("\n" not in line for line in lines)
    assert github.tell(run(trial()), {"GITHUB_ACTIONS": "true"})[0].startswith("::notice title=rig%3A CLEAN::")


def test_the_summary_is_appended_and_acts_on_nothing(tmp_path: Path) -> None:
    place = tmp_path / "summary"
    place.write_text("before\n")
    github.tell(made(), {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(place)})
    text = place.read_text()
    assert text.startswith("before\n## rig: REGRESSION\n")
    assert "<img" not in text
    assert "@torvalds" not in text.replace("&#64;", "").split("<pre>")[0]
    (row,) = [line for line in text.splitlines() if line.startswith("| REGRESSION")]
    assert row.count("|") == 6
    assert "| 0/4 | 4/4 |" in row
    pre = text[text.index("<pre>splat") : text.index("</pre>", text.index("<pre>splat"))]
    assert "\n\n" not in pre
    assert "\n# heading" in pre


def test_the_summary_stays_below_what_github_takes() -> None:
    findings = [dataclasses.replace(BUG, signature=f"bug:{i}", text="<" * 100_000) for i in range(40)]
    whole = run(*(trial(Side.PATCHED, Status.CRASH, one, index=i) for i, one in enumerate(findings)))
    assert len(github.step_summary(whole).encode()) < 1 << 20


@settings(suppress_health_check=list(HealthCheck))
@given(runs)
def test_any_run_can_be_told(whole: Run) -> None:
    for line in github.commands(whole):
        assert "\n" not in line
        assert "\r" not in line
        line.encode()
    github.step_summary(whole).encode()
