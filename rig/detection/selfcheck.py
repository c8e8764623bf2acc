"""`rig selfcheck`: how good is the rig itself? The controls are hunted, and who is innocent is tried.

results/selfcheck/<run>/
    plan.json, config.json      what the check is made of; a run without selfcheck.json is resumed
    controls/<name>/<hunt>/     a bad control hunted once: its trials, and hunt.json when it is over
    good/<name>/                trials of the base or of a good control
    console/<crash>/            a machine crashed on purpose, see lkdtm.py
    selfcheck.json, junit.xml, summary.txt

Kernels are built one by one, each before it is hunted and not beside a hunt: a compiler on the same cores would slow
the guests down, and how soon something is found is what is measured here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from rig import __version__
from rig.clock import now
from rig.detection import hunt, lkdtm, outcomes, tally
from rig.detection.outcomes import Cleared, Hunt, Hunted, Provoked, Selfcheck
from rig.detection.tally import Tally
from rig.errors import BuildError, ConfigError, SeriesError
from rig.front.ui import Ui
from rig.machines import guest
from rig.model import Kernel, Side, TrialResult
from rig.pipeline import Options, Pipeline
from rig.records import controls
from rig.records.subjects import PATCHES, Subject, subjects
from rig.reports import junit
from rig.runs import campaign, results, rundir, schedule
from rig.runs.campaign import attempt, spec_of
from rig.settings.config import Config
from rig.store import write_atomically
from rig.trees.series import Series
from rig.trials.trial import Interrupted, Lab, TrialSpec
from rig.verdicts.verdict import counts

FOLDER, RESULT, HUNT, PROVOKED = "selfcheck", "selfcheck.json", "hunt.json", "provoked.json"
BASE, CONSOLE = "base", "console"

T = TypeVar("T")

#: Seeds of one hunt and of the next are so far apart.
STRIDE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be checked."""

    bad: tuple[Subject, ...]
    good: tuple[Subject, ...]
    base: bool
    console: bool
    innocents: int  # the base and all good controls, wanted or not: what the good trials are spread over

    @property
    def share(self) -> int:
        """How many innocents are tried."""
        return len(self.good) + self.base

    def trials_each(self, total: int) -> int:
        """Return how many trials each innocent has so that all of them together have at least `total`."""
        return -(-total // self.innocents)


def choose(known: Sequence[Subject], globs: Sequence[str]) -> Wanted:
    """Return the controls that any of `globs` names, all and the base and the console without any.

    Raises ConfigError for a glob that names nothing.
    """
    every = [one for one in known if one.control is not None]
    names = [one.control.name for one in every if one.control]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in (*names, BASE, CONSOLE)):
            import difflib

            close = difflib.get_close_matches(glob, [*names, BASE, CONSOLE], n=3, cutoff=0.5)
            raise ConfigError(
                f"no control is called {glob!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
                hint=f"the folders of {PATCHES}/controls, {BASE} and {CONSOLE}",
            )

    def named(name: str) -> bool:
        return not globs or any(fnmatchcase(name, glob) for glob in globs)

    kept = [one for one in every if one.control and named(one.control.name)]
    return Wanted(
        bad=tuple(one for one in kept if one.control and one.control.kind == "bad"),
        good=tuple(one for one in kept if one.control and one.control.kind == "good"),
        base=named(BASE),
        console=named(CONSOLE),
        innocents=1 + sum(one.control is not None and one.control.kind == "good" for one in every),
    )


def settle(config: Config) -> Config:
    """Return the configuration with the flavours and the budget that a selfcheck uses."""
    kept = {name: words for name, words in config.flavours.items() if name in config.selfcheck.flavours}
    return config.model_copy(update={"flavours": kept or config.flavours, "budget": config.selfcheck.budget})


def run(root: Path, config: Config, options: Options, ui: Ui, globs: Sequence[str], *, as_json: bool = False) -> int:
    """Check the rig with the controls below `root`; prints what came of it and returns the exit code."""
    known = tuple(one for one in subjects(root) if one.control) if (root / PATCHES).is_dir() else ()
    if not known:
        raise ConfigError(f"{root / PATCHES / 'controls'}: no control there", hint=controls.HELP)
    wanted, config = choose(known, globs), settle(config)
    if options.dry_run:
        _dry_run(wanted, config, ui)
        return 0
    try:
        check = _Check(root, config, options, ui, wanted)
        done, folder = check.run((*wanted.bad, *wanted.good, *known)[0])
    finally:
        ui.settle()
    if as_json:
        print(json.dumps(outcomes.dump(done), indent=1))
    else:
        print("\n".join(outcomes.lines(done)))
        print(f"\nresults: {ui.path(folder)}/ ({RESULT}, junit.xml)")
    return 0 if done.summary.passed else 1


def _dry_run(wanted: Wanted, config: Config, ui: Ui) -> None:
    """Say what would be done."""
    own = config.selfcheck
    for one in wanted.bad:
        ui.stage(FOLDER, f"would hunt {one.name}: up to {own.seeds} x {own.limit:g} s in trials of {own.budget:g} s")
    for name in [*([BASE] if wanted.base else []), *(one.name for one in wanted.good)]:
        ui.stage(FOLDER, f"would try {name}: {wanted.trials_each(own.good_trials)} trials")
    if wanted.console:
        ui.stage(FOLDER, f"would crash {len(lkdtm.CRASHES)} machines on purpose")


class _Check:
    """One selfcheck: what is done and not done yet."""

    def __init__(self, root: Path, config: Config, options: Options, ui: Ui, wanted: Wanted) -> None:
        self.root = root
        self.config = config
        self.options = options
        self.ui = ui
        self.wanted = wanted
        self._boots = schedule.BootClock(config.timeouts.boot)
        self._stop = threading.Event()
        self._hunted: dict[str, Hunted] = {}
        self._cleared: dict[str, Cleared] = {}
        self._number = 0
        self._total = len(wanted.bad) + wanted.share

    def run(self, any_subject: Subject) -> tuple[Selfcheck, Path]:
        """Do what is left to do, write the reports, and return the whole and its folder."""
        threading.Thread(target=guest.preload, daemon=True).start()
        origin = self._pipeline(any_subject, config=self.config)
        base = origin.applied.base
        plan = self._plan(base.commit)
        nothing = Series(name=FOLDER, origin="", patches=())
        place = self.config.results / FOLDER
        with rundir.open_run(place, nothing, plan, resume=not self.options.always, last=RESULT) as folder:
            if folder.resumed:
                self.ui.stage(FOLDER, f"resuming {folder.id}")
            try:
                lab, accelerator = campaign.lab_on(
                    origin, folder.path, next(iter(origin.built(0).values())), self._stop
                )
                self._all(folder.path, lab, origin)
                console = self._console(folder.path, lab, origin) if self.wanted.console else ()
                done = self._collect(folder, base.commit, accelerator.name, accelerator.reason, console)
                write(folder.path, done)
            finally:
                rundir.remove_secrets(folder.path)
        return done, folder.path

    def _plan(self, base: str) -> dict[str, Any]:
        """All that the outcome depends on: a check with an equal plan may be resumed."""
        wanted = self.wanted
        return {
            "config": self.config.model_dump(mode="json", exclude={"results", "store", "store_limit_mib"}),
            "controls": {one.name: one.key for one in (*wanted.bad, *wanted.good)},
            "base": [base, wanted.base, wanted.console],
            "store": str(self.config.store),
            "rig": __version__,
        }

    def _pipeline(self, subject: Subject, *, config: Config | None = None) -> Pipeline:
        config = config or self._config(subject)
        series = tuple(str(self.root / origin) for origin in subject.origins)
        return Pipeline(config.model_copy(update={"series": series}), self.options, self.ui)

    def _config(self, subject: Subject) -> Config:
        """The configuration with the fragments that a control needs."""
        extra = subject.control.kconfig if subject.control else ()
        flavours = {name: tuple(dict.fromkeys((*words, *extra))) for name, words in self.config.flavours.items()}
        return self.config.model_copy(update={"flavours": flavours})

    def _all(self, path: Path, lab: Lab, origin: Pipeline) -> None:
        """First what is bad, as it says most; then what is not."""
        wanted, config = self.wanted, self.config
        per = wanted.trials_each(config.selfcheck.good_trials)
        count = schedule.slots(self.options.jobs, (config.machines[cell.machine].cpus for cell in origin.cells))
        innocents: list[Subject | None] = [*([None] if wanted.base else []), *wanted.good]
        self.ui.stage(
            FOLDER,
            f"{len(wanted.bad)} bad controls, up to {config.selfcheck.limit:g} s of workload time each; "
            f"{len(innocents)} innocents, {per} trials each; {len(origin.cells)} cells",
        )
        schedule.execute(wanted.bad, lambda one: self._hunt_control(one, path, lab), count=count, stop=self._stop)
        schedule.execute(
            tuple(enumerate(innocents)),
            lambda pair: self._clear(pair[1], pair[0], per, path, lab, origin),
            count=count,
            stop=self._stop,
        )

    # -- bad ones -----------------------------------------------------------------------------------------------------

    def _hunt_control(self, subject: Subject, path: Path, lab: Lab) -> None:
        control = subject.control
        assert control is not None
        home = path / "controls" / control.name
        hunts: list[Hunt] = []
        reason = ""
        kept = [_read(home / str(number) / HUNT, Hunt) for number in range(self.config.selfcheck.seeds)]
        try:
            pipeline = None if all(kept) else self._pipeline(subject)
            for number, known in enumerate(kept):
                if known is None:
                    assert pipeline is not None
                    known = self._hunt(subject, pipeline, number, home, path, lab)
                hunts.append(known)
        except (SeriesError, BuildError) as error:
            reason = error.summary
        except Interrupted:
            return
        folded = outcomes.fold(
            control.name, subject.key, control.race or "none", control.description, hunts, reason=reason
        )
        self._hunted[control.name] = folded
        self._number += 1
        self.ui.say(f"  [{self._number}/{self._total}] {outcomes.control_line(folded)}")

    def _hunt(self, subject: Subject, pipeline: Pipeline, number: int, home: Path, path: Path, lab: Lab) -> Hunt:
        """Hunt a control once; raises Interrupted when the check is to end."""
        control = subject.control
        assert control is not None
        config = pipeline.config
        kernels = pipeline.built(len(pipeline.applied.series.patches))
        runs_at = home / str(number)
        rundir.describe(home, pipeline.applied.series, self._description(pipeline))
        lab = campaign.perturb_in(replace(lab, root=runs_at), pipeline, kernels.values())
        first = config.seed + STRIDE * number
        used = Tally(config.selfcheck.limit, config.selfcheck.first, config.budget)
        quick = {name for name, workload in config.workloads.items() if workload.quick}
        for cell in hunt.rotation(pipeline.cells, pipeline.relevances, quick):
            if used.over or len(used.useless) == len(pipeline.cells):
                break
            if cell.id in used.useless:
                continue
            spec = replace(
                spec_of(
                    pipeline, kernels[cell.flavour], cell, Side.PATCHED, index=used.trials, seed=first + used.trials
                ),
                budget=used.budget(cell.workload, quick=cell.workload in quick),
                wanted=control.signature,
                stop_on_finding=True,
            )
            result = self._trial(spec, lab, f"{control.name} ({used.used:.0f} of {used.limit:g} s used)")
            where = runs_at.relative_to(path)
            used.take(result, control.sees, where)
        done = used.hunt(first)
        write_atomically(runs_at / HUNT, json.dumps(results.to_json(done), indent=1) + "\n")
        return done

    def _trial(self, spec: TrialSpec, lab: Lab, label: str) -> TrialResult:
        def progress(line: str) -> None:
            if line.startswith(("ok ", "not ok ", "# case ")):
                self.ui.progress(f"[{self._number + 1}/{self._total}] {label}: {spec.cell.id} seed {spec.seed}: {line}")

        self.ui.progress(f"[{self._number + 1}/{self._total}] {label}: {spec.cell.id} seed {spec.seed}")
        return attempt(spec, lab, self._boots, on_line=progress, say=self.ui.say)

    def _description(self, pipeline: Pipeline) -> dict[str, Any]:
        config = pipeline.config.model_dump(mode="json", exclude={"results", "store", "store_limit_mib"})
        return {"config": config, "store": str(self.config.store), "rig": __version__}

    # -- good ones ----------------------------------------------------------------------------------------------------

    def _clear(self, subject: Subject | None, number: int, per: int, path: Path, lab: Lab, origin: Pipeline) -> None:
        """Try the base (None) or a good control in one cell after the other."""
        name = subject.control.name if subject and subject.control else BASE
        key = subject.key if subject else ""
        home = path / "good" / name
        try:
            pipeline = self._pipeline(subject) if subject else origin
            kernels = pipeline.built(len(pipeline.applied.series.patches) if subject else 0)
        except (SeriesError, BuildError) as error:
            self._cleared[name] = Cleared(
                name=name, key=key, trials=0, lost=0, inconclusive=0, alarms=(), reason=error.summary
            )
            return
        rundir.describe(home, pipeline.applied.series, self._description(pipeline))
        # the base stands still where the first control touches it
        lab = campaign.perturb_in(replace(lab, root=home), pipeline, kernels.values())
        side = Side.PATCHED if subject else Side.BASE
        cells = pipeline.cells
        done: list[TrialResult] = []
        while sum(counts(one) for one in done) < per and len(done) < 2 * per:
            turn = number * per + len(done)
            cell = cells[turn % len(cells)]
            config, kernel = pipeline.config, kernels[cell.flavour]
            spec = spec_of(pipeline, kernel, cell, side, index=len(done), seed=config.seed + turn)
            result = _kept(spec, lab, kernel)
            try:
                done.append(result or self._trial(spec, lab, f"{name} ({len(done)} of {per})"))
            except Interrupted:
                return
        cleared = tally.cleared(name, key, done, home.relative_to(path))
        self._cleared[name] = cleared
        self._number += 1
        self.ui.say(f"  [{self._number}/{self._total}] {outcomes.good_line(cleared)}")

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _console(self, path: Path, lab: Lab, origin: Pipeline) -> tuple[Provoked, ...]:
        """Crash machines on purpose, on a kernel of the first flavour that can be asked to."""
        words = next(iter(self.config.flavours.values()))
        flavours = {lkdtm.FRAGMENT: tuple(dict.fromkeys((*words, lkdtm.FRAGMENT)))}
        config = origin.config.model_copy(update={"flavours": flavours, "select": ("*",)})
        kernel = Pipeline(config, self.options, self.ui).built(0)[lkdtm.FRAGMENT]
        self.ui.stage(CONSOLE, f"{len(lkdtm.CRASHES)} crashes on purpose")
        done: dict[str, Provoked] = {}

        def one(crash: lkdtm.Crash) -> None:
            home = path / CONSOLE / crash.name
            known = _read(home / PROVOKED, Provoked)
            if known is None:
                self.ui.progress(f"{CONSOLE}: {crash.name}")
                try:
                    known = lkdtm.provoke(crash, kernel, lab, home, self.config.timeouts.boot)
                except Interrupted:
                    return
                known = replace(known, evidence=str(home.relative_to(path)))
                write_atomically(home / PROVOKED, json.dumps(results.to_json(known), indent=1) + "\n")
            done[crash.name] = known
            self.ui.say(f"  {outcomes.console_line(known)}")

        count = schedule.slots(self.options.jobs, (lkdtm.MACHINE.cpus,))
        schedule.execute(lkdtm.CRASHES, one, count=count, stop=self._stop)
        return tuple(done[crash.name] for crash in lkdtm.CRASHES)

    def _collect(
        self, folder: rundir.RunFolder, base: str, accelerator: str, reason: str, console: tuple[Provoked, ...]
    ) -> Selfcheck:
        goods = tuple(self._cleared[name] for name in sorted(self._cleared, key=lambda name: (name != BASE, name)))
        shown = [alarm.signature for good in goods if good.name == BASE for alarm in good.alarms]
        hunted = tuple(outcomes.without_known(self._hunted[name], shown) for name in sorted(self._hunted))
        return Selfcheck(
            id=folder.id,
            started=folder.started,
            finished=now().isoformat(timespec="seconds"),
            rig_version=__version__,
            accelerator=accelerator,
            accelerator_reason=reason,
            base=base,
            config=self.config.model_dump(mode="json"),
            controls=hunted,
            goods=goods,
            console=console,
            summary=outcomes.summarise(hunted, goods, console, self.config.selfcheck.threshold),
        )


def _kept(spec: TrialSpec, lab: Lab, kernel: Kernel) -> TrialResult | None:
    """Return the result that an interrupted check left of this very trial."""
    known = results.read_trial(lab.root / spec.place)
    same = known is not None and known.seed == spec.seed and known.tree == kernel.tree
    return known if same else None


def _read(path: Path, kind: type[T]) -> T | None:
    """Return what an interrupted check left as done, or None."""
    try:
        return results.from_json(kind, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def write(path: Path, check: Selfcheck) -> None:
    """Publish the reports of a selfcheck in its folder."""
    write_atomically(path / "junit.xml", junit.selfcheck_xml(check))
    write_atomically(path / "summary.txt", "\n".join(outcomes.lines(check)) + "\n")
    write_atomically(path / RESULT, json.dumps(outcomes.dump(check), indent=1, sort_keys=True) + "\n")
