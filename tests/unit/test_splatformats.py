"""The table of report formats, row by row: each has an example, written after the format strings of the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rig.model import Finding
from rig.splatformats import ANY_HEAD, FORMATS, REFINEMENTS, TRIGGERS
from rig.splats import scan_bytes

DATA = Path(__file__).parent / "data" / "formats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A report and what it comes to."""

    kind: str
    title: str
    function: str | None
    corrupted: bool
    lines: tuple[str, ...]


def examples() -> list[Example]:
    """Return the examples: `=== kind | title | function [| corrupted]`, and then the lines of the report."""
    found: list[Example] = []
    for path in sorted(DATA.glob("*.txt")):
        for block in path.read_text().split("=== ")[1:]:
            if "\n" not in block or " | " not in block.splitlines()[0]:
                pytest.fail(f"{path.name}: {block[:40]!r} has no expectation")
            expected, *lines = block.splitlines()
            kind, title, function, *flags = (part.strip() for part in expected.split(" | "))
            found.append(
                Example(
                    kind=kind,
                    title=title,
                    function=None if function == "None" else function,
                    corrupted=flags == ["corrupted"],
                    lines=tuple(lines),
                )
            )
    return found


EXAMPLES = examples()


def outcome(finding: Finding) -> tuple[str, str, str | None, bool]:
    return finding.kind, finding.title, finding.function, finding.corrupted


def row_of(line: str) -> int | None:
    return next((i for i, row in enumerate(FORMATS) if row.head.match(line)), None)


@pytest.mark.parametrize("prefix", ["", "[   12.345678] ", "[   12.345678][  T201] ", "<4>[   12.345678] "])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_example(example: Example, prefix: str) -> None:
    log = "".join(f"{prefix}{line}\n" for line in example.lines)
    (finding,) = scan_bytes(log.encode())
    assert outcome(finding) == (example.kind, example.title, example.function, example.corrupted)


def test_every_row_has_an_example() -> None:
    rows = {row_of(line) for example in EXAMPLES for line in example.lines}
    assert [row.head.pattern for i, row in enumerate(FORMATS) if i not in rows] == []


def test_every_refinement_has_an_example() -> None:
    titles = " ".join(example.title for example in EXAMPLES)
    assert [refinement.title for refinement in REFINEMENTS if refinement.title not in titles] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_head_bears_a_trigger(example: Example) -> None:
    heads = [line for line in example.lines if row_of(line) is not None]
    assert heads
    assert all(ANY_HEAD.match(head) for head in heads)
    assert all(any(trigger in head.encode() for trigger in TRIGGERS) for head in heads)
