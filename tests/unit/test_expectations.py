"""Known issues: what they cover, what they do to a verdict, and that nothing goes under in them."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import pytest
from madeup import BUG, GUEST, STALE, cell, kernel, trial

from rig.errors import ConfigError
from rig.model import Finding, Judgement, Side, Status, TrialResult, Verdict
from rig.settings.config import Trials
from rig.verdicts.expectations import NOTHING, Issue, Known, read
from rig.verdicts.questions import rules_of
from rig.verdicts.verdict import Rules, fold

BASE, PATCHED = Side.BASE, Side.PATCHED
TODAY = date(2026, 5, 1)
FILE = """\
issues:
  - title: "kernel BUG in filemap_*"
    cells: ["*/ext4", "*/xfs"]
    kernels: patched
    reason: under work
    link: https://example.org/1
    expires: 2026-05-01
  - signature: data:*
    reason: TCG tears stores
"""


def known(text: str = FILE, folder: Path | None = None, today: date = TODAY) -> Known:
    assert folder is not None
    (folder / "known-issues.yaml").write_text(text)
    return read(folder / "known-issues.yaml", today)


def issue(**keys: object) -> Known:
    return Known("known-issues.yaml", (Issue.model_validate({"reason": "it is flaky", **keys}),), TODAY)


def crashes(side: Side, number: int, *, finding: Finding = BUG, where: str = "ext4") -> list[TrialResult]:
    return [trial(side, Status.CRASH, finding, where=cell(where), index=i) for i in range(number)]


def passes(side: Side, number: int, *, where: str = "ext4") -> list[TrialResult]:
    return [trial(side, where=cell(where), index=i) for i in range(number)]


def judged(some: list[TrialResult], what: Known) -> Verdict:
    return fold(some, Rules(known=what))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    found = known(folder=tmp_path)
    assert [(one.title, one.signature, one.cells, one.kernels) for one in found.issues] == [
        ("kernel BUG in filemap_*", None, ("*/ext4", "*/xfs"), ("patched",)),
        (None, "data:*", ("*",), ("*",)),
    ]
    entry = found.entry(1)
    assert (entry.entry, entry.reason) == ("known-issues.yaml entry 1", "under work")
    assert (entry.link, entry.expires) == ("https://example.org/1", "2026-05-01")
    assert read(None, TODAY) == NOTHING
    assert known("", tmp_path).issues == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("    reason: under work\n", ""), "known-issues.yaml:2: issues.0.reason: missing"),
        (
            ("reason: TCG", "raeson: TCG"),
            "known-issues.yaml:9: issues.1.raeson: unknown key, expected one of title, sig",
        ),
        (("reason: TCG", "raeson: TCG"), "did you mean 'reason'?"),
        (("2026-05-01", "soon"), "known-issues.yaml:7: issues.0.expires: 'soon': "),
        (("signature: data:*", "cells: debug/*"), "known-issues.yaml:8: issues.1: neither title nor signature"),
        (("issues:", "isues:"), "known-issues.yaml:1: isues: unknown key"),
        (("  - title", "- title"), "known-issues.yaml:3: not valid YAML"),
        (('"kernel BUG in filemap_*"', '""'), "issues.0.title: '': "),
    ],
)
def test_an_entry_that_is_not_right_is_told_in_one_sentence(
    change: tuple[str, str], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        known(FILE.replace(*change), tmp_path)
    assert expected in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "absent.yaml", TODAY)


# -- what an entry covers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "covered"),
    [
        ({"title": "kernel BUG in *"}, True),
        ({"title": "BUG"}, False),
        ({"signature": "bug:filemap_unaccount_folio"}, True),
        ({"signature": "bug:*", "title": "stale*"}, False),
        ({"title": "*", "cells": "*/xfs"}, False),
        ({"title": "*", "cells": ["*/xfs", "debug/*"]}, True),
        ({"title": "*", "kernels": "patched"}, True),
        ({"title": "*", "kernels": "base"}, False),
        ({"title": "*", "kernels": "6.12.*"}, True),
        ({"title": "*", "kernels": "6.1.*"}, False),
        ({"title": "*", "kernels": ["6.1.*", "patched"]}, True),
    ],
)
def test_what_an_entry_covers(keys: dict[str, object], covered: bool) -> None:
    assert (issue(**keys).match(BUG, trial(PATCHED)) == 1) == covered


def test_a_kernel_that_never_answered_is_known_by_its_tree() -> None:
    silent = trial(PATCHED, Status.CRASH, BUG, guest=None)
    what = issue(title="*", kernels=GUEST.release)
    assert what.match(BUG, silent) is None
    assert rules_of(Trials(), what, [kernel()]).known.match(BUG, silent) == 1


def test_the_first_entry_that_covers_it_speaks() -> None:
    both = Known("k", tuple(Issue(title=title, reason=title) for title in ("nothing", "kernel*", "*")), TODAY)
    assert both.match(BUG, trial()) == 2


# -- what it does to a verdict ----------------------------------------------------------------------------------------


def test_a_known_issue_is_no_regression_and_still_shown_with_its_reason() -> None:
    some = [*passes(BASE, 4), *crashes(PATCHED, 4)]
    assert fold(some).judgement is Judgement.REGRESSION
    verdict = judged(some, issue(title="kernel BUG*", link="https://example.org/2", expires="2026-06-01"))
    (found,) = verdict.findings
    assert (verdict.judgement, found.judgement) == (Judgement.KNOWN, Judgement.KNOWN)
    assert (str(found.patched), str(found.base), found.p_adjusted) == ("4/4", "0/4", None)
    assert found.expected is not None
    assert (found.expected.reason, found.expected.link) == ("it is flaky", "https://example.org/2")
    assert "known by known-issues.yaml entry 1, until 2026-06-01: it is flaky (https://example.org/2)" in found.sentence
    assert verdict.sentence.startswith(f"Only what is known: {BUG.title}")


def test_what_it_does_not_cover_accuses_all_the_same() -> None:
    some = [*passes(BASE, 4), *passes(BASE, 4, where="xfs"), *crashes(PATCHED, 4), *crashes(PATCHED, 4, where="xfs")]
    (found,) = judged(some, issue(title="kernel*", cells="*/xfs")).findings
    assert (found.judgement, str(found.patched)) == (Judgement.REGRESSION, "4/8")
    assert "known in 4 more patched trials" in found.sentence
    beside = [*some, *(dataclasses.replace(one, index=9) for one in crashes(PATCHED, 1, finding=STALE))]
    titles = {one.title: one.judgement for one in judged(beside, issue(title="kernel*")).findings}
    assert titles == {BUG.title: Judgement.KNOWN, STALE.title: Judgement.INCONCLUSIVE}


def test_known_failures_do_not_make_all_failures_together_worse() -> None:
    """Known on the patched kernel alone, beside two findings in doubt: their sum must not count the known one."""
    some = [*passes(BASE, 8), *crashes(PATCHED, 8)]
    some[8:10] = [trial(PATCHED, Status.FAIL, STALE, index=0), trial(PATCHED, Status.TIMEOUT, reason="hung", index=1)]
    verdict = judged(some, issue(title="kernel*"))
    assert verdict.judgement is Judgement.INCONCLUSIVE
    assert fold(some).judgement is Judgement.REGRESSION


def test_a_known_issue_of_the_base_does_not_turn_into_a_fix_or_into_an_accusation() -> None:
    some = [*crashes(BASE, 6), *crashes(PATCHED, 6)]
    (found,) = judged(some, issue(title="kernel*")).findings
    assert (found.judgement, str(found.base), str(found.patched)) == (Judgement.KNOWN, "6/6", "6/6")
    (found,) = judged(some, issue(title="kernel*", kernels="base")).findings
    assert (found.judgement, found.p_value) == (Judgement.KNOWN, 1.0)
    (gone,) = judged([*crashes(BASE, 6), *passes(PATCHED, 6)], issue(title="kernel*")).findings
    assert (gone.judgement, gone.expected is not None) == (Judgement.KNOWN, True)


# -- nothing goes under -----------------------------------------------------------------------------------------------


def test_an_entry_that_has_expired_is_not_applied_and_told() -> None:
    some = [*passes(BASE, 4), *crashes(PATCHED, 4)]
    last, after = issue(title="kernel*", expires="2026-05-01"), issue(title="kernel*", expires="2026-04-30")
    assert judged(some, last).judgement is Judgement.KNOWN
    verdict = judged(some, after)
    assert verdict.judgement is Judgement.REGRESSION
    told = "known-issues.yaml entry 1 (kernel*) expired on 2026-04-30 and was not applied: it is flaky"
    assert told in verdict.notes
    assert not any("entry 1" in note for note in judged(some, last).notes)


def test_an_entry_that_nothing_matched_is_told() -> None:
    some = [*passes(BASE, 1), *passes(PATCHED, 1)]
    assert "known-issues.yaml entry 1 (kernel*) matched nothing" in judged(some, issue(title="kernel*")).notes
    elsewhere = judged(some, issue(signature="bug:*", cells="release/*"))
    assert "known-issues.yaml entry 1 (bug:*) is about cells that did not run" in elsewhere.notes
