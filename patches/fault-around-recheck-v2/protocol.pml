/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fault-around against the removal of a page: a model for spin
 *
 * One small folio of the page cache; MAPPERS threads that fault around it, each in an address space of its
 * own with one page table, its lock (PTL) and one PTE; and threads that take the folio out of the page cache.
 * Each mapper faults and unmaps (munmap, exit) as often as it likes. Every access to shared memory that
 * matters is one step; atomic and d_step hold what is one atomic instruction in the kernel, or local.
 *
 *   spin -a -DORDER=V2 -DTRUNCATE protocol.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m1000000
 *
 * "errors: 0" means that all states were searched and none is bad. tests/unit/test_protocol_model.py runs all
 * cases.
 *
 * What is modelled: Linux 6.12.117
 *
 *   mapper	mm/filemap.c: next_uptodate_folio, filemap_map_pages, filemap_map_order0_folio;
 *		mm/memory.c: set_pte_range. For the first folio of a fault the reference is taken before
 *		the PTL, for the others under it: either. munmap is mm/memory.c: zap_pte_range; the reference
 *		goes after the PTL is dropped.
 *   TRUNCATE	(hole punch too) mm/truncate.c: truncate_inode_pages_range, truncate_cleanup_folio,
 *		truncate_inode_folio; mm/memory.c: unmap_mapping_folio, zap_pmd_range, which passes an absent
 *		page table without a lock, and zap_pte_range, which takes the PTL of a present one, always;
 *		mm/filemap.c: filemap_unaccount_folio, page_cache_delete
 *   INVALIDATE	(O_DIRECT writes) mm/truncate.c: invalidate_inode_pages2_range, which may keep the folio
 *   RECLAIM	mm/vmscan.c: shrink_folio_list, __remove_mapping. Freezes the reference count.
 *   MIGRATE	mm/migrate.c: migrate_folio_unmap, __migrate_folio, __folio_migrate_mapping. Freezes it too,
 *		and expects a reference for each mapping that it finds just before: include/linux/mm.h:
 *		folio_expected_ref_count.
 *   COLLAPSE	mm/khugepaged.c: collapse_file. Compares the reference count, which may rise afterwards.
 *   SWAPOUT	mm/vmscan.c: pageout, is_page_cache_freeable; mm/shmem.c: shmem_writepage
 *
 *   The last four use mm/rmap.c: try_to_unmap or try_to_migrate, which look at a PTE without the PTL first,
 *   and pass if there is none. One of the first two and one of the last four can run at the same time.
 *
 * -DORDER=
 *
 *   STOCK	The mapper locks the folio (trylock) from before its check of folio->mapping until it is mapped.
 *   PRIVATE	No lock: it is only tested, before the reference is taken (series fault-around-private).
 *   PROPOSED	No lock: raises the mapcount first, then checks again, and takes it back if the folio is on
 *		its way out (series fault-around-recheck).
 *   V2		No lock: the reference announces the mapper. It checks again under the PTL, and only then
 *		raises the mapcount, never to take it back (series fault-around-recheck-v2). In return TRUNCATE
 *		and INVALIDATE unmap a folio that is mapped or has a reference that they cannot account for,
 *		and MIGRATE, which expects one reference for each mapping that it finds, keeps a folio that has,
 *		unmapped, a reference it cannot account for: "locked and not mapped" no longer says that there
 *		will be no mapping. With -DMIGRATE_EXPECTS_NO_MAPPINGS it goes on and expects none: that would
 *		do as well.
 *
 * -DBROKEN=	one thing done wrong (with V2): see the list below. The model has to see each of them.
 * -DPRIVATE_DATA	The folio has private data (buffer heads) with a reference of its own.
 * -DMAPPERS=n	2 when not given
 *
 * Properties: each has assertions that carry its name. -DIGNORE_A1 turns that one off.
 *
 *   A1	A remover meets no mapcount past its unmapping: BUG_ON(folio_mapped) of
 *	invalidate_inode_pages2_range and of shmem_writepage, VM_BUG_ON_FOLIO(folio_mapped) of
 *	filemap_unaccount_folio.
 *   A2	No PTE is at the folio when the operation that removed it has returned, nor ever after: nobody reads
 *	stale data.
 *   A3	References and mapcount are never below 0. Nobody takes or drops a reference while they are frozen.
 *	The folio is freed once, with neither PTE nor mapcount. At the end the counts are what is there.
 *
 *   And, from spin, no deadlock.
 *
 * What is left out
 *
 *   Weak memory ordering. The model is sequentially consistent; a kernel has to make it so. V2 relies on a
 *   full barrier between folio_lock(), which is an acquire only, and the remover's reads of mapcount,
 *   references and page tables (smp_mb); on folio_try_get() being fully ordered when it succeeds, before the
 *   lock bit is read; on smp_mb after the PTL is taken, as the walk may pass an absent page table without a
 *   lock; and on the lock bit being read before folio->mapping and the slot (smp_rmb or an acquire: see
 *   CHECKS_LOCK_LAST). COLLAPSE has its full barrier between lock and count in folio_isolate_lru(), RECLAIM
 *   and MIGRATE in folio_ref_freeze(); SWAPOUT the one of folio_maybe_mapped().
 *
 *   Large folios, huge PMDs, swap and migration entries, hwpoison, more than one folio, the reuse of a freed
 *   page, GUP and LRU references (they only make a remover walk more often, or give up), interrupts, i_size
 *   and the uptodate flag; and the i_pages lock: all who change the slot hold the folio lock too.
 */

#define STOCK		1
#define PRIVATE		2
#define PROPOSED	3
#define V2		4

/* The remover asks for folio_mapped() only, as the stock kernel does. */
#define REMOVER_ASKS_MAPCOUNT		1
/* It accounts for one reference more than it knows of. */
#define REMOVER_EXPECTS_TOO_MANY	2
/* It compares with folio_expected_ref_count(), which counts one reference for each mapping. */
#define REMOVER_COUNTS_MAPCOUNT		3
/* It unmaps with try_to_unmap(), which takes no PTL where it sees no PTE. */
#define REMOVER_PEEKS			4
/* It reads the counts before it has the folio lock. */
#define REMOVER_ASKS_BEFORE_LOCK	5
/* The mapper checks again before it takes the PTL, for the first folio of a fault. */
#define CHECKS_BEFORE_PTL		6
/* It checks again before it takes the reference. */
#define CHECKS_BEFORE_REFERENCE		7
/* It does not check again that the folio is not locked. */
#define CHECKS_NO_LOCK			8
/* It checks again for the lock only, not that the folio is still where it was. */
#define CHECKS_ONLY_LOCK		9
/* It checks again for the lock, but after folio->mapping and the slot. */
#define CHECKS_LOCK_LAST		10
/* Migration as it is in 6.12: expects folio_expected_ref_count(), which counts one reference for each mapping. */
#define MIGRATE_COUNTS_MAPCOUNT		11
/* The same, but asks once more for the mapcount when the references are frozen. */
#define MIGRATE_ASKS_WHEN_FROZEN	12
/* Swap-out by i915's __shmem_writeback() as it is in 6.12: asks for the mapcount only. */
#define SWAPOUT_ASKS_MAPCOUNT		13
/* The remover takes each PTL, but ends when the mapcount is 0: try_to_unmap() with TTU_SYNC. Takes two mappers. */
#define REMOVER_STOPS_EARLY		14

/* A name that is not known is 0 to the preprocessor. */
#if !defined(ORDER) || ORDER == 0
#error "say which: -DORDER=STOCK, PRIVATE, PROPOSED or V2"
#endif
#if defined(BROKEN) && BROKEN == 0
#error "no such -DBROKEN="
#endif
#ifndef BROKEN
#define BROKEN 0
#endif
#ifndef MAPPERS
#define MAPPERS 2
#endif

/* References: of the page cache, of private data, and of the one who counts. */
#define ACCOUNTED (1 + private + 1)

/* The names are what a failed assertion shows. Nobody writes to these. */
#ifdef IGNORE_A1
bool A1_off = true;
#else
bool A1_off = false;
#endif
bool A2_off = false;
bool A3_off = false;

/* The folio */
#ifdef PRIVATE_DATA
short refs = 2;
bool private = true;		/* changes under the folio lock only */
#else
short refs = 1;
bool private = false;
#endif
short mapcount = 0;
bool locked = false;
bool in_slot = true;		/* the slot of the page cache holds it */
bool has_mapping = true;	/* folio->mapping is that of the file */

/* The address spaces */
bool table[MAPPERS];		/* there is a page table */
bool ptl[MAPPERS];
bool pte[MAPPERS];		/* present, at the folio */

/* Not in the kernel: what the properties talk about. */
byte ptes = 0;			/* how many of pte[] */
bool freed = false;
bool frozen = false;
bool removed = false;		/* the operation that removed the folio has returned */

inline lock_ptl(space)
{
	atomic { !ptl[space] -> ptl[space] = true }
}

inline unlock_ptl(space)
{
	ptl[space] = false
}

inline lock_folio()
{
	atomic { !locked -> locked = true }
}

inline unlock_folio()
{
	d_step {
		assert(A3_off || locked);
		locked = false
	}
}

/* folio_try_get() */
inline try_get(got)
{
	d_step {
		got = refs > 0;
		if
		:: got -> refs++
		:: else
		fi
	}
}

/* folio_ref_inc(), by one who has a reference */
inline get()
{
	d_step {
		assert(A3_off || (refs > 0 && !frozen));
		refs++
	}
}

/* folio_put_refs() */
inline put(n)
{
	d_step {
		assert(A3_off || (refs >= n && !frozen));
		refs = refs - n;
		if
		:: refs == 0 ->
			assert(A3_off || (!freed && ptes == 0 && mapcount == 0));
			freed = true
		:: else
		fi
	}
}

/* folio_ref_freeze() */
inline freeze(done, n)
{
	d_step {
		done = refs == n;
		if
		:: done -> refs = 0; frozen = true
		:: else
		fi
	}
}

/* folio_ref_unfreeze() */
inline unfreeze(n)
{
	d_step {
		assert(A3_off || refs == 0);
		refs = n;
		frozen = false
	}
}

inline set_pte(space)
{
	d_step {
		assert(A2_off || !removed);
		pte[space] = true;
		ptes++
	}
}

inline clear_pte(space)
{
	d_step {
		pte[space] = false;
		ptes--
	}
}

inline drop_mapcount()
{
	d_step {
		assert(A3_off || mapcount > 0);
		mapcount--
	}
}

/* Neither locked nor gone: false if the folio is on its way out. */
inline check_again(ok)
{
	ok = true;
#if BROKEN == CHECKS_LOCK_LAST
	ok = ok && has_mapping;
	ok = ok && in_slot;
#endif
#if BROKEN != CHECKS_NO_LOCK
	ok = ok && !locked;
#endif
#if BROKEN != CHECKS_ONLY_LOCK && BROKEN != CHECKS_LOCK_LAST
	ok = ok && has_mapping;
	ok = ok && in_slot;
#endif
}

/* zap_pte_range, tlb_finish_mmu */
inline zap(space, zapped)
{
	lock_ptl(space);
	if
	:: pte[space] ->
		clear_pte(space);
		drop_mapcount();
		zapped = true
	:: else ->
		zapped = false
	fi;
	unlock_ptl(space);
	if
	:: zapped -> put(1)
	:: else
	fi
}

/* filemap_map_pages, for this folio */
inline fault()
{
	if
	:: has_ptl = false
	:: table[me] = true;
		lock_ptl(me);
		has_ptl = true		/* taken for a folio before this one */
	fi;

	/* next_uptodate_folio */
	if
	:: in_slot
	:: else -> goto out
	fi;
	if
	:: !locked
	:: else -> goto out
	fi;
#if BROKEN == CHECKS_BEFORE_REFERENCE
	check_again(ok);
	if
	:: ok
	:: else -> goto out
	fi;
#endif
	try_get(ok);
	if
	:: ok
	:: else -> goto out
	fi;
	if
	:: in_slot
	:: else -> goto drop
	fi;
#if ORDER == STOCK
	d_step {
		ok = !locked;
		locked = true
	};
	if
	:: ok
	:: else -> goto drop
	fi;
#endif
	if
	:: has_mapping
	:: else -> goto done
	fi;

#if BROKEN == CHECKS_BEFORE_PTL
	check_again(ok);
#endif
	if
	:: has_ptl
	:: else ->
		table[me] = true;	/* filemap_map_pmd, pmd_install */
		lock_ptl(me);
		has_ptl = true
	fi;
	if
	:: !pte[me]
	:: else -> goto done
	fi;

#if ORDER == PROPOSED
	mapcount++;
	check_again(ok);
	if
	:: ok
	:: else ->
		drop_mapcount();
		goto done
	fi;
	set_pte(me);
#else
#if ORDER == V2
#if BROKEN != CHECKS_BEFORE_REFERENCE && BROKEN != CHECKS_BEFORE_PTL
	check_again(ok);
#endif
	if
	:: ok
	:: else -> goto done
	fi;
#endif
	/* set_pte_range */
	mapcount++;
	set_pte(me);
#endif
	get();
done:
#if ORDER == STOCK
	unlock_folio();
#endif
drop:
	put(1);
out:
	if
	:: has_ptl -> unlock_ptl(me)
	:: else
	fi
}

proctype mapper(byte me)
{
	bool has_ptl, ok;

	do
	:: fault()
	:: pte[me] -> zap(me, ok)
	:: break
	od
}

/* unmap_mapping_folio */
inline unmap_mapping_folio()
{
	space = 0;
	do
	:: space < MAPPERS ->
		if
		:: table[space] -> zap(space, ok)
		:: else		/* pmd_none() */
		fi;
		space++
	:: else -> break
	od
}

/* try_to_unmap, try_to_migrate: rmap_walk_file with folio_not_mapped() to end it early */
inline try_to_unmap()
{
	space = 0;
	do
	:: space < MAPPERS ->
		if
#if BROKEN == REMOVER_STOPS_EARLY
		:: true ->
#else
		:: pte[space] ->
#endif
			lock_ptl(space);
			if
			:: pte[space] ->
				clear_pte(space);
				drop_mapcount();
				put(1)
			:: else
			fi;
			unlock_ptl(space)
#if BROKEN != REMOVER_STOPS_EARLY
		:: else		/* map_pte() looks without the lock */
#endif
		fi;
		if
		:: mapcount == 0 -> break
		:: else -> space++
		fi
	:: else -> break
	od
}

/* Must the folio be unmapped? */
inline ask()
{
	mapped = mapcount > 0;
#if ORDER == V2 && BROKEN != REMOVER_ASKS_MAPCOUNT
	if
	:: mapped
	:: else ->
#if BROKEN == REMOVER_COUNTS_MAPCOUNT
		expected = ACCOUNTED + mapcount;
		mapped = refs > expected
#elif BROKEN == REMOVER_EXPECTS_TOO_MANY
		mapped = refs > ACCOUNTED + 1
#else
		mapped = refs > ACCOUNTED
#endif
	fi
#endif
}

/* find_get_entry, or the reference of who isolated the folio from the LRU */
inline find_get()
{
	ok = in_slot;
	if
	:: ok -> try_get(ok)
	:: else
	fi;
	if
	:: ok && !in_slot -> put(1); ok = false
	:: else
	fi
}

/* To find a folio locked and pass it by is the same as not to try. */
inline lock_if_there()
{
	if
	:: ok ->
		lock_folio();
		if
		:: has_mapping
		:: else -> unlock_folio(); put(1); ok = false
		fi
	:: else
	fi
}

/* folio_invalidate, filemap_release_folio */
inline release_private()
{
#ifdef PRIVATE_DATA
	if
	:: private -> d_step { refs--; private = false }
	:: else
	fi
#else
	skip
#endif
}

inline assert_not_mapped()
{
	assert(A1_off || mapcount == 0)
}

/* page_cache_delete; what replaces the folio in the slot is another one, a shadow or nothing */
inline delete()
{
	in_slot = false;
	has_mapping = false
}

/* The operation is over. */
inline return_removed()
{
	d_step {
		assert(A2_off || ptes == 0);
		removed = true
	}
}

inline return_kept()
{
	unlock_folio();
	put(1)
}

#if defined(TRUNCATE) || defined(INVALIDATE)
proctype truncate_or_invalidate()
{
	bool ok, mapped;
	byte space;
	short expected;

again:
	find_get();
#if BROKEN == REMOVER_ASKS_BEFORE_LOCK
	ask();
#endif
	lock_if_there();
	if
	:: ok
	:: else -> goto out
	fi;

#if BROKEN != REMOVER_ASKS_BEFORE_LOCK
	ask();
#endif
	if
	:: mapped ->
#if BROKEN == REMOVER_PEEKS || BROKEN == REMOVER_STOPS_EARLY
		try_to_unmap()
#else
		unmap_mapping_folio()
#endif
	:: else
	fi;
#ifdef INVALIDATE
	assert_not_mapped();
	if
	:: true
	:: return_kept(); goto again	/* folio_launder() or filemap_release_folio() says no */
	fi;
#endif
	release_private();
	assert_not_mapped();	/* filemap_unaccount_folio */
	delete();
	put(1);
	unlock_folio();
	put(1);
	return_removed();
out:
	skip
}
#endif

#if defined(RECLAIM) || defined(MIGRATE) || defined(COLLAPSE) || defined(SWAPOUT)
proctype reclaim_migrate_collapse_or_swap_out()
{
	bool ok;
	byte space;
	short expected;

again:
	find_get();
	lock_if_there();
	if
	:: ok
	:: else -> goto out
	fi;

#if defined(COLLAPSE)
	release_private();
	get();			/* one from the isolation, one of its own */
	if
	:: mapcount > 0 -> try_to_unmap()
	:: else
	fi;
	if
	:: refs == ACCOUNTED + 1
	:: else -> put(1); return_kept(); goto again
	fi;
	if
	:: true
	:: put(1); return_kept(); goto again	/* rollback */
	fi;
	delete();
	unlock_folio();
	put(3);
#else
	if
	:: mapcount > 0 ->
#if !(defined(SWAPOUT) && BROKEN == SWAPOUT_ASKS_MAPCOUNT)
		try_to_unmap()
#endif
	:: else
	fi;
	if
	:: mapcount == 0
	:: else -> return_kept(); goto again
	fi;
#if defined(SWAPOUT)
#if BROKEN != SWAPOUT_ASKS_MAPCOUNT
	if
	:: refs == ACCOUNTED
	:: else -> return_kept(); goto again
	fi;
#endif
	get();			/* add_to_swap_cache */
	delete();
	put(1);
	assert_not_mapped();
	put(1);			/* written, and gone from the swap cache */
	unlock_folio();
	put(1);
#else
#if defined(RECLAIM)
	release_private();
	expected = ACCOUNTED;
#elif ORDER == V2 && BROKEN != MIGRATE_COUNTS_MAPCOUNT && BROKEN != MIGRATE_ASKS_WHEN_FROZEN
#ifdef MIGRATE_EXPECTS_NO_MAPPINGS
	expected = ACCOUNTED;
#else
	if
	:: refs <= ACCOUNTED
	:: else -> return_kept(); goto again
	fi;
	expected = ACCOUNTED + mapcount;
#endif
#else
	expected = ACCOUNTED + mapcount;	/* folio_expected_ref_count */
#endif
	freeze(ok, expected);
	if
	:: ok
	:: else -> return_kept(); goto again
	fi;
#if defined(RECLAIM)
	assert_not_mapped();	/* filemap_unaccount_folio */
	delete();
	unlock_folio();
	d_step {
		assert(A3_off || (!freed && ptes == 0 && mapcount == 0));
		freed = true;
		frozen = false
	};
#else
#if BROKEN == MIGRATE_ASKS_WHEN_FROZEN
	if
	:: mapcount == 0
	:: else -> unfreeze(expected); return_kept(); goto again
	fi;
#endif
	in_slot = false;
	unfreeze(expected - 1);
	has_mapping = false;	/* move_to_new_folio */
	release_private();	/* goes to the new folio */
	unlock_folio();
	put(1);
#endif
#endif
#endif
	return_removed();
out:
	skip
}
#endif

init {
	byte n;

	atomic {
		n = 0;
		do
		:: n < MAPPERS -> run mapper(n); n++
		:: else -> break
		od;
#if defined(TRUNCATE) || defined(INVALIDATE)
		run truncate_or_invalidate();
#endif
#if defined(RECLAIM) || defined(MIGRATE) || defined(COLLAPSE) || defined(SWAPOUT)
		run reclaim_migrate_collapse_or_swap_out();
#endif
	};
	_nr_pr == 1;
	assert(A3_off || (mapcount == ptes && refs == ptes + in_slot + private && freed == (refs == 0) && !locked))
}
