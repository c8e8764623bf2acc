// SPDX-License-Identifier: GPL-2.0-only
/*
 * will-it-scale: the tests of the benchmark of that name, from its own sources,
 * as cases of a workload of the rig.
 *
 * A test is a function that does something over and over and counts how often.
 * It runs in as many processes as there are CPUs, each on a CPU of its own:
 * first to warm up, then for the time that is measured, and is killed. This is
 * what the benchmark's main() does, which warms up as long, but reports no KTAP
 * and wants hwloc to find the CPUs.
 *
 * PASS means: the test ran as long as it was to. What it cannot see: anything
 * about correctness, or what the iterations of a test have to do with faults.
 */
#include "rig.h"

struct test {
	struct rig_case common;
	void (*prepare)(unsigned long tasks);	/* NULL where a test needs none */
	void (*run)(unsigned long long *iterations, unsigned long nr);
	void (*cleanup)(void);
};

/* Has tests[], which rig/costs/willitscale.py makes of the tests that were asked for. */
#include "tests.h"

static long opt_tasks = -1, opt_warm_up = 5000, opt_ms = 2000;

static struct rig_option options[] = {
	{ "tasks", "processes; not given: one for each CPU", &opt_tasks, 1, RIG_MAX_WORKERS },
	{ "warm-up", "milliseconds before what is measured", &opt_warm_up, 0, 600000 },
	{ "ms", "milliseconds that are measured", &opt_ms, 1, 600000 },
};

static const struct rig_program program = {
	.name = "will-it-scale",
	.about = "will-it-scale: tests of the benchmark of that name, for the time they take.",
	.cases = "will-it-scale.TEST for each test that was compiled in",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

/* What a task has done, by itself in its cache lines. */
struct done {
	unsigned long long iterations;
	char others[120];
};

static const struct test *test;
static struct done *done;
static long tasks;

static void task(void *arg)
{
	const unsigned long nr = (uintptr_t)arg;

	rig_pin(nr);
	test->run(&done[nr].iterations, nr);
}

/* Whatever ends meanwhile, a test or one of its assertions, must not look like a slow kernel. */
static void let_run(long ms)
{
	const int64_t end = rig_now() + ms * 1000000;
	int64_t left;
	int status;

	while ((left = end - rig_now()) > 0) {
		rig_wait_child(left);
		if (waitpid(-1, &status, WNOHANG) > 0)
			rig_bail("%s: a task ended by itself, with status %#x",
				 test->common.name, (unsigned int)status);
	}
}

static unsigned long long iterations(void)
{
	unsigned long long sum = 0;
	long i;

	for (i = 0; i < tasks; i++)
		sum += rig_load(&done[i].iterations);
	return sum;
}

static void run_case(const void *c, int64_t unused)
{
	unsigned long long count;
	int64_t ns;
	long i;

	(void)unused;
	test = c;
	rig_case_begin(test->common.name);
	tasks = opt_tasks > 0 ? opt_tasks : rig_min((long)rig_cpus(), (long)RIG_MAX_WORKERS);
	done = rig_share(tasks * sizeof(*done));
	if (test->prepare)
		test->prepare(tasks);
	for (i = 0; i < tasks; i++)
		rig_spawn(task, (void *)i);
	let_run(opt_warm_up);
	ns = rig_now();
	count = iterations();
	let_run(opt_ms);
	ns = rig_now() - ns;
	count = iterations() - count;
	rig_diag("counter tasks=%ld", tasks);
	rig_diag("counter iterations=%llu", count);
	rig_diag("counter elapsed_ns=%" PRId64, ns);
	rig_kill_workers();
	while (waitpid(-1, NULL, 0) > 0)
		;
	if (test->cleanup)
		test->cleanup();
	munmap(done, tasks * sizeof(*done));
	rig_case_end(test->common.name, NULL, 0, NULL, 0);
}

static const char *unsupported(const void *c)
{
	(void)c;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct rig_suite suite = {
		.program = &program,
		.cases = tests,
		.size = sizeof(*tests),
		.nr = RIG_COUNT(tests),
		.unsupported = unsupported,
		.run = run_case,
	};

	rig_suite_start(&suite, argc, argv);
	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
