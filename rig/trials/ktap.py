"""Reads KTAP version 1, the protocol in which workloads report.

A case that was promised by the plan and did not report is not a pass: it comes out as LOST, under the name that it
announced or else `case-<i>`, and the oracles say what became of it. The stream was written by a guest that may be
breaking down, so every length and count here has a bound, and nothing in the stream can raise.

The rig's workloads say more in diagnostic lines ahead of a case's result::

    # case NAME             this case begins; should it never report, this is what it is called
    # param KEY=VALUE       what was drawn from the seed
    # actual KEY=VALUE      what the guest made of it; becomes the parameter actual.KEY
    # counter KEY=INTEGER   how often something happened
    # seconds NUMBER        wall time of the case
    # finding: TITLE        what it accuses the kernel of, stable between runs
    # detail: TEXT          evidence for the latest finding, or for the case

Format: Documentation/dev-tools/ktap.rst in the kernel (v6.12).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rig.model import CaseResult, Finding, Status
from rig.trials.signature import signature, title

MAX_CASES = 10_000
MAX_LINE = 16_384
MAX_FINDINGS = 50  # of one case
MAX_DETAILS = 200  # lines of one case
MAX_PAIRS = 500  # params or counters
MAX_ERRORS = 50
NAME_LENGTH = 120

INCONCLUSIVE = "inconclusive"

_VERSION = re.compile(r"(?:KTAP|TAP) version (\d{1,9})$")
_PLAN = re.compile(r"1\.\.(\d{1,18})(?:\s*#\s*SKIP\b[:\s]*(?P<reason>.*))?$")
_RESULT = re.compile(r"(?P<bad>not )?ok\b\s*(?P<number>\d{1,18})?(?:\s+(?P<rest>.*))?$")
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*(?P<word>SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b[:\s]*(?P<reason>.*)$", re.IGNORECASE)
_PAIR = re.compile(r"([^\s=]+)[ \t=]+(.*)$")
_LINE_ENDS = re.compile(r"\r\n|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class KtapReport:
    """What a stream said, and what is wrong with the stream itself."""

    version: int | None = None
    plan: int | None = None
    cases: tuple[CaseResult, ...] = ()  # in the order of their numbers
    errors: tuple[str, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    skip_reason: str = ""  # of a plan that skips everything: `1..0 # SKIP reason`


def parse(text: str) -> KtapReport:
    """Return what the whole stream `text` says. Never raises."""
    parser = KtapParser()
    for line in _LINE_ENDS.split(text):
        parser.feed_line(line)
    return parser.report()


@dataclass(slots=True)
class _Pending:
    """Diagnostics that wait for the result line of their case."""

    name: str = ""
    findings: list[tuple[str, list[str]]] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        return not (self.name or self.findings or self.details or self.counters)


class KtapParser:
    """The streaming form: feed lines as they arrive; `done` and `plan` show progress; the report comes last."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.plan: int | None = None
        self._skip_reason = ""
        self._cases: dict[int, CaseResult] = {}
        self._highest = 0
        self._pending = _Pending()
        self._params: dict[tuple[str, str], None] = {}
        self._errors: list[str] = []
        self._bailed = False
        self._over = False  # said once that there are too many cases
        self._keywords: dict[str, Callable[[str], None]] = {
            "case": self._begin,
            "param": self._param,
            "actual": lambda rest: self._param(f"actual.{rest}"),
            "counter": self._counter,
            "seconds": self._seconds,
            "finding:": self._finding,
            "detail:": self._detail,
        }

    @property
    def done(self) -> int:
        """How many cases have reported."""
        return len(self._cases)

    def feed_line(self, line: str) -> None:
        """Take one line, without its end."""
        line = _clean(line[:MAX_LINE])
        if not line:
            return
        if line[0] in " \t":
            self._nested(line.strip())
        elif line[0] == "#":
            self._diagnostic(line[1:].strip())
        elif match := _RESULT.match(line):
            self._result(match)
        elif match := _PLAN.match(line):
            self._take_plan(match)
        elif match := _VERSION.match(line):
            self._take_version(int(match[1]))
        elif line.startswith("Bail out!"):
            self._bailed = True
            self._error(f"the workload gave up: {line}")

    def report(self) -> KtapReport:
        """Return what was said so far, with a LOST case for each that was promised and is missing."""
        errors = list(self._errors)
        cases = dict(self._cases)
        missing = self._missing(cases)
        if self.version is None:
            errors.append("no KTAP version line")
        if self.plan is None:
            errors.append("no plan")
        if missing:
            errors.append(f"{len(missing)} of {self.plan} cases did not report")
        for number in missing:
            cases[number] = CaseResult(name=f"case-{number}", status=Status.LOST, reason="did not report")
        if not self._pending.empty:
            # The case that was running when the stream ended; what it found must not go down with it.
            number = missing[0] if missing else max(cases, default=0) + 1
            name = self._pending.name or f"case-{number}"
            cases[number] = self._case(number, name, Status.LOST, "did not report")
        return KtapReport(
            version=self.version,
            plan=self.plan,
            cases=tuple(cases[number] for number in sorted(cases)),
            errors=tuple(errors),
            params=tuple(self._params),
            skip_reason=self._skip_reason,
        )

    def _missing(self, cases: dict[int, CaseResult]) -> list[int]:
        promised = min(self.plan or 0, MAX_CASES)
        return [number for number in range(1, promised + 1) if number not in cases]

    def _error(self, text: str) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(title(text))

    def _take_version(self, version: int) -> None:
        if self.version is not None:
            self._error("a second version line: two streams in one")
        elif version != 1:
            self._error(f"KTAP version {version} is not 1")
        self.version = version

    def _take_plan(self, match: re.Match[str]) -> None:
        plan = int(match[1])
        if self.plan is not None:
            self._error(f"a second plan, 1..{plan} after 1..{self.plan}")
            return
        if plan > MAX_CASES:
            self._error(f"a plan of {plan} cases, more than {MAX_CASES}")
        self.plan = plan
        self._skip_reason = title(match["reason"] or ("no reason given" if plan == 0 else ""))

    def _nested(self, line: str) -> None:
        """A subtest's lines. Its parent's own line decides; a failure in it is worth keeping as a detail."""
        if line.startswith("not ok"):
            self._detail(f"subtest: {line}")

    def _diagnostic(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        keyword = self._keywords.get(word)
        if keyword:
            keyword(rest.strip())

    def _begin(self, rest: str) -> None:
        if not self._pending.empty:
            self._error(f"case {rest} begins before {self._pending.name or 'the one before it'} has reported")
            # What it found must not be lost with it.
        old = self._pending
        self._pending = _Pending(name=title(rest)[:NAME_LENGTH], findings=old.findings, details=old.details)

    def _param(self, rest: str) -> None:
        match = _PAIR.match(rest)
        if match and len(self._params) < MAX_PAIRS:
            self._params[match[1], title(match[2])] = None

    def _counter(self, rest: str) -> None:
        match = _PAIR.match(rest)
        if match is None or not re.fullmatch(r"-?\d{1,19}", match[2].strip(), re.ASCII):
            self._error(f"a counter that is not `KEY=INTEGER`: {rest}")
        elif len(self._pending.counters) < MAX_PAIRS:
            self._pending.counters[match[1]] = int(match[2])

    def _seconds(self, rest: str) -> None:
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", rest, re.ASCII):
            self._pending.seconds = float(rest)

    def _finding(self, rest: str) -> None:
        if len(self._pending.findings) < MAX_FINDINGS:
            self._pending.findings.append((title(rest) or "a finding without a title", []))

    def _detail(self, rest: str) -> None:
        if len(self._pending.details) >= MAX_DETAILS:
            return
        self._pending.details.append(rest)
        if self._pending.findings:
            self._pending.findings[-1][1].append(rest)

    def _result(self, match: re.Match[str]) -> None:
        if self._bailed:
            self._error("a result after `Bail out!`")
        number = int(match["number"]) if match["number"] else self._highest + 1
        if number == 0 or number > MAX_CASES or len(self._cases) >= MAX_CASES:
            if not self._over:
                self._error(f"case {number} is outside 1..{MAX_CASES}")
            self._over = True
            return
        name, status, reason = _outcome(bool(match["bad"]), match["rest"] or "")
        case = self._case(number, name or f"case-{number}", status, reason)
        self._pending = _Pending()
        if self.plan is not None and number > self.plan:
            self._error(f"case {number} ({case.name}) is beyond the plan 1..{self.plan}")
        if number in self._cases:
            self._error(f"case {number} ({case.name}) reported twice")
            if self._cases[number].status.bad:
                return
        self._cases[number] = case
        self._highest = max(self._highest, number)

    def _case(self, number: int, name: str, status: Status, reason: str) -> CaseResult:
        pending = self._pending
        if pending.findings and status in (Status.PASS, Status.SKIP, Status.INCONCLUSIVE):
            self._error(f"case {number} ({name}) reports a finding and yet {status}")
            status, reason = Status.FAIL, pending.findings[0][0]
        if status is Status.FAIL and not reason:
            reason = next(iter([heading for heading, _ in pending.findings] + pending.details), "not ok")
        return CaseResult(
            name=name,
            status=status,
            reason=title(reason),
            findings=tuple(_accusation(heading, name, details) for heading, details in pending.findings),
            counters=tuple(pending.counters.items()),
            seconds=pending.seconds,
        )


def _accusation(heading: str, case: str, details: list[str]) -> Finding:
    return Finding(
        oracle="workload",
        kind="data",
        title=heading,
        signature=signature("data", heading),
        text="\n".join([f"{case}: {heading}", *details]),
    )


def _outcome(bad: bool, rest: str) -> tuple[str, Status, str]:
    """Return name, status and reason of a result line's remainder.

    A `not ok` with SKIP or TODO is a failure all the same: the benefit of the doubt is not the stream's to give.
    """
    directive = _DIRECTIVE.search(rest)
    name = rest[: directive.start()] if directive else rest
    name = title(name.strip().removeprefix("- "))[:NAME_LENGTH]
    word, reason = (directive["word"].upper(), directive["reason"]) if directive else ("", "")
    if bad:
        return name, Status.TIMEOUT if word == "TIMEOUT" else Status.FAIL, reason
    if word == "SKIP" and reason.lower().startswith(INCONCLUSIVE):
        return name, Status.INCONCLUSIVE, reason[len(INCONCLUSIVE) :].lstrip(": ") or INCONCLUSIVE
    if word:
        return name, Status.SKIP, reason or word.lower()
    return name, Status.PASS, ""


def _clean(line: str) -> str:
    """Show what cannot be printed as U+FFFD; keep the leading blanks, which say how deep a line is nested."""
    line = line.rstrip("\r\n \t")
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
