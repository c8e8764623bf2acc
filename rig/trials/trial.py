"""One trial: boot a kernel in a machine, run one workload over SSH, and keep what the oracles need.

A trial's folder holds plan.json and reproduce.sh before anything is started, then the console, the KTAP stream and the
QEMU command line, and last of all trial.json: a folder without it is a trial that was cut off.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from threading import Event

from rig.clock import Deadline, Stopwatch, now
from rig.guests.keys import RunKeys
from rig.machines.ends import BootKind, BootOutcome, EndKind, VmEnd
from rig.machines.guest import Guest, GuestRun, NoAnswerError, reach
from rig.machines.qemu import StallPlugin, VmSpec
from rig.machines.vm import Vm
from rig.model import Cell, Finding, GuestState, Kernel, Perturbation, Side, Timing, TrialResult
from rig.perturbation import stalls
from rig.perturbation.gueststalls import GuestStalls
from rig.perturbation.perturb import Able, Jitter
from rig.perturbation.stalls import NO_KIT, Kit, Stalls
from rig.runs import results
from rig.settings.config import Machine, Perturb, Workload
from rig.splats.scanner import Scanner, in_order
from rig.store import write_atomically
from rig.trials import audit, coverage, ktap, oracles, sample
from rig.trials.oracles import Evidence

#: A kernel that printed a fatal splat and still runs is ended after this many seconds, its last words kept.
LAST_WORDS = 5.0

#: Between the parts of what is printed when a trial is over.
_MARK = "rig-mark"
#: A trial that is to end with the first finding goes on for this many seconds, for the rest of what is said about it.
GRACE = 1.5

_FINDING = "# finding: "  # see ktap.py


class Interrupted(Exception):
    """The trial was cut off because the run is to end; it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """What one trial is to run."""

    cell: Cell
    side: Side
    index: int
    seed: int
    kernel: Kernel
    machine: Machine
    workload: Workload
    budget: float
    boot_timeout: float
    workload_timeout: float  # past the budget
    perturb: Perturb
    favour: tuple[str, ...] = ()  # globs over the cases of the workload that are about what the series touches
    wanted: tuple[str, ...] = ("*",)  # globs over titles: the finding whose first sight is timed
    stop_on_finding: bool = False  # end the trial soon after that
    plugin: Callable[[Path], StallPlugin | None] | None = None  # in the place of stalls: given the trial's folder
    tracepoints: tuple[tuple[str, str], ...] = sample.TRACEPOINTS  # whose hits are counted while the workload runs

    @property
    def place(self) -> Path:
        """The folder of the trial, relative to that of the run."""
        return Path("trials") / self.side / self.cell.id / str(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What all trials of a run share."""

    root: Path  # the run's folder
    image: Path
    keys: RunKeys
    disks: Mapping[str, Path]  # by file system
    accelerator: str
    stop: Event  # set when the run is to end at once
    able: Able  # what may be done to vCPU threads
    cmdline: tuple[str, ...] = ()  # kernel parameters of all machines, beside those that machines/qemu.py knows
    rig: str = "rig"  # how reproducers call the rig
    stalls: Kit = NO_KIT


def command(spec: TrialSpec) -> str:
    """Return the command line of the workload in the guest."""
    words = [spec.workload.run, "--dir", "/mnt/test", "--seed", str(spec.seed), "--budget", f"{spec.budget:g}"]
    if spec.favour:
        words += ["--favour", ",".join(spec.favour)]
    for name, value in spec.workload.args.items():
        words += [f"--{name}", str(value)]
    return shlex.join(words)


def prepare(spec: TrialSpec, lab: Lab) -> Path:
    """Make the trial's folder with its plan and reproducer, and return it. What an older attempt left is removed."""
    folder = lab.root / spec.place
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        with suppress(OSError):
            old.unlink()
    plan = {
        "cell": spec.cell.id,
        "side": spec.side,
        "prefix": spec.kernel.prefix,
        "index": spec.index,
        "seed": spec.seed,
        "budget": spec.budget,
        "kernel": spec.kernel.key,
        "tree": spec.kernel.tree,
        "accelerator": lab.accelerator,
        "command": command(spec),
    }
    write_atomically(folder / "plan.json", json.dumps(plan, indent=1) + "\n")
    script = folder / "reproduce.sh"
    write_atomically(
        script,
        f"#!/bin/sh\n# Runs this very trial again: {spec.cell.id} on the {spec.side} kernel, seed {spec.seed}.\n"
        f'cd "$(dirname "$0")" || exit 3\nexec {lab.rig} rerun . "$@"\n',
    )
    script.chmod(0o755)
    return folder


def run(spec: TrialSpec, lab: Lab, *, on_line: Callable[[str], None] = lambda _: None) -> TrialResult:
    """Run one trial to its end and return the result, which is also written to its folder.

    Raises Interrupted, with nothing written, when the run is to end; HostError when QEMU cannot be started at all.
    """
    folder, started, watch = prepare(spec, lab), now(), Stopwatch()
    session = _Session(spec, lab, folder, Scanner(), on_line)
    evidence = session.run()
    if lab.stop.is_set():
        raise Interrupted
    status, reason, findings, cases = oracles.judge(evidence)
    result = TrialResult(
        cell=spec.cell,
        side=spec.side,
        prefix=spec.kernel.prefix,
        tree=spec.kernel.tree,
        index=spec.index,
        seed=spec.seed,
        status=status,
        reason=reason,
        accelerator=lab.accelerator,
        started=started.isoformat(timespec="seconds"),
        evidence=str(spec.place),
        cases=cases,
        findings=findings,
        guest=session.state,
        timing=replace(session.timing, total=watch.elapsed),
        params=evidence.ktap.params if evidence.ktap else (),
        perturbation=session.perturbation,
        coverage=evidence.coverage,
        first_finding=session.first_finding,
    )
    results.write_trial(folder, result)
    return result


class _Session:
    """The machine's life in one trial, and the evidence it leaves."""

    def __init__(
        self, spec: TrialSpec, lab: Lab, folder: Path, scanner: Scanner, on_line: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.lab = lab
        self.folder = folder
        self.state: GuestState | None = None
        self.timing = Timing()
        self.perturbation: Perturbation | None = None
        self.first_finding: float | None = None  # seconds since the workload's start
        self._watch: Stopwatch | None = None  # runs since the workload's start
        self._grace: Deadline | None = None
        self._scanner = scanner
        self._on_line = on_line
        self._findings: list[Finding] = []
        self._last_words: Deadline | None = None
        self._listening = True  # to the console; what the rig itself makes the kernel print accuses nobody
        self._taint_after: int | None = None
        self._before: sample.Sample = {}
        self._coverage: coverage.Coverage = ()
        self._audited: tuple[Finding, ...] = ()
        self._hung = False  # a command in the guest was not done by its deadline, and the machine lives
        self._run: GuestRun | None = None
        self._plugin: StallPlugin | None = None

    def run(self) -> Evidence:
        """Boot, run, look around, end; returns what was seen."""
        spec, lab = self.spec, self.lab
        stall = partial(stalls.write_control, kit=lab.stalls, key=spec.kernel.key, vcpus=spec.machine.cpus)
        stall = partial(stall, share=spec.perturb.stalls.share, seed=spec.seed)
        self._plugin = (spec.plugin or stall)(self.folder)
        vm_spec = VmSpec(
            kernel=spec.kernel.bzimage,
            initrd=lab.image,
            machine=spec.machine,
            accelerator=lab.accelerator,
            filesystem=spec.cell.filesystem,
            disk=lab.disks.get(spec.cell.filesystem),
            cmdline=lab.cmdline,
            stalls=self._plugin,
        )
        with Vm.start(vm_spec, self.folder, on_console=self._on_console) as vm:
            outcome, guest = reach(vm, lab.keys, Deadline(spec.boot_timeout), lambda: self._alive(vm))
            if guest is not None:
                with guest:
                    self._use(vm, guest)
            elif self._alive(vm):
                self._ask_where_it_hangs(vm)
            end = vm.end  # before the rig itself ends the machine
        self._findings += self._scanner.finish()
        return self._evidence(outcome, end)

    def _on_console(self, data: bytes) -> None:
        if not self._listening:
            return
        found = self._scanner.feed(data)
        self._findings += found
        if self.first_finding is None and (open_reports := (*found, *self._scanner.pending())):
            self._note([finding.title for finding in open_reports])
        if self._scanner.fatal and self._last_words is None:
            self._last_words = Deadline(LAST_WORDS)

    def _note(self, titles: Iterable[str]) -> None:
        """Time the first sight of a finding that is waited for. One that comes before the workload took no time."""
        if self.first_finding is None and any(fnmatchcase(t, glob) for t in titles for glob in self.spec.wanted):
            self.first_finding = self._watch.elapsed if self._watch else 0.0
            if self.spec.stop_on_finding:
                self._grace = Deadline(GRACE)

    def _alive(self, vm: Vm) -> bool:
        """Whether the machine is worth waiting for: it runs, is not past its last words, and the run goes on."""
        spoken = any(limit is not None and limit.expired for limit in (self._last_words, self._grace))
        return vm.alive and not spoken and not self.lab.stop.is_set()

    def _use(self, vm: Vm, guest: Guest) -> None:
        try:
            self.state = guest.read_state()
        except NoAnswerError:
            if self._alive(vm):
                self._ask_where_it_hangs(vm)
            return
        self.timing = Timing(boot=vm.watch.elapsed)
        look = f"{sample.DRAIN}; {sample.LOOK}; {sample.start_counting(self.spec.tracepoints)}"
        looked = guest.run(look, self.spec.workload_timeout)
        self._before = sample.parse(looked.stdout)
        with (self.folder / "ktap.log").open("w", encoding="utf-8") as log:

            def line(text: str) -> None:
                log.write(text + "\n")
                log.flush()
                if text.startswith(_FINDING):
                    self._note([text.removeprefix(_FINDING).strip()])
                self._on_line(text)

            jitter, directed = self._jitter(vm), self._directed(guest)
            with ExitStack() as stack:
                for one in (jitter, directed):
                    if one is not None:
                        stack.enter_context(one)
                self._watch = Stopwatch()  # not before: a module takes seconds to load
                self._run = guest.run(command(self.spec), self.spec.budget + self.spec.workload_timeout, line)
            self.perturbation = self._perturbation(jitter, directed)
        self.timing = replace(self.timing, workload=self._run.seconds)
        if self._run.timed_out:
            self._ask_where_it_hangs(vm)
        if not self._run.lost:
            self._leave(vm, guest)

    def _jitter(self, vm: Vm) -> Jitter | None:
        """What perturbs the machine, from the trial's seed: base and patched, and a rerun, get the same plan."""
        wanted = self.spec.perturb
        if not wanted.jitter:
            return None
        interval, length = wanted.interval_ms / 1000, wanted.length_ms / 1000
        return Jitter(vm.pid, vm.vcpu_threads, self.lab.able, self.spec.seed, interval=interval, length=length)

    def _directed(self, guest: Guest) -> Stalls | GuestStalls | None:
        """What stalls vCPUs in the functions of the series, from the trial's seed as well."""
        wanted, kit, key = self.spec.perturb.stalls, self.lab.stalls, self.spec.kernel.key
        if not wanted.share:
            return None
        if kit.arsenals is not None:
            return kit.arsenals[key].stalls(guest, self.spec.seed)
        if self._plugin is None or kit.targets is None:
            return None
        found = kit.targets[key]
        kinds = stalls.kinds_of(found)
        longest, seconds = wanted.longest_ms / 1000, wanted.episode_ms / 1000
        plan = stalls.episodes(self.spec.seed, kinds, share=wanted.share, longest=longest, seconds=seconds)
        return Stalls(self._plugin.control, found, plan, self.spec.machine.cpus)

    def _perturbation(self, jitter: Jitter | None, directed: Stalls | GuestStalls | None) -> Perturbation | None:
        """Return what was done, None when nothing was asked for."""
        done = jitter.report if jitter else None
        if not self.spec.perturb.stalls.share:
            return done
        note = self.lab.stalls.note or "this machine or kernel has nothing to stall"
        report = directed.report if directed else stalls.nothing(note)
        return replace(done or Perturbation(kinds=(), steps=0, stalled=0.0), directed=report)

    def _leave(self, vm: Vm, guest: Guest) -> None:
        """Unmount and drop the caches: pages whose accounting is broken are found out when they are freed.

        What the workload made the kernel do is read before that, and what it left behind after it.
        """
        parts = (f"{sample.stop_counting(self.spec.tracepoints)}; {sample.LOOK}", audit.CLEAR, sample.LOOK)
        done = guest.run(f"; echo {_MARK}; ".join(parts), self.spec.workload_timeout)
        if done.timed_out:
            self._ask_where_it_hangs(vm)
            return
        worked, _, rest = done.stdout.partition(f"{_MARK}\n")
        cleared, _, left = rest.partition(f"{_MARK}\n")
        self._coverage = coverage.gained(self._before, sample.parse(worked))
        words = cleared.split()
        if words and words[-1].isdigit():
            self._taint_after = int(words[-1])
        ended = self._run is not None and self._run.status in (oracles.EXIT_PASS, oracles.EXIT_FAIL, oracles.EXIT_SKIP)
        if done.ok and ended and not self._scanner.fatal:
            self._audit(guest, sample.parse(left), unmounted="umount:" not in done.stderr)
            if "kmemleak" in words:
                lost = guest.run(audit.SCAN, audit.SCAN_SECONDS + self.spec.workload_timeout)
                self._audited += audit.lost_objects(lost.stdout)
            self._note(finding.title for finding in self._audited)

    def _audit(self, guest: Guest, after: sample.Sample, *, unmounted: bool) -> None:
        """Look again at what seems to be left over until it is gone, or there is no more patience."""
        found = audit.judge(self._before, after, unmounted=unmounted)
        for _ in range(audit.LOOKS - 1):
            if not found:
                break
            again = guest.run(audit.AGAIN, self.spec.workload_timeout)
            if not again.ok:
                return  # the machine went down, which is told elsewhere
            after = sample.parse(again.stdout)
            found = audit.judge(self._before, after, unmounted=unmounted)
        if found:
            pages = audit.residue(after)
            found = audit.with_owners(found, guest.run(audit.owners(pages), self.spec.workload_timeout).stdout)
        self._audited = found
        write_atomically(self.folder / "audit.json", json.dumps(audit.as_json(self._before, after), indent=1) + "\n")

    def _ask_where_it_hangs(self, vm: Vm) -> None:
        """Put the blocked tasks and the backtraces of all CPUs on the console: a hang must not be silent."""
        self._hung, self._listening = True, False
        for key in "wl":
            vm.sysrq(key)
            vm.wait_end(1.0)

    def _evidence(self, outcome: BootOutcome, end: VmEnd | None) -> Evidence:
        run = self._run
        notes = [] if outcome.ok else [outcome.detail]
        if end is not None:
            notes.append(end.detail)
        if not outcome.ok and outcome.last_line:
            notes.append(f"last line of the console: {outcome.last_line}")
        if run is not None and run.stderr.strip():
            notes.append(run.stderr.strip().splitlines()[-1])
        return Evidence(
            workload=self.spec.workload.run,
            booted=outcome.stage != "qemu",
            ssh=self.state is not None,
            end_kind=_END_KINDS.get(end.kind) if end else None,
            timed_out=self._hung and outcome.kind is not BootKind.BROKEN,
            exit_status=run.status if run else None,
            ktap=ktap.parse(run.stdout) if run else None,
            console=in_order(self._findings),
            taint_before=self.state.taint if self.state else None,
            taint_after=self._taint_after,
            audit=self._audited,
            coverage=self._coverage,
            needs=self.spec.workload.needs,
            note="; ".join(notes),
        )


#: What the oracles call the ends of a machine.
_END_KINDS: Mapping[EndKind, oracles.EndKind] = {
    EndKind.POWEROFF: "poweroff",
    EndKind.RESET: "reset",
    EndKind.QEMU_DIED: "qemu-died",
    EndKind.STOPPED: "qemu-died",
    EndKind.KILLED: "killed",
}
