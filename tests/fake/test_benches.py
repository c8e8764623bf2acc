"""`rig bench` as a whole in the fake world, whose QEMU takes no plugin: what the workload itself counts, and times."""

from __future__ import annotations

import json
import shutil
import signal
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fakelinux
import pytest
from hostworkload import SOURCES
from test_rig import WAIT, MakeWorld, World, all_gone, machine, world

__all__ = ["world"]  # the fixture

#: Fewer trials than a claim takes, but for what follows.
FEW = ("counted=1", "pairs=1", "cpus=2", "filesystems=tmpfs", "bench.flavours=debug")
ENOUGH = ("level=0.6", "counted=2", "pairs=3", "cpus=2", "filesystems=tmpfs", "bench.flavours=debug")


def says(*, minflt: int, nanoseconds: int) -> str:
    """What bench-faults prints of one case."""
    counters = {
        "pages": 1600,
        "ideal": 100,
        "timed": 100,
        "minflt": minflt,
        "majflt": 0,
        "elapsed_ns": nanoseconds,
        "median_ns": nanoseconds // 200,
        "p99_ns": nanoseconds // 50,
    }
    lines = [f"# counter {name}={value}" for name, value in counters.items()]
    return "\n".join(["KTAP version 1", "1..1", "# case many-private-read", *lines, "ok 1 many-private-read", ""])


BASE = machine(says(minflt=150, nanoseconds=1_000_000))
BETTER = machine(says(minflt=100, nanoseconds=500_000))


def made(world: MakeWorld, patched: dict[str, Any] = BETTER) -> World:
    """A world whose base and patched kernels do as they say; the workload is only compiled."""
    here = world(patched, BASE)
    for name in ("bench-faults.c", "rig.h"):
        shutil.copy(SOURCES / name, here.root / "guest-workloads" / name)
    return here


def latest(here: World) -> Path:
    return here.root / "results/bench/latest"


def test_what_is_better_is_claimed_and_passes(world: MakeWorld) -> None:
    here = made(world)
    done = here.rig("bench", *ENOUGH)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "excess faults 50.0 → 0 %" in done.stdout
    assert "faults per second +100 % [+100 %, +100 %]" in done.stdout
    assert "QEMU takes plugins under TCG only" in done.stdout or "takes no plugin" in done.stdout
    assert "| **50.0 → 0 %** |" in (latest(here) / "summary.md").read_text()
    data = json.loads((latest(here) / "bench.json").read_text())
    found = {one["metric"]: one["difference"] for one in data["comparisons"]}
    assert found["rate"]["claim"] == "more"
    assert found["excess"]["change"] == -0.5
    assert "<svg" not in (latest(here) / "bench.html").read_text()  # one number of CPUs is no curve
    assert not (latest(here) / "keys").exists()
    assert not list((latest(here) / "junit.xml").read_text().split("<failure")[1:])


def test_what_is_worse_fails_and_is_named(world: MakeWorld) -> None:
    here = made(world, machine(says(minflt=190, nanoseconds=1_000_000)))
    done = here.rig("bench", *ENOUGH)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "many-private-read: excess faults 50.0 -> 90.0 %" in done.stdout
    root = ET.parse(latest(here) / "junit.xml").getroot()
    failed = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert [case.get("classname") for case in failed] == ["bench.excess"]
    assert here.rig("bench", *ENOUGH, "threshold=0.5").returncode == 0


def test_too_few_trials_claim_nothing(world: MakeWorld) -> None:
    here = made(world, machine(says(minflt=190, nanoseconds=2_000_000)))
    done = here.rig("bench", *FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no change claimed" in done.stdout


def test_a_kernel_that_crashes_fails_whatever_it_costs(world: MakeWorld) -> None:
    here = made(world, machine("KTAP version 1\n1..1\n", then="panic", status=0))
    done = here.rig("bench", *FEW)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "CRASH" in done.stdout


def test_an_interrupted_bench_is_resumed(world: MakeWorld) -> None:
    here = made(world)
    words = ("bench", "counted=1", "pairs=4", "cpus=2", "filesystems=tmpfs", "bench.flavours=debug")
    started = here.start(*words)
    deadline = time.monotonic() + WAIT
    while not list((here.root / "results/bench").glob("2*/times/*/trials/**/trial.json")):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert started.wait(WAIT) in (0, 130)
    assert all_gone(here)
    before = {path: path.stat().st_mtime_ns for path in (here.root / "results/bench").glob("2*/**/trial.json")}
    done = here.rig(*words)
    assert done.returncode == 0, done.stderr
    (folder,) = [path for path in (here.root / "results/bench").glob("2*") if path.is_dir()]
    assert (folder / "bench.json").exists()
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_a_dry_run_says_what_would_be_done(world: MakeWorld) -> None:
    here = made(world)
    done = here.rig("-n", "bench", *FEW, "null")
    assert done.returncode == 0, done.stderr
    assert "counts: would run 1 trials of 1 cells on 2 kernels" in done.stderr
    assert not (here.root / "results").exists()


def test_of_the_base_against_itself_nothing_is_claimed(world: MakeWorld) -> None:
    here = made(world)
    done = here.rig("bench", *ENOUGH, "null")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "null control, times: 0 claims in 3 comparisons" in done.stdout


def test_two_benches_are_compared_and_a_bench_with_nothing_else(world: MakeWorld) -> None:
    here = made(world)
    assert here.rig("bench", *ENOUGH, "out=a").returncode == 0
    tree, worse = here.root.parent / "linux", machine(says(minflt=190, nanoseconds=1_000_000))
    change = ("mm: another version", "machine.json", json.dumps(BASE), json.dumps(worse))
    fakelinux.make_series(tree, here.root / "v2", [change])
    assert here.rig("bench", *ENOUGH, "series=v2", "out=b").returncode == 1
    done = here.rig("compare", "a/bench/latest", "b/bench/latest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("WORSE: v2: ")
    assert "| 50.0 → 90.0 %" in done.stdout
    assert "demo → v2" in done.stdout
    assert here.rig("compare", "b/bench/latest", "a/bench/latest/bench.json").returncode == 0
    wider = here.rig("bench", *FEW, "cpus=[1, 2]", "out=c")
    assert wider.returncode == 0, wider.stderr
    left = here.rig("compare", "a/bench/latest", "c/bench/latest")
    assert (left.returncode, "only in B: 1 vCPU" in left.stdout) == (0, True), left.stdout
    assert here.rig("compare", "a/bench", "c/bench/latest").returncode == 2  # the folder of a run is meant
    assert here.rig("test", "trials=1").returncode == 0
    mixed = here.rig("compare", "results/latest", "a/bench/latest")
    assert mixed.returncode == 2
    assert "results/latest is a run of `rig test` and " in mixed.stderr
    (here.root / "b/bench/latest/bench.json").unlink()
    early = here.rig("compare", "a/bench/latest", "b/bench/latest")
    assert early.returncode == 2
    assert "b/bench/latest was interrupted and has no results yet" in early.stderr
    assert "Traceback" not in mixed.stderr + early.stderr


@pytest.mark.parametrize("words", [("no-such-series",), ("pairs=-1",), ("cpus=[]",), ("cpus=65",)])
def test_what_makes_no_sense_is_refused(world: MakeWorld, words: tuple[str, ...]) -> None:
    assert made(world).rig("bench", *words).returncode == 2
