"""Call traces: the functions that their lines name, on every architecture, and which of them is to blame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rig.splats.frames import (
    BOTTLENECKS,
    BOTTOM,
    CHECKS,
    DISPATCHERS,
    ENTRY,
    IDLE,
    INFRASTRUCTURE,
    LOCKS,
    MEMORY_CALLS,
    REPORTERS,
    REPORTING,
    TICK,
    WAITING,
    WORKERS,
)
from rig.splats.rows import Blame
from rig.trials.signature import plain_function

MAX_FRAMES = 64  # of one trace
MAX_TRACES = 8
RECURSION = 3  # how often a function is in a trace that overflows the stack by calling itself

#: powerpc writes `.name` for a function where ABI v1 has a descriptor of that name.
_NAME = r"\.?(?P<name>[A-Za-z_][\w.$]*)"
_ADDRESS = r"\(?\[<[0-9a-f]+>\]\s*"
#: A frame without `? `, which marks what the unwinder merely found on the stack; powerpc prints stack and address.
_FRAME = re.compile(
    rf"\s*(?:<\w+>\s*)?(?:{_ADDRESS}|\[[0-9a-f]{{8,16}}\] \[[0-9a-f]{{8,16}}\] )?{_NAME}\+0x[0-9a-f]+/0x[0-9a-f]+"
    r"(?! \(unreliable\))"
)
#: arm: `[<8010>] (callee) from [<8020>] (caller+0x1/0x2)`, since v5.19 ` callee from caller+0x1/0x2`.
_FROM = re.compile(rf"\s*(?:\[<[0-9a-f]+>\] \()?{_NAME}(?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?)?\)? from ")
#: which older kernels print without saying first that it is a trace.
_UNANNOUNCED = re.compile(r"\[<[0-9a-f]+>\] \(\w+.*\) from ")
_INLINE = re.compile(rf"\s*{_NAME} \S+:\d+ \[inline\]")
_POINTER = re.compile(
    r"\s*(?:RIP: 00[16]0:|RIP  ?|EIP: (?:[\da-f]{4}:)?|EIP is at |IP: |pc : |epc ?: |PC is at |NIP (?:\[[0-9a-f]+\] )"
    rf"|Krnl PSW : [0-9a-f]+ [0-9a-f]+ \(|ERA: |era +: )(?:\[<[0-9a-f]+>\]\s*)*(?:[0-9a-f]{{8,16}} )?{_NAME}\+0x"
)
_STARTS = re.compile(r".*?(?:Call [Tt]race:|Backtrace:|(?<!stack )backtrace(?: \(crc \w+\))?:)\s*(?P<rest>.*)$")
#: The names that a system call's function has had: SyS_read, __x64_sys_read, __do_sys_read, __arm64_compat_sys_read.
_SYSCALL = re.compile(
    r"_*(?:(?:x64|ia32|arm64|riscv|s390x?|se|do|compat)_)*(?:[sS]y[sS]|SYSC)_(?P<call>\w+)$|ksys_(?P<k>\w+)$"
)


@dataclass(slots=True)
class Trace:
    """One call trace, from the innermost function outwards."""

    frames: list[str] = field(default_factory=list)
    inlined: list[str] = field(default_factory=list)  # what debug information adds; not in every log of the same bug
    started: bool = False  # `Call Trace:` was seen
    steps: int = 0  # frames after that, but for those of the report itself
    bottom: bool = False

    def add(self, name: str, *, step: bool = True) -> None:
        """Add a frame, or the instruction pointer, which is no step of the trace."""
        self.steps += step and REPORTING.match(plain_function(name)) is None
        if len(self.frames) < MAX_FRAMES:
            self.frames.append(plain_function(name))
        self.bottom = self.bottom or BOTTOM.match(name) is not None


def starts(message: str, *, under_way: bool) -> str | None:
    """Return what stands behind `Call Trace:` on the line, or None if no trace starts with it."""
    if not under_way and _UNANNOUNCED.match(message):
        return message
    match = _STARTS.match(message) if "race:" in message or "race (crc" in message else None
    return match["rest"] if match else None


def pointer(message: str) -> str | None:
    """Return the kernel function in which the instruction pointer is, if this line of registers says it."""
    match = _POINTER.match(message)
    return match["name"] if match else None


def frame(message: str) -> str | None:
    """Return the function of one line of a call trace."""
    match = _FRAME.match(message) or _FROM.match(message)
    return match["name"] if match else None


def inlined(message: str) -> str | None:
    """Return the function of one line that debug information added."""
    match = _INLINE.match(message)
    return match["name"] if match else None


def culprit(
    blame: Blame, traces: Sequence[Trace], candidates: Sequence[str] = (), chain: Sequence[str] = ()
) -> str | None:
    """Return the function to blame, or None if all that is there only waits.

    `candidates` are functions that the report itself names, the surest first; they come before the traces. `chain` are
    the frames of lockdep's dependency chain.
    """
    named = [plain_function(name) for name in candidates]
    first = traces[0].frames if traces else []
    if blame == "lock":
        found = _first(named, LOCKS, WORKERS) or _first([*first, *chain], INFRASTRUCTURE, WORKERS)
        return found or _first([*named, *first], REPORTING, ENTRY)
    if blame == "named" and named:
        return named[0]
    if blame == "place" and (found := _first([*named, *first], REPORTING)) and not CHECKS.match(found):
        return found
    if blame == "stall":
        return _stalled(traces)
    if blame == "waiter":
        return _waiter(first)
    inline = traces[0].inlined if traces else []
    told = [*named, *first]
    if blame == "recursion" and (again := [name for name in told if told.count(name) >= RECURSION]):
        told = again
    # Where all are messengers, the outermost is nearest to whom it was sent for.
    return _first(told, INFRASTRUCTURE) or _first(told[::-1], REPORTING, ENTRY) or next(iter([*told, *inline]), None)


def _first(functions: Sequence[str], *messengers: re.Pattern[str]) -> str | None:
    return next((name for name in functions if not any(pattern.match(name) for pattern in messengers)), None)


def _waiter(frames: Sequence[str]) -> str | None:
    for name in frames:
        if name in BOTTLENECKS:
            return BOTTLENECKS[name]
    return _first(frames, INFRASTRUCTURE, WAITING)


def _stalled(traces: Sequence[Trace]) -> str | None:
    """The function in which a CPU is stuck: what the nearest dispatcher called, below the timer that found it."""
    for trace in traces:
        frames = trace.frames
        if any(IDLE.match(name) for name in frames):
            continue
        found = _found_at(frames)
        start = next((i for i in range(found, len(frames)) if not _looks(frames[i])), None)
        if start is None:
            continue
        for i in range(start, len(frames)):
            if "smp_call_function" in frames[i]:
                return "smp_call_function"
            if DISPATCHERS.match(frames[i]) and i > start:
                called = _syscall(frames[i - 1])
                return frames[start] if MEMORY_CALLS.match(called) else called
        return frames[start]
    return None


def _found_at(frames: Sequence[str]) -> int:
    """Where the interrupted function begins in the trace of a CPU that reports, or prints, in its timer interrupt."""
    reports = next((i for i, name in enumerate(frames) if REPORTERS.match(name)), None)
    if reports is None:
        return 0
    entry = next((i for i in range(reports, len(frames)) if TICK.match(frames[i])), None)
    return 0 if entry is None else entry + 1


def _looks(name: str) -> bool:
    """Whether a frame is of the tick or the NMI that found the stall, or of the report about it."""
    smp_call = "smp_call_function" in name
    return not smp_call and (WAITING.match(name) is not None or INFRASTRUCTURE.match(name) is not None)


def _syscall(name: str) -> str:
    match = _SYSCALL.match(name)
    return f"sys_{match['call'] or match['k']}" if match else name
