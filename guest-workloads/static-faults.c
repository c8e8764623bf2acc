// SPDX-License-Identifier: GPL-2.0-only
/*
 * static-faults: what page faults must get right without any race.
 *
 * Each case builds one situation in which fault-around has to leave a page out,
 * or to count what it mapped, and looks at the outcome with nobody else at
 * work. A kernel that gets it wrong is caught in the first pass; further passes
 * draw other sizes, holes and orders, for a second at most.
 *
 *   never-written   fallocated pages next to written ones: zeroes, whatever was
 *                   in the memory before (filled with garbage by this case, and
 *                   by page_poison=1)
 *   past-eof        nothing is mapped past the end of a file that was cut short
 *                   (dirty large folios stay whole then), SIGBUS there, zeroes
 *                   in the rest of its last page
 *   rss             pages present in the page table against RssFile, RssShmem
 *                   and RssAnon, exact since they are summed over all CPUs, also
 *                   after threads have met in one page table
 *   private-copies  written copies inside the window survive the faults of
 *                   their neighbours, with holes before them, in large folios,
 *                   and again and again (a lost reference needs many rounds)
 *   sparse          the right page at each index, with pages between that are
 *                   holes, not cached, or under writeback
 *   mapcount        /proc/kpagecount against the mappings that have the page,
 *                   none after munmap
 *   poison          a poisoned page of tmpfs is not mapped along with its
 *                   neighbour, gives SIGBUS BUS_MCEERR_* and EIO; one of a disk
 *                   file that was clean is read again
 *
 * Legal outcomes are those above and no others. A page may be absent from a
 * page table for any reason. Counts are compared four times, with new
 * mappings, before they accuse: text and stacks count when they are first used.
 *
 * PASS means: every case ran once at least, and all it saw was legal. What it
 * cannot see: anything that needs two parties at once; pages past the end of
 * the file where tmpfs has huge=always (the kernel maps them on purpose);
 * folios that are not uptodate on ext4 and xfs, which need a failed read.
 */
#include "rig.h"

#include <linux/falloc.h>
#include <linux/magic.h>
#include <pthread.h>

#define MAX_PAGES	256
#define MAX_THREADS	8
#define FLUSHES		256	/* of all TLBs, in a pass with threads: each waits for all CPUs */
#define MAX_MAPPINGS	6
#define MAX_POISONED	3	/* pages that one run takes from the machine */
#define SLOT_PAGES	32	/* of each thread in the page table that they share */
#define FILE_GENERATION	1	/* of what is written first */
#define NEXT_GENERATION	2	/* of what is written over it */
#define COPY_GENERATION	3	/* of private copies */
#define PASS_NS		(1000ll * 1000 * 1000)

#ifndef MADV_HWPOISON
#define MADV_HWPOISON	100
#endif

enum counter { C_PASSES, C_LOOKS, C_FAULTS, C_PRESENT, C_WRITEBACK, C_POISONED, NR_COUNTERS };

static const char * const counter_names[NR_COUNTERS] = {
	"passes", "looks", "faults", "present", "writeback", "poisoned",
};

struct plan {
	long pages;
	long piece;		/* pages in one write: large folios where there are any */
	long shift;		/* first page that is mapped */
	long fault_around;
};

static struct plan given = { -1, -1, -1, -1 };

static struct rig_option options[] = {
	{ "pages", "of each file", &given.pages, 20, MAX_PAGES },
	{ "piece", "pages in one write", &given.piece, 1, MAX_PAGES },
	{ "shift", "first page that is mapped", &given.shift, 0, 16 },
	{ "fault-around", "fault_around_bytes, 0 leaves it", &given.fault_around, 0, 2 << 20 },
};

static const struct rig_program program = {
	.name = "static-faults",
	.about = "static-faults: what fault-around maps, leaves out and counts, checked without a race.",
	.cases = "never-written past-eof rss private-copies sparse mapcount poison",
	.options = options,
	.nr_options = RIG_COUNT(options),
};

struct check {
	struct rig_case common;
	void (*pass)(void);
	const char *(*unsupported)(void);
	unsigned int most;	/* passes, 0 = as many as there is time for */
};

static const struct check *check;
static struct plan plan;
static struct rig_rng rng;
static struct statfs fs;
static char file_path[4096];	/* of the file of this pass, while it has a name */
static char title_lost[96], title_wrong[96], title_other[96], title_zero[96], title_bus[96];

static void make_titles(void)
{
#define TITLE(buf, what) snprintf(buf, sizeof(buf), what " in %s", check->common.name)
	TITLE(title_lost, "written data lost");
	TITLE(title_wrong, "data of another page");
	TITLE(title_other, "data that does not belong there");
	TITLE(title_zero, "data in a hole");
	TITLE(title_bus, "unexpected SIGBUS");
#undef TITLE
}

static bool on_disk(void)
{
	return fs.f_type != TMPFS_MAGIC;
}

/* ---- files and mappings ---- */

/*
 * The file of a pass. Every other one keeps its name until it is dropped: tmpfs
 * maps files without a name like anonymous shared memory (shmem_mmap()).
 */
static int new_file(void)
{
	static unsigned int nr;
	int fd;

	if (nr++ % 2)
		return rig_open_file("static", nr, NULL);
	snprintf(file_path, sizeof(file_path), "%s/rig-static-%d-%u", rig_dir, (int)getpid(), nr);
	fd = open(file_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rig_broken("%s: %s", file_path, strerror(errno));
		_exit(0);
	}
	return fd;
}

static void drop_file(int fd)
{
	if (*file_path)
		unlink(file_path);
	*file_path = 0;
	close(fd);
}

/* Stamps pages [first, end), so many in one write. */
static void write_pages(int fd, long first, long end, uint64_t generation, long piece)
{
	static char buf[MAX_PAGES * RIG_PAGE];
	long i, n;

	for (; first < end; first += n) {
		n = rig_min(piece, end - first);
		for (i = 0; i < n; i++)
			rig_stamp_page(buf + i * RIG_PAGE, generation, first + i);
		if (!rig_pwrite_all(fd, buf, n * RIG_PAGE, first * RIG_PAGE))
			rig_broken("write: %s", strerror(errno));
	}
}

static bool punch(int fd, long first, long nr)
{
	return !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * RIG_PAGE,
			  nr * RIG_PAGE);
}

static void cut(int fd, off_t size)
{
	if (ftruncate(fd, size))
		rig_broken("ftruncate: %s", strerror(errno));
}

/* A mapping of pages [first, end), not next to any other of the same file. */
static char *map_pages(int fd, long first, long end, bool shared)
{
	char *p = mmap(NULL, (end - first) * RIG_PAGE, PROT_READ | (shared ? 0 : PROT_WRITE),
		       shared ? MAP_SHARED : MAP_PRIVATE, fd, first * RIG_PAGE);

	if (p == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		_exit(0);
	}
	return p;
}

static void unmap_pages(char *p, long first, long end)
{
	munmap(p, (end - first) * RIG_PAGE);
}

/* ---- looking ---- */

static int bus_code;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	bus_code = info->si_code;
	if (rig_load(&rig_bus_armed))
		siglongjmp(rig_bus_env, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_bus(void)
{
	struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_NODEFER | SA_SIGINFO };

	sigaction(SIGBUS, &sa, NULL);
}

/* Returns false when the access ended in SIGBUS. */
static bool touch(const char *p)
{
	if (sigsetjmp(rig_bus_env, 0)) {
		rig_store(&rig_bus_armed, 0);
		return false;
	}
	rig_store(&rig_bus_armed, 1);
	(void)__atomic_load_n(p, __ATOMIC_RELAXED);
	rig_store(&rig_bus_armed, 0);
	return true;
}

static bool must_touch(const char *p, long index)
{
	if (touch(p))
		return true;
	rig_found(title_bus, "page %ld, si_code %d", index, bus_code);
	return false;
}

/* What kpageflags say, for the detail of a finding; 0 where they say nothing. */
static uint64_t flags_of(const void *page)
{
	int64_t flags = rig_kpage("/proc/kpageflags", rig_pagemap(page) & RIG_PAGEMAP_PFN);

	return flags < 0 ? 0 : flags;
}

/* want: the generation of both stamps, or 0 for a page of zeroes. */
static void judge_page(const char *page, uint64_t index, uint64_t want)
{
	const char *title = NULL;
	struct rig_stamp s;
	unsigned int end;

	rig_count(C_LOOKS, 1);
	if (!must_touch(page, index))
		return;
	if (!want) {
		if (!rig_all_zero(page, RIG_PAGE))
			rig_found(title_zero, "page %" PRIu64 ", pagemap %#" PRIx64 ", kpageflags %#"
				  PRIx64, index, rig_pagemap(page), flags_of(page));
		return;
	}
	for (end = 0; end < RIG_ENDS; end++) {
		s = rig_stamp_read(rig_stamp_at((char *)page, end));
		switch (rig_judge(&s, index, end, 0, UINT64_MAX)) {
		case RIG_LIVE:
			title = s.generation == want ? NULL :
				s.generation < want ? title_lost : title_other;
			break;
		case RIG_ZERO:
			title = title_lost;
			break;
		case RIG_WRONG_PAGE:
			title = title_wrong;
			break;
		default:
			title = title_other;
		}
		if (title)
			rig_found(title, "page %" PRIu64 ": generation %#" PRIx64 " where %#" PRIx64
				  ", wanted %" PRIu64 ", pagemap %#" PRIx64 ", kpageflags %#" PRIx64,
				  index, s.generation, s.where, want, rig_pagemap(page),
				  flags_of(page));
	}
}

/* ---- never-written ---- */

/* What the next allocations will find in their pages, if nobody clears them. */
static void dirty_memory(void)
{
	size_t len = rig_min(4ul << 20, (uint64_t)sysconf(_SC_PHYS_PAGES) * RIG_PAGE / 64);
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	memset(p, 0x5a, len);
	munmap(p, len);
}

static void pass_never_written(void)
{
	static const char title[] = "data in a fallocated page that was never written";
	static const char title_read[] = "read() of a fallocated page that was never written";
	static char page[RIG_PAGE];
	bool written[MAX_PAGES] = { false };
	bool shared = rig_below(&rng, 2);
	long every = 2 + rig_below(&rng, 7), i;
	int fd = new_file();
	char *p;

	dirty_memory();
	if (fallocate(fd, 0, 0, plan.pages * RIG_PAGE))
		rig_broken("fallocate: %s", strerror(errno));
	for (i = rig_below(&rng, every); i < plan.pages; i += every) {
		write_pages(fd, i, i + 1, FILE_GENERATION, 1);
		written[i] = true;
	}
	p = map_pages(fd, 0, plan.pages, shared);
	for (i = 0; i < plan.pages; i++)
		if (written[i])
			judge_page(p + i * RIG_PAGE, i, FILE_GENERATION);
	if (rig_lies("garbage"))
		write_pages(fd, 0, plan.pages, FILE_GENERATION, 1);
	for (i = 0; i < plan.pages; i++) {
		if (written[i])
			continue;
		rig_count(C_LOOKS, 1);
		if (must_touch(p + i * RIG_PAGE, i) && !rig_all_zero(p + i * RIG_PAGE, RIG_PAGE))
			rig_found(title, "page %ld begins with %#" PRIx64 ", kpageflags %#" PRIx64, i,
				  *(uint64_t *)(p + i * RIG_PAGE), flags_of(p + i * RIG_PAGE));
		if (rig_pread_all(fd, page, RIG_PAGE, i * RIG_PAGE) && !rig_all_zero(page, RIG_PAGE))
			rig_found(title_read, "page %ld begins with %#" PRIx64, i,
				  *(uint64_t *)page);
	}
	unmap_pages(p, 0, plan.pages);
	drop_file(fd);
}

static const char *no_fallocate(void)
{
	int fd = rig_open_file("probe", 0, NULL);
	const char *why = fallocate(fd, 0, 0, RIG_PAGE) ? "fallocate is refused" : NULL;

	close(fd);
	return why;
}

/* ---- past-eof ---- */

static void pass_past_eof(void)
{
	static const char title[] = "page mapped past the end of the file after truncate and read";
	static const char title_alive[] = "no SIGBUS past the end of the file";
	static const char title_tail[] = "data not zero past the end of the file in its last page";
	long last = rig_below(&rng, rig_min(plan.pages - 1, 40)), i;
	off_t size = last * RIG_PAGE + (rig_below(&rng, 2) ? RIG_PAGE : 1 + rig_below(&rng, 4095));
	bool shared = rig_below(&rng, 2), stays = rig_below(&rng, 4);
	int fd = new_file();
	size_t tail;
	char *p;

	/* dirty, so that a large folio cannot be split, and stays; every fourth time it may be */
	write_pages(fd, 0, plan.pages, FILE_GENERATION, plan.piece);
	if (!stays)
		fsync(fd);
	if (!rig_lies("eof"))
		cut(fd, size);
	p = map_pages(fd, 0, plan.pages, shared);
	must_touch(p + rig_below(&rng, last + 1) * RIG_PAGE, 0);
	must_touch(p + last * RIG_PAGE, last);
	rig_count(C_LOOKS, plan.pages);
	for (i = 0; i < plan.pages; i++) {
		uint64_t entry = rig_pagemap(p + i * RIG_PAGE);

		rig_count(C_PRESENT, !!(entry & RIG_PAGEMAP_PRESENT));
		if (i > last && entry & RIG_PAGEMAP_PRESENT)
			rig_found(title, "page %ld of %ld, pagemap %#" PRIx64 ", kpageflags %#"
				  PRIx64, i, last + 1, entry, flags_of(p + i * RIG_PAGE));
	}
	tail = (last + 1) * RIG_PAGE - size;
	if (!rig_all_zero(p + size, tail))
		rig_found(title_tail, "the last %zu bytes of page %ld", tail, last);
	for (i = last + 1; i < plan.pages; i++) {
		if (touch(p + i * RIG_PAGE))
			rig_found(title_alive, "page %ld, the last one is %ld", i, last);
		else if (bus_code != BUS_ADRERR)
			rig_found(title_bus, "page %ld, si_code %d", i, bus_code);
	}
	unmap_pages(p, 0, plan.pages);
	drop_file(fd);
}

/* Files here are smaller than a huge page: of all policies only these give one all the same. */
static const char *maps_past_eof(void)
{
	const char *policy = rig_tmpfs_huge();

	if (on_disk())
		return NULL;
	if (!policy)
		return "no /proc/self/mountinfo";
	if (!strcmp(policy, "always") || !strcmp(policy, "force"))
		return "tmpfs maps huge pages past the end on purpose";
	return NULL;
}

/* ---- rss ---- */

struct rss {
	int64_t file;
	int64_t shmem;
	int64_t anon;
};

static struct rss read_rss(void)
{
	return (struct rss) {
		.file = rig_stat("/proc/self/status", "RssFile") * 1024 / (int64_t)RIG_PAGE,
		.shmem = rig_stat("/proc/self/status", "RssShmem") * 1024 / (int64_t)RIG_PAGE,
		.anon = rig_stat("/proc/self/status", "RssAnon") * 1024 / (int64_t)RIG_PAGE,
	};
}

/* Adds what the page table has of [p, p + pages) to what should have been counted. */
static void add_present(struct rss *want, const char *p, long pages)
{
	long i;

	for (i = 0; i < pages; i++) {
		uint64_t entry = rig_pagemap(p + i * RIG_PAGE);

		if (!(entry & RIG_PAGEMAP_PRESENT))
			continue;
		rig_count(C_PRESENT, 1);
		if (!(entry & RIG_PAGEMAP_FILE))
			want->anon++;
		else if (on_disk())
			want->file++;
		else
			want->shmem++;
	}
}

struct faulter {
	char *slot;
	unsigned int rounds;
	struct rig_rng rng;
};

/* Each thread has pages of its own; the page table and its lock belong to all of them. */
static void *faulter_main(void *arg)
{
	struct faulter *f = arg;
	unsigned int i;

	for (i = 0; i < f->rounds; i++) {
		if (i)
			madvise(f->slot, SLOT_PAGES * RIG_PAGE, MADV_DONTNEED);
		(void)__atomic_load_n(f->slot + rig_below(&f->rng, SLOT_PAGES) * RIG_PAGE, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void fault_together(int fd, char *table, unsigned int nr)
{
	static struct faulter faulters[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	unsigned int i, started;
	pthread_attr_t attr;

	for (i = 0; i < nr; i++) {
		char *slot = table + i * SLOT_PAGES * RIG_PAGE;

		if (mmap(slot, SLOT_PAGES * RIG_PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
		    MAP_FAILED) {
			rig_broken("mmap: %s", strerror(errno));
			return;
		}
		faulters[i] = (struct faulter){ slot, FLUSHES / nr, rig_rng_for("faulter", i) };
	}
	/* small stacks are kept from one time to the next, and do not come and go in the counts */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16 * RIG_PAGE);
	for (started = 0; started < nr; started++)
		if (pthread_create(&threads[started], &attr, faulter_main, &faulters[started]))
			break;
	for (i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_attr_destroy(&attr);
}

/* How far the counts are off after one mapping was faulted in, with private copies in it. */
static struct rss rss_error(int fd, char *table, unsigned int threads, uint64_t salt)
{
	struct rig_rng draw = rig_rng_for("rss", salt);
	struct rss before = read_rss(), after, want = { 0 };
	long step = 1 + rig_below(&draw, 24), i;
	char *p = map_pages(fd, plan.shift, plan.pages, false);

	for (i = rig_below(&draw, step); i < plan.pages - plan.shift; i += step) {
		if (rig_below(&draw, 3))
			(void)__atomic_load_n(p + i * RIG_PAGE, __ATOMIC_RELAXED);
		else
			p[i * RIG_PAGE] = 1;
	}
	if (threads)
		fault_together(fd, table, threads);
	after = read_rss();
	add_present(&want, p, plan.pages - plan.shift);
	add_present(&want, table, threads * SLOT_PAGES);
	if (rig_lies("rss"))
		want.file++;
	unmap_pages(p, plan.shift, plan.pages);
	if (threads && mmap(table, RIG_TABLE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		rig_broken("mmap: %s", strerror(errno));
	return (struct rss) {
		.file = after.file - before.file - want.file,
		.shmem = after.shmem - before.shmem - want.shmem,
		.anon = after.anon - before.anon - want.anon,
	};
}

static void judge_rss(int fd, char *table, unsigned int threads, uint64_t salt)
{
	static const char title_kind[] = "resident pages counted as the wrong kind";
	static const char title_count[] = "resident pages not counted as often as they are mapped";
	struct rss off;
	unsigned int i;

	/* text and stacks that are used for the first time count as well: once, not four times */
	for (i = 0; i < 4; i++) {
		off = rss_error(fd, table, threads, salt);
		if (!off.file && !off.shmem && !off.anon)
			return;
	}
	/* too many of one kind and too few of another; a negative sum shows as 0 */
	rig_found(off.file * off.shmem < 0 || off.anon * (off.file + off.shmem) < 0 ?
		  title_kind : title_count,
		  "off by %" PRId64 " RssFile, %" PRId64 " RssShmem, %" PRId64
		  " RssAnon pages, %u threads", off.file, off.shmem, off.anon, threads);
}

static void pass_rss(void)
{
	static unsigned int nr;
	uint64_t salt = rig_random(&rng);
	unsigned int threads = rig_min(MAX_THREADS, rig_cpus() + 1);
	char *table = mmap(NULL, 2 * RIG_TABLE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd = new_file();

	if (table == MAP_FAILED) {
		rig_broken("mmap: %s", strerror(errno));
		return;
	}
	write_pages(fd, 0, rig_max(plan.pages, SLOT_PAGES), FILE_GENERATION, plan.piece);
	if (on_disk())
		fsync(fd);
	judge_rss(fd, NULL, 0, salt);
	if (nr++ % 2 == 0)
		judge_rss(fd, (char *)(((uintptr_t)table + RIG_TABLE - 1) & ~(RIG_TABLE - 1)),
			  threads, salt);
	munmap(table, 2 * RIG_TABLE);
	drop_file(fd);
}

static const char *no_exact_rss(void)
{
	return rig_stat("/proc/self/status", "RssShmem") < 0 ? "no RssShmem in /proc/self/status" : NULL;
}

/* ---- private-copies ---- */

static void one_copy_round(int fd, long hole, const bool *holes)
{
	bool copied[MAX_PAGES] = { false };
	long pages = plan.pages - plan.shift, i, nr, page;
	char *p = map_pages(fd, plan.shift, plan.pages, false);

	/* right behind the hole, and anywhere */
	nr = 1 + rig_below(&rng, 8);
	for (i = 0; i < nr; i++) {
		page = i || hole < plan.shift ? (long)rig_below(&rng, pages) : hole + 1 - plan.shift;
		if (page >= pages)
			continue;
		rig_stamp_page(p + page * RIG_PAGE, COPY_GENERATION, page + plan.shift);
		copied[page] = true;
	}
	if (rig_lies("lost"))
		madvise(p, pages * RIG_PAGE, MADV_DONTNEED);
	/* neighbours, one in so many and in either direction */
	nr = 1 + rig_below(&rng, 20);
	for (i = 0; i < pages; i += nr) {
		page = rig_below(&rng, 2) ? i : pages - 1 - i;
		if (!copied[page] && !holes[page + plan.shift])
			must_touch(p + page * RIG_PAGE, page + plan.shift);
	}
	for (i = 0; i < pages; i++)
		judge_page(p + i * RIG_PAGE, i + plan.shift, copied[i] ? COPY_GENERATION :
			   holes[i + plan.shift] ? 0 : FILE_GENERATION);
	unmap_pages(p, plan.shift, plan.pages);
}

/* One file in many rounds: a reference that is lost in each of them shows at last. */
static void pass_private_copies(void)
{
	bool holes[MAX_PAGES] = { false };
	long hole = -1;
	int fd = new_file(), i;

	write_pages(fd, 0, plan.pages, FILE_GENERATION, plan.piece);
	if (on_disk())
		fsync(fd);
	/* fault-around aligns in the page table: any page may be the first of a window */
	if (rig_below(&rng, 2)) {
		hole = rig_below(&rng, 2) ? plan.shift : (long)rig_below(&rng, plan.pages);
		if (punch(fd, hole, 1))
			holes[hole] = true;
		else
			hole = -1;
	}
	for (i = 0; i < 24 && !rig_stopped(); i++)
		one_copy_round(fd, hole, holes);
	drop_file(fd);
}

/* ---- sparse ---- */

static void pass_sparse(void)
{
	uint64_t want[MAX_PAGES];
	bool shared = rig_below(&rng, 4), holes = rig_below(&rng, 2);
	long every = 2 + rig_below(&rng, 4), i, first = -1;
	int fd = new_file();
	char *p;

	/* one page in each write: a page that is written back must not take its neighbours along */
	write_pages(fd, 0, plan.pages, FILE_GENERATION, 1);
	for (i = 0; i < plan.pages; i++)
		want[i] = FILE_GENERATION;
	if (on_disk())
		fsync(fd);
	p = map_pages(fd, 0, plan.pages, shared);
	for (i = rig_below(&rng, every); i < plan.pages; i += every) {
		if (holes) {
			if (!punch(fd, i, 1))
				continue;
			want[i] = 0;
		} else if (on_disk() && rig_below(&rng, 2)) {
			posix_fadvise(fd, i * RIG_PAGE, RIG_PAGE, POSIX_FADV_DONTNEED);
		} else if (on_disk()) {
			write_pages(fd, i, i + 1, NEXT_GENERATION, 1);
			want[i] = NEXT_GENERATION;
			first = first < 0 ? i : first;
		}
	}
	if (rig_lies("index") && copy_file_range(fd, &(off_t){ 2 * RIG_PAGE }, fd, &(off_t){ RIG_PAGE },
					    RIG_PAGE, 0) < 0)
		rig_broken("copy_file_range: %s", strerror(errno));
	/* started and not waited for: the faults below meet pages under writeback */
	if (first >= 0 && !sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE))
		rig_count(C_WRITEBACK, 1);
	for (i = 0; i < plan.pages; i += 16)
		must_touch(p + i * RIG_PAGE, i);
	for (i = 0; i < plan.pages; i++)
		judge_page(p + i * RIG_PAGE, i, want[i]);
	unmap_pages(p, 0, plan.pages);
	drop_file(fd);
}

/* ---- mapcount ---- */

/* How many of the mappings have this page frame at this index. */
static long mapped_by(char **maps, long nr, long page, uint64_t pfn)
{
	long i, n = 0;

	for (i = 0; i < nr; i++) {
		uint64_t entry = rig_pagemap(maps[i] + page * RIG_PAGE);

		n += (entry & RIG_PAGEMAP_PRESENT) && (entry & RIG_PAGEMAP_PFN) == pfn;
	}
	return n;
}

static uint64_t pfn_of(const char *p)
{
	uint64_t entry = rig_pagemap(p);

	return entry & RIG_PAGEMAP_PRESENT ? entry & RIG_PAGEMAP_PFN : 0;
}

static void judge_mapcount(long page, uint64_t pfn, int64_t count, long want)
{
	static const char title[] = "mapcount of a page disagrees with its mappings";

	rig_count(C_LOOKS, 1);
	if (count >= 0 && count != want)
		rig_found(title, "page %ld, pfn %#" PRIx64 ": kpagecount %" PRId64
			  ", mapped %ld times, kpageflags %#" PRIx64, page, pfn, count, want,
			  (uint64_t)rig_kpage("/proc/kpageflags", pfn));
}

static void pass_mapcount(void)
{
	static const char path[] = "/proc/kpagecount";
	long pages = plan.pages - plan.shift, nr = 1 + rig_below(&rng, MAX_MAPPINGS), i, k;
	uint64_t pfns[MAX_PAGES] = { 0 };
	int64_t counts[MAX_PAGES];
	char *maps[MAX_MAPPINGS], *p;
	int fd = new_file();

	write_pages(fd, 0, plan.pages, FILE_GENERATION, plan.piece);
	if (on_disk())
		fsync(fd);
	for (k = 0; k < nr; k++) {
		long step = 1 + rig_below(&rng, 20);

		maps[k] = map_pages(fd, plan.shift, plan.pages, rig_below(&rng, 2));
		for (i = rig_below(&rng, step); i < pages; i += step)
			must_touch(maps[k] + i * RIG_PAGE, i + plan.shift);
	}
	for (i = 0; i < pages; i++) {
		for (k = 0; k < nr && !pfns[i]; k++)
			pfns[i] = pfn_of(maps[k] + i * RIG_PAGE);
		if (!pfns[i])
			continue;
		counts[i] = rig_kpage(path, pfns[i]);
		k = mapped_by(maps, nr, i, pfns[i]);
		/* a page that has moved in between says nothing */
		if (k)
			judge_mapcount(i + plan.shift, pfns[i], counts[i], k + rig_lies("mapcount"));
	}
	for (k = 0; k < nr; k++)
		unmap_pages(maps[k], plan.shift, plan.pages);
	for (i = 0; i < pages; i++)
		counts[i] = pfns[i] ? rig_kpage(path, pfns[i]) : 0;
	/* still the same page of the file: so it was that page's count */
	p = map_pages(fd, plan.shift, plan.pages, true);
	for (i = 0; i < pages; i++)
		if (pfns[i] && must_touch(p + i * RIG_PAGE, i + plan.shift) &&
		    pfn_of(p + i * RIG_PAGE) == pfns[i])
			judge_mapcount(i + plan.shift, pfns[i], counts[i], 0);
	unmap_pages(p, plan.shift, plan.pages);
	drop_file(fd);
}

static const char *no_kpagecount(void)
{
	int fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC), probe;
	const char *why = NULL;
	char *p;

	if (fd < 0)
		return "/proc/kpagecount cannot be read";
	close(fd);
	probe = rig_open_file("probe", 1, NULL);
	cut(probe, RIG_PAGE);
	p = map_pages(probe, 0, 1, true);
	(void)__atomic_load_n(p, __ATOMIC_RELAXED);
	if (!pfn_of(p))
		why = "pagemap does not say which page it is";
	munmap(p, RIG_PAGE);
	close(probe);
	return why;
}

/* ---- poison ---- */

/* The signal goes to whoever has the page mapped: a child, which is done then. */
static bool poison_page(int fd, long page)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return false;
	if (!pid) {
		char *p = map_pages(fd, page, page + 1, true);

		if (madvise(p, RIG_PAGE, MADV_HWPOISON))
			_exit(errno);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			return false;
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGBUS;
	return !WEXITSTATUS(status);
}

static void judge_poisoned(int fd, char *p, long page)
{
	static const char title_mapped[] = "poisoned page mapped along with its neighbour";
	static const char title_read[] = "no SIGBUS on a poisoned page";
	static const char title_code[] = "SIGBUS of a poisoned page does not say what it is";
	static const char title_eof[] = "read() of a poisoned page succeeds";
	static char copy[RIG_PAGE];
	uint64_t entry = rig_pagemap(p + page * RIG_PAGE);

	if (entry & RIG_PAGEMAP_PRESENT)
		rig_found(title_mapped, "page %ld, pagemap %#" PRIx64 ", kpageflags %#" PRIx64, page,
			  entry, flags_of(p + page * RIG_PAGE));
	if (touch(p + page * RIG_PAGE))
		rig_found(title_read, "page %ld", page);
	else if (bus_code != BUS_MCEERR_AR && bus_code != BUS_MCEERR_AO)
		rig_found(title_code, "page %ld, si_code %d", page, bus_code);
	if (rig_pread_all(fd, copy, RIG_PAGE, page * RIG_PAGE))
		rig_found(title_eof, "page %ld", page);
}

static void pass_poison(void)
{
	long page = 1 + rig_below(&rng, plan.pages - 2), i;
	int fd = new_file();
	char *p;

	write_pages(fd, 0, plan.pages, FILE_GENERATION, 1);
	if (on_disk())
		fsync(fd);
	/* the kernel may refuse, while somebody else has the page in his hands */
	if (!rig_lies("poison") && !poison_page(fd, page)) {
		drop_file(fd);
		return;
	}
	rig_count(C_POISONED, 1);
	p = map_pages(fd, 0, plan.pages, true);
	must_touch(p + (page - 1) * RIG_PAGE, page - 1);
	must_touch(p + (page + 1) * RIG_PAGE, page + 1);
	if (!on_disk() || rig_lies("poison"))
		judge_poisoned(fd, p, page);
	for (i = 0; i < plan.pages; i++)
		if (i != page || on_disk())
			judge_page(p + i * RIG_PAGE, i, FILE_GENERATION);
	unmap_pages(p, 0, plan.pages);
	drop_file(fd);
}

static const char *no_poison(void)
{
	if (rig_lies("poison"))
		return NULL;	/* which does everything but poison */
	if (!rig_own_machine())
		return "poisons memory, which only a machine of the rig can spare";
	if (access("/proc/sys/vm/memory_failure_recovery", F_OK))
		return "no CONFIG_MEMORY_FAILURE";
	return NULL;
}

/* ---- cases ---- */

static const struct check checks[] = {
	{ { "never-written", 1 }, pass_never_written, no_fallocate, 0 },
	{ { "past-eof", 1 }, pass_past_eof, maps_past_eof, 0 },
	{ { "rss", 1 }, pass_rss, no_exact_rss, 0 },
	{ { "private-copies", 1 }, pass_private_copies, NULL, 0 },
	{ { "sparse", 1 }, pass_sparse, NULL, 0 },
	{ { "mapcount", 1 }, pass_mapcount, no_kpagecount, 0 },
	{ { "poison", 1 }, pass_poison, no_poison, MAX_POISONED },
};

/* Always draws everything in the same order: what is given on the command line shifts nothing. */
static void draw_plan(void)
{
	static const long pages[] = { 24, 32, 40, 64, 96, 128 };
	static const long pieces[] = { 1, 8, 16, 16, 64, MAX_PAGES };
	static const long arounds[] = { 65536, 65536, 65536, 262144, 2 << 20 };
	struct rig_rng draw = rig_rng_for(check->common.name, 0);
	struct plan p;

	p.pages = rig_pick(&draw, pages);
	p.piece = rig_pick(&draw, pieces);
	p.shift = rig_below(&draw, 2) ? 0 : rig_below(&draw, 17);
	p.fault_around = rig_pick(&draw, arounds);

	rig_take_plan(&plan, &p, &given, sizeof(plan));
	rig_param("pages", plan.pages);
	rig_param("piece", plan.piece);
	rig_param("shift", plan.shift);
	rig_param("fault_around", plan.fault_around);
}

/* The parameters of the first pass are the plan's, later ones take what they need anew. */
static void check_main(void *arg)
{
	const int64_t end = rig_now() + *(int64_t *)arg;
	unsigned int nr = 0;

	catch_bus();
	rng = rig_rng_for(check->common.name, 1);
	do {
		check->pass();
		rig_count(C_PASSES, 1);
		plan.piece = given.piece >= 0 ? given.piece : 1 << rig_below(&rng, 7);
		plan.shift = given.shift >= 0 ? given.shift : (long)rig_below(&rng, 17);
	} while (++nr != check->most && rig_now() < end && !rig_case_over());
	rig_count_faults(C_FAULTS, RUSAGE_SELF);
}

static const char *unsupported(const void *c)
{
	const struct check *candidate = c;

	return candidate->unsupported ? candidate->unsupported() : NULL;
}

static void judge_check(void)
{
	const struct rig_gate gates[] = {
		{ C_PASSES, 1 },
		{ C_FAULTS, 1 },
		{ C_POISONED, check->pass == pass_poison },
	};

	rig_case_end(check->common.name, counter_names, NR_COUNTERS, gates, RIG_COUNT(gates));
}

static void run_check(const void *c, int64_t ns)
{
	ns = rig_min(ns, PASS_NS);
	check = c;
	rig_case_begin(check->common.name);
	draw_plan();
	make_titles();
	rig_need_space(4 * MAX_PAGES * RIG_PAGE);
	rig_fault_around(plan.fault_around);
	rig_spawn(check_main, &ns);
	/* a pass ends by itself; the time is there for one that never does */
	rig_case_run(ns + RIG_STUCK_NS);
	judge_check();
}

static const struct rig_suite suite = {
	.program = &program,
	.cases = checks,
	.size = sizeof(checks[0]),
	.nr = RIG_COUNT(checks),
	.fault_around = true,
	.unsupported = unsupported,
	.run = run_check,
};

int main(int argc, char **argv)
{
	rig_suite_start(&suite, argc, argv);
	fs = rig_statfs();

	rig_suite_plan(&suite);
	rig_suite_run(&suite);
	return rig_finish();
}
