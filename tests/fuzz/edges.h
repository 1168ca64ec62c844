/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The replaced edges, as the daemons' surroundings steer them. */
#pragma once

#include "storage/format.h"
#include "storage/volume.h"

#define FUZZ_NODES 4 /* room on the volumes; every round reads all of it */

extern const uint8_t fuzz_cluster[16];
extern enum volume_result fuzz_volume_result; /* of operations to come */
void fuzz_volumes_turn(void);   /* carries out what waits */
void fuzz_volumes_forget(void);
bool fuzz_volumes_busy(void);
