#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Maintenance goes on whatever is restarted in the middle of it: all agents, the leader's host, the whole cluster. Its guests go on in the same life as long as their hosts do.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp) || bail "mktemp"
field() { [ "$(vm "$1" "$2")" = "$3" ]; }
in_maintenance() { node_is "$1" .maintenance "$2"; }
empty() { node_is "$1" .vms 0; }
on_its_way() { [ "$(vm "$1" '.migration.remaining // 0')" -gt 0 ]; }
some_on_its_way() { on_its_way s || on_its_way t; }
# One whose agents die just as it is handed over may begin anew: that is migrate_faults' matter
but_not_b() { some_on_its_way && field b '.state + " " + (.migration // "none" | tostring)' "running none"; }
kill_agents() { local n; for n in $nodes; do lab exec "$n" -- systemctl kill -s KILL --kill-whom=main ha-agent; done; }
other_agents() { local n; for n in $nodes; do other_pid "$n" ha-agent "${agents[$n]}" || return 1; done; }
# Agents that have just started tell of no VM yet
all_known() { local v; for v in s t b; do [[ "$(vm_node $v)" = n? ]] || return 1; done; }
declare -A life agents
remember() { local v; for v in s t b; do stamps_on $v || bail "$v does not stamp"; life[$v]=$(token $v); done; }
all_as_before() { local v; for v in s t b; do check "$1: $v stamps" stamps_on $v; check "$1: $v is in the same life" same_life $v "${life[$v]}"; done; }
all_on_n3() { runs_on s n3 && runs_on t n3 && runs_on b n3; }

lab_up --volumes iscsi,nfs,iscsi --profile standard
# Two that take their time: 12 MiB of memory that is not zero, at 1 MiB a second
memory=$(realpath -m -- "$state/../../../var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX/file/memory")
mkdir -p "$(dirname -- "$memory")" && head -c 12M /dev/urandom >"$memory" || bail "no memory"
for v in s t; do
	lab guest $v n3 --print | sed 's,-nodefaults,-nodefaults -device loader\,file=/srv/kvm-ha/memory\,addr=0x1000000\,force-raw=on,' >"$work" &&
		printf '\n[Migration]\nBandwidth=1M\n' >>"$work" && lab exec n1 -- ha-ctl vm add - <"$work" >/dev/null || bail "$v cannot be added"
	within $patience runs_on $v n3 || bail "$v does not run on n3"
done
guest b n3 --disk nfs

# All agents, on the way there and on the way back
for way in there back; do
	remember
	if [ $way = there ]; then command="maintenance on n3"; else command="maintenance off n3 --return"; fi
	check "node $command" ctl n1 node $command
	within $patience but_not_b || bail "nobody is on its way, or b as well"
	for n in $nodes; do agents[$n]=$(main_pid "$n" ha-agent); done
	kill_agents
	check "agents killed on the way $way: all are started again" within $patience other_agents
	check "agents killed on the way $way: they know of all VMs" within $patience all_known
	if [ $way = there ]; then check "agents killed on the way $way: n3 gets empty" within $patience empty n3; else check "agents killed on the way $way: all get back" within $patience all_on_n3; fi
	check "n3's maintenance is what was asked for" within $patience in_maintenance n3 "$([ $way = there ] && echo true || echo false)"
	all_as_before "agents killed on the way $way"
done

# The leader's host, which is not the one that is emptied
within $patience led || bail "nobody leads"
if [ "$(leader)" = n3 ]; then
	# Another one leads once n3's agent has stood still
	lab exec n3 -- systemctl kill -s STOP --kill-whom=main ha-agent
	within $patience eval '[ "$(leader)" != n3 ] && led' || bail "n3 leads on"
	lab exec n3 -- systemctl kill -s CONT --kill-whom=main ha-agent
	within $patience all_online || bail "n3's agent is not back"
fi
lead=$(leader) stays=n1
[ "$lead" = n1 ] && stays=n2
note "$lead leads"
remember
check "node maintenance on n3" ctl n3 node maintenance on n3
within $patience some_on_its_way || bail "nobody is on its way"
power_off "$lead"
view="$stays n3"
check "the leader's host is lost: n3 gets empty" within $patience empty n3
check "n3 is in maintenance" within $patience in_maintenance n3 true
for v in s t b; do
	check "$v runs on $stays" within $patience runs_on $v "$stays"
	check "$v stamps" stamps_on $v
	# Who was on its way to the host that is lost, or there, begins anew on another.
	note "$v: $(lives $v) lives, $(same_life $v "${life[$v]}" && echo 'in the same' || echo 'in a new one')"
done
lab power "$lead" on || bail "$lead does not boot"
view=
check "$lead is back" within $patience back "$lead"

# The whole cluster
check "where they belong is known" eval 'field s .return_to n3 && field t .return_to n3 && field b .return_to n3'
remember
for n in $nodes; do power_off "$n"; done
power_on_all
check "cold start: all nodes are back" within $patience all_online
check "n3 is in maintenance still" within $patience in_maintenance n3 true
for v in s t b; do again $v "${life[$v]}"; done
check "and empty" within $patience empty n3
check "where they belong is known still" within $patience eval 'field s .return_to n3 && field t .return_to n3 && field b .return_to n3'
remember
check "maintenance off --return" ctl n1 node maintenance off n3 --return
check "all are back" within $patience all_on_n3
all_as_before "back after a cold start"
rm -f "$work"
finish
