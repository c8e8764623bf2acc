"""Commands that show a finding again, on this host and on any other."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from madeup import BUG, run, trial

from rig.model import Side, Status
from rig.reports import again
from rig.runs.results import Run
from rig.settings.reading import load

CRASHED = trial(Side.PATCHED, Status.CRASH, BUG, index=3)


def made(*overrides: str, path: str = "patches/fault-around-private") -> Run:
    whole = run(CRASHED)
    series = dataclasses.replace(whole.series, path=path)
    return dataclasses.replace(whole, series=series, overrides=overrides, config={"budget": 6.0, "trials": 2})


def words(whole: Run) -> list[str]:
    return shlex.split(again.anywhere(whole, CRASHED))


def test_the_command_is_the_cell_from_its_seed() -> None:
    assert words(made()) == [
        "rig",
        "test",
        "series=patches/fault-around-private",
        "select=debug/smp4/truncate-race/ext4",
        "matrix={}",
        "seed=1003",
        "trials=3",
        "budget=6",
    ]


def test_what_the_command_line_changed_is_kept_and_what_is_of_this_host_and_run_is_not() -> None:
    overrides = ("perturb.stalls.share=0.1", "machines.smp4.cpus=8", "flavours={kasan: [base, kasan]}", "accel=tcg")
    dropped = ("out=/x", "store=/y", "trials=40", "select=*", "series=q", "seed=9", "budget=1", "matrix.mode=product")
    assert words(made(*overrides, *dropped))[3:7] == list(overrides)


def test_the_command_can_be_parsed_by_the_rig(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text((Path(__file__).parents[2] / "rig.yaml").read_text())
    config = load(tmp_path / "rig.yaml", words(made("perturb.stalls={share: 0.1}", path="a, b"))[2:])
    assert config.series == ("a", "b")
    assert (config.seed, config.budget, config.perturb.stalls.share) == (1003, 6, 0.1)


def test_a_series_outside_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = f"{tmp_path / 'patches' / 'v2'}"
    assert words(made(path=f"/home/me/v1.mbox, {inside}"))[2] == "series=[v1.mbox, patches/v2]"
    assert words(made(path="git:linux#v6.12..mine"))[2] == "series=git:linux#v6.12..mine"


@pytest.mark.parametrize(("failures", "trials", "wanted"), [(1, 1, 3), (8, 8, 2), (1, 100, 50), (0, 0, 5), (5, 8, 4)])
def test_as_many_trials_as_are_likely_to_show_it(failures: int, trials: int, wanted: int) -> None:
    assert again.trials_to_see(failures, trials) == wanted


def test_a_rerun_can_be_pasted() -> None:
    assert shlex.split(again.rerun("trials/a b/0", Path("results/x"))) == ["rig", "rerun", "results/x/trials/a b/0"]
    assert again.rerun("trials/a/0") == "rig rerun trials/a/0"
