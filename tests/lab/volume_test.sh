#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ha-ctl volume test against real servers: what it finds out, that it harms nobody, and that it says no where it must.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
lab_up --volumes iscsi,nfs,file --profile safe # what is fit for it on a busy machine, too
read -r iscsi nfs file < <(lab status -o json | jq -r '.volumes | join(" ")')
[ -n "$file" ] || bail "no URLs of the lab's volumes"
images=/var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX
image=$images/iscsi/vol1.img
scratch=$((6 << 20)) scratch_len=$((1 << 20)) lane_len=$((64 << 10))

# vt NODE OUT URL [OPTION]...: its exit code is the command's
vt() { local node=$1 out=$2; shift 2; ctl "$node" volume test "$@" -o json >"$work/$out" 2>"$work/$out.err"; }
tells() { [ "$(jq -r "$2" "$work/$1")" = "$3" ]; } # tells OUT FILTER VALUE
has() { jq -r "$2 | .[]" "$work/$1" | grep -Eq -- "$3"; } # has OUT .problems|.warnings REGEX
is_zero() { cmp -s -n "$scratch_len" -i "$scratch:0" "$1" /dev/zero; } # the scratch area of an image
not_zero() { ! is_zero "$1"; }
# The lane a test has taken in an image: offset of its first block
lane_of()
{
	local byte
	byte=$(cmp -n "$scratch_len" -i "$scratch:0" "$1" /dev/zero | sed -E 's/.*byte ([0-9]+),.*/\1/')
	[ -n "$byte" ] && echo $(((byte - 1) / lane_len * lane_len + scratch))
}
# A test is at its rounds: its block, which says after 16 bytes which write it is of, was written more often than to take the lane
measures()
{
	local lane
	lane=$(lane_of "$1") && [ "$(od -An -tu8 -j $((lane + 16)) -N 8 "$1")" -gt 10 ]
}
lives() { [ "$(for n in $nodes; do epoch "$n"; done | tr '\n' ' ')" = "$epochs" ]; }

guest a n3 --disk nfs
a=$(token a)
epochs=$(for n in $nodes; do epoch "$n"; done | tr '\n' ' ')

# Volumes in use, of each kind
for kind in iscsi nfs file; do
	check "$kind: fit for the configured profile" vt n1 $kind "${!kind}" --seconds 5
	note "$kind: $(jq -c '[.rounds, .write.median_us, .write.p99_us, .write.worst_us, .read.median_us, .read.p99_us, .read.worst_us, .atomicity]' "$work/$kind")"
	check "$kind: api_version, ok" tells $kind '[.api_version, .ok] | join(" ")' "1 true"
	check "$kind: of the lab's cluster, and written to" tells $kind '[.content, .cluster, .written] | join(" ")' "cluster lab true"
	check "$kind: judged for safe" tells $kind .judged_for safe
	check "$kind: three profiles" tells $kind '[.profiles[].name] | join(" ")' "fast standard safe"
	check "$kind: each verdict is what was measured" tells $kind '. as $t | .profiles | all(. as $p | .fit ==
		([$t.write, $t.read] | all(.worst_us * $t.worst_factor <= $p.io_ms * 1000 and .p99_us * $t.p99_factor <= $p.io_ms * 1000)))' true
	check "$kind: a hundred rounds and more, none failed" tells $kind \
		'.rounds > 100 and .write.count >= .rounds and .write.errors + .write.timeouts + .read.errors + .read.timeouts == 0' true
	check "$kind: percentiles are in order" tells $kind \
		'[.write, .read] | all(0 < .median_us and .median_us <= .p99_us and .p99_us <= .worst_us)' true
	check "$kind: written and read at the same time, nothing lasting" tells $kind \
		'.atomicity.writes > 100 and .atomicity.reads > 100 and .atomicity.lasting == 0' true
	check "$kind: no problems" tells $kind '.problems | length' 0
done
check "iscsi: what tgt can do" tells iscsi '.target | [.kind, .block_size, .persistent_reservations, .pr_write_exclusive_registrants_only, .compare_and_write,
	.abort_task, .report_supported_opcodes, .fua] | join(" ")' "iscsi 512 true true false true true true"
check "iscsi: a write cache is warned of" has iscsi .warnings 'write cache'
check "nfs: version 3, writes are stable" tells nfs '.target | [.kind, .version, .sync_writes, .read_only] | join(" ")' "nfs 3 true false"
check "nfs: a sparse file is warned of" has nfs .warnings sparse
check "file: O_DIRECT" tells file '.target | [.kind, .o_direct, .shared, (.alignment == 512 or .alignment == 4096)] | join(" ")' "file true false true"
check "file: a local file system is warned of" has file .warnings 'not shared storage'
for i in iscsi/vol1.img nfs/vol2/hb.img file/vol3/hb.img; do
	check "$i: its scratch area is zero again" is_zero "$images/$i"
done
check "all volumes are good" ctl n2 volume list
says_fit() { ctl n1 volume test "$1" --seconds 3 >"$work/text" 2>&1; cat "$work/text"; grep -q '^Fit for safe, the configured profile' "$work/text"; }
check "text says it, too" says_fit "$nfs"

# Two at once, from two nodes
vt n1 one "$iscsi" --seconds 8 &
pid=$!
vt n2 two "$iscsi" --seconds 8
second=$?
wait $pid
ok $? "two at once: the first says fit"
ok $second "two at once: the second says fit"
check "neither saw the other as a fault" test "$(cat "$work/one" "$work/two" | jq -s 'map(.problems | length) | add')" = 0
check "the scratch area is zero again" is_zero "$image"

# Somebody writes where the test does: a block of the lane is copied over another one, again and again
vt n1 misled "$iscsi" --seconds 10 &
pid=$!
check "a test measures" within $patience measures "$image"
lane=$(lane_of "$image")
end=$((SECONDS + 5))
while [ $SECONDS -lt $end ]; do
	dd if="$image" of="$image" bs=4096 skip=$((lane / 4096 + 15)) seek=$((lane / 4096)) count=1 conv=notrunc status=none
done
wait $pid
ok $((! $?)) "misdirected writes: not fit"
check "and says so" has misled .problems 'misdirected'
note "$(jq -c .problems "$work/misled")"
check "the scratch area is zero again" is_zero "$image"

# A volume that hesitates is too slow for some profiles, one that hangs for all
vt n1 slow "$iscsi" --seconds 6 &
pid=$!
check "a test measures" within $patience measures "$image"
p=$(server tgtd)
kill -STOP "$p" && sleep 0.5
kill -CONT "$p"
wait $pid
ok $? "half a second: fit for safe"
note "$(jq -c '.profiles | map([.name, .fit, .why])' "$work/slow")"
check "fast: the worst decides" tells slow '.profiles[0] | [.fit, (.why | test("the worst (write|read) took")), (.why | test("I7"))] | join(" ")' "false true true"
check "no operation failed" tells slow '.write.errors + .write.timeouts + .read.errors + .read.timeouts + .sessions_lost' 0

vt n1 hung "$iscsi" --seconds 9 &
pid=$!
check "a test measures" within $patience measures "$image"
lab storage hang iscsi && sleep 7
lab storage resume iscsi
wait $pid
ok $((! $?)) "a hang: not fit"
check "a time-out is counted" tells hung '.write.timeouts + .read.timeouts > 0' true
check "for no profile" tells hung '[.profiles[] | select(.fit)] | length' 0
check "the scratch area is zero again" within $patience is_zero "$image"
check "the cluster's volumes are all good" within $patience ctl n2 volume list

# Ended early
lab exec n1 -- timeout -s TERM 10 ha-ctl volume test "$iscsi" --seconds 30 -o json >"$work/term" 2>/dev/null
check "told to end: says so, and is not fit" tells term '[.ok, (.warnings | any(test("interrupted")))] | join(" ")' "false true"
check "the scratch area is zero again" is_zero "$image"
lab exec n1 -- timeout -s KILL 10 ha-ctl volume test "$iscsi" --seconds 30 >/dev/null 2>&1
check "killed: something is left" not_zero "$image"
check "the volume is as good as before" ctl n1 volume list
check "the next test says fit" vt n1 next "$iscsi" --seconds 11
check "and clears what was left" has next .warnings 'was killed: cleared'
check "the scratch area is zero again" is_zero "$image"

# Not a cluster's: blank, foreign, read-only, short
in_node() { lab exec n1 -- sh -ec "$1"; }
sum() { in_node "sha256sum <$1" | cut -d' ' -f1; }
in_node 'truncate -s 64M /root/blank; head -c 64M /dev/urandom >/root/foreign; truncate -s 9M /root/short
	mkdir /root/ro; mount -t tmpfs none /root/ro; truncate -s 64M /root/ro/vol; mount -o remount,ro /root/ro' || bail "files in n1"
blank=$(sum /root/blank) foreign=$(sum /root/foreign)
in_node 'mkdir /root/none' # no configuration in it
unconfigured() { ctl n1 --config /root/none volume test /root/blank --seconds 3 -o json >"$work/standard" 2>/dev/null; }
unconfigured # on a machine's disk: fit or not, it is judged
check "without a configuration it is judged for standard" tells standard .judged_for standard
check "blank: it was written to" tells standard '[.content, .written] | join(" ")' "blank true"
check "blank: it is again" test "$(sum /root/blank)" = "$blank"
check "foreign: refused" exits 1 vt n1 foreign /root/foreign --seconds 3
check "foreign: only read" tells foreign '[.content, .written, .write.count, (.read.count > 50)] | join(" ")' "foreign false 0 true"
check "foreign: says how to go on" has foreign .problems 'force-write /root/foreign'
check "foreign: untouched" test "$(sum /root/foreign)" = "$foreign"
check "--force-write of another volume is refused" exits 64 vt n1 forced /root/foreign --force-write /root/blank
vt n1 forced /root/foreign --seconds 3 --force-write /root/foreign
check "forced: it was written to" tells forced '[.content, .written, (.write.count > 10), (.problems | length)] | join(" ")' "foreign true true 0"
check "forced: it is as it was" test "$(sum /root/foreign)" = "$foreign"
check "read-only: not fit" exits 1 vt n1 ro /root/ro/vol --seconds 2
check "read-only: says so" has ro .problems 'read-only'
check "read-only: its reads were measured" tells ro '.read.count > 20' true
check "short: not fit" exits 1 vt n1 short /root/short --seconds 2
check "short: says what it takes" has short .problems '40 MiB'
check "absent: not fit" exits 1 vt n1 absent /root/absent --seconds 2
check "absent: says why" has absent .problems 'No such file'

# The command line
check "no URL" exits 64 ctl n1 volume test
check "no volume" exits 64 ctl n1 volume test relative/path
check "no time" exits 64 ctl n1 volume test /root/blank --seconds 0
check "another command's option" exits 64 ctl n1 volume list --seconds 5

check "nobody was fenced or reset, no lease was lost" lives
check "the cluster is as before" within $patience all_online
check "a noticed nothing" same_life a "$a"
rm -rf "$work"
finish
