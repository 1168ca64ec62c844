/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/drain.c with a disk that is a file, one of whose reads hangs in the kernel: a path of a multipath device that is gone, say. */
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/base/orphans.h"
#include "storage/volume.h"
#include "tests/tap.h"

#define IO_MS 200
#define DRAIN_MS 100
#define PATIENCE_MS 10000
#define POLL_MS 2

static qb_loop_t *loop;
static struct agentd d;
static struct drainer *dr;
static struct catalog_entry entry;
static int n_drained, n_answers;
static bool last_answer;
static char disk[] = "/var/tmp/test_drain.XXXXXX";

/* ---- what hangs ---- */

static atomic_int until_hang; /* reads until the one that hangs; 0: none will */
static atomic_int hanging;
static sem_t release;

ssize_t __real_pread(int fd, void *buf, size_t n, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t offset);

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t offset)
{
	if (atomic_load(&until_hang) > 0 && atomic_fetch_sub(&until_hang, 1) == 1) {
		atomic_fetch_add(&hanging, 1);
		while (sem_wait(&release) < 0 && errno == EINTR)
			;
		atomic_fetch_sub(&hanging, 1);
	}
	return __real_pread(fd, buf, n, offset);
}

/* ---- what cannot be opened ---- */

static const char *refused; /* NULL: nothing */

int __real_volume_open(qb_loop_t *l, const char *url, const struct volume_options *o, volume_state_fn fn, void *user, struct volume **ret, char *err, size_t err_size);
int __wrap_volume_open(qb_loop_t *l, const char *url, const struct volume_options *o, volume_state_fn fn, void *user, struct volume **ret, char *err, size_t err_size);

int __wrap_volume_open(qb_loop_t *l, const char *url, const struct volume_options *o, volume_state_fn fn, void *user, struct volume **ret, char *err, size_t err_size)
{
	if (!refused || !streq(url, refused))
		return __real_volume_open(l, url, o, fn, user, ret, err, err_size);
	(void)str_copy(err, err_size, "its file of secrets is not to be used");
	return -EINVAL;
}

/* ---- the rest of the agent ---- */

void agentd_event(struct agentd *x, const struct agent_event *ev) { n_drained += ev->kind == AGENT_EV_DRAINED; }
void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...) {}
struct catalog_entry *catalog_by_uuid(const struct catalog_doc *c, const uint8_t uuid[16]) { return &entry; }
static bool sends, is_left;
bool orphans_quiet(void) { return !sends; }
bool held_quiet(enum held_for who, uint32_t mark, char *path, size_t size)
{
	if (is_left && path)
		(void)str_copy(path, size, "/srv/disk");
	return !is_left || who == HELD_FOR_SAME;
}

static void on_answer(void *user, const uint8_t uuid[16], bool ok)
{
	n_answers++;
	last_answer = ok;
}

/* ---- the loop runs until a counter gets to a value ---- */

static struct { const int *counter; int want, left_ms; } waiting;

static void poll_counter(void *data)
{
	qb_loop_timer_handle handle;

	waiting.left_ms -= POLL_MS;
	if (*waiting.counter >= waiting.want || waiting.left_ms <= 0)
		qb_loop_stop(loop);
	else
		(void)qb_loop_timer_add(loop, QB_LOOP_LOW, POLL_MS * NS_PER_MS, NULL, poll_counter, &handle);
}

static bool wait_for(const int *counter, int want)
{
	waiting.counter = counter;
	waiting.want = want;
	waiting.left_ms = PATIENCE_MS;
	(void)qb_loop_job_add(loop, QB_LOOP_LOW, NULL, poll_counter);
	qb_loop_run(loop);
	return *counter >= want;
}

static void wait_ms(int ms)
{
	static const int never;

	waiting.counter = &never;
	waiting.want = 1;
	waiting.left_ms = ms;
	(void)qb_loop_job_add(loop, QB_LOOP_LOW, NULL, poll_counter);
	qb_loop_run(loop);
}

static void let_go(void)
{
	(void)sem_post(&release);
	while (atomic_load(&hanging) > 0)
		(void)usleep(1000);
}

/* The first read of a session is the opening's. */
static void hang_the_next(void) { atomic_store(&until_hang, 2); }

static void test_drain(void)
{
	struct vm v = { .used = true };

	printf("# a drain whose first read hangs\n");
	hang_the_next();
	drainer_start(dr, &v, true);
	TAP_OK(wait_for(&n_drained, 1) && atomic_load(&hanging) == 1, "its storage is asked again, and the drain ends while that read still hangs: %s",
	       drainer_reason(dr, v.def.uuid));
	drainer_start(dr, &v, true);
	let_go();
	TAP_OK(wait_for(&n_drained, 2), "so does the next one, while the old read returns");
}

static void test_question(void)
{
	const uint8_t uuid[16] = { 1 };

	printf("# a question whose first read hangs\n");
	hang_the_next();
	TAP_OK(drainer_ask(dr, uuid, on_answer, NULL) && wait_for(&n_answers, 1) && last_answer && atomic_load(&hanging) == 1,
	       "the storage is asked again, and answers");
	let_go();
	TAP_OK(drainer_ask(dr, uuid, on_answer, NULL) && wait_for(&n_answers, 2) && last_answer, "so it does the next time");
}

/* As long as one of its disks has not answered, whatever the others say, the VM is not drained. */
static void test_unopened(void)
{
	static char other[] = "iscsi://192.0.2.1/iqn.2026-01.x:y/0";
	struct vm v = { .used = true };
	int before = n_drained;

	for (unsigned n = 1; n <= 2; n++) {
		printf("# a disk that cannot be opened%s\n", n == 1 ? "" : ", beside one that answers");
		entry.file.n_disks = n;
		entry.file.disks[n - 1] = n == 1 ? disk : other;
		refused = entry.file.disks[n - 1];
		drainer_start(dr, &v, true);
		wait_ms(5 * DRAIN_MS);
		TAP_OK(n_drained == before, "the drain does not go on without it");
		TAP_OK(n == 2 || strstr(drainer_reason(dr, v.def.uuid), "cannot be probed: its file of secrets"), "why it waits is said: %s", drainer_reason(dr, v.def.uuid));
		if (n == 1) {
			refused = NULL;
			TAP_OK(wait_for(&n_drained, ++before), "once it can be, it is asked");
		}
	}
	TAP_OK(drainer_ask(dr, (const uint8_t[16]){ 1 }, on_answer, NULL) && wait_for(&n_answers, 3) && !last_answer, "asked whether they answer: not all do");
	entry.file.n_disks = 1;
	refused = NULL;
	drainer_start(dr, &v, false);
	TAP_OK(wait_for(&n_drained, before + 1), "nobody waits for it any more, and nothing of it comes later");
	wait_ms(1200);
	TAP_OK(n_drained == before + 1, "nor twice");
}

/* What this host sends for others is nothing to a VM that has ended well; what it may write for an earlier QEMU of it is, for another node. */
static void test_notes(void)
{
	struct vm v = { .used = true, .release_as = CLAIM_RELEASED, .notes_only = true };
	int before = n_drained;

	printf("# a VM that has ended well\n");
	sends = is_left = true;
	drainer_start(dr, &v, false);
	wait_ms(DRAIN_MS);
	TAP_OK(n_drained == before && strstr(drainer_reason(dr, v.def.uuid), "/srv/disk"), "a write of one before may come: it is not given to another node: %s", drainer_reason(dr, v.def.uuid));
	is_left = false;
	TAP_OK(wait_for(&n_drained, ++before), "proven: it is, though a connection of another dead process still sends");
	v.notes_only = false;
	drainer_start(dr, &v, false);
	wait_ms(DRAIN_MS);
	TAP_OK(n_drained == before, "one that has not ended well waits for that, too");
	sends = false;
	TAP_OK(wait_for(&n_drained, ++before), "until it is over");
	is_left = true;
	v.release_as = CLAIM_NONE;
	drainer_start(dr, &v, false);
	TAP_OK(wait_for(&n_drained, ++before), "here it may be started: by the same client");
	is_left = false;
}

int main(void)
{
	int fd = mkstemp(disk);

	if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || sem_init(&release, 0, 0) < 0)
		return 1;
	(void)close(fd);
	d.loop = loop = qb_loop_create();
	d.conf.timing.io_ms = IO_MS;
	d.conf.timing.drain_ms = DRAIN_MS;
	entry.file.n_disks = 1;
	entry.file.disks[0] = disk;
	if (drainer_new(&d, &dr) < 0)
		return 1;
	test_drain();
	test_question();
	test_unopened();
	test_notes();
	qb_loop_destroy(loop);
	(void)unlink(disk);
	return tap_done();
}
