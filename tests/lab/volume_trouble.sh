#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Each trouble that a volume may have, made for real: status tells it with since when, a hook is called, and it ends when the volume is well again.
. "$(dirname -- "$0")/lib.sh"

tell_hook='#!/bin/sh
echo "HOOK event=$KVM_HA_EVENT host=$KVM_HA_HOST volume=$KVM_HA_VOLUME reason=$KVM_HA_REASON"'
hook_told() { told "$since" "HOOK event=$1 host=n1 volume=$2 reason=.+"; }
# trouble VOLUME WORD: n1 says so, since a time that is not before the fault
trouble() { [ "$(ctl n1 status -o json | jq -r --arg w "$2" --argjson v "$1" --argjson s $((since / 1000000)) \
	'.status.volumes[$v] | .trouble == $w and ($w == "none" or .trouble_since_ms >= $s - 100)')" = true ]; }
in_list() { [ "$(lab exec n1 -- timeout 40 ha-ctl volume list -o json | jq -r ".volumes[$1].trouble")" = "$2" ]; }
url() { ctl n1 status -o json | jq -r ".status.volumes[$1].url"; }
well() { local v; for v in 0 1 2; do trouble $v none || return 1; done; }
images=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX
slow_pid=
no_more_slow()
{
	[ -z "$slow_pid" ] || { kill "$slow_pid"; wait "$slow_pid"; } 2>/dev/null
	slow_pid=
	kill -CONT "$(server ganesha)" 2>/dev/null
}

lab_up --volumes iscsi,nfs,iscsi
for n in $nodes; do
	mkdir -p "$state/$n/etc/kvm-ha/hooks.d"
	printf '%s\n' "$tell_hook" >"$state/$n/etc/kvm-ha/hooks.d/50-tell"
	chmod 755 "$state/$n/etc/kvm-ha/hooks.d" "$state/$n/etc/kvm-ha/hooks.d/50-tell"
done
guest a n1 --disk iscsi
a=$(token a)
since=$(now_ns)
check "all volumes are well" within $patience well

# Failing: a server that hangs
nfs=$(url 1) third=$(url 2)
since=$(now_ns)
lab storage hang nfs
check "a hanging volume is failing" within $patience trouble 1 failing
check "its hook is called" within $patience hook_told volume-failing "$nfs"
check "status says so in words" within $patience sh -c "$top/contrib/lab exec n1 -- ha-ctl status | grep -qE 'volume $nfs: failing since [0-9]{4}-'"
lab storage resume nfs
check "it is well again" within $patience well
check "and that is told" within $patience hook_told volume-good "$nfs"

# Slow: the same server, half asleep
since=$(now_ns)
ganesha=$(server ganesha) nap=$(awk -v io="$(timing IO)" 'BEGIN { print io * 0.6 / 1000 }')
(trap 'exit 0' TERM; while :; do kill -STOP "$ganesha"; sleep "$nap"; kill -CONT "$ganesha"; sleep 0.03; done) &
slow_pid=$!
check "a slow volume is slow" within $patience trouble 1 slow
check "its hook is called" within $patience hook_told volume-slow "$nfs"
check "volume list has it" within $patience in_list 1 slow
no_more_slow
check "it is well again" within $patience well

# Read-only
tid=$(tgt --mode target --op show | awk '/^Target [0-9]+:.*:vol3$/ { sub(":", "", $2); print $2 }')
since=$(now_ns)
tgt --mode logicalunit --op update --tid "$tid" --lun 1 --params readonly=1
check "a volume that refuses writes is read-only" within $patience trouble 2 read-only
check "its hook is called" within $patience hook_told volume-read-only "$third"
check "status tells what the target says" within $patience sh -c "$top/contrib/lab exec n1 -- ha-ctl status | grep -q 'volume $third: read-only since .*WRITE_PROTECTED'"
tgt --mode logicalunit --op update --tid "$tid" --lun 1 --params readonly=0
check "it is well again" within $patience well

# Stale: an older image of it comes back. What a node that is down has written last is not on it, and nobody writes that again.
# The two heartbeats of n3 (id 3) in the table, which begins at 8192
both_newer() { ! cmp -s -n 4096 -i 24576 "$1" "$2" && ! cmp -s -n 4096 -i 28672 "$1" "$2"; }
offline() { node_is "$1" .state offline; }
cp "$images/iscsi/vol3.img" "$test_name.img"
check "n3 has written both its heartbeats anew" within $patience both_newer "$images/iscsi/vol3.img" "$test_name.img"
power_off n3
check "n3 is seen to stand still: what it has written last was read" within $patience offline n3
since=$(now_ns)
dd if="$test_name.img" of="$images/iscsi/vol3.img" bs=4096 count=2000 conv=notrunc status=none
rm -f "$test_name.img"
check "a volume that was rolled back is stale" within $patience trouble 2 stale
check "its hook is called" within $patience hook_told volume-stale "$third"
lab power n3 on || bail "n3 does not boot"
check "n3 is back" within $patience back n3
check "disarm" ctl n1 disarm
check "all are disarmed" within $patience disarmed
check "it is replaced by itself" within $patience ctl n1 volume replace "$third"
check "all volumes are usable on all nodes" within $patience all_usable
check "it is well again" within $patience well

# Foreign: somebody has wiped it
since=$(now_ns)
dd if=/dev/zero of="$images/iscsi/vol3.img" bs=4096 count=2 conv=notrunc status=none
check "a volume that was wiped is foreign" within $patience trouble 2 foreign
check "its hook is called" within $patience hook_told volume-foreign "$third"
check "it is replaced by itself" within $patience ctl n1 volume replace "$third"
check "all volumes are usable on all nodes" within $patience all_usable
check "it is well again" within $patience well
check "arm, as soon as one of the agents that have just started again leads" within $patience ctl n1 arm
check "all nodes are armed" within $patience all_online
check "a has noticed nothing" same_life a "$a"
check "a stamps on" stamps_on a
finish
