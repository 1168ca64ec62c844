/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What whoever started QEMU had opened for it, or runs beside it: handles (fd=), sockets in libvirt's directories, monitors, secrets encrypted
 * with libvirt's key. The agent hands over nothing, and on another node nothing of it is there; so these become something that QEMU can open by
 * itself, or are left out where the agent has its own, or are refused. */
#include "agent/import_parts.h"

#include <stdio.h>
#include <strings.h>

#define SOCKET_DIR "/run/kvm-ha/vm" /* the agent's own directory for its VMs' sockets; there on every node */

bool import_is_libvirts(const char *text)
{
	static const char *const dirs[] = { "/var/lib/libvirt/qemu/", "/run/libvirt/", "/lib/qemu/domain-", "/lib/qemu/channel/", "/libvirt/qemu/" };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		if (strstr(text, dirs[i]))
			return true;
	return false;
}

static const char *any_of(json_object *o, const char *const *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (json_object_object_get_ex(o, keys[i], NULL))
			return keys[i];
	return NULL;
}

static void set(json_object *o, const char *key, const char *value) { json_object_object_add(o, key, json_object_new_string(value)); }

/* Monitors */

static void drop_chardev(struct import *im, const char *id, const char *why)
{
	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];
		const char *its = streq(o->name, "-chardev") ? import_get(o->props, "id") : NULL;

		if (its && streq(its, id) && o->fate == IMPORT_KEEP && !import_user_of(im, id, o))
			import_leave_out(im, o, why);
	}
}

static void drop_monitors(struct import *im)
{
	static const char why[] = "a monitor of whoever managed the VM; the agent has its own QMP socket, add one for yourself if you need it";

	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];
		const char *id = NULL;

		if (o->fate == IMPORT_LEFT_OUT)
			continue;
		if (streq(o->name, "-mon"))
			id = import_get(o->props, "chardev");
		else if (!streq(o->name, "-qmp") && !streq(o->name, "-qmp-pretty") && !streq(o->name, "-monitor"))
			continue;
		else if (strncmp(o->value, "chardev:", 8) == 0)
			id = o->value + 8;
		import_leave_out(im, o, why);
		if (id)
			drop_chardev(im, id, why);
	}
}

/* Taps */

static const struct import_nic *nic_of(const struct import *im, const struct import_option *netdev)
{
	const char *id = import_get(netdev->props, "id"), *mac = NULL;
	unsigned at;

	for (size_t i = 0; i < im->n_options; i++) {
		const struct import_option *o = &im->option[i];
		const char *its = streq(o->name, "-device") ? import_get(o->props, "netdev") : NULL;

		if (id && its && streq(its, id))
			mac = import_get(o->props, "mac");
	}
	for (size_t i = 0; mac && i < im->in->n_nics; i++)
		if (strcasecmp(im->in->nics[i].mac, mac) == 0)
			return &im->in->nics[i];
	/* without a MAC address in the domain virsh draws one at each run; its names count the interfaces */
	if (id && sscanf(id, "hostnet%u", &at) == 1 && at < im->in->n_nics && !*im->in->nics[at].mac)
		return &im->in->nics[at];
	return NULL;
}

/* JSON has a boolean there, and QEMU insists on it. */
static void set_on(struct import_option *o, const char *key)
{
	json_object_object_add(o->props, key, o->json ? json_object_new_boolean(true) : json_object_new_string("on"));
}

static void to_bridge(struct import *im, struct import_option *o, const char *bridge, bool vhost, bool queues)
{
	char why[300];

	set(o->props, "type", vhost ? "tap" : "bridge");
	set(o->props, "br", bridge);
	if (vhost) { /* which -netdev bridge has not */
		set(o->props, "helper", im->in->bridge_helper);
		set_on(o, "vhost");
	}
	(void)snprintf(why, sizeof(why), "its handle is gone; QEMU's helper makes a tap%s on bridge %.64s: `allow %.64s` in qemu/bridge.conf on every node",
		       queues ? " of one queue" : "", bridge, bridge);
	import_change(im, o, o->name, NULL, why);
}

/* One that QEMU finds or makes by its name, or a script connects; the helper's are on their bridge on every node. */
static void check_tap(struct import *im, const struct import_option *o)
{
	const char *id = import_get(o->props, "id"), *name = import_get(o->props, "ifname"), *script = import_get(o->props, "script");

	if (import_get(o->props, "helper") || import_get(o->props, "br"))
		return;
	if (script && streq(script, "no"))
		import_warn(im, true, "%s %s: tap %s is of this host: on another node the guest has no network, unless something puts a tap of that name on a bridge there",
			    o->name, id ? id : "", name ? name : "");
	else
		import_warn(im, true, "%s %s: %s connects its tap: it must be on every node", o->name, id ? id : "", script ? script : "/etc/qemu-ifup");
}

static void mend_tap(struct import *im, struct import_option *o)
{
	static const char *const handles[] = { "fd", "fds" }, *const gone[] = { "fd", "fds", "vhostfd", "vhostfds", "vhost", "queues", "script", "downscript",
										 "ifname", "sndbuf", "poll-us" };
	const struct import_nic *nic = nic_of(im, o);
	bool vhost = import_is_on(o->props, "vhost", false) || json_object_object_get_ex(o->props, "vhostfd", NULL) ||
		     json_object_object_get_ex(o->props, "vhostfds", NULL);
	const char *bridge = nic && nic->kind == IMPORT_NIC_BRIDGE && *nic->source && !nic->switched ? nic->source : im->in->bridge;
	const char *type = import_get(o->props, "type"), *id = import_get(o->props, "id");
	bool queues = json_object_object_get_ex(o->props, "fds", NULL);

	if (!type || !streq(type, "tap"))
		return;
	if (!any_of(o->props, handles, ARRAY_SIZE(handles))) {
		check_tap(im, o);
		return;
	}
	if (!bridge && !(nic && (nic->kind == IMPORT_NIC_USER || (nic->kind == IMPORT_NIC_ETHERNET && *nic->target)))) {
		if (nic && nic->switched)
			import_refuse(im, o, "this network interface has <virtualport> or <vlan>, which libvirt sets up%s%s; give --bridge BRIDGE to put it on a bridge of "
				      "that network that is on every node", *nic->source ? " on " : "", nic->source);
		else if (nic)
			import_refuse(im, o, "this network interface is of type %s%s%s%s, which libvirt sets up; give --bridge BRIDGE to put it on a bridge that is "
				      "on every node", nic->type, *nic->source ? " (" : "", nic->source, *nic->source ? ")" : "");
		else
			import_refuse(im, o, "this tap is a handle that whoever started QEMU had opened; give --bridge BRIDGE to put it on a bridge that is on "
				      "every node");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
		json_object_object_del(o->props, gone[i]);
	if (nic && nic->kind == IMPORT_NIC_USER) {
		set(o->props, "type", "user");
		import_change(im, o, o->name, NULL, "a user network, as in the domain");
	} else if (nic && nic->kind == IMPORT_NIC_ETHERNET && *nic->target) {
		set(o->props, "ifname", nic->target);
		set(o->props, "script", "no");
		set(o->props, "downscript", "no");
		if (vhost)
			set_on(o, "vhost");
		import_change(im, o, o->name, NULL, "its handle is gone; QEMU opens the tap by its name, and nobody puts it on a bridge");
		check_tap(im, o);
	} else {
		if (nic && nic->switched)
			import_warn(im, false, "-netdev %s: its <virtualport> or <vlan> is not set up: bridge %s must be of that network", id ? id : "", bridge);
		to_bridge(im, o, bridge, vhost, queues);
	}
}

/* Character devices */

static void mend_chardev(struct import *im, struct import_option *o)
{
	const char *id = import_get(o->props, "id"), *path = import_get(o->props, "path"), *log = import_get(o->props, "logfile");
	bool handle = json_object_object_get_ex(o->props, "fd", NULL);
	char socket[256];

	if (log && (strncmp(log, "/dev/fdset/", 11) == 0 || import_is_libvirts(log))) {
		json_object_object_del(o->props, "logfile");
		json_object_object_del(o->props, "logappend");
		import_change(im, o, o->name, NULL, "without the log that libvirt kept");
	}
	if (!handle && path && streq(import_get(o->props, "backend") ? import_get(o->props, "backend") : "", "socket") &&
	    !import_is_on(o->props, "server", false) && !import_is_libvirts(path))
		import_warn(im, true, "-chardev %s is the end of a program beside QEMU: one must listen on %s on every node", id ? id : "", path);
	if (!handle && !(path && import_is_libvirts(path)))
		return;
	if (!import_is_on(o->props, "server", false) || !id || strlen(id) > 48) {
		import_refuse(im, o, "this is the end of a program that libvirt starts beside QEMU, such as a TPM; kvm-ha starts none: remove the device, or start "
			      "that program on every node and give its socket");
		return;
	}
	(void)snprintf(socket, sizeof(socket), SOCKET_DIR "/%s.%s", im->uuid, id);
	json_object_object_del(o->props, "fd");
	set(o->props, "path", socket);
	set(o->props, "server", "on");
	set(o->props, "wait", "off");
	import_change(im, o, o->name, NULL, "its socket was libvirt's");
}

/* Secrets */

static void check_secret(struct import *im, struct import_option *o)
{
	const char *type = import_get(o->props, "qom-type"), *id = import_get(o->props, "id"), *file = import_get(o->props, "file");

	if (!type || strncmp(type, "secret", 6) != 0 || !id)
		return;
	if (json_object_object_get_ex(o->props, "keyid", NULL))
		import_refuse(im, o, "secret %.64s is encrypted with a key that libvirt made for that one process; put it into a file on every node that only root "
			      "reads, and give -object secret,id=%.64s,file=PATH", id, id);
	else if (json_object_object_get_ex(o->props, "data", NULL))
		import_refuse(im, o, "secret %.64s stands here in the clear, and the VM file is kept on the volumes; put it into a file on every node that only root "
			      "reads, and give -object secret,id=%.64s,file=PATH", id, id);
	else if (file && (import_is_libvirts(file) || streq(id, "masterKey0"))) {
		/* those that it encrypts are refused one by one */
		import_leave_out(im, o, "libvirt's key for this one process");
	} else if (file) {
		import_warn(im, false, "secret %s: %s must be on every node", id, file);
	}
}

/* Handles left in an option: first key that is one. */
static const char *handle_in(json_object *o, unsigned depth)
{
	static const char *const handles[] = { "fd", "fds", "vhostfd", "vhostfds", "sock_fd", "sysfsfd", "evdevfd" };

	if (depth > IMPORT_MAX_DEPTH || !json_object_is_type(o, json_type_object))
		return NULL;
	json_object_object_foreach(o, key, v) {
		const char *found = NULL;

		for (size_t i = 0; i < ARRAY_SIZE(handles); i++)
			if (streq(key, handles[i]))
				found = handles[i];
		if ((streq(key, "type") || strstr(key, ".type")) && json_object_is_type(v, json_type_string) && streq(json_object_get_string(v), "fd"))
			found = "type=fd";
		if (!found)
			found = handle_in(v, depth + 1);
		if (found)
			return found;
	}
	return NULL;
}

static void mend_device(struct import *im, struct import_option *o)
{
	const char *driver = import_get(o->props, "driver");

	if (!driver)
		return;
	if (strncmp(driver, "vhost-vsock", 11) == 0 && json_object_object_get_ex(o->props, "vhostfd", NULL)) {
		json_object_object_del(o->props, "vhostfd");
		import_change(im, o, o->name, NULL, "QEMU opens /dev/vhost-vsock by itself; guest-cid must not be another VM's on any node");
	}
	if (strncmp(driver, "vfio-", 5) == 0 || streq(driver, "usb-host") || strncmp(driver, "vhost-scsi", 10) == 0 || strncmp(driver, "vhost-vdpa", 10) == 0)
		import_warn(im, true, "%s %s is a device of this host: another node runs the VM only if it has the like at the same place", o->name, driver);
}

static void mend_object(struct import *im, struct import_option *o)
{
	const char *path = import_get(o->props, "mem-path"), *type = import_get(o->props, "qom-type");

	check_secret(im, o);
	if (!type || !streq(type, "memory-backend-file") || !path)
		return;
	if (strncmp(path, "/dev/hugepages", 14) == 0 && import_is_libvirts(path)) {
		char pool[64];

		(void)snprintf(pool, sizeof(pool), "/dev/%.*s", (int)MIN(strcspn(path + 5, "/"), 40), path + 5);
		set(o->props, "mem-path", pool);
		import_change(im, o, o->name, NULL, "a directory of libvirt's; huge pages must be there on every node");
	}
}

static void check_rest(struct import *im)
{
	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];
		const char *handle = o->fate == IMPORT_LEFT_OUT ? NULL : handle_in(o->props, 0);

		if (o->fate == IMPORT_LEFT_OUT || !o->value || o->refused)
			continue;
		if (handle)
			import_refuse(im, o, "%s is a handle that whoever started QEMU had opened; give a path or an address instead", handle);
		else if (strstr(o->value, "/dev/fdset/"))
			import_refuse(im, o, "/dev/fdset/ is a file that whoever started QEMU had opened; write its path");
		else if (import_is_libvirts(o->value) && !import_is_image(im, o->value))
			import_refuse(im, o, "this path is in a directory that libvirt makes and empties; give one that is on every node");
	}
}

void import_nets(struct import *im)
{
	drop_monitors(im);
	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];

		if (o->fate == IMPORT_LEFT_OUT || !o->props)
			continue;
		if (streq(o->name, "-netdev") || streq(o->name, "-net") || streq(o->name, "-nic"))
			mend_tap(im, o);
		else if (streq(o->name, "-chardev"))
			mend_chardev(im, o);
		else if (streq(o->name, "-device"))
			mend_device(im, o);
		else if (streq(o->name, "-object"))
			mend_object(im, o);
	}
	if (im->in->beside && *im->in->beside)
		import_warn(im, false, "%s: libvirt sets this up beside QEMU, and kvm-ha does not: see to it yourself on every node, or do without", im->in->beside);
	check_rest(im);
}
