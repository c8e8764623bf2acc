"""Stalls directed by the patches: while a workload runs, vCPUs stand still at random instructions of touched functions.

Holding one party of a race in the middle of its window is the idea of DataCollider (Erickson et al., "Effective
Data-Race Detection for the Kernel", OSDI 2010); here the places are not any memory access but the code under test.

A trial is cut into episodes of a second or two, and each draws anew which functions count, how long stalls last and how
much of the time they may take: one unlucky draw does not cost the trial. `episodes` is that plan, from the seed and the
names of the functions alone, so that base and patched get the same. `Stalls` carries it out through the control block
of the plugin (stallctl.py), and fits the mean distance of the stalls to how often the functions are run on this
machine, since a workload that stands still most of the time meets no race either.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rig.clock import Deadline, Stopwatch
from rig.machines.qemu import StallPlugin
from rig.model import DirectedStalls, FunctionStalls
from rig.perturbation.beside import Beside
from rig.perturbation.stallctl import Block, Count, Setting, block
from rig.store import write_atomically
from rig.touches.functions import Kind, Span
from rig.touches.targets import Targets

if TYPE_CHECKING:
    from rig.perturbation.gueststalls import Arsenal

CONTROL = "stalls.ctl"

SPREAD = 10.0  # the longest stall of an episode to its shortest
SMALLEST_LONGEST = 0.002  # seconds: the longest stall of an episode is at least this: the others have to get somewhere
FIRST_EPISODE = 0.3  # seconds: only to see how often the functions are run
EVERYTHING = 0.25  # chance that an episode leaves no function out
LEAST_KEPT = 0.05  # chance for a function to be kept, in the narrowest episodes
LEAST_PART = 0.3  # of the share of the time
#: One function of these is in every episode.
SERIES = (Kind.TOUCHED, Kind.INLINED)
#: What an instruction of a kind counts. Callees are also called by others, who have nothing to do with the series.
WEIGHTS = {Kind.TOUCHED: 4, Kind.INLINED: 4, Kind.CALLER: 2, Kind.PARTNER: 4, Kind.CALLEE: 1}
TICK = 0.1  # seconds between two looks at how often the functions are run
NOVELTY = 0.5  # of such a look, against what was known before
SCALE = 1000  # of the weights, so that one can be divided by how often its range is run
UNKNOWN = 2000  # instructions between stalls while it is not known how many are run


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A second or two of a trial."""

    seconds: float
    longest: float  # seconds of a stall
    share: float  # of the vCPUs' time that is aimed at
    rare: bool  # instructions that are run seldom count for more, so that each has the same chance
    functions: frozenset[str]  # in which stalls come


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What a run needs for stalls; either the plugin and targets, or a module per kernel, or a note on why not."""

    library: Path | None = None
    targets: Mapping[str, Targets] | None = None  # by the key of the kernel
    arsenals: Mapping[str, Arsenal] | None = None  # the same, for kprobes in the guest
    note: str = ""


#: Nobody asked.
NO_KIT = Kit()


def episodes(
    seed: int, functions: Mapping[str, Kind], *, share: float, longest: float, seconds: float
) -> Iterator[Episode]:
    """Yield episodes without end, the same for the same arguments.

    Whether a function is in an episode depends on its name, not on the others: a function that only the patched kernel
    has changes nothing for the rest. `longest` and `seconds` (of an episode, on average) are in seconds.
    """
    number = 0
    while True:
        draw = random.Random(f"directed stalls {seed} {number}")  # noqa: S311  # to be repeated, not to be secret
        kept = 1.0 if draw.random() < EVERYTHING else math.exp(draw.uniform(math.log(LEAST_KEPT), 0.0))
        top = math.exp(draw.uniform(math.log(min(SMALLEST_LONGEST, longest)), math.log(longest)))
        part = draw.uniform(LEAST_PART, 1.0)
        rare = draw.random() < 0.5
        length = seconds * draw.uniform(0.5, 1.5) if number else min(FIRST_EPISODE, seconds)
        lots = {name: _lot(f"{seed} {number} {name}") for name in functions}
        names = frozenset(name for name, lot in lots.items() if lot < kept)
        ours = [name for name, kind in functions.items() if kind in SERIES] or list(functions)
        if not names & set(ours):
            names |= {min(ours, key=lots.__getitem__)}
        yield Episode(seconds=length, longest=top, share=share * part, rare=rare, functions=names)
        number += 1


def _lot(words: str) -> float:
    return random.Random(words).random()  # noqa: S311  # as above


def setting_of(episode: Episode, spans: Sequence[Span], executed: Sequence[float], vcpus: int) -> Setting:
    """Return what the plugin is told for an episode.

    `executed` says for each span how many instructions of it all vCPUs run per second (0: not known, or none). The
    distance is such that stalls take the share of the time that the episode aims at.
    """
    shortest = episode.longest / SPREAD
    weights = []
    for span, rate in zip(spans, executed, strict=True):
        if span.range.function not in episode.functions:
            weights.append(0)
            continue
        weight = WEIGHTS[span.range.kind] * SCALE
        # Per byte of code: a long range is run more often in sum, which is no reason to leave it out.
        weights.append(max(1, round(weight / max(1.0, rate / span.length))) if episode.rare else weight)
    run = sum(weight * rate for weight, rate in zip(weights, executed, strict=True))
    per_second = episode.share * vcpus / mean_length(shortest, episode.longest)
    distance = run / per_second if run and per_second else UNKNOWN * max(weights, default=1)
    return Setting(distance=max(1, round(distance)), shortest=shortest, longest=episode.longest, weights=tuple(weights))


def mean_length(shortest: float, longest: float) -> float:
    """Return the mean of a log-uniform distribution between the two."""
    return longest if shortest >= longest else (longest - shortest) / math.log(longest / shortest)


def kinds_of(targets: Targets) -> dict[str, Kind]:
    """Return the functions of `targets`, each with what it is to the series."""
    order = list(Kind)  # a function that is touched and also called by another one is touched
    found: dict[str, Kind] = {}
    for span in targets.spans:
        name, kind = span.range.function, span.range.kind
        found[name] = min(found.get(name, kind), kind, key=order.index)
    return found


def write_control(folder: Path, kit: Kit, key: str, *, vcpus: int, share: float, seed: int) -> StallPlugin | None:
    """Write the control block of a trial on the kernel `key` into its folder; None when there is nothing to stall."""
    targets = (kit.targets or {}).get(key)
    if kit.library is None or targets is None or not targets.spans or vcpus < 2:
        return None
    spans = [(span.start, span.start + span.length) for span in targets.spans]
    path = folder / CONTROL
    write_atomically(path, block(spans, vcpus=vcpus, at_most=vcpus - 1, share=share, seed=seed))
    return StallPlugin(library=kit.library, control=path)


class Rates:
    """How often each span is run just now: workloads go from one case to the next, and with them the functions."""

    def __init__(self, spans: int) -> None:
        self.values = [0.0] * spans  # instructions per second, of all vCPUs
        self._seen = [0] * spans

    def note(self, executed: Sequence[int], seconds: float) -> None:
        """Take into account what was `executed` in all, `seconds` after the last time."""
        if seconds > 0:
            fresh = [(now - before) / seconds for now, before in zip(executed, self._seen, strict=True)]
            self.values = [old + (new - old) * NOVELTY for old, new in zip(self.values, fresh, strict=True)]
            self._seen = list(executed)


class Stalls(Beside):
    """Runs episodes for as long as the context lasts; `report` says what was done."""

    name = "rig-stalls"

    def __init__(self, control: Path, targets: Targets, plan: Iterator[Episode], vcpus: int) -> None:
        """Nothing is stalled before the context is entered; `control` is a file that write_control() made."""
        super().__init__()
        self._control = control
        self._targets = targets
        self._plan = plan
        self._vcpus = vcpus
        self._report = nothing("; ".join(targets.notes))

    @property
    def report(self) -> DirectedStalls:
        """What was done, once the context is left."""
        return self._report

    def work(self) -> None:
        """Go from episode to episode until it is over."""
        with Block(self._control) as shared:
            notes = list(self._targets.notes)
            if shared.loaded:
                self._run(shared)
            else:
                notes.append("QEMU has not loaded the plugin")
            self._report = reported(self._targets.spans, shared.counts(), "; ".join(notes))

    def _run(self, shared: Block) -> None:
        rates = Rates(len(self._targets.spans))
        for episode in self._plan:
            shared.begin(setting_of(episode, self._targets.spans, rates.values, self._vcpus))
            lasts = Deadline(episode.seconds)
            while not lasts.expired:
                watch = Stopwatch()
                if self._stop.wait(min(TICK, lasts.remaining)):
                    return
                rates.note([count.executed for count in shared.counts()], watch.elapsed)
                shared.adjust(setting_of(episode, self._targets.spans, rates.values, self._vcpus))


def nothing(note: str) -> DirectedStalls:
    """Return the report of a trial in which nothing could be stalled."""
    return DirectedStalls(means="", executed=0, stalls=0, stalled=0.0, withheld=0, functions=(), note=note)


def reported(spans: Sequence[Span], counts: Sequence[Count], note: str) -> DirectedStalls:
    """Return the counts of all spans and by function, those that were never run included."""
    by_name: dict[tuple[str, Kind], list[Count]] = {}
    for span, count in zip(spans, counts, strict=True):
        by_name.setdefault((span.range.function, span.range.kind), []).append(count)
    functions = tuple(
        FunctionStalls(
            function=name,
            kind=str(kind),
            executed=sum(one.executed for one in found),
            stalls=sum(one.stalls for one in found),
            stalled=round(sum(one.stalled for one in found), 3),
        )
        for (name, kind), found in sorted(by_name.items())
    )
    return DirectedStalls(
        means="tcg-plugin",
        executed=sum(one.executed for one in counts),
        stalls=sum(one.stalls for one in counts),
        stalled=round(sum(one.stalled for one in counts), 3),
        withheld=sum(one.withheld for one in counts),
        functions=functions,
        note=note,
    )
