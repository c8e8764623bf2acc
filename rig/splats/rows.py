"""What one row of the table of report formats says, and the patterns that rows share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: What follows every report that has a call trace; `CPU: 0 UID: 0 PID: 1` since v6.12, `CPU: 0 PID: 1` before.
TRACE = re.compile(
    r"\s*(?:CPU: ?\d+ |Call [Tt]race:|Backtrace:|RIP: |RIP  \[|E?IP: |EIP is at |PC is at |NIP:? |Hardware name: "
    r"|Modules linked in|Oops[:\s]|Pid: \d+, |PID: \d+|task:\S+ +state:|(?:pc|lr|epc) +: |Stack:|Workqueue: "
    r"|Mem abort info:|(?:#PF|PGD|IP): |\*pde? ?= |pgd = |Internal error: |Krnl PSW : |Failing address: |Faulting instr"
    r"|stack backtrace:|[a-z][a-z ()-]{2,60}: \w+ (?:ilc:\d )?\[#\d+\])"
)

#: What follows a panic where nothing tells the kernel's lines from those of programs.
STOPPED = re.compile(
    TRACE.pattern + r"|---\[ end Kernel panic|Kernel Offset: |Rebooting in \d+|CPU\d+: stopping|Dumping ftrace"
    r"|SMP: (?:failed to )?stop|Press any key|Memory Limit: |Starting crashdump"
)

FUNCTION = r"(?P<function>[A-Za-z_][\w.$]*)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?"

#: Whom a report blames: the first frame that is no messenger; the first that does not only wait as well; who was called
#: to do the work in which a CPU is stuck; the place where a lock is taken; who calls itself until the stack is full;
#: whomever the head names, be it a messenger; the function that found out, unless checking is all that it is for.
Blame = Literal["first", "waiter", "stall", "lock", "recursion", "named", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of report: how it begins, and what to make of it."""

    kind: str
    head: re.Pattern[str]
    title: str  # `{name}`: a group of `head`, or of `more`
    place: bool = True  # " in FUNCTION" belongs to title and signature
    titled: bool = True  # to the title too: where a function tells little, the community leaves it out
    fatal: bool = False
    blame: Blame = "first"
    trace: bool = True  # a report without a call trace has been cut short
    announced: bool = False  # `stack backtrace:` stands ahead of the call trace
    bare: bool = False  # the frames follow the head without a `Call Trace:`
    joins: bool = False  # continues a report that has no registers or call trace yet
    panic: bool = False
    any_caller: bool = False  # other CPUs print parts of it, each with a call trace of its own
    whole: bool = False  # more follows the call trace, up to a last line of its own
    proof: re.Pattern[str] | None = TRACE
    more: re.Pattern[str] | None = None  # later lines that have further groups for the title


def row(
    kind: str,
    head: str,
    title: str,
    *,
    place: bool = True,
    titled: bool = True,
    fatal: bool = False,
    blame: Blame = "first",
    trace: bool | None = None,
    announced: bool = False,
    bare: bool = False,
    joins: bool = False,
    any_caller: bool = False,
    whole: bool = False,
    proof: re.Pattern[str] | None = TRACE,
    more: re.Pattern[str] | None = None,
) -> Format:
    """Return a row; what has a place has a call trace unless `trace` says otherwise."""
    return Format(
        kind=kind,
        head=re.compile(head),
        title=title,
        place=place,
        titled=titled,
        fatal=fatal,
        blame=blame,
        trace=place if trace is None else trace,
        announced=announced,
        bare=bare,
        joins=joins,
        any_caller=any_caller,
        whole=whole,
        proof=proof,
        more=more,
    )


def panic(kind: str, reason: str, title: str, *, place: bool = False, blame: Blame = "first") -> Format:
    """Return the row of a panic for `reason`. A line of the kernel needs no proof: the machine has stopped."""
    head = re.compile(r"Kernel panic - not syncing: " + reason)
    return Format(kind=kind, head=head, title=title, place=place, blame=blame, fatal=True, panic=True, proof=STOPPED)
