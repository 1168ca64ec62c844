#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The pure core must not reach for a clock, socket, file, log, memory management or random numbers: looks at what its
# objects leave undefined. Takes objects and archives as arguments (all of the core: they use each other's functions);
# without any, libcore.a of the build directory. Speaks TAP, one line for each object.
set -u

# What the compiler may make of plain C, and what a failed CHECK calls; libgcc's helpers for arithmetic that the processor
# has no instruction for; and what sanitizers, coverage and hardening add.
allowed='^(memcpy|memset|memcmp|memmove|bcmp|strlen|strnlen|strcmp|strncmp|check_failed|_GLOBAL_OFFSET_TABLE_)$'
arithmetic='^__(popcount|parity|ffs|clz|ctz|bswap|u?div|u?mod|u?divmod|mul|ashl|ashr|lshr|u?cmp)[sdt]i[234]$'
instrumented='^(__asan_|__ubsan_|__tsan_|__sanitizer_|__gcov_|__llvm_|__stack_chk_fail|__mem(cpy|move|set)_chk$|llvm_gcda_|mcount$|__fentry__$)'

die() { echo "Bail out! $*"; exit 99; }

if [ $# -eq 0 ]; then
	for place in "${KVM_HA_BUILD_DIR:-.}" "$(dirname "$0")/.."; do
		[ -f "$place/libcore.a" ] && set -- "$place/libcore.a" && break
	done
	[ $# -gt 0 ] || die "no libcore.a: build first, set KVM_HA_BUILD_DIR, or name the objects"
fi
command -v nm >/dev/null || die "nm is not there (package binutils)"

# "file symbol" for each undefined one, and the names that the core defines itself.
symbols=$(nm -A "$@" 2>&1) || die "nm: $symbols"
symbols=$(awk 'NF >= 3' <<<"$symbols")
own=$(awk '$(NF-1) ~ /^[TtDdBbRrVvWwC]$/ { print $NF }' <<<"$symbols" | sort -u)
objects=$(awk '{ name = $1; sub(/:[0-9a-f]*$/, "", name); print name }' <<<"$symbols" | sort -u)
[ -n "$own" ] || die "nothing is defined in $*"

count=0 failed=0
while read -r object; do
	count=$((count + 1))
	used=$(awk -v o="$object" '{ name = $1; sub(/:[0-9a-f]*$/, "", name) } name == o && $(NF-1) ~ /^[Uw]$/ { print $NF }' \
		<<<"$symbols" | sort -u)
	bad=$(comm -23 <(echo "$used") <(echo "$own") | grep -Ev "$allowed" | grep -Ev "$arithmetic" | grep -Ev "$instrumented" |
		grep -v '^$' | tr '\n' ' ')
	if [ -z "$bad" ]; then
		echo "ok $count - ${object##*/} is pure"
	else
		failed=1
		echo "not ok $count - ${object##*/} is pure"
		echo "#   it calls: $bad"
	fi
done <<<"$objects"
echo "1..$count"
exit $failed
