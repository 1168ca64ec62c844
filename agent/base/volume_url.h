/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume's URL or path, as an operator writes it. Nothing is opened or looked up here.
 *
 *   iscsi://IP[:PORT][,IP[:PORT]]... /TARGET/LUN[?header-digest=crc32c]      IPv6 in brackets
 *   nfs://IP[,IP].../EXPORT/PATH/FILE[?nfsport=N&mountport=N]
 *   /absolute/path
 *
 * Several addresses are several paths to the same LUN, or the same server's file. */
#pragma once

#include <netinet/in.h>

#include "agent/base/util.h"

#define VOLUME_URL_LEN 1024
#define VOLUME_NAME_LEN 256 /* iSCSI names and CHAP strings: what libiscsi holds */
#define VOLUME_PATHS_MAX 4

enum volume_kind { VOLUME_ISCSI, VOLUME_NFS, VOLUME_PATH };

struct volume_address {
	enum volume_kind kind;
	unsigned n_hosts;            /* 0 for a path */
	char host[INET6_ADDRSTRLEN]; /* of the first: numeric, without brackets */
	bool is_ipv6;
	uint16_t port;
	char target[VOLUME_NAME_LEN];
	uint16_t lun;
	bool header_digest;
	char path[VOLUME_URL_LEN]; /* the path; for NFS the directory to mount */
	char file[VOLUME_NAME_LEN]; /* NFS: the file in it, with the slash before it */
	uint16_t nfs_port, mount_port; /* 0: ask the portmapper */
};

/* 0, or -EINVAL with a sentence in err; *ret untouched on failure. */
int volume_address_parse(const char *url, struct volume_address *ret, char *err, size_t err_size);

/* The URL with the i-th of its addresses only. url has been parsed, i is below n_hosts. */
void volume_url_of_path(const char *url, unsigned i, char ret[VOLUME_URL_LEN]);

bool volume_iscsi_name_valid(const char *s, size_t n);
