#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A VM's QEMU dies: it runs again at once on its node, and on another one when that happened too often. Restart=always and never.
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
check "n3 stays as it is" within $patience online n3
check "and keeps no unit of it" within $patience not lab exec n3 -- systemctl is-active "kvmha-vm-$uuid.service"

# restarts NAME always|never: a VM of that Restart= on n2, and a monitor at /run/lab-NAME.monitor
restarts()
{
	lab guest "$1" n2 --print | sed -e "s,-nodefaults,-nodefaults -qmp unix:/run/lab-$1.monitor\,server=on\,wait=off," -e "\$aRestart=$2" >"$test_name.vm" || bail "no VM file"
	lab exec n1 -- ha-ctl vm add - <"$test_name.vm" >/dev/null || bail "vm add"
	rm -f "$test_name.vm"
	check "Restart=$2: it runs" within $patience runs_on "$1" n2
	stamps_on "$1" || bail "$1 does not stamp"
}
press() # press NAME: the power button
{
	lab exec n2 -- timeout 20 perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; <$s>;
		for my $c ("qmp_capabilities", "system_powerdown") { print $s "{\"execute\":\"$c\"}\n"; $s->flush; <$s> // die }' "/run/lab-$1.monitor"
}
desired() { [ "$(vm "$1" .desired)" = "$2" ]; }

restarts b always
b=$(token b)
press b || bail "b's power button"
check "Restart=always: powered off, it is started again" within $patience other_life b "$b"
check "Restart=always: there" within $patience runs_on b n2
b=$(token b)
kill_qemu_of n2 b
check "Restart=always: and when its QEMU dies" within $patience other_life b "$b"
check "Restart=always: it is wanted started" desired b started

restarts c never
c=$(token c)
kill_qemu_of n2 c
check "Restart=never: its QEMU dies, it stays down" within $patience is_down c
check "Restart=never: and is wanted stopped" within $patience desired c stopped
check "Restart=never: it did not run again" throughout 5 same_life c "$c"
check "Restart=never: it is started when told to" ctl_any vm start c
check "Restart=never: and runs in a new life" within $patience other_life c "$c"
c=$(token c) home=$(vm_node c)
within $patience runs c || bail "c does not run"
power_off "$home"
moved c "$home" "$c"
finish
