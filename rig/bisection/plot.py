"""The picture of a bisection: per finding, how often each prefix failed and how likely the finding is in it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rig.bisection.outcomes import Bisection, Hunted, Outcome
from rig.costs.metrics import BY_NAME
from rig.costs.words import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 9.0, 2.6  # inches; the height is that of one finding


def svg(done: Bisection) -> str:
    """Return the plot as SVG; the same bisection gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = [one for one in done.findings if one.counts]
    with mpl.rc_context({"svg.hashsalt": done.id, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH, HEIGHT * max(1, len(shown))), layout="constrained")
        if not shown:
            figure.text(0.5, 0.5, _plain(done.sentence)[:110], ha="center", va="center")
        for index, one in enumerate(shown, 1):
            axes = figure.add_subplot(len(shown), 1, index)
            (_draw_levels if one.metric else _draw_rates)(axes, one)
            _frame(axes, one)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _draw_rates(axes: Axes, one: Hunted) -> None:
    """Draw how often each prefix failed, and how likely the finding is in it."""
    at = range(len(one.counts))
    tried = [index for index, count in enumerate(one.counts) if count.trials]
    rates = [one.counts[index].failures / one.counts[index].trials for index in tried]
    axes.bar(tried, rates, color="#c44e52", width=0.7, label="failures per trial")
    axes.step(
        at, [count.probability for count in one.counts], where="mid", color="#4c72b0", label="has it (probability)"
    )
    for index, count in enumerate(one.counts):
        if count.trials:
            axes.annotate(f"{count.failures}/{count.trials}", (index, 1.02), ha="center", va="bottom", fontsize=7)
        elif count.hole:
            axes.axvspan(index - 0.5, index + 0.5, color="#cccccc", hatch="//", alpha=0.5, lw=0)
    for index in _guilty(one):
        axes.axvline(index, color="black", lw=0.8, ls=":")
    axes.set_ylim(0, 1.15)
    axes.legend(loc="center left", fontsize=7, framealpha=0.8)


def _draw_levels(axes: Axes, one: Hunted) -> None:
    """Draw what each prefix counts, that of a culprit in red; those that were not tried stay empty."""
    values = {index: count.value for index, count in enumerate(one.counts) if count.value is not None}
    guilty = _guilty(one)
    colours = ["#c44e52" if index in guilty else "#4c72b0" for index in values]
    axes.bar(list(values), list(values.values()), color=colours, width=0.7)
    for index, value in values.items():
        axes.annotate(level(one.metric, value), (index, value), ha="center", va="bottom", fontsize=7)
    axes.set_ylabel(BY_NAME[one.metric].title, fontsize=8)
    axes.margins(y=0.15)


def _guilty(one: Hunted) -> tuple[int, ...]:
    """Return where the prefixes of the culprits stand."""
    numbers = {culprit.number for culprit in one.culprits if one.outcome is Outcome.FOUND}
    return tuple(index for index, count in enumerate(one.counts) if count.number in numbers)


def _frame(axes: Axes, one: Hunted) -> None:
    axes.set_xticks(range(len(one.counts)), [str(count.number) for count in one.counts], fontsize=8)
    axes.set_xlabel("patches applied")
    axes.set_title(_plain(f"{one.title} ({one.cell})")[:110], fontsize=9)


def _plain(text: str) -> str:
    """Return text in which nothing is mathematics to matplotlib, and nothing unprintable to XML."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
