/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/reserve_sg.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define OPCODE_IN 0x5e
#define OPCODE_OUT 0x5f
#define STATUS_CHECK_CONDITION 0x02
#define STATUS_BUSY 0x08
#define STATUS_CONFLICT 0x18
#define STATUS_TASK_SET_FULL 0x28
#define STATUS_TASK_ABORTED 0x40
#define KEY_NOT_READY 0x02 /* ALUA: in transition, or unavailable by this path */
#define KEY_ILLEGAL_REQUEST 0x05
#define KEY_UNIT_ATTENTION 0x06
#define KEY_ABORTED_COMMAND 0x0b
#define TRIES 3
#define AGAIN_MS 300
#define AT_ONCE_MS 2500 /* what took longer is not asked for again */
#define MAX_ATTENTIONS 8 /* one after the other: reset, keys preempted, capacity changed */

static bool has_link(const char *dir, const char *link, const char *wanted)
{
	char path[PATH_MAX], to[PATH_MAX];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, link);
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return false;
	to[n] = '\0';
	return strrchr(to, '/') && streq(strrchr(to, '/') + 1, wanted);
}

static bool read_text(const char *dir, const char *file, char *ret, size_t size)
{
	char path[PATH_MAX];
	size_t n;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(ret, 1, size - 1, f);
	ret[n] = '\0';
	(void)fclose(f);
	return true;
}

static enum reserve_sg_found add_path(const char *dir, const char *name, struct reserve_sg_lun *ret)
{
	char state[32] = "";

	if (!has_link(dir, "device/subsystem", "scsi")) /* of one that is just being removed it is not there */
		return strncmp(name, "sd", 2) == 0 ? RESERVE_SG_NOT_NOW : RESERVE_SG_NEVER;
	if (ret->n == RESERVATION_MAX_PATHS || strlen(name) + sizeof("/dev/") > RESERVE_SG_NAME_LEN)
		return RESERVE_SG_NEVER;
	if (read_text(dir, "device/state", state, sizeof(state)) && strcmp(state, "running\n") != 0)
		ret->down |= 1u << ret->n;
	(void)snprintf(ret->path[ret->n++], RESERVE_SG_NAME_LEN, "/dev/%.58s", name);
	return RESERVE_SG_FOUND;
}

/* Each of those must be a SCSI disk: of half a multipath nothing would follow. */
static enum reserve_sg_found add_slaves(const char *dir, struct reserve_sg_lun *ret)
{
	enum reserve_sg_found found = RESERVE_SG_FOUND;
	char path[PATH_MAX], slave[PATH_MAX];
	struct dirent *e;
	DIR *d;

	if (snprintf(path, sizeof(path), "%s/slaves", dir) >= (int)sizeof(path) || !(d = opendir(path)))
		return RESERVE_SG_NOT_NOW;
	while (found == RESERVE_SG_FOUND && (e = readdir(d)) != NULL) {
		if (*e->d_name == '.')
			continue;
		found = snprintf(slave, sizeof(slave), "%s/%s", path, e->d_name) < (int)sizeof(slave) ? add_path(slave, e->d_name, ret) : RESERVE_SG_NEVER;
	}
	(void)closedir(d);
	return found == RESERVE_SG_FOUND && ret->n == 0 ? RESERVE_SG_NOT_NOW : found;
}

static enum reserve_sg_found find_paths(dev_t device, const char *sys, struct reserve_sg_lun *ret, const char **ret_why)
{
	char link[128], dir[PATH_MAX], text[256] = "";
	enum reserve_sg_found found;

	(void)snprintf(link, sizeof(link), "%.80s/dev/block/%u:%u", sys, major(device), minor(device));
	*ret_why = "the kernel says nothing of it";
	if (!realpath(link, dir))
		return RESERVE_SG_NOT_NOW;
	*ret_why = "it is a partition, and reservations are of whole disks";
	if (read_text(dir, "partition", text, sizeof(text)))
		return RESERVE_SG_NEVER;
	*ret_why = "it is a device-mapper device other than a multipath";
	if (read_text(dir, "dm/uuid", text, sizeof(text)) && strncmp(text, "mpath-", 6) != 0)
		return RESERVE_SG_NEVER;
	found = strncmp(text, "mpath-", 6) == 0 ? add_slaves(dir, ret) : add_path(dir, strrchr(dir, '/') + 1, ret);
	*ret_why = found == RESERVE_SG_NEVER ? "it is no SCSI disk" : "the kernel is just removing it, or has no path to it";
	return found;
}

enum reserve_sg_found reserve_sg_find(const char *disk, const char *sys, struct reserve_sg_lun *ret, char why[RESERVE_SG_WHY_LEN])
{
	enum reserve_sg_found found = RESERVE_SG_NEVER;
	const char *reason = "";
	struct stat st;

	ret->n = 0;
	ret->down = 0;
	if (*disk != '/') {
		reason = "QEMU opens it by itself: only a SCSI disk that the host's kernel has can be reserved";
	} else if (stat(disk, &st) < 0) {
		reason = "it is not there";
		found = RESERVE_SG_ABSENT;
	} else if (!S_ISBLK(st.st_mode)) {
		reason = "it is no block device";
	} else {
		found = find_paths(st.st_rdev, sys, ret, &reason);
	}
	(void)snprintf(why, RESERVE_SG_WHY_LEN, "%s", found == RESERVE_SG_FOUND ? "" : reason);
	return found;
}

bool reserve_sg_status(unsigned status, const uint8_t *sense, size_t sense_len, struct reservation_answer *ret)
{
	bool descriptors = sense_len > 0 && ((sense[0] & 0x7f) == 0x72 || (sense[0] & 0x7f) == 0x73);
	bool fixed = sense_len > 0 && ((sense[0] & 0x7f) == 0x70 || (sense[0] & 0x7f) == 0x71);
	unsigned key = 0, code = 0;

	if (descriptors && sense_len >= 4) {
		key = sense[1] & 0xf;
		code = sense[2];
	} else if (fixed && sense_len >= 14) {
		key = sense[2] & 0xf;
		code = sense[12];
	}
	ret->status = RESERVATION_ERROR;
	ret->later = status == STATUS_BUSY || status == STATUS_TASK_SET_FULL || status == STATUS_TASK_ABORTED ||
		     (status == STATUS_CHECK_CONDITION && (key == KEY_NOT_READY || key == KEY_UNIT_ATTENTION || key == KEY_ABORTED_COMMAND));
	if (status == 0)
		ret->status = RESERVATION_GOOD;
	else if (status == STATUS_CONFLICT)
		ret->status = RESERVATION_CONFLICT;
	else if (status == STATUS_CHECK_CONDITION && key == KEY_UNIT_ATTENTION)
		return true;
	else if (status == STATUS_CHECK_CONDITION && key == KEY_ILLEGAL_REQUEST && (code == 0x20 || code == 0x24)) /* operation code, field in CDB */
		ret->status = RESERVATION_REFUSED;
	else if (status == STATUS_CHECK_CONDITION && key == KEY_ILLEGAL_REQUEST)
		ret->status = RESERVATION_ILLEGAL;
	return false;
}

/* Host bytes of the kernel's (scsi_status.h) that tell of the way to the target, and nothing of the target: no connection, bus busy, retry, requeue, transport disrupted, failing fast,
 * marginal. A time-out is none of them: a device may not know the command. */
static bool is_of_path(unsigned host_status)
{
	return host_status == 0x01 || host_status == 0x02 || (host_status >= 0x0c && host_status <= 0x0f) || host_status == 0x14;
}

static bool send_once(int fd, const struct reservation_command *c, uint8_t *data, size_t *len, struct reservation_answer *ret)
{
	uint8_t cdb[10] = { 0 }, sense[64] = { 0 };
	bool in = reservation_is_in(c->kind);
	struct sg_io_hdr io = { .interface_id = 'S', .dxfer_direction = in ? SG_DXFER_FROM_DEV : SG_DXFER_TO_DEV, .cmd_len = sizeof(cdb), .mx_sb_len = sizeof(sense),
				.dxfer_len = (unsigned)*len, .dxferp = data, .cmdp = cdb, .sbp = sense, .timeout = RESERVE_SG_COMMAND_MS };

	cdb[0] = in ? OPCODE_IN : OPCODE_OUT;
	cdb[1] = (uint8_t)reservation_service_action(c->kind);
	cdb[2] = reservation_is_typed(c->kind) ? RESERVATION_WERO : 0;
	cdb[7] = (uint8_t)(*len >> 8);
	cdb[8] = (uint8_t)*len;
	ret->status = RESERVATION_ERROR;
	ret->later = false;
	if (ioctl(fd, SG_IO, &io) < 0) {
		ret->later = errno == ENODEV || errno == ENXIO || errno == EAGAIN || errno == ENOMEM; /* it is offline, or being removed */
		return false;
	}
	*len = io.resid > 0 && (size_t)io.resid <= *len ? *len - (size_t)io.resid : *len;
	/* A conflict comes with a host status of its own from some kernels. */
	if (io.status == 0 && (io.host_status != 0 || (io.driver_status & 0xf) != 0)) {
		ret->later = is_of_path(io.host_status);
		return false;
	}
	return reserve_sg_status(io.status, sense, io.sb_len_wr, ret);
}

/* False: it is over, well or not. */
static bool exchange(int fd, const struct reservation_command *c, struct reservation_answer *ret)
{
	uint8_t data[RESERVATION_IN_LEN];
	size_t len = 0;
	bool ok = true, again = true;

	*ret = (struct reservation_answer){ .status = RESERVATION_ERROR };
	for (unsigned i = 0; i < MAX_ATTENTIONS && again; i++) {
		memset(data, 0, sizeof(data));
		len = reservation_is_in(c->kind) ? c->kind == RESERVATION_REPORT_CAPABILITIES ? 8 : sizeof(data) : RESERVATION_OUT_LEN;
		if (!reservation_is_in(c->kind))
			reservation_out_parameters(c, data);
		again = send_once(fd, c, data, &len, ret);
	}
	if (again || ret->status != RESERVATION_GOOD)
		return !again && ret->status == RESERVATION_ERROR;
	if (c->kind == RESERVATION_READ_KEYS)
		ok = reservation_parse_keys(data, len, &ret->keys);
	else if (c->kind == RESERVATION_READ_HOLDER)
		ok = reservation_parse_holder(data, len, &ret->holder);
	else if (c->kind == RESERVATION_REPORT_CAPABILITIES)
		ok = reservation_parse_capabilities(data, len, &ret->capabilities);
	if (!ok)
		ret->status = RESERVATION_ERROR;
	return false;
}

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A path is left out for as long as the VM runs because of one such answer, so one that came at once (busy, not ready, aborted, a link that flaps) is asked for again. Each command
 * may be carried out twice, but for PREEMPT, whose plan looks again by itself. */
void reserve_sg_send(int fd, const struct reservation_command *c, struct reservation_answer *ret)
{
	bool once = c->kind == RESERVATION_PREEMPT || c->kind == RESERVATION_PREEMPT_ABORT, later = false;

	for (unsigned i = 1;; i++) {
		int64_t began = now_ms();
		bool again = exchange(fd, c, ret);

		later = later || ret->later;
		if (!again || once || i == TRIES || now_ms() - began > AT_ONCE_MS) {
			ret->later = later && ret->status == RESERVATION_ERROR;
			return;
		}
		(void)nanosleep(&(struct timespec){ .tv_nsec = AGAIN_MS * 1000000L }, NULL);
	}
}
