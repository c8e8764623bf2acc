// SPDX-License-Identifier: GPL-2.0-only
/*
 * rig_stall: lets a CPU stand still for a random time at given instructions, so that a race whose
 * window lies there stays open for the others.
 *
 * The places are kprobes, chosen by the rig among the instructions of the functions that a patch
 * series touches. That rare places get their share, and not only the hot ones, is the idea of
 * DataCollider (Erickson et al., "Effective Data-Race Detection for the Kernel", OSDI 2010).
 *
 *	insmod rig_stall.ko mean=2000 shortest_us=500 length_us=5000 seed=1
 *	/sys/kernel/debug/rig_stall/probes	w: a line SYMBOL+OFFSET for each place, whole lines only
 *	/sys/kernel/debug/rig_stall/on		rw: 1 while stalls are wanted
 *	/sys/kernel/debug/rig_stall/stats	r: what came of each place
 *
 * rmmod takes all places back, which is sound where a CPU obeys the kernel's serialisation of changed
 * code. Multi-threaded TCG of QEMU 7.2 was seen to break that: there switch it off, and leave it in.
 *
 * A place that the kernel refuses (noinstr and NOKPROBE code, the middle of an instruction, code
 * that is patched at run time) is told in stats and otherwise left out.
 *
 * How a stalled CPU looks to the others depends on how the kprobe is reached. By a breakpoint, the
 * handler runs as in an NMI: with interrupts off, so whoever waits for an answer to an IPI (a TLB
 * flush, say) waits for the end of the stall, as it does for a vCPU that the host has stopped. By
 * a jump (CONFIG_OPTPROBES, some time after the registration and where the code allows it), only
 * preemption is off, and interrupts are as they were. Either way nothing here may sleep, take a
 * lock, or print.
 *
 * A healthy kernel must get by: a stall takes LONGEST_US at most, after it the CPU is left alone
 * for REST times as long, and no more than half of the CPUs stand at the same time. The watchdogs
 * of the kernel wait for a thousand times as long.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#define LONGEST_US	20000
#define PIECE_US	10	/* between two looks at the clock */
#define REST		3	/* a CPU stands for a quarter of the time at most */
#define PROBES_MAX	1024

static unsigned int mean = 2000;
module_param(mean, uint, 0444);
MODULE_PARM_DESC(mean, "hits of a place between two stalls on one CPU, on average");

static unsigned int shortest_us = 500;
module_param(shortest_us, uint, 0444);
MODULE_PARM_DESC(shortest_us, "the shortest stall in microseconds");

static unsigned int length_us = 5000;
module_param(length_us, uint, 0444);
MODULE_PARM_DESC(length_us, "the longest stall in microseconds, at most 20000");

static unsigned long seed = 1;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "of the random numbers");

/* Written by one CPU each. */
struct stall_count {
	u64 hits;
	u64 stalls;
	u64 open;	/* stalls with interrupts on */
	u64 ns;
	u64 declined;	/* the CPU was not rested yet, or too many others stood */
};

struct stall_probe {
	struct list_head link;
	struct kprobe kp;
	int error;	/* why the kernel refused it, 0 if it did not */
	struct stall_count __percpu *count;
	char symbol[];
};

struct stall_cpu {
	u64 random;
	u64 rested;	/* when it may be stalled again, in ns */
};

static DEFINE_PER_CPU(struct stall_cpu, stall_cpus);
static DEFINE_MUTEX(stall_lock);	/* protects the list and all that is set through debugfs */
static LIST_HEAD(stall_probes);
static struct kprobe *stall_registered[PROBES_MAX];	/* to be taken back in one go */
static unsigned int stall_probes_count, stall_registered_count;
static struct dentry *stall_folder;
static atomic_t stall_standing = ATOMIC_INIT(0);	/* CPUs, at this moment */
static int stall_most;	/* of them at the same time */
static bool stall_on;

/* SplitMix64 (Steele et al., OOPSLA 2014): any state will do, so it needs no care in seeding. */
static u64 rig_stall_draw(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}
NOKPROBE_SYMBOL(rig_stall_draw);

/* A random number from 0 to below - 1. */
static u32 rig_stall_below(struct stall_cpu *cpu, u32 below)
{
	return ((rig_stall_draw(&cpu->random) >> 32) * below) >> 32;
}
NOKPROBE_SYMBOL(rig_stall_below);

/* The logarithm to base 2 in 16.16 fixed point, by a straight line between the powers of two. */
static u32 rig_stall_log2(u64 x)
{
	u32 whole = ilog2(x);

	return (whole << 16) + (u32)((x << 16 >> whole) - (1 << 16));
}

/* The inverse of rig_stall_log2(). */
static u64 rig_stall_exp2(u32 log)
{
	return ((u64)((1 << 16) + (log & 0xffff)) << (log >> 16)) >> 16;
}
NOKPROBE_SYMBOL(rig_stall_exp2);

static u32 stall_log_shortest, stall_log_span;

/* Stand still for about as long as asked for, and return for how long it was; both in ns. */
static u64 rig_stall_stand(u64 ns)
{
	u64 start = ktime_get_mono_fast_ns(), passed = 0;
	/* Should the clock stand still as well, the pieces are counted. */
	unsigned int pieces = (unsigned int)ns / (PIECE_US * 1000) + 1;

	while (pieces-- && passed < ns && READ_ONCE(stall_on)) {
		udelay(PIECE_US);
		passed = ktime_get_mono_fast_ns() - start;
	}
	return passed;
}
NOKPROBE_SYMBOL(rig_stall_stand);

static void rig_stall_add(u64 *count, u64 more)
{
	WRITE_ONCE(*count, *count + more);
}
NOKPROBE_SYMBOL(rig_stall_add);

/*
 * Another probe that is hit from in here, or from an interrupt or an NMI that comes meanwhile, is
 * stepped over by kprobes itself (nmissed), so what belongs to a CPU has one user at a time.
 */
static int rig_stall_hit(struct kprobe *kp, struct pt_regs *regs)
{
	struct stall_probe *probe = container_of(kp, struct stall_probe, kp);
	struct stall_count *count = this_cpu_ptr(probe->count);
	struct stall_cpu *cpu = this_cpu_ptr(&stall_cpus);
	u64 now, ns;

	if (!READ_ONCE(stall_on))
		return 0;
	rig_stall_add(&count->hits, 1);
	/* The breakpoint counts as one NMI; in a real one nothing is stalled. */
	if ((preempt_count() & NMI_MASK) > NMI_OFFSET)
		return 0;
	/* The first hits of a place are more likely to stall: a rare place would never have its turn. */
	if (rig_stall_below(cpu, (u32)min_t(u64, mean, count->hits)) != 0)
		return 0;
	now = ktime_get_mono_fast_ns();
	if (now < cpu->rested || !atomic_add_unless(&stall_standing, 1, READ_ONCE(stall_most))) {
		rig_stall_add(&count->declined, 1);
		return 0;
	}
	ns = rig_stall_exp2(stall_log_shortest + rig_stall_below(cpu, stall_log_span + 1));
	ns = rig_stall_stand(ns);
	atomic_dec(&stall_standing);
	cpu->rested = now + (REST + 1) * ns;
	rig_stall_add(&count->stalls, 1);
	rig_stall_add(&count->ns, ns);
	if (!irqs_disabled())
		rig_stall_add(&count->open, 1);
	return 0;
}
NOKPROBE_SYMBOL(rig_stall_hit);

static void stall_free(struct stall_probe *probe)
{
	free_percpu(probe->count);
	kfree(probe);
}

/* Add the place that a line names. One that the kernel refuses is kept, with the reason. */
static int stall_add_probe(const char *line)
{
	const char *plus = strrchr(line, '+');
	struct stall_probe *probe;
	unsigned int offset;
	size_t length;

	if (!plus || plus == line || kstrtouint(plus + 1, 0, &offset))
		return -EINVAL;
	if (stall_probes_count >= PROBES_MAX)
		return -ENOSPC;
	length = plus - line;
	probe = kzalloc(sizeof(*probe) + length + 1, GFP_KERNEL);
	if (!probe)
		return -ENOMEM;
	probe->count = alloc_percpu(struct stall_count);
	if (!probe->count) {
		kfree(probe);
		return -ENOMEM;
	}
	memcpy(probe->symbol, line, length);
	probe->kp.symbol_name = probe->symbol;
	probe->kp.offset = offset;
	probe->kp.pre_handler = rig_stall_hit;
	probe->error = register_kprobe(&probe->kp);
	if (!probe->error)
		stall_registered[stall_registered_count++] = &probe->kp;
	list_add_tail(&probe->link, &stall_probes);
	stall_probes_count++;
	return 0;
}

static ssize_t probes_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char *text, *rest, *line;
	int error = 0;

	if (size > SZ_64K)
		return -E2BIG;
	text = memdup_user_nul(from, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	rest = text;
	mutex_lock(&stall_lock);
	while (!error && (line = strsep(&rest, "\n"))) {
		line = strim(line);
		if (*line)
			error = stall_add_probe(line);
	}
	mutex_unlock(&stall_lock);
	kfree(text);
	return error ?: size;
}

static const struct file_operations probes_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = probes_write,
	.llseek = noop_llseek,
};

static int on_get(void *data, u64 *value)
{
	*value = READ_ONCE(stall_on);
	return 0;
}

static int on_set(void *data, u64 value)
{
	mutex_lock(&stall_lock);
	WRITE_ONCE(stall_most, num_online_cpus() / 2);	/* none of one: nobody else would move */
	WRITE_ONCE(stall_on, value != 0);
	mutex_unlock(&stall_lock);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(on_fops, on_get, on_set, "%llu\n");

static int stats_show(struct seq_file *out, void *unused)
{
	struct stall_probe *probe;
	int cpu;

	mutex_lock(&stall_lock);
	list_for_each_entry(probe, &stall_probes, link) {
		struct stall_count sum = {};

		if (probe->error) {
			seq_printf(out, "refused %s+0x%x %d\n", probe->symbol, probe->kp.offset,
				   -probe->error);
			continue;
		}
		for_each_possible_cpu(cpu) {
			struct stall_count *count = per_cpu_ptr(probe->count, cpu);

			sum.hits += READ_ONCE(count->hits);
			sum.stalls += READ_ONCE(count->stalls);
			sum.open += READ_ONCE(count->open);
			sum.ns += READ_ONCE(count->ns);
			sum.declined += READ_ONCE(count->declined);
		}
		seq_printf(out, "probe %s+0x%x hits %llu stalls %llu open %llu ns %llu declined %llu missed %lu\n",
			   probe->symbol, probe->kp.offset, sum.hits, sum.stalls, sum.open, sum.ns,
			   sum.declined, probe->kp.nmissed);
	}
	mutex_unlock(&stall_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int __init stall_init(void)
{
	int cpu;

	if (mean < 1 || shortest_us < 1 || shortest_us > length_us || length_us > LONGEST_US) {
		pr_err("need mean >= 1 and 1 <= shortest_us <= length_us <= %d\n", LONGEST_US);
		return -EINVAL;
	}
	stall_log_shortest = rig_stall_log2(shortest_us * 1000ULL);
	stall_log_span = rig_stall_log2(length_us * 1000ULL) - stall_log_shortest;
	for_each_possible_cpu(cpu) {
		u64 state = seed;

		/* Mixed once, as the streams of neighbours would otherwise overlap. */
		per_cpu(stall_cpus, cpu).random = rig_stall_draw(&state) + rig_stall_draw(&state) * cpu;
	}
	stall_folder = debugfs_create_dir("rig_stall", NULL);
	debugfs_create_file("probes", 0200, stall_folder, NULL, &probes_fops);
	debugfs_create_file("on", 0600, stall_folder, NULL, &on_fops);
	debugfs_create_file("stats", 0400, stall_folder, NULL, &stats_fops);
	return 0;
}
module_init(stall_init);

static void __exit stall_exit(void)
{
	struct stall_probe *probe, *next;

	debugfs_remove(stall_folder);
	WRITE_ONCE(stall_on, false);	/* who stands now goes on at once */
	if (stall_registered_count)
		unregister_kprobes(stall_registered, stall_registered_count);
	list_for_each_entry_safe(probe, next, &stall_probes, link)
		stall_free(probe);
}
module_exit(stall_exit);

MODULE_DESCRIPTION("Stalls CPUs at given instructions for the rig");
MODULE_LICENSE("GPL");
