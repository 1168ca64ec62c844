/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

#define RECONNECT_MS 50

struct keeper_link {
	struct agentd *d;
	int fd;
	uint64_t counter;
	qb_loop_timer_handle timer;
	struct keeper_msg in, out;
};

static void lose(struct keeper_link *k)
{
	struct agent_event ev = { .kind = AGENT_EV_NO_KEEPER };

	(void)qb_loop_poll_del(k->d->loop, k->fd);
	(void)close(k->fd);
	k->fd = -1;
	agentd_say(k->d, LOG_LEVEL_WARNING, "connection to the keeper lost; VMs go on, nothing is started until it is back");
	agentd_event(k->d, &ev);
	power_no_keeper(k->d->power);
	foreign_no_keeper(k->d->foreign);
}

/* Guests stall meanwhile, and QEMU may report their errors or pause them: no VM is at fault, and nothing here acts on it. */
static void take_hold(struct agentd *d, bool holding)
{
	struct timespec ts;

	if (holding == (d->hold_ms != 0))
		return;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	d->hold_ms = holding ? ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS : 0;
	agentd_hook(d, holding ? HOOK_HOLD_BEGIN : HOOK_HOLD_END, d->conf.self_id, NULL,
		    holding ? "no node reaches the volumes: VMs stay, nothing new starts" : "its lease goes by the volumes again, or has ended");
}

/* The keeper's word: its rounds touch every volume twice a heartbeat. */
static void take_troubles(struct agentd *d, const struct keeper_msg *m)
{
	static const enum hook_event hook[VOLUME_TROUBLE_COUNT] = {
		[VOLUME_WELL] = HOOK_VOLUME_GOOD,          [VOLUME_SLOW] = HOOK_VOLUME_SLOW,   [VOLUME_FAILING] = HOOK_VOLUME_FAILING,
		[VOLUME_READ_ONLY] = HOOK_VOLUME_READ_ONLY, [VOLUME_STALE] = HOOK_VOLUME_STALE, [VOLUME_FOREIGN] = HOOK_VOLUME_FOREIGN,
		[VOLUME_DEGRADED] = HOOK_VOLUME_DEGRADED,
	};
	int64_t now = clock_now_ns();
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	for (unsigned v = 0; v < d->conf.n_volumes; v++) {
		enum volume_trouble t = (enum volume_trouble)m->table.volume[v].trouble, before = d->trouble[v].now;
		int64_t since = m->table.volume[v].trouble_ns;
		char text[HOOKS_REASON_LEN];

		if ((unsigned)t >= VOLUME_TROUBLE_COUNT || t == before)
			continue;
		d->trouble[v].now = t;
		d->trouble[v].since_ms = ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS - (since > 0 && since < now ? (now - since) / NS_PER_MS : 0);
		if (t == VOLUME_WELL)
			(void)snprintf(text, sizeof(text), "well again; it was %s", volume_trouble_name(before));
		else
			(void)snprintf(text, sizeof(text), "%s%s%s", volume_trouble_name(t), *m->table.volume[v].reason ? ": " : "", m->table.volume[v].reason);
		agentd_say(d, t == VOLUME_WELL ? LOG_LEVEL_NOTICE : LOG_LEVEL_WARNING, "volume %s: %s", d->conf.volumes[v], text);
		agentd_volume_hook(d, hook[t], v, text);
	}
}

static int32_t on_keeper(int32_t fd, int32_t revents, void *data)
{
	struct keeper_link *k = data;
	struct agent_event ev = { .kind = AGENT_EV_TABLE, .table = &k->in };
	ssize_t n;

	for (unsigned i = 0; i < 64; i++) {
		n = recv(fd, &k->in, sizeof(k->in), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n != sizeof(k->in) || k->in.version != KEEPER_PROTO_VERSION) {
			lose(k);
			return 0;
		}
		if (k->in.kind == KEEPER_MSG_TEXT) {
			k->in.text.text[KEEPER_TEXT_LEN - 1] = '\0';
			agentd_say(k->d, (enum log_level)MIN(k->in.text.level, (uint32_t)LOG_LEVEL_DEBUG), "%s", k->in.text.text);
		} else if (k->in.kind == KEEPER_MSG_GATE) {
			k->in.gate.text[KEEPER_TEXT_LEN - 1] = '\0';
			foreign_gate(k->d->foreign, k->in.gate.ok, k->in.gate.text);
		} else if (k->in.kind == KEEPER_MSG_SILENT) {
			struct agent_event silent = { .kind = AGENT_EV_SILENT, .silent = &k->in.silent };

			agentd_event(k->d, &silent);
		} else if (k->in.kind == KEEPER_MSG_TABLE && k->in.table.node_limit <= FORMAT_MAX_NODES) {
			for (unsigned v = 0; v < FORMAT_MAX_VOLUMES; v++)
				k->in.table.volume[v].reason[KEEPER_TEXT_LEN - 1] = '\0';
			take_hold(k->d, k->in.table.holding);
			take_troubles(k->d, &k->in);
			if (k->d->sb && k->in.table.set_generation > k->d->sb->generation)
				agentd_set_changed(k->d);
			agentd_event(k->d, &ev);
			power_table(k->d->power);
			if (k->d->store)
				store_table(k->d->store);
		}
	}
	return 0;
}

static bool keeper_link_connect(struct keeper_link *k)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = KEEPER_SOCKET };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return false;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || qb_loop_poll_add(k->d->loop, QB_LOOP_HIGH, fd, POLLIN, k, on_keeper) != 0) {
		(void)close(fd);
		return false;
	}
	k->fd = fd;
	log_info("connected to the keeper");
	return true;
}

/* Every T_hb: proves that this agent lives, whatever else it does. */
static void on_tick(void *data)
{
	struct keeper_link *k = data;
	bool up = k->fd >= 0 || keeper_link_connect(k);

	k->counter++;
	if (up)
		keeper_link_facts(k);
	if (up && k->d->core_runs && k->d->core.have_catalog && k->d->core.have_table && k->d->core.table.table.want_armed != k->d->catalog->armed &&
	    k->counter % 4 == 0)
		keeper_link_send(k, k->d->catalog->armed ? KEEPER_MSG_ARM : KEEPER_MSG_DISARM);
	(void)qb_loop_timer_add(k->d->loop, QB_LOOP_HIGH, (up ? k->d->conf.timing.hb_ms : RECONNECT_MS) * NS_PER_MS, k, on_tick, &k->timer);
}

static bool send_out(struct keeper_link *k, enum keeper_msg_kind kind)
{
	if (k->fd < 0)
		return false;
	k->out.version = KEEPER_PROTO_VERSION;
	k->out.kind = kind;
	return send(k->fd, &k->out, sizeof(k->out), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(k->out);
}

void keeper_link_send(struct keeper_link *k, enum keeper_msg_kind kind) { (void)send_out(k, kind); }

bool keeper_link_evidence(struct keeper_link *k, enum keeper_msg_kind kind, const struct keeper_evidence *ev)
{
	memset(&k->out, 0, sizeof(k->out));
	k->out.evidence = *ev;
	return send_out(k, kind);
}

void keeper_link_facts(struct keeper_link *k)
{
	const struct agent *a = &k->d->core;

	if (!k->d->core_runs)
		return;
	memset(&k->out, 0, sizeof(k->out));
	k->out.facts.counter = k->counter;
	k->out.facts.claims_seq = a->claimer.acked_seq;
	if (k->d->catalog) {
		k->out.facts.catalog_generation = k->d->catalog->generation;
		k->out.facts.catalog_seq = k->d->catalog->seq;
	}
	keeper_link_send(k, KEEPER_MSG_AGENT);
}

bool keeper_link_adopt(struct keeper_link *k, const uint8_t uuid[16], pid_t pid, uint64_t start, uint32_t epoch, uint64_t term)
{
	memset(&k->out, 0, sizeof(k->out));
	memcpy(k->out.adopt.vm, uuid, 16);
	k->out.adopt.pid = pid;
	k->out.adopt.start = start;
	k->out.adopt.epoch = epoch;
	k->out.adopt.term = term;
	keeper_link_send(k, KEEPER_MSG_ADOPT);
	return k->fd >= 0;
}

bool keeper_link_up(const struct keeper_link *k) { return k->fd >= 0; }

int keeper_link_new(struct agentd *d, struct keeper_link **ret)
{
	struct keeper_link *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->d = d;
	k->fd = -1;
	*ret = k;
	return qb_loop_timer_add(d->loop, QB_LOOP_HIGH, 0, k, on_tick, &k->timer);
}
