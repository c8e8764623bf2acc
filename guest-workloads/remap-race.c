// SPDX-License-Identifier: GPL-2.0-only
/*
 * remap-race: mremap, MADV_DONTNEED, munmap, fork and exec against the accesses
 * and the faults of other threads, while pages leave the page cache.
 *
 *   move-private, move-shared  one thread moves a mapping to and fro, others go
 *                              on reading at the address that they know; an
 *                              urgent remover punches the pages and writes them
 *                              anew
 *   zap-store                  one thread unmaps dirty pages of a shared
 *                              mapping, others store into it; an urgent remover
 *                              truncates the file or punches holes
 *   exec                       processes fork and run one binary from the file
 *                              system under test, whose pages are dropped from
 *                              the page cache
 *
 * The urgent remover shares a CPU with the thread whose window it is after. It
 * preempts that one wherever it is; below a page table lock this is when the
 * lock is dropped, before anything else is done.
 *
 * Legal outcomes:
 *   - move-*: SIGSEGV, when the address is not mapped at the moment; else a
 *     stamp of the right page, younger than the last removal that had returned
 *     before the read began; zeroes and torn stamps while the remover is at
 *     work. An entry in the TLB of a CPU must not outlive its PTE for longer
 *     than the page table lock is held: then the page may be somebody else's.
 *   - zap-store: SIGBUS past the end of the file, and any data of the file. A
 *     thread may see removed data while a sibling unmaps the same range, on a
 *     good kernel too, so stale data accuses nobody there; the kernel's own
 *     assertions have to.
 *   - exec: the text of the child is that of its parent, and it ends with 0.
 * Wrong accounting is the kernel's to notice (see the console).
 *
 * PASS means: moves, removals and faults were enough, and every look was legal.
 * What it cannot see: stale entries that nobody reads through, stores through
 * them (writeback-race has the oracle for lost stores), huge page table moves.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/magic.h>
#include <pthread.h>

#define MAX_PAGES	500	/* less than a page table, so that nothing moves as a whole */
#define MAX_HOT		32	/* more in one flush would flush everything */
#define MAX_READERS	16

enum kind { MOVE, ZAP, EXEC };

struct race {
	struct rig_case common;
	enum kind kind;
	bool shared;
};

static const struct race races[] = {
	{ { "move-private", 3 }, MOVE, false },
	{ { "move-shared", 2 }, MOVE, true },
	{ { "zap-store", 3 }, ZAP, true },
	{ { "exec", 2 }, EXEC, false },
};

enum counter {
	C_MOVES, C_ZAPS, C_REMOVALS, C_READS, C_SEGV, C_SIGBUS, C_TORN, C_STORES, C_EXECS, C_DROPS,
	NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"moves", "zaps", "removals", "reads", "segv", "sigbus", "torn", "stores", "execs", "drops",
};

struct plan {
	long readers;		/* threads beside the one that moves or unmaps */
	long pages;		/* of the mapping */
	long hot;		/* of them are removed, and read */
	long shift;		/* pages between the addresses' places in their page tables */
	long pause;		/* most microseconds between two removals */
	long linger;		/* microseconds that the remover stays on the CPU afterwards */
	long unmap;		/* percent of unmappings that are munmap() */
	long truncate;		/* percent of removals that are ftruncate() */
	long fault_around;
};

static long plan_ms = 1000;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "readers", "threads that access what another one moves", &given.readers, 1, MAX_READERS },
	{ "pages", "of the mapping", &given.pages, 32, MAX_PAGES },
	{ "hot", "of them are removed and read", &given.hot, 1, MAX_HOT },
	{ "shift", "pages by which old and new address differ in alignment", &given.shift, 1, 11 },
	{ "pause", "most microseconds between two removals", &given.pause, 1, 1000000 },
	{ "linger", "microseconds that the remover stays on the CPU", &given.linger, 0, 100000 },
	{ "unmap", "percent of unmappings by munmap", &given.unmap, 0, 100 },
	{ "truncate", "percent of removals by ftruncate", &given.truncate, 0, 100 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "remap-race",
	.about = "remap-race: mremap, unmapping, fork and exec against other threads' accesses.\n"
		 "What is read at an address that was moved away must not be somebody else's.",
	.cases = "move-private move-shared zap-store exec",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* Lives in shared memory. */
struct shared {
	uint32_t seq;		/* odd while the remover is at work */
	uint64_t newest;	/* youngest generation that the remover began to write */
	uint64_t dead[MAX_PAGES];	/* youngest generation that was removed */
	uint64_t where;		/* address of the mapping, 0 = on its way */
};

static const struct race *race;
static struct plan plan;
static struct shared *shared;
static int file_fd = -1;
static char *places[2];		/* between which the mapping moves */
static char exec_path[4096];

static char title_stale[96], title_wrong[96], title_corrupt[96], title_zero[96], title_future[96];

static void make_titles(void)
{
	const char *kind = race->shared ? "shared" : "private";

#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in a %s mapping that moves", kind)
	TITLE(title_stale, "stale data");
	TITLE(title_wrong, "data of another page");
	TITLE(title_corrupt, "corrupt data");
	TITLE(title_zero, "zeroes instead of data");
	TITLE(title_future, "data that was never written");
#undef TITLE
}

static size_t map_len(void)
{
	return plan.pages * RIG_PAGE;
}

/* ---- SIGSEGV and SIGBUS are answers ---- */

static __thread sigjmp_buf fault_env;
static __thread uint32_t fault_armed;

static void on_fault(int sig)
{
	if (rig_load(&fault_armed))
		siglongjmp(fault_env, sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_faults(void)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* ---- move-* ---- */

struct thread {
	unsigned int nr;
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

static void judge(struct thread *t, uint64_t index, const struct rig_stamp *seen, uint64_t dead,
		  bool stable)
{
	uint64_t newest = rig_load(&shared->newest);
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], index, end, dead, newest)) {
		case RIG_LIVE:
			break;
		case RIG_ZERO:
			title = stable ? title_zero : NULL;
			break;
		case RIG_TORN:
			t->counts[C_TORN]++;
			title = stable ? title_corrupt : NULL;
			break;
		case RIG_STALE:
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
			rig_found(title, "page %" PRIu64 " %s: magic %#" PRIx64 " generation %"
				  PRIu64 " where %#" PRIx64 ", dead %" PRIu64 ", newest %" PRIu64,
				  index, end == RIG_HEAD ? "head" : "tail", seen[end].magic,
				  seen[end].generation, seen[end].where, dead, newest);
	}
}

/* Returns false when the address was not mapped. */
static bool read_hot(struct thread *t, char *base, uint64_t index)
{
	struct rig_stamp seen[RIG_ENDS];
	char *page = base + index * RIG_PAGE;
	uint64_t dead;
	uint32_t seq;

	seq = rig_load(&shared->seq);
	dead = rig_load(&shared->dead[index]);
	t->counts[C_READS]++;
	switch (sigsetjmp(fault_env, 0)) {
	case 0:
		break;
	case SIGSEGV:
		t->counts[C_SEGV]++;
		rig_store(&fault_armed, 0);
		return false;
	default:
		rig_store(&fault_armed, 0);
		rig_found("unexpected SIGBUS in a mapping that moves", "page %" PRIu64, index);
		return false;
	}
	rig_store(&fault_armed, 1);
	seen[RIG_HEAD] = rig_stamp_read(rig_stamp_at(page, RIG_HEAD));
	seen[RIG_TAIL] = rig_stamp_read(rig_stamp_at(page, RIG_TAIL));
	rig_store(&fault_armed, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	judge(t, index, seen, dead, !(seq & 1) && rig_load(&shared->seq) == seq);
	return true;
}

/*
 * Reads the same few pages again and again: only what is in the TLB can be read
 * without a fault, and a fault waits for the end of the move.
 */
static void *move_reader_main(void *arg)
{
	struct thread *t = arg;
	uint64_t first, nr, i;
	char *base;

	rig_pin(1 + t->nr);
	while (!rig_stopped()) {
		base = (char *)rig_load(&shared->where);
		if (!base) {
			sched_yield();
			continue;
		}
		nr = 1 + rig_below(&t->rng, rig_min(plan.hot, 8));
		first = rig_below(&t->rng, plan.hot - nr + 1);
		for (i = 0; i < 20000 && !rig_stopped(); i++)
			if (!read_hot(t, base, first + i % nr))
				break;
		rig_flush_counts(t->counts, NR_COUNTERS);
	}
	return NULL;
}

static bool map_at(char *place)
{
	int prot = PROT_READ | (race->kind == ZAP ? PROT_WRITE : 0);
	int flags = MAP_FIXED | (race->shared ? MAP_SHARED : MAP_PRIVATE);

	if (mmap(place, map_len(), prot, flags, file_fd, 0) != MAP_FAILED)
		return true;
	rig_broken("mmap: %s", strerror(errno));
	return false;
}

static void move_loop(struct thread *t)
{
	char *from = places[0], *to = places[1], *swap;

	if (!map_at(from))
		return;
	rig_store(&shared->where, (uint64_t)from);
	while (!rig_stopped()) {
		/* every PTE that there is makes the page table lock be held for longer */
		madvise(from, map_len(), MADV_POPULATE_READ);
		rig_sleep_ns(1000 * rig_below(&t->rng, 300));
		if (mremap(from, map_len(), map_len(), MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
		    to) {
			rig_broken("mremap: %s", strerror(errno));
			return;
		}
		rig_store(&shared->where, (uint64_t)to);
		swap = from;
		from = to;
		to = swap;
		t->counts[C_MOVES]++;
		rig_flush_counts(t->counts, NR_COUNTERS);
	}
}

static void linger(void)
{
	int64_t end = rig_now() + plan.linger * 1000;

	while (rig_now() < end)
		;
}

static void remove_hot(char *buf)
{
	uint64_t newest = shared->newest;
	long i;

	rig_add(&shared->seq, 1);
	if (!rig_lies("stale") &&
	    fallocate(file_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, plan.hot * RIG_PAGE))
		rig_broken("fallocate: %s", strerror(errno));
	for (i = 0; i < plan.hot; i++)
		rig_store(&shared->dead[i], newest);
	rig_store(&shared->newest, newest + 1);
	for (i = 0; i < plan.hot; i++)
		rig_stamp_page(buf + i * RIG_PAGE, newest + 1, i);
	if (rig_lies("corrupt"))
		memset(buf, 0xaa, plan.hot * RIG_PAGE);
	if (!rig_pwrite_all(file_fd, buf, plan.hot * RIG_PAGE, 0))
		rig_broken("write: %s", strerror(errno));
	rig_add(&shared->seq, 1);
	linger();
}

/* ---- zap-store ---- */

static void store(struct thread *t, char *page)
{
	if (sigsetjmp(fault_env, 0)) {
		rig_store(&fault_armed, 0);
		t->counts[C_SIGBUS]++;
		return;
	}
	rig_store(&fault_armed, 1);
	__atomic_fetch_add((uint64_t *)page + t->nr, 1, __ATOMIC_RELAXED);
	rig_store(&fault_armed, 0);
	t->counts[C_STORES]++;
}

static void store_all(struct thread *t, char *base)
{
	long i;

	for (i = 0; i < plan.pages; i++)
		store(t, base + i * RIG_PAGE);
}

static void *store_main(void *arg)
{
	struct thread *t = arg;

	rig_pin(1 + t->nr);
	while (!rig_stopped()) {
		store_all(t, places[0]);
		rig_flush_counts(t->counts, NR_COUNTERS);
	}
	return NULL;
}

static void zap_loop(struct thread *t)
{
	while (!rig_stopped()) {
		store_all(t, places[0]);
		if ((long)rig_below(&t->rng, 100) >= plan.unmap)
			madvise(places[0], map_len(), MADV_DONTNEED);
		else if (!map_at(places[0]))	/* in one go, or a store would find nothing */
			return;
		t->counts[C_ZAPS]++;
		rig_flush_counts(t->counts, NR_COUNTERS);
	}
}

static void remove_all(struct rig_rng *rng)
{
	off_t len = plan.pages * RIG_PAGE;

	if ((long)rig_below(rng, 100) >= plan.truncate) {
		if (fallocate(file_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, len))
			rig_broken("fallocate: %s", strerror(errno));
		return;
	}
	if (ftruncate(file_fd, 0) || ftruncate(file_fd, len))
		rig_broken("ftruncate: %s", strerror(errno));
}

/* ---- the processes of both ---- */

static void remover_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, 100);
	char *buf;

	(void)arg;
	buf = mmap(NULL, MAX_HOT * RIG_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	rig_pin(0);
	rig_urgent();
	while (!rig_stopped()) {
		rig_sleep_ns(1000 * (100 + rig_below(&rng, plan.pause)));
		if (rig_lies("idle"))
			continue;
		if (race->kind == MOVE)
			remove_hot(buf);
		else
			remove_all(&rng);
		rig_count(C_REMOVALS, 1);
	}
}

static void process_main(void *arg)
{
	static struct thread threads[1 + MAX_READERS];
	pthread_t ids[1 + MAX_READERS];
	long i;

	(void)arg;
	catch_faults();
	for (i = 0; i <= plan.readers; i++) {
		threads[i].nr = i ? i - 1 : MAX_READERS;
		threads[i].rng = rig_rng_for(race->common.name, i);
	}
	if (race->kind == ZAP && !map_at(places[0]))
		return;
	for (i = 1; i <= plan.readers; i++) {
		if (pthread_create(&ids[i], NULL,
				   race->kind == MOVE ? move_reader_main : store_main,
				   &threads[i])) {
			rig_broken("pthread_create failed");
			return;
		}
	}
	rig_pin(0);
	if (race->kind == MOVE)
		move_loop(&threads[0]);
	else
		zap_loop(&threads[0]);
	for (i = 1; i <= plan.readers; i++)
		pthread_join(ids[i], NULL);
}

/* ---- exec ---- */

extern const char __executable_start[], etext[];

/* Of the program's own text, as it is mapped. */
static uint64_t text_sum(void)
{
	const uint64_t *p = (const uint64_t *)(((uintptr_t)__executable_start + 7) & ~7ul);
	uint64_t sum = 0;

	for (; (const char *)(p + 1) <= etext; p++)
		sum = rig_mix(sum ^ *p);
	return sum;
}

/* The child: ends with 0 when its text is what its parent's is. */
static int exec_child(const char *sum)
{
	return strtoull(sum, NULL, 16) == text_sum() ? 0 : 3;
}

static void exec_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, (long)arg);
	char sum[32];
	int status;
	pid_t pid;

	snprintf(sum, sizeof(sum), "%" PRIx64, text_sum() + rig_lies("corrupt"));
	while (!rig_stopped()) {
		pid = rig_below(&rng, 2) ? fork() : vfork();
		if (pid < 0) {
			rig_broken("fork: %s", strerror(errno));
			return;
		}
		if (!pid) {
			execl(exec_path, exec_path, "--exec-child", sum, NULL);
			_exit(127);
		}
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
			rig_broken("exec %s fails", exec_path);
		else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			rig_broken("a child was killed from outside (out of memory?)");
		else if (status)
			rig_found("program text is corrupt after exec", "status %#x",
				  (unsigned int)status);
		rig_count(C_EXECS, 1);
	}
}

static void exec_dropper_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, 100);
	int fd = open(exec_path, O_RDONLY | O_CLOEXEC);

	(void)arg;
	while (!rig_stopped()) {
		rig_sleep_ns(1000 * (100 + rig_below(&rng, 10 * plan.pause)));
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		rig_count(C_DROPS, 1);
	}
	close(fd);
}

/* A copy of this program on the file system under test; returns why there is none, or NULL. */
static const char *copy_program(void)
{
	static char buf[65536];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to;
	const char *why = NULL;
	ssize_t n;

	snprintf(exec_path, sizeof(exec_path), "%s/rig-exec-%d", rig_dir, (int)getpid());
	to = open(exec_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	if (from < 0 || to < 0)
		why = "the program cannot be copied";
	while (!why && (n = read(from, buf, sizeof(buf))) != 0)
		if (n < 0 || write(to, buf, n) != n)
			why = "the program cannot be copied";
	if (to >= 0) {
		fsync(to);
		close(to);
	}
	if (from >= 0)
		close(from);
	if (!why && access(exec_path, X_OK))
		why = "programs cannot be run there";
	if (why)
		unlink(exec_path);
	return why;
}

/* ---- cases ---- */

/* Returns why this machine or file system cannot do it, or NULL. */
static const char *unsupported(const void *c)
{
	const struct race *r = c;
	const char *why;

	if (r->kind == EXEC) {
		why = copy_program();
		if (!why)
			unlink(exec_path);
		return why;
	}
	why = rig_no_punch();
	if (!why && rig_cpus() < 2)
		why = "one CPU";
	return why;
}

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(unsigned int episode)
{
	static const long readers[] = { 1, 1, 2, 3 };
	static const long pages[] = { 64, 128, 256, MAX_PAGES, MAX_PAGES };
	static const long hots[] = { 1, 4, 8, 16 };
	static const long pauses[] = { 500, 2000, 2000, 5000 };
	static const long lingers[] = { 0, 200, 1000, 1000 };
	static const long unmaps[] = { 0, 50, 100 };
	static const long truncates[] = { 0, 50, 100 };
	static const long arounds[] = { 4096, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.readers = rig_min(rig_pick(&rng, readers) * rig_max(1, cpus / 8),
			    rig_max(1, rig_min(cpus - 1, MAX_READERS)));
	p.pages = rig_pick(&rng, pages);
	p.hot = rig_pick(&rng, hots);
	p.shift = 1 + rig_below(&rng, 11);
	p.pause = rig_pick(&rng, pauses);
	p.linger = rig_pick(&rng, lingers);
	p.unmap = rig_pick(&rng, unmaps);
	p.truncate = rig_pick(&rng, truncates);
	p.fault_around = rig_pick(&rng, arounds);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
}

static void make_file(unsigned int episode)
{
	rig_need_space(2 * MAX_PAGES * RIG_PAGE);
	memset(shared, 0, sizeof(*shared));
	shared->newest = 1;
	file_fd = rig_open_file("remap", episode, NULL);
	rig_stamp_file(file_fd, 1, plan.pages);
	/* two page tables; at the start of one, and `shift` pages into the other */
	places[0] = rig_room(2 * RIG_TABLE);
	rig_bail_if_broken();
	places[1] = places[0] + RIG_TABLE + plan.shift * RIG_PAGE;
}

static void run_episode(unsigned int episode, int64_t ns)
{
	const char *why;
	long i;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_case_again();
	rig_fault_around(plan.fault_around);
	if (race->kind == EXEC) {
		why = copy_program();
		if (why)
			rig_bail("%s", why);
		for (i = 0; i < rig_min((long)rig_cpus(), 32l); i++)
			rig_spawn(exec_main, (void *)i);
		if (!rig_lies("idle"))
			rig_spawn(exec_dropper_main, NULL);
		rig_case_run(ns);
		unlink(exec_path);
		return;
	}
	make_file(episode);
	rig_spawn(process_main, NULL);
	rig_spawn(remover_main, NULL);
	rig_case_run(ns);
	munmap(places[0], 2 * RIG_TABLE);
	close(file_fd);
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	const uint64_t least = rig_max(8, rig_min(200, 8 * ns / second));
	/* What a slow emulated machine manages and still sees a race in. */
	const struct rig_gate gates[] = {
		{ C_MOVES, race->kind == MOVE ? least : 0 },
		{ C_SEGV, race->kind == MOVE ? least / 4 : 0 },
		{ C_ZAPS, race->kind == ZAP ? least / 2 : 0 },
		{ C_REMOVALS, race->kind == EXEC ? 0 : least },
		{ C_EXECS, race->kind == EXEC ? rig_max(2, least / 20) : 0 },
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
	if (argc == 3 && !strcmp(argv[1], "--exec-child"))
		return exec_child(argv[2]);
	rig_suite_start(&suite, argc, argv);
	shared = rig_share(sizeof(*shared));

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
