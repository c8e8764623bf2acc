"""Stalls inside of the guest, by kprobes at instructions of the functions that a series touches.

What a plugin of QEMU does under TCG, a module in the guest's own kernel does under any accelerator: see
guestmodule/rig_stall.c for what it does, and for what a stall in a kprobe means. The module goes to the guest over the
connection that is there. Nothing that goes wrong with it ends a trial; the report says what was missing.

When the workload is over the stalls are switched off, and the module stays until the machine ends. Taking a breakpoint
out of code that other vCPUs run is sound on a real machine and under KVM; under QEMU 7.2's multi-threaded TCG a vCPU
was seen to run the old translation, breakpoint included, long after the kernel had made sure that none would.
"""

from __future__ import annotations

import math
import random
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from rig.clock import Deadline
from rig.kernels.build import Builder, Flavour
from rig.machines.guest import Guest, GuestRun
from rig.model import DirectedStalls, FunctionStalls, Kernel
from rig.perturbation.instructions import Place, read_names, read_places, sample
from rig.perturbation.kmod import module

MEANS = "kprobes"
CONTROL = "/sys/kernel/debug/rig_stall"
SECONDS = 30.0  # for all commands before the workload
#: For the one after it. Short: after a hang, the kernel is yet to be asked where it hangs.
AFTER = 15.0

_PROBE = re.compile(
    r"^probe (\S+)\+0x([0-9a-f]+) hits (\d+) stalls (\d+) open (\d+) ns (\d+) declined (\d+) missed (\d+)$"
)
_REFUSED = re.compile(r"^refused (\S+)\+0x([0-9a-f]+) (\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is stalled."""

    places: int = 16  # instructions per trial; each hit costs time, and 48 took most of the faults of a workload
    mean: int = 2000  # hits of a place between two stalls of one CPU; its first hits are more likely to stall
    length_us: int = 10_000  # the longest stall, the module takes 20000; as likely as short ones on a logarithmic scale
    shortest_us: int = 500


#: What a trial's own settings are drawn from, as factors or parts of those that are asked for: no one fits all races.
LEAST_KEPT = 0.05  # of the functions: the narrower, the more of the stalls fall into the window that is looked for
LEAST_LENGTH = 0.2  # of the longest stall
SPREAD = 10  # of the longest stall to the shortest: the others have to get somewhere meanwhile
LEAST_MEAN = 0.25


def drawn(settings: Settings, groups: Sequence[Sequence[Place]], seed: int) -> tuple[Settings, tuple[Place, ...]]:
    """Return the settings and the places of a trial, the same for the same arguments; each seed has others."""
    draw = random.Random(f"stalls by kprobes {seed}")  # noqa: S311  # to be repeated, not to be secret

    def part(least: float) -> float:
        return math.exp(draw.uniform(math.log(least), 0.0))

    filled = [group for group in groups if group]
    kept = draw.sample(filled, max(1, round(part(LEAST_KEPT) * len(filled)))) if filled else []
    length = max(1, round(part(LEAST_LENGTH) * settings.length_us))
    mean = max(1, round(part(LEAST_MEAN) * settings.mean))
    mine = replace(settings, mean=mean, length_us=length, shortest_us=max(1, length // SPREAD))
    return mine, sample(kept, settings.places, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceCount:
    """What came of one place."""

    place: Place
    hits: int = 0
    stalls: int = 0
    open: int = 0  # stalls with interrupts on
    seconds: float = 0.0
    declined: int = 0  # chances that were let pass: the CPU was not rested, or too many others stood
    missed: int = 0  # hits inside of another one
    refused: int = 0  # errno of the kernel, 0: it was not

    @property
    def used(self) -> bool:
        """Whether the kernel took it."""
        return not self.refused


def parse_stats(text: str) -> tuple[PlaceCount, ...]:
    """Return what the module's `stats` say; lines of another form are left out."""
    found = []
    for line in text.splitlines():
        if match := _PROBE.match(line):
            place = Place(symbol=match[1], offset=int(match[2], 16))
            hits, stalls, opened, ns, declined, missed = (int(word) for word in match.groups()[2:])
            found.append(
                PlaceCount(
                    place=place,
                    hits=hits,
                    stalls=stalls,
                    open=opened,
                    seconds=ns / 1e9,
                    declined=declined,
                    missed=missed,
                )
            )
        elif match := _REFUSED.match(line):
            found.append(PlaceCount(place=Place(symbol=match[1], offset=int(match[2], 16)), refused=int(match[3])))
    return tuple(found)


def load_command(settings: Settings, seed: int) -> str:
    """Return the guest's command that loads the module from its standard input."""
    file = "/run/rig_stall.ko"
    words = ["insmod", file, f"seed={seed}", f"mean={settings.mean}", f"length_us={settings.length_us}"]
    words.append(f"shortest_us={settings.shortest_us}")
    return f"cat >{file} && {shlex.join(words)} && rm {file}"


#: Reads the places from its standard input, a write for each line; the kernel's refusals are read back with the rest.
ARM = f'cd {CONTROL} && while read -r place; do echo "$place"; done >probes && echo 1 >on'
DISARM = f"cd {CONTROL} && echo 0 >on && cat stats"


class GuestStalls:
    """Stalls in one guest for as long as the context lasts; `report` and `counts` say what was done."""

    def __init__(self, guest: Guest, module: Path, places: Sequence[Place], seed: int, settings: Settings) -> None:
        """Nothing is done before the context is entered; `places` are used as they come."""
        self.counts: tuple[PlaceCount, ...] = ()
        self._guest = guest
        self._module = module
        self._places = places
        self._seed = seed
        self._settings = settings
        self._armed = False
        self._notes: list[str] = []

    @property
    def report(self) -> DirectedStalls:
        """What was done, once the context is left; by function, as far as the kernel took places in it."""
        names = sorted({one.place.symbol for one in self.counts if one.used})
        return DirectedStalls(
            means=MEANS if self._armed else "",
            executed=sum(one.hits for one in self.counts),
            stalls=sum(one.stalls for one in self.counts),
            stalled=round(sum(one.seconds for one in self.counts), 3),
            withheld=sum(one.declined for one in self.counts),
            functions=tuple(self._function(name) for name in names),
            note="; ".join(self._notes),
        )

    def _function(self, name: str) -> FunctionStalls:
        mine = [one for one in self.counts if one.used and one.place.symbol == name]
        return FunctionStalls(
            function=name,
            kind="probed",
            executed=sum(one.hits for one in mine),
            stalls=sum(one.stalls for one in mine),
            stalled=round(sum(one.seconds for one in mine), 3),
        )

    def __enter__(self) -> GuestStalls:
        deadline = Deadline(SECONDS)
        try:
            data = self._module.read_bytes()
        except OSError as error:
            self._notes.append(f"no stalls by kprobes: the module cannot be read: {error.strerror}")
            return self
        lines = "".join(f"{place}\n" for place in self._places).encode()
        self._armed = self._done(
            "the module does not load", load_command(self._settings, self._seed), deadline, data
        ) and self._done("the places are not taken", ARM, deadline, lines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._armed or kind is not None:
            return
        done = self._guest.run(DISARM, AFTER)
        self.counts = parse_stats(done.stdout)
        if not done.ok:
            self._notes.append(f"stalls by kprobes were not switched off: {_why(done)}")
        refused = [one for one in self.counts if not one.used]
        if refused:
            self._notes.append(f"the kernel takes no kprobe at {len(refused)} of {len(self.counts)} places")

    def _done(self, what: str, command: str, deadline: Deadline, stdin: bytes) -> bool:
        done = self._guest.run(command, deadline.remaining, stdin=stdin)
        if not done.ok:
            self._notes.append(f"no stalls by kprobes: {what}: {_why(done)}")
        return done.ok


def _why(done: GuestRun) -> str:
    if done.timed_out:
        return "the guest was not done in time"
    if done.lost:
        return "the machine ended"
    return (done.stderr.strip().splitlines() or [f"status {done.status}"])[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arsenal:
    """What one kernel needs for stalls by kprobes: made once, good for all its trials."""

    module: Path
    groups: tuple[tuple[Place, ...], ...]  # the places of each function
    settings: Settings = Settings()

    def stalls(self, guest: Guest, seed: int) -> GuestStalls:
        """Return the stalls of a trial, chosen by its seed: settings, places and random numbers of its own."""
        settings, places = drawn(self.settings, self.groups, seed)
        return GuestStalls(guest, self.module, places, seed, settings)


def arsenal(
    builder: Builder, kernel: Kernel, flavour: Flavour, spans: Sequence[tuple[int, int]], settings: Settings
) -> Arsenal:
    """Return what `kernel` needs to be stalled in `spans` (address, length in bytes), building the module.

    Raises BuildError when the module cannot be built for the kernel, HostError when binutils fail.
    """
    names = read_names(kernel.vmlinux)
    groups = read_places(kernel.vmlinux, spans, names)
    return Arsenal(module=module(builder, kernel, flavour), groups=groups, settings=settings)
