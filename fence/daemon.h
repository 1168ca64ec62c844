/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper daemon: the shell around the keeper core. One struct, three files:
 *   keeper.c          start, loop, watchdog, notes
 *   keeper_volumes.c  heartbeat blocks and table reads
 *   keeper_clients.c  agent and launchers
 */
#pragma once

#include "agent/base/conf.h"
#include "agent/base/ring.h"
#include "fence/dispatch.h"
#include "fence/keeper_proto.h"
#include "fence/vmslice.h"
#include "fence/watchdog.h"
#include "fence/watchdog_facts.h"
#include "storage/trouble.h"
#include "storage/volop.h"
#include "storage/volset.h"

#define DAEMON_MAX_CLIENTS 256
#define DAEMON_WRITE_OPS 2 /* one may be stuck after its block was read back */
#define DAEMON_MAX_EVENTS 16

struct daemon;

struct client {
	struct daemon *d;
	int fd; /* -1: free */
	pid_t pid;
	bool is_agent;
};

struct daemon {
	qb_loop_t *loop;
	struct conf conf;
	const char *config_dir;
	unsigned waited;     /* ticks without a set of volumes */
	struct keeper core;
	bool core_runs;      /* keeper_init was done */
	bool dispatching;
	struct keeper_event queue[DAEMON_MAX_EVENTS]; /* answers that came while dispatching */
	unsigned n_queue;
	qb_loop_timer_handle timer;

	struct volset *volset;
	const struct superblock *sb;
	bool set_changed;    /* it is not the volumes' any more */
	struct trouble trouble[FORMAT_MAX_VOLUMES];
	char refusal[FORMAT_MAX_VOLUMES][2][KEEPER_TEXT_LEN]; /* of the last read and write; "": it was carried out */
	struct volop write_op[FORMAT_MAX_VOLUMES][DAEMON_WRITE_OPS], read_op[FORMAT_MAX_VOLUMES];

	struct ring *ring;
	bool ring_up, ring_encrypted;
	uint64_t ring_view;

	struct watchdog watchdog;
	int unfit_fd; /* of one that was held and cannot be adopted, until nothing of its life is left; -1: none */
	struct watchdog_record measured; /* of the last test, when this process started */
	bool resume, clean; /* clean: no VM of an earlier life is left */
	int64_t adopted_ns; /* when the held watchdog was taken over */
	uint32_t resume_epoch;
	uint64_t resume_seq;
	uint8_t resume_life[16], host[16], boot[16], life[16];

	struct vmslice *slice;
	struct keeper_processes processes; /* the last answer */
	bool stopping;
	bool stop_kills; /* VMs that were still there at the stop are killed first */
	int64_t stop_ns;

	int listen_fd;
	struct client client[DAEMON_MAX_CLIENTS];
	struct client *agent;
	struct keeper_msg msg; /* for building what is sent */
};

void daemon_event(struct daemon *d, const struct keeper_event *ev);

void daemon_volumes_init(struct daemon *d); /* when the set is known */
void daemon_write(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block);
void daemon_read(void *edge, unsigned volume);
void daemon_troubles(struct daemon *d); /* now and then: what volumes suffer from by now; the agent is told */

int daemon_listen(struct daemon *d);
void daemon_tell(void *edge, const struct keeper *k);
void daemon_text(struct daemon *d, int level, const char *fmt, ...) _printf_(3, 4);
