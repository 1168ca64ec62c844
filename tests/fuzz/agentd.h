/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-agent from its main() on, for one process. Its storage, units, runner, drain and hooks are made here and answer at once; what parses input
 * (server.c, peers.c, status.c, keeper_link.c, catalog.c and the core) is as shipped. */
#pragma once

#include "agent/agentd.h"

enum fuzz_agent_state {
	FUZZ_AGENT_ALONE,    /* started, nothing heard of the keeper yet */
	FUZZ_AGENT_FOLLOWS,  /* node 2 leads and runs a VM */
	FUZZ_AGENT_LEADS,
	FUZZ_AGENT_STATES,
};

void fuzz_agent_init(void);
struct agentd *fuzz_agent_begin(enum fuzz_agent_state state);
void fuzz_agent_end(void); /* waits until everything that waits has ended: what is left then is a leak */
void fuzz_agent_table(const struct keeper_msg *m); /* as from the keeper */
void fuzz_agent_keeper_bytes(const void *bytes, size_t n);
struct keeper_msg fuzz_agent_table_now(void); /* what a keeper would say in this state */
void fuzz_agent_hears(uint32_t node, const void *data, size_t len); /* a message on the ring */
/* A catalog write that waits: ends it. */
bool fuzz_agent_written(bool ok);
