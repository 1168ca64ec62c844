#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What keeps a cluster from fencing too much: the brake when most nodes are suspect at once, and an operator's way around it; the quarantine of a node that is
# fenced again and again; a node that boots without its ring, which neither arms nor is reset.
. "$(dirname -- "$0")/lib.sh"

hook_told() { told "$since" "HOOK event=$1 node=$2"; }
quarantined() { node_is "$1" .quarantine "$2"; }
braked() { ctl n1 status | grep -q 'more than Brake= allows'; }
is_over() { node_is "$1" '(.over >= .epoch) | tostring' "$2"; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
for n in $nodes; do
	mkdir -p "$state/$n/etc/kvm-ha/conf.d" "$state/$n/etc/kvm-ha/hooks.d"
	printf '[Fencing]\nBrake=50%%\nQuarantine=2\n' >"$state/$n/etc/kvm-ha/conf.d/50-brakes.conf"
	printf '#!/bin/sh\necho "HOOK event=$KVM_HA_EVENT node=$KVM_HA_NODE"\n' >"$state/$n/etc/kvm-ha/hooks.d/50-tell"
	chmod 755 "$state/$n/etc/kvm-ha/hooks.d/50-tell"
	old=$(main_pid "$n" ha-keeper)
	lab exec "$n" -- kill -KILL "$old" && within $patience other_pid "$n" ha-keeper "$old" || bail "the keeper of $n does not start again"
done
restart_agents || bail "the agents do not restart"
within $patience all_online || bail "the nodes are not online again"
guest a n3 --disk iscsi
guest b n2 --disk nfs
a=$(token a) b=$(token b)

# Two of three at once
since=$(now_ns) view=n1
lab power n2 off && lab power n3 off || bail "the power is not cut"
check "two of three nodes are gone: n1 brakes" within $patience hook_told brake-on n1
check "status tells it" within $patience braked
check "nobody is fenced" throughout $((bound_ms / 1000 + 5)) eval 'is_over n2 false && is_over n3 false'
check "so no VM was started elsewhere" eval '[ "$(token a) $(token b)" = "$a $b" ]'
fell=$(now_ns)
check "an operator has n3 fenced" ctl n1 node fence n3
moved a n3 "$a"
note "a: from the operator's word to the next exec $(ms_between "$fell" "$(when "$fell" "ha-keeper: VM $(vm_uuid a): .* passes the gate")") ms"
check "half of what is left is no more than the brake allows: it is let go" within $patience hook_told brake-off n1
moved b n2 "$b"
view=
for n in n2 n3; do lab power $n on || bail "$n does not boot"; done
for n in n2 n3; do check "$n is back" within $patience back $n; done
check "n3 is in quarantine, by the operator" quarantined n3 true
check "n2 is not, it was fenced once" quarantined n2 false
check "n3 is let out" ctl n1 node unfence n3
check "it is" within $patience quarantined n3 false

# Fenced again and again
since=$(now_ns)
lab power n2 off || bail "the power of n2 is not cut"
check "n2 is fenced a second time" within $patience is_over n2 true
check "it gets into quarantine" within $patience quarantined n2 true
check "a hook is told" within $patience hook_told quarantine-on n2
lab power n2 on || bail "n2 does not boot"
check "n2 is back" within $patience back n2
check "and in quarantine still" quarantined n2 true
from=$(vm_node a) a=$(token a)
power_off "$from"
view=$([ "$from" = n1 ] && echo n3 || echo n1)
moved a "$from" "$a"
check "a is not started on n2, as another node can take it" not runs_on a n2
view=
lab power "$from" on || bail "$from does not boot"
check "$from is back" within $patience back "$from"
check "n2 is let out" ctl n1 node unfence n2
check "it is" within $patience quarantined n2 false

# It boots without its ring
epoch3=$(epoch n3) resets3=$(resets n3) view="n1 n2"
for v in a b; do
	[ "$(vm_node $v)" != n3 ] || check "$v leaves n3" ctl_any vm migrate $v n1 --wait
done
a=$(token a) b=$(token b)
power_off n3
check "n3 is fenced" within $patience is_over n3 true
lab net n3 down || bail "n3's network does not go"
lab power n3 on || bail "n3 does not boot"
check "n3 boots without its ring: it never arms" throughout $((bound_ms / 1000 + 15)) eval '! node_is n3 .state online || node_is n3 ".armed | tostring" false'
check "it has taken one epoch at most" test "$(epoch n3)" -le $((epoch3 + 1))
check "it was not reset" test "$(resets n3)" = "$resets3"
lab net heal || bail "the network does not come back"
view=
check "with its ring it is back" within $patience back n3
for v in a b; do check "$v noticed nothing" same_life $v "${!v}"; done
finish
