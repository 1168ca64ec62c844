/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What qmp_conn.c needs of a protocol that it puts on a socket: see qmp_proto.h for what each does. Internal to qmp/. */
#pragma once

#include "qmp/qmp_proto.h"

struct qmp_wire {
	void (*feed)(void *proto, const void *bytes, size_t n);
	size_t (*output)(const void *proto, const char **ret);
	void (*sent)(void *proto, size_t n);
	void (*tick)(void *proto, uint64_t now_ms);
	uint64_t (*deadline)(const void *proto);
	void (*close)(void *proto, const char *reason);
	void (*drop)(void *proto);
	void (*free)(void *proto);
	bool (*is_closed)(const void *proto);
};

/* As qmp_conn_new(), for any protocol. proto is taken over in every case. */
int qmp_conn_open(qb_loop_t *loop, const char *path, const struct qmp_wire *wire, void *proto, struct qmp_conn **ret);
void *qmp_conn_proto(struct qmp_conn *c);
void qmp_conn_asked(struct qmp_conn *c); /* the protocol was given something to say */
uint64_t qmp_conn_now_ms(void);
