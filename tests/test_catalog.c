/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What operators ask for, in the catalog's text: taken as it is, written as it was taken, refused where it says nonsense; and what the core gets. */
#include "agent/catalog.h"

#include <errno.h>

#include "tests/tap.h"

#define FILE_TEXT "[VM]\\nName=web\\nUUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f\\nMemory=1G\\nVCPUs=1\\n[QEMU]\\nBinary=/q\\n"
#define VM(desired, more) "{\"vms\":[{\"desired\":\"" desired "\",\"file\":\"" FILE_TEXT "\"" more "}]}"
#define MOVE(text) VM("started", ",\"move\":" text)
#define WITH(text) "{\"vms\":[]," text "}"

static struct catalog_doc *parse(const char *json, char *err, size_t err_size)
{
	struct catalog_doc *c = NULL;

	*err = '\0';
	return catalog_parse(json, strlen(json), &c, err, err_size) == 0 ? c : NULL;
}

static void test_refused(void)
{
	static const struct { const char *json, *says; } cases[] = {
		{ MOVE("7"), "not an object" },
		{ MOVE("null"), "not an object" },
		{ MOVE("{\"node\":\"2\",\"number\":1}"), "\"node\"" },
		{ MOVE("{\"node\":65,\"number\":1}"), "0 to 64" },
		{ MOVE("{\"node\":-1,\"number\":1}"), "\"node\"" },
		{ MOVE("{\"node\":1.5,\"number\":1}"), "\"node\"" },
		{ MOVE("{\"node\":null,\"number\":1}"), "\"node\"" },
		{ MOVE("{\"node\":2,\"number\":1,\"wait_ms\":86400001}"), "\"wait_ms\"" },
		{ MOVE("{\"node\":2,\"number\":1,\"wait_ms\":true}"), "\"wait_ms\"" },
		{ MOVE("{\"node\":2,\"number\":18446744073709551615}"), "\"number\"" },
		{ MOVE("{\"node\":2,\"number\":9007199254740993}"), "\"number\"" },
		{ MOVE("{\"node\":2,\"number\":-1}"), "\"number\"" },
		{ MOVE("{\"node\":2}"), "without its number" },
		{ MOVE("{\"node\":2,\"number\":1,\"back\":1}"), "\"back\"" },
		{ WITH("\"pause\":\"later\""), "\"pause\"" },
		{ WITH("\"pause\":true"), "\"pause\"" },
		{ WITH("\"pause\":null"), "\"pause\"" },
		{ WITH("\"quarantine\":\"3\""), "\"quarantine\"" },
		{ WITH("\"quarantine\":[1]"), "\"quarantine\"" },
		{ WITH("\"leaving\":{}"), "not a list" },
		{ WITH("\"leaving\":[3]"), "not an object" },
		{ WITH("\"leaving\":[{\"node\":3}]"), "without its number or epoch" },
		{ WITH("\"leaving\":[{\"epoch\":3}]"), "without its number or epoch" },
		{ WITH("\"leaving\":[{\"node\":65,\"epoch\":1}]"), "\"node\"" },
		{ WITH("\"leaving\":[{\"node\":3,\"epoch\":4294967296}]"), "\"epoch\"" },
		{ WITH("\"leaving\":[{\"node\":3,\"epoch\":1},{\"node\":3,\"epoch\":2}]"), "twice" },
	};
	char err[512];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct catalog_doc *c = parse(cases[i].json, err, sizeof(err));

		TAP_OK(!c && strstr(err, cases[i].says), "case %zu is refused: %s", i, err);
		catalog_free(c);
	}
}

/* Written, read and written again, it is the same text; so is its copy, with which every edit begins. */
static bool same_again(const struct catalog_doc *c)
{
	struct catalog_doc *again = NULL, *copy = catalog_copy(c);
	char err[512], *text, *then, *copied;
	size_t len = 0, n = 0;
	bool same;

	text = catalog_render(c, &len);
	same = text && copy && (again = parse(text, err, sizeof(err))) != NULL;
	then = same ? catalog_render(again, &n) : NULL;
	copied = copy ? catalog_render(copy, &n) : NULL;
	same = same && then && copied && strcmp(text, then) == 0 && strcmp(text, copied) == 0;
	if (!same)
		printf("# %s\n# %s\n# %s\n", text, then ? then : "", copied ? copied : "");
	free(text);
	free(then);
	free(copied);
	catalog_free(again);
	catalog_free(copy);
	return same;
}

static void test_taken(void)
{
	static const struct conf conf = { .nodes = { { 1, "n1" }, { 2, "n2" } }, .n_nodes = 2 };
	struct catalog_doc *c;
	struct vm_def def;
	char err[512], *text;
	size_t len;

	c = parse(MOVE("{\"node\":64,\"wait_ms\":86400000,\"number\":9007199254740992,\"back\":true}"), err, sizeof(err));
	TAP_OK(c && c->entry[0].move.node == 64 && c->entry[0].move.wait_ms == 86400000 && c->entry[0].move.number == CATALOG_MOVE_NUMBER_MAX &&
	       c->entry[0].move.back, "a move, all of it as large as it may be %s", err);
	TAP_OK(c && same_again(c), "is written as it was read");
	catalog_free(c);

	c = parse(MOVE("{\"node\":0,\"number\":7}"), err, sizeof(err));
	TAP_OK(c && c->entry[0].move.node == 0 && c->entry[0].move.number == 7 && !c->entry[0].move.back && same_again(c),
	       "of a request that is over its number stays %s", err);
	catalog_free(c);

	c = parse(MOVE("{\"node\":2,\"number\":8,\"live\":true}"), err, sizeof(err));
	TAP_OK(c && c->entry[0].move.live && same_again(c), "one that is to be a migration %s", err);
	catalog_free(c);
	c = parse(MOVE("{\"node\":2,\"number\":8,\"live\":1}"), err, sizeof(err));
	TAP_OK(!c && strstr(err, "\"live\""), "or is that not: %s", err);
	catalog_free(c);

	c = parse(VM("ignored", ""), err, sizeof(err));
	TAP_OK(c && c->entry[0].desired == DESIRED_IGNORED && !c->entry[0].frozen && same_again(c), "an ignored VM %s", err);
	text = c ? catalog_render(c, &len) : NULL;
	TAP_OK(text && !strstr(text, "move") && !strstr(text, "pause") && !strstr(text, "leaving") && !strstr(text, "quarantine"), "what nobody asked for takes no room");
	free(text);
	catalog_free(c);

	c = parse(VM("started", ",\"frozen\":true"), err, sizeof(err));
	TAP_OK(c && c->entry[0].frozen && same_again(c), "a frozen VM %s", err);
	catalog_free(c);
	c = parse(VM("started", ",\"frozen\":1"), err, sizeof(err));
	TAP_OK(!c && strstr(err, "\"frozen\""), "or not: %s", err);
	catalog_free(c);

	c = parse("{\"vms\":[],\"pause\":\"freeze\",\"leaving\":[{\"node\":64,\"epoch\":4294967295},{\"node\":1,\"epoch\":1}],\"later\":{}}", err,
		  sizeof(err));
	TAP_OK(c && c->pause == PAUSE_FREEZE && c->leaving[63] == UINT32_MAX && c->leaving[0] == 1 && c->leaving[1] == 0 && same_again(c),
	       "all frozen, two nodes leaving, and a key of a later version %s", err);
	catalog_free(c);
	c = parse("{\"vms\":[],\"pause\":\"ignore\"}", err, sizeof(err));
	TAP_OK(c && c->pause == PAUSE_IGNORE && same_again(c), "all ignored");
	catalog_free(c);
	c = parse("{\"vms\":[],\"quarantine\":9223372036854775812}", err, sizeof(err));
	TAP_OK(c && c->quarantine == (1ULL << 63 | 4) && same_again(c), "nodes 3 and 64 in quarantine %s", err);
	catalog_free(c);
	c = parse("{\"vms\":[],\"pause\":\"none\"}", err, sizeof(err));
	TAP_OK(c && c->pause == PAUSE_NONE, "none");
	catalog_free(c);

	c = parse("{\"vms\":[{\"desired\":\"started\",\"file\":\"" FILE_TEXT "[HA]\\nRelocateLimit=2\\n\","
		  "\"move\":{\"node\":2,\"wait_ms\":5,\"number\":3}}]}", err, sizeof(err));
	if (TAP_OK(c, "a VM with all of it %s", err)) {
		catalog_def(&c->entry[0], &conf, &def);
		TAP_OK(def.failed_limit == 3, "moved on twice, it has failed on three nodes when it is given up");
		TAP_OK(def.move.node == 2 && def.move.wait_ms == 5 && def.move.number == 3 && !def.move.back, "the core gets the request");
	}
	catalog_free(c);
	c = parse(VM("started", ""), err, sizeof(err));
	if (TAP_OK(c, "a VM with none of it %s", err)) {
		catalog_def(&c->entry[0], &conf, &def);
		TAP_OK(def.failed_limit == 0 && def.move.node == 0 && def.move.number == 0, "never given up, no request");
	}
	catalog_free(c);
}

#define OTHER "{\"desired\":\"started\",\"file\":\"[VM]\\nName=db\\nUUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e60\\nMemory=1G\\nVCPUs=1\\n[QEMU]\\nBinary=/q\\n[HA]\\nAfter=web\\n\"}"
#define UUID_LINE "UUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f\n"
#define NEW(name, uuid, memory, more) "[VM]\nName=" name "\n" uuid "Memory=" memory "\nVCPUs=1\n" more "[QEMU]\nBinary=/q\n"

static void test_updated(void)
{
	static const struct { const char *text, *says; } refused[] = {
		{ NEW("nobody", "", "1G", ""), "no VM named nobody" },
		{ NEW("web", "UUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e60\n", "1G", ""), "UUID=: VM web has 6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f" },
		{ NEW("web", "", "2G", ""), "Memory= differs" },
		{ NEW("web", "", "1G", "Disk=nfs://s/v/web.img\n") "Arguments=-drive file=nfs://s/v/web.img,format=raw\n", "Disk= differs" },
		{ NEW("web", "", "1024M", "") "Arguments=-snapshot\n", "Arguments= differs" },
		{ NEW("web", "", "1G", "") "[Health]\nGuestAgent=yes\n", "GuestAgent= differs" },
		{ NEW("web", "", "1G", "") "[HA]\nAfter=db\n", "web would wait for itself" },
		{ NEW("web", "", "1G", "") "[HA]\nPriority=high\n", "VM file:8: Priority=high" },
	};
	static const struct conf conf = { .nodes = { { 1, "n1" }, { 2, "n2" } }, .n_nodes = 2 };
	static const char cluster[] = "{\"vms\":[{\"desired\":\"ignored\",\"frozen\":true,\"file\":\"" FILE_TEXT "\",\"move\":{\"node\":2,\"number\":7}}," OTHER "]}";
	struct catalog_entry *e = NULL;
	struct catalog_doc *c;
	struct vm_def def;
	char err[512];

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		int r;

		c = parse(cluster, err, sizeof(err));
		r = c ? catalog_update(c, refused[i].text, strlen(refused[i].text), &e, err, sizeof(err)) : 0;
		TAP_OK(r == -EINVAL && strstr(err, refused[i].says), "update %zu is refused: %s", i, err);
		catalog_free(c);
	}
	for (int with_uuid = 0; with_uuid < 2; with_uuid++) {
		const char *text = with_uuid ? NEW("web", UUID_LINE, "1024M", "") "[HA]\nState=started\nPriority=7\nPreferredNodes=n2\n[Health]\nOnHang=alert\n"
					     : NEW("web", "", "1G", "") "[HA]\nPriority=7\nPreferredNodes=n2\n[Health]\nOnHang=alert\n";
		int r;

		c = parse(cluster, err, sizeof(err));
		r = c ? catalog_update(c, text, strlen(text), &e, err, sizeof(err)) : -1;
		if (TAP_OK(r == 0 && c->n == 2 && e == &c->entry[0], "another definition is taken, %s", with_uuid ? "with its UUID" : "without")) {
			catalog_def(e, &conf, &def);
			TAP_OK(def.priority == 7 && def.n_preferred == 1 && def.preferred[0] == 2 && def.health.hang == REACT_ALERT, "and obeyed");
			TAP_OK(def.desired == DESIRED_IGNORED && def.frozen && def.move.node == 2 && def.move.number == 7 &&
			       strstr(e->text, "UUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f\n"), "what was asked for of the VM stays, and who it is");
			TAP_OK(same_again(c), "it is written as it was taken");
		}
		catalog_free(c);
	}
}

#define WRITES(disk) "Arguments=-drive file=" disk ",format=raw,cache=none\n"
#define HAS(name, disk) "[VM]\nName=" name "\nMemory=1G\nVCPUs=1\nDisk=" disk "\n[QEMU]\nBinary=/q\n" WRITES(disk)

/* No two definitions share a writable disk: neither one that is added, nor two that a catalog has. */
static void test_shared(void)
{
	static const struct { const char *text; bool shares; } added[] = {
		{ HAS("b", "nfs://s/v/a.img"), true },
		{ HAS("b", "nfs://s/v//a.img"), true },
		{ HAS("b", "nfs://s/v/b.img"), false },
		{ HAS("b", "nfs://t/v/a.img"), false },
	};
	static const char two[] = "{\"vms\":[{\"desired\":\"started\",\"file\":\"[VM]\\nName=a\\nUUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f\\nMemory=1G\\nVCPUs=1\\nDisk=/d/%s\\n[QEMU]\\nBinary=/q\\n"
				  "Arguments=-drive file=/d/%s\\n\"},{\"desired\":\"started\",\"file\":\"[VM]\\nName=b\\nUUID=6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e60\\nMemory=1G\\nVCPUs=1\\n"
				  "Disk=/d/x\\n[QEMU]\\nBinary=/q\\nArguments=-drive file=/d/x\\n\"}]}";
	char err[512], text[2048];

	for (size_t i = 0; i < ARRAY_SIZE(added); i++) {
		struct catalog_doc *c = parse("{\"vms\":[]}", err, sizeof(err));
		int r = c ? catalog_add(c, HAS("a", "nfs://s/v/a.img"), strlen(HAS("a", "nfs://s/v/a.img")), err, sizeof(err)) : -1;

		if (TAP_OK(r == 0, "a VM with a disk: %s", err)) {
			r = catalog_add(c, added[i].text, strlen(added[i].text), err, sizeof(err));
			TAP_OK(added[i].shares ? r == -EINVAL && c->n == 1 : r == 0 && c->n == 2, "another one, case %zu: %s", i, r < 0 ? err : "taken");
		}
		catalog_free(c);
	}
	for (unsigned shares = 0; shares < 2; shares++) {
		struct catalog_doc *c;

		(void)snprintf(text, sizeof(text), two, shares ? "x" : "y", shares ? "x" : "y");
		c = parse(text, err, sizeof(err));
		TAP_OK(shares ? !c && strstr(err, "no two VMs may share one") : c && c->n == 2, "a catalog with two VMs %s: %s", shares ? "on one disk" : "each on its own", c ? "taken" : err);
		catalog_free(c);
	}
}

int main(void)
{
	test_refused();
	test_taken();
	test_updated();
	test_shared();
	return tap_done();
}
