#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What else may happen to a VM: one that is frozen, one whose handover cannot be written as one of two volumes is away, one that its target has no memory for,
# one that something else had started and that is migrated then.
. "$(dirname -- "$0")/lib.sh"

says() { local re=$1; shift; "$@" 2>&1 | grep -Eq -- "$re"; }
field() { [ "$(vm "$1" "$2")" = "$3" ]; }
no_request() { field "$1" .move_to null; }
on_its_way() { field "$1" '.migration.to // "none"' "$2" && [ "$(vm "$1" '.migration.remaining // 0')" -gt 0 ]; }
kill_qemu() { lab exec "$1" -- systemctl kill -s KILL --kill-whom=main "kvmha-vm-$2.service"; }

lab_up --volumes iscsi,nfs --profile standard
guest a n1 --disk iscsi

# Frozen: neither stopped, moved nor restarted, until it is unfrozen
a=$(token a) uuid=$(vm_uuid a)
check "a is frozen" ctl n2 vm freeze a
check "status says so" within $patience says 'VM a is running and frozen|a .*frozen' ctl n3 vm list
check "frozen twice: refused" says 'is frozen already' ctl n2 vm freeze a
check "its relocation is refused" says 'frozen' ctl n1 vm relocate a n2
check "its stop is taken" ctl n1 vm stop a
check "and waits: it runs on" throughout 3 same_life a "$a"
check "it stamps" stamps_on a
check "its start is taken" ctl n1 vm start a
kill_qemu n1 "$uuid" || bail "QEMU of a is not killed"
check "its QEMU is killed: nobody restarts it" within $patience field a .state stopped
check "nor later" throughout 5 same_life a "$a"
check "it is unfrozen" ctl n3 vm unfreeze a
check "it is started again where it was" within $patience runs_on a n1
check "in a new life" within $patience other_life a "$a"
check "unfrozen twice: refused" says 'is not frozen' ctl n2 vm unfreeze a

# Of two volumes one hangs while it is being sent: claiming needs both. QEMU has sent all of it, the release cannot be written, and the guest goes on.
fill() { lab exec "$1" -- sh -c 'head -c 15M /dev/urandom >/run/lab-memory'; }
for n in $nodes; do fill "$n"; done
lab guest s n1 --print | sed 's,-nodefaults,-nodefaults -device loader\,file=/run/lab-memory\,addr=0x1000000\,force-raw=on,' >"$test_name.vm"
printf '\n[Migration]\nBandwidth=1M\n' >>"$test_name.vm"
check "a slow one is added" eval 'lab exec n1 -- ha-ctl vm add - <"$test_name.vm"'
rm -f "$test_name.vm"
check "s runs" within $patience runs_on s n1
stamps_on s || bail "s does not stamp"
life=$(token s) since=$(now_ns)
check "its migration is asked for" ctl n2 vm migrate s n2
check "it is on its way" within $patience on_its_way s n2
lab storage hang nfs || bail "the storage does not hang"
check "all of it is sent" within 180 told "$since" 'n1 ha-agent: VM s: all of it is sent'
check "its guest goes on on n1" within $patience told "$since" 'n1 ha-agent: VM s: not migrated to node n2'
check "s stamps while the volume is away" stamps_on s
check "in the same life" same_life s "$life"
check "it is not handed over" eval '! told "$since" "n1 ha-agent: VM s: handed over"'
lab storage resume nfs
check "the volume is back: all nodes are well" within 180 all_online
check "the request is obeyed, or over" within 180 no_request s
check "s runs" within $patience runs s
check "s stamps" stamps_on s
check "in the same life" same_life s "$life"
note "s runs on $(vm_node s)"
[ "$(vm_node s)" = n1 ] || within $((2 * patience)) eval 'runs_on s n1 || ctl n3 vm migrate s n1 --wait' || bail "s is not back on n1"

# The target cannot have its QEMU: tried three times, and told why
lab exec n2 -- rm -f /run/lab-memory
since=$(now_ns)
check "its migration to where a file is missing is asked for" ctl n3 vm migrate s n2
check "it is given up" within 180 no_request s
check "n1 tells why" within $patience told "$since" 'n1 ha-agent: VM s: not migrated: node n2 cannot take it: '
check "s runs on n1" within $patience runs_on s n1
check "in the same life" same_life s "$life"
fill n2
# Nor has it memory for it: QEMU gets less address space than it needs to start
dropin=/run/systemd/system/kvmha-vm-.service.d
lab exec n2 -- sh -c "mkdir -p $dropin && printf '[Service]\nLimitAS=96M\n' >$dropin/limit.conf && systemctl daemon-reload" || bail "no limit of memory"
since=$(now_ns)
check "its migration to where no memory is left is asked for" ctl n3 vm migrate s n2
check "it is given up" within 180 no_request s
check "n1 tells why" within $patience told "$since" 'n1 ha-agent: VM s: not migrated: node n2 cannot take it: '
check "s runs on n1" within $patience runs_on s n1
check "s stamps" stamps_on s
check "in the same life" same_life s "$life"
note "$(told "$since" 'n2 ha-launch: ' | head -n 1 | cut -d' ' -f2-)"
lab exec n2 -- sh -c "rm -r $dropin && systemctl daemon-reload"
# It has, and then no more: what the kernel kills for lack of memory while it loads
check "its migration is asked for" ctl n3 vm migrate s n2
check "it is on its way" within $patience on_its_way s n2
kill_qemu n2 "$(vm_uuid s)" || bail "the QEMU that loads s is not killed"
check "the request is obeyed all the same, or over" within 180 no_request s
check "s runs" within $patience runs s
check "s stamps" stamps_on s
check "in the same life" same_life s "$life"
note "s runs on $(vm_node s)"

# A QEMU that something else has started is adopted, and migrated
lab guest d n1 --by-hand --disk iscsi >/dev/null 2>&1 || bail "d does not run by hand"
within $patience stamps_on d || bail "d does not stamp"
life=$(token d)
lab guest d n1 --print 2>/dev/null | sed -e 's/^State=.*/State=stopped/' | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "file of d"
check "d is adopted" lab exec n1 -- timeout 100 ha-ctl adopt d "$(lab exec n1 -- systemctl show -P MainPID lab-guest-d.service)" /run/lab-guest-d.qmp
check "d runs" within $patience runs_on d n1
check "the adopted one is migrated" ctl n3 vm migrate d n3 --wait
check "d runs on n3" within $patience runs_on d n3
check "d stamps" stamps_on d
check "in the same life" same_life d "$life"
check "and back" ctl n3 vm migrate d n1 --wait
check "d runs on n1" within $patience runs_on d n1
check "in the same life" same_life d "$life"
finish
