/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent daemon: the shell around the agent core. One struct; each file owns its part:
 *   agent.c        start, loop, the core's actions, events for operators
 *   keeper_link.c  the socket to the keeper
 *   store.c        claims and catalog on the volumes
 *   catalog.c      the catalog as a document: JSON, edits, checks
 *   runner.c       VMs of this node: units, QMP, pidfds
 *   health.c       whether a running QEMU, its guest and its service are well
 *   mover.c        live migration: QEMU's side of it
 *   foreign.c      a QEMU that something else started becomes a VM
 *   drain.c        proofs that nothing of an earlier qemu can still land
 *   peers.c        messages between agents: assignments, forwarded requests
 *   power.c        fence devices: ha-fence processes, quarantine
 *   reserve.c      persistent reservations: ha-reserve processes
 *   leave.c        this node's host goes down: the VMs leave first
 *   server.c       ha-ctl's socket; status.c: what it shows
 *   hooks.c        alert hooks
 */
#pragma once

#include <json-c/json.h>

#include "agent/base/conf.h"
#include "agent/base/log.h"
#include "agent/base/ring.h"
#include "agent/catalog.h"
#include "agent/core/dispatch.h"
#include "agent/hooks.h"
#include "agent/units.h"
#include "storage/trouble.h"
#include "storage/volset.h"

#define AGENTD_SOCKET "/run/kvm-ha/agent.sock"
#define AGENTD_VM_DIR "/run/kvm-ha/vm"
#define AGENTD_MAX_EVENTS 64
#define AGENTD_LOG 1000
#define AGENTD_LOG_TEXT 320

struct agentd;
struct store;
struct runner;
struct peers;
struct server;
struct drainer;
struct mover;
struct keeper_link;
struct power;
struct leaver;
struct reserver;
struct foreign;

struct log_entry {
	uint64_t id;
	int64_t time_ms; /* since the epoch, for people */
	enum log_level level;
	char text[AGENTD_LOG_TEXT];
};

struct agentd {
	qb_loop_t *loop;
	struct conf conf;
	unsigned waited;             /* ticks without a set of volumes */
	struct agent core;
	bool core_runs, dispatching, capacity_told;
	struct agent_event queue[AGENTD_MAX_EVENTS];
	unsigned n_queue;
	qb_loop_timer_handle timer;

	struct volset *volset;
	const struct superblock *sb;
	bool set_changed;            /* it is not the volumes' any more */
	struct { enum volume_trouble now; int64_t since_ms; } trouble[FORMAT_MAX_VOLUMES]; /* as the keeper says; by the wall clock */
	struct keeper_link *keeper;
	struct store *store;
	struct catalog_doc *catalog; /* as last read; never NULL once core_runs */
	struct runner *runner;
	struct drainer *drainer;
	struct mover *mover;
	struct ring *ring;
	bool ring_up;
	uint64_t ring_view;
	struct peers *peers;
	struct server *server;
	struct units *units;
	struct hooks *hooks;
	struct power *power;
	struct leaver *leaver;
	struct reserver *reserver;
	struct foreign *foreign;
	const char *config_dir;
	bool ready_told;
	int64_t hold_ms;      /* since the epoch, for people: the keeper holds since; 0: it does not */

	struct log_entry log[AGENTD_LOG];
	uint64_t next_log_id; /* begins with the wall clock's ms x 1000: ids grow over restarts */
};

/* agent.c */
void agentd_set_changed(struct agentd *d); /* ends this process: the next one opens the new set */
void agentd_event(struct agentd *d, const struct agent_event *ev);
void agentd_say(struct agentd *d, enum log_level level, const char *fmt, ...) _printf_(3, 4);
void agentd_hook(struct agentd *d, enum hook_event event, uint32_t node, const struct vm *v, const char *reason);
void agentd_volume_hook(struct agentd *d, enum hook_event event, unsigned volume, const char *reason);
void agentd_capacity(uint32_t *ret_cpus, uint32_t *ret_memory_mib); /* of this node; 0: not known */
const char *agentd_node_name(const struct agentd *d, uint32_t id);
void agentd_catalog_changed(struct agentd *d); /* d->catalog was replaced */

/* keeper_link.c */
int keeper_link_new(struct agentd *d, struct keeper_link **ret);
void keeper_link_send(struct keeper_link *k, enum keeper_msg_kind kind);
void keeper_link_facts(struct keeper_link *k); /* counter, claims and catalog numbers */
bool keeper_link_up(const struct keeper_link *k);
bool keeper_link_evidence(struct keeper_link *k, enum keeper_msg_kind kind, const struct keeper_evidence *ev); /* false: it could not be sent */

/* The gate for a process that runs already; epoch 0: it is not to become a VM after all, which is not answered. False: no keeper. */
bool keeper_link_adopt(struct keeper_link *k, const uint8_t uuid[16], pid_t pid, uint64_t start, uint32_t epoch, uint64_t term);

/* store.c */
int store_new(struct agentd *d, struct store **ret); /* when the volume set is known */
void store_volume(struct store *s, unsigned volume, bool good);
void store_write_claims(struct store *s, unsigned volume, unsigned buffer, const struct claims *c);
void store_read_claims(struct store *s, unsigned volume);
void store_table(struct store *s);           /* a table has come: does it announce a newer catalog? */
void store_lead(struct store *s, bool on);   /* a new leader reads everything before it edits */
bool store_may_edit(const struct store *s);
typedef void (*store_done_fn)(void *user, const char *error, bool temporary);
/* Writes doc (ownership passes on) as the newest catalog; it becomes d->catalog when a later read shows no newer leader. One at a time: -EBUSY. */
int store_write_catalog(struct store *s, struct catalog_doc *doc, store_done_fn done, void *user);
void store_lead_checked(struct store *s, bool on);

/* runner.c */
int runner_new(struct agentd *d, struct runner **ret);
void runner_start(struct runner *r, const struct vm *v);
void runner_incoming(struct runner *r, const struct vm *v); /* one that waits for a guest */
void runner_continued(struct runner *r, const uint8_t uuid[16]); /* which has come, and runs */
/* Its QEMU has waited for its last write and given its disks away; or it may take them (again). */
void runner_inactive(struct runner *r, const uint8_t uuid[16], bool inactive);
struct qmp_conn *runner_qmp(struct runner *r, const uint8_t uuid[16]); /* NULL: it does not answer at the moment */
void runner_adopt(struct runner *r, const struct vm *v);
void runner_take_in(struct runner *r, const struct vm *v); /* it is marked, in its scope, and alive */
void runner_powerdown(struct runner *r, const struct vm *v);
void runner_quit(struct runner *r, const struct vm *v);
void runner_kill(struct runner *r, const uint8_t uuid[16]);
void runner_reset(struct runner *r, const struct vm *v);
void runner_cont(struct runner *r, const struct vm *v);
const char *runner_detail(struct runner *r, const uint8_t uuid[16]); /* run state in QEMU's words, or "" */

/* mover.c */
int mover_new(struct agentd *d, struct mover **ret);
void mover_incoming_ready(struct mover *m, const uint8_t uuid[16]); /* QEMU answers: it can be told to wait */
void mover_adopted(struct mover *m, const uint8_t uuid[16]);        /* a QEMU that ran already answers */
void mover_qmp_event(struct mover *m, const uint8_t uuid[16]);      /* it speaks of a migration */
void mover_forget(struct mover *m, const uint8_t uuid[16]);         /* it is gone */
void mover_offer(struct mover *m, uint32_t node, const struct vm *v);
void mover_offered(struct mover *m, uint32_t node, const uint8_t uuid[16], uint64_t id, const char *host, int64_t port, bool tls);
void mover_cannot(struct mover *m, const uint8_t uuid[16], const char *why);                 /* target: its QEMU does not come to wait; the source is told */
void mover_refused(struct mover *m, uint32_t node, const uint8_t uuid[16], const char *why); /* source: that node's does not */
void mover_migrate(struct mover *m, const struct vm *v);
void mover_switch(struct mover *m, const struct vm *v);
void mover_cancel(struct mover *m, const struct vm *v);
void mover_go_on(struct mover *m, const struct vm *v);
json_object *mover_failure(struct mover *m, const uint8_t uuid[16]); /* why it was not migrated, the last time; NULL: nothing to tell */
json_object *mover_status(struct mover *m, const uint8_t uuid[16]); /* of a VM that is being sent; NULL: it is not */
bool mover_marked(const uint8_t uuid[16]); /* its QEMU here waits for a guest, or holds one that was never continued */
int mover_mark(const uint8_t uuid[16]);
void mover_unmark(const uint8_t uuid[16]);

/* drain.c */
int drainer_new(struct agentd *d, struct drainer **ret);
void drainer_start(struct drainer *dr, const struct vm *v, bool full);
typedef void (*drainer_answer_fn)(void *user, const uint8_t uuid[16], bool ok);
/* Whether the VM's disks' storage answers this node, within some seconds. One question a VM at a time: another one while it is asked changes nothing
 * (false, and fn is not called). */
bool drainer_ask(struct drainer *dr, const uint8_t uuid[16], drainer_answer_fn fn, void *user);
const char *drainer_reason(struct drainer *dr, const uint8_t uuid[16]); /* what it waits for, or "" */

/* peers.c */
int peers_new(struct agentd *d, struct peers **ret);
void peers_assign(struct peers *p, uint32_t node, uint32_t epoch, const uint8_t uuid[16]);
void peers_probe(struct peers *p, const uint8_t uuid[16]); /* others: does the VM's storage answer you? Comes back as AGENT_EV_STORAGE */
void peers_prepare(struct peers *p, uint32_t node, uint32_t epoch, const uint8_t uuid[16]);
void peers_offer(struct peers *p, uint32_t node, const uint8_t uuid[16], uint64_t id, const char *host, uint32_t port, bool tls);
void peers_refuse(struct peers *p, uint32_t node, const uint8_t uuid[16], const char *why); /* no QEMU here can wait for it */
void peers_migration(struct peers *p, uint32_t node, const uint8_t uuid[16], uint64_t id, enum migrate_news news);
void peers_say(struct peers *p, const char *text); /* into every other agent's events */
typedef void (*peers_reply_fn)(void *user, json_object *answer); /* answer borrowed; NULL: none came in time */
int peers_forward(struct peers *p, uint32_t node, json_object *request, peers_reply_fn fn, void *user);
void peers_status_changed(struct peers *p);
json_object *peers_vm_status(struct peers *p, uint32_t node, const char *uuid); /* borrowed, or NULL */

/* power.c */
int power_new(struct agentd *d, struct power **ret);
void power_table(struct power *p);     /* a table has come */
void power_no_keeper(struct power *p); /* nobody can say any more that a node is still to be switched off */
void power_fenced(struct power *p, uint32_t node); /* proven over: counts for its quarantine */
/* By an operator: on now, or off once (node, epoch) is over. -ENODEV: it has no devices; -EBUSY: they are being told something already. */
int power_switch_on(struct power *p, uint32_t node);
void power_off_when_over(struct power *p, uint32_t node, uint32_t epoch);
bool power_has_devices(const struct power *p, uint32_t node);
const char *power_state(const struct power *p, uint32_t node); /* none, idle, switching-off, switching-on, off, failed */

/* reserve.c */
int reserver_new(struct agentd *d, struct reserver **ret);
void reserver_ask(struct reserver *r, const struct vm *v, enum reservation_op op, uint64_t number); /* AGENT_ACT_RESERVE */
const char *reserver_text(struct reserver *r, const uint8_t uuid[16]); /* why it is not reserved, or "" */

/* spawn.c: a program with these as its standard input (-1: /dev/null) and output; nothing else is handed on. 0 or a negative errno. */
int spawn_piped(const char *const argv[], int in, int out, pid_t *ret);

/* server.c */
int server_new(struct agentd *d, struct server **ret);
typedef void (*server_answer_fn)(void *user, json_object *answer); /* answer borrowed */
/* Carries out an operator's request here or at the leader; answers by fn exactly once. */
void server_request(struct server *s, json_object *request, bool forwarded, server_answer_fn fn, void *user);
void agentd_request(struct agentd *d, json_object *request); /* by this agent itself, which asks again if need be; puts request */
json_object *server_error(bool temporary, const char *fmt, ...) _printf_(2, 3);
json_object *server_ok(void);

/* foreign.c */
#define FOREIGN_SOCKET_LEN 108
struct foreign_mark {
	pid_t pid;
	uint64_t start; /* process_start() */
	char socket[FOREIGN_SOCKET_LEN];
};
int foreign_new(struct agentd *d, struct foreign **ret);
/* `ha-ctl adopt`; answers by fn exactly once. */
void foreign_request(struct foreign *f, json_object *request, server_answer_fn fn, void *user);
void foreign_take_in(struct foreign *f, const struct vm *v, bool on, uint32_t node); /* AGENT_ACT_TAKE_IN */
void foreign_gate(struct foreign *f, bool ok, const char *text);                     /* the keeper's answer */
void foreign_no_keeper(struct foreign *f);
/* What is in the VM's scope, written before it is put there. */
bool foreign_marked(const uint8_t uuid[16], struct foreign_mark *ret);
void foreign_unmark(const uint8_t uuid[16]);
bool foreign_in_scope(const uint8_t uuid[16], pid_t pid);

/* leave.c */
int leaver_new(struct agentd *d, struct leaver **ret);
/* Of `ha-ctl node leave`: whether this host goes down, and what is left to wait for; answers by fn exactly once. */
void leaver_request(struct leaver *l, server_answer_fn fn, void *user);
void leaver_say(struct leaver *l, enum leave_policy policy, bool reboot); /* asks for the edit of the catalog */
void leaver_take_back(struct leaver *l);

/* status.c */
json_object *status_build(struct agentd *d);
json_object *status_vm(struct agentd *d, const struct catalog_entry *e);
json_object *status_why(struct agentd *d, const struct catalog_entry *e); /* `ha-ctl vm show NAME --why` */
const char *status_node_state(const struct agentd *d, uint32_t id);
json_object *status_local_vms(struct agentd *d); /* what this node tells its peers: {uuid: {state, reason, restarts}} */
