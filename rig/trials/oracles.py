"""Says what became of a trial, from the evidence alone.

The rules are a table, tried from the top; each says what it takes and what follows. A trial starts as LOST, and only
evidence changes that: what accuses the kernel first, then what says that the rig learnt nothing, and a pass last.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from rig.model import CaseResult, Finding, Status
from rig.trials.coverage import Coverage, missing
from rig.trials.ktap import KtapReport
from rig.trials.signature import signature, title

EndKind = Literal["poweroff", "reset", "qemu-died", "killed"]

#: Exit statuses of a workload, as LTP has them: set-up that is broken is neither a failure nor unsupported.
EXIT_PASS, EXIT_FAIL, EXIT_SKIP, EXIT_BROKEN = 0, 1, 4, 99

#: Bits of /proc/sys/kernel/tainted (include/linux/panic.h, v6.12): letter, meaning.
TAINTS: tuple[tuple[str, str], ...] = (
    ("P", "proprietary module was loaded"),
    ("F", "module was force loaded"),
    ("S", "CPU or kernel out of specification"),
    ("R", "module was force unloaded"),
    ("M", "machine check exception"),
    ("B", "bad page"),
    ("U", "requested by userspace"),
    ("D", "kernel died recently"),
    ("A", "ACPI table overridden"),
    ("W", "kernel issued warning"),
    ("C", "staging driver was loaded"),
    ("I", "workaround for a firmware bug"),
    ("O", "out-of-tree module was loaded"),
    ("E", "unsigned module was loaded"),
    ("L", "soft lockup occurred"),
    ("K", "kernel was live patched"),
    ("X", "auxiliary, defined by the distribution"),
    ("T", "built with struct randomisation"),
    ("N", "in-kernel test was run"),
    ("J", "userspace used a mutating debug operation"),
)
#: Taints that a splat on the console sets, and so explains.
SPLAT_TAINTS = frozenset("BDWL")
#: Taints of loading a module, which in these guests only the rig itself does (stalls in the functions of a patch).
OWN_TAINTS = frozenset("OE")
#: Findings that say why nothing moves any more.
STALLS = frozenset({"hung-task", "soft-lockup", "hard-lockup", "rcu-stall", "lockdep"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a trial when it is over."""

    workload: str = "workload"
    booted: bool = False  # init ran
    ssh: bool = False  # a command was done over SSH
    end_kind: EndKind | None = None  # how the machine ended before the workload's result was in; None: it lives
    timed_out: bool = False  # a deadline passed: of the boot, of SSH or of the workload, whichever was under way
    exit_status: int | None = None  # of the workload; negative or above 128: a signal; None: it never returned
    ktap: KtapReport | None = None  # None: the workload never started
    console: tuple[Finding, ...] = ()
    taint_before: int | None = None
    taint_after: int | None = None
    audit: tuple[Finding, ...] = ()  # what the memory audit found left over
    coverage: Coverage = ()  # what the kernel's counters gained while the workload ran
    needs: Mapping[str, int] = field(default_factory=dict)  # the least of them for a pass
    note: str = ""  # what the machine or the connection said about its end


class Ruling(NamedTuple):
    """What the evidence comes to."""

    status: Status
    reason: str
    findings: tuple[Finding, ...]  # the first is the cause
    cases: tuple[CaseResult, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: Status
    reason: str
    finding: Finding | None = None


_Rule = Callable[[Evidence], _Outcome | None]


def judge(evidence: Evidence) -> Ruling:
    """Return status, a reason of one line, all findings, and the cases with their own status. Never raises."""
    outcome = next(outcome for rule in RULES if (outcome := rule(evidence)) is not None)
    cases = _settle_cases(evidence, outcome)
    return Ruling(outcome.status, title(outcome.reason), _all_findings(evidence, outcome, cases), cases)


# -- the rules, in the order of RULES ---------------------------------------------------------------------------------


def _fatal_splat(e: Evidence) -> _Outcome | None:
    if any(finding.fatal for finding in e.console):
        return _Outcome(Status.CRASH, e.console[0].title)
    return None


def _boot_hang(e: Evidence) -> _Outcome | None:
    if e.timed_out and not e.booted:
        return _hang("boot-hang", "the kernel did not reach init before the deadline", e)
    return None


def _down(e: Evidence) -> _Outcome | None:
    if e.end_kind not in ("reset", "poweroff"):
        return None
    when = f"under {e.workload}" if e.ssh else "before SSH answered" if e.booted else "while booting"
    what = "machine reset without a word" if e.end_kind == "reset" else "machine powered off by itself"
    kind = "silent-reset" if e.end_kind == "reset" else "silent-poweroff"
    return _Outcome(Status.CRASH, f"{what} {when}", _machine(kind, what, f"{what} {when}. {e.note}".strip()))


def _no_ssh(e: Evidence) -> _Outcome | None:
    if e.timed_out and not e.ssh:
        return _hang("no-ssh", "init ran and SSH never answered", e)
    return None


def _hang_under_workload(e: Evidence) -> _Outcome | None:
    if e.timed_out:
        return _hang("hang", f"{e.workload} was not done by its deadline and the machine lives", e)
    return None


def _failed_case(e: Evidence) -> _Outcome | None:
    for case in e.ktap.cases if e.ktap else ():
        if case.status.bad or case.findings:
            return _Outcome(Status.FAIL, f"{case.name}: {case.reason}")
    return None


def _splat(e: Evidence) -> _Outcome | None:
    return _Outcome(Status.FAIL, e.console[0].title) if e.console else None


def _taint(e: Evidence) -> _Outcome | None:
    letters = new_taints(e.taint_before, e.taint_after)
    return _Outcome(Status.FAIL, f"new taint: {_meanings(letters)}") if letters else None


def _leak(e: Evidence) -> _Outcome | None:
    return _Outcome(Status.FAIL, e.audit[0].title) if e.audit else None


def _machine_lost(e: Evidence) -> _Outcome | None:
    reasons = {"qemu-died": "QEMU died", "killed": "QEMU was killed"}
    if e.end_kind in reasons:
        return _Outcome(Status.LOST, f"{reasons[e.end_kind]}: {e.note}" if e.note else reasons[e.end_kind])
    return None


def _never_ran(e: Evidence) -> _Outcome | None:
    if e.ktap is not None:
        return None
    where = (
        "the workload was not started" if e.ssh else "SSH was not reached" if e.booted else "the machine did not boot"
    )
    return _Outcome(Status.LOST, f"{where}: {e.note}" if e.note else where)


def _broken_setup(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    complaints = [*e.ktap.errors, *(case.reason for case in e.ktap.cases if case.reason)]
    if e.exit_status == EXIT_BROKEN:
        return _Outcome(
            Status.LOST, f"{e.workload}: broken set-up: {e.note or next(iter(complaints), 'no reason given')}"
        )
    if e.exit_status in (126, 127):
        return _Outcome(Status.LOST, f"{e.workload}: could not be started (exit status {e.exit_status}) {e.note}")
    if e.exit_status is None:
        return _Outcome(Status.LOST, f"the connection to {e.workload} was lost: {e.note or 'no exit status'}")
    return None


def _died(e: Evidence) -> _Outcome | None:
    name = _signal_name(e.exit_status)
    if name is None:
        return None
    what = f"{e.workload} was killed by {name}"
    return _Outcome(Status.FAIL, what, _workload("workload-died", what, e))


def _no_stream(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    if e.ktap.plan is None and not e.ktap.cases:
        return _Outcome(Status.LOST, f"{e.workload} said nothing in KTAP (exit status {e.exit_status})")
    return None


def _incomplete(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    missing = sum(case.status is Status.LOST for case in e.ktap.cases)
    if not missing:
        return None
    what = f"{missing} of {len(e.ktap.cases)} cases of {e.workload} did not report"
    return _Outcome(Status.FAIL, what, _workload("protocol", f"{e.workload}: cases did not report", e))


def _contradiction(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    passed = any(case.status in (Status.PASS, Status.INCONCLUSIVE) for case in e.ktap.cases)
    expected = EXIT_PASS if passed else EXIT_SKIP
    inconclusive = not passed or all(case.status is not Status.PASS for case in e.ktap.cases)
    what = ""
    if e.ktap.errors:
        what = f"{e.workload}: {e.ktap.errors[0]}"
    elif e.exit_status != expected and not (inconclusive and e.exit_status in (EXIT_PASS, EXIT_SKIP)):
        what = f"{e.workload}: exit status {e.exit_status} and a stream that says {expected}"
    return _Outcome(Status.FAIL, what, _workload("protocol", what, e)) if what else None


def _not_covered(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    short = missing(e.coverage, e.needs)
    if not short or all(case.status is not Status.PASS for case in e.ktap.cases):
        return None  # cases that say so themselves know better why
    return _Outcome(Status.INCONCLUSIVE, f"{e.workload}: {short}")


def _passed(e: Evidence) -> _Outcome | None:
    assert e.ktap is not None
    by = {status: [c for c in e.ktap.cases if c.status is status] for status in Status}
    done, doubtful, skipped = by[Status.PASS], by[Status.INCONCLUSIVE], by[Status.SKIP]
    if done:
        rest = [f"{len(doubtful)} inconclusive"] * bool(doubtful) + [f"{len(skipped)} skipped"] * bool(skipped)
        return _Outcome(Status.PASS, ", ".join([f"{len(done)} of {len(e.ktap.cases)} cases passed", *rest]))
    if doubtful:
        return _Outcome(Status.INCONCLUSIVE, f"{doubtful[0].name}: {doubtful[0].reason}")
    return _Outcome(Status.SKIP, e.ktap.skip_reason or next((f"{c.name}: {c.reason}" for c in skipped), "no cases"))


#: Tried from the top; the last one always answers.
RULES: tuple[_Rule, ...] = (
    _fatal_splat,  # CRASH: the kernel said so itself, however the machine ended after it
    _boot_hang,  # TIMEOUT: neither a word nor an end
    _down,  # CRASH: the machine went down and nobody told it to
    _no_ssh,  # TIMEOUT: alive and deaf
    _hang_under_workload,  # TIMEOUT
    _failed_case,  # FAIL: a workload's oracle; what was seen stays seen, whatever was lost later
    _splat,  # FAIL: WARNING, lockdep, Bad page: even when all cases passed
    _taint,  # FAIL: something happened that the console does not show
    _leak,  # FAIL: memory that nobody can reach and somebody holds
    _machine_lost,  # LOST: the machine, not the kernel
    _never_ran,  # LOST
    _broken_setup,  # LOST
    _died,  # FAIL: a static binary that verifies does not die by itself
    _no_stream,  # LOST
    _incomplete,  # FAIL: silence is never success
    _contradiction,  # FAIL: stream and exit status disagree
    _not_covered,  # INCONCLUSIVE: the kernel did not do what the race is about
    _passed,  # PASS, INCONCLUSIVE or SKIP
)


# -- what the rules share ---------------------------------------------------------------------------------------------


def new_taints(before: int | None, after: int | None) -> str:
    """Return the letters of the taint bits that are new in `after` and not the rig's; none if either is not known."""
    if before is None or after is None:
        return ""
    letters = (_letter(bit) for bit in range(64) if (after & ~before) >> bit & 1)
    return "".join(letter for letter in letters if letter not in OWN_TAINTS)


def _letter(bit: int) -> str:
    return TAINTS[bit][0] if bit < len(TAINTS) else "?"


def _meanings(letters: str) -> str:
    meanings = dict(TAINTS)
    return ", ".join(f"{letter} ({meanings.get(letter, 'unknown')})" for letter in letters)


def _machine(kind: str, heading: str, text: str) -> Finding:
    return Finding(
        oracle="machine", kind=kind, title=heading, signature=signature(kind, heading), text=text, fatal=True
    )


def _workload(kind: str, heading: str, e: Evidence) -> Finding:
    text = "\n".join([heading, *(e.ktap.errors if e.ktap else ()), e.note]).strip()
    return Finding(oracle="workload", kind=kind, title=title(heading), signature=signature(kind, heading), text=text)


def _hang(kind: str, what: str, e: Evidence) -> _Outcome:
    """A hang is a finding of its own unless the kernel said what hangs."""
    told = next((finding for finding in e.console if finding.kind in STALLS), None)
    if told:
        return _Outcome(Status.TIMEOUT, f"{what}: {told.title}")
    return _Outcome(Status.TIMEOUT, what, _machine(kind, what, f"{what}. {e.note}".strip()))


def _signal_name(status: int | None) -> str | None:
    """`SIGSEGV` for an exit status by a signal, as the shell (128 + n) or a process (-n) tells it."""
    if status is None or 0 <= status <= 128:
        return None
    number = -status if status < 0 else status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if number < 65 else None


def _all_findings(e: Evidence, outcome: _Outcome, cases: tuple[CaseResult, ...]) -> tuple[Finding, ...]:
    """The cause first: the kernel's own words, the machine's end, the workload's oracles, what is left over, taint."""
    found = [*e.console, *([outcome.finding] if outcome.finding else [])]
    found += [finding for case in cases for finding in case.findings]
    # A page that the kernel reported as bad it never frees.
    found += [replace(leak, echo=bool(e.console)) for leak in e.audit]
    letters = new_taints(e.taint_before, e.taint_after)
    unexplained = "".join(letter for letter in letters if not (e.console and letter in SPLAT_TAINTS))
    if unexplained:
        heading = f"taint {_meanings(unexplained)}"
        text = f"/proc/sys/kernel/tainted: {e.taint_before} before, {e.taint_after} after"
        found.append(
            Finding(oracle="taint", kind="taint", title=title(heading), signature=f"taint:{unexplained}", text=text)
        )
    return tuple(found)


def _settle_cases(e: Evidence, outcome: _Outcome) -> tuple[CaseResult, ...]:
    """Give the case that was running at a crash or a hang the trial's own status; those after it stay LOST.

    In a stream that ended early without either, every case that is missing has failed.
    """
    settled: list[CaseResult] = []
    running = outcome.status.bad
    for case in e.ktap.cases if e.ktap else ():
        if case.status is Status.LOST and running:
            silent = outcome.status is Status.FAIL  # nothing ended the stream but the workload itself
            settled.append(
                replace(case, status=outcome.status, reason=case.reason if silent else title(outcome.reason))
            )
            running = silent
        elif case.status is Status.LOST:
            settled.append(replace(case, reason="not reached" if outcome.status.bad else title(outcome.reason)))
        elif case.status is Status.FAIL and not case.findings:
            settled.append(replace(case, findings=(_nameless(e, case),)))
        else:
            settled.append(case)
    return tuple(settled)


def _nameless(e: Evidence, case: CaseResult) -> Finding:
    """A `not ok` that named no finding still is one."""
    heading = f"{e.workload}: {case.name} failed"
    return Finding(
        oracle="workload", kind="data", title=title(heading), signature=signature("data", heading), text=case.reason
    )
