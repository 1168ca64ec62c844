/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations of storage/reservation.h on a target that others have written (tgtd): two nodes of two paths each, by libiscsi. Needs root. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <unistd.h>

#include "storage/reservation.h"
#include "tests/servers.h"
#include "tests/tap.h"

#define PATHS 2
#define TRIES 8
#define MAX_COMMANDS 200

static const uint8_t cluster[16] = { 1, 2, 3 };

struct node { uint64_t key; struct iscsi_context *path[PATHS]; };

static struct iscsi_context *log_in(const char *name, unsigned path)
{
	char initiator[80];
	struct iscsi_context *c;

	(void)snprintf(initiator, sizeof(initiator), "iqn.2026-01.test:%s-%u", name, path);
	c = iscsi_create_context(initiator);
	if (!c || iscsi_set_targetname(c, "iqn.2026-01.test:plain") != 0 || iscsi_set_session_type(c, ISCSI_SESSION_NORMAL) != 0 ||
	    iscsi_full_connect_sync(c, "127.0.0.1:13260", 1) != 0)
		return NULL;
	return c;
}

static bool log_in_anew(struct node *n, const char *name)
{
	bool in = true;

	for (unsigned i = 0; i < PATHS; i++) {
		(void)iscsi_destroy_context(n->path[i]);
		n->path[i] = log_in(name, i);
		in = in && n->path[i];
	}
	return in;
}

/* One command, again while the target has something else to say first. The task is the caller's. */
static struct scsi_task *send_cdb(struct iscsi_context *c, unsigned char *cdb, int size, uint8_t *data, size_t len)
{
	struct iscsi_data out = { .size = len, .data = data };

	for (unsigned i = 0; i < TRIES; i++) {
		bool in = !data;
		struct scsi_task *t = scsi_create_task(size, cdb, in ? SCSI_XFER_READ : SCSI_XFER_WRITE, (int)len), *r;

		r = t ? iscsi_scsi_command_sync(c, 1, t, in ? NULL : &out) : NULL;
		if (!r || r->status != SCSI_STATUS_CHECK_CONDITION || r->sense.key != SCSI_SENSE_UNIT_ATTENTION)
			return r;
		scsi_free_scsi_task(r);
	}
	return NULL;
}

static struct reservation_answer perform(struct iscsi_context *path, const struct reservation_command *c)
{
	static struct reservation_answer a;
	uint8_t out[RESERVATION_OUT_LEN];
	bool in = reservation_is_in(c->kind), ok = true;
	size_t len = !in ? sizeof(out) : c->kind == RESERVATION_REPORT_CAPABILITIES ? 8 : RESERVATION_IN_LEN;
	unsigned char cdb[10] = { in ? 0x5e : 0x5f, (unsigned char)reservation_service_action(c->kind),
				  reservation_is_typed(c->kind) ? RESERVATION_WERO : 0,
				  0, 0, 0, 0, (unsigned char)(len >> 8), (unsigned char)len, 0 };
	struct scsi_task *t;

	a = (struct reservation_answer){ .status = RESERVATION_ERROR };
	reservation_out_parameters(c, out);
	t = send_cdb(path, cdb, sizeof(cdb), in ? NULL : out, len);
	if (!t)
		return a;
	if (t->status == SCSI_STATUS_GOOD)
		a.status = RESERVATION_GOOD;
	else if (t->status == SCSI_STATUS_RESERVATION_CONFLICT)
		a.status = RESERVATION_CONFLICT;
	else if (t->status == SCSI_STATUS_CHECK_CONDITION && t->sense.key == SCSI_SENSE_ILLEGAL_REQUEST && (t->sense.ascq >> 8 == 0x20 || t->sense.ascq >> 8 == 0x24))
		a.status = RESERVATION_REFUSED;
	else if (t->status == SCSI_STATUS_CHECK_CONDITION && t->sense.key == SCSI_SENSE_ILLEGAL_REQUEST)
		a.status = RESERVATION_ILLEGAL;
	if (a.status == RESERVATION_GOOD && c->kind == RESERVATION_READ_KEYS)
		ok = reservation_parse_keys(t->datain.data, (size_t)t->datain.size, &a.keys);
	else if (a.status == RESERVATION_GOOD && c->kind == RESERVATION_READ_HOLDER)
		ok = reservation_parse_holder(t->datain.data, (size_t)t->datain.size, &a.holder);
	else if (a.status == RESERVATION_GOOD && c->kind == RESERVATION_REPORT_CAPABILITIES)
		ok = reservation_parse_capabilities(t->datain.data, (size_t)t->datain.size, &a.capabilities);
	if (!ok)
		a.status = RESERVATION_ERROR;
	scsi_free_scsi_task(t);
	return a;
}

static struct reservation_plan run(struct node *n, enum reservation_op op, bool volatile_ok)
{
	struct reservation_plan p;
	struct reservation_command c;
	unsigned sent = 0;

	reservation_plan_init(&p, op, n->key, PATHS, volatile_ok);
	while ((c = reservation_next(&p)).kind != RESERVATION_END && sent++ < MAX_COMMANDS) {
		struct reservation_answer a = perform(n->path[c.path], &c);

		reservation_answer(&p, &a);
	}
	printf("# %s: %s %s, %u commands\n", reservation_op_name(op), reservation_result_name(p.result), p.why, sent);
	return p;
}

static enum reservation_result start(struct node *n)
{
	struct reservation_plan p = run(n, RESERVATION_JOIN, true);

	return p.result == RESERVATION_OK ? run(n, RESERVATION_OWN, true).result : p.result;
}

static int status_of(struct iscsi_context *c, bool write)
{
	static uint8_t block[512];
	unsigned char cdb[10] = { write ? 0x2a : 0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0 };
	struct scsi_task *t = send_cdb(c, cdb, sizeof(cdb), write ? block : NULL, sizeof(block));
	int status = t ? t->status : -1;

	if (t)
		scsi_free_scsi_task(t);
	return status;
}

/* By each path. */
static bool all(const struct node *n, bool write, int status)
{
	bool as = true;

	for (unsigned i = 0; i < PATHS; i++)
		as = as && status_of(n->path[i], write) == status;
	return as;
}
static bool writes(const struct node *n) { return all(n, true, SCSI_STATUS_GOOD); }
static bool is_cut_off(const struct node *n) { return all(n, true, SCSI_STATUS_RESERVATION_CONFLICT) && all(n, false, SCSI_STATUS_GOOD); }

static void play(struct node *a, struct node *b)
{
	struct reservation_command stranger = { .kind = RESERVATION_REGISTER_IGNORE, .service_key = 0x123abc };
	struct reservation_plan p = run(a, RESERVATION_JOIN, false);

	TAP_OK(p.result == RESERVATION_NONE && writes(b), "without APTPL it is left alone, unless volatile");
	TAP_OK(start(a) == RESERVATION_OK && writes(a) && is_cut_off(b), "a start: it writes, the other node reads");
	TAP_OK(run(a, RESERVATION_CHECK, true).result == RESERVATION_OK && run(a, RESERVATION_KEEP, true).result == RESERVATION_OK, "its key is there");
	TAP_OK(start(a) == RESERVATION_OK && run(a, RESERVATION_OWN, true).result == RESERVATION_OK && writes(a), "again");
	TAP_OK(start(b) == RESERVATION_OK && writes(b), "the other node takes it over");
	TAP_OK(is_cut_off(a), "whatever comes late from the first is refused, by each path");
	TAP_OK(run(a, RESERVATION_CHECK, true).result == RESERVATION_LOST && run(a, RESERVATION_OWN, true).result == RESERVATION_LOST && is_cut_off(a) && writes(b),
	       "it is told that its key is gone, and does not put it back");
	TAP_OK(run(a, RESERVATION_JOIN, true).result == RESERVATION_OK && writes(a) && writes(b), "a migration's target joins: both write");
	TAP_OK(run(a, RESERVATION_OWN, true).result == RESERVATION_OK && writes(a) && is_cut_off(b), "and owns: the source is cut off");
	TAP_OK(run(a, RESERVATION_LEAVE, true).result == RESERVATION_OK && writes(b), "it leaves: nothing is reserved");
	TAP_OK(start(a) == RESERVATION_OK && is_cut_off(b) && run(b, RESERVATION_LOOK, false).result == RESERVATION_STANDS && writes(a),
	       "one that goes without finds what was reserved, and registers");
	TAP_OK(run(b, RESERVATION_CLEAR, false).result == RESERVATION_OK && writes(a) && writes(b) && run(b, RESERVATION_LOOK, false).result == RESERVATION_NONE,
	       "and does away with it: nothing is reserved, and no key is left");
	TAP_OK(start(a) == RESERVATION_OK && run(a, RESERVATION_RELEASE, false).result == RESERVATION_OK && writes(a) && writes(b), "a guest that is to go without: released");
	TAP_OK(start(a) == RESERVATION_OK && log_in_anew(a, "a") && is_cut_off(a) && run(a, RESERVATION_CHECK, true).result == RESERVATION_LOST,
	       "tgtd keeps a key for one session: after a new login it is lost, which is told");
	TAP_OK(perform(b->path[0], &stranger).status == RESERVATION_GOOD, "a stranger registers");
	p = run(a, RESERVATION_JOIN, true);
	TAP_OK(p.result == RESERVATION_FOREIGN && p.strange == 0x123abc, "which is told, and left alone");
}

static int body(const char *dir)
{
	struct node a = { .key = reservation_key(cluster, 1, 5) }, b = { .key = reservation_key(cluster, 2, 9) };
	bool in = true;

	if (servers_start_tgtd(dir) < 0) {
		TAP_OK(false, "tgtd answers");
		return tap_done();
	}
	for (unsigned i = 0; i < PATHS; i++) {
		a.path[i] = log_in("a", i);
		b.path[i] = log_in("b", i);
		in = in && a.path[i] && b.path[i];
	}
	TAP_OK(in, "two nodes have logged in by two paths each");
	if (in)
		play(&a, &b);
	for (unsigned i = 0; i < PATHS; i++) {
		if (a.path[i])
			(void)iscsi_destroy_context(a.path[i]);
		if (b.path[i])
			(void)iscsi_destroy_context(b.path[i]);
	}
	return tap_done();
}

int main(void)
{
	return servers_sandbox(body);
}
