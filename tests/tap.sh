# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Sourced by tests that are scripts and need no lab: checks in TAP.
count=0 failures=0

# check TEXT COMMAND...: what is in $work/out and $work/err is told if it fails
check()
{
	local text=$1
	shift
	count=$((count + 1))
	if "$@"; then
		echo "ok $count - $text"
	else
		echo "not ok $count - $text"
		failures=$((failures + 1))
		cat "$work/out" "$work/err" 2>/dev/null | sed 's/^/# /'
	fi
}
