/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C against the examples of RFC 3720, appendix B.4, and against a bit-by-bit computation of the polynomial. */
#include "agent/base/util.h"
#include "storage/crc32c.h"
#include "tests/tap.h"

static uint32_t bit_by_bit(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0U;

	while (len-- > 0) {
		crc ^= *p++;
		for (unsigned i = 0; i < 8; i++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return ~crc;
}

int main(void)
{
	/* RFC 3720: an iSCSI SCSI Read (10) command PDU */
	static const uint8_t pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
		0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
	};
	uint8_t buf[1024];
	bool same = true, table = true, joined = true;

	memset(buf, 0, 32);
	TAP_OK(crc32c(0, buf, 32) == 0x8a9136aaU, "32 bytes of zeroes");
	memset(buf, 0xff, 32);
	TAP_OK(crc32c(0, buf, 32) == 0x62a8ab43U, "32 bytes of ones");
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	TAP_OK(crc32c(0, buf, 32) == 0x46dd794eU, "32 bytes counting up");
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)(31 - i);
	TAP_OK(crc32c(0, buf, 32) == 0x113fdb5cU, "32 bytes counting down");
	TAP_OK(crc32c(0, pdu, sizeof(pdu)) == 0xd9963a56U, "an iSCSI command");
	TAP_OK(crc32c(0, "123456789", 9) == 0xe3069283U, "the check value of the catalogue of CRCs");
	TAP_OK(crc32c(0, "", 0) == 0 && crc32c(0x12345678, "", 0) == 0x12345678, "nothing changes nothing");
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 167 + (i >> 3));
	for (size_t len = 0; len < sizeof(buf); len += 13) {
		same = same && crc32c(0, buf + 1, len) == bit_by_bit(buf + 1, len);
		table = table && crc32c_by_table(0, buf + 1, len) == bit_by_bit(buf + 1, len);
		joined = joined && crc32c(crc32c(0, buf, len), buf + len, sizeof(buf) - len) == crc32c(0, buf, sizeof(buf));
	}
	TAP_OK(same, "what this processor does agrees with the polynomial at every length tried");
	TAP_OK(table, "so does the table");
	TAP_OK(joined, "a sum made in two parts is the sum of the whole");
	return tap_done();
}
