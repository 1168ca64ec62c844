#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Live migrations in a row, each with a fault at a drawn moment: no guest is lost, none runs twice, and those that the fault does not concern notice nothing.
# KVM_HA_MIGRATE_FAULTS: how many; KVM_HA_MIGRATE_SEED: what is drawn (the moments themselves are the machine's).
# KVM_HA_MIGRATE_KILLS=1: before those an agent is killed at each step, of the source and of the target; so it is by itself from 100 migrations on.
. "$(dirname -- "$0")/lib.sh"

rounds=${KVM_HA_MIGRATE_FAULTS:-4}
seed=${KVM_HA_MIGRATE_SEED:-1}
kills=${KVM_HA_MIGRATE_KILLS:-}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || bail "KVM_HA_MIGRATE_FAULTS=$rounds: say how many migrations"
[[ $seed =~ ^[0-9]+$ ]] || bail "KVM_HA_MIGRATE_SEED=$seed: say a number"
RANDOM=$seed
[ -n "$kills" ] || [ "$rounds" -lt 100 ] || kills=1
note "seed $seed, $rounds migrations; the same again: KVM_HA_MIGRATE_SEED=$seed KVM_HA_MIGRATE_FAULTS=$rounds $0"

guests="a b s"
faults=(source-power target-power source-agent target-agent both-agents hang hang+source-agent hang+target-agent hang+source-power
	split-source split-target split-third)
# What the agents log, and what QEMU tells at either end
steps=(asked incoming sending sending handed claimed migrated source:active source:pre-switchover source:device source:completed target:active target:completed)
holds=(0 2 6 12)
kill_steps=(asked incoming sending source:pre-switchover source:device source:completed handed claimed target:completed migrated)
settle=120 # a power cycle, a takeover, and a migration that the request still stands for

agent_pid() { lab exec "$1" -- systemctl show -P MainPID ha-agent; }
no_request() { [ "$(vm "$1" .move_to)" = null ]; }
is_one_of() { local x=$1; shift; [[ " $* " == *" $x "* ]]; }

# What a step looks like in a log: sets at (node) and re
step_line()
{
	case $1 in
	incoming) at=$3 re="VM $2: to be taken over from node" ;;
	sending) at=$4 re="VM $2: being migrated to node" ;;
	handed) at=$4 re="VM $2: handed over to node" ;;
	claimed) at=$3 re="VM $2: claimed" ;;
	migrated) at=$3 re="VM $2: migrated, its guest goes on" ;;
	esac
}

# follow FILE: its lines from now on, on descriptor 4
follow()
{
	exec 4< <(exec tail -c "+$(($(stat -c %s "$1") + 1))" -f "$1" 2>/dev/null)
	follower=$!
}
unfollow()
{
	kill "$follower" 2>/dev/null
	exec 4<&-
}
reached() # reached REGEX: within half a minute
{
	local line end=$((SECONDS + 30))
	while [ $SECONDS -lt $end ]; do
		read -r -t 1 -u 4 line && [[ $line == *"$1"* ]] && return
	done
	return 1
}

kill_agent() { lab exec "$1" -- kill -KILL "${agent[$1]}"; }

# A QEMU's own step: who waits for it is told at once, and kills this node's agent then, or stops the storage's servers.
await_event() # await_event GUEST NODE STATUS [VICTIM]
{
	local ready
	ready=$(mktemp -d) || bail "mktemp"
	case $4 in
	'') "$here/qmp_event" "$state/$2/dev/$1.qmp" "$3" "$ready/0" >/dev/null 2>&1 & ;;
	storage) "$here/qmp_event" "$state/$2/dev/$1.qmp" "$3" "$ready/0" 2>/dev/null | { read -r && kill -STOP $servers; } & ;;
	*) "$here/qmp_event" "$state/$2/dev/$1.qmp" "$3" "$ready/0" 2>/dev/null | lab exec "$4" -- sh -c "read -r x && kill -KILL ${agent[$4]}" & ;;
	esac
	waiter=$!
	within 20 test -e "$ready/0"
	rm -rf "$ready"
}
event_came() { wait "$waiter"; }

# It is gone where the storage hung just too late, and the guest was handed over.
stop_qemu()
{
	lab exec "$1" -- kill -STOP "$qemu" && return
	! lab exec "$1" -- kill -0 "$qemu" || return 1
	note "its source's QEMU is gone already"
	qemu=
}

# strike FAULT SOURCE TARGET THIRD HOLD [STRUCK], and heal; STRUCK: the node whose agent is killed already, or "storage" that hangs already
strike()
{
	local hurt_power=
	case $6 in
	'' | storage) ;;
	*) sleep "$5"; return ;;
	esac
	case $1 in
	hang*) [ -n "$6" ] || lab storage hang || return ;;
	split-source) lab net split "$2/$3,$4" || return ;;
	split-target) lab net split "$3/$2,$4" || return ;;
	split-third) lab net split "$4/$2,$3" || return ;;
	esac
	case $1 in
	hang+*) sleep "0.$((RANDOM % 10))" ;; # the claims' writes stand still by then
	esac
	case $1 in
	*source-power) hurt_power=$2 ;;
	target-power) hurt_power=$3 ;;
	*source-agent) kill_agent "$2" ;;
	*target-agent) kill_agent "$3" ;;
	both-agents) kill_agent "$2" && kill_agent "$3" ;;
	# Told to let its guest go on it waits for its disks. QEMU's own iSCSI and NFS take them without a word to a server, what the kernel serves does not: it
	# stands still instead, from before it is told until the storage is back.
	*source-qemu) sleep 7 && stop_qemu "$2" ;;
	esac || return
	[ -z "$hurt_power" ] || lab power "$hurt_power" off || return
	sleep "$5"
	case $1 in
	hang*) lab storage resume || return ;;&
	*source-qemu) [ -z "$qemu" ] || lab exec "$2" -- kill -CONT "$qemu" || return ;;
	split-*) lab net heal || return ;;
	esac
	[ -z "$hurt_power" ] || lab power "$hurt_power" on
}

# Whose VMs may end by it. Storage that is gone for all costs none only while all nodes are up.
hurt_by()
{
	case $1 in
	hang+source-power) echo "$nodes" ;;
	source-power | split-source) echo "$2" ;;
	target-power | split-target) echo "$3" ;;
	split-third) echo "$4" ;;
	esac
}

# May the guest that is on its way begin a new life? Not where source and target go on undisturbed, or only their storage is away for a while, and not as long
# as the source has not handed it over and only the target is gone.
may_end()
{
	case $1 in
	split-third | hang | hang+source-qemu) return 1 ;;
	target-power | target-agent | split-target) told "$2" "$3 ha-agent: VM $4: handed over" >/dev/null ;;
	*) return 0 ;;
	esac
}

hits() { tr ' ' '\n' <<<"${hit[$1]# }" | sort | uniq -c | awk '{ printf " %s (%s)", $2, $1 }'; } # at which steps a fault came, how often

well() # of every guest: it runs and stamps
{
	local g
	for g in $guests; do
		within "$settle" runs "$g" || { echo "$g does not run"; return 1; }
		stamps_on "$g" || { echo "$g does not stamp"; return 1; }
	done
}

one_life_at_a_time() { lab check; }

declare -A agent life home seen ended hit
migration() # migration NUMBER [GUEST FAULT STEP HOLD]: what is drawn comes first, so that it is the seed's whatever happens
{
	local g fault step delay hold source target third since at re hurt x first others victim='' what came='' follower=''
	local list=($guests)
	g=${list[RANDOM % ${#list[@]}]} fault=${faults[RANDOM % ${#faults[@]}]} step=${steps[RANDOM % ${#steps[@]}]} hold=${holds[RANDOM % ${#holds[@]}]}
	delay=$((RANDOM % 400 * (RANDOM % 2)))
	[ $g$step != ssending ] || delay=$((RANDOM % 2000))
	first=$((RANDOM % 2))
	[ $# -eq 1 ] || g=$2 fault=$3 step=$4 hold=$5 delay=0
	for x in $guests; do home[$x]=$(vm_node "$x") life[$x]=$(token "$x"); done
	source=${home[$g]}
	others=(${nodes/$source/})
	target=${others[first]} third=${others[1 - first]}
	for x in $nodes; do agent[$x]=$(agent_pid "$x"); done
	qemu=$(main_pid "$source" "kvmha-vm-$(vm_uuid "$g").service")
	since=$(now_ns)
	at=$source re=
	step_line $step "$g" "$target" "$source"
	case $step in
	source:* | target:*)
		case $fault in
		source-agent) victim=$source ;;
		target-agent) victim=$target ;;
		hang*) [ "$delay" -gt 0 ] || victim=storage ;;
		esac
		[ -z "$victim" ] || delay=0
		[ ${step%:*} = source ] || at=$target
		await_event "$g" "$at" "${step#*:}" "$victim"
		;;
	*) follow "$state/$at.log" ;;
	esac
	what="$1: $g $source to $target, $fault $delay ms after $step, for $hold s"
	ctl "$third" vm migrate "$g" "$target" >/dev/null || bail "$what: it is refused"
	case $step in
	asked) ;;
	*:*) event_came ;;
	*) reached "$re" ;;
	esac || came=no
	[ -z "$follower" ] || unfollow
	[ -z "$came" ] || ok 1 "$what: it got to that step"
	[ -n "$came" ] || hit[$fault]+=" $step"
	sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
	strike "$fault" "$source" "$target" "$third" "$hold" "$victim" || bail "$what: the lab cannot do that"
	local healed=$SECONDS
	check "$what: all nodes are well" within "$settle" all_online
	check "$what: all guests run" well
	check "$what: nothing is left of the request" within "$settle" no_request "$g"
	check "$what: none ran twice" one_life_at_a_time
	hurt=$(hurt_by "$fault" "$source" "$target" "$third")
	for x in $guests; do
		[ "$x" != "$g" ] || continue
		is_one_of "${home[$x]}" $hurt || check "$what: $x on ${home[$x]} noticed nothing" same_life "$x" "${life[$x]}"
	done
	may_end "$fault" "$since" "$source" "$g" || check "$what: in the same life" same_life "$g" "${life[$g]}"
	x="stayed"
	[ "$(vm_node "$g")" = "$source" ] || x="moved"
	same_life "$g" "${life[$g]}" || x="began a new life"
	seen[$fault]=$((${seen[$fault]:-0} + 1))
	[ "$x" != "began a new life" ] || ended[$fault]=$((${ended[$fault]:-0} + 1))
	note "$what: $g $x; all well $((SECONDS - healed)) s after; asked at $since"
}

# add NAME NODE DISK [ARGUMENT [SECTION]]: with a monitor for qmp_event
add()
{
	local text
	text=$(lab guest "$1" "$2" --disk "$3" --print) || bail "guest $1"
	text=${text/-nodefaults/-nodefaults -qmp unix:/run/kvm-ha-lab/$1.qmp,server=on,wait=off $4}
	printf '%s\n\n%b' "$text" "$5" | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "guest $1 cannot be added"
	within $patience runs_on "$1" "$2" || bail "guest $1 does not run on $2"
	stamps_on "$1" || bail "guest $1 does not stamp its disk"
}

lab_up --volumes iscsi,nfs,iscsi
servers="$(server tgtd) $(server ganesha)"
add a n1 iscsi
add b n2 nfs
# One that takes its time: memory that is not zero, at 8 MiB a second
lab exec n1 -- sh -c 'head -c 12M /dev/urandom >/srv/kvm-ha/memory' || bail "no memory file"
add s n3 iscsi "-device loader,file=/srv/kvm-ha/memory,addr=0x1000000,force-raw=on" '[Migration]\nBandwidth=8M\n'

# Its guest stood still for ever once: called off just when QEMU, its storage back, had stopped it
migration 0 s hang+target-agent sending 12
# They were killed once: storage hangs when the claim is to be handed over, and still when the guest is to go on at the source again
migration 0 a hang source:completed 25
migration 0 a hang+source-qemu source:completed 18
if [ -n "$kills" ]; then
	for step in "${kill_steps[@]}"; do
		for f in source-agent target-agent; do
			[ $step = sending ] && g=s || g=a
			migration "$step, $f" $g $f $step 0
		done
	done
	# Its release is issued, and not acknowledged
	migration 'unacknowledged' a hang+source-agent source:completed 2
fi
RANDOM=$seed
for ((i = 1; i <= rounds; i++)); do
	migration $i
done
for f in "${faults[@]}"; do
	[ -z "${seen[$f]}" ] || note "$f: ${seen[$f]} migrations, ${ended[$f]:-0} guests on their way began a new life; at$(hits "$f")"
done
finish
