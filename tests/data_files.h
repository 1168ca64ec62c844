/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads the cases under tests/data, from $srcdir as automake sets it, or from here. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((unused)) static const char *data_top(void)
{
	const char *dir = getenv("srcdir");

	return dir && *dir ? dir : ".";
}

/* Text of TOP/REL, with a NUL behind it; ends the test if it cannot be read: a missing case must not pass. */
__attribute__((unused)) static char *data_read(const char *rel, size_t *ret_len)
{
	char path[512], *text = malloc(256 * 1024 + 1);
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", data_top(), rel);
	f = fopen(path, "re");
	if (!f || !text) {
		printf("Bail out! cannot read %s\n", path);
		exit(1);
	}
	*ret_len = fread(text, 1, 256 * 1024, f);
	text[*ret_len] = '\0';
	(void)fclose(f);
	return text;
}

/* Calls fn(name without suffix) for each file of TOP/REL that ends in suffix, in byte order. Returns how many. */
__attribute__((unused)) static int data_each(const char *rel, const char *suffix, void (*fn)(const char *name))
{
	char path[512];
	struct dirent **names = NULL;
	int n, count = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", data_top(), rel);
	n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		size_t len = strlen(names[i]->d_name), tail = strlen(suffix);

		if (len > tail && strcmp(names[i]->d_name + len - tail, suffix) == 0) {
			names[i]->d_name[len - tail] = '\0';
			fn(names[i]->d_name);
			count++;
		}
		free(names[i]);
	}
	free(names);
	return count;
}
