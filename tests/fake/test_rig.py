"""The whole program, from `rig test` to its exit code, in a world of small real things: a kernel tree that compiles,
a QEMU that does as the kernel it is given says, and an SSH server behind it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakelinux
import fakeqemu
import jsonschema
import pytest
from fakelinux import BREAKS, GOOD

from rig.comparison.changes import SCHEMA as COMPARISON
from rig.front.ui import Ui
from rig.perturbation import perturb
from rig.pipeline import Options, Pipeline
from rig.runs.results import SCHEMA
from rig.settings.reading import load
from rig.trials import audit

ROOT = Path(__file__).resolve().parents[2]
CPUS = sorted(os.sched_getaffinity(0))
WAIT = 120.0  # seconds; only a broken rig takes so long
DOUBT = 4  # the exit code when a single trial failed beside one of the base that did not: that can be luck

KTAP = "KTAP version 1\n1..2\n# counter rounds=500\nok 1 punch-private\nok 2 truncate-shared\n"
OTHER = ("mm: count on", "mm/filemap.c", "return 2", "return 3")
FAILED = (
    "KTAP version 1\n1..2\n# finding: stale data after hole punch in a private mapping\n# detail: 12 pages\n"
    "not ok 1 punch-private\nok 2 truncate-shared\n"
)
STATE = "release 6.12.99\ncpus 2\nnodes 1\nthp always [madvise] never\nshmem_thp [never]\ntaint 0\nMemTotal: 9 kB\n"


def counters(**changes: int) -> str:
    """What a look at the kernel's counters prints."""
    zeros = dict.fromkeys((*audit.LRU, *audit.REACHED, "pgfault", "pgmigrate_success"), 0)
    return "".join(f"{name} {value}\n" for name, value in {**zeros, **changes}.items())


COUNTERS = counters()
CONFIG = """\
kernel: {{source: 'git:{tree}#main'}}
series: {series}
flavours: {{debug: [base, debug-vm]}}
machines: {{small: {{cpus: 2, memory: 512M}}}}
workloads: {{race: {{filesystems: [tmpfs]}}}}
budget: 1
trials: {trials}
timeouts: {{boot: 20, workload: 5}}
accel: tcg
store: store
"""


def machine(
    ktap: str = KTAP,
    *,
    status: int = 0,
    then: str = "",
    seconds: float = 0.0,
    acts: Sequence[Any] = (),
    left: str = COUNTERS,
) -> dict[str, Any]:
    """What a kernel does in the fake QEMU: boot, answer, and print `ktap` when the workload is run."""
    replies = [
        {"pattern": "uname -r", "stdout": STATE},
        {"pattern": "--budget", "stdout": ktap, "status": status, "then": then, "seconds": seconds},
        {"pattern": "umount", "stdout": f"{counters(pgfault=900)}rig-mark\n0\nrig-mark\n{left}"},
        {"pattern": "sleep .*stat_refresh", "stdout": left},
        {"pattern": "page_owner", "stdout": "folio_alloc+0x1/0x2\nnr_base_pages: 500\n"},
        {"pattern": "stat_refresh", "stdout": counters()},
        {"pattern": "kill -KILL", "stdout": ""},
    ]
    return {"acts": [*(acts or (["console", fakeqemu.BOOT], ["ready"], ["ssh"])), ["hang"]], "replies": replies}


@dataclass(frozen=True)
class World:
    """A project folder, and how to run the rig in it."""

    root: Path
    env: dict[str, str]

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rig", "-C", str(self.root), *words]

    def rig(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.env, capture_output=True, text=True, timeout=WAIT, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        # A suite that a script starts in the background inherits an ignored SIGINT; a person's shell gives the default.
        reset = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", reset, *self.argv(*words)],
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    @property
    def latest(self) -> Path:
        return self.root / "results" / "latest"

    def results(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.latest / "results.json").read_text())
        return data

    def statuses(self, side: str = "patched") -> list[str]:
        return [trial["status"] for trial in self.results()["trials"] if trial["side"] == side]


MakeWorld = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> MakeWorld:
    """Return a maker of worlds in which the base does as `base` says and the patched kernel as `patched`."""

    def make(
        patched: dict[str, Any],
        base: dict[str, Any] | None = None,
        *,
        trials: int = 1,
        edits: Sequence[tuple[str, str, str, str]] = (),
        plugins: bool = False,
    ) -> World:
        root = tmp_path / "project"
        tree = fakelinux.make_tree(tmp_path / "linux")
        before = json.dumps(base or machine())
        (tree / "machine.json").write_text(before)
        fakelinux.git(tree, "init", "--quiet", "--initial-branch=main")
        fakelinux.git(tree, "add", "--all", "--force")
        fakelinux.git(tree, "commit", "--quiet", "--message=base")
        after = json.dumps(patched)
        change = ("mm: change what happens", "machine.json", before, after if after != before else after + "\n")
        fakelinux.make_series(tree, root / "demo", edits or [GOOD, change])
        (root / "rig.yaml").write_text(CONFIG.format(tree=tree, series="demo", trials=trials))
        (root / "kconfigs").mkdir()
        (root / "kconfigs/base.config").write_text("CONFIG_SMP=y\nCONFIG_NET=y\n")
        (root / "kconfigs/debug-vm.config").write_text("CONFIG_DEBUG_VM=y\n")
        (root / "guest-workloads").mkdir()
        (root / "guest-workloads/race.c").write_text("int main(void)\n{\n\treturn 0;\n}\n")
        folder = fakeqemu.install(tmp_path / "bin", plugins=plugins).parent
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        return World(root, dict(os.environ) | {"PATH": path, "PYTHONPATH": str(ROOT), "CI": ""})

    return make


def qemus(world: World) -> list[int]:
    """Pids of fake QEMUs that belong to this world."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(b"fakeqemu.py" in word for word in words) and any(str(world.root).encode() in w for w in words):
                found.append(int(entry.name))
    return found


def all_gone(world: World) -> bool:
    end = time.monotonic() + 20
    while qemus(world) and time.monotonic() < end:
        time.sleep(0.05)
    return not qemus(world)


def test_pages_that_are_left_over_are_a_regression(world: MakeWorld) -> None:
    made = world(machine(left=counters(nr_inactive_file=500, pgfault=900)))
    assert made.rig("test").returncode == DOUBT
    (trial,) = [trial for trial in made.results()["trials"] if trial["side"] == "patched"]
    (finding,) = trial["findings"]
    assert (finding["oracle"], finding["kind"]) == ("audit", "leak")
    assert "500 pages" in finding["text"]
    assert "folio_alloc" in finding["text"]
    assert not any(character.isdigit() for character in finding["title"])
    looks = json.loads((made.latest / trial["evidence"] / "audit.json").read_text())
    assert looks["residue"] == [0, 500]


def test_a_workload_that_did_not_run_leaves_nothing_to_audit(world: MakeWorld) -> None:
    made = world(machine("KTAP version 1\nBail out! no space\n", status=99, left=counters(nr_inactive_file=500)))
    assert made.rig("test").returncode == 4
    assert made.statuses() == ["LOST"]
    assert not any(trial["findings"] for trial in made.results()["trials"])


def test_what_the_kernel_did_is_recorded_and_may_be_needed(world: MakeWorld) -> None:
    made = world(machine())
    assert made.rig("test", "workloads.race.needs={pgfault: 900}").returncode == 0
    assert all(["pgfault", 900] in trial["coverage"] for trial in made.results()["trials"])
    assert made.rig("test", "workloads.race.needs={pgmigrate_success: 1}").returncode == 4
    assert made.statuses() == ["INCONCLUSIVE"]
    assert "pgmigrate_success=0" in made.results()["trials"][0]["reason"]


def test_a_good_series_passes(world: MakeWorld) -> None:
    here = world(machine(), trials=2)
    done = here.rig("test")
    assert done.returncode == 0, done.stderr
    assert "CLEAN" in done.stdout
    data = here.results()
    assert (data["complete"], data["host"]["accelerator"]) == (True, "tcg")
    assert here.statuses("base") == here.statuses("patched") == ["PASS", "PASS"]
    seeds = {side: sorted(t["seed"] for t in data["trials"] if t["side"] == side) for side in ("base", "patched")}
    assert seeds["base"] == seeds["patched"] == [1, 2]
    suites = ET.parse(here.latest / "junit.xml").getroot()
    assert {case.get("name") for case in suites.iter("testcase")} == {"punch-private", "truncate-shared"}
    assert not list(suites.iter("failure"))
    assert not list(here.latest.glob("*.cpio"))
    assert not (here.latest / "keys").exists()


def test_a_failed_case_is_a_regression_with_its_finding(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1))
    done = here.rig("test")
    assert done.returncode == DOUBT, done.stderr
    assert "stale data after hole punch in a private mapping" in done.stdout
    assert here.statuses() == ["FAIL"]
    assert here.statuses("base") == ["PASS"]
    failure = next(ET.parse(here.latest / "junit.xml").getroot().iter("failure"))
    assert "stale data" in str(failure.get("message"))


def test_the_patched_kernel_alone_is_compared_with_nothing(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1), trials=2)
    assert "would run 2 trials of 1 cells on patched" in here.rig("-n", "test", "sides=[patched]").stderr
    done = here.rig("test", "sides=[patched]")
    assert done.returncode == DOUBT, done.stderr
    assert "no base trial to compare with" in done.stdout
    assert "no base trial counts: what was found cannot be laid on the series" in done.stdout
    data = here.results()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    assert (here.statuses("base"), here.statuses()) == ([], ["FAIL", "FAIL"])
    assert (data["config"]["sides"], data["complete"]) == (["patched"], True)
    assert not (here.latest / "trials/base").exists()
    suites = [suite.get("name") for suite in ET.parse(here.latest / "junit.xml").getroot().iter("testsuite")]
    assert suites == ["debug/small patched"]
    assert here.rig("test", "sides=base").returncode == 4
    assert (here.statuses("base"), here.statuses()) == (["PASS", "PASS"], [])
    assert here.rig("rerun", str(here.latest / "trials/base/debug/small/race/tmpfs/0")).returncode == 0
    listed = here.rig("list", "sides=patched")
    assert "1 cells x patched x 2 = 2 trials" in listed.stderr


def on_seed(seed: int, ktap: str, status: int) -> dict[str, Any]:
    """What a kernel does whose race is won with one seed alone."""
    made = machine()
    made["replies"].insert(0, {"pattern": f"--seed {seed} .*--budget", "stdout": ktap, "status": status})
    return made


def indices(here: World, side: str) -> list[int]:
    return sorted(trial["index"] for trial in here.results()["trials"] if trial["side"] == side)


ADAPTIVE = "trials={min: 1, max: 8, confidence: 0.95}"


def test_a_run_goes_on_where_it_is_in_doubt_until_the_answer_is_clear(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1))
    planned = here.rig("-n", "test", ADAPTIVE).stderr
    assert "would run 2 to 16 trials of 1 cells" in planned
    assert "a regression when the patched kernel alone shows it in 5 pairs of trials (95 % confidence)" in planned
    assert "no number of failures in 1 trial excludes luck" in here.rig("-n", "test", "trials=1").stderr
    done = here.rig("test", ADAPTIVE)
    assert done.returncode == 1, done.stderr
    assert indices(here, "base") == indices(here, "patched") == [0, 1, 2, 3, 4]
    data = here.results()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    assert {(one["side"], one["index"]): one["seed"] for one in data["trials"]} == {
        (side, index): index + 1 for side in ("base", "patched") for index in range(5)
    }
    (found,) = data["verdict"]["findings"]
    assert (found["judgement"], found["test"], found["stopped"]) == ("REGRESSION", "pairs", "clear")
    assert data["verdict"]["sampling"]["extended"] == [["debug/small/race/tmpfs", 5]]
    assert "1 cell went on, debug/small/race/tmpfs to 5; it ended as soon as the answer was clear" in done.stdout

    # Known issues are no reason to accuse, and reports are written again by them.
    (here.root / "known-issues.yaml").write_text(
        "issues: [{title: 'stale data*', reason: 'on its way', cells: debug/*}]"
    )
    again = here.rig("report")
    assert again.returncode == 0, again.stderr
    assert "KNOWN" in again.stdout
    assert "known by known-issues.yaml entry 1: on its way" in again.stdout
    (here.root / "known-issues.yaml").write_text("issues: [{title: 'stale data*'}]")
    for goal in ("test", "report"):
        refused = here.rig(goal)
        assert refused.returncode == 2
        assert "known-issues.yaml:1: issues.0.reason: missing" in refused.stderr


def test_a_run_that_is_resumed_makes_the_same_decisions(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1))
    running = here.start("test", ADAPTIVE)
    second = "trials/patched/debug/small/race/tmpfs/1/trial.json"
    end = time.monotonic() + WAIT
    while not list(here.root.glob(f"results/2*/{second}")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(WAIT)
    assert all_gone(here)
    kept = {path: path.stat().st_mtime_ns for path in here.latest.resolve().glob("trials/**/trial.json")}
    assert not (here.latest / "results.json").exists()
    done = here.rig("test", ADAPTIVE)
    assert done.returncode == 1, done.stderr
    assert "resuming" in done.stderr
    assert indices(here, "base") == indices(here, "patched") == [0, 1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_two_runs_are_compared(world: MakeWorld) -> None:
    here = world(on_seed(1, FAILED, 1))
    assert here.rig("test", "seed=5", "out=a").returncode == 0
    doubtful = here.rig("test", "trials={min: 1, max: 4}", "out=b")
    assert doubtful.returncode == DOUBT, doubtful.stderr
    assert "could not have changed it" in doubtful.stdout
    worse = here.rig("compare", "a/latest", "b/latest")
    assert worse.returncode == 1, worse.stderr
    assert worse.stdout.startswith("WORSE: stale data after hole punch in a private mapping is new (patched 0/1 before")
    assert "differs: trials: 1 -> 1 to 4; longer or more trials find more" in worse.stdout
    assert "rig rerun" in worse.stdout
    better = here.rig("compare", "b/latest/results.json", "a/latest")
    assert (better.returncode, better.stdout.partition(":")[0]) == (0, "NOTHING NEW")
    assert "  gone    stale data" in better.stdout
    told = json.loads(here.rig("--json", "compare", "a/latest", "b/latest").stdout)
    jsonschema.Draft202012Validator(json.loads(COMPARISON.read_text())).validate(told)
    assert [one["change"] for one in told["patches"]] == ["same", "same"]
    for words in (
        (),
        ("a/latest",),
        ("a/latest", "nowhere"),
        ("a/latest", "rig.yaml"),
        ("a/latest", "b/latest", "x=1"),
    ):
        refused = here.rig("compare", *words)
        assert refused.returncode == 2, words
        assert "rig compare RUN_A RUN_B" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_panic_in_the_middle_is_a_crash_with_its_splat(world: MakeWorld) -> None:
    here = world(machine("KTAP version 1\n1..2\nok 1 punch-private\n", then="panic", seconds=0.2))
    done = here.rig("test")
    assert done.returncode == DOUBT, done.stderr
    assert here.statuses() == ["CRASH"]
    assert "sysrq triggered crash" in (here.latest / "trials/patched/debug/small/race/tmpfs/0/console.log").read_text()


def test_a_kernel_that_hangs_in_boot_is_a_finding(world: MakeWorld) -> None:
    here = world(machine(acts=[["console", fakeqemu.BOOT]]))
    done = here.rig("test", "timeouts.boot=4")
    assert done.returncode == DOUBT, done.stderr
    assert here.statuses() == ["TIMEOUT"]
    assert "boot-hang" in json.dumps(here.results()["verdict"])


def test_a_machine_that_never_answers_ssh_is_told_apart(world: MakeWorld) -> None:
    here = world(machine(acts=[["console", fakeqemu.BOOT], ["ready"], ["deaf"]]))
    done = here.rig("test", "timeouts.boot=6")
    assert done.returncode == DOUBT, done.stderr
    assert here.statuses() == ["TIMEOUT"]
    assert "SSH" in here.results()["trials"][1]["reason"]


def test_a_workload_that_hangs_is_killed(world: MakeWorld) -> None:
    here = world(machine("KTAP version 1\n1..2\nok 1 punch-private\n", seconds=100))
    done = here.rig("test", "timeouts.workload=1")
    assert done.returncode == DOUBT, done.stderr
    assert here.statuses() == ["TIMEOUT"]


def test_a_hang_while_cleaning_up_is_a_finding(world: MakeWorld) -> None:
    stuck = machine()
    stuck["replies"][2] |= {"stdout": "", "seconds": 100}
    here = world(stuck)
    done = here.rig("test", "timeouts.workload=2")
    assert done.returncode == DOUBT, done.stderr
    assert here.statuses() == ["TIMEOUT"]


def test_a_guest_that_stops_answering_is_a_finding(world: MakeWorld) -> None:
    deaf = machine()
    deaf["replies"][0] |= {"stdout": "", "status": 1}
    here = world(deaf)
    assert here.rig("test").returncode == DOUBT
    assert here.statuses() == ["TIMEOUT"]


def test_a_qemu_that_dies_is_the_hosts_problem(world: MakeWorld) -> None:
    here = world(machine(acts=[["console", fakeqemu.BOOT], ["exit", 1]]))
    done = here.rig("test")
    assert done.returncode == 4, done.stderr
    assert here.statuses() == ["LOST"]
    assert "once more" in done.stderr


def test_a_qemu_that_cannot_start_stops_the_run(world: MakeWorld) -> None:
    here = world(machine(), {"stderr": "qemu: failed to set MSR\n", "status": 1})
    done = here.rig("test")
    assert done.returncode == 3
    assert "failed to set MSR" in done.stderr
    assert "Traceback" not in done.stderr


def test_silence_is_not_success(world: MakeWorld) -> None:
    here = world(machine("KTAP version 1\n1..2\nok 1 punch-private\n"))
    assert here.rig("test").returncode == DOUBT
    assert here.statuses() == ["FAIL"]


def test_garbage_on_the_console_and_in_the_stream(world: MakeWorld) -> None:
    noise = "KTAP version 1\n1..2\nok 1 a\x00\x1b]]>\nok 2 b\udcff<script>\n".encode("utf-8", "replace").decode()
    here = world(machine(noise, acts=[["garbage", 100000], ["console", fakeqemu.BOOT], ["ready"], ["ssh"]]))
    done = here.rig("test")
    assert done.returncode == 0, done.stdout + done.stderr
    ET.parse(here.latest / "junit.xml")


def test_a_series_that_does_not_build_still_gives_reports(world: MakeWorld) -> None:
    here = world(machine(), edits=[GOOD, BREAKS])
    done = here.rig("test")
    assert done.returncode == 1, done.stderr
    assert "patch 2 breaks the debug build" in done.stdout
    cases = {case.get("name"): case for case in ET.parse(here.latest / "junit.xml").getroot().iter("testcase")}
    assert "build" in cases
    assert len(list(ET.parse(here.latest / "junit.xml").getroot().iter("failure"))) == 1


def test_a_series_that_does_not_apply(world: MakeWorld) -> None:
    here = world(machine())
    for path in (here.root / "demo").glob("0001*"):
        path.write_text(path.read_text().replace("index ", "indix ").replace("return 3", "return 33"))
    done = here.rig("test")
    assert done.returncode == 1
    assert "patch 1/2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_cut_off_goes_on_where_it_stopped(world: MakeWorld, number: signal.Signals) -> None:
    here = world(machine(seconds=1.5), trials=3)
    with here.start("test") as running:
        end = time.monotonic() + WAIT
        while len(list(here.root.glob("results/*/trials/**/trial.json"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(WAIT) == (-number if number == signal.SIGKILL else 130)
    assert all_gone(here)
    done_before = {path: path.stat().st_mtime_ns for path in here.root.glob("results/2*/trials/**/trial.json")}
    done = here.rig("test")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    assert len(list(here.root.glob("results/2*"))) == 1
    assert len(here.results()["trials"]) == 6
    assert {path: path.stat().st_mtime_ns for path in done_before} == done_before


def test_two_rigs_on_one_store(world: MakeWorld) -> None:
    here = world(machine())
    with here.start("test", "out=one") as one, here.start("test", "out=two") as two:
        assert (one.wait(WAIT), two.wait(WAIT)) == (0, 0)
    for name in ("one", "two"):
        assert json.loads((here.root / name / "latest/results.json").read_text())["verdict"]["judgement"] == "CLEAN"


def test_a_trial_is_run_again_by_its_script(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1))
    here.rig("test", "matrix.exclude=[{machine: absent}]", "matrix.mode=pairwise")
    trial = here.latest.resolve() / "trials/patched/debug/small/race/tmpfs/0"
    done = subprocess.run(
        [trial / "reproduce.sh"], env=here.env, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "stale data after hole punch" in done.stdout
    assert list(trial.glob("rerun-1/trials/**/trial.json"))


def watched(seconds: float) -> dict[str, Any]:
    """A machine that tells how its threads are scheduled when the rig looks at it, has it work, and leaves it."""
    made = machine(seconds=seconds)
    for reply in made["replies"][:3]:
        reply["then"] = "schedule"
    return made


def schedules(here: World) -> list[list[str]]:
    """How the two vCPUs were scheduled before, at the end of, and after the workload of the patched kernel."""
    log = (here.latest / "trials/patched/debug/small/race/tmpfs/0/console.log").read_text()
    lines = [line for line in log.splitlines() if line.startswith("schedule ")]
    return [lines[number : number + 2] for number in range(0, len(lines), 2)]


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: an ordinary user can change nothing")
def test_threads_are_jittered_while_the_workload_runs_and_only_then(world: MakeWorld) -> None:
    here = world(watched(1.0))
    done = here.rig("test", "perturb.jitter=true", "perturb.interval_ms=1", "perturb.length_ms=20")
    assert done.returncode == 0, done.stderr
    data = here.results()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    able = perturb.means()
    for trial in data["trials"]:
        assert trial["perturbation"]["kinds"] == sorted(able.means)
        assert trial["perturbation"]["steps"] > 1
        assert trial["perturbation"]["note"] == able.note
    assert (f"vCPU jitter: {able.note}" in done.stderr) == bool(able.note)
    before, _, after = schedules(here)
    ours = f"schedule {os.sched_getscheduler(0)} {os.getpriority(os.PRIO_PROCESS, 0)} {CPUS}"
    assert before == after == [ours, ours]
    assert here.rig("rerun", str(here.latest / "trials/base/debug/small/race/tmpfs/0")).returncode == 0
    (again,) = (json.loads(path.read_text())["trial"] for path in here.latest.glob("trials/**/rerun-1/**/trial.json"))
    assert again["perturbation"]["kinds"] == sorted(able.means)


def directed(here: World) -> list[dict[str, Any]]:
    data = here.results()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    return [trial["perturbation"]["directed"] for trial in data["trials"]]


def test_a_qemu_without_plugins_is_said_and_runs_all_the_same(world: MakeWorld) -> None:
    here = world(machine())
    done = here.rig("test", "perturb.stalls.share=0.2")
    assert done.returncode == 0, done.stderr
    assert "no stalls inside functions: this QEMU takes no plugin" in done.stderr
    assert "-plugin: invalid option" in done.stderr
    for one in directed(here):
        assert (one["means"], one["stalls"]) == ("", 0)
        assert "takes no plugin" in one["note"]
    assert "-plugin" not in (here.latest / "trials/base/debug/small/race/tmpfs/0/qemu.cmd").read_text()


def test_a_series_that_touches_no_function_is_said(world: MakeWorld) -> None:
    before = json.dumps(machine())
    here = world(machine(), edits=[("mm: nothing in C", "machine.json", before, before + "\n")], plugins=True)
    done = here.rig("test", "perturb.stalls.share=0.2")
    assert done.returncode == 0, done.stderr
    assert all("touches no function" in one["note"] for one in directed(here))


def test_a_kernel_without_kept_commands_is_stalled_by_its_symbols(world: MakeWorld) -> None:
    """The fake kernel has symbols and no saved commands, and the fake QEMU loads no plugin: both are said."""
    here = world(machine(), edits=[OTHER], plugins=True)
    done = here.rig("test", "perturb.stalls.share=0.2")
    assert done.returncode == 0, done.stderr
    for one in directed(here):
        assert "represented by their callers" in one["note"]
        assert "QEMU has not loaded the plugin" in one["note"]
        assert [(f["function"], f["kind"], f["stalls"]) for f in one["functions"]] == [("other", "touched", 0)]
    for side in ("base", "patched"):
        words = shlex.split((here.latest / f"trials/{side}/debug/small/race/tmpfs/0/qemu.cmd").read_text())
        assert words[words.index("-plugin") + 1].endswith("/stalls.ctl")
    assert here.rig("rerun", str(here.latest / "trials/base/debug/small/race/tmpfs/0")).returncode == 0
    (again,) = here.latest.glob("trials/**/rerun-1/**/trial.json")
    assert json.loads(again.read_text())["trial"]["perturbation"]["directed"]["functions"]


def test_under_kvm_the_guest_stalls_itself_or_it_is_said_why_not(world: MakeWorld) -> None:
    here = world(machine(), edits=[OTHER], plugins=True)

    def note(*words: str) -> str:
        config = load(here.root / "rig.yaml", ["perturb.stalls.share=0.2", *words])
        pipeline = Pipeline(config, Options(jobs=1), Ui(quiet=True))
        kit = pipeline.stall_kit(pipeline.kernels.values(), "kvm")
        assert kit.library is None
        assert kit.arsenals is None
        return kit.note

    assert "takes no stalls by kprobes" in note()  # the fake kernel is built without
    assert note("perturb.stalls.by=plugin") == "QEMU takes plugins under TCG only, and the machines run under KVM"


def test_without_jitter_threads_are_left_alone(world: MakeWorld) -> None:
    here = world(watched(0.3))
    done = here.rig("test")
    assert done.returncode == 0, done.stderr
    data = here.results()
    assert [trial["perturbation"] for trial in data["trials"]] == [None, None]
    before, during, after = schedules(here)
    assert before == during == after


def test_a_stack_is_tested_and_run_again_as_one_series(world: MakeWorld) -> None:
    here = world(machine(FAILED, status=1))
    names = sorted((here.root / "demo").glob("000[12]*"))
    for folder, name in zip(("below", "above"), names, strict=True):
        (here.root / folder).mkdir()
        name.rename(here.root / folder / "0001-only.patch")
    done = here.rig("test", "series=[below, above]")
    assert done.returncode == DOUBT, done.stderr
    series = here.results()["series"]
    assert (series["name"], len(series["patches"])) == ("below+above", 2)
    assert series["path"] == f"{here.root / 'below'}, {here.root / 'above'}"
    assert series["key"] == json.loads((here.latest / "plan.json").read_text())["series"]
    assert here.rig("rerun", str(here.latest / "trials/patched/debug/small/race/tmpfs/0")).returncode == 1
    assert "below+above, 2 patches" in (here.latest / "summary.txt").read_text()


MARKERS = "# Read me\n\n<!-- verdicts:begin -->\n<!-- verdicts:end -->\n"


def judged(here: World, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(here.root / "ci/judge-patches"), *words]
    return subprocess.run(argv, env=here.env, capture_output=True, text=True, timeout=WAIT, check=False)


def project(here: World) -> Path:
    """Make a world a project that judges its patches, with the series `demo`, and return the folder of these."""
    patches, program = here.root / "patches", here.root / ".venv/bin/rig"
    (patches / "controls").mkdir(parents=True)
    (here.root / "demo").rename(patches / "demo")
    for home in (patches, patches / "controls"):
        (home / "README.md").write_text(MARKERS)
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rig "$@"\n')
    program.chmod(0o755)
    shutil.copytree(ROOT / "ci", here.root / "ci")
    return patches


def test_patches_are_judged_and_the_verdicts_recorded(world: MakeWorld, tmp_path: Path) -> None:
    here = world(machine(FAILED, status=1))
    patches = project(here)
    control = fakelinux.make_series(tmp_path / "linux", patches / "controls/other", [OTHER])
    (control / "control.yaml").write_text(
        "kind: bad\nwrong: It is. Really.\nrace: cow\noracle: o\nsignature: stale*\non: demo\nkconfig: extra\n"
    )
    fakelinux.make_series(tmp_path / "linux", patches / "misfit", [OTHER])
    for path in (patches / "misfit").glob("0001*"):
        path.write_text(path.read_text().replace("index ", "indix ").replace("return 2", "return 22"))
    (here.root / "kconfigs/extra.config").write_text("CONFIG_NET=y\n")

    done = judged(here, "--", "budget=2")
    assert done.returncode == 1, done.stderr  # one of them could not be judged
    said = done.stdout.splitlines()[-3:]
    assert said == [
        "demo: judged (rig ended with 4) and recorded",
        "misfit: not judged: rig ended with 1 and left no results: do the patches apply?",
        "controls/other: judged (rig ended with 4) and recorded",
    ]
    known = json.loads((patches / "verdicts.json").read_text())["series"]
    assert sorted(known) == ["controls/other", "demo"]
    (run,) = known["controls/other"]["runs"]
    assert run["flavours"] == [["debug", ["base", "debug-vm", "extra"]]]
    assert (run["budget"], run["patches"]) == (2.0, 3)
    assert str(tmp_path) not in json.dumps(known)
    assert "caught 1 of 1 known-bad" in (patches / "controls/README.md").read_text()
    assert "**INCONCLUSIVE**, base 2, patched 2 trials" in (patches / "README.md").read_text()

    # What is said of a finding's command line is true, and gives a run that can be recorded as well.
    again = here.rig(*shlex.split(run["findings"][0]["reproduce"])[1:])
    assert again.returncode == DOUBT, again.stderr
    record = [sys.executable, str(here.root / "ci/record-verdicts")]
    assert subprocess.run([*record, str(here.latest)], env=here.env, timeout=WAIT, check=False).returncode == 0
    assert "caught 2/2" in (patches / "controls/README.md").read_text()
    assert subprocess.run([*record, "--check"], env=here.env, timeout=WAIT, check=False).returncode == 0
    (patches / "README.md").write_text(MARKERS)
    assert subprocess.run([*record, "--check"], env=here.env, timeout=WAIT, check=False).returncode == 1
    assert judged(here, "absent").returncode == 2


def test_every_prefix_is_tried_and_recorded_once(world: MakeWorld, tmp_path: Path) -> None:
    here = world(machine(FAILED, status=1))
    text = (here.root / "rig.yaml").read_text().replace("small:", "smp4:").replace("race:", "fault-stress:")
    (here.root / "rig.yaml").write_text(text)
    (here.root / "guest-workloads/race.c").rename(here.root / "guest-workloads/fault-stress.c")
    patches = project(here)
    first = next((patches / "demo").glob("0001*"))
    (patches / "longer").mkdir()
    shutil.copy(first, patches / "longer/0001-same.patch")
    fakelinux.make_series(tmp_path / "linux", tmp_path / "more", [OTHER])
    shutil.copy(next((tmp_path / "more").glob("0001*")), patches / "longer/0002-other.patch")

    done = judged(here, "--prefixes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "demo: 2 of 2 prefixes are on record",
        "longer: 2 of 2 prefixes are on record",
    ]
    known = json.loads((patches / "verdicts.json").read_text())
    (shared,) = known["prefixes"].values()  # the first patch of both; the others are whole series
    assert [run["id"] for run in shared] == [path.name for path in here.root.glob("results-judge/prefixes/demo-1/2*")]
    assert shared[0]["trials"] == [["debug/smp4/fault-stress/tmpfs", [["PASS", 1]]]]
    assert not list(here.root.glob("results-judge/prefixes/longer-1"))
    (run,) = known["series"]["demo"]["runs"]
    assert (run["budget"], [count["side"] for count in run["trials"]]) == (3.0, ["patched"])
    table = (patches / "README.md").read_text()
    assert "| 1/2 prefixes: debug; smoke trial failed: 2 |" in table
    assert "| 2/2 prefixes: debug |" in table
    assert str(tmp_path) not in json.dumps(known)

    again = judged(here, "--prefixes", "demo")  # all is known, so nothing is run
    assert (again.returncode, again.stdout) == (0, "demo: 2 of 2 prefixes are on record\n")
    first.write_text(first.read_text().replace("return four", "return 4"))
    lost = judged(here, "--prefixes", "demo", "--", "kernel.source=git:absent#main")
    assert lost.returncode == 1
    assert lost.stdout.splitlines()[-1] == "demo: 0 of 2 prefixes are on record; not: 1, 2"
    unknown = judged(here, "--prefixes", "controls/absent")
    assert (unknown.returncode, "no series 'controls/absent'" in unknown.stderr) == (2, True)


def test_the_goals_one_by_one(world: MakeWorld) -> None:
    here = world(machine())
    planned = here.rig("-n", "test")
    assert "would build" in planned.stderr
    assert "would run 2 trials" in planned.stderr
    assert not (here.root / "results").exists()
    assert here.rig("apply", "build").returncode == 0
    assert "(up to date)" in here.rig("build").stderr
    assert here.rig("report").returncode == 2
    assert here.rig("-s", "test").stderr == ""
    files = ("report.html", "junit.xml", "summary.md", "summary.txt")
    for name in files:
        (here.latest / name).unlink()
    assert here.rig("report").returncode == 0
    assert all((here.latest / name).exists() for name in files)
    assert json.loads(here.rig("--json", "test").stdout)["verdict"]["judgement"] == "CLEAN"


def test_results_that_cannot_be_written(world: MakeWorld) -> None:
    here = world(machine())
    done = here.rig("test", "out=/proc/nowhere")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_came_from_elsewhere_is_reported_on_without_its_project(world: MakeWorld, tmp_path: Path) -> None:
    here = world(machine())
    assert here.rig("test").returncode == 0
    there = tmp_path / "download"
    shutil.copytree(here.latest.resolve(), there / "run")
    (there / "run" / "report.html").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "rig", "-C", str(there), "report", "run"],
        env=here.env, capture_output=True, text=True, timeout=WAIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CLEAN: ")
    assert "CLEAN" in (there / "run" / "report.html").read_text()
    absent = here.rig("report", "no/such/run")
    assert (absent.returncode, "not the folder of a run" in absent.stderr) == (2, True)


@pytest.mark.parametrize("interrupted", [False, True])
def test_on_a_terminal_the_cells_are_a_live_table(world: MakeWorld, interrupted: bool) -> None:
    # The table is drawn once a second, and there must be time left to interrupt.
    here = world(machine(FAILED, status=1, seconds=20.0 if interrupted else 2.0))
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 72, 0, 0))
    env = {name: value for name, value in here.env.items() if name not in ("CI", "NO_COLOR")} | {"TERM": "xterm"}
    # A session of its own, whose terminal this is: Ctrl-C comes from there.
    own = (
        "import os, sys; os.setsid(); os.close(os.open(os.ttyname(1), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", own, *here.argv("test")]
    started = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, at = b"", 0
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the last of them is gone
            break
        if not chunk:
            break
        seen += chunk
        if interrupted and not at and b"left" in seen:
            os.write(ours, b"\x03")
            at = len(seen)
    code = started.wait(WAIT)
    os.close(ours)
    text = seen.decode(errors="replace")
    assert "of 2 trials" in text
    assert "▶" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is there again
    assert "Traceback" not in text
    if interrupted:
        assert code == 130
        assert b"goes on where this one stopped" in seen[at:]
    else:
        assert code == 4  # once on each side is little
        assert "see it again:" in text
        assert "rig test series=" in text
