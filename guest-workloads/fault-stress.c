// SPDX-License-Identifier: GPL-2.0-only
/*
 * fault-stress: page faults of every kind at once, with all data verified.
 *
 * Processes of several threads fault the same file, private and shared,
 * read-only and writable, and anonymous memory, private and shared, with small
 * and huge pages, while they drop pages with MADV_DONTNEED, fork and exec.
 * The races are those of the fault paths with each other: fault-around against
 * fault-around, COW against fork, zap against fault, huge page split against
 * fault. Nothing is removed from the page cache (truncate-race does that).
 *
 * Every page that is written has one owner, a thread, which knows what must be
 * in it. Legal outcomes when the owner looks:
 *   - the stamp that it wrote last;
 *   - the backing (the file's stamp; zeroes in anonymous memory), when it never
 *     wrote, or dropped the page of a private mapping after it wrote;
 *   - the same in a forked child, for what the parent had when it forked,
 *     whatever either of them writes afterwards.
 * A page of somebody else may be torn or old, but never another page. SIGBUS is
 * legal only in hugetlb-anon, where the pool may be empty.
 * A file behind a private mapping never changes; behind a shared writable one
 * read() agrees with the mapping.
 *
 * PASS means: enough operations and faults, and every look was legal. What it
 * cannot see: a page that is dropped and damaged before its owner looks again,
 * wrong accounting (see the console), lost accessed or dirty bits.
 */
#include "rig.h"


#define MAX_PAGES	2048
#define MAX_THREADS	8
#define HUGE_PAGES	512		/* small pages in a huge one */
#define HUGE_SIZE	(HUGE_PAGES * RIG_PAGE)
#define FILE_GENERATION	1		/* of the stamps in a file that nobody writes */

enum backing { FILE_PAGES, ANON_PAGES, THP_PAGES, HUGETLB_PAGES };
enum extra { NOTHING, FORK, EXEC };

struct stress {
	struct rig_case common;
	enum backing backing;
	bool shared;
	bool writable;
	enum extra extra;
};

static const struct stress cases[] = {
	{ { "file-private-read", 1 }, FILE_PAGES, false, false, NOTHING },
	{ { "file-private-write", 1 }, FILE_PAGES, false, true, NOTHING },
	{ { "file-shared-read", 1 }, FILE_PAGES, true, false, NOTHING },
	{ { "file-shared-write", 1 }, FILE_PAGES, true, true, NOTHING },
	{ { "anon-private", 1 }, ANON_PAGES, false, true, NOTHING },
	{ { "anon-shared", 1 }, ANON_PAGES, true, true, NOTHING },
	{ { "fork-file", 1 }, FILE_PAGES, false, true, FORK },
	{ { "fork-anon", 1 }, ANON_PAGES, false, true, FORK },
	{ { "exec", 1 }, FILE_PAGES, false, true, EXEC },
	{ { "thp-anon", 1 }, THP_PAGES, false, true, NOTHING },
	{ { "thp-fork", 1 }, THP_PAGES, false, true, FORK },
	{ { "hugetlb-anon", 1 }, HUGETLB_PAGES, false, true, NOTHING },
};

enum counter {
	C_OPS, C_READS, C_WRITES, C_DROPS, C_FAULTS, C_FORKS, C_EXECS, C_HUGE, C_SIGBUS, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"ops", "reads", "writes", "drops", "faults", "forks", "execs", "huge_pages", "sigbus",
};

struct plan {
	long processes;
	long threads;
	long pages;
	long align;		/* first page of the file that is mapped */
	long stride;
	long grain;		/* neighbours with the same owner */
	long drop;
	long write;
	long fault_around;
};

static struct plan given = { -1, -1, -1, -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "processes", "that map the same memory", &given.processes, 1, RIG_MAX_WORKERS },
	{ "threads", "in each process", &given.threads, 1, MAX_THREADS },
	{ "pages", "mapped by each process", &given.pages, 32, MAX_PAGES },
	{ "align", "first page of the file that is mapped", &given.align, 0, 16 },
	{ "stride", "touch one page in so many", &given.stride, 1, 512 },
	{ "grain", "neighbouring pages with the same owner", &given.grain, 1, 16 },
	{ "drop", "percent of operations that drop pages", &given.drop, 1, 90 },
	{ "write", "percent of the other operations that write", &given.write, 0, 100 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "fault-stress",
	.about = "fault-stress: private, shared, file, anonymous and huge page faults, with\n"
		 "MADV_DONTNEED, fork and exec. All data is verified.",
	.cases = "file-{private,shared}-{read,write} anon-{private,shared} fork-{file,anon}\n"
		 "       exec thp-anon thp-fork hugetlb-anon",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

static const struct stress *stress;
static struct plan plan;
static int file_fd = -1;
static char *shared_base;	/* anonymous shared memory, mapped before the fork */
static char *base;		/* of this process */
static char title_lost[96], title_wrong[96], title_other[96], title_bus[96], title_file[96];

struct worker {
	unsigned int process;
	unsigned int thread;
	struct rig_rng rng;
	uint64_t generation;
	uint64_t counts[NR_COUNTERS];
	uint64_t expected[MAX_PAGES];	/* generation, 0 = the backing */
};

static void make_titles(void)
{
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in %s", stress->common.name)
	TITLE(title_lost, "written data lost");
	TITLE(title_wrong, "data of another page");
	TITLE(title_other, "data that does not belong there");
	TITLE(title_bus, "unexpected SIGBUS");
	TITLE(title_file, "read() disagrees with the mapping");
#undef TITLE
}

static bool huge(void)
{
	return stress->backing == THP_PAGES || stress->backing == HUGETLB_PAGES;
}

/* A shared page has one owner among all threads, a private one among those of its process. */
static bool owned(const struct worker *w, long page)
{
	long owners = plan.threads, me = w->thread;

	if (stress->shared) {
		owners *= plan.processes;
		me += w->process * plan.threads;
	}
	return page / plan.grain % owners == me;
}

static char *page_at(long page)
{
	return base + page * RIG_PAGE;
}

/* ---- looking ---- */

static bool try_stamp(char *page, uint64_t generation, uint64_t index)
{
	if (sigsetjmp(rig_bus_env, 0)) {
		rig_store(&rig_bus_armed, 0);
		return false;
	}
	rig_store(&rig_bus_armed, 1);
	rig_stamp_page(page, generation, index);
	rig_store(&rig_bus_armed, 0);
	return true;
}

static void on_sigbus(struct worker *w, long page)
{
	w->counts[C_SIGBUS]++;
	if (stress->backing != HUGETLB_PAGES)
		rig_found(title_bus, "process %u thread %u page %ld", w->process, w->thread, page);
}

/* want: a generation, or 0 for zeroes. Returns what is wrong, or NULL. */
static const char *judge(const struct rig_stamp *s, uint64_t index, enum rig_end end, uint64_t want)
{
	switch (rig_judge(s, index, end, 0, UINT64_MAX)) {
	case RIG_LIVE:
		return s->generation == want ? NULL : want ? title_lost : title_other;
	case RIG_ZERO:
		return want ? title_lost : NULL;
	case RIG_WRONG_PAGE:
		return title_wrong;
	default:
		return title_other;
	}
}

static uint64_t wanted(const struct worker *w, long page)
{
	if (w->expected[page])
		return w->expected[page];
	return stress->backing == FILE_PAGES ? FILE_GENERATION : 0;
}

static void complain(struct worker *w, long page, const char *title, const struct rig_stamp *s,
		     uint64_t want)
{
	rig_found(title, "process %u thread %u page %ld: generation %#" PRIx64 " where %#" PRIx64
		  ", wanted %#" PRIx64, w->process, w->thread, page, s->generation, s->where, want);
}

static void check(struct worker *w, long page)
{
	uint64_t index = page + plan.align, want = wanted(w, page);
	bool mine = !stress->writable || owned(w, page);
	struct rig_stamp seen[RIG_ENDS];
	const char *title;
	unsigned int end;

	w->counts[C_READS]++;
	if (!rig_look(page_at(page), seen)) {
		on_sigbus(w, page);
		return;
	}
	for (end = 0; end < RIG_ENDS; end++) {
		title = judge(&seen[end], index, end, want);
		/* somebody else's page changes under us, but stays that page */
		if (title && (mine || title == title_wrong))
			complain(w, page, title, &seen[end], want);
	}
}

/* The file as read() sees it: untouched behind a private mapping, the same behind a shared one. */
static void check_file(struct worker *w, long page)
{
	uint64_t index = page + plan.align;
	uint64_t want = stress->shared ? wanted(w, page) : FILE_GENERATION;
	struct rig_stamp seen[RIG_ENDS];
	const off_t at = index * RIG_PAGE;
	unsigned int end;

	if (!rig_pread_all(file_fd, &seen[RIG_HEAD], sizeof(seen[0]), at) ||
	    !rig_pread_all(file_fd, &seen[RIG_TAIL], sizeof(seen[0]),
			   at + RIG_PAGE - sizeof(seen[0]))) {
		rig_broken("read: %s", strerror(errno));
		return;
	}
	for (end = 0; end < RIG_ENDS; end++)
		if (judge(&seen[end], index, end, want))
			complain(w, page, title_file, &seen[end], want);
}

static void check_all(struct worker *w)
{
	long i;

	for (i = 0; i < plan.pages && !rig_stopped(); i++)
		if (!stress->writable || owned(w, i))
			check(w, i);
}

/* ---- doing ---- */

static void write_page(struct worker *w, long page)
{
	/* no two threads ever write the same stamp */
	uint64_t generation = (uint64_t)(w->process * MAX_THREADS + w->thread + 1) << 40 |
			      ++w->generation;

	w->counts[C_WRITES]++;
	if (!try_stamp(page_at(page), generation, page + plan.align)) {
		on_sigbus(w, page);
		return;
	}
	w->expected[page] = generation;
	/* for the tests of the oracle: forget one write in 64 */
	if (rig_lies("lost") && !(w->generation % 64))
		memset(page_at(page), 0, RIG_PAGE);
}

/* MADV_DONTNEED leaves the page table of a split huge page; only without one comes the next. */
static void remap_huge(long first)
{
	if (mmap(page_at(first), HUGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		rig_broken("mmap: %s", strerror(errno));
	else
		madvise(page_at(first), HUGE_SIZE, MADV_HUGEPAGE);
}

/* Drops pages that nobody else cares for, or whose data survives in the page cache. */
static void drop_pages(struct worker *w, long page)
{
	bool keeps = stress->shared || !stress->writable;
	long first = page, nr = 1, i;

	if (keeps) {
		nr = 1 + rig_below(&w->rng, plan.pages - first);
	} else if (stress->backing == HUGETLB_PAGES || rig_below(&w->rng, 2)) {
		first -= first % plan.grain;
		nr = rig_min(plan.grain, plan.pages - first);
	}
	w->counts[C_DROPS]++;
	if (stress->backing == THP_PAGES && nr == HUGE_PAGES && rig_below(&w->rng, 2))
		remap_huge(first);
	else if (madvise(page_at(first), nr * RIG_PAGE, MADV_DONTNEED)) {
		rig_broken("MADV_DONTNEED: %s", strerror(errno));
		return;
	}
	for (i = first; !keeps && i < first + nr; i++)
		w->expected[i] = 0;
	/* a read first would get the huge zero page, which a write splits */
	if (stress->backing == THP_PAGES && rig_below(&w->rng, 2))
		write_page(w, page);
}

static long own_page(struct worker *w)
{
	long page, tries;

	for (tries = 0; tries < 1000; tries++) {
		page = rig_below(&w->rng, plan.pages);
		if (!stress->writable || owned(w, page))
			return page;
	}
	return -1;	/* more threads than blocks: this one only reads */
}

static void operate(struct worker *w)
{
	long page = own_page(w), i;

	w->counts[C_OPS]++;
	if (page >= 0 && (long)rig_below(&w->rng, 100) < plan.drop) {
		drop_pages(w, page);
		check(w, page);
	} else if (page >= 0 && stress->writable && (long)rig_below(&w->rng, 100) < plan.write) {
		check(w, page);
		write_page(w, page);
		check(w, page);
	} else {
		for (i = rig_below(&w->rng, plan.stride); i < plan.pages; i += plan.stride)
			check(w, i);
	}
	if (page < 0 || rig_below(&w->rng, 16))
		return;
	if (file_fd >= 0)
		check_file(w, page);
	if (stress->shared && stress->writable && file_fd >= 0 && !rig_below(&w->rng, 16))
		msync(page_at(page), RIG_PAGE, rig_below(&w->rng, 2) ? MS_SYNC : MS_ASYNC);
}

/* Every child is waited for, and every way to end but one is a finding. */
static void await_child(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) != pid) {
		if (errno == EINTR)
			continue;
		rig_broken("waitpid: %s", strerror(errno));
		return;
	}
	rig_judge_exit(pid, status);
}

/* The child must see what the parent had, and neither may see what the other writes. */
static void fork_once(struct worker *w)
{
	unsigned int i;
	pid_t pid;

	pid = fork();
	if (pid < 0) {
		rig_broken("fork: %s", strerror(errno));
		return;
	}
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(w->counts, 0, sizeof(w->counts));
		check_all(w);
		w->generation += 1ull << 32;
		for (i = 0; i < 16 && !rig_stopped(); i++)
			operate(w);
		check_all(w);
		rig_flush_counts(w->counts, NR_COUNTERS);
		_exit(0);
	}
	w->counts[C_FORKS]++;
	for (i = 0; i < 16 && !rig_stopped(); i++)
		operate(w);
	await_child(pid);
	check_all(w);
}

/* The child maps the same file with a fresh address space; see exec_child(). */
static void exec_once(struct worker *w)
{
	char fd[16], pages[16];
	unsigned int i;
	int status;
	pid_t pid;

	snprintf(fd, sizeof(fd), "%d", file_fd);
	snprintf(pages, sizeof(pages), "%ld", plan.pages + plan.align);
	pid = fork();
	if (pid < 0) {
		rig_broken("fork: %s", strerror(errno));
		return;
	}
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fcntl(file_fd, F_SETFD, 0);
		execl("/proc/self/exe", "fault-stress", "--exec-child", fd, pages, NULL);
		_exit(RIG_EXIT_BROKEN);
	}
	w->counts[C_EXECS]++;
	for (i = 0; i < 4 && !rig_stopped(); i++)
		operate(w);
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR) {
			rig_broken("waitpid: %s", strerror(errno));
			return;
		}
	if (WIFEXITED(status) && WEXITSTATUS(status) == RIG_EXIT_BROKEN)
		rig_broken("exec of /proc/self/exe failed");
	else if (WIFEXITED(status) && WEXITSTATUS(status) == RIG_EXIT_FAIL)
		rig_found("executed child saw wrong data of the file", "pid %d", (int)pid);
	else
		rig_judge_exit(pid, status);
}

/* Returns RIG_EXIT_FAIL when a page of the file, mapped anew, is not what it must be. */
static int exec_child(const char *fd_text, const char *pages_text)
{
	int fd = strtol(fd_text, NULL, 10), flags, end;
	long pages = strtol(pages_text, NULL, 10), i;

	for (flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		char *p = mmap(NULL, pages * RIG_PAGE, PROT_READ, flags, fd, 0);

		if (p == MAP_FAILED)
			return RIG_EXIT_BROKEN;
		for (i = 0; i < pages; i++) {
			for (end = 0; end < RIG_ENDS; end++) {
				struct rig_stamp s =
					rig_stamp_read(rig_stamp_at(p + i * RIG_PAGE, end));

				if (rig_judge(&s, i, end, 0, FILE_GENERATION) != RIG_LIVE)
					return RIG_EXIT_FAIL;
			}
		}
	}
	return RIG_EXIT_PASS;
}

/* ---- workers ---- */

/* Did we really get huge pages? Asked for is not enough. */
static void count_huge(struct worker *w)
{
	char line[256];
	long kib = 0;
	FILE *f;

	if (stress->backing == HUGETLB_PAGES) {
		w->counts[C_HUGE] += plan.pages / HUGE_PAGES;
		return;
	}
	f = fopen("/proc/self/smaps_rollup", "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "AnonHugePages: %ld kB", &kib) == 1)
			break;
	fclose(f);
	w->counts[C_HUGE] += kib / (HUGE_SIZE / 1024);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	uint64_t nr;
	long i;

	for (i = 0; stress->backing == THP_PAGES && i < plan.pages; i += HUGE_PAGES)
		if (owned(w, i))
			write_page(w, i);
	for (nr = 1; !rig_stopped(); nr++) {
		operate(w);
		if (nr % 64 == 0)
			check_all(w);
		if (stress->extra == FORK && nr % 32 == 0)
			fork_once(w);
		if (stress->extra == EXEC && nr % 16 == 0)
			exec_once(w);
		if (huge() && !w->thread && nr % 16 == 8)
			count_huge(w);
		rig_flush_counts(w->counts, NR_COUNTERS);
	}
	check_all(w);
	rig_flush_counts(w->counts, NR_COUNTERS);
	return NULL;
}

static char *map_memory(void)
{
	size_t len = plan.pages * RIG_PAGE;
	int flags = stress->shared ? MAP_SHARED : MAP_PRIVATE;
	int prot = PROT_READ | (stress->writable ? PROT_WRITE : 0);
	char *p;

	switch (stress->backing) {
	case FILE_PAGES:
		return mmap(NULL, len, prot, flags, file_fd, plan.align * RIG_PAGE);
	case ANON_PAGES:
		return shared_base ? shared_base :
			mmap(NULL, len, prot, flags | MAP_ANONYMOUS, -1, 0);
	case HUGETLB_PAGES:
		return mmap(NULL, len, prot, flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	case THP_PAGES:
		break;
	}
	p = mmap(NULL, len + HUGE_SIZE, prot, flags | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return p;
	p = (char *)(((uintptr_t)p + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1));
	madvise(p, len, MADV_HUGEPAGE);
	return p;
}

static void process_main(void *arg)
{
	static struct worker workers[MAX_THREADS];
	unsigned int nr = (uintptr_t)arg;
	long i;

	rig_catch_bus();
	base = map_memory();
	if (base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	for (i = 0; i < plan.threads; i++) {
		workers[i].process = nr;
		workers[i].thread = i;
		workers[i].rng = rig_rng_for(stress->common.name, 1 + nr * MAX_THREADS + i);
	}
	rig_run_threads(thread_main, workers, sizeof(workers[0]), plan.threads);
	rig_count_faults(C_FAULTS, RUSAGE_SELF);
	rig_count_faults(C_FAULTS, RUSAGE_CHILDREN);
}

/* ---- cases ---- */

static bool thp_possible(void)
{
	char policy[32];

	return rig_read_choice("/sys/kernel/mm/transparent_hugepage/enabled", policy,
			       sizeof(policy)) && strcmp(policy, "never");
}

static long hugetlb_free(void)
{
	return rig_read_long("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 0);
}

/* Returns why this machine cannot run the case, or NULL. */
static const char *unsupported(const void *c)
{
	const struct stress *s = c;

	if (s->backing == THP_PAGES && !thp_possible())
		return "transparent huge pages are off";
	if (s->backing == HUGETLB_PAGES && hugetlb_free() < 2)
		return "fewer than two free 2 MiB hugetlb pages";
	return NULL;
}

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(void)
{
	static const long pages[] = { 64, 128, 256, 512, 1024 };
	static const long strides[] = { 1, 4, 16, 16, 32 };
	static const long grains[] = { 1, 4, 16 };
	static const long drops[] = { 5, 20, 50 };
	static const long writes[] = { 20, 50, 80 };
	static const long arounds[] = { 4096, 16384, 65536, 65536, 65536, 2 << 20 };
	long cpus = rig_cpus(), memory = sysconf(_SC_PHYS_PAGES), most;
	struct rig_rng rng = rig_rng_for(stress->common.name, 0);
	struct plan p;

	p.processes = rig_max(2, rig_min(cpus, 64) / 2 + (long)rig_below(&rng, rig_min(cpus, 64)));
	p.threads = 1 + rig_below(&rng, 4);
	p.pages = rig_pick(&rng, pages);
	p.align = rig_below(&rng, 17);
	p.stride = rig_pick(&rng, strides);
	p.grain = rig_pick(&rng, grains);
	p.drop = rig_pick(&rng, drops);
	p.write = rig_pick(&rng, writes);
	p.fault_around = rig_pick(&rng, arounds);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	if (stress->backing != FILE_PAGES)
		plan.align = 0;
	if (huge()) {
		/* one owner for each huge page, and one page for each owner */
		plan.grain = HUGE_PAGES;
		plan.threads = rig_min(plan.threads, 2);
		plan.pages = plan.threads * HUGE_PAGES;
	}
	if (stress->backing == HUGETLB_PAGES) {
		plan.threads = 1;
		plan.pages = HUGE_PAGES;
		plan.processes = rig_min(plan.processes, hugetlb_free() / 2);
	}
	/* at most an eighth of the memory, with a forked child for each thread */
	most = memory / 8 / (plan.pages * (stress->extra == FORK ? 1 + plan.threads : 1));
	plan.processes = rig_max(1, rig_min(plan.processes, most));
}

static void print_plan(void)
{
	rig_param("processes", plan.processes);
	rig_param("threads", plan.threads);
	rig_param("pages", plan.pages);
	rig_param("align", plan.align);
	rig_param("stride", plan.stride);
	rig_param("grain", plan.grain);
	rig_param("drop", plan.drop);
	rig_param("write", plan.write);
	rig_param("fault_around", plan.fault_around);
}

static void make_file(void)
{
	long pages = plan.pages + plan.align;

	rig_need_space(2 * pages * RIG_PAGE);
	file_fd = rig_open_file("stress", 0, NULL);
	rig_stamp_file(file_fd, FILE_GENERATION, pages);
}

static void judge_stress(int64_t ns)
{
	/* emulated CPUs fork and exec slowly: a few each second, and all of it verified */
	uint64_t least = rig_max(20, rig_min(200, ns / 10000000));
	uint64_t few = rig_max(2, rig_min(20, ns / 500000000));
	const struct rig_gate gates[] = {
		{ C_OPS, least },
		{ C_FAULTS, least },
		{ C_FORKS, stress->extra == FORK ? few : 0 },
		{ C_EXECS, stress->extra == EXEC ? few : 0 },
		{ C_HUGE, huge() ? 1 : 0 },
	};

	rig_case_end(stress->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_stress(const void *c, int64_t ns)
{
	long i;

	stress = c;
	rig_case_begin(stress->common.name);
	draw_plan();
	print_plan();
	make_titles();
	if (stress->backing == FILE_PAGES)
		make_file();
	if (stress->backing == ANON_PAGES && stress->shared)
		shared_base = rig_share(plan.pages * RIG_PAGE);
	rig_fault_around(plan.fault_around);
	for (i = 0; i < plan.processes; i++)
		rig_spawn(process_main, (void *)i);
	rig_case_run(ns);
	if (shared_base)
		munmap(shared_base, plan.pages * RIG_PAGE);
	shared_base = NULL;
	if (file_fd >= 0)
		close(file_fd);
	file_fd = -1;
	judge_stress(ns);
}

static const struct rig_suite suite = {
	.program = &program,
	.cases = cases,
	.size = sizeof(cases[0]),
	.nr = RIG_COUNT(cases),
	.fault_around = true,
	.unsupported = unsupported,
	.run = run_stress,
};

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--exec-child"))
		return exec_child(argv[2], argv[3]);
	rig_suite_start(&suite, argc, argv);

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
