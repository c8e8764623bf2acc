"""A bench as one page of HTML: it opens from disk, fetches nothing and runs nothing."""

from __future__ import annotations

import jinja2
from markupsafe import Markup

from rig.costs.metrics import METRICS, NULL, Bench, Comparison, Where, named
from rig.costs.plot import curves, histograms
from rig.costs.words import SHOWN, cell, figures_legend, functions_table, legend, places, sentence

FUNCTIONS = 12  # rows of the table of a case


def page(bench: Bench) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rig.costs"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("bench.html").render(bench=bench, body=fragment(bench))


def fragment(bench: Bench) -> Markup:
    """Return what is in the body of the page, for other pages to show."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rig.costs"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    subjects = [one.name for one in bench.subjects if one.name != NULL]
    made = environment.get_template("benchbody.html").render(
        bench=bench,
        legend=legend(bench),
        subjects=[
            {
                "name": name,
                "sentence": sentence(bench, name),
                "rows": [(where, [cell(one).strip("*") for one in row]) for where, row in _rows(bench, name)],
                "claimed": [[one.better if one else None for one in row] for _, row in _rows(bench, name)],
                "functions": [
                    (where, functions_table(bench, name, where, FUNCTIONS)) for where in _widest(bench, name)
                ],
                "sizes": [one for one in bench.sizes if one.subject == name],
            }
            for name in subjects
        ],
        metrics=METRICS,
        figures_legend=figures_legend(bench),
        figures=[
            (title, drawn)
            for case, title in SHOWN
            if (drawn := [made for made in (curves(bench, case), histograms(bench, case)) if made])
        ],
    )
    return Markup(made)  # noqa: S704  # a template that escapes what it is given


def _rows(bench: Bench, subject: str) -> list[tuple[Where, list[Comparison | None]]]:
    found = []
    for where in places(bench, subject):
        mine = {one.metric: one for one in named(bench.comparisons, subject=subject, where=where)}
        found.append((where, [mine.get(metric.name) for metric in METRICS]))
    return found


def _widest(bench: Bench, subject: str) -> list[Where]:
    """Return each case of SHOWN where it ran on the most CPUs."""
    found = []
    for case, _ in SHOWN:
        mine = [where for where in places(bench, subject) if where.case == case]
        if mine:
            found.append(max(mine, key=lambda one: one.cpus))
    return found
