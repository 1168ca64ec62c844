/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that may be written after their QEMU's end (agent/base/held.c): real processes and files, a /proc that tells of file systems that are not there. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "agent/base/held.h"
#include "agent/base/process.h"
#include "tests/tap.h"

#define MARK 0x12345678

static char dir[] = "/tmp/kvm-ha-held-XXXXXX", held[64], proc[64], disk[64];

static pid_t sleeper(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	return pid;
}

static void end(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static _printf_(2, 3) void put(const char *name, const char *fmt, ...)
{
	char path[256];
	va_list ap;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", proc, name);
	f = fopen(path, "we");
	CHECK(f);
	va_start(ap, fmt);
	(void)vfprintf(f, fmt, ap);
	va_end(ap);
	CHECK(fclose(f) == 0);
}

static void make_proc(pid_t pid)
{
	char path[256];

	for (const char *const *sub = (const char *const[]){ "", "/fd", "/fdinfo", NULL }; *sub; sub++) {
		(void)snprintf(path, sizeof(path), "%s/%d%s", proc, (int)pid, *sub);
		CHECK(mkdir(path, 0700) == 0);
	}
	(void)snprintf(path, sizeof(path), "%d/stat", (int)pid);
	put(path, "%d (a b) c) S 1 1 1 0 -1 4194560 0", (int)pid);
}

/* It has the disk open, on what is said to be that file system. */
static void has_open(pid_t pid, int fd, int flags, const char *fs, const char *options)
{
	char path[256], name[64];
	struct stat st;

	CHECK(stat(disk, &st) == 0);
	(void)snprintf(path, sizeof(path), "%s/%d/fd/%d", proc, (int)pid, fd);
	CHECK(symlink(disk, path) == 0);
	(void)snprintf(name, sizeof(name), "%d/fdinfo/%d", (int)pid, fd);
	put(name, "pos:\t0\nflags:\t0%o\nmnt_id:\t77\nino:\t%llu\n", (unsigned)flags, (unsigned long long)st.st_ino);
	(void)snprintf(name, sizeof(name), "%d/mountinfo", (int)pid);
	put(name, "7 1 0:1 / / rw - ext4 /dev/x rw\n77 1 %u:%u / /srv rw,relatime shared:1 master:2 - %s server:/x %s\n", major(st.st_dev), minor(st.st_dev), fs, options);
}

static void closes(pid_t pid, int fd)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%d/fd/%d", proc, (int)pid, fd);
	CHECK(unlink(path) == 0);
}

static bool quiet(enum held_for what, uint32_t mark) { return held_quiet(what, mark, NULL, 0); }

/* What is proven of all dead ones that there are. */
static unsigned prove_all(void)
{
	char name[8][HELD_NAME_LEN];
	unsigned n = held_dead(name, ARRAY_SIZE(name), NULL), ok = 0;

	for (unsigned i = 0; i < n; i++)
		ok += held_prove(name[i]);
	return ok;
}

static void test_proof_of(void)
{
	const int rw = O_RDWR | O_DIRECT;

	TAP_OK(held_proof_of("nfs4", "rw,vers=4.2,hard,proto=tcp", HELD_NO_BLOCK, rw) == HELD_READ && held_proof_of("nfs", "rw,hard,softreval", HELD_NO_BLOCK, O_WRONLY) == HELD_READ,
	       "NFS: a read");
	TAP_OK(held_proof_of("nfs4", "rw,soft,proto=tcp", HELD_NO_BLOCK, rw) == HELD_NONE && held_proof_of("nfs", "rw,softerr", HELD_NO_BLOCK, rw) == HELD_NONE, "NFS, soft: nothing");
	TAP_OK(held_proof_of("nfs4", "rw,hard", HELD_NO_BLOCK, O_RDONLY | O_DIRECT) == HELD_NOT, "read only: not held");
	TAP_OK(held_proof_of("ocfs2", "rw", HELD_NO_BLOCK, rw) == HELD_SYNC && held_proof_of("gfs2", "rw", HELD_NO_BLOCK, O_RDWR) == HELD_SYNC, "OCFS2, GFS2: fsync");
	for (const char *const *fs = (const char *const[]){ "fuse", "fuse.glusterfs", "ceph", "cifs", "smb3", "9p", "beegfs", "", NULL }; *fs; fs++)
		TAP_OK(held_proof_of(*fs, "rw", HELD_NO_BLOCK, rw) == HELD_NONE, "\"%s\": nothing", *fs);
	TAP_OK(held_proof_of("ext4", "rw", HELD_NO_BLOCK, O_RDWR) == HELD_NOT && held_proof_of("tmpfs", "rw", HELD_NO_BLOCK, O_RDWR) == HELD_NOT, "this host's own: not held");
	TAP_OK(held_proof_of("devtmpfs", "rw", HELD_BLOCK, rw) == HELD_NOT, "a block device, direct: not held");
	TAP_OK(held_proof_of("devtmpfs", "rw", HELD_BLOCK, O_RDWR) == HELD_SYNC, "a block device by the page cache: fsync");
	TAP_OK(held_proof_of("devtmpfs", "rw", HELD_LOOP, rw) == HELD_SYNC, "a loop device: fsync");
	TAP_OK(held_proof_of("devtmpfs", "rw", HELD_NO_BLOCK, O_RDWR) == HELD_NOT, "/dev/kvm and the like: not held");
}

static void test_life(void)
{
	pid_t a = sleeper(), b = sleeper();
	char path[128] = "";

	make_proc(a);
	make_proc(b);
	TAP_OK(held_note(a, MARK) == 0 && access(held, F_OK) < 0, "nothing open: nothing is noted");
	has_open(a, 5, O_RDWR | O_DIRECT, "ext4", "rw");
	TAP_OK(held_note(a, MARK) == 0 && access(held, F_OK) < 0, "a file of this host: nothing is noted");
	closes(a, 5);
	has_open(a, 6, O_RDWR | O_DIRECT, "nfs4", "rw,hard");
	has_open(b, 6, O_RDWR | O_DIRECT, "fuse.glusterfs", "rw");
	TAP_OK(held_note(a, MARK) == 0 && held_note(b, MARK + 1) == 0 && quiet(HELD_FOR_DEAD, 0), "noted while they live: the host is quiet");
	TAP_OK(prove_all() == 0, "and nothing is proven of them");
	end(a);
	TAP_OK(!held_quiet(HELD_FOR_DEAD, 0, path, sizeof(path)) && streq(path, disk), "it dies, of itself: the host is not quiet: %s", path);
	TAP_OK(!quiet(HELD_FOR_NEXT, MARK) && !quiet(HELD_FOR_SAME, MARK), "its VM starts nowhere");
	TAP_OK(quiet(HELD_FOR_NEXT, MARK + 1) && quiet(HELD_FOR_SAME, MARK + 1), "any other may");
	TAP_OK(held_note(a, MARK) == 0 && !quiet(HELD_FOR_DEAD, 0), "looking at it again takes nothing back");
	TAP_OK(prove_all() == 1 && quiet(HELD_FOR_DEAD, 0) && quiet(HELD_FOR_NEXT, MARK), "its file answers: quiet");
	end(b);
	TAP_OK(prove_all() == 0 && !quiet(HELD_FOR_DEAD, 0) && !quiet(HELD_FOR_NEXT, MARK + 1), "of a FUSE file nothing is proven: never quiet");
	TAP_OK(quiet(HELD_FOR_SAME, MARK + 1), "on this host it may start again: the same daemon writes for both");
	held_forget(MARK + 1, b + 1);
	TAP_OK(!quiet(HELD_FOR_DEAD, 0), "another process of it has ended in good order: that says nothing");
	held_forget(MARK + 1, b);
	TAP_OK(quiet(HELD_FOR_DEAD, 0), "it has ended in good order: quiet");
}

static void test_not_proven(void)
{
	pid_t pid = sleeper();
	char path[256], away[128];

	make_proc(pid);
	has_open(pid, 6, O_RDWR | O_DIRECT, "nfs", "rw,hard");
	TAP_OK(held_note(pid, 0) == 0, "one that is nobody's");
	end(pid);
	TAP_OK(!quiet(HELD_FOR_NEXT, MARK), "counts for every VM");
	(void)snprintf(away, sizeof(away), "%s.away", disk);
	CHECK(rename(disk, away) == 0);
	TAP_OK(prove_all() == 0 && !quiet(HELD_FOR_DEAD, 0), "its file is not found: nothing is proven");
	put("../disk", "another one");
	TAP_OK(prove_all() == 0 && !quiet(HELD_FOR_DEAD, 0), "another file has its name: nothing is proven");
	CHECK(rename(away, disk) == 0);
	TAP_OK(prove_all() == 1 && quiet(HELD_FOR_DEAD, 0), "it is back: quiet");
	pid = sleeper();
	make_proc(pid);
	has_open(pid, 6, O_RDWR, "ocfs2", "rw");
	(void)snprintf(path, sizeof(path), "%d/mountinfo", (int)pid);
	put(path, "7 1 0:1 / / rw - ext4 /dev/x rw\n");
	TAP_OK(held_note(pid, MARK) == 0, "its mount is gone");
	end(pid);
	TAP_OK(prove_all() == 0 && !quiet(HELD_FOR_DEAD, 0), "nothing is proven");
	held_forget(MARK, pid);
}

/* A disk that was taken out, and then removed, must not hold the host for ever. At its end a process closes all. */
static void test_closed(void)
{
	pid_t pid = sleeper();
	char path[64];

	make_proc(pid);
	has_open(pid, 6, O_RDWR, "nfs", "rw,hard");
	CHECK(held_note(pid, MARK) == 0);
	closes(pid, 6);
	(void)snprintf(path, sizeof(path), "%d/stat", (int)pid);
	put(path, "%d (x) S 1 1 1 0 -1 4194564 0", (int)pid);
	TAP_OK(held_note(pid, MARK) == 0 && held_note(pid, MARK) == 0, "its files are closed as it ends");
	end(pid);
	TAP_OK(!quiet(HELD_FOR_DEAD, 0), "what it had counts");
	TAP_OK(prove_all() == 1, "until it is proven");
	pid = sleeper();
	make_proc(pid);
	has_open(pid, 6, O_RDWR, "nfs", "rw,hard");
	CHECK(held_note(pid, MARK) == 0);
	closes(pid, 6);
	TAP_OK(held_note(pid, MARK) == 0, "a file is closed while it goes on");
	end(pid);
	TAP_OK(quiet(HELD_FOR_DEAD, 0), "it was waited for then");
}

/* As a prover that is gone afterwards. */
static void note_and_go(pid_t pid)
{
	pid_t writer = fork();
	int status;

	CHECK(writer >= 0);
	if (writer == 0)
		_exit(held_note(pid, MARK) == 0 ? 0 : 1);
	CHECK(waitpid(writer, &status, 0) == writer && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static unsigned notes(void)
{
	DIR *d = opendir(held);
	unsigned n = 0;
	struct dirent *e;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		(void)closedir(d);
	return n;
}

/* The keeper was restarted, and its prover with it. */
static void test_left(void)
{
	pid_t pid = sleeper();
	char path[256];
	FILE *f;

	make_proc(pid);
	has_open(pid, 6, O_RDWR | O_DIRECT, "nfs4", "rw,hard");
	note_and_go(pid);
	note_and_go(pid);
	TAP_OK(notes() == 1 && held_note(pid, MARK) == 0 && notes() == 1, "the next prover's note takes the place of one by a prover that is gone");
	note_and_go(pid);
	(void)snprintf(path, sizeof(path), "%s/%08x-%d-%" PRIu64 "-1", held, MARK, (int)pid, process_start(pid));
	f = fopen(path, "we");
	CHECK(f && fputs("sync 0:1 1 /gone\n", f) >= 0 && fclose(f) == 0);
	TAP_OK(held_note(pid, MARK) == 0 && notes() == 2, "not that of one which lives");
	CHECK(unlink(path) == 0);

	note_and_go(pid);
	closes(pid, 6);
	CHECK(unlink(disk) == 0);
	(void)snprintf(disk, sizeof(disk), "%s/disk2", dir);
	put("../disk2", "a mirror");
	has_open(pid, 7, O_RDWR | O_DIRECT, "nfs4", "rw,hard");
	TAP_OK(held_note(pid, MARK) == 0 && notes() == 1, "a disk is mirrored and removed under the next prover");
	end(pid);
	TAP_OK(!quiet(HELD_FOR_DEAD, 0) && prove_all() == 1 && quiet(HELD_FOR_DEAD, 0), "only the new one counts, and it answers");
	CHECK(unlink(disk) == 0);
	(void)snprintf(disk, sizeof(disk), "%s/disk", dir);
	put("../disk", "a disk");

	pid = sleeper();
	make_proc(pid);
	has_open(pid, 6, O_RDWR, "nfs", "rw,hard");
	note_and_go(pid);
	closes(pid, 6);
	(void)snprintf(path, sizeof(path), "%d/stat", (int)pid);
	put(path, "%d (x) S 1 1 1 0 -1 4194564 0", (int)pid);
	TAP_OK(held_note(pid, MARK) == 0 && notes() == 1, "its files are closed as it ends: the note of the one before counts");
	end(pid);
	TAP_OK(!quiet(HELD_FOR_DEAD, 0) && prove_all() == 1 && quiet(HELD_FOR_DEAD, 0), "until it is proven");
}

static void test_unreadable(void)
{
	pid_t pid = sleeper();
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%d", proc, (int)pid);
	CHECK(mkdir(path, 0700) == 0);
	(void)snprintf(path, sizeof(path), "%s/%d/fd", proc, (int)pid);
	f = fopen(path, "we");
	CHECK(f && fclose(f) == 0);
	TAP_OK(held_note(pid, MARK) < 0, "what a living process has open cannot be read: that is told");
	end(pid);
	(void)snprintf(path, sizeof(path), "%s/nonsense", held);
	f = fopen(path, "we");
	CHECK(f && fclose(f) == 0);
	TAP_OK(!quiet(HELD_FOR_DEAD, 0), "a note that nobody understands: not quiet");
	CHECK(unlink(path) == 0);
	TAP_OK(quiet(HELD_FOR_DEAD, 0), "without it: quiet");
}

static int drop(const char *path, const struct stat *st, int flag, struct FTW *ftw) { return remove(path); }

int main(void)
{
	CHECK(mkdtemp(dir));
	(void)snprintf(held, sizeof(held), "%s/held", dir);
	(void)snprintf(proc, sizeof(proc), "%s/proc", dir);
	(void)snprintf(disk, sizeof(disk), "%s/disk", dir);
	CHECK(mkdir(proc, 0700) == 0);
	put("../disk", "a disk");
	held_use(held, proc);
	test_proof_of();
	test_life();
	test_not_proven();
	test_closed();
	test_left();
	test_unreadable();
	CHECK(nftw(dir, drop, 8, FTW_DEPTH | FTW_PHYS) == 0);
	return tap_done();
}
