/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes a VM file (kvm-ha.vm(5)) of a QEMU command line, as a script, ps, /proc/PID/cmdline or `virsh domxml-to-native` gives it. Text in, text
 * out: what must be known about the host comes in struct import_input.
 *
 * Every option is kept as it is, changed, left out or refused. What is kept goes into Arguments=; what is changed or left out is listed in
 * comments at the end of the file; for what is refused nobody but the operator can say what is meant. Nothing is dropped in silence.
 *
 *   import.c        the table of options, and the VM file
 *   import_keys.c   what the VM file has keys for
 *   import_words.c  shell quoting
 *   import_props.c  KEY=VALUE,... and JSON as one object
 *   import_disks.c  which images there are, and which of them the VM writes to
 *   import_nets.c   what was open when QEMU began: taps, character devices, monitors
 *   import_xml.c    what of a libvirt domain is not in its command line
 */
#pragma once

#include "agent/base/util.h"
#include "agent/disk_place.h"

#define IMPORT_MAX_TEXT (256 * 1024)
#define IMPORT_MAX_NICS 32
#define IMPORT_NIC_LEN 64
#define IMPORT_BESIDE_LEN 128

enum import_nic_kind { IMPORT_NIC_OTHER, IMPORT_NIC_BRIDGE, IMPORT_NIC_NETWORK, IMPORT_NIC_USER, IMPORT_NIC_ETHERNET };

/* An <interface> of a libvirt domain: virsh turns every kind of them into a tap by handle. */
struct import_nic {
	enum import_nic_kind kind;
	char type[IMPORT_NIC_LEN];   /* as it stands there */
	char mac[IMPORT_NIC_LEN];    /* "" where there is none */
	char source[IMPORT_NIC_LEN]; /* bridge or network */
	char target[IMPORT_NIC_LEN]; /* name of the tap */
	bool switched;               /* has <virtualport> or <vlan>: source is no bridge that QEMU's helper could put it on */
};

struct import_input {
	const char *source;  /* names the text in messages */
	const char *text;
	size_t len;
	const char *name;    /* NULL: the command line's */
	const char *bridge;  /* for taps whose bridge is not known, or NULL */
	const char *bridge_helper; /* path of qemu-bridge-helper */
	uint8_t uuid[16];    /* if the command line has none */
	bool libvirt;        /* the text is virsh's */
	const struct import_nic *nics;
	size_t n_nics;
	const char *beside;  /* import_domain's, or NULL */
	enum disk_place (*storage)(void *user, const char *path); /* disk_place() */
	bool (*find_binary)(void *user, const char *name, char *ret, size_t size); /* its absolute path */
	void *user;
};

struct import_result {
	char *text;          /* the VM file, accepted by vmfile_parse */
	char *warnings;      /* one a line, also in the file as comments */
	unsigned unsafe;     /* so many of the warnings say that another node may not run this VM or may run its disks twice */
};

/* 0; -EINVAL with err = one line or several of "SOURCE: LINE:COLUMN: reason; remedy"; or -ENOMEM. *ret is untouched on failure. */
int import_convert(const struct import_input *in, struct import_result *ret, char *err, size_t err_size);
void import_result_deinit(struct import_result *r);

/* What a domain's command line does not tell: its interfaces, in order; and in ret_beside, as "<iotune>, <mtu>", what else libvirt sets up by itself.
 * Returns how many interfaces, or -EINVAL with err: also for what would do harm where libvirt does not see to it. */
int import_domain(const char *source, const char *xml, size_t len, struct import_nic ret[IMPORT_MAX_NICS], char ret_beside[IMPORT_BESIDE_LEN], char *err,
		  size_t err_size);
