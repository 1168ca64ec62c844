/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What else an operator writes about a volume: the secrets file, the initiator's name. The URL is agent/base/volume_url.c's. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/base/value.h"
#include "storage/backend.h"

#define SECRETS_MAX 16384
#define PARTS_MAX 16
#define INITIATOR_PREFIX "iqn.2026-01.io.github.kvm-ha:"

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

/* A part of the file is complete. at: "PATH" or "PATH:LINE" of its head. */
static int check_part(const struct volume_secrets *s, const char *at, char *err, size_t err_size)
{
	if (!*s->user || !*s->password)
		return value_refuse(err, err_size, "%s: user= and password= are both needed", at);
	if (!*s->target_user != !*s->target_password)
		return value_refuse(err, err_size, "%s: target-user= and target-password= go together", at);
	if (*s->target_user && streq(s->password, s->target_password))
		return value_refuse(err, err_size, "%s: the two passwords must differ (RFC 7143, 12.1.3)", at);
	return 0;
}

/* "[TARGET]" begins the part of a target. */
static int parse_head(const char *line, const char *path, int number, char name[VOLUME_NAME_LEN], char *err, size_t err_size)
{
	size_t n = strlen(line);

	if (n < 3 || line[n - 1] != ']' || !volume_iscsi_name_valid(line + 1, n - 2))
		return value_refuse(err, err_size, "%s:%d: write the target's name in brackets, as in [iqn.2026-01.net.example:ha]", path, number);
	memcpy(name, line + 1, n - 2);
	name[n - 2] = '\0';
	return 0;
}

static int parse_line(struct volume_secrets *s, const char *line, const char *path, int number, char *err, size_t err_size)
{
	const char *value = NULL;
	char *field = secret_of_key(s, line, &value);

	if (!field)
		return value_refuse(err, err_size, "%s:%d: write user=, password=, target-user= or target-password=, without blanks", path, number);
	if (*field)
		return value_refuse(err, err_size, "%s:%d: given twice; keep one", path, number);
	if (!*value || !str_copy(field, VOLUME_NAME_LEN, value))
		return value_refuse(err, err_size, "%s:%d: the value is empty or longer than %d bytes", path, number, VOLUME_NAME_LEN - 1);
	return 0;
}

struct secrets_reader {
	const char *path, *target;
	char heads[PARTS_MAX][VOLUME_NAME_LEN]; /* names of the parts so far */
	unsigned n_heads;
	int head_line;               /* 0: before the first head */
	bool has_lines;              /* in this part */
	struct volume_secrets part, *ret;
};

static int end_part(struct secrets_reader *r, char *err, size_t err_size)
{
	char at[VOLUME_URL_LEN];
	int ret = 0;

	(void)snprintf(at, sizeof(at), r->head_line ? "%s:%d" : "%s", r->path, r->head_line);
	if (r->has_lines || r->head_line)
		ret = check_part(&r->part, at, err, err_size);
	/* What stands before the first head is for every target without a part. */
	if (ret == 0 && (!r->head_line || (r->target && streq(r->heads[r->n_heads - 1], r->target))))
		*r->ret = r->part;
	explicit_bzero(&r->part, sizeof(r->part));
	r->has_lines = false;
	return ret;
}

static int begin_part(struct secrets_reader *r, const char *line, int number, char *err, size_t err_size)
{
	int ret = end_part(r, err, err_size);

	if (ret == 0 && r->n_heads == PARTS_MAX)
		ret = value_refuse(err, err_size, "%s:%d: more than %d targets", r->path, number, PARTS_MAX);
	if (ret == 0)
		ret = parse_head(line, r->path, number, r->heads[r->n_heads], err, err_size);
	for (unsigned i = 0; ret == 0 && i < r->n_heads; i++)
		if (streq(r->heads[i], r->heads[r->n_heads]))
			ret = value_refuse(err, err_size, "%s:%d: this target has a part already; keep one", r->path, number);
	r->n_heads += ret == 0;
	r->head_line = number;
	return ret;
}

/* Messages name the line's number, never its text. */
static int parse_secrets(char *text, const char *target, struct volume_secrets *s, const char *path, char *err, size_t err_size)
{
	struct secrets_reader r = { .path = path, .target = target, .ret = s };
	int number = 0, ret = 0;

	for (char *line = text, *next; line && ret == 0; line = next) {
		number++;
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (*line == '\0' || *line == '#')
			continue;
		if (*line == '[') {
			ret = begin_part(&r, line, number, err, err_size);
			continue;
		}
		r.has_lines = true;
		ret = parse_line(&r.part, line, path, number, err, err_size);
	}
	if (ret == 0)
		ret = end_part(&r, err, err_size);
	if (ret == 0 && !r.n_heads && !*s->user)
		ret = value_refuse(err, err_size, "%s: user= and password= are both needed", path);
	explicit_bzero(&r.part, sizeof(r.part));
	return ret;
}

int volume_secrets_load(const char *path, const char *target, struct volume_secrets *ret, char *err, size_t err_size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	char text[SECRETS_MAX + 1];
	struct volume_secrets secrets = { 0 };
	struct stat st;
	size_t n = 0;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return value_refuse(err, err_size, "secret file %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return value_refuse(err, err_size, "secret file %s: not a regular file", path);
	if (st.st_uid != 0 || (st.st_mode & 07177))
		return value_refuse(err, err_size, "secret file %s: must belong to root with mode 0600; chown root and chmod 0600 it", path);
	for (;;) {
		ssize_t got = read(fd, text + n, sizeof(text) - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return value_refuse(err, err_size, "secret file %s: %s", path, strerror(errno));
		n += (size_t)got;
		if (got == 0 || n == sizeof(text))
			break;
	}
	if (n > SECRETS_MAX || memchr(text, '\0', n)) {
		explicit_bzero(text, sizeof(text));
		return value_refuse(err, err_size, "secret file %s: longer than %d bytes, or not text", path, SECRETS_MAX);
	}
	text[n] = '\0';
	r = parse_secrets(text, target, &secrets, path, err, err_size);
	if (r == 0)
		*ret = secrets;
	explicit_bzero(text, sizeof(text));
	explicit_bzero(&secrets, sizeof(secrets));
	return r;
}

int volume_secrets_check(const char *path, char *err, size_t err_size)
{
	struct volume_secrets secrets;
	int r = volume_secrets_load(path, NULL, &secrets, err, err_size);

	explicit_bzero(&secrets, sizeof(secrets));
	return r;
}

int volume_initiator_set(const char *name, char ret[VOLUME_NAME_LEN], char *err, size_t err_size)
{
	char host[128] = "";
	size_t n;

	if (name) {
		if (!volume_iscsi_name_valid(name, strlen(name)))
			return value_refuse(err, err_size, "\"%.80s\" is not an iSCSI initiator name; it begins with iqn., eui. or naa.", name);
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
