/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands the agent carries out: what is sent, and what its answer means in words. */
#include "agent/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <time.h>

#include "agent/base/paths.h"
#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/ctl_client.h"
#include "agent/disk_place.h"
#include "agent/vmfile.h"

#define FOLLOW_S 1
#define ADOPT_MS 100000 /* the agent gives up before */
#define LOOK_AGAIN_MS 200
#define SETTLE_MS 5000 /* what this node's agent has heard of the others may be so old */
#define FORGET_MS 20000
#define LEAVE_ASK_MS 5000
#define LEAVE_UNHEARD_MS 15000 /* an agent that has ended meanwhile is not started again by a systemd that stops everything */

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

/* Takes answer. 0 if it says that all is well; or an exit code after saying why, and answer is put. */
static int check_answer(const struct ctl *c, json_object *answer)
{
	const char *error;
	int r = 0;

	if (ctl_int(answer, "api_version") != CTL_API_VERSION)
		r = ctl_fail(c, CTL_UNAVAILABLE, "the agent speaks version %" PRId64 " of the protocol, ha-ctl version %d; install the same version of both",
			     ctl_int(answer, "api_version"), CTL_API_VERSION);
	else if (!ctl_bool(answer, "ok")) {
		error = ctl_str(answer, "error");
		r = ctl_fail(c, ctl_bool(answer, "temporary") ? CTL_AGAIN : CTL_FAILED, "%s%s", *error ? error : "refused by the agent without a reason",
			     ctl_bool(answer, "temporary") ? " (try again later)" : "");
	}
	if (r != 0)
		json_object_put(answer);
	return r;
}

/* Puts request. 0 and *ret, to put; or an exit code after saying why. */
static int ask_for(const struct ctl *c, json_object *request, int timeout_ms, json_object **ret)
{
	char err[CTL_ERROR_LEN] = "";
	json_object *answer = NULL;
	int r = ctl_client_ask(c->socket, request, timeout_ms, &answer, err, sizeof(err));

	json_object_put(request);
	if (r < 0)
		return ctl_fail(c, exit_of_errno(r), "%s", err);
	r = check_answer(c, answer);
	if (r == 0)
		*ret = answer;
	return r;
}

static int ask(const struct ctl *c, json_object *request, json_object **ret) { return ask_for(c, request, CTL_CLIENT_TIMEOUT_MS, ret); }

json_object *ctl_request(const char *command) { return request_new(command); }
int ctl_ask(const struct ctl *c, json_object *request, json_object **ret) { return ask(c, request, ret); }

static int say(const struct ctl *c, json_object *answer, const char *fmt, const char *name)
{
	if (c->json) {
		ctl_print_json(answer);
	} else {
		(void)printf(fmt, name);
		(void)printf("\n");
	}
	json_object_put(answer);
	return CTL_OK;
}

/* For commands without more to tell than that they are done. */
static int ask_and_say(const struct ctl *c, json_object *request, const char *fmt, const char *name)
{
	json_object *answer;
	int r = ask(c, request, &answer);

	return r != 0 ? r : say(c, answer, fmt, name);
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
	json_object *o = request_new("disarm");

	if (c->pause)
		json_object_object_add(o, "pause", json_object_new_string(c->pause));
	return ask_and_say(c, o, "The cluster is being disarmed: VMs run on, and nothing protects them until `ha-ctl arm`.%s",
			   !c->pause ? "" : streq(c->pause, "freeze") ? "\nNone is started, stopped, restarted or moved meanwhile." :
									"\nNone is started, stopped or restarted meanwhile.");
}

/* 0, or CTL_USAGE after saying why. */
int ctl_check_name(const struct ctl *c, const char *what, const char *name)
{
	char err[200] = "";

	return value_name_check(name, VMFILE_NAME_LEN, err, sizeof(err)) == 0 ? 0 :
		       ctl_fail(c, CTL_USAGE, "\"%.80s\" is no name of a %s: %s", name, what, err);
}

int64_t ctl_now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static void pause_ms(int64_t ms)
{
	struct timespec t = { .tv_sec = ms / MS_PER_S, .tv_nsec = ms % MS_PER_S * NS_PER_MS };

	(void)nanosleep(&t, NULL);
}

/* One answer. 1: ask again, 0: over; or an exit code, below 0. */
static int look_at_leaving(const struct ctl *c, json_object *answer, int64_t since_ms, int64_t *ret_told)
{
	int64_t vms = ctl_int(answer, "vms");

	if (!ctl_bool(answer, "going_down") || ctl_bool(answer, "left")) {
		if (c->json)
			ctl_print_json(answer);
		else
			(void)printf("%s\n", ctl_bool(answer, "going_down") ? "No VM of this node is left to wait for." : "This host does not go down: its VMs stay.");
		return 0;
	}
	if (ctl_bool(answer, "in_vain"))
		return -ctl_fail(c, CTL_FAILED, "the agent has no keeper or no quorum of the volumes: VMs that still run here are ended as the host goes down");
	if (ctl_now_ms() - since_ms > ctl_int(answer, "timeout_ms"))
		return -ctl_fail(c, CTL_FAILED, "%" PRId64 " VMs have not left within ShutdownTimeout=: they are ended as the host goes down", vms);
	if (vms != *ret_told && !c->json)
		(void)printf("This host goes down: waiting for %" PRId64 " VMs.\n", vms);
	(void)fflush(stdout);
	*ret_told = vms;
	return 1;
}

/* From here on a SIGTERM is for the keeper that ends last, and not one that puts a new binary in force. */
static void mark_leave_over(void)
{
	int fd = open(PATHS_LEAVE_OVER, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		(void)close(fd);
}

/* Runs in the stop of a unit: whatever happens it ends. */
int ctl_node_leave(const struct ctl *c)
{
	int64_t since_ms = ctl_now_ms(), heard_ms = since_ms, told = -1;
	bool stays = false;
	json_object *request = request_new("node-leave");
	char err[CTL_ERROR_LEN] = "";
	int again = 1;

	while (again > 0) {
		json_object *answer = NULL;
		int r = ctl_client_ask(c->socket, request, LEAVE_ASK_MS, &answer, err, sizeof(err));

		if (r == 0 && ctl_bool(answer, "ok")) {
			again = look_at_leaving(c, answer, since_ms, &told);
			stays = !ctl_bool(answer, "going_down");
			heard_ms = ctl_now_ms();
		} else if (ctl_now_ms() - heard_ms > LEAVE_UNHEARD_MS) {
			again = -ctl_fail(c, CTL_UNAVAILABLE, "%s: VMs that still run here are ended as the host goes down", r < 0 ? err : ctl_str(answer, "error"));
		}
		json_object_put(answer);
		if (again > 0)
			pause_ms(LOOK_AGAIN_MS);
	}
	json_object_put(request);
	if (!stays)
		mark_leave_over();
	return -again;
}

static json_object *request_about_vm(const struct ctl *c, const char *command)
{
	json_object *o = request_new(command);

	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	return o;
}

static int ask_about_vm(const struct ctl *c, const char *command, const char *said)
{
	int r = ctl_check_name(c, "VM", c->args[0]);

	return r != 0 ? r : ask_and_say(c, request_about_vm(c, command), said, c->args[0]);
}

int ctl_vm_start(const struct ctl *c) { return ask_about_vm(c, "vm-start", "VM %s is wanted started; `ha-ctl vm list` shows where."); }
int ctl_vm_stop(const struct ctl *c) { return ask_about_vm(c, "vm-stop", "VM %s is being shut down and stays down."); }
int ctl_vm_remove(const struct ctl *c) { return ask_about_vm(c, "vm-remove", "VM %s is being removed; its disks are left as they are."); }

int ctl_vm_ignore(const struct ctl *c)
{
	return ask_about_vm(c, "vm-ignore", "VM %s is ignored until `ha-ctl vm start` or `ha-ctl vm stop`: nobody starts, stops or recovers it.");
}

int ctl_vm_freeze(const struct ctl *c)
{
	return ask_about_vm(c, "vm-freeze", "VM %s is frozen until `ha-ctl vm unfreeze`: nobody starts, stops, moves or recovers it.");
}

int ctl_vm_unfreeze(const struct ctl *c) { return ask_about_vm(c, "vm-unfreeze", "VM %s is unfrozen: what was asked for meanwhile is done now."); }

int ctl_adopt(const struct ctl *c)
{
	json_object *o, *answer;
	char err[160] = "";
	uint32_t pid;
	int r = ctl_check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	if (value_u32(c->args[1], 2, INT32_MAX, &pid, err, sizeof(err)) < 0)
		return ctl_fail(c, CTL_USAGE, "\"%.40s\" is no number of a process: %s", c->args[1], err);
	if (c->args[2][0] != '/')
		return ctl_fail(c, CTL_USAGE, "\"%.80s\" is no absolute path of a QMP socket", c->args[2]);
	o = request_new("vm-adopt");
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	json_object_object_add(o, "pid", json_object_new_int64(pid));
	json_object_object_add(o, "socket", json_object_new_string(c->args[2]));
	r = ask_for(c, o, ADOPT_MS, &answer);
	if (r != 0)
		return r;
	if (c->json)
		ctl_print_json(answer);
	else
		(void)printf("VM %s is adopted: it is process %u on this node, and protected from now on.\n", c->args[0], pid);
	json_object_put(answer);
	return CTL_OK;
}

/* As ask, but nothing is said of what is asked for in vain for a time only; *ret may be any answer. */
static int ask_on(const struct ctl *c, json_object *request, json_object **ret)
{
	int64_t until_ms = ctl_now_ms() + CTL_CLIENT_TIMEOUT_MS;
	char err[CTL_ERROR_LEN] = "";
	bool again;
	int r;

	do {
		pause_ms(LOOK_AGAIN_MS);
		r = ctl_client_ask(c->socket, request, CTL_CLIENT_TIMEOUT_MS, ret, err, sizeof(err));
		again = ctl_now_ms() < until_ms && (r < 0 ? r != -EACCES : ctl_bool(*ret, "temporary"));
		if (again && r == 0)
			json_object_put(*ret);
	} while (again);
	json_object_put(request);
	return r < 0 ? ctl_fail(c, exit_of_errno(r), "%s", err) : 0;
}

int ctl_ask_again(const struct ctl *c, json_object *request, const char *key, json_object **ret)
{
	int r = ask_on(c, request, ret);

	if (r != 0)
		return r;
	if (ctl_get(*ret, key, json_type_object))
		return 0;
	r = ctl_fail(c, ctl_bool(*ret, "temporary") ? CTL_AGAIN : CTL_FAILED, "%s",
		     *ctl_str(*ret, "error") ? ctl_str(*ret, "error") : "the agent's answer does not have in it what was asked for");
	json_object_put(*ret);
	return r;
}

bool ctl_known(json_object *status)
{
	return !ctl_get(status, "known", json_type_boolean) || ctl_bool(status, "known"); /* an agent of an earlier release does not say */
}

/* About the VM of the command. */
static int look_again(const struct ctl *c, json_object **ret)
{
	return ctl_ask_again(c, request_about_vm(c, "vm-show"), "vm", ret);
}

enum relocation { RELOCATION_PENDING, RELOCATION_DONE, RELOCATION_LOST, RELOCATION_ELSEWHERE };

/* What became of the request of this number. elsewhere: it is over, and the VM is not there; or not yet, for what this node knows. */
static enum relocation relocation_of(json_object *vm, const char *to, int64_t number)
{
	bool there = streq(ctl_str(vm, "node"), to);

	if (ctl_int(vm, "move_number") < number)
		return RELOCATION_PENDING; /* the catalog here is an older one */
	if (ctl_int(vm, "move_number") > number || !streq(ctl_str(vm, "desired"), "started") || streq(ctl_str(vm, "state"), "error"))
		return RELOCATION_LOST;
	if (*ctl_str(vm, "move_to"))
		return RELOCATION_PENDING;
	if (!there)
		return RELOCATION_ELSEWHERE;
	return streq(ctl_str(vm, "state"), "running") ? RELOCATION_DONE : RELOCATION_PENDING;
}

#define BAR_WIDTH 30

/* While it is on its way: a bar on a terminal, a line of JSON for each change with -o json, nothing into a file. */
static void show_progress(const struct ctl *c, json_object *vm, char *last, size_t last_size)
{
	json_object *m = ctl_get(vm, "migration", json_type_object);
	int percent = (int)MIN(MAX(ctl_int(m, "percent"), 0), 100);
	const char *text = m ? json_object_to_json_string_ext(m, JSON_C_TO_STRING_PLAIN) : "";

	if (!m || strncmp(text, last, last_size - 1) == 0)
		return;
	(void)str_copy(last, last_size, text);
	if (c->json) {
		(void)printf("%s\n", text);
	} else if (isatty(STDOUT_FILENO)) {
		(void)printf("\r[");
		for (int i = 0; i < BAR_WIDTH; i++)
			(void)putchar(i < percent * BAR_WIDTH / 100 ? '#' : '.');
		(void)printf("] %3d %%  %" PRId64 " MiB left, %" PRId64 " MiB/s, dirtied %" PRId64 " MiB/s  ", percent, ctl_int(m, "remaining") >> 20,
			     ctl_int(m, "rate") >> 20, ctl_int(m, "dirty_rate") >> 20);
	}
	(void)fflush(stdout);
}

/* live: asked for by `vm migrate`, where a relocation may still do what that could not */
static int wait_for_relocation(const struct ctl *c, int64_t number, bool live)
{
	const char *name = c->args[0], *to = c->args[1];
	int64_t elsewhere_ms = 0;
	char last[1024] = "";

	for (;;) {
		json_object *answer, *vm, *failure;
		enum relocation is;
		const char *why;
		int r = look_again(c, &answer);

		if (r != 0)
			return r;
		vm = ctl_get(answer, "vm", json_type_object);
		is = relocation_of(vm, to, number);
		show_progress(c, vm, last, sizeof(last));
		failure = ctl_get(vm, "not_migrated", json_type_object);
		why = failure && ctl_int(failure, "number") == number ? ctl_str(failure, "why") : "";
		elsewhere_ms = is != RELOCATION_ELSEWHERE ? 0 : elsewhere_ms ? elsewhere_ms : ctl_now_ms();
		if (is == RELOCATION_PENDING || (is == RELOCATION_ELSEWHERE && ctl_now_ms() - elsewhere_ms < SETTLE_MS)) {
			json_object_put(answer);
			continue;
		}
		if (*last && !c->json && isatty(STDOUT_FILENO))
			(void)printf("\n");
		if (is != RELOCATION_DONE)
			r = ctl_fail(c, CTL_FAILED, "VM %s was not moved to %s: it is %s%s%s, wanted %s%s%s; `ha-ctl events` tells more%s", name, to, ctl_str(vm, "state"),
				     *ctl_str(vm, "node") ? " on " : "", ctl_str(vm, "node"), ctl_str(vm, "desired"), *why ? ": " : "", why,
				     live && is == RELOCATION_ELSEWHERE ? ", and `ha-ctl vm relocate` stops it here and starts it there" : "");
		else if (c->json)
			ctl_print_json(answer);
		else
			(void)printf("VM %s runs on %s.\n", name, to);
		json_object_put(answer);
		return r;
	}
}

int ctl_vm_relocate(const struct ctl *c)
{
	json_object *o, *answer;
	int64_t number;
	bool runs;
	int r = ctl_check_name(c, "VM", c->args[0]);

	if (r != 0 || (r = ctl_check_name(c, "node", c->args[1])) != 0)
		return r;
	o = request_new("vm-relocate");
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	json_object_object_add(o, "node", json_object_new_string(c->args[1]));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	number = ctl_int(answer, "number");
	runs = streq(ctl_str(answer, "desired"), "started");
	if (c->json && !(c->wait && runs))
		ctl_print_json(answer);
	else if (!c->json && !runs)
		(void)printf("VM %s is stopped; on its next start it is started on %s.\n", c->args[0], c->args[1]);
	else if (!c->json && !c->wait) {
		(void)printf("VM %s is being moved", c->args[0]);
		if (*ctl_str(answer, "from")) {
			(void)printf(" from ");
			ctl_put(ctl_str(answer, "from"));
		}
		(void)printf(" to %s; `ha-ctl vm list` shows where it is.\n", c->args[1]);
	}
	json_object_put(answer);
	return c->wait && runs ? wait_for_relocation(c, number, false) : CTL_OK;
}

int ctl_vm_migrate(const struct ctl *c)
{
	json_object *o, *answer;
	int64_t number;
	int r = ctl_check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	if (c->cancel && (c->wait || c->n_args != 1))
		return ctl_fail(c, CTL_USAGE, "vm migrate: write `vm migrate NAME --cancel`, and nothing else");
	if (c->cancel)
		return ask_about_vm(c, "vm-migrate-cancel", "The migration of VM %s is called off; it stays where it is.");
	if (c->n_args != 2)
		return ctl_fail(c, CTL_USAGE, "vm migrate: to which node? Write `vm migrate %s NODE`", c->args[0]);
	r = ctl_check_name(c, "node", c->args[1]);
	if (r != 0)
		return r;
	o = request_new("vm-migrate");
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	json_object_object_add(o, "node", json_object_new_string(c->args[1]));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	number = ctl_int(answer, "number");
	if (c->json && !c->wait)
		ctl_print_json(answer);
	else if (!c->json && !c->wait)
		(void)printf("VM %s is being migrated to %s; `ha-ctl vm list` shows where it is.\n", c->args[0], c->args[1]);
	json_object_put(answer);
	return c->wait ? wait_for_relocation(c, number, true) : CTL_OK;
}

/* 0 when no living node holds on to a failure of the VM any more, or an exit code. */
static int wait_forgotten(const struct ctl *c)
{
	int64_t until_ms = ctl_now_ms() + FORGET_MS;

	for (;;) {
		json_object *answer, *failed_on;
		size_t n;
		int r = look_again(c, &answer);

		if (r != 0)
			return r;
		n = ctl_list(ctl_get(answer, "vm", json_type_object), "failed_on", &failed_on);
		if (n > 0 && ctl_now_ms() >= until_ms) {
			const char *node = json_object_get_string(json_object_array_get_idx(failed_on, 0));

			r = ctl_fail(c, CTL_AGAIN, "the agent of node %s does not forget that VM %s failed there: `ha-ctl node list` says how it is", node ? node : "?", c->args[0]);
		}
		json_object_put(answer);
		if (n == 0 || r != 0)
			return r;
	}
}

/* Two edits: "to be stopped", which all nodes must have seen, and "to be started". Between them it cannot be said again: the VM is in error no more. */
int ctl_vm_clear_error(const struct ctl *c)
{
	struct ctl half = *c;
	char remedy[CTL_ERROR_LEN];
	json_object *answer;
	int r = ctl_check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	r = ask(c, request_about_vm(c, "vm-clear-error"), &answer);
	if (r != 0)
		return r;
	json_object_put(answer);
	(void)snprintf(remedy, sizeof(remedy), "the VM is wanted stopped now; `ha-ctl vm start %s` starts it", c->args[0]);
	half.remedy = remedy;
	r = wait_forgotten(&half);
	if (r == 0)
		r = ask_on(&half, request_about_vm(c, "vm-start"), &answer);
	if (r == 0)
		r = check_answer(&half, answer);
	return r != 0 ? r : say(c, answer, "The failures of VM %s are forgotten, and it is started again; `ha-ctl vm list` shows where.", c->args[0]);
}

/* One line a node; the rank's values that tell nodes apart follow for those that fit. */
static void print_why(json_object *why)
{
	json_object *nodes, *rank;
	size_t n = ctl_list(why, "nodes", &nodes), n_rank;

	(void)printf("\n");
	if (*ctl_str(why, "waits_for")) {
		(void)printf("waits until ");
		ctl_put(ctl_str(why, "waits_for"));
		(void)printf(" is ready (After=)\n");
	}
	(void)printf("owner: ");
	ctl_put(*ctl_str(why, "owner") ? ctl_str(why, "owner") : "none");
	(void)printf("; would be started now on: ");
	ctl_put(*ctl_str(why, "choice") ? ctl_str(why, "choice") : "no node");
	(void)printf("\n");
	for (size_t i = 0; i < n; i++) {
		json_object *node = json_object_array_get_idx(nodes, i);

		(void)printf("  ");
		ctl_put(ctl_str(node, "node"));
		(void)printf(" ");
		ctl_put(ctl_str(node, "why"));
		n_rank = ctl_bool(node, "fits") ? ctl_list(node, "rank", &rank) : 0;
		for (size_t k = 0; k < n_rank; k++) {
			json_object *r = json_object_array_get_idx(rank, k);

			if (ctl_int(r, "value") == 0)
				continue;
			(void)printf("; ");
			ctl_put(ctl_str(r, "what"));
			(void)printf(": %" PRId64, ctl_int(r, "value"));
		}
		(void)printf("\n");
	}
	(void)printf("(less is better, the first difference decides: failed, quarantine, KeepApart=, KeepTogether=, PreferredNodes=, VMs there, moved)\n");
}

int ctl_vm_show(const struct ctl *c)
{
	static const char *const lines[] = { "name", "uuid", "state", "node", "desired", "ready", "reserved", "last_failure", "reason" };
	json_object *o, *answer, *vm, *why, *failure;
	int r = ctl_check_name(c, "VM", c->args[0]);

	if (r != 0)
		return r;
	o = request_new("vm-show");
	json_object_object_add(o, "name", json_object_new_string(c->args[0]));
	if (c->why)
		json_object_object_add(o, "why", json_object_new_boolean(true));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	vm = ctl_get(answer, "vm", json_type_object);
	if (c->json)
		ctl_print_json(answer);
	for (size_t i = 0; !c->json && i < ARRAY_SIZE(lines); i++) {
		if (!*ctl_str(vm, lines[i]))
			continue;
		(void)printf("%-8s ", streq(lines[i], "last_failure") ? "failed" : lines[i]);
		ctl_put(ctl_str(vm, lines[i]));
		(void)printf("\n");
	}
	failure = ctl_get(vm, "not_migrated", json_type_object);
	if (!c->json && failure) {
		(void)printf("migrate  failed: ");
		ctl_put(ctl_str(failure, "why"));
		(void)printf("\n");
	}
	why = ctl_get(vm, "why", json_type_object);
	if (!c->json && why)
		print_why(why);
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

/* What another node has under the same path is then another disk, or none. */
static void warn_of_local(const char *path, const struct vmfile *vm)
{
	const char *local = disk_place_find(vm, DISK_LOCAL), *unknown = disk_place_find(vm, DISK_UNKNOWN);

	if (vm->n_required == 1)
		return;
	if (local)
		(void)fprintf(stderr, "ha-ctl: warning: %s: Disk=%s is on a local disk of this host: no other node has what the VM writes there, and it is never "
			      "migrated; move it to shared storage, or tie the VM to its node with RequiredNodes=\n", path, local);
	if (unknown)
		(void)fprintf(stderr, "ha-ctl: warning: %s: Disk=%s is not known to be on shared storage; look whether it is the same disk on every node\n", path, unknown);
}

/* Checks the definition here, so that a mistake is named with the operator's own file and line; gives one that is new a UUID if it has none. */
static int read_definition(const struct ctl *c, const char *path, bool is_new, char **ret, size_t *ret_len)
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
	r = is_new ? vmfile_check_writes(streq(path, "-") ? "standard input" : path, &vm, err, sizeof(err)) : 0;
	has_uuid = vm.has_uuid || !is_new;
	if (is_new)
		warn_of_local(path, &vm);
	vmfile_deinit(&vm);
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "%s", err);
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

static int send_definition(const struct ctl *c, const char *command, bool is_new, const char *done)
{
	_cleanup_free_ char *text = NULL;
	json_object *o, *answer;
	size_t len = 0;
	int r = read_definition(c, c->args[0], is_new, &text, &len);

	if (r != 0)
		return r;
	o = request_new(command);
	json_object_object_add(o, "text", json_object_new_string_len(text, (int)len));
	r = ask(c, o, &answer);
	if (r != 0)
		return r;
	if (c->json) {
		ctl_print_json(answer);
	} else {
		(void)printf("VM ");
		ctl_put(ctl_str(answer, "name"));
		(void)printf(" %s, UUID ", done);
		ctl_put(ctl_str(answer, "uuid"));
		(void)printf(".\n");
	}
	json_object_put(answer);
	return CTL_OK;
}

int ctl_vm_add(const struct ctl *c) { return send_definition(c, "vm-add", true, "added"); }
int ctl_vm_update(const struct ctl *c) { return send_definition(c, "vm-update", false, "updated"); }

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
	char when[32] = "?", padded[17];
	struct tm tm;

	if (localtime_r(&s, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	(void)printf("%s  ", when);
	ctl_color_on(c, color_of_level(level));
	(void)snprintf(padded, sizeof(padded), "%-8s", level);
	ctl_put(padded);
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
