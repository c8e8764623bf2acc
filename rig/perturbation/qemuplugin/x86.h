/* SPDX-License-Identifier: GPL-2.0-only */
/* As much of the encoding of x86-64 instructions as it takes to tell a few of them apart, by their bytes. */
#ifndef X86_H
#define X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Whether an instruction is a locked read-modify-write of memory: it has a LOCK prefix, or is an xchg with memory, which
 * is locked without one. The processor takes prefixes in any order, with REX last.
 */
static inline bool x86_locked(const uint8_t *code, size_t size)
{
	static const uint8_t prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
					    0x66, 0x67, 0xf0, 0xf2, 0xf3 };
	size_t i = 0;

	for (; i < size && memchr(prefixes, code[i], sizeof(prefixes)); i++)
		if (code[i] == 0xf0)
			return true;
	if (i < size && (code[i] & 0xf0) == 0x40)
		i++;
	return i + 1 < size && (code[i] & 0xfe) == 0x86 && code[i + 1] < 0xc0;
}

/* Return from an interrupt, in 64-bit mode. */
static inline bool x86_iretq(const uint8_t *code, size_t size)
{
	return size == 2 && code[0] == 0x48 && code[1] == 0xcf;
}

static inline bool x86_push_r15(const uint8_t *code, size_t size)
{
	return size == 2 && code[0] == 0x41 && code[1] == 0x57;
}

static inline bool x86_pop_r15(const uint8_t *code, size_t size)
{
	return size == 2 && code[0] == 0x41 && code[1] == 0x5f;
}

/*
 * A mark of guest-workloads/bench-*.c, `nopl 0xNN474952(%rax)`: 'R', 'I', 'G' and a number in the displacement of an
 * instruction that does nothing, here or on any processor. Returns the number, -1 for any other instruction.
 */
static inline int x86_mark(const uint8_t *code, size_t size)
{
	static const uint8_t mark[] = { 0x0f, 0x1f, 0x80, 'R', 'I', 'G' };

	return size == sizeof(mark) + 1 && !memcmp(code, mark, sizeof(mark)) ? code[sizeof(mark)] :
									       -1;
}

#endif
