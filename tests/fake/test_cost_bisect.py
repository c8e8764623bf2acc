"""`rig bisect` by counts as a whole, in the fake world, whose workload says how many faults it took."""

from __future__ import annotations

import json
import shutil
import signal
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import pytest
from hostworkload import SOURCES
from test_benches import says
from test_bisect import accused, cut_off, give, latest
from test_rig import MakeWorld, World, machine, world

__all__ = ["world"]  # the fixture

#: As few trials as a claim takes at this level, on one machine.
ENOUGH = ("level=0.6", "counted=2", "cpus=2", "filesystems=tmpfs", "bench.flavours=debug")
CASE = "many-private-read"


def taking(faults: int) -> dict[str, Any]:
    """A kernel on which bench-faults takes so many faults where 100 would do."""
    return machine(says(minflt=faults, nanoseconds=1_000_000))


CHEAP, DEAR = taking(100), taking(150)


def made(
    world: MakeWorld, kernels: Sequence[dict[str, Any] | str], base: dict[str, Any] = CHEAP, *, plugins: bool = False
) -> World:
    here = world(CHEAP, plugins=plugins)
    for name in ("bench-faults.c", "rig.h"):
        shutil.copy(SOURCES / name, here.root / "guest-workloads" / name)
    return give(here, kernels, base=base)


def test_the_patch_that_costs_is_named_and_all_reports_say_so(world: MakeWorld) -> None:
    here = made(world, [CHEAP, CHEAP, DEAR, DEAR, DEAR, DEAR])
    done = here.rig("bisect", "count=excess faults", f"case={CASE}", *ENOUGH)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Patch 3 brought 0 % -> 50.0 % (+50.00 points) (66.7 % sure): 'mm: change 3'." in done.stdout
    assert "►    3     50.0 %  +50.00 points  mm: change 3" in done.stdout
    data = latest(here)
    assert (data["status"], data["mode"], accused(data)) == ("found", "counts", [(3, None)])
    (finding,) = data["findings"]
    assert (finding["kind"], finding["metric"]) == ("cost", "excess")
    assert finding["signature"] == f"cost:excess:debug/cpus2/tmpfs/{CASE}"
    assert (finding["title"], finding["cell"]) == (f"excess faults in {CASE}", "debug/cpus2/bench-faults/tmpfs")
    counts = {one["number"]: (one["value"], one["trials"], one["failures"]) for one in finding["counts"]}
    assert counts[2] == (0.0, 2, 0)
    assert counts[3] == (0.5, 2, 2)
    assert counts[1] == counts[5] == (None, 0, 0)  # nobody had to look there
    assert "pairs=0" in finding["reproduce"]
    root = here.root / "results/bisect/latest"
    assert (root / finding["example"] / "trial.json").is_file()
    cases = {case.get("name"): case for case in ET.parse(root / "junit.xml").getroot().iter("testcase")}
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["3: mm: change 3"]
    assert "50.0 %" in (root / "bisect.svg").read_text()
    assert "| 3 | 50.0 % | +50.00 points |" in (root / "summary.md").read_text()
    assert not (root / "keys").exists()
    assert here.rig("rerun", str(root / finding["example"])).returncode == 0  # it is slower, and passes
    again = here.rig("bench", *finding["reproduce"].partition(" bench ")[2].split(), "level=0.6")
    assert again.returncode == 1, again.stdout + again.stderr
    assert f"{CASE}: excess faults 0 -> 50.0 %" in again.stdout


def test_without_a_count_everything_that_became_worse_is_hunted(world: MakeWorld) -> None:
    here = made(world, [CHEAP, DEAR, DEAR, taking(300)])
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 1, done.stdout + done.stderr
    data = latest(here)
    assert sorted(accused(data)) == [(2, None), (4, None)]  # both of them cost something
    assert [one["signature"] for one in data["findings"]] == [f"cost:excess:debug/cpus2/tmpfs/{CASE}"] * 2
    assert "of 0 % -> 200 % (+200.00 points) over the whole series" in data["sentence"]
    assert data["command"].startswith("rig -C")
    assert "--counts" in data["command"]


def test_a_series_that_costs_nothing_blames_nobody(world: MakeWorld) -> None:
    here = made(world, [CHEAP, CHEAP, CHEAP])
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 0, done.stdout + done.stderr
    data = latest(here)
    assert (data["status"], data["culprits"], data["findings"], data["trials"]) == ("clean", [], [], 4)
    assert "of 1 counts none is claimed to be more than 5 % higher" in data["sentence"]


def test_what_became_better_or_hardly_worse_is_hunted_by_nobody(world: MakeWorld) -> None:
    here = made(world, [CHEAP, taking(154)], base=DEAR)
    assert here.rig("bisect", "--counts", *ENOUGH).returncode == 0  # 4 points
    assert here.rig("bisect", "--counts", *ENOUGH, "threshold=0.03").returncode == 1
    assert accused(latest(here)) == [(2, None)]
    here = give(here, [DEAR, CHEAP], base=DEAR)
    assert here.rig("bisect", "--counts", *ENOUGH).returncode == 0


def test_a_prefix_that_does_not_build_widens_the_answer(world: MakeWorld) -> None:
    here = made(world, [CHEAP, "retrun 3;", DEAR, "return 3;", DEAR])
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 1, done.stdout + done.stderr
    broken, found = latest(here)["findings"]
    assert (broken["kind"], broken["culprits"][0]["number"], broken["culprits"][0]["fixed_by"]) == ("build", 2, 4)
    assert [one["number"] for one in found["culprits"]] == [2, 3, 4]
    assert "nothing tells them apart: 2 does not build: mm/memory.c" in found["sentence"]


def test_a_prefix_that_crashes_is_left_out_and_told(world: MakeWorld) -> None:
    crash = machine("KTAP version 1\n1..1\n", then="panic", status=0)
    here = made(world, [CHEAP, crash, DEAR, DEAR])
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 1, done.stdout + done.stderr
    data = latest(here)
    assert [one["number"] for one in data["culprits"]] == [2, 3]
    assert "2 its trials say nothing of it: " in data["findings"][0]["sentence"]
    assert any("kernel panic" in title for title in data["prefixes"][2]["others"])


def test_a_tip_that_crashes_is_no_answer(world: MakeWorld) -> None:
    here = made(world, [CHEAP, machine("KTAP version 1\n1..1\n", then="panic", status=0)])
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Base and tip cannot be compared" in done.stdout
    assert "kernel panic" in done.stdout


def test_a_count_that_nothing_here_counts_is_no_answer(world: MakeWorld) -> None:
    here = made(world, [CHEAP, DEAR])
    done = here.rig("bisect", "count=atomics", *ENOUGH)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "nothing that is meant was counted on both" in done.stdout
    assert "plugin" in done.stdout


def test_a_trial_whose_counts_were_not_kept_is_run_again(world: MakeWorld) -> None:
    here = made(world, [CHEAP, DEAR], plugins=True)  # a QEMU that takes the plugin, and does not load it
    done = here.rig("bisect", "--counts", *ENOUGH)
    assert done.returncode == 4, done.stdout + done.stderr
    trials = sorted(here.root.glob("results/bisect/2*/prefixes/*/trials/**/trial.json"))
    assert len(trials) == 4
    assert all((trial.parent / "counts.json").is_file() for trial in trials)
    assert not list(here.root.glob("results/bisect/**/counts.ctl"))
    before = {path: path.stat().st_mtime_ns for path in trials}
    (trials[0].parent / "counts.json").unlink()
    assert here.rig("bisect", "--counts", *ENOUGH).returncode == 4
    assert [path for path in trials if path.stat().st_mtime_ns != before[path]] == [trials[0]]
    assert (trials[0].parent / "counts.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_bisection_that_was_cut_off_loses_no_trial(world: MakeWorld, number: signal.Signals) -> None:
    here = made(world, [CHEAP, CHEAP, DEAR, DEAR, DEAR, DEAR])
    cut_off(here, number, f"case={CASE}", *ENOUGH)
    assert accused(latest(here)) == [(3, None)]


def test_when_the_time_is_up_it_says_what_it_knows_and_goes_on_from_there(world: MakeWorld) -> None:
    here = made(world, [CHEAP, CHEAP, DEAR, DEAR])
    done = here.rig("bisect", "--counts", *ENOUGH, "limit=0.01")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "the time is up" in done.stdout
    first = latest(here)["id"]
    done = here.rig("bisect", "--counts", *ENOUGH, "limit=1000", "threshold=0.1", "count=excess")
    assert done.returncode == 1, done.stderr
    assert (latest(here)["id"], accused(latest(here))) == (first, [(3, None)])


def test_a_count_that_is_not_laid_on_anybody_yet_is_undecided(world: MakeWorld) -> None:
    here = made(world, [CHEAP, CHEAP, DEAR, DEAR])
    assert here.rig("bisect", "--counts", *ENOUGH).returncode == 1
    root = (here.root / "results/bisect/latest").resolve()
    (root / "settled").unlink()  # as if it had been cut off after base and tip
    for number in (1, 2, 3):
        shutil.rmtree(root / f"prefixes/{number}", ignore_errors=True)
    done = here.rig("bisect", "--counts", *ENOUGH, "limit=0.01")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Not decided (the time is up; the same command with a higher limit=SECONDS goes on)" in done.stdout
    assert "the largest part of what is left by patch 1, 2, 3 or 4." in done.stdout
    data = latest(here)
    assert (data["status"], data["culprits"], data["trials"]) == ("undecided", [], 4)
    assert [one["probability"] for one in data["findings"][0]["counts"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert here.rig("bisect", "--counts", *ENOUGH).returncode == 1
    assert (latest(here)["id"], accused(latest(here))) == (root.name, [(3, None)])


def test_a_dry_run_says_what_would_be_done(world: MakeWorld) -> None:
    here = made(world, [CHEAP, DEAR])
    done = here.rig("-n", "bisect", "--counts", *ENOUGH)
    assert done.returncode == 0, done.stderr
    assert "would count on the base and the tip in 1 cell, 2 times each, then search 2 patches" in done.stderr
    assert not (here.root / "results").exists()


def test_tests_of_will_it_scale_are_left_out_as_nothing_of_them_is_counted(world: MakeWorld) -> None:
    here = made(world, [CHEAP, DEAR])
    (here.root / "scale/tests").mkdir(parents=True)
    (here.root / "scale/tests/page_fault1.c").touch()
    done = here.rig("-n", "bisect", "--counts", *ENOUGH, "will_it_scale=scale", "tests=page_*")
    assert done.returncode == 0, done.stderr
    assert "would count on the base and the tip in 1 cell," in done.stderr


@pytest.mark.parametrize(
    ("words", "says_so"),
    [
        (("count=prayers",), "no count is called 'prayers'"),
        (("count=p99",), "(times are no counts)"),
        (("count=excess", "counted=4"), "counted=4 trials of base and tip can claim nothing at level=0.99"),
        (("--counts", "signature=x"), "without signature"),
        (("--counts", "looks=3"), "without looks"),
        (("--counts", "--every-prefix"), "without every_prefix"),
        (("--counts", "good=a", "bad=b"), "without good"),
        (("--counts", "cpus=0"), "cpus"),
        (("cpus=2",), "cpus"),  # a bench's word, and no bisection by counts
    ],
)
def test_what_makes_no_sense_is_refused(world: MakeWorld, words: tuple[str, ...], says_so: str) -> None:
    done = made(world, [CHEAP, DEAR]).rig("bisect", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says_so in done.stderr
    assert "Traceback" not in done.stderr


def test_the_results_are_json_for_programs(world: MakeWorld) -> None:
    here = made(world, [DEAR])
    done = here.rig("--json", "bisect", "--counts", *ENOUGH)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["culprits"][0]["number"] == 1
