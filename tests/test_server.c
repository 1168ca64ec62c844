/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/server.c and agent/status.c, asked as ha-ctl asks: what an agent says of itself before it has read what there is. The rest of the agent is played here;
 * nothing listens. */
#include "agent/server.c"

#include "tests/tap.h"

static struct agentd d;
static struct server s = { .d = &d };

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
void power_off_when_over(struct power *p, uint32_t node, uint32_t epoch) {}
const char *power_state(const struct power *p, uint32_t node) { return "none"; }
const char *drainer_reason(struct drainer *dr, const uint8_t uuid[16]) { return ""; }
json_object *mover_status(struct mover *m, const uint8_t uuid[16]) { return NULL; }
json_object *mover_failure(struct mover *m, const uint8_t uuid[16]) { return NULL; }
const char *reserver_text(struct reserver *r, const uint8_t uuid[16]) { return ""; }
const char *runner_detail(struct runner *r, const uint8_t uuid[16]) { return ""; }
bool store_may_edit(const struct store *st) { return true; }

void keeper_link_evidence(struct keeper_link *k, enum keeper_msg_kind kind, const struct keeper_evidence *ev) {}
int store_write_catalog(struct store *st, struct catalog_doc *doc, store_done_fn done, void *user) { return -EIO; }

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
	d.core.claimer.read_once = true;
	TAP_OK(known(), "with both it does");
	d.core.have_catalog = false;
	TAP_OK(!known(), "with the claims alone it does not");
	d.core.have_catalog = true;
	d.core_runs = false;
	TAP_OK(!known(), "nor where its core does not run");
}

int main(void)
{
	tells_what_it_knows();
	json_object_put(answered);
	catalog_free(d.catalog);
	return tap_done();
}
