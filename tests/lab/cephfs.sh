#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Volumes that are files on CephFS, each node with a client (FUSE) of its own: one client stands still, one goes with its host, the OSDs stand still, are killed and come back, the MDS does. Guests' disks are elsewhere.
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=contrib/lab.d/packages
. "$top/contrib/lab.d/packages"
lab_install_packages ceph-mon ceph-osd ceph-mds ceph-fuse || bail "Ceph is not to be had"

at=10.77.10.1 netns=$KVM_HA_LAB_PREFIX-ceph dir=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX-ceph
on_net() { nsenter --net="/run/netns/$netns" "$@"; }
ceph() { on_net timeout $patience ceph -c "$dir/ceph.conf" "$@"; }
# pid [KIND [ARGUMENT]]: of mon, osd, mds, or of fuse and the node; of all
pid() { pgrep -f "^ceph-${1:-[a-z]+} -c $dir/ceph.conf .*${2:-}"; }
client() { pid fuse "/$1\$"; }
start() { on_net "ceph-$1" -c "$dir/ceph.conf" -i "$2" -f >>"$dir/$1.out" 2>&1 9<&- & }
mount_for() { on_net ceph-fuse -c "$dir/ceph.conf" "$dir/$1" >>"$dir/fuse.out" 2>&1 9<&-; }
mds_active() { ceph mds stat | grep -q "up:active}"; }
evictions() { grep -c ': Evicting client session' "$dir/mds.a.log"; }
more_evictions() { [ "$(evictions)" -gt "$1" ]; }

remove_ceph()
{
	local n p
	for p in $(pid); do kill -KILL "$p"; done
	for n in n1 n2 n3 store; do umount --lazy "$dir/$n"; done
	ip netns del "$netns"
	rm -rf "$dir"
} 2>/dev/null
trap 'status=$?; [ -n "$KVM_HA_TEST_KEEP" ] || remove_ceph; (exit $status); at_exit' EXIT

remove_ceph
mkdir -p "$dir"/{store,n1,n2,n3}
ip netns add "$netns" && ip -n "$netns" link set lo up && ip -n "$netns" address add $at/32 dev lo && mount -t tmpfs kvm-ha-lab "$dir/store" || bail "no place for Ceph"
dd if=/dev/zero of="$dir/store/probe" bs=4096 count=1 oflag=direct 2>/dev/null || umount "$dir/store" # the OSDs want O_DIRECT, which tmpfs has since Linux 6.6
mkdir "$dir"/store/{mon,osd.0,osd.1,mds}
# Who opens a file or looks at it makes the MDS ask all others' clients for what they may do with it; whoever writes it waits with them for one that is gone or stands still, for a minute,
# unless that one is evicted before. So are then clients that only wait for OSDs; they must be let in again. Two OSDs: one alone that stood still for longer than its lease does not go on.
cat >"$dir/ceph.conf" <<-END
	[global]
	  fsid = $(uuidgen)
	  mon host = $at
	  public addr = $at
	  auth cluster required = none
	  auth service required = none
	  auth client required = none
	  keyring = $dir/keyring
	  log file = $dir/\$name.log
	  admin socket = $dir/\$name.\$pid.asok
	  run dir = $dir
	  crash dir = $dir
	  mon data = $dir/store/mon
	  osd data = $dir/store/osd.\$id
	  mds data = $dir/store/mds
	  osd pool default size = 2
	  osd crush chooseleaf type = 0
	  bluestore block size = 1G
	[mds]
	  mds cap revoke eviction timeout = 0.5
	  mds tick interval = 0.5
	  mds session blocklist on evict = false
	  mds session blocklist on timeout = false
	[client]
	  client reconnect stale = true
END
on_net ceph-mon -c "$dir/ceph.conf" -i a --mkfs >"$dir/mkfs.out" 2>&1 && start mon a
for o in 0 1; do
	uuid=$(uuidgen)
	within $patience ceph osd new "$uuid" $o || bail "the monitor does not answer"
	on_net ceph-osd -c "$dir/ceph.conf" -i $o --mkfs --osd-uuid "$uuid" >>"$dir/mkfs.out" 2>&1 || bail "no OSD"
	start osd $o
done
start mds a
{ ceph osd pool create meta 8 && ceph osd pool create data 8 && ceph fs new hb meta data; } >>"$dir/mkfs.out" 2>&1 || bail "no file system"
within $patience mds_active || bail "the MDS does not answer"
for n in n1 n2 n3; do mount_for "$n" || bail "no mount for $n"; done

lab_up --volumes file,file,iscsi --files "$dir" --profile standard
guest a n1 --disk iscsi
guest b n2 --disk iscsi
check "its file system is told" eval 'ctl n1 volume test --seconds 2 "$(ctl n1 volume list -o json | jq -r "[.volumes[].url][0]")" -o json | grep -q "fuse.ceph-fuse"'

a=$(token a) b=$(token b) e1=$(epoch n1) view="n2 n3" since=$(now_ns)
kill -STOP "$(client n1)"
check "n1's client stands still: n1 gives its VM up" within $patience runs_elsewhere a n1
note "a: executed on $(vm_node a) $(ms_between "$since" "$(when "$since" "ha-keeper: VM $(vm_uuid a): .* passes the gate")") ms later"
check "it stamps in a new life" within $patience other_life a "$a"
check "n1's host was not reset" test "$(resets n1)" = 0
check "b noticed nothing" same_life b "$b"
a=$(token a) evicted=$(evictions) since=$(now_ns)
check "somebody on n2 looks at both files" eval 'printf "%s\n" "$dir"/n2/vol{1,2}/hb.img | xargs -n 1 -P 2 stat'
note "which took $(ms_between "$since" "$(now_ns)") ms"
check "n1's client is evicted for that" within $patience more_evictions "$evicted"
check "the others go on" stays_online n2 n3
check "their VMs noticed nothing" test "$(token a) $(token b)" = "$a $b"
kill -CONT "$(client n1)"
check "it goes on: n1 is back" within $patience all_online
view=
check "in a new epoch" test "$(epoch n1)" -gt "$e1"

evicted=$(evictions)
power_off n1
kill -KILL "$(client n1)"
umount --lazy "$dir/n1"
mount_for n1 || bail "no mount for n1"
lab power n1 on || bail "n1 does not boot"
check "n1 loses its power, its client with it, and boots at once: it is back" within $patience all_online
check "its former client was evicted as it opened its volumes" within $patience more_evictions "$evicted"
check "the others' VMs noticed nothing" test "$(token a) $(token b)" = "$a $b"

epochs="$(epoch n1) $(epoch n2) $(epoch n3)"
pid osd | xargs kill -STOP
check "the OSDs stand still: all hold" within $patience all_hold
check "for 20 s" throughout 20 all_hold
pid osd | xargs kill -CONT
check "they go on: nobody holds any more" within $patience none_holds
check "guests whose disks are elsewhere noticed nothing" test "$(token a) $(token b)" = "$a $b"
check "epochs are the same" test "$(epoch n1) $(epoch n2) $(epoch n3)" = "$epochs"

pid osd | xargs kill -KILL
check "the OSDs are killed: all hold" within $patience all_hold
for o in 0 1; do start osd $o; done
check "they are back: nobody holds any more" within $patience none_holds
check "all have all volumes" within $patience all_usable
check "all are online" within $patience all_online

kill -KILL "$(pid mds)"
stat "$dir/n3/vol1/hb.img" >/dev/null 2>&1 9<&- &
looks=$!
check "the MDS is killed: volumes that are open stay usable" throughout 20 eval 'all_usable && none_holds'
check "who looks at one now waits" kill -0 $looks
within $patience not mds_active || bail "it is not missed"
start mds a
check "it is back" within $patience mds_active
check "who waited goes on" within $patience not kill -0 $looks
check "nobody holds" throughout 10 none_holds
check "all have all volumes" within $patience all_usable
check "all are online" within $patience all_online
check "guests stamp on" eval 'stamps_on a && stamps_on b'
check "in the same lives" test "$(token a) $(token b)" = "$a $b"
check "epochs are the same" test "$(epoch n1) $(epoch n2) $(epoch n3)" = "$epochs"
check "nobody was reset" test "$(resets n1) $(resets n2) $(resets n3)" = "0 0 0"
finish
