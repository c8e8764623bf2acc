"""Parts of a run: every cell in exactly one, and the jobs of a pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rig.cli import main
from rig.errors import ConfigError
from rig.front.ui import Ui
from rig.jobs.parts import deal, listing, part
from rig.model import Cell
from rig.pipeline import Options, Pipeline
from rig.settings.matrix import cells

ROOT = Path(__file__).parents[2]


def some(count: int) -> tuple[Cell, ...]:
    return tuple(Cell(flavour="debug", machine="m", workload=f"w{n}", filesystem="tmpfs") for n in range(count))


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_cell_is_in_exactly_one_job(count: int, most: int) -> None:
    every = some(count)
    jobs = deal(every, most)
    taken = [cell for job in jobs for cell in part(every, [job.part])]
    assert sorted(taken, key=every.index) == list(every)
    assert len(jobs) == min(count, most)
    sizes = {len(part(every, [job.part])) for job in jobs}
    assert max(sizes) - min(sizes) <= 1


def test_a_part_is_numbers_or_globs_in_the_order_of_the_cells() -> None:
    every = some(5)
    assert part(every, []) == every
    assert part(every, ["debug/*/w3/*", "1/5"]) == (every[0], every[3])
    for words, why in ((["0/3"], "K/N with K from 1 to N"), (["4/3"], "K/N"), (["6/6"], "none of"), (["x"], "none of")):
        with pytest.raises(ConfigError, match=why):
            part(every, words)


def test_the_forms_of_the_services(capsys: pytest.CaptureFixture[str]) -> None:
    file = ["-f", str(ROOT / "rig.yaml"), "list"]

    def printed(*words: str) -> str:
        assert main([*file, *words]) == 0
        return capsys.readouterr().out

    github = printed("--ci", "github", "parts=3")
    assert len(github.splitlines()) == 1  # as $GITHUB_OUTPUT wants it
    assert json.loads(github)["include"][2] == {"name": "3 of 3", "part": "3/3"}
    gitlab = yaml.safe_load(printed("--ci", "gitlab", "select=debug/*/static-faults"))
    ids = [cell.strip() for cell in printed("--ci", "jenkins", "select=debug/*/static-faults").splitlines()]
    assert gitlab["rig-cells"]["parallel"]["matrix"] == [{"RIG_PART": ids}]
    assert all(one.startswith("debug/") for one in ids)
    assert main([*file, "--ci", "klingon"]) == 2
    assert "expected one of github, gitlab, jenkins" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        listing((), 1, "")


def test_a_cell_gets_in_a_part_what_it_gets_in_the_whole() -> None:
    """Whether a workload concerns the series is weighed over the whole: alone it would seem to be all there is."""
    from rig.settings.reading import load

    config = load(ROOT / "rig.yaml", ["trials=3", "elsewhere=1"])
    whole = Pipeline(config, Options(jobs=1), Ui(quiet=True))
    whole.relevances = {"truncate-race": 1.0}
    for number in range(1, 6):
        piece = Pipeline(config.model_copy(update={"part": (f"{number}/5",)}), Options(jobs=1), Ui(quiet=True))
        piece.relevances = whole.relevances
        assert piece.trials == {cell: whole.trials[cell] for cell in whole.trials if cell in piece.cells}
        assert piece.cells == cells(config)[number - 1 :: 5]
