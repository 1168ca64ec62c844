/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the VM file has keys for or the agent has its own way with: name, UUID, memory, vCPUs, how a guest's end shows; and what needs a screen, a port
 * or a password. */
#include "agent/import_parts.h"

#include "agent/base/uuid.h"
#include "agent/base/value.h"

#define MEMORY_MAX (64ULL << 40)

static void read_name(struct import *im, struct import_option *o)
{
	const char *guest = import_get(o->props, "guest");
	char err[200] = "";

	if (guest && !im->in->name) {
		if (value_name_check(guest, sizeof(im->name), err, sizeof(err)) == 0)
			(void)str_copy(im->name, sizeof(im->name), guest);
		else
			import_refuse(im, o, "\"%.64s\": %s; give one with --name", guest, err);
	}
	json_object_object_foreach(o->props, key, v) {
		(void)v;
		if (!streq(key, "guest")) {
			import_leave_out(im, o, "the agent names the process");
			return;
		}
	}
	import_leave_out(im, o, NULL);
}

static void read_uuid(struct import *im, struct import_option *o)
{
	uint8_t uuid[16];

	if (!o->value || !uuid_parse(o->value, uuid) || uuid_is_zero(uuid))
		import_refuse(im, o, "not a UUID; write 8-4-4-4-12 hexadecimal digits, or leave -uuid out to have one drawn");
	else
		uuid_format(uuid, im->uuid);
	import_leave_out(im, o, NULL);
}

/* QEMU's sizes: a number, also with a fraction, and one of b k M G T P; MiB without. */
static bool parse_memory(const char *s, uint64_t *ret)
{
	static const char units[] = "BKMGTP";
	char *end = NULL;
	const char *unit;
	double n;

	if (*s < '0' || *s > '9' || strspn(s, "0123456789.") == 0 || s[1] == 'x')
		return false;
	n = strtod(s, &end);
	unit = *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : units + 2;
	if (!unit || (*end && end[1]))
		return false;
	n *= (double)(1ULL << (10 * (unit - units)));
	if (n < 1 || n > (double)MEMORY_MAX)
		return false;
	*ret = (uint64_t)n;
	return true;
}

/* -m and -smp are the agent's, with one number each; the rest means the same as properties of the machine. */
static void rest_to_machine(struct import *im, struct import_option *o, const char *prefix, const char *number, const char *const *from,
			    const char *const *to, size_t n)
{
	json_object *machine = json_object_new_object();
	_cleanup_free_ char *text = NULL;
	char key[64];

	json_object_object_foreach(o->props, name, v) {
		bool known = streq(name, number);

		for (size_t i = 0; i < n; i++)
			if (streq(name, from[i])) {
				(void)snprintf(key, sizeof(key), "%s%s", prefix, to[i]);
				json_object_object_add(machine, key, json_object_get(v));
				known = true;
			}
		if (!known)
			import_refuse(im, o, "%.64s= is not known; remove it", name);
	}
	if (json_object_object_length(machine) > 0) {
		import_leave_out(im, o, "the number is in [VM], the rest moved to a -machine of its own");
		text = import_props_text(machine, false, NULL);
		im->no_memory |= !text;
		if (text)
			(void)import_add_option(im, "-machine", text, NULL);
	} else {
		import_leave_out(im, o, NULL);
	}
	json_object_put(machine);
}

static void read_memory(struct import *im, struct import_option *o)
{
	static const char *const from[] = { "slots", "maxmem" }, *const to[] = { "slots", "max-size" };
	const char *size = import_get(o->props, "size");

	if (size && !parse_memory(size, &im->memory_bytes))
		import_refuse(im, o, "%.32s is no size of memory; write such as 2048 or 2G", size);
	else if (size && im->memory_bytes % IMPORT_MIB != 0)
		import_refuse(im, o, "%.32s is no whole number of MiB; round it, also in memory backends", size);
	rest_to_machine(im, o, "memory.", "size", from, to, ARRAY_SIZE(to));
}

static void read_smp(struct import *im, struct import_option *o)
{
	static const char *const levels[] = { "sockets", "dies", "clusters", "modules", "drawers", "books", "cores", "threads", "maxcpus" };
	const char *cpus = import_get(o->props, "cpus"), *max = import_get(o->props, "maxcpus"), *v;
	char err[100] = "";
	uint32_t n;
	uint64_t product = 1;

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		v = import_get(o->props, levels[i]);
		if (!v)
			continue;
		if (value_u32(v, 1, 65536, &n, err, sizeof(err)) < 0)
			import_refuse(im, o, "%s=%.32s: %s", levels[i], v, err);
		else if (!streq(levels[i], "maxcpus"))
			product *= MIN(n, 65536 / product + 1);
	}
	im->vcpus = (uint32_t)product; /* as QEMU has it: all there can be, without another word */
	if (max && !cpus)
		cpus = max;
	if (cpus && value_u32(cpus, 1, 1024, &im->vcpus, err, sizeof(err)) < 0)
		import_refuse(im, o, "cpus=%.32s: %s", cpus, err);
	rest_to_machine(im, o, "smp.", "cpus", levels, levels, ARRAY_SIZE(levels));
}

static void check_machine(struct import *im, struct import_option *o)
{
	json_object_object_foreach(o->props, key, v) {
		(void)v;
		if (o->at && (streq(key, "smp.cpus") || streq(key, "memory.size")))
			import_refuse(im, o, "%s belongs to the agent; write it as %s", key, streq(key, "smp.cpus") ? "-smp" : "-m");
	}
}

/* Keys of an option that go, while the rest stays. */
static void drop_keys(struct import *im, struct import_option *o, const char *const *keys, size_t n, const char *why)
{
	bool any = false;

	for (size_t i = 0; i < n; i++)
		if (json_object_object_get_ex(o->props, keys[i], NULL)) {
			json_object_object_del(o->props, keys[i]);
			any = true;
		}
	if (any && json_object_object_length(o->props) == 0)
		import_leave_out(im, o, why);
	else if (any)
		import_change(im, o, o->name, NULL, why);
}

static void read_display(struct import *im, struct import_option *o)
{
	static const char *const fine[] = { "none", "vnc", "egl-headless", "spice-app", "dbus" };
	const char *type = import_get(o->props, "type");

	for (size_t i = 0; type && i < ARRAY_SIZE(fine); i++)
		if (streq(type, fine[i]))
			return;
	import_change(im, o, o->name, "none", import_needs_display);
}

static void check_passwords(struct import *im, struct import_option *o)
{
	if (json_object_object_get_ex(o->props, "password", NULL) && !streq(o->name, "-vnc"))
		import_refuse(im, o, "a password stands here in the clear, and the VM file is kept on the volumes; use password-secret= with -object secret,file=");
}

static void check_ports(struct import *im, struct import_option *o)
{
	const char *vnc = import_get(o->props, "vnc"), *port = import_get(o->props, "port");

	if (streq(o->name, "-vnc") && vnc && !json_object_object_get_ex(o->props, "to", NULL) && strchr(vnc, ':') && strncmp(vnc, "unix:", 5) != 0) {
		if (im->in->libvirt) { /* virsh made up the number: the same one for each domain */
			json_object_object_add(o->props, "to", json_object_new_string("99"));
			import_change(im, o, o->name, NULL, "takes the next free display");
		} else
			import_warn(im, false, "VNC display %s must be free on every node; with to=99 QEMU takes the next free one", vnc);
	}
	if (streq(o->name, "-spice") && port)
		import_warn(im, false, "SPICE port %s must be free on every node: no two VMs may have the same", port);
}

void import_keys(struct import *im)
{
	static const char *const ends[] = { "shutdown", "reboot" }, *const teardown[] = { "async-teardown" };
	size_t n = im->n_options;

	for (size_t i = 0; i < n; i++) {
		struct import_option *o = &im->option[i];

		if (o->refused || o->fate != IMPORT_KEEP)
			continue;
		if (streq(o->name, "-name"))
			read_name(im, o);
		else if (streq(o->name, "-uuid"))
			read_uuid(im, o);
		else if (streq(o->name, "-m"))
			read_memory(im, o);
		else if (streq(o->name, "-smp"))
			read_smp(im, o);
		else if (streq(o->name, "-machine"))
			check_machine(im, o);
		else if (streq(o->name, "-action"))
			drop_keys(im, o, ends, ARRAY_SIZE(ends), "a guest that shuts down must end QEMU, one that reboots must not");
		else if (streq(o->name, "-run-with"))
			drop_keys(im, o, teardown, ARRAY_SIZE(teardown), import_teardown_stays);
		else if (streq(o->name, "-display"))
			read_display(im, o);
		else if (streq(o->name, "-vnc") || streq(o->name, "-spice") || streq(o->name, "-iscsi")) {
			check_passwords(im, o);
			check_ports(im, o);
		} else if (streq(o->name, "-fsdev") || streq(o->name, "-virtfs"))
			import_warn(im, true, "%s: a directory of this host: another node runs the VM only if it has the same", o->name);
		else if (streq(o->name, "-tpmdev"))
			import_warn(im, true, "-tpmdev: what this TPM keeps is on this host: on another node the guest finds another TPM");
	}
}

/* QEMU without a word about it opens a window, or fails where it cannot. */
void import_display(struct import *im)
{
	static const char *const words[] = { "-display", "-nographic", "-vnc", "-spice" };

	for (size_t i = 0; i < im->n_options; i++)
		for (size_t k = 0; k < ARRAY_SIZE(words); k++)
			if (im->option[i].fate != IMPORT_LEFT_OUT && streq(im->option[i].name, words[k]))
				return;
	(void)import_add_option(im, "-display", "none", NULL);
}
