#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All nodes lose their power and get it back: every VM starts, once, in the order of After= and Priority=.
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
# Some that only n3 may have, which starts one at a time from its next boot on
declare -A priority=([k]=300 [l]=500 [m]=400 [o]=200 [p]=600)
for v in "${!priority[@]}"; do
	lab guest "$v" n3 --disk iscsi --print | sed "\$aRequiredNodes=n3\nPriority=${priority[$v]}" | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "$v is not added"
done
mkdir -p "$state/n3/etc/kvm-ha/conf.d" && printf '[Placement]\nParallelStarts=1\n' >"$state/n3/etc/kvm-ha/conf.d/50-starts.conf" || bail "no configuration"
for v in w x k l m o p; do
	within $patience runs $v || bail "$v does not run"
	stamps_on $v || bail "$v does not stamp"
done
vms="$vms w x k l m o p"
exec_ns() { told "$on_ns" "ha-keeper: VM $(vm_uuid "$1"): .* passes the gate" | head -n 1 | cut -d' ' -f1; }
check "d stops when told to" ctl n1 vm stop d
check "d is down" within $patience is_down d
declare -A before
for v in $vms; do before[$v]=$(token $v); done

for n in $nodes; do power_off "$n"; done
on_ns=$(now_ns)
power_on_all
check "all nodes are back" within $patience all_online
for v in a b c w x k l m o p; do
	again $v "${before[$v]}"
	check "$v stamps on" stamps_on $v
done
check "the cluster is armed as before" test "$(ctl_any status -o json | jq .status.armed)" = true
check "d stays stopped" is_down d
check "d did not run" same_life d "${before[d]}"
for v in a b c w x k l m o p; do
	check "$v was started once" test "$(told "$on_ns" "ha-keeper: VM $(vm_uuid $v): .* passes the gate" | wc -l) $(lives $v)" = "1 2"
done
check "w was started 3 s after a, whatever its priority" test "$(ms_between "$(exec_ns a)" "$(exec_ns w)")" -ge 3000
# The first two start as soon as they are proven quiet, whatever is still to be proven of the others.
order=$(for v in "${!priority[@]}"; do echo "$(exec_ns "$v") ${priority[$v]}"; done | sort -n | cut -d' ' -f2)
note "n3 started those of priority" $order
check "n3 started by priority what waited there" eval '[ "$(tail -n +3 <<<"$order")" = "$(tail -n +3 <<<"$order" | sort -rn)" ]'
check "x was started after w" test "$(exec_ns x)" -gt "$(exec_ns w)"
note "a to w $(ms_between "$(exec_ns a)" "$(exec_ns w)") ms, w to x $(ms_between "$(exec_ns w)" "$(exec_ns x)") ms"
check "d starts when told to" ctl_any vm start d
again d "${before[d]}"
finish
