/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What leaves the process, made harmless: the few system calls that tests/fuzz/fuzz.mk renames in the daemons' files, the volumes and the ring. */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent/base/conf.h"
#include "agent/base/ring.h"
#include "storage/volset.h"
#include "tests/fuzz/edges.h"
#include "tests/fuzz/fuzz.h"

#define MAX_WAITING 64
#define CAPTURE_LEN (4U << 20)

void (*fuzz_connected)(int peer, int type);

/* Files: nothing is read from or written to this host. */
FILE *fuzz_fopen(const char *path, const char *mode) { return fopen("/dev/null", mode); }
int fuzz_rename(const char *from, const char *to) { return 0; }
int fuzz_unlink(const char *path) { return 0; }
int fuzz_mkdir(const char *path, mode_t mode) { return 0; }
int fuzz_chmod(const char *path, mode_t mode) { return 0; }
int fuzz_mlockall(int flags) { return 0; }
int fuzz_sched_setscheduler(pid_t pid, int policy, const struct sched_param *param) { return 0; }

/* Sockets: a listener is an eventless socket; who dials gets a pair, and its other end waits to be accepted. */
static struct {
	int fd;
	int type;
} waiting[MAX_WAITING];
static size_t n_waiting;
static struct {
	int fd, wake; /* wake: what makes the listener readable */
} listener[8];
static size_t n_listeners;

static int type_of(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	FUZZ_CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0);
	return type;
}

int fuzz_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int pair[2];

	FUZZ_CHECK(n_listeners < ARRAY_SIZE(listener) && socketpair(AF_UNIX, type_of(fd) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	FUZZ_CHECK(dup2(pair[0], fd) == fd);
	(void)close(pair[0]);
	listener[n_listeners].fd = fd;
	listener[n_listeners++].wake = pair[1];
	return 0;
}

int fuzz_listen(int fd, int backlog) { return 0; }

int fuzz_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	char byte;

	if (recv(fd, &byte, 1, MSG_DONTWAIT) != 1) {
		errno = EAGAIN;
		return -1;
	}
	for (size_t i = 0; i < n_waiting; i++)
		if (waiting[i].type == type_of(fd)) {
			int found = waiting[i].fd;

			waiting[i] = waiting[--n_waiting];
			return found;
		}
	errno = EAGAIN;
	return -1;
}

int fuzz_dial(int type)
{
	int pair[2];

	for (size_t i = 0; i < n_listeners; i++) {
		if (type_of(listener[i].fd) != type)
			continue;
		FUZZ_CHECK(n_waiting < MAX_WAITING && socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
		waiting[n_waiting].fd = pair[0];
		waiting[n_waiting++].type = type;
		FUZZ_CHECK(send(listener[i].wake, "", 1, MSG_NOSIGNAL) == 1);
		return pair[1];
	}
	FUZZ_CHECK(!"somebody listens");
}

/* Everybody is root. */
int fuzz_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	int r = getsockopt(fd, level, name, value, len);

	if (r == 0 && level == SOL_SOCKET && name == SO_PEERCRED)
		((struct ucred *)value)->uid = 0;
	return r;
}

int fuzz_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int pair[2], type = type_of(fd);

	if (!fuzz_connected) {
		errno = ECONNREFUSED;
		return -1;
	}
	FUZZ_CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0 && dup2(pair[0], fd) == fd);
	(void)close(pair[0]);
	fuzz_connected(pair[1], type);
	return 0;
}

int fuzz_refuse(int fd, const struct sockaddr *addr, socklen_t len)
{
	errno = ECONNREFUSED;
	return -1;
}

void (*fuzz_sleeps)(void);

unsigned fuzz_sleep(unsigned seconds)
{
	fuzz_sleeps();
	return 0;
}

/* Volumes: always there; an operation ends on the loop's next turn, well or as the target says (fuzz_volume_result). */
const uint8_t fuzz_cluster[16] = { 0x5a, 0x11, 0xc0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
static struct { unsigned char bytes[FUZZ_VOLUME_LEN]; } disk[FUZZ_VOLUMES];
static struct volume_io *pending[64];
static struct { struct volume_io *io; unsigned volume; bool write; } queue[64];
static size_t n_queue;
enum volume_result fuzz_volume_result = VOLUME_OK;

struct volset {
	struct superblock sb;
};

void *fuzz_volume(unsigned index) { return disk[index].bytes; }

int volset_new(qb_loop_t *loop, const struct conf *conf, const struct volset_callbacks *cb, void *user, struct volset **ret, char *err,
	       size_t err_size)
{
	static struct volset sets[2];
	static size_t n;
	struct superblock sb;
	struct volset *s;

	FUZZ_CHECK(n < ARRAY_SIZE(sets));
	s = &sets[n++];
	sb = (struct superblock){ .generation = 1, .n_volumes = (uint32_t)conf->n_volumes, .node_limit = FUZZ_NODES, .timing = conf->timing };
	memcpy(sb.cluster, fuzz_cluster, 16);
	(void)str_copy(sb.cluster_name, sizeof(sb.cluster_name), conf->cluster);
	for (unsigned v = 0; v < sb.n_volumes; v++)
		sb.set[v][0] = (uint8_t)(v + 1);
	*ret = s;
	for (unsigned v = 0; v < sb.n_volumes; v++) {
		sb.index = v;
		superblock_encode(&sb, 0, disk[v].bytes);
		superblock_encode(&sb, 1, disk[v].bytes + FORMAT_BLOCK);
	}
	sb.index = 0;
	s->sb = sb;
	cb->known(user, &s->sb);
	for (unsigned v = 0; v < conf->n_volumes; v++)
		cb->volume(user, v, true, "");
	return 0;
}

struct volume *volset_volume(const struct volset *s, unsigned index) { return (struct volume *)&disk[index]; }
bool volset_good(const struct volset *s, unsigned index) { return true; }
enum volset_state volset_state(const struct volset *s, unsigned index) { return VOLSET_GOOD; }
void volset_changed(struct volset *s, unsigned index) { }
const char *volset_reason(const struct volset *s, unsigned index) { return ""; }
bool volset_lost_path(const struct volset *s, unsigned index, char *ret, size_t size)
{
	ret[0] = '\0';
	return false;
}

void *volset_buffer(size_t len)
{
	void *p = aligned_alloc(FORMAT_BLOCK, (len + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK);

	FUZZ_CHECK(p);
	memset(p, 0, len);
	return p;
}

static void enqueue(struct volume *v, struct volume_io *io, bool write)
{
	FUZZ_CHECK(n_queue < ARRAY_SIZE(queue) && io->offset + io->len <= FUZZ_VOLUME_LEN);
	queue[n_queue].io = io;
	queue[n_queue].volume = (unsigned)(((unsigned char *)v - disk[0].bytes) / sizeof(disk[0]));
	queue[n_queue++].write = write;
}

void fuzz_volume_read(struct volume *v, struct volume_io *io) { enqueue(v, io, false); }
void fuzz_volume_write(struct volume *v, struct volume_io *io) { enqueue(v, io, true); }
const char *fuzz_volume_why(const struct volume *v, enum volume_result result) { return volume_result_name(result); }

void fuzz_volumes_turn(void)
{
	size_t n = n_queue;

	n_queue = 0;
	for (size_t i = 0; i < n; i++) {
		struct volume_io *io = queue[i].io;
		unsigned char *at = disk[queue[i].volume].bytes + io->offset;

		if (fuzz_volume_result == VOLUME_OK && queue[i].write)
			memcpy(at, io->buf, io->len);
		else if (fuzz_volume_result == VOLUME_OK)
			memcpy(io->buf, at, io->len);
		pending[i] = io;
	}
	for (size_t i = 0; i < n; i++) {
		pending[i]->done(pending[i], fuzz_volume_result);
		pending[i]->settled(pending[i], VOLUME_COMPLETED);
	}
}

void fuzz_volumes_forget(void) { n_queue = 0; }
bool fuzz_volumes_busy(void) { return n_queue > 0; }

/* Ring: what is said goes nowhere but into fuzz_ring_sent(). */
struct ring {
	char group[32];
	struct ring_callbacks cb;
	void *user;
};

static struct ring rings[2];
static size_t n_rings;
static char sent[RING_MAX_MESSAGE + 1];

int ring_new(qb_loop_t *loop, const char *group, const struct ring_callbacks *cb, void *user, struct ring **ret)
{
	FUZZ_CHECK(n_rings < ARRAY_SIZE(rings));
	*ret = &rings[n_rings++];
	**ret = (struct ring){ .cb = *cb, .user = user };
	FUZZ_CHECK(str_copy((*ret)->group, sizeof((*ret)->group), group));
	return 0;
}

const char *ring_address(const struct ring *r) { return "192.0.2.1"; }

int ring_send(struct ring *r, const void *data, size_t len)
{
	if (len > RING_MAX_MESSAGE)
		return -EMSGSIZE;
	memcpy(sent, data, len);
	sent[len] = '\0';
	return 0;
}

const char *fuzz_ring_sent(void) { return sent; }

static struct ring *ring_of(const char *group)
{
	for (size_t i = 0; i < n_rings; i++)
		if (streq(rings[i].group, group))
			return &rings[i];
	FUZZ_CHECK(!"the group has been joined");
}

void fuzz_ring_say(const char *group, uint32_t node, const void *data, size_t len)
{
	struct ring *r = ring_of(group);
	void *copy = malloc(len); /* of its own, so that reading behind its end shows */

	FUZZ_CHECK(copy || len == 0);
	if (len > 0)
		memcpy(copy, data, len);
	r->cb.message(r->user, node, copy, len);
	free(copy);
}

void fuzz_ring_view(const char *group, bool up, uint64_t view, bool encrypted)
{
	struct ring *r = ring_of(group);

	r->cb.view(r->user, up, view, encrypted);
}

/* Output. */
static char *captured;
static size_t captured_len;
static FILE *real_stdout, *real_stderr, *nowhere;

static ssize_t capture_write(void *cookie, const char *bytes, size_t n)
{
	if (cookie && captured_len + n < CAPTURE_LEN) {
		memcpy(captured + captured_len, bytes, n);
		captured_len += n;
	}
	return (ssize_t)n;
}

void fuzz_quiet(void)
{
	nowhere = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = capture_write });
	captured = malloc(CAPTURE_LEN);
	FUZZ_CHECK(nowhere && captured);
	real_stdout = stdout;
	real_stderr = stderr;
	stderr = nowhere;
}

void fuzz_capture_begin(void)
{
	captured_len = 0;
	stdout = fopencookie(captured, "w", (cookie_io_functions_t){ .write = capture_write });
	FUZZ_CHECK(stdout);
}

const char *fuzz_capture_end(size_t *ret_len)
{
	(void)fclose(stdout);
	stdout = real_stdout;
	captured[captured_len] = '\0';
	*ret_len = captured_len;
	return captured;
}

/* Directories. */
static char dirs[4][128];
static size_t n_dirs;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)remove(path);
	return 0;
}

static void remove_dirs(void)
{
	while (n_dirs > 0)
		(void)nftw(dirs[--n_dirs], remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fuzz_conf_dir(const char *text)
{
	const char *tmp = getenv("TMPDIR");
	char path[160];
	FILE *f;

	FUZZ_CHECK(n_dirs < ARRAY_SIZE(dirs));
	(void)snprintf(dirs[n_dirs], sizeof(dirs[0]), "%s/kvm-ha-fuzz.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	FUZZ_CHECK(mkdtemp(dirs[n_dirs]));
	if (n_dirs++ == 0)
		(void)atexit(remove_dirs);
	(void)snprintf(path, sizeof(path), "%s/kvm-ha.conf", dirs[n_dirs - 1]);
	f = fopen(path, "we");
	FUZZ_CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
	return dirs[n_dirs - 1];
}
