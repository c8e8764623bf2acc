"""What is recorded of the series and controls, as tables between the markers of their READMEs.

The text around the markers is written by people, the text between them by `ci/record-verdicts` alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rig.errors import ConfigError
from rig.model import FindingVerdict, Judgement, Side, Status
from rig.records import folding, prefixes, recorded
from rig.records.controls import Control
from rig.records.folding import Outcome
from rig.records.prefixes import Flavours
from rig.records.recorded import Entry, Record
from rig.records.subjects import CONTROLS, PATCHES, Subject
from rig.store import write_atomically
from rig.verdicts.verdict import counts

BEGIN, END = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"
MOST = 4  # findings of one series that are told
NOTHING = "-"

_SPECIAL = re.compile(r"([\\|`*<\[\]])")


def readmes(known: Sequence[Subject], record: Record, flavours: Flavours) -> dict[str, str]:
    """Return what stands between the markers of each README, by its path below the project's root."""
    return {
        f"{PATCHES}/README.md": series_table(known, record, flavours),
        f"{PATCHES}/{CONTROLS}/README.md": controls_table(known, record),
    }


def series_table(known: Sequence[Subject], record: Record, flavours: Flavours) -> str:
    """Return the table of the series: do they apply, do their prefixes build and boot, and what was found?

    Below it stands for each finding in which cells it was seen, and the command that shows it again.
    """
    head = ("series", "patches", "applies to", "builds", "verdict", "what was found")
    rows = [
        _series_row(one, record.series.get(one.name), _prefixes(one, record, flavours))
        for one in known
        if one.control is None
    ]
    evidence = [line for one in known if one.control is None for line in _evidence(one, record.series.get(one.name))]
    return "\n".join([_table(head, rows), *(["", "To see a finding again:", "", *evidence] if evidence else [])])


def _evidence(subject: Subject, entry: Entry | None) -> list[str]:
    """Return the lines of a list: each finding with its cells, and a command as a block of code."""
    if entry is None:
        return []
    commands = {found.signature: found.reproduce for run in reversed(entry.runs) for found in run.findings}
    lines = []
    for found in folding.folded(entry).findings[:MOST]:
        lines.append(f"- `{subject.name}`: {_escaped(found.title)} in {_escaped(', '.join(found.cells))}")
        if command := " ".join(commands.get(found.signature, "").split()):
            lines += ["", f"      {command}", ""]
    return lines


def _series_row(subject: Subject, entry: Entry | None, builds: str) -> tuple[str, ...]:
    name, patches = f"[`{subject.name}`]({subject.name}/)", str(subject.patches)
    if entry is None:
        return (name, patches, NOTHING, builds, folding.NO_RUN.words, NOTHING)
    found = folding.folded(entry)
    told = [_finding(one) for one in found.findings[:MOST]]
    if len(found.findings) > MOST:
        told.append(f"and {len(found.findings) - MOST} more")
    bases = _each(_escaped(run.base) for run in entry.runs)
    verdict = f"**{found.judgement}**, {_trials(entry)}"
    return (name, patches, bases, builds, verdict, "<br>".join(told) or NOTHING)


def _finding(found: FindingVerdict) -> str:
    flavours = _each(cell.split("/")[0] for cell in found.cells)
    word = "" if found.judgement is Judgement.REGRESSION else f" ({found.judgement.lower()})"
    return f"{_escaped(found.title)}: patched {found.patched}, base {found.base} in {_escaped(flavours)}{word}"


def _prefixes(subject: Subject, record: Record, flavours: Flavours) -> str:
    """Return how many prefixes build without new warnings and pass the smoke trials, and what is amiss."""
    known = [prefixes.states(record.of_prefix(key), flavours) for key in subject.prefix_keys]
    if not any(one.built for each in known for one in each.values()):
        return NOTHING
    good = sum(all(one.good for one in each.values()) for each in known)
    said = [f"{good}/{len(known)} prefixes: {', '.join(flavours)}"]
    for what, amiss in (("not run", lambda one: not one.known), ("smoke trial failed", lambda one: one.failed)):
        numbers = {name: [n for n, each in enumerate(known, start=1) if amiss(each[name])] for name in flavours}
        said += _amiss(what, numbers)
    warnings = {(name, text) for each in known for name, one in each.items() for text in one.warnings}
    return _escaped("; ".join([*said, *_new_warnings(len(warnings))]))


def _amiss(what: str, numbers: Mapping[str, Sequence[int]]) -> list[str]:
    """Return of which prefixes something is to be said, by flavour; once if it is the same in all."""
    words = {name: ", ".join(map(str, found)) for name, found in numbers.items()}
    if len(set(words.values())) == 1:
        words = {"": next(iter(words.values()))}
    return [f"{what}{f' in {name}' if name else ''}: {found}" for name, found in words.items() if found]


def _builds(entry: Entry) -> str:
    flavours = _each(name for run in entry.runs for name, _ in run.flavours)
    warnings = {text for run in entry.runs for text in run.warnings}
    return _escaped("; ".join([flavours, *_new_warnings(len(warnings))]))


def _new_warnings(number: int) -> list[str]:
    return [f"{number} new warning{'s' * (number != 1)}"] if number else []


def _trials(entry: Entry) -> str:
    """Return how many trials count on each side, what else became of others, and what ran them."""
    sides = _counted(entry)
    others = Counter(trial.status for trial in folding.trials_of(entry) if not counts(trial))
    rest = "".join(f", {others[status]} {status.lower()}" for status in Status if others[status])
    accelerators = _each(run.accelerator.upper() for run in entry.runs)
    return f"base {sides[Side.BASE]}, patched {sides[Side.PATCHED]} trials{rest} ({accelerators})"


def _counted(entry: Entry) -> Counter[Side]:
    """Return how many trials count on each side."""
    return Counter(trial.side for trial in folding.trials_of(entry) if counts(trial))


def controls_table(known: Sequence[Subject], record: Record) -> str:
    """Return the table of the controls, the bad ones first, below a line that sums it up."""
    head = ("control", "kind", "what is wrong, or what it changes", "race", "builds", "caught?", "by", "trials")
    pairs = [(one.control, record.series.get(one.name)) for one in known if one.control]
    rows = [
        (control, entry, folding.outcome(control, entry, record.series.values()))
        for control, entry in sorted(pairs, key=lambda pair: (pair[0].kind, pair[0].name))
    ]
    return f"{_summary(rows)}\n\n{_table(head, [_control_row(*row) for row in rows])}"


def _control_row(control: Control, entry: Entry | None, outcome: Outcome) -> tuple[str, ...]:
    return (
        f"[`{control.name}`]({control.name}/)",
        control.kind,
        _escaped(first_sentence(control.description)),
        control.race or NOTHING,
        _builds(entry) if entry else NOTHING,
        outcome.words,
        _escaped(outcome.by) or NOTHING,
        _trials(entry) if entry else NOTHING,
    )


def _summary(rows: Sequence[tuple[Control, Entry | None, Outcome]]) -> str:
    bad = [outcome.hit for control, _, outcome in rows if control.kind == "bad"]
    good = [(entry, outcome.hit) for control, entry, outcome in rows if control.kind == "good"]
    trials = sum(_counted(entry)[Side.PATCHED] for entry, _ in good if entry)
    waiting = sum(outcome == folding.NO_RUN for *_, outcome in rows)
    return (
        f"caught {sum(bad)} of {len(bad)} known-bad, {sum(hit for _, hit in good)} of {len(good)} known-good accused "
        f"in {trials} trial{'s' * (trials != 1)}{f' ({waiting} without a run yet)' if waiting else ''}"
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


def write(root: Path, known: Sequence[Subject], flavours: Flavours) -> tuple[str, ...]:
    """Render what is recorded into the READMEs below `root`, and return the names of those that changed.

    `flavours` are those of rig.yaml, in which every prefix is to build.
    """
    changed = []
    for name, fresh in _rendered(root, known, recorded.read(root), flavours).items():
        if fresh != (root / name).read_text(encoding="utf-8"):
            write_atomically(root / name, fresh)
            changed.append(name)
    return tuple(changed)


def complaint(root: Path, known: Sequence[Subject], flavours: Flavours) -> str | None:
    """Return in one sentence what of the recorded verdicts is not true any more, or None."""
    record = recorded.read(root)
    if gone := recorded.stale(record.series, known):
        return (
            f"{PATCHES}/{recorded.FILE} is about other patches than those of {', '.join(gone)}: "
            "run `ci/judge-patches` for them, or `ci/record-verdicts` to drop what was recorded"
        )
    if recorded.stale_prefixes(record, known):
        return f"{PATCHES}/{recorded.FILE} holds prefixes that no series has any more: run `ci/record-verdicts`"
    for name, fresh in _rendered(root, known, record, flavours).items():
        if fresh != (root / name).read_text(encoding="utf-8"):
            return f"{name} is not what {PATCHES}/{recorded.FILE} and the controls say: run `ci/record-verdicts`"
    return None


def _rendered(root: Path, known: Sequence[Subject], record: Record, flavours: Flavours) -> dict[str, str]:
    return {
        name: filled((root / name).read_text(encoding="utf-8"), table, name)
        for name, table in readmes(known, record, flavours).items()
    }
