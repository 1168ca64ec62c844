/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-keeper: owns this node's lease. Start, loop, watchdog, and what operators read of it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "agent/base/clock.h"
#include "agent/base/held.h"
#include "agent/base/log.h"
#include "agent/base/notify.h"
#include "agent/base/orphans.h"
#include "agent/base/paths.h"
#include "agent/base/program.h"
#include "agent/base/uuid.h"
#include "fence/daemon.h"
#include "fence/prover.h"
#include "storage/crc32c.h"

#define STATE_FILE "/run/kvm-ha/keeper.state"
#define PET_FILE "/run/kvm-ha/keeper.pet"
#define BOOT_FILE "/run/kvm-ha/boot"
#define WAITED_TICKS 4
#define TICK_MS 500
#define SUSPEND_LIMIT_MS 100
#define STOP_LIMIT_MS 5000
#define STOP_KILL_MS 13000 /* with VMs to be killed first; the unit's TimeoutStopSec= is longer */

static void on_timer(void *data);
static void heed_suspend(struct daemon *d);

static void arm_timer(struct daemon *d)
{
	int64_t now = clock_now_ns(), at = keeper_deadline(&d->core);
	int64_t wait = at == INT64_MAX ? 1000 * NS_PER_MS : MAX(at - now, 0);

	if (d->timer)
		(void)qb_loop_timer_del(d->loop, d->timer);
	d->timer = 0;
	CHECK(qb_loop_timer_add(d->loop, QB_LOOP_HIGH, (uint64_t)wait, d, on_timer, &d->timer) == 0);
}

static void op_pet(void *edge)
{
	struct daemon *d = edge;
	int r = watchdog_pet(&d->watchdog);

	if (r < 0)
		daemon_text(d, LOG_LEVEL_ERR, "watchdog %s: petting failed: %s", d->watchdog.device, strerror(-r));
}

static void op_bell(void *edge)
{
	struct daemon *d = edge;

	(void)ring_send(d->ring, "bell", 4);
}

static void op_hold(void *edge, const struct hold_msg *m)
{
	struct daemon *d = edge;
	uint8_t buf[HOLD_MSG_LEN];

	hold_encode(m, d->core.opt.cluster, buf);
	(void)ring_send(d->ring, buf, sizeof(buf));
}

static void on_silent(void *user)
{
	struct daemon *d = user;
	struct keeper_event ev = { .kind = KEEPER_EV_SILENT };

	daemon_text(d, LOG_LEVEL_NOTICE, "every VM process of this node is proven gone");
	daemon_event(d, &ev);
}

static void op_kill(void *edge)
{
	struct daemon *d = edge;

	vmslice_kill(d->slice, on_silent, d);
}

static void op_processes(void *edge, uint32_t number)
{
	struct daemon *d = edge;
	struct keeper_event ev = { .kind = KEEPER_EV_PROCESSES, .processes = &d->processes };

	d->processes = (struct keeper_processes){ .number = number };
	d->processes.known = vmslice_marks(d->slice, d->processes.mark, ARRAY_SIZE(d->processes.mark), &d->processes.n);
	daemon_event(d, &ev);
}

static int start_watchdog(struct daemon *d, char *err, size_t err_size)
{
	struct watchdog_fit fit = { .sysfs = WATCHDOG_SYSFS, .mark = WATCHDOG_TEST_MARK, .device = d->watchdog.device, .timeout_ms = d->conf.timing.wd_ms,
				    .delay_ms = d->conf.timing.wd_delay_ms, .record = &d->measured };
	int r = watchdog_fit(&fit, err, err_size);

	return r < 0 ? r : watchdog_start(&d->watchdog, d->conf.timing.wd_ms, err, err_size);
}

/* Held by systemd, so that this process' death is not a close. */
static bool hold_watchdog(const struct daemon *d) { return notify_now("FDSTORE=1\nFDNAME=watchdog\nFDPOLL=0", d->watchdog.fd); }

static void tell_rest(struct daemon *d)
{
	daemon_text(d, LOG_LEVEL_NOTICE, "watchdog %s cannot be stopped (nowayout): while this node has no use for it ha-keeper pets it by time; stopped for good it would "
		    "have this host reset %u s later", d->watchdog.device, (unsigned)(d->watchdog.rest_ms / MS_PER_S));
}

static int stop_watchdog(struct daemon *d, char *err, size_t err_size)
{
	bool rested = d->watchdog.rests;
	int r = watchdog_stop(&d->watchdog, err, err_size);

	if (d->watchdog.fd < 0)
		notify_send("FDSTOREREMOVE=1\nFDNAME=watchdog");
	else if (d->watchdog.rests && !rested)
		tell_rest(d);
	return r;
}

static void op_watchdog(void *edge, bool start)
{
	struct daemon *d = edge;
	struct keeper_event ev = { .kind = KEEPER_EV_WATCHDOG };
	char err[512] = "";
	bool held;
	int r;

	held = d->watchdog.fd >= 0;
	r = start ? start_watchdog(d, err, sizeof(err)) : stop_watchdog(d, err, sizeof(err));
	ev.ok = r == 0;
	if (r < 0)
		daemon_text(d, LOG_LEVEL_ERR, "%s", err);
	if (!held && d->watchdog.fd >= 0 && !hold_watchdog(d) && ev.ok) {
		daemon_text(d, LOG_LEVEL_ERR, "not armed: systemd does not take the watchdog's descriptor, without which this process' death would pet it");
		if (stop_watchdog(d, err, sizeof(err)) < 0)
			daemon_text(d, LOG_LEVEL_ERR, "%s", err);
		ev.ok = false;
	}
	daemon_event(d, &ev);
}

static void save_state(struct daemon *d, uint32_t epoch, const uint8_t life_id[16], enum lease_state state, uint64_t seq)
{
	char life[UUID_STR_LEN];
	FILE *f = fopen(STATE_FILE ".new", "we");

	uuid_format(life_id, life);
	if (!f || fprintf(f, "%u %s %s %" PRIu64 "\n", epoch, life, lease_state_name(state), seq) < 0 || fclose(f) != 0 ||
	    rename(STATE_FILE ".new", STATE_FILE) != 0)
		daemon_text(d, LOG_LEVEL_WARNING, "cannot write " STATE_FILE ": %s: after a restart of the keeper this node's VMs will be killed",
			    strerror(errno));
}

static void op_save(void *edge, const struct keeper *k) { save_state(edge, k->epoch, k->mine.life, k->state, k->seq); }

static void op_exit(void *edge)
{
	struct daemon *d = edge;

	log_notice("left the cluster");
	qb_loop_stop(d->loop);
}

static const char *node_name(const struct daemon *d, uint32_t id)
{
	const struct conf_node *n = conf_node_by_id(&d->conf, id);

	return n ? n->name : "?";
}

static void note_release(struct daemon *d, uint32_t node, uint32_t arg)
{
	daemon_text(d, LOG_LEVEL_ERR, "releasing this node: %s%s%s; its VMs are killed and start elsewhere",
		    release_reason_text((enum release_reason)arg), node ? ", by node " : "", node ? node_name(d, node) : "");
}

static void tell_ready(const struct daemon *d, enum lease_state state)
{
	char lines[128];

	(void)snprintf(lines, sizeof(lines), "READY=1\nSTATUS=%s, epoch %u", lease_state_name(state), d->core.epoch);
	notify_send(lines);
}

static void op_note(void *edge, enum keeper_note note, uint32_t node, uint32_t arg)
{
	struct daemon *d = edge;
	const char *name = note == NOTE_VOLUME_FAULT ? "" : node_name(d, node);

	switch (note) {
	case NOTE_STATE:
		daemon_text(d, LOG_LEVEL_NOTICE, "node %s is now %s, epoch %u", name, lease_state_name((enum lease_state)arg), d->core.epoch);
		if (arg != LEASE_STARTING)
			tell_ready(d, (enum lease_state)arg);
		break;
	case NOTE_RELEASE:
		note_release(d, node, arg);
		break;
	case NOTE_INTENT:
		daemon_text(d, LOG_LEVEL_WARNING, "node %s is to be fenced: %s", name, fence_reason_text((enum fence_reason)arg));
		break;
	case NOTE_WITHDRAWN:
		daemon_text(d, LOG_LEVEL_NOTICE, "node %s need not be fenced any more", name);
		break;
	case NOTE_COMMIT:
		daemon_text(d, LOG_LEVEL_WARNING, "node %s is being fenced: %s", name, fence_reason_text((enum fence_reason)arg));
		break;
	case NOTE_OVER:
		daemon_text(d, LOG_LEVEL_NOTICE, "node %s: epoch %u is proven over, its VMs may start elsewhere", name, arg);
		break;
	case NOTE_NODE_ALIVE:
		daemon_text(d, LOG_LEVEL_NOTICE, "node %s is alive, epoch %u", name, arg);
		break;
	case NOTE_NODE_STALE:
		daemon_text(d, LOG_LEVEL_WARNING, "node %s: its heartbeat stands still", name);
		break;
	case NOTE_VOLUME_FAULT:
		daemon_text(d, LOG_LEVEL_ERR, "volume %s is not used any more: %s", d->conf.volumes[node],
			    volume_fault_text((enum volume_fault)arg));
		d->set_changed = d->set_changed || arg == FAULT_CHANGED;
		break;
	case NOTE_GAP:
		daemon_text(d, LOG_LEVEL_WARNING, "%u ms between two reads of the table: judging others starts anew", arg);
		break;
	case NOTE_WD_FAILED:
		daemon_text(d, LOG_LEVEL_ERR, "the watchdog could not be %s", arg ? "stopped" : "started: not armed");
		break;
	case NOTE_EVIDENCE:
		daemon_text(d, LOG_LEVEL_NOTICE, "node %s: no need to wait for its watchdog: %s", name, fence_evidence_text((enum fence_evidence)arg));
		break;
	case NOTE_EVIDENCE_VOID:
		daemon_text(d, LOG_LEVEL_WARNING, "node %s has written a block since: \"%s\" says nothing of it", name,
			    fence_evidence_text((enum fence_evidence)arg));
		break;
	case NOTE_REFUSED:
		daemon_text(d, LOG_LEVEL_ERR, "node %s: an operator's word is not taken: %s", name, fence_refusal_text((enum fence_refusal)arg));
		break;
	case NOTE_BRAKE:
		if (arg != 0)
			daemon_text(d, LOG_LEVEL_ERR,
				    "brake: %u nodes are suspect at once, more than Brake= allows: none is fenced until they are fewer, or by `ha-ctl node fence`",
				    arg);
		else
			daemon_text(d, LOG_LEVEL_NOTICE, "brake: released, no more nodes are suspect at once than Brake= allows");
		break;
	case NOTE_EPOCHS_SPENT:
		daemon_text(d, LOG_LEVEL_ERR,
			    "a block on the volumes names this node with the highest epoch there is, so none can be begun: nobody counts that far, some block was forged or "
			    "is damaged; disarm the cluster, then make the volumes anew: `ha-ctl volume init`");
		break;
	case NOTE_FOREIGN_OWNER:
		daemon_text(d, LOG_LEVEL_ERR,
			    "this node's slot was written by another host: two hosts with node id %u, a cloned disk, or this one under a new machine-id? "
			    "Stop ha-keeper there; if that host is gone for good and was not armed, say so on a node that is: `ha-ctl node confirm-fenced`. "
			    "Waiting until the others say that its lease is over, and W",
			    node);
		notify_send("STATUS=waiting: another host has this node's slot on the volumes");
		break;
	case NOTE_SILENT:
		if (arg)
			daemon_text(d, LOG_LEVEL_ERR,
				    "ha-agent of this node has not been heard for %u ms: the gate is closed. VMs run on; one that is not running, or ends, is for other nodes to start. "
				    "See `systemctl status ha-agent`",
				    d->conf.timing.silent_ms);
		else
			daemon_text(d, LOG_LEVEL_NOTICE, "ha-agent of this node is heard again: the gate opens once no other node can take its claims for void any more");
		break;
	case NOTE_HOLD:
		if (arg)
			daemon_text(d, LOG_LEVEL_WARNING, "no node reaches the volumes: holding; VMs stay, nothing new starts until the storage is back");
		else
			daemon_text(d, LOG_LEVEL_NOTICE, "the hold is over: %s", d->core.state == LEASE_RELEASING ? "this node's lease has ended" : "the volumes are back");
		break;
	}
}

static const struct keeper_ops ops = {
	.pet = op_pet, .write = daemon_write, .read = daemon_read, .bell = op_bell, .hold = op_hold, .kill = op_kill,
	.watchdog = op_watchdog, .processes = op_processes, .tell = daemon_tell, .save = op_save, .exit = op_exit, .note = op_note,
};

static bool was_suspended(void)
{
	static int64_t seen;
	int64_t suspended = clock_suspended_ns();

	if (suspended - seen <= SUSPEND_LIMIT_MS * NS_PER_MS)
		return false;
	seen = suspended;
	return true;
}

/* Before anything else that a wake-up brings: no pet may come of it. */
static void tell_suspend(struct daemon *d)
{
	struct keeper_event ev = { .kind = KEEPER_EV_SUSPENDED };

	if (was_suspended())
		keeper_dispatch(&d->core, &ev, clock_now_ns(), &ops, d);
}

void daemon_event(struct daemon *d, const struct keeper_event *ev)
{
	unsigned next = 0;

	if (!d->core_runs)
		return;
	if (d->dispatching) {
		CHECK(d->n_queue < DAEMON_MAX_EVENTS);
		d->queue[d->n_queue++] = *ev;
		return;
	}
	d->dispatching = true;
	tell_suspend(d);
	keeper_dispatch(&d->core, ev, clock_now_ns(), &ops, d);
	while (next < d->n_queue) {
		struct keeper_event again = d->queue[next++];

		keeper_dispatch(&d->core, &again, clock_now_ns(), &ops, d);
	}
	d->n_queue = 0;
	d->dispatching = false;
	arm_timer(d);
}

static void on_timer(void *data)
{
	struct daemon *d = data;
	struct keeper_event ev = { .kind = KEEPER_EV_TIMER };

	d->timer = 0;
	daemon_event(d, &ev);
}

/* A new volume set is for a new process, which reads the configuration anew, too: of a node that is not armed it goes on with the same epoch. */
static void follow_set(struct daemon *d)
{
	enum lease_state s = d->core.state;

	if (!d->set_changed || s == LEASE_ARMED || s == LEASE_DISARMING || s == LEASE_RELEASING)
		return;
	log_notice("the volume set has changed: starting again with it");
	qb_loop_stop(d->loop);
}

/* Nothing runs yet that could be disturbed: an operator may just be changing the volume set. */
static void follow_conf(struct daemon *d)
{
	if (d->core_runs || ++d->waited % WAITED_TICKS != 0 || !program_volumes_changed(d->config_dir, &d->conf))
		return;
	log_notice("Volumes= has changed: starting again with it");
	qb_loop_stop(d->loop);
}

static void check_stop(struct daemon *d)
{
	int64_t since_ns = clock_now_ns() - d->stop_ns;

	if (!d->stopping || since_ns <= (d->stop_kills ? STOP_KILL_MS : STOP_LIMIT_MS) * NS_PER_MS)
		return;
	log_err("cannot leave the cluster in time (%s): ending without",
		d->core.state == LEASE_RELEASING ? "VM processes are left, or data of theirs is still on its way" : "no quorum of the volumes");
	qb_loop_stop(d->loop);
}

static void on_tick(void *data)
{
	struct daemon *d = data;
	qb_loop_timer_handle h;

	(void)notify_now("WATCHDOG=1", -1);
	(void)watchdog_keep_resting(&d->watchdog);
	heed_suspend(d);
	follow_conf(d);
	follow_set(d);
	if (d->volset)
		daemon_troubles(d);
	check_stop(d);
	(void)qb_loop_timer_add(d->loop, QB_LOOP_MED, TICK_MS * NS_PER_MS, d, on_tick, &h);
}

/* It runs, and bites if this node does not renew. */
static bool counts_on_watchdog(const struct daemon *d) { return d->watchdog.fd >= 0 && !d->watchdog.rests; }

/* Volumes known and nothing of an earlier life running: only now may anything be written. */
static void start_core(struct daemon *d)
{
	struct keeper_options opt = {
		.self = d->conf.self_id,
		.timing = d->conf.timing,
		.keep_on_ring_loss = d->conf.on_ring_loss == CONF_RING_LOSS_KEEP,
		.brake_percent = d->conf.brake_percent,
		.wd_ms = d->conf.silence_proves ? d->conf.timing.wd_ms : FORMAT_SILENCE_IS_NO_PROOF,
		.wd_delay_ms = d->conf.timing.wd_delay_ms,
		.resume = d->resume,
		.resume_epoch = d->resume_epoch,
		.resume_seq = d->resume_seq,
		.watchdog_runs = counts_on_watchdog(d),
		.wd_left_ms = d->watchdog.left_ms,
	};
	uint32_t since_ms = (uint32_t)((clock_now_ns() - d->adopted_ns) / NS_PER_MS);
	struct keeper_event ev;

	if (d->core_runs || !d->sb || !d->clean)
		return;
	if (opt.wd_left_ms != 0)
		opt.wd_left_ms = opt.wd_left_ms > since_ms ? opt.wd_left_ms - since_ms : 1;
	opt.n_volumes = d->sb->n_volumes;
	opt.node_limit = d->sb->node_limit;
	memcpy(opt.cluster, d->sb->cluster, 16);
	opt.set = *d->sb;
	memcpy(opt.host, d->host, 16);
	memcpy(opt.boot, d->boot, 16);
	memcpy(opt.life, d->life, 16);
	memcpy(opt.resume_life, d->resume_life, 16);
	for (size_t i = 0; i < d->conf.n_nodes; i++)
		opt.members |= 1ULL << (d->conf.nodes[i].id - 1);
	daemon_volumes_init(d);
	keeper_init(&d->core, &opt, clock_now_ns());
	d->core_runs = true;
	for (unsigned v = 0; v < opt.n_volumes; v++) {
		ev = (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = v, .ok = volset_good(d->volset, v) };
		daemon_event(d, &ev);
	}
	ev = (struct keeper_event){ .kind = KEEPER_EV_RING, .ok = d->ring_up, .view = d->ring_view };
	daemon_event(d, &ev);
}

static void on_known(void *user, const struct superblock *sb)
{
	struct daemon *d = user;

	d->sb = sb;
	start_core(d);
}

static void on_changed(void *user) { ((struct daemon *)user)->set_changed = true; }

static void on_volume(void *user, unsigned index, bool good, const char *reason)
{
	struct daemon *d = user;
	struct keeper_event ev = { .kind = KEEPER_EV_VOLUME, .volume = index, .ok = good };

	daemon_event(d, &ev);
}

static void on_view(void *user, bool up, uint64_t view, bool encrypted)
{
	struct daemon *d = user;
	struct keeper_event ev = { .kind = KEEPER_EV_RING, .ok = up, .view = view };

	if (up != d->ring_up || view != d->ring_view)
		log_notice("ring: %s, view %llx%s", up ? "connected" : "no connection to corosync", (unsigned long long)view,
			   up && !encrypted ? ", not encrypted" : "");
	d->ring_up = up;
	d->ring_view = view;
	d->ring_encrypted = encrypted;
	daemon_event(d, &ev);
}

static void on_ring_message(void *user, uint32_t node, const void *data, size_t len)
{
	struct daemon *d = user;
	struct keeper_event bell = { .kind = KEEPER_EV_BELL }, hold = { .kind = KEEPER_EV_HOLD };

	if (node == d->conf.self_id)
		return;
	if (len == 4 && memcmp(data, "bell", 4) == 0)
		daemon_event(d, &bell);
	else if (d->core_runs && hold_decode(data, len, node, d->core.opt.cluster, &hold.hold))
		daemon_event(d, &hold);
}

/* Whatever the volumes do from here on: nothing is left that the watchdog of the life before would be for. Saved first, as no other process may go on with that epoch then. */
static void end_earlier_life(struct daemon *d)
{
	char err[256];

	save_state(d, d->resume_epoch, d->resume_life, LEASE_RELEASING, d->resume_seq);
	if (stop_watchdog(d, err, sizeof(err)) < 0)
		log_err("%s", err);
}

static void on_clean(void *user)
{
	struct daemon *d = user;
	bool held = d->watchdog.fd >= 0;
	char err[256];

	if (counts_on_watchdog(d) && !d->resume) {
		end_earlier_life(d);
	} else if (d->unfit_fd >= 0) {
		/* Nothing of the life that it was for is left. */
		if (watchdog_drop(&d->watchdog, d->unfit_fd, err, sizeof(err)) < 0)
			log_err("%s", err);
		else if (d->watchdog.rests)
			tell_rest(d);
		else
			notify_send("FDSTOREREMOVE=1\nFDNAME=watchdog");
		d->unfit_fd = -1;
	} else if (!held) {
		/* Of a keeper that was stopped for good and is started again, in time. */
		if (watchdog_take(&d->watchdog, err, sizeof(err)) < 0)
			log_err("%s", err);
		if (d->watchdog.fd >= 0) {
			(void)hold_watchdog(d);
			tell_rest(d);
		}
	}
	d->clean = true;
	start_core(d);
}

/* A restarted keeper that knows no volume set yet has no core that could release: the same. */
static void release_early(struct daemon *d, const char *why)
{
	if (d->core_runs || !d->resume)
		return;
	daemon_text(d, LOG_LEVEL_ERR, "not going on with epoch %u: %s; this node's VMs are killed", d->resume_epoch, why);
	d->resume = false;
	d->clean = false;
	vmslice_kill(d->slice, on_clean, d);
}

/* Before the watchdog acts. */
static void on_outage(void *data) { release_early(data, "no quorum of the volumes could be reached after the restart, and the watchdog would reset the host"); }

/* The core is told by daemon_event(). */
static void heed_suspend(struct daemon *d)
{
	if (!d->core_runs && was_suspended())
		release_early(d, release_reason_text(RELEASE_SUSPEND));
}

static void watch_for_outage(struct daemon *d)
{
	const struct timing *t = &d->conf.timing;
	uint32_t left = d->watchdog.left_ms ? d->watchdog.left_ms : t->soft_ms / 2 + t->wd_ms - t->soft_ms;
	uint32_t reserve = t->wd_ms - t->soft_ms;
	qb_loop_timer_handle h;

	if (d->resume && counts_on_watchdog(d))
		(void)qb_loop_timer_add(d->loop, QB_LOOP_HIGH, (left - MIN(left, reserve)) * NS_PER_MS, d, on_outage, &h);
}

static void begin_stop(struct daemon *d, enum keeper_event_kind kind)
{
	struct keeper_event ev = { .kind = kind };

	d->stopping = true;
	d->stop_ns = clock_now_ns();
	notify_send("STOPPING=1");
	if (!d->core_runs)
		qb_loop_stop(d->loop);
	daemon_event(d, &ev);
}

static void stop_service(struct daemon *d)
{
	int vms = vmslice_count(d->slice);
	bool quiet = orphans_quiet() && held_quiet(HELD_FOR_DEAD, 0, NULL, 0), goes_down = access(PATHS_GOING_DOWN, F_OK) == 0;

	if (d->stopping)
		return;
	if (vms != 0 && goes_down && access(PATHS_LEAVE_OVER, F_OK) < 0) {
		/* Not systemd's stop job, which comes after that; and with one to come systemd would not start this again, so that the watchdog would act. */
		daemon_text(d, LOG_LEVEL_NOTICE, "not ending now: this host goes down, and %d VM processes have still to leave it", vms);
		return;
	}
	if ((vms != 0 || !quiet) && goes_down) {
		/* They did not leave in time and did not end by SIGTERM; their units and the agent are stopped. Or they did, and the proof that they are silent is to come. */
		if (vms != 0)
			daemon_text(d, LOG_LEVEL_WARNING, "this host goes down with %d VM processes left: killing them", vms);
		d->stop_kills = true;
		begin_stop(d, KEEPER_EV_SHUTDOWN);
		return;
	}
	if (vms != 0) {
		/* A restart or an upgrade: the watchdog's fd is with systemd, and the next keeper goes on with this epoch. */
		log_notice("stopping with %d VM processes running: leaving watchdog and epoch to the next start", vms);
		qb_loop_stop(d->loop);
		return;
	}
	/* "left" ends the epoch at once: nothing of a VM that ended before may still be on its way. */
	if (!quiet) {
		log_notice("stopping while this host still sends, or may still write, data of a dead process: this epoch's lease has to run out");
		qb_loop_stop(d->loop);
		return;
	}
	/* Perhaps for good (ha-ctl node stop), and there is no core yet to stop it. */
	if (!d->core_runs && counts_on_watchdog(d))
		end_earlier_life(d);
	begin_stop(d, KEEPER_EV_LEAVE);
}

static int32_t on_signal(int32_t sig, void *data)
{
	stop_service(data);
	return 0;
}

/* Who this host is: not a secret, but not the machine-id itself either (machine-id(5)). */
static int host_identity(uint8_t ret[16])
{
	char dmi[128] = "";
	sd_id128_t id;
	FILE *f;
	int r = sd_id128_get_machine_app_specific(SD_ID128_MAKE(6b, 76, 6d, 2d, 68, 61, 4e, 1d, 9a, 3c, 55, 1f, 70, 0d, 24, c1), &id);

	if (r < 0)
		return r;
	f = fopen("/sys/class/dmi/id/product_uuid", "re");
	if (f) {
		(void)!fgets(dmi, sizeof(dmi), f);
		(void)fclose(f);
	}
	memcpy(ret, id.bytes, 16);
	for (unsigned i = 0; i < 4; i++) {
		uint32_t crc = crc32c(i, dmi, strlen(dmi));

		for (unsigned b = 0; b < 4; b++)
			ret[i * 4 + b] ^= (uint8_t)(crc >> (8 * b));
	}
	return 0;
}

static int boot_identity(uint8_t ret[16])
{
	char text[UUID_STR_LEN] = "";
	FILE *f = fopen(BOOT_FILE, "re");
	int r;

	if (f) {
		(void)!fgets(text, sizeof(text), f);
		(void)fclose(f);
		if (uuid_parse(text, ret))
			return 0;
	}
	r = uuid_random(ret);
	if (r < 0)
		return r;
	uuid_format(ret, text);
	f = fopen(BOOT_FILE, "we");
	if (!f)
		return -errno;
	(void)fputs(text, f);
	return fclose(f) == 0 ? 0 : -errno;
}

static int held_watchdog(void)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), fd = -1;

	for (int i = 0; i < n; i++) {
		if (fd < 0 && streq(names[i], "watchdog"))
			fd = SD_LISTEN_FDS_START + i;
		else
			(void)close(SD_LISTEN_FDS_START + i);
		free(names[i]);
	}
	free(names);
	return fd;
}

static void adopt_watchdog(struct daemon *d, bool may_rest)
{
	int fd = held_watchdog(), r = 0;
	char err[256];

	if (fd >= 0 && (r = watchdog_adopt(&d->watchdog, fd, d->conf.timing.wd_ms, may_rest, err, sizeof(err))) < 0) {
		log_warning("the held watchdog is of no use: %s", err);
		if (r == -ENODEV)
			(void)close(fd);
		else
			d->unfit_fd = fd;
	}
	if (d->watchdog.fd >= 0 && d->watchdog.device != d->watchdog.chosen)
		log_warning("watchdog %s runs: Device=%s is used once that is stopped%s", d->watchdog.device, d->watchdog.chosen,
			    d->watchdog.rests ? ", which it cannot be (nowayout): after the next boot" : "");
	/* One that runs on must not be let go: the last close would pet it once more (I2). */
	if (r == -ENODEV)
		notify_send("FDSTOREREMOVE=1\nFDNAME=watchdog");
}

/* Goes on with the epoch of an earlier process of this boot if the watchdog never stopped watching it. */
static void find_earlier_life(struct daemon *d)
{
	FILE *f = fopen(STATE_FILE, "re");
	char life[UUID_STR_LEN] = "", state[32] = "";
	bool armed, known = false;

	if (f) {
		known = fscanf(f, "%u %36s %31s %" SCNu64, &d->resume_epoch, life, state, &d->resume_seq) == 4 && uuid_parse(life, d->resume_life);
		(void)fclose(f);
	}
	adopt_watchdog(d, !known || !streq(state, "armed"));
	if (!known)
		return;
	/* That it rests is written once "disarmed" counts. */
	armed = streq(state, "armed") || (streq(state, "disarming") && !d->watchdog.rests);
	d->resume = (armed && d->watchdog.fd >= 0) || (!armed && (streq(state, "disarmed") || streq(state, "disarming")));
	if (d->resume)
		log_notice("going on with epoch %u%s", d->resume_epoch, armed ? ", the watchdog runs" : "");
}

static void be_real_time(void)
{
	struct sched_param param = { .sched_priority = 1 };

	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_warning("cannot lock memory (%s): a node that swaps may lose its lease", strerror(errno));
	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param) < 0)
		log_warning("no real-time scheduling (%s): going on without", strerror(errno));
}

static int start(struct daemon *d)
{
	static const struct volset_callbacks volset_cb = { .known = on_known, .volume = on_volume, .changed = on_changed };
	static const struct ring_callbacks ring_cb = { .view = on_view, .message = on_ring_message };
	char err[512] = "", root[4096];
	qb_loop_signal_handle sig[2];
	int r;

	r = vmslice_find_root(root, sizeof(root));
	if (r < 0) {
		log_err("cannot find systemd's control groups, so VMs could not be killed for certain: is systemd PID 1?");
		return r;
	}
	r = prover_start(root); /* while there is nothing of ours that it could keep open */
	if (r < 0)
		log_warning("cannot fork: %s: where VMs' disks are files on NFS, only the watchdog will prove their end", strerror(-r));
	be_real_time();
	d->loop = qb_loop_create();
	if (!d->loop || (r = vmslice_new(d->loop, root, &d->slice)) < 0 || (r = daemon_listen(d)) < 0 || (r = host_identity(d->host)) < 0 ||
	    (r = boot_identity(d->boot)) < 0 || (r = uuid_random(d->life)) < 0) {
		log_err("cannot start: %s", strerror(-r));
		return r;
	}
	watchdog_init(&d->watchdog, d->conf.watchdog, PET_FILE);
	(void)watchdog_record_read(WATCHDOG_RECORD, &d->measured); /* once, as a disk may hang later: a test that measures anything ends in a boot */
	(void)was_suspended(); /* from now on */
	find_earlier_life(d);
	d->adopted_ns = clock_now_ns();
	watch_for_outage(d);
	(void)qb_loop_signal_add(d->loop, QB_LOOP_HIGH, SIGTERM, d, on_signal, &sig[0]);
	(void)qb_loop_signal_add(d->loop, QB_LOOP_HIGH, SIGINT, d, on_signal, &sig[1]);
	r = volset_new(d->loop, &d->conf, &volset_cb, d, &d->volset, err, sizeof(err));
	if (r < 0) {
		log_err("%s", err);
		return r;
	}
	r = ring_new(d->loop, "kvm-ha-keeper", &ring_cb, d, &d->ring);
	if (r < 0) {
		log_err("cannot start the ring's thread: %s", strerror(-r));
		return r;
	}
	if (d->resume)
		on_clean(d);
	else
		vmslice_kill(d->slice, on_clean, d);
	return 0;
}

int main(int argc, char **argv)
{
	static struct daemon d = { .listen_fd = -1, .unfit_fd = -1 };
	const char *dir;
	int r = program_options(argc, argv, "ha-keeper", "Keeps this node's lease on the cluster's volumes.", &dir);

	if (r >= 0)
		return r;
	if (program_runs_already("ha-keeper", KEEPER_SOCKET, SOCK_SEQPACKET)) /* without the watchdog that one holds we would end all VMs, as of an earlier life */
		return PROGRAM_EXIT_USAGE;
	d.config_dir = dir;
	if (program_conf(dir, &d.conf) < 0 || start(&d) < 0)
		return 1;
	on_tick(&d);
	notify_send("STATUS=waiting for a quorum of the volumes");
	qb_loop_run(d.loop);
	return 0;
}
