#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ha-fence with a fence agent of ClusterLabs as Debian has it, fence_ipmilan, and BMCs that speak IPMI (OpenIPMI's ipmi_sim): off, on and status as they are; a wrong password, a BMC
# that does not answer, one that says yes and does nothing, two supplies of one node. In namespaces of its own. Output: TAP.
set -u

if [ "${1:-}" != inside ]; then
	for p in ipmi_sim ipmitool; do
		command -v $p >/dev/null || { echo "Bail out! $p is not there: contrib/test installs what the tests need"; exit 1; }
	done
	work=$(mktemp -d) || exit 1
	trap 'rm -rf "$work"' EXIT
	chmod 755 "$work"
	mkdir "$work/deb" && cd "$work/deb" && apt-get -qq download fence-agents >/dev/null 2>&1 && dpkg-deb -x ./*.deb . ||
		{ echo "Bail out! apt-get cannot download fence-agents; apt-get update"; exit 1; }
	cd "$OLDPWD" || exit 1
	unshare --mount --net --pid --fork --kill-child --propagation private bash "$0" inside "$work"
	exit
fi

# Its package without the clients of a dozen clouds that it depends on
work=$2
for d in sbin share; do mount -t overlay -o "lowerdir=$work/deb/usr/$d:/usr/$d" overlay "/usr/$d" || { echo "Bail out! mount"; exit 1; }; done
ip link set lo up
fence=${KVM_HA_BUILD_DIR:-.}/ha-fence
. "$(dirname -- "$0")/tap.sh"
ends() { local want=$1 got; shift; "$fence" --config "$work/etc" "$@" >"$work/out" 2>&1 </dev/null; got=$?; [ $got -eq "$want" ] || { echo "exit code $got" >>"$work/out"; false; }; }
not_says() { ! grep -q -- "$1" "$work/out"; }
says() { grep -qE -- "$1" "$work/out"; }
is() { [ "$(cat "$work/$1/power")" = "$2" ]; } # is BMC 0|1

# bmc NAME PORT: one that listens
bmc()
{
	mkdir -p "$work/$1/state"
	cat >"$work/$1/lan" <<-END
		name "$1"
		set_working_mc 0x20
		startlan 1
		addr 127.0.0.1 $2
		priv_limit admin
		allowed_auths_callback md5
		allowed_auths_user md5
		allowed_auths_operator md5
		allowed_auths_admin md5
		guid a123456789abcdefa123456789abcdef
		endlan
		chassis_control "$work/$1/chassis 0x20"
		user 2 true "fencer" "opensesame" admin 10 md5
	END
	printf '%s\n' 'mc_setbmc 0x20' 'mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02' 'mc_enable 0x20' >"$work/$1/start"
	cat >"$work/$1/chassis" <<-END
		#!/bin/bash
		shift
		case \$1 in
		get) shift; for p; do echo "\$p:\$([ \$p = power ] && cat $work/$1/power || echo 0)"; done ;;
		set) shift; while [ \$# -gt 1 ]; do [ \$1 != power ] || [ -e $work/$1/stuck ] || echo \$2 >$work/$1/power; shift 2; done ;;
		esac
	END
	chmod 755 "$work/$1/chassis"
	echo 1 >"$work/$1/power"
	ipmi_sim -n -c "$work/$1/lan" -f "$work/$1/start" -s "$work/$1/state" >"$work/$1/log" 2>&1 &
	pid[$1]=$!
	for _ in $(seq 100); do
		ss -Huln "sport = :$2" | grep -q . && return
		sleep 0.1
	done
	echo "Bail out! ipmi_sim does not listen: $(cat "$work/$1/log")"
	exit 1
}
# device NODE PORT PASSWORD LEVEL
device()
{
	printf '[PowerDevice]\nNode=%s\nAgent=fence_ipmilan\nOptions=ip=127.0.0.1 ipport=%s username=fencer lanplus=1 cipher=3 power_wait=0\nSecretFile=%s\nTimeout=4s\nLevel=%s\n' \
		"$1" "$2" "$work/$3" "$4"
}

declare -A pid
bmc one 9623
bmc two 9624
(umask 077; echo password=opensesame >"$work/right"; echo password=opensesame1 >"$work/wrong")
mkdir "$work/etc"
{
	printf '[Cluster]\nName=lab\nNodes=n1:1 n2:2 n3:3 n4:4\nVolumes=/dev/null\n'
	device n1 9623 right 1
	device n2 9623 wrong 1
	device n3 9623 right 1
	device n3 9624 right 1
	device n4 9623 wrong 1
	device n4 9624 right 2
} >"$work/etc/kvm-ha.conf"

check "status" ends 0 status n1
check "it is on" says 'fence_ipmilan, level 1: on'
check "off" ends 0 off n1
check "it is off" is one 0
check "status" ends 0 status n1
check "it says so" says 'fence_ipmilan, level 1: off'
check "off once more" ends 0 off n1
check "on" ends 0 on n1
check "it is on" is one 1

check "with a wrong password off fails" ends 1 off n2
check "nothing is off" is one 1
check "why is told, and no password" says 'fence_ipmilan: "off" (failed|not answered)'
check "no password is" not_says opensesame

check "two supplies: off" ends 0 off n3
check "both are off" eval 'is one 0 && is two 0'
check "on" ends 0 on n3
: >"$work/two/stuck"
check "one says yes and does nothing: off fails" ends 1 off n3
check "and that one is on" is two 1
rm "$work/two/stuck"
check "on" ends 0 on n3

check "the next level is asked when the first one cannot" ends 0 off n4
check "which is off" eval 'is one 1 && is two 0'
kill "${pid[one]}"
wait "${pid[one]}" 2>/dev/null
check "a BMC that is gone: off fails" ends 1 off n1
check "and status does" ends 1 status n1
echo "1..$count"
kill "${pid[two]}"
[ $failures -eq 0 ]
