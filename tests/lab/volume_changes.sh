#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The volume set of a cluster that runs goes from three to two, to three, gets another volume in the place of one, and with two of them loses one for good. Each time the daemons
# start again by themselves with the new set, guests notice nothing, and a power cut ends as it must; but for the last, which takes a cluster that stands still.
. "$(dirname -- "$0")/lib.sh"

says() { local regex=$1; shift; "$@" 2>&1 </dev/null | grep -qE -- "$regex"; }
# set_volumes URL...: on every node
set_volumes()
{
	local n
	for n in $nodes; do
		mkdir -p "$state/$n/etc/kvm-ha/conf.d" && printf '[Cluster]\nVolumes=\nVolumes=%s\n' "$*" >"$state/$n/etc/kvm-ha/conf.d/60-volumes.conf" || bail "Volumes="
	done
	want=$#
}
usable_all() { local n; for n in $nodes; do [ "$(ctl "$n" status -o json | jq -r '.status.quorum | "\(.good) \(.volumes)"')" = "$want $want" ] || return 1; done; }
listed() { local n; for n in $nodes; do ctl "$n" volume list -o json | jq -e --argjson w "$want" '(.volumes | length) == $w and all(.volumes[]; .state == "good")' || return 1; done; }
disarm()
{
	within $patience ctl_any disarm || bail "no disarm"
	check "$1: all are disarmed" within $patience disarmed
}
# changed TEXT: the set is what Volumes= says, all nodes work with it, nobody noticed
changed()
{
	check "$1: every keeper starts again with it" within $patience told "$since" 'ha-keeper: the volume set has changed'
	check "$1: all $want volumes are usable on all nodes" within $patience usable_all
	check "$1: they are listed, each good" within $patience listed
	check "$1: arm" within $patience ctl n1 arm
	check "$1: all nodes are armed" within $patience all_online
	check "$1: a has noticed nothing" same_life a "$a"
	check "$1: a stamps on" stamps_on a
}
all_armed() { [ "$(ctl_any status -o json | jq '[.status.nodes[] | select(.armed)] | length')" = 3 ]; }
cut_power()
{
	local home=$(vm_node a)
	power_off "$home"
	moved a "$home" "$a"
	check "a was started within the bound" in_bound "$cut_ns" a
	lab power "$home" on || bail "$home does not boot"
	check "$home is back" within $patience back "$home"
	a=$(token a)
}
# serve NUMBER: one more LUN; its URL
serve()
{
	truncate -s 64M "$images/vol$1.img" && tgt --mode target --op new --tid "9$1" --targetname "$name:vol$1" &&
		tgt --mode logicalunit --op new --tid "9$1" --lun 1 --backing-store "$images/vol$1.img" && tgt --mode target --op bind --tid "9$1" --initiator-address ALL || bail "vol$1"
	echo "iscsi://10.77.2.1:3260/$name:vol$1/1"
}

lab_up --volumes iscsi,nfs,iscsi
images=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX/iscsi
read -r one two three < <(lab status -o json | jq -r '.volumes | join(" ")')
name=${one%:vol1/1} name=${name##*/}
guest a n1 --disk iscsi
a=$(token a)

disarm "3 to 2"
since=$(now_ns)
set_volumes "$one" "$two"
check "a volume is taken out" within $patience ctl n2 volume remove "$three"
changed "3 to 2"
cut_power

disarm "2 to 3"
since=$(now_ns)
set_volumes "$one" "$two" "$three"
check "it is added again" within $patience ctl n3 volume add "$three"
changed "2 to 3"
cut_power

disarm "another one"
since=$(now_ns)
four=$(serve 4)
set_volumes "$one" "$two" "$four"
check "another volume takes its place" within $patience ctl n1 volume replace "$three" "$four"
changed "another one"
cut_power

disarm "2 again"
since=$(now_ns)
set_volumes "$one" "$two"
check "a volume is taken out again" within $patience ctl n1 volume remove "$four"
changed "2 again"

# Of two one is gone for good: nobody can disarm.
lab storage stop nfs
within $patience not usable_all
check "with one of two lost nobody can disarm" not ctl_once n1 disarm
check "all are armed still" all_armed
five=$(serve 5)
set_volumes "$one" "$five"
check "the operator's word does not count while a node lives" says 'alive|armed' ctl n1 volume replace "$two" "$five" --lost
for n in $nodes; do rm -f "$state/$n/dev/enabled"; lab power "$n" off || bail "power of $n"; done
for n in $nodes; do lab power "$n" on || bail "$n does not boot"; done
check "no keeper runs any more" not lab exec n1 -- systemctl is-active -q ha-keeper
check "then it does" ctl n1 volume replace "$two" "$five" --lost
for n in $nodes; do : >"$state/$n/dev/enabled"; lab exec "$n" -- systemctl start --no-block ha-keeper ha-agent; done
check "all nodes work with the new set" within $patience usable_all
check "arm" within $patience ctl n1 arm
check "all nodes are armed" within $patience all_online
again a "$a"
a=$(token a)
cut_power
finish
