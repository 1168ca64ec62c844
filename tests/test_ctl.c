/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program ha-ctl ($HA_CTL, or ./ha-ctl) as an operator runs it: what it prints, its exit codes, what it does to volumes (files on a disk),
 * and how it takes the answers of an agent, here a child of the test that says what the test wants. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/paths.h"
#include "agent/ctl_client.h"
#include "fence/watchdog_facts.h"
#include "storage/format.h"
#include "tests/tap.h"

#define MAX_ARGS 16
#define VOLUME_LEN (48U << 20)

static char top[] = "/var/tmp/kvm-ha-test-ctl-XXXXXX"; /* on a disk: O_DIRECT */
static const char *program;
static char out[1 << 20], err[1 << 16];

static const char *at(const char *name)
{
	static char path[8][256];
	static unsigned next;

	next = (next + 1) % 8;
	(void)snprintf(path[next], sizeof(path[next]), "%s/%s", top, name);
	return path[next];
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "we");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
}

static void make_volume(const char *name, off_t size)
{
	int fd = open(at(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, size) < 0)
		abort();
	(void)close(fd);
}

static void put_bytes(const char *name, uint64_t offset, const void *data, size_t len)
{
	int fd = open(at(name), O_WRONLY | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, data, len, (off_t)offset) != (ssize_t)len || fsync(fd) < 0)
		abort();
	(void)close(fd);
}

static void get_bytes(const char *name, uint64_t offset, void *data, size_t len)
{
	int fd = open(at(name), O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, data, len, (off_t)offset) != (ssize_t)len)
		abort();
	(void)close(fd);
}

static void slurp(const char *name, char *buf, size_t size)
{
	int fd = open(at(name), O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, buf, size - 1);

	buf[MAX(n, 0)] = '\0';
	(void)close(fd);
}

static pid_t start_ctl(const char *words)
{
	static char copy[1024];
	char *argv[MAX_ARGS + 6] = { (char *)program, "--config", (char *)at("conf"), "--socket", (char *)at("sock") };
	int n = 5;
	pid_t pid;

	(void)snprintf(copy, sizeof(copy), "%s", words);
	for (char *w = strtok(copy, " "); w && n < MAX_ARGS + 5; w = strtok(NULL, " "))
		argv[n++] = w;
	pid = fork();
	if (pid != 0)
		return pid;
	(void)dup2(open(at("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
	(void)dup2(open(at("err"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
	(void)dup2(open(access(at("in"), F_OK) == 0 ? at("in") : "/dev/null", O_RDONLY), 0);
	execv(program, argv);
	_exit(127);
}

static int end_ctl(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	slurp("out", out, sizeof(out));
	slurp("err", err, sizeof(err));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Runs ha-ctl with these words; out and err hold what it printed. */
static int ctl(const char *words) { return end_ctl(start_ctl(words)); }

static bool said(const char *text)
{
	if (strstr(out, text) || strstr(err, text))
		return true;
	printf("# not said: %s\n# out: %.1500s\n# err: %.1500s\n", text, out, err);
	return false;
}

static void configure(const char *volumes)
{
	char text[2048];

	(void)mkdir(at("conf"), 0755);
	(void)snprintf(text, sizeof(text), "[Cluster]\nName=lab\nNodes=n1:1 n2:2 n3:3\nProfile=fast\nVolumes=%s\n[Node]\nName=n1\n", volumes);
	write_file("conf/kvm-ha.conf", text);
}

/* An agent that answers one request with answer (NULL: closes without), and leaves what it was asked in file "asked". */
static pid_t start_agent(const char *answer)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), conn, log;
	char buf[4096];
	ssize_t n;
	pid_t pid;

	(void)unlink(at("sock"));
	(void)str_copy(addr.sun_path, sizeof(addr.sun_path), at("sock"));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		abort();
	pid = fork();
	if (pid != 0) {
		(void)close(fd);
		return pid;
	}
	(void)alarm(60);
	conn = accept(fd, NULL, NULL);
	log = open(at("asked"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	do {
		n = recv(conn, buf, sizeof(buf), 0);
		(void)!write(log, buf, (size_t)MAX(n, 0));
	} while (n > 0 && !memchr(buf, '\n', (size_t)n));
	/* in two pieces: an answer may come in any number of them */
	for (size_t len = answer ? strlen(answer) : 0, half = len / 2, i = 0; len && i < 2; i++)
		(void)send(conn, answer + (i ? half : 0), i ? len - half : half, MSG_NOSIGNAL);
	_exit(0);
}

static int ctl_with_agent(const char *words, const char *answer)
{
	pid_t agent = start_agent(answer);
	int r = ctl(words);

	(void)kill(agent, SIGKILL);
	(void)waitpid(agent, NULL, 0);
	(void)unlink(at("sock"));
	return r;
}

static json_object *asked(void)
{
	static char text[65536];

	slurp("asked", text, sizeof(text));
	return json_tokener_parse(text);
}

static void test_usage(void)
{
	TAP_OK(ctl("") == 64 && said("no command given"), "no command");
	TAP_OK(ctl("statsu") == 64 && said("did you mean status"), "unknown command, with the nearest");
	TAP_OK(ctl("vm") == 64 && said("vm --help"), "a group alone");
	TAP_OK(ctl("vm ad f") == 64 && said("did you mean add"), "unknown verb");
	TAP_OK(ctl("vm add") == 64 && said("missing argument"), "missing argument");
	TAP_OK(ctl("status now") == 64 && said("superfluous argument"), "superfluous argument");
	TAP_OK(ctl("--nonsense status") == 64, "unknown option");
	TAP_OK(ctl("status --force x") == 64 && said("--force is no option"), "another command's option");
	TAP_OK(ctl("-o xml status") == 64 && said("text or json"), "unknown form");
	TAP_OK(ctl("node maintenance maybe n1") == 64, "neither on nor off");
	TAP_OK(ctl("vm show ../etc") == 64, "what is no name is not sent");
	TAP_OK(ctl("node maintenance on n1 --return") == 64 && said("node maintenance off"), "nothing comes back when it begins");
	TAP_OK(ctl("vm relocate web") == 64 && said("missing argument"), "a relocation to nowhere");
	TAP_OK(ctl("vm relocate web n/1") == 64 && said("no name of a node"), "nor to what is no name");
	TAP_OK(ctl("vm stop web --wait") == 64 && said("--wait is no option"), "--wait where nothing waits");
	TAP_OK(ctl("disarm --freeze --ignore") == 64 && said("one of --freeze and --ignore"), "frozen or ignored, not both");
	TAP_OK(ctl("arm --freeze") == 64 && said("no option of `arm`"), "arming freezes nothing");
	TAP_OK(ctl("volume init --nodes-max 65") == 64 && said("--nodes-max 65"), "node limit out of range");
	TAP_OK(ctl("volume init --nodes-max 2") == 64 && said("id 3"), "node limit below a node's id");
	TAP_OK(ctl("volume dump /x --what heartbeat") == 64 && said("heartbeats"), "unknown part of a dump");
	TAP_OK(ctl("--help") == 0 && said("volume init") && said("Exit codes"), "--help lists the commands");
	TAP_OK(ctl("vm --help") == 0 && said("vm show") && !strstr(out, "volume"), "--help of a group");
	TAP_OK(ctl("volume init --help") == 0 && said("--nodes-max N"), "--help of a command");
	TAP_OK(ctl("--version") == 0 && strncmp(out, "ha-ctl ", 7) == 0, "--version");
}

static void test_config(void)
{
	char text[512];

	TAP_OK(ctl("config check") == 0 && said("OK: cluster lab") && said("I1") && said("10.194 s"), "a good configuration");
	TAP_OK(ctl("-o json config check") == 0 && said("\"failover_bound_ms\": 10194"), "and as JSON");
	TAP_OK(ctl("config show") == 0 && said("Name=lab"), "config show");
	write_file("conf/kvm-ha.conf", "[Cluster]\nName=lab\nNodes=n1:1\nVolumes=/dev/null\n[Timing]\nDrain=1ms\n");
	TAP_OK(ctl("config check") == 78 && said("kvm-ha.conf:6") && said("I6"), "an unsafe one names file, line and rule");
	TAP_OK(ctl("volume list") == 78, "and no other command takes it");
	TAP_OK(ctl("-o json config check") == 78 && strstr(out, "\"error\""), "also said as JSON");
	(void)snprintf(text, sizeof(text), "[Cluster]\nName=lab\nNodes=n1:1\nVolumes=/dev/null\nSecretFile=%s\n", at("chap"));
	write_file("conf/kvm-ha.conf", text);
	TAP_OK(ctl("config check") == 78 && said("chap") && said("No such file"), "a secret file that is not there");
	write_file("chap", "user=guest\npassword=hunter2\n\n[iqn.2026-01.test:a]\nuser=hunter2\n");
	TAP_OK(chmod(at("chap"), 0644) == 0 && ctl("config check") == 78 && said("0600"), "one that others can read");
	TAP_OK(chmod(at("chap"), 0600) == 0 && ctl("config check") == 78 && said("chap:4: user= and password=") && !said("hunter2"), "a mistake, with its line and no secret");
	write_file("chap", "user=guest\npassword=hunter2\n");
	TAP_OK(ctl("config check") == 0, "a good one");
	TAP_OK(ctl("--config /nonexistent config check") == 78 && said("/nonexistent"), "none at all");
}

/* A copy of a blank heartbeat slot with another seq: what a keeper that lives would write. */
static void beat(const char *name, uint32_t node, uint64_t seq, const uint8_t cluster[16])
{
	struct heartbeat hb = { .node = node, .epoch = 7, .seq = seq, .state = HEARTBEAT_ARMED, .ring = HEARTBEAT_RING_OK, .view = 3 };
	uint8_t block[FORMAT_BLOCK];

	hb.alive[0] = 4;
	heartbeat_encode(&hb, cluster, 0, block);
	put_bytes(name, format_heartbeat_offset(node, 0), block, sizeof(block));
}

static bool superblock_of(const char *name, struct superblock *ret)
{
	uint8_t block[FORMAT_BLOCK];

	get_bytes(name, 0, block, sizeof(block));
	return superblock_decode(block, 0, NULL, ret) == FORMAT_OK;
}

static void test_init(void)
{
	struct superblock a = { 0 }, b = { 0 };
	char words[512], volumes[512];
	uint8_t byte = 1;

	(void)snprintf(volumes, sizeof(volumes), "%s %s", at("a.img"), at("b.img"));
	configure(volumes);
	make_volume("a.img", VOLUME_LEN);
	make_volume("b.img", VOLUME_LEN);
	TAP_OK(ctl("volume list") == 1 && said("blank"), "blank volumes are listed as bad");
	(void)snprintf(words, sizeof(words), "volume init %s %s", at("b.img"), at("a.img"));
	TAP_OK(ctl(words) == 1 && said("is not volume 1") && !superblock_of("a.img", &a), "URLs in another order than the configuration's");
	TAP_OK(ctl("volume init --nodes-max 64") == 1 && said("142606336"), "too small for the node limit");
	put_bytes("b.img", (24U << 20) + 12345, &byte, 1);
	TAP_OK(ctl("volume init") == 1 && said("data that is not ours") && !superblock_of("a.img", &a), "one foreign byte refuses all");
	TAP_OK(ctl("volume init --force /nowhere") == 1, "a --force that does not name it does not help");
	(void)snprintf(words, sizeof(words), "volume init --force %s", at("b.img"));
	TAP_OK(ctl(words) == 0 && said("Cluster lab is made"), "the right --force does");
	TAP_OK(superblock_of("a.img", &a) && superblock_of("b.img", &b) && memcmp(a.cluster, b.cluster, 16) == 0 && a.index == 0 && b.index == 1 &&
	       memcmp(a.set, b.set, sizeof(a.set)) == 0 && a.generation == 1 && a.node_limit == 16 && a.timing.w_ms == 4444,
	       "both superblocks are of one set");
	TAP_OK(ctl("volume list") == 0 && said("2 of 2"), "and the volumes are good");
	TAP_OK(ctl("volume init") == 1 && said("belongs to cluster lab"), "a second init is refused");
	TAP_OK(ctl("volume init --force lab --force lbb") == 1 && said("--force lbb"), "a --force that names nothing is a mistake");
}

static void test_live(void)
{
	struct superblock old = { 0 }, now = { 0 };
	struct timespec step = { .tv_nsec = 100 * NS_PER_MS };
	uint64_t seq = 1;
	int status;
	pid_t pid;

	(void)superblock_of("a.img", &old);
	beat("a.img", 2, seq, old.cluster);
	pid = start_ctl("volume init --force lab");
	while (waitpid(pid, &status, WNOHANG) == 0) {
		beat("a.img", 2, ++seq, old.cluster);
		(void)nanosleep(&step, NULL);
	}
	slurp("err", err, sizeof(err));
	slurp("out", out, sizeof(out));
	TAP_OK(WIFEXITED(status) && WEXITSTATUS(status) == 1 && said("in use: node 2 of cluster lab"), "a living cluster is not overwritten");
	TAP_OK(superblock_of("a.img", &now) && memcmp(old.cluster, now.cluster, 16) == 0, "nothing was written");
	TAP_OK(ctl("volume init --force lab") == 0 && superblock_of("a.img", &now) && memcmp(old.cluster, now.cluster, 16) != 0,
	       "when it has been silent for W it is");
}

static void test_dump(void)
{
	char words[512], json[] = "{\"vms\":[]}";
	static struct claims claims = { .node = 3, .epoch = 9, .seq = 5, .n = 1 };
	static uint8_t block[FORMAT_CLAIMS_LEN];
	struct catalog_head head = { .node = 1, .epoch = 2, .seq = 3, .generation = 4, .len = sizeof(json) - 1 };
	struct superblock sb = { 0 };
	json_object *o, *list;

	(void)superblock_of("a.img", &sb);
	beat("a.img", 2, 77, sb.cluster);
	claims.claim[0] = (struct claim){ .vm = { 0xab }, .generation = 12, .epoch = 9, .state = CLAIM_ACTIVE };
	claims_encode(&claims, sb.cluster, 1, block);
	put_bytes("a.img", format_claims_offset(3, 1), block, sizeof(block));
	catalog_encode(&head, json, sb.cluster, 0, block);
	put_bytes("a.img", format_catalog_offset(1, 0), block, catalog_block_len(head.len));
	put_bytes("a.img", format_heartbeat_offset(4, 1) + 500, "torn", 4);
	(void)snprintf(words, sizeof(words), "volume dump %s", at("a.img"));
	TAP_OK(ctl(words) == 0 && said("cluster              lab"), "a dump of all");
	TAP_OK(said("node 2, buffer 0 (newest): valid") && said("armed") && said("{\"1\":4}"), "with the heartbeat");
	TAP_OK(said("node 4, buffer 1: damaged"), "the torn buffer");
	TAP_OK(said("ab000000-0000-0000-0000-000000000000") && said("active"), "the claim");
	TAP_OK(said("{\"vms\":[]}"), "the catalog");
	(void)snprintf(words, sizeof(words), "-o json volume dump %s --what heartbeats", at("a.img"));
	TAP_OK(ctl(words) == 0, "one part as JSON");
	o = json_tokener_parse(out);
	TAP_OK(json_object_object_get_ex(o, "heartbeats", &list) && json_object_array_length(list) == 32 &&
	       !json_object_object_get_ex(o, "claims", NULL), "has every buffer, and no other part");
	json_object_put(o);
	make_volume("c.img", VOLUME_LEN);
	(void)snprintf(words, sizeof(words), "volume dump %s", at("c.img"));
	TAP_OK(ctl(words) == 1 && said("no valid superblock") && said("blank"), "a blank volume cannot be dumped, and says so");
	(void)snprintf(words, sizeof(words), "volume dump %s", at("none.img"));
	TAP_OK(ctl(words) == 1 && said("No such file"), "nor one that is not there");
	put_bytes("a.img", 0, "KVMHXXXX", 8);
	TAP_OK(ctl("volume list") == 0, "one bad superblock copy of two is no harm");
	put_bytes("a.img", FORMAT_BLOCK, "KVMHXXXX", 8);
	TAP_OK(ctl("volume list") == 1 && said("not a kvm-ha block"), "both are");
	TAP_OK(ctl("volume init") == 1 && said("without a valid superblock"), "then it still counts as ours");
}

/* Claims of node 3, and a heartbeat that says in which state it is. */
static void live_on(const char *name, enum heartbeat_state state, uint64_t seq, const uint8_t cluster[16])
{
	struct heartbeat hb = { .node = 3, .epoch = 7, .seq = seq, .state = state, .claims_seq = seq };
	static struct claims claims = { .node = 3, .epoch = 7, .n = 1 };
	static uint8_t block[FORMAT_CLAIMS_LEN];

	heartbeat_encode(&hb, cluster, 1, block);
	put_bytes(name, format_heartbeat_offset(3, 1), block, FORMAT_BLOCK);
	claims.seq = seq;
	claims.claim[0] = (struct claim){ .vm = { 0xab }, .generation = 12, .epoch = 7, .state = CLAIM_ACTIVE };
	claims_encode(&claims, cluster, 0, block);
	put_bytes(name, format_claims_offset(3, 0), block, claims_block_len(1));
}

static bool has_claims(const char *name, uint64_t seq, const uint8_t cluster[16])
{
	static uint8_t block[FORMAT_CLAIMS_LEN];
	static struct claims claims;
	bool all = true;

	for (unsigned b = 0; b < 2; b++) {
		get_bytes(name, format_claims_offset(3, b), block, sizeof(block));
		all = all && claims_decode(block, 3, b, cluster, &claims) == FORMAT_OK && claims.seq == seq && claims.n == 1 && claims.claim[0].generation == 12;
	}
	return all;
}

static void configure_names(const char *a, const char *b, const char *c)
{
	char volumes[1024] = "";
	const char *name[] = { a, b, c };

	for (unsigned i = 0; i < 3 && name[i]; i++) {
		(void)strcat(volumes, at(name[i]));
		(void)strcat(volumes, " ");
	}
	configure(volumes);
}

static int ctl_about(const char *verb, const char *a, const char *b, const char *options)
{
	char words[1024];

	(void)snprintf(words, sizeof(words), "volume %s %s", verb, at(a));
	if (b)
		(void)snprintf(words + strlen(words), sizeof(words) - strlen(words), " %s", at(b));
	(void)snprintf(words + strlen(words), sizeof(words) - strlen(words), " %s", options);
	return ctl(words);
}

static void test_volset(void)
{
	static const uint8_t zero[2 * FORMAT_BLOCK];
	char words[512];
	struct superblock sb = { 0 };
	json_object *o, *head;
	uint8_t byte = 1, block[FORMAT_BLOCK];

	make_volume("v1.img", VOLUME_LEN);
	make_volume("v2.img", VOLUME_LEN);
	make_volume("v3.img", VOLUME_LEN);
	configure_names("v1.img", "v2.img", NULL);
	TAP_OK(ctl("volume init") == 0 && superblock_of("v1.img", &sb), "a set of two");
	live_on("v1.img", HEARTBEAT_ARMED, 5, sb.cluster);
	live_on("v2.img", HEARTBEAT_ARMED, 5, sb.cluster);
	TAP_OK(ctl_about("add", "v3.img", NULL, "") == 1 && said("not in Volumes="), "a volume that is not in Volumes= is not added");
	configure_names("v1.img", "v2.img", "v3.img");
	TAP_OK(ctl_about("add", "v3.img", NULL, "") == 1 && said("node n3: it is armed") && said("ha-ctl disarm"), "nor while a node is armed");
	TAP_OK(superblock_of("v1.img", &sb) && !sb.frozen && sb.generation == 1 && !superblock_of("v3.img", &sb), "and nothing was written");
	(void)superblock_of("v1.img", &sb);
	live_on("v1.img", HEARTBEAT_DISARMED, 6, sb.cluster);
	live_on("v2.img", HEARTBEAT_DISARMED, 6, sb.cluster);
	put_bytes("v3.img", (24U << 20) + 12345, &byte, 1);
	TAP_OK(ctl_about("add", "v3.img", NULL, "") == 1 && said("not this cluster's"), "nor over foreign data");
	(void)snprintf(words, sizeof(words), "--force %s", at("v3.img"));
	TAP_OK(ctl_about("add", "v3.img", NULL, words) == 0 && said("generation 2"), "but with --force, once all are disarmed");
	TAP_OK(superblock_of("v3.img", &sb) && sb.index == 2 && sb.n_volumes == 3 && has_claims("v3.img", 6, sb.cluster), "with everybody's claims, in both buffers");
	TAP_OK(ctl("volume list") == 0 && said("3 of 3"), "all three are good");

	/* Claims that reached volumes 2 and 3; the first is replaced. */
	live_on("v2.img", HEARTBEAT_DISARMED, 9, sb.cluster);
	live_on("v3.img", HEARTBEAT_DISARMED, 9, sb.cluster);
	make_volume("v4.img", VOLUME_LEN);
	TAP_OK(ctl_about("replace", "v1.img", "v4.img", "") == 1 && said("not in Volumes="), "a replacement that is not in Volumes=");
	configure_names("v2.img", "v4.img", "v3.img");
	TAP_OK(ctl_about("replace", "v1.img", "v4.img", "") == 1 && said("another order"), "or at another place");
	configure_names("v4.img", "v2.img", "v3.img");
	TAP_OK(ctl_about("replace", "v1.img", "v4.img", "") == 0 && has_claims("v4.img", 9, sb.cluster) && ctl("volume list") == 0, "in its place it is done");
	configure_names("v1.img", "v2.img", "v3.img");
	TAP_OK(ctl("volume list") == 1 && said("taken out of it"), "and who was replaced is named");
	configure_names("v4.img", "v2.img", "v3.img");

	put_bytes("v2.img", 0, zero, sizeof(zero));
	live_on("v2.img", HEARTBEAT_DISARMED, 3, sb.cluster);
	TAP_OK(ctl("volume list") == 1 && ctl_about("replace", "v2.img", NULL, "") == 0 && has_claims("v2.img", 9, sb.cluster) && ctl("volume list") == 0,
	       "a volume that was wiped and has old claims is replaced by itself");

	configure_names("v4.img", "v3.img", NULL);
	TAP_OK(ctl_about("remove", "v2.img", NULL, "") == 0 && ctl("volume list") == 0 && said("2 of 2"), "a volume is taken out");
	TAP_OK(ctl_about("remove", "v2.img", NULL, "") == 0, "once more: nothing to do");
	TAP_OK(superblock_of("v3.img", &sb) && sb.generation == 5 && sb.n_volumes == 2 && !sb.frozen, "five generations");
	sb.generation--;
	sb.frozen = true;
	superblock_encode(&sb, 1, block);
	put_bytes("v3.img", format_superblock_offset(1), block, sizeof(block));
	TAP_OK(ctl_about("remove", "v2.img", NULL, "") == 0 && said("interrupted change was finished"), "power went between two copies of a superblock: run again it is finished");
	get_bytes("v3.img", format_superblock_offset(1), block, sizeof(block));
	TAP_OK(superblock_decode(block, 1, NULL, &sb) == FORMAT_OK && sb.generation == 5 && !sb.frozen, "in both copies");

	(void)snprintf(words, sizeof(words), "-o json volume dump %s --what superblock", at("v2.img"));
	TAP_OK(ctl(words) == 0, "the one that went can be looked at");
	o = json_tokener_parse(out);
	TAP_OK(json_object_object_get_ex(o, "superblock", &head) &&
	       strstr(json_object_to_json_string(json_object_array_get_idx(head, 0)), "\"frozen\": true"), "it is frozen");
	json_object_put(o);
	(void)unlink(at("v3.img"));
	make_volume("v1.img", VOLUME_LEN);
	configure_names("v4.img", "v1.img", NULL);
	TAP_OK(ctl_about("replace", "v3.img", "v1.img", "") == 1 && said("add --lost") && superblock_of("v4.img", &sb) && !sb.frozen,
	       "one of two is lost: not without the operator's word");
	TAP_OK(ctl_about("replace", "v3.img", "v1.img", "--lost") == 0 && has_claims("v1.img", 9, sb.cluster) && ctl("volume list") == 0, "with it");
}

static bool wait_for_out(const char *text)
{
	struct timespec step = { .tv_nsec = 20 * NS_PER_MS };

	for (int i = 0; i < 1000; i++) {
		slurp("out", out, sizeof(out));
		if (strstr(out, text))
			return true;
		(void)nanosleep(&step, NULL);
	}
	return false;
}

/* How often the process has read anything. */
static long long reads_of(pid_t pid)
{
	char path[64], line[128];
	long long n = -1;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "syscr: %lld", &n) == 1)
			break;
	if (f)
		(void)fclose(f);
	return n;
}

/* What comes into the set holds somebody else's data, and slots of this cluster from long ago. */
static void test_volset_foreign(void)
{
	static const uint8_t zero[FORMAT_BLOCK];
	struct superblock own = { 0 }, other = { 0 }, now = { 0 };
	struct timespec step = { .tv_nsec = 100 * NS_PER_MS };
	uint8_t block[FORMAT_BLOCK];
	char words[1024];
	long long before, after;
	uint64_t seq = 1;
	int status;
	pid_t pid;

	make_volume("w1.img", VOLUME_LEN);
	make_volume("w2.img", VOLUME_LEN);
	configure_names("w1.img", NULL, NULL);
	TAP_OK(ctl("volume init") == 0 && superblock_of("w1.img", &own), "a set of one");
	live_on("w1.img", HEARTBEAT_DISARMED, 5, own.cluster);
	live_on("w2.img", HEARTBEAT_DISARMED, 3, own.cluster);
	configure_names("w1.img", "w2.img", NULL);

	other = own;
	memset(other.cluster, 0x77, sizeof(other.cluster));
	(void)str_copy(other.cluster_name, sizeof(other.cluster_name), "prod");
	superblock_encode(&other, 1, block);
	put_bytes("w2.img", FORMAT_BLOCK, block, sizeof(block));
	TAP_OK(ctl_about("add", "w2.img", NULL, "") == 1 && said("belongs to cluster prod") && said("--force"), "another cluster's volume is not added, and the cluster is named");
	superblock_encode(&own, 0, block);
	put_bytes("w2.img", 0, block, sizeof(block));
	TAP_OK(ctl_about("add", "w2.img", NULL, "") == 1 && said("belongs to cluster prod"), "nor one that two clusters have written to");
	put_bytes("w2.img", 0, "\xeb\x3c GPT and more of it", 20);
	put_bytes("w2.img", FORMAT_BLOCK, zero, sizeof(zero));
	TAP_OK(ctl_about("add", "w2.img", NULL, "") == 1 && said("not this cluster's"), "nor another program's data beside a block that is blank");
	put_bytes("w2.img", 0, zero, sizeof(zero));
	beat("w2.img", 2, seq, other.cluster);
	TAP_OK(ctl_about("add", "w2.img", NULL, "") == 1 && said("without a valid superblock"), "nor one without a superblock that both clusters have slots on");
	get_bytes("w2.img", 0, block, sizeof(block));
	TAP_OK(memcmp(block, zero, sizeof(zero)) == 0 && superblock_of("w1.img", &now) && now.generation == own.generation, "nothing was written by all that");

	superblock_encode(&other, 0, block);
	put_bytes("w2.img", 0, block, sizeof(block));
	(void)snprintf(words, sizeof(words), "volume add %s --force %s", at("w2.img"), at("w2.img"));
	pid = start_ctl(words);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		beat("w2.img", 2, ++seq, other.cluster);
		(void)nanosleep(&step, NULL);
	}
	slurp("err", err, sizeof(err));
	slurp("out", out, sizeof(out));
	TAP_OK(WIFEXITED(status) && WEXITSTATUS(status) == 1 && said("in use: node 2 of cluster prod"), "with --force neither, while that cluster lives");
	TAP_OK(superblock_of("w2.img", &now) && memcmp(now.cluster, other.cluster, 16) == 0 && superblock_of("w1.img", &now) && !now.frozen, "and nothing was written");

	pid = start_ctl(words);
	(void)wait_for_out("no VM is started");
	before = reads_of(pid);
	step = (struct timespec){ .tv_sec = 2, .tv_nsec = 500 * NS_PER_MS };
	(void)nanosleep(&step, NULL);
	after = reads_of(pid);
	TAP_OK(before < 0 || after > before, "volumes are read while it waits, so that no target takes the session for dead: %lld, %lld", before, after);
	TAP_OK(end_ctl(pid) == 0, "added by force");
	TAP_OK(superblock_of("w2.img", &now) && memcmp(now.cluster, own.cluster, 16) == 0, "once it has been silent for W it is");
}

static void test_client(void)
{
	TAP_OK(ctl("status") == 69 && said(at("sock")) && said("systemctl status ha-agent"), "no agent");
	TAP_OK(ctl("-o json status") == 69 && strstr(out, "\"ok\": false") && said("\"temporary\": false"), "also as JSON");
	TAP_OK(ctl_with_agent("arm", NULL) == 69 && said("closed"), "an agent that hangs up");
	TAP_OK(ctl_with_agent("arm", "hello\n") == 69 && said("not an agent"), "something that is no agent");
	TAP_OK(ctl_with_agent("arm", "[1]\n") == 69, "JSON but no object");
	TAP_OK(ctl_with_agent("arm", "{\"api_version\":2,\"ok\":true}\n") == 69 && said("version"), "another version");
	TAP_OK(ctl_with_agent("arm", "{\"api_version\":1,\"ok\":true}\n") == 0 && said("armed"), "arm");
	TAP_OK(ctl_with_agent("arm", "{\"api_version\":1,\"ok\":false,\"error\":\"no watchdog: load one\",\"temporary\":false}\n") == 1 &&
	       said("no watchdog: load one"), "a refusal is 1");
	TAP_OK(ctl_with_agent("arm", "{\"api_version\":1,\"ok\":false,\"error\":\"no leader yet\",\"temporary\":true}\n") == 75 && said("no leader yet"),
	       "a temporary one is 75");
	TAP_OK(ctl_with_agent("arm", "{\"api_version\":1}\n") == 1, "an answer without ok is none");
}

/* What takes too long for the program's own 30 s, or does not fit its command line. */
static void test_client_limits(void)
{
	static char huge[CTL_CLIENT_MAX_LINE + 4096];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	json_object *request = json_object_new_object(), *answer = NULL;
	char why[1024] = "", deep[256];
	struct timespec t0, t1;

	(void)str_copy(addr.sun_path, sizeof(addr.sun_path), at("sock"));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 0) < 0)
		abort();
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < 3; i++) /* more than the backlog: the last ones wait in connect */
		TAP_OK(ctl_client_ask(at("sock"), request, 200, &answer, why, sizeof(why)) == -ETIMEDOUT && !answer && strstr(why, "does not answer"),
		       "a silent agent is waited for only so long");
	(void)clock_gettime(CLOCK_MONOTONIC, &t1);
	TAP_OK((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000 >= 450, "but so long");
	(void)close(fd);
	(void)unlink(at("sock"));
	json_object_put(request);

	memset(huge, 'x', sizeof(huge) - 1);
	TAP_OK(ctl_with_agent("arm", huge) == 69 && said("above 1 MiB"), "an endless answer");
	memset(deep, '[', sizeof(deep));
	(void)snprintf(deep + 200, sizeof(deep) - 200, "\n");
	memcpy(deep, "{\"x\":", 5);
	TAP_OK(ctl_with_agent("arm", deep) == 69 && said("not an agent"), "a bottomless one");
}

static void test_vm(void)
{
	static const char good[] = "[VM]\nName=web\nMemory=64M\nVCPUs=1\n[QEMU]\nBinary=/usr/bin/qemu-system-x86_64\n";
	json_object *o, *text;
	char words[512];

	write_file("web.vm", good);
	(void)snprintf(words, sizeof(words), "vm add %s", at("web.vm"));
	TAP_OK(ctl_with_agent(words, "{\"api_version\":1,\"ok\":true,\"name\":\"web\",\"uuid\":\"u-1\"}\n") == 0 && said("VM web added, UUID u-1."), "vm add");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "text", &text) && strstr(json_object_get_string(text), "[VM]\nUUID=") &&
	       strstr(json_object_get_string(text), "Name=web\n"), "sends the text, with a UUID");
	json_object_put(o);
	write_file("web.vm", "[VM]\nName=web\nMemry=64M\n");
	TAP_OK(ctl(words) == 1 && said("web.vm:3:") && said("Memory"), "a mistake names file and line, with no agent");
	TAP_OK(ctl("vm add /nonexistent.vm") == 1 && said("/nonexistent.vm"), "a file that is not there");
	TAP_OK(ctl_with_agent("vm show web", "{\"api_version\":1,\"ok\":true,\"vm\":{\"name\":\"web\",\"uuid\":\"u\",\"state\":\"running\",\"node\":\"n2\","
			      "\"desired\":\"started\",\"reason\":\"\",\"text\":\"[VM]\\nName=web\\n\"}}\n") == 0 && said("node     n2") && said("[VM]\nName=web\n"),
	       "vm show");
	TAP_OK(ctl_with_agent("vm stop web", "{\"api_version\":1,\"ok\":true}\n") == 0, "vm stop");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "command", &text) && strcmp(json_object_get_string(text), "vm-stop") == 0 &&
	       json_object_object_get_ex(o, "name", &text) && strcmp(json_object_get_string(text), "web") == 0, "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_agent("node maintenance on n2", "{\"api_version\":1,\"ok\":true}\n") == 0, "node maintenance");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "on", &text) && json_object_get_boolean(text) && json_object_object_get_ex(o, "node", &text), "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_agent("events", "{\"api_version\":1,\"ok\":true,\"events\":[{\"id\":1,\"time_ms\":1700000000000,\"level\":\"err\","
			      "\"text\":\"VM web\\u001b[31m failed\"}]}\n") == 0 && said("2023-11-1") && said("VM web?[31m failed"),
	       "events, without the control characters of strangers");
}

/* One answer after the other, a connection each, and the last one again and again. */
static pid_t start_answers(const char *const *answer, int n)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), conn, log;
	char buf[4096];
	pid_t pid;

	(void)unlink(at("sock"));
	(void)str_copy(addr.sun_path, sizeof(addr.sun_path), at("sock"));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		abort();
	pid = fork();
	if (pid != 0) {
		(void)close(fd);
		return pid;
	}
	(void)alarm(60);
	log = open(at("asked"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (int i = 0;; i += i < n - 1) {
		ssize_t got;

		conn = accept(fd, NULL, NULL);
		do {
			got = recv(conn, buf, sizeof(buf), 0);
			(void)!write(log, buf, (size_t)MAX(got, 0));
		} while (got > 0 && !memchr(buf, '\n', (size_t)got));
		(void)send(conn, answer[i], strlen(answer[i]), MSG_NOSIGNAL);
		(void)close(conn);
	}
}

static int ctl_with_answers(const char *words, const char *const *answer, int n)
{
	pid_t agent = start_answers(answer, n);
	int r = ctl(words);

	(void)kill(agent, SIGKILL);
	(void)waitpid(agent, NULL, 0);
	(void)unlink(at("sock"));
	return r;
}

/* Whether ha-ctl sent these words, and nothing before them that is not before them here. */
static bool asked_in_order(const char *first, const char *then, const char *last)
{
	static char text[65536];
	const char *p;

	slurp("asked", text, sizeof(text));
	p = strstr(text, first);
	p = p ? strstr(p, then) : NULL;
	p = p ? strstr(p, last) : NULL;
	if (!p)
		printf("# asked: %s\n", text);
	return p;
}

#define OK_ANSWER "{\"api_version\":1,\"ok\":true"
#define SHOWN(state, node, desired, number, more) OK_ANSWER ",\"vm\":{\"name\":\"web\",\"state\":\"" state "\",\"node\":" node ",\"desired\":\"" \
	desired "\",\"move_number\":" number "," more "}}\n"
#define FORGOTTEN "\"failed_on\":[]"

static void test_relocate(void)
{
	static const char accepted[] = OK_ANSWER ",\"from\":\"n1\",\"to\":\"n2\",\"number\":4,\"desired\":\"started\"}\n";
	static const char *const moved[] = { accepted,
		"{\"api_version\":1,\"ok\":false,\"error\":\"no catalog yet\",\"temporary\":true}\n",
		SHOWN("running", "\"n1\"", "started", "3", "\"move_to\":null"), /* this node's catalog is an older one */
		SHOWN("stopping", "\"n1\"", "started", "4", "\"move_to\":\"n2\""),
		SHOWN("starting", "\"n2\"", "started", "4", "\"move_to\":\"n2\""),
		SHOWN("waiting", "null", "started", "4", "\"move_to\":null"), /* the claim is not seen here yet */
		SHOWN("starting", "\"n2\"", "started", "4", "\"move_to\":null"),
		SHOWN("running", "\"n2\"", "started", "4", "\"move_to\":null") };
	static const char *const elsewhere[] = { accepted, SHOWN("stopping", "\"n1\"", "started", "4", "\"move_to\":\"n2\""),
		SHOWN("running", "\"n3\"", "started", "4", "\"move_to\":null") };
	static const char *const newer[] = { accepted, SHOWN("running", "\"n2\"", "started", "5", "\"move_to\":\"n3\"") };
	static const char *const stopped[] = { accepted, SHOWN("stopped", "null", "stopped", "4", "\"move_to\":\"n2\"") };
	static const char *const removed[] = { accepted, "{\"api_version\":1,\"ok\":false,\"error\":\"no VM named web\",\"temporary\":false}\n" };
	json_object *o, *text;

	TAP_OK(ctl_with_agent("vm relocate web n2", accepted) == 0 && said("VM web is being moved from n1 to n2"), "vm relocate");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "command", &text) && strcmp(json_object_get_string(text), "vm-relocate") == 0 &&
	       json_object_object_get_ex(o, "name", &text) && strcmp(json_object_get_string(text), "web") == 0 &&
	       json_object_object_get_ex(o, "node", &text) && strcmp(json_object_get_string(text), "n2") == 0, "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_agent("vm relocate web n2 -o json", accepted) == 0 && said("\"number\": 4"), "as JSON");
	TAP_OK(ctl_with_agent("vm relocate web n2", "{\"api_version\":1,\"ok\":false,\"error\":\"node n2 is in maintenance\",\"temporary\":false}\n") == 1 &&
	       said("in maintenance"), "refused with the reason");
	TAP_OK(ctl_with_agent("vm relocate web n2 --wait", OK_ANSWER ",\"from\":null,\"number\":4,\"desired\":\"stopped\"}\n") == 0 &&
	       said("on its next start it is started on n2"), "what is stopped is not waited for");
	TAP_OK(ctl_with_answers("vm relocate web n2 --wait", moved, ARRAY_SIZE(moved)) == 0 && said("VM web runs on n2."), "--wait until it runs there");
	TAP_OK(asked_in_order("vm-relocate", "vm-show", "vm-show"), "asked once, looked after that");
	TAP_OK(ctl_with_answers("-o json vm relocate web n2 --wait", moved, ARRAY_SIZE(moved)) == 0 && out[0] == '{' && said("\"state\": \"running\"") &&
	       !strstr(out, "\"from\""), "as JSON: one object, how it is then");
	TAP_OK(ctl_with_answers("vm relocate web n2 --wait", elsewhere, ARRAY_SIZE(elsewhere)) == 1 && said("was not moved to n2: it is running on n3"),
	       "it came to run elsewhere: that failed");
	TAP_OK(ctl_with_answers("vm relocate web n2 --wait", newer, ARRAY_SIZE(newer)) == 1 && said("not moved"), "another request came in between");
	TAP_OK(ctl_with_answers("vm relocate web n2 --wait", stopped, ARRAY_SIZE(stopped)) == 1 && said("wanted stopped"), "it was stopped meanwhile");
	TAP_OK(ctl_with_answers("vm relocate web n2 --wait", removed, ARRAY_SIZE(removed)) == 1 && said("no VM named web"), "or removed");
}

static void test_migrate(void)
{
	static const char accepted[] = OK_ANSWER ",\"from\":\"n1\",\"to\":\"n2\",\"number\":4,\"desired\":\"started\"}\n";
	static const char *const moved[] = { accepted,
		SHOWN("running", "\"n1\"", "started", "4", "\"move_to\":\"n2\",\"migration\":{\"percent\":40,\"remaining\":1048576}"),
		SHOWN("running", "\"n1\"", "started", "4", "\"move_to\":\"n2\",\"migration\":{\"percent\":40,\"remaining\":1048576}"),
		SHOWN("running", "\"n1\"", "started", "4", "\"move_to\":\"n2\",\"migration\":7"),
		SHOWN("migrating", "\"n2\"", "started", "4", "\"move_to\":\"n2\""),
		SHOWN("running", "\"n2\"", "started", "4", "\"move_to\":null") };
	static const char *const stayed[] = { accepted, SHOWN("running", "\"n1\"", "started", "4", "\"move_to\":null") };
	json_object *o, *text;
	const char *first;

	TAP_OK(ctl("vm migrate web") == 64 && said("to which node?"), "a migration to nowhere");
	TAP_OK(ctl("vm migrate web n/1") == 64 && said("no name of a node"), "nor to what is no name");
	TAP_OK(ctl("vm migrate web n2 --cancel") == 64 && ctl("vm migrate web --cancel --wait") == 64, "--cancel stands alone");
	TAP_OK(ctl("vm relocate web n2 --cancel") == 64 && said("--cancel is no option"), "and is for nothing else");
	TAP_OK(ctl_with_agent("vm migrate web n2", accepted) == 0 && said("VM web is being migrated to n2"), "vm migrate");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "command", &text) && strcmp(json_object_get_string(text), "vm-migrate") == 0 &&
	       json_object_object_get_ex(o, "node", &text) && strcmp(json_object_get_string(text), "n2") == 0, "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_agent("vm migrate web --cancel", OK_ANSWER "}\n") == 0 && said("called off"), "vm migrate --cancel");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "command", &text) && strcmp(json_object_get_string(text), "vm-migrate-cancel") == 0, "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_answers("vm migrate web n2 --wait", moved, ARRAY_SIZE(moved)) == 0 && said("VM web runs on n2.") && !strchr(out, '%'),
	       "--wait until it runs there; no bar into a file");
	TAP_OK(ctl_with_answers("-o json vm migrate web n2 --wait", moved, ARRAY_SIZE(moved)) == 0, "as JSON");
	first = strstr(out, "{\"percent\":40,\"remaining\":1048576}\n");
	TAP_OK(first == out && !strstr(first + 12, "percent") && said("\"state\": \"running\""), "a line when something changes, then how it is");
	TAP_OK(ctl_with_answers("vm migrate web n2 --wait", stayed, ARRAY_SIZE(stayed)) == 1 && said("was not moved to n2: it is running on n1"),
	       "it stayed: that failed, and where it is is said");
}

/* What fails half-way leaves the VM stopped, and clear-error is refused then. */
static void test_half_cleared(void)
{
#define STOPPED SHOWN("stopped", "null", "stopped", "0", FORGOTTEN)
#define REFUSED(why, temporary) "{\"api_version\":1,\"ok\":false,\"error\":\"" why "\",\"temporary\":" temporary "}\n"
	static const char *const unseen[] = { OK_ANSWER "}\n", REFUSED("cannot show it", "false") };
	static const char *const refused[] = { OK_ANSWER "}\n", STOPPED, REFUSED("VM web is frozen", "false") };
	static const char *const later[] = { OK_ANSWER "}\n", STOPPED, REFUSED("no node leads", "true"), REFUSED("the leader changed", "true"), OK_ANSWER "}\n" };
	static const char remedy[] = "; the VM is wanted stopped now; `ha-ctl vm start web` starts it";

	TAP_OK(ctl_with_answers("vm clear-error web", unseen, ARRAY_SIZE(unseen)) == 1 && said("cannot show it") && said(remedy),
	       "clear-error that cannot look whether it is forgotten says how the VM is left");
	TAP_OK(ctl_with_answers("vm clear-error web", refused, ARRAY_SIZE(refused)) == 1 && said("VM web is frozen") && said(remedy), "so does one whose start is refused");
	TAP_OK(ctl_with_answers("-o json vm clear-error web", refused, ARRAY_SIZE(refused)) == 1 && strstr(out, remedy), "as JSON");
	TAP_OK(ctl_with_answers("vm clear-error web", later, ARRAY_SIZE(later)) == 0 && said("failures of VM web are forgotten"), "a start that is refused for a time is asked for again");
	TAP_OK(ctl_with_agent("vm clear-error web", REFUSED("VM web is not in error", "false")) == 1 && !strstr(err, remedy), "nothing was done: nothing to mend");
}

static void test_hands_off(void)
{
	static const char *const cleared[] = { OK_ANSWER "}\n", SHOWN("error", "null", "started", "0", "\"failed_on\":[\"n1\",\"n2\"]"),
		SHOWN("stopped", "null", "stopped", "0", "\"failed_on\":[\"n2\"]"), SHOWN("stopped", "null", "stopped", "0", FORGOTTEN), OK_ANSWER "}\n" };
	json_object *o, *v;

	TAP_OK(ctl_with_agent("vm ignore web", OK_ANSWER "}\n") == 0 && said("VM web is ignored"), "vm ignore");
	TAP_OK(ctl_with_agent("vm freeze web", OK_ANSWER "}\n") == 0 && said("VM web is frozen"), "vm freeze");
	TAP_OK(ctl_with_agent("vm unfreeze web", OK_ANSWER "}\n") == 0 && said("VM web is unfrozen"), "vm unfreeze");
	TAP_OK(ctl("adopt web 12") == 64 && said("missing argument") && ctl("adopt web 1 /q") == 64 && ctl("adopt web x /q") == 64 && said("no number of a process") &&
	       ctl("adopt web 12 q") == 64 && said("no absolute path"), "adopt: what is missing or wrong");
	TAP_OK(ctl_with_agent("adopt web 12 /run/q", OK_ANSWER "}\n") == 0 && said("VM web is adopted: it is process 12"), "adopt");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "pid", &v) && json_object_get_int(v) == 12 && json_object_object_get_ex(o, "socket", &v) &&
	       strcmp(json_object_get_string(v), "/run/q") == 0, "asks for that process and that socket");
	json_object_put(o);
	TAP_OK(ctl_with_agent("disarm --freeze", OK_ANSWER "}\n") == 0 && said("moved meanwhile"), "disarm --freeze");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "pause", &v) && strcmp(json_object_get_string(v), "freeze") == 0, "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_agent("disarm", OK_ANSWER "}\n") == 0, "disarm alone");
	o = asked();
	TAP_OK(!json_object_object_get_ex(o, "pause", &v), "asks for neither");
	json_object_put(o);
	(void)mkdir("/run/kvm-ha", 0750);
	(void)unlink(PATHS_LEAVE_OVER);
	TAP_OK(ctl_with_agent("node leave", OK_ANSWER ",\"going_down\":false}\n") == 0 && said("does not go down") && access(PATHS_LEAVE_OVER, F_OK) < 0, "node leave: the host stays");
	TAP_OK(ctl_with_agent("node leave", OK_ANSWER ",\"going_down\":true,\"left\":true,\"vms\":0,\"timeout_ms\":1000}\n") == 0 && said("left to wait for"),
	       "node leave: all have left");
	TAP_OK((access(PATHS_LEAVE_OVER, F_OK) == 0 && unlink(PATHS_LEAVE_OVER) == 0) || geteuid() != 0, "and leaves word for the keeper");
	TAP_OK(ctl_with_agent("node leave", OK_ANSWER ",\"going_down\":true,\"left\":false,\"vms\":3,\"timeout_ms\":-1}\n") == 1 && said("3 VMs have not left"),
	       "node leave: not for ever");
	TAP_OK(ctl_with_agent("node leave", OK_ANSWER ",\"going_down\":true,\"left\":false,\"in_vain\":true}\n") == 1 && said("no quorum"), "node leave: in vain");
	TAP_OK((access(PATHS_LEAVE_OVER, F_OK) == 0 && unlink(PATHS_LEAVE_OVER) == 0) || geteuid() != 0, "as it does then");
	TAP_OK(ctl_with_agent("node stop", OK_ANSWER ",\"status\":{\"self\":\"n2\",\"lease\":\"armed\",\"armed\":true,\"nodes\":[{\"name\":\"n1\",\"maintenance\":true},"
				     "{\"name\":\"n2\",\"maintenance\":false}]}}\n") == 1 && said("node maintenance on n2"),
	       "node stop: not while VMs may be started here");
	TAP_OK(ctl_with_agent("node fence n2", OK_ANSWER ",\"fencing\":\"asked\"}\n") == 0 && said("is to be fenced") && said("`ha-ctl events` tells"), "node fence");
	TAP_OK(ctl_with_agent("node fence n2 --off", OK_ANSWER ",\"fencing\":\"over\"}\n") == 0 && said("had its lease end before") && said("switched off"),
	       "node fence of what is over");
	TAP_OK(ctl_with_agent("node maintenance off n2 --return", OK_ANSWER "}\n") == 0 && said("come back"), "node maintenance off --return");
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "return", &v) && json_object_get_boolean(v), "asks for that");
	json_object_put(o);
	TAP_OK(ctl_with_answers("vm clear-error web", cleared, ARRAY_SIZE(cleared)) == 0 && said("failures of VM web are forgotten"), "vm clear-error");
	TAP_OK(asked_in_order("vm-clear-error", "vm-show", "vm-start"), "starts it when every node has forgotten");
	TAP_OK(ctl_with_agent("vm clear-error web", "{\"api_version\":1,\"ok\":false,\"error\":\"VM web is not in error\",\"temporary\":false}\n") == 1 &&
	       said("not in error"), "nothing to clear");
}

static void end_agent(pid_t agent)
{
	(void)waitpid(agent, NULL, 0); /* after one answer it ends by itself */
	(void)unlink(at("sock"));
}

/* Each agent answers once, so between two of them ha-ctl finds nobody there. */
static void test_follow(void)
{
	pid_t agent = start_agent("{\"api_version\":1,\"ok\":true,\"events\":[{\"id\":7,\"time_ms\":1700000000000,\"level\":\"notice\",\"text\":\"first\"}]}\n");
	pid_t pid = start_ctl("events --follow");
	json_object *o, *since;

	TAP_OK(wait_for_out("first\n"), "events --follow prints what is there");
	end_agent(agent);
	for (int i = 0; i < 1000 && !strstr(err, "waiting for it"); i++) {
		struct timespec step = { .tv_nsec = 20 * NS_PER_MS };

		(void)nanosleep(&step, NULL);
		slurp("err", err, sizeof(err));
	}
	TAP_OK(said("waiting for it"), "says that the agent is gone");
	agent = start_agent("{\"api_version\":1,\"ok\":true,\"events\":[{\"id\":1,\"time_ms\":1700000000000,\"level\":\"notice\",\"text\":\"first\"},"
			    "{\"id\":2,\"time_ms\":1700000009000,\"level\":\"notice\",\"text\":\"second\"}]}\n");
	TAP_OK(wait_for_out("second\n"), "goes on with the next one");
	TAP_OK(strstr(out, "first") && !strstr(strstr(out, "first") + 1, "first"), "without repeating itself");
	end_agent(agent);
	o = asked();
	TAP_OK(json_object_object_get_ex(o, "since", &since) && json_object_get_int64(since) == 0, "having asked from the start: ids may be new");
	json_object_put(o);
	(void)kill(pid, SIGTERM);
	TAP_OK(end_ctl(pid) == -1, "until it is ended");
}

#define EMPTIED(more) OK_ANSWER ",\"status\":{\"self\":\"n1\"," more "}}\n"
#define NODE_OF(maintenance, vms) "\"nodes\":[{\"name\":\"n2\",\"maintenance\":" maintenance ",\"vms\":" vms "}],"
#define VM_ON(node) "\"vms\":[{\"name\":\"web\",\"desired\":\"started\",\"state\":\"running\",\"node\":\"" node "\"}]"

/* The agent that is asked is restarted meanwhile. */
static void test_maintenance(void)
{
	static const char restarted[] = EMPTIED("\"known\":false," NODE_OF("false", "0") "\"vms\":[]");
	static const char *const emptied[] = { restarted, EMPTIED("\"known\":true," NODE_OF("false", "1") VM_ON("n2")), OK_ANSWER "}\n",
		EMPTIED("\"known\":true," NODE_OF("true", "1") VM_ON("n2")), restarted, restarted,
		EMPTIED("\"known\":false," NODE_OF("true", "0") "\"vms\":[]"), EMPTIED("\"known\":true," NODE_OF("true", "1") VM_ON("n2")),
		EMPTIED("\"known\":true," NODE_OF("true", "0") VM_ON("n1")) };
	int r = ctl_with_answers("node maintenance on n2 --wait", emptied, ARRAY_SIZE(emptied));

	TAP_OK(r == 0 && said("VM web: running on n1.") && said("Node n2 is empty."), "an agent that has just been started does not tell that a maintenance is over, or done: %d", r);
	TAP_OK(ctl_with_agent("node list", restarted) == 0 && said("n2") && strstr(out, "  -\n"), "node list: it does not know of VMs");
	TAP_OK(ctl_with_agent("vm list", restarted) == 0 && said("does not know yet") && !strstr(out, "No VMs"), "nor does vm list");
	TAP_OK(ctl_with_agent("status", restarted) == 0 && said(" * n1's agent has just been started") && !strstr(out, "`ha-ctl arm`"), "nor status");
}

/* An agent that can never show what it is asked for; this takes as long as ha-ctl's patience is, beside all else. */
static pid_t start_late(pid_t *ret_agent)
{
	static const char *const never[] = { OK_ANSWER "}\n", "{\"api_version\":1,\"ok\":false,\"error\":\"no catalog yet\",\"temporary\":true}\n" };
	struct timespec step = { .tv_nsec = 20 * NS_PER_MS };
	pid_t pid;

	*ret_agent = start_answers(never, 2);
	for (int i = 0; i < 500 && access(at("asked"), F_OK) < 0; i++)
		(void)nanosleep(&step, NULL);
	if (unlink(at("asked")) < 0 || rename(at("sock"), at("late-sock")) < 0)
		abort();
	pid = fork();
	if (pid != 0)
		return pid;
	(void)dup2(open(at("late-out"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
	(void)dup2(1, 2);
	(void)execl(program, program, "--config", at("conf"), "--socket", at("late-sock"), "-o", "json", "vm", "clear-error", "web", NULL);
	_exit(127);
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void end_late(pid_t pid, pid_t agent)
{
	int status = 0;

	(void)waitpid(pid, &status, 0);
	slurp("late-out", out, sizeof(out));
	*err = '\0';
	TAP_OK(WIFEXITED(status) && WEXITSTATUS(status) == 75 && said("no catalog yet") && said("\"temporary\": true"), "what is temporary to the end of all patience is 75");
	end_child(agent);
}

#define NODE(id, state, more) "{\"name\":\"n" id "\",\"id\":" id ",\"state\":\"" state "\",\"armed\":true,\"maintenance\":false,\"epoch\":3," \
	"\"agent\":true,\"vms\":1," more "}"
#define FINE "\"ring\":\"ok\",\"reason\":\"\""
#define STATUS(leader, quorum, lists) "{\"api_version\":1,\"ok\":true,\"status\":{\"cluster\":\"lab\",\"armed\":true,\"leader\":" leader \
	",\"self\":\"n1\",\"epoch\":3,\"keeper\":\"connected\",\"lease\":\"armed\",\"reason\":\"\",\"quorum\":" quorum \
	",\"ring\":{\"state\":\"ok\",\"encrypted\":true},\"watchdog\":{\"device\":\"/dev/watchdog\",\"running\":true}," lists "}}\n"
#define GOOD_QUORUM "{\"volumes\":3,\"good\":3,\"renew\":2,\"fence\":2,\"ok\":true}"
#define GOOD_VOLUME "\"volumes\":[{\"url\":\"/dev/a\",\"state\":\"ready\",\"reason\":\"\"}]"

static void test_status(void)
{
	static const char healthy[] = STATUS("\"n1\"", GOOD_QUORUM, "\"nodes\":[" NODE("1", "online", FINE) "," NODE("2", "online", FINE) "],"
		GOOD_VOLUME ",\"vms\":[{\"name\":\"web\",\"uuid\":\"u\",\"state\":\"running\",\"node\":\"n2\",\"desired\":\"started\",\"restarts\":0,"
		"\"reason\":\"\"}]");
	static const char degraded[] = STATUS("\"n1\"", "{\"volumes\":3,\"good\":1,\"renew\":2,\"fence\":2,\"ok\":false}",
		"\"nodes\":[" NODE("1", "online", FINE) "," NODE("2", "fencing", "\"ring\":\"lost\",\"reason\":\"silent for 3 s\"") "],"
		"\"volumes\":[{\"url\":\"/dev/a\",\"state\":\"failed\",\"reason\":\"no answer\"}],\"vms\":[{\"name\":\"web\",\"uuid\":\"u\","
		"\"state\":\"waiting\",\"node\":null,\"desired\":\"started\",\"restarts\":2,\"reason\":\"n2 is not proven over\"}]");
	static const char left[] = STATUS("\"n1\",\"pause\":\"freeze\"", GOOD_QUORUM, "\"nodes\":[" NODE("1", "online", FINE) "]," GOOD_VOLUME ",\"vms\":["
		"{\"name\":\"web\",\"state\":\"error\",\"node\":null,\"desired\":\"started\",\"reason\":\"it has failed\"},"
		"{\"name\":\"db\",\"state\":\"running\",\"node\":\"n2\",\"desired\":\"ignored\",\"reason\":\"ignored: nobody\"},"
		"{\"name\":\"mail\",\"state\":\"stopping\",\"node\":\"n1\",\"desired\":\"started\",\"reason\":\"moving to n2\"}]");
	static const char headless[] = STATUS("null", GOOD_QUORUM, "\"nodes\":[" NODE("1", "online", FINE) "]," GOOD_VOLUME ",\"vms\":[]");
	static const char troubled[] = STATUS("\"n1\"", GOOD_QUORUM, "\"nodes\":[" NODE("1", "online", FINE) "],\"volumes\":["
		"{\"url\":\"/dev/a\",\"state\":\"ready\",\"reason\":\"\",\"trouble\":\"slow\",\"trouble_since_ms\":1000},"
		"{\"url\":\"/dev/b\",\"state\":\"failed\",\"reason\":\"rolled back\",\"trouble\":\"stale\",\"trouble_since_ms\":1000},"
		"{\"url\":\"/dev/c\",\"state\":\"ready\",\"reason\":\"\",\"trouble\":\"none\",\"trouble_since_ms\":0}],\"vms\":[]");
	static const char unproven[] = STATUS("\"n1\"", GOOD_QUORUM, "\"nodes\":[" NODE("1", "online", "\"evidence\":\"watchdog\"," FINE) ","
		NODE("2", "online", "\"evidence\":\"none\"," FINE) "," NODE("3", "fencing", "\"evidence\":\"none\",\"ring\":\"ok\",\"reason\":\"silent\"") "],"
		GOOD_VOLUME ",\"vms\":[]");
	const char *problem, *table;

	TAP_OK(ctl_with_agent("status", troubled) == 0 && said(" * volume /dev/a: slow since 1970-01-01 ") && said("!! volume /dev/b: stale since 1970-01-01 ") &&
	       said(": rolled back") && said("`ha-ctl volume replace`") && !strstr(out, "/dev/c") && said("1 problem,"), "volumes in trouble, and since when");
	TAP_OK(ctl_with_agent("status", healthy) == 0 && said("Cluster lab: all is well, armed; 2 of 2 nodes online, 1 of 1 volumes ready, "
							      "1 of 1 VMs running; n1 leads."), "a healthy cluster in one sentence");
	TAP_OK(!strstr(out, "!!") && !strstr(out, " * ") && !strchr(out, '\033'), "no problems, and no colors in a file");
	TAP_OK(said("leader (this node)") && said("web"), "then its nodes and VMs");
	TAP_OK(ctl_with_agent("-o json status", healthy) == 0 && said("\"leader\": \"n1\""), "as JSON");
	TAP_OK(ctl_with_agent("status", degraded) == 0 && said("Cluster lab: 4 problems"), "a degraded one counts its problems");
	TAP_OK(said("node n2: is being fenced: silent for 3 s") && said("1 of 3 volumes can be used, 2 are needed") &&
	       said("volume /dev/a: failed: no answer") && said("VM web waits to be started: n2 is not proven over"), "and names them with their reasons");
	TAP_OK(said("-> `ha-ctl volume list`"), "says what to do next");
	problem = strstr(out, "!! node n2");
	table = strstr(out, "NODE  ID");
	TAP_OK(problem && table && problem < table, "problems come first");
	TAP_OK(ctl_with_agent("status", left) == 0 && said("!! VM web is in error: it has failed") && said("`ha-ctl vm clear-error NAME`"), "a VM in error");
	TAP_OK(said("* VM db is running and ignored") && said("`ha-ctl vm start NAME` or"), "one that is ignored");
	TAP_OK(said("* all VMs are frozen") && said("moving to n2") && said("1 problem,"), "all that are frozen, one on its way: no problems of their own");
	TAP_OK(ctl_with_agent("status", unproven) == 0 && said("Cluster lab: 2 problems") && said("!! node n2: Evidence=no: if it is lost its VMs stay down") && !strstr(out, "!! node n1"),
	       "a node whose silence proves nothing is a problem");
	TAP_OK(said("!! node n3 is being fenced: silent") && said("`ha-ctl node confirm-fenced NODE`"), "once it is lost an operator has to say so");
	TAP_OK(ctl_with_agent("status", headless) == 0 && said("no node leads") && said("No VMs"), "no leader");
	TAP_OK(ctl_with_agent("node list", degraded) == 0 && said("fencing") && !strstr(out, "Cluster"), "node list");
	TAP_OK(ctl_with_agent("vm list", degraded) == 0 && said("waiting"), "vm list");
	TAP_OK(ctl_with_agent("status", "{\"api_version\":1,\"ok\":true,\"status\":{\"nodes\":[1,null,{\"name\":7}],\"vms\":{},\"volumes\":[[]]}}\n") == 0,
	       "a status of the wrong shape does no harm");
	TAP_OK(ctl_with_agent("status", "{\"api_version\":1,\"ok\":true}\n") == 69, "none at all is an error");
}

/* A watchdog that never bites: it answers all that it is asked, and leaves that in file "dog". */
static pid_t start_dog(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), conn, log;
	char buf[64];
	ssize_t n;
	pid_t pid;

	(void)unlink(at("wd"));
	(void)str_copy(addr.sun_path, sizeof(addr.sun_path), at("wd"));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		abort();
	log = open(at("dog"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	pid = fork();
	if (pid != 0) {
		(void)close(fd);
		(void)close(log);
		return pid;
	}
	(void)alarm(60);
	conn = accept(fd, NULL, NULL);
	while ((n = recv(conn, buf, sizeof(buf), 0)) > 0) {
		(void)!write(log, buf, (size_t)n);
		(void)send(conn, buf, (size_t)n, MSG_NOSIGNAL);
	}
	_exit(0);
}

static bool stands(const char *name, const char *text)
{
	char is[1024];

	slurp(name, is, sizeof(is));
	if (!streq(is, text))
		printf("# %s: %s\n", name, is);
	return streq(is, text);
}

static bool wait_for_file(const char *name)
{
	struct timespec step = { .tv_nsec = 20 * NS_PER_MS };
	struct stat st;

	for (int i = 0; i < 500; i++) {
		if (stat(at(name), &st) == 0 && st.st_size > 0)
			return true;
		(void)nanosleep(&step, NULL);
	}
	return false;
}

#define IDLE(self, more) OK_ANSWER ",\"status\":{\"self\":\"n1\",\"armed\":false,\"lease\":\"disarmed\",\"watchdog\":{\"running\":false},\"nodes\":[{\"name\":\"n1\"," \
	self "}]" more "}}\n"
#define SLOW "unix:x 5000 9000 5\n"

static void test_watchdog_test(void)
{
#define STARTED(more) ",\"vms\":[{\"name\":\"web\",\"desired\":\"started\"," more "}]"
	static const char *const idle[] = { IDLE("\"vms\":0", ",\"vms\":[]") };
	static const char *const idle_then_not[] = { idle[0], IDLE("\"vms\":1", STARTED("\"node\":\"n1\"")) };
	static const char unknown[] = IDLE("\"vms\":0", ",\"known\":false,\"vms\":[]"), elsewhere[] = IDLE("\"vms\":0", ",\"pause\":\"none\"" STARTED("\"node\":\"n2\""));
	static const char *const none_starts[] = { IDLE("\"maintenance\":true,\"vms\":0", ",\"known\":true" STARTED("\"node\":\"n2\"")),
		IDLE("\"vms\":0", ",\"pause\":\"freeze\"" STARTED("\"node\":null")), IDLE("\"vms\":0", STARTED("\"frozen\":true")),
		IDLE("\"vms\":0", ",\"vms\":[{\"name\":\"web\",\"desired\":\"stopped\"}]") };
	char text[512], words[320];
	struct watchdog_record record = { 0 };
	struct timespec wait = { .tv_sec = 4, .tv_nsec = 500 * NS_PER_MS };
	pid_t agent, dog, pid;

	if (access("/run", W_OK) < 0) {
		TAP_OK(true, "watchdog test # SKIP not root");
		return;
	}
	(void)snprintf(text, sizeof(text), "[Cluster]\nName=lab\nNodes=n1:1 n2:2\nProfile=standard\nVolumes=/dev/null\n[Node]\nName=n1\n[Watchdog]\nDevice=unix:%s\n", at("wd"));
	write_file("conf/kvm-ha.conf", text);
	write_file("in", "n1\n");
	write_file("record", SLOW);
	(void)snprintf(words, sizeof(words), "watchdog test -o %s", at("record"));

	TAP_OK(ctl_with_agent(words, unknown) == 75 && said("has not read yet"), "no test while it is not known what runs here");
	TAP_OK(ctl_with_agent(words, elsewhere) == 1 && said("may be started") && said("maintenance on n1"), "nor while a VM of another node may come to be started here");
	TAP_OK(ctl_with_answers(words, idle_then_not, 2) == 1 && said("1 VMs run on this host") && said("Type the host's name"), "nor where one has come before the host's name was typed");
	for (size_t i = 0; i < ARRAY_SIZE(none_starts); i++)
		TAP_OK(ctl_with_answers(words, &none_starts[i], 1) == 1 && said("connect"), "where none can come it is begun (%zu)", i);
	TAP_OK(ctl_with_answers(words, idle, 1) == 1 && said("connect") && stands("record", SLOW), "a watchdog that cannot be started leaves the record of an earlier test");
	TAP_OK(access(WATCHDOG_TEST_MARK, F_OK) < 0 && access(at("record.new"), F_OK) < 0, "and nothing else");

	agent = start_answers(idle, 1);
	dog = start_dog();
	pid = start_ctl(words);
	TAP_OK(wait_for_file("record.new"), "a test begins");
	(void)kill(pid, SIGINT);
	TAP_OK(end_ctl(pid) == 1 && said("called off") && stands("dog", "T5000SV"), "Ctrl-C calls it off, and the watchdog is stopped");
	TAP_OK(stands("record", SLOW) && access(at("record.new"), F_OK) < 0 && access(WATCHDOG_TEST_MARK, F_OK) < 0, "the earlier record stays");
	end_child(dog);

	dog = start_dog();
	pid = start_ctl(words);
	(void)wait_for_file("record.new");
	end_child(pid);
	TAP_OK(stands("record", SLOW), "one that is killed before the timeout leaves it, too");
	end_child(dog);
	(void)unlink(WATCHDOG_TEST_MARK);
	(void)unlink(at("record.new"));

	dog = start_dog();
	pid = start_ctl(words);
	(void)wait_for_file("record.new");
	(void)nanosleep(&wait, NULL);
	(void)kill(pid, SIGINT);
	(void)kill(pid, SIGHUP);
	wait.tv_sec = 0;
	(void)nanosleep(&wait, NULL);
	TAP_OK(waitpid(pid, NULL, WNOHANG) == 0, "where the watchdog may bite at any moment it cannot be called off");
	end_child(pid); /* as the reset does */
	(void)watchdog_record_read(at("record"), &record);
	TAP_OK(record.timeout_ms == 5000 && record.elapsed_ms >= 4500 && record.elapsed_ms != 9000,
	       "what was measured until the reset is the record now: %" PRId64 " ms", record.elapsed_ms);
	end_child(dog);
	end_child(agent);
	(void)unlink(at("sock"));
	(void)unlink(at("in"));
	(void)unlink(WATCHDOG_TEST_MARK);
	configure("/dev/null");
}

int main(void)
{
	pid_t late, late_agent;
	char command[128];

	program = getenv("HA_CTL") ? getenv("HA_CTL") : "./ha-ctl";
	if (access(program, X_OK) < 0 || !mkdtemp(top)) {
		printf("Bail out! %s: %s\n", program, strerror(errno));
		return 1;
	}
	configure("/dev/null");
	late = start_late(&late_agent);
	test_usage();
	test_config();
	test_init();
	test_live();
	test_dump();
	test_volset();
	test_volset_foreign();
	test_client();
	test_client_limits();
	test_watchdog_test();
	test_vm();
	test_relocate();
	test_migrate();
	test_hands_off();
	test_half_cleared();
	test_follow();
	test_maintenance();
	test_status();
	end_late(late, late_agent);
	(void)snprintf(command, sizeof(command), "rm -rf %s", top);
	(void)!system(command);
	return tap_done();
}
