/* SPDX-License-Identifier: GPL-2.0-or-later */
/* replay-proxmox: plays the scenarios of Proxmox' HA manager in this simulator, with our own cores, and compares how they end.
 *
 *   replay.c         options, one scenario after the other, what is printed
 *   replay_load.c    a scenario's folder
 *   replay_play.c    the scenario in our world: what each command is here, what came of it
 *   replay_expect.c  the same outcome out of their log; differences, and which of them are documented
 *
 * What is compared is the outcome: which nodes were fenced, where each service ends and in which state, and that none ever ran twice. */
#pragma once

#include "tests/sim/sim.h"

#define REPLAY_NAME 64
#define REPLAY_MAX_COMMANDS 256
#define REPLAY_GROUP_S 100 /* from one group of commands to the next */
#define REPLAY_END_S 600   /* from the last group to the end */

enum service_state { SERVICE_STARTED, SERVICE_STOPPED, SERVICE_ERROR, SERVICE_IGNORED, SERVICE_GONE, SERVICE_STATE_COUNT };
const char *service_state_name(enum service_state s);

enum command_kind {
	CMD_POWER, CMD_NETWORK, CMD_DELAY, CMD_SKIP_ROUND, CMD_CFS, CMD_CRM, CMD_MAINTENANCE, CMD_DISARM, CMD_ARM, CMD_REBOOT, CMD_SHUTDOWN, CMD_RESTART_LRM,
	CMD_STATE, CMD_MOVE, CMD_STOP, CMD_LOCK, CMD_ADD, CMD_DELETE, CMD_KIND_COUNT,
};

struct command {
	enum command_kind kind;
	unsigned group;
	uint32_t node;    /* MOVE, ADD: the service's */
	unsigned service;
	bool on;          /* power, network, cfs work, crm start, maintenance, lock; skip-round: crm */
	unsigned number;  /* seconds, rounds; DISARM: enum catalog_pause; STATE, ADD: enum service_state */
	char text[160];
};

struct service {
	char name[REPLAY_NAME];
	bool at_start;    /* in service_config; else it is added later */
	uint32_t node;
	enum service_state state;
	unsigned max_restart, max_relocate;
	unsigned fail_starts;
	uint32_t fail_node;
	bool deaf;
	/* Left over by an earlier life of their manager (manager_status). */
	bool known;
	uint32_t known_node;
	enum service_state known_state;
};

struct scenario {
	char name[REPLAY_NAME], dir[512];
	unsigned n_nodes, n_services, n_commands, n_groups;
	char node[SIM_MAX_NODES][REPLAY_NAME];
	bool power[SIM_MAX_NODES], network[SIM_MAX_NODES];
	struct service service[SIM_MAX_VMS];
	struct command command[REPLAY_MAX_COMMANDS];
	enum leave_policy policy;
};

struct outcome {
	uint64_t fenced; /* bit (id - 1) */
	struct { enum service_state state; uint32_t node; } final[SIM_MAX_VMS];
	uint64_t ran_twice; /* bit: service */
};

/* All that reads files: 0, or -1 with the reason, naming file and line or command, in err. */
#define REPLAY_ERR 1024
int scenario_load(const char *dir, struct scenario *ret, char *err);
int scenario_file(const struct scenario *s, const char *file, char **ret, char *err); /* its text, to be freed */
uint32_t scenario_node(const struct scenario *s, const char *name, size_t len); /* id; 0: there is none of that name */
int scenario_service(const struct scenario *s, const char *name, size_t len);   /* -1: there is none */

bool scenario_play(const struct scenario *s, uint64_t seed, struct outcome *ret); /* false: an invariant broke; the history tells */

int expect_derive(const struct scenario *s, struct outcome *ret, char *err);
struct reasons;
int reasons_load(const char *path, struct reasons **ret, char *err);
void reasons_free(struct reasons *r);
/* Prints each difference; returns how many there are, and how many of them no reason is documented for. */
unsigned expect_compare(const struct scenario *s, const struct outcome *theirs, const struct outcome *ours, struct reasons *r, uint64_t seed,
			unsigned *ret_without_reason);
/* Documented for one of the scenarios named so and never seen: prints them. */
unsigned reasons_unused(const struct reasons *r, const char *scenario);
