/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ha-ctl vm import`: a VM file of a libvirt domain or of a QEMU command line. Needs no agent; looks at this host only to tell local storage from
 * shared, and runs virsh, which alone knows what QEMU a domain means. */
#include "agent/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/disk_place.h"
#include "agent/import.h"
#include "agent/vmfile.h"

#define VIRSH_S 60

extern char **environ;

/* Whole text of a file, "-" for standard input; to free. 0 or a negative errno. */
static int read_whole(const char *path, char **ret, size_t *ret_len)
{
	_cleanup_close_ int opened = streq(path, "-") ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int fd = streq(path, "-") ? STDIN_FILENO : opened;
	_cleanup_free_ char *text = malloc(IMPORT_MAX_TEXT + 1);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (!text)
		return -ENOMEM;
	while ((n = read(fd, text + len, IMPORT_MAX_TEXT + 1 - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (len > IMPORT_MAX_TEXT)
			return -EFBIG;
	}
	*ret = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

static enum disk_place storage(void *user, const char *path)
{
	enum disk_place place = disk_place(path);

	return place != DISK_LOCAL && access(path, F_OK) < 0 && errno == ENOENT ? DISK_ABSENT : place;
}

static bool find_binary(void *user, const char *name, char *ret, size_t size)
{
	const char *path = getenv("PATH");

	for (const char *p = path ? path : "/usr/bin"; *p; p += strcspn(p, ":"), p += *p == ':')
		if (*p == '/' && (size_t)snprintf(ret, size, "%.*s/%s", (int)strcspn(p, ":"), p, name) < size && access(ret, X_OK) == 0)
			return true;
	return false;
}

static const char *bridge_helper(void)
{
	static const char *const paths[] = { "/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper", "/usr/lib64/qemu-bridge-helper" };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return paths[0];
}

/* virsh */

struct sink {
	int fd;
	char *text;
	size_t len;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static void take_in(struct sink *s)
{
	char spill[4096];
	size_t room = IMPORT_MAX_TEXT - s->len;
	ssize_t n = read(s->fd, room ? s->text + s->len : spill, room ? room : sizeof(spill));

	if (n > 0 && room)
		s->len += (size_t)n;
	if (n == 0 || (n < 0 && errno != EINTR)) {
		(void)close(s->fd);
		s->fd = -1;
	}
}

/* Both ends of the child's output are read, so that it never waits for us. Its wait status, or a negative errno. */
static int collect(pid_t pid, struct sink *out, struct sink *err)
{
	int64_t end_ms = now_ms() + VIRSH_S * MS_PER_S, left;
	bool late = false;
	int status = 0;

	while (out->fd >= 0 || err->fd >= 0) {
		struct pollfd p[2] = { { .fd = out->fd, .events = POLLIN }, { .fd = err->fd, .events = POLLIN } };

		left = end_ms - now_ms();
		if (left <= 0 || (poll(p, 2, (int)left) < 0 && errno != EINTR)) {
			(void)kill(pid, SIGKILL);
			late = true;
			break;
		}
		if (p[0].revents)
			take_in(out);
		if (p[1].revents)
			take_in(err);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return late ? -ETIMEDOUT : status;
}

static int run(char *const argv[], struct sink *out, struct sink *err)
{
	int to[2], too[2], r;
	posix_spawn_file_actions_t fa;
	pid_t pid;

	if (pipe2(to, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(too, O_CLOEXEC) < 0) {
		r = -errno;
		(void)close(to[0]);
		(void)close(to[1]);
		return r;
	}
	(void)posix_spawn_file_actions_init(&fa);
	(void)posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&fa, to[1], STDOUT_FILENO);
	(void)posix_spawn_file_actions_adddup2(&fa, too[1], STDERR_FILENO);
	r = -posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)close(to[1]);
	(void)close(too[1]);
	out->fd = to[0];
	err->fd = too[0];
	if (r == 0)
		r = collect(pid, out, err);
	if (out->fd >= 0)
		(void)close(out->fd);
	if (err->fd >= 0)
		(void)close(err->fd);
	return r;
}

/* What QEMU a domain means, in virsh's words; to free. 0, or an exit code after saying why. */
static int ask_virsh(const struct ctl *c, const char *xml, char **ret, size_t *ret_len)
{
	bool told = getenv("VIRSH_DEFAULT_CONNECT_URI") || getenv("LIBVIRT_DEFAULT_URI");
	char *argv[] = { "virsh", "-q", "-c", "qemu:///system", "domxml-to-native", "qemu-argv", "--xml", (char *)xml, NULL };
	_cleanup_free_ char *text = calloc(1, IMPORT_MAX_TEXT + 1), *said = calloc(1, IMPORT_MAX_TEXT + 1);
	struct sink out = { .fd = -1, .text = text }, err = { .fd = -1, .text = said };
	int r;

	if (!text || !said)
		return ctl_fail(c, CTL_FAILED, "out of memory");
	if (told) /* an empty -c is not the same as none */
		memmove(argv + 2, argv + 4, sizeof(argv) - 4 * sizeof(argv[0]));
	r = run(argv, &out, &err);
	if (r == -ENOENT)
		return ctl_fail(c, CTL_FAILED, "virsh is not installed: it turns a domain into a QEMU command line; install libvirt-clients, or do "
				"`virsh domxml-to-native qemu-argv --xml %s` where it is and give that to --qemu-cmdline", xml);
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "virsh: %s; is libvirtd well?", strerror(-r));
	while (err.len && said[err.len - 1] == '\n')
		said[--err.len] = '\0';
	if (!WIFEXITED(r) || WEXITSTATUS(r) != 0)
		return ctl_fail(c, CTL_FAILED, "virsh domxml-to-native refuses %s: %.1500s%s", xml, *said ? said : "without a word",
				strstr(said, "connect") ? "\nIt needs libvirtd running, or VIRSH_DEFAULT_CONNECT_URI=qemu:///embed?root=DIR" : "");
	if (!out.len || out.len == IMPORT_MAX_TEXT)
		return ctl_fail(c, CTL_FAILED, "virsh domxml-to-native: %s", out.len ? "a command line above 256 KiB" : "no command line came");
	*ret = text;
	*ret_len = out.len;
	text = NULL;
	return 0;
}

/* The result */

/* Never over a file that is there: the operator may have worked on it. */
static int write_new(const struct ctl *c, const char *path, const char *text)
{
	FILE *f = fopen(path, "wxe");
	bool bad;

	if (!f)
		return ctl_fail(c, CTL_FAILED, "%s: %s", path, errno == EEXIST ? "there is such a file already; give another name or remove it" : strerror(errno));
	bad = fputs(text, f) == EOF;
	if (fclose(f) == 0 && !bad)
		return 0;
	bad = unlink(path) < 0;
	return ctl_fail(c, CTL_FAILED, "%s: cannot write%s", path, bad ? "; what is there now is a part" : "");
}

static void print_result(const struct ctl *c, const struct import_result *result)
{
	json_object *o, *list;

	if (!c->json) {
		if (!c->file)
			(void)fputs(result->text, stdout);
		return;
	}
	o = json_object_new_object();
	list = json_object_new_array();
	for (const char *p = result->warnings; *p; p += strcspn(p, "\n"), p += *p == '\n')
		json_object_array_add(list, json_object_new_string_len(p, (int)strcspn(p, "\n")));
	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(true));
	json_object_object_add(o, "text", json_object_new_string(result->text));
	json_object_object_add(o, "warnings", list);
	ctl_print_json(o);
	json_object_put(o);
}

static int finish(const struct ctl *c, const struct import_result *result)
{
	int r = 0;

	for (const char *p = result->warnings; *p; p += strcspn(p, "\n"), p += *p == '\n')
		(void)fprintf(stderr, "ha-ctl: warning: %.*s\n", (int)strcspn(p, "\n"), p);
	if (c->strict && result->unsafe)
		return ctl_fail(c, CTL_FAILED, "%u of these warnings: another node could not run this VM, or nothing would protect its disks; mend that, or leave out --strict",
				result->unsafe);
	if (c->file)
		r = write_new(c, c->file, result->text);
	if (r == 0)
		print_result(c, result);
	return r;
}

static int check_words(const struct ctl *c)
{
	char err[200] = "";

	if (!c->libvirt == !c->qemu_cmdline)
		return ctl_fail(c, CTL_USAGE, "vm import: give either --libvirt FILE.xml or --qemu-cmdline FILE");
	if (c->libvirt && streq(c->libvirt, "-"))
		return ctl_fail(c, CTL_USAGE, "--libvirt -: virsh reads the domain itself; give a file");
	if (c->name && value_name_check(c->name, VMFILE_NAME_LEN, err, sizeof(err)) < 0)
		return ctl_fail(c, CTL_USAGE, "--name %.80s: %s", c->name, err);
	if (c->bridge && (strlen(c->bridge) > 15 || value_name_check(c->bridge, 16, err, sizeof(err)) < 0))
		return ctl_fail(c, CTL_USAGE, "--bridge %.80s: no name of a network interface", c->bridge);
	return 0;
}

int ctl_vm_import(const struct ctl *c)
{
	const char *path = c->libvirt ? c->libvirt : c->qemu_cmdline, *source = path && streq(path, "-") ? "standard input" : path;
	_cleanup_free_ char *read_text = NULL, *argv_text = NULL;
	struct import_input in = { .source = source, .name = c->name, .bridge = c->bridge, .bridge_helper = bridge_helper(), .storage = storage,
				   .find_binary = find_binary, .libvirt = c->libvirt };
	struct import_nic nics[IMPORT_MAX_NICS];
	char beside[IMPORT_BESIDE_LEN];
	struct import_result result = { 0 };
	char err[CTL_ERROR_LEN] = "";
	size_t len = 0, argv_len = 0;
	int r = check_words(c);

	if (r != 0)
		return r;
	r = read_whole(path, &read_text, &len);
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "%s: cannot read: %s", source, r == -EFBIG ? "longer than 256 KiB" : strerror(-r));
	in.text = read_text;
	in.len = len;
	if (c->libvirt) {
		r = import_domain(source, read_text, len, nics, beside, err, sizeof(err));
		if (r < 0)
			return ctl_fail(c, CTL_FAILED, "%s", err);
		in.nics = nics;
		in.n_nics = (size_t)r;
		in.beside = beside;
		r = ask_virsh(c, path, &argv_text, &argv_len);
		if (r != 0)
			return r;
		in.text = argv_text;
		in.len = argv_len;
	}
	r = uuid_random(in.uuid);
	if (r == 0)
		r = import_convert(&in, &result, err, sizeof(err));
	if (r < 0)
		return ctl_fail(c, CTL_FAILED, "%s", r == -EINVAL ? err : strerror(-r));
	r = finish(c, &result);
	import_result_deinit(&result);
	return r;
}
