#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# SCSI-3 persistent reservations by the nodes' own kernels (open-iscsi, SG_IO): who may write a VM's disk, read from the target at each step. What they are for: a
# node that stood still, was called dead by mistake, and goes on. So n1 has no watchdog, nothing there ends its QEMU, and only the target can refuse its writes.
. "$(dirname -- "$0")/lib.sh"

lab_up --vm --nodes 2 --profile safe --volumes block,mount,iscsi

disk() { lab exec "$1" -- sh -c 'f=$(ls /dev/disk/by-path/*"$0"-lun-1) && readlink -f "$f"' "guest-$2"; }
# by NODE VM SG_PERSIST'S OPTIONS...: by that node's kernel
by() { local node=$1 dev; dev=$(disk "$1" "$2") && shift 2 && lab exec "$node" -- sg_persist -n "$@" "$dev"; }
keys() { by "$1" "$2" --in --read-keys | sed -n 's/^ *0x//p'; }
nodes_of() { local k; for k in $(keys n2 "$1" | sort); do printf 'n%d ' $((16#$k >> 32 & 255)); done; } # whose keys they are
keyed() { [ "$(nodes_of "$1")" = "${2:+$2 }" ]; }
wero() { by n2 "$1" --in --read-reservation | grep -q "Write Exclusive, registrants only"; }
reserved() { [ "$(vm "$1" .reserved)" = yes ]; }
all_reserved() # all_reserved VM NODE: that node alone may write
{
	check "$1 is reserved" within $patience reserved "$1"
	check "its disk has a key of $2 and no other" within $patience keyed "$1" "$2"
	check "only who has a key may write it" wero "$1"
}
conflicts() { lab exec "$1" -- journalctl -k -q --grep "reservation conflict" --no-pager | wc -l; }
more_conflicts() { [ "$(conflicts "$1")" -gt "$2" ]; }
configure() { lab exec "$1" -- sh -c 'mkdir -p /etc/kvm-ha/conf.d && printf "%b" "$0" >/etc/kvm-ha/conf.d/50-test.conf && sync' "$2"; }
armed_all() { ctl_any arm && within 20 all_online; }

ctl_any disarm >/dev/null
within $patience disarmed || bail "the cluster does not disarm"
configure n1 '[Fencing]\nReservation=volatile\n[Watchdog]\nDevice=none\nEvidence=no\n' || bail "n1's configuration"
configure n2 '[Fencing]\nReservation=volatile\n' || bail "n2's configuration"
for n in $nodes; do
	old=$(main_pid "$n" ha-keeper)
	lab exec "$n" -- systemctl kill --kill-who=main ha-keeper && within 60 other_pid "$n" ha-keeper "$old" && lab exec "$n" -- systemctl restart ha-agent ||
		bail "$n does not start again"
done
within $patience armed_all || bail "the cluster does not arm"

guest a n1 --disk block
guest b n2 --disk block
guest m n2 --disk mount
all_reserved a n1
all_reserved b n2
check "m has its disk on NFS: it runs, and is not reserved" test "$(vm m '.reserved | startswith("no: ")')" = true
note "of m: $(vm m .reserved)"

life=$(token b)
check "b is migrated" ctl n2 vm migrate b n1 --wait
migrated b n2 "$life"
all_reserved b n1

had="$(keys n2 a) $(keys n2 b)" life=$(token a)
lab exec n1 -- systemctl restart ha-agent
check "n1's agent starts again" within $patience agent_answers n1
all_reserved a n1
check "the keys are those from before" test "$(keys n2 a) $(keys n2 b)" = "$had"
check "a noticed nothing" same_life a "$life"

# The target forgets b's keys: nobody may put one back under a running guest.
life=$(token b) fell=$(now_ns)
check "b's keys are lost" by n1 b --out --clear --param-rk="$(keys n1 b)"
check "b is ended" within $patience told "$fell" "VM b: .*reserved"
again b "$life"
all_reserved b "$(vm_node b)"

# A key that is none of this cluster's
check "b is stopped" ctl n2 vm stop b
within $patience is_down b || bail "b does not stop"
check "it leaves no key" within $patience keyed b ""
check "a stranger registers" by n2 b --out --register --param-sark=abc
fell=$(now_ns)
check "b is to start" ctl n2 vm start b
check "it does not, and the key is told" within $patience told "$fell" "VM b: .*0x0*abc"
check "nor does it run anywhere" not runs b
check "the stranger's key is there still" test "$(keys n2 b)" = abc
check "the stranger goes" by n2 b --out --register --param-rk=abc --param-sark=0
check "b runs" within $patience runs b
all_reserved b "$(vm_node b)"

# n1 stands still as a whole, with nothing on it that would end its QEMU before it writes; an operator takes it for off.
life=$(token a) had=$(conflicts n1) old=$(epoch n1) machine=$(<"$state/n1/leader")
lab exec n1 -- sh -c 'systemctl service-watchdogs off && systemctl kill --kill-who=main -s STOP ha-agent ha-keeper' || bail "n1's keeper does not stop"
kill -STOP "$machine"
view=n2
confirm() { echo "$1" | ctl n2 node confirm-fenced "$1"; }
check "an operator says that n1 is off" within $patience confirm n1
moved a n1 "$life"
all_reserved a n2
life=$(token a)
kill -CONT "$machine"
check "n1 goes on: the target refuses what its QEMU writes" within $patience more_conflicts n1 "$had"
check "a runs on n2 as before" stamps_on a
check "in the same life" same_life a "$life"
check "n1 has no key" keyed a n2
lab exec n1 -- systemctl kill --kill-who=main -s CONT ha-keeper ha-agent
view=
check "n1 is back" within $patience back n1
check "with a new epoch" test "$(epoch n1)" -gt "$old"
check "a runs on n2 as before" same_life a "$life"
check "and a has no QEMU on n1" not lab exec n1 -- systemctl is-active -q "kvmha-vm-$(vm_uuid a).service"
finish
