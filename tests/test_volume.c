/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes against tgtd, ganesha.nfsd and files on a disk: what they do when all is well, and when the far side stops, dies or refuses. */
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <linux/userfaultfd.h>
#include <nfsc/libnfs.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storage/slot.h"
#include "tests/servers.h"
#include "tests/tap.h"
#include "tests/volume_ops.h"

#define SIZE (16U << 20)
#define LARGE (3U << 20) /* more than one part on iSCSI and NFS */
#define SLACK_MS 1500 /* two cores may be busy with something else */

static char iscsi_url[256], nfs_url[512], file_url[512];

static void test_transfers(const char *kind, const char *url)
{
	uint8_t *out = buffer(LARGE, 0), *in = buffer(LARGE, 0);
	struct watched w;
	struct op early;

	printf("# %s: transfers\n", kind);
	for (size_t i = 0; i < LARGE; i++)
		out[i] = (uint8_t)(i * 31 + i / 4096 + (size_t)kind[0]);
	TAP_OK(open_volume(&w, url, NULL), "%s opens", kind);
	TAP_OK(volume_state(w.v) == VOLUME_OPENING && w.ready == 0, "no state is reported from inside the open");
	start(&early, w.v, in, 0, 4096, false, OP_MS);
	TAP_OK(wait_for(&early.settled, 1, PATIENCE_MS) && early.result == VOLUME_E_NOT_READY, "an early operation is refused");
	TAP_OK(wait_for(&w.ready, 1, PATIENCE_MS), "%s gets ready %s", kind, w.reason);
	TAP_OK(volume_size(w.v) == SIZE, "size");
	TAP_STR(volume_url(w.v), url, "url");
	TAP_OK(transfer(w.v, out, 8192, LARGE, true) == VOLUME_OK, "write of many parts");
	TAP_OK(transfer(w.v, in, 8192, LARGE, false) == VOLUME_OK && memcmp(in, out, LARGE) == 0, "reads the same");
	TAP_OK(transfer(w.v, out + 4096, SIZE - 4096, 4096, true) == VOLUME_OK, "write of the last block");
	TAP_OK(transfer(w.v, in, SIZE - 4096, 4096, false) == VOLUME_OK && memcmp(in, out + 4096, 4096) == 0, "reads the same");
	TAP_OK(transfer(w.v, in, SIZE, 4096, false) == VOLUME_E_IO, "read past the end");
	TAP_OK(transfer(w.v, out, SIZE - 4096, 8192, true) == VOLUME_E_IO, "write across the end");
	TAP_OK(transfer(w.v, out, UINT64_MAX - 4095, 4096, true) == VOLUME_E_IO, "write at an offset that would wrap");
	TAP_OK(volume_state(w.v) == VOLUME_READY && w.backoff == 0, "the session stays");
	volume_close(w.v);
	free(out);
	free(in);
}

/* What another node writes must be seen by the next read: nothing may be cached on the way. */
static void test_no_cache(const char *url, const char *file)
{
	uint8_t *buf = buffer(4096, 1);
	struct watched w;
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	printf("# NFS: no cache\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	TAP_OK(transfer(w.v, buf, 4096, 4096, true) == VOLUME_OK && transfer(w.v, buf, 4096, 4096, false) == VOLUME_OK, "written and read");
	TAP_OK(pwrite(fd, "other", 5, 4096) == 5, "changed by somebody else");
	TAP_OK(transfer(w.v, buf, 4096, 4096, false) == VOLUME_OK && memcmp(buf, "other", 5) == 0, "the next read sees it");
	volume_close(w.v);
	(void)close(fd);
	free(buf);
}

static void close_in_callback(struct op *op)
{
	volume_close(op->then_volume);
}

static void again_in_callback(struct op *op)
{
	op->then = NULL;
	volume_read(op->then_volume, &op->io);
}

static void test_reentrancy(const char *kind, const char *url)
{
	void *buf = buffer(8192, 7);
	struct watched w;
	struct op a, b;

	printf("# %s: calls from callbacks\n", kind);
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	start(&a, w.v, buf, 0, 4096, false, OP_MS);
	a.then = again_in_callback;
	a.then_volume = w.v;
	TAP_OK(wait_for(&a.settled, 2, PATIENCE_MS) && a.done == 2 && a.result == VOLUME_OK, "an io is used again from its own settled");
	start(&a, w.v, buf, SIZE, 4096, false, OP_MS); /* fails: out of range */
	a.then = close_in_callback;
	a.then_volume = w.v;
	start(&b, w.v, (char *)buf + 4096, 0, 4096, false, OP_MS);
	TAP_OK(wait_for(&a.settled, 1, PATIENCE_MS) && a.done == 1, "closed from inside done: settled");
	TAP_OK(b.done == 1 && b.settled == 1, "closed from inside done: the other operation was ended too");
	free(buf);
}

/* The server stops answering: each operation is told at its deadline at the latest, then the session goes; later it works again. */
static void test_stopped_server(const char *kind, const char *url, pid_t server)
{
	static const struct volume_options o = { .connect_timeout_ms = 1000, .backoff_ms = 100 };
	uint8_t *buf = buffer(3 * 4096, 0x5a), *other = buf + 4096, *check = buf + 8192;
	struct watched w;
	struct op a, b;
	int before;

	printf("# %s: server stopped and continued\n", kind);
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	memset(check, 0, 4096);
	TAP_OK(transfer(w.v, check, 65536, 4096, true) == VOLUME_OK, "zeroes written");
	servers_signal(server, SIGSTOP);
	start(&a, w.v, buf, 65536, 4096, true, 400);
	start(&b, w.v, other, 0, 4096, false, OP_MS);
	TAP_OK(wait_for(&a.done, 1, PATIENCE_MS) && a.result == VOLUME_E_TIMEOUT, "time-out: %s", volume_result_name(a.result));
	TAP_OK(a.done_ms - a.begun_ms >= 399 && a.done_ms - a.begun_ms < 400 + SLACK_MS, "at its deadline: %llu ms",
	       (unsigned long long)(a.done_ms - a.begun_ms));
	TAP_OK(wait_for(&a.settled, 1, PATIENCE_MS) && a.how == VOLUME_DESTROYED, "settled: destroyed");
	TAP_OK(wait_for(&b.settled, 1, PATIENCE_MS) && b.result == VOLUME_E_SESSION && b.how == VOLUME_DESTROYED,
	       "the other operation lost its session");
	TAP_OK(wait_for(&w.backoff, 2, PATIENCE_MS), "opening it again fails: %s", w.reason);
	before = w.ready;
	servers_signal(server, SIGCONT);
	TAP_OK(wait_for(&w.ready, before + 1, PATIENCE_MS), "ready again by itself");
	TAP_OK(transfer(w.v, check, 65536, 4096, false) == VOLUME_OK, "it reads");
	printf("# the write that timed out %s later\n", check[0] == 0x5a ? "landed" : "did not land (so far)");
	TAP_OK(a.done == 1 && a.settled == 1 && b.done == 1 && b.settled == 1, "no operation was reported twice");

	servers_signal(server, SIGSTOP);
	start(&a, w.v, buf, 65536, 4096, true, OP_MS);
	volume_close(w.v);
	TAP_OK(a.done == 1 && a.result == VOLUME_E_SESSION && a.settled == 1 && a.how == VOLUME_DESTROYED, "closed with a write under way");
	servers_signal(server, SIGCONT);
	free(buf);
}

static void test_killed_server(const char *kind, const char *url, pid_t *server, pid_t (*restart)(const char *), const char *dir)
{
	static const struct volume_options o = { .backoff_ms = 100 };
	uint8_t *buf = buffer(8192, 0x33);
	struct watched w;
	struct op a;

	printf("# %s: server killed and started again\n", kind);
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	TAP_OK(transfer(w.v, buf, 131072, 4096, true) == VOLUME_OK, "write");
	servers_signal(*server, SIGSTOP); /* so that the operation is under way for certain */
	start(&a, w.v, buf, 131072, 4096, false, PATIENCE_MS);
	servers_signal(*server, SIGKILL);
	TAP_OK(wait_for(&a.settled, 1, PATIENCE_MS) && a.result == VOLUME_E_SESSION && a.how == VOLUME_DESTROYED, "session lost");
	TAP_OK(a.done_ms - a.begun_ms < 5000, "noticed at once, not at the deadline");
	TAP_OK(wait_for(&w.backoff, 1, PATIENCE_MS), "lost: %s", w.reason);
	TAP_OK(wait_for(&w.backoff, 3, PATIENCE_MS) && strstr(w.reason, "refused"), "the reason says that nobody listens: %s", w.reason);
	*server = restart(dir);
	TAP_OK(*server > 0, "server is back");
	TAP_OK(wait_for(&w.ready, 2, PATIENCE_MS), "ready again by itself: %s", w.reason);
	memset(buf, 0, 4096);
	TAP_OK(transfer(w.v, buf, 131072, 4096, false) == VOLUME_OK && buf[0] == 0x33, "what was written is there");
	volume_close(w.v);
	free(buf);
}

static void test_read_only(const char *kind, const char *url, bool by_option)
{
	const struct volume_options o = { .read_only = by_option };
	void *buf = buffer(4096, 1);
	struct watched w;

	printf("# %s: read-only %s\n", kind, by_option ? "by option" : "target");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "%s ready %s", kind, w.reason);
	TAP_OK(transfer(w.v, buf, 0, 4096, true) == VOLUME_E_READONLY, "write refused as read-only");
	printf("# %s\n", volume_refusal(w.v));
	TAP_OK(transfer(w.v, buf, 0, 4096, false) == VOLUME_OK, "read works");
	TAP_OK(w.backoff == 0, "the session stays");
	volume_close(w.v);
	free(buf);
}

/* Opening must fail, for a reason that contains a word, and go on trying. */
static void test_refused(const char *what, const char *url, const struct volume_options *o, const char *word)
{
	struct watched w;

	TAP_OK(open_volume(&w, url, o), "%s: open", what);
	TAP_OK(wait_for(&w.backoff, 2, PATIENCE_MS) && w.ready == 0 && w.opening >= 1, "%s: fails and is tried again", what);
	TAP_OK(strstr(w.reason, word) != NULL, "%s: \"%s\"", what, w.reason);
	volume_close(w.v);
}

/* The target must prove itself, too: a wrong answer and none at all are refused. */
static void test_mutual_chap(const char *url, const char *secret)
{
	const struct volume_options o = { .backoff_ms = 50, .secret_file = secret };
	char oneway[256];
	struct watched w;

	servers_file(secret, 0, 0600, "user=guest\npassword=correct-horse\ntarget-user=disk\ntarget-password=battery-staple\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "both prove themselves: ready %s", w.reason);
	volume_close(w.v);
	(void)snprintf(oneway, sizeof(oneway), "iscsi://127.0.0.1:%d/iqn.2026-01.test:oneway/1", SERVERS_ISCSI_PORT);
	test_refused("a target that does not prove itself", oneway, &o, "logging in");
	servers_file(secret, 0, 0600, "user=guest\npassword=correct-horse\ntarget-user=disk\ntarget-password=another-staple\n");
	test_refused("a target with another password", url, &o, "logging in");
	servers_file(secret, 0, 0600, "user=guest\npassword=correct-horse\ntarget-user=other\ntarget-password=battery-staple\n");
	test_refused("a target with another name", url, &o, "logging in");
}

static void test_chap(const char *dir)
{
	struct volume_options o = { .backoff_ms = 50 };
	char url[256], secret[512], err[256];
	struct watched w;

	printf("# CHAP\n");
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:chap/1", SERVERS_ISCSI_PORT);
	(void)snprintf(secret, sizeof(secret), "%s/secret", dir);
	test_refused("no secret", url, &o, "logging in");
	o.secret_file = secret;
	servers_file(secret, 0, 0600, "# of the test\nuser=guest\npassword=wrong-horse-x\n");
	test_refused("wrong secret", url, &o, "logging in");
	servers_file(secret, 0, 0600, "user=guest\npassword=correct-horse\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "right secret: ready %s", w.reason);
	volume_close(w.v);
	test_mutual_chap(url, secret);
	servers_file(secret, 0, 0600, "user=guest\npassword=wrong-horse-x\n[iqn.2026-01.test:chap]\nuser=guest\npassword=correct-horse\n"
		     "[iqn.2026-01.test:none]\nuser=x\npassword=y\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "the target's own part counts: ready %s", w.reason);
	volume_close(w.v);
	servers_file(secret, 0, 0600, "[iqn.2026-01.test:none]\nuser=guest\npassword=correct-horse\n");
	test_refused("a part for another target only", url, &o, "logging in");
	TAP_OK(open_volume(&w, iscsi_url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "a target without CHAP that the file does not name: ready %s", w.reason);
	volume_close(w.v);
	static const struct { mode_t mode; const char *text, *word; } bad[] = {
		{ 0640, "user=guest\npassword=correct-horse\n", "0600" },
		{ 0600, "user=guest\n", "both" },
		{ 0600, "user=guest\npassword=x\npassword=y\n", ":3:" },
		{ 0600, "user=guest\npassword=x\nhunter2\n", ":3:" },
		{ 0600, "user=guest\npassword=x\ntarget-user=t\n", "together" },
		{ 0600, "user=guest\npassword=x\ntarget-user=t\ntarget-password=x\n", "differ" },
		{ 0600, "\n# nothing\n", "both" },
		{ 0600, "[iqn.2026-01.test:a]\nuser=guest\n", ":1: user= and" },
		{ 0600, "[iqn.2026-01.test:a]\nuser=g\npassword=x\n\n[iqn.2026-01.test:b]\npassword=x\n", ":5: user= and" },
		{ 0600, "[iqn.2026-01.test:a]\nuser=g\npassword=x\n[iqn.2026-01.test:a]\nuser=g\npassword=x\n", ":4: this target" },
		{ 0600, "user=guest\npassword=x\n[hunter2]\n", ":3: write the target's name" },
		{ 0600, "user=guest\npassword=x\n[iqn.2026-01.test:a\n", ":3: write the target's name" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		servers_file(secret, 0, bad[i].mode, bad[i].text);
		TAP_OK(volume_open(loop, url, &o, on_state, &w, &w.v, err, sizeof(err)) == -EINVAL && strstr(err, bad[i].word), "%s", err);
		TAP_OK(!strstr(err, "hunter2") && !strstr(err, "correct-horse"), "no secret in the message");
	}
	o.secret_file = "/var/tmp";
	TAP_OK(volume_open(loop, url, &o, on_state, &w, &w.v, err, sizeof(err)) == -EINVAL, "%s", err);
	o = (struct volume_options){ .initiator = "nonsense" };
	TAP_OK(volume_open(loop, url, &o, on_state, &w, &w.v, err, sizeof(err)) == -EINVAL && strstr(err, "iqn."), "%s", err);
}

static void test_urls(void)
{
	static const struct { const char *url, *word; } bad[] = {
		{ "", "empty" },
		{ "http://10.0.0.1/x", "no volume" },
		{ "relative/path", "no volume" },
		{ "iscsi://", "no server" },
		{ "iscsi://10.0.0.1", "missing" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a", "missing" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/", "LUN" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/x", "LUN" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/-1", "LUN" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/16384", "LUN" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/1/2", "LUN" },
		{ "iscsi://10.0.0.1/disk/1", "iqn." },
		{ "iscsi://10.0.0.1/iqn.a%41/1", "iqn." },
		{ "iscsi://10.0.0.1:0/iqn.2026-01.test:a/1", "port" },
		{ "iscsi://10.0.0.1:65536/iqn.2026-01.test:a/1", "port" },
		{ "iscsi://10.0.0.1:/iqn.2026-01.test:a/1", "port" },
		{ "iscsi://10.0.0.1:99999999999999999999/iqn.2026-01.test:a/1", "port" },
		{ "iscsi://san.example.org/iqn.2026-01.test:a/1", "IP address" },
		{ "iscsi://10.0.0.256/iqn.2026-01.test:a/1", "IP address" },
		{ "iscsi://::1/iqn.2026-01.test:a/1", "no server" },
		{ "iscsi://[::1/iqn.2026-01.test:a/1", "]" },
		{ "iscsi://[::1]x/iqn.2026-01.test:a/1", "]" },
		{ "iscsi://user%pass@10.0.0.1/iqn.2026-01.test:a/1", "secret file" },
		{ "iscsi://10.0.0.1,/iqn.2026-01.test:a/1", "no server" },
		{ "iscsi://10.0.0.1,,10.0.0.2/iqn.2026-01.test:a/1", "no server" },
		{ "iscsi://10.0.0.1,san2/iqn.2026-01.test:a/1", "IP address" },
		{ "iscsi://10.0.0.1,10.0.0.2:x/iqn.2026-01.test:a/1", "port" },
		{ "iscsi://10.0.0.1,10.0.0.1:3260/iqn.2026-01.test:a/1", "twice" },
		{ "iscsi://[fe80::1],[fe80:0::1]/iqn.2026-01.test:a/1", "twice" },
		{ "iscsi://10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5/iqn.2026-01.test:a/1", "more than 4" },
		{ "iscsi://10.0.0.1,me@10.0.0.2/iqn.2026-01.test:a/1", "secret file" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/1?header-digest=md5", "crc32c" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/1?header-digest", "crc32c" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/1?data-digest=crc32c", "no data digests" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/1?lun=2", "option" },
		{ "iscsi://10.0.0.1/iqn.2026-01.test:a/?header-digest=crc32c", "LUN" },
		{ "nfs://10.0.0.1,10.0.0.1/export/f", "twice" },
		{ "nfs://10.0.0.1,10.0.0.2:2049/export/f", "nfsport" },
		{ "nfs://10.0.0.1", "missing" },
		{ "nfs://10.0.0.1?nfsport=1", "missing" },
		{ "nfs://10.0.0.1/file", "missing" },
		{ "nfs://10.0.0.1/export/", "directory" },
		{ "nfs://10.0.0.1/export/../f", ".." },
		{ "nfs://10.0.0.1:2049/export/f", "nfsport" },
		{ "nfs://10.0.0.1/export/f?version=4", "version 3" },
		{ "nfs://10.0.0.1/export/f?version", "version 3" },
		{ "nfs://10.0.0.1/export/f?nfsport=x", "port" },
		{ "nfs://10.0.0.1/export/f?nfsport", "option" },
		{ "nfs://10.0.0.1/export/f?autoreconnect=-1", "option" },
		{ "nfs://10.0.0.1/export/f?nfsport=1&uid=0", "option" },
		{ "nfs://server/export/f", "IP address" },
		{ "/", "directory" },
		{ "/dev/", "directory" },
		{ "/srv/../etc/shadow", ".." },
		{ "/srv/..", ".." },
		{ "/srv/a b", "blank" },
		{ "/srv/a\nb", "blank" },
	};
	static const char *const good[] = { "iscsi://10.0.0.1/iqn.2026-01.test:a/0", "iscsi://[fe80::1]:3261/eui.0123456789abcdef/16383",
		"nfs://10.0.0.1/export/f", "nfs://[::1]/a/b/c?nfsport=1&mountport=65535", "nfs://10.0.0.1/e/f?version=3", "/dev/sda",
		"iscsi://10.0.0.1,10.0.1.1:3261,[fe80::1]/iqn.2026-01.test:a/0?header-digest=crc32c", "iscsi://10.0.0.1,10.0.0.1:3261/iqn.2026-01.test:a/0",
		"iscsi://10.0.0.1/iqn.2026-01.test:a/0?header-digest=none", "nfs://10.0.0.1,[::1]/e/f?nfsport=1" };
	char err[256], long_url[2000];

	printf("# URLs\n");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err[0] = '\0';
		TAP_OK(volume_url_check(bad[i].url, err, sizeof(err)) == -EINVAL && strstr(err, bad[i].word), "refused: %s", err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		TAP_OK(volume_url_check(good[i], err, sizeof(err)) == 0, "accepted: %s", good[i]);
	memset(long_url, 'x', sizeof(long_url));
	long_url[0] = '/';
	long_url[sizeof(long_url) - 1] = '\0';
	TAP_OK(volume_url_check(long_url, err, sizeof(err)) == -EINVAL && strstr(err, "longer"), "refused: %s", err);
}

static void test_refusals(const char *dir)
{
	static const struct volume_options o = { .connect_timeout_ms = 3000, .backoff_ms = 50 };
	char path[512], url[600];

	printf("# refusals\n");
	test_refused("iSCSI, nobody listens", "iscsi://127.0.0.1:1/iqn.2026-01.test:plain/1", &o, "refused");
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:none/1", SERVERS_ISCSI_PORT);
	test_refused("iSCSI, no such target", url, &o, "logging in");
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:odd/1", SERVERS_ISCSI_PORT);
	test_refused("iSCSI, blocks of 1024 bytes", url, &o, "only 512 and 4096 are supported");
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:plain/7", SERVERS_ISCSI_PORT);
	test_refused("iSCSI, no such LUN", url, &o, "LUN 7");
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:plain/0", SERVERS_ISCSI_PORT);
	test_refused("iSCSI, a controller, not a disk", url, &o, "no disk");
	test_refused("NFS, nobody listens", "nfs://127.0.0.1/e/f?nfsport=1&mountport=1", &o, "refused");
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/nothing/f?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	test_refused("NFS, no such export", url, &o, "mounting");
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/export/sub/none?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	test_refused("NFS, no such file", url, &o, "No such file");
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/export/sub?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	test_refused("NFS, a directory", url, &o, "not a regular file");
	(void)snprintf(path, sizeof(path), "%s/none", dir);
	test_refused("path, missing", path, &o, "No such file");
	test_refused("path, a directory", dir, &o, "a directory");
	test_refused("path, a character device", "/dev/null", &o, "character device");
	(void)snprintf(path, sizeof(path), "%s/fifo", dir);
	TAP_OK(mkfifo(path, 0600) == 0, "a pipe");
	test_refused("path, a pipe", path, &o, "a pipe");
}

static struct iscsi_context *stranger(void)
{
	struct iscsi_context *c = iscsi_create_context("iqn.2026-01.test:stranger");
	char portal[64];

	(void)snprintf(portal, sizeof(portal), "127.0.0.1:%d", SERVERS_ISCSI_PORT);
	(void)iscsi_set_targetname(c, "iqn.2026-01.test:plain");
	(void)iscsi_set_session_type(c, ISCSI_SESSION_NORMAL);
	TAP_OK(iscsi_full_connect_sync(c, portal, 1) == 0, "a stranger logs in");
	return c;
}

/* Somebody resets the LUN: every other session gets a unit attention, on a command that was not carried out. */
static void lun_reset(void)
{
	struct iscsi_context *c = stranger();

	TAP_OK(iscsi_task_mgmt_lun_reset_sync(c, 1) == 0, "LUN reset: %s", iscsi_get_error(c));
	(void)iscsi_destroy_context(c);
}

static bool reserve(struct iscsi_context *c, int action)
{
	struct scsi_persistent_reserve_out_basic p = { .reservation_key = action == SCSI_PERSISTENT_RESERVE_REGISTER ? 0 : 0xabc, .service_action_reservation_key = 0xabc };
	struct scsi_task *task;
	bool good = false;

	for (unsigned i = 0; i < 3 && !good; i++) { /* the first one may meet a unit attention */
		task = iscsi_persistent_reserve_out_sync(c, 1, action, SCSI_PERSISTENT_RESERVE_SCOPE_LU, SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE, &p);
		good = task && task->status == SCSI_STATUS_GOOD;
		scsi_free_scsi_task(task);
	}
	return good;
}

/* Somebody's reservation, a stale one perhaps. */
static void test_reserved(const char *url)
{
	uint8_t *buf = buffer(4096, 0x31);
	struct iscsi_context *c = stranger();
	struct watched w;

	printf("# iSCSI: reserved by somebody else\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS) && transfer(w.v, buf, 4096, 4096, true) == VOLUME_OK, "written");
	TAP_OK(reserve(c, SCSI_PERSISTENT_RESERVE_REGISTER) && reserve(c, SCSI_PERSISTENT_RESERVE_RESERVE), "it is reserved");
	TAP_OK(transfer(w.v, buf, 4096, 4096, true) == VOLUME_E_IO && strstr(volume_refusal(w.v), "RESERVATION CONFLICT"), "a write is refused: %s", volume_refusal(w.v));
	TAP_OK(transfer(w.v, buf, 4096, 4096, false) == VOLUME_OK && w.backoff == 0, "it is read, in the same session");
	TAP_OK(reserve(c, SCSI_PERSISTENT_RESERVE_CLEAR), "the reservation is taken away");
	TAP_OK(transfer(w.v, buf, 4096, 4096, true) == VOLUME_OK && !*volume_refusal(w.v), "and it is written");
	volume_close(w.v);
	(void)iscsi_destroy_context(c);
	free(buf);
}

static void test_lun_reset(const char *url)
{
	uint8_t *buf = buffer(8192, 0x21);
	struct watched w;

	printf("# iSCSI: LUN reset\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	TAP_OK(transfer(w.v, buf, 4096, 8192, true) == VOLUME_OK, "written");
	lun_reset();
	TAP_OK(transfer(w.v, buf, 4096, 4096, true) == VOLUME_OK, "the first write after it");
	lun_reset();
	TAP_OK(transfer(w.v, buf, 4096, 8192, false) == VOLUME_OK && buf[0] == 0x21 && buf[8191] == 0x21, "the first read after it");
	TAP_OK(w.backoff == 0, "the session stays");
	volume_close(w.v);
	free(buf);
}

/* ---- tgtd knows FUA always; so that it is as LIO here ---- */

static enum { AS_IT_IS, NO_FUA_WITHOUT_CACHE, NO_FUA, NO_MODE_SENSE } lun_kind;
static bool has_cache = true;
static int with_fua, without_fua; /* writes sent */

static bool knows_fua(void) { return lun_kind != NO_FUA && (lun_kind != NO_FUA_WITHOUT_CACHE || has_cache); }

void *__real_scsi_datain_unmarshall(struct scsi_task *task);
void *__wrap_scsi_datain_unmarshall(struct scsi_task *task);
struct scsi_task *__real_iscsi_modesense6_task(struct iscsi_context *c, int lun, int dbd, int pc, int page, int sub_page, unsigned char len, iscsi_command_cb cb,
					       void *user);
struct scsi_task *__wrap_iscsi_modesense6_task(struct iscsi_context *c, int lun, int dbd, int pc, int page, int sub_page, unsigned char len, iscsi_command_cb cb,
					       void *user);
struct scsi_task *__real_iscsi_write16_task(struct iscsi_context *c, int lun, uint64_t lba, unsigned char *data, uint32_t len, int block, int wrprotect, int dpo,
					    int fua, int fua_nv, int group, iscsi_command_cb cb, void *user);
struct scsi_task *__wrap_iscsi_write16_task(struct iscsi_context *c, int lun, uint64_t lba, unsigned char *data, uint32_t len, int block, int wrprotect, int dpo,
					    int fua, int fua_nv, int group, iscsi_command_cb cb, void *user);

void *__wrap_scsi_datain_unmarshall(struct scsi_task *task)
{
	void *data = __real_scsi_datain_unmarshall(task);

	if (data && task->cdb[0] == SCSI_OPCODE_MODESENSE6 && !knows_fua())
		((struct scsi_mode_sense *)data)->device_specific_parameter &= 0xef;
	return data;
}

struct scsi_task *__wrap_iscsi_modesense6_task(struct iscsi_context *c, int lun, int dbd, int pc, int page, int sub_page, unsigned char len, iscsi_command_cb cb,
					       void *user)
{
	return __real_iscsi_modesense6_task(c, lun, dbd, pc, lun_kind == NO_MODE_SENSE ? 0x15 : page, sub_page, len, cb, user); /* a page that no disk has */
}

/* Protection information is what tgtd does not know: 5/24/00, as LIO says to FUA. */
struct scsi_task *__wrap_iscsi_write16_task(struct iscsi_context *c, int lun, uint64_t lba, unsigned char *data, uint32_t len, int block, int wrprotect, int dpo,
					    int fua, int fua_nv, int group, iscsi_command_cb cb, void *user)
{
	with_fua += fua;
	without_fua += !fua;
	return __real_iscsi_write16_task(c, lun, lba, data, len, block, fua && !knows_fua() ? 1 : wrprotect, dpo, fua, fua_nv, group, cb, user);
}

/* By another initiator: everybody else gets a unit attention. */
static bool select_cache(struct iscsi_context *c, bool on)
{
	struct scsi_mode_page page = { .page_code = SCSI_MODEPAGE_CACHING, /* as tgtd has it: only WCE may change */
				       .caching = { .disc = 1, .wce = on, .disable_prefetch_transfer_length = 0xffff, .maximum_prefetch = 0xffff,
						    .maximum_prefetch_ceiling = 0xffff, .fsw = 1, .number_of_cache_segments = 0x14 } };
	struct scsi_task *task;
	bool good = false;

	for (unsigned i = 0; i < 3 && !good; i++) { /* the first one may meet a unit attention */
		task = iscsi_modeselect6_sync(c, 1, 1, 0, &page);
		good = task && task->status == SCSI_STATUS_GOOD;
		scsi_free_scsi_task(task);
	}
	has_cache = good ? on : has_cache;
	return good;
}

static bool writes(struct volume *v, uint8_t *buf, bool fua)
{
	with_fua = without_fua = 0;
	return transfer(v, buf, 0, 4096, true) == VOLUME_OK && with_fua == fua && without_fua == !fua;
}

static void test_fua(const char *url)
{
	static const struct volume_options o = { .backoff_ms = 50 };
	const struct volume_options reading = { .backoff_ms = 50, .read_only = true };
	uint8_t *buf = buffer(4096, 0x51);
	struct iscsi_context *c = stranger();
	struct watched w;
	struct op op;

	printf("# iSCSI: FUA and the write cache\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS) && writes(w.v, buf, true), "with a cache: FUA");
	lun_kind = NO_FUA_WITHOUT_CACHE;
	TAP_OK(select_cache(c, false), "the cache is switched off, and the LUN knows FUA no more");
	start(&op, w.v, buf, 0, 4096, true, OP_MS);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_E_IO && op.how == VOLUME_COMPLETED, "a write is refused");
	TAP_OK(wait_for(&w.backoff, 1, PATIENCE_MS) && strstr(w.reason, "FUA") && wait_for(&w.ready, 2, PATIENCE_MS), "it is asked anew: %s", w.reason);
	TAP_OK(writes(w.v, buf, false), "and written without FUA");
	TAP_OK(select_cache(c, true), "the cache is switched on");
	start(&op, w.v, buf, 0, 4096, true, OP_MS);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_E_IO && wait_for(&w.backoff, 2, PATIENCE_MS) && wait_for(&w.ready, 3, PATIENCE_MS),
	       "a write meets the news: %s", w.reason);
	TAP_OK(writes(w.v, buf, true), "and it is written with FUA again");
	volume_close(w.v);

	lun_kind = NO_FUA;
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "a cache, and no FUA: opened, as it may take it all the same");
	start(&op, w.v, buf, 0, 4096, true, OP_MS);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_E_IO && wait_for(&w.backoff, 1, PATIENCE_MS) && strstr(w.reason, "switch its write cache off"),
	       "it does not: %s", w.reason);
	volume_close(w.v);
	TAP_OK(open_volume(&w, url, &reading) && wait_for(&w.ready, 1, PATIENCE_MS) && transfer(w.v, buf, 0, 4096, false) == VOLUME_OK, "who only reads does not mind");
	volume_close(w.v);
	lun_kind = NO_MODE_SENSE;
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS) && writes(w.v, buf, true), "it does not tell: FUA");
	volume_close(w.v);
	lun_kind = AS_IT_IS;
	(void)iscsi_destroy_context(c);
	free(buf);
}

/* Room for less than the LUN or file claims to have. */
static void test_full(const char *kind, const char *url, const char *dir, enum volume_result want)
{
	uint8_t *buf = buffer(1U << 20, 0x66);
	char filler[512];
	struct watched w;

	printf("# %s: full\n", kind);
	(void)snprintf(filler, sizeof(filler), "%s/small/filler", dir);
	(void)servers_run("dd if=/dev/zero of=%s bs=64k 2>/dev/null", filler);
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "%s ready %s", kind, w.reason);
	TAP_OK(transfer(w.v, buf, 0, 4096, true) == want, "a write: %s", volume_result_name(want));
	TAP_OK(*volume_refusal(w.v), "it tells what was said: %s", volume_refusal(w.v));
	TAP_OK(transfer(w.v, buf, 0, 4096, false) == VOLUME_OK && buf[0] == 0, "read works, nothing was written");
	TAP_OK(unlink(filler) == 0, "somebody makes room");
	TAP_OK(transfer(w.v, buf, 0, 4096, true) == VOLUME_OK && w.backoff == 0, "it writes again, in the same session");
	volume_close(w.v);
	free(buf);
}

/* By another client, as the server notices at once then. */
static void remove_by_nfs(const char *dir)
{
	struct nfs_context *c = nfs_init_context();
	char url[600];
	struct nfs_url *parsed;

	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/export/sub/volume?version=3&nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	parsed = nfs_parse_url_full(c, url);
	TAP_OK(parsed && nfs_mount(c, parsed->server, parsed->path) == 0 && nfs_unlink(c, parsed->file) == 0, "the file is removed");
	nfs_destroy_url(parsed);
	nfs_destroy_context(c);
}

/* libnfs asks the name service for the name of each port it might come from. Here that is a pipe that nobody writes to, as sssd or LDAP may be. */
static void test_name_service(const char *url, const char *dir)
{
	static const char *const programs[] = { "ha-keeper", "ha-agent", "ha-ctl" };
	const char *build = getenv("KVM_HA_BUILD_DIR");
	char pipe_path[512];
	struct watched w;

	printf("# NFS: a name service that hangs\n");
	(void)snprintf(pipe_path, sizeof(pipe_path), "%s/services", dir);
	TAP_OK(mkfifo(pipe_path, 0600) == 0 && mount(pipe_path, "/etc/services", NULL, MS_BIND, NULL) == 0, "a pipe for /etc/services");
	(void)alarm(PATIENCE_MS / 1000); /* or this would hang, too */
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "the volume opens all the same");
	(void)alarm(0);
	volume_close(w.v);
	TAP_OK(umount("/etc/services") == 0, "back");
	for (size_t i = 0; i < ARRAY_SIZE(programs) && build; i++)
		TAP_OK(servers_run("LD_BIND_NOW=1 LD_DEBUG=bindings %s/%s --version 2>&1 | grep -q 'libnfs.*to [^ ]*/%s .*getservbyport'", build, programs[i], programs[i]) == 0,
		       "the library calls ours in %s", programs[i]);
}

/* The file is replaced on the server by another of its name. */
static void test_stale(const char *url, const char *dir)
{
	uint8_t *buf = buffer(4096, 0x77);
	char file[512];
	struct watched w;
	struct op op;

	printf("# NFS: stale handle\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	TAP_OK(transfer(w.v, buf, 0, 4096, true) == VOLUME_OK, "written");
	remove_by_nfs(dir);
	(void)snprintf(file, sizeof(file), "%s/export/sub/volume", dir);
	servers_file(file, SIZE, 0600, NULL);
	start(&op, w.v, buf, 0, 4096, true, OP_MS);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_E_IO && op.how == VOLUME_COMPLETED, "a write to the old one is refused");
	TAP_OK(wait_for(&w.backoff, 1, PATIENCE_MS) && strstr(w.reason, "replaced"), "it is told why: %s", w.reason);
	TAP_OK(wait_for(&w.ready, 2, PATIENCE_MS) && transfer(w.v, buf, 0, 4096, false) == VOLUME_OK && buf[0] == 0, "the new file is opened");
	volume_close(w.v);
	free(buf);
}

static void test_root_squash(const char *dir)
{
	char url[600], file[512];
	void *buf = buffer(4096, 1);
	struct watched w;

	printf("# NFS: root squash\n");
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/squashed-export/sub/volume?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	(void)snprintf(file, sizeof(file), "%s/squashed-export/sub/volume", dir);
	TAP_OK(chmod(file, 0600) == 0, "only root may read the file");
	test_refused("NFS, root is squashed", url, NULL, "root squash");
	TAP_OK(chmod(file, 0644) == 0, "others may read it");
	test_read_only("NFS, root is squashed", url, false);
	TAP_OK(chmod(file, 0600) == 0 && servers_run("chown 65534:65534 %s", file) == 0, "it belongs to whom root is squashed to");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS) && transfer(w.v, buf, 0, 4096, true) == VOLUME_OK, "it works %s", w.reason);
	volume_close(w.v);
	free(buf);
}

/* A page that is missing until we say so: a system call that needs it hangs, as one on a dead disk would. */
static void *hanging_page(int *ret_fd)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *page = mmap(NULL, VOLUME_ALIGN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	reg.range.start = (uintptr_t)page;
	reg.range.len = VOLUME_ALIGN;
	if (fd < 0 || page == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		abort();
	*ret_fd = fd;
	return page;
}

static void release_page(int fd, void *page)
{
	struct uffdio_zeropage zero = { .range = { .start = (uintptr_t)page, .len = VOLUME_ALIGN } };

	if (ioctl(fd, UFFDIO_ZEROPAGE, &zero) < 0)
		abort();
	(void)close(fd);
}

#define HANGS 8

static void test_path_hangs(const char *url)
{
	static const struct volume_options o = { .backoff_ms = 20 };
	struct op ops[HANGS], queued;
	void *pages[HANGS], *buf = buffer(4096, 9);
	int fds[HANGS], settled = 0, ready;
	struct watched w;

	printf("# path: system calls that hang\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	for (int i = 0; i < HANGS; i++) {
		pages[i] = hanging_page(&fds[i]);
		/* reads: a write would lock the others out of the inode */
		start(&ops[i], w.v, pages[i], 8192, 4096, false, 100);
		if (i == 0)
			start(&queued, w.v, buf, 0, 4096, true, OP_MS);
		TAP_OK(wait_for(&ops[i].done, 1, PATIENCE_MS) && ops[i].result == VOLUME_E_TIMEOUT &&
		       ops[i].done_ms - ops[i].begun_ms < 100 + SLACK_MS, "call %d: time-out at its deadline", i);
		if (i == 0)
			TAP_OK(wait_for(&queued.settled, 1, PATIENCE_MS) && queued.result == VOLUME_E_SESSION && queued.how == VOLUME_DESTROYED,
			       "the write behind it was dropped");
		if (i < HANGS - 1)
			TAP_OK(wait_for(&w.ready, i + 2, PATIENCE_MS), "a fresh worker serves");
	}
	TAP_OK(wait_for(&w.backoff, HANGS + 2, PATIENCE_MS) && strstr(w.reason, "hang"), "no more workers: %s", w.reason);
	for (int i = 0; i < HANGS; i++)
		settled += ops[i].settled;
	TAP_OK(settled == 0, "nothing that hangs is settled");
	ready = w.ready;
	release_page(fds[0], pages[0]);
	TAP_OK(wait_for(&ops[0].settled, 1, PATIENCE_MS) && ops[0].how == VOLUME_COMPLETED && ops[0].done == 1, "settled when its call returned");
	TAP_OK(wait_for(&w.ready, ready + 1, PATIENCE_MS), "and the volume works again");
	TAP_OK(transfer(w.v, buf, 8192, 4096, true) == VOLUME_OK, "it writes");
	start(&queued, w.v, buf, 0, 4096, false, OP_MS);
	volume_close(w.v);
	TAP_OK(queued.done == 1, "closed with an operation under way");
	TAP_OK(wait_for(&queued.settled, 1, PATIENCE_MS), "it is settled");
	for (int i = 1; i < HANGS; i++) {
		release_page(fds[i], pages[i]);
		TAP_OK(wait_for(&ops[i].settled, 1, PATIENCE_MS) && ops[i].how == VOLUME_COMPLETED, "call %d outlived the volume and is settled", i);
	}
	for (int i = 0; i < HANGS; i++)
		(void)munmap(pages[i], VOLUME_ALIGN);
	free(buf);
}

/* Closed while the one call hangs; done comes from the close, settled from the loop. */
static void test_path_close_hanging(const char *url)
{
	struct watched w;
	struct op op;
	void *page;
	int fd;

	printf("# path: closed while a call hangs\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	page = hanging_page(&fd);
	start(&op, w.v, page, 0, 4096, false, 60000);
	for (struct { struct uffd_msg msg; int got; } m = { .got = 0 }; !m.got; ) /* until the call is seen to hang */
		m.got = read(fd, &m.msg, sizeof(m.msg)) == sizeof(m.msg);
	volume_close(w.v);
	TAP_OK(op.done == 1 && op.result == VOLUME_E_SESSION && op.settled == 0, "done, not settled");
	TAP_OK(!op.io.is_write && op.io.volume == NULL, "the io stays readable");
	release_page(fd, page);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.how == VOLUME_COMPLETED && op.done == 1, "settled when the call returned");
	(void)munmap(page, VOLUME_ALIGN);
}

/* ---- what pwrite says instead of writing ---- */

static atomic_int write_errno; /* 0: it writes */
static atomic_bool write_hangs, write_is_hanging;

ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t offset);

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	while (atomic_load(&write_hangs)) {
		atomic_store(&write_is_hanging, true);
		(void)usleep(1000);
	}
	if (atomic_load(&write_errno) == 0)
		return __real_pwrite(fd, buf, n, offset);
	errno = atomic_load(&write_errno);
	return -1;
}

static char why[VOLUME_REASON_LEN];

static void done_why(struct volume_io *io, enum volume_result result)
{
	(void)str_copy(why, sizeof(why), volume_why(io->volume, result));
	op_done(io, result);
}

static void start_write(struct op *op, struct volume *v, uint8_t *buf, uint32_t timeout_ms)
{
	start(op, v, buf, 65536, 4096, true, timeout_ms);
	op->io.done = done_why; /* nothing is reported from inside the submit */
}

/* The kernel's word for a write that the target has not answered: it may land yet, so whoever writes there next must drain first. */
static void test_path_unknown_writes(const char *url)
{
	static const int unknown[] = { EIO, ETIMEDOUT, ENOLINK, ENOTCONN, EREMOTEIO, ESTALE, ENODEV };
	static const struct volume_options o = { .backoff_ms = 20 };
	uint8_t *buf = buffer(4096, 0x41);
	struct watched w;
	uint64_t begun;
	struct slot s;
	struct op op;
	int ready;

	printf("# path: errors that say nothing of a write\n");
	TAP_OK(open_volume(&w, url, &o) && wait_for(&w.ready, 1, PATIENCE_MS) && transfer(w.v, buf, 65536, 4096, true) == VOLUME_OK, "written");
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		const char *name = strerror(unknown[i]);

		slot_init(&s, 0);
		s.state = SLOT_IDLE;
		slot_written(&s, 1, 7);
		atomic_store(&write_errno, unknown[i]);
		start_write(&op, w.v, buf, OP_MS);
		TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == VOLUME_E_SESSION && op.how == VOLUME_DESTROYED && op.done == 1, "%s: nobody knows", name);
		slot_done(&s, false, op.result != VOLUME_E_SESSION);
		slot_settled(&s, op.how == VOLUME_COMPLETED, 1);
		TAP_OK(!slot_writable(&s), "its slot is drained first: %s", slot_state_name(s.state));
		TAP_OK(unknown[i] == ENOTCONN || unknown[i] == ESTALE || unknown[i] == ENODEV ? strstr(why, "gone") : strstr(why, name), "it is told why: %s", why);
		atomic_store(&write_errno, 0);
		TAP_OK(wait_for(&w.ready, (int)i + 2, PATIENCE_MS) && transfer(w.v, buf, 65536, 4096, false) == VOLUME_OK, "a new session reads");
	}

	printf("# path: every write fails\n");
	TAP_OK(transfer(w.v, buf, 65536, 4096, true) == VOLUME_OK, "one is written");
	atomic_store(&write_errno, EIO);
	begun = now_ms();
	for (int i = 0; i < 6; i++) {
		ready = w.ready;
		start_write(&op, w.v, buf, OP_MS);
		TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && wait_for(&w.ready, ready + 1, PATIENCE_MS) && transfer(w.v, buf, 0, 4096, false) == VOLUME_OK,
		       "it fails, and the volume reads again");
	}
	TAP_OK(now_ms() - begun >= 20 + 40 + 80 + 160 + 320 + 320, "each new session comes after a longer wait, up to a limit");

	ready = w.ready;
	atomic_store(&write_hangs, true);
	start_write(&op, w.v, buf, 100);
	TAP_OK(wait_for(&op.done, 1, PATIENCE_MS) && op.result == VOLUME_E_TIMEOUT && op.settled == 0 && atomic_load(&write_is_hanging), "one hangs in the kernel");
	atomic_store(&write_hangs, false);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.how == VOLUME_DESTROYED && op.done == 1, "and fails in the end: as unknown as the others");
	TAP_OK(wait_for(&w.ready, ready + 1, PATIENCE_MS), "ready again");
	start_write(&op, w.v, buf, OP_MS);
	volume_close(w.v);
	TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.how == VOLUME_DESTROYED && op.done == 1, "closed with one under way");
	atomic_store(&write_errno, 0);
	free(buf);
}

static void test_path_refused_writes(const char *url)
{
	static const struct { int err; enum volume_result result; } refused[] = {
		{ EROFS, VOLUME_E_READONLY }, { EPERM, VOLUME_E_READONLY }, { EACCES, VOLUME_E_READONLY }, { ENOSPC, VOLUME_E_NOSPACE }, { EDQUOT, VOLUME_E_NOSPACE },
		{ EINVAL, VOLUME_E_IO }, { EFBIG, VOLUME_E_IO }, { EBADE, VOLUME_E_IO },
	};
	uint8_t *buf = buffer(4096, 0x42);
	struct watched w;
	struct op op;

	printf("# path: writes that are refused\n");
	TAP_OK(open_volume(&w, url, NULL) && wait_for(&w.ready, 1, PATIENCE_MS), "ready");
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		atomic_store(&write_errno, refused[i].err);
		start_write(&op, w.v, buf, OP_MS);
		TAP_OK(wait_for(&op.settled, 1, PATIENCE_MS) && op.result == refused[i].result && op.how == VOLUME_COMPLETED, "%s: %s, definite", strerror(refused[i].err),
		       volume_result_name(refused[i].result));
		TAP_OK(strstr(why, strerror(refused[i].err)), "it is told why: %s", why);
	}
	atomic_store(&write_errno, 0);
	TAP_OK(transfer(w.v, buf, 65536, 4096, true) == VOLUME_OK && w.backoff == 0, "it writes again, in the same session");
	volume_close(w.v);
	free(buf);
}

static void test_path(const char *dir)
{
	char fixed[512];

	servers_file(file_url, SIZE, 0600, NULL);
	test_transfers("path", file_url);
	test_reentrancy("path", file_url);
	test_read_only("path", file_url, true);
	(void)snprintf(fixed, sizeof(fixed), "%s/fixed-mount", dir);
	(void)mkdir(fixed, 0700);
	TAP_OK(mount(dir, fixed, NULL, MS_BIND, NULL) == 0 && mount(NULL, fixed, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0,
	       "a read-only mount");
	(void)strncat(fixed, "/file", sizeof(fixed) - strlen(fixed) - 1);
	test_read_only("path", fixed, false);
	test_path_hangs(file_url);
	test_path_close_hanging(file_url);
	test_path_unknown_writes(file_url);
	test_path_refused_writes(file_url);
}

static void test_network(const char *dir, pid_t tgtd, pid_t ganesha)
{
	char url[600];

	test_transfers("iSCSI", iscsi_url);
	test_transfers("NFS", nfs_url);
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/export/sub/volume", dir);
	test_transfers("NFS by portmapper", url);
	(void)snprintf(url, sizeof(url), "%s/export/sub/volume", dir);
	test_no_cache(nfs_url, url);
	test_name_service(nfs_url, dir);
	test_reentrancy("iSCSI", iscsi_url);
	test_reentrancy("NFS", nfs_url);
	test_read_only("iSCSI", iscsi_url, true);
	test_read_only("NFS", nfs_url, true);
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:fixed/1", SERVERS_ISCSI_PORT);
	test_read_only("iSCSI", url, false);
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/fixed-export/sub/volume?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT,
		       SERVERS_MOUNT_PORT);
	test_read_only("NFS", url, false);
	test_chap(dir);
	test_refusals(dir);
	(void)snprintf(url, sizeof(url), "iscsi://[::1]:%d/iqn.2026-01.test:plain/1", SERVERS_ISCSI_PORT);
	test_transfers("iSCSI by IPv6", url);
	(void)snprintf(url, sizeof(url), "nfs://[::1]%s/export/sub/volume?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	test_transfers("NFS by IPv6", url);
	(void)snprintf(url, sizeof(url), "%s?header-digest=crc32c", iscsi_url);
	test_transfers("iSCSI with header digests", url);
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:native/1", SERVERS_ISCSI_PORT);
	test_transfers("iSCSI with blocks of 4096 bytes", url);
	test_lun_reset(iscsi_url);
	test_reserved(iscsi_url);
	test_fua(iscsi_url);
	(void)snprintf(url, sizeof(url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:full/1", SERVERS_ISCSI_PORT);
	test_full("iSCSI", url, dir, VOLUME_E_IO); /* tgtd calls it a medium error */
	(void)snprintf(url, sizeof(url), "nfs://127.0.0.1%s/small/sub/volume?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT, SERVERS_MOUNT_PORT);
	test_full("NFS", url, dir, VOLUME_E_NOSPACE);
	test_stale(nfs_url, dir);
	test_root_squash(dir);
	test_stopped_server("iSCSI", iscsi_url, tgtd);
	test_stopped_server("NFS", nfs_url, ganesha);
	test_killed_server("iSCSI", iscsi_url, &tgtd, servers_start_tgtd, dir);
	test_killed_server("NFS", nfs_url, &ganesha, servers_start_ganesha, dir);
}

static int run(const char *dir)
{
	pid_t tgtd, rpcbind, ganesha;

	loop = qb_loop_create();
	(void)snprintf(file_url, sizeof(file_url), "%s/file", dir);
	(void)snprintf(iscsi_url, sizeof(iscsi_url), "iscsi://127.0.0.1:%d/iqn.2026-01.test:plain/1", SERVERS_ISCSI_PORT);
	(void)snprintf(nfs_url, sizeof(nfs_url), "nfs://127.0.0.1%s/export/sub/volume?nfsport=%d&mountport=%d", dir, SERVERS_NFS_PORT,
		       SERVERS_MOUNT_PORT);
	test_urls();
	test_path(dir);
	tgtd = servers_start_tgtd(dir);
	rpcbind = servers_start_rpcbind();
	ganesha = servers_start_ganesha(dir);
	if (TAP_OK(tgtd > 0 && rpcbind > 0 && ganesha > 0, "tgtd, rpcbind and ganesha.nfsd run"))
		test_network(dir, tgtd, ganesha);
	qb_loop_destroy(loop);
	return tap_done();
}

int main(void)
{
	return servers_sandbox(run);
}
