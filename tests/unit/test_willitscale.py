"""Tests of will-it-scale as a workload: a tree of the same form, made here, is compiled and run on this host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostworkload import BROKEN, PASS, SOURCES, run

from rig.costs import bench, willitscale
from rig.costs.metrics import Kind, times_of
from rig.costs.samples import samples
from rig.errors import ConfigError
from rig.model import CaseResult, Cell, Side, Status, TrialResult
from rig.settings import reading
from rig.settings.matrix import cells
from rig.store import Store

ROOT = Path(__file__).parents[2]
#: Names that clash with those of the next one, and all that a test may define.
SPIN = """\
char *testcase_description = "counts";
static unsigned long wanted;
unsigned long step = 1;
void testcase_prepare(unsigned long tasks) { wanted = tasks; }
void testcase(unsigned long long *iterations, unsigned long nr)
{
	while (nr < wanted)
		*(volatile unsigned long long *)iterations += step;
}
void testcase_cleanup(void) { step = 0; }
"""
OTHER = """\
#include "local.h"
char *testcase_description = "counts by twos";
unsigned long step = STEP;
void testcase(unsigned long long *iterations, unsigned long nr)
{
	for (;;)
		*(volatile unsigned long long *)iterations += step + 0 * nr;
}
"""
ENDS = """\
#include <stdlib.h>
void testcase(unsigned long long *iterations, unsigned long nr) { *iterations = nr; abort(); }
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("will-it-scale")
    (made / "tests").mkdir()
    (made / "main.c").write_text('#error "it wants hwloc"\n')
    (made / "tests/local.h").write_text("#define STEP 2\n")
    sources = {"page_fault1": SPIN, "ppc-other2": OTHER, "ends3": ENDS}
    sources |= {
        "page_fault2": SPIN,
        "broken4": "int x = ;",
        "needs5": "void new_task(void); void testcase(void) { new_task(); }",
    }
    for name, text in sources.items():
        (made / "tests" / f"{name}.c").write_text(text)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def built(tree: Path, store: Store, *globs: str) -> Path:
    return willitscale.program(willitscale.tests(tree, globs), SOURCES, store, "gcc")


@pytest.fixture(scope="module")
def program(tree: Path, store: Store) -> Path:
    return built(tree, store, "page_fault1", "ppc-*", "ends3")


def test_tests_are_chosen_by_name_each_once(tree: Path) -> None:
    assert [file.stem for file in willitscale.tests(tree, ["ppc-*", "page_*", "page_fault1"])] == [
        "ppc-other2",
        "page_fault1",
        "page_fault2",
    ]


def test_each_test_is_a_case_that_counts_what_all_tasks_did(program: Path, tmp_path: Path) -> None:
    args = ("--dir", tmp_path, "--cases", "*page_fault1,*other2", "--tasks", "3", "--warm-up", "20", "--ms", "60")
    got = run(program, *args)
    assert got.code == PASS, got.lines
    assert got.results == (("ok", "will-it-scale.page_fault1", None), ("ok", "will-it-scale.ppc-other2", None))
    counters = [dict(line.split("=") for line in got.diagnostics("counter") if line.startswith(name)) for name in "tie"]
    tasks, iterations, elapsed = counters
    assert tasks == {"tasks": "3"}
    assert int(iterations["iterations"]) > 1000
    assert int(elapsed["elapsed_ns"]) >= 60_000_000


def test_a_test_that_ends_is_no_slow_kernel(program: Path, tmp_path: Path) -> None:
    got = run(program, "--dir", tmp_path, "--cases", "*ends3")
    assert got.code == BROKEN
    assert re.fullmatch(
        r"Bail out! will-it-scale\.ends3: a task ended by itself, with status 0x[0-9a-f]+", got.lines[-1]
    )


def test_the_program_is_made_anew_when_a_source_of_it_changes(tree: Path, store: Store) -> None:
    first = built(tree, store, "page_fault2")
    assert built(tree, store, "page_fault2") == first
    file = tree / "tests/page_fault2.c"
    file.write_text(SPIN.replace("step = 1", "step = 3"))
    assert built(tree, store, "page_fault2") != first


@pytest.mark.parametrize(
    ("globs", "said"),
    [
        (["nothing"], "will-it-scale has no test 'nothing' in"),
        (["broken4"], r"will-it-scale's broken4 does not compile: .*broken4\.c:1:9: error: expected expression"),
        (["needs5"], "the tests of will-it-scale do not link: .*undefined reference to `new_task'"),
    ],
)
def test_what_cannot_be_is_one_sentence(tree: Path, store: Store, globs: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        built(tree, store, *globs)
    assert "\n" not in caught.value.summary
    assert caught.value.hint


def test_what_is_no_tree_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    loaded = reading.load(ROOT / "rig.yaml", [f"bench.will_it_scale={tmp_path}"])
    with pytest.raises(ConfigError, match=r"is no source tree of will-it-scale: it has no tests/\*\.c"):
        bench.settle(loaded)


def test_a_bench_has_a_cell_more_for_each_machine_with_room_for_its_tasks(tree: Path) -> None:
    words = [f"bench.will_it_scale={tree}", "bench.tests=page_*", "bench.cpus=[1, 8]", "bench.filesystems=ext4"]
    settled = bench.settle(reading.load(ROOT / "rig.yaml", words))
    assert [one.id for one in cells(settled) if one.workload == willitscale.NAME] == [
        "release/cpus1/will-it-scale/tmpfs",
        "release/cpus8/will-it-scale/tmpfs",
    ]
    assert {name: one.memory_mib for name, one in settled.machines.items()} == {"cpus1": 1024, "cpus8": 2816}
    assert [file.stem for file in willitscale.chosen(settled)] == ["page_fault1", "page_fault2"]
    without = bench.settle(reading.load(ROOT / "rig.yaml", ["bench.cpus=8"]))
    assert list(without.workloads) == ["bench-faults"]
    assert without.machines["cpus8"].memory_mib == 1024


def test_a_case_of_it_is_a_rate_and_nothing_else() -> None:
    counters = {"tasks": 2, "iterations": 3000, "elapsed_ns": 2_000_000_000}
    assert dict(times_of(counters)) == pytest.approx({"iterations": 1500.0})
    result = TrialResult(
        cell=Cell(flavour="release", machine="cpus2", workload=willitscale.NAME, filesystem="tmpfs"),
        side=Side.BASE,
        prefix=0,
        tree="t",
        index=0,
        seed=1,
        status=Status.PASS,
        reason="",
        accelerator="tcg",
        started="",
        evidence="",
        cases=(CaseResult(name="will-it-scale.x", status=Status.PASS, counters=tuple(counters.items())),),
    )
    (found,) = samples(result, "base", Kind.TIMED, None)
    assert (found.where.case, dict(found.values), found.latencies) == ("will-it-scale.x", {"iterations": 1500.0}, ())
