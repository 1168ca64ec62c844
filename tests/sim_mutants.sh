#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One rule of the protocol broken at a time (agent/base/mutant.h): an invariant that is named for it must fail within so many seeds of the simulator, and
# none may on the same seeds with the rule in force.
mutants=${KVM_HA_BUILD_DIR:-.}/tests/ha-sim-mutants
count=0 failures=0

while read -r verdict name rest; do
	count=$((count + 1))
	if [ "$verdict" = caught ]; then
		echo "ok $count - $name ${rest%%;*}"
	else
		echo "not ok $count - $verdict $name $rest"
		failures=$((failures + 1))
	fi
done < <("$mutants" --all --seeds 1..1500 --jobs 2)
listed=$("$mutants" --list | wc -l)
count=$((count + 1))
if [ "$listed" -ge 30 ] && [ "$listed" -eq $((count - 1)) ]; then
	echo "ok $count - each of the $listed in the table was played"
else
	echo "not ok $count - of $listed in the table $((count - 1)) were played"
	failures=$((failures + 1))
fi
echo "1..$count"
[ $failures -eq 0 ]
