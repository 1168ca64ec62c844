/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent reservations through the kernel: which SCSI paths a block device of this host has, and PERSISTENT RESERVE IN and OUT on one of them by SG_IO.
 * Both may block for as long as the kernel likes: for a process of its own (ha-reserve). */
#pragma once

#include "storage/reservation.h"

#define RESERVE_SG_NAME_LEN 64
#define RESERVE_SG_WHY_LEN 160
#define RESERVE_SG_COMMAND_MS 7000 /* until the kernel aborts it. It makes seven seconds of whatever is less (BLK_MIN_SG_TIMEOUT), */
#define RESERVE_SG_ANSWER_MS 9000  /* and its timer may be 1.5 s late: until one that nobody answers has timed out and is aborted, unless that takes long, too */

struct reserve_sg_lun {
	unsigned n;
	char path[RESERVATION_MAX_PATHS][RESERVE_SG_NAME_LEN]; /* /dev/sd*: not multipath's device, which sends to one of them only */
	uint32_t down; /* bit: the kernel holds back, for long perhaps, whatever is sent there */
};

enum reserve_sg_found { RESERVE_SG_FOUND, RESERVE_SG_NEVER /* nothing of the kind can be reserved */, RESERVE_SG_NOT_NOW,
	RESERVE_SG_ABSENT /* nor can anybody open it */ };

/* The paths of a disk as its VM's file has it. sys: where sysfs is. Not FOUND: why is put into why. */
enum reserve_sg_found reserve_sg_find(const char *disk, const char *sys, struct reserve_sg_lun *ret, char why[RESERVE_SG_WHY_LEN]);
void reserve_sg_send(int fd, const struct reservation_command *c, struct reservation_answer *ret);
/* What a SCSI status and sense data say: status and later. True: a UNIT ATTENTION: the command was not looked at, and is to be sent again. */
bool reserve_sg_status(unsigned status, const uint8_t *sense, size_t sense_len, struct reservation_answer *ret);
