/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process beside the keeper, for what may wait for storage as long as it likes: it notes what VMs' processes have open (agent/base/held.h), and has each note of a
 * dead one proven by a child of its own. It is forked before the keeper has any file, thread or locked memory, shares nothing with it but PATHS_HELD, and dies with it.
 * Without it nothing is proven, and the watchdog acts. */
#pragma once

/* root: vmslice_new's. 0 or negative errno. */
int prover_start(const char *root);
