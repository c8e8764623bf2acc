"""The commands beside the goals: list, doctor, shell, rerun, export, import, merge, clean."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rig import goals
from rig.clock import Deadline
from rig.errors import ConfigError, HostError
from rig.front import doctor as host
from rig.front import explain
from rig.front.ui import Ui
from rig.jobs import archive, parts
from rig.model import Cell, Kernel, Side, Status
from rig.pipeline import Options, Pipeline
from rig.runs import rundir
from rig.runs.campaign import open_lab, spec_of
from rig.settings import matrix
from rig.settings.config import Config
from rig.settings.reading import default_store, load
from rig.store import Store
from rig.trials import trial
from rig.trials.trial import Lab


def list_cells(config: Config, *, as_json: bool, form: str | None = None) -> int:
    """Print the cells of the configuration and what a run of them comes to, or a pipeline's jobs in some `form`."""
    cells = parts.part(matrix.cells(config), config.part)
    if form:
        print(parts.listing(cells, config.parts, form))
        return 0
    if as_json:
        print(json.dumps([cell.id for cell in cells], indent=1))
        return 0
    for cell in cells:
        machine = config.machines[cell.machine]
        huge = f", {machine.hugepages} huge pages" if machine.hugepages else ""
        nodes = f", {machine.nodes} nodes" if machine.nodes > 1 else ""
        print(f"{cell.id:<44} {machine.cpus} CPUs{nodes}, {machine.memory_mib} MiB, thp {machine.thp}{huge}")
    trials = len(cells) * len(config.sides) * config.trials.min
    sides = " and ".join(config.sides)
    minutes = trials * (config.budget + 6) / 60  # 6 s: boot and settle of a small guest under TCG
    fewer = ""
    if config.elsewhere is not None and config.select == ("*",):
        fewer = f"; where the series has no part in the races: {config.elsewhere} instead of {config.trials.min}"
    if config.trials.max > config.trials.min and len(config.sides) == len(Side):
        fewer += f"; up to {config.trials.max} times where a finding is in doubt"
    print(
        f"\n{len(cells)} cells x {sides} x {config.trials.min} = {trials} trials of {config.budget:g} s, "
        f"at most {minutes:.0f} min one after another{fewer}",
        file=sys.stderr,
    )
    return 0


def explain_cells(config: Config, words: Sequence[str]) -> int:
    """Print who sees the races of each cell, of those that `words` pick (globs, as `select`), and what nobody sees."""
    if words:
        config = config.model_copy(update={"select": tuple(words)})
    print("\n".join(explain.report(matrix.cells(config), config)))
    return 0


def list_races(config: Config) -> int:
    """Print the tables race x oracle x Kconfig, as they stand in kconfigs/README.md."""
    print(explain.tables(config.kconfigs))
    return 0


def doctor(config: Config) -> int:
    """Print what this host has and lacks; 3 when something that every run needs is missing."""
    bad = False
    for check in host.checks(config.store):
        bad = bad or (check.fatal and not check.ok)
        print(f"{'ok  ' if check.ok else 'FAIL' if check.fatal else 'note'}  {check.text}")
    return HostError.exit_code if bad else 0


def clean(config: Config, ui: Ui) -> int:
    """Empty the store."""
    store = Store(config.store, say=ui.say)
    ui.say(f"  CLEAN   {config.store}: {store.clean() / 2**20:.0f} MiB freed")
    return 0


def export(config: Config, options: Options, ui: Ui, paths: Sequence[Path]) -> int:
    """Write the kernels of the configuration into an archive."""
    if len(paths) != 1:
        raise ConfigError("usage: rig export FILE [KEY=VALUE ...]")
    pipeline = Pipeline(config, options, ui)
    goals.build(pipeline)
    made = archive.export(pipeline, paths[0])
    for line in archive.contents(made):
        ui.stage("export", line)
    ui.stage("export", f"{ui.path(paths[0])}: {paths[0].stat().st_size / 2**20:.1f} MiB")
    return 0


def take_in(config: Config, ui: Ui, paths: Sequence[Path]) -> int:
    """Take the kernels of an archive into the store."""
    if len(paths) != 1:
        raise ConfigError("usage: rig import FILE [store=DIR]")
    for line in archive.contents(archive.take_in(paths[0], Store(config.store, say=ui.say))):
        ui.stage("import", line)
    return 0


def merge(config: Config, ui: Ui, paths: Sequence[Path], *, as_json: bool) -> int:
    """Fold the runs of parts into one and say what came of it."""
    from rig.jobs import merge as folding

    done = folding.merge(paths, config, ui)
    return goals.finish(done, config.results / done.id, ui, as_json=as_json)


def shell(config: Config, options: Options, ui: Ui, words: Sequence[str], side: str) -> int:
    """Boot the machine of a cell and give a shell in it; the machine ends with the shell."""
    if len(words) != 1 or side not in list(Side):
        raise ConfigError("usage: rig shell CELL [side=base|patched]", hint="`rig list` shows the cells")
    pipeline = Pipeline(config.model_copy(update={"select": (words[0],)}), options, ui)
    cell = pipeline.cells[0]
    kernels = pipeline.kernels
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rig-shell-") as folder:
        lab, _ = open_lab(pipeline, Path(folder), kernels, threading.Event(), perturbed=False)
        return _shell_in(config, ui, lab, cell, kernels[cell.flavour, Side(side)])


def _shell_in(config: Config, ui: Ui, lab: Lab, cell: Cell, kernel: Kernel) -> int:
    from rig import proc
    from rig.guests.keys import ssh_argv
    from rig.machines.guest import reach
    from rig.machines.qemu import VmSpec
    from rig.machines.vm import Vm

    spec = VmSpec(
        kernel=kernel.bzimage,
        initrd=lab.image,
        machine=config.machines[cell.machine],
        accelerator=lab.accelerator,
        filesystem=cell.filesystem,
        disk=lab.disks.get(cell.filesystem),
        cmdline=lab.cmdline,
    )
    with Vm.start(spec, lab.root) as vm:
        outcome, guest = reach(vm, lab.keys, Deadline(config.timeouts.boot))
        if guest is None:
            raise HostError(f"the machine cannot be reached: {outcome.detail}", hint=f"last line: {outcome.last_line}")
        guest.close()
        ui.say(f"  SHELL   {cell.id}, kernel {kernel.release} ({kernel.tree[:12]}); console: {vm.console_path}")
        with proc.Child(
            ssh_argv(lab.keys, vm.port), stdin=None, stdout=None, stderr=None, foreground=sys.stdin.isatty()
        ) as child:
            while child.wait(0.5) is None and vm.alive:
                pass
            return child.stop(grace=1) if child.poll() is None else child.popen.returncode


def rerun(words: Sequence[str], overrides: Sequence[str], ui: Ui, *, jobs: int, source: Path | None = None) -> int:
    """Run the trial of a folder again, as it was, into `rerun-<n>/` below it; exits 1 when it is bad again.

    With `source`, on the kernels of that archive.
    """
    if len(words) != 1 or not (Path(words[0]) / "plan.json").is_file():
        raise ConfigError(
            "usage: rig rerun DIR", hint="DIR is the folder of a trial: results/<run>/trials/<side>/<cell>/<index>"
        )
    folder = Path(words[0]).resolve()
    plan = json.loads((folder / "plan.json").read_text())
    root = next((parent for parent in folder.parents if (parent / "config.json").is_file()), None)
    if root is None or "cell" not in plan:
        raise ConfigError(f"{folder}: not inside the folder of a run", hint="config.json of the run is needed, too")
    # matrix={}: whatever the matrix left out, this cell was in it.
    # A trial of a tree as it is, of a history, has no patches.
    series = [f"series={root / 'series'}"] if any((root / "series").glob("*.patch")) else []
    fixed = [*series, "matrix={}", f"select={plan['cell']}", f"seed={plan['seed']}", "part=[]"]
    config = load(root / "config.json", [*fixed, f"budget={plan['budget']}", *_places(root), *overrides])
    with archive.used(config, source, ui) if source else nullcontext(config) as used:
        return _rerun(used, folder, plan, ui, jobs=jobs)


def _rerun(config: Config, folder: Path, plan: Mapping[str, Any], ui: Ui, *, jobs: int) -> int:
    pipeline = Pipeline(config, Options(jobs=jobs), ui)
    cell, side = pipeline.cells[0], Side(plan["side"])
    kernels = _kernels_of(pipeline, cell, side, int(plan["prefix"]))
    kernel = kernels[cell.flavour, side]
    if kernel.key != plan["kernel"]:
        ui.say("  note: the kernel is not the one of the trial (another compiler, fragments or base)")
    target = next(path for number in range(1, 10_000) if not (path := folder / f"rerun-{number}").exists())
    target.mkdir()
    lab, _ = open_lab(pipeline, target, kernels, threading.Event())
    spec = spec_of(pipeline, kernel, cell, side, index=int(plan["index"]), seed=int(plan["seed"]))
    try:
        result = trial.run(spec, lab, on_line=ui.progress)
    finally:
        rundir.remove_secrets(target)
        ui.settle()
    print(f"{result.status}: {cell.id} {side} seed {spec.seed}: {result.reason}")
    for finding in result.findings:
        print(f"  {finding.title}")
    print(f"evidence: {ui.path(target / result.evidence)}")
    return 1 if result.status.bad else HostError.exit_code if result.status is Status.LOST else 0


def _kernels_of(pipeline: Pipeline, cell: Cell, side: Side, prefix: int) -> dict[tuple[str, Side], Kernel]:
    """Return the base and the kernel of a trial; it may be a prefix in the middle of the series."""
    if side is Side.BASE or prefix == len(pipeline.applied.series.patches):
        return pipeline.kernels
    (flavour,) = (one for one in pipeline.flavours if one.name == cell.flavour)
    numbers = {Side.BASE: 0, side: prefix}
    return {(cell.flavour, one): pipeline.builder.alone(number, flavour) for one, number in numbers.items()}


def _places(root: Path) -> list[str]:
    """Return overrides that name the run's store, or ours, and this project, when the run is from elsewhere."""
    found = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        store = Path(json.loads((root / "plan.json").read_text())["store"])
        found.append(f"store={store if store.is_dir() else default_store()}")
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((root / "config.json").read_text())
        for key, name in (("kconfigs", "kconfigs"), ("guest_workloads", "guest-workloads")):
            if not Path(known[key]).is_dir():
                found.append(f"{key}={Path.cwd() / name}")
    return found
