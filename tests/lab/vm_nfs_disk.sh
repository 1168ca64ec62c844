#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest's disk is a file on NFS, mounted by the node's kernel: that goes on writing for a QEMU that is dead and gone. Where the server answers this is proven to be over and
# no host is reset; where it does not the watchdog acts, and nothing of the old guest lands once the server is reached again.
. "$(dirname -- "$0")/lib.sh"

lab_up --vm --nodes 2 --profile safe --volumes iscsi,nfs,iscsi
guest b n2 --disk mount

reset_above() { [ "$(resets "$1")" -gt "$2" ]; }
had=$(resets n2)

# The server answers.
before=$(token b) fell=$(now_ns)
kill_qemu_of n2 b
check "its QEMU dies: it stamps in a new life" within $patience other_life b "$before"
check "on the same node" runs_on b n2
check "that was proven at once" test "$(ms_between "$fell" "$(when "$fell" "ha-keeper: VM $(vm_uuid b): .* passes the gate")")" -lt 20000

before=$(token b) old=$(epoch n2) view=n1
lab net n2 down
moved b n2 "$before"
lab net heal
view=
check "n2 is back" within $patience back n2
check "all are online" within $patience all_online
check "nothing was reset" test "$(resets n1) $(resets n2)" = "0 $had"
check "n2 has a new epoch: all was proven gone on it" test "$(epoch n2)" -gt "$old"

# It does not. The last write of the old guest waits in the kernel until it does.
node=$(vm_node b) had=$(resets "$node") before=$(token b) fell=$(now_ns) view=n1
[ "$node" != n1 ] || view=n2
lab storage cut "$node"
moved b "$node" "$before"
check "b was started within the bound" in_bound "$fell" b
lab storage heal "$node"
view=
check "the watchdog has reset $node" within 60 reset_above "$node" "$had"
check "it was reset before b was started" test "$(when "$fell" "$node power: reset")" -lt "$(when "$fell" "ha-keeper: VM $(vm_uuid b): .* passes the gate")"
check "$node is back" within $patience back "$node"
check "b stamps on" stamps_on b
check "it was reset just once" test "$(resets "$node")" -eq $((had + 1))
finish
