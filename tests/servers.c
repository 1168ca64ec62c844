/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_TRIES 400 /* every 50 ms */
#define PLAIN_SIZE "16777216"

static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void pause_50ms(void)
{
	struct timespec ts = { .tv_nsec = 50000000 };

	(void)nanosleep(&ts, NULL);
}

int servers_run(const char *fmt, ...)
{
	char command[4096];
	va_list ap;
	int status;

	va_start(ap, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void servers_signal(pid_t pid, int sig)
{
	siginfo_t info;

	if (kill(pid, sig) < 0)
		die("kill");
	if (sig == SIGKILL)
		(void)waitpid(pid, NULL, 0);
	else if (sig == SIGSTOP)
		(void)waitid(P_PID, (id_t)pid, &info, WSTOPPED);
}

void servers_file(const char *path, uint64_t size, mode_t mode, const char *text)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || fchmod(fd, mode) < 0 || (text && write(fd, text, strlen(text)) < 0) || (!text && ftruncate(fd, (off_t)size) < 0))
		die(path);
	(void)close(fd);
}

static pid_t spawn(const char *log, char *const argv[])
{
	pid_t pid = fork();
	int fd;

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	(void)execvp(argv[0], argv);
	_exit(127);
}

static int wait_port(uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	for (int i = 0; i < START_TRIES; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int r = connect(fd, (struct sockaddr *)&to, sizeof(to));

		(void)close(fd);
		if (r == 0)
			return 0;
		pause_50ms();
	}
	return -1;
}

static int add_blocks(const char *dir, int control, int tid, const char *name, const char *file, int block_size)
{
	return servers_run("tgtadm -C %d --lld iscsi --op new --mode target --tid %d -T iqn.2026-01.test:%s && "
			   "tgtadm -C %d --lld iscsi --op new --mode logicalunit --tid %d --lun 1 -b %s/%s --blocksize %d && "
			   "tgtadm -C %d --lld iscsi --op bind --mode target --tid %d -I ALL",
			   control, tid, name, control, tid, dir, file, block_size, control, tid);
}

static int add_target(const char *dir, int control, int tid, const char *name, const char *file) { return add_blocks(dir, control, tid, name, file, 512); }

static pid_t spawn_tgtd(const char *dir, int control, int port)
{
	char portal[64], log[512], number[16];
	char *argv[] = { "tgtd", "-f", "--iscsi", portal, "-C", number, NULL };
	int tries = 0;
	pid_t pid;

	(void)snprintf(portal, sizeof(portal), "portal=127.0.0.1:%d", port);
	(void)snprintf(number, sizeof(number), "%d", control);
	(void)snprintf(log, sizeof(log), "%s/tgtd%d.log", dir, control);
	pid = spawn(log, argv);
	while (servers_run("tgtadm -C %d --lld iscsi --op show --mode sys >/dev/null 2>&1", control) != 0) {
		if (++tries == START_TRIES)
			return -1;
		pause_50ms();
	}
	return pid;
}

pid_t servers_start_tgtd(const char *dir)
{
	pid_t pid;

	(void)servers_run("for f in plain chap fixed oneway native odd; do test -e %s/$f || truncate -s " PLAIN_SIZE " %s/$f; done", dir, dir);
	pid = spawn_tgtd(dir, 1, SERVERS_ISCSI_PORT);
	if (pid < 0 || add_target(dir, 1, 1, "plain", "plain") || add_target(dir, 1, 2, "chap", "chap") || add_target(dir, 1, 3, "fixed", "fixed") ||
	    add_target(dir, 1, 4, "oneway", "oneway") || add_target(dir, 1, 5, "full", "small/lun") || add_blocks(dir, 1, 6, "native", "native", 4096) || add_blocks(dir, 1, 7, "odd", "odd", 1024) ||
	    servers_run("tgtadm -C 1 --lld iscsi --op new --mode account --user guest --password correct-horse && "
			"tgtadm -C 1 --lld iscsi --op bind --mode account --tid 2 --user guest && "
			"tgtadm -C 1 --lld iscsi --op update --mode logicalunit --tid 3 --lun 1 --params readonly=1"))
		return -1;
	/* In both directions: the target proves itself by the "outgoing" account. */
	if (servers_run("tgtadm -C 1 --lld iscsi --op new --mode account --user disk --password battery-staple && "
			"tgtadm -C 1 --lld iscsi --op bind --mode account --tid 2 --user disk --outgoing && "
			"tgtadm -C 1 --lld iscsi --op bind --mode account --tid 4 --user guest && "
			"tgtadm -C 1 --lld iscsi --op new --mode portal --param portal=[::1]:%d", SERVERS_ISCSI_PORT))
		return -1;
	return wait_port(SERVERS_ISCSI_PORT) == 0 ? pid : -1;
}

pid_t servers_start_other_tgtd(const char *dir)
{
	pid_t pid;

	(void)servers_run("truncate -s " PLAIN_SIZE " %s/other", dir);
	pid = spawn_tgtd(dir, 2, SERVERS_OTHER_ISCSI_PORT);
	if (pid < 0 || add_target(dir, 2, 9, "plain", "other"))
		return -1;
	return wait_port(SERVERS_OTHER_ISCSI_PORT) == 0 ? pid : -1;
}

pid_t servers_start_rpcbind(void)
{
	char *argv[] = { "rpcbind", "-f", "-w", NULL };
	pid_t pid = spawn("/dev/null", argv);

	return wait_port(111) == 0 ? pid : -1;
}

pid_t servers_start_ganesha(const char *dir)
{
	char conf[512], log[512], pidfile[512], text[4096];
	char *argv[] = { "ganesha.nfsd", "-F", "-f", conf, "-L", log, "-p", pidfile, NULL };
	pid_t pid;

	(void)snprintf(conf, sizeof(conf), "%s/ganesha.conf", dir);
	(void)snprintf(log, sizeof(log), "%s/ganesha.log", dir);
	(void)snprintf(pidfile, sizeof(pidfile), "%s/ganesha.pid", dir);
	(void)snprintf(text, sizeof(text),
		       "NFS_CORE_PARAM { Protocols = 3; NFS_Port = %d; MNT_Port = %d; Enable_NLM = false; Enable_RQUOTA = false; }\n"
		       "NFSv4 { Graceless = true; }\n"
		       "EXPORT { Export_Id = 1; Path = %s/export; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; Attr_Expiration_Time = 0;\n"
		       "  Protocols = 3; SecType = sys; FSAL { Name = VFS; } }\n"
		       "EXPORT { Export_Id = 2; Path = %s/fixed-export; Pseudo = /fixed; Access_Type = RO; Squash = No_Root_Squash;\n"
		       "  Protocols = 3; SecType = sys; FSAL { Name = VFS; } }\n"
		       "EXPORT { Export_Id = 3; Path = %s/squashed-export; Pseudo = /squashed; Access_Type = RW; Squash = Root_Squash; Attr_Expiration_Time = 0;\n"
		       "  Anonymous_Uid = 65534; Anonymous_Gid = 65534;\n"
		       "  Protocols = 3; SecType = sys; FSAL { Name = VFS; } }\n"
		       "EXPORT { Export_Id = 4; Path = %s/small; Pseudo = /small; Access_Type = RW; Squash = No_Root_Squash;\n"
		       "  Filesystem_id = 7.7; Protocols = 3; SecType = sys; FSAL { Name = VFS; } }\n",
		       SERVERS_NFS_PORT, SERVERS_MOUNT_PORT, dir, dir, dir, dir);
	servers_file(conf, 0, 0600, text);
	(void)servers_run("for d in export fixed-export squashed-export; do mkdir -p %s/$d/sub; test -e %s/$d/sub/volume || truncate -s " PLAIN_SIZE
			  " %s/$d/sub/volume; done", dir, dir, dir);
	pid = spawn(log, argv);
	return wait_port(SERVERS_NFS_PORT) == 0 && wait_port(SERVERS_MOUNT_PORT) == 0 ? pid : -1;
}

static void set_up_namespaces(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0 ||
	    mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") < 0)
		die("mount");
	(void)mkdir("/run/rpcbind", 0755);
	(void)mkdir("/run/ganesha", 0755);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		die("lo");
	(void)close(fd);
}

static int wait_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* A file system with room for less than what its files claim to have. */
static void set_up_small(const char *dir)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/small", dir);
	if (mkdir(path, 0755) < 0 || mount("tmpfs", path, "tmpfs", 0, "size=" SERVERS_SMALL_ROOM) < 0)
		die("mount");
	if (servers_run("mkdir %s/sub && truncate -s " PLAIN_SIZE " %s/lun %s/sub/volume", path, path, path) != 0)
		die("small files");
}

/* Process 1 of the namespaces: when it ends, with its parent at the latest, the kernel kills the rest. */
static void run_init(int (*body)(const char *dir), const char *dir)
{
	pid_t tester;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	set_up_namespaces();
	set_up_small(dir);
	tester = fork();
	if (tester < 0)
		die("fork");
	if (tester == 0)
		exit(body(dir));
	_exit(wait_status(tester));
}

/* A process of its own, since one that unshared its process namespace can start no thread after. */
static void run_keeper(int (*body)(const char *dir), const char *dir)
{
	pid_t init;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC) < 0)
		die("unshare; this test runs as root");
	init = fork();
	if (init < 0)
		die("fork");
	if (init == 0)
		run_init(body, dir);
	_exit(wait_status(init));
}

int servers_sandbox(int (*body)(const char *dir))
{
	char dir[] = "/var/tmp/kvmha-test.XXXXXX";
	pid_t keeper;
	int r;

	if (!mkdtemp(dir))
		die("mkdtemp");
	keeper = fork();
	if (keeper < 0)
		die("fork");
	if (keeper == 0)
		run_keeper(body, dir);
	r = wait_status(keeper);
	(void)servers_run("rm -rf %s", dir);
	return r;
}
