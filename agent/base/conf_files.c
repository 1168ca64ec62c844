/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which files make the configuration, and their text. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/base/conf_read.h"
#include "agent/base/value.h"

int conf_read_file(const char *path, char **ret_text, size_t *ret_len, char *err, size_t err_size)
{
	/* O_NONBLOCK: a FIFO in conf.d must be refused, not waited for */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		(void)value_refuse(err, err_size, "%s: cannot read: %s; %s", path, strerror(-r),
				   r == -ENOENT ? "create it" : "check its owner and mode");
		return r;
	}
	if (!S_ISREG(st.st_mode))
		return value_refuse(err, err_size, "%s: not a regular file; remove it or put a file in its place", path);
	text = malloc(INI_MAX_TEXT + 1);
	if (!text) {
		(void)value_refuse(err, err_size, "%s: out of memory", path);
		return -ENOMEM;
	}
	while (len <= INI_MAX_TEXT) {
		ssize_t n = read(fd, text + len, INI_MAX_TEXT + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int r = -errno;

			(void)value_refuse(err, err_size, "%s: cannot read: %s; check the disk it is on", path, strerror(-r));
			return r;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > INI_MAX_TEXT)
		return value_refuse(err, err_size, "%s: more than %d bytes; shorten it", path, INI_MAX_TEXT);
	*ret_text = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

static int is_drop_in(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return d->d_name[0] != '.' && len > 5 && streq(d->d_name + len - 5, ".conf");
}

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int add_file(struct conf_read *r, const char *dir, const char *sub, const char *name, char *err, size_t err_size)
{
	if (r->n_files == CONF_MAX_FILES)
		return value_refuse(err, err_size, "%s/%s: more than %d files; join some", dir, sub, CONF_MAX_FILES - 1);
	if (asprintf(&r->files[r->n_files], "%s/%s%s%s", dir, sub, *sub ? "/" : "", name) < 0) {
		(void)value_refuse(err, err_size, "%s: out of memory", dir);
		return -ENOMEM;
	}
	r->n_files++;
	return 0;
}

int conf_read_list(struct conf_read *r, const char *dir, char *err, size_t err_size)
{
	_cleanup_free_ char *drop_ins = NULL;
	struct dirent **names = NULL;
	int n, ret = add_file(r, dir, "", "kvm-ha.conf", err, err_size);

	if (ret < 0)
		return ret;
	if (asprintf(&drop_ins, "%s/conf.d", dir) < 0) {
		drop_ins = NULL;
		(void)value_refuse(err, err_size, "%s: out of memory", dir);
		return -ENOMEM;
	}
	n = scandir(drop_ins, &names, is_drop_in, by_bytes);
	if (n < 0 && errno != ENOENT) {
		ret = -errno;
		(void)value_refuse(err, err_size, "%s: cannot list: %s; check its owner and mode", drop_ins, strerror(-ret));
	}
	for (int i = 0; i < n; i++) {
		if (ret == 0)
			ret = add_file(r, dir, "conf.d", names[i]->d_name, err, err_size);
		free(names[i]);
	}
	free(names);
	return ret;
}
