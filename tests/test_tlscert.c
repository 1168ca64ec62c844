/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Certificates for migrations: each of them made here, good ones and all that can be wrong with one, with what is said of it. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/tlscert.h"
#include "tests/tap.h"

#define DAY (24 * 3600)

static char dir[] = "/tmp/kvm-ha-tlscert-XXXXXX";
static time_t now;

struct pair {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

static void put(const char *name, const gnutls_datum_t *text, mode_t mode)
{
	char path[PATH_MAX];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	CHECK(f && fwrite(text->data, 1, text->size, f) == text->size && fclose(f) == 0 && chmod(path, mode) == 0);
}

static void drop(const char *name)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	CHECK(unlink(path) == 0);
}

static void set_mode(const char *name, mode_t mode)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	CHECK(chmod(path, mode) == 0);
}

/* by: NULL signs itself, as a CA does. */
static struct pair make(const char *name, const struct pair *by, time_t from, time_t to, const char *purpose)
{
	unsigned char serial = 1;
	struct pair p;

	CHECK(gnutls_x509_privkey_init(&p.key) == 0 && gnutls_x509_privkey_generate(p.key, GNUTLS_PK_EDDSA_ED25519, 256, 0) == 0);
	CHECK(gnutls_x509_crt_init(&p.crt) == 0 && gnutls_x509_crt_set_version(p.crt, 3) == 0 && gnutls_x509_crt_set_serial(p.crt, &serial, 1) == 0);
	CHECK(gnutls_x509_crt_set_dn_by_oid(p.crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name)) == 0);
	CHECK(gnutls_x509_crt_set_activation_time(p.crt, from) == 0 && gnutls_x509_crt_set_expiration_time(p.crt, to) == 0);
	CHECK(gnutls_x509_crt_set_key(p.crt, p.key) == 0 && gnutls_x509_crt_set_basic_constraints(p.crt, by == NULL, -1) == 0);
	CHECK(gnutls_x509_crt_set_key_usage(p.crt, by ? GNUTLS_KEY_DIGITAL_SIGNATURE : GNUTLS_KEY_KEY_CERT_SIGN) == 0);
	if (by)
		CHECK(gnutls_x509_crt_set_subject_alt_name(p.crt, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name), GNUTLS_FSAN_SET) == 0);
	if (purpose)
		CHECK(gnutls_x509_crt_set_key_purpose_oid(p.crt, purpose, 0) == 0);
	CHECK(gnutls_x509_crt_sign2(p.crt, by ? by->crt : p.crt, by ? by->key : p.key, GNUTLS_DIG_SHA512, 0) == 0);
	return p;
}

static void put_pair(const struct pair *p, const char *cert, const char *key)
{
	gnutls_datum_t text;

	if (cert) {
		CHECK(gnutls_x509_crt_export2(p->crt, GNUTLS_X509_FMT_PEM, &text) == 0);
		put(cert, &text, 0644);
		gnutls_free(text.data);
	}
	if (key) {
		CHECK(gnutls_x509_privkey_export2_pkcs8(p->key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &text) == 0);
		put(key, &text, 0600);
		gnutls_free(text.data);
	}
}

static void free_pair(struct pair *p)
{
	gnutls_x509_crt_deinit(p->crt);
	gnutls_x509_privkey_deinit(p->key);
}

static void refused(const char *what, const char *file, const char *why)
{
	time_t until = 1234;
	char err[1024] = "";

	TAP_OK(tlscert_check(dir, "n1", now, &until, err, sizeof(err)) < 0 && until == 1234 && strstr(err, file) && strstr(err, why), "%s: %s", what, err);
}

static void check_files(const struct pair *ca, const struct pair *good)
{
	static const char *const files[] = { "ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem" };
	gnutls_datum_t junk = { (unsigned char *)"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 59 };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		drop(files[i]);
		refused("missing", files[i], "No such file");
		put(files[i], &junk, 0600);
		refused("no PEM", files[i], i == 2 || i == 4 ? "no private key" : "no certificate");
		junk.size = 0;
		put(files[i], &junk, 0600);
		refused("empty", files[i], i == 2 || i == 4 ? "no private key" : "no certificate");
		junk.size = 59;
		put_pair(i == 0 ? ca : good, i == 2 || i == 4 ? NULL : files[i], i == 2 || i == 4 ? files[i] : NULL);
	}
	set_mode("server-key.pem", 0644);
	refused("a key for all to read", "server-key.pem", "mode is 644");
	set_mode("server-key.pem", 0640);
}

int main(void)
{
	struct pair ca, other_ca, old_ca, good, p;
	time_t until = 0;
	char err[1024] = "";

	now = time(NULL);
	CHECK(mkdtemp(dir));
	ca = make("the cluster", NULL, now - DAY, now + 100 * DAY, NULL);
	other_ca = make("another cluster", NULL, now - DAY, now + 100 * DAY, NULL);
	old_ca = make("the cluster", NULL, now - 9 * DAY, now - DAY, NULL);
	good = make("n1", &ca, now - DAY, now + 50 * DAY, NULL);
	put_pair(&ca, "ca-cert.pem", NULL);
	put_pair(&good, "server-cert.pem", "server-key.pem");
	put_pair(&good, "client-cert.pem", "client-key.pem");
	TAP_OK(tlscert_check(dir, "n1", now, &until, err, sizeof(err)) == 0 && until == now + 50 * DAY, "good ones, and until when %s", err);
	TAP_OK(tlscert_check(dir, "n2", now, &until, err, sizeof(err)) < 0 && strstr(err, "server-cert.pem: not for node n2"), "another node's: %s", err);
	TAP_OK(tlscert_check(dir, "n1", now + 51 * DAY, &until, err, sizeof(err)) < 0 && strstr(err, "has expired on"), "later: %s", err);
	check_files(&ca, &good);
	TAP_OK(tlscert_check(dir, "n1", now, &until, err, sizeof(err)) == 0, "all as it was; a key for its group to read %s", err);

	p = make("n1", &ca, now - 9 * DAY, now - DAY, NULL);
	put_pair(&p, "server-cert.pem", "server-key.pem");
	refused("expired", "server-cert.pem", "has expired on");
	free_pair(&p);
	p = make("n1", &ca, now + DAY, now + 9 * DAY, NULL);
	put_pair(&p, "server-cert.pem", "server-key.pem");
	refused("of tomorrow", "server-cert.pem", "not valid before");
	free_pair(&p);
	p = make("n1", &other_ca, now - DAY, now + 9 * DAY, NULL);
	put_pair(&p, "server-cert.pem", "server-key.pem");
	refused("of another CA", "server-cert.pem", "not signed by");
	free_pair(&p);
	p = make("n1", &ca, now - DAY, now + 9 * DAY, GNUTLS_KP_TLS_WWW_CLIENT);
	put_pair(&p, "server-cert.pem", "server-key.pem");
	refused("a client's as a server's", "server-cert.pem", "not made for a TLS server");
	put_pair(&p, "server-cert.pem", NULL);
	put_pair(&good, NULL, "server-key.pem");
	refused("another one's key", "server-key.pem", "not the key of");
	free_pair(&p);
	put_pair(&good, "server-cert.pem", "server-key.pem");
	p = make("n1", &ca, now - DAY, now + 9 * DAY, GNUTLS_KP_TLS_WWW_SERVER);
	put_pair(&p, "client-cert.pem", "client-key.pem");
	refused("a server's as a client's", "client-cert.pem", "not made for a TLS client");
	free_pair(&p);
	p = make("x", &ca, now - DAY, now + 9 * DAY, NULL);
	put_pair(&p, "client-cert.pem", "client-key.pem");
	TAP_OK(tlscert_check(dir, "n1", now, &until, err, sizeof(err)) == 0 && until == now + 9 * DAY, "of a client's no name is asked");
	free_pair(&p);
	put_pair(&old_ca, "ca-cert.pem", NULL);
	refused("an expired CA", "ca-cert.pem", "has expired on");

	drop("ca-cert.pem");
	drop("server-cert.pem");
	drop("server-key.pem");
	drop("client-cert.pem");
	drop("client-key.pem");
	CHECK(rmdir(dir) == 0);
	refused("no such directory", "ca-cert.pem", "No such file");
	free_pair(&ca);
	free_pair(&other_ca);
	free_pair(&old_ca);
	free_pair(&good);
	return tap_done();
}
