"""What fault-around leaves out: where a kernel's code visits a folio, and the share that comes of it."""

from __future__ import annotations

import pytest

from rig.costs import countctl, counts, visits
from rig.costs.countctl import Counted, Reading, Role
from rig.costs.counts import Code, Phase
from rig.costs.metrics import counts_of
from rig.touches import functions

LISTING = """\
ffffffff81154020 <next_uptodate_folio>:
ffffffff81154031:\tmov    0x18(%rdi),%rsi
ffffffff811540a3:\ttest   %rbx,%rbx
ffffffff811540a6:\tje     ffffffff8115426b <next_uptodate_folio+0x24b>
ffffffff811540ac:\tcmp    $0x406,%rbx
ffffffff811540b3:\tje     ffffffff81154197 <next_uptodate_folio+0x177>
ffffffff811540b9:\tcmp    $0x402,%rbx
ffffffff811540c0:\tcmp    $0x4060,%rax
ffffffff811540c7:\tmov    $0x406,%eax
ffffffff81154145:\tcmpq   $0x406,%r12
"""
WALK, VISIT, AROUND = 0xFFFFFFFF81000100, 0xFFFFFFFF81000140, 0xFFFFFFFF81000300
CODE = Code(
    starts=(0xFFFFFFFF81000000, WALK, 0xFFFFFFFF81000200, AROUND),
    names=("startup_64", "next_uptodate_folio", "next_uptodate_folio.cold", "filemap_map_pages"),
    visits=(VISIT,),
)


def counted(*, instructions: int = 0, entered: tuple[int, int] = (0, 0)) -> Counted:
    return Counted(instructions=(instructions, 0), locked=(0, 0), entered=entered)


def condensed(*spans: tuple[int, Counted], code: Code = CODE) -> Phase:
    reading = Reading(loaded=True, begun=1, phases=(countctl.Phase(spans=spans, sites=()),), lost_sites=0)
    (found,) = counts.condense(reading, code).phases
    return found


def phase(*, visited: int | None, walks: int, around: int, pmd: int = 0) -> Phase:
    entered = {"next_uptodate_folio": walks, "filemap_map_pages": around, "do_set_pmd": pmd}
    return Phase(
        work=tuple(
            counts.Work(function=name, instructions=(0, 0), locked=(0, 0), entered=(number, 0))
            for name, number in entered.items()
        ),
        visited=visited,
    )


def test_a_folio_is_visited_where_it_is_compared_with_the_zero_entry() -> None:
    assert visits.places(functions.parse_disassembly(LISTING)) == (0xFFFFFFFF811540AC, 0xFFFFFFFF81154145)


def test_a_symbol_is_in_two_pieces_and_all_others_in_one() -> None:
    assert [(start, end) for start, end, _ in CODE.spans][1:4] == [
        (WALK, VISIT),
        (VISIT, 0xFFFFFFFF81000200),
        (0xFFFFFFFF81000200, AROUND),
    ]
    assert {role for _, _, role in CODE.spans} == {Role.PLAIN}
    assert [name for _, name in CODE.pieces][1:3] == ["next_uptodate_folio"] * 2
    assert CODE.of("filemap_map_pages") == ((AROUND, AROUND + 4096),)
    assert Code(starts=(), names=()).spans == ()


def test_a_visit_is_no_call_and_its_instructions_are_those_of_the_function() -> None:
    found = condensed(
        (1, counted(instructions=10, entered=(3, 1))),
        (2, counted(instructions=90, entered=(40, 8))),
        (3, counted(instructions=5, entered=(2, 0))),
    )
    (work,) = found.work
    assert (work.function, work.instructions, work.entered) == ("next_uptodate_folio", (105, 0), (3, 1))
    assert found.visited == 48


def test_where_nothing_was_visited_and_where_nobody_can_say_differ() -> None:
    assert condensed().visited == 0
    assert condensed(code=Code(starts=CODE.starts, names=CODE.names)).visited is None


@pytest.mark.parametrize(
    ("visited", "walks", "around", "share"),
    [
        (7936, 8432, 496, 0.0),  # 496 windows of 16 pages; each page is handed over, and then there are none left
        (6506, 6732, 410, (6506 - 6322) / 6506),
        (16, 1, 1, 1.0),  # all were locked
    ],
)
def test_what_is_visited_and_not_handed_over_is_skipped(visited: int, walks: int, around: int, share: float) -> None:
    found = phase(visited=visited, walks=walks, around=around)
    assert found.skipped == pytest.approx(share)
    assert dict(counts_of("many-private-read", {"pages": 1, "ideal": 1}, found))["skipped"] == pytest.approx(share)


@pytest.mark.parametrize(
    "found",
    [
        phase(visited=None, walks=5, around=1),  # inlined: no place was found
        phase(visited=0, walks=0, around=0),
        phase(visited=7, walks=0, around=1),
        phase(visited=1, walks=1, around=1, pmd=1),
    ],
)
def test_where_it_is_not_known_nothing_is_said(found: Phase) -> None:
    assert found.skipped is None
    assert "skipped" not in dict(counts_of("many-private-read", {"pages": 1, "ideal": 1}, found))
