/* SPDX-License-Identifier: GPL-2.0-only */
/* How a plugin takes the control block that the rig gives it: `ctl=FILE` among its arguments. */
#ifndef CONTROL_H
#define CONTROL_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every control block begins with these. */
struct control {
	uint32_t magic;
	uint32_t version;
};

/* Map the file of a control block that has `least` bytes at least; the reason why that cannot be, or NULL. */
static inline const char *control_map(const char *path, struct control wanted, size_t least,
				      void **block, size_t *size)
{
	int file = open(path, O_RDWR | O_CLOEXEC);
	struct stat status;

	if (file < 0)
		return "cannot be opened";
	if (fstat(file, &status) || (size_t)status.st_size < least) {
		close(file);
		return "is too short";
	}
	*size = (size_t)status.st_size;
	*block = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (*block == MAP_FAILED)
		return "cannot be mapped";
	return memcmp(*block, &wanted, sizeof(wanted)) ? "is of another version" : NULL;
}

/* Have `take` map the block that the arguments of a plugin name; says why that cannot be and returns false. */
static inline bool control_take(const char *plugin, int argc, char **argv,
				const char *(*take)(const char *path))
{
	const char *why = "is not given", *path = "ctl";

	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "ctl=", 4)) {
			path = argv[i] + 4;
			why = take(path);
		}
	}
	if (why)
		fprintf(stderr, "%s plugin: %s %s\n", plugin, path, why);
	return !why;
}

/* What the ranges of code in a control block begin with; they are disjoint, and in order. */
struct control_range {
	uint64_t start;
	uint64_t end;
};

/* The range at an address, of so many that are `size` bytes each; NULL for none. */
static inline void *control_find(void *ranges, size_t count, size_t size, uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct control_range *range = (void *)((char *)ranges + middle * size);

		if (address >= range->end)
			low = middle + 1;
		else if (address < range->start)
			high = middle;
		else
			return range;
	}
	return NULL;
}

/* Zeroed, a cache line apart, one for each vCPU; NULL when there is no memory for that. */
static inline void *control_per_vcpu(uint32_t vcpus, size_t size)
{
	void *made = aligned_alloc(64, (vcpus + !vcpus) * size);

	return made ? memset(made, 0, (vcpus + !vcpus) * size) : NULL;
}

#endif
