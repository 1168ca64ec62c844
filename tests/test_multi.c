/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume with two addresses, each a session that answers when and what the test says: what real servers do too rarely at the right moment. */
#include "storage/backend.h"
#include "tests/tap.h"
#include "tests/volume_ops.h"

#define SIZE (16U << 20)
#define PARTS_MAX 16
#define CONTENT 0x22 /* of all that is read and written: nothing is ever known by what is there */

static struct fake {
	struct volume *v;
	struct volume_part *part[PARTS_MAX]; /* not answered, the oldest first */
	int waiting, sent;
} fake[2];

static void fake_open(struct volume *v)
{
	struct fake *f = &fake[v->address.host[strlen(v->address.host) - 1] - '1'];

	f->v = v;
	f->waiting = 0;
	v->session = f;
	v->step = "in use";
	v->identity_len = 1;
	backend_ready(v, SIZE, VOLUME_MAX_LEN, false);
}

static int fake_submit(struct volume *v, struct volume_part *part)
{
	struct fake *f = v->session;

	CHECK(f->waiting < PARTS_MAX);
	f->part[f->waiting++] = part;
	f->sent++;
	return 0;
}

static void fake_close(struct volume *v)
{
	v->session = NULL;
}

/* Stands for the library's, which the linker leaves out then. */
const struct backend backend_iscsi = { .open = fake_open, .submit = fake_submit, .close = fake_close };

static void answer(struct fake *f, enum volume_result result)
{
	struct volume_part *part = f->part[0];

	CHECK(f->waiting > 0);
	memmove(f->part, f->part + 1, (size_t)--f->waiting * sizeof(*f->part));
	if (!part->is_write)
		memset(part->buf, CONTENT, part->len);
	backend_part_done(part, result);
}

/* A write is lost with its path A; the proof that asks A for it, in a new session, has been sent. */
static void lose_write(struct watched *w, struct op *op, uint8_t *buf)
{
	static const struct volume_options o = { .backoff_ms = 20 };
	struct fake *a = &fake[0], *b = &fake[1];

	memset(fake, 0, sizeof(fake));
	TAP_OK(open_volume(w, "iscsi://10.0.0.1,10.0.0.2/iqn.2026-01.test:a/1", &o) && wait_for(&w->ready, 1, PATIENCE_MS), "ready");
	while (volume_state(b->v) != VOLUME_READY)
		(void)wait_for(&w->ready, 1, PATIENCE_MS);
	start(op, w->v, buf, 65536, 4096, true, OP_MS);
	TAP_OK(a->waiting == 1 && b->waiting == 1, "both paths are asked");
	answer(a, VOLUME_OK);
	TAP_OK(wait_for(&a->sent, 2, PATIENCE_MS) && a->part[0]->is_write, "the write is sent where the answer came from");
	backend_lost(a->v, "cut");
	TAP_OK(wait_for(&op->done, 1, PATIENCE_MS) && op->result == VOLUME_E_SESSION && op->settled == 0, "it is lost");
	TAP_OK(wait_for(&a->sent, 3, PATIENCE_MS) && !a->part[0]->is_write && wait_for(&w->ready, 2, PATIENCE_MS), "the path is back, and asked for the proof");
	answer(b, VOLUME_OK); /* the question of before: nobody waits for it */
}

static void test_failed_proof(void)
{
	uint8_t *buf = buffer(8192, CONTENT);
	struct fake *a = &fake[0], *b = &fake[1];
	struct op op, other;
	struct watched w;

	printf("# a proof that fails\n");
	lose_write(&w, &op, buf);
	answer(a, VOLUME_E_IO);
	start(&other, w.v, buf + 4096, 0, 4096, false, OP_MS);
	TAP_OK(a->waiting == 1 && b->waiting >= 1, "the volume reads");
	while (b->waiting > 0)
		answer(b, VOLUME_OK);
	TAP_OK(wait_for(&other.settled, 1, PATIENCE_MS) && other.result == VOLUME_OK && op.settled == 0, "it goes on, and the write is as unknown as before");

	/* An answer that was there when the session ended: the next proof comes too late for it. */
	answer(a, VOLUME_OK);
	backend_lost(a->v, "cut again");
	TAP_OK(wait_for(&a->sent, 5, PATIENCE_MS) && op.settled == 0, "a proof in a session that has ended is none; one is sent in the next");
	answer(a, VOLUME_OK);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.how == VOLUME_DESTROYED && op.done == 1, "that one ends it");
	volume_close(w.v);
	free(buf);
}

/* What the other path answers meanwhile is no business of the proof's. */
static void test_proof_and_other_path(void)
{
	uint8_t *buf = buffer(8192, CONTENT);
	struct fake *a = &fake[0], *b = &fake[1];
	struct op op, other;
	struct watched w;

	printf("# the other path answers while a proof is under way\n");
	lose_write(&w, &op, buf);
	start(&other, w.v, buf + 4096, 0, 4096, false, OP_MS);
	while (b->waiting > 0)
		answer(b, VOLUME_OK);
	TAP_OK(wait_for(&other.settled, 1, PATIENCE_MS) && other.result == VOLUME_OK && op.settled == 0 && a->waiting == 2, "the other path reads");
	answer(a, VOLUME_OK);
	TAP_OK(wait_for(&op.settled, 1, OP_MS / 2) && op.how == VOLUME_DESTROYED && op.done == 1, "the proof that was under way ends the write");
	volume_close(w.v);
	free(buf);
}

int main(void)
{
	loop = qb_loop_create();
	test_failed_proof();
	test_proof_and_other_path();
	qb_loop_destroy(loop);
	return tap_done();
}
