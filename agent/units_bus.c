/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One bus connection, driven from the loop. libqb has no hook before it sleeps, so every way in (the fd, the timer, a call of ours that may
 * queue output) ends in units_update(), which tells the loop the fd's events and the next deadline.
 *
 * User callbacks may call everything, units_free() too: within a round from the loop that only silences, and the end of the round does
 * the rest. */
#include "agent/units_bus.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "agent/base/log.h"

#define PRIVATE_BUS "unix:path=/run/systemd/private" /* PID 1 itself: works without dbus, and with less delay */
#define CONNECT_MS 5000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000

static int32_t on_poll(int32_t fd, int32_t revents, void *user);
static void on_timer(void *user);

uint64_t units_bus_clock_us(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void units_bus_proven(struct units *u)
{
	u->is_proven = true;
	u->backoff_ms = 0;
}

static void disconnect(struct units *u)
{
	if (u->fd >= 0)
		(void)qb_loop_poll_del(u->loop, u->fd);
	u->fd = -1;
	if (u->bus)
		(void)sd_bus_close_unref(u->bus);
	u->bus = NULL;
}

static void lose(struct units *u, const char *why)
{
	log_line(u->is_proven ? LOG_LEVEL_WARNING : LOG_LEVEL_DEBUG, "connection to systemd lost: %s; connecting again", why);
	if (!u->is_proven)
		u->prefer_system = u->is_private;
	u->is_lost = false;
	u->connect_us = units_bus_clock_us() + u->backoff_ms * (uint64_t)US_PER_MS;
	u->backoff_ms = u->backoff_ms ? MIN(2 * u->backoff_ms, BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
	disconnect(u); /* first, so that nothing new is asked of it by a callback */
	units_request_end_all(u, "lost the connection to systemd");
}

static int on_subscribed(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units *u = user;

	if (sd_bus_message_is_method_error(m, NULL)) {
		log_warning("systemd refuses Subscribe: %s", sd_bus_message_get_error(m)->name);
		u->is_lost = true;
		return 0;
	}
	units_bus_proven(u);
	u->connect_us = UNITS_NEVER;
	return 0;
}

static int open_private(sd_bus **ret)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, PRIVATE_BUS);
	if (r >= 0)
		r = sd_bus_set_bus_client(bus, false); /* PID 1 is no message bus: no Hello */
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r >= 0 && (getsockopt(sd_bus_get_fd(bus), SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != 0))
		r = -EPERM;
	if (r < 0) {
		(void)sd_bus_close_unref(bus);
		return r;
	}
	*ret = bus;
	return 0;
}

static int subscribe(struct units *u)
{
	sd_bus_message *m = NULL;
	const char *sender = u->is_private ? NULL : UNITS_DESTINATION;
	int r = sd_bus_match_signal_async(u->bus, NULL, sender, UNITS_MANAGER_PATH, UNITS_MANAGER, "JobRemoved",
					  units_request_job_removed, NULL, u);

	if (r >= 0)
		r = sd_bus_message_new_method_call(u->bus, &m, UNITS_DESTINATION, UNITS_MANAGER_PATH, UNITS_MANAGER, "Subscribe");
	if (r >= 0)
		r = sd_bus_call_async(u->bus, NULL, m, on_subscribed, u, UNITS_CALL_MS * US_PER_MS);
	(void)sd_bus_message_unref(m);
	return r;
}

static void reconnect(struct units *u)
{
	int r = -ENOENT;

	u->is_private = u->is_proven = false;
	if (!u->prefer_system)
		r = open_private(&u->bus);
	u->is_private = r >= 0;
	u->prefer_system = false;
	if (r < 0)
		r = sd_bus_open_system(&u->bus);
	if (r >= 0)
		r = subscribe(u);
	u->connect_us = units_bus_clock_us() + CONNECT_MS * US_PER_MS;
	if (r < 0)
		lose(u, strerror(-r));
}

static void stop_timer(struct units *u)
{
	if (u->has_timer)
		(void)qb_loop_timer_del(u->loop, u->timer);
	u->has_timer = false;
}

static void units_destroy(struct units *u)
{
	units_request_drop_all(u);
	disconnect(u);
	stop_timer(u);
	free(u);
}

static uint64_t next_deadline_us(struct units *u)
{
	uint64_t due_us = u->connect_us, bus_us;

	for (const struct units_request *q = u->requests; q; q = q->next)
		due_us = MIN(due_us, q->deadline_us);
	if (u->bus && sd_bus_get_timeout(u->bus, &bus_us) >= 0)
		due_us = MIN(due_us, bus_us);
	return due_us;
}

/* A timer that fires too early is left alone: it does nothing but come here again. */
static int units_update(struct units *u)
{
	uint64_t due_us, now_us = units_bus_clock_us();
	int r = 0;

	if (u->bus) {
		int fd = sd_bus_get_fd(u->bus), events = sd_bus_get_events(u->bus);

		if (fd < 0 || events < 0)
			return fd < 0 ? fd : events;
		if (fd != u->fd && u->fd >= 0) {
			(void)qb_loop_poll_del(u->loop, u->fd);
			u->fd = -1;
		}
		if (u->fd < 0)
			r = qb_loop_poll_add(u->loop, QB_LOOP_MED, fd, events, u, on_poll);
		else if (events != u->events)
			r = qb_loop_poll_mod(u->loop, QB_LOOP_MED, fd, events, u, on_poll);
		if (r < 0)
			return r;
		u->fd = fd;
		u->events = events;
	}
	due_us = next_deadline_us(u);
	if (due_us == UNITS_NEVER || (u->has_timer && u->timer_us <= due_us))
		return 0;
	stop_timer(u);
	u->timer_us = MAX(due_us, now_us);
	r = qb_loop_timer_add(u->loop, QB_LOOP_MED, (u->timer_us - now_us) * 1000, u, on_timer, &u->timer);
	u->has_timer = r >= 0;
	return r;
}

static void round_run(struct units *u)
{
	int r;

	CHECK(!u->in_round);
	u->in_round = true;
	/* No longer open: stop before sd-bus answers our calls with errors of its own; lose() ends them in our words. */
	do {
		r = u->bus ? sd_bus_process(u->bus, NULL) : 0;
		if (u->bus && sd_bus_is_open(u->bus) <= 0)
			u->is_lost = true;
	} while (r > 0 && !u->is_lost && !u->is_freed);
	units_request_expire(u);
	if (u->bus && !u->is_freed) {
		if (r < 0 || u->is_lost)
			lose(u, r < 0 ? strerror(-r) : "closed by systemd");
		else if (u->connect_us <= units_bus_clock_us())
			lose(u, "no answer");
	}
	if (!u->bus && !u->is_freed && u->connect_us <= units_bus_clock_us())
		reconnect(u);
	if (!u->is_freed) {
		r = units_update(u);
		if (r < 0)
			lose(u, strerror(-r));
	}
	if (!u->is_freed && !u->bus && units_update(u) < 0)
		log_err("event loop refuses a timer: systemd is out of reach until the agent is restarted");
	u->in_round = false;
	if (u->is_freed)
		units_destroy(u);
}

static int32_t on_poll(int32_t fd, int32_t revents, void *user)
{
	round_run(user);
	return 0;
}

static void on_timer(void *user)
{
	struct units *u = user;

	u->has_timer = false;
	round_run(u);
}

void units_bus_wake(struct units *u)
{
	if (!u->in_round && units_update(u) < 0)
		u->is_lost = true; /* the next round sees it */
}

int units_new(qb_loop_t *loop, struct units **ret)
{
	struct units *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->loop = loop;
	u->fd = -1;
	u->in_round = true; /* no callback can come: there is no request yet */
	reconnect(u);
	u->in_round = false;
	r = units_update(u);
	if (r < 0) {
		units_destroy(u);
		return r;
	}
	*ret = u;
	return 0;
}

void units_free(struct units *u)
{
	if (!u)
		return;
	if (u->in_round)
		u->is_freed = true;
	else
		units_destroy(u);
}
