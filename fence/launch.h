/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between ha-launch and the agent that has it started: one message each way over a SOCK_SEQPACKET socket, the launcher's standard input. */
#pragma once

#define LAUNCH_ASKS 'L' /* with its pidfd (SCM_RIGHTS) and its credentials */
#define LAUNCH_YES 'Y'  /* anything else, or the end of the connection: no */
