"""JUnit as GitLab and Jenkins read it: valid, stable names, any byte of a guest visible, nothing lost."""

from __future__ import annotations

import dataclasses
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import junitparser
import madeup as made
import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings
from madeup import BUG, GUEST, STALE, cell, run, trial

from rig.model import CaseResult, Finding, Side, Status, TrialResult
from rig.reports.junit import MAX_TEXT, write_junit
from rig.runs.results import Run

XSD: Any = xmlschema.XMLSchema(str(Path(__file__).parent / "data" / "junit.xsd"))

PUNCH = CaseResult(name="punch", status=Status.PASS, counters=(("rounds", 120),), seconds=2.0)
EXTEND = CaseResult(name="extend", status=Status.PASS, seconds=3.0)
STALE_PUNCH = dataclasses.replace(PUNCH, status=Status.FAIL, findings=(STALE,), reason=STALE.title)


def written(tmp_path: Path, *trials: TrialResult, root: Path | None = None) -> ET.Element:
    return read(tmp_path, run(*trials), root)


def read(tmp_path: Path, whole: Run, root: Path | None = None) -> ET.Element:
    path = tmp_path / "junit.xml"
    write_junit(path, whole, root or tmp_path)
    XSD.validate(str(path))
    junitparser.JUnitXml.fromfile(str(path))
    return ET.parse(path).getroot()


def case(top: ET.Element, name: str, suite: int = 0) -> ET.Element:
    (found,) = [one for one in top.findall("testsuite")[suite].findall("testcase") if one.get("name") == name]
    return found


def shape(top: ET.Element) -> list[tuple[str, str, str, str]]:
    return [
        (str(suite.get("name")), str(one.get("classname")), str(one.get("name")), one[0].tag if len(one) else "")
        for suite in top
        for one in suite.findall("testcase")
    ]


# -- the form ---------------------------------------------------------------------------------------------------------


def test_a_suite_per_machine_and_kernel_and_a_case_per_case(tmp_path: Path) -> None:
    top = written(
        tmp_path,
        trial(Side.BASE, cases=(PUNCH, EXTEND)),
        trial(Side.PATCHED, Status.FAIL, STALE, cases=(STALE_PUNCH, EXTEND)),
        trial(Side.PATCHED, cases=(PUNCH,), where=cell("xfs")),
        trial(Side.PATCHED, cases=(PUNCH,), where=cell(machine="smp8")),
    )
    assert shape(top) == [
        ("debug/smp4 base", "truncate-race.ext4", "extend", "system-out"),
        ("debug/smp4 base", "truncate-race.ext4", "punch", "system-out"),
        ("debug/smp4 patched", "truncate-race.ext4", "extend", "system-out"),
        ("debug/smp4 patched", "truncate-race.ext4", "punch", "failure"),
        ("debug/smp4 patched", "truncate-race.xfs", "punch", "system-out"),
        ("debug/smp8 patched", "truncate-race.ext4", "punch", "system-out"),
    ]
    assert (top.get("tests"), top.get("failures"), top.get("errors")) == ("6", "1", "0")


def test_names_are_the_same_whatever_happens_to_the_trials(tmp_path: Path) -> None:
    good = [trial(index=i, cases=(PUNCH, EXTEND)) for i in range(3)]
    bad = [good[0], trial(Side.PATCHED, Status.FAIL, STALE, index=7, cases=(STALE_PUNCH, EXTEND))]
    names = [[row[:3] for row in shape(written(tmp_path, *trials))] for trials in (good, bad)]
    assert names[0] == names[1]


def test_a_case_that_went_down_unnamed_gets_the_name_others_know(tmp_path: Path) -> None:
    crashed = (PUNCH, CaseResult(name="case-2", status=Status.CRASH, reason=BUG.title))
    top = written(
        tmp_path,
        trial(Side.BASE, cases=(PUNCH, EXTEND)),
        trial(Side.PATCHED, Status.CRASH, BUG, cases=crashed),
    )
    assert [row[2] for row in shape(top)] == ["extend", "punch"] * 2
    failure = case(top, "extend", 1).find("failure")
    assert failure is not None
    assert failure.get("message") == BUG.title


def test_a_trial_without_cases_is_a_case_of_its_own(tmp_path: Path) -> None:
    top = written(tmp_path, trial(Side.PATCHED, Status.LOST, reason="QEMU died: status 1"))
    error = case(top, "run").find("error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("lost", "QEMU died: status 1")
    assert top.get("errors") == "1"


def test_a_splat_beside_cases_that_all_passed_is_not_lost(tmp_path: Path) -> None:
    warning = dataclasses.replace(BUG, kind="warning", title="WARNING in foo", signature="warning:foo", fatal=False)
    top = written(tmp_path, trial(Side.PATCHED, Status.FAIL, warning, cases=(PUNCH, EXTEND)))
    failure = case(top, "run").find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("warning", "WARNING in foo")
    assert case(top, "punch").find("failure") is None


@pytest.mark.parametrize(
    ("status", "tag", "message"),
    [
        (Status.PASS, None, ""),
        (Status.FAIL, "failure", "why"),
        (Status.CRASH, "failure", "why"),
        (Status.TIMEOUT, "failure", "why"),
        (Status.LOST, "error", "why"),
        (Status.SKIP, "skipped", "why"),
        (Status.INCONCLUSIVE, "skipped", "inconclusive: why"),
    ],
)
def test_what_a_status_becomes(tmp_path: Path, status: Status, tag: str | None, message: str) -> None:
    top = written(
        tmp_path, trial(Side.PATCHED, status, reason="why", cases=(CaseResult(name="a", status=status, reason="why"),))
    )
    found = [one for one in case(top, "a") if one.tag != "system-out"]
    assert [one.tag for one in found] == ([tag] if tag else [])
    if found:
        assert found[0].get("message") == message


def test_the_worst_of_several_trials_decides_and_all_are_told(tmp_path: Path) -> None:
    top = written(
        tmp_path,
        trial(index=0, cases=(PUNCH,)),
        trial(Side.PATCHED, Status.FAIL, STALE, index=1, cases=(STALE_PUNCH,)),
        trial(Side.PATCHED, Status.LOST, index=2, cases=(dataclasses.replace(PUNCH, status=Status.LOST),)),
    )
    punch = case(top, "punch")
    assert punch[0].tag == "failure"
    out = str(punch.findtext("system-out"))
    assert "trial 0 seed 1000: PASS" in out
    assert "trial 1 seed 1001: FAIL stale data after hole punch rounds=120" in out
    assert "trial 2 seed 1002: LOST" in out


def test_several_findings_of_one_case_all_appear_once(tmp_path: Path) -> None:
    both = dataclasses.replace(
        STALE_PUNCH, findings=(STALE, dataclasses.replace(STALE, title="zeroes", signature="data:0"))
    )
    trials = [trial(Side.PATCHED, Status.FAIL, *both.findings, index=i, cases=(both,)) for i in range(3)]
    messages = [failure.get("message") for failure in case(written(tmp_path, *trials), "punch").findall("failure")]
    assert messages == ["stale data after hole punch (3 of 3 trials)", "zeroes (3 of 3 trials)"]


def test_a_case_that_fails_now_and_then_says_how_often(tmp_path: Path) -> None:
    top = written(
        tmp_path,
        trial(index=0, cases=(PUNCH,)),
        trial(Side.PATCHED, Status.FAIL, STALE, index=1, cases=(STALE_PUNCH,)),
        trial(index=2, cases=(PUNCH,)),
        trial(index=3, cases=(dataclasses.replace(PUNCH, status=Status.INCONCLUSIVE),)),
    )
    failure = case(top, "punch").find("failure")
    assert failure is not None
    assert failure.get("message") == "stale data after hole punch (1 of 3 trials)"
    assert "Flaky: 2 of the 4 trials of this case passed" in str(failure.text)


def test_failure_text_has_splat_place_and_reproducer(tmp_path: Path) -> None:
    crashed = CaseResult(name="punch", status=Status.CRASH, reason=BUG.title)
    one = trial(Side.PATCHED, Status.CRASH, BUG, cases=(crashed,))
    failure = case(written(tmp_path, one), "punch").find("failure")
    assert failure is not None
    assert failure.get("type") == "bug"
    text = str(failure.text)
    assert "kernel BUG at mm/filemap.c:154!" in text
    assert "Reproduce: rig test series=patches/fault-around-private select=debug/smp4/truncate-race/ext4" in text
    assert f"This trial: rig rerun {os.path.relpath(tmp_path / one.evidence)}" in text
    assert "seed 1000" in text
    assert "tcg" in text


def test_logs_are_attached_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trial(cases=(PUNCH,))
    folder = tmp_path / "results" / one.evidence
    folder.mkdir(parents=True)
    (folder / "console.log").write_text("x")
    out = str(case(written(tmp_path, one, root=tmp_path / "results"), "punch").findtext("system-out"))
    assert f"[[ATTACHMENT|{os.path.relpath(folder / 'console.log')}]]" in out
    assert "ktap.log" not in out
    monkeypatch.chdir(tmp_path)
    out = str(case(written(tmp_path, one, root=tmp_path / "results"), "punch").findtext("system-out"))
    assert f"[[ATTACHMENT|results/{one.evidence}/console.log]]" in out


def test_properties_tell_what_really_ran(tmp_path: Path) -> None:
    counted = (("pgfault", 40), ("thp_split_page", 0))
    top = written(tmp_path, trial(index=0, cases=(PUNCH,), coverage=counted), trial(index=1, cases=(PUNCH,)))
    properties = {one.get("name"): one.get("value") for one in top.iter("property")}
    assert properties["accelerator"] == "tcg"
    assert properties["cpus"] == str(GUEST.cpus)
    assert properties["hugepages.thp"] == "always"
    assert properties["hugepages.hugetlb"] == "8 of 2048 KiB"
    assert properties["tree"] == f"{1:040x}"
    assert properties["seeds"] == "1000 1001"
    assert properties["coverage.pgfault"] == "40"
    assert "coverage.thp_split_page" not in properties
    nowhere = written(tmp_path, trial(Side.PATCHED, Status.LOST, guest=None))
    assert {one.get("name"): one.get("value") for one in nowhere.iter("property")}["cpus"] == "unknown"


def test_kernels_in_the_middle_of_a_series_have_suites_of_their_own(tmp_path: Path) -> None:
    whole = run(trial(prefix=1, cases=(PUNCH,)), trial(prefix=2, cases=(PUNCH,)), trial(Side.BASE, cases=(PUNCH,)))
    patch = whole.series.patches[0]
    series = dataclasses.replace(whole.series, patches=(patch, dataclasses.replace(patch, number=2)))
    top = read(tmp_path, dataclasses.replace(whole, series=series))
    assert [suite.get("name") for suite in top] == ["debug/smp4 base", "debug/smp4 patch-1", "debug/smp4 patched"]


def test_a_run_without_trials_is_valid(tmp_path: Path) -> None:
    assert written(tmp_path).get("tests") == "0"


# -- what a guest may print -------------------------------------------------------------------------------------------


def test_any_byte_survives_or_is_shown(tmp_path: Path) -> None:
    raw = bytes(range(256)).decode("utf-8", "surrogateescape") + "]]>&<\ufffe\U00020000\ud800 end"
    finding = Finding(oracle="console", kind="b\x00g", title="a\x1b[31m\nb", signature="x", text=raw)
    broken = CaseResult(name="n\x07", status=Status.CRASH, findings=(finding,))
    top = written(tmp_path, trial(Side.PATCHED, Status.CRASH, finding, cases=(broken,)))
    failure = case(top, "n\\x07").find("failure")
    assert failure is not None
    text = str(failure.text)
    for shown in (
        "\\x00",
        "\\x1b",
        "\\x7f",
        "\\udcff",
        "\\ufffe",
        "\U00020000",
        "\\ud800",
        "]]>&<",
        "\t",
        "~",
        " end",
    ):
        assert shown in text
    assert failure.get("message") == "a\\x1b[31m b"
    assert failure.get("type") == "b\\x00g"


def test_carriage_returns(tmp_path: Path) -> None:
    finding = dataclasses.replace(BUG, text="one\r\ntwo\rthree")
    top = written(tmp_path, trial(Side.PATCHED, Status.CRASH, finding))
    text = "".join(str(failure.text) for failure in top.iter("failure"))
    assert "one\ntwo\\x0dthree" in text


def test_a_long_text_is_cut_with_a_note_and_keeps_both_ends(tmp_path: Path) -> None:
    finding = dataclasses.replace(BUG, text="begin " + "x" * (3 * MAX_TEXT) + " finish")
    (failure,) = written(tmp_path, trial(Side.PATCHED, Status.CRASH, finding)).iter("failure")
    text = str(failure.text)
    assert len(text) <= MAX_TEXT
    assert "begin" in text
    assert "characters cut here" in text
    assert text.rstrip().endswith("finish")


@settings(suppress_health_check=list(HealthCheck), max_examples=50)
@given(made.runs)
def test_any_run_is_valid_and_counts_add_up(tmp_path: Path, whole: Run) -> None:
    top = read(tmp_path, whole)
    suites = top.findall("testsuite")
    for name, tag in (("tests", "testcase"), ("failures", None), ("errors", None)):
        assert int(str(top.get(name))) == sum(int(str(suite.get(name))) for suite in suites)
        if tag:
            assert int(str(top.get(name))) == len(list(top.iter(tag)))
    bad = any(one.status.bad for one in whole.trials)
    assert bool(list(top.iter("failure"))) >= bad


def test_cases_after_the_one_that_crashed_keep_their_place(tmp_path: Path) -> None:
    crashed = CaseResult(name="bee", status=Status.CRASH, reason="bee went down")
    after = CaseResult(name="cee", status=Status.LOST, reason="not reached")
    other = dataclasses.replace(BUG, title="WARNING in foo", signature="warning:foo", kind="warning")
    top = written(tmp_path, trial(Side.PATCHED, Status.CRASH, BUG, other, cases=(PUNCH, crashed, after)))
    assert [(row[2], row[3]) for row in shape(top)] == [("bee", "failure"), ("cee", "error"), ("punch", "system-out")]
    error = case(top, "cee").find("error")
    assert error is not None
    assert error.get("message") == "not reached"
    first, second = (str(failure.text) for failure in case(top, "bee").findall("failure"))
    assert first.startswith("CRASH: bee went down\n")
    assert "Also seen in this trial:\n  WARNING in foo" in first
    assert "Also seen in this trial:\n  kernel BUG in" in second


def test_times_are_the_workloads_own_or_a_fair_share(tmp_path: Path) -> None:
    untimed = dataclasses.replace(EXTEND, seconds=0.0)
    top = written(tmp_path, trial(cases=(PUNCH, untimed)))
    assert [float(str(case(top, name).get("time"))) for name in ("punch", "extend")] == [2.0, 5.0]
    assert float(str(top.get("time"))) == 7.0
    assert top[0].get("timestamp") == "2026-01-02T03:04:05+00:00"
