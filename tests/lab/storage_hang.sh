#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# All storage hangs for a while: nobody runs anything twice, and when it answers again everything runs.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk nfs
guest c n3 --disk iscsi

both_hang() { lab status -o json | jq -e '.storage | .iscsi == "hung" and .nfs == "hung"'; }

lab storage hang
check "all storage hangs for 12 s" throughout 12 both_hang
lab storage resume
check "all nodes are back" within 120 all_online
for v in a b c; do
	check "$v runs" within $patience runs $v
	check "$v stamps" stamps_on $v
done
check "somebody leads" within $patience led

# One of three volumes for 12 s: nothing happens at all.
a=$(token a) c=$(token c)
on_nfs=$(vm_node b) epochs="$(epoch n1) $(epoch n2) $(epoch n3)"
lab storage hang nfs
check "one volume of three hangs for 12 s: all stay online" throughout 12 stays_online $nodes
check "and their agents and the ring go on" within $patience all_online
lab storage resume nfs
check "guests with their disks elsewhere noticed nothing" test "$(token a) $(token c)" = "$a $c"
check "the other one stays where it is" within $patience runs_on b "$on_nfs"
check "it stamps on" stamps_on b
check "epochs are the same" test "$(epoch n1) $(epoch n2) $(epoch n3)" = "$epochs"
finish
