#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two nodes: each is able to go on alone, and when they lose each other just one does.
. "$(dirname -- "$0")/lib.sh"

lab_up --nodes 2 --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk nfs
a=$(token a) b=$(token b)

power_off n2
moved b n2 "$b"
check "b was started within the bound" in_bound "$cut_ns" b
check "a noticed nothing" same_life a "$a"
lab power n2 on || bail "n2 does not boot"
check "n2 is back" within $patience all_online

guest c n2
b=$(token b) c=$(token c)
one_holds_all()
{
	local n on
	for n in $nodes; do
		on=$(ctl "$n" status -o json | jq -r --arg n "$n" '[.status.vms[] | select(.state == "running" and .node == $n)] | length')
		[ "$on" = 3 ] && winner=$n && return 0
	done
	return 1
}
none_on() { [ "$(lab exec "$1" -- systemctl list-units --no-legend --state=active 'kvmha-vm-*.service' | wc -l)" = 0 ]; }

split_ns=$(now_ns)
lab net split n1/n2
check "after a split one node runs all VMs" within $patience one_holds_all
loser=${nodes/$winner/} loser=${loser// /}
note "$winner won, $loser gave up"
check "the other one runs none" within $patience none_on "$loser"
check "that stays so" throughout $((bound_ms / 1000 + 1)) eval 'one_holds_all && none_on $loser'
check "no host was reset" test "$(resets n1) $(resets n2)" = "0 0"
if [ "$winner" = n1 ]; then moves="c" stays="a b"; else moves="a b" stays="c"; fi
for v in $moves; do
	check "$v runs in a new life" within $patience other_life $v "${!v}"
	check "$v was started within the bound" in_bound "$split_ns" $v
done
for v in $stays; do check "$v noticed nothing" same_life $v "${!v}"; done
lab net heal
check "healed, both are back" within $patience all_online
guest d "$loser"
check "$loser can take VMs" runs_on d "$loser"
finish
