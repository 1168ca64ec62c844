/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/crc32c.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <nmmintrin.h>
#include <stdbool.h>
#include <string.h>
#endif

/* Sixteen entries, four bits at a time: a table of 64 bytes never leaves the cache, and a heartbeat is a few KiB. */
static const uint32_t nibble[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
	0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	while (len-- > 0) {
		crc ^= *p++;
		crc = (crc >> 4) ^ nibble[crc & 15];
		crc = (crc >> 4) ^ nibble[crc & 15];
	}
	return ~crc;
}

#ifdef __x86_64__
/* A table of 64 nodes is half a megabyte, read each round from each volume: 0.06 ms with the instruction rather than 2.5 ms with the table. */
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t sum = ~crc, word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum = _mm_crc32_u64(sum, word);
	}
	while (len-- > 0)
		sum = _mm_crc32_u8((uint32_t)sum, *p++);
	return ~(uint32_t)sum;
}

static bool has_instruction(void)
{
	static enum { UNKNOWN, NO, YES } known; /* asking takes long on a virtual machine */
	unsigned a, b, c, d;

	if (known == UNKNOWN)
		known = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) ? YES : NO;
	return known == YES;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len) { return has_instruction() ? by_instruction(crc, data, len) : crc32c_by_table(crc, data, len); }
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t len) { return crc32c_by_table(crc, data, len); }
#endif
