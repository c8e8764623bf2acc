"""The lines of a console: where they begin, what stands ahead of the kernel's message, and which of them may matter.

What stands ahead of a message tells the kernel's from those of programs: the time stamp of printk or of dmesg, the
caller, the tag of syslog and the journal, the fields of /dev/kmsg and netconsole. Whatever logged a serial line may
have put a time of its own ahead of all that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rig.splats.formats import ANY_HEAD, CUT_HERE, MARKS, OPENINGS, PREAMBLE

MAX_LINE = 4096  # bytes of a line that are looked at
PREAMBLE_LINES = 40
PREAMBLE_BYTES = 6000
CUT_HERE_LINES = 6  # from `cut here` to a head

#: printk: `<4>[   12.345678][   T12] `; since boot also with the time since the last message (dmesg -d).
_PRINTK = rb"(?:<\d{1,3}>)?\[ *(?P<time>\d{1,9}\.\d{6})(?: <[ \d.]{6,16}>)?\]"
#: dmesg -T, -e or -H, and --time-format iso.
_DMESG = (
    rb"\[(?:\w{2,5}\.? )?\w{3,5}\.? ?[ \d]\d \d\d:\d\d(?::\d\d \d{4})?\]|\[ +\+\d+\.\d{6}\]"
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d(?= )"
)
#: /dev/kmsg and netconsole: `4,1234,5678901,-,caller=T12;`, of which netconsole may print the release first.
_KMSG = rb"(?:\d\.\d[\w.+-]*,)?\d{1,4},\d+,(?P<usec>\d{1,15}),[^\s,;]{1,2}(?:,caller=(?P<who>[TC]\d+))?[^;\n]{0,80};"
#: What phones put behind the time: CPU, command and process.
_PHONE = rb"(?:\[ ?\d+: ?[^\]\n]{1,24}: *\d+\] ?|\(\d\)\[\d+:[^\]\n]{1,24}\])?"
_STAMP = rb"(?:" + _PRINTK + rb"|" + _DMESG + rb")(?: ?\[ *(?P<caller>[TC]\d{1,10})\])?(?: " + _PHONE + rb"|$)"
_PREFIX = re.compile(
    rb"(?:\w+ *:\w+ *: )?(?:" + _STAMP + rb"|(?:<\d{1,3}>)?\[ *(?P<only>[TC]\d{1,10})\](?: |$)|" + _KMSG
    + rb"|(?P<level><\d{1,3}>)(?=\S))"
)  # fmt: skip
_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_DATE = rb"\d{4}-\d\d-\d\d[T ]" + _CLOCK + rb"(?:Z|[+-]\d\d:?\d\d)?"
#: syslog and the journal: when, where, who.
_SYSLOG = re.compile(
    rb"(?:<\d{1,3}>)?(?:(?:\w{3} )?[A-Z]\w{2} [ \d]?\d " + _CLOCK + rb"(?: \d{4})?|(?:\w{3} )?" + _DATE
    + rb"(?: [A-Z]{2,5})?) (?:[\w.:-]+ )?(?:\w+\.\w+ )?(?P<tag>kernel|[\w./@-]+(?:\[\d+\])?): ?"
)  # fmt: skip
#: The time of whatever logged the serial line; tells nothing about who printed what follows.
_LOGGER = re.compile(rb"\[(?:" + _DATE + rb"|" + _CLOCK + rb")\] ?|" + _DATE + rb" +(?=\[)")
_TAG = re.compile(rb"(?:[\w.-]+ )?kernel: ?")
#: A kernel message behind a program's output that did not end its line, such as a prompt.
_LATE = re.compile(rb"(?:<\d>)?\[ *\d{1,9}\.\d{6}\](?:\[ *[TC]\d{1,10}\])? ")
_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?|[()][0-9A-Z]|[=>78cDEHMNOZ])")
#: A line, anywhere in a block, that only the kernel prints: from there on its lines are known by what is ahead of them.
_KERNEL_LINE = re.compile(
    rb"\n(?:(?:<\d{1,3}>)?\[ *(?:\d{1,9}\.\d{6}\]|[TC]\d{1,10}\] )|\d{1,4},\d+,\d{1,15},[-c][,;]"
    rb"|\[\w{3} \w{3} [ \d]\d " + _CLOCK + rb" \d{4}\] )"
)
_OPENINGS = OPENINGS.encode()
_HEAD = re.compile(ANY_HEAD.pattern.encode())
#: Where a head may begin: at the beginning of a line, or behind what is put ahead of it. A search for each, as one that
#: begins with plain bytes is ten times as fast as one that begins with a choice; the words keep most of the heads out.
_AHEAD = (rb"\n", rb"\] ?", rb": ?", rb"> ?", rb"; ?", rb"0 ", rb"\x1b\[[0-9;?]*[A-Za-z]")
_SEARCHES = (
    *(re.compile(ahead + rb"(?=" + _OPENINGS + rb")(?:" + _HEAD.pattern + rb")", re.MULTILINE) for ahead in _AHEAD),
    *(re.compile(re.escape(mark)) for mark in MARKS),
)


@dataclass(slots=True)
class Line:
    """One line, taken apart."""

    number: int
    raw: bytes
    message: str  # without what stands ahead of it
    caller: str | None
    time: float | None
    kernel: bool  # what stands ahead of the message says that the kernel printed it

    @property
    def text(self) -> str:
        """The line as it was printed."""
        return _decode(self.raw)


def take_apart(raw: bytes, number: int) -> Line:
    """Return line `number`: its text without escape sequences, and what the kernel put ahead of the message."""
    raw = _clean(raw)
    start, match, kernel = _prefix(raw)
    time, caller = None, None
    if match is not None:
        who = match["caller"] or match["only"] or match["who"]
        caller = who.decode() if who else None
        time = float(match["time"]) if match["time"] else int(match["usec"]) / 1e6 if match["usec"] else None
    return Line(number, raw, _decode(raw[start:]), caller, time, kernel)


def may_begin(raw: bytes) -> bool:
    """Return whether a report begins with this line; quicker than taking it apart."""
    raw = _clean(raw)
    return _HEAD.match(raw, _prefix(raw)[0]) is not None


def _clean(raw: bytes) -> bytes:
    raw = raw.rstrip(b"\r")
    return _ESCAPE.sub(b"", raw) if b"\x1b" in raw else raw


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")


def _prefix(raw: bytes) -> tuple[int, re.Match[bytes] | None, bool]:
    """Return where the message begins, what the kernel put ahead of it, and whether it did."""
    match = _PREFIX.match(raw)
    start, kernel = 0, False
    if match is None:
        if tagged := _SYSLOG.match(raw):
            if tagged["tag"] != b"kernel":
                return 0, None, False
            start, kernel = tagged.end(), True
        elif logged := _LOGGER.match(raw):
            start = logged.end()
        match = _PREFIX.match(raw, start) or (_late(raw) if b"[" in raw else None)
    if match is not None:
        start, kernel = match.end(), kernel or not match["level"]
    if tag := _TAG.match(raw, start):  # journalctl -o short-monotonic has the host and the tag behind the time
        start, kernel = tag.end(), True
    return start, match, kernel


def _late(raw: bytes) -> re.Match[bytes] | None:
    bracket = _LATE.search(raw)
    return _PREFIX.match(raw, bracket.start()) if bracket else None


class Block:
    """Some lines of a console, each with its newline; finds those that matter without looking at the others."""

    def __init__(self, data: bytes, before: bytes = b"") -> None:
        self.data = data
        self._before = before  # the bytes ahead of it
        self._next = [-1] * len(_SEARCHES)  # where each is found next; -1: not searched for yet

    def line(self, start: int) -> tuple[bytes, int]:
        """Return what is to be looked at of the line that begins at `start`, and where the next one begins."""
        end = self.data.find(b"\n", start)
        end = len(self.data) if end < 0 else end
        return self.data[start : min(end, start + MAX_LINE)], end + 1

    def lines(self, position: int) -> int:
        """Return how many lines begin at `position` or behind it; the last one may lack its newline."""
        return self.data.count(b"\n", position) + (not self.data.endswith(b"\n"))

    def head(self, position: int) -> int:
        """Return where the next line begins, from the one at `position` on, with which a report may begin; or -1."""
        while position < len(self.data):
            raw, after = self.line(position)
            if may_begin(raw):
                return position
            hit = self._hit(after - 1)  # from the newline ahead of the next line on
            if hit < 0:
                break
            position = self.data.rfind(b"\n", 0, hit + 1) + 1
        return -1

    def _hit(self, position: int) -> int:
        """Return where one of the searches finds something next, at or after `position`; or -1."""
        first = end = len(self.data)
        for index, where in enumerate(self._next):
            if where < position:
                match = _SEARCHES[index].search(self.data, position)
                self._next[index] = where = match.start() if match else end
            first = min(first, where)
        return -1 if first == end else first

    def first_kernel_line(self) -> int:
        """Return where the first line begins of which it is known that the kernel printed it; the end if none does."""
        found = len(self.data)
        if _prefix(self.line(0)[0])[2]:
            return 0
        if match := _KERNEL_LINE.search(self.data):
            found = match.start() + 1
        tag = self.data.find(b" kernel: ", 0, found)
        while tag >= 0:
            start = self.data.rfind(b"\n", 0, tag) + 1
            raw, after = self.line(start)
            if _prefix(raw)[2]:
                return start
            tag = self.data.find(b" kernel: ", after, found)
        return found

    def preamble(self, head: Line, start: int, taken: int) -> list[Line]:
        """Return the lines right ahead of `head`, which begins at `start`, of the same caller, that belong to it.

        None of them has a number below or equal to `taken`.
        """
        data = self.data[max(0, start - PREAMBLE_BYTES) : start]
        if start < PREAMBLE_BYTES:
            data = self._before[-(PREAMBLE_BYTES - start) :] + data
        raws = data.split(b"\n")[:-1]
        raws = raws[1 if len(data) == PREAMBLE_BYTES else 0 :][-PREAMBLE_LINES:]  # the first may lack its beginning
        mine: list[Line] = []  # backwards
        kept = 0
        for ahead, raw in enumerate(reversed(raws), 1):
            line = take_apart(raw[:MAX_LINE], head.number - ahead)
            if line.number <= taken or (len(mine) >= CUT_HERE_LINES and kept < len(mine)):
                break
            if line.caller != head.caller or line.kernel != head.kernel:
                continue
            mine.append(line)
            cut = CUT_HERE.match(line.message) and len(mine) <= CUT_HERE_LINES
            if cut or (kept == len(mine) - 1 and PREAMBLE.match(line.message)):
                kept = len(mine)
        return mine[:kept][::-1]

    def tail(self) -> bytes:
        """Return what the block after this one has to know."""
        return (self._before + self.data[-PREAMBLE_BYTES:])[-PREAMBLE_BYTES:]
