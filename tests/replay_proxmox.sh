#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Plays scenarios for an HA manager in the simulator and compares how they end: our own ones always (tests/data/scenarios), those of Proxmox VE where they are
# at hand (KVM_HA_SCENARIOS, or ../shared/proxmox-scenarios beside the source tree); every difference needs its reason in tests/sim/replay-differences.md.
here=$(cd "$(dirname "$0")" && pwd) || exit 99
replay=${KVM_HA_BUILD_DIR:-.}/tests/replay-proxmox
reasons=$here/sim/replay-differences.md
own=$here/data/scenarios
theirs=${KVM_HA_SCENARIOS:-$here/../../shared/proxmox-scenarios}
tmp=$(mktemp -d) || exit 99
trap 'rm -rf "$tmp"' EXIT
count=0 failures=0

ok() # ok TEXT STATUS [OUTPUT]
{
	count=$((count + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		failures=$((failures + 1))
		[ -z "${3:-}" ] || printf '%s\n' "$3" | tail -n 60 | sed 's/^/# /'
	fi
}

# Each scenario of a folder alone: one that breaks an invariant does not hide the others.
compare() # compare SEEDS DIR...
{
	local seeds=$1 dir out
	shift
	for dir; do
		dir=${dir%/}
		out=$("$replay" --compare --seeds "$seeds" --reasons "$reasons" "$dir" 2>&1)
		ok "${dir##*/}$(printf '%s\n' "$out" | sed -n "s/^${dir##*/}:/:/p")" $? "$out"
	done
}

refused() # refused TEXT PATTERN DIR...
{
	local text=$1 pattern=$2 out status
	shift 2
	out=$("$replay" --compare --reasons "$reasons" "$@" 2>&1)
	status=$?
	[ $status -eq 1 ] && printf '%s\n' "$out" | grep -Eq -- "$pattern"
	ok "$text" $? "exit status $status, wanted 1 and \"$pattern\"
$out"
}

copy() # copy NAME: a scenario of our own that is to be broken
{
	cp -R "$own/power-cut" "$tmp/$1" && chmod -R u+w "$tmp/$1"
}

compare 5 "$own"/*/

out=$("$replay" --seed 7 "$own/power-cut" 2>&1)
[ "$out" = "$("$replay" --seed 7 "$own/power-cut" 2>&1)" ] && [ -n "$out" ]
ok "the same seed: the same outcome" $? "$out"
if command -v python3 >/dev/null; then
	printf '%s\n' "$out" | python3 -c '
import json, sys
o = json.loads(sys.stdin.read())
assert sorted(o) == ["fenced", "final", "ran_twice", "scenario", "unsupported"], sorted(o)
assert o["scenario"] == "power-cut" and o["fenced"] == ["a2", "a3"] and o["ran_twice"] == [] and o["unsupported"] == [], o
assert o["final"]["vm:3"] == {"node": "a3", "state": "ignored"} and o["final"]["vm:2"] == {"node": "a1", "state": "started"}, o'
	ok "the outcome is one JSON object of the promised form" $? "$out"
fi

copy no-cmdlist && rm "$tmp/no-cmdlist/cmdlist"
refused "a missing file is named" 'no-cmdlist/cmdlist: No such file' "$tmp/no-cmdlist"
copy no-log && rm "$tmp/no-log/log.expect"
refused "a missing log is named when it is needed" 'no-log/log.expect: No such file' "$tmp/no-log"
copy bad-json && printf '[\n [ "power a1 on" ],\n [ "power a2 on", ]]\n[\n' >"$tmp/bad-json/cmdlist"
refused "bad JSON: file and line" 'bad-json/cmdlist, line 3: ' "$tmp/bad-json"
copy bad-word && sed -i 's/power a3 off/power a3 down/' "$tmp/bad-word/cmdlist"
refused "an unknown command: file, place and command" 'bad-word/cmdlist: group 3, command 1: "power a3 down" is not understood' "$tmp/bad-word"
copy bad-node && sed -i 's/network a2 off/network a9 off/' "$tmp/bad-node/cmdlist"
refused "a command about no node of the scenario" '"network a9 off" is not understood' "$tmp/bad-node"
copy bad-setting && sed -i 's/"node": "a1"/"grupo": "x", "node": "a1"/' "$tmp/bad-setting/service_config"
refused "a setting of a service that we do not know" 'service_config: vm:1: "grupo": "x" is not understood' "$tmp/bad-setting"
copy other-end && sed -i "/vm:2': state changed from 'recovery'/s/node = a1/node = a2/; s/a1\/lrm: service status vm:2/a2\/lrm: service status vm:2/" "$tmp/other-end/log.expect"
refused "another outcome than the log's has no reason" 'vm:2: theirs .*, ours started on a1 \(NO REASON' "$tmp/other-end"
copy test-documented
sed 's/^| test-shutdown1 .*/| test-documented | vm:2 | started on a9 | started on a1 | invented |/' "$reasons" >"$tmp/reasons.md"
reasons=$tmp/reasons.md refused "a reason for a difference that is not there" 'documented, but NOT SEEN: vm:2' "$tmp/test-documented"
refused "one broken scenario does not hide the others" '^2 scenarios: 1 agree, .* 1 could not be read' "$own/power-cut" "$tmp/bad-json"

if [ -d "$theirs" ]; then
	compare 3 "$theirs"/test-*/
	out=$("$replay" --compare --reasons "$reasons" "$theirs"/test-*/ 2>&1 | tail -n 1)
	echo "# $out"
else
	echo "# left out: Proxmox VE's scenarios, $theirs is not there"
fi
echo "1..$count"
[ $failures -eq 0 ]
