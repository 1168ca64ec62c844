/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/volume_url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "agent/base/value.h"

#define ISCSI_PORT 3260
#define ISCSI_NAME_MAX 223 /* RFC 7143, 4.2.7.1 */
#define LUN_MAX 16383      /* flat addressing, 14 bits */

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
		return value_refuse(err, err_size, "\"%.*s\" is not a port number; give one from 1 to 65535", (int)MIN(n, 40), s);
	*ret = (uint16_t)port;
	return 0;
}

struct host {
	char text[INET6_ADDRSTRLEN];
	bool is_ipv6;
	uint16_t port;
	uint8_t binary[16]; /* two spellings of one address are one */
};

/* "IP", "IP:PORT", "[IPv6]" or "[IPv6]:PORT", n bytes of it. */
static int parse_host(const char *s, size_t n, enum volume_kind kind, struct host *h, char *err, size_t err_size)
{
	const char *host = s, *end = memchr(s, ':', n);
	size_t host_len = end ? (size_t)(end - s) : n;

	if (n > 0 && s[0] == '[') {
		end = memchr(s, ']', n);
		if (!end)
			return value_refuse(err, err_size, "the address lacks its closing \"]\"");
		host = s + 1;
		host_len = (size_t)(end - host);
		end = (size_t)(end + 1 - s) < n ? end + 1 : NULL;
		if (end && *end != ':')
			return value_refuse(err, err_size, "only \":PORT\" may follow the \"]\" of an address");
		h->is_ipv6 = true;
	}
	if (host_len == 0)
		return value_refuse(err, err_size, "the URL has no server address; write its IP address after \"//\", several with commas between");
	if (host_len >= sizeof(h->text))
		return value_refuse(err, err_size, "\"%.*s...\" is not an IP address; names are not looked up", 40, host);
	memcpy(h->text, host, host_len);
	h->text[host_len] = '\0';
	if (inet_pton(h->is_ipv6 ? AF_INET6 : AF_INET, h->text, h->binary) != 1)
		return value_refuse(err, err_size, "\"%s\" is not an IP address; names are not looked up, as that would block%s", h->text,
				    h->is_ipv6 ? "" : " (IPv6 goes in brackets)");
	h->port = kind == VOLUME_ISCSI ? ISCSI_PORT : 0;
	if (!end)
		return 0;
	if (kind == VOLUME_NFS)
		return value_refuse(err, err_size, "an NFS URL takes its port as ?nfsport=N, not after the address");
	return parse_port(end + 1, n - (size_t)(end + 1 - s), &h->port, err, err_size);
}

static bool same_host(const struct host *a, const struct host *b)
{
	return a->is_ipv6 == b->is_ipv6 && a->port == b->port && memcmp(a->binary, b->binary, sizeof(a->binary)) == 0;
}

/* n bytes: one address or several, with commas between. */
static int parse_hosts(const char *s, size_t n, struct volume_address *a, char *err, size_t err_size)
{
	struct host host[VOLUME_PATHS_MAX] = { 0 };
	const char *end = s + n;

	if (memchr(s, '@', n))
		return value_refuse(err, err_size, "a URL holds no user name or password; put them into the secret file");
	for (;;) {
		const char *comma = memchr(s, ',', (size_t)(end - s));
		struct host *h = &host[a->n_hosts];
		int r;

		if (a->n_hosts == VOLUME_PATHS_MAX)
			return value_refuse(err, err_size, "more than %d addresses; keep those on different networks", VOLUME_PATHS_MAX);
		r = parse_host(s, (size_t)((comma ? comma : end) - s), a->kind, h, err, err_size);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < a->n_hosts; i++)
			if (same_host(&host[i], h))
				return value_refuse(err, err_size, "address %s is given twice; each is a path of its own, keep one", h->text);
		a->n_hosts++;
		if (!comma)
			break;
		s = comma + 1;
	}
	(void)str_copy(a->host, sizeof(a->host), host[0].text);
	a->is_ipv6 = host[0].is_ipv6;
	a->port = host[0].port;
	return 0;
}

bool volume_iscsi_name_valid(const char *s, size_t n)
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

/* "a=b&c=d" after the question mark; each must be known. */
static int parse_options(const char *s, int (*option)(struct volume_address *, const char *, size_t, const char *, size_t, char *, size_t),
			 struct volume_address *a, char *err, size_t err_size)
{
	while (*s) {
		size_t n = strcspn(s, "&"), key = strcspn(s, "=&");
		int r = option(a, s, key, key < n ? s + key + 1 : "", key < n ? n - key - 1 : 0, err, err_size);

		if (r < 0)
			return r;
		s += n;
		if (*s == '&')
			s++;
	}
	return 0;
}

static bool word_is(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && memcmp(s, word, n) == 0;
}

static int iscsi_option(struct volume_address *a, const char *key, size_t n, const char *value, size_t value_len, char *err, size_t err_size)
{
	if (word_is(key, n, "header-digest")) {
		if (!word_is(value, value_len, "crc32c") && !word_is(value, value_len, "none"))
			return value_refuse(err, err_size, "header-digest=%.*s; write crc32c or none", (int)MIN(value_len, 20), value);
		a->header_digest = word_is(value, value_len, "crc32c");
		return 0;
	}
	if (word_is(key, n, "data-digest"))
		return value_refuse(err, err_size, "libiscsi has no data digests; drop data-digest (blocks carry a CRC32C of their own)");
	return value_refuse(err, err_size, "\"%.*s\" is not an option of an iSCSI URL; header-digest=crc32c is", (int)MIN(n, 40), key);
}

static int parse_iscsi(const char *rest, struct volume_address *a, char *err, size_t err_size)
{
	const char *target = strchr(rest, '/'), *lun;
	unsigned long number;
	size_t lun_len;
	int r;

	r = parse_hosts(rest, target ? (size_t)(target - rest) : strlen(rest), a, err, err_size);
	if (r < 0)
		return r;
	lun = target ? strchr(target + 1, '/') : NULL;
	if (!lun)
		return value_refuse(err, err_size, "an iSCSI URL is iscsi://IP[:PORT]/TARGET/LUN; the target or the LUN is missing");
	target++;
	if (!volume_iscsi_name_valid(target, (size_t)(lun - target)))
		return value_refuse(err, err_size, "\"%.*s\" is not an iSCSI name; it begins with iqn., eui. or naa.", (int)MIN(lun - target, 80),
				    target);
	memcpy(a->target, target, (size_t)(lun - target));
	lun_len = strcspn(++lun, "?");
	if (!parse_number(lun, lun_len, LUN_MAX, &number))
		return value_refuse(err, err_size, "\"%.*s\" is not a LUN; give a number from 0 to %d", (int)MIN(lun_len, 40), lun, LUN_MAX);
	a->lun = (uint16_t)number;
	return lun[lun_len] ? parse_options(lun + lun_len + 1, iscsi_option, a, err, err_size) : 0;
}

static int nfs_option(struct volume_address *a, const char *key, size_t n, const char *value, size_t value_len, char *err, size_t err_size)
{
	if (word_is(key, n, "nfsport") && *value)
		return parse_port(value, value_len, &a->nfs_port, err, err_size);
	if (word_is(key, n, "mountport") && *value)
		return parse_port(value, value_len, &a->mount_port, err, err_size);
	if (word_is(key, n, "version")) {
		if (!word_is(value, value_len, "3"))
			return value_refuse(err, err_size, "only NFS version 3 is safe for a volume; drop \"version=%.*s\" from the URL and export "
					    "the directory by version 3", (int)MIN(value_len, 20), value);
		return 0;
	}
	return value_refuse(err, err_size, "\"%.*s\" is not an option of an NFS URL; nfsport=N and mountport=N are", (int)MIN(n, 40), key);
}

static int check_path(const char *path, char *err, size_t err_size)
{
	size_t n = strlen(path);

	if (n < 2 || path[n - 1] == '/')
		return value_refuse(err, err_size, "\"%s\" names a directory; a volume is a file or a block device", path);
	if (strstr(path, "/../") || (n >= 3 && streq(path + n - 3, "/..")))
		return value_refuse(err, err_size, "\"..\" is not allowed in the path of a volume; write the path out");
	return 0;
}

static int parse_nfs(const char *rest, struct volume_address *a, char *err, size_t err_size)
{
	const char *path = strchr(rest, '/'), *query = strchr(rest, '?');
	char *slash;
	int r;

	r = parse_hosts(rest, strcspn(rest, "/?"), a, err, err_size);
	if (r < 0)
		return r;
	if (!path || (query && query < path))
		return value_refuse(err, err_size, "an NFS URL is nfs://IP/EXPORT/FILE; the export and the file are missing");
	memcpy(a->path, path, query ? (size_t)(query - path) : strlen(path));
	r = check_path(a->path, err, err_size);
	if (r < 0)
		return r;
	slash = strrchr(a->path, '/');
	if (slash == a->path)
		return value_refuse(err, err_size, "an NFS URL is nfs://IP/EXPORT/FILE; the export or the file is missing");
	if (!str_copy(a->file, sizeof(a->file), slash))
		return value_refuse(err, err_size, "the file's name is too long");
	*slash = '\0';
	return query ? parse_options(query + 1, nfs_option, a, err, err_size) : 0;
}

int volume_address_parse(const char *url, struct volume_address *ret, char *err, size_t err_size)
{
	struct volume_address a = { .kind = VOLUME_PATH };
	int r;

	if (!url || !*url)
		return value_refuse(err, err_size, "the volume's URL is empty");
	if (strlen(url) >= VOLUME_URL_LEN)
		return value_refuse(err, err_size, "the volume's URL is longer than %d bytes", VOLUME_URL_LEN - 1);
	for (const unsigned char *c = (const unsigned char *)url; *c; c++)
		if (*c <= ' ' || *c == 0x7f)
			return value_refuse(err, err_size, "the volume's URL holds a blank or a control character");
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
		r = value_refuse(err, err_size, "\"%.60s\" is no volume; use iscsi://, nfs:// or an absolute path", url);
	if (r < 0)
		return r;
	*ret = a;
	return 0;
}


void volume_url_of_path(const char *url, unsigned i, char ret[VOLUME_URL_LEN])
{
	const char *hosts = strstr(url, "://"), *rest, *host;

	CHECK(hosts);
	hosts += 3;
	rest = hosts + strcspn(hosts, "/");
	host = hosts;
	for (; i > 0; i--)
		host += strcspn(host, ",/") + 1;
	CHECK(host < rest);
	(void)snprintf(ret, VOLUME_URL_LEN, "%.*s%.*s%s", (int)(hosts - url), url, (int)strcspn(host, ",/"), host, rest);
}
