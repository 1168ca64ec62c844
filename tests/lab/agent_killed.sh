#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Agent, keeper and corosync are killed, stopped and restarted under running VMs: no guest notices, and all are managed again.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi --profile standard
guest a n1 --disk iscsi
guest b n2 --disk nfs
a=$(token a) b=$(token b)
e1=$(epoch n1) e2=$(epoch n2)
within $patience led || bail "nobody leads"
lead=$(leader)
note "$lead leads"

same_epochs() { [ "$(epoch n1) $(epoch n2)" = "$e1 $e2" ]; }
unhurt()
{
	local what=$1
	check "$what: all nodes online and armed" within $patience all_online
	check "$what: both run where they ran" within $patience eval 'runs_on a n1 && runs_on b n2'
	check "$what: a stamps on" stamps_on a
	check "$what: b stamps on" stamps_on b
	check "$what: a noticed nothing" noticed_nothing a
	check "$what: b noticed nothing" noticed_nothing b
	check "$what: epochs are the same" same_epochs
}

watch_stamps a
watch_stamps b
for n in n1 n2; do
	pid=$(main_pid $n ha-agent)
	lab exec $n -- kill -KILL "$pid"
	check "agent of $n killed: systemd starts it again" within $patience other_pid $n ha-agent "$pid"
	check "agent of $n answers" within $patience agent_answers $n
done
unhurt "agents killed"

watch_stamps a
watch_stamps b
pid=$(main_pid n2 ha-agent)
stopped=$SECONDS
lab exec n2 -- kill -STOP "$pid"
check "agent of n2 stopped: the others know" within $patience node_is n2 .agent false
check "agent of n2 stopped: ha-ctl there tells so" exits 69 ctl n2 vm list
# A minute is what is promised, so a minute it is; systemd loses patience before.
check "agent of n2 stopped for a minute: b stays" throughout $((60 - (SECONDS - stopped))) same_life b "$b"
lab exec n2 -- kill -CONT "$pid" 2>/dev/null
check "agent of n2 answers" within $patience agent_answers n2
unhurt "agent stopped"

watch_stamps a
watch_stamps b
for n in n1 n2; do
	pid=$(main_pid $n ha-keeper)
	lab exec $n -- kill -KILL "$pid"
	check "keeper of $n killed: systemd starts it again" within $patience other_pid $n ha-keeper "$pid"
	check "node $n stays armed" within $patience online $n
done
unhurt "keepers killed"

watch_stamps a
watch_stamps b
lab exec n2 -- systemctl restart corosync
check "corosync restarted on n2: the ring is whole again" within $patience sees n2 3
check "n2 has its ring" within $patience node_is n2 .ring ok
unhurt "corosync restarted"

watch_stamps a
watch_stamps b
for n in $nodes; do lab exec "$n" -- systemctl kill -s KILL corosync; done
pids=
for n in $nodes; do lab exec "$n" -- systemctl restart corosync & pids="$pids $!"; done
for p in $pids; do wait "$p"; done
check "corosync killed everywhere: the ring is whole again" within $patience sees n1 3
check "all have their ring" within $patience eval 'for n in $nodes; do node_is $n .ring ok || exit 1; done'
unhurt "corosync killed everywhere"
check "a lived all the time" same_life a "$a"
check "b lived all the time" same_life b "$b"
check "no host was reset" test "$(resets n1) $(resets n2) $(resets n3)" = "0 0 0"

for v in a b; do
	check "$v stops when told to" ctl_any vm stop $v
	check "$v is down" within $patience is_down $v
	check "$v starts when told to" ctl_any vm start $v
	check "$v runs" within $patience runs $v
	check "$v stamps" stamps_on $v
done
finish
