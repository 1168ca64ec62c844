#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Nodes with a kernel of their own: softdog as /dev/watchdog, volumes and guests' disks by the kernel's iSCSI initiator and its NFS client. What the watchdog is for:
# a keeper that stands still, one that is killed for good, storage that leaves QEMU in the kernel where no signal reaches it.
. "$(dirname -- "$0")/lib.sh"

patience=240
lab_up --vm --nodes 2 --profile safe --volumes block,mount,iscsi
timing_s() { echo $(($(ctl_any config show -o json | jq ".values[] | select(.section == \"Timing\" and .key == \"$1\") | .value | rtrimstr(\"ms\") | tonumber") / 1000)); }
w_s=$(timing_s W)
guest a n2 --disk block
guest b n2 --disk mount
guest c n1 --disk block

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
both_hang() { lab status -o json | jq -e ".storage | .iscsi == \"hung\" and .nfs == \"hung\""; }

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

# All storage hangs for all, for longer than W: nobody is reset, everybody goes on.
about_to_fall n1 a b c
both_had="$(resets n1) $(resets n2)" both_old="$(epoch n1) $(epoch n2)"
lab storage hang
check "all storage hangs for longer than W" throughout $((w_s + 5)) both_hang
lab storage resume
check "all nodes are back" within $patience all_online
check "nobody was reset" test "$(resets n1) $(resets n2)" = "$both_had"
check "nobody began anew" test "$(epoch n1) $(epoch n2)" = "$both_old"
for v in a b c; do
	check "$v stamps on" stamps_on $v
	check "$v noticed nothing but the wait" same_life $v "${before[$v]}"
done
finish
