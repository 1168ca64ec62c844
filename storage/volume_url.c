/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an operator writes about a volume: its URL, the secrets file, the initiator's name. All of it is checked here. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "storage/backend.h"

#define ISCSI_PORT 3260
#define ISCSI_NAME_MAX 223 /* RFC 7143, 4.2.7.1 */
#define LUN_MAX 16383      /* flat addressing, 14 bits */
#define SECRETS_MAX 4096
#define INITIATOR_PREFIX "iqn.2026-01.io.github.kvm-ha:"

_printf_(3, 4) static int refuse(char *err, size_t err_size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err, err_size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static bool parse_number(const char *s, size_t n, unsigned long max, unsigned long *ret)
{
	unsigned long value = 0;

	if (n == 0 || n > 9)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
		value = value * 10 + (unsigned long)(s[i] - '0');
	}
	if (value > max)
		return false;
	*ret = value;
	return true;
}

static int parse_port(const char *s, size_t n, uint16_t *ret, char *err, size_t err_size)
{
	unsigned long port;

	if (!parse_number(s, n, 65535, &port) || port == 0)
		return refuse(err, err_size, "\"%.*s\" is not a port number; give one from 1 to 65535", (int)MIN(n, 40), s);
	*ret = (uint16_t)port;
	return 0;
}

/* "IP", "IP:PORT", "[IPv6]" or "[IPv6]:PORT", n bytes of it. */
static int parse_host(const char *s, size_t n, struct volume_address *a, char *err, size_t err_size)
{
	const char *host = s, *end = memchr(s, ':', n);
	size_t host_len = end ? (size_t)(end - s) : n;
	uint8_t binary[16];

	if (memchr(s, '@', n))
		return refuse(err, err_size, "a URL holds no user name or password; put them into the secret file");
	if (n > 0 && s[0] == '[') {
		end = memchr(s, ']', n);
		if (!end)
			return refuse(err, err_size, "the address lacks its closing \"]\"");
		host = s + 1;
		host_len = (size_t)(end - host);
		end = (size_t)(end + 1 - s) < n ? end + 1 : NULL;
		if (end && *end != ':')
			return refuse(err, err_size, "only \":PORT\" may follow the \"]\" of an address");
		a->is_ipv6 = true;
	}
	if (host_len == 0)
		return refuse(err, err_size, "the URL has no server address; write its IP address after \"//\"");
	if (host_len >= sizeof(a->host))
		return refuse(err, err_size, "\"%.*s...\" is not an IP address; names are not looked up", 40, host);
	memcpy(a->host, host, host_len);
	a->host[host_len] = '\0';
	if (inet_pton(a->is_ipv6 ? AF_INET6 : AF_INET, a->host, binary) != 1)
		return refuse(err, err_size, "\"%s\" is not an IP address; names are not looked up, as that would block%s", a->host,
			      a->is_ipv6 ? "" : " (IPv6 goes in brackets)");
	if (end) {
		if (a->kind == VOLUME_NFS)
			return refuse(err, err_size, "an NFS URL takes its port as ?nfsport=N, not after the address");
		return parse_port(end + 1, n - (size_t)(end + 1 - s), &a->port, err, err_size);
	}
	return 0;
}

static bool iscsi_name_valid(const char *s, size_t n)
{
	if (n < 5 || n > ISCSI_NAME_MAX)
		return false;
	if (strncmp(s, "iqn.", 4) != 0 && strncmp(s, "eui.", 4) != 0 && strncmp(s, "naa.", 4) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr(".:-_", s[i]))
			return false;
	return true;
}

static int parse_iscsi(const char *rest, struct volume_address *a, char *err, size_t err_size)
{
	const char *target = strchr(rest, '/'), *lun;
	unsigned long number;
	int r;

	a->port = ISCSI_PORT;
	r = parse_host(rest, target ? (size_t)(target - rest) : strlen(rest), a, err, err_size);
	if (r < 0)
		return r;
	lun = target ? strchr(target + 1, '/') : NULL;
	if (!lun)
		return refuse(err, err_size, "an iSCSI URL is iscsi://IP[:PORT]/TARGET/LUN; the target or the LUN is missing");
	target++;
	if (!iscsi_name_valid(target, (size_t)(lun - target)))
		return refuse(err, err_size, "\"%.*s\" is not an iSCSI name; it begins with iqn., eui. or naa.", (int)MIN(lun - target, 80),
			      target);
	memcpy(a->target, target, (size_t)(lun - target));
	if (!parse_number(lun + 1, strlen(lun + 1), LUN_MAX, &number))
		return refuse(err, err_size, "\"%.40s\" is not a LUN; give a number from 0 to %d", lun + 1, LUN_MAX);
	a->lun = (uint16_t)number;
	return 0;
}

/* "a=b&c=d" after the question mark. */
static int parse_nfs_options(const char *s, struct volume_address *a, char *err, size_t err_size)
{
	while (*s) {
		size_t n = strcspn(s, "&");
		const char *eq = memchr(s, '=', n);
		size_t key = eq ? (size_t)(eq - s) : n, value_len = eq ? n - key - 1 : 0;
		int r = 0;

		if (key == 7 && strncmp(s, "nfsport", 7) == 0 && eq)
			r = parse_port(eq + 1, value_len, &a->nfs_port, err, err_size);
		else if (key == 9 && strncmp(s, "mountport", 9) == 0 && eq)
			r = parse_port(eq + 1, value_len, &a->mount_port, err, err_size);
		else if (key == 7 && strncmp(s, "version", 7) == 0) {
			if (value_len != 1 || eq[1] != '3')
				r = refuse(err, err_size, "only NFS version 3 is safe for a volume; drop \"%.*s\" from the URL and export "
					   "the directory by version 3", (int)MIN(n, 40), s);
		} else
			r = refuse(err, err_size, "\"%.*s\" is not an option of an NFS URL; nfsport=N and mountport=N are", (int)MIN(n, 40), s);
		if (r < 0)
			return r;
		s += n;
		if (*s == '&')
			s++;
	}
	return 0;
}

static int check_path(const char *path, char *err, size_t err_size)
{
	size_t n = strlen(path);

	if (n < 2 || path[n - 1] == '/')
		return refuse(err, err_size, "\"%s\" names a directory; a volume is a file or a block device", path);
	if (strstr(path, "/../") || (n >= 3 && streq(path + n - 3, "/..")))
		return refuse(err, err_size, "\"..\" is not allowed in the path of a volume; write the path out");
	return 0;
}

static int parse_nfs(const char *rest, struct volume_address *a, char *err, size_t err_size)
{
	const char *path = strchr(rest, '/'), *query = strchr(rest, '?');
	char *slash;
	int r;

	r = parse_host(rest, strcspn(rest, "/?"), a, err, err_size);
	if (r < 0)
		return r;
	if (!path || (query && query < path))
		return refuse(err, err_size, "an NFS URL is nfs://IP/EXPORT/FILE; the export and the file are missing");
	memcpy(a->path, path, query ? (size_t)(query - path) : strlen(path));
	r = check_path(a->path, err, err_size);
	if (r < 0)
		return r;
	slash = strrchr(a->path, '/');
	if (slash == a->path)
		return refuse(err, err_size, "an NFS URL is nfs://IP/EXPORT/FILE; the export or the file is missing");
	if (!str_copy(a->file, sizeof(a->file), slash))
		return refuse(err, err_size, "the file's name is too long");
	*slash = '\0';
	return query ? parse_nfs_options(query + 1, a, err, err_size) : 0;
}

int volume_address_parse(const char *url, struct volume_address *ret, char *err, size_t err_size)
{
	struct volume_address a = { .kind = VOLUME_PATH };
	int r;

	if (!url || !*url)
		return refuse(err, err_size, "the volume's URL is empty");
	if (strlen(url) >= VOLUME_URL_LEN)
		return refuse(err, err_size, "the volume's URL is longer than %d bytes", VOLUME_URL_LEN - 1);
	for (const unsigned char *c = (const unsigned char *)url; *c; c++)
		if (*c <= ' ' || *c == 0x7f)
			return refuse(err, err_size, "the volume's URL holds a blank or a control character");
	if (strncmp(url, "iscsi://", 8) == 0) {
		a.kind = VOLUME_ISCSI;
		r = parse_iscsi(url + 8, &a, err, err_size);
	} else if (strncmp(url, "nfs://", 6) == 0) {
		a.kind = VOLUME_NFS;
		r = parse_nfs(url + 6, &a, err, err_size);
	} else if (url[0] == '/') {
		(void)str_copy(a.path, sizeof(a.path), url);
		r = check_path(a.path, err, err_size);
	} else
		r = refuse(err, err_size, "\"%.60s\" is no volume; use iscsi://, nfs:// or an absolute path", url);
	if (r < 0)
		return r;
	*ret = a;
	return 0;
}

static char *secret_of_key(struct volume_secrets *s, const char *line, const char **value)
{
	struct { const char *key; char *field; } keys[] = {
		{ "user=", s->user }, { "password=", s->password },
		{ "target-user=", s->target_user }, { "target-password=", s->target_password },
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strncmp(line, keys[i].key, strlen(keys[i].key)) == 0) {
			*value = line + strlen(keys[i].key);
			return keys[i].field;
		}
	}
	return NULL;
}

/* Messages name the line's number, never its text. */
static int parse_secrets(char *text, struct volume_secrets *s, const char *path, char *err, size_t err_size)
{
	int number = 0;

	for (char *line = text, *next; line; line = next) {
		const char *value = NULL;
		char *field;

		number++;
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (*line == '\0' || *line == '#')
			continue;
		field = secret_of_key(s, line, &value);
		if (!field)
			return refuse(err, err_size, "%s:%d: write user=, password=, target-user= or target-password=, without blanks", path, number);
		if (*field)
			return refuse(err, err_size, "%s:%d: given twice; keep one", path, number);
		if (!*value || !str_copy(field, VOLUME_NAME_LEN, value))
			return refuse(err, err_size, "%s:%d: the value is empty or longer than %d bytes", path, number, VOLUME_NAME_LEN - 1);
	}
	if (!*s->user || !*s->password)
		return refuse(err, err_size, "%s: user= and password= are both needed", path);
	if (!*s->target_user != !*s->target_password)
		return refuse(err, err_size, "%s: target-user= and target-password= go together", path);
	if (*s->target_user && streq(s->password, s->target_password))
		return refuse(err, err_size, "%s: the two passwords must differ (RFC 7143, 12.1.3)", path);
	return 0;
}

int volume_secrets_load(const char *path, struct volume_secrets *ret, char *err, size_t err_size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	char text[SECRETS_MAX + 1];
	struct volume_secrets secrets = { 0 };
	struct stat st;
	size_t n = 0;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return refuse(err, err_size, "secret file %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(err, err_size, "secret file %s: not a regular file", path);
	if (st.st_uid != 0 || (st.st_mode & 07177))
		return refuse(err, err_size, "secret file %s: must belong to root with mode 0600; chown root and chmod 0600 it", path);
	for (;;) {
		ssize_t got = read(fd, text + n, sizeof(text) - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return refuse(err, err_size, "secret file %s: %s", path, strerror(errno));
		n += (size_t)got;
		if (got == 0 || n == sizeof(text))
			break;
	}
	if (n > SECRETS_MAX || memchr(text, '\0', n)) {
		explicit_bzero(text, sizeof(text));
		return refuse(err, err_size, "secret file %s: longer than %d bytes, or not text", path, SECRETS_MAX);
	}
	text[n] = '\0';
	r = parse_secrets(text, &secrets, path, err, err_size);
	if (r == 0)
		*ret = secrets;
	explicit_bzero(text, sizeof(text));
	explicit_bzero(&secrets, sizeof(secrets));
	return r;
}

int volume_initiator_set(const char *name, char ret[VOLUME_NAME_LEN], char *err, size_t err_size)
{
	char host[128] = "";
	size_t n;

	if (name) {
		if (!iscsi_name_valid(name, strlen(name)))
			return refuse(err, err_size, "\"%.80s\" is not an iSCSI initiator name; it begins with iqn., eui. or naa.", name);
		(void)str_copy(ret, VOLUME_NAME_LEN, name);
		return 0;
	}
	if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
		(void)str_copy(host, sizeof(host), "node");
	(void)str_copy(ret, VOLUME_NAME_LEN, INITIATOR_PREFIX);
	n = strlen(ret);
	for (const char *c = host; *c; c++)
		ret[n++] = isalnum((unsigned char)*c) || *c == '.' ? (char)tolower((unsigned char)*c) : '-';
	ret[n] = '\0';
	return 0;
}
