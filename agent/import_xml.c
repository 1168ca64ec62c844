/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a libvirt domain is not in the command line that virsh makes of it: its network interfaces, and what libvirt does by itself around QEMU.
 * As much of XML as that needs: tags with their depth and attributes. virsh, which reads the same file before, has found it well formed; what is
 * not is refused here too, and nothing is guessed at. */
#include "agent/import.h"

#include <errno.h>
#include <stdio.h>

#include "agent/base/value.h"

#define NAME_LEN 64
#define DEPTH_DOMAIN 0
#define DEPTH_DEVICES 1
#define DEPTH_INTERFACE 2
#define DEPTH_DETAIL 3

struct xml {
	const char *p, *end;
	unsigned depth;
	bool in_devices, in_interface, in_disk;
	struct import_nic *nic;
	int n;
	unsigned beside; /* a bit for each in that table */
	const char *why; /* what read_next refuses */
};

struct tag {
	char name[NAME_LEN];
	bool closes, empty; /* </name>, <name/> */
	struct {
		char key[NAME_LEN], value[IMPORT_NIC_LEN];
	} attribute[8]; /* more are skipped */
	unsigned n;
};

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool starts(const struct xml *x, const char *s)
{
	size_t len = strlen(s);

	return (size_t)(x->end - x->p) >= len && memcmp(x->p, s, len) == 0;
}

/* Moves behind the next s; false if there is none. */
static bool skip_past(struct xml *x, const char *s)
{
	const char *at = memmem(x->p, (size_t)(x->end - x->p), s, strlen(s));

	x->p = at ? at + strlen(s) : x->end;
	return at != NULL;
}

static void skip_blanks(struct xml *x)
{
	while (x->p < x->end && is_blank(*x->p))
		x->p++;
}

/* Up to a blank or one of stop. What is too long for ret is cut: it is none of the names looked for. */
static void read_name(struct xml *x, const char *stop, char *ret, size_t size)
{
	size_t n = 0;

	while (x->p < x->end && !is_blank(*x->p) && *x->p && !strchr(stop, *x->p)) {
		if (n + 1 < size)
			ret[n++] = *x->p;
		x->p++;
	}
	ret[n] = '\0';
}

static bool read_attribute(struct xml *x, struct tag *t)
{
	char key[NAME_LEN], quote;
	const char *value, *close;

	read_name(x, "=>/", key, sizeof(key));
	skip_blanks(x);
	if (!*key || x->p >= x->end || *x->p++ != '=')
		return false;
	skip_blanks(x);
	if (x->p >= x->end || (*x->p != '"' && *x->p != '\''))
		return false;
	quote = *x->p++;
	value = x->p;
	close = memchr(value, quote, (size_t)(x->end - value));
	if (!close)
		return false;
	x->p = close + 1;
	if (t->n < ARRAY_SIZE(t->attribute)) {
		(void)str_copy(t->attribute[t->n].key, NAME_LEN, key);
		(void)snprintf(t->attribute[t->n++].value, IMPORT_NIC_LEN, "%.*s", (int)MIN(close - value, IMPORT_NIC_LEN - 1), value);
	}
	return true;
}

/* x->p is at '<' of a tag. */
static bool read_tag(struct xml *x, struct tag *t)
{
	*t = (struct tag){ .closes = starts(x, "</") };
	x->p += t->closes ? 2 : 1;
	read_name(x, ">/", t->name, sizeof(t->name));
	for (;;) {
		skip_blanks(x);
		if (x->p >= x->end)
			return false;
		if (*x->p == '>') {
			x->p++;
			return *t->name != '\0';
		}
		if (starts(x, "/>") && !t->closes) {
			t->empty = true;
			x->p += 2;
			return *t->name != '\0';
		}
		if (t->closes || !read_attribute(x, t))
			return false;
	}
}

static const char *attribute(const struct tag *t, const char *key)
{
	for (unsigned i = 0; i < t->n; i++)
		if (streq(t->attribute[i].key, key))
			return t->attribute[i].value;
	return "";
}

static enum import_nic_kind kind_of(const char *type)
{
	static const struct {
		const char *name;
		enum import_nic_kind kind;
	} kinds[] = { { "bridge", IMPORT_NIC_BRIDGE }, { "network", IMPORT_NIC_NETWORK }, { "user", IMPORT_NIC_USER }, { "ethernet", IMPORT_NIC_ETHERNET } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (streq(kinds[i].name, type))
			return kinds[i].kind;
	return IMPORT_NIC_OTHER;
}

/* What libvirt sets up by itself, with the element that it is in. */
static const struct {
	const char *in, *name;
} beside[] = {
	{ "domain", "cputune" }, { "domain", "memtune" }, { "domain", "blkiotune" }, { "domain", "numatune" }, { "disk", "iotune" },
	{ "interface", "filterref" }, { "interface", "bandwidth" }, { "interface", "mtu" }, { "interface", "port" },
};

static void note_beside(struct xml *x, const char *in, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(beside); i++)
		if (streq(beside[i].in, in) && streq(beside[i].name, name))
			x->beside |= 1U << i;
}

static void name_beside(const struct xml *x, char ret[IMPORT_BESIDE_LEN])
{
	size_t len = 0;

	*ret = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(beside); i++)
		if (x->beside & 1U << i)
			len += (size_t)snprintf(ret + len, IMPORT_BESIDE_LEN - len, "%s<%s>", len ? ", " : "", beside[i].name);
}

static bool opens_in_disk(struct xml *x, const struct tag *t)
{
	note_beside(x, "disk", t->name);
	x->why = "<transient>: libvirt forgets what the guest writes to this disk, and kvm-ha does not: the image itself would be written to; remove the disk, or, if "
		 "that is meant, its <transient>";
	return !streq(t->name, "transient");
}

static bool opens_in_interface(struct xml *x, const struct tag *t, struct import_nic *nic)
{
	note_beside(x, "interface", t->name);
	if (streq(t->name, "mac"))
		(void)str_copy(nic->mac, sizeof(nic->mac), attribute(t, "address"));
	if (streq(t->name, "source"))
		(void)str_copy(nic->source, sizeof(nic->source), attribute(t, nic->kind == IMPORT_NIC_BRIDGE ? "bridge" : "network"));
	if (streq(t->name, "target"))
		(void)str_copy(nic->target, sizeof(nic->target), attribute(t, "dev"));
	nic->switched |= streq(t->name, "virtualport") || streq(t->name, "vlan");
	x->why = "<link state='down'/>: libvirt unplugs this cable, and kvm-ha does not; remove the interface, or, if it may be plugged in, its <link>";
	return !streq(t->name, "link") || !streq(attribute(t, "state"), "down");
}

static bool opens(struct xml *x, const struct tag *t)
{
	struct import_nic *nic;
	bool fine = true;

	if (x->depth == DEPTH_DEVICES) {
		x->in_devices = streq(t->name, "devices");
		note_beside(x, "domain", t->name);
	}
	if (x->depth == DEPTH_INTERFACE) {
		x->in_interface = x->in_devices && streq(t->name, "interface");
		x->in_disk = x->in_devices && streq(t->name, "disk");
	}
	if (x->depth == DEPTH_INTERFACE && x->in_interface) {
		x->why = "more network interfaces than can be imported; use fewer";
		if (x->n == IMPORT_MAX_NICS)
			return false;
		nic = &x->nic[x->n++];
		*nic = (struct import_nic){ .kind = kind_of(attribute(t, "type")) };
		(void)str_copy(nic->type, sizeof(nic->type), attribute(t, "type"));
	} else if (x->depth == DEPTH_DETAIL && x->in_devices && x->in_interface && x->n > 0) {
		fine = opens_in_interface(x, t, &x->nic[x->n - 1]);
	} else if (x->depth == DEPTH_DETAIL && x->in_devices && x->in_disk) {
		fine = opens_in_disk(x, t);
	}
	x->depth += !t->empty;
	return fine;
}

static bool read_next(struct xml *x)
{
	struct tag t;

	x->why = "is never closed; give the domain as `virsh dumpxml` prints it";
	if (starts(x, "<!--"))
		return skip_past(x, "-->");
	if (starts(x, "<![CDATA["))
		return skip_past(x, "]]>");
	if (starts(x, "<?"))
		return skip_past(x, "?>");
	x->why = "is not XML, or more than a domain's; give the domain as `virsh dumpxml` prints it";
	if (starts(x, "<!") || !read_tag(x, &t) || (x->depth == DEPTH_DOMAIN && (t.closes || !streq(t.name, "domain"))))
		return false;
	if (t.closes) {
		x->depth--;
		return true;
	}
	return opens(x, &t);
}

int import_domain(const char *source, const char *xml, size_t len, struct import_nic ret[IMPORT_MAX_NICS], char ret_beside[IMPORT_BESIDE_LEN], char *err,
		  size_t err_size)
{
	struct xml x = { .p = xml, .end = xml + len, .nic = ret };
	const char *at = xml;
	bool any = false;

	for (;;) {
		unsigned line = 1;

		x.p = memchr(x.p, '<', (size_t)(x.end - x.p));
		if (!x.p)
			break;
		at = x.p;
		if (!read_next(&x)) {
			for (const char *p = xml; p < at; p++)
				line += *p == '\n';
			return value_refuse(err, err_size, "%s:%u: %s", source, line, x.why);
		}
		any |= x.depth > 0;
	}
	if (!any || x.depth > 0)
		return value_refuse(err, err_size, "%s: %s", source, any ? "the domain is never closed; give it as `virsh dumpxml` prints it" : 
				    "holds no <domain>; give one as `virsh dumpxml` prints it");
	name_beside(&x, ret_beside);
	return x.n;
}
