#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Which node gets a VM: groups that keep apart or together, processors, memory, and what becomes of them when a node goes and comes back. Every node gives the same reasons.
. "$(dirname -- "$0")/lib.sh"

cpus=$(nproc)
memory_mb=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
large=$((memory_mb * 16 / 1000)) # of what a node may be given, 3%, more than half
# put NAME MEMORY-MB HA-LINES: without a disk
put()
{
	printf '[VM]\nName=%s\nMemory=%dM\nVCPUs=%d\n[QEMU]\nBinary=/usr/bin/qemu-system-x86_64\nArguments=-machine pc,accel=tcg -nodefaults -display none\n[HA]\n%b\n' "$1" "$2" "${4:-1}" "$3" |
		lab exec n1 -- ha-ctl vm add - >/dev/null || bail "$1 is not added"
}
run_all() { local v; for v; do runs "$v" || return 1; done; }
homes() { local v; for v; do vm_node "$v"; done | sort -u | wc -l; } # of how many nodes they are
reasons() { ctl "$1" vm show "$2" --why; }
all_say() { local n; for n in ${view:-$nodes}; do reasons "$n" "$1" | grep -Eq -- "$2" || return 1; done; } # all_say VM TEXT
# A node's own name stands in no reason.
one_answer()
{
	local n first=
	for n in $nodes; do
		[ -n "$first" ] || first=$(reasons "$n" "$1")
		[ -n "$first" ] && [ "$(reasons "$n" "$1")" = "$first" ] || return 1
	done
}

lab_up --volumes iscsi,nfs,iscsi
for n in $nodes; do
	mkdir -p "$state/$n/etc/kvm-ha/conf.d" && printf '[Placement]\nMemoryOvercommit=3%%\n' >"$state/$n/etc/kvm-ha/conf.d/50-place.conf"
done
restart_agents || bail "the agents do not restart"
within $patience all_online || bail "the nodes are not online again"

for i in 1 2 3; do put x$i 8 'KeepApart=x'; done
check "three that keep apart run" within $patience run_all x1 x2 x3
check "on three nodes" test "$(homes x1 x2 x3)" = 3
for i in 1 2; do put t$i 8 'KeepTogether=t'; done
check "two that keep together run" within $patience run_all t1 t2
check "on one node" test "$(homes t1 t2)" = 1
for i in 1 2 3; do put g$i 8 'KeepApart=g\nGroupsRequired=yes'; done
check "three that must keep apart run" within $patience run_all g1 g2 g3
check "on three nodes" test "$(homes g1 g2 g3)" = 3

put wide 8 '' $((cpus + 1))
check "one with more processors than a node has gets no place" within $patience all_say wide "processors"
check "it does not run" throughout 5 not runs wide

for i in 1 2 3; do put m$i $large 'StopTimeout=1s'; done
check "three of which a node can take only one run" within $patience run_all m1 m2 m3
check "on three nodes" test "$(homes m1 m2 m3)" = 3
put m4 $large ''
check "a fourth has no place: memory" within $patience all_say m4 "memory"
check "it does not run" throughout 5 not runs m4
for v in x1 t1 g1 m1 m4 wide; do check "all nodes give the same reasons for $v" within $patience one_answer $v; done
free=$(vm_node m1)
check "m1 is stopped" ctl n1 vm stop m1 # its BIOS does not hear of it
check "m4 runs in its place" within $patience runs_on m4 "$free"

# A node goes: what can go elsewhere does, what must not or cannot waits for it.
stays=() waits=() moves=()
for v in x1 x2 x3 g1 g2 g3 m2 m3 m4 t1 t2; do
	[ "$(vm_node $v)" = n3 ] || { stays+=($v); continue; }
	case $v in g* | m*) waits+=($v) ;; *) moves+=($v) ;; esac
done
note "on n3: ${waits[*]} ${moves[*]}"
power_off n3
view="n1 n2"
for v in "${moves[@]}"; do check "$v runs on another node" within $patience runs_elsewhere "$v" n3; done
check "those that keep together are together" test "$(homes t1 t2)" = 1
check "of those that wait one must keep apart and one has no memory" test "${#waits[@]}" = 2
for v in "${waits[@]}"; do
	case $v in
	g*) check "$v waits: it must keep apart" within $patience all_say "$v" "KeepApart=" ;;
	m*) check "$v waits: memory" within $patience all_say "$v" "memory" ;;
	esac
	check "$v runs nowhere" not runs "$v"
done
for v in "${stays[@]}"; do check "$v was left alone" runs "$v"; done
view=
lab power n3 on || bail "n3 does not boot"
check "n3 is back" within $patience back n3
for v in "${waits[@]}"; do check "$v runs there again" within $patience runs_on "$v" n3; done
finish
