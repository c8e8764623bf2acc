"""The pipelines of ci/, job by job, and what they are made of: kernels that travel, parts of a run, and the merge."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakelinux
import jsonschema
import pipelines
import pytest
from fakelinux import BREAKS, GOOD
from test_rig import DOUBT, FAILED, ROOT, WAIT, MakeWorld, World, machine, world

from rig.runs.results import SCHEMA

__all__ = ["world"]  # the fixture

#: Two cells, so that two jobs share the run.
MACHINES = "{small: {cpus: 2, memory: 512M}}"
TWO = "{small: {cpus: 2, memory: 512M}, tiny: {cpus: 1, memory: 512M}}"

SERVICES: dict[str, tuple[type[pipelines.GitHub | pipelines.GitLab | pipelines.Jenkins], str]] = {
    "github": (pipelines.GitHub, "github-workflow.yml"),
    "gitlab": (pipelines.GitLab, "gitlab-ci.yml"),
    "jenkins": (pipelines.Jenkins, "Jenkinsfile"),
}


def project(here: World) -> World:
    """The world as a project with two cells that a pipeline can check out."""
    file = here.root / "rig.yaml"
    file.write_text(file.read_text().replace(MACHINES, TWO))
    shutil.copytree(ROOT / "ci", here.root / "ci")
    (here.root / "ci/setup").write_text(pipelines.SETUP.format(python=sys.executable))
    return here


@pytest.mark.parametrize("name", SERVICES)
def test_a_pipeline_comes_to_what_one_run_comes_to(world: MakeWorld, tmp_path: Path, name: str) -> None:
    # Two failures of two trials may be luck, four of four are not: only the merged run accuses.
    here = project(world(machine(FAILED, status=1), trials=2))
    alone = here.rig("test")
    assert alone.returncode == 1, alone.stderr
    expected = pipelines.counted(here.latest / "junit.xml")
    shutil.rmtree(here.root / "results")
    shutil.rmtree(here.root / "store")

    kind, file = SERVICES[name]
    home = tmp_path / "service"
    home.mkdir()
    service = kind(here.root, home, pipelines.environment(here.env["PATH"], ROOT))
    original = service.step if isinstance(service, pipelines.Jenkins) else service.one
    tree = tmp_path / "linux"

    def watched(job: str, *words: Any, **named: Any) -> Any:
        done = original(job, *words, **named)
        if tree.exists():
            tree.rename(tmp_path / "gone")  # only the job that builds has the base
        return done

    setattr(service, "step" if isinstance(service, pipelines.Jenkins) else "one", watched)
    service.run(here.root / "ci" / file, "budget=1 select=debug/*")

    assert [one.code for one in service.ran] == [0, *([DOUBT, DOUBT] if name == "gitlab" else [0, 0]), 1], [
        (one.name, one.code, one.output[-2000:]) for one in service.ran
    ]
    for one in service.ran[1:3]:
        assert "importing" not in one.output
        assert "CC " not in one.output
    (folder,) = service.ran[-1].folder.glob("results/2*")
    assert pipelines.counted(folder / "junit.xml") == expected
    assert "<html" in (folder / "report.html").read_text()
    assert sum(expected.values()) == 8
    done = json.loads((folder / "results.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(done)
    assert (done["complete"], done["config"]["part"], len(done["trials"])) == (True, [], 8)
    for trial in done["trials"]:
        assert (folder / trial["evidence"] / "console.log").is_file()
    if isinstance(service, pipelines.GitHub):
        assert service.summary.count("## rig: REGRESSION") == 1
        assert "::group::Run the trials" in service.ran[1].output
        assert list((home / "artifacts/report").glob("2*/junit.xml"))
    if isinstance(service, pipelines.GitLab):
        assert "\x1b[0Ksection_start:" in service.ran[1].output
        assert list((home / "artifacts/rig-report/results").glob("2*/junit.xml"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_patch_that_breaks_the_build_ends_the_pipeline_with_a_report(
    world: MakeWorld, tmp_path: Path, name: str
) -> None:
    here = project(world(machine(), edits=[GOOD, BREAKS]))
    kind, file = SERVICES[name]
    (tmp_path / "service").mkdir()
    service = kind(here.root, tmp_path / "service", pipelines.environment(here.env["PATH"], ROOT))
    service.run(here.root / "ci" / file, "")
    (only,) = service.ran
    assert only.code == 1, only.output
    assert "patch 2/2" in only.output
    (folder,) = only.folder.glob("results/2*")
    assert sum(pipelines.counted(folder / "junit.xml").values()) == 2
    if isinstance(service, pipelines.GitHub):
        assert "breaks the debug build" in service.summary


# -- kernels that travel ----------------------------------------------------------------------------------------------


def test_kernels_are_taken_into_another_store(world: MakeWorld) -> None:
    here = world(machine())
    assert here.rig("export", "a.rig").returncode == 0
    done = here.rig("import", "a.rig", "store=other")
    assert done.returncode == 0, done.stderr
    assert "debug base+2" in done.stderr
    assert "(up to date)" in here.rig("build", "store=other").stderr
    again = here.rig("export", "b.rig")
    assert again.returncode == 0, again.stderr
    assert (here.root / "a.rig").read_bytes() == (here.root / "b.rig").read_bytes()


def test_an_archive_is_of_one_series_one_base_and_its_kernels(world: MakeWorld, tmp_path: Path) -> None:
    here = world(machine())
    assert here.rig("export", "a.rig").returncode == 0
    shutil.copytree(here.root / "demo", here.root / "other")
    for path in (here.root / "other").glob("0001*"):
        path.write_text(path.read_text().replace("return four", "return 4"))

    def refused(*words: str) -> str:
        done = here.rig("test", "from=a.rig", *words)
        assert done.returncode in (2, 3), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "is of the series demo" in refused("series=other")
    assert "the imported archive is of git:" in refused(f"kernel.source=dir:{tmp_path / 'linux'}")
    (here.root / "kconfigs/more.config").write_text("CONFIG_SMP=y\n")
    assert "holds no second kernel of prefix 0" in refused("flavours={second: [more]}")
    shutil.rmtree(here.root / "store")
    shutil.rmtree(tmp_path / "linux")
    assert here.rig("test", "from=a.rig").returncode == 0
    shutil.rmtree(here.root / "demo")
    assert here.rig("test", "from=a.rig").returncode == 0


# -- parts and the merge ----------------------------------------------------------------------------------------------


@pytest.fixture
def parted(world: MakeWorld) -> Callable[..., World]:
    """Return a maker of a world whose two cells were run as parts, in one/ and two/."""

    def make(*words: str) -> World:
        here = project(world(machine()))
        for out, part in (("one", "1/2"), ("two", "debug/tiny/*")):
            done = here.rig("test", f"part={part}", f"out={out}", *words)
            assert done.returncode == 0, done.stderr
        return here

    return make


def test_parts_belong_together_or_are_refused(parted: Callable[..., World]) -> None:
    here = parted()
    done = here.rig("merge", "one", "two")
    assert done.returncode == 0, done.stderr
    assert "CLEAN" in done.stdout
    assert here.results()["complete"] is True
    assert here.rig("report").returncode == 0
    trial = here.latest / "trials/patched/debug/tiny/race/tmpfs/0"
    assert here.rig("rerun", str(trial)).returncode == 0

    def refused(*words: str) -> str:
        bad = here.rig("merge", *words)
        assert bad.returncode == 2, bad.stderr
        assert "Traceback" not in bad.stderr
        return bad.stderr

    assert "it would count twice" in refused("one", "two", "results")
    assert "the budget differs: 1.0 and 2.0" in (
        here.rig("test", "part=2/2", "out=three", "budget=2").stderr + refused("one", "three")
    )
    assert "no folder of a run" in refused("absent")
    assert "usage: rig merge" in refused()


def test_a_trial_of_a_pipeline_is_run_again_elsewhere(world: MakeWorld, tmp_path: Path) -> None:
    """With the archive and the results: neither the base, nor the store, nor the project is where it was."""
    here = project(world(machine(FAILED, status=1)))
    assert here.rig("export", "kernels.rig").returncode == 0
    assert here.rig("test", "from=kernels.rig", "part=2/2").returncode == DOUBT
    results = shutil.copytree(here.latest.resolve(), tmp_path / "brought")
    here.root.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere/store")
    shutil.rmtree(tmp_path / "linux")
    trial = results / "trials/patched/debug/tiny/race/tmpfs/0"
    again = subprocess.run(
        [sys.executable, "-m", "rig", "rerun", str(trial), "from=kernels.rig"],
        cwd=tmp_path / "elsewhere",
        env=here.env | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert again.returncode == 1, again.stderr
    assert "stale data after hole punch" in again.stdout


def test_a_part_that_is_missing_is_no_pass(parted: Callable[..., World]) -> None:
    here = parted()
    for path in here.root.glob("two/2*/results.json"):
        path.unlink()
    done = here.rig("merge", "one", "two")
    assert done.returncode == 4, done.stdout
    assert "was cut off" in done.stderr
    assert "no part of the run has this cell" in done.stdout
    data = here.results()
    assert (data["complete"], data["verdict"]["judgement"]) == (False, "INCONCLUSIVE")
    assert Counter(trial["status"] for trial in data["trials"]) == {"PASS": 2, "LOST": 2}
    top = ET.parse(here.latest / "junit.xml").getroot()
    assert int(top.get("errors", 0)) == 2
    assert here.rig("rerun", str(here.latest / "trials/patched/debug/tiny/race/tmpfs/0")).returncode == 0


# -- b4 ---------------------------------------------------------------------------------------------------------------


def test_b4_itself_reads_what_the_check_says(world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import email
    import email.message
    import email.policy

    from b4.review import checks

    here = world(machine(FAILED, status=1), trials=4)
    for name in ("PATH", "PYTHONPATH", "CI"):
        monkeypatch.setenv(name, here.env[name])
    cover, first, second = (
        email.message_from_bytes(path.read_bytes(), _class=email.message.EmailMessage, policy=email.policy.default)
        for path in sorted((here.root / "demo").glob("*.patch"))
    )
    command = shlex.join([*here.argv("check-series", "--b4"), "series=demo"])

    def asked(mail: email.message.EmailMessage, words: str = "") -> list[dict[str, str]]:
        return checks.run_series_checks(("id", mail), [f"{command} {words}".strip()], str(tmp_path))

    (entry,) = asked(cover)
    assert (entry["tool"], entry["status"]) == ("rig", "fail")
    assert entry["summary"].startswith("REGRESSION: The patched kernel fails: stale data")
    assert "rig rerun" in entry["details"]
    assert asked(first) == asked(second) == []
    assert len(list(here.root.glob("results/2*"))) == 1  # what is known is not run again
    (entry,) = asked(cover, "series=absent")
    assert (entry["status"], "no such folder" in entry["summary"]) == ("fail", True)

    # Without series= the mail's own is meant: the branch that b4 put it on.
    repo = tmp_path / "linux"
    fakelinux.git(repo, "checkout", "--quiet", "-b", "b4/review/a-change")
    fakelinux.git(repo, "am", "--quiet", *(str(path) for path in sorted((here.root / "demo").glob("000[12]*"))))
    patched = fakelinux.git(repo, "rev-parse", "HEAD~1")
    fakelinux.git(repo, "commit", "--quiet", "--allow-empty", "--message=tracking")
    tracking = tmp_path / "tracking.json"
    tracking.write_text(json.dumps({"series": {"first-patch-commit": patched, "change-id": "a-change"}}))
    argv = here.argv("check-series", "--b4")
    extra = {"B4_TRACKING_FILE": str(tracking)}
    (entry,) = checks.run_series_checks(("id", cover), [shlex.join(argv)], str(repo), extra_env=extra)
    assert entry["summary"].startswith("REGRESSION")
    assert here.results()["series"]["path"] == f"git:{repo}#{patched}~1..b4/review/a-change~1"


def test_check_series_without_b4_tells_a_person(world: MakeWorld) -> None:
    here = world(machine())
    assert here.rig("check-series").returncode == 0
    again = here.rig("check-series")
    assert (again.returncode, "has it" in again.stderr, "CLEAN" in again.stdout) == (0, True, True)
    assert len(list(here.root.glob("results/2*"))) == 1


def test_in_ci_a_failure_leaves_its_log_with_the_results(world: MakeWorld, tmp_path: Path) -> None:
    """A base that does not build: the log lies in a store that is gone with the job."""
    here = world(machine())
    (tmp_path / "linux/mm/memory.c").write_text("int memory(void) { return 3 }\n")
    fakelinux.git(tmp_path / "linux", "commit", "--quiet", "--all", "--message=broken")
    shutil.rmtree(here.root / "demo")
    fakelinux.make_series(tmp_path / "linux", here.root / "demo", [BREAKS])
    quiet = here.rig("build")
    assert quiet.returncode == 3
    assert not (here.root / "results/failure").exists()
    here.env.update(CI="true", GITHUB_ACTIONS="true")
    done = here.rig("build")
    assert done.returncode == 3, done.stderr
    assert "does not build in flavour debug" in done.stderr
    assert f"see:  {here.root / 'results/failure'}" in done.stderr
    (log,) = (here.root / "results/failure").glob("*.log")
    assert "error:" in log.read_text()
    assert done.stderr.index("::endgroup::") < done.stderr.index("rig: the base does not build")
