"""rig.yaml: what is refused, in which words, and what overrides do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.errors import ConfigError
from rig.settings.config import mebibytes
from rig.settings.reading import load

GOOD = """\
machines:
  smp4: {cpus: 4, memory: 1G}
workloads:
  truncate-race: {filesystems: [tmpfs]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    return path


def test_a_minimal_configuration_gets_its_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.machines["smp4"].name == "smp4"
    assert config.machines["smp4"].memory_mib == 1024
    assert config.workloads["truncate-race"].run == "truncate-race"
    assert config.results == tmp_path / "results"


def test_needs_are_counters_with_the_least_they_gain(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("[tmpfs]", "[tmpfs], needs: {pgmigrate_success: 20}"))
    assert load(path).workloads["truncate-race"].needs == {"pgmigrate_success": 20}
    assert load(path, ["workloads.truncate-race.needs={}"]).workloads["truncate-race"].needs == {}


def test_the_default_configuration_is_valid() -> None:
    config = load(Path(__file__).parents[2] / "rig.yaml")
    assert {"debug", "release"} <= set(config.flavours)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("cpus: 4", "cpsu: 4"), "rig.yaml:2: machines.smp4.cpsu: unknown key, expected one of cpus"),
        (("cpus: 4", "cpsu: 4"), "did you mean 'cpus'?"),
        (("cpus: 4", "cpus: many"), "rig.yaml:2: machines.smp4.cpus: 'many'"),
        (("cpus: 4", "cpus: 65"), "expected less than or equal to 64"),
        (("cpus: 4", "cpus: 2, nodes: 4"), "4 NUMA nodes but only 2 CPUs"),
        (("cpus: 4", "cpus: 4, sockets: 3"), "do not divide into 3 sockets"),
        (("memory: 1G", "memory: 1G, hugepages: 600"), "600 huge pages take 1200 MiB of 1024 MiB"),
        (("memory: 1G", "memory: lots"), "machines.smp4.memory: 'lots'"),
        (("tmpfs", "ext3"), "rig.yaml:4: workloads.truncate-race.filesystems.0: 'ext3'"),
        (("tmpfs", "ext3"), "did you mean 'ext4'?"),
        (("[tmpfs]", "[tmpfs], needs: {pgfault: 0}"), "rig.yaml:4: workloads.truncate-race.needs.pgfault: 0: expected"),
        (("[tmpfs]", "[tmpfs], needs: {pgfault: some}"), "needs.pgfault: 'some'"),
        (("[tmpfs]", "[]"), "filesystems: empty, expected at least one entry"),
        (("workloads:", "budgte: 3\nworkloads:"), "rig.yaml:3: budgte: unknown key"),
        (("workloads:", "machines: {}\nworkloads:"), "rig.yaml:3: machines: stands twice"),
        (("workloads:", "flavours: {debug: []}\nworkloads:"), "flavour debug has no Kconfig fragments"),
        (("smp4:", "'../etc':"), "machines.../etc"),
        (
            ("workloads:", "sides: [base, pached]\nworkloads:"),
            "rig.yaml:3: sides.1: 'pached', expected 'base' or 'patched'",
        ),
        (("workloads:", "sides: [base, pached]\nworkloads:"), "did you mean 'patched'?"),
        (("workloads:", "sides: []\nworkloads:"), "rig.yaml:3: sides: empty, expected at least one entry"),
        (("workloads:", "trials: 0\nworkloads:"), "rig.yaml:3: trials: 0, expected 1 to 10000"),
        (
            ("workloads:", "trials: many\nworkloads:"),
            "rig.yaml:3: trials: 'many', expected a number or {min: N, max: N",
        ),
        (("workloads:", "trials: [2]\nworkloads:"), "rig.yaml:3: trials: [2], expected a number or"),
        (("workloads:", "trials: {min: 3, max: 2}\nworkloads:"), "rig.yaml:3: trials: max 2 is below min 3"),
        (
            ("workloads:", "trials: {min: 3, mx: 2}\nworkloads:"),
            "trials.mx: unknown key, expected one of min, max, conf",
        ),
        (
            ("workloads:", "trials: {confidence: 95}\nworkloads:"),
            "rig.yaml:3: trials.confidence: 95: expected less than 1",
        ),
        (("workloads:", "sides: [base, base]\nworkloads:"), "rig.yaml:3: sides: a side stands twice, expected each"),
        (("workloads:", "perturb: {jiter: no}\nworkloads:"), "rig.yaml:3: perturb.jiter: unknown key, expected one of"),
        (("workloads:", "perturb: {length_ms: 0}\nworkloads:"), "expected greater than or equal to 1"),
        (("workloads:", "perturb: {stalls: {shar: 0.1}}\nworkloads:"), "did you mean 'share'?"),
        (("workloads:", "perturb: {stalls: {share: 0.9}}\nworkloads:"), "expected less than or equal to 0.5"),
        (("machines:", "machines: ["), "not valid YAML"),
    ],
)
def test_faults_are_named_with_line_and_expectation(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD.replace(*change)))
    assert expected in str(caught.value)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, GOOD.replace("cpus: 4", "cpus: x, thp: sometimes")))
    assert "cpus" in str(caught.value)
    assert "did you mean" not in str(caught.value).split("thp")[0]
    assert "'always', 'madvise' or 'never'" in str(caught.value)


def test_missing_file_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "rig.yaml")
    with pytest.raises(ConfigError, match="machines: missing"):
        load(write(tmp_path, ""))
    with pytest.raises(ConfigError, match="expected keys and values"):
        load(write(tmp_path, "- a\n"))
    (tmp_path / "rig.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "rig.yaml")


def test_overrides_reach_every_depth_and_name_themselves_when_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    config = load(path, ["machines.smp4.cpus=8", "out=elsewhere", "budget=2.5", "select=[a, b]"])
    assert config.machines["smp4"].cpus == 8
    assert config.results == tmp_path / "elsewhere"
    assert config.budget == 2.5
    assert config.select == ("a", "b")
    assert load(path, ["kernel.version=6.10"]).kernel.version == "6.10"
    assert load(path, ["series=2024"]).series == ("2024",)
    assert load(path, ["select=*/xfs"]).select == ("*/xfs",)
    assert load(path, ["select=*"]).select == ("*",)
    assert load(path, ["select=[*/xfs, debug]"]).select == ("*/xfs", "debug")
    with pytest.raises(ConfigError, match=r"command line: select=\[a"):
        load(path, ["select=[a"])
    with pytest.raises(ConfigError, match="command line: budget=soon: budget: 'soon'"):
        load(path, ["budget=soon"])
    with pytest.raises(ConfigError, match=r"command line: bugdet=1: bugdet: unknown key.*did you mean 'budget'"):
        load(path, ["bugdet=1"])
    with pytest.raises(ConfigError, match="not a group of keys"):
        load(path, ["budget=1", "budget.x=1"])


def test_series_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    assert load(write(tmp_path, GOOD), ["series=patches"]).series == (str(tmp_path / "patches"),)
    assert load(write(tmp_path, GOOD), ["series=git:x#A..B"]).series == ("git:x#A..B",)


def test_series_may_be_a_list(tmp_path: Path) -> None:
    for name in ("one", "two, and more"):
        (tmp_path / name).mkdir()
    one = str(tmp_path / "one")
    path = write(tmp_path, GOOD)
    assert load(path, ["series=[one, git:x#A..B]"]).series == (one, "git:x#A..B")
    assert load(path, ["series=[one]"]).series == load(path, ["series=one"]).series == (one,)
    assert load(path, ["series=two, and more"]).series == (str(tmp_path / "two, and more"),)
    assert load(write(tmp_path, GOOD + "series: [one, absent]\n")).series == (one, "absent")
    assert load(write(tmp_path, GOOD + "series:\n- one\n- '7'\n")).series == (one, "7")
    assert load(write(tmp_path, GOOD)).series == ()
    with pytest.raises(ConfigError, match=r"command line: series=\[one:1: not valid YAML"):
        load(path, ["series=[one"])
    with pytest.raises(ConfigError, match=r"command line: series=\[\{a: b\}\]: series.0: "):
        load(path, ["series=[{a: b}]"])


def test_sides_are_both_or_one(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert load(path).sides == ("base", "patched")
    assert load(path, ["sides=[patched]"]).sides == load(path, ["sides=patched"]).sides == ("patched",)
    assert load(path, ["sides=[patched, base]"]).sides == ("patched", "base")
    with pytest.raises(ConfigError, match="command line: sides=: sides: "):
        load(path, ["sides="])


@given(st.integers(0, 10**6), st.sampled_from([("", 1), ("M", 1), ("G", 1024), ("MiB", 1), ("T", 1024**2)]))
def test_sizes_are_whole_mebibytes(number: int, unit: tuple[str, int]) -> None:
    assert mebibytes(f"{number}{unit[0]}") == number * unit[1]


@given(st.text(max_size=200))
def test_no_text_is_a_traceback(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rig.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError):
            load(path)


def test_jitter_is_off_unless_it_is_switched_on(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert not load(path).perturb.jitter
    assert load(path, ["perturb.jitter=true"]).perturb.jitter
    assert load(path, ["perturb.length_ms=2.5"]).perturb.length_ms == 2.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (1, 1, 0.95)),
        (("trials=5",), (5, 5, 0.95)),
        (("trials={min: 2, max: 8, confidence: 0.99}",), (2, 8, 0.99)),
        (("trials={min: 3}",), (3, 3, 0.95)),
        (("trials={max: 4}",), (1, 4, 0.95)),
        (("trials={min: 2, max: 3}", "trials.max=9"), (2, 9, 0.95)),
    ],
)
def test_trials_are_a_number_or_a_range(
    words: tuple[str, ...], expected: tuple[int, int, float], tmp_path: Path
) -> None:
    (tmp_path / "rig.yaml").write_text(GOOD)
    config = load(tmp_path / "rig.yaml", words)
    assert (config.trials.min, config.trials.max, config.trials.confidence) == expected
    # As it is written into config.json of a run, from which a trial is run again.
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    assert load(tmp_path / "config.json").trials == config.trials


def test_known_issues_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text(GOOD)
    assert load(tmp_path / "rig.yaml").known_issues is None
    (tmp_path / "known-issues.yaml").write_text("issues: []")
    assert load(tmp_path / "rig.yaml").known_issues == tmp_path / "known-issues.yaml"
    assert load(tmp_path / "rig.yaml", ["known_issues=mine.yaml"]).known_issues == tmp_path / "mine.yaml"
