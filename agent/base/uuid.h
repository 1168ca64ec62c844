/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 16 byte identities: parse, print, draw. */
#pragma once

#include "agent/base/util.h"

#define UUID_STR_LEN 37

bool uuid_parse(const char *s, uint8_t ret[16]); /* 8-4-4-4-12 hexadecimal digits */
void uuid_format(const uint8_t uuid[16], char ret[UUID_STR_LEN]);
int uuid_random(uint8_t ret[16]);                /* version 4; negative errno if the kernel gives no randomness */
bool uuid_is_zero(const uint8_t uuid[16]);
