"""What a bench found, in words, numbers and Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rig.costs.differences import Rate, rate
from rig.costs.metrics import BY_NAME, EXEC, NULL, Bench, Comparison, Kind, Where, named, regressions
from rig.reports.mdtable import markdown

#: The cases of the short tables, and what they stand for.
SHOWN: tuple[tuple[str, str], ...] = (
    ("one-private-read", "one process, read faults"),
    ("many-private-read", "many processes, private"),
    ("many-shared-read", "many processes, shared"),
    ("many-private-read-2m", "the same, 2 MiB around each fault"),
    ("many-private-cow", "many processes, write faults that copy"),
    ("threads-private-read", "threads of one process"),
    ("cold-private-read", "pages that are being read"),
    ("hog-private-read", "page locks held by writers (no relief to be had)"),
    (EXEC, "a storm of exec"),
)
#: The case that the first sentence is about: the one that the page lock is bad at.
CASE = "many-private-read"
EVIDENCE = {"tcg": "times were taken under emulation (TCG), which makes them weak evidence; counts are exact"}


def number(value: float) -> str:
    """Return a number in three significant digits or so."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 5)}f}"


def percent(value: float) -> str:
    """Return a share with its sign, in percent."""
    return f"{100 * value:+.{1 if abs(value) < 0.1 else 0}f} %"


def level(metric: str, value: float) -> str:
    """Return a value of a metric, in percent where it is a share."""
    one = BY_NAME[metric]
    return f"{number(value)} {one.unit}".rstrip() if one.relative else f"{number(100 * value)} %"


def growth(metric: str, before: float, after: float) -> str:
    """Return what a value gained, as a share of what it was, or in points of a metric that is a share itself."""
    if BY_NAME[metric].relative and before:
        share = after / before - 1
        return percent(share if abs(share) >= 0.0005 else 0.0)  # not -0.0 %
    return f"{100 * (after - before):+.2f} points" if not BY_NAME[metric].relative else f"{after - before:+.3g}"


def change_of(one: Comparison) -> str:
    """Return a change with its sign, in percent where the metric is relative."""
    metric, value = BY_NAME[one.metric], one.difference.change
    if metric.relative:
        return percent(value)
    return f"{100 * value:+.2f} points"


def in_words(one: Comparison) -> str:
    """Return one comparison in one line."""
    metric, difference = BY_NAME[one.metric], one.difference
    a, b = difference.first, difference.second
    scale = 1 if metric.relative else 100
    unit = " %" if not metric.relative else f" {metric.unit}" if metric.unit else ""
    values = f"{number(scale * a.median)} -> {number(scale * b.median)}{unit}"
    kind = "interval" if metric.kind is Kind.TIMED else "range of differences"
    low, high = (percent(x) if metric.relative else f"{100 * x:+.2f}" for x in (difference.low, difference.high))
    verdict = {True: "better", False: "worse", None: "no change claimed"}[one.better]
    return (
        f"{one.subject}: {one.where.id}: {metric.title} {values}, {change_of(one)} ({kind} {low} to {high}): {verdict}"
    )


def cell(one: Comparison | None) -> str:
    """Return a comparison as a cell of a table: before and after of a count, the change of a time; bold if claimed."""
    if one is None:
        return ""
    metric, difference = BY_NAME[one.metric], one.difference
    if metric.kind is Kind.TIMED:
        text = f"{percent(difference.change)} [{percent(difference.low)}, {percent(difference.high)}]"
    else:
        scale, unit = (1, "") if metric.relative else (100, " %")
        values = [number(scale * side.median) for side in (difference.first, difference.second)]
        text = f"{' → '.join(dict.fromkeys(values))}{unit}"
    return f"**{text}**" if one.better is not None else text


def _first(bench: Bench, subject: str, metric: str, where: Where) -> Comparison | None:
    return next(iter(named(bench.comparisons, subject=subject, metric=metric, where=where)), None)


def places(bench: Bench, subject: str) -> tuple[Where, ...]:
    """Return where a subject was compared, each once."""
    return tuple(dict.fromkeys(one.where for one in bench.comparisons if one.subject == subject))


def sentence(bench: Bench, subject: str) -> str:
    """Return the one sentence about a series: what it does in CASE on the most CPUs."""
    found = [where for where in places(bench, subject) if where.case == CASE] or list(places(bench, subject))
    if not found:
        return f"{subject}: nothing was measured."
    where = max(found, key=lambda one: one.cpus)
    parts = []
    if atomics := _first(bench, subject, "atomics", where):
        a, b = atomics.difference.first.median, atomics.difference.second.median
        if atomics.better is None and number(a) == number(b):
            parts.append(f"as many atomics per page as before ({number(b)})")
        elif atomics.better is None:
            parts.append(f"atomics per page {number(a)} → {number(b)} (no change claimed)")
        else:
            fewer = f"{number(abs(b - a))} {'fewer' if b < a else 'more'} atomics per page ({number(a)} → {number(b)})"
            parts.append(fewer + _mostly(bench, subject, where))
    if excess := _first(bench, subject, "excess", where):
        parts.append(f"excess faults {cell(excess).strip('*')}")
    if work := _first(bench, subject, "per_fault", where):
        parts.append(
            f"{change_of(work)} kernel instructions per fault" + ("" if work.better is not None else " (none claimed)")
        )
    if speed := _first(bench, subject, "rate", where):
        parts.append(
            f"faults per second {cell(speed).strip('*')}" + ("" if speed.better is not None else " (no change claimed)")
        )
    against = bench.against or "the base"
    return f"{subject} against {against}, {where.case} on {where.cpus} CPUs: {', '.join(parts)}."


def _mostly(bench: Bench, subject: str, where: Where) -> str:
    """Say in which functions most of the change of the atomics is."""
    found = next((one for one in bench.functions if one.subject == subject and one.where == where), None)
    if found is None:
        return ""
    moved = [
        (one.function, one.atomics[1] - one.atomics[0]) for one in found.changes if one.atomics[0] != one.atomics[1]
    ]
    shown = [f"{name} {change:+.2f}" for name, change in moved[:3] if abs(change) >= 0.05]
    return f": {', '.join(shown)}" if shown else ""


def table(bench: Bench, subject: str) -> str:
    """Return the table of a series for its cover letter: SHOWN on the most CPUs that each case ran on."""
    head = (
        "case",
        "CPUs",
        "atomics per page",
        "instructions per fault",
        "excess faults",
        "waits per fault",
        "faults per second",
        "median latency",
        "99th percentile",
    )
    rows = []
    for case, title in SHOWN:
        found = [where for where in places(bench, subject) if where.case == case]
        if not found:
            continue
        where = max(found, key=lambda one: (one.cpus, one.filesystem == "tmpfs"))
        metrics = ("atomics", "per_fault", "excess", "waits", "rate", "median", "p99")
        cells = [cell(_first(bench, subject, metric, where)) for metric in metrics]
        rows.append((f"{title} ({where.filesystem})", str(where.cpus), *cells))
    return markdown(head, rows)


def null_rates(bench: Bench) -> dict[Kind, Rate]:
    """Return how often something was claimed of the base against itself, for counts and for times."""
    found = {}
    for kind in Kind:
        mine = [one for one in bench.comparisons if one.subject == NULL and BY_NAME[one.metric].kind is kind]
        if mine:
            found[kind] = rate(sum(one.better is not None for one in mine), len(mine))
    return found


def null_lines(bench: Bench) -> list[str]:
    """Return the false-positive rates in words; nothing without a null control."""
    return [
        f"null control, {kind}: {one.claims} claims in {one.comparisons} comparisons of the base with itself: "
        f"{100 * one.value:.1f} % (95 % interval {100 * one.low:.1f} to {100 * one.high:.1f} %; "
        f"nominal {100 * (1 - bench.level):g} %)"
        for kind, one in null_rates(bench).items()
    ]


def summary(bench: Bench) -> list[str]:
    """Return what a terminal shows."""
    lines = []
    for subject in (one.name for one in bench.subjects if one.name != NULL):
        lines += [sentence(bench, subject)]
    lines += scale_lines(bench)
    bad = regressions(bench)
    if bad:
        lines += ["", f"worse by more than {100 * bench.threshold:g} %:", *(f"  {in_words(one)}" for one in bad)]
    if bench.troubles:
        lines += ["", *(f"  {one.status} {one.subject} {one.cell}: {one.reason}" for one in bench.troubles)]
    lines += ["", *null_lines(bench), *bench.notes]
    if note := EVIDENCE.get(bench.accelerator):
        lines.append(f"note: {note}")
    return lines


def scale_lines(bench: Bench) -> list[str]:
    """Return what the tests of will-it-scale say of the series, in words; nothing where they did not run."""
    return [in_words(one) for one in named(bench.comparisons, metric="iterations") if one.subject != NULL]


def cover(bench: Bench) -> str:
    """Return the Markdown block for the cover letter: a sentence and a table for each series."""
    parts = []
    for subject in (one.name for one in bench.subjects if one.name != NULL):
        parts += [sentence(bench, subject), "", table(bench, subject), ""]
    if scale := scale_lines(bench):
        parts += ["will-it-scale, times only:", "", *(f"- {line}" for line in scale), ""]
    parts += [legend(bench)]
    return "\n".join(parts) + "\n"


def legend(bench: Bench) -> str:
    """Return what the tables mean."""
    words = [
        f"{bench.base}, {bench.accelerator.upper()}, {bench.counted} counted and {bench.timed} timed pairs of trials.",
        f"Bold: claimed (ranges of counts that do not overlap; a {100 * bench.level:g} % bootstrap interval",
        "of the median of paired times that leaves out zero, with signs that agree).",
    ]
    if note := EVIDENCE.get(bench.accelerator):
        words.append(f"{note[0].upper()}{note[1:]}.")
    return " ".join([*words, *(f"{line[0].upper()}{line[1:]}." for line in null_lines(bench))])


def figures_legend(bench: Bench) -> str:
    """Return what is drawn, and what it is not good for."""
    return (
        "Curves: medians of the trials, in the band of all that was measured. Histograms: how many of the faults took "
        f"how long, the mean of the timed trials in the band of its {100 * bench.level:g} % bootstrap interval over "
        "them; dotted: the 99th percentile. Figures claim nothing; the tables do."
    )


def functions_table(bench: Bench, subject: str, where: Where, most: int) -> Sequence[tuple[str, ...]]:
    """Return rows of the functions whose work changed: name, atomics and instructions per page before and after."""
    found = next((one for one in bench.functions if one.subject == subject and one.where == where), None)
    changes = found.changes[:most] if found else ()
    return [
        (
            one.function,
            *(f"{value:.3f}" for value in one.atomics),
            *(f"{value:.1f}" for value in one.instructions),
            *(f"{value:.3f}" for value in one.entered),
        )
        for one in changes
    ]
