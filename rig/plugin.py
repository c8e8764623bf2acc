"""The stall plugin as a file that QEMU can load: compiled once per host and kept in the store, or a reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rig import proc
from rig.qemu import QEMU, quoted, version
from rig.stallctl import block
from rig.store import Store, digest, write_atomically

SOURCE = Path(__file__).with_name("qemuplugin")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
LIBRARY = "stall.so"
_TAKEN = "probe.ctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The plugin, or why there is none."""

    library: Path | None
    note: str = ""


def get(store: Store, compiler: str) -> Plugin:
    """Return the plugin, made and tried with this QEMU when the store does not have it yet."""
    sources = sorted(SOURCE.iterdir())
    try:
        key = digest("plugin-1", *FLAGS, compiler, version(), *(file.read_bytes() for file in sources))
        stored = store.get("plugin", key)
        if stored is None:
            stored = store.publish("plugin", key, _fill)
    except _UnusableError as error:
        return Plugin(library=None, note=str(error))
    return Plugin(library=stored / LIBRARY)


class _UnusableError(Exception):
    """The plugin does not compile, or QEMU does not load it."""


def _fill(target: Path) -> None:
    done = proc.run(["gcc", *FLAGS, "-o", target / LIBRARY, SOURCE / "stall.c", "-lm"], timeout=300)
    if not done.ok:
        why = next((line for line in done.stderr.splitlines() if "error" in line), "no output")
        raise _UnusableError(f"the stall plugin does not compile: {why}")
    ctl = target / _TAKEN
    write_atomically(ctl, block([], vcpus=1, at_most=0, share=0, seed=0))
    # -S: no machine runs; a monitor on standard input is told to quit. A QEMU without TCG plugins refuses the option.
    words = [QEMU, "-no-user-config", "-nodefaults", "-display", "none", "-machine", "none", "-accel", "tcg", "-S"]
    words += ["-plugin", f"file={quoted(target / LIBRARY)},ctl={quoted(ctl)}", "-monitor", "stdio"]
    tried = proc.run(words, timeout=60, stdin=b"quit\n")
    ctl.unlink()
    if not tried.ok:
        said = tried.stderr.strip().splitlines()
        raise _UnusableError(f"this QEMU takes no plugin: {said[-1] if said else f'status {tried.status}'}")
