"""Which patch of a series a finding points at: by the functions on its stack, or by the race it was seen in.

Neither proves anything. A function of the series on the stack was at work when the damage was noticed; where there is
none, damage is often noticed by who comes later, and all that is known is which race the case drives and which patches
touch a party to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rig.model import Finding, FindingVerdict, Status, TrialResult
from rig.runs.results import Patch, Run
from rig.touches import races
from rig.trials.signature import plain_function
from rig.verdicts.verdict import causes

#: A frame of a call trace or the instruction pointer, `? ` frames left out: those are leftovers on the stack.
_FRAME = re.compile(
    r"^(?P<lead>.*?)(?P<doubt>\?\s+)?\b(?P<name>[A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+", re.IGNORECASE
)
#: An inlined frame as splats/symbols.py writes it.
_INLINED = re.compile(r"(?:^|\s)(?P<name>[A-Za-z_]\w*) \S+:\d+ \[inline\]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A patch, and the functions of it that a finding leads to."""

    number: int  # of the patch, counted from 1
    subject: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Where a finding points."""

    stack: tuple[str, ...]  # functions on the stack, the innermost first
    on_stack: tuple[Suspect, ...]  # patches that touch one of them, the innermost first
    races: tuple[str, ...]  # that the case drives in which it was seen
    parties: tuple[Suspect, ...]  # patches that touch a function which is a party to one of these

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The better evidence of the two."""
        return self.on_stack or self.parties

    @property
    def sentence(self) -> str:
        """What can be said, in one sentence without its full stop."""
        if self.on_stack:
            return f"on the stack: {'; '.join(f'{_functions(one)} (patch {one.number})' for one in self.on_stack)}"
        if self.parties:
            seen = "no function of the series is on the stack" if self.stack else "there is no stack"
            races = f"the race{'s' * (len(self.races) != 1)} {_listed(self.races)}"
            patches = _listed([str(one.number) for one in self.parties])
            which = f"patch{'es' * (len(self.parties) != 1)} {patches} touch{'es' * (len(self.parties) == 1)} a party"
            return f"{seen}; it was seen while driving {races}, and {which} to that"
        return "nothing in it leads to a function of the series"


def function_of(line: str) -> str | None:
    """Return the function that a line of a splat says was at work, by its name in the source; None for none."""
    frame = _FRAME.match(line)
    if frame:
        return None if frame["doubt"] else plain_function(frame["name"])
    inlined = _INLINED.search(line)
    return plain_function(inlined["name"]) if inlined else None


def stack(text: str) -> tuple[str, ...]:
    """Return the functions of the call traces in a splat, in order, each once."""
    return tuple(dict.fromkeys(name for line in text.splitlines() if (name := function_of(line))))


def blame(run: Run, trial: TrialResult, finding: Finding) -> Blame:
    """Return where a finding of a trial points in the series of the run."""
    names = stack(finding.text)
    if finding.function:
        names = tuple(dict.fromkeys((*names, plain_function(finding.function))))
    driven = _races(run, trial, finding)
    globs = [glob for name in driven for glob in races.race(name).functions]
    return Blame(
        stack=names,
        on_stack=tuple(
            sorted(
                _suspects(run.series.patches, lambda name: name in names),
                key=lambda one: min(names.index(name) for name in one.functions),
            )
        ),
        races=driven,
        parties=_suspects(run.series.patches, lambda name: any(fnmatchcase(name, glob) for glob in globs)),
    )


def of_verdict(run: Run, found: FindingVerdict) -> Blame | None:
    """Return where a finding points, as the trial saw it that is its example; None when that trial is not there."""
    for trial in run.trials:
        if trial.evidence == found.example:
            for finding in causes(trial):
                if finding.signature == found.signature:
                    return blame(run, trial, finding)
    return None


def cases_of(trial: TrialResult, signature: str) -> tuple[str, ...]:
    """Return the cases of a trial that saw a finding; where none did, those that went down with the machine."""
    saw = tuple(case.name for case in trial.cases if any(one.signature == signature for one in case.findings))
    return saw or tuple(case.name for case in trial.cases if case.status in (Status.CRASH, Status.TIMEOUT))


def _suspects(patches: Iterable[Patch], concerns: Callable[[str], bool]) -> tuple[Suspect, ...]:
    found = []
    for patch in patches:
        if names := tuple(dict.fromkeys(one.name for one in patch.functions if concerns(one.name))):
            found.append(Suspect(number=patch.number, subject=patch.subject, functions=names))
    return tuple(found)


def _races(run: Run, trial: TrialResult, finding: Finding) -> tuple[str, ...]:
    """The races of the case that saw it; those of the whole workload when no case did, or no race names the case."""
    driven = [name for name in _driven(run, trial.cell.workload) if name in races.NAMES]
    cases = cases_of(trial, finding.signature)
    closer = [
        name for name in driven if any(fnmatchcase(case, glob) for case in cases for glob in races.race(name).cases)
    ]
    return tuple(closer or driven)


def _driven(run: Run, workload: str) -> Sequence[str]:
    workloads: Any = run.config.get("workloads")
    spec = workloads.get(workload) if isinstance(workloads, dict) else None
    names = spec.get("races") if isinstance(spec, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _functions(one: Suspect) -> str:
    most = 3
    more = f" and {len(one.functions) - most} more" if len(one.functions) > most else ""
    return ", ".join(one.functions[:most]) + more


def _listed(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else "".join(words)
