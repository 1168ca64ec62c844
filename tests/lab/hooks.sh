#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Hooks run with their facts when nodes and VMs come to harm, and one that hangs delays nothing.
. "$(dirname -- "$0")/lib.sh"

# What a hook prints is in its node's journal.
tell_hook='#!/bin/sh
echo "HOOK event=$KVM_HA_EVENT cluster=$KVM_HA_CLUSTER node=$KVM_HA_NODE host=$KVM_HA_HOST vm=$KVM_HA_VM uuid=$KVM_HA_VM_UUID time=$KVM_HA_TIME reason=$KVM_HA_REASON"'
hang_hook='#!/bin/sh
case $KVM_HA_EVENT in volume-* | hold-*) exit 0 ;; esac # of a slow machine there may be many
echo "HOOK hangs"
exec sleep 1000'
put() # put NAME TEXT: on all nodes
{
	local n
	for n in $nodes; do
		mkdir -p "$state/$n/etc/kvm-ha/hooks.d"
		printf '%s\n' "$2" >"$state/$n/etc/kvm-ha/hooks.d/$1"
		chmod 755 "$state/$n/etc/kvm-ha/hooks.d" "$state/$n/etc/kvm-ha/hooks.d/$1"
	done
}
hook_told() { told "$since" "HOOK event=$1 $2"; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
put 50-tell "$tell_hook"
guest a n3 --disk iscsi
a=$(token a) uuid=$(vm_uuid a)
stamp_re='time=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z'
since=$(now_ns)

power_off n3
moved a n3 "$a"
check "node-lost is told" within $patience hook_told node-lost "cluster=lab node=n3 host=n[12] vm= uuid= $stamp_re reason=.+"
check "node-fenced is told" within $patience hook_told node-fenced "cluster=lab node=n3 host=n[12] vm= uuid= $stamp_re"
check "vm-recovered is told" within $patience hook_told vm-recovered "cluster=lab node=$(vm_node a) host=n[12] vm=a uuid=$uuid $stamp_re"
lab power n3 on || bail "n3 does not boot"
check "n3 is back" within $patience back n3
check "node-back is told" within $patience hook_told node-back "cluster=lab node=n3 "

since=$(now_ns)
ctl n1 node maintenance on n3 >/dev/null
check "maintenance-on is told" within $patience hook_told maintenance-on "cluster=lab node=n3 "
ctl n1 node maintenance off n3 >/dev/null
check "maintenance-off is told" within $patience hook_told maintenance-off "cluster=lab node=n3 "

# A VM whose QEMU cannot run
since=$(now_ns)
lab guest broken n2 --print | sed -e 's/-display none/-display none -device no-such-device/' -e 's/^State=started/&\nRestartLimit=0\nRelocateLimit=1/' >"$test_name.vm"
lab exec n1 -- ha-ctl vm add - <"$test_name.vm" >/dev/null || bail "vm add"
rm -f "$test_name.vm"
check "vm-failed is told" within $patience hook_told vm-failed "cluster=lab node=n[123] host=n[123] vm=broken uuid=[0-9a-f-]+ $stamp_re reason=.+"
check "given up on one node, it is tried on the next, then given up for good: vm-error is told" within $patience \
	hook_told vm-error "cluster=lab node= host=n[123] vm=broken uuid=[0-9a-f-]+ $stamp_re reason=.+clear-error"
ctl_any vm remove broken >/dev/null

# One that nobody can take
since=$(now_ns)
lab guest alone n3 --print | sed 's/^PreferredNodes=.*/RequiredNodes=n3/' >"$test_name.vm"
ctl n1 node maintenance on n3 >/dev/null
lab exec n1 -- ha-ctl vm add - <"$test_name.vm" >/dev/null || bail "vm add"
rm -f "$test_name.vm"
check "vm-no-place is told" within $patience hook_told vm-no-place "cluster=lab node= host=n[123] vm=alone uuid=[0-9a-f-]+ $stamp_re reason=.+--why"
for n in $nodes; do
	check "$n's events have it" within $patience eval 'ctl $n events | grep -q "VM alone: no node can take it"'
done
ctl n1 node maintenance off n3 >/dev/null
check "and its start, once n3 takes it" within $patience hook_told vm-started "cluster=lab node=n3 host=n3 vm=alone "
ctl_any vm remove alone >/dev/null

# Hanging hooks on every node, first in order: busy with the maintenance when the power goes
put 10-hang "$hang_hook"
since=$(now_ns)
on=$(vm_node a) a=$(token a)
for n in $nodes; do [ "$n" = "$on" ] || other=$n; done
ctl_any node maintenance on "$other" >/dev/null
check "a hook hangs" within $patience told "$since" 'HOOK hangs'
ctl_any node maintenance off "$other" >/dev/null
power_off "$on"
moved a "$on" "$a"
check "hanging hooks delay no failover" in_bound "$cut_ns" a
check "ended at their time limit, the next ones run" within $patience hook_told node-lost "cluster=lab node=$on "
finish
