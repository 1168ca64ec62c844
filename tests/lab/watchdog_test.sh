#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# How long a watchdog takes is measured by letting it reset its host; what is in use, or carries VMs, is not tested.
. "$(dirname -- "$0")/lib.sh"

reset_above() { [ "$(resets "$1")" -gt "$2" ]; }
# Its files survive a power cut, as those under /var do on a host.
record=/etc/kvm-ha/watchdog-test
try() { echo "$1" | ctl n3 watchdog test -o $record; }
measured() { ctl n3 watchdog query -o $record -o json | jq -r ".last_test.$1 // \"none\""; }
tells() { [[ "$(measured delay_ms)" =~ ^[0-9]+$ ]]; }
disarmed() { local n; for n in $nodes; do node_is "$n" '(.state == "online" and (.armed | not)) | tostring' true || return 1; done; }

lab_up
guest a n3
check "not while the cluster is armed" exits 1 try n3
ctl n1 disarm >/dev/null || bail "disarm"
check "the cluster is disarmed" within $patience disarmed
check "not while a VM runs there" exits 1 try n3
ctl n1 vm stop a >/dev/null || bail "vm stop"
check "a is stopped" within $patience is_down a
check "not by another name than its own" exits 1 try n2
check "nothing was reset by all that" test "$(resets n3)" -eq 0
check "and there is nothing to tell" test "$(measured delay_ms)" = none
(try n3 >/dev/null 2>&1 &)
check "the watchdog resets n3" within $patience reset_above n3 0
check "back again, n3 tells how long it took" within $patience tells
note "after $(measured last_record_ms) ms, gap $(measured gap_ms) ms, timeout $(measured timeout_ms) ms: delay $(measured delay_ms) ms"
check "its timeout was the profile's" test "$(measured timeout_ms)" -eq "$(timing Watchdog)"
check "it did not come before that" test "$(($(measured last_record_ms) + $(measured gap_ms)))" -ge "$(timing Watchdog)"
ctl n1 arm >/dev/null || bail "arm"
check "the cluster is armed again" within $patience all_online
finish
