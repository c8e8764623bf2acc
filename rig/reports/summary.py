"""The verdict in words: plain text for a pipe, and the Markdown block for below the `---` of a cover letter."""

from __future__ import annotations

import shlex
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rig.model import FindingVerdict, Side, Status, TrialResult
from rig.reports import again
from rig.reports.words import ACCELERATORS, SHORT, count, listing
from rig.runs.results import Run
from rig.trials.coverage import least
from rig.verdicts.blame import of_verdict

WIDTH = 72  # of a mail


def text(run: Run, root: Path | None = None) -> str:
    """Return verdict, findings, cells and environment as plain lines.

    `root` is the run's folder as commands name it; without it they are for who stands in that folder.
    """
    lines = [f"{run.verdict.judgement}: {run.verdict.sentence}", ""]
    for found in run.verdict.findings:
        lines += [
            f"  {found.judgement:<12} {found.title}",
            f"               {found.sentence}",
            f"               in {listing(found.cells, 4)}",
            *(f"               {command}" for command in _commands(run, found, root)),
        ]
    if run.verdict.findings:
        lines.append("")
    lines += _table(("cell", "base", "patched"), _cells(run.trials), "  ")
    lines.append("")
    lines += [f"  note: {note}" for note in run.verdict.notes]
    lines += [f"  {name}: {value}" for name, value in environment(run)]
    if not run.complete:
        lines.append("  INCOMPLETE: not every planned trial has run")
    return "\n".join(lines) + "\n"


def markdown(run: Run) -> str:
    """Return the block to paste under the `---` of a cover letter: at most 72 columns wide."""
    lines = [f"Tested with rig {run.rig_version}: **{run.verdict.judgement}**", ""]
    lines += [*_wrap(run.verdict.sentence), ""]
    for name, value in environment(run):
        lines += _wrap(f"- {name}: {value}", "  ")
    if not run.complete:
        lines += _wrap("- INCOMPLETE: not every planned trial has run", "  ")
    lines.append("")
    if run.verdict.findings:
        rows = [(f.judgement, str(f.base), str(f.patched), str(n)) for n, f in enumerate(run.verdict.findings, 1)]
        lines += _markdown_table(("verdict", "base", "patched", "finding"), rows)
        lines.append("")
        for number, found in enumerate(run.verdict.findings, 1):
            lines += _finding(run, number, found)
    for note in run.verdict.notes:
        lines += _wrap(f"- {note}", "  ")
    return "\n".join(lines).rstrip() + "\n"


def _commands(run: Run, found: FindingVerdict, root: Path | None) -> list[str]:
    """How to see a finding again: from the series alone, and from the evidence of this run."""
    example = again.example(run, found.example)
    return [*([again.anywhere(run, example)] if example else []), again.rerun(found.example, root)]


def _blamed(run: Run, found: FindingVerdict) -> str:
    """Where the finding points in the series; "" where nothing can be said."""
    pointed = of_verdict(run, found)
    return pointed.sentence if pointed and pointed.suspects else ""


def _finding(run: Run, number: int, found: FindingVerdict) -> list[str]:
    return [
        *_wrap(f"{number}. {found.title}", "   "),
        *_wrap(f"   {found.sentence}", "   "),
        *_wrap(f"   in {listing(found.cells, 3)}", "   "),
        *_wrap(f"   {_blamed(run, found)}", "   "),
        "",
        *_folded(_commands(run, found, None)[0]),
        "",
    ]


def _folded(command: str) -> list[str]:
    """Return a command over as many lines as it needs, still one command when it is pasted into a shell."""
    lines = ["  "]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if len(lines[-1]) + len(quoted) + 3 > WIDTH and lines[-1].strip():
            lines[-1] += " \\"
            lines.append("    ")
        lines[-1] += f" {quoted}"
    return lines


def environment(run: Run) -> list[tuple[str, str]]:
    """Return what the trials ran on and with, as names and values."""
    accelerators = sorted({trial.accelerator for trial in run.trials} or {run.host.accelerator})
    machines = sorted({trial.cell.machine for trial in run.trials})
    flavours = sorted({trial.cell.flavour for trial in run.trials})
    tree = run.series.patches[-1].tree if run.series.patches else run.base.tree
    sides = [sum(trial.side is side for trial in run.trials) for side in (Side.BASE, Side.PATCHED)]
    counted = ", ".join(f"{name} {count}" for name, count in least(trial.coverage for trial in run.trials))
    return [
        ("base", f"{run.base.source}, tree {run.base.tree[:12]}"),
        ("series", f"{run.series.name}, {count(len(run.series.patches), 'patch', 'patches')}, tree {tree[:12]}"),
        ("kernels", f"{', '.join(_flavour(run, name) for name in flavours) or 'none'}; {run.host.compiler}"),
        ("machines", ", ".join(_machine(run, name) for name in machines) or "none"),
        ("trials", f"{sides[0]} base, {sides[1]} patched"),
        ("accelerator", ", ".join(ACCELERATORS.get(name, name) for name in accelerators)),
        *([("kernel counters", f"{counted} (the least of any trial)")] if counted else []),
    ]


def _flavour(run: Run, name: str) -> str:
    """`debug (base debug-vm)`: a flavour with its Kconfig fragments, where the run tells them."""
    flavours = run.config.get("flavours")
    fragments = flavours.get(name) if isinstance(flavours, dict) else None
    return f"{name} ({' '.join(map(str, fragments))})" if isinstance(fragments, list) and fragments else name


def _machine(run: Run, name: str) -> str:
    """A machine as its guest reported it: `numa8 (8 CPUs, 2 nodes, 2012 MiB, THP always)`."""
    guest = next((trial.guest for trial in run.trials if trial.guest and trial.cell.machine == name), None)
    if guest is None:
        return name
    nodes = f", {guest.nodes} nodes" if guest.nodes > 1 else ""
    return f"{name} ({count(guest.cpus, 'CPU')}{nodes}, {guest.memory_kib // 1024} MiB, THP {guest.thp})"


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
