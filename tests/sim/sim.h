/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-sim: a whole cluster in one process on a virtual clock, from one seed. The cores and their dispatch are the shipped ones; what is here takes the
 * place of the daemons' shells and of everything below them. No threads, no real time, no real I/O: the same seed gives the same history, to the byte.
 *
 *   ha_sim.c       options, one seed after the other, the report
 *   play.c         one seed: building its cluster, chaos and healing in turn
 *   shrink.c       which faults a failure needs
 *   world.c        virtual time, the event queue, random numbers, processes, the history
 *   disk.c         volumes and image storage: sessions, operations and their stages, late landings
 *   blocks.c       what is on the volumes; takes the place of the decoders at link time (-Wl,--wrap), so that blocks need not be bytes
 *   ring.c         corosync: partitions, views that come late, messages
 *   keeper_edge.c  a node's keeper daemon, its watchdog, the VM slice
 *   agent_edge.c   a node's agent daemon: link to the keeper, catalog, units, drains
 *   guest.c        QEMU processes: gate, start, writes to their image, death
 *   migrate.c      QEMUs that send their guest to another node
 *   reserve.c      persistent reservations of VMs' LUNs
 *   power.c        fence devices, and what the agent does with them
 *   machine.c      a node's power and boot, restarts of its daemons
 *   chaos.c        which faults may occur in a seed, how often; healing
 *   check.c        the invariants
 *   places.c       those of order and place, and what VM files say of them
 *   replay*.c      another program, which plays scenarios that others wrote: see replay.h
 *   volset.c       operators who change the volume set
 *   clone.c        a second host with a node's id
 *   lasting.c      one fault that stays: liveness on what is left
 *   failover.c     lone power cuts with the lab's latencies: how long a failover takes (ha-sim --failover)
 *   mutants.c      the same with one rule broken (agent/base/mutant.h): some invariant must fail
 *
 * Times are nanoseconds of the world's clock unless a name says "local": each node's clock runs at a rate of its own, within rho.
 */
#pragma once

#include "agent/base/log.h"
#include "agent/core/dispatch.h"
#include "agent/core/power.h"
#include "fence/dispatch.h"

#define SIM_MAX_NODES 16
#define SIM_MAX_VMS 24
#define SIM_MAX_TARGETS (FORMAT_MAX_VOLUMES + 2)
#define SIM_MAX_CLAIMS (SIM_MAX_VMS + 2)
#define SIM_MAX_FAULTS 65536
#define SIM_NEVER INT64_MAX
#define SIM_S (1000 * NS_PER_MS)

/* ---- world.c ---- */

struct sim_proc;
struct sim_event;
typedef void (*sim_fn)(struct sim_event *ev);

struct sim_event {
	int64_t at;
	sim_fn fn;
	void *obj;
	uint64_t arg;
	struct sim_proc *proc; /* runs only in that life of that process, and waits while it is stopped; NULL: the world's own */
	uint32_t life;
};

struct sim_proc {
	uint32_t life; /* odd while alive: another number each time */
	bool stopped;
	uint64_t stop_number;
	struct sim_event *late; /* came while it was stopped */
	unsigned n_late, late_size;
	unsigned stall_in;      /* > 0: is stopped before its n-th next effect, in the middle of a dispatch */
	int64_t stall_ns;
	int64_t hurt_ns;        /* last time it was not running as it should */
	int64_t stood_ns;       /* last time this life of it stood still; 0: never */
	int64_t still_ns;       /* when it last came to stand still, after it had gone well for 10 s */
};

static inline bool proc_alive(const struct sim_proc *p) { return p->life & 1; }

void *pool_alloc(size_t size); /* zeroed, never freed */
void world_reset(uint64_t seed);
bool world_step(int64_t until);
void world_post(int64_t delay, sim_fn fn, void *obj, uint64_t arg);
void world_post_proc(struct sim_proc *p, int64_t delay, sim_fn fn, void *obj, uint64_t arg);
/* A deadline that moves: one event, whose arg is the timer's number of then. */
struct sim_timer {
	bool set;
	unsigned place;
	int64_t at;
	uint64_t order, number;
	sim_fn fn;
	void *obj;
	struct sim_proc *proc;
	uint32_t life;
};
void timer_set(struct sim_timer *t, struct sim_proc *p, int64_t at, sim_fn fn, void *obj); /* at: not in the past */
/* For events that own something: 1 go on, 0 the process is stopped (the event is kept for later), -1 the life it was meant for is over. */
int world_for(struct sim_proc *p, uint32_t life, const struct sim_event *ev);

uint64_t rnd(uint64_t below);                      /* 0 if below is 0 */
uint64_t rnd_stream(uint64_t kind, uint64_t n);     /* a state for sim.rng of its own */
static inline int64_t rnd_us(int64_t lo, int64_t hi) { return (lo + (int64_t)rnd((uint64_t)(hi - lo + 1))) * 1000; }
static inline int64_t rnd_ms(int64_t lo, int64_t hi) { return (lo * 1000 + (int64_t)rnd((uint64_t)(hi - lo) * 1000 + 1)) * 1000; }
static inline bool chance(unsigned permille) { return rnd(1000) < permille; }

/* What takes how long in a cluster that is well; else the files draw it themselves, wide enough for everything that may be. */
enum sim_edge { EDGE_STORAGE, EDGE_TOKEN, EDGE_LAUNCH, EDGE_GUEST, EDGE_COUNT };
struct sim_quantiles { int64_t us[4]; }; /* 0, 50, 99 and 100 % take no longer */
int64_t edge_ns(enum sim_edge e);        /* sim.edges is set */

void proc_start(struct sim_proc *p);
void proc_die(struct sim_proc *p);
void proc_stop(struct sim_proc *p, int64_t ns);
void proc_resume(struct sim_proc *p);
void proc_wait(struct sim_proc *p, unsigned place, sim_fn fn, void *obj); /* in that place of what waits for it */
/* Called before each effect of a dispatch: may stop the process right there. Says whether the effect must wait. */
bool proc_stalls(struct sim_proc *p);

void history_add(const char *fmt, ...) _printf_(1, 2);
void history_print(unsigned last);
uint64_t history_hash(void);

/* ---- blocks.c ---- */

enum block_kind { BLOCK_HEARTBEAT, BLOCK_CLAIMS };

/* A block on a volume or on its way there: never changed once made. */
struct block {
	int refs;
	enum block_kind kind;
	enum format_status status;
	struct block *next_free;
	union {
		struct heartbeat hb;
		struct { uint32_t node, epoch, n; uint64_t seq; struct claim claim[SIM_MAX_CLAIMS]; } cl;
	};
};

struct volume_data {
	enum format_status sb; /* of both copies */
	struct superblock super;
	struct block *block[SIM_MAX_NODES][2][2]; /* node - 1, kind, buffer */
};

struct snapshot {
	unsigned volume;
	enum format_status sb, shows;
	struct superblock super;
	struct block *block[SIM_MAX_NODES][2];
};

void blocks_format(unsigned volume);
struct block *block_of_heartbeat(const struct heartbeat *hb);
struct block *block_of_claims(const struct claims *c);
struct block *block_ref(struct block *b);
void block_unref(struct block *b);
void block_land(struct volume_data *d, struct block *b, uint32_t node, unsigned buffer);
/* A write cut off after some sectors by a loss of power. */
void block_tear(struct volume_data *d, const struct block *b, uint32_t node, unsigned buffer);
void block_spoil(struct volume_data *d, enum block_kind kind, uint32_t node, unsigned buffer, enum format_status status);
struct snapshot *snapshot_take(unsigned volume, const struct volume_data *d, enum block_kind kind);
/* What is read while b is being written; false: nothing to be seen of it. */
bool snapshot_tear(struct snapshot *s, const struct block *b, uint32_t node, unsigned buffer);
void snapshot_free(struct snapshot *s);
/* What the wrapped decoders see until the next call. Returns what the core is to be given as data. */
const void *snapshot_use(const struct snapshot *s, enum block_kind kind);
static inline uint32_t block_epoch(const struct block *b) { return b->kind == BLOCK_HEARTBEAT ? b->hb.epoch : b->cl.epoch; }
static inline uint64_t block_seq(const struct block *b) { return b->kind == BLOCK_HEARTBEAT ? b->hb.seq : b->cl.seq; }

/* ---- disk.c ---- */

struct node;
struct qemu;

enum op_kind { OP_READ_TABLE, OP_WRITE_HEARTBEAT, OP_READ_CLAIMS, OP_WRITE_CLAIMS, OP_PROBE, OP_WRITE_IMAGE };

/* incarnation: grows when the VM is taken out of the catalog; generations may begin anew then */
struct stamp { uint64_t incarnation, generation; uint32_t node, epoch; uint64_t instance; };

struct op;
struct op_calls {
	void (*done)(struct op *op, bool ok, bool definite);
	void (*settled)(struct op *op, bool completed);
};

/* One operation: on this host until it has arrived, then at the target until it is executed there ("phys_done"), then the answer travels. */
struct op {
	struct op *next, *prev;
	enum op_kind kind;
	const struct op_calls *calls; /* NULL: nobody waits for it */
	struct sim_proc *proc;
	uint32_t life;
	struct node *node;
	unsigned target;
	struct client *client; /* NULL: no session (QEMU, probes: they wait for ever) */
	bool timed;            /* its deadline is in the queue */
	bool linked;
	uint64_t serial;
	int64_t issued, arrive, exec;
	bool blocked;          /* cannot leave this host */
	bool held;             /* the target does not get to it */
	bool phys_done, ok, no_path_back;
	bool told;             /* done was said; settled is still to come */
	bool in_call;          /* its callbacks are being made: whoever makes them frees it */
	bool old;              /* goes to the device that was replaced */
	bool orphan;           /* its session is gone: may land late, at the latest land_by */
	bool sending;          /* orphan that the host's kernel still tries to send */
	int64_t orphan_at, land_by;
	unsigned torn;
	uint64_t token;        /* of the event under way */
	void *user;
	uint64_t arg;
	unsigned buffer;
	struct block *block;
	struct snapshot *snap;
	struct stamp stamp;
	struct op *next_free;
};

enum session_state { SESSION_DOWN, SESSION_READY };

struct session {
	enum session_state state;
	int64_t wait_ns;
};

/* A process that does I/O with sessions of its own to each volume (keeper, agent). */
struct client {
	struct sim_proc *proc;
	struct node *node;
	struct session session[FORMAT_MAX_VOLUMES];
	void (*changed)(struct client *c, unsigned volume, bool ready);
	void (*set_changed)(struct node *n);
	unsigned old;          /* bit v: it talks to the device that was at place v before */
	bool known;            /* as storage/volset.c: a fence quorum has agreed on */
	struct superblock set; /* this */
	bool has_sb[FORMAT_MAX_VOLUMES];
	struct superblock sb[FORMAT_MAX_VOLUMES];
};

struct target {
	bool is_volume, is_path; /* is_path: a file or block device: its calls come back only when they are done */
	bool hung, bad_writes, bad_reads;
	int64_t hung_ns;       /* since when */
	uint8_t bad_writes_by; /* enum chaos_kind */
	uint64_t cut;          /* bit (id - 1): no path between node and target */
	unsigned lose_acks;    /* permille */
	unsigned slow;         /* permille of operations that take longer than T_io */
	bool near_limit;       /* all take long, but less than T_io */
	bool torn_reads;
	bool rolled_back;      /* since the last healing: what was on it before is no promise any more */
	unsigned misdirect;    /* so many of its next writes go astray */
	enum format_status shows; /* not FORMAT_OK: another LUN is seen in its place */
	struct op *ops, *last_op;
	unsigned n_orphans;
	uint16_t writing[SIM_MAX_NODES][2]; /* node - 1, kind: blocks on their way here that are not executed yet */
	struct volume_data data, old, next; /* see volset.c */
	bool has_next, swapped;
	int64_t copied_ns;     /* an operator has copied all blocks onto it: what was issued before may still land in one buffer of two */
};

void disk_reset(void);
void client_open(struct client *c);   /* begins to connect to all volumes */
void client_close(struct client *c);  /* the process has died: what it sent goes on its way without it */
unsigned client_ready(const struct client *c);
struct op *op_new(enum op_kind kind, struct sim_proc *p, struct node *n, unsigned target, const struct op_calls *calls, void *user);
void op_submit_session(struct op *op, struct client *c);
void op_submit(struct op *op);        /* no session, no time-out */
void op_cancel(struct op *op);        /* nobody waits for it any more */
enum gone { GONE_DIED, GONE_SILENCED, GONE_RESET };
void disk_writer_gone(struct node *n, const struct sim_proc *p, uint32_t life, enum gone how); /* p NULL: the whole node */
bool disk_host_sends(const struct node *n); /* unsent data of dead processes */
unsigned disk_pending(const struct sim_proc *p, uint32_t life);
bool disk_stuck(const struct sim_proc *p, uint32_t life);
void target_hang(unsigned t, bool on);
void target_cut(unsigned t, uint32_t node, bool on);
void target_acks(unsigned t); /* none is lost any more; those that a kernel still tries to get come */

/* ---- ring.c ---- */

void ring_reset(void);
void ring_changed(void);      /* connectivity or membership may have changed */
void ring_joined(struct node *n);
bool ring_connected(const struct node *a, const struct node *b);
bool ring_whole(void);
/* Does a message get through, and after how long? */
bool ring_carries(const struct node *from, const struct node *to, int64_t *ret_delay);
void ring_trouble(unsigned lost_permille, int64_t delay_ns, int64_t late_ns); /* of messages; of views, at most */

/* ---- guest.c ---- */

enum qemu_state { QEMU_NONE, QEMU_LAUNCH, QEMU_ASKING, QEMU_ALLOWED, QEMU_RUNS };

/* The unit of a VM on a node: at most one at a time, as systemd has it. */
struct qemu {
	enum qemu_state state;
	struct sim_proc proc;
	struct node *node;
	unsigned vm;
	struct stamp stamp;
	uint64_t term; /* of the gate: with what it was launched */
	bool kill_pending;
	enum gone kill_how;
	bool quitting, off;
	bool powering_down, stopped; /* stopped: by its agent */
	/* what the guest suffers from, until its next life */
	bool io_error, mute, panicked, resets;
	bool live;               /* its disks are active: its guest runs, or may go on at any moment */
	bool left;               /* not sent, and QEMU did not let its guest go on by itself, as it did not run before */
	bool reserved;           /* was started, or goes on, under a reservation */
	bool foreign;            /* taken in: nobody has asked its LUN before it ran */
	bool halted, writing;    /* its vCPUs stand still; its next write is in the queue */
	bool incoming, loaded;   /* waits for a guest, or holds one that was never continued */
	uint64_t in_id;
	uint64_t loaded_lands;   /* writes that its image had seen when the guest was sent */
	uint64_t cont, cont_done; /* the last "cont" that was sent to it, and the last that it has obeyed */
	uint32_t cont_by;         /* which life of the agent has sent it */
	bool waits;              /* takes its disks again to let its guest go on, and says nothing until it has them; */
	uint32_t waits_by;       /* which life of the agent has told it to */
	int64_t waits_ns;        /* not before that */
	unsigned out;            /* migrate.c */
	uint32_t out_to;
	uint64_t out_id, out_number;
};

struct image {
	struct stamp last;   /* newest writer that landed */
	struct stamp runner; /* newest that was started */
	uint64_t lands;
};

/* What a target keeps of a VM's LUN: who has registered by which path (an initiator's own), and who holds the reservation. */
struct lun {
	bool capable, no_abort, held;
	unsigned n_paths, holder, holder_path;
	uint64_t key[SIM_MAX_NODES][2]; /* node - 1, path; 0: not registered */
	bool stale[SIM_MAX_NODES];      /* its key came by a command that nobody waited for any more */
	bool excused[SIM_MAX_NODES];    /* its registration was lost by a fault */
	bool hung;
	unsigned dead[SIM_MAX_NODES];   /* 1 + the path by which nothing of that node comes through; 0: none */
	uint64_t strange;               /* somebody else's key */
	bool take_next;                 /* the next migration's target loses its key to its source before that sends */
	unsigned lose_acks, drop_next;  /* so many of the next answers are lost; registrations by a second path go at once */
};

struct sim_vm {
	uint8_t uuid[16];
	unsigned target;
	struct image image;
	struct lun lun;
	uint64_t incarnation;
	struct vm_def own_policy;
	const struct vm_def *policy; /* what its file says; NULL: what all have */
	unsigned fail_starts;        /* so many starts fail yet; */
	uint32_t fail_node;          /* on this node only, if not 0 */
	bool deaf;                   /* its guest does not listen to a power button */
	int64_t gone_ns;     /* since when it does not run though it is wanted; 0 */
	int64_t away_ns;     /* when a migration had sent all of it, or its agent had made it shut down, and it runs nowhere since; 0: it does */
	bool gone_by_node;   /* its node was lost */
};

bool qemu_launch(struct node *n, unsigned vm, uint64_t generation, uint32_t epoch, uint64_t term, bool incoming); /* false: the unit exists */
void qemu_kill(struct qemu *q, enum gone how);
void qemu_quit(struct qemu *q);
void qemu_powerdown(struct qemu *q);
void qemu_crash(struct qemu *q);
void qemu_refused(struct qemu *q);
void qemu_runs(struct qemu *q); /* the launcher has become QEMU */
void qemu_reset(struct qemu *q); /* its host has lost power */

void qemu_well(struct qemu *q);   /* nothing ails its guest any more */
void qemu_writes(struct qemu *q); /* its vCPUs run (again) */

/* ---- migrate.c ---- */

void qemu_migrate(struct qemu *q, uint32_t to, uint64_t id);
void qemu_switch(struct qemu *q);
void qemu_cancel(struct qemu *q);
void qemu_go_on(struct qemu *q, uint64_t generation);
void qemu_cont(struct qemu *q); /* as QEMU takes it: whatever its guest waits for */
bool qemu_sends(const struct qemu *q);
bool qemu_sent(const struct qemu *q); /* completed: its guest is no more its own */

/* ---- nodes ---- */

struct cat {
	uint32_t version; /* a number for each edit; what it was made from: check_edit */
	uint64_t generation, seq;
	bool armed;
	uint64_t maintenance;
	enum vm_desired desired[SIM_MAX_VMS];
	bool present[SIM_MAX_VMS];
	uint8_t incarnation[SIM_MAX_VMS]; /* added so many times: each has a uuid of its own */
	struct vm_move move[SIM_MAX_VMS];
	bool frozen[SIM_MAX_VMS];
	enum catalog_pause pause;
	uint32_t leaving[SIM_MAX_NODES];
};

struct run { bool used, adopted, told, incoming, foreign; uint64_t migration; uint32_t life, number; unsigned tries; uint64_t generation, term; uint32_t epoch; };
struct drain_job { bool used, answered; uint32_t number, tries; };
/* One ha-reserve a VM; owned, joined: the mark on the node's tmpfs */
struct reserve_job {
	bool busy, owned, joined, under_way, asked; /* asked: by the core */
	bool unlooked; /* the last look had no answer, or was another one that took long: either may take longer than anything else does */
	enum reservation_op op;
	uint64_t number, key, marked; /* marked: the key that the mark is of */
	uint32_t serial;
	struct reservation_plan plan;
	struct reservation_command sent;
	struct reservation_answer answer;
};

enum edit_kind { EDIT_ARM, EDIT_DISARM, EDIT_START, EDIT_STOP, EDIT_REMOVE, EDIT_FORGET, EDIT_ADD, EDIT_MAINTENANCE, EDIT_ACTIVE, EDIT_GUEST_OFF,
	EDIT_IGNORE, EDIT_MOVE /* to node */, EDIT_MOVE_OVER, EDIT_PAUSE /* vm: enum catalog_pause */, EDIT_LEAVE /* vm: policy * 2 + reboot */,
	EDIT_MIGRATE /* to node */, EDIT_CALL_OFF, EDIT_FREEZE, EDIT_UNFREEZE,
	EDIT_LEAVING /* as EDIT_LEAVE, by the node itself; number: epoch */, EDIT_STAY };
/* number: of the move (MOVE_OVER), of the leadership (FORGET); incarnation: of the VM, for what agents ask. */
struct edit { enum edit_kind kind; unsigned vm; uint32_t node; uint64_t number; uint8_t incarnation; };
#define SIM_START_WAIT_MS 60000 /* a VM that is added (EDIT_ADD) for a node waits for it that long */
#define SIM_AFTER_MS 5000 /* a VM of an order waits for others that long */
void edit_ask(const struct edit *e);
void edit_post(enum edit_kind kind, unsigned vm, uint32_t node); /* an operator's */

struct node {
	uint32_t id;
	bool up;
	uint64_t boots;
	int64_t clock_offset;
	uint64_t sleeps;         /* its host is suspended: which time; 0: it is not */
	int64_t asleep_ns;       /* since then its CLOCK_MONOTONIC stands still; 0: it does not */
	uint32_t clock_rate;     /* 4096ths more than the world's */
	int64_t hurt_ns;         /* L2: last moment something was wrong with this node */
	int64_t io_hurt_ns;      /* the same of its keeper's storage operations */
	int64_t table_read[FORMAT_MAX_VOLUMES]; /* by its clock: when the keeper issued the last read that succeeded */
	int64_t slow_boot_ns;    /* what its next boot takes in addition */

	struct sim_proc kproc;
	struct client kclient;
	struct keeper *keeper;
	bool k_set_changed;
	bool going_down; /* its agent has left the mark for its keeper */
	bool k_known, k_runs, k_clean, k_stopping, k_killing, k_kill_start;
	uint32_t k_agent_life;   /* the agent that is connected */
	bool k_resume;
	uint32_t k_resume_epoch;
	uint64_t k_resume_seq;
	uint8_t k_resume_life[16], k_life[16], k_boot[16];
	struct sim_timer k_timer;
	struct keeper_processes k_processes; /* the last answer */
	uint32_t k_write_ops[FORMAT_MAX_VOLUMES];
	struct { bool valid; uint32_t epoch; uint64_t seq; uint8_t life[16]; enum lease_state state; } saved;
	struct { uint64_t seq; uint32_t epoch; int64_t acked_ns; bool acked, read; int64_t read_issued; } oracle[FORMAT_MAX_VOLUMES];
	uint64_t oracle_seq;     /* of the round under way */
	int64_t published_ns;
	bool is_clone;           /* another host with this node's id */
	unsigned brinks;         /* so many of its next pets come at the last moment */

	struct { bool running; int64_t fires, pet_ns; struct sim_timer timer; } wd;

	bool corosync, ring_up, ring_broke;
	unsigned corosync_life;
	unsigned part;           /* partition of the ring it is in */
	uint64_t ring_mask;      /* one-way trouble: nodes it does not see */
	uint64_t ring_view, ring_target;
	uint64_t ring_number;

	struct sim_proc aproc;
	struct client aclient;
	struct agent *agent;
	bool a_runs, a_connected;
	bool a_cut;              /* it reaches no volume, though its keeper does */
	uint32_t a_keeper_life;
	uint64_t a_counter;
	uint64_t a_seq_base;     /* of this boot: the agent's file on a tmpfs */
	struct sim_timer a_timer;
	uint32_t a_write_ops[FORMAT_MAX_VOLUMES];
	bool have_cat, leading, cat_complete, cat_scanning, cat_again, cat_checking;
	struct cat cat, cat_new;
	struct edit cat_edit;
	bool cat_writing;
	int64_t cat_write_ns;
	uint64_t cat_seq;
	struct keeper_agent_facts facts;
	struct run run[SIM_MAX_VMS];
	struct drain_job drain[SIM_MAX_VMS];
	struct reserve_job reserve[SIM_MAX_VMS];
	bool reserves_not; /* Reservation=no, since its agent was started */

	struct qemu qemu[SIM_MAX_VMS];
};

int64_t node_now(const struct node *n);
int64_t node_wait(const struct node *n, int64_t local_ns); /* world's time that much local time takes, rounded up */

void keeper_edge_start(struct node *n);
void keeper_edge_crash(struct node *n);
void keeper_edge_stop_service(struct node *n);
void keeper_edge_ring(struct node *n, bool up, uint64_t view);
void keeper_edge_bell(struct node *n);
void keeper_edge_facts(struct node *n);
void keeper_edge_arm(struct node *n, bool on);
void keeper_edge_gate(struct qemu *q);
void keeper_edge_suspended(struct node *n);
void keeper_edge_woken(struct node *n); /* its host has slept */
void keeper_edge_evidence(struct node *n, const struct keeper_evidence *e); /* from its agent */
void keeper_edge_fence(struct node *n, uint32_t id, uint32_t epoch);        /* an operator wants it */

struct table_msg { struct table_msg *next; struct node *node; uint32_t life; struct keeper_msg msg; };
void agent_edge_start(struct node *n);
void agent_edge_crash(struct node *n);
void agent_edge_event(struct node *n, const struct agent_event *ev);
void agent_edge_table(struct node *n, struct table_msg *m);
void agent_edge_no_keeper(struct node *n);
void agent_edge_assign(struct node *n, uint32_t from, uint32_t epoch, unsigned vm, int64_t delay);
void agent_edge_cannot(struct node *n, unsigned vm); /* it is not to be migrated to that node after all */
void agent_edge_take_in(struct node *n, unsigned vm, int64_t delay); /* an operator there adopts a QEMU of it */
bool agent_edge_storage(const struct node *n, unsigned vm); /* would its image's storage answer this node? */
void agent_edge_qemu(struct qemu *q, bool started, enum vm_exit how, uint32_t life);
void agent_edge_went_on(struct qemu *q); /* its guest, told so at the end of a migration */
void agent_edge_migration(struct qemu *q, enum migrate_news news);
struct table_msg *table_msg_new(void);

void machine_boot(struct node *n);
void machine_reset(struct node *n, const char *why, int64_t off_ns); /* loses all that is in memory; boots again after off_ns, SIM_NEVER: when told to */
void machine_keeper_again(struct node *n, int64_t after);
void machine_agent_again(struct node *n, int64_t after);
void machine_stop_keeper(struct node *n); /* `systemctl restart`: the next one comes by itself */
void machine_wake(struct node *n);
void machine_sleep(struct node *n, int64_t ns); /* the host is suspended */
void machine_corosync(struct node *n, bool on, int64_t after);
#define SIM_PART_ALONE 1000 /* partitions of one, of a corosync that has just started */

/* ---- chaos.c ---- */

enum chaos_kind {
	CHAOS_POWER, CHAOS_KEEPER_CRASH, CHAOS_KEEPER_STOP, CHAOS_KEEPER_STALL, CHAOS_KEEPER_RESTART, CHAOS_AGENT_CRASH, CHAOS_AGENT_STOP,
	CHAOS_AGENT_STALL, CHAOS_QEMU_CRASH, CHAOS_GUEST_OFF, CHAOS_VOLUME_HANG, CHAOS_ALL_HANG, CHAOS_PATH_CUT, CHAOS_PATHS_CUT, CHAOS_BAD_WRITES,
	CHAOS_BAD_READS, CHAOS_LOST_ACKS, CHAOS_SLOW, CHAOS_IMAGE_HANG, CHAOS_IMAGE_CUT, CHAOS_RING_SPLIT, CHAOS_RING_ALONE, CHAOS_COROSYNC,
	CHAOS_COROSYNC_ALL, CHAOS_ONE_WAY, CHAOS_ROT, CHAOS_SUSPEND, CHAOS_OPERATOR, CHAOS_ALL_POWER, CHAOS_KEEPER_BRINK,
	CHAOS_READ_ONLY, CHAOS_MISDIRECT, CHAOS_TORN_READS, CHAOS_WIPE, CHAOS_FOREIGN, CHAOS_ROLLBACK, CHAOS_IMAGE_ERRORS, CHAOS_RING_THREE,
	CHAOS_RING_FLAP, CHAOS_RING_LATE, CHAOS_RING_LOSS, CHAOS_KEEPER_STEP, CHAOS_AGENT_STEP, CHAOS_QEMU_STOP, CHAOS_SLEEP, CHAOS_SLOW_BOOT,
	CHAOS_OPERATORS, CHAOS_CLONE, CHAOS_CONFIRM, CHAOS_SICK, CHAOS_VOLSET, CHAOS_MIGRATE, CHAOS_SHUTDOWN, CHAOS_RESERVE, CHAOS_KIND_COUNT,
};
const char *chaos_name(enum chaos_kind f);
void chaos_reset(void);    /* nothing of an earlier world is left */
void chaos_draw(void);     /* what this seed may do */
/* Kinds that every seed plays, and often; for who looks for something in particular. */
extern uint64_t chaos_often;
extern bool chaos_only; /* those and no others */
void chaos_begin(void);
void chaos_heal(void);
/* After healing somebody sees to it that the catalog wants everything as it should be, and tries again. Says whether it does not yet. */
bool chaos_operator(void);
bool chaos_hurts(const struct node *n); /* something is wrong with this node, its paths or the ring at this moment */

void chaos_effect(enum chaos_kind kind);

/* ---- shutdown.c ---- */

void shutdown_reset(void);
/* By its own init: the VMs leave, then the agent ends, then the VMs' units, then the keeper, then the host. */
void shutdown_begin(struct node *n, enum leave_policy policy, bool reboot, int64_t off_ns);
bool shutdown_pending(void); /* a node is on its way down */
void shutdown_agent_starts(struct node *n);
bool shutdown_ends_agents(const struct node *n); /* init starts none again; nor keepers: */
bool shutdown_ends_keepers(const struct node *n);

/* ---- damage.c ---- */

void damage_reset(void);
/* Of a node one block at a time may be damaged, until it is written again: no quorum is meant to stand more. An epoch that one buffer only
 * knows is left alone: nothing runs under it yet (keeper.published), and it may be begun once more. */
bool damage_possible(uint32_t id, enum block_kind kind);
void damage_rot(unsigned volume, uint32_t id);
void damage_misdirect(struct op *op);
void damage_torn_read(struct op *read);
void damage_foreign_write(const struct op *op);
bool damage_show(unsigned volume, enum format_status shows);
bool damage_image(unsigned volume);     /* remembers what it holds; false: not now */
void damage_roll_back(unsigned volume); /* to that */
bool damage_repaired(void);             /* operator: no keeper has given up a volume that is right again; restarts those that have */
void damage_heal(void);

/* ---- power.c ---- */

void power_reset(void); /* what devices this seed's cluster has */
void power_none(void);  /* none, and no brake */
void power_table(struct node *n, const struct keeper_msg *m); /* its agent has got a table */
void power_forget(struct node *n);
void power_heal(void);
bool power_pending(void); /* a device will yet switch somebody off */
void power_chaos(void);

/* ---- reserve.c ---- */

void reserve_reset(void);
void reserve_draw(void);
void reserve_op(struct node *n, unsigned vm, enum reservation_op op, uint64_t number);
void reserve_agent_starts(struct node *n);
bool reserve_refuses(const struct op *op); /* a write of a guest is not let through */
void reserve_runs(struct qemu *q);      /* it is executed */
void reserve_continued(struct qemu *q); /* its guest, sent here, goes on */
void reserve_gone(const struct qemu *q);
void reserve_host_gone(struct node *n);
void reserve_fault(struct node *n, int64_t ns);
void reserve_heal(void);
const char *reserve_unnoticed(void);
void reserve_check_calm(void);

/* ---- volset.c ---- */

void volset_reset(void);
void volset_blank(struct volume_data *d); /* blocks.c: a device nobody has written to */
void volset_replace(struct node *n, unsigned v); /* an operator on that node begins to replace that volume */
bool volset_busy(void);
void volset_dump(void);   /* into the history, what is not as it should be */
bool volset_frozen(void); /* a change is half done */
bool volset_heal(void);   /* says whether somebody is still at it */
void volset_chaos(void);

/* ---- places.c ---- */

void places_reset(void);
void places_draw(void);
bool places_drawn(void); /* this seed's VMs have an order and its nodes limits */
void places_options(struct agent_options *opt);
struct agent_event places_capacity(uint32_t id);
void places_claims(const struct op *op);                          /* a block of claims has landed */
void places_lost(const struct node *n, unsigned vm); /* with its lease */
void places_over(uint32_t id, uint32_t epoch); /* for the first time */
void places_runs(const struct qemu *q); /* it is executed, or its guest goes on here */
void places_gone(unsigned vm);
void places_assigned(const struct node *n, unsigned vm, uint32_t id); /* its leader has it started there, */
void places_heard(const struct node *n, unsigned vm, uint32_t by); /* has news from it whether the VM is ready */
void places_prepared(const struct node *n, unsigned vm, uint32_t id); /* or sent there */
void places_starts(const struct node *n, unsigned vm);
bool places_has_place(unsigned vm, uint64_t nodes);
bool places_may_lack(unsigned vm, uint64_t nodes);
void places_has_run(unsigned vm); /* had it no place before, that is over */

/* ---- lively.c ---- */

void lively_begin(void); /* in a cluster that is well: one lone fault. Others may follow after lively_ns() */
int64_t lively_ns(void);
/* Where VMs wait for others, and a node starts two at a time: as many waits as a VM can have before it, and the starts. */
int64_t sim_order_ms(void);
void lively_reset(void);

/* ---- check.c ---- */

void violation(const char *invariant, const char *fmt, ...) _printf_(2, 3);
void check_reset(void);
void check_dump(void); /* into the history */
void check_write_issued(const struct op *op);
void check_landed(const struct op *op);
void check_swallowed(const struct op *op); /* it will be acknowledged, and is not there */
void check_rolled_back(unsigned volume);
void check_lost(uint32_t node); /* storage has lost a heartbeat block of its, or gone back to older ones */
void check_new_device(unsigned volume); /* its content came by other ways than writes that landed */
void check_granted(const struct node *n, unsigned vm, uint64_t generation);
void check_managed(const struct node *n, unsigned vm, uint64_t generation); /* adopted */
void check_started(const struct node *n, unsigned vm, uint64_t generation);
void check_image_landed(const struct op *op);
void check_exec(const struct qemu *q);
void check_ended(const struct node *n, unsigned vm, enum vm_trouble why); /* it is killed for its health */
void check_continued(const struct qemu *q); /* a loaded guest is */
void check_resumed(const struct qemu *q);   /* one that was sent goes on where it was */
void check_pet(struct node *n);
void check_keeper(struct node *n);
void check_over(struct node *by, uint32_t id, uint32_t epoch);
void check_grant(const struct node *n, const struct hold_msg *m); /* it is given; the message may leave much later */
void check_commit(struct node *by, uint32_t id, uint32_t why);
void check_watchdog_reset(struct node *n);
void check_watchdog(const struct node *n, bool start);
void check_release(const struct node *n, uint32_t by, uint32_t why);
void check_intent(const struct node *by, uint32_t id, uint32_t why);
void check_power(const struct node *by, uint32_t id, const struct power_job *j, int64_t asked_ns); /* it tells a device to switch the node off */
void check_state(const struct node *n, uint32_t state); /* its lease has moved to */
void check_proof(const struct node *by, uint32_t id);   /* what by knows of the node's newest epoch is evidence enough */
void check_gate(const struct qemu *q); /* it is let through */
void check_read(const struct node *n, const struct op *op, uint64_t counted); /* counted: nodes for which the read counts */
uint32_t check_edit(uint32_t base);         /* a number for what an edit makes of that version of the catalog */
void check_edit_counts(uint32_t version);   /* the operator is told that it counts: every one told of before is in it */
void check_running(unsigned vm);        /* a VM has come to run: failover times */
void check_gone(const struct qemu *q, bool by_node);
/* Every VM runs once and on one of these nodes, they have their lease, and the agents of `managed` work; the others have no lease. */
const char *check_lively_on(uint64_t nodes, uint64_t managed, bool arrived);
const char *check_lively(void);  /* NULL: every VM runs once, or is just on its way, and every node is armed; else what is missing */
const char *check_arrived(void); /* the same, with none on its way */

#define SIM_HISTOGRAM 4096
#define SIM_HISTOGRAM_MS 100

struct stats {
	uint64_t faults[CHAOS_KIND_COUNT], effects[CHAOS_KIND_COUNT]; /* played; did something to somebody */
	uint64_t events, failovers, resets, releases, false_fences, commits, violations, power_offs, proofs[3];
	uint64_t seeds, guest_writes, late_same, episodes, holds, outages, silences, voids, migrations, ordered, placed, reserved, refused;
	int64_t virtual_ns;
	uint32_t failover_ms[SIM_HISTOGRAM]; /* how many took that long, in steps of SIM_HISTOGRAM_MS */
	int64_t heal_max_ms;
};

struct sim {
	int64_t now;
	uint64_t seed;
	uint64_t rng;
	bool trace, failed;
	bool paranoid; /* what is left out because it would change nothing is done, and must change nothing */
	char failed_invariant[16], failed_text[160];
	int64_t failed_ns;

	unsigned n_nodes, n_volumes, n_vms, n_targets;
	struct timing timing;
	struct superblock sb[FORMAT_MAX_VOLUMES];
	struct node node[SIM_MAX_NODES];
	struct target target[SIM_MAX_TARGETS];
	struct sim_vm vm[SIM_MAX_VMS];
	struct cat cat_on_disk[SIM_MAX_NODES];
	struct edit edit[64];
	unsigned n_edits;
	int64_t edit_ns; /* when the last one reached the disk */
	uint64_t instances;
	int64_t guest_write_ns;
	uint32_t over[SIM_MAX_NODES]; /* highest epoch anybody has declared over */
	bool keep_on_ring_loss;
	uint32_t brake_percent;
	uint32_t close_pets; /* bit (id - 1): a node whose watchdog is petted by the last close of its descriptor */
	uint32_t unproven; /* bit (id - 1): a node without a watchdog, whose silence proves nothing */
	bool confirms; /* operators confirm that nodes are off, and have nodes fenced */
	bool no_message_lost; /* between agents, and between keepers */
	const struct sim_quantiles *edges; /* EDGE_COUNT of them: nothing is slow by chance; NULL under chaos */
	bool outage;       /* the storage is gone for everybody, or has just come back, and nothing else is wrong */
	bool health;          /* guests are looked after, and VMs have policies and an order */
	bool chaos;
	int liar;          /* volume that may lose what it has acknowledged, -1: none does */
	uint64_t n_faults; /* of this seed so far */
	uint8_t fault_kind[SIM_MAX_FAULTS], left_out[SIM_MAX_FAULTS / 8];
	uint64_t period;   /* of chaos */
	bool reserve;           /* VMs' LUNs are reserved; */
	bool reserve_mixed;     /* by some nodes, at times */
	bool no_reservation;    /* in no seed */
	bool no_placement;      /* places.c gives no VM an order, groups, nodes or limits, and checks none */
	uint64_t without, only; /* bit: enum chaos_kind that may not occur; that alone occur and always do, 0: as drawn */
	struct stats stats;
};

extern struct sim sim;

static inline struct node *sim_node(uint32_t id) { return &sim.node[id - 1]; }
int sim_vm_index(const uint8_t uuid[16]);

/* ---- play.c ---- */

struct sim_options {
	double hours;
	unsigned nodes, volumes; /* 0: drawn by the seed */
	unsigned vms;            /* the same */
	int profile;             /* enum timing_profile; -1: drawn */
};
void sim_begin(const struct sim_options *o, uint64_t seed);    /* a world whose nodes boot */
void sim_run_until(int64_t at);                                /* or until something is violated */
uint64_t sim_play(const struct sim_options *o, uint64_t seed); /* the hash of its history; sim.failed says how it ended */
bool sim_plays(uint64_t fault, unsigned kind);                 /* false: left out of this run */

/* ---- clone.c ---- */

void clone_reset(void);
void clone_start(uint32_t id, int64_t ns); /* for so long */
bool clone_of(uint32_t id); /* it has one, or had in this seed: its slot has two writers, who go by what they read */
bool clone_heal(void); /* until it says that nothing of it is left */

/* ---- lasting.c ---- */

void lasting_check(void); /* in a cluster that is well; chaos_heal mends what it breaks */

/* ---- failover.c ---- */

enum failover_phase { FAILOVER_SILENT, FAILOVER_FENCED, FAILOVER_OVER /* of a node */, FAILOVER_CLAIMED, FAILOVER_EXEC, FAILOVER_WRITES /* of a VM */,
	FAILOVER_COUNT };
void failover_at(enum failover_phase phase, uint32_t id); /* somebody has reached it; id: node, or index of the VM */
/* Plays that many power cuts with o->profile and prints how long each phase took. sim.failed: a violation, too slow among them. */
void failover_play(const struct sim_options *o, unsigned cuts, uint64_t seed, bool json);

/* ---- shrink.c ---- */

bool shrink_only(const char *list);                            /* plays no faults but these; false: no such list */
int shrink(const struct sim_options *o, uint64_t seed);        /* exit status */
