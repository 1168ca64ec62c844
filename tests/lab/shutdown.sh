#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Hosts that go down in order, by their own systemd: what becomes of their guests by ShutdownPolicy=, nobody is fenced, no watchdog bites; and what stops
# keeper or agent with the host staying up stops no guest.
. "$(dirname -- "$0")/lib.sh"

epoch_is_later() { [ "$(epoch "$1")" -gt "$2" ]; }
is_off() { node_is "$1" .state "$2"; }
powered_off() { lab status | grep -q "^$1  off "; }
not_running() { ! runs "$1"; }
# policy WORD [LINE...]: on every node, at once
policy()
{
	local node
	for node in $nodes; do
		mkdir -p "$state/$node/etc/kvm-ha/conf.d"
		printf '[Node]\nShutdownPolicy=%s\n' "$1" >"$state/$node/etc/kvm-ha/conf.d/shutdown.conf"
		[ $# -lt 2 ] || printf '%s\n' "${@:2}" >>"$state/$node/etc/kvm-ha/conf.d/shutdown.conf"
		lab exec "$node" -- systemctl restart ha-agent || bail "ha-agent of $node cannot be restarted"
	done
	within $patience all_online || bail "not all nodes are online with ShutdownPolicy=$1"
}
# in_order NODE NS RESETS: it went down with its lease given back
in_order()
{
	check "$1 left the cluster" within $patience told "$2" "$1 ha-keeper: left the cluster"
	check "nobody was fenced" not told "$2" "ha-keeper: node n[0-9] is (to be|being) fenced"
	check "no watchdog bit" [ "$(resets "$1")" = "$3" ]
}
# shut_down_cleanly VM NODE NS
shut_down_cleanly()
{
	check "$1's guest shut down by itself: QEMU ended without a signal" within $patience told "$3" "$2 systemd: kvmha-vm-$(vm_uuid "$1").service: Deactivated successfully"
	check "nothing killed $1" not told "$3" "$2 systemd: kvmha-vm-$(vm_uuid "$1").service: (Killing|Main process exited, code=(killed|dumped))"
}
# has_ended VM NODE NS: its QEMU, however; the node may be back before anybody asks
has_ended() { told "$3" "$2 systemd: kvmha-vm-$(vm_uuid "$1").service: (Deactivated|Main process exited)"; }
down() { lab exec "$1" -- systemctl "$2" >/dev/null 2>&1; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
guest a n3
guest b n3 --disk nfs
guest c n1
a=$(token a) b=$(token b) c=$(token c) old=$(epoch n3)

check "ha-agent is restarted" lab exec n3 -- systemctl restart ha-agent
check "ha-agent is stopped" lab exec n3 -- systemctl stop ha-agent
check "ha-agent is started" lab exec n3 -- systemctl start ha-agent
check "ha-keeper is put in force anew" lab exec n3 -- systemctl kill --kill-who=main ha-keeper
check "a stop of ha-leave by itself is refused" not lab exec n3 -- systemctl stop ha-leave
check "what it runs sees that the host stays" eval 'ctl n3 node leave | grep -q "does not go down"'
check "n3 is back" within $patience back n3
check "in its epoch" [ "$(epoch n3)" = "$old" ]
stamps_on a && stamps_on b
check "a noticed nothing" same_life a "$a"
check "b noticed nothing" same_life b "$b"

note "a reboot that is called off"
since=$(now_ns)
lab exec n3 -- pkill -STOP -f 'guest=a,' || bail "a's QEMU is not there" # so that the host waits for it
lab exec n3 -- systemctl reboot
check "n3 has begun to go down" within $patience told "$since" "n3 systemd: Stopping ha-leave.service"
check "it is called off" lab exec n3 -- systemctl cancel
lab exec n3 -- pkill -CONT -f 'guest=a,'
check "ha-leave is there for the next time" within $patience lab exec n3 -- systemctl is-active ha-leave
check "n3 takes VMs again" within $patience eval 'back n3 && ctl n3 node leave | grep -q "does not go down"'
check "nobody was reset" [ "$(resets n3)" = 0 ]
again a "$a" && again b "$b"
a=$(token a) b=$(token b)
for g in a b; do runs_on $g n3 || ctl n1 vm migrate $g n3 --wait || bail "$g is not on n3 again"; done

note "reboot, conditional: freeze"
since=$(now_ns) was=$(resets n3)
check "n3 is told to reboot" down n3 reboot
check "a ends" within $patience has_ended a n3 "$since"
check "b ends" within $patience has_ended b n3 "$since"
shut_down_cleanly a n3 "$since"
shut_down_cleanly b n3 "$since"
check "n3 is back, in a later epoch" within $patience eval "back n3 && epoch_is_later n3 $old"
check "a runs on n3" within $patience runs_on a n3
check "b runs on n3" within $patience runs_on b n3
again a "$a"
again b "$b"
check "neither ran elsewhere meanwhile" not told "$since" "n[12] ha-keeper: VM ($(vm_uuid a)|$(vm_uuid b)): .* passes the gate"
in_order n3 "$since" "$was"
check "c noticed nothing" same_life c "$c"

note "poweroff, conditional: failover"
a=$(token a) b=$(token b) since=$(now_ns) was=$(resets n3)
check "n3 is told to power off" down n3 poweroff
moved a n3 "$a"
moved b n3 "$b"
shut_down_cleanly a n3 "$since"
shut_down_cleanly b n3 "$since"
check "n3 is off" within $patience powered_off n3
in_order n3 "$since" "$was"
lab power n3 on || bail "n3 does not boot"
check "n3 is back" within $patience back n3
a=$(token a)
guest d n3
check "and takes VMs again" runs_on d n3
check "a stays where it is" same_life a "$a"

note "reboot of the leader, migrate"
policy migrate
within $patience led || bail "nobody leads"
lead=$(leader)
note "$lead leads"
guest e "$lead"
e=$(token e) since=$(now_ns) was=$(resets "$lead") old=$(epoch "$lead")
check "the leader is told to reboot" down "$lead" reboot
migrated e "$lead" "$e"
check "$lead is back, in a later epoch" within $patience eval "back $lead && epoch_is_later $lead $old"
check "e comes back" within $patience runs_on e "$lead"
stamps_on e
check "in the same life" same_life e "$e"
in_order "$lead" "$since" "$was"

# Its own /sys is read-only: even if nothing forbade it, no host would sleep because of this.
sleeps_not() { lab exec n1 -- /lib/systemd/systemd-sleep "$1" 2>&1 | grep -q "disabled by configuration"; }
for how in suspend hibernate hybrid-sleep suspend-then-hibernate; do check "a host does not $how" sleeps_not $how; done

note "poweroff, freeze: waited for, not for ever"
policy freeze FreezeTimeout=90s
guest f n2
f=$(token f) since=$(now_ns) was=$(resets n2)
check "n2 is told to power off" down n2 poweroff
check "n2 is off" within $patience powered_off n2
check "f waits for n2" throughout 10 not_running f
check "f runs on another node" within $((patience + 90)) runs_elsewhere f n2
again f "$f"
in_order n2 "$since" "$was"
lab power n2 on || bail "n2 does not boot"
check "all are online" within $patience all_online
finish
