# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Sourced by the tests in this folder: TAP, one lab a test with guests that stamp their disks, waiting for conditions.
# A test calls lab_up, asks with check, tells with note and ends with finish, which asks the stamps whether any guest ever ran twice.
# The lab goes at exit, however that comes; KVM_HA_TEST_KEEP=1 keeps it.

here=$(cd "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
test_name=$(basename -- "$0" .sh)
short=${test_name//[^a-z]/}
[ "$(id -u)" -eq 0 ] || { echo "Bail out! the lab needs root"; exit 1; }
# One test on clusters at a time on this machine, from whatever tree: they are timed, and share their labs' names.
if [ -z "${KVM_HA_LAB_PREFIX:-}" ]; then
	mkdir -p /var/cache/kvm-ha-lab && exec 9</var/cache/kvm-ha-lab && flock 9
fi
export KVM_HA_LAB_PREFIX=${KVM_HA_LAB_PREFIX:-t${short:0:4}${short: -3}}
state=/run/kvm-ha-lab/$KVM_HA_LAB_PREFIX
count=0 failures=0
exec 3>&1
nodes="n1 n2 n3"

lab() { "$top/contrib/lab" "$@"; }
note() { echo "# $*" >&3; } # also from within check

ok() # ok STATUS TEXT
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		failures=$((failures + 1))
		give_up
		[ $failures -gt 2 ] || why
	fi
}

# Nodes were not let run: see unstalled, whose watcher stood still as well and writes its line somewhat later. Not if a guest ran twice.
give_up()
{
	[ -z "${KVM_HA_STALLS:-}" ] || sleep 0.5
	[ ! -s "${KVM_HA_STALLS:-}" ] || ! lab check >/dev/null 2>&1 || exit 75
}

# check TEXT COMMAND...: what it said is told if it fails
check()
{
	local text=$1 said status
	shift
	said=$(mktemp) || bail "mktemp"
	"$@" >"$said" 2>&1
	status=$?
	ok $status "$text"
	[ $status -eq 0 ] || tail -n 20 "$said" | sed 's/^/# it said: /'
	rm -f "$said"
}
# exits STATUS COMMAND...: it must end with just this
exits() { local want=$1; shift; "$@" >/dev/null 2>&1; [ $? -eq "$want" ]; }
not() { ! "$@"; }

bail()
{
	echo "Bail out! $*"
	give_up
	why
	exit 1
}

# What the cluster thought, for a failed check
why()
{
	lab timeline 2>/dev/null | grep -E ' (power|ha-keeper|ha-agent|ha-launch): | systemd: .*(kvmha|ha-)' | tail -n 40 | sed 's/^/# /'
	ctl_any status 2>&1 | sed 's/^/# /'
}

at_exit()
{
	local status=$?
	local w
	trap - EXIT
	for w in "${watcher[@]}"; do kill "$w"; done
	[ -n "$KVM_HA_TEST_KEEP" ] || lab down
	exit $status
}
trap at_exit EXIT
trap 'exit 130' INT TERM HUP

# within SECONDS COMMAND...: until it succeeds
within()
{
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

# throughout SECONDS COMMAND...: it succeeds all the time; the window is the condition
throughout()
{
	local end=$((${EPOCHREALTIME//[^0-9]/} + $1 * 1000000))
	shift
	while [ "${EPOCHREALTIME//[^0-9]/}" -lt $end ]; do
		"$@" >/dev/null 2>&1 || return 1
		sleep 0.3
	done
}

# lab_up [lab up's options]: --profile standard where nothing is about how soon a node is given up, so that one that this machine lets stand still for a second or two lives
lab_up()
{
	lab down
	lab up --profile "${KVM_HA_LAB_PROFILE:-fast}" "$@" >"$test_name.lab.log" 2>&1 || { sed 's/^/# /' "$test_name.lab.log"; bail "the lab does not come up"; }
	rm -f "$test_name.lab.log"
	nodes=$(lab status -o json | jq -r '.nodes | keys | join(" ")')
	bound_ms=$(ctl_any config show -o json | jq .failover_bound_ms)
	[ "$bound_ms" -gt 0 ] || bail "ha-ctl config show tells no bound"
	[ "$bound_ms" -lt 60000 ] || patience=240
}

# How long to wait for what must come after a failover: the bound, and time for slow machines. The bound itself is asserted by in_bound.
patience=120

# ctl_once NODE ARGUMENT...: ha-ctl there; what it is to --wait for may take longer than all else
ctl_once() { local node=$1; shift; lab exec "$node" -- timeout $((3 * patience)) ha-ctl "$@"; }
# ctl NODE ARGUMENT...: the same, again while it is told to try again later, as when nobody leads; but words on its stdin are there once
ctl()
{
	local end=$((SECONDS + patience)) out status
	while out=$(ctl_once "$@"); status=$?; [ $status -eq 75 ] && [ -c /dev/stdin ] && [ $SECONDS -lt $end ]; do sleep 0.5; done
	[ -z "$out" ] || printf '%s\n' "$out"
	return $status
}

# The first node whose agent answers
ctl_any()
{
	local node out
	for node in ${view:-$nodes}; do
		out=$(ctl_once "$node" "$@" 2>/dev/null </dev/null) && { printf '%s\n' "$out"; return 0; }
	done
	return 1
}

# timing KEY: a value of [Timing] that is in force, in ms
timing() { ctl_any config show -o json | jq -r --arg k "$1" '.values[] | select(.section == "Timing" and .key == $k) | .value' | tr -d ms; }

node_is() { [ "$(ctl_any status -o json | jq -r --arg n "$1" ".status.nodes[] | select(.name == \$n) | $2")" = "$3" ]; }
online() { node_is "$1" '.state + " " + (.armed | tostring) + " " + (.agent | tostring)' "online true true"; }
epoch() { ctl_any status -o json | jq -r --arg n "$1" '.status.nodes[] | select(.name == $n) | .epoch'; }
# stays_online NODE...: whether their agents are let run is not asked
stays_online() { local n; for n; do node_is "$n" '.state + " " + (.armed | tostring)' "online true" || return 1; done; }
# sees NODE COUNT: its corosync has so many members
sees() { [ "$(lab exec "$1" -- corosync-quorumtool -s | grep -cE '^ +[0-9]+ +[0-9]+ ')" = "$2" ]; }
members() { ctl_any status -o json | jq '[.status.nodes[] | select(.state == "online")] | length'; }
# back NODE: as good as before it went
back() { online "$1" && sees "$1" "$(members)"; }
all_online() { local n; for n in $nodes; do back "$n" || return 1; done; }
# Every agent runs, with all three volumes: after a change of the volume set, agents and keepers have started again with it
usable() { [ "$(ctl "$1" status -o json | jq '.status.quorum.good')" = 3 ]; }
all_usable() { local n; for n in $nodes; do usable "$n" || return 1; done; }
# holds NODE true|false: whether it rides out a storage outage by its peers' word
holds() { [ "$(ctl "$1" status -o json | jq '.status.hold_since_ms != 0')" = "$2" ]; }
all_hold() { local n; for n in $nodes; do holds "$n" true || return 1; done; }
none_holds() { local n; for n in $nodes; do holds "$n" false || return 1; done; }
disarmed() { [ "$(ctl_any status -o json | jq '[.status.nodes[] | select(.armed)] | length')" = 0 ]; }
leader() { ctl_any status -o json | jq -r '.status.leader // "none"'; }
led() { [ "$(leader)" != none ]; }

vm() { ctl_any status -o json | jq -r --arg v "$1" ".status.vms[] | select(.name == \$v) | $2"; }
vm_node() { vm "$1" '.node // "none"'; }
vm_uuid() { vm "$1" .uuid; }
runs() { [ "$(vm "$1" .state)" = running ]; }
runs_on() { [ "$(vm "$1" '.state + " " + (.node // "none")')" = "running $2" ]; }
runs_elsewhere() { runs "$1" && [ "$(vm_node "$1")" != "$2" ]; }
is_down() { [ "$(vm "$1" '.state + " " + (.node // "none")')" = "stopped none" ]; }

# A unit's main process in its node
main_pid() { lab exec "$1" -- systemctl show -P MainPID "$2"; }
other_pid() { local p; p=$(main_pid "$1" "$2") && [ "$p" -gt 0 ] && [ "$p" != "$3" ]; }
agent_answers() { ctl "$1" vm list; }
kill_qemu_of() { lab exec "$1" -- kill -KILL "$(main_pid "$1" "kvmha-vm-$(vm_uuid "$2").service")"; }

# stamp NAME token|counter: as the newest one is at this moment (contrib/lab.d/guest.S). Asked for thousands of times, so it reads no more than that.
stamp()
{
	local image images=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX magic token counter
	for image in "$images/iscsi/guest-$1.img" "$images/nfs/guests/$1.img" "$images/file/guests/$1.img"; do [ ! -e "$image" ] || break; done
	if [ ! -e "$image" ]; then
		lab stamps "$1" | jq -r ".$2"
		return
	fi
	read -r magic token counter < <(od -An -v -w24 -tx8 -j $((64 * 512)) -N 24 "$image")
	if [ "$2" = token ]; then
		[ "$magic" = 504d4154534c484b ] && echo "$token" || echo null # KHLSTAMP
	else
		[ "$magic" = 504d4154534c484b ] && echo $((0x${counter:8})) || echo 0
	fi
}
token() { stamp "$1" token; }
lives() { lab stamps "$1" | jq '.lives | length'; }
same_life() { [ "$(token "$1")" = "$2" ]; }
other_life() { [ "$(token "$1")" != "$2" ]; }
above() { [ "$(stamp "$1" counter)" -gt "$2" ]; }
stamps_on() { within "$patience" above "$1" $(($(stamp "$1" counter) + 3)); }

# guest NAME NODE [lab guest's options]: it runs there and stamps
guest()
{
	local name=$1 node=$2
	lab guest "$@" >/dev/null 2>&1 || bail "guest $name cannot be added"
	within $patience runs_on "$name" "$node" || bail "guest $name does not run on $node"
	stamps_on "$name" || bail "guest $name does not stamp its disk"
}

now_ns() { date +%s%N; }
told() { lab timeline --since "$1" | grep -E -- "$2"; } # told NS REGEX
# When it was first told after NS
when() { told "$1" "$2" | head -n 1 | cut -d' ' -f1; }
ms_between() { echo $((($2 - $1) / 1000000)); }

power_off()
{
	local before
	before=$(grep -c " $1 off" "$state/events.log")
	lab power "$1" off || bail "power of $1"
	cut_ns=$(grep " $1 off" "$state/events.log" | tail -n +$((before + 1)) | tail -n 1 | cut -d' ' -f1)
}
power_on_all()
{
	local n p pids=
	for n in $nodes; do
		lab power "$n" on &
		pids="$pids $!"
	done
	for p in $pids; do wait "$p" || bail "a node does not boot"; done
}
boots() { lab status -o json | jq ".nodes.$1.boots"; }
resets() { grep -c " $1 reset" "$state/events.log"; }

# The storage host's own processes, and its iSCSI server's operator
server() { jq -r ".pids.$1[0]" "$state/state.json"; }
tgt() { nsenter -t "$(server tgtd)" -m -n tgtadm --lld iscsi "$@"; }

# Fence devices for all nodes (fence_lab); devices_do works|fails|fails-on|hangs|lies: what they do
devices_do() { local n; for n in $nodes; do echo "$1" >"$state/$n/dev/fence-mode"; done; }
configure_devices()
{
	local n x
	for n in $nodes; do
		for x in $nodes; do ln -f "$state/$x/ctl.sock" "$state/$n/dev/power-$x.sock" || return 1; done
		install -m 755 "$here/fence_lab" "$state/$n/etc/kvm-ha/fence_lab"
		(umask 077; printf '# of the power switch\npassword=open sesame\n' >"$state/$n/etc/kvm-ha/power.secret")
		mkdir -p "$state/$n/etc/kvm-ha/conf.d"
		for x in $nodes; do
			printf '[PowerDevice]\nNode=%s\nAgent=/etc/kvm-ha/fence_lab\nOptions=plug=%s\nSecretFile=/etc/kvm-ha/power.secret\nTimeout=3s\n' "$x" "$x"
		done >"$state/$n/etc/kvm-ha/conf.d/50-power.conf"
	done
}
restart_agents() { local n; for n in ${*:-$nodes}; do lab exec "$n" -- systemctl restart ha-agent || return 1; done; } # restart_agents [NODE...]

# in_bound NS VM: its QEMU was executed, after NS, within the bound that `ha-ctl config show` prints
in_bound()
{
	local exec_ns ms line
	line="ha-keeper: VM $(vm_uuid "$2"): .* passes the gate"
	within $patience told "$1" "$line" || { note "$2: QEMU was not executed"; return 1; }
	exec_ns=$(when "$1" "$line")
	ms=$(ms_between "$1" "$exec_ns")
	note "$2: QEMU executed after $ms ms, the bound is $bound_ms ms"
	[ "$ms" -le "$bound_ms" ]
}

# moved VM FROM OLD_TOKEN: it runs on another node, in a life of its own
moved()
{
	check "$1 runs on another node" within $patience runs_elsewhere "$1" "$2"
	check "$1 stamps in a new life" within $patience other_life "$1" "$3"
}

# migrated VM FROM TOKEN: it runs on another node, and in the same life
migrated()
{
	check "$1 runs on another node" within $patience runs_elsewhere "$1" "$2"
	check "$1 stamps" stamps_on "$1"
	check "$1 is in the same life" same_life "$1" "$3"
}

# A guest's stamps as they arrive on the server, and each time that its QEMU was paused or went on.
declare -A watcher paused
write_interval_ms=110
run_states() { lab exec "$(vm_node "$1")" -- cat "/run/lab-guest-$1.trace" 2>/dev/null; } # run_states NAME
watch_stamps()                                                                             # watch_stamps NAME
{
	paused[$1]=$(run_states "$1")
	"$top/contrib/lab" watch "$1" >"$test_name.$1.stamps" 2>/dev/null &
	watcher[$1]=$!
}
unwatch()
{
	kill "${watcher[$1]}" 2>/dev/null
	wait "${watcher[$1]}" 2>/dev/null
	unset "watcher[$1]"
}
# noticed_nothing NAME: it stamped in one life, and its QEMU was not paused, for however short. Ends the watch.
# How long it was between two stamps is told, not judged: a busy machine delays them too.
noticed_nothing()
{
	local gap others
	unwatch "$1"
	gap=$(awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { print int(gap / 1000000) }' "$test_name.$1.stamps")
	others=$(cut -d' ' -f3 "$test_name.$1.stamps" | sort -u | wc -l)
	note "$1: longest time between two stamps $gap ms, $(wc -l <"$test_name.$1.stamps") stamps, $others life"
	rm -f "$test_name.$1.stamps"
	[ "$others" -eq 1 ] && [ -n "${paused[$1]}" ] && [ "$(run_states "$1")" = "${paused[$1]}" ]
}

# again VM OLD_TOKEN: it runs in a new life, wherever
again()
{
	check "$1 stamps in a new life" within $patience other_life "$1" "$2"
	check "$1 runs" within $patience runs "$1"
}

finish()
{
	local out
	out=$(lab check 2>&1)
	ok $? "no guest ever ran twice"
	printf '%s\n' "$out" | sed 's/^/# /'
	echo "1..$count"
	[ $failures -eq 0 ]
	exit
}
