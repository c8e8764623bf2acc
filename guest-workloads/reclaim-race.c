// SPDX-License-Identifier: GPL-2.0-only
/*
 * reclaim-race: reclaim and swap against faults, truncation and pins.
 *
 * The file cases (punch, truncate, rewrite) have a mutator that removes pages
 * and writes them anew with the next generation, one process that takes them
 * out of memory (MADV_PAGEOUT, fadvise, drop_caches, MADV_COLD, memory.reclaim
 * of a cgroup that all are in) and readers that fault them in or read() them.
 * On tmpfs the pages go to swap on zram, elsewhere to the disk.
 *   eof-tail   no race: a page that is not in memory is cut in its middle; after
 *              an extension all behind the cut must be zero
 *   lazyfree   a direct read into memory after MADV_FREE, while MADV_PAGEOUT
 *              discards it: the data has to be there when the read has returned.
 *              A file pins the pages until they are marked dirty just before
 *              the I/O starts; a block device (a loop device over a file) for
 *              all of the I/O, since it marks them dirty when that is done
 *   anon       private memory, anonymous or a copied file, swapped out and in
 *              while it is written and forked
 *
 * Legal outcomes for a reader of a file: a whole stamp of the right page and of
 * a generation that was not dead before it looked; zeroes or a torn stamp while
 * the mutator is between removal and rewriting; SIGBUS or a short read where
 * the file may be shorter. For the mutator itself, right after a hole punch or
 * a truncation and an extension: zeroes and nothing else. In lazyfree: the data
 * of the file. In anon: what the owner wrote last, in a child what the parent
 * had, and the backing where nobody wrote.
 *
 * PASS means: enough rounds, pages really left memory (mincore, pagemap) and,
 * on tmpfs and for anon, went to swap. What it cannot see: pages that are kept
 * in memory for ever (see the console), errors of the swap device itself,
 * damage to pages that are removed again before anyone looks.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#define MAX_PAGES	512
#define MAX_GROUPS	16
#define MAX_READERS	4
#define FILE_GENERATION	1
#define CGROUP		"/run/rig-cgroup"

#ifndef MADV_COLD
#define MADV_COLD	20
#define MADV_PAGEOUT	21
#endif

enum kind { EOF_TAIL, PUNCH, TRUNCATE, REWRITE, LAZYFREE, ANON };

struct race {
	struct rig_case common;
	enum kind kind;
};

static const struct race races[] = {
	{ { "eof-tail", 1 }, EOF_TAIL },
	{ { "punch", 4 }, PUNCH },
	{ { "truncate", 2 }, TRUNCATE },
	{ { "rewrite", 2 }, REWRITE },
	{ { "lazyfree", 3 }, LAZYFREE },
	{ { "anon", 2 }, ANON },
};

enum counter {
	C_ROUNDS, C_READS, C_RECLAIMS, C_GONE, C_COLLISIONS, C_SWAPPED, C_FORKS, C_SIGBUS, C_ZERO,
	C_TORN, C_FAULTS, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"rounds", "reads", "reclaims", "pages_gone", "collisions", "swapped", "forks", "sigbus",
	"zero", "torn", "faults",
};

/* Ways to take pages out of memory. */
enum way { BY_PAGEOUT, BY_FADVISE, BY_CACHES, BY_COLD, BY_CGROUP, NR_WAYS };

struct plan {
	long groups;
	long readers;
	long pages;
	long chunk;
	long piece;		/* pages that go in one hole punch, from the end on */
	long way;		/* NR_WAYS: any of them, each time anew */
	long aim;		/* percent of removals that wait for a reclaim; 100 = in step */
	long delay;		/* microseconds at most after that */
	long pin;		/* mutator and reclaimer share a CPU */
	long loop;		/* lazyfree: read from a block device */
	long huge;		/* let the anonymous memory have huge pages */
	long fault_around;
};

static long plan_ms = 500;	/* of one episode */
static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "groups", "files or memories, each with its processes", &given.groups, 1, MAX_GROUPS },
	{ "readers", "processes that read each of them", &given.readers, 0, MAX_READERS },
	{ "pages", "of each", &given.pages, 16, MAX_PAGES },
	{ "chunk", "most pages that one operation removes", &given.chunk, 1, MAX_PAGES },
	{ "piece", "pages in each hole punch of those", &given.piece, 1, MAX_PAGES },
	{ "way", "0 pageout 1 fadvise 2 drop_caches 3 cold 4 cgroup 5 any", &given.way, 0, NR_WAYS },
	{ "aim", "percent of removals that await a reclaim", &given.aim, 0, 100 },
	{ "delay", "microseconds at most between the two", &given.delay, 0, 100000 },
	{ "pin", "mutator and reclaimer share a CPU", &given.pin, 0, 1 },
	{ "loop", "read from a block device in lazyfree", &given.loop, 0, 1 },
	{ "huge", "huge pages for anonymous memory", &given.huge, 0, 1 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "reclaim-race",
	.about = "reclaim-race: reclaim and swap against faults, truncation, hole punch and direct\n"
		 "reads. Swap is on zram, in machines of the rig only.",
	.cases = "eof-tail punch truncate rewrite lazyfree anon",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* One file or memory and its processes; lives in shared memory. */
struct group {
	uint32_t seq;		/* odd while the file is in flux */
	uint32_t reclaim_seq;	/* odd while the reclaimer is at it; the mutator waits on it */
	uint64_t newest;
	uint64_t shrinks;	/* raised before the file gets shorter */
	uint64_t valid_pages;	/* the file is at least this long */
	uint64_t dead[MAX_PAGES];
	int fd;
	unsigned int nr;
};

struct actor {
	struct group *group;
	unsigned int nr;
};

static const struct race *race;
static struct plan plan;
static struct group *groups;
static struct actor actors[MAX_GROUPS][MAX_READERS + 1];
static struct statfs fs;
static bool own_machine, have_cgroup;
static const char *no_swap;
static char title_stale[96], title_wrong[96], title_future[96], title_zero[96], title_torn[96];
static char title_bus[96], title_left[96], title_lost[96], title_other[96];

static void make_titles(void)
{
	static const char * const ops[] = {
		[EOF_TAIL] = "truncate", [PUNCH] = "hole punch", [TRUNCATE] = "truncate",
		[REWRITE] = "rewriting", [LAZYFREE] = "a direct read", [ANON] = "swapping",
	};
	const char *op = ops[race->kind];

#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " after %s under reclaim", op)
	TITLE(title_stale, "stale data");
	TITLE(title_left, "stale data left in the file");
	TITLE(title_wrong, "data of another page");
	TITLE(title_future, "data that was never written");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_torn, "corrupt data");
	TITLE(title_bus, "SIGBUS below the end of the file");
	TITLE(title_lost, "written data lost");
	TITLE(title_other, "data that does not belong there");
#undef TITLE
}

static bool on_disk(void)
{
	return fs.f_type != TMPFS_MAGIC;
}

static void *map_anonymous(long pages)
{
	void *p = mmap(NULL, pages * RIG_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		_exit(0);
	}
	if (!plan.huge)
		madvise(p, pages * RIG_PAGE, MADV_NOHUGEPAGE);
	return p;
}

static char *map_file(int fd, long pages)
{
	char *p = mmap(NULL, pages * RIG_PAGE, PROT_READ, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		_exit(0);
	}
	return p;
}

/* ---- taking pages out of memory ---- */

/* Returns how many pages of the mapping are not in the page cache. */
static long count_gone(char *p, long pages)
{
	static unsigned char there[MAX_PAGES];
	long i, gone = 0;

	if (mincore(p, pages * RIG_PAGE, there))
		return 0;
	for (i = 0; i < pages; i++)
		gone += !(there[i] & 1);
	return gone;
}

/* A way that this machine and file system have. */
static enum way pick_way(struct rig_rng *rng)
{
	enum way way = plan.way < NR_WAYS ? plan.way : (long)rig_below(rng, NR_WAYS);

	if (way == BY_CACHES && (!own_machine || !on_disk()))
		way = BY_PAGEOUT;
	if (way == BY_CGROUP && !have_cgroup)
		way = BY_PAGEOUT;
	if (way == BY_FADVISE && !on_disk())
		way = BY_PAGEOUT;
	return way;
}

/* Clean page cache of the whole machine; 4 keeps the kernel from logging each time. */
static void drop_clean_pages(void)
{
	rig_write_text("/proc/sys/vm/drop_caches", "5");
}

/* Takes what it can of a mapping out of memory; p may be of a file (fd) or anonymous (-1). */
static void take_out(struct rig_rng *rng, int fd, char *p, long pages)
{
	switch (fd < 0 && plan.way != BY_CGROUP ? BY_PAGEOUT : pick_way(rng)) {
	case BY_PAGEOUT:
		madvise(p, pages * RIG_PAGE, MADV_PAGEOUT);
		break;
	case BY_FADVISE:
		posix_fadvise(fd, 0, pages * RIG_PAGE, POSIX_FADV_DONTNEED);
		break;
	case BY_CACHES:
		drop_clean_pages();
		break;
	case BY_COLD:
		madvise(p, pages * RIG_PAGE, MADV_COLD);
		if (have_cgroup)
			rig_write_text(CGROUP "/race/memory.reclaim", "64K");
		break;
	case BY_CGROUP:
	default:
		rig_write_text(CGROUP "/race/memory.reclaim", "64K");
	}
	rig_count(C_RECLAIMS, 1);
}

/* The mutator goes first where both are on one CPU: it preempts reclaim wherever that is. */
static void share_cpu(const struct group *g, int nice)
{
	unsigned int want, i;
	cpu_set_t all, one;

	if (!plan.pin || sched_getaffinity(0, sizeof(all), &all))
		return;
	want = g->nr % rig_cpus();
	CPU_ZERO(&one);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && !want--)
			break;
	if (i == CPU_SETSIZE)
		return;
	CPU_SET(i, &one);
	sched_setaffinity(0, sizeof(one), &one);
	setpriority(PRIO_PROCESS, 0, nice);
	prctl(PR_SET_TIMERSLACK, 1);
}

static void reclaimer_main(void *arg)
{
	struct actor *a = arg;
	struct group *g = a->group;
	struct rig_rng rng = rig_rng_for(race->common.name, 1000 + g->nr);
	char *p = map_file(g->fd, plan.pages);
	uint32_t last = 1, seq;

	share_cpu(g, 10);
	while (!rig_stopped()) {
		/* in step with the mutator: once for each time that it has written everything anew */
		for (seq = rig_load(&g->seq); plan.aim == 100 && (seq & 1 || seq == last) &&
		     !rig_stopped(); seq = rig_load(&g->seq))
			rig_wait_change(&g->seq, seq);
		last = seq;
		/* MADV_PAGEOUT takes what this mapping alone maps: so map it, and hope that nobody else does */
		madvise(p, plan.pages * RIG_PAGE, MADV_POPULATE_READ);
		if (on_disk() && !rig_below(&rng, 4))
			sync_file_range(g->fd, 0, 0, SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER);
		rig_add(&g->reclaim_seq, 1);
		rig_wake(&g->reclaim_seq);
		take_out(&rng, g->fd, p, plan.pages);
		rig_add(&g->reclaim_seq, 1);
		rig_count(C_GONE, count_gone(p, plan.pages));
	}
}

/* A cgroup for all processes of this workload: memory.reclaim unmaps what others map as well. */
static void make_cgroup(void)
{
	char pid[16];

	if (!own_machine)
		return;
	mkdir(CGROUP, 0755);
	if (mount("cgroup2", CGROUP, "cgroup2", 0, NULL) && errno != EBUSY)
		return;
	rig_write_text(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP "/race", 0755);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	have_cgroup = !access(CGROUP "/race/memory.reclaim", W_OK) &&
		rig_write_text(CGROUP "/race/cgroup.procs", pid);
}

/* ---- readers of a file ---- */

struct reader {
	struct group *group;
	char *base;
	unsigned int nr;
	struct rig_rng rng;
	bool maps;		/* else it reads */
};

/* Returns false when there is no such page any more. */
static bool read_stamps(struct reader *r, long page, struct rig_stamp *out)
{
	static char copy[RIG_PAGE];

	if (r->maps)
		return rig_look(r->base + page * RIG_PAGE, out);
	return rig_pread_all(r->group->fd, copy, RIG_PAGE, page * RIG_PAGE) &&
		rig_look(copy, out);
}

static const char *judge_stamp(const struct rig_stamp *s, long page, enum rig_end end,
			       uint64_t dead, uint64_t newest, bool stable)
{
	switch (rig_judge(s, page, end, dead, newest)) {
	case RIG_LIVE:
		return NULL;
	case RIG_ZERO:
		rig_count(C_ZERO, 1);
		return stable ? title_zero : NULL;
	case RIG_TORN:
		rig_count(C_TORN, 1);
		return stable ? title_torn : NULL;
	case RIG_STALE:
		return title_stale;
	case RIG_WRONG_PAGE:
		return title_wrong;
	default:
		return title_future;
	}
}

static void check_page(struct reader *r, long page)
{
	struct group *g = r->group;
	/* shrinks before valid_pages: the mutator writes them the other way round */
	uint64_t shrinks = rig_load(&g->shrinks), valid = rig_load(&g->valid_pages), dead, newest;
	uint32_t seq = rig_load(&g->seq);
	struct rig_stamp seen[RIG_ENDS];
	const char *title;
	unsigned int end;
	bool stable;

	dead = rig_load(&g->dead[page]);
	rig_count(C_READS, 1);
	if (!read_stamps(r, page, seen)) {
		rig_count(C_SIGBUS, 1);
		if ((uint64_t)page < valid && rig_load(&g->shrinks) == shrinks)
			rig_found(title_bus, "file %u page %ld, at least %" PRIu64 " pages long",
				  g->nr, page, valid);
		return;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	stable = !(seq & 1) && rig_load(&g->seq) == seq;
	newest = rig_load(&g->newest);
	for (end = 0; end < RIG_ENDS; end++) {
		title = judge_stamp(&seen[end], page, end, dead, newest, stable);
		if (title)
			rig_found(title, "file %u page %ld, %s: generation %" PRIu64 " where %#" PRIx64
				  ", dead %" PRIu64 ", newest %" PRIu64, g->nr, page,
				  r->maps ? "mapped" : "read()", seen[end].generation,
				  seen[end].where, dead, newest);
	}
}

static void reader_main(void *arg)
{
	struct actor *a = arg;
	struct reader r = {
		.group = a->group, .nr = a->nr, .maps = a->nr % 2 == 0,
		.rng = rig_rng_for(race->common.name, 2000 + 10 * a->group->nr + a->nr),
	};
	long i, step;

	rig_catch_bus();
	r.base = map_file(r.group->fd, plan.pages);
	while (!rig_stopped()) {
		step = 1 + rig_below(&r.rng, 16);
		for (i = rig_below(&r.rng, step); i < plan.pages && !rig_stopped(); i += step)
			check_page(&r, i);
		/* what nobody maps, reclaim can have */
		if (r.maps)
			madvise(r.base, plan.pages * RIG_PAGE, MADV_DONTNEED);
	}
	rig_count_faults(C_FAULTS, RUSAGE_SELF);
}

/* ---- mutators of a file ---- */

static void fill(struct group *g, long first, long end)
{
	static char buf[16 * RIG_PAGE];
	long i, n;

	for (; first < end && !rig_load(&rig_shared->broken); first += n) {
		n = rig_min(16, end - first);
		for (i = 0; i < n; i++)
			rig_stamp_page(buf + i * RIG_PAGE, g->newest, first + i);
		if (rig_lies("zero"))
			memset(buf, 0, sizeof(buf));
		if (!rig_pwrite_all(g->fd, buf, n * RIG_PAGE, first * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
		if ((uint64_t)(first + n) > g->valid_pages)
			rig_store(&g->valid_pages, first + n);
	}
}

/* All that was in [first, end) is dead from here on. */
static void bury(struct group *g, long first, long end)
{
	for (; first < end; first++)
		rig_store(&g->dead[first], g->newest);
}

/* The removal has returned, and only this process writes: there is nothing but zeroes. */
static void look_removed(struct group *g, off_t from, off_t to)
{
	static char buf[16 * RIG_PAGE];
	size_t n, i;

	for (; from < to; from += n) {
		n = rig_min(sizeof(buf) - from % RIG_PAGE, (size_t)(to - from));
		if (!rig_pread_all(g->fd, buf, n, from)) {
			rig_broken("read: %s", strerror(errno));
			return;
		}
		if (rig_all_zero(buf, n))
			continue;
		for (i = 0; i < n && !buf[i]; i++)
			;
		rig_found(title_left, "file %u: byte %#" PRIx64 " of %#" PRIx64 ", generation %" PRIu64,
			  g->nr, (uint64_t)(from + i), (uint64_t)to, g->newest);
		return;
	}
}

static void resize(struct group *g, off_t size)
{
	if (ftruncate(g->fd, size))
		rig_broken("ftruncate: %s", strerror(errno));
}

/* A random moment later. Asleep on a shared CPU, so that the timer interrupts reclaim anywhere. */
static void linger(struct rig_rng *rng)
{
	int64_t ns = 1000 * rig_below(rng, plan.delay + 1), end = rig_now() + ns;
	const struct timespec ts = { .tv_nsec = ns };

	if (plan.pin)
		nanosleep(&ts, NULL);
	while (!plan.pin && rig_now() < end)
		;
}

static void remove_pages(struct group *g, struct rig_rng *rng, long first, long end)
{
	const off_t full = plan.pages * RIG_PAGE;
	long to, n;
	off_t size;

	switch (race->kind) {
	case PUNCH:
		/* reclaim comes from the other end: the two meet */
		for (to = end; to > first && !rig_lies("stale"); to -= n) {
			n = rig_min(plan.piece, to - first);
			if (fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      (to - n) * RIG_PAGE, n * RIG_PAGE))
				rig_broken("fallocate: %s", strerror(errno));
		}
		bury(g, first, end);
		look_removed(g, first * RIG_PAGE, end * RIG_PAGE);
		break;
	case TRUNCATE:
		/* the cut may lie between the two stamps of its page, which is then as good as dead */
		size = first * RIG_PAGE + (rig_below(rng, 2) ? 0 : 64 + rig_below(rng, 3000));
		rig_store(&g->valid_pages, first);
		rig_add(&g->shrinks, 1);
		resize(g, size);
		bury(g, first + (size % RIG_PAGE != 0), plan.pages);
		resize(g, full);
		rig_store(&g->valid_pages, plan.pages);
		look_removed(g, size, full);
		break;
	default:
		break;	/* written over in place */
	}
}

static void mutator_main(void *arg)
{
	struct group *g = arg;
	struct rig_rng rng = rig_rng_for(race->common.name, 3000 + g->nr);
	uint32_t seen = 0;	/* reclaim_seq when the file was last whole */
	long len, first, end;

	share_cpu(g, 0);
	while (rig_lies("idle") && !rig_stopped())
		rig_wait_change(&g->seq, rig_load(&g->seq));
	while (!rig_stopped()) {
		len = rig_min(plan.chunk, plan.pages);
		if (plan.aim < 100)
			len = 1 + rig_below(&rng, len);
		first = rig_below(&rng, plan.pages - len + 1);
		end = race->kind == TRUNCATE ? plan.pages : first + len;
		if ((long)rig_below(&rng, 100) < plan.aim) {
			if (!(seen & 1))
				rig_wait_change(&g->reclaim_seq, seen);
			linger(&rng);
		}
		seen = rig_load(&g->reclaim_seq);
		rig_add(&g->seq, 1);
		remove_pages(g, &rng, first, end);
		if ((seen & 1) || rig_load(&g->reclaim_seq) != seen)
			rig_count(C_COLLISIONS, 1);
		rig_store(&g->newest, g->newest + 1);
		fill(g, first, end);
		if (race->kind == REWRITE)
			for (; first < end; first++)
				rig_store(&g->dead[first], g->newest - 1);
		/* clean pages are what drop_caches and fadvise can take */
		if (on_disk() && rig_below(&rng, 2))
			fdatasync(g->fd);
		seen = rig_load(&g->reclaim_seq);
		rig_add(&g->seq, 1);
		rig_wake(&g->seq);
		rig_count(C_ROUNDS, 1);
	}
}

/* ---- eof-tail ---- */

/* Until the page is not in memory, or it will not go. Returns whether it went. */
static bool drop_page(int fd, long page)
{
	unsigned int tries;
	char *p = map_file(fd, page + 1);
	bool gone = false;

	if (on_disk())
		fsync(fd);
	for (tries = 0; tries < 8 && !gone; tries++) {
		(void)__atomic_load_n(p + page * RIG_PAGE, __ATOMIC_RELAXED);
		madvise(p + page * RIG_PAGE, RIG_PAGE, MADV_PAGEOUT);
		if (on_disk())
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (on_disk() && own_machine)
			drop_clean_pages();
		gone = count_gone(p + page * RIG_PAGE, 1);
	}
	munmap(p, (page + 1) * RIG_PAGE);
	return gone;
}

static void cut_once(struct rig_rng *rng, unsigned int nr)
{
	static const char title[] = "data not zero past the end of a truncated page";
	static const char title_head[] = "written data lost before the end of a truncated page";
	static char page[RIG_PAGE];
	long last = rig_below(rng, 12);
	size_t keep = 1 + rig_below(rng, RIG_PAGE - 1), i;
	int fd = rig_open_file("tail", nr, NULL);
	bool look_mapped = rig_below(rng, 2);
	char *p;

	memset(page, 0xa5, sizeof(page));
	for (i = 0; (long)i <= last; i++)
		if (!rig_pwrite_all(fd, page, RIG_PAGE, i * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
	if (drop_page(fd, last))
		rig_count(C_GONE, 1);
	if (ftruncate(fd, last * RIG_PAGE + keep))
		rig_broken("ftruncate: %s", strerror(errno));
	/* longer again: by ftruncate, by a write further on, or in place and then further */
	if (rig_below(rng, 2))
		i = ftruncate(fd, (last + 2) * RIG_PAGE);
	else
		i = !rig_pwrite_all(fd, page, 16, (last + 3) * RIG_PAGE);
	if (i || (rig_lies("tail") && !rig_pwrite_all(fd, page, 1, (last + 1) * RIG_PAGE - 1)))
		rig_broken("extension: %s", strerror(errno));
	if (look_mapped) {
		p = map_file(fd, last + 1);
		memcpy(page, p + last * RIG_PAGE, RIG_PAGE);
		munmap(p, (last + 1) * RIG_PAGE);
	} else if (!rig_pread_all(fd, page, RIG_PAGE, last * RIG_PAGE)) {
		rig_broken("read: %s", strerror(errno));
	}
	rig_count(C_READS, 1);
	for (i = 0; i < keep && page[i] == (char)0xa5; i++)
		;
	if (i < keep)
		rig_found(title_head, "page %ld, byte %zu of %zu is %#x", last, i, keep,
			  (unsigned char)page[i]);
	for (i = keep; i < RIG_PAGE && !page[i]; i++)
		;
	if (i < RIG_PAGE)
		rig_found(title, "page %ld, cut at %zu: byte %zu is %#x, %s", last, keep, i,
			  (unsigned char)page[i], look_mapped ? "mapped" : "read()");
	close(fd);
	rig_count(C_ROUNDS, 1);
}

static void tail_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, 1);
	unsigned int i;

	(void)arg;
	for (i = 0; i < 24 && !rig_stopped(); i++)
		cut_once(&rng, i);
}

/* ---- lazyfree ---- */

struct pinner {
	uint32_t go;		/* raised to start a read */
	uint32_t done;		/* raised when it has returned */
	char *buf;
	int fd;
	ssize_t got;
};

static void *pinner_main(void *arg)
{
	struct pinner *p = arg;
	uint32_t seen = 0;

	while (!rig_stopped()) {
		rig_wait_change(&p->go, seen);
		if (rig_load(&p->go) == seen)
			continue;
		seen = rig_load(&p->go);
		p->got = pread(p->fd, p->buf, plan.pages * RIG_PAGE, 0);
		rig_store(&p->done, seen);
		rig_wake(&p->done);
	}
	return NULL;
}

static void judge_buffer(char *buf, unsigned int nr)
{
	struct rig_stamp s;
	const char *title;
	unsigned int end;
	long i;

	for (i = 0; i < plan.pages; i++) {
		for (end = 0; end < RIG_ENDS; end++) {
			s = rig_stamp_read(rig_stamp_at(buf + i * RIG_PAGE, end));
			title = judge_stamp(&s, i, end, 0, FILE_GENERATION, true);
			if (title == title_future)
				title = title_lost;	/* what was in the buffer before */
			if (title)
				rig_found(title, "buffer %u page %ld: generation %" PRIu64
					  " where %#" PRIx64 ", pagemap %#" PRIx64, nr, i,
					  s.generation, s.where, rig_pagemap(buf + i * RIG_PAGE));
		}
	}
	rig_count(C_READS, plan.pages);
}

static void lazyfree_main(void *arg)
{
	struct group *g = arg;
	struct rig_rng rng = rig_rng_for(race->common.name, 4000 + g->nr);
	struct pinner p = { .buf = map_anonymous(plan.pages), .fd = g->fd };
	size_t len = plan.pages * RIG_PAGE;
	pthread_t thread;
	uint32_t done;
	long i;

	if (pthread_create(&thread, NULL, pinner_main, &p)) {
		rig_broken("pthread_create failed");
		return;
	}
	while (!rig_stopped()) {
		for (i = 0; i < plan.pages; i++)
			rig_stamp_page(p.buf + i * RIG_PAGE, FILE_GENERATION + 1, i);
		madvise(p.buf, len, MADV_FREE);
		done = rig_load(&p.done);
		rig_store(&p.go, done + 1);
		rig_wake(&p.go);
		/* the same thread as MADV_FREE: its pages may still be on their way to the right list */
		while (rig_load(&p.done) == done && !rig_stopped()) {
			if (plan.delay)
				linger(&rng);
			madvise(p.buf, len, MADV_PAGEOUT);
			rig_count(C_RECLAIMS, 1);
			if (rig_load(&p.done) == done)
				rig_count(C_COLLISIONS, 1);
		}
		if (rig_load(&p.done) == done)
			break;		/* stopped in the middle of a read: nothing to judge */
		if (p.got != (ssize_t)len) {
			rig_broken("direct read: %zd of %zu bytes", p.got, len);
			break;
		}
		if (rig_lies("lost"))
			memset(p.buf, 0, RIG_PAGE);
		judge_buffer(p.buf, g->nr);
		rig_count(C_ROUNDS, 1);
	}
	pthread_join(thread, NULL);
}

/* A block device over the file: it is gone with the last one who has it open. -1 without one. */
static int open_loop(int file)
{
	struct loop_config config = { .fd = file, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1, nr;
	char path[32];

	if (control < 0)
		return -1;
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(path, sizeof(path), "/dev/loop%d", nr);
	if (nr >= 0)
		fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* ---- anon ---- */

struct owner {
	struct rig_rng rng;
	char *base;
	bool file;		/* the backing is a file, else zeroes */
	unsigned int nr;
	uint64_t generation;
	uint64_t expected[MAX_PAGES];	/* 0 = the backing */
};

static void check_own(struct owner *o, long page)
{
	uint64_t want = o->expected[page];
	const char *title = NULL;
	struct rig_stamp s;
	unsigned int end;

	if (!want && o->file)
		want = FILE_GENERATION;
	for (end = 0; end < RIG_ENDS; end++) {
		s = rig_stamp_read(rig_stamp_at(o->base + page * RIG_PAGE, end));
		switch (rig_judge(&s, page, end, 0, UINT64_MAX)) {
		case RIG_LIVE:
			title = s.generation == want ? NULL : want ? title_lost : title_other;
			break;
		case RIG_ZERO:
			title = want ? title_lost : NULL;
			break;
		case RIG_WRONG_PAGE:
			title = title_wrong;
			break;
		default:
			title = title_other;
		}
		if (title)
			rig_found(title, "process %u page %ld: generation %#" PRIx64 " where %#" PRIx64
				  ", wanted %#" PRIx64 ", pagemap %#" PRIx64, o->nr, page,
				  s.generation, s.where, want, rig_pagemap(o->base + page * RIG_PAGE));
	}
	rig_count(C_READS, 1);
}

static void write_own(struct owner *o, long page)
{
	uint64_t generation = (uint64_t)(o->nr + 2) << 40 | ++o->generation;

	rig_stamp_page(o->base + page * RIG_PAGE, generation, page);
	o->expected[page] = generation;
	if (rig_lies("lost") && !(o->generation % 64))
		memset(o->base + page * RIG_PAGE, 0, RIG_PAGE);
}

static long count_swapped(struct owner *o)
{
	long i, n = 0;

	for (i = 0; i < plan.pages; i++)
		n += !!(rig_pagemap(o->base + i * RIG_PAGE) & RIG_PAGEMAP_SWAP);
	return n;
}

static void live(struct owner *o, unsigned int steps)
{
	long page, i;

	while (steps-- && !rig_stopped()) {
		for (i = 0; i < 16; i++) {
			page = rig_below(&o->rng, plan.pages);
			check_own(o, page);
			if (rig_below(&o->rng, 2))
				write_own(o, page);
		}
		take_out(&o->rng, -1, o->base, plan.pages);
		if (!rig_below(&o->rng, 4)) {
			i = count_swapped(o);
			rig_count(C_SWAPPED, i);
			rig_count(C_GONE, i);
		}
	}
}

static void check_owned(struct owner *o)
{
	long i;

	for (i = 0; i < plan.pages && !rig_stopped(); i++)
		check_own(o, i);
}

static void fork_once(struct owner *o)
{
	pid_t pid = fork();
	int status;

	if (pid < 0) {
		rig_broken("fork: %s", strerror(errno));
		return;
	}
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		o->generation += 1ull << 32;
		live(o, 2);
		check_owned(o);
		_exit(0);
	}
	rig_count(C_FORKS, 1);
	live(o, 2);
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			return;
	rig_judge_exit(pid, status);
	check_owned(o);
}

static void anon_main(void *arg)
{
	static struct owner o;
	struct actor *a = arg;
	struct group *g = a->group;

	o.nr = g->nr * (MAX_READERS + 1) + a->nr;
	o.rng = rig_rng_for(race->common.name, 5000 + o.nr);
	o.file = rig_below(&o.rng, 2);
	o.base = map_anonymous(plan.pages);
	if (o.file && mmap(o.base, plan.pages * RIG_PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_FIXED, g->fd, 0) == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	while (!rig_stopped()) {
		live(&o, 2);
		fork_once(&o);
		rig_count(C_ROUNDS, 1);
	}
	check_owned(&o);
	rig_count_faults(C_FAULTS, RUSAGE_SELF);
}

/* ---- cases ---- */

static const char *unsupported(const void *c)
{
	const struct race *r = c;

	/* a lie is found without swap as well */
	if ((r->kind == ANON || (!on_disk() && r->kind != LAZYFREE)) && no_swap && !*rig_inject)
		return no_swap;
	if (r->kind == PUNCH)
		return rig_no_punch();
	return r->kind == LAZYFREE && !own_machine ? rig_no_direct() : NULL;
}

/* One line: a case has many episodes. The names are those of the options. */
/*
 * Small files in many rounds, in step. A hole punch passes twice, first by what
 * reclaim has locked and then over it again; only a page that reclaim lets go
 * between the two shows whether the second pass looks at what became of it. So
 * every round interrupts reclaim somewhere, with one page locked, and the second
 * pass has to wait for it on the same CPU.
 */
static void sharpen(struct plan *p)
{
	p->groups = rig_max(1, rig_min(rig_cpus() / 2, MAX_GROUPS));
	p->readers = race->kind == PUNCH ? 0 : rig_min(p->readers, 1);
	p->pages = rig_min(p->pages, 32);
	p->chunk = MAX_PAGES;
	p->piece = MAX_PAGES;
	p->way = BY_PAGEOUT;
	p->aim = 100;
	p->pin = race->kind == PUNCH;
	p->delay = p->pin ? rig_max(300, rig_min(p->delay, 3000)) : rig_min(p->delay, 1000);
}

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(unsigned int episode)
{
	static const long readers[] = { 0, 1, 1, 2, 3 };
	static const long pages[] = { 16, 32, 64, 64, 128, 256 };
	static const long chunks[] = { 16, 64, MAX_PAGES, MAX_PAGES };
	static const long pieces[] = { 1, 2, 16, MAX_PAGES };
	static const long ways[] = { BY_PAGEOUT, BY_CGROUP, NR_WAYS, NR_WAYS };
	static const long aims[] = { 0, 50, 100 };
	static const long delays[] = { 0, 0, 100, 1000, 5000 };
	static const long arounds[] = { 4096, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.groups = rig_max(1, rig_min(cpus / 3, MAX_GROUPS));
	p.readers = rig_min(rig_pick(&rng, readers), cpus);
	p.pages = rig_pick(&rng, pages);
	p.chunk = rig_pick(&rng, chunks);
	p.piece = rig_pick(&rng, pieces);
	p.way = rig_pick(&rng, ways);
	p.aim = rig_pick(&rng, aims);
	p.delay = rig_pick(&rng, delays);
	p.pin = !rig_below(&rng, 4);
	p.loop = rig_below(&rng, 4) != 0;
	p.huge = rig_below(&rng, 2);
	p.fault_around = rig_pick(&rng, arounds);
	if (episode % 2)
		sharpen(&p);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	rig_print_plan(episode, &plan, &given, sizeof(plan));
}

static void make_files(unsigned int episode)
{
	struct group *g;
	int direct, loop;
	long i;

	rig_need_space(2 * plan.groups * plan.pages * RIG_PAGE);
	memset(groups, 0, MAX_GROUPS * sizeof(*groups));
	for (i = 0; i < plan.groups; i++) {
		g = &groups[i];
		direct = -1;
		g->nr = i;
		g->newest = FILE_GENERATION;
		g->fd = rig_open_file("reclaim", episode * MAX_GROUPS + i,
				      race->kind == LAZYFREE ? &direct : NULL);
		fill(g, 0, plan.pages);
		fsync(g->fd);
		if (race->kind != LAZYFREE)
			continue;
		loop = own_machine && (plan.loop || direct < 0) ? open_loop(g->fd) : -1;
		if (loop >= 0 && direct >= 0)
			close(direct);
		close(g->fd);
		g->fd = loop >= 0 ? loop : direct;
		if (g->fd < 0)
			rig_bail("neither O_DIRECT nor a loop device on %s", rig_dir);
	}
	rig_bail_if_broken();
}

static void spawn_group(struct group *g)
{
	long k;

	switch (race->kind) {
	case EOF_TAIL:
		if (!g->nr)
			rig_spawn(tail_main, g);
		break;
	case LAZYFREE:
		rig_spawn(lazyfree_main, g);
		break;
	case ANON:
		for (k = 0; k <= plan.readers; k++) {
			actors[g->nr][k] = (struct actor){ g, k };
			rig_spawn(anon_main, &actors[g->nr][k]);
		}
		break;
	default:
		for (k = 0; k <= plan.readers; k++)
			actors[g->nr][k] = (struct actor){ g, k };
		for (k = 0; k < plan.readers; k++)
			rig_spawn(reader_main, &actors[g->nr][k]);
		rig_spawn(reclaimer_main, &actors[g->nr][plan.readers]);
		rig_spawn(mutator_main, g);
	}
}

static void run_episode(unsigned int episode, int64_t ns)
{
	uint64_t swapped = rig_vmstat("pswpout");
	long i;

	draw_plan(episode);
	rig_case_again();
	make_files(episode);
	rig_fault_around(plan.fault_around);
	for (i = 0; i < plan.groups; i++)
		spawn_group(&groups[i]);
	rig_case_run(ns);
	for (i = 0; i < plan.groups; i++)
		close(groups[i].fd);
	if (race->kind != ANON)
		rig_count(C_SWAPPED, rig_vmstat("pswpout") - swapped);
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	/* What a slow emulated machine manages and still sees a race in. */
	const struct rig_gate gates[] = {
		{ C_ROUNDS, rig_max(4, rig_min(100, 2 * ns / second)) },
		{ C_RECLAIMS, race->kind == EOF_TAIL ? 0 : rig_max(4, rig_min(100, 2 * ns / second)) },
		{ C_GONE, race->kind == LAZYFREE ? 0 : 4 },
		{ C_COLLISIONS, race->kind == EOF_TAIL || race->kind == ANON ? 0 : 4 },
		{ C_SWAPPED, race->kind == ANON || (race->kind != LAZYFREE && !on_disk()) ? 4 : 0 },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
	rig_case_begin(race->common.name);
	make_titles();
	/* the tails take the whole time at once */
	rig_episodes(race->kind == EOF_TAIL ? ns / 1000000 + 1 : plan_ms, ns, run_episode);
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

/* A sixteenth of the memory at most, of which zram takes what it needs and when it does. */
static const char *get_swap(void)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * RIG_PAGE;

	if (rig_stat("/proc/meminfo", "SwapTotal") > 0)
		return NULL;
	if (!own_machine)
		return "no swap, and this is not a machine of the rig";
	return rig_swap_on(rig_max(32ull << 20, rig_min(256ull << 20, memory / 16)));
}

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	groups = rig_share(MAX_GROUPS * sizeof(*groups));
	fs = rig_statfs();
	own_machine = rig_own_machine();
	no_swap = get_swap();
	make_cgroup();

	rig_suite_plan(&suite);
	rig_diag("actual swap_kb=%" PRId64 " cgroup=%d", rig_stat("/proc/meminfo", "SwapTotal"),
		 have_cgroup);
	rig_suite_run(&suite);
	return rig_finish();
}
