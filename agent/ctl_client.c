/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/ctl_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define RETRY_MS 50
#define REMEDY "see `systemctl status ha-agent` and `journalctl -u ha-agent`"

static int64_t now_ms(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (int64_t)ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static int wait_for(int fd, short events, int64_t until_ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = until_ms - now_ms();
		int n = left > 0 ? poll(&p, 1, (int)left) : 0;

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* A full backlog of a UNIX socket is EAGAIN with nothing to poll for (connect(2)). */
static int connect_until(int fd, const struct sockaddr_un *addr, int64_t until_ms)
{
	while (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		if (now_ms() + RETRY_MS >= until_ms)
			return -ETIMEDOUT;
		(void)poll(NULL, 0, RETRY_MS);
	}
	return 0;
}

static int send_all(int fd, const char *data, size_t len, int64_t until_ms)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		int r;

		if (n >= 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		r = wait_for(fd, POLLOUT, until_ms);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Up to and without the newline; *ret is to free. */
static int read_answer(int fd, char **ret, size_t *ret_len, int64_t until_ms)
{
	_cleanup_free_ char *line = malloc(CTL_CLIENT_MAX_LINE);
	size_t len = 0;

	if (!line)
		return -ENOMEM;
	while (len < CTL_CLIENT_MAX_LINE) {
		ssize_t n = recv(fd, line + len, CTL_CLIENT_MAX_LINE - len, 0);
		char *end;
		int r;

		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n < 0) {
			r = wait_for(fd, POLLIN, until_ms);
			if (r < 0)
				return r;
			continue;
		}
		end = memchr(line + len, '\n', (size_t)n);
		len += (size_t)n;
		if (!end)
			continue;
		*ret_len = (size_t)(end - line);
		*ret = line;
		line = NULL;
		return 0;
	}
	return -EMSGSIZE;
}

static int parse(const char *line, size_t len, json_object **ret)
{
	struct json_tokener *tok = json_tokener_new_ex(CTL_CLIENT_MAX_DEPTH);
	json_object *o;
	bool whole;

	if (!tok)
		return -ENOMEM;
	o = json_tokener_parse_ex(tok, line, (int)len);
	whole = json_tokener_get_error(tok) == json_tokener_success && json_tokener_get_parse_end(tok) == len;
	json_tokener_free(tok);
	if (!whole || !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return -EPROTO;
	}
	*ret = o;
	return 0;
}

static int talk(const char *path, const char *text, int timeout_ms, char **ret, size_t *ret_len)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int64_t until_ms = now_ms() + timeout_ms;
	_cleanup_close_ int fd = -1;
	int r;

	if (!str_copy(addr.sun_path, sizeof(addr.sun_path), path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = connect_until(fd, &addr, until_ms);
	if (r == 0)
		r = send_all(fd, text, strlen(text), until_ms);
	if (r == 0)
		r = send_all(fd, "\n", 1, until_ms);
	return r < 0 ? r : read_answer(fd, ret, ret_len, until_ms);
}

static int explain(int r, const char *path, int timeout_ms, char *err, size_t err_size)
{
	switch (r) {
	case -ENOENT:
	case -ECONNREFUSED:
		(void)snprintf(err, err_size, "the agent does not run: nobody listens on %s; start it with `systemctl start ha-agent`, or %s", path,
			       REMEDY);
		return -ECONNREFUSED;
	case -ETIMEDOUT:
		(void)snprintf(err, err_size, "the agent does not answer on %s within %d ms; VMs run on without it; %s", path, timeout_ms, REMEDY);
		return r;
	case -EACCES:
	case -EPERM:
		(void)snprintf(err, err_size, "no access to the agent's socket %s; run ha-ctl as root", path);
		return -EACCES;
	case -ECONNRESET:
	case -EPIPE:
		(void)snprintf(err, err_size, "the agent closed %s without an answer; whether the command took effect is not known: look at `ha-ctl status`; %s",
			       path, REMEDY);
		return -ECONNRESET;
	case -EPROTO:
	case -EMSGSIZE:
		(void)snprintf(err, err_size, "what answers on %s is not an agent of this version (%s); compare `ha-ctl --version` with `ha-agent --version`",
			       path, r == -EPROTO ? "no JSON object" : "answer above 1 MiB");
		return -EPROTO;
	default:
		(void)snprintf(err, err_size, "cannot talk to the agent on %s: %s; %s", path, strerror(-r), REMEDY);
		return r;
	}
}

int ctl_client_ask(const char *path, json_object *request, int timeout_ms, json_object **ret, char *err, size_t err_size)
{
	const char *text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	_cleanup_free_ char *line = NULL;
	size_t len = 0;
	int r;

	if (strlen(text) >= CTL_CLIENT_MAX_LINE) {
		(void)snprintf(err, err_size, "the request is longer than 1 MiB; shorten it");
		return -EMSGSIZE;
	}
	r = talk(path, text, timeout_ms, &line, &len);
	if (r == 0)
		r = parse(line, len, ret);
	return r < 0 ? explain(r, path, timeout_ms, err, err_size) : 0;
}
