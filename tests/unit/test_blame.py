"""Where a finding points in a series: by its stack, else by the race it was seen in."""

from __future__ import annotations

import dataclasses
from typing import Any

from madeup import BUG, run, trial

from rig.model import CaseResult, Finding, Side, Status
from rig.runs.results import Patch, Run
from rig.touches.touched import Function
from rig.verdicts.blame import Blame, blame, of_verdict, stack

SPLAT = """\
[    5.1][  T172] kernel BUG at mm/filemap.c:154!
[    5.1][  T172] RIP: 0010:filemap_unaccount_folio+0x1d5/0x200
[    5.1][  T172] Call Trace:
[    5.1][  T172]  <TASK>
[    5.1][  T172]  ? filemap_map_pages+0x10/0x300
[    5.1][  T172]  filemap_map_folio_range mm/filemap.c:3570 [inline]
[    5.1][  T172]  next_uptodate_folio.isra.0+0x8c/0x2e0 mm/filemap.c:3400
[    5.1][  T172]  do_fault+0x1/0x2"""


def patch(number: int, *names: str) -> Patch:
    functions = tuple(Function("mm/filemap.c", name) for name in names)
    return Patch(number=number, subject=f"mm: {number}", commit="c", tree="t", functions=functions)


def pointed(finding: Finding, *patches: Patch, races: Any = ("hole-punch", "mremap"), cases: Any = ()) -> Blame:
    return blame(of(finding, *patches, races=races, cases=cases), seen(finding, cases), finding)


def seen(finding: Finding, cases: Any) -> Any:
    return trial(Side.PATCHED, Status.CRASH, finding, cases=cases)


def of(finding: Finding, *patches: Patch, races: Any, cases: Any = ()) -> Run:
    made = run(seen(finding, cases))
    return dataclasses.replace(
        made,
        series=dataclasses.replace(made.series, patches=patches),
        config={"workloads": {"truncate-race": {"races": list(races)}}},
    )


def test_the_stack_is_read_without_leftovers_and_with_inlined_frames() -> None:
    assert stack(SPLAT) == ("filemap_unaccount_folio", "filemap_map_folio_range", "next_uptodate_folio", "do_fault")
    assert stack("pc : foo+0x1/0x2\nlr : bar+0x3/0x4") == ("foo", "bar")
    assert stack("punch: page 3 stamp 0x1c/0x20") == ()


def test_patches_whose_functions_are_on_the_stack_come_innermost_first() -> None:
    finding = dataclasses.replace(BUG, text=SPLAT)
    found = pointed(
        finding, patch(1, "do_fault", "other"), patch(2, "next_uptodate_folio"), patch(3, "filemap_map_pages")
    )
    assert [(one.number, one.functions) for one in found.suspects] == [
        (2, ("next_uptodate_folio",)),
        (1, ("do_fault",)),
    ]
    assert found.sentence == "on the stack: next_uptodate_folio (patch 2); do_fault (patch 1)"


def test_without_such_a_function_the_race_leads_to_its_parties() -> None:
    cases = (CaseResult(name="punch-private", status=Status.CRASH, findings=(BUG,)),)
    found = pointed(BUG, patch(1, "filemap_map_pages"), patch(2, "move_page_tables"), cases=cases)
    assert found.races == ("hole-punch",)  # by the case; the workload drives mremap, too
    assert [one.number for one in found.suspects] == [1]
    assert found.sentence == (
        "no function of the series is on the stack; it was seen while driving the race hole-punch, and patch 1 touches "
        "a party to that"
    )
    whole = pointed(BUG, patch(1, "filemap_map_pages"), patch(2, "move_page_tables"))
    assert [one.number for one in whole.suspects] == [1, 2]
    assert "the races hole-punch and mremap, and patches 1 and 2 touch a party" in whole.sentence


def test_nothing_is_made_up() -> None:
    found = pointed(dataclasses.replace(BUG, function=None, text=""), patch(1, "kmalloc"))
    assert found.suspects == ()
    assert found.sentence == "nothing in it leads to a function of the series"
    assert pointed(BUG, patch(1), races=("no-such-race",)).suspects == ()


def test_a_verdict_is_told_by_its_example() -> None:
    made = of(dataclasses.replace(BUG, text=SPLAT), patch(1, "do_fault"), races=())
    (found,) = made.verdict.findings
    told = of_verdict(made, found)
    assert told is not None
    assert told.suspects[0].number == 1
    assert of_verdict(made, dataclasses.replace(found, example="gone")) is None
