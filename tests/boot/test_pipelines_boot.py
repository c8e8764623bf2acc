"""The pipelines of ci/ on real kernels, job by job: what one job builds others boot, and one verdict comes of it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pipelines
import pytest

from rig.model import Kernel
from rig.runs.results import SCHEMA

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "results", "results-*")

#: `pte-overwritten` fails in nearly every trial, and five such trials beside five that pass exclude luck.
ARGS = " ".join(
    (
        "series=patches/controls/pte-overwritten",
        'flavours={"debug":["base","debug-vm"]}',
        "matrix={}",
        "select=[debug/smp4/truncate-race/tmpfs,debug/smp4/static-faults/ext4]",
        "budget=3",
        "trials=5",
    )
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: For a job, on a host that does other things, too.
SECONDS = 3600.0

pytestmark = pytest.mark.boot


@pytest.mark.parametrize(
    ("kind", "file"), [(pipelines.GitHub, "github-workflow.yml"), (pipelines.GitLab, "gitlab-ci.yml")]
)
def test_the_jobs_come_to_one_verdict(
    real_store: Path,
    built_kernel: Kernel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[pipelines.GitHub | pipelines.GitLab],
    file: str,
) -> None:
    assert built_kernel
    project, home = tmp_path / "project", tmp_path / "service"
    shutil.copytree(ROOT, project, ignore=LEFT_OUT, symlinks=True)
    (project / "ci/setup").write_text(pipelines.SETUP.format(python=sys.executable))
    cached = project / ".rig-store"
    cached.symlink_to(real_store)
    home.mkdir()
    service = kind(project, home, pipelines.environment(PATH, project), SECONDS)
    original = service.one

    def watched(*words: Any, **named: Any) -> Any:
        done = original(*words, **named)
        cached.unlink(missing_ok=True)  # only the job that builds has the cache
        return done

    monkeypatch.setattr(service, "one", watched)
    service.run(project / "ci" / file, ARGS)

    said = [(one.name, one.code, one.output[-3000:]) for one in service.ran]
    assert len(service.ran) == 4, said
    assert (service.ran[0].code, service.ran[-1].code) == (0, 1), said
    for one in service.ran[1:]:
        assert "importing" not in one.output
        assert "building" not in one.output
    (folder,) = service.ran[-1].folder.glob("results/2*")
    data = json.loads((folder / "results.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    assert (data["complete"], data["verdict"]["judgement"], len(data["trials"])) == (True, "REGRESSION", 20)
    assert not any(trial["findings"] for trial in data["trials"] if trial["side"] == "base")
    assert all((folder / trial["evidence"] / "console.log").is_file() for trial in data["trials"])
    merged = pipelines.counted(folder / "junit.xml")
    parts = [found for one in service.ran[1:-1] for found in one.folder.glob("parts/*/2*/junit.xml")]
    assert len(parts) == 2
    names = [{case[:3] for case in pipelines.counted(part)} for part in parts]
    assert {case[:3] for case in merged} == names[0] | names[1]
    assert {case[0] for case in merged if case[3]} == {"debug/smp4 patched"}
    assert "<html" in (folder / "report.html").read_text()
