"""Reports of lockdep, of the hang detectors and of the checks for atomic context, as rows of the table of formats."""

from __future__ import annotations

import re

from rig.splats.rows import FUNCTION, TRACE, Format, row

_LOCKDEP_PROOF = re.compile(
    r"-{20,}|.* is trying to |.* is freeing|.* usage!|stack backtrace:|CPU: \d+ |.*but task is|the code is fine"
)
#: `INFO: ` and brackets until v4.12, `WARNING: ` or `BUG: ` since.
_LEVEL = r"(?:\[ )?(?:INFO|WARNING|BUG): "

_SPLATS = tuple(
    row("lockdep", _LEVEL + head, title, blame="lock", announced=True, proof=_LOCKDEP_PROOF)
    for head, title in (
        (r"possible circular locking dependency detected", "possible deadlock"),
        (r"possible recursive locking detected", "possible deadlock"),
        (r"possible irq lock inversion dependency detected", "possible deadlock"),
        (r"\w+-safe -> \w+-unsafe lock order detected", "possible deadlock"),
        (r"inconsistent lock state", "inconsistent lock state"),
        (r"suspicious RCU usage", "WARNING: suspicious RCU usage"),
        (r"held lock freed!", "WARNING: held lock freed"),
        (r"Nested lock was not taken", "WARNING: nested lock was not taken"),
        (r".{1,16}/\d+ still has locks held!", "WARNING: still has locks held"),
        (r"Invalid wait context", "WARNING: locking bug"),
    )
)
LOCKDEP = (
    *_SPLATS,
    row(
        "lockdep",
        _LEVEL + r"trying to register non-static key\.",
        "INFO: trying to register non-static key",
        blame="lock",
        proof=_LOCKDEP_PROOF,
    ),
    row(
        "lockdep",
        _LEVEL + r"lock held (?:when returning to user space|at task exit time)",
        "WARNING: lock held when returning to user space",
        blame="lock",
        trace=False,
        proof=_LOCKDEP_PROOF,
    ),
    row(
        "lockdep",
        r"(?:\[ )?(?P<level>BUG|WARNING): bad (?P<what>unlock balance|contention) detected!",
        "{level}: bad {what}",
        blame="lock",
        announced=True,
        proof=_LOCKDEP_PROOF,
    ),
    row(
        "lockdep",
        r"BUG: looking up invalid subclass: \d+",
        "BUG: looking up invalid subclass",
        proof=re.compile(r"turning off the locking|" + TRACE.pattern),
    ),
    row(
        "lockdep",
        r"WARNING: chain_key collision",
        "WARNING: chain_key collision",
        announced=True,
        proof=_LOCKDEP_PROOF,
    ),
    row(
        "lockdep",
        r"BUG: key \S+ (?:not in \.data|has not been registered)!",
        "BUG: key has not been registered",
        trace=False,
    ),
    row(
        "lockdep",
        r"BUG: (?P<what>MAX_\w+) too low!",
        "BUG: {what} too low!",
        place=False,
        proof=re.compile(r"turning off the locking|" + TRACE.pattern),
    ),
)

STALLS = (
    row(
        "rcu-stall",
        r"(?:rcu: )?INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls? on (?:CPU|tasks)",
        "INFO: rcu detected stall",
        blame="stall",
        joins=True,  # the stalled CPU says so as well
        any_caller=True,
        whole=True,
        proof=re.compile(
            r".*(?:ticks this GP|jiffies|NMI backtrace|blocking rcu_node|Call [Tt]race:|Tasks blocked|nvcsw: )"
        ),
    ),
    row(
        "soft-lockup",
        r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s! \[",
        "BUG: soft lockup",
        blame="stall",
    ),
    # `CPU1: ` in front of it since v6.5
    row(
        "hard-lockup",
        r"(?:(?:NMI )?watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu ?\d+"
        r"|watchdog: CPU \d+ (?:self-)?detected hard LOCKUP\b",  # powerpc
        "hard lockup",
        blame="stall",
    ),
    row(
        "hung-task",
        r"INFO: task .{1,64}:\d+ (?:<\w+> )?blocked (?:in I/O wait )?for more than \d+ seconds\.",
        "INFO: task hung",
        blame="waiter",
        proof=re.compile(r" +(?:Not tainted|Tainted)|task:|Call [Tt]race:|\"echo 0"),
    ),
    row(
        "hung-task",
        r"INFO: task .{1,64}:\d+ can't die for more than \d+ seconds\.",
        "INFO: task can't die",
        blame="waiter",
        proof=re.compile(r" +(?:Not tainted|Tainted)|task:|Call [Tt]race:|\"echo 0"),
    ),
    row(
        "other",
        r"(?:smp: )?csd: Detected non-responsive CSD lock \(#\d+\) on CPU#\d+",
        "csd: non-responsive CSD lock",
        place=False,
        proof=None,
    ),
    row("other", r"BUG: workqueue lockup - pool cpus=", "BUG: workqueue lockup", place=False, proof=None),
)

ATOMIC = (
    row(
        "bug",
        r"BUG: sleeping function called from invalid context at \S+:\d+",
        "BUG: sleeping function called from invalid context",
        proof=re.compile(r"in_atomic\(\): |" + TRACE.pattern),
    ),
    row(
        "bug",
        r"BUG: scheduling (?:while atomic: .{1,64}/\d+/0x[0-9a-f]+|in a non-blocking section: .{1,64}/\d+/)",
        "BUG: scheduling while atomic",
        blame="waiter",
    ),
    # PREEMPT_RT and cant_sleep(), cant_migrate()
    row("bug", r"BUG: (?P<what>assuming (?:atomic|non migratable) context) at \S+:\d+", "BUG: {what}"),
    row(
        "bug",
        r"BUG: using (?P<what>smp_processor_id|__?this_cpu_\w+)\(\) in preemptible \[",
        "BUG: using {what}() in preemptible code",
    ),
    row(
        "bug",
        r"BUG: (?P<what>(?:spin|rw)lock [\w ]{1,40}?) on (?:UP on )?CPU#\d+, ",
        "BUG: {what}",
        proof=re.compile(r" lock: |" + TRACE.pattern),
    ),
    row(
        "bug",
        r"BUG: workqueue leaked (?P<what>lock or atomic|atomic, lock or RCU): ",
        "BUG: workqueue leaked {what}",
        trace=False,
        proof=re.compile(r"\s+(?:last function: |preempt=0x)|" + TRACE.pattern),
        more=re.compile(rf"\s+(?:last function: |preempt=0x.* workfn=){FUNCTION}"),
    ),
    row("other", r"irq \d+: nobody cared \(try booting", "irq: nobody cared", place=False),
)

LOCKING: tuple[Format, ...] = (*LOCKDEP, *STALLS, *ATOMIC)
