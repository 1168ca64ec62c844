#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What an operator may ask for beyond start and stop: a VM on another node, hands off a VM or all of them, VMs back after maintenance, and a VM tried
# again that was given up.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
says() { local re=$1; shift; "$@" 2>&1 | grep -Eq -- "$re"; }
field() { [ "$(vm "$1" "$2")" = "$3" ]; }
no_request() { field "$1" .move_to null; }
declare -A uuid # while the agents are away nobody could tell
signal_qemu() { lab exec "$3" -- systemctl kill -s "$1" --kill-whom=main "kvmha-vm-${uuid[$2]}.service"; }
# The guest writes no more: its counter, in whatever life, stands still for so many seconds.
stands_still() { local at; at=$(stamp "$1" counter) && throughout "$2" eval '[ "$(stamp '"$1"' counter)" = '"$at"' ]'; }
ran_out() { field "$1" .state stopped && same_life "$1" "$2"; }

lab_up --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk nfs
uuid[a]=$(vm_uuid a) uuid[b]=$(vm_uuid b)

# A relocation
a=$(token a) b=$(token b) since=$(now_ns)
check "a relocation is waited for" ctl n3 vm relocate a n2 --wait
check "a runs on n2" within $patience runs_on a n2
check "in a new life" within $patience other_life a "$a"
check "a stamps" stamps_on a
check "nothing is left of the request" within $patience no_request a
check "its guest on n1 shut down by itself" within $patience told "$since" "n1 systemd: kvmha-vm-${uuid[a]}.service: Deactivated successfully"
for n in $nodes; do
	check "events of $n tell of it" within $patience says 'VM a: moved to node n2' ctl "$n" events
done
check "b noticed nothing" same_life b "$b"
check "it stays there" throughout 3 runs_on a n2
check "to where it is already: refused" exits 1 ctl n1 vm relocate a n2
check "and says so" says 'is on node n2 already' ctl n1 vm relocate a n2
check "to a node that is not: refused" says 'no node named n9' ctl n1 vm relocate a n9
check "a VM that is not: refused" exits 1 ctl n1 vm relocate nobody n1
a=$(token a)
check "a is stopped" ctl n1 vm stop a
check "a is down" within $patience is_down a
check "a stopped VM may be given a node" says 'on its next start' ctl n2 vm relocate a n3 --wait
check "it stays down" throughout 3 is_down a
check "status tells where it will start" within $patience says 'to be started on n3' ctl n1 vm list
check "a is started" ctl n1 vm start a
check "there" within $patience runs_on a n3
check "in a new life" within $patience other_life a "$a"
check "nothing is left of the request" within $patience no_request a

# The node it is on its way to dies: while its old one still shuts it down (its QEMU stands still until that has happened), and when it has come to the
# new one's gate.
for at in 'VM a: shutting down' "VM ${uuid[a]}: .* passes the gate"; do
	from=$(vm_node a) a=$(token a)
	to=n1; [ "$from" = n1 ] && to=n2
	[ "$at" != 'VM a: shutting down' ] || signal_qemu STOP a "$from" || bail "QEMU of a is not stopped"
	since=$(now_ns)
	ctl "$from" vm relocate a "$to" --wait >"$work/wait" 2>&1 &
	waits=$!
	within $patience told "$since" "$at" || bail "a does not leave $from"
	power_off "$to"
	[ "$at" != 'VM a: shutting down' ] || signal_qemu CONT a "$from"
	check "$to dies in a relocation ($at): a runs on another node" within $patience runs_elsewhere a "$to"
	check "in a new life" within $patience other_life a "$a"
	check "a stamps" stamps_on a
	check "nothing is left of the request" within $patience no_request a
	wait "$waits"
	waited=$?
	note "$(cat "$work/wait")"
	# One that came through the gate may have been seen to run there.
	[ "$at" != 'VM a: shutting down' ] || check "who waited is told that it failed" test $waited -eq 1
	check "it is offline" within $patience node_is "$to" .state offline
	check "a relocation to a node that is off is refused" says 'not online' ctl "$from" vm relocate a "$to"
	lab power "$to" on || bail "$to does not boot"
	check "$to is back" within $patience back "$to"
done

# All agents are killed while it is on its way, the leader's with them
from=$(vm_node a) a=$(token a) since=$(now_ns)
to=n1; [ "$from" = n1 ] && to=n2
signal_qemu STOP a "$from" || bail "QEMU of a is not stopped"
ctl n3 vm relocate a "$to" --wait >"$work/wait" 2>&1 &
waits=$!
within $patience told "$since" 'VM a: shutting down' || bail "a does not leave $from"
for n in $nodes; do lab exec "$n" -- systemctl kill -s KILL --kill-whom=main ha-agent; done
signal_qemu CONT a "$from"
check "agents killed in a relocation: a runs where it was asked to" within $patience runs_on a "$to"
check "in a new life" within $patience other_life a "$a"
check "who waited is told so" wait "$waits"
note "$(cat "$work/wait")"
check "nothing is left of the request" within $patience no_request a
check "all agents are back" within $patience all_online

# Hands off one VM
home=$(vm_node b) b=$(token b)
check "b is ignored" ctl n1 vm ignore b
check "status says so" within $patience says 'VM b is running and ignored' ctl n1 status
check "it runs on" stamps_on b
check "a relocation of it is refused" says 'is ignored' ctl n1 vm relocate b n1
check "its removal is refused" says 'is ignored' ctl n1 vm remove b
signal_qemu KILL b "$home"
check "its QEMU is killed: nobody restarts it" within $patience field b .state stopped
check "nor later" throughout 8 ran_out b "$b"
check "b is started again" ctl n2 vm start b
check "b runs on its node" within $patience runs_on b "$home"
check "in a new life" within $patience other_life b "$b"
stamps_on b
b=$(token b)
check "b is ignored once more" ctl n1 vm ignore b
power_off "$home"
view=$(for n in $nodes; do [ "$n" = "$home" ] || echo "$n"; done)
check "its node is over" within $patience node_is "$home" .state offline
check "nobody takes it over" stands_still b $((bound_ms / 1000 + 1))
check "it has no node" field b '.node // "none"' none
check "status tells that its node is down" says 'ignored.*its last node is down' ctl_any vm list
check "b is started again" ctl_any vm start b
check "b runs elsewhere" within $patience runs_elsewhere b "$home"
check "in a new life" within $patience other_life b "$b"
lab power "$home" on || bail "$home does not boot"
check "$home is back" within $patience back "$home"
view=

# Maintenance and back
home=$(vm_node a) a=$(token a)
check "maintenance of a's node" ctl n1 node maintenance on "$home"
migrated a "$home" "$a"
check "status tells where it belongs" within $patience field a .return_to "$home"
check "a relocation to there is refused" says 'is in maintenance' ctl n1 vm relocate a "$home"
a=$(token a)
check "maintenance ends with --return" ctl n1 node maintenance off "$home" --return
check "a is back" within $patience runs_on a "$home"
check "in the same life" same_life a "$a"
check "nothing is left of the request" within $patience no_request a
check "maintenance of a's node again" ctl n1 node maintenance on "$home"
check "a runs elsewhere" within $patience runs_elsewhere a "$home"
stamps_on a
a=$(token a)
check "maintenance ends" ctl n1 node maintenance off "$home"
check "status tells that a stays" within $patience field a .return_to null
check "a stays where it is" throughout 5 same_life a "$a"

# A VM that fails wherever it is tried: its QEMU opens a file that no node has yet.
lab guest c n1 --print | sed 's,-nodefaults,-nodefaults -fw_cfg name=opt/lab\,file=/run/lab-allowed,' >"$work/c.vm"
printf 'RestartLimit=0\nRelocateLimit=1\n' >>"$work/c.vm"
check "c is added" eval 'lab exec n1 -- ha-ctl vm add - <"$work/c.vm"'
check "c fails on two nodes and is given up" within $patience field c .state error
check "that is where it was tried" eval '[ "$(vm c ".failed_on | length")" = 2 ]'
check "status says so" within $patience says 'VM c is in error' ctl n1 status
check "and every node's events" within $patience says 'VM c: given up' ctl n3 events
check "it stays so" throughout 5 field c .state error
check "a relocation of it is refused" says 'clear-error' ctl n1 vm relocate c n3
check "so is a start, which would change nothing" says 'clear-error' ctl n1 vm start c
check "no error, nothing to clear" exits 1 ctl n1 vm clear-error a
for n in $nodes; do lab exec "$n" -- sh -c 'echo yes >/run/lab-allowed'; done
check "mended, clear-error" ctl n2 vm clear-error c
check "c runs" within $patience runs c
check "c stamps" stamps_on c
check "its failures are forgotten" within $patience field c '.failed_on | length' 0

# Hands off all
home=$(vm_node c) c=$(token c) uuid[c]=$(vm_uuid c)
check "disarm --freeze" ctl n1 disarm --freeze
check "status says that all are frozen" within $patience says 'all VMs are frozen' ctl n2 status
signal_qemu KILL c "$home"
check "c's QEMU is killed: it is down" within $patience field c .state stopped
check "and stays down" throughout 5 ran_out c "$c"
check "a relocation is refused" says 'are frozen' ctl n1 vm relocate a n1
check "a stop is taken" ctl n1 vm stop a
check "and waits" stamps_on a
check "arm" ctl n3 arm
check "c runs again" within $patience runs_on c "$home"
check "in a new life" within $patience other_life c "$c"
check "a is down" within $patience is_down a
check "all are armed" within $patience all_online
rm -rf "$work"
finish
