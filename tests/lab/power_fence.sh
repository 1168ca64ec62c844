#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Fencing with more than the watchdog: a real fence agent cuts a node's power and says so, then its VMs need not wait for W; one that hangs, lies or says so too late costs
# nothing but that. A node without storage, an operator's word, an operator's wish, quarantine.
. "$(dirname -- "$0")/lib.sh"

exec_ms() { ms_between "$1" "$(when "$1" "ha-keeper: VM $(vm_uuid "$2"): .* passes the gate")"; }
earlier_than_w() { local ms; ms=$(exec_ms "$@"); note "$2: QEMU executed after $ms ms, W is $w_ms ms"; [ "$ms" -lt "$w_ms" ]; }
not_before_w() { local ms; ms=$(exec_ms "$@"); note "$2: QEMU executed after $ms ms, W is $w_ms ms"; [ "$ms" -ge $((w_ms - hb_ms)) ]; } # W counts from its last heartbeat
power_is() { lab status -o json | jq -e --arg n "$1" --arg p "$2" '.nodes[$n].power == $p' >/dev/null; }
quarantined() { node_is "$1" .quarantine "$2"; }
ended() { node_is "$1" '(.over >= .epoch) | tostring' true; }
in_epoch_after() { [ "$(epoch "$1")" -gt "$2" ]; }
# nothing_of_them: no node has a process of a device's agent; pgrep's own word for it, 1, since lab exec that cannot ask fails, too
nothing_of_them() { local n; for n in $nodes; do [ "$(lab exec "$n" -- sh -c 'pgrep -f "fence_la[b]"; echo $?')" = 1 ] || return 1; done; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
w_ms=$(timing W) hb_ms=$(timing Heartbeat)
[ "$w_ms" -gt 0 ] || bail "no W"
configure_devices || bail "no devices"
devices_do works
chmod 644 "$state/n1/etc/kvm-ha/power.secret"
check "a secret that others can read is refused" exits 78 ctl n1 config check
chmod 600 "$state/n1/etc/kvm-ha/power.secret"
check "one that they cannot is not" ctl n1 config check
restart_agents || bail "the agents do not restart"
check "the agents are back" within $patience all_online
check "the devices of n3 say that it is on" ctl n1 node power n3
guest a n3 --disk iscsi

# Power lost: the device says so. It does not switch it on again at once, and meanwhile the agents are restarted.
devices_do fails-on
a=$(token a) old=$(epoch n3)
power_off n3
moved a n3 "$a"
check "the device's status was the proof" within $patience told "$cut_ns" "node n3: no need to wait for its watchdog: its power is off"
check "a was started before W had passed" earlier_than_w "$cut_ns" a
check "and within the bound" in_bound "$cut_ns" a
check "n3 is not switched on, and that is told" within $patience told "$cut_ns" "node n3: its fence devices have not switched it on: tried again later"
restart_agents n1 n2 || bail "the agents do not restart"
devices_do works
check "n3 is switched on again by itself" within $patience power_is n3 on
check "and is back" within $patience back n3
check "with a new epoch" in_epoch_after n3 "$old"

# Devices that hang, or do not do what they say: W, as if there were none.
for mode in hangs lies fails; do
	devices_do $mode
	a=$(token a) from=$(vm_node a)
	power_off "$from"
	[ $mode != lies ] || lab power "$from" on || bail "$from does not boot" # a device that lies about a node that is on: it must not be believed
	if [ $mode = lies ]; then
		again a "$a"
		check "lies: no device's word was proof" not told "$cut_ns" "node $from: no need to wait"
	else
		moved a "$from" "$a"
		check "$mode: no device's word was proof" not told "$cut_ns" "node $from: no need to wait"
		check "$mode: W was waited for" not_before_w "$cut_ns" a
		check "$mode: within the bound all the same" in_bound "$cut_ns" a
		lab power "$from" on || bail "$from does not boot"
	fi
	check "$mode: $from is back" within $patience back "$from"
	check "$mode: nothing of it is left running" within $patience nothing_of_them
done

# They do it, and say so to nobody: W passes meanwhile. The node is switched on again all the same.
devices_do late
a=$(token a) from=$(vm_node a)
power_off "$from"
moved a "$from" "$a"
check "late: no device's word was proof" not told "$cut_ns" "node $from: no need to wait"
check "late: $from is switched on again by itself" within $patience power_is "$from" on
check "late: and is back" within $patience back "$from"

# A node that has only lost its storage gives its VM up, and its host stays up.
devices_do works
a=$(token a) from=$(vm_node a) before=$(resets "$(vm_node a)") since=$(now_ns) view=${nodes/$(vm_node a)/}
lab storage cut "$from"
moved a "$from" "$a"
check "no storage: no device was told to switch $from off" not told "$since" "node $from: its fence devices are told to switch it off"
lab storage heal "$from"
view=
check "no storage: $from is back" within $patience back "$from"
check "no storage: it was not reset, and not switched off" eval '[ "$(resets "$from")" -eq "$before" ] && power_is "$from" on'

# An operator's word. n3 is alive first, then dead and its devices are of no use.
from=$(vm_node a)
other=n1; [ "$from" != n1 ] || other=n2
confirm() { echo "$1" | ctl "$other" node confirm-fenced "$from"; }
check "a live node cannot be confirmed to be dead" exits 1 confirm "$from"
a=$(token a)
power_off "$from"
check "$from is being fenced" within $patience node_is "$from" .state fencing
check "not by another name than its own" exits 1 confirm "$other"
check "it can be confirmed" confirm "$from"
moved a "$from" "$a"
check "the operator's word was the proof" within $patience told "$cut_ns" "node $from: no need to wait for its watchdog: an operator has confirmed"
check "a was started before W had passed" earlier_than_w "$cut_ns" a
devices_do works
lab power "$from" on || bail "$from does not boot"
check "$from is back" within $patience back "$from"

# An operator's wish: a live node gives up its VMs, and is not reset.
from=$(vm_node a) old=$(epoch "$(vm_node a)") before=$(resets "$(vm_node a)") a=$(token a)
other=n1; [ "$from" != n1 ] || other=n2
check "a live node can be fenced" ctl "$other" node fence "$from"
moved a "$from" "$a"
check "it rejoins" within $patience in_epoch_after "$from" "$old"
check "it was not reset" test "$(resets "$from")" -eq "$before"
check "it is in quarantine" within $patience quarantined "$from" true
check "until it is let out" ctl "$other" node unfence "$from"
check "it is out" within $patience quarantined "$from" false

# The same with its power.
check "and $from is back" within $patience back "$from"
devices_do fails
fenced_ns=$(now_ns)
check "a node can be fenced and switched off" ctl "$other" node fence "$from" --off
check "its lease ends" within $patience ended "$from"
check "it is not switched off, and that is told" within $patience told "$fenced_ns" "node $from: its fence devices have not switched it off: tried again later"
restart_agents "$other" || bail "the agent of $other does not restart"
devices_do works
check "it is off" within $patience power_is "$from" off
check "it stays off" throughout 12 power_is "$from" off
check "unfence switches it on" ctl "$other" node unfence "$from"
check "it is on" within $patience power_is "$from" on
check "and back" within $patience back "$from"
finish
