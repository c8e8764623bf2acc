// SPDX-License-Identifier: GPL-2.0-only
/*
 * poison-race: memory failure (MADV_HWPOISON) and soft offline against faults.
 *
 *   file-private, file-shared  pages of a clean file are poisoned under readers
 *                              that fault the file in, with fault-around
 *   anon                       pages of anonymous memory are poisoned under
 *                              threads that read them, then replaced
 *   soft-offline               pages of a file are taken out of use without harm
 *
 * Legal outcomes of one read:
 *   - of a page that nobody has begun to poison: its stamp, never SIGBUS;
 *   - of one that is being poisoned, or was: its stamp or SIGBUS;
 *   - of a page of tmpfs or of anonymous memory whose poisoning has succeeded:
 *     SIGBUS only, as its data is gone and there is no other copy (a disk has
 *     one, so there the stamp comes back);
 *   - with soft-offline: the stamp, always.
 * Nothing else is, and no PTE is present for a page with the HWPOISON flag once
 * its poisoning has succeeded (pagemap and kpageflags).
 *
 * Poisoned pages are gone until the machine is rebooted, so that this runs in a
 * guest of the rig only, and a case takes a bounded share of the memory.
 *
 * PASS means: pages were poisoned and readers met it, and every look was legal.
 * What it cannot see: kernel memory, huge pages, what machine check hardware
 * does, messages of the kernel about pages that it could not isolate.
 */
#include "rig.h"

#include <linux/magic.h>
#include <pthread.h>

#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

#define MAX_PAGES	128
#define MAX_READERS	32
#define KPF_HWPOISON	19

/* A case takes no more than one in so many pages of the machine. */
#define POISON_SHARE	2048

enum kind { ON_FILE, ON_ANON, ON_SOFT };

struct race {
	struct rig_case common;
	enum kind kind;
	bool shared;
};

static const struct race races[] = {
	{ { "file-private", 3 }, ON_FILE, false },
	{ { "file-shared", 2 }, ON_FILE, true },
	{ { "anon", 2 }, ON_ANON, false },
	{ { "soft-offline", 1 }, ON_SOFT, true },
};

enum counter {
	C_POISONED, C_REFUSED, C_READS, C_SIGBUS, C_SWEEPS, C_COLLISIONS, C_LOOKS, NR_COUNTERS
};

static const char * const counter_names[NR_COUNTERS] = {
	"poisoned", "refused", "reads", "sigbus", "sweeps", "collisions", "pagemap_entries",
};

struct plan {
	long readers;
	long pages;
	long stride;
	long pause;		/* most microseconds between two poisonings */
	long portion;		/* percent of the pages that may be poisoned, or four */
	long fault_around;
};

static long plan_ms = 1000;	/* of one episode */

static struct plan given = { -1, -1, -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "episode", "milliseconds until the next plan is drawn", &plan_ms, 100, 3600000 },
	{ "readers", "processes (threads, with anon) that read", &given.readers, 1, MAX_READERS },
	{ "pages", "of the file or the memory", &given.pages, 16, MAX_PAGES },
	{ "stride", "touch one page in so many first", &given.stride, 1, 128 },
	{ "pause", "most microseconds between two poisonings", &given.pause, 1, 10000000 },
	{ "portion", "percent of the pages that may be poisoned, or four of them",
	  &given.portion, 1, 100 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "poison-race",
	.about = "poison-race: poisoned and soft-offlined pages against faults.\n"
		 "Only in a guest of the rig: poisoned pages are gone until a reboot.",
	.cases = "file-private file-shared anon soft-offline",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

enum state { HEALTHY, POISONING, POISONED, UNSURE };

/* Lives in shared memory. */
struct shared {
	uint64_t taken;			/* pages of this case */
	uint32_t version[MAX_PAGES];	/* raised whenever the state changes */
	uint32_t state[MAX_PAGES];
};

static const struct race *race;
static struct plan plan;
static struct shared *shared;
static int file_fd = -1, kpageflags = -1;
static bool in_guest, only_copy;	/* what is poisoned cannot be read anew */
static char *memory;			/* with anon, before the threads exist */

static char title_data[96], title_bus[96], title_wrong[96], title_corrupt[96], title_zero[96];
static char title_mapped[96];

static void make_titles(void)
{
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in %s", race->common.name)
	TITLE(title_data, "data of a poisoned page");
	TITLE(title_mapped, "poisoned page is mapped");
	TITLE(title_bus, "SIGBUS on a page that was not poisoned");
	TITLE(title_wrong, "data of another page beside poisoned ones");
	TITLE(title_corrupt, "corrupt data beside poisoned pages");
	TITLE(title_zero, "zeroes instead of data beside poisoned pages");
#undef TITLE
}

static size_t map_len(void)
{
	return plan.pages * RIG_PAGE;
}

static void set_state(uint64_t index, enum state state)
{
	rig_add(&shared->version[index], 1);
	rig_store(&shared->state[index], state);
	rig_add(&shared->version[index], 1);
}

/* ---- readers ---- */

struct reader {
	unsigned int nr;
	char *base;
	struct rig_rng rng;
	uint64_t counts[NR_COUNTERS];
};

static __thread uint32_t poisoning;

/* Who poisons a page that it maps gets a SIGBUS when madvise() returns: nothing to jump from. */
static void on_bus(int sig)
{
	if (!rig_load(&poisoning))
		rig_on_bus(sig);
}

static void catch_bus(void)
{
	struct sigaction sa = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &sa, NULL);
}

static void check_stamps(const struct rig_stamp *seen, uint64_t index)
{
	const char *title;
	unsigned int end;

	for (end = 0; end < RIG_ENDS; end++) {
		title = NULL;
		switch (rig_judge(&seen[end], index, end, 0, 1)) {
		case RIG_LIVE:
			break;
		case RIG_ZERO:
			title = title_zero;
			break;
		case RIG_WRONG_PAGE:
			title = title_wrong;
			break;
		default:
			title = title_corrupt;
			break;
		}
		if (title)
			rig_found(title, "page %" PRIu64 " %s: magic %#" PRIx64 " generation %"
				  PRIu64 " where %#" PRIx64, index,
				  end == RIG_HEAD ? "head" : "tail", seen[end].magic,
				  seen[end].generation, seen[end].where);
	}
}

/* A page that was poisoned before must not be present in a page table any more. */
static void look_at_table(struct reader *r, char *page, uint64_t index)
{
	uint64_t entry = rig_pagemap(page), pfn = entry & RIG_PAGEMAP_PFN, flags;

	r->counts[C_LOOKS]++;
	if (!(entry & RIG_PAGEMAP_PRESENT) || !pfn ||
	    pread(kpageflags, &flags, sizeof(flags), pfn * 8) != sizeof(flags))
		return;
	if (flags >> KPF_HWPOISON & 1)
		rig_found(title_mapped, "page %" PRIu64 ": pagemap %#" PRIx64 ", kpageflags %#"
			  PRIx64, index, entry, flags);
}

static void check_page(struct reader *r, uint64_t index)
{
	char *page = r->base + index * RIG_PAGE;
	struct rig_stamp seen[RIG_ENDS];
	uint32_t version, state;
	bool data, still;

	version = rig_load(&shared->version[index]);
	state = rig_load(&shared->state[index]);
	data = rig_look(page, seen);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	still = !(version & 1) && rig_load(&shared->version[index]) == version;
	r->counts[C_READS]++;
	r->counts[C_SIGBUS] += !data;
	if (!still || state == POISONING) {
		r->counts[C_COLLISIONS]++;
		/* anonymous memory may be on its way to be replaced */
		if (data && race->kind != ON_ANON)
			check_stamps(seen, index);
		return;
	}
	if (!data && state == HEALTHY)
		rig_found(title_bus, "page %" PRIu64, index);
	if (data && state == POISONED && only_copy)
		rig_found(title_data, "page %" PRIu64 ": generation %" PRIu64 " where %#" PRIx64,
			  index, seen[RIG_HEAD].generation, seen[RIG_HEAD].where);
	else if (data)
		check_stamps(seen, index);
	/* what anonymous memory looks like is its replacer's until it says otherwise */
	if (state == POISONED && kpageflags >= 0 && race->kind == ON_FILE)
		look_at_table(r, page, index);
}

static void sweep(struct reader *r)
{
	long i;

	if (race->kind != ON_ANON && madvise(r->base, map_len(), MADV_DONTNEED))
		rig_broken("madvise: %s", strerror(errno));
	for (i = rig_below(&r->rng, plan.stride); i < plan.pages; i += plan.stride)
		check_page(r, i);
	for (i = 0; i < plan.pages; i++)
		check_page(r, i);
	r->counts[C_SWEEPS]++;
	rig_flush_counts(r->counts, NR_COUNTERS);
}

static void *thread_main(void *arg)
{
	struct reader *r = arg;

	while (!rig_stopped())
		sweep(r);
	return NULL;
}

static void reader_main(void *arg)
{
	static struct reader r;

	catch_bus();
	r.nr = (long)arg;
	r.rng = rig_rng_for(race->common.name, r.nr);
	r.base = mmap(NULL, map_len(), PROT_READ, race->shared ? MAP_SHARED : MAP_PRIVATE, file_fd,
		      0);
	if (r.base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	thread_main(&r);
}

/* ---- poisoning ---- */

/* Returns whether there may be another page to take. */
static bool may_take(void)
{
	uint64_t most = rig_max(16, sysconf(_SC_PHYS_PAGES) / POISON_SHARE);

	return rig_load(&shared->taken) < most;
}

/* Poisons one page at an address; what became of it is its new state. */
static enum state poison(char *page, int advice)
{
	int ret;

	if (rig_lies("idle"))
		return UNSURE;
	if (rig_lies("data"))
		return POISONED;
	if (!in_guest)		/* the last fence: never on somebody's machine */
		return UNSURE;
	rig_store(&poisoning, 1);
	ret = madvise(page, RIG_PAGE, advice);
	rig_store(&poisoning, 0);
	rig_add(&shared->taken, 1);
	rig_count(ret ? C_REFUSED : C_POISONED, 1);
	return ret ? UNSURE : POISONED;
}

static void pause_a_while(struct rig_rng *rng)
{
	rig_sleep_ns(1000 * (1 + rig_below(rng, plan.pause)));
}

static void poisoner_main(void *arg)
{
	struct rig_rng rng = rig_rng_for(race->common.name, 1000);
	long left = rig_max(4, plan.pages * plan.portion / 100);
	uint64_t index;
	char *base;

	(void)arg;
	catch_bus();
	base = mmap(NULL, map_len(), PROT_READ, MAP_SHARED, file_fd, 0);
	if (base == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	while (!rig_stopped()) {
		pause_a_while(&rng);
		index = rig_below(&rng, plan.pages);
		if (rig_lies("sigbus") && ftruncate(file_fd, 0))
			rig_broken("ftruncate: %s", strerror(errno));
		if (left <= 0 || !may_take() || rig_lies("sigbus"))
			continue;
		if (race->kind == ON_SOFT) {
			/* its state stays: readers must not notice */
			poison(base + index * RIG_PAGE, MADV_SOFT_OFFLINE);
			continue;
		}
		if (rig_load(&shared->state[index]) != HEALTHY)
			continue;
		set_state(index, POISONING);
		set_state(index, poison(base + index * RIG_PAGE, MADV_HWPOISON));
		left--;
	}
}

/* In the process of the readers, as anonymous memory is nobody else's. */
static void poison_anon(struct rig_rng *rng)
{
	uint64_t index = rig_below(rng, plan.pages);
	char *page = memory + index * RIG_PAGE;

	if (!may_take())
		return;
	set_state(index, POISONING);
	set_state(index, poison(page, MADV_HWPOISON));
	pause_a_while(rng);
	/* replaced: never judged while this is under way */
	set_state(index, POISONING);
	if (mmap(page, RIG_PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
		 -1, 0) == MAP_FAILED)
		rig_broken("mmap: %s", strerror(errno));
	else
		rig_stamp_page(page, 1, index);
	set_state(index, HEALTHY);
}

static void anon_main(void *arg)
{
	static struct reader readers[MAX_READERS];
	struct rig_rng rng = rig_rng_for(race->common.name, 1000);
	pthread_t threads[MAX_READERS];
	long i;

	(void)arg;
	catch_bus();
	memory = mmap(NULL, map_len(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	for (i = 0; i < plan.pages; i++)
		rig_stamp_page(memory + i * RIG_PAGE, 1, i);
	for (i = 0; i < plan.readers; i++) {
		readers[i].nr = i;
		readers[i].base = memory;
		readers[i].rng = rig_rng_for(race->common.name, i);
		if (pthread_create(&threads[i], NULL, thread_main, &readers[i])) {
			rig_broken("pthread_create failed");
			return;
		}
	}
	while (!rig_stopped()) {
		pause_a_while(&rng);
		poison_anon(&rng);
	}
	for (i = 0; i < plan.readers; i++)
		pthread_join(threads[i], NULL);
}

/* ---- cases ---- */

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(unsigned int episode)
{
	static const long readers[] = { 1, 2, 2, 3 };
	static const long pages[] = { 16, 32, 64, 128 };
	static const long strides[] = { 1, 4, 16, 16 };
	static const long pauses[] = { 2000, 20000, 20000 };
	static const long portions[] = { 10, 25, 50 };
	static const long arounds[] = { 16384, 65536, 65536, 65536, 2 << 20 };
	struct rig_rng rng = rig_rng_for_episode(race->common.name, episode);
	const long cpus = rig_cpus();
	struct plan p;

	p.readers = rig_min(rig_pick(&rng, readers) * rig_max(1, cpus / 6), MAX_READERS);
	p.pages = rig_pick(&rng, pages);
	p.stride = rig_pick(&rng, strides);
	p.pause = rig_pick(&rng, pauses);
	p.portion = rig_pick(&rng, portions);
	p.fault_around = rig_pick(&rng, arounds);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
}

/* Clean and, on a disk, written: poison must find nothing that only it would lose. */
static void make_file(unsigned int episode)
{
	rig_need_space(2 * MAX_PAGES * RIG_PAGE);
	only_copy = race->kind == ON_ANON || rig_lies("data") ||
		    (race->kind == ON_FILE && rig_statfs().f_type == TMPFS_MAGIC);
	file_fd = rig_open_file("poison", episode, NULL);
	rig_stamp_file(file_fd, 1, plan.pages);
	if (fsync(file_fd))
		rig_bail("fsync: %s", strerror(errno));
}

static void run_episode(unsigned int episode, int64_t ns)
{
	long i;

	draw_plan(episode);
	rig_print_plan(episode, &plan, &given, sizeof(plan));
	rig_case_again();
	make_file(episode);
	rig_fault_around(plan.fault_around);
	memset(shared->state, 0, sizeof(shared->state));
	if (race->kind == ON_ANON) {
		rig_spawn(anon_main, NULL);
	} else {
		for (i = 0; i < plan.readers; i++)
			rig_spawn(reader_main, (void *)i);
		rig_spawn(poisoner_main, NULL);
	}
	rig_case_run(ns);
	close(file_fd);
}

static const char *unsupported(const void *c)
{
	(void)c;
	return in_guest || *rig_inject ? NULL : "only a guest of the rig may lose pages";
}

static void judge_race(int64_t ns)
{
	const int64_t second = 1000000000;
	const struct rig_gate gates[] = {
		{ C_POISONED, rig_max(1, rig_min(8, ns / second)) },
		{ C_SWEEPS, rig_max(3, rig_min(100, 5 * ns / second)) },
		/* a page that can be read anew from the disk need not have met a reader */
		{ C_SIGBUS, only_copy },
	};

	rig_case_end(race->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_race(const void *c, int64_t ns)
{
	race = c;
	rig_case_begin(race->common.name);
	make_titles();
	memset(shared, 0, sizeof(*shared));
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
	shared = rig_share(sizeof(*shared));
	in_guest = rig_own_machine();
	kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
