"""What is known of the prefixes of series: what runs say of them, what is recorded, and how it is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import madeup as made
import pytest
from madeup import BUG, cell, trial

from rig.errors import ConfigError
from rig.model import Side, Status, TrialResult
from rig.records import recorded, tables
from rig.records.prefixes import Built, PrefixRun, known, state
from rig.records.recorded import Record
from rig.records.subjects import prefix_of, subjects
from rig.records.tables import BEGIN, END, series_table
from rig.runs.results import write_results
from rig.trees import series

FLAVOURS = {"debug": ("base", "debug-vm"), "release": ("base", "release")}
CONFIG = {"flavours": {name: list(words) for name, words in FLAVOURS.items()}, "sides": ["patched"]}
PATCH = "Subject: [PATCH] {0}\n\n---\n--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-a\n+b\n"


def smoke(flavour: str = "debug") -> str:
    return f"{flavour}/smp4/fault-stress/tmpfs"


def run(*ended: tuple[str, dict[str, int]], name: str = "1", warnings: tuple[str, ...] = ()) -> PrefixRun:
    """A run of all flavours in which trials of the cells ended so."""
    return PrefixRun(
        id=name,
        started="2026-01-02T03:04:05+00:00",
        base_tree="0" * 40,
        accelerator="tcg",
        builds=tuple(Built(flavour=name, fragments=words, warnings=warnings) for name, words in FLAVOURS.items()),
        trials=tuple((where, tuple(statuses.items())) for where, statuses in ended),
    )


# -- one prefix -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "is_known", "is_good"),
    [
        ([(smoke(), {"PASS": 1})], True, True),
        ([(smoke(), {"PASS": 2, "LOST": 1})], True, True),
        ([(smoke(), {"PASS": 1, "CRASH": 1})], True, False),
        ([(smoke(), {"TIMEOUT": 1})], True, False),
        ([(smoke(), {"LOST": 1})], False, False),
        ([(smoke(), {"SKIP": 1, "INCONCLUSIVE": 1})], False, False),
        ([(smoke("release"), {"PASS": 1})], False, False),
        ([("debug/smp4/fault-stress/xfs", {"PASS": 1})], False, False),
        ([("debug/smp4/truncate-race/tmpfs", {"CRASH": 1}), (smoke(), {"PASS": 1})], True, True),
        ([], False, False),
    ],
)
def test_a_prefix_is_known_when_a_smoke_trial_counts(
    ended: list[tuple[str, dict[str, int]]], is_known: bool, is_good: bool
) -> None:
    found = state([run(*ended)], "debug", FLAVOURS["debug"])
    assert (found.built, found.known, found.good) == (True, is_known, is_good)


def test_new_warnings_are_not_good() -> None:
    found = state([run((smoke(), {"PASS": 1}), warnings=("mm/x.c: unused",))], "debug", FLAVOURS["debug"])
    assert (found.known, found.good, found.warnings) == (True, False, ("mm/x.c: unused",))


def test_runs_of_one_prefix_are_added_up() -> None:
    one, other = run((smoke(), {"PASS": 1})), run((smoke("release"), {"PASS": 1}), name="2")
    assert not known([one], FLAVOURS)
    assert known([one, other], FLAVOURS)
    assert known([run((smoke(), {"CRASH": 1}), (smoke("release"), {"FAIL": 1}))], FLAVOURS)
    assert not known([], FLAVOURS)


def test_a_kernel_of_other_fragments_says_nothing() -> None:
    found = state([run((smoke(), {"PASS": 1}))], "debug", ("base", "debug-vm", "kasan"))
    assert (found.built, found.known) == (False, False)


# -- recording --------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the series `demo` of three patches and `twin`, which begins with the same two."""
    for name, last in (("demo", "c"), ("twin", "d")):
        home = tmp_path / "patches" / name
        home.mkdir(parents=True)
        for number, file in enumerate(("a", "b", last), start=1):
            (home / f"000{number}-{file}.patch").write_text(PATCH.format(file))
    (tmp_path / "patches/controls").mkdir()
    for home in (tmp_path / "patches", tmp_path / "patches/controls"):
        (home / "README.md").write_text(f"{BEGIN}\n{END}\n")
    return tmp_path


def finished(project: Path, number: int, *trials: TrialResult, name: str = "demo", warns: bool = False) -> Path:
    """Write the results of a run of the first patches of a series and return its folder."""
    files = sorted((project / "patches" / name).glob("*.patch"))[:number]
    read = series.read(*map(str, files))
    kernels = tuple(made.kernel(flavour=flavour) for flavour in FLAVOURS)
    if not warns:
        kernels = tuple(dataclasses.replace(kernel, warnings=()) for kernel in kernels)
    cells = [dataclasses.replace(cell("tmpfs", workload="fault-stress"), flavour=flavour) for flavour in FLAVOURS]
    done = made.run(*(trials or [trial(where=where) for where in cells]))
    info = dataclasses.replace(done.series, name=read.name, path=read.origin, key=read.key)
    folder = project / "results" / f"{name}-{number}"
    done = dataclasses.replace(done, id=folder.name, series=info, kernels=kernels, config=CONFIG)
    write_results(folder / "results.json", done)
    return folder


def record(project: Path, *places: Path) -> tuple[str, ...]:
    everything = subjects(project)
    said = recorded.add(project, places, everything, CONFIG)
    tables.write(project, everything, FLAVOURS)
    assert tables.complaint(project, everything, FLAVOURS) is None
    return said


def builds(project: Path) -> dict[str, str]:
    """What the table says of each series."""
    lines = series_table(subjects(project), recorded.read(project), FLAVOURS).splitlines()[2:]
    return {words[1].split("`")[1]: words[4].strip() for words in (line.split("|") for line in lines)}


def test_every_series_knows_its_prefixes(project: Path) -> None:
    demo, twin = subjects(project)
    assert demo.prefix_keys[:2] == twin.prefix_keys[:2]
    assert demo.prefix_keys[2] == demo.key != twin.key
    assert demo.files[1] == "patches/demo/0002-b.patch"
    assert prefix_of(twin.prefix_keys[1], (demo, twin)) == (demo, 2)
    assert prefix_of(twin.key, (demo, twin)) == (twin, 3)
    assert prefix_of("", (demo, twin)) is None


def test_a_run_of_the_first_patches_is_recorded_once_for_all_series_that_begin_so(project: Path) -> None:
    assert builds(project) == {"demo": "-", "twin": "-"}
    said = record(project, finished(project, 1), finished(project, 2, name="twin"))
    assert said == (
        "patches/demo: CLEAN recorded of its prefix 1",
        "patches/demo: CLEAN recorded of its prefix 2",
    )
    assert dict.fromkeys(("demo", "twin"), "2/3 prefixes: debug, release; not run: 3") == builds(project)
    assert recorded.read(project).series == {}
    ((one,), (_,)) = recorded.read(project).prefixes.values()
    assert {build.flavour: build.fragments for build in one.builds} == FLAVOURS
    assert [statuses for _, statuses in one.trials] == [(("PASS", 1),)] * 2
    before = (project / "patches/verdicts.json").read_bytes()
    record(project, project / "results/demo-1")
    assert (project / "patches/verdicts.json").read_bytes() == before
    assert str(project) not in before.decode()


def test_a_run_of_a_whole_series_counts_for_its_last_prefix(project: Path) -> None:
    said = record(project, finished(project, 3), finished(project, 1), finished(project, 2))
    assert said[0] == "patches/demo: CLEAN recorded (1 run)"
    assert list(recorded.read(project).series) == ["demo"]
    assert len(recorded.read(project).prefixes) == 2
    assert builds(project)["demo"] == "3/3 prefixes: debug, release"


def test_what_is_amiss_is_told(project: Path) -> None:
    crash = trial(Side.PATCHED, Status.CRASH, BUG, where=cell("tmpfs", workload="fault-stress"))
    record(project, finished(project, 1, warns=True), finished(project, 2, crash))
    assert builds(project)["demo"] == (
        "0/3 prefixes: debug, release; not run in debug: 3; not run in release: 2, 3; "
        "smoke trial failed in debug: 2; 2 new warnings"
    )


def test_prefixes_that_no_series_has_any_more_are_dropped(project: Path) -> None:
    record(project, finished(project, 1), finished(project, 2))
    for name in ("demo", "twin"):
        (project / f"patches/{name}/0002-b.patch").write_text(PATCH.format("e"))
    assert "prefixes that no series has any more: run `ci/record-verdicts`" in str(
        tables.complaint(project, subjects(project), FLAVOURS)
    )
    assert record(project) == ("patches: 1 prefix that no series has any more; dropped",)
    assert len(recorded.read(project).prefixes) == 1
    with pytest.raises(ConfigError, match="tested other patches than patches/demo holds now"):
        record(project, project / "results/demo-2")


def test_a_file_of_before_there_were_prefixes_is_read(project: Path) -> None:
    record(project, finished(project, 3))
    path = project / "patches/verdicts.json"
    data = json.loads(path.read_bytes())
    del data["prefixes"]
    path.write_text(json.dumps(data))
    assert recorded.read(project) == Record(series=recorded.read(project).series, prefixes={})
