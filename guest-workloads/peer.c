// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other people's stress tests, run as a workload of the rig: stress-ng, and the
 * memory-management selftests that come with the kernel. For comparison: they
 * have the same machine, the same seconds and the same console oracles as the
 * rig's own workloads.
 *
 * Each case runs one program for its share of the budget, in an order drawn
 * from the seed; --cases picks them (stress-ng.*, selftest.*). A PASS means that
 * the program exited with its own word for success. A FAIL is the program's own
 * word that the kernel did wrong, or its death by a signal that it did not ask
 * for; its last line is the detail. What a program cannot do in this guest, and
 * what is not done when the budget is over, is a SKIP: these programs know no
 * budget of their own, except for stress-ng.
 *
 * Exit statuses of stress-ng: 0 success, 2 a stressor failed (with --verify:
 * what it read is wrong), 3 and 4 not possible here, 5 a stressor was killed
 * by a signal that nobody expected, 6 a stressor left in an unexpected way,
 * 7 its numbers cannot be trusted. Of the selftests: 0 pass, 1 fail, 2 an
 * expected failure, 3 an unexpected pass, 4 skip.
 *
 * What it cannot see: which of the findings are the kernel's. A selftest that
 * fails for want of something in this guest fails on a good kernel, too; only
 * the comparison with the base tells.
 */
#include "rig.h"

#define MAX_WORDS	24

/* A selftest that is not done after this part of the budget leaves the rest to others. */
#define LONGEST		3

enum peer { STRESS_NG, SELFTEST };

struct peer_case {
	const char *name;
	const char *title;	/* of the finding when it fails */
	const char *died;	/* of the finding when a signal ends it */
	const char *program;
	const char *words;	/* its arguments */
	enum peer peer;
};

#define NG(stressor, more) { \
	"stress-ng." stressor, "stress-ng --" stressor " --verify fails", \
	"stress-ng --" stressor " dies of a signal", "stress-ng", \
	"--" stressor " 0 " more, STRESS_NG }
#define ST(test, more) { \
	"selftest." test, "selftest " test " fails", "selftest " test " dies of a signal", \
	test, more, SELFTEST }

/* Sizes that fit a guest of 1 GB, an instance for each CPU. */
static const struct peer_case cases[] = {
	NG("fault", ""),
	NG("mmap", "--mmap-bytes 16M --mmap-file"),
	NG("mmapfork", ""),
	NG("mmapaddr", ""),
	NG("mmapmany", ""),
	NG("mmapfixed", ""),
	NG("fallocate", "--fallocate-bytes 16M"),
	NG("madvise", ""),
	NG("mremap", "--mremap-bytes 8M"),
	NG("userfaultfd", "--userfaultfd-bytes 8M"),
	NG("memfd", "--memfd-bytes 16M --memfd-fds 16"),
	NG("shm", "--shm-bytes 8M"),
	NG("msync", "--msync-bytes 4M"),
	NG("remap", ""),
	NG("mincore", ""),
	NG("vm", "--vm-bytes 32M"),
	NG("vm-splice", ""),
	ST("cow", ""),
	ST("compaction_test", ""),
	ST("droppable", ""),
	ST("gup_longterm", ""),
	ST("gup_test", "-ct -F 0x1 0 19 0x1000"),
	ST("hugepage-mmap", ""),
	ST("hugepage-mremap", ""),
	ST("hugepage-shm", ""),
	ST("hugepage-vmemmap", ""),
	ST("hugetlb-madvise", ""),
	ST("hugetlb-soft-offline", ""),
	ST("hugetlb_dio", ""),
	ST("hugetlb_fault_after_madv", ""),
	ST("hugetlb_madv_vs_map", ""),
	ST("khugepaged", ""),
	ST("ksm_functional_tests", ""),
	ST("madv_populate", ""),
	ST("map_fixed_noreplace", ""),
	ST("map_hugetlb", ""),
	ST("map_populate", ""),
	ST("mdwe_test", ""),
	ST("migration", ""),
	ST("mkdirty", ""),
	ST("mlock-random-test", ""),
	ST("mlock2-tests", ""),
	ST("mrelease_test", ""),
	ST("mremap_dontunmap", ""),
	ST("mremap_test", ""),
	ST("mseal_test", ""),
	ST("on-fault-limit", ""),
	ST("pagemap_ioctl", ""),
	ST("protection_keys", ""),
	ST("seal_elf", ""),
	ST("soft-dirty", ""),
	ST("split_huge_page_test", ""),
	ST("thuge-gen", ""),
	ST("transhuge-stress", "-d 5"),
	ST("uffd-stress", "shmem 20 16"),
	ST("uffd-unit-tests", ""),
};

static const struct rig_program program = {
	.name = "peer",
	.about = "Other people's stress tests: stress-ng and the kernel's selftests.",
	.cases = "stress-ng.fault ... selftest.uffd-unit-tests",
};

/* Looks for a program where the shell would. */
static bool find(const char *name, char *path, size_t size)
{
	const char *from = getenv("PATH"), *to;

	for (; from && *from; from = *to ? to + 1 : to) {
		to = strchrnul(from, ':');
		snprintf(path, size, "%.*s/%s", (int)(to - from), from, name);
		if (!access(path, X_OK))
			return true;
	}
	return false;
}

/* Becomes the program, with all that it says in the file `out`, in its own session. */
static void become(const struct peer_case *c, const char *path, int seconds, int out)
{
	char words[256], number[16], *argv[MAX_WORDS], *word, *save;
	int n = 0;

	argv[n++] = (char *)path;
	if (c->peer == STRESS_NG) {
		snprintf(number, sizeof(number), "%d", seconds);
		argv[n++] = "--verify";
		argv[n++] = "--oomable";
		argv[n++] = "--temp-path";
		argv[n++] = (char *)rig_dir;
		argv[n++] = "--timeout";
		argv[n++] = number;
	}
	snprintf(words, sizeof(words), "%s", c->words);
	for (word = strtok_r(words, " ", &save); word && n < MAX_WORDS - 1;
	     word = strtok_r(NULL, " ", &save))
		argv[n++] = word;
	argv[n] = NULL;
	setsid();
	if (chdir(rig_dir) || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(RIG_EXIT_BROKEN);
	execv(path, argv);
	_exit(RIG_EXIT_BROKEN);
}

/* The last line that speaks of a failure, or else the last that says anything. */
static void last_words(int fd, char *text, size_t size)
{
	char line[160];
	bool telling = false;
	FILE *f;

	text[0] = 0;
	lseek(fd, 0, SEEK_SET);
	f = fdopen(dup(fd), "r");
	while (f && fgets(line, sizeof(line), f)) {
		bool tells = strstr(line, "fail") || strstr(line, "FAIL") ||
			     strstr(line, "not ok") || strstr(line, "error:");

		line[strcspn(line, "\n")] = 0;
		if (!line[strspn(line, " \t")] || (telling && !tells))
			continue;
		telling = tells;
		snprintf(text, size, "%s", line);
	}
	if (f)
		fclose(f);
}

static void judge(const struct peer_case *c, int status, const char *said)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;

	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		rig_skip(c->name, "killed from outside (out of memory?): %s", said);
		return;
	}
	if (WIFSIGNALED(status)) {
		rig_found(c->died, "%s: %s", strsignal(WTERMSIG(status)), said);
	} else if (c->peer == STRESS_NG ? code == 2 || code == 5 || code == 6 : code == 1) {
		rig_found(c->title, "exit status %d: %s", code, said);
	} else if (c->peer == STRESS_NG ? code && code != 7 : code != 0 && code != 2 && code != 3) {
		rig_skip(c->name, "exit status %d: %s", code, said);
		return;
	}
	rig_case_end(c->name, NULL, 0, NULL, 0);
}

/* Ends the program and all its children. */
static void end(pid_t pid, int *status)
{
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, status, 0);
}

static void run_case(const struct peer_case *c, int64_t ns)
{
	const int64_t start = rig_now(), grace = c->peer == STRESS_NG ? RIG_STUCK_NS : 0;
	char path[512], said[192] = "";
	int out, status = 0;
	pid_t pid, done = 0;

	rig_case_begin(c->name);
	rig_shared->started_ns = start;
	if (!find(c->program, path, sizeof(path))) {
		rig_skip(c->name, "no %s in this guest", c->program);
		return;
	}
	if (ns < 1000000000ll) {
		rig_skip(c->name, "the budget is used up");
		return;
	}
	out = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (out < 0)
		rig_bail("/tmp: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		rig_bail("fork: %s", strerror(errno));
	if (!pid)
		become(c, path, (ns + 500000000ll) / 1000000000ll, out);
	while (!done && rig_now() - start < ns + grace) {
		rig_wait_child(20ll * 1000 * 1000);
		done = waitpid(pid, &status, WNOHANG);
	}
	if (!done)
		end(pid, &status);
	else
		kill(-pid, SIGKILL);	/* what it left behind */
	last_words(out, said, sizeof(said));
	close(out);
	if (done)
		judge(c, status, said);
	else
		rig_skip(c->name, "not done within the budget");
}

int main(int argc, char **argv)
{
	const struct peer_case *order[RIG_COUNT(cases)];
	unsigned int i, nr = 0, ng = 0;
	struct rig_rng rng;
	int64_t start, ns, part;

	rig_start(&program, argc, argv);
	for (i = 0; i < RIG_COUNT(cases); i++) {
		if (!rig_wanted(cases[i].name))
			continue;
		order[nr++] = &cases[i];
		ng += cases[i].peer == STRESS_NG;
	}
	if (!nr)
		rig_bail("--cases %s: no such case (see --help)", rig_cases);
	rng = rig_rng_for("order", 0);
	for (i = nr; i > 1; i--) {
		unsigned int j = rig_below(&rng, i);
		const struct peer_case *c = order[j];

		order[j] = order[i - 1];
		order[i - 1] = c;
	}
	rig_plan(nr);
	rig_diag("seed %" PRIu64, rig_seed);
	start = rig_now();
	ns = rig_budget * 1e9;
	for (i = 0; i < nr; i++) {
		int64_t left = start + ns - rig_now();

		/* stress-ng takes what it is given; a selftest is done when it is done */
		part = order[i]->peer == STRESS_NG ? ns / ng : ns / LONGEST;
		run_case(order[i], rig_min(left, rig_max(part, 1000000000ll)));
	}
	return rig_finish();
}
