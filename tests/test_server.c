/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/server.c and agent/status.c, asked as ha-ctl asks: what an agent says of itself before it has read what there is, and what it answers to `node fence` when its
 * keeper is not as it was any more. The rest of the agent is played here; nothing listens. */
#include "agent/server.c"

#include "tests/tap.h"

static struct agentd d;
static struct server s = { .d = &d };
static bool keeper_hears;
static unsigned fences, wishes;
static store_done_fn written;
static void *written_user;

/* ---- the rest of the agent ---- */

void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...) {}
void agentd_hook(struct agentd *x, enum hook_event event, uint32_t node, const struct vm *v, const char *reason) {}
const char *agentd_node_name(const struct agentd *x, uint32_t id) { return id == 1 ? "n1" : "n2"; }
void foreign_request(struct foreign *f, json_object *request, server_answer_fn fn, void *user) {}
void leaver_request(struct leaver *l, server_answer_fn fn, void *user) {}
void peers_say(struct peers *p, const char *text) {}
int peers_forward(struct peers *p, uint32_t node, json_object *request, peers_reply_fn fn, void *user) { return -EIO; }
json_object *peers_vm_status(struct peers *p, uint32_t node, const char *uuid) { return NULL; }
bool power_has_devices(const struct power *p, uint32_t node) { return true; }
int power_switch_on(struct power *p, uint32_t node) { return 0; }
void power_off_when_over(struct power *p, uint32_t node, uint32_t epoch) { wishes++; }
const char *power_state(const struct power *p, uint32_t node) { return "none"; }
const char *drainer_reason(struct drainer *dr, const uint8_t uuid[16]) { return ""; }
json_object *mover_status(struct mover *m, const uint8_t uuid[16]) { return NULL; }
json_object *mover_failure(struct mover *m, const uint8_t uuid[16]) { return NULL; }
const char *reserver_text(struct reserver *r, const uint8_t uuid[16]) { return ""; }
const char *runner_detail(struct runner *r, const uint8_t uuid[16]) { return ""; }
bool store_may_edit(const struct store *st) { return true; }

bool keeper_link_evidence(struct keeper_link *k, enum keeper_msg_kind kind, const struct keeper_evidence *ev)
{
	fences += keeper_hears && kind == KEEPER_MSG_FENCE && ev->node == 2;
	return keeper_hears;
}

int store_write_catalog(struct store *st, struct catalog_doc *doc, store_done_fn done, void *user)
{
	catalog_free(d.catalog);
	d.catalog = doc;
	written = done;
	written_user = user;
	return 0;
}

/* ---- the tests ---- */

/* This node leads and is armed, n2 lives. */
static void begin(void)
{
	struct keeper_table_node *n2 = &d.core.table.table.node[1];

	catalog_free(d.catalog);
	memset(&d, 0, sizeof(d));
	d.catalog = catalog_new();
	d.conf.self_id = 1;
	d.conf.n_nodes = 2;
	for (uint32_t id = 1; id <= 2; id++) {
		d.conf.nodes[id - 1].id = id;
		(void)snprintf(d.conf.nodes[id - 1].name, sizeof(d.conf.nodes[0].name), "n%u", id);
	}
	d.core.opt.self = 1;
	d.core.opt.node_max = 2;
	d.core_runs = d.core.leads = d.core.have_table = true;
	d.core.table.table.state = LEASE_ARMED;
	*n2 = (struct keeper_table_node){ .known = true, .fresh = true, .epoch = 5, .state = HEARTBEAT_ARMED };
	keeper_hears = true;
	fences = wishes = 0;
}

static json_object *answered;

static void on_answer(void *user, json_object *answer)
{
	json_object_put(answered);
	answered = json_object_get(answer);
}

static void ask(const char *request)
{
	json_object *o = json_tokener_parse(request);

	json_object_put(answered);
	answered = NULL;
	server_request(&s, o, false, on_answer, NULL);
	json_object_put(o);
}

static bool known(void)
{
	json_object *status, *v;

	ask("{\"command\":\"status\"}");
	return json_object_object_get_ex(answered, "status", &status) && json_object_object_get_ex(status, "known", &v) && json_object_get_boolean(v);
}

static void tells_what_it_knows(void)
{
	begin();
	TAP_OK(!known(), "an agent that has just been started does not know");
	d.core.have_catalog = true;
	TAP_OK(!known(), "nor with the catalog, without the claims");
	d.core.epoch = 5;
	d.core.claimer.complete_ns = 1;
	TAP_OK(!known(), "nor with others' claims, and not its own");
	d.core.claimer.read_once = true;
	TAP_OK(known(), "with both it does");
	d.core.have_catalog = false;
	TAP_OK(!known(), "with the claims alone it does not");
	d.core.have_catalog = true;
	d.core_runs = false;
	TAP_OK(!known(), "nor where its core does not run");
}

/* The quarantine is written; what the answer is then. */
static const char *fenced(void)
{
	const char *why = NULL;

	written(written_user, NULL, false);
	if (bool_of(answered, "ok"))
		return string_of(answered, "fencing");
	why = string_of(answered, "error");
	return bool_of(answered, "temporary") && why && strstr(why, "is in quarantine, but is not being fenced") ? "not" : why;
}

static void fences_by_hand(void)
{
	static const char fence_off[] = "{\"command\":\"node-fence\",\"node\":\"n2\",\"off\":true}";

	begin();
	ask(fence_off);
	TAP_OK(!answered && fences == 0, "node fence: nothing before the quarantine is written");
	TAP_OK(streq(fenced(), "asked") && fences == 1 && wishes == 1, "then it is asked for");
	begin();
	ask(fence_off);
	d.core.table.table.state = LEASE_DISARMED;
	TAP_OK(streq(fenced(), "not") && fences == 0 && wishes == 0, "not by a node that is disarmed meanwhile, which says so");
	begin();
	ask(fence_off);
	d.core.have_table = false;
	TAP_OK(streq(fenced(), "not") && wishes == 0, "nor by one that has lost its keeper");
	begin();
	ask(fence_off);
	keeper_hears = false;
	TAP_OK(streq(fenced(), "not") && wishes == 0, "nor by one whose keeper does not take it");
	begin();
	ask(fence_off);
	d.core.table.table.node[1].over = 5;
	keeper_hears = false;
	TAP_OK(streq(fenced(), "over") && wishes == 1, "a lease that is over needs no fence, and is said to be");
	begin();
	d.core.table.table.node[1].fresh = false;
	keeper_hears = false;
	ask("{\"command\":\"node-confirm-fenced\",\"node\":\"n2\",\"epoch\":5}");
	TAP_OK(!bool_of(answered, "ok") && bool_of(answered, "temporary"), "what an operator confirms and the keeper does not hear is not said to be heard");
	keeper_hears = true;
	ask("{\"command\":\"node-confirm-fenced\",\"node\":\"n2\",\"epoch\":5}");
	TAP_OK(bool_of(answered, "ok"), "what it hears is");
}

int main(void)
{
	tells_what_it_knows();
	fences_by_hand();
	json_object_put(answered);
	catalog_free(d.catalog);
	return tap_done();
}
