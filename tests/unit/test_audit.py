"""What is left over after a workload, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.records.controls import read
from rig.trials import audit, sample
from rig.trials.sample import Sample

ROOT = Path(__file__).parents[2]
LOOKS = Path(__file__).with_name("data") / "looks"


def look(name: str) -> Sample:
    """What a real guest printed: v6.12 in the debug flavour, 4 CPUs, xfs, around 8 s of truncate-race."""
    return sample.parse((LOOKS / f"{name}.txt").read_text())


BEFORE, AFTER = look("base-before"), look("base-after")
LEAKY_BEFORE, LEAKY_AFTER = look("reference-leaked-before"), look("reference-leaked-after")


def titles(before: Sample, after: Sample, *, unmounted: bool = True) -> list[str]:
    return [finding.title for finding in audit.judge(before, after, unmounted=unmounted)]


# -- looks ------------------------------------------------------------------------------------------------------------


def test_a_look_is_parsed() -> None:
    assert BEFORE["nr_file_pages"] > 1000
    assert BEFORE["HugePages_Total"] == 0
    assert BEFORE["HardwareCorrupted"] == 0
    assert all(name in BEFORE for name in (*audit.LRU, *audit.REACHED, *audit.POOL))
    assert all(name in BEFORE for gauge in audit.GAUGES for name in gauge.names)


def test_what_is_no_counter_is_left_out() -> None:
    assert sample.parse("cat: /proc/x: No such file\nnr_dirty 3\nrig-mark\nHugePages_Free:       7\nkernel 6.12\n") == {
        "nr_dirty": 3,
        "HugePages_Free": 7,
    }


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.integers(-5, 1 << 62)))
def test_any_counters_come_back(counters: dict[str, int]) -> None:
    assert sample.parse("".join(f"{name} {value}\n" for name, value in counters.items())) == counters


# -- leaks ------------------------------------------------------------------------------------------------------------


def test_a_healthy_kernel_is_not_accused() -> None:
    assert audit.residue(BEFORE) <= 0
    assert audit.residue(AFTER) <= 0
    assert titles(BEFORE, AFTER) == []


def test_the_control_that_leaks_references_is_seen_by_the_finding_it_names() -> None:
    (finding,) = audit.judge(LEAKY_BEFORE, LEAKY_AFTER)
    (control,) = [one for one in read(ROOT / "patches/controls") if one.name == "reference-leaked"]
    assert control.sees(finding.title)
    assert f"{audit.residue(LEAKY_AFTER)} pages" in finding.text
    assert (finding.oracle, finding.kind) == ("audit", "leak")


def changed(**gains: int) -> dict[str, int]:
    return {**AFTER, **{name: AFTER[name] + gain for name, gain in gains.items()}}


@pytest.mark.parametrize("gauge", audit.GAUGES, ids=[gauge.names[0] for gauge in audit.GAUGES])
def test_a_gauge_that_stays_high_is_seen_and_one_within_its_slack_is_not(gauge: audit.Gauge) -> None:
    before = {**AFTER, "nr_file_pages": AFTER["nr_file_pages"] + 10_000}  # isolated pages are not lost ones here
    after = {**before, gauge.names[-1]: before[gauge.names[-1]] + gauge.slack}
    assert titles(before, after) == []
    after[gauge.names[-1]] += 1
    assert titles(before, after) == [gauge.heading]
    assert titles(before, after, unmounted=False) == []


def test_a_counter_that_stays_negative_is_seen_if_it_was_not_before() -> None:
    negative = {**AFTER, "nr_mapped": 0, "negative_nr_mapped": 3}
    assert titles(BEFORE, negative) == ["vmstat counter nr_mapped is negative"]
    assert titles(negative, negative) == []


@pytest.mark.parametrize("name", ["HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"])
@pytest.mark.parametrize("gain", [-1, 1])
def test_the_pool_of_huge_pages_is_exact(name: str, gain: int) -> None:
    before = {**AFTER, "HugePages_Total": 8, "HugePages_Free": 8, "HugePages_Rsvd": 1, "HugePages_Surp": 1}
    assert titles(before, before) == []
    after = {**before, name: before[name] + gain}
    (heading,) = titles(before, after)
    assert heading.startswith(f"leak: {name} is not")
    smaller = {**before, "HugePages_Total": 7, "HugePages_Free": 7}  # what memory there was when it was put back
    assert titles(before, smaller) == []
    assert titles(before, {**after, "HardwareCorrupted": 4}) == []  # memory failure dissolves huge pages


def test_poisoned_pages_are_not_lost() -> None:
    lost = -audit.residue(AFTER) + audit.LEAST + 1
    assert titles(BEFORE, changed(nr_inactive_anon=lost)) == ["leaked pages: on an LRU list, neither cached nor mapped"]
    assert titles(BEFORE, changed(nr_inactive_anon=lost, HardwareCorrupted=4)) == []


def test_pages_that_were_lost_before_are_not_lost_again() -> None:
    already = {**BEFORE, "nr_active_file": 5000}
    assert titles(already, {**AFTER, "nr_active_file": 5000}) == []


def test_what_is_not_known_accuses_nobody() -> None:
    assert titles({}, LEAKY_AFTER) == []
    assert titles(LEAKY_BEFORE, {}) == []
    assert titles({}, {}) == []


counts = st.integers(0, 1 << 20)


@given(st.lists(st.tuples(counts, counts), min_size=7, max_size=7), st.integers(0, 31 * 64), st.integers(0, 4096))
def test_whatever_is_cached_or_mapped_is_not_lost(lists: list[tuple[int, int]], batched: int, swapped: int) -> None:
    """Pages that are counted twice (mapped in the swap cache) or not yet on a list (batches) never make a leak."""
    cached = sum(one for one, _ in lists)
    mapped = sum(other for _, other in lists)
    after = {name: one + other for name, (one, other) in zip(audit.LRU, lists, strict=True)}
    after |= {"nr_file_pages": cached + batched + swapped, "nr_anon_pages": mapped}
    empty = dict.fromkeys((*audit.LRU, *audit.REACHED), 0)
    assert not any("LRU" in found for found in titles(empty, after, unmounted=False))


@given(st.integers(0, 1 << 40), st.sampled_from(audit.LRU))
def test_titles_hold_no_numbers(lost: int, name: str) -> None:
    for finding in audit.judge(BEFORE, changed(**{name: lost})):
        assert not any(character.isdigit() for character in finding.title + finding.signature)


# -- kmemleak and page_owner ------------------------------------------------------------------------------------------

#: As mm/kmemleak.c prints it (v6.12).
KMEMLEAK = """\
unreferenced object 0xffff888103a4d200 (size 192):
  comm "race", pid 145, jiffies 4294894301
  hex dump (first 32 bytes):
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
  backtrace (crc 5d4e7d36):
    [<ffffffff8118a1c9>] kmem_cache_alloc_noprof+0x1c9/0x2a0
    [<ffffffff8121f0aa>] alloc_inode+0x5a/0xd0
    [<ffffffff8121f13b>] new_inode+0x1b/0x40
unreferenced object 0xffff888103a4d300 (size 192):
  comm "race", pid 146, jiffies 4294894302
  backtrace (crc 1):
    __kmalloc_cache_noprof+0x1c9/0x2a0
    alloc_inode+0x5a/0xd0
unreferenced object 0xffff888103a4d400 (size 64):
  comm "race", pid 146, jiffies 4294894302
  backtrace (crc 1):
    kmemleak_alloc+0x4a/0x90
    shmem_symlink.isra.0+0x5a/0xd0
"""


def test_kmemleak_accuses_who_asked_for_the_memory_and_each_once() -> None:
    found = audit.lost_objects(KMEMLEAK)
    assert [finding.title for finding in found] == ["memory leak in alloc_inode", "memory leak in shmem_symlink"]
    assert found[0].signature == "leak:alloc_inode"
    assert "size 192" in found[0].text
    assert "shmem_symlink" not in found[0].text
    assert audit.lost_objects("") == ()


def test_page_owner_is_evidence_and_no_finding() -> None:
    found = audit.judge(LEAKY_BEFORE, LEAKY_AFTER)
    assert audit.with_owners(found, " \n") == found
    assert audit.with_owners((), "stack") == ()
    (first,) = audit.with_owners(found, "filemap_alloc_folio+0x1/0x2\n" + "x" * 100_000)
    assert "filemap_alloc_folio" in first.text
    assert len(first.text) < audit.OWNERS_CAP + 2000
    assert replace(first, text="") == replace(found[0], text="")
