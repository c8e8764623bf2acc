"""Turns a kernel console into findings, as it streams by.

A console is mostly clean, so bytes are searched for a dozen words first and only lines that have one are looked at.
From the head of a report to its end every line is read; reports of different CPUs and tasks that interleave are taken
apart by the caller that CONFIG_PRINTK_CALLER prints. Once a log has shown that the kernel's lines carry a timestamp,
a line without one was written by a program and accuses nobody.

The first report is the cause. What comes after a fatal one is marked as its echo; a panic that only says that
something before it was fatal becomes part of that report.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rig.model import Finding
from rig.signature import plain_function, signature, title
from rig.splatformats import (
    AFTERMATH,
    ANY_HEAD,
    CUT_HERE,
    ECHO_PANIC,
    FORMATS,
    LAST_LINE,
    PREAMBLE,
    REFINEMENTS,
    TRACE_ENDS,
    TRIGGERS,
    Format,
)
from rig.splatframes import INFRASTRUCTURE, WAITING

CHUNK = 1 << 20
MAX_LINE = 4096  # bytes of a line that are looked at
MAX_PARTIAL = 65536  # bytes kept of a line that has not ended
MAX_SIGNATURES = 200  # of one console
MAX_SAME = 5  # findings of one signature
MAX_LINES = 400  # kept of one report
MAX_AGE = 2000  # lines of the console from a report's head to its last possible line
IDLE_LINES = 200  # lines of others after which a report has ended
CLOSING_LINES = 10  # how long after its last line a panic still belongs to it
IDLE_SECONDS = 30.0  # by the kernel's own clock
MAX_OPEN = 64  # reports at once
PREAMBLE_LINES = 40
PREAMBLE_BYTES = 6000
MAX_FRAMES = 64

_PREFIX = re.compile(
    r"(?:<\d{1,3}>)?(?:\[ *(?P<time>\d{1,9}\.\d{6})\](?:\[ *(?P<caller>[TC]\d+)\])?|\[ *(?P<only>[TC]\d+)\])(?: |$)"
)
_LATE = re.compile(r"\[ *\d{1,9}\.\d{6}\](?:\[ *[TC]\d+\])? ")
_PREFIX_BYTES = re.compile(rb"^(?:<\d{1,3}>)?\[ *(?:\d{1,9}\.\d{6}\]|[TC]\d+\] )", re.MULTILINE)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: A frame without `? `, which marks what the unwinder merely found on the stack.
_FRAME = re.compile(r"\s*(?:\[<[0-9a-f]+>\] ?)?(?P<name>[A-Za-z_][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_INLINE = re.compile(r"\s*(?P<name>[A-Za-z_]\w*) \S+:\d+ \[inline\]")
_POINTER = re.compile(
    r"\s*(?:RIP: 0010:|RIP  ?|E?IP: |pc : |epc : |PC is at )(?:\[<[0-9a-f]+>\] ?)*(?P<name>[A-Za-z_][\w.$]*)\+0x"
)
_TRACE_STARTS = re.compile(r"\s*(?:Call [Tt]race:|Backtrace:|backtrace)")
_ACQUIRES = re.compile(r".*is trying to (?:acquire|release) lock")
_LOCK = re.compile(r".*, at: (?:\[<[0-9a-f]+>\] ?)?(?P<name>[A-Za-z_][\w.$]*)\+0x")


def scan_file(path: Path) -> tuple[Finding, ...]:
    """Return the findings of a console log, in the order of their first lines."""
    scanner = Scanner()
    findings: list[Finding] = []
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            findings += scanner.feed(data)
    findings += scanner.finish()
    return in_order(findings)


def scan_bytes(data: bytes) -> tuple[Finding, ...]:
    """Return the findings of a whole console log."""
    scanner = Scanner()
    return in_order(scanner.feed(data) + scanner.finish())


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return findings by their first lines: a report that began earlier may end later."""
    return tuple(sorted(findings, key=lambda finding: finding.first_line or 0))


@dataclass(slots=True)
class _Line:
    """One line, taken apart."""

    number: int
    text: str  # as it was printed
    message: str  # without the printk prefix
    caller: str | None
    time: float | None
    kernel: bool  # has a printk prefix


@dataclass(slots=True)
class _Report:
    """A report that has begun."""

    format: Format
    groups: dict[str, str]
    caller: str | None
    first_line: int
    head_line: int
    last_line: int
    time: float | None
    echo: bool
    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    frames: list[str] = field(default_factory=list)  # the instruction pointer's function among them, as they come
    at: str | None = None  # where lockdep says the lock is taken
    held: str | None = None  # the first lock of any in a lockdep report
    traced: bool = False  # a call trace has begun
    trace_over: bool = False
    wants_lock: bool = False
    proven: bool = False
    fatal: bool = False
    closing: int | None = None  # line number at which the last line was seen

    def take(self, line: _Line) -> None:
        """Add a line to the text and learn from it, unless it has nothing to do with the report any more."""
        message = line.message
        ended = self.traced and bool(self.frames)
        if ended and not self.format.whole and not AFTERMATH.match(message):
            self.closing = line.number if self.closing is None else self.closing
            return
        if self.closing is not None or (LAST_LINE.match(message) and (ended or self.format.whole)):
            self.closing = line.number
        self.last_line = line.number
        self.time = self.time if line.time is None else line.time
        if len(self.lines) < MAX_LINES:
            self.lines.append(line.text)
        else:
            self.dropped += 1
        self._learn(message)

    def _learn(self, message: str) -> None:
        if not self.proven and self.format.proof is not None and self.format.proof.match(message):
            self.proven = True
        if self.format.more is not None and (more := self.format.more.match(message)):
            for name, value in more.groupdict().items():
                self.groups.setdefault(name, value)
        self._learn_frame(message)

    def _learn_frame(self, message: str) -> None:
        if self.format.kind == "lockdep":
            self._learn_lock(message)
        if self.trace_over or len(self.frames) >= MAX_FRAMES:
            return
        if pointer := _POINTER.match(message):
            self.frames.append(pointer["name"])
        elif _TRACE_STARTS.match(message):
            self.traced = True
        elif TRACE_ENDS.match(message.lstrip()):
            self.trace_over = self.traced and bool(self.frames)
        elif self.traced and (frame := _FRAME.match(message) or _INLINE.match(message)):
            self.frames.append(frame["name"])

    def _learn_lock(self, message: str) -> None:
        if lock := _LOCK.match(message):
            self.held = self.held or lock["name"]
            if self.wants_lock:
                self.at, self.wants_lock = lock["name"], False
        elif self.at is None and _ACQUIRES.match(message):
            self.wants_lock = True

    def guilty(self) -> str | None:
        """Return the function to blame: the first, as they were printed, that is not a messenger."""
        head = self.groups.get("function")
        functions = [plain_function(name) for name in (self.at, *self.frames, head, self.held) if name]
        for function in functions:
            if not INFRASTRUCTURE.match(function) and not (self.format.waiting and WAITING.match(function)):
                return function
        return plain_function(head) if head else next(iter(functions), None)

    def finding(self) -> Finding:
        """Return what this report comes to."""
        kind, heading = self.format.kind, _heading(self.format, self.groups)
        message = self.groups.get("preamble", "")  # between `cut here` and the head, or just ahead of it
        for refinement in REFINEMENTS:
            if kind in ("bug", "warning") and (match := refinement.message.match(message)):
                kind, heading = refinement.kind, refinement.title.format_map(match.groupdict())
                break
        function = self.guilty()
        place = f" in {function}" if self.format.place and function else ""
        what = function if self.format.place and function else heading
        text = self.lines + ([f"[{self.dropped} more lines]"] if self.dropped else [])
        return Finding(
            oracle="console",
            kind=kind,
            title=title(_tidy(heading) + place),
            signature=signature(kind, what),
            function=function,
            text="\n".join(text),
            first_line=self.first_line,
            last_line=self.last_line,
            fatal=self.fatal,
            echo=self.echo,
            corrupted=self.format.place and not (self.frames or self.held or "function" in self.groups),
        )


class Scanner:
    """Reads a console piece by piece. Memory is bounded whatever the console prints."""

    def __init__(self) -> None:
        self._partial = b""  # of the line that has not ended
        self._swallow = False  # the rest of a line that is too long to keep
        self._before = b""  # the last bytes of what was scanned
        self._line = 0  # lines that have ended
        self._taken = 0  # last line that is part of a report
        self._prefixed = False
        self._open: dict[str | None, _Report] = {}
        self._done: list[Finding] = []
        self._same: Counter[str] = Counter()
        self._fatal_begun = False
        self._any = False  # whether there was a report before
        self.fatal = False

    def feed(self, data: bytes) -> list[Finding]:
        """Take the next bytes of the console; return the findings that are complete with them."""
        if self._swallow:
            end = data.find(b"\n")
            if end < 0:
                return []
            data, self._swallow, self._line = data[end + 1 :], False, self._line + 1
        data = self._partial + data if self._partial else data
        end = data.rfind(b"\n") + 1
        self._partial = data[end:]
        if end:
            self._scan(data[:end] if self._partial else data)
        if len(self._partial) > MAX_PARTIAL:
            self._scan_line(self._partial)
            self._line -= 1
            self._partial, self._swallow = b"", True
        return self._hand_out()

    def finish(self) -> list[Finding]:
        """Return the findings that the end of the console completes."""
        if self._partial:
            self._scan_line(self._partial)
            self._partial = b""
        for report in tuple(self._open.values()):
            self._complete(report, at_end=True)
        return self._hand_out()

    def pending(self) -> tuple[Finding, ...]:
        """Return what is known of the reports that have begun and not ended; more of their lines may change it."""
        return tuple(report.finding() for report in self._open.values() if report.proven)

    def _hand_out(self) -> list[Finding]:
        done, self._done = self._done, []
        return done

    # -- bytes to lines -----------------------------------------------------------------------------------------------

    def _scan(self, block: bytes) -> None:
        """Look at the lines of a block that matter; `block` ends with a newline."""
        if not self._prefixed and _PREFIX_BYTES.search(block, 0, MAX_PARTIAL):
            self._prefixed = True
        triggers = _Triggers(block)
        position = 0
        while position < len(block):
            if self._open:
                start = position
            else:
                hit = triggers.after(position)
                if hit < 0:
                    self._line += block.count(b"\n", position)
                    break
                start = block.rfind(b"\n", position, hit) + 1 or position
                self._line += block.count(b"\n", position, start)
            end = block.find(b"\n", start)
            self._scan_line(block[start : min(end, start + MAX_LINE)], block, start)
            position = end + 1
        self._before = (self._before + block[-PREAMBLE_BYTES:])[-PREAMBLE_BYTES:]

    def _scan_line(self, raw: bytes, block: bytes = b"", start: int = 0) -> None:
        """Look at one line. What stood before it is only cut out when a report begins."""
        self._line += 1
        line = _take_apart(raw[:MAX_LINE], self._line)
        self._expire(line)
        self._prefixed = self._prefixed or line.kernel
        if self._prefixed and not line.kernel:
            return  # a program's output
        if ANY_HEAD.match(line.message):
            for row in FORMATS:
                if match := row.head.match(line.message):
                    self._begin(row, match, line, _Context(self._before, block, start))
                    return
        report = self._owner(line)
        if report:
            report.take(line)
            self._note_fatal(report)

    # -- lines to reports ---------------------------------------------------------------------------------------------

    def _owner(self, line: _Line) -> _Report | None:
        """The open report that a line without a head of its own belongs to."""
        report = self._open.get(line.caller)
        if report is None:
            report = next((r for r in self._open.values() if r.format.any_caller), None)
        if report is not None and report.closing is not None and not AFTERMATH.match(line.message):
            return None
        return report

    def _begin(self, row: Format, match: re.Match[str], line: _Line, context: _Context) -> None:
        """A head: of a new report, or one more of a report that is under way."""
        report = self._open.get(line.caller)
        if row.panic and self._absorb_panic(line):
            return
        if report is not None and row.joins and report.format.fatal and not report.traced:
            report.take(line)  # `BUG: unable to handle ...`, and then `Oops: 0000 [#1]`
            self._note_fatal(report)
            return
        if report is not None:
            self._complete(report)
        if len(self._open) >= MAX_OPEN:
            self._complete(min(self._open.values(), key=lambda r: r.last_line))
        report = self._open[line.caller] = self._new(row, match, line, context)
        if row.proof is None and not row.panic:
            self._complete(report)  # it is one line and no more

    def _new(self, row: Format, match: re.Match[str], line: _Line, context: _Context) -> _Report:
        groups = {name: value for name, value in match.groupdict().items() if value}
        if "two" in groups:
            groups["pair"] = " / ".join(sorted(plain_function(groups[name]) for name in ("one", "two")))
        preamble = context.preamble(line, self._taken)
        if preamble:
            groups["preamble"] = next((p.message for p in reversed(preamble) if _refines(p.message)), "")
        report = _Report(
            format=row,
            groups=groups,
            caller=line.caller,
            first_line=preamble[0].number if preamble else line.number,
            head_line=line.number,
            last_line=line.number,
            time=line.time,
            echo=self._fatal_begun or (row.panic and self._any and ECHO_PANIC.match(line.message) is not None),
            lines=[p.text for p in preamble],
            fatal=row.fatal,
            proven=row.proof is None,
        )
        report.take(line)
        self._note_fatal(report)
        return report

    def _absorb_panic(self, line: _Line) -> bool:
        """Whether a panic only repeats what an earlier report said; then it becomes part of that report."""
        echo = ECHO_PANIC.match(line.message) is not None
        causes = [report for report in self._open.values() if report.proven and (report.fatal or echo)]
        if causes:
            mine = [report for report in causes if report.caller == line.caller]
            cause = min(mine or causes, key=lambda report: report.first_line)
            cause.fatal = True
            cause.take(line)
            self._note_fatal(cause)
        # If the cause has been handed out, and as fatal, there is nothing to add.
        return bool(causes) or self._fatal_begun

    def _note_fatal(self, report: _Report) -> None:
        if report.fatal and report.proven:
            self._fatal_begun = self.fatal = True

    def _expire(self, line: _Line) -> None:
        if not self._open:
            return
        for report in tuple(self._open.values()):
            quiet = line.number - report.last_line
            closed = report.closing is not None and line.number - report.closing > CLOSING_LINES
            late = line.time is not None and report.time is not None and line.time - report.time > IDLE_SECONDS
            if closed or late or quiet > IDLE_LINES or line.number - report.first_line > MAX_AGE:
                self._complete(report)

    def _complete(self, report: _Report, *, at_end: bool = False) -> None:
        del self._open[report.caller]
        # A head that nothing followed: a program that imitates the kernel, or a machine that died at that very moment.
        cut_off = at_end and self._line - report.head_line <= 3
        if not report.proven and not (cut_off and report.format.fatal):
            return
        self._taken = max(self._taken, report.last_line)
        finding = report.finding()
        self.fatal = self.fatal or finding.fatal
        self._any = True
        if len(self._same) < MAX_SIGNATURES or finding.signature in self._same:
            self._same[finding.signature] += 1
            if self._same[finding.signature] <= MAX_SAME:
                self._done.append(finding)


@dataclass(frozen=True, slots=True)
class _Context:
    """The bytes ahead of a line, cut out only when they are asked for."""

    before: bytes
    block: bytes
    start: int

    def preamble(self, head: _Line, taken: int) -> list[_Line]:
        """Return the lines right ahead of `head`, of the same caller, that belong to it; none that is <= `taken`."""
        data = self.block[max(0, self.start - PREAMBLE_BYTES) : self.start]
        if self.start < PREAMBLE_BYTES:
            data = self.before[-(PREAMBLE_BYTES - self.start) :] + data
        raws = data.split(b"\n")[:-1][-PREAMBLE_LINES:]
        lines = [_take_apart(raw[:MAX_LINE], head.number - len(raws) + i) for i, raw in enumerate(raws)]
        mine = [
            line for line in lines if line.caller == head.caller and line.number > taken and line.kernel == head.kernel
        ]
        cut = next((i for i in range(len(mine) - 1, -1, -1) if CUT_HERE.match(mine[i].message)), None)
        first = len(mine)
        if cut is not None and len(mine) - cut <= 6:
            first = cut
        while first > 0 and PREAMBLE.match(mine[first - 1].message):
            first -= 1
        return mine[first:]


class _Triggers:
    """Finds the next place in a block at which any of the trigger words stands."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._next = dict.fromkeys(TRIGGERS, -1)  # -1: not searched yet
        self._gone = len(block) + 1

    def after(self, position: int) -> int:
        """Return the first hit at or after `position`, or -1."""
        for word, where in self._next.items():
            if where < position:
                hit = self._block.find(word, position)
                self._next[word] = self._gone if hit < 0 else hit
        first = min(self._next.values())
        return -1 if first >= self._gone else first


def _take_apart(raw: bytes, number: int) -> _Line:
    text = raw.rstrip(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    match = _PREFIX.match(text) or _late_prefix(text)
    if match is None:
        return _Line(number, text, text, None, None, kernel=False)
    time = float(match["time"]) if match["time"] else None
    return _Line(number, text, text[match.end() :], match["caller"] or match["only"], time, kernel=True)


def _late_prefix(text: str) -> re.Match[str] | None:
    """The prefix of a kernel message behind a program's output that did not end its line, such as a prompt."""
    bracket = _LATE.search(text)
    return _PREFIX.match(text, bracket.start()) if bracket else None


def _refines(message: str) -> bool:
    return any(refinement.message.match(message) for refinement in REFINEMENTS)


def _heading(row: Format, groups: dict[str, str]) -> str:
    names = dict.fromkeys(re.findall(r"\{(\w+)\}", row.title), "")
    return row.title.format_map(names | {name: groups[name] for name in names if name in groups})


def _tidy(heading: str) -> str:
    return re.sub(r"\s+", " ", heading).strip(" :")
