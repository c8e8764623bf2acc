"""The files of a bench: text, Markdown, JUnit, and a page with curves."""

from __future__ import annotations

from pathlib import Path

from rig.costs import html, words
from rig.costs.metrics import Bench, regressions
from rig.reports import junit
from rig.store import write_atomically

PASSED, FAILED, UNDECIDED = 0, 1, 4


def text(bench: Bench) -> str:
    """Return what a terminal shows."""
    return "\n".join(words.summary(bench))


def write(path: Path, bench: Bench) -> None:
    """Publish all reports in the folder of a run; bench.json, which ends it, is not among them."""
    write_atomically(path / "junit.xml", junit.bench_xml(bench))
    write_atomically(path / "summary.txt", text(bench) + "\n")
    write_atomically(path / "summary.md", words.cover(bench))
    write_atomically(path / "bench.html", html.page(bench))


def exit_code(bench: Bench) -> int:
    """Return 1 for a regression or a kernel that broke down, 4 when nothing was measured, else 0."""
    if regressions(bench) or any(one.status in ("FAIL", "CRASH", "TIMEOUT") for one in bench.troubles):
        return FAILED
    return PASSED if bench.comparisons else UNDECIDED
