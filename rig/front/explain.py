"""Says who can see what a cell's workload drives: races (races.py) against the kernel and the machine that were chosen.

What a flavour has is read from its Kconfig fragments. They are laid over allnoconfig, and what they ask for is what
comes out, or the build stops (kernels/kconfig.py); what a fragment selects without naming it is not known here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.errors import ConfigError
from rig.kernels.kconfig import fragments, settings
from rig.model import Cell
from rig.settings.config import Config, Machine
from rig.touches.races import GENERAL, NAMES, ORACLES, RACES, Oracle, Race, oracle, race

BEGIN, END = "<!-- races:begin -->", "<!-- races:end -->"
README = "kconfigs/README.md"
RENDER = "ci/render-races"

Settings = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One race in one cell."""

    race: Race
    seen_by: tuple[str, ...]  # oracles of the race that this kernel has
    blind: tuple[tuple[str, str], ...]  # those that it has not, each with what is in the way
    hindered: tuple[str, ...]  # why the race cannot happen here at all
    partly: str = ""  # why only a part of it can

    @property
    def obstacles(self) -> str:
        """What keeps the race from happening, or from happening in full; empty when nothing does."""
        return ", ".join(self.hindered) or self.partly

    @property
    def warning(self) -> str:
        """One clause; empty when the race can happen and be seen."""
        if self.hindered:
            return f"{self.race.name} cannot happen here: {', '.join(self.hindered)}"
        if not self.seen_by:
            return f"nobody sees {self.race.name} here: {'; '.join(f'{name} {why}' for name, why in self.blind)}"
        return f"{self.race.name} can happen only in part here: {self.partly}" if self.partly else ""


def of_flavour(names: Sequence[str], folder: Path) -> Settings:
    """Return what the fragments of a flavour ask for, the last one that names a symbol deciding."""
    merged: dict[str, str] = {}
    for file in fragments(names, folder):
        merged |= settings(file.read_text(encoding="utf-8"))
    return merged


def obstacle(one: Oracle, kernel: Settings, cmdline: Iterable[str]) -> str:
    """Return what keeps an oracle from speaking, in a few words; empty when nothing does."""
    lacking = [symbol for symbol in one.kconfig if not _has(kernel, symbol)]
    present = [symbol for symbol in one.without if _has(kernel, symbol)]
    words = [word for word in one.cmdline if word not in set(cmdline)]
    parts = [f"needs {', '.join(lacking)}"] if lacking else []
    parts += [f"is silent with {', '.join(present)}"] if present else []
    parts += [f"needs {' '.join(words)} on the command line"] if words else []
    return " and ".join(parts)


def sight(one: Race, kernel: Settings, machine: Machine) -> Sight:
    """Return who sees a race on a machine with a kernel of these settings."""
    obstacles = {name: obstacle(oracle(name), kernel, machine.cmdline) for name in one.oracles}
    lacking = [symbol for symbol in one.kconfig if not _has(kernel, symbol)]
    hindered = [f"the kernel lacks {', '.join(lacking)}"] if lacking else []
    if machine.cpus < one.cpus:
        hindered.append(f"{machine.name} has {_count(machine.cpus, 'CPU')}, expected {one.cpus} or more")
    partly = (
        f"{machine.name} has {_count(machine.nodes, 'NUMA node')} of {one.nodes}" if machine.nodes < one.nodes else ""
    )
    return Sight(
        race=one,
        seen_by=tuple(name for name, why in obstacles.items() if not why),
        blind=tuple((name, why) for name, why in obstacles.items() if why),
        hindered=tuple(hindered),
        partly=partly,
    )


def in_cell(cell: Cell, config: Config) -> tuple[Sight, ...]:
    """Return who sees each race that the workload of `cell` says it drives.

    Raises ConfigError for a race that the rig does not know, and a fragment that is not there.
    """
    kernel = of_flavour(config.flavours[cell.flavour], config.kconfigs)
    driven = config.workloads[cell.workload].races
    return tuple(sight(_known(name, cell.workload), kernel, config.machines[cell.machine]) for name in driven)


def report(cells: Sequence[Cell], config: Config) -> tuple[str, ...]:
    """Return the lines of `rig list --explain`: a block for each cell, then what no cell sees."""
    lines: list[str] = []
    everywhere: dict[str, list[Sight]] = {}
    for cell in cells:
        sights = in_cell(cell, config)
        lines.append(cell.id)
        if not sights:
            lines.append(f"  drives no race that rig.yaml names (workloads.{cell.workload}.races)")
        for one in sights:
            everywhere.setdefault(one.race.name, []).append(one)
            lines.append(f"  {one.race.name:<15} {one.race.about}")
            lines.append(f"  {'':<15} seen by {', '.join(one.seen_by) or 'nobody'}")
            lines += [f"  {'':<15} not by {', '.join(names)}: {why}" for why, names in _by_reason(one.blind).items()]
        lines += [f"  WARNING: {one.warning}" for one in sights if one.warning]
    return (*lines, *([""] if (last := _over_all(everywhere)) else []), *last)


def _by_reason(blind: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in blind:
        reasons.setdefault(why, []).append(name)
    return reasons


def _over_all(everywhere: Mapping[str, Sequence[Sight]]) -> list[str]:
    """What none of the cells has: a race that cannot happen, and an oracle that another flavour would bring."""
    lines = [
        f"WARNING: no cell can have {'the race' if sights[0].hindered else 'all of'} {name}: {sights[0].obstacles}"
        for name, sights in everywhere.items()
        if all(one.obstacles for one in sights)
    ]
    for watcher in ORACLES:
        races = [name for name, sights in everywhere.items() if watcher.name in sights[0].race.oracles]
        seen = any(watcher.name in one.seen_by for sights in everywhere.values() for one in sights)
        if races and not seen:
            reasons = [
                why for name in races for one in everywhere[name] for who, why in one.blind if who == watcher.name
            ]
            lines.append(f"no cell has {watcher.name} ({min(reasons, key=len)}), which would see {', '.join(races)}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _has(kernel: Settings, symbol: str) -> bool:
    return kernel.get(symbol, "n") in ("y", "m")


def _known(name: str, workload: str) -> Race:
    try:
        return race(name)
    except KeyError:
        close = difflib.get_close_matches(name, NAMES, n=1)
        raise ConfigError(
            f"workloads.{workload}.races: no race {name!r}, expected one of {', '.join(NAMES)}"
            + (f"; did you mean {close[0]!r}?" if close else ""),
            hint="rig/touches/races.py has them; `rig list --races` shows them",
        ) from None


# -- the table of the documents ---------------------------------------------------------------------------------------


def tables(folder: Path) -> str:
    """Return race x oracle x Kconfig as Markdown: who sees which race, and which fragments of `folder` bring what."""
    brought = {path.stem: settings(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.config"))}
    races = [
        (f"`{one.name}`", one.about, ", ".join(f"`{name}`" for name in one.oracles), _race_needs(one)) for one in RACES
    ]
    oracles = [
        (f"`{one.name}`" + (" (all)" if one.name in GENERAL else ""), one.where, one.about, _takes(one, brought))
        for one in ORACLES
    ]
    return "\n".join(
        [
            *_table(("race", "what", "seen by", "cannot happen without"), races),
            "",
            "An oracle marked (all) watches every race.",
            "",
            *_table(("oracle", "where", "what it sees", "needs, and the fragments that bring it"), oracles),
        ]
    )


def _race_needs(one: Race) -> str:
    parts = [f"`{symbol}`" for symbol in one.kconfig]
    return ", ".join([*parts, f"{one.cpus} CPUs"] + ([f"{one.nodes} NUMA nodes (in part)"] if one.nodes > 1 else []))


def _takes(one: Oracle, brought: Mapping[str, Settings]) -> str:
    parts = []
    for symbol in one.kconfig:
        homes = [f"`{name}`" for name, fragment in brought.items() if _has(fragment, symbol)]
        parts.append(f"`{symbol}` ({', '.join(homes) or 'no fragment'})")
    parts += [f"a kernel without `{symbol}`" for symbol in one.without]
    parts += [f"`{word}` in the machine's `cmdline`" for word in one.cmdline]
    return ", ".join(parts) or "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def filled(text: str, block: str) -> str:
    """Return `text` with `block` between the markers; raises ConfigError when they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{README}: has no {BEGIN} and {END}", hint="put both back, each on a line of its own")
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"
