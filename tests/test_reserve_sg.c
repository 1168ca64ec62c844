/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent reservations through the kernel, with a kernel of the test's own: which paths a disk has, what SG_IO is told, and what its answers are read as. */
#include <errno.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "storage/reserve_sg.h"
#include "tests/tap.h"

/* ---- SG_IO ---- */

#define KERNEL_FLOOR_MS 7000 /* BLK_MIN_SG_TIMEOUT: what is less is made that */
#define KERNEL_LATE_MS 1530  /* blk_add_timer: a second of at most 1024 ms is waited for, and half of one more if a timer runs already */

static struct { int fails, attentions, busy; unsigned status, host, driver, resid; uint8_t sense[32], data[64]; unsigned char sense_len, data_len; } kernel;
static struct { unsigned n, len, timeout_ms; uint8_t cdb[10], out[RESERVATION_OUT_LEN]; int direction; } seen;

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct sg_io_hdr *io;
	va_list ap;

	va_start(ap, request);
	io = va_arg(ap, struct sg_io_hdr *);
	va_end(ap);
	if (fd != 7 || request != SG_IO || kernel.fails) {
		errno = kernel.fails ? kernel.fails : ENOTTY;
		return -1;
	}
	seen.n++;
	seen.len = io->dxfer_len;
	seen.timeout_ms = io->timeout;
	seen.direction = io->dxfer_direction;
	memcpy(seen.cdb, io->cmdp, sizeof(seen.cdb));
	if (io->dxfer_direction == SG_DXFER_TO_DEV)
		memcpy(seen.out, io->dxferp, sizeof(seen.out));
	if (kernel.attentions > 0) {
		static const uint8_t attention[18] = { 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 3 };

		kernel.attentions--;
		io->status = 2;
		memcpy(io->sbp, attention, sizeof(attention));
		io->sb_len_wr = sizeof(attention);
		io->driver_status = 8;
		return 0;
	}
	io->status = kernel.busy-- > 0 ? 8 : (unsigned char)kernel.status;
	io->host_status = (unsigned short)kernel.host;
	io->driver_status = (unsigned short)kernel.driver;
	memcpy(io->sbp, kernel.sense, kernel.sense_len);
	io->sb_len_wr = kernel.sense_len;
	io->resid = (int)kernel.resid;
	if (io->dxfer_direction == SG_DXFER_FROM_DEV) {
		memcpy(io->dxferp, kernel.data, kernel.data_len);
		io->resid = (int)(io->dxfer_len - kernel.data_len);
	}
	return 0;
}

static struct reservation_answer ask(enum reservation_command_kind kind)
{
	static struct reservation_answer a;
	struct reservation_command c = { .kind = kind, .key = 0x0102030405060708ULL, .service_key = 0x1112131415161718ULL, .aptpl = true };

	seen.n = 0;
	reserve_sg_send(7, &c, &a);
	return a;
}

static void test_send(void)
{
	static const uint8_t keys[16] = { 0, 0, 0, 1, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct reservation_answer a = ask(RESERVATION_PREEMPT_ABORT);

	TAP_OK(a.status == RESERVATION_GOOD && seen.n == 1 && seen.cdb[0] == 0x5f && seen.cdb[1] == 5 && seen.cdb[2] == RESERVATION_WERO && seen.cdb[8] == 24 && seen.len == 24 &&
		       seen.direction == SG_DXFER_TO_DEV && seen.out[0] == 1 && seen.out[8] == 0x11 && seen.out[20] == 1, "PREEMPT AND ABORT, of the type");
	TAP_OK(seen.timeout_ms >= KERNEL_FLOOR_MS && seen.timeout_ms + KERNEL_LATE_MS < RESERVE_SG_ANSWER_MS, "who waits for an answer hears of a time-out, too: the kernel's floor is heeded");
	(void)ask(RESERVATION_REGISTER_IGNORE);
	TAP_OK(seen.cdb[1] == 6 && seen.cdb[2] == 0, "REGISTER AND IGNORE EXISTING KEY, of none");
	memcpy(kernel.data, keys, sizeof(keys));
	kernel.data_len = sizeof(keys);
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_GOOD && a.keys.n == 1 && a.keys.key[0] == 0x0102030405060708ULL && seen.cdb[0] == 0x5e && seen.cdb[1] == 0 &&
		       (unsigned)(seen.cdb[7] << 8 | seen.cdb[8]) == seen.len, "READ KEYS: a key");
	kernel.data_len = 12;
	TAP_OK(ask(RESERVATION_READ_KEYS).status == RESERVATION_ERROR, "cut off: no answer");
	kernel.data_len = 16;
	kernel.attentions = 3;
	TAP_OK(ask(RESERVATION_READ_KEYS).status == RESERVATION_GOOD && seen.n == 4, "unit attentions: sent again");
	kernel.attentions = 1000;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && a.later && seen.n < 20, "nothing else: given up for now");
	kernel.attentions = 0;
	kernel.status = 0x18;
	kernel.host = 0x11;
	TAP_OK(ask(RESERVATION_RESERVE).status == RESERVATION_CONFLICT, "a conflict, though the kernel has a host status for it, too");
	kernel.status = 0;
	a = ask(RESERVATION_RESERVE);
	TAP_OK(a.status == RESERVATION_ERROR && !a.later, "a host status alone: nothing is known");
	kernel.host = 0x03;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && !a.later, "a time-out of the host's: nor of whether the device knows the command");
	kernel.host = 0x0e;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && a.later, "the transport is disrupted: for now");
	kernel.host = 0;
	kernel.driver = 6;
	a = ask(RESERVATION_RESERVE);
	TAP_OK(a.status == RESERVATION_ERROR && !a.later, "a time-out: nothing is known");
	kernel.driver = 0;
	kernel.status = 8;
	a = ask(RESERVATION_RESERVE);
	TAP_OK(a.status == RESERVATION_ERROR && a.later && seen.n == 3, "busy, three times: given up for now");
	kernel.status = 0x28;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && a.later, "its task set is full: for now");
	kernel.status = 0;
	kernel.busy = 2;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_GOOD && !a.later && seen.n == 3, "busy twice: sent again");
	kernel.busy = 2;
	kernel.driver = 6;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && a.later && seen.n == 3, "busy, and then a time-out: it has answered, and may another time");
	kernel.driver = 0;
	kernel.busy = 1;
	TAP_OK(ask(RESERVATION_PREEMPT).status == RESERVATION_ERROR && seen.n == 1, "but not PREEMPT");
	kernel.fails = ENOTTY;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && !a.later, "no SCSI device");
	kernel.fails = ENODEV;
	a = ask(RESERVATION_READ_KEYS);
	TAP_OK(a.status == RESERVATION_ERROR && a.later, "one that is offline: for now");
	kernel.fails = 0;
}

static void test_sense(void)
{
	static const struct { uint8_t sense[18]; size_t len; bool again; enum reservation_status status; bool later; const char *what; } cases[] = {
		{ { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20 }, 18, false, RESERVATION_REFUSED, false, "operation code" },
		{ { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24 }, 18, false, RESERVATION_REFUSED, false, "field in the CDB" },
		{ { 0x72, 5, 0x24, 0 }, 8, false, RESERVATION_REFUSED, false, "the same in descriptors" },
		{ { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x26 }, 18, false, RESERVATION_ILLEGAL, false, "parameters: the command is known" },
		{ { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x55 }, 18, false, RESERVATION_ILLEGAL, false, "no room for registrations" },
		{ { 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29 }, 18, true, RESERVATION_ERROR, true, "reset" },
		{ { 0x72, 6, 0x2a, 5 }, 8, true, RESERVATION_ERROR, true, "registrations preempted" },
		{ { 0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 0x0a }, 18, false, RESERVATION_ERROR, true, "not ready: asymmetric access in transition" },
		{ { 0x72, 0xb, 0x47, 0 }, 8, false, RESERVATION_ERROR, true, "aborted command" },
		{ { 0x70, 0, 4, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44 }, 18, false, RESERVATION_ERROR, false, "hardware error" },
		{ { 0x70, 0, 5 }, 3, false, RESERVATION_ERROR, false, "cut off" },
		{ { 0x72, 5 }, 2, false, RESERVATION_ERROR, false, "cut off in descriptors" },
		{ { 0 }, 0, false, RESERVATION_ERROR, false, "none" },
		{ { 0x7f, 6, 0x20 }, 18, false, RESERVATION_ERROR, false, "a vendor's own" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		static struct reservation_answer a;
		bool again = reserve_sg_status(2, cases[i].sense, cases[i].len, &a);

		TAP_OK(again == cases[i].again && a.status == cases[i].status && a.later == cases[i].later, "sense data: %s", cases[i].what);
	}
}

/* ---- sysfs ---- */

static char top[128];

static void shell(const char *fmt, ...) _printf_(1, 2);
static void shell(const char *fmt, ...)
{
	char text[1000], line[1200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)snprintf(line, sizeof(line), "cd %s && %s", top, text);
	if (system(line) != 0)
		printf("# failed: %s\n", line);
}

static bool node(const char *name, unsigned minor_number, char ret[160])
{
	(void)snprintf(ret, 160, "%s/%s", top, name);
	return mknod(ret, S_IFBLK | 0600, makedev(8, minor_number)) == 0;
}

static void test_devices(void)
{
	char sd[160], part[160], mpath[160], half[160], lv[160], nvme[160], sys[160], why[RESERVE_SG_WHY_LEN];
	struct reserve_sg_lun lun;

	(void)snprintf(sys, sizeof(sys), "%s/sys", top);
	if (!node("sda", 0, sd) || !node("sda1", 1, part) || !node("mpatha", 2, mpath) || !node("mpathb", 3, half) || !node("lv", 4, lv) || !node("nvme", 5, nvme)) {
		printf("# no device nodes can be made here: what is behind them is not tried\n");
		return;
	}
	shell("mkdir -p sys/bus/scsi sys/bus/nvme sys/dev/block sys/block");
	for (char c = 'a'; c <= 'c'; c++)
		shell("mkdir -p sys/block/sd%c/device sys/block/nvme0n1/device && ln -s ../../../bus/scsi sys/block/sd%c/device/subsystem", c, c);
	shell("ln -s ../../../bus/nvme sys/block/nvme0n1/device/subsystem");
	shell("mkdir sys/block/sda/sda1 && echo 1 >sys/block/sda/sda1/partition");
	shell("for d in dm-0 dm-1 dm-2; do mkdir -p sys/block/$d/dm sys/block/$d/slaves; done; echo mpath-3600 >sys/block/dm-0/dm/uuid; echo mpath-3601 >sys/block/dm-1/dm/uuid; "
	      "echo LVM-abc >sys/block/dm-2/dm/uuid");
	shell("ln -s ../../sdb sys/block/dm-0/slaves/sdb && ln -s ../../sdc sys/block/dm-0/slaves/sdc && ln -s ../../sdb sys/block/dm-1/slaves/sdb && "
	      "ln -s ../../nvme0n1 sys/block/dm-1/slaves/nvme0n1");
	shell("ln -s ../../block/sda sys/dev/block/8:0; ln -s ../../block/sda/sda1 sys/dev/block/8:1; ln -s ../../block/dm-0 sys/dev/block/8:2; "
	      "ln -s ../../block/dm-1 sys/dev/block/8:3; ln -s ../../block/dm-2 sys/dev/block/8:4; ln -s ../../block/nvme0n1 sys/dev/block/8:5");
	TAP_OK(reserve_sg_find(sd, sys, &lun, why) == RESERVE_SG_FOUND && lun.n == 1 && streq(lun.path[0], "/dev/sda"), "a SCSI disk is its only path");
	TAP_OK(reserve_sg_find(part, sys, &lun, why) == RESERVE_SG_NEVER && strstr(why, "partition"), "a partition cannot be reserved");
	TAP_OK(reserve_sg_find(mpath, sys, &lun, why) == RESERVE_SG_FOUND && lun.n == 2 && !streq(lun.path[0], lun.path[1]), "a multipath: each path");
	TAP_OK(lun.down == 0, "none of which is known to be down");
	shell("echo running >sys/block/sdb/device/state && echo transport-offline >sys/block/sdc/device/state");
	TAP_OK(reserve_sg_find(mpath, sys, &lun, why) == RESERVE_SG_FOUND && lun.n == 2 && lun.down == 1u << streq(lun.path[1], "/dev/sdc"), "one that the kernel has given up is told");
	shell("rm sys/block/sdc/device/subsystem");
	TAP_OK(reserve_sg_find(mpath, sys, &lun, why) == RESERVE_SG_NOT_NOW, "one that is just being removed: not now");
	shell("rm sys/block/dm-0/slaves/*");
	TAP_OK(reserve_sg_find(mpath, sys, &lun, why) == RESERVE_SG_NOT_NOW, "a multipath without a path: not now");
	TAP_OK(reserve_sg_find(half, sys, &lun, why) == RESERVE_SG_NEVER, "one of whose paths is no SCSI disk: not at all");
	TAP_OK(reserve_sg_find(lv, sys, &lun, why) == RESERVE_SG_NEVER && strstr(why, "device-mapper"), "a logical volume cannot");
	TAP_OK(reserve_sg_find(nvme, sys, &lun, why) == RESERVE_SG_NEVER && strstr(why, "no SCSI disk"), "nor NVMe");
}

int main(void)
{
	struct reserve_sg_lun lun;
	char why[RESERVE_SG_WHY_LEN], template[] = "/tmp/reserve_sg.XXXXXX";

	test_send();
	test_sense();
	TAP_OK(reserve_sg_find("iscsi://h/iqn.2026-01.x/1", "/sys", &lun, why) == RESERVE_SG_NEVER && strstr(why, "QEMU opens it"), "a disk of QEMU's own initiator cannot be reserved");
	TAP_OK(reserve_sg_find("/nonexistent", "/sys", &lun, why) == RESERVE_SG_ABSENT && strstr(why, "not there"), "one that is not there may be there the next time");
	TAP_OK(reserve_sg_find("/etc/passwd", "/sys", &lun, why) == RESERVE_SG_NEVER && strstr(why, "no block device"), "nor a file");
	if (mkdtemp(template)) {
		(void)snprintf(top, sizeof(top), "%s", template);
		test_devices();
		shell("rm -rf %s", top);
	}
	return tap_done();
}
