#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The lab without kvm-ha: machines, ring, watchdogs, power, partitions, storage, guests. TAP on stdout; needs root.
# Every wait has a deadline and a condition.

top=$(cd "$(dirname -- "$0")/.." && pwd)
# One test on clusters at a time on this machine, from whatever tree: they are timed, and share their labs' names.
if [ -z "${KVM_HA_LAB_PREFIX:-}" ]; then
	mkdir -p /var/cache/kvm-ha-lab && exec 9</var/cache/kvm-ha-lab && flock 9
fi
export KVM_HA_LAB_PREFIX=${KVM_HA_LAB_PREFIX:-khs}
state=/run/kvm-ha-lab/$KVM_HA_LAB_PREFIX
count=0 failures=0
patience=120
stood_still=3 # watchdog()'s exit status

lab() { "$top/contrib/lab" "$@"; }

ok() # ok STATUS TEXT
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		failures=$((failures + 1))
	fi
}

check() # check TEXT COMMAND...: a failed one tells what it said
{
	local text=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	ok $status "$text"
	[ $status -eq 0 ] || printf '%s: exit %s\n%s\n' "$*" $status "$out" | sed 's/^/# /'
	return $status
}
# A step that is no check of its own, but whose failure explains the next one
step()
{
	local out status
	out=$("$@" 2>&1)
	status=$?
	[ $status -eq 0 ] || printf '%s: exit %s\n%s\n' "$*" $status "$out" | sed 's/^/# /'
	return $status
}
refuse() { local text=$1 want=$2; shift 2; "$@" >/dev/null 2>&1; [ $? -eq "$want" ]; ok $? "$text"; }

within() # within SECONDS COMMAND...: until it succeeds
{
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

members() { lab exec "$1" -- corosync-quorumtool -s 2>/dev/null | grep -cE '^ +[0-9]+ +[0-9]+ '; }
sees() { [ "$(members "$1")" = "$2" ]; }
all_see() { local n; for n in n1 n2 n3; do sees $n "$1" || return 1; done; }
counter() { lab stamps "$1" | jq .counter; }
above() { [ "$(counter "$1")" -gt "$2" ]; }
stamping() { within $patience above "$1" $(($(counter "$1") + 3)); }
events() { grep -c " $1 $2" $state/events.log; }
is_off() { [ "$(lab status -o json | jq -r ".nodes.$1.power")" = off ]; }
event_above() { [ "$(events "$1" "$2")" -gt "$3" ]; }

# still SECONDS COMMAND...: the command's output does not change for so long. The window is the condition here.
still()
{
	local before after end=$((SECONDS + $1 + 1))
	shift
	before=$("$@")
	while [ $SECONDS -lt $end ]; do
		after=$("$@")
		[ "$before" = "$after" ] || { echo "$before, then $after"; return 1; }
		sleep 0.1
	done
}

# Plays a keeper on a node's watchdog socket; python because the shell has no SEQPACKET. Exits with $stood_still where it was
# not let run itself, and so petted too late.
watchdog()
{
	python3 - "$state/$1/dev/watchdog.sock" "$state/events.log" "$1" "$2" $stood_still <<'END'
import socket, sys, time
path, events, node, what, stood_still = sys.argv[1:]

def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(5)
    s.connect(path)
    return s

def ask(s, command):
    s.send(command.encode())
    return s.recv(64).decode()

def resets():
    with open(events) as f:
        return [int(line.split()[0]) for line in f if line.split()[1:3] == [node, "reset"]]

def nap(seconds):  # how much longer it took, in ms: so long this machine has stood still
    began = time.monotonic()
    time.sleep(seconds)
    return (time.monotonic() - began - seconds) * 1000

# As much later than high_ms as it has stood still at once; late_ms: already, since then
def reset_after(old, since, low_ms, high_ms, late_ms):
    end = time.monotonic() + 10
    while len(resets()) == old:
        if time.monotonic() > end:
            sys.exit("no reset")
        late_ms = max(late_ms, nap(0.01))
    ms = (resets()[-1] - since) / 1e6
    print(f"# reset after {ms:.1f} ms, stood still for {late_ms:.1f} ms at most")
    sys.exit(not low_ms <= ms <= high_ms + late_ms)

s = connect()
old = len(resets())
if what == "protocol":
    assert ask(s, "T1") == "T100" and ask(s, "T2000") == "T2000"
    assert ask(s, "S") == "S"
    q = ask(s, "Q").split()
    assert q[:3] == ["Q", "2000", "1"] and 0 < int(q[3]) <= 2000, q
    assert ask(s, "x") == "E"
    assert ask(s, "V") == "V" and ask(s, "Q") == "Q 2000 0 0"
elif what == "petted":  # four timeouts long, then no more pets: not a moment early, and little late
    ask(s, "T800")
    petted, gap = time.monotonic(), 0
    end = petted + 3.2
    try:
        ask(s, "S")
        while petted < end:
            last = time.time_ns()
            s.send(b"P")
            late_ms = (time.time_ns() - last) / 1e6
            petted, gap = time.monotonic(), max(gap, time.monotonic() - petted)
            late_ms = max(late_ms, nap(0.1))
    except OSError:  # it was reset
        gap = max(gap, time.monotonic() - petted)
    if gap >= 0.7:
        sys.exit(int(stood_still))
    assert len(resets()) == old, "reset in spite of pets"
    reset_after(old, last, 800, 1000, late_ms)
elif what == "unclean":
    ask(s, "T1000")
    petted = time.monotonic()
    ask(s, "S")
    time.sleep(0.5)
    last = time.time_ns()
    s.close()
    late_ms = (time.time_ns() - last) / 1e6
    if time.monotonic() - petted >= 0.9:
        sys.exit(int(stood_still))
    reset_after(old, last, 1000, 1200, late_ms)
elif what == "takeover":
    ask(s, "T1000"), ask(s, "S")
    t = connect()
    assert ask(t, "Q").startswith("Q 1000 1")
    assert s.recv(64) == b"", "the old connection lives on"
    assert ask(t, "V") == "V"
END
}

powerdown() # powerdown GUEST NODE: presses the power button; true if the guest switched itself off
{
	python3 - "/proc/$(cat $state/"$2"/leader)/root/run/lab-guest-$1.qmp" <<'END'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
s.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"system_powerdown"}\n')
for line in s.makefile():
    m = json.loads(line)
    if m.get("event") == "SHUTDOWN":
        sys.exit(not (m["data"]["guest"] and m["data"]["reason"] == "guest-shutdown"))
sys.exit("no SHUTDOWN event")
END
}

# The node's processes, by its cgroup on a unified or hybrid host.
processes() { find /sys/fs/cgroup -path "*/kvm-ha-lab-$KVM_HA_LAB_PREFIX-$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null; }

ring()
{
	check "every node sees three members" all_see 3
	lab exec n2 -- corosync-cmapctl -g runtime.config.totem.token 2>/dev/null | grep -q '= 1000$'
	ok $? "token is 1000 ms"
	step lab net split n1,n2/n3
	within $patience sees n3 1
	ok $? "split: n3 is alone"
	check "split: n1 and n2 stay together" within $patience sees n1 2
	step lab net heal
	check "heal: three members again" within $patience all_see 3
	step lab oneway n1 n3
	# With one direction gone n1 and n3 cannot be in one ring: somebody sees fewer than three.
	within $patience sh -c "! $top/contrib/lab exec n1 -- corosync-quorumtool -s | grep -q 'Total votes: *3' ||
		! $top/contrib/lab exec n3 -- corosync-quorumtool -s | grep -q 'Total votes: *3'"
	ok $? "one-way loss breaks the ring of three"
	step lab net heal
	check "heal: three members again" within $patience all_see 3
	step lab net n2 down
	check "net down: n2 is alone" within $patience sees n2 1
	step lab net n2 up
	check "net up: three members again" within $patience all_see 3
	refuse "split must name every node" 2 lab net split n1/n2
}

nodes()
{
	refuse "exec passes the exit status" 42 lab exec n1 -- sh -c 'exit 42'
	refuse "exec refuses an unknown node" 2 lab exec n9 -- true
	[ "$(lab exec n1 -- systemctl is-system-running)" = running ]
	ok $? "systemd is content in a node"
	lab exec n1 -- systemd-run -q --slice=kvmha-vms.slice --unit=t1 sleep 1000
	check "a transient unit's slice is a cgroup v2 the node can read" lab exec n1 -- \
		sh -c 'grep -qx "$(systemctl show -P MainPID t1)" /sys/fs/cgroup/kvmha.slice/kvmha-vms.slice/t1.service/cgroup.procs'
	[ "$(lab exec n1 -- cat /etc/machine-id)" != "$(lab exec n2 -- cat /etc/machine-id)" ]
	ok $? "machine ids differ"
	within $patience grep -q 'Started t1.service' $state/n1.log
	ok $? "the journal is readable from outside"
}

power()
{
	local machine boot
	machine=$(lab exec n1 -- cat /etc/machine-id) boot=$(lab exec n1 -- cat /proc/sys/kernel/random/boot_id)
	lab exec n1 -- sh -c 'echo x >/var/lib/lost; echo x >/etc/kvm-ha/kept'
	[ -n "$(processes n1)" ]
	ok $? "a running node has processes"
	check "power off" lab power n1 off
	[ -z "$(processes n1)" ]
	ok $? "power off: no process is left"
	refuse "exec on a node that is off fails" 1 lab exec n1 -- true
	check "power off: the others notice" within $patience sees n2 2
	check "power on boots" lab power n1 on
	check "the ring is whole again" within $patience all_see 3
	[ "$(lab exec n1 -- cat /etc/machine-id)" = "$machine" ]
	ok $? "the machine id is kept"
	[ "$(lab exec n1 -- cat /proc/sys/kernel/random/boot_id)" != "$boot" ]
	ok $? "the boot id is new"
	lab exec n1 -- sh -c '[ -e /etc/kvm-ha/kept ] && [ ! -e /var/lib/lost ]'
	ok $? "/etc/kvm-ha is kept, /var is lost"
	local reboots
	reboots=$(events n2 up)
	lab exec n2 -- systemctl reboot
	check "a reboot from inside boots again" within $patience event_above n2 up "$reboots"
	lab exec n3 -- systemctl poweroff
	check "a shutdown from inside leaves it off" within $patience is_off n3
	step lab power n3 on
	check "the ring is whole again" within $patience all_see 3
}

# run_out NODE WHAT TEXT: a watchdog that ends in a reset; again if who plays the keeper stood still
run_out()
{
	local tries boots status
	for tries in 1 2 3 4 5; do
		boots=$(events "$1" up)
		watchdog "$1" "$2"
		status=$?
		[ $status -eq $stood_still ] || break
		echo "# stood still, begun again: $3"
		within $patience event_above "$1" up "$boots" || break
	done
	ok $status "$3"
	check "reset boots again" within $patience event_above "$1" up "$boots"
}

watchdogs()
{
	check "protocol" watchdog n1 protocol
	check "a new owner takes over" watchdog n1 takeover
	run_out n1 petted "petted: no reset; not petted: reset in time and not earlier"
	run_out n1 unclean "unclean close pets once and the countdown goes on"
	[ "$(lab status -o json | jq .nodes.n1.armed)" = 0 ]
	ok $? "a boot disarms"
	check "the ring is whole again" within $patience all_see 3
}

# trial once|always|never stall|run: a test of one check, on this lab, that fails so often, in a machine that stands still before or does not
trial()
{
	local dir status
	dir=$(mktemp -d) && mkdir -p "$dir/tests/lab" && cat >"$dir/tests/lab/trial.sh" <<EOF || return 99
. "$top/tests/lab/lib.sh"
[ $2 = run ] || timeout 0.7 taskset -c 0 chrt -f 99 sh -c 'while :; do :; done'
[ $2 = run ] || [ -z "\$KVM_HA_STALLS" ] || within 10 test -s "\$KVM_HA_STALLS" || bail "nobody has seen it stand still"
fails() { [ $1 = always ] || { [ $1 = once ] && [ ! -e "$dir/failed" ] && touch "$dir/failed"; }; }
check "it does not fail" not fails
echo "1..\$count"
[ \$failures -eq 0 ]
EOF
	(cd "$dir" && KVM_HA_LAB_PROFILE='' KVM_HA_TEST_KEEP=1 "$top/tests/lab/unstalled" "$dir/tests/lab/trial.sh")
	status=$?
	[ ! -e "$dir/lab-profile" ] || sed 's/^/# the next ones: /' "$dir/lab-profile"
	rm -rf "$dir"
	return $status
}

# A test is begun again where this machine stood still, and nowhere else.
begun_again()
{
	local said tries status
	said=$(trial once stall) && [ "$(grep -c "^# begun again: not ok 1" <<<"$said") $(grep "^ok\|^not ok" <<<"$said")" = "1 ok 1 - it does not fail" ]
	ok $? "what fails once, the machine having stood still, is begun again"
	said=$(trial always stall)
	[ $? -eq 1 ] && [ "$(grep -c "^# begun again:" <<<"$said") $(grep -c "^not ok 1" <<<"$said")" = "3 1" ]
	ok $? "what fails always fails, the fourth time"
	[ "$(grep -o "profile [a-z]*$\|^# the next ones: .*" <<<"$said" | tr '\n' ' ')" = "profile fast profile standard profile standard # the next ones: standard " ]
	ok $? "from the second time on with profile standard, and so the next ones"
	# Unless this machine has just stood still by itself
	for tries in 1 2 3 4 5; do
		said=$(trial always run)
		status=$?
		grep -q "stood still" <<<"$said" || break
	done
	[ $status -eq 1 ] && [ "$(grep -c "^# begun again:\|^# the next ones:" <<<"$said") $(grep -c "^not ok 1" <<<"$said")" = "0 1" ]
	ok $? "what fails while it runs fails at once"
	said=$(trial never stall) && grep -q "^# stood still: [0-9]* [0-9]* cpu0 all$" <<<"$said" && ! grep -q "begun again" <<<"$said"
	ok $? "what does not fail is told of how it stood still"
}

guests()
{
	local kind said
	for kind in iscsi nfs file; do
		step lab guest g-$kind n1 --disk $kind --by-hand
		check "a guest stamps its $kind disk" stamping g-$kind
	done
	for kind in iscsi nfs; do
		step lab storage hang $kind
		check "$kind hung: its stamps stop" still 2 counter g-$kind
		step lab storage resume $kind
		check "$kind resumed: they go on" stamping g-$kind
		step lab storage stop $kind
		check "$kind killed: they stop" still 2 counter g-$kind
		step lab storage start $kind
		check "$kind started: they go on" stamping g-$kind
	done
	step lab storage cut n1
	check "storage cut: stamps stop" still 2 counter g-iscsi
	check "storage cut: a local file's do not" stamping g-file
	step lab storage heal n1
	check "storage healed: they go on" stamping g-iscsi
	check "the power button is answered" powerdown g-nfs n1
	step lab power n1 off
	step lab guest g-iscsi n2 --by-hand
	check "the guest lives again elsewhere" stamping g-iscsi
	check "none ran twice" lab check
	begun_again
	[ "$(lab stamps g-iscsi | jq '.lives | length')" = 2 ]
	ok $? "two lives, one after the other"
	step lab guest g-iscsi n3 --by-hand
	within $patience sh -c "[ \"\$($top/contrib/lab stamps g-iscsi | jq .evidence)\" -gt 0 ]"
	ok $? "two at once leave evidence"
	refuse "check tells" 1 lab check
	said=$(trial always stall)
	[ $? -eq 1 ] && ! grep -q "begun again" <<<"$said"
	ok $? "a guest that ran twice is a failure, whatever stood still"
	[ "$(lab watch g-iscsi --seconds 5 | awk '{ print $2 }' | sort -n | uniq | wc -l)" -ge 25 ]
	ok $? "watch follows the stamps"
}

# What of this lab is visible on the host.
traces()
{
	ip netns list | grep "^$KVM_HA_LAB_PREFIX-"
	grep -E "kvm-ha-lab/$KVM_HA_LAB_PREFIX/|netns/$KVM_HA_LAB_PREFIX-" /proc/self/mounts
	grep -lzE "kvm-ha-lab/$KVM_HA_LAB_PREFIX/|^--machine=$KVM_HA_LAB_PREFIX-" /proc/[0-9]*/cmdline 2>/dev/null
	find /sys/fs/cgroup -name "kvm-ha-lab-$KVM_HA_LAB_PREFIX-*" 2>/dev/null
	ls -d $state /var/tmp/kvm-ha-lab/"$KVM_HA_LAB_PREFIX" 2>/dev/null
}

trap 'lab down' EXIT
lab down
refuse "no lab: status says so" 1 lab status
lab up --bare || { echo "Bail out! lab up failed"; exit 1; }
check "up again changes nothing" lab up --bare
[ -n "$(traces)" ]
ok $? "the lab leaves traces while it is up"
for part in ${*:-nodes ring watchdogs power guests}; do
	$part
done
check "down" lab down
left=$(traces)
[ -z "$left" ]
ok $? "down leaves nothing"
[ -z "$left" ] || printf '# %s\n' "$left"
echo "1..$count"
[ $failures -eq 0 ]
