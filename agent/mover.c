/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Live migration on this node: QEMU's side of it and the messages to the other node's agent. Decides nothing (agent/core/migrate.c).
 *
 * A target's QEMU is marked by a file beside its QMP socket until its guest goes on: an agent that starts anew knows by it what must not be taken for a
 * running VM. What a source's QEMU is asked is looked at again and again until it is over: an event may be lost with a connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/base/uuid.h"
#include "agent/disk_place.h"
#include "qmp/migrate.h"
#include "storage/format.h"

#define LOOK_MS 250
#define LOOK_SOON_MS 1    /* a guest that stands still waits for it, and no event will tell */
#define LOOK_SOON_TIMES 20 /* then not so often */
#define LOOK_LESS_MS 10
#define CANCEL_LOOKS 8     /* so often one that nobody wants is cancelled again */
#define REFUSED_LOOKS 60  /* then QEMU is taken for hung in it */
#define HUNG_LOOK_MS 5000  /* of one that an earlier agent had begun: it is looked at so often then, */
#define HUNG_LOOKS 120     /* and so many times */
#define HOST_LEN 256
#define REASON_LEN 240
#define HANDSHAKE_BYTES (4U << 20) /* a source may have sent so much before it sees that its certificate was refused */

#define SLOW_MS 60000     /* of a migration that has gone over the guest's memory so often */
#define SLOW_PASSES 3

struct job {
	struct mover *m;
	bool used, incoming, begun, listening;
	bool going_on;           /* its guest is to go on here, and QEMU has not said yet that it does */
	bool still;              /* or to be paused here, as somebody had it */
	bool late;               /* not in time, as was said */
	bool slow;               /* it comes to no end by itself, as was said */
	uint32_t serial;         /* another one each time the place is used */
	uint8_t uuid[16];
	uint64_t id;
	uint32_t node;           /* the other one; 0: not known */
	struct qmp_migration_progress progress;
	char refusal[200];       /* why it was not begun; told once QEMU is at no other */
	unsigned refused_looks, soon_looks;
	bool asked;              /* query-migrate or query-status is under way */
	bool again;              /* and something has happened since: its answer may be from before that */
	enum migrate_news told;
	bool any_told;
	qb_loop_timer_handle timer;
};

/* Where a target waits, as its agent says. */
struct offer {
	bool used;
	uint8_t uuid[16];
	uint64_t id;
	uint32_t node, port;
	bool tls;
	char host[HOST_LEN];
};

/* Why the last attempt came to nothing, and by which request it was. */
struct failure {
	bool used;
	uint8_t uuid[16];
	uint64_t number;
	char why[REASON_LEN];
};

struct mover {
	struct agentd *d;
	uint32_t serial;
	struct job job[AGENT_MAX_VMS];
	struct offer offer[AGENT_MAX_VMS];
	struct failure failure[AGENT_MAX_VMS];
};

static void mark_path(const uint8_t uuid[16], char *ret, size_t size)
{
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	(void)snprintf(ret, size, AGENTD_VM_DIR "/%s.incoming", text);
}

bool mover_marked(const uint8_t uuid[16])
{
	char path[128];

	mark_path(uuid, path, sizeof(path));
	return access(path, F_OK) == 0;
}

int mover_mark(const uint8_t uuid[16])
{
	char path[128];
	int fd;

	mark_path(uuid, path, sizeof(path));
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	return 0;
}

void mover_unmark(const uint8_t uuid[16])
{
	char path[128];

	mark_path(uuid, path, sizeof(path));
	(void)unlink(path);
}

/* An answer of QEMU may come when its job is over and another VM's is in its place, or never: it knows the job by a number. */
static struct mover *the_mover;

static void *ref(const struct job *j) { return (void *)((uintptr_t)j->serial << 16 | (uintptr_t)(j - j->m->job)); }

static struct job *job_of(void *user)
{
	struct job *j = &the_mover->job[(uintptr_t)user & 0xffff];

	return j->used && j->serial == (uint32_t)((uintptr_t)user >> 16) ? j : NULL;
}

static struct job *find(struct mover *m, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		if (m->job[i].used && memcmp(m->job[i].uuid, uuid, 16) == 0)
			return &m->job[i];
	return NULL;
}

static void forget(struct job *j)
{
	struct mover *m = j->m;

	if (j->timer)
		(void)qb_loop_timer_del(m->d->loop, j->timer);
	*j = (struct job){ .m = m };
}

static struct job *new_job(struct mover *m, const uint8_t uuid[16])
{
	struct job *j = find(m, uuid);

	if (j)
		forget(j);
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++) {
		j = &m->job[i];
		if (j->used)
			continue;
		*j = (struct job){ .m = m, .used = true, .serial = ++m->serial };
		memcpy(j->uuid, uuid, 16);
		return j;
	}
	return NULL;
}

static struct failure *failure_of(struct mover *m, const uint8_t uuid[16], bool make)
{
	struct failure *room = NULL;

	for (unsigned i = 0; i < AGENT_MAX_VMS; i++) {
		struct failure *f = &m->failure[i];

		if (f->used && memcmp(f->uuid, uuid, 16) == 0)
			return f;
		if (!f->used && !room)
			room = f;
	}
	return make ? room : NULL;
}

static void remember(struct mover *m, const uint8_t uuid[16], const char *why)
{
	struct failure *f = failure_of(m, uuid, true);
	struct catalog_entry *e = catalog_by_uuid(m->d->catalog, uuid);

	if (!f || !e)
		return;
	*f = (struct failure){ .used = true, .number = e->move.number };
	memcpy(f->uuid, uuid, 16);
	(void)str_copy(f->why, sizeof(f->why), why);
	peers_status_changed(m->d->peers);
}

static void forget_failure(struct mover *m, const uint8_t uuid[16])
{
	struct failure *f = failure_of(m, uuid, false);

	if (f)
		f->used = false;
}

void mover_forget(struct mover *m, const uint8_t uuid[16])
{
	struct job *j = find(m, uuid);

	forget_failure(m, uuid);

	if (j)
		forget(j);
}

static void tell_core(struct mover *m, const uint8_t uuid[16], uint64_t id, enum migrate_news news)
{
	struct agent_event ev = { .kind = AGENT_EV_MIGRATION, .migration = id, .news = news };

	memcpy(ev.uuid, uuid, 16);
	agentd_event(m->d, &ev);
}

static const char *name_of(struct job *j)
{
	struct catalog_entry *e = catalog_by_uuid(j->m->d->catalog, j->uuid);

	return e ? e->file.name : "(removed)";
}

static bool has_tls(const struct mover *m) { return *m->d->conf.tls_dir; }

/* QEMU keeps no certificate that it does not need any more. */
static void forget_tls(struct mover *m, const uint8_t uuid[16])
{
	struct qmp_conn *q = runner_qmp(m->d->runner, uuid);

	if (q && has_tls(m))
		qmp_migrate_forget_tls(q);
}

static struct qmp_migration_options options_of(struct job *j)
{
	struct catalog_entry *e = catalog_by_uuid(j->m->d->catalog, j->uuid);

	return !e ? (struct qmp_migration_options){ 0 }
		  : (struct qmp_migration_options){ .bandwidth = (uint64_t)e->file.migrate_bandwidth_mib << 20, .downtime_ms = e->file.migrate_downtime_ms,
						    .auto_converge = e->file.migrate_auto_converge, .channels = e->file.migrate_channels,
						    .tls_dir = has_tls(j->m) ? j->m->d->conf.tls_dir : NULL };
}

/* What is on a disk of this node is not what the other node has under that name. */
static bool is_local(const struct job *j, char *why, size_t size)
{
	struct catalog_entry *e = catalog_by_uuid(j->m->d->catalog, j->uuid);

	return e && disk_place_refuses(&e->file, agentd_node_name(j->m->d, j->m->d->conf.self_id), why, size);
}

/* Each once. */
static void tell(struct job *j, enum migrate_news news)
{
	if (j->any_told && j->told == news)
		return;
	j->any_told = true;
	j->told = news;
	tell_core(j->m, j->uuid, j->id, news);
}

static void look(struct job *j);
static void tell_cont(struct job *j);

static void on_timer(void *data)
{
	struct job *j = data;

	j->timer = 0;
	if (j->going_on)
		tell_cont(j);
	else
		look(j);
}

static void look_in(struct job *j, uint64_t ms)
{
	if (!j->timer)
		(void)qb_loop_timer_add(j->m->d->loop, QB_LOOP_MED, ms * NS_PER_MS, j, on_timer, &j->timer);
}

static void look_later(struct job *j) { look_in(j, LOOK_MS); }

static void over(struct job *j, enum migrate_news news, const char *why)
{
	struct mover *m = j->m;
	uint64_t id = j->id;
	uint8_t uuid[16];

	why = *why ? why : "QEMU does not say why";
	memcpy(uuid, j->uuid, 16);
	if (news == MIGRATE_NEWS_COMPLETED)
		agentd_say(m->d, LOG_LEVEL_INFO, "VM %s: all of it is sent, its QEMU here has given its disks away", name_of(j));
	if (news == MIGRATE_NEWS_FAILED) {
		agentd_say(m->d, LOG_LEVEL_WARNING, "VM %s: migration ended: %s; it runs on here", name_of(j), why);
		remember(m, uuid, why);
		forget_tls(m, uuid);
	}
	forget(j);
	tell_core(m, uuid, id, news);
}

/* QEMU says of a migration that it has completed a moment before it says so of the guest. */
static void look_soon(struct job *j)
{
	if (j->timer)
		(void)qb_loop_timer_del(j->m->d->loop, j->timer);
	j->timer = 0;
	look_in(j, j->soon_looks++ < LOOK_SOON_TIMES ? LOOK_SOON_MS : LOOK_LESS_MS);
}

/* What came while QEMU was asked is looked at now and not at the next turn: its guest may stand still meanwhile. */
static void look_again(void *user)
{
	struct job *j = job_of(user);

	if (j && j->again && !j->asked)
		look(j);
}

/* Only a guest that is stopped, in a QEMU that says it has given its disks away. */
static void on_stopped(void *user, json_object *ret, const char *error)
{
	struct job *j = job_of(user);
	json_object *status;

	if (!j)
		return;
	j->asked = false;
	if (error || !json_object_is_type(ret, json_type_object) || !json_object_object_get_ex(ret, "status", &status)) {
		look_later(j);
	} else if (qmp_run_state_parse(json_object_get_string(status)) == QMP_RUN_POSTMIGRATE) {
		runner_inactive(j->m->d->runner, j->uuid, true);
		over(j, MIGRATE_NEWS_COMPLETED, "");
	} else if (j->refusal[0]) { /* what has completed was how the guest came here */
		over(j, MIGRATE_NEWS_FAILED, j->refusal);
	} else {
		look_soon(j);
	}
	look_again(user);
}

static void on_said(void *user, const char *error);

static void on_hung_said(void *user, const char *error)
{
	/* It is looked at when it is time, and not at once. */
}

/* QEMU is at a migration still, but not at one that this agent wants: what an earlier process had begun may not hear its first cancel. */
static void end_another(struct job *j, struct qmp_conn *q)
{
	struct agentd *d = j->m->d;
	const struct vm *v = agent_vm_by_uuid(&d->core, j->uuid);
	char text[AGENTD_LOG_TEXT];

	if (j->id == 0 && j->refused_looks >= REFUSED_LOOKS) {
		if (j->refused_looks == REFUSED_LOOKS) {
			(void)snprintf(text, sizeof(text), "VM %.64s: its QEMU does not end a migration that was called off: its guest may stand still", name_of(j));
			agentd_say(d, LOG_LEVEL_ERR, "%s", text);
			peers_say(d->peers, text);
			if (v)
				agentd_hook(d, HOOK_VM_UNHEALTHY, d->conf.self_id, v, text);
		}
		if (j->refused_looks++ == REFUSED_LOOKS + HUNG_LOOKS) {
			agentd_say(d, LOG_LEVEL_ERR, "VM %s: no more is done about that: relocate it, or stop and start it", name_of(j));
			forget(j);
			return;
		}
		if (q)
			(void)qmp_migrate_cancel(q, on_hung_said, ref(j));
		look_in(j, HUNG_LOOK_MS);
		return;
	}
	if (j->refused_looks++ % CANCEL_LOOKS == 0 && q)
		(void)qmp_migrate_cancel(q, on_said, ref(j));
	if (j->id != 0 && j->refused_looks > REFUSED_LOOKS)
		over(j, MIGRATE_NEWS_FAILED, j->refusal);
	else
		look_later(j);
}

/* QEMU names a file of its own, but never whose certificate it was that it has seen. One of this node that the target refuses looks like a connection lost. */
static void tell_failed(struct job *j, const char *error)
{
	const char *dir = j->m->d->conf.tls_dir, *node = agentd_node_name(j->m->d, j->node);
	char why[CONF_URL_LEN + 512];

	if (!has_tls(j->m) || strstr(error, dir))
		(void)str_copy(why, sizeof(why), error);
	else if (strcasestr(error, "certificate"))
		(void)snprintf(why, sizeof(why), "server-cert.pem of node %s is refused here: %s", node, error);
	else if (j->progress.transferred < HANDSHAKE_BYTES)
		(void)snprintf(why, sizeof(why), "%s; should node %s have refused %s/client-cert.pem of this node, the journal of its unit says so there", error, node, dir);
	else
		(void)str_copy(why, sizeof(why), error);
	over(j, MIGRATE_NEWS_FAILED, why);
}

/* It is told of once that more is written than is sent; one that may take only so long is called off then, as any that fails. */
static void watch_pace(struct job *j, const struct qmp_migration_progress *p)
{
	struct agentd *d = j->m->d;
	const struct catalog_entry *e = catalog_by_uuid(d->catalog, j->uuid);
	uint32_t timeout_ms = e ? e->file.migrate_timeout_ms : 0;
	char text[AGENTD_LOG_TEXT];

	if (p->status != QMP_MIGRATION_ACTIVE || j->id == 0 || j->refusal[0])
		return;
	if (timeout_ms && p->total_ms >= timeout_ms) {
		(void)snprintf(j->refusal, sizeof(j->refusal), "not done after %" PRIu64 " s, its Timeout= is %" PRIu32 " s: %" PRIu64 " MiB left, %" PRIu64 " MiB/s sent, %" PRIu64
			       " MiB/s dirtied", p->total_ms / 1000, timeout_ms / 1000, p->remaining >> 20, p->rate >> 20, p->dirty_rate >> 20);
		return;
	}
	if (j->slow || p->total_ms < SLOW_MS || p->passes < SLOW_PASSES || p->rate == 0 || p->dirty_rate < p->rate - p->rate / 10)
		return;
	j->slow = true;
	(void)snprintf(text, sizeof(text), "VM %.64s: its migration to node %s comes to no end: its guest writes %" PRIu64 " MiB/s of memory, %" PRIu64 " MiB/s are sent; "
		       "AutoConverge=yes, more Bandwidth= or a longer DowntimeLimit= would help, or ha-ctl vm relocate", name_of(j), agentd_node_name(d, j->node),
		       p->dirty_rate >> 20, p->rate >> 20);
	agentd_say(d, LOG_LEVEL_WARNING, "%s", text);
	peers_say(d->peers, text);
	agentd_hook(d, HOOK_VM_SLOW_MIGRATION, d->conf.self_id, agent_vm_by_uuid(&d->core, j->uuid), text);
}

static void source_stands(struct job *j, const struct qmp_migration_progress *p)
{
	struct qmp_conn *q = runner_qmp(j->m->d->runner, j->uuid);

	watch_pace(j, p);
	if ((j->refusal[0] || j->id == 0) && qmp_migration_moves(p->status)) {
		end_another(j, q);
		return;
	}
	switch (p->status) {
	case QMP_MIGRATION_PAUSED:
		if (j->id && !(j->any_told && j->told == MIGRATE_NEWS_PAUSED)) {
			agentd_say(j->m->d, LOG_LEVEL_INFO, "VM %s: its guest stands still to be sent", name_of(j));
			tell(j, MIGRATE_NEWS_PAUSED);
		}
		break;
	case QMP_MIGRATION_COMPLETED:
		if (j->id == 0) { /* its run state says so, too: see agent/health.c */
			forget(j);
			return;
		}
		if (q && !j->asked && qmp_conn_execute(q, "query-status", NULL, 5000, on_stopped, ref(j)) == 0)
			j->asked = true;
		break;
	case QMP_MIGRATION_FAILED:
		if (j->refusal[0])
			over(j, MIGRATE_NEWS_FAILED, j->refusal);
		else
			tell_failed(j, p->error);
		return;
	case QMP_MIGRATION_CANCELLED:
		over(j, MIGRATE_NEWS_FAILED, j->refusal[0] ? j->refusal : "called off");
		return;
	case QMP_MIGRATION_NONE:
		if (j->begun || j->id == 0) {
			over(j, MIGRATE_NEWS_FAILED, j->refusal[0] ? j->refusal : "QEMU knows of none");
			return;
		}
		break;
	default:
		break;
	}
	look_later(j);
}

static void offer_or_tell(struct job *j, const struct qmp_migration_progress *p)
{
	if (!j->listening && p->port != 0) {
		j->listening = true;
		tell(j, MIGRATE_NEWS_READY);
	} else if (p->status == QMP_MIGRATION_ACTIVE || p->status == QMP_MIGRATION_SWITCHING) {
		tell(j, MIGRATE_NEWS_LOADING);
	} else if (p->status == QMP_MIGRATION_COMPLETED) {
		tell(j, MIGRATE_NEWS_LOADED);
	}
	if (p->status != QMP_MIGRATION_COMPLETED)
		look_later(j);
}

static void on_progress(void *user, const struct qmp_migration_progress *p)
{
	struct job *j = job_of(user);
	uint32_t port;

	if (!j || j->going_on)
		return;
	port = j->progress.port;
	j->asked = false;
	if (!p) {
		look_later(j);
		return;
	}
	j->progress = *p;
	j->progress.port = p->port ? p->port : port;
	peers_status_changed(j->m->d->peers);
	if (j->incoming)
		offer_or_tell(j, p);
	else
		source_stands(j, p);
	look_again(user);
}

static void look(struct job *j)
{
	struct qmp_conn *q = runner_qmp(j->m->d->runner, j->uuid);

	if (j->going_on)
		return;
	if (!q)
		j->asked = false; /* what was asked of a connection that is gone is not answered */
	/* Before it has begun QEMU would tell of the one before. */
	j->again = j->asked;
	if (j->asked || (!j->incoming && j->id != 0 && !j->begun))
		return;
	if (q && qmp_migrate_query(q, on_progress, ref(j)) == 0)
		j->asked = true;
	else
		look_later(j);
}

void mover_qmp_event(struct mover *m, const uint8_t uuid[16])
{
	struct job *j = find(m, uuid);

	if (j)
		look(j);
}

/* ---- the target ---- */

void mover_cannot(struct mover *m, const uint8_t uuid[16], const char *why)
{
	const struct vm *v = agent_vm_by_uuid(&m->d->core, uuid);

	if (v && v->migration.peer != 0)
		peers_refuse(m->d->peers, v->migration.peer, uuid, why);
}

static void on_waits(void *user, const char *error)
{
	struct job *j = job_of(user);

	if (!j)
		return;
	if (error) {
		agentd_say(j->m->d, LOG_LEVEL_ERR, "VM %s: its QEMU here cannot wait for it: %s", name_of(j), error);
		mover_cannot(j->m, j->uuid, error);
		runner_kill(j->m->d->runner, j->uuid);
		return;
	}
	look(j);
}

void mover_incoming_ready(struct mover *m, const uint8_t uuid[16])
{
	struct qmp_conn *q = runner_qmp(m->d->runner, uuid);
	const char *host = ring_address(m->d->ring);
	struct job *j = find(m, uuid);
	struct qmp_migration_options o;
	char why[REASON_LEN];

	if (j && j->incoming)
		return; /* connected again */
	j = new_job(m, uuid);
	if (!j || !q)
		return;
	j->incoming = true;
	while (j->id == 0)
		CHECK(getrandom(&j->id, sizeof(j->id), 0) == sizeof(j->id));
	j->id &= INT64_MAX; /* a JSON number */
	o = options_of(j);
	if (!*host) {
		agentd_say(m->d, LOG_LEVEL_ERR, "VM %s: corosync does not tell this node's address: it cannot be migrated here", name_of(j));
		mover_cannot(m, uuid, "corosync does not tell its address there");
		runner_kill(m->d->runner, uuid);
	} else if (is_local(j, why, sizeof(why))) {
		agentd_say(m->d, LOG_LEVEL_ERR, "VM %s: it cannot be migrated here: %s", name_of(j), why);
		mover_cannot(m, uuid, why);
		runner_kill(m->d->runner, uuid);
	} else if (qmp_migrate_incoming(q, host, &o, on_waits, ref(j)) < 0) {
		runner_kill(m->d->runner, uuid);
	}
}

void mover_offer(struct mover *m, uint32_t node, const struct vm *v)
{
	struct job *j = find(m, v->def.uuid);

	if (j && j->progress.port)
		peers_offer(m->d->peers, node, v->def.uuid, j->id, ring_address(m->d->ring), j->progress.port, has_tls(m));
}

/* ---- its guest goes on here, at the target or at the source ---- */

static void went_on(struct job *j)
{
	struct agent_event ev = { .kind = AGENT_EV_STARTED };
	struct agentd *d = j->m->d;

	mover_unmark(j->uuid);
	forget_tls(j->m, j->uuid);
	runner_continued(d->runner, j->uuid);
	memcpy(ev.uuid, j->uuid, 16);
	forget(j);
	agentd_event(d, &ev);
}

static void cannot_go_on(struct job *j, const char *why)
{
	agentd_say(j->m->d, LOG_LEVEL_ERR, "VM %s: its guest cannot go on here: %s; its QEMU is killed", name_of(j), why);
	runner_kill(j->m->d->runner, j->uuid);
	forget(j);
}

/* What is stopped for another reason by now has gone on before. */
static bool never_went_on(enum qmp_run_state s)
{
	return s == QMP_RUN_POSTMIGRATE || s == QMP_RUN_INMIGRATE || s == QMP_RUN_PAUSED || s == QMP_RUN_FINISH_MIGRATE || s == QMP_RUN_PRELAUNCH;
}

static void ask_whether(struct job *j);

/* QEMU answers in order: what it says of its guest now it says after the cont, obeyed or refused. */
static void on_whether(void *user, json_object *ret, const char *error)
{
	struct job *j = job_of(user);
	json_object *status;

	if (!j)
		return;
	if (error && streq(error, "timeout"))
		ask_whether(j);
	else if (error || !json_object_is_type(ret, json_type_object) || !json_object_object_get_ex(ret, "status", &status))
		look_later(j); /* the connection is another one then: cont again */
	else if (j->still && qmp_run_state_parse(json_object_get_string(status)) == QMP_RUN_PAUSED)
		went_on(j);
	else if (never_went_on(qmp_run_state_parse(json_object_get_string(status))))
		cannot_go_on(j, "QEMU was told to, and did not");
	else
		went_on(j);
}

static void ask_whether(struct job *j)
{
	struct qmp_conn *q = runner_qmp(j->m->d->runner, j->uuid);

	if (!q || qmp_conn_execute(q, "query-status", NULL, QMP_TIMEOUT_OF_CLASS, on_whether, ref(j)) < 0)
		look_later(j);
}

/* It takes its disks again, which waits for storage: unanswered it is no failure, and may be obeyed at any time. Who is silent for too long the core sees. */
static void on_cont(void *user, json_object *ret, const char *error)
{
	struct job *j = job_of(user);

	if (!j)
		return;
	if (!error) {
		went_on(j);
	} else if (streq(error, "timeout")) {
		if (!j->late)
			agentd_say(j->m->d, LOG_LEVEL_WARNING, "VM %s: QEMU does not say that its guest goes on; it waits for its storage, perhaps", name_of(j));
		j->late = true;
		ask_whether(j);
	} else if (streq(error, "disconnected")) {
		look_later(j);
	} else {
		cannot_go_on(j, error);
	}
}

static void on_paused_again(void *user, json_object *ret, const char *error)
{
	/* Its run state says what has come of it. */
}

/* One that somebody has paused has to take its disks, too, which only cont does: it is stopped with the next command. */
static void tell_cont(struct job *j)
{
	struct qmp_conn *q = runner_qmp(j->m->d->runner, j->uuid);

	if (!q || qmp_conn_execute(q, "cont", NULL, QMP_TIMEOUT_OF_CLASS, on_cont, ref(j)) < 0)
		look_later(j);
	else if (j->still)
		(void)qmp_conn_execute(q, "stop", NULL, QMP_TIMEOUT_OF_CLASS, on_paused_again, NULL);
}

void mover_go_on(struct mover *m, const struct vm *v)
{
	struct job *j = find(m, v->def.uuid);

	if (!j)
		j = new_job(m, v->def.uuid);
	CHECK(j);
	if (j->timer)
		(void)qb_loop_timer_del(m->d->loop, j->timer);
	j->timer = 0;
	j->going_on = true;
	j->still = v->migration.still;
	runner_inactive(m->d->runner, v->def.uuid, false);
	tell_cont(j);
}

/* ---- the source ---- */

static struct offer *offer_of(struct mover *m, const uint8_t uuid[16], bool make)
{
	struct offer *room = NULL;

	for (unsigned i = 0; i < AGENT_MAX_VMS; i++) {
		struct offer *o = &m->offer[i];

		if (o->used && memcmp(o->uuid, uuid, 16) == 0)
			return o;
		if (!o->used && !room)
			room = o;
	}
	return make ? room : NULL;
}

/* The host becomes part of QEMU's URI: an address or a name and nothing else. */
static bool is_host(const char *s)
{
	static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:";

	return *s && *s != '-' && strlen(s) < HOST_LEN && s[strspn(s, good)] == '\0';
}

void mover_offered(struct mover *m, uint32_t node, const uint8_t uuid[16], uint64_t id, const char *host, int64_t port, bool tls)
{
	struct agent_event ev = { .kind = AGENT_EV_OFFER, .node = node, .migration = id };
	struct job *j = find(m, uuid);
	struct offer *o = offer_of(m, uuid, true);

	if (!o || id == 0 || id > INT64_MAX || port < 1 || port > UINT16_MAX || !is_host(host))
		return;
	if (!j || j->incoming || j->id == 0) { /* the one under way stays as it is */
		*o = (struct offer){ .used = true, .id = id, .node = node, .port = (uint32_t)port, .tls = tls };
		memcpy(o->uuid, uuid, 16);
		(void)str_copy(o->host, sizeof(o->host), host);
	}
	memcpy(ev.uuid, uuid, 16);
	ev.held = !held_quiet(HELD_FOR_NEXT, format_vm_mark(uuid), NULL, 0);
	agentd_event(m->d, &ev);
}

static void on_begun(void *user, const char *error)
{
	struct job *j = job_of(user);

	if (!j || j->incoming)
		return;
	j->begun = true;
	(void)str_copy(j->refusal, sizeof(j->refusal), error ? error : "");
	look(j);
}

void mover_migrate(struct mover *m, const struct vm *v)
{
	struct qmp_conn *q = runner_qmp(m->d->runner, v->def.uuid);
	struct offer *o = offer_of(m, v->def.uuid, false);
	struct job *j = new_job(m, v->def.uuid);
	struct qmp_migration_options opt;
	char why[REASON_LEN];

	CHECK(j);
	forget_failure(m, v->def.uuid);
	j->id = v->migration.id;
	j->node = v->migration.peer;
	opt = options_of(j);
	opt.tls_name = agentd_node_name(m->d, j->node);
	if (o && o->id == j->id && o->tls != has_tls(m)) { /* nothing is sent as it is that was to be encrypted */
		(void)snprintf(why, sizeof(why), "node %s has %s TLSDirectory= in its configuration, and this node has %s: write the same kvm-ha.conf on both, and restart ha-agent",
			       agentd_node_name(m->d, j->node), o->tls ? "a" : "no", o->tls ? "none" : "one");
		over(j, MIGRATE_NEWS_FAILED, why);
		return;
	}
	if (is_local(j, why, sizeof(why))) {
		over(j, MIGRATE_NEWS_FAILED, why);
		return;
	}
	if (!q || !o || o->id != j->id || qmp_migrate_outgoing(q, o->host, o->port, &opt, on_begun, ref(j)) < 0) {
		over(j, MIGRATE_NEWS_FAILED, q ? "the target's offer is gone" : "QEMU does not answer");
		return;
	}
	o->used = false;
}

static void on_said(void *user, const char *error)
{
	struct job *j = job_of(user);

	if (j)
		look(j);
}

void mover_switch(struct mover *m, const struct vm *v)
{
	struct qmp_conn *q = runner_qmp(m->d->runner, v->def.uuid);
	struct job *j = find(m, v->def.uuid);

	if (q && j)
		(void)qmp_migrate_continue(q, on_said, ref(j));
}

void mover_cancel(struct mover *m, const struct vm *v)
{
	struct qmp_conn *q = runner_qmp(m->d->runner, v->def.uuid);
	struct job *j = find(m, v->def.uuid);

	if (q && j)
		(void)qmp_migrate_cancel(q, on_said, ref(j));
}

/* An earlier process of this agent may have begun one: nobody can go on with it. */
static void on_adopted(void *user, const struct qmp_migration_progress *p)
{
	struct job *j = job_of(user);
	struct qmp_conn *q = j ? runner_qmp(j->m->d->runner, j->uuid) : NULL;

	if (!j || j->id != 0)
		return;
	j->asked = false;
	if (!p || !q) {
		forget(j);
		return;
	}
	j->progress = *p;
	if (qmp_migration_moves(p->status)) {
		(void)qmp_migrate_cancel(q, on_said, ref(j));
		return;
	}
	forget_tls(j->m, j->uuid);
	forget(j); /* whether it has sent its guest its run state says */
}

void mover_adopted(struct mover *m, const uint8_t uuid[16])
{
	struct qmp_conn *q = runner_qmp(m->d->runner, uuid);
	struct job *j;

	if (find(m, uuid) || !q)
		return;
	j = new_job(m, uuid);
	if (j && qmp_migrate_query(q, on_adopted, ref(j)) == 0)
		j->asked = true;
	else if (j)
		forget(j);
}

void mover_refused(struct mover *m, uint32_t node, const uint8_t uuid[16], const char *why)
{
	const struct vm *v = agent_vm_by_uuid(&m->d->core, uuid);
	char text[REASON_LEN];

	if (!v || v->state != VM_RUNNING || find(m, uuid))
		return;
	(void)snprintf(text, sizeof(text), "node %s cannot take it: %s", agentd_node_name(m->d, node), why);
	agentd_say(m->d, LOG_LEVEL_WARNING, "VM %s: not migrated: %s; it runs on here", v->def.name, text);
	remember(m, uuid, text);
	tell_core(m, uuid, 0, MIGRATE_NEWS_CANNOT);
}

json_object *mover_failure(struct mover *m, const uint8_t uuid[16])
{
	struct failure *f = failure_of(m, uuid, false);
	json_object *o;

	if (!f)
		return NULL;
	o = json_object_new_object();
	json_object_object_add(o, "number", json_object_new_int64((int64_t)f->number));
	json_object_object_add(o, "why", json_object_new_string(f->why));
	return o;
}

json_object *mover_status(struct mover *m, const uint8_t uuid[16])
{
	struct job *j = find(m, uuid);
	const struct qmp_migration_progress *p;
	json_object *o;

	if (!j || j->incoming || j->id == 0)
		return NULL;
	p = &j->progress;
	o = json_object_new_object();
	json_object_object_add(o, "to", json_object_new_string(agentd_node_name(m->d, j->node)));
	json_object_object_add(o, "percent", json_object_new_int64(p->total ? (int64_t)((p->total - p->remaining) / MAX(p->total / 100, 1U)) : 0));
	json_object_object_add(o, "total", json_object_new_int64((int64_t)p->total));
	json_object_object_add(o, "remaining", json_object_new_int64((int64_t)p->remaining));
	json_object_object_add(o, "transferred", json_object_new_int64((int64_t)p->transferred));
	json_object_object_add(o, "rate", json_object_new_int64((int64_t)p->rate));
	json_object_object_add(o, "dirty_rate", json_object_new_int64((int64_t)p->dirty_rate));
	json_object_object_add(o, "ms", json_object_new_int64((int64_t)p->total_ms));
	return o;
}

int mover_new(struct agentd *d, struct mover **ret)
{
	struct mover *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->d = d;
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		m->job[i].m = m;
	the_mover = m;
	*ret = m;
	return 0;
}
