"""The plugins of qemuplugin/ as files that QEMU can load: compiled once per host and kept in the store, or why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rig import proc
from rig.costs import countctl
from rig.machines.qemu import QEMU, quoted, version
from rig.perturbation import stallctl
from rig.store import Store, digest, write_atomically

SOURCE = Path(__file__).with_name("qemuplugin")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
_TAKEN = "probe.ctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A plugin's source."""

    name: str  # of the C file
    smallest: Callable[[], bytes]  # a control block that it takes


STALLS = Program(name="stall", smallest=partial(stallctl.block, [], vcpus=1, at_most=0, share=0, seed=0))
COUNTS = Program(name="counts", smallest=partial(countctl.block, [], vcpus=1, phases=0, sites=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The plugin, or why there is none."""

    library: Path | None
    note: str = ""


def get(store: Store, compiler: str, program: Program = STALLS) -> Plugin:
    """Return a plugin, made and tried with this QEMU when the store does not have it yet."""
    sources = sorted(SOURCE.iterdir())
    try:
        key = digest("plugin-2", program.name, *FLAGS, compiler, version(), *(file.read_bytes() for file in sources))
        stored = store.get("plugin", key)
        if stored is None:
            stored = store.publish("plugin", key, partial(_fill, program))
    except _UnusableError as error:
        return Plugin(library=None, note=str(error))
    return Plugin(library=stored / f"{program.name}.so")


class _UnusableError(Exception):
    """The plugin does not compile, or QEMU does not load it."""


def _fill(program: Program, target: Path) -> None:
    library = target / f"{program.name}.so"
    done = proc.run(["gcc", *FLAGS, "-o", library, SOURCE / f"{program.name}.c", "-lm"], timeout=300)
    if not done.ok:
        why = next((line for line in done.stderr.splitlines() if "error" in line), "no output")
        raise _UnusableError(f"the {program.name} plugin does not compile: {why}")
    ctl = target / _TAKEN
    write_atomically(ctl, program.smallest())
    # -S: no machine runs; a monitor on standard input is told to quit. A QEMU without TCG plugins refuses the option.
    words = [QEMU, "-no-user-config", "-nodefaults", "-display", "none", "-machine", "none", "-accel", "tcg", "-S"]
    words += ["-plugin", f"file={quoted(library)},ctl={quoted(ctl)}", "-monitor", "stdio"]
    tried = proc.run(words, timeout=60, stdin=b"quit\n")
    ctl.unlink()
    if not tried.ok:
        said = tried.stderr.strip().splitlines()
        raise _UnusableError(f"this QEMU takes no plugin: {said[-1] if said else f'status {tried.status}'}")
