#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The storage is gone for everybody, hung for 10 s and for 60 s, or refusing connections for 20 s: nobody is reset or releases, every QEMU is the one of before,
# and its guest goes on in the life it had. Gone for one node only: that one releases, as ever.
. "$(dirname -- "$0")/lib.sh"

lab_up --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk iscsi
guest c n3 --disk iscsi
declare -A home=([a]=n1 [b]=n2 [c]=n3) uuid
for v in a b c; do uuid[$v]=$(vm_uuid $v); done

# A line for each: node, VM, process
qemus()
{
	local v pid
	for v in a b c; do
		pid=$(lab exec "${home[$v]}" -- systemctl show -P MainPID "kvmha-vm-${uuid[$v]}.service") && [ "$pid" -gt 0 ] && echo "${home[$v]} $v $pid"
	done
}
epochs() { local n; for n in $nodes; do epoch "$n"; done | xargs; }
all_resets() { local n; for n in $nodes; do resets "$n"; done | xargs; }
tokens() { local v; for v in a b c; do token $v; done | xargs; }
as_before() { [ "$(qemus)" = "$qemus_before" ] && [ "$(all_resets)" = "$resets_before" ]; }

for fault in "hang 10" "stop 20" "hang 60"; do
	read -r how seconds <<<"$fault"
	if [ $how = hang ]; then again=resume; else again=start; fi
	check "all is well before ($how, $seconds s)" within $patience all_online
	for v in a b c; do stamps_on $v || bail "$v does not stamp"; done
	qemus_before=$(qemus) epochs_before=$(epochs) resets_before=$(all_resets) tokens_before=$(tokens) began=$(now_ns)
	check "three QEMUs run ($how, $seconds s)" test "$(echo "$qemus_before" | wc -l)" -eq 3
	lab storage $how
	check "every node holds ($how, $seconds s)" within $patience all_hold
	check "no host is reset and no QEMU ends for $seconds s ($how)" throughout "$seconds" as_before
	lab storage $again
	check "the hold is over on every node ($how, $seconds s)" within $patience none_holds
	check "all nodes are online ($how, $seconds s)" within $patience all_online
	for v in a b c; do
		check "$v stamps on ($how, $seconds s)" stamps_on $v
	done
	check "the same lives ($how, $seconds s)" test "$(tokens)" = "$tokens_before"
	check "the same QEMUs, no reset ($how, $seconds s)" as_before
	check "the same epochs ($how, $seconds s)" test "$(epochs)" = "$epochs_before"
	check "nobody released ($how, $seconds s)" not told "$began" "ha-keeper: releasing this node"
done

# Gone for one: no grants.
old=$(epoch n1) t=$(token a) cut=$(now_ns) view="n2 n3" resets_before=$(resets n1)
lab storage cut n1
moved a n1 "$t"
check "a was started within the bound" in_bound "$cut" a
check "n1 released" within $patience told "$cut" "n1 .*releasing this node"
check "n1 was not reset" test "$(resets n1)" = "$resets_before"
told "$cut" ' n1 (power|ha-keeper): ' | head -n 12 | while read -r ns text; do note "$(ms_between "$cut" "$ns") ms $text"; done
lab storage heal n1
check "n1 is back" within $patience back n1
view=
check "with a new epoch" test "$(epoch n1)" -gt "$old"
finish
