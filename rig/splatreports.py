"""A report of the kernel that is under way: what its lines teach, and the finding that it comes to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rig.model import Finding
from rig.signature import plain_function, signature, title
from rig.splatformats import AFTERMATH, LAST_LINE, REFINEMENTS, TRACE_ENDS, Format
from rig.splatframes import INFRASTRUCTURE, WAITING
from rig.splatlines import Line

MAX_LINES = 400  # kept of one report
MAX_FRAMES = 64

#: A frame without `? `, which marks what the unwinder merely found on the stack.
_FRAME = re.compile(r"\s*(?:\[<[0-9a-f]+>\] ?)?(?P<name>[A-Za-z_][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_INLINE = re.compile(r"\s*(?P<name>[A-Za-z_]\w*) \S+:\d+ \[inline\]")
_POINTER = re.compile(
    r"\s*(?:RIP: 0010:|RIP  ?|E?IP: |pc : |epc : |PC is at )(?:\[<[0-9a-f]+>\] ?)*(?P<name>[A-Za-z_][\w.$]*)\+0x"
)
_TRACE_STARTS = re.compile(r"\s*(?:Call [Tt]race:|Backtrace:|backtrace)")
_ACQUIRES = re.compile(r".*is trying to (?:acquire|release) lock")
_LOCK = re.compile(r".*, at: (?:\[<[0-9a-f]+>\] ?)?(?P<name>[A-Za-z_][\w.$]*)\+0x")


@dataclass(slots=True)
class Report:
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

    def take(self, line: Line) -> None:
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


def refines(message: str) -> bool:
    """Return whether a message says what the WARNING or BUG after it is about."""
    return any(refinement.message.match(message) for refinement in REFINEMENTS)


def _heading(row: Format, groups: dict[str, str]) -> str:
    names = dict.fromkeys(re.findall(r"\{(\w+)\}", row.title), "")
    return row.title.format_map(names | {name: groups[name] for name in names if name in groups})


def _tidy(heading: str) -> str:
    return re.sub(r"\s+", " ", heading).strip(" :")
