#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Nodes with a kernel of their own: softdog as /dev/watchdog, volumes and guests' disks by the kernel's iSCSI initiator and its NFS client. What the watchdog is for:
# a keeper that stands still, one that is killed for good, storage that leaves QEMU in the kernel where no signal reaches it. And what it must not do: start by being asked
# about, run on after a disarm, a release or a shutdown, or be one that cannot be stopped.
. "$(dirname -- "$0")/lib.sh"

began=$SECONDS
lab_up --vm --nodes 2 --profile safe --volumes block,mount,iscsi --no-arm
timing_s() { echo $(($(timing "$1") / 1000)); }
wd_s=$(timing_s Watchdog) w_s=$(timing_s W)

reset_above() { [ "$(resets "$1")" -gt "$2" ]; }
# bitten NODE NS: it was softdog, and by nothing else
bitten() { told "$2" "^[0-9]+ $1 kernel: softdog: Initiating system reboot"; }

# falls NODE VM...: what was done at $fell resets NODE, and its VMs run on the other one within the bound
falls()
{
	local node=$1 v
	shift
	check "the watchdog resets $node" within $patience reset_above "$node" "$had"
	note "reset after $(ms_between "$fell" "$(when "$fell" "$node power: reset")") ms"
	check "that was softdog" bitten "$node" "$fell"
	for v; do
		moved "$v" "$node" "${before[$v]}"
		check "$v was started within the bound" in_bound "$fell" "$v"
	done
}
# about_to_fall NODE VM...
about_to_fall()
{
	local node=$1 v
	shift
	had=$(resets "$node") old=$(epoch "$node")
	declare -gA before
	for v; do before[$v]=$(token "$v"); done
}
comes_back()
{
	check "$1 is back by itself" within $patience back "$1"
	check "with a new epoch" test "$(epoch "$1")" -gt "$old"
	check "it was reset just once" test "$(resets "$1")" -eq $((had + 1))
}
# dog NODE active|inactive: what the kernel says that its watchdog is; reads nothing but sysfs
dog() { [ "$(lab exec "$1" -- cat /sys/class/watchdog/watchdog0/state)" = "$2" ]; }
dogs() { local n; for n in $nodes; do dog "$n" "$1" || return 1; done; }
all_resets() { echo "$(resets n1) $(resets n2)"; }
nobody_reset_since() { [ "$(all_resets)" = "$1" ]; }
not_armed() { node_is "$1" .armed false; }
# A file of its own that survives a reset, as those under /var do on a host
record=/etc/kvm-ha/watchdog-test
queried() { ctl "$1" watchdog query -o $record -o json | jq -r "$2"; }
armable() { [ "$(queried "$1" .armable)" = true ]; }
both_hang() { lab status -o json | jq -e ".storage | .iscsi == \"hung\" and .nfs == \"hung\""; }

# Asked about, and measured
check "no watchdog runs before anything is armed" dogs inactive
for n in $nodes; do check "watchdog query: $n's would be armed" armable $n; done
check "by asking none was started" dogs inactive
had=$(resets n2) fell=$(now_ns)
(echo n2 | ctl n2 watchdog test -o $record >/dev/null 2>&1 &)
check "watchdog test resets n2" within $patience reset_above n2 "$had"
check "that was softdog" bitten n2 "$fell"
measured() { [[ "$(queried n2 .last_test.delay_ms)" =~ ^[0-9]+$ ]]; }
check "back again, n2 tells how long it took" within $patience measured
delay_ms=$(queried n2 .last_test.delay_ms)
note "timeout $(queried n2 .last_test.timeout_ms) ms, reset $(queried n2 .last_test.last_record_ms) ms after the last pet at the earliest: delay at most $delay_ms ms"

# One that cannot be stopped, and one that was measured and is too slow, are not armed; n1's is meanwhile.
remember() { lab exec n2 -- sh -c "mkdir -p /var/lib/kvm-ha && echo /dev/watchdog ${wd_s}000 $1 1 >/var/lib/kvm-ha/watchdog-test && systemctl kill --kill-who=main ha-keeper"; }
softdog() { lab exec n2 -- sh -c "modprobe -r softdog && modprobe softdog nowayout=$1"; }
online_disarmed() { local n; for n in $nodes; do node_is "$n" '.state + " " + (.armed | tostring) + " " + (.agent | tostring)' "online false true" || return 1; done; }
check "n2 is online again, not armed" within $patience online_disarmed
check "n2's keeper reads a record of a slow watchdog" remember 99000
since=$(now_ns) had=$(all_resets)
check "arm" within $patience ctl n1 arm
check "n2 refuses: the delay that was measured" within $patience told "$since" "^[0-9]+ n2 ha-keeper: watchdog .*measured a delay of up to"
check "it is not armed" not_armed n2
check "nor has a watchdog that runs" dog n2 inactive
check "nobody was reset for all that" nobody_reset_since "$had"

# One that cannot be stopped: where others are, it is petted by time. Until n2's next boot it has that one.
check "n2's watchdog is made one that cannot be stopped" softdog 1
check "a record of a fast one" remember ${wd_s}100
check "watchdog query: it would be armed" [ "$(queried n2 .armable)" = true ]
check "all nodes are armed" within $patience all_online
check "by watchdogs that run" dogs active
had=$(all_resets) since=$(now_ns)
check "disarm" ctl n1 disarm
check "no node is armed" within $patience disarmed
check "n2 says that its watchdog runs on" within $patience told "$since" "^[0-9]+ n2 ha-keeper: watchdog .*cannot be stopped \(nowayout\)"
check "it does, and n1's does not" eval 'dog n2 active && dog n1 inactive'
check "its keeper is killed" lab exec n2 -- systemctl kill --kill-who=main -s KILL ha-keeper
check "n2 is online again, not armed" within $patience online_disarmed
# Which its unit refuses, and systemd then closes the descriptor that it has held.
may_stop() { lab exec n2 -- sh -c "mkdir -p /run/systemd/system/ha-keeper.service.d && printf '[Unit]\nRefuseManualStop=$1\n' >/run/systemd/system/ha-keeper.service.d/stop.conf && systemctl daemon-reload"; }
check "it may be stopped by hand" may_stop no
check "and is" lab exec n2 -- systemctl stop ha-agent ha-keeper
check "for more than $wd_s s nobody is reset" throughout $((wd_s + 5)) nobody_reset_since "$had"
since=$(now_ns)
check "it may not any more" may_stop yes
check "it is started again" lab exec n2 -- systemctl start ha-keeper ha-agent
check "it takes the watchdog that was left running" within $patience told "$since" "^[0-9]+ n2 ha-keeper: watchdog .*cannot be stopped \(nowayout\)"
check "n2 is online again, not armed" within $patience online_disarmed
check "for two times nobody is reset" throughout $((2 * wd_s)) nobody_reset_since "$had"
check "arm" within $patience ctl n1 arm
check "all nodes are armed" within $patience all_online
check "by watchdogs that run" dogs active

guest a n2 --disk block
guest b n2 --disk mount
guest c n1 --disk block

# Killed, and started again at once: the watchdog's descriptor waits with systemd, nothing happens at all.
about_to_fall n2 a b
lab exec n2 -- systemctl kill --kill-who=main -s KILL ha-keeper
check "n2's keeper is killed: no reset" throughout 15 not reset_above n2 "$had"
check "n2 is online" within $patience back n2
check "it goes on with its epoch" test "$(epoch n2)" = "$old"
for v in a b; do check "$v noticed nothing" same_life $v "${before[$v]}"; done

# Stopped, and systemd does not see to it: of a service that does not answer for 10 s it makes another one
about_to_fall n2 a b
lab exec n2 -- systemctl service-watchdogs off
fell=$(now_ns)
lab exec n2 -- systemctl kill --kill-who=main -s STOP ha-keeper
falls n2 a b
check "c noticed nothing" stamps_on c
comes_back n2

# The wall clock steps, a day ahead and back: nothing goes by it.
about_to_fall n2 a b c
had=$(all_resets)
lab exec n2 -- date -s '+1 day' >/dev/null
check "n2's clock is a day ahead: nobody is reset" throughout $((2 * wd_s)) nobody_reset_since "$had"
lab exec n2 -- date -s '-1 day' >/dev/null
check "and back: nobody is reset" throughout $wd_s nobody_reset_since "$had"
check "n2 has the same epoch" test "$(epoch n2)" = "$old"
for v in a b c; do
	check "$v stamps on" stamps_on $v
	check "$v noticed nothing" same_life $v "${before[$v]}"
done

# Killed for good: there is no program to start again.
about_to_fall n1 a b c
fell=$(now_ns)
lab exec n1 -- sh -c 'mv /usr/sbin/ha-keeper /usr/sbin/ha-keeper.away && systemctl kill --kill-who=main -s KILL ha-keeper'
falls n1 a b c
comes_back n1 # its root is made anew with each boot

# n2 loses its storage. QEMU hangs in the kernel, dead or not, so no proof can be had that it writes no more: the host goes.
about_to_fall n2 a b c
fell=$(now_ns)
lab storage cut n2
falls n2 a b c
lab storage heal n2
comes_back n2

# A kernel panic is a power cut to the others, whatever softdog makes of such a host.
about_to_fall n1 a b c
fell=$(now_ns)
lab exec n1 -- sh -c 'echo c >/proc/sysrq-trigger' >/dev/null 2>&1 &
dying=$!
for v in a b c; do
	moved "$v" n1 "${before[$v]}"
	check "$v was started within the bound" in_bound "$fell" "$v"
done
check "its kernel did panic" told "$fell" "^[0-9]+ n1 kernel: .*Kernel panic"
lab power n1 off
wait $dying
lab power n1 on
check "n1 is back after it was switched off and on" within $patience back n1
check "with a new epoch" test "$(epoch n1)" -gt "$old"

# All storage hangs for all, for longer than W: nobody is reset, everybody goes on.
about_to_fall n1 a b c
both_had=$(all_resets) both_old="$(epoch n1) $(epoch n2)"
lab storage hang
check "all storage hangs for longer than W" throughout $((w_s + 5)) both_hang
lab storage resume
check "all nodes are back" within $patience all_online
check "nobody was reset" nobody_reset_since "$both_had"
check "nobody began anew" test "$(epoch n1) $(epoch n2)" = "$both_old"
for v in a b c; do
	check "$v stamps on" stamps_on $v
	check "$v noticed nothing but the wait" same_life $v "${before[$v]}"
done

# Disarmed: stopped for good, with VMs running, and armed again.
about_to_fall n1 a b c
had=$(all_resets)
check "disarm" ctl n1 disarm
check "no node is armed" within $patience disarmed
check "the watchdogs are stopped" within 5 dogs inactive
check "for two of their times nobody is reset" throughout $((2 * wd_s)) nobody_reset_since "$had"
check "arm" within $patience ctl n1 arm
check "all nodes are armed" within $patience all_online
check "the watchdogs run" dogs active
for v in a b c; do check "$v noticed nothing" same_life $v "${before[$v]}"; done

# The ring is cut: one node gives its VMs up, has its watchdog stopped, and rejoins.
declare -A epoch_of
for n in $nodes; do epoch_of[$n]=$(epoch $n); done
since=$(now_ns)
lab net split n1/n2
released() { loser=$(told "$since" "^[0-9]+ n[12] ha-keeper: releasing this node" | head -n 1 | cut -d' ' -f2); [ -n "$loser" ]; }
check "one node gives its VMs up" within $patience released
released
note "$loser does"
check "its watchdog is stopped" within $patience dog "$loser" inactive
check "for two of its times nobody is reset" throughout $((2 * wd_s)) nobody_reset_since "$had"
lab net heal
check "all nodes are back" within $patience all_online
check "$loser with a new epoch" test "$(epoch "$loser")" -gt "${epoch_of[$loser]}"
check "with a watchdog that runs" dog "$loser" active
check "nobody was reset" nobody_reset_since "$had"
for v in a b c; do check "$v stamps" stamps_on $v; done

# A host that goes down in order: nothing resets it on its way, nobody fences it.
since=$(now_ns)
lab exec n2 -- systemctl poweroff >/dev/null 2>&1
powered_off() { lab status | grep -q "^$1  off "; }
check "n2 powers itself off" within $patience powered_off n2
check "it has left the cluster" told "$since" "n2 ha-keeper: left the cluster"
check "nobody was reset" nobody_reset_since "$had"
check "nobody was fenced" not told "$since" "ha-keeper: node n[12] is (to be|being) fenced"
for v in a b c; do check "$v runs on n1" within $patience runs_on $v n1; done
note "all of it took $((SECONDS - began)) s"
finish
