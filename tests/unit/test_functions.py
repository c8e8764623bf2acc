"""Functions in a kernel: symbols and their clones, calls, and ranges that do not overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.touches.functions import (
    DULL,
    Instruction,
    Kind,
    Range,
    Symbol,
    Symbols,
    called,
    callee_ranges,
    caller_ranges,
    own_ranges,
    parse_disassembly,
    parse_symbols,
    placed,
)
from rig.touches.touched import Function

READELF = """
Symbol table '.symtab' contains 9 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     0: 0000000000000000     0 NOTYPE  LOCAL  DEFAULT  UND
     1: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS filemap.c
     2: ffffffff81000100    64 FUNC    LOCAL  DEFAULT    1 helper
     3: ffffffff81000140    32 FUNC    LOCAL  DEFAULT    1 next_folio.isra.0
     4: ffffffff81000160    16 FUNC    LOCAL  DEFAULT    1 next_folio.isra.0.cold
     5: 0000000000000000     0 FILE    LOCAL  DEFAULT  ABS shmem.c
     6: ffffffff81000200    48 FUNC    LOCAL  DEFAULT    1 helper
     7: ffffffff81000300    80 FUNC    GLOBAL DEFAULT    1 map_pages
     8: ffffffff82000000     8 OBJECT  GLOBAL DEFAULT    3 data
     9: ffffffff81000400    80 FUNC    GLOBAL DEFAULT    1 map_pages_too
"""
OBJDUMP = """
vmlinux:     file format elf64-x86-64

Disassembly of section .text:

ffffffff81000300 <map_pages>:
ffffffff81000300:\tnop
ffffffff81000301:\tcall   ffffffff81000100 <helper>
ffffffff81000306:\tcall   ffffffff81000140 <next_folio.isra.0>
ffffffff8100030b:\tjne    ffffffff81000310 <map_pages+0x10>
ffffffff81000310:\tcall   *%rax
ffffffff81000312:\tjmp    ffffffff81000400 <map_pages_too>
"""
SYMBOLS = parse_symbols(READELF)


def test_a_local_symbol_is_known_by_its_file() -> None:
    assert SYMBOLS.one("helper", "filemap.c") == Symbol(
        name="helper", address=0xFFFFFFFF81000100, size=64, file="filemap.c"
    )
    shmem = SYMBOLS.one("helper", "shmem.c")
    assert shmem is not None
    assert shmem.address == 0xFFFFFFFF81000200
    assert SYMBOLS.one("helper", "memory.c") is None  # two, and neither is it
    assert SYMBOLS.one("map_pages", "memory.c") is not None  # global: whatever file
    assert SYMBOLS.one("data", "") is None


def test_clones_and_cold_parts_belong_to_their_function_and_namesakes_do_not() -> None:
    assert [one.name for one in SYMBOLS.variants("next_folio", "filemap.c")] == [
        "next_folio.isra.0",
        "next_folio.isra.0.cold",
    ]
    assert [one.name for one in SYMBOLS.variants("map_pages", "filemap.c")] == ["map_pages"]


def test_calls_and_tail_calls_are_callees_and_jumps_inside_are_not() -> None:
    found = called(parse_disassembly(OBJDUMP), SYMBOLS)
    assert {(one.name, one.file) for one in found} == {
        ("helper", "filemap.c"),
        ("next_folio.isra.0", "filemap.c"),
        ("map_pages_too", ""),
    }


@pytest.mark.parametrize(
    ("name", "dull"),
    [
        ("_raw_spin_lock", True),
        ("__kasan_check_read", True),
        ("lock_acquire", True),
        ("__fentry__", True),
        ("xas_find", True),
        ("down_read", True),
        ("set_pte_range", False),
        ("folio_add_file_rmap_ptes", False),
        ("find_lock_entries", False),
        ("__folio_lock", False),
        ("unlock_page", False),
        ("truncate_cleanup_folio", False),
        ("folio_unlock", False),
    ],
)
def test_what_everybody_calls_is_no_callee(name: str, dull: bool) -> None:
    symbols = Symbols([Symbol(name=name, address=16, size=4, file="")])
    call = Instruction(address=0, mnemonic="call", operands=f"10 <{name}>")
    assert bool(called([call], symbols)) is not dull
    assert bool(DULL.match(name)) is dull


def test_ranges_are_named_by_the_source() -> None:
    own = own_ranges([Function("mm/filemap.c", "next_folio"), Function("mm/filemap.c", "gone")], SYMBOLS)
    assert {(one.symbol, one.function, one.kind, one.length) for one in own} == {
        ("next_folio.isra.0", "next_folio", Kind.TOUCHED, 32),
        ("next_folio.isra.0.cold", "next_folio", Kind.TOUCHED, 16),
    }
    assert [one.function for one in callee_ranges([("helper", "shmem.c"), ("nobody", "")], SYMBOLS)] == ["helper"]
    assert [one.kind for one in caller_ranges({"mm/filemap.c": ["map_pages"]}, SYMBOLS)] == [Kind.CALLER]


pieces = st.tuples(st.integers(0, 70), st.integers(1, 10))


@given(st.lists(pieces, max_size=12))
def test_spans_do_not_overlap_and_the_first_has_it(ranges: list[tuple[int, int]]) -> None:
    symbols = Symbols([Symbol(name="f", address=1000, size=80, file="")])
    made = [
        Range(symbol="f", file="", offset=offset, length=length, function=str(number), kind=Kind.TOUCHED)
        for number, (offset, length) in enumerate(ranges)
    ]
    owner: dict[int, str] = {}
    for one in made:
        for byte in range(one.offset, one.offset + one.length):
            owner.setdefault(1000 + byte, one.function)
    spans = placed(made, symbols)
    assert {
        byte: span.range.function for span in spans for byte in range(span.start, span.start + span.length)
    } == owner
    assert sum(span.length for span in spans) == len(owner)
    assert [span.start for span in spans] == sorted(span.start for span in spans)
