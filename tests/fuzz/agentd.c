/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/fuzz/agentd.h"

#include <errno.h>
#include <getopt.h>
#include <sys/socket.h>

#include "agent/base/uuid.h"
#include "tests/fuzz/edges.h"
#include "tests/fuzz/fuzz.h"

#define OWN_EPOCH 5U
#define PEER_EPOCH 7U
#define END_MS 60000 /* above every patience in the agent */

int agent_main(int argc, char **argv);

static const char conf_text[] = "[Cluster]\nName=fuzz\nNodes=n1:1 n2:2 n3:3\nVolumes=/dev/fuzz\nProfile=fast\n[Node]\nName=n1\n"
				"[Ring]\nRequireEncryption=no\n";
static const char catalog_text[] =
	"{\"armed\":true,\"maintenance\":0,\"vms\":["
	"{\"desired\":\"started\",\"file\":\"[VM]\\nName=web\\nUUID=00000000-0000-4000-8000-00000000000a\\nMemory=64M\\nVCPUs=1\\n"
	"Disk=/dev/web\\n[QEMU]\\nBinary=/usr/bin/qemu\\nArguments=-drive file=/dev/web\\n\"},"
	"{\"desired\":\"stopped\",\"file\":\"[VM]\\nName=db\\nUUID=00000000-0000-4000-8000-00000000000b\\nMemory=64M\\nVCPUs=1\\n"
	"[QEMU]\\nBinary=/usr/bin/qemu\\n[HA]\\nPriority=7\\nPreferredNodes=n2 n9\\n\"}]}";
static const uint8_t web_uuid[16] = { 0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x0a };

static struct agentd *agentd;
static struct catalog_doc *base_catalog;
static int keeper_fd = -1;
static struct claims peer_claims;

/* What differs from input to input; the rest of the 64 nodes' claims is never touched. */
static struct snapshot {
	struct agentd d;
	int64_t at_ns;
	bool reading;
	uint8_t own[2 * FORMAT_CLAIMS_LEN]; /* claims of this node, the first on the volume */
} *snapshot[FUZZ_AGENT_STATES];
static uint64_t spoke; /* bit (id - 1) */
static size_t quiet_timers; /* how many there are when nothing waits */

/* Storage. */

struct store {
	struct agentd *d;
	uint8_t claims[FUZZ_NODES * 2 * FORMAT_CLAIMS_LEN];
	bool reading;
	struct catalog_doc *writing;
	store_done_fn done;
	void *user;
};

static struct store store;

int store_new(struct agentd *d, struct store **ret)
{
	*ret = &store;
	store.d = d;
	return 0;
}

void store_volume(struct store *s, unsigned volume, bool good)
{
	struct agent_event ev = { .kind = AGENT_EV_VOLUME, .volume = volume, .ok = good };

	agentd_event(s->d, &ev);
}

void store_write_claims(struct store *s, unsigned volume, unsigned buffer, const struct claims *c)
{
	struct agent_event ev = { .kind = AGENT_EV_WRITE_DONE, .volume = volume, .ok = true, .definite = true };

	claims_encode(c, fuzz_cluster, buffer, s->claims + ((size_t)(c->node - 1) * 2 + buffer) * FORMAT_CLAIMS_LEN);
	agentd_event(s->d, &ev);
	ev.kind = AGENT_EV_WRITE_SETTLED;
	agentd_event(s->d, &ev);
}

void store_read_claims(struct store *s, unsigned volume) { s->reading = true; }

static void store_turn(void)
{
	struct agent_event ev = { .kind = AGENT_EV_READ_DONE, .ok = true, .definite = true, .data = store.claims };

	if (!store.reading)
		return;
	store.reading = false;
	agentd_event(store.d, &ev);
	ev = (struct agent_event){ .kind = AGENT_EV_READ_SETTLED, .ok = true };
	agentd_event(store.d, &ev);
}

void store_table(struct store *s) {}
void store_lead(struct store *s, bool on) {}
void store_lead_checked(struct store *s, bool on) {}
bool store_may_edit(const struct store *s) { return s->d->core.leads && !s->writing; }

int store_write_catalog(struct store *s, struct catalog_doc *doc, store_done_fn done, void *user)
{
	size_t len = 0;
	char *text = catalog_render(doc, &len);

	FUZZ_CHECK(text && store_may_edit(s));
	free(text);
	if (len > FORMAT_CATALOG_MAX_PAYLOAD) {
		catalog_free(doc);
		return -EFBIG;
	}
	doc->generation = s->d->core.lead_generation;
	doc->seq = s->d->catalog->seq + 1;
	s->writing = doc;
	s->done = done;
	s->user = user;
	return 0;
}

bool fuzz_agent_written(bool ok)
{
	struct catalog_doc *doc = store.writing;
	store_done_fn done = store.done;
	void *user = store.user; /* using the new catalog may start the next edit */

	if (!doc)
		return false;
	store.writing = NULL;
	if (ok) {
		if (store.d->catalog != base_catalog)
			catalog_free(store.d->catalog);
		store.d->catalog = doc;
		agentd_catalog_changed(store.d);
	} else {
		catalog_free(doc);
	}
	done(user, ok ? NULL : "no quorum of the volumes", true);
	return true;
}

/* VMs: every step succeeds. */

static void answer(struct agentd *d, enum agent_event_kind kind, const uint8_t uuid[16], enum vm_exit exit_kind)
{
	struct agent_event ev = { .kind = kind, .exit = exit_kind };

	memcpy(ev.uuid, uuid, 16);
	agentd_event(d, &ev);
}

int runner_new(struct agentd *d, struct runner **ret)
{
	*ret = (struct runner *)d;
	return 0;
}

void runner_start(struct runner *r, const struct vm *v) { answer((struct agentd *)r, AGENT_EV_STARTED, v->def.uuid, VM_EXIT_CRASH); }
void runner_adopt(struct runner *r, const struct vm *v) { answer((struct agentd *)r, AGENT_EV_STARTED, v->def.uuid, VM_EXIT_CRASH); }
void runner_take_in(struct runner *r, const struct vm *v) {}
void runner_incoming(struct runner *r, const struct vm *v) { answer((struct agentd *)r, AGENT_EV_EXIT, v->def.uuid, VM_EXIT_CRASH); }
void runner_continued(struct runner *r, const uint8_t uuid[16]) {}
void runner_inactive(struct runner *r, const uint8_t uuid[16], bool inactive) {}
struct qmp_conn *runner_qmp(struct runner *r, const uint8_t uuid[16]) { return NULL; }
void runner_powerdown(struct runner *r, const struct vm *v) { answer((struct agentd *)r, AGENT_EV_EXIT, v->def.uuid, VM_EXIT_GUEST_OFF); }
void runner_quit(struct runner *r, const struct vm *v) { answer((struct agentd *)r, AGENT_EV_EXIT, v->def.uuid, VM_EXIT_QUIT); }
void runner_kill(struct runner *r, const uint8_t uuid[16]) { answer((struct agentd *)r, AGENT_EV_EXIT, uuid, VM_EXIT_KILLED); }
void runner_reset(struct runner *r, const struct vm *v) {}
void runner_cont(struct runner *r, const struct vm *v) {}
const char *runner_detail(struct runner *r, const uint8_t uuid[16]) { return "running"; }

int drainer_new(struct agentd *d, struct drainer **ret)
{
	*ret = (struct drainer *)d;
	return 0;
}

void drainer_start(struct drainer *dr, const struct vm *v, bool full) { answer((struct agentd *)dr, AGENT_EV_DRAINED, v->def.uuid, VM_EXIT_CRASH); }

bool drainer_ask(struct drainer *dr, const uint8_t uuid[16], drainer_answer_fn fn, void *user)
{
	fn(user, uuid, true);
	return true;
}

const char *drainer_reason(struct drainer *dr, const uint8_t uuid[16]) { return ""; }

int reserver_new(struct agentd *d, struct reserver **ret)
{
	*ret = (struct reserver *)d;
	return 0;
}

/* None can be had, and none is in the way. */
void reserver_ask(struct reserver *r, const struct vm *v, enum reservation_op op, uint64_t number)
{
	struct agent_event ev = { .kind = AGENT_EV_RESERVED, .reserve = op, .number = number,
				  .reserved = op == RESERVATION_LEAVE ? RESERVATION_OK : RESERVATION_NONE };

	memcpy(ev.uuid, v->def.uuid, 16);
	if (op != RESERVATION_FORGET)
		agentd_event((struct agentd *)r, &ev);
}

const char *reserver_text(struct reserver *r, const uint8_t uuid[16]) { return ""; }

int units_new(qb_loop_t *loop, struct units **ret)
{
	*ret = (struct units *)&store;
	return 0;
}

int units_list(struct units *u, units_list_fn done, void *user)
{
	agentd = user;
	done(user, NULL, NULL, 0);
	return 0;
}

int units_start_scope(struct units *u, const char *uuid, const char *description, pid_t pid, units_done_fn done, void *user) { return -ENOTCONN; }
int units_kill_scope(struct units *u, const char *uuid, int signal, units_done_fn done, void *user) { return -ENOTCONN; }
int units_query_scope(struct units *u, const char *uuid, units_done_fn done, void *user) { return -ENOTCONN; }

int units_fate(struct units *u, units_fate_fn done, void *user)
{
	done(user, NULL, UNITS_STAYS_UP);
	return 0;
}

int hooks_new(const struct conf *conf, struct hooks **ret)
{
	*ret = (struct hooks *)&store;
	return 0;
}

void hooks_run(struct hooks *h, const struct hook_facts *facts)
{
	FUZZ_CHECK(facts->event < HOOK_EVENT_COUNT && (!facts->reason || strlen(facts->reason) < 4096));
}

void hooks_free(struct hooks *h) {}

/* The keeper. */

static void on_connected(int peer, int type)
{
	FUZZ_CHECK(type == SOCK_SEQPACKET);
	if (keeper_fd >= 0)
		(void)close(keeper_fd);
	keeper_fd = peer;
}

void fuzz_agent_keeper_bytes(const void *bytes, size_t n)
{
	char waste[sizeof(struct keeper_msg)];

	/* Lost: it comes again. */
	for (int i = 0; i < 100 && !keeper_link_up(agentd->keeper); i++)
		fuzz_loop_run(10 * NS_PER_MS);
	FUZZ_CHECK(keeper_link_up(agentd->keeper));
	while (recv(keeper_fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
	(void)send(keeper_fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)fuzz_loop_turn();
}

void fuzz_agent_table(const struct keeper_msg *m) { fuzz_agent_keeper_bytes(m, sizeof(*m)); }

struct keeper_msg fuzz_agent_table_now(void)
{
	static uint64_t counter;
	struct keeper_msg m;

	memset(&m, 0, sizeof(m));
	m.version = KEEPER_PROTO_VERSION;
	m.kind = KEEPER_MSG_TABLE;
	m.table.self = 1;
	m.table.epoch = OWN_EPOCH;
	m.table.state = LEASE_ARMED;
	m.table.gate_open = m.table.want_armed = m.table.observed = m.table.wd_running = 1;
	m.table.ring = HEARTBEAT_RING_OK;
	m.table.view = 3;
	m.table.n_volumes = 1;
	m.table.node_limit = FUZZ_NODES;
	m.table.volume[0].ready = m.table.volume[0].good = 1;
	counter++;
	for (uint32_t id = 1; id <= 2; id++)
		m.table.node[id - 1] = (struct keeper_table_node){ .epoch = id == 1 ? OWN_EPOCH : PEER_EPOCH, .known = 1, .fresh = 1,
								    .state = HEARTBEAT_ARMED, .ring = HEARTBEAT_RING_OK, .in_view = 1,
								    .agent_counter = counter, .claims_seq = id == 2 ? peer_claims.seq : 0 };
	return m;
}

static void peer_writes_claims(bool leads)
{
	peer_claims = (struct claims){ .node = 2, .epoch = PEER_EPOCH, .seq = peer_claims.seq + 1, .n = 1U + leads };
	peer_claims.claim[0] = (struct claim){ .generation = 3, .epoch = PEER_EPOCH, .state = CLAIM_ACTIVE };
	memcpy(peer_claims.claim[0].vm, web_uuid, 16);
	peer_claims.claim[1] = (struct claim){ .generation = 9, .epoch = PEER_EPOCH, .state = CLAIM_ACTIVE };
	memcpy(peer_claims.claim[1].vm, agent_leader_uuid, 16);
	for (unsigned b = 0; b < 2; b++)
		claims_encode(&peer_claims, fuzz_cluster, b, store.claims + (2 + b) * FORMAT_CLAIMS_LEN);
}

static void settle(unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		struct keeper_msg m = fuzz_agent_table_now();

		fuzz_agent_table(&m);
		fuzz_loop_run(250 * NS_PER_MS);
	}
}

static void save(enum fuzz_agent_state state)
{
	snapshot[state] = malloc(sizeof(**snapshot));
	FUZZ_CHECK(snapshot[state]);
	snapshot[state]->d = *agentd;
	snapshot[state]->at_ns = fuzz_now_ns();
	snapshot[state]->reading = store.reading;
	memcpy(snapshot[state]->own, store.claims, sizeof(snapshot[state]->own));
}

void fuzz_agent_init(void)
{
	char *argv[] = { "ha-agent", "--config", NULL, NULL };
	char err[256];

	fuzz_world(FUZZ_AGENT);
	optind = 0; /* getopt begins anew */
	argv[2] = (char *)fuzz_conf_dir(conf_text);
	fuzz_connected = on_connected;
	fuzz_loop_idle(store_turn);
	for (uint32_t node = 1; node <= FUZZ_NODES; node++)
		for (unsigned b = 0; b < 2; b++) {
			static struct claims none;

			none = (struct claims){ .node = node };
			claims_encode(&none, fuzz_cluster, b, store.claims + ((size_t)(node - 1) * 2 + b) * FORMAT_CLAIMS_LEN);
		}
	FUZZ_CHECK(agent_main(3, argv) == 0 && agentd);
	FUZZ_CHECK(catalog_parse(catalog_text, strlen(catalog_text), &base_catalog, err, sizeof(err)) == 0);
	base_catalog->generation = 9;
	base_catalog->seq = 1;
	agentd->catalog = base_catalog;
	agentd_catalog_changed(agentd);
	store_volume(&store, 0, true);
	fuzz_loop_run(1000 * NS_PER_MS);
	save(FUZZ_AGENT_ALONE);
	fuzz_ring_view("kvm-ha-agent", true, 3, true);
	peer_writes_claims(true);
	settle(20);
	FUZZ_CHECK(agent_leader(&agentd->core) == 2 && agent_owner(&agentd->core, web_uuid) == 2);
	save(FUZZ_AGENT_FOLLOWS);
	peer_writes_claims(false);
	settle(80);
	FUZZ_CHECK(agentd->core.leads && agent_leader(&agentd->core) == 1 && agent_owner(&agentd->core, web_uuid) == 2);
	save(FUZZ_AGENT_LEADS);
	quiet_timers = fuzz_loop_timers();
	/* From there on it lives. */
	(void)fuzz_agent_begin(FUZZ_AGENT_FOLLOWS);
	settle(20);
	FUZZ_CHECK(agent_leader(&agentd->core) == 2);
	(void)fuzz_agent_begin(FUZZ_AGENT_LEADS);
	settle(20);
	FUZZ_CHECK(agentd->core.leads);
	fuzz_agent_end();
}

/* All of it but the claims of nodes that are not in the configuration, and actions that are over: megabytes that nobody writes to. */
static void restore(const struct agentd *from)
{
	const char *src = (const char *)from;
	char *dst = (char *)agentd;
	const struct { size_t begin, end; } skip[] = {
#define FIELD(f) offsetof(struct agentd, f)
		{ FIELD(core.claimer.seen[3]), FIELD(core.claimer.seen_any) },
		{ FIELD(core.claimer.fresh[3]), FIELD(core.claimer.fresh_any) },
		{ FIELD(core.action), FIELD(core.action) + sizeof(from->core.action) },
	};
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_SIZE(skip); i++) {
		FUZZ_CHECK(at <= skip[i].begin && skip[i].begin <= skip[i].end);
		memcpy(dst + at, src + at, skip[i].begin - at);
		at = skip[i].end;
	}
	memcpy(dst + at, src + at, sizeof(*from) - at);
}

struct agentd *fuzz_agent_begin(enum fuzz_agent_state state)
{
	const struct agentd *from = &snapshot[state]->d;

	struct agent_event ev = { .kind = AGENT_EV_TIMER };

	fuzz_world(FUZZ_AGENT);
	if (agentd->catalog != base_catalog)
		catalog_free(agentd->catalog);
	if (agentd->timer)
		(void)qb_loop_timer_del(agentd->loop, agentd->timer);
	restore(from);
	agentd->timer = 0;
	fuzz_clock_set(snapshot[state]->at_ns);
	store.reading = snapshot[state]->reading;
	memcpy(store.claims, snapshot[state]->own, sizeof(snapshot[state]->own));
	peer_writes_claims(state == FUZZ_AGENT_FOLLOWS);
	agentd_event(agentd, &ev);
	if (state != FUZZ_AGENT_ALONE)
		settle(1);
	return agentd;
}

void fuzz_agent_hears(uint32_t node, const void *data, size_t len)
{
	if (node >= 1 && node <= FORMAT_MAX_NODES)
		spoke |= 1ULL << (node - 1);
	fuzz_ring_say("kvm-ha-agent", node, data, len);
}

void fuzz_agent_end(void)
{
	static const char no_vms[] = "{\"type\":\"status\",\"vms\":{}}";

	fuzz_world(FUZZ_AGENT);
	(void)fuzz_agent_written(true);
	for (int i = 0; i < END_MS / 500 && (fuzz_loop_timers() > quiet_timers || store.writing); i++) {
		fuzz_loop_run(500 * NS_PER_MS);
		(void)fuzz_agent_written(true);
	}
	FUZZ_CHECK(fuzz_loop_timers() <= quiet_timers);
	/* What peers said of their VMs is kept for ever, one word each: the same for every input. */
	for (uint32_t id = 1; id <= FORMAT_MAX_NODES; id++)
		if (spoke >> (id - 1) & 1)
			fuzz_ring_say("kvm-ha-agent", id, no_vms, sizeof(no_vms) - 1);
	spoke = 0;
}
