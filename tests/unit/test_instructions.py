"""Choosing the instructions for kprobes: parsing nm and objdump, sampling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rig.perturbation.instructions import ANCHOR, Names, Place, parse_names, places, sample, spans_of

NM = """\
ffffffff81000000 T _stext
ffffffff81158ff0 T filemap_map_pages
ffffffff811581d0 t next_uptodate_folio
ffffffff81200000 t show
ffffffff81300000 t show
ffffffff82078320 D __tracepoint_mm_filemap_map_pages
ffffffff81400000 W weak_one
                 U somewhere_else
"""
OBJDUMP = """\

vmlinux:     file format elf64-x86-64


Disassembly of section .text:

ffffffff81158ff4 <filemap_map_pages+0x4>:
ffffffff81158ff4:\tpush   %r13
ffffffff81158ff6:\tnopl   0x0(%rax,%rax,1)
ffffffff81158ffb:\tcall   ffffffff811581d0 <next_uptodate_folio>
ffffffff81159000:\tlock cmpxchg %rdx,(%rcx)
ffffffff81159005:\tcs nopw 0x0(%rax,%rax,1)
ffffffff8115900f:\txchg   %ax,%ax
ffffffff81159011:\tdata16 cs nopw 0x0(%rax,%rax,1)
ffffffff8115901c:\tint3
ffffffff8115901d:\tnop
ffffffff8115901e:\txchg   %ax,(%rdx)

ffffffff81200000 <show>:
ffffffff81200000:\tret
"""


def test_names_tell_one_function_from_several() -> None:
    names = parse_names(NM)
    assert names.ambiguous == {"show"}
    assert names.addresses["filemap_map_pages"] == 0xFFFFFFFF81158FF0
    assert names.addresses["weak_one"] == 0xFFFFFFFF81400000
    assert "show" not in names.addresses
    assert "__tracepoint_mm_filemap_map_pages" not in names.addresses


def test_places_are_instruction_boundaries_relative_to_the_symbol_not_to_the_range() -> None:
    found = places(OBJDUMP, parse_names(NM))
    assert [str(place) for place in found] == [
        "filemap_map_pages+0x4",
        "filemap_map_pages+0xb",
        "filemap_map_pages+0x10",
        "filemap_map_pages+0x2e",
        "_stext+0x200000",  # one of two functions called show
    ]


def test_what_cannot_be_named_is_left_out() -> None:
    assert all(place.symbol != ANCHOR for place in places(OBJDUMP, Names(addresses={}, ambiguous=frozenset({"show"}))))


def test_no_text_has_no_places() -> None:
    assert places("", Names(addresses={})) == ()
    assert sample([], 64, 1) == ()
    assert sample([()], 64, 1) == ()


def test_a_function_comes_with_its_clones_and_its_cold_part() -> None:
    listing = """\
ffffffff81000000 0000000000000010 T fault
ffffffff81000010 0000000000000020 t fault.cold
ffffffff81000030 0000000000000030 t fault.isra.0
ffffffff81000060 0000000000000030 t fault_around
ffffffff81000090 0000000000000030 d fault
"""
    assert spans_of(["fault"], listing) == (
        (0xFFFFFFFF81000000, 0x10),
        (0xFFFFFFFF81000010, 0x20),
        (0xFFFFFFFF81000030, 0x30),
    )


def _function(name: str, size: int) -> tuple[Place, ...]:
    return tuple(Place(symbol=name, offset=offset) for offset in range(size))


def test_a_small_function_is_not_left_out() -> None:
    groups = [_function("big", 5000), *(_function(f"small{number}", 2) for number in range(7))]
    for seed in range(50):
        assert {place.symbol for place in sample(groups, 8, seed)} == {"big", *(f"small{n}" for n in range(7))}


def test_all_of_a_function_is_drawn_from() -> None:
    seen = {place for seed in range(200) for place in sample([_function("f", 40)], 8, seed)}
    assert seen == set(_function("f", 40))


@given(st.lists(st.integers(0, 60), max_size=9), st.integers(0, 80), st.integers(0, 2**31))
def test_a_sample_is_of_the_size_asked_for_and_the_same_for_the_same_seed(
    sizes: list[int], count: int, seed: int
) -> None:
    groups = [_function(f"f{number}", size) for number, size in enumerate(sizes)]
    chosen = sample(groups, count, seed)
    assert len(set(chosen)) == len(chosen) == min(count, sum(sizes))
    assert set(chosen) <= {place for group in groups for place in group}
    assert chosen == sample([list(group) for group in groups], count, seed)


def test_seeds_differ() -> None:
    groups = [_function("f", 400)]
    assert len({sample(groups, 16, seed) for seed in range(20)}) == 20


def test_overlapping_groups_give_no_place_twice() -> None:
    chosen = sample([_function("f", 10), _function("f", 20)], 20, 3)
    assert sorted(chosen) == sorted(_function("f", 20))
