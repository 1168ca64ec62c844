/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/process.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>

#define STAT_LEN 1024

/* State, parent and start time. The name, in parentheses, may hold anything, these too. */
static bool read_stat(pid_t pid, char *ret_state, int *ret_parent, uint64_t *ret_start)
{
	char path[64], text[STAT_LEN], *end;
	size_t n;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	end = strrchr(text, ')');
	/* Fields 3 and 4, and 22. */
	return end && sscanf(end + 1, " %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, ret_state, ret_parent, ret_start) == 3;
}

uint64_t process_start(pid_t pid)
{
	uint64_t start = 0;
	char state;
	int parent;

	return pid > 0 && read_stat(pid, &state, &parent, &start) && state != 'Z' && state != 'X' ? start : 0;
}

bool process_gone(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

int process_kill(int pidfd) { return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0 ? 0 : -errno; }

int process_open(pid_t pid, uint64_t start)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), r;
	uint64_t now;

	if (fd < 0)
		return -errno;
	now = process_start(pid);
	/* While it is not gone no other has its number. */
	if (process_gone(fd) || (now != 0 && now != start))
		r = -ESRCH;
	else
		r = now == 0 ? -EIO : fd;
	if (r < 0)
		(void)close(fd);
	return r;
}

int process_has_child(pid_t pid)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int found = 0;

	if (!d)
		return -1;
	while (!found && (e = readdir(d))) {
		uint64_t start;
		char state;
		int parent;

		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && read_stat((pid_t)atoi(e->d_name), &state, &parent, &start))
			found = parent == (int)pid && state != 'Z' && state != 'X';
	}
	(void)closedir(d);
	return found;
}

static bool read_net(pid_t pid, char *ret, size_t size)
{
	char path[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	n = readlink(path, ret, size - 1);
	if (n <= 0)
		return false;
	ret[n] = '\0';
	return true;
}

bool process_same_net(pid_t a, pid_t b)
{
	char x[64], y[64];

	return read_net(a, x, sizeof(x)) && read_net(b, y, sizeof(y)) && streq(x, y);
}

bool process_in_cgroup(pid_t pid, const char *name, bool below)
{
	char path[64], line[4200];
	size_t len = strlen(name);
	bool found = false;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		for (const char *p = line; !found && (p = strchr(p, '/')); )
			found = strncmp(++p, name, len) == 0 && (below ? p[len] == '/' : p[len] == '\0');
	}
	(void)fclose(f);
	return found;
}
