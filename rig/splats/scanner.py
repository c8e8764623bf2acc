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
from collections.abc import Callable
from pathlib import Path

from rig.model import Finding
from rig.splats.formats import AFTERMATH, ANY_HEAD, ECHO_PANIC, FORMATS, Format
from rig.splats.lines import MAX_LINE, Block, Line, take_apart
from rig.splats.reports import Report, refines
from rig.trials.signature import plain_function

CHUNK = 1 << 20
INLINED = " [inline]"  # a head that decode_stacktrace has unfolded; the same with the function itself comes next
MAX_PARTIAL = 65536  # bytes kept of a line that has not ended
MAX_SIGNATURES = 200  # of one console
MAX_SAME = 5  # findings of one signature
MAX_ALIKE = 50  # reports that begin alike, after which no more of them are read: a storm says the same again and again
MAX_HEADS = 1000  # ways to begin that are told apart
STORM_LINES = 60  # lines after the head of a report that is not read in which other heads belong to it
MAX_AGE = 2000  # lines of the console from a report's head to its last possible line
IDLE_LINES = 200  # lines of others after which a report has ended
CUT_LINES = 3  # from a head to the end of the console, or to the next head, for it to have been cut short
CLOSING_LINES = 10  # how long after its last line a panic still belongs to it
IDLE_SECONDS = 30.0  # by the kernel's own clock
MAX_OPEN = 64  # reports at once


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


class Scanner:
    """Reads a console piece by piece. Memory is bounded whatever the console prints."""

    def __init__(self) -> None:
        self._partial = b""  # of the line that has not ended
        self._swallow = False  # the rest of a line that is too long to keep
        self._before = b""  # the last bytes of what was scanned
        self._line = 0  # lines that have ended
        self._taken: dict[str | None, int] = {}  # by caller: the last line that is part of a report
        self._prefixed = False
        self._open: dict[str | None, Report] = {}
        self._done: list[Finding] = []
        self._same: Counter[str] = Counter()
        self._alike: Counter[tuple[Format, str | None]] = Counter()
        self._unread = -STORM_LINES  # line of the last head whose report is not read
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
            self._scan(Block(data[:end] if self._partial else data, self._before))
        if len(self._partial) > MAX_PARTIAL:
            self._scan(Block(self._partial[:MAX_LINE], self._before))
            self._line -= 1  # it has not ended
            self._partial, self._swallow, self._before = b"", True, b""
        return self._hand_out()

    def finish(self) -> list[Finding]:
        """Return the findings that the end of the console completes."""
        if self._partial:
            self._scan(Block(self._partial, self._before))
            self._partial = b""
        for report in tuple(self._open.values()):
            self._complete(report, at_end=True)
        return self._hand_out()

    @property
    def lines(self) -> int:
        """How many lines there were so far; one that has not ended counts."""
        return self._line + bool(self._partial or self._swallow)

    def pending(self) -> tuple[Finding, ...]:
        """Return what is known of the reports that have begun and not ended; more of their lines may change it."""
        return tuple(report.finding() for report in self._open.values() if report.proven)

    def _hand_out(self) -> list[Finding]:
        done, self._done = self._done, []
        return done

    # -- bytes to lines -----------------------------------------------------------------------------------------------

    def _scan(self, block: Block) -> None:
        """Look at the lines of a block that matter."""
        first = 0 if self._prefixed else block.first_kernel_line()
        position = 0
        while position < len(block.data):
            start = position if self._open else block.head(position)
            if start < 0:
                self._line += block.lines(position)
                break
            self._line += block.data.count(b"\n", position, start)
            self._prefixed = self._prefixed or start >= first
            raw, position = block.line(start)
            self._scan_line(raw, block, start)
        self._prefixed = self._prefixed or first < len(block.data)
        self._before = block.tail()

    def _scan_line(self, raw: bytes, block: Block, start: int) -> None:
        """Look at one line, which begins at `start` in the block."""
        self._line += 1
        line = take_apart(raw, self._line)
        self._expire(line)
        self._prefixed = self._prefixed or line.kernel
        if self._prefixed and not line.kernel:
            return  # a program's output
        if ANY_HEAD.match(line.message) and not line.message.endswith(INLINED):
            for row in FORMATS:
                if match := row.head.match(line.message):
                    self._begin(row, match, line, lambda: block.preamble(line, start, self._taken.get(line.caller, 0)))
                    return
        report = self._owner(line)
        if report:
            report.take(line)
            self._note_fatal(report)

    # -- lines to reports ---------------------------------------------------------------------------------------------

    def _owner(self, line: Line) -> Report | None:
        """The open report that a line without a head of its own belongs to."""
        report = self._open.get(line.caller)
        if report is None:
            report = next((r for r in self._open.values() if r.format.any_caller), None)
        if report is not None and report.closing is not None and not AFTERMATH.match(line.message):
            return None
        return report

    def _begin(self, row: Format, match: re.Match[str], line: Line, preamble: Callable[[], list[Line]]) -> None:
        """A head: of a new report, or one more of a report that is under way."""
        report = self._open.get(line.caller)
        if row.panic and self._absorb_panic(line):
            return
        if report is not None and report.joined_by(row):
            report.take(line)  # `BUG: unable to handle ...`, and then `Oops: 0000 [#1]`
            self._note_fatal(report)
            return
        if report is not None:
            # Two heads within a few lines vouch for one another, unless programs may have printed them.
            near = line.number - report.head_line <= CUT_LINES
            report.proven = report.proven or (line.kernel and near)
        if self._in_storm(row, match, line):
            if report is not None:
                self._complete(report)
            return
        if row.proof is None and not row.panic:
            self._conclude(
                self._new(row, match, line, preamble())
            )  # one line and no more; what is open goes on after it
            return
        if report is not None:
            self._complete(report)
        if len(self._open) >= MAX_OPEN:
            self._complete(min(self._open.values(), key=lambda r: r.last_line))
        self._open[line.caller] = self._new(row, match, line, preamble())

    def _in_storm(self, row: Format, match: re.Match[str], line: Line) -> bool:
        """Whether there were so many reports like this one that there is nothing to learn from it."""
        if row.joins and line.number - self._unread < STORM_LINES:
            return True
        key = (row, match.groupdict().get("function"))
        if key in self._alike or len(self._alike) < MAX_HEADS:
            self._alike[key] += 1
            if self._alike[key] <= MAX_ALIKE:
                return False
        self._unread = line.number
        return True

    def _new(self, row: Format, match: re.Match[str], line: Line, preamble: list[Line]) -> Report:
        groups = {name: value for name, value in match.groupdict().items() if value}
        if "two" in groups:
            pair = sorted(plain_function(groups[name]) for name in ("one", "two"))
            groups |= {"pair": " / ".join(pair), "function": pair[0]}
        if preamble:
            groups["preamble"] = next((p.message for p in reversed(preamble) if refines(p.message)), "")
        report = Report(
            format=row,
            groups=groups,
            head=line.message,
            caller=line.caller,
            first_line=preamble[0].number if preamble else line.number,
            head_line=line.number,
            last_line=line.number,
            time=line.time,
            echo=self._fatal_begun or (row.panic and self._any and ECHO_PANIC.match(line.message) is not None),
            lines=[p.text for p in preamble],
            fatal=row.fatal,
            proven=row.proof is None or (row.panic and line.kernel),
            mixed=row.panic and not self._any and ECHO_PANIC.match(line.message) is not None,  # its cause is missing
        )
        report.take(line)
        self._note_fatal(report)
        return report

    def _absorb_panic(self, line: Line) -> bool:
        """Whether a panic only repeats what an earlier report said; then it becomes part of that report."""
        echo = ECHO_PANIC.match(line.message) is not None
        mine = self._open.get(line.caller)
        if mine is not None and echo and not mine.format.panic:
            mine.proven = True  # the kernel says itself that there was a reason, even if nothing else of it was printed
        causes = [report for report in self._open.values() if report.proven and (report.fatal or echo)]
        if causes:
            cause = mine if mine in causes else min(causes, key=lambda report: report.first_line)
            cause.fatal = True
            cause.take(line)
            self._note_fatal(cause)
        # If the cause has been handed out, and as fatal, there is nothing to add.
        return bool(causes) or self._fatal_begun

    def _note_fatal(self, report: Report) -> None:
        if report.fatal and report.proven:
            self._fatal_begun = self.fatal = True

    def _expire(self, line: Line) -> None:
        if not self._open:
            return
        for report in tuple(self._open.values()):
            quiet = line.number - report.last_line
            closed = report.closing is not None and line.number - report.closing > CLOSING_LINES
            late = line.time is not None and report.time is not None and line.time - report.time > IDLE_SECONDS
            if closed or late or quiet > IDLE_LINES or line.number - report.first_line > MAX_AGE:
                self._complete(report)

    def _complete(self, report: Report, *, at_end: bool = False) -> None:
        del self._open[report.caller]
        # A head that nothing followed: a program that imitates the kernel, or a machine that died at that very moment.
        cut_off = at_end and self._line - report.head_line <= CUT_LINES
        if report.proven or cut_off:
            self._conclude(report)

    def _conclude(self, report: Report) -> None:
        self._taken[report.caller] = max(self._taken.get(report.caller, 0), report.last_line)
        if len(self._taken) > MAX_OPEN:
            del self._taken[min(self._taken, key=lambda caller: self._taken[caller])]
        finding = report.finding()
        self.fatal = self.fatal or finding.fatal
        self._any = True
        if len(self._same) < MAX_SIGNATURES or finding.signature in self._same:
            self._same[finding.signature] += 1
            if self._same[finding.signature] <= MAX_SAME:
                self._done.append(finding)
