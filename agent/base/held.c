/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/held.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "agent/base/paths.h"
#include "agent/base/process.h"

#define LINE_LEN (PATH_MAX + 64)
#define NOTE_LEN (64 * 1024) /* of one process; more is not noted, which is told */
#define PF_EXITING_ 0x4     /* Linux include/linux/sched.h */
#define LOOP_MAJOR 7
#define SYNC_TRIES 3         /* fsync(2) tells an error that was there before, once */
#define MAX_LEFT 16          /* notes of a process by writers that are gone; more go with the next look */

/* A file that a process has open. */
struct file {
	enum held_proof proof;
	unsigned major, minor; /* of its file system */
	uint64_t ino;
	char path[PATH_MAX];
};

static const char *held_dir = PATHS_HELD, *proc_dir = "/proc";

static const char *const proof_word[] = { [HELD_NOT] = "not", [HELD_READ] = "read", [HELD_SYNC] = "sync", [HELD_NONE] = "none" };

void held_use(const char *dir, const char *proc)
{
	held_dir = dir;
	proc_dir = proc;
}

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p++)
		if ((p == list || p[-1] == ',') && (p[len] == '\0' || p[len] == ','))
			return true;
	return false;
}

enum held_proof held_proof_of(const char *type, const char *options, enum held_block block, int flags)
{
	/* Of this host alone, or of its memory: nobody else reads what they have not brought to a disk yet. */
	static const char *const local[] = { "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "reiserfs", "nilfs2", "vfat", "msdos", "exfat", "ntfs3",
					     "udf", "rootfs", "tmpfs", "ramfs", "devtmpfs", "hugetlbfs", "overlay", "aufs", "proc", "sysfs", "devpts", "mqueue", "debugfs", "tracefs",
					     "securityfs", "configfs", "cgroup", "cgroup2", "bpf", "selinuxfs", "efivarfs", "pstore", "binfmt_misc" };

	if ((flags & O_ACCMODE) == O_RDONLY)
		return HELD_NOT;
	if (block == HELD_LOOP) /* its writes end in the page cache of the file behind it */
		return HELD_SYNC;
	if (block == HELD_BLOCK)
		return flags & O_DIRECT ? HELD_NOT : HELD_SYNC; /* whoever waits for a direct write there waits for its end, killed or not */
	if (streq(type, "nfs") || streq(type, "nfs4")) /* soft: given up after a while, and perhaps still on its way */
		return has_word(options, "soft") || has_word(options, "softerr") ? HELD_NONE : HELD_READ;
	if (streq(type, "ocfs2") || streq(type, "gfs2"))
		return HELD_SYNC;
	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (streq(type, local[i]))
			return HELD_NOT;
	return HELD_NONE;
}

/* Names of what has no file system that could be mounted. */
static bool is_memory(const char *link)
{
	static const char *const name[] = { "/memfd:", "/SYSV", "/anon_hugepage", "/dev/zero (deleted)", "/[aio]" };

	for (size_t i = 0; i < ARRAY_SIZE(name); i++)
		if (strncmp(link, name[i], strlen(name[i])) == 0)
			return true;
	return false;
}

/* The mount of that number in the process' namespace: device, type and the file system's options. */
static bool read_mount(pid_t pid, int mount, struct file *f, char *type, size_t type_size, char *options, size_t options_size)
{
	char path[PATH_MAX], line[2 * LINE_LEN], *dash, *word, *save = NULL;
	bool found = false;
	FILE *in;
	int id;

	if ((size_t)snprintf(path, sizeof(path), "%s/%d/mountinfo", proc_dir, (int)pid) >= sizeof(path) || !(in = fopen(path, "re")))
		return false;
	while (!found && fgets(line, sizeof(line), in)) {
		if (sscanf(line, "%d %*d %u:%u", &id, &f->major, &f->minor) != 3 || id != mount || !(dash = strstr(line, " - ")))
			continue;
		word = strtok_r(dash + 3, " \n", &save);
		found = word && str_copy(type, type_size, word);
		word = strtok_r(NULL, " \n", &save); /* its source */
		word = strtok_r(NULL, " \n", &save);
		found = found && word && str_copy(options, options_size, word);
	}
	(void)fclose(in);
	return found;
}

static bool read_fdinfo(pid_t pid, const char *fd, int *flags, int *mount, uint64_t *ino)
{
	char path[PATH_MAX], line[256];
	unsigned got = 0;
	FILE *in;

	*ino = 0; /* before Linux 5.14: no file is that one, and nothing is proven */
	if ((size_t)snprintf(path, sizeof(path), "%s/%d/fdinfo/%s", proc_dir, (int)pid, fd) >= sizeof(path) || !(in = fopen(path, "re")))
		return false;
	while (fgets(line, sizeof(line), in)) {
		unsigned octal;

		if (sscanf(line, "flags: %o", &octal) == 1) {
			*flags = (int)octal;
			got |= 1;
		} else if (sscanf(line, "mnt_id: %d", mount) == 1) {
			got |= 2;
		} else {
			(void)sscanf(line, "ino: %" SCNu64, ino);
		}
	}
	(void)fclose(in);
	return got == 3;
}

/* Of what is in memory: to look at that waits for nobody. */
static enum held_block block_of(int dir, const char *fd, const char *type)
{
	struct stat st;

	if ((!streq(type, "devtmpfs") && !streq(type, "tmpfs")) || fstatat(dir, fd, &st, 0) < 0 || !S_ISBLK(st.st_mode))
		return HELD_NO_BLOCK;
	return major(st.st_rdev) == LOOP_MAJOR ? HELD_LOOP : HELD_BLOCK;
}

/* True: it is to be noted. */
static bool look_at(pid_t pid, int dir, const char *fd, struct file *f)
{
	ssize_t len = readlinkat(dir, fd, f->path, sizeof(f->path) - 1);
	char type[64], options[4096];
	int flags = 0, mount = 0;

	if (len <= 0 || f->path[0] != '/') /* closed meanwhile; a socket, a pipe, or the like */
		return false;
	f->path[len] = '\0';
	if (is_memory(f->path) || !read_fdinfo(pid, fd, &flags, &mount, &f->ino) || (flags & O_ACCMODE) == O_RDONLY)
		return false;
	/* A path with an odd character is not found again, so it cannot be proven. */
	f->path[strcspn(f->path, "\n")] = '\0';
	f->proof = HELD_NONE; /* of a mount that is not there any more */
	f->major = f->minor = 0;
	if (read_mount(pid, mount, f, type, sizeof(type), options, sizeof(options)))
		f->proof = held_proof_of(type, options, block_of(dir, fd, type), flags);
	return f->proof != HELD_NOT;
}

static bool note_path(char *ret, size_t size, const char *name) { return (size_t)snprintf(ret, size, "%s/%s", held_dir, name) < size; }

static size_t read_note(const char *name, char *ret, size_t size)
{
	char path[PATH_MAX];
	size_t n = 0;
	FILE *in;

	if (note_path(path, sizeof(path), name) && (in = fopen(path, "re"))) {
		n = fread(ret, 1, size - 1, in);
		(void)fclose(in);
	}
	ret[n] = '\0';
	return n;
}

/* Whole or not at all: a reader must not take half of it for all. */
static int write_note(const char *name, const char *text, size_t len)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	FILE *out;
	bool ok;

	if (!note_path(path, sizeof(path), name) || (size_t)snprintf(tmp, sizeof(tmp), "%s/.%d.%s", held_dir, (int)getpid(), name) >= sizeof(tmp))
		return -ENAMETOOLONG;
	if (mkdir(held_dir, 0700) < 0 && errno != EEXIST)
		return -errno;
	out = fopen(tmp, "we");
	if (!out)
		return -errno;
	ok = fwrite(text, 1, len, out) == len;
	ok = fclose(out) == 0 && ok;
	return ok && rename(tmp, path) == 0 ? 0 : -EIO;
}

/* Has its first thread let go of its files, or may have? It says so before it does. (proc(5), stat: flags) */
static bool is_exiting(pid_t pid)
{
	char path[PATH_MAX], text[1024], *end;
	unsigned flags;
	size_t n = 0;
	FILE *in;

	if ((size_t)snprintf(path, sizeof(path), "%s/%d/stat", proc_dir, (int)pid) < sizeof(path) && (in = fopen(path, "re"))) {
		n = fread(text, 1, sizeof(text) - 1, in);
		(void)fclose(in);
	}
	text[n] = '\0';
	end = strrchr(text, ')');
	return !end || sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1 || (flags & PF_EXITING_) != 0;
}

struct text {
	char s[NOTE_LEN];
	size_t len;
	bool full;
};

/* Each line once. */
static void add_line(struct text *t, const char *line, size_t n)
{
	for (const char *p = t->s; (p = strstr(p, line)); p++)
		if (p == t->s || p[-1] == '\n')
			return;
	t->full = t->full || t->len + n >= sizeof(t->s);
	if (t->full)
		return;
	memcpy(t->s + t->len, line, n + 1);
	t->len += n;
}

static void list_files(pid_t pid, DIR *d, struct text *t)
{
	static struct file f;
	static char line[LINE_LEN];
	struct dirent *e;

	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && look_at(pid, dirfd(d), e->d_name, &f))
			add_line(t, line, (size_t)snprintf(line, sizeof(line), "%s %u:%u %" PRIu64 " %s\n", proof_word[f.proof], f.major, f.minor, f.ino, f.path));
}

/* Notes of that process by a prover or keeper that is gone, as after a restart: nobody writes them any more. */
static unsigned find_left(pid_t pid, uint64_t start, char name[][HELD_NAME_LEN], unsigned max)
{
	DIR *d = opendir(held_dir);
	struct dirent *e;
	unsigned n = 0;
	char of[48];
	int writer;

	(void)snprintf(of, sizeof(of), "-%d-%" PRIu64 "-", (int)pid, start);
	while (d && n < max && (e = readdir(d))) {
		const char *at = strstr(e->d_name, of);

		if (e->d_name[0] != '.' && at && sscanf(at + strlen(of), "%d", &writer) == 1 && writer > 0 && kill(writer, 0) < 0 && errno == ESRCH &&
		    str_copy(name[n], HELD_NAME_LEN, e->d_name))
			n++;
	}
	if (d)
		(void)closedir(d);
	return n;
}

int held_note(pid_t pid, uint32_t mark)
{
	static char left[MAX_LEFT][HELD_NAME_LEN];
	unsigned n_left;
	static struct text now, old; /* too much for a stack, and nobody has more of them at a time */
	uint64_t start = process_start(pid);
	char path[PATH_MAX], name[HELD_NAME_LEN], *line, *save = NULL;
	static char before[NOTE_LEN], with_end[LINE_LEN];
	int r = 0;
	DIR *d;

	if (start == 0)
		return 0; /* gone: what it had was noted before, or is not known any more */
	(void)snprintf(name, sizeof(name), "%08x-%d-%" PRIu64 "-%d", mark, (int)pid, start, (int)getpid()); /* one writer each */
	if ((size_t)snprintf(path, sizeof(path), "%s/%d/fd", proc_dir, (int)pid) >= sizeof(path))
		return -ENAMETOOLONG;
	n_left = find_left(pid, start, left, MAX_LEFT);
	d = opendir(path);
	if (!d)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	now = (struct text){ 0 };
	list_files(pid, d, &now);
	(void)closedir(d);
	old.len = read_note(name, old.s, sizeof(old.s));
	(void)memcpy(before, old.s, old.len + 1);
	/* What it has closed in good order while it lived it had waited for; at its end it closes all. */
	if (old.len > 0 && is_exiting(pid))
		for (line = strtok_r(old.s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			add_line(&now, with_end, (size_t)snprintf(with_end, sizeof(with_end), "%s\n", line));
	if (now.len == 0 && old.len > 0)
		(void)(note_path(path, sizeof(path), name) && unlink(path));
	else if (!streq(now.s, before))
		r = write_note(name, now.s, now.len);
	/* What they have beyond this one it has closed while it lived, if it still does: nothing was left out of this one as it ended. */
	if (r == 0 && !now.full && n_left > 0 && !is_exiting(pid) && process_start(pid) == start)
		for (unsigned i = 0; i < n_left; i++)
			(void)(note_path(path, sizeof(path), left[i]) && unlink(path));
	return now.full ? -E2BIG : r;
}

struct note {
	uint32_t mark;
	pid_t pid;
	uint64_t start;
};

static bool note_of(const char *name, struct note *n)
{
	int pid;

	if (sscanf(name, "%" SCNx32 "-%d-%" SCNu64, &n->mark, &pid, &n->start) != 3)
		return false;
	n->pid = pid;
	return true;
}

/* 0: it lives; -ESRCH: it is gone, the last thread of it; else that cannot be told. */
static int state_of(const struct note *n)
{
	int fd = process_open(n->pid, n->start);

	if (fd < 0)
		return fd;
	(void)close(fd);
	return 0;
}

/* Does the note hold this host back for that? */
static bool counts(const char *name, enum held_for what, char *path, size_t size)
{
	static char text[NOTE_LEN];
	char *line, *save = NULL, *at;
	bool found = false;

	(void)read_note(name, text, sizeof(text));
	if (!*text) /* gone meanwhile, or it cannot be read */
		return note_path(text, sizeof(text), name) && access(text, F_OK) == 0;
	for (line = strtok_r(text, "\n", &save); line && !found; line = strtok_r(NULL, "\n", &save)) {
		found = what != HELD_FOR_SAME || strncmp(line, "none ", 5) != 0;
		at = strchr(line, '/');
		if (found && path)
			(void)snprintf(path, size, "%s", at ? at : "?");
	}
	return found;
}

bool held_quiet(enum held_for what, uint32_t mark, char *path, size_t size)
{
	DIR *d = opendir(held_dir);
	bool quiet = true;
	struct dirent *e;
	struct note n;

	if (path)
		*path = '\0';
	if (!d)
		return errno == ENOENT; /* nobody had any such file */
	while (quiet && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (!note_of(e->d_name, &n)) {
			quiet = false;
			continue;
		}
		if (what != HELD_FOR_DEAD && n.mark != mark && n.mark != 0)
			continue;
		if (state_of(&n) != 0)
			quiet = !counts(e->d_name, what, path, size);
	}
	(void)closedir(d);
	return quiet;
}

unsigned held_dead(char name[][HELD_NAME_LEN], unsigned max, bool (*skip)(const char *name))
{
	DIR *d = opendir(held_dir);
	struct dirent *e;
	unsigned n = 0;
	struct note note;

	if (!d)
		return 0;
	while (n < max && (e = readdir(d)))
		if (e->d_name[0] != '.' && note_of(e->d_name, &note) && !(skip && skip(e->d_name)) && state_of(&note) == -ESRCH && str_copy(name[n], HELD_NAME_LEN, e->d_name))
			n++;
	(void)closedir(d);
	return n;
}

void held_forget(uint32_t mark, pid_t pid)
{
	DIR *d = opendir(held_dir);
	char path[PATH_MAX];
	struct dirent *e;
	struct note note;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && note_of(e->d_name, &note) && note.mark == mark && note.pid == pid && state_of(&note) == -ESRCH && note_path(path, sizeof(path), e->d_name))
			(void)unlink(path);
	if (d)
		(void)closedir(d);
}

/* Where root is nobody, as on an NFS export by default, only its owner may read it. For a process that nobody else's work depends on. */
static int open_as_owner(const char *path)
{
	struct stat st;
	int fd = -1;

	if (stat(path, &st) < 0)
		return -1;
	if (setegid(st.st_gid) == 0 && seteuid(st.st_uid) == 0)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	CHECK(seteuid(0) == 0 && setegid(0) == 0);
	return fd;
}

static bool prove_file(const char *proof, unsigned major, unsigned minor, uint64_t ino, const char *path)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	char byte;

	if (streq(proof, proof_word[HELD_NONE]) || ino == 0)
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == EACCES && geteuid() == 0)
		fd = open_as_owner(path);
	/* Another file of that name, or another mount of it, proves nothing. */
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != ino || st.st_dev != makedev(major, minor))
		return false;
	if (streq(proof, proof_word[HELD_READ]) && pread(fd, &byte, 1, 0) < 0)
		return false;
	for (unsigned i = 0; i < SYNC_TRIES; i++)
		if (fsync(fd) == 0)
			return true;
	return false;
}

bool held_prove(const char *name)
{
	static char text[NOTE_LEN];
	char path[PATH_MAX], *line, *save = NULL;
	bool proven;

	proven = read_note(name, text, sizeof(text)) > 0;
	for (line = strtok_r(text, "\n", &save); line && proven; line = strtok_r(NULL, "\n", &save)) {
		unsigned major, minor;
		char proof[8];
		uint64_t ino;
		int at = 0;

		proven = sscanf(line, "%7s %u:%u %" SCNu64 " %n", proof, &major, &minor, &ino, &at) == 4 && at > 0 && prove_file(proof, major, minor, ino, line + at);
	}
	return proven && note_path(path, sizeof(path), name) && unlink(path) == 0;
}
