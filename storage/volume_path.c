/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files and block devices, by O_DIRECT | O_DSYNC in a worker thread: any system call on them may hang for ever.
 *
 * A session is a worker with a descriptor of its own. Closing never waits: it tells the worker to leave and drops it. If the worker is in
 * a system call it keeps what it needs (session, descriptor, the part and so the user's buffer) until that call returns, and it counts
 * as stuck until then; with STUCK_MAX of them no new session is tried. The loop and the worker hold a reference each; whoever drops the
 * last one frees. The loop's is kept while a part is stuck, for reporting it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "storage/backend.h"

#define STUCK_MAX 8
#define WORKER_STACK (256U * 1024) /* small: the keeper locks its memory */

/* For the life of the volume and of its last worker. */
struct path_home {
	atomic_uint refs;
	atomic_uint stuck;
};

struct path_session {
	atomic_uint refs;
	struct path_home *home;
	qb_loop_t *loop;
	struct volume *v; /* loop only; NULL after close */
	int event_fd;
	bool read_only;
	void *probe_buf;
	char path[VOLUME_URL_LEN];

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	struct volume_part *queue, *running, *finished;
	bool is_leaving, is_counted, is_opened, is_open_known;
	bool is_gone; /* the descriptor serves no more: device removed, file replaced */
	uint64_t size;
	bool is_read_only;
	char error[VOLUME_REASON_LEN]; /* of opening; "" for none */
};

static void home_unref(struct path_home *home)
{
	if (atomic_fetch_sub(&home->refs, 1) == 1)
		free(home);
}

static void session_unref(struct path_session *s)
{
	if (atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	home_unref(s->home);
	if (s->event_fd >= 0)
		(void)close(s->event_fd);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->wake);
	free(s->probe_buf);
	free(s);
}

static void notify(const struct path_session *s)
{
	uint64_t one = 1;

	(void)!write(s->event_fd, &one, sizeof(one)); /* full: then it is readable, which is all we want */
}

static bool is_leaving(struct path_session *s)
{
	bool leaving;

	(void)pthread_mutex_lock(&s->lock);
	leaving = s->is_leaving;
	(void)pthread_mutex_unlock(&s->lock);
	return leaving;
}

/* The kind is looked at before the open, which on some devices does something, and again after it. */
static int check_kind(const struct path_session *s, const struct stat *st, char *err, size_t err_size)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	(void)snprintf(err, err_size, "%.80s is %s; a volume is a file or a block device", s->path,
		       S_ISDIR(st->st_mode) ? "a directory" : S_ISCHR(st->st_mode) ? "a character device" : "a pipe or a socket");
	return -EINVAL;
}

static int open_descriptor(const struct path_session *s, bool *ret_read_only, char *err, size_t err_size)
{
	int flags = O_DIRECT | O_DSYNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, fd = -1;
	bool read_only = s->read_only;

	if (!read_only) {
		fd = open(s->path, O_RDWR | flags);
		read_only = fd < 0 && (errno == EROFS || errno == EACCES || errno == EPERM);
	}
	if (read_only)
		fd = open(s->path, O_RDONLY | flags);
	if (fd < 0)
		(void)snprintf(err, err_size, "%.100s: cannot open: %s%s", s->path, strerror(errno),
			       errno == EINVAL ? " (its file system does not know O_DIRECT)" : "");
	*ret_read_only = read_only;
	return fd;
}

/* Returns the descriptor, or -1 with err set. READY shall mean that a read came through, so the first block is read. */
static int worker_open(struct path_session *s, uint64_t *ret_size, bool *ret_read_only, char *err, size_t err_size)
{
	struct stat st;
	uint64_t size = 0;
	ssize_t n = VOLUME_ALIGN;
	int fd;

	if (stat(s->path, &st) < 0) {
		(void)snprintf(err, err_size, "%.100s: %s", s->path, strerror(errno));
		return -1;
	}
	if (check_kind(s, &st, err, err_size) < 0)
		return -1;
	fd = open_descriptor(s, ret_read_only, err, err_size);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0 || (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)) {
		(void)snprintf(err, err_size, "%.100s: cannot ask for its size: %s", s->path, strerror(errno));
	} else if (check_kind(s, &st, err, err_size) == 0) {
		*ret_size = S_ISBLK(st.st_mode) ? size : (uint64_t)st.st_size;
		if (*ret_size >= VOLUME_ALIGN)
			n = pread(fd, s->probe_buf, VOLUME_ALIGN, 0);
		if (n == VOLUME_ALIGN)
			return fd;
		(void)snprintf(err, err_size, "%.100s: cannot read its first block: %s", s->path, n < 0 ? strerror(errno) : "too short");
	}
	(void)close(fd);
	return -1;
}

/* What a write's errno says. The kernel's EIO, ETIMEDOUT, ENOLINK, ENOTCONN, EREMOTEIO ... are as well its own word for a target that has said nothing (a soft NFS
 * mount, GlusterFS' client, a transport that gave up): then it may land yet. These alone say that it will not; EBADE is a reservation conflict. */
static enum volume_result write_result(int err)
{
	switch (err) {
	case EROFS: case EPERM: case EACCES: case ENOSPC: case EDQUOT: case EINVAL: case EFBIG: case EBADE:
		return backend_result_of_errno(err, true);
	default:
		return VOLUME_E_SESSION;
	}
}

static enum volume_result worker_transfer(struct path_session *s, int fd, struct volume_part *part, bool *ret_gone)
{
	while (part->moved < part->len) {
		uint8_t *buf = part->buf + part->moved;
		off_t offset = (off_t)(part->offset + part->moved);
		size_t len = part->len - part->moved;
		ssize_t n = part->is_write ? pwrite(fd, buf, len, offset) : pread(fd, buf, len, offset);

		if (n < 0 && errno != EINTR) {
			*ret_gone = errno == ENODEV || errno == ENXIO || errno == ESTALE || errno == ENOTCONN;
			part->err = errno;
			return part->is_write ? write_result(part->err) : backend_result_of_errno(part->err, false);
		}
		if (n == 0)
			return VOLUME_E_IO;
		if (n > 0)
			part->moved += (uint32_t)n;
		/* once abandoned nothing new may be sent */
		if (part->moved < part->len && is_leaving(s))
			return VOLUME_E_IO;
	}
	return VOLUME_OK;
}

static void worker_serve(struct path_session *s, int fd)
{
	(void)pthread_mutex_lock(&s->lock);
	for (;;) {
		struct volume_part *part;
		bool gone = false;

		while (!s->is_leaving && !s->queue)
			(void)pthread_cond_wait(&s->wake, &s->lock);
		if (s->is_leaving)
			break;
		part = s->queue;
		s->queue = part->queue;
		s->running = part;
		(void)pthread_mutex_unlock(&s->lock);
		part->result = worker_transfer(s, fd, part, &gone);
		(void)pthread_mutex_lock(&s->lock);
		s->running = NULL;
		s->is_gone |= gone;
		part->queue = s->finished;
		s->finished = part;
		notify(s);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void *worker_main(void *data)
{
	struct path_session *s = data;
	char err[VOLUME_REASON_LEN] = "";
	bool read_only = false;
	uint64_t size = 0;
	int fd = worker_open(s, &size, &read_only, err, sizeof(err));

	(void)pthread_mutex_lock(&s->lock);
	s->is_opened = true;
	s->size = size;
	s->is_read_only = read_only;
	(void)str_copy(s->error, sizeof(s->error), err);
	notify(s);
	(void)pthread_mutex_unlock(&s->lock);
	if (fd >= 0) {
		worker_serve(s, fd);
		(void)close(fd); /* may hang too: still counted if the session was left in a call */
	}
	(void)pthread_mutex_lock(&s->lock);
	if (s->is_counted)
		atomic_fetch_sub(&s->home->stuck, 1);
	s->is_counted = false;
	s->is_leaving = true;
	(void)pthread_mutex_unlock(&s->lock);
	session_unref(s);
	return NULL;
}

static void session_retire(void *data)
{
	struct path_session *s = data;

	(void)qb_loop_poll_del(s->loop, s->event_fd);
	session_unref(s);
}

/* A write that returned, and may still land. Where the session is there it ends, and the front counts the part as lost with it. */
static void report_unknown(struct volume_part *part)
{
	if (part->volume) {
		part->volume->is_write_failing = true;
		backend_lost(part->volume, "%s upon a write, which may still land", strerror(part->err));
		return;
	}
	part->io->is_lost = true;
	backend_part_done(part, VOLUME_E_SESSION);
}

/* Reports what the worker has finished. After the close that is the one stuck part, and the session's last business with the loop. */
static void report_finished(struct volume_part *part)
{
	while (part) {
		struct volume_part *next = part->queue;

		if (part->result == VOLUME_OK)
			backend_part_done(part, part->result);
		else if (part->result == VOLUME_E_SESSION)
			report_unknown(part);
		else
			backend_refused(part, part->result, "%s", part->err ? strerror(part->err) : "nothing was transferred: the file has shrunk");
		part = next;
	}
}

static int32_t session_event(int32_t fd, int32_t revents, void *data)
{
	struct path_session *s = data;
	struct volume_part *finished;
	bool opened, gone, retire;
	uint64_t count;

	(void)!read(fd, &count, sizeof(count));
	(void)pthread_mutex_lock(&s->lock);
	finished = s->finished;
	s->finished = NULL;
	opened = s->is_opened && !s->is_open_known;
	s->is_open_known |= opened;
	gone = s->is_gone;
	(void)pthread_mutex_unlock(&s->lock);

	retire = !s->v && finished;
	if (retire) /* by a job: not within the dispatch of this very descriptor */
		CHECK(qb_loop_job_add(s->loop, QB_LOOP_HIGH, s, session_retire) == 0);
	if (opened && s->v) {
		if (*s->error)
			backend_lost(s->v, "%s", s->error);
		else {
			s->v->step = "in use";
			backend_ready(s->v, s->size, VOLUME_MAX_LEN, s->is_read_only);
		}
	}
	if (gone && s->v)
		backend_lost(s->v, "%.100s: the device or file is gone", s->path);
	report_finished(finished);
	return 0;
}

static int worker_start(struct path_session *s)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int r;

	if (pthread_attr_init(&attr) != 0)
		return -ENOMEM;
	(void)pthread_attr_setstacksize(&attr, WORKER_STACK);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* signals are the loop's business */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	atomic_fetch_add(&s->refs, 1);
	r = pthread_create(&thread, &attr, worker_main, s);
	if (r != 0)
		atomic_fetch_sub(&s->refs, 1);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return -r;
}

static struct path_session *session_new(struct volume *v, struct path_home *home)
{
	struct path_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	atomic_init(&s->refs, 1);
	s->home = home;
	atomic_fetch_add(&home->refs, 1);
	s->loop = v->loop;
	s->v = v;
	s->read_only = v->read_only;
	(void)str_copy(s->path, sizeof(s->path), v->address.path);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->wake, NULL);
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->event_fd < 0 || posix_memalign(&s->probe_buf, VOLUME_ALIGN, VOLUME_ALIGN) != 0) {
		session_unref(s);
		return NULL;
	}
	return s;
}

static void path_session_open(struct volume *v)
{
	struct path_home *home = v->home;
	struct path_session *s;
	int r;

	if (!home) {
		home = calloc(1, sizeof(*home));
		if (!home) {
			backend_lost(v, "out of memory");
			return;
		}
		atomic_init(&home->refs, 1);
		atomic_init(&home->stuck, 0);
		v->home = home;
	}
	if (atomic_load(&home->stuck) >= STUCK_MAX) {
		backend_lost(v, "%d system calls on it hang; waiting until one of them returns", STUCK_MAX);
		return;
	}
	s = session_new(v, home);
	if (!s) {
		backend_lost(v, "out of memory or descriptors");
		return;
	}
	v->step = "opening it and reading its first block";
	r = qb_loop_poll_add(v->loop, QB_LOOP_HIGH, s->event_fd, POLLIN, s, session_event);
	if (r == 0) {
		r = worker_start(s);
		if (r < 0)
			(void)qb_loop_poll_del(v->loop, s->event_fd);
	}
	if (r < 0) {
		session_unref(s);
		backend_lost(v, "cannot start a worker: %s", strerror(-r));
		return;
	}
	v->session = s;
}

static void path_session_close(struct volume *v)
{
	struct path_session *s = v->session;
	struct volume_part *finished;
	bool stuck;

	if (!s)
		return;
	v->session = NULL;
	(void)pthread_mutex_lock(&s->lock);
	finished = s->finished;
	s->finished = NULL;
	s->queue = NULL; /* never issued; they go with the session */
	if (s->running)
		s->running->is_stuck = true;
	stuck = s->running;
	if (!s->is_leaving && (stuck || !s->is_opened)) {
		s->is_counted = true;
		atomic_fetch_add(&s->home->stuck, 1);
	}
	s->is_leaving = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);

	report_finished(finished);
	s->v = NULL;
	if (!stuck)
		session_retire(s);
}

static void path_forget(struct volume *v)
{
	if (v->home)
		home_unref(v->home);
	v->home = NULL;
}

static int path_session_submit(struct volume *v, struct volume_part *part)
{
	struct path_session *s = v->session;
	struct volume_part **tail;

	(void)pthread_mutex_lock(&s->lock);
	for (tail = &s->queue; *tail; tail = &(*tail)->queue)
		;
	part->queue = NULL;
	*tail = part;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

const struct backend backend_path = {
	.open = path_session_open,
	.submit = path_session_submit,
	.close = path_session_close,
	.forget = path_forget,
};
