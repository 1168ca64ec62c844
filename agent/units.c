/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A request is one struct with at most one bus call under way:
 *
 *   start:  RESET -> START -> JOB -> PROPERTIES -> done      (a refusal by systemd ends it from START)
 *   kill:   KILL -> done
 *   query:  PROPERTIES -> done
 *   fate:   JOBS -> done
 *   list:   LIST -> PROPERTIES, unit by unit -> done
 *
 * When the connection ends, so do all requests, and a new one is made; what had been asked may have happened or not. */
#include "agent/units_bus.h"

#include <errno.h>
#include <stdio.h>

#define JOB_MS 30000 /* systemd has started a unit within this: Type=exec waits for no more than the exec */

static int ask_properties(struct units_request *q);

/* Requests */

static void name_unit(struct units_request *q) { (void)snprintf(q->name, sizeof(q->name), UNITS_PREFIX "%s.%s", q->props.info.uuid, q->props.info.is_scope ? "scope" : "service"); }

static struct units_request *request_new(struct units *u, const char *uuid, bool scope, void *user)
{
	struct units_request *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->units = u;
	q->deadline_us = UNITS_NEVER;
	q->user = user;
	if (uuid) {
		(void)str_copy(q->props.info.uuid, sizeof(q->props.info.uuid), uuid);
		q->props.info.is_scope = scope;
		name_unit(q);
	}
	q->next = u->requests;
	u->requests = q;
	u->n_requests++;
	return q;
}

static void request_free(struct units_request *q)
{
	struct units_request **p = &q->units->requests;

	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
	q->units->n_requests--;
	(void)sd_bus_slot_unref(q->slot);
	(void)sd_bus_message_unref(q->start);
	free(q->list);
	free(q);
}

/* Ends a request. known: info holds what systemd said about the unit. */
static void request_end(struct units_request *q, const char *error, bool known)
{
	struct units_request copy = *q;

	q->list = NULL;
	request_free(q);
	if (copy.units->is_freed)
		;
	else if (copy.fate_done)
		copy.fate_done(copy.user, error, copy.fate);
	else if (copy.list_done)
		copy.list_done(copy.user, error, error ? NULL : copy.list, error ? 0 : copy.n_list);
	else
		copy.done(copy.user, error, known ? &copy.props.info : NULL);
	free(copy.list);
}

static void request_fail(struct units_request *q, const char *what, int r)
{
	char text[160];

	(void)snprintf(text, sizeof(text), "%s: %s", what, strerror(-r));
	request_end(q, text, false);
}

/* A refusal by systemd, in its words; NULL if m is a good answer. */
static const char *refusal(sd_bus_message *m)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);

	if (!e)
		return NULL;
	return e->message && *e->message ? e->message : e->name;
}

/* Sends m as the request's next call; the answer, whatever it is, goes to fn. */
static int request_call(struct units_request *q, sd_bus_message *m, sd_bus_message_handler_t fn)
{
	q->slot = sd_bus_slot_unref(q->slot);
	return sd_bus_call_async(q->units->bus, &q->slot, m, fn, q, UNITS_CALL_MS * US_PER_MS);
}

/* Every bus callback begins here: the slot has done its work. */
static struct units_request *answered(void *user)
{
	struct units_request *q = user;

	q->slot = sd_bus_slot_unref(q->slot);
	units_bus_proven(q->units);
	return q;
}

static int manager_call(struct units *u, const char *method, sd_bus_message **ret)
{
	return sd_bus_message_new_method_call(u->bus, ret, UNITS_DESTINATION, UNITS_MANAGER_PATH, UNITS_MANAGER, method);
}

static void start_report(struct units_request *q)
{
	char text[200];

	if (streq(q->job_result, "done") && q->props.info.state != UNIT_FAILED) {
		request_end(q, NULL, true);
		return;
	}
	if (q->props.info.state != UNIT_FAILED)
		(void)snprintf(text, sizeof(text), "start job: %s", q->job_result);
	else if (!q->props.info.exit_killed && q->props.info.exit_code == 203)
		(void)snprintf(text, sizeof(text), "start failed: the program could not be executed (203/EXEC); is it there and executable?");
	else
		(void)snprintf(text, sizeof(text), "start failed: %s, %s %d", q->props.result, q->props.info.exit_killed ? "signal" : "status",
			       q->props.info.exit_code);
	request_end(q, text, true);
}

static int list_next(struct units_request *q);

static void have_info(struct units_request *q)
{
	int r;

	if (q->list_done) {
		/* One that has gone since it was listed is left out; one we cannot ask about has ended the list above: it may well run. */
		if (q->props.info.state != UNIT_ABSENT || q->props.info.main_pid != 0)
			q->list[q->n_list++] = q->props.info;
		r = list_next(q);
		if (r < 0)
			request_fail(q, "list units", r);
	} else if (q->is_start) {
		start_report(q);
	} else {
		request_end(q, NULL, true);
	}
}

static int on_processes(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	const char *no = sd_bus_message_is_method_error(m, UNITS_DESTINATION ".NoSuchUnit") ? NULL : refusal(m);
	int r = no || refusal(m) ? 0 : units_message_read_processes(m, &q->props.info.main_pid);

	if (no)
		request_end(q, no, false);
	else if (r < 0)
		request_fail(q, "systemd's answer", r);
	else
		have_info(q);
	return 0;
}

/* It is over for systemd, perhaps forgotten (reset-failed), and a process that does not die may be in its control group all the same: KillMode=process, SendSIGKILL=no. */
static bool may_have_left(const struct units_props *p)
{
	enum unit_state s = p->info.state;

	return p->info.main_pid == 0 && (s == UNIT_STOPPING || s == UNIT_EXITED || s == UNIT_FAILED || (s == UNIT_ABSENT && streq(p->load_state, "loaded")));
}

static int ask_processes(struct units_request *q)
{
	sd_bus_message *m = NULL;
	int r = manager_call(q->units, "GetUnitProcesses", &m);

	q->step = UNITS_STEP_PROCESSES;
	if (r >= 0)
		r = sd_bus_message_append(m, "s", q->name);
	if (r >= 0)
		r = request_call(q, m, on_processes);
	(void)sd_bus_message_unref(m);
	return r;
}

static int on_properties(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	const char *no = refusal(m);
	int r = no ? 0 : units_message_read_properties(m, &q->props);

	if (no) {
		request_end(q, no, false);
		return 0;
	}
	if (r >= 0 && !q->is_start && may_have_left(&q->props))
		r = ask_processes(q);
	else if (r >= 0)
		have_info(q);
	if (r < 0)
		request_fail(q, "systemd's answer", r);
	return 0;
}

/* All properties in one answer: they belong to one moment. */
static int ask_properties(struct units_request *q)
{
	sd_bus_message *m = NULL;
	char *path = NULL;
	int r = sd_bus_path_encode(UNITS_MANAGER_PATH "/unit", q->name, &path);

	q->step = UNITS_STEP_PROPERTIES;
	if (r >= 0)
		r = sd_bus_message_new_method_call(q->units->bus, &m, UNITS_DESTINATION, path, "org.freedesktop.DBus.Properties", "GetAll");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", "");
	if (r >= 0)
		r = request_call(q, m, on_properties);
	(void)sd_bus_message_unref(m);
	free(path);
	return r;
}

/* Start */

static void job_over(struct units_request *q)
{
	int r;

	q->deadline_us = UNITS_NEVER;
	r = ask_properties(q);
	if (r < 0)
		request_fail(q, "ask for the unit", r);
}

/* JobRemoved. */
int units_request_job_removed(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units *u = user;
	const char *job, *unit, *result;
	uint32_t id;

	if (sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) < 0)
		return 0;
	for (struct units_request *q = u->requests; q; q = q->next) {
		/* Before the answer to the call has told us the job's path, the unit's name must do. */
		if (q->step == UNITS_STEP_JOB ? !streq(q->job, job) : q->step != UNITS_STEP_START || !streq(q->name, unit))
			continue;
		(void)str_copy(q->job, sizeof(q->job), job);
		(void)str_copy(q->job_result, sizeof(q->job_result), result);
		if (q->step == UNITS_STEP_JOB) {
			job_over(q);
			break;
		}
	}
	return 0;
}

static int on_started(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	const char *no = refusal(m), *job;
	bool is_over;
	int r;

	if (no) {
		request_end(q, no, false);
		return 0;
	}
	r = sd_bus_message_read(m, "o", &job);
	if (r < 0) {
		request_fail(q, "systemd's answer", r);
		return 0;
	}
	is_over = *q->job_result && streq(q->job, job);
	q->step = UNITS_STEP_JOB;
	q->deadline_us = units_bus_clock_us() + JOB_MS * US_PER_MS;
	(void)str_copy(q->job, sizeof(q->job), job);
	if (is_over)
		job_over(q);
	else
		q->job_result[0] = '\0';
	return 0;
}

/* Whatever the answer is: most often there is nothing to reset, and what is in the way StartTransientUnit will say. */
static int on_reset(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	int r;

	q->step = UNITS_STEP_START;
	r = request_call(q, q->start, on_started);
	q->start = sd_bus_message_unref(q->start);
	if (r < 0)
		request_fail(q, "StartTransientUnit", r);
	return 0;
}

/* argv NULL: a scope, of pid. */
static int start_message(struct units_request *q, const char *description, char *const argv[], int in, pid_t pid)
{
	int r = manager_call(q->units, "StartTransientUnit", &q->start);

	if (r >= 0)
		r = sd_bus_message_append(q->start, "ss", q->name, "fail");
	if (r >= 0)
		r = argv ? units_message_append_properties(q->start, description, argv, in) : units_message_append_scope(q->start, description, pid);
	return r >= 0 ? sd_bus_message_append(q->start, "a(sa(sv))", 0) : r;
}

void units_request_expire(struct units *u)
{
	uint64_t now_us = units_bus_clock_us();
	struct units_request *q = u->requests;

	while (q)
		if (q->deadline_us <= now_us) {
			request_end(q, "the start job has not finished in time; it may still do so", false);
			q = u->requests; /* the callback may have changed the list */
		} else {
			q = q->next;
		}
}

void units_request_drop_all(struct units *u)
{
	while (u->requests)
		request_free(u->requests);
}

void units_request_end_all(struct units *u, const char *error)
{
	while (u->requests)
		request_end(u->requests, error, false);
}

/* Kill and list */

static int on_killed(sd_bus_message *m, void *user, sd_bus_error *error)
{
	request_end(answered(user), refusal(m), false);
	return 0;
}

/* Asks for the next unit of a list; ends the request after the last. The names to ask for stand in the list from next_list on, its answers
 * below n_list <= next_list. */
static int list_next(struct units_request *q)
{
	if (!q->list || !*q->list[q->next_list].uuid) {
		request_end(q, NULL, true);
		return 0;
	}
	q->props.info.is_scope = q->list[q->next_list].is_scope;
	(void)str_copy(q->props.info.uuid, sizeof(q->props.info.uuid), q->list[q->next_list++].uuid);
	name_unit(q);
	return ask_properties(q);
}

static int read_list(sd_bus_message *m, struct units_request *q)
{
	const char *name;
	size_t n = 0, size = 0;
	int r;

	/* Failed ones of VMs that have long been elsewhere are among them. */
	r = sd_bus_message_enter_container(m, 'a', "(ssssssouso)");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'r', "ssssssouso")) > 0) {
		r = sd_bus_message_read(m, "s", &name);
		if (n + 1 >= size) { /* ends with an empty one */
			struct unit_info *more = realloc(q->list, (size = 2 * size + 16) * sizeof(*more));

			if (!more)
				return -ENOMEM;
			memset(more + n, 0, (size - n) * sizeof(*more));
			q->list = more;
		}
		if (r >= 0 && units_message_name_to_uuid(name, q->list[n].uuid, &q->list[n].is_scope))
			n++;
		if (r >= 0)
			r = sd_bus_message_skip(m, "sssssouso");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r;
}

static int on_listed(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	const char *no = refusal(m);
	int r;

	if (no) {
		request_end(q, no, false);
		return 0;
	}
	r = read_list(m, q);
	if (r >= 0)
		r = list_next(q);
	if (r < 0)
		request_fail(q, "list units", r);
	return 0;
}

/* Fate */

static int on_jobs(sd_bus_message *m, void *user, sd_bus_error *error)
{
	struct units_request *q = answered(user);
	const char *no = refusal(m);
	int r;

	if (no) {
		request_end(q, no, false);
		return 0;
	}
	r = units_message_read_jobs(m, &q->fate);
	if (r < 0)
		request_fail(q, "systemd's answer", r);
	else
		request_end(q, NULL, true);
	return 0;
}

/* Calls from outside */

/* What is common to the ends of all calls: send what was made, or take it back. */
static int submit(struct units *u, struct units_request *q, int r)
{
	if (r < 0)
		request_free(q);
	else
		units_bus_wake(u);
	return MIN(r, 0);
}

/* -EINVAL for what is no UUID; canonical gets it in lower case, as our unit names have it. */
static int check_call(const struct units *u, const char *uuid, char canonical[UUID_STR_LEN])
{
	uint8_t bytes[16];

	if (uuid && !uuid_parse(uuid, bytes))
		return -EINVAL;
	if (uuid)
		uuid_format(bytes, canonical);
	if (!u->bus || u->is_lost || u->is_freed)
		return -ENOTCONN;
	return u->n_requests >= UNITS_MAX ? -EBUSY : 0;
}

static int start_unit(struct units *u, const char *uuid, const char *description, char *const argv[], int in, pid_t pid, units_done_fn done, void *user)
{
	char canonical[UUID_STR_LEN];
	sd_bus_message *m = NULL;
	struct units_request *q;
	int r = check_call(u, uuid, canonical);

	if (r < 0)
		return r;
	q = request_new(u, canonical, !argv, user);
	if (!q)
		return -ENOMEM;
	q->done = done;
	q->is_start = true;
	q->step = UNITS_STEP_RESET;
	r = start_message(q, description, argv, in, pid);
	if (r >= 0)
		r = manager_call(u, "ResetFailedUnit", &m);
	if (r >= 0)
		r = sd_bus_message_append(m, "s", q->name);
	if (r >= 0)
		r = request_call(q, m, on_reset);
	(void)sd_bus_message_unref(m);
	return submit(u, q, r);
}

int units_start(struct units *u, const char *uuid, const char *description, char *const argv[], int in, units_done_fn done, void *user)
{
	return argv[0] && argv[0][0] == '/' ? start_unit(u, uuid, description, argv, in, 0, done, user) : -EINVAL;
}

int units_start_scope(struct units *u, const char *uuid, const char *description, pid_t pid, units_done_fn done, void *user)
{
	return start_unit(u, uuid, description, NULL, -1, pid, done, user);
}

static int kill_unit(struct units *u, const char *uuid, bool scope, int signal, units_done_fn done, void *user)
{
	char canonical[UUID_STR_LEN];
	sd_bus_message *m = NULL;
	struct units_request *q;
	int r = check_call(u, uuid, canonical);

	if (r < 0)
		return r;
	q = request_new(u, canonical, scope, user);
	if (!q)
		return -ENOMEM;
	q->done = done;
	q->step = UNITS_STEP_KILL;
	r = manager_call(u, "KillUnit", &m);
	if (r >= 0)
		r = sd_bus_message_append(m, "ssi", q->name, "all", (int32_t)signal);
	if (r >= 0)
		r = request_call(q, m, on_killed);
	(void)sd_bus_message_unref(m);
	return submit(u, q, r);
}

int units_kill(struct units *u, const char *uuid, int signal, units_done_fn done, void *user) { return kill_unit(u, uuid, false, signal, done, user); }
int units_kill_scope(struct units *u, const char *uuid, int signal, units_done_fn done, void *user) { return kill_unit(u, uuid, true, signal, done, user); }

static int query_unit(struct units *u, const char *uuid, bool scope, units_done_fn done, void *user)
{
	char canonical[UUID_STR_LEN];
	struct units_request *q;
	int r = check_call(u, uuid, canonical);

	if (r < 0)
		return r;
	q = request_new(u, canonical, scope, user);
	if (!q)
		return -ENOMEM;
	q->done = done;
	return submit(u, q, ask_properties(q));
}

int units_query(struct units *u, const char *uuid, units_done_fn done, void *user) { return query_unit(u, uuid, false, done, user); }
int units_query_scope(struct units *u, const char *uuid, units_done_fn done, void *user) { return query_unit(u, uuid, true, done, user); }

int units_list(struct units *u, units_list_fn done, void *user)
{
	sd_bus_message *m = NULL;
	struct units_request *q;
	int r = check_call(u, NULL, NULL);

	if (r < 0)
		return r;
	q = request_new(u, NULL, false, user);
	if (!q)
		return -ENOMEM;
	q->list_done = done;
	q->step = UNITS_STEP_LIST;
	r = manager_call(u, "ListUnitsByPatterns", &m);
	if (r >= 0)
		r = sd_bus_message_append(m, "asas", 0, 2, UNITS_PREFIX "*.service", UNITS_PREFIX "*.scope");
	if (r >= 0)
		r = request_call(q, m, on_listed);
	(void)sd_bus_message_unref(m);
	return submit(u, q, r);
}

int units_fate(struct units *u, units_fate_fn done, void *user)
{
	sd_bus_message *m = NULL;
	struct units_request *q;
	int r = check_call(u, NULL, NULL);

	if (r < 0)
		return r;
	q = request_new(u, NULL, false, user);
	if (!q)
		return -ENOMEM;
	q->fate_done = done;
	q->step = UNITS_STEP_JOBS;
	r = manager_call(u, "ListJobs", &m);
	if (r >= 0)
		r = request_call(q, m, on_jobs);
	(void)sd_bus_message_unref(m);
	return submit(u, q, r);
}
