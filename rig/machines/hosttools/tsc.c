// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the rate of this host's time stamp counter in kHz, measured against
 * CLOCK_MONOTONIC_RAW. A guest under TCG reads the host's counter, and
 * measures it against an emulated timer, which a loaded host makes late.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define TRIES	64
#define GAP_NS	200000000ll

struct moment {
	uint64_t ticks;
	int64_t ns;
};

/* The pair of readings with the least time between them: nothing came between these. */
static struct moment now(void)
{
	struct moment best = { 0 };
	uint64_t width, least = UINT64_MAX, before, after;
	struct timespec ts;
	int i;

	for (i = 0; i < TRIES; i++) {
		before = __rdtsc();
		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = __rdtsc();
		width = after - before;
		if (width >= least)
			continue;
		least = width;
		best.ticks = before + width / 2;
		best.ns = ts.tv_sec * 1000000000ll + ts.tv_nsec;
	}
	return best;
}

int main(void)
{
	const struct timespec gap = { .tv_nsec = GAP_NS };
	struct moment first = now(), last;

	nanosleep(&gap, NULL);
	last = now();
	printf("%.0f\n", (double)(last.ticks - first.ticks) * 1e6 / (double)(last.ns - first.ns));
	return 0;
}
