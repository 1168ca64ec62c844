/* SPDX-License-Identifier: GPL-2.0-or-later */
/* This node's VM processes: all that is in systemd's slice for them, and what registered at the gate. Killing them, and the proof of silence.
 *
 * The proof: no process is left in the slice, the pidfd of each one seen has become readable (the whole thread group is gone, so no system call
 * of it is under way), and what it had handed to the kernel for the network is thrown away: a killed process' sockets would otherwise go on
 * sending for minutes. So each victim is stopped first, its TCP sockets are told to drop unsent data on close (SO_LINGER 0, through
 * pidfd_getfd(2)), and only then it is killed. And no connection of a process that died before may have data left (agent/base/orphans.h).
 * Nor may any file be left that the kernel, or another process, may still write for one that is gone (agent/base/held.h): these are noted once
 * a victim is stopped, if not before. What is already on the wire or at the target is bounded by T_drain, which whoever takes over waits.
 */
#pragma once

#include <qb/qbloop.h>
#include <sys/types.h>

#include "agent/base/util.h"

#define VMSLICE_UNIT "kvmha-vms.slice"
#define VMSLICE_MAX 1024
#define VMSLICE_VM_PREFIX "kvmha-vm-" /* a VM's unit in it: kvmha-vm-UUID.service */

struct vmslice;

/* root: the hierarchy's directory for PID 1 of this system, found by vmslice_find_root, or a test's. */
int vmslice_find_root(char *ret, size_t size);
int vmslice_new(qb_loop_t *loop, const char *root, struct vmslice **ret);
void vmslice_free(struct vmslice *s);

/* A process that passes the gate and is to become that VM. 0, -EMFILE, or the errno of pidfd_open. */
int vmslice_register(struct vmslice *s, pid_t pid, const uint8_t vm[16]);

/* The same for one that something else started, known by its start time, too: -ESRCH if that one is gone. */
int vmslice_adopt(struct vmslice *s, pid_t pid, uint64_t start, const uint8_t vm[16]);
/* It did not become a VM: nobody's affair, unless it is in the slice after all. -EBUSY while all are being killed. */
int vmslice_disown(struct vmslice *s, pid_t pid);

/* The VMs with a process, each once, as format_vm_mark. False: it cannot be told, they are more than max, or this host still sends what a dead one has left. */
bool vmslice_marks(struct vmslice *s, uint32_t *ret, unsigned max, unsigned *ret_n);

/* Number of processes in the slice or registered and not gone; negative errno if that cannot be told. */
int vmslice_count(struct vmslice *s);

/* Notes what each process has open for writing that may outlive it (agent/base/held.h). 0 or negative errno: of some that is not known. */
int vmslice_note(struct vmslice *s);

/* Kills everything, again and again, until it is proven gone; then silent is called from the loop, once. */
void vmslice_kill(struct vmslice *s, void (*silent)(void *user), void *user);
