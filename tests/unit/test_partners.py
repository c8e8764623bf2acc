"""The other parties of the races: by the files of a series, and by names that a kernel may have once."""

from __future__ import annotations

from rig.touches import partners, races
from rig.touches.functions import Kind, Symbol, Symbols, partner_ranges


def test_every_partner_belongs_to_a_known_race() -> None:
    assert set(partners.PARTNERS) <= set(races.NAMES)


def test_the_races_of_the_files_say_who_the_other_is() -> None:
    assert "delete_from_page_cache_batch" in partners.of(["mm/filemap.c"])
    assert "hugetlbfs_fallocate" in partners.of(["fs/hugetlbfs/inode.c"])
    assert "move_page_tables" not in partners.of(["mm/khugepaged.c"])
    assert partners.of(["README"]) == ()
    assert partners.of([]) == ()


def test_a_name_that_two_functions_have_is_nobody() -> None:
    twice = [Symbol(name="two", address=address, size=8, file=file) for address, file in ((0, "a.c"), (16, "b.c"))]
    once = Symbol(name="one.constprop.0", address=32, size=8, file="a.c")
    (found,) = partner_ranges(["one", "two", "none"], Symbols([*twice, once]))
    assert (found.symbol, found.file, found.function, found.kind) == ("one.constprop.0", "a.c", "one", Kind.PARTNER)
