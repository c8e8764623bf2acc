// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench-faults: what page faults on a file cost when many take them at once.
 *
 * Not a race: nothing is accused here. Each case does a fixed amount of work,
 * the same on every kernel and for every seed, and counts: minor faults above
 * what fault-around makes necessary, time, and the latency of each fault, as
 * median, 99th percentile and histogram. The work of a case stands between two
 * marks, instructions that do nothing and that a plugin of QEMU knows (x86.h of
 * rig/perturbation/qemuplugin), so that instructions and atomics can be counted
 * for just this work. `rig bench` compares kernels.
 *
 * A sweep reads (or writes) one byte of each page of a mapping of the file and
 * drops the page table entries again with MADV_DONTNEED; the page cache and the
 * page tables stay. All mappers go through the pages in the same order, which is
 * what an exec storm or a web server's workers do. --faults is spread over the
 * mappers: the more there are, the fewer sweeps each does.
 *
 *   one-*       a single process: the price
 *   many-*      many processes on one small file: the case that the page lock
 *               is bad at. private and shared; read, and write with a copy of
 *               the page (cow) or without; 4k and 2m set fault_around_bytes
 *   threads-*   as many threads of one process, each with a mapping of its own
 *   cold-*      the pages are not cached and locked for I/O when others want
 *               them; not on tmpfs
 *   hog-*       others write to the same pages meanwhile and hold their locks:
 *               where the lock is really taken there is no relief to be had
 *   huge-*      the file is one huge page, mapped as such
 *   exec        a storm of exec of one binary that lies on the file system
 *
 * PASS means: the work was done. What it cannot see: anything about
 * correctness; and time under emulation is a weak hint only.
 */
#include "rig.h"

#include <spawn.h>

#define MAX_FAULTS	200000
#define HUGE_PAGES	512
#define FAULTS_OF_EXEC	40	/* about */
#define QUIT		"--quit-at-once"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

static void mark_begin(void)
{
	/* See x86.h of the plugin: nopl 0xNN474952(%rax), where NN is the number. */
	asm volatile(".byte 0x0f, 0x1f, 0x80, 'R', 'I', 'G', 0" : : : "memory");
}

static void mark_end(void)
{
	asm volatile(".byte 0x0f, 0x1f, 0x80, 'R', 'I', 'G', 1" : : : "memory");
}

static long opt_mappers = -1, opt_pages = 256, opt_faults = 4000;

static struct rig_option options[] = {
	{ "mappers", "of the cases with many; not given: 4 for each CPU", &opt_mappers, 1, 64 },
	{ "pages", "of the file, a multiple of 16", &opt_pages, 16, 4096 },
	{ "faults", "that all mappers together are to take in a case", &opt_faults, 16,
	  MAX_FAULTS },
};

static const struct rig_program program = {
	.name = "bench-faults",
	.about = "bench-faults: what page faults on a file cost when many take them at once.",
	.cases = "one-* many-* threads-* of private and shared, read, write and cow; cold-* hog-* huge-* exec",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

enum who { ONE, MANY, THREADS, EXEC };
enum how { READ, WRITE, COW };
enum what { WARM, COLD, HOG, HUGE_PAGE };

struct bench {
	struct rig_case common;
	enum who who;
	enum how how;
	bool shared;
	enum what what;
	long around;		/* fault_around_bytes, 0 = as it is */
};

static const struct bench benches[] = {
	{ { "one-private-read", 1 }, ONE, READ, false, WARM, 0 },
	{ { "one-shared-read", 1 }, ONE, READ, true, WARM, 0 },
	{ { "one-private-cow", 1 }, ONE, COW, false, WARM, 0 },
	{ { "one-private-read-4k", 1 }, ONE, READ, false, WARM, 4 << 10 },
	{ { "many-private-read", 1 }, MANY, READ, false, WARM, 0 },
	{ { "many-shared-read", 1 }, MANY, READ, true, WARM, 0 },
	{ { "many-private-read-4k", 1 }, MANY, READ, false, WARM, 4 << 10 },
	{ { "many-private-read-2m", 1 }, MANY, READ, false, WARM, 2 << 20 },
	{ { "many-private-cow", 1 }, MANY, COW, false, WARM, 0 },
	{ { "many-shared-write", 1 }, MANY, WRITE, true, WARM, 0 },
	{ { "threads-private-read", 1 }, THREADS, READ, false, WARM, 0 },
	{ { "threads-private-cow", 1 }, THREADS, COW, false, WARM, 0 },
	{ { "cold-private-read", 1 }, MANY, READ, false, COLD, 0 },
	{ { "hog-private-read", 1 }, MANY, READ, false, HOG, 0 },
	{ { "huge-private-read", 1 }, MANY, READ, false, HUGE_PAGE, 0 },
	{ { "exec", 1 }, EXEC, READ, false, WARM, 0 },
};

/* What the mappers and their parent share. */
struct meeting {
	uint32_t go;		/* rounds that were begun */
	uint32_t at_work;	/* mappers that are not done with this round, or not ready */
	uint32_t hogs_stop;
	uint64_t minflt;
	uint64_t majflt;
	uint32_t latencies[MAX_FAULTS];	/* ns */
};

struct mapper {
	unsigned int nr;
	char *map;		/* of a thread */
};

static struct meeting *meeting;
static const struct bench *bench;
static int file;
static char binary[4096];
static long around_before;
static long mappers, pages, window, windows, sweeps, rounds;

/* ---- what one mapper does ---- */

static char *map_file(void)
{
	int prot = PROT_READ | (bench->how == READ ? 0 : PROT_WRITE);
	char *room = rig_room(pages * RIG_PAGE);

	if (room && mmap(room, pages * RIG_PAGE, prot, MAP_FIXED |
			 (bench->shared ? MAP_SHARED : MAP_PRIVATE), file, 0) == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		room = NULL;
	}
	return room;
}

static void touch(char *p)
{
	if (bench->how == READ)
		(void)__atomic_load_n(p, __ATOMIC_RELAXED);
	else
		__atomic_store_n(p, 1, __ATOMIC_RELAXED);
}

/* One sweep; the first page of each window is the one whose fault is meant and timed. */
static void sweep(char *map, uint32_t *latencies)
{
	int64_t before;
	long i, j;

	for (i = 0; i < windows; i++) {
		before = rig_now();
		touch(map + i * window * RIG_PAGE);
		latencies[i] = rig_min(rig_now() - before, (int64_t)UINT32_MAX);
		for (j = 1; j < window; j++)
			touch(map + (i * window + j) * RIG_PAGE);
	}
	madvise(map, pages * RIG_PAGE, MADV_DONTNEED);
}

/* Execs the binary once, which ends at once. */
static void run_binary(uint32_t *latency)
{
	char *const argv[] = { binary, QUIT, NULL };
	int64_t before = rig_now();
	int status;
	pid_t pid;

	if (posix_spawn(&pid, binary, NULL, NULL, argv, argv + 2) ||
	    waitpid(pid, &status, 0) != pid || status)
		rig_broken("%s cannot be executed", binary);
	*latency = rig_min(rig_now() - before, (int64_t)UINT32_MAX);
}

static void add_faults(const struct rusage *before, const struct rusage *after)
{
	__atomic_fetch_add(&meeting->minflt, after->ru_minflt - before->ru_minflt,
			   __ATOMIC_RELAXED);
	__atomic_fetch_add(&meeting->majflt, after->ru_majflt - before->ru_majflt,
			   __ATOMIC_RELAXED);
}

static void done_with_round(void)
{
	if (rig_add(&meeting->at_work, -1u) == 1)
		rig_wake(&meeting->at_work);
}

static void *mapper_thread(void *arg)
{
	int whose = bench->who == EXEC ? RUSAGE_CHILDREN : RUSAGE_THREAD;
	const struct mapper *self = arg;
	uint32_t *latencies = meeting->latencies + self->nr * rounds * sweeps * windows;
	struct rusage before, after;
	long round, i;

	/* What is touched for the first time here is not part of the work. */
	for (i = 0; i < 2; i++) {
		if (bench->who == EXEC)
			run_binary(latencies);
		else
			sweep(self->map, latencies);
	}
	memset(latencies, 0, rounds * sweeps * windows * sizeof(*latencies));
	getrusage(whose, &before);
	getrusage(whose, &after);
	done_with_round();
	for (round = 0; round < rounds; round++) {
		rig_wait_change(&meeting->go, round);
		getrusage(whose, &before);
		for (i = 0; i < sweeps && !rig_stopped(); i++, latencies += windows) {
			if (bench->who == EXEC)
				run_binary(latencies);
			else
				sweep(self->map, latencies);
		}
		getrusage(whose, &after);
		add_faults(&before, &after);
		done_with_round();
	}
	return NULL;
}

static void mapper_process(void *arg)
{
	struct mapper self[RIG_MAX_THREADS];
	long nr = bench->who == THREADS ? mappers : 1, i;

	for (i = 0; i < nr; i++) {
		self[i].nr = (uintptr_t)arg + i;
		self[i].map = bench->who == EXEC ? NULL : map_file();
		if (bench->who != EXEC && !self[i].map)
			return;
	}
	rig_run_threads(mapper_thread, self, sizeof(*self), nr);
}

/* Takes the lock of one page after the other, as long as a copy into the page lasts. */
static void hog_process(void *arg)
{
	static char page[RIG_PAGE];
	long i = (uintptr_t)arg;

	for (; !rig_load(&meeting->hogs_stop) && !rig_stopped(); i++)
		rig_pwrite_all(file, page, RIG_PAGE, i % pages * RIG_PAGE);
}

/* ---- a case ---- */

static const char *unsupported(const void *c)
{
	const struct bench *b = c;

	if (b->what == COLD && rig_statfs().f_type == 0x01021994)	/* TMPFS_MAGIC */
		return "tmpfs has no disk";
	if (b->around && rig_read_long(RIG_FAULT_AROUND, -1) < 0)
		return "fault_around_bytes cannot be set here";
	return NULL;
}

/* A file of its own for each case, in pages that were written one by one. */
static void make_file(void)
{
	static char page[RIG_PAGE];
	long i;

	file = rig_open_file("bench", 0, NULL);
	for (i = 0; i < pages; i++)
		if (!rig_pwrite_all(file, page, RIG_PAGE, i * RIG_PAGE))
			rig_bail("write: %s", strerror(errno));
	fsync(file);
}

static void copy_binary(void)
{
	static char piece[1 << 16];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to;
	off_t at = 0;
	ssize_t n;

	snprintf(binary, sizeof(binary), "%s/rig-bench-%d", rig_dir, (int)getpid());
	to = open(binary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	while ((n = read(from, piece, sizeof(piece))) > 0 && rig_pwrite_all(to, piece, n, at))
		at += n;
	if (from < 0 || to < 0 || n)
		rig_bail("%s cannot be written: %s", binary, strerror(errno));
	close(from);
	fsync(to);
	close(to);
}

/* Makes the file one huge page. Returns false where that cannot be. */
static bool collapse(void)
{
	char *map = map_file();
	long i;
	bool ok;

	for (i = 0; map && i < pages; i++)
		touch(map + i * RIG_PAGE);
	ok = map && !madvise(map, pages * RIG_PAGE, MADV_COLLAPSE);
	if (map)
		munmap(map, pages * RIG_PAGE);
	return ok;
}

static void wait_for_mappers(void)
{
	uint32_t left;

	while ((left = rig_load(&meeting->at_work)) && !rig_stopped())
		rig_wait_change(&meeting->at_work, left);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The smallest latency that the share of all, in thousandths, does not exceed. */
static uint32_t quantile(long nr, long share)
{
	return meeting->latencies[rig_min(nr - 1, nr * share / 1000)];
}

/*
 * Prints how many of the latencies, which are sorted, are in each bucket. There are
 * eight to an octave, each named by the least that is in it; see rig/costs/latencies.py.
 */
static void report_latencies(long nr)
{
	uint32_t low, width;
	long i, first;

	for (i = 0; i < nr; ) {
		low = meeting->latencies[i];
		width = 1u << (rig_max(31 - __builtin_clz(low | 1), 3) - 3);
		low &= ~(width - 1);
		for (first = i; i < nr && meeting->latencies[i] - low < width; i++)
			;
		rig_diag("counter latency_%u=%ld", low, i - first);
	}
}

/* Sizes of the case: fewer sweeps where there are more mappers or more faults in a sweep. */
static void plan(void)
{
	long around = rig_read_long(RIG_FAULT_AROUND, 64 << 10);

	mappers = bench->who == ONE ? 1 : opt_mappers > 0 ? opt_mappers :
		  rig_min(4u * rig_cpus(), 64u);
	pages = bench->what == HUGE_PAGE ? HUGE_PAGES : opt_pages;
	window = bench->how != READ ? 1 :
		 bench->what == HUGE_PAGE ? pages : rig_min(around / (long)RIG_PAGE, pages);
	windows = bench->who == EXEC ? 1 : (pages + window - 1) / window;
	sweeps = rig_max(1l, opt_faults / (mappers * windows));
	rounds = 1;
	if (bench->who == EXEC)
		sweeps = rig_max(1l, opt_faults / (FAULTS_OF_EXEC * mappers));
	if (bench->what == COLD) {
		rounds = rig_max(1l, sweeps / 4);	/* each reads the file anew */
		sweeps = 1;
	}
	if (mappers * rounds * sweeps * windows > MAX_FAULTS)
		rig_bail("more than %d faults in a case", MAX_FAULTS);
}

static void report(int64_t ns)
{
	long touched = mappers * rounds * sweeps * windows;

	qsort(meeting->latencies, touched, sizeof(*meeting->latencies), compare);
	rig_diag("counter mappers=%ld", mappers);
	rig_diag("counter pages=%ld", bench->who == EXEC ? touched :
		 mappers * rounds * sweeps * pages);
	rig_diag("counter ideal=%ld", bench->who == EXEC ? 0 : touched);
	rig_diag("counter timed=%ld", touched);
	rig_diag("counter minflt=%" PRIu64, meeting->minflt);
	rig_diag("counter majflt=%" PRIu64, meeting->majflt);
	rig_diag("counter elapsed_ns=%" PRId64, ns);
	rig_diag("counter median_ns=%u", quantile(touched, 500));
	rig_diag("counter p99_ns=%u", quantile(touched, 990));
	report_latencies(touched);
}

static void run_rounds(void)
{
	int64_t start, ns = 0;
	long round;

	wait_for_mappers();
	for (round = 0; round < rounds && !rig_stopped(); round++) {
		if (bench->what == COLD)
			posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
		rig_store(&meeting->at_work, mappers);
		if (!round)
			mark_begin();
		start = rig_now();
		rig_store(&meeting->go, round + 1);
		rig_wake(&meeting->go);
		wait_for_mappers();
		ns += rig_now() - start;
	}
	mark_end();
	rig_store(&meeting->hogs_stop, 1);
	rig_case_run(RIG_STUCK_NS);
	report(ns);
}

static void run_case(const void *c, int64_t unused)
{
	long i, nr;

	(void)unused;
	bench = c;
	rig_case_begin(bench->common.name);
	rig_fault_around(bench->around ? bench->around : around_before);
	plan();
	meeting = rig_share(sizeof(*meeting));
	if (bench->who == EXEC)
		copy_binary();
	else
		make_file();
	if (bench->what == HUGE_PAGE && !collapse()) {
		rig_skip(bench->common.name, "unsupported: no huge page for this file");
	} else {
		meeting->at_work = mappers;
		nr = bench->who == THREADS ? 1 : mappers;
		for (i = 0; i < nr; i++)
			rig_spawn(mapper_process, (void *)i);
		for (i = 0; bench->what == HOG && i < (long)rig_cpus(); i++)
			rig_spawn(hog_process, (void *)(i * pages / rig_cpus()));
		run_rounds();
		rig_case_end(bench->common.name, NULL, 0, NULL, 0);
	}
	if (bench->who == EXEC)
		unlink(binary);
	else
		close(file);
	munmap(meeting, sizeof(*meeting));
}

int main(int argc, char **argv)
{
	const struct rig_suite suite = {
		.program = &program,
		.cases = benches,
		.size = sizeof(*benches),
		.nr = RIG_COUNT(benches),
		.fault_around = true,
		.unsupported = unsupported,
		.run = run_case,
	};

	if (argc == 2 && !strcmp(argv[1], QUIT))
		return RIG_EXIT_PASS;
	rig_suite_start(&suite, argc, argv);
	around_before = rig_read_long(RIG_FAULT_AROUND, 0);
	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
