"""The verdict of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rig.model import Judgement
from rig.reports import again
from rig.reports.printable import shown
from rig.reports.summary import environment
from rig.reports.words import headline, listing
from rig.runs.results import Run
from rig.verdicts.blame import of_verdict

STYLES = {
    Judgement.REGRESSION: "bold red",
    Judgement.KNOWN: "yellow",
    Judgement.FIXED: "green",
    Judgement.CLEAN: "bold green",
    Judgement.INCONCLUSIVE: "bold yellow",
}


def show(console: Console, run: Run, root: Path) -> None:
    """Print the verdict, a table of the findings, how to see each again, and what it rests on."""
    judgement = run.verdict.judgement
    console.print()
    console.print(Text(f"{judgement}: {shown(headline(run))}", STYLES[judgement]))
    console.print(Text(shown(run.verdict.sentence)))
    console.print()
    if run.verdict.findings:
        console.print(_findings(run))
        console.print()
        console.print(Text("see it again:", "dim"))
        for number, command in enumerate(_commands(run, root), 1):
            # Not wrapped, however narrow the screen is: what is copied must be one command.
            console.print(Text.assemble((f"{number}  ", "dim"), shown(command)), soft_wrap=True)
        console.print()
    for note in run.verdict.notes:
        console.print(Text(f"note: {shown(note)}", "yellow"))
    if not run.complete:
        console.print(Text("INCOMPLETE: not every planned trial has run", "bold yellow"))
    for name, value in environment(run):
        console.print(Text.assemble((f"{name}: ", "dim"), shown(value)))


def _findings(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding", ratio=1, overflow="fold")
    table.add_column("base", justify="right", no_wrap=True)
    table.add_column("patched", justify="right", no_wrap=True)
    for number, found in enumerate(run.verdict.findings, 1):
        pointed = of_verdict(run, found)
        told = Text.assemble((shown(found.title), "bold"), f"\n{shown(found.sentence)}")
        told.append(f"\nin {shown(listing(found.cells, 3))}", "dim")
        if pointed and pointed.suspects:
            told.append(f"\n{shown(pointed.sentence)}", "dim")
        style = STYLES[found.judgement]
        table.add_row(str(number), Text(found.judgement, style), told, str(found.base), str(found.patched))
    return table


def _commands(run: Run, root: Path) -> Iterator[str]:
    for found in run.verdict.findings:
        example = again.example(run, found.example)
        yield again.anywhere(run, example) if example else again.rerun(found.example, root)
