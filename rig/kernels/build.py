"""Kernels of prefixes and flavours: out of tree, incremental from prefix to prefix, kept in the store.

One checkout per base moves between prefixes with git, so only the files that a patch changes get new times and are
compiled again. A kernel is stored under the hash of tree, final configuration and compiler; two builds of the same key
give the same bytes, as the build's user, host and time are pinned.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from rig import proc
from rig.clock import Deadline
from rig.errors import BuildError, HostError, RigError
from rig.front.ui import Ui
from rig.kernels import kconfig
from rig.kernels.make import PINNED, Output, make_argv, make_environment, stream
from rig.model import Kernel
from rig.store import Store, digest, write_atomically
from rig.trees.git import Git
from rig.trees.series import Applied, Prefix
from rig.trees.source import repository

FORMAT = "kernel-3"  # part of every key: a change here makes all kernels anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """A named list of Kconfig fragments."""

    name: str
    files: tuple[Path, ...]

    @property
    def key(self) -> str:
        """The identity of what the fragments ask for."""
        return digest(*(file.read_text() for file in self.files))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A prefix that does not build, the first one of its flavour."""

    flavour: str
    prefix: Prefix
    errors: tuple[str, ...]
    log: Path


class BrokenSeries(BuildError):
    """A patch of the series breaks the build."""

    def __init__(self, failure: Failure, count: int) -> None:
        prefix = failure.prefix
        super().__init__(
            f"patch {prefix.number}/{count} ({prefix.subject!r}) breaks the {failure.flavour} build: "
            f"{failure.errors[0]}",
            hint="the patches before it build" if prefix.number > 1 else "the base builds",
            evidence=failure.log,
        )
        self.failure = failure


class BrokenBase(HostError):
    """The base itself does not build, which says nothing about a series."""


def compiler() -> str:
    """Return the identity of the compiler and the linker that the build uses."""
    lines = [proc.check([tool, "--version"], timeout=30).splitlines()[0] for tool in ("gcc", "ld")]
    return "; ".join(lines)


def key(tree: str, config: str, compiler: str) -> str:
    """Return the key under which the store keeps the kernel of a tree with a final configuration."""
    return digest(FORMAT, tree, config, compiler)


class Builder:
    """Builds the kernels of one applied series."""

    def __init__(
        self, applied: Applied, store: Store, ui: Ui, *, jobs: int, timeout: float, always: bool = False
    ) -> None:
        self.applied = applied
        self.store = store
        self.ui = ui
        self.jobs = jobs
        self.timeout = timeout
        self.always = always
        self.compiler = compiler()
        self.built = 0
        self._name = f"build-{applied.base.commit[:12]}"
        self._paths = applied.series.paths

    # -- what is asked for --------------------------------------------------------------------------------------------

    def kernels(
        self, prefixes: Sequence[int], flavours: Sequence[Flavour], *, keep_going: bool = False
    ) -> tuple[Kernel, ...]:
        """Return the kernels of all prefixes in all flavours, building those that the store does not have.

        Raises BrokenSeries naming the patch that breaks the build, HostError when the base itself does not build. With
        `keep_going` the other flavours are built before the first failure is raised.
        """
        wanted = [(self.applied.prefixes[number], flavour) for number in sorted(set(prefixes)) for flavour in flavours]
        found: dict[tuple[int, str], Kernel] = {}
        failures: list[RigError] = []
        for prefix, flavour in wanted:
            if not self.always and (kernel := self._stored(prefix, flavour)):
                found[prefix.number, flavour.name] = kernel
        for prefix, flavour in wanted:
            broken = any(isinstance(f, BrokenSeries) and f.failure.flavour == flavour.name for f in failures)
            if (prefix.number, flavour.name) in found or broken:
                continue
            try:
                found[prefix.number, flavour.name] = self._make(prefix, flavour)
            except BuildError as error:
                if not keep_going:
                    raise
                failures.append(error)
        if failures:
            raise failures[0]
        return tuple(found[prefix.number, flavour.name] for prefix, flavour in wanted)

    def alone(self, prefix: int, flavour: Flavour) -> Kernel:
        """Return the kernel of one prefix and build no other; raises BrokenSeries when it does not build itself."""
        wanted = self.applied.prefixes[prefix]
        if not self.always and (kernel := self._stored(wanted, flavour)):
            return kernel
        with self.store.lock(self._name):
            return self._compile(wanted, flavour)

    def up_to_date(self, prefix: int, flavour: Flavour) -> bool:
        """Whether the store has the kernel; builds nothing."""
        return self._stored(self.applied.prefixes[prefix], flavour) is not None

    def configuration(self, prefix: int, flavour: Flavour) -> str:
        """Return the final .config of a prefix in a flavour; raises BuildError when a requested symbol is not in it."""
        with self.store.lock(self._name):
            wanted = self.applied.prefixes[prefix]
            work = self.store.work(self._name)
            log = self._log(wanted, flavour)
            _checkout(repository(self.store), work / "source", wanted.commit)
            return self._configured(wanted, flavour, work / "source", work / f"obj-{flavour.name}", log)

    @contextmanager
    def objects(self, prefix: int, flavour: Flavour) -> Iterator[tuple[Path, Path]]:
        """Hold the checkout and the object directory of a prefix in a flavour, both as they are for building it.

        Yields (source, objects). Whoever builds against them must leave them as they are, or the next kernel is
        compiled anew; make_argv() makes sure of what belongs to that.
        """
        if self.store.imported:
            raise HostError("an imported archive holds no source to build anything of")
        with self.store.lock(self._name):
            wanted = self.applied.prefixes[prefix]
            work = self.store.work(self._name)
            source, objects = work / "source", work / f"obj-{flavour.name}"
            _checkout(repository(self.store), source, wanted.commit)
            self._configured(wanted, flavour, source, objects, self._log(wanted, flavour))
            yield source, objects

    def _log(self, prefix: Prefix, flavour: Flavour) -> Path:
        log = self.store.work(self._name) / "logs" / f"{prefix.number}-{flavour.name}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_bytes(b"")
        return log

    # -- the store ----------------------------------------------------------------------------------------------------

    def _config_key(self, prefix: Prefix, flavour: Flavour) -> str:
        """Prefixes share a configuration as long as the series does not touch what it is made from."""
        touched = {path for patch in self.applied.series.patches[: prefix.number] for path in patch.paths}
        matters = any(
            path.startswith("scripts/") or PurePosixPath(path).name.startswith(("Kconfig", "Makefile"))
            for path in touched
        )
        tree = prefix.tree if matters else self.applied.base.tree
        return digest("kconfig-1", tree, flavour.key, self.compiler)

    def _stored(self, prefix: Prefix, flavour: Flavour) -> Kernel | None:
        folder = self.store.get("kconfig", self._config_key(prefix, flavour))
        if folder is None:
            return None
        config = (folder / "config").read_text()
        path = self.store.get("kernel", key(prefix.tree, config, self.compiler))
        return self._kernel(prefix, flavour, config, path) if path else None

    def _kernel(self, prefix: Prefix, flavour: Flavour, config: str, path: Path) -> Kernel:
        return Kernel(
            prefix=prefix.number,
            flavour=flavour.name,
            commit=prefix.commit,
            tree=prefix.tree,
            config_hash=digest(config),
            compiler=self.compiler,
            key=path.name,
            bzimage=path / "bzImage",
            vmlinux=path / "vmlinux",
            config=path / "config",
            release=(path / "release").read_text().strip(),
            warnings=tuple(json.loads((path / "warnings.json").read_text())),
        )

    # -- building -----------------------------------------------------------------------------------------------------

    def _make(self, prefix: Prefix, flavour: Flavour) -> Kernel:
        """Build one kernel; on a failure find the first prefix that does not build."""
        if self.store.imported:
            raise HostError(
                f"the imported archive holds no {flavour.name} kernel of prefix {prefix.number}, nor its source",
                hint="export what the configuration asks for, with the same Kconfig fragments",
            )
        with self.store.lock(self._name):
            try:
                return self._compile(prefix, flavour)
            except BrokenSeries as broken:
                raise self._first_broken(prefix, flavour) or broken from None

    def _first_broken(self, prefix: Prefix, flavour: Flavour) -> BrokenSeries | None:
        """Return the failure of the first prefix before `prefix` that does not build."""
        for earlier in self.applied.prefixes[: prefix.number]:
            try:
                _ = self._stored(earlier, flavour) or self._compile(earlier, flavour)
            except BrokenSeries as first:
                return first
        return None

    def _compile(self, prefix: Prefix, flavour: Flavour) -> Kernel:
        if not self.always and (kernel := self._stored(prefix, flavour)):
            return kernel  # another rig was quicker while this one waited for the lock
        work = self.store.work(self._name)
        source, objects = work / "source", work / f"obj-{flavour.name}"
        log = self._log(prefix, flavour)
        label = f"{flavour.name} {'base' if prefix.number == 0 else f'base+{prefix.number}'}"
        _checkout(repository(self.store), source, prefix.commit)
        config = self._configured(prefix, flavour, source, objects, log)
        self.ui.stage("build", label)
        lines = self._run_make(source, objects, log, label)
        if lines.errors:
            failure = Failure(flavour=flavour.name, prefix=prefix, errors=lines.errors, log=log)
            if prefix.number == 0:
                raise BrokenBase(f"the base does not build in flavour {flavour.name}: {lines.errors[0]}", evidence=log)
            raise BrokenSeries(failure, len(self.applied.series.patches))
        warnings = self._new_warnings(prefix, objects, lines)
        for warning in warnings:
            self.ui.say(f"  WARNING {flavour.name}: {warning} (new with this series)")
        release = (objects / "include/config/kernel.release").read_text()

        def fill(target: Path) -> None:
            shutil.copyfile(objects / "arch/x86/boot/bzImage", target / "bzImage")
            shutil.copyfile(objects / "vmlinux", target / "vmlinux")
            shutil.copyfile(log, target / "build.log")
            (target / "config").write_text(config)
            (target / "release").write_text(release)
            (target / "warnings.json").write_text(json.dumps(warnings))

        path = self.store.publish("kernel", key(prefix.tree, config, self.compiler), fill)
        self.built += 1
        os.utime(work)
        return self._kernel(prefix, flavour, config, path)

    def _configured(self, prefix: Prefix, flavour: Flavour, source: Path, objects: Path, log: Path) -> str:
        """Put the final configuration into the object directory and return it."""
        config_key = self._config_key(prefix, flavour)
        folder = self.store.get("kconfig", config_key)
        if folder is None:
            self.ui.stage("config", flavour.name)
            config = kconfig.configure(source, objects, flavour.files, log=log, env=PINNED)

            def fill(target: Path) -> None:
                (target / "config").write_text(config)

            self.store.publish("kconfig", config_key, fill)
            return config
        config = (folder / "config").read_text()
        target = objects / ".config"
        # Written only when it differs: a new time on .config makes kbuild look at every symbol again.
        if not target.exists() or target.read_text() != config:
            objects.mkdir(parents=True, exist_ok=True)
            write_atomically(target, config)
        return config

    def _run_make(self, source: Path, objects: Path, log: Path, label: str) -> Output:
        lines = Output(source, objects, partial(self._progress, label))
        deadline = Deadline(self.timeout)
        argv, env = make_argv(source, objects, f"-j{self.jobs}", "bzImage"), make_environment(objects)
        status = stream(argv, lines.take, log=log, env=env, deadline=deadline)
        self.ui.settle()
        if status is None:
            raise BuildError(
                f"{label}: the build took longer than {self.timeout:.0f} s", hint="timeouts.build=SECONDS", evidence=log
            )
        if status != 0 and not lines.errors:
            if b"No space left on device" in log.read_bytes()[-20000:]:
                raise HostError(
                    f"{label}: no space left while building", hint="`rig clean`, or store=DIR elsewhere", evidence=log
                )
            lines.errors = (f"make ended with status {status}: {lines.last}",)
        elif status == 0:
            lines.errors = ()
        return lines

    def _progress(self, label: str, compiled: int, what: str) -> None:
        self.ui.progress(f"building {label}: {compiled} files, {what}")

    def _new_warnings(self, prefix: Prefix, objects: Path, lines: Output) -> list[str]:
        """Return the warnings that the base does not give, in files that the series touches.

        An incremental build shows only the warnings of what it compiles; those of the base are kept beside the objects.
        """
        kept = objects / "rig-warnings-of-base.json"
        base: dict[str, list[str]] = json.loads(kept.read_text()) if kept.exists() else {}
        if prefix.number == 0:
            fresh = {file: sorted(lines.warnings.get(file, ())) for file in lines.compiled | lines.warnings.keys()}
            write_atomically(kept, json.dumps(base | fresh, indent=1, sort_keys=True))
            return []
        touched = sorted(set(self._paths) & lines.warnings.keys())
        return [
            f"{file}: {text}" for file in touched for text in sorted(lines.warnings[file] - set(base.get(file, ())))
        ]


def _checkout(git: Git, source: Path, commit: str) -> None:
    """Put the checkout of the build on `commit`, touching only files that differ."""
    tree = Git(source)
    if not (source / ".git").exists():
        shutil.rmtree(source, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "--quiet", "--force", "--detach", source, commit, timeout=1800)
        return
    tree("checkout", "--quiet", "--force", "--detach", commit, timeout=1800)
    tree("clean", "-fdxq", timeout=600)


def flavours_of(named: Mapping[str, Iterable[str]], folder: Path) -> tuple[Flavour, ...]:
    """Return the flavours of a configuration; raises ConfigError for a fragment that is not there."""
    return tuple(Flavour(name=name, files=kconfig.fragments(tuple(names), folder)) for name, names in named.items())
