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
# Two that wait for a: one until it runs and 3 s more, one for the other
lab guest w n2 --disk iscsi --print | sed '$aAfter=a\nAfterDelay=3s\nPriority=900' | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "w is not added"
lab guest x n1 --disk nfs --print | sed '$aAfter=w\nPriority=1000' | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "x is not added"
for v in w x; do
	within $patience runs $v || bail "$v does not run"
	stamps_on $v || bail "$v does not stamp"
done
vms="$vms w x"
exec_ns() { told "$on_ns" "ha-keeper: VM $(vm_uuid "$1"): .* passes the gate" | head -n 1 | cut -d' ' -f1; }
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
for v in a b c w x; do
	again $v "${before[$v]}"
	check "$v stamps on" stamps_on $v
done
check "the cluster is armed as before" test "$(ctl_any status -o json | jq .status.armed)" = true
check "d stays stopped" is_down d
check "d did not run" same_life d "${before[d]}"
for v in a b c w x; do
	check "$v was started once" test "$(told "$on_ns" "ha-keeper: VM $(vm_uuid $v): .* passes the gate" | wc -l) $(lives $v)" = "1 2"
done
check "w was started 3 s after a, whatever its priority" test "$(ms_between "$(exec_ns a)" "$(exec_ns w)")" -ge 3000
check "x was started after w" test "$(exec_ns x)" -gt "$(exec_ns w)"
note "a to w $(ms_between "$(exec_ns a)" "$(exec_ns w)") ms, w to x $(ms_between "$(exec_ns w)" "$(exec_ns x)") ms"
check "d starts when told to" ctl_any vm start d
again d "${before[d]}"
finish
