"""The model of fault-around against page removal: what holds, what does not, and that it sees what is broken."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "patches/fault-around-recheck-v2/protocol.pml"
WHOLE_SEARCH = 1_000_000  # steps of the longest path; the longest that was seen has a tenth of it

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None,
    reason="spin or gcc is not installed: apt-get install --no-install-recommends spin gcc",
)


@dataclass(frozen=True, slots=True)
class Search:
    """A search of all states: the properties that failed somewhere, and how many steps of each process never ran."""

    violated: frozenset[str]
    unreached: dict[str, int]


def run(folder: Path, *argv: str | Path) -> str:
    done = subprocess.run(
        argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def search(folder: Path, *defines: str, depth: int = WHOLE_SEARCH) -> Search:
    run(folder, "spin", "-a", *(f"-D{define}" for define in defines), MODEL)
    run(folder, "gcc", "-O2", "-w", "-DSAFETY", "-DMEMLIM=2048", "-o", "pan", "pan.c")
    # -c0: goes on behind an error, so that all properties that fail are known, with what comes of it.
    said = run(folder, "./pan", "-c0", f"-m{depth}")
    assert "Full statespace search" in said, said
    for cut_short in ("Search not completed", "max search depth too small", "out of memory", "MEMLIM"):
        assert cut_short not in said, said
    errors = re.search(r"errors: (\d+)$", said, re.MULTILINE)
    assert errors, said
    # An assertion names its property; what else there may be (a deadlock) stands for itself.
    complaints = re.findall(r"^pan:\d+: (.*) \(at depth \d+\)$", said, re.MULTILINE)
    assert bool(complaints) == (errors[1] != "0"), said
    names = (re.search(r"assertion violated .*?\b(A\d)_off", text) for text in complaints)
    violated = frozenset(name[1] if name else text for name, text in zip(names, complaints, strict=True))
    unreached = re.findall(r"^unreached in (?:proctype )?(\w+)\n(?:\t/.*\n)*\t\((\d+) of", said, re.MULTILINE)
    return Search(violated, {process: int(steps) for process, steps in unreached})


@pytest.mark.parametrize(
    ("order", "remover", "violated"),
    [
        ("STOCK", "TRUNCATE", ""),
        ("STOCK", "INVALIDATE", ""),
        ("STOCK", "RECLAIM", ""),
        ("STOCK", "MIGRATE", ""),
        ("STOCK", "COLLAPSE", ""),
        ("STOCK", "SWAPOUT", ""),
        ("PRIVATE", "TRUNCATE", "A1 A2"),
        ("PRIVATE", "INVALIDATE", "A1 A2"),
        ("PRIVATE", "RECLAIM", ""),
        ("PRIVATE", "MIGRATE", "A2 A3"),
        ("PRIVATE", "COLLAPSE", "A2"),
        ("PRIVATE", "SWAPOUT", "A1 A2"),
        # The mapcount that goes away again: no stale page, but the assertions of the kernel, and a miscount.
        ("PROPOSED", "TRUNCATE", "A1"),
        ("PROPOSED", "INVALIDATE", "A1"),
        ("PROPOSED", "RECLAIM", ""),
        ("PROPOSED", "MIGRATE", "A3"),
        ("PROPOSED", "COLLAPSE", ""),
        ("PROPOSED", "SWAPOUT", "A1"),
        ("V2", "TRUNCATE", ""),
        ("V2", "INVALIDATE", ""),
        ("V2", "RECLAIM", ""),
        ("V2", "MIGRATE", ""),
        ("V2", "COLLAPSE", ""),
        ("V2", "SWAPOUT", ""),
    ],
)
def test_an_order_of_the_mapper_keeps_or_breaks(tmp_path: Path, order: str, remover: str, violated: str) -> None:
    assert search(tmp_path, f"ORDER={order}", remover).violated == set(violated.split())


@pytest.mark.parametrize("remover", ["TRUNCATE", "INVALIDATE", "SWAPOUT"])
def test_without_the_assertion_the_proposed_order_maps_nothing_stale(tmp_path: Path, remover: str) -> None:
    assert search(tmp_path, "ORDER=PROPOSED", remover, "IGNORE_A1").violated == set()


@pytest.mark.parametrize("remover", ["TRUNCATE", "INVALIDATE", "RECLAIM", "MIGRATE", "COLLAPSE", "SWAPOUT"])
def test_v2_holds_for_a_folio_with_private_data(tmp_path: Path, remover: str) -> None:
    assert search(tmp_path, "ORDER=V2", remover, "PRIVATE_DATA").violated == set()


def test_v2_holds_when_migration_expects_no_mappings(tmp_path: Path) -> None:
    assert search(tmp_path, "ORDER=V2", "MIGRATE", "MIGRATE_EXPECTS_NO_MAPPINGS").violated == set()


@pytest.mark.parametrize("other", ["RECLAIM", "MIGRATE", "COLLAPSE", "SWAPOUT"])
def test_v2_holds_for_two_removers_and_every_step_is_taken(tmp_path: Path, other: str) -> None:
    found = search(tmp_path, "ORDER=V2", "TRUNCATE", other)
    assert found.violated == set()
    # A property that holds because nobody gets there would be none.
    assert found.unreached["mapper"] == 0
    assert found.unreached["reclaim_migrate_collapse_or_swap_out"] == 0


@pytest.mark.parametrize(
    ("broken", "remover", "violated"),
    [
        ("REMOVER_ASKS_MAPCOUNT", "TRUNCATE", "A1 A2"),
        ("REMOVER_ASKS_MAPCOUNT", "INVALIDATE", "A1 A2"),
        ("REMOVER_EXPECTS_TOO_MANY", "TRUNCATE", "A1 A2"),
        ("REMOVER_COUNTS_MAPCOUNT", "TRUNCATE", "A1 A2"),
        ("REMOVER_PEEKS", "TRUNCATE", "A1 A2"),
        ("REMOVER_STOPS_EARLY", "TRUNCATE", "A1 A2"),
        ("REMOVER_ASKS_BEFORE_LOCK", "TRUNCATE", "A1 A2"),
        ("CHECKS_BEFORE_PTL", "TRUNCATE", "A1 A2"),
        ("CHECKS_BEFORE_REFERENCE", "TRUNCATE", "A1 A2"),
        ("CHECKS_NO_LOCK", "TRUNCATE", "A1 A2"),
        ("CHECKS_ONLY_LOCK", "TRUNCATE", "A2"),
        ("CHECKS_LOCK_LAST", "TRUNCATE", "A2"),
        ("MIGRATE_COUNTS_MAPCOUNT", "MIGRATE", "A2 A3"),
        ("MIGRATE_ASKS_WHEN_FROZEN", "MIGRATE", "A2 A3"),
        ("SWAPOUT_ASKS_MAPCOUNT", "SWAPOUT", "A1 A2"),
    ],
)
def test_v2_with_one_thing_done_wrong_is_seen(tmp_path: Path, broken: str, remover: str, violated: str) -> None:
    # One mapper is enough for nearly all of them.
    mappers = 2 if broken == "REMOVER_STOPS_EARLY" else 1
    found = search(tmp_path, "ORDER=V2", remover, f"BROKEN={broken}", f"MAPPERS={mappers}")
    assert found.violated == set(violated.split())


def test_a_search_that_was_cut_short_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="max search depth too small"):
        search(tmp_path, "ORDER=V2", "TRUNCATE", depth=100)


@pytest.mark.parametrize("define", ["ORDER=V3", "BROKEN=NOTHING"])
def test_a_name_that_the_model_does_not_know_is_an_error(tmp_path: Path, define: str) -> None:
    with pytest.raises(AssertionError):
        search(tmp_path, "ORDER=V2" if "BROKEN" in define else "TRUNCATE", "TRUNCATE", define)
