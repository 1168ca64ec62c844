#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The table of faults: each row a fault on a real cluster, what it did to the host and to the VMs, and whether that is what must happen. Not in `make check`, for it takes
# most of an hour a profile: `contrib/bench --only cases` and `contrib/test --full` run it; docs/FAULTS.md has what came out.
#   cases.sh [--profile fast|standard|safe] [--rows NAME,...] [--json FILE]
#     --profile  timings of the lab (default fast)
#     --rows     only these
#     --json     one object a row is appended to FILE
#   cases.sh --list           the rows
#   cases.sh --table FILE...  what --json has written, as a table (markdown); rows played several times with their medians
# Guests a and b run on n3, the node that is hurt if the row says nothing else, c on n1. A row judges who may be reset, who releases, and what becomes of each VM:
#   must_go_on VM...    same node, same life
#   must_move VM...     another node, a new life, its QEMU executed within the bound of `ha-ctl config show`
#   must_be_back VM...  a new life, wherever, within the bound
# The gap is the longest time without a write of the guest, by its stamps as they came to the disk's server: measured, judged by nothing.

profile=fast rows= json= table=
usage() { sed -n '5,10s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
	case $1 in
	--profile) profile=${2:?} && shift ;;
	--rows) rows=${2:?} && shift ;;
	--json) json=$(realpath -m -- "${2:?}") && shift ;;
	--list) table=list ;;
	--table) table=table && shift && break ;;
	-h | --help) usage && exit 0 ;;
	*) usage >&2 && exit 64 ;;
	esac
	shift
done

# Each lab: its options, and its rows in their order
labs="three two one five"
declare -A lab_options=(
	[three]="--volumes iscsi,nfs,iscsi"
	[two]="--volumes iscsi,nfs"
	[one]="--volumes iscsi"
	[five]="--nodes 5 --volumes iscsi,nfs,iscsi")
declare -A lab_rows=(
	[three]="power power_leader power_cycled back_in_fence power_two power_torn power_all keeper_stopped keeper_killed keeper_upgraded agent_killed agent_stopped
		agent_upgraded agent_gone corosync_killed corosync_stopped corosync_restarted corosync_all ring_cut ring_and_storage_cut ring_split one_way one_way_all flapping
		storage_cut storage_errors storage_writes_hang storage_heals_dying all_hang_10 all_stop_10 all_hang_60 all_stop_60 all_writes_hang
		all_read_only one_of_three two_of_three one_of_three_power wiped rolled_back replaced stalled frozen unwatched
		operator_live operator_dead power_fence qemu_killed guest_off migration maintenance all_hang_600"
	[two]="one_of_two one_of_two_power"
	[one]="wiped_only"
	[five]="split_three twin")

declare -A fault
fault=(
	[power]="power lost (a kernel panic looks no different to the others)"
	[power_leader]="power lost, of the node that leads"
	[power_cycled]="power lost and back at once"
	[back_in_fence]="power back while the node is being fenced"
	[power_two]="power lost by two nodes of three"
	[power_torn]="power lost in the middle of a heartbeat's write, on every volume"
	[power_all]="power lost by all nodes, and back"
	[keeper_stopped]="ha-keeper stopped (SIGSTOP)"
	[keeper_killed]="ha-keeper killed"
	[keeper_upgraded]="ha-keeper put in force anew, as by an upgrade"
	[agent_killed]="ha-agent killed"
	[agent_stopped]="ha-agent stopped (SIGSTOP) until systemd starts it anew"
	[agent_upgraded]="ha-agent restarted, as by an upgrade"
	[agent_gone]="ha-agent killed for good, then a's QEMU dies"
	[corosync_killed]="corosync killed on one node, and not started again"
	[corosync_stopped]="corosync stopped (SIGSTOP) on one node"
	[corosync_restarted]="corosync restarted on one node"
	[corosync_all]="corosync dead on all nodes for 30 s"
	[ring_cut]="ring cut, storage seen"
	[ring_and_storage_cut]="ring and storage cut"
	[ring_split]="ring split in 2 + 1"
	[split_three]="ring of 5 split in 2 + 2 + 1"
	[one_way]="one-way link: one node does not reach one other for 20 s"
	[one_way_all]="one-way link: one node reaches nobody, all reach it"
	[flapping]="ring flaps: 1 s gone, 1 s there, 15 times"
	[storage_cut]="storage lost by one: no answer"
	[storage_errors]="storage lost by one: errors"
	[storage_writes_hang]="storage half lost by one: reads work, writes hang"
	[storage_heals_dying]="storage lost by one, and back while its VMs are being killed"
	[all_hang_10]="storage hangs for all for 10 s"
	[all_stop_10]="storage gone for all for 10 s: errors"
	[all_hang_60]="storage hangs for all for 60 s"
	[all_stop_60]="storage gone for all for 60 s: errors"
	[all_hang_600]="storage hangs for all for 10 minutes"
	[all_writes_hang]="reads work, writes hang, for all for 30 s"
	[all_read_only]="volumes are read-only for all for 30 s"
	[one_of_three]="1 of 3 volumes hangs for 30 s, and with it the disk of one VM"
	[two_of_three]="2 of 3 volumes hang for 30 s"
	[one_of_three_power]="1 of 3 volumes gone, then power lost"
	[one_of_two]="1 of 2 volumes hangs for 30 s, and with it the disk of one VM"
	[one_of_two_power]="1 of 2 volumes gone, power lost; the volume is back 30 s later"
	[wiped]="1 of 3 volumes wiped, then replaced by itself"
	[rolled_back]="1 of 3 volumes rolled back, then replaced by itself"
	[replaced]="1 of 3 volumes shows another one's image; wiped, then replaced by itself"
	[wiped_only]="the only volume wiped"
	[twin]="a second host with the node id of a live one"
	[stalled]="a whole node stands still for less than its lease, and goes on"
	[frozen]="a whole node stands still for longer"
	[unwatched]="an observer without watchdog stands still for longer than W, and goes on"
	[operator_live]="operator confirms a live node to be off"
	[operator_dead]="power lost, operator confirms it"
	[power_fence]="power lost, a fence device says so"
	[qemu_killed]="QEMU killed"
	[guest_off]="guest powers itself off"
	[migration]="planned: live migration"
	[maintenance]="planned: maintenance of a node")
# What must happen, as the functions below judge it
declare -A must
musts() { local r; for r in $2; do must[$r]=$1; done; }
musts "its VMs start elsewhere within the bound, nobody is reset" "power power_leader power_two power_torn one_of_three_power"
musts "its VMs run again within the bound; it comes back with a new epoch and is not fenced for its old life" "power_cycled back_in_fence"
musts "every VM starts, once" power_all
musts "its watchdog resets it, its VMs run again within the bound" "keeper_stopped frozen"
musts "nothing" "keeper_killed keeper_upgraded agent_killed agent_stopped agent_upgraded corosync_restarted corosync_all one_of_three one_of_two"
musts "refused, nothing" operator_live
musts "nobody is condemned, nothing" "stalled unwatched"
musts "the second one waits, nothing" twin
musts "nothing; told, never written over, taken in again by an operator" "wiped rolled_back replaced"
musts "VMs of that node run on; what ends there starts elsewhere within the bound" agent_gone
musts "it releases, its host stays; its VMs start elsewhere within the bound" "corosync_killed corosync_stopped ring_cut ring_and_storage_cut ring_split one_way_all storage_cut storage_errors storage_writes_hang"
musts "one group goes on with all VMs within the bound, no host is reset" split_three
musts "it settles: all VMs run, no host is reset" "one_way flapping"
musts "it releases, its host stays; its VMs run again within the bound" storage_heals_dying
musts "hold: nobody is reset or releases, guests go on" "all_hang_10 all_stop_10 all_hang_60 all_stop_60 all_hang_600 all_writes_hang all_read_only two_of_three"
musts "nobody takes over meanwhile; then within the bound" one_of_two_power
musts "all release, hosts stay; told, never written over" wiped_only
musts "no wait for W: its VMs start elsewhere within the bound" "operator_dead power_fence"
musts "again on its node within the bound" qemu_killed
musts "no failure: stopped, and stays so" guest_off
musts "the same life elsewhere" "migration maintenance"
# Pacemaker + sbd where it was measured in the same kind of lab
declare -A others=([ring_cut]="VM back after 14.0 s, host reset" [corosync_stopped]="VM back after 15.4 s, host reset" [all_hang_60]="40 s: no reset")

# What --json has written as a table: rows in the order of the labs, profiles side by side
print_table()
{
	local lab row known=
	for lab in $labs; do for row in ${lab_rows[$lab]}; do known="$known$row	${fault[$row]}	${must[$row]}	${others[$row]:--}"$'\n'; done; done
	jq -rs --arg known "$known" '
		def median: sort | .[((length - 1) / 2) | floor];
		def seconds: . / 100 | round / 10 | tostring | if test("\\.") then . else . + ".0" end | . + " s";
		def one(f): [.[] | f] | unique | join(" or ");
		def host: (if (.reset | length) > 0 then "reset: " + (.reset | join(", ")) else "no reset" end) + (if (.released | length) > 0 then "; releases: " + (.released | join(", ")) else "" end);
		def of(k): [.vms[] | select(.hurt == k)];
		def fates(k): of(k) | map(.fate) | unique | join(", ");
		def worst(k; f): [.[] | of(k) | map(f | values) | max | values];
		def told: if length == 1 then .[0] | seconds else "\(median | seconds) (\(length), worst \(max | seconds))" end;
		def exec(k): worst(k; if .fate | startswith("a new life") then .exec_ms else null end) | if . == [] then "" else ", QEMU again after " + told end;
		def gap(k): worst(k; if .fate == "down" then null else .gap_ms end) | if . == [] then "" else ", gap " + told end;
		def vms(k): if any(.[]; of(k) != []) then "<br>" + (if k or all(.[]; of(true) == []) then "" else "others: " end) + one(fates(k)) + exec(k) + gap(k) else "" end;
		def cell: if length == 0 then "-" else one(host) + vms(true) + vms(false) + (if any(.[]; .twice) then "<br>**RAN TWICE**" else "" end) + (if all(.[]; .ok) then "" else "<br>**NOT AS IT MUST**" end) end;
		. as $all | [$all[].profile] as $played | (["fast", "standard", "safe"] | map(select(. as $p | any($played[]; . == $p)))) as $profiles
		| "| fault | what must happen | " + ($profiles | join(" | ")) + " | Pacemaker + sbd |",
		  "|---|---|" + ($profiles | map("---|") | join("")) + "---|",
		  ($known | split("\n")[] | select(. != "") | split("\t") as [$row, $text, $must, $others]
		   | [$all[] | select(.row == $row)] | select(length > 0)
		   | "| \($text) | \($must) | " + ([$profiles[] as $p | map(select(.profile == $p)) | cell] | join(" | ")) + " | \($others) |"),
		  "", "\($all | length) rows played, \([$all[] | select(.ok)] | length) as they must, guests that ran twice: \([$all[] | select(.twice)] | length); load \([$all[].load] | median), at most \([$all[].load] | max)."' "$@"
}

case $table in
list)
	for l in $labs; do for r in ${lab_rows[$l]}; do printf '%-22s %-6s %s\n' "$r" "$l" "${fault[$r]}"; done; done
	exit 0
	;;
table) print_table "$@"; exit ;;
esac
for r in ${rows//,/ }; do
	[ -n "${fault[$r]}" ] || { echo "cases.sh: there is no row $r; see: $0 --list" >&2; exit 64; }
done

. "$(dirname -- "$0")/lib.sh"

# What a row begins with and what it ends with

declare -A home life_before resets_before epoch_before
vms= row= lab_now=
is_in() { [[ " $2 " == *" $1 "* ]]; }

# Guests are watched from when they run, so their newest stamp is at hand.
stamp() # stamp NAME token|counter
{
	local ns counter token
	[ -n "${watcher[$1]}" ] || { lab stamps "$1" | jq -r ".$2"; return; }
	within 20 test -s "$test_name.$1.stamps" || return
	read -r ns counter token < <(tail -n 1 "$test_name.$1.stamps")
	echo "${!2}"
}
unwatch_all() { local v; for v in "${!watcher[@]}"; do unwatch "$v"; rm -f "$test_name.$v.stamps"; done; }
# One look for all: online, armed, in the ring, agents there, somebody leads
all_well()
{
	ctl_any status -o json | jq -e --arg n "$nodes" '.status | .leader != null and ($n | split(" ")) - [.nodes[] | select(.state == "online" and .armed and .agent and .ring == "ok") | .name] == []'
}
# at_home NODE NODE2: a and b run on NODE, c on NODE2, and all is well
at_home()
{
	local v n
	home[a]=$1 home[b]=$1 home[c]=$2
	within 120 all_well || return
	for n in $(ctl_any status -o json | jq -r '.status.nodes[] | select(.quarantine) | .name'); do ctl_any node unfence "$n" || return; done
	for v in a b c; do
		if ! runs_on $v "${home[$v]}"; then
			within $patience runs $v || ctl_any vm start $v
			within $patience runs $v || return
			runs_on $v "${home[$v]}" || within 20 ctl_any vm migrate $v "${home[$v]}" --wait || return
		fi
		stamps_on $v || return
	done
}

# begin VM...: these are hurt. What is now is what it will be compared with.
epochs() { ctl_any status -o json | jq -r '.status.nodes[] | "\(.name) \(.epoch)"'; }
begin()
{
	local v n
	hurt=$*
	view=
	for v in $vms; do life_before[$v]=$(token "$v"); done
	for n in $nodes; do resets_before[$n]=$(resets "$n"); done
	while read -r n v; do epoch_before[$n]=$v; done < <(epochs)
	leader_before=$(leader)
	since=$(now_ns)
}

says() { check "$row: $1" "${@:2}"; }
new_resets() { local n; for n in $nodes; do [ "$(resets "$n")" = "${resets_before[$n]}" ] || echo "$n"; done | xargs; }
released() { told "$since" '^[0-9]+ n[0-9]+ ha-keeper: releasing this node' | cut -d' ' -f2 | sort -u | xargs; }
resets_are() { says "hosts that are reset: ${1:-none}" eval "[ \"\$(new_resets)\" = '$1' ]"; }
releases_are() { says "nodes that release: ${1:-none}" eval "[ \"\$(released)\" = '$1' ]"; }
same_epochs()
{
	local n now
	now=$(epochs)
	for n; do says "$n is in its epoch" grep -qx "$n ${epoch_before[$n]}" <<<"$now"; done
}
must_move()
{
	local v
	for v; do
		says "$v runs on another node" within $patience runs_elsewhere "$v" "${home[$v]}"
		says "$v stamps in a new life" within $patience other_life "$v" "${life_before[$v]}"
		says "$v was started within the bound" in_bound "$since" "$v"
	done
}
must_be_back()
{
	local v
	for v; do
		says "$v runs" within $patience runs "$v"
		says "$v stamps in a new life" within $patience other_life "$v" "${life_before[$v]}"
		says "$v was started within the bound" in_bound "$since" "$v"
	done
}
must_go_on()
{
	local v
	for v; do
		says "$v runs where it ran" within $patience runs_on "$v" "${home[$v]}"
		says "$v stamps" stamps_on "$v"
		says "$v is in the same life" same_life "$v" "${life_before[$v]}"
	done
}
# To any host or VM
nothing_happens()
{
	must_go_on $vms
	resets_are ""
	releases_are ""
	same_epochs $nodes
}
all_back() { says "all nodes are online and armed" within 120 all_well; }

# The longest time between two writes since the fault, in ms; of a guest that writes no more: null
gap_of()
{
	awk -v since="$since" 'NR > 1 && $1 > since && $1 - last > gap { gap = $1 - last } { last = $1 } END { printf "%s", ((last > since && gap) ? int(gap / 1000000) : "null") }' "$test_name.$1.stamps"
}
fate_of() # fate_of VM STATE NODE
{
	local life="a new life"
	! same_life "$1" "${life_before[$1]}" || life="same life"
	if [ "$2" != running ]; then echo "down"; elif [ "$3" = "${home[$1]}" ]; then echo "$life"; else echo "$life elsewhere"; fi
}
words_json() { printf '%s\n' $1 | jq -cRn '[inputs | select(. != "")]'; }

# What the row's line tells, but for whether all was as it must: healing belongs to that, and comes later. So its time is no guest's gap.
end()
{
	local v uuid state_now node at gates vm_json twice=false
	lab check >/dev/null || twice=true
	says "no guest ever ran twice" test $twice = false
	gates=$(told "$since" "ha-keeper: VM .* passes the gate")
	vm_json=$(ctl_any status -o json | jq -r '.status.vms[] | "\(.name) \(.uuid) \(.state) \(.node // "none")"' | while read -r v uuid state_now node; do
		is_in "$v" "$vms" || continue
		at=$(grep -m 1 "$uuid" <<<"$gates" | cut -d' ' -f1)
		jq -cn --arg v "$v" --arg was "${home[$v]}" --arg is "$node" --arg fate "$(fate_of "$v" "$state_now" "$node")" --argjson gap "$(gap_of "$v")" \
			--argjson exec "$([ -z "$at" ] && echo null || ms_between "$since" "$at")" --argjson hurt "$(is_in "$v" "$hurt" && echo true || echo false)" \
			'{vm: $v, hurt: $hurt, was: $was, is: $is, fate: $fate, gap_ms: $gap, exec_ms: $exec}'
	done)
	line=$(jq -cn --arg row "$row" --arg fault "${fault[$row]}" --arg profile "$profile" --arg lab "${lab_options[$lab_now]}" --argjson bound "$bound_ms" --arg leader "$leader_before" \
		--argjson reset "$(words_json "$(new_resets)")" --argjson released "$(words_json "$(released)")" --argjson vms "$(jq -cs . <<<"$vm_json")" \
		--argjson twice $twice --argjson load "$(cut -d' ' -f1 /proc/loadavg)" --arg date "$(date -u +%FT%TZ)" \
		'{row: $row, fault: $fault, profile: $profile, lab: $lab, bound_ms: $bound, leader: $leader, reset: $reset, released: $released, vms: $vms, twice: $twice, load: $load, date: $date}')
	view=
}

# Rows: nodes that fail

lose_power() { power_off "$1"; since=$cut_ns view=${nodes/$1/}; }
power_on() { lab power "$1" on || bail "$1 does not boot"; }

row_power() # NODE
{
	local node=${1:-n3}
	begin a b
	lose_power "$node"
	must_move a b
	must_go_on c
	resets_are ""
	end
	power_on "$node"
	all_back
}
row_power_leader()
{
	local lead other=n1
	lead=$(leader)
	[ "$lead" != n1 ] || other=n2
	at_home "$lead" $other || bail "$row: not all is well before"
	row_power "$lead"
}
is_back_anew() # n3, which had lost its power
{
	power_on n3
	must_be_back a b
	must_go_on c
	says "n3 is back, with a new epoch" within $patience eval 'back n3 && [ "$(epoch n3)" -gt "${epoch_before[n3]}" ]'
	says "and is not fenced for its old life" throughout $((bound_ms / 1000 + 1)) stays_online n3
	resets_are ""
	end
}
row_power_cycled()
{
	begin a b
	lose_power n3
	is_back_anew
}
row_back_in_fence()
{
	begin a b
	lose_power n3
	says "n3 is being fenced" within $patience told "$since" "node n3 is being fenced"
	is_back_anew
}
row_power_two()
{
	begin a b
	power_off n2
	lose_power n3
	view=n1
	must_move a b
	must_go_on c
	resets_are ""
	end
	power_on n2
	power_on n3
	all_back
}
# The newest of n3's two buffers, half written: its two blocks of 4096 bytes are neighbours in the table that begins at 8192, a block's number is at 56 (storage/format.c).
seq_at() { od -An -t u8 -j $(($2 + 56)) -N 8 "$1"; }
tear_newest()
{
	local image at first=24576 second=28672
	for image in $(jq -r '.volumes[].image' "$state/state.json"); do
		at=$first
		[ "$(seq_at "$image" $first)" -gt "$(seq_at "$image" $second)" ] || at=$second
		dd if=/dev/urandom of="$image" bs=512 seek=$((at / 512 + 1)) count=7 conv=notrunc status=none || return
	done
}
row_power_torn()
{
	begin a b
	lose_power n3
	says "its newest heartbeat is torn on every volume" tear_newest
	must_move a b
	must_go_on c
	resets_are ""
	says "the others keep their epochs" test "$(epoch n1) $(epoch n2)" = "${epoch_before[n1]} ${epoch_before[n2]}"
	end
	power_on n3
	all_back
}
row_power_all()
{
	local n v pid pids=
	begin $vms
	for n in $nodes; do power_off "$n"; done
	for n in $nodes; do
		lab power "$n" on &
		pids="$pids $!"
	done
	for pid in $pids; do wait "$pid" || bail "a node does not boot"; done
	all_back
	for v in $vms; do
		says "$v runs" within $patience runs "$v"
		says "$v stamps in a new life" within $patience other_life "$v" "${life_before[$v]}"
		says "$v was started once" test "$(told "$since" "ha-keeper: VM $(vm_uuid "$v"): .* passes the gate" | wc -l)" = 1
	done
	resets_are ""
	end
}
row_frozen()
{
	begin a b
	freeze n3
	says "its watchdog resets n3" within $patience eval '[ "$(new_resets)" = n3 ]'
	thaw n3
	must_be_back a b
	must_go_on c
	resets_are n3
	says "nobody else releases" eval '! is_in n1 "$(released)" && ! is_in n2 "$(released)"'
	end
	all_back
}
# The whole node stands still, but not its watchdog. Its cgroup is that of lab-node.c, in the hierarchy that has a freezer.
node_cgroup() { local d; for d in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ -e "$d/kvm-ha-lab-$KVM_HA_LAB_PREFIX-$1/cgroup.freeze" ] && echo "$d/kvm-ha-lab-$KVM_HA_LAB_PREFIX-$1" && return; done; }
freeze() { echo 1 >"$(node_cgroup "$1")/cgroup.freeze" && within 5 grep -q 'frozen 1' "$(node_cgroup "$1")/cgroup.events" || bail "$1 does not freeze"; }
thaw() { ! [ -e "$(node_cgroup "$1")/cgroup.freeze" ] || echo 0 >"$(node_cgroup "$1")/cgroup.freeze"; }
row_stalled()
{
	local soft heartbeat
	soft=$(timing Soft) heartbeat=$(timing Heartbeat)
	begin c
	freeze n1
	sleep "$(((soft - 2 * heartbeat) / 2))e-3" # so long it stands still
	thaw n1
	view=
	nothing_happens
	says "n1 has condemned nobody" not told "$since" "n1 ha-keeper: .*is (to be|being) fenced"
	end
}
row_unwatched()
{
	local conf=$state/n1/etc/kvm-ha/conf.d/70-unwatched.conf w
	w=$(timing W)
	says "c leaves n1" within 30 ctl_any vm migrate c n2 --wait
	mkdir -p "${conf%/*}"
	printf '[Watchdog]\nDevice=unix:/run/none\n' >"$conf"
	lab exec n1 -- systemctl restart ha-agent && lab power n1 off && lab power n1 on || bail "n1 does not boot"
	says "n1 is online, and not armed" within $patience node_is n1 '.state + " " + (.armed | tostring)' "online false"
	home[c]=n2
	within $patience runs_on c n2 && stamps_on c
	begin
	freeze n1
	says "it stands still for longer than W" throughout $((2 * w / 1000 + 2)) grep -q 'frozen 1' "$(node_cgroup n1)/cgroup.events"
	thaw n1
	says "n1 is online again" within $patience node_is n1 .state online
	must_go_on $vms
	resets_are ""
	releases_are ""
	same_epochs n2 n3
	says "n1 has condemned nobody" not told "$since" "n1 ha-keeper: .*is (to be|being) fenced"
	end
	rm -f "$conf"
	power_off n1
	power_on n1
	all_back
}

# Rows: our processes

kill_main() { lab exec "$1" -- systemctl kill --kill-who=main -s "$3" "$2"; }
restarts() # restarts NODE UNIT COMMAND...: it goes on as another process, and nobody notices
{
	local node=$1 unit=$2 pid
	shift 2
	pid=$(main_pid "$node" "$unit")
	begin a b
	"$@" || bail "$row: $*"
	says "$unit of $node is another process" within $patience other_pid "$node" "$unit" "$pid"
	says "ha-agent of $node answers" within $patience agent_answers "$node"
	all_back
	nothing_happens
	end
}
row_keeper_killed() { restarts n3 ha-keeper kill_main n3 ha-keeper KILL; }
row_keeper_upgraded() { restarts n3 ha-keeper kill_main n3 ha-keeper TERM; }
row_agent_killed() { restarts n3 ha-agent kill_main n3 ha-agent KILL; }
row_agent_stopped() { restarts n3 ha-agent kill_main n3 ha-agent STOP; }
row_agent_upgraded() { restarts n3 ha-agent lab exec n3 -- systemctl restart ha-agent; }
row_keeper_stopped()
{
	begin a b
	kill_main n3 ha-keeper STOP
	must_be_back a b
	must_go_on c
	says "n3 is back" within $patience back n3
	resets_are n3
	end
}
row_agent_gone()
{
	local failover_ms=$bound_ms
	bound_ms=$(ctl_any config show -o json | jq .silent_bound_ms)
	begin a
	lab exec n3 -- systemctl mask --runtime ha-agent
	kill_main n3 ha-agent KILL
	view="n1 n2"
	says "the others know" within $patience node_is n3 .agent false
	since=$(now_ns)
	kill_qemu_of n3 a
	must_move a
	must_go_on b c
	resets_are ""
	releases_are ""
	end
	bound_ms=$failover_ms
	lab exec n3 -- systemctl unmask --runtime ha-agent
	lab exec n3 -- systemctl start ha-agent
	all_back
}

# Rows: the ring

gives_up() # gives_up NODE HEALING...: it releases, and its host stays
{
	local node=$1
	shift
	view=${nodes/$node/}
	must_move a b
	must_go_on c
	resets_are ""
	releases_are "$node"
	end
	"$@"
	all_back
	says "$node has a new epoch" eval '[ "$(epoch '"$node"')" -gt "${epoch_before['"$node"']}" ]'
	says "no host was reset meanwhile" eval '[ -z "$(new_resets)" ]'
}
row_corosync_killed() { begin a b; lab exec n3 -- systemctl kill -s KILL corosync; gives_up n3 lab exec n3 -- systemctl restart corosync; }
row_corosync_stopped() { begin a b; lab exec n3 -- systemctl kill -s STOP corosync; gives_up n3 lab exec n3 -- systemctl kill -s CONT corosync; }
row_ring_cut() { begin a b; lab net n3 down; gives_up n3 lab net heal; }
row_ring_split() { begin a b; lab net split n1,n2/n3; gives_up n3 lab net heal; }
row_ring_and_storage_cut() { begin a b; lab net n3 down; lab storage cut n3; gives_up n3 eval 'lab net heal; lab storage heal n3'; }
# Whichever way corosync takes it, one side goes on with everything and no host is hurt.
row_one_way_all() { begin a b; lab oneway n3 n1; lab oneway n3 n2; gives_up n3 lab net heal; }
row_one_way()
{
	begin a b
	lab oneway n3 n1
	says "no host is reset for 20 s" throughout 20 eval '[ -z "$(new_resets)" ]'
	settles
	lab net heal
	all_back
}
row_flapping()
{
	begin a b
	for _ in $(seq 15); do
		lab net n3 down
		sleep 1 # the fault itself
		lab net n3 up
		sleep 1
	done
	says "the ring is whole" within $patience sees n1 3
	all_back
	settles
}
# All VMs run, on whichever node and in whichever life, and no host was reset.
settles()
{
	local v
	for v in $vms; do
		says "$v runs" within $patience runs "$v"
		says "$v stamps" stamps_on "$v"
	done
	resets_are ""
	end
}
row_corosync_restarted()
{
	begin a b
	lab exec n3 -- systemctl restart corosync
	says "the ring is whole again" within $patience sees n3 3
	all_back
	nothing_happens
	end
}
row_corosync_all()
{
	local n
	begin $vms
	for n in $nodes; do lab exec "$n" -- systemctl kill -s KILL corosync; done
	says "no host is reset for 30 s, nobody releases" throughout 30 eval '[ -z "$(new_resets)$(released)" ]'
	for n in $nodes; do lab exec "$n" -- systemctl restart corosync; done
	says "the ring is whole again" within $patience sees n1 3
	all_back
	nothing_happens
	end
}
row_split_three()
{
	begin a b d
	lab net split n1,n2/n3,n4/n5
	view="n1 n2"
	must_move a b d
	must_go_on c
	says "all run on the nodes of one group" eval 'for v in $vms; do is_in "$(vm_node $v)" "n1 n2" || exit 1; done'
	resets_are ""
	says "n1 and n2 release nothing" eval '! is_in n1 "$(released)" && ! is_in n2 "$(released)"'
	end
	lab net heal
	all_back
}
# n5 becomes a host that claims to be n3: its own machine, with n3's place in the configuration.
row_twin()
{
	local conf=$state/n5/etc/kvm-ha/kvm-ha.conf ring=$state/n5/etc/corosync/corosync.conf
	power_off n5
	says "n5 is over" within $patience node_is n5 .state offline
	view="n1 n2 n3 n4"
	vms="a b c"
	within $patience stamps_on c
	cp "$conf" "$test_name.conf" && cp "$ring" "$test_name.ring" || bail "cp"
	sed -i 's/^Nodes=.*/Nodes=n1:1 n2:2 n5:3 n4:4 n3:5/' "$conf"
	lab net n5 down
	begin a b
	view="n1 n2 n3 n4"
	timeout 5 "$top/contrib/lab" power n5 on # its boot waits for its keeper, which is never ready
	says "its keeper sees another host's node" within $patience told "$since" "^[0-9]+ n5 ha-keeper: this node's slot was written by another host"
	says "systemd tells what it waits for" eval '[[ $(lab exec n5 -- systemctl show -P StatusText ha-keeper) == *"another host has this node"* ]]'
	says "n3 stays for 30 s" throughout 30 stays_online n3
	must_go_on $vms
	says "no host is reset" eval '[ -z "$(new_resets)" ]'
	says "n3 is in its epoch" test "$(epoch n3)" = "${epoch_before[n3]}"
	says "the second one runs nothing" test "$(lab exec n5 -- systemctl list-units --no-legend --state=active 'kvmha-vm-*.service' | wc -l)" = 0
	told "$since" '^[0-9]+ n5 ha-keeper: ' | head -n 6 | while read -r ns text; do note "$(ms_between "$since" "$ns") ms $text"; done
	end
	power_off n5
	lab net heal
	mv "$test_name.conf" "$conf" && rm -f "$test_name.ring"
	power_on n5
	all_back
}

# Rows: storage

writes_hang() # writes_hang NODE...: what is longer than a guest's write does not reach the servers; a request to read does
{
	local n
	{
		echo "table bridge cases {"
		echo "chain writes {"
		echo "type filter hook input priority 0; policy accept;"
		for n; do echo "iifname \"s${n#n}\" meta length > 1000 drop"; done
		printf '}\n}\n'
	} | ip netns exec "$KVM_HA_LAB_PREFIX-sw" nft -f -
}
writes_go() { ip netns exec "$KVM_HA_LAB_PREFIX-sw" nft delete table bridge cases; }
row_storage_cut() { begin a b; lab storage cut n3; gives_up n3 lab storage heal n3; }
# What is under way gets no answer, everything after that an error at once.
row_storage_errors() { begin a b; lab exec n3 -- ip route add prohibit 10.77.2.1/32; gives_up n3 lab exec n3 -- ip route del prohibit 10.77.2.1/32; }
row_storage_writes_hang() { begin a b; writes_hang n3 || bail "$row: no rule"; gives_up n3 writes_go; }
row_storage_heals_dying()
{
	begin a b
	lab storage cut n3
	says "n3 releases" within $patience told "$since" "n3 ha-keeper: releasing this node"
	lab storage heal n3
	must_be_back a b
	must_go_on c
	resets_are ""
	releases_are n3
	end
	all_back
}
rides_out() # rides_out SECONDS FAULT HEALING: storage is gone for all
{
	begin $vms
	eval "$2" || bail "$row: $2"
	says "every node holds" within $patience all_hold
	says "no host is reset for $1 s, nobody releases" throughout "$1" eval '[ -z "$(new_resets)$(released)" ]'
	eval "$3" || bail "$row: $3"
	says "the hold is over on every node" within $patience none_holds
	all_back
	nothing_happens
	end
}
row_all_hang_10() { rides_out 10 "lab storage hang" "lab storage resume"; }
row_all_hang_60() { rides_out 60 "lab storage hang" "lab storage resume"; }
row_all_hang_600() { rides_out 600 "lab storage hang" "lab storage resume"; }
row_all_stop_10() { rides_out 10 "lab storage stop" "lab storage start"; }
row_all_stop_60() { rides_out 60 "lab storage stop" "lab storage start"; }
row_two_of_three() { rides_out 30 "lab storage hang iscsi" "lab storage resume iscsi"; }
row_all_writes_hang() { rides_out 30 "writes_hang $nodes" writes_go; }
volume_tid() { tgt --mode target --op show | awk -v v="vol$1" '/^Target [0-9]+:/ && $0 ~ ":" v "$" { sub(":", "", $2); print $2 }'; }
read_only() { local v; for v in 1 3; do tgt --mode logicalunit --op update --tid "$(volume_tid $v)" --lun 1 --params "readonly=$1" || return 1; done; }
row_all_read_only() { rides_out 30 "read_only 1" "read_only 0"; }

one_gone() # one_gone WHICH: for 30 s; b has its disk there
{
	begin b
	lab storage hang "$1"
	says "no host is reset for 30 s, nobody releases" throughout 30 eval '[ -z "$(new_resets)$(released)" ]'
	lab storage resume "$1"
	all_back
	nothing_happens
	end
}
row_one_of_three() { one_gone nfs; }
row_one_of_two() { one_gone nfs; }
row_one_of_three_power()
{
	within 30 ctl_any vm migrate b n1 --wait || bail "$row: b does not leave n3" # its disk is on the server that goes
	home[b]=n1
	begin a
	lab storage hang nfs
	says "the volume is seen to be gone" within $patience eval '[ "$(ctl n1 status -o json | jq .status.quorum.good)" = 2 ]'
	lose_power n3
	must_move a
	must_go_on c
	resets_are ""
	lab storage resume nfs
	must_go_on b
	end
	power_on n3
	all_back
}
row_one_of_two_power()
{
	begin a b
	lab storage hang nfs
	says "the volume is seen to be gone" within $patience eval '[ "$(ctl n1 status -o json | jq .status.quorum.good)" = 1 ]'
	lose_power n3
	says "nobody takes over without a fence quorum" throughout 30 eval 'same_life a "${life_before[a]}" && ! told "$since" "passes the gate"'
	since=$(now_ns)
	lab storage resume nfs
	must_move a b
	must_go_on c
	resets_are ""
	end
	power_on n3
	all_back
}

# A volume that is not what it was: used no more, told, and taken in again by an operator. Nothing happens to anybody.
trouble() { [ "$(ctl n1 status -o json | jq -r ".status.volumes[2].trouble")" = "$1" ]; }
damaged() # damaged WORD COMMAND...
{
	local word=$1 image
	shift
	image=$(jq -r '.volumes[2].image' "$state/state.json")
	begin
	"$@" "$image" || bail "$row: $*"
	says "status says so: $word" within $patience trouble "$word"
	says "nobody is reset or releases for 10 s" throughout 10 eval '[ -z "$(new_resets)$(released)" ]'
	nothing_happens
	end
}
mended()
{
	local url
	url=$(ctl n1 status -o json | jq -r '.status.volumes[2].url')
	says "disarm" ctl n1 disarm
	says "all are disarmed" within $patience disarmed
	says "it is replaced by itself" within $patience ctl n1 volume replace "$url"
	says "all volumes are usable on all nodes" within $patience all_usable
	says "arm" within 20 ctl n1 arm
	all_back
	says "no guest has noticed that" eval 'for v in $vms; do same_life $v "${life_before[$v]}" || exit 1; done'
}
wipe() { dd if=/dev/zero of="$1" bs=4096 count=2 conv=notrunc status=none; }
row_wiped() { damaged foreign wipe; mended; }
other_image() { dd if="$(jq -r '.volumes[0].image' "$state/state.json")" of="$1" bs=4096 count=2000 conv=notrunc status=none; }
row_replaced()
{
	damaged foreign other_image
	# It might be the other volume itself, by this address: only an operator can know.
	says "disarm" ctl n1 disarm
	says "all are disarmed" within $patience disarmed
	says "it is not written over unasked" exits 1 ctl n1 volume replace "$(ctl n1 status -o json | jq -r '.status.volumes[2].url')"
	wipe "$(jq -r '.volumes[2].image' "$state/state.json")"
	mended
}
roll_back() { dd if="$test_name.img" of="$1" bs=4096 count=2000 conv=notrunc status=none; }
# What n3 has written last is not on it: n3 has to be off, else it would just write again.
row_rolled_back()
{
	local v
	for v in a b; do within 30 ctl_any vm migrate $v n2 --wait || bail "$row: $v does not leave n3"; home[$v]=n2; done
	cp "$(jq -r '.volumes[2].image' "$state/state.json")" "$test_name.img" || bail "cp"
	says "n3 has written both its heartbeats anew" within $patience eval \
		'i=$(jq -r ".volumes[2].image" "$state/state.json"); ! cmp -s -n 4096 -i 24576 "$i" "$test_name.img" && ! cmp -s -n 4096 -i 28672 "$i" "$test_name.img"'
	power_off n3
	nodes="n1 n2"
	says "n3 is over" within $patience node_is n3 .state offline
	damaged stale roll_back
	rm -f "$test_name.img"
	nodes="n1 n2 n3"
	power_on n3
	all_back
	mended
}
row_wiped_only()
{
	local image n
	image=$(jq -r '.volumes[0].image' "$state/state.json")
	begin $vms
	wipe "$image"
	says "every node releases" within $patience eval '[ "$(released)" = "$nodes" ]'
	says "no VM is left running" within $patience eval 'for n in $nodes; do [ "$(lab exec $n -- systemctl list-units --no-legend --state=active "kvmha-vm-*.service" | wc -l)" = 0 ] || exit 1; done'
	says "no host is reset for 15 s" throughout 15 eval '[ -z "$(new_resets)" ]'
	says "the volume stays as it is: nobody writes over it" cmp -n 8192 "$image" /dev/zero
	says "status tells why" eval 'ctl n1 status | grep -Eqi "volume.*foreign|not a volume|wiped|blank"'
	end
	lab_now= # there is no cluster left
}

# Rows: operators and devices

confirm() { echo "$1" | ctl n1 node confirm-fenced "$2"; }
row_operator_live()
{
	begin a b
	says "it is refused" exits 1 confirm n3 n3
	says "n3 stays online" throughout $((bound_ms / 1000 + 1)) stays_online n3
	nothing_happens
	end
}
earlier_than_w()
{
	local ms w
	w=$(timing W) ms=$(ms_between "$since" "$(when "$since" "ha-keeper: VM $(vm_uuid "$1"): .* passes the gate")")
	note "$1: QEMU executed after $ms ms, W is $w ms"
	[ "$ms" -lt "$w" ]
}
row_operator_dead()
{
	begin a b
	lose_power n3
	# Asked again until it is taken: before n3 is being fenced there is nothing to confirm.
	says "it is taken" within $patience confirm n3 n3
	must_move a b
	must_go_on c
	says "the operator's word was the proof" told "$since" "node n3: no need to wait for its watchdog: an operator has confirmed"
	resets_are ""
	end
	power_on n3
	all_back
}
row_power_fence()
{
	local n
	configure_devices && devices_do works && restart_agents || bail "$row: no devices"
	all_back
	begin a b
	lose_power n3
	must_move a b
	must_go_on c
	says "the device's status was the proof" told "$since" "node n3: no need to wait for its watchdog: its power is off"
	[ "$profile" = fast ] || says "a was started before W had passed" earlier_than_w a
	resets_are ""
	end
	says "n3 is switched on again by itself" within $patience back n3
	for n in $nodes; do rm -f "$state/$n/etc/kvm-ha/conf.d/50-power.conf"; done
	restart_agents || bail "$row: the agents do not restart"
	all_back
}

# Rows: VMs, and planned work

row_qemu_killed()
{
	begin a
	kill_qemu_of n3 a
	must_be_back a
	says "on its node" runs_on a n3
	must_go_on b c
	resets_are ""
	releases_are ""
	end
}
row_guest_off()
{
	local file
	file=$(lab guest off n3 --print | sed 's|-nodefaults|-nodefaults -qmp unix:/run/off.qmp,server=on,wait=off|') || bail "no VM file"
	lab exec n1 -- ha-ctl vm add - <<<"$file" >/dev/null || bail "$row: vm add"
	within $patience runs_on off n3 && stamps_on off || bail "$row: the guest does not run"
	watch_stamps off
	vms="$vms off" home[off]=n3
	begin off
	lab exec n3 -- timeout 20 perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => "/run/off.qmp") or die; <$s>;
		for my $c ("qmp_capabilities", "system_powerdown") { print $s "{\"execute\":\"$c\"}\n"; $s->flush; while (1) { my $l = <$s> // last; last if $l =~ /"return"/ } }'
	says "it is stopped" within $patience is_down off
	says "and stays so" throughout 5 is_down off
	must_go_on a b c
	resets_are ""
	releases_are ""
	end
	ctl_any vm remove off
	unwatch off
	rm -f "$test_name.off.stamps"
	vms="a b c"
	unset "home[off]"
}
row_migration()
{
	begin a
	says "it is done" ctl_any vm migrate a n2 --wait
	says "a runs on n2" within $patience runs_on a n2
	says "a stamps" stamps_on a
	says "a is in the same life" same_life a "${life_before[a]}"
	must_go_on b c
	resets_are ""
	releases_are ""
	end
}
row_maintenance()
{
	local v
	begin a b
	says "it is taken" ctl_any node maintenance on n3
	for v in a b; do
		says "$v runs on another node" within $patience runs_elsewhere $v n3
		says "$v stamps" stamps_on $v
		says "$v is in the same life" same_life $v "${life_before[$v]}"
	done
	says "n3 is empty" within $patience node_is n3 .vms 0
	must_go_on c
	resets_are ""
	releases_are ""
	same_epochs $nodes
	end
	says "it ends" ctl_any node maintenance off n3
}

# Plays them

lab_for() # lab_for LAB: a new one, with its guests
{
	local disk=nfs v
	lab_now=$1
	unwatch_all
	# shellcheck disable=SC2086
	lab_up ${lab_options[$1]} --profile "$profile"
	vms="a b c"
	[ "$1" != one ] || disk=iscsi
	guest a n3 --disk iscsi
	guest b n3 --disk $disk
	guest c n1
	if [ "$1" = five ]; then
		guest d n5
		vms="a b c d" home[d]=n5
	fi
	for v in $vms; do watch_stamps $v; done
}

chosen() # chosen LAB: its rows that are to be played
{
	local r
	for r in ${lab_rows[$1]}; do
		[ -n "$rows" ] && ! is_in "$r" "${rows//,/ }" || echo "$r"
	done
}

for which in $labs; do
	lab_now=
	for row in $(chosen $which); do
		if [ "$row" = all_hang_600 ] && [ -z "$rows" ] && [ "$profile" != fast ]; then continue; fi # ten minutes are the same for all
		[ "$lab_now" = $which ] && at_home n3 n1 || lab_for $which
		at_home n3 n1 || bail "$row: not all is well before"
		row_before=$failures
		note "$row: ${fault[$row]}"
		"row_$row"
		line=$(jq -c --argjson ok "$([ "$failures" = "$row_before" ] && echo true || echo false)" '. + {ok: $ok}' <<<"$line")
		note "$line"
		[ -z "$json" ] || echo "$line" >>"$json"
		[ "$failures" = "$row_before" ] || lab_now= # the next one begins with a cluster that nothing has happened to
	done
done
unwatch_all
finish
