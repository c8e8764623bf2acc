// SPDX-License-Identifier: GPL-2.0-only
/*
 * hugetlb-race: faults in hugetlb files against truncation and hole punching.
 *
 * One mutator per file removes huge pages (hole punch, or truncate and extend)
 * and writes them anew with the next generation through a mapping of its own.
 * Mappers, processes whose threads share one mapping, fault the same pages all
 * the while: allocation, page cache insertion, copies in private mappings. The
 * pool is the workload's own: it is raised when it starts, and put back.
 *
 * Legal outcomes of one read:
 *   - a whole stamp of the right page, younger than the last removal that had
 *     returned before the read began;
 *   - zeroes, where a fault filled a hole before the mutator did, while the
 *     mutator is between removing and rewriting, or where the pool was empty;
 *   - a torn stamp, while the mutator is writing;
 *   - SIGBUS, past the end of the file or when the pool is empty;
 *   - a page past the end of the file. A fault that has compared the index with
 *     i_size may add its page after truncate is done: hugetlb_no_page() of 6.12
 *     does not look again. The page is new, so old data would be a failure.
 *   - in a private mapping that is written: any copy, whatever it was copied from.
 * A failure is old data after a removal, data of another page, zeroes or torn
 * stamps while nobody writes, SIGBUS in a file that never shrinks and a pool
 * that has several times its size.
 *
 * When all workers have ended, the pool is counted. With the files still open
 * HugePages_Free is what is free without the pages in the files; with all of
 * them closed, HugePages_Total, Free, Rsvd and Surp are what they were before.
 * A fault in the window of a truncate gets the reservation of the page wrong
 * for as long as the file lives, or for good if it was reserved by mmap(): the
 * files that are truncated are mapped with MAP_NORESERVE, and HugePages_Rsvd is
 * only judged when they are gone. Private mappings have no reservation either:
 * hugetlb_unmap_file_folio() of 6.12 takes the reserve map of one whose lock a
 * fault holds for a struct hugetlb_vma_lock, and crashes (--reserve 1 shows it).
 *
 * PASS means: enough rounds, enough reads that met a removal, and nothing of
 * the above. What it cannot see: pages that are damaged and removed again
 * before anyone reads them, wrong subpools (the mount has no size), cgroups.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/memfd.h>

#define HUGE_SIZE	(2ul << 20)
#define POOL_FILE	"/proc/sys/vm/nr_hugepages"
#define MOST_POOL	32
#define MAX_PAGES	32
#define MAX_GROUPS	8
#define MAX_MAPPERS	8
#define MAX_THREADS	4
#define SETTLE_NS	(3ll * 1000 * 1000 * 1000)

enum op { OP_PUNCH, OP_TRUNCATE };

struct race {
	struct rig_case common;
	enum op op;
	bool shared;
};

/* Punching first: a truncation may leave its reservations to the end of the file's life. */
static const struct race races[] = {
	{ { "punch-shared", 6 }, OP_PUNCH, true },
	{ { "punch-private", 2 }, OP_PUNCH, false },
	{ { "truncate-shared", 3 }, OP_TRUNCATE, true },
	{ { "truncate-private", 1 }, OP_TRUNCATE, false },
};

enum counter {
	C_ROUNDS, C_REMOVED, C_COLLISIONS, C_READS, C_WRITES, C_SIGBUS, C_ZERO, C_TORN, C_COUNTS,
	NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"rounds", "pages_removed", "collisions", "reads", "writes", "sigbus", "zero", "torn",
	"pool_counts",
};

struct plan {
	long groups;
	long mappers;
	long threads;
	long pages;
	long chunk;
	long pause;		/* most microseconds between two reads */
	long write;
	long drop;
	long reserve;
	long populate;
	long refill;
	long nice;
};

static long plan_ms = 1000;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "groups", "files, each with a mutator and mappers of its own", &given.groups,
	  1, MAX_GROUPS },
	{ "mappers", "processes that map each file", &given.mappers, 1, MAX_MAPPERS },
	{ "threads", "threads that share the mapping of each", &given.threads, 1, MAX_THREADS },
	{ "pages", "huge pages of each file", &given.pages, 2, MAX_PAGES },
	{ "chunk", "most pages that one operation removes", &given.chunk, 1, MAX_PAGES },
	{ "pause", "most microseconds between two reads", &given.pause, 0, 100000 },
	{ "write", "percent of private reads that write", &given.write, 0, 100 },
	{ "drop", "percent of reads after which a lone thread drops its mapping", &given.drop,
	  0, 100 },
	{ "reserve", "1: pages are reserved by mmap", &given.reserve, 0, 1 },
	{ "populate", "percent of the file that exists at first", &given.populate, 0, 100 },
	{ "refill", "percent of removed pages that the mutator writes anew", &given.refill, 0, 100 },
	{ "nice", "of the mutators", &given.nice, 0, 19 },
};

static const struct rig_program program = {
	.name = "hugetlb-race",
	.about = "hugetlb-race: hugetlb faults against truncation and hole punching.\n"
		 "Stale data and wrong counts of the pool fail; SIGBUS with an empty pool is legal.",
	.cases = "punch-shared punch-private truncate-shared truncate-private",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* One file, its mutator and its mappers; lives in shared memory. */
struct group {
	uint32_t seq;		/* odd while the file is in flux */
	uint64_t newest;	/* youngest generation that anyone began to write */
	int fd;
	unsigned int nr;
	uint64_t dead[MAX_PAGES];
	uint32_t hole[MAX_PAGES];	/* nobody has written it since it was removed */
};

struct mapper {
	struct group *group;
	unsigned int nr;
	char *base;
};

struct reader {
	struct mapper *mapper;
	unsigned int nr;
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

struct pool {
	int64_t total;
	int64_t free;
	int64_t rsvd;
	int64_t surp;
};

static const struct race *race;
static struct plan plan;
static struct group *groups;
static struct mapper mappers[MAX_GROUPS][MAX_MAPPERS];
static long pool_pages;
static const char *no_pool;	/* why there is none */
static bool roomy;		/* the pool cannot be empty */
static bool stuck;		/* workers hold pages, and mutexes that all files share */

static char title_stale[96], title_wrong[96], title_future[96], title_zero[96], title_torn[96];
static char title_bus[96];

static void make_titles(void)
{
	const char *op = race->op == OP_PUNCH ? "hole punch" : "truncate";
	const char *kind = race->shared ? "shared" : "private";

#define TITLE(buf, what) \
	snprintf(buf, sizeof(buf), what " after %s in a %s hugetlb mapping", op, kind)
	TITLE(title_stale, "stale data");
	TITLE(title_wrong, "data of another page");
	TITLE(title_future, "data that was never written");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_torn, "corrupt data");
	TITLE(title_bus, "SIGBUS with pages in the pool");
#undef TITLE
}

/* ---- access ---- */

static struct rig_stamp *stamp_at(char *page, enum rig_end end)
{
	return rig_stamp_at(end == RIG_HEAD ? page : page + HUGE_SIZE - RIG_PAGE, end);
}

/* Returns false when the access ended in SIGBUS. */
static bool read_page(char *page, struct rig_stamp *out, bool write)
{
	if (sigsetjmp(rig_bus_env, 0)) {
		rig_store(&rig_bus_armed, 0);
		return false;
	}
	rig_store(&rig_bus_armed, 1);
	if (write)
		__atomic_fetch_add((uint64_t *)(page + HUGE_SIZE / 2), 1, __ATOMIC_RELAXED);
	out[RIG_HEAD] = rig_stamp_read(stamp_at(page, RIG_HEAD));
	out[RIG_TAIL] = rig_stamp_read(stamp_at(page, RIG_TAIL));
	rig_store(&rig_bus_armed, 0);
	return true;
}

static bool write_page(char *page, uint64_t generation, uint64_t index)
{
	if (sigsetjmp(rig_bus_env, 0)) {
		rig_store(&rig_bus_armed, 0);
		return false;
	}
	rig_store(&rig_bus_armed, 1);
	rig_stamp_write(stamp_at(page, RIG_HEAD), generation, index, RIG_HEAD);
	rig_stamp_write(stamp_at(page, RIG_TAIL), generation, index, RIG_TAIL);
	rig_store(&rig_bus_armed, 0);
	return true;
}

static char *map_group(const struct group *g, bool shared, bool reserve)
{
	int flags = shared ? MAP_SHARED : MAP_PRIVATE;
	char *p = MAP_FAILED;

	if (reserve)
		p = mmap(NULL, plan.pages * HUGE_SIZE, PROT_READ | PROT_WRITE, flags, g->fd, 0);
	if (p == MAP_FAILED)	/* or the pool is too small for it */
		p = mmap(NULL, plan.pages * HUGE_SIZE, PROT_READ | PROT_WRITE,
			 flags | MAP_NORESERVE, g->fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* ---- mappers ---- */

static void judge_page(struct reader *r, long index, const struct rig_stamp *seen, uint64_t dead,
		       bool stable, bool hole)
{
	struct group *g = r->mapper->group;
	uint64_t newest = rig_load(&g->newest);
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], index, end, dead, newest)) {
		case RIG_LIVE:
			break;
		case RIG_ZERO:
			r->counts[C_ZERO]++;
			if (stable && !hole)
				title = title_zero;
			break;
		case RIG_TORN:
			r->counts[C_TORN]++;
			if (stable)
				title = title_torn;
			break;
		case RIG_STALE:
			/* a private copy may be made of a page that is about to be removed */
			if (race->shared || !plan.write)
				title = title_stale;
			break;
		case RIG_WRONG_PAGE:
			title = title_wrong;
			break;
		case RIG_FUTURE:
			title = title_future;
			break;
		}
		if (title)
			rig_found(title, "file %u huge page %ld %s: stamp generation %" PRIu64
				  " where %#" PRIx64 ", dead %" PRIu64 ", newest %" PRIu64
				  ", mapper %u thread %u",
				  g->nr, index, end == RIG_HEAD ? "head" : "tail",
				  seen[end].generation, seen[end].where, dead, newest,
				  r->mapper->nr, r->nr);
	}
}

static void check_page(struct reader *r, long index)
{
	bool write = !race->shared && (long)rig_below(&r->rng, 100) < plan.write;
	struct group *g = r->mapper->group;
	struct rig_stamp seen[RIG_ENDS];
	bool stable, hole;
	uint64_t dead;
	uint32_t seq;

	seq = rig_load(&g->seq);
	hole = rig_load(&g->hole[index]);
	dead = rig_load(&g->dead[index]);
	r->counts[C_READS]++;
	r->counts[C_WRITES] += write;
	if (!read_page(r->mapper->base + index * HUGE_SIZE, seen, write)) {
		r->counts[C_SIGBUS]++;
		if (roomy)
			rig_found(title_bus, "file %u huge page %ld of %ld, %ld in the pool",
				  g->nr, index, plan.pages, pool_pages);
		return;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* a private mapping keeps what it had of the file, or took for a hole */
	stable = !(seq & 1) && rig_load(&g->seq) == seq && race->shared;
	if ((seq & 1) || rig_load(&g->seq) != seq)
		r->counts[C_COLLISIONS]++;
	judge_page(r, index, seen, dead, stable, hole || rig_load(&g->hole[index]));
}

/* Spins: a sleep would always end with the same tick. */
static void pause_a_little(struct reader *r)
{
	int64_t end = rig_now() + 1000 * (int64_t)rig_below(&r->rng, plan.pause + 1);

	while (plan.pause && rig_now() < end)
		if (rig_stopped())
			break;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	while (!rig_stopped()) {
		check_page(r, rig_below(&r->rng, plan.pages));
		/* threads that share a mapping do not drop it under each other's eyes */
		if (plan.threads == 1 && (long)rig_below(&r->rng, 100) < plan.drop &&
		    madvise(r->mapper->base, plan.pages * HUGE_SIZE, MADV_DONTNEED))
			rig_broken("madvise: %s", strerror(errno));
		pause_a_little(r);
		rig_flush_counts(r->counts, NR_COUNTERS);
	}
	return NULL;
}

static void mapper_main(void *arg)
{
	static struct reader readers[MAX_THREADS];
	struct mapper *m = arg;
	long i;

	rig_catch_bus();
	m->base = map_group(m->group, race->shared, plan.reserve);
	if (!m->base) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	for (i = 0; i < plan.threads; i++) {
		readers[i].mapper = m;
		readers[i].nr = i;
		readers[i].rng = rig_rng_for(race->common.name, 1000 * m->group->nr + 10 * m->nr + i);
	}
	rig_run_threads(reader_main, readers, sizeof(readers[0]), plan.threads);
}

/* ---- mutators ---- */

struct mutator {
	struct group *group;
	struct rig_rng rng;
	char *base;
};

static void bury(struct group *g, long first, long end)
{
	long i;

	for (i = first; i < end; i++) {
		rig_store(&g->hole[i], 1);
		rig_store(&g->dead[i], g->newest);
	}
	rig_count(C_REMOVED, end - first);
}

static void fill(struct mutator *m, long first, long end, long percent)
{
	struct group *g = m->group;
	long i;

	for (i = first; i < end; i++) {
		if ((long)rig_below(&m->rng, 100) >= percent)
			continue;
		if (!write_page(m->base + i * HUGE_SIZE, g->newest, i))
			continue;	/* the pool is empty */
		if (rig_lies("zero"))
			memset(m->base + i * HUGE_SIZE, 0, HUGE_SIZE);
		rig_store(&g->hole[i], 0);
	}
}

static void resize(struct group *g, long pages)
{
	if (ftruncate(g->fd, pages * HUGE_SIZE))
		rig_broken("ftruncate: %s", strerror(errno));
}

static void mutate_once(struct mutator *m)
{
	long len = 1 + rig_below(&m->rng, rig_min(plan.chunk, plan.pages));
	struct group *g = m->group;
	long first, end;

	first = rig_below(&m->rng, plan.pages - len + 1);
	if (race->op == OP_TRUNCATE)
		first = plan.pages - len;
	end = first + len;
	rig_add(&g->seq, 1);
	if (rig_lies("stale"))
		;		/* nothing is removed, and the readers are told that it was */
	else if (race->op == OP_TRUNCATE)
		resize(g, first);
	else if (fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * HUGE_SIZE,
			   len * HUGE_SIZE))
		rig_broken("fallocate: %s", strerror(errno));
	bury(g, first, end);
	if (race->op == OP_TRUNCATE)
		resize(g, plan.pages);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, end, plan.refill);
	rig_add(&g->seq, 1);
	rig_count(C_ROUNDS, 1);
}

static void mutator_main(void *arg)
{
	static struct mutator m;

	rig_catch_bus();
	m.group = arg;
	m.rng = rig_rng_for(race->common.name, 1000000 + m.group->nr);
	m.base = map_group(m.group, true, false);
	if (!m.base) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	if (plan.nice)
		setpriority(PRIO_PROCESS, 0, plan.nice);
	while (!rig_stopped()) {
		if (rig_lies("idle"))
			rig_wait_change(&m.group->seq, rig_load(&m.group->seq));
		else
			mutate_once(&m);
	}
}

/* ---- the pool ---- */

static struct pool read_pool(void)
{
	return (struct pool){
		.total = rig_stat("/proc/meminfo", "HugePages_Total"),
		.free = rig_stat("/proc/meminfo", "HugePages_Free"),
		.rsvd = rig_stat("/proc/meminfo", "HugePages_Rsvd"),
		.surp = rig_stat("/proc/meminfo", "HugePages_Surp"),
	};
}

/* Huge pages in the files of this episode. */
static int64_t held(void)
{
	int64_t pages = 0;
	struct stat st;
	long i;

	for (i = 0; i < plan.groups; i++)
		if (groups[i].fd >= 0 && !fstat(groups[i].fd, &st))
			pages += st.st_blocks * 512 / (int64_t)HUGE_SIZE;
	return pages;
}

/*
 * Waits until the pool is as it must be, for pages may be freed a moment after
 * their last user; then says what is not. With files that are still there the
 * reservations are not judged: some pages are reserved and do not exist.
 */
static void count_pool(const struct pool *before, bool closed)
{
	const char *when = closed ? "with all files gone" : "with the files still there";
	int64_t deadline = rig_now() + SETTLE_NS, used;
	struct pool now;

	do {
		now = read_pool();
		used = held();
		if (now.total == before->total && now.free == before->free - used &&
		    now.surp == before->surp && (!closed || now.rsvd == before->rsvd))
			break;
		rig_wait_child(10 * 1000 * 1000);
	} while (rig_now() < deadline);
	rig_count(C_COUNTS, 1);
#define COUNTED(field, want, title) do {						\
	if (now.field != (want))							\
		rig_found(title, "%s: %" PRId64 " instead of %" PRId64 ", %" PRId64	\
			  " in files", when, now.field, (int64_t)(want), used);		\
} while (0)
	COUNTED(total, before->total, "HugePages_Total is wrong when all is quiet");
	COUNTED(free, before->free - used, "HugePages_Free is wrong when all is quiet");
	COUNTED(surp, before->surp, "HugePages_Surp is wrong when all is quiet");
	if (closed)
		COUNTED(rsvd, before->rsvd, "HugePages_Rsvd is wrong when all is quiet");
#undef COUNTED
}

/* Returns why there is no pool to play with, or NULL. */
static const char *make_pool(void)
{
	int64_t spare = rig_stat("/proc/meminfo", "MemAvailable") / 4 / (int64_t)(HUGE_SIZE / 1024);
	struct pool before = read_pool();
	char text[32];

	if (before.total < 0)
		return "no hugetlb in this kernel";
	if (rig_stat("/proc/meminfo", "Hugepagesize") != HUGE_SIZE / 1024)
		return "huge pages are not of 2 MiB";
	snprintf(text, sizeof(text), "%" PRId64,
		 before.total + rig_max(0, rig_min(spare, MOST_POOL)));
	if (!rig_turn(POOL_FILE, text) && before.free < 4)
		return "nr_hugepages cannot be set";
	before = read_pool();
	/* what others have reserved is theirs; Rsvd may be nonsense on a bad kernel */
	pool_pages = before.free - (before.rsvd < before.free ? rig_max(before.rsvd, 0) : 0);
	pool_pages = rig_min(pool_pages, MOST_POOL);
	return pool_pages < 4 ? "less than 4 huge pages to be had" : NULL;
}

/* ---- cases ---- */

/*
 * A punch meets a fault in a window of a few instructions, between two faults
 * that sleep and miss it: readers that come now and then hit it, those that
 * fault without a pause wait for the folio when it opens.
 */
static void draw_plan(unsigned int episode)
{
	static const long processes[] = { 1, 2, 2, 3, 4 };
	static const long threads[] = { 1, 1, 2, 3 };
	static const long pages[] = { 2, 4, 4, 8, 8, 10, 16 };
	static const long chunks[] = { 1, 4, 32, 32 };
	static const long pauses[] = { 0, 0, 100, 1000, 5000 };
	static const long writes[] = { 0, 20, 50 };
	static const long drops[] = { 0, 0, 5, 30 };
	static const long populates[] = { 50, 100, 100 };
	static const long refills[] = { 0, 30, 100, 100 };
	static const long nices[] = { 0, 0, 0, 5 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.groups = rig_max(1, rig_min(rig_min(cpus / 4, pool_pages / 8), MAX_GROUPS));
	p.mappers = rig_pick(&rng, processes);
	p.mappers = rig_min(p.mappers, rig_max(2, cpus / p.groups));
	/* no more than there are CPUs, or the mutator is starved */
	p.threads = rig_pick(&rng, threads);
	p.threads = rig_min(p.threads, rig_max(1, cpus / p.mappers));
	/* the same on each machine for the same seed, unless the pool is too small for it */
	p.pages = rig_pick(&rng, pages);
	p.pages = rig_max(2, rig_min(p.pages, pool_pages / p.groups));
	p.chunk = rig_pick(&rng, chunks);
	p.pause = rig_pick(&rng, pauses);
	p.write = rig_pick(&rng, writes);
	p.drop = rig_pick(&rng, drops);
	p.reserve = rig_below(&rng, 2);
	p.populate = rig_pick(&rng, populates);
	p.refill = rig_pick(&rng, refills);
	p.nice = rig_pick(&rng, nices);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	/* see above: a stock kernel loses count, and worse in private mappings */
	if ((race->op == OP_TRUNCATE || !race->shared) && given.reserve < 0)
		plan.reserve = 0;
	/* in the file, removed and not yet freed, and on the way into the file */
	roomy = race->shared && race->op == OP_PUNCH &&
		pool_pages >= 3 * plan.groups * plan.pages;
}

static void make_files(void)
{
	struct mutator m = { .rng = rig_rng_for(race->common.name, 2000000) };
	long i;

	memset(groups, 0, MAX_GROUPS * sizeof(*groups));
	for (i = 0; i < plan.groups; i++) {
		struct group *g = &groups[i];

		g->nr = i;
		g->newest = 1;
		memset(g->hole, 1, sizeof(g->hole));
		g->fd = syscall(SYS_memfd_create, "rig-hugetlb", MFD_CLOEXEC | MFD_HUGETLB);
		if (g->fd < 0)
			rig_bail("memfd_create: %s", strerror(errno));
		resize(g, plan.pages);
		m.group = g;
		m.base = map_group(g, true, plan.reserve);
		if (!m.base)
			rig_bail("mmap: %s", strerror(errno));
		fill(&m, 0, plan.pages, plan.populate);
		munmap(m.base, plan.pages * HUGE_SIZE);
	}
	for (; i < MAX_GROUPS; i++)
		groups[i].fd = -1;
	rig_bail_if_broken();
}

static void run_episode(unsigned int episode, int64_t ns)
{
	const struct pool before = read_pool();
	void *kept = MAP_FAILED;
	long i, k;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_case_again();
	make_files();
	for (i = 0; i < plan.groups; i++) {
		for (k = 0; k < plan.mappers; k++) {
			mappers[i][k] = (struct mapper){ .group = &groups[i], .nr = k };
			rig_spawn(mapper_main, &mappers[i][k]);
		}
	}
	for (i = 0; i < plan.groups; i++)
		rig_spawn(mutator_main, &groups[i]);
	rig_case_run(ns);
	stuck = rig_nr_workers;
	if (rig_lies("reserve") || rig_lies("leak"))
		kept = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			    MAP_HUGETLB | (!rig_lies("leak") ? 0 : MAP_POPULATE), -1, 0);
	if (!stuck)
		count_pool(&before, false);
	for (i = 0; i < plan.groups; i++) {
		close(groups[i].fd);
		groups[i].fd = -1;
	}
	if (!stuck)
		count_pool(&before, true);
	if (kept != MAP_FAILED)
		munmap(kept, HUGE_SIZE);
}

static const char *unsupported(const void *c)
{
	(void)c;
	return no_pool;
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	/* An emulated CPU clears 2 MiB in milliseconds, and the files are short. */
	const struct rig_gate gates[] = {
		{ C_ROUNDS, rig_max(3, rig_min(50, 2 * ns / second)) },
		{ C_COLLISIONS, rig_max(5, rig_min(200, 10 * ns / second)) },
		{ C_COUNTS, 2 },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
	if (stuck) {
		rig_skip(race->common.name, "inconclusive: workers of another case are stuck");
		return;
	}
	rig_case_begin(race->common.name);
	make_titles();
	rig_episodes(plan_ms, ns, run_episode);
	judge_race(ns);
}

static const struct rig_suite suite = {
	.program = &program,
	.cases = races,
	.size = sizeof(races[0]),
	.nr = RIG_COUNT(races),
	.unsupported = unsupported,
	.run = run_race,
};

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	groups = rig_share(MAX_GROUPS * sizeof(*groups));

	rig_suite_plan(&suite);
	rig_catch_bus();
	no_pool = make_pool();
	rig_diag("actual pool=%ld", pool_pages);
	rig_suite_run(&suite);
	return rig_finish();
}
