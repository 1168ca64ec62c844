/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/base/clock.h"
#include "fence/watchdog_facts.h"

#define UNIX_PREFIX "unix:"
#define ANSWER_MS 200 /* a supervisor that is slower than that is of no use as a watchdog */

#define NONE_FILE "/dev/null"
#define PET_LEN 21 /* one line, always as long: written over the last one at once */
#define RESTS_NS 0 /* written down in place of a pet's time: no lease counts on it any more */
#define REST_S 600 /* while it rests a keeper may be away for so long, or for as long as the hardware can wait */

static void use(struct watchdog *w, const char *device)
{
	w->device = device;
	w->is_unix = strncmp(device, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
	w->is_none = streq(device, CONF_NO_WATCHDOG);
}

void watchdog_init(struct watchdog *w, const char *device, const char *pet_file)
{
	*w = (struct watchdog){ .chosen = device, .pet_file = pet_file, .sysfs = WATCHDOG_SYSFS, .fd = -1, .pet_fd = -1 };
	use(w, device);
}

static int fail(int error, char *err, size_t err_size, const char *what, const char *device)
{
	(void)snprintf(err, err_size, "watchdog %s: %s: %s", device, what, strerror(error));
	return -error;
}

/* After a pet, the time before it: who dies in between leaves an earlier pet's time, and who reads it counts too little left, never too much. */
static bool write_down(struct watchdog *w, int64_t before_ns)
{
	char line[PET_LEN + 1];

	if (!w->pet_file)
		return true;
	if (w->pet_fd < 0)
		w->pet_fd = open(w->pet_file, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	(void)snprintf(line, sizeof(line), "%020" PRId64 "\n", before_ns);
	return pwrite(w->pet_fd, line, PET_LEN, 0) == PET_LEN;
}

/* -1 = nothing. */
static int64_t written_down(const struct watchdog *w)
{
	_cleanup_close_ int fd = w->pet_file ? open(w->pet_file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	char line[PET_LEN + 1] = "", *end;
	int64_t at;

	if (fd < 0 || read(fd, line, PET_LEN) != PET_LEN)
		return -1;
	at = strtoll(line, &end, 10);
	return *end == '\n' && end == line + PET_LEN - 1 ? at : -1;
}

/* By the last pet that was written down. 0 = none was. */
static uint32_t left_since_pet(const struct watchdog *w)
{
	int64_t at = written_down(w), age_ms = (clock_host_ns() - at + NS_PER_MS - 1) / NS_PER_MS;

	if (at <= 0 || age_ms < 0)
		return 0;
	return age_ms < w->timeout_ms ? w->timeout_ms - (uint32_t)age_ms : 1;
}

static int unix_ask(int fd, const char *command, char *answer, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (send(fd, command, strlen(command), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	n = poll(&p, 1, ANSWER_MS);
	if (n <= 0)
		return n == 0 ? -ETIMEDOUT : -errno;
	n = recv(fd, answer, size - 1, MSG_DONTWAIT);
	if (n <= 0)
		return n == 0 ? -ECONNRESET : -errno;
	answer[n] = '\0';
	return 0;
}

static int unix_open(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char command[32], answer[64];
	_cleanup_close_ int fd = -1;
	int r;

	if (!str_copy(addr.sun_path, sizeof(addr.sun_path), w->device + strlen(UNIX_PREFIX)))
		return fail(ENAMETOOLONG, err, err_size, "path", w->device);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return fail(errno, err, err_size, "connect", w->device);
	(void)snprintf(command, sizeof(command), "T%u", wanted_ms);
	r = unix_ask(fd, command, answer, sizeof(answer));
	if (r < 0)
		return fail(-r, err, err_size, "set timeout", w->device);
	w->timeout_ms = answer[0] == 'T' ? (uint32_t)strtoul(answer + 1, NULL, 10) : 0;
	if (w->timeout_ms != wanted_ms) {
		(void)snprintf(err, err_size, "watchdog %s: asked for %u ms, got \"%s\"", w->device, wanted_ms, answer);
		return -ERANGE;
	}
	r = unix_ask(fd, "S", answer, sizeof(answer));
	if (r < 0)
		return fail(-r, err, err_size, "start", w->device);
	w->fd = fd;
	fd = -1;
	return 0;
}

static int none_open(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	w->fd = open(NONE_FILE, O_WRONLY | O_CLOEXEC);
	w->timeout_ms = wanted_ms;
	return w->fd < 0 ? fail(errno, err, err_size, "open " NONE_FILE, w->device) : 0;
}

/* What is held may be of the time when there was one: that runs on, and must not be taken for none. */
static int none_check(struct watchdog *w, int fd, uint32_t wanted_ms, char *err, size_t err_size)
{
	struct stat held, own;

	if (fstat(fd, &held) < 0 || stat(NONE_FILE, &own) < 0 || !S_ISCHR(held.st_mode) || held.st_rdev != own.st_rdev)
		return fail(EBUSY, err, err_size, "another watchdog than " NONE_FILE " is held", w->device);
	w->timeout_ms = wanted_ms;
	return 0;
}

static int unfit(char *err, size_t err_size, const char *device, const char *what)
{
	(void)snprintf(err, err_size, "watchdog %s: %s: choose another Device=", device, what);
	return -EOPNOTSUPP;
}

/* By what the kernel tells; false also where it tells nothing. */
static bool device_says(const struct watchdog *w, const char *attribute, const char *what)
{
	char name[WATCHDOG_NAME_LEN], value[16];

	if (watchdog_sysfs_name(w->sysfs, w->device, name) < 0)
		return false;
	watchdog_sysfs_get(w->sysfs, name, attribute, value, sizeof(value));
	return streq(value, what);
}

static bool has_no_way_out(const struct watchdog *w) { return device_says(w, "nowayout", "1"); }

/* Of one that is to be started, and of one that runs. */
static int device_check(struct watchdog *w, int fd, uint32_t wanted_ms, char *err, size_t err_size)
{
	struct watchdog_info info = { 0 };
	int got = 0;

	if (ioctl(fd, WDIOC_GETSUPPORT, &info) < 0)
		return fail(errno, err, err_size, "WDIOC_GETSUPPORT", w->device);
	if (!(info.options & WDIOF_MAGICCLOSE) && !has_no_way_out(w))
		return unfit(err, err_size, w->device, "any close stops the driver (neither magic close nor nowayout)");
	if (!(info.options & WDIOF_KEEPALIVEPING))
		return unfit(err, err_size, w->device, "the driver cannot be petted (no WDIOC_KEEPALIVE)");
	if (ioctl(fd, WDIOC_GETTIMEOUT, &got) < 0)
		return fail(errno, err, err_size, "WDIOC_GETTIMEOUT", w->device);
	if (got <= 0 || (uint64_t)got * MS_PER_S > wanted_ms) {
		(void)snprintf(err, err_size, "watchdog %s: its timeout is %d s and cannot be set to %u s: use a profile or Watchdog= of at least %d s",
			       w->device, got, wanted_ms / 1000, got);
		return -ERANGE;
	}
	w->timeout_ms = (uint32_t)got * 1000;
	return 0;
}

static int device_set(struct watchdog *w, int fd, uint32_t wanted_ms, char *err, size_t err_size)
{
	int seconds = (int)(wanted_ms / 1000), r;

	if (ioctl(fd, WDIOC_SETTIMEOUT, &seconds) < 0 && errno != EOPNOTSUPP && errno != EINVAL)
		return fail(errno, err, err_size, "WDIOC_SETTIMEOUT", w->device);
	r = device_check(w, fd, wanted_ms, err, err_size);
	if (r == 0 && w->timeout_ms < wanted_ms) {
		(void)snprintf(err, err_size,
			       "watchdog %s: asked for %u s the driver takes %u s, and would reset the host before its VMs could be ended: write Watchdog=%us on every node, or choose another Device=",
			       w->device, wanted_ms / 1000, w->timeout_ms / 1000, w->timeout_ms / 1000);
		r = -ERANGE;
	}
	return r;
}

/* It runs on and cannot be stopped. From here on it is petted by time, and may wait for long. */
static void rest(struct watchdog *w, int fd)
{
	char name[WATCHDOG_NAME_LEN], value[32] = "";
	int seconds = REST_S, dummy = 0;
	long limit;

	if (watchdog_sysfs_name(w->sysfs, w->device, name) == 0)
		watchdog_sysfs_get(w->sysfs, name, "max_timeout", value, sizeof(value));
	limit = strtol(value, NULL, 10);
	if (limit > 0 && limit < seconds)
		seconds = (int)limit;
	(void)write_down(w, RESTS_NS); /* first: who goes on with a time that is longer than a lease allows must know why */
	(void)ioctl(fd, WDIOC_SETTIMEOUT, &seconds);
	w->rest_ms = ioctl(fd, WDIOC_GETTIMEOUT, &seconds) == 0 && seconds > 0 ? (uint32_t)seconds * 1000 : w->timeout_ms;
	(void)ioctl(fd, WDIOC_KEEPALIVE, &dummy);
	w->fd = fd;
	w->rests = true;
}

static int device_open(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	int fd = open(w->device, O_WRONLY | O_CLOEXEC | O_NONBLOCK), r;

	if (fd < 0)
		return fail(errno, err, err_size, errno == EBUSY ? "open (does something else pet it?)" : "open", w->device);
	r = device_set(w, fd, wanted_ms, err, err_size);
	if (r == 0) {
		w->fd = fd;
	} else if (has_no_way_out(w)) {
		rest(w, fd); /* opened it runs */
	} else {
		(void)!write(fd, "V", 1);
		(void)close(fd);
	}
	return r;
}

/* One that rests is to be counted on again. Should its keeper end after this, the next one must know. */
static int device_wake(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	int64_t before_ns = clock_host_ns();
	int fd = w->fd, dummy = 0, r = device_set(w, fd, wanted_ms, err, err_size);

	if (r == 0 && ioctl(fd, WDIOC_KEEPALIVE, &dummy) < 0)
		r = fail(errno, err, err_size, "WDIOC_KEEPALIVE", w->device);
	if (r == 0 && !write_down(w, before_ns))
		r = fail(errno, err, err_size, w->pet_file, w->device);
	if (r < 0)
		rest(w, fd);
	else
		w->rests = false;
	return r;
}

/* The magic close is that of the last holder, systemd, which closes it when it gets round to it. So it is stopped before, but only where whoever adopts the fd meanwhile
 * is told so. Drivers of old know no WDIOC_SETOPTIONS. -EBUSY: nowayout. */
static int device_stop(const struct watchdog *w)
{
	int disable = WDIOS_DISABLECARD;

	if (device_says(w, "state", "active") && ioctl(w->fd, WDIOC_SETOPTIONS, &disable) < 0 && errno == EBUSY)
		return -EBUSY;
	return write(w->fd, "V", 1) == 1 ? 0 : -errno;
}

int watchdog_start(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size)
{
	int64_t before_ns = clock_host_ns();
	int r;

	if (w->rests)
		return device_wake(w, wanted_ms, err, err_size);
	CHECK(w->fd < 0);
	r = w->is_none ? none_open(w, wanted_ms, err, err_size) :
	    w->is_unix ? unix_open(w, wanted_ms, err, err_size) : device_open(w, wanted_ms, err, err_size);
	/* That an earlier one rested must not be believed of this one. */
	if (r == 0 && !write_down(w, before_ns) && written_down(w) == RESTS_NS) {
		(void)watchdog_stop(w, err, err_size);
		r = fail(EIO, err, err_size, w->pet_file, w->device);
	}
	return r;
}

int watchdog_take(struct watchdog *w, char *err, size_t err_size)
{
	int fd;

	if (w->is_none || w->is_unix || w->fd >= 0 || !has_no_way_out(w) || !device_says(w, "state", "active"))
		return 0;
	fd = open(w->device, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == EBUSY ? 0 : fail(errno, err, err_size, "open", w->device); /* somebody else's, who pets it */
	rest(w, fd);
	return 0;
}

/* Device= was changed while this one ran: all that is asked of the kernel is about this one. */
static void use_held(struct watchdog *w, int fd)
{
	char link[32], held[WATCHDOG_NAME_LEN], own[WATCHDOG_NAME_LEN];
	ssize_t len;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (watchdog_sysfs_name(w->sysfs, link, held) < 0)
		return; /* no watchdog of the kernel's */
	if (!w->is_none && !w->is_unix && watchdog_sysfs_name(w->sysfs, w->device, own) == 0 && streq(held, own))
		return;
	len = readlink(link, w->held, sizeof(w->held) - 1);
	w->held[MAX(len, 0)] = '\0';
	use(w, w->held);
}

int watchdog_adopt(struct watchdog *w, int fd, uint32_t wanted_ms, bool may_rest, char *err, size_t err_size)
{
	char answer[64];
	unsigned timeout_ms, armed, left_ms;
	int r;

	use_held(w, fd);
	if (w->is_none) {
		r = none_check(w, fd, wanted_ms, err, err_size);
		if (r == 0)
			w->fd = fd;
		return r;
	}
	if (!w->is_unix) {
		int left = 0;

		if (device_says(w, "state", "inactive"))
			return fail(ENODEV, err, err_size, "it was stopped", w->device);
		if (may_rest && written_down(w) == RESTS_NS) {
			rest(w, fd);
			return 0;
		}
		r = device_check(w, fd, wanted_ms, err, err_size);
		if (ioctl(fd, WDIOC_GETTIMELEFT, &left) == 0 && left > 0)
			w->left_ms = (uint32_t)left * 1000;
	} else {
		r = unix_ask(fd, "Q", answer, sizeof(answer));
		if (r == 0 && (sscanf(answer, "Q %u %u %u", &timeout_ms, &armed, &left_ms) != 3 || timeout_ms > wanted_ms))
			r = -ERANGE;
		if (r == 0 && !armed)
			r = -ENODEV;
		if (r < 0)
			return fail(-r, err, err_size, "query", w->device);
		w->timeout_ms = timeout_ms;
		w->left_ms = left_ms;
	}
	if (r == 0)
		w->fd = fd;
	if (r == 0 && w->left_ms == 0)
		w->left_ms = left_since_pet(w);
	return r;
}

int watchdog_pet(struct watchdog *w)
{
	int64_t before_ns = clock_host_ns();
	int dummy = 0;

	if (w->is_none)
		return 0;
	if (w->is_unix ? send(w->fd, "P", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 : ioctl(w->fd, WDIOC_KEEPALIVE, &dummy) < 0)
		return -errno;
	(void)write_down(w, before_ns);
	return 0;
}

int watchdog_keep_resting(const struct watchdog *w)
{
	int dummy = 0;

	return w->rests && ioctl(w->fd, WDIOC_KEEPALIVE, &dummy) < 0 ? -errno : 0;
}

int watchdog_stop(struct watchdog *w, char *err, size_t err_size)
{
	char answer[64];
	int r;

	if (w->fd < 0 || w->rests)
		return 0;
	r = w->is_none ? 0 : w->is_unix ? unix_ask(w->fd, "V", answer, sizeof(answer)) : device_stop(w);
	if (r == -EBUSY && !w->is_unix) {
		rest(w, w->fd);
		return 0;
	}
	if (r < 0)
		return fail(-r, err, err_size, "stop", w->device);
	(void)close(w->fd);
	w->fd = -1;
	use(w, w->chosen);
	return 0;
}

int watchdog_drop(struct watchdog *w, int fd, char *err, size_t err_size)
{
	int r;

	CHECK(w->fd < 0);
	w->fd = fd;
	r = w->is_none ? fail(EBUSY, err, err_size, "what is held is not known", w->device) : watchdog_stop(w, err, err_size);
	if (r < 0) {
		(void)close(fd);
		w->fd = -1;
	}
	return r;
}
