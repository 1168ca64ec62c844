/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VM files made of command lines: each tests/data/import/NAME.cmd gives NAME.vm, or the message in NAME.err; with a NAME.xml it is virsh's. Then the
 * program itself ($HA_CTL), with a virsh of the test's own; and QEMU, started from an imported file as the agent starts it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/uuid.h"
#include "agent/import.h"
#include "agent/vmfile.h"
#include "qmp/qmp.h"
#include "tests/data_files.h"
#include "tests/tap.h"

#define WAIT_MS 30000 /* a machine under load; what holds is seen at once */
#define DRAWN { 0xaa, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1 }
#define MAX_WORDS (VMFILE_MAX_ARGS + 16)

static char top[] = "/tmp/kvm-ha-test-import-XXXXXX";
static char out[1 << 18], err[1 << 16];
static const char *program;

/* Conversion */

static enum disk_place storage(void *user, const char *path)
{
	return strncmp(path, "/srv/shared/", 12) == 0 || strncmp(path, "/dev/mapper/", 12) == 0 ? DISK_SHARED :
	       strncmp(path, "/srv/local/", 11) == 0 ? DISK_LOCAL :
	       strncmp(path, "/dev/disk/", 10) == 0 ? DISK_UNKNOWN : DISK_ABSENT;
}

static bool find_binary(void *user, const char *name, char *ret, size_t size)
{
	return snprintf(ret, size, "/usr/bin/%s", name) > 0;
}

/* text with each what replaced; to free. */
static char *replaced(const char *text, size_t *len, const char *what, const char *with)
{
	char *result = NULL;
	size_t size, n = strlen(what);
	FILE *f = open_memstream(&result, &size);

	if (!f)
		abort();
	for (size_t i = 0; i < *len;) {
		bool here = *len - i >= n && memcmp(text + i, what, n) == 0;

		if (here)
			(void)fputs(with, f);
		else
			(void)fputc(text[i], f);
		i += here ? n : 1;
	}
	(void)fclose(f);
	*len = size;
	return result;
}

static char *read_case(const char *name, const char *suffix, size_t *len, const char *dir)
{
	_cleanup_free_ char *text = NULL;
	char rel[256];

	(void)snprintf(rel, sizeof(rel), "tests/data/import/%s%s", name, suffix);
	text = data_read(rel, len);
	return replaced(text, len, "@DIR@", dir);
}

static bool has_case(const char *name, const char *suffix)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/tests/data/import/%s%s", data_top(), name, suffix);
	return access(path, R_OK) == 0;
}

static int convert(const char *name, const char *dir, struct import_result *ret, char *why, size_t why_size)
{
	_cleanup_free_ char *cmd = NULL, *xml = NULL;
	struct import_nic nics[IMPORT_MAX_NICS];
	char beside[IMPORT_BESIDE_LEN];
	struct import_input in = { .source = name, .bridge_helper = "/usr/lib/qemu/qemu-bridge-helper", .uuid = DRAWN, .storage = storage,
				   .find_binary = find_binary };
	size_t len;
	int n;

	cmd = read_case(name, ".cmd", &in.len, dir);
	in.text = cmd;
	if (streq(name, "ps") || streq(name, "beside"))
		in.bridge = "br7";
	if (has_case(name, ".xml")) {
		xml = read_case(name, ".xml", &len, dir);
		n = import_domain(name, xml, len, nics, beside, why, why_size);
		if (n < 0)
			return n;
		in.libvirt = true;
		in.nics = nics;
		in.n_nics = (size_t)n;
		in.beside = beside;
	}
	return import_convert(&in, ret, why, why_size);
}

static void one_case(const char *name)
{
	_cleanup_free_ char *want = NULL;
	struct import_result result = { 0 };
	char why[4096] = "";
	bool refused = strncmp(name, "refuse-", 7) == 0;
	size_t len;
	int r = convert(name, "/srv/shared", &result, why, sizeof(why));

	/* to write what is to be expected anew, and then to read it well */
	if (getenv("KVM_HA_IMPORT_DUMP"))
		printf("=== %s%s\n%s%s===\n", name, refused ? ".err" : ".vm", refused ? why : result.text ? result.text : why, refused ? "\n" : "");
	want = read_case(name, refused ? ".err" : ".vm", &len, "/srv/shared");
	if (refused && len > 0)
		want[len - 1] = '\0'; /* the line's end */
	TAP_OK(r == (refused ? -EINVAL : 0), "%s is %s", name, refused ? "refused" : "taken");
	TAP_STR(refused ? why : result.text ? result.text : why, want, name);
	import_result_deinit(&result);
}

static struct import_input input_of(const char *text)
{
	return (struct import_input){ .source = "t", .text = text, .len = strlen(text), .bridge_helper = "/h", .uuid = DRAWN, .storage = storage,
				      .find_binary = find_binary };
}

/* What -smp and -m mean: the numbers are QEMU's own for these words. */
static void test_numbers(void)
{
	static const struct {
		const char *words;
		uint32_t vcpus, mib;
		const char *machine; /* what is left for -machine, or NULL */
	} cases[] = {
		{ "", 1, 128, NULL },
		{ "-smp 4", 4, 128, NULL },
		{ "-smp cpus=3", 3, 128, NULL },
		{ "-smp 2,maxcpus=8", 2, 128, "smp.maxcpus=8" },
		{ "-smp maxcpus=8", 8, 128, "smp.maxcpus=8" },
		{ "-smp sockets=2,cores=3,threads=2", 12, 128, "smp.sockets=2,smp.cores=3,smp.threads=2" },
		{ "-smp 6,sockets=1,dies=3,cores=2", 6, 128, "smp.sockets=1,smp.dies=3,smp.cores=2" },
		{ "-m 2048", 1, 2048, NULL },
		{ "-m 2G", 1, 2048, NULL },
		{ "-m 0.5g", 1, 512, NULL },
		{ "-m size=1048576k", 1, 1024, NULL },
		{ "-m 1G,slots=2,maxmem=4G", 1, 1024, "memory.slots=2,memory.max-size=4G" },
		{ "-m 1T", 1, 1048576, NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256], why[1024] = "";
		struct import_input in;
		struct import_result result = { 0 };
		struct vmfile vm = { 0 };
		bool machine = !cases[i].machine;

		(void)snprintf(text, sizeof(text), "/usr/bin/qemu-system-x86_64 -name a %s", cases[i].words);
		in = input_of(text);
		if (import_convert(&in, &result, why, sizeof(why)) < 0 ||
		    vmfile_parse("t", result.text, strlen(result.text), &vm, why, sizeof(why)) < 0)
			printf("# %s\n", why);
		for (size_t k = 0; k < vm.n_args; k++)
			machine = cases[i].machine ? machine || streq(vm.args[k], cases[i].machine) : machine && !streq(vm.args[k], "-machine");
		TAP_OK(vm.vcpus == cases[i].vcpus && vm.memory_mib == cases[i].mib && machine, "numbers: %s", *cases[i].words ? cases[i].words : "(none)");
		vmfile_deinit(&vm);
		import_result_deinit(&result);
	}
}

static void test_xml(void)
{
	static const struct {
		const char *xml, *why;
	} cases[] = {
		{ "", "t: holds no <domain>" },
		{ "<network><name>x</name></network>", "t:1: is not XML" },
		{ "<domain>\n<devices>", "t: the domain is never closed" },
		{ "<domain>\n<!-- ", "t:2: is never closed" },
		{ "<domain>\n\n<a b=c/></domain>", "t:3: is not XML" },
		{ "<!DOCTYPE domain [<!ENTITY x 'y'>]><domain/>", "t:1: is not XML" },
		{ "<domain></domain></domain>", "t:1: is not XML" },
		{ "<domain><devices><disk><source file='/x'/>\n<transient shareBacking='yes'/></disk></devices></domain>", "t:2: <transient>" },
		{ "<domain><devices><interface type='user'>\n<link state='down'/></interface></devices></domain>", "t:2: <link state='down'/>" },
	};
	struct import_nic nics[IMPORT_MAX_NICS];
	static const char all[] = "<domain><cputune/><memtune/><numatune/><iotune/><devices><disk><iotune/></disk><disk><iotune/></disk><interface type='user'>"
				  "<filterref/><mtu/><bandwidth/><port/><link state='up'/></interface><filterref/></devices><blkiotune/></domain>";
	char why[512], beside[IMPORT_BESIDE_LEN], *many = NULL;
	size_t size;
	FILE *f = open_memstream(&many, &size);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		*why = '\0';
		TAP_OK(import_domain("t", cases[i].xml, strlen(cases[i].xml), nics, beside, why, sizeof(why)) == -EINVAL && strstr(why, cases[i].why) == why,
		       "XML: %s", why);
	}
	(void)fputs("<domain><devices>", f);
	for (int i = 0; i <= IMPORT_MAX_NICS; i++)
		(void)fputs("<interface type='user'/>", f);
	(void)fclose(f);
	TAP_OK(import_domain("t", many, size, nics, beside, why, sizeof(why)) == -EINVAL && strstr(why, "more network interfaces"), "XML: too many interfaces");
	free(many);
	TAP_OK(import_domain("t", all, strlen(all), nics, beside, why, sizeof(why)) == 1, "XML: what libvirt does by itself");
	TAP_STR(beside, "<cputune>, <memtune>, <blkiotune>, <numatune>, <iotune>, <filterref>, <bandwidth>, <mtu>, <port>", "all of it, once each");
	TAP_OK(import_domain("t", "<domain></domain>", 17, nics, beside, why, sizeof(why)) == 0 && !*beside, "or nothing");
}

/* What is too much is refused, not cut. */
static void test_limits(void)
{
	char *text = NULL, why[1024] = "";
	struct import_input in;
	struct import_result result = { 0 };
	size_t size;
	FILE *f = open_memstream(&text, &size);

	(void)fputs("/usr/bin/qemu-system-x86_64 -name a", f);
	for (int i = 0; i < VMFILE_MAX_ARGS; i++)
		(void)fputs(" -usb", f);
	(void)fclose(f);
	in = input_of(text);
	TAP_OK(import_convert(&in, &result, why, sizeof(why)) == -EINVAL && strstr(why, "more than 256 arguments"), "too many arguments: %s", why);
	free(text);
	f = open_memstream(&text, &size);
	(void)fputs("/usr/bin/qemu-system-x86_64 -name a", f);
	for (int i = 0; i < 1100; i++)
		(void)fputs(" x", f);
	(void)fclose(f);
	in = input_of(text);
	TAP_OK(import_convert(&in, &result, why, sizeof(why)) == -EINVAL && strstr(why, "more than 1024 words"), "too many words: %s", why);
	free(text);
	f = open_memstream(&text, &size);
	(void)fputs("/usr/bin/qemu-system-x86_64 -name a -display none", f);
	for (int i = 0; i < 100; i++)
		(void)fprintf(f, " -device '{\"driver\":\"virtio-rng-pci\",\"id\":\"a-rather-long-name-so-that-all-of-them-pass-sixteen-kib-%d\","
				 "\"bus\":\"pcie.0\",\"addr\":\"0x%d\",\"max-bytes\":1000000,\"period\":1000000}'", i, i);
	(void)fclose(f);
	in = input_of(text);
	TAP_OK(import_convert(&in, &result, why, sizeof(why)) == 0 && strstr(strstr(result.text, "Arguments=\n") + 1, "Arguments=\n"),
	       "arguments longer than one value may be go into several %s", why);
	free(text);
	import_result_deinit(&result);
}

/* The program */

static void write_file(const char *name, const char *text, mode_t mode)
{
	char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", top, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) < 0)
		abort();
}

static bool slurp(const char *name, char *buf, size_t size)
{
	char path[512];
	int fd;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s", top, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, buf, size - 1);
	buf[MAX(n, 0)] = '\0';
	if (fd >= 0)
		(void)close(fd);
	return fd >= 0;
}

/* Runs `ha-ctl vm import WORDS` in the test's directory; out and err hold what it printed. */
static int ctl(const char *path, const char *words)
{
	char copy[1024], *argv[32] = { (char *)program, "vm", "import" };
	int n = 3, status = 0;
	pid_t pid;

	(void)snprintf(copy, sizeof(copy), "%s", words);
	for (char *w = strtok(copy, " "); w && n < 31; w = strtok(NULL, " "))
		argv[n++] = w;
	pid = fork();
	if (pid == 0) {
		if (chdir(top) < 0 || dup2(open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600), 1) < 0 ||
		    dup2(open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600), 2) < 0 || dup2(open("in", O_RDONLY), 0) < 0)
			_exit(126);
		if (path)
			(void)setenv("PATH", path, 1);
		(void)unsetenv("VIRSH_DEFAULT_CONNECT_URI");
		(void)unsetenv("LIBVIRT_DEFAULT_URI");
		execv(program, argv);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	(void)slurp("out", out, sizeof(out));
	(void)slurp("err", err, sizeof(err));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *text)
{
	if (strstr(out, text) || strstr(err, text))
		return true;
	printf("# not said: %s\n# out: %.1500s\n# err: %.1500s\n", text, out, err);
	return false;
}

static bool is_vm_file(const char *text)
{
	struct vmfile vm;
	char why[1024] = "";

	if (vmfile_parse("t", text, strlen(text), &vm, why, sizeof(why)) < 0) {
		printf("# %s\n", why);
		return false;
	}
	vmfile_deinit(&vm);
	return true;
}

/* Added, it is not started beside the one that it was made of. */
static bool is_stopped(const char *text)
{
	struct vmfile vm;
	char why[1024];
	bool stopped;

	if (vmfile_parse("t", text, strlen(text), &vm, why, sizeof(why)) < 0)
		return false;
	stopped = !vm.start;
	vmfile_deinit(&vm);
	return stopped;
}

static void test_program(void)
{
	char text[4096], cmd[1024];

	(void)snprintf(cmd, sizeof(cmd), "/usr/bin/qemu-system-x86_64 -name web -display none -drive file=%s/a.raw,format=raw\n", top);
	write_file("a.cmd", cmd, 0600);
	write_file("in", cmd, 0600);
	write_file("a.raw", "", 0600);
	TAP_OK(ctl(NULL, "") == 64 && said("either --libvirt"), "neither source");
	TAP_OK(ctl(NULL, "--libvirt x --qemu-cmdline y") == 64, "both");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd --name a/b") == 64 && said("--name a/b"), "a bad name");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd --force x") == 64 && said("--force is no option"), "another command's option");
	TAP_OK(ctl(NULL, "--qemu-cmdline none.cmd") == 1 && said("none.cmd: cannot read"), "no such file");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd") == 0 && is_vm_file(out) && is_stopped(out) && strstr(out, "Name=web\nUUID="), "to standard output");
	TAP_OK(strstr(err, "a.raw is on a local disk of this host") && strstr(out, "#   /tmp") && strstr(out, "a.raw is on a local disk"),
	       "a local disk is named there and in the file");
	TAP_OK(ctl(NULL, "--qemu-cmdline - --name other") == 0 && is_vm_file(out) && said("Name=other\n") && said("standard input"), "from standard input");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd -o a.vm") == 0 && !*out && slurp("a.vm", text, sizeof(text)) && is_vm_file(text), "to a file");
	write_file("a.vm", "mine", 0600);
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd -o a.vm") == 1 && said("such a file already") && slurp("a.vm", text, sizeof(text)) && streq(text, "mine"),
	       "never over one");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd --strict -o b.vm") == 1 && said("--strict") && !slurp("b.vm", text, sizeof(text)), "--strict refuses it");
	write_file("b.cmd", "/usr/bin/qemu-system-x86_64 -name web -drive file=nfs://192.0.2.1/export/a.raw,format=raw\n", 0600);
	TAP_OK(ctl(NULL, "--qemu-cmdline b.cmd --strict") == 0 && is_vm_file(out) && !*err, "but not shared storage");
	TAP_OK(ctl(NULL, "--qemu-cmdline a.cmd -o json") == 0 && said("\"warnings\": [") && said("\"text\": \"# Made by"), "as JSON");
	write_file("c.cmd", "/usr/bin/qemu-system-x86_64 -name web 'x\n", 0600);
	TAP_OK(ctl(NULL, "--qemu-cmdline c.cmd") == 1 && !*out && said("c.cmd:1:39: this ' is never closed"), "a mistake, with its place");
	TAP_OK(ctl(NULL, "-o json --qemu-cmdline c.cmd") == 1 && strstr(out, "\"ok\": false"), "also as JSON");
}

/* A virsh that says which domain it was asked for, and a command line in libvirt's manner. */
static void test_virsh(void)
{
	_cleanup_free_ char *xml = NULL, *cmd = NULL;
	char path[512], virsh[1024];
	size_t len;

	xml = read_case("libvirt9", ".xml", &len, top);
	cmd = read_case("libvirt9", ".cmd", &len, top);
	write_file("d.xml", xml, 0600);
	write_file("native", cmd, 0600);
	(void)snprintf(path, sizeof(path), "%s/bin", top);
	(void)mkdir(path, 0700);
	TAP_OK(ctl(path, "--libvirt d.xml") == 1 && said("install libvirt-clients") && !*out, "without virsh: which package");
	(void)snprintf(virsh, sizeof(virsh), "#!/bin/sh\necho \"$*\" >%s/asked\nexec /bin/cat %s/native\n", top, top);
	write_file("bin/virsh", virsh, 0700);
	TAP_OK(ctl(path, "--libvirt d.xml") == 0 && is_vm_file(out) && said("UUID=3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4"), "with virsh");
	TAP_OK(said("from d.xml") && said("{\"type\":\"user\",\"id\":\"hostnet0\"}"), "and the domain's own interfaces");
	TAP_OK(slurp("asked", out, sizeof(out)) && streq(out, "-q -c qemu:///system domxml-to-native qemu-argv --xml d.xml\n"), "asked for that");
	write_file("bin/virsh", "#!/bin/sh\necho 'error: failed to connect to the hypervisor' >&2\nexit 1\n", 0700);
	TAP_OK(ctl(path, "--libvirt d.xml") == 1 && said("failed to connect to the hypervisor\n") && said("libvirtd running"), "libvirtd does not run");
	write_file("bin/virsh", "#!/bin/sh\nexit 0\n", 0700);
	TAP_OK(ctl(path, "--libvirt d.xml") == 1 && said("no command line came"), "virsh says nothing");
	write_file("d.xml", "<domain>", 0600);
	TAP_OK(ctl(path, "--libvirt d.xml") == 1 && said("never closed"), "no domain");
	TAP_OK(ctl(path, "--libvirt -") == 64, "standard input is not for virsh");
}

/* QEMU */

struct rig {
	qb_loop_t *loop;
	struct qmp_conn *conn;
	bool ready, closed, failed;
	unsigned waiting;
	enum qmp_run_state state;
	char answers[1 << 16];
	char reason[256];
};

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct rig *r = user;
	size_t len = strlen(r->answers);

	r->waiting--;
	r->failed |= error != NULL;
	(void)snprintf(r->answers + len, sizeof(r->answers) - len, "%s\n",
		       ret ? json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE) : error ? error : "");
}

static void on_ready(void *user, enum qmp_run_state state, const char *version)
{
	struct rig *r = user;
	json_object *smp = json_object_new_object();

	r->ready = true;
	r->state = state;
	json_object_object_add(smp, "path", json_object_new_string("/machine"));
	json_object_object_add(smp, "property", json_object_new_string("smp"));
	r->waiting = 4;
	if (qmp_conn_execute(r->conn, "query-block", NULL, WAIT_MS, on_reply, r) < 0 || qmp_conn_execute(r->conn, "query-uuid", NULL, WAIT_MS, on_reply, r) < 0 ||
	    qmp_conn_execute(r->conn, "query-memory-size-summary", NULL, WAIT_MS, on_reply, r) < 0 ||
	    qmp_conn_execute(r->conn, "qom-get", smp, WAIT_MS, on_reply, r) < 0)
		abort();
}

static void on_event(void *user, const struct qmp_event *ev) {}

static void on_closed(void *user, const char *reason)
{
	struct rig *r = user;

	r->closed = true;
	(void)str_copy(r->reason, sizeof(r->reason), reason);
}

static void on_beat(void *user) { qb_loop_stop(user); }

static int64_t clock_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

/* As the agent's launch does, without its launcher. The agent's directory for sockets is the test's here. */
static pid_t start_qemu(struct vmfile *vm, const char *qmp)
{
	char memory[32], vcpus[16], uuid[UUID_STR_LEN], server[600], name[100], *argv[MAX_WORDS];
	size_t n = 0, len;
	pid_t pid;

	(void)snprintf(memory, sizeof(memory), "%uM", vm->memory_mib);
	(void)snprintf(vcpus, sizeof(vcpus), "%u", vm->vcpus);
	(void)snprintf(server, sizeof(server), "unix:%s,server=on,wait=off", qmp);
	(void)snprintf(name, sizeof(name), "guest=%s", vm->name);
	uuid_format(vm->uuid, uuid);
	for (size_t i = 0; i < vm->n_args; i++) {
		char *moved;

		len = strlen(vm->args[i]);
		moved = replaced(vm->args[i], &len, "/run/kvm-ha/vm/", "");
		free(vm->args[i]);
		vm->args[i] = moved;
	}
	pid = fork();
	if (pid != 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	argv[n++] = vm->binary;
	argv[n++] = "-name", argv[n++] = name, argv[n++] = "-uuid", argv[n++] = uuid, argv[n++] = "-m", argv[n++] = memory;
	argv[n++] = "-smp", argv[n++] = vcpus, argv[n++] = "-qmp", argv[n++] = server;
	for (size_t i = 0; i < vm->n_args; i++)
		argv[n++] = vm->args[i];
	argv[n] = NULL;
	if (chdir(top) < 0 || dup2(open("/dev/null", O_RDWR), 0) < 0 || dup2(open("qemu.log", O_WRONLY | O_CREAT | O_TRUNC, 0600), 2) < 0 || dup2(0, 1) < 0)
		_exit(126);
	execv(vm->binary, argv);
	_exit(127);
}

static void run_qemu(const char *what, const char *text, const char *const *expect)
{
	static const struct qmp_callbacks cb = { on_ready, on_event, on_closed };
	struct rig r = { .loop = qb_loop_create() };
	char qmp[300], why[1024] = "", log[4096] = "";
	int64_t end_ms = clock_ms() + 2 * WAIT_MS;
	struct vmfile vm;
	int status;
	pid_t pid;

	(void)snprintf(qmp, sizeof(qmp), "%s/qmp", top);
	if (!r.loop || vmfile_parse("t", text, strlen(text), &vm, why, sizeof(why)) < 0) {
		TAP_OK(false, "%s: %s", what, why);
		return;
	}
	pid = start_qemu(&vm, qmp);
	if (pid < 0 || qmp_conn_new(r.loop, qmp, WAIT_MS, &cb, &r, &r.conn) < 0)
		abort();
	while (!r.closed && !(r.ready && !r.waiting) && clock_ms() < end_ms && waitpid(pid, &status, WNOHANG) == 0) {
		qb_loop_timer_handle timer;

		(void)qb_loop_timer_add(r.loop, QB_LOOP_LOW, 5 * NS_PER_MS, r.loop, on_beat, &timer);
		qb_loop_run(r.loop);
	}
	(void)slurp("qemu.log", log, sizeof(log));
	if (!TAP_OK(r.ready && !r.waiting && !r.failed && r.state == QMP_RUN_RUNNING, "%s: QEMU runs", what))
		printf("# %s\n# %s\n# %s\n", r.reason, log, r.answers);
	for (size_t i = 0; expect[i]; i++)
		if (!TAP_OK(strstr(r.answers, expect[i]) != NULL, "%s: %s", what, expect[i]))
			printf("# %s\n", r.answers);
	qmp_conn_free(r.conn);
	qb_loop_destroy(r.loop);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	vmfile_deinit(&vm);
}

static void test_qemu(void)
{
	static const char plain[] = "/usr/bin/qemu-system-x86_64 -name plain -M pc -accel tcg -m 0.0625G,slots=2,maxmem=1G -smp 3,sockets=3,cores=1,threads=1 "
				    "-S -drive file=%s/a.raw,if=none,id=d0,format=raw,cache=writeback -device virtio-blk-pci,drive=d0 -cdrom %s/b.iso "
				    "-blockdev driver=file,filename=%s/b.raw,node-name=f -blockdev driver=raw,file=f,node-name=b -device virtio-blk-pci,drive=b "
				    "-uuid 11111111-2222-4333-8444-555555555555 -monitor stdio -serial mon:stdio -display gtk -daemonize -no-shutdown\n";
	char cmd[2048], a[300], b[300], why[1024] = "";
	const char *expect[] = { "\"sockets\":3", "\"cpus\":3", "\"base-memory\":67108864", "11111111-2222-4333-8444-555555555555", a, b, NULL };
	const char *libvirt[] = { "\"sockets\":2", "\"cpus\":2", "\"base-memory\":67108864", "3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4", a, "libvirt-1-format", NULL };
	struct import_result result = { 0 };
	struct import_input in;

	for (int i = 0; i < 3; i++) {
		char path[300];

		(void)snprintf(path, sizeof(path), "%s/%s", top, (const char *[]){ "a.raw", "b.raw", "b.iso" }[i]);
		write_file((const char *[]){ "a.raw", "b.raw", "b.iso" }[i], "", 0600);
		if (truncate(path, 1 << 20) < 0)
			abort();
	}
	(void)snprintf(a, sizeof(a), "\"%s/a.raw\"", top);
	(void)snprintf(b, sizeof(b), "\"%s/b.raw\"", top);
	(void)snprintf(cmd, sizeof(cmd), plain, top, top, top);
	in = input_of(cmd);
	TAP_OK(import_convert(&in, &result, why, sizeof(why)) == 0, "a command line for QEMU %s", why);
	if (result.text)
		run_qemu("plain", result.text, expect);
	import_result_deinit(&result);
	TAP_OK(convert("libvirt9", top, &result, why, sizeof(why)) == 0, "libvirt's for QEMU %s", why);
	if (result.text)
		run_qemu("libvirt9", result.text, libvirt);
	import_result_deinit(&result);
}

static void clean_up(void)
{
	static const char *const names[] = { "a.cmd", "b.cmd", "c.cmd", "in", "a.vm", "a.raw", "b.raw", "b.iso", "out", "err", "d.xml", "native", "asked", "bin/virsh",
					     "qmp", "qemu.log", "3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4.charchannel0" };
	char path[512];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", top, names[i]);
		(void)unlink(path);
	}
	(void)snprintf(path, sizeof(path), "%s/bin", top);
	(void)rmdir(path);
	if (rmdir(top) < 0)
		printf("# %s: %s\n", top, strerror(errno));
}

int main(void)
{
	program = getenv("HA_CTL") ? getenv("HA_CTL") : "./ha-ctl";
	if (access(program, X_OK) < 0 || !mkdtemp(top)) {
		printf("Bail out! %s: %s\n", program, strerror(errno));
		return 1;
	}
	TAP_OK(data_each("tests/data/import", ".cmd", one_case) >= 25, "all command lines were tried");
	test_numbers();
	test_xml();
	test_limits();
	test_program();
	test_virsh();
	test_qemu();
	clean_up();
	return tap_done();
}
