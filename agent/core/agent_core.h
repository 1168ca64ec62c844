/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent's decisions. Pure, like the keeper's: events and time in, actions out.
 *
 *   agent_core.c  events, catalog, adoption after a restart
 *   claimer.c     owning VMs: read all, write own, re-read all
 *   lead.c        leader election and who tries to start what
 *   place.c       which node a VM should be tried on
 *   vmlife.c      a VM on this node, from claim to release
 *   health.c      a running guest: hung, panicked, silent, without its storage, and what is done about it
 *   migrate.c     a VM that goes to another node while it runs: both ends of it
 *   leave.c       this node's host is shut down or rebooted
 *   reserve.c     SCSI-3 persistent reservations on a VM's LUNs
 *
 *   IDLE --assigned--> CLAIMING --granted--> [DRAINING] --> [RESERVING] --> STARTING --> RUNNING --exit--> RESTARTING --> STARTING
 *     ^                  ^-- the gate was closed since --+                                 | stop, empty, move   | limit
 *     +------------- RELEASING <--- [UNRESERVING] <--- [DRAINING] <--- STOPPING <-----------------------+
 *
 * A QEMU that runs already (vm->foreign) goes the same way: at STARTING it is put behind the gate instead of being started. The VM is ignored in the catalog meanwhile.
 *
 * Waits are states: "claim", "drain", "start" are actions; what came of them are later events.
 */
#pragma once

#include "fence/keeper_proto.h"
#include "storage/format.h"
#include "storage/reservation.h"
#include "storage/slot.h"

#ifndef AGENT_MAX_VMS /* a simulator of many nodes takes less */
#define AGENT_MAX_VMS 480 /* with the leader's well below FORMAT_MAX_CLAIMS */
#endif
#define AGENT_MAX_NAME 64
#define AGENT_MAX_PREFERRED 16
#ifndef AGENT_MAX_RESTARTS
#define AGENT_MAX_RESTARTS 128 /* above what a VM file may ask for */
#define AGENT_MAX_RESETS 64
#endif
#define AGENT_MAX_GROUPS 4
#define AGENT_GROUP_LEN 32
#define AGENT_MAX_AFTER 8
#define AGENT_MAX_ACTIONS (8 * AGENT_MAX_VMS + 256)

/* ignored: nobody starts, stops, restarts or takes it over; where it runs it may run on */
enum vm_desired { DESIRED_STARTED, DESIRED_STOPPED, DESIRED_REMOVED, DESIRED_IGNORED };

/* A request that the VM be on a node: stop it where it is, start it there. Obeyed once; the leader has it withdrawn when it is done or cannot be. A VM
 * that is stopped keeps it for its next start. */
struct vm_move {
	uint32_t node;    /* 0: no request */
	uint32_t wait_ms; /* with the node unable to take it: how long before the request is withdrawn */
	uint64_t number;  /* grows with every request: a withdrawal that comes late must not hit a newer one */
	bool back;        /* it had to leave the node: it runs elsewhere for as long as the node takes no VMs, however long that is */
	bool live;        /* by a migration or not at all: it is not stopped for this */
};

/* What is done about a guest in trouble. restart: its QEMU is ended and started again, as after a crash. alert: operators are told. */
enum vm_reaction { REACT_RESTART, REACT_ALERT, REACT_IGNORE };

/* Whether a VM that has ended is started again. never and on-failure speak of its own end: a lost node's VMs are taken over in any case. */
enum vm_restart { RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_NEVER };

struct health_policy {
	enum vm_reaction hang, panic, watchdog, silence, check, io_error;
	bool agent, has_check;     /* the guest's agent is there to be asked; to run a check of the service */
	uint32_t hang_ms;          /* QEMU may be silent for so long */
	uint32_t start_ms;         /* one that was just started may, until its first answer; 0: as hang_ms, and what was always given to a migration's target */
	uint32_t boot_ms;          /* from start or reset until ready; 0: for ever */
	uint32_t silence_ms;       /* the agent may be silent for so long, after a first answer */
	uint32_t io_elsewhere_ms;  /* stopped by its storage for so long it goes where that is to be had; 0: it stays */
	uint32_t check_failures;   /* so many bad checks in a row */
	uint32_t reset_limit, reset_window_ms; /* more resets by the guest than that within the window are a failure; 0: never */
};

/* How far a guest has come, for those that wait for it. */
enum vm_ready { READY_NOT, READY_RUNNING, READY_AGENT, READY_CHECK };
const char *vm_ready_name(enum vm_ready r); /* "no", "running", "agent", "check" */

/* What the catalog says of a VM, as far as decisions need it. */
struct vm_def {
	uint8_t uuid[16];
	enum vm_desired desired;
	bool frozen;           /* what is asked for waits: nobody starts, stops, moves, restarts or takes it over meanwhile */
	struct vm_move move;
	char name[AGENT_MAX_NAME];
	uint32_t memory_mib, vcpus, priority;
	uint32_t restart_limit, restart_window_ms, stop_timeout_ms;
	enum vm_restart restart;
	struct health_policy health;
	uint32_t failed_limit; /* given up (error) once this many nodes have given it up as failed; 0: never */
	uint32_t preferred[AGENT_MAX_PREFERRED]; /* node ids */
	unsigned n_preferred;
	bool has_required;
	uint64_t required;     /* bit (id - 1): it runs on these only */
	char apart[AGENT_MAX_GROUPS][AGENT_GROUP_LEN], together[AGENT_MAX_GROUPS][AGENT_GROUP_LEN]; /* groups, by name */
	unsigned n_apart, n_together;
	bool groups_required;  /* rather not at all than against its groups */
	char after[AGENT_MAX_AFTER][AGENT_MAX_NAME]; /* VMs that are to be ready before it is started */
	unsigned n_after;
	enum vm_ready after_ready;
	uint32_t after_delay_ms, after_timeout_ms;
	bool live; /* nothing in its definition keeps it from being migrated while it runs */
	uint32_t downtime_ms; /* its guest may stand still for so long in a migration; 0: QEMU's own */
};

/* Hands off all VMs. ignore: as if each were to be ignored, except that an operator's moves are obeyed. freeze: these wait, too. */
enum catalog_pause { PAUSE_NONE, PAUSE_IGNORE, PAUSE_FREEZE };

struct catalog {
	uint64_t generation, seq;
	bool armed;
	enum catalog_pause pause;
	uint64_t maintenance, quarantine; /* bit (id - 1); in quarantine a node gets VMs only if no other can take them */
	uint32_t leaving[FORMAT_MAX_NODES]; /* epoch of a node that is to be shut down: it takes VMs again under a later one; 0: none */
	struct vm_def *vm;    /* borrowed during the event */
	unsigned n;
};

enum vm_state { VM_IDLE, VM_CLAIMING, VM_DRAINING, VM_RESERVING, VM_UNRESERVING, VM_STARTING, VM_RUNNING, VM_STOPPING, VM_RESTARTING, VM_RELEASING,
	VM_HANDING, VM_INCOMING, VM_TAKING, VM_DISCARDING /* of a migration, with no claim to start anything under: see migrate.c */, VM_STATE_COUNT };
const char *vm_state_name(enum vm_state s);

enum vm_exit { VM_EXIT_CRASH, VM_EXIT_GUEST_OFF, VM_EXIT_QUIT, VM_EXIT_KILLED, VM_EXIT_REFUSED /* at the gate */,
	       VM_EXIT_RESET /* the guest rebooted, and QEMU was told to exit then */,
	       VM_EXIT_OFF_KILLED /* the guest powered itself off, and it is not known that QEMU then ended by itself, and waited for its last write */ };

/* QEMU's run state, as far as it matters here. */
enum guest_run { GUEST_UNKNOWN, GUEST_RUNS, GUEST_ASLEEP, GUEST_PAUSED, GUEST_BUSY, GUEST_IO_ERROR, GUEST_PANICKED, GUEST_WATCHDOG,
		 GUEST_INTERNAL_ERROR, GUEST_OVER /* powered off, its process kept */, GUEST_SENT /* a migration from here is over, one way or the other */ };

/* What is the matter with a running guest; the worst of it. */
enum vm_trouble { TROUBLE_NONE, TROUBLE_HUNG, TROUBLE_PANIC, TROUBLE_INTERNAL_ERROR, TROUBLE_WATCHDOG, TROUBLE_RESETS, TROUBLE_IO_ERROR,
		  TROUBLE_NOT_BOOTED, TROUBLE_SILENT, TROUBLE_CHECK, TROUBLE_RESERVATION, TROUBLE_COUNT };
const char *vm_trouble_name(enum vm_trouble t); /* one word, as status has it */
const char *vm_trouble_text(enum vm_trouble t); /* a sentence's end: "VM x: ..." */

struct vm_health {
	enum guest_run run;
	bool still;                  /* somebody has paused it, as far as was heard while nothing else kept it from running */
	bool held;                   /* what a dead QEMU of it has written here may not be over (agent/base/held.h): no other node is to have it */
	enum vm_trouble trouble;
	enum vm_trouble ending;      /* for this it was killed; its exit is still to come, or was the last one */
	bool elsewhere;              /* and is not to be started here again */
	int64_t kill_ns;             /* 0: not killed */
	unsigned kills;
	int64_t trouble_ns;
	int64_t answer_ns, ping_ns;  /* last answers of QEMU and of the guest's agent */
	int64_t boot_ns;             /* start or reset, or since the guest could go on */
	bool heard;                  /* this agent has had an answer of its QEMU */
	bool found;                  /* by an agent that has not heard of it yet: it may be at its very start */
	bool arrived;                /* it was up before it came here as it ran: no boot to wait for */
	bool pinged, checked;        /* since it booted: the agent has answered, the check was good */
	bool panicked, boot_reset;   /* boot_reset: reset once because it did not come up */
	unsigned check_bad;          /* in a row, since it was good */
	unsigned resets;
	int64_t probe_ns;            /* its storage is asked about again then */
	int64_t storage_ns;          /* when it last answered here, 0 not since the trouble began */
	int64_t answers_ns;          /* since when it does, without a gap */
	int64_t others_ns, others_since_ns; /* the same of other nodes, while it does not here: last, and since when; 0: not */
	int64_t cont_ns;             /* not before that; it is longer each time */
	uint32_t cont_wait_ms;
	int64_t reset_ns[AGENT_MAX_RESETS]; /* newest first; `resets` of them */
};

enum migrate_phase { MIGRATE_NONE,
	MIGRATE_SENDING, MIGRATE_SWITCHING, MIGRATE_CANCELLING, MIGRATE_LOST,     /* the source's, while RUNNING */
	MIGRATE_JOINING, MIGRATE_PREPARING, MIGRATE_OFFERED, MIGRATE_LOADING, MIGRATE_LOADED };    /* the target's, while INCOMING */

/* This node's part in a migration. */
struct vm_migration {
	enum migrate_phase phase;
	uint64_t id;              /* drawn for each QEMU that waits for a guest */
	uint32_t peer;            /* the other node */
	uint64_t peer_generation; /* target: of the source's claim: another one is of another life */
	int64_t since_ns, told_ns;
	bool handed;              /* target: the source says that it has handed it over */
	bool still;               /* its guest was paused by somebody: it stays paused where it goes on */
	uint64_t taken;           /* TAKING: its generation, once that claim is ours */
	enum vm_ready ready;      /* target: how far its guest was */
	/* the source's, over all attempts for one request */
	uint64_t number;          /* of the request */
	bool counts;              /* its failure does: it was not called off */
	bool gone;                /* HANDING, TAKING: its QEMU has ended meanwhile */
	bool unanswered;          /* target, RUNNING: QEMU was told to let its guest go on and has not said yet that it does */
	bool kept;                /* the last attempt has failed, as this process has seen: nothing was handed over */
	unsigned failures;
	int64_t wait_ns;          /* since when no target has offered itself */
	int64_t preparing_ns;     /* source: when a target has last said that it will */
};

/* What is known of the keys on its LUNs (reserve.c). */
struct vm_reservation {
	bool reserved;  /* its QEMU was started, or goes on, under our key on each of its LUNs */
	bool keyed;     /* our key may be on some */
	bool joined;    /* INCOMING: registered, beside the source */
	bool confirmed; /* and still was when the source had begun to send */
	bool owning;    /* RUNNING: others' keys may still be there */
	bool lost;      /* and what runs here is ended for that */
	bool unsure;    /* RESERVING: registered; that the VM is still ours is to be read after that */
	bool clears;    /* RESERVING: registered only to do away with what is reserved */
	bool asked;     /* the answer to op is to come, under this number */
	enum reservation_op op;
	uint64_t number;
	int64_t asked_ns;
	int64_t registered_ns;      /* unsure: since when */
	int64_t sure_ns;            /* the newest read of all claims that shows it to be ours was issued then */
	unsigned tries;             /* of owning, in a row */
	unsigned failures;          /* starts, and losses of keys */
	int64_t failed_ns;
};

/* What every step looks at comes first: a processor fetches it in one go. */
struct vm {
	bool used, in_catalog;
	enum vm_state state;
	struct vm_def def;
	enum claim_state release_as;  /* RELEASING, or DRAINING towards it */
	bool unclean;                 /* its last owner did not give it up: a takeover */
	bool ours_before;             /* CLAIMING anew what this node had claimed before a restart of its agent: it may have run here */
	bool full_drain;              /* DRAINING */
	bool then_full;                /* DRAINING: once this host is silent, its storage is asked */
	bool notes_only;              /* DRAINING: its own connections have nothing on the way; what others of this host may write for a dead QEMU of it is waited for */
	bool queued;                  /* DRAINING: all is proven, and other starts go first */
	bool quit_sent, kill_sent;    /* STOPPING */
	bool foreign;                 /* CLAIMING to STARTING: not to be started, but a QEMU that something else started here is to become it; */
	bool called_off;              /* and is not any more */
	bool guest_off;               /* RESTARTING: not to be restarted, its guest powered it off, */
	bool off_failed;              /* or it failed, and its file says Restart=never; */
	bool off_killed;              /* its QEMU had to be killed on its way out: what it wrote last may be on its way, too */
	int64_t undrained_ns;         /* until then what its QEMU before has written may land, as it was started here as soon as the host was silent; 0: nothing may */
	struct vm_health health;      /* RUNNING */
	bool stays;                   /* RUNNING in a node's maintenance: no other node could take it */
	bool going_on;                /* QEMU was told to let the guest go on and has not answered yet: it may do so at any moment */
	enum vm_trouble last_failure; /* of its last exit; NONE: QEMU died by itself */
	uint64_t generation;          /* of our claim */
	uint64_t term;                /* of the gate, in which a read of all claims has last shown that it is ours; 0: none has in this process */
	int64_t since_ns, retry_ns;
	int64_t asked_until_ns;       /* CLAIMING: how long the assignment it follows is worth another try */
	unsigned failures;            /* within the window */
	unsigned conflicts;
	int64_t failed_ns;            /* when we gave it up as failed; 0 */
	/* the leader's */
	uint32_t owner;               /* as of this step */
	uint64_t owner_generation;    /* of its claim */
	uint64_t holders;             /* every node with a live claim on it: one that is about to be withdrawn may be the newest */
	int64_t owned_ns;             /* since when it has an owner, as the leader sees it; 0: it has none */
	uint32_t assigned;            /* node asked to start it, 0 none */
	int64_t assigned_ns;
	uint64_t unheeded;            /* nodes that were asked, and have not claimed it in time; since it last had an owner */
	unsigned unheeded_times;      /* in a row */
	int64_t remove_ns;            /* since when every living node knows that it is to be removed */
	uint32_t planned;             /* its owner is to stop it: where it will be started then; 0 none. Of a node in maintenance what it expects of the leader */
	uint64_t move_tried;          /* number of the move it was assigned for */
	int64_t move_wait_ns, move_over_ns; /* since when the node it is to move to cannot take it; when we asked for the edit that ends the move */
	bool move_done;               /* what that edit says */
	bool error_told, no_place_told;
	int64_t no_place_ns;          /* since when no node can take it; 0: one could */
	uint32_t ready_node;          /* who has said how far it is: its owner */
	uint64_t ready_generation;    /* under this claim */
	int64_t ready_ns[READY_CHECK + 1]; /* since when it has been that far; 0: it is not */
	bool stays_held;              /* and that it is held: it does not leave its node */
	int64_t wait_ns;              /* since when it waits for those of After= */
	bool wait_told;
	int64_t prepared_ns;          /* when a node was asked to take it while it runs */
	uint64_t handed_generation;   /* of the claim it was handed over with, */
	int64_t handed_ns;            /* seen first at that time */
	int64_t leave_ns;             /* hands are off it, and its guest was told that the host goes down */
	struct vm_migration migration;
	struct vm_reservation reservation;
	int64_t failure_ns[AGENT_MAX_RESTARTS]; /* newest first; `failures` of them */
};

/* What becomes of the VMs of a node that is shut down. conditional: freeze if it comes up again at once, else failover. */
enum leave_policy { LEAVE_CONDITIONAL, LEAVE_MIGRATE, LEAVE_FAILOVER, LEAVE_FREEZE };

enum agent_event_kind {
	AGENT_EV_TIMER,
	AGENT_EV_VOLUME,        /* volume, ok */
	AGENT_EV_WRITE_DONE,    /* claims: volume, ok, definite */
	AGENT_EV_WRITE_SETTLED, /* volume, ok */
	AGENT_EV_READ_DONE,     /* claims: volume, ok, data: claims region of nodes 1..node_max */
	AGENT_EV_READ_SETTLED,  /* volume */
	AGENT_EV_TABLE,         /* table */
	AGENT_EV_SILENT,        /* silent: comes before the table that names its number */
	AGENT_EV_NO_KEEPER,     /* connection to the keeper lost */
	AGENT_EV_CATALOG,       /* catalog */
	AGENT_EV_CATALOG_READ,  /* all slots of the catalog, each read issued after LEAD on */
	AGENT_EV_ASSIGN,        /* uuid; node: who asks; epoch: of ours that it is for */
	AGENT_EV_FOUND,         /* uuid: a unit runs it */
	AGENT_EV_LISTED,        /* every unit was reported */
	AGENT_EV_DRAINED,       /* uuid: nothing of an earlier writer can land any more */
	AGENT_EV_STARTED,       /* uuid: qemu runs */
	AGENT_EV_EXIT,          /* uuid, exit */
	AGENT_EV_HEALTH,        /* uuid, fact; run (STATE), ok (RESET: by the guest itself) */
	AGENT_EV_CONTINUED,     /* uuid: QEMU has answered to CONT, or to something that it was told after that */
	AGENT_EV_READY,         /* uuid, node, ready, held: what the node says of a VM of its own */
	AGENT_EV_CAPACITY,      /* node, cpus, memory_mib */
	AGENT_EV_STORAGE,       /* uuid, node, ok: what came of AGENT_ACT_PROBE, from that node */
	AGENT_EV_PREPARE,       /* uuid, node, epoch as in ASSIGN: take it while it runs elsewhere */
	AGENT_EV_OFFER,         /* uuid, node, migration: that node waits for it */
	AGENT_EV_MIGRATION,     /* uuid, migration, news; node: whose agent says it */
	AGENT_EV_TAKE_IN,       /* uuid; ok: a QEMU of this VM, which is ignored, runs here; something else started it. Else it is not to be taken in after all */
	AGENT_EV_CHECK_LEAD,    /* read the claims again and say (LEAD_CHECKED) whether we still lead */
	AGENT_EV_RESERVED,      /* uuid, number of the action, reserve: what was asked, reserved: what came of it. By itself, of one that is looked after: CHECK,
				   LOST; KEEP, OTHERS */
	AGENT_EV_GOING_DOWN,    /* ok: this host goes down; reboot, leave_policy, limit_ms. Else it stays up, after all */
};

enum health_fact {
	HEALTH_STATE,      /* query-status was answered */
	HEALTH_PING,       /* so was guest-ping */
	HEALTH_CHECK_GOOD, HEALTH_CHECK_BAD,
	HEALTH_PANIC,      /* GUEST_PANICKED */
	HEALTH_RESET,
};

enum migrate_news {
	MIGRATE_NEWS_READY,     /* target: QEMU waits, under this number */
	MIGRATE_NEWS_LOADING,   /* target: it comes in */
	MIGRATE_NEWS_LOADED,    /* target: all of it is there */
	MIGRATE_NEWS_PAUSED,    /* source: all but the last is sent, the guest stands still, its disks are still this QEMU's */
	MIGRATE_NEWS_COMPLETED, /* source: all is sent, guest stopped, disks inactive */
	MIGRATE_NEWS_FAILED,    /* source: failed or cancelled, the guest runs here as before */
	MIGRATE_NEWS_HANDED,    /* from the source's agent: its claim is given up for this migration */
	MIGRATE_NEWS_OFF,       /* from the source's agent: nothing will come of it */
	MIGRATE_NEWS_ASK,       /* from the target's agent: which of the two is it? */
	MIGRATE_NEWS_CANNOT,    /* from the target's agent, with no number: no QEMU there can wait for it */
	MIGRATE_NEWS_PREPARING, /* from the target's agent, under the claim's generation: its QEMU is being started */
	MIGRATE_NEWS_STILL,     /* from the source's agent, before HANDED: somebody has paused the guest, and it is to stay so */
};

struct agent_event {
	enum agent_event_kind kind;
	unsigned volume;
	bool ok, definite;
	const void *data;
	const struct keeper_msg *table;
	const struct keeper_silent *silent;
	const struct catalog *catalog;
	uint8_t uuid[16];
	uint32_t node, epoch;
	enum vm_exit exit;
	enum health_fact fact;
	enum guest_run run;
	bool held;          /* HEALTH_STATE, OFFER, READY: something of a dead QEMU of it is not proven to be over */
	enum vm_ready ready;
	uint32_t cpus, memory_mib;
	bool incoming;      /* FOUND: it waits for a guest, or holds one that was never continued */
	uint64_t migration;
	enum migrate_news news;
	bool reboot;
	enum leave_policy leave_policy;
	uint32_t limit_ms;  /* GOING_DOWN: how long the host waits */
	enum reservation_op reserve;
	enum reservation_result reserved;
	uint64_t number;
};

enum agent_action_kind {
	AGENT_ACT_WRITE,        /* volume, buffer: claimer.mine */
	AGENT_ACT_READ,         /* volume */
	AGENT_ACT_NUMBERED,     /* remember claimer.mine.seq over restarts of this process, before anything is written */
	AGENT_ACT_FACTS,        /* our claims were written: tell the keeper their seq */
	AGENT_ACT_ASSIGN,       /* node, epoch (of that node), vm */
	AGENT_ACT_DRAIN,        /* vm: full = true: probe its disks' storage and wait T_drain; false: only see that this host sends nothing more. With a release_as what no
				   other node may be given it before is waited for, too; of that alone, if it is notes_only */
	AGENT_ACT_START,        /* vm */
	AGENT_ACT_ADOPT,        /* vm: it runs already, connect to it */
	AGENT_ACT_TAKE_IN,      /* vm; on: claimed: put the running QEMU behind the gate: STARTED, or EXIT REFUSED if it is what it was before. Else it is over: node
				   holds the VM, 0: for another reason */
	AGENT_ACT_POWERDOWN,    /* vm */
	AGENT_ACT_QUIT,         /* vm */
	AGENT_ACT_KILL,         /* vm */
	AGENT_ACT_RESET,        /* vm: reset the guest */
	AGENT_ACT_CONT,         /* vm: let the guest go on; it was stopped by its storage; CONTINUED */
	AGENT_ACT_PROBE,        /* vm: does its disks' storage answer? on: the other nodes are to say so, too */
	AGENT_ACT_KILL_UNKNOWN, /* uuid in vm_uuid: runs here without a claim of ours */
	AGENT_ACT_GUEST_OFF,    /* vm: the guest powered itself off: its desired state becomes stopped */
	AGENT_ACT_FORGET,       /* vm: desired removed and nobody owns it: take it out of the catalog */
	AGENT_ACT_MOVE_OVER,    /* vm; on: done, else withdrawn: take the request of this number out of the catalog */
	AGENT_ACT_PREPARE,      /* node, epoch, vm: as ASSIGN, but the VM runs and is to be taken as it is */
	AGENT_ACT_INCOMING,     /* vm: start a QEMU that waits for it: MIGRATION news READY, LOADING, LOADED */
	AGENT_ACT_OFFER,        /* node, vm: tell its owner that we wait for it */
	AGENT_ACT_MIGRATE,      /* vm: send it to who offered under this number: news PAUSED, then COMPLETED; or FAILED */
	AGENT_ACT_SWITCH,       /* vm: after PAUSED, send the rest */
	AGENT_ACT_CANCEL,       /* vm: COMPLETED may still come instead of FAILED */
	AGENT_ACT_GO_ON,        /* vm: its guest, sent here or not sent after all, goes on here, or stays paused (v->migration.still), under v->generation; STARTED, which storage may delay. If it cannot, its QEMU is killed: EXIT */
	AGENT_ACT_TELL,         /* node, vm, migration, news (HANDED, OFF, ASK, PREPARING) */
	AGENT_ACT_LEAD,         /* on: we lead (claimer generation) or no longer */
	AGENT_ACT_LEAD_CHECKED, /* on */
	AGENT_ACT_LEAVE,        /* the catalog is to say that this node, in its present epoch, is being shut down; leave_policy, on: it reboots */
	AGENT_ACT_STAY,         /* and that it is not */
	AGENT_ACT_RESERVE,      /* vm, reserve, number: ask that of the vm's LUNs: RESERVED. The VM's before is not wanted any more. Looked after from JOIN, OWN or LEARN on
				   (CHECK, KEEP) until something else is asked */
	AGENT_ACT_NOTE,         /* note, vm, node */
};

enum agent_note {
	NOTE_VM_CLAIMED, NOTE_VM_BUSY, NOTE_VM_CONFLICT, NOTE_VM_STARTED, NOTE_VM_RECOVERED, NOTE_VM_FAILED, NOTE_VM_RESTART, NOTE_VM_GIVEN_UP,
	NOTE_VM_STOPPING, NOTE_VM_STOPPED, NOTE_VM_REFUSED, NOTE_VM_ADOPTED, NOTE_VM_ALIEN, NOTE_VM_LOST, NOTE_VM_ASSIGNED, NOTE_VM_NO_PLACE,
	NOTE_LEADER, NOTE_NOT_LEADER, NOTE_NODE_LOST, NOTE_NODE_OVER, NOTE_NODE_BACK, NOTE_MAINTENANCE_DONE,
	NOTE_VM_MOVING, NOTE_VM_MOVED, NOTE_VM_NOT_MOVED, NOTE_VM_ERROR, NOTE_VM_TROUBLE, NOTE_VM_WELL, NOTE_VM_ENDED, NOTE_VM_RESET, NOTE_VM_CONT,
	NOTE_VM_STAYS_DOWN, NOTE_VM_UNQUIET, NOTE_VM_NOT_AWAITED, NOTE_VM_CONFIRM, NOTE_AGENT_SILENT, NOTE_AGENT_BACK,
	NOTE_VM_MIGRATING, NOTE_VM_MIGRATED, NOTE_VM_NOT_MIGRATED, NOTE_VM_HANDED, NOTE_VM_INCOMING, NOTE_VM_DISCARDED, NOTE_VM_TAKEN_IN,
	NOTE_VM_STAYS, NOTE_VM_HELD, NOTE_VM_STUCK, NOTE_COUNT,
};

struct agent_action {
	enum agent_action_kind kind;
	enum agent_note note;
	unsigned volume, buffer;
	uint32_t node, epoch;
	struct vm *vm;
	uint8_t uuid[16];
	uint64_t migration;
	enum migrate_news news;
	enum leave_policy leave_policy;
	enum reservation_op reserve;
	uint64_t number;
	bool on;
};

enum claimer_phase { CLAIMER_IDLE, CLAIMER_READING, CLAIMER_WRITING, CLAIMER_REREADING };

struct claimer_volume {
	bool ready, read_busy, write_busy, read_wait, read_ok, write_wait, write_ok; /* busy: until it is settled */
	struct slot slot;
	uint64_t acked_seq, expect_seq; /* ours: known to be on it; the same when the read under way was issued */
	int64_t read_issued_ns;
	bool own_ok;                   /* its last read shows the newest block of ours that it has, whatever the others' look like; */
	bool own_any;                  /* or one of its two buffers at least */
	bool own_older;                /* what it shows of ours is older than what this process has read there */
	bool lacks_own;                /* its last read shows our block older than the write that the read follows */
	struct { uint32_t epoch; uint64_t seq; } on[FORMAT_MAX_NODES];
};

enum want_kind { WANT_NONE, WANT_ACQUIRE, WANT_TAKE /* only what was handed over for this migration */, WANT_GIVE_UP };

/* A change of our claims that is asked for, or under way in the present cycle. */
struct want {
	uint8_t vm[16];
	enum want_kind kind;
	enum claim_state to; /* GIVE_UP; CLAIM_NONE drops the entry */
	uint64_t generation, run_generation; /* run: the newest of those that may have run it, as the first read shows them */
	uint64_t migration; /* TAKE; GIVE_UP to HANDED */
	bool in_cycle, unclean;
};

struct claimer {
	enum claimer_phase phase;
	struct claims seen[FORMAT_MAX_NODES];   /* newest block of each node, for policy; steps 1 and 3 fill it anew */
	bool seen_any[FORMAT_MAX_NODES];
	unsigned seen_lead[FORMAT_MAX_NODES];   /* where its claim on the lead is in seen[], counted from 1; 0: it has none */
	struct claims fresh[FORMAT_MAX_NODES];  /* this read's */
	bool fresh_any[FORMAT_MAX_NODES];
	struct claims mine;                     /* what our block says, or is to say */
	struct want want[AGENT_MAX_VMS + 1];
	unsigned n_wants;
	struct claimer_volume volume[FORMAT_MAX_VOLUMES];
	uint64_t acked_seq;                     /* what our block says is on a fence quorum since that write, in both buffers */
	uint64_t announced[FORMAT_MAX_NODES];   /* acked_seq of each node as its heartbeat said when the read under way was issued */
	bool refresh, check_lead, read_once;
	bool lead_checked;                      /* the read under way was issued after check_lead was asked for */
	bool rewrite;                           /* our block is to be written again as it is */
	bool between;                           /* the read under way comes between two tries of a write: the cycle goes on after it as it was */
	bool changed;                           /* our block differs from what both its buffers hold */
	uint64_t once_seq;                      /* then: the write that brought it into one of them; 0 not yet */
	bool numbered;                          /* mine.seq is beyond anything of an earlier process: it may be written */
	int64_t writable_ns;                    /* since when a quorum's slots are free of earlier writes; 0 not yet */
	uint64_t read_term;                     /* of the gate, when the read under way was issued; 0: it was closed */
	uint32_t read_epoch;                    /* our epoch when the read under way was issued; 0: what was announced of us was not known yet */
	uint64_t whole_seq;                     /* of the last write that a fence quorum has acknowledged */
	int64_t catch_up_ns;                    /* when our block was last written again for a volume that lacked that */
	int64_t retry_ns, read_ns, complete_ns; /* complete: when the last complete read was issued */
};

struct agent_node {
	uint64_t counter;
	int64_t counter_ns;     /* when we saw it move last, or began to look */
	bool moved;             /* it was seen to move */
	bool was_fresh, was_silent;
	uint32_t over_told;
	uint32_t cpus, memory_mib; /* as it says; 0: it has not said yet */
};

struct agent_options {
	uint8_t cluster[16];
	uint64_t seq_base;      /* no process of this boot has used a number of claims above this plus what it wrote since */
	uint32_t self, node_limit, node_max, n_volumes; /* node_max: highest id of the configuration */
	uint64_t members;
	struct timing timing;
	uint32_t starts_per_node;                /* at a time; 0: no limit */
	uint32_t migrations_per_node;            /* away from it, at a time; 0: 2 */
	uint32_t memory_percent, vcpus_percent;  /* of a node's own that its VMs may have together; 0: no limit */
	bool reserve;                            /* VMs' LUNs are asked for before they are used: the shell knows whether to reserve them, or what was reserved is in the way */
};

/* See leave.c. */
struct leave {
	bool known;              /* the shell has said whether the host goes down */
	bool going, reboot;
	bool alone;              /* the catalog does not say it in time: everything here acts as if it did */
	bool asked;              /* the VMs were told to leave, one way or the other; */
	unsigned left;           /* so many have not yet */
	enum leave_policy policy;
	uint32_t limit_ms;
	int64_t since_ns, said_ns;
};

struct agent {
	struct agent_options opt;
	struct keeper_msg table;
	struct keeper_silent silent[FORMAT_MAX_NODES]; /* of each node the last that came: in force while the table names its number */
	uint64_t term;           /* the gate's last one that we know of */
	bool have_table, have_catalog, listed, adopted;
	uint32_t epoch;          /* of the lease our claims are under; 0 none */
	struct agent_node node[FORMAT_MAX_NODES];
	struct claimer claimer;
	struct vm vm[AGENT_MAX_VMS];
	unsigned vm_end;         /* every one that is used is below */
	struct { uint8_t uuid[16]; int64_t from_ns, until_ns; bool live; } asked[AGENT_MAX_VMS]; /* assignments we cannot follow yet */
	unsigned n_asked;
	uint8_t found[AGENT_MAX_VMS][16]; /* units that ran when we started */
	bool found_incoming[AGENT_MAX_VMS];
	unsigned n_found;
	uint64_t catalog_generation, catalog_seq;
	bool catalog_armed, maintenance_told;
	enum catalog_pause pause;
	uint64_t maintenance, quarantine;
	uint32_t leaving[FORMAT_MAX_NODES];
	struct leave leave;
	int64_t plan_ns;         /* in maintenance: when it has last looked where its VMs could go */
	bool leads;
	bool lead_read;          /* the catalog was read since: nothing is asked for by what we knew before */
	uint64_t lead_generation;
	unsigned migrating[FORMAT_MAX_NODES]; /* leader: VMs of each node that are asked for at this moment */
	int64_t lead_retry_ns, tick_ns, no_leader_ns, gate_open_ns;
	unsigned n_actions;
	int64_t now_ns;
	struct agent_action action[AGENT_MAX_ACTIONS]; /* the first n_actions */
};

extern const uint8_t agent_leader_uuid[16];

void agent_init(struct agent *a, const struct agent_options *opt, int64_t now_ns);
void agent_step(struct agent *a, const struct agent_event *ev, int64_t now_ns);
int64_t agent_deadline(const struct agent *a);

struct vm *agent_vm_by_uuid(struct agent *a, const uint8_t uuid[16]);
/* Node whose live claim holds the VM, or 0. */
uint32_t agent_owner(const struct agent *a, const uint8_t uuid[16]);
/* Node that leads, or 0. */
uint32_t agent_leader(const struct agent *a);
bool agent_node_usable(const struct agent *a, uint32_t id); /* may be given VMs */
bool agent_node_emptied(const struct agent *a, uint32_t id); /* is to have no VMs: in maintenance, or about to be shut down */
/* A newer catalog than ours was announced, perhaps by a node that is gone: ours may want a VM that was removed while we were away. The shell is reading it. */
bool agent_behind(const struct agent *a);
bool agent_held(const struct agent *a, const struct vm *v); /* hands off: an owner neither stops nor restarts it */
bool agent_vm_error(const struct agent *a, const struct vm *v); /* given up: has failed on as many nodes as it may */
/* Of two claims on a VM. Of one generation one at most is granted: one that was taken back as unclean is none that anybody ran it by beside one that was not. */
static inline bool claim_is_newer(const struct claim *c, const struct claim *than)
{
	return c->generation > than->generation || (c->generation == than->generation && than->state == CLAIM_UNCLEAN && c->state != CLAIM_UNCLEAN);
}
/* Who gave it up, or died with it, last: the newest claim under which it may have run. NULL: it never ran. */
const struct claim *agent_last_claim(const struct agent *a, const uint8_t uuid[16], uint32_t *ret_node);

/* The request that goes into the catalog with "node X is leaving", or "is in maintenance" (LEAVE_MIGRATE), for each VM it owns. */
struct vm_move agent_leave_move(enum leave_policy policy, bool reboot, uint32_t node, uint64_t number);
/* The catalog's word on a node, by that node itself: that it leaves under this epoch, or does not after all. known: its newest epoch, for all that the editor
 * knows. false, and nothing is said: it has waited for so long that another life of the node has begun since. */
bool agent_leave_edit(uint32_t *leaving, uint32_t known, uint32_t epoch, bool on);

/* The host may go on going down: nothing here needs it any more. Nobody waits for a VM that hands are off longer than its StopTimeout=. */
bool agent_left(const struct agent *a);

/* Between the files of the core. */
struct agent_action *agent_act(struct agent *a, enum agent_action_kind kind);
void agent_note(struct agent *a, enum agent_note note, struct vm *vm, uint32_t node);
const struct keeper_table_node *agent_table_node(const struct agent *a, uint32_t id);
bool agent_gate_open(const struct agent *a);
uint64_t agent_term(const struct agent *a); /* of the gate; 0: it is closed */
static inline int64_t agent_ms(uint32_t ms) { return (int64_t)ms * NS_PER_MS; }

/* This node is to start the VM as soon as it can, from then until then. */
void agent_ask(struct agent *a, const uint8_t uuid[16], int64_t from_ns, int64_t until_ns, bool live); /* live: to take it as it runs */
#define AGENT_ASKED_MS 2000 /* well below the leader's patience */

void claimer_reset(struct agent *a); /* a new epoch: nothing is ours */
void claimer_step(struct agent *a);
void claimer_volume_ready(struct agent *a, unsigned volume, bool ready);
void claimer_write_done(struct agent *a, const struct agent_event *ev);
void claimer_read_done(struct agent *a, const struct agent_event *ev);
void claimer_want(struct agent *a, const uint8_t vm[16], enum want_kind kind, enum claim_state to);
void claimer_want_migration(struct agent *a, const uint8_t vm[16], enum want_kind kind, uint64_t migration); /* TAKE; GIVE_UP to HANDED */
bool claimer_take_back(struct agent *a, const uint8_t vm[16]); /* what was asked for is no more: true if nothing of it was issued, and nothing will be */
bool claimer_pending(const struct agent *a, const uint8_t vm[16]);
const struct claim *claimer_seen(const struct agent *a, uint32_t node, const uint8_t vm[16]); /* as last read; NULL: none */
const struct claim *claimer_own(const struct agent *a, const uint8_t vm[16]);
bool claim_is_live(const struct agent *a, uint32_t node, const struct claim *c);
/* Though its epoch lives: its node's agent is silent, and the VM has no process there. */
bool claim_is_void(const struct agent *a, uint32_t node, const struct claim *c);

enum claim_result { CLAIM_GRANTED, CLAIM_BUSY, CLAIM_CONFLICT, CLAIM_GIVEN_UP };
void vmlife_claim_result(struct agent *a, const uint8_t vm[16], enum claim_result result, uint64_t generation, bool unclean, uint32_t node);
/* A claim is not to be had: true if it is given up later, once this host sends nothing more of a QEMU that it may have had under it. */
bool vmlife_withdraw(struct agent *a, const uint8_t vm[16], bool unclean);
bool vmlife_assign(struct agent *a, struct vm *v); /* false: not at the moment */
bool vmlife_waits_in_vain(const struct agent *a, const struct vm *v); /* for a proof that may come with its host's end only */
bool vmlife_take_back(struct agent *a, struct vm *v); /* what was assigned is not to be claimed after all: true if nothing of that claim was issued */
void vmlife_take_in(struct agent *a, struct vm *v, bool on);
void vmlife_event(struct agent *a, struct vm *v, const struct agent_event *ev);
void vmlife_tick(struct agent *a, struct vm *v);
void vmlife_lost_lease(struct agent *a, struct vm *v);
void vmlife_move(struct agent *a, struct vm *v, enum vm_state to);
int64_t vmlife_deadline(const struct agent *a, const struct vm *v);
bool vmlife_wanted(const struct agent *a, const struct vm *v); /* to run, and here */

/* health.c */
void health_begin(struct agent *a, struct vm *v, bool arrived); /* its QEMU was started, or found; arrived: its guest is up already */
void health_answered(const struct agent *a, struct vm_health *h); /* its QEMU, to anything */
void health_stood_still(const struct agent *a, struct vm_health *h); /* its guest, until now: it could not answer */
void health_event(struct agent *a, struct vm *v, const struct agent_event *ev);
void health_tick(struct agent *a, struct vm *v);   /* of a running VM */
void health_gap(struct agent *a, int64_t gap_ns);  /* nobody looked for so long: that does not count */
void health_unwatched(struct vm *v, int64_t ns); /* the same for one VM */
bool health_reset_loop(struct agent *a, struct vm *v); /* one more reset by the guest: is it one too many? */
void health_new_policy(const struct agent *a, struct vm *v, const struct health_policy *p); /* before its definition says so */
enum vm_ready health_ready(const struct vm *v);

/* For reserve.c */
void vmlife_reserved(struct agent *a, struct vm *v);               /* RESERVING is over, and well */
void vmlife_again(struct agent *a, struct vm *v, int64_t wait_ns); /* here, and it is no failure */
void vmlife_elsewhere(struct agent *a, struct vm *v);              /* RESERVING: another node is to try first */
void vmlife_refused(struct agent *a, struct vm *v);                /* the gate is closed: again once it is open */
bool vmlife_must_confirm(struct agent *a, struct vm *v);
void vmlife_given_up(struct agent *a, struct vm *v, enum claim_state to); /* with nothing left to undo before */
void health_end(struct agent *a, struct vm *v, enum vm_trouble why);
void migrate_joined(struct agent *a, struct vm *v, bool ok);
void migrate_unreserved(struct agent *a, struct vm *v); /* INCOMING: its key is gone */

/* reserve.c */
void reserve_start(struct agent *a, struct vm *v, bool quiet); /* quiet: as start() in vmlife.c */
void reserve_claims_read(struct agent *a);
void reserve_join(struct agent *a, struct vm *v);
void reserve_arriving(struct agent *a, struct vm *v); /* its source has begun to send, */
bool reserve_arrived(const struct vm *v);             /* and as far as reservations go it may be taken */
void reserve_own(struct agent *a, struct vm *v);   /* what has joined goes on as the owner */
bool reserve_settled(const struct vm *v);          /* none of others' keys is to be preempted */
void reserve_found(struct agent *a, struct vm *v); /* its QEMU runs already */
void reserve_may_be_keyed(const struct agent *a, struct vm *v); /* by an agent before this one */
void reserve_leave(struct agent *a, struct vm *v, enum claim_state then);
void reserve_quit(struct agent *a, struct vm *v);  /* the same, with nobody waiting for it */
bool reserve_ended(struct agent *a, struct vm *v);  /* its QEMU has ended: true if that was for a lost key, and no failure */
bool reserve_may_have(const struct vm *v);         /* a QEMU that writes by its key. Of nobody else's is that looked at: what has come late would be reserved for nobody */
void reserve_event(struct agent *a, struct vm *v, const struct agent_event *ev);
void reserve_tick(struct agent *a, struct vm *v);
int64_t reserve_deadline(const struct vm *v); /* RESERVING, UNRESERVING */

/* leave.c */
void leave_event(struct agent *a, const struct agent_event *ev);
void leave_step(struct agent *a);
bool leave_said(const struct agent *a); /* the catalog says that this node, in its present epoch, is being shut down */

void lead_step(struct agent *a);
void lead_resign(struct agent *a); /* what it has planned is not the next leader's plan, though that may be itself */
/* Which VM of its After= it waits for at this moment; NULL: none, or no longer. The leader's; others know it as far as they were told. */
const struct vm *lead_awaited(const struct agent *a, const struct vm *v);
void lead_owners(struct agent *a); /* looks anew who owns what */
void lead_plan(struct agent *a);   /* and where who is to leave its node could go, as a leader does */
enum vm_ready lead_known_ready(const struct vm *v); /* as its ready_node has said last */
void lead_ready(struct agent *a, struct vm *v, uint32_t node, enum vm_ready ready, bool held);
bool lead_ready_known(const struct agent *a, const struct vm *v, uint32_t node, enum vm_ready ready, bool held); /* it would be no news */
void lead_claim_result(struct agent *a, enum claim_result result, uint64_t generation);
bool lead_claim_void(const struct agent *a, uint32_t node);

/* place.c */
enum place_why { PLACE_FITS, PLACE_NO_MEMBER, PLACE_EMPTIED, PLACE_NOT_ONLINE, PLACE_NOT_ARMED, PLACE_NO_AGENT, PLACE_UNKNOWN, PLACE_NOT_REQUIRED, PLACE_CPUS,
		 PLACE_VCPUS, PLACE_MEMORY, PLACE_APART, PLACE_TOGETHER, PLACE_WHY_COUNT };
const char *place_why_text(enum place_why w);
/* What speaks for a node, the most important first; the node with the lowest values is taken, among equals the one with the lowest id. */
enum place_key { PLACE_KEY_FAILED, PLACE_KEY_QUARANTINE, PLACE_KEY_APART, PLACE_KEY_TOGETHER, PLACE_KEY_PREFERENCE, PLACE_KEY_LOAD, PLACE_KEY_MOVES, PLACE_KEY_COUNT };
const char *place_key_text(enum place_key k); /* what a higher value means */
enum place_why place_fits(const struct agent *a, const struct vm *v, uint32_t id);
/* What no operator's request can change: the nodes its file requires, and enough processors for its vCPUs. */
enum place_why place_possible(const struct agent *a, const struct vm *v, uint32_t id);
void place_rank(const struct agent *a, const struct vm *v, uint32_t id, unsigned ret[PLACE_KEY_COUNT]);
uint32_t place_choose(const struct agent *a, const struct vm *v);
bool place_failed(const struct agent *a, uint32_t id, const uint8_t uuid[16]);
bool place_gave_up(const struct agent *a, const struct vm *v, uint32_t id); /* as failed, or since it last ran as one that it could not prove quiet, or get to run */
uint32_t place_move(const struct agent *a, const struct vm *v); /* the node it is asked to be on and could be: where else it is, it stops; 0: any */

/* migrate.c */
unsigned migrate_parallel(const struct agent *a); /* from one node at a time */
/* Whether the VM is to leave the node, whose it is, as it runs. */
bool migrate_by(const struct agent *a, const struct vm *v, uint32_t owner);
void migrate_event(struct agent *a, struct vm *v, const struct agent_event *ev);
/* RUNNING, and not (or again) wanted here: true if it is to be left alone, for it leaves as it runs, or cannot. */
bool migrate_leaves(struct agent *a, struct vm *v, bool wanted);
void migrate_tick(struct agent *a, struct vm *v);               /* INCOMING, TAKING, DISCARDING, HANDING */
bool migrate_gone(struct agent *a, struct vm *v);               /* its QEMU has ended: true if that was a matter of a migration */
void migrate_withdraw(struct agent *a, struct vm *v);           /* asks for the edit that takes an operator's request back: the VM stays */
void migrate_lost(struct agent *a, struct vm *v);               /* RUNNING: QEMU has sent its guest, and nobody here knows what was said of that */
bool migrate_prepare(struct agent *a, struct vm *v);            /* false: not at the moment */
bool migrate_claim_result(struct agent *a, struct vm *v, enum claim_result result, uint64_t generation);
