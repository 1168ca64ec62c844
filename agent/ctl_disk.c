/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/ctl_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define OPEN_MS 10000
#define IO_MS 10000 /* nobody's lease hangs on these */

struct ctl_disk {
	struct volume *volume;
	struct volume_io io;
	uint8_t *buf; /* CTL_DISK_CHUNK bytes, aligned */
	bool is_open, is_over; /* what the loop runs for */
	bool is_busy;          /* io is the volume's until settled */
	enum volume_result result;
	unsigned decided;      /* paths, as bits, of which it is known whether they lead there */
	char reason[VOLUME_REASON_LEN];
};

static qb_loop_t *the_loop(void)
{
	static qb_loop_t *loop;

	if (!loop)
		loop = qb_loop_create();
	CHECK(loop);
	return loop;
}

static void over(struct ctl_disk *d)
{
	d->is_over = true;
	qb_loop_stop(the_loop());
}

/* The first refusal is the answer: an operator can try again himself. */
static void on_state(struct volume *v, enum volume_state state, const char *reason, void *user)
{
	struct ctl_disk *d = user;

	d->is_open = state == VOLUME_READY;
	if (state == VOLUME_BACKOFF && !*d->reason)
		(void)str_copy(d->reason, sizeof(d->reason), reason);
	if (state != VOLUME_OPENING && !d->is_busy)
		over(d);
}

static void on_path(struct volume *v, unsigned i, void *user)
{
	struct ctl_disk *d = user;

	d->decided |= 1U << i;
	qb_loop_stop(the_loop());
}

static void on_done(struct volume_io *io, enum volume_result result)
{
	struct ctl_disk *d = io->user;

	d->result = result;
	if (result != VOLUME_OK)
		over(d); /* settled may never come */
}

static void on_settled(struct volume_io *io, enum volume_settle how)
{
	struct ctl_disk *d = io->user;

	d->is_busy = false;
	over(d);
}

int ctl_disk_open(const char *url, const struct conf *conf, bool read_only, struct ctl_disk **ret, char *err, size_t err_size)
{
	struct volume_options options = {
		.connect_timeout_ms = OPEN_MS, .read_only = read_only, .secret_file = conf->secret_file[0] ? conf->secret_file : NULL,
		.on_path = on_path,
	};
	struct ctl_disk *d = calloc(1, sizeof(*d));
	void *buf = NULL;
	int r;

	if (!d || posix_memalign(&buf, VOLUME_ALIGN, CTL_DISK_CHUNK) != 0) {
		free(d);
		(void)snprintf(err, err_size, "out of memory");
		return -ENOMEM;
	}
	d->buf = buf;
	r = volume_open(the_loop(), url, &options, on_state, d, &d->volume, err, err_size);
	if (r < 0) {
		ctl_disk_close(d);
		return r;
	}
	while (!d->is_over)
		qb_loop_run(the_loop());
	if (!d->is_open) {
		(void)snprintf(err, err_size, "%s", *d->reason ? d->reason : "cannot be opened");
		ctl_disk_close(d);
		return -EIO;
	}
	*ret = d;
	return 0;
}

void ctl_disk_close(struct ctl_disk *d)
{
	if (!d)
		return;
	volume_close(d->volume);
	if (d->is_busy)
		return; /* a system call still holds the buffer: left to the end of the process */
	free(d->buf);
	free(d);
}

uint64_t ctl_disk_size(const struct ctl_disk *d) { return volume_size(d->volume); }
const char *ctl_disk_url(const struct ctl_disk *d) { return volume_url(d->volume); }

unsigned ctl_disk_paths(struct ctl_disk *d, struct volume_path ret[VOLUME_PATHS_MAX])
{
	unsigned n = volume_paths(d->volume);

	while (d->decided != (1U << n) - 1) /* each is, no later than OPEN_MS after the open */
		qb_loop_run(the_loop());
	for (unsigned i = 0; i < n; i++)
		volume_path(d->volume, i, &ret[i]);
	return n;
}

static int transfer(struct ctl_disk *d, uint64_t offset, uint32_t len, bool write, char *err, size_t err_size)
{
	if (!d->is_open || d->is_busy) {
		(void)snprintf(err, err_size, "%s", *d->reason ? d->reason : "session lost");
		return -EIO;
	}
	d->is_over = false;
	d->is_busy = true;
	d->io = (struct volume_io){ .buf = d->buf, .offset = offset, .len = len, .timeout_ms = IO_MS, .done = on_done, .settled = on_settled, .user = d };
	if (write)
		volume_write(d->volume, &d->io);
	else
		volume_read(d->volume, &d->io);
	while (!d->is_over)
		qb_loop_run(the_loop());
	if (d->result == VOLUME_OK)
		return 0;
	d->is_open = false;
	(void)snprintf(d->reason, sizeof(d->reason), "%s at byte %" PRIu64 ": %s", write ? "writing" : "reading", offset, volume_why(d->volume, d->result));
	(void)snprintf(err, err_size, "%s", d->reason);
	return -EIO;
}

int ctl_disk_read(struct ctl_disk *d, uint64_t offset, void *buf, size_t len, char *err, size_t err_size)
{
	for (size_t at = 0; at < len; at += CTL_DISK_CHUNK) {
		uint32_t n = (uint32_t)MIN(len - at, CTL_DISK_CHUNK);
		int r = transfer(d, offset + at, n, false, err, err_size);

		if (r < 0)
			return r;
		memcpy((uint8_t *)buf + at, d->buf, n);
	}
	return 0;
}

int ctl_disk_write(struct ctl_disk *d, uint64_t offset, const void *buf, size_t len, char *err, size_t err_size)
{
	for (size_t at = 0; at < len; at += CTL_DISK_CHUNK) {
		uint32_t n = (uint32_t)MIN(len - at, CTL_DISK_CHUNK);
		int r;

		if (d->is_busy)
			return transfer(d, offset, n, true, err, err_size); /* refuses: the buffer is not ours */
		memcpy(d->buf, (const uint8_t *)buf + at, n);
		r = transfer(d, offset + at, n, true, err, err_size);
		if (r < 0)
			return r;
	}
	return 0;
}

static const uint8_t *slot_of(const uint8_t *table, unsigned i) { return table + format_heartbeat_offset(i / 2 + 1, i % 2); }

bool ctl_disk_is_ours(const uint8_t *table, unsigned i)
{
	static const uint8_t nobody[16];
	struct heartbeat hb;
	enum format_status st = heartbeat_decode(slot_of(table, i), i / 2 + 1, i % 2, nobody, &hb);

	return st != FORMAT_E_BLANK && st != FORMAT_E_FOREIGN;
}

int ctl_disk_who_lives(struct ctl_disk *d, const uint8_t *was, uint8_t *now, char *err, size_t err_size)
{
	int r = ctl_disk_read(d, 0, now, CTL_DISK_TABLE_LEN, err, err_size);

	for (unsigned i = 0; r == 0 && i < CTL_DISK_SLOTS; i++)
		if (memcmp(slot_of(now, i), slot_of(was, i), FORMAT_BLOCK) != 0 && ctl_disk_is_ours(now, i))
			return (int)(i / 2 + 1);
	return r;
}

int ctl_disk_superblock(struct ctl_disk *d, struct superblock *ret, enum format_status *st, char *err, size_t err_size)
{
	uint8_t block[2 * FORMAT_BLOCK];
	enum format_status second;
	int r;

	if (ctl_disk_size(d) < sizeof(block)) {
		(void)snprintf(err, err_size, "only %" PRIu64 " bytes long", ctl_disk_size(d));
		return -EIO;
	}
	r = ctl_disk_read(d, 0, block, sizeof(block), err, err_size);
	if (r < 0)
		return r;
	*st = superblock_decode(block, 0, NULL, ret);
	if (*st == FORMAT_OK)
		return 0;
	second = superblock_decode(block + FORMAT_BLOCK, 1, NULL, ret);
	if (second == FORMAT_OK || *st == FORMAT_E_BLANK || *st == FORMAT_E_FOREIGN)
		*st = second;
	return 0;
}
