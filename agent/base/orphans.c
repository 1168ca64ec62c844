/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/orphans.h"

#include <stdio.h>

enum { SYN_SENT = 2, FIN_WAIT1 = 4, TIME_WAIT = 6, LAST_ACK = 9, CLOSING = 11 };

/* Does the line of /proc/net/tcp or tcp6 show an orphan (inode 0) with data not yet acknowledged? A FIN counts as a byte: any service's peer that has vanished leaves such. */
bool orphans_line_sends(const char *line)
{
	unsigned state, tx, rx, inode;
	bool only_fin;

	if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%*x %*[0-9A-Fa-f]:%*x %x %x:%x %*x:%*x %*x %*u %*u %u", &state, &tx, &rx, &inode) != 4)
		return false;
	only_fin = tx == 1 && (state == FIN_WAIT1 || state == LAST_ACK || state == CLOSING);
	return inode == 0 && tx != 0 && !only_fin && state != SYN_SENT && state != TIME_WAIT;
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
			quiet = !orphans_line_sends(line);
		(void)fclose(f);
	}
	return quiet;
}
