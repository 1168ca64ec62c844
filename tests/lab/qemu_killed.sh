#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A VM's QEMU dies: it runs again at once on its node, and on another one when that happened too often.
. "$(dirname -- "$0")/lib.sh"

qemu_pid() { lab exec "$1" -- systemctl show -P MainPID "kvmha-vm-$uuid.service"; }
gates() { told "$started_ns" "ha-keeper: VM $uuid: .* passes the gate" | wc -l; }
gate_above() { [ "$(gates)" -gt "$1" ]; }

lab_up --volumes iscsi
started_ns=$(now_ns)
limit=2
lab guest a n3 --print >"$test_name.vm" && echo "RestartLimit=$limit" >>"$test_name.vm" || bail "no VM file"
lab exec n1 -- ha-ctl vm add - <"$test_name.vm" >/dev/null || bail "vm add"
rm -f "$test_name.vm"
check "a runs on n3" within $patience runs_on a n3
stamps_on a || bail "a does not stamp"
uuid=$(vm_uuid a)

for i in $(seq $limit); do
	was=$(token a) before=$(gates)
	pid=$(qemu_pid n3) killed=$(now_ns)
	lab exec n3 -- kill -KILL "$pid"
	check "death $i: QEMU is executed again" within $patience gate_above "$before"
	note "from death to exec $(ms_between "$killed" "$(when "$killed" "passes the gate")") ms"
	check "death $i: the guest runs in a new life" within $patience other_life a "$was"
	check "death $i: on the same node" within $patience runs_on a n3
done

was=$(token a)
lab exec n3 -- kill -KILL "$(qemu_pid n3)"
moved a n3 "$was"
check "it stamps there" stamps_on a
check "n3 stays as it is" online n3
check "and keeps no unit of it" within $patience not lab exec n3 -- systemctl is-active "kvmha-vm-$uuid.service"
finish
