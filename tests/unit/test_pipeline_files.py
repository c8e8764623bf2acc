"""The pipelines of ci/ against the schemas of their services, and their shell against shellcheck."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pipelines
import pytest
import yaml

from rig.cli import main

ROOT = Path(__file__).parents[2]
CI = ROOT / "ci"
GITLAB, GITHUB, JENKINS = CI / "gitlab-ci.yml", CI / "github-workflow.yml", CI / "Jenkinsfile"


def checked(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.gitlab-ci", GITLAB),
        ("vendor.github-workflows", GITHUB),
        ("custom.github-workflows-require-timeout", GITHUB),
    ],
)
def test_it_is_what_the_service_takes(schema: str, file: Path, tmp_path: Path) -> None:
    done = checked(schema, file)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / file.name
    broken.write_text(re.sub(r"^( *)(run|script|timeout-minutes):", r"\1x-\2:", file.read_text(), flags=re.MULTILINE))
    assert checked(schema, broken).returncode == 1


def test_the_child_pipeline_is_what_gitlab_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for parts in ("5", "200"):
        assert main(["-f", str(ROOT / "rig.yaml"), "list", "--ci", "gitlab", f"parts={parts}"]) == 0
        child = tmp_path / "child.yml"
        child.write_text(GITLAB.read_text() + capsys.readouterr().out)
        done = checked("vendor.gitlab-ci", child)
        assert done.returncode == 0, done.stdout
        made = yaml.safe_load(child.read_text())
        assert all(len(f"rig-cells: [{part}]") < 255 for part in made["rig-cells"]["parallel"]["matrix"][0]["RIG_PART"])


def test_the_jenkinsfile_is_groovy() -> None:
    """The grammar is Groovy's; that the steps exist only Jenkins itself can say."""
    text = JENKINS.read_text()
    assert not pipelines.groovy(text).root_node.has_error
    assert pipelines.groovy(text.replace("stage('Cells') {", "stage('Cells') ")).root_node.has_error
    assert len(pipelines.shell_steps(text)) == 3


def scripts() -> list[tuple[str, str]]:
    found = [(f"Jenkinsfile-{n}", text) for n, text in enumerate(pipelines.shell_steps(JENKINS.read_text()))]
    workflow: dict[str, Any] = yaml.safe_load(GITHUB.read_text())
    for name, job in workflow["jobs"].items():
        found += [(f"github-{name}-{n}", step["run"]) for n, step in enumerate(job["steps"]) if "run" in step]
    config: dict[str, Any] = yaml.safe_load(GITLAB.read_text())
    for name, job in config.items():
        lines = [*config[".rig"]["before_script"], *job["script"]] if "script" in job else ()
        found += [(f"gitlab{name}", "\n".join(lines))] if lines else []
    return found


@pytest.mark.parametrize(("name", "text"), scripts(), ids=[name for name, _ in scripts()])
def test_the_shell_of_every_step_is_sound(name: str, text: str, tmp_path: Path) -> None:
    # RIG_ARGS is meant to be split into words; no step puts an expression of GitHub's into its script.
    assert "${{" not in text
    file = tmp_path / name
    file.write_text(f"set -e  # as all of them do\n{text}")
    shell = "sh" if name.startswith("Jenkins") else "bash"
    argv = ["shellcheck", "--shell", shell, "--exclude", "SC2086", "--format", "json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout) == []
    for line in text.splitlines():
        for word in re.findall(r"\$\w+", line):
            quoted = re.search(rf'"[^"]*{re.escape(word)}[^"]*"', line)
            assert word in ("$RIG_ARGS", "$code", "$cells") or quoted or line.lstrip().startswith("#"), line
