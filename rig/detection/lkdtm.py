"""Crashes on purpose: the proof that the console oracles see each kind of splat, and name the function that is guilty.

The kernel's own crash tester (CONFIG_LKDTM, Documentation/fault-injection/provoke-crashes.rst) makes them, each in a
machine of its own. What a crash must be recognised as is the table below. The slow ones (a hung task, a lockup, an RCU
stall) are made quick by settings of the guest; each of the other machines lives for a few seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rig.clock import Deadline
from rig.detection.outcomes import Provoked
from rig.machines.accel import ProbeMachine
from rig.machines.guest import Guest, reach
from rig.machines.qemu import VmSpec
from rig.machines.vm import Vm
from rig.model import Finding, Kernel
from rig.splats.scanner import Scanner, in_order
from rig.trials.trial import Interrupted, Lab

FRAGMENT = "lkdtm"  # of kconfigs/
DIRECT = "/sys/kernel/debug/provoke-crash/DIRECT"
NOTHING = "none"  # the kind of a crash that is none

#: A machine that has shown what is expected lives for this many seconds more, for the rest of its words.
GRACE = 1.0

MACHINE = ProbeMachine(name="console", cpus=2, memory_mib=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A crash, and what the console oracles have to make of it."""

    name: str  # of LKDTM's
    kind: str
    title: str  # a glob
    cmdline: tuple[str, ...] = ()  # kernel parameters
    setup: str = ""  # a command in the guest
    times: int = 1  # how often it is asked for, each time by another process
    seconds: float = 20.0  # until it must have been seen


_SLOW = 120.0

CRASHES: tuple[Crash, ...] = (
    Crash(name="BUG", kind="bug", title="kernel BUG in lkdtm_BUG"),
    Crash(name="WARNING", kind="warning", title="WARNING in lkdtm_WARNING"),
    Crash(name="WARNING_MESSAGE", kind="warning", title="WARNING in lkdtm_WARNING_MESSAGE"),
    Crash(name="PANIC", kind="panic", title="kernel panic: dumptest"),
    Crash(
        name="EXCEPTION",
        kind="page-fault",
        title="BUG: unable to handle kernel NULL pointer dereference in lkdtm_EXCEPTION",
    ),
    Crash(
        name="ACCESS_NULL",
        kind="page-fault",
        title="BUG: unable to handle kernel NULL pointer dereference in lkdtm_ACCESS_NULL",
    ),
    Crash(
        name="ACCESS_USERSPACE",
        kind="page-fault",
        title="BUG: unable to handle kernel paging request in lkdtm_ACCESS_USERSPACE",
    ),
    Crash(name="WRITE_RO", kind="page-fault", title="BUG: unable to handle kernel paging request in lkdtm_WRITE_RO"),
    Crash(name="CORRUPT_STACK", kind="stack", title="kernel panic: stack is corrupted in lkdtm_CORRUPT_STACK"),
    Crash(
        name="CORRUPT_STACK_STRONG",
        kind="stack",
        title="kernel panic: stack is corrupted in lkdtm_CORRUPT_STACK_STRONG",
    ),
    Crash(name="CORRUPT_LIST_ADD", kind="list-corruption", title="BUG: corrupted list in lkdtm_CORRUPT_LIST_ADD"),
    Crash(name="CORRUPT_LIST_DEL", kind="list-corruption", title="BUG: corrupted list in lkdtm_CORRUPT_LIST_DEL"),
    Crash(name="REFCOUNT_INC_ZERO", kind="refcount", title="WARNING: refcount bug in *"),
    Crash(name="REFCOUNT_DEC_ZERO", kind="refcount", title="WARNING: refcount bug in *"),
    Crash(name="REFCOUNT_INC_OVERFLOW", kind="refcount", title="WARNING: refcount bug in *"),
    Crash(
        name="HUNG_TASK",
        kind="hung-task",
        title="INFO: task hung in lkdtm_HUNG_TASK",
        setup="echo 2 >/proc/sys/kernel/hung_task_timeout_secs",
        seconds=_SLOW,
    ),
    Crash(
        name="SOFTLOCKUP",
        kind="soft-lockup",
        title="BUG: soft lockup in lkdtm_SOFTLOCKUP",
        cmdline=("watchdog_thresh=2",),
        setup="sleep 3",  # while the clock source is switched all CPUs wait for this one, and another is named first
        seconds=_SLOW,
    ),
    # The lock is never dropped, and the process goes to sleep with it: here, or in the scheduler at once.
    Crash(name="SPINLOCKUP", kind="bug", title="BUG: s*"),
    Crash(
        name="HARDLOCKUP",
        kind="rcu-stall",
        title="INFO: rcu detected stall in lkdtm_HARDLOCKUP",
        cmdline=("rcupdate.rcu_cpu_stall_timeout=4",),
        seconds=_SLOW,
    ),
    # Talk that is no crash: it accuses nobody.
    Crash(name="REPORT_STACK_CANARY", kind=NOTHING, title="", times=2, seconds=3.0),
)


def command(crash: Crash) -> str:
    """Return what is run in the guest: the settings, then a process for each time it is asked for."""
    ask = " ".join(f"sh -c 'echo {crash.name} >{DIRECT}' & sleep 0.2;" for _ in range(crash.times))
    return f"{crash.setup + '; ' if crash.setup else ''}[ -e {DIRECT} ] || exit 99; {ask} wait"


def judge(crash: Crash, findings: Sequence[Finding]) -> tuple[bool, str, str, str]:
    """Return whether the first of the findings is what was expected, its kind and title, and why not in words."""
    first = findings[0] if findings else None
    if crash.kind == NOTHING:
        if first is None:
            return True, NOTHING, "", ""
        return False, first.kind, first.title, f"{first.title}, expected nothing"
    if first is None:
        return False, "", "", f"nothing was seen, expected {crash.kind}: {crash.title}"
    if first.kind != crash.kind or not fnmatchcase(first.title, crash.title):
        return False, first.kind, first.title, f"expected {crash.kind}: {crash.title}"
    if first.corrupted:
        return False, first.kind, first.title, "taken for cut short"
    return True, first.kind, first.title, ""


class _Listener:
    """Scans a console as it comes, until the report that is expected is there as a whole."""

    def __init__(self, crash: Crash) -> None:
        self._crash = crash
        self._lock = threading.Lock()
        self._scanner = Scanner()
        self._found: list[Finding] = []
        self._grace: Deadline | None = None

    def take(self, data: bytes) -> None:
        with self._lock:
            self._found += self._scanner.feed(data)
            if self._grace is None and (self._found or self._scanner.pending()):
                self._grace = Deadline(GRACE)

    @property
    def done(self) -> bool:
        return self._grace is not None and self._grace.expired

    def findings(self) -> tuple[Finding, ...]:
        with self._lock:
            return in_order(self._found + self._scanner.finish())


def provoke(crash: Crash, kernel: Kernel, lab: Lab, folder: Path, boot_timeout: float) -> Provoked:
    """Crash a machine and return what the console oracles saw; the evidence is in `folder`.

    Raises Interrupted when the check is to end, HostError when QEMU does not start.
    """
    listener = _Listener(crash)
    spec = VmSpec(
        kernel=kernel.bzimage,
        initrd=lab.image,
        machine=MACHINE,
        accelerator=lab.accelerator,
        filesystem="tmpfs",
        cmdline=(*lab.cmdline, *crash.cmdline),
    )
    note = ""
    with Vm.start(spec, folder, on_console=listener.take) as vm:

        def alive() -> bool:
            return vm.alive and not listener.done and not lab.stop.is_set()

        outcome, connection = reach(vm, lab.keys, Deadline(boot_timeout), alive)
        if connection is None:
            note = outcome.detail
        else:
            with connection:
                note = _ask(crash, connection)
                wait = Deadline(crash.seconds)
                while alive() and not wait.expired:
                    vm.wait_end(0.05)
    if lab.stop.is_set():
        raise Interrupted
    ok, kind, title, reason = judge(crash, listener.findings())
    if note and not ok:
        reason = f"{reason} ({note})"
    return Provoked(
        crash=crash.name,
        expected_kind=crash.kind,
        expected_title=crash.title,
        kind=kind,
        title=title,
        ok=ok and (not note or crash.kind != NOTHING),
        reason=reason or (note if crash.kind == NOTHING else ""),
        evidence=str(folder),
    )


def _ask(crash: Crash, connection: Guest) -> str:
    """Ask for the crash; returns why it could not be asked for. A guest that does not answer any more has crashed."""
    with suppress(OSError):
        done = connection.run(command(crash), crash.seconds)
        if done.status == 99:
            return f"no {DIRECT} in the guest: the kernel lacks CONFIG_LKDTM"
    return ""
