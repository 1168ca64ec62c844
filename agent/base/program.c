/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/program.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/base/log.h"

#define ANSWER_S 2
#define RUNS_PAUSE_S 1

int program_options(int argc, char **argv, const char *name, const char *purpose, const char **ret_dir)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "debug", no_argument, NULL, 'd' },
		{ "version", no_argument, NULL, 'V' },      { "help", no_argument, NULL, 'h' }, { 0 },
	};
	enum log_level level = LOG_LEVEL_INFO;
	int c;

	*ret_dir = CONF_DIR_DEFAULT;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			*ret_dir = optarg;
			break;
		case 'd':
			level = LOG_LEVEL_DEBUG;
			break;
		case 'V':
			(void)printf("%s %s\n", name, PACKAGE_VERSION);
			return 0;
		default:
			(void)fprintf(c == 'h' ? stdout : stderr,
				      "usage: %s [--config DIR] [--debug] [--version] [--help]\n%s Started by %s.service; see %s(8).\n", name, purpose, name,
				      name);
			return c == 'h' ? 0 : PROGRAM_EXIT_USAGE;
		}
	}
	log_init(name, level);
	return -1;
}

/* Both daemons answer a connection that is closed for writing by closing it. */
static bool answers(const char *socket_path, int type)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_S };
	_cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	char byte;

	return fd >= 0 && str_copy(addr.sun_path, sizeof(addr.sun_path), socket_path) && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	       shutdown(fd, SHUT_WR) == 0 && recv(fd, &byte, sizeof(byte), 0) >= 0;
}

bool program_runs_already(const char *name, const char *socket_path, int type)
{
	if (!answers(socket_path, type))
		return false;
	log_err("%s runs already: see `systemctl status %s`", name, name);
	(void)sleep(RUNS_PAUSE_S); /* systemd starts it again at once, and for ever: the other may be one that an operator started, and end */
	return true;
}

int program_conf(const char *dir, struct conf *ret)
{
	char err[512] = "";
	int r = conf_load(dir, NULL, ret, err, sizeof(err));

	if (r < 0) {
		log_err("%s", err);
		return r;
	}
	if (ret->self_id == 0) {
		log_err("this host's name \"%s\" is not in Nodes=: add it, or set [Node] Name=", ret->self_name);
		return -ENOENT;
	}
	return 0;
}

bool program_volumes_changed(const char *dir, const struct conf *conf)
{
	static struct conf now;
	char err[512] = "";

	return conf_load(dir, NULL, &now, err, sizeof(err)) == 0 &&
	       (now.n_volumes != conf->n_volumes || memcmp(now.volumes, conf->volumes, sizeof(now.volumes)) != 0);
}
