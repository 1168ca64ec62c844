/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "fence/daemon.h"

static void note(struct volop *op, bool write)
{
	static const enum trouble_result of[] = { [VOLUME_OK] = TROUBLE_RESULT_OK, [VOLUME_E_READONLY] = TROUBLE_RESULT_READ_ONLY };
	struct daemon *d = op->user;
	int64_t now = clock_now_ns();
	char *text = d->refusal[op->volume][write];

	if (op->result == VOLUME_OK)
		text[0] = '\0';
	else
		(void)snprintf(text, KEEPER_TEXT_LEN, "a %s: %s", write ? "write" : "read", volume_why(volset_volume(d->volset, op->volume), op->result));
	trouble_operation(&d->trouble[op->volume], write, op->result == VOLUME_OK || op->result == VOLUME_E_READONLY ? of[op->result] : TROUBLE_RESULT_FAILED,
			  (uint64_t)((now - op->begun_ns) / NS_PER_MS), d->conf.volume_slow_ms, now);
}

static enum volume_trouble content(const struct daemon *d, unsigned v)
{
	enum volume_fault fault = d->core_runs ? d->core.volume[v].fault : FAULT_NONE;
	enum volset_state state = volset_state(d->volset, v);

	if (fault == FAULT_WIPED || fault == FAULT_FOREIGN || fault == FAULT_SLOT_TAKEN || state == VOLSET_FOREIGN)
		return VOLUME_FOREIGN;
	return fault == FAULT_ROLLED_BACK || fault == FAULT_STALE || state == VOLSET_STALE ? VOLUME_STALE : VOLUME_WELL;
}

void daemon_troubles(struct daemon *d)
{
	int64_t now = clock_now_ns();
	bool changed = false;

	for (unsigned v = 0; v < d->conf.n_volumes; v++) {
		struct trouble *t = &d->trouble[v];
		char path[KEEPER_TEXT_LEN];

		trouble_path(t, volset_lost_path(d->volset, v, path, sizeof(path)), now);
		trouble_volume(t, volset_state(d->volset, v) == VOLSET_AWAY, content(d, v), now);
		if (!trouble_judge(t, d->conf.volume_failing_ms, now))
			continue;
		changed = true;
		if (t->now == VOLUME_WELL)
			log_notice("volume %s: well again", d->conf.volumes[v]);
		else
			log_warning("volume %s is %s%s%s", d->conf.volumes[v], volume_trouble_name(t->now), *path ? ": " : "", path);
	}
	if (changed)
		daemon_tell(d, &d->core);
}

static void write_done(struct volop *op, bool ok, bool definite)
{
	struct keeper_event ev = { .kind = KEEPER_EV_WRITE_DONE, .volume = op->volume, .ok = ok, .definite = definite };

	note(op, true);
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

	note(op, false);
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
	daemon_event(d, &(struct keeper_event){ .kind = KEEPER_EV_WRITE_DONE, .volume = volume, .definite = true });
}

void daemon_read(void *edge, unsigned volume)
{
	struct daemon *d = edge;

	volop_read(&d->read_op[volume], volset_volume(d->volset, volume), 0, format_table_len(d->sb->node_limit), d->conf.timing.io_ms);
}
