"""A bench as one page of HTML: it opens from disk, fetches nothing and runs nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from rig.costs.metrics import BASE, METRICS, NULL, Bench, Comparison, Metric, Where, named
from rig.costs.words import SHOWN, cell, functions_table, legend, places, sentence

FUNCTIONS = 12  # rows of the table of a case
#: Curves are drawn of these.
CURVES = ("atomics", "per_fault", "excess", "rate")
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "rig", "font.size": 9, "text.parse_math": False}
_COLOURS = ("#444444", "#0a6fb8", "#c4480e", "#2a8a3e", "#8a3ea8", "#a08000", "#c02050", "#107878")
_MARKS = "osD^vPX*"


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
        curves=[(title, _curves(bench, case)) for case, title in SHOWN if _has_curves(bench, case)],
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


# -- curves -----------------------------------------------------------------------------------------------------------


def _has_curves(bench: Bench, case: str) -> bool:
    return len({one.where.cpus for one in bench.comparisons if one.where.case == case}) > 1


def _curves(bench: Bench, case: str) -> Markup:
    """Draw the metrics of a case over the number of CPUs, each subject with the band of what was measured."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    metrics = [metric for metric in METRICS if metric.name in CURVES]
    subjects = [BASE, *(one.name for one in bench.subjects if one.name != NULL)]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            for number, subject in enumerate(subjects):
                _curve(axis, bench, case, metric, subject, number)
            axis.set_title(metric.title if metric.relative else f"{metric.title}, %", fontsize=9)
            axis.set_xlabel("vCPUs")
            axis.margins(y=0.1)
            axis.autoscale_view()
            axis.set_ylim(bottom=0)
        axes[0].legend(fontsize=6)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Markup(re.sub(r"\A.*?(?=<svg)", "", file.getvalue(), flags=re.DOTALL))  # noqa: S704  # made by matplotlib


def _curve(axis: Any, bench: Bench, case: str, metric: Metric, subject: str, number: int) -> None:
    points = _points(bench, case, metric, subject)
    if not points:
        return
    cpus, low, middle, high = zip(*points, strict=True)
    colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
    scale = 1 if metric.relative else 100
    scaled = [[scale * value for value in values] for values in (low, middle, high)]
    axis.plot(cpus, scaled[1], color=colour, marker=mark, markersize=4, linewidth=1, label=subject)
    axis.fill_between(cpus, scaled[0], scaled[2], color=colour, alpha=0.12, linewidth=0)
    axis.set_xticks(sorted(set(cpus)))


def _points(bench: Bench, case: str, metric: Metric, subject: str) -> Sequence[tuple[int, float, float, float]]:
    """Return (CPUs, low, median, high) of a subject, on the first file system that the case ran on."""
    mine = [one for one in bench.comparisons if one.metric == metric.name and one.where.case == case]
    mine = [one for one in mine if one.where.filesystem == mine[0].where.filesystem]
    found: dict[int, tuple[int, float, float, float]] = {}
    for one in mine:
        side = one.difference.first if subject == BASE else one.difference.second
        if subject in (BASE, one.subject):
            found.setdefault(one.where.cpus, (one.where.cpus, side.low, side.median, side.high))
    return sorted(found.values())
