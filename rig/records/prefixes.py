"""Does every prefix of a series build, boot and pass a smoke trial? What runs of exactly these patches say of it.

A series can be broken in its middle and whole again at its end; who bisects over it later lands in the middle. So each
prefix is run on its own, for a moment and without the base: this is about the prefix, not about what it changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rig.model import Status

#: The cells that tell whether a kernel is of any use.
SMOKE = "*/smp4/fault-stress/tmpfs"

#: What to put on the command line for the smoke trials of a series, and nothing else.
SMOKE_TRIALS = ("matrix={}", f"select={SMOKE}", "budget=3", "trials=1", "sides=[patched]")

Flavours = Mapping[str, tuple[str, ...]]  # with their fragments


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A kernel of the prefix."""

    flavour: str
    fragments: tuple[str, ...]
    warnings: tuple[str, ...]  # new ones, of the compiler


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRun:
    """What is kept of one run of a prefix."""

    id: str
    started: str
    base_tree: str
    accelerator: str
    builds: tuple[Built, ...]
    trials: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]  # of the patched kernel: per cell, how many ended how


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of a prefix in one flavour."""

    built: bool
    warnings: tuple[str, ...]
    passed: int  # smoke trials
    failed: int

    @property
    def known(self) -> bool:
        """Whether it was built and booted, whatever came of it."""
        return self.built and self.passed + self.failed > 0

    @property
    def good(self) -> bool:
        """Whether it builds without new warnings, boots, and passed every smoke trial."""
        return self.known and not self.warnings and not self.failed


def state(runs: Iterable[PrefixRun], flavour: str, fragments: tuple[str, ...]) -> State:
    """Return what `runs` of one prefix say of it in a flavour; those with other fragments say nothing."""
    built, warnings, statuses = False, set[str](), Counter[Status]()
    for run in runs:
        ours = [one for one in run.builds if (one.flavour, one.fragments) == (flavour, fragments)]
        built = built or bool(ours)
        warnings |= {text for one in ours for text in one.warnings}
        for cell, ended in run.trials if ours else ():
            if cell.startswith(f"{flavour}/") and fnmatchcase(cell, SMOKE):
                statuses.update({Status(status): number for status, number in ended})
    return State(
        built=built,
        warnings=tuple(sorted(warnings)),
        passed=statuses[Status.PASS],
        failed=sum(number for status, number in statuses.items() if status.bad),
    )


def states(runs: Iterable[PrefixRun], flavours: Flavours) -> dict[str, State]:
    """Return what `runs` of one prefix say of it, by flavour."""
    kept = tuple(runs)
    return {name: state(kept, name, tuple(fragments)) for name, fragments in flavours.items()}


def known(runs: Iterable[PrefixRun], flavours: Flavours) -> bool:
    """Whether a prefix was built and booted in each of the flavours, whatever came of it."""
    return all(one.known for one in states(runs, flavours).values())
