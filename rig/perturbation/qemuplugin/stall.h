/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The control block: a file of the trial that the rig writes before QEMU starts, and that both then map.
 *
 * The rig writes the head and the weights while the machine runs; the plugin writes `loaded` and the counts. Nothing
 * needs a lock: every word has one writer, and an episode that is read half old and half new is as good as any other.
 * rig/perturbation/stallctl.py knows the same layout; a test compares the two.
 */
#ifndef STALL_H
#define STALL_H

#include <stdint.h>

#define STALL_MAGIC 0x6c617473u /* "stal" */
#define STALL_VERSION 1u

struct stall_head {
	uint32_t magic;
	uint32_t version;
	uint32_t ranges;
	uint32_t vcpus;
	uint32_t loaded; /* the version, once the plugin has taken the block */
	uint32_t episode; /* 0: off. Another number: a new draw of what follows */
	uint32_t at_most; /* vCPUs that may stand still at once */
	uint32_t share; /* of the time that one vCPU may be stalled for, in millionths */
	uint64_t seed;
	uint64_t distance; /* weighted instructions between two stalls of a vCPU, on average */
	uint64_t shortest; /* ns */
	uint64_t longest; /* ns */
};

struct stall_range {
	uint64_t start;
	uint64_t end;
	uint32_t weight; /* what an instruction counts; 0: not in this episode */
	uint32_t unused;
};

/* One per vCPU and range, those of a vCPU together: a vCPU writes its own only. */
struct stall_count {
	uint64_t executed; /* instructions, while switched on */
	uint64_t stalls;
	uint64_t stalled; /* ns */
	uint64_t withheld; /* stalls that the share or the other sleepers forbade */
};

#endif
