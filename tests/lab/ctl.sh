#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ha-ctl against a real cluster: what an operator does with VMs, arming, what is refused and with which exit code.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
json() { ctl n1 "$@" -o json; }
add() { lab exec n1 -- ha-ctl vm add - <"$1"; }
says() { local re=$1; shift; "$@" 2>&1 | grep -Eq -- "$re"; }
gone() { [ "$(ctl n1 vm list -o json | jq --arg v "$1" '[.status.vms[] | select(.name == $v)] | length')" = 0 ]; }
armed_is() { [ "$(json status | jq -r '[.status.nodes[].armed] | unique | join(" ")')" = "$1" ]; }
agent_gone() { ! lab exec n3 -- systemctl -q is-active ha-agent; }

lab_up --volumes iscsi,nfs,iscsi

# VMs
lab guest a n2 --print >"$work/a.vm" || bail "no VM file"
check "vm add" add "$work/a.vm"
check "a runs where it prefers to" within $patience runs_on a n2
check "it stamps" stamps_on a
a=$(token a)
check "the same name again is refused" exits 1 add "$work/a.vm"
check "and says why" says "a" add "$work/a.vm"
sed 's/^Name=a$/Name=other/' "$work/a.vm" >"$work/disk.vm"
check "another VM with its disk is refused" exits 1 add "$work/disk.vm"
sed 's/^Memory=32M$/Memory=32/' "$work/a.vm" >"$work/bad.vm"
check "a broken definition is refused" exits 1 add "$work/bad.vm"
check "and names the line" says ':3' add "$work/bad.vm"
check "a was not touched" same_life a "$a"
check "vm list shows it" test "$(json vm list | jq -r '.status.vms | map(.name + " " + .state) | join(",")')" = "a running"
check "vm show has its definition" says '^Name=a$' ctl n3 vm show a
check "vm show -o json has its text" test "$(json vm show a | jq -r '.vm.text | test("Memory=32M")')" = true
check "an unknown VM is refused" exits 1 ctl n1 vm stop nobody
check "an unknown command is refused" exits 64 ctl n1 vm dance
check "a missing argument is refused" exits 64 ctl n1 vm stop

# Another definition while it runs
json vm show a | jq -r .vm.text >"$work/update.vm" && sed -i 's/^PreferredNodes=n2$/PreferredNodes=n3\nPriority=7/' "$work/update.vm" || bail "vm show"
update() { lab exec "$1" -- ha-ctl vm update - <"$2"; }
check "vm update of a VM that runs" update n3 "$work/update.vm"
check "all nodes have it" within $patience eval 'says "^Priority=7$" ctl n1 vm show a && says "^Priority=7$" ctl n2 vm show a && says "^Priority=7$" ctl n3 vm show a'
check "its placement goes by it" says 'would be started now on: n3' ctl n2 vm show a --why
check "it runs on where it is" runs_on a n2
sed 's/^Memory=32M$/Memory=64M/' "$work/update.vm" >"$work/memory.vm"
check "what QEMU runs with cannot be changed" exits 1 update n1 "$work/memory.vm"
check "and says what and what to do" says 'Memory= differs.*vm remove' update n1 "$work/memory.vm"
check "a broken definition is refused" exits 1 update n1 "$work/bad.vm"
sed 's/^Name=a$/Name=nobody/' "$work/update.vm" >"$work/nobody.vm"
check "nor one of a VM that there is not" says 'no VM named nobody' update n1 "$work/nobody.vm"
check "a noticed nothing of it" same_life a "$a"
check "it stamps on" stamps_on a
check "its former definition is put back" update n1 "$work/a.vm"

check "vm stop" ctl n3 vm stop a
check "a is down" within $patience is_down a
check "vm stop again is no error" ctl n1 vm stop a
check "it stays down" throughout 3 is_down a
check "vm start" ctl n1 vm start a
check "a runs" within $patience runs a
check "in a new life" within $patience other_life a "$a"

# A guest that powers itself off has its will: it is not started again. The power button is how the lab's guest is told to;
# pressed by an operator's QMP socket, behind kvm-ha's back.
uuid=$(vm_uuid a) node=$(vm_node a)
lab guest b n3 --print | sed 's,-display none,-display none -qmp unix:/run/b.qmp\,server=on\,wait=off,' >"$work/b.vm"
check "b is added" add "$work/b.vm"
check "b runs" within $patience runs_on b n3
check "b stamps" stamps_on b
b=$(token b)
press_button()
{
	python3 - "/proc/$(cat "$state/n3/leader")/root/run/b.qmp" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
f = s.makefile("rw")
f.readline()
for command in ("qmp_capabilities", "system_powerdown"):
    f.write('{"execute": "%s"}\n' % command)
    f.flush()
    while "return" not in f.readline():
        pass
PY
}
check "b's power button is pressed" press_button
check "b is down" within $patience is_down b
check "it stays down" throughout $((bound_ms / 1000 + 1)) is_down b
check "it was not started again" same_life b "$b"
check "b is started by an operator" ctl n1 vm start b
check "b runs again" within $patience runs b
check "in a new life" within $patience other_life b "$b"

check "vm remove of a VM that is to run is refused" exits 1 ctl n1 vm remove a
check "a is stopped" ctl n1 vm stop a
check "a is down" within $patience is_down a
check "vm remove" ctl n1 vm remove a
check "a is forgotten" within $patience gone a
check "its unit is gone" within $patience not lab exec "$node" -- systemctl -q is-active "kvmha-vm-$uuid.service"
check "it can be added again" add "$work/a.vm"
check "and runs" within $patience runs a

# Status
check "status -o json has an api_version" test "$(json status | jq .api_version)" -ge 1
check "status knows three nodes, armed, and a leader" test "$(json status | jq -r '.status | [(.nodes | length), .armed, (.leader | type)] | join(" ")')" = "3 true string"
check "status says all is well" within $patience says 'all is well' ctl n1 status
check "node list" says '^n3 ' ctl n1 node list
for n in $nodes; do
	check "events of $n tell of a, whoever leads" says 'VM a added' ctl "$n" events
done
check "events -o json" test "$(json events | jq '.events | length')" -gt 5
check "volume list" within $patience ctl n1 volume list
check "config check" ctl n1 config check
check "volume init is refused on a cluster's volumes" exits 1 ctl n1 volume init

# Arming
check "disarm" ctl n1 disarm
check "all are disarmed" within $patience armed_is false
b=$(token b)
check "b runs on" stamps_on b
check "in its life" same_life b "$b"
check "status says that nothing is protected" says 'not armed' ctl n1 status
check "arm" ctl n2 arm
check "all are armed" within $patience armed_is true
check "b noticed nothing" same_life b "$b"

# No agent
lab exec n3 -- systemctl stop ha-agent
check "the agent of n3 is stopped" within $patience agent_gone
check "ha-ctl there exits 69" exits 69 ctl n3 status
check "with a JSON error if asked for" test "$(lab exec n3 -- ha-ctl status -o json 2>/dev/null | jq .ok)" = false
check "config show needs no agent" ctl n3 config show
lab exec n3 -- systemctl start ha-agent
check "the agent is back" within $patience back n3
rm -rf "$work"
finish
