/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose the processes of the VM slice are (fence/vmslice.c), with a directory that looks like a control group's and processes that are real. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/held.h"
#include "agent/base/process.h"
#include "agent/base/uuid.h"
#include "fence/prover.h"
#include "fence/vmslice.h"
#include "storage/format.h"
#include "tests/tap.h"

#define SLICE "/kvmha.slice/" VMSLICE_UNIT
#define VM_A "11111111-2222-4333-8444-555555555555"
#define VM_B "11111111-2222-4333-8444-555555555556"

long syscall(long number, ...); /* libc's, on the way to which copies of descriptors are counted */

static unsigned copies;
static bool silent;
static char root[] = "/tmp/kvm-ha-slice-XXXXXX";
static char proc[64]; /* of what is said to be open */
static struct vmslice *slice;
static uint32_t marks[4];
static unsigned n;

long syscall(long number, ...)
{
	static long (*real)(long number, ...);
	va_list ap;
	long a, b, c, d;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	va_start(ap, number);
	a = va_arg(ap, long);
	b = va_arg(ap, long);
	c = va_arg(ap, long);
	d = va_arg(ap, long);
	va_end(ap);
	copies += number == SYS_pidfd_getfd;
	return real(number, a, b, c, d);
}

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

static void make_dir(const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s%s", root, name);
	CHECK(mkdir(path, 0700) == 0);
}

/* What a control group of that name holds; 0: nothing. */
static void holds(const char *name, pid_t pid)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s" SLICE "%s/cgroup.procs", root, name);
	f = fopen(path, "we");
	CHECK(f);
	if (pid)
		(void)fprintf(f, "%d\n", (int)pid);
	CHECK(fclose(f) == 0);
}

static void end(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

/* Other programs of this host may just be leaving data behind. */
static bool look(void)
{
	const struct timespec pause = { .tv_nsec = 20000000 };

	for (unsigned i = 0; i < 1000; i++) {
		if (vmslice_marks(slice, marks, ARRAY_SIZE(marks), &n))
			return true;
		(void)nanosleep(&pause, NULL);
	}
	return false;
}

static bool has(const char *uuid)
{
	uint8_t vm[16];

	CHECK(uuid_parse(uuid, vm));
	for (unsigned i = 0; i < n; i++)
		if (marks[i] == format_vm_mark(vm))
			return true;
	return false;
}

static void on_silent(void *user)
{
	silent = true;
	qb_loop_stop(user);
}

/* All that is in the slice, killed and proven gone. */
static bool kill_all(qb_loop_t *loop)
{
	silent = false;
	vmslice_kill(slice, on_silent, loop);
	qb_loop_run(loop);
	return silent;
}

static unsigned own_sockets(void)
{
	unsigned count = 0;
	struct stat st;

	for (int fd = 0; fd < 256; fd++)
		count += fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	return count;
}

/* Closing a copy of a file's descriptor may wait for the file's server: the keeper takes none. */
static void check_copies(qb_loop_t *loop)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), pair[2];
	unsigned sockets;
	pid_t pid;

	CHECK(file >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	sockets = own_sockets();
	pid = sleeper();
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", pid);
	TAP_OK(look() && n == 1, "one with sockets and files");
	copies = 0;
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", 0);
	TAP_OK(kill_all(loop) && waitpid(pid, NULL, 0) == pid, "it is killed, and proven gone");
	TAP_OK(copies == sockets, "of its descriptors only the %u sockets were copied (%u were)", sockets, copies);
	(void)close(file);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

static void put(const char *name, pid_t pid, const char *text)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/proc/%d%s", root, (int)pid, name);
	f = fopen(path, "we");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* A file of the test, open for writing as if it were on NFS. */
static void opens_on_nfs(pid_t pid)
{
	char path[256], disk[64], text[256];
	struct stat st;

	(void)snprintf(disk, sizeof(disk), "%s/disk", root);
	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (access(proc, F_OK) < 0)
		make_dir("/proc");
	make_dir(path);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	make_dir(path);
	(void)snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
	make_dir(path);
	put("/../../disk", pid, "disk");
	CHECK(stat(disk, &st) == 0);
	(void)snprintf(path, sizeof(path), "%s/proc/%d/fd/7", root, (int)pid);
	CHECK(symlink(disk, path) == 0);
	(void)snprintf(text, sizeof(text), "flags:\t0140002\nmnt_id:\t9\nino:\t%llu\n", (unsigned long long)st.st_ino);
	put("/fdinfo/7", pid, text);
	(void)snprintf(text, sizeof(text), "9 1 %u:%u / /srv rw - nfs4 server:/x rw,hard\n", major(st.st_dev), minor(st.st_dev));
	put("/mountinfo", pid, text);
}

static void stop_loop(void *loop) { qb_loop_stop(loop); }

/* Killed is not silent where it is not its end that says so. */
static void check_held(qb_loop_t *loop)
{
	char name[1][HELD_NAME_LEN];
	qb_loop_timer_handle h;
	pid_t pid = sleeper();

	opens_on_nfs(pid);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", pid);
	TAP_OK(look() && n == 1 && has(VM_A), "one with a file on NFS");
	silent = false;
	vmslice_kill(slice, on_silent, loop);
	CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 300 * NS_PER_MS, loop, stop_loop, &h) == 0);
	qb_loop_run(loop);
	CHECK(waitpid(pid, NULL, 0) == pid);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", 0);
	CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 300 * NS_PER_MS, loop, stop_loop, &h) == 0);
	qb_loop_run(loop);
	TAP_OK(!silent && vmslice_count(slice) == 0, "it is killed and gone: that is not the proof");
	TAP_OK(!vmslice_marks(slice, marks, ARRAY_SIZE(marks), &n), "which VMs are here cannot be told either");
	TAP_OK(held_dead(name, 1, NULL) == 1 && held_prove(name[0]), "its file answers");
	qb_loop_run(loop);
	TAP_OK(silent && look() && n == 0, "now it is silent");
}

static unsigned notes(void)
{
	char path[64];
	unsigned count = 0;
	struct dirent *e;
	DIR *d;

	(void)snprintf(path, sizeof(path), "%s/held", root);
	d = opendir(path);
	while (d && (e = readdir(d)))
		count += e->d_name[0] != '.';
	if (d)
		(void)closedir(d);
	return count;
}

/* Within 20 s */
static bool comes_to(unsigned want)
{
	const struct timespec pause = { .tv_nsec = 20000000 };

	for (unsigned i = 0; i < 1000 && notes() != want; i++)
		(void)nanosleep(&pause, NULL);
	return notes() == want;
}

/* Of process i, which is gone: nobody can have started then. */
static void note_dead(unsigned i, bool provable)
{
	char path[256], disk[64];
	struct stat st;
	FILE *f;

	(void)snprintf(disk, sizeof(disk), "%s/dead-disk", root);
	f = fopen(disk, "we");
	CHECK(f && fclose(f) == 0 && stat(disk, &st) == 0);
	(void)snprintf(path, sizeof(path), "%s/held/00000001-%d-%u-1", root, (int)getpid(), i + 1);
	f = fopen(path, "we");
	CHECK(f && fprintf(f, "%s %u:%u %llu %s\n", provable ? "sync" : "none", major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino, disk) > 0 && fclose(f) == 0);
}

/* More notes than are tried at a time, of which nothing can be proven. */
static void check_many(void)
{
	enum { NEVER = 300, PROVABLE = 4 };
	char path[256];

	for (unsigned i = 0; i < NEVER + PROVABLE; i++)
		note_dead(i, i % 100 == 50 || i == NEVER);
	TAP_OK(comes_to(NEVER), "those of which something can be proven have their turn beside %d others", NEVER);
	for (unsigned i = 0; i < NEVER + PROVABLE; i++) {
		(void)snprintf(path, sizeof(path), "%s/held/00000001-%d-%u-1", root, (int)getpid(), i + 1);
		(void)unlink(path);
	}
}

/* Beside a keeper that knows nothing of it: it notes while a process lives, proves when it is gone, and ends with its keeper. */
static void check_prover(void)
{
	pid_t keeper, pid = sleeper();
	int alive[2];
	char byte;

	holds("/" VMSLICE_VM_PREFIX VM_B ".service", pid);
	opens_on_nfs(pid);
	CHECK(pipe(alive) == 0); /* one end is the keeper's, and of whoever has left it open */
	keeper = fork();
	CHECK(keeper >= 0);
	if (keeper == 0) {
		CHECK(close(alive[0]) == 0 && prover_start(root) == 0);
		(void)pause();
		_exit(0);
	}
	CHECK(close(alive[1]) == 0);
	TAP_OK(comes_to(1) && held_quiet(HELD_FOR_DEAD, 0, NULL, 0), "the prover notes what a living one has open");
	end(pid);
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", 0);
	TAP_OK(comes_to(0) && look() && n == 0, "it has died by itself: the prover proves it silent");
	check_many();
	end(keeper);
	TAP_OK(read(alive[0], &byte, 1) == 0, "nothing that the keeper has open is held open");
	pid = sleeper();
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", pid);
	opens_on_nfs(pid);
	(void)usleep(1500000);
	TAP_OK(notes() == 0, "the prover has ended with its keeper");
	end(pid);
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", 0);
	(void)close(alive[0]);
}

static int drop(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }

int main(void)
{
	qb_loop_t *loop = qb_loop_create();
	pid_t a, b, helper, stray;
	char held[64];
	uint8_t vm[16];

	CHECK(mkdtemp(root));
	(void)snprintf(held, sizeof(held), "%s/held", root);
	(void)snprintf(proc, sizeof(proc), "%s/proc", root);
	held_use(held, proc);
	CHECK(loop && vmslice_new(loop, root, &slice) == 0 && uuid_parse(VM_A, vm));
	TAP_OK(look() && n == 0, "no slice: no VM was ever started");
	make_dir("/kvmha.slice");
	make_dir(SLICE);
	make_dir(SLICE "/" VMSLICE_VM_PREFIX VM_A ".service");
	make_dir(SLICE "/" VMSLICE_VM_PREFIX VM_A ".service/helper");
	make_dir(SLICE "/" VMSLICE_VM_PREFIX VM_B ".service");
	a = sleeper();
	b = sleeper();
	helper = sleeper();
	holds("", 0);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", a);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service/helper", helper);
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", b);
	TAP_OK(look() && n == 2 && has(VM_A) && has(VM_B), "two VMs, each once: a helper below a VM's unit is of that VM");
	TAP_OK(vmslice_register(slice, a, vm) == 0 && look() && n == 2, "one that registers at the gate is the same one");
	end(b);
	TAP_OK(look() && n == 1 && has(VM_A), "one has ended, whatever the control group says of it yet");
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", 0);
	end(a);
	TAP_OK(look() && n == 1 && has(VM_A), "while a helper lives, so does its VM");
	end(helper);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", 0);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service/helper", 0);
	TAP_OK(look() && n == 0, "all have ended");
	stray = sleeper();
	TAP_OK(vmslice_register(slice, stray, vm) == 0 && look() && n == 1 && has(VM_A), "what has passed the gate counts before anybody sees it in the slice");
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", stray);
	TAP_OK(!vmslice_marks(slice, marks, ARRAY_SIZE(marks), &n), "another VM's unit has it: nothing can be told");
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", 0);
	end(stray);
	TAP_OK(look() && n == 0, "until it has gone");
	/* One that something else started. */
	stray = sleeper();
	TAP_OK(vmslice_adopt(slice, stray, process_start(stray) + 1, vm) == -ESRCH && look() && n == 0, "another process had that number: nobody is adopted");
	TAP_OK(vmslice_adopt(slice, stray, process_start(stray), vm) == 0 && look() && n == 1 && has(VM_A), "a running process is adopted: it counts at once");
	TAP_OK(vmslice_disown(slice, stray) == 0 && look() && n == 0, "not after all: it is nobody's");
	make_dir(SLICE "/" VMSLICE_VM_PREFIX VM_B ".scope");
	holds("/" VMSLICE_VM_PREFIX VM_B ".scope", stray);
	TAP_OK(look() && n == 1 && has(VM_B), "in a scope it is the scope's VM");
	TAP_OK(vmslice_disown(slice, stray) == 0 && look() && n == 1 && has(VM_B), "what is in the slice cannot be disowned");
	holds("/" VMSLICE_VM_PREFIX VM_B ".scope", 0);
	end(stray);
	TAP_OK(vmslice_adopt(slice, stray, 1, vm) < 0 && look() && n == 0, "one that has gone is not adopted");
	make_dir(SLICE "/other.service");
	stray = sleeper();
	holds("/other.service", stray);
	TAP_OK(!vmslice_marks(slice, marks, ARRAY_SIZE(marks), &n), "a process that is nobody's: nothing can be told");
	end(stray);
	holds("/other.service", 0);
	a = sleeper();
	b = sleeper();
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", a);
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", b);
	TAP_OK(look() && n == 2 && !vmslice_marks(slice, marks, 1, &n), "more than there is room for: nothing can be told");
	end(a);
	end(b);
	holds("/" VMSLICE_VM_PREFIX VM_A ".service", 0);
	holds("/" VMSLICE_VM_PREFIX VM_B ".service", 0);
	check_copies(loop);
	check_held(loop);
	check_prover();
	vmslice_free(slice);
	qb_loop_destroy(loop);
	CHECK(nftw(root, drop, 8, FTW_DEPTH | FTW_PHYS) == 0);
	return tap_done();
}
