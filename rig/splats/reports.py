"""A report of the kernel that is under way: what its lines teach, and the finding that it comes to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from rig.model import Finding
from rig.splats.formats import AFTERMATH, LAST_LINE, REFINEMENTS, TRACE_ENDS, Format, Refinement
from rig.splats.frames import LOCKS, REPORTING
from rig.splats.lines import Line
from rig.splats.traces import MAX_FRAMES, MAX_TRACES, Trace, culprit, frame, inlined, pointer, starts
from rig.trials.signature import plain_function, signature, title

MAX_LINES = 400  # kept of one report

_ACQUIRES = re.compile(
    r".*(?:just changed the state of lock|is trying to (?:acquire|release|lock)\b|\[HC\d+\[.*\] takes:)"
)
_LOCK = re.compile(r"\s*(?:.*, at: *)?(?:\[<[0-9a-f]+>\]\s*)?(?P<name>[A-Za-z_][\w.$]*)\+0x")
_UNSAFE = re.compile(r"\.\.\. which became \w+-(?:irq-)?safe at:")
_TASK = re.compile(r"(?:CPU: ?\d+ (?:UID: \d+ )?PID: |Pid: )(?P<pid>\d+)\b")


@dataclass(slots=True)
class Report:
    """A report that has begun."""

    format: Format
    groups: dict[str, str]
    head: str  # its message
    caller: str | None
    first_line: int
    head_line: int
    last_line: int
    time: float | None
    echo: bool
    lines: list[str] = field(default_factory=list)
    dropped: int = 0
    traces: list[Trace] = field(default_factory=list)  # the instruction pointer's function first
    named: list[str] = field(default_factory=list)  # where lockdep says that the lock is taken, the best first
    chain: list[str] = field(default_factory=list)  # frames of how lockdep came to know the locks
    held: str | None = None  # the first lock of any in a lockdep report
    wants_lock: bool = False
    wants_usage: bool = False  # the frames that follow are of the first use of a lock
    task: str | None = None  # whom the report is of, by `CPU: 0 PID: 1`
    mixed: bool = False  # lines of another report are among it
    foreign: bool = False  # the call trace under way is of that one
    announced: bool = False  # lockdep said that its trace comes next
    trace_over: bool = False
    proven: bool = False
    fatal: bool = False
    closing: int | None = None  # line number at which the last line was seen

    @property
    def traced(self) -> bool:
        """Whether a call trace has begun."""
        return any(trace.started for trace in self.traces)

    @property
    def _steps(self) -> int:
        return sum(trace.steps for trace in self.traces)

    def take(self, line: Line) -> None:
        """Add a line to the text and learn from it, unless it has nothing to do with the report any more."""
        message = line.message
        ended = self.traced and self._steps > 0
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
        if self.format.blame == "lock":
            self._learn_lock(message)
        if task := _TASK.match(message):
            self._learn_task(task["pid"])
        if (rest := starts(message, under_way=self.traced)) is not None:
            self._start_trace()
            message = rest
        elif TRACE_ENDS.match(message.lstrip()):
            self._end_trace()
        if message.startswith("stack backtrace:"):
            self.announced = True
        if self.trace_over or self.foreign:
            return
        if name := pointer(message):
            self._current().add(name, step=False)
        elif not (self.traced or self.format.bare):
            return
        elif name := frame(message):
            self._current().add(name)
        elif name := inlined(message):
            self._current().inlined.append(plain_function(name))

    def _current(self) -> Trace:
        if not self.traces:
            self.traces.append(Trace())
        return self.traces[-1]

    def _start_trace(self) -> None:
        """A call trace begins: of this report, or of somebody else who prints at the same time."""
        current = self._current()
        self.foreign = self._is_foreign()
        if self.foreign:
            self.mixed = True
            return
        if self.format.any_caller:
            if current.steps:
                self._next_trace()
        elif current.started:
            # A second trace of the same task follows the whole first one.
            self.mixed = self.mixed or not (current.steps and (current.bottom or self.trace_over))
            self.trace_over = current.steps > 0
        self._current().started = True

    def _is_foreign(self) -> bool:
        """Whether what the kernel prints ahead of the trace in such a report is missing."""
        if self.format.announced:
            return not self.announced
        return (
            self.format.blame in ("first", "recursion", "named", "place")
            and self.task is None
            and self.format.kind not in ("leak", "panic")
        )

    def _next_trace(self) -> None:
        if len(self.traces) < MAX_TRACES:
            self.traces.append(Trace())

    def _end_trace(self) -> None:
        steps = self._current().steps
        if not self.format.any_caller:
            self.trace_over = self.trace_over or steps > 0
        elif steps:
            self._next_trace()

    def _learn_task(self, pid: str) -> None:
        self.foreign = False
        if self.task is not None and self.task != pid and not self.format.any_caller and not self.trace_over:
            self.trace_over = self._current().bottom
            self.mixed = self.mixed or not self.trace_over
        self.task = self.task or pid

    def _learn_lock(self, message: str) -> None:
        if self.wants_usage:
            name = frame(message)
            if name is not None and not LOCKS.match(plain_function(name)):
                self.named.insert(0, name)
            self.wants_usage = name is not None and bool(LOCKS.match(plain_function(name)))
        elif _UNSAFE.match(message):
            self.wants_usage = True
        elif (lock := _LOCK.match(message)) and (", at:" in message or self.wants_lock):
            self.held = self.held or lock["name"]
            if self.wants_lock:
                self.named.append(lock["name"])
            self.wants_lock = False
        elif not self.named and _ACQUIRES.match(message):
            self.wants_lock = True
        elif message.startswith("  ") and len(self.chain) < MAX_FRAMES and (name := frame(message)):
            self.chain.append(plain_function(name))

    def guilty(self) -> str | None:
        """Return the function to blame, or None if the report does not say."""
        head = [self.groups["function"]] if "function" in self.groups else []
        held = [self.held] if self.held else []
        blame, traces = self.format.blame, self.traces
        if (refinement := self.refinement()) is not None:
            blame = "first" if blame == "place" else blame
            if past := refinement.past:
                head = [name for name in head if not past.match(name)]
                traces = [replace(t, frames=[name for name in t.frames if not past.match(name)]) for t in traces]
        found = culprit(blame, traces, [*self.named, *head], self.chain)
        return found or next((plain_function(name) for name in (*head, *held)), None)

    def refinement(self) -> Refinement | None:
        """Return what more is known of a WARNING or a BUG than that it is one."""
        if self.format.kind not in ("bug", "warning"):
            return None
        message = self.groups.get("preamble", "")  # between `cut here` and the head, or just ahead of it
        for refinement in REFINEMENTS:
            if refinement.applies(message, self.head) and (refinement.past is None or self._beyond(refinement.past)):
                return refinement
        return None

    def _beyond(self, past: re.Pattern[str]) -> bool:
        """Whether the call trace tells more than functions that match `past`."""
        frames = self.traces[0].frames if self.traces else []
        return any(not past.match(name) and not REPORTING.match(name) for name in frames)

    def corrupted(self) -> bool:
        """Return whether the report was cut short, or has lines of another one in it."""
        cut = self.format.trace and not self._steps
        lost = self.format.blame in ("waiter", "stall") and self.format.place and self.guilty() is None
        return cut or lost or self.mixed

    def joined_by(self, row: Format) -> bool:
        """Return whether a head of format `row` only goes on with this report, as `Oops: 0002 [#1]` does."""
        return row.joins and not self.traced and (self.format.fatal or self.format.kind == row.kind)

    def finding(self) -> Finding:
        """Return what this report comes to."""
        function = self.guilty()
        names = self.groups | ({"function": function} if function else {})
        row: Format | Refinement = self.refinement() or self.format
        kind, heading = row.kind, _heading(row.title, names)
        placed = self.format.place and self.format.titled and "{function}" not in row.title
        place = f" in {function}" if function and placed else ""
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
            corrupted=self.corrupted(),
        )


def refines(message: str) -> bool:
    """Return whether a message says what the WARNING or BUG after it is about."""
    return any(refinement.message is not None and refinement.message.match(message) for refinement in REFINEMENTS)


def _heading(form: str, groups: dict[str, str]) -> str:
    names = dict.fromkeys(re.findall(r"\{(\w+)\}", form), "")
    return form.format_map(names | {name: groups[name] for name in names if name in groups})


def _tidy(heading: str) -> str:
    return re.sub(r"\s+", " ", heading).strip(" :")
