/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Before a VM starts after another qemu of it died: nothing of that one may still land on its disks.
 *
 *   full    each disk's own storage answers a read that was sent after the death, then T_drain passes (DESIGN, "Taking over", 6)
 *   ask     no QEMU has died: does the storage answer at all?
 *   quick   qemu died on this very host: wait until no orphaned TCP connection of this host has unsent data for a disk's server, and until it is proven that nobody
 *           else of this host still writes to its files (agent/base/held.h)
 *
 *   notes   nothing of its own QEMU is on its way, but another node is to have it: only that last proof, of QEMUs before
 *
 * Another node is told "released" or "failed" only after that last proof, too: T_drain covers what a dead host has sent, not what a living one still may.
 */
#include <errno.h>
#include <stdio.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/base/orphans.h"
#include "storage/format.h"
#include "storage/volop.h"

#define LOOK_MS 10
#define MAX_JOBS AGENT_MAX_VMS
#define ASK_MS 3000
#define OPEN_AGAIN_MS 1000

struct probe {
	struct job *job;
	char *url;
	struct volume *volume; /* NULL: it could not even be opened yet */
	struct volop *op; /* NULL: not yet */
	bool answered, failed, unopened;
};

struct job {
	struct drainer *dr;
	bool used;
	uint8_t uuid[16];
	bool leaves; /* another node may have it next */
	bool notes_only;
	struct probe probe[VMFILE_MAX_DISKS];
	unsigned n;
	qb_loop_timer_handle timer, open_timer;
	char reason[160];
	drainer_answer_fn fn; /* asked only */
	size_t wanted;        /* disks to ask about */
	void *user;
};

struct drainer {
	struct agentd *d;
	struct job job[MAX_JOBS], asked[MAX_JOBS];
};

static void job_clear(struct job *j)
{
	if (j->timer)
		(void)qb_loop_timer_del(j->dr->d->loop, j->timer);
	if (j->open_timer)
		(void)qb_loop_timer_del(j->dr->d->loop, j->open_timer);
	j->timer = j->open_timer = 0;
	for (unsigned i = 0; i < j->n; i++) {
		volume_close(j->probe[i].volume);
		free(j->probe[i].url);
		j->probe[i].url = NULL;
		j->probe[i].volume = NULL;
	}
	j->n = 0;
	j->used = false;
}

static void job_end(struct job *j)
{
	struct agent_event ev = { .kind = AGENT_EV_DRAINED };

	memcpy(ev.uuid, j->uuid, 16);
	job_clear(j);
	agentd_event(j->dr->d, &ev);
}

static void ask_end(struct job *j, bool ok)
{
	drainer_answer_fn fn = j->fn;
	void *user = j->user;
	uint8_t uuid[16];

	memcpy(uuid, j->uuid, 16);
	job_clear(j);
	fn(user, uuid, ok);
}

static void on_ask_over(void *data)
{
	struct job *j = data;
	bool all = j->n == j->wanted; /* a VM without disks has nothing to wait for */

	j->timer = 0;
	for (unsigned i = 0; i < j->n; i++)
		all = all && j->probe[i].answered && !j->probe[i].failed;
	ask_end(j, all);
}

/* What is still written here for an earlier QEMU of it, other than by a connection of that. */
static bool is_held(struct job *j)
{
	char path[100];

	if (held_quiet(j->leaves ? HELD_FOR_NEXT : HELD_FOR_SAME, format_vm_mark(j->uuid), path, sizeof(path)))
		return false;
	(void)snprintf(j->reason, sizeof(j->reason), "a dead process' writes to %s are not proven to be over", path);
	return true;
}

static void on_drained(void *data)
{
	struct job *j = data;

	j->timer = 0;
	if (j->leaves && is_held(j))
		(void)qb_loop_timer_add(j->dr->d->loop, QB_LOOP_HIGH, LOOK_MS * NS_PER_MS, j, on_drained, &j->timer);
	else
		job_end(j);
}

static void probe_done(struct volop *op, bool ok, bool definite)
{
	struct probe *p = op->user;
	struct job *j = p->job;

	if (!j->used || p->answered)
		return;
	if (!ok && !(definite && op->result == VOLUME_E_IO))
		return; /* the session ends; the next one asks again */
	p->answered = true;
	if (j->fn && !ok)
		p->failed = true; /* it answers, with an error: a guest would get no further */
	for (unsigned i = 0; i < j->n; i++)
		if (!j->probe[i].answered)
			return;
	if (j->fn) {
		/* Not from within the probe's own volume, which goes with the job. */
		(void)qb_loop_timer_del(j->dr->d->loop, j->timer);
		(void)qb_loop_timer_add(j->dr->d->loop, QB_LOOP_HIGH, 0, j, on_ask_over, &j->timer);
		return;
	}
	(void)snprintf(j->reason, sizeof(j->reason), "its disks' storage answers; waiting T_drain for late writes of its last owner");
	if (!j->timer)
		(void)qb_loop_timer_add(j->dr->d->loop, QB_LOOP_HIGH, j->dr->d->conf.timing.drain_ms * NS_PER_MS, j, on_drained, &j->timer);
}

static void nobody_waits(struct volop *op, bool ok, bool definite) {}

static void free_op(struct volop *op, bool completed)
{
	free(op->io.buf);
	free(op);
}

/* A read of an earlier session, or question, that has not returned from the system yet goes its own way: what it brings says nothing of this one. */
static void fresh_op(struct probe *p)
{
	if (p->op && !p->op->busy)
		return;
	if (p->op) {
		p->op->done = nobody_waits;
		p->op->settled = free_op;
	}
	p->op = calloc(1, sizeof(*p->op));
	CHECK(p->op);
	volop_init(p->op, 0, VOLUME_ALIGN, probe_done, NULL, p);
}

static const char *name_of(const struct job *j)
{
	const struct catalog_entry *e = catalog_by_uuid(j->dr->d->catalog, j->uuid);

	return e ? e->file.name : "(removed)";
}

static void on_probe_state(struct volume *v, enum volume_state state, const char *reason, void *user)
{
	struct probe *p = user;

	if (p->answered)
		return;
	if (state == VOLUME_READY) {
		fresh_op(p);
		volop_read(p->op, v, 0, VOLUME_ALIGN, p->job->dr->d->conf.timing.io_ms);
	} else if (state == VOLUME_BACKOFF)
		(void)snprintf(p->job->reason, sizeof(p->job->reason), "its disk %.60s does not answer: %.70s", p->url, reason);
}

/* A file of secrets that is not to be used as it is, say. What cannot be asked has not answered: it is tried again, and nothing goes on without it. */
static void open_probes(void *data)
{
	struct job *j = data;
	struct volume_options options = { .connect_timeout_ms = 1000, .backoff_ms = 100, .read_only = true };
	char err[256] = "";

	if (j->dr->d->conf.secret_file[0])
		options.secret_file = j->dr->d->conf.secret_file;
	j->open_timer = 0;
	for (unsigned i = 0; i < j->n; i++) {
		struct probe *p = &j->probe[i];

		if (p->volume || volume_open(j->dr->d->loop, p->url, &options, on_probe_state, p, &p->volume, err, sizeof(err)) == 0)
			continue;
		if (!p->unopened)
			agentd_say(j->dr->d, LOG_LEVEL_ERR, "VM %s: disk %s cannot be probed: %s; trying on", name_of(j), p->url, err);
		p->unopened = true;
		(void)snprintf(j->reason, sizeof(j->reason), "its disk %.50s cannot be probed: %.80s", p->url, err);
		if (!j->open_timer)
			(void)qb_loop_timer_add(j->dr->d->loop, QB_LOOP_MED, OPEN_AGAIN_MS * NS_PER_MS, j, open_probes, &j->open_timer);
	}
}

static void start_probes(struct job *j, const struct catalog_entry *e)
{
	for (size_t i = 0; i < e->file.n_disks; i++) {
		struct probe *p = &j->probe[j->n++];

		/* One answer of the same storage is enough, but what is the same storage cannot be told from a URL. */
		fresh_op(p);
		p->job = j;
		p->answered = p->failed = p->unopened = false;
		p->url = strdup(e->file.disks[i]);
		CHECK(p->url);
	}
	open_probes(j);
}

static void look_quick(void *data)
{
	struct job *j = data;

	j->timer = 0;
	if (!j->notes_only && !orphans_quiet())
		(void)snprintf(j->reason, sizeof(j->reason), "this host still sends data of a dead process");
	else if (!is_held(j)) {
		job_end(j);
		return;
	}
	(void)qb_loop_timer_add(j->dr->d->loop, QB_LOOP_HIGH, LOOK_MS * NS_PER_MS, j, look_quick, &j->timer);
}

void drainer_start(struct drainer *dr, const struct vm *v, bool full)
{
	struct catalog_entry *e = catalog_by_uuid(dr->d->catalog, v->def.uuid);
	struct job *j = NULL;

	for (unsigned i = 0; i < MAX_JOBS; i++) {
		/* What an earlier wait has seen proves nothing for this one. */
		if (dr->job[i].used && memcmp(dr->job[i].uuid, v->def.uuid, 16) == 0)
			job_clear(&dr->job[i]);
		if (!dr->job[i].used && !j)
			j = &dr->job[i];
	}
	CHECK(j);
	j->used = true;
	j->dr = dr;
	j->n = 0;
	j->timer = 0;
	j->leaves = v->release_as != CLAIM_NONE;
	j->notes_only = v->notes_only;
	memcpy(j->uuid, v->def.uuid, 16);
	(void)str_copy(j->reason, sizeof(j->reason), "waiting for its disks' storage to answer");
	if (full && e)
		start_probes(j, e);
	if (j->n > 0)
		return;
	/* Nothing to probe (quick, or no disks are declared): full still waits T_drain. */
	(void)qb_loop_timer_add(dr->d->loop, QB_LOOP_HIGH, full ? dr->d->conf.timing.drain_ms * NS_PER_MS : 0, j, full ? on_drained : look_quick,
				&j->timer);
}

/* A read of an earlier question has not returned from the system yet: that says enough, and each further one would cost a thread. */
static bool is_stuck(const struct job *j)
{
	for (unsigned i = 0; i < ARRAY_SIZE(j->probe); i++)
		if (j->probe[i].op && j->probe[i].op->busy)
			return true;
	return false;
}

bool drainer_ask(struct drainer *dr, const uint8_t uuid[16], drainer_answer_fn fn, void *user)
{
	struct catalog_entry *e = catalog_by_uuid(dr->d->catalog, uuid);
	struct job *j = NULL;

	for (unsigned i = 0; i < MAX_JOBS; i++) {
		bool taken = dr->asked[i].used || is_stuck(&dr->asked[i]);

		if (taken && memcmp(dr->asked[i].uuid, uuid, 16) == 0)
			return false;
		if (!taken && !j)
			j = &dr->asked[i];
	}
	if (!e || !j)
		return false;
	j->used = true;
	j->dr = dr;
	j->n = 0;
	j->timer = 0;
	j->fn = fn;
	j->user = user;
	j->wanted = e->file.n_disks;
	memcpy(j->uuid, uuid, 16);
	(void)qb_loop_timer_add(dr->d->loop, QB_LOOP_HIGH, j->wanted ? ASK_MS * NS_PER_MS : 0, j, on_ask_over, &j->timer);
	start_probes(j, e);
	return true;
}

const char *drainer_reason(struct drainer *dr, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < MAX_JOBS; i++)
		if (dr->job[i].used && memcmp(dr->job[i].uuid, uuid, 16) == 0)
			return dr->job[i].reason;
	return "";
}

int drainer_new(struct agentd *d, struct drainer **ret)
{
	struct drainer *dr = calloc(1, sizeof(*dr));

	if (!dr)
		return -ENOMEM;
	dr->d = d;
	*ret = dr;
	return 0;
}
