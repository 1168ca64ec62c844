/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The time left of a watchdog that runs on without its keeper, when its driver does not tell: by the last pet that was written down. And what is refused, of a device and
 * of its driver: /dev/null plays the device, this program's ioctl() its driver, a folder sysfs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent/base/clock.h"
#include "fence/watchdog.h"
#include "fence/watchdog_facts.h"
#include "tests/tap.h"

#define TIMEOUT_MS 10000
#define DEVICE "/dev/null"
#define DEVICE_NUMBERS "1:3"

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
	CHECK(watchdog_adopt(&w, pair[0], TIMEOUT_MS, false, err, sizeof(err)) == 0);
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

/* The driver, and what it was asked for */
static struct driver {
	uint32_t options;
	int takes_s;       /* its timeout whatever it is asked for; 0: what it is asked for */
	int set_error, stop_error;
	int timeout_s, left_s;
	unsigned asked;    /* for anything: it was opened */
	unsigned pets;
	bool stopped;
	unsigned closed_well; /* magic characters written */
} driver;

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	driver.asked++;
	switch (request) {
	case WDIOC_GETSUPPORT:
		((struct watchdog_info *)arg)->options = driver.options;
		return 0;
	case WDIOC_SETTIMEOUT:
		if (driver.set_error) {
			errno = driver.set_error;
			return -1;
		}
		driver.timeout_s = driver.takes_s ? driver.takes_s : *(int *)arg;
		return 0;
	case WDIOC_GETTIMEOUT:
		*(int *)arg = driver.timeout_s;
		return 0;
	case WDIOC_GETTIMELEFT:
		*(int *)arg = driver.left_s;
		return 0;
	case WDIOC_SETOPTIONS:
		errno = driver.stop_error;
		driver.stopped = driver.stop_error == 0 && *(int *)arg == WDIOS_DISABLECARD;
		return driver.stop_error ? -1 : 0;
	case WDIOC_KEEPALIVE:
		driver.pets++;
		return 0;
	}
	errno = ENOTTY;
	return -1;
}

ssize_t write(int fd, const void *data, size_t len)
{
	if (len == 1 && *(const char *)data == 'V')
		driver.closed_well++;
	return syscall(SYS_write, fd, data, len);
}

static void sysfs_put(const char *attribute, const char *value)
{
	char path[128];
	FILE *f;

	CHECK(snprintf(path, sizeof(path), "%s/watchdog1/%s", dir, attribute) > 0);
	if (!value) {
		(void)unlink(path);
		return;
	}
	f = fopen(path, "we");
	CHECK(f && fprintf(f, "%s\n", value) > 0 && fclose(f) == 0);
}

/* As of softdog, with a timeout of TIMEOUT_MS */
static void plug_in(void)
{
	driver = (struct driver){ .options = WDIOF_MAGICCLOSE | WDIOF_KEEPALIVEPING | WDIOF_SETTIMEOUT, .timeout_s = 60 };
	sysfs_put("dev", DEVICE_NUMBERS);
	sysfs_put("nowayout", "0");
	sysfs_put("state", "active");
	sysfs_put("max_timeout", "65535");
}

static struct watchdog w;
static char err[512];

static int start(void)
{
	watchdog_init(&w, DEVICE, NULL);
	w.sysfs = dir;
	*err = '\0';
	return watchdog_start(&w, TIMEOUT_MS, err, sizeof(err));
}

static void let_go(void)
{
	if (w.fd >= 0)
		(void)close(w.fd);
	w.fd = -1;
}

/* It was refused with these words after it had been opened, and closed so that it does not bite. */
static void refused(int want, const char *words, const char *what)
{
	int r = start();

	TAP_OK(r == want && strstr(err, words) && w.fd < 0 && driver.closed_well == 1, "%s: %s", what, err);
	let_go();
}

static void drivers(void)
{
	plug_in();
	TAP_OK(start() == 0 && w.timeout_ms == TIMEOUT_MS && driver.timeout_s == TIMEOUT_MS / 1000, "a driver that takes the timeout is started: %s", err);
	TAP_OK(watchdog_pet(&w) == 0 && watchdog_stop(&w, err, sizeof(err)) == 0 && driver.stopped && driver.closed_well == 1 && w.fd < 0,
	       "it is stopped at once, and closed the magic way");

	plug_in();
	driver.options &= ~(uint32_t)WDIOF_MAGICCLOSE;
	refused(-EOPNOTSUPP, "neither magic close nor nowayout", "one that any close stops");
	plug_in();
	driver.options &= ~(uint32_t)WDIOF_KEEPALIVEPING;
	refused(-EOPNOTSUPP, "WDIOC_KEEPALIVE", "one that cannot be petted");
	plug_in();
	driver.takes_s = 11;
	refused(-ERANGE, "at least 11 s", "a longer timeout (I4)");
	plug_in();
	driver.set_error = EINVAL;
	refused(-ERANGE, "at least 60 s", "one whose timeout cannot be set");
	plug_in();
	driver.takes_s = 9;
	refused(-ERANGE, "write Watchdog=9s", "a shorter timeout, that would come before the soft deadline");
	plug_in();
	driver.set_error = EIO;
	refused(-EIO, "WDIOC_SETTIMEOUT", "a driver that fails");
	plug_in();
	driver.takes_s = INT32_MAX;
	refused(-ERANGE, "its timeout is", "a timeout beyond all sense");
}

static void stops(void)
{
	plug_in();
	CHECK(start() == 0);
	driver.stop_error = ENOTTY;
	TAP_OK(watchdog_stop(&w, err, sizeof(err)) == 0 && driver.closed_well == 1, "a driver without WDIOC_SETOPTIONS is closed the magic way");
	plug_in();
	CHECK(start() == 0);
	sysfs_put("state", NULL);
	TAP_OK(watchdog_stop(&w, err, sizeof(err)) == 0 && !driver.stopped && driver.closed_well == 1,
	       "nor is it stopped before that where nobody who adopts it could see it");
}

static int again(bool may_rest)
{
	int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);

	watchdog_init(&w, DEVICE, pet_file);
	w.sysfs = dir;
	return watchdog_adopt(&w, fd, TIMEOUT_MS, may_rest, err, sizeof(err));
}

/* The driver never stops. */
static void rests(void)
{
	unsigned pets;

	plug_in();
	sysfs_put("nowayout", "1");
	driver.options &= ~(uint32_t)WDIOF_MAGICCLOSE;
	driver.stop_error = EBUSY;
	(void)unlink(pet_file);
	watchdog_init(&w, DEVICE, pet_file);
	w.sysfs = dir;
	TAP_OK(watchdog_start(&w, TIMEOUT_MS, err, sizeof(err)) == 0 && !w.rests && driver.timeout_s == TIMEOUT_MS / 1000 && written_ns() > 0, "nowayout is started as others are: %s", err);
	pets = driver.pets;
	TAP_OK(watchdog_keep_resting(&w) == 0 && driver.pets == pets, "no time pets it");
	TAP_OK(watchdog_stop(&w, err, sizeof(err)) == 0 && w.fd >= 0 && w.rests && driver.closed_well == 0, "stopped it rests, open");
	TAP_OK(driver.timeout_s == 600 && w.rest_ms == 600000 && driver.pets == pets + 1, "for long, and just petted");
	TAP_OK(watchdog_keep_resting(&w) == 0 && driver.pets == pets + 2, "time pets it now");
	TAP_OK(watchdog_stop(&w, err, sizeof(err)) == 0 && w.rests, "stopped twice it still does");
	let_go();
	TAP_OK(again(true) == 0 && w.rests && w.left_ms == 0, "the next keeper goes on with that");
	let_go();
	driver.timeout_s = 600;
	TAP_OK(again(false) == -ERANGE && w.fd < 0 && driver.timeout_s == 600, "but not one that had been armed: %s", err);
	CHECK(again(true) == 0);
	driver.takes_s = 11;
	TAP_OK(watchdog_start(&w, TIMEOUT_MS, err, sizeof(err)) == -ERANGE && w.rests, "one that does not take the timeout again rests on: %s", err);
	driver.takes_s = 0;
	pets = driver.pets;
	TAP_OK(watchdog_start(&w, TIMEOUT_MS, err, sizeof(err)) == 0 && !w.rests && driver.timeout_s == TIMEOUT_MS / 1000 && driver.pets > pets && written_ns() > 0,
	       "started again it is as others are");
	let_go();
	TAP_OK(again(true) == 0 && !w.rests, "and no keeper after this takes it for one that rests");
	CHECK(watchdog_stop(&w, err, sizeof(err)) == 0 && w.rests);
	w.pet_file = "/nowhere/pet";
	(void)close(w.pet_fd);
	w.pet_fd = -1;
	TAP_OK(watchdog_start(&w, TIMEOUT_MS, err, sizeof(err)) < 0 && w.rests, "what cannot be written down is not started: %s", err);
	let_go();

	/* Held, and Device= says another: that one's turn comes once this is stopped. */
	for (unsigned i = 0; i < 2; i++) {
		int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);

		driver.stop_error = i == 0 ? EBUSY : 0;
		driver.stopped = false;
		driver.timeout_s = TIMEOUT_MS / 1000;
		watchdog_init(&w, i == 0 ? "/dev/zero" : CONF_NO_WATCHDOG, pet_file);
		w.sysfs = dir;
		put("00000000000000000001\n");
		TAP_OK(watchdog_adopt(&w, fd, TIMEOUT_MS, false, err, sizeof(err)) == 0 && streq(w.device, DEVICE) && !w.is_none, "another watchdog that runs is gone on with: %s", err);
		CHECK(watchdog_stop(&w, err, sizeof(err)) == 0);
		if (i == 0)
			TAP_OK(w.rests && streq(w.device, DEVICE), "one that rests stays");
		else
			TAP_OK(driver.stopped && w.fd < 0 && w.is_none, "one that is stopped gives way");
		let_go();
	}
	driver.timeout_s = 600;
	CHECK(again(false) == -ERANGE);
	driver.stop_error = EBUSY;
	TAP_OK(watchdog_drop(&w, open(DEVICE, O_WRONLY | O_CLOEXEC), err, sizeof(err)) == 0 && w.rests && w.fd >= 0, "what could not be gone on with rests once nothing runs any more");
	let_go();
	driver.stop_error = 0;
	CHECK(again(false) == -ERANGE);
	TAP_OK(watchdog_drop(&w, open(DEVICE, O_WRONLY | O_CLOEXEC), err, sizeof(err)) == 0 && driver.stopped && w.fd < 0, "or is stopped");
	driver.stop_error = EBUSY;

	sysfs_put("max_timeout", "30");
	watchdog_init(&w, DEVICE, NULL);
	w.sysfs = dir;
	pets = driver.pets;
	TAP_OK(watchdog_take(&w, err, sizeof(err)) == 0 && w.rests && w.rest_ms == 30000 && driver.pets == pets + 1, "one that was left running rests, as long as it can");
	let_go();
	sysfs_put("state", "inactive");
	TAP_OK(watchdog_take(&w, err, sizeof(err)) == 0 && w.fd < 0, "one that does not run is left alone");
	sysfs_put("state", "active");
	sysfs_put("nowayout", "0");
	TAP_OK(watchdog_take(&w, err, sizeof(err)) == 0 && w.fd < 0, "and one that can be stopped");
	plug_in();
	sysfs_put("nowayout", "1");
	driver.takes_s = 11;
	TAP_OK(start() == -ERANGE && w.rests && driver.closed_well == 0, "refused after it was opened it rests: %s", err);
	let_go();
}

static int adopt(void)
{
	int fd = open(DEVICE, O_WRONLY | O_CLOEXEC), r;

	watchdog_init(&w, DEVICE, NULL);
	w.sysfs = dir;
	r = watchdog_adopt(&w, fd, TIMEOUT_MS, false, err, sizeof(err));
	(void)close(fd);
	w.fd = -1;
	return r;
}

static void adopts(void)
{
	plug_in();
	driver.timeout_s = TIMEOUT_MS / 1000;
	driver.left_s = 7;
	TAP_OK(adopt() == 0 && w.left_ms == 7000, "one that runs is adopted, with the time that is left");
	driver.timeout_s = 9;
	TAP_OK(adopt() == 0 && w.timeout_ms == 9000, "with a shorter timeout, too, as it runs");
	driver.timeout_s = 11;
	TAP_OK(adopt() == -ERANGE, "never with a longer one");
	driver.timeout_s = TIMEOUT_MS / 1000;
	sysfs_put("state", "inactive");
	TAP_OK(adopt() == -ENODEV, "one that was stopped is none: %s", err);
	sysfs_put("state", NULL);
	TAP_OK(adopt() == 0, "where the kernel does not tell, it is");
}

/* fits DEVICE RECORD: what arming says of it with TIMEOUT_MS and a delay of a second */
static int fits(const char *which, const struct watchdog_record *record)
{
	char mark[64];
	struct watchdog_fit f = { .sysfs = dir, .mark = mark, .device = which, .timeout_ms = TIMEOUT_MS, .delay_ms = 1000, .record = record };

	CHECK(snprintf(mark, sizeof(mark), "%s/mark", dir) > 0);
	*err = '\0';
	return watchdog_fit(&f, err, sizeof(err));
}

static void put_mark(const char *text)
{
	char path[64];
	FILE *f;

	CHECK(snprintf(path, sizeof(path), "%s/mark", dir) > 0);
	if (!text) {
		(void)unlink(path);
		return;
	}
	f = fopen(path, "we");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void fitness(void)
{
	static const struct watchdog_record none;
	struct watchdog_record good = { .device = DEVICE, .timeout_ms = TIMEOUT_MS, .elapsed_ms = 10600, .gap_ms = 400 }, r;

	plug_in();
	TAP_OK(fits(DEVICE, &none) == 0, "a driver with a longest timeout needs no measuring: %s", err);
	sysfs_put("max_timeout", "9");
	TAP_OK(fits(DEVICE, &good) < 0 && strstr(err, "takes 9 s at most"), "one whose longest is too short is refused: %s", err);
	for (unsigned i = 0; i < 2; i++) {
		const char *what = i == 0 ? "no longest timeout" : "nothing told of it";

		sysfs_put("max_timeout", i == 0 ? "0" : "65535");
		sysfs_put("dev", i == 0 ? DEVICE_NUMBERS : NULL);
		TAP_OK(fits(DEVICE, &none) < 0 && strstr(err, "ha-ctl watchdog test"), "%s: to be measured first: %s", what, err);
		TAP_OK(fits(DEVICE, &good) == 0, "%s: it was: %s", what, err);
		r = good;
		r.timeout_ms = TIMEOUT_MS - 1000;
		TAP_OK(fits(DEVICE, &r) < 0, "%s: with another timeout", what);
		r = good;
		(void)str_copy(r.device, sizeof(r.device), "/dev/watchdog1");
		TAP_OK(fits(DEVICE, &r) < 0, "%s: another device", what);
		r = good;
		r.gap_ms++;
		TAP_OK(fits(DEVICE, &r) < 0 && strstr(err, "up to 1001 ms"), "%s: too slow: %s", what, err);
	}
	TAP_OK(driver.asked == 0, "nothing was opened for all that");
	plug_in();
	r = good;
	r.elapsed_ms = 14000;
	TAP_OK(fits(DEVICE, &r) < 0 && strstr(err, "4400 ms") && strstr(err, "6600ms"), "a measured delay above WatchdogDelay= is refused: %s", err);
	TAP_OK(fits("unix:/x", &none) == 0, "a supervisor is not measured");
	(void)str_copy(r.device, sizeof(r.device), "unix:/x");
	TAP_OK(fits("unix:/x", &r) < 0, "but believed what was");
	put_mark(DEVICE);
	TAP_OK(fits(DEVICE, &good) < 0 && strstr(err, "tested"), "one that is being tested, or did not bite: %s", err);
	put_mark("/dev/watchdog1");
	TAP_OK(fits(DEVICE, &good) == 0, "another one was tested");
	put_mark(NULL);
	sysfs_put("nowayout", "1");
	TAP_OK(fits(DEVICE, &good) == 0, "nowayout is armed: %s", err);
	TAP_OK(fits("/nowhere/watchdog", &none) == 0, "what is not there is for the opening to tell");
}

/* Device=none: there is only something to be held. */
static void none(void)
{
	static const struct watchdog_record no_record;
	int held, other = open("/dev/zero", O_WRONLY | O_CLOEXEC);

	driver = (struct driver){ .options = 0 };
	TAP_OK(fits(CONF_NO_WATCHDOG, &no_record) == 0, "none needs no measuring");
	watchdog_init(&w, CONF_NO_WATCHDOG, NULL);
	TAP_OK(watchdog_start(&w, TIMEOUT_MS, err, sizeof(err)) == 0 && w.fd >= 0 && watchdog_pet(&w) == 0, "none is started and petted");
	held = fcntl(w.fd, F_DUPFD_CLOEXEC, 3);
	TAP_OK(watchdog_stop(&w, err, sizeof(err)) == 0 && w.fd < 0, "and stopped");
	TAP_OK(watchdog_adopt(&w, held, TIMEOUT_MS, false, err, sizeof(err)) == 0 && w.fd == held && w.left_ms == 0, "held by another it is adopted");
	let_go();
	TAP_OK(watchdog_adopt(&w, other, TIMEOUT_MS, false, err, sizeof(err)) == -EBUSY && w.fd < 0, "what runs is not taken for none: %s", err);
	TAP_OK(driver.asked == 0, "no driver was asked anything");
	(void)close(other);
	watchdog_init(&w, "/dev/watchdog", NULL);
	held = open(DEVICE, O_WRONLY | O_CLOEXEC);
	TAP_OK(watchdog_adopt(&w, held, TIMEOUT_MS, false, err, sizeof(err)) < 0 && w.fd < 0, "nor none for a watchdog: %s", err);
	(void)close(held);
}

static void reads_records(void)
{
	static const char *const bad[] = { "", "/dev/watchdog", "/dev/watchdog 0 1 1", "/dev/watchdog 10000 -1 1", "/dev/watchdog 10000 1 x", "/dev/watchdog 10000 9223372036854775807 1",
		"/dev/watchdog 10000 1500 6", "/dev/watchdog 10000 8993 6" /* cut off */ };
	struct watchdog_record r = { .timeout_ms = 1 };

	put("/dev/watchdog 10000 10345 55                    \n");
	TAP_OK(watchdog_record_read(pet_file, &r) && streq(r.device, "/dev/watchdog") && watchdog_record_delay_ms(&r) == 400, "a record is read");
	put("/dev/watchdog 10000 8994 6                    \n");
	TAP_OK(watchdog_record_read(pet_file, &r) && watchdog_record_delay_ms(&r) == 0, "and one of a watchdog that has bitten a tick too early");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(bad[i]);
		TAP_OK(!watchdog_record_read(pet_file, &r) && r.timeout_ms == 0, "\"%s\" is none", bad[i]);
	}
	(void)unlink(pet_file);
	TAP_OK(!watchdog_record_read(pet_file, &r), "nor is no file");
}

static void with_sysfs(void (*fn)(void))
{
	static const char *const attributes[] = { "dev", "nowayout", "state", "max_timeout" };
	char path[64];

	CHECK(snprintf(path, sizeof(path), "%s/watchdog1", dir) > 0);
	CHECK(mkdir(path, 0755) == 0);
	fn();
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++)
		sysfs_put(attributes[i], NULL);
	CHECK(rmdir(path) == 0);
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
	with_sysfs(drivers);
	with_sysfs(stops);
	with_sysfs(rests);
	with_sysfs(adopts);
	with_sysfs(fitness);
	none();
	reads_records();
	(void)unlink(pet_file);
	(void)rmdir(dir);
	return tap_done();
}
