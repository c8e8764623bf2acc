"""The rules, one by one: what evidence makes of a trial."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.model import Finding, Status
from rig.splats.scanner import scan_bytes
from rig.trials import ktap
from rig.trials.ktap import KtapReport
from rig.trials.oracles import RULES, TAINTS, Evidence, Ruling, judge, new_taints


def stream(*lines: str, plan: int = 2) -> KtapReport:
    return ktap.parse("\n".join(["KTAP version 1", f"1..{plan}", *lines]))


def splat(kind: str = "warning", *, fatal: bool = False, echo: bool = False) -> Finding:
    return Finding(
        oracle="console",
        kind=kind,
        title=f"{kind} in foo",
        signature=f"{kind}:foo",
        function="foo",
        fatal=fatal,
        echo=echo,
    )


OK = stream("ok 1 a", "ok 2 b")
FAILED = stream("# finding: stale data", "not ok 1 a", "ok 2 b")
GOOD = Evidence(workload="race", booted=True, ssh=True, exit_status=0, ktap=OK, taint_before=0, taint_after=0)
RUNNING = replace(GOOD, ktap=stream("ok 1 a", "# case b"), exit_status=None, taint_after=None)
BOOTING = Evidence(workload="race")
BOOTED = replace(BOOTING, booted=True)

LEAK = Finding(oracle="audit", kind="leak", title="leaked pages: on a list", signature="leak:pages")
COVERED = (("pgfault", 100), ("pgmigrate_success", 0))

#: What was seen, and what has to come of it: status, a piece of the reason, the kinds of all findings.
TABLE: list[tuple[str, Evidence, Status, str, list[str]]] = [
    ("nothing is known", Evidence(), Status.LOST, "did not boot", []),
    ("all is well", GOOD, Status.PASS, "2 of 2 cases passed", []),
    ("reset while booting", replace(BOOTING, end_kind="reset"), Status.CRASH, "while booting", ["silent-reset"]),
    ("reset after init", replace(BOOTED, end_kind="reset"), Status.CRASH, "before SSH", ["silent-reset"]),
    ("reset at work", replace(RUNNING, end_kind="reset"), Status.CRASH, "under race", ["silent-reset"]),
    ("off at work", replace(RUNNING, end_kind="poweroff"), Status.CRASH, "powered off", ["silent-poweroff"]),
    ("hang in boot", replace(BOOTING, timed_out=True), Status.TIMEOUT, "did not reach init", ["boot-hang"]),
    (
        "killed after a hang in boot",
        replace(BOOTING, timed_out=True, end_kind="killed"),
        Status.TIMEOUT,
        "init",
        ["boot-hang"],
    ),
    ("deaf", replace(BOOTED, timed_out=True), Status.TIMEOUT, "SSH never answered", ["no-ssh"]),
    ("hang at work", replace(RUNNING, timed_out=True), Status.TIMEOUT, "not done by its deadline", ["hang"]),
    (
        "hang with its reason",
        replace(RUNNING, timed_out=True, console=(splat("hung-task"),)),
        Status.TIMEOUT,
        "hung-task in foo",
        ["hung-task"],
    ),
    (
        "hang beside a warning",
        replace(RUNNING, timed_out=True, console=(splat(),)),
        Status.TIMEOUT,
        "deadline",
        ["warning", "hang"],
    ),
    (
        "qemu died in boot",
        replace(BOOTING, end_kind="qemu-died", note="status 1"),
        Status.LOST,
        "QEMU died: status 1",
        [],
    ),
    ("qemu died at work", replace(RUNNING, end_kind="qemu-died"), Status.LOST, "QEMU died", []),
    ("qemu was killed", replace(RUNNING, end_kind="killed"), Status.LOST, "QEMU was killed", []),
    (
        "qemu died after a splat",
        replace(RUNNING, end_kind="qemu-died", console=(splat(),)),
        Status.FAIL,
        "warning in foo",
        ["warning"],
    ),
    (
        "fatal splat and reset",
        replace(RUNNING, end_kind="reset", console=(splat("bug", fatal=True),)),
        Status.CRASH,
        "bug in foo",
        ["bug"],
    ),
    (
        "fatal splat, stopped by the rig",
        replace(RUNNING, console=(splat("bug", fatal=True),)),
        Status.CRASH,
        "bug in foo",
        ["bug"],
    ),
    (
        "fatal splat in boot",
        replace(BOOTING, end_kind="reset", console=(splat("panic", fatal=True),)),
        Status.CRASH,
        "panic in foo",
        ["panic"],
    ),
    (
        "warning, then a silent reset",
        replace(RUNNING, end_kind="reset", console=(splat(),)),
        Status.CRASH,
        "without a word",
        ["warning", "silent-reset"],
    ),
    (
        "cause before echo",
        replace(RUNNING, console=(splat("kasan", fatal=True), splat("bug", fatal=True, echo=True))),
        Status.CRASH,
        "kasan in foo",
        ["kasan", "bug"],
    ),
    (
        "warning beside passes",
        replace(GOOD, console=(splat(),), taint_after=1 << 9),
        Status.FAIL,
        "warning in foo",
        ["warning"],
    ),
    ("case failed", replace(GOOD, ktap=FAILED, exit_status=1), Status.FAIL, "a: stale data", ["data"]),
    (
        "case failed before the machine was lost",
        replace(GOOD, ktap=FAILED, exit_status=None, end_kind="killed"),
        Status.FAIL,
        "stale",
        ["data"],
    ),
    (
        "not ok without a finding",
        replace(GOOD, ktap=stream("ok 1 a", "not ok 2 b"), exit_status=1),
        Status.FAIL,
        "b: not ok",
        ["data"],
    ),
    ("taint alone", replace(GOOD, taint_after=1 << 9), Status.FAIL, "W (kernel issued warning)", ["taint"]),
    ("taint of the rig's own module", replace(GOOD, taint_after=1 << 12 | 1 << 13), Status.PASS, "passed", []),
    ("old taint", replace(GOOD, taint_before=1 << 9, taint_after=1 << 9), Status.PASS, "passed", []),
    (
        "taint a splat does not explain",
        replace(GOOD, console=(splat(),), taint_after=1 << 9 | 1 << 4),
        Status.FAIL,
        "warning",
        ["warning", "taint"],
    ),
    ("memory left over", replace(GOOD, audit=(LEAK,)), Status.FAIL, "leaked pages", ["leak"]),
    (
        "memory left over beside a warning",
        replace(GOOD, audit=(LEAK,), console=(splat(),)),
        Status.FAIL,
        "warning in foo",
        ["warning", "leak"],
    ),
    ("the rig's own module", replace(GOOD, taint_after=1 << 12 | 1 << 13), Status.PASS, "passed", []),
    (
        "the kernel did not do it",
        replace(GOOD, needs={"pgfault": 1, "pgmigrate_success": 1}, coverage=COVERED),
        Status.INCONCLUSIVE,
        "race: kernel counter pgmigrate_success=0 below 1",
        [],
    ),
    (
        "the kernel did not do it and was caught all the same",
        replace(GOOD, needs={"pgmigrate_success": 1}, coverage=COVERED, audit=(LEAK,)),
        Status.FAIL,
        "leaked pages",
        ["leak"],
    ),
    (
        "no such counter",
        replace(GOOD, needs={"pgmigrate": 1}, coverage=COVERED),
        Status.INCONCLUSIVE,
        "no counter pgmigrate",
        [],
    ),
    ("counters unknown", replace(GOOD, needs={"pgfault": 1}), Status.INCONCLUSIVE, "could not be read", []),
    ("the kernel did it", replace(GOOD, needs={"pgfault": 100}, coverage=COVERED), Status.PASS, "passed", []),
    (
        "skipped, and so the kernel did not do it",
        replace(GOOD, ktap=stream("ok 1 a # SKIP no", plan=1), exit_status=4, needs={"pgmigrate_success": 1}),
        Status.SKIP,
        "a: no",
        [],
    ),
    ("broken set-up", replace(GOOD, ktap=stream("Bail out! no space"), exit_status=99), Status.LOST, "no space", []),
    ("no such workload", replace(GOOD, ktap=ktap.parse(""), exit_status=127), Status.LOST, "could not be started", []),
    ("connection lost", RUNNING, Status.LOST, "connection to race was lost", []),
    ("workload not started", replace(GOOD, ktap=None, exit_status=None), Status.LOST, "not started", []),
    (
        "workload killed by a signal",
        replace(RUNNING, exit_status=139),
        Status.FAIL,
        "killed by SIGSEGV",
        ["workload-died"],
    ),
    (
        "the same as Python tells it",
        replace(RUNNING, exit_status=-7),
        Status.FAIL,
        "killed by SIGBUS",
        ["workload-died"],
    ),
    ("silence", replace(GOOD, ktap=ktap.parse("")), Status.LOST, "said nothing", []),
    (
        "truncated stream",
        replace(RUNNING, exit_status=0),
        Status.FAIL,
        "1 of 2 cases of race did not report",
        ["protocol"],
    ),
    ("passes and exit 1", replace(GOOD, exit_status=1), Status.FAIL, "exit status 1", ["protocol"]),
    ("passes and exit 4", replace(GOOD, exit_status=4), Status.FAIL, "exit status 4", ["protocol"]),
    ("failure and exit 0", replace(GOOD, ktap=FAILED), Status.FAIL, "stale data", ["data"]),
    (
        "broken protocol",
        replace(GOOD, ktap=stream("ok 1 a", "ok 2 b", "ok 3 c")),
        Status.FAIL,
        "beyond the plan",
        ["protocol"],
    ),
    (
        "all skipped",
        replace(GOOD, ktap=stream("ok 1 a # SKIP no", "ok 2 b # SKIP no"), exit_status=4),
        Status.SKIP,
        "a: no",
        [],
    ),
    (
        "skip by plan",
        replace(GOOD, ktap=ktap.parse("KTAP version 1\n1..0 # SKIP no hugetlb"), exit_status=4),
        Status.SKIP,
        "no hugetlb",
        [],
    ),
    (
        "one inconclusive, no pass",
        replace(GOOD, ktap=stream("ok 1 a # SKIP inconclusive: few", "ok 2 b # SKIP no"), exit_status=4),
        Status.INCONCLUSIVE,
        "a: few",
        [],
    ),
    (
        "inconclusive and exit 0",
        replace(GOOD, ktap=stream("ok 1 a # SKIP inconclusive: few", plan=1)),
        Status.INCONCLUSIVE,
        "few",
        [],
    ),
    (
        "one pass, one inconclusive",
        replace(GOOD, ktap=stream("ok 1 a", "ok 2 b # SKIP inconclusive: few")),
        Status.PASS,
        "1 inconclusive",
        [],
    ),
]


@pytest.mark.parametrize(
    ("evidence", "status", "reason", "kinds"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_rule(evidence: Evidence, status: Status, reason: str, kinds: list[str]) -> None:
    ruling = judge(evidence)
    assert ruling.status is status
    assert reason in ruling.reason
    assert [finding.kind for finding in ruling.findings] == kinds


def test_memory_that_a_splat_explains_is_its_echo() -> None:
    alone, beside = judge(replace(GOOD, audit=(LEAK,))), judge(replace(GOOD, audit=(LEAK,), console=(splat(),)))
    assert [finding.echo for finding in alone.findings] == [False]
    assert [finding.echo for finding in beside.findings] == [False, True]


def test_every_rule_is_used_by_the_table() -> None:
    used = {next(i for i, rule in enumerate(RULES) if rule(row[1])) for row in TABLE}
    assert used == set(range(len(RULES)))


def test_whatever_is_bad_has_a_finding() -> None:
    for name, evidence, status, *_ in TABLE:
        assert bool(judge(evidence).findings) >= status.bad, name


def case_statuses(ruling: Ruling) -> list[Status]:
    return [case.status for case in ruling.cases]


def test_the_running_case_is_the_one_that_crashed_or_hung() -> None:
    three = replace(RUNNING, ktap=stream("ok 1 a", "# case b", plan=3))
    crashed = judge(replace(three, end_kind="reset"))
    assert case_statuses(crashed) == [Status.PASS, Status.CRASH, Status.LOST]
    assert [case.name for case in crashed.cases] == ["a", "b", "case-3"]
    assert crashed.cases[1].reason == crashed.reason
    assert crashed.cases[2].reason == "not reached"
    assert case_statuses(judge(replace(three, timed_out=True))) == [Status.PASS, Status.TIMEOUT, Status.LOST]


def test_cases_that_a_living_workload_left_out_have_failed() -> None:
    ruling = judge(replace(RUNNING, exit_status=0, ktap=stream("ok 1 a", plan=3)))
    assert case_statuses(ruling) == [Status.PASS, Status.FAIL, Status.FAIL]


def test_cases_of_a_lost_machine_are_lost() -> None:
    ruling = judge(replace(RUNNING, end_kind="killed", note="by the kernel"))
    assert case_statuses(ruling) == [Status.PASS, Status.LOST]
    assert "by the kernel" in ruling.cases[1].reason


def test_taints_are_named() -> None:
    assert new_taints(0, 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14) == "BDWL"
    assert new_taints(1 << 9, 1 << 9 | 1 << len(TAINTS) | 1 << 40) == "??"
    assert new_taints(0, 1 << 12 | 1 << 13 | 1 << 9) == "W"  # the rig's own module, and a warning
    assert new_taints(None, 512) == ""
    assert new_taints(0, None) == ""


def test_a_real_console_through_the_rules() -> None:
    log = b"[    2.000000][    T1] Kernel panic - not syncing: sysrq triggered crash\n"
    assert (
        judge(replace(RUNNING, end_kind="reset", console=scan_bytes(log))).reason
        == "kernel panic: sysrq triggered crash"
    )


any_evidence = st.builds(
    Evidence,
    booted=st.booleans(),
    ssh=st.booleans(),
    end_kind=st.sampled_from([None, "poweroff", "reset", "qemu-died", "killed"]),
    timed_out=st.booleans(),
    exit_status=st.none() | st.integers(-70, 300),
    ktap=st.none()
    | st.sampled_from([OK, FAILED, ktap.parse(""), stream("ok 1 a"), stream("ok 1 a # SKIP inconclusive: x")]),
    console=st.lists(st.sampled_from([splat(), splat("bug", fatal=True), splat("hung-task")]), max_size=3).map(tuple),
    taint_before=st.none() | st.integers(0, 1 << 20),
    taint_after=st.none() | st.integers(0, 1 << 20),
    note=st.text(max_size=20),
    audit=st.sampled_from([(), (LEAK,)]),
    coverage=st.sampled_from([(), COVERED]),
    needs=st.sampled_from([{}, {"pgfault": 1}, {"pgmigrate_success": 1}]),
)


@given(any_evidence)
def test_a_pass_takes_evidence_of_everything(evidence: Evidence) -> None:
    ruling = judge(evidence)
    assert "\n" not in ruling.reason
    if ruling.status is Status.PASS:
        assert evidence.ktap is OK
        assert evidence.exit_status == 0
        assert evidence.end_kind is None
        assert not evidence.timed_out
        assert not evidence.console
        assert not ruling.findings
        assert all(dict(evidence.coverage).get(name, 0) >= least for name, least in evidence.needs.items())
    if ruling.status.bad:
        assert ruling.findings
    if evidence.console:
        assert ruling.status.bad
        assert ruling.findings[0] == evidence.console[0]
