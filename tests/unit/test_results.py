"""Results as JSON: there and back, described by the schema, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import madeup as made
import pytest
from hypothesis import HealthCheck, given, settings

from rig.errors import HostError
from rig.model import Side, Status, Timing, TrialResult
from rig.runs.results import SCHEMA, Run, from_json, read_results, read_trial, to_json, write_results, write_trial
from rig.store import write_atomically

tmp_path_is_shared = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


def schema() -> Any:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


@tmp_path_is_shared
@given(made.runs)
def test_any_run_comes_back_and_fits_the_schema(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "run" / "results.json"
    write_results(path, run)
    assert read_results(path) == run
    jsonschema.Draft202012Validator(schema()).validate(json.loads(path.read_bytes()))


@tmp_path_is_shared
@given(made.trials)
def test_any_trial_comes_back(tmp_path: Path, trial: TrialResult) -> None:
    write_trial(tmp_path / "trial", trial)
    assert read_trial(tmp_path / "trial") == trial


def test_a_trial_of_a_rig_that_counted_nothing_is_read(tmp_path: Path) -> None:
    counted = dataclasses.replace(made.trial(), coverage=(("pgfault", 7), ("pgmigrate_success", 0)))
    path = write_trial(tmp_path, counted)
    assert read_trial(tmp_path) == counted
    data = json.loads(path.read_bytes())
    del data["trial"]["coverage"]
    write_atomically(path, json.dumps(data))
    assert read_trial(tmp_path) == dataclasses.replace(counted, coverage=())


def test_the_schema_is_one_and_allows_nothing_else() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    good = to_json(made.run(made.trial(Side.PATCHED, Status.CRASH, made.BUG)))
    validator.validate(good)
    spoilers: tuple[Callable[[Any], object], ...] = (
        lambda data: data.update(extra=1),
        lambda data: data["trials"][0].update(extra=1),
        lambda data: data["trials"][0]["findings"][0].update(extra=1),
        lambda data: data.update(schema_version=3),
        lambda data: data["trials"][0].update(status="MAYBE"),
        lambda data: data["verdict"].pop("judgement"),
        lambda data: data["verdict"]["findings"][0].update(p_value=1.5),
        lambda data: data["stages"][0].append(1),
    )
    for spoil in spoilers:
        bad = json.loads(json.dumps(good))
        spoil(bad)
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(bad)


def test_the_schema_names_every_field() -> None:
    described = schema()
    assert described["properties"].keys() == {field.name for field in dataclasses.fields(Run)}
    fields = {field.name for field in dataclasses.fields(TrialResult)}
    assert described["$defs"]["TrialResult"]["properties"].keys() == fields


def test_the_same_run_is_the_same_bytes(tmp_path: Path) -> None:
    run = made.run(made.trial())
    write_results(tmp_path / "a.json", run)
    turned = dataclasses.replace(run, config={key: run.config[key] for key in reversed(tuple(run.config))})
    write_results(tmp_path / "b.json", turned)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_no_trial_is_none(tmp_path: Path) -> None:
    assert read_trial(tmp_path) is None
    assert read_trial(tmp_path / "nowhere") is None


def test_a_trial_cut_anywhere_is_none(tmp_path: Path) -> None:
    path = write_trial(tmp_path, made.trial(Side.PATCHED, Status.CRASH, made.BUG))
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert read_trial(tmp_path) is None
    path.write_bytes(whole)
    assert read_trial(tmp_path) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(schema_version=3),
        lambda data: data["trial"].update(status="MAYBE"),
        lambda data: data["trial"].update(status=None),
        lambda data: data["trial"].update(seed="7"),
        lambda data: data["trial"].update(seed=True),
        lambda data: data["trial"].update(unknown=1),
        lambda data: data["trial"].pop("cell"),
        lambda data: data["trial"].update(cell=[]),
        lambda data: data["trial"].update(findings={}),
        lambda data: data["trial"].update(params=[["a", "b", "c"]]),
        lambda data: data["trial"]["timing"].update(boot="fast"),
        lambda data: data.update(trial=None),
    ],
)
def test_a_trial_that_means_something_else_is_none(tmp_path: Path, spoil: Any) -> None:
    path = write_trial(tmp_path, made.trial())
    data = json.loads(path.read_bytes())
    spoil(data)
    path.write_text(json.dumps(data))
    assert read_trial(tmp_path) is None


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "\x00\xff", "[" * 100_000, '{"schema_version": 1}'])
def test_junk_is_no_trial_and_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "trial.json").write_bytes(text.encode("latin-1"))
    assert read_trial(tmp_path) is None
    with pytest.raises(HostError, match="cannot be read as the results of a run"):
        read_results(tmp_path / "trial.json")


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        read_results(tmp_path / "results.json")


def test_a_field_with_a_default_may_be_missing() -> None:
    data = to_json(made.trial())
    del data["params"], data["timing"], data["perturbation"]
    assert from_json(TrialResult, data) == dataclasses.replace(made.trial(), timing=Timing())


def test_results_of_a_rig_that_did_not_perturb_fit_the_schema() -> None:
    data = to_json(made.run(made.trial()))
    for trial in data["trials"]:
        del trial["perturbation"]
    jsonschema.Draft202012Validator(schema()).validate(data)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = write_trial(tmp_path, made.trial())
    before = path.read_bytes()
    broken = dataclasses.replace(made.trial(), timing=dataclasses.replace(made.trial().timing, boot=float("nan")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_trial(tmp_path, broken)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half of it \ud800")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["trial.json"]
    assert path.stat().st_mode & 0o777 == 0o644


#: What version 1 knew nothing of.
LATER = {
    "Verdict": ("confidence", "excluded_rate", "excludes", "sampling"),
    "FindingVerdict": ("p_adjusted", "test", "base_interval", "patched_interval", "expected", "stopped"),
}


def test_results_of_the_first_version_are_read_and_fit_the_schema(tmp_path: Path) -> None:
    new = made.run(made.trial(Side.PATCHED, Status.CRASH, made.BUG), made.trial(Side.BASE))
    data = to_json(new)
    data["schema_version"] = 1
    for name in LATER["Verdict"]:
        del data["verdict"][name]
    for name in LATER["FindingVerdict"]:
        del data["verdict"]["findings"][0][name]
    jsonschema.Draft202012Validator(schema()).validate(data)
    write_atomically(tmp_path / "results.json", json.dumps(data))
    old = read_results(tmp_path / "results.json")
    assert (old.trials, old.schema_version) == (new.trials, 1)
    (found,) = old.verdict.findings
    assert (found.title, found.p_adjusted, found.expected) == (made.BUG.title, None, None)
    assert (old.verdict.excludes, old.verdict.sampling) == ((), None)
    write_atomically(tmp_path / "trial.json", json.dumps({"schema_version": 1, "trial": data["trials"][0]}))
    assert read_trial(tmp_path) == new.trials[0]
