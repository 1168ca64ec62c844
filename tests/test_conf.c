/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <sys/stat.h>

#include "agent/base/conf.h"
#include "tests/data_files.h"
#include "tests/tap.h"

#define BASE "[Cluster]\nName=demo\nNodes=n1:1 n2:2\nVolumes=/dev/ha\n"

static char dir[] = "/tmp/kvm-ha-conf-XXXXXX";

static void put(const char *name, const char *text, size_t len)
{
	char path[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (!f || fwrite(text, 1, len, f) != len || fclose(f) != 0) {
		printf("Bail out! cannot write %s\n", path);
		exit(1);
	}
}

static void put_str(const char *name, const char *text) { put(name, text, strlen(text)); }

static void drop(const char *name)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)remove(path);
}

/* The message without the folder, which differs from run to run. */
static const char *short_message(const char *err)
{
	size_t len = strlen(dir);

	return strncmp(err, dir, len) == 0 ? err + len + 1 : err;
}

static void bad_case(const char *name)
{
	char rel[256], err[1024] = "";
	_cleanup_free_ char *text = NULL, *want = NULL;
	size_t len;
	struct conf c;
	struct conf before;

	(void)snprintf(rel, sizeof(rel), "tests/data/bad-conf/%s.conf", name);
	text = data_read(rel, &len);
	put("kvm-ha.conf", text, len);
	(void)snprintf(rel, sizeof(rel), "tests/data/bad-conf/%s.err", name);
	want = data_read(rel, &len);
	want[strcspn(want, "\n")] = '\0';
	memset(&c, 0x5a, sizeof(c));
	memcpy(&before, &c, sizeof(c));
	TAP_OK(conf_load(dir, "n1", &c, err, sizeof(err)) == -EINVAL && memcmp(&c, &before, sizeof(c)) == 0, "%s is refused, output untouched", name);
	TAP_STR(short_message(err), want, name);
}

static int load(const char *hostname, struct conf *c, char *err, size_t err_size)
{
	int r;

	err[0] = '\0';
	r = conf_load(dir, hostname, c, err, err_size);
	if (r < 0)
		printf("# %s\n", err);
	return r;
}

static void load_data(const char *rel)
{
	size_t len;
	_cleanup_free_ char *text = data_read(rel, &len);

	put("kvm-ha.conf", text, len);
}

static void check_good(void)
{
	struct conf c;
	char err[1024];
	struct timing standard;

	load_data("tests/data/good-conf/minimal.conf");
	timing_of_profile(TIMING_STANDARD, &standard);
	TAP_OK(load("n2.example.net", &c, err, sizeof(err)) == 0, "minimal file");
	TAP_OK(c.self_id == 2 && streq(c.self_name, "n2"), "domain is cut off the host name");
	TAP_OK(c.profile == TIMING_STANDARD && memcmp(&c.timing, &standard, sizeof(standard)) == 0, "standard profile by default");
	TAP_OK(c.require_ring_encryption && c.on_ring_loss == CONF_RING_LOSS_RELEASE && !*c.secret_file && !*c.tls_dir, "defaults");
	TAP_OK(c.shutdown == CONF_SHUTDOWN_CONDITIONAL && c.shutdown_ms == 600000 && c.freeze_ms == 600000, "defaults of a shutdown");
	TAP_OK(streq(c.watchdog, "/dev/watchdog") && c.silence_proves && streq(c.hooks_dir, "/etc/kvm-ha/hooks.d") && c.hook_timeout_ms == 10000, "more defaults");
	TAP_OK(load("other", &c, err, sizeof(err)) == 0 && c.self_id == 0 && streq(c.self_name, "other"), "a stranger gets id 0");
	TAP_OK(conf_load(dir, "bad name", &c, err, sizeof(err)) == -EINVAL && strstr(err, "set Name= in [Node]"), "a host name that is no name");
	TAP_OK(load(NULL, &c, err, sizeof(err)) == 0 || strstr(err, "host's name"), "the host's own name is looked up");

	load_data("tests/data/good-conf/overrides.conf");
	TAP_OK(load("n1", &c, err, sizeof(err)) == 0 && c.self_id == 2, "[Node] Name= wins over the host name");
	TAP_OK(c.timing.wd_ms == 20000 && c.timing.wd_delay_ms == 2000 && c.timing.rho_permille == 15, "overrides of timings");
	TAP_OK(c.timing.w_ms == 44660 && c.timing.soft_ms == 16000 && c.timing.hb_ms == 1000, "derived from overrides");
	TAP_OK(!c.require_ring_encryption && c.on_ring_loss == CONF_RING_LOSS_KEEP && c.hook_timeout_ms == 90000, "other values");
	TAP_OK(streq(c.watchdog, "unix:/run/lab/watchdog") && streq(c.hooks_dir, "/opt/hooks"), "paths");
	TAP_OK(c.shutdown == CONF_SHUTDOWN_MIGRATE && c.shutdown_ms == 90000 && c.freeze_ms == 3600000, "what becomes of VMs when the host goes down");
	TAP_OK(streq(c.tls_dir, "/etc/pki/kvm-ha"), "certificates of migrations");
	TAP_OK(c.volume_slow_ms == 70 && c.volume_failing_ms == 9000, "when a volume is in trouble");

	load_data("tests/data/good-conf/no-watchdog.conf");
	TAP_OK(load("n1", &c, err, sizeof(err)) == 0 && streq(c.watchdog, CONF_NO_WATCHDOG) && !c.silence_proves, "no watchdog, said in both places");

	load_data("contrib/examples/kvm-ha.conf");
	TAP_OK(load("n3", &c, err, sizeof(err)) == 0 && c.n_nodes == 3 && c.n_volumes == 3 && c.self_id == 3, "the example");
}

static void check_power(void)
{
	const struct conf_power *p;
	char err[1024], secrets[CONF_POWER_SECRETS] = "";
	struct conf c;
	size_t n;

	load_data("tests/data/good-conf/minimal.conf");
	TAP_OK(load("n1", &c, err, sizeof(err)) == 0 && c.n_power == 0 && c.power_on && c.brake_percent == 100 && c.quarantine == 3 && c.reservation == CONF_RESERVATION_NO && !conf_power_of(&c, 1, &n) &&
	       n == 0, "no fence devices; defaults of [Fencing]");
	TAP_OK(c.volume_slow_ms == c.timing.io_ms / 4 && c.volume_failing_ms == c.timing.hb_ms + 2 * c.timing.io_ms, "a volume's limits follow from the timings");
	load_data("tests/data/good-conf/power.conf");
	TAP_OK(load("n1", &c, err, sizeof(err)) == 0 && c.n_power == 5 && !c.power_on && c.brake_percent == 50 && c.quarantine == 0 && c.reservation == CONF_RESERVATION_VOLATILE, "fence devices");
	p = conf_power_of(&c, 2, &n);
	TAP_OK(p && n == 3 && streq(p[0].agent, "fence_ipmilan") && p[0].level == 1 && p[0].timeout_ms == 8000 && p[1].level == 2 && p[2].level == 2,
	       "of one node by level, then as they stand in the file");
	TAP_STR(c.power_text + p[0].options, "ip=10.9.0.2\nusername=a b\nlanplus=1\n", "options");
	TAP_STR(c.power_text + p[1].options, "ip=10.9.0.1\nplug=2\n", "of the next");
	TAP_STR(c.power_text + p[0].secret_file, "/etc/kvm-ha/ipmi.secret", "secret file");
	p = conf_power_of(&c, 1, &n);
	TAP_OK(p && n == 2 && streq(p[0].agent, "/opt/fence_own") && p[0].level == 1 && p[1].level == 2 && p[0].timeout_ms == 20000, "without Level= one after the other");
	TAP_OK(conf_power_secrets(&c, &p[0], secrets, err, sizeof(err)) == 0 && !*secrets && !conf_power_of(&c, 3, &n), "no secrets, no devices");
}

static void check_drop_ins(void)
{
	char path[256], err[1024];
	struct conf c;

	(void)snprintf(path, sizeof(path), "%s/conf.d", dir);
	TAP_OK(mkdir(path, 0700) == 0, "conf.d made");
	put_str("kvm-ha.conf", BASE);
	put_str("conf.d/20-b.conf", "[Cluster]\nProfile=safe\nVolumes=/dev/second\n");
	put_str("conf.d/10-a.conf", "[Cluster]\nProfile=fast\nNodes=n9:9 n4:4\n");
	put_str("conf.d/.hidden.conf", "junk");
	put_str("conf.d/30-c.conf~", "junk");
	TAP_OK(load("n4", &c, err, sizeof(err)) == 0 && c.profile == TIMING_SAFE, "the later file wins, other names are left alone");
	TAP_OK(c.n_nodes == 4 && c.nodes[0].id == 1 && c.nodes[2].id == 4 && c.nodes[3].id == 9, "nodes add up, sorted by id");
	TAP_OK(c.n_volumes == 2 && streq(c.volumes[1], "/dev/second"), "volumes add up");
	TAP_OK(conf_node_by_id(&c, 9) == &c.nodes[3] && !conf_node_by_id(&c, 3), "found by id");
	TAP_OK(conf_node_by_name(&c, "n4") == &c.nodes[2] && !conf_node_by_name(&c, "n5"), "found by name");
	put_str("conf.d/20-b.conf", "[Cluster]\nVolumes=\nVolumes=/dev/only\n");
	TAP_OK(load("n1", &c, err, sizeof(err)) == 0 && c.n_volumes == 1 && streq(c.volumes[0], "/dev/only"), "an empty value empties a list");
	put_str("conf.d/20-b.conf", "# x\n[Cluster]\nNodes=n1:7\n");
	TAP_OK(conf_load(dir, "n1", &c, err, sizeof(err)) == -EINVAL, "a node twice over two files");
	TAP_STR(short_message(err), "conf.d/20-b.conf:3: Nodes=: node n1 is listed with id 1 and with id 7; remove one", "the drop-in is named");
	put_str("conf.d/20-b.conf", "[Timing]\nIO=700ms\n");
	TAP_OK(conf_load(dir, "n1", &c, err, sizeof(err)) == -EINVAL && strncmp(short_message(err), "conf.d/20-b.conf:2: I7 is broken", 32) == 0,
	       "the override to blame is in the drop-in");
	drop("conf.d/20-b.conf");
	(void)snprintf(path, sizeof(path), "%s/conf.d/20-b.conf", dir);
	TAP_OK(mkfifo(path, 0600) == 0 && conf_load(dir, "n1", &c, err, sizeof(err)) == -EINVAL && strstr(err, "not a regular file"),
	       "a FIFO is refused and not waited for");
	drop("conf.d/20-b.conf");
	TAP_OK(symlink("/nonexistent/x", path) == 0 && conf_load(dir, "n1", &c, err, sizeof(err)) == -ENOENT, "a dangling link is an error");
	TAP_STR(short_message(err), "conf.d/20-b.conf: cannot read: No such file or directory; create it", "and named");
	drop("conf.d/20-b.conf");
	drop("conf.d/10-a.conf");
	drop("conf.d/.hidden.conf");
	drop("conf.d/30-c.conf~");
	drop("conf.d");
	put_str("conf.d", "a file");
	TAP_OK(conf_load(dir, "n1", &c, err, sizeof(err)) == -ENOTDIR, "conf.d that is no folder is an error");
	drop("conf.d");
	drop("kvm-ha.conf");
	TAP_OK(conf_load(dir, "n1", &c, err, sizeof(err)) == -ENOENT, "no file at all");
	TAP_STR(short_message(err), "kvm-ha.conf: cannot read: No such file or directory; create it", "and its message");
}

/* Runs conf_show with stdout in a file, gives back what it printed. */
static char *shown(bool json, int *ret)
{
	char path[512], err[512] = "", *text = calloc(1, 32768);
	int saved, fd;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/shown", dir);
	(void)fflush(stdout);
	saved = dup(STDOUT_FILENO);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	(void)dup2(fd, STDOUT_FILENO);
	*ret = conf_show(dir, "n1", json, err, sizeof(err));
	(void)dup2(saved, STDOUT_FILENO);
	(void)close(saved);
	n = pread(fd, text, 32767, 0);
	if (n <= 0)
		*ret = -EIO;
	(void)close(fd);
	drop("shown");
	return text;
}

static void check_show(void)
{
	char where[128], got[128] = "";
	int r;
	_cleanup_free_ char *text = NULL, *json = NULL;
	json_object *root, *o = NULL, *values = NULL;

	put_str("kvm-ha.conf", BASE "Profile=fast\n[Timing]\nDrain=700ms\n");
	text = shown(false, &r);
	(void)snprintf(where, sizeof(where), "# %s/kvm-ha.conf:7\n", dir);
	TAP_OK(r == 0 && strstr(text, "Drain=700ms") && strstr(text, where), "an override shows its line");
	TAP_OK(strstr(text, "IO=500ms") && strstr(text, "# profile fast\n"), "a profile's value shows its profile");
	TAP_OK(strstr(text, "W=4444ms") && strstr(text, "# derived: I1\n"), "W shows the rule");
	TAP_OK(strstr(text, "# I7: Watchdog >= Heartbeat + 3 IO: 2000 >= 1750 ms: holds\n"), "the inequality with its numbers");
	TAP_OK(strstr(text, "within 10.394 s at most"), "the failover bound");
	json = shown(true, &r);
	root = json_tokener_parse(json);
	TAP_OK(r == 0 && root && json_object_object_get_ex(root, "api_version", &o) && json_object_get_int(o) == 1, "JSON with its version");
	TAP_OK(json_object_object_get_ex(root, "failover_bound_ms", &o) && json_object_get_int(o) == 10394, "bound in JSON");
	TAP_OK(json_object_object_get_ex(root, "values", &values), "values in JSON");
	for (size_t i = 0; values && i < json_object_array_length(values); i++) {
		json_object *v = json_object_array_get_idx(values, i), *key = json_object_object_get(v, "key");

		if (streq(json_object_get_string(key), "Drain"))
			(void)snprintf(got, sizeof(got), "# %s\n", json_object_get_string(json_object_object_get(v, "origin")));
	}
	TAP_STR(got, where, "origin in JSON");
	json_object_put(root);
	drop("kvm-ha.conf");
}

int main(void)
{
	if (!mkdtemp(dir)) {
		printf("Bail out! mkdtemp\n");
		return 1;
	}
	TAP_OK(data_each("tests/data/bad-conf", ".conf", bad_case) >= 14, "all bad files were tried");
	check_good();
	check_power();
	check_drop_ins();
	check_show();
	TAP_OK(rmdir(dir) == 0, "nothing is left behind");
	return tap_done();
}
