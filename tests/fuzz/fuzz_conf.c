/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration: kvm-ha.conf and, after a line "%%", a file of conf.d, read from files as the daemons and ha-ctl do. */
#include "agent/base/conf.h"
#include "agent/base/value.h"
#include "agent/base/volume_url.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <sys/stat.h>

static const char separator[] = "\n%%\n";
static char dir[160], first[200], second[200];

static void put(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size && close(fd) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)str_copy(dir, sizeof(dir), fuzz_conf_dir(""));
	(void)snprintf(first, sizeof(first), "%s/kvm-ha.conf", dir);
	(void)snprintf(second, sizeof(second), "%s/conf.d", dir);
	FUZZ_CHECK(mkdir(second, 0700) == 0);
	(void)snprintf(second, sizeof(second), "%s/conf.d/50-more.conf", dir);
	fuzz_quiet();
	return 0;
}

/* Each of a volume's addresses alone is a URL of the same place. */
static void check_volume(const char *url)
{
	struct volume_address a, one;
	char err[512], path[VOLUME_URL_LEN];

	FUZZ_CHECK(volume_address_parse(url, &a, err, sizeof(err)) == 0 && a.n_hosts <= VOLUME_PATHS_MAX && (a.n_hosts == 0) == (a.kind == VOLUME_PATH));
	for (unsigned i = 0; i < a.n_hosts; i++) {
		volume_url_of_path(url, i, path);
		FUZZ_CHECK(volume_address_parse(path, &one, err, sizeof(err)) == 0 && one.n_hosts == 1 && one.kind == a.kind);
		FUZZ_CHECK(streq(one.target, a.target) && one.lun == a.lun && streq(one.path, a.path) && streq(one.file, a.file));
		FUZZ_CHECK(i > 0 || (streq(one.host, a.host) && one.port == a.port));
		FUZZ_CHECK(value_same_place(url, path) && value_same_place(path, url));
	}
}

static void check(const struct conf *c)
{
	char err[512];

	FUZZ_CHECK(c->n_nodes >= 1 && c->n_nodes <= CONF_MAX_NODES && c->n_volumes >= 1 && c->n_volumes <= CONF_MAX_VOLUMES);
	for (size_t i = 0; i < c->n_nodes; i++) {
		FUZZ_CHECK(c->nodes[i].id >= 1 && c->nodes[i].id <= CONF_MAX_NODES && (i == 0 || c->nodes[i - 1].id < c->nodes[i].id));
		FUZZ_CHECK(value_name_check(c->nodes[i].name, CONF_NAME_LEN, err, sizeof(err)) == 0);
		FUZZ_CHECK(conf_node_by_name(c, c->nodes[i].name) == &c->nodes[i] && conf_node_by_id(c, c->nodes[i].id) == &c->nodes[i]);
	}
	for (size_t i = 0; i < c->n_volumes; i++) {
		FUZZ_CHECK(value_place_check(c->volumes[i], err, sizeof(err)) == 0);
		check_volume(c->volumes[i]);
		for (size_t j = 0; j < i; j++)
			FUZZ_CHECK(!value_same_place(c->volumes[i], c->volumes[j]));
	}
	FUZZ_CHECK(timing_check(&c->timing, err, sizeof(err)) == TIMING_RULE_NONE && c->profile < TIMING_PROFILE_COUNT);
	FUZZ_CHECK(timing_failover_bound_ms(&c->timing) > c->timing.w_ms && c->timing.soft_ms < c->timing.wd_ms);
	FUZZ_CHECK(!c->self_id || streq(conf_node_by_id(c, c->self_id)->name, c->self_name));
	FUZZ_CHECK(*c->cluster && *c->watchdog && *c->hooks_dir == '/' && c->hook_timeout_ms > 0);
}

static void check_show(const char *text, size_t len)
{
	struct json_tokener *tok = json_tokener_new();
	json_object *o;

	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tok, text, (int)len + 1);
	FUZZ_CHECK(json_tokener_get_error(tok) == json_tokener_success && json_object_is_type(o, json_type_object));
	json_object_put(o);
	json_tokener_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf c, untouched;
	const uint8_t *cut = memmem(data, size, separator, sizeof(separator) - 1);
	char err[1024] = "", shown[1024] = "";
	const char *text;
	size_t len;
	int r;

	put(first, data, cut ? (size_t)(cut - data) + 1 : size);
	if (cut)
		put(second, cut + sizeof(separator) - 1, (size_t)(data + size - cut) - (sizeof(separator) - 1));
	else
		(void)unlink(second);
	memset(&c, 0xee, sizeof(c));
	memset(&untouched, 0xee, sizeof(untouched));
	r = conf_load(dir, "n1.example", &c, err, sizeof(err));
	FUZZ_CHECK(r == 0 || (r == -EINVAL && strncmp(err, dir, strlen(dir)) == 0 && memcmp(&c, &untouched, sizeof(c)) == 0));
	if (r == 0)
		check(&c);
	for (int json = 0; json < 2; json++) {
		fuzz_capture_begin();
		FUZZ_CHECK(conf_show(dir, "n1.example", json, shown, sizeof(shown)) == r);
		text = fuzz_capture_end(&len);
		FUZZ_CHECK(r == 0 ? len > 0 : len == 0 && streq(err, shown));
		if (r == 0 && json)
			check_show(text, len);
	}
	return 0;
}
