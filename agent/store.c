/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Claims and catalog on the volumes. The claims' protocol is the core's; the catalog's is here:
 *
 *   read    the heads of the nodes that may have a newer one, from a fence quorum; the newest (leader generation, seq) is read whole
 *   write   own slot on every volume, a fence quorum acknowledged, then the core reads the claims again: still the leader -> it counts */
#include <errno.h>
#include <stdio.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "storage/setchange.h"
#include "storage/volop.h"

#define CLAIM_WRITE_OPS 2
#define AGAIN_MS 200
#define WRITE_LIMIT_MS 10000

#define MAX_HEADS (FORMAT_MAX_NODES * 2 * FORMAT_MAX_VOLUMES)

/* A catalog block as its first 4 KiB describe it; whether it is whole shows only when all of it is read. */
struct head {
	bool tried;
	uint32_t node;
	unsigned buffer, volume;
	uint64_t generation, seq;
	uint32_t len;
};

struct member {
	struct volop claim_write[CLAIM_WRITE_OPS], claim_read, superblock, head, body, catalog_write;
	unsigned reads_good;     /* of the two that a read of the claims is */
	bool reads_told;
	uint64_t told_generation, told_seq; /* of the catalog that was told not to be readable here */
	struct slot slot;        /* our own catalog block */
	bool scanning, scan_ok, write_wait, write_ok, node_has_one;
	uint32_t scan_node;      /* 1..node_max */
	unsigned scan_buffer;
	int64_t scan_ns;
	struct { bool valid; uint64_t seq; uint32_t epoch; } own[2]; /* heads of our own buffers in this scan */
};

struct store {
	struct agentd *d;
	struct member member[FORMAT_MAX_VOLUMES];
	uint64_t wanted;         /* nodes whose heads the scan reads */
	uint64_t again;          /* nodes to scan once this one is over */
	bool scanning, loading, complete; /* complete: a scan of all nodes has succeeded since we lead (or started) */
	bool leading;
	unsigned leads, scan_leads; /* how often we have begun or ceased to lead; as the scan under way was begun */
	struct head head[MAX_HEADS]; /* found by the scan */
	unsigned n_heads;
	struct head *loading_head;
	struct { bool any, for_now; uint64_t generation, seq; } missed; /* the newest that this scan could not read everywhere; for_now: the target did not say so */
	qb_loop_timer_handle timer;

	struct catalog_doc *writing;
	char *text;
	size_t text_len;
	uint32_t node_seq_epoch;
	uint64_t seq;            /* of our own catalog blocks */
	bool asked, still_leads; /* CHECK_LEAD is under way; its answer */
	int64_t write_ns;
	store_done_fn done;
	void *user;
};

static uint32_t io_ms(const struct store *s) { return s->d->conf.timing.io_ms; }
static uint64_t all_nodes(const struct store *s) { return (2ULL << (s->d->core.opt.node_max - 1)) - 1; }
static struct volume *volume_of(const struct store *s, unsigned v) { return volset_volume(s->d->volset, v); }
static unsigned fence_quorum(const struct store *s) { return format_fence_quorum(s->d->sb->n_volumes); }

/* Claims: the core asks, the volume answers. */

static void claim_event(struct volop *op, enum agent_event_kind kind, bool ok, bool definite, const void *data)
{
	struct store *s = op->user;
	struct agent_event ev = { .kind = kind, .volume = op->volume, .ok = ok, .definite = definite, .data = data };

	agentd_event(s->d, &ev);
}

static void claims_written(struct volop *op, bool ok, bool definite) { claim_event(op, AGENT_EV_WRITE_DONE, ok, definite, NULL); }
static void claims_write_settled(struct volop *op, bool completed) { claim_event(op, AGENT_EV_WRITE_SETTLED, completed, true, NULL); }

/* Every read of the claims comes with one of the superblock, and what is read of a volume that is not of our set any more is no read. Whoever is granted a
 * claim has had it acknowledged before the set was frozen, so the new set has it. */
static void one_read(struct store *s, unsigned volume, bool ok, bool definite)
{
	struct member *m = &s->member[volume];

	if (m->reads_told)
		return;
	m->reads_good += ok;
	if (ok && m->reads_good < 2)
		return;
	m->reads_told = true;
	claim_event(&m->claim_read, AGENT_EV_READ_DONE, ok, definite, ok ? m->claim_read.io.buf : NULL);
}

static void claims_were_read(struct volop *op, bool ok, bool definite) { one_read(op->user, op->volume, ok, definite); }

static void superblock_was_read(struct volop *op, bool ok, bool definite)
{
	struct store *s = op->user;
	enum superblock_verdict v = ok ? superblock_check(op->io.buf, s->d->sb, op->volume) : SUPERBLOCK_DAMAGED;

	one_read(s, op->volume, v == SUPERBLOCK_SAME, definite);
	if (v != SUPERBLOCK_SAME && v != SUPERBLOCK_DAMAGED)
		volset_changed(s->d->volset, op->volume);
	if (v == SUPERBLOCK_CHANGED)
		agentd_set_changed(s->d);
}

static void one_read_settled(struct volop *op, bool completed)
{
	struct member *m = &((struct store *)op->user)->member[op->volume];

	if (!m->claim_read.busy && !m->superblock.busy)
		claim_event(op, AGENT_EV_READ_SETTLED, completed, true, NULL);
}

void store_write_claims(struct store *s, unsigned volume, unsigned buffer, const struct claims *c)
{
	struct member *m = &s->member[volume];

	for (unsigned i = 0; i < CLAIM_WRITE_OPS; i++) {
		struct volop *op = &m->claim_write[i];

		if (op->busy)
			continue;
		claims_encode(c, s->d->sb->cluster, buffer, op->io.buf);
		volop_write(op, volume_of(s, volume), format_claims_offset(c->node, buffer), claims_block_len(c->n), io_ms(s));
		return;
	}
	claims_written(&m->claim_write[0], false, true);
}

static uint32_t claims_region_len(const struct store *s) { return 2 * FORMAT_CLAIMS_LEN * s->d->core.opt.node_max; }

void store_read_claims(struct store *s, unsigned volume)
{
	struct member *m = &s->member[volume];

	m->reads_good = 0;
	m->reads_told = false;
	/* Both are busy before either can fail at once. */
	m->superblock.busy = true;
	volop_read(&m->claim_read, volume_of(s, volume), FORMAT_CLAIMS_OFFSET, claims_region_len(s), io_ms(s));
	m->superblock.busy = false;
	volop_read(&m->superblock, volume_of(s, volume), 0, 2 * FORMAT_BLOCK, io_ms(s));
}

/* Reading the catalog. */

static void scan_start(struct store *s, uint64_t nodes);
static void scan_next(struct store *s, unsigned volume);
static void load_newest(struct store *s);
static void write_progress(struct store *s);

static void on_again(void *data)
{
	struct store *s = data;
	uint64_t nodes = s->again;

	s->timer = 0;
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++)
		(void)slot_tick(&s->member[v].slot, clock_now_ns(), s->d->conf.timing.drain_ms * NS_PER_MS);
	s->again = 0;
	if (nodes)
		scan_start(s, nodes);
	write_progress(s);
}

static void scan_later(struct store *s, uint64_t nodes)
{
	s->again |= nodes;
	if (!s->timer)
		(void)qb_loop_timer_add(s->d->loop, QB_LOOP_MED, AGAIN_MS * NS_PER_MS, s, on_again, &s->timer);
}

static void use_catalog(struct store *s, struct catalog_doc *doc)
{
	catalog_free(s->d->catalog);
	s->d->catalog = doc;
	agentd_catalog_changed(s->d);
}

static void scan_finish(struct store *s)
{
	struct agent_event ev = { .kind = AGENT_EV_CATALOG_READ };

	s->scanning = s->loading = false;
	if (s->again)
		scan_later(s, 0);
	if (s->wanted != all_nodes(s) || s->scan_leads != s->leads)
		return;
	s->complete = true;
	if (s->leading)
		agentd_event(s->d, &ev);
}

static void scan_fail(struct store *s)
{
	uint64_t nodes = s->wanted;

	s->scanning = s->loading = false;
	scan_later(s, nodes);
}

static bool newer(uint64_t generation_a, uint64_t seq_a, uint64_t generation_b, uint64_t seq_b)
{
	return generation_a != generation_b ? generation_a > generation_b : seq_a > seq_b;
}

/* What is loaded may be older than one that is there and cannot be read: then this was no whole read, and the next one follows. */
static void scan_over(struct store *s)
{
	const struct catalog_doc *c = s->d->catalog;

	if (!c || (s->missed.any && newer(s->missed.generation, s->missed.seq, c->generation, c->seq)))
		scan_fail(s); /* without a catalog: there are heads (volume init wrote them) */
	else
		scan_finish(s);
}

static void body_missed(struct store *s, const struct head *h, bool refused)
{
	if (!s->missed.any || newer(h->generation, h->seq, s->missed.generation, s->missed.seq)) {
		s->missed.generation = h->generation;
		s->missed.seq = h->seq;
	}
	s->missed.any = true;
	s->missed.for_now |= !refused;
}

/* An older one than what cannot be read stands in for it only where storage itself says so; what is unanswered may be read in a moment. */
static bool worth_loading(const struct store *s, const struct head *h)
{
	const struct catalog_doc *c = s->d->catalog;

	return !h->tried && (!c || newer(h->generation, h->seq, c->generation, c->seq)) &&
	       !(s->missed.for_now && newer(s->missed.generation, s->missed.seq, h->generation, h->seq));
}

/* Reads the newest catalog found that is newer than ours and was not tried yet; with none left the scan is over. */
static void load_newest(struct store *s)
{
	for (;;) {
		struct head *best = NULL;
		struct member *m;

		for (unsigned i = 0; i < s->n_heads; i++) {
			struct head *h = &s->head[i];

			if (worth_loading(s, h) && (!best || newer(h->generation, h->seq, best->generation, best->seq)))
				best = h;
		}
		if (!best)
			break;
		best->tried = true;
		m = &s->member[best->volume];
		if (m->body.busy || !volset_good(s->d->volset, best->volume)) {
			body_missed(s, best, false);
			continue;
		}
		s->loading = true;
		s->loading_head = best;
		volop_read(&m->body, volume_of(s, best->volume), format_catalog_offset(best->node, best->buffer), best->len, io_ms(s));
		return;
	}
	scan_over(s);
}

/* A volume that does not answer is told of by whoever opens it. */
static void tell_unreadable(struct store *s, const struct head *h)
{
	struct member *m = &s->member[h->volume];

	if (m->told_generation == h->generation && m->told_seq == h->seq)
		return;
	m->told_generation = h->generation;
	m->told_seq = h->seq;
	agentd_say(s->d, LOG_LEVEL_ERR, "volume %s: the catalog of node %s cannot be read there: %s", s->d->conf.volumes[h->volume], agentd_node_name(s->d, h->node),
		   volume_why(volume_of(s, h->volume), VOLUME_E_IO));
}

static void body_read(struct volop *op, bool ok, bool definite)
{
	struct store *s = op->user;
	struct catalog_head head;
	struct catalog_doc *doc = NULL;
	const char *payload;
	char err[512] = "";
	int r;

	const struct head *h = s->loading_head;

	if (!s->loading || op->volume != h->volume)
		return;
	s->loading = false;
	if (!ok) {
		if (op->result == VOLUME_E_IO)
			tell_unreadable(s, h);
		body_missed(s, h, op->result == VOLUME_E_IO);
		load_newest(s); /* the same one on another volume */
		return;
	}
	if (catalog_decode(op->io.buf, op->io.len, h->node, h->buffer, s->d->sb->cluster, &head, &payload) != FORMAT_OK) {
		load_newest(s); /* torn by a power cut, or rotten: the same block on another volume, or the one before it */
		return;
	}
	r = catalog_parse(payload, head.len, &doc, err, sizeof(err));
	if (r < 0) {
		agentd_say(s->d, LOG_LEVEL_ERR, "catalog of node %s cannot be used: %s", agentd_node_name(s->d, h->node), err);
		load_newest(s);
		return;
	}
	doc->generation = head.generation;
	doc->seq = head.seq;
	use_catalog(s, doc);
	scan_over(s);
}

static void scan_end(struct store *s)
{
	unsigned ok = 0;

	for (unsigned v = 0; v < s->d->sb->n_volumes; v++) {
		if (s->member[v].scanning)
			return;
		ok += s->member[v].scan_ok;
	}
	if (ok < fence_quorum(s)) {
		scan_fail(s);
		return;
	}
	load_newest(s);
}

static void own_heads_seen(struct store *s, struct member *m)
{
	int newest = -1;

	for (int b = 0; b < 2; b++)
		if (m->own[b].valid && (newest < 0 || m->own[b].seq > m->own[newest].seq))
			newest = b;
	if (newest >= 0)
		s->seq = MAX(s->seq, m->own[newest].seq);
	slot_read(&m->slot, newest, newest >= 0 ? m->own[newest].epoch : 0, newest >= 0 ? m->own[newest].seq : 0, m->scan_ns, clock_now_ns());
	if (m->slot.state == SLOT_DRAINING)
		scan_later(s, 0);
}

static void head_read(struct volop *op, bool ok, bool definite)
{
	struct store *s = op->user;
	struct member *m = &s->member[op->volume];
	struct catalog_head head;
	uint32_t len;
	bool valid;

	if (!m->scanning)
		return;
	if (!ok) {
		m->scanning = false;
		scan_end(s);
		return;
	}
	valid = catalog_peek(op->io.buf, s->d->sb->cluster, &head, &len) && head.node == m->scan_node;
	if (valid && s->n_heads < MAX_HEADS)
		s->head[s->n_heads++] = (struct head){ false, m->scan_node, m->scan_buffer, op->volume, head.generation, head.seq, len };
	m->node_has_one = (m->scan_buffer == 1 && m->node_has_one) || valid;
	if (m->scan_buffer == 1 && !m->node_has_one) {
		m->scanning = false; /* unreadable is never empty */
		scan_end(s);
		return;
	}
	if (m->scan_node == s->d->conf.self_id) {
		m->own[m->scan_buffer].valid = valid;
		m->own[m->scan_buffer].seq = valid ? head.seq : 0;
		m->own[m->scan_buffer].epoch = valid ? head.epoch : 0;
		if (m->scan_buffer == 1)
			own_heads_seen(s, m);
	}
	m->scan_buffer ^= 1;
	if (m->scan_buffer == 0)
		m->scan_node++;
	scan_next(s, op->volume);
}

static void scan_next(struct store *s, unsigned volume)
{
	struct member *m = &s->member[volume];

	while (m->scan_node <= s->d->core.opt.node_max && !(s->wanted >> (m->scan_node - 1) & 1))
		m->scan_node++;
	if (m->scan_node > s->d->core.opt.node_max) {
		m->scanning = false;
		m->scan_ok = true;
		scan_end(s);
		return;
	}
	volop_read(&m->head, volume_of(s, volume), format_catalog_offset(m->scan_node, m->scan_buffer), FORMAT_BLOCK, io_ms(s));
}

static void scan_start(struct store *s, uint64_t nodes)
{
	unsigned started = 0;

	if (s->scanning) {
		s->again |= nodes;
		return;
	}
	/* Our own slots first need a look after every loss of a session. */
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++)
		if (s->member[v].slot.state == SLOT_DESTROYED)
			nodes |= 1ULL << (s->d->conf.self_id - 1);
	s->wanted = nodes;
	s->scan_leads = s->leads;
	s->n_heads = 0;
	s->missed.any = s->missed.for_now = false;
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++) {
		struct member *m = &s->member[v];

		m->scan_ok = false;
		m->scanning = volset_good(s->d->volset, v) && !m->head.busy;
		m->scan_node = 1;
		m->scan_buffer = 0;
		m->scan_ns = clock_now_ns();
		started += m->scanning;
	}
	if (started < fence_quorum(s)) {
		for (unsigned v = 0; v < s->d->sb->n_volumes; v++)
			s->member[v].scanning = false;
		scan_later(s, nodes);
		return;
	}
	s->scanning = true;
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++)
		if (s->member[v].scanning)
			scan_next(s, v);
}

void store_table(struct store *s)
{
	uint64_t nodes = 0;

	for (uint32_t id = 1; id <= s->d->core.opt.node_max; id++) {
		const struct keeper_table_node *n = agent_table_node(&s->d->core, id);

		if (id != s->d->conf.self_id && s->d->catalog && newer(n->catalog_generation, n->catalog_seq, s->d->catalog->generation, s->d->catalog->seq))
			nodes |= 1ULL << (id - 1);
	}
	if (nodes)
		scan_start(s, nodes);
}

void store_lead(struct store *s, bool on)
{
	s->leading = on;
	s->leads++;
	s->complete = false;
	scan_start(s, all_nodes(s));
}

bool store_may_edit(const struct store *s) { return s->leading && s->complete && !s->writing && s->d->catalog; }

void store_volume(struct store *s, unsigned volume, bool good)
{
	struct agent_event ev = { .kind = AGENT_EV_VOLUME, .volume = volume, .ok = good };

	agentd_event(s->d, &ev);
	if (good && s->member[volume].slot.state == SLOT_DESTROYED)
		scan_later(s, 1ULL << (s->d->conf.self_id - 1));
}

/* Writing the catalog. */

static void write_end(struct store *s, const char *error)
{
	struct catalog_doc *doc = s->writing;
	store_done_fn done = s->done;
	void *user = s->user; /* using the new catalog may start the next edit */

	s->writing = NULL;
	s->asked = false;
	free(s->text);
	s->text = NULL;
	if (error) {
		catalog_free(doc);
		scan_start(s, all_nodes(s)); /* whatever became of it: look */
	} else {
		use_catalog(s, doc);
	}
	done(user, error, error != NULL);
}

static void catalog_written(struct volop *op, bool ok, bool definite)
{
	struct store *s = op->user;
	struct member *m = &s->member[op->volume];

	slot_done(&m->slot, ok, definite);
	if (!m->write_wait)
		return;
	m->write_wait = false;
	m->write_ok = ok;
	write_progress(s);
}

static void catalog_write_settled(struct volop *op, bool completed)
{
	struct store *s = op->user;

	slot_settled(&s->member[op->volume].slot, completed, clock_now_ns());
	if (!completed)
		scan_later(s, 1ULL << (s->d->conf.self_id - 1));
}

static void issue_writes(struct store *s)
{
	struct catalog_head head = {
		.node = s->d->conf.self_id, .epoch = s->d->core.epoch, .seq = s->writing->seq,
		.generation = s->writing->generation, .len = (uint32_t)s->text_len,
	};

	for (unsigned v = 0; v < s->d->sb->n_volumes; v++) {
		struct member *m = &s->member[v];

		if (m->write_ok || m->write_wait || m->catalog_write.busy || !volset_good(s->d->volset, v) || !slot_writable(&m->slot))
			continue;
		catalog_encode(&head, s->text, s->d->sb->cluster, m->slot.buffer, m->catalog_write.io.buf);
		m->write_wait = true;
		volop_write(&m->catalog_write, volume_of(s, v), format_catalog_offset(head.node, m->slot.buffer), catalog_block_len(head.len), io_ms(s));
		slot_written(&m->slot, head.epoch, head.seq);
	}
}

static void write_progress(struct store *s)
{
	struct agent_event ev = { .kind = AGENT_EV_CHECK_LEAD };
	unsigned ok = 0, waiting = 0;

	if (!s->writing || s->asked)
		return;
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++) {
		ok += s->member[v].write_ok;
		waiting += s->member[v].write_wait;
	}
	if (waiting > 0)
		return;
	if (ok >= fence_quorum(s)) {
		s->asked = true;
		agentd_event(s->d, &ev);
		return;
	}
	if (clock_now_ns() - s->write_ns > WRITE_LIMIT_MS * NS_PER_MS || !s->leading) {
		write_end(s, "the change could not be written to a quorum of the volumes: see `ha-ctl status`, then try again");
		return;
	}
	issue_writes(s);
	scan_later(s, 0);
}

int store_write_catalog(struct store *s, struct catalog_doc *doc, store_done_fn done, void *user)
{
	if (!store_may_edit(s)) {
		catalog_free(doc);
		return -EBUSY;
	}
	s->text = catalog_render(doc, &s->text_len);
	if (!s->text || s->text_len > FORMAT_CATALOG_MAX_PAYLOAD) {
		free(s->text);
		s->text = NULL;
		catalog_free(doc);
		return -EFBIG;
	}
	doc->generation = s->d->core.lead_generation;
	s->seq = MAX(s->seq, s->d->catalog->seq) + 1;
	doc->seq = s->seq;
	s->writing = doc;
	s->done = done;
	s->user = user;
	s->write_ns = clock_now_ns();
	for (unsigned v = 0; v < s->d->sb->n_volumes; v++)
		s->member[v].write_ok = s->member[v].write_wait = false;
	issue_writes(s);
	write_progress(s);
	return 0;
}

static void on_lead_checked(void *data)
{
	struct store *s = data;

	if (!s->writing || !s->asked)
		return;
	write_end(s, s->still_leads ? NULL : "the leader changed during the change: check with `ha-ctl status` whether it is there, then try again");
}

/* Comes from inside a step of the core, and what follows is an event for it. */
void store_lead_checked(struct store *s, bool on)
{
	qb_loop_timer_handle h;

	/* Under an earlier leadership's generation another node's catalog may be newer than this one. */
	s->still_leads = on && s->writing && s->writing->generation == s->d->core.lead_generation;
	CHECK(qb_loop_timer_add(s->d->loop, QB_LOOP_HIGH, 0, s, on_lead_checked, &h) == 0);
}

int store_new(struct agentd *d, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->d = d;
	for (unsigned v = 0; v < d->sb->n_volumes; v++) {
		struct member *m = &s->member[v];

		for (unsigned i = 0; i < CLAIM_WRITE_OPS; i++)
			volop_init(&m->claim_write[i], v, FORMAT_CLAIMS_LEN, claims_written, claims_write_settled, s);
		volop_init(&m->claim_read, v, claims_region_len(s), claims_were_read, one_read_settled, s);
		volop_init(&m->superblock, v, 2 * FORMAT_BLOCK, superblock_was_read, one_read_settled, s);
		volop_init(&m->head, v, FORMAT_BLOCK, head_read, NULL, s);
		volop_init(&m->body, v, FORMAT_CATALOG_LEN, body_read, NULL, s);
		volop_init(&m->catalog_write, v, FORMAT_CATALOG_LEN, catalog_written, catalog_write_settled, s);
		slot_init(&m->slot, clock_now_ns());
	}
	*ret = s;
	scan_later(s, all_nodes(s));
	return 0;
}
