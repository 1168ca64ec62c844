/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-keeper from its main() on, for one process. Volumes, ring, watchdog and slice are made here and answer at once; the rest is as shipped. */
#pragma once

#include "fence/daemon.h"

void fuzz_keeper_init(void);
struct daemon *fuzz_keeper_begin(bool armed); /* armed, with node 2 alive beside it; or as it starts, with no other node seen */
void fuzz_keeper_end(void);
