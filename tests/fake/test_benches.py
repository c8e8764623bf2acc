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
import jsonschema
import pytest
from hostworkload import SOURCES
from test_rig import WAIT, MakeWorld, World, all_gone, machine, world

from rig.costs import metrics

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
        "latency_4096": 98,
        "latency_20480": 2,
    }
    lines = [f"# counter {name}={value}" for name, value in counters.items()]
    return "\n".join(["KTAP version 1", "1..1", "# case many-private-read", *lines, "ok 1 many-private-read", ""])


BASE = machine(says(minflt=150, nanoseconds=1_000_000))
BETTER = machine(says(minflt=100, nanoseconds=500_000))


def made(world: MakeWorld, patched: dict[str, Any] = BETTER, base: dict[str, Any] = BASE) -> World:
    """A world whose base and patched kernels do as they say; the workload is only compiled."""
    here = world(patched, base)
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
    assert data["schema_version"] == 2
    jsonschema.Draft202012Validator(json.loads(metrics.SCHEMA.read_text())).validate(data)
    histograms = [(one["kind"], one["latencies"]) for one in data["samples"]]
    assert histograms.count(("times", [[4096, 98], [20480, 2]])) == 2 * 3
    assert histograms.count(("counts", [])) == 2 * 2
    assert (latest(here) / "bench.html").read_text().count("<svg") == 1  # one number of CPUs is no curve
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


def scales(iterations: int) -> dict[str, Any]:
    """A kernel on which a test of will-it-scale is done so often in two seconds; bench-faults says what it says."""
    counters = ("tasks=2", f"iterations={iterations}", "elapsed_ns=2000000000")
    lines = [f"# counter {counter}" for counter in counters]
    case = "will-it-scale.page_fault1"
    said = "\n".join(["KTAP version 1", "1..1", f"# case {case}", *lines, f"ok 1 {case}", ""])
    found = machine(says(minflt=100, nanoseconds=1_000_000))
    return found | {"replies": [{"pattern": "will-it-scale .*--budget", "stdout": said}, *found["replies"]]}


def test_tests_of_will_it_scale_are_timed_and_nothing_of_them_is_counted(world: MakeWorld) -> None:
    here = made(world, scales(9000), scales(6000))
    (here.root / "scale/tests").mkdir(parents=True)
    source = "void testcase(unsigned long long *iterations, unsigned long nr) { for (;;) *iterations += nr; }\n"
    (here.root / "scale/tests/page_fault1.c").write_text(source)
    done = here.rig("bench", *ENOUGH, "will_it_scale=scale", "tests=page_*")
    assert done.returncode == 0, done.stdout + done.stderr
    line = "debug/cpus2/tmpfs/will-it-scale.page_fault1: will-it-scale, iterations per second 3000 -> 4500 1/s, +50 %"
    assert line in done.stdout
    assert "will-it-scale, times only:" in (latest(here) / "summary.md").read_text()
    data = json.loads((latest(here) / "bench.json").read_text())
    found = [one for one in data["comparisons"] if one["where"]["case"] == "will-it-scale.page_fault1"]
    assert [(one["metric"], one["difference"]["claim"]) for one in found] == [("iterations", "more")]
    cells = {
        kind: {path.name for path in latest(here).glob(f"{kind}/*/trials/*/*/*/*")} for kind in ("counts", "times")
    }
    assert cells == {"counts": {"bench-faults"}, "times": {"bench-faults", "will-it-scale"}}


def test_what_is_no_source_of_will_it_scale_is_said_in_a_sentence(world: MakeWorld) -> None:
    done = made(world).rig("bench", *FEW, "will_it_scale=guest-workloads")
    assert done.returncode == 2
    assert "guest-workloads is no source tree of will-it-scale: it has no tests/*.c" in done.stderr
    assert "Traceback" not in done.stderr


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
