/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume: shared storage seen as an array of bytes, one interface for iscsi://, nfs:// and paths.
 *
 * Everything is asynchronous and runs on the caller's qb_loop; no call blocks. A session is disposable: on any loss, and
 * whenever an operation passes its deadline, the session is destroyed (with nothing left in a socket's send queue) and a new
 * one is opened after a back-off, for ever. Nothing is ever sent again by the volume itself, but for a command that a LUN has refused unexecuted (unit
 * attention): the caller decides.
 *
 * The one thing to understand is that a time-out is not a failure. Every operation ends in two steps:
 *   done(io, result)   exactly once, no later than timeout_ms after the submit: completed, refused, or nobody knows;
 *   settled(io, how)   exactly once, at or after done: VOLUME_COMPLETED, the target answered or the system call returned, or
 *                      VOLUME_DESTROYED, the session it was sent on is gone and a write may still land, but only for a time (so it is, too, for a
 *                      write whose system call returned with an errno that need not be the target's: EIO, say).
 * Until settled returns, the io and its buffer belong to the volume. For a path in D state that may be for ever.
 */
#pragma once

#include <qb/qbloop.h>

#include "agent/base/util.h"

#define VOLUME_ALIGN 4096 /* buffers, offsets and lengths are multiples of this */
#define VOLUME_MAX_LEN (16U * 1024 * 1024) /* of one operation; longer than any table on a volume */
#define VOLUME_REASON_LEN 160

struct volume;
struct volume_io;

enum volume_state {
	VOLUME_OPENING, /* no session yet, or the first of its answers is awaited */
	VOLUME_READY,   /* operations are taken */
	VOLUME_BACKOFF, /* lost; the next try is on a timer; reason says why */
};

enum volume_result {
	VOLUME_OK = 0,
	VOLUME_E_IO,        /* the target answered with an error: definite */
	VOLUME_E_READONLY,  /* definite: write refused, the target is read-only */
	VOLUME_E_NOSPACE,   /* definite: write refused, no space or quota */
	VOLUME_E_NOT_READY, /* never issued (settled says VOLUME_COMPLETED: nothing of it can land) */
	VOLUME_E_TIMEOUT,   /* deadline passed: nothing is known about it */
	VOLUME_E_SESSION,   /* session lost with the operation under way: nothing is known about it */
};

enum volume_settle { VOLUME_COMPLETED, VOLUME_DESTROYED };

struct volume_io {
	void *buf;        /* aligned to VOLUME_ALIGN */
	uint64_t offset;  /* bytes */
	uint32_t len;     /* bytes */
	uint32_t timeout_ms;
	void (*done)(struct volume_io *io, enum volume_result result);
	void (*settled)(struct volume_io *io, enum volume_settle how);
	void *user;

	/* owned by the volume from submit to settled */
	struct volume *volume; /* NULL when only a stuck system call still holds it */
	struct volume_io *next;
	uint64_t deadline_ns;
	uint32_t parts_left; /* pieces sent and not answered */
	enum volume_result result;
	bool is_write, has_result, is_done, is_lost;
};

struct volume_options {
	uint32_t connect_timeout_ms; /* opening a session; 0 means 2000 */
	uint32_t backoff_ms;         /* first wait after a loss, doubled up to 16 times that; 0 means 250 */
	bool read_only;              /* opened for reading only: writes are refused with VOLUME_E_READONLY */
	const char *initiator;       /* iSCSI initiator name; copied; NULL: one made of the host name */
	const char *secret_file;     /* CHAP secrets, mode 0600, or NULL; read at once; "user=", "password=", "target-user=", "target-password=" lines,
				      * for all targets, or after a line [TARGET] for one */
	/* With several addresses: a path is used now, or no longer, or not for another reason (volume_path tells); from the loop; NULL: not told. */
	void (*on_path)(struct volume *v, unsigned i, void *user);
	bool is_path; /* for volume_multi.c: one path of a volume, which must tell what disk it is */
};

/* Called on every change of state, from the loop, never from inside volume_open. reason: "" when ready, else one line. */
typedef void (*volume_state_fn)(struct volume *v, enum volume_state state, const char *reason, void *user);

/* Checks a URL or path without opening anything; agent/base/volume_url.h has the syntax. Host names are refused (looking one up would block).
 * On failure returns -EINVAL and a sentence in err. */
int volume_url_check(const char *url, char *err, size_t err_size);

/* Checks all of a secret file, without showing anything of it in err. 0, or -EINVAL with a sentence that names file and line. */
int volume_secrets_check(const char *path, char *err, size_t err_size);

/* Starts opening. url and options are copied. Returns 0, -EINVAL (err says why) or -ENOMEM; *ret untouched on failure. */
int volume_open(qb_loop_t *loop, const char *url, const struct volume_options *options, volume_state_fn on_state, void *user,
		struct volume **ret, char *err, size_t err_size);

/* Ends the session; every operation under way gets done(VOLUME_E_SESSION) and, where it can be, settled(VOLUME_DESTROYED) before this
 * returns; a path whose I/O does not return keeps thread, io and buffer (leaked on purpose: is_write etc. stay readable), and its settled
 * comes from the loop when the system call returns, if the loop still runs. Of a write that several addresses wait for it says VOLUME_DESTROYED at
 * once, though its path may hang: who writes there again, by another volume, waits as after a start. May be called from any callback; v may not be used afterwards,
 * and nothing may be submitted from the callbacks it makes. NULL is ignored. */
void volume_close(struct volume *v);

enum volume_state volume_state(const struct volume *v);
const char *volume_reason(const struct volume *v);
/* What was answered, in words, to an operation whose done is being called with VOLUME_E_IO, _READONLY or _NOSPACE; else it may be of an earlier one. */
const char *volume_refusal(const struct volume *v);
/* Why an operation whose done is being called has this result: in the target's words, by what its session was lost, or the result's name. */
const char *volume_why(const struct volume *v, enum volume_result result);
const char *volume_url(const struct volume *v);
uint64_t volume_size(const struct volume *v); /* bytes; 0 until first ready */

/* One of several addresses of a volume. The strings live as long as the volume. */
struct volume_path {
	const char *address;     /* "IP:PORT", "IP" for NFS */
	enum volume_state state;
	bool is_used;            /* ready, and leads to the same disk as the others */
	const char *reason;      /* why it is not used; "" */
	unsigned losses;         /* how often it was lost after it had been used */
	unsigned unresolved;     /* writes sent there that nobody knows about */
};
unsigned volume_paths(const struct volume *v); /* 0: one address only, nothing to tell beside the volume's state */
void volume_path(const struct volume *v, unsigned i, struct volume_path *ret);

/* Queue one operation: len up to VOLUME_MAX_LEN, timeout_ms > 0; what reaches outside the volume gets VOLUME_E_IO. Never calls done from
 * inside the call. Writes are stable (FUA, FILE_SYNC, O_DSYNC) when done says VOLUME_OK. */
void volume_read(struct volume *v, struct volume_io *io);
void volume_write(struct volume *v, struct volume_io *io);

const char *volume_result_name(enum volume_result r); /* words for an operator */
const char *volume_state_name(enum volume_state s);
