/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every workload of the rig shares: options, the seeded random numbers,
 * KTAP output, counters and findings in shared memory, worker processes with
 * a deadline, and the stamps by which a page of a file proves what it is.
 *
 * A workload is one .c file: it describes itself in a struct rig_program and
 * its cases in a struct rig_suite, calls rig_suite_start(), rig_suite_plan() and
 * rig_suite_run(), and leaves through rig_finish(). A case calls
 * rig_case_begin(), for each of its rig_episodes() rig_spawn() for its workers
 * and rig_case_run(), then rig_case_end().
 *
 * Exit codes: 0 pass, 1 fail, 4 everything skipped, 99 broken set-up.
 */
#ifndef RIG_H
#define RIG_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RIG_EXIT_PASS	0
#define RIG_EXIT_FAIL	1
#define RIG_EXIT_SKIP	4
#define RIG_EXIT_BROKEN	99

#define RIG_MAX_WORKERS		256
#define RIG_MAX_THREADS		256	/* of one worker */
#define RIG_MAX_FINDINGS	64
#define RIG_MAX_CASES		64
#define RIG_MAX_COUNTERS	16
#define RIG_LINE		512
#define RIG_FAVOUR		5

/* After the first finding a case goes on for this long, for the detail. */
#define RIG_ENCORE_NS		(250ll * 1000 * 1000)
/* No episode is shorter than this. */
#define RIG_EPISODE_NS		(50ll * 1000 * 1000)
/* A worker that does not stop for this long is stuck, emulated CPUs or not. */
#define RIG_STUCK_NS		(30ll * 1000 * 1000 * 1000)

#define RIG_FAULT_AROUND	"/sys/kernel/debug/fault_around_bytes"

#define rig_load(p)		__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define rig_store(p, v)		__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define rig_add(p, v)		__atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
/* Each argument is evaluated once, as one may draw from the seed. */
#define RIG_ONCE(a, op, b)	({ __typeof__((a) + (b)) a_ = (a), b_ = (b); a_ op b_ ? a_ : b_; })
#define rig_min(a, b)		RIG_ONCE(a, <, b)
#define rig_max(a, b)		RIG_ONCE(a, >, b)
#define RIG_COUNT(array)	(sizeof(array) / sizeof((array)[0]))
#define RIG_ATTRIBUTE(a)	__attribute__((a))
#define RIG_PRINTF(f, a)	RIG_ATTRIBUTE(__format__(printf, f, a))

#define RIG_PAGE		4096ul
#define RIG_TABLE		(512 * RIG_PAGE)	/* mapped by one page table */

/* ---- what the workload says about itself, and what it was asked ---- */

struct rig_option {
	const char *name;
	const char *help;
	long *value;		/* holds the default, -1 = drawn from the seed */
	long min;
	long max;
};

struct rig_program {
	const char *name;
	const char *about;
	const char *cases;	/* one line of case names, for --help */
	struct rig_option *options;
	unsigned int nr_options;
};

static const struct rig_program *rig_program;
static const char *rig_dir;
static const char *rig_cases;
static const char *rig_favoured;
static const char *rig_inject = "";
static uint64_t rig_seed;
static double rig_budget = 10.0;
static bool rig_self_test;

/* ---- shared memory: all that workers tell their parent ---- */

struct rig_finding {
	uint32_t ready;
	const char *title;	/* static text: stable across runs and processes */
	char detail[192];
};

struct rig_shared {
	uint32_t stop;
	uint32_t broken;
	char broken_why[192];
	uint32_t nr_findings;
	int64_t started_ns;
	int64_t first_finding_ns;
	struct rig_finding findings[RIG_MAX_FINDINGS];
	uint64_t counters[RIG_MAX_COUNTERS];
};

static struct rig_shared *rig_shared;

static inline int64_t rig_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- random numbers: splitmix64, so that a seed means the same everywhere ---- */

struct rig_rng {
	uint64_t state;
};

static inline uint64_t rig_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline uint64_t rig_random(struct rig_rng *rng)
{
	rng->state += 0x9e3779b97f4a7c15ull;
	return rig_mix(rng->state);
}

/* Returns a number in [0, n). */
static inline uint64_t rig_below(struct rig_rng *rng, uint64_t n)
{
	return n ? rig_random(rng) % n : 0;
}

/* A stream of its own for each name, so that leaving a case out changes no other. */
static inline struct rig_rng rig_rng_for(const char *name, uint64_t salt)
{
	struct rig_rng rng = { .state = rig_mix(rig_seed + 0x2545f4914f6cdd1dull) };

	for (; *name; name++)
		rng.state = rig_mix(rng.state ^ (unsigned char)*name);
	rng.state = rig_mix(rng.state + salt);
	return rng;
}

#define rig_pick(rng, array)	((array)[rig_below(rng, RIG_COUNT(array))])

/* ---- KTAP, mirrored to the kernel log so that it survives a panic ---- */

static int rig_kmsg = -1;
static unsigned int rig_nr_planned, rig_nr_done, rig_nr_failed, rig_nr_skipped;

static inline void rig_vline(bool mirror, const char *prefix, const char *fmt, va_list ap)
{
	char text[RIG_LINE], line[RIG_LINE + 64];
	char *p;
	int n;

	vsnprintf(text, sizeof(text), fmt, ap);
	for (p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	printf("%s%s\n", prefix, text);
	if (!mirror || rig_kmsg < 0)
		return;
	n = snprintf(line, sizeof(line), "<5>%s: %s%s\n", rig_program->name, prefix, text);
	if (write(rig_kmsg, line, rig_min((size_t)n, sizeof(line) - 1)) < 0)
		rig_kmsg = -1;	/* a courtesy: never let it fail the run */
}

static inline RIG_PRINTF(2, 3) void rig_line(bool mirror, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	rig_vline(mirror, "", fmt, ap);
	va_end(ap);
}

static inline RIG_PRINTF(1, 2) void rig_diag(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	rig_vline(false, "# ", fmt, ap);
	va_end(ap);
}

static inline void rig_param(const char *name, int64_t value)
{
	rig_diag("param %s=%" PRId64, name, value);
}

static inline void rig_kill_workers(void);

/* The set-up is broken: not a verdict on the kernel. */
static inline RIG_PRINTF(1, 2) void rig_bail(const char *fmt, ...)
{
	va_list ap;

	rig_kill_workers();
	va_start(ap, fmt);
	rig_vline(true, "Bail out! ", fmt, ap);
	va_end(ap);
	exit(RIG_EXIT_BROKEN);
}

/* Memory that the parent shares with the workers that it will spawn, all zero. */
static inline void *rig_share(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		rig_bail("shared memory: %s", strerror(errno));
	return p;
}

static inline void rig_plan(unsigned int nr)
{
	rig_nr_planned = nr;
	rig_line(true, "KTAP version 1");
	rig_line(true, "1..%u", nr);
}

static inline void rig_ok(const char *name)
{
	rig_line(true, "ok %u %s", ++rig_nr_done, name);
}

static inline void rig_not_ok(const char *name)
{
	rig_nr_failed++;
	rig_line(true, "not ok %u %s", ++rig_nr_done, name);
}

static inline RIG_PRINTF(2, 3) void rig_skip(const char *name, const char *fmt, ...)
{
	char why[RIG_LINE / 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	rig_nr_skipped++;
	rig_line(true, "ok %u %s # SKIP %s", ++rig_nr_done, name, why);
}

static inline int rig_finish(void)
{
	if (rig_nr_done != rig_nr_planned)
		rig_bail("%u cases planned, %u reported", rig_nr_planned, rig_nr_done);
	if (rig_nr_failed)
		return RIG_EXIT_FAIL;
	return rig_nr_skipped == rig_nr_done ? RIG_EXIT_SKIP : RIG_EXIT_PASS;
}

/* ---- command line ---- */

static inline void rig_help(void)
{
	const struct rig_program *p = rig_program;
	unsigned int i;

	printf("%s\n\n", p->about);
	printf("usage: %s --dir DIR --seed N --budget SECONDS [--NAME VALUE ...]\n\n", p->name);
	printf("  --dir DIR         writable directory on the file system under test\n");
	printf("  --seed N          everything random is drawn from it and printed (0)\n");
	printf("  --budget SECONDS  of all cases together, from 1 (10)\n");
	printf("  --cases GLOB,...  only these cases\n");
	printf("  --favour GLOB,... these cases get %d times their share of the budget\n", RIG_FAVOUR);
	for (i = 0; i < p->nr_options; i++)
		printf("  --%-15s %s (%ld to %ld)\n", p->options[i].name, p->options[i].help,
		       p->options[i].min, p->options[i].max);
	printf("\ncases: %s\n", p->cases);
	printf("\nWhat is not given is drawn from the seed. Output is KTAP version 1.\n");
	printf("Exit: 0 pass, 1 fail, 4 all skipped, 99 broken set-up.\n");
}

static inline bool rig_parse_u64(const char *text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*value = strtoull(text, &end, 0);
	return !errno && !*end;
}

static inline void rig_set_option(const char *name, const char *value)
{
	unsigned int i;
	uint64_t n = 0;
	char *end;

	if (!strcmp(name, "dir")) {
		rig_dir = value;
	} else if (!strcmp(name, "cases")) {
		rig_cases = value;
	} else if (!strcmp(name, "favour")) {
		rig_favoured = value;
	} else if (!strcmp(name, "inject")) {
		/* for the tests of the oracles: lie about one thing, be caught */
		rig_inject = value;
	} else if (!strcmp(name, "seed")) {
		if (!rig_parse_u64(value, &rig_seed))
			rig_bail("--seed %s: not a number", value);
	} else if (!strcmp(name, "budget")) {
		rig_budget = strtod(value, &end);
		if (end == value || *end || !(rig_budget >= 1 && rig_budget <= 86400))
			rig_bail("--budget %s: want seconds, 1 to 86400", value);
	} else {
		for (i = 0; i < rig_program->nr_options; i++) {
			struct rig_option *o = &rig_program->options[i];

			if (strcmp(name, o->name))
				continue;
			if (!rig_parse_u64(value, &n) || n > (uint64_t)o->max ||
			    (int64_t)n < o->min)
				rig_bail("--%s %s: want %ld to %ld", name, value, o->min, o->max);
			*o->value = n;
			return;
		}
		rig_bail("unknown option --%s (see --help)", name);
	}
}

static inline void rig_parse(int argc, char **argv)
{
	char name[64];
	int i;

	for (i = 1; i < argc; i++) {
		const char *eq = strchr(argv[i], '=');
		size_t len = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);

		if (!strcmp(argv[i], "--help")) {
			rig_help();
			exit(RIG_EXIT_PASS);
		}
		if (!strcmp(argv[i], "--self-test")) {
			rig_self_test = true;
			continue;
		}
		if (len < 3 || len >= sizeof(name) || strncmp(argv[i], "--", 2))
			rig_bail("unknown argument %s (see --help)", argv[i]);
		snprintf(name, sizeof(name), "%.*s", (int)len - 2, argv[i] + 2);
		if (!eq && i + 1 >= argc)
			rig_bail("--%s wants a value (see --help)", name);
		rig_set_option(name, eq ? eq + 1 : argv[++i]);
	}
}

/* True when one of the globs, with commas between them, matches the name. */
static inline bool rig_matches(const char *list, const char *name)
{
	char globs[256], *glob, *save;

	snprintf(globs, sizeof(globs), "%s", list);
	for (glob = strtok_r(globs, ",", &save); glob; glob = strtok_r(NULL, ",", &save))
		if (!fnmatch(glob, name, 0))
			return true;
	return false;
}

/* True when the case was asked for; all are, without --cases. */
static inline bool rig_wanted(const char *name)
{
	return !rig_cases || rig_matches(rig_cases, name);
}

/* True when the workload is to lie about this, see --inject. */
static inline bool rig_lies(const char *about)
{
	return !strcmp(rig_inject, about);
}

/* The share of the budget of a case: more for those that the patch under test is about. */
static inline unsigned int rig_weight(const char *name, unsigned int weight)
{
	return rig_favoured && rig_matches(rig_favoured, name) ? RIG_FAVOUR * weight : weight;
}

static inline void rig_start(const struct rig_program *program, int argc, char **argv)
{
	struct stat st;

	rig_program = program;
	setvbuf(stdout, NULL, _IOLBF, 0);
	rig_parse(argc, argv);
	rig_shared = rig_share(sizeof(*rig_shared));
	if (rig_self_test)
		return;
	if (!rig_dir)
		rig_bail("--dir is missing (see --help)");
	if (stat(rig_dir, &st) || !S_ISDIR(st.st_mode) || access(rig_dir, W_OK | X_OK))
		rig_bail("--dir %s: not a writable directory", rig_dir);
	rig_kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
}

/* ---- findings and counters, from any worker ---- */

static inline RIG_PRINTF(2, 3) void rig_found(const char *title, const char *fmt, ...)
{
	uint32_t i = rig_add(&rig_shared->nr_findings, 1);
	int64_t none = 0;
	va_list ap;

	__atomic_compare_exchange_n(&rig_shared->first_finding_ns, &none, rig_now(), false,
				    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	if (i >= RIG_MAX_FINDINGS)
		return;
	rig_shared->findings[i].title = title;
	va_start(ap, fmt);
	vsnprintf(rig_shared->findings[i].detail, sizeof(rig_shared->findings[i].detail), fmt, ap);
	va_end(ap);
	rig_store(&rig_shared->findings[i].ready, 1);
}

/* A worker cannot do its work for a reason that is not the kernel's: the parent bails out. */
static inline RIG_PRINTF(1, 2) void rig_broken(const char *fmt, ...)
{
	va_list ap;

	if (rig_add(&rig_shared->broken, 1) == 0) {
		va_start(ap, fmt);
		vsnprintf(rig_shared->broken_why, sizeof(rig_shared->broken_why), fmt, ap);
		va_end(ap);
	}
	rig_store(&rig_shared->stop, 1);
}

/* For the parent, after what may also be called by a worker. */
static inline void rig_bail_if_broken(void)
{
	if (rig_load(&rig_shared->broken))
		rig_bail("%s", rig_shared->broken_why);
}

static inline bool rig_stopped(void)
{
	return rig_load(&rig_shared->stop);
}

/*
 * Waits until *word is no longer value. Sleeping in the kernel, not spinning:
 * a spinning virtual CPU takes the host's core from the one that it waits for.
 * The timeout is only there to notice the end of the case.
 */
static inline void rig_wait_change(uint32_t *word, uint32_t value)
{
	const struct timespec ts = { .tv_nsec = 100 * 1000 * 1000 };

	while (rig_load(word) == value && !rig_stopped())
		syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0);
}

static inline void rig_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static inline void rig_count(unsigned int counter, uint64_t n)
{
	if (n)
		__atomic_fetch_add(&rig_shared->counters[counter], n, __ATOMIC_RELAXED);
}

/* Adds the page faults of RUSAGE_SELF or RUSAGE_CHILDREN. */
static inline void rig_count_faults(unsigned int counter, int who)
{
	struct rusage ru;

	if (!getrusage(who, &ru))
		rig_count(counter, ru.ru_minflt + ru.ru_majflt);
}

/* Adds what a worker has counted by itself, and lets it begin anew. */
static inline void rig_flush_counts(uint64_t *counts, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		rig_count(i, counts[i]);
		counts[i] = 0;
	}
}

/* ---- worker processes ---- */

static pid_t rig_workers[RIG_MAX_WORKERS];
static unsigned int rig_nr_workers;

static inline void rig_kill_workers(void)
{
	unsigned int i;

	for (i = 0; i < rig_nr_workers; i++)
		if (rig_workers[i] > 0)
			kill(rig_workers[i], SIGKILL);
}

static inline void rig_block_sigchld(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Waits for a child to end or for ns to pass: a wait with a deadline, not a sleep. */
static inline void rig_wait_child(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigtimedwait(&set, NULL, &ts);
}

static inline pid_t rig_spawn(void (*fn)(void *), void *arg)
{
	pid_t parent = getpid(), pid;

	if (rig_nr_workers == RIG_MAX_WORKERS)
		rig_bail("more than %d workers", RIG_MAX_WORKERS);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		rig_bail("fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		rig_nr_workers = 0;
		fn(arg);
		_exit(0);
	}
	rig_workers[rig_nr_workers++] = pid;
	return pid;
}

/*
 * Runs fn(args), fn(args + size), ... in nr threads of a worker, of which the
 * caller is the first, until all of them have ended.
 */
static inline void rig_run_threads(void *(*fn)(void *), void *args, size_t size, unsigned int nr)
{
	pthread_t threads[RIG_MAX_THREADS];
	unsigned int i, started = 1;

	for (; started < nr; started++) {
		if (pthread_create(&threads[started], NULL, fn, (char *)args + started * size)) {
			rig_broken("pthread_create failed");
			break;
		}
	}
	fn(args);
	for (i = 1; i < started; i++)
		pthread_join(threads[i], NULL);
}

/*
 * A worker ended. Anything but a clean exit is a finding: a worker catches the
 * signals that are legal, so what kills it is not. SIGKILL comes from outside
 * (the OOM killer), which says nothing about the race.
 */
static inline void rig_judge_exit(pid_t pid, int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		rig_broken("worker %d was killed from outside (out of memory?)", (int)pid);
	else if (WIFSIGNALED(status))
		rig_found("worker process died of an unexpected signal", "pid %d, signal %d (%s)",
			  (int)pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		rig_found("worker process ended with an unexpected status", "pid %d, status %#x",
			  (int)pid, (unsigned int)status);
}

/* Returns how many workers still run. */
static inline unsigned int rig_reap(void)
{
	unsigned int i, alive = 0;
	int status;

	for (i = 0; i < rig_nr_workers; i++) {
		if (rig_workers[i] <= 0)
			continue;
		if (waitpid(rig_workers[i], &status, WNOHANG) == rig_workers[i]) {
			rig_judge_exit(rig_workers[i], status);
			rig_workers[i] = 0;
		} else {
			alive++;
		}
	}
	return alive;
}

static int64_t rig_case_began;

static inline void rig_case_begin(const char *name)
{
	rig_diag("case %s", name);
	rig_case_began = rig_now();
	memset(rig_shared, 0, sizeof(*rig_shared));
	rig_nr_workers = 0;
	rig_block_sigchld();
}

/* Another episode of the same case: what was counted and found stays. */
static inline void rig_case_again(void)
{
	rig_store(&rig_shared->stop, 0);
}

/*
 * Lets the workers run for ns, or until something is found; then stops and
 * reaps them all. May be called again, with new workers, for a second episode.
 */
static inline void rig_case_run(int64_t ns)
{
	const int64_t tick = 20ll * 1000 * 1000, start = rig_now();
	int64_t now, first, stop_at = 0;
	unsigned int alive;

	if (!rig_shared->started_ns)
		rig_shared->started_ns = start;
	while ((alive = rig_reap()) != 0) {
		now = rig_now();
		first = rig_load(&rig_shared->first_finding_ns);
		if (now - start >= ns || (first && now - first >= RIG_ENCORE_NS))
			rig_store(&rig_shared->stop, 1);
		if (!stop_at && rig_stopped())
			stop_at = now;
		if (stop_at && now - stop_at >= RIG_STUCK_NS) {
			rig_found("worker did not stop, stuck in the kernel",
				  "%u of %u workers still there after %lld s", alive,
				  rig_nr_workers, (long long)(RIG_STUCK_NS / 1000000000));
			rig_kill_workers();
			return;
		}
		rig_wait_child(tick);
	}
	rig_nr_workers = 0;
}

/* True when there is no point in another episode. */
static inline bool rig_case_over(void)
{
	return rig_load(&rig_shared->nr_findings) || rig_load(&rig_shared->broken);
}

/*
 * Fills ns, counted from rig_case_begin(), with episodes of about so many
 * milliseconds, each with a plan of its own: one unlucky draw must not cost the
 * whole case. Ends early when there is no point in another one.
 */
static inline void rig_episodes(long ms, int64_t ns, void (*episode)(unsigned int nr, int64_t ns))
{
	const int64_t end = rig_case_began + ns;
	unsigned int nr = rig_max(1, ns / (ms * 1000000)), i;

	for (i = 0; i < nr && !rig_case_over(); i++)
		episode(i + 1, rig_max((end - rig_now()) / (nr - i), RIG_EPISODE_NS));
}

/* Prints what was found, each title once with up to three details. Returns the number. */
static inline unsigned int rig_print_findings(void)
{
	unsigned int i, j, shown, n = rig_min(rig_load(&rig_shared->nr_findings),
					      (uint32_t)RIG_MAX_FINDINGS);

	for (i = 0; i < n; i++) {
		const struct rig_finding *f = &rig_shared->findings[i];

		if (!rig_load(&f->ready))
			continue;
		for (j = 0; j < i; j++)
			if (rig_shared->findings[j].title == f->title)
				break;
		if (j < i)
			continue;
		rig_line(true, "# finding: %s", f->title);
		for (shown = 0, j = i; j < n && shown < 3; j++) {
			if (rig_shared->findings[j].title != f->title ||
			    !rig_load(&rig_shared->findings[j].ready))
				continue;
			rig_line(true, "# detail: %s", rig_shared->findings[j].detail);
			shown++;
		}
	}
	return rig_load(&rig_shared->nr_findings);
}

/* One gate: a case that did less than this has not exercised what it is for. */
struct rig_gate {
	unsigned int counter;
	uint64_t least;
};

/* Folds findings, broken set-ups and gates into the one result line of the case. */
static inline void rig_case_end(const char *name, const char *const *counters,
				unsigned int nr_counters, const struct rig_gate *gates,
				unsigned int nr_gates)
{
	unsigned int i, found;

	for (i = 0; i < nr_counters; i++)
		rig_diag("counter %s=%" PRIu64, counters[i], rig_shared->counters[i]);
	found = rig_print_findings();
	rig_diag("counter findings=%u", found);
	if (found) {
		rig_diag("counter first_finding_ms=%lld",
			 (long long)(rig_shared->first_finding_ns - rig_shared->started_ns) /
			 1000000);
		rig_not_ok(name);
		return;
	}
	if (rig_load(&rig_shared->broken))
		rig_bail("%s: %s", name, rig_shared->broken_why);
	for (i = 0; i < nr_gates; i++) {
		uint64_t got = rig_shared->counters[gates[i].counter];

		if (got >= gates[i].least)
			continue;
		rig_skip(name, "inconclusive: counter %s=%" PRIu64 " below %" PRIu64,
			 counters[gates[i].counter], got, gates[i].least);
		return;
	}
	rig_ok(name);
}

/* ---- plans: what an episode, or a case without episodes, is made of ---- */

/*
 * A plan is a struct of longs and nothing else. The workload has one of what
 * its options give, in which -1 stands for what is drawn. Its options that are
 * not in there are no part of the plan.
 */
static inline void rig_take_plan(void *plan, const void *drawn, const void *given, size_t size)
{
	const long *asked = given, *seed = drawn;
	long *p = plan;
	size_t i;

	for (i = 0; i < size / sizeof(*p); i++)
		p[i] = asked[i] >= 0 ? asked[i] : seed[i];
}

/* Prints the plan of an episode as name:value,... with the names and in the order of the options. */
static inline void rig_print_plan(unsigned int episode, const void *plan, const void *given,
				  size_t size)
{
	char text[RIG_LINE / 2] = "";
	unsigned int i;
	size_t n = 0;

	for (i = 0; i < rig_program->nr_options; i++) {
		const struct rig_option *o = &rig_program->options[i];
		uintptr_t offset = (uintptr_t)o->value - (uintptr_t)given;

		if (offset >= size)
			continue;
		n += snprintf(text + n, sizeof(text) - n, "%s%s:%ld", n ? "," : "", o->name,
			      *(const long *)((const char *)plan + offset));
		if (n >= sizeof(text))
			rig_bail("the plan does not fit in a line");
	}
	rig_diag("param e%u=%s", episode, text);
}

/* What an episode draws its plan from. */
static inline struct rig_rng rig_rng_for_episode(const char *name, unsigned int episode)
{
	return rig_rng_for(name, 1ull << 32 | episode);
}

/* ---- the machine ---- */

static inline unsigned int rig_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return rig_max(CPU_COUNT(&set), 1);
}

static inline long rig_read_long(const char *path, long otherwise)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return otherwise;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? strtol(text, NULL, 0) : otherwise;
}

static inline bool rig_write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok;
}

/* Sets fault_around_bytes where that is allowed, and says what is in force. */
static inline void rig_fault_around(long bytes)
{
	char text[32];

	if (bytes > 0) {
		snprintf(text, sizeof(text), "%ld", bytes);
		rig_write_text(RIG_FAULT_AROUND, text);
	}
	rig_diag("actual fault_around_bytes=%ld", rig_read_long(RIG_FAULT_AROUND, -1));
}

/* ---- the file system under test ---- */

static inline struct statfs rig_statfs(void)
{
	struct statfs fs;

	if (statfs(rig_dir, &fs))
		rig_bail("statfs %s: %s", rig_dir, strerror(errno));
	return fs;
}

static inline void rig_need_space(uint64_t bytes)
{
	struct statfs fs = rig_statfs();

	if ((uint64_t)fs.f_bavail * fs.f_bsize < bytes)
		rig_bail("%s: less than %" PRIu64 " KiB free", rig_dir, bytes / 1024);
}

/* A file of the workload: has no name any more, and so cannot be left behind. */
static inline int rig_open_file(const char *tag, unsigned int nr, int *direct_fd)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/rig-%s-%d-%u", rig_dir, tag, (int)getpid(), nr);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		rig_bail("%s: %s", path, strerror(errno));
	if (direct_fd)
		*direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	unlink(path);
	return fd;
}

static inline bool rig_pwrite_all(int fd, const void *buf, size_t len, off_t offset)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= n;
		offset += n;
	}
	return true;
}

static inline bool rig_pread_all(int fd, void *buf, size_t len, off_t offset)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= n;
		offset += n;
	}
	return true;
}

/* Why it cannot punch holes, or NULL. */
static inline
const char *rig_no_punch(void)
{
	int fd = rig_open_file("probe", 0, NULL);
	int bad = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, RIG_PAGE);

	close(fd);
	return bad ? "hole punch is refused" : NULL;
}

/* Why it cannot read and write directly, or NULL. */
static inline
const char *rig_no_direct(void)
{
	int direct, fd = rig_open_file("probe", 0, &direct);

	close(fd);
	if (direct < 0)
		return "O_DIRECT is refused";
	close(direct);
	return NULL;
}

/* ---- what the kernel counts and shows ---- */

/* The value of a line `name value` or `name: value kB`, or -1 when there is none. */
static inline int64_t rig_stat(const char *path, const char *name)
{
	size_t len = strlen(name);
	int64_t value = -1;
	char line[256];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, len) || (line[len] != ' ' && line[len] != ':'))
			continue;
		value = strtoll(line + len + 1, NULL, 10);
		break;
	}
	if (f)
		fclose(f);
	return value;
}

/* An event counter of /proc/vmstat since boot; 0 where the kernel has none of that name. */
static inline uint64_t rig_vmstat(const char *name)
{
	int64_t value = rig_stat("/proc/vmstat", name);

	return value < 0 ? 0 : value;
}

#define RIG_PAGEMAP_PRESENT	(1ull << 63)
#define RIG_PAGEMAP_SWAP	(1ull << 62)
#define RIG_PAGEMAP_FILE	(1ull << 61)
#define RIG_PAGEMAP_PFN		((1ull << 55) - 1)

/* The /proc/self/pagemap entry of an address (Documentation/admin-guide/mm/pagemap.rst); 0 when it cannot be read. */
static inline uint64_t rig_pagemap(const void *addr)
{
	static __thread int fd = -1;
	static __thread pid_t owner;
	uint64_t entry = 0;

	if (owner != getpid()) {	/* a child must not look into its parent's */
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		owner = getpid();
	}
	if (fd < 0 || pread(fd, &entry, sizeof(entry), (uintptr_t)addr / RIG_PAGE * 8) != sizeof(entry))
		return 0;
	return entry;
}

/*
 * Swap on zram, made once per boot and left on: the machine ends with the
 * trial. Returns why there is none, or NULL.
 */
static inline
const char *rig_swap_on(uint64_t bytes)
{
	char text[32];

	if (rig_stat("/proc/meminfo", "SwapTotal") > 0)
		return NULL;
	snprintf(text, sizeof(text), "%" PRIu64, bytes);
	if (!rig_write_text("/sys/block/zram0/disksize", text))
		return "no zram device";
	if (system("mkswap /dev/zram0 >/dev/null 2>&1 && swapon /dev/zram0 >/dev/null 2>&1"))
		return "swapon fails";
	return NULL;
}

/*
 * True in a machine of the rig, which ends with the trial: nothing that makes
 * swap, poisons pages or drops the caches of a whole machine runs elsewhere.
 */
static inline bool rig_own_machine(void)
{
	char line[4096] = "";
	FILE *f = fopen("/proc/cmdline", "re");

	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	return strstr(line, " rig.");
}

/*
 * What /proc/kpagecount or /proc/kpageflags say about a page frame
 * (Documentation/admin-guide/mm/pagemap.rst); -1 when they cannot be read.
 */
static inline int64_t rig_kpage(const char *path, uint64_t pfn)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int64_t value = -1;

	if (fd < 0)
		return -1;
	if (pread(fd, &value, sizeof(value), pfn * sizeof(value)) != sizeof(value))
		value = -1;
	close(fd);
	return value;
}

/* ---- knobs ---- */

/*
 * Knobs of procfs and sysfs that a workload turns are put back when it exits,
 * the last one first. A worker leaves through _exit() and puts back nothing.
 * Two workloads on one machine take turns, or the second would put back what
 * the first one set.
 */
#define RIG_MAX_KNOBS	32

static struct rig_knob {
	char path[128];
	char before[64];
} rig_knobs[RIG_MAX_KNOBS];

static unsigned int rig_nr_knobs;
static pid_t rig_knobs_owner;
static int rig_knobs_lock = -1;

/* The first line of a file; of a choice ("always [madvise] never") what is in brackets. */
static inline bool rig_read_choice(const char *path, char *text, size_t size)
{
	char line[256] = "";
	char *from, *to;
	FILE *f = fopen(path, "re");

	if (!f)
		return false;
	from = fgets(line, sizeof(line), f);
	fclose(f);
	if (!from)
		return false;
	to = strchr(line, '[');
	if (to)
		from = to + 1;
	to = from + strcspn(from, "]\n");
	snprintf(text, size, "%.*s", (int)(to - from), from);
	return true;
}

static inline void rig_put_back_knobs(void)
{
	if (getpid() != rig_knobs_owner)
		return;
	while (rig_nr_knobs) {
		rig_nr_knobs--;
		rig_write_text(rig_knobs[rig_nr_knobs].path, rig_knobs[rig_nr_knobs].before);
	}
	if (rig_knobs_lock >= 0)
		close(rig_knobs_lock);
	rig_knobs_lock = -1;
}

/* Returns false when there is no such knob, or it does not take the text. */
static inline bool rig_turn(const char *path, const char *text)
{
	struct rig_knob *knob = &rig_knobs[rig_nr_knobs];
	unsigned int i;

	for (i = 0; i < rig_nr_knobs; i++)
		if (!strcmp(rig_knobs[i].path, path))
			return rig_write_text(path, text);
	if (rig_nr_knobs == RIG_MAX_KNOBS)
		rig_bail("more than %d knobs", RIG_MAX_KNOBS);
	if (rig_knobs_lock < 0) {
		rig_knobs_lock = open("/sys/kernel/mm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (rig_knobs_lock >= 0 && flock(rig_knobs_lock, LOCK_EX))
			rig_bail("lock of the knobs: %s", strerror(errno));
	}
	snprintf(knob->path, sizeof(knob->path), "%s", path);
	if (!rig_read_choice(path, knob->before, sizeof(knob->before)) ||
	    !rig_write_text(path, text))
		return false;
	rig_nr_knobs++;
	if (!rig_knobs_owner) {
		rig_knobs_owner = getpid();
		atexit(rig_put_back_knobs);
	}
	return true;
}

/*
 * Which files of the tmpfs below --dir get huge pages: what its option huge=
 * says, "never" without one, "force" where the kernel makes them all huge.
 * NULL when it cannot be told.
 */
static inline
const char *rig_tmpfs_huge(void)
{
	static char policy[32];
	char line[1024], dev[32];
	const char *option;
	struct stat st;
	FILE *f;

	if (rig_read_choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled", policy,
			    sizeof(policy)) && !strcmp(policy, "force"))
		return policy;
	if (stat(rig_dir, &st))
		return NULL;
	f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return NULL;
	snprintf(policy, sizeof(policy), "never");
	snprintf(dev, sizeof(dev), " %u:%u ", major(st.st_dev), minor(st.st_dev));
	while (fgets(line, sizeof(line), f)) {
		option = strstr(line, "huge=");
		if (!option || !strstr(line, dev))
			continue;
		option += strlen("huge=");
		snprintf(policy, sizeof(policy), "%.*s", (int)strcspn(option, "\n, "), option);
	}
	fclose(f);
	return policy;
}

/* ---- nodes, CPUs and time ---- */

/* The NUMA nodes that have memory, at most 64, as a mask; 1 where the kernel does not say. */
static inline uint64_t rig_nodes(void)
{
	char text[256] = "", *p = text, *end;
	int fd = open("/sys/devices/system/node/has_memory", O_RDONLY | O_CLOEXEC);
	uint64_t mask = 0;
	unsigned long a, b;

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	while (isdigit((unsigned char)*p)) {
		a = strtoul(p, &end, 10);
		b = *end == '-' ? strtoul(end + 1, &end, 10) : a;
		for (; a <= b && a < 64; a++)
			mask |= 1ull << a;
		p = *end == ',' ? end + 1 : end;
	}
	return mask ? mask : 1;
}

/* Keeps the calling thread on the nr-th of the CPUs that this process may use, modulo their number. */
static inline void rig_pin(unsigned int nr)
{
	unsigned int cpu, left = nr % rig_cpus();
	cpu_set_t all, one;

	if (sched_getaffinity(getpid(), sizeof(all), &all))
		return;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all) && !left--)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/*
 * From now on the calling thread runs as soon as it wakes up. On one CPU with
 * another thread it opens windows of that one: what it interrupts below a
 * spinlock goes on to the unlock and no further, and a page lock that it waits
 * for is handed to it at once. Where that is not allowed nothing changes.
 */
static inline bool rig_urgent(void)
{
	const struct sched_param param = { .sched_priority = 1 };

	return !sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param);
}

static inline void rig_sleep_ns(int64_t ns)
{
	const struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	nanosleep(&ts, NULL);
}

/* ---- stamps ---- */

#define RIG_MAGIC	0x7269672d70616765ull

enum rig_end { RIG_HEAD, RIG_TAIL, RIG_ENDS };

/*
 * At both ends of every page. The sum covers all other words, so a stamp that
 * was caught half written is not whole and accuses nobody: emulated CPUs copy
 * bytewise and may be interrupted for milliseconds in the middle of a word.
 */
struct rig_stamp {
	uint64_t magic;
	uint64_t generation;
	uint64_t where;		/* page index and end of the page */
	uint64_t sum;
};

static inline uint64_t rig_where(uint64_t index, enum rig_end end)
{
	return index << 1 | end;
}

static inline uint64_t rig_stamp_sum(const struct rig_stamp *s)
{
	return rig_mix(rig_mix(rig_mix(s->magic) + s->generation) + s->where) | 1;
}

static inline struct rig_stamp *rig_stamp_at(void *page, enum rig_end end)
{
	size_t offset = end == RIG_HEAD ? 0 : RIG_PAGE - sizeof(struct rig_stamp);

	return (struct rig_stamp *)((char *)page + offset);
}

static inline void rig_stamp_write(struct rig_stamp *s, uint64_t generation, uint64_t index,
				   enum rig_end end)
{
	struct rig_stamp new = { RIG_MAGIC, generation, rig_where(index, end), 0 };

	new.sum = rig_stamp_sum(&new);
	__atomic_store_n(&s->magic, new.magic, __ATOMIC_RELAXED);
	__atomic_store_n(&s->generation, new.generation, __ATOMIC_RELAXED);
	__atomic_store_n(&s->where, new.where, __ATOMIC_RELAXED);
	__atomic_store_n(&s->sum, new.sum, __ATOMIC_RELAXED);
}

static inline void rig_stamp_page(void *page, uint64_t generation, uint64_t index)
{
	rig_stamp_write(rig_stamp_at(page, RIG_HEAD), generation, index, RIG_HEAD);
	rig_stamp_write(rig_stamp_at(page, RIG_TAIL), generation, index, RIG_TAIL);
}

/* Fills the first pages of a file with stamps, before there is any worker. */
static inline void rig_stamp_file(int fd, uint64_t generation, uint64_t pages)
{
	static char page[RIG_PAGE];
	uint64_t i;

	for (i = 0; i < pages; i++) {
		rig_stamp_page(page, generation, i);
		if (!rig_pwrite_all(fd, page, RIG_PAGE, i * RIG_PAGE))
			rig_bail("write: %s", strerror(errno));
	}
}

static inline struct rig_stamp rig_stamp_read(const struct rig_stamp *s)
{
	struct rig_stamp copy;

	copy.magic = __atomic_load_n(&s->magic, __ATOMIC_RELAXED);
	copy.generation = __atomic_load_n(&s->generation, __ATOMIC_RELAXED);
	copy.where = __atomic_load_n(&s->where, __ATOMIC_RELAXED);
	copy.sum = __atomic_load_n(&s->sum, __ATOMIC_RELAXED);
	return copy;
}

/* What a stamp is, before anyone asks whether it may be so. */
enum rig_verdict {
	RIG_LIVE,		/* whole, of this page, younger than the last removal */
	RIG_ZERO,		/* all zero: a hole, where holes are legal */
	RIG_TORN,		/* not whole: no evidence while a writer is at work */
	RIG_STALE,		/* whole, and removed before the reader looked */
	RIG_WRONG_PAGE,		/* whole, of another page */
	RIG_FUTURE,		/* whole, of a generation that was never written */
};

static const char * const rig_verdict_names[] = {
	"live", "zero", "torn", "stale", "wrong-page", "future",
};

/*
 * dead: the youngest generation of this stamp that was removed before the
 * reader looked; newest: the youngest that a writer can have begun to write
 * by the time the reader had looked.
 */
static inline enum rig_verdict rig_judge(const struct rig_stamp *s, uint64_t index,
					 enum rig_end end, uint64_t dead, uint64_t newest)
{
	if (!s->magic && !s->generation && !s->where && !s->sum)
		return RIG_ZERO;
	if (s->magic != RIG_MAGIC || s->sum != rig_stamp_sum(s))
		return RIG_TORN;
	if (s->where != rig_where(index, end))
		return RIG_WRONG_PAGE;
	if (s->generation > newest)
		return RIG_FUTURE;
	return s->generation <= dead ? RIG_STALE : RIG_LIVE;
}

static inline void rig_expect(const char *name, const struct rig_stamp *s, enum rig_verdict want)
{
	/* page 7, head; generations up to 5 are dead, up to 9 are written */
	enum rig_verdict got = rig_judge(s, 7, RIG_HEAD, 5, 9);

	rig_diag("judge %s=%s", name, rig_verdict_names[got]);
	if (got == want)
		rig_ok(name);
	else
		rig_not_ok(name);
}

#define RIG_NR_STAMP_CASES	12

/* Feeds the judge what it must accept and what it must refuse. */
static inline void rig_self_test_stamps(void)
{
	struct rig_stamp zero = { 0 }, old, new, s;

	rig_stamp_write(&old, 5, 7, RIG_HEAD);
	rig_stamp_write(&new, 6, 7, RIG_HEAD);
	rig_expect("live", &new, RIG_LIVE);
	rig_stamp_write(&s, 9, 7, RIG_HEAD);
	rig_expect("newer", &s, RIG_LIVE);
	rig_expect("zero", &zero, RIG_ZERO);
	rig_expect("whole-stale", &old, RIG_STALE);
	rig_stamp_write(&s, 1, 7, RIG_HEAD);
	rig_expect("very-stale", &s, RIG_STALE);
	s = new;
	s.generation = old.generation;
	rig_expect("torn-generation", &s, RIG_TORN);
	s = new;
	memcpy((char *)&s.generation + 4, (char *)&zero, 4);
	s.sum = 0;
	rig_expect("torn-half-written", &s, RIG_TORN);
	s = zero;
	s.magic = RIG_MAGIC;
	rig_expect("torn-from-zero", &s, RIG_TORN);
	memset(&s, 0xaa, sizeof(s));
	rig_expect("poison", &s, RIG_TORN);
	rig_stamp_write(&s, 6, 8, RIG_HEAD);
	rig_expect("wrong-index", &s, RIG_WRONG_PAGE);
	rig_stamp_write(&s, 6, 7, RIG_TAIL);
	rig_expect("wrong-end", &s, RIG_WRONG_PAGE);
	rig_stamp_write(&s, 10, 7, RIG_HEAD);
	rig_expect("future", &s, RIG_FUTURE);
}

/* ---- mappings, and what is in them ---- */

/*
 * Room for len bytes from the start of a page table on, with nothing mapped
 * into it. Returns NULL after rig_broken().
 */
static inline char *rig_room(size_t len)
{
	char *p = mmap(NULL, len + RIG_TABLE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return NULL;
	}
	return (char *)(((uintptr_t)p + RIG_TABLE - 1) & ~(RIG_TABLE - 1));
}

/* Returns true when all of it is zero, and when there is nothing. */
static inline bool rig_all_zero(const char *p, size_t len)
{
	return !len || (!*p && !memcmp(p, p + 1, len - 1));
}

/* ---- SIGBUS: legal past the end of a file, so it is an answer, not an end ---- */

static __thread sigjmp_buf rig_bus_env;
static __thread uint32_t rig_bus_armed;

static inline void rig_on_bus(int sig)
{
	if (rig_load(&rig_bus_armed))
		siglongjmp(rig_bus_env, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static inline void rig_catch_bus(void)
{
	struct sigaction sa = { .sa_handler = rig_on_bus, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

/* Reads both stamps of a page. Returns false when the access ended in SIGBUS. */
static inline bool rig_look(void *page, struct rig_stamp *out)
{
	if (sigsetjmp(rig_bus_env, 0)) {
		rig_store(&rig_bus_armed, 0);
		return false;
	}
	rig_store(&rig_bus_armed, 1);
	out[RIG_HEAD] = rig_stamp_read(rig_stamp_at(page, RIG_HEAD));
	out[RIG_TAIL] = rig_stamp_read(rig_stamp_at(page, RIG_TAIL));
	rig_store(&rig_bus_armed, 0);
	return true;
}

/* ---- the cases of a workload: which of them run, and for how long ---- */

/* The first member of what a workload knows about a case of its own. */
struct rig_case {
	const char *name;
	unsigned int weight;	/* share of the budget */
};

struct rig_suite {
	const struct rig_program *program;
	const void *cases;	/* an array of structs that begin with a struct rig_case */
	size_t size;		/* of one of them */
	unsigned int nr;
	bool fault_around;	/* the cases set fault_around_bytes, which is put back */
	/* Why this machine cannot run a case, or NULL. Asked once, before any of them runs. */
	const char *(*unsupported)(const void *c);
	/* Runs a case and reports its result. */
	void (*run)(const void *c, int64_t ns);
};

/* The next case after c, or the first, that was asked for; NULL when there is none. */
static inline
const struct rig_case *rig_next_wanted(const struct rig_suite *s, const struct rig_case *c)
{
	const char *p = c ? (const char *)c + s->size : s->cases;

	for (; p < (const char *)s->cases + s->nr * s->size; p += s->size)
		if (rig_wanted(((const struct rig_case *)p)->name))
			return (const struct rig_case *)p;
	return NULL;
}

/* With --self-test the program ends here. */
static inline void rig_suite_start(const struct rig_suite *s, int argc, char **argv)
{
	rig_start(s->program, argc, argv);
	if (rig_self_test) {
		rig_plan(RIG_NR_STAMP_CASES);
		rig_self_test_stamps();
		exit(rig_finish());
	}
	if (!rig_next_wanted(s, NULL))
		rig_bail("--cases %s: no such case (see --help)", rig_cases);
}

/* Says what is to come. A workload that finds its set-up broken says so before. */
static inline void rig_suite_plan(const struct rig_suite *s)
{
	const struct rig_case *c = NULL;
	unsigned int nr = 0;

	while ((c = rig_next_wanted(s, c)))
		nr++;
	rig_plan(nr);
	rig_diag("seed %" PRIu64, rig_seed);
	rig_diag("cpus %u", rig_cpus());
}

/* Shares the budget among the cases that can run, and runs or skips each that was asked for. */
static inline void rig_suite_run(const struct rig_suite *s)
{
	const char *why[RIG_MAX_CASES] = { NULL };
	const long around = rig_read_long(RIG_FAULT_AROUND, 0);
	const struct rig_case *c;
	unsigned int i, weights = 0;

	if (s->nr > RIG_MAX_CASES)
		rig_bail("more than %d cases", RIG_MAX_CASES);
	for (c = NULL, i = 0; (c = rig_next_wanted(s, c)); i++) {
		why[i] = s->unsupported(c);
		if (!why[i])
			weights += rig_weight(c->name, c->weight);
	}
	for (c = NULL, i = 0; (c = rig_next_wanted(s, c)); i++) {
		if (why[i])
			rig_skip(c->name, "unsupported: %s", why[i]);
		else
			s->run(c, rig_budget * 1e9 * rig_weight(c->name, c->weight) / weights);
	}
	if (s->fault_around)
		rig_fault_around(around);
}

#endif /* RIG_H */
