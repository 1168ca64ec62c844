#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One volume, two networks to it: a path that goes, on one node or on all, costs nothing; a node that loses both loses its lease, as with one.
. "$(dirname -- "$0")/lib.sh"

tokens() { echo "$(token a) $(token b) $(token c)"; }
epochs() { echo "$(epoch n1) $(epoch n2) $(epoch n3)"; }
paths() { ctl "$1" volume list -o json | jq -r '[.volumes[0].paths[].state] | join(" ")'; }
paths_are() { [ "$(paths "$1")" = "$2" ]; }
volume() { ctl "$1" status -o json | jq -r ".status.volumes[0] | $2"; }
degraded() { [[ "$(volume "$1" '.trouble + " " + .reason')" =~ ^degraded.path.$2 ]]; }
well() { [ "$(volume "$1" .trouble)" = none ]; }
# in_use NODE PATH NS: its keeper uses the path again
in_use() { told "$3" "^[0-9]+ $1 ha-keeper: .*path 10\.77\.$(($2 + 1))\.1.*: in use"; }

play() # play KIND: of the one volume
{
	local n path tokens epochs healed old before cut states
	lab_up --volumes $1 --paths 2
	# Disks of guests are reached by the first network only, so theirs are files.
	guest a n1 --disk file
	guest b n2 --disk file
	guest c n3 --disk file
	for n in $nodes; do check "$n: both paths are good" within $patience paths_are $n "good good"; done
	tokens=$(tokens) epochs=$(epochs)
	for path in 1 2; do
		states=("" "bad good" "good bad")
		for n in $nodes; do
			lab storage cut $n --path $path
			check "$n lost path $path: all stay online" throughout 2 stays_online $nodes
		done
		check "their agents and the ring go on" within $patience all_online
		check "it shows" within $patience paths_are n1 "${states[$path]}"
		check "status tells it, as long as it lasts" within $patience degraded n1 "10\.77\.$((path + 1))\.1"
		check "the volume is good" within $patience ctl n1 volume list
		check "same epochs, same guests" test "$(epochs) $(tokens)" = "$epochs $tokens"
		healed=$(now_ns)
		for n in $nodes; do lab storage heal $n --path $path; done
		for n in $nodes; do check "$n uses path $path again" within $patience in_use $n $path "$healed"; done
		check "and not any more" within $patience well n1
	done
	check "same epochs, same guests" test "$(epochs) $(tokens)" = "$epochs $tokens"

	# Both: no other volume is left, and nobody grants a hold, as they have theirs.
	old=$(epoch n3) before=$(token c) view="n1 n2" cut=$(now_ns)
	lab storage cut n3 --path 1
	lab storage cut n3 --path 2
	moved c n3 "$before"
	check "c was started within the bound" in_bound "$cut" c
	lab storage heal n3 --path 1
	lab storage heal n3 --path 2
	check "n3 is back" within $patience back n3
	check "with a new epoch" test "$(epoch n3)" -gt "$old"
	check "its host was not reset" test "$(resets n3)" = 0
	view=
	check "both its paths are good" within $patience paths_are n3 "good good"
}

play "${KVM_HA_PATHS_OF:-iscsi}" # or nfs
finish
