"""What is recorded of the series and controls, as tables between the markers of their READMEs.

The text around the markers is written by people, the text between them by `ci/record-verdicts` alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rig import recorded
from rig.controls import Control
from rig.errors import ConfigError
from rig.model import FindingVerdict, Judgement, Side, Status
from rig.recorded import CONTROLS, PATCHES, Entry, Outcome, Subject
from rig.store import write_atomically
from rig.verdict import counts

BEGIN, END = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"
MOST = 4  # findings of one series that are told
NOTHING = "-"

_SPECIAL = re.compile(r"([\\|`*<\[\]])")


def readmes(known: Sequence[Subject], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Return what stands between the markers of each README, by its path below the project's root."""
    return {
        f"{PATCHES}/README.md": series_table(known, entries),
        f"{PATCHES}/{CONTROLS}/README.md": controls_table(known, entries),
    }


def series_table(known: Sequence[Subject], entries: Mapping[str, Entry]) -> str:
    """Return the table of the series: do they apply and build, and what was found?"""
    head = ("series", "patches", "applies to", "builds", "verdict", "what was found")
    rows = [_series_row(one, entries.get(one.name)) for one in known if one.control is None]
    return _table(head, rows)


def _series_row(subject: Subject, entry: Entry | None) -> tuple[str, ...]:
    name, patches = f"[`{subject.name}`]({subject.name}/)", str(subject.patches)
    if entry is None:
        return (name, patches, NOTHING, NOTHING, recorded.NO_RUN.words, NOTHING)
    found = recorded.folded(entry)
    told = [_finding(one) for one in found.findings[:MOST]]
    if len(found.findings) > MOST:
        told.append(f"and {len(found.findings) - MOST} more")
    bases = _each(_escaped(run.base) for run in entry.runs)
    verdict = f"**{found.judgement}**, {_trials(entry)}"
    return (name, patches, bases, _builds(entry), verdict, "<br>".join(told) or NOTHING)


def _finding(found: FindingVerdict) -> str:
    flavours = _each(cell.split("/")[0] for cell in found.cells)
    word = "" if found.judgement is Judgement.REGRESSION else f" ({found.judgement.lower()})"
    return f"{_escaped(found.title)}: patched {found.patched}, base {found.base} in {_escaped(flavours)}{word}"


def _builds(entry: Entry) -> str:
    flavours = _each(name for run in entry.runs for name, _ in run.flavours)
    warnings = {text for run in entry.runs for text in run.warnings}
    which = ", every patch" if any(run.prefixes == "all" for run in entry.runs) else ""
    said = f"; {len(warnings)} new warning{'s' * (len(warnings) != 1)}" if warnings else ""
    return f"{_escaped(flavours)}{which}{said}"


def _trials(entry: Entry) -> str:
    """Return how many trials count on each side, what else became of others, and what ran them."""
    sides: dict[Side, int] = defaultdict(int)
    others: dict[Status, int] = defaultdict(int)
    for trial in recorded.trials_of(entry):
        if counts(trial):
            sides[trial.side] += 1
        else:
            others[trial.status] += 1
    rest = "".join(f", {others[status]} {status.lower()}" for status in Status if others[status])
    accelerators = _each(run.accelerator.upper() for run in entry.runs)
    return f"base {sides[Side.BASE]}, patched {sides[Side.PATCHED]} trials{rest} ({accelerators})"


def controls_table(known: Sequence[Subject], entries: Mapping[str, Entry]) -> str:
    """Return the table of the controls, the bad ones first, below a line that sums it up."""
    head = ("control", "kind", "what is wrong, or what it changes", "race", "caught?", "by", "trials")
    pairs = [(one, one.control) for one in known if one.control]
    rows = [
        (one, control, recorded.outcome(control, entries.get(one.name)))
        for one, control in sorted(pairs, key=lambda pair: (pair[1].kind, pair[0].name))
    ]
    lines = [_control_row(control, entries.get(one.name), outcome) for one, control, outcome in rows]
    return f"{_summary([(control, outcome) for _, control, outcome in rows])}\n\n{_table(head, lines)}"


def _control_row(control: Control, entry: Entry | None, outcome: Outcome) -> tuple[str, ...]:
    return (
        f"[`{control.name}`]({control.name}/)",
        control.kind,
        _escaped(first_sentence(control.description)),
        control.race or NOTHING,
        outcome.words,
        _escaped(outcome.by) or NOTHING,
        _trials(entry) if entry else NOTHING,
    )


def _summary(outcomes: Sequence[tuple[Control, Outcome]]) -> str:
    bad = [outcome.hit for control, outcome in outcomes if control.kind == "bad"]
    good = [outcome.hit for control, outcome in outcomes if control.kind == "good"]
    waiting = sum(outcome == recorded.NO_RUN for _, outcome in outcomes)
    return f"caught {sum(bad)} of {len(bad)} known-bad, {sum(good)} of {len(good)} known-good accused" + (
        f" ({waiting} without a run yet)" if waiting else ""
    )


def first_sentence(text: str) -> str:
    """Return the first sentence on one line."""
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0]


# -- Markdown ---------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """Return text that stands in a cell as it is: on one line, and nothing in it means anything to Markdown."""
    plain = " ".join(text.encode("utf-8", "replace").decode().split())
    return _SPECIAL.sub(lambda match: "&lt;" if match[1] == "<" else f"\\{match[1]}", plain)


def _each(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(text: str, table: str, name: str) -> str:
    """Return the README `text` with `table` between its markers; raises ConfigError if they do not stand there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(f"{name}: expected one line {BEGIN} and below it one line {END}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


# -- the project's ----------------------------------------------------------------------------------------------------


def write(root: Path, known: Sequence[Subject]) -> tuple[str, ...]:
    """Render what is recorded into the READMEs below `root`, and return the names of those that changed."""
    changed = []
    for name, fresh in _rendered(root, known, recorded.read(root)).items():
        if fresh != (root / name).read_text(encoding="utf-8"):
            write_atomically(root / name, fresh)
            changed.append(name)
    return tuple(changed)


def complaint(root: Path, known: Sequence[Subject]) -> str | None:
    """Return in one sentence what of the recorded verdicts is not true any more, or None."""
    entries = recorded.read(root)
    if gone := recorded.stale(entries, known):
        return (
            f"{PATCHES}/{recorded.FILE} is about other patches than those of {', '.join(gone)}: "
            "run `ci/judge-patches` for them, or `ci/record-verdicts` to drop what was recorded"
        )
    for name, fresh in _rendered(root, known, entries).items():
        if fresh != (root / name).read_text(encoding="utf-8"):
            return f"{name} is not what {PATCHES}/{recorded.FILE} and the controls say: run `ci/record-verdicts`"
    return None


def _rendered(root: Path, known: Sequence[Subject], entries: Mapping[str, Entry]) -> dict[str, str]:
    return {
        name: filled((root / name).read_text(encoding="utf-8"), table, name)
        for name, table in readmes(known, entries).items()
    }
