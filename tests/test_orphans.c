/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What counts as data that the kernel still sends for a process that is gone: lines as of /proc/net/tcp (proc(5)). */
#include "agent/base/orphans.h"
#include "tests/tap.h"

#define LINE(state, tx, inode) "   3: 0100007F:0CBC 0100007F:C350 " state " " tx ":00000000 01:00000014 00000000     0        0 " inode " 1 0000000000000000 20 4 30 10 -1"

int main(void)
{
	TAP_OK(!orphans_line_sends("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"), "the heading");
	TAP_OK(!orphans_line_sends(LINE("01", "00000200", "4711")), "a process has it: not an orphan");
	TAP_OK(orphans_line_sends(LINE("04", "00000200", "0")), "an orphan with data");
	TAP_OK(orphans_line_sends(LINE("09", "00000002", "0")), "a byte of data, and a FIN");
	TAP_OK(orphans_line_sends(LINE("01", "00000001", "0")), "a byte of data, and no FIN yet");
	TAP_OK(!orphans_line_sends(LINE("04", "00000001", "0")), "FIN_WAIT1: a FIN alone");
	TAP_OK(!orphans_line_sends(LINE("09", "00000001", "0")), "LAST_ACK: a FIN alone");
	TAP_OK(!orphans_line_sends(LINE("0B", "00000001", "0")), "CLOSING: a FIN alone");
	TAP_OK(!orphans_line_sends(LINE("05", "00000000", "0")), "all is acknowledged");
	TAP_OK(!orphans_line_sends(LINE("06", "00000001", "0")) && !orphans_line_sends(LINE("02", "00000001", "0")), "TIME_WAIT and SYN_SENT");
	return tap_done();
}
