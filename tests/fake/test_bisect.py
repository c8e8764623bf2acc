"""`rig bisect` as a whole: series and histories in the fake world, whose kernels fail always, or now and then."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakelinux
import jsonschema
import pytest
from test_rig import COUNTERS, FAILED, KTAP, WAIT, MakeWorld, World, all_gone, machine, world

from rig.bisection.outcomes import SCHEMA

__all__ = ["world"]  # the fixture

GOOD, BAD = machine(), machine(FAILED, status=1)
OTHER = machine("KTAP version 1\n1..1\n# finding: something else\nnot ok 1 punch-private\n", status=1)
DEAD: dict[str, Any] = {"acts": [["panic"]]}
TITLE = "stale data after hole punch in a private mapping"
COUNT = "mm/memory.c"


def sometimes(seeds: str) -> dict[str, Any]:
    """A kernel that fails with the seeds that the pattern matches, and passes with others."""
    made = machine()
    bad = {"pattern": rf"--seed (?:{seeds}) --budget", "stdout": FAILED, "status": 1}
    made["replies"] = [bad, *made["replies"]]
    return made


def give(here: World, kernels: Sequence[dict[str, Any] | str], *, base: dict[str, Any] = GOOD) -> World:
    """Put a series into the world: a patch for each kernel; one that is a word puts that into the C file instead."""
    tree = here.root.parent / "linux"
    shutil.rmtree(here.root / "demo", ignore_errors=True)
    (tree / "machine.json").write_text(json.dumps(base))
    fakelinux.git(tree, "commit", "--quiet", "--all", "--allow-empty", "--message=the base of it")
    edits, now, code = [], json.dumps(base), "return 3;"
    for number, kernel in enumerate(kernels, 1):
        if isinstance(kernel, str):
            edits.append((f"mm: change {number}", COUNT, code, kernel))
            code = kernel
            continue
        after = json.dumps(kernel)
        if after == now.strip():  # a patch has to change something
            after = now + "\n"
        edits.append((f"mm: change {number}", "machine.json", now, after))
        now = after
    fakelinux.make_series(tree, here.root / "demo", edits)
    return here


def latest(here: World) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((here.root / "results/bisect/latest/bisect.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    return data


def accused(data: dict[str, Any]) -> list[tuple[int, int | None]]:
    return [(one["number"], one["fixed_by"]) for one in data["culprits"]]


def test_the_patch_is_named_and_all_reports_say_so(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, GOOD, BAD, BAD, BAD])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    assert "Patch 3 brought it" in done.stdout
    data = latest(here)
    assert (data["status"], data["mode"], accused(data)) == ("found", "series", [(3, None)])
    assert data["culprits"][0]["subject"] == "mm: change 3"
    (finding,) = data["findings"]
    assert (finding["title"], finding["cell"]) == (TITLE, "debug/small/race/tmpfs")
    assert finding["probability"] >= 0.95
    counts = {count["number"]: (count["failures"], count["trials"]) for count in finding["counts"]}
    assert counts[3][0] >= 2  # one crash convicts nobody
    assert counts[2][0] == 0 < counts[2][1]
    assert counts[0][1] >= 1
    root = here.root / "results/bisect/latest"
    cases = {case.get("name"): case for case in ET.parse(root / "junit.xml").getroot().iter("testcase")}
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["3: mm: change 3"]
    assert "<svg" in (root / "bisect.svg").read_text()
    assert "| 3 |" in (root / "summary.md").read_text()
    assert TITLE in (root / "summary.txt").read_text()
    assert not (root / "keys").exists()
    assert not list(root.glob("*.cpio"))
    again = here.rig("rerun", str(root / finding["example"]))
    assert again.returncode == 1, again.stderr
    assert TITLE in again.stdout


def test_a_clean_tip_leaves_nothing_to_bisect(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, GOOD])
    done = here.rig("bisect", "looks=3")
    assert done.returncode == 0, done.stderr
    assert "nothing to bisect" in done.stdout
    data = latest(here)
    assert (data["status"], data["trials"], data["culprits"]) == ("clean", 3, [])
    assert "failure rates above 63 % per trial are excluded at 95 %" in data["sentence"]


def test_what_the_base_has_too_is_laid_on_nobody(world: MakeWorld) -> None:
    here = give(world(GOOD), [BAD, BAD], base=BAD)
    done = here.rig("bisect")
    assert done.returncode == 0, done.stderr
    assert "The base has it, too" in done.stdout
    assert (latest(here)["status"], latest(here)["culprits"]) == ("base", [])


def test_a_bug_that_shows_now_and_then_is_found(world: MakeWorld) -> None:
    rare = sometimes("2|3|7|9|13|14|18|21|22|26|30|31")
    here = give(world(GOOD), [GOOD, rare, rare, rare])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    data = latest(here)
    assert accused(data) == [(2, None)]
    assert 0.1 < data["findings"][0]["rate"] < 0.7


def test_one_stray_crash_convicts_nobody(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, GOOD, sometimes("1")])
    done = here.rig("bisect", "limit=15")
    assert done.returncode == 4, done.stdout
    data = latest(here)
    assert (data["status"], data["culprits"]) == ("undecided", [])
    assert data["findings"][0]["probability"] < 0.95 or data["findings"][0]["counts"][-1]["failures"] == 1


def test_a_prefix_that_does_not_build_widens_the_answer(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, "retrun 3;", BAD, "return 3;"])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    assert "Patch 2 breaks the build, and patch 4 mends it" in done.stdout
    data = latest(here)
    broken, found = data["findings"]
    assert (broken["kind"], broken["culprits"][0]["number"], broken["culprits"][0]["fixed_by"]) == ("build", 2, 4)
    assert sorted(one["number"] for one in found["culprits"]) == [2, 3, 4]
    assert "nothing tells them apart: 2 does not build: mm/memory.c" in found["sentence"]
    assert [state["state"] for state in data["prefixes"]] == ["built", "built", "broken", "broken", "built"]


def test_a_broken_build_before_the_bug_does_not_blur_it(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, "retrun 3;", "return 3;", BAD, BAD])
    assert here.rig("bisect").returncode == 1
    found = next(one for one in latest(here)["findings"] if one["kind"] != "build")
    assert [one["number"] for one in found["culprits"]] == [4]


def test_a_tip_that_does_not_build_is_laid_on_its_patch(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, GOOD, "retrun 3;", GOOD, GOOD])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert accused(latest(here)) == [(3, None)]


def test_a_prefix_that_does_not_boot_is_left_out(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, DEAD, BAD, BAD])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    data = latest(here)
    assert sorted(one["number"] for one in data["culprits"]) == [2, 3]
    assert "2 does not boot: kernel panic: sysrq triggered crash" in data["findings"][0]["sentence"]
    assert data["prefixes"][2]["state"] == "unbootable"


def test_every_prefix_shows_what_the_tip_does_not(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, BAD, BAD, GOOD, GOOD])
    assert here.rig("bisect", "looks=1").returncode == 0
    done = here.rig("bisect", "--every-prefix")
    assert done.returncode == 1, done.stderr
    assert "Patch 2 brought it and patch 4 took it away again" in done.stdout
    data = latest(here)
    assert (data["mode"], accused(data)) == ("every-prefix", [(2, 4)])
    assert all(state["trials"] >= 3 for state in data["prefixes"])


def test_two_findings_share_their_trials_and_others_are_told_on_the_side(world: MakeWorld) -> None:
    both = "KTAP version 1\n1..2\n# finding: one thing\nnot ok 1 a\n# finding: another thing\nnot ok 2 b\n"
    one = "KTAP version 1\n1..2\n# finding: one thing\nnot ok 1 a\nok 2 b\n"
    here = give(world(GOOD), [OTHER, GOOD, machine(one, status=1), machine(both, status=1)])
    done = here.rig("bisect")
    assert done.returncode == 1, done.stderr
    data = latest(here)
    found = {one["title"]: [culprit["number"] for culprit in one["culprits"]] for one in data["findings"]}
    assert found["one thing"] == [3]
    assert found["another thing"] == [4]
    tried = [state["trials"] for state in data["prefixes"]]
    assert sum(tried) == data["trials"]
    picked = here.rig("bisect", "signature=another*")
    assert picked.returncode == 1
    assert [one["title"] for one in latest(here)["findings"]] == ["another thing"]


def cut_off(here: World, number: signal.Signals, *words: str) -> None:
    """Cut a bisection off after three trials and run it again; each trial must still be there, as it was."""
    pattern = "results/bisect/2*/prefixes/*/trials/**/trial.json"
    with here.start("bisect", *words) as running:
        end = time.monotonic() + WAIT
        while len(list(here.root.glob(pattern))) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        running.send_signal(number)
        assert running.wait(WAIT) == (-number if number == signal.SIGKILL else 130)
    assert all_gone(here)
    before = {path: path.stat().st_mtime_ns for path in here.root.glob(pattern)}
    assert len(before) >= 3
    done = here.rig("bisect", *words)
    assert done.returncode == 1, done.stderr
    assert "resuming" in done.stderr
    assert "trials are there already" in done.stderr
    assert len([path for path in (here.root / "results/bisect").glob("2*") if path.is_dir()]) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert latest(here)["trials"] == len(list(here.root.glob(pattern)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_bisection_that_was_cut_off_loses_no_trial(world: MakeWorld, number: signal.Signals) -> None:
    here = give(world(GOOD), [GOOD, BAD, BAD, BAD, BAD, BAD])
    cut_off(here, number)
    assert accused(latest(here)) == [(2, None)]


def test_when_the_time_is_up_it_says_what_it_knows_and_goes_on_from_there(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, GOOD, BAD, BAD])
    done = here.rig("bisect", "limit=0.01")
    assert done.returncode == 4, done.stdout + done.stderr
    assert latest(here)["status"] == "undecided"
    first = latest(here)["id"]
    done = here.rig("bisect", "limit=1000")
    assert done.returncode == 1, done.stderr
    assert (latest(here)["id"], accused(latest(here))) == (first, [(3, None)])


def test_a_dry_run_tries_nothing(world: MakeWorld) -> None:
    here = give(world(GOOD), [GOOD, BAD])
    done = here.rig("-n", "bisect")
    assert done.returncode == 0, done.stderr
    assert "then search 2 patches" in done.stderr
    assert not (here.root / "results").exists()


# -- histories --------------------------------------------------------------------------------------------------------


def commit(tree: Path, kernel: dict[str, Any], subject: str) -> str:
    text = json.dumps(kernel)
    path = tree / "machine.json"
    path.write_text(text if text != path.read_text() else text + "\n")
    fakelinux.git(tree, "commit", "--quiet", "--all", f"--message={subject}")
    return fakelinux.git(tree, "rev-parse", "HEAD")


def make_history(here: World) -> tuple[Path, str]:
    """Forty commits with a merged branch among them, in which the bug is; returns the tree and the bad commit."""
    tree = here.root.parent / "linux"
    fakelinux.git(tree, "tag", "good")
    for number in range(15):
        commit(tree, GOOD, f"mm: step {number}")
    fakelinux.git(tree, "checkout", "--quiet", "-b", "side")
    (tree / "mm/side.c").write_text("int side(void)\n{\n\treturn 1;\n}\n")
    fakelinux.git(tree, "add", "--force", "mm/side.c")
    fakelinux.git(tree, "commit", "--quiet", "--message=mm: begin a branch")
    bad = commit(tree, BAD, "mm: the bad one")
    fakelinux.git(tree, "checkout", "--quiet", "main")
    for number in range(10):
        (tree / "mm/memory.c").write_text(f"int memory(void)\n{{\n\treturn {30 + number};\n}}\n")
        fakelinux.git(tree, "commit", "--quiet", "--all", f"--message=mm: count {number}")
    fakelinux.git(tree, "merge", "--quiet", "--no-edit", "side")
    for number in range(10):
        (tree / "mm/memory.c").write_text(f"int memory(void)\n{{\n\treturn {60 + number};\n}}\n")
        fakelinux.git(tree, "commit", "--quiet", "--all", f"--message=mm: more {number}")
    return tree, bad


def test_the_commit_of_a_history_is_found_inside_a_merged_branch(world: MakeWorld) -> None:
    here = world(GOOD)
    tree, bad = make_history(here)
    source = f"kernel.source=git:{tree}"
    done = here.rig("bisect", source, "good=good", "bad=main")
    assert done.returncode == 1, done.stderr
    data = latest(here)
    assert (data["mode"], [one["commit"] for one in data["culprits"]]) == ("history", [bad])
    assert "Commit " in done.stdout
    assert sum(state["trials"] > 0 for state in data["prefixes"]) < 14  # of 38
    again = here.rig("rerun", str(here.root / "results/bisect/latest" / data["findings"][0]["example"]))
    assert again.returncode == 1, again.stderr
    assert here.rig("bisect", source, "good=main", "bad=good").returncode == 2
    assert here.rig("bisect", source, "good=good", "bad=absent").returncode == 2
    assert here.rig("bisect", source, "good=good").returncode == 2


def test_git_bisect_runs_the_rig(world: MakeWorld) -> None:
    here = world(GOOD)
    tree = here.root.parent / "linux"
    for number in range(3):
        commit(tree, GOOD, f"mm: step {number}")
    (tree / "mm/memory.c").write_text("int memory(void)\n{\n\tretrun 3;\n}\n")
    fakelinux.git(tree, "commit", "--quiet", "--all", "--message=mm: a typo")
    fakelinux.git(tree, "checkout", "--quiet", "HEAD~1", "--", "mm/memory.c")
    fakelinux.git(tree, "commit", "--quiet", "--all", "--message=mm: mend it")
    bad = commit(tree, BAD, "mm: the bad one")
    commit(tree, BAD, "mm: one more")
    fakelinux.git(tree, "bisect", "start", "HEAD", "HEAD~7")
    words = ["bisect", "run", *here.argv("test", "--bisect", f"kernel.source=git:{tree}#HEAD", f"signature={TITLE}")]
    done = subprocess.run(
        ["git", "-C", str(tree), *words], env=here.env, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert f"{bad} is the first bad commit" in done.stdout, done.stdout + done.stderr


def test_the_exit_codes_for_git(world: MakeWorld) -> None:
    here = world(GOOD)
    tree = here.root.parent / "linux"

    def code(kernel: dict[str, Any], *words: str) -> int:
        commit(tree, kernel, "mm: another one")
        return here.rig("test", "--bisect", f"kernel.source=git:{tree}#main", *words).returncode

    assert code(GOOD) == 0
    assert code(BAD) == 1
    assert code(BAD, "signature=something*") == 125  # another finding says nothing of this one
    assert code(OTHER, "signature=something*") == 1
    assert code(DEAD) == 125
    assert code(DEAD, "signature=*sysrq*") == 1
    assert code({"stderr": "qemu: no\n", "status": 1}) == 128
    assert code(GOOD, "no.such=key") == 128
    assert here.rig("test", "--bisect", "--no-such-flag").returncode == 128
    assert code(GOOD, f"series={here.root / 'demo'}", f"kernel.source=git:{tree}#main~9") in (0, 1, 125)
    assert COUNTERS
    assert KTAP
