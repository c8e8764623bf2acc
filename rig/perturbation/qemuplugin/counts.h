/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The control block of the counting plugin: a file of the trial that the rig writes before QEMU starts, and reads at the end.
 *
 *     head, spans[spans], sites[most_sites], then for each phase and in it for each vCPU
 *         struct counts_in_span[spans], struct counts_at_site[most_sites]
 *
 * A vCPU writes its own counters only, and a site is claimed once, so nothing needs a lock. The file is sparse: what
 * is never counted takes no room. rig/costs/countctl.py knows the same layout; a test compares the two.
 */
#ifndef COUNTS_H
#define COUNTS_H

#include <stdint.h>

#define COUNTS_MAGIC 0x746e6f63u /* "cont" */
#define COUNTS_VERSION 1u

/* What a span of code is to the plugin, beside something to be counted. */
enum counts_role {
	COUNTS_PLAIN,
	COUNTS_FAULT, /* the entry of a page fault */
	COUNTS_INTERRUPT, /* the entry of an interrupt */
	COUNTS_SWITCH, /* goes from the stack of one task to that of another */
};

/* What the kernel was at. What interrupts do, and threads of the kernel that no user waits for, is not counted. */
enum counts_class {
	COUNTS_IN_FAULT, /* a page fault of user space, from its entry to the return */
	COUNTS_ELSEWHERE, /* system calls */
	COUNTS_CLASSES,
};

struct counts_head {
	uint32_t magic;
	uint32_t version;
	uint32_t spans;
	uint32_t vcpus;
	uint32_t phases; /* room for so many */
	uint32_t most_sites; /* room for so many */
	uint32_t loaded; /* the version, once the plugin has taken the block */
	uint32_t begun; /* phases that were begun, those without room included */
	uint32_t sites; /* that were found, those without room included */
	uint32_t on; /* 1 + the phase that is being counted */
};

struct counts_span {
	uint64_t start;
	uint64_t end;
	uint32_t role;
	uint32_t unused;
};

struct counts_site {
	uint64_t address; /* of a locked read-modify-write */
};

struct counts_in_span {
	uint64_t instructions[COUNTS_CLASSES];
	uint64_t locked[COUNTS_CLASSES]; /* read-modify-writes */
	uint64_t entered[COUNTS_CLASSES]; /* at its first instruction */
};

struct counts_at_site {
	uint64_t executed[COUNTS_CLASSES];
};

#endif
