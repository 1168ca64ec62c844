/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/daemon.h"

static void write_done(struct volop *op, bool ok, bool definite)
{
	struct keeper_event ev = { .kind = KEEPER_EV_WRITE_DONE, .volume = op->volume, .ok = ok, .definite = definite };

	daemon_event(op->user, &ev);
}

static void write_settled(struct volop *op, bool completed)
{
	struct keeper_event ev = { .kind = KEEPER_EV_WRITE_SETTLED, .volume = op->volume, .ok = completed };

	daemon_event(op->user, &ev);
}

static void read_done(struct volop *op, bool ok, bool definite)
{
	struct keeper_event ev = { .kind = KEEPER_EV_READ_DONE, .volume = op->volume, .ok = ok, .definite = definite, .data = op->io.buf };

	daemon_event(op->user, &ev);
}

static void read_settled(struct volop *op, bool completed)
{
	struct keeper_event ev = { .kind = KEEPER_EV_READ_SETTLED, .volume = op->volume, .ok = completed };

	daemon_event(op->user, &ev);
}

void daemon_volumes_init(struct daemon *d)
{
	for (unsigned v = 0; v < d->conf.n_volumes; v++) {
		for (unsigned i = 0; i < DAEMON_WRITE_OPS; i++)
			volop_init(&d->write_op[v][i], v, FORMAT_BLOCK, write_done, write_settled, d);
		volop_init(&d->read_op[v], v, format_table_len(d->sb->node_limit), read_done, read_settled, d);
	}
}

void daemon_write(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block)
{
	struct daemon *d = edge;

	for (unsigned i = 0; i < DAEMON_WRITE_OPS; i++) {
		struct volop *op = &d->write_op[volume][i];

		if (op->busy)
			continue;
		heartbeat_encode(block, d->sb->cluster, buffer, op->io.buf);
		volop_write(op, volset_volume(d->volset, volume), format_heartbeat_offset(block->node, buffer), FORMAT_BLOCK, d->conf.timing.io_ms);
		return;
	}
	/* Every buffer is with an operation that has not returned: nothing was issued. */
	write_done(&d->write_op[volume][0], false, true);
}

void daemon_read(void *edge, unsigned volume)
{
	struct daemon *d = edge;

	volop_read(&d->read_op[volume], volset_volume(d->volset, volume), 0, format_table_len(d->sb->node_limit), d->conf.timing.io_ms);
}
