/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time left of a watchdog that runs on without its keeper, when its driver does not tell: by the last pet that was written down. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent/base/clock.h"
#include "fence/watchdog.h"
#include "tests/tap.h"

#define TIMEOUT_MS 10000

static char dir[] = "/tmp/kvm-ha-watchdog-XXXXXX", pet_file[40], device[sizeof("unix:") + sizeof(((struct sockaddr_un *)NULL)->sun_path)];

static void put(const char *text)
{
	FILE *f = fopen(pet_file, "we");

	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void put_age(int64_t age_ms)
{
	char line[32];

	(void)snprintf(line, sizeof(line), "%020" PRId64 "\n", (int64_t)(clock_host_ns() - age_ms * NS_PER_MS));
	put(line);
}

static int64_t written_ns(void)
{
	int64_t at = -1;
	FILE *f = fopen(pet_file, "re");

	if (f && fscanf(f, "%" SCNd64, &at) != 1)
		at = -1;
	if (f)
		(void)fclose(f);
	return at;
}

/* What is left for whoever adopts a watchdog whose supervisor says that so much is left. */
static uint32_t adopted_left(uint32_t told_ms)
{
	struct watchdog w;
	char answer[64], err[256];
	int pair[2];

	watchdog_init(&w, device, pet_file);
	(void)snprintf(answer, sizeof(answer), "Q %d 1 %u", TIMEOUT_MS, told_ms);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 && send(pair[1], answer, strlen(answer), 0) > 0);
	CHECK(watchdog_adopt(&w, pair[0], TIMEOUT_MS, err, sizeof(err)) == 0);
	(void)close(pair[0]);
	(void)close(pair[1]);
	return w.left_ms;
}

/* A supervisor for one start, and for one pet if there is to be an answer to it. */
static pid_t supervise(int listener)
{
	pid_t pid = fork();
	char command[32];
	ssize_t n;
	int fd;

	if (pid != 0)
		return pid;
	fd = accept(listener, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		n = recv(fd, command, sizeof(command), 0);
		if (n <= 0 || send(fd, command, (size_t)n, 0) != n)
			_exit(1);
	}
	_exit(0);
}

static void starts_and_pets(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct watchdog w;
	char err[256];
	int64_t before, started;
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), st = -1, r, pair[2];
	pid_t pid;

	CHECK(str_copy(addr.sun_path, sizeof(addr.sun_path), device + strlen("unix:")));
	CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(listener, 1) == 0);
	pid = supervise(listener);
	CHECK(pid > 0);
	(void)unlink(pet_file);
	watchdog_init(&w, device, pet_file);
	before = clock_host_ns();
	r = watchdog_start(&w, TIMEOUT_MS, err, sizeof(err));
	started = written_ns();
	TAP_OK(r == 0 && started >= before && started <= clock_host_ns(), "a start is a pet, and is written down with the time before it");
	CHECK(waitpid(pid, &st, 0) == pid);
	TAP_OK(WIFEXITED(st) && WEXITSTATUS(st) == 0, "the supervisor was asked for the timeout and the start");
	TAP_OK(watchdog_pet(&w) < 0 && written_ns() == started, "a pet that fails is not");
	(void)close(w.fd);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	w.fd = pair[0];
	before = clock_host_ns();
	TAP_OK(watchdog_pet(&w) == 0 && written_ns() >= before, "a pet that succeeds is");
	(void)close(pair[0]);
	(void)close(pair[1]);
	(void)close(w.pet_fd);
	(void)close(listener);
	(void)unlink(addr.sun_path);
}

int main(void)
{
	uint32_t left;

	CHECK(mkdtemp(dir));
	CHECK(snprintf(pet_file, sizeof(pet_file), "%s/pet", dir) > 0);
	CHECK(snprintf(device, sizeof(device), "unix:%s/wd", dir) > 0);

	TAP_OK(adopted_left(0) == 0, "nothing written down and nothing told: not known");
	put_age(3000);
	left = adopted_left(0);
	TAP_OK(left > 0 && left <= TIMEOUT_MS - 3000, "never more than is left since the last pet: %u ms", left);
	TAP_OK(adopted_left(4321) == 4321, "what the driver tells goes first");
	put_age(TIMEOUT_MS + 1);
	TAP_OK(adopted_left(0) == 1, "a pet too long ago: known, and nothing is left");
	put_age(-60000);
	TAP_OK(adopted_left(0) == 0, "a pet in time to come is none");
	put("");
	TAP_OK(adopted_left(0) == 0, "an empty file is none");
	put("0000000000000000000x\n");
	TAP_OK(adopted_left(0) == 0, "nor is what is no number");
	starts_and_pets();
	(void)unlink(pet_file);
	(void)rmdir(dir);
	return tap_done();
}
