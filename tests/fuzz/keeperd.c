/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/fuzz/keeperd.h"

#include <errno.h>
#include <getopt.h>
#include <systemd/sd-id128.h>

#include "tests/fuzz/edges.h"
#include "tests/fuzz/fuzz.h"

int keeper_main(int argc, char **argv);

static const char conf_text[] = "[Cluster]\nName=fuzz\nNodes=n1:1 n2:2 n3:3\nVolumes=/dev/fuzz1 /dev/fuzz2 /dev/fuzz3\nProfile=fast\n[Node]\nName=n1\n"
				"[Ring]\nRequireEncryption=no\n[Watchdog]\nDevice=/dev/fuzz\n";

static struct daemon *keeper;
static struct {
	struct daemon d;
	int64_t at_ns;
	uint8_t table[FUZZ_VOLUMES][FORMAT_TABLE_OFFSET + FUZZ_NODES * 2 * FORMAT_BLOCK];
} snapshot[2];
static void (*silent)(void *user);
static void *silent_user;

/* Any host's. */
int sd_id128_get_machine_app_specific(sd_id128_t app, sd_id128_t *ret)
{
	memset(ret, 0x42, sizeof(*ret));
	return 0;
}

int vmslice_find_root(char *ret, size_t size) { return str_copy(ret, size, "/fuzz") ? 0 : -ENAMETOOLONG; }

int vmslice_new(qb_loop_t *loop, const char *root, struct vmslice **ret)
{
	*ret = (struct vmslice *)&snapshot;
	return 0;
}

int vmslice_register(struct vmslice *s, pid_t pid, const uint8_t vm[16]) { return 0; }
int vmslice_adopt(struct vmslice *s, pid_t pid, uint64_t start, const uint8_t vm[16]) { return 0; }
int vmslice_disown(struct vmslice *s, pid_t pid) { return 0; }
bool vmslice_marks(struct vmslice *s, uint32_t *ret, unsigned max, unsigned *ret_n) { return true; }
int vmslice_count(struct vmslice *s) { return 0; }
int prover_start(const char *root) { return 0; }

void vmslice_kill(struct vmslice *s, void (*fn)(void *user), void *user)
{
	silent = fn;
	silent_user = user;
	keeper = user;
}

void watchdog_init(struct watchdog *w, const char *device, const char *pet_file) { *w = (struct watchdog){ .device = device, .chosen = device, .fd = -1, .pet_fd = -1 }; }

int watchdog_start(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	w->fd = STDERR_FILENO; /* never used but as a sign */
	w->timeout_ms = wanted_ms;
	return 0;
}

bool watchdog_record_read(const char *path, struct watchdog_record *ret) { return false; }
int watchdog_fit(const struct watchdog_fit *f, char *err, size_t err_size) { return 0; }
int watchdog_adopt(struct watchdog *w, int fd, uint32_t wanted_ms, bool may_rest, char *err, size_t err_size) { return -EINVAL; }
int watchdog_take(struct watchdog *w, char *err, size_t err_size) { return 0; }
int watchdog_drop(struct watchdog *w, int fd, char *err, size_t err_size) { return -EINVAL; }
int watchdog_keep_resting(const struct watchdog *w) { return 0; }
int watchdog_pet(struct watchdog *w) { return 0; }

int watchdog_stop(struct watchdog *w, char *err, size_t err_size)
{
	w->fd = -1;
	return 0;
}

static void turn(void)
{
	void (*fn)(void *) = silent;

	silent = NULL;
	if (fn)
		fn(silent_user);
	fuzz_volumes_turn();
}

/* Node 2 goes on writing. */
static void peer_beats(unsigned rounds)
{
	static uint64_t seq;
	uint8_t block[FORMAT_BLOCK];

	for (unsigned i = 0; i < rounds; i++) {
		struct heartbeat hb = { .node = 2, .epoch = 4, .seq = ++seq, .state = HEARTBEAT_ARMED, .ring = HEARTBEAT_RING_OK, .view = 3,
					.wd_ms = keeper->conf.timing.wd_ms, .wd_delay_ms = keeper->conf.timing.wd_delay_ms };

		hb.alive[0] = keeper->core.epoch;
		hb.host[0] = 2;
		hb.life[0] = 2;
		heartbeat_encode(&hb, fuzz_cluster, seq % 2, block);
		for (unsigned v = 0; v < FUZZ_VOLUMES; v++)
			memcpy((uint8_t *)fuzz_volume(v) + format_heartbeat_offset(2, seq % 2), block, FORMAT_BLOCK);
		fuzz_loop_run(keeper->conf.timing.hb_ms * NS_PER_MS);
	}
}

static void save(bool armed)
{
	/* With nothing under way: what volumes still had to answer would be lost. */
	while (fuzz_loop_turn() || fuzz_volumes_busy())
		;
	snapshot[armed].d = *keeper;
	snapshot[armed].at_ns = fuzz_now_ns();
	for (unsigned v = 0; v < FUZZ_VOLUMES; v++)
		memcpy(snapshot[armed].table[v], fuzz_volume(v), sizeof(snapshot[armed].table[v]));
}

void fuzz_keeper_init(void)
{
	char *argv[] = { "ha-keeper", "--config", NULL, NULL };
	uint8_t block[FORMAT_BLOCK];
	struct keeper_event arm = { .kind = KEEPER_EV_ARM };

	fuzz_world(FUZZ_KEEPER);
	optind = 0; /* getopt begins anew */
	argv[2] = (char *)fuzz_conf_dir(conf_text);
	fuzz_loop_idle(turn);
	for (uint32_t node = 1; node <= FUZZ_NODES; node++)
		for (unsigned b = 0; b < 2; b++) {
			struct heartbeat none = { .node = node };

			heartbeat_encode(&none, fuzz_cluster, b, block);
			for (unsigned v = 0; v < FUZZ_VOLUMES; v++)
				memcpy((uint8_t *)fuzz_volume(v) + format_heartbeat_offset(node, b), block, FORMAT_BLOCK);
		}
	FUZZ_CHECK(keeper_main(3, argv) == 0 && keeper);
	turn();
	FUZZ_CHECK(keeper->core_runs);
	fuzz_ring_view("kvm-ha-keeper", true, 3, true);
	save(false);
	fuzz_loop_run(2000 * NS_PER_MS);
	peer_beats(8);
	daemon_event(keeper, &arm);
	peer_beats(12);
	FUZZ_CHECK(keeper->core.state == LEASE_ARMED && keeper->core.node[1].fresh);
	save(true);
	/* From there on it lives. */
	(void)fuzz_keeper_begin(true);
	peer_beats(12);
	FUZZ_CHECK(keeper->core.state == LEASE_ARMED && keeper->core.node[1].fresh);
}

struct daemon *fuzz_keeper_begin(bool armed)
{
	struct keeper_event ev = { .kind = KEEPER_EV_TIMER };

	fuzz_world(FUZZ_KEEPER);
	fuzz_volumes_forget();
	fuzz_volume_result = VOLUME_OK;
	silent = NULL;
	if (keeper->timer)
		(void)qb_loop_timer_del(keeper->loop, keeper->timer);
	for (unsigned v = 0; v < FUZZ_VOLUMES; v++)
		memcpy(fuzz_volume(v), snapshot[armed].table[v], sizeof(snapshot[armed].table[v]));
	*keeper = snapshot[armed].d;
	keeper->timer = 0;
	fuzz_clock_set(snapshot[armed].at_ns);
	daemon_event(keeper, &ev);
	return keeper;
}

void fuzz_keeper_end(void)
{
	fuzz_world(FUZZ_KEEPER);
	fuzz_volume_result = VOLUME_OK;
	(void)fuzz_loop_turn();
}
