#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A node loses all its storage: its VMs run elsewhere, never twice, whatever it had on its way; afterwards it is back.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
guest a n3 --disk iscsi
guest b n3 --disk nfs
guest c n1
for node in n3 n1; do
	moving=$(ctl_any status -o json | jq -r --arg n "$node" '.status.vms[] | select(.node == $n) | .name')
	declare -A before
	for v in $moving; do before[$v]=$(token "$v"); done
	check "$node has VMs" test -n "$moving"
	old=$(epoch $node) view=${nodes/$node/} cut=$(now_ns)
	lab storage cut $node
	for v in $moving; do
		moved "$v" $node "${before[$v]}"
		check "$v was started within the bound" in_bound "$cut" "$v"
	done
	# What the node's dead QEMUs had on their way gets through now, if it can.
	lab storage heal $node
	for v in $moving; do check "$v stamps on" stamps_on "$v"; done
	check "$node is back" within $patience back $node
	check "with a new epoch" test "$(epoch $node)" -gt "$old"
	view=
	guest "new-$node" $node
	check "$node can take VMs" runs_on "new-$node" $node
done
finish
