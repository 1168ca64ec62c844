/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/units_message.h"

#include <errno.h>
#include <signal.h>

#include "agent/base/uuid.h"

static int read_text(sd_bus_message *m, char *dst, size_t size)
{
	const char *s;
	int r = sd_bus_message_read(m, "v", "s", &s);

	if (r > 0)
		(void)str_copy(dst, size, s);
	return r;
}

static int read_property(sd_bus_message *m, const char *key, struct units_props *p, int32_t *code, int32_t *status)
{
	uint32_t pid;
	int r;

	if (streq(key, "LoadState"))
		return read_text(m, p->load_state, sizeof(p->load_state));
	if (streq(key, "ActiveState"))
		return read_text(m, p->active_state, sizeof(p->active_state));
	if (streq(key, "Description"))
		return read_text(m, p->info.description, sizeof(p->info.description));
	if (streq(key, "Result"))
		return read_text(m, p->result, sizeof(p->result));
	if (streq(key, "ExecMainCode"))
		return sd_bus_message_read(m, "v", "i", code);
	if (streq(key, "ExecMainStatus"))
		return sd_bus_message_read(m, "v", "i", status);
	if (streq(key, "Job")) {
		r = sd_bus_message_read(m, "v", "(uo)", &pid, NULL);
		p->has_job = r > 0 && pid != 0;
		return r;
	}
	if (!streq(key, "MainPID"))
		return sd_bus_message_skip(m, "v");
	r = sd_bus_message_read(m, "v", "u", &pid);
	if (r > 0)
		p->info.main_pid = (pid_t)pid;
	return r;
}

/* has_run: there is an exit status. A state we do not know is refused: taking a running VM for absent could start it twice. */
static int read_state(const struct units_props *p, bool has_run, enum unit_state *ret)
{
	static const struct {
		const char *active;
		enum unit_state state;
	} table[] = {
		{ "active", UNIT_RUNNING }, { "reloading", UNIT_RUNNING }, { "activating", UNIT_STARTING },
		{ "deactivating", UNIT_STOPPING }, { "failed", UNIT_FAILED }, { "inactive", UNIT_ABSENT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (streq(table[i].active, p->active_state)) {
			*ret = table[i].state;
			/* Inactive: about to be unloaded after a clean exit, or was never there and only our question brought it up. */
			if (*ret == UNIT_ABSENT && p->has_job)
				*ret = UNIT_STARTING; /* systemd has not come to it yet */
			else if ((*ret == UNIT_ABSENT && has_run && streq(p->load_state, "loaded")) || (*ret == UNIT_RUNNING && p->info.main_pid == 0 && !p->info.is_scope))
				*ret = UNIT_EXITED;
			return 0;
		}
	return -EBADMSG;
}

int units_message_read_properties(sd_bus_message *m, struct units_props *p)
{
	int32_t code = 0, status = 0;
	const char *key;
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	*p->result = *p->load_state = *p->active_state = *p->info.description = '\0';
	p->info.main_pid = 0;
	p->has_job = false;
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = sd_bus_message_read(m, "s", &key);
		if (r >= 0)
			r = read_property(m, key, p, &code, &status);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0)
		r = read_state(p, code != 0, &p->info.state);
	if (r < 0)
		return r;
	/* A code is there while the old process is gone and the state is not yet final, too: then it is not for the caller. */
	if (p->info.state != UNIT_EXITED && p->info.state != UNIT_FAILED)
		code = status = 0;
	p->info.exit_killed = code == CLD_KILLED || code == CLD_DUMPED;
	p->info.exit_code = status;
	return 0;
}

int units_message_read_processes(sd_bus_message *m, pid_t *ret)
{
	uint32_t pid = 0;
	int r = sd_bus_message_enter_container(m, 'a', "(sus)");

	*ret = 0;
	while (r >= 0 && *ret == 0 && (r = sd_bus_message_read(m, "(sus)", NULL, &pid, NULL)) > 0)
		*ret = (pid_t)pid;
	return MIN(r, 0);
}

/* What a start of the target says of this host. Reboot wins: shutdown.target comes with either. */
static enum units_fate fate_of(const char *unit, const char *type)
{
	static const struct { const char *unit; enum units_fate fate; } targets[] = {
		{ "reboot.target", UNITS_REBOOTS },       { "kexec.target", UNITS_REBOOTS },    { "soft-reboot.target", UNITS_REBOOTS },
		{ "shutdown.target", UNITS_GOES_DOWN },   { "poweroff.target", UNITS_GOES_DOWN }, { "halt.target", UNITS_GOES_DOWN },
		{ "exit.target", UNITS_GOES_DOWN },       { "rescue.target", UNITS_GOES_DOWN }, { "emergency.target", UNITS_GOES_DOWN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		if (streq(type, "start") && streq(unit, targets[i].unit))
			return targets[i].fate;
	return UNITS_STAYS_UP;
}

int units_message_read_jobs(sd_bus_message *m, enum units_fate *ret)
{
	enum units_fate fate = UNITS_STAYS_UP;
	const char *unit, *type;
	int r = sd_bus_message_enter_container(m, 'a', "(usssoo)");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'r', "usssoo")) > 0) {
		r = sd_bus_message_read(m, "uss", NULL, &unit, &type);
		if (r >= 0)
			fate = MAX(fate, fate_of(unit, type));
		if (r >= 0)
			r = sd_bus_message_skip(m, "soo");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0)
		*ret = fate;
	return MIN(r, 0);
}

/* ExecStartEx, because ExecStart would put environment variables for every $ in an argument. */
static int append_exec(sd_bus_message *m, char *const argv[])
{
	int r = sd_bus_message_open_container(m, 'r', "sv");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", "ExecStartEx");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "a(sasas)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sasas)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'r', "sasas");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", argv[0]);
	if (r >= 0)
		r = sd_bus_message_append_strv(m, (char **)argv);
	if (r >= 0)
		r = sd_bus_message_append(m, "as", 1, "no-env-expand");
	for (int i = 0; r >= 0 && i < 4; i++)
		r = sd_bus_message_close_container(m);
	return r;
}

int units_message_append_properties(sd_bus_message *m, const char *description, char *const argv[], int in)
{
	int r = sd_bus_message_open_container(m, 'a', "(sv)");

	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s", description, "Type", "s", "exec", "Slice", "s", UNITS_SLICE,
					  "CollectMode", "s", "inactive");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "KillMode", "s", "process", "SendSIGKILL", "b", 0, "Restart", "s", "no",
					  "OOMScoreAdjust", "i", (int32_t)-500);
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "After", "as", 1, "ha-keeper.service", "Before", "as", 2, "ha-agent.service", "ha-leave.service",
					  "LimitMEMLOCK", "t", UINT64_MAX, "LimitNOFILE", "t", (uint64_t)65536);
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)", "StandardOutput", "s", "journal", "StandardError", "s", "journal");
	if (r >= 0) /* one that does not end by SIGTERM is then the keeper's to kill */
		r = sd_bus_message_append(m, "(sv)", "TimeoutStopUSec", "t", (uint64_t)UNITS_STOP_S * 1000000);
	if (r >= 0 && in >= 0) /* systemd forgets it when the service ends */
		r = sd_bus_message_append(m, "(sv)", "StandardInputFileDescriptor", "h", in);
	if (r >= 0)
		r = append_exec(m, argv);
	return r >= 0 ? sd_bus_message_close_container(m) : r;
}

int units_message_append_scope(sd_bus_message *m, const char *description, pid_t pid)
{
	int r = sd_bus_message_open_container(m, 'a', "(sv)");

	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s", description, "PIDs", "au", 1, (uint32_t)pid, "Slice", "s", UNITS_SLICE,
					  "CollectMode", "s", "inactive");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "SendSIGKILL", "b", 0, "After", "as", 1, "ha-keeper.service", "Before", "as", 2, "ha-agent.service",
					  "ha-leave.service", "TimeoutStopUSec", "t", (uint64_t)UNITS_STOP_S * 1000000);
	return r >= 0 ? sd_bus_message_close_container(m) : r;
}

bool units_message_name_to_uuid(const char *name, char ret[UUID_STR_LEN], bool *ret_scope)
{
	char text[UUID_STR_LEN], again[UUID_STR_LEN];
	const char *end = name + strlen(UNITS_PREFIX) + UUID_STR_LEN - 1;
	uint8_t uuid[16];

	if (strlen(name) < strlen(UNITS_PREFIX) + UUID_STR_LEN || strncmp(name, UNITS_PREFIX, strlen(UNITS_PREFIX)) != 0)
		return false;
	(void)str_copy(text, sizeof(text), name + strlen(UNITS_PREFIX));
	if ((!streq(end, ".service") && !streq(end, ".scope")) || !uuid_parse(text, uuid))
		return false;
	*ret_scope = streq(end, ".scope");
	uuid_format(uuid, again);
	if (!streq(text, again))
		return false;
	memcpy(ret, text, UUID_STR_LEN);
	return true;
}
