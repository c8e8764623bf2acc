"""Builds the module of rig/perturbation/guestmodule for a kernel that the rig has built.

It is built against that kernel's object directory, below the builder's lock, and leaves it so that the next kernel is
built incrementally. A module belongs to a configuration, a compiler and the headers, not to a kernel: most series
change none of these, so that all their prefixes share one.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rig import proc
from rig.errors import BuildError
from rig.kernels import kconfig
from rig.kernels.build import Builder, Flavour
from rig.kernels.make import make_argv, make_environment
from rig.model import Kernel
from rig.store import digest
from rig.trees.git import Git
from rig.trees.source import repository

FORMAT = "kmod-1"  # part of every key
SOURCES = Path(__file__).parent / "guestmodule"
NAME = "rig_stall.ko"
#: What the kernel must have for the module to be built, loaded and spoken to.
NEEDS = ("MODULES", "MODULE_UNLOAD", "KPROBES", "KALLSYMS", "DEBUG_FS")
#: What of a tree a module is made from, beside the generated headers, which come from these and the configuration.
#: What a module includes or is built with, as paths of the tree.
MATTERS = ("include", "arch/x86/include", "scripts", "tools/objtool", "Makefile", "arch/x86/Makefile")
_WHAT_WENT_WRONG = re.compile(r"(?:error: |ERROR: |undefined!|\*\*\* )")


def missing(config: str) -> tuple[str, ...]:
    """Return the symbols that a final .config lacks for the module."""
    chosen = kconfig.settings(config)
    return tuple(name for name in NEEDS if chosen.get(name, "n") != "y")


def vermagic(module: bytes) -> str:
    """Return what a module says it was built for, `6.12.1 SMP preempt mod_unload`; "" when it says nothing."""
    found = re.search(rb"\0vermagic=([^\0]*)\0", b"\0" + module)
    return found[1].decode(errors="replace").strip() if found else ""


def key(config: str, compiler: str, release: str, headers: Iterable[str], sources: Iterable[Path]) -> str:
    """Return the identity of a module: `headers` are git's hashes of what it includes."""
    texts = [word for path in sorted(sources) for word in (path.name, path.read_text())]
    return digest(FORMAT, config, compiler, release, *headers, *texts)


def module(builder: Builder, kernel: Kernel, flavour: Flavour, *, seconds: float = 600) -> Path:
    """Return the module for a kernel from the store, building it when it is not there.

    Raises BuildError when the configuration lacks what it needs, or when it does not build in `seconds`.
    """
    config = kernel.config.read_text()
    if lacks := missing(config):
        raise BuildError(
            f"{flavour.name}: a kernel without CONFIG_{', CONFIG_'.join(lacks)} takes no stalls by kprobes",
            hint="set them in a fragment of the flavour",
        )
    store, sources = builder.store, [path for path in SOURCES.iterdir() if path.is_file()]
    headers = Git(repository(store).at)("rev-parse", *(f"{kernel.commit}:{path}" for path in MATTERS)).split()
    name = key(config, builder.compiler, kernel.release, headers, sources)
    folder = store.get("kmod", name)
    if folder is None:
        with builder.objects(kernel.prefix, flavour) as (source, objects):
            folder = store.get("kmod", name)  # another rig may have been quicker
            if folder is None:
                builder.ui.stage("module", f"{NAME} for {flavour.name} {kernel.release}")

                def fill(target: Path) -> None:
                    _build(source, objects, kernel, sources, target, seconds)

                folder = store.publish("kmod", name, fill)
    return folder / NAME


def _build(source: Path, objects: Path, kernel: Kernel, sources: Iterable[Path], target: Path, seconds: float) -> None:
    """Make the module in a folder of its own and copy it to `target`, without debug information."""
    log = objects.parent / "logs" / f"{kernel.prefix}-{kernel.flavour}-module.log"
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory(prefix="rig-kmod-") as name:
        folder = Path(name)
        for path in sources:
            shutil.copyfile(path, folder / path.name)
        # Building bzImage leaves the linker script of modules out, and an evicted object directory is empty.
        _make(source, objects, ("modules_prepare",), log, seconds)
        # Module.symvers comes from `make modules` only. What the kernel itself exports is all that is needed, and is
        # in a file of its own once the kernel was linked; without it modpost cannot know, and the loading shows it.
        symvers = objects / "vmlinux.symvers"
        known = f"KBUILD_EXTRA_SYMBOLS={symvers}" if symvers.exists() else "KBUILD_MODPOST_WARN=1"
        _make(source, objects, (f"M={folder}", known, "modules"), log, seconds)
        built = folder / NAME
        done = proc.run(["strip", "--strip-debug", built], timeout=60)
        got = vermagic(built.read_bytes())
        if not done.ok or got.split(" ")[0] != kernel.release:
            raise BuildError(f"{NAME} is for {got or 'no kernel'}, expected {kernel.release}", evidence=log)
        shutil.copyfile(built, target / NAME)
        shutil.copyfile(log, target / "build.log")


def _make(source: Path, objects: Path, words: tuple[str, ...], log: Path, seconds: float) -> None:
    argv, env = make_argv(source, objects, *words), make_environment(objects)
    done = proc.run(argv, timeout=seconds, env=env, log=log)
    if not done.ok:
        lines = log.read_text(errors="replace").splitlines()
        why = next((line.strip() for line in lines if _WHAT_WENT_WRONG.search(line)), f"status {done.status}")
        raise BuildError(f"{NAME} does not build: {'timed out' if done.timed_out else why}", evidence=log)
