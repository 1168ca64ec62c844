#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A node loses the ring but not the storage: it gives its VMs up, they run elsewhere, and its host is not reset.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi --profile standard

# cut NODE VM...
cut_ring()
{
	local node=$1 v booted resets_before cut old
	shift
	booted=$(boots "$node") resets_before=$(resets "$node") old=$(epoch "$node")
	declare -A before
	for v in "$@"; do before[$v]=$(token "$v"); done
	view=${nodes/$node/}
	cut=$(now_ns)
	lab net "$node" down
	for v in "$@"; do
		moved "$v" "$node" "${before[$v]}"
		check "$v was started within the bound" in_bound "$cut" "$v"
	done
	check "$node gave its VMs up by itself" within $patience told "$cut" "$node ha-keeper: .*(releas|gives up|given up)"
	check "somebody leads" within $patience led
	lab net heal
	check "$node comes back" within $patience back "$node"
	check "with a new epoch" test "$(epoch "$node")" -gt "$old"
	check "its host was never reset" test "$(resets "$node") $(boots "$node")" = "$resets_before $booted"
	view=
}

guest a n3 --disk iscsi
guest b n3 --disk nfs
cut_ring n3 a b
guest c n3
check "n3 can take VMs again" runs_on c n3

within $patience led || bail "nobody leads"
lead=$(leader)
note "$lead leads"
guest d "$lead"
# shellcheck disable=SC2046
cut_ring "$lead" $(ctl_any status -o json | jq -r --arg n "$lead" '.status.vms[] | select(.node == $n) | .name')
finish
