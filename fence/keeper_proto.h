/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What agent, launcher and keeper say to each other: fixed-size messages over a local SOCK_SEQPACKET socket, only root connects. */
#pragma once

#include "fence/keeper_core.h"

#define KEEPER_SOCKET "/run/kvm-ha/keeper.sock"
#define KEEPER_PROTO_VERSION 3
#ifndef KEEPER_TEXT_LEN /* a simulator reads none */
#define KEEPER_TEXT_LEN 200
#endif

enum keeper_msg_kind {
	KEEPER_MSG_AGENT = 1, /* agent -> keeper, every T_hb: facts; the first makes this connection the agent's */
	KEEPER_MSG_ARM,       /* agent -> keeper; answered by TEXT if it is refused */
	KEEPER_MSG_DISARM,
	KEEPER_MSG_REGISTER,  /* launcher -> keeper: vm, epoch; the process is the socket's peer */
	KEEPER_MSG_GATE,      /* keeper -> launcher: ok, or text says why not */
	KEEPER_MSG_TABLE,     /* keeper -> agent: after every round */
	KEEPER_MSG_SILENT,    /* keeper -> agent, before a TABLE: what the keeper of a node whose agent is silent says */
	KEEPER_MSG_EVIDENCE,  /* agent -> keeper: evidence */
	KEEPER_MSG_FENCE,     /* agent -> keeper: an operator wants (evidence.node, evidence.epoch) fenced */
	KEEPER_MSG_TEXT,      /* keeper -> agent: a line for status and events, level in arg */
	KEEPER_MSG_ADOPT,     /* agent -> keeper: a process that something else started is to become a VM, or (epoch 0) is not after all; answered by GATE. A keeper
				 of an older release disconnects */
};

struct keeper_table_node {
	uint32_t epoch;        /* newest seen */
	uint32_t over;         /* proven over up to here, published on a fence quorum */
	uint8_t known, fresh, state, ring, reason, committed;
	uint8_t in_view;       /* in our ring */
	uint8_t silence_is_no_proof; /* only power or an operator's word ends its epoch, W does not */
	uint64_t agent_counter, claims_seq, catalog_generation, catalog_seq;
	uint64_t silent_seq;   /* of the block that says that its agent is silent; 0: it does not say so. A SILENT of that number goes with it */
	uint64_t asked_seq;    /* its devices are to switch it off: evidence of it must name this block */
	uint32_t asked_epoch;  /* 0: they are not, any more: an operation under way is to be broken off */
};

/* Claims of that epoch are void unless on a VM with one of these marks. */
struct keeper_silent {
	uint32_t node, epoch;
	uint64_t seq;
	uint32_t n;
	uint32_t mark[FORMAT_MAX_CLAIMS];
};

struct keeper_msg {
	uint32_t version, kind;
	union {
		struct keeper_agent_facts facts;
		struct keeper_evidence evidence;
		struct { uint8_t vm[16]; uint32_t epoch; uint64_t term; } reg;
		struct { uint8_t vm[16]; uint32_t epoch; int32_t pid; uint64_t term, start; } adopt; /* start: process_start() */
		struct keeper_silent silent;
		struct { uint32_t ok; char text[KEEPER_TEXT_LEN]; } gate;
		struct { uint32_t level; char text[KEEPER_TEXT_LEN]; } text;
		struct {
			uint32_t self, epoch, state, gate_open, release_reason, release_by, want_armed, observed;
			uint32_t ring, ring_encrypted, wd_running;
			uint64_t gate_term;   /* a start must have been claimed or confirmed by a read that was issued after this was known; 0: the gate is closed */
			uint64_t read_seq;    /* that is how much the agent had said of its claims when the table was read, or more */
			uint32_t holding;     /* the storage is gone for everybody: the lease lives on what peers grant */
			uint32_t braked;      /* so many nodes are suspect at once that none is fenced; 0: no brake */
			int64_t at_ns;        /* clock_host_ns() when it was said: an agent that stood still finds many of long ago */
			uint64_t view;
			uint64_t set_generation; /* of the volume set; 0: not known yet */
			struct {
				uint32_t ready, fault, good;
				uint32_t trouble;   /* enum volume_trouble; */
				int64_t trouble_ns; /* CLOCK_MONOTONIC since when */
				char reason[KEEPER_TEXT_LEN];
			} volume[FORMAT_MAX_VOLUMES];
			uint32_t n_volumes, node_limit;
			int32_t vms;          /* processes in the VM slice */
			struct keeper_table_node node[FORMAT_MAX_NODES];
		} table;
	};
};
