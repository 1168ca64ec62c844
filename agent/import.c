/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/import_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/vmfile.h"

#define MEMORY_DEFAULT (128ULL << 20) /* QEMU's own */
#define ARGUMENTS_LEN 12000 /* bytes of one Arguments=, below the limit of a value; then another one begins */

/* Options of which something must be known. Others are kept; they have a value if the word behind them does not begin with '-'. */
enum kind {
	FLAG = 1,       /* has no value */
	VALUE = 2,      /* has one, also if it begins with '-' */
	PROPS = 4,      /* KEY=VALUE,... or JSON */
	LEAVE_OUT = 8,
	REFUSE = 16,
};

struct rule {
	const char *name;
	unsigned kind;
	const char *text; /* PROPS: the key of a first word without one, or NULL; LEAVE_OUT, REFUSE: why */
};

const char import_needs_display[] = "needs somebody in front of this host; -display none, and -vnc if you need a screen";
static const char no_run[] = "prints and does not run a VM; remove it";
const char import_teardown_stays[] = "leaves a process behind when QEMU is gone, which delays the proof that the VM is";

static const struct rule rules[] = {
	{ "-S", FLAG | LEAVE_OUT, "the agent decides when the guest runs" },
	{ "-daemonize", FLAG | LEAVE_OUT, "systemd keeps the process" },
	{ "-pidfile", VALUE | LEAVE_OUT, "systemd keeps the process" },
	{ "-incoming", VALUE | LEAVE_OUT, "how that one process began; the agent sets up migrations" },
	{ "-no-shutdown", FLAG | LEAVE_OUT, "a guest that shuts down must end QEMU: the agent tells by it that it did" },
	{ "-no-reboot", FLAG | LEAVE_OUT, "a guest that reboots must go on running: the agent would take it for one that shut down" },
	{ "-sandbox", VALUE | LEAVE_OUT, "spawn=deny stops the helper that puts a tap on a bridge; add it again for a VM that has none" },
	{ "-async-teardown", FLAG | LEAVE_OUT, import_teardown_stays },
	{ "-add-fd", VALUE | LEAVE_OUT, "a handle of whoever started QEMU" },
	{ "-sdl", FLAG | LEAVE_OUT, import_needs_display }, { "-curses", FLAG | LEAVE_OUT, import_needs_display },
	{ "-full-screen", FLAG | LEAVE_OUT, import_needs_display }, { "-alt-grab", FLAG | LEAVE_OUT, import_needs_display },
	{ "-ctrl-grab", FLAG | LEAVE_OUT, import_needs_display },
	{ "-readconfig", VALUE | REFUSE, "a file of options that is not looked into; write its options here instead" },
	{ "-writeconfig", VALUE | REFUSE, no_run },
	{ "-set", VALUE | REFUSE, "changes another option behind its back; write the change into that option" },
	{ "-loadvm", VALUE | REFUSE, "each start would go back to that snapshot; remove it" },
	{ "-snapshot", FLAG | REFUSE, "all that the guest writes would be lost at each restart; remove it, or give snapshot=on to the drives meant" },
	{ "-preconfig", FLAG | REFUSE, "QEMU would wait for a command before it starts; remove it" },
	{ "-h", FLAG | REFUSE, no_run }, { "-help", FLAG | REFUSE, no_run }, { "-version", FLAG | REFUSE, no_run },
	{ "-blockdev", PROPS, "driver" }, { "-drive", PROPS, NULL }, { "-device", PROPS, "driver" }, { "-netdev", PROPS, "type" },
	{ "-net", PROPS, "type" }, { "-nic", PROPS, "type" }, { "-chardev", PROPS, "backend" }, { "-mon", PROPS, "chardev" },
	{ "-object", PROPS, "qom-type" }, { "-machine", PROPS, "type" }, { "-m", PROPS, "size" }, { "-smp", PROPS, "cpus" },
	{ "-name", PROPS, "guest" }, { "-display", PROPS, "type" }, { "-vnc", PROPS, "vnc" }, { "-spice", PROPS, NULL },
	{ "-iscsi", PROPS, NULL }, { "-fsdev", PROPS, "fsdriver" }, { "-virtfs", PROPS, "fsdriver" }, { "-tpmdev", PROPS, "type" },
	{ "-action", PROPS, NULL }, { "-run-with", PROPS, NULL }, { "-fw_cfg", PROPS, "name" }, { "-acpitable", PROPS, NULL }, { "-smbios", PROPS, NULL },
	{ "-append", VALUE, NULL }, { "-serial", VALUE, NULL }, { "-qmp", VALUE, NULL }, { "-qmp-pretty", VALUE, NULL }, { "-monitor", VALUE, NULL },
	{ "-enable-kvm", FLAG, NULL }, { "-nodefaults", FLAG, NULL }, { "-no-user-config", FLAG, NULL }, { "-nographic", FLAG, NULL },
	{ "-usb", FLAG, NULL }, { "-s", FLAG, NULL }, { "-no-acpi", FLAG, NULL }, { "-no-hpet", FLAG, NULL }, { "-no-fd-bootchk", FLAG, NULL },
	{ "-mem-prealloc", FLAG, NULL }, { "-only-migratable", FLAG, NULL }, { "-portrait", FLAG, NULL }, { "-win2k-hack", FLAG, NULL },
	{ "-singlestep", FLAG, NULL }, { "-one-insn-per-tb", FLAG, NULL }, { "-enable-sync-profile", FLAG, NULL }, { "-xen-attach", FLAG, NULL },
	{ "-xen-domid-restrict", FLAG, NULL }, { "-semihosting", FLAG, NULL }, { "-old-param", FLAG, NULL }, { "-perfmap", FLAG, NULL },
	{ "-jitdump", FLAG, NULL }, { "-nodefconfig", FLAG, NULL },
};

static const struct rule *rule_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (streq(rules[i].name, name))
			return &rules[i];
	return NULL;
}

/* What becomes of an option */

void import_refuse(struct import *im, struct import_option *o, const char *fmt, ...)
{
	const struct import_word *at = o ? o->at : NULL;
	va_list ap;

	(void)fprintf(im->refusals, "%s%s", ftell(im->refusals) > 0 ? "\n" : "", im->in->source);
	if (at && at->line)
		(void)fprintf(im->refusals, ":%u:%u", at->line, at->column);
	else if (at)
		(void)fprintf(im->refusals, ": word %u", at->column);
	(void)fprintf(im->refusals, ": %s%s", o ? o->name : "", o && *o->name ? ": " : "");
	va_start(ap, fmt);
	(void)vfprintf(im->refusals, fmt, ap);
	va_end(ap);
	if (o)
		o->refused = true;
}

/* One line, ASCII: it goes into the VM file as a comment, where other bytes are refused. */
void import_warn(struct import *im, bool unsafe, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0) {
		text = NULL;
		im->no_memory = true;
	}
	va_end(ap);
	for (const unsigned char *p = (const unsigned char *)text; p && *p; p++)
		(void)fprintf(im->warnings, *p < 0x20 || *p >= 0x7f ? "\\x%02x" : "%c", *p);
	(void)fputc('\n', im->warnings);
	im->unsafe += unsafe;
}

static void comment(struct import *im, const struct import_option *o, const char *value, const char *what, const char *why)
{
	_cleanup_free_ char *quoted = value ? import_quote(value) : NULL;

	if (value && !quoted)
		im->no_memory = true;
	else
		(void)fprintf(im->comments, "#   %s%s%s: %s%s\n", o->name, value ? " " : "", value ? quoted : "", what, why);
}

void import_leave_out(struct import *im, struct import_option *o, const char *why)
{
	o->fate = IMPORT_LEFT_OUT;
	if (why)
		comment(im, o, o->value, "", why);
}

void import_change(struct import *im, struct import_option *o, const char *name, const char *value, const char *why)
{
	char *text = value ? strdup(value) : import_props_text(o->props, o->json, o->implied);

	if (!text) {
		im->no_memory = true;
		return;
	}
	if (!value && o->repeats) { /* which QEMU may take for a list */
		import_refuse(im, o, "a key stands here more than once, and this option has to be changed (%s); write the key once, or the option as JSON", why);
		free(text);
		return;
	}
	comment(im, o, o->value, "changed: ", why);
	free(o->value);
	o->value = text;
	o->fate = IMPORT_CHANGED;
	if (streq(name, o->name))
		return;
	o->name = name;
	o->json = false;
	o->implied = NULL;
	json_object_put(o->props);
	o->props = import_props(text, NULL, NULL, &why);
	im->no_memory |= !o->props;
}

const struct import_option *import_user_of(const struct import *im, const char *id, const struct import_option *except)
{
	for (size_t i = 0; i < im->n_options; i++) {
		const struct import_option *o = &im->option[i];

		if (o != except && o->fate != IMPORT_LEFT_OUT && o->value && import_mentions(o->value, id))
			return o;
	}
	return NULL;
}

/* Reading the command line */

struct import_option *import_add_option(struct import *im, const char *name, const char *value, const struct import_word *at)
{
	struct import_option *o = &im->option[im->n_options];

	if (im->n_options == ARRAY_SIZE(im->option)) {
		import_refuse(im, NULL, "more than %zu options; use fewer", ARRAY_SIZE(im->option));
		return NULL;
	}
	*o = (struct import_option){ .name = name, .value = value ? strdup(value) : NULL, .at = at };
	if (value && !o->value)
		im->no_memory = true;
	im->n_options++;
	return o;
}

static void read_props(struct import *im, struct import_option *o, const struct rule *rule)
{
	const char *why = "";
	json_object *flat = import_props(o->value, rule->text, &o->repeats, &why);

	o->json = *o->value == '{';
	o->implied = rule->text;
	o->props = flat;
	if (!flat) {
		import_refuse(im, o, "%s", why);
		o->fate = IMPORT_LEFT_OUT;
	} else if (!o->json && (streq(o->name, "-drive") || streq(o->name, "-blockdev"))) {
		o->props = import_nest(flat);
		json_object_put(flat);
	}
}

static void read_option(struct import *im, size_t *i)
{
	const struct import_words *w = &im->words;
	const struct import_word *at = &w->word[*i], *next = *i + 1 < w->n ? at + 1 : NULL;
	const char *name = at->text[0] == '-' && at->text[1] == '-' ? at->text + 1 : at->text;
	const struct rule *rule;
	struct import_option *o;
	bool takes;

	(*i)++;
	if (name[0] != '-' || !name[1]) {
		(void)import_add_option(im, "", at->text, at);
		return;
	}
	name = streq(name, "-M") ? "-machine" : name;
	rule = rule_of(name);
	takes = rule ? !(rule->kind & FLAG) : next && !(next->text[0] == '-' && next->text[1]);
	o = import_add_option(im, name, takes && next ? next->text : NULL, at);
	if (!o)
		return;
	if (takes && !next) {
		import_refuse(im, o, "its value is missing; add it");
		o->fate = IMPORT_LEFT_OUT; /* nobody looks at it */
		return;
	}
	*i += takes;
	if (rule && rule->kind & LEAVE_OUT)
		import_leave_out(im, o, rule->text);
	else if (rule && rule->kind & REFUSE)
		import_refuse(im, o, "%s", rule->text);
	else if (rule && rule->kind & PROPS)
		read_props(im, o, rule);
}

/* Words before QEMU: assignments, and commands that run another one. Returns the index of QEMU's binary. */
static size_t skip_prefix(struct import *im)
{
	static const char *const runners[] = { "exec", "sudo", "env", "nohup" };
	const struct import_words *w = &im->words;
	bool any = false;
	size_t i;

	for (i = 0; i < w->n; i++) {
		bool runner = false;

		for (size_t k = 0; k < ARRAY_SIZE(runners) && !runner; k++)
			runner = streq(w->word[i].text, runners[k]);
		if (w->word[i].assigns) {
			/* names only: a value may be a password */
			(void)fprintf(im->comments, "%s %.*s", any ? "" : "#   environment:", (int)strcspn(w->word[i].text, "="), w->word[i].text);
			any = true;
		} else if (!runner) {
			break;
		}
	}
	if (any)
		(void)fprintf(im->comments, ": the unit of a VM has systemd's environment\n");
	return i;
}

static void read_binary(struct import *im, size_t at)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,+@%-";
	const char *path = at < im->words.n ? im->words.word[at].text : "", *base = strrchr(path, '/');
	struct import_option o = { .name = "", .at = at < im->words.n ? &im->words.word[at] : NULL };
	char err[200] = "";

	base = base ? base + 1 : path;
	if (!*path)
		import_refuse(im, NULL, "there is no command in it; give QEMU's command line");
	else if (strncmp(base, "qemu", 4) != 0 && strncmp(base, "kvm", 3) != 0)
		import_refuse(im, &o, "%.64s is no QEMU; begin with QEMU's binary, such as /usr/bin/qemu-system-x86_64", path);
	else if (strspn(path, plain) != strlen(path)) /* Binary= knows no quotes */
		import_refuse(im, &o, "odd characters in the path of the binary; make a link to it with a plain name");
	else if (base == path && im->in->find_binary(im->in->user, path, im->binary, sizeof(im->binary)))
		import_warn(im, false, "%s was found as %s; it must be there on every node", path, im->binary);
	else if (base == path)
		import_refuse(im, &o, "%.64s is not in PATH here; write its absolute path, the same on every node", path);
	else if (value_path_check(path, err, sizeof(err)) < 0)
		import_refuse(im, &o, "%s", err);
	else
		(void)str_copy(im->binary, sizeof(im->binary), path);
}

/* Writing the file */

static size_t put_argument(FILE *f, const struct import_option *o, bool *no_memory)
{
	_cleanup_free_ char *name = import_quote(o->name), *value = o->value ? import_quote(o->value) : NULL;

	if (!name || (o->value && !value)) {
		*no_memory = true;
		return 0;
	}
	(void)fprintf(f, "\t%s%s%s\n", *o->name ? name : "", *o->name && value ? " " : "", value ? value : "");
	return strlen(name) + (value ? strlen(value) : 0) + 3;
}

static void put_arguments(struct import *im, FILE *f)
{
	size_t used = SIZE_MAX;

	for (size_t i = 0; i < im->n_options; i++) {
		if (im->option[i].fate == IMPORT_LEFT_OUT)
			continue;
		if (used > ARGUMENTS_LEN) {
			(void)fprintf(f, "Arguments=\n");
			used = 0;
		}
		used += put_argument(f, &im->option[i], &im->no_memory);
	}
}

static void put_comments(FILE *f, const char *title, const char *prefix, const char *lines)
{
	if (!*lines)
		return;
	(void)fprintf(f, "\n# %s\n", title);
	for (const char *p = lines; *p; p += strcspn(p, "\n"), p += *p == '\n')
		(void)fprintf(f, "%s%.*s\n", prefix, (int)strcspn(p, "\n"), p);
}

/* It may run where it was made of: added with State=started it would be started beside that one. */
static const char state[] = "\n[HA]\n"
	"# Stop it where it runs, or adopt it (ha-ctl adopt), and see that nothing starts it there any more: no script, and of libvirt\n"
	"# virsh autostart --disable, undefine. One that was stopped is then started by: ha-ctl vm start ";

static char *write_file(struct import *im, const char *comments, const char *warnings)
{
	_cleanup_free_ char *source = import_quote(im->in->source);
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f || !source) {
		im->no_memory = true;
		if (f)
			(void)fclose(f);
		return text;
	}
	(void)fprintf(f, "# Made by `ha-ctl vm import` from %s.\n\n[VM]\nName=%s\nUUID=%s\nMemory=%" PRIu64 "M\nVCPUs=%" PRIu32 "\n", source, im->name,
		      im->uuid, im->memory_bytes / IMPORT_MIB, im->vcpus);
	for (size_t i = 0; i < im->n_images; i++) {
		_cleanup_free_ char *place = import_quote(im->image[i].place);

		im->no_memory |= !place;
		if (im->image[i].writable)
			(void)fprintf(f, "Disk=%s\n", place ? place : "");
	}
	(void)fprintf(f, "%s%s\nState=stopped\n\n[QEMU]\nBinary=%s\n", state, im->name, im->binary);
	put_arguments(im, f);
	put_comments(f, "Left out or changed:", "", comments);
	put_comments(f, "To be looked at:", "#   ", warnings);
	im->no_memory |= fclose(f) != 0;
	return text;
}

/* The product reads what was written, and reads what was meant. */
static int check_result(struct import *im, const char *text, char *err, size_t err_size)
{
	char reason[1024] = "";
	struct vmfile vm;
	size_t at = 0;
	bool same;
	int r = vmfile_parse("the VM file made of it", text, strlen(text), &vm, reason, sizeof(reason));

	if (r < 0)
		return r == -EINVAL ? value_refuse(err, err_size, "%s: %s", im->in->source, reason) : r;
	r = vmfile_check_writes("the VM file made of it", &vm, reason, sizeof(reason));
	if (r < 0) {
		vmfile_deinit(&vm);
		return value_refuse(err, err_size, "%s: %s", im->in->source, reason);
	}
	same = !vm.start && streq(vm.binary, im->binary) && streq(vm.name, im->name) && vm.memory_mib == im->memory_bytes / IMPORT_MIB && vm.vcpus == im->vcpus;
	for (size_t i = 0; i < im->n_options && same; i++) {
		const struct import_option *o = &im->option[i];

		if (o->fate != IMPORT_LEFT_OUT && *o->name)
			same = at < vm.n_args && streq(vm.args[at++], o->name);
		if (o->fate != IMPORT_LEFT_OUT && o->value && same)
			same = at < vm.n_args && streq(vm.args[at++], o->value);
	}
	same = same && at == vm.n_args;
	vmfile_deinit(&vm);
	return same ? 0 : value_refuse(err, err_size, "%s: something in it cannot be written into a VM file; look for odd characters", im->in->source);
}

static int convert(struct import *im, struct import_result *ret, const char *const *said, char *err, size_t err_size)
{
	int r;

	if (im->no_memory)
		return -ENOMEM;
	if (*said[2])
		return value_refuse(err, err_size, "%s", said[2]);
	ret->text = write_file(im, said[0], said[1]);
	ret->warnings = strdup(said[1]);
	ret->unsafe = im->unsafe;
	r = im->no_memory || !ret->text || !ret->warnings ? -ENOMEM : check_result(im, ret->text, err, err_size);
	if (r < 0)
		import_result_deinit(ret);
	return r;
}

static void read_all(struct import *im)
{
	size_t i = skip_prefix(im);

	read_binary(im, i++);
	if (!*im->binary)
		return; /* what follows are another program's words */
	while (i < im->words.n)
		read_option(im, &i);
	import_keys(im);
	for (i = 0; i < im->n_options && !streq(im->option[i].name, "-name"); i++)
		;
	if (!*im->name && !im->in->name && i == im->n_options)
		import_refuse(im, NULL, "there is no name in it (-name); give one with --name");
	if (im->in->name)
		(void)str_copy(im->name, sizeof(im->name), im->in->name);
	if (!*im->uuid)
		uuid_format(im->in->uuid, im->uuid);
	import_disks(im);
	import_nets(im);
	import_display(im);
}

static void import_deinit(struct import *im)
{
	for (size_t i = 0; i < im->n_options; i++) {
		free(im->option[i].value);
		json_object_put(im->option[i].props);
	}
	import_words_deinit(&im->words);
	free(im);
}

int import_convert(const struct import_input *in, struct import_result *ret, char *err, size_t err_size)
{
	struct import *im = calloc(1, sizeof(*im));
	char *said[3] = { NULL, NULL, NULL }; /* comments, warnings, refusals */
	struct import_result result = { 0 };
	FILE **to[3];
	size_t size;
	int r;

	if (!im)
		return -ENOMEM;
	im->in = in;
	im->memory_bytes = MEMORY_DEFAULT;
	im->vcpus = 1;
	to[0] = &im->comments;
	to[1] = &im->warnings;
	to[2] = &im->refusals;
	for (size_t i = 0; i < 3; i++) {
		*to[i] = open_memstream(&said[i], &size);
		im->no_memory |= !*to[i];
	}
	r = im->no_memory ? -ENOMEM : import_split(in->source, in->text, in->len, &im->words, err, err_size);
	if (r == 0)
		read_all(im);
	for (size_t i = 0; i < 3; i++)
		if (*to[i] && fclose(*to[i]) != 0)
			r = -ENOMEM;
	if (r == 0)
		r = convert(im, &result, (const char *const *)said, err, err_size);
	if (r == 0)
		*ret = result;
	for (size_t i = 0; i < 3; i++)
		free(said[i]);
	import_deinit(im);
	return r;
}

void import_result_deinit(struct import_result *r)
{
	free(r->text);
	free(r->warnings);
	*r = (struct import_result){ 0 };
}
