"""Faults, BUG, WARNING, panics and what else the kernel says of itself, as rows of the table of formats."""

from __future__ import annotations

from rig.splats.rows import FUNCTION, Format, panic, row

#: What an exception's own line ends with: `[#1]`, its number since the boot; s390 has the instruction's length as well.
_DIE = r": \w+ (?:ilc:\d )?\[#\d+\]"
_NULL = "BUG: unable to handle kernel NULL pointer dereference"
_PAGING = "BUG: unable to handle kernel paging request"

FAULTS = (
    row(
        "stack",
        r"BUG: (?:\S+ )?stack guard page was hit at ",
        "BUG: stack guard page was hit",
        fatal=True,
        blame="recursion",
    ),
    row("stack", r"(?:traps: )?PANIC: double fault", "PANIC: double fault", fatal=True),
    # arm64 and riscv
    row(
        "stack",
        r"Insufficient stack space to handle exception!",
        "kernel stack overflow",
        fatal=True,
        blame="recursion",
    ),
    # s390; x86-32 and others with DEBUG_STACKOVERFLOW
    row(
        "stack",
        r"Kernel stack overflow\.$|do_IRQ: stack overflow: |Thread overran stack, or stack corrupted",
        "kernel stack overflow",
        fatal=True,
        blame="recursion",
    ),
    # v5.1 and later on x86, v5.4 and later on powerpc
    row(
        "page-fault",
        r"BUG: [kK]ernel NULL pointer dereference(?:, address: | on (?:read|write|execute)? ?at )",
        _NULL,
        fatal=True,
    ),
    # x86 until v5.0 with `BUG: `; arm, arm64, riscv and others without; mips and loongarch name the CPU first
    row("page-fault", r"(?:BUG: u|(?:CPU \d+ )?U)nable to handle kernel NULL pointer dereference\b", _NULL, fatal=True),
    row(
        "page-fault",
        r"BUG: unable to handle page fault for address: "
        r"|BUG: Unable to handle (?:kernel (?:data access|instruction fetch|unaligned access)|unknown paging fault)\b"
        r"|(?:BUG: u|(?:CPU \d+ )?U)nable to handle kernel paging request\b"
        r"|Unable to handle kernel pointer dereference in virtual kernel address space",
        _PAGING,
        fatal=True,
    ),
    row(
        "page-fault",
        r"Unable to handle kernel (?P<what>access to user memory|execut\w+ .{1,40}?|read from unreadable memory"
        r"|write to read-only memory)(?: (?:outside|without) uaccess routines)? at ",
        "BUG: unable to handle kernel {what}",
        fatal=True,
    ),
    # arm: an abort that is no page fault
    row(
        "page-fault",
        r"Unhandled (?P<what>fault|prefetch abort): [\w ()-]{3,60}? \(0x[0-9a-f]+\) at 0x",
        "Unhandled {what}",
        fatal=True,
    ),
    row("bug", r"kernel BUG at \S+:\d+!", "kernel BUG", fatal=True, blame="place"),
    # `%p` until v4.13
    row(
        "bug",
        rf"Kernel BUG at (?:[0-9a-f]{{8,16}}|{FUNCTION}) \[verbose debug info unavailable\]",
        "kernel BUG",
        fatal=True,
        blame="place",
    ),
    # mips, which writes no word between an exception's name and its number
    row("bug", r"Kernel bug detected\[#\d+\]:", "kernel BUG", fatal=True, joins=True),
    row(
        "oops",
        r"(?P<what>Oops|Unhandled kernel unaligned access|(?:Break|Reserved) instruction in kernel code)\[#\d+\]:",
        "{what}",
        fatal=True,
        joins=True,
    ),
    # architectures without a BUG() of their own
    row("bug", r"BUG: failure at \S+:\d+/(?P<function>\w+)\(\)!", "kernel BUG", fatal=True),
    row("bug", rf"CFI failure at {FUNCTION} ", "CFI failure", fatal=True),
    # `Oops: ` in front of the exception's name since v6.10
    row(
        "gpf",
        r"(?:Oops: )?general protection fault\b.*: \w+ \[#\d+\]",
        "general protection fault",
        fatal=True,
        joins=True,
    ),
    row("divide", r"(?:Oops: )?divide error" + _DIE, "divide error", fatal=True, joins=True),
    row("stack", r"(?:Oops: )?stack segment" + _DIE, "stack segment fault", fatal=True, joins=True),
    row(
        "stack",
        r"(?:Oops: )?(?:(?:\w+ )?stack guard page|kernel stack overflow \([a-z -]+\))" + _DIE,
        "BUG: stack guard page was hit",
        fatal=True,
        blame="recursion",
        joins=True,
    ),
    row("ubsan", r"Internal error: UBSAN: (?P<what>[\w -]+)" + _DIE, "UBSAN: {what}", fatal=True, joins=True),
    row("oops", r"Internal error: .{1,80} \[#\d+\]", "Internal error", fatal=True, joins=True),
    row(
        "oops",
        r"(?:Oops|[kK]ernel BUG)[: -].{0,80} ?\[#\d+\]|Oops \[#\d+\]|Kernel BUG \[#\d+\]",
        "Oops",
        fatal=True,
        joins=True,
    ),
    row(
        "oops",
        r"(?:Oops: )?(?P<what>int3|Bad pagetable|(?:[a-z]|Low|Unknown)[a-z# NM-]{2,60})" + _DIE,
        "{what}",
        fatal=True,
        joins=True,
    ),
    row("oops", r"PANIC: early exception 0x[0-9a-f]+ IP ", "PANIC: early exception", fatal=True),
    row("oops", r"SError Interrupt on CPU\d+, |Bad mode in .{3,40} handler detected", "SError interrupt", fatal=True),
)

_WARNING_AT = r"WARNING: (?:CPU: \d+ PID: \d+ )?at "

WARNINGS = (
    row("warning", _WARNING_AT + rf"(?P<where>\S+:\d+) {FUNCTION}", "WARNING", blame="place"),
    # s390, powerpc and arm until v4.12
    row("warning", _WARNING_AT + r"(?P<where>\S+\.[chS]:\d+)$", "WARNING", blame="place"),
    # without DEBUG_BUGVERBOSE
    row("warning", _WARNING_AT + rf"{FUNCTION}(?:\(\))?$", "WARNING", blame="place"),
    # v6.18 and later name the task: `WARNING: mm/filemap.c:12 at foo+0x1/0x2, CPU#0: comm/12`
    row("warning", rf"WARNING: (?P<where>\S+:\d+) at {FUNCTION}(?: \S+:\d+)?, CPU#\d+: ", "WARNING", blame="place"),
    row("warning", rf"WARNING: at {FUNCTION}, CPU#\d+: ", "WARNING", blame="place"),
    # the unwinder's own
    row(
        "warning",
        r"WARNING: kernel stack (?P<what>regs|frame pointer) at \S+ in .{1,64}:\d+ has bad (?P<value>(?:'\w+' )?)value",
        "WARNING: kernel stack {what} has bad {value}value",
        place=False,
        proof=None,
    ),
    row(
        "warning",
        rf"WARNING: (?P<what>can't access registers|stack going in the wrong direction\?) at {FUNCTION}",
        "WARNING: {what} at {function}",
        trace=False,
        proof=None,
    ),
)

PANICS = (
    panic("boot-failure", r"VFS: Unable to mount root fs", "VFS: Unable to mount root fs"),
    panic("boot-failure", r"No (?:working )?init found\.", "No working init found"),
    panic("boot-failure", r"Requested init \S+ failed", "Requested init failed"),
    # `%p` until v4.9
    panic(
        "stack",
        r"stack-protector: Kernel stack is corrupted in: (?:[0-9a-f]{8,16}$|" + FUNCTION + ")",
        "kernel panic: stack is corrupted",
        place=True,
        blame="named",
    ),
    panic(
        "stack",
        r"corrupted stack end detected inside scheduler",
        "kernel panic: corrupted stack end",
        place=True,
        blame="waiter",
    ),
    panic("stack", r"(?:K|k)ernel stack overflow", "kernel stack overflow", blame="recursion"),
    panic("panic", r"Attempted to kill (?P<what>init|the idle task)!", "kernel panic: Attempted to kill {what}!"),
    panic("panic", r"Fatal exception\b", "kernel panic: Fatal exception"),
    panic("panic", r"(?P<what>Couldn't open N_TTY ldisc)", "kernel panic: {what}"),
    panic("panic", r"(?P<what>panic_on_warn|.{0,40}: panic_on_warn) set", "kernel panic: panic_on_warn set"),
    panic("panic", r"(?P<what>.{0,200})", "kernel panic: {what}"),
)

OTHERS = (
    row(
        "other",
        r"unregister_netdevice: waiting for \S+ to become free\.",
        "unregister_netdevice: waiting for DEV to become free",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"VFS: Busy inodes after unmount of ",
        "VFS: Busy inodes after unmount (use-after-free)",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"VFS: Close: file count is (?:0|zero)",
        "VFS: Close: file count is zero (use-after-free)",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"BUG: Dentry .{1,120} still in use \(-?\d+\) \[unmount of \w+ ",
        "BUG: Dentry still in use in unmount",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"(?:IPv6: )?BUG: Address \S+ on device (?P<device>\S+) is missing its host route\.",
        "BUG: Address IPV6ADDR on device {device} is missing its host route.",
        place=False,
        proof=None,
    ),
    row(
        "other",
        r"RTNL: assertion failed at (?P<where>\S+) \(\d+\)",
        "RTNL: assertion failed at {where} (LINE)",
        place=False,
        trace=True,
    ),
    # what the secure world of arm64 says through trusty-log
    row("other", r"trusty: (?:panic|PANIC)\b", "trusty: panic", place=False, proof=None),
)

REPORTS: tuple[Format, ...] = (*FAULTS, *WARNINGS, *PANICS, *OTHERS)
