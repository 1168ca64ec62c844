#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# `ha-ctl vm import --libvirt` with Debian's own virsh: what it makes of a domain's XML becomes a VM file, and QEMU runs by that. Needs root (a mount
# namespace of its own) and libvirt-clients, libvirt-daemon-driver-qemu; no libvirtd, and nothing of this machine's is touched. Output: TAP.
set -u

if [ "${1:-}" != inside ]; then
	command -v virsh >/dev/null || { echo "Bail out! virsh is not there: contrib/test installs what the tests need"; exit 1; }
	work=$(mktemp -d) || exit 1
	unshare --mount --propagation private bash "$0" inside "$work"
	status=$?
	rm -rf "$work"
	exit $status
fi

work=$2
ctl=${HA_CTL:-${KVM_HA_BUILD_DIR:-.}/ha-ctl}
. "$(dirname -- "$0")/tap.sh"
import() { "$ctl" vm import "$@" >"$work/out" 2>"$work/err"; }
says() { grep -qF -- "$1" "$work/out"; }
complains() { grep -qF -- "$1" "$work/err"; }

# domain DISK-SOURCE [MORE]: on standard output
domain()
{
	cat <<-END
	<domain type='qemu'>
	  <name>web1</name>
	  <uuid>3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4</uuid>
	  <memory unit='MiB'>64</memory>
	  <vcpu>2</vcpu>
	  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>
	  <features><acpi/></features>
	  <devices>
	    <emulator>/usr/bin/qemu-system-x86_64</emulator>
	    $1
	    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
	    <watchdog model='i6300esb' action='reset'/>
	    <memballoon model='virtio'/>
	    $2
	  </devices>
	</domain>
	END
}

# virsh's driver without a daemon: it wants libvirt's user, and a /dev/kvm that may be there and hang is not for it to try.
cp /etc/passwd "$work/passwd" && cp /etc/group "$work/group" || exit 1
grep -q ^libvirt-qemu: "$work/passwd" || echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin' >>"$work/passwd"
for g in libvirt-qemu:64055 kvm:993; do
	grep -q "^${g%:*}:" "$work/group" || echo "${g%:*}:x:${g#*:}:" >>"$work/group"
done
mount --bind "$work/passwd" /etc/passwd && mount --bind "$work/group" /etc/group || exit 1
mkdir "$work/dev" && mount -t tmpfs none "$work/dev" && mkdir "$work/dev/pts" "$work/dev/shm" "$work/dev/net" && mount --bind /dev/pts "$work/dev/pts" || exit 1
for d in null zero full random urandom ptmx tty net/tun; do
	: >"$work/dev/$d" && mount --bind "/dev/$d" "$work/dev/$d" || exit 1
done
mount --rbind "$work/dev" /dev || exit 1
export VIRSH_DEFAULT_CONNECT_URI="qemu:///embed?root=$work/libvirt"
virsh domcapabilities >/dev/null 2>"$work/err" || { sed 's/^/# /' "$work/err"; echo "Bail out! virsh does not work"; exit 1; } # asks each QEMU once what it can do
echo "# virsh $(virsh --version), $(qemu-system-x86_64 --version | head -n 1)"

truncate -s 1M "$work/disk.raw"
file="<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='$work/disk.raw'/><target dev='vda' bus='virtio'/></disk>"
lun="<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='iscsi' name='iqn.2026-11.org.example:t/1'><host name='10.0.0.1' port='3260'/></source><target dev='vdb' bus='virtio'/></disk>"
nic="<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/><model type='virtio'/></interface>"

domain "$lun" "$nic" >"$work/d.xml"
check "a domain with a LUN and a bridge" import --libvirt "$work/d.xml"
check "its name" says "Name=web1"
check "that it is not to be started beside libvirt's" says "State=stopped"
check "its UUID" says "UUID=3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4"
check "its memory and processors" eval 'says Memory=64M && says VCPUs=2'
check "its LUN as a URL" says "Disk=iscsi://10.0.0.1:3260/iqn.2026-11.org.example:t/1"
check "its bridge and the card's address" eval 'says br0 && says 52:54:00:11:22:33'
check "the channel of its guest agent" says "org.qemu.guest_agent.0"
check "nothing of libvirt's own is left in force" eval '! grep -v "^#" "$work/out" | grep -q "$work/libvirt"'

domain "$file" "" >"$work/d.xml"
check "a domain with a file" import --libvirt "$work/d.xml"
check "that no other node has, which it is told" complains "is on a local disk of this host"
# As the agent starts it: its arguments, and what the agent adds.
eval "set -- $(sed -n '/^Arguments=/,/^$/s/^\t//p' "$work/out" | sed "s,/run/kvm-ha/vm/,$work/," | tr '\n' ' ')"
printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"query-status"}' '{"execute":"query-block"}' '{"execute":"quit"}' |
	timeout 60 qemu-system-x86_64 "$@" -m 64 -smp 2 -S -display none -qmp stdio >"$work/out" 2>"$work/err"
check "QEMU starts by that" says '"status": "prelaunch"'
check "with its disk" says "$work/disk.raw"

domain "${file%</disk>}<transient/></disk>" "" >"$work/d.xml"
check "a disk whose writes libvirt forgets is refused" eval '! import --libvirt "$work/d.xml" && complains "<transient>"'
domain "${file%</disk>}<iotune><total_iops_sec>100</total_iops_sec></iotune></disk>" "" >"$work/d.xml"
check "a limit that libvirt sets is told" eval 'import --libvirt "$work/d.xml" && complains "<iotune>"'

echo "<domain type='qemu'><name>x</name></domain>" >"$work/d.xml"
check "what virsh refuses is refused" eval '! import --libvirt "$work/d.xml"'
check "in virsh's words" complains "domxml-to-native refuses"
echo "1..$count"
[ $failures -eq 0 ]
