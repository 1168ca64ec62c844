/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fencing by hand: confirm-fenced, fence, unfence, and what the fence devices say. */
#include "agent/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/wait.h>
#include <time.h>

#define LOOK_AGAIN_MS 200
#define WAIT_MS 60000

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static json_object *node_request(const char *command, const char *node)
{
	json_object *o = ctl_request(command);

	json_object_object_add(o, "node", json_object_new_string(node));
	return o;
}

/* The node's part of the status, to be put with *ret_answer. NULL after saying why, with *ret_exit. */
static json_object *look(const struct ctl *c, const char *name, json_object **ret_answer, int *ret_exit)
{
	json_object *nodes, *answer;
	size_t n;
	int r = ctl_ask(c, ctl_request("status"), &answer);

	*ret_exit = r;
	if (r != 0)
		return NULL;
	n = ctl_list(ctl_get(answer, "status", json_type_object), "nodes", &nodes);
	for (size_t i = 0; i < n; i++) {
		json_object *o = json_object_array_get_idx(nodes, i);

		if (streq(ctl_str(o, "name"), name)) {
			*ret_answer = answer;
			return o;
		}
	}
	json_object_put(answer);
	*ret_exit = ctl_fail(c, CTL_FAILED, "no node named %.64s in Nodes=: see `ha-ctl node list`", name);
	return NULL;
}

/* Its answer is its name: nobody types that without reading what is above it. */
static bool agreed(const char *name, json_object *node)
{
	char line[256] = "";

	(void)fprintf(stderr, "Node %s is %s, epoch %" PRId64 ", %" PRId64 " VM%s on it: %s.\n\n", name, ctl_str(node, "state"), ctl_int(node, "epoch"),
		      ctl_int(node, "vms"), ctl_int(node, "vms") == 1 ? "" : "s", ctl_str(node, "reason"));
	(void)fprintf(stderr,
		      "You are about to say that you have SEEN that this host is switched off, or has been reset since:\n"
		      "that no VM of that time runs on it any more, and none will go on by itself.\n"
		      "Its VMs then start on other nodes without any further wait. If it is not so, they run twice, and\n"
		      "their disks are destroyed. A host that does not answer is not a host that is off.\n\n"
		      "Type the node's name to confirm: ");
	(void)fflush(stderr);
	if (!fgets(line, sizeof(line), stdin))
		return false;
	line[strcspn(line, "\r\n")] = '\0';
	return streq(line, name);
}

/* Until the epoch is over, or the node shows that it was not so. */
static int wait_over(const struct ctl *c, const char *name, int64_t epoch)
{
	struct timespec pause = { .tv_nsec = LOOK_AGAIN_MS * NS_PER_MS };
	int64_t until_ms = now_ms() + WAIT_MS;

	for (;;) {
		json_object *answer, *node;
		bool over, alive;
		int r;

		node = look(c, name, &answer, &r);
		if (!node)
			return r;
		over = ctl_int(node, "over") >= epoch;
		alive = streq(ctl_str(node, "state"), "online");
		if (over && c->json)
			ctl_print_json(answer);
		else if (over)
			(void)printf("Node %s: epoch %" PRId64 " is over, its VMs start elsewhere.\n", name, epoch);
		json_object_put(answer);
		if (over)
			return CTL_OK;
		if (alive)
			return ctl_fail(c, CTL_FAILED, "node %s is alive: its heartbeat has moved, what you said of it was not believed; `ha-ctl events` tells more", name);
		if (now_ms() >= until_ms)
			return ctl_fail(c, CTL_AGAIN, "node %s is not proven over yet; `ha-ctl events` tells what this node's keeper made of it", name);
		(void)nanosleep(&pause, NULL);
	}
}

int ctl_node_confirm_fenced(const struct ctl *c)
{
	const char *name = c->args[0];
	json_object *o, *node, *answer;
	int64_t epoch;
	bool yes;
	int r;

	node = look(c, name, &answer, &r);
	if (!node)
		return r;
	epoch = ctl_int(node, "epoch");
	if (streq(ctl_str(node, "state"), "online")) {
		json_object_put(answer);
		return ctl_fail(c, CTL_FAILED, "node %s is alive, its heartbeat moves: `ha-ctl node fence %s` fences a node that is", name, name);
	}
	yes = agreed(name, node);
	json_object_put(answer);
	if (!yes)
		return ctl_fail(c, CTL_FAILED, "not confirmed: what was typed is not %s; nothing was done", name);
	o = node_request("node-confirm-fenced", name);
	json_object_object_add(o, "epoch", json_object_new_int64(epoch));
	r = ctl_ask(c, o, &answer);
	if (r != 0)
		return r;
	json_object_put(answer);
	return wait_over(c, name, epoch);
}

/* over: said instead if there was nothing to be fenced any more. */
static int tell(const struct ctl *c, json_object *request, const char *said, const char *over)
{
	json_object *answer;
	int r = ctl_ask(c, request, &answer);

	if (r != 0)
		return r;
	if (c->json)
		ctl_print_json(answer);
	else
		(void)printf("Node %s %s\n", c->args[0], over && streq(ctl_str(answer, "fencing"), "over") ? over : said);
	json_object_put(answer);
	return CTL_OK;
}

int ctl_node_fence(const struct ctl *c)
{
	json_object *o = node_request("node-fence", c->args[0]);

	json_object_object_add(o, "off", json_object_new_boolean(c->off));
	return tell(c, o, c->off ? "is to be fenced, then switched off; its VMs start elsewhere once it is over, and it gets none until `ha-ctl node unfence`. `ha-ctl events` tells what comes of it." :
				   "is to be fenced; its VMs start elsewhere once it is over, and it gets none until `ha-ctl node unfence`. `ha-ctl events` tells what comes of it.",
		    c->off ? "had its lease end before: its VMs start elsewhere. It is switched off, and gets none until `ha-ctl node unfence`." :
			     "had its lease end before: its VMs start elsewhere. It gets none until `ha-ctl node unfence`.");
}

int ctl_node_unfence(const struct ctl *c)
{
	return tell(c, node_request("node-unfence", c->args[0]), "may have VMs again; if it is down and has a fence device, it is being switched on.", NULL);
}

/* Asks the devices themselves, from this host: no agent is needed for it. */
int ctl_node_power(const struct ctl *c)
{
	const char *argv[] = { PKGLIBEXECDIR "/ha-fence", "--config", c->config_dir, "status", c->args[0], NULL };
	char *line = NULL;
	size_t size = 0;
	int out[2], status = 0;
	FILE *f;
	pid_t pid;

	if (pipe(out) < 0)
		return ctl_fail(c, CTL_FAILED, "cannot make a pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		(void)dup2(out[1], STDOUT_FILENO);
		(void)close(out[0]);
		(void)close(out[1]);
		(void)execv(argv[0], (char *const *)argv);
		(void)printf("3 cannot run %s: %s\n", argv[0], strerror(errno));
		(void)fflush(stdout);
		_exit(CTL_FAILED);
	}
	(void)close(out[1]);
	f = pid > 0 ? fdopen(out[0], "r") : NULL;
	if (!f) {
		(void)close(out[0]);
		return ctl_fail(c, CTL_FAILED, "cannot start %s: %s", argv[0], strerror(errno));
	}
	while (getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (*line < '0' || *line > '7' || line[1] != ' ')
			continue;
		ctl_color_on(c, *line <= '3' ? CTL_RED : *line == '4' ? CTL_YELLOW : CTL_PLAIN);
		ctl_put(line + 2);
		ctl_color_off(c);
		(void)printf("\n");
	}
	free(line);
	(void)fclose(f);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : CTL_FAILED;
}
