#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A node loses its power: its VMs run elsewhere within the bound, it comes back as good as new. Then the same with the leader.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
guest a n3 --disk iscsi
guest b n3 --disk nfs
guest c n1
a=$(token a) b=$(token b) c=$(token c)

power_off n3
moved a n3 "$a"
moved b n3 "$b"
check "a was started within the bound" in_bound "$cut_ns" a
check "b was started within the bound" in_bound "$cut_ns" b
check "a VM of another node noticed nothing" same_life c "$c"
check "n3 is told to be offline" within $patience node_is n3 .state offline

old=$(epoch n3)
on_ns=$(now_ns)
lab power n3 on || bail "n3 does not boot"
check "n3 joins and is armed" within $patience back n3
new=$(epoch n3)
check "it has a new epoch" test "$new" -gt "$old"
check "it is not fenced for its old life" throughout $((bound_ms / 1000 + 1)) stays_online n3
check "and stays in that epoch" test "$(epoch n3)" = "$new"
check "nobody tried to" not told $on_ns 'node n3 is (to be|being) fenced'
guest d n3
check "it can take VMs" runs_on d n3

within $patience led || bail "nobody leads"
lead=$(leader)
note "$lead leads"
on_lead=$(ctl_any status -o json | jq -r --arg n "$lead" '[.status.vms[] | select(.node == $n) | .name] | join(" ")')
declare -A before
for v in $on_lead; do before[$v]=$(token "$v"); done
check "the leader has VMs" test -n "$on_lead"
power_off "$lead"
for v in $on_lead; do
	moved "$v" "$lead" "${before[$v]}"
	check "$v was started within the bound" in_bound "$cut_ns" "$v"
done
check "another node leads" within $patience led
check "not the dead one" test "$(leader)" != "$lead"
lab power "$lead" on || bail "$lead does not boot"
check "the former leader is back" within $patience back "$lead"
finish
