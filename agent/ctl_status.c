/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The status in words: what is wrong and what to do about it first, then who is there and what runs where. */
#include "agent/ctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <time.h>

#define MAX_PROBLEMS 64

/* remedy: a sentence that stands once below the problems it is for; NULL for none. */
struct problem {
	bool severe;
	char *text;
	const char *remedy;
};

struct problems {
	struct problem at[MAX_PROBLEMS];
	size_t n, left_out;
};

static const char remedy_agent[] = "`systemctl status ha-agent` on that node";
static const char remedy_wait[] = "nothing: its VMs start elsewhere once it is proven gone; watch `ha-ctl events --follow`";
static const char remedy_confirm[] = "`ha-ctl node confirm-fenced NODE` if it is off for certain";
static const char remedy_node[] = "look at the node (console, power, network), start it; it rejoins by itself";
static const char remedy_error[] = "mend what it failed of (`ha-ctl events`, the journals of the nodes), then `ha-ctl vm clear-error NAME`";
static const char remedy_ignored[] = "`ha-ctl vm start NAME` or `ha-ctl vm stop NAME` when it is to be looked after again";
static const char remedy_frozen[] = "`ha-ctl vm unfreeze NAME` when it is to be looked after again";
static const char remedy_trouble[] = "what is done about it is in its file ([Health], kvm-ha.vm(5)); `ha-ctl events` tells, and its console";
static const char remedy_volume[] = "`ha-ctl volume list` on this node; the storage's own network and log";
static const char remedy_content[] = "`ha-ctl volume list` on this node; is it the right disk? `ha-ctl volume replace` takes it in again";
static const char remedy_vm[] = "`ha-ctl vm show NAME` and the journal of its node; `ha-ctl vm start NAME` tries again";

_printf_(4, 5) static void add(struct problems *p, bool severe, const char *remedy, const char *fmt, ...)
{
	struct problem *x = &p->at[p->n];
	va_list ap;

	if (p->n == MAX_PROBLEMS) {
		p->left_out++;
		return;
	}
	va_start(ap, fmt);
	CHECK(vasprintf(&x->text, fmt, ap) >= 0);
	va_end(ap);
	x->severe = severe;
	x->remedy = remedy;
	p->n++;
}

static const char *dash(const char *reason) { return *reason ? ": " : ""; }

const char *ctl_when(int64_t ms, char *buf, size_t size)
{
	time_t t = (time_t)(ms / MS_PER_S);
	struct tm tm;

	if (!localtime_r(&t, &tm) || strftime(buf, size, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		(void)str_copy(buf, size, "?");
	return buf;
}

static void find_volume(struct problems *p, json_object *v)
{
	const char *url = ctl_str(v, "url"), *reason = ctl_str(v, "reason"), *trouble = ctl_str(v, "trouble");
	char when[32];

	if (*trouble && !streq(trouble, "none"))
		add(p, !streq(trouble, "slow") && !streq(trouble, "degraded"), streq(trouble, "stale") || streq(trouble, "foreign") ? remedy_content : remedy_volume, "volume %s: %s since %s%s%s", url,
		    trouble, ctl_when(ctl_int(v, "trouble_since_ms"), when, sizeof(when)), dash(reason), reason);
	else if (!streq(ctl_str(v, "state"), "ready"))
		add(p, true, remedy_volume, "volume %s: %s%s%s", url, ctl_str(v, "state"), dash(reason), reason);
}

/* What concerns this node, and through it the cluster. */
static void find_local(struct problems *p, json_object *s)
{
	json_object *quorum = ctl_get(s, "quorum", json_type_object), *ring = ctl_get(s, "ring", json_type_object);
	json_object *dog = ctl_get(s, "watchdog", json_type_object);
	const char *self = ctl_str(s, "self"), *lease = ctl_str(s, "lease"), *reason = ctl_str(s, "reason");
	int64_t hold_ms = ctl_int(s, "hold_since_ms");
	char when[32];

	if (!streq(ctl_str(s, "keeper"), "connected"))
		add(p, true, "`systemctl status ha-keeper`", "%s has no connection to its keeper: it can neither start nor protect VMs", self);
	if (!ctl_known(s))
		add(p, false, "wait some seconds", "%s's agent has just been started: what was asked for, and where VMs are, it does not know yet", self);
	if (hold_ms != 0)
		add(p, true, "see to the storage; VMs go on by themselves when it is back. Restart no keeper and no node meanwhile: each must vouch for the others",
		    "%s holds since %s: no node reaches the volumes; VMs stay but cannot write to storage that is away, and none is started", self,
		    ctl_when(hold_ms, when, sizeof(when)));
	if (quorum && !ctl_bool(quorum, "ok"))
		add(p, true, "`ha-ctl volume list` shows which volumes are bad and why",
		    "%" PRId64 " of %" PRId64 " volumes can be used, %" PRId64 " are needed: no node can be taken over and no VM started",
		    ctl_int(quorum, "good"), ctl_int(quorum, "volumes"), ctl_int(quorum, "fence"));
	if (ctl_bool(s, "armed") && *lease && !streq(lease, "armed"))
		add(p, true, "`ha-ctl events` and `journalctl -u ha-keeper`", "%s is not armed itself but %s%s%s", self, lease, dash(reason), reason);
	if (ctl_bool(s, "armed") && dog && !ctl_bool(dog, "running"))
		add(p, true, "`journalctl -u ha-keeper`", "the watchdog of %s (%s) does not run", self, ctl_str(dog, "device"));
	if (ring && !streq(ctl_str(ring, "state"), "ok"))
		add(p, true, "`systemctl status corosync`, `corosync-cfgtool -s`", "%s has no ring (%s): the nodes do not hear each other", self,
		    ctl_str(ring, "state"));
	else if (ring && !ctl_bool(ring, "encrypted"))
		add(p, false, "set crypto_cipher and crypto_hash in corosync.conf(5)", "the ring is not encrypted");
	if (!*ctl_str(s, "leader"))
		add(p, true, "wait some seconds; if it stays so, `systemctl status ha-agent` on every node",
		    "no node leads: VMs run on, but none is started or moved");
	if (ctl_int(s, "brake") > 0)
		add(p, true, "look at switches and storage first; `ha-ctl node fence NODE` or `ha-ctl node confirm-fenced NODE` for each that is really gone",
		    "%" PRId64 " nodes are suspect at once, more than Brake= allows: none is fenced", ctl_int(s, "brake"));
	if (streq(ctl_str(s, "pause"), "freeze"))
		add(p, false, "`ha-ctl arm`", "all VMs are frozen: none is started, stopped, restarted or moved, whatever is asked for");
	else if (streq(ctl_str(s, "pause"), "ignore"))
		add(p, false, "`ha-ctl arm`", "all VMs are left alone: none is started, stopped or restarted; `ha-ctl vm relocate` is obeyed");
	if (!ctl_bool(s, "armed") && ctl_known(s))
		add(p, false, "`ha-ctl arm`", "the cluster is not armed: if a node fails, its VMs stay down");
}

static void find_node(struct problems *p, json_object *s, json_object *node)
{
	const char *name = ctl_str(node, "name"), *state = ctl_str(node, "state"), *reason = ctl_str(node, "reason");

	bool unproven = streq(ctl_str(node, "evidence"), "none");

	if (streq(state, "suspect") && (ctl_int(s, "brake") > 0 || !ctl_bool(node, "armed")))
		add(p, true, remedy_confirm, "node %s: %s%s%s", name, state, dash(reason), reason);
	else if (streq(state, "fencing") && unproven)
		add(p, true, remedy_confirm, "node %s is being fenced%s%s", name, dash(reason), reason);
	else if (streq(state, "suspect") || streq(state, "fencing") || streq(state, "released"))
		add(p, true, remedy_wait, "node %s: %s%s%s", name, streq(state, "fencing") ? "is being fenced" : state, dash(reason), reason);
	else if (streq(state, "offline") || streq(state, "unknown"))
		add(p, true, remedy_node, "node %s: %s%s%s", name, state, dash(reason), reason);
	else if (streq(state, "left"))
		add(p, false, ctl_bool(node, "leaving") ? "it is used again when it has booted" : "`systemctl start ha-agent` on that node when it is to be used again", "node %s has left the cluster%s%s", name,
		    dash(reason), reason);
	else if (!ctl_bool(node, "agent"))
		add(p, true, remedy_agent, "node %s: its agent is silent: its VMs run on, but none is started there%s%s", name, dash(reason), reason);
	else if (streq(ctl_str(node, "ring"), "lost"))
		add(p, true, "`systemctl status corosync` on that node", "node %s has lost the ring%s%s", name, dash(reason), reason);
	else if (ctl_bool(s, "armed") && !ctl_bool(node, "armed"))
		add(p, false, "`journalctl -u ha-keeper` on that node tells why", "node %s is not armed%s%s", name, dash(reason), reason);
	if (unproven && (streq(state, "online") || streq(state, "suspect") || streq(state, "released")))
		add(p, true, "a [PowerDevice] for it; Evidence=yes once it has a watchdog and nothing outside of it can pause it (kvm-ha.conf(5))",
		    "node %s: Evidence=no: if it is lost its VMs stay down until a fence device or an operator says that it is off", name);
	if (streq(ctl_str(node, "power"), "failed"))
		add(p, false, "`ha-ctl node power NODE`", "node %s: no fence device has confirmed that it is off", name);
	if (ctl_bool(node, "quarantine"))
		add(p, false, "`ha-ctl node unfence NODE` when it is in order again", "node %s is in quarantine: it gets VMs only if no other node can take them", name);
	if (ctl_bool(node, "leaving") && streq(state, "online"))
		add(p, false, "wait; `ha-ctl vm list` shows where its VMs are", "node %s is being shut down or rebooted, %" PRId64 " VMs left on it", name,
		    ctl_int(node, "vms"));
	if (ctl_bool(node, "maintenance"))
		add(p, false, "`ha-ctl node maintenance off NODE` when it is done", "node %s is in maintenance, %" PRId64 " VMs left on it", name,
		    ctl_int(node, "vms"));
}

/* What a guest that runs may suffer from (agent/core/health.c). */
static bool is_trouble(const char *state)
{
	static const char *const words[] = { "hung", "panicked", "internal-error", "watchdog", "reset-loop", "io-error", "not-booted", "silent", "check-failed" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (streq(state, words[i]))
			return true;
	return false;
}

static void find_vm(struct problems *p, json_object *vm)
{
	const char *name = ctl_str(vm, "name"), *state = ctl_str(vm, "state"), *reason = ctl_str(vm, "reason");

	if (streq(ctl_str(vm, "desired"), "ignored"))
		add(p, false, remedy_ignored, "VM %s is %s and ignored: nobody starts, stops or recovers it", name, state);
	else if (ctl_bool(vm, "frozen"))
		add(p, false, remedy_frozen, "VM %s is %s and frozen: nobody starts, stops, moves or recovers it", name, state);
	else if (streq(state, "error"))
		add(p, true, remedy_error, "VM %s is in error%s%s", name, dash(reason), reason);
	else if (streq(state, "failed"))
		add(p, true, remedy_vm, "VM %s failed%s%s", name, dash(reason), reason);
	else if (streq(state, "waiting"))
		add(p, true, NULL, "VM %s waits to be started%s%s", name, dash(reason), reason);
	else if (is_trouble(state))
		add(p, true, remedy_trouble, "VM %s is %s%s%s", name, state, dash(reason), reason);
	else if (streq(state, "stopped") && streq(ctl_str(vm, "desired"), "started"))
		add(p, true, remedy_vm, "VM %s does not run%s%s", name, dash(reason), reason);
}

static void find_all(struct problems *p, json_object *s)
{
	json_object *a;
	size_t n;

	find_local(p, s);
	n = ctl_list(s, "nodes", &a);
	for (size_t i = 0; i < n; i++)
		find_node(p, s, json_object_array_get_idx(a, i));
	n = ctl_list(s, "volumes", &a);
	for (size_t i = 0; i < n; i++)
		find_volume(p, json_object_array_get_idx(a, i));
	n = ctl_known(s) ? ctl_list(s, "vms", &a) : 0;
	for (size_t i = 0; i < n; i++)
		find_vm(p, json_object_array_get_idx(a, i));
}

/* Those of one severity; a remedy follows the last of its neighbours. */
static void print_problems(const struct ctl *c, const struct problems *p, bool severe)
{
	const struct problem *last = NULL;

	for (size_t i = 0; i <= p->n; i++) {
		const struct problem *x = i < p->n ? &p->at[i] : NULL;

		if (x && x->severe != severe)
			continue;
		if (last && last->remedy && (!x || x->remedy != last->remedy))
			(void)printf("      -> %s\n", last->remedy);
		if (!x)
			return;
		ctl_color_on(c, severe ? CTL_RED : CTL_YELLOW);
		(void)printf("  %s ", severe ? "!!" : " *");
		ctl_put(x->text);
		ctl_color_off(c);
		(void)printf("\n");
		last = x;
	}
}

static size_t count(json_object *s, const char *key, const char *state, size_t *total)
{
	json_object *a;
	size_t n = ctl_list(s, key, &a), found = 0;

	for (size_t i = 0; i < n; i++)
		found += streq(ctl_str(json_object_array_get_idx(a, i), "state"), state);
	*total = n;
	return found;
}

static void print_summary(const struct ctl *c, json_object *s, const struct problems *p)
{
	size_t nodes, vms, volumes, severe = p->left_out;
	size_t online = count(s, "nodes", "online", &nodes), running = count(s, "vms", "running", &vms);
	size_t ready = count(s, "volumes", "ready", &volumes);

	for (size_t i = 0; i < p->n; i++)
		severe += p->at[i].severe;
	(void)printf("Cluster ");
	ctl_put(ctl_str(s, "cluster"));
	(void)printf(": ");
	ctl_color_on(c, severe ? CTL_RED : p->n ? CTL_YELLOW : CTL_GREEN);
	if (severe)
		(void)printf("%zu problem%s", severe, severe == 1 ? "" : "s");
	else
		(void)printf(p->n ? "works, with remarks" : "all is well");
	ctl_color_off(c);
	(void)printf(", %s; %zu of %zu nodes online, %zu of %zu volumes ready, %zu of %zu VMs running", ctl_bool(s, "armed") ? "armed" : "not armed",
		     online, nodes, ready, volumes, running, vms);
	if (*ctl_str(s, "leader")) {
		(void)printf("; ");
		ctl_put(ctl_str(s, "leader"));
		(void)printf(" leads");
	}
	(void)printf(".\n");
}

void ctl_print_status(const struct ctl *c, json_object *status)
{
	struct problems p = { 0 };

	find_all(&p, status);
	print_summary(c, status, &p);
	print_problems(c, &p, true);
	print_problems(c, &p, false);
	if (p.left_out)
		(void)printf("  ... and %zu more; `ha-ctl status -o json` has all\n", p.left_out);
	(void)printf("\n");
	ctl_print_nodes(c, status);
	(void)printf("\n");
	ctl_print_vms(c, status);
	for (size_t i = 0; i < p.n; i++)
		free(p.at[i].text);
}
