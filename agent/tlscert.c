/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/tlscert.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/value.h"

#define FILE_MAX (256 * 1024)
#define KEY_ID_LEN 64
#define ANOTHER "make another as kvm-ha.conf(5) shows"

struct chain {
	char path[PATH_MAX];
	gnutls_x509_crt_t *crt;
	unsigned n;
};

static void chain_free(struct chain *c)
{
	for (unsigned i = 0; i < c->n; i++)
		gnutls_x509_crt_deinit(c->crt[i]);
	gnutls_free(c->crt);
	*c = (struct chain){ .n = 0 };
}

static void wipe(gnutls_datum_t *text)
{
	if (text->data)
		explicit_bzero(text->data, text->size);
	free(text->data);
	text->data = NULL;
}

/* secret: a key, which is nobody else's to read. The group may: of a QEMU that does not run as root. */
static int read_text(const char *path, bool secret, gnutls_datum_t *ret, char *err, size_t err_size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	size_t len = 0;
	ssize_t n;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		(void)value_refuse(err, err_size, "%s: %s; make it as kvm-ha.conf(5) shows, readable for root", path, strerror(-r));
		return r;
	}
	if (!S_ISREG(st.st_mode))
		return value_refuse(err, err_size, "%s: not a regular file; " ANOTHER, path);
	if (secret && (st.st_mode & 027))
		return value_refuse(err, err_size, "%s: its mode is %03o, and a key is nobody else's; chmod 600 it", path, (unsigned)st.st_mode & 0777);
	if (st.st_size > FILE_MAX)
		return value_refuse(err, err_size, "%s: longer than %d bytes; put nothing but PEM into it", path, FILE_MAX);
	ret->data = malloc(FILE_MAX);
	if (!ret->data)
		return -ENOMEM;
	while (len < FILE_MAX && (n = read(fd, ret->data + len, FILE_MAX - len)) > 0)
		len += (size_t)n;
	ret->size = (unsigned)len;
	return 0;
}

static void date_of(time_t t, char ret[32])
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(ret, 32, "%F %T UTC", &tm) == 0)
		(void)str_copy(ret, 32, "a time that cannot be told");
}

static int check_times(const struct chain *c, time_t now, time_t *until, char *err, size_t err_size)
{
	char date[32];

	for (unsigned i = 0; i < c->n; i++) {
		time_t from = gnutls_x509_crt_get_activation_time(c->crt[i]), to = gnutls_x509_crt_get_expiration_time(c->crt[i]);

		if (from == (time_t)-1 || to == (time_t)-1)
			return value_refuse(err, err_size, "%s: it does not tell its times; " ANOTHER, c->path);
		date_of(now < from ? from : to, date);
		if (now < from)
			return value_refuse(err, err_size, "%s: not valid before %s; see whether this host's clock is right, or " ANOTHER, c->path, date);
		if (now > to)
			return value_refuse(err, err_size, "%s: it has expired on %s; " ANOTHER, c->path, date);
		*until = MIN(*until, to);
	}
	return 0;
}

static int read_chain(struct chain *c, const char *dir, const char *name, time_t now, time_t *until, char *err, size_t err_size)
{
	gnutls_datum_t text = { 0 };
	int r;

	if (snprintf(c->path, sizeof(c->path), "%s/%s", dir, name) >= (int)sizeof(c->path))
		return value_refuse(err, err_size, "%s: the path is too long", dir);
	r = read_text(c->path, false, &text, err, err_size);
	if (r < 0)
		return r;
	r = gnutls_x509_crt_list_import2(&c->crt, &c->n, &text, GNUTLS_X509_FMT_PEM, 0);
	wipe(&text);
	if (r < 0 || c->n == 0) {
		c->n = r < 0 ? 0 : c->n;
		return value_refuse(err, err_size, "%s: no certificate in PEM (%s); " ANOTHER, c->path, r < 0 ? gnutls_strerror(r) : "empty");
	}
	return check_times(c, now, until, err, err_size);
}

static int check_key(const struct chain *c, const char *dir, const char *name, char *err, size_t err_size)
{
	unsigned char of_key[KEY_ID_LEN], of_cert[KEY_ID_LEN];
	size_t key_len = sizeof(of_key), cert_len = sizeof(of_cert);
	gnutls_datum_t text = { 0 };
	gnutls_x509_privkey_t key;
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return value_refuse(err, err_size, "%s: the path is too long", dir);
	r = read_text(path, true, &text, err, err_size);
	if (r < 0)
		return r;
	if (gnutls_x509_privkey_init(&key) < 0) {
		wipe(&text);
		return -ENOMEM;
	}
	r = gnutls_x509_privkey_import(key, &text, GNUTLS_X509_FMT_PEM);
	if (r < 0)
		r = gnutls_x509_privkey_import_pkcs8(key, &text, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN);
	wipe(&text);
	if (r < 0)
		r = value_refuse(err, err_size, "%s: no private key in PEM without a password (%s); " ANOTHER, path, gnutls_strerror(r));
	else if (gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, of_key, &key_len) < 0 ||
		 gnutls_x509_crt_get_key_id(c->crt[0], GNUTLS_KEYID_USE_SHA256, of_cert, &cert_len) < 0 || key_len != cert_len ||
		 memcmp(of_key, of_cert, key_len) != 0)
		r = value_refuse(err, err_size, "%s: not the key of %s; copy the two files that were made together", path, c->path);
	gnutls_x509_privkey_deinit(key);
	return r;
}

static int check_pair(const struct chain *ca, const char *dir, const char *cert_name, const char *key_name, const char *purpose, const char *node, time_t now,
		      time_t *until, char *err, size_t err_size)
{
	struct chain c = { .n = 0 };
	unsigned status = 0;
	int r = read_chain(&c, dir, cert_name, now, until, err, err_size);

	if (r == 0)
		r = check_key(&c, dir, key_name, err, err_size);
	if (r == 0 && (gnutls_x509_crt_list_verify(c.crt, (int)c.n, ca->crt, (int)ca->n, NULL, 0, 0, &status) < 0 || status != 0))
		r = value_refuse(err, err_size, "%s: not signed by what is in %s; " ANOTHER, c.path, ca->path);
	if (r == 0 && !gnutls_x509_crt_check_key_purpose(c.crt[0], purpose, 0))
		r = value_refuse(err, err_size, "%s: not made for a TLS %s (extendedKeyUsage); " ANOTHER, c.path, streq(purpose, GNUTLS_KP_TLS_WWW_SERVER) ? "server" : "client");
	if (r == 0 && node && !gnutls_x509_crt_check_hostname(c.crt[0], node))
		r = value_refuse(err, err_size, "%s: not for node %s, whose name must be a DNS name in it (subjectAltName); " ANOTHER, c.path, node);
	chain_free(&c);
	return r;
}

int tlscert_check(const char *dir, const char *node, time_t now, time_t *ret_until, char *err, size_t err_size)
{
	struct chain ca = { .n = 0 };
	time_t until = INT64_MAX;
	int r = read_chain(&ca, dir, "ca-cert.pem", now, &until, err, err_size);

	if (r == 0)
		r = check_pair(&ca, dir, "server-cert.pem", "server-key.pem", GNUTLS_KP_TLS_WWW_SERVER, node, now, &until, err, err_size);
	if (r == 0)
		r = check_pair(&ca, dir, "client-cert.pem", "client-key.pem", GNUTLS_KP_TLS_WWW_CLIENT, NULL, now, &until, err, err_size);
	chain_free(&ca);
	if (r == 0)
		*ret_until = until;
	return r;
}
