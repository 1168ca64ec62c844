/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One node's mains and watchdog in the lab: boots a container, and cuts its power when told to or when its watchdog is not
 * petted in time.
 *
 *   lab-node NAME STATE LOWER CGROUP NETHOOK -- systemd-nspawn ARGUMENTS...
 *
 * With LOWER "-" the node is a virtual machine, the command lab-vm, which tells QEMU's pid and its end as systemd-nspawn does a container's.
 *
 * Files, N = STATE/NAME: N.log (console), STATE/events.log (power events), N/dev/watchdog.sock, N/ctl.sock ("off", "on", "status",
 * "quit"), N/leader (pid of the node's PID 1 while it runs), N/root/m (the node's root, an overlay of LOWER and a tmpfs that lives as
 * long as one boot). NETHOOK up|down makes and removes the node's links, so that nothing of a dead boot still waits in a socket buffer
 * when the next one starts.
 *
 * A power cut is SIGKILL to PID 1 of the node's pid namespace: the kernel takes all its processes with it.
 *
 *           boot            cut, exit                   reaped, links gone
 *   OFF ----------> ON ------------------> DOWN ------------------------------> OFF, and from there ON again after a reset or a reboot
 *
 * Watchdog protocol (SOCK_SEQPACKET, one ASCII command a packet): "T<ms>" -> "T<ms taken>"; "S" arms and pets -> "S"; "P" pets;
 * "V" disarms -> "V"; "Q" -> "Q <timeout_ms> <armed> <left_ms>"; anything else -> "E". The newest connection owns it. Loss of the owner while armed is an
 * unclean close: it pets once more and the countdown goes on, as with real drivers. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000LL
#define WD_DEFAULT_MS 60000
#define WD_MIN_MS 100
#define WD_MAX_MS 3600000
#define RESET_DELAY_MS 1000 /* a reset host is back in its loader after about this long */
#define DRAIN_MS 500        /* after a cut the console may be read out this long before nspawn is killed too */
#define MAX_CTL 8
#define REBOOT_STATUS 133   /* systemd-nspawn --keep-unit: the container asked for a reboot */
#define RESET_STATUS 134    /* lab-vm: its watchdog reset it */

enum node_state { NODE_OFF, NODE_ON, NODE_DOWN };
static const char *const state_names[] = { "off", "on", "down" };

enum { FD_SIGNAL, FD_WATCHDOG, FD_TASK, FD_WD_LISTEN, FD_WD_OWNER, FD_CTL_LISTEN, FD_NOTIFY, FD_CTL, FD_COUNT = FD_CTL + MAX_CTL };

struct node {
	const char *name, *state_dir, *lower, *cgroup, *net_hook;
	char **nspawn_argv;
	char dir[96];
	enum node_state state;
	bool boot_next, cut, quit;
	int64_t boot_at_ms; /* CLOCK_MONOTONIC, 0 = none */
	int64_t drain_at_ms;
	pid_t nspawn, hook, leader;
	int leader_fd; /* pidfd: a pid may be another's by the time we kill it */
	unsigned boots;
	bool armed;
	int64_t timeout_ms, deadline_ms;
	int log_fd, events_fd;
	struct pollfd fds[FD_COUNT];
};

static bool is(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / NS_PER_MS;
}

__attribute__((format(printf, 2, 3))) static void event(struct node *n, const char *fmt, ...)
{
	struct timespec ts;
	char line[256];
	va_list ap;
	int len;

	clock_gettime(CLOCK_REALTIME, &ts);
	len = snprintf(line, sizeof(line), "%lld%09ld %s ", (long long)ts.tv_sec, ts.tv_nsec, n->name);
	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - (size_t)len - 1, fmt, ap);
	va_end(ap);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	(void)!write(n->events_fd, line, (size_t)len);
}

static void arm_timer(int fd, int64_t at_ms)
{
	struct itimerspec its = { .it_value = { .tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * NS_PER_MS } };

	(void)timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL); /* zero disarms */
}

static void task_timer(struct node *n)
{
	int64_t at = n->boot_at_ms;

	if (n->drain_at_ms && (!at || n->drain_at_ms < at))
		at = n->drain_at_ms;
	arm_timer(n->fds[FD_TASK].fd, at);
}

static void close_slot(struct node *n, int slot)
{
	if (n->fds[slot].fd >= 0)
		(void)close(n->fds[slot].fd);
	n->fds[slot].fd = -1;
	n->fds[slot].revents = 0;
}

static void pet(struct node *n)
{
	n->deadline_ms = now_ms() + 1 + n->timeout_ms; /* now_ms() rounds down, and early is never right */
	arm_timer(n->fds[FD_WATCHDOG].fd, n->deadline_ms);
}

static long long left_ms(const struct node *n)
{
	int64_t left = n->armed ? n->deadline_ms - 1 - now_ms() : 0;

	return left > 0 ? left : 0;
}

static void disarm(struct node *n)
{
	n->armed = false;
	arm_timer(n->fds[FD_WATCHDOG].fd, 0);
}

/* Removes what earlier boots left of one cgroup tree; children first, and only directories can be removed there. */
static void cgroup_remove(const char *path)
{
	struct dirent *e;
	char sub[512];
	DIR *d = opendir(path);

	if (!d)
		return;
	while ((e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) < (int)sizeof(sub))
			cgroup_remove(sub);
	closedir(d);
	(void)rmdir(path);
}

/* Calls fn for the node's cgroup in each hierarchy that systemd uses: the unified one alone, or both of a hybrid host. */
static void cgroup_each(struct node *n, void (*fn)(const char *path))
{
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd" };
	char path[256];

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", roots[i]);
		if (access(path, F_OK) == 0) {
			snprintf(path, sizeof(path), "%s/%s", roots[i], n->cgroup);
			fn(path);
		}
	}
}

static void cgroup_join(const char *path)
{
	char procs[300];
	int fd;

	(void)mkdir(path, 0755);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "0", 1);
		close(fd);
	}
}

_Noreturn static void child_failed(const char *what)
{
	dprintf(STDERR_FILENO, "lab-node: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* In the child: a mount namespace with the node's root in it. It ends with the last process of this boot, tmpfs and all. */
static void child_mounts(struct node *n)
{
	char root[128], path[160], opt[1024];

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		child_failed("mount namespace");
	(void)mkdir("/run/systemd", 0755);
	(void)mkdir("/run/systemd/nspawn", 0755);
	if (mount("tmpfs", "/run/systemd/nspawn", "tmpfs", 0, "mode=755") < 0) /* nspawn would leave files there when killed */
		child_failed("tmpfs for systemd-nspawn");
	snprintf(root, sizeof(root), "%s/root", n->dir);
	if (mount("tmpfs", root, "tmpfs", 0, "mode=755") < 0)
		child_failed("tmpfs for the node's root");
	for (const char *const *p = (const char *const[]){ "u", "w", "m", NULL }; *p; p++) {
		snprintf(path, sizeof(path), "%s/%s", root, *p);
		if (mkdir(path, 0755) < 0)
			child_failed(path);
	}
	if (snprintf(opt, sizeof(opt), "lowerdir=%s,upperdir=%s/u,workdir=%s/w", n->lower, root, root) >= (int)sizeof(opt)) {
		errno = ENAMETOOLONG;
		child_failed("overlay");
	}
	if (mount("overlay", path, "overlay", 0, opt) < 0)
		child_failed("overlay for the node's root");
}

static void child_hook(struct node *n, const char *what)
{
	execl(n->net_hook, n->net_hook, what, (char *)NULL);
	child_failed(n->net_hook);
}

static pid_t spawn(struct node *n)
{
	sigset_t none;
	pid_t pid = fork();
	int null_fd;

	if (pid != 0)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	null_fd = open("/dev/null", O_RDONLY);
	dup2(null_fd, STDIN_FILENO);
	dup2(n->log_fd, STDOUT_FILENO);
	dup2(n->log_fd, STDERR_FILENO);
	return 0;
}

static void boot_child(struct node *n)
{
	char notify[128];
	int status = 0;
	pid_t hook = fork();

	if (hook == 0)
		child_hook(n, "up");
	if (hook < 0 || waitpid(hook, &status, 0) < 0 || status != 0) {
		errno = ENETDOWN;
		child_failed(n->net_hook);
	}
	cgroup_each(n, cgroup_join);
	if (!is(n->lower, "-"))
		child_mounts(n);
	snprintf(notify, sizeof(notify), "%s/notify.sock", n->dir);
	setenv("NOTIFY_SOCKET", notify, 1);
	setenv("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1", 1); /* nodes see cgroup v2 whatever the host has */
	execvp(n->nspawn_argv[0], n->nspawn_argv);
	child_failed(n->nspawn_argv[0]);
}

static void boot(struct node *n)
{
	n->boot_at_ms = 0;
	task_timer(n);
	cgroup_each(n, cgroup_remove);
	n->boot_next = n->cut = false;
	n->nspawn = spawn(n);
	if (n->nspawn == 0)
		boot_child(n);
	if (n->nspawn < 0) {
		event(n, "failed fork: %s", strerror(errno));
		n->nspawn = 0;
		return;
	}
	n->state = NODE_ON;
	event(n, "boot %u", ++n->boots);
}

static void forget_leader(struct node *n)
{
	char path[128];

	if (n->leader_fd >= 0)
		(void)close(n->leader_fd);
	n->leader_fd = -1;
	n->leader = 0;
	snprintf(path, sizeof(path), "%s/leader", n->dir);
	(void)unlink(path);
}

/* The node stopped running: no watchdog, no links. boot_in_ms < 0: it stays off. */
static void went_down(struct node *n, int64_t boot_in_ms)
{
	disarm(n);
	close_slot(n, FD_WD_OWNER);
	forget_leader(n);
	n->state = NODE_DOWN;
	n->boot_next = boot_in_ms >= 0;
	n->boot_at_ms = n->boot_next ? now_ms() + boot_in_ms : 0;
	n->hook = spawn(n);
	if (n->hook == 0)
		child_hook(n, "down");
	if (n->hook < 0)
		n->hook = 0;
	task_timer(n);
}

static void power_cut(struct node *n, const char *why, int64_t boot_in_ms)
{
	if (n->leader_fd >= 0)
		(void)syscall(SYS_pidfd_send_signal, n->leader_fd, SIGKILL, NULL, 0);
	else
		(void)kill(n->nspawn, SIGKILL); /* its child dies with it */
	event(n, "%s", why);
	n->cut = true;
	n->drain_at_ms = now_ms() + DRAIN_MS;
	went_down(n, boot_in_ms);
}

static void after_down(struct node *n)
{
	if (n->state != NODE_DOWN || n->nspawn || n->hook)
		return;
	n->state = NODE_OFF;
	if (!n->quit && n->boot_next && now_ms() >= n->boot_at_ms)
		boot(n);
}

static void on_exit_of_nspawn(struct node *n, int status)
{
	bool had_leader = n->leader_fd >= 0;

	n->nspawn = 0;
	n->drain_at_ms = 0;
	task_timer(n);
	if (n->state == NODE_ON) {
		if (WIFEXITED(status) && WEXITSTATUS(status) == REBOOT_STATUS) {
			event(n, "reboot");
			went_down(n, 0);
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == RESET_STATUS) {
			event(n, "reset");
			went_down(n, RESET_DELAY_MS);
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			event(n, "off shutdown");
			went_down(n, -1);
		} else {
			event(n, "failed status=%#x, see its log", (unsigned)status);
			went_down(n, had_leader ? RESET_DELAY_MS : -1); /* one that never came up would fail again */
		}
	}
}

static void on_signal(struct node *n)
{
	struct signalfd_siginfo si;
	int status;
	pid_t pid;

	if (read(n->fds[FD_SIGNAL].fd, &si, sizeof(si)) == sizeof(si) && si.ssi_signo != SIGCHLD)
		n->quit = true;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == n->nspawn)
			on_exit_of_nspawn(n, status);
		else if (pid == n->hook)
			n->hook = 0;
	}
	after_down(n);
}

static void on_task(struct node *n)
{
	int64_t now = now_ms();

	if (n->drain_at_ms && now >= n->drain_at_ms) {
		n->drain_at_ms = 0;
		if (n->nspawn)
			(void)kill(n->nspawn, SIGKILL);
	}
	task_timer(n);
	if (n->state == NODE_OFF && n->boot_next && n->boot_at_ms && now >= n->boot_at_ms)
		boot(n);
	else if (n->boot_at_ms && now >= n->boot_at_ms) /* not all is gone yet: after_down() boots */
		arm_timer(n->fds[FD_TASK].fd, n->drain_at_ms);
}

static void on_notify(struct node *n)
{
	char buf[2048], path[128], text[32], *p;
	ssize_t len = recv(n->fds[FD_NOTIFY].fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
	int fd;

	if (len <= 0 || n->state != NODE_ON)
		return;
	buf[len] = '\0';
	p = strstr(buf, "X_NSPAWN_LEADER_PID=");
	if (p && n->leader_fd < 0) {
		n->leader = (pid_t)strtol(p + strlen("X_NSPAWN_LEADER_PID="), NULL, 10);
		n->leader_fd = n->leader > 1 ? (int)syscall(SYS_pidfd_open, n->leader, 0) : -1;
		if (n->leader_fd < 0)
			return;
		snprintf(path, sizeof(path), "%s/leader", n->dir);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (fd >= 0) {
			len = snprintf(text, sizeof(text), "%d\n", n->leader);
			(void)!write(fd, text, (size_t)len);
			close(fd);
		}
	}
	if (strstr(buf, "READY=1"))
		event(n, "up");
}

static void on_watchdog_packet(struct node *n)
{
	char buf[64], reply[96] = "";
	ssize_t len = recv(n->fds[FD_WD_OWNER].fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
	long ms;

	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (len <= 0) {
		close_slot(n, FD_WD_OWNER);
		if (n->armed) {
			pet(n);
			event(n, "watchdog unclean close, resets in %lld ms", (long long)n->timeout_ms);
		}
		return;
	}
	buf[len] = '\0';
	if (buf[0] == 'T' && len > 1) {
		ms = strtol(buf + 1, NULL, 10);
		n->timeout_ms = ms < WD_MIN_MS ? WD_MIN_MS : ms > WD_MAX_MS ? WD_MAX_MS : ms;
		if (n->armed)
			pet(n);
		snprintf(reply, sizeof(reply), "T%lld", (long long)n->timeout_ms);
	} else if (is(buf, "S")) {
		if (!n->armed)
			event(n, "watchdog armed %lld ms", (long long)n->timeout_ms);
		n->armed = true;
		pet(n);
		strcpy(reply, "S");
	} else if (is(buf, "P")) {
		if (n->armed)
			pet(n);
		return;
	} else if (is(buf, "V")) {
		if (n->armed)
			event(n, "watchdog disarmed");
		disarm(n);
		strcpy(reply, "V");
	} else if (is(buf, "Q")) {
		snprintf(reply, sizeof(reply), "Q %lld %d %lld", (long long)n->timeout_ms, n->armed, left_ms(n));
	} else {
		strcpy(reply, "E");
	}
	(void)send(n->fds[FD_WD_OWNER].fd, reply, strlen(reply), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void on_watchdog_connect(struct node *n)
{
	int fd = accept4(n->fds[FD_WD_LISTEN].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (n->fds[FD_WD_OWNER].fd >= 0) {
		close_slot(n, FD_WD_OWNER);
		if (n->armed)
			pet(n);
	}
	n->fds[FD_WD_OWNER].fd = fd;
}

static void on_ctl_packet(struct node *n, int slot)
{
	char buf[64], reply[160] = "ok";
	ssize_t len = recv(n->fds[slot].fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	if (len <= 0) {
		close_slot(n, slot);
		return;
	}
	buf[len] = '\0';
	if (is(buf, "off")) {
		if (n->state == NODE_ON)
			power_cut(n, "off", -1);
		n->boot_next = false;
		n->boot_at_ms = 0;
		task_timer(n);
	} else if (is(buf, "on")) {
		if (n->state != NODE_ON && !n->boot_next) {
			n->boot_next = true;
			n->boot_at_ms = now_ms();
			if (n->state == NODE_OFF)
				boot(n);
		}
	} else if (is(buf, "quit")) {
		n->quit = true;
	} else if (is(buf, "status")) {
		snprintf(reply, sizeof(reply), "%s leader=%d boots=%u armed=%d left_ms=%lld", state_names[n->state], n->leader, n->boots, n->armed,
			 left_ms(n));
	} else {
		strcpy(reply, "error: commands are off, on, status, quit");
	}
	(void)send(n->fds[slot].fd, reply, strlen(reply), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void on_ctl_connect(struct node *n)
{
	int fd = accept4(n->fds[FD_CTL_LISTEN].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (int i = FD_CTL; fd >= 0 && i < FD_COUNT; i++)
		if (n->fds[i].fd < 0) {
			n->fds[i].fd = fd;
			return;
		}
	if (fd >= 0)
		(void)close(fd);
}

static void loop(struct node *n)
{
	uint64_t expired;

	while (!n->quit || n->state != NODE_OFF) {
		if (n->quit && n->state == NODE_ON)
			power_cut(n, "off", -1);
		n->boot_next = n->boot_next && !n->quit;
		if (poll(n->fds, FD_COUNT, -1) < 0)
			continue;
		/* First: a pet that comes with the deadline comes too late. */
		if (n->armed && n->state == NODE_ON && now_ms() >= n->deadline_ms)
			power_cut(n, "reset", RESET_DELAY_MS);
		if (n->fds[FD_WATCHDOG].revents)
			(void)!read(n->fds[FD_WATCHDOG].fd, &expired, sizeof(expired));
		if (n->fds[FD_WD_OWNER].fd >= 0 && n->fds[FD_WD_OWNER].revents)
			on_watchdog_packet(n);
		if (n->fds[FD_WD_LISTEN].revents)
			on_watchdog_connect(n);
		if (n->fds[FD_NOTIFY].revents)
			on_notify(n);
		if (n->fds[FD_SIGNAL].revents)
			on_signal(n);
		if (n->fds[FD_TASK].revents && read(n->fds[FD_TASK].fd, &expired, sizeof(expired)) > 0)
			on_task(n);
		for (int i = FD_CTL; i < FD_COUNT; i++)
			if (n->fds[i].fd >= 0 && n->fds[i].revents)
				on_ctl_packet(n, i);
		if (n->fds[FD_CTL_LISTEN].revents)
			on_ctl_connect(n);
	}
}

static int unix_socket(struct node *n, const char *name, int type)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", n->dir, name) >= (int)sizeof(sa.sun_path))
		errno = ENAMETOOLONG;
	else if (fd >= 0 && (unlink(sa.sun_path) == 0 || errno == ENOENT) && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 &&
		 (type != SOCK_SEQPACKET || listen(fd, 16) == 0))
		return fd;
	fprintf(stderr, "lab-node: %s/%s: %s\n", n->dir, name, strerror(errno));
	return -1;
}

/* The console is written by a process of its own: a slow disk must not delay the watchdog, nor the node's journal. */
static int logger(struct node *n)
{
	char path[128], buf[65536];
	ssize_t len;
	int p[2], fd;

	snprintf(path, sizeof(path), "%s/%s.log", n->state_dir, n->name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0 || pipe2(p, O_CLOEXEC) < 0)
		return -1;
	(void)fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
	switch (fork()) {
	case -1:
		return -1;
	case 0:
		close(p[1]);
		close(n->events_fd);
		while ((len = read(p[0], buf, sizeof(buf))) > 0 || (len < 0 && errno == EINTR))
			if (len > 0)
				(void)!write(fd, buf, (size_t)len);
		_exit(0);
	default:
		close(p[0]);
		close(fd);
		return p[1];
	}
}

static int setup(struct node *n)
{
	char path[128];
	sigset_t set;

	if (snprintf(n->dir, sizeof(n->dir), "%s/%s", n->state_dir, n->name) >= (int)sizeof(n->dir))
		return fprintf(stderr, "lab-node: the path of the state directory is too long\n"), -1;
	for (int i = 0; i < FD_COUNT; i++)
		n->fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	snprintf(path, sizeof(path), "%s/events.log", n->state_dir);
	n->events_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	n->log_fd = n->events_fd < 0 ? -1 : logger(n);
	if (n->log_fd < 0)
		return fprintf(stderr, "lab-node: logs in %s: %s\n", n->state_dir, strerror(errno)), -1;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	n->fds[FD_SIGNAL].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	n->fds[FD_WATCHDOG].fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	n->fds[FD_TASK].fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	n->fds[FD_WD_LISTEN].fd = unix_socket(n, "dev/watchdog.sock", SOCK_SEQPACKET);
	n->fds[FD_NOTIFY].fd = unix_socket(n, "notify.sock", SOCK_DGRAM);
	n->fds[FD_CTL_LISTEN].fd = unix_socket(n, "ctl.sock", SOCK_SEQPACKET);
	for (int i = 0; i < FD_CTL; i++)
		if (i != FD_WD_OWNER && n->fds[i].fd < 0)
			return -1;
	return 0;
}

int main(int argc, char **argv)
{
	struct node n = { .leader_fd = -1, .timeout_ms = WD_DEFAULT_MS };
	struct sched_param sp = { .sched_priority = 50 };

	if (argc < 8 || strcmp(argv[6], "--") != 0) {
		fprintf(stderr, "usage: lab-node NAME STATE LOWER CGROUP NETHOOK -- systemd-nspawn ARGUMENTS...\nIt is started by `lab up`.\n");
		return 2;
	}
	n.name = argv[1];
	n.state_dir = argv[2];
	n.lower = argv[3];
	n.cgroup = argv[4];
	n.net_hook = argv[5];
	n.nspawn_argv = argv + 7;
	if (setup(&n) < 0)
		return 1;
	/* Both are best effort: without them a loaded host may reset a node late, which the watchdog's margin has to bear. */
	(void)sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp);
	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
	boot(&n);
	loop(&n);
	cgroup_each(&n, cgroup_remove);
	(void)close(n.log_fd); /* the logger ends with its last writer */
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	return 0;
}
