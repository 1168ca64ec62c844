/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that agent and keeper share; on a tmpfs, so that they live as long as a boot. */
#pragma once

#define PATHS_GOING_DOWN "/run/kvm-ha/going-down" /* the agent's word that this host is being shut down */
#define PATHS_LEAVE_OVER "/run/kvm-ha/leave-over" /* `ha-ctl node leave` has ended: its VMs are waited for no more */
#define PATHS_HELD "/run/kvm-ha/held"            /* files whose last writes may outlive a VM's QEMU (agent/base/held.h) */
