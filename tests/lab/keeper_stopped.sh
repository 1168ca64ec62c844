#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The keeper stands still: the watchdog resets its host, the VMs run elsewhere, the node comes back by itself.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
guest a n3 --disk iscsi
guest b n3 --disk nfs
was_reset() { [ "$(resets n3)" -eq 1 ]; }
a=$(token a) b=$(token b) old=$(epoch n3)
stopped=$(now_ns)
lab exec n3 -- systemctl kill --kill-who=main -s STOP ha-keeper
check "the watchdog resets n3" within $patience was_reset
note "reset after $(ms_between "$stopped" "$(when "$stopped" 'n3 power: watchdog reset')") ms"
moved a n3 "$a"
moved b n3 "$b"
check "a was started within the bound" in_bound "$stopped" a
check "b was started within the bound" in_bound "$stopped" b
check "n3 is back by itself" within $patience online n3
check "with a new epoch" test "$(epoch n3)" -gt "$old"
check "it was reset just once" test "$(resets n3)" -eq 1
guest c n3
check "it can take VMs" runs_on c n3
finish
