"""The other party of each race: the functions in which a remover (or whoever it is) stands between its two steps.

A series usually touches one side only. The side that it touches can be held in its window for as long as one likes: the
race is only lost if the other one gets there between, say, its unmapping and its removal of a page, which takes it
microseconds. So it is stalled there as well. Names are those of v6.12; a kernel that has no such function, or has it
inlined, is stalled in the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from rig.touches import races

_REMOVAL = (
    "truncate_inode_pages_range",
    "truncate_cleanup_folio",
    "delete_from_page_cache_batch",
    "unmap_mapping_pages",
    "unmap_mapping_folio",
    "shmem_undo_range",
)

#: By the name of the race (races.py).
PARTNERS: dict[str, tuple[str, ...]] = {
    "truncate": (*_REMOVAL, "truncate_pagecache"),
    "hole-punch": (*_REMOVAL, "truncate_pagecache_range"),
    "invalidate": (
        "invalidate_inode_pages2_range",
        "unmap_mapping_folio",
        "mapping_evict_folio",
    ),
    "cow": ("do_wp_page", "truncate_pagecache", "truncate_inode_pages_range"),
    "reclaim": ("__remove_mapping", "try_to_unmap_one", "shmem_writepage", "shmem_swapin_folio"),
    "migration": ("migrate_pages_batch", "__folio_migrate_mapping", "try_to_migrate_one", "remove_migration_pte"),
    "collapse": ("collapse_file",),
    "split": ("split_huge_page_to_list_to_order", "truncate_inode_partial_folio", "remap_page"),
    "hugetlb": ("hugetlb_fault", "hugetlbfs_fallocate", "remove_inode_hugepages"),
    "mremap": ("move_page_tables", "unmap_page_range", "copy_page_range"),
    "writeback": ("folio_clear_dirty_for_io", "page_mkclean_one"),
    "memory-failure": ("memory_failure", "hwpoison_user_mappings", "me_pagecache_clean"),
}


def of(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the functions of the other parties to the races that changes of `paths` concern, sorted."""
    concerned = races.concerning(paths)
    return tuple(sorted({name for race, names in PARTNERS.items() if concerned.get(race) for name in names}))
