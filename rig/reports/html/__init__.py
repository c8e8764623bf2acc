"""A run as one HTML file: it opens from disk, fetches nothing, runs nothing, and shows any byte as text.

`view` chooses and counts, `plots` draws, `logs` quotes, `templates/` has the page. The page's Content-Security-Policy
allows no script and no request, so that even a mistake in the templates would not run what a guest printed.
"""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from rig.model import Judgement, Side, Status, Stopped, Tally
from rig.reports.html.plots import figures
from rig.reports.html.view import View, of_run
from rig.reports.printable import shown
from rig.reports.words import ACCELERATORS, duration
from rig.runs.results import Run
from rig.store import write_atomically
from rig.verdicts import statistics

#: A sign for each, as colour alone tells not everybody anything.
SIGNS = {
    Judgement.REGRESSION: "✗",
    Judgement.KNOWN: "≈",
    Judgement.FIXED: "✓",
    Judgement.CLEAN: "✓",
    Judgement.INCONCLUSIVE: "?",
}


#: Tests by their names in `FindingVerdict.test`.
TESTS = {
    "boschloo": "Boschloo's exact test",
    "pairs": "a bet on pairs of trials with equal seeds, good at any number of looks",
}
STOPS = {
    Stopped.FIXED: "",
    Stopped.CLEAR: "Its cells ran until the answer was clear.",
    Stopped.BUDGET: "Its cells ran as often as they may, and the answer is still in doubt.",
    Stopped.FUTILE: "No trial that was left could have changed the answer, so no more were run.",
    Stopped.DECIDED: "In doubt, but the run was decided by other findings, so its cells were not run more often.",
}


def write_html(path: Path, run: Run, root: Path) -> None:
    """Publish the page of a run in `path`; `root` is the run's folder, in which the evidence of the trials lies."""
    write_atomically(path, render(of_run(run, root, figures(run.trials, run.stages))))


def render(page: View) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rig.reports.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "number": number, "slug": slug}
    template = environment.get_template("report.html")
    return template.render(
        page=page,
        run=page.run,
        signs=SIGNS,
        tests=TESTS,
        stops=STOPS,
        Side=Side,
        Status=Status,
        accelerators=ACCELERATORS,
        interval=interval,
    )


def _finalize(value: object) -> object:
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def number(value: float | None) -> str:
    """Return a count with thin spaces between the thousands; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def slug(text: str) -> str:
    """Return what may be an id in a page, for a name that is made of letters, digits, dots, dashes and slashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text)


def interval(tally: Tally) -> str:
    """Return the 95 % interval of the failure rate behind a tally as words."""
    found = statistics.interval(tally.failures, tally.trials)
    return f"{100 * found.low:.0f} to {100 * found.high:.0f} %" if found else "no trials"
