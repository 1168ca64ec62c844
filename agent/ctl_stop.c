/* SPDX-License-Identifier: GPL-2.0-or-later */
/* node stop: ends agent and keeper of this host for good. systemctl refuses that, since a keeper that stays away while VMs run ends in a reset. */
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/held.h"
#include "agent/ctl.h"
#include "agent/ctl_client.h"
#include "fence/vmslice.h"

#define ANSWER_MS 5000
#define AGAIN_MS 500
#define AWAY_MS 10000 /* an agent that has not answered for so long is not about to start a VM */

/* 1: it may, 0: it may not; -CTL_AGAIN: that cannot be told yet. */
static int may_get_vms(json_object *answer, char *ret_self, size_t size)
{
	json_object *s = ctl_bool(answer, "ok") ? ctl_get(answer, "status", json_type_object) : NULL, *nodes;
	const char *lease = ctl_str(s, "lease");
	bool armed = streq(lease, "armed"), emptied = false;
	size_t n = ctl_list(s, "nodes", &nodes);

	(void)str_copy(ret_self, size, ctl_str(s, "self"));
	if (!s || streq(lease, "unknown") || ((armed || streq(lease, "disarmed")) && !ctl_known(s)))
		return -CTL_AGAIN;
	for (size_t i = 0; i < n; i++)
		if (streq(ctl_str(json_object_array_get_idx(nodes, i), "name"), ret_self))
			emptied = ctl_bool(json_object_array_get_idx(nodes, i), "maintenance");
	return (armed || (ctl_bool(s, "armed") && streq(lease, "disarmed"))) && !emptied;
}

/* The leader may give an armed node a VM in any moment, unless it is in maintenance. One without keeper or storage is given none, and an agent that is away starts none;
 * both are given some time to be only just starting. */
static int check_unused(const struct ctl *c)
{
	char err[CTL_ERROR_LEN] = "", self[CONF_NAME_LEN] = "";
	int64_t since_ms = ctl_now_ms();
	int may = -CTL_AGAIN;

	do {
		json_object *request = ctl_request("status"), *answer = NULL;
		int r = ctl_client_ask(c->socket, request, ANSWER_MS, &answer, err, sizeof(err));

		json_object_put(request);
		if (r == 0)
			may = may_get_vms(answer, self, sizeof(self));
		json_object_put(answer);
		if (may < 0)
			(void)usleep(AGAIN_MS * 1000);
	} while (may < 0 && ctl_now_ms() - since_ms < AWAY_MS);
	return may > 0 ? ctl_fail(c, CTL_FAILED, "VMs may be started here in any moment: `ha-ctl node maintenance on %s --wait` first", self) : 0;
}

static int check_silent(const struct ctl *c)
{
	char root[PATH_MAX], path[PATH_MAX] = "";
	uint32_t mark[VMSLICE_MAX];
	struct vmslice *slice;
	unsigned n = 0;
	bool known;
	int r = vmslice_find_root(root, sizeof(root)), vms;

	if (r >= 0)
		r = vmslice_new(NULL, root, &slice);
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "cannot tell whether VMs run here: %s", strerror(-r));
	vms = vmslice_count(slice);
	known = vmslice_marks(slice, mark, VMSLICE_MAX, &n);
	vmslice_free(slice);
	if (vms < 0)
		return ctl_fail(c, CTL_FAILED, "cannot tell whether VMs run here: %s", strerror(-vms));
	if (vms > 0)
		return ctl_fail(c, CTL_FAILED, "%d process%s of VMs run%s on this host, and its watchdog would reset it without its keeper: move or stop them first",
				vms, vms == 1 ? "" : "es", vms == 1 ? "s" : "");
	if (!held_quiet(HELD_FOR_DEAD, 0, path, sizeof(path)))
		return ctl_fail(c, CTL_FAILED, "%s may still be written for a QEMU that has ended here: kvm-ha.vm(5), PROOF OF SILENCE, tells whether that ends before this host's"
				" next boot", path);
	if (!known)
		return ctl_fail(c, CTL_AGAIN, "this host still sends what a VM that has ended wrote: try again in a moment");
	return 0;
}

static int systemctl(char *a, char *b, char *c)
{
	static char name[] = "systemctl", quiet[] = "--quiet", start[] = "start";
	char *argv[] = { name, quiet, start, a, b, c, NULL };
	int status = 0, r;
	pid_t pid;

	r = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

static void done(const struct ctl *c)
{
	json_object *o;

	if (!c->json) {
		(void)printf("ha-agent and ha-keeper are stopped on this host, until `systemctl start ha-keeper ha-agent` or its next boot.\n"
			     "Meanwhile an outage of the storage that hits every node costs the other nodes their VMs: to hold them takes the word of all nodes.\n");
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(true));
	ctl_print_json(o);
	json_object_put(o);
}

int ctl_node_stop(const struct ctl *c)
{
	static char unit[] = "ha-stopped.target", keeper[] = "ha-keeper", agent[] = "ha-agent";
	int r = check_unused(c);

	if (r == 0)
		r = check_silent(c);
	if (r != 0)
		return r;
	r = systemctl(unit, NULL, NULL);
	if (r != 0)
		return ctl_fail(c, CTL_FAILED, "systemd has not stopped them: %s; see `systemctl status ha-keeper ha-agent`", r < 0 ? strerror(-r) : "its reason is above");
	/* One that was started by hand just now: its keeper must not stay away. */
	if (check_silent(c) != 0) {
		r = systemctl(keeper, agent, NULL);
		return ctl_fail(c, CTL_FAILED, "%s", r == 0 ? "so they have been started again" : "and they cannot be started again: see `systemctl status ha-keeper ha-agent`");
	}
	done(c);
	return CTL_OK;
}
