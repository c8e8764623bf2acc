"""A run's folder: new, resumed, locked, latest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.errors import ConfigError, HostError
from rig.runs.rundir import PLAN, RESULTS, latest, open_run, remove_secrets
from rig.trees.series import Patch, Series

SERIES = Series(
    name="demo", origin="demo", patches=(Patch(number=1, name="a", subject="s", mail=b"From: x\n", paths=("a",)),)
)
ONE = {"config": {"budget": 1, "a": 2}, "cells": ["a"]}
OTHER = {"config": {"budget": 2}, "cells": ["a"]}


def names(results: Path) -> list[str]:
    return sorted(path.name for path in results.iterdir() if not path.is_symlink())


def test_a_folder_holds_all_that_a_rerun_needs(tmp_path: Path) -> None:
    with open_run(tmp_path, SERIES, ONE, resume=True) as folder:
        assert (folder.path / "series/0001.patch").read_bytes() == b"From: x\n"
        assert list(json.loads((folder.path / "config.json").read_text()).items()) == [("budget", 1), ("a", 2)]
        assert folder.id.endswith("-demo")
        assert not folder.resumed
        assert latest(tmp_path) == folder.path.resolve()


def test_only_an_interrupted_run_of_the_same_plan_is_resumed(tmp_path: Path) -> None:
    with open_run(tmp_path, SERIES, ONE, resume=True) as first:
        pass
    with open_run(tmp_path, SERIES, OTHER, resume=True) as other:
        assert not other.resumed
    with open_run(tmp_path, SERIES, ONE, resume=False) as forced:
        assert not forced.resumed
        (forced.path / RESULTS).write_text("{}")
    with open_run(tmp_path, SERIES, ONE, resume=True) as again:
        assert again.resumed
        assert again.path == first.path
        assert again.started == first.started
        (again.path / RESULTS).write_text("{}")
    with open_run(tmp_path, SERIES, ONE, resume=True) as fresh:
        assert not fresh.resumed
    assert len(names(tmp_path)) == 4


def test_a_run_that_somebody_works_on_is_not_resumed(tmp_path: Path) -> None:
    with open_run(tmp_path, SERIES, ONE, resume=True) as one, open_run(tmp_path, SERIES, ONE, resume=True) as two:
        assert one.path != two.path
        assert not two.resumed


def test_a_damaged_plan_is_passed_over(tmp_path: Path) -> None:
    for number, text in enumerate(("", "[]", "{", '{"key": 3}')):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / PLAN).write_text(text)
    with open_run(tmp_path, SERIES, ONE, resume=True) as folder:
        assert not folder.resumed


def test_no_run_and_no_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run there yet"):
        latest(tmp_path)
    (tmp_path / "latest").mkdir()
    with pytest.raises(HostError, match="keeps a link there"), open_run(tmp_path, SERIES, ONE, resume=True):
        pass


def test_secrets_are_removed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "image.cpio").write_text("x")
    (tmp_path / "results.json").write_text("{}")
    remove_secrets(tmp_path)
    assert names(tmp_path) == ["results.json"]
