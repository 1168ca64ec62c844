/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/vmfile.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "agent/base/ini.h"
#include "agent/base/unquote.h"
#include "agent/base/uuid.h"
#include "agent/base/value.h"

#define MEMORY_MAX_MIB (64U * 1024 * 1024)
#define VCPUS_MAX 1024
#define PRIORITY_MAX 1000
#define PRIORITY_DEFAULT 100
#define RESTART_LIMIT_MAX 100
#define RESTART_LIMIT_DEFAULT 3
#define WINDOW_MIN_MS 1000
#define WINDOW_MAX_MS (24U * 3600 * 1000)
#define WINDOW_DEFAULT_MS (600U * 1000)
#define RELOCATE_LIMIT_MAX 63
#define BANDWIDTH_MAX_MIB (1024U * 1024) /* a second */
#define DOWNTIME_MAX_MS 60000U
#define CHANNELS_MAX 64
#define STOP_MAX_MS (24U * 3600 * 1000)
#define STOP_DEFAULT_MS (60U * 1000)
#define DAY_MS (24U * 3600 * 1000)
#define HANG_MIN_MS 15000 /* three queries in a row were not answered */

enum vmfile_key {
	VMFILE_NAME, VMFILE_UUID, VMFILE_MEMORY, VMFILE_VCPUS, VMFILE_DISK, VMFILE_BINARY, VMFILE_ARGUMENTS, VMFILE_STATE, VMFILE_PRIORITY,
	VMFILE_RESTART_LIMIT, VMFILE_RESTART_WINDOW, VMFILE_RELOCATE_LIMIT, VMFILE_STOP_TIMEOUT, VMFILE_PREFERRED_NODES,
	VMFILE_RESTART, VMFILE_REQUIRED_NODES, VMFILE_KEEP_APART, VMFILE_KEEP_TOGETHER, VMFILE_GROUPS_REQUIRED, VMFILE_AFTER, VMFILE_AFTER_READY,
	VMFILE_AFTER_DELAY, VMFILE_AFTER_TIMEOUT,
	VMFILE_GUEST_AGENT, VMFILE_BOOT_TIMEOUT, VMFILE_SILENCE_TIMEOUT, VMFILE_ON_SILENCE, VMFILE_CHECK, VMFILE_CHECK_INTERVAL,
	VMFILE_CHECK_TIMEOUT, VMFILE_CHECK_FAILURES, VMFILE_ON_CHECK, VMFILE_HANG_TIMEOUT, VMFILE_START_TIMEOUT, VMFILE_ON_HANG, VMFILE_ON_PANIC, VMFILE_ON_WATCHDOG,
	VMFILE_ON_IO_ERROR, VMFILE_IO_ERROR_TIMEOUT, VMFILE_RESET_LIMIT, VMFILE_RESET_WINDOW,
	VMFILE_MIGRATE, VMFILE_MIGRATE_BANDWIDTH, VMFILE_MIGRATE_DOWNTIME, VMFILE_MIGRATE_CHANNELS, VMFILE_MIGRATE_AUTO_CONVERGE, VMFILE_MIGRATE_TIMEOUT,
	VMFILE_KEY_COUNT,
};

static const struct ini_key keys[VMFILE_KEY_COUNT] = {
	[VMFILE_NAME] = { "VM", "Name", false },
	[VMFILE_UUID] = { "VM", "UUID", false },
	[VMFILE_MEMORY] = { "VM", "Memory", false },
	[VMFILE_VCPUS] = { "VM", "VCPUs", false },
	[VMFILE_DISK] = { "VM", "Disk", true },
	[VMFILE_BINARY] = { "QEMU", "Binary", false },
	[VMFILE_ARGUMENTS] = { "QEMU", "Arguments", true },
	[VMFILE_STATE] = { "HA", "State", false },
	[VMFILE_PRIORITY] = { "HA", "Priority", false },
	[VMFILE_RESTART_LIMIT] = { "HA", "RestartLimit", false },
	[VMFILE_RESTART_WINDOW] = { "HA", "RestartWindow", false },
	[VMFILE_RELOCATE_LIMIT] = { "HA", "RelocateLimit", false },
	[VMFILE_STOP_TIMEOUT] = { "HA", "StopTimeout", false },
	[VMFILE_PREFERRED_NODES] = { "HA", "PreferredNodes", true },
	[VMFILE_RESTART] = { "HA", "Restart", false },
	[VMFILE_REQUIRED_NODES] = { "HA", "RequiredNodes", true },
	[VMFILE_KEEP_APART] = { "HA", "KeepApart", true },
	[VMFILE_KEEP_TOGETHER] = { "HA", "KeepTogether", true },
	[VMFILE_GROUPS_REQUIRED] = { "HA", "GroupsRequired", false },
	[VMFILE_AFTER] = { "HA", "After", true },
	[VMFILE_AFTER_READY] = { "HA", "AfterReady", false },
	[VMFILE_AFTER_DELAY] = { "HA", "AfterDelay", false },
	[VMFILE_AFTER_TIMEOUT] = { "HA", "AfterTimeout", false },
	[VMFILE_GUEST_AGENT] = { "Health", "GuestAgent", false },
	[VMFILE_BOOT_TIMEOUT] = { "Health", "BootTimeout", false },
	[VMFILE_SILENCE_TIMEOUT] = { "Health", "SilenceTimeout", false },
	[VMFILE_ON_SILENCE] = { "Health", "OnSilence", false },
	[VMFILE_CHECK] = { "Health", "Check", true },
	[VMFILE_CHECK_INTERVAL] = { "Health", "CheckInterval", false },
	[VMFILE_CHECK_TIMEOUT] = { "Health", "CheckTimeout", false },
	[VMFILE_CHECK_FAILURES] = { "Health", "CheckFailures", false },
	[VMFILE_ON_CHECK] = { "Health", "OnCheckFailure", false },
	[VMFILE_HANG_TIMEOUT] = { "Health", "HangTimeout", false },
	[VMFILE_START_TIMEOUT] = { "Health", "StartTimeout", false },
	[VMFILE_ON_HANG] = { "Health", "OnHang", false },
	[VMFILE_ON_PANIC] = { "Health", "OnPanic", false },
	[VMFILE_ON_WATCHDOG] = { "Health", "OnWatchdog", false },
	[VMFILE_ON_IO_ERROR] = { "Health", "OnIOError", false },
	[VMFILE_IO_ERROR_TIMEOUT] = { "Health", "IOErrorTimeout", false },
	[VMFILE_RESET_LIMIT] = { "Health", "ResetLimit", false },
	[VMFILE_RESET_WINDOW] = { "Health", "ResetWindow", false },
	[VMFILE_MIGRATE] = { "Migration", "Migrate", false },
	[VMFILE_MIGRATE_BANDWIDTH] = { "Migration", "Bandwidth", false },
	[VMFILE_MIGRATE_DOWNTIME] = { "Migration", "DowntimeLimit", false },
	[VMFILE_MIGRATE_CHANNELS] = { "Migration", "Channels", false },
	[VMFILE_MIGRATE_AUTO_CONVERGE] = { "Migration", "AutoConverge", false },
	[VMFILE_MIGRATE_TIMEOUT] = { "Migration", "Timeout", false },
};

struct vmfile_read {
	struct vmfile vm;
	bool seen[VMFILE_KEY_COUNT];
	unsigned int disk_line[VMFILE_MAX_DISKS];
};

typedef int (*vmfile_word_fn)(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size);

static int out_of_memory(char *err, size_t err_size)
{
	(void)value_refuse(err, err_size, "out of memory");
	return -ENOMEM;
}

static void free_strings(char **strings, size_t *n)
{
	while (*n) {
		free(strings[--*n]);
		strings[*n] = NULL;
	}
}

void vmfile_deinit(struct vmfile *v)
{
	free(v->binary);
	v->binary = NULL;
	free_strings(v->args, &v->n_args);
	free_strings(v->disks, &v->n_disks);
	free_strings(v->check, &v->n_check);
	free(v->agent_path);
	v->agent_path = NULL;
}

/* What the agent itself puts on QEMU's command line, or what would break its hold on the process. QEMU takes "--x" for "-x". */
static const char *owned_argument(const char *word)
{
	static const struct {
		const char *name, *remedy;
	} owned[] = {
		{ "-name", "it comes from Name= in [VM]" },
		{ "-uuid", "it comes from UUID= in [VM]" },
		{ "-m", "it comes from Memory= in [VM]" },
		{ "-smp", "it comes from VCPUs= in [VM]" },
		{ "-S", "the agent decides when the guest runs" },
		{ "-daemonize", "systemd keeps the process" },
		{ "-pidfile", "systemd keeps the process" },
		{ "-incoming", "the agent sets up migrations" },
	};
	const char *name = word[0] == '-' && word[1] == '-' ? word + 1 : word;

	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		if (streq(name, owned[i].name))
			return owned[i].remedy;
	return NULL;
}

static int add_argument(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;
	const char *owner = owned_argument(word);

	if (owner)
		return value_refuse(err, err_size, "%s belongs to the agent, %s; remove it", word, owner);
	if (v->n_args == VMFILE_MAX_ARGS)
		return value_refuse(err, err_size, "more than %d arguments; use fewer", VMFILE_MAX_ARGS);
	v->args[v->n_args] = strdup(word);
	if (!v->args[v->n_args])
		return out_of_memory(err, err_size);
	v->n_args++;
	return 0;
}

static int add_disk(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;
	int ret = value_place_check(word, err, err_size);

	if (ret < 0)
		return ret;
	for (size_t i = 0; i < v->n_disks; i++)
		if (value_same_place(v->disks[i], word))
			return value_refuse(err, err_size, "%s is listed twice, first in line %u; remove one", word, r->disk_line[i]);
	if (v->n_disks == VMFILE_MAX_DISKS)
		return value_refuse(err, err_size, "more than %d disks; use fewer", VMFILE_MAX_DISKS);
	v->disks[v->n_disks] = strdup(word);
	if (!v->disks[v->n_disks])
		return out_of_memory(err, err_size);
	r->disk_line[v->n_disks++] = line;
	return 0;
}

/* A name into a list of up to max, each of len bytes, one after the other. */
static int add_name(char *list, size_t len, size_t max, size_t *n, const char *what, const char *word, char *err, size_t err_size)
{
	int ret = value_name_check(word, len, err, err_size);

	if (ret < 0)
		return ret;
	for (size_t i = 0; i < *n; i++)
		if (streq(list + i * len, word))
			return value_refuse(err, err_size, "%s %s is listed twice; remove one", what, word);
	if (*n == max)
		return value_refuse(err, err_size, "more than %zu %ss; list fewer", max, what);
	(void)str_copy(list + (*n)++ * len, len, word);
	return 0;
}

static int add_preferred(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	return add_name(r->vm.preferred[0], VMFILE_NAME_LEN, VMFILE_MAX_NODES, &r->vm.n_preferred, "node", word, err, err_size);
}

static int add_required(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	return add_name(r->vm.required[0], VMFILE_NAME_LEN, VMFILE_MAX_NODES, &r->vm.n_required, "node", word, err, err_size);
}

static int add_apart(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	return add_name(r->vm.apart[0], VMFILE_GROUP_LEN, VMFILE_MAX_GROUPS, &r->vm.n_apart, "group", word, err, err_size);
}

static int add_together(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	return add_name(r->vm.together[0], VMFILE_GROUP_LEN, VMFILE_MAX_GROUPS, &r->vm.n_together, "group", word, err, err_size);
}

static int add_after(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	return add_name(r->vm.after[0], VMFILE_NAME_LEN, VMFILE_MAX_AFTER, &r->vm.n_after, "VM", word, err, err_size);
}

static int add_check(struct vmfile_read *r, const char *word, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;

	if (v->n_check == VMFILE_MAX_CHECK)
		return value_refuse(err, err_size, "more than %d words; put them into a script in the guest", VMFILE_MAX_CHECK);
	v->check[v->n_check] = strdup(word);
	if (!v->check[v->n_check])
		return out_of_memory(err, err_size);
	v->n_check++;
	return 0;
}

static int read_words(struct vmfile_read *r, const char *value, unsigned int line, vmfile_word_fn add, char *err, size_t err_size)
{
	char word[INI_MAX_VALUE];
	size_t pos = 0;
	int ret;

	while ((ret = unquote_next(value, &pos, word, sizeof(word), err, err_size)) == UNQUOTE_WORD) {
		ret = add(r, word, line, err, err_size);
		if (ret < 0)
			return ret;
	}
	return ret;
}

static int read_uuid(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	uint8_t uuid[16];

	if (!uuid_parse(value, uuid))
		return value_refuse(err, err_size, "not a UUID; write 8-4-4-4-12 hexadecimal digits or remove the line");
	if (uuid_is_zero(uuid))
		return value_refuse(err, err_size, "all zero; write the VM's own UUID or remove the line");
	memcpy(v->uuid, uuid, sizeof(uuid));
	v->has_uuid = true;
	return 0;
}

static int read_memory(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	uint32_t mib;
	int r = value_size_mib(value, &mib, err, err_size);

	if (r < 0)
		return r;
	if (!mib || mib > MEMORY_MAX_MIB)
		return value_refuse(err, err_size, "out of range; use 1M to 64T");
	v->memory_mib = mib;
	return 0;
}

static int read_binary(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	int r = value_path_check(value, err, err_size);
	char *copy;

	if (r < 0)
		return r;
	copy = strdup(value);
	if (!copy)
		return out_of_memory(err, err_size);
	free(v->binary);
	v->binary = copy;
	return 0;
}

static int read_span(const char *value, uint32_t min_ms, uint32_t max_ms, uint32_t *ret_ms, char *err, size_t err_size)
{
	uint32_t n;
	int r = value_span_ms(value, &n, err, err_size);

	if (r < 0)
		return r;
	if (n < min_ms || n > max_ms)
		return value_refuse(err, err_size, "out of range; use %" PRIu32 "s to %" PRIu32 "h", min_ms / 1000, max_ms / 3600000);
	*ret_ms = n;
	return 0;
}

static int read_bandwidth(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	uint32_t mib;
	int r = value_size_mib(value, &mib, err, err_size);

	if (r < 0)
		return r;
	if (mib == 0 || mib > BANDWIDTH_MAX_MIB)
		return value_refuse(err, err_size, "out of range; use 1M to 1T (a second)");
	v->migrate_bandwidth_mib = mib;
	return 0;
}

static int read_downtime(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	uint32_t ms;
	int r = value_span_ms(value, &ms, err, err_size);

	if (r < 0)
		return r;
	if (ms < 1 || ms > DOWNTIME_MAX_MS)
		return value_refuse(err, err_size, "out of range; use 1ms to 60s");
	v->migrate_downtime_ms = ms;
	return 0;
}

static int read_state(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	if (!streq(value, "started") && !streq(value, "stopped"))
		return value_refuse(err, err_size, "unknown state; write started or stopped");
	v->start = streq(value, "started");
	return 0;
}

/* One of words, which ends with NULL; its place among them. */
static int read_choice(const char *value, const char *const words[], unsigned *ret, char *err, size_t err_size)
{
	char all[128] = "";
	size_t len = 0;

	for (unsigned i = 0; words[i]; i++) {
		if (streq(words[i], value)) {
			*ret = i;
			return 0;
		}
		len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
	}
	return value_refuse(err, err_size, "unknown word; write %s", all);
}

static int read_reaction(const char *value, enum vm_reaction *ret, char *err, size_t err_size)
{
	static const char *const words[] = { "restart", "alert", "ignore", NULL };
	unsigned n;
	int r = read_choice(value, words, &n, err, err_size);

	if (r == 0)
		*ret = (enum vm_reaction)n;
	return r;
}

static int read_yes(const char *value, bool *ret, char *err, size_t err_size)
{
	static const char *const words[] = { "no", "yes", NULL };
	unsigned n;
	int r = read_choice(value, words, &n, err, err_size);

	if (r == 0)
		*ret = n == 1;
	return r;
}

static int read_restart(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	static const char *const words[] = { "on-failure", "always", "never", NULL };
	unsigned n;
	int r = read_choice(value, words, &n, err, err_size);

	if (r == 0)
		v->restart = (enum vm_restart)n;
	return r;
}

static int read_ready(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	static const char *const words[] = { "running", "agent", "check", NULL };
	unsigned n;
	int r = read_choice(value, words, &n, err, err_size);

	if (r == 0)
		v->after_ready = (enum vm_ready)(READY_RUNNING + n);
	return r;
}

static int read_guest_agent(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	char *path = NULL;
	int r = 0;

	if (*value == '/') {
		r = value_path_check(value, err, err_size);
		if (r == 0 && strlen(value) > 107)
			return value_refuse(err, err_size, "too long for a socket; use at most 107 bytes");
		path = r == 0 ? strdup(value) : NULL;
		if (r == 0 && !path)
			return out_of_memory(err, err_size);
	} else if (!streq(value, "yes") && !streq(value, "no")) {
		return value_refuse(err, err_size, "unknown word; write yes, no or the absolute path of a port's socket");
	}
	if (r < 0)
		return r;
	free(v->agent_path);
	v->agent_path = path;
	v->health.agent = !streq(value, "no");
	return 0;
}

static int read_name(struct vmfile *v, const char *value, char *err, size_t err_size)
{
	int r = value_name_check(value, sizeof(v->name), err, err_size);

	if (r == 0)
		(void)str_copy(v->name, sizeof(v->name), value);
	return r;
}

static int read_health(struct vmfile_read *r, enum vmfile_key key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;
	struct health_policy *h = &v->health;

	switch (key) {
	case VMFILE_GUEST_AGENT:
		return read_guest_agent(v, value, err, err_size);
	case VMFILE_BOOT_TIMEOUT:
		return read_span(value, 0, DAY_MS, &h->boot_ms, err, err_size);
	case VMFILE_SILENCE_TIMEOUT:
		return read_span(value, HANG_MIN_MS, DAY_MS, &h->silence_ms, err, err_size);
	case VMFILE_ON_SILENCE:
		return read_reaction(value, &h->silence, err, err_size);
	case VMFILE_CHECK:
		if (!*value)
			free_strings(v->check, &v->n_check);
		return read_words(r, value, line, add_check, err, err_size);
	case VMFILE_CHECK_INTERVAL:
		return read_span(value, 1000, DAY_MS, &v->check_interval_ms, err, err_size);
	case VMFILE_CHECK_TIMEOUT:
		return read_span(value, 1000, DAY_MS, &v->check_timeout_ms, err, err_size);
	case VMFILE_CHECK_FAILURES:
		return value_u32(value, 1, 100, &h->check_failures, err, err_size);
	case VMFILE_ON_CHECK:
		return read_reaction(value, &h->check, err, err_size);
	case VMFILE_HANG_TIMEOUT:
		return read_span(value, HANG_MIN_MS, DAY_MS, &h->hang_ms, err, err_size);
	case VMFILE_START_TIMEOUT:
		return read_span(value, HANG_MIN_MS, DAY_MS, &h->start_ms, err, err_size);
	case VMFILE_ON_HANG:
		return read_reaction(value, &h->hang, err, err_size);
	case VMFILE_ON_PANIC:
		return read_reaction(value, &h->panic, err, err_size);
	case VMFILE_ON_WATCHDOG:
		return read_reaction(value, &h->watchdog, err, err_size);
	case VMFILE_ON_IO_ERROR:
		return read_reaction(value, &h->io_error, err, err_size);
	case VMFILE_IO_ERROR_TIMEOUT:
		return read_span(value, 0, DAY_MS, &h->io_elsewhere_ms, err, err_size);
	case VMFILE_RESET_LIMIT:
		return value_u32(value, 0, AGENT_MAX_RESETS - 1, &h->reset_limit, err, err_size);
	case VMFILE_RESET_WINDOW:
		return read_span(value, WINDOW_MIN_MS, DAY_MS, &h->reset_window_ms, err, err_size);
	default:
		return value_refuse(err, err_size, "unknown key");
	}
}

/* Where it may run, and after what. */
static int read_place(struct vmfile_read *r, enum vmfile_key key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;

	switch (key) {
	case VMFILE_PREFERRED_NODES:
		if (!*value)
			v->n_preferred = 0;
		return read_words(r, value, line, add_preferred, err, err_size);
	case VMFILE_REQUIRED_NODES:
		if (!*value)
			v->n_required = 0;
		return read_words(r, value, line, add_required, err, err_size);
	case VMFILE_KEEP_APART:
		if (!*value)
			v->n_apart = 0;
		return read_words(r, value, line, add_apart, err, err_size);
	case VMFILE_KEEP_TOGETHER:
		if (!*value)
			v->n_together = 0;
		return read_words(r, value, line, add_together, err, err_size);
	case VMFILE_GROUPS_REQUIRED:
		return read_yes(value, &v->groups_required, err, err_size);
	case VMFILE_AFTER:
		if (!*value)
			v->n_after = 0;
		return read_words(r, value, line, add_after, err, err_size);
	case VMFILE_AFTER_READY:
		return read_ready(v, value, err, err_size);
	case VMFILE_AFTER_DELAY:
		return read_span(value, 0, DAY_MS, &v->after_delay_ms, err, err_size);
	case VMFILE_AFTER_TIMEOUT:
		return read_span(value, 1000, DAY_MS, &v->after_timeout_ms, err, err_size);
	default:
		return read_health(r, key, value, line, err, err_size);
	}
}

static int read_migration(struct vmfile_read *r, enum vmfile_key key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;

	switch (key) {
	case VMFILE_MIGRATE:
		return value_bool(value, &v->migrate, err, err_size);
	case VMFILE_MIGRATE_BANDWIDTH:
		return read_bandwidth(v, value, err, err_size);
	case VMFILE_MIGRATE_DOWNTIME:
		return read_downtime(v, value, err, err_size);
	case VMFILE_MIGRATE_CHANNELS:
		return value_u32(value, 1, CHANNELS_MAX, &v->migrate_channels, err, err_size);
	case VMFILE_MIGRATE_AUTO_CONVERGE:
		return value_bool(value, &v->migrate_auto_converge, err, err_size);
	case VMFILE_MIGRATE_TIMEOUT:
		return read_span(value, 10000, DAY_MS, &v->migrate_timeout_ms, err, err_size);
	default:
		return read_place(r, key, value, line, err, err_size);
	}
}

static int read_value(struct vmfile_read *r, enum vmfile_key key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct vmfile *v = &r->vm;

	switch (key) {
	case VMFILE_NAME:
		return read_name(v, value, err, err_size);
	case VMFILE_UUID:
		return read_uuid(v, value, err, err_size);
	case VMFILE_MEMORY:
		return read_memory(v, value, err, err_size);
	case VMFILE_VCPUS:
		return value_u32(value, 1, VCPUS_MAX, &v->vcpus, err, err_size);
	case VMFILE_DISK:
		if (!*value)
			free_strings(v->disks, &v->n_disks);
		return read_words(r, value, line, add_disk, err, err_size);
	case VMFILE_BINARY:
		return read_binary(v, value, err, err_size);
	case VMFILE_ARGUMENTS:
		if (!*value)
			free_strings(v->args, &v->n_args);
		return read_words(r, value, line, add_argument, err, err_size);
	case VMFILE_STATE:
		return read_state(v, value, err, err_size);
	case VMFILE_PRIORITY:
		return value_u32(value, 0, PRIORITY_MAX, &v->priority, err, err_size);
	case VMFILE_RESTART_LIMIT:
		return value_u32(value, 0, RESTART_LIMIT_MAX, &v->restart_limit, err, err_size);
	case VMFILE_RESTART_WINDOW:
		return read_span(value, WINDOW_MIN_MS, WINDOW_MAX_MS, &v->restart_window_ms, err, err_size);
	case VMFILE_RELOCATE_LIMIT:
		return value_u32(value, 0, RELOCATE_LIMIT_MAX, &v->relocate_limit, err, err_size);
	case VMFILE_STOP_TIMEOUT:
		return read_span(value, 0, STOP_MAX_MS, &v->stop_timeout_ms, err, err_size);
	case VMFILE_RESTART:
		return read_restart(v, value, err, err_size);
	default:
		return read_migration(r, key, value, line, err, err_size);
	}
}

static int on_key(void *user, int key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct vmfile_read *r = user;
	int ret;

	if (key == INI_SECTION)
		return 0;
	ret = read_value(r, (enum vmfile_key)key, value, line, err, err_size);
	if (ret == 0)
		r->seen[key] = true;
	return ret;
}

/* As a whole path, not as the begin or end of a longer one: /d/a is not in file=/d/ab. */
static bool mentions(const char *argument, const char *disk)
{
	static const char inside[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";
	size_t len = strlen(disk);

	for (const char *p = argument; (p = strstr(p, disk)); p++)
		if ((p == argument || !strchr(inside, p[-1])) && (!p[len] || !strchr(inside, p[len])))
			return true;
	return false;
}

static bool has_name(const char *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (streq(list + i * VMFILE_NAME_LEN, name))
			return true;
	return false;
}

static int check_whole(const char *source, const struct vmfile_read *r, char *err, size_t err_size)
{
	static const enum vmfile_key needed[] = { VMFILE_NAME, VMFILE_MEMORY, VMFILE_VCPUS, VMFILE_BINARY };
	static const enum vmfile_key by_agent[] = { VMFILE_BOOT_TIMEOUT, VMFILE_SILENCE_TIMEOUT, VMFILE_ON_SILENCE, VMFILE_CHECK };
	const struct vmfile *v = &r->vm;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!r->seen[needed[i]])
			return value_refuse(err, err_size, "%s: %s= is missing in [%s]; add it", source, keys[needed[i]].key, keys[needed[i]].section);
	for (size_t i = 0; i < ARRAY_SIZE(by_agent); i++)
		if (r->seen[by_agent[i]] && !v->health.agent && (by_agent[i] != VMFILE_BOOT_TIMEOUT || v->health.boot_ms != 0))
			return value_refuse(err, err_size, "%s: %s= in [%s] needs the guest's agent; add GuestAgent=yes, or remove it", source,
					    keys[by_agent[i]].key, keys[by_agent[i]].section);
	for (size_t i = 0; i < v->n_args && v->health.agent && !v->agent_path; i++)
		if (strstr(v->args[i], "name=org.qemu.guest_agent.0"))
			return value_refuse(err, err_size, "%s: GuestAgent=yes in [Health]: Arguments= have a port of that name; write the path of its socket instead", source);
	for (size_t i = 0; i < v->n_after; i++)
		if (streq(v->after[i], v->name))
			return value_refuse(err, err_size, "%s: After= in [HA]: %s would wait for itself; remove it", source, v->name);
	for (size_t i = 0; i < v->n_preferred && v->n_required > 0; i++)
		if (!has_name(v->required[0], v->n_required, v->preferred[i]))
			return value_refuse(err, err_size, "%s: PreferredNodes= in [HA]: %s is not among RequiredNodes=; add it there, or remove it",
					    source, v->preferred[i]);
	for (size_t i = 0; i < v->n_disks; i++) {
		bool found = false;

		for (size_t j = 0; j < v->n_args && !found; j++)
			found = mentions(v->args[j], v->disks[i]);
		if (!found)
			return value_refuse(err, err_size, "%s:%u: Disk=: %s is in no Arguments= of [QEMU]; spell it there as here, or remove it",
					    source, r->disk_line[i], v->disks[i]);
	}
	return 0;
}

int vmfile_parse(const char *source, const char *text, size_t len, struct vmfile *ret, char *err, size_t err_size)
{
	struct vmfile_read r = { .vm = { .start = true, .migrate = true, .priority = PRIORITY_DEFAULT, .restart_limit = RESTART_LIMIT_DEFAULT,
					 .restart_window_ms = WINDOW_DEFAULT_MS, .stop_timeout_ms = STOP_DEFAULT_MS,
					 .after_ready = READY_RUNNING, .after_timeout_ms = 300000, .check_interval_ms = 30000,
					 .check_timeout_ms = 10000, .health = { .hang_ms = 60000, .start_ms = 300000, .silence_ms = 60000, .silence = REACT_ALERT,
					 .io_elsewhere_ms = 30000, .check_failures = 3, .reset_limit = 10, .reset_window_ms = 300000 } } };
	int n;

	if (len > VMFILE_MAX_TEXT)
		return value_refuse(err, err_size, "%s: %zu bytes; use at most %d", source, len, VMFILE_MAX_TEXT);
	n = ini_parse(source, text, len, keys, VMFILE_KEY_COUNT, on_key, &r, err, err_size);
	if (n == 0)
		n = check_whole(source, &r, err, err_size);
	if (n == -ENOMEM)
		(void)value_refuse(err, err_size, "%s: out of memory", source);
	if (n < 0) {
		vmfile_deinit(&r.vm);
		return n;
	}
	r.vm.health.has_check = r.vm.n_check > 0;
	*ret = r.vm;
	return 0;
}

static bool one_of(const char *word, const char *const *list, size_t n, bool prefix)
{
	const char *name = word[0] == '-' && word[1] == '-' ? word + 1 : word;

	for (size_t i = 0; i < n; i++)
		if (prefix ? strncmp(name, list[i], strlen(list[i])) == 0 : streq(name, list[i]))
			return true;
	return false;
}

static bool is_shared(const struct vmfile *v, const char *value)
{
	for (size_t i = 0; i < v->n_disks; i++)
		if (mentions(value, v->disks[i]))
			return true;
	return false;
}

/* A word of QEMU's options, "KEY=VALUE,KEY,...". */
struct word {
	const char *key, *value; /* value: NULL where there is no '=', which means on */
	size_t key_len, value_len;
};

/* p: where one begins. Returns where the next one does; a ",," is a comma in it. */
static const char *next_word(const char *p, struct word *w)
{
	const char *end = p, *equals;

	while (*end && (end[0] != ',' || end[1] == ','))
		end += *end == ',' ? 2 : 1;
	equals = memchr(p, '=', (size_t)(end - p));
	*w = (struct word){ .key = p, .key_len = (size_t)((equals ? equals : end) - p), .value = equals ? equals + 1 : NULL,
			    .value_len = equals ? (size_t)(end - equals) - 1 : 0 };
	return *end ? end + 1 : end;
}

static bool is_text(const char *text, size_t len, const char *s) { return len == strlen(s) && memcmp(text, s, len) == 0; }

static bool is_yes(const char *text, size_t len)
{
	static const char *const yes[] = { "on", "yes", "true", "y" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		if (is_text(text, len, yes[i]))
			return true;
	return false;
}

static bool is_on(const struct word *w) { return !w->value || is_yes(w->value, w->value_len); }

/* "a.b.key" is meant, too. */
static bool ends_in(const struct word *w, const char *key)
{
	size_t len = strlen(key);

	return w->key_len >= len && memcmp(w->key + w->key_len - len, key, len) == 0 && (w->key_len == len || w->key[w->key_len - len - 1] == '.');
}

/* The same in JSON, at whatever depth; behind json: QEMU takes strings for booleans, and dots in keys. */
static bool is_true_in(const char *json, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = json; (p = strstr(p, key)); p += len) {
		const char *is = p + len + strspn(p + len, "\"' \t\r\n:");

		if (p > json && strchr("\"'.", p[-1]) && is > p + len && is_yes(is, strspn(is, "abcdefghijklmnopqrstuvwxyz")))
			return true;
	}
	return false;
}

/* What stands for the driver of a device or of a block device, however it is written: the rest of it begins with the name. */
static const char *driver_in(const char *value, bool device)
{
	const char *p = strstr(value, "\"driver\"");

	if (*value == '{')
		return p ? p + 8 + strspn(p + 8, " :\"") : "";
	if (strncmp(value, "driver=", 7) == 0)
		return value + 7;
	p = strstr(value, ",driver=");
	return p ? p + 8 : device ? value : "";
}

static bool is_drive(const char *option) { return one_of(option, (const char *const[]){ "-drive" }, 1, false); }
static bool is_blockdev(const char *option) { return one_of(option, (const char *const[]){ "-blockdev" }, 1, false); }

/* Of the node itself: what is below it, as its backing file, is read-only for other reasons. */
static bool is_read_only_json(const char *value)
{
	json_object *o = strstr(value, "read-only") ? json_tokener_parse(value) : NULL, *v = NULL;
	bool is = json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, "read-only", &v) && json_object_is_type(v, json_type_boolean) &&
		  json_object_get_boolean(v);

	json_object_put(o);
	return is;
}

/* For sure: one that also says off is not. */
static bool is_read_only(const char *value)
{
	bool cd = false, on = false, off = false;
	struct word w;

	if (*value == '{')
		return is_read_only_json(value);
	for (const char *p = value; *p;) {
		p = next_word(p, &w);
		if (is_text(w.key, w.key_len, "media"))
			cd = w.value && is_text(w.value, w.value_len, "cdrom");
		if (is_text(w.key, w.key_len, "readonly") || is_text(w.key, w.key_len, "read-only"))
			*(is_on(&w) ? &on : &off) = true;
	}
	return cd || (on && !off);
}

/* An image that is written, or may be. "file=" of a -blockdev names another one of them, and is no file. */
static bool is_written(const char *option, const char *value)
{
	static const char *const whole[] = { "-hda", "-hdb", "-hdc", "-hdd", "-fda", "-fdb", "-sd", "-mtdblock", "-pflash" };
	bool image = one_of(option, whole, ARRAY_SIZE(whole), false);

	if (is_drive(option) || is_blockdev(option))
		image = (is_drive(option) && strstr(value, "file=")) || strstr(value, "filename");
	return image && !is_read_only(value);
}

/* Is a key of that name on, at whatever depth? */
static bool is_said(const char *value, const char *key)
{
	struct word w;

	for (const char *p = value; *p && *value != '{';) {
		p = next_word(p, &w);
		if (ends_in(&w, key) && is_on(&w))
			return true;
	}
	return is_true_in(value, key); /* a -drive may have file=json:{...} */
}

static bool is_unsafe(const char *option, const char *value)
{
	return (is_drive(option) || is_blockdev(option)) && !is_read_only(value) && (strstr(value, "cache=unsafe") || is_said(value, "no-flush"));
}

/* What QEMU lets go and must not: the guest's writes would come late, over what it has written at the target, or stay behind. */
static const char *bad_cache(const char *option, const char *value)
{
	if ((!is_drive(option) && !is_blockdev(option)) || is_read_only(value))
		return NULL;
	if (is_unsafe(option, value))
		return "cache=unsafe (no-flush) leaves what the guest has written in its host's memory";
	if (is_said(value, "snapshot"))
		return "snapshot=on leaves what the guest has written in a temporary file of its host";
	return NULL;
}

bool vmfile_can_migrate(const struct vmfile *v, char *err, size_t err_size)
{
	static const char *const host_device[] = { "vfio-", "usb-host", "usb-mtp", "u2f-passthru", "vhost-scsi", "vhost-vdpa", "vhost-user-fs", "virtio-9p", "ivshmem",
						   "ccid-card-passthru", "pci-assign" };
	static const char *const host_driver[] = { "nvme", "virtio-blk-vfio", "virtio-blk-vhost" }; /* of block devices */
	static const char *const host_option[] = { "-virtfs", "-fsdev", "-usbdevice" };

	if (!v->migrate) {
		(void)value_refuse(err, err_size, "Migrate=no in its definition");
		return false;
	}
	for (size_t i = 0; i < v->n_args; i++) {
		const char *option = v->args[i], *value = i + 1 < v->n_args ? v->args[i + 1] : "";
		bool device = streq(option, "-device") || streq(option, "--device");

		if (device && one_of(driver_in(value, true), host_device, ARRAY_SIZE(host_device), true))
			(void)value_refuse(err, err_size, "-device %.80s is a device of its host", value);
		else if ((is_drive(option) || is_blockdev(option)) && one_of(driver_in(value, false), host_driver, ARRAY_SIZE(host_driver), true))
			(void)value_refuse(err, err_size, "%s %.80s is a device of its host", option, value);
		else if (one_of(option, (const char *const[]){ "-snapshot" }, 1, false))
			(void)value_refuse(err, err_size, "-snapshot leaves what the guest has written in a temporary file of its host");
		else if (bad_cache(option, value))
			(void)value_refuse(err, err_size, "%s %.80s: %s", option, value, bad_cache(option, value));
		else if (one_of(option, host_option, ARRAY_SIZE(host_option), false))
			(void)value_refuse(err, err_size, "%s belongs to its host", option);
		else if ((streq(option, "-tpmdev") || streq(option, "--tpmdev")) && strncmp(value, "passthrough", 11) == 0)
			(void)value_refuse(err, err_size, "-tpmdev passthrough is a device of its host");
		else if (is_written(option, value) && !is_shared(v, value))
			(void)value_refuse(err, err_size, "%s %.120s is written and in no Disk= line: a disk of its host, for all that is known", option, value);
		else
			continue;
		return false;
	}
	return true;
}

/* Any such key in it, at whatever depth, has that value: "driver=nbd", "file.driver=nbd", or so in JSON. */
static bool has_word(const char *value, const char *key, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = value; (p = strstr(p, key)); p++) {
		const char *is = p + strlen(key) + strspn(p + strlen(key), "\" :=");

		if (is > p + strlen(key) && strncmp(is, word, len) == 0 && (is[len] == '\0' || strchr("\",", is[len])))
			return true;
	}
	return false;
}

static bool has_driver(const char *value, const char *name) { return has_word(value, "driver", name); }

/* An NBD server of this host, then: another process. */
static bool is_local_nbd(const char *value)
{
	static const char *const url[] = { "nbd:unix:", "nbd+unix:" }, *const option[] = { "server.type=unix", ",path=", ".path=", "\"unix\"" };

	for (size_t i = 0; i < ARRAY_SIZE(url); i++)
		if (strstr(value, url[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(option); i++)
		if (strstr(value, option[i]) && has_driver(value, "nbd"))
			return true;
	return false;
}

/* Who writes to the disk when it is not QEMU. */
static const char *other_writer(const char *option, const char *value)
{
	static const char *const device[] = { "vhost-user-blk", "vhost-user-scsi", "vhost-scsi" };
	static const char *const driver[] = { "virtio-blk-vhost-user", "virtio-blk-vhost-vdpa" };

	if (one_of(option, (const char *const[]){ "-device" }, 1, false))
		return one_of(driver_in(value, true), device, ARRAY_SIZE(device), true) ? "another process, or the kernel," : NULL;
	if (is_read_only(value))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(driver) && (is_drive(option) || is_blockdev(option)); i++)
		if (has_driver(value, driver[i]))
			return "another process";
	/* of a list of words any may be an image */
	return is_local_nbd(value) ? "an NBD server of the host" : NULL;
}

/* Of a -blockdev that names no image itself it cannot be told whose it is. */
static bool may_be_shared(const struct vmfile *v, const char *option, const char *value)
{
	return is_shared(v, value) || (v->n_disks > 0 && is_blockdev(option) && !strstr(value, "filename"));
}

/* Linux waits for none of a killed process' io_uring requests, and of a block device nobody can ask what it has still to do. */
static bool is_not_waited_for(const struct vmfile *v, const char *option, const char *value)
{
	if ((!is_drive(option) && !is_blockdev(option)) || is_read_only(value) || !has_word(value, "aio", "io_uring"))
		return false;
	for (size_t i = 0; i < v->n_disks; i++)
		if (strncmp(v->disks[i], "/dev/", 5) == 0 && mentions(value, v->disks[i]))
			return true;
	return false;
}

int vmfile_check_writes(const char *source, const struct vmfile *v, char *err, size_t err_size)
{
	for (size_t i = 0; i < v->n_args; i++) {
		const char *option = v->args[i], *value = i + 1 < v->n_args ? v->args[i + 1] : "", *who = other_writer(option, value);

		if (who)
			return value_refuse(err, err_size, "%s: Arguments= in [QEMU]: %.40s %.160s: %s writes to that disk, and would write on when this QEMU is killed; "
					    "let QEMU open the disk itself", source, option, value, who);
		if (is_unsafe(option, value) && may_be_shared(v, option, value))
			return value_refuse(err, err_size, "%s: Arguments= in [QEMU]: %.40s %.160s: cache=unsafe (no-flush) leaves what the guest has written in its host's "
					    "memory: it would be lost, or come late, over another node's; use cache=none", source, option, value);
		if (is_not_waited_for(v, option, value))
			return value_refuse(err, err_size, "%s: Arguments= in [QEMU]: %.40s %.160s: what aio=io_uring has begun on a block device goes on when this QEMU is killed, "
					    "and nothing tells when it is over; use aio=native", source, option, value);
	}
	return 0;
}

static bool same_words(char *const *a, size_t n_a, char *const *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	for (size_t i = 0; i < n_a; i++)
		if (!streq(a[i], b[i]))
			return false;
	return true;
}

const char *vmfile_other_qemu(const struct vmfile *a, const struct vmfile *b)
{
	if (a->memory_mib != b->memory_mib)
		return "Memory=";
	if (a->vcpus != b->vcpus)
		return "VCPUs=";
	if (!same_words(a->disks, a->n_disks, b->disks, b->n_disks))
		return "Disk=";
	if (!streq(a->binary, b->binary))
		return "Binary=";
	if (!same_words(a->args, a->n_args, b->args, b->n_args))
		return "Arguments=";
	if (a->health.agent != b->health.agent || !streq(a->agent_path ? a->agent_path : "", b->agent_path ? b->agent_path : ""))
		return "GuestAgent=";
	return NULL;
}

struct uuid_place {
	unsigned int line; /* of the first [VM], 0 before */
	bool has_uuid;
};

static int find_uuid_place(void *user, int key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct uuid_place *place = user;

	if (key == INI_SECTION && streq(value, "VM") && !place->line)
		place->line = line;
	if (key == VMFILE_UUID)
		place->has_uuid = true;
	return 0;
}

int vmfile_with_uuid(const char *text, size_t len, const uint8_t uuid[16], char **ret)
{
	struct uuid_place place = { 0 };
	char err[256], id[UUID_STR_LEN], *out;
	size_t at = 0;
	int r;

	/* by the parser, for a line may read [VM] and be part of a continued value */
	r = ini_parse("", text, len, keys, VMFILE_KEY_COUNT, find_uuid_place, &place, err, sizeof(err));
	if (r < 0)
		return r;
	if (!place.line)
		return -EINVAL;
	if (place.has_uuid)
		return -EEXIST;
	for (unsigned int line = 0; line < place.line && at < len; line++) {
		const char *end = memchr(text + at, '\n', len - at);

		at = end ? (size_t)(end - text) + 1 : len;
	}
	uuid_format(uuid, id);
	if (asprintf(&out, "%.*s%sUUID=%s\n%.*s", (int)at, text, text[at - 1] == '\n' ? "" : "\n", id, (int)(len - at), text + at) < 0)
		return -ENOMEM;
	if (strlen(out) > VMFILE_MAX_TEXT) {
		free(out);
		return -E2BIG;
	}
	*ret = out;
	return 0;
}
