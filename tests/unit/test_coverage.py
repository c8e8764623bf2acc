"""What the kernel did while a workload ran."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rig.trials.coverage import KEPT, gained, least, missing

BEFORE = {"pgfault": 100, "pgmigrate_success": 5, "nr_free_pages": 9000, "thp_split_page": 0}
AFTER = {**BEFORE, "pgfault": 350, "pgmigrate_success": 5, "trace_mm_filemap_map_pages": 70, "nr_free_pages": 1}


def test_counters_are_told_by_what_they_gained_zeros_included() -> None:
    assert gained(BEFORE, AFTER) == (
        ("pgfault", 250),
        ("pgmigrate_success", 0),
        ("thp_split_page", 0),
        ("trace_mm_filemap_map_pages", 70),
    )


def test_a_look_that_saw_nothing_is_no_zero() -> None:
    assert gained({}, AFTER) == ()
    assert gained(BEFORE, {}) == ()


def test_a_need_is_met_or_named() -> None:
    coverage = gained(BEFORE, AFTER)
    assert missing(coverage, {}) == ""
    assert missing((), {}) == ""
    assert missing(coverage, {"pgfault": 250, "trace_mm_filemap_map_pages": 70}) == ""
    assert missing(coverage, {"pgfault": 251}) == "kernel counter pgfault=250 below 251"
    assert missing(coverage, {"pgfault": 1, "pgmigrate_success": 1}) == "kernel counter pgmigrate_success=0 below 1"
    assert missing(coverage, {"pgmigrate": 1}) == "this kernel has no counter pgmigrate"
    assert missing((), {"pgfault": 1}) == "the kernel's counters could not be read"


def test_several_trials_are_told_by_their_least() -> None:
    one, other = gained(BEFORE, AFTER), gained(BEFORE, {**AFTER, "pgfault": 101})
    assert least([one, other, ()]) == (("pgfault", 1), ("trace_mm_filemap_map_pages", 70))
    assert least([]) == least([()]) == ()


events = st.dictionaries(st.sampled_from(["pgfault", "pgmigrate_success", "thp_x", "nr_zone"]), st.integers(0, 1 << 62))


@given(events, events, st.dictionaries(st.sampled_from(["pgfault", "thp_x"]), st.integers(1, 1 << 62)))
def test_a_need_is_met_exactly_when_every_counter_gained_it(
    before: dict[str, int], after: dict[str, int], needs: dict[str, int]
) -> None:
    coverage = gained(before, after)
    assert all(count >= 0 for _, count in coverage)
    assert [name for name, _ in coverage] == sorted({name for name, _ in coverage})
    assert "nr_zone" not in dict(coverage)
    met = all(dict(coverage).get(name, -1) >= floor for name, floor in needs.items())
    assert (missing(coverage, needs) == "") == met


def test_no_glob_stands_twice() -> None:
    assert len(set(KEPT)) == len(KEPT)
