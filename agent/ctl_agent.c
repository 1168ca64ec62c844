/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands the agent carries out: what is sent, and what its answer means in words. */
#include "agent/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <time.h>

#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/ctl_client.h"
#include "agent/vmfile.h"

#define FOLLOW_S 1

static json_object *request_new(const char *command)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "command", json_object_new_string(command));
	return o;
}

static enum ctl_exit exit_of_errno(int r)
{
	return r == -EACCES || r == -EMSGSIZE || r == -ENAMETOOLONG ? CTL_FAILED : CTL_UNAVAILABLE;
}

/* Puts request. 0 and *ret, to put; or an exit code after saying why. */
static int ask(const struct ctl *c, json_object *request, json_object **ret)
{
	char err[CTL_ERROR_LEN] = "";
	json_object *answer = NULL;
	const char *error;
	int r = ctl_client_ask(c->socket, request, CTL_CLIENT_TIMEOUT_MS, &answer, err, sizeof(err));

	json_object_put(request);
	if (r < 0)
		return ctl_fail(c, exit_of_errno(r), "%s", err);
	if (ctl_int(answer, "api_version") != CTL_API_VERSION)
		r = ctl_fail(c, CTL_UNAVAILABLE, "the agent speaks version %" PRId64 " of the protocol, ha-ctl version %d; install the same version of both",
			     ctl_int(answer, "api_version"), CTL_API_VERSION);
	else if (!ctl_bool(answer, "ok")) {
		error = ctl_str(answer, "error");
		r = ctl_fail(c, ctl_bool(answer, "temporary") ? CTL_AGAIN : CTL_FAILED, "%s%s", *error ? error : "refused by the agent without a reason",
			     ctl_bool(answer, "temporary") ? " (try again later)" : "");
	}
	if (r != 0) {
		json_object_put(answer);
		return r;
	}
	*ret = answer;
	return 0;
}

/* For commands without more to tell than that they are done. */
static int ask_and_say(const struct ctl *c, json_object *request, const char *fmt, const char *name)
{
	json_object *answer;
	int r = ask(c, request, &answer);

	if (r != 0)
		return r;
	if (c->json) {
		ctl_print_json(answer);
	} else {
		(void)printf(fmt, name);
		(void)printf("\n");
	}
	json_object_put(answer);
	return CTL_OK;
}

static int show_status(const struct ctl *c, void (*print)(const struct ctl *, json_object *))
{
	json_object *answer, *status;
	int r = ask(c, request_new("status"), &answer);

	if (r != 0)
		return r;
	status = ctl_get(answer, "status", json_type_object);
	if (!status)
		r = ctl_fail(c, CTL_UNAVAILABLE, "the agent's answer has no status in it; compare `ha-ctl --version` with `ha-agent --version`");
	else if (c->json)
		ctl_print_json(answer);
	else
		print(c, status);
	json_object_put(answer);
	return r;
}

int ctl_status(const struct ctl *c) { return show_status(c, ctl_print_status); }
int ctl_node_list(const struct ctl *c) { return show_status(c, ctl_print_nodes); }
int ctl_vm_list(const struct ctl *c) { return show_status(c, ctl_print_vms); }

int ctl_arm(const struct ctl *c)
{
	return ask_and_say(c, request_new("arm"), "The cluster is being armed; `ha-ctl status` shows when every node is.%s", "");
}

int ctl_disarm(const struct ctl *c)
{
	return ask_and_say(c, request_new("disarm"), "The cluster is being disarmed: VMs run on, and nothing protects them until `ha-ctl arm`.%s", "");
}

/* 0, or CTL_USAGE after saying why. */
static int check_name(const struct ctl *c, const char *what, const char *name)
{
	char err[200] = "";

	return value_name_check(name, VMFILE_NAME_LEN, err, sizeof(err)) == 0 ? 0 :
		       ctl_fail(c, CTL_USAGE, "\"%.80s\" is no name of a %s: %s", name, what, err);
}

int ctl_node_maintenance(const struct ctl *c)
{
	bool on = streq(c->args[0], "on");
	json_object *o;
	int r;

	if (!on && !streq(c->args[0], "off"))
		return ctl_fail(c, CTL_USAGE, "node maintenance %.64s: write `on NODE` or `off NODE`", c->args[0]);
	r = check_name(c, "node", c->args[1]);
	if (r != 0)
		return r;
	o = request_new("node-maintenance");
	json_object_object_add(o, "node", json_object_new_string(c->args[1]));
	json_object_object_add(o, "on", json_object_new_boolean(on));
	return ask_and_say(c, o, on ? "Node %s is being emptied; `ha-ctl node list` shows 0 VMs when it is done." : "Node %s takes VMs again.",
			   c->args[1]);
}

static int ask_about_vm(const struct ctl *c, const char *command, const char *said)
{
	json_object *o;
	int r = check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	o = request_new(command);
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	return ask_and_say(c, o, said, c->args[0]);
}

int ctl_vm_start(const struct ctl *c) { return ask_about_vm(c, "vm-start", "VM %s is wanted started; `ha-ctl vm list` shows where."); }
int ctl_vm_stop(const struct ctl *c) { return ask_about_vm(c, "vm-stop", "VM %s is being shut down and stays down."); }
int ctl_vm_remove(const struct ctl *c) { return ask_about_vm(c, "vm-remove", "VM %s is being removed; its disks are left as they are."); }

int ctl_vm_show(const struct ctl *c)
{
	static const char *const lines[] = { "name", "uuid", "state", "node", "desired", "reason" };
	json_object *o, *answer, *vm;
	int r = check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	o = request_new("vm-show");
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	vm = ctl_get(answer, "vm", json_type_object);
	if (c->json)
		ctl_print_json(answer);
	for (size_t i = 0; !c->json && i < ARRAY_SIZE(lines); i++) {
		if (!*ctl_str(vm, lines[i]))
			continue;
		(void)printf("%-8s ", lines[i]);
		ctl_put(ctl_str(vm, lines[i]));
		(void)printf("\n");
	}
	if (!c->json) {
		(void)printf("\n");
		ctl_put(ctl_str(vm, "text"));
	}
	json_object_put(answer);
	return CTL_OK;
}

/* Whole text of a file, "-" for standard input; to free. 0 or a negative errno. */
static int read_text(const char *path, char **ret, size_t *ret_len)
{
	_cleanup_close_ int opened = streq(path, "-") ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int fd = streq(path, "-") ? STDIN_FILENO : opened;
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	text = malloc(VMFILE_MAX_TEXT + 1);
	if (!text)
		return -ENOMEM;
	while ((n = read(fd, text + len, VMFILE_MAX_TEXT + 1 - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (len > VMFILE_MAX_TEXT)
			return -EFBIG;
	}
	*ret = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

/* Checks the definition here, so that a mistake is named with the operator's own file and line; gives it a UUID if it has none. */
static int read_definition(const struct ctl *c, const char *path, char **ret, size_t *ret_len)
{
	_cleanup_free_ char *text = NULL;
	char err[CTL_ERROR_LEN] = "";
	struct vmfile vm = { 0 };
	uint8_t uuid[16];
	size_t len = 0;
	bool has_uuid;
	int r = read_text(path, &text, &len);

	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "%s: cannot read: %s", path, r == -EFBIG ? "longer than 64 KiB" : strerror(-r));
	if (vmfile_parse(streq(path, "-") ? "standard input" : path, text, len, &vm, err, sizeof(err)) < 0)
		return ctl_fail(c, CTL_FAILED, "%s", err);
	has_uuid = vm.has_uuid;
	vmfile_deinit(&vm);
	if (has_uuid) {
		*ret = text;
		*ret_len = len;
		text = NULL;
		return 0;
	}
	r = uuid_random(uuid);
	if (r == 0)
		r = vmfile_with_uuid(text, len, uuid, ret);
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "%s: cannot give it a UUID: %s; write UUID= into it", path, strerror(-r));
	*ret_len = strlen(*ret);
	return 0;
}

int ctl_vm_add(const struct ctl *c)
{
	_cleanup_free_ char *text = NULL;
	json_object *o, *answer;
	size_t len = 0;
	int r = read_definition(c, c->args[0], &text, &len);

	if (r != 0)
		return r;
	o = request_new("vm-add");
	json_object_object_add(o, "text", json_object_new_string_len(text, (int)len));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	if (c->json) {
		ctl_print_json(answer);
	} else {
		(void)printf("VM ");
		ctl_put(ctl_str(answer, "name"));
		(void)printf(" added, UUID ");
		ctl_put(ctl_str(answer, "uuid"));
		(void)printf(".\n");
	}
	json_object_put(answer);
	return CTL_OK;
}

/* The names of syslog's levels. */
static enum ctl_color color_of_level(const char *level)
{
	static const char *const errors[] = { "emerg", "alert", "crit", "err" };

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (streq(level, errors[i]))
			return CTL_RED;
	return streq(level, "warning") ? CTL_YELLOW : CTL_PLAIN;
}

static void print_event(const struct ctl *c, json_object *event)
{
	time_t s = (time_t)(ctl_int(event, "time_ms") / MS_PER_S);
	const char *level = ctl_str(event, "level");
	char when[32] = "?";
	struct tm tm;

	if (localtime_r(&s, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	(void)printf("%s  ", when);
	ctl_color_on(c, color_of_level(level));
	(void)printf("%-8.16s", level);
	ctl_color_off(c);
	(void)printf(" ");
	ctl_put(ctl_str(event, "text"));
	(void)printf("\n");
}

/* Up to where events were printed. again: asked from the start once more, since an agent that was away may number anew. */
struct seen {
	int64_t id, time_ms;
	bool again;
};

/* With -o json one event a line while following, the whole answer else. */
static void print_events(const struct ctl *c, json_object *answer, struct seen *seen)
{
	int64_t before_ms = seen->again ? seen->time_ms : INT64_MIN;
	json_object *events = ctl_get(answer, "events", json_type_array);
	size_t n = events ? json_object_array_length(events) : 0;

	for (size_t i = 0; i < n; i++) {
		json_object *event = json_object_array_get_idx(events, i);

		seen->id = MAX(seen->id, ctl_int(event, "id"));
		if (ctl_int(event, "time_ms") <= before_ms)
			continue;
		seen->time_ms = MAX(seen->time_ms, ctl_int(event, "time_ms"));
		if (!c->json)
			print_event(c, event);
		else if (c->follow)
			(void)printf("%s\n", json_object_to_json_string_ext(event, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	}
	if (c->json && !c->follow)
		ctl_print_json(answer);
	(void)fflush(stdout);
}

static json_object *events_request(struct seen *seen, bool away)
{
	json_object *o = request_new("events");

	seen->again = away;
	if (away)
		seen->id = 0;
	json_object_object_add(o, "since", json_object_new_int64(seen->id));
	return o;
}

int ctl_events(const struct ctl *c)
{
	char err[CTL_ERROR_LEN] = "";
	struct seen seen = { 0 };
	bool away = false;
	json_object *o, *answer;
	int r = ask(c, events_request(&seen, false), &answer);

	while (r == 0) {
		if (answer)
			print_events(c, answer, &seen);
		json_object_put(answer);
		answer = NULL;
		if (!c->follow || ferror(stdout))
			return CTL_OK;
		(void)sleep(FOLLOW_S);
		o = events_request(&seen, away);
		/* An agent that is being upgraded comes back: say so once and wait for it. */
		if (ctl_client_ask(c->socket, o, CTL_CLIENT_TIMEOUT_MS, &answer, err, sizeof(err)) == 0) {
			away = false;
		} else if (!away) {
			(void)fprintf(stderr, "ha-ctl: %s; waiting for it\n", err);
			away = true;
		}
		json_object_put(o);
	}
	return r;
}
