"""Who sees which race, and whether the documents say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.cli import main
from rig.errors import ConfigError
from rig.front import explain
from rig.kernels.kconfig import settings
from rig.settings import matrix
from rig.settings.config import Machine
from rig.settings.reading import load
from rig.touches.races import BY_FILE, GENERAL, NAMES, ORACLES, RACES, concerning, favoured, oracle, race

ROOT = Path(__file__).parents[2]
KCONFIGS = ROOT / "kconfigs"
SMP = Machine(name="smp", cpus=4)


def kernel(*fragments: str) -> explain.Settings:
    return explain.of_flavour(fragments, KCONFIGS)


# -- the tables -------------------------------------------------------------------------------------------------------


def test_names_stand_once_and_refer_to_what_there_is() -> None:
    assert len(set(NAMES)) == len(NAMES)
    known = [one.name for one in ORACLES]
    assert len(set(known)) == len(known)
    assert set(GENERAL) <= set(known)
    for one in RACES:
        assert one.oracles
        assert len(set(one.oracles)) == len(one.oracles)
        assert set(one.oracles) <= set(known) - set(GENERAL)
        assert one.paths
    assert set(known) == {name for one in RACES for name in one.oracles} | set(GENERAL)  # nobody watches nothing


def test_every_symbol_stands_in_a_fragment() -> None:
    brought = {symbol for path in KCONFIGS.glob("*.config") for symbol in settings(path.read_text())}
    for one in ORACLES:
        assert {*one.kconfig, *one.without} <= brought, one.name
    for two in RACES:
        assert set(two.kconfig) <= brought, two.name


def test_every_race_is_seen_with_assertions_and_without_by_other_oracles_than_general_ones() -> None:
    machine = Machine(name="big", cpus=8, nodes=2)
    for one in RACES:
        for fragments in (("base", "debug-vm"), ("base", "release")):
            sight = explain.sight(one, kernel(*fragments), machine)
            assert sight.warning == "", (one.name, fragments)
            assert {name for name, _ in sight.blind}.isdisjoint(sight.seen_by)


def test_the_document_says_what_the_table_says() -> None:
    text = (ROOT / explain.README).read_text(encoding="utf-8")
    assert explain.filled(text, explain.tables(KCONFIGS)) == text, f"run {explain.RENDER}"


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ConfigError, match="races:begin"):
        explain.filled("# nothing\n", "table")


# -- one race in one cell ---------------------------------------------------------------------------------------------


def test_an_assertion_and_the_damage_it_hides_are_not_seen_by_the_same_kernel() -> None:
    debug, release = (explain.sight(race("truncate"), kernel("base", name), SMP) for name in ("debug-vm", "release"))
    assert "unaccount-bug" in debug.seen_by
    assert ("bad-page-cache", "is silent with DEBUG_VM") in debug.blind
    assert "bad-page-cache" in release.seen_by
    assert ("unaccount-bug", "needs DEBUG_VM") in release.blind


def test_the_last_fragment_decides() -> None:
    poison = oracle("unaccount-bug")
    assert explain.obstacle(poison, {**kernel("base", "debug-vm"), "DEBUG_VM": "n"}, ()) == "needs DEBUG_VM"


def test_page_poison_needs_the_command_line_as_well() -> None:
    debug = kernel("base", "debug-vm")
    assert explain.obstacle(oracle("page-poison"), debug, ()) == "needs page_poison=1 on the command line"
    assert explain.obstacle(oracle("page-poison"), debug, ("quiet", "page_poison=1")) == ""


@pytest.mark.parametrize(
    ("name", "change", "symbols", "words"),
    [
        ("truncate", {"cpus": 1, "nodes": 1}, {}, "smp has 1 CPU, expected 2 or more"),
        ("reclaim", {}, {"ZRAM": "n"}, "the kernel lacks ZRAM"),
        ("memory-failure", {}, {"MEMORY_FAILURE": "n"}, "the kernel lacks MEMORY_FAILURE"),
    ],
)
def test_what_cannot_happen_is_a_warning(
    name: str, change: dict[str, int], symbols: dict[str, str], words: str
) -> None:
    able = Machine(name="smp", cpus=4, nodes=2)
    debug = kernel("base", "debug-vm")
    assert explain.sight(race(name), debug, able).warning == ""
    less = able.model_copy(update=change)
    sight = explain.sight(race(name), {**debug, **symbols}, less)
    assert sight.warning.startswith(f"{name} cannot happen here: ")
    assert words in sight.warning


def test_a_race_that_can_happen_only_in_part_is_a_warning() -> None:
    sight = explain.sight(race("migration"), kernel("base", "debug-vm"), SMP)
    assert sight.warning == "migration can happen only in part here: smp has 1 NUMA node of 2"
    assert explain.sight(race("migration"), {}, SMP).warning.startswith(
        "migration cannot happen here: the kernel lacks"
    )


def test_a_race_that_nobody_sees_is_a_warning() -> None:
    blind = {"SWAP": "y"}
    unseen = explain.sight(race("truncate"), blind, SMP)
    assert unseen.warning == ""  # a workload sees it on any kernel
    only = explain.Sight(race=race("truncate"), seen_by=(), blind=(("unaccount-bug", "needs DEBUG_VM"),), hindered=())
    assert only.warning == "nobody sees truncate here: unaccount-bug needs DEBUG_VM"


# -- rig list --explain -----------------------------------------------------------------------------------------------


def test_explain_warns_where_the_chosen_machine_cannot_have_the_race(capsys: pytest.CaptureFixture[str]) -> None:
    file = ["-f", str(ROOT / "rig.yaml")]
    words = ["matrix={}", "workloads.truncate-race.races=[migration, truncate]"]
    assert main([*file, "list", "--explain", "debug/smp4/truncate-race/xfs", *words]) == 0
    out = capsys.readouterr().out
    assert "WARNING: migration can happen only in part here: smp4 has 1 NUMA node of 2" in out
    assert "WARNING: no cell can have all of migration: smp4 has 1 NUMA node of 2" in out
    assert "no cell has bad-page-cache (is silent with DEBUG_VM), which would see truncate" in out
    assert out.splitlines()[0] == "debug/smp4/truncate-race/xfs"
    assert main([*file, "list", "--explain", "*/truncate-race/xfs", *words]) == 0
    out = capsys.readouterr().out
    assert "no cell can have" not in out  # numa8 can
    assert "no cell has bad-page-cache" not in out  # release has
    assert "no cell has page-poison" in out


def test_every_cell_of_the_default_can_have_its_races_and_see_them() -> None:
    config = load(ROOT / "rig.yaml")
    for cell in matrix.cells(config):
        sights = explain.in_cell(cell, config)
        assert sights, cell.id
        assert [sight.warning for sight in sights if sight.warning and not sight.partly] == [], cell.id


def test_a_race_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-f", str(ROOT / "rig.yaml"), "list", "--explain", "workloads.truncate-race.races=[truncat]"]
    assert main(words) == 2
    assert "did you mean 'truncate'?" in capsys.readouterr().err


def test_a_workload_without_races_says_so() -> None:
    config = load(ROOT / "rig.yaml", ["workloads.fault-stress.races=[]", "select=fault-stress"])
    assert any("drives no race" in line for line in explain.report(matrix.cells(config), config))


def test_list_races_prints_what_the_document_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", str(ROOT / "rig.yaml"), "list", "--races"]) == 0
    assert capsys.readouterr().out.strip() in (ROOT / explain.README).read_text(encoding="utf-8")


# -- files of a series ------------------------------------------------------------------------------------------------


def test_files_concern_races_by_their_share() -> None:
    shares = concerning(["mm/filemap.c", "Documentation/mm/page_cache.rst"])
    assert shares["truncate"] == BY_FILE / 2
    assert shares["hugetlb"] == 0
    assert set(concerning([]).values()) == {0}


def test_a_function_says_more_than_its_file() -> None:
    shares = concerning(["mm/memory.c"], ["do_cow_fault"])
    assert shares["cow"] == 1
    assert shares["mremap"] == BY_FILE
    assert shares["hugetlb"] == 0
    assert concerning([], ["a_function_of_nobody"]) == concerning([])


def test_the_cases_about_the_touched_functions_are_favoured() -> None:
    assert favoured(["truncate", "cow"], ["do_cow_fault"]) == race("cow").cases
    assert favoured(["truncate"], ["do_cow_fault"]) == favoured([], ["do_cow_fault"]) == ()
