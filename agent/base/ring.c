/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/ring.h"

#include <corosync/cmap.h>
#include <corosync/cpg.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "agent/base/log.h"

#define RECONNECT_MS 200
#define RETRY_MS 20

/* What the thread says to the loop; a message's bytes follow. */
struct note {
	enum { NOTE_VIEW, NOTE_MESSAGE, NOTE_ADDRESS } kind;
	bool up, encrypted;
	uint32_t node;
	uint64_t view;
};

struct ring {
	qb_loop_t *loop;
	struct ring_callbacks cb;
	void *user;
	struct cpg_name group;
	int loop_fd, thread_fd; /* the two ends of the pair */
	pthread_t thread;
	bool up;
	char address[256];
	uint8_t *rx; /* the loop's buffer: sizeof(struct note) + RING_MAX_MESSAGE */

	/* the thread's */
	cpg_handle_t handle;
	bool connected, encrypted;
	uint64_t view;
	uint8_t *out;
};

static void tell(struct ring *r, const struct note *n, const void *data, size_t len)
{
	struct iovec iov[2] = { { (void *)n, sizeof(*n) }, { (void *)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = data ? 2 : 1 };

	/* The thread may wait for the loop, never the other way round. */
	while (sendmsg(r->thread_fd, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

static void tell_view(struct ring *r)
{
	struct note n = { .kind = NOTE_VIEW, .up = r->connected, .view = r->view, .encrypted = r->encrypted };

	tell(r, &n, NULL, 0);
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t node, uint32_t pid, void *msg, size_t len)
{
	struct note n = { .kind = NOTE_MESSAGE, .node = node };
	void *context;

	if (cpg_context_get(handle, &context) == CS_OK && len <= RING_MAX_MESSAGE)
		tell(context, &n, msg, len);
}

static void on_group(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members, size_t n_members,
		     const struct cpg_address *left, size_t n_left, const struct cpg_address *joined, size_t n_joined)
{
	/* Processes come and go with restarts; only the ring's membership means something. */
}

static void on_totem(cpg_handle_t handle, struct cpg_ring_id ring_id, uint32_t n, const uint32_t *members)
{
	void *context;
	struct ring *r;

	if (cpg_context_get(handle, &context) != CS_OK)
		return;
	r = context;
	r->view = 0;
	for (uint32_t i = 0; i < n; i++)
		if (members[i] >= 1 && members[i] <= 64)
			r->view |= 1ULL << (members[i] - 1);
	tell_view(r);
}

static bool ring_is_encrypted(void)
{
	cmap_handle_t cmap;
	char *cipher = NULL;
	bool yes = false;

	if (cmap_initialize(&cmap) != CS_OK)
		return false;
	if (cmap_get_string(cmap, "totem.crypto_cipher", &cipher) == CS_OK) {
		yes = !streq(cipher, "none") && !streq(cipher, "");
		free(cipher);
	}
	(void)cmap_finalize(cmap);
	return yes;
}

static void tell_address(struct ring *r)
{
	struct note n = { .kind = NOTE_ADDRESS };
	cmap_handle_t cmap;
	uint32_t self, id;
	char key[CMAP_KEYNAME_MAXLEN], *address = NULL;

	if (cpg_local_get(r->handle, &self) != CS_OK || cmap_initialize(&cmap) != CS_OK)
		return;
	for (unsigned i = 0; i < 64 && !address; i++) {
		(void)snprintf(key, sizeof(key), "nodelist.node.%u.nodeid", i);
		if (cmap_get_uint32(cmap, key, &id) != CS_OK || id != self)
			continue;
		(void)snprintf(key, sizeof(key), "nodelist.node.%u.ring0_addr", i);
		if (cmap_get_string(cmap, key, &address) != CS_OK)
			address = NULL;
	}
	(void)cmap_finalize(cmap);
	if (address && strlen(address) < sizeof(r->address))
		tell(r, &n, address, strlen(address));
	free(address);
}

static bool ring_connect(struct ring *r)
{
	cpg_model_v1_data_t model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = on_deliver,
		.cpg_confchg_fn = on_group,
		.cpg_totem_confchg_fn = on_totem,
		.flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF,
	};

	if (cpg_model_initialize(&r->handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, r) != CS_OK)
		return false;
	if (cpg_join(r->handle, &r->group) != CS_OK) {
		(void)cpg_finalize(r->handle);
		return false;
	}
	r->encrypted = ring_is_encrypted();
	r->connected = true;
	tell_address(r);
	return true;
}

static void ring_disconnect(struct ring *r)
{
	(void)cpg_finalize(r->handle);
	r->connected = false;
	r->view = 0;
	tell_view(r);
}

/* Returns false when the connection is lost. */
static bool multicast(struct ring *r, size_t len)
{
	struct iovec iov = { r->out, len };
	cs_error_t err;

	for (int tries = 0; tries < 100; tries++) {
		err = cpg_mcast_joined(r->handle, CPG_TYPE_AGREED, &iov, 1);
		if (err != CS_ERR_TRY_AGAIN)
			return err == CS_OK || err == CS_ERR_TOO_BIG;
		/* Back off, but go on delivering: the queue empties no other way. */
		if (cpg_dispatch(r->handle, CS_DISPATCH_ALL) != CS_OK)
			return false;
		(void)poll(NULL, 0, RETRY_MS);
	}
	return true; /* dropped */
}

/* One wait and what came of it. Returns false when the loop has closed its end. */
static bool serve(struct ring *r)
{
	struct pollfd fds[2] = { { .fd = r->thread_fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	bool lost = false;

	if (r->connected)
		(void)cpg_fd_get(r->handle, &fds[1].fd);
	if (poll(fds, 2, r->connected ? -1 : RECONNECT_MS) < 0 && errno != EINTR)
		return false;
	if (fds[0].revents) {
		ssize_t n = recv(r->thread_fd, r->out, RING_MAX_MESSAGE, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0 && r->connected)
			lost = !multicast(r, (size_t)n);
	}
	if (r->connected && fds[1].revents)
		lost = lost || cpg_dispatch(r->handle, CS_DISPATCH_ALL) != CS_OK;
	if (lost)
		ring_disconnect(r);
	else if (!r->connected)
		(void)ring_connect(r);
	return true;
}

static void *ring_thread(void *arg)
{
	struct ring *r = arg;

	while (serve(r))
		;
	if (r->connected)
		(void)cpg_finalize(r->handle);
	return NULL;
}

static int32_t on_pair(int32_t fd, int32_t revents, void *data)
{
	struct ring *r = data;
	struct note n;

	for (int i = 0; i < 64; i++) {
		ssize_t len = recv(fd, r->rx, sizeof(n) + RING_MAX_MESSAGE, MSG_DONTWAIT);

		if (len < (ssize_t)sizeof(n))
			break;
		memcpy(&n, r->rx, sizeof(n));
		if (n.kind == NOTE_MESSAGE) {
			r->cb.message(r->user, n.node, r->rx + sizeof(n), (size_t)len - sizeof(n));
			continue;
		}
		if (n.kind == NOTE_ADDRESS) {
			size_t used = MIN((size_t)len - sizeof(n), sizeof(r->address) - 1);

			memcpy(r->address, r->rx + sizeof(n), used);
			r->address[used] = '\0';
			continue;
		}
		r->up = n.up;
		r->cb.view(r->user, n.up, n.view, n.encrypted);
	}
	return 0;
}

int ring_new(qb_loop_t *loop, const char *group, const struct ring_callbacks *cb, void *user, struct ring **ret)
{
	struct ring *r = calloc(1, sizeof(*r));
	int size = 4 << 20, fds[2];

	if (!r)
		return -ENOMEM;
	*r = (struct ring){ .loop = loop, .cb = *cb, .user = user };
	r->group.length = (size_t)snprintf(r->group.value, sizeof(r->group.value), "%s", group);
	r->rx = malloc(sizeof(struct note) + RING_MAX_MESSAGE);
	r->out = malloc(RING_MAX_MESSAGE);
	if (!r->rx || !r->out || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		free(r->rx);
		free(r->out);
		free(r);
		return -ENOMEM;
	}
	r->loop_fd = fds[0];
	r->thread_fd = fds[1];
	for (int i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			(void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (qb_loop_poll_add(loop, QB_LOOP_MED, r->loop_fd, POLLIN, r, on_pair) != 0 || pthread_create(&r->thread, NULL, ring_thread, r) != 0) {
		(void)qb_loop_poll_del(loop, r->loop_fd);
		(void)close(fds[0]);
		(void)close(fds[1]);
		free(r->rx);
		free(r->out);
		free(r);
		return -EAGAIN;
	}
	*ret = r;
	return 0;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	(void)qb_loop_poll_del(r->loop, r->loop_fd);
	(void)shutdown(r->loop_fd, SHUT_RDWR);
	(void)close(r->loop_fd);
	/* Not joined: it may be inside a call that corosync does not answer. The process is about to end. */
	(void)pthread_detach(r->thread);
}

const char *ring_address(const struct ring *r) { return r ? r->address : ""; }

int ring_send(struct ring *r, const void *data, size_t len)
{
	if (!r->up)
		return -ENOTCONN;
	if (len > RING_MAX_MESSAGE)
		return -EMSGSIZE;
	if (send(r->loop_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}
