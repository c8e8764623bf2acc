// SPDX-License-Identifier: GPL-2.0-only
/*
 * writeback-race: writeback against appends, and against stores through shared
 * mappings.
 *
 *   append-small, append-large  one process appends with write(), in pieces of
 *                               less than a page or of many pages; syncers
 *                               write its pages back all the time, readers map
 *                               what was appended
 *   shared-stores               threads store ever larger numbers into a shared
 *                               mapping, each into words of its own; syncers
 *                               write back and read the disk
 *   mixed-writes                half of them use pwrite() on the same pages
 *   hole-stores                 the file is a hole at first: each first store
 *                               has to allocate
 *
 * A syncer is urgent and shares a CPU with a writer. When it wants a page that
 * the writer has locked, it gets it at the moment of unlocking and runs before
 * the writer does anything else, which is where the windows are.
 *
 * Legal outcomes:
 *   - append-*: below the size that the writer has published (after write()
 *     had returned), every byte is what was written: through read(), through a
 *     mapping, and after fsync() once the page cache was dropped;
 *   - the others: when fsync(), fdatasync() or msync() has returned, O_DIRECT
 *     reads of each word give at least the number that was stored before it was
 *     called, and at most the one that its owner began to store last. The read
 *     may be refused with EIO while stores allocate.
 * How much reaches the disk without being asked for is never judged.
 *
 * PASS means: writes and syncs were enough and every look was legal. What it
 * cannot see: loss that only a crash of the machine would show (it reads through
 * the live file system), wrong dirty accounting, errors of the disk.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/magic.h>

#define MAX_PAGES	256
#define MAX_WRITERS	16
#define MAX_SYNCERS	8
#define MAX_APPEND	(256 * 1024)
#define WORD_GAP	64		/* bytes between the words of two writers */

enum kind { APPEND, STORES };

struct race {
	struct rig_case common;
	enum kind kind;
	bool large;
	bool mixed;
	bool sparse;
};

static const struct race races[] = {
	{ { "append-small", 2 }, APPEND, false, false, false },
	{ { "append-large", 2 }, APPEND, true, false, false },
	{ { "shared-stores", 2 }, STORES, false, false, false },
	{ { "mixed-writes", 1 }, STORES, false, true, false },
	{ { "hole-stores", 1 }, STORES, false, false, true },
};

enum counter {
	C_WRITES, C_SYNCS, C_LOOKS, C_DROPS, C_FILES, C_KIB, C_REFUSED, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"writes", "syncs", "looks", "drops", "files", "kib_verified", "refused",
};

struct plan {
	long writers;
	long syncers;
	long readers;
	long pages;		/* length at which a file is given up, or of the mapping */
	long pause;		/* most microseconds between two syncs */
	long urgent;		/* syncers preempt the writers */
	long ranges;		/* percent of syncs that only start the writeback of the tail */
	long drop;		/* percent of the writers' turns that drop their mapping */
};

static long plan_ms = 1000;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "writers", "threads that store, or processes that append to a file of their own",
	  &given.writers, 1, MAX_WRITERS },
	{ "syncers", "processes that write back", &given.syncers, 1, MAX_SYNCERS },
	{ "readers", "processes that map what is appended", &given.readers, 0, 8 },
	{ "pages", "length of the file", &given.pages, 8, MAX_PAGES },
	{ "pause", "most microseconds between two syncs", &given.pause, 1, 1000000 },
	{ "urgent", "syncers preempt the writers", &given.urgent, 0, 1 },
	{ "ranges", "percent of syncs that only start writing back", &given.ranges, 0, 100 },
	{ "drop", "percent of turns that drop the mapping", &given.drop, 0, 100 },
};

static const struct rig_program program = {
	.name = "writeback-race",
	.about = "writeback-race: writeback against appends and stores through shared mappings.\n"
		 "What was written must be there, in memory and on the disk.",
	.cases = "append-small append-large shared-stores mixed-writes hole-stores",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* A file that grows; lives in shared memory. */
struct log {
	uint32_t seq;		/* odd while the file starts anew */
	uint64_t size;		/* what write() has returned for */
	uint64_t generation;
};

static const struct race *race;
static struct plan plan;
static struct log *logs;
static uint64_t (*begun)[MAX_PAGES];	/* by writer and page: the number being stored */
static uint64_t (*stored)[MAX_PAGES];	/* and the one whose store has ended */
static int fds[MAX_WRITERS], direct_fd = -1;

static char title_lost[96], title_zero[96], title_corrupt[96], title_bus[96], title_short[96];
static char title_future[96];

static void make_titles(void)
{
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in %s", race->common.name)
	TITLE(title_lost, "written data lost");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_corrupt, "corrupt data");
	TITLE(title_future, "data that was never written");
	TITLE(title_short, "file shorter than what was written");
	TITLE(title_bus, "unexpected SIGBUS");
#undef TITLE
}

/* ---- appends ---- */

/* The word at a position says where it is, and in which of the files that this one was. Never 0. */
static uint64_t word_at(uint64_t generation, uint64_t position)
{
	return rig_mix(generation << 40 ^ position) | 1;
}

static void fill_words(uint64_t *buf, uint64_t generation, uint64_t from, size_t len)
{
	size_t i;

	for (i = 0; i < len / 8; i++)
		buf[i] = word_at(generation, from + i * 8);
}

/* Returns false when the words are not what was appended; on_disk: memory was dropped before. */
static bool check_words(const uint64_t *buf, uint64_t generation, uint64_t from, size_t len,
			const char *how, bool on_disk)
{
	size_t i;

	for (i = 0; i < len / 8; i++) {
		uint64_t want = word_at(generation, from + i * 8), got = buf[i];

		if (got == want)
			continue;
		rig_found(got ? title_corrupt : on_disk ? title_lost : title_zero,
			  "%s: %#" PRIx64 " at %" PRIu64 " (page %" PRIu64 " offset %" PRIu64
			  "), wanted %#" PRIx64, how, got, from + i * 8,
			  (from + i * 8) / RIG_PAGE, (from + i * 8) % RIG_PAGE, want);
		return false;
	}
	return true;
}

struct appender {
	struct log *log;
	unsigned int nr;
	int fd;
	struct rig_rng rng;
	uint64_t *buf;
	uint64_t counts[NR_COUNTERS];
};

static bool read_back(struct appender *a, uint64_t from, uint64_t to, const char *how, bool disk)
{
	size_t len;

	for (; from < to; from += len) {
		len = rig_min(to - from, (uint64_t)MAX_APPEND);
		if (!rig_pread_all(a->fd, a->buf, len, from)) {
			rig_found(title_short, "%s: no data at %" PRIu64 " of %" PRIu64, how, from,
				  to);
			return false;
		}
		if (!check_words(a->buf, a->log->generation, from, len, how, disk))
			return false;
		a->counts[C_LOOKS]++;
		a->counts[C_KIB] += len / 1024;
	}
	return true;
}

/* All of the file once more, from the disk, then from the start with other contents. */
static void start_anew(struct appender *a)
{
	static const char zeroes[RIG_PAGE];
	struct log *log = a->log;

	rig_add(&log->seq, 1);
	if (rig_lies("disk"))
		rig_pwrite_all(a->fd, zeroes, rig_min(log->size, RIG_PAGE), 0);
	if (fsync(a->fd))
		rig_broken("fsync: %s", strerror(errno));
	posix_fadvise(a->fd, 0, 0, POSIX_FADV_DONTNEED);
	read_back(a, 0, log->size, "after fsync and fadvise", true);
	rig_store(&log->size, 0);
	log->generation++;
	if (ftruncate(a->fd, 0))
		rig_broken("ftruncate: %s", strerror(errno));
	rig_add(&log->seq, 1);
	a->counts[C_FILES]++;
}

static size_t draw_length(struct appender *a, size_t room)
{
	size_t len;

	if (!race->large)
		len = 8 * (1 + rig_below(&a->rng, 500));
	else if (rig_below(&a->rng, 2))
		len = RIG_PAGE * (1 + rig_below(&a->rng, 16));
	else
		len = 8 * (1 + rig_below(&a->rng, MAX_APPEND / 8));
	/* half of the small ones end with a page, so that the next begins one */
	if (!race->large && rig_below(&a->rng, 2))
		len = RIG_PAGE - a->log->size % RIG_PAGE;
	return rig_min(len, room);
}

static void append_once(struct appender *a)
{
	struct log *log = a->log;
	uint64_t size = log->size, since;
	size_t len = draw_length(a, plan.pages * RIG_PAGE - size);

	fill_words(a->buf, log->generation, size, len);
	if (rig_lies("zero"))
		memset(a->buf, 0, len);
	if (!rig_pwrite_all(a->fd, a->buf, len, size)) {
		rig_broken("write: %s", strerror(errno));
		return;
	}
	rig_store(&log->size, size + len);
	a->counts[C_WRITES]++;
	since = size + len - rig_min(size + len, rig_max(len, RIG_PAGE) & -8ul);
	read_back(a, since, size + len, "read() after write()", false);
	if (log->size >= plan.pages * RIG_PAGE)
		start_anew(a);
}

static void appender_main(void *arg)
{
	static struct appender a;

	a.nr = (long)arg;
	a.log = &logs[a.nr];
	a.fd = fds[a.nr];
	a.rng = rig_rng_for(race->common.name, a.nr);
	a.buf = mmap(NULL, MAX_APPEND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a.buf == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	rig_pin(a.nr);
	while (!rig_stopped()) {
		append_once(&a);
		rig_flush_counts(a.counts, NR_COUNTERS);
	}
	start_anew(&a);
	rig_flush_counts(a.counts, NR_COUNTERS);
}

/* Looks at what has been published, through a mapping of its own that it keeps dropping. */
static void reader_main(void *arg)
{
	long nr = (long)arg % plan.writers;
	struct rig_rng rng = rig_rng_for(race->common.name, 100 + (long)arg);
	uint64_t counts[NR_COUNTERS] = { 0 }, size, generation, at, got;
	struct log *log = &logs[nr];
	uint32_t seq;
	char *base;
	long i;

	rig_catch_bus();
	base = mmap(NULL, plan.pages * RIG_PAGE, PROT_READ, MAP_SHARED, fds[nr], 0);
	if (base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	while (!rig_stopped()) {
		seq = rig_load(&log->seq);
		size = rig_load(&log->size);
		generation = log->generation;
		for (i = 0; i < 64 && size && !(seq & 1); i++) {
			/* the tail more often than the rest */
			at = rig_below(&rng, rig_below(&rng, 2) ? size / 8
							      : rig_min(size / 8, 1024ul));
			at = size - 8 - at * 8;
			if (sigsetjmp(rig_bus_env, 0)) {
				rig_store(&rig_bus_armed, 0);
				if (rig_load(&log->seq) == seq)
					rig_found(title_bus, "file %ld: page %" PRIu64 " of %" PRIu64
						  " bytes", nr, at / RIG_PAGE, size);
				break;
			}
			rig_store(&rig_bus_armed, 1);
			got = __atomic_load_n((uint64_t *)(base + at), __ATOMIC_RELAXED);
			rig_store(&rig_bus_armed, 0);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			if (rig_load(&log->seq) == seq)
				check_words(&got, generation, at, 8, "mapping", false);
			counts[C_LOOKS]++;
		}
		madvise(base, plan.pages * RIG_PAGE, MADV_DONTNEED);
		counts[C_DROPS]++;
		rig_flush_counts(counts, NR_COUNTERS);
		if (!size || (seq & 1))
			rig_sleep_ns(100000);
	}
}

static void sync_log(int fd, struct rig_rng *rng, uint64_t size)
{
	uint64_t from = size > 16 * RIG_PAGE ? (size - 16 * RIG_PAGE) & -RIG_PAGE : 0;

	if ((long)rig_below(rng, 100) < plan.ranges)
		sync_file_range(fd, from, 0, SYNC_FILE_RANGE_WRITE);
	else if (rig_below(rng, 2))
		fdatasync(fd);
	else
		fsync(fd);
}

static void take_place(long nr)
{
	rig_pin(nr);
	if (plan.urgent)
		rig_urgent();
}

static void log_syncer_main(void *arg)
{
	long nr = (long)arg % plan.writers;
	struct rig_rng rng = rig_rng_for(race->common.name, 200 + (long)arg);

	/* the first ones beside the writers, the others on CPUs of their own */
	take_place((long)arg);
	while (!rig_stopped()) {
		rig_sleep_ns(1000 * (1 + rig_below(&rng, plan.pause)));
		sync_log(fds[nr], &rng, rig_load(&logs[nr].size));
		rig_count(C_SYNCS, 1);
	}
}

/* ---- stores ---- */

struct writer {
	unsigned int nr;
	char *base;
	bool by_write;
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

static void store_once(struct writer *w, long page)
{
	uint64_t offset = page * RIG_PAGE + w->nr * WORD_GAP;
	uint64_t value = stored[w->nr][page] + 1;

	rig_store(&begun[w->nr][page], value);
	if (w->by_write) {
		if (!rig_lies("lost") && !rig_pwrite_all(fds[0], &value, 8, offset))
			rig_broken("pwrite: %s", strerror(errno));
	} else if (!rig_lies("lost")) {
		rig_store((uint64_t *)(w->base + offset), value);
	}
	rig_store(&stored[w->nr][page], value);
	w->counts[C_WRITES]++;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	long i, first;

	rig_pin(w->nr);
	while (!rig_stopped()) {
		first = rig_below(&w->rng, plan.pages);
		for (i = 0; i < 64; i++)
			store_once(w, (first + i) % plan.pages);
		if ((long)rig_below(&w->rng, 100) < plan.drop) {
			madvise(w->base, plan.pages * RIG_PAGE, MADV_DONTNEED);
			w->counts[C_DROPS]++;
		}
		rig_flush_counts(w->counts, NR_COUNTERS);
	}
	return NULL;
}

/* All writers in one address space: unmapping has to reach every CPU that they run on. */
static void writers_main(void *arg)
{
	static struct writer writers[MAX_WRITERS];
	char *base;
	long i;

	(void)arg;
	base = mmap(NULL, plan.pages * RIG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	if (base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	for (i = 0; i < plan.writers; i++) {
		writers[i].nr = i;
		writers[i].base = base;
		writers[i].by_write = race->mixed && i % 2;
		writers[i].rng = rig_rng_for(race->common.name, i);
	}
	rig_run_threads(writer_main, writers, sizeof(writers[0]), plan.writers);
}

/* Syncs, then compares the disk with what had been stored before. */
static void sync_and_check(struct rig_rng *rng, char *base, char *disk)
{
	static uint64_t before[MAX_WRITERS][MAX_PAGES];
	long w, page;
	int how = rig_below(rng, 3), ret;

	for (w = 0; w < plan.writers; w++)
		for (page = 0; page < plan.pages; page++)
			before[w][page] = rig_load(&stored[w][page]);
	if (how == 0)
		ret = fsync(fds[0]);
	else if (how == 1)
		ret = fdatasync(fds[0]);
	else
		ret = msync(base, plan.pages * RIG_PAGE, MS_SYNC);
	rig_count(C_SYNCS, 1);
	if (ret) {
		rig_broken("sync: %s", strerror(errno));
		return;
	}
	if (!rig_pread_all(direct_fd, disk, plan.pages * RIG_PAGE, 0)) {
		/* a store into a hole has just reserved a block: the disk has nothing to read */
		if (errno != EIO)
			rig_broken("direct read: %s", strerror(errno));
		rig_count(C_REFUSED, 1);
		return;
	}
	for (w = 0; w < plan.writers; w++) {
		for (page = 0; page < plan.pages; page++) {
			uint64_t got = *(uint64_t *)(disk + page * RIG_PAGE + w * WORD_GAP);
			uint64_t most = rig_load(&begun[w][page]);

			if (got >= before[w][page] && got <= most)
				continue;
			rig_found(got > most ? title_future : title_lost,
				  "writer %ld page %ld: %" PRIu64 " on the disk after %s, stored %"
				  PRIu64 " before it, %" PRIu64 " now", w, page, got,
				  how == 0 ? "fsync" : how == 1 ? "fdatasync" : "msync",
				  before[w][page], most);
		}
	}
	rig_count(C_LOOKS, plan.writers * plan.pages);
	rig_count(C_KIB, plan.pages * RIG_PAGE / 1024);
}

static void store_syncer_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, 200 + (long)arg);
	size_t len = plan.pages * RIG_PAGE;
	char *base, *disk;

	base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	disk = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED || disk == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	take_place((long)arg);
	while (!rig_stopped()) {
		rig_sleep_ns(1000 * (1 + rig_below(&rng, plan.pause)));
		if ((long)rig_below(&rng, 100) < plan.ranges) {
			sync_file_range(fds[0], 0, 0, SYNC_FILE_RANGE_WRITE);
			rig_count(C_SYNCS, 1);
		} else {
			sync_and_check(&rng, base, disk);
		}
	}
	sync_and_check(&rng, base, disk);
}

/* ---- cases ---- */

/* Returns why this file system cannot do it, or NULL. */
static const char *unsupported(const void *c)
{
	const struct race *r = c;
	struct statfs fs;

	if (statfs(rig_dir, &fs))
		return "statfs failed";
	if (fs.f_type == TMPFS_MAGIC)
		return "tmpfs writes nothing back";
	return r->kind == STORES ? rig_no_direct() : NULL;
}

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(unsigned int episode)
{
	static const long writers[] = { 1, 1, 2, 3 };
	static const long syncers[] = { 1, 1, 2, 3 };
	static const long pages[] = { 16, 64, 128, 256 };
	static const long pauses[] = { 200, 1000, 1000, 5000 };
	static const long ranges[] = { 0, 50, 80, 95 };
	static const long drops[] = { 0, 10, 50 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.writers = rig_min(rig_pick(&rng, writers) * rig_max(1, cpus / 8), rig_min(cpus, MAX_WRITERS));
	p.syncers = rig_min(rig_pick(&rng, syncers) * rig_max(1, cpus / 8), MAX_SYNCERS);
	p.readers = rig_below(&rng, 3);
	p.pages = rig_pick(&rng, pages);
	p.pause = rig_pick(&rng, pauses);
	p.urgent = !!rig_below(&rng, 4);
	p.ranges = rig_pick(&rng, ranges);
	p.drop = rig_pick(&rng, drops);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	/* urgent ones on every CPU would leave no time to write */
	if (plan.urgent && race->kind == APPEND)
		plan.syncers = rig_max(plan.syncers, plan.writers);
}

static void start_appends(unsigned int episode)
{
	long i;

	memset(logs, 0, MAX_WRITERS * sizeof(*logs));
	for (i = 0; i < plan.writers; i++) {
		fds[i] = rig_open_file("append", episode * MAX_WRITERS + i, NULL);
		logs[i].generation = 1;
	}
	for (i = 0; i < plan.writers; i++)
		rig_spawn(appender_main, (void *)i);
	for (i = 0; i < plan.syncers && !rig_lies("idle"); i++)
		rig_spawn(log_syncer_main, (void *)i);
	for (i = 0; i < plan.readers; i++)
		rig_spawn(reader_main, (void *)i);
}

static void start_stores(unsigned int episode)
{
	static const char zeroes[RIG_PAGE];
	long i;

	memset(begun, 0, MAX_WRITERS * sizeof(*begun));
	memset(stored, 0, MAX_WRITERS * sizeof(*stored));
	fds[0] = rig_open_file("stores", episode, &direct_fd);
	if (ftruncate(fds[0], plan.pages * RIG_PAGE))
		rig_bail("ftruncate: %s", strerror(errno));
	for (i = 0; i < plan.pages && !race->sparse; i++)
		if (!rig_pwrite_all(fds[0], zeroes, RIG_PAGE, i * RIG_PAGE))
			rig_bail("write: %s", strerror(errno));
	rig_spawn(writers_main, NULL);
	for (i = 0; i < plan.syncers && !rig_lies("idle"); i++)
		rig_spawn(store_syncer_main, (void *)i);
}

static void run_episode(unsigned int episode, int64_t ns)
{
	long i, nr = 1;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_need_space(2ull * MAX_WRITERS * MAX_PAGES * RIG_PAGE);
	rig_case_again();
	if (race->kind == APPEND) {
		start_appends(episode);
		nr = plan.writers;
	} else {
		start_stores(episode);
	}
	rig_case_run(ns);
	for (i = 0; i < nr; i++)
		close(fds[i]);
	if (direct_fd >= 0)
		close(direct_fd);
	direct_fd = -1;
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	/* What a slow emulated machine manages and still sees a race in. */
	const struct rig_gate gates[] = {
		{ C_WRITES, rig_max(20, rig_min(1000, 50 * ns / second)) },
		{ C_SYNCS, rig_max(5, rig_min(200, 10 * ns / second)) },
		{ C_KIB, 64 },
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
	.unsupported = unsupported,
	.run = run_race,
};

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	logs = rig_share(MAX_WRITERS * sizeof(*logs));
	begun = rig_share(MAX_WRITERS * sizeof(*begun));
	stored = rig_share(MAX_WRITERS * sizeof(*stored));

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
