/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a running QEMU is the one that a VM file describes (agent/foreign_disks.c), by answers as QEMU 7.2 gives them; and processes told apart. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "agent/base/process.h"
#include "agent/foreign_disks.h"
#include "tests/tap.h"

#define A "iscsi://10.0.0.1/iqn.2026-01.test:a/1"
#define N "nfs://10.0.0.1/export/n.img"
#define UUID "6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f"

static struct vmfile file;
static char err[512];

static bool disks(const char *json, const char *one, const char *two)
{
	json_object *o = json_tokener_parse(json);
	bool ok;

	file.n_disks = 0;
	if (one)
		file.disks[file.n_disks++] = (char *)one;
	if (two)
		file.disks[file.n_disks++] = (char *)two;
	err[0] = '\0';
	ok = foreign_same_disks(o, &file, err, sizeof(err));
	json_object_put(o);
	if (!ok)
		printf("# %s\n", err);
	return ok;
}

static bool says(const char *text) { return strstr(err, text) != NULL; }

#define NODE(drv, ro, name) "{\"drv\":\"" drv "\",\"ro\":" ro ",\"file\":\"" name "\",\"node-name\":\"x\"}"

static void test_disks(void)
{
	TAP_OK(disks("[" NODE("raw", "false", A) "," NODE("iscsi", "false", A) "]", A, NULL), "the same disk, as format and as protocol");
	TAP_OK(disks("[" NODE("iscsi", "false", "iscsi://10.0.0.1:3260/iqn.2026-01.test:a/1") "]", A, NULL), "spelt in another way, and the same");
	TAP_OK(!disks("[" NODE("file", "false", "/d/b") "]", A, NULL) && says("/d/b"), "another disk is named");
	TAP_OK(!disks("[" NODE("raw", "false", A) "," NODE("file", "false", "/d/b") "]", A, NULL) && says("/d/b"), "one too many is named");
	TAP_OK(!disks("[" NODE("raw", "false", A) "]", A, N) && says(N), "one too few is named");
	TAP_OK(!disks("[" NODE("raw", "true", A) "]", A, NULL) && says(A), "open for reading only is not open for writing");
	TAP_OK(disks("[" NODE("file", "true", "/iso") "," NODE("raw", "false", A) "]", A, NULL), "what is only read may be anything");
	TAP_OK(disks("[" NODE("null-co", "false", "null-co://") "]", NULL, NULL), "nothing is no disk");
	TAP_OK(!disks("[" NODE("file", "false", "d.img") "]", "/d/d.img", NULL) && says("absolute"), "a relative path is nobody's");
	TAP_OK(disks("[" NODE("file", "false", "file:/d/d.img") "]", "/d/d.img", NULL), "file: is a path");
	TAP_OK(disks("[{\"drv\":\"raw\",\"ro\":false,\"file\":\"json:{\\\"driver\\\": \\\"raw\\\", \\\"file\\\": {\\\"lun\\\": \\\"1\\\", \\\"portal\\\": \\\"10.0.0.1:3260\\\", "
		     "\\\"driver\\\": \\\"iscsi\\\", \\\"transport\\\": \\\"tcp\\\", \\\"target\\\": \\\"iqn.2026-01.test:a\\\"}}\"}]", A, NULL),
	       "iSCSI by options");
	TAP_OK(disks("[{\"drv\":\"nfs\",\"ro\":false,\"file\":\"json:{\\\"driver\\\": \\\"nfs\\\", \\\"path\\\": \\\"/export/n.img\\\", \\\"server\\\": {\\\"host\\\": "
		     "\\\"10.0.0.1\\\", \\\"type\\\": \\\"inet\\\"}}\"}]", N, NULL), "NFS by options");
	TAP_OK(!disks("[{\"drv\":\"ssh\",\"ro\":false,\"file\":\"json:{\\\"driver\\\": \\\"ssh\\\"}\"}]", A, NULL) && says("cannot be told"), "what Disk= does not know is refused");
	TAP_OK(!disks("[{\"drv\":\"file\",\"ro\":false,\"file\":\"json:{\"}]", A, NULL), "and what is no JSON");
	TAP_OK(!disks("[{\"drv\":\"file\",\"ro\":false}]", A, NULL) && !disks("{}", A, NULL) && !disks("[{}]", NULL, NULL), "and what has no name at all");
}

static bool answer(const char *json, bool (*fn)(json_object *o))
{
	json_object *o = json_tokener_parse(json);
	bool ok = fn(o);

	json_object_put(o);
	return ok;
}

static bool devices(json_object *o) { return foreign_writes_itself(o, err, sizeof(err)); }
static bool memory(json_object *o) { return foreign_same_memory(o, &file, err, sizeof(err)); }
static bool cpus(json_object *o) { return foreign_same_cpus(o, &file, err, sizeof(err)); }
static bool uuid(json_object *o) { return foreign_same_uuid(o, UUID, err, sizeof(err)); }
static bool status(json_object *o) { return foreign_settled("query-status", o, err, sizeof(err)); }
static bool migration(json_object *o) { return foreign_settled("query-migrate", o, err, sizeof(err)); }
static bool jobs(json_object *o) { return foreign_settled("query-block-jobs", o, err, sizeof(err)); }
static bool is_thread(void *user, int64_t tid) { return tid == 7 || tid == 8; }
static bool threads(json_object *o) { return foreign_own_threads(o, is_thread, NULL); }

static void test_answers(void)
{
	file.memory_mib = 64;
	file.vcpus = 2;
	TAP_OK(answer("{\"base-memory\":67108864,\"plugged-memory\":0}", memory) && answer("{\"base-memory\":33554432,\"plugged-memory\":33554432}", memory), "memory, plugged too");
	TAP_OK(!answer("{\"base-memory\":33554432}", memory) && !answer("[]", memory), "another size is refused");
	TAP_OK(answer("[{\"thread-id\":7},{\"thread-id\":8}]", cpus) && !answer("[{\"thread-id\":7}]", cpus) && !answer("{}", cpus), "CPUs");
	TAP_OK(answer("[{\"thread-id\":7},{\"thread-id\":8}]", threads) && answer("[{\"thread-id\":7},{\"thread-id\":7}]", threads), "its own threads");
	TAP_OK(!answer("[{\"thread-id\":7},{\"thread-id\":9}]", threads) && !answer("[]", threads) && !answer("[{}]", threads) && !answer("{}", threads), "another process' threads");
	TAP_OK(answer("{\"UUID\":\"" UUID "\"}", uuid) && answer("{\"UUID\":\"00000000-0000-0000-0000-000000000000\"}", uuid), "its UUID, or none");
	TAP_OK(!answer("{\"UUID\":\"7a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f\"}", uuid) && !answer("{}", uuid), "another UUID");
	TAP_OK(answer("{\"status\":\"running\"}", status) && answer("{\"status\":\"suspended\"}", status), "running");
	TAP_OK(!answer("{\"status\":\"prelaunch\"}", status) && !answer("{\"status\":\"paused\"}", status) && !answer("{\"status\":\"inmigrate\"}", status) &&
	       !answer("{\"status\":\"postmigrate\"}", status) && !answer("{}", status), "not running");
	TAP_OK(answer("{}", migration) && answer("{\"status\":\"failed\"}", migration) && !answer("{\"status\":\"active\"}", migration) &&
	       !answer("{\"status\":\"cancelling\"}", migration) && !answer("{\"status\":\"new-one\"}", migration) && !answer("[]", migration), "migrations");
	TAP_OK(answer("[]", jobs) && !answer("[{\"type\":\"mirror\"}]", jobs) && !answer("{}", jobs), "block jobs");
	TAP_OK(answer("[{\"name\":\"type\",\"type\":\"string\"},{\"name\":\"device[0]\",\"type\":\"child<virtio-blk-pci>\"}]", devices) &&
	       !answer("[{\"type\":\"child<vhost-user-blk-pci>\"}]", devices) && !answer("[{\"type\":\"child<vhost-scsi-pci>\"}]", devices) && !answer("{}", devices),
	       "disks that another process writes to");
}

static void test_process(void)
{
	pid_t child = fork();
	uint64_t start;
	int fd;

	if (child == 0) {
		(void)pause();
		_exit(0);
	}
	start = process_start(child);
	TAP_OK(start > 0 && process_start(getpid()) > 0 && process_start(getpid()) <= start, "a process has a start time, not before its parent's");
	TAP_OK(process_has_child(getpid()) == 1 && process_has_child(child) == 0, "who has children is told");
	TAP_OK(process_same_net(getpid(), child), "the same network namespace");
	fd = process_open(child, start);
	TAP_OK(fd >= 0 && !process_gone(fd) && process_open(child, start + 1) == -ESRCH, "it is opened as the one it is, and not as another");
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
	TAP_OK(process_gone(fd) && process_open(child, start) == -ESRCH && process_start(child) == 0, "it is gone");
	(void)close(fd);
	TAP_OK(!process_in_cgroup(getpid(), "no such group", false) && !process_in_cgroup(getpid(), "no such group", true), "it is in no group that is not there");
}

int main(void)
{
	test_disks();
	test_answers();
	test_process();
	return tap_done();
}
