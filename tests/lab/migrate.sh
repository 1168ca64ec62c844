#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Live migration with real QEMU: the guest goes on in the same life, counting; what fails on the way leaves one running guest; what cannot be migrated is
# refused.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
says() { local re=$1; shift; "$@" 2>&1 | grep -Eq -- "$re"; }
field() { [ "$(vm "$1" "$2")" = "$3" ]; }
no_request() { field "$1" .move_to null; }
on_its_way() { field "$1" '.migration.to // "none"' "$2" && [ "$(vm "$1" '.migration.remaining // 0')" -gt 0 ]; }
agent() { lab exec "$2" -- systemctl kill -s "$1" --kill-whom=main ha-agent; }
# The longest time between two of its stamps, as they came to the server, once the watch has ended
pause_of()
{
	awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { print int(gap / 1000000) }' "$test_name.$1.stamps"
	rm -f "$test_name.$1.stamps"
}
other_node() { local n; for n in $nodes; do [ "$n" = "$1" ] || { echo "$n"; return; }; done; }

lab_up --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk nfs

# As it runs, and back
for way in "a n2" "a n1" "b n3"; do
	read -r g to <<<"$way"
	life=$(token "$g") counter=$(stamp "$g" counter)
	watch_stamps "$g"
	within $patience above "$g" $((counter + 5)) || bail "$g does not stamp"
	check "$g is migrated to $to" ctl n3 vm migrate "$g" "$to" --wait
	check "$g runs on $to" within $patience runs_on "$g" "$to"
	check "$g goes on stamping" stamps_on "$g"
	check "in the same life" same_life "$g" "$life"
	unwatch "$g"
	note "$g to $to: longest time between two stamps $(pause_of "$g") ms; they come every $write_interval_ms ms"
	check "nothing is left of the request" within $patience no_request "$g"
	check "status shows it on one node" eval '[ "$(ctl_any status -o json | jq "[.status.vms[] | select(.name == \"$g\")] | length")" = 1 ]'
done

# The source's unit has failed, as its QEMU was killed, and is still there: somebody starts it by hand
unit=kvmha-vm-$(vm_uuid b).service since=$(now_ns) life=$(token b)
check "b's unit is left on n2, where it was" lab exec n2 -- systemctl is-failed "$unit"
lab exec n2 -- systemctl start "$unit" >/dev/null 2>&1
check "started by hand it is refused" within $patience told "$since" "n2 ha-launch: .*this is no start that ha-agent waits for"
check "b runs on n3, in the same life" eval 'same_life b "$life" && runs_on b n3'
check "and nobody else has the VM's unit running" not lab exec n2 -- systemctl is-active "$unit"

# What is refused
check "to where it is already: refused" says 'is on node n1 already' ctl n1 vm migrate a n1
check "to a node that is not: refused" says 'no node named n9' ctl n1 vm migrate a n9
check "a VM that is not: refused" exits 1 ctl n1 vm migrate nobody n1
check "nothing to call off: refused" says 'no migration' ctl n1 vm migrate a --cancel
lab guest l n1 --print | sed 's,-nodefaults,-nodefaults -drive if=none\,id=x\,format=raw\,file=/run/lab-local,' >"$work/l.vm"
for n in $nodes; do lab exec "$n" -- truncate -s 1M /run/lab-local; done
check "a VM with a disk of its host is added" eval 'lab exec n1 -- ha-ctl vm add - <"$work/l.vm"'
check "and runs" within $patience runs l
home=$(vm_node l)
check "its migration is refused, and what to do instead is said" says 'cannot be migrated: .*lab-local.*vm relocate' ctl n1 vm migrate l "$(other_node "$home")"
check "it is stopped" ctl n1 vm stop l
check "and down" within $patience is_down l
check "one that does not run is refused" says 'cannot be migrated|does not run' ctl n1 vm migrate l n2

# A disk of its host that its file calls shared. The leader sees it where it is one of the two nodes itself; else they do, when it begins.
within $patience led || bail "nobody leads"
lead=$(leader)
home=$(other_node "$lead")
for n in $nodes; do [ "$n" = "$home" ] || [ "$n" = "$lead" ] || third=$n; done
lab guest k "$home" --print | sed -e 's,-nodefaults,-nodefaults -drive if=none\,id=x\,format=raw\,file=/run/lab-own,' -e 's,^Disk=.*,&\nDisk=/run/lab-own,' >"$work/k.vm"
for n in $nodes; do lab exec "$n" -- truncate -s 1M /run/lab-own; done
check "a VM with a Disk= of its host is added, with a warning" says 'Disk=/run/lab-own is on a local disk of this host' eval 'lab exec n1 -- ha-ctl vm add - <"$work/k.vm"'
check "and runs" within $patience runs_on k "$home"
stamps_on k || bail "k does not stamp"
k=$(token k)
check "its migration to the leader is refused" says "cannot be migrated: Disk=/run/lab-own is on a local disk of node $lead" ctl "$third" vm migrate k "$lead"
check "to the third it is asked for, and given up for that reason" says 'Disk=/run/lab-own is on a local disk of node' \
	ctl "$lead" vm migrate k "$third" --wait
check "k runs where it ran" within $patience runs_on k "$home"
check "k stamps" stamps_on k
check "in the same life" same_life k "$k"
check "it is stopped" ctl n1 vm stop k
check "and down" within $patience is_down k

# One that takes its time: memory that is not zero, at 1 MiB a second
fill() { lab exec "$1" -- sh -c 'head -c 12M /dev/urandom >/run/lab-memory'; } # gone with the node's power
for n in $nodes; do fill "$n"; done
lab guest s n1 --print | sed 's,-nodefaults,-nodefaults -device loader\,file=/run/lab-memory\,addr=0x1000000\,force-raw=on,' >"$work/s.vm"
printf '\n[Migration]\nBandwidth=1M\nDowntimeLimit=100ms\nAutoConverge=yes\nChannels=2\n' >>"$work/s.vm"
check "a slow one is added" eval 'lab exec n1 -- ha-ctl vm add - <"$work/s.vm"'
check "s runs" within $patience runs_on s n1
stamps_on s || bail "s does not stamp"
life=$(token s)
check "its migration is asked for" ctl n2 vm migrate s n2
check "it is on its way" within $patience on_its_way s n2
note "on its way: $(vm s '.migration | tostring')"
check "it is called off" ctl n3 vm migrate s --cancel
check "no migration is under way any more" within $patience field s '.migration // "none"' none
check "s runs on n1" within $patience runs_on s n1
check "s stamps" stamps_on s
check "in the same life" same_life s "$life"

# The agent of its node is killed on the way, then the target's
for victim in n1 n2; do
	check "s is asked to n2 again" ctl n3 vm migrate s n2
	check "it is on its way" within $patience on_its_way s n2
	agent KILL "$victim"
	check "agent of $victim killed: s gets to n2 in the end, or stays" within 180 no_request s
	check "agent of $victim is back" within $patience back "$victim"
	check "s runs" within $patience runs s
	check "s stamps" stamps_on s
	check "in the same life" same_life s "$life"
	note "s runs on $(vm_node s)"
	[ "$(vm_node s)" = n1 ] || within $((2 * patience)) eval 'runs_on s n1 || ctl n3 vm migrate s n1 --wait' || bail "s is not back on n1"
done

# The target loses power on the way
check "s is asked to n2" ctl n3 vm migrate s n2
check "it is on its way" within $patience on_its_way s n2
power_off n2
view="n1 n3"
check "target lost: s runs on n1" within $patience runs_on s n1
check "s stamps" stamps_on s
check "in the same life" same_life s "$life"
lab power n2 on || bail "n2 does not boot"
check "n2 is back" within $patience back n2
fill n2
view=

# The source loses power on the way
check "s is asked to n2" ctl n3 vm migrate s n2
check "it is on its way" within $patience on_its_way s n2
power_off n1
view="n2 n3"
check "source lost: s runs on another node" within $patience runs_elsewhere s n1
check "s stamps" stamps_on s
check "in a new life" other_life s "$life"
lab power n1 on || bail "n1 does not boot"
check "n1 is back" within $patience back n1
view=

# One that would take longer than it may
for n in $nodes; do fill "$n"; done
lab guest t n3 --print | sed 's,-nodefaults,-nodefaults -device loader\,file=/run/lab-memory\,addr=0x1000000\,force-raw=on,' >"$work/t.vm"
printf '\n[Migration]\nBandwidth=1M\nTimeout=10s\n' >>"$work/t.vm"
check "one with a Timeout= is added" eval 'lab exec n1 -- ha-ctl vm add - <"$work/t.vm"'
check "t runs" within $patience runs_on t n3
stamps_on t || bail "t does not stamp"
life=$(token t) since=$(now_ns)
check "its migration is asked for" ctl n2 vm migrate t n2
check "it is called off after that time" within $patience told "$since" "VM t: migration ended: not done after 1[0-9] s, its Timeout= is 10 s"
check "and its request withdrawn" ctl n1 vm migrate t --cancel
check "no migration is under way any more" within $patience field t '.migration // "none"' none
check "t runs where it ran" within $patience runs_on t n3
check "t stamps" stamps_on t
check "in the same life" same_life t "$life"

# Maintenance empties a node by migration
home=$(vm_node b) b=$(token b)
check "maintenance of b's node" ctl n1 node maintenance on "$home"
check "b runs elsewhere" within $patience runs_elsewhere b "$home"
check "b stamps" stamps_on b
check "in the same life" same_life b "$b"
check "maintenance ends with --return" ctl n1 node maintenance off "$home" --return
check "b is back" within $patience runs_on b "$home"
check "b stamps" stamps_on b
check "in the same life" same_life b "$b"
rm -rf "$work"
finish
