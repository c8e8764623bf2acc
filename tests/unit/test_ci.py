"""The rig in a pipeline: whose log it is, sections, text that commands nobody, and what is kept of a failure."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import BuildError
from rig.front.ui import Ui
from rig.jobs import ci
from rig.jobs.ci import Service

ROOT = Path(__file__).parents[2]
GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Service.NONE),
        ({"CI": "false", "GITLAB_CI": "true"}, Service.NONE),
        (GITHUB, Service.GITHUB),
        ({"CI": "true", "GITLAB_CI": "true"}, Service.GITLAB),
        ({"CI": "1"}, Service.OTHER),
    ],
)
def test_the_service_is_known_by_its_variables(environment: dict[str, str], expected: Service) -> None:
    assert ci.service(environment) is expected


def test_the_address_of_the_job() -> None:
    assert ci.job_url({"CI_JOB_URL": "https://x/1"}) == "https://x/1"
    assert ci.job_url({"BUILD_URL": "https://y/2"}) == "https://y/2"
    parts = {"GITHUB_SERVER_URL": "https://z", "GITHUB_REPOSITORY": "a/b", "GITHUB_RUN_ID": "3"}
    assert ci.job_url(parts) == "https://z/a/b/actions/runs/3"
    assert ci.job_url({"GITHUB_RUN_ID": "3"}) == ""


@given(st.text())
def test_no_text_is_a_command_to_github(text: str) -> None:
    shown = ci.plain(f"{text}\n  ::add-mask::x\n##[group]y", Service.GITHUB)
    # The runner trims a line and looks for `::` at its start, and for `##[` anywhere.
    assert not any(line.strip().startswith("::") for line in re.split(r"[\r\n]", shown))
    assert "##[" not in shown


@given(st.text())
def test_no_text_moves_the_cursor_or_opens_a_section(text: str) -> None:
    for service in (Service.GITHUB, Service.GITLAB, Service.OTHER):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", ci.plain(f"{text}\x1b[0K\rsection_start:1:a\r", service))
    assert ci.plain(text, Service.NONE) == text


def test_sections_are_closed_also_when_something_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CI", "true")

    def said(**variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            ui = Ui()
            assert not ui.live
            with contextlib.suppress(KeyError), ui.section("trials", "Run"):
                ui.say("::warning::x")
                raise KeyError
        return capsys.readouterr().err

    assert said(GITHUB_ACTIONS="true").splitlines() == ["::group::Run", "\\::warning::x", "::endgroup::"]
    clear = "\x1b\\[0K"
    expected = f"{clear}section_start:\\d+:trials\r{clear}Run\n::warning::x\n{clear}section_end:\\d+:trials\r{clear}\n"
    assert re.fullmatch(expected, said(GITLAB_CI="true"))
    assert said() == "::warning::x\n"


def test_a_terminal_in_ci_is_no_terminal() -> None:
    main, end = pty.openpty()
    env = {"PATH": os.environ["PATH"], "CI": "true", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    code = "from rig.front.ui import Ui\nui = Ui()\nui.progress('half')\nui.say('done')\nui.settle()\n"
    subprocess.run([sys.executable, "-c", code], stderr=end, env=env, check=True, timeout=60)
    os.close(end)
    assert b"\x1b" not in os.read(main, 4096)
    os.close(main)


def test_lines_keep_their_order_in_a_pipe() -> None:
    """Standard output goes line by line, so it stands where it belongs among the lines of standard error."""
    code = (
        "import sys\nfrom rig.jobs import ci\nci.tame_streams(ci.service())\n"
        "print('one')\nprint('two', file=sys.stderr)\nprint('three')\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    def order(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=env | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    assert order(CI="true") == "one\ntwo\nthree\n"
    assert order() == "two\none\nthree\n"


def test_what_an_error_points_to_is_kept_with_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "store/build.log"
    log.parent.mkdir()
    log.write_bytes(b"early" + b"x" * 100)
    monkeypatch.setattr(ci, "KEPT", 100)
    folder = ci.keep_failure(tmp_path / "results", BuildError("it does not build", evidence=log))
    assert folder == tmp_path / "results/failure"
    assert (folder / "build.log").read_bytes() == b"x" * 100
    assert "it does not build" in (folder / "error.txt").read_text()
    assert ci.keep_failure(tmp_path / "results", BuildError("again")) == folder
    assert [path.name for path in folder.iterdir()] == ["error.txt"]
    assert ci.keep_failure(Path("/proc/nowhere"), BuildError("x")) is None
