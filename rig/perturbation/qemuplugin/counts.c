// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that counts what the guest's kernel does: instructions and locked read-modify-writes, by symbol
 * and by instruction. Plugin API version 1.
 *
 * The workload says itself when: it executes one mark before its work and another one after it (x86.h). Each pair is a
 * phase with counters of its own, so nothing that the rig, ssh or the set-up of a case does is in them.
 *
 * Counted is what tasks do, in page faults and elsewhere. For that each vCPU knows what it is at: it is in user space
 * when it executes code there, in a page fault from the entry on, in an interrupt from an entry until as many IRETs
 * later. What a task was at is kept while another one runs, under its stack pointer, which __switch_to_asm pushes
 * through when a task goes and pops through when it comes back.
 *
 * Instructions are counted by blocks when they begin. A block that an exception leaves in the middle was counted whole.
 *
 * Usage: -plugin counts.so,ctl=FILE
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "control.h"
#include "counts.h"
#include "qemu_api.h"
#include "x86.h"

EXPORT int qemu_plugin_version = PLUGIN_API;

enum at {
	AT_NOTHING, /* a thread of the kernel, or a task whose past is not known */
	AT_USER,
	AT_CALL,
	AT_FAULT,
};

enum mark {
	MARK_BEGIN,
	MARK_END,
};

/* What a vCPU is at; a cache line each. */
struct vcpu {
	_Alignas(64) uint32_t at;
	uint32_t interrupts; /* nested so deep */
};

/* Part of a block of instructions that is in one span. */
struct piece {
	uint32_t span;
	uint32_t role;
	uint32_t instructions;
	bool entry;
};

struct locked {
	uint32_t span;
	uint32_t site;
};

#define TASKS (1u << 14)
#define SITES (1u << 15)

static struct counts_head *head;
static struct counts_span *spans;
static struct counts_site *sites;
static uint8_t *counters;
static struct vcpu *vcpus;
/* What tasks that do not run are at: the stack pointer, shifted, and `at` and `interrupts` in the room below. */
static uint64_t tasks[TASKS];
/* Sites by address: 1 + their number in the low half, the address's low half above it (the kernel is in 2 GiB). */
static uint64_t known[SITES];

static size_t per_vcpu(void)
{
	return head->spans * sizeof(struct counts_in_span) +
	       head->most_sites * sizeof(struct counts_at_site);
}

static struct counts_in_span *counters_of(uint32_t phase, unsigned int index)
{
	return (void *)(counters + ((size_t)phase * head->vcpus + index) * per_vcpu());
}

/* The counters of a vCPU, and the class that it counts in; NULL when it does not count. */
static struct counts_in_span *counting(unsigned int index, enum counts_class *class)
{
	uint32_t on = __atomic_load_n(&head->on, __ATOMIC_ACQUIRE);
	const struct vcpu *self = &vcpus[index];

	if (!on || self->interrupts || self->at < AT_CALL)
		return NULL;
	*class = self->at == AT_FAULT ? COUNTS_IN_FAULT : COUNTS_ELSEWHERE;
	return counters_of(on - 1, index);
}

static void in_user_space(unsigned int index, void *data)
{
	(void)data;
	if (index < head->vcpus)
		vcpus[index] = (struct vcpu){ .at = AT_USER };
}

static void in_kernel(unsigned int index, void *data)
{
	const struct piece *piece = data;
	struct counts_in_span *counts;
	enum counts_class class;
	struct vcpu *self;

	if (index >= head->vcpus)
		return;
	self = &vcpus[index];
	if (piece->entry && piece->role == COUNTS_INTERRUPT)
		self->interrupts++;
	else if (self->at == AT_USER && !self->interrupts)
		self->at = piece->role == COUNTS_FAULT ? AT_FAULT : AT_CALL;
	counts = counting(index, &class);
	if (!counts)
		return;
	counts += piece->span;
	counts->instructions[class] += piece->instructions;
	counts->entered[class] += piece->entry;
}

static void locked(unsigned int index, void *data)
{
	const struct locked *at = data;
	struct counts_in_span *counts;
	struct counts_at_site *there;
	enum counts_class class;

	if (index >= head->vcpus)
		return;
	counts = counting(index, &class);
	if (!counts)
		return;
	counts[at->span].locked[class]++;
	if (at->site < head->most_sites) {
		there = (struct counts_at_site *)(counts + head->spans);
		there[at->site].executed[class]++;
	}
}

static void interrupt_returns(unsigned int index, void *data)
{
	(void)data;
	if (index < head->vcpus && vcpus[index].interrupts)
		vcpus[index].interrupts--;
}

static uint64_t *task_at(uint64_t stack)
{
	return &tasks[(stack * 0x9e3779b97f4a7c15u) >> 50];
}

static void task_goes(unsigned int index, uint32_t info, uint64_t stack, void *data)
{
	(void)info;
	(void)data;
	if (index < head->vcpus)
		__atomic_store_n(task_at(stack),
				 stack << 16 | vcpus[index].at << 8 | (vcpus[index].interrupts & 0xff),
				 __ATOMIC_RELEASE);
}

static void task_comes(unsigned int index, uint32_t info, uint64_t stack, void *data)
{
	uint64_t kept = __atomic_load_n(task_at(stack), __ATOMIC_ACQUIRE);
	struct vcpu fresh = { .at = AT_NOTHING };

	(void)info;
	(void)data;
	if (index >= head->vcpus)
		return;
	if (kept >> 16 == stack << 16 >> 16) {
		fresh.at = (kept >> 8) & 0xff;
		fresh.interrupts = kept & 0xff;
		__atomic_store_n(task_at(stack), 0, __ATOMIC_RELAXED);
	}
	vcpus[index] = fresh;
}

static void marked(unsigned int index, void *data)
{
	uint32_t phase;

	(void)index;
	if ((uintptr_t)data == MARK_END) {
		__atomic_store_n(&head->on, 0, __ATOMIC_RELEASE);
		return;
	}
	phase = head->begun++;
	__atomic_store_n(&head->on, phase < head->phases ? phase + 1 : 0, __ATOMIC_RELEASE);
}

/* The number of the site at an address, a new one when it is new. Blocks are translated by several threads at once. */
static uint32_t site_at(uint64_t address)
{
	size_t at = (size_t)((address * 0x9e3779b97f4a7c15u) >> 49);

	for (size_t tried = 0; tried < SITES; tried++, at = (at + 1) % SITES) {
		uint64_t there = __atomic_load_n(&known[at], __ATOMIC_ACQUIRE), mine;
		uint32_t number;

		if (there) {
			if (there >> 32 == (address & UINT32_MAX))
				return (uint32_t)there - 1;
			continue;
		}
		number = __atomic_fetch_add(&head->sites, 1, __ATOMIC_RELAXED);
		mine = address << 32 | (number + 1);
		if (number < head->most_sites)
			sites[number].address = address;
		if (__atomic_compare_exchange_n(&known[at], &there, mine, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE))
			return number;
		/* Somebody else was quicker; it may be the same address, whose other number then stays unused. */
		if (there >> 32 == (address & UINT32_MAX))
			return (uint32_t)there - 1;
	}
	return UINT32_MAX;
}

static struct counts_span *span_of(uint64_t address)
{
	return control_find(spans, head->spans, sizeof(*spans), address);
}

/* What is handed to a callback lives as long as QEMU does, as the block that it is for may. */
static void *forever(size_t size)
{
	void *made = calloc(1, size);

	if (!made) {
		fputs("counts plugin: out of memory\n", stderr);
		abort();
	}
	return made;
}

static void translated_in_user_space(struct qemu_plugin_tb *tb, size_t count)
{
	qemu_plugin_register_vcpu_tb_exec_cb(tb, in_user_space, QEMU_PLUGIN_CB_NO_REGS, NULL);
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		int mark = x86_mark(qemu_plugin_insn_data(insn), qemu_plugin_insn_size(insn));

		if (mark == MARK_BEGIN || mark == MARK_END)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS,
							       (void *)(uintptr_t)mark);
	}
}

static void translated_insn(struct qemu_plugin_insn *insn, const struct counts_span *span)
{
	const uint8_t *code = qemu_plugin_insn_data(insn);
	size_t size = qemu_plugin_insn_size(insn);

	if (x86_locked(code, size)) {
		struct locked *at = forever(sizeof(*at));

		at->span = (uint32_t)(span - spans);
		at->site = site_at(qemu_plugin_insn_vaddr(insn));
		qemu_plugin_register_vcpu_insn_exec_cb(insn, locked, QEMU_PLUGIN_CB_NO_REGS, at);
	} else if (x86_iretq(code, size)) {
		qemu_plugin_register_vcpu_insn_exec_cb(insn, interrupt_returns,
						       QEMU_PLUGIN_CB_NO_REGS, NULL);
	} else if (span->role == COUNTS_SWITCH && x86_push_r15(code, size)) {
		qemu_plugin_register_vcpu_mem_cb(insn, task_goes, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_W, NULL);
	} else if (span->role == COUNTS_SWITCH && x86_pop_r15(code, size)) {
		qemu_plugin_register_vcpu_mem_cb(insn, task_comes, QEMU_PLUGIN_CB_NO_REGS,
						 QEMU_PLUGIN_MEM_R, NULL);
	}
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);
	struct piece *piece = NULL;

	(void)id;
	if (!(qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)) >> 63)) {
		translated_in_user_space(tb, count);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		struct counts_span *span = span_of(qemu_plugin_insn_vaddr(insn));

		if (!span)
			continue;
		if (!piece || piece->span != (uint32_t)(span - spans)) {
			piece = forever(sizeof(*piece));
			piece->span = (uint32_t)(span - spans);
			piece->role = span->role;
			piece->entry = qemu_plugin_insn_vaddr(insn) == span->start;
			qemu_plugin_register_vcpu_tb_exec_cb(tb, in_kernel, QEMU_PLUGIN_CB_NO_REGS,
							     piece);
		}
		piece->instructions++;
		translated_insn(insn, span);
	}
}

/* Map the control block; the reason why that cannot be, or NULL. */
static const char *take(const char *path)
{
	const struct control wanted = { COUNTS_MAGIC, COUNTS_VERSION };
	const char *why;
	void *block;
	size_t size;

	why = control_map(path, wanted, sizeof(*head), &block, &size);
	if (why)
		return why;
	head = block;
	spans = (struct counts_span *)(head + 1);
	sites = (struct counts_site *)(spans + head->spans);
	counters = (uint8_t *)(sites + head->most_sites);
	if (size < (size_t)(counters - (uint8_t *)head) +
			   (size_t)head->phases * head->vcpus * per_vcpu())
		return "is cut off";
	vcpus = control_per_vcpu(head->vcpus, sizeof(*vcpus));
	return vcpus ? NULL : "needs more memory than there is";
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc,
			       char **argv)
{
	(void)info;
	if (!control_take("counts", argc, argv, take))
		return 1;
	__atomic_store_n(&head->loaded, COUNTS_VERSION, __ATOMIC_RELEASE);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
