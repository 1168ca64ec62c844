/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a service says to a systemd that does not read: nothing waits for it. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/notify.h"
#include "agent/base/util.h"
#include "tests/tap.h"

static int sock;
static char text[512];

/* The next message, or "". Whether a descriptor came with it. */
static bool next(void)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd;

	text[MAX(n, 0)] = '\0';
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return false;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	(void)close(fd);
	return true;
}

int main(void)
{
	char dir[] = "/tmp/kvm-ha-notify.XXXXXX";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	unsigned n = 0, read = 0;

	TAP_OK(unsetenv("NOTIFY_SOCKET") == 0 && notify_now("WATCHDOG=1", -1), "no service: nobody to tell");
	CHECK(mkdtemp(dir));
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", dir);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(sock >= 0 && bind(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0 && setenv("NOTIFY_SOCKET", addr.sun_path, 1) == 0);

	TAP_OK(notify_now("FDSTORE=1", sock) && next(), "a descriptor goes with it");
	TAP_STR(text, "FDSTORE=1", "and the lines");
	while (n < 100000 && notify_now("WATCHDOG=1", -1))
		n++;
	TAP_OK(n > 0 && n < 100000, "systemd does not read: nobody waits for it (%u messages)", n);
	notify_send("READY=1");
	notify_send("STATUS=armed");
	TAP_OK(!notify_now("FDSTORE=1", sock), "whether it has taken a descriptor is known");
	while (!next() && streq(text, "WATCHDOG=1"))
		read++;
	TAP_OK(read == n && !*text, "it reads: what was sent, and no more");
	TAP_OK(notify_now("WATCHDOG=1", -1), "then it is told again");
	(void)next();
	TAP_STR(text, "READY=1", "first what it must know,");
	(void)next();
	TAP_STR(text, "STATUS=armed", "in order");
	(void)next();
	TAP_STR(text, "WATCHDOG=1", "and then the rest");
	(void)unlink(addr.sun_path);
	(void)rmdir(dir);
	return tap_done();
}
