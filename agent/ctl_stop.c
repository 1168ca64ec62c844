/* SPDX-License-Identifier: GPL-2.0-or-later */
/* node stop: ends agent and keeper of this host for good. systemctl refuses that, since a keeper that stays away while VMs run ends in a reset. */
#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ctl.h"
#include "agent/ctl_client.h"
#include "fence/vmslice.h"

#define UNIT "ha-stopped.target"
#define ANSWER_MS 5000

/* The leader may give an armed node a VM in any moment, unless it is in maintenance. An agent that does not answer starts none. */
static int check_unused(const struct ctl *c)
{
	json_object *request = ctl_request("status"), *answer = NULL, *s, *nodes;
	char err[CTL_ERROR_LEN] = "", self[CONF_NAME_LEN];
	bool armed, emptied = false;
	size_t n;
	int r = ctl_client_ask(c->socket, request, ANSWER_MS, &answer, err, sizeof(err));

	json_object_put(request);
	if (r < 0)
		return 0;
	s = ctl_get(answer, "status", json_type_object);
	(void)str_copy(self, sizeof(self), ctl_str(s, "self"));
	n = ctl_list(s, "nodes", &nodes);
	for (size_t i = 0; i < n; i++)
		if (streq(ctl_str(json_object_array_get_idx(nodes, i), "name"), self))
			emptied = ctl_bool(json_object_array_get_idx(nodes, i), "maintenance");
	/* One that has no storage is given none; nor does its agent know more then. */
	armed = streq(ctl_str(s, "lease"), "armed") || (ctl_bool(s, "armed") && streq(ctl_str(s, "lease"), "disarmed"));
	json_object_put(answer);
	return armed && !emptied ? ctl_fail(c, CTL_FAILED, "VMs may be started here in any moment: `ha-ctl node maintenance on %s --wait` first", self) : 0;
}

static int check_silent(const struct ctl *c)
{
	uint32_t mark[VMSLICE_MAX];
	struct vmslice *slice;
	char root[PATH_MAX];
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
	if (!known)
		return ctl_fail(c, CTL_AGAIN, "what a VM that has ended wrote may not have reached its storage yet: try again in a moment");
	return 0;
}

static int start_unit(void)
{
	static char systemctl[] = "systemctl", start[] = "start", quiet[] = "--quiet", unit[] = UNIT;
	char *argv[] = { systemctl, quiet, start, unit, NULL };
	int status = 0, r;
	pid_t pid;

	r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
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
	int r = check_unused(c);

	if (r == 0)
		r = check_silent(c);
	if (r != 0)
		return r;
	r = start_unit();
	if (r != 0)
		return ctl_fail(c, CTL_FAILED, "systemd has not stopped them: %s; see `systemctl status ha-keeper ha-agent`", r < 0 ? strerror(-r) : "its reason is above");
	done(c);
	return CTL_OK;
}
