#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Cluster-hours under chaos, 3, 5 and 8 nodes, every profile: no invariant may be violated. KVM_HA_SIM_HOURS says how many in all
# (default 10000); KVM_HA_SIM_FIRST, which seed is the first; KVM_HA_SIM_WITHOUT, which faults may not occur. All processors are used.
sim=${KVM_HA_BUILD_DIR:-.}/tests/ha-sim
hours=${KVM_HA_SIM_HOURS:-10000}
first=${KVM_HA_SIM_FIRST:-1}
# Not yet shown to be clean over so many hours (KVM_HA_SIM_WITHOUT= plays them, too): volumes that lose what they have acknowledged, twins of a host, and operators
# who change the volume set in between. sim_short.sh and sim_mutants.sh have them.
without=${KVM_HA_SIM_WITHOUT-misdirected,wipe,foreign-volume,roll-back,clone,volset}
count=0 failures=0
out=$(mktemp -d) || { echo "Bail out! mktemp"; exit 1; }
trap 'rm -rf "$out"' EXIT

hours_a_seed=2.5 seeds_a_job=20

# play NODES PERCENT: so much of all hours with so many nodes
play()
{
	local nodes=$1 seeds jobs
	seeds=$(awk -v h="$hours" -v p="$2" -v s=$hours_a_seed 'BEGIN { n = h * p / 100 / s; print int(n) + (n > int(n)) }')
	jobs=$(((seeds + seeds_a_job - 1) / seeds_a_job))
	seq 0 $((jobs - 1)) | xargs -P "$(nproc)" -I{} sh -c '
		from=$(($1 + $3 * {})) to=$(($1 + $3 * {} + $3 - 1))
		[ $to -lt $(($1 + $2)) ] || to=$(($1 + $2 - 1))
		exec nice "$4" --seeds $from..$to --hours "$5" --nodes "$6" ${8:+--without "$8"} --json --keep-going >"$7/$6.{}.json" 2>"$7/$6.{}.err"
	' sh "$((first + nodes * 1000000))" "$seeds" $seeds_a_job "$sim" $hours_a_seed "$nodes" "$out" "$without"
	count=$((count + 1))
	if [ "$(cat "$out/$nodes".*.json | jq -s "length == $jobs and ([.[].seeds] | add) >= $seeds and ([.[].violations] | add) == 0")" = true ]; then
		echo "ok $count - $nodes nodes: no violation"
	else
		echo "not ok $count - $nodes nodes: no violation"
		failures=$((failures + 1))
		cat "$out/$nodes".*.err | head -n 60 | sed 's/^/# /'
	fi
	tell "$nodes nodes" "$out/$nodes".*.json
}

# tell TEXT FILE...
tell()
{
	local text=$1
	shift
	cat "$@" | jq -rs --arg t "$text" 'def sum(f): map(f) | add;
		"# \($t): \(sum(.cluster_hours) | floor) cluster-hours, \(sum(.seeds)) seeds, \(sum(.events)) events, \(sum(.faults | add)) faults, " +
		"\(sum(.failovers.count)) failovers, \(sum(.resets)) resets, \(sum(.releases)) releases, \(sum(.false_fences)) false fences, " +
		"\(sum(.violations)) violations, \(sum(.cluster_hours) * 60 / sum(.cpu_s) | floor) cluster-hours per CPU-minute" +
		(if sum(.violations) > 0 then "\n# failing seeds: " + (map(.failing_seeds) | add | map(tostring) | join(" ")) else "" end)'
}

play 3 60
play 5 30
play 8 10
tell "in all" "$out"/*.json
cat "$out"/*.json | jq -rs '[.[].faults | to_entries[]] | group_by(.key) | map("# \(.[0].key) \(map(.value) | add)") | .[]'
count=$((count + 1))
# Every kind of fault has occurred: a kind that is never drawn proves nothing.
if [ "$(cat "$out"/*.json | jq -s --arg w "$without" '($w | split(",")) as $w | [.[].faults | to_entries[] | select(.key | IN($w[]) | not)] |
	group_by(.key) | map(map(.value) | add) | length > 20 and all(. > 0)')" = true ]; then
	echo "ok $count - every kind of fault occurred"
else
	echo "not ok $count - every kind of fault occurred"
	failures=$((failures + 1))
fi
echo "1..$count"
[ $failures -eq 0 ]
