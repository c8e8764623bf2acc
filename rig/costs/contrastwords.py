"""What two benches have to say about each other, in words and as a table that is Markdown as well. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rig.comparison.changes import Change
from rig.costs.contrast import Contrast, Levels, Named, Row, kinds_of
from rig.costs.differences import rate
from rig.costs.metrics import BASE, BY_NAME, NULL
from rig.costs.words import EVIDENCE, change_of, number, percent
from rig.reports.mdtable import markdown

SHOWN = 20  # rows, and things that one bench has alone; JSON has all
HEAD = ("", "series", "flavour/CPUs/file system/case", "what", "A: base → series", "B: base → series", "change")


def text(made: Contrast) -> str:
    """Return the whole as lines for a terminal, or to paste where Markdown is read."""
    title = "WORSE" if made.worse else "NOTHING WORSE" if made.rows else "NOT COMPARED"
    lines = [f"{title}: {made.sentence}", ""]
    for name, one in (("A", made.a), ("B", made.b)):
        lines.append(f"  {name}  {_named(one)}")
    claimed = [row for row in made.rows if row.change is not Change.SAME and row.compared.subject != NULL]
    if claimed:
        lines += ["", table(claimed[:SHOWN]), "", *_more(len(claimed), "rows")]
        lines.append("Bold: worse by more than the threshold. A series is compared by what it does to its own base.")
    lines.append("")
    lines += [f"  broken: {one.subject} {one.status} {one.cell}: {one.reason} ({one.evidence})" for one in made.broken]
    for what, some in (("only in A", made.only_a), ("only in B", made.only_b)):
        lines += [f"  {what}: {one}" for one in some[:SHOWN]] + _more(len(some), f"{what}")
    lines += [f"  left out: {one}" for one in made.left_out]
    lines += [f"  differs: {one.what}: {one.a} -> {one.b}; {one.why}" for one in made.differences]
    lines += [f"  {line}" for line in (*_null(made), *made.notes)]
    if (note := EVIDENCE.get(made.b.accelerator)) and any(not _is_count(row) for row in made.rows):
        lines.append(f"  note: {note}")
    return "\n".join(lines).rstrip()


def _named(one: Named) -> str:
    series = ", ".join(one.subjects) or "no series"
    trials = f"{one.counted} counted and {one.timed} timed pairs"
    return f"{one.id}: {series} against {one.against or 'the base'} ({one.base}), {trials}, {one.started}"


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table whose columns stand below each other."""
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(3, *(len(line[n]) for line in cells)) for n in range(len(HEAD))]
    padded = [tuple(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    head, _, *lines = markdown(padded[0], padded[1:]).splitlines()
    return "\n".join((head, f"| {' | '.join('-' * width for width in widths)} |", *lines))


def _cells(row: Row) -> tuple[str, ...]:
    one = row.compared
    name = one.subject if row.was == one.subject else f"{row.was} → {one.subject}"
    change = f"{change_of(one)} [{_ends(row)}]"
    return (
        str(row.change),
        name,
        one.where.id,
        BY_NAME[one.metric].title,
        _levels(row.a, row),
        _levels(row.b, row),
        f"**{change}**" if row.counts else change,
    )


def _ends(row: Row) -> str:
    relative, difference = BY_NAME[row.compared.metric].relative, row.compared.difference
    return ", ".join(percent(x) if relative else f"{100 * x:+.2f}" for x in (difference.low, difference.high))


def _levels(levels: Levels, row: Row) -> str:
    metric = BY_NAME[row.compared.metric]
    scale, unit = (1, f" {metric.unit}".rstrip()) if metric.relative else (100, " %")
    values = [levels.series] if row.compared.subject == BASE else [levels.base, levels.series]
    return " → ".join(number(scale * value) for value in values) + unit


def _is_count(row: Row) -> bool:
    return BY_NAME[row.compared.metric].kind.value == "counts"


def _null(made: Contrast) -> Iterable[str]:
    """Yield how often something was claimed of the null controls of the two, which are one kernel against itself."""
    for kind, (claims, comparisons) in kinds_of(row for row in made.rows if row.compared.subject == NULL).items():
        one = rate(claims, comparisons)
        yield (
            f"null control, {kind}: {claims} claims in {comparisons} comparisons: {100 * one.value:.1f} % "
            f"(95 % interval {100 * one.low:.1f} to {100 * one.high:.1f} %; nominal {100 * (1 - made.level):g} %)"
        )


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count - SHOWN} more {what}; --json has them all"] if count > SHOWN else []
