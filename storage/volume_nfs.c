/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file on an NFSv3 server by libnfs (RFC 1813). One disposable context a session: no reconnect, no cache, nothing sent again.
 *
 *   mount -> open for writing, or only for reading if that is refused -> fstat -> ready
 *
 * Every WRITE asks for FILE_SYNC. Mounting goes through up to three connections (portmapper, mountd, nfsd); see net_watch. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <stdio.h>
#include <sys/stat.h>

#include "storage/backend.h"

#define PART_MAX (1024U * 1024) /* what servers take in one call at most */

/* What nfs_get_fh() returns; its header only declares the name (libnfs 4 and 5). */
struct nfs_fh {
	int len;
	char *val;
};

struct nfs_session {
	struct volume *v;
	struct nfs_context *context;
	struct net_watch watch;
	struct nfsfh *file;
	char handle[NFS3_FHSIZE];
	uint32_t handle_len;
	bool is_closing, is_read_only;
};

/* In the C library's place, for the whole process. libnfs asks for the service of each port that it might come from, to leave those out that have a name; that waits
 * for whatever the host's name service is (sssd, LDAP), in the main loop. Any free port will do. The linker exports it, as the library needs it. */
struct servent *getservbyport(int port, const char *proto)
{
	return NULL;
}

static void sync_watch(struct nfs_session *s)
{
	net_watch_set(&s->watch, s->v->is_lost ? -1 : nfs_get_fd(s->context), nfs_which_events(s->context));
}

static const char *library_error(struct nfs_session *s)
{
	const char *text = nfs_get_error(s->context);

	if (text && strncmp(text, "rpc_service: ", 13) == 0)
		text += 13;
	return text && *text ? text : "connection closed";
}

/* How the library reports what no server said: session loss, and cancelled or timed out. */
static bool from_library(int r)
{
	return r == -EFAULT || r == -EINTR;
}

static void session_service(void *user, int revents)
{
	struct nfs_session *s = user;

	if (s->v->is_lost)
		return;
	if (revents & POLLERR)
		revents &= ~POLLHUP; /* or the library forgets which error it was */
	if (revents != 0 && nfs_service(s->context, revents) < 0)
		backend_lost(s->v, "%s: lost while %s: %s", s->v->address.host, s->v->step, library_error(s));
	sync_watch(s);
}

static bool opening_ok(struct nfs_session *s, int r)
{
	if (s->is_closing)
		return false;
	if (r >= 0)
		return true;
	if (r == -EACCES || r == -EPERM)
		backend_lost(s->v, "%s: refused while %s: let the export and the file's mode allow it (root squash?)", s->v->address.host, s->v->step);
	backend_lost(s->v, "%s: failed while %s: %s", s->v->address.host, s->v->step,
		     from_library(r) ? library_error(s) : strerror(-r));
	return false;
}

static void next_step(struct nfs_session *s, const char *step, int r)
{
	s->v->step = step;
	if (r < 0)
		backend_lost(s->v, "%s: failed while %s: %s", s->v->address.host, step, library_error(s));
}

static void on_stat(int r, struct nfs_context *context, void *data, void *user)
{
	struct nfs_session *s = user;
	const struct nfs_stat_64 *st = data;
	uint64_t max;

	if (!opening_ok(s, r))
		return;
	if (!S_ISREG(st->nfs_mode)) {
		backend_lost(s->v, "%s%s is not a regular file", s->v->address.path, s->v->address.file);
		return;
	}
	max = MIN(nfs_get_readmax(context), nfs_get_writemax(context));
	if (max < VOLUME_ALIGN) {
		backend_lost(s->v, "the server takes transfers of %llu bytes only", (unsigned long long)max);
		return;
	}
	s->v->step = "in use";
	_Static_assert(sizeof(st->nfs_dev) + sizeof(st->nfs_ino) <= VOLUME_IDENTITY_LEN, "fsid and fileid (RFC 1813, 2.6) fit");
	memcpy(s->v->identity, &st->nfs_dev, sizeof(st->nfs_dev));
	memcpy(s->v->identity + sizeof(st->nfs_dev), &st->nfs_ino, sizeof(st->nfs_ino));
	s->v->identity_len = sizeof(st->nfs_dev) + sizeof(st->nfs_ino);
	backend_ready(s->v, st->nfs_size, (uint32_t)MIN(max, (uint64_t)PART_MAX), s->is_read_only);
}

static void on_open(int r, struct nfs_context *context, void *data, void *user)
{
	struct nfs_session *s = user;
	const struct nfs_fh *handle;

	if (!s->is_closing && !s->is_read_only && (r == -EACCES || r == -EROFS || r == -EPERM)) {
		s->is_read_only = true;
		next_step(s, "opening the file for reading", nfs_open_async(context, s->v->address.file, O_RDONLY, on_open, s));
		return;
	}
	if (!opening_ok(s, r))
		return;
	s->file = data;
	handle = nfs_get_fh(s->file);
	if (!handle || handle->len < 1 || handle->len > NFS3_FHSIZE) {
		backend_lost(s->v, "the server sent a file handle of a length that is not allowed");
		return;
	}
	s->handle_len = (uint32_t)handle->len;
	memcpy(s->handle, handle->val, s->handle_len);
	next_step(s, "asking for the file's size", nfs_fstat64_async(context, s->file, on_stat, s));
}

static void on_mount(int r, struct nfs_context *context, void *data, void *user)
{
	struct nfs_session *s = user;
	int flags = s->is_read_only ? O_RDONLY : O_RDWR;

	if (opening_ok(s, r))
		next_step(s, "opening the file", nfs_open_async(context, s->v->address.file, flags, on_open, s));
}

/* The ports can be handed to the library in a URL only. */
static int set_up(struct nfs_session *s)
{
	const struct volume_address *a = &s->v->address;
	char url[256];
	struct nfs_url *parsed;
	int n;

	s->context = nfs_init_context();
	if (!s->context)
		return -ENOMEM;
	n = snprintf(url, sizeof(url), "nfs://127.0.0.1/?version=3&autoreconnect=0&auto-traverse-mounts=0&dircache=0");
	if (a->nfs_port)
		n += snprintf(url + n, sizeof(url) - (size_t)n, "&nfsport=%u", a->nfs_port);
	if (a->mount_port)
		(void)snprintf(url + n, sizeof(url) - (size_t)n, "&mountport=%u", a->mount_port);
	parsed = nfs_parse_url_incomplete(s->context, url);
	if (!parsed)
		return -EINVAL;
	nfs_destroy_url(parsed);
	if (nfs_set_version(s->context, 3) < 0)
		return -EINVAL;
	nfs_set_autoreconnect(s->context, 0);
	nfs_set_dircache(s->context, 0);
	/* the page cache is off unless it is touched: nfs_set_pagecache(0) would switch on a cache of one page */
	return 0;
}

static void nfs_session_open(struct volume *v)
{
	struct nfs_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		backend_lost(v, "out of memory");
		return;
	}
	s->v = v;
	s->is_read_only = v->read_only;
	s->watch.epoll_fd = -1;
	v->session = s;
	r = set_up(s);
	if (r == 0)
		r = net_watch_init(&s->watch, v->loop, session_service, s);
	if (r < 0) {
		backend_lost(v, "cannot set up an NFS session: %s", strerror(-r));
		return;
	}
	next_step(s, "mounting the export", nfs_mount_async(s->context, v->address.host, v->address.path, on_mount, s));
	sync_watch(s);
}

static void on_file_closed(int r, struct nfs_context *context, void *data, void *user)
{
}

static void nfs_session_close(struct volume *v)
{
	struct nfs_session *s = v->session;

	if (!s)
		return;
	v->session = NULL;
	net_watch_deinit(&s->watch);
	s->is_closing = true; /* callbacks of what is under way may or may not be made in here */
	if (s->context) {
		net_discard_on_close(nfs_get_fd(s->context));
		if (s->file) /* only frees it: there is nothing to commit, as the library knows of no write */
			(void)nfs_close_async(s->context, s->file, on_file_closed, NULL);
		nfs_destroy_context(s->context);
	}
	free(s);
}

static void on_transfer(struct rpc_context *rpc, int status, void *data, void *user);

/* Sends what is left of a part. READ and WRITE go by the raw calls: the library's own pread and pwrite fold every status of the server
 * into -EFAULT and do not look whether a write was committed. */
static int send_rest(struct nfs_session *s, struct volume_part *part)
{
	struct rpc_context *rpc = nfs_get_rpc_context(s->context);
	uint64_t offset = part->offset + part->moved;
	uint32_t len = part->len - part->moved;
	struct nfs_fh3 handle = { .data = { .data_len = s->handle_len, .data_val = s->handle } };
	struct WRITE3args put = { .file = handle, .offset = offset, .count = len, .stable = FILE_SYNC,
				  .data = { .data_len = len, .data_val = (char *)part->buf + part->moved } };
	struct READ3args get = { .file = handle, .offset = offset, .count = len };

	if (part->is_write)
		return rpc_nfs3_write_async(rpc, on_transfer, &put, part);
	return rpc_nfs3_read_async(rpc, on_transfer, &get, part);
}

/* The NFS status of an answer; bytes moved in ret_count, and copied for a read. A count out of range comes out as 0. */
static nfsstat3 take_answer(const struct volume_part *part, const void *data, uint32_t *ret_count)
{
	uint32_t left = part->len - part->moved;

	*ret_count = 0;
	if (part->is_write) {
		const struct WRITE3res *res = data;

		if (res->status == NFS3_OK && res->WRITE3res_u.resok.committed == FILE_SYNC && res->WRITE3res_u.resok.count <= left)
			*ret_count = res->WRITE3res_u.resok.count;
		return res->status;
	}
	const struct READ3res *res = data;

	if (res->status == NFS3_OK && res->READ3res_u.resok.data.data_len <= left) {
		*ret_count = res->READ3res_u.resok.data.data_len;
		memcpy(part->buf + part->moved, res->READ3res_u.resok.data.data_val, *ret_count);
	}
	return res->status;
}

static void on_transfer(struct rpc_context *rpc, int status, void *data, void *user)
{
	struct volume_part *part = user;
	struct volume *v = part->volume;
	struct nfs_session *s = v->session;
	uint32_t count;
	nfsstat3 answer;

	if (!s) /* from nfs_session_close */
		return;
	if (status != RPC_STATUS_SUCCESS) {
		backend_lost(v, "%s: lost while in use: %s", v->address.host, library_error(s));
		return;
	}
	answer = take_answer(part, data, &count);
	if (answer != NFS3_OK) {
		if (answer == NFS3ERR_STALE || answer == NFS3ERR_BADHANDLE)
			backend_lost(v, "the file was replaced on the server (stale handle)");
		/* libnfs 4 knows no errno for a quota */
		backend_refused(part, backend_result_of_errno(answer == NFS3ERR_DQUOT ? EDQUOT : -nfsstat3_to_errno((int)answer), part->is_write), "the server says %s",
				nfsstat3_to_str((int)answer));
		return;
	}
	part->moved += count;
	if (count == 0)
		backend_refused(part, VOLUME_E_IO, "nothing was transferred: the file has shrunk, or the server does not write stably");
	else if (part->moved == part->len)
		backend_part_done(part, VOLUME_OK);
	else if (send_rest(s, part) < 0)
		backend_lost(v, "%s: cannot send the rest of a short transfer", v->address.host);
}

static int nfs_session_submit(struct volume *v, struct volume_part *part)
{
	struct nfs_session *s = v->session;

	if (send_rest(s, part) < 0)
		return -ENOMEM;
	sync_watch(s);
	return 0;
}

const struct backend backend_nfs = {
	.open = nfs_session_open,
	.submit = nfs_session_submit,
	.close = nfs_session_close,
};
