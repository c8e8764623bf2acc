"""`rig selfcheck` as a whole: tiny controls in the fake world, of which one shows itself and one does not."""

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
from test_rig import FAILED, WAIT, MakeWorld, World, all_gone, machine, world

from rig.detection import arms
from rig.detection.arms import Arm
from rig.detection.outcomes import SCHEMA
from rig.errors import ConfigError
from rig.records.subjects import subjects

__all__ = ["world"]  # the fixture

BAD = """\
kind: bad
wrong: It does what it must not.
race: hole-punch
oracle: the workload
signature: ["{signature}"]
"""
GOOD = "kind: good\nchanges: Nothing that matters.\n"
SEEN = "stale data after *"
OTHER = "KTAP version 1\n1..1\n# finding: something else\nnot ok 1 punch-private\n"
#: Short hunts: one trial uses the time up.
SHORT = ("limit=1", "budget=1", "good_trials=2")


def control(here: World, name: str, does: dict[str, Any], says: str) -> None:
    """Add a control to the world, whose kernel does as told."""
    tree = here.root.parent / "linux"
    before = (tree / "machine.json").read_text()
    after = json.dumps(does)
    change = (f"mm: {name}", "machine.json", before, after if after != before else after + "\n")
    rename = (f"mm: count for {name}", "mm/filemap.c", "return 2", f"return {20 + len(name)}")
    folder = here.root / "patches/controls" / name
    fakelinux.make_series(tree, folder, [rename, change])
    (folder / "control.yaml").write_text(says)


def add_all(here: World) -> World:
    """The world with a control that is seen, one that is not, and a good one."""
    # It goes on for a minute after its finding: a hunt must not wait for that.
    control(here, "seen", machine(FAILED, status=1, seconds=60), BAD.format(signature=SEEN))
    control(here, "silent", machine(seconds=0.1), BAD.format(signature=SEEN))
    control(here, "good-calm", machine(seconds=0.2), GOOD)
    return here


def checks(here: World) -> list[Path]:
    return [path for path in (here.root / "results/selfcheck").glob("2*") if path.is_dir()]


def latest(here: World) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((here.root / "results/selfcheck/latest/selfcheck.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    return data


def test_what_is_caught_missed_and_clean(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    done = here.rig("selfcheck", *SHORT, "se*", "silent", "base", "good-*", "timeouts.workload=100")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "caught 1/2, false alarms 0/2, median time to detection" in done.stdout
    data = latest(here)
    seen, silent = data["controls"]
    assert (seen["name"], seen["outcome"], silent["name"], silent["outcome"]) == ("seen", "caught", "silent", "missed")
    assert seen["hunts"][0]["found"]["title"] == "stale data after hole punch in a private mapping"
    root = here.root / "results/selfcheck/latest"
    trial = json.loads((root / seen["hunts"][0]["found"]["evidence"] / "trial.json").read_text())["trial"]
    assert trial["status"] == "FAIL"
    assert trial["first_finding"] is not None
    assert [(one["name"], one["trials"], one["alarms"]) for one in data["goods"]] == [
        ("base", 1, []),
        ("good-calm", 1, []),
    ]
    cases = {case.get("name"): case for case in ET.parse(root / "junit.xml").getroot().iter("testcase")}
    assert set(cases) == {"seen", "silent", "base", "good-calm"}
    assert [name for name, case in cases.items() if case.find("failure") is not None] == ["silent"]
    assert not list(root.glob("*.cpio"))
    assert not (root / "keys").exists()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    done = here.rig("-n", "selfcheck", "limit=3")
    assert done.returncode == 0, done.stderr
    assert "would hunt controls/seen: up to 1 x 3 s in trials of 10 s" in done.stderr
    assert "would try base: 100 trials" in done.stderr
    assert not (here.root / "results").exists()


def test_enough_is_what_the_threshold_says(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    assert here.rig("selfcheck", *SHORT, "se*", "silent", "threshold=0.5").returncode == 0


def test_who_accuses_the_base_fails_and_what_the_base_shows_is_no_catch(world: MakeWorld) -> None:
    here = world(machine(), machine(OTHER, status=1))
    control(here, "noisy", machine(OTHER, status=1), BAD.format(signature=SEEN))
    control(here, "good-odd", machine(FAILED, status=1), GOOD)
    done = here.rig("selfcheck", *SHORT, "noisy", "base", "good-odd")
    assert done.returncode == 1, done.stderr
    data = latest(here)
    assert data["summary"]["false_alarms"] == 2
    assert data["controls"][0]["outcome"] == "missed"
    base, odd = data["goods"]
    assert (base["alarms"][0]["title"], odd["alarms"][0]["title"]) == (
        "something else",
        "stale data after hole punch in a private mapping",
    )
    assert (here.root / "results/selfcheck/latest" / odd["alarms"][0]["evidence"] / "ktap.log").exists()
    failed = ET.parse(here.root / "results/selfcheck/latest/junit.xml").getroot().iter("failure")
    assert len(list(failed)) == 3


def test_another_finding_is_caught_otherwise(world: MakeWorld) -> None:
    here = world(machine())
    control(here, "noisy", machine(OTHER, status=1), BAD.format(signature=SEEN))
    assert here.rig("selfcheck", *SHORT, "noisy").returncode == 1
    assert latest(here)["controls"][0]["outcome"] == "otherwise"


def test_a_control_that_does_not_build_is_no_miss_and_no_catch(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    patch = next((here.root / "patches/controls/silent").glob("0001*"))
    patch.write_text(patch.read_text().replace("+\treturn 26", "+\tretrun 26"))
    done = here.rig("selfcheck", *SHORT, "seen", "silent", "timeouts.workload=100")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    broken = latest(here)["controls"][1]
    assert broken["outcome"] == "broken"
    assert "breaks" in broken["reason"]


def test_several_seeds_give_a_median(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    done = here.rig("selfcheck", *SHORT, "seen", "seeds=3", "timeouts.workload=100", "--json")
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout)["controls"]
    assert [hunt["seed"] for hunt in seen["hunts"]] == [1, 1001, 2001]
    times = sorted(hunt["seconds"] for hunt in seen["hunts"])
    assert seen["seconds"] == times[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_check_that_was_cut_off_goes_on_where_it_stopped(world: MakeWorld, number: signal.Signals) -> None:
    here = add_all(world(machine()))
    words = ("selfcheck", *SHORT, "seen", "silent", "base", "timeouts.workload=100", "good_trials=6")
    with here.start(*words) as running:
        end = time.monotonic() + WAIT
        while (
            not list(here.root.glob("results/selfcheck/2*/good/base/trials/**/trial.json")) and time.monotonic() < end
        ):
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(WAIT) == (-number if number == signal.SIGKILL else 130)
    assert all_gone(here)
    kept = [*here.root.glob("results/selfcheck/2*/**/hunt.json"), *here.root.glob("results/selfcheck/2*/**/trial.json")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) >= 4
    done = here.rig(*words)
    assert done.returncode == 1, done.stderr
    assert "resuming" in done.stderr
    assert len(checks(here)) == 1
    assert latest(here)["summary"]["good_trials"] == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # One that came to its end is not gone on with.
    assert here.rig(*words).returncode == 1
    assert len(checks(here)) == 2


def test_a_trial_of_a_control_can_be_run_again(world: MakeWorld) -> None:
    here = add_all(world(machine()))
    here.rig("selfcheck", *SHORT, "seen", "timeouts.workload=100")
    evidence = latest(here)["controls"][0]["hunts"][0]["found"]["evidence"]
    done = here.rig("rerun", str(here.root / "results/selfcheck/latest" / evidence), "timeouts.workload=1")
    assert done.returncode == 1, done.stderr
    assert "stale data after hole punch in a private mapping" in done.stdout


def test_without_controls_there_is_nothing_to_check(world: MakeWorld) -> None:
    here = world(machine())
    shutil.rmtree(here.root / "patches", ignore_errors=True)
    done = here.rig("selfcheck")
    assert done.returncode == 2
    assert "no control there" in done.stderr
    assert "Traceback" not in done.stderr


def test_arms_are_run_once_each_and_kept(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here = add_all(world(machine(), machine(OTHER, status=1)))
    for name in ("PATH", "PYTHONPATH", "CI"):
        monkeypatch.setenv(name, here.env[name])
    chosen = [None, *(one for one in subjects(here.root) if one.name in ("controls/seen", "controls/silent"))]
    pair = (
        Arm(name="calm", overrides=("perturb.jitter=false",)),
        Arm(name="jitter", overrides=("perturb.jitter=true",)),
    )
    path = here.root / "bench/record.json"
    words = (*SHORT, "timeouts.workload=100")
    record = arms.run(here.root, path, pair, chosen, words)
    assert record == arms.read(path)
    assert {(entry.arm, entry.name) for entry in record.entries} == {
        (arm, name) for arm in ("calm", "jitter") for name in ("base", "seen", "silent")
    }
    assert [alarm.title for entry in record.entries if entry.cleared for alarm in entry.cleared.alarms] == [
        "something else",
        "something else",
    ]
    rows = arms.table(record, pair).splitlines()
    assert rows[3] == "| silent | - (0/1) | - (0/1) |"
    assert rows[4].startswith("| caught | 1/2, median ")
    runs = sorted(here.root.glob("bench/*/selfcheck/2*"))
    assert len(runs) == 6
    assert arms.run(here.root, path, pair, chosen, words) == record
    assert sorted(here.root.glob("bench/*/selfcheck/2*")) == runs
    with pytest.raises(ConfigError, match="calm: rig selfcheck base ended with 2"):
        arms.run(here.root, path, pair, [None], ("no.such=key",))
