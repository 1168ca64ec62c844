/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When this node's host goes down. ha-leave.service is ordered after everything that a VM needs, so at shutdown its end is waited for before any of that is
 * stopped: it runs `ha-ctl node leave`, which asks here until nothing is left to wait for. Whether the host goes down at all, and to come up again, is what
 * systemd says of its jobs: a stop of that unit, of the agent or of the keeper for any other reason stops no VM. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/paths.h"

#define LOOK_MS 1000
#define ADOPT_MS 60000 /* an agent that has not found its node's VMs by then is not waited for: it has no keeper, or no volumes */

struct leaver {
	struct agentd *d;
	bool asking, marked, said_left;
	int64_t unfit_ns; /* since when the host goes down and this agent has not found its VMs yet */
};

struct leave_ask {
	struct leaver *l;
	server_answer_fn fn;
	void *user;
};

static const char *policy_name(enum leave_policy p) { return conf_shutdown_name((enum conf_shutdown)p); }

/* For the keeper, whose end comes last: VMs that are still there then are not left to a next start. */
static void mark(struct leaver *l, bool on)
{
	int fd;

	if (l->marked == on)
		return;
	if (on) {
		(void)unlink(PATHS_LEAVE_OVER); /* of another time */
		fd = open(PATHS_GOING_DOWN, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0) {
			log_warning("cannot write " PATHS_GOING_DOWN ": %s", strerror(errno));
			return;
		}
		(void)close(fd);
	} else if (unlink(PATHS_GOING_DOWN) < 0 && errno != ENOENT) {
		log_warning("cannot remove " PATHS_GOING_DOWN ": %s", strerror(errno));
		return;
	}
	l->marked = on;
}

static void tell_core(struct leaver *l, enum units_fate fate)
{
	struct agentd *d = l->d;
	bool down = fate != UNITS_STAYS_UP, was = d->core.leave.going;
	struct agent_event ev = { .kind = AGENT_EV_GOING_DOWN, .ok = down, .reboot = fate == UNITS_REBOOTS,
				  .leave_policy = (enum leave_policy)d->conf.shutdown, .limit_ms = d->conf.shutdown_ms };

	mark(l, down);
	if (!d->core_runs || (!down && !was && d->core.leave.known))
		return;
	agentd_event(d, &ev);
	if (down && !was)
		agentd_say(d, LOG_LEVEL_NOTICE, "this host %s: its VMs leave (ShutdownPolicy=%s)", ev.reboot ? "is rebooted" : "is shut down",
			   policy_name(ev.leave_policy));
	else if (!down && was)
		agentd_say(d, LOG_LEVEL_NOTICE, "this host is not shut down after all: it takes VMs again");
	l->said_left = l->said_left && down;
}

static json_object *progress(struct leaver *l)
{
	struct agentd *d = l->d;
	const struct leave *leave = &d->core.leave;
	json_object *o = server_ok();
	bool fit = d->core_runs && d->core.adopted, left = fit && agent_left(&d->core);

	l->unfit_ns = fit ? 0 : l->unfit_ns != 0 ? l->unfit_ns : clock_now_ns();
	json_object_object_add(o, "going_down", json_object_new_boolean(true));
	json_object_object_add(o, "left", json_object_new_boolean(left));
	json_object_object_add(o, "in_vain", json_object_new_boolean(!fit && clock_now_ns() - l->unfit_ns > ADOPT_MS * NS_PER_MS));
	json_object_object_add(o, "vms", json_object_new_int64(fit ? leave->left : 0));
	json_object_object_add(o, "timeout_ms", json_object_new_int64(d->conf.shutdown_ms));
	if (left && !l->said_left)
		agentd_say(d, LOG_LEVEL_NOTICE, "this host goes down: no VM of this node is left to wait for");
	l->said_left = left;
	return o;
}

static void on_fate(void *user, const char *error, enum units_fate fate)
{
	struct leave_ask *k = user;
	struct leaver *l = k->l;
	json_object *o;

	if (!k->fn)
		l->asking = false;
	if (!error)
		tell_core(l, fate);
	if (k->fn) {
		/* Once it goes down it goes on doing so for as long as systemd does not say otherwise. */
		if (error && !l->d->core.leave.going)
			o = server_error(true, "systemd does not say whether this host goes down: %s", error);
		else if (!error && fate == UNITS_STAYS_UP) {
			o = server_ok();
			json_object_object_add(o, "going_down", json_object_new_boolean(false));
		} else {
			o = progress(l);
		}
		k->fn(k->user, o);
		json_object_put(o);
	}
	free(k);
}

static int ask(struct leaver *l, server_answer_fn fn, void *user)
{
	struct leave_ask *k = malloc(sizeof(*k));
	int r;

	CHECK(k);
	*k = (struct leave_ask){ l, fn, user };
	r = units_fate(l->d->units, on_fate, k);
	if (r < 0)
		free(k);
	return r;
}

void leaver_request(struct leaver *l, server_answer_fn fn, void *user)
{
	json_object *o;
	int r = ask(l, fn, user);

	if (r == 0)
		return;
	o = l->d->core.leave.going ? progress(l) : server_error(true, "no connection to systemd at the moment: %s", strerror(-r));
	fn(user, o);
	json_object_put(o);
}

/* A catalog, or a mark, that says that this host goes down may be of a shutdown that was called off while no agent ran, or after ha-leave had ended. */
static void on_look(void *data)
{
	struct leaver *l = data;
	struct agentd *d = l->d;
	qb_loop_timer_handle h;

	if (!l->asking && d->core_runs && (l->marked || d->core.leave.going || (d->core.adopted && leave_said(&d->core))))
		l->asking = ask(l, NULL, NULL) == 0;
	CHECK(qb_loop_timer_add(d->loop, QB_LOOP_LOW, LOOK_MS * NS_PER_MS, l, on_look, &h) == 0);
}

static json_object *about_self(const struct agentd *d, bool on)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "command", json_object_new_string("node-leaving"));
	json_object_object_add(o, "node", json_object_new_string(d->conf.self_name));
	json_object_object_add(o, "on", json_object_new_boolean(on));
	json_object_object_add(o, "epoch", json_object_new_int64(d->core.epoch));
	return o;
}

void leaver_say(struct leaver *l, enum leave_policy policy, bool reboot)
{
	struct agentd *d = l->d;
	json_object *o = about_self(d, true);

	json_object_object_add(o, "policy", json_object_new_string(policy_name(policy)));
	json_object_object_add(o, "reboot", json_object_new_boolean(reboot));
	json_object_object_add(o, "freeze_ms", json_object_new_int64(d->conf.freeze_ms));
	agentd_request(d, o);
}

void leaver_take_back(struct leaver *l) { agentd_request(l->d, about_self(l->d, false)); }

int leaver_new(struct agentd *d, struct leaver **ret)
{
	struct leaver *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->d = d;
	l->marked = access(PATHS_GOING_DOWN, F_OK) == 0;
	on_look(l);
	*ret = l;
	return 0;
}
