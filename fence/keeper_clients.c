/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/uuid.h"
#include "fence/daemon.h"

static void client_close(struct client *c)
{
	(void)qb_loop_poll_del(c->d->loop, c->fd);
	(void)close(c->fd);
	if (c->d->agent == c)
		c->d->agent = NULL;
	c->fd = -1;
	c->is_agent = false;
}

static void client_send(struct client *c)
{
	struct keeper_msg *m = &c->d->msg;

	m->version = KEEPER_PROTO_VERSION;
	/* A client that does not read misses news; it never makes the keeper wait. */
	(void)send(c->fd, m, sizeof(*m), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void daemon_text(struct daemon *d, int level, const char *fmt, ...)
{
	va_list ap;

	memset(&d->msg, 0, sizeof(d->msg));
	d->msg.kind = KEEPER_MSG_TEXT;
	d->msg.text.level = (uint32_t)level;
	va_start(ap, fmt);
	(void)vsnprintf(d->msg.text.text, sizeof(d->msg.text.text), fmt, ap);
	va_end(ap);
	log_line((enum log_level)level, "%s", d->msg.text.text);
	if (d->agent)
		client_send(d->agent);
}

/* NULL: whoever was claimed under them may run. */
static const char *gate_refuses(const struct daemon *d, uint32_t epoch, uint64_t term)
{
	if (!d->core_runs)
		return "the keeper has no quorum of the volumes yet";
	if (!keeper_gate_open(&d->core, epoch, clock_now_ns()) || d->stopping)
		return "the gate is closed: this node's lease does not live, its agent is silent, or the claim is of an earlier epoch";
	if (!keeper_gate_admits(&d->core, epoch, term, clock_now_ns()))
		return "the gate was closed since this VM was claimed: the agent must look again whether it still is this node's";
	return NULL;
}

static void gate_answers(struct client *c, const char *why)
{
	struct daemon *d = c->d;

	memset(&d->msg, 0, sizeof(d->msg));
	d->msg.kind = KEEPER_MSG_GATE;
	d->msg.gate.ok = why == NULL;
	(void)str_copy(d->msg.gate.text, sizeof(d->msg.gate.text), why ? why : "");
	client_send(c);
}

static void gate(struct client *c, const struct keeper_msg *m)
{
	const char *why = gate_refuses(c->d, m->reg.epoch, m->reg.term);
	char vm[UUID_STR_LEN];
	int r = 0;

	uuid_format(m->reg.vm, vm);
	if (!why && (r = vmslice_register(c->d->slice, c->pid, m->reg.vm)) < 0)
		why = strerror(-r);
	log_info("VM %s: process %d %s%s", vm, (int)c->pid, why ? "refused at the gate: " : "passes the gate", why ? why : "");
	gate_answers(c, why);
}

/* The gate for a QEMU that runs already: from the yes on it is killed with all others. */
static void adopt(struct client *c, const struct keeper_msg *m)
{
	bool on = m->adopt.epoch != 0;
	const char *why = on ? gate_refuses(c->d, m->adopt.epoch, m->adopt.term) : NULL;
	char vm[UUID_STR_LEN];
	int r = 0;

	if (c->d->agent != c)
		return;
	uuid_format(m->adopt.vm, vm);
	if (!why) {
		r = on ? vmslice_adopt(c->d->slice, m->adopt.pid, m->adopt.start, m->adopt.vm) : vmslice_disown(c->d->slice, m->adopt.pid);
		why = r < 0 ? strerror(-r) : NULL;
	}
	log_info("VM %s: running process %d %s%s", vm, (int)m->adopt.pid, why ? "refused at the gate: " : on ? "adopted" : "not adopted after all", why ? why : "");
	if (on)
		gate_answers(c, why);
}

static void arm(struct client *c, bool on)
{
	struct daemon *d = c->d;
	struct keeper_event ev = { .kind = on ? KEEPER_EV_ARM : KEEPER_EV_DISARM };

	if (!d->core_runs)
		return; /* the agent repeats it */
	if (on && d->conf.require_ring_encryption && d->ring_up && !d->ring_encrypted) {
		daemon_text(d, LOG_LEVEL_ERR,
			    "not armed: the corosync ring is not encrypted; set crypto_cipher and crypto_hash in corosync.conf, or [Ring] RequireEncryption=no");
		return;
	}
	if (on && !d->ring_up && !d->core.want_armed && d->conf.require_ring_encryption) {
		daemon_text(d, LOG_LEVEL_WARNING, "not armed yet: no connection to corosync, so its encryption cannot be checked");
		return;
	}
	if (on == d->core.want_armed)
		return;
	daemon_event(d, &ev);
}

/* The keeper believes its own root agent as it believes an operator; of what counts it keeps the say (fence/evidence.c). */
static void fence(struct client *c, const struct keeper_msg *m)
{
	struct keeper_event ev = { .kind = m->kind == KEEPER_MSG_FENCE ? KEEPER_EV_FENCE : KEEPER_EV_EVIDENCE, .evidence = m->evidence };

	if (c->d->agent == c && c->d->core_runs)
		daemon_event(c->d, &ev);
}

static void take_message(struct client *c, const struct keeper_msg *m)
{
	struct daemon *d = c->d;
	struct keeper_event ev = { .kind = KEEPER_EV_AGENT };
	bool anew;

	switch (m->kind) {
	case KEEPER_MSG_AGENT:
		anew = d->agent != c;
		if (anew) {
			if (d->agent)
				client_close(d->agent);
			d->agent = c;
			c->is_agent = true;
			log_info("agent connected (process %d)", (int)c->pid);
		}
		ev.agent = m->facts;
		if (d->core_runs)
			daemon_event(d, &ev);
		if (anew || !d->core_runs)
			daemon_tell(d, &d->core); /* else every round does */
		break;
	case KEEPER_MSG_ARM:
	case KEEPER_MSG_DISARM:
		arm(c, m->kind == KEEPER_MSG_ARM);
		break;
	case KEEPER_MSG_EVIDENCE:
	case KEEPER_MSG_FENCE:
		fence(c, m);
		break;
	case KEEPER_MSG_REGISTER:
		gate(c, m);
		break;
	case KEEPER_MSG_ADOPT:
		adopt(c, m);
		break;
	default:
		log_warning("process %d sent a message of unknown kind %u: disconnected", (int)c->pid, m->kind);
		client_close(c);
	}
}

static int32_t on_client(int32_t fd, int32_t revents, void *data)
{
	static struct keeper_msg m;
	struct client *c = data;
	ssize_t n = recv(fd, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n != sizeof(m) || m.version != KEEPER_PROTO_VERSION) {
		if (n > 0)
			log_warning("process %d speaks another version of the protocol: is it of another kvm-ha release? disconnected", (int)c->pid);
		client_close(c);
		return 0;
	}
	take_message(c, &m);
	return 0;
}

static int32_t on_connect(int32_t fd, int32_t revents, void *data)
{
	struct daemon *d = data;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (client < 0)
		return 0;
	if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == 0) {
		for (unsigned i = 0; i < DAEMON_MAX_CLIENTS; i++) {
			struct client *c = &d->client[i];

			if (c->fd >= 0)
				continue;
			*c = (struct client){ .d = d, .fd = client, .pid = cred.pid };
			if (qb_loop_poll_add(d->loop, QB_LOOP_MED, client, POLLIN, c, on_client) == 0)
				return 0;
			c->fd = -1;
			break;
		}
	}
	(void)close(client);
	return 0;
}

int daemon_listen(struct daemon *d)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = KEEPER_SOCKET };
	int fd, r;

	for (unsigned i = 0; i < DAEMON_MAX_CLIENTS; i++)
		d->client[i].fd = -1;
	(void)mkdir("/run/kvm-ha", 0755);
	(void)unlink(KEEPER_SOCKET);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(KEEPER_SOCKET, 0600) < 0 || listen(fd, 128) < 0) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	d->listen_fd = fd;
	return qb_loop_poll_add(d->loop, QB_LOOP_MED, fd, POLLIN, d, on_connect);
}

static void fill_node(const struct daemon *d, const struct keeper *k, uint32_t id, struct keeper_table_node *ret)
{
	const struct table_node *n = &k->node[id - 1];
	bool self = id == k->opt.self;

	*ret = (struct keeper_table_node){
		.epoch = self ? k->epoch : n->hb.epoch,
		.over = self ? (k->epoch ? k->epoch - 1 : 0) : n->over_published,
		.known = self || n->known,
		.fresh = self ? keeper_gate_open(k, k->epoch, k->now_ns) : n->fresh,
		.state = self ? k->mine.state : n->hb.state,
		.ring = self ? k->ring : n->hb.ring,
		.reason = n->reason,
		.committed = k->mine.commit[id - 1] != 0 ? 2 : k->mine.intent[id - 1] != 0,
		.in_view = k->ring_up && (k->view >> (id - 1) & 1),
		.silence_is_no_proof = (self ? k->mine.wd_ms : n->hb.wd_ms) == FORMAT_SILENCE_IS_NO_PROOF,
		.agent_counter = self ? k->agent.counter : n->hb.agent_counter,
		.claims_seq = self ? k->agent.claims_seq : n->hb.claims_seq,
		.catalog_generation = self ? k->agent.catalog_generation : n->hb.catalog_generation,
		.catalog_seq = self ? k->agent.catalog_seq : n->hb.catalog_seq,
		.silent_seq = !self && n->known && n->hb.silent ? n->hb.seq : 0,
		.asked_epoch = n->asked.epoch,
		.asked_seq = n->asked.seq,
	};
}

static void tell_silent(struct daemon *d, const struct heartbeat *hb)
{
	struct keeper_silent *s = &d->msg.silent;

	memset(&d->msg, 0, sizeof(d->msg));
	d->msg.kind = KEEPER_MSG_SILENT;
	*s = (struct keeper_silent){ .node = hb->node, .epoch = hb->epoch, .seq = hb->seq, .n = hb->n_marks };
	memcpy(s->mark, hb->mark, sizeof(s->mark));
	client_send(d->agent);
}

void daemon_tell(void *edge, const struct keeper *k)
{
	struct daemon *d = edge;
	struct keeper_msg *m = &d->msg;

	if (!d->agent)
		return;
	for (uint32_t id = 1; d->core_runs && id <= k->opt.node_limit; id++)
		if (id != k->opt.self && k->node[id - 1].known && k->node[id - 1].hb.silent)
			tell_silent(d, &k->node[id - 1].hb);
	memset(m, 0, sizeof(*m));
	m->kind = KEEPER_MSG_TABLE;
	m->table.at_ns = clock_host_ns();
	m->table.self = d->conf.self_id;
	m->table.ring_encrypted = d->ring_encrypted;
	m->table.n_volumes = (uint32_t)d->conf.n_volumes;
	m->table.vms = vmslice_count(d->slice);
	for (unsigned v = 0; v < d->conf.n_volumes; v++) {
		m->table.volume[v].good = volset_good(d->volset, v);
		(void)str_copy(m->table.volume[v].reason, KEEPER_TEXT_LEN, volset_reason(d->volset, v));
		if (!*m->table.volume[v].reason && (d->trouble[v].now == VOLUME_FAILING || d->trouble[v].now == VOLUME_READ_ONLY))
			(void)str_copy(m->table.volume[v].reason, KEEPER_TEXT_LEN, d->refusal[v][*d->refusal[v][true] ? true : false]);
		if (d->trouble[v].now == VOLUME_DEGRADED)
			(void)volset_lost_path(d->volset, v, m->table.volume[v].reason, KEEPER_TEXT_LEN);
		m->table.volume[v].trouble = d->trouble[v].now;
		m->table.volume[v].trouble_ns = d->trouble[v].since_ns;
	}
	if (d->core_runs) {
		m->table.node_limit = k->opt.node_limit;
		m->table.set_generation = k->opt.set.generation;
		m->table.epoch = k->published ? k->epoch : 0;
		m->table.state = k->state;
		m->table.gate_open = keeper_gate_open(k, k->epoch, k->now_ns) && !d->stopping;
		m->table.gate_term = m->table.gate_open ? k->gate.term : 0;
		m->table.read_seq = k->read_seq;
		m->table.release_reason = k->release;
		m->table.release_by = k->release_by;
		m->table.want_armed = k->want_armed;
		m->table.wd_running = k->wd_running;
		m->table.holding = k->hold.since_ns != 0;
		m->table.observed = k->last_observed_ns != 0;
		m->table.ring = k->ring;
		m->table.view = k->view;
		m->table.braked = k->braked;
		for (unsigned v = 0; v < d->conf.n_volumes; v++) {
			m->table.volume[v].ready = k->volume[v].ready;
			m->table.volume[v].fault = k->volume[v].fault;
		}
		for (uint32_t id = 1; id <= k->opt.node_limit; id++)
			fill_node(d, k, id, &m->table.node[id - 1]);
	}
	client_send(d->agent);
}
