"""The verdict in words: plain text for a pipe, and the Markdown block for below the `---` of a cover letter."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rig.coverage import least
from rig.model import FindingVerdict, Side, Status, TrialResult
from rig.results import Run

WIDTH = 72  # of a mail
ACCELERATORS = {
    "tcg": "TCG (emulated: weaker evidence on timing, none on memory ordering)",
    "kvm": "KVM",
}
#: How a cell's trials are counted in a table, the worst first.
SHORT = {
    Status.CRASH: "crash",
    Status.TIMEOUT: "hang",
    Status.FAIL: "fail",
    Status.LOST: "lost",
    Status.INCONCLUSIVE: "inconcl",
    Status.SKIP: "skip",
    Status.PASS: "pass",
}


def text(run: Run, root: Path | None = None) -> str:
    """Return verdict, findings, cells and environment as plain lines; `root` is where the run's folder is."""
    lines = [f"{run.verdict.judgement}: {run.verdict.sentence}", ""]
    for found in run.verdict.findings:
        lines += [
            f"  {found.judgement:<10} {found.title}",
            f"             {found.sentence}",
            f"             in {_list(found.cells, 4)}",
            f"             {rerun(found.example, root)}",
        ]
    if run.verdict.findings:
        lines.append("")
    lines += _table(("cell", "base", "patched"), _cells(run.trials), "  ")
    lines.append("")
    lines += [f"  note: {note}" for note in run.verdict.notes]
    lines += [f"  {name}: {value}" for name, value in _environment(run)]
    if not run.complete:
        lines.append("  INCOMPLETE: not every planned trial has run")
    return "\n".join(lines) + "\n"


def markdown(run: Run, root: Path | None = None) -> str:
    """Return the block to paste under the `---` of a cover letter: no line longer than 72 columns but for a command."""
    lines = [f"Tested with rig {run.rig_version}: **{run.verdict.judgement}**", ""]
    lines += [*_wrap(run.verdict.sentence), ""]
    for name, value in _environment(run):
        lines += _wrap(f"- {name}: {value}", "  ")
    if not run.complete:
        lines += _wrap("- INCOMPLETE: not every planned trial has run", "  ")
    lines.append("")
    if run.verdict.findings:
        rows = [(f.judgement, str(f.base), str(f.patched), str(n)) for n, f in enumerate(run.verdict.findings, 1)]
        lines += _markdown_table(("verdict", "base", "patched", "finding"), rows)
        lines.append("")
        for number, found in enumerate(run.verdict.findings, 1):
            lines += _finding(number, found, root)
    for note in run.verdict.notes:
        lines += _wrap(f"- {note}", "  ")
    return "\n".join(lines).rstrip() + "\n"


def rerun(evidence: str, root: Path | None = None) -> str:
    """Return the command that runs the trial in the folder `evidence` again."""
    return f"rig rerun {root / evidence if root else evidence}"


def _finding(number: int, found: FindingVerdict, root: Path | None) -> list[str]:
    command = rerun(found.example, root)
    indented = [f"   {command}"]
    if len(indented[0]) > WIDTH:  # still one command when it is pasted into a shell
        indented = ["   rig rerun \\", f"     {command.removeprefix('rig rerun ')}"]
    return [
        *_wrap(f"{number}. {found.title}", "   "),
        *_wrap(f"   {found.sentence}", "   "),
        *_wrap(f"   in {_list(found.cells, 3)}", "   "),
        "",
        *indented,
        "",
    ]


def _environment(run: Run) -> list[tuple[str, str]]:
    accelerators = sorted({trial.accelerator for trial in run.trials} or {run.host.accelerator})
    machines = sorted({trial.cell.machine for trial in run.trials})
    flavours = sorted({trial.cell.flavour for trial in run.trials})
    tree = run.series.patches[-1].tree if run.series.patches else run.base.tree
    sides = [sum(trial.side is side for trial in run.trials) for side in (Side.BASE, Side.PATCHED)]
    counted = ", ".join(f"{name} {count}" for name, count in least(trial.coverage for trial in run.trials))
    return [
        ("base", f"{run.base.source}, tree {run.base.tree[:12]}"),
        ("series", f"{run.series.name}, {_count(len(run.series.patches), 'patch', 'patches')}, tree {tree[:12]}"),
        ("kernels", f"{', '.join(flavours) or 'none'}; {run.host.compiler}"),
        ("machines", ", ".join(machines) or "none"),
        ("trials", f"{sides[0]} base, {sides[1]} patched"),
        ("accelerator", ", ".join(ACCELERATORS.get(name, name) for name in accelerators)),
        *([("kernel counters", f"{counted} (the least of any trial)")] if counted else []),
    ]


def _cells(trials: Iterable[TrialResult]) -> list[tuple[str, str, str]]:
    counts: dict[str, dict[Side, dict[Status, int]]] = {}
    for trial in trials:
        sides = counts.setdefault(trial.cell.id, {side: defaultdict(int) for side in Side})
        sides[trial.side][trial.status] += 1
    return [(cell, _tally(sides[Side.BASE]), _tally(sides[Side.PATCHED])) for cell, sides in sorted(counts.items())]


def _tally(statuses: dict[Status, int]) -> str:
    return " ".join(f"{statuses[status]} {name}" for status, name in SHORT.items() if statuses.get(status)) or "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    cells = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return [(indent + line).rstrip() for line in cells]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(3, *(len(row[i]) for row in (head, *rows))) for i in range(len(head))]
    lines = [head, *rows]
    table = [f"| {' | '.join(w.ljust(n) for w, n in zip(line, widths, strict=True))} |" for line in lines]
    return [table[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *table[1:]]


def _wrap(line: str, indent: str = "") -> list[str]:
    lead = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line.strip(), WIDTH, initial_indent=lead, subsequent_indent=indent, break_on_hyphens=False)


def _list(items: Sequence[str], most: int) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
