/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 B.4 has test vectors). */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crc: 0 for a new sum, or the value returned for the bytes before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* The same by a table, as on a processor that has no instruction for it. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len);
