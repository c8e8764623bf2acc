"""The findings of console logs for a person: coloured on a terminal, plain and complete in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from rig.front.scan import NOTHING, SOMETHING, Scanned
from rig.model import Finding

#: What a guest prints must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_logs(logs: Iterable[Scanned], *, brief: bool) -> int:
    """Print each log's findings as they become known; return the exit code."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    code = NOTHING
    for log in logs:
        if log.findings:
            code = SOMETHING
        for line in brief_lines(log) if brief else full_lines(log):
            console.print(line)
    return code


def brief_lines(log: Scanned) -> Iterable[Text]:
    """Yield a line per finding: FILE:LINE: KIND: TITLE, as compilers print theirs; none when nothing was found."""
    for one in log.findings:
        yield Text.assemble(
            f"{_safe(log.name)}:{one.first_line}: ",
            (one.kind, "cyan"),
            ": ",
            (one.title, _style(one)),
            (_marks(one), "dim"),
        )


def full_lines(log: Scanned) -> Iterable[Text]:
    """Yield what is to be said of one log: the causes with their texts, and set apart from them their echoes."""
    name = _safe(log.name)
    if not log.findings:
        amount = f"nothing found in {log.lines} lines" if log.size else "empty, so it says nothing"
        yield Text.assemble((name, "bold"), f": {amount}", style="" if log.size else "yellow")
        return
    causes = [one for one in log.findings if not one.echo]
    echoes = [one for one in log.findings if one.echo]
    counted = f"{len(causes)} finding{'s' if len(causes) != 1 else ''}"
    if echoes:
        counted += f" and {len(echoes)} echo{'es' if len(echoes) != 1 else ''}"
    yield Text.assemble((name, "bold"), f": {counted} in {log.lines} lines")
    for one in causes:
        yield from _full(one)
    if echoes:
        yield Text()
        yield Text("Echoes: what came after the kernel was broken already", "bold")
        for one in echoes:
            yield from _full(one)
    yield Text()


def _full(one: Finding) -> Iterable[Text]:
    yield Text()
    yield Text.assemble((one.title, _style(one)), (_marks(one), "yellow"))
    where = (
        f"lines {one.first_line} to {one.last_line}" if one.first_line != one.last_line else f"line {one.first_line}"
    )
    function = f", function {one.function}" if one.function else ""
    yield Text(f"  kind {one.kind}{function}, {where}, signature {one.signature}", "dim")
    for line in one.text.split("\n"):
        yield Text(f"    {_safe(line)}".rstrip(), "green" if line.endswith("[inline]") else "")


def _marks(one: Finding) -> str:
    marks = [word for word, on in (("fatal", one.fatal), ("echo", one.echo), ("corrupted", one.corrupted)) if on]
    return f"  [{', '.join(marks)}]" if marks else ""


def _style(one: Finding) -> str:
    return "dim" if one.echo else "bold red" if one.fatal else "bold yellow"


def _safe(text: str) -> str:
    return _CONTROL.sub("�", text)
