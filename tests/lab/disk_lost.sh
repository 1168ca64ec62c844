#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The server of a VM's disk turns its node away: QEMU pauses the guest. Where another node is served it is started there, after IOErrorTimeout=; where nobody is it waits, and goes on.
. "$(dirname -- "$0")/lib.sh"

conf=$state/storage/run/ganesha.conf
# turn_away [NODE...]: none of them may use the export any more, all others may
turn_away()
{
	local n addresses
	for n; do addresses+="${addresses:+, }$(lab exec "$n" -- ip -o -4 address | awk '{ sub("/.*", "", $4); if ($4 ~ /^10\.77\.2\./) print $4 }')"; done
	sed -i '/^	CLIENT/d' "$conf"
	[ -z "$addresses" ] || sed -i "s/^	FSAL/	CLIENT { Clients = $addresses; Access_Type = None; }\n&/" "$conf"
	kill -HUP "$(server ganesha)"
}
state_is() { [ "$(vm "$1" .state)" = "$2" ]; }
good_volumes() { [ "$(ctl "$1" status -o json | jq .status.quorum.good)" = "$2" ]; }

lab_up --volumes iscsi,nfs,iscsi
lab guest a n1 --disk nfs --print 2>/dev/null | sed -e 's/,drive=d0/&,werror=stop,rerror=stop/' -e '/^\[HA\]/i [Health]\nIOErrorTimeout=5s\n' | lab exec n1 -- ha-ctl vm add - >/dev/null || bail "a is not added"
within $patience runs_on a n1 && within $patience stamps_on a || bail "a does not run"
a=$(token a)

since=$(now_ns)
turn_away n1 || bail "the server does not turn n1 away"
check "n1 is turned away: its guest is paused" within $patience state_is a io-error
moved a n1 "$a"
note "a: executed on $(vm_node a) $(ms_between "$since" "$(when "$since" "ha-keeper: VM $(vm_uuid a): .* passes the gate")") ms later"
check "a was ended on n1 first" within $patience told "$since" "^[0-9]+ n1 ha-agent: VM a: "
check "n1 lacks one volume of three" within $patience good_volumes n1 2
check "n1 is online, and was not reset" within $patience eval 'online n1 && [ "$(resets n1)" = 0 ]'
turn_away || bail "the server does not take n1 back"
check "n1 has all volumes again" within $patience good_volumes n1 3

a=$(token a) home=$(vm_node a)
turn_away $nodes || bail "the server does not turn all away"
check "all are turned away: the guest is paused" within $patience state_is a io-error
check "it stays where it is, for longer than IOErrorTimeout=" throughout 15 eval 'state_is a io-error && [ "$(vm_node a)" = "$home" ]'
turn_away || bail "the server does not take them back"
check "it goes on" within $patience runs_on a "$home"
check "a stamps" stamps_on a
check "in the same life" same_life a "$a"
check "nobody was reset" test "$(resets n1) $(resets n2) $(resets n3)" = "0 0 0"
finish
