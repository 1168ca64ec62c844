/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "agent/base/uuid.h"
#include "agent/vmfile.h"
#include "tests/data_files.h"
#include "tests/tap.h"

#define HEAD "[VM]\nName=web\nMemory=2G\nVCPUs=2\n"
#define ID "6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f"

static void bad_case(const char *name)
{
	char rel[256], source[128], err[1024] = "";
	_cleanup_free_ char *text = NULL, *want = NULL;
	size_t len, want_len;
	struct vmfile v, before;

	(void)snprintf(rel, sizeof(rel), "tests/data/bad-vm/%s.vm", name);
	text = data_read(rel, &len);
	(void)snprintf(rel, sizeof(rel), "tests/data/bad-vm/%s.err", name);
	want = data_read(rel, &want_len);
	want[strcspn(want, "\n")] = '\0';
	(void)snprintf(source, sizeof(source), "%s.vm", name);
	memset(&v, 0x5a, sizeof(v));
	memcpy(&before, &v, sizeof(v));
	if (strncmp(name, "writes-", 7) == 0) { /* a good file of a VM that cannot be protected */
		TAP_OK(vmfile_parse(source, text, len, &v, err, sizeof(err)) == 0 && vmfile_check_writes(source, &v, err, sizeof(err)) == -EINVAL, "%s is refused", name);
		vmfile_deinit(&v);
	} else {
		TAP_OK(vmfile_parse(source, text, len, &v, err, sizeof(err)) == -EINVAL && memcmp(&v, &before, sizeof(v)) == 0,
		       "%s is refused, output untouched", name);
	}
	TAP_STR(err, want, name);
}

static int parse(const char *text, struct vmfile *v)
{
	char err[1024];
	int r = vmfile_parse("t", text, strlen(text), v, err, sizeof(err));

	if (r < 0)
		printf("# %s\n", err);
	return r;
}

static void check_good(void)
{
	_cleanup_free_ char *text = NULL, *minimal = NULL;
	struct vmfile v;
	size_t len;

	minimal = data_read("tests/data/good-vm/minimal.vm", &len);
	TAP_OK(parse(minimal, &v) == 0 && streq(v.name, "web") && v.memory_mib == 2048 && v.vcpus == 2, "minimal file");
	TAP_OK(!v.has_uuid && v.start && v.priority == 100 && v.restart_limit == 3 && v.relocate_limit == 0, "defaults");
	TAP_OK(v.restart_window_ms == 600000 && v.stop_timeout_ms == 60000 && !v.n_args && !v.args[0] && !v.n_disks && !v.n_preferred,
	       "more defaults");
	vmfile_deinit(&v);

	text = data_read("contrib/examples/vm.ini", &len);
	TAP_OK(parse(text, &v) == 0 && streq(v.binary, "/usr/bin/qemu-system-x86_64"), "the example");
	TAP_OK(v.n_args == 17 && !v.args[17] && streq(v.args[0], "-machine") && streq(v.args[16], "none"), "arguments in order, NULL at the end");
	TAP_OK(strstr(v.args[8], "{\"driver\":\"file\"") == v.args[8], "quotes are taken off JSON");
	TAP_OK(v.n_disks == 2 && streq(v.disks[1], "/srv/images/web1-data.raw"), "disks");
	TAP_OK(v.priority == 200 && v.stop_timeout_ms == 90000 && v.n_preferred == 2 && streq(v.preferred[1], "n2"), "[HA]");
	vmfile_deinit(&v);
	TAP_OK(parse(HEAD "[QEMU]\nBinary=/q\n[HA]\nRestartLimit=0\nRelocateLimit=63\n", &v) == 0 && v.restart_limit == 0 && v.relocate_limit == 63,
	       "both limits");
	vmfile_deinit(&v);

	TAP_OK(parse(HEAD "UUID=" ID "\nDisk=/a /b\nDisk=/c\n[QEMU]\nBinary=/old\nBinary=/q\nArguments=-a\nArguments=\nArguments=-drive\n"
		     "Arguments=file=/a -drive file=/b,x=y json:{'f':'/c'}\n[HA]\nState=stopped\n", &v) == -EINVAL, "a quote inside a word");
	TAP_OK(parse(HEAD "UUID=" ID "\nDisk=/a /b\nDisk=/c\n[QEMU]\nBinary=/old\nBinary=/q\nArguments=-a\nArguments=\nArguments=-drive\n"
		     "Arguments=file=/a -drive file=/b,x=y \"json:{'f':'/c'}\"\n[HA]\nState=stopped\n", &v) == 0, "all kinds of lists");
	TAP_OK(v.has_uuid && !v.start && v.n_disks == 3 && streq(v.binary, "/q"), "later one wins, lists add up");
	TAP_OK(v.n_args == 5 && streq(v.args[0], "-drive"), "an empty value empties a list");
	vmfile_deinit(&v);
	TAP_OK(!v.binary && !v.n_args && !v.n_disks, "deinit may be called twice");
	vmfile_deinit(&v);
	TAP_OK(parse(HEAD "[QEMU]\nBinary=/q\nArguments=-qmp unix:/x,server=on -mon m -serial null -msg timestamp=on\n", &v) == 0,
	       "-qmp, -mon, -serial and what only begins like -m are the operator's");
	vmfile_deinit(&v);
}

static void check_writes(void)
{
	static const char *const good[] = {
		"-drive file=/d/a,if=virtio,cache=none -drive file=/d/b,cache=unsafe,if=virtio", /* of its host, and no Disk= */
		"-drive file=/d/a,if=virtio -drive file=nbd:unix:/run/x.sock,media=cdrom",
		"-blockdev driver=file,filename=/d/a,node-name=p,cache.direct=on -blockdev driver=raw,file=p,node-name=f -device virtio-blk,drive=f",
		"-drive file=/d/a,if=virtio -drive driver=nbd,host=h,port=10809,id=n -device vhost-user-fs-pci,chardev=c",
		"-drive file=/d/a,if=virtio -blockdev '{\"driver\":\"nbd\",\"server\":{\"type\":\"inet\",\"host\":\"h\",\"port\":\"1\"}}'",
		"-drive file=/d/a,if=virtio,aio=io_uring -drive file=/dev/sr0,media=cdrom,aio=io_uring", /* NFS is asked */
		"-drive file=/d/a,if=virtio -device vhost-vsock-pci,guest-cid=3 -netdev tap,vhost=on,id=n",
		"-drive file=/d/a,if=virtio,cache.no-flush=off,read-only=off",
		"-drive file=/d/a,file.cache.no-flush=yes,if=virtio,readonly=true",
		"-blockdev '{\"driver\":\"file\",\"filename\":\"/d/a\",\"cache\":{\"no-flush\":true},\"read-only\":true}'",
	};
	static const char *const bad[] = {
		"-drive file=/d/a,if=virtio,cache.no-flush=yes", "-drive file=/d/a,if=virtio,cache.no-flush=y", "-drive file=/d/a,if=virtio,cache.no-flush=true",
		"-drive file=/d/a,if=virtio,cache.no-flush", "-drive file=/d/a,if=virtio,file.cache.no-flush=on",
		"-drive file=/d/a,if=virtio,cache=unsafe,readonly=off", "-drive file=/d/a,if=virtio,cache=unsafe,read-only=no",
		"-drive file=/d/a,,readonly=on,if=virtio,cache=unsafe", /* part of the name */
		"-drive file=/d/a,if=virtio,cache=unsafe,readonly=on,readonly=off", /* QEMU takes one of the two */
		"-drive file=/d/a,,media=cdrom,if=virtio,cache=unsafe",
		/* what is read-only below the node, or in json: of a -drive, does not make it so */
		"-blockdev '{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/d/a\"},\"cache\":{\"no-flush\":true},"
		"\"backing\":{\"driver\":\"file\",\"filename\":\"/b\",\"read-only\":true}}'",
		"-blockdev driver=qcow2,file.driver=file,file.filename=/d/a,cache.no-flush=on,backing.driver=file,backing.filename=/b,backing.read-only=on",
		"-drive 'file=json:{\"driver\":\"file\",,\"filename\":\"/d/a\",,\"read-only\":true},if=virtio,cache=unsafe'",
		"-drive 'file=json:{\"driver\":\"raw\",,\"file.driver\":\"file\",,\"file.filename\":\"/d/a\",,\"file.cache.no-flush\":\"on\"},if=virtio'",
		"-blockdev '{\"driver\":\"file\",\"filename\":\"/d/a\",\"cache\":{\"no-flush\"\t: true},\"read-only\":false}'",
	};
	char text[1024], err[1024] = "";
	struct vmfile v;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		(void)snprintf(text, sizeof(text), HEAD "Disk=/d/a\n[QEMU]\nBinary=/q\nArguments=%s\n", good[i]);
		TAP_OK(parse(text, &v) == 0 && vmfile_check_writes("t", &v, err, sizeof(err)) == 0, "QEMU writes to its disk itself: %s%s", good[i], err);
		vmfile_deinit(&v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)snprintf(text, sizeof(text), HEAD "Disk=/d/a\n[QEMU]\nBinary=/q\nArguments=%s\n", bad[i]);
		TAP_OK(parse(text, &v) == 0 && vmfile_check_writes("t", &v, err, sizeof(err)) == -EINVAL && strstr(err, "cache=unsafe"), "writes that stay behind: %s", bad[i]);
		vmfile_deinit(&v);
	}
}

static void check_limits(void)
{
	char text[VMFILE_MAX_TEXT + 2], err[256];
	struct vmfile v;
	size_t len;

	len = (size_t)snprintf(text, sizeof(text), HEAD "[QEMU]\nBinary=/q\n");
	for (int i = 0; i < VMFILE_MAX_ARGS; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "Arguments=-a\n");
	TAP_OK(vmfile_parse("t", text, len, &v, err, sizeof(err)) == 0 && v.n_args == VMFILE_MAX_ARGS && !v.args[VMFILE_MAX_ARGS],
	       "as many arguments as there may be");
	vmfile_deinit(&v);
	len += (size_t)snprintf(text + len, sizeof(text) - len, "Arguments=-a\n");
	TAP_OK(vmfile_parse("t", text, len, &v, err, sizeof(err)) == -EINVAL && strstr(err, "more than 256 arguments"), "one more");
	len = (size_t)snprintf(text, sizeof(text), "[VM]\n");
	for (int i = 0; i <= VMFILE_MAX_DISKS; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "Disk=/d%d\n", i);
	TAP_OK(vmfile_parse("t", text, len, &v, err, sizeof(err)) == -EINVAL && strstr(err, "more than 16 disks"), "disks");
	len = (size_t)snprintf(text, sizeof(text), "[HA]\nPreferredNodes=");
	for (int i = 0; i <= VMFILE_MAX_NODES; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "n%d ", i);
	TAP_OK(vmfile_parse("t", text, len, &v, err, sizeof(err)) == -EINVAL && strstr(err, "more than 16 nodes"), "preferred nodes");
	memset(text, '\n', sizeof(text));
	TAP_OK(vmfile_parse("t", text, VMFILE_MAX_TEXT + 1, &v, err, sizeof(err)) == -EINVAL && strstr(err, "use at most 65536"), "text");
}

static void check_with_uuid(void)
{
	static const struct {
		const char *text;
		int r;
		const char *want;
	} cases[] = {
		{ "[VM]\nName=a\n", 0, "[VM]\nUUID=" ID "\nName=a\n" },
		{ "# c\n[HA]\nState=started\n[VM]", 0, "# c\n[HA]\nState=started\n[VM]\nUUID=" ID "\n" },
		{ "[QEMU]\nArguments=a \\\n[VM]\n\n[VM]\nName=a\n[VM]\n", 0, "[QEMU]\nArguments=a \\\n[VM]\n\n[VM]\nUUID=" ID "\nName=a\n[VM]\n" },
		{ "[VM]\nUUID=" ID "\n", -EEXIST, NULL },
		{ "[HA]\n", -EINVAL, NULL },
		{ "", -EINVAL, NULL },
		{ "[VM]\nNope=1\n", -EINVAL, NULL },
	};
	static char big[VMFILE_MAX_TEXT];
	uint8_t uuid[16];
	char *out;

	TAP_OK(uuid_parse(ID, uuid), "the UUID to insert");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		out = NULL;
		TAP_OK(vmfile_with_uuid(cases[i].text, strlen(cases[i].text), uuid, &out) == cases[i].r, "with_uuid %zu returns %d", i, cases[i].r);
		TAP_OK(cases[i].want ? out && streq(out, cases[i].want) : !out, "with_uuid %zu: text", i);
		free(out);
	}
	memset(big, '\n', sizeof(big));
	memcpy(big, "[VM]", 4);
	TAP_OK(vmfile_with_uuid(big, sizeof(big), uuid, &out) == -E2BIG, "no room for it");
	TAP_OK(vmfile_with_uuid(big, sizeof(big) - 42, uuid, &out) == 0 && strlen(out) == VMFILE_MAX_TEXT, "just enough room");
	free(out);
}

static bool can_migrate(const char *more, const char *section, char *why, size_t size)
{
	_cleanup_free_ char *text = NULL;
	struct vmfile v;
	bool can;

	if (asprintf(&text, HEAD "Disk=/d/a\n[QEMU]\nBinary=/usr/bin/qemu\nArguments=-drive file=/d/a,if=virtio %s\n%s", more, section) < 0 || parse(text, &v) < 0)
		return false;
	*why = '\0';
	can = vmfile_can_migrate(&v, why, size);
	vmfile_deinit(&v);
	return can;
}

static void test_migration(void)
{
	static const struct { const char *more, *section, *why; } bad[] = {
		{ "", "[Migration]\nMigrate=no\n", "Migrate=no" },
		{ "-drive file=/d/b,if=virtio", "", "/d/b" },
		{ "-hda /d/ab", "", "-hda /d/ab" },
		{ "-blockdev driver=file,filename=/d/c,node-name=c", "", "/d/c" },
		{ "-pflash /d/vars.fd", "", "/d/vars.fd" },
		{ "-device vfio-pci,host=01:00.0", "", "vfio-pci" },
		{ "--device usb-host,vendorid=1", "", "usb-host" },
		{ "-device driver=vfio-pci,host=01:00.0", "", "vfio-pci" },
		{ "-device '{\"id\": \"x\", \"driver\": \"usb-mtp\"}'", "", "usb-mtp" },
		{ "-blockdev driver=nvme,device=0000:01:00.0,namespace=1,node-name=n", "", "nvme" },
		{ "-drive if=none,id=n,driver=nvme,device=0000:01:00.0,namespace=1", "", "nvme" },
		{ "-blockdev '{\"driver\":\"file\",\"filename\":\"/d/c\",\"node-name\":\"c\"}'", "", "/d/c" },
		{ "-blockdev '{\"driver\":\"file\",\"filename\":\"/d/c\",\"read-only\":false}'", "", "/d/c" },
		{ "-drive file=/d/readonly=on,if=virtio", "", "/d/readonly" },
		{ "-drive file=/d/a,if=none,id=x,cache=unsafe", "", "cache=unsafe" },
		{ "-drive file=/d/a,if=none,id=x,cache.no-flush=on", "", "cache=unsafe" },
		{ "-blockdev '{\"driver\":\"file\",\"filename\":\"/d/a\",\"cache\":{\"direct\":true,\"no-flush\":true}}'", "", "cache=unsafe" },
		{ "-blockdev '{\"driver\":\"qcow2\",\"file\":\"p\",\"cache\":{\"no-flush\": true}}'", "", "cache=unsafe" },
		{ "-drive file=/d/a,if=none,id=x,snapshot=on", "", "snapshot=on" },
		{ "-drive file=/d/a,if=none,id=x,snapshot=yes", "", "snapshot=on" },
		{ "-drive file=/d/b,,readonly=on,if=virtio", "", "/d/b" },
		{ "-snapshot", "", "-snapshot" },
		{ "-netdev vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n -device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0", "", "vhost-vdpa" },
		{ "-virtfs local,path=/x,mount_tag=m,security_model=none", "", "-virtfs" },
	};
	char why[256];
	struct vmfile v;

	TAP_OK(can_migrate("", "", why, sizeof(why)), "shared disks only: can be migrated");
	TAP_OK(can_migrate("-drive file=/x.iso,media=cdrom -drive file=/fw.fd,if=pflash,readonly=on -device virtio-net-pci", "", why, sizeof(why)),
	       "what is only read is no hindrance");
	TAP_OK(can_migrate("-blockdev driver=file,filename=/d/a,node-name=p,cache.direct=on -blockdev driver=raw,file=p,node-name=f -device virtio-blk,drive=f", "", why, sizeof(why)),
	       "neither is a block device that stands on another: %s", why);
	TAP_OK(can_migrate("-drive file=/d/a,cache=writeback,if=none,id=y -drive if=none,id=e -blockdev '{\"driver\":\"file\",\"filename\":\"/x\",\"read-only\" : true}'", "", why, sizeof(why)),
	       "nor a cache that is flushed: %s", why);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		TAP_OK(!can_migrate(bad[i].more, bad[i].section, why, sizeof(why)) && strstr(why, bad[i].why), "refused: %s", why);
	TAP_OK(parse(HEAD "[QEMU]\nBinary=/q\n[Migration]\nBandwidth=32M\nDowntimeLimit=200ms\nChannels=4\nAutoConverge=yes\nTimeout=5min\n", &v) == 0 &&
	       v.migrate_bandwidth_mib == 32 && v.migrate_downtime_ms == 200 && v.migrate_channels == 4 && v.migrate_auto_converge && v.migrate_timeout_ms == 300000 && v.migrate,
	       "[Migration] as written");
	vmfile_deinit(&v);
}

int main(void)
{
	TAP_OK(data_each("tests/data/bad-vm", ".vm", bad_case) >= 14, "all bad files were tried");
	check_good();
	check_writes();
	check_limits();
	check_with_uuid();
	test_migration();
	return tap_done();
}
