/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Power fencing, carried out: one ha-fence process a node at most, watched by its pidfd, its words taken line by line. The loop never waits for one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/core/power.h"

#define LINE_MAX_LEN 600
#define WISHES_FILE "/run/kvm-ha/power-wishes" /* "NODE on|off EPOCH", a line each; of this boot, so that the agent may be restarted */

/* EVIDENCE: the keeper asks. OFF, ON: an operator does; ON also after EVIDENCE, by [Fencing] PowerOn=. */
enum purpose { PURPOSE_EVIDENCE, PURPOSE_OFF, PURPOSE_ON };

struct child {
	struct power *p;
	uint32_t node;
	enum purpose purpose;
	pid_t pid; /* 0: none */
	int pidfd, in, out;
	char line[LINE_MAX_LEN];
	size_t len;
};

struct power {
	struct agentd *d;
	struct power_job job[FORMAT_MAX_NODES];
	struct child child[FORMAT_MAX_NODES];
	struct power_wish wish[FORMAT_MAX_NODES];
	struct power_fences fences[FORMAT_MAX_NODES];
	bool braked;
};

bool power_has_devices(const struct power *p, uint32_t node)
{
	size_t n;

	return conf_power_of(&p->d->conf, node, &n) != NULL;
}

static void take_lines(struct child *c)
{
	ssize_t n;

	while ((n = read(c->out, c->line + c->len, sizeof(c->line) - 1 - c->len)) > 0) {
		char *line = c->line, *end;

		c->len += (size_t)n;
		c->line[c->len] = '\0';
		for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
			*end = '\0';
			if (*line >= '0' && *line <= '7' && line[1] == ' ')
				agentd_say(c->p->d, (enum log_level)(*line - '0'), "%s", line + 2);
		}
		c->len = strlen(line);
		if (c->len >= sizeof(c->line) - 1)
			c->len = 0; /* nothing that ha-fence says is so long */
		memmove(c->line, line, c->len);
	}
}

static void drop(struct child *c)
{
	(void)qb_loop_poll_del(c->p->d->loop, c->pidfd);
	(void)close(c->pidfd);
	(void)close(c->in);
	(void)close(c->out);
	c->pid = 0;
}

/* SIGTERM: it kills its fence agent and ends. It is reaped by its pidfd. */
static void call_off(struct child *c)
{
	if (c->pid != 0)
		(void)pidfd_send_signal(c->pidfd, SIGTERM, NULL, 0);
}

static void start(struct power *p, uint32_t node, enum purpose purpose);

static void write_wishes(const struct power *p)
{
	FILE *f = fopen(WISHES_FILE ".new", "we");
	bool ok = f != NULL;

	for (uint32_t node = 1; ok && node <= FORMAT_MAX_NODES; node++) {
		const struct power_wish *w = &p->wish[node - 1];

		if (w->set)
			ok = fprintf(f, "%" PRIu32 " %s %" PRIu32 "\n", node, w->want == POWER_WANT_ON ? "on" : "off", w->epoch) > 0;
	}
	if ((f && fclose(f) != 0) || !ok || rename(WISHES_FILE ".new", WISHES_FILE) != 0)
		agentd_say(p->d, LOG_LEVEL_WARNING, "cannot write " WISHES_FILE ": %s: an agent that is restarted forgets which nodes are still to be switched on or off", strerror(errno));
}

static void read_wishes(struct power *p)
{
	FILE *f = fopen(WISHES_FILE, "re");
	uint32_t node, epoch;
	char want[4];

	if (!f)
		return;
	while (fscanf(f, "%" SCNu32 " %3s %" SCNu32, &node, want, &epoch) == 3) {
		bool on = streq(want, "on");

		/* To be switched off: not if an operator has let it out of quarantine since. */
		if (node >= 1 && node <= FORMAT_MAX_NODES)
			p->wish[node - 1] = (struct power_wish){ .set = true, .want = on ? POWER_WANT_ON : POWER_WANT_OFF, .epoch = epoch, .quarantined = true };
	}
	(void)fclose(f);
}

static void wish(struct power *p, uint32_t node, struct power_wish w)
{
	p->wish[node - 1] = w;
	write_wishes(p);
}

static void on_evidence(struct power *p, uint32_t node, bool confirmed)
{
	struct power_job *j = &p->job[node - 1];
	struct keeper_evidence ev;

	if (!confirmed && j->state == POWER_RUNNING && j->tries == 1)
		agentd_hook(p->d, HOOK_POWER_FAILED, node, NULL,
			    agent_table_node(&p->d->core, node)->silence_is_no_proof ?
				    "no fence device has confirmed that it is off, and its silence proves nothing (Evidence=no): `ha-ctl node confirm-fenced` if it is off" :
				    "no fence device has confirmed that it is off: its watchdog is waited for");
	if (!power_job_ended(j, confirmed, clock_now_ns(), &ev))
		return;
	ev.node = node;
	(void)keeper_link_evidence(p->d->keeper, KEEPER_MSG_EVIDENCE, &ev);
	agentd_hook(p->d, HOOK_POWER_OFF, node, NULL, "its fence device says that it is off");
}

static void on_switched(struct power *p, uint32_t node, bool on, bool done)
{
	const struct power_wish *w = &p->wish[node - 1];
	bool wished = w->set && w->tries > 0 && (w->want == POWER_WANT_ON) == on;

	if (wished && done)
		wish(p, node, (struct power_wish){ 0 });
	if (done)
		return;
	agentd_say(p->d, LOG_LEVEL_ERR, "node %s: its fence devices have not switched it %s%s", agentd_node_name(p->d, node), on ? "on" : "off",
		   wished ? ": tried again later" : "");
	if (wished && w->tries == 1)
		agentd_hook(p->d, HOOK_POWER_FAILED, node, NULL,
			    on ? "its fence devices have not switched it on again: tried again later" : "its fence devices have not switched it off, as an operator wants: tried again later");
}

static int32_t on_end(int32_t fd, int32_t revents, void *data)
{
	struct child *c = data;
	struct power *p = c->p;
	enum purpose purpose = c->purpose;
	siginfo_t info = { 0 };
	bool done;

	if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
		return 0;
	take_lines(c);
	done = info.si_code == CLD_EXITED && info.si_status == 0;
	drop(c);
	if (purpose == PURPOSE_EVIDENCE)
		on_evidence(p, c->node, done);
	else
		on_switched(p, c->node, purpose == PURPOSE_ON, done);
	return 0;
}

static void start(struct power *p, uint32_t node, enum purpose purpose)
{
	struct child *c = &p->child[node - 1];
	const char *argv[] = { PKGLIBEXECDIR "/ha-fence", "--config", p->d->config_dir, "--fed", purpose == PURPOSE_ON ? "on" : "off",
			       agentd_node_name(p->d, node), NULL };
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, r;

	CHECK(c->pid == 0);
	r = pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
	if (r == 0)
		r = spawn_piped(argv, in[0], out[1], &c->pid);
	if (r == 0) {
		*c = (struct child){ .p = p, .node = node, .purpose = purpose, .pid = c->pid, .in = in[1], .out = out[0] };
		c->pidfd = pidfd_open(c->pid, 0);
		r = c->pidfd < 0 ? -errno : qb_loop_poll_add(p->d->loop, QB_LOOP_MED, c->pidfd, POLLIN, c, on_end);
		if (r < 0) { /* nobody would reap it */
			(void)kill(c->pid, SIGKILL);
			(void)waitpid(c->pid, NULL, 0);
			if (c->pidfd >= 0)
				(void)close(c->pidfd);
		}
	}
	(void)close(in[0]);
	(void)close(out[1]);
	if (r == 0)
		return;
	c->pid = 0;
	(void)close(in[1]);
	(void)close(out[0]);
	agentd_say(p->d, LOG_LEVEL_ERR, "node %s: cannot start %s: %s", agentd_node_name(p->d, node), argv[0], strerror(-r));
	if (purpose == PURPOSE_EVIDENCE)
		on_evidence(p, node, false);
}

static unsigned rank_of(const struct power *p, uint32_t about)
{
	unsigned rank = 0;

	for (uint32_t id = 1; id < p->d->conf.self_id; id++) {
		const struct keeper_table_node *n = agent_table_node(&p->d->core, id);

		rank += id != about && n->fresh && n->state == HEARTBEAT_ARMED;
	}
	return rank;
}

/* What an operator wants off goes off; what was switched off by us, is proven over and still down may come back. */
static void fulfil(struct power *p, uint32_t node, const struct keeper_table_node *t)
{
	struct power_wish *w = &p->wish[node - 1];
	bool was = w->set, on = w->want == POWER_WANT_ON, quarantine = p->d->core.quarantine >> (node - 1) & 1;

	if (!was || !p->d->core.have_catalog || p->child[node - 1].pid != 0)
		return;
	if (power_wish_step(w, t, p->d->conf.power_on && !quarantine && !(p->d->core.maintenance >> (node - 1) & 1), quarantine, clock_now_ns())) {
		agentd_say(p->d, LOG_LEVEL_NOTICE, "node %s: to be switched %s", agentd_node_name(p->d, node), on ? "on again" : "off, by an operator");
		start(p, node, on ? PURPOSE_ON : PURPOSE_OFF);
	} else if (!w->set) {
		write_wishes(p);
	}
}

/* It still is to be: so old is what says so. */
static void feed(struct child *c)
{
	(void)!write(c->in, &c->p->d->core.table.table.at_ns, sizeof(int64_t));
}

static void step(struct power *p, uint32_t node, const struct keeper_table_node *t)
{
	struct child *c = &p->child[node - 1];
	int64_t now_ns = clock_now_ns();
	enum power_step s;

	/* Another operation is under way: that of an operator to switch it off goes on, one to switch it on does not. */
	if (c->pid != 0 && c->purpose != PURPOSE_EVIDENCE) {
		feed(c);
		if (t->asked_epoch != 0 && c->purpose == PURPOSE_ON)
			call_off(c);
		return;
	}
	if (p->job[node - 1].state == POWER_RUNNING && c->pid != 0)
		feed(c);
	if (c->pid != 0 && p->job[node - 1].state != POWER_RUNNING)
		return; /* it is being ended */
	s = power_job_step(&p->job[node - 1], t, rank_of(p, node), now_ns);
	if (s == POWER_STEP_STOP) {
		agentd_say(p->d, LOG_LEVEL_NOTICE, "node %s: no more to be switched off: it has moved, or is proven over", agentd_node_name(p->d, node));
		call_off(c);
		p->job[node - 1].state = POWER_IDLE; /* begun anew when that has ended and it is still asked for */
	} else if (s == POWER_STEP_START) {
		agentd_say(p->d, LOG_LEVEL_WARNING, "node %s: its fence devices are told to switch it off", agentd_node_name(p->d, node));
		/* A device may do it and say so when nobody asks any more, or this process is no more. */
		power_wish_on_again(&p->wish[node - 1], t->asked_epoch);
		write_wishes(p);
		start(p, node, PURPOSE_EVIDENCE);
	}
}

static void step_quarantine(struct power *p)
{
	const struct agent *a = &p->d->core;

	for (size_t i = 0; a->have_catalog && i < p->d->conf.n_nodes; i++) {
		uint32_t node = p->d->conf.nodes[i].id;
		json_object *o;

		if (!power_fences_step(&p->fences[node - 1], a->leads && a->lead_read, a->quarantine >> (node - 1) & 1, clock_now_ns()))
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "command", json_object_new_string("node-quarantine"));
		json_object_object_add(o, "node", json_object_new_string(agentd_node_name(p->d, node)));
		json_object_object_add(o, "on", json_object_new_boolean(true));
		json_object_object_add(o, "fences", json_object_new_int((int)p->d->conf.quarantine));
		agentd_request(p->d, o);
	}
}

void power_table(struct power *p)
{
	const struct keeper_msg *m = &p->d->core.table;

	if (!p->d->core_runs || !p->d->core.have_table)
		return;
	if ((m->table.braked != 0) != p->braked) {
		p->braked = m->table.braked != 0;
		agentd_hook(p->d, p->braked ? HOOK_BRAKE_ON : HOOK_BRAKE_OFF, p->d->conf.self_id, NULL,
			    p->braked ? "too many nodes are suspect at once: none is fenced" : "nodes are fenced again");
	}
	step_quarantine(p);
	if (!power_table_counts(m, clock_host_ns()))
		return;
	for (size_t i = 0; i < p->d->conf.n_nodes; i++) {
		uint32_t node = p->d->conf.nodes[i].id;
		const struct keeper_table_node *t = agent_table_node(&p->d->core, node);

		if (node == p->d->conf.self_id || !power_has_devices(p, node))
			continue;
		step(p, node, t);
		fulfil(p, node, t);
	}
}

void power_no_keeper(struct power *p)
{
	for (uint32_t node = 1; node <= FORMAT_MAX_NODES; node++) {
		if (p->child[node - 1].pid != 0 && p->child[node - 1].purpose == PURPOSE_EVIDENCE)
			call_off(&p->child[node - 1]);
		p->job[node - 1].state = POWER_IDLE;
	}
}

/* One that has just started begins to count anew. */
void power_fenced(struct power *p, uint32_t node)
{
	power_fences_add(&p->fences[node - 1], p->d->conf.quarantine, clock_now_ns());
}

void power_off_when_over(struct power *p, uint32_t node, uint32_t epoch)
{
	wish(p, node, (struct power_wish){ .set = true, .want = POWER_WANT_OFF, .epoch = epoch });
}

const char *power_state(const struct power *p, uint32_t node)
{
	const struct child *c = &p->child[node - 1];

	if (!power_has_devices(p, node))
		return "none";
	if (c->pid != 0)
		return c->purpose == PURPOSE_ON ? "switching-on" : "switching-off";
	if ((p->job[node - 1].tries > 0 && p->job[node - 1].state == POWER_WAITING) || (p->wish[node - 1].set && p->wish[node - 1].tries > 0))
		return "failed";
	return p->job[node - 1].state == POWER_TOLD ? "off" : "idle";
}

int power_switch_on(struct power *p, uint32_t node)
{
	struct child *c = &p->child[node - 1];

	if (!power_has_devices(p, node))
		return -ENODEV;
	if (c->pid != 0)
		return -EBUSY;
	wish(p, node, power_wish_now(agent_table_node(&p->d->core, node)->epoch, clock_now_ns()));
	start(p, node, PURPOSE_ON);
	return c->pid != 0 ? 0 : -EIO;
}

int power_new(struct agentd *d, struct power **ret)
{
	struct power *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->d = d;
	for (size_t i = 0; i < d->conf.n_power; i++) {
		char secrets[CONF_POWER_SECRETS], err[512] = "";

		if (conf_power_secrets(&d->conf, &d->conf.power[i], secrets, err, sizeof(err)) < 0)
			agentd_say(d, LOG_LEVEL_ERR, "node %s: fence device %s is of no use: %s", agentd_node_name(d, d->conf.power[i].node),
				   d->conf.power[i].agent, err);
		explicit_bzero(secrets, sizeof(secrets));
	}
	read_wishes(p);
	*ret = p;
	return 0;
}
