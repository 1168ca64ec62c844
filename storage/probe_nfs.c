/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks an NFSv3 server by a mount of its own (RFC 1813). The calls are the raw ones: the library's own hide statuses and stability. */
#include <errno.h>
#include <fcntl.h>
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <poll.h>
#include <stdio.h>

#include "storage/probe_job.h"

#define SLICE_MS 50

/* What nfs_get_fh() returns; its header only declares the name. */
struct nfs_fh {
	int len;
	char *val;
};

struct asker {
	const struct probe_job *job;
	struct nfs_context *context;
	struct nfsfh *file;
	struct nfs_fh3 handle;
	bool is_answered, is_broken, is_closing;
	int status;
	union { /* copies: an answer lives only as long as its callback */
		GETATTR3resok attributes;
		FSINFO3resok info;
		FSSTAT3resok space;
		WRITE3resok written;
	} answer;
	size_t answer_len;
	int nfs_status;
};

static void on_library(int r, struct nfs_context *context, void *data, void *user)
{
	struct asker *a = user;

	if (a->is_closing)
		return;
	a->is_answered = true;
	a->status = r;
	if (r >= 0 && data)
		a->file = data;
}

/* All results begin with their status; resok lies behind it in the union, at the same place in each of them as in GETATTR3res. */
static void take(struct asker *a, int status, nfsstat3 nfs_status, const void *resok)
{
	a->is_answered = true;
	a->status = status;
	a->nfs_status = (int)nfs_status;
	if (nfs_status == NFS3_OK)
		memcpy(&a->answer, resok, a->answer_len);
}

#define ON_ANSWER(name, type)                                                                          \
	static void name(struct rpc_context *rpc, int status, void *data, void *user)                 \
	{                                                                                             \
		struct asker *a = user;                                                               \
		const type *res = data;                                                               \
                                                                                                      \
		if (a->is_closing)                                                                    \
			return;                                                                       \
		if (status != RPC_STATUS_SUCCESS) {                                                   \
			a->is_answered = true;                                                        \
			a->status = -EIO;                                                             \
			return;                                                                       \
		}                                                                                     \
		a->answer_len = sizeof(res->type##_u.resok);                                          \
		take(a, 0, res->status, &res->type##_u.resok);                                        \
	}

ON_ANSWER(on_attributes, GETATTR3res)
ON_ANSWER(on_info, FSINFO3res)
ON_ANSWER(on_space, FSSTAT3res)
ON_ANSWER(on_written, WRITE3res)

/* sent: what the call that sends returned. Whether an answer came, good or bad. */
static bool await(struct asker *a, int sent, const char *doing)
{
	if (sent < 0) {
		probe_fail(a->job, "cannot send a call: %.100s", nfs_get_error(a->context));
		a->is_broken = true;
	}
	while (!a->is_answered && !a->is_broken) {
		struct pollfd p = { .fd = nfs_get_fd(a->context), .events = (short)nfs_which_events(a->context) };
		int64_t left = probe_left_ms(a->job);

		if (left == 0) {
			probe_fail(a->job, "no answer in time while %s", doing);
			a->is_broken = true;
			break;
		}
		if (p.events == 0)
			p.fd = -1;
		(void)poll(&p, 1, (int)MIN(left, SLICE_MS));
		if (p.revents && nfs_service(a->context, p.revents) < 0 && !a->is_answered) {
			probe_fail(a->job, "connection lost while %s", doing);
			a->is_broken = true;
		}
	}
	return a->is_answered;
}

/* A call by the library, which must succeed. */
static bool library(struct asker *a, int sent, const char *doing)
{
	if (!await(a, sent, doing))
		return false;
	if (a->status < 0)
		probe_fail(a->job, "%s failed: %s", doing, strerror(-a->status));
	return a->status >= 0;
}

/* A raw call: whether it succeeded. Servers may refuse some; that is no reason to stop. */
static bool raw(struct asker *a, int sent, const char *doing) { return await(a, sent, doing) && a->status == 0 && a->nfs_status == NFS3_OK; }

static bool set_up(struct asker *a)
{
	const struct volume_address *address = a->job->address;
	char url[256];
	struct nfs_url *parsed;
	int n = snprintf(url, sizeof(url), "nfs://127.0.0.1/?version=3&autoreconnect=0&auto-traverse-mounts=0&dircache=0");

	if (address->nfs_port)
		n += snprintf(url + n, sizeof(url) - (size_t)n, "&nfsport=%u", address->nfs_port);
	if (address->mount_port)
		(void)snprintf(url + n, sizeof(url) - (size_t)n, "&mountport=%u", address->mount_port);
	parsed = nfs_parse_url_incomplete(a->context, url);
	if (!parsed)
		return false;
	nfs_destroy_url(parsed);
	nfs_set_autoreconnect(a->context, 0);
	nfs_set_dircache(a->context, 0);
	return nfs_set_version(a->context, 3) == 0;
}

static bool open_file(struct asker *a, struct probe_nfs *p)
{
	const struct volume_address *address = a->job->address;
	const struct nfs_fh *handle;

	if (!library(a, nfs_mount_async(a->context, address->host, address->path, on_library, a), "mounting"))
		return false;
	a->file = NULL;
	a->is_answered = false;
	if (!await(a, nfs_open_async(a->context, address->file, O_RDWR, on_library, a), "opening the file"))
		return false;
	p->read_only = a->status >= 0 ? PROBE_NO : PROBE_UNKNOWN;
	if (a->status == -EROFS || a->status == -EACCES || a->status == -EPERM) {
		p->read_only = PROBE_YES;
		a->is_answered = false;
		(void)await(a, nfs_open_async(a->context, address->file, O_RDONLY, on_library, a), "opening the file for reading");
	}
	if (a->status < 0) {
		probe_fail(a->job, "opening the file failed: %s", strerror(-a->status));
		return false;
	}
	handle = a->file ? nfs_get_fh(a->file) : NULL;
	if (!handle || handle->len < 1 || handle->len > NFS3_FHSIZE)
		return false;
	a->handle.data.data_len = (u_int)handle->len;
	a->handle.data.data_val = handle->val;
	return true;
}

static void ask_all(struct asker *a, struct probe_nfs *p)
{
	struct rpc_context *rpc = nfs_get_rpc_context(a->context);
	struct GETATTR3args attributes = { .object = a->handle };
	struct FSINFO3args info = { .fsroot = a->handle };
	struct FSSTAT3args space = { .fsroot = a->handle };
	struct WRITE3args put = { .file = a->handle, .offset = a->job->offset, .count = VOLUME_ALIGN, .stable = FILE_SYNC };

	p->version = 3;
	a->is_answered = false;
	if (raw(a, rpc_nfs3_getattr_async(rpc, on_attributes, &attributes, a), "asking for attributes")) {
		p->size = a->answer.attributes.obj_attributes.size;
		p->used = a->answer.attributes.obj_attributes.used;
	}
	a->is_answered = false;
	if (raw(a, rpc_nfs3_fsinfo_async(rpc, on_info, &info, a), "asking for limits")) {
		p->read_max = a->answer.info.rtmax;
		p->write_max = a->answer.info.wtmax;
	}
	a->is_answered = false;
	if (raw(a, rpc_nfs3_fsstat_async(rpc, on_space, &space, a), "asking for space"))
		p->available = a->answer.space.abytes;
	if (!a->job->scratch || p->read_only != PROBE_NO)
		return;
	put.data.data_len = VOLUME_ALIGN;
	put.data.data_val = (char *)(uintptr_t)a->job->scratch;
	a->is_answered = false;
	if (raw(a, rpc_nfs3_write_async(rpc, on_written, &put, a), "writing a block"))
		p->sync_writes = a->answer.written.committed == FILE_SYNC ? PROBE_YES : PROBE_NO;
	else if (a->is_answered && a->nfs_status == NFS3ERR_ROFS)
		p->read_only = PROBE_YES;
}

void probe_nfs(const struct probe_job *job)
{
	struct asker a = { .job = job, .context = nfs_init_context() };

	job->ret->kind = PROBE_NFS;
	if (!a.context) {
		probe_fail(job, "out of memory");
		return;
	}
	if (!set_up(&a))
		probe_fail(job, "cannot set up an NFS session");
	else if (open_file(&a, &job->ret->nfs))
		ask_all(&a, &job->ret->nfs);
	a.is_closing = true;
	if (a.file)
		(void)nfs_close_async(a.context, a.file, on_library, &a); /* NFSv3 has no close: this only frees it */
	net_discard_on_close(nfs_get_fd(a.context));
	nfs_destroy_context(a.context);
}
