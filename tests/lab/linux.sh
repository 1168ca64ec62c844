# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# A Linux guest (contrib/lab.d/linux-guest), for tests that source lib.sh.

image=$state/../../../var/tmp/kvm-ha-lab/$KVM_HA_LAB_PREFIX/file/linux-guest
image=$(realpath -m -- "$image")
field() { [ "$(vm "$1" "$2")" = "$3" ]; }
ready() { field "$1" .ready "$2"; }
# In a place that outlasts a node's reset
set_mode() { local mode=$1 n; shift; for n in "$@"; do lab exec "$n" -- sh -c "echo $mode >/etc/kvm-ha/lab-mode"; done; }

# On all nodes, once the lab is up
linux_guest()
{
	mkdir -p "$image" && "$top/contrib/lab.d/linux-guest" /var/cache/kvm-ha-lab/linux-guest && cp /var/cache/kvm-ha-lab/linux-guest/{vmlinuz,initrd} "$image"/ ||
		bail "no Linux guest"
	set_mode ok $nodes
}

# tell VM WORDS: on its console
tell()
{
	lab exec "$(vm_node "$1")" -- perl -MIO::Socket::UNIX -e \
		'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; print $s "$ARGV[1]\n"; $s->flush; sleep 2' "/run/lab-$1.serial" "$2" &&
		told_ns=$(($(now_ns) - 2000000000))
}

# Another one after each of its boots
life_of()
{
	lab exec "$(vm_node "$1")" -- timeout 20 perl -MIO::Socket::UNIX -e \
		'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; print $s "life\n"; $s->flush; while (<$s>) { if (/lab: life (\S+)/) { print "$1\n"; exit 0 } } exit 1' \
		"/run/lab-$1.serial"
}

# linux NAME NODE LINES [DISK]: added, and up; LINES: the end of [HA], and further sections
linux()
{
	local disk=${4:+Disk=$4} drive=${4:+-drive if=none,id=d0,format=raw,cache=none,file=$4 -device virtio-blk-pci,drive=d0}
	lab exec n1 -- ha-ctl vm add - >/dev/null <<EOF || bail "$1 is not added"
[VM]
Name=$1
Memory=128M
VCPUs=1
$disk
[QEMU]
Binary=/usr/bin/qemu-system-x86_64
Arguments= -machine pc,accel=tcg -nodefaults -display none -serial unix:/run/lab-$1.serial,server=on,wait=off
  -kernel /srv/kvm-ha/linux-guest/vmlinuz -initrd /srv/kvm-ha/linux-guest/initrd -append "quiet panic=0"
  -device pvpanic -device i6300esb -action watchdog=pause -fw_cfg name=opt/lab,file=/etc/kvm-ha/lab-mode $drive
[HA]
PreferredNodes=$2
$3
EOF
	within $patience runs_on "$1" "$2" || bail "$1 does not run on $2"
}
