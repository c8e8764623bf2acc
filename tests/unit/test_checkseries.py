"""What b4 is told, and how the series of a mail is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import madeup as made
import pytest

from rig.errors import BuildError, ConfigError, HostError, SeriesError
from rig.jobs import checkseries
from rig.model import Finding, Judgement, Side, Status

FIRST = "a" * 40
CHANGE = "20260101-a-thing-0123456789ab"


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("[PATCH 0/3] all of it", 0),
        ("[PATCH v2 02/13] second", 2),
        ("[RFC PATCH 3/3] third", 3),
        ("[PATCH] alone", 1),
        ("no tag", 1),
    ],
)
def test_which_patch_a_mail_is(subject: str, number: int) -> None:
    assert checkseries.patch_number(subject) == number


def test_b4_keeps_the_series_on_a_branch(tmp_path: Path) -> None:
    file = tmp_path / "tracking.json"
    env = {"B4_TRACKING_FILE": str(file)}

    def origin(first: object, change: object) -> str:
        file.write_text(json.dumps({"series": {"first-patch-commit": first, "change-id": change}, "patches": []}))
        return checkseries.origin_of("id@b.c", env, tmp_path)

    assert origin(FIRST, CHANGE) == f"git:{tmp_path}#{FIRST}~1..b4/review/{CHANGE}~1"
    for first, change in (("--output=x", CHANGE), (FIRST, "../../up"), (FIRST, "-x"), (7, CHANGE), (FIRST, None)):
        assert origin(first, change) == "lore:id@b.c"
    for text in ("", "[]", '{"series": 1}', "[" * 100_000):
        file.write_text(text)
        assert checkseries.origin_of("id@b.c", env, tmp_path) == "lore:id@b.c"
    assert checkseries.origin_of("id@b.c", {}, tmp_path) == "lore:id@b.c"
    with pytest.raises(ConfigError, match="no Message-ID"):
        checkseries.origin_of("", {}, tmp_path)


@pytest.mark.parametrize("judgement", list(Judgement))
def test_every_verdict_is_a_status(judgement: Judgement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_JOB_URL", "https://ci/1")
    run = made.run(made.trial(Side.BASE), made.trial())
    run = replace(run, verdict=replace(run.verdict, judgement=judgement))
    (entry,) = checkseries.of_run(run, 0, 3, Path("results/x"))
    assert entry.keys() == {"tool", "status", "summary", "url", "details"}
    bad = judgement is Judgement.REGRESSION
    assert (entry["tool"], entry["status"] == "fail", entry["url"]) == ("rig", bad, "https://ci/1")
    assert entry["summary"].startswith(f"{judgement}: ")
    assert "\n" not in entry["summary"]
    assert checkseries.of_run(run, 1, 1, Path("results/x")) == [entry]  # a series of one patch has no cover letter
    assert checkseries.of_run(run, 2, 3, Path("results/x")) == []


def test_the_patch_that_breaks_the_build_fails_and_no_other() -> None:
    broken = Finding(oracle="build", kind="build", title="patch 2 breaks the debug build", signature="s", text="a.c:1")
    run = made.run(made.trial(Side.BASE), made.trial(Side.PATCHED, Status.FAIL, broken, prefix=2))
    (entry,) = checkseries.of_run(run, 2, 3, Path("results/x"))
    assert (entry["status"], entry["summary"]) == ("fail", "patch 2 breaks the debug build")
    assert checkseries.of_run(run, 1, 3, Path("results/x")) == []
    assert checkseries.of_run(run, 3, 3, Path("results/x")) == []


def test_only_the_series_fails_for_what_the_series_did() -> None:
    for error in (SeriesError("does not apply"), BuildError("does not build")):
        assert [(one["status"], one["summary"]) for one in checkseries.of_error(error)] == [("fail", error.summary)]
    for other in (HostError("no disk"), ConfigError("no such key")):
        (entry,) = checkseries.of_error(other)
        assert (entry["status"], entry["summary"]) == ("warn", f"not tested: {other.summary}")
