#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All nodes lose their power and get it back: every VM starts, once.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
vms="a b c d"
guest a n1 --disk iscsi
guest b n2 --disk nfs
guest c n3 --disk iscsi
guest d n3 --disk nfs
check "d stops when told to" ctl n1 vm stop d
check "d is down" within $patience is_down d
declare -A before
for v in $vms; do before[$v]=$(token $v); done

for n in $nodes; do power_off "$n"; done
on_ns=$(now_ns)
pids=
for n in $nodes; do
	lab power "$n" on &
	pids="$pids $!"
done
for p in $pids; do wait "$p" || bail "a node does not boot"; done
check "all nodes are back" within $patience all_online
for v in a b c; do
	again $v "${before[$v]}"
	check "$v stamps on" stamps_on $v
done
check "the cluster is armed as before" test "$(ctl_any status -o json | jq .status.armed)" = true
check "d stays stopped" is_down d
check "d did not run" same_life d "${before[d]}"
for v in a b c; do
	check "$v was started once" test "$(told "$on_ns" "ha-keeper: VM $(vm_uuid $v): .* passes the gate" | wc -l) $(lives $v)" = "1 2"
done
check "d starts when told to" ctl_any vm start d
again d "${before[d]}"
finish
