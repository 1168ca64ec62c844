/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keepers on shared in-memory volumes, on virtual time, through the shipped dispatch. Deterministic: no threads, no random
 * numbers; what happens is what the scenario says, one event at a time, earliest first.
 *
 * A node has a watchdog (it resets the node when it runs out), a process (which may crash, pause and start again), VMs (they
 * run from the moment the gate is open, under its epoch) and a path to each volume, which may be slow, hang, refuse, be gone
 * or deliver a write late.
 *
 * After every step sim_check() looks at the invariants of DESIGN: nothing runs under an epoch that is proven over (S3), pets
 * <= renewals + 1 (S4), no write while another of the same node to the same volume may still land (S5), (epoch, seq) only grow
 * (S6), no block says "armed" without a running watchdog, nobody is reset who could have released (only counted), and time
 * goes on (no busy loop). */
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include "fence/dispatch.h"

#define SIM_NODES 4
#define SIM_VOLUMES 3
#define SIM_IOS 64
#define SIM_MAILS 64
#define SIM_MS(ms) ((int64_t)(ms) * NS_PER_MS)
#define SIM_TABLE ((2 + 2 * SIM_NODES) * FORMAT_BLOCK)
#define SIM_NEVER INT64_MAX

enum sim_path { SIM_OK, SIM_GONE, SIM_HANG_WRITES, SIM_HANG, SIM_REFUSE_WRITES, SIM_REFUSE_READS };

struct sim;

struct sim_io {
	bool used, is_write, landed, hangs, answered;
	unsigned node, life, volume, buffer;
	uint64_t tag;
	uint32_t epoch;
	uint64_t seq;
	int64_t land_ns, done_ns, settle_ns, sure_ns; /* sure: from then on a hung write cannot land */
	uint8_t block[FORMAT_BLOCK];
};

struct sim_node {
	struct sim *s;
	uint32_t id;
	struct keeper k;
	bool powered, runs, paused; /* runs: the process */
	unsigned life;
	bool dispatching;
	struct keeper_event queue[32];
	unsigned n_queue;

	uint32_t vm_epoch;      /* VMs run under it; 0 none */
	int64_t kill_ns;        /* when the kill under way is proven */
	uint32_t kill_ms;
	bool kill_fails;
	bool wd_running, wd_stuck /* cannot be stopped */, wd_broken /* cannot be started */;
	bool wd_none;           /* there is none, and its blocks say so */
	bool wd_slow;           /* answers only when sim_wd_answer is called */
	bool wd_owes, wd_owes_ok;
	int64_t wd_deadline_ns;

	bool ring_up;
	uint64_t view;
	uint8_t host;           /* which hardware */
	enum sim_path path[SIM_VOLUMES];
	uint32_t latency_ms[SIM_VOLUMES],
		late_ms[SIM_VOLUMES]; /* late: a hung write lands that long after it was issued; 0 never */
	uint32_t settle_ms[SIM_VOLUMES]; /* a hung system call returns that long after it was issued; 0: the session's end settles it */
	bool up[SIM_VOLUMES];
	int64_t reconnect_ns[SIM_VOLUMES];
	uint8_t read_buf[SIM_VOLUMES][SIM_TABLE];

	struct keeper_processes processes; /* what it is told when it asks */
	bool processes_late;    /* not before the test says so */
	unsigned questions;

	struct { uint32_t epoch; uint8_t life[16]; enum lease_state state; bool any; } saved;
	uint32_t last_epoch;
	uint64_t last_seq;
	/* what the scenario asks afterwards */
	unsigned resets, kills, exits, pets, notes[NOTE_HOLD + 1];
	enum release_reason released_for;
	uint32_t released_by;
	enum volume_fault fault[SIM_VOLUMES];
};

struct sim {
	int64_t now;
	unsigned n, n_volumes;
	struct timing timing;
	uint32_t brake_percent;
	uint8_t volume[SIM_VOLUMES][SIM_TABLE];
	struct sim_node node[SIM_NODES];
	struct sim_io io[SIM_IOS];
	uint64_t next_tag;
	int64_t bell_ns;
	uint64_t bell_from;
	struct { bool used; int64_t at_ns; unsigned to; struct hold_msg msg; } mail[SIM_MAILS];
	uint64_t mute;          /* bit (id - 1): what it says to other keepers is lost */
	struct hold_msg last_grant;
	unsigned same_time;
	char broken[160]; /* the first invariant that broke */
};

static const uint8_t sim_cluster[16] = { 'c' };

__attribute__((format(printf, 2, 3))) static inline void sim_broken(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (s->broken[0])
		return;
	va_start(ap, fmt);
	(void)vsnprintf(s->broken, sizeof(s->broken), fmt, ap);
	va_end(ap);
}

static inline int64_t sim_ms(const struct sim *s) { return s->now / NS_PER_MS; }
static inline struct sim_node *sim_node(struct sim *s, uint32_t id) { return &s->node[id - 1]; }

/* The invariants. */
static inline void sim_check(struct sim *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct sim_node *n = &s->node[i];

		if (n->runs && keeper_gate_open(&n->k, n->k.epoch, s->now))
			n->vm_epoch = n->k.epoch;
		if (n->runs && n->k.pets > n->k.renewals + n->k.hold.rounds + 1)
			sim_broken(s, "S4: node %u has petted %u times with %u renewals", n->id, (unsigned)n->k.pets,
				(unsigned)n->k.renewals);
		for (unsigned j = 0; j < s->n; j++) {
			const struct sim_node *x = &s->node[j];

			if (i != j && n->runs && x->vm_epoch != 0 && n->k.mine.over[j] >= x->vm_epoch)
				sim_broken(s, "S3 at %lld ms: node %u holds epoch %u of node %u for over, its VMs run under %u",
					(long long)sim_ms(s), n->id,
					   n->k.mine.over[j], x->id, x->vm_epoch);
		}
	}
}

static inline void sim_event(struct sim_node *n, struct keeper_event ev);

static inline void sim_wind_up(struct sim_node *n) { n->wd_deadline_ns = n->wd_none ? SIM_NEVER : n->s->now + SIM_MS(n->s->timing.wd_ms); }

/* Operations of the dispatch. */
static inline void sim_op_pet(void *edge)
{
	struct sim_node *n = edge;

	n->pets++;
	if (!n->wd_running && !n->wd_owes)
		sim_broken(n->s, "node %u pets a watchdog that does not run", n->id);
	sim_wind_up(n);
}

static inline struct sim_io *sim_io_new(struct sim_node *n, unsigned volume, bool is_write)
{
	struct sim *s = n->s;

	for (unsigned i = 0; i < SIM_IOS; i++) {
		struct sim_io *io = &s->io[i];
		bool hangs = n->path[volume] == SIM_HANG || (is_write && n->path[volume] == SIM_HANG_WRITES);

		if (io->used)
			continue;
		*io = (struct sim_io){ .used = true, .is_write = is_write, .node = n->id, .life = n->life, .volume = volume,
			.tag = ++s->next_tag };
		io->hangs = hangs;
		io->land_ns = s->now + SIM_MS(n->latency_ms[volume]) / 2;
		io->done_ns = s->now + SIM_MS(n->latency_ms[volume]);
		if (hangs) {
			io->done_ns = s->now + SIM_MS(s->timing.io_ms);
			io->land_ns = is_write && n->late_ms[volume] ? s->now + SIM_MS(n->late_ms[volume]) : SIM_NEVER;
		}
		io->settle_ns = hangs && n->settle_ms[volume] ? s->now + SIM_MS(n->settle_ms[volume]) : 0;
		io->sure_ns = SIM_NEVER;
		return io;
	}
	sim_broken(s, "too many operations under way");
	return NULL;
}

/* Not connected, or refused: answered at once with a definite error, nothing lands. */
static inline bool sim_refused(const struct sim_node *n, unsigned volume, bool is_write)
{
	return !n->up[volume] || n->path[volume] == SIM_GONE || n->path[volume] == (is_write ? SIM_REFUSE_WRITES : SIM_REFUSE_READS);
}

static inline void sim_op_write(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block)
{
	struct sim_node *n = edge;
	struct sim *s = n->s;
	struct sim_io *io;

	for (unsigned i = 0; i < SIM_IOS; i++) {
		const struct sim_io *o = &s->io[i];
		bool may_land = !o->landed && !(o->answered && s->now >= o->sure_ns);

		if (o->used && o->is_write && o->node == n->id && o->volume == volume && may_land)
			sim_broken(s, "S5 at %lld ms: node %u writes over an unresolved write", (long long)sim_ms(s), n->id);
	}
	if (block->epoch < n->last_epoch || (block->epoch == n->last_epoch && block->seq < n->last_seq))
		sim_broken(s, "S6: node %u writes (%u, %llu) after (%u, %llu)", n->id, block->epoch,
			(unsigned long long)block->seq, n->last_epoch,
			   (unsigned long long)n->last_seq);
	n->last_epoch = block->epoch;
	n->last_seq = block->seq;
	if (block->state == HEARTBEAT_ARMED && !n->wd_running)
		sim_broken(s, "node %u writes \"armed\" at %lld ms without a running watchdog", n->id, (long long)sim_ms(s));
	io = sim_io_new(n, volume, true);
	if (!io)
		return;
	io->buffer = buffer;
	io->epoch = block->epoch;
	io->seq = block->seq;
	heartbeat_encode(block, sim_cluster, buffer, io->block);
	if (sim_refused(n, volume, true)) {
		io->land_ns = SIM_NEVER;
		io->done_ns = s->now;
		io->hangs = false;
	}
}

static inline void sim_op_read(void *edge, unsigned volume)
{
	struct sim_node *n = edge;
	struct sim_io *io = sim_io_new(n, volume, false);

	if (io && sim_refused(n, volume, false)) {
		io->land_ns = SIM_NEVER;
		io->done_ns = n->s->now;
		io->hangs = false;
	}
}

static inline void sim_op_bell(void *edge)
{
	struct sim_node *n = edge;

	n->s->bell_from |= 1ULL << (n->id - 1);
	n->s->bell_ns = MIN(n->s->bell_ns, n->s->now + SIM_MS(1));
}

static inline void sim_op_hold(void *edge, const struct hold_msg *m)
{
	struct sim_node *n = edge;
	struct sim *s = n->s;
	uint8_t wire[HOLD_MSG_LEN];
	struct hold_msg read;

	hold_encode(m, sim_cluster, wire);
	if (!hold_decode(wire, sizeof(wire), n->id, sim_cluster, &read) || memcmp(&read, m, sizeof(read)) != 0)
		sim_broken(s, "node %u's message does not survive the ring", n->id);
	if (m->kind == HOLD_GRANT)
		s->last_grant = *m;
	for (unsigned to = 0; to < s->n && !(s->mute >> (n->id - 1) & 1); to++) {
		unsigned i = 0;

		if (to + 1 == n->id || !(n->view >> to & 1) || !n->ring_up)
			continue;
		while (i < SIM_MAILS && s->mail[i].used)
			i++;
		if (i == SIM_MAILS) {
			sim_broken(s, "too many messages under way");
			return;
		}
		s->mail[i].used = true;
		s->mail[i].at_ns = s->now + SIM_MS(1);
		s->mail[i].to = to;
		s->mail[i].msg = read;
	}
}

static inline void sim_op_kill(void *edge)
{
	struct sim_node *n = edge;

	n->kills++;
	n->kill_ns = n->kill_fails ? SIM_NEVER : n->s->now + SIM_MS(n->kill_ms);
}

static inline void sim_op_watchdog(void *edge, bool start)
{
	struct sim_node *n = edge;
	bool ok = start ? !n->wd_broken : !n->wd_stuck;

	if (!start && n->saved.any && n->saved.state == LEASE_ARMED)
		sim_broken(n->s, "node %u stops its watchdog at %lld ms, and the next keeper would take it for armed", n->id, (long long)sim_ms(n->s));
	if (ok) {
		n->wd_running = start;
		sim_wind_up(n);
	}
	if (n->wd_slow) {
		n->wd_owes = true;
		n->wd_owes_ok = ok;
		return;
	}
	sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_WATCHDOG, .ok = ok });
}

static inline void sim_op_processes(void *edge, uint32_t number)
{
	struct sim_node *n = edge;

	n->questions++;
	n->processes.number = number;
	if (!n->processes_late)
		sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_PROCESSES, .processes = &n->processes });
}

static inline void sim_op_tell(void *edge, const struct keeper *k) { }

static inline void sim_op_save(void *edge, const struct keeper *k)
{
	struct sim_node *n = edge;

	n->saved.any = true;
	n->saved.epoch = k->epoch;
	n->saved.state = k->state;
	memcpy(n->saved.life, k->mine.life, 16);
}

static inline void sim_op_exit(void *edge)
{
	struct sim_node *n = edge;

	n->exits++;
}

static inline void sim_op_note(void *edge, enum keeper_note note, uint32_t node, uint32_t arg)
{
	struct sim_node *n = edge;

	if ((size_t)note < ARRAY_SIZE(n->notes))
		n->notes[note]++;
	if (note == NOTE_RELEASE) {
		n->released_for = (enum release_reason)arg;
		n->released_by = node;
	}
	if (note == NOTE_VOLUME_FAULT)
		n->fault[node] = (enum volume_fault)arg;
}

static const struct keeper_ops sim_ops = {
	.pet = sim_op_pet, .write = sim_op_write, .read = sim_op_read, .bell = sim_op_bell, .hold = sim_op_hold, .kill = sim_op_kill,
	.watchdog = sim_op_watchdog, .processes = sim_op_processes, .tell = sim_op_tell, .save = sim_op_save, .exit = sim_op_exit, .note = sim_op_note,
};

/* As the daemon does it: answers that come from inside an action wait for its end. */
static inline void sim_event(struct sim_node *n, struct keeper_event ev)
{
	if (!n->runs || n->exits)
		return;
	if (n->dispatching) {
		n->queue[n->n_queue++] = ev;
		return;
	}
	n->dispatching = true;
	keeper_dispatch(&n->k, &ev, n->s->now, &sim_ops, n);
	for (unsigned i = 0; i < n->n_queue; i++) {
		struct keeper_event again = n->queue[i];

		keeper_dispatch(&n->k, &again, n->s->now, &sim_ops, n);
	}
	n->n_queue = 0;
	n->dispatching = false;
	sim_check(n->s);
}

static inline void sim_say(struct sim *s, uint32_t id, enum keeper_event_kind kind)
{
	sim_event(sim_node(s, id), (struct keeper_event){ .kind = kind });
}

/* The ring as this node's corosync tells it; 0 = no connection. */
static inline void sim_ring(struct sim *s, uint32_t id, uint64_t view)
{
	struct sim_node *n = sim_node(s, id);

	n->ring_up = view != 0;
	n->view = view;
	sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_RING, .ok = n->ring_up, .view = view });
}

/* Everybody named in view sees exactly view. */
static inline void sim_ring_of(struct sim *s, uint64_t view)
{
	for (uint32_t id = 1; id <= s->n; id++)
		if (view >> (id - 1) & 1)
			sim_ring(s, id, view);
}

static inline void sim_path(struct sim *s, uint32_t id, unsigned volume, enum sim_path path)
{
	struct sim_node *n = sim_node(s, id);

	n->path[volume] = path;
	if (path == SIM_GONE && n->up[volume]) {
		n->up[volume] = false;
		sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = volume, .ok = false });
	} else if (path != SIM_GONE && !n->up[volume]) {
		n->reconnect_ns[volume] = s->now + SIM_MS(100);
	}
}

static inline void sim_path_all(struct sim *s, uint32_t id, enum sim_path path)
{
	for (unsigned v = 0; v < s->n_volumes; v++)
		sim_path(s, id, v, path);
}

/* The service stops, as fence/keeper.c does it: only when no VM is left. */
static inline void sim_leave(struct sim *s, uint32_t id)
{
	struct sim_node *n = sim_node(s, id);

	sim_say(s, id, KEEPER_EV_LEAVE);
	if (n->kill_ns == SIM_NEVER)
		n->vm_epoch = 0;
}

/* Answers a watchdog that was asked while wd_slow. */
static inline void sim_wd_answer(struct sim *s, uint32_t id)
{
	struct sim_node *n = sim_node(s, id);

	if (!n->wd_owes)
		return;
	n->wd_owes = false;
	sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_WATCHDOG, .ok = n->wd_owes_ok });
}

/* Starts the keeper process as fence/keeper.c does: with VMs of this boot left and nothing to resume from, they are killed
 * first. */
static inline void sim_start(struct sim *s, uint32_t id)
{
	struct sim_node *n = sim_node(s, id);
	bool armed = n->saved.state == LEASE_ARMED || n->saved.state == LEASE_DISARMING;
	struct keeper_options opt = {
		.self = id, .n_volumes = s->n_volumes, .node_limit = SIM_NODES, .timing = s->timing, .members = (1ULL << s->n) - 1,
		.brake_percent = s->brake_percent, .wd_ms = n->wd_none ? FORMAT_SILENCE_IS_NO_PROOF : s->timing.wd_ms, .wd_delay_ms = s->timing.wd_delay_ms,
	};

	n->life++;
	n->powered = n->runs = true;
	n->exits = 0;
	n->n_queue = 0;
	n->kill_ns = SIM_NEVER;
	opt.resume = n->saved.any && ((armed && n->wd_running) || n->saved.state == LEASE_DISARMED);
	opt.resume_epoch = n->saved.epoch;
	memcpy(opt.resume_life, n->saved.life, 16);
	opt.watchdog_runs = n->wd_running;
	opt.wd_left_ms = n->wd_running && !n->wd_none ? (uint32_t)((n->wd_deadline_ns - s->now) / NS_PER_MS) : 0;
	if (!opt.resume)
		n->vm_epoch = 0;
	memcpy(opt.cluster, sim_cluster, 16);
	memset(opt.host, n->host, 16);
	memset(opt.boot, (int)n->resets + 1, 16);
	memset(opt.life, (int)(id * 16 + n->life), 16);
	for (unsigned v = 0; v < s->n_volumes; v++)
		memset(opt.set.set[v], (int)v + 1, 16);
	memcpy(opt.set.cluster, sim_cluster, 16);
	keeper_init(&n->k, &opt, s->now);
	for (unsigned v = 0; v < s->n_volumes; v++) {
		n->up[v] = n->path[v] != SIM_GONE;
		n->reconnect_ns[v] = SIM_NEVER;
		sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = v, .ok = n->up[v] });
	}
	sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_RING, .ok = n->ring_up, .view = n->view });
}

/* The process dies; VMs, the held watchdog and what was sent live on. */
static inline void sim_crash(struct sim *s, uint32_t id)
{
	struct sim_node *n = sim_node(s, id);

	n->runs = n->paused = false;
	n->life++;
}

enum sim_cut { SIM_CUT_DROP, SIM_CUT_LAND, SIM_CUT_TEAR };

/* Power off: writes under way are lost, still land (they were in the network or in the target), or land in part. */
static inline void sim_power_cut(struct sim *s, uint32_t id, enum sim_cut how)
{
	struct sim_node *n = sim_node(s, id);

	sim_crash(s, id);
	n->powered = n->wd_running = n->wd_owes = false;
	n->vm_epoch = 0;
	n->kill_ns = SIM_NEVER;
	n->saved.any = false; /* /run is gone */
	for (unsigned i = 0; i < SIM_IOS; i++) {
		struct sim_io *io = &s->io[i];

		if (!io->used || io->node != id || !io->is_write || io->landed)
			continue;
		if (how == SIM_CUT_TEAR)
			memcpy(s->volume[io->volume] + format_heartbeat_offset(id, io->buffer), io->block, 1024);
		if (how != SIM_CUT_LAND)
			io->used = false;
	}
}

static inline void sim_init(struct sim *s, unsigned n, unsigned n_volumes)
{
	struct superblock sb = { .n_volumes = n_volumes, .node_limit = SIM_NODES };

	memset(s, 0, sizeof(*s));
	s->now = SIM_MS(1000000);
	s->bell_ns = SIM_NEVER;
	s->n = n;
	s->n_volumes = n_volumes;
	s->brake_percent = 100;
	timing_of_profile(TIMING_FAST, &s->timing);
	s->timing.silent_ms = UINT32_MAX; /* there is an agent only where a test plays one */
	memcpy(sb.cluster, sim_cluster, 16);
	sb.timing = s->timing;
	for (unsigned v = 0; v < n_volumes; v++)
		memset(sb.set[v], (int)v + 1, 16);
	for (unsigned v = 0; v < n_volumes; v++) {
		sb.index = v;
		for (unsigned c = 0; c < 2; c++)
			superblock_encode(&sb, c, s->volume[v] + format_superblock_offset(c));
		for (uint32_t id = 1; id <= SIM_NODES; id++)
			for (unsigned b = 0; b < 2; b++)
				heartbeat_encode(&(struct heartbeat){ .node = id }, sim_cluster, b,
					s->volume[v] + format_heartbeat_offset(id, b));
	}
	for (uint32_t id = 1; id <= SIM_NODES; id++) {
		struct sim_node *x = sim_node(s, id);

		x->s = s;
		x->id = id;
		x->kill_ns = SIM_NEVER;
		x->kill_ms = 20;
		x->host = (uint8_t)(100 + id);
		x->ring_up = true;
		x->view = (1ULL << n) - 1;
		for (unsigned v = 0; v < SIM_VOLUMES; v++) {
			x->latency_ms[v] = 2;
			x->reconnect_ns[v] = SIM_NEVER;
		}
	}
}

static inline int64_t sim_next(const struct sim *s)
{
	int64_t at = s->bell_ns;

	for (unsigned i = 0; i < SIM_MAILS; i++)
		if (s->mail[i].used)
			at = MIN(at, s->mail[i].at_ns);
	for (unsigned i = 0; i < SIM_IOS; i++) {
		const struct sim_io *io = &s->io[i];
		const struct sim_node *n = &s->node[io->node ? io->node - 1 : 0];

		if (!io->used)
			continue;
		if (!io->landed)
			at = MIN(at, io->land_ns);
		if (!io->answered && !n->paused)
			at = MIN(at, io->done_ns);
		if (io->answered && io->settle_ns && !n->paused)
			at = MIN(at, io->settle_ns);
	}
	for (unsigned i = 0; i < s->n; i++) {
		const struct sim_node *n = &s->node[i];

		if (n->wd_running)
			at = MIN(at, n->wd_deadline_ns);
		if (!n->runs || n->paused)
			continue;
		if (!n->exits)
			at = MIN(at, MAX(keeper_deadline(&n->k), s->now));
		at = MIN(at, n->kill_ns);
		for (unsigned v = 0; v < s->n_volumes; v++)
			at = MIN(at, n->reconnect_ns[v]);
	}
	return at;
}

static inline void sim_land(struct sim *s, struct sim_io *io)
{
	struct sim_node *n = sim_node(s, io->node);

	io->landed = true;
	if (io->is_write)
		memcpy(s->volume[io->volume] + format_heartbeat_offset(io->node, io->buffer), io->block, FORMAT_BLOCK);
	else if (n->life == io->life)
		memcpy(n->read_buf[io->volume], s->volume[io->volume], SIM_TABLE);
}

static inline void sim_settle(struct sim *s, struct sim_io *io)
{
	struct sim_node *n = sim_node(s, io->node);
	enum keeper_event_kind kind = io->is_write ? KEEPER_EV_WRITE_SETTLED : KEEPER_EV_READ_SETTLED;
	bool mine = n->runs && n->life == io->life, completed = !io->hangs || io->settle_ns != 0;
	unsigned v = io->volume;

	io->settle_ns = 0;
	if (completed || !io->is_write || io->landed)
		io->used = false;
	else if (io->land_ns == SIM_NEVER)
		io->land_ns = io->sure_ns; /* lost, but nobody can know before: sim_step drops it then */
	if (mine)
		sim_event(n, (struct keeper_event){ .kind = kind, .volume = v, .ok = completed });
}

static inline void sim_answer(struct sim *s, struct sim_io *io)
{
	struct sim_node *n = sim_node(s, io->node);
	unsigned v = io->volume;
	bool ok = io->landed && !io->hangs, mine = n->runs && n->life == io->life;
	struct keeper_event ev = { .kind = io->is_write ? KEEPER_EV_WRITE_DONE : KEEPER_EV_READ_DONE, .volume = v, .ok = ok,
		.definite = !io->hangs,
				   .data = n->read_buf[v] };

	io->answered = true;
	io->sure_ns = !io->hangs ? s->now : io->settle_ns ? io->settle_ns : s->now + SIM_MS(s->timing.drain_ms);
	if (mine)
		sim_event(n, ev);
	if (mine && io->hangs && n->up[v]) {
		n->up[v] = false;
		n->reconnect_ns[v] = s->now + SIM_MS(100);
		sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = v, .ok = false });
	}
	if (!io->settle_ns)
		sim_settle(s, io);
}

static inline void sim_reset(struct sim *s, struct sim_node *n)
{
	n->resets++;
	sim_power_cut(s, n->id, SIM_CUT_LAND);
}

/* One event, the earliest. */
static inline void sim_step(struct sim *s)
{
	int64_t at = sim_next(s);

	s->same_time = at > s->now ? 0 : s->same_time + 1;
	if (s->same_time > 2000) {
		sim_broken(s, "busy loop at %lld ms", (long long)sim_ms(s));
		s->same_time = 0;
		at = s->now + SIM_MS(1);
	}
	s->now = MAX(s->now, at);
	for (unsigned i = 0; i < SIM_IOS; i++) {
		struct sim_io *io = &s->io[i];

		if (!io->used)
			continue;
		if (!io->landed && io->land_ns <= s->now) {
			if (io->is_write && io->answered && io->land_ns == io->sure_ns)
				io->used = false; /* it was lost */
			else
				sim_land(s, io);
			if (io->answered && !io->settle_ns)
				io->used = false;
			return;
		}
		if (io->answered && io->settle_ns && !sim_node(s, io->node)->paused && io->settle_ns <= s->now) {
			sim_settle(s, io);
			return;
		}
		if (!io->answered && !sim_node(s, io->node)->paused && io->done_ns <= s->now) {
			sim_answer(s, io);
			return;
		}
	}
	for (unsigned i = 0; i < SIM_MAILS; i++) {
		struct sim_node *n = &s->node[s->mail[i].to];

		if (!s->mail[i].used || s->mail[i].at_ns > s->now)
			continue;
		s->mail[i].used = false;
		if (n->ring_up && !n->paused)
			sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = s->mail[i].msg });
		return;
	}
	if (s->bell_ns <= s->now) {
		uint64_t from = s->bell_from;

		s->bell_ns = SIM_NEVER;
		s->bell_from = 0;
		for (unsigned i = 0; i < s->n; i++) {
			struct sim_node *n = &s->node[i];

			if (n->ring_up && !n->paused && (from & n->view & ~(1ULL << i)))
				sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_BELL });
		}
		return;
	}
	for (unsigned i = 0; i < s->n; i++) {
		struct sim_node *n = &s->node[i];

		if (n->wd_running && n->wd_deadline_ns <= s->now) {
			sim_reset(s, n);
			return;
		}
		if (!n->runs || n->paused)
			continue;
		if (n->kill_ns <= s->now) {
			n->kill_ns = SIM_NEVER;
			n->vm_epoch = 0;
			sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_SILENT });
			return;
		}
		for (unsigned v = 0; v < s->n_volumes; v++) {
			if (n->reconnect_ns[v] > s->now)
				continue;
			n->reconnect_ns[v] = SIM_NEVER;
			n->up[v] = n->path[v] != SIM_GONE;
			sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = v, .ok = n->up[v] });
			return;
		}
		if (!n->exits && keeper_deadline(&n->k) <= s->now) {
			sim_event(n, (struct keeper_event){ .kind = KEEPER_EV_TIMER });
			return;
		}
	}
}

static inline void sim_run(struct sim *s, uint32_t ms)
{
	int64_t end = s->now + SIM_MS(ms);

	while (sim_next(s) <= end)
		sim_step(s);
	s->now = end;
}

/* Steps until cond holds, at most ms of virtual time; says whether it came to hold. */
#define SIM_UNTIL(sim, ms, cond) \
	({ \
		int64_t sim_end = (sim)->now + SIM_MS(ms); \
		while (!(cond) && sim_next(sim) <= sim_end) \
			sim_step(sim); \
		(cond); \
	})
