// SPDX-License-Identifier: GPL-2.0-only
/*
 * migrate-race: migration of pages against faults, COW, fork and unmapping.
 *
 * Movers migrate the pages of a file and of the processes that map it, by
 * move_pages(), mbind() and migrate_pages() where there are several NUMA nodes,
 * by compaction and (for a bounded number of pages) MADV_SOFT_OFFLINE on any
 * machine. Mappers fault the same pages in, with fault-around, drop them, store
 * through shared mappings, make private copies and fork.
 *
 *   read-private                a file that never changes, read by all
 *   coherent-private, -shared   the same, and each thread stores into words of
 *                               its own through a second mapping, which must
 *                               show in the first one
 *   write-shared                each page has an owner that stores into it
 *   cow-fork                    private copies, and children that inherit them
 *   dirty-zap                   pages which only the page table calls dirty are
 *                               unmapped while migration entries stand for
 *                               them, then reclaimed and read again
 *
 * Legal outcomes of one look at a page:
 *   - read-private: the stamp that the file was made with;
 *   - coherent-*: that stamp, and in each word what its thread has just stored
 *     (otherwise one mapping stayed behind at a page that was migrated away);
 *   - write-shared: the owner sees the stamp that it stored last, others a
 *     stamp of the right page, whole or torn; after the case the file has what
 *     the owners stored last, through a page cache that was dropped (ext4, xfs)
 *     or reclaimed (tmpfs);
 *   - cow-fork: what the thread stored last into its private copy, else the
 *     file's stamp; a child sees what its parent had when it forked;
 *   - dirty-zap: what was stored before the unmapping, after reclaim.
 * Whether a page was migrated or not is never judged. After the case every page
 * of a clean file leaves the page cache when that is asked for (ext4, xfs): one
 * that stays has a reference too many.
 *
 * PASS means: pages were migrated, readers met it, and every look was legal.
 * What it cannot see: damage that was unmapped before anyone looked, a
 * reference too few that nobody frees (see the console), failed migrations.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <pthread.h>

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

#define MAX_PAGES	256	/* less than a huge page, so that tmpfs has none */
#define MAX_PROCESSES	32
#define MAX_THREADS	4
#define MAX_REQUEST	2048	/* pages in one move_pages() */
#define WORDS		1024			/* offset of the threads' own words in a page */
#define FIRST		1	/* generation of the stamps that a file is made with */

/* Soft-offlined pages are gone for good: a case takes at most one in so many of the machine's. */
#define OFFLINE_SHARE	1024

enum look { LOOK_READ, LOOK_COHERENT, LOOK_WRITE, LOOK_COW, LOOK_ZAP };

struct race {
	struct rig_case common;
	enum look look;
	bool shared;
};

static const struct race races[] = {
	{ { "read-private", 1 }, LOOK_READ, false },
	{ { "coherent-private", 3 }, LOOK_COHERENT, false },
	{ { "coherent-shared", 2 }, LOOK_COHERENT, true },
	{ { "write-shared", 2 }, LOOK_WRITE, true },
	{ { "cow-fork", 2 }, LOOK_COW, false },
	{ { "dirty-zap", 3 }, LOOK_ZAP, true },
};

enum how { BY_MOVE_PAGES, BY_MBIND, BY_MIGRATE_PAGES, BY_COMPACTION, BY_OFFLINE, NR_HOW };

enum counter {
	C_MOVES, C_MIGRATED, C_FAILED, C_OFFLINED, C_COLLISIONS, C_READS, C_WRITES, C_DROPS,
	C_FORKS, C_ZAPS, C_ZAPS_CAUGHT, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"moves", "pages_migrated", "pages_failed", "pages_offlined", "collisions", "reads",
	"writes", "drops", "forks", "zaps", "zaps_caught",
};

struct plan {
	long processes;
	long threads;
	long movers;
	long pages;
	long align;		/* first page of the file that is mapped */
	long stride;
	long batch;		/* pages that are migrated together */
	long times;		/* to and fro in one request */
	long how;
	long fault_around;
};

static long plan_ms = 1000;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "processes", "that map the file", &given.processes, 1, MAX_PROCESSES },
	{ "threads", "in each of them", &given.threads, 1, MAX_THREADS },
	{ "movers", "processes that migrate", &given.movers, 1, 8 },
	{ "pages", "length of the file", &given.pages, 20, MAX_PAGES },
	{ "align", "first page that is mapped", &given.align, 0, 16 },
	{ "stride", "touch one page in so many", &given.stride, 1, 512 },
	{ "batch", "pages that are migrated together", &given.batch, 1, MAX_PAGES },
	{ "times", "to and fro in one request", &given.times, 1, MAX_REQUEST },
	{ "how", "0 move_pages 1 mbind 2 migrate_pages 3 compaction 4 soft offline",
	  &given.how, 0, NR_HOW - 1 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "migrate-race",
	.about = "migrate-race: migration between nodes, compaction and soft offline against faults.\n"
		 "All data is verified.",
	.cases = "read-private coherent-private coherent-shared write-shared cow-fork dirty-zap",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* Lives in shared memory: what movers must know about mappers, and owners leave behind. */
struct shared {
	uint64_t addr[MAX_PROCESSES][MAX_THREADS];
	int pid[MAX_PROCESSES];
	uint64_t stored[MAX_PAGES];	/* youngest generation that an owner stored */
	uint64_t offlined;
	uint32_t moving;		/* requests under way */
};

struct mapper {
	unsigned int process;
	unsigned int thread;
	char *base;		/* where page `align` of the file is mapped */
	struct rig_rng rng;
	char *other;		/* of the same pages, shared and writable; coherent-* only */
	uint64_t generation;
	uint64_t expected[MAX_PAGES];	/* in private copies, 0 = the file */
	uint64_t counts[NR_COUNTERS];
};

static const struct race *race;
static struct plan plan;
static struct shared *shared;
static int file_fd = -1;
static bool on_tmpfs, in_guest;
static uint64_t nodes;

static char title_lost[96], title_zero[96], title_wrong[96], title_corrupt[96], title_future[96];
static char title_bus[96], title_stale[96];

static void make_titles(void)
{
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " after migration in %s", race->common.name)
	TITLE(title_lost, "written data lost");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_wrong, "data of another page");
	TITLE(title_corrupt, "corrupt data");
	TITLE(title_future, "data that was never written");
	TITLE(title_stale, "stale data");
	TITLE(title_bus, "unexpected SIGBUS");
#undef TITLE
}

static size_t map_len(void)
{
	return (plan.pages - plan.align) * RIG_PAGE;
}

/* ---- looking ---- */

/*
 * Says what is wrong with a page, or NULL. want: the generation that must be in
 * it, 0 when any of this page will do, whole or half written.
 */
static const char *judge(const struct rig_stamp *s, uint64_t index, enum rig_end end,
			 uint64_t want)
{
	switch (rig_judge(s, index, end, 0, want ? want : UINT64_MAX)) {
	case RIG_LIVE:
		return want && s->generation != want ? title_lost : NULL;
	case RIG_ZERO:
		return title_zero;
	case RIG_TORN:
		return want ? title_corrupt : NULL;
	case RIG_WRONG_PAGE:
		return title_wrong;
	default:
		return title_future;
	}
}

static void check_stamps(const char *who, const struct rig_stamp *seen, uint64_t index,
			 uint64_t want)
{
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = judge(&seen[end], index, end, want);
		if (title)
			rig_found(title, "%s: page %" PRIu64 " %s has generation %" PRIu64
				  " where %#" PRIx64 ", wanted %" PRIu64, who, index,
				  end == RIG_HEAD ? "head" : "tail", seen[end].generation,
				  seen[end].where, want);
	}
}

/*
 * What is stored through one mapping shows in the other. Words of one thread,
 * so that nobody else has to be waited for.
 */
static void check_coherence(struct mapper *m, uint64_t index)
{
	size_t offset = (index - plan.align) * RIG_PAGE + WORDS +
			8 * (m->process * MAX_THREADS + m->thread);
	uint64_t *there = (uint64_t *)(m->other + offset);
	uint64_t *here = (uint64_t *)(m->base + offset), got;

	__atomic_store_n(there, ++m->generation, __ATOMIC_SEQ_CST);
	got = __atomic_load_n(here, __ATOMIC_SEQ_CST);
	m->counts[C_WRITES]++;
	if (got == m->generation && !rig_lies("stale"))
		return;
	rig_found(title_stale, "page %" PRIu64 ": stored %" PRIu64 ", read %" PRIu64
		  ", pagemap %#" PRIx64 " and %#" PRIx64, index, m->generation, got,
		  rig_pagemap(there), rig_pagemap(here));
}

static bool owns(const struct mapper *m, uint64_t index)
{
	uint64_t owners = plan.processes * plan.threads;

	return index % owners == (uint64_t)m->process * plan.threads + m->thread;
}

static uint64_t wanted(const struct mapper *m, uint64_t index)
{
	switch (race->look) {
	case LOOK_WRITE:
		return owns(m, index) ? rig_load(&shared->stored[index]) : 0;
	case LOOK_COW:
		return m->expected[index] ? m->expected[index] : FIRST;
	default:
		return rig_lies("corrupt") ? FIRST + 1 : FIRST;
	}
}

static void check_page(struct mapper *m, const char *who, uint64_t index)
{
	struct rig_stamp seen[RIG_ENDS];

	m->counts[C_READS]++;
	if (!rig_look(m->base + (index - plan.align) * RIG_PAGE, seen))
		rig_found(title_bus, "%s: page %" PRIu64, who, index);
	else
		check_stamps(who, seen, index, wanted(m, index));
}

static void store_page(struct mapper *m, uint64_t index)
{
	char *page = m->base + (index - plan.align) * RIG_PAGE;

	m->generation++;
	if (!rig_lies("lost"))
		rig_stamp_page(page, m->generation, index);
	if (race->look == LOOK_WRITE)
		rig_store(&shared->stored[index], m->generation);
	else
		m->expected[index] = m->generation;
	m->counts[C_WRITES]++;
}

/* ---- mappers ---- */

static void drop(struct mapper *m)
{
	if (madvise(m->base, map_len(), MADV_DONTNEED))
		rig_broken("madvise: %s", strerror(errno));
	memset(m->expected, 0, sizeof(m->expected));
	m->counts[C_DROPS]++;
}

static void fork_and_look(struct mapper *m)
{
	pid_t pid = fork();
	long i;

	if (pid < 0) {
		rig_broken("fork: %s", strerror(errno));
		return;
	}
	if (!pid) {
		for (i = plan.align; i < plan.pages; i++)
			check_page(m, "child", i);
		_exit(0);
	}
	/* break the sharing from this side too */
	for (i = plan.align; i < plan.pages; i += 1 + rig_below(&m->rng, 4))
		store_page(m, i);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	m->counts[C_FORKS]++;
}

static void sweep(struct mapper *m)
{
	uint32_t seq = rig_load(&shared->moving);
	long i;

	if (race->look == LOOK_READ || race->look == LOOK_COHERENT || !rig_below(&m->rng, 3))
		drop(m);
	for (i = plan.align + rig_below(&m->rng, plan.stride); i < plan.pages; i += plan.stride)
		check_page(m, "reader", i);
	if (race->look == LOOK_WRITE || race->look == LOOK_COW) {
		for (i = plan.align; i < plan.pages; i++) {
			if (race->look == LOOK_WRITE && !owns(m, i))
				continue;
			if (rig_below(&m->rng, 2))
				store_page(m, i);
		}
	}
	/* what was faulted in is looked at as soon as possible, and the faults are what matters */
	for (i = plan.align; i < plan.pages && race->look == LOOK_COHERENT; i++)
		check_coherence(m, i);
	for (i = plan.align; i < plan.pages && (race->look != LOOK_COHERENT ||
						!rig_below(&m->rng, 64)); i++)
		check_page(m, "reader", i);
	if (race->look == LOOK_COW && !rig_below(&m->rng, 4))
		fork_and_look(m);
	if (seq || rig_load(&shared->moving))
		m->counts[C_COLLISIONS]++;
}

static void *thread_main(void *arg)
{
	struct mapper *m = arg;
	bool stores = race->look == LOOK_WRITE || race->look == LOOK_COW;
	int prot = PROT_READ | (stores ? PROT_WRITE : 0);

	if (mmap(m->base, map_len(), prot, MAP_FIXED | (race->shared ? MAP_SHARED : MAP_PRIVATE),
		 file_fd, plan.align * RIG_PAGE) == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return NULL;
	}
	if (race->look == LOOK_COHERENT) {
		m->other = mmap(NULL, map_len(), PROT_READ | PROT_WRITE, MAP_SHARED, file_fd,
				plan.align * RIG_PAGE);
		if (m->other == MAP_FAILED) {
			rig_broken("mmap: %s", strerror(errno));
			return NULL;
		}
	}
	rig_store(&shared->addr[m->process][m->thread], (uint64_t)m->base);
	while (!rig_stopped()) {
		sweep(m);
		rig_flush_counts(m->counts, NR_COUNTERS);
	}
	rig_store(&shared->addr[m->process][m->thread], 0);
	return NULL;
}

static void process_main(void *arg)
{
	static struct mapper mappers[MAX_THREADS];
	long nr = (long)arg, i;
	char *slots;

	rig_catch_bus();
	/* neighbours from the start of a page table, so that the threads share it */
	slots = rig_room(plan.threads * map_len());
	if (!slots)
		return;
	shared->pid[nr] = getpid();
	for (i = 0; i < plan.threads; i++) {
		mappers[i].process = nr;
		mappers[i].thread = i;
		mappers[i].base = slots + i * map_len();
		mappers[i].generation = FIRST;
		mappers[i].rng = rig_rng_for(race->common.name, 10 * nr + i);
	}
	rig_run_threads(thread_main, mappers, sizeof(mappers[0]), plan.threads);
}

/* ---- movers ---- */

struct mover {
	struct rig_rng rng;
	char *base;		/* the whole file, shared and read-only */
	long node;
	uint64_t counts[NR_COUNTERS];
};

static long next_node(long node)
{
	do
		node = (node + 1) % 64;
	while (!(nodes >> node & 1));
	return node;
}

/*
 * Asks for the pages of a process to be on this node, then on the next, to and
 * fro: a request has to empty the lists of all CPUs first, which takes longer
 * than to migrate.
 */
static void move_range(struct mover *m, int pid, char *base, long nr, long times)
{
	static int to[MAX_REQUEST], status[MAX_REQUEST];
	static void *addrs[MAX_REQUEST];
	long i, n = 0;

	for (; times && n + nr <= MAX_REQUEST; times--) {
		m->node = next_node(m->node);
		for (i = 0; i < nr; i++, n++) {
			addrs[n] = base + i * RIG_PAGE;
			to[n] = m->node;
			status[n] = -1;
		}
	}
	syscall(SYS_move_pages, pid, n, addrs, to, status, MPOL_MF_MOVE_ALL);
}

static void offline(struct mover *m, char *page)
{
	uint64_t most = sysconf(_SC_PHYS_PAGES) / OFFLINE_SHARE;

	if (!in_guest || rig_load(&shared->offlined) >= most) {
		rig_sleep_ns(10000000);
		return;
	}
	if (!madvise(page, RIG_PAGE, MADV_SOFT_OFFLINE)) {
		rig_add(&shared->offlined, 1);
		m->counts[C_OFFLINED]++;
	} else {
		rig_sleep_ns(1000000);	/* each failure is a line of the console */
	}
}

/* A range of a mapper half of the time (its private copies move too), else of this process. */
static void move_once(struct mover *m)
{
	long process = rig_below(&m->rng, plan.processes), n;
	uint64_t theirs = rig_load(&shared->addr[process][rig_below(&m->rng, plan.threads)]);
	long nr = rig_min(plan.batch, plan.pages - plan.align), first;
	unsigned long mask;
	char *page;

	first = rig_below(&m->rng, plan.pages - plan.align - nr + 1);
	page = m->base + (plan.align + first) * RIG_PAGE;
	/* what is not mapped here cannot be moved through this mapping */
	if (plan.how != BY_COMPACTION)
		madvise(page, nr * RIG_PAGE, MADV_POPULATE_READ);
	m->node = next_node(m->node);
	mask = 1ul << m->node;
	rig_add(&shared->moving, 1);
	switch (plan.how) {
	case BY_MOVE_PAGES:
		if (theirs && (race->look == LOOK_COW || rig_below(&m->rng, 2)))
			move_range(m, shared->pid[process], (char *)theirs + first * RIG_PAGE, nr,
				   plan.times);
		else
			move_range(m, 0, page, nr, plan.times);
		break;
	case BY_MBIND:
		syscall(SYS_mbind, page, nr * RIG_PAGE, MPOL_BIND, &mask, 64ul, MPOL_MF_MOVE_ALL);
		break;
	case BY_MIGRATE_PAGES:
		n = nodes & ~mask;
		syscall(SYS_migrate_pages, theirs ? shared->pid[process] : 0, 64ul, &n, &mask);
		break;
	case BY_COMPACTION:
		if (in_guest)
			rig_write_text("/proc/sys/vm/compact_memory", "1");
		break;
	case BY_OFFLINE:
		offline(m, page);
		break;
	}
	rig_add(&shared->moving, -1);
	m->counts[C_MOVES]++;
}

static void mover_main(void *arg)
{
	static struct mover m;

	rig_catch_bus();
	m.rng = rig_rng_for(race->common.name, 1000 + (long)arg);
	m.node = rig_below(&m.rng, 64);
	m.base = mmap(NULL, plan.pages * RIG_PAGE, PROT_READ, MAP_SHARED, file_fd, 0);
	if (m.base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	while (!rig_stopped()) {
		if (rig_lies("idle")) {
			rig_sleep_ns(1000000);
			continue;
		}
		move_once(&m);
		rig_flush_counts(m.counts, NR_COUNTERS);
	}
}

/* ---- dirty-zap ---- */

/*
 * A mover that does nothing but push the pages of the zapper to and fro. It is
 * a process of its own, so that the unmapping waits for nothing.
 */
static void zap_mover_main(void *arg)
{
	static struct mover m;
	uint64_t theirs;

	(void)arg;
	m.rng = rig_rng_for(race->common.name, 2000);
	while (!rig_stopped()) {
		theirs = rig_load(&shared->addr[0][0]);
		if (!theirs) {
			sched_yield();
			continue;
		}
		move_range(&m, shared->pid[0], (char *)theirs, plan.pages, plan.times);
		m.counts[C_MOVES]++;
		rig_flush_counts(m.counts, NR_COUNTERS);
	}
}

/* Soft offline migrates the page of the caller: a thread of the zapper has to do it. */
static void *offline_main(void *arg)
{
	static struct mover m;
	char *base = arg;

	m.rng = rig_rng_for(race->common.name, 3000);
	while (!rig_stopped()) {
		if (!rig_load(&shared->addr[0][0])) {
			sched_yield();
			continue;
		}
		offline(&m, base + rig_below(&m.rng, plan.pages) * RIG_PAGE);
		m.counts[C_MOVES]++;
		rig_flush_counts(m.counts, NR_COUNTERS);
	}
	return NULL;
}

/* Waits until a migration entry stands for one of the pages; false when none came. */
static bool await_entry(const char *base, uint64_t *entries)
{
	static int fd = -1;
	int64_t end = rig_now() + 20000000;
	size_t len = plan.pages * 8;
	long i;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	do {
		if (pread(fd, entries, len, (uintptr_t)base / RIG_PAGE * 8) != (ssize_t)len)
			return false;
		for (i = 0; i < plan.pages; i++)
			if (entries[i] & RIG_PAGEMAP_SWAP)
				return true;
	} while (rig_now() < end && !rig_stopped());
	return false;
}

/* Takes the pages out of memory, if the kernel believes that it may. */
static void evict(char *view)
{
	int none;

	if (!on_tmpfs) {
		fsync(file_fd);
		posix_fadvise(file_fd, 0, 0, POSIX_FADV_DONTNEED);
		return;
	}
	/* an empty request empties the per-CPU lists, from which nothing is reclaimed */
	syscall(SYS_move_pages, 0, 0ul, NULL, &none, &none, 0);
	madvise(view, plan.pages * RIG_PAGE, MADV_POPULATE_READ);
	madvise(view, plan.pages * RIG_PAGE, MADV_PAGEOUT);
}

static void zap_once(struct mapper *m, char *view)
{
	static uint64_t entries[MAX_PAGES];
	size_t len = plan.pages * RIG_PAGE;
	struct rig_stamp seen[RIG_ENDS];
	static char page[RIG_PAGE];
	bool caught;
	long i;

	m->generation++;
	/* anew: pages that the kernel knows as clean, faulted in for reading, then stored into */
	if (fallocate(file_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, len) ||
	    mmap(m->base, len, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, file_fd, 0) ==
	    MAP_FAILED) {
		rig_broken("zap: %s", strerror(errno));
		return;
	}
	madvise(m->base, len, MADV_POPULATE_READ);
	for (i = 0; i < plan.pages && !rig_lies("lost"); i++)
		rig_stamp_page(m->base + i * RIG_PAGE, m->generation, i);
	rig_store(&shared->addr[0][0], (uint64_t)m->base);
	caught = await_entry(m->base, entries);
	rig_store(&shared->addr[0][0], 0);
	if (rig_below(&m->rng, 2))
		madvise(m->base, len, MADV_DONTNEED);
	else
		munmap(m->base, len);
	m->counts[C_ZAPS]++;
	m->counts[C_ZAPS_CAUGHT] += caught;
	m->counts[C_WRITES] += plan.pages;
	evict(view);
	for (i = 0; i < plan.pages; i++) {
		if (!rig_pread_all(file_fd, page, RIG_PAGE, i * RIG_PAGE)) {
			rig_broken("read: %s", strerror(errno));
			return;
		}
		seen[RIG_HEAD] = *rig_stamp_at(page, RIG_HEAD);
		seen[RIG_TAIL] = *rig_stamp_at(page, RIG_TAIL);
		if (judge(&seen[RIG_HEAD], i, RIG_HEAD, m->generation) == title_zero)
			rig_found(title_lost, "page %ld of %ld is zero, stored %" PRIu64
				  ", unmapped when pagemap had %#" PRIx64, i, plan.pages,
				  m->generation, entries[i]);
		else
			check_stamps("after reclaim", seen, i, m->generation);
		m->counts[C_READS]++;
	}
}

static void zapper_main(void *arg)
{
	size_t len = plan.pages * RIG_PAGE;
	static struct mapper m;
	pthread_t thread;
	char *view;

	(void)arg;
	rig_catch_bus();
	m.rng = rig_rng_for(race->common.name, 0);
	m.base = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	view = mmap(NULL, len, PROT_READ, MAP_SHARED, file_fd, 0);
	if (m.base == MAP_FAILED || view == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	shared->pid[0] = getpid();
	if (plan.how == BY_OFFLINE && pthread_create(&thread, NULL, offline_main, m.base))
		rig_broken("pthread_create failed");
	while (!rig_stopped()) {
		zap_once(&m, view);
		rig_flush_counts(m.counts, NR_COUNTERS);
	}
	if (plan.how == BY_OFFLINE)
		pthread_join(thread, NULL);
}

/* ---- cases ---- */

/* Returns why this machine or file system cannot do it, or NULL. */
static const char *unsupported(const void *c)
{
	const struct race *r = c;

	if (!*rig_inject && !in_guest && !(nodes & (nodes - 1)))
		return "one NUMA node, and compaction only in a guest of the rig";
	return r->look == LOOK_ZAP ? rig_no_punch() : NULL;
}

/*
 * The sharpest plan known: few pages, of which many threads fault in the same
 * ones, migrated together and all the time.
 */
static void sharpen(struct plan *p)
{
	p->pages = rig_min(p->pages, 64);
	p->threads = rig_max(1, rig_min(3, (long)rig_cpus() / p->processes));
	p->movers = 1;
	p->stride = 16;
	p->batch = MAX_PAGES;
	p->times = 32;
	p->fault_around = 65536;
}

/*
 * Every other episode is sharp. Always draws everything in the same order: what
 * is given on the command line shifts nothing else.
 */
static void draw_plan(unsigned int episode)
{
	static const long processes[] = { 1, 1, 2, 2, 3 };
	static const long threads[] = { 1, 1, 1, 2, 3 };
	static const long movers[] = { 1, 1, 1, 2 };
	static const long pages[] = { 32, 64, 64, 128, 256 };
	static const long strides[] = { 1, 4, 16, 16, 16 };
	static const long batches[] = { 1, 16, 64, 256, 256 };
	static const long timess[] = { 1, 8, 32 };
	static const long far[] = { BY_MOVE_PAGES, BY_MOVE_PAGES, BY_MOVE_PAGES, BY_MBIND,
				    BY_MIGRATE_PAGES, BY_COMPACTION, BY_OFFLINE };
	static const long near[] = { BY_COMPACTION, BY_OFFLINE };
	static const long arounds[] = { 16384, 65536, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.processes = rig_min(rig_pick(&rng, processes) * rig_max(1, cpus / 6), MAX_PROCESSES);
	p.threads = rig_min(rig_pick(&rng, threads), rig_max(1, cpus / p.processes));
	p.movers = rig_min(rig_pick(&rng, movers), rig_max(1, cpus / 4));
	p.pages = rig_pick(&rng, pages);
	p.align = rig_below(&rng, 17);
	p.stride = rig_pick(&rng, strides);
	p.batch = rig_pick(&rng, batches);
	p.times = rig_pick(&rng, timess);
	p.how = rig_pick(&rng, far);
	if (!(nodes & (nodes - 1)))
		p.how = rig_pick(&rng, near);
	p.fault_around = rig_pick(&rng, arounds);

	/* a single page that so many wait for would never be migrated */
	if (episode % 2 && nodes & (nodes - 1))
		sharpen(&p);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	/* only a request that names pages can be aimed at those of the zapper */
	if (race->look == LOOK_ZAP && plan.how != BY_OFFLINE)
		plan.how = nodes & (nodes - 1) ? BY_MOVE_PAGES : BY_OFFLINE;
}

static void make_file(unsigned int episode)
{
	long i;

	rig_need_space(2 * MAX_PAGES * RIG_PAGE);
	on_tmpfs = rig_statfs().f_type == TMPFS_MAGIC;
	memset(shared->addr, 0, sizeof(shared->addr));
	shared->moving = 0;
	file_fd = rig_open_file("migrate", episode, NULL);
	for (i = 0; i < plan.pages; i++)
		shared->stored[i] = FIRST;
	rig_stamp_file(file_fd, FIRST, plan.pages);
	if (rig_below(&(struct rig_rng){ rig_seed + episode }, 2))
		fsync(file_fd);
}

/* What the owners stored must be in the file, once its pages have been written and read anew. */
static void check_file(void)
{
	struct rig_stamp seen[RIG_ENDS];
	static char page[RIG_PAGE];
	char *view = mmap(NULL, plan.pages * RIG_PAGE, PROT_READ, MAP_SHARED, file_fd, 0);
	long i;

	if (view == MAP_FAILED)
		return;
	evict(view);
	for (i = 0; i < plan.pages; i++) {
		if (!rig_pread_all(file_fd, page, RIG_PAGE, i * RIG_PAGE))
			break;
		seen[RIG_HEAD] = *rig_stamp_at(page, RIG_HEAD);
		seen[RIG_TAIL] = *rig_stamp_at(page, RIG_TAIL);
		check_stamps("file", seen, i, shared->stored[i]);
	}
	munmap(view, plan.pages * RIG_PAGE);
}

/* Nobody maps the file any more, and it is clean: a lost reference holds what stays in memory. */
static void check_references(void)
{
	size_t len = plan.pages * RIG_PAGE;
	unsigned char resident[MAX_PAGES];
	long i, left = 0, tries;
	char *view;

	if (on_tmpfs || !in_guest)
		return;
	for (tries = 0; tries < 40; tries++) {
		fsync(file_fd);
		posix_fadvise(file_fd, 0, 0, POSIX_FADV_DONTNEED);
		view = mmap(NULL, len, PROT_READ, MAP_SHARED, file_fd, 0);
		if (view == MAP_FAILED || mincore(view, len, resident))
			return;
		munmap(view, len);
		for (left = i = 0; i < plan.pages; i++)
			left += resident[i] & 1;
		if (!left)
			return;
		rig_sleep_ns(50000000);
	}
	rig_found("clean page cannot be dropped after migration, a reference is leaked",
		  "%ld of %ld pages, %s", left, plan.pages, race->common.name);
}

static void run_episode(unsigned int episode, int64_t ns)
{
	uint64_t good = rig_vmstat("pgmigrate_success"), bad = rig_vmstat("pgmigrate_fail");
	long i;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_case_again();
	make_file(episode);
	rig_fault_around(plan.fault_around);
	if (race->look == LOOK_ZAP) {
		rig_spawn(zapper_main, NULL);
		if (plan.how != BY_OFFLINE && !rig_lies("idle"))
			rig_spawn(zap_mover_main, NULL);
	} else {
		for (i = 0; i < plan.processes; i++)
			rig_spawn(process_main, (void *)i);
		for (i = 0; i < plan.movers; i++)
			rig_spawn(mover_main, (void *)i);
	}
	rig_case_run(ns);
	if (race->look == LOOK_WRITE)
		check_file();
	check_references();
	close(file_fd);
	rig_count(C_MIGRATED, rig_vmstat("pgmigrate_success") - good);
	rig_count(C_FAILED, rig_vmstat("pgmigrate_fail") - bad);
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	const bool zap = race->look == LOOK_ZAP;
	const struct rig_gate gates[] = {
		{ C_MOVES, 1 },
		{ C_MIGRATED, zap ? 1 : rig_max(8, rig_min(1000, 8 * ns / second)) },
		{ C_COLLISIONS, zap ? 0 : rig_max(3, rig_min(100, 3 * ns / second)) },
		{ C_FORKS, race->look == LOOK_COW ? 1 : 0 },
		{ C_ZAPS_CAUGHT, zap ? 1 : 0 },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
	rig_case_begin(race->common.name);
	make_titles();
	shared->offlined = 0;
	rig_episodes(plan_ms, ns, run_episode);
	judge_race(ns);
}

static const struct rig_suite suite = {
	.program = &program,
	.cases = races,
	.size = sizeof(races[0]),
	.nr = RIG_COUNT(races),
	.fault_around = true,
	.unsupported = unsupported,
	.run = run_race,
};

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	shared = rig_share(sizeof(*shared));
	in_guest = rig_own_machine();
	nodes = rig_nodes();

	rig_suite_plan(&suite);
	rig_diag("nodes %#" PRIx64, nodes);
	rig_suite_run(&suite);
	return rig_finish();
}
