// SPDX-License-Identifier: GPL-2.0-only
/*
 * huge-race: huge and large folios against whatever zaps, splits, collapses,
 * pins and removes them.
 *
 * The huge pages are those of a tmpfs that the workload mounts for itself
 * (huge=always, or huge=advise where they are to be collapsed), without a name,
 * so that it is gone with the last file; those of files in --dir (large folios
 * of xfs, collapsed read-only files of ext4 and xfs); and anonymous ones of all
 * sizes that the kernel offers. Knobs are put back at the end.
 *
 * zap-*        huge pages mapped by PMDs, dropped by their readers while they
 *              are punched or truncated whole;
 * split-*      parts of huge pages are removed, and debugfs splits them;
 * pinned-*     the same while somebody holds references by vmsplice(), so that
 *              the split fails and the folio stays whole;
 * collapse-*   MADV_COLLAPSE and khugepaged against faults and removal; in
 *              collapse-file the file is read-only while it is collapsed, and
 *              each opening for write throws the huge pages out again;
 * collapse-pin MADV_COLLAPSE against pins of its pages that last until it is
 *              over: vmsplice(), whose page must then be the mapped one still,
 *              and process_vm_writev() from memory that userfaultfd withholds
 *              until the end, whose data must then be in the mapped page;
 * large-*      large folios of xfs, removed in parts or by direct writes;
 * *-cow, mthp-anon  private memory over huge and large folios, with forks,
 *              MADV_DONTNEED of parts, splits and collapses.
 *
 * Legal outcomes where a mutator removes pages (all but the last group): those
 * of truncate-race, and zeroes in the part of a folio that is past the end of
 * the file: on tmpfs a huge page may be mapped across it. So what is removed
 * reads as zeroes or not at all, whether the folio could be split or not. PTEs
 * past the end of the file are a failure, except on tmpfs.
 * In private memory each page has one owner, and is what it wrote last, or the
 * backing when it wrote nothing since it dropped the page; a child has what its
 * parent had. A page that somebody has a reference to is not replaced.
 *
 * PASS means: enough rounds, huge pages were really there, and nothing else was
 * seen. What it cannot see: folios that are leaked or counted wrong (see the
 * console), pins of other kinds than FOLL_PIN and FOLL_GET, swap.
 */
#include "rig.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>

#define HUGE_PAGES	512
#define HUGE_SIZE	(HUGE_PAGES * RIG_PAGE)
#define MAX_PAGES	(4 * HUGE_PAGES)
#define MAX_GROUPS	8
#define MAX_MAPPERS	8
#define LOOK_PAGES	512	/* most that one look into a pagemap covers */
#define MAX_ALIASES	64
#define PIN_PAGES	4	/* most that a window of collapse-pin has */

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define SPLIT_FILE	"/sys/kernel/debug/split_huge_pages"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

enum kind { REMOVE, OWN, PIN };
enum backing { HUGE_TMPFS, SMALL_TMPFS, LARGE_FILE, RO_FILE, ANON };
enum op { OP_PUNCH, OP_TRUNCATE, OP_DIRECT };

static const char * const op_names[] = { "hole punch", "truncate", "direct write" };

struct race {
	struct rig_case common;
	enum kind kind;
	enum backing backing;
	enum op op;
	bool parts;		/* of huge pages, not whole ones */
	bool pins;
	bool collapse;
	bool split;
};

static const struct race races[] = {
	{ { "zap-punch", 8 }, REMOVE, HUGE_TMPFS, OP_PUNCH, false, false, false, false },
	{ { "zap-truncate", 2 }, REMOVE, HUGE_TMPFS, OP_TRUNCATE, false, false, false, false },
	{ { "split-punch", 2 }, REMOVE, HUGE_TMPFS, OP_PUNCH, true, false, false, true },
	{ { "split-truncate", 2 }, REMOVE, HUGE_TMPFS, OP_TRUNCATE, true, false, false, true },
	{ { "pinned-punch", 1 }, REMOVE, HUGE_TMPFS, OP_PUNCH, true, true, false, false },
	{ { "pinned-truncate", 1 }, REMOVE, HUGE_TMPFS, OP_TRUNCATE, true, true, false, false },
	{ { "collapse-punch", 2 }, REMOVE, SMALL_TMPFS, OP_PUNCH, true, false, true, false },
	{ { "collapse-truncate", 1 }, REMOVE, SMALL_TMPFS, OP_TRUNCATE, true, false, true, true },
	{ { "collapse-file", 2 }, REMOVE, RO_FILE, OP_PUNCH, true, false, true, false },
	{ { "collapse-pin", 3 }, PIN, SMALL_TMPFS, OP_PUNCH, false, true, true, false },
	{ { "large-punch", 2 }, REMOVE, LARGE_FILE, OP_PUNCH, true, false, false, false },
	{ { "large-truncate", 2 }, REMOVE, LARGE_FILE, OP_TRUNCATE, true, true, false, true },
	{ { "large-direct", 4 }, REMOVE, LARGE_FILE, OP_DIRECT, true, false, false, false },
	{ { "large-cow", 3 }, OWN, LARGE_FILE, OP_PUNCH, true, false, false, true },
	{ { "huge-cow", 2 }, OWN, HUGE_TMPFS, OP_PUNCH, true, false, false, true },
	{ { "mthp-anon", 3 }, OWN, ANON, OP_PUNCH, true, false, true, true },
};

enum counter {
	C_ROUNDS, C_REMOVED, C_COLLISIONS, C_READS, C_WRITES, C_DROPS, C_SIGBUS, C_ZERO, C_TORN,
	C_FORKS, C_PINS, C_COLLAPSES, C_SPLITS, C_LOOKS, C_HUGE, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"rounds", "pages_removed", "collisions", "reads", "writes", "drops", "sigbus", "zero",
	"torn", "forks", "pins", "collapses", "split_calls", "pagemap_entries", "huge_pages",
};

struct plan {
	long groups;
	long mappers;
	long pages;
	long grain;		/* one page in so many has a stamp */
	long chunk;
	long fill;
	long drop;
	long sweep;
	long shared;
	long polite;
	long sizes;
	long aliases;
	long fault_around;
};

static long plan_ms = 500;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "groups", "files, each with a mutator and mappers of its own", &given.groups,
	  1, MAX_GROUPS },
	{ "mappers", "processes that map each file", &given.mappers, 1, MAX_MAPPERS },
	{ "pages", "length of each file", &given.pages, 64, MAX_PAGES },
	{ "grain", "one page in so many is written and read", &given.grain, 1, 512 },
	{ "chunk", "most pages that one operation removes", &given.chunk, 1, MAX_PAGES },
	{ "fill", "pages in one write", &given.fill, 1, HUGE_PAGES },
	{ "drop", "percent of looks before which the mapping is dropped", &given.drop, 0, 100 },
	{ "sweep", "percent of looks at all pages", &given.sweep, 0, 100 },
	{ "shared", "0: readers map the file privately", &given.shared, 0, 1 },
	{ "polite", "1: readers stay out of holes, and the mutator gives them some time",
	  &given.polite, 0, 1 },
	{ "sizes", "bit n: anonymous folios of order n", &given.sizes, 0, 1023 },
	{ "aliases", "further mappings of a window of collapse-pin", &given.aliases,
	  0, MAX_ALIASES },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "huge-race",
	.about = "huge-race: huge and large folios against zap, split, collapse, pins and removal.\n"
		 "Stale or lost data fails; SIGBUS past the end of the file is legal.",
	.cases = "{zap,split,pinned,collapse,large}-{punch,truncate} large-direct collapse-file\n"
		 "       collapse-pin large-cow huge-cow mthp-anon",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* One file, its mutator and its mappers; lives in shared memory. */
struct group {
	uint32_t seq;		/* odd while the file is in flux */
	uint64_t newest;	/* youngest generation that anyone began to write */
	uint64_t shrinks;	/* raised before the file gets shorter */
	uint64_t valid_pages;	/* the file is at least this long */
	uint64_t addr[MAX_MAPPERS];
	int pid[MAX_MAPPERS];
	int fd;
	int direct_fd;
	unsigned int nr;
	uint64_t dead[MAX_PAGES][RIG_ENDS];
};

struct mapper {
	struct group *group;
	unsigned int nr;
	char *base;
	bool shared;
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

static const struct race *race;
static struct plan plan;
static struct group *groups;
static struct mapper mappers[MAX_GROUPS][MAX_MAPPERS];
static int huge_dir = -1, small_dir = -1;	/* roots of the mounts */
static const char *no_mount;

/* Titles are the same in every run; built once per case, before the workers exist. */
struct titles {
	char stale[96], wrong[96], future[96], zero[96], torn[96], bus[96], eof[96];
};

static struct titles titles[2];
static char title_lost[96], title_other[96], title_own_wrong[96], title_own_bus[96];
static char title_pin[96];

static void make_titles(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		const char *op = op_names[race->op], *kind = i ? "shared" : "private";

#define TITLE(buf, what) \
	snprintf(titles[i].buf, sizeof(titles[i].buf), what " after %s in a %s mapping", op, kind)
		TITLE(stale, "stale data");
		TITLE(wrong, "data of another page");
		TITLE(future, "data that was never written");
		TITLE(zero, "zeroes instead of data");
		TITLE(torn, "corrupt data");
		TITLE(bus, "SIGBUS below the end of the file");
		TITLE(eof, "page mapped past the end of the file");
#undef TITLE
	}
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in %s", race->common.name)
	TITLE(title_lost, "written data lost");
	TITLE(title_other, "data that does not belong there");
	TITLE(title_own_wrong, "data of another page");
	TITLE(title_own_bus, "unexpected SIGBUS");
	TITLE(title_pin, "stale data through a pin");
#undef TITLE
}

static bool on_tmpfs(void)
{
	return race->backing == HUGE_TMPFS || race->backing == SMALL_TMPFS;
}

/* ---- mappings: aligned as the file is, or nothing huge is ever mapped ---- */

static char *map_at(char *room, size_t len, int prot, int flags, int fd)
{
	char *p = MAP_FAILED;

	if (!room)
		return NULL;
	if (race->backing == RO_FILE)	/* khugepaged wants program text; a mount may forbid that */
		p = mmap(room, len, prot | PROT_EXEC, flags | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED)
		p = mmap(room, len, prot, flags | MAP_FIXED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static char *map_file(const struct group *g, int prot, bool shared)
{
	size_t len = plan.pages * RIG_PAGE;
	char *p = map_at(rig_room(len), len, prot, shared ? MAP_SHARED : MAP_PRIVATE, g->fd);

	if (!p)
		rig_broken("mmap: %s", strerror(errno));
	return p;
}

/* ---- readers of files that a mutator changes ---- */

static void judge_page(struct mapper *m, uint64_t index, const struct rig_stamp *seen,
		       const uint64_t *dead, bool stable)
{
	const struct titles *t = &titles[m->shared];
	struct group *g = m->group;
	uint64_t newest = rig_load(&g->newest);
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], index, end, dead[end], newest)) {
		case RIG_LIVE:
			break;
		case RIG_ZERO:
			m->counts[C_ZERO]++;
			if (stable)
				title = t->zero;
			break;
		case RIG_TORN:
			m->counts[C_TORN]++;
			if (stable)
				title = t->torn;
			break;
		case RIG_STALE:
			title = t->stale;
			break;
		case RIG_WRONG_PAGE:
			title = t->wrong;
			break;
		case RIG_FUTURE:
			title = t->future;
			break;
		}
		if (title)
			rig_found(title, "file %u page %" PRIu64 " %s: stamp generation %" PRIu64
				  " where %#" PRIx64 ", dead %" PRIu64 ", newest %" PRIu64
				  ", mapper %u",
				  g->nr, index, end == RIG_HEAD ? "head" : "tail",
				  seen[end].generation, seen[end].where, dead[end], newest, m->nr);
	}
}

static void check_page(struct mapper *m, uint64_t index)
{
	struct group *g = m->group;
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
	m->counts[C_READS]++;
	if (!rig_look(m->base + index * RIG_PAGE, seen)) {
		m->counts[C_SIGBUS]++;
		if (index < valid && rig_load(&g->shrinks) == shrinks)
			rig_found(titles[m->shared].bus, "file %u page %" PRIu64
				  ", at least %" PRIu64 " pages long", g->nr, index, valid);
		return;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	stable = !(seq & 1) && rig_load(&g->seq) == seq;
	m->counts[C_COLLISIONS] += !stable;
	judge_page(m, index, seen, dead, stable);
}

static void drop(struct mapper *m)
{
	long first = 0, len = plan.pages;

	if (race->parts && rig_below(&m->rng, 2)) {
		first = rig_below(&m->rng, plan.pages);
		len = 1 + rig_below(&m->rng, plan.pages - first);
	}
	if (madvise(m->base + first * RIG_PAGE, len * RIG_PAGE, MADV_DONTNEED))
		rig_broken("madvise: %s", strerror(errno));
	m->counts[C_DROPS]++;
}

static void reader_main(void *arg)
{
	const long stamps = (plan.pages + plan.grain - 1) / plan.grain;
	struct mapper *m = arg;
	long i;

	rig_catch_bus();
	m->rng = rig_rng_for(race->common.name, 1000 * m->group->nr + m->nr);
	m->shared = plan.shared;
	m->base = map_file(m->group, PROT_READ, m->shared);
	if (!m->base)
		return;
	m->group->pid[m->nr] = getpid();
	rig_store(&m->group->addr[m->nr], (uint64_t)m->base);
	while (!rig_stopped()) {
		uint32_t seq = rig_load(&m->group->seq);

		if (plan.polite && (seq & 1))
			rig_wait_change(&m->group->seq, seq);
		if ((long)rig_below(&m->rng, 100) < plan.sweep)
			for (i = 0; i < plan.pages; i += plan.grain)
				check_page(m, i);
		else
			check_page(m, rig_below(&m->rng, stamps) * plan.grain);
		if ((long)rig_below(&m->rng, 100) < plan.drop)
			drop(m);
		rig_flush_counts(m->counts, NR_COUNTERS);
	}
}

/* ---- those who meddle ---- */

/* Holds references to single pages over a round of the mutator: a split has to fail. */
static void pinner_main(void *arg)
{
	struct group *g = arg;
	struct rig_rng rng = rig_rng_for(race->common.name, 3000000 + g->nr);
	char *base = map_file(g, PROT_READ, true), rest[RIG_PAGE];
	int pipefd[2];

	if (!base || pipe2(pipefd, O_CLOEXEC | O_NONBLOCK)) {
		rig_broken("pipe: %s", strerror(errno));
		return;
	}
	while (!rig_stopped()) {
		uint32_t seq = rig_load(&g->seq);
		struct iovec iov = {
			base + rig_below(&rng, plan.pages) * RIG_PAGE, RIG_PAGE
		};

		if (vmsplice(pipefd[1], &iov, 1, 0) <= 0) {
			/* past the end of the file, for now */
			rig_wait_change(&g->seq, seq);
			continue;
		}
		rig_count(C_PINS, 1);
		rig_wait_change(&g->seq, seq);
		if (seq & 1)	/* the next one as well, for this one has begun without us */
			rig_wait_change(&g->seq, seq + 1);
		while (read(pipefd[0], rest, sizeof(rest)) > 0)
			;
		if (rig_below(&rng, 2))	/* or the mutator would never see a split succeed */
			rig_wait_change(&g->seq, rig_load(&g->seq));
	}
}

static void collapser_main(void *arg)
{
	struct group *g = arg;
	struct rig_rng rng = rig_rng_for(race->common.name, 4000000 + g->nr);
	char *base = map_file(g, PROT_READ, true);

	rig_catch_bus();
	if (!base)
		return;
	madvise(base, plan.pages * RIG_PAGE, MADV_HUGEPAGE);	/* for khugepaged */
	while (!rig_stopped()) {
		long i = rig_below(&rng, rig_max(1, plan.pages / HUGE_PAGES)) * HUGE_PAGES;
		uint32_t seq = rig_load(&g->seq);

		if (!sigsetjmp(rig_bus_env, 0)) {
			rig_store(&rig_bus_armed, 1);
			rig_load(base + i * RIG_PAGE);
		}
		rig_store(&rig_bus_armed, 0);
		if (!madvise(base + i * RIG_PAGE, HUGE_SIZE, MADV_COLLAPSE))
			rig_count(C_COLLAPSES, 1);
		if (rig_below(&rng, 4) == 0)
			rig_wait_change(&g->seq, seq);
	}
}

/* Returns whether there is such a file, as root has it in a kernel with debugfs. */
static bool split_range(const char *base, size_t len)
{
	char text[96];

	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", (int)getpid(), (unsigned long)base,
		 (unsigned long)base + len);
	if (access(SPLIT_FILE, W_OK))
		return false;
	rig_count(C_SPLITS, rig_write_text(SPLIT_FILE, text));
	return true;
}

static void splitter_main(void *arg)
{
	struct group *g = arg;
	char *base = map_file(g, PROT_READ, true);

	while (base && !rig_stopped()) {
		uint32_t seq = rig_load(&g->seq);

		madvise(base, plan.pages * RIG_PAGE, MADV_POPULATE_READ);
		if (!split_range(base, plan.pages * RIG_PAGE))
			return;
		rig_wait_change(&g->seq, seq);
	}
}

/* ---- mutators ---- */

struct mutator {
	struct group *group;
	struct mapper look;	/* the mutator's own eyes */
	struct rig_rng rng;
	char *buf;
	int fd;			/* for writing */
	int pagemap[MAX_MAPPERS];
};

static void stamp_buffer(struct mutator *m, long first, long nr)
{
	long i;

	memset(m->buf, 0, nr * RIG_PAGE);
	for (i = 0; i < nr && !rig_lies("zero"); i++)
		if ((first + i) % plan.grain == 0)
			rig_stamp_page(m->buf + i * RIG_PAGE, m->group->newest, first + i);
}

/* Writes those of the pages [first, end) that have stamps; each write may make the file longer. */
static void fill(struct mutator *m, long first, long end)
{
	struct group *g = m->group;
	long n;

	first = (first + plan.grain - 1) / plan.grain * plan.grain;
	for (; first < end && !rig_load(&rig_shared->broken); first += rig_max(n, plan.grain)) {
		n = plan.grain > 8 ? 1 : rig_min(plan.fill, end - first);
		stamp_buffer(m, first, n);
		if (!rig_pwrite_all(m->fd, m->buf, n * RIG_PAGE, first * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
		if (plan.grain <= 8 && n % plan.grain)
			n += plan.grain - n % plan.grain;
	}
	if (rig_load(&g->valid_pages) < (uint64_t)rig_min(end, first))
		rig_store(&g->valid_pages, rig_min(end, first));
}

/* The removal of [first, end) has returned: from here on its data is dead. */
static void bury(struct group *g, long first, long end)
{
	long i;

	for (i = first; i < end; i++) {
		rig_store(&g->dead[i][RIG_HEAD], g->newest);
		rig_store(&g->dead[i][RIG_TAIL], g->newest);
	}
	rig_count(C_REMOVED, end - first);
}

/* What was removed is not there any more, whether its folio could be split or not. */
static void look_back(struct mutator *m, long first, long end)
{
	long i, nr = 0;

	if (rig_below(&m->rng, 2))
		madvise(m->look.base, plan.pages * RIG_PAGE, MADV_DONTNEED);
	first = (first + plan.grain - 1) / plan.grain * plan.grain;
	for (i = first; i < end && nr < 16; i += plan.grain, nr++)
		check_page(&m->look, i);
	if (i < end)
		check_page(&m->look, i + (end - 1 - i) / plan.grain * plan.grain);
	rig_flush_counts(m->look.counts, NR_COUNTERS);
}

/* Nothing maps pages past the end between truncate's return and the extension; tmpfs may. */
static void look_past_eof(struct mutator *m, long first)
{
	static uint64_t entries[LOOK_PAGES];
	struct group *g = m->group;
	long i, k, n = rig_min(plan.pages - first, LOOK_PAGES);
	ssize_t got;

	if (on_tmpfs() || n <= 0)
		return;
	/* fault-around from the last page that there is must not go further */
	madvise(m->look.base, plan.pages * RIG_PAGE, MADV_DONTNEED);
	if (first > 0)
		check_page(&m->look, first - 1);
	for (k = 0; k < n; k++)
		if (rig_pagemap(m->look.base + (first + k) * RIG_PAGE) & RIG_PAGEMAP_PRESENT)
			rig_found(titles[1].eof, "file %u page %ld, right after truncate", g->nr,
				  first + k);
	for (i = 0; i < plan.mappers; i++) {
		got = m->pagemap[i] < 0 ? -1 :
			pread(m->pagemap[i], entries, n * 8, (g->addr[i] / RIG_PAGE + first) * 8);
		if (got < 0)
			continue;	/* the mapper has ended */
		rig_count(C_LOOKS, got / 8);
		for (k = 0; k < got / 8; k++)
			if (entries[k] & RIG_PAGEMAP_PRESENT)
				rig_found(titles[plan.shared].eof,
					  "file %u page %ld, pagemap %#" PRIx64 ", mapper %ld",
					  g->nr, first + k, entries[k], i);
	}
}

static void round_punch(struct mutator *m, long first, long end)
{
	struct group *g = m->group;

	if (!rig_lies("stale") &&
	    fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * RIG_PAGE,
		      (end - first) * RIG_PAGE))
		rig_broken("fallocate: %s", strerror(errno));
	bury(g, first, end);
	look_back(m, first, end);
	rig_store(&g->newest, g->newest + 1);
	fill(m, first, end);
}

/* Where parts are removed the cut lies between the two stamps of page `first`. */
static void round_truncate(struct mutator *m, long first)
{
	struct group *g = m->group;
	const off_t full = plan.pages * RIG_PAGE;
	off_t size = first * RIG_PAGE;
	bool cut = race->parts && first % plan.grain == 0 && rig_below(&m->rng, 2);

	if (cut)
		size += 64 + rig_below(&m->rng, RIG_PAGE - 128);
	/* valid_pages before shrinks: the readers load them the other way round */
	rig_store(&g->valid_pages, first);
	rig_add(&g->shrinks, 1);
	if (!rig_lies("stale") && ftruncate(m->fd, size))
		rig_broken("ftruncate: %s", strerror(errno));
	if (cut)
		rig_store(&g->dead[first][RIG_TAIL], g->newest);
	bury(g, first + cut, plan.pages);
	look_past_eof(m, first + cut);
	if (ftruncate(m->fd, full))
		rig_broken("ftruncate: %s", strerror(errno));
	rig_store(&g->valid_pages, plan.pages);
	look_back(m, first, plan.pages);
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
	if (!rig_lies("stale") &&
	    !rig_pwrite_all(g->direct_fd, m->buf, (end - first) * RIG_PAGE, first * RIG_PAGE))
		rig_broken("direct write: %s", strerror(errno));
	for (i = first; i < end; i++) {
		rig_store(&g->dead[i][RIG_HEAD], dead);
		rig_store(&g->dead[i][RIG_TAIL], dead);
	}
	rig_count(C_REMOVED, end - first);
	/* large folios come from large writes, or from reading ahead */
	if (rig_below(&m->rng, 2))
		fill(m, first, end);
}

/* A random part of what a reader needs to map and to drop once or twice. */
static void dwell(struct mutator *m)
{
	int64_t end = rig_now() + (int64_t)rig_below(&m->rng, 1000 * 1000);

	while (rig_now() < end && !rig_stopped())
		;
}

/*
 * In a hole each of the readers makes a huge page of its own, clears it, and
 * all but one throw it away: with polite ones a round takes a fraction of that.
 */
static void mutate_once(struct mutator *m)
{
	struct group *g = m->group;
	long len = 1 + rig_below(&m->rng, rig_min(plan.chunk, plan.pages - 1)), first;
	char path[64];

	if (race->op == OP_DIRECT)
		len = rig_min(len, HUGE_PAGES);
	first = rig_below(&m->rng, plan.pages - len);
	if (race->op == OP_TRUNCATE)
		first = plan.pages - len;
	/* whole huge pages now and then in any case: they are how a file gets huge again */
	if (on_tmpfs() && (!race->parts || rig_below(&m->rng, 3) == 0)) {
		first = first / HUGE_PAGES * HUGE_PAGES;
		len = plan.pages - first;
		if (race->op != OP_TRUNCATE)
			len = rig_min(len, HUGE_PAGES);
	}
	if (race->backing == RO_FILE) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", g->fd);
		m->fd = open(path, O_RDWR | O_CLOEXEC);
		if (m->fd < 0) {
			rig_broken("open for write: %s", strerror(errno));
			return;
		}
	}
	if (plan.polite)
		dwell(m);
	rig_add(&g->seq, 1);
	switch (race->op) {
	case OP_PUNCH:
		round_punch(m, first, first + len);
		break;
	case OP_TRUNCATE:
		round_truncate(m, first);
		break;
	case OP_DIRECT:
		round_direct(m, first, first + len);
		break;
	}
	rig_add(&g->seq, 1);
	rig_wake(&g->seq);
	rig_count(C_ROUNDS, 1);
	if (race->backing == RO_FILE) {
		/* a dirty page is not collapsed; then give khugepaged and the readers some time */
		fdatasync(m->fd);
		close(m->fd);
		rig_wait_child((1 + rig_below(&m->rng, 30)) * 1000 * 1000);
	}
}

static char *make_buffer(void)
{
	char *p = mmap(NULL, HUGE_PAGES * RIG_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		rig_broken("mmap: %s", strerror(errno));
	return p;
}

static void mutator_main(void *arg)
{
	static struct mutator m;
	struct group *g = arg;
	char path[64];
	long i;

	rig_catch_bus();
	m.group = g;
	m.fd = g->fd;
	m.rng = rig_rng_for(race->common.name, 1000000 + g->nr);
	m.buf = make_buffer();
	m.look = (struct mapper){ .group = g, .nr = MAX_MAPPERS, .shared = true };
	m.look.base = map_file(g, PROT_READ, true);
	for (i = 0; i < plan.mappers; i++) {
		while (!rig_load(&g->addr[i]) && !rig_stopped())
			sched_yield();
		snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid[i]);
		m.pagemap[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	while (!rig_stopped()) {
		if (rig_lies("idle"))
			rig_wait_change(&g->seq, rig_load(&g->seq));
		else
			mutate_once(&m);
	}
}

/* ---- owners of private memory ---- */

struct owner {
	struct group *group;	/* of the file below, NULL for anonymous memory */
	unsigned int nr;
	char *base;
	struct rig_rng rng;
	uint64_t generation;
	uint64_t counts[NR_COUNTERS];
	uint64_t expected[MAX_PAGES];	/* generation, 0 = the backing */
};

static void own_check(struct owner *o, long page)
{
	struct rig_stamp seen[RIG_ENDS];
	uint64_t want = o->expected[page];
	const char *title;
	unsigned int end;

	if (!want && o->group)
		want = 1;	/* what the file has */
	o->counts[C_READS]++;
	if (!rig_look(o->base + page * RIG_PAGE, seen)) {
		o->counts[C_SIGBUS]++;
		rig_found(title_own_bus, "process %u page %ld", o->nr, page);
		return;
	}
	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], page, end, 0, UINT64_MAX)) {
		case RIG_ZERO:
			title = want ? title_lost : NULL;
			break;
		case RIG_WRONG_PAGE:
			title = title_own_wrong;
			break;
		case RIG_TORN:
			title = want ? title_lost : title_other;
			break;
		default:
			if (seen[end].generation != want)
				title = o->expected[page] ? title_lost : title_other;
			break;
		}
		if (title)
			rig_found(title, "process %u page %ld %s: generation %" PRIu64 " where %#"
				  PRIx64 " instead of %" PRIu64, o->nr, page,
				  end == RIG_HEAD ? "head" : "tail", seen[end].generation,
				  seen[end].where, want);
	}
}

static void own_write(struct owner *o, long first, long len)
{
	long i;

	for (i = first; i < first + len; i++) {
		o->expected[i] = ++o->generation;
		if (rig_lies("lost") && !rig_below(&o->rng, 50))
			continue;
		rig_stamp_page(o->base + i * RIG_PAGE, o->generation, i);
		o->counts[C_WRITES]++;
	}
}

static void own_drop(struct owner *o, long first, long len)
{
	if (madvise(o->base + first * RIG_PAGE, len * RIG_PAGE, MADV_DONTNEED))
		rig_broken("madvise: %s", strerror(errno));
	memset(&o->expected[first], 0, len * sizeof(o->expected[0]));
	o->counts[C_DROPS]++;
}

/* Few pages mostly, so that populated PTEs lie among empty ones. */
static void own_range(struct owner *o, long *first, long *len)
{
	static const long most[] = { 1, 1, 4, 16, 16, 64, HUGE_PAGES };

	*len = 1 + rig_below(&o->rng, rig_pick(&o->rng, most));
	*len = rig_min(*len, plan.pages);
	*first = rig_below(&o->rng, plan.pages - *len + 1);
}

static void own_some(struct owner *o, unsigned int nr)
{
	long first, len;

	while (nr-- && !rig_stopped()) {
		own_range(o, &first, &len);
		switch (rig_below(&o->rng, 8)) {
		case 0:
		case 1:
			own_write(o, first, len);
			break;
		case 2:
		case 3:
			own_drop(o, first, len);
			break;
		default:
			for (; len--; first++)
				own_check(o, first);
			break;
		}
	}
}

static void own_fork(struct owner *o)
{
	pid_t pid = fork();
	int status;
	long i;

	if (pid < 0)
		return;		/* no memory, no child */
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		o->generation += 1ull << 32;
		o->rng.state ^= 1;
		for (i = 0; i < plan.pages; i++)
			own_check(o, i);
		own_some(o, 16);
		rig_flush_counts(o->counts, NR_COUNTERS);
		_exit(0);
	}
	own_some(o, 16);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	rig_judge_exit(pid, status);
	o->counts[C_FORKS]++;
}

static void own_fold(struct owner *o)
{
	long i = rig_below(&o->rng, rig_max(1, plan.pages / HUGE_PAGES)) * HUGE_PAGES;

	if (race->split && rig_below(&o->rng, 2))
		split_range(o->base + i * RIG_PAGE, rig_min(plan.pages * RIG_PAGE, HUGE_SIZE));
	else if (race->collapse && plan.pages >= HUGE_PAGES)
		o->counts[C_COLLAPSES] += !madvise(o->base + i * RIG_PAGE, HUGE_SIZE,
						   MADV_COLLAPSE);
	else if (race->backing == LARGE_FILE)
		/* what nobody maps is read ahead anew, in other sizes */
		posix_fadvise(o->group->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void owner_main(void *arg)
{
	static struct owner o;
	struct mapper *m = arg;
	size_t len = plan.pages * RIG_PAGE;
	long i;

	rig_catch_bus();
	o.nr = m->nr;
	o.group = race->backing == ANON ? NULL : m->group;
	o.generation = 1;
	o.rng = rig_rng_for(race->common.name, 5000000 + 100 * m->group->nr + m->nr);
	o.base = map_at(rig_room(len), len, PROT_READ | PROT_WRITE,
			o.group ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS,
			o.group ? o.group->fd : -1);
	if (!o.base) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	if (rig_below(&o.rng, 2))
		madvise(o.base, len, MADV_HUGEPAGE);
	while (!rig_stopped()) {
		own_some(&o, 64);
		if (rig_below(&o.rng, 4) == 0)
			own_fork(&o);
		if (rig_below(&o.rng, 4) == 0)
			own_fold(&o);
		if ((long)rig_below(&o.rng, 100) < plan.sweep)
			for (i = 0; i < plan.pages; i++)
				own_check(&o, i);
		o.counts[C_ROUNDS]++;
		rig_flush_counts(o.counts, NR_COUNTERS);
	}
}

/* ---- pins against collapse ---- */

/*
 * A window of 2 MiB in which few pages exist. The collapser folds it; the
 * pinner waits until the first alias of the page has lost its PTE, or a random
 * time, and then pins the page through the last mapping that the kernel comes
 * to. Aliases make that walk long.
 */
struct window {
	struct group *group;
	struct rig_rng rng;
	char *aliases[MAX_ALIASES];
	char *base;
	char *source;		/* one page, withheld by userfaultfd */
	char *copy;		/* what will be in it */
	int uffd;		/* -1: there is none, and vmsplice() alone */
	int pipefd[2];
	uint32_t go;		/* raised for each attempt */
	uint32_t done;
	bool splice;		/* this time */
	long page;
	long delay_ns;		/* -1: watch the alias */
	ssize_t pinned;		/* bytes */
};

static void *pin_main(void *arg)
{
	struct window *w = arg;
	uint32_t seen = 0;

	while (!rig_stopped()) {
		struct iovec from = { w->source, RIG_PAGE };
		struct iovec page;
		int64_t end;

		rig_wait_change(&w->go, seen);
		if (rig_load(&w->go) == seen)
			continue;
		seen = rig_load(&w->go);
		page = (struct iovec){ w->base + w->page * RIG_PAGE, RIG_PAGE };
		end = rig_now() + (w->delay_ns < 0 ? 20 * 1000 * 1000 : w->delay_ns);
		while (rig_now() < end && !rig_stopped())
			if (w->delay_ns < 0 && !(rig_pagemap(w->aliases[0] + w->page * RIG_PAGE) &
						 RIG_PAGEMAP_PRESENT))
				break;
		if (w->splice)
			w->pinned = vmsplice(w->pipefd[1], &page, 1, 0);
		else
			w->pinned = syscall(SYS_process_vm_writev, getpid(), &from, 1ul, &page,
					    1ul, 0ul);
		rig_store(&w->done, seen);
	}
	return NULL;
}

static int open_uffd(char *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)page, RIG_PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The collapse is over: whoever waits for the source gets it. Waits until the pinner is done. */
static void await_pin(struct window *w, uint32_t attempt)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)w->source, .src = (uintptr_t)w->copy, .len = RIG_PAGE,
	};

	if (!w->splice && ioctl(w->uffd, UFFDIO_COPY, &copy) && errno != EEXIST)
		rig_broken("UFFDIO_COPY: %s", strerror(errno));
	while (rig_load(&w->done) != attempt && !rig_stopped())
		sched_yield();
}

static bool is_newest(struct window *w, char *page)
{
	uint64_t newest = w->group->newest;
	struct rig_stamp seen[RIG_ENDS];
	unsigned int i;

	if (!rig_look(page, seen))
		return false;
	for (i = 0; i < RIG_ENDS; i++)
		if (rig_judge(&seen[i], w->page, i, newest - 1, newest) != RIG_LIVE)
			return false;
	return true;
}

static void judge_pin(struct window *w)
{
	char *page = w->base + w->page * RIG_PAGE;
	char through[RIG_PAGE];

	if (w->splice) {
		/* written through the mapping, read through the pin */
		rig_stamp_page(page, w->group->newest, w->page);
		if (read(w->pipefd[0], through, sizeof(through)) != (ssize_t)sizeof(through))
			rig_broken("pipe: %s", strerror(errno));
		if (rig_lies("pin"))
			memset(through, 0, sizeof(through));
		if (!is_newest(w, through))
			rig_found(title_pin, "page %ld: not what was written, generation %" PRIu64,
				  w->page, w->group->newest);
	}
	/* else written through the pin, and in any case read through the mapping */
	if (rig_lies("lost"))
		memset(page, 0, RIG_PAGE);
	if (!is_newest(w, page))
		rig_found(title_lost, "page %ld: not what was written, generation %" PRIu64 "%s",
			  w->page, w->group->newest,
			  w->splice ? "" : ", by process_vm_writev()");
}

static void pin_once(struct window *w, int64_t *took)
{
	long i, pages[PIN_PAGES], nr = 1 + rig_below(&w->rng, PIN_PAGES);
	struct group *g = w->group;
	char buf[RIG_PAGE];
	uint32_t attempt;
	int64_t start;

	for (i = 0; i < nr; i++) {
		pages[i] = rig_below(&w->rng, HUGE_PAGES);
		memset(buf, 0, sizeof(buf));
		rig_stamp_page(buf, ++g->newest, pages[i]);
		if (!rig_pwrite_all(g->fd, buf, sizeof(buf), pages[i] * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
	}
	w->page = pages[rig_below(&w->rng, nr)];
	for (i = 0; i < plan.aliases; i++)
		rig_load(w->aliases[i] + w->page * RIG_PAGE);
	rig_add((uint64_t *)(w->base + w->page * RIG_PAGE + RIG_PAGE / 2), 0);
	w->splice = w->uffd < 0 || rig_below(&w->rng, 2);
	if (!w->splice)
		madvise(w->source, RIG_PAGE, MADV_DONTNEED);
	rig_stamp_page(w->copy, ++g->newest, w->page);
	w->delay_ns = plan.aliases && rig_below(&w->rng, 4) ? -1 : (long)rig_below(&w->rng, *took);
	attempt = rig_add(&w->go, 1) + 1;
	rig_wake(&w->go);

	start = rig_now();
	if (!madvise(w->base, HUGE_SIZE, MADV_COLLAPSE)) {
		rig_count(C_COLLAPSES, 1);
		*took = rig_now() - start;
	}
	await_pin(w, attempt);
	if (rig_load(&w->done) != attempt)
		return;		/* the end of the case */
	rig_count(C_ROUNDS, 1);
	if (w->pinned == (ssize_t)RIG_PAGE) {
		rig_count(C_PINS, 1);
		judge_pin(w);
	}
	if (fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE_SIZE))
		rig_broken("fallocate: %s", strerror(errno));
}

static bool can_write_remote(void)
{
	char from = 1, to = 0;
	struct iovec a = { &from, 1 }, b = { &to, 1 };

	return syscall(SYS_process_vm_writev, getpid(), &a, 1ul, &b, 1ul, 0ul) == 1;
}

static void window_main(void *arg)
{
	static struct window w;
	int64_t took = 1000 * 1000;
	pthread_t pinner;
	long i;

	rig_catch_bus();
	w.group = arg;
	w.rng = rig_rng_for(race->common.name, 6000000 + w.group->nr);
	/* the kernel unmaps the mappings of a range in the order in which they were made */
	for (i = 0; i < plan.aliases; i++)
		w.aliases[i] = map_file(w.group, PROT_READ, true);
	w.base = map_file(w.group, PROT_READ | PROT_WRITE, true);
	w.source = mmap(NULL, RIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w.copy = mmap(NULL, RIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w.source == MAP_FAILED || w.copy == MAP_FAILED || rig_load(&rig_shared->broken))
		return rig_broken("mmap: %s", strerror(errno));
	if (pipe2(w.pipefd, O_CLOEXEC | O_NONBLOCK))
		return rig_broken("pipe: %s", strerror(errno));
	w.uffd = can_write_remote() ? open_uffd(w.source) : -1;
	if (pthread_create(&pinner, NULL, pin_main, &w))
		return rig_broken("pthread_create failed");
	while (!rig_stopped())
		pin_once(&w, &took);
	if (w.uffd >= 0)
		close(w.uffd);	/* whoever waits for the source gets zeroes */
	pthread_join(pinner, NULL);
}

/* ---- knobs ---- */

/* Anonymous folios of the orders in mask, or with 0 what the machine has. */
static void turn_sizes(long mask)
{
	char path[300];
	struct dirent *d;
	DIR *dir = opendir(THP);
	long kib;

	while (dir && (d = readdir(dir)) != NULL) {
		if (sscanf(d->d_name, "hugepages-%ldkB", &kib) != 1)
			continue;
		snprintf(path, sizeof(path), THP "%s/enabled", d->d_name);
		if (mask)
			rig_turn(path, mask >> __builtin_ctzl(kib / 4) & 1 ? "always" : "never");
	}
	if (dir)
		closedir(dir);
}

static void turn_khugepaged(void)
{
	rig_turn(THP "khugepaged/scan_sleep_millisecs", "10");
	rig_turn(THP "khugepaged/alloc_sleep_millisecs", "10");
	rig_turn(THP "khugepaged/pages_to_scan", "8192");
}

/*
 * A tmpfs of our own. It is detached at once, so nobody sees it and nothing
 * has to be unmounted: it goes when the last file in it is closed.
 */
static int mount_tmpfs(const char *huge)
{
	char path[4096];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/rig-huge-%d", rig_dir, (int)getpid());
	if (mkdir(path, 0700))
		return -1;
	if (!mount("rig-huge", path, "tmpfs", 0, huge)) {
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		umount2(path, MNT_DETACH);
	}
	rmdir(path);
	return fd;
}

static void make_mounts(void)
{
	huge_dir = mount_tmpfs("huge=always");
	if (huge_dir < 0)
		no_mount = "a tmpfs with huge pages cannot be mounted";
	small_dir = mount_tmpfs("huge=advise");
	if (small_dir < 0)
		no_mount = "a tmpfs with huge pages cannot be mounted";
}

/* Returns why it cannot be done here, or NULL. */
static const char *unsupported(const void *c)
{
	const struct race *r = c;
	struct statfs fs;

	if (statfs(rig_dir, &fs))
		return "statfs failed";
	if (access(THP "enabled", R_OK))
		return "no transparent huge pages in this kernel";
	if (r->backing == LARGE_FILE && fs.f_type != XFS_SUPER_MAGIC)
		return "large folios are only known of xfs";
	if (r->backing == RO_FILE && fs.f_type != EXT4_SUPER_MAGIC && fs.f_type != XFS_SUPER_MAGIC)
		return "files are only collapsed on ext4 and xfs";
	if ((r->backing == HUGE_TMPFS || r->backing == SMALL_TMPFS) && no_mount)
		return no_mount;
	return NULL;
}

/* ---- cases ---- */

/* Draws everything, always in the same order: what is given shifts nothing else. */
static void draw_plan(unsigned int episode)
{
	static const long processes[] = { 1, 2, 3, 3, 4 };
	static const long huges[] = { 1, 1, 1, 2, 4 };
	static const long grains[] = { 1, 16, 64, 512 };
	static const long larges[] = { 64, 128, 256, 512, 1024 };
	static const long chunks[] = { 16, 128, 511, 2048 };
	static const long fills[] = { 16, 64, 256, 512 };
	static const long drops[] = { 10, 50, 90, 100 };
	static const long sweeps[] = { 0, 5, 50 };
	static const long alias[] = { 0, 32, 64, 64, 64 };
	static const long arounds[] = { 16384, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus(), mib = rig_stat("/proc/meminfo", "MemTotal") / 1024;
	struct plan p;

	/* private copies and children's copies of them: up to 64 MiB for a file of 8 MiB */
	p.groups = rig_max(1, rig_min(rig_min(cpus / 5, mib / 128), MAX_GROUPS));
	/* with all who meddle no more than there are CPUs, or the mutator is starved */
	p.mappers = rig_pick(&rng, processes);
	p.mappers = rig_min(p.mappers,
			    rig_max(1, cpus - race->pins - race->collapse - race->split));
	p.pages = rig_pick(&rng, huges) * HUGE_PAGES;
	p.grain = rig_pick(&rng, grains);
	p.fill = rig_pick(&rng, larges);
	if (race->backing == LARGE_FILE)
		p.pages = p.fill;
	p.chunk = rig_pick(&rng, chunks);
	p.fill = rig_pick(&rng, fills);
	p.drop = rig_pick(&rng, drops);
	p.sweep = rig_pick(&rng, sweeps);
	p.shared = rig_below(&rng, 2);
	p.polite = on_tmpfs() && rig_below(&rng, 2);
	p.sizes = rig_below(&rng, 1024) & ~3;
	p.aliases = rig_pick(&rng, alias);
	p.fault_around = rig_pick(&rng, arounds);
	if (race->kind == PIN)
		p.pages = HUGE_PAGES;
	if (race->kind == OWN || race->backing == LARGE_FILE || race->backing == RO_FILE)
		p.grain = 1;
	else if (p.pages > HUGE_PAGES)
		p.grain = rig_max(p.grain, 16);	/* or a round takes a second */
	/* the window of zap is a few instructions: short rounds, and nothing but drops */
	if (!race->parts && episode % 4) {
		p.pages = HUGE_PAGES;
		p.grain = 512;
		p.drop = 100;
		p.sweep = 0;
		p.polite = 1;
	}

	rig_take_plan(&plan, &p, &given, sizeof(plan));
}

static int open_file(unsigned int nr, int *direct_fd)
{
	int dir = race->backing == HUGE_TMPFS ? huge_dir : small_dir, fd;

	if (!on_tmpfs())
		return rig_open_file("huge", nr, direct_fd);
	fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		rig_bail("file on the tmpfs: %s", strerror(errno));
	return fd;
}

static void make_files(unsigned int episode)
{
	static struct mutator m;
	char path[64];
	long i;
	int fd;

	if (!m.buf)
		m.buf = make_buffer();
	memset(groups, 0, MAX_GROUPS * sizeof(*groups));
	for (i = 0; i < plan.groups; i++) {
		struct group *g = &groups[i];

		g->nr = i;
		g->newest = 1;
		g->fd = -1;
		g->direct_fd = -1;
		if (race->backing == ANON)
			continue;
		g->fd = open_file(episode * MAX_GROUPS + i,
				  race->op == OP_DIRECT ? &g->direct_fd : NULL);
		if (race->op == OP_DIRECT && g->direct_fd < 0)
			rig_bail("O_DIRECT: %s", strerror(errno));
		m.group = g;
		m.fd = g->fd;
		if (ftruncate(g->fd, plan.pages * RIG_PAGE))
			rig_bail("ftruncate: %s", strerror(errno));
		if (race->kind != PIN)
			fill(&m, 0, plan.pages);
		rig_store(&g->valid_pages, plan.pages);
		if (!on_tmpfs())
			fsync(g->fd);
		if (race->backing != RO_FILE)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", g->fd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			rig_bail("open for reading: %s", strerror(errno));
		close(g->fd);
		g->fd = fd;
	}
	rig_bail_if_broken();
}

static void close_files(void)
{
	long i;

	for (i = 0; i < plan.groups; i++) {
		if (groups[i].fd >= 0)
			close(groups[i].fd);
		if (groups[i].direct_fd >= 0)
			close(groups[i].direct_fd);
	}
}

static uint64_t huge_events(void)
{
	return rig_vmstat("thp_file_alloc") + rig_vmstat("thp_fault_alloc") +
		rig_vmstat("thp_file_mapped") + rig_vmstat("thp_collapse_alloc");
}

static void spawn_group(struct group *g)
{
	void (*mapper)(void *) = race->kind == OWN ? owner_main : reader_main;
	long k;

	if (race->kind == PIN) {
		rig_spawn(window_main, g);
		return;
	}
	for (k = 0; k < plan.mappers; k++) {
		mappers[g->nr][k] = (struct mapper){ .group = g, .nr = k };
		rig_spawn(mapper, &mappers[g->nr][k]);
	}
	if (race->kind == OWN)
		return;
	if (race->pins)
		rig_spawn(pinner_main, g);
	if (race->collapse)
		rig_spawn(collapser_main, g);
	if (race->split)
		rig_spawn(splitter_main, g);
	rig_spawn(mutator_main, g);
}

static void run_episode(unsigned int episode, int64_t ns)
{
	uint64_t events = huge_events();
	long i;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_case_again();
	make_files(episode);
	if (race->backing == ANON)
		turn_sizes(plan.sizes);
	rig_fault_around(plan.fault_around);
	for (i = 0; i < plan.groups; i++)
		spawn_group(&groups[i]);
	rig_case_run(ns);
	close_files();
	rig_count(C_HUGE, huge_events() - events);
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	/* What a slow emulated machine manages; large folios of a file system are not counted. */
	const struct rig_gate gates[] = {
		{ C_ROUNDS, rig_max(3, rig_min(50, 3 * ns / second)) },
		{ race->kind == REMOVE ? C_COLLISIONS : C_ROUNDS, rig_min(20, 5 * ns / second) },
		{ C_HUGE, on_tmpfs() },
		{ C_COLLAPSES, race->collapse && race->kind != OWN && on_tmpfs() },
		{ C_PINS, race->pins },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
	rig_case_begin(race->common.name);
	make_titles();
	if (race->collapse)
		turn_khugepaged();
	rig_episodes(plan_ms, ns, run_episode);
	rig_put_back_knobs();
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
	make_mounts();
	rig_suite_run(&suite);
	return rig_finish();
}
