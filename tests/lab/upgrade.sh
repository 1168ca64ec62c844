#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An upgrade of kvm-ha itself, node by node, as ha-keeper(8) says: other files in place of all programs, units read anew, keeper and agent restarted.
# No guest notices, no node begins another epoch.
. "$(dirname -- "$0")/lib.sh"

exe_of() { lab exec "$1" -- stat -L -c %s "/proc/$(main_pid "$1" "$2")/exe"; }
epochs() { local n; for n in $nodes; do epoch "$n"; done | xargs; }

lab_up --volumes iscsi,nfs,iscsi
guest a n1 --disk iscsi
guest b n2 --disk nfs
guest c n3 --disk iscsi
old=$(epochs) began=$(now_ns)
resets_before=$(for n in $nodes; do resets "$n"; done | xargs)
for v in a b c; do watch_stamps $v; done
for n in $nodes; do
	declare -A size=()
	# Not the same bytes: the installed ones without their symbols
	for f in $(lab exec "$n" -- sh -c 'ls /usr/sbin/ha-* /usr/libexec/kvm-ha/ha-* 2>/dev/null'); do
		lab exec "$n" -- cat "$f" >"$test_name.new" && strip -s "$test_name.new" || bail "$f"
		lab exec "$n" -- sh -c "cat >$f.new && chmod 755 $f.new && mv $f.new $f" <"$test_name.new" || bail "$f"
		size[${f##*/}]=$(stat -c %s "$test_name.new")
	done
	rm -f "$test_name.new"
	check "$n: programs were replaced" test ${#size[@]} -ge 5
	p=$(main_pid "$n" ha-keeper)
	check "$n: ha-keeper is put in force anew" lab exec "$n" -- sh -c 'systemctl daemon-reload && systemctl kill --kill-whom=main ha-keeper'
	check "$n: its keeper is another process" within $patience other_pid "$n" ha-keeper "$p"
	check "$n: ha-agent is restarted" lab exec "$n" -- systemctl restart ha-agent
	check "$n: as good as before" within $patience back "$n"
	for s in ha-keeper ha-agent; do check "$n: it is the new $s" test "$(exe_of "$n" $s)" = "${size[$s]}"; done
done
check "all are online" within $patience all_online
check "the same epochs" test "$(epochs)" = "$old"
check "no host was reset" test "$(for n in $nodes; do resets "$n"; done | xargs)" = "$resets_before"
check "nobody released" not told "$began" "ha-keeper: releasing this node"
for v in a b c; do check "$v noticed nothing" noticed_nothing $v; done
a=$(token a)
check "a is migrated by the new programs" ctl n3 vm migrate a n2 --wait
check "a stamps" stamps_on a
check "in the same life" same_life a "$a"
c=$(token c)
lab exec n3 -- kill -KILL "$(main_pid n3 "kvmha-vm-$(vm_uuid c).service")"
again c "$c"
finish
