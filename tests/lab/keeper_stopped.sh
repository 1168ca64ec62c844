#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The keeper stands still: the watchdog resets its host, the VMs run again, the node comes back by itself.
. "$(dirname -- "$0")/lib.sh"

reset_above() { [ "$(resets "$1")" -gt "$2" ]; }

stop_keeper() # stop_keeper NODE
{
	local before
	before=$(resets "$1") stopped=$(now_ns)
	lab exec "$1" -- systemctl kill --kill-who=main -s STOP ha-keeper
	check "the watchdog resets $1" within $patience reset_above "$1" "$before"
	note "reset after $(ms_between "$stopped" "$(when "$stopped" "$1 power: reset")") ms"
}

lab_up --volumes iscsi,nfs,iscsi
guest a n3 --disk iscsi
guest b n3 --disk nfs

# A node that boots faster than W may take its VMs again itself: its new epoch proves that the old one is over.
a=$(token a) b=$(token b) old=$(epoch n3)
stop_keeper n3
again a "$a"
again b "$b"
check "a was started within the bound" in_bound "$stopped" a
check "b was started within the bound" in_bound "$stopped" b
check "n3 is back by itself" within $patience back n3
check "with a new epoch" test "$(epoch n3)" -gt "$old"
check "it was reset just once" test "$(resets n3)" -eq 1

# The same on a node that does not come back soon: kvm-ha does not start at its next boot.
guest c n2
c=$(token c)
declare -A before
others=$(ctl_any status -o json | jq -r '.status.vms[] | select(.node != "n2") | .name')
for v in $others; do before[$v]=$(token "$v"); done
mv "$state/n2/dev/enabled" "$state/n2/dev/enabled.later"
stop_keeper n2
moved c n2 "$c"
check "c was started within the bound" in_bound "$stopped" c
for v in $others; do check "$v noticed nothing" same_life "$v" "${before[$v]}"; done
mv "$state/n2/dev/enabled.later" "$state/n2/dev/enabled"
lab power n2 off && lab power n2 on || bail "n2 does not boot"
check "n2 is back" within $patience back n2
guest d n2
check "it can take VMs" runs_on d n2
finish
