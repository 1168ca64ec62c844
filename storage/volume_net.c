/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "storage/backend.h"

static void watch_tick(void *data);

static void watch_arm(struct net_watch *w)
{
	CHECK(qb_loop_timer_add(w->loop, QB_LOOP_HIGH, NET_TICK_MS * NS_PER_MS, w, watch_tick, &w->tick) == 0);
}

static void watch_tick(void *data)
{
	struct net_watch *w = data;

	watch_arm(w);
	w->service(w->user, 0);
}

static int32_t watch_event(int32_t fd, int32_t revents, void *data)
{
	struct net_watch *w = data;
	struct epoll_event event;

	if (epoll_wait(fd, &event, 1, 0) == 1)
		w->service(w->user, (int)event.events);
	return 0;
}

int net_watch_init(struct net_watch *w, qb_loop_t *loop, void (*service)(void *user, int revents), void *user)
{
	int r;

	*w = (struct net_watch){ .loop = loop, .service = service, .user = user, .fd = -1 };
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epoll_fd < 0)
		return -errno;
	r = qb_loop_poll_add(loop, QB_LOOP_HIGH, w->epoll_fd, POLLIN, w, watch_event);
	if (r < 0) {
		(void)close(w->epoll_fd);
		w->epoll_fd = -1;
		return r;
	}
	watch_arm(w);
	return 0;
}

void net_watch_deinit(struct net_watch *w)
{
	if (w->epoll_fd < 0)
		return;
	(void)qb_loop_timer_del(w->loop, w->tick);
	(void)qb_loop_poll_del(w->loop, w->epoll_fd);
	(void)close(w->epoll_fd);
	w->epoll_fd = -1;
}

void net_discard_on_close(int fd)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void net_watch_set(struct net_watch *w, int fd, int events)
{
	struct epoll_event event = { .events = (uint32_t)events };

	/* From the first moment on: what a daemon that is killed had not sent must not go out later, when its successor has written already. */
	if (fd >= 0 && fd != w->fd)
		net_discard_on_close(fd);
	if (w->fd >= 0 && (fd != w->fd || events == 0)) {
		/* fails if the library closed it: then it is out of the set already */
		(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
		w->fd = -1;
	}
	if (fd < 0 || events == 0)
		return;
	/* a socket closed and opened again under one number is not in the set any more */
	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
		(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	w->fd = fd;
}
