"""What the kernel prints when something is wrong, as a table: one row per format, one place to add the next.

A row matches the *beginning* of a message, after the printk prefix, and as strictly as the kernel's format string
allows: a program may write any words to the console or to /dev/kmsg, and "BUG" among them accuses nobody. Rows that
have a `proof` also want to see what the kernel prints next (the CPU, the registers, a call trace).

The formats are those of v4.4 to v6.18 on x86, arm, arm64, riscv, powerpc, s390 and mips; where one changed, the row
says since when. Titles are in the words in which the community speaks of such reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rig.splats.faults import REPORTS
from rig.splats.frames import USB_CALLS
from rig.splats.locking import LOCKING
from rig.splats.memory import MEMORY
from rig.splats.rows import Format as Format

#: First match wins.
FORMATS: tuple[Format, ...] = (*MEMORY, *LOCKING, *REPORTS)

#: The line on which any row matches; one match that says no is cheaper than ninety.
ANY_HEAD = re.compile("|".join(re.sub(r"\(\?P<\w+>", "(?:", row.head.pattern) for row in FORMATS))

#: How a head begins, or else what it has in it: searched for in the bytes of a console, before any line is taken apart.
OPENINGS = (
    r"BUG|WARNING: |INFO: |\[ (?:INFO|WARNING|BUG): |UBSAN|[Kk]ernel (?:panic|BUG|stack)|PANIC: |traps: PANIC"
    r"|CFI failure|kmemleak: |unreferenced obj|pagealloc: |Page cache inval|VFS: |IPv6: BUG|unregister_netd|RTNL: "
    r"|trusty: |rcu: INFO|watchdog: |NMI watchdog|CPU\d+: Watchdog|Watchdog det|irq \d+: nobody|do_IRQ: stack"
    r"|Thread overran|Insufficient stack|Unable to handle|CPU \d+ Unable|Unhandled |SError Int|Bad mode in"
)
MARKS: tuple[bytes, ...] = (
    b"[#",  # `general protection fault: 0000 [#1]`, whatever the fault is called
    b": bad p",
    b"d swap ",
    b"CSD lock",
)

#: A panic for one of these reasons only says that something before it was fatal.
ECHO_PANIC = re.compile(
    r"Kernel panic - not syncing: (?:.*panic_on_warn|.*panic_on_taint|Fatal exception|Fatal hardware|Aiee|Oops"
    r"|softlockup: hung|hung_task: |RCU Stall|Hard LOCKUP|.*kasan\.fault=panic|.*kfence\.fault=panic|kmsan\.panic"
    r"|scheduling while atomic|NMI: Not continuing|Machine halted|Asynchronous SError|bad mode|BUG!)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a WARNING or a BUG is about: by the message ahead of its head, or by the place that the head names."""

    kind: str
    title: str
    message: re.Pattern[str] | None = None  # between `cut here` and the head, or just ahead of both
    head: re.Pattern[str] | None = None
    past: re.Pattern[str] | None = None  # functions that are not to blame for this

    def applies(self, message: str, head: str) -> bool:
        """Return whether this is what a report with this head and this message is about."""
        by_message = self.message is not None and self.message.match(message) is not None
        return by_message or (self.head is not None and self.head.search(head) is not None)


def _refinement(
    kind: str, title: str, *, message: str | None = None, head: str | None = None, past: re.Pattern[str] | None = None
) -> Refinement:
    return Refinement(
        kind=kind,
        title=title,
        message=None if message is None else re.compile(message),
        head=None if head is None else re.compile(head),
        past=past,
    )


REFINEMENTS: tuple[Refinement, ...] = (
    _refinement("refcount", "WARNING: refcount bug", message=r"refcount_t: ", head=r" at \S*lib/refcount\.c:"),
    _refinement(
        "list-corruption",
        "BUG: corrupted list",
        message=r"list_(?:add|del)(?: double add| corruption|_entry)",
        head=r" at \S*lib/list_debug\.c:",
    ),
    _refinement(
        "bug",
        "BUG: bad usercopy",
        message=r"usercopy: |Bad or missing usercopy whitelist",
        head=r" at \S*mm/usercopy\.c:",
    ),
    _refinement(
        "warning",
        "WARNING: ODEBUG bug",
        message=r"ODEBUG: ",
        head=r" at \S*lib/debugobjects\.c:\d+ (?:at )?debug_print_object",
    ),
    _refinement("lockdep", "WARNING: locking bug", head=r" at \S*kernel/locking/lockdep\.c:"),
    _refinement("warning", "WARNING: proc registration bug", head=r"WARNING: .*\bproc_register\+"),
    _refinement(
        "warning", "WARNING: kobject bug", head=r"WARNING: .* at \S*lib/kobject\.c:|WARNING: \S*lib/kobject\.c:"
    ),
    _refinement(
        "warning",
        "WARNING: kmalloc bug",
        head=r"WARNING: .*\b_*(?:kmalloc_slab|kvmalloc_node|kmalloc_order|vmalloc_fix_flags)\w*\+",
    ),
    _refinement(
        "warning",
        "WARNING in {function}/usb_submit_urb",
        head=r"WARNING: .*\busb_submit_urb\+",
        past=USB_CALLS,
    ),
    _refinement("warning", "WARNING: zero-size vmalloc", head=r"WARNING: .*\b__vmalloc_node_range\w*\+"),
)

#: Lines just ahead of a head that belong to it.
PREAMBLE = re.compile(
    r"-+\[ cut here \]-+|8<--- cut here ---|(?:BUG|WARNING): .* \[inline\]$|page: ?\S*|page dumped because|raw: "
    r"|head: |aops:|flags: |memcg:|anon flags"
    r"|ksm flags|list_(?:add|del)|refcount_t: |usercopy: |ODEBUG: |={20,}$|pages's memcg|kernel tried to execute"
    r"|Bad or missing usercopy|proc_dir_entry '|detected buffer overflow in|skbuff: |kasan: (?:CONFIG_KASAN|GPF could)"
)
CUT_HERE = re.compile(r"-+\[ cut here \]-+|8<--- cut here ---")

#: After one of these nothing of the report follows but a panic or the registers once more.
LAST_LINE = re.compile(r"---\[ end |={20,}$|Kernel Offset: |Rebooting in ")
#: What may still follow the call trace: registers, the modules, the end marker, a second trace.
AFTERMATH = re.compile(
    r"\s*(?:$|\? |\(?\[<|[\w.$]+\+0x|.* \[inline\]$|</?\w+>|\[[0-9a-f]{8,16}\] |RIP|[ER][A-Z][A-Z0-9]:|R\d\d:|CR\d"
    r"|[CDEFG]S:|EFLAGS|PKRU|DR\d:|Code: |Modules linked|CPU: |Hardware name|Kernel Offset|---\[ end|Rebooting|note: "
    r"|Call [Tt]race|irq event stamp|(?:hard|soft)irqs last|x\d+ ?: |(?:sp|lr|ra|gp|tp|pc|epc|[ast]\d+) ?: |pstate"
    r"|status: |Stack:|Disabling lock|Kernel panic|Dumping ftrace|\(ftrace buffer|\w+ from \w|GPR\d\d: |NIP |LR |Krnl"
    r"|--- interrupt|Last Breaking)"
)
#: The end of the first call trace; later ones tell of other tasks, or of who allocated the object.
TRACE_ENDS = re.compile(
    r"</TASK>|Modules linked in|Allocated|Freed|Object at |Last potentially|The buggy address|---\[ end"
    r"|Showing all locks|other info that|Uninit was|Local variable|origin description|Memory state around"
    r"|value changed|race at|(?:write|read) to 0x|Reported by|kfence-#\d+|=====+|Sending NMI"
    r"|NMI backtrace for|RIP: 00[23]3:"
)
