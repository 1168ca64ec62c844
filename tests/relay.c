/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAIRS_MAX 32
#define BUF_LEN (4U << 20) /* longer than any request */
#define ISCSI_HEADER 48
#define ISCSI_COMMAND 0x01
#define SCSI_WRITE16 0x8a
#define RPC_HEADER 28
#define NFS_PROGRAM 100003
#define NFS_WRITE 7

struct pair {
	int client, server; /* -1: free, or the client is gone */
	uint8_t *request;   /* what the client sent and the server has not got */
	size_t len, passed; /* passed: whole requests that may go */
};

static struct {
	enum relay_kind kind;
	int listen_fd, told_fd;
	uint16_t to_port;
	bool hold, hangs;
	bool pass; /* what is held has gone to the server */
	uint32_t refuse; /* NFS: the status that writes are answered with; 0: the server answers */
	struct pair pair[PAIRS_MAX];
} relay;

static void die(const char *what)
{
	printf("Bail out! relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* Length of the request at p, 0 if more of it is needed to tell. No digests are used on a relayed path. */
static size_t request_len(const uint8_t *p, size_t n)
{
	size_t len;

	if (relay.kind == RELAY_ISCSI)
		len = n < ISCSI_HEADER ? 0 : ISCSI_HEADER + 4U * p[4] + ((get32(p + 4) & 0xffffff) + 3) / 4 * 4;
	else
		len = n < 4 ? 0 : 4 + (get32(p) & 0x7fffffff);
	return len <= n ? len : 0;
}

static bool is_write(const uint8_t *p, size_t len)
{
	if (relay.kind == RELAY_ISCSI)
		return (p[0] & 0x3f) == ISCSI_COMMAND && p[32] == SCSI_WRITE16;
	return len >= RPC_HEADER && get32(p + 8) == 0 && get32(p + 16) == NFS_PROGRAM && get32(p + 24) == NFS_WRITE;
}

static void send_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return; /* its end is seen by poll */
		p += sent;
		n -= (size_t)sent;
	}
}

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* An accepted reply without a verifier, and WRITE3resfail without attributes (RFC 5531, RFC 1813). */
static void refuse(const struct pair *x, const uint8_t *request)
{
	uint8_t reply[4 + 24 + 12] = { 0 };

	put32(reply, 0x80000000U | (sizeof(reply) - 4));
	memcpy(reply + 4, request + 4, 4);
	put32(reply + 8, 1);
	put32(reply + 28, relay.refuse);
	send_all(x->client, reply, sizeof(reply));
}

static void forward(struct pair *x)
{
	size_t len;

	while (!relay.hangs && (len = request_len(x->request + x->passed, x->len - x->passed)) > 0) {
		if (relay.hold && is_write(x->request + x->passed, len)) {
			relay.hold = false;
			relay.hangs = true;
			if (write(relay.told_fd, "h", 1) != 1)
				die("pipe");
			x->passed += relay.pass ? len : 0;
			break;
		}
		if (relay.refuse != 0 && is_write(x->request + x->passed, len)) {
			refuse(x, x->request + x->passed);
			x->len -= len;
			memmove(x->request + x->passed, x->request + x->passed + len, x->len - x->passed);
			continue;
		}
		x->passed += len;
	}
	send_all(x->server, x->request, x->passed);
	memmove(x->request, x->request + x->passed, x->len - x->passed);
	x->len -= x->passed;
	x->passed = 0;
}

/* A server that is gone resets its client; a client that is gone leaves what it had sent. */
static void pair_end(struct pair *x)
{
	struct linger reset = { .l_onoff = 1 };

	if (x->client >= 0) {
		(void)setsockopt(x->client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		(void)close(x->client);
	}
	(void)close(x->server);
	free(x->request);
	x->request = NULL;
}

static void pair_new(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(relay.to_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pair *x = relay.pair;
	int client = accept4(relay.listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (client < 0)
		return;
	while (x < relay.pair + PAIRS_MAX && x->request)
		x++;
	if (x == relay.pair + PAIRS_MAX)
		die("too many connections");
	*x = (struct pair){ .client = client, .server = tcp(), .request = malloc(BUF_LEN) };
	if (!x->request)
		die("malloc");
	if (connect(x->server, (struct sockaddr *)&to, sizeof(to)) < 0)
		pair_end(x);
}

static void from_client(struct pair *x)
{
	ssize_t n = recv(x->client, x->request + x->len, BUF_LEN - x->len, 0);

	if (n > 0) {
		x->len += (size_t)n;
		forward(x);
		return;
	}
	(void)close(x->client);
	x->client = -1;
	(void)shutdown(x->server, SHUT_WR); /* all it had sent has gone before */
}

static void from_server(struct pair *x)
{
	uint8_t buf[65536];
	ssize_t n = recv(x->server, buf, sizeof(buf), 0);

	if (n <= 0)
		pair_end(x);
	else if (x->client >= 0)
		send_all(x->client, buf, (size_t)n);
}

static void told(int signal_fd)
{
	struct signalfd_siginfo info;

	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	relay.hold = info.ssi_signo == SIGUSR1 && info.ssi_int <= 0;
	relay.pass = relay.hold && info.ssi_int < 0;
	relay.refuse = info.ssi_signo == SIGUSR1 && info.ssi_int > 0 ? (uint32_t)info.ssi_int : 0;
	if (info.ssi_signo == SIGUSR1) {
		if (write(relay.told_fd, "k", 1) != 1)
			die("pipe");
		return;
	}
	relay.hangs = false;
	for (struct pair *x = relay.pair; x < relay.pair + PAIRS_MAX; x++)
		if (x->request)
			forward(x);
}

static _Noreturn void run(int signal_fd)
{
	for (;;) {
		struct pollfd p[2 + 2 * PAIRS_MAX] = { { .fd = signal_fd, .events = POLLIN }, { .fd = relay.hangs ? -1 : relay.listen_fd, .events = POLLIN } };

		for (unsigned i = 0; i < PAIRS_MAX; i++) {
			const struct pair *x = &relay.pair[i];

			p[2 + 2 * i] = (struct pollfd){ .fd = x->request && !relay.hangs ? x->client : -1, .events = POLLIN };
			p[3 + 2 * i] = (struct pollfd){ .fd = x->request && !relay.hangs ? x->server : -1, .events = POLLIN };
		}
		if (poll(p, 2 + 2 * PAIRS_MAX, -1) < 0)
			continue;
		if (p[0].revents) {
			told(signal_fd);
			continue; /* what the rest says is of before */
		}
		for (unsigned i = 0; i < PAIRS_MAX && !relay.hangs; i++) {
			if (p[2 + 2 * i].revents)
				from_client(&relay.pair[i]);
			if (p[3 + 2 * i].revents && !relay.hangs)
				from_server(&relay.pair[i]);
		}
		if (p[1].revents && !relay.hangs)
			pair_new();
	}
}

void relay_start(struct relay *r, enum relay_kind kind, const char *ip, uint16_t port, uint16_t to_port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(ip) };
	int pipes[2], one = 1, fd = tcp();
	sigset_t set;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 16) < 0)
		die("listen");
	if (pipe(pipes) < 0)
		die("pipe");
	r->pid = fork();
	if (r->pid < 0)
		die("fork");
	if (r->pid > 0) {
		(void)close(fd);
		(void)close(pipes[1]);
		r->held_fd = pipes[0];
		return;
	}
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigaddset(&set, SIGUSR2);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	relay.kind = kind;
	relay.listen_fd = fd;
	relay.told_fd = pipes[1];
	relay.to_port = to_port;
	run(signalfd(-1, &set, SFD_CLOEXEC));
}

void relay_stop(struct relay *r)
{
	(void)kill(r->pid, SIGKILL);
	(void)waitpid(r->pid, NULL, 0);
	(void)close(r->held_fd);
}

static void tell(const struct relay *r, int value)
{
	char c;

	if (sigqueue(r->pid, SIGUSR1, (union sigval){ .sival_int = value }) < 0 || read(r->held_fd, &c, 1) != 1 || c != 'k')
		die("tell");
}

void relay_hold(const struct relay *r)
{
	tell(r, 0);
}

void relay_hold_answer(const struct relay *r)
{
	tell(r, -1);
}

void relay_refuse(const struct relay *r, uint32_t status)
{
	tell(r, (int)status);
}

bool relay_holds(const struct relay *r, int patience_ms)
{
	struct pollfd p = { .fd = r->held_fd, .events = POLLIN };
	char c;

	return poll(&p, 1, patience_ms) == 1 && read(r->held_fd, &c, 1) == 1 && c == 'h';
}

void relay_release(const struct relay *r)
{
	if (kill(r->pid, SIGUSR2) < 0)
		die("release");
}
