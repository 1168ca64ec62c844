/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-ctl node maintenance, and waiting for its end. Nothing depends on the wait: whoever ends it leaves the cluster doing what it does. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl.h"

#define SEEN_MS 10000  /* until this node's agent has read the edit */
#define UNKNOWN_MS 30000 /* an agent that is being restarted may take so long to read what there is */
#define STUCK_MS 20000 /* nothing has left for so long: what is left is asked why */

struct wait {
	const struct ctl *c;
	const char *node;
	bool on, seen; /* this node's agent has read the edit */
	int64_t since_ms, changed_ms;
	size_t left;
	json_object *was; /* names of those that were to go or to come, when last seen */
};

static json_object *named(json_object *list, const char *name)
{
	size_t n = list ? json_object_array_length(list) : 0;

	for (size_t i = 0; i < n; i++)
		if (streq(ctl_str(json_object_array_get_idx(list, i), "name"), name))
			return json_object_array_get_idx(list, i);
	return NULL;
}

static bool holds(json_object *names, const char *name)
{
	for (size_t i = 0; i < json_object_array_length(names); i++)
		if (streq(json_object_get_string(json_object_array_get_idx(names, i)), name))
			return true;
	return false;
}

/* Stopped meanwhile, or given up, it goes nowhere. */
static bool is_wanted(json_object *vm) { return streq(ctl_str(vm, "desired"), "started") && !streq(ctl_str(vm, "state"), "error"); }

/* Shut down there, and not started elsewhere yet. */
static bool is_between(const struct wait *w, json_object *vm)
{
	return w->on && w->was && holds(w->was, ctl_str(vm, "name")) && !*ctl_str(vm, "node") && is_wanted(vm);
}

static bool is_left(const struct wait *w, json_object *vm)
{
	return w->on ? streq(ctl_str(vm, "node"), w->node) || is_between(w, vm) : streq(ctl_str(vm, "move_to"), w->node) && is_wanted(vm);
}

/* Names of the VMs that are still on the node, or on their way from it; or still to come back to it. */
static json_object *those_left(const struct wait *w, json_object *vms)
{
	json_object *names = json_object_new_array();
	size_t n = vms ? json_object_array_length(vms) : 0;

	for (size_t i = 0; i < n; i++) {
		json_object *vm = json_object_array_get_idx(vms, i);

		if (is_left(w, vm))
			json_object_array_add(names, json_object_new_string(ctl_str(vm, "name")));
	}
	return names;
}

static void print_gone(const struct wait *w, json_object *vms, json_object *names)
{
	for (size_t i = 0; w->was && i < json_object_array_length(w->was); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(w->was, i));
		json_object *vm = named(vms, name);

		if (w->c->json || holds(names, name))
			continue;
		(void)printf("VM ");
		ctl_put(name);
		ctl_put(vm ? ": " : " is gone");
		ctl_put(ctl_str(vm, "state"));
		ctl_put(*ctl_str(vm, "node") ? " on " : "");
		ctl_put(ctl_str(vm, "node"));
		ctl_put(".\n");
	}
	(void)fflush(stdout);
}

/* Of what does not leave: says which nobody else can take. An exit code, or 0: they may yet. */
static int stuck(const struct wait *w, json_object *names)
{
	for (size_t i = 0; i < json_object_array_length(names); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(names, i));
		json_object *o = ctl_request("vm-show"), *answer, *vm, *why;
		bool none, there;
		int r;

		json_object_object_add(o, "name", json_object_new_string(name));
		json_object_object_add(o, "why", json_object_new_boolean(true));
		r = ctl_ask(w->c, o, &answer);
		if (r != 0)
			return r;
		vm = ctl_get(answer, "vm", json_type_object);
		why = ctl_get(vm, "why", json_type_object);
		there = streq(ctl_str(vm, "node"), w->node);
		none = why && !*ctl_str(why, "choice") && (there || !*ctl_str(vm, "node")) && streq(ctl_str(vm, "desired"), "started");
		json_object_put(answer);
		if (none && !there)
			return ctl_fail(w->c, CTL_FAILED, "VM %s has left %s, and no other node can take it: `ha-ctl vm show %s --why` says why not", name, w->node, name);
		if (none)
			return ctl_fail(w->c, CTL_FAILED, "VM %s stays on %s, since no other node can take it: `ha-ctl vm show %s --why` says why not; `ha-ctl vm stop %s` shuts it"
					" down. It leaves as soon as a node can take it", name, w->node, name, name);
	}
	return 0;
}

/* One look. 0: again; 1: over; below 0: an exit code. */
static int look(struct wait *w, json_object *status)
{
	json_object *vms = ctl_get(status, "vms", json_type_array), *node = named(ctl_get(status, "nodes", json_type_array), w->node), *names;
	bool in_maintenance = ctl_bool(node, "maintenance");
	size_t left;
	int r = 0;

	if (in_maintenance != w->on) {
		if (!w->seen && ctl_now_ms() - w->since_ms < SEEN_MS)
			return 0;
		return -ctl_fail(w->c, CTL_FAILED, "somebody has %s the maintenance of %s meanwhile: `ha-ctl events`", w->on ? "ended" : "begun", w->node);
	}
	names = those_left(w, vms);
	print_gone(w, vms, names);
	left = json_object_array_length(names);
	if (!w->seen || left != w->left)
		w->changed_ms = ctl_now_ms();
	w->seen = true;
	w->left = left;
	if (left > 0 && w->on && ctl_now_ms() - w->changed_ms >= STUCK_MS) {
		r = -stuck(w, names);
		w->changed_ms = ctl_now_ms();
	}
	json_object_put(w->was);
	w->was = names;
	return r != 0 ? r : left == 0;
}

/* As ctl_ask_again, of an agent that knows what there is: one that is being restarted shows no VM, and no maintenance. */
static int ask_known(const struct wait *w, json_object **ret)
{
	int64_t until_ms = ctl_now_ms() + UNKNOWN_MS;

	for (;;) {
		int r = ctl_ask_again(w->c, ctl_request("status"), "status", ret);

		if (r != 0 || ctl_known(ctl_get(*ret, "status", json_type_object)))
			return r;
		json_object_put(*ret);
		if (ctl_now_ms() >= until_ms)
			return ctl_fail(w->c, CTL_AGAIN, "this node's agent has been restarted and cannot read catalog and claims: `ha-ctl status`");
	}
}

/* What is on it: some may have left by the first look after the request. */
static int look_before(struct wait *w)
{
	json_object *answer;
	int r = ctl_ask(w->c, ctl_request("status"), &answer);

	if (r == 0 && !ctl_known(ctl_get(answer, "status", json_type_object))) {
		json_object_put(answer);
		r = ask_known(w, &answer);
	}
	if (r != 0)
		return r;
	w->was = those_left(w, ctl_get(ctl_get(answer, "status", json_type_object), "vms", json_type_array));
	json_object_put(answer);
	return 0;
}

static int wait_for_it(struct wait *w)
{
	const struct ctl *c = w->c;
	int over = 0;

	w->since_ms = ctl_now_ms();
	while (over == 0) {
		json_object *answer, *status;
		int r = ask_known(w, &answer);

		if (r != 0) {
			over = -r;
			break;
		}
		status = ctl_get(answer, "status", json_type_object);
		over = look(w, status);
		if (over > 0 && c->json)
			ctl_print_json(named(ctl_get(status, "nodes", json_type_array), w->node));
		json_object_put(answer);
	}
	if (over > 0 && !c->json)
		(void)printf(w->on ? "Node %s is empty.\n" : "What had left node %s is back, or needs it no more.\n", w->node);
	return over > 0 ? CTL_OK : -over;
}

int ctl_node_maintenance(const struct ctl *c)
{
	bool on = streq(c->args[0], "on");
	struct wait w = { .c = c, .node = c->args[1], .on = on };
	json_object *o, *answer;
	int r;

	if (!on && !streq(c->args[0], "off"))
		return ctl_fail(c, CTL_USAGE, "node maintenance %.64s: write `on NODE` or `off NODE`", c->args[0]);
	if (on && c->back)
		return ctl_fail(c, CTL_USAGE, "--return is for `node maintenance off`: what comes back comes back then");
	if (!on && c->wait && !c->back)
		return ctl_fail(c, CTL_USAGE, "--wait: without --return nothing comes back that could be waited for");
	r = ctl_check_name(c, "node", c->args[1]);
	if (r == 0 && c->wait && on)
		r = look_before(&w);
	if (r != 0)
		return r;
	o = ctl_request("node-maintenance");
	json_object_object_add(o, "node", json_object_new_string(c->args[1]));
	json_object_object_add(o, "on", json_object_new_boolean(on));
	if (c->back)
		json_object_object_add(o, "return", json_object_new_boolean(true));
	r = ctl_ask(c, o, &answer);
	if (r != 0) {
		json_object_put(w.was);
		return r;
	}
	if (c->json && !c->wait)
		ctl_print_json(answer);
	else if (!c->json)
		(void)printf(!on ? c->back ? "Node %s takes VMs again; those that left it come back.\n" : "Node %s takes VMs again.\n"
			     : c->wait ? "Node %s is being emptied.\n" : "Node %s is being emptied; `ha-ctl node list` shows 0 VMs when it is done.\n", c->args[1]);
	(void)fflush(stdout);
	json_object_put(answer);
	r = c->wait ? wait_for_it(&w) : CTL_OK;
	json_object_put(w.was);
	return r;
}
