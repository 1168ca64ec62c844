#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An agent is stopped, and one is killed and kept from starting again: VMs of its node run on, and one that ends there runs again on another node.
. "$(dirname -- "$0")/lib.sh"

is_told() { [ -n "$(when "$1" "$2")" ]; }
stays() { check "$1 stays where it is, in the same life" same_life "$1" "$2"; }
silent="ha-keeper: ha-agent of this node has not been heard"
heard="ha-keeper: ha-agent of this node is heard again"

lab_up --volumes iscsi,nfs,iscsi
bound_ms=$(ctl_any config show -o json | jq .silent_bound_ms)
[ "$bound_ms" -gt 0 ] || bail "ha-ctl config show tells no bound"
guest a n2 --disk iscsi
guest b n2 --disk nfs
guest c n1 --disk iscsi
a=$(token a) b=$(token b) c=$(token c)

# systemd would end a stopped agent and start another one: here it does not.
lab exec n2 -- mkdir -p /run/systemd/system/ha-agent.service.d
printf '[Service]\nWatchdogSec=0\n' | lab exec n2 -- tee /run/systemd/system/ha-agent.service.d/patient.conf >/dev/null
lab exec n2 -- systemctl daemon-reload
lab exec n2 -- systemctl restart ha-agent
check "agent of n2 restarted: it answers" within $patience agent_answers n2
check "all nodes online and armed" within $patience all_online

watch_stamps b
watch_stamps c
pid=$(main_pid n2 ha-agent)
stopped_ns=$(now_ns)
lab exec n2 -- kill -STOP "$pid"
kill_qemu_of n2 a
view="n1 n3"
moved a n2 "$a"
check "a was executed within the bound" in_bound "$stopped_ns" a
check "n2's keeper said why" within $patience is_told "$stopped_ns" "$silent"
check "a stamps" stamps_on a
a=$(token a)
stays b "$b"
check "n2 still is armed" node_is n2 '.state + " " + (.armed | tostring) + " " + (.agent | tostring)' "online true false"
lab exec n2 -- kill -CONT "$pid"
view=
check "agent of n2 goes on: it answers" within $patience agent_answers n2
check "its keeper has heard it" within $patience is_told "$stopped_ns" "$heard"
check "all nodes online and armed" within $patience all_online
check "b runs on n2" within $patience runs_on b n2
stays a "$a"
check "b noticed nothing" noticed_nothing b
kill_qemu_of n2 b
check "b ends with the agent back: it runs in a new life" within $patience other_life b "$b"
check "on its node" within $patience runs_on b n2
stamps_on b || bail "b does not stamp"
b=$(token b)
check "c noticed nothing" noticed_nothing c

watch_stamps b
on_n1=$(vm_node a)
killed_ns=$(now_ns)
lab exec n1 -- systemctl mask --runtime ha-agent
lab exec n1 -- systemctl kill --kill-who=main -s KILL ha-agent
view="n2 n3"
check "agent of n1 killed for good: the others know" within $patience node_is n1 .agent false
check "n1's keeper says so" within $patience is_told "$killed_ns" "$silent"
check "c stamps on" stamps_on c
stays c "$c"
died_ns=$(now_ns)
kill_qemu_of n1 c
moved c n1 "$c"
check "c was executed within the bound" in_bound "$died_ns" c
check "c stamps" stamps_on c
c=$(token c)
note "a runs on $on_n1"
stays a "$a"
check "b noticed nothing" noticed_nothing b
lab exec n1 -- systemctl unmask --runtime ha-agent
lab exec n1 -- systemctl start ha-agent
view=
check "agent of n1 started again: all nodes online and armed" within $patience all_online
stays a "$a"
stays b "$b"
stays c "$c"
check "no host was reset" test "$(resets n1) $(resets n2) $(resets n3)" = "0 0 0"
finish
