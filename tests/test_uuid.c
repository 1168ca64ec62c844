/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/uuid.h"
#include "tests/tap.h"

int main(void)
{
	static const char *const bad[] = {
		"", "01234567-89ab-cdef-0123-456789abcde", "01234567-89ab-cdef-0123-456789abcdef0", "0123456789abcdef0123456789abcdef",
		"{01234567-89ab-cdef-0123-456789abcdef}", "01234567-89ab-cdef-0123-456789abcdeg", "01234567-89ab-cdef-0123_456789abcdef",
		" 01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef ", "0123456-789ab-cdef-0123-456789abcdef",
	};
	static const uint8_t want[16] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
	uint8_t a[16], b[16] = { 0 };
	char s[UUID_STR_LEN];

	TAP_OK(uuid_parse("01234567-89AB-cdef-0123-456789abcdef", a) && memcmp(a, want, 16) == 0, "both letter cases are parsed");
	uuid_format(a, s);
	TAP_STR(s, "01234567-89ab-cdef-0123-456789abcdef", "printed in small letters");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		TAP_OK(!uuid_parse(bad[i], a) && memcmp(a, want, 16) == 0, "\"%s\" is refused, output untouched", bad[i]);
	TAP_OK(uuid_is_zero(b) && !uuid_is_zero(a), "zero is told from others");
	b[15] = 1;
	TAP_OK(!uuid_is_zero(b), "the last byte counts");
	TAP_OK(uuid_random(a) == 0 && uuid_random(b) == 0 && memcmp(a, b, 16) != 0, "two draws differ");
	TAP_OK(a[6] >> 4 == 4 && a[8] >> 6 == 2 && b[6] >> 4 == 4 && b[8] >> 6 == 2, "version 4, variant 10");
	return tap_done();
}
