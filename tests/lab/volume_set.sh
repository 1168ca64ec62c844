#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The volume set changes under a running cluster: refused while it is armed; a wiped volume is taken in again, cut off in the middle and run again;
# guests notice nothing, and a power cut afterwards ends as it must.
. "$(dirname -- "$0")/lib.sh"

# What `ha-ctl COMMAND` says on a node
says() { local regex=$1; shift; "$@" 2>&1 </dev/null | grep -qE -- "$regex"; }
volumes_good() { local n; for n in $nodes; do ctl "$n" volume list || return 1; done; }
generation() { ctl n1 volume list -o json | jq '[.volumes[].generation] | max'; }

lab_up
guest a n1
a=$(token a)
url=$(ctl n1 volume list -o json | jq -r '.volumes[1].url')
first=$(generation)
check "an armed cluster's set is not changed" says 'is armed' ctl n2 volume replace "$url"
check "and is what it was" [ "$(generation)" = "$first" ]

check "disarm" ctl n1 disarm
check "all are disarmed" within $patience disarmed
since=$(now_ns)
check "a volume is replaced by itself" within $patience ctl n2 volume replace "$url"
check "the set is of the next generation" [ "$(generation)" = $((first + 1)) ]
check "every keeper starts again with it" within $patience told "$since" 'ha-keeper: the volume set has changed'
check "all volumes are usable on all nodes" within $patience all_usable
check "they are listed as good" within $patience volumes_good

# Killed in the middle, by whomever: the same command goes on
lab exec n3 -- timeout -s KILL 1 ha-ctl volume replace "$url" >/dev/null 2>&1
note "after the kill: $(ctl n1 volume list 2>&1 | tr -s ' ' | cut -d' ' -f2- | tr '\n' ';')"
check "cut off, the same command finishes, on another node" within $patience ctl n1 volume replace "$url"
check "all volumes are usable on all nodes" within $patience all_usable
check "a has noticed nothing" same_life a "$a"
check "a stamps on" stamps_on a

check "arm, as soon as one of the agents that have just started again leads" within $patience ctl n1 arm
check "all nodes are armed" within $patience all_online
power_off n1
moved a n1 "$a"
lab power n1 on || bail "n1 does not boot"
check "n1 is back" within $patience back n1
finish
