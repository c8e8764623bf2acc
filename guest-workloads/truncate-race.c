// SPDX-License-Identifier: GPL-2.0-only
/*
 * truncate-race: fault-around against whatever takes pages out of the page cache.
 *
 * One mutator per file removes pages (hole punch, truncate, truncate to the
 * middle of a page and extend, O_DIRECT write over cached pages, zeroing,
 * collapsing and inserting a range) and writes them anew with the next
 * generation. Mappers keep dropping their page tables
 * and faulting the file back in, so that filemap_map_pages() runs over pages
 * that are being removed. Private and shared mappings are cases of their own;
 * truncate-cow has private mappings that also write.
 *
 * Legal outcomes of one read of a mapped page:
 *   - a whole stamp of the right page, younger than the last removal that had
 *     returned before the read began;
 *   - zeroes, while the mutator is between removing and rewriting (a hole);
 *   - a torn stamp, while the mutator is writing;
 *   - SIGBUS, when the page is past an end of file that the mutator had not
 *     yet published as extended again;
 *   - the stamp of another page, while a collapsed or inserted range has moved
 *     the pages behind it and the mutator has not written them anew;
 *   - in truncate-cow only: any private copy that was made since the last
 *     truncation (so torn and zero stamps accuse nobody there).
 * Everything else is a failure: data that was removed before the reader looked
 * (stale), another page's data, zeroes or torn stamps while nobody writes,
 * SIGBUS below the published end, and any page table entry present past the
 * end of the file between truncate's return and the next extension.
 *
 * How a stale read is proved: the mutator finishes the removal, then
 * release-stores the dead generation of each page; the reader acquire-loads it
 * before its access. A whole stamp of a dead generation was therefore read
 * through a mapping that outlived the removal.
 *
 * PASS means: rounds and collisions (faults while a removal was under way)
 * were enough, and nothing of the above was seen. What it cannot see: damage
 * that was unmapped again before anyone read it (the second unmap of truncate
 * hides most), accounting errors (see the console), reordering that x86 does
 * not do, anything on file systems that support none of the operations.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/magic.h>

#define MAX_PAGES	2048
#define MAX_GROUPS	16
#define MAX_MAPPERS	8
#define MAX_THREADS	4
#define PIECE_PAGES	512	/* most that one write covers */
#define LOOK_PAGES	512	/* most that one look into a pagemap covers */


#define PAGEMAP_PRESENT	(1ull << 63)
#define PAGEMAP_FILE	(1ull << 61)

enum op { OP_PUNCH, OP_TRUNCATE, OP_EXTEND, OP_DIRECT, OP_ZERO, OP_COLLAPSE, OP_INSERT };

static const char * const op_names[] = {
	"hole punch", "truncate", "extend", "direct write", "zero range", "collapse range",
	"insert range",
};

/* What fallocate() is told; 0 where it is not what removes the pages. */
static const int op_modes[] = {
	[OP_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	[OP_ZERO] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	[OP_COLLAPSE] = FALLOC_FL_COLLAPSE_RANGE,
	[OP_INSERT] = FALLOC_FL_INSERT_RANGE,
};

struct race {
	struct rig_case common;
	enum op op;
	bool shared;
	bool cow;		/* readers also write their private copies */
};

/* Hole punch unmaps once and direct writes invalidate: both show what truncate's second unmap hides. */
static const struct race races[] = {
	{ { "punch-private", 8 }, OP_PUNCH, false, false },
	{ { "direct-private", 8 }, OP_DIRECT, false, false },
	{ { "truncate-private", 2 }, OP_TRUNCATE, false, false },
	{ { "extend-private", 2 }, OP_EXTEND, false, false },
	{ { "truncate-cow", 3 }, OP_TRUNCATE, false, true },
	{ { "punch-shared", 2 }, OP_PUNCH, true, false },
	{ { "direct-shared", 2 }, OP_DIRECT, true, false },
	{ { "truncate-shared", 1 }, OP_TRUNCATE, true, false },
	{ { "extend-shared", 1 }, OP_EXTEND, true, false },
	{ { "zero-private", 2 }, OP_ZERO, false, false },
	{ { "collapse-private", 2 }, OP_COLLAPSE, false, false },
	{ { "insert-private", 1 }, OP_INSERT, false, false },
};

enum counter {
	C_ROUNDS, C_REMOVED, C_COLLISIONS, C_READS, C_SWEEPS, C_FAULTS, C_SIGBUS, C_ZERO, C_TORN,
	C_QUIET, C_LOOKS, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"rounds", "pages_removed", "collisions", "reads", "sweeps", "faults", "sigbus", "zero",
	"torn", "quiet", "pagemap_entries",
};

/* What a seed decides, case by case. */
struct plan {
	long groups;
	long mappers;
	long threads;
	long pages;
	long align;		/* first page of the file that is mapped */
	long stride;
	long chunk;
	long fill;
	long linger;
	long quiet;
	long nice;
	long remap;
	long populate;
	long fault_around;
};

static long plan_ms = 500;	/* of one episode */

static struct plan given = {
	-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
};

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "groups", "files, each with a mutator and mappers of its own", &given.groups,
	  1, MAX_GROUPS },
	{ "mappers", "processes that map each file", &given.mappers, 1, MAX_MAPPERS },
	{ "threads", "threads in each of them", &given.threads, 1, MAX_THREADS },
	{ "pages", "length of each file", &given.pages, 20, MAX_PAGES },
	{ "align", "first page that is mapped", &given.align, 0, 16 },
	{ "stride", "touch one page in so many", &given.stride, 1, 512 },
	{ "chunk", "most pages that one operation removes", &given.chunk, 1, MAX_PAGES },
	{ "fill", "pages in one write", &given.fill, 1, PIECE_PAGES },
	{ "linger", "percent of sweeps that await the removal's end", &given.linger, 0, 100 },
	{ "quiet", "rounds between phases without dropping", &given.quiet, 1, 100000 },
	{ "nice", "of the mappers", &given.nice, 0, 19 },
	{ "remap", "drop page tables by mmap, not madvise", &given.remap, 0, 1 },
	{ "populate", "mappers fault through madvise; cache is refilled", &given.populate, 0, 1 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "truncate-race",
	.about = "truncate-race: fault-around against the removal of pages from the page cache.\n"
		 "Stale data after removal fails; SIGBUS past the end of the file is legal.",
	.cases = "punch-private direct-private truncate-private extend-private truncate-cow\n"
		 "       punch-shared direct-shared truncate-shared extend-shared\n"
		 "       zero-private collapse-private insert-private",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* One file, its mutator and its mappers; lives in shared memory. */
struct group {
	uint32_t seq;		/* odd while the file is in flux; mappers wait on it */
	uint32_t acks_seq;	/* raised with each acknowledgement; the mutator waits on it */
	uint32_t lingering;	/* mappers that wait on seq */
	uint64_t newest;	/* youngest generation that anyone began to write */
	uint64_t shrinks;	/* raised before the file gets shorter */
	uint64_t valid_pages;	/* the file is at least this long */
	uint64_t quiet;		/* not 0: mappers look, and do not drop */
	uint64_t acks[MAX_MAPPERS][MAX_THREADS];
	uint64_t addr[MAX_MAPPERS][MAX_THREADS];
	int pid[MAX_MAPPERS];
	int fd;
	int direct_fd;
	unsigned int nr;
	uint64_t dead[MAX_PAGES][RIG_ENDS];
};

struct mapper {
	struct group *group;
	unsigned int nr;
};

/*
 * Each thread maps the file for itself. Two threads must not share a mapping
 * that one of them drops: MADV_DONTNEED clears the PTE and lowers the mapcount
 * first and flushes the TLBs of other CPUs last, and a removal that runs to its
 * end in between finds nothing to unmap. The other thread then reads removed
 * data on a stock kernel (seen within a second on 6.12). Neighbouring mappings
 * share page tables and their lock, which is what the threads are for.
 */
struct reader {
	struct mapper *mapper;
	unsigned int nr;
	char *base;		/* where page `align` of the file is mapped */
	unsigned int writes;	/* percent of the accesses of this sweep that write a private copy */
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

static const struct race *race;
static struct plan plan;
static struct group *groups;
static struct mapper mappers[MAX_GROUPS][MAX_MAPPERS];
static bool eof_oracle;

/* Titles are the same in every run; built once per case, before the workers exist. */
static char title_stale[96], title_wrong[96], title_future[96], title_zero[96], title_torn[96];
static char title_bus[96], title_eof[96], title_eof_cow[96];

static void make_titles(void)
{
	const char *op = op_names[race->op], *kind = race->shared ? "shared" : "private";

#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " after %s in a %s mapping", op, kind)
	TITLE(title_stale, "stale data");
	TITLE(title_wrong, "data of another page");
	TITLE(title_future, "data that was never written");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_torn, "corrupt data");
	TITLE(title_bus, "SIGBUS below the end of the file");
	TITLE(title_eof, "page mapped past the end of the file");
	TITLE(title_eof_cow, "private copy left past the end of the file");
#undef TITLE
}

/* ---- mappers ---- */

static size_t map_len(void)
{
	return (plan.pages - plan.align) * RIG_PAGE;
}

static void map_file(struct reader *r)
{
	int prot = PROT_READ | (race->cow ? PROT_WRITE : 0);
	int flags = MAP_FIXED | (race->shared ? MAP_SHARED : MAP_PRIVATE);
	struct group *g = r->mapper->group;

	if (mmap(r->base, map_len(), prot, flags, g->fd, plan.align * RIG_PAGE) == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		_exit(0);
	}
}

static void drop(struct reader *r)
{
	if (plan.remap)
		map_file(r);
	else if (madvise(r->base, map_len(), MADV_DONTNEED))
		rig_broken("madvise: %s", strerror(errno));
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
		__atomic_fetch_add((uint64_t *)(page + RIG_PAGE / 2), 1, __ATOMIC_RELAXED);
	out[RIG_HEAD] = rig_stamp_read(rig_stamp_at(page, RIG_HEAD));
	out[RIG_TAIL] = rig_stamp_read(rig_stamp_at(page, RIG_TAIL));
	rig_store(&rig_bus_armed, 0);
	return true;
}

/* Whether pages come to lie at another index, where their stamps are those of another page. */
static bool moves_pages(void)
{
	return race->op == OP_COLLAPSE || race->op == OP_INSERT;
}

static void judge_page(struct reader *r, uint64_t index, const struct rig_stamp *seen,
		       const uint64_t *dead, bool stable)
{
	struct group *g = r->mapper->group;
	uint64_t newest = rig_load(&g->newest);
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], index, end, dead[end], newest)) {
		case RIG_LIVE:
			break;
		case RIG_ZERO:
			r->counts[C_ZERO]++;
			if (stable)
				title = title_zero;
			break;
		case RIG_TORN:
			r->counts[C_TORN]++;
			if (stable)
				title = title_torn;
			break;
		case RIG_STALE:
			title = title_stale;
			break;
		case RIG_WRONG_PAGE:
			if (stable || !moves_pages())
				title = title_wrong;
			break;
		case RIG_FUTURE:
			title = title_future;
			break;
		}
		if (title)
			rig_found(title, "file %u page %" PRIu64 " %s: stamp generation %" PRIu64
				  " where %#" PRIx64 ", dead %" PRIu64 ", newest %" PRIu64
				  ", mapper %u thread %u",
				  g->nr, index, end == RIG_HEAD ? "head" : "tail",
				  seen[end].generation, seen[end].where, dead[end], newest,
				  r->mapper->nr, r->nr);
	}
}

static void check_page(struct reader *r, uint64_t index)
{
	struct group *g = r->mapper->group;
	char *page = r->base + (index - plan.align) * RIG_PAGE;
	bool write = rig_below(&r->rng, 100) < r->writes;
	struct rig_stamp seen[RIG_ENDS];
	uint64_t dead[RIG_ENDS], shrinks, valid;
	uint32_t seq;
	bool stable;

	/* shrinks before valid_pages: the mutator writes them the other way round */
	shrinks = rig_load(&g->shrinks);
	valid = rig_load(&g->valid_pages);
	seq = rig_load(&g->seq);
	dead[RIG_HEAD] = rig_load(&g->dead[index][RIG_HEAD]);
	dead[RIG_TAIL] = rig_load(&g->dead[index][RIG_TAIL]);
	r->counts[C_READS]++;
	if (!read_page(page, seen, write)) {
		r->counts[C_SIGBUS]++;
		if (index < valid && rig_load(&g->shrinks) == shrinks)
			rig_found(title_bus, "file %u page %" PRIu64 ", at least %" PRIu64
				  " pages long", g->nr, index, valid);
		return;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	stable = !(seq & 1) && rig_load(&g->seq) == seq && !race->cow;
	judge_page(r, index, seen, dead, stable);
}

/* Faults the file in, one page in `stride`; counts the faults that met a removal. */
static void touch(struct reader *r)
{
	struct group *g = r->mapper->group;
	long first = rig_below(&r->rng, plan.stride), i;
	uint32_t seq;

	if (plan.populate && !race->cow) {
		/* the kernel's own loop over the range: more faults in less time */
		seq = rig_load(&g->seq);
		madvise(r->base, map_len(), MADV_POPULATE_READ);
		if ((seq & 1) || rig_load(&g->seq) != seq)
			r->counts[C_COLLISIONS]++;
		return;
	}
	for (i = plan.align + first; i < plan.pages; i += plan.stride) {
		seq = rig_load(&g->seq);
		check_page(r, i);
		if ((seq & 1) || rig_load(&g->seq) != seq)
			r->counts[C_COLLISIONS]++;
	}
}

static void sweep(struct reader *r)
{
	static const unsigned int cow_writes[] = { 25, 100, 100 };
	struct group *g = r->mapper->group;
	uint64_t hold = rig_load(&g->quiet);
	uint32_t seq;
	long i;

	if (!hold)
		drop(r);
	seq = rig_load(&g->seq);
	/* one read maps its neighbours, and what is mapped is copied elsewhere than in do_cow_fault() */
	r->writes = race->cow ? rig_pick(&r->rng, cow_writes) : 0;
	touch(r);
	r->writes = 0;
	r->counts[C_SWEEPS]++;
	/* Only a removal leaves something to see: without one, go and meet the next. */
	if (!hold && !(seq & 1) && rig_load(&g->seq) == seq)
		return;
	if ((long)rig_below(&r->rng, 100) < plan.linger) {
		rig_add(&g->lingering, 1);
		seq = rig_load(&g->seq);
		if (seq & 1)
			rig_wait_change(&g->seq, seq);
		rig_add(&g->lingering, -1);
	}
	for (i = plan.align; i < plan.pages; i++)
		check_page(r, i);
	if (hold && rig_load(&g->acks[r->mapper->nr][r->nr]) != hold) {
		rig_store(&g->acks[r->mapper->nr][r->nr], hold);
		rig_add(&g->acks_seq, 1);
		rig_wake(&g->acks_seq);
	}
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	map_file(r);
	rig_store(&r->mapper->group->addr[r->mapper->nr][r->nr], (uint64_t)r->base);
	while (!rig_stopped()) {
		sweep(r);
		rig_flush_counts(r->counts, NR_COUNTERS);
	}
	return NULL;
}

static void mapper_main(void *arg)
{
	static struct reader readers[MAX_THREADS];
	struct mapper *m = arg;
	char *slots;
	long i;

	rig_catch_bus();
	if (plan.nice)
		setpriority(PRIO_PROCESS, 0, plan.nice);
	/* neighbours from the start of a page table, so that the threads share it */
	slots = rig_room(plan.threads * map_len());
	if (!slots)
		return;
	m->group->pid[m->nr] = getpid();
	for (i = 0; i < plan.threads; i++) {
		readers[i].mapper = m;
		readers[i].nr = i;
		readers[i].base = slots + i * map_len();
		readers[i].rng = rig_rng_for(race->common.name, 1000 * m->group->nr + 10 * m->nr + i);
	}
	rig_run_threads(reader_main, readers, sizeof(readers[0]), plan.threads);
	rig_count_faults(C_FAULTS, RUSAGE_SELF);
}

/* ---- mutators ---- */

struct mutator {
	struct group *group;
	struct rig_rng rng;
	char *buf;
	uint64_t token;
	int pagemap[MAX_MAPPERS];
};

static void stamp_buffer(struct mutator *m, long first, long nr)
{
	long i;

	for (i = 0; i < nr; i++)
		rig_stamp_page(m->buf + i * RIG_PAGE, m->group->newest, first + i);
	if (rig_lies("zero"))
		memset(m->buf, 0, nr * RIG_PAGE);
}

/* Writes pages [first, end) anew; each write may make the file longer. */
static void fill(struct mutator *m, long first, long end)
{
	struct group *g = m->group;
	long n;

	for (; first < end && !rig_load(&rig_shared->broken); first += n) {
		n = rig_min(plan.fill, end - first);
		stamp_buffer(m, first, n);
		if (!rig_pwrite_all(g->fd, m->buf, n * RIG_PAGE, first * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
		if ((uint64_t)(first + n) > g->valid_pages)
			rig_store(&g->valid_pages, first + n);
	}
}

/* The removal of [first, end) has returned: from here on its data is dead. */
static void bury(struct group *g, long first, long end)
{
	long i;

	/* With "eof" nothing was removed: the pagemap alone shall speak of it, not the stamps before it. */
	for (i = first; i < end && !rig_lies("eof"); i++) {
		rig_store(&g->dead[i][RIG_HEAD], g->newest);
		rig_store(&g->dead[i][RIG_TAIL], g->newest);
	}
	rig_count(C_REMOVED, end - first);
}

/*
 * Nothing can legally map a page past the end of the file between truncate's
 * return and the next extension, and only this process extends.
 */
static void look_at(struct mutator *m, long mapper, long thread, long first, long n)
{
	static uint64_t entries[LOOK_PAGES];
	struct group *g = m->group;
	uint64_t vpn = g->addr[mapper][thread] / RIG_PAGE + first - plan.align;
	ssize_t got;
	long i;

	got = pread(m->pagemap[mapper], entries, n * 8, vpn * 8);
	if (got < 0)
		return;		/* the mapper has ended */
	rig_count(C_LOOKS, got / 8);
	for (i = 0; i < got / 8; i++) {
		if (!(entries[i] & PAGEMAP_PRESENT))
			continue;
		rig_found(entries[i] & PAGEMAP_FILE ? title_eof : title_eof_cow,
			  "file %u page %ld, pagemap %#" PRIx64 ", mapper %ld thread %ld",
			  g->nr, first + i, entries[i], mapper, thread);
	}
}

static void look_past_eof(struct mutator *m, long first)
{
	long i, k, n;

	if (!eof_oracle)
		return;
	first = rig_max(first, plan.align);
	n = rig_min(plan.pages - first, LOOK_PAGES);
	if (n <= 0)
		return;
	first += rig_below(&m->rng, plan.pages - first - n + 1);
	for (i = 0; i < plan.mappers; i++)
		for (k = 0; k < plan.threads && m->pagemap[i] >= 0; k++)
			look_at(m, i, k, first, n);
}

static void shrink(struct mutator *m, off_t size)
{
	struct group *g = m->group;

	/* valid_pages before shrinks: the readers load them the other way round */
	rig_store(&g->valid_pages, size / RIG_PAGE);
	rig_add(&g->shrinks, 1);
	if (rig_lies("eof"))
		return;
	if (ftruncate(g->fd, size))
		rig_broken("ftruncate: %s", strerror(errno));
}

static void extend(struct mutator *m, off_t size)
{
	struct group *g = m->group;

	if (rig_lies("sigbus"))
		rig_store(&g->valid_pages, plan.pages);
	if (ftruncate(g->fd, size))
		rig_broken("ftruncate: %s", strerror(errno));
	rig_store(&g->valid_pages, size / RIG_PAGE);
}

static void change_range(struct group *g, long first, long end)
{
	if (!rig_lies("stale") &&
	    fallocate(g->fd, op_modes[race->op], first * RIG_PAGE, (end - first) * RIG_PAGE))
		rig_broken("fallocate: %s", strerror(errno));
}

/* Hole punch and zero range: the pages stay where they are, and read as zeroes. */
static void round_punch(struct mutator *m, long first, long end)
{
	struct group *g = m->group;

	change_range(g, first, end);
	bury(g, first, end);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, end);
}

static void round_truncate(struct mutator *m, long first)
{
	struct group *g = m->group;

	shrink(m, first * RIG_PAGE);
	bury(g, first, plan.pages);
	look_past_eof(m, first);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, plan.pages);
}

/* The cut lies between the two stamps of page `first`: its tail dies, its head lives. */
static void round_extend(struct mutator *m, long first)
{
	struct group *g = m->group;
	const off_t full = plan.pages * RIG_PAGE;
	off_t size = first * RIG_PAGE + 64 + rig_below(&m->rng, RIG_PAGE - 128);
	unsigned int steps = rig_below(&m->rng, 3);

	shrink(m, size);
	rig_store(&g->dead[first][RIG_TAIL], g->newest);
	bury(g, first + 1, plan.pages);
	look_past_eof(m, first + 1);
	while (steps--) {
		size += rig_below(&m->rng, full - size);
		extend(m, size);
	}
	extend(m, full);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, plan.pages);
}

/* What follows the range moves down to its start, and the file gets shorter by it. */
static void round_collapse(struct mutator *m, long first, long end)
{
	struct group *g = m->group;

	/* as in shrink() */
	rig_store(&g->valid_pages, plan.pages - (end - first));
	rig_add(&g->shrinks, 1);
	change_range(g, first, end);
	bury(g, first, plan.pages);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, plan.pages);
}

/* What was at the range moves up behind it, in part out of what is mapped, and the file gets its old length again. */
static void round_insert(struct mutator *m, long first, long end)
{
	struct group *g = m->group;

	change_range(g, first, end);
	bury(g, first, plan.pages);
	if (ftruncate(g->fd, plan.pages * RIG_PAGE))
		rig_broken("ftruncate: %s", strerror(errno));
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, plan.pages);
}

static void round_direct(struct mutator *m, long first, long end)
{
	struct group *g = m->group;
	uint64_t dead = g->newest;
	long i;

	rig_store(&g->newest, dead + 1);
	stamp_buffer(m, first, end - first);
	if (!rig_pwrite_all(g->direct_fd, m->buf, (end - first) * RIG_PAGE, first * RIG_PAGE))
		rig_broken("direct write: %s", strerror(errno));
	for (i = first; i < end; i++) {
		rig_store(&g->dead[i][RIG_HEAD], dead);
		rig_store(&g->dead[i][RIG_TAIL], dead);
	}
	rig_count(C_REMOVED, end - first);
	if (plan.populate)
		posix_fadvise(g->fd, first * RIG_PAGE, (end - first) * RIG_PAGE,
			      POSIX_FADV_WILLNEED);
}

/* Until every mapper has looked at every page once without dropping any. */
static void await_acks(struct group *g, uint64_t token)
{
	uint32_t seen;
	long i, k;

	for (i = 0; i < plan.mappers; i++) {
		for (k = 0; k < plan.threads; k++) {
			for (;;) {
				seen = rig_load(&g->acks_seq);
				if (rig_load(&g->acks[i][k]) == token || rig_stopped())
					break;
				rig_wait_change(&g->acks_seq, seen);
			}
		}
	}
}

static void mutate_once(struct mutator *m, uint64_t nr)
{
	struct group *g = m->group;
	bool quiet = nr % plan.quiet == 0, early = quiet && rig_below(&m->rng, 2);
	long len = 1 + rig_below(&m->rng, rig_min(plan.chunk, plan.pages - 1));
	long first;

	/* Half of the time the most: long removals have the widest windows. */
	if (rig_below(&m->rng, 2))
		len = rig_min(plan.chunk, plan.pages - 1);
	if (race->op == OP_DIRECT)
		len = rig_min(len, PIECE_PAGES);
	first = rig_below(&m->rng, plan.pages - len);
	if (race->op == OP_TRUNCATE || race->op == OP_EXTEND)
		first = plan.pages - len - 1;

	if (early)
		rig_store(&g->quiet, ++m->token);
	rig_add(&g->seq, 1);
	switch (race->op) {
	case OP_PUNCH:
	case OP_ZERO:
		round_punch(m, first, first + len);
		break;
	case OP_COLLAPSE:
		round_collapse(m, first, first + len);
		break;
	case OP_INSERT:
		round_insert(m, first, first + len);
		break;
	case OP_TRUNCATE:
		round_truncate(m, first);
		break;
	case OP_EXTEND:
		round_extend(m, first);
		break;
	case OP_DIRECT:
		round_direct(m, first, first + len);
		break;
	}
	rig_add(&g->seq, 1);
	if (rig_load(&g->lingering))
		rig_wake(&g->seq);
	rig_count(C_ROUNDS, 1);
	if (quiet) {
		rig_store(&g->quiet, ++m->token);
		await_acks(g, m->token);
		rig_store(&g->quiet, 0);
		rig_count(C_QUIET, 1);
	}
}

static void open_pagemaps(struct mutator *m)
{
	struct group *g = m->group;
	char path[64];
	long i, k;

	for (i = 0; i < plan.mappers; i++) {
		for (k = 0; k < plan.threads; k++)
			while (!rig_load(&g->addr[i][k]) && !rig_stopped())
				sched_yield();
		snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid[i]);
		m->pagemap[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
}

static void mutator_main(void *arg)
{
	static struct mutator m;
	uint64_t nr;

	m.group = arg;
	m.rng = rig_rng_for(race->common.name, 1000000 + m.group->nr);
	m.buf = mmap(NULL, PIECE_PAGES * RIG_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.buf == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	open_pagemaps(&m);
	while (rig_lies("idle") && !rig_stopped())
		rig_wait_change(&m.group->acks_seq, rig_load(&m.group->acks_seq));
	for (nr = 1; !rig_stopped(); nr++)
		mutate_once(&m, nr);
}

/* ---- cases ---- */

/* tmpfs maps huge pages past the end of the file on purpose: no oracle there. */
static bool huge_tmpfs(void)
{
	const char *policy = rig_tmpfs_huge();

	return rig_statfs().f_type == TMPFS_MAGIC && (!policy || strcmp(policy, "never"));
}

/* Returns why the file system cannot do it, or NULL. */
static const char *unsupported(const void *c)
{
	const struct race *r = c;
	struct statfs fs;
	const char *why = NULL;
	int fd;

	if (statfs(rig_dir, &fs))
		return "statfs failed";
	if (r->op == OP_DIRECT && fs.f_type != EXT4_SUPER_MAGIC && fs.f_type != XFS_SUPER_MAGIC)
		return "direct writes are only judged on ext4 and xfs";
	if (r->op == OP_DIRECT)
		return rig_no_direct();
	fd = rig_open_file("probe", 0, NULL);
	/* three pages: a range at the end of the file cannot be collapsed */
	if (op_modes[r->op] && (ftruncate(fd, 3 * RIG_PAGE) ||
				fallocate(fd, op_modes[r->op], RIG_PAGE, RIG_PAGE)))
		why = "this mode of fallocate is refused";
	close(fd);
	return why;
}

/*
 * The sharpest plan known: small files, removed whole. A mapper that was
 * interrupted in its window is only seen if its page is removed before it goes
 * on, and the rounds are as fast as the file is short. Measured on emulated
 * CPUs: 22 of 22 runs with up to 64 pages saw a bad kernel within 2.2 s, 1 of 6
 * with more pages.
 */
static void sharpen(struct plan *p)
{
	p->pages = rig_min(p->pages, 64);
	p->stride = 16;
	p->chunk = MAX_PAGES;
	p->fill = 64;
	p->linger = 0;
	p->quiet = 512;
	p->remap = 0;
	p->populate = 0;
	p->fault_around = 65536;
}

/*
 * Every other episode is sharp, those between go wide. Always draws everything
 * in the same order: what is given on the command line shifts nothing else.
 */
static void draw_plan(unsigned int episode)
{
	static const long processes[] = { 1, 1, 2, 2, 3 };
	static const long threads[] = { 1, 1, 2, 3, 4 };
	static const long pages[] = { 32, 32, 48, 64, 64, 64, 96, 256 };
	static const long strides[] = { 1, 4, 16, 16, 16, 16 };
	static const long chunks[] = { 32, 64, 2048, 2048 };
	static const long fills[] = { 1, 1, 4, 16, 64, 512 };
	static const long lingers[] = { 0, 0, 0, 10, 50 };
	static const long quiets[] = { 32, 128, 512 };
	static const long nices[] = { 0, 5, 10 };
	static const long arounds[] = { 16384, 65536, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.groups = rig_max(1, rig_min(cpus / 5, MAX_GROUPS));
	/* no more than there are CPUs, or the mutator is starved and nothing happens at all */
	p.mappers = rig_min(rig_pick(&rng, processes), cpus);
	p.threads = rig_min(rig_pick(&rng, threads), rig_max(1, cpus / p.mappers));
	p.pages = rig_pick(&rng, pages);
	p.align = rig_below(&rng, 17);
	p.stride = rig_pick(&rng, strides);
	p.chunk = rig_pick(&rng, chunks);
	p.fill = rig_pick(&rng, fills);
	p.linger = rig_pick(&rng, lingers);
	p.quiet = rig_pick(&rng, quiets);
	p.nice = rig_pick(&rng, nices);
	p.remap = !rig_below(&rng, 8);
	/* a race of its own in direct writes, the poorer way to fault elsewhere */
	p.populate = !rig_below(&rng, race->op == OP_DIRECT ? 2 : 8);
	p.fault_around = rig_pick(&rng, arounds);

	if (episode % 2)
		sharpen(&p);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
}

/* One line: a case has many episodes. The names are those of the options. */
/* Every page of every file exists and is on the disk before the readers come. */
static void make_files(unsigned int episode)
{
	static struct mutator m;
	long i;

	if (!m.buf)
		m.buf = mmap(NULL, PIECE_PAGES * RIG_PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.buf == MAP_FAILED)
		rig_bail("mmap: %s", strerror(errno));
	memset(groups, 0, MAX_GROUPS * sizeof(*groups));
	for (i = 0; i < plan.groups; i++) {
		struct group *g = &groups[i];

		g->nr = i;
		g->newest = 1;
		g->direct_fd = -1;
		g->fd = rig_open_file("race", episode * MAX_GROUPS + i, race->op == OP_DIRECT ? &g->direct_fd : NULL);
		m.group = g;
		fill(&m, 0, plan.pages);
		if (race->op == OP_DIRECT)
			fsync(g->fd);
	}
	rig_bail_if_broken();
}

static void close_files(void)
{
	long i;

	for (i = 0; i < plan.groups; i++) {
		close(groups[i].fd);
		if (groups[i].direct_fd >= 0)
			close(groups[i].direct_fd);
	}
}

static void run_episode(unsigned int episode, int64_t ns)
{
	long i, k;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_need_space(2ull * plan.groups * plan.pages * RIG_PAGE);
	eof_oracle = !huge_tmpfs();
	rig_case_again();
	make_files(episode);
	rig_fault_around(plan.fault_around);
	for (i = 0; i < plan.groups; i++) {
		for (k = 0; k < plan.mappers; k++) {
			mappers[i][k] = (struct mapper){ &groups[i], k };
			rig_spawn(mapper_main, &mappers[i][k]);
		}
	}
	for (i = 0; i < plan.groups; i++)
		rig_spawn(mutator_main, &groups[i]);
	rig_case_run(ns);
	close_files();
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	/* What a slow emulated machine manages and still sees a race in. */
	const struct rig_gate gates[] = {
		{ C_ROUNDS, rig_max(10, rig_min(200, 10 * ns / second)) },
		{ C_COLLISIONS, rig_max(20, rig_min(1000, 100 * ns / second)) },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
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
	.fault_around = true,
	.unsupported = unsupported,
	.run = run_race,
};

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	groups = rig_share(MAX_GROUPS * sizeof(*groups));

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
