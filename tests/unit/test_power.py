"""What selfchecks measured, on record: what is newer counts, and the README says nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rig.detection import outcomes, power
from rig.detection.outcomes import Cleared, Hunt, Hunted, Outcome, Selfcheck, Sighting
from rig.errors import ConfigError
from rig.records.subjects import subjects

ROOT = Path(__file__).resolve().parents[2]
BUG = Sighting(oracle="console", title="kernel BUG in a|b", signature="bug:a", cell="d/m/w/tmpfs", seed=1, evidence="e")


def hunted(name: str, seconds: float, found: Sighting | None = BUG) -> Hunted:
    outcome = Outcome.CAUGHT if found else Outcome.MISSED
    hunt = Hunt(seed=1, outcome=outcome, seconds=seconds, trials=3, lost=0, inconclusive=0, found=found)
    return outcomes.fold(name, "k", "truncate", "wrong", [hunt])


def cleared(name: str, trials: int, *alarms: Sighting) -> Cleared:
    return Cleared(name=name, key="k", trials=trials, lost=1, inconclusive=2, alarms=alarms)


def check(*controls: Hunted, goods: tuple[Cleared, ...] = ()) -> Selfcheck:
    return Selfcheck(
        id="x", started="s", finished="f", rig_version="1", accelerator="tcg", accelerator_reason="r", base="b",
        config={"selfcheck": {"threshold": 0.5}, "results": "/somewhere"}, controls=controls, goods=goods, console=(),
        summary=outcomes.summarise(controls, goods, (), 0.5),
    )  # fmt: skip


def test_what_is_newer_counts_and_the_rest_stays() -> None:
    first = check(hunted("a", 10.0), hunted("b", 20.0, None), goods=(cleared("base", 5),))
    second = check(hunted("b", 4.0), goods=(cleared("good", 7, BUG),))
    whole = power.merged([first, second])
    assert [(one.name, one.seconds) for one in whole.controls] == [("a", 10.0), ("b", 4.0)]
    assert (whole.summary.caught, whole.summary.controls, whole.summary.median_seconds) == (2, 2, 7.0)
    assert (whole.summary.good_trials, whole.summary.false_alarms) == (12, 1)
    assert whole.config == {"selfcheck": {"threshold": 0.5}}  # no paths of anybody's machine


def test_the_table_names_what_was_seen_what_was_missed_and_who_was_accused() -> None:
    text = power.table(check(hunted("a", 10.0), hunted("b", 120.0, None), goods=(cleared("good", 7, BUG),)))
    assert "**caught 1/2, false alarms 1/7, median time to detection 10.0 s (p90 10.0 s)** (TCG)" in text
    assert "| [`a`](a/) | caught | 10.0 | 3 | console: kernel BUG in a\\|b | d/m/w/tmpfs |" in text
    assert "| [`b`](b/) | missed | 120 used | 3 | - | - |" in text
    assert "- `good`: kernel BUG in a|b in d/m/w/tmpfs" in text


def test_a_run_goes_on_record_and_into_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / power.README
    readme.parent.mkdir(parents=True)
    readme.write_text(f"above\n{power.BEGIN}\nold\n{power.END}\nbelow\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "selfcheck.json").write_text(json.dumps(outcomes.dump(check(hunted("a", 10.0)))))
    power.record(tmp_path, [run])
    later = replace(check(hunted("b", 2.0)), id="y")
    (run / "selfcheck.json").write_text(json.dumps(outcomes.dump(later)))
    whole = power.record(tmp_path, [run / "selfcheck.json"])
    assert [one.name for one in whole.controls] == ["a", "b"]
    assert power.read(tmp_path / power.FILE) == whole
    text = readme.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert text == power.rendered(tmp_path, whole)


def test_what_is_no_selfcheck_is_refused(tmp_path: Path) -> None:
    (tmp_path / "selfcheck.json").write_text('{"id": 1}')
    with pytest.raises(ConfigError, match="is no selfcheck"):
        power.read(tmp_path)
    with pytest.raises(ConfigError, match="is no selfcheck"):
        power.read(tmp_path / "nothing")


def test_the_readme_says_what_is_on_record_of_the_controls_that_are_there() -> None:
    whole = power.read(ROOT / power.FILE)
    assert power.rendered(ROOT, whole) == (ROOT / power.README).read_text(encoding="utf-8")
    keys = {one.control.name: one.key for one in subjects(ROOT) if one.control}
    recorded = [(one.name, one.key) for one in whole.controls]
    recorded += [(one.name, one.key) for one in whole.goods if one.name != "base"]
    for name, key in recorded:
        assert keys[name] == key, f"{name} has other patches now: run `rig selfcheck {name}`"
