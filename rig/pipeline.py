"""The stages in the order of the data flow, each done once per call and only when it is asked for.

rig.yaml -> cells                 settings: config.py, matrix.py
base tree -> prefixes             trees: source.py, series.py
fragments, prefixes -> kernels    kernels: kconfig.py, build.py
guest-workloads -> image, disks   guests: image.py, disks.py
kernels, image, cells -> trials   runs: schedule.py; trials: trial.py (below it machines: accel.py, vm.py, guest.py)
trials -> more trials, verdict    verdicts: questions.py, sampling.py, verdict.py
verdict -> reports                runs: results.py; reports: junit.py, summary.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from rig import proc
from rig.clock import Stopwatch, now
from rig.costs import willitscale
from rig.detection import hunt
from rig.errors import BuildError, ConfigError, HostError
from rig.front.ui import Ui
from rig.guests import disks, image
from rig.guests.keys import RunKeys
from rig.jobs import parts
from rig.kernels import build
from rig.kernels.build import Builder, Flavour
from rig.machines import accel
from rig.machines.accel import Accelerator
from rig.model import Cell, Kernel, Side
from rig.perturbation import gueststalls, plugin
from rig.perturbation.gueststalls import Arsenal
from rig.perturbation.stalls import NO_KIT, Kit
from rig.settings import matrix
from rig.settings.config import Config
from rig.store import Store, digest
from rig.touches import races
from rig.touches.targets import Finder, Targets, touched_by, touched_by_each
from rig.touches.touched import Function
from rig.trees import series, source
from rig.trees.series import Applied, Series
from rig.verdicts import expectations
from rig.verdicts.expectations import Known
from rig.verdicts.questions import Rules, rules_of

WORKLOAD_FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the goals are gone about, as make's flags say it."""

    jobs: int
    keep_going: bool = False
    dry_run: bool = False
    always: bool = False
    rig: str = "rig"  # how to call the rig again, for reproducers
    overrides: tuple[str, ...] = ()  # KEY=VALUE of the command line, as they stood there


@dataclass(slots=True)
class Ledger:
    """Where the wall time goes: (stage, seconds), in order."""

    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        watch = Stopwatch()
        try:
            yield
        finally:
            self.stages.append((stage, watch.elapsed))


class Pipeline:
    """The stages up to what trials need; every property is worked out once."""

    def __init__(self, config: Config, options: Options, ui: Ui) -> None:
        self.config = config
        self.options = options
        self.ui = ui
        self.ledger = Ledger()

    @cached_property
    def whole(self) -> tuple[Cell, ...]:
        """The cells of the matrix, selection applied."""
        return matrix.cells(self.config)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that this run takes: all of them, or its part."""
        return parts.part(self.whole, self.config.part)

    @cached_property
    def known(self) -> Known:
        """The known issues; raises ConfigError when they cannot be read."""
        return expectations.read(self.config.known_issues, now().date())

    def rules(self, kernels: Iterable[Kernel]) -> Rules:
        """Return by what trials on these kernels are judged."""
        return rules_of(self.config.trials, self.known, kernels)

    @cached_property
    def flavours(self) -> tuple[Flavour, ...]:
        """The flavours that the cells use."""
        used = {cell.flavour for cell in self.cells}
        named = {name: words for name, words in self.config.flavours.items() if name in used}
        return build.flavours_of(named, self.config.kconfigs)

    @cached_property
    def store(self) -> Store:
        """The store, opened."""
        return Store(self.config.store, say=lambda text: self.ui.stage("store", text))

    # -- apply --------------------------------------------------------------------------------------------------------

    @cached_property
    def applied(self) -> Applied:
        """The series on its base; raises SeriesError when it does not apply."""
        config = self.config
        with self.ledger.time("series"):
            patches = self._patches()
        with self.ledger.time("source"):
            base = source.resolve(
                config.kernel.source, config.kernel.version, self.store, say=lambda text: self.ui.stage("source", text)
            )
        with self.ledger.time("apply"):
            applied, fresh = series.apply(base, patches, self.store)
        count = len(patches.patches)
        what = f"{patches.name}: {count} patch{'es' if count != 1 else ''} on {base.version}"
        self.ui.stage("apply", f"{what} ({'tree ' + applied.tip.tree[:12] if fresh else 'up to date'})")
        return applied

    def _patches(self) -> Series:
        """The series as configured. An imported archive has its own; patches that lie here must be the same."""
        config, kept = self.config, self.store.imported
        if not config.series and config.sides == ("base",):
            return series.NONE  # a tree that is to be tried as it is
        if not kept:
            return series.read(*config.series, source=config.kernel.source)
        (home,) = (self.store.root / "series").iterdir()
        ours = replace(series.read(str(home)), name=home.name, origin=", ".join(config.series))
        if all(Path(origin).exists() for origin in config.series):
            here = series.read(*config.series)
            if here.key != ours.key:
                raise ConfigError(
                    f"the imported archive is of the series {ours.name}, and series={here.origin} is another one",
                    hint="export its kernels first, or leave series= as it was then",
                )
            return here
        return ours

    # -- build --------------------------------------------------------------------------------------------------------

    @cached_property
    def builder(self) -> Builder:
        """The builder of this series."""
        options, config = self.options, self.config
        return Builder(
            self.applied, self.store, self.ui, jobs=options.jobs, timeout=config.timeouts.build, always=options.always
        )

    @cached_property
    def trials(self) -> dict[Cell, int]:
        """The trials of each cell on each side, those first that concern the files which the series touches."""
        config, selected = self.config, self.config.select != ("*",)
        # Over the whole: a cell gets in a part what it gets in a run of all.
        every = hunt.attention(self.whole, self.relevances, config.trials.min, None if selected else config.elsewhere)
        return {cell: count for cell, count in every.items() if cell in self.cells}

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """The names of the functions that the series touches."""
        return tuple(dict.fromkeys(function.name for function in touched_by(self.applied, self.store)))

    @cached_property
    def touched_by_each(self) -> tuple[tuple[Function, ...], ...]:
        """The functions that each patch of the series touches."""
        return touched_by_each(self.applied, self.store)

    @cached_property
    def relevances(self) -> dict[str, float]:
        """How much each workload concerns the series, 0 to 1."""
        concern = races.concerning(self.applied.series.paths, self.touched)
        return {name: hunt.relevance(workload.races, concern) for name, workload in self.config.workloads.items()}

    def favoured(self, workload: str) -> tuple[str, ...]:
        """Globs over the cases of a workload that are about the functions which the series touches."""
        return races.favoured(self.config.workloads[workload].races, self.touched)

    @cached_property
    def every_kernel(self) -> tuple[Kernel, ...]:
        """The kernels of the wanted prefixes in every flavour; raises BrokenSeries when one does not build."""
        flavours = self.flavours  # first: an empty selection is refused before anything is applied or built
        last = len(self.applied.series.patches)
        wanted = range(last + 1) if self.config.prefixes == "all" else (0, last)
        with self.ledger.time("build"):
            built = self.builder.kernels(tuple(wanted), flavours, keep_going=self.options.keep_going)
        if not self.builder.built:
            self.ui.stage("build", f"{len(built)} kernels (up to date)")
        return built

    @cached_property
    def kernels(self) -> dict[tuple[str, Side], Kernel]:
        """The base and the patched kernel of every flavour; raises BrokenSeries when one does not build."""
        built = self.every_kernel
        sides = {len(self.applied.series.patches): Side.PATCHED, 0: Side.BASE}
        return {(kernel.flavour, sides[kernel.prefix]): kernel for kernel in built if kernel.prefix in sides}

    def built(self, number: int) -> dict[str, Kernel]:
        """Return the kernels of one prefix by flavour, and build no other; raises BrokenSeries or HostError."""
        flavours = self.flavours
        with self.ledger.time("build"):
            return {kernel.flavour: kernel for kernel in self.builder.kernels((number,), flavours)}

    # -- image --------------------------------------------------------------------------------------------------------

    @cached_property
    def binaries(self) -> Mapping[str, Path]:
        """The compiled workloads that the cells use, by the name they have in the guest."""
        names = sorted({self.config.workloads[cell.workload].run for cell in self.cells})
        folder = self.config.guest_workloads
        headers = sorted(folder.glob("*.h"))
        found = {}
        for name in names:
            if name == willitscale.NAME:
                found[name] = willitscale.of_bench(self.config, self.store, self.builder.compiler)
                continue
            file = folder / f"{name}.c"
            if not file.is_file():
                known = ", ".join(sorted(path.stem for path in folder.glob("*.c"))) or "nothing"
                raise ConfigError(f"workloads: no program {name!r} in {folder}, expected one of {known}")
            key = digest(
                "workload-1", *WORKLOAD_FLAGS, self.builder.compiler, *(path.read_bytes() for path in (file, *headers))
            )
            stored = self.store.get("workload", key) or self.store.publish("workload", key, partial(_compile, file))
            found[name] = stored / file.stem
        return found

    @cached_property
    def base_image(self) -> Path:
        """The guest image without keys, from the store."""
        with self.ledger.time("image"):
            inputs = image.image_inputs(self.binaries, self.config.guest.binaries)
            key = digest("image-1", *(word for pair in inputs for word in pair))
            stored = self.store.get("image", key)
            if stored is None:
                self.ui.stage("image", f"busybox, dropbear, {', '.join(self.binaries)}")
                stored = self.store.publish("image", key, self._fill_image)
            return stored / "base.cpio"

    def _fill_image(self, target: Path) -> None:
        image.base_image(target / "base.cpio", binaries=self.binaries, extra=self.config.guest.binaries)

    def run_image(self, target: Path, keys: RunKeys) -> Path:
        """Write the image of one run, with its keys, and return it."""
        return image.run_image(target, self.base_image, keys)

    @cached_property
    def disks(self) -> Mapping[str, Path]:
        """The disks of the file systems that the cells use, from the store; trials never write to them."""
        found = {}
        with self.ledger.time("disks"):
            for filesystem in sorted({cell.filesystem for cell in self.cells} - {"tmpfs"}):
                inputs = disks.disk_inputs(filesystem, self.config.guest.disk_mib)
                key = digest("disk-1", *(word for pair in inputs for word in pair))

                def fill(target: Path, fs: str = filesystem) -> None:
                    disks.make_disk(target / "disk.raw", fs, self.config.guest.disk_mib)

                stored = self.store.get("disk", key) or self.store.publish("disk", key, fill)
                found[filesystem] = stored / "disk.raw"
        return found

    def accelerator(self, kernel: Kernel, bare_image: Path) -> Accelerator:
        """Return what runs the machines, and say it loudly; raises HostError when `accel` asks for what cannot be."""
        with self.ledger.time("accelerator"):
            chosen = accel.choose(self.config.accel, kernel.bzimage, bare_image, self.store.root / "accel")
        self.ui.stage("accel", f"{chosen.name.upper()}: {chosen.reason}")
        return chosen

    def stall_kit(self, kernels: Iterable[Kernel], accelerator: str) -> Kit:
        """Return what stalls need on these kernels; what is not at hand makes a note of it and no error."""
        wanted = self.config.perturb.stalls
        if not wanted.share:
            return NO_KIT
        inside = wanted.by == "kprobes" or (wanted.by == "auto" and accelerator != "tcg")
        if not inside and accelerator != "tcg":
            return Kit(note=f"QEMU takes plugins under TCG only, and the machines run under {accelerator.upper()}")
        known = tuple(kernels)
        with self.ledger.time("stalls"):
            try:
                made = None if inside else plugin.get(self.store, self.builder.compiler)
                if made is not None and made.library is None:
                    return Kit(note=made.note)
                targets = Finder(self.applied, self.store, say=partial(self.ui.stage, "stalls")).targets(known)
                if not any(one.spans for one in targets.values()):
                    return Kit(note="the series touches no function that these kernels have")
                if made is None:
                    return Kit(arsenals=self._arsenals(known, targets))
            except (BuildError, HostError) as error:
                return Kit(note=error.summary)
        return Kit(library=made.library, targets=targets)

    def _arsenals(self, kernels: Iterable[Kernel], targets: Mapping[str, Targets]) -> dict[str, Arsenal]:
        """Return what each kernel needs to stall itself; raises BuildError and HostError."""
        flavours = {flavour.name: flavour for flavour in self.flavours}
        settings = gueststalls.Settings(length_us=min(20_000, round(1000 * self.config.perturb.stalls.longest_ms)))
        return {
            kernel.key: gueststalls.arsenal(
                self.builder,
                kernel,
                flavours[kernel.flavour],
                [(span.start, span.length) for span in targets[kernel.key].spans],
                settings,
            )
            for kernel in kernels
        }


def _compile(file: Path, target: Path) -> None:
    done = proc.run(["gcc", *WORKLOAD_FLAGS, "-o", target / file.stem, file], timeout=300)
    if not done.ok:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip() or "no output")
        raise ConfigError(
            f"{file.name} does not compile: {first}", hint="guest-workloads/ are C programs over rig.h", evidence=file
        )
