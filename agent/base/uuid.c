/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/uuid.h"

#include <errno.h>
#include <sys/random.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool dash_before(size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

bool uuid_parse(const char *s, uint8_t ret[16])
{
	uint8_t uuid[16];

	for (size_t i = 0; i < sizeof(uuid); i++) {
		int high, low;

		if (dash_before(i) && *s++ != '-')
			return false;
		high = hex_digit(s[0]);
		low = high < 0 ? -1 : hex_digit(s[1]);
		if (low < 0)
			return false;
		uuid[i] = (uint8_t)(high << 4 | low);
		s += 2;
	}
	if (*s)
		return false;
	memcpy(ret, uuid, sizeof(uuid));
	return true;
}

void uuid_format(const uint8_t uuid[16], char ret[UUID_STR_LEN])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < 16; i++) {
		if (dash_before(i))
			*ret++ = '-';
		*ret++ = digits[uuid[i] >> 4];
		*ret++ = digits[uuid[i] & 15];
	}
	*ret = '\0';
}

int uuid_random(uint8_t ret[16])
{
	uint8_t uuid[16];
	ssize_t n;

	/* GRND_NONBLOCK: before the kernel's pool is seeded the caller must hear of it, not hang. */
	do
		n = getrandom(uuid, sizeof(uuid), GRND_NONBLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n != sizeof(uuid))
		return -EIO;
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562: version 4, variant 10 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	memcpy(ret, uuid, sizeof(uuid));
	return 0;
}

bool uuid_is_zero(const uint8_t uuid[16])
{
	uint8_t any = 0;

	for (size_t i = 0; i < 16; i++)
		any |= uuid[i];
	return any == 0;
}
