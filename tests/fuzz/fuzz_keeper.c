/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper's local socket, both ends, and what it reads off the volumes. A sequence of records: a byte that says what, then what it needs.
 *   0  a client sends a message: kind, body          1  a client sends bytes: length, bytes
 *   2  a client goes, another comes                  3  time passes: a byte of 10 ms
 *   4  the ring's view: up, bits                     5  a doorbell
 *   6  a heartbeat block of another node on some volumes: mask, node, then what of it is changed; valid checksum
 *   7  bytes somewhere in the table of one volume    8  how volume operations end
 *   9  the keeper's table as the agent hears it, with bytes of it changed; then a status is asked for
 *  10  a text for the agent                          11 bytes to the agent from its keeper
 *  12  a keeper asks for a hold, or grants: from, to, kind, how far from our own round; then what of its bytes is changed
 */
#include <sys/socket.h>

#include "storage/crc32c.h"
#include "tests/fuzz/agentd.h"
#include "tests/fuzz/edges.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keeperd.h"

#define MAX_STEPS 24
#define CLIENTS 4

static int client[CLIENTS];
static struct agentd *agent;
static bool told;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_quiet();
	fuzz_agent_init();
	fuzz_keeper_init();
	return 0;
}

static void dial(unsigned i)
{
	if (client[i] > 0)
		(void)close(client[i]);
	(void)fuzz_loop_turn();
	client[i] = fuzz_dial(SOCK_SEQPACKET);
	(void)fuzz_loop_turn();
}

static void client_sends(unsigned i, const void *bytes, size_t n)
{
	struct keeper_msg waste;

	if (client[i] <= 0)
		dial(i);
	if (send(client[i], bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		dial(i); /* it was disconnected for what it said before */
	(void)fuzz_loop_turn();
	while (recv(client[i], &waste, sizeof(waste), MSG_DONTWAIT) == sizeof(waste))
		FUZZ_CHECK(waste.version == KEEPER_PROTO_VERSION && waste.kind >= KEEPER_MSG_GATE && waste.kind <= KEEPER_MSG_TEXT);
}

static void message(struct fuzz_input *in)
{
	static struct keeper_msg m;
	unsigned from = (unsigned)fuzz_take(in, 1);

	memset(&m, 0, sizeof(m));
	m.version = KEEPER_PROTO_VERSION;
	m.kind = (uint32_t)fuzz_take(in, 1) % 9;
	(void)fuzz_take_bytes(in, &m.facts, 32);
	client_sends(from % CLIENTS, &m, sizeof(m));
}

/* Pairs of offset and byte; how many comes first. */
static void change(struct fuzz_input *in, void *bytes, size_t size)
{
	for (unsigned n = (unsigned)fuzz_take(in, 1) % 32; n > 0 && in->left > 0; n--) {
		size_t at = fuzz_take(in, 2) % size;

		((uint8_t *)bytes)[at] = (uint8_t)fuzz_take(in, 1);
	}
}

static void block(struct fuzz_input *in, const struct daemon *k)
{
	unsigned mask = (unsigned)fuzz_take(in, 1), buffer = mask >> 7;
	uint32_t node = (uint32_t)fuzz_take(in, 1) % FUZZ_NODES + 1;
	struct heartbeat hb = k->core.node[node - 1].hb;
	uint8_t bytes[FORMAT_BLOCK];

	if (node == k->conf.self_id)
		hb = k->core.mine;
	hb.node = node;
	hb.epoch = MIN(MAX(hb.epoch, 1U) + ((mask & 0x40) != 0), FORMAT_MAX_EPOCH);
	hb.seq += fuzz_take(in, 1);
	hb.state = (enum heartbeat_state)(fuzz_take(in, 1) % HEARTBEAT_STATE_END);
	hb.ring = (enum heartbeat_ring)(fuzz_take(in, 1) % HEARTBEAT_RING_END);
	hb.view = fuzz_take(in, 1);
	hb.settled = MIN(hb.settled, hb.epoch);
	for (unsigned n = (unsigned)fuzz_take(in, 1) % 8; n > 0; n--) {
		uint32_t *const lists[] = { hb.alive, hb.intent, hb.commit, hb.over };
		uint32_t *list = lists[fuzz_take(in, 1) % 4], at = (uint32_t)fuzz_take(in, 1) % FORMAT_MAX_NODES;

		list[at] = (uint32_t)fuzz_take(in, 4) % (FORMAT_MAX_EPOCH + 1U);
	}
	heartbeat_encode(&hb, fuzz_cluster, buffer, bytes);
	/* The rest of it as it comes: numbers that nobody would write, with a checksum that says they were. */
	if (mask & 0x20) {
		uint32_t crc;

		change(in, bytes + FORMAT_HEADER_LEN - 16, 160);
		memset(bytes + 12, 0, 4);
		crc = crc32c(0, bytes, FORMAT_BLOCK);
		for (unsigned i = 0; i < 4; i++)
			bytes[12 + i] = (uint8_t)(crc >> (8 * i));
	}
	for (unsigned v = 0; v < FUZZ_VOLUMES; v++)
		if (mask >> v & 1)
			memcpy((uint8_t *)fuzz_volume(v) + format_heartbeat_offset(node, buffer), bytes, FORMAT_BLOCK);
}

static void raw(struct fuzz_input *in)
{
	uint8_t *table = fuzz_volume((unsigned)fuzz_take(in, 1) % FUZZ_VOLUMES), bytes[64];
	size_t at = fuzz_take(in, 3) % (format_table_len(FUZZ_NODES) - sizeof(bytes)), n = fuzz_take(in, 1) % sizeof(bytes);

	n = fuzz_take_bytes(in, bytes, n);
	memcpy(table + at, bytes, n);
}

static void on_answer(void *user, json_object *answer)
{
	FUZZ_CHECK(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
	told = true;
}

static void ask(const char *command)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "command", json_object_new_string(command));
	told = false;
	server_request(agent->server, o, false, on_answer, NULL);
	FUZZ_CHECK(told);
	json_object_put(o);
}

static void agent_hears(struct fuzz_input *in, unsigned what)
{
	static struct keeper_msg m;
	uint8_t bytes[256];

	fuzz_world(FUZZ_AGENT);
	if (!agent)
		agent = fuzz_agent_begin(FUZZ_AGENT_LEADS);
	m = fuzz_agent_table_now();
	if (what == 11) {
		fuzz_agent_keeper_bytes(bytes, fuzz_take_bytes(in, bytes, fuzz_take(in, 1)));
		return;
	}
	if (what == 10) {
		m.kind = KEEPER_MSG_TEXT;
		m.text.level = (uint32_t)fuzz_take(in, 1);
		(void)fuzz_take_bytes(in, m.text.text, fuzz_take(in, 1) % (sizeof(m.text.text) + 1));
		fuzz_agent_table(&m);
		ask("events");
		return;
	}
	change(in, &m, sizeof(m));
	fuzz_agent_table(&m);
	ask("status");
	fuzz_loop_run((int64_t)(fuzz_take(in, 1) % 16) * 50 * NS_PER_MS);
}

static void hold(struct fuzz_input *in, struct daemon *k)
{
	struct hold_msg m = { .from = (uint32_t)fuzz_take(in, 1), .to = (uint32_t)fuzz_take(in, 1), .kind = (enum hold_kind)fuzz_take(in, 1), .epoch = k->core.epoch };
	uint8_t wire[HOLD_MSG_LEN];

	m.seq = k->core.seq + fuzz_take(in, 1) - 1;
	hold_encode(&m, k->core.opt.cluster, wire);
	change(in, wire, sizeof(wire));
	fuzz_ring_say("kvm-ha-keeper", m.from, wire, sizeof(wire) - fuzz_take(in, 1) % 3);
}

static void step(struct fuzz_input *in, struct daemon *k)
{
	uint8_t bytes[256];
	unsigned what = (unsigned)fuzz_take(in, 1) % 13, n;

	fuzz_world(FUZZ_KEEPER);
	switch (what) {
	case 0:
		message(in);
		break;
	case 1:
		n = (unsigned)fuzz_take(in, 1);
		client_sends(n % CLIENTS, bytes, fuzz_take_bytes(in, bytes, n));
		break;
	case 2:
		dial((unsigned)fuzz_take(in, 1) % CLIENTS);
		break;
	case 3:
		fuzz_loop_run((int64_t)fuzz_take(in, 1) * 10 * NS_PER_MS);
		break;
	case 4:
		n = (unsigned)fuzz_take(in, 1);
		fuzz_ring_view("kvm-ha-keeper", n & 1, fuzz_take(in, 1), n & 2);
		break;
	case 5:
		fuzz_ring_say("kvm-ha-keeper", (uint32_t)fuzz_take(in, 1), "bell", 4);
		break;
	case 6:
		block(in, k);
		break;
	case 7:
		raw(in);
		break;
	case 8:
		fuzz_volume_result = (enum volume_result)(fuzz_take(in, 1) % (VOLUME_E_SESSION + 1));
		break;
	case 12:
		hold(in, k);
		break;
	default:
		agent_hears(in, what);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct daemon *k;
	uint64_t pets, renewals, held;

	if (size == 0)
		return 0;
	agent = NULL;
	k = fuzz_keeper_begin(fuzz_take(&in, 1) & 1);
	pets = k->core.pets;
	renewals = k->core.renewals;
	held = k->core.hold.rounds;
	for (int i = 0; i < MAX_STEPS && in.left > 0; i++) {
		step(&in, k);
		/* S4, and S6 as far as one can see it here. */
		FUZZ_CHECK(k->core.pets - pets <= k->core.renewals - renewals + k->core.hold.rounds - held + 1 && k->core.epoch <= FORMAT_MAX_EPOCH && k->core.state < LEASE_STATE_COUNT);
	}
	fuzz_world(FUZZ_KEEPER);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (client[i] > 0)
			(void)close(client[i]);
		client[i] = 0;
	}
	(void)fuzz_loop_turn();
	fuzz_keeper_end();
	if (agent)
		fuzz_agent_end();
	return 0;
}
