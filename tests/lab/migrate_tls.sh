#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Live migration under TLS: what goes over the wire is TLS, on each of several channels; with a certificate of another CA, an expired one, or a target without TLS
# nothing is migrated, the reason is named, and the guest runs on where it was.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
dir=/etc/kvm-ha/tls

# The commands that the manual page shows, as they stand there
make_certificates() # make_certificates FOLDER
{
	mkdir "$work/$1"
	sed -n '/^\.SS Certificates/,/^\.EE/p' "$top/man/kvm-ha.conf.5" | sed '1,/^\.EX/d;/^\.EE/d;s/\\-/-/g;s/\\e$/\\/' >"$work/$1/commands"
	(cd "$work/$1" && sh -e commands >said 2>&1) || { sed 's/^/# /' "$work/$1/said"; bail "the manual page's commands fail"; }
}
expired() # expired FOLDER NODE FILE: as its own is, but from 2020
{
	(cd "$1" && : >index && echo 0a >serial && printf '%s\n' '[ca]' default_ca=a '[a]' database=index serial=serial new_certs_dir=. default_md=sha256 policy=p \
		copy_extensions=copyall certificate=ca-cert.pem private_key=ca-key.pem '[p]' commonName=supplied >ca.conf &&
		openssl req -new -key "$2/server-key.pem" -subj "/CN=$2" -addext "subjectAltName=DNS:$2" -addext basicConstraints=CA:FALSE -out old.pem &&
		openssl ca -batch -notext -config ca.conf -in old.pem -startdate 20200101000000Z -enddate 20200201000000Z -out "$3") >/dev/null 2>&1
}
give() # give NODE FOLDER: these files, and no others
{
	lab exec "$1" -- sh -c "rm -rf $dir && mkdir -m 700 $dir" && tar -C "$2" --owner=0 --group=0 -cf - . | lab exec "$1" -- tar -C $dir -xf -
}
set_conf() # set_conf NODE [TEXT]: its agent starts anew with that
{
	lab exec "$1" -- sh -c 'mkdir -p /etc/kvm-ha/conf.d && cat >/etc/kvm-ha/conf.d/tls.conf && systemctl restart ha-agent' <<<"$2"
}
says() { local re=$1; shift; "$@" >"$work/said" 2>&1; grep -Eq -- "$re" "$work/said" || { cat "$work/said"; return 1; }; }
add() # add NAME NODE [SECTION]: with a monitor of the test's own
{
	lab guest "$1" "$2" --disk iscsi --print | sed "s,-nodefaults,-nodefaults -qmp unix:/run/kvm-ha-lab/$1.qmp\,server=on\,wait=off," >"$work/$1.vm"
	printf '\n%b' "$3" >>"$work/$1.vm"
	lab exec n1 -- ha-ctl vm add - <"$work/$1.vm" >/dev/null || bail "guest $1 cannot be added"
	within $patience runs_on "$1" "$2" || bail "guest $1 does not run on $2"
	stamps_on "$1" || bail "guest $1 does not stamp its disk"
}
goes_on() { stamps_on "$1" && same_life "$1" "$2"; } # goes_on GUEST LIFE
objects() # objects NAME NODE: of its QEMU
{
	python3 - "$state/$2/dev/$1.qmp" <<'END'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw")
f.readline()
for command in ({"execute": "qmp_capabilities"}, {"execute": "qom-list", "arguments": {"path": "/objects"}}):
    f.write(json.dumps(command) + "\n")
    f.flush()
    answer = json.loads(f.readline())
    while "event" in answer:
        answer = json.loads(f.readline())
print(" ".join(o["name"] for o in answer["return"]))
END
}
no_certificates() { local o; o=$(objects "$1" "$2") && [[ $o != *tls* ]]; }
moves() # moves GUEST NODE CHANNELS FIRST_BYTES_REGEX
{
	local life n
	life=$(token "$1")
	rm -f "$work/ready"
	"$here/first_bytes" "$KVM_HA_LAB_PREFIX-sw" "r${2#n}" "$work/ready" >"$work/bytes" &
	watcher[bytes]=$!
	within $patience test -e "$work/ready" || bail "first_bytes does not begin"
	check "$1 is migrated to $2" ctl n1 vm migrate "$1" "$2" --wait
	check "$1 runs there" within $patience runs_on "$1" "$2"
	check "$1 stamps, in the same life" goes_on "$1" "$life"
	unwatch bytes
	n=$(grep -cE "^($4)" "$work/bytes")
	note "first bytes of each connection: $(sort "$work/bytes" | uniq -c | tr -s ' \n' ' ')"
	# More if it is tried again
	check "$1: each of $3 connections begins as it should" [ "$n" -ge "$3" -a "$n" -eq "$(wc -l <"$work/bytes")" ]
}
stays() # stays GUEST NODE TO REGEX LIFE
{
	check "$1 is not migrated to $3, and why is said: $4" says "$4" not ctl n1 vm migrate "$1" "$3" --wait
	note "$(tail -n 1 "$work/said")"
	check "$1 runs on on $2" runs_on "$1" "$2"
	check "in the same life" goes_on "$1" "$5"
	check "its QEMU has no certificates any more" within $patience no_certificates "$1" "$2"
}

make_certificates good
make_certificates other
lab_up --volumes iscsi --profile standard
add g n1 '[Migration]\nChannels=2\n'
for n in $nodes; do
	give "$n" "$work/good/$n" || bail "no certificates"
	set_conf "$n" "$(printf '[Migration]\nTLSDirectory=%s' "$dir")" || bail "$n: configuration"
done
check "all agents are back" within $patience all_online
moves g n2 3 1603 # the record of a client's hello, on the main connection and on both channels
check "no certificates stay at the target's QEMU" within $patience no_certificates g n2
life=$(token g)

give n3 "$work/other/n3"
stays g n2 n3 "server-cert.pem of node n3 .*issuer" "$life"
give n3 "$work/good/n3"
expired "$work/good" n3 "$work/expired" && lab exec n3 -- sh -c "cat >$dir/server-cert.pem" <"$work/expired" || bail "no expired certificate"
check "config check names it" says "$dir/server-cert.pem: .*expired" ctl n3 config check
stays g n2 n3 "node n3 .*$dir/server-cert.pem.* expired" "$life"
set_conf n1 ""
check "n1 is back" within $patience back n1
stays g n2 n1 "node n1 has no TLSDirectory=" "$life"
rm -rf "$work"
finish
