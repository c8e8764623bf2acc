// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that stalls a vCPU at random instructions of given functions: plugin API version 1.
 *
 * A vCPU thread that sleeps in the middle of a window holds it open for all the others. Which instructions count, how
 * often a stall comes and how long it lasts is in the control block (stall.h), which the rig changes while the machine
 * runs. Only instructions inside the ranges are instrumented, so everything else runs as fast as without the plugin.
 *
 * Two bounds keep the guest alive: of all vCPUs only `at_most` stand still at once, and none for more than its share.
 * Interrupts may be off where a stall comes; its longest time is milliseconds, where watchdogs wait for seconds.
 *
 * Usage: -plugin stall.so,ctl=FILE
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "control.h"
#include "qemu_api.h"
#include "stall.h"

EXPORT int qemu_plugin_version = PLUGIN_API;

/* Longest stalls that a vCPU may save credit for. */
#define SAVED 4

/* What a vCPU needs to know of itself; a cache line each. */
struct vcpu {
	_Alignas(64) uint64_t random;
	int64_t left; /* weighted instructions until the next stall */
	uint64_t length; /* ns: of that stall */
	uint64_t seen; /* ns of the clock when the credit was last worked out */
	double credit; /* ns that it may be stalled for */
	uint32_t episode;
};

static struct stall_head *head;
static struct stall_range *ranges;
static struct stall_count *counts;
static struct vcpu *vcpus;
static unsigned int sleepers;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Marsaglia's xorshift with a multiplication; in (0, 1]. */
static double draw(struct vcpu *self)
{
	self->random ^= self->random >> 12;
	self->random ^= self->random << 25;
	self->random ^= self->random >> 27;
	return (double)(((self->random * 0x2545f4914f6cdd1du) >> 11) + 1) / (double)(1ull << 53);
}

static void draw_distance(struct vcpu *self)
{
	self->left = (int64_t)(-log(draw(self)) * (double)head->distance) + 1;
}

/* Log-uniform: nobody knows how long a window is. */
static void draw_length(struct vcpu *self)
{
	double low = (double)head->shortest, high = (double)head->longest;

	self->length = low > 0 && high > low ?
			       (uint64_t)(low * exp(draw(self) * log(high / low))) :
			       (uint64_t)high;
}

static void begin_episode(struct vcpu *self, unsigned int index, uint32_t episode)
{
	uint64_t mixed = head->seed + 0x9e3779b97f4a7c15u * (index + 1) + ((uint64_t)episode << 32);

	mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
	mixed ^= mixed >> 27;
	self->random = mixed ? mixed : 1;
	if (!self->episode) {
		self->seen = now_ns();
		self->credit = (double)head->longest;
	}
	self->episode = episode;
	draw_distance(self);
	draw_length(self);
}

/* Its share of the time has to be earned first, and is not saved for long: no burst of stalls after a rest. */
static bool may_stall(struct vcpu *self, uint64_t now)
{
	double most = (double)head->longest * SAVED;

	self->credit += (double)(now - self->seen) * head->share / 1e6;
	self->seen = now;
	if (self->credit > most)
		self->credit = most;
	return (double)self->length <= self->credit;
}

static void stall(struct vcpu *self, struct stall_count *count)
{
	uint64_t before = now_ns();
	struct timespec wait = { (time_t)(self->length / 1000000000u),
				 (long)(self->length % 1000000000u) };

	/* Its length stays as it was drawn: with a new draw each time the short ones would win. */
	if (!may_stall(self, before)) {
		count->withheld++;
		return;
	}
	if (__atomic_fetch_add(&sleepers, 1, __ATOMIC_RELAXED) >= head->at_most) {
		count->withheld++;
	} else {
		uint64_t took;

		nanosleep(&wait, NULL); /* a signal may cut it short */
		took = now_ns() - before;
		self->credit -= (double)took;
		draw_length(self);
		count->stalls++;
		count->stalled += took;
	}
	__atomic_fetch_sub(&sleepers, 1, __ATOMIC_RELAXED);
}

static void executed(unsigned int index, void *data)
{
	uint32_t episode = __atomic_load_n(&head->episode, __ATOMIC_ACQUIRE);
	const struct stall_range *range = data;
	struct stall_count *count;
	struct vcpu *self;

	if (!episode || index >= head->vcpus)
		return;
	self = &vcpus[index];
	count = &counts[(size_t)index * head->ranges + (size_t)(range - ranges)];
	count->executed++;
	if (self->episode != episode)
		begin_episode(self, index, episode);
	self->left -= range->weight;
	if (self->left > 0 || !range->weight)
		return;
	stall(self, count);
	draw_distance(self);
}

static struct stall_range *range_of(uint64_t address)
{
	return control_find(ranges, head->ranges, sizeof(*ranges), address);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		struct stall_range *range = range_of(qemu_plugin_insn_vaddr(insn));

		if (range)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, executed,
							       QEMU_PLUGIN_CB_NO_REGS, range);
	}
}

/* Map the control block; the reason why that cannot be, or NULL. */
static const char *take(const char *path)
{
	const struct control wanted = { STALL_MAGIC, STALL_VERSION };
	const char *why;
	void *block;
	size_t size;

	why = control_map(path, wanted, sizeof(*head), &block, &size);
	if (why)
		return why;
	head = block;
	if (size < sizeof(*head) + head->ranges * sizeof(*ranges) +
			   (size_t)head->vcpus * head->ranges * sizeof(*counts))
		return "is cut off";
	ranges = (struct stall_range *)(head + 1);
	counts = (struct stall_count *)(ranges + head->ranges);
	vcpus = control_per_vcpu(head->vcpus, sizeof(*vcpus));
	return vcpus ? NULL : "needs more memory than there is";
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc,
			       char **argv)
{
	(void)info;
	if (!control_take("stall", argc, argv, take))
		return 1;
	__atomic_store_n(&head->loaded, STALL_VERSION, __ATOMIC_RELEASE);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
