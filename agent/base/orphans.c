/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/orphans.h"

#include <stdio.h>

/* Does the line of /proc/net/tcp or tcp6 show an orphan (inode 0) with data not yet acknowledged? */
static bool orphan_sends(const char *line)
{
	unsigned state, tx, rx, inode;

	return sscanf(line, " %*d: %*[0-9A-Fa-f]:%*x %*[0-9A-Fa-f]:%*x %x %x:%x %*x:%*x %*x %*u %*u %u", &state, &tx, &rx, &inode) == 4 &&
	       inode == 0 && tx != 0 && state != 2 /* SYN_SENT has sent no data */ && state != 6 /* TIME_WAIT */;
}

bool orphans_quiet(void)
{
	static const char *const file[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	char line[512];
	bool quiet = true;

	for (size_t i = 0; i < ARRAY_SIZE(file); i++) {
		FILE *f = fopen(file[i], "re");

		if (!f)
			continue;
		while (quiet && fgets(line, sizeof(line), f))
			quiet = !orphan_sends(line);
		(void)fclose(f);
	}
	return quiet;
}
