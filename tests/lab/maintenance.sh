#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Maintenance of a node: its VMs are migrated, or shut down cleanly and started elsewhere where that may not be; it stays empty until it is used again.
. "$(dirname -- "$0")/lib.sh"

in_maintenance() { node_is "$1" .maintenance "$2"; }
empty() { node_is "$1" .vms 0; }

lab_up --volumes iscsi,nfs,iscsi
work=$(mktemp) || bail "mktemp"
lab guest a n3 --disk iscsi --print >"$work" && printf '\n[Migration]\nMigrate=no\n' >>"$work" && lab exec n1 -- ha-ctl vm add - <"$work" >/dev/null ||
	bail "guest a cannot be added"
rm -f "$work"
within $patience runs_on a n3 || bail "guest a does not run on n3"
stamps_on a || bail "guest a does not stamp its disk"
guest b n3 --disk nfs
guest c n1
a=$(token a) b=$(token b) c=$(token c) old=$(epoch n3)
since=$(now_ns)
check "maintenance on is taken" ctl n1 node maintenance on n3
moved a n3 "$a"
migrated b n3 "$b"
check "n3 is in maintenance" within $patience in_maintenance n3 true
check "n3 is empty" within $patience empty n3
check "a's guest shut down by itself: QEMU ended without a signal" told "$since" "n3 systemd: kvmha-vm-$(vm_uuid a).service: Deactivated successfully"
check "nothing killed a" not told "$since" "n3 systemd: kvmha-vm-$(vm_uuid a).service: (Killing|Main process exited, code=(killed|dumped))"
check "c noticed nothing" same_life c "$c"
check "n3 stays online, in its epoch" eval 'online n3 && [ "$(epoch n3)" = "$old" ]'

lab guest d n3 2>/dev/null
check "a new VM that prefers n3 runs elsewhere" within $patience runs_elsewhere d n3

# It is known to the cluster, not just to a node: the node's reboot does not end it.
lab power n3 off && lab power n3 on || bail "n3 does not boot"
check "after a power cycle n3 is online" within $patience back n3
check "and in maintenance still" in_maintenance n3 true
check "and empty" empty n3

check "maintenance off is taken" ctl n1 node maintenance off n3
check "n3 is used again" within $patience in_maintenance n3 false
guest e n3
check "it can take VMs" runs_on e n3
check "an unknown node is refused" exits 1 ctl n1 node maintenance on n9

# The leader itself
lead=$(leader)
note "$lead leads"
guest f "$lead"
f=$(token f)
check "maintenance of the leader is taken" ctl_any node maintenance on "$lead"
migrated f "$lead" "$f"
check "the leader is empty" within $patience empty "$lead"
check "somebody leads" within $patience led
check "maintenance of it ends" ctl_any node maintenance off "$lead"
check "all are online" within $patience all_online
finish
