/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/base/util.h"

#define WAIT_MAX 16 /* more than a service has to say before PID 1 has read any of it */

static char waits[WAIT_MAX][256];
static unsigned n_waits;

/* Whether there is no use in trying again. */
static bool send_once(const char *lines, int fd)
{
	static int sock = -1;
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	struct iovec iov = { .iov_base = (char *)lines, .iov_len = strlen(lines) };
	struct msghdr m = { .msg_name = &addr, .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (!path || (*path != '/' && *path != '@') || !str_copy(addr.sun_path, sizeof(addr.sun_path), path))
		return true; /* not a service, or none of this systemd */
	if (sock < 0 && (sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
		return false;
	m.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (*path == '@')
		addr.sun_path[0] = '\0';
	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	return sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || (errno != EAGAIN && errno != ENOBUFS && errno != EINTR && errno != ECONNREFUSED && errno != ENOENT);
}

static bool send_waiting(void)
{
	while (n_waits > 0 && send_once(waits[0], -1))
		memmove(&waits[0], &waits[1], --n_waits * sizeof(waits[0]));
	return n_waits == 0;
}

bool notify_now(const char *lines, int fd) { return send_waiting() && send_once(lines, fd); }

void notify_send(const char *lines)
{
	if (!notify_now(lines, -1) && n_waits < WAIT_MAX)
		(void)str_copy(waits[n_waits++], sizeof(waits[0]), lines);
}
