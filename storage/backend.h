/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between the front of a volume (volume.c) and what moves its bytes (volume_iscsi.c, volume_nfs.c, volume_path.c).
 *
 * The front owns states, deadlines, back-off and all callbacks to the user; those run from one qb_loop job only, so that a library's
 * callback never sees the user's code. A back end owns one session at a time. The front cuts an operation into parts no longer than
 * max_part; a part stays allocated until the back end reports it or the session was closed, whichever comes first. */
#pragma once

#include "agent/base/volume_url.h"
#include "storage/volume.h"

struct volume_secrets {
	char user[VOLUME_NAME_LEN], password[VOLUME_NAME_LEN];
	char target_user[VOLUME_NAME_LEN], target_password[VOLUME_NAME_LEN];
};

struct volume_part {
	struct volume_part *next;  /* the front's list */
	struct volume_part *queue; /* the back end's */
	struct volume *volume;     /* NULL once the session is gone and a system call keeps the part */
	struct volume_io *io;
	uint8_t *buf;
	uint64_t offset;
	uint32_t len;
	uint32_t moved; /* bytes done, after a short transfer */
	uint8_t attentions; /* unit attentions that it met */
	bool is_write;
	bool is_stuck;  /* set by close: this part outlives the session and will be reported later */
	enum volume_result result;
	int err;        /* a system call's; 0: none */
};

struct backend {
	/* Starts a session: backend_ready() or backend_lost() follows, now or later. */
	void (*open)(struct volume *v);
	/* 0, or negative errno if the part was not sent. */
	int (*submit)(struct volume *v, struct volume_part *part);
	/* Ends the session at once, nothing left to send; also after an open that failed. No part is touched after, but the stuck ones. */
	void (*close)(struct volume *v);
	/* The volume is going away for good; NULL if there is nothing beyond the session. */
	void (*forget)(struct volume *v);
};

#define VOLUME_IDENTITY_LEN 64

extern const struct backend backend_iscsi, backend_nfs, backend_path, backend_multi;

struct volume {
	qb_loop_t *loop;
	const struct backend *backend;
	void *session; /* the back end's; NULL between sessions */
	void *home;    /* the back end's, for the life of the volume */
	char url[VOLUME_URL_LEN];
	struct volume_address address;
	struct volume_secrets secrets;
	char initiator[VOLUME_NAME_LEN];
	uint32_t connect_timeout_ms, backoff_ms;
	bool read_only;
	bool is_path; /* the back end tells the identity */
	uint8_t identity[VOLUME_IDENTITY_LEN]; /* of the LUN or file, the same on every path; set before backend_ready */
	unsigned identity_len; /* 0: it has none */

	const char *step; /* what opening waits for, in words; set by the back end */
	uint64_t size;
	uint32_t max_part;
	bool target_read_only;

	enum volume_state state;
	char reason[VOLUME_REASON_LEN];
	char refusal[VOLUME_REASON_LEN];
	volume_state_fn on_state;
	void (*on_path)(struct volume *v, unsigned i, void *user);
	void *user;
	struct volume_io *ios;
	struct volume_part *parts;
	uint32_t wait_ms; /* next back-off */
	bool is_write_failing; /* set by the back end: a write has ended the session. Only another one ends the back-off's growing: reads may go well all the time */
	qb_loop_timer_handle deadline_timer; /* of the operations */
	qb_loop_timer_handle phase_timer;    /* opening: give up; back-off: try again */
	qb_loop_timer_handle work_timer;
	uint64_t deadline_ns;                /* what deadline_timer waits for; 0: not running */
	unsigned depth;                      /* callbacks to the user on the stack */
	bool has_phase_timer, is_scheduled, is_ready, is_lost, is_unreported, is_closed;
};

/* Reports of a back end; none of them calls the user. The first reason of a loss is kept; size counts whole VOLUME_ALIGN blocks. */
void backend_ready(struct volume *v, uint64_t size, uint32_t max_part, bool target_read_only);
void backend_lost(struct volume *v, const char *fmt, ...) _printf_(2, 3);
/* The target answered, or the system call returned. Frees part. Calls settled only for a part whose volume is NULL. */
void backend_part_done(struct volume_part *part, enum volume_result result);
/* The same, of an operation that was refused, and in which words. */
void backend_refused(struct volume_part *part, enum volume_result result, const char *fmt, ...) _printf_(3, 4);
/* Out of the back-off, if it is in one. */
void backend_retry_now(struct volume *v);
enum volume_result backend_result_of_errno(int err, bool is_write); /* err > 0 */

/* volume_multi.c: what v->home is for several addresses. 0 or a negative errno with err. */
int volume_multi_new(struct volume *v, const struct volume_options *options, char *err, size_t err_size);

/* volume_url.c */
/* Of this target, NULL: of those that have no part of their own; all empty if the file has none for it. */
int volume_secrets_load(const char *path, const char *target, struct volume_secrets *ret, char *err, size_t err_size);
int volume_initiator_set(const char *name, char ret[VOLUME_NAME_LEN], char *err, size_t err_size); /* NULL: from the host name */

/* volume_net.c: a library's socket in the loop. The library may close and open it at will, even under the same number, so it sits in
 * an epoll set of its own and only that set is known to the loop. */
struct net_watch {
	qb_loop_t *loop;
	void (*service)(void *user, int revents); /* revents 0: every NET_TICK_MS */
	void *user;
	int epoll_fd, fd;
	qb_loop_timer_handle tick;
};
#define NET_TICK_MS 100

int net_watch_init(struct net_watch *w, qb_loop_t *loop, void (*service)(void *user, int revents), void *user);
void net_watch_deinit(struct net_watch *w);
void net_watch_set(struct net_watch *w, int fd, int events); /* fd -1 or events 0: leave it out until the next tick at least */
void net_discard_on_close(int fd);                           /* closing shall send a reset, and nothing that is queued */
