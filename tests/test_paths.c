/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes with several addresses, against tgtd and ganesha.nfsd behind relays that are cut, hang, hang with a write in them, or lead elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "tests/relay.h"
#include "tests/servers.h"
#include "tests/tap.h"
#include "tests/volume_ops.h"

#define SIZE (16U << 20)
#define LARGE (3U << 20)
#define A_PORT 14001
#define B_PORT 14002
#define NFS_PATH_PORT 14049
#define STALL_MS 400 /* deadline of what is to miss it */
#define READS 20

static const struct volume_options quick = { .connect_timeout_ms = 1000, .backoff_ms = 50 };

/* Two paths to one server. */
struct kind {
	const char *name;
	enum relay_kind relay;
	uint16_t port; /* of the server */
	const char *path_ip[2];
	uint16_t path_port[2];
	char url[512], backing[512];
};

static bool is_used(const struct volume *v, unsigned i)
{
	struct volume_path p;

	volume_path(v, i, &p);
	return p.is_used;
}

static unsigned unresolved(const struct volume *v, unsigned i)
{
	struct volume_path p;

	volume_path(v, i, &p);
	return p.unresolved;
}

static int path_news;

static void on_path(struct volume *v, unsigned i, void *user)
{
	struct volume_path p;

	path_news++;
	volume_path(v, i, &p);
	printf("# path %s: %s\n", p.address, p.is_used ? "used" : p.reason);
}

/* Until path i is used, or is not; each news is awaited, so that nothing depends on who is quick. */
static bool wait_path(const struct volume *v, unsigned i, bool used)
{
	while (is_used(v, i) != used)
		if (!wait_for(&path_news, path_news + 1, PATIENCE_MS))
			return false;
	return true;
}

static bool open_paths(struct watched *w, const char *url)
{
	struct volume_options o = quick;

	o.on_path = on_path;
	return open_volume(w, url, &o);
}

static bool put(struct volume *v, uint8_t *buf, int fill)
{
	memset(buf, fill, 4096);
	return transfer(v, buf, 65536, 4096, true) == VOLUME_OK;
}

/* What the server's own file holds there now. */
static int backing_byte(const struct kind *k)
{
	uint8_t byte = 0;
	int fd = open(k->backing, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &byte, 1, 65536) != 1)
		abort();
	(void)close(fd);
	return byte;
}

static void both_up(struct kind *k, struct relay r[2])
{
	for (unsigned i = 0; i < 2; i++)
		relay_start(&r[i], k->relay, k->path_ip[i], k->path_port[i], k->port);
}

static void test_all_well(struct kind *k)
{
	uint8_t *out = buffer(LARGE, 0), *in = buffer(LARGE, 0);
	struct relay r[2];
	struct watched w;

	printf("# %s: two paths, all well\n", k->name);
	for (size_t i = 0; i < LARGE; i++)
		out[i] = (uint8_t)(i * 29 + i / 4096);
	both_up(k, r);
	TAP_OK(open_paths(&w, k->url) && volume_paths(w.v) == 2, "opens, with two paths");
	TAP_OK(wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true) && wait_path(w.v, 1, true), "both paths are used");
	TAP_OK(volume_size(w.v) == SIZE, "size");
	TAP_OK(transfer(w.v, out, 8192, LARGE, true) == VOLUME_OK, "a long write");
	TAP_OK(transfer(w.v, in, 8192, LARGE, false) == VOLUME_OK && memcmp(in, out, LARGE) == 0, "reads the same");
	TAP_OK(transfer(w.v, in, SIZE, 4096, false) == VOLUME_E_IO && transfer(w.v, out, SIZE - 4096, 8192, true) == VOLUME_E_IO, "not past the end");
	TAP_OK(w.backoff == 0, "the volume was ready all the time");
	volume_close(w.v);
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
	free(out);
	free(in);
}

static void test_cut(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0);
	struct relay r[2];
	struct watched w;

	printf("# %s: paths cut and back\n", k->name);
	both_up(k, r);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true) && wait_path(w.v, 1, true), "both paths are used");
	for (unsigned i = 0; i < 2; i++) {
		relay_stop(&r[i]);
		TAP_OK(put(w.v, buf, 0x11 + (int)i) && transfer(w.v, buf, 65536, 4096, false) == VOLUME_OK && buf[0] == 0x11 + i, "path %u cut: writes and reads", i);
		TAP_OK(wait_path(w.v, i, false) && w.backoff == 0, "the path is lost, not the volume");
		relay_start(&r[i], k->relay, k->path_ip[i], k->path_port[i], k->port);
		TAP_OK(wait_path(w.v, i, true), "and used again");
	}
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
	TAP_OK(wait_for(&w.backoff, 1, PATIENCE_MS) && strstr(w.reason, "no path"), "both cut: %s", w.reason);
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_for(&w.ready, 2, PATIENCE_MS) && put(w.v, buf, 0x44), "one is back: it works");
	volume_close(w.v);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS), "opens on one path");
	volume_close(w.v);
	relay_stop(&r[1]);
	free(buf);
}

/* A path that hangs delays nothing by more than the other path takes, and loses nothing. */
static void test_hang(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0);
	struct relay r[2];
	struct watched w;
	unsigned good = 0;

	printf("# %s: a path hangs\n", k->name);
	both_up(k, r);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true) && wait_path(w.v, 1, true), "both paths are used");
	for (unsigned i = 0; i < 2; i++) {
		servers_signal(r[i].pid, SIGSTOP);
		for (int n = 0; n < READS; n++) {
			struct op op;

			memset(buf, n, 4096);
			start(&op, w.v, buf, 65536, 4096, n % 2 == 0, STALL_MS * 5);
			good += wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_OK && op.how == VOLUME_COMPLETED;
		}
		TAP_OK(good == READS * (i + 1) && w.backoff == 0, "path %u hangs: %u of %u reads and writes went through", i, good, READS * (i + 1));
		TAP_OK(wait_path(w.v, i, false), "the path is lost at last");
		servers_signal(r[i].pid, SIGCONT);
		TAP_OK(wait_path(w.v, i, true), "and used again");
	}
	volume_close(w.v);
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
	free(buf);
}

/* A write of 4 KiB that the path holds, or whose answer it holds. On a busy machine a path may not even be asked in time: then it was not issued. */
static bool write_stalls(struct watched *w, struct op *op, uint8_t *buf)
{
	do
		start(op, w->v, buf, 65536, 4096, true, STALL_MS);
	while (wait_for(&op->settled, 1, STALL_MS * 2) && op->result == VOLUME_E_NOT_READY);
	return wait_for(&op->done, 1, PATIENCE_MS) && (op->result == VOLUME_E_TIMEOUT || op->result == VOLUME_E_SESSION);
}

/* One path, which hangs with a write of op in it; its deadline has passed. */
static void hold_write(struct kind *k, struct relay *r, struct watched *w, struct op *op, uint8_t *buf)
{
	relay_start(r, k->relay, k->path_ip[0], k->path_port[0], k->port);
	TAP_OK(open_paths(w, k->url) && wait_for(&w->ready, 1, PATIENCE_MS) && wait_path(w->v, 0, true), "one path is used");
	TAP_OK(put(w->v, buf, 0x01), "something is written");
	relay_hold(r);
	memset(buf, 0x02, 4096);
	TAP_OK(write_stalls(w, op, buf), "a write has no answer");
	TAP_OK(relay_holds(r, PATIENCE_MS) && backing_byte(k) == 0x01, "it is held by what is behind the path");
}

/* The rule: the other path answers, but a write that may still be in the first one is not over. */
static void test_late_write(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0), *in = buffer(4096, 0);
	struct relay r[2];
	struct watched w;
	struct op op;
	int good = 0;
	bool over;

	printf("# %s: a write hangs in one path\n", k->name);
	hold_write(k, &r[0], &w, &op, buf);
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_path(w.v, 1, true) && wait_for(&w.ready, 2, PATIENCE_MS), "the volume is back by the other path");
	for (int n = 0; n < READS; n++)
		good += transfer(w.v, in, 65536, 4096, false) == VOLUME_OK && in[0] == 0x01;
	TAP_OK(good == READS && transfer(w.v, in, 131072, 4096, true) == VOLUME_OK, "the other path reads and writes elsewhere");
	TAP_OK(op.settled == 0 && unresolved(w.v, 0) == 1 && unresolved(w.v, 1) == 0, "the write is not resolved, and that is told");
	relay_release(&r[0]);
	/* Whichever comes first: the path's answer to the proof, or the write itself, read back by either path. */
	over = wait_for(&op.settled, 1, PATIENCE_MS) && op.done == 1;
	TAP_OK(over && (op.how == VOLUME_DESTROYED || (op.how == VOLUME_COMPLETED && backing_byte(k) == 0x02)), "the path answers again: over, once (%s)",
	       op.how == VOLUME_DESTROYED ? "destroyed" : "read back");
	for (uint64_t until = now_ms() + PATIENCE_MS; backing_byte(k) != 0x02 && now_ms() < until; )
		(void)transfer(w.v, in, 65536, 4096, false);
	TAP_OK(backing_byte(k) == 0x02, "it has landed late: what was newer would have been lost");
	TAP_OK(unresolved(w.v, 0) == 0 && put(w.v, buf, 0x03) && backing_byte(k) == 0x03, "writing goes on");
	volume_close(w.v);
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
	free(buf);
	free(in);
}

static void test_close_with_held_write(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0);
	struct relay r;
	struct watched w;
	struct op op;

	printf("# %s: closed with a write in a path that hangs\n", k->name);
	hold_write(k, &r, &w, &op, buf);
	TAP_OK(op.settled == 0, "not settled");
	volume_close(w.v);
	TAP_OK(op.settled == 1 && op.how == VOLUME_DESTROYED && op.done == 1, "settled by the close");
	relay_stop(&r);
	free(buf);
}

/* The path is cut for good with an answer in it: the write has landed, and the other path shows it. */
static void test_landed_write(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0), *in = buffer(4096, 0);
	struct relay r[2];
	struct watched w;
	struct op op, same;

	printf("# %s: an answer hangs in one path\n", k->name);
	relay_start(&r[0], k->relay, k->path_ip[0], k->path_port[0], k->port);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true) && put(w.v, buf, 0x11), "one path is used");
	relay_hold_answer(&r[0]);
	memset(buf, 0x12, 4096);
	TAP_OK(write_stalls(&w, &op, buf) && relay_holds(&r[0], PATIENCE_MS), "a write has no answer");
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_path(w.v, 1, true) && wait_for(&w.ready, 2, PATIENCE_MS) && transfer(w.v, in, 65536, 4096, false) == VOLUME_OK && in[0] == 0x12,
	       "the other path shows it");
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.how == VOLUME_COMPLETED && op.done == 1, "so it is over, though its path hangs");
	TAP_OK(unresolved(w.v, 0) == 0 && put(w.v, buf, 0x13) && backing_byte(k) == 0x13, "writing goes on");
	relay_release(&r[0]);
	TAP_OK(wait_path(w.v, 0, true) && transfer(w.v, in, 65536, 4096, false) == VOLUME_OK && in[0] == 0x13, "and nothing of it lands later");

	/* What was there before proves nothing. */
	relay_stop(&r[1]);
	TAP_OK(wait_path(w.v, 1, false), "one path is left");
	relay_hold(&r[0]);
	TAP_OK(write_stalls(&w, &same, buf) && relay_holds(&r[0], PATIENCE_MS), "the same content again has no answer");
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_path(w.v, 1, true), "the other path is back");
	for (int n = 0; n < READS; n++)
		(void)transfer(w.v, in, 65536, 4096, false);
	TAP_OK(same.settled == 0 && in[0] == 0x13 && unresolved(w.v, 0) == 1, "that its content is there is no word of it");
	relay_release(&r[0]);
	TAP_OK(wait_for(&same.settled, 1, PATIENCE_MS) && same.how == VOLUME_DESTROYED, "its own path ends it");
	volume_close(w.v);
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
	free(buf);
	free(in);
}

static void close_in_settled(struct volume_io *io, enum volume_settle how)
{
	struct op *op = io->user;

	op->settled++;
	volume_close(op->then_volume);
}

/* The settled that comes when a path answers again is a callback as any other. */
static void test_close_in_late_settled(struct kind *k)
{
	uint8_t *buf = buffer(4096, 0);
	struct relay r;
	struct watched w;
	struct op op;

	printf("# %s: closed from the callback of a late write\n", k->name);
	hold_write(k, &r, &w, &op, buf);
	op.io.settled = close_in_settled;
	op.then_volume = w.v;
	relay_release(&r);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.done == 1, "closed in there");
	relay_stop(&r);
	free(buf);
}

/* Until path i has been looked at and is not used for what it leads to. */
static bool wait_other_disk(const struct volume *v, unsigned i)
{
	struct volume_path p;

	for (;;) {
		volume_path(v, i, &p);
		if (p.is_used || strstr(p.reason, "another disk"))
			return !p.is_used;
		if (!wait_for(&path_news, path_news + 1, PATIENCE_MS))
			return false;
	}
}

/* A path that leads elsewhere is never used, even if no other is left. */
static void test_other_disk(struct kind *k, uint16_t other_port)
{
	uint8_t *buf = buffer(4096, 0);
	struct relay r[2];
	struct watched w;

	printf("# %s: a path to another disk\n", k->name);
	relay_start(&r[0], k->relay, k->path_ip[0], k->path_port[0], k->port);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true), "the first path is used");
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], other_port);
	TAP_OK(wait_other_disk(w.v, 1), "the second is not");
	TAP_OK(put(w.v, buf, 0x05) && backing_byte(k) == 0x05, "the volume works");
	relay_stop(&r[0]);
	TAP_OK(wait_for(&w.backoff, 1, PATIENCE_MS) && !is_used(w.v, 1), "without the first there is no path: %s", w.reason);
	volume_close(w.v);
	relay_stop(&r[1]);
	free(buf);
}

/* The same for NFS: the file is another one by the time the second path comes. */
static void test_other_file(struct kind *k)
{
	char old[600];
	struct relay r[2];
	struct watched w;

	printf("# %s: the file is replaced\n", k->name);
	relay_start(&r[0], k->relay, k->path_ip[0], k->path_port[0], k->port);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true), "the first path is used");
	(void)snprintf(old, sizeof(old), "%s.old", k->backing);
	TAP_OK(rename(k->backing, old) == 0, "renamed");
	servers_file(k->backing, SIZE, 0600, NULL);
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_other_disk(w.v, 1), "the second path sees another file: not used");
	TAP_OK(rename(old, k->backing) == 0, "renamed back");
	relay_stop(&r[1]);
	relay_start(&r[1], k->relay, k->path_ip[1], k->path_port[1], k->port);
	TAP_OK(wait_path(w.v, 1, true) && w.backoff == 0, "with the old file it is used");
	volume_close(w.v);
	for (unsigned i = 0; i < 2; i++)
		relay_stop(&r[i]);
}

/* What a server says that has no room for this user, or has become read-only under us: definite, the session stays. */
static void test_refused_writes(struct kind *k)
{
	static const struct { uint32_t status; enum volume_result result; const char *said; } answer[] = {
		{ 69, VOLUME_E_NOSPACE, "DQUOT" }, { 28, VOLUME_E_NOSPACE, "NOSPC" }, { 30, VOLUME_E_READONLY, "ROFS" },
		{ 13, VOLUME_E_READONLY, "ACCES" }, { 5, VOLUME_E_IO, "IO" }, { 10006, VOLUME_E_IO, "SERVERFAULT" },
	};
	uint8_t *buf = buffer(4096, 0x09);
	struct relay r;
	struct watched w;

	printf("# %s: writes that the server refuses\n", k->name);
	relay_start(&r, k->relay, k->path_ip[0], k->path_port[0], k->port);
	TAP_OK(open_paths(&w, k->url) && wait_for(&w.ready, 1, PATIENCE_MS) && wait_path(w.v, 0, true), "a path is used");
	TAP_OK(put(w.v, buf, 0x08), "written");
	for (size_t i = 0; i < ARRAY_SIZE(answer); i++) {
		relay_refuse(&r, answer[i].status);
		memset(buf, 0x09, 4096);
		TAP_OK(transfer(w.v, buf, 65536, 4096, true) == answer[i].result, "status %u: %s", answer[i].status, volume_result_name(answer[i].result));
		TAP_OK(strstr(volume_refusal(w.v), answer[i].said), "it tells what was said: %s", volume_refusal(w.v));
		TAP_OK(transfer(w.v, buf, 65536, 4096, false) == VOLUME_OK && buf[0] == 0x08 && !*volume_refusal(w.v), "read works, and nothing was written");
	}
	relay_release(&r);
	TAP_OK(put(w.v, buf, 0x0a) && w.backoff == 0, "it writes again, in the same session");
	volume_close(w.v);
	relay_stop(&r);
	free(buf);
}

static void test_kind(struct kind *k)
{
	test_all_well(k);
	test_cut(k);
	test_hang(k);
	test_late_write(k);
	test_landed_write(k);
	test_close_with_held_write(k);
	test_close_in_late_settled(k);
}

static int run(const char *dir)
{
	struct kind iscsi = { .name = "iSCSI", .relay = RELAY_ISCSI, .port = SERVERS_ISCSI_PORT, .path_ip = { "127.0.0.1", "127.0.0.1" },
			      .path_port = { A_PORT, B_PORT } };
	struct kind nfs = { .name = "NFS", .relay = RELAY_NFS, .port = SERVERS_NFS_PORT, .path_ip = { "127.0.0.1", "127.0.0.2" },
			    .path_port = { NFS_PATH_PORT, NFS_PATH_PORT } };
	pid_t tgtd, other, rpcbind, ganesha;

	loop = qb_loop_create();
	(void)snprintf(iscsi.url, sizeof(iscsi.url), "iscsi://127.0.0.1:%d,127.0.0.1:%d/iqn.2026-01.test:plain/1", A_PORT, B_PORT);
	(void)snprintf(iscsi.backing, sizeof(iscsi.backing), "%s/plain", dir);
	(void)snprintf(nfs.url, sizeof(nfs.url), "nfs://127.0.0.1,127.0.0.2%s/export/sub/volume?nfsport=%d&mountport=%d", dir, NFS_PATH_PORT,
		       SERVERS_MOUNT_PORT);
	(void)snprintf(nfs.backing, sizeof(nfs.backing), "%s/export/sub/volume", dir);
	tgtd = servers_start_tgtd(dir);
	other = servers_start_other_tgtd(dir);
	rpcbind = servers_start_rpcbind();
	ganesha = servers_start_ganesha(dir);
	if (TAP_OK(tgtd > 0 && other > 0 && rpcbind > 0 && ganesha > 0, "two tgtd, rpcbind and ganesha.nfsd run")) {
		test_kind(&iscsi);
		test_other_disk(&iscsi, SERVERS_OTHER_ISCSI_PORT);
		test_kind(&nfs);
		test_refused_writes(&nfs);
		test_other_file(&nfs);
	}
	qb_loop_destroy(loop);
	return tap_done();
}

int main(void)
{
	return servers_sandbox(run);
}
