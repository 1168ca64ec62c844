#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Maintenance of a node: its VMs are migrated, or shut down cleanly and started elsewhere where that may not be; it stays empty until it is used again.
. "$(dirname -- "$0")/lib.sh"

in_maintenance() { node_is "$1" .maintenance "$2"; }
empty() { node_is "$1" .vms 0; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
work=$(mktemp) || bail "mktemp"
lab guest a n3 --disk iscsi --print >"$work" && printf '\n[Migration]\nMigrate=no\n' >>"$work" && lab exec n1 -- ha-ctl vm add - <"$work" >/dev/null ||
	bail "guest a cannot be added"
within $patience runs_on a n3 || bail "guest a does not run on n3"
stamps_on a || bail "guest a does not stamp its disk"
guest b n3 --disk nfs
guest c n1
a=$(token a) b=$(token b) c=$(token c) old=$(epoch n3)
check "its services are not stopped while it may be given VMs" exits 1 ctl n3 node stop
since=$(now_ns)
printed=$(ctl n1 node maintenance on n3 --wait)
check "maintenance on --wait ends well" [ $? -eq 0 ]
check "when the node is empty" empty n3
check "having said where each VM went" eval 'grep -q "^VM a: .* on n[12]\.$" <<<"$printed" && grep -q "^VM b: .* on n[12]\.$" <<<"$printed" && grep -q "^Node n3 is empty\.$" <<<"$printed"'
moved a n3 "$a"
migrated b n3 "$b"
check "n3 is in maintenance" in_maintenance n3 true
check "a's guest shut down by itself: QEMU ended without a signal" within $patience told "$since" "n3 systemd: kvmha-vm-$(vm_uuid a).service: Deactivated successfully"
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
had=$(resets n3)

# Its services may be stopped now: not as systemctl would, which its watchdog would end.
check "systemctl does not stop the keeper" not lab exec n3 -- systemctl stop ha-keeper
check "node stop does" ctl n3 node stop
check "neither service runs, nor does what would wait for them at shutdown" eval '! lab exec n3 -- systemctl is-active ha-keeper ha-agent ha-leave | grep -qx active'
check "n3 has left" within $patience node_is n3 .state left
check "for longer than its watchdog takes n3 is not reset" throughout $(($(timing Watchdog) / 1000 + 5)) test "$(resets n3)" = "$had"
check "once more changes nothing" ctl n3 node stop
check "they start again" lab exec n3 -- systemctl start ha-keeper ha-agent
check "n3 is online again" within $patience back n3
check "what waits for its VMs at shutdown is there again" lab exec n3 -- systemctl is-active -q ha-leave
check "maintenance off is taken" ctl n1 node maintenance off n3
check "n3 is used again" within $patience in_maintenance n3 false
guest e n3
check "it can take VMs" runs_on e n3
check "an unknown node is refused" exits 1 ctl n1 node maintenance on n9

# One that no other node may run stays, and the wait says so. It leaves once it is to be stopped.
lab guest g n3 --disk iscsi --print >"$work" && sed -i 's/^\[HA\]$/&\nRequiredNodes=n3/' "$work" && lab exec n1 -- ha-ctl vm add - <"$work" >/dev/null ||
	bail "guest g cannot be added"
within $patience runs_on g n3 || bail "guest g does not run on n3"
stamps_on g || bail "guest g does not stamp its disk"
g=$(token g) e=$(token e)
printed=$(ctl n2 node maintenance on n3 --wait 2>&1)
check "--wait fails when a VM must stay" [ $? -eq 1 ]
check "with it the services are not stopped" eval 'said=$(ctl n3 node stop 2>&1); [ $? -eq 1 ] && grep -q "of VMs run" <<<"$said"'
check "and says which, and why" eval 'grep -q "VM g stays on n3, since no other node can take it" <<<"$printed"'
check "it runs on, in the same life" same_life g "$g"
check "and stamps" stamps_on g
migrated e n3 "$e"
(ctl n2 node maintenance on n3 --wait >/dev/null 2>&1) &
waits=$!
check "it is stopped" ctl n1 vm stop g
check "a wait ends well then" wait $waits
check "e is wanted back: off --return --wait is taken, and ends" ctl n2 node maintenance off n3 --return --wait
check "and e is back" within $patience runs_on e n3
check "in the same life" same_life e "$e"
check "--wait without anything to wait for is refused" exits 64 ctl n1 node maintenance off n3 --wait

# The leader itself
within $patience led || bail "nobody leads"
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
rm -f "$work"
finish
