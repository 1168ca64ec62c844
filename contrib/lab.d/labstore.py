# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage host: tgtd, rpcbind and ganesha in the switch's namespace, with /run and /var/lib/nfs of their own; images."""
import os
import signal

import labvm
from labcore import IQN, STORAGE_IP, STORAGE_IP2, LabError, run, wait_for

VOLUME_BYTES = 64 << 20
SERVER = {"iscsi": "tgtd", "nfs": "ganesha"}
PLACES = ("iscsi", "nfs", "file")
KERNEL_KINDS = {"block": "iscsi", "mount": "nfs"}  # by a virtual machine's own kernel, of that server
KINDS = ("iscsi", "nfs", "file", *KERNEL_KINDS)

GANESHA = """NFS_CORE_PARAM {{
	Protocols = 3;
	MNT_Port = 20048;
	Enable_NLM = false;
	Enable_RQUOTA = false;
	mount_path_pseudo = true;
}}
NFSV4 {{ Graceless = true; }}
EXPORT {{
	Export_Id = 1;
	Path = {path};
	Pseudo = /srv;
	Protocols = 3;
	Transports = TCP;
	Access_Type = RW;
	Squash = None;
	SecType = sys;
	FSAL {{ Name = VFS; }}
}}
"""


def sparse(path, size):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.truncate(size)


def files(lab, node):
    """Here, what that node has as /srv/kvm-ha."""
    return f"{lab.state['files']}/{node}" if lab.state["files"] else f"{lab.image_dir}/file"


def volume(lab, kind, index):
    """One volume: its image here and the URL the nodes use."""
    hosts = [STORAGE_IP, STORAGE_IP2][:lab.state["paths"]]
    if kind == "iscsi":
        return {"kind": kind, "image": f"{lab.image_dir}/iscsi/vol{index}.img", "target": f"{IQN}:vol{index}",
                "url": f"iscsi://{','.join(h + ':3260' for h in hosts)}/{IQN}:vol{index}/1"}
    if kind == "nfs":
        return {"kind": kind, "image": f"{lab.image_dir}/nfs/vol{index}/hb.img", "url": f"nfs://{','.join(hosts)}/srv/vol{index}/hb.img"}
    if kind in KERNEL_KINDS:
        return _by_kernel(volume(lab, KERNEL_KINDS[kind], index), kind)
    return {"kind": kind, "image": f"{files(lab, 'n1')}/vol{index}/hb.img", "url": f"/srv/kvm-ha/vol{index}/hb.img"}


def guest_disk(lab, kind, name):
    if kind == "iscsi":
        return {"kind": kind, "image": f"{lab.image_dir}/iscsi/guest-{name}.img", "target": f"{IQN}:guest-{name}",
                "url": f"iscsi://{STORAGE_IP}:3260/{IQN}:guest-{name}/1"}
    if kind == "nfs":
        return {"kind": kind, "image": f"{lab.image_dir}/nfs/guests/{name}.img", "url": f"nfs://{STORAGE_IP}/srv/guests/{name}.img"}
    if kind in KERNEL_KINDS:
        return _by_kernel(guest_disk(lab, KERNEL_KINDS[kind], name), kind)
    return {"kind": kind, "image": f"{files(lab, 'n1')}/guests/{name}.img", "url": f"/srv/kvm-ha/guests/{name}.img"}


def _by_kernel(d, kind):
    if kind == "block":
        return {**d, "kind": kind, "url": f"/dev/disk/by-path/ip-{STORAGE_IP}:3260-iscsi-{d['target']}-lun-1"}
    return {**d, "kind": kind, "url": d["url"].replace(f"nfs://{STORAGE_IP}/srv", labvm.NFS_MOUNT)}


def served(lab):
    """The servers this lab has."""
    return {KERNEL_KINDS.get(k, k) for k in lab.kinds()} & set(SERVER)


def _takes_direct_io(path):
    try:
        fd = os.open(f"{path}/probe", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    except OSError:
        return False
    finally:
        if os.path.exists(f"{path}/probe"):
            os.unlink(f"{path}/probe")
    os.close(fd)
    return True


def make_place(lab, kind):
    """A folder for images, in memory: the servers sync every write, and this machine's disk may be busy for longer than any profile
    bears. Files want O_DIRECT, which tmpfs has since Linux 6.6; before, they are on the disk."""
    path = f"{lab.image_dir}/{kind}"
    os.makedirs(path, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "kvm-ha-lab", path])
    if kind == "file" and not _takes_direct_io(path):
        run(["umount", path])


def remove_places(lab):
    for kind in PLACES:
        path = f"{lab.image_dir}/{kind}"
        while os.path.ismount(path):
            run(["umount", "--lazy", path])


def make_volumes(lab, kinds):
    lab.state["volumes"] = [volume(lab, k, i) for i, k in enumerate(kinds, 1)]
    for kind in PLACES:
        make_place(lab, kind)
    for v in lab.state["volumes"]:
        sparse(v["image"], VOLUME_BYTES)
    lab.save()


def _spawn(lab, key, argv):
    """A server in the switch's namespace that sees nothing of the host's /run."""
    own = f"{lab.run_dir}/storage"
    for d in ("run", "run/rpcbind", "run/ganesha", "nfs", "nfs/ganesha"):
        os.makedirs(f"{own}/{d}", exist_ok=True)
    script = f'mount --bind {own}/nfs /var/lib/nfs && mount --bind {own}/run /run && exec "$@"'
    os.makedirs("/var/lib/nfs", exist_ok=True)
    return lab.daemon(key, ["nsenter", f"--net=/run/netns/{lab.switch}", "unshare", "--mount", "--propagation", "private",
                            "sh", "-c", script, "sh", *argv], "storage.log")


def tgtadm(lab, script):
    """Runs tgtadm commands where tgtd's control socket is. A stopped tgtd would answer never: so there is a limit."""
    pid = lab.pid("tgtd")
    if not pid:
        raise LabError("the iSCSI server is not running; run: lab storage start iscsi")
    return run(["timeout", "60", "nsenter", "-t", str(pid), "-m", "-n", "sh", "-ec", script], check=False)


def targets(lab):
    return [d for d in [*lab.state["volumes"], *lab.state["guests"].values()] if "target" in d]


def add_targets(lab, disks):
    script = ""
    for d in disks:
        tid = [t["target"] for t in targets(lab)].index(d["target"]) + 1
        script += (f"tgtadm --lld iscsi --mode target --op new --tid {tid} --targetname {d['target']}\n"
                   f"tgtadm --lld iscsi --mode logicalunit --op new --tid {tid} --lun 1 --backing-store {d['image']}\n"
                   f"tgtadm --lld iscsi --mode target --op bind --tid {tid} --initiator-address ALL\n")
    done = tgtadm(lab, script)
    if done.returncode != 0:
        raise LabError(f"tgtadm: exit {done.returncode} {done.stderr.strip()}; if the server hangs run: lab storage resume iscsi")


def start_iscsi(lab):
    p = _spawn(lab, "tgtd", ["tgtd", "-f", "--iscsi", f"portal={STORAGE_IP}:3260"])
    wait_for("tgtd answers", 60, lambda: _alive(p, "tgtd", lab) and tgtadm(lab, "tgtadm --mode sys --op show").returncode == 0)
    tgtadm(lab, f"tgtadm --lld iscsi --mode portal --op new --param portal={STORAGE_IP2}:3260")
    add_targets(lab, targets(lab))


def _alive(p, what, lab):
    if p.poll() is not None:
        raise LabError(f"{what} ended with {p.returncode}; see {lab.run_dir}/storage.log and {lab.run_dir}/storage/run")
    return True


def start_nfs(lab):
    if not lab.pid("rpcbind"):
        p = _spawn(lab, "rpcbind", ["rpcbind", "-f", "-w"])
        wait_for("rpcbind answers", 60, lambda: _alive(p, "rpcbind", lab) and _rpc_program(lab, "100000"))
    with open(f"{lab.run_dir}/storage/run/ganesha.conf", "w", encoding="ascii") as f:
        f.write(GANESHA.format(path=f"{lab.image_dir}/nfs"))
    # Ganesha gives its clients no word on a mount while it starts; registered with rpcbind means that it serves.
    forget = "rpcinfo -d 100003 3; rpcinfo -d 100005 3; rpcinfo -d 100005 1"
    run(["nsenter", "-t", str(lab.pid("rpcbind")), "-m", "-n", "sh", "-c", forget], check=False)
    p = _spawn(lab, "ganesha", ["ganesha.nfsd", "-F", "-f", "/run/ganesha.conf", "-L", "/run/ganesha.log",
                                "-p", "/run/ganesha/pid", "-N", "NIV_EVENT"])  # paths in its own /run
    wait_for("the NFS server answers", 60, lambda: _alive(p, "ganesha.nfsd", lab) and _rpc_program(lab, "100003") and
             _rpc_program(lab, "100005"))


def _rpc_program(lab, number):
    done = run(["timeout", "2", "nsenter", "-t", str(lab.pid("rpcbind")), "-m", "-n", "rpcinfo", "-p", STORAGE_IP], check=False)
    return any(line.split()[:1] == [number] for line in done.stdout.splitlines())


def start(lab, kind):
    if lab.pid(SERVER[kind]):
        return
    if kind == "iscsi":
        start_iscsi(lab)
    else:
        start_nfs(lab)


def verb(lab, what, kind):
    """hang, resume, stop, start of one server or of all."""
    here = [k for k in SERVER if k in served(lab)]
    if kind and kind not in here:
        raise LabError(f"this lab serves no {kind}; it has {', '.join(here) or 'file volumes only'}", 2)
    if not here:
        raise LabError("file volumes have no server to stop; bring the lab up with --volumes iscsi,nfs,iscsi", 2)
    for k in [kind] if kind else here:
        if what == "start":
            start(lab, k)
            continue
        if not lab.kill(SERVER[k], {"hang": signal.SIGSTOP, "resume": signal.SIGCONT, "stop": signal.SIGKILL}[what]):
            raise LabError(f"the {k} server is not running; run: lab storage start {k}")


def state_of(lab, kind):
    pid = lab.pid(SERVER[kind])
    if not pid:
        return "stopped"
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return "hung" if f.read().rpartition(")")[2].split()[0] in "Tt" else "serving"


def stop_all(lab):
    pids = [lab.kill(k) for k in ("tgtd", "ganesha", "rpcbind")]
    wait_for("storage servers end", 30, lambda: not any(p and os.path.exists(f"/proc/{p}") and lab.pid(k) for k, p in
                                                       zip(("tgtd", "ganesha", "rpcbind"), pids)), 0.01)
