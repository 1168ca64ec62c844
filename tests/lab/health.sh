#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Guests in trouble, for real: a Linux guest with Debian's qemu-ga under TCG panics, hangs in its boot, is stopped with its QEMU, no longer pets its
# i6300esb, loses its service, its agent, its disk's space, resets for ever, reboots, powers off. What is done about it, and how long it takes from the trouble to the next QEMU's exec
# or to the guest's going on. The times are told, not judged: those of the guest's boot are this machine's.
. "$(dirname -- "$0")/lib.sh"
. "$here/linux.sh"

says() { local n; for n in $nodes; do ctl "$n" events | grep -Eq -- "$1" && return 0; done; return 1; }
gates() { told "$started_ns" "ha-keeper: VM $(vm_uuid "$1"): .* passes the gate" | wc -l; }
gate_above() { [ "$(gates "$1")" -gt "$2" ]; }
qemu_pid() { lab exec "$(vm_node "$1")" -- systemctl show -P MainPID "kvmha-vm-$(vm_uuid "$1").service"; }
same_qemu() { [ "$(qemu_pid "$1")" = "$2" ]; }
# QEMU reads what it tells its guest at its start: it is ended, and started again there. From then on the guest is as the test wants it.
kill_qemu()
{
	local before
	before=$(gates "$1") && lab exec "$2" -- kill -KILL "$(qemu_pid "$1")" && within $patience gate_above "$1" "$before" || bail "QEMU of $1 is not started again"
	told_ns=$(now_ns)
}
# next_exec VM BEFORE TEXT: its QEMU is executed again
next_exec()
{
	check "$3: QEMU is executed again" within $patience gate_above "$1" "$2"
	note "$3: from the trouble to the next exec $(ms_between "$told_ns" "$(told "$told_ns" "ha-keeper: VM $(vm_uuid "$1"): .* passes the gate" | tail -n 1 | cut -d' ' -f1)") ms"
}

# Nothing here is about how soon a node is given up: one that this machine lets stand still for a second or two is to live.
lab_up --volumes iscsi --profile standard
started_ns=$(now_ns)
linux_guest

linux g n1 "RequiredNodes=n1 n2
RestartLimit=3
[Health]
GuestAgent=yes
BootTimeout=45s
Check=/bin/check
CheckInterval=2s
CheckTimeout=5s
HangTimeout=15s
SilenceTimeout=15s
ResetLimit=2"
# What is started after it waits as long as it says
for level in running agent check; do
	lab guest "after-$level" n3 --print | sed "\$aAfter=g\nAfterReady=$level" | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "after-$level is not added"
done
check "AfterReady=running: started while g boots" within $patience runs after-running
check "AfterReady=agent and check: not yet" test "$(gates after-agent) $(gates after-check)" = "0 0"
check "g is not ready yet, either" not ready g check
check "the guest's agent answers and its service's check is good" within $patience ready g check
note "boot until ready: $(ms_between "$(when "$started_ns" "ha-keeper: VM $(vm_uuid g): .* passes the gate")" "$(now_ns)") ms"
for level in agent check; do
	check "AfterReady=$level: started now" within $patience runs "after-$level"
done
# By when the leader had each started: when each passes the gate then is up to its node. The journals are collected somewhat later than what they tell of.
to_start_ns() { when "$started_ns" "VM $1: node n[1-3] is to start it"; }
all_told() { [ -n "$(to_start_ns g)" ] && [ -n "$(to_start_ns after-running)" ] && [ -n "$(to_start_ns after-agent)" ] && [ -n "$(to_start_ns after-check)" ]; }
check "AfterReady=: all four are told of" within $patience all_told
note "AfterReady=: after g's start running $(ms_between "$(to_start_ns g)" "$(to_start_ns after-running)") ms, agent $(ms_between "$(to_start_ns g)" "$(to_start_ns after-agent)") ms," \
	"check $(ms_between "$(to_start_ns g)" "$(to_start_ns after-check)") ms"
# Agent and check may both be good by one look of the leader's: what it starts in one turn it starts in any order
turn_ns=50000000
check "AfterReady=: in that order" test "$(to_start_ns after-running)" -lt "$(to_start_ns after-agent)" -a "$(to_start_ns after-agent)" -lt $(($(to_start_ns after-check) + turn_ns))
for level in running agent check; do
	ctl n1 vm stop "after-$level" >/dev/null
	check "after-$level is stopped" within $patience is_down "after-$level"
done

# Stuck half-way through its boot on n3, and on no other node: what becomes of it is seen later, as that takes BootTimeout= twice
set_mode hang n3
linux h n3 "[Health]
GuestAgent=yes
BootTimeout=45s"

# A reboot is no failure
before=$(gates g) pid=$(qemu_pid g)
tell g reboot &
check "it reboots: not ready any more" within $patience not ready g check
wait $!
check "and ready again" within $patience ready g check
check "in the same QEMU" same_qemu g "$pid"
check "and that was no failure" field g .restarts 0

# Panic
before=$(gates g)
tell g panic
next_exec g "$before" panic
check "panic: on the same node" within $patience runs_on g n1
check "panic: it was told" says 'VM g: (its guest has panicked|GUEST_PANICKED)'
check "panic: it is a failure" field g .restarts 1
check "panic: it is up again" within $patience ready g check

# A dead service in a living guest
before=$(gates g)
tell g service-stop
check "dead service: it is seen" within $patience says 'VM g: the check of its service has failed too often'
next_exec g "$before" "dead service"
check "dead service: it is up again, service and all" within $patience ready g check

# Its own watchdog: started, and never petted
before=$(gates g)
tell g watchdog
check "virtual watchdog: it runs out, and that is told" within $patience says 'VM g: (WATCHDOG pause|its guest.s own watchdog has run out)'
next_exec g "$before" "virtual watchdog, 4 s"
check "virtual watchdog: on the same node" within $patience runs_on g n1
check "virtual watchdog: it is up again" within $patience ready g check

# An agent that falls silent is told and no more
pid=$(qemu_pid g)
tell g hang
check "silent agent: it is seen" within $patience field g .state silent
note "silent agent: seen after $(ms_between "$told_ns" "$(now_ns)") ms"
check "silent agent: and left alone" throughout 5 same_qemu g "$pid"

# QEMU hangs
before=$(gates g) told_ns=$(now_ns)
lab exec n1 -- kill -STOP "$pid"
check "hung QEMU: it is seen" within $patience says 'VM g: QEMU does not answer'
check "hung QEMU: the fourth failure within the window sends it to another node" within $patience runs_elsewhere g n1
next_exec g "$before" "hung QEMU"
check "hung QEMU: it is up there" within $patience ready g check

# It was stuck in its boot all that time
check "stuck in its boot: it is seen" within $patience says 'VM h: its guest is not up within BootTimeout='
check "stuck in its boot: it is reset" within $patience says 'VM h: being reset'
check "stuck in its boot: and sent to another node" within $patience runs_elsewhere h n3
told_ns=$(when "$started_ns" "ha-keeper: VM $(vm_uuid h): .* passes the gate")
next_exec h 1 "stuck in its boot, BootTimeout=45s twice"
check "stuck in its boot: it is up there" within $patience ready h agent
ctl n1 vm stop h >/dev/null

# It resets for ever
home=$(vm_node g)
set_mode reboot "$home"
kill_qemu g "$home"
before=$(gates g)
check "reset loop: it is seen" within $patience says 'VM g: its guest resets again and again'
next_exec g "$before" "reset loop"
set_mode ok $nodes
check "reset loop: it is up again" within $patience ready g check

# It powers itself off
before=$(gates g)
tell g off
check "powered off: it is stopped" within $patience is_down g
check "powered off: and stays so" throughout 5 is_down g
ctl n1 vm remove g >/dev/null

# A full disk
lab exec n2 -- sh -c 'mkdir -p /run/small && mount -t tmpfs -o size=8m small /run/small && truncate -s 16M /run/small/d.img && dd if=/dev/zero of=/run/small/filler bs=1M count=4' 2>/dev/null
linux f n2 "RequiredNodes=n2
[Health]
GuestAgent=yes" /run/small/d.img
check "f is up" within $patience ready f agent
pid=$(qemu_pid f)
tell f 'write 6'
check "full disk: it is seen" within $patience field f .state io-error
note "full disk: seen after $(ms_between "$told_ns" "$(now_ns)") ms"
check "full disk: tried again, and it stays so" within $patience says 'VM f: its storage answers: going on'
check "full disk: it is not restarted" throughout 5 field f .state io-error
freed_ns=$(now_ns)
lab exec n2 -- rm -f /run/small/filler
check "full disk: there is room again: it goes on" within $patience field f .state running
note "full disk: on again after $(ms_between "$freed_ns" "$(now_ns)") ms"
check "full disk: in the same QEMU" same_qemu f "$pid"
for n in $nodes; do
	check "$n tells why f is where it is" eval 'ctl $n vm show f --why | grep -q "n1 is not among its RequiredNodes="'
done
check "a node that is not required is refused" exits 1 ctl n3 vm relocate f n1
finish
