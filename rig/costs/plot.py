"""The figures of a bench, as SVG to be put into a page: curves over the number of CPUs, and histograms of latencies."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from rig.costs import latencies
from rig.costs.metrics import BASE, METRICS, NULL, Bench, Metric, Where, named

#: Curves are drawn of these.
CURVES = ("atomics", "per_fault", "excess", "rate")
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "rig", "font.size": 9, "text.parse_math": False}
_COLOURS = ("#444444", "#0a6fb8", "#c4480e", "#2a8a3e", "#8a3ea8", "#a08000", "#c02050", "#107878")
_MARKS = "osD^vPX*"


def curves(bench: Bench, case: str) -> Markup:
    """Draw the metrics of a case over the number of CPUs, each subject with the band of what was measured.

    Empty with one number of CPUs, which is no curve.
    """
    if len({one.where.cpus for one in bench.comparisons if one.where.case == case}) < 2:
        return Markup()
    metrics = [metric for metric in METRICS if metric.name in CURVES]

    def draw(axes: Sequence[Any]) -> None:
        for axis, metric in zip(axes, metrics, strict=True):
            for number, subject in enumerate(_subjects(bench)):
                _curve(axis, bench, case, metric, subject, number)
            axis.set_title(metric.title if metric.relative else f"{metric.title}, %", fontsize=9)
            axis.set_xlabel("vCPUs")
            axis.margins(y=0.1)
            axis.autoscale_view()
            axis.set_ylim(bottom=0)

    return _drawn(len(metrics), draw)


def histograms(bench: Bench, case: str) -> Markup:
    """Draw how long the faults of a case took, for each number of CPUs, each subject with its confidence band.

    On the first file system that the case ran on; a dotted line is a 99th percentile. Empty where no trial was timed.
    """
    timed = [one.where for one in bench.samples if one.where.case == case and one.latencies]
    places = [where for where in dict.fromkeys(timed) if (where.flavour, where.filesystem) == _kind(timed[0])]
    if not places:
        return Markup()

    def draw(axes: Sequence[Any]) -> None:
        for axis, where in zip(axes, places, strict=True):
            for number, subject in enumerate(_subjects(bench)):
                _histogram(axis, bench, where, subject, number)
            axis.set_xscale("log")
            axis.set_yscale("log", nonpositive="clip")  # what the tail is made of is rare
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # of its own it would write mathematics
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.xaxis.set_minor_formatter(lambda *_: "")
            axis.yaxis.set_minor_formatter(lambda *_: "")
            axis.set_title(f"{where.cpus} vCPU{'s' if where.cpus > 1 else ''}, {where.filesystem}", fontsize=9)
            axis.set_xlabel("latency of a fault, µs")
        axes[0].set_ylabel("share of faults per octave")

    return _drawn(len(places), draw)


def _kind(where: Where) -> tuple[str, str]:
    return where.flavour, where.filesystem


def _subjects(bench: Bench) -> list[str]:
    """Return what has a colour, in the order of the colours; the base once more only where there is nothing else."""
    names = [one.name for one in bench.subjects]
    return [BASE, *([name for name in names if name != NULL] or names)]


def _drawn(number: int, draw: Callable[[Sequence[Any]], None]) -> Markup:
    """Return a row of so many axes with what is drawn on them, and one legend."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(max(10, 2.5 * number), 2.6), layout="constrained")
        axes = figure.subplots(1, number, squeeze=False)[0]
        draw(axes)
        axes[0].legend(fontsize=6)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Markup(re.sub(r"\A.*?(?=<svg)", "", file.getvalue(), flags=re.DOTALL))  # noqa: S704  # made by matplotlib


def _histogram(axis: Any, bench: Bench, where: Where, subject: str, number: int) -> None:
    trials = latencies.of_case(bench.samples, subject, where)
    if not trials:
        return
    found = latencies.band(trials, bench.level)
    colour = _COLOURS[number % len(_COLOURS)]
    edges = [nanoseconds / 1000 for nanoseconds in found.edges]
    axis.stairs(found.middle, edges, color=colour, linewidth=1, label=subject)
    # The band as steps: the last value holds to the last edge.
    low, high = ([*values, values[-1]] for values in (found.low, found.high))
    axis.fill_between(edges, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    if tail := _p99(bench, where, subject):
        axis.axvline(tail, color=colour, linestyle=":", linewidth=1)


def _p99(bench: Bench, where: Where, subject: str) -> float:
    """Return the median over trials of the 99th percentile, in microseconds; 0 where it was not compared."""
    for one in named(bench.comparisons, metric="p99", where=where):
        if subject in (BASE, one.subject):
            return (one.difference.first if subject == BASE else one.difference.second).median
    return 0.0


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
