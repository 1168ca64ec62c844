#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# `ha-ctl adopt`: QEMUs that a plain unit and a plain script have started become VMs, or are refused and left as they were. Then agent and keeper are killed,
# it crashes, and the power of its node is cut.
. "$(dirname -- "$0")/lib.sh"

pid_of() { lab exec "$1" -- systemctl show -P MainPID "lab-guest-$2.service"; }
qmp() { echo "/run/lab-guest-$1.qmp"; }
# file NAME NODE [SED]: its VM file is added, stopped
file() { lab guest "$1" "$2" --print 2>/dev/null | sed -e 's/^State=.*/State=stopped/' -e "${3:-}" | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "file of $1"; }
adopt() { local node=$1; shift; lab exec "$node" -- timeout 100 ha-ctl adopt "$@"; }
# refuses NODE WHY ARGUMENT...: it is refused, for that reason
refuses()
{
	local node=$1 why=$2 said
	shift 2
	said=$(adopt "$node" "$@" 2>&1) && { echo "not refused"; return 1; }
	echo "$said"
	grep -Eq -- "$why" <<<"$said"
}
in_scope() { lab exec "$1" -- grep -q "kvmha-vm-$(vm_uuid "$2").scope" "/proc/$3/cgroup"; }
untouched() { lab exec "$1" -- grep -q "lab-guest-$2.service" "/proc/$3/cgroup"; }
alive() { lab exec "$1" -- test -d "/proc/$2"; }
desired() { [ "$(vm "$1" .desired)" = "$2" ]; }
# tell_qmp NODE NAME COMMAND: at the other monitor, until QEMU has answered it
tell_qmp()
{
	lab exec "$1" -- timeout 20 perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; <$s>;
		for my $c ("qmp_capabilities", $ARGV[1]) { print $s "{\"execute\":\"$c\"}\n"; $s->flush; while (1) { my $l = <$s> // die; last if $l =~ /"return"/ } }' \
		"/run/lab-guest-$2.monitor" "$3"
}
managed() { lab exec "$1" -- ha-ctl events | grep -q "VM $2: found running, managed again"; }

lab_up --volumes iscsi,nfs,iscsi
for v in a b c d; do
	kind=iscsi; [ $v != c ] || kind=nfs
	node=n1
	case $v in b) node=n3 ;; d) node=n2 ;; esac
	lab guest $v $node --by-hand --disk $kind >/dev/null 2>&1 || bail "$v does not run by hand"
	within $patience eval "stamps_on $v" || bail "$v does not stamp"
done
a=$(token a) b=$(token b) c=$(token c)
pa=$(pid_of n1 a) pb=$(pid_of n3 b) pc=$(pid_of n1 c)
file a n1
file b n3
file c n1
file d n2

# What is refused
check "a name that nobody has is refused" refuses n1 'no VM named nobody' nobody "$pa" "$(qmp a)"
check "a process that is not there" refuses n1 'there is no process' a 999999 "$(qmp a)"
check "another QEMU's process" refuses n1 "is not its own but process $pa's" a "$pc" "$(qmp a)"
check "another QEMU's socket" refuses n1 "is not its own but process $pc's" a "$pa" "$(qmp c)"
check "another VM's QEMU: its disk is named" refuses n1 "QEMU writes to .*, which is in no Disk=" a "$pc" "$(qmp c)"
lab exec n1 -- sh -c 'exec perl -e '\''use IO::Socket::UNIX; use IO::Select;
	my $l = IO::Socket::UNIX->new(Local => "/run/proxy.qmp", Listen => 1) or die;
	while (my $c = $l->accept) { my $q = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; my $s = IO::Select->new($c, $q);
		L: while (1) { for my $r ($s->can_read) { my $n = sysread($r, my $b, 65536) or last L; syswrite($r == $c ? $q : $c, $b) } } }'\'' '"$(qmp a)"' >/dev/null 2>&1 & echo $! >/run/proxy.pid'
proxy=$(lab exec n1 -- cat /run/proxy.pid)
within $patience lab exec n1 -- test -S /run/proxy.qmp || bail "no proxy"
check "a socket that is proxied" refuses n1 "is not its own but process $proxy's" a "$pa" /run/proxy.qmp
check "the proxy for the process itself" refuses n1 'it is no QEMU but' a "$proxy" /run/proxy.qmp
lab exec n1 -- kill "$proxy"
check "a socket where nobody listens" refuses n1 'no QMP at' a "$pa" /run/nothing.qmp
check "a QEMU of another node" refuses n2 'there is no process|is not its own|no QMP at' a "$pa" "$(qmp a)"
lab guest a n1 --print 2>/dev/null | sed -e 's/^State=.*/State=stopped/' -e 's/^Name=.*/Name=big/' -e 's/^Memory=.*/Memory=64M/' -e '/^Disk=/d' | lab exec n1 -- ha-ctl vm add - >/dev/null
check "another size" refuses n1 'has 32 MiB of memory, and the VM.s file says Memory=64M' big "$pa" "$(qmp a)"
lab exec n1 -- ha-ctl vm remove big >/dev/null
tell_qmp n1 c stop || bail "c is not stopped"
check "one that is paused" refuses n1 'its guest does not run but is paused' c "$pc" "$(qmp c)"
tell_qmp n1 c cont || bail "c does not go on"
check "its trace shows that it was paused" test "$(lab exec n1 -- grep -c 'new_state .* (paused)' /run/lab-guest-c.trace)" = 1
for v in a c; do
	check "$v is as it was: stopped for kvm-ha" is_down $v
	check "$v lives on" same_life $v "${!v}"
	check "$v stamps" stamps_on $v
done
check "a was not touched" untouched n1 a "$pa"
check "c was not touched" untouched n1 c "$pc"

# What is adopted
check "a is adopted" adopt n1 a "$pa" "$(qmp a)"
check "a runs, for kvm-ha too" within $patience runs_on a n1
check "a is to be started" desired a started
check "a is in its scope" in_scope n1 a "$pa"
check "a is in the same life" same_life a "$a"
check "a stamps" stamps_on a
check "adopted twice: refused" refuses n1 'is VM a already' a "$pa" "$(qmp a)"
check "what runs elsewhere is refused" refuses n3 'runs on node n1' a "$pb" "$(qmp b)"
adopt n1 c "$pc" "$(qmp c)" >/dev/null 2>&1 &
first=$!
adopt n1 c "$pc" "$(qmp c)" >/dev/null 2>&1
second=$?
wait $first
check "of two at a time one adopts c, and only one" eval "[ $((second == 0)) != $(($? == 0)) ]"
check "c runs" within $patience runs_on c n1
check "c is in the same life" same_life c "$c"

# It powers itself off, with -no-shutdown as all that libvirt starts
pd=$(pid_of n2 d)
check "d is adopted" adopt n2 d "$pd" "$(qmp d)"
check "d runs" within $patience runs_on d n2
tell_qmp n2 d system_powerdown || bail "d is not told to power off"
check "d powers itself off: its process ends" within $patience not alive n2 "$pd"
check "d is stopped" within $patience is_down d
check "d is wanted stopped" within $patience desired d stopped
check "that was no failure" test "$(vm d .restarts)" = 0

# Agent and keeper come and go
watch_stamps a
p=$(main_pid n1 ha-agent)
lab exec n1 -- kill -KILL "$p"
check "agent killed: systemd starts it again" within $patience other_pid n1 ha-agent "$p"
check "agent killed: it finds a" within $patience managed n1 a
p=$(main_pid n1 ha-keeper)
lab exec n1 -- kill -KILL "$p"
check "keeper killed: systemd starts it again" within $patience other_pid n1 ha-keeper "$p"
check "all are online again" within $patience all_online
check "a runs where it ran" within $patience runs_on a n1
check "a noticed nothing" noticed_nothing a
check "a is the same process" alive n1 "$pa"

# Cut off in the middle, and again. The agent is killed as soon as the catalog says that the adoption has begun.
said_ns=$(now_ns)
adopt n3 b "$pb" "$(qmp b)" >/dev/null 2>&1 &
within 10 told "$said_ns" "VM b: ignored, while node n3 adopts it"
lab exec n3 -- kill -KILL "$(main_pid n3 ha-agent)"
wait $!
check "the agent was killed meanwhile: it is back" within $patience eval 'ctl n3 vm list'
check "b lives on" same_life b "$b"
check "b stamps" stamps_on b
again() { desired b started || adopt n3 b "$pb" "$(qmp b)"; }
check "the same command again goes on" within $patience again
check "b runs" within $patience runs_on b n3
check "b is in its scope" in_scope n3 b "$pb"
check "b is in the same life" same_life b "$b"

# It crashes: started again from its file, as a VM like others
before_ns=$(now_ns)
lab exec n1 -- kill -KILL "$pc"
check "c crashes: it is started again there" within $patience other_life c "$c"
check "c runs on n1" within $patience runs_on c n1
c=$(token c)
note "c: from its crash to the next exec $(ms_between "$before_ns" "$(when "$before_ns" "ha-keeper: VM $(vm_uuid c): .* passes the gate")") ms"
check "c is a VM like others" within $patience eval 'lab exec n1 -- systemctl is-active "kvmha-vm-$(vm_uuid c).service"'

# The lease is lost: the keeper kills what was adopted as it kills all others, and the VM goes elsewhere
view="n2 n3"
lab storage cut n1
check "storage cut off n1: a's process is killed" within $patience not alive n1 "$pa"
moved a n1 "$a"
lab storage heal n1
view=
check "n1 is back" within $patience back n1
check "n1 was not reset" test "$(resets n1)" = 0

# And with the power: it starts elsewhere
power_off n3
view="n1 n2"
moved b n3 "$b"
check "power of n3 cut: b was started elsewhere within the bound" in_bound "$cut_ns" b
finish
