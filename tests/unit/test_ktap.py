"""The KTAP reader: what a stream promises and does not keep is never a pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.model import Status
from rig.trials import ktap
from rig.trials.ktap import KtapParser, parse

GOOD = """\
KTAP version 1
# seed 7
1..4
# case punch
# param groups=2
# param note=a b=c
# actual fault_around_bytes=65536
# counter rounds=120
# seconds 2.5
# finding: stale data after hole punch
# detail: file 0 page 13
# detail: file 0 page 14
not ok 1 punch
ok 2 direct # SKIP unsupported: tmpfs
ok 3 - extend # SKIP inconclusive: counter rounds=2 below 10
# counter rounds=9
ok 4 truncate
"""


def statuses(text: str) -> list[tuple[str, Status]]:
    return [(case.name, case.status) for case in parse(text).cases]


def test_a_stream_as_the_workloads_write_it() -> None:
    report = parse(GOOD)
    assert (report.version, report.plan, report.errors) == (1, 4, ())
    assert statuses(GOOD) == [
        ("punch", Status.FAIL),
        ("direct", Status.SKIP),
        ("extend", Status.INCONCLUSIVE),
        ("truncate", Status.PASS),
    ]
    assert report.params == (("groups", "2"), ("note", "a b=c"), ("actual.fault_around_bytes", "65536"))
    punch, direct, extend, truncate = report.cases
    assert punch.counters == (("rounds", 120),)
    assert punch.seconds == 2.5
    assert punch.reason == "stale data after hole punch"
    (finding,) = punch.findings
    assert (finding.oracle, finding.title) == ("workload", "stale data after hole punch")
    assert finding.text.splitlines() == ["punch: stale data after hole punch", "file 0 page 13", "file 0 page 14"]
    assert direct.reason == "unsupported: tmpfs"
    assert extend.reason == "counter rounds=2 below 10"
    assert truncate.counters == (("rounds", 9),)
    assert (truncate.findings, truncate.reason) == ((), "")


def test_crlf_makes_no_difference() -> None:
    assert parse(GOOD.replace("\n", "\r\n")) == parse(GOOD)


@pytest.mark.parametrize("lines", range(len(GOOD.splitlines())))
def test_a_stream_that_is_cut_anywhere_loses_no_case_and_no_finding(lines: int) -> None:
    report = parse("\n".join(GOOD.splitlines()[:lines]))
    if lines > 2:
        assert len(report.cases) == 4
        assert Status.LOST in [case.status for case in report.cases]
        assert any("did not report" in error for error in report.errors)
    else:
        assert "no plan" in report.errors
    found = [finding for case in report.cases for finding in case.findings]
    assert len(found) == (lines > 9)


def test_the_case_that_was_running_keeps_its_name() -> None:
    assert statuses("KTAP version 1\n1..3\nok 1 a\n# case bee\n# counter x=1\n") == [
        ("a", Status.PASS),
        ("bee", Status.LOST),
        ("case-3", Status.LOST),
    ]


def test_a_case_that_never_reported_before_the_next_keeps_its_findings() -> None:
    report = parse("KTAP version 1\n1..2\n# case a\n# finding: bad\n# case b\nok 1 b\n")
    assert report.cases[0].findings[0].title == "bad"
    assert report.cases[0].status is Status.FAIL
    assert any("begins before a has reported" in error for error in report.errors)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("ok 1 a", Status.PASS, ""),
        ("ok 1 a # skip: later", Status.SKIP, "later"),
        ("ok 1 a # SKIP", Status.SKIP, "skip"),
        ("ok 1 a # SKIP inconclusive", Status.INCONCLUSIVE, "inconclusive"),
        ("ok 1 a # XFAIL known", Status.SKIP, "known"),
        ("not ok 1 a", Status.FAIL, "not ok"),
        ("not ok 1 a # SKIP no excuse", Status.FAIL, "no excuse"),
        ("not ok 1 a # TODO no excuse", Status.FAIL, "no excuse"),
        ("not ok 1 a # TIMEOUT 45 s", Status.TIMEOUT, "45 s"),
        ("not ok 1 a # not a directive", Status.FAIL, "not ok"),
    ],
)
def test_result_lines(line: str, status: Status, reason: str) -> None:
    (case,) = parse(f"KTAP version 1\n1..1\n{line}\n").cases
    assert (case.status, case.reason) == (status, reason)
    assert case.name == ("a # not a directive" if "directive" in line else "a")


def test_a_finding_outweighs_an_ok() -> None:
    for line in ("ok 1 a", "ok 1 a # SKIP x", "ok 1 a # SKIP inconclusive: x"):
        report = parse(f"KTAP version 1\n1..1\n# finding: bad\n{line}\n")
        assert report.cases[0].status is Status.FAIL
        assert report.errors


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1..1\nok 1 a", "no KTAP version line"),
        ("KTAP version 1\nok 1 a", "no plan"),
        ("KTAP version 2\n1..1\nok 1 a", "is not 1"),
        ("KTAP version 1\n1..1\nKTAP version 1\nok 1 a", "second version"),
        ("KTAP version 1\n1..1\n1..2\nok 1 a", "second plan"),
        ("KTAP version 1\n1..1\nok 1 a\nok 2 b", "beyond the plan"),
        ("KTAP version 1\n1..1\nok 1 a\nok 1 a", "reported twice"),
        ("KTAP version 1\n1..1\nBail out! no space", "no space"),
        ("KTAP version 1\n1..1\nBail out! no space\nok 1 a", "after `Bail out!`"),
        ("KTAP version 1\n1..1\n# counter a=many\nok 1 a", "counter"),
        ("KTAP version 1\n1..1\nok 0 a\nok 1 a", "outside"),
        ("KTAP version 1\n1..2\nok 1 a", "1 of 2 cases did not report"),
    ],
)
def test_errors_of_the_stream(text: str, error: str) -> None:
    assert any(error in one for one in parse(text).errors), parse(text).errors


def test_of_two_results_for_a_number_the_bad_one_stays() -> None:
    for text in ("not ok 1 a\nok 1 a", "ok 1 a\nnot ok 1 a"):
        assert statuses(f"KTAP version 1\n1..1\n{text}\n") == [("a", Status.FAIL)]


def test_a_plan_that_skips_everything() -> None:
    report = parse("KTAP version 1\n1..0 # SKIP no hugetlb\n")
    assert (report.cases, report.skip_reason, report.errors) == ((), "no hugetlb", ())


def test_nested_results_do_not_count_but_a_failure_in_them_is_told() -> None:
    text = "KTAP version 1\n1..1\n    KTAP version 1\n    1..2\n    ok 1 x\n    not ok 2 y\nnot ok 1 a\n"
    (case,) = parse(text).cases
    assert case.reason == "subtest: not ok 2 y"
    assert parse(text).errors == ()


def test_what_a_dying_guest_may_send() -> None:
    text = f"KTAP version 1\n1..2\n# finding: \0\x1b[31mred\udcff\nnot ok 1 a\0b\nok 2 {'x' * 100_000}\n"
    report = parse(text)
    assert report.cases[0].name == "a\ufffdb"
    assert report.cases[0].findings[0].title == "\ufffd\ufffd[31mred\ufffd"
    assert len(report.cases[1].name) <= ktap.NAME_LENGTH


def test_bounds() -> None:
    report = parse(
        "KTAP version 1\n1..4000000000\n" + "# finding: x\n# detail: y\n" * 5000 + "not ok 1 a\nok 999999999 b\n"
    )
    assert len(report.cases) == ktap.MAX_CASES
    assert len(report.cases[0].findings) == ktap.MAX_FINDINGS
    flood = KtapParser()
    for i in range(3 * ktap.MAX_CASES):
        flood.feed_line(f"# param k{i}=1")
        flood.feed_line("ok")
    assert flood.done == ktap.MAX_CASES
    assert len(flood.report().params) == ktap.MAX_PAIRS
    assert len(flood.report().errors) <= ktap.MAX_ERRORS + 3


def test_progress() -> None:
    parser = KtapParser()
    seen = []
    for line in GOOD.splitlines():
        parser.feed_line(line)
        seen.append((parser.done, parser.plan))
    assert (seen[0], seen[2], seen[-1]) == ((0, None), (0, 4), (4, 4))


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    parse(text)
    parse("KTAP version 1\n1..3\n" + text)


@given(st.lists(st.sampled_from([*GOOD.splitlines(), "Bail out!", "1..9", "  ok 1 x", "ok", "not ok"]), max_size=40))
def test_a_promise_is_kept_or_lost(lines: list[str]) -> None:
    report = parse("\n".join(["KTAP version 1", "1..4", *lines]))
    assert len(report.cases) >= 4
    passed = sum(case.status is Status.PASS for case in report.cases)
    assert passed <= sum(line.startswith("ok") for line in lines)


def test_words_inside_a_line_are_neither_plan_nor_result() -> None:
    report = parse("KTAP version 1\nplan: 1..7\n1..1\nall is ok 1 b\nok 1 a\nBail out? no\n")
    assert (report.plan, [case.name for case in report.cases], report.errors) == (1, ["a"], ())


@pytest.mark.parametrize("line", ["# detail: page 3", "# counter rounds=1", "# finding: bad"])
def test_what_the_running_case_said_last_is_kept(line: str) -> None:
    report = parse(f"KTAP version 1\n1..1\nok 1 a\n{line}\n")
    assert [case.status for case in report.cases] == [Status.PASS, Status.LOST]


def test_too_many_cases_are_told_once() -> None:
    text = "KTAP version 1\n1..1\nok 1 a\nok 99999 b\nok 99998 c\n"
    assert sum("outside" in error for error in parse(text).errors) == 1
    assert parse(f"KTAP version 1\n1..{ktap.MAX_CASES}\n").errors == (
        f"{ktap.MAX_CASES} of {ktap.MAX_CASES} cases did not report",
    )
