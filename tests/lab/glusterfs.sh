#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Volumes that are files on GlusterFS, each node with a client (FUSE) of its own: one client stands still, the server does, is killed and comes back. Guests' disks are elsewhere.
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=contrib/lab.d/packages
. "$top/contrib/lab.d/packages"
lab_install_packages glusterfs-server glusterfs-client || bail "GlusterFS is not to be had"

at=10.77.9.1 netns=$KVM_HA_LAB_PREFIX-gluster dir=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX-gluster
clients=""
on_net() { nsenter --net="/run/netns/$netns" "$@"; }
gluster() { on_net gluster --mode=script --glusterd-sock="$dir/glusterd.socket" "$@"; }
# brick: the process that serves it
brick() { pgrep -f "^/usr/sbin/glusterfsd -s $at .*$dir/"; }

remove_gluster()
{
	local n p
	for p in $clients; do kill -CONT "$p"; done
	for n in n1 n2 n3; do umount --lazy "$dir/$n"; done
	for p in $(brick) $glusterd; do kill -CONT "$p"; kill "$p"; done
	umount --lazy "$dir/brick"
	ip netns del "$netns"
	rm -rf "$dir"
} 2>/dev/null
trap 'status=$?; [ -n "$KVM_HA_TEST_KEEP" ] || { lab down; remove_gluster; }; (exit $status); at_exit' EXIT

remove_gluster
mkdir -p "$dir"/{brick,work,run,n1,n2,n3}
ip netns add "$netns" && ip -n "$netns" link set lo up && ip -n "$netns" address add $at/32 dev lo && mount -t tmpfs kvm-ha-lab "$dir/brick" || bail "no place for GlusterFS"
dd if=/dev/zero of="$dir/brick/probe" bs=4096 count=1 oflag=direct 2>/dev/null || umount "$dir/brick" # the volumes' clients want O_DIRECT, which tmpfs has since Linux 6.6
cat >"$dir/glusterd.vol" <<-END
	volume management
	  type mgmt/glusterd
	  option working-directory $dir/work
	  option run-directory $dir/run
	  option transport-type socket
	  option glusterd-sockfile $dir/glusterd.socket
	end-volume
END
nsenter --net="/run/netns/$netns" glusterd --no-daemon -f "$dir/glusterd.vol" -p "$dir/glusterd.pid" -l "$dir/glusterd.log" >"$dir/glusterd.out" 2>&1 9<&- &
glusterd=$!
within $patience gluster volume list || bail "glusterd does not answer"
gluster volume create hb $at:"$dir/brick/hb" force >/dev/null && gluster volume start hb >/dev/null || bail "no volume"
for n in n1 n2 n3; do
	on_net glusterfs --volfile-server=$at --volfile-id=hb --process-name "$n" --pid-file="$dir/$n.pid" -l "$dir/$n.log" "$dir/$n" 9<&- || bail "no mount for $n"
	clients+=" $(cat "$dir/$n.pid")"
done
client() { cat "$dir/$1.pid"; }

lab_up --volumes file,file,iscsi --files "$dir"
guest a n1 --disk iscsi
guest b n2 --disk iscsi
check "its file system is told" eval 'ctl n1 volume test --seconds 2 "$(ctl n1 volume list -o json | jq -r "[.volumes[].url][0]")" -o json | grep -q "fuse.glusterfs"'

a=$(token a) b=$(token b) e1=$(epoch n1) view="n2 n3" since=$(now_ns)
kill -STOP "$(client n1)"
check "n1's client stands still: n1 gives its VM up" within $patience runs_elsewhere a n1
note "a: executed on $(vm_node a) $(ms_between "$since" "$(when "$since" "ha-keeper: VM $(vm_uuid a): .* passes the gate")") ms later"
check "its host was not reset" test "$(resets n1)" = 0
check "b noticed nothing" same_life b "$b"
kill -CONT "$(client n1)"
check "it goes on: n1 is back" within $patience all_online
view=
check "in a new epoch" test "$(epoch n1)" -gt "$e1"
check "a stamps" stamps_on a

a=$(token a) since=$(now_ns) epochs="$(epoch n1) $(epoch n2) $(epoch n3)"
kill -STOP "$(brick)"
check "the server stands still: all hold" within $patience all_hold
check "for 20 s" throughout 20 all_hold
kill -CONT "$(brick)"
check "it goes on: nobody holds any more" within $patience none_holds
check "guests whose disks are elsewhere noticed nothing" test "$(token a) $(token b)" = "$a $b"
check "epochs are the same" test "$(epoch n1) $(epoch n2) $(epoch n3)" = "$epochs"

kill -KILL "$(brick)"
check "the server is killed: all hold" within $patience all_hold
within $patience eval 'gluster volume start hb force && brick' || bail "the server does not start again"
check "it is back: nobody holds any more" within $patience none_holds
check "all have all volumes" within $patience all_usable
check "all are online" within $patience all_online
check "guests stamp on" eval 'stamps_on a && stamps_on b'
check "in the same lives" test "$(token a) $(token b)" = "$a $b"
check "nobody was reset" test "$(resets n1) $(resets n2) $(resets n3)" = "0 0 0"
finish
