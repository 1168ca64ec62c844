/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-launch VM-UUID EPOCH TERM PROGRAM ARG...: the gate every VM start passes. Asks the agent, over its standard input, whether this start still is one of its own
 * (fence/launch.h), registers itself with the keeper and becomes the VM only on both their yes. A release closes the gate first and then kills what is registered or in the slice: a start under way cannot slip past. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "agent/base/log.h"
#include "agent/base/uuid.h"
#include "fence/keeper_proto.h"
#include "fence/launch.h"

#define GATE_TIMEOUT_S 2
#define EXIT_REFUSED 75 /* EX_TEMPFAIL: the agent tells it from qemu's own failures */

static int ask(int fd, const struct keeper_msg *ask_msg, struct keeper_msg *ret)
{
	struct timeval limit = { .tv_sec = GATE_TIMEOUT_S };
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = KEEPER_SOCKET };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || send(fd, ask_msg, sizeof(*ask_msg), MSG_NOSIGNAL) < 0)
		return -errno;
	if (recv(fd, ret, sizeof(*ret), 0) != sizeof(*ret))
		return errno ? -errno : -ECONNRESET;
	return ret->version == KEEPER_PROTO_VERSION && ret->kind == KEEPER_MSG_GATE ? 0 : -EPROTO;
}

/* The agent watches this process from its yes on, and says it once. 0, or negative errno. */
static int ask_agent(void)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	struct timeval limit = { .tv_sec = GATE_TIMEOUT_S };
	char what = LAUNCH_ASKS;
	struct iovec iov = { .iov_base = &what, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0), null;
	ssize_t n;

	if (self < 0 || setsockopt(STDIN_FILENO, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(self));
	memcpy(CMSG_DATA(c), &self, sizeof(self));
	if (sendmsg(STDIN_FILENO, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	n = recv(STDIN_FILENO, &what, 1, 0);
	if (n != 1 || what != LAUNCH_YES)
		return n < 0 ? -errno : -ECONNREFUSED;
	(void)close(self);
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return null < 0 || dup2(null, STDIN_FILENO) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	static struct keeper_msg msg = { .version = KEEPER_PROTO_VERSION, .kind = KEEPER_MSG_REGISTER }, answer;
	char *end;
	int fd, r;

	log_init("ha-launch", LOG_LEVEL_INFO);
	if (argc < 5 || !uuid_parse(argv[1], msg.reg.vm)) {
		log_err("usage: ha-launch VM-UUID EPOCH TERM PROGRAM ARG... (started by ha-agent)");
		return 64;
	}
	msg.reg.epoch = (uint32_t)strtoul(argv[2], &end, 10);
	if (*end != '\0' || msg.reg.epoch == 0) {
		log_err("VM %s: \"%s\" is no epoch", argv[1], argv[2]);
		return 64;
	}
	msg.reg.term = strtoull(argv[3], &end, 10);
	if (*end != '\0' || argv[3][0] == '\0') {
		log_err("VM %s: \"%s\" is no term of the gate", argv[1], argv[3]);
		return 64;
	}
	r = ask_agent();
	if (r < 0) {
		log_err("VM %s: not started: this is no start that ha-agent waits for (%s); use ha-ctl vm start, and restart an ha-agent of an older release", argv[1], strerror(-r));
		return EXIT_REFUSED;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	r = fd < 0 ? -errno : ask(fd, &msg, &answer);
	if (r < 0) {
		log_err("VM %s: not started: the keeper does not answer (%s); see systemctl status ha-keeper", argv[1], strerror(-r));
		return EXIT_REFUSED;
	}
	if (!answer.gate.ok) {
		log_err("VM %s: not started: %.*s", argv[1], KEEPER_TEXT_LEN, answer.gate.text);
		return EXIT_REFUSED;
	}
	execv(argv[4], argv + 4);
	log_err("VM %s: cannot execute %s: %s", argv[1], argv[4], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
