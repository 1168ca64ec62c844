/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/permit.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fence/launch.h"

struct permit {
	qb_loop_t *loop;
	int fd; /* -1: used */
	permit_fn fn;
	void *user;
};

static void end(struct permit *p)
{
	if (p->fd < 0)
		return;
	(void)qb_loop_poll_del(p->loop, p->fd);
	(void)close(p->fd);
	p->fd = -1;
}

/* Returns the pidfd, or -1: that was no launcher. */
static int read_ask(int fd, pid_t *ret_pid)
{
	union { char buf[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char what = 0;
	struct iovec iov = { .iov_base = &what, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int pidfd = -1;
	struct ucred cred = { 0 };

	for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && pidfd < 0)
			memcpy(&pidfd, CMSG_DATA(c), sizeof(pidfd));
	}
	*ret_pid = cred.pid;
	if (n == 1 && what == LAUNCH_ASKS && cred.pid > 0 && pidfd >= 0)
		return pidfd;
	if (pidfd >= 0)
		(void)close(pidfd);
	return -1;
}

static int32_t on_asked(int32_t fd, int32_t revents, void *data)
{
	struct permit *p = data;
	char yes = LAUNCH_YES;
	pid_t pid;
	int pidfd = read_ask(fd, &pid);

	/* Its last word before the launcher goes on: a yes that cannot be sent is a no to it. */
	if (pidfd >= 0 && p->fn(p->user, pid, pidfd))
		(void)send(fd, &yes, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	end(p);
	return 0;
}

int permit_new(qb_loop_t *loop, permit_fn fn, void *user, struct permit **ret, int *ret_in)
{
	struct permit *p = calloc(1, sizeof(*p));
	int fd[2], on = 1, r;

	if (!p)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0) {
		r = -errno;
		free(p);
		return r;
	}
	*p = (struct permit){ .loop = loop, .fd = fd[0], .fn = fn, .user = user };
	r = setsockopt(fd[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ? -errno : qb_loop_poll_add(loop, QB_LOOP_HIGH, fd[0], POLLIN, p, on_asked);
	if (r < 0) {
		(void)close(fd[0]);
		(void)close(fd[1]);
		free(p);
		return r;
	}
	*ret = p;
	*ret_in = fd[1];
	return 0;
}

void permit_free(struct permit *p)
{
	if (!p)
		return;
	end(p);
	free(p);
}
