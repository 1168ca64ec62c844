# SPDX-License-Identifier: GPL-2.0-or-later
"""The nodes: what is in their /etc, their supervisors (lab-node), power."""
import base64
import glob
import hashlib
import os
import shutil
import signal
import socket
import subprocess

import labnet
import labstore
import labvm
from labcore import LabError, run, wait_for
from labroot import ROOT

WATCHDOG = "/run/kvm-ha-lab/watchdog.sock"  # as the node sees it
ENABLED = "/run/kvm-ha-lab/enabled"         # the daemons start at boot once this is there: volumes come first
SERVICES = ("ha-keeper.service", "ha-agent.service")
# Nothing a cluster needs, and each costs time at every boot.
MASKED = ("console-getty.service", "getty@tty1.service", "systemd-update-utmp.service",
          "systemd-update-utmp-runlevel.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
          "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-pstore.service", "systemd-machine-id-commit.service")

COROSYNC = """totem {{
	version: 2
	cluster_name: lab
	transport: knet
	crypto_cipher: aes256
	crypto_hash: sha256
	token: {token}
	token_coefficient: 0
	interface {{
		linknumber: 0
		knet_ping_interval: 200
		knet_ping_timeout: {token}
		knet_pong_count: 1
	}}
}}
quorum {{
	provider: corosync_votequorum
}}
system {{
	sched_rr: no
	move_to_root_cgroup: no
}}
logging {{
	to_syslog: yes
	to_stderr: no
}}
nodelist {{
{nodes}}}
"""


def kvm_ha_conf(lab):
    return "".join(f"{line}\n" for line in [
        "[Cluster]", "Name=lab", "Nodes=" + " ".join(f"{n}:{labnet.node_id(n)}" for n in lab.state["nodes"]),
        "Volumes=" + " ".join(v["url"] for v in lab.state["volumes"]), f"Profile={lab.state['profile']}",
        "", "[Ring]", "RequireEncryption=yes", "", "[Watchdog]", "Device=/dev/watchdog" if lab.state["vm"] else f"Device=unix:{WATCHDOG}",
        # An emulated processor takes six seconds, on a busy machine twelve, to start the keeper again; it then needs Drain and a round before Soft is over.
        *(["", "[Timing]", "Watchdog=30s"] if lab.state["vm"] and lab.state["profile"] == "safe" else [])])


def _write(path, data, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.chmod(path, mode)


def _make_files(lab, name, authkey):
    """Node's files: dev/ (seen as /run/kvm-ha-lab), etc/ (bound, kept over power cycles), layer/ (lies over the root, read-only)."""
    d = f"{lab.run_dir}/{name}"
    layer = f"{d}/layer/etc"
    os.makedirs(f"{d}/dev")
    os.makedirs(f"{d}/root")
    nodes = "".join(f"\tnode {{\n\t\tnodeid: {labnet.node_id(n)}\n\t\tname: {n}\n\t\tring0_addr: {labnet.ring_ip(n)}\n\t}}\n"
                    for n in lab.state["nodes"])
    _write(f"{d}/etc/corosync/corosync.conf", COROSYNC.format(nodes=nodes, token=lab.patience(1000)))
    _write(f"{d}/etc/corosync/authkey", authkey, 0o400)
    _write(f"{d}/etc/kvm-ha/kvm-ha.conf", kvm_ha_conf(lab))
    _write(f"{layer}/hostname", name + "\n")
    _write(f"{layer}/machine-id", hashlib.md5(f"{lab.prefix} {name}".encode() + authkey).hexdigest() + "\n", 0o444)
    _write(f"{layer}/hosts", "127.0.0.1 localhost\n" + "".join(f"{labnet.ring_ip(n)} {n}\n" for n in lab.state["nodes"]))
    _write(f"{layer}/systemd/journald.conf.d/lab.conf",
           "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nForwardToConsole=yes\nMaxLevelConsole=debug\nRateLimitIntervalSec=0\n")
    _write(f"{layer}/systemd/system.conf.d/lab.conf", "[Manager]\nShowStatus=no\nLogColor=no\n")
    for unit in (*MASKED, *labvm.MASKED) if lab.state["vm"] else MASKED:
        os.makedirs(f"{layer}/systemd/system", exist_ok=True)
        os.symlink("/dev/null", f"{layer}/systemd/system/{unit}")
    for path, text, mode in labvm.layer_files(lab, name) if lab.state["vm"] else ():
        _write(f"{d}/layer/{path}", text, mode)
    wants = f"{layer}/systemd/system/multi-user.target.wants"
    os.makedirs(wants)
    if lab.state["vm"]:
        os.symlink("../lab-storage.service", f"{wants}/lab-storage.service")
    if lab.state["bare"]:
        return
    for unit in SERVICES:
        os.symlink(f"/usr/lib/systemd/system/{unit}", f"{wants}/{unit}")
        _write(f"{layer}/systemd/system/{unit}.d/lab.conf", f"[Unit]\nConditionPathExists={ENABLED}\n")


def start_all(lab, supervisor, tree):
    authkey = os.urandom(256)
    for name in lab.state["nodes"]:
        _make_files(lab, name, authkey)
        if lab.state["vm"]:
            lab.daemon(name, labvm.machine(lab, name, tree, supervisor), "supervisor.log")
            continue
        d = f"{lab.run_dir}/{name}"
        netns = f"{lab.prefix}-{name}"
        lower = [f"{d}/layer", *([tree] if tree else []), ROOT]
        # A host lets its keeper do this; a container does not by itself.
        nspawn = ["systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--notify-ready=yes", "--system-call-filter=pidfd_getfd",
                  "--link-journal=no", "--console=read-only", "--resolv-conf=off", "--timezone=off", f"--network-namespace-path=/run/netns/{netns}",
                  f"--directory={d}/root/m", f"--machine={netns}", f"--hostname={name}",
                  "--capability=CAP_IPC_LOCK,CAP_NET_ADMIN,CAP_SYS_NICE", f"--bind={d}/dev:/run/kvm-ha-lab",
                  f"--bind={d}/etc/corosync:/etc/corosync", f"--bind={d}/etc/kvm-ha:/etc/kvm-ha",
                  f"--bind={labstore.files(lab, name)}:/srv/kvm-ha", "--boot"]
        hook = labnet.write_hook(lab, name)
        lab.daemon(name, [supervisor, name, lab.run_dir, ":".join(lower), f"kvm-ha-lab-{netns}", hook, "--", *nspawn], "supervisor.log")


def control(lab, name, command):
    """Asks a node's supervisor; None if it does not run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(30)
        try:
            s.connect(f"{lab.run_dir}/{name}/ctl.sock")
            s.send(command.encode())
            return s.recv(256).decode()
        except OSError:
            return None


def power_state(lab, name):
    """{"power": on|off|down|lost, "leader", "boots", "armed", "left_ms"}"""
    answer = control(lab, name, "status")
    if not answer:
        return {"power": "lost", "leader": 0, "boots": 0, "armed": 0, "left_ms": 0}
    power, *rest = answer.split()
    return {"power": power, **{k: int(v) for k, v in (r.split("=") for r in rest)}}


def set_power(lab, name, want):
    if control(lab, name, want) is None:
        raise LabError(f"{name}: its supervisor does not answer, see {lab.run_dir}/supervisor.log; run: lab down; lab up")
    if want == "off":
        wait_for(f"{name} off", 60, lambda: power_state(lab, name)["power"] == "off", 0.005)
    else:
        wait_up(lab, [name])


def exec_argv(lab, name, argv):
    leader = power_state(lab, name)["leader"]
    if not leader:
        return None
    if lab.state["vm"]:
        return labvm.exec_argv(lab, name, argv)
    return ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *argv]


def node_run(lab, name, argv, stdin=None, timeout=30):
    """Runs a command in a node. Never raises for what the command does: nodes may die under it."""
    full = exec_argv(lab, name, argv)
    if full is None:
        return subprocess.CompletedProcess(argv, 255, "", f"{name} is not running")
    try:
        return run(full, check=False, stdin=stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 255, "", f"no end within {timeout} s")


def wait_up(lab, names, seconds=60):
    def probe():
        for n in names:
            now = power_state(lab, n)
            if now["power"] == "lost" and lab.pid(n):
                return f"{n}: its supervisor is starting"
            if now["power"] in ("off", "lost"):
                raise LabError(f"{n} did not come up; see {lab.run_dir}/{n}.log and {lab.run_dir}/events.log")
            if not now["leader"]:
                return f"{n} is booting"
            done = node_run(lab, n, ["systemctl", "is-active", "multi-user.target"])
            if done.stdout.strip() != "active":
                return f"{n}: multi-user.target is {done.stdout.strip() or done.stderr.strip()}, see lab log {n}"
        return True
    wait_for("nodes boot", lab.patience(seconds), probe)


def wait_ring(lab, names, seconds=60):
    """Every one of names sees exactly these members with quorum in votes of all nodes."""
    def probe():
        for n in names:
            out = node_run(lab, n, ["corosync-quorumtool", "-s"]).stdout
            members = [line.split()[-1] for line in out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
            if len(members) != len(names):
                return f"{n} sees {len(members)} of {len(names)} members, see lab log {n}"
        return True
    wait_for("the corosync ring forms", lab.patience(seconds), probe)


def enable_services(lab):
    for n in lab.state["nodes"]:
        if lab.state["vm"]:
            node_run(lab, n, ["sh", "-c", f">{ENABLED}; sync"])
        else:
            _write(f"{lab.run_dir}/{n}/dev/enabled", "")


def stop_all(lab, names):
    for n in names:
        lab.kill(n, signal.SIGTERM)
    try:
        wait_for("supervisors end", 30, lambda: not any(lab.pid(n) for n in names), 0.01)
    except LabError:
        for n in names:  # nspawn and the node die with their supervisor
            lab.kill(n)
        wait_for("killed supervisors end", 30, lambda: not any(lab.pid(n) for n in names), 0.01)
    for path in glob.glob(f"/sys/fs/cgroup/kvm-ha-lab-{lab.prefix}-n*") + glob.glob(f"/sys/fs/cgroup/*/kvm-ha-lab-{lab.prefix}-n*"):
        wait_for(f"{path} is empty", 30, lambda p=path: _remove_cgroup(p), 0.02)


def _remove_cgroup(path):
    for here, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(here)
        except OSError:
            return False
    return True


def remove_files(lab):
    shutil.rmtree(lab.image_dir, ignore_errors=True)
    shutil.rmtree(lab.run_dir, ignore_errors=True)
    for d in ("/var/tmp/kvm-ha-lab", "/run/kvm-ha-lab", "/run/systemd/nspawn"):
        try:
            os.rmdir(d)
        except OSError:
            pass  # in use by another
