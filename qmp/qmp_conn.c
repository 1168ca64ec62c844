/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct qmp, or the guest agent's protocol (guest_agent.c), on a UNIX socket and a qb_loop.
 *
 * A callback may free the connection it comes from. So every way in from the loop is a round: conn_enter(), work, conn_leave(); a free
 * within the round only silences the connection, and conn_leave() does the rest. */
#include "qmp/qmp_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define RETRY_MS 50
#define READ_SIZE 65536
#define CATCH_UP_READS 64 /* reads of READ_SIZE before a deadline is believed */

struct qmp_conn {
	qb_loop_t *loop;
	const struct qmp_wire *wire;
	void *proto; /* struct qmp, or what else speaks through it */
	struct sockaddr_un addr;
	int fd;
	bool is_polled;
	int events;
	qb_loop_timer_handle timer;
	bool has_timer;
	uint64_t timer_ms;   /* when it fires */
	uint64_t retry_ms;   /* next try to connect, while fd is -1 */
	int connect_errno;   /* of the last try */
	bool in_round, is_freed;
	pid_t peer_pid;
};

static void on_timer(void *user);
static int32_t on_poll(int32_t fd, int32_t revents, void *user);

static uint64_t clock_ms(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * MS_PER_S + (uint64_t)(ts.tv_nsec / NS_PER_MS);
}

static void conn_disconnect(struct qmp_conn *c)
{
	if (c->is_polled)
		(void)qb_loop_poll_del(c->loop, c->fd);
	c->is_polled = false;
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
}

static void conn_stop_timer(struct qmp_conn *c)
{
	if (c->has_timer)
		(void)qb_loop_timer_del(c->loop, c->timer);
	c->has_timer = false;
}

static void conn_destroy(struct qmp_conn *c)
{
	conn_disconnect(c);
	conn_stop_timer(c);
	c->wire->free(c->proto);
	free(c);
}

/* Tells the loop what we wait for now. A timer that fires too early is left alone: it does nothing but come here again. */
static int conn_update(struct qmp_conn *c)
{
	uint64_t due_ms = c->wire->deadline(c->proto), now_ms = clock_ms();
	const char *bytes;
	int events = POLLIN | (c->wire->output(c->proto, &bytes) > 0 ? POLLOUT : 0);

	if (c->fd >= 0 && (!c->is_polled || events != c->events)) {
		int r = c->is_polled ? qb_loop_poll_mod(c->loop, QB_LOOP_MED, c->fd, events, c, on_poll)
				     : qb_loop_poll_add(c->loop, QB_LOOP_MED, c->fd, events, c, on_poll);
		if (r < 0)
			return r;
		c->is_polled = true;
		c->events = events;
	}
	if (c->fd < 0)
		due_ms = MIN(due_ms, c->retry_ms);
	if (due_ms == QMP_NO_DEADLINE || (c->has_timer && c->timer_ms <= due_ms))
		return 0;
	conn_stop_timer(c);
	c->timer_ms = MAX(due_ms, now_ms);
	/* One millisecond more: clock_ms() rounds down. */
	if (qb_loop_timer_add(c->loop, QB_LOOP_MED, (c->timer_ms - now_ms + 1) * NS_PER_MS, c, on_timer, &c->timer) < 0)
		return -ENOMEM;
	c->has_timer = true;
	return 0;
}

static void conn_enter(struct qmp_conn *c)
{
	CHECK(!c->in_round);
	c->in_round = true;
}

static void conn_leave(struct qmp_conn *c)
{
	if (!c->wire->is_closed(c->proto) && conn_update(c) < 0)
		c->wire->close(c->proto, "event loop: out of memory");
	if (c->wire->is_closed(c->proto)) {
		conn_disconnect(c);
		conn_stop_timer(c);
	}
	c->in_round = false;
	if (c->is_freed)
		conn_destroy(c);
}

static void conn_fail(struct qmp_conn *c, const char *what, int err)
{
	char reason[128];

	(void)snprintf(reason, sizeof(reason), "%s: %s", what, strerror(err));
	c->wire->close(c->proto, reason);
}

/* A broken pipe is left to the reader: what QEMU said last, why it stopped, is still to be read. */
static void conn_write(struct qmp_conn *c)
{
	const char *bytes;
	size_t n = c->wire->output(c->proto, &bytes);
	ssize_t r;

	if (c->fd < 0 || n == 0)
		return;
	r = send(c->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (r >= 0)
		c->wire->sent(c->proto, (size_t)r);
	else if (errno == EPIPE || errno == ECONNRESET)
		c->wire->sent(c->proto, n);
}

/* Says whether there may be more to read. */
static bool conn_read(struct qmp_conn *c)
{
	char bytes[READ_SIZE];
	ssize_t n;

	if (c->fd < 0 || c->wire->is_closed(c->proto))
		return false;
	n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n > 0) {
		c->wire->feed(c->proto, bytes, (size_t)n);
		return true;
	}
	if (n == 0)
		c->wire->close(c->proto, "end of file");
	else if (errno != EAGAIN && errno != EINTR)
		conn_fail(c, "read", errno);
	return false;
}

static void conn_connect(struct qmp_conn *c, uint64_t now_ms)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int r;

	c->retry_ms = now_ms + RETRY_MS;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0) {
		conn_fail(c, "socket", errno);
		return;
	}
	do
		r = connect(c->fd, (const struct sockaddr *)&c->addr, sizeof(c->addr));
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		c->connect_errno = errno;
		conn_disconnect(c);
		/* EAGAIN: its queue of connections is full, an earlier client still holds it. */
		if (c->connect_errno != ENOENT && c->connect_errno != ECONNREFUSED && c->connect_errno != EAGAIN)
			conn_fail(c, "connect", c->connect_errno);
		return;
	}
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		c->peer_pid = peer.pid;
}

static int32_t on_poll(int32_t fd, int32_t revents, void *user)
{
	struct qmp_conn *c = user;

	conn_enter(c);
	(void)conn_read(c);
	conn_write(c);
	conn_leave(c);
	return 0;
}

/* If this process stood still, QEMU's answers may lie in the socket while their deadlines have passed: read first, then judge. */
static void on_timer(void *user)
{
	struct qmp_conn *c = user;
	uint64_t now_ms = clock_ms();

	c->has_timer = false;
	conn_enter(c);
	if (c->wire->deadline(c->proto) <= now_ms) {
		for (int i = 0; i < CATCH_UP_READS && conn_read(c); i++)
			conn_write(c);
		if (c->fd < 0 && c->connect_errno && !c->wire->is_closed(c->proto))
			conn_fail(c, "timeout: connect", c->connect_errno);
		c->wire->tick(c->proto, now_ms);
	}
	if (c->fd < 0 && c->retry_ms <= now_ms && !c->wire->is_closed(c->proto))
		conn_connect(c, now_ms);
	conn_write(c);
	conn_leave(c);
}

int qmp_conn_open(qb_loop_t *loop, const char *path, const struct qmp_wire *wire, void *proto, struct qmp_conn **ret)
{
	struct qmp_conn *c = calloc(1, sizeof(*c));
	int r = -ENOMEM;

	if (!c) {
		wire->free(proto);
		return -ENOMEM;
	}
	c->loop = loop;
	c->fd = -1;
	c->wire = wire;
	c->proto = proto;
	c->addr.sun_family = AF_UNIX;
	if (!str_copy(c->addr.sun_path, sizeof(c->addr.sun_path), path)) {
		r = -ENAMETOOLONG;
		goto fail;
	}
	r = conn_update(c); /* retry_ms is 0: the first try comes with the loop's next turn */
	if (r < 0)
		goto fail;
	*ret = c;
	return 0;
fail:
	conn_destroy(c);
	return r;
}

static void wire_feed(void *p, const void *bytes, size_t n) { qmp_feed(p, bytes, n); }
static size_t wire_output(const void *p, const char **ret) { return qmp_output(p, ret); }
static void wire_sent(void *p, size_t n) { qmp_sent(p, n); }
static void wire_tick(void *p, uint64_t now_ms) { qmp_tick(p, now_ms); }
static uint64_t wire_deadline(const void *p) { return qmp_deadline(p); }
static void wire_close(void *p, const char *reason) { qmp_close(p, reason); }
static void wire_drop(void *p) { qmp_drop(p); }
static void wire_free(void *p) { qmp_free(p); }
static bool wire_is_closed(const void *p) { return qmp_phase(p) == QMP_CLOSED; }

static const struct qmp_wire qmp_over_wire = { wire_feed, wire_output, wire_sent, wire_tick, wire_deadline, wire_close, wire_drop, wire_free, wire_is_closed };

int qmp_conn_new(qb_loop_t *loop, const char *path, uint32_t deadline_ms, const struct qmp_callbacks *cb, void *user, struct qmp_conn **ret)
{
	struct qmp *q;
	int r = qmp_new(cb, user, clock_ms(), deadline_ms, &q);

	return r < 0 ? r : qmp_conn_open(loop, path, &qmp_over_wire, q, ret);
}

void qmp_conn_free(struct qmp_conn *c)
{
	if (!c)
		return;
	c->wire->drop(c->proto);
	if (c->in_round)
		c->is_freed = true;
	else
		conn_destroy(c);
}

pid_t qmp_conn_peer_pid(const struct qmp_conn *c)
{
	return c->peer_pid;
}

void *qmp_conn_proto(struct qmp_conn *c) { return c->proto; }
uint64_t qmp_conn_now_ms(void) { return clock_ms(); }

void qmp_conn_asked(struct qmp_conn *c)
{
	if (c->in_round)
		return; /* a round writes and updates at its end */
	conn_write(c);
	if (conn_update(c) < 0)
		(void)shutdown(c->fd, SHUT_RDWR); /* no timer, no deadline: let the reader find the connection closed */
}

int qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	int r = qmp_execute(c->proto, clock_ms(), command, args, timeout_ms, fn, user);

	if (r == 0)
		qmp_conn_asked(c);
	return r;
}
