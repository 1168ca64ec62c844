# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes that are whole virtual machines (`lab up --vm`): Debian's kernel with softdog, its own iSCSI initiator and NFS client, under emulation. What a container
cannot have; each boot takes a minute. Same switch, same storage host, same files; commands go in by ssh over a network of their own, which no verb of the lab cuts."""
import hashlib
import os
import shlex
import shutil

import labnet
import labroot
from labcore import CACHE, IQN, PARTS, STORAGE_IP, run

DIR = f"{CACHE}/vm"
ROOT = f"{CACHE}/rootfs-vm"
MANAGE_IP = "10.77.4.1"
NFS_MOUNT = "/mnt/lab"
OWN = "/run/kvm-ha-lab"  # the node's disk that keeps its files over power cuts, as the node sees it
# Their services do nothing here, and each costs time at every boot.
MASKED = ("rpcbind.service", "rpcbind.socket", "nfs-blkmap.service", "rpc-statd-notify.service", "systemd-networkd.service", "systemd-timesyncd.service",
          "getty.target", "serial-getty@ttyS0.service", "cron.service", "ssh.socket",
          "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
          "systemd-logind.service", "systemd-hwdb-update.service", "systemd-random-seed.service", "systemd-rfkill.socket", "apparmor.service")
HOOK = """#!/bin/sh
# Run by lab-node: the node's links, as of a container's (labnet.py), and one to reach it by.
for link in r{id} s{id} u{id} m{id}; do ip -n {switch} link del $link 2>/dev/null; done
[ "$1" = up ] || exit 0
ip -n {switch} -batch - <<END
tuntap add mode tap name r{id}
tuntap add mode tap name s{id}
tuntap add mode tap name u{id}
tuntap add mode tap name m{id}
link set r{id} master ring up
link set s{id} master stor up
link set u{id} master spar up
link set m{id} master mgmt up
END
"""
STORAGE = f"""#!/bin/sh
# Logs in to the targets of {OWN}/targets and mounts the NFS server, each once: at boot and for each new guest.
while read -r target; do
	iscsiadm -m session 2>/dev/null | grep -qF " $target " && continue
	iscsiadm -m node -T "$target" -p {STORAGE_IP}:3260 -o new >/dev/null && iscsiadm -m node -T "$target" -p {STORAGE_IP}:3260 --login >/dev/null || exit 1
done <{OWN}/targets
[ ! -e {OWN}/mount ] || mountpoint -q {NFS_MOUNT} || mount -t nfs -o vers=3,nolock,hard,proto=tcp,mountproto=tcp {STORAGE_IP}:/srv {NFS_MOUNT}
"""
STORAGE_UNIT = """[Unit]
Description=The lab's storage by the kernel's initiator and NFS client
After=iscsid.service
Wants=iscsid.service
Before=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/lab-storage
"""


def manage_ip(name):
    return f"10.77.4.{10 + labnet.node_id(name)}"


def ensure(say):
    packages = f"{os.environ['KVM_HA_LAB_NODE_PACKAGES']},{os.environ['KVM_HA_LAB_VM_PACKAGES']}"
    with open(f"{PARTS}/vm-root", "rb") as f:
        want = f"{packages} {hashlib.sha256(f.read()).hexdigest()}"

    def make(root):
        say("making the virtual machines' disk (a minute, once)")
        os.makedirs(DIR, exist_ok=True)
        run([f"{PARTS}/vm-root", root, DIR])
    labroot.ensure_root(say, ROOT, packages, want, make)


def make_switch(lab):
    run(["ip", "-n", lab.switch, "-batch", "-"],
        stdin=f"link add mgmt address 02:77:04:00:00:ff type bridge\naddr add {MANAGE_IP}/24 dev mgmt\nlink set mgmt up\n")
    os.makedirs(f"{lab.run_dir}/ssh", mode=0o700)
    for name in ("id", "host"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", f"{lab.run_dir}/ssh/{name}"])
    with open(f"{lab.run_dir}/ssh/config", "w", encoding="ascii") as f:
        f.write(f"Host *\n\tUser root\n\tIdentityFile {lab.run_dir}/ssh/id\n\tIdentitiesOnly yes\n\tBatchMode yes\n\tLogLevel ERROR\n"
                "\tStrictHostKeyChecking no\n\tUserKnownHostsFile /dev/null\n\tConnectTimeout 20\n\tServerAliveInterval 5\n\tServerAliveCountMax 5\n")
        f.writelines(f"Host {n}\n\tHostName {manage_ip(n)}\n" for n in lab.state["nodes"])


def layer_files(lab, name):
    """What lies over the root besides a container's files: (path, text, mode)."""
    with open(f"{lab.run_dir}/ssh/host", encoding="ascii") as f:
        host_key = f.read()
    with open(f"{lab.run_dir}/ssh/host.pub", encoding="ascii") as f:
        host_public = f.read()
    with open(f"{lab.run_dir}/ssh/id.pub", encoding="ascii") as f:
        public = f.read()
    units = "etc/systemd/system"
    yield "root/.ssh/authorized_keys", public, 0o600
    yield "etc/ssh/ssh_host_ed25519_key", host_key, 0o600
    yield "etc/ssh/ssh_host_ed25519_key.pub", host_public, 0o644
    yield "etc/ssh/sshd_config", "HostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM no\nUseDNS no\nPasswordAuthentication no\nMaxStartups 100\nMaxSessions 100\n", 0o600
    yield "etc/iscsi/initiatorname.iscsi", f"InitiatorName={IQN}:{lab.prefix}-{name}\n", 0o600
    yield "etc/modules-load.d/lab.conf", "softdog\niscsi_tcp\nnfsv3\n", 0o644
    yield "etc/fstab", "", 0o644
    yield "etc/protocols", "tcp 6 TCP\nudp 17 UDP\n", 0o644
    yield "usr/local/sbin/lab-storage", STORAGE, 0o755
    yield f"{units}/lab-storage.service", STORAGE_UNIT, 0o644
    yield "etc/systemd/journald.conf.d/lab-console.conf", "[Journal]\nTTYPath=/dev/hvc0\n", 0o644
    yield f"{units}/corosync.service.d/lab.conf", "[Service]\nTimeoutStartSec=infinity\n", 0o644
    yield f"{NFS_MOUNT[1:]}/.keep", "", 0o644


def _image(path, megabytes, folder, *options):
    with open(path, "wb") as f:
        f.truncate(megabytes << 20)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", *options, "-d", folder, path])


def machine(lab, name, tree, supervisor):
    """Makes the node's disks; returns lab-node's command line."""
    d = f"{lab.run_dir}/{name}"
    own = f"{lab.image_dir}/{name}.own"
    os.makedirs(f"{own}/tree")
    os.rename(f"{d}/layer", f"{own}/layer")
    if tree:
        run(["cp", "-a", f"{tree}/.", f"{own}/tree"])
    _image(f"{own}.img", 256, own, "-O", "^has_journal")
    shutil.rmtree(own)
    os.makedirs(f"{own}/etc")
    for folder in ("corosync", "kvm-ha"):
        run(["cp", "-a", f"{d}/etc/{folder}", f"{own}/etc/"])
    with open(f"{own}/targets", "w", encoding="ascii") as f:
        f.writelines(f"{v['target']}\n" for v in lab.state["volumes"] if v["kind"] == "block")
    if any(v["kind"] == "mount" for v in lab.state["volumes"]):
        open(f"{own}/mount", "w", encoding="ascii").close()
    _image(f"{own}.keep.img", 64, own)
    shutil.rmtree(own)
    with open(f"{d}/net", "w", encoding="ascii") as f:
        f.write(HOOK.format(switch=lab.switch, id=labnet.node_id(name)))
    os.chmod(f"{d}/net", 0o755)
    number = f"{labnet.node_id(name):02x}"
    cards = (("ring0", "r", "01", labnet.ring_ip(name)), ("stor0", "s", "02", labnet.storage_ip(name)),
             ("stor1", "u", "03", labnet.storage_ip(name).replace("10.77.2.", "10.77.3.")), ("mgmt0", "m", "04", manage_ip(name)))
    words = ["console=ttyS0", "loglevel=3", "net.ifnames=0", *(f"lab.net={card},02:77:{kind}:00:00:{number},{ip}" for card, _, kind, ip in cards)]
    qemu = ["qemu-system-x86_64", "-name", f"{lab.prefix}-{name}", "-machine", "pc,accel=tcg", "-cpu", "max", "-m", "1024", "-smp", "2", "-nodefaults",
            "-display", "none", "-kernel", f"{DIR}/vmlinuz", "-initrd", f"{DIR}/initrd", "-append", " ".join(words)]
    for image, options in ((f"{DIR}/root.img", ",readonly=on"), (f"{own}.img", ",readonly=on"), (f"{own}.keep.img", "")):
        qemu += ["-drive", f"if=virtio,format=raw,file={image}{options}"]
    for card, port, kind, _ in cards:
        qemu += ["-netdev", f"tap,id={card},ifname={port}{labnet.node_id(name)},script=no,downscript=no",
                 "-device", f"virtio-net-pci,netdev={card},mac=02:77:{kind}:00:00:{number},romfile="]
    return [supervisor, name, lab.run_dir, "-", f"kvm-ha-lab-{lab.prefix}-{name}", f"{d}/net", "--",
            f"{PARTS}/lab-vm", d, f"/run/netns/{lab.switch}", *qemu]


def exec_argv(lab, name, argv):
    return ["nsenter", f"--net=/run/netns/{lab.switch}", "ssh", "-F", f"{lab.run_dir}/ssh/config", name, "--", shlex.join(argv)]
