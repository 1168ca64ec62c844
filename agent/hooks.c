/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/hooks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/log.h"

#define MAX_HOOKS 64       /* executables of one directory */
#define TERM_GRACE_MS 1000 /* between SIGTERM and SIGKILL */
#define KILL_LIMIT_MS 1000 /* after it: a process in the kernel (a dead NFS) ends when that lets go of it, if ever */
#define FREE_LIMIT_MS 2000
#define FREE_GRACE_MS 500  /* a running hook's while the agent ends */
#define WORKER_STACK (256U * 1024)
#define VARIABLES 11
#define VARIABLE_LEN (CONF_URL_LEN + 32)

struct job {
	enum hook_event event;
	char env[VARIABLES][VARIABLE_LEN];
};

struct hooks {
	char dir[CONF_URL_LEN], cluster[CONF_NAME_LEN], host[CONF_NAME_LEN];
	uint32_t timeout_ms;
	int stop_fd; /* readable when hooks_free was called */
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	struct job queue[HOOKS_QUEUE];
	unsigned first, n;
	bool stopping;

	/* of the worker */
	struct job job;
	char *warned[MAX_HOOKS]; /* skipped files whose warning was given */
	struct { pid_t pid; char *name; } stuck[MAX_HOOKS]; /* killed, and not ended yet; name NULL: free */
};

const char *hook_event_name(enum hook_event e)
{
	static const char *const names[HOOK_EVENT_COUNT] = {
		[HOOK_NODE_LOST] = "node-lost",           [HOOK_NODE_FENCED] = "node-fenced",         [HOOK_NODE_BACK] = "node-back",
		[HOOK_VM_FAILED] = "vm-failed",           [HOOK_VM_RECOVERED] = "vm-recovered",       [HOOK_VM_STARTED] = "vm-started",
		[HOOK_AGENT_SILENT] = "agent-silent",     [HOOK_AGENT_BACK] = "agent-back",
		[HOOK_VM_UNHEALTHY] = "vm-unhealthy",     [HOOK_VM_HEALTHY] = "vm-healthy",
		[HOOK_VM_EVENT] = "vm-event",             [HOOK_VM_STUCK] = "vm-stuck",               [HOOK_VM_NO_PLACE] = "vm-no-place",
		[HOOK_VM_ERROR] = "vm-error",             [HOOK_VM_SLOW_MIGRATION] = "vm-slow-migration",
		[HOOK_VM_STOPPED] = "vm-stopped",         [HOOK_MAINTENANCE_ON] = "maintenance-on",   [HOOK_MAINTENANCE_OFF] = "maintenance-off",
		[HOOK_VOLUME_SLOW] = "volume-slow",       [HOOK_VOLUME_FAILING] = "volume-failing",   [HOOK_VOLUME_READ_ONLY] = "volume-read-only",
		[HOOK_VOLUME_STALE] = "volume-stale",     [HOOK_VOLUME_FOREIGN] = "volume-foreign",   [HOOK_VOLUME_GOOD] = "volume-good",
		[HOOK_VOLUME_DEGRADED] = "volume-degraded",
		[HOOK_HOLD_BEGIN] = "hold-begin",         [HOOK_HOLD_END] = "hold-end",
		[HOOK_POWER_OFF] = "power-off",           [HOOK_POWER_FAILED] = "power-failed",       [HOOK_BRAKE_ON] = "brake-on",
		[HOOK_BRAKE_OFF] = "brake-off",           [HOOK_QUARANTINE_ON] = "quarantine-on",     [HOOK_QUARANTINE_OFF] = "quarantine-off",
	};

	return (unsigned)e < HOOK_EVENT_COUNT ? names[e] : "unknown";
}

static bool is_stopping(struct hooks *h)
{
	bool stopping;

	(void)pthread_mutex_lock(&h->lock);
	stopping = h->stopping;
	(void)pthread_mutex_unlock(&h->lock);
	return stopping;
}

/* The file warned about stays in the list until it is good: one warning, not one an event. */
static void warn_once(struct hooks *h, const char *name, const char *why)
{
	for (size_t i = 0; i < MAX_HOOKS; i++) {
		if (h->warned[i] && streq(h->warned[i], name))
			return;
		if (h->warned[i])
			continue;
		h->warned[i] = strdup(name);
		log_warning("hook %s/%s is skipped: %s", h->dir, name, why);
		return;
	}
}

static void forget_warning(struct hooks *h, const char *name)
{
	for (size_t i = 0; i < MAX_HOOKS; i++)
		if (h->warned[i] && streq(h->warned[i], name)) {
			free(h->warned[i]);
			h->warned[i] = NULL;
		}
}

static bool is_stuck(const struct hooks *h, const char *name)
{
	for (size_t i = 0; i < MAX_HOOKS; i++)
		if (h->stuck[i].name && streq(h->stuck[i].name, name))
			return true;
	return false;
}

/* With no place left none may be started: it might be another. */
static bool may_get_stuck(const struct hooks *h)
{
	for (size_t i = 0; i < MAX_HOOKS; i++)
		if (!h->stuck[i].name)
			return true;
	return false;
}

static void keep_stuck(struct hooks *h, const char *name, pid_t pid)
{
	for (size_t i = 0; i < MAX_HOOKS; i++) {
		if (h->stuck[i].name)
			continue;
		h->stuck[i].name = strdup(name);
		CHECK(h->stuck[i].name);
		h->stuck[i].pid = pid;
		return;
	}
}

static bool reap(pid_t pid, siginfo_t *ret) { return waitid(P_PID, (id_t)pid, ret, WEXITED | WNOHANG) < 0 || ret->si_pid == pid; }

static void reap_stuck(struct hooks *h)
{
	for (size_t i = 0; i < MAX_HOOKS; i++) {
		siginfo_t info = { 0 };

		if (!h->stuck[i].name || !reap(h->stuck[i].pid, &info))
			continue;
		free(h->stuck[i].name);
		h->stuck[i].name = NULL;
	}
}

/* What somebody else could have written must not run with our rights. */
static const char *untrusted(const struct stat *st)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "it does not belong to root; chown it";
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return "its group or others may write to it; chmod go-w it";
	return NULL;
}

static bool is_runnable(struct hooks *h, int dir_fd, const char *name)
{
	const char *why = NULL;
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (!S_ISREG(st.st_mode))
		why = "it is not a regular file";
	else if (!(st.st_mode & S_IXUSR))
		why = "it is not executable; chmod +x it, or remove it";
	else
		why = untrusted(&st);
	if (!why && is_stuck(h, name))
		why = "its process of an earlier event was killed, and does not end";
	if (!why && !may_get_stuck(h))
		why = "64 processes of hooks were killed, and do not end";
	if (why)
		warn_once(h, name, why);
	else
		forget_warning(h, name);
	return !why;
}

static int is_name(const struct dirent *d)
{
	return d->d_name[0] != '.' && d->d_name[strlen(d->d_name) - 1] != '~';
}

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int spawn(struct hooks *h, const char *path, pid_t *ret)
{
	char *argv[] = { (char *)path, NULL }, *envp[VARIABLES + 1];
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	for (size_t i = 0; i < VARIABLES; i++)
		envp[i] = h->job.env[i];
	envp[VARIABLES] = NULL;
	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	if (posix_spawn_file_actions_init(&files) != 0)
		return -ENOMEM;
	if (posix_spawnattr_init(&attr) != 0) {
		(void)posix_spawn_file_actions_destroy(&files);
		return -ENOMEM;
	}
	r = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&files, 2, 1);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(&files, 3);
	(void)posix_spawnattr_setpgroup(&attr, 0);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (r == 0)
		r = posix_spawn(ret, path, &files, &attr, argv, envp);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&files);
	return -r;
}

static int64_t now_ms(void) /* not clock.h: its clock is the loop's */
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

/* True when the process has ended; false after ms, or at once when stop_fd (-1: none) says so. */
static bool ended_within(int pidfd, int stop_fd, int64_t ms)
{
	struct pollfd p[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
	int64_t until = now_ms() + ms;

	for (;;) {
		int n = poll(p, 2, (int)MAX(until - now_ms(), 0));

		if (n > 0 && p[0].revents)
			return true;
		if (n == 0 || p[1].revents || (n < 0 && errno != EINTR))
			return false;
	}
}

/* The leader is not reaped before the last signal, so its group's number cannot be another's by then. */
static bool end_group(struct hooks *h, pid_t pid, int pidfd)
{
	if (ended_within(pidfd, h->stop_fd, h->timeout_ms))
		return true;
	if (is_stopping(h) && ended_within(pidfd, -1, FREE_GRACE_MS))
		return true;
	(void)kill(-pid, SIGTERM);
	(void)ended_within(pidfd, -1, TERM_GRACE_MS);
	(void)kill(-pid, SIGKILL);
	(void)ended_within(pidfd, -1, KILL_LIMIT_MS);
	return false;
}

static void run_hook(struct hooks *h, const char *name)
{
	char path[CONF_URL_LEN + NAME_MAX + 2];
	siginfo_t info = { 0 };
	bool in_time, ended;
	pid_t pid;
	int r, pidfd;

	(void)snprintf(path, sizeof(path), "%s/%s", h->dir, name);
	r = spawn(h, path, &pid);
	if (r < 0) {
		log_warning("hook %s for %s cannot be run: %s", path, hook_event_name(h->job.event), strerror(-r));
		return;
	}
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0) { /* without it there is no waiting with a limit */
		log_warning("hook %s is ended: cannot watch it: %s", path, strerror(errno));
		(void)kill(-pid, SIGKILL);
	}
	in_time = pidfd >= 0 && end_group(h, pid, pidfd);
	ended = reap(pid, &info);
	if (!ended)
		keep_stuck(h, name, pid);
	if (!ended && pidfd >= 0)
		log_warning("hook %s for %s did not end in time and does not when killed (process %d): not run again before it has", path,
			    hook_event_name(h->job.event), (int)pid);
	else if (!in_time)
		log_warning("hook %s for %s did not end in time: killed with its processes", path, hook_event_name(h->job.event));
	else if (info.si_code != CLD_EXITED || info.si_status != 0)
		log_warning("hook %s for %s failed: %s %d", path, hook_event_name(h->job.event),
			    info.si_code == CLD_EXITED ? "exit code" : "signal", info.si_status);
	if (pidfd >= 0)
		(void)close(pidfd);
}

static void run_all(struct hooks *h)
{
	_cleanup_close_ int fd = open(h->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent **names = NULL;
	const char *why;
	struct stat st;
	int n, runs = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		if (errno != ENOENT)
			warn_once(h, "", strerror(errno));
		return; /* no directory: no hooks wanted */
	}
	why = untrusted(&st);
	if (why) {
		warn_once(h, "", why);
		return;
	}
	forget_warning(h, "");
	reap_stuck(h);
	n = scandirat(fd, ".", &names, is_name, by_bytes);
	for (int i = 0; i < n; i++) {
		if (!is_stopping(h) && is_runnable(h, fd, names[i]->d_name)) {
			if (++runs <= MAX_HOOKS)
				run_hook(h, names[i]->d_name);
			else
				warn_once(h, names[i]->d_name, "there are more than 64");
		}
		free(names[i]);
	}
	free(names);
}

static void *worker(void *data)
{
	struct hooks *h = data;

	(void)pthread_mutex_lock(&h->lock);
	while (!h->stopping) {
		if (h->n == 0) {
			(void)pthread_cond_wait(&h->wake, &h->lock);
			continue;
		}
		h->job = h->queue[h->first];
		h->first = (h->first + 1) % HOOKS_QUEUE;
		h->n--;
		(void)pthread_mutex_unlock(&h->lock);
		run_all(h);
		(void)pthread_mutex_lock(&h->lock);
	}
	(void)pthread_mutex_unlock(&h->lock);
	return NULL;
}

static int start_worker(struct hooks *h)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	if (pthread_attr_init(&attr) != 0)
		return -ENOMEM;
	(void)pthread_attr_setstacksize(&attr, WORKER_STACK);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the agent's loop */
	r = pthread_create(&h->thread, &attr, worker, h);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return -r;
}

static void release(struct hooks *h)
{
	for (size_t i = 0; i < MAX_HOOKS; i++) {
		free(h->warned[i]);
		free(h->stuck[i].name);
	}
	if (h->stop_fd >= 0)
		(void)close(h->stop_fd);
	(void)pthread_cond_destroy(&h->wake);
	(void)pthread_mutex_destroy(&h->lock);
	free(h);
}

int hooks_new(const struct conf *conf, struct hooks **ret)
{
	struct hooks *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	(void)str_copy(h->dir, sizeof(h->dir), conf->hooks_dir);
	(void)str_copy(h->cluster, sizeof(h->cluster), conf->cluster);
	(void)str_copy(h->host, sizeof(h->host), conf->self_name);
	h->timeout_ms = conf->hook_timeout_ms;
	(void)pthread_mutex_init(&h->lock, NULL);
	(void)pthread_cond_init(&h->wake, NULL);
	h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = h->stop_fd < 0 ? -errno : start_worker(h);
	if (r < 0) {
		release(h);
		return r;
	}
	*ret = h;
	return 0;
}

static void set(struct job *j, size_t i, const char *name, const char *value)
{
	(void)snprintf(j->env[i], sizeof(j->env[i]), "%s=%s", name, value ? value : "");
	/* A guest or a volume may have worded it: it must not look like a line of its own in a mail or a log. */
	for (char *p = j->env[i]; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

static void fill(const struct hooks *h, struct job *j, const struct hook_facts *f)
{
	char when[32] = "";
	time_t now = time(NULL);
	struct tm tm;

	if (gmtime_r(&now, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	j->event = f->event;
	set(j, 0, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	set(j, 1, "LANG", "C.UTF-8");
	set(j, 2, "KVM_HA_EVENT", hook_event_name(f->event));
	set(j, 3, "KVM_HA_CLUSTER", h->cluster);
	set(j, 4, "KVM_HA_NODE", f->node);
	set(j, 5, "KVM_HA_HOST", h->host);
	set(j, 6, "KVM_HA_VM", f->vm);
	set(j, 7, "KVM_HA_VM_UUID", f->vm_uuid);
	set(j, 8, "KVM_HA_REASON", f->reason);
	set(j, 9, "KVM_HA_TIME", when);
	set(j, 10, "KVM_HA_VOLUME", f->volume);
}

void hooks_run(struct hooks *h, const struct hook_facts *facts)
{
	const char *dropped = NULL;

	(void)pthread_mutex_lock(&h->lock); /* the worker holds it for a few instructions only, never over a system call but waiting */
	if (h->n == HOOKS_QUEUE) {
		dropped = hook_event_name(h->queue[h->first].event);
		h->first = (h->first + 1) % HOOKS_QUEUE;
		h->n--;
	}
	fill(h, &h->queue[(h->first + h->n) % HOOKS_QUEUE], facts);
	h->n++;
	(void)pthread_cond_signal(&h->wake);
	(void)pthread_mutex_unlock(&h->lock);
	if (dropped)
		log_warning("hooks do not keep up: an event (%s) is dropped", dropped);
}

void hooks_free(struct hooks *h)
{
	struct timespec until;
	unsigned left;

	if (!h)
		return;
	(void)pthread_mutex_lock(&h->lock);
	h->stopping = true;
	left = h->n;
	(void)eventfd_write(h->stop_fd, 1);
	(void)pthread_cond_signal(&h->wake);
	(void)pthread_mutex_unlock(&h->lock);
	if (left)
		log_warning("ending with %u events no hook was run for", left);
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FREE_LIMIT_MS / MS_PER_S;
	if (pthread_clockjoin_np(h->thread, NULL, CLOCK_MONOTONIC, &until) == 0)
		release(h);
	else
		(void)pthread_detach(h->thread);
}
