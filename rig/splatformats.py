"""What the kernel prints when something is wrong, as a table: one row per format, one place to add the next.

A row matches the *beginning* of a message, after the printk prefix, and as strictly as the kernel's format string
allows: a program may write any words to the console or to /dev/kmsg, and "BUG" among them accuses nobody. Rows that
have a `proof` also want to see what the kernel prints next (the CPU, the registers, a call trace).

The formats are those of v4.4 to v6.12; where one changed, the row says since when.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What follows every report that has a call trace; `CPU: 0 UID: 0 PID: 1` since v6.12, `CPU: 0 PID: 1` before.
_TRACE = re.compile(
    r"\s*(?:CPU: \d+ |Call [Tt]race:|RIP: |RIP  \[|EIP: |Hardware name: |Modules linked in|Oops[:\s]|PID: \d+"
    r"|task:\S+ +state:|(?:pc|lr|epc) : |Stack:|Workqueue: |Mem abort info:|(?:#PF|PGD|IP): |stack backtrace:"
    r"|(?:Internal error|invalid opcode|general protection fault)\b.* \[#\d+\])"
)
_KASAN_PROOF = re.compile(r"(?:Read|Write|Free|Access|Invalid)\b.* (?:addr|of size)|CPU: \d+ |Call [Tt]race:")
_LOCKDEP_PROOF = re.compile(r"-{20,}|.* is trying to |.* is freeing|.* usage!|stack backtrace:|CPU: \d+ |.*but task is")

_FUNCTION = r"(?P<function>[A-Za-z_][\w.$]*)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?"
_ACCESS = re.compile(r"(?P<access>Read|Write) (?:of size|at|in)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of report: how it begins, and what to make of it."""

    kind: str
    head: re.Pattern[str]
    title: str  # `{name}`: a group of `head`, or of `more`
    place: bool = True  # " in FUNCTION" belongs to title and signature
    fatal: bool = False
    waiting: bool = False  # a stall: scheduler and lock frames are where it waits, not what is wrong
    joins: bool = False  # continues a report that has no registers or call trace yet
    panic: bool = False
    any_caller: bool = False  # other CPUs print parts of it
    whole: bool = False  # more follows the call trace, up to a last line of its own
    proof: re.Pattern[str] | None = _TRACE
    more: re.Pattern[str] | None = None  # a later line that has further groups for the title


def _row(
    kind: str,
    head: str,
    title: str,
    *,
    place: bool = True,
    fatal: bool = False,
    waiting: bool = False,
    joins: bool = False,
    any_caller: bool = False,
    whole: bool = False,
    proof: re.Pattern[str] | None = _TRACE,
    more: re.Pattern[str] | None = None,
) -> Format:
    return Format(
        kind=kind,
        head=re.compile(head),
        title=title,
        place=place,
        fatal=fatal,
        waiting=waiting,
        joins=joins,
        any_caller=any_caller,
        whole=whole,
        proof=proof,
        more=more,
    )


def _panic(kind: str, reason: str, title: str) -> Format:
    head = re.compile(r"Kernel panic - not syncing: " + reason)
    return Format(kind=kind, head=head, title=title, place=False, fatal=True, panic=True, proof=None)


_WARNING_AT = r"WARNING: (?:CPU: \d+ PID: \d+ )?at "

_SANITIZERS = (
    _row(
        "kasan",
        rf"BUG: KASAN: (?P<what>[\w-]+(?: or [\w-]+)?) in {_FUNCTION}",
        "KASAN: {what} {access}",
        fatal=True,
        whole=True,
        proof=_KASAN_PROOF,
        more=_ACCESS,
    ),
    _row("kmsan", rf"BUG: KMSAN: (?P<what>[\w-]+) in {_FUNCTION}", "KMSAN: {what}", whole=True),
    _row(
        "kcsan",
        r"BUG: KCSAN: data-race in (?P<one>[\w.]+) / (?P<two>[\w.]+)",
        "KCSAN: data-race in {pair}",
        place=False,
        whole=True,
    ),
    _row("kcsan", rf"BUG: KCSAN: (?P<what>[\w-]+(?:: \w+)?) in {_FUNCTION}", "KCSAN: {what}", whole=True),
    _row("other", rf"BUG: KFENCE: (?P<what>[\w -]+?) in {_FUNCTION}", "KFENCE: {what}", fatal=True, whole=True),
    _row("ubsan", r"UBSAN: (?P<what>[\w-]+) in \S+\.[chS]:\d+", "UBSAN: {what}"),
    _row("ubsan", r"UBSAN: Undefined behaviour in \S+\.[chS]:\d+", "UBSAN: undefined behaviour"),  # until v5.7
    _row("leak", r"kmemleak: \d+ new suspected memory leaks", "memory leak", place=False, proof=None),
    _row("leak", r"BUG: memory leak$", "memory leak", proof=re.compile(r"unreferenced object 0x")),
)

_LOCKING = tuple(
    _row("lockdep", rf"(?:WARNING: |\[ INFO: |INFO: |\[ BUG: ){head}", title, proof=_LOCKDEP_PROOF)
    for head, title in (
        (r"possible circular locking dependency detected", "possible deadlock"),
        (r"possible recursive locking detected", "possible deadlock"),
        (r"possible irq lock inversion dependency detected", "possible deadlock"),
        (r"\w+-safe -> \w+-unsafe lock order detected", "possible deadlock"),
        (r"inconsistent lock state", "inconsistent lock state"),
        (r"suspicious RCU usage", "suspicious RCU usage"),
        (r"bad unlock balance detected", "bad unlock balance"),
        (r"bad contention detected", "bad contention"),
        (r"held lock freed", "held lock freed"),
        (r"Nested lock was not taken", "nested lock was not taken"),
        (r"lock held when returning to user space", "lock held when returning to user space"),
        (r".{1,16}/\d+ still has locks held", "locks still held"),
        (r"Invalid wait context", "invalid wait context"),
        (r"trying to register non-static key", "trying to register non-static key"),
    )
)

_STALLS = (
    _row(
        "rcu-stall",
        r"(?:rcu: )?INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls? on CPU",
        "INFO: rcu detected stall",
        waiting=True,
        any_caller=True,
        whole=True,
        proof=re.compile(r".*(?:ticks this GP|jiffies|NMI backtrace|blocking rcu_node|Call [Tt]race:|Tasks blocked)"),
    ),
    _row(
        "soft-lockup",
        r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s!",
        "BUG: soft lockup",
        waiting=True,
    ),
    _row(
        "hard-lockup",
        r"(?:(?:NMI )?watchdog: )?Watchdog detected hard LOCKUP on cpu ?\d+",
        "hard lockup",
        waiting=True,
    ),
    _row(
        "hung-task",
        r"INFO: task .{1,64}:\d+ (?:<\w+> )?blocked (?:in I/O wait )?for more than \d+ seconds\.",
        "INFO: task hung",
        waiting=True,
        proof=re.compile(r" +(?:Not tainted|Tainted)|task:|Call [Tt]race:|\"echo 0"),
    ),
    _row(
        "other",
        r"BUG: workqueue lockup - pool",
        "BUG: workqueue lockup",
        place=False,
        proof=re.compile(r"Showing busy"),
    ),
)

_MEMORY = (
    _row(
        "bad-page",
        r"BUG: Bad page (?P<what>state|map|cache) in process .{1,64}  \w+:",
        "BUG: Bad page {what}",
        proof=re.compile(r"page:|addr:|" + _TRACE.pattern),
    ),
    # page_poison=1: somebody wrote to a page after it was freed, or the memory is broken (mm/page_poison.c)
    _row(
        "bad-page",
        r"pagealloc: (?P<what>memory corruption|single bit error)$",
        "page poison: {what}",
        proof=re.compile(r"[0-9a-f]{8,}: |" + _TRACE.pattern),
    ),
    _row(
        "bad-rss",
        r"BUG: Bad rss-counter state mm:\S+ (?:type|idx):(?P<what>\w+) val:-?\d+",
        "BUG: Bad rss-counter state {what}",
        place=False,
        proof=None,
    ),
    _row(
        "bad-rss",
        r"BUG: non-zero (?P<what>\w+) on freeing mm: -?\d+",
        "BUG: non-zero {what} on freeing mm",
        place=False,
        proof=None,
    ),
    _row(
        "other",
        r"BUG (?P<cache>\S+) \((?:Not tainted|Tainted)[^)]*\): (?P<what>[^\n.]{1,60})",
        "SLUB: {what} in {cache}",
        place=False,
        proof=re.compile(r"-{20,}|(?:Slab|Object|Allocated|Freed|INFO:|CPU: \d+) ?"),
    ),
    _row(
        "other",
        r"Page cache invalidation failure on direct I/O\.",
        "Page cache invalidation failure",
        place=False,
        proof=re.compile(r"File: "),
    ),
)

_ATOMIC = (
    _row(
        "atomic-sleep",
        r"BUG: sleeping function called from invalid context at \S+:\d+",
        "BUG: sleeping function called from invalid context",
        proof=re.compile(r"in_atomic\(\): |" + _TRACE.pattern),
    ),
    _row("atomic-sleep", r"BUG: scheduling while atomic: .{1,64}/\d+/0x[0-9a-f]+", "BUG: scheduling while atomic"),
    _row(
        "other",
        r"BUG: using __?this_cpu_\w+\(\) in preemptible|BUG: using smp_processor_id\(\) in preemptible",
        "BUG: per-CPU access in preemptible code",
    ),
    _row(
        "other",
        r"BUG: (?P<what>(?:spin|rw)lock [\w ]{1,40}?) on CPU#\d+, ",
        "BUG: {what}",
        proof=re.compile(r" lock: |" + _TRACE.pattern),
    ),
    _row(
        "other",
        r"BUG: workqueue leaked (?:atomic|lock)",
        "BUG: workqueue leaked lock or atomic",
        proof=re.compile(r"\s+last function: |" + _TRACE.pattern),
    ),
    _row("other", r"irq \d+: nobody cared \(try booting", "irq: nobody cared", place=False),
)

_FAULTS = (
    _row("stack", r"BUG: (?:\S+ )?stack guard page was hit at ", "BUG: stack guard page was hit", fatal=True),
    _row("stack", r"(?:traps: )?PANIC: double fault", "double fault", fatal=True),
    _row(
        "stack", r"Insufficient stack space to handle exception!", "kernel stack overflow", fatal=True
    ),  # arm64, riscv
    # Before v5.1 x86 said `BUG: unable to handle kernel NULL pointer dereference at`; arm64 and riscv have no `BUG: `.
    _row(
        "page-fault",
        r"BUG: kernel NULL pointer dereference, address: ",
        "BUG: unable to handle kernel NULL pointer dereference",
        fatal=True,
    ),
    _row(
        "page-fault",
        r"(?:BUG: u|U)nable to handle kernel NULL pointer dereference at ",
        "BUG: unable to handle kernel NULL pointer dereference",
        fatal=True,
    ),
    _row(
        "page-fault",
        r"BUG: unable to handle page fault for address: ",
        "BUG: unable to handle kernel paging request",
        fatal=True,
    ),
    _row(
        "page-fault",
        r"(?:BUG: u|U)nable to handle kernel (?P<what>paging request|access to user memory\S*|execut\w+ .{1,40}?|"
        r"read from unreadable memory|write to read-only memory)(?: outside uaccess routines)? at ",
        "BUG: unable to handle kernel {what}",
        fatal=True,
    ),
    _row("page-table-check", r"kernel BUG at \S*mm/page_table_check\.c:\d+!", "kernel BUG", fatal=True),
    _row("bug", r"kernel BUG at \S+:\d+!", "kernel BUG", fatal=True),
    # `Oops: ` in front of the exception's name since v6.10.
    _row(
        "gpf", r"(?:Oops: )?general protection fault\b.* \[#\d+\]", "general protection fault", fatal=True, joins=True
    ),
    _row("divide", r"(?:Oops: )?divide error: \w+ \[#\d+\]", "divide error", fatal=True, joins=True),
    _row("stack", r"(?:Oops: )?stack segment: \w+ \[#\d+\]", "stack segment fault", fatal=True, joins=True),
    _row(
        "oops",
        r"(?:Oops: )?(?P<what>int3|[a-z][a-z -]{2,40}): \w+ \[#\d+\]",
        "{what}",
        fatal=True,
        joins=True,
    ),
    _row(
        "oops",
        r"Oops[: -].{0,80} ?\[#\d+\]|Oops \[#\d+\]|Internal error: .{1,80} \[#\d+\]|Kernel BUG \[#\d+\]",
        "Oops",
        fatal=True,
        joins=True,
    ),
)

_WARNINGS = (
    _row("warning", _WARNING_AT + rf"(?P<where>\S+:\d+) {_FUNCTION}", "WARNING"),
    _row("warning", _WARNING_AT + rf"{_FUNCTION}$", "WARNING"),  # without DEBUG_BUGVERBOSE
    # v6.18 and later name the task: `WARNING: mm/filemap.c:12 at foo+0x1/0x2, CPU#0: comm/12`
    _row("warning", rf"WARNING: (?P<where>\S+:\d+) at {_FUNCTION}, CPU#\d+: ", "WARNING"),
)

_PANICS = (
    _panic("boot-failure", r"VFS: Unable to mount root fs", "VFS: Unable to mount root fs"),
    _panic("boot-failure", r"No working init found\.", "No working init found"),
    _panic("boot-failure", r"Requested init \S+ failed", "Requested init failed"),
    _panic(
        "stack",
        r"stack-protector: Kernel stack is corrupted in: " + _FUNCTION,
        "kernel stack is corrupted in {function}",
    ),
    _panic("stack", r"corrupted stack end detected inside scheduler", "corrupted stack end detected inside scheduler"),
    _panic("stack", r"(?:K|k)ernel stack overflow", "kernel stack overflow"),
    _panic("panic", r"(?P<what>.{0,200})", "kernel panic: {what}"),
)

#: First match wins.
FORMATS: tuple[Format, ...] = (
    *_SANITIZERS,
    *_LOCKING,
    *_STALLS,
    *_MEMORY,
    *_ATOMIC,
    *_FAULTS,
    *_WARNINGS,
    *_PANICS,
)

#: The line on which any row matches; one match that says no is cheaper than sixty.
ANY_HEAD = re.compile("|".join(re.sub(r"\(\?P<\w+>", "(?:", row.head.pattern) for row in FORMATS))

#: Every head has one of these in it: what is searched for in the bytes of a console, before any line is looked at.
TRIGGERS: tuple[bytes, ...] = (
    b"BUG",
    b"WARNING: ",
    b"INFO: ",
    b" [#",
    b"UBSAN: ",
    b"Kernel panic",
    b"nable to handle",
    b"hard LOCKUP",
    b"kmemleak: ",
    b"PANIC: ",
    b"nobody cared",
    b"Page cache inval",
    b"Insufficient stack",
    b"pagealloc: ",
)

#: A panic for one of these reasons only says that something before it was fatal.
ECHO_PANIC = re.compile(
    r"Kernel panic - not syncing: (?:.*panic_on_warn|Fatal exception|Fatal hardware|Aiee|Oops|softlockup: hung"
    r"|hung_task: |RCU Stall|Hard LOCKUP|.*kasan\.fault=panic|NMI: Not continuing)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a WARNING or a BUG is about, by the message between `cut here` and its head, or just ahead of both."""

    kind: str
    message: re.Pattern[str]
    title: str


REFINEMENTS: tuple[Refinement, ...] = (
    Refinement(kind="refcount", message=re.compile(r"refcount_t: (?P<what>[\w ,;-]+)"), title="refcount_t: {what}"),
    Refinement(
        kind="list-corruption",
        message=re.compile(r"(?P<what>list_(?:add|del)(?: double add| corruption))"),
        title="{what}",
    ),
    Refinement(kind="warning", message=re.compile(r"ODEBUG: (?P<what>\w+ \w+)"), title="ODEBUG: {what}"),
)

#: Lines just ahead of a head that belong to it.
PREAMBLE = re.compile(
    r"-+\[ cut here \]-+|page: ?\S*|page dumped because|raw: |head: |aops:|flags: |memcg:|anon flags|ksm flags"
    r"|list_(?:add|del)|refcount_t: |usercopy: |ODEBUG: |={20,}$|pages's memcg|kernel tried to execute"
)
CUT_HERE = re.compile(r"-+\[ cut here \]-+")

#: After one of these nothing of the report follows but a panic or the registers once more.
LAST_LINE = re.compile(r"---\[ end |={20,}$|Kernel Offset: |Rebooting in ")
#: What may still follow the call trace: registers, the modules, the end marker, a second trace.
AFTERMATH = re.compile(
    r"\s*(?:$|\? |\[<|[\w.$]+\+0x|.* \[inline\]$|</?\w+>|RIP|[ER][A-Z][A-Z0-9]:|R\d\d:|CR\d|[CDEFG]S:|EFLAGS|PKRU|DR\d:"
    r"|Code: |Modules linked|CPU: |Hardware name|Kernel Offset|---\[ end|Rebooting|note: |Call [Tt]race|irq event stamp"
    r"|(?:hard|soft)irqs last|x\d+ ?: |(?:sp|lr|ra|gp|tp|pc|epc|[ast]\d+) ?: |pstate|status: |Stack:|Disabling lock"
    r"|Kernel panic)"
)
#: The end of the first call trace; later ones tell of other tasks, or of who allocated the object.
TRACE_ENDS = re.compile(
    r"</TASK>|Modules linked in|Allocated by|Freed by|Last potentially|The buggy address|---\[ end|Showing all locks"
    r"|other info that|Uninit was|Memory state around|value changed|race at|write to 0x|read to 0x|Reported by|=====+"
)
