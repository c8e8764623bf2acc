"""Tables in Markdown, and their place in a document that people write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rig.errors import ConfigError


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def placed(text: str, begin: str, end: str, body: str, *, name: str) -> str:
    """Return `text` with `body` between the lines `begin` and `end`; raises ConfigError when these are not there."""
    before, first, rest = text.partition(f"{begin}\n")
    _, last, after = rest.partition(f"{end}\n")
    if not first or not last:
        raise ConfigError(f"{name}: expected a line {begin} and below it a line {end}")
    return f"{before}{begin}\n\n{body}\n\n{end}\n{after}"
