"""Folding the runs of parts: what belongs together, and results that lie about their paths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import madeup as made
import pytest

from rig.errors import ConfigError, HostError
from rig.front.ui import Ui
from rig.jobs.merge import merge
from rig.model import Cell, Judgement, Side, Status, TrialResult
from rig.runs.results import Run, read_results, to_json, write_results
from rig.settings.config import Config
from rig.settings.reading import load
from rig.trees import series

PATCH = (
    "From: A <a@b.c>\nSubject: [PATCH] x\n\n---\ndiff --git a/a.c b/a.c\n--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-a\n+b\n"
)
MATRIX = "machines: {smp4: {cpus: 4}}\nworkloads: {truncate-race: {filesystems: [ext4, xfs]}}\n"

Make = Callable[..., Path]


def trials(filesystem: str, status: Status = Status.PASS) -> list[TrialResult]:
    cell = Cell(flavour="debug", machine="smp4", workload="truncate-race", filesystem=filesystem)
    found = (made.BUG,) if status.bad else ()
    both = [made.trial(Side.BASE, where=cell), made.trial(Side.PATCHED, status, *found, where=cell)]
    return [replace(one, evidence=f"trials/{one.side}/{cell.id}/0") for one in both]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rig.yaml").write_text(MATRIX)
    return load(tmp_path / "rig.yaml")


@pytest.fixture
def part(tmp_path: Path, config: Config) -> Make:
    """Return a maker of the folder of a run."""

    def make(name: str, *trials: TrialResult, change: Callable[[Run], Run] = lambda run: run) -> Path:
        folder = tmp_path / "parts" / name
        (folder / "series").mkdir(parents=True)
        (folder / "series/0001.patch").write_text(PATCH)
        for trial in trials:
            home = folder / trial.evidence
            home.mkdir(parents=True, exist_ok=True)
            (home / "console.log").write_text(f"log of {trial.evidence}")
        run = replace(made.run(*trials), kernels=(made.kernel(0), made.kernel(1)))
        run = replace(run, config=config.model_dump(mode="json") | {"part": [name]})
        key = series.read(str(folder / "series")).key
        run = replace(run, id=name, series=replace(run.series, key=key))
        run = replace(run, base=replace(run.base, tree=f"{0:040x}"))
        patches = tuple(replace(one, tree=f"{one.number:040x}") for one in run.series.patches)
        write_results(folder / "results.json", change(replace(run, series=replace(run.series, patches=patches))))
        return folder

    return make


def merged(config: Config, *places: Path) -> Run:
    return merge(places, config, Ui(quiet=True))


def test_parts_become_one_run(part: Make, config: Config) -> None:
    one, two = part("one", *trials("ext4")), part("two", *trials("xfs", Status.CRASH))
    done = merged(config, one, two)
    assert (done.complete, len(done.trials)) == (True, 4)
    assert [(found.title, found.patched.failures) for found in done.verdict.findings] == [(made.BUG.title, 1)]
    folder = config.results / done.id
    assert read_results(folder / "results.json") == done
    for trial in done.trials:
        assert (folder / trial.evidence / "console.log").read_text() == f"log of {trial.evidence}"
    assert (folder / "series/0001.patch").read_text() == PATCH
    assert json.loads((folder / "plan.json").read_text())["merged"] == ["one", "two"]
    assert {"junit.xml", "summary.md", "summary.txt"} <= {path.name for path in folder.iterdir()}
    assert merged(config, one.parent).trials == done.trials  # a folder of runs is as good


def test_what_nobody_ran_is_lost(part: Make, config: Config) -> None:
    done = merged(config, part("one", *trials("ext4")))
    lost = [trial for trial in done.trials if trial.status is Status.LOST]
    assert [(trial.cell.filesystem, trial.side) for trial in lost] == [("xfs", Side.BASE), ("xfs", Side.PATCHED)]
    assert (done.complete, done.verdict.judgement) == (False, Judgement.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: replace(run, rig_version="9"), "the version of the rig differs: 0.1.0 and 9"),
        (lambda run: replace(run, series=replace(run.series, key="other")), "the series differs"),
        (lambda run: replace(run, config={**run.config, "budget": 99}), "the budget differs: 10.0 and 99"),
        (lambda run: replace(run, config={**run.config, "sides": ["base"]}), "the sides differs"),
        (
            lambda run: replace(run, kernels=(*run.kernels[:-1], replace(run.kernels[-1], key="other"))),
            r"the debug kernel of prefix \d differs",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(
    part: Make, config: Config, change: Callable[[Run], Run], why: str
) -> None:
    one, two = part("one", *trials("ext4")), part("two", *trials("xfs"), change=change)
    with pytest.raises(ConfigError, match=f"are not parts of one run: {why}"):
        merged(config, one, two)
    assert not config.results.exists()


def test_another_base_and_a_trial_that_counts_twice_are_refused(part: Make, config: Config) -> None:
    one, same = part("one", *trials("ext4")), part("same", *trials("ext4"))
    with pytest.raises(ConfigError, match="both have trial 0 of debug/smp4/truncate-race/ext4"):
        merged(config, one, same)

    def rebased(run: Run) -> Run:
        moved = tuple(replace(t, tree="f" * 40) if t.side is Side.BASE else t for t in run.trials)
        return replace(run, base=replace(run.base, tree="f" * 40), trials=moved)

    with pytest.raises(ConfigError, match="the base differs"):
        merged(config, one, part("rebased", *trials("xfs"), change=rebased))


def lied(**words: Any) -> Callable[[Run], Run]:
    return lambda run: replace(run, trials=(replace(run.trials[0], **words), *run.trials[1:]))


OUTSIDE = Cell(flavour="..", machine="..", workload="..", filesystem="..")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lied(evidence="../../../../secret"), "evidence in"),
        (lied(evidence="/etc"), "evidence in"),
        (lied(cell=OUTSIDE, evidence="trials/base/../../../../0"), "a trial of the cell"),
        (lied(cell=replace(OUTSIDE, flavour="a\nb"), evidence="trials/base/a\nb/../../../0"), "a trial of the cell"),
        (lied(index=-1, evidence="trials/base/debug/smp4/truncate-race/ext4/-1"), "a trial of the cell"),
        (lied(tree="e" * 40), "not one of its series"),
        (lied(prefix=77), "not one of its series"),
        (lambda run: replace(run, config={"machines": 1}), "its configuration is not one of this rig"),
    ],
)
def test_results_that_lie_are_refused(part: Make, config: Config, change: Callable[[Run], Run], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        merged(config, part("one", *trials("ext4"), change=change))
    assert not config.results.exists()


def test_patches_that_were_changed_are_refused(part: Make, config: Config) -> None:
    one = part("one", *trials("ext4"))
    (one / "series/0001.patch").write_text(PATCH.replace("+b", "+c"))
    with pytest.raises(ConfigError, match="are not those that were tested"):
        merged(config, one)
    assert merged(config, one, part("two", *trials("xfs"))).complete  # whose are


def test_links_and_pipes_in_the_evidence_are_not_followed(part: Make, config: Config, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "console.log").write_text("secret")
    one = part("one", *trials("ext4"))
    base, patched = (one / trial.evidence for trial in trials("ext4"))
    (base / "link.log").symlink_to(secret / "console.log")
    (base / ".hidden").write_text("x")
    (base / "folder").mkdir()
    os.mkfifo(base / "pipe.log")
    (patched / "console.log").unlink()
    patched.rmdir()
    patched.symlink_to(secret)
    done = merged(config, one, part("two", *trials("xfs")))
    folder = config.results / done.id
    assert [path.name for path in sorted((folder / "trials/base/debug/smp4/truncate-race/ext4/0").iterdir())] == [
        "console.log"
    ]
    assert not list((folder / "trials/patched/debug/smp4/truncate-race/ext4/0").iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"schema_version": NaN}', "\x00", "nonsense"])
def test_results_that_are_none_are_refused_in_a_sentence(part: Make, config: Config, text: str) -> None:
    one = part("one", *trials("ext4"))
    (one / "results.json").write_text(text)
    with pytest.raises(HostError, match="cannot be read as the results of a run"):
        merged(config, one)


def test_text_that_is_none_is_refused(part: Make, config: Config) -> None:
    with pytest.raises(ConfigError, match="text in its results is none"):
        merged(config, part("one", *trials("ext4"), change=lied(reason="\ud800")))


def test_numbers_that_no_report_can_show_are_refused(part: Make, config: Config) -> None:
    one = part("one", *trials("ext4"))
    data = to_json(read_results(one / "results.json"))
    data["stages"] = [["x", 1.5]]
    for bad in ("1e999", "NaN", "-Infinity"):
        (one / "results.json").write_text(json.dumps(data).replace("1.5", bad))
        with pytest.raises(HostError, match="is no number"):
            merged(config, one)


def test_a_part_that_was_cut_off_is_left_out(part: Make, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    two = part("two", *trials("xfs"))
    (two / "results.json").rename(two / "plan.json")
    done = merge([part("one", *trials("ext4")), two], config, Ui())
    assert not done.complete
    assert "was cut off and has no results.json" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="none of these is a finished run"):
        merged(config, two)
    with pytest.raises(ConfigError, match="no folder of a run"):
        merged(config, two / "plan.json")
    with pytest.raises(ConfigError, match="usage: rig merge"):
        merged(config)
