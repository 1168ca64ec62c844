/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/vmslice.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "agent/base/held.h"
#include "agent/base/log.h"
#include "agent/base/orphans.h"
#include "agent/base/process.h"
#include "agent/base/uuid.h"
#include "storage/format.h"

#define AGAIN_MS 10

struct process {
	pid_t pid;
	int fd;        /* pidfd */
	bool noted;    /* what it has open when it is killed (agent/base/held.h) */
	bool known;    /* whose it is: */
	uint32_t mark; /* format_vm_mark */
};

struct vmslice {
	qb_loop_t *loop;
	char dir[PATH_MAX];
	struct process process[VMSLICE_MAX];
	unsigned n;
	void (*silent)(void *user);
	void *user;
	qb_loop_timer_handle timer;
	bool waits_told;
	bool unnoted; /* a process was killed of which it is not known what it had open: nothing is proven any more */
};

static int pidfd_open_(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static int pidfd_getfd_(int pidfd, int fd) { return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0); }
static int pidfd_signal(int pidfd, int sig) { return (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0); }

/* Does the hierarchy below dir hold PID 1 in its init.scope? */
static bool is_root(const char *dir)
{
	char path[PATH_MAX];
	FILE *f;
	int pid = 0;

	if ((size_t)snprintf(path, sizeof(path), "%s/init.scope/cgroup.procs", dir) >= sizeof(path))
		return false;
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fscanf(f, "%d", &pid) == 1 && pid != 1)
		;
	(void)fclose(f);
	return pid == 1;
}

int vmslice_find_root(char *ret, size_t size)
{
	static const char *const mount[] = { "/sys/fs/cgroup/systemd", "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	char line[PATH_MAX], *prefix, *end;
	FILE *f;

	for (size_t m = 0; m < ARRAY_SIZE(mount); m++)
		if (is_root(mount[m]))
			return (size_t)snprintf(ret, size, "%s", mount[m]) < size ? 0 : -ENAMETOOLONG;
	/* A container without a cgroup namespace sees itself below its host's path. */
	f = fopen("/proc/1/cgroup", "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		prefix = strstr(line, ":/");
		end = strstr(line, "/init.scope");
		if (!prefix || !end)
			continue;
		*end = '\0';
		for (size_t m = 0; m < ARRAY_SIZE(mount); m++) {
			if ((size_t)snprintf(ret, size, "%s%s", mount[m], prefix + 1) < size && is_root(ret)) {
				(void)fclose(f);
				return 0;
			}
		}
	}
	(void)fclose(f);
	return -ENOENT;
}

int vmslice_new(qb_loop_t *loop, const char *root, struct vmslice **ret)
{
	struct vmslice *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	/* systemd nests slices by the dashes in their names. */
	(void)snprintf(s->dir, sizeof(s->dir), "%.4000s/kvmha.slice/" VMSLICE_UNIT, root);
	*ret = s;
	return 0;
}

void vmslice_free(struct vmslice *s)
{
	if (!s)
		return;
	if (s->timer)
		(void)qb_loop_timer_del(s->loop, s->timer);
	for (unsigned i = 0; i < s->n; i++)
		(void)close(s->process[i].fd);
	free(s);
}

static bool gone(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void forget_gone(struct vmslice *s)
{
	for (unsigned i = 0; i < s->n;) {
		if (!gone(s->process[i].fd)) {
			i++;
			continue;
		}
		(void)close(s->process[i].fd);
		s->process[i] = s->process[--s->n];
	}
}

/* Of a process that two say different things of nothing is known. */
static int add(struct vmslice *s, pid_t pid, bool known, uint32_t mark)
{
	int fd;

	for (unsigned i = 0; i < s->n; i++)
		if (s->process[i].pid == pid && !gone(s->process[i].fd)) {
			s->process[i].known = s->process[i].known && known && s->process[i].mark == mark;
			return 0;
		}
	if (s->n == VMSLICE_MAX)
		forget_gone(s);
	if (s->n == VMSLICE_MAX)
		return -EMFILE;
	fd = pidfd_open_(pid);
	if (fd < 0)
		return -errno;
	s->process[s->n++] = (struct process){ .pid = pid, .fd = fd, .known = known, .mark = mark };
	return 0;
}

int vmslice_register(struct vmslice *s, pid_t pid, const uint8_t vm[16]) { return add(s, pid, true, format_vm_mark(vm)); }

int vmslice_adopt(struct vmslice *s, pid_t pid, uint64_t start, const uint8_t vm[16])
{
	int fd = process_open(pid, start), r;

	if (fd < 0)
		return fd;
	r = add(s, pid, true, format_vm_mark(vm)); /* of that number there is no other while this one is not reaped, and then ours is readable, too */
	if (r == 0 && process_gone(fd))
		r = -ESRCH;
	(void)close(fd);
	if (r < 0)
		(void)vmslice_disown(s, pid);
	return r;
}

int vmslice_disown(struct vmslice *s, pid_t pid)
{
	if (s->silent)
		return -EBUSY;
	for (unsigned i = 0; i < s->n; i++)
		if (s->process[i].pid == pid) {
			(void)close(s->process[i].fd);
			s->process[i] = s->process[--s->n];
			break;
		}
	return 0;
}

/* The VM whose unit a control group is. */
static bool vm_of(const char *name, uint8_t ret[16])
{
	static const char prefix[] = VMSLICE_VM_PREFIX;
	size_t len = strlen(name), skip = sizeof(prefix) - 1;
	char uuid[UUID_STR_LEN];
	const char *suffix = name + skip + sizeof(uuid) - 1;

	if (len < skip + sizeof(uuid) || strncmp(name, prefix, skip) != 0 || (!streq(suffix, ".service") && !streq(suffix, ".scope")))
		return false;
	memcpy(uuid, name + skip, sizeof(uuid) - 1);
	uuid[sizeof(uuid) - 1] = '\0';
	return uuid_parse(uuid, ret);
}

static int scan_procs(struct vmslice *s, const char *dir, const uint8_t *vm)
{
	char path[PATH_MAX];
	FILE *f;
	int pid, n = 0, r;

	(void)snprintf(path, sizeof(path), "%.4000s/cgroup.procs", dir);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno; /* the unit has just gone */
	while (fscanf(f, "%d", &pid) == 1) {
		r = add(s, pid, vm, vm ? format_vm_mark(vm) : 0);
		if (r == 0)
			n++;
		else if (r != -ESRCH)
			n = r;
		if (n < 0)
			break;
	}
	(void)fclose(f);
	return n;
}

/* Registers what is in the slice, whoever put it there. vm: whose unit we are in; NULL: none's. */
static int scan(struct vmslice *s, const char *dir, const uint8_t *vm, int depth)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	int n, r;

	if (!d)
		return errno == ENOENT ? 0 : -errno; /* no VM was ever started */
	n = scan_procs(s, dir, vm);
	while (n >= 0 && (e = readdir(d))) {
		char sub[PATH_MAX];
		uint8_t uuid[16];

		if (e->d_type != DT_DIR || e->d_name[0] == '.' || depth == 0)
			continue;
		if ((size_t)snprintf(sub, sizeof(sub), "%s/%s", dir, e->d_name) >= sizeof(sub))
			continue;
		r = scan(s, sub, vm ? vm : vm_of(e->d_name, uuid) ? uuid : NULL, depth - 1);
		n = r < 0 ? r : n + r;
	}
	(void)closedir(d);
	return n;
}

int vmslice_count(struct vmslice *s)
{
	int r = scan(s, s->dir, NULL, 3);

	forget_gone(s);
	return r < 0 ? r : (int)s->n;
}

bool vmslice_marks(struct vmslice *s, uint32_t *ret, unsigned max, unsigned *ret_n)
{
	unsigned n = 0, j;

	if (vmslice_count(s) < 0)
		return false;
	for (unsigned i = 0; i < s->n; i++) {
		for (j = 0; j < n && ret[j] != s->process[i].mark; j++)
			;
		if (!s->process[i].known || (j == n && n == max))
			return false;
		if (j == n)
			ret[n++] = s->process[i].mark;
	}
	*ret_n = n;
	return orphans_quiet() && held_quiet(HELD_FOR_DEAD, 0, NULL, 0); /* last: of one that has gone just now, too */
}

static int note(const struct process *p) { return held_note(p->pid, p->known ? p->mark : 0); }

int vmslice_note(struct vmslice *s)
{
	int r = vmslice_count(s), n;

	r = MIN(r, 0);
	for (unsigned i = 0; i < s->n; i++) {
		n = note(&s->process[i]);
		r = n < 0 ? n : r;
	}
	return r;
}

/* By its name alone, which asks nobody: a copy of anything else must not even be taken. Closing one of a file asks the file's server to flush it, and waits. */
static bool is_socket(int dir, const char *name)
{
	static const char prefix[] = "socket:";
	char link[sizeof(prefix)];

	return readlinkat(dir, name, link, sizeof(link)) >= (ssize_t)sizeof(prefix) - 1 && strncmp(link, prefix, sizeof(prefix) - 1) == 0;
}

static void silence_sockets(const struct process *p)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };
	static bool told;
	char path[64];
	struct dirent *e;
	DIR *d;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)p->pid);
	d = opendir(path);
	if (!d)
		return; /* gone by itself */
	while ((e = readdir(d))) {
		_cleanup_close_ int fd = -1;
		int domain = 0, type = 0;
		socklen_t len = sizeof(int);

		if (e->d_name[0] == '.' || !is_socket(dirfd(d), e->d_name))
			continue;
		fd = pidfd_getfd_(p->fd, atoi(e->d_name));
		if (fd < 0 && errno != EBADF && errno != ESRCH && !told) {
			log_warning("pidfd_getfd: %s: what a killed QEMU has not sent yet cannot be dropped; where its storage does not answer, the watchdog will act. "
				    "Allow ha-keeper that system call (Linux 5.6, CAP_SYS_PTRACE)", strerror(errno));
			told = true;
		}
		if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || (domain != AF_INET && domain != AF_INET6))
			continue;
		len = sizeof(int);
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM)
			(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	}
	(void)closedir(d);
}

/* It is stopped, and opens nothing new. */
static void note_victim(struct vmslice *s, struct process *p)
{
	int r = p->noted ? 0 : note(p);

	p->noted = true;
	if (r < 0 && !gone(p->fd)) {
		s->unnoted = true;
		log_err("process %d: it cannot be told which files it has open: %s: that it writes no more cannot be proven, the watchdog will act", (int)p->pid, strerror(-r));
	}
}

/* Nothing that any of them has written is on its way any more. */
static bool quiet(struct vmslice *s)
{
	char path[256];

	if (!orphans_quiet()) {
		if (!s->waits_told)
			log_warning("no VM process is left, but this host still sends data of a dead process: waiting for the end of that");
		s->waits_told = true;
		return false;
	}
	if (!held_quiet(HELD_FOR_DEAD, 0, path, sizeof(path))) {
		if (!s->waits_told)
			log_warning("no VM process is left, but the kernel, or another process, may still write %s for a dead one: waiting for the proof that it does not "
				    "(kvm-ha.vm(5), PROOF OF SILENCE)", path);
		s->waits_told = true;
		return false;
	}
	return !s->unnoted;
}

static void kill_round(void *data)
{
	struct vmslice *s = data;
	int r = scan(s, s->dir, NULL, 3);

	s->timer = 0;
	for (unsigned i = 0; i < s->n; i++) {
		if (gone(s->process[i].fd))
			continue;
		(void)pidfd_signal(s->process[i].fd, SIGSTOP); /* opens nothing new from here on */
		silence_sockets(&s->process[i]);
		note_victim(s, &s->process[i]);
		(void)pidfd_signal(s->process[i].fd, SIGKILL);
	}
	forget_gone(s);
	/* A QEMU that died by itself before was not told to drop its data. */
	if (r == 0 && s->n == 0 && quiet(s)) {
		void (*silent)(void *) = s->silent;

		s->silent = NULL;
		silent(s->user);
		return;
	}
	if (r < 0)
		log_err("cannot read the VM slice %s: %s: VMs cannot be proven gone, the watchdog will act", s->dir, strerror(-r));
	if (qb_loop_timer_add(s->loop, QB_LOOP_HIGH, AGAIN_MS * NS_PER_MS, s, kill_round, &s->timer) != 0)
		abort(); /* never silently unproven */
}

void vmslice_kill(struct vmslice *s, void (*silent)(void *user), void *user)
{
	bool under_way = s->silent != NULL;

	s->silent = silent;
	s->waits_told = false;
	s->user = user;
	if (!under_way && qb_loop_timer_add(s->loop, QB_LOOP_HIGH, 0, s, kill_round, &s->timer) != 0)
		abort();
}
