#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One volume, of each kind: a power cut ends as it does with three.
. "$(dirname -- "$0")/lib.sh"

for kind in iscsi nfs file; do
	lab_up --volumes $kind
	guest a n3 --disk $kind
	a=$(token a)
	power_off n3
	check "$kind: a runs on another node" within $patience runs_elsewhere a n3
	check "$kind: it stamps in a new life" within $patience other_life a "$a"
	check "$kind: a was started within the bound" in_bound "$cut_ns" a
	lab power n3 on || bail "n3 does not boot"
	check "$kind: n3 is back" within $patience back n3
	[ $kind = file ] || check "$kind: a never ran twice" lab check
done
finish
