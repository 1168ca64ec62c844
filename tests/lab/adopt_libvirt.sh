#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest that Debian's libvirtd runs is adopted: its VM file is made of its domain, its QEMU goes on, libvirtd may come and go; its failures are kvm-ha's matter from then on.
. "$(dirname -- "$0")/lib.sh"

work=$(mktemp -d) || bail "mktemp"
lab_up --volumes iscsi,nfs,iscsi --profile standard
# Into the node's file system, which is gone with its power; through this machine's network.
host_net() { nsenter -t "$(cat "$state/n1/leader")" -m -p -- "$@"; }
tar -C / -c etc/apt etc/resolv.conf 2>/dev/null | host_net tar -C / -x --overwrite
host_net env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get -qq update && apt-get -qq install --no-install-recommends libvirt-daemon libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients' \
	>"$work/apt" 2>&1 </dev/null || { tail -n 5 "$work/apt" | sed 's/^/# /'; bail "libvirt is not installed"; }
host_net sh -c 'printf "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\n" >/etc/libvirt/qemu.conf'
lab exec n1 -- systemctl restart libvirtd || bail "libvirtd does not start"
virsh() { lab exec n1 -- timeout 60 virsh -q -c qemu:///system "$@"; }
within $patience virsh list || bail "libvirtd does not answer"
note "libvirtd $(virsh version --daemon | sed -n 's/^Running against daemon: //p')"

# The lab's guest, whose disk is on iSCSI
lab guest v n1 --disk iscsi --print >"$work/lab.vm" || bail "no guest"
url=$(sed -n 's/^Disk=//p' "$work/lab.vm") # iscsi://HOST:PORT/TARGET/LUN
rest=${url#iscsi://}
portal=${rest%%/*} rest=${rest#*/}
cat >"$work/v.xml" <<END
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>v</name>
  <uuid>3f1d7c52-93a5-4d0e-a1f1-70c2d7a0b9e4</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='iscsi' name='$rest'><host name='${portal%:*}' port='${portal##*:}'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-qmp'/>
    <qemu:arg value='unix:/run/v.qmp,server=on,wait=off'/>
  </qemu:commandline>
</domain>
END
lab exec n1 -- sh -c 'cat >/run/v.xml' <"$work/v.xml"
virsh define /run/v.xml >/dev/null && virsh start v >/dev/null || bail "libvirt does not start the domain"
check "libvirt's guest stamps" within $patience eval 'above v 3'
v=$(token v)
pid=$(lab exec n1 -- cat /run/libvirt/qemu/v.pid)

check "a VM file is made of the domain" eval 'virsh dumpxml v >"$work/dump.xml" && lab exec n1 -- sh -c "cat >/run/dump.xml" <"$work/dump.xml" && lab exec n1 -- ha-ctl vm import --libvirt /run/dump.xml >"$work/v.vm"'
check "with its disk" grep -q "^Disk=$url\$" "$work/v.vm"
sed -n '/^#/p' "$work/v.vm"
check "it is added, stopped" eval 'grep -q "^State=stopped\$" "$work/v.vm" && lab exec n1 -- ha-ctl vm add - <"$work/v.vm"'
check "libvirt's own monitor is refused" exits 1 lab exec n1 -- timeout 100 ha-ctl adopt v "$pid" "$(lab exec n1 -- sh -c 'echo /var/lib/libvirt/qemu/domain-*-v/monitor.sock')"
check "the guest goes on" stamps_on v
check "it is adopted by its own monitor" lab exec n1 -- timeout 100 ha-ctl adopt v "$pid" /run/v.qmp
check "v runs" within $patience runs_on v n1
check "v stamps" stamps_on v
check "in the same life" same_life v "$v"
check "in its scope" lab exec n1 -- grep -q "kvmha-vm-$(vm_uuid v).scope" "/proc/$pid/cgroup"

check "libvirtd is restarted" lab exec n1 -- systemctl restart libvirtd
check "it knows the domain" within $patience eval '[ "$(virsh domstate v)" = running ]'
lab exec n1 -- systemctl kill -s KILL libvirtd
check "libvirtd killed: v stamps on" stamps_on v
check "libvirtd stopped" lab exec n1 -- systemctl stop libvirtd libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket
check "v stamps on" stamps_on v
check "in the same life, the same process" eval 'same_life v "$v" && lab exec n1 -- test -d "/proc/$pid"'
check "v runs where it ran" runs_on v n1

lab exec n1 -- kill -KILL "$pid"
check "its QEMU killed: it is started again" within $patience other_life v "$v"
check "v runs" within $patience runs_on v n1
check "v stamps" stamps_on v
lab exec n1 -- systemctl start libvirtd
check "libvirt has lost it" within $patience eval '[ "$(virsh domstate v)" = "shut off" ]'
v=$(token v)
power_off n1
moved v n1 "$v"
check "v stamps" stamps_on v
rm -rf "$work"
finish
