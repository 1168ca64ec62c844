#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs tests/test_units where it needs to be: under a systemd that is PID 1. Boots a throw-away container of the root file system
# KVM_HA_ROOTFS (nothing in it is changed), enters its namespaces, and pulls its plug at the end. Output: TAP. Needs root.
#   units_in_container.sh [PROGRAM]    PROGRAM: test_units, by default tests/test_units in the current folder
set -u

rootfs=${KVM_HA_ROOTFS:-/var/cache/kvm-ha-lab/rootfs}
program=$(readlink -f "${1:-tests/test_units}")
machine=kvmha-units-$$
log=$(mktemp)
out=$(mktemp)
err=$(mktemp)
nspawn=
leader=
count=0
failed=0

bail_out()
{
	echo "Bail out! $*"
	tr -d '\r\033' <"$log" | sed 's/^/# /'
	exit 1
}

clean_up()
{
	# The leader's death ends all the container's processes, as a power cut would; nspawn then removes what it made.
	[ -n "$leader" ] && kill -KILL "$leader" 2>/dev/null
	if [ -n "$nspawn" ]; then
		i=0
		while kill -0 "$nspawn" 2>/dev/null && [ $i -lt 50 ]; do
			sleep 0.1
			i=$((i + 1))
		done
		kill -KILL "$nspawn" 2>/dev/null
		wait "$nspawn" 2>/dev/null
	fi
	rm -f "$log" "$out" "$err"
}

# The process below nspawn that is PID 1 in a namespace of its own.
find_leader()
{
	for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
		pids=$(sed -n 's/^NSpid:[[:space:]]*//p' "/proc/$child/status" 2>/dev/null)
		case $pids in
		*[[:space:]]1)
			echo "$child"
			return
			;;
		esac
		find_leader "$child"
	done
}

inside()
{
	nsenter -t "$leader" -m -u -i -n -p -C env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# Runs the program with the given arguments and passes its checks on, numbered anew.
run_part()
{
	inside timeout -s KILL 120 "/mnt/$(basename "$program")" "$@" >"$out" 2>"$err"
	status=$?
	while IFS= read -r line; do
		case $line in
		'ok '* | 'not ok '*)
			count=$((count + 1))
			text=${line#*ok * - }
			printf '%s %d - %s\n' "${line%%ok *}ok" "$count" "$text"
			;;
		1..*) ;;
		*) printf '%s\n' "$line" ;;
		esac
	done <"$out"
	count=$((count + 1))
	if [ $status -eq 0 ] && grep -q '^1\.\.[1-9]' "$out"; then
		echo "ok $count - test_units${1:+ $1} came to its end"
	else
		echo "not ok $count - test_units${1:+ $1} came to its end (status $status)"
		sed 's/^/# /' "$err"
		failed=1
	fi
}

[ "$(id -u)" = 0 ] || bail_out "must be root"
[ -x "$program" ] || bail_out "no program $program"
[ -x "$rootfs/lib/systemd/systemd" ] || bail_out "no root file system with systemd in $rootfs; set KVM_HA_ROOTFS"
trap clean_up EXIT
trap 'exit 1' INT TERM

systemd-nspawn -q --register=no --keep-unit --volatile=overlay -D "$rootfs" --private-network \
	--bind-ro="$(dirname "$program"):/mnt" -b -M "$machine" </dev/null >"$log" 2>&1 &
nspawn=$!
i=0
state=
while [ "$state" != running ] && [ "$state" != degraded ]; do
	kill -0 "$nspawn" 2>/dev/null || bail_out "the container has ended"
	[ $i -lt 300 ] || bail_out "the container does not come up: ${state:-no answer}"
	[ -n "$leader" ] || leader=$(find_leader "$nspawn")
	[ -z "$leader" ] || state=$(inside systemctl is-system-running 2>/dev/null)
	sleep 0.1
	i=$((i + 1))
done

run_part
run_part survivor-start
run_part survivor-check
# Without PID 1's own socket it has to go by the system bus. The re-execution makes the socket again.
inside rm /run/systemd/private || bail_out "no private socket"
run_part survivor-start
run_part survivor-check
inside systemctl daemon-reexec
run_part reexec
run_part reboot
echo "1..$count"
exit $failed
