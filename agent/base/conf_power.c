/* SPDX-License-Identifier: GPL-2.0-or-later */
/* [PowerDevice]: fence devices and the secrets they need. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/base/conf_read.h"
#include "agent/base/unquote.h"
#include "agent/base/value.h"

#define TIMEOUT_DEFAULT_MS 20000
#define TIMEOUT_MIN_MS 500
#define TIMEOUT_MAX_MS (600 * 1000)
#define MAX_OF_NODE 8

static const char agent_prefix[] = "fence_";

const struct conf_power *conf_power_of(const struct conf *c, uint32_t node, size_t *ret_n)
{
	const struct conf_power *first = NULL;

	*ret_n = 0;
	for (size_t i = 0; i < c->n_power; i++) {
		if (c->power[i].node != node)
			continue;
		if (!first)
			first = &c->power[i];
		(*ret_n)++;
	}
	return first;
}

int conf_power_begin(struct conf_read *r, char *err, size_t err_size)
{
	struct conf *c = &r->c;

	if (c->n_power == CONF_MAX_POWER)
		return value_refuse(err, err_size, "more than %d of these sections; remove some", CONF_MAX_POWER);
	c->power[c->n_power] = (struct conf_power){ .timeout_ms = TIMEOUT_DEFAULT_MS, .section = (uint16_t)c->n_power };
	r->power_origin[c->n_power++] = r->here;
	r->node_of_power[c->n_power - 1][0] = '\0';
	return 0;
}

/* Behind what is there already. */
static int keep_text(struct conf *c, uint16_t *at, const char *text, char *err, size_t err_size)
{
	size_t len = strlen(text) + 1;

	if (len > sizeof(c->power_text) - c->power_text_len)
		return value_refuse(err, err_size, "options and paths of all devices are longer than %d bytes together; shorten them", CONF_POWER_TEXT);
	memcpy(c->power_text + c->power_text_len, text, len);
	*at = (uint16_t)c->power_text_len;
	c->power_text_len += len;
	return 0;
}

/* The name of a fence agent's parameter. What decides what is done is not the operator's to set, and what is secret does not belong into this file. */
static int check_option(const char *word, size_t name_len, char *err, size_t err_size)
{
	static const char *const ours[] = { "action", "option", "nodename" };
	char name[64] = "";

	if (name_len == 0 || name_len >= sizeof(name) || word[name_len] != '=' || strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != name_len)
		return value_refuse(err, err_size, "not name=value, with a name of small letters, digits, '_' and '-'; see the agent's manual page");
	memcpy(name, word, name_len);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (streq(name, ours[i]))
			return value_refuse(err, err_size, "%s= is for ha-fence to set; remove it", name);
	return 0;
}

static int read_options(struct conf *c, struct conf_power *p, const char *value, char *err, size_t err_size)
{
	char word[512], text[4096] = "";
	size_t pos = 0, len = 0;
	int ret;

	if (!*value) {
		p->options = 0;
		return 0;
	}
	len = strlen(c->power_text + p->options);
	(void)str_copy(text, sizeof(text), c->power_text + p->options);
	while ((ret = unquote_next(value, &pos, word, sizeof(word), err, err_size)) == UNQUOTE_WORD) {
		size_t name_len = strcspn(word, "=");

		ret = check_option(word, name_len, err, err_size);
		if (ret < 0)
			return ret;
		word[name_len] = '\0';
		if (strstr(word, "passw"))
			return value_refuse(err, err_size, "%s= is a secret; write it into a file of mode 0600 and name that by SecretFile=", word);
		word[name_len] = '=';
		if (strpbrk(word, "\n\r") || len + strlen(word) + 2 > sizeof(text))
			return value_refuse(err, err_size, "the options are longer than %zu bytes, or one has a line end in it", sizeof(text) - 2);
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\n", word);
	}
	return ret < 0 ? ret : keep_text(c, &p->options, text, err, err_size);
}

static int read_agent(struct conf_power *p, const char *value, char *err, size_t err_size)
{
	const char *name = strrchr(value, '/') ? strrchr(value, '/') + 1 : value;
	int r = *value == '/' ? value_path_check(value, err, err_size) : value_name_check(value, sizeof(p->agent), err, err_size);

	if (r < 0)
		return r;
	if (strncmp(name, agent_prefix, sizeof(agent_prefix) - 1) != 0)
		return value_refuse(err, err_size, "not a fence agent; write the name or path of one, such as fence_ipmilan");
	if (!str_copy(p->agent, sizeof(p->agent), value))
		return value_refuse(err, err_size, "the path is longer than %zu bytes; shorten it", sizeof(p->agent) - 1);
	return 0;
}

int conf_power_value(struct conf_read *r, enum conf_key key, const char *value, char *err, size_t err_size)
{
	struct conf *c = &r->c;
	struct conf_power *p = &c->power[c->n_power - 1];
	int ret;

	switch (key) {
	case CONF_POWER_NODE: /* Nodes= may come later, in another file */
		ret = value_name_check(value, CONF_NAME_LEN, err, err_size);
		if (ret == 0)
			(void)str_copy(r->node_of_power[c->n_power - 1], CONF_NAME_LEN, value);
		return ret;
	case CONF_POWER_AGENT:
		return read_agent(p, value, err, err_size);
	case CONF_POWER_OPTIONS:
		return read_options(c, p, value, err, err_size);
	case CONF_POWER_SECRET:
		ret = value_path_check(value, err, err_size);
		return ret < 0 ? ret : keep_text(c, &p->secret_file, value, err, err_size);
	case CONF_POWER_TIMEOUT:
		ret = value_span_ms(value, &p->timeout_ms, err, err_size);
		if (ret == 0 && (p->timeout_ms < TIMEOUT_MIN_MS || p->timeout_ms > TIMEOUT_MAX_MS))
			return value_refuse(err, err_size, "out of range; use %d to %d ms", TIMEOUT_MIN_MS, TIMEOUT_MAX_MS);
		return ret;
	default:
		return value_u32(value, 1, CONF_MAX_LEVEL, &p->level, err, err_size);
	}
}

static int refuse_at(const struct conf_read *r, size_t i, char *err, size_t err_size, const char *what, const char *name)
{
	return value_refuse(err, err_size, "%s:%u: [PowerDevice]: %s%s", r->power_origin[i].file, r->power_origin[i].line, what, name);
}

/* Without Level= each is a level of its own, in the order of the files. */
static int set_levels(struct conf_read *r, char *err, size_t err_size)
{
	struct conf *c = &r->c;

	for (size_t i = 0; i < c->n_power; i++) {
		uint32_t before = 0, with = c->power[i].level != 0;

		for (size_t j = 0; j < i; j++) {
			if (c->power[j].node != c->power[i].node)
				continue;
			before++;
			if (with != (r->power_has_level >> j & 1))
				return refuse_at(r, i, err, err_size, "write Level= for every device of a node or for none; node ", r->node_of_power[i]);
		}
		if (before >= MAX_OF_NODE)
			return refuse_at(r, i, err, err_size, "more than 8 devices; remove some; node ", r->node_of_power[i]);
		if (with)
			r->power_has_level |= (unsigned __int128)1 << i;
		else
			c->power[i].level = before + 1;
	}
	return 0;
}

/* Stable: by node, then level. */
static void sort(struct conf *c)
{
	for (size_t i = 1; i < c->n_power; i++) {
		struct conf_power p = c->power[i];
		size_t j = i;

		for (; j > 0 && (c->power[j - 1].node > p.node || (c->power[j - 1].node == p.node && c->power[j - 1].level > p.level)); j--)
			c->power[j] = c->power[j - 1];
		c->power[j] = p;
	}
}

int conf_power_check(struct conf_read *r, char *err, size_t err_size)
{
	struct conf *c = &r->c;
	int ret;

	for (size_t i = 0; i < c->n_power; i++) {
		const struct conf_node *n = conf_node_by_name(c, r->node_of_power[i]);

		if (!*r->node_of_power[i])
			return refuse_at(r, i, err, err_size, "Node= is missing; add it", "");
		if (!n)
			return refuse_at(r, i, err, err_size, "a node that is not in Nodes=: ", r->node_of_power[i]);
		if (!*c->power[i].agent)
			return refuse_at(r, i, err, err_size, "Agent= is missing; name a fence agent, such as fence_ipmilan, for node ", n->name);
		c->power[i].node = n->id;
	}
	ret = set_levels(r, err, err_size);
	if (ret == 0)
		sort(c);
	return ret;
}

static int check_secrets(char *text, const char *path, char *err, size_t err_size)
{
	unsigned number = 0;

	for (char *line = text, *next; *line; line = next) {
		size_t len = strcspn(line, "\n");

		number++;
		next = line + len + (line[len] == '\n');
		if (len == 0 || *line == '#') {
			memmove(line, next, strlen(next) + 1);
			next = line;
			continue;
		}
		line[len] = '\0';
		if (check_option(line, strcspn(line, "="), err, err_size) < 0)
			return value_refuse(err, err_size, "%s:%u: write name=value as the agent's manual page has it, without blanks around '='", path, number);
		for (size_t i = 0; i < len; i++)
			if (iscntrl((unsigned char)line[i]))
				return value_refuse(err, err_size, "%s:%u: control character; save the file with UNIX line ends", path, number);
		if (!next[0] && next == line + len) { /* the last line need not end */
			line[len] = '\n';
			line[len + 1] = '\0';
			break;
		}
		line[len] = '\n';
	}
	return 0;
}

/* Agents whose "off" is another thing than the machine's power, which alone is believed: it cannot write to a disk, or not be reached by a network; or a message for it was left
 * somewhere, or there is nothing behind it at all. */
static bool tells_of_power(const char *name)
{
	static const char *const other[] = { "scsi", "mpath", "sbd", "kdump", "dummy", "ifmib", "brocade", "sanbox2", "cisco_mds" };

	for (size_t i = 0; i < ARRAY_SIZE(other); i++)
		if (streq(name, other[i]))
			return false;
	return strncmp(name, "heuristics_", 11) != 0;
}

/* 0, or what its "off" would not prove. No daemon ends for it: one of an earlier release may have been told so. */
static int check_proof(const struct conf *c, const struct conf_power *p, char *err, size_t err_size)
{
	const char *name = strrchr(p->agent, '/') ? strrchr(p->agent, '/') + 1 : p->agent;

	if (!tells_of_power(name + sizeof(agent_prefix) - 1))
		return value_refuse(err, err_size, "its \"off\" does not say that the machine has no power, which alone is a proof; name the agent of a power switch or of a management board");
	/* With it a plug that is not there, or is misspelt, is off. */
	for (const char *line = c->power_text + p->options; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if ((strncmp(line, "missing_as_off=", 15) == 0 || strncmp(line, "missing-as-off=", 15) == 0) && (line[15] != '0' || line[16] != '\n'))
			return value_refuse(err, err_size, "missing_as_off= makes a guess of what is to be a proof; remove it, or set it to 0");
	return 0;
}

int conf_power_secrets(const struct conf *c, const struct conf_power *p, char ret[CONF_POWER_SECRETS], char *err, size_t err_size)
{
	const char *path = c->power_text + p->secret_file;
	_cleanup_close_ int fd = -1;
	struct stat st;
	size_t len = 0;
	ssize_t n;
	int r;

	ret[0] = '\0';
	r = check_proof(c, p, err, err_size);
	if (r < 0 || !*path)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = -errno;
		(void)value_refuse(err, err_size, "secret file %s: %s; make it, owned by root and of mode 0600", path, strerror(-r));
		return r;
	}
	if (!S_ISREG(st.st_mode))
		return value_refuse(err, err_size, "secret file %s: not a regular file", path);
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 07177))
		return value_refuse(err, err_size, "secret file %s: must belong to root with mode 0600; chown root and chmod 0600 it", path);
	while ((n = read(fd, ret + len, CONF_POWER_SECRETS - 2 - len)) > 0)
		len += (size_t)n;
	if (n < 0) {
		r = -errno;
		(void)value_refuse(err, err_size, "secret file %s: %s", path, strerror(-r));
	} else if (len == CONF_POWER_SECRETS - 2 || memchr(ret, '\0', len)) {
		r = value_refuse(err, err_size, "secret file %s: longer than %d bytes, or not text", path, CONF_POWER_SECRETS - 3);
	} else {
		ret[len] = '\0';
		r = check_secrets(ret, path, err, err_size);
	}
	if (r < 0)
		explicit_bzero(ret, CONF_POWER_SECRETS);
	return r;
}
