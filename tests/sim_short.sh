#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A few seeds of the simulator: clusters under chaos, the invariants of the design after every step, liveness after healing; that the same
# seed is the same history; and seeds that have failed once (tests/sim/seeds.list).
sim=${KVM_HA_BUILD_DIR:-.}/tests/ha-sim
count=0 failures=0

run() # run TEXT OPTIONS...
{
	local text=$1 out status
	shift
	out=$("$sim" "$@" 2>&1)
	status=$?
	count=$((count + 1))
	history=$(printf '%s\n' "$out" | sed -n 's/^history \([0-9a-f]*\),.*/\1/p')
	if [ $status -eq 0 ] && printf '%s\n' "$out" | grep -q 'violations 0$'; then
		echo "ok $count - $text"
	else
		echo "not ok $count - $text"
		failures=$((failures + 1))
		printf '%s\n' "$out" | tail -n 120 | sed 's/^/# /'
	fi
	printf '%s\n' "$out" | grep -E 'cluster-hours|failovers' | sed 's/^/# /'
}

run "nodes and volumes as each seed draws them" --seeds 1..24 --hours 0.2
first=$history
run "the same seeds again" --seeds 1..24 --hours 0.2
count=$((count + 1))
if [ -n "$first" ] && [ "$first" = "$history" ]; then
	echo "ok $count - the same history, to the byte: $first"
else
	echo "not ok $count - the same history, to the byte: $first, then $history"
	failures=$((failures + 1))
fi
run "five nodes" --seeds 101..108 --hours 0.2 --nodes 5
run "eight nodes" --seeds 201..204 --hours 0.2 --nodes 8
run "operators replace volumes" --seeds 601..660 --hours 0.2 --volumes 3 --only volset
run "one volume" --seeds 301..310 --hours 0.2 --volumes 1
run "two volumes" --seeds 401..410 --hours 0.2 --volumes 2
run "three volumes" --seeds 501..510 --hours 0.2 --volumes 3
seeds=$(dirname -- "$0")/sim/seeds.list
[ -s "$seeds" ] || { echo "Bail out! $seeds"; exit 1; }
while read -r seed nodes volumes without what; do
	case $seed$without in
	'#'*) continue ;;
	*usual) without=(--without misdirected,wipe,foreign-volume,roll-back,clone,volset) ;;
	*none) without=() ;;
	*) without=(--no-such-option) ;;
	esac
	[ "$volumes" = - ] || without+=(--volumes "$volumes")
	run "seed $seed: $what" --seeds "$seed" --hours 2.5 --nodes "$nodes" "${without[@]}"
done <"$seeds"
# Lone power cuts with the lab's latencies: the VM runs again as soon as safety allows.
out=$("$sim" --failover 100 --json 2>&1)
status=$?
count=$((count + 1))
if [ $status -eq 0 ] && [ "$(printf '%s\n' "$out" | grep -c '"cuts": 100, .*"violations": 0,')" = 3 ]; then
	echo "ok $count - power cuts in a cluster that is well, each profile"
else
	echo "not ok $count - power cuts in a cluster that is well, each profile"
	failures=$((failures + 1))
	printf '%s\n' "$out" | tail -n 60 | sed 's/^/# /'
fi
printf '%s\n' "$out" | sed -n 's/.*"profile": "\([a-z]*\)".*"exec": {[^}]*"median": \([0-9.]*\).*"max": \([0-9.]*\)}, "writes".*/# \1: median \2 s, worst \3 s/p'
echo "1..$count"
[ $failures -eq 0 ]
