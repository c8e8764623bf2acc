"""The figures of a report as SVG: colours follow the page's scheme, words stay text, and nothing is fetched.

Each figure tells base and patched apart by the shape of its marks as well as by colour.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rig.model import Side, Status, Tally, TrialResult
from rig.reports.printable import one_line
from rig.reports.words import duration
from rig.verdicts import statistics
from rig.verdicts.verdict import counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.2  # inches of 72 points
MOST_CELLS = 24

#: What is drawn in these colours gets that of the page, which differs between dark and light.
_INK, _GRID = "#010203", "#040506"
_COLOURS = {Side.BASE: "#070809", Side.PATCHED: "#0a0b0c"}
_PAGE = {_INK: "currentColor", _GRID: "var(--line)", "#070809": "var(--base)", "#0a0b0c": "var(--patched)"}
_MARKS = {Side.BASE: "o", Side.PATCHED: "D"}
_DASHES = {Side.BASE: "--", Side.PATCHED: "-"}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rig",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, and the same in words for who cannot see it."""

    title: str
    about: str
    svg: str


def figures(trials: Sequence[TrialResult], stages: Sequence[tuple[str, float]]) -> tuple[Figure, ...]:
    """Return the figures that a run has data for."""
    counted = [trial for trial in trials if counts(trial)]
    made = (_rates(counted), _first_findings(counted), _stages(stages), _trial_times(trials))
    return tuple(replace(one, svg=_own_ids(one.svg, f"f{n}-")) for n, one in enumerate(made) if one is not None)


def _own_ids(svg: str, prefix: str) -> str:
    """Ids are one name space for the whole page."""
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)


def by_cell(trials: Iterable[TrialResult]) -> dict[str, dict[Side, Tally]]:
    """Return how often the trials that count failed, by the id of the cell and the side."""
    found: dict[str, dict[Side, Tally]] = {}
    for trial in trials:
        sides = found.setdefault(trial.cell.id, {side: Tally(failures=0, trials=0) for side in Side})
        before = sides[trial.side]
        sides[trial.side] = Tally(failures=before.failures + trial.status.bad, trials=before.trials + 1)
    return found


def _rates(trials: Sequence[TrialResult]) -> Figure | None:
    cells = by_cell(trials)
    if not cells:
        return None
    ranked = sorted(cells, key=lambda cell: (-max(_rate(tally) for tally in cells[cell].values()), cell))
    drawn = ranked[:MOST_CELLS]
    with _style():
        axes = _axes(0.9 + 0.36 * len(drawn))
        for row, cell in enumerate(drawn):
            for side, offset in ((Side.BASE, -0.14), (Side.PATCHED, 0.14)):
                tally = cells[cell][side]
                if (interval := statistics.interval(tally.failures, tally.trials)) is None:
                    continue
                colour, at = _COLOURS[side], row + offset
                axes.plot(
                    [100 * interval.low, 100 * interval.high],
                    [at, at],
                    color=colour,
                    linewidth=2,
                    solid_capstyle="butt",
                )
                axes.plot([100 * _rate(tally)], [at], _MARKS[side], color=colour, markersize=6)
        axes.set_yticks(range(len(drawn)), [_label(cell, 44) for cell in drawn])
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("failed trials, % (bars: 95 % confidence)")
        _legend(axes)
        svg = _svg(axes)
    left = f"; {len(ranked) - len(drawn)} more cells, which failed less, are left out" if ranked != drawn else ""
    return Figure(
        title="How often each cell failed",
        about="Mark: share of trials that failed. Bar: where the true rate lies with 95 % confidence (Clopper and "
        f"Pearson); long bars mean few trials. Circles: base, diamonds: patched{left}.",
        svg=svg,
    )


def _rate(tally: Tally) -> float:
    return tally.failures / tally.trials if tally.trials else 0.0


def seen_by(trials: Iterable[TrialResult]) -> list[tuple[float, float]]:
    """Return the steps (seconds of workload, share of trials with a finding by then), trials without one censored.

    One minus the product-limit estimate (Kaplan and Meier, 1958).
    """
    ends = sorted(
        (trial.timing.workload if trial.first_finding is None else trial.first_finding, trial.first_finding is None)
        for trial in trials
    )
    left, without = len(ends), 1.0
    steps = [(0.0, 0.0)]
    for seconds, censored in ends:
        if not censored:
            without *= 1 - 1 / left
        left -= 1
        steps.append((seconds, 1 - without))
    return steps


def _first_findings(trials: Sequence[TrialResult]) -> Figure | None:
    if not any(trial.first_finding is not None for trial in trials):
        return None
    with _style():
        axes = _axes(2.6)
        for side in Side:
            if steps := seen_by(trial for trial in trials if trial.side is side):
                times, shares = zip(*steps, strict=True)
                axes.step(
                    times, [100 * share for share in shares], where="post", color=_COLOURS[side],
                    linestyle=_DASHES[side], linewidth=2,
                )  # fmt: skip
                found = sorted(t.first_finding for t in trials if t.side is side and t.first_finding is not None)
                at = [100 * max(share for time, share in steps if time <= one) for one in found]
                axes.plot(found, at, _MARKS[side], color=_COLOURS[side], markersize=5)
        axes.set_ylim(-3, 103)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds of workload")
        axes.set_ylabel("trials with a finding, %")
        _legend(axes)
        svg = _svg(axes)
    return Figure(
        title="How soon something was found",
        about="Share of trials that had shown a finding after so many seconds of workload. Trials that ended without "
        "one count as long as they ran (Kaplan-Meier).",
        svg=svg,
    )


def _stages(stages: Sequence[tuple[str, float]]) -> Figure | None:
    totals: dict[str, float] = {}
    for name, seconds in stages:
        totals[name] = totals.get(name, 0.0) + seconds
    if not totals:
        return None
    with _style():
        axes = _axes(0.7 + 0.3 * len(totals))
        axes.barh(range(len(totals)), list(totals.values()), color=_COLOURS[Side.BASE], height=0.6)
        for row, seconds in enumerate(totals.values()):
            axes.annotate(duration(seconds), (seconds, row), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(totals)), [_label(name, 30) for name in totals])
        axes.set_ylim(len(totals) - 0.5, -0.5)
        axes.set_xlim(0, 1.25 * max(totals.values()) or 1)
        axes.set_xlabel("seconds")
        svg = _svg(axes)
    return Figure(title="Where the time of the run went", about="Seconds of wall time by stage.", svg=svg)


def _trial_times(trials: Sequence[TrialResult]) -> Figure | None:
    booted = [trial for trial in trials if trial.timing.total and trial.status is not Status.LOST]
    groups: dict[tuple[str, Side], list[TrialResult]] = {}
    for trial in booted:
        groups.setdefault((f"{trial.cell.flavour}/{trial.cell.machine}", trial.side), []).append(trial)
    if not groups:
        return None
    with _style():
        axes = _axes(0.9 + 0.32 * len(groups))
        for row, ((_, side), some) in enumerate(sorted(groups.items())):
            start = 0.0
            for part, hatch, alpha in (("boot", "", 0.4), ("workload", "", 1.0), ("rest", "////", 0.25)):
                seconds = _median([_part(trial, part) for trial in some])
                axes.barh(
                    [row], [seconds], left=start, color=_COLOURS[side], alpha=alpha, height=0.6, hatch=hatch,
                    edgecolor=_GRID,
                )  # fmt: skip
                start += seconds
        axes.set_yticks(range(len(groups)), [f"{_label(name, 30)} {side}" for name, side in sorted(groups)])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel("seconds: boot (pale), workload (full), looking around (hatched)")
        svg = _svg(axes)
    return Figure(
        title="What a trial took",
        about="Medians over the trials: from QEMU's start to the first SSH command, then the workload, then reading "
        "counters, the audit and the end of the machine.",
        svg=svg,
    )


def _part(trial: TrialResult, part: str) -> float:
    timing = trial.timing
    known = {"boot": timing.boot, "workload": timing.workload}
    return known.get(part, max(0.0, timing.total - timing.boot - timing.workload))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


# -- matplotlib -------------------------------------------------------------------------------------------------------


def _style() -> AbstractContextManager[None]:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of font caches
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def _axes(height: float) -> Axes:
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(WIDTH, height), layout="constrained").subplots()


def _label(name: str, most: int) -> str:
    """ASCII only: matplotlib need not have a font for more, and says so on the user's terminal."""
    return one_line(name, most).encode("ascii", "replace").decode()


def _legend(axes: Axes) -> None:
    for side in Side:
        axes.plot([], [], _MARKS[side], linestyle=_DASHES[side], color=_COLOURS[side], label=str(side))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _svg(axes: Axes) -> str:
    file = io.StringIO()
    drawing: Any = axes.figure
    drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    for colour, page in _PAGE.items():
        svg = svg.replace(colour, page)
    return svg.strip()
