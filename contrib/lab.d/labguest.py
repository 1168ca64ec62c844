# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that stamp their disk, and what the stamps tell (the layout of the disk is in guest.S)."""
import os
import re
import struct
import time

import labha
import labnode
import labstore
import labvm
from labcore import PARTS, LabError, run

SECTOR = 512
HEADER, EVIDENCE, LOG_START, LOG_LEN = 64, 65, 128, 7168
DISK_BYTES = 4 << 20
TICK_MS = 54.9254
STAMP = struct.Struct("<8sQIIQI")


def _program(lab):
    path = f"{lab.image_dir}/guest.bin"
    if not os.path.exists(path):
        run(["as", "--32", "-o", f"{path}.o", f"{PARTS}/guest.S"])
        run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", path, f"{path}.o"])
    with open(path, "rb") as f:
        return f.read()


def disk(lab, name):
    if name not in lab.state["guests"]:
        raise LabError(f"there is no guest '{name}'; there are: {', '.join(lab.state['guests']) or 'none'}", 2)
    return lab.state["guests"][name]


def make_disk(lab, name, kind):
    """The guest's disk on its server; one that is there stays as it is."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", name):
        raise LabError(f"bad guest name '{name}'; use letters, digits, '.', '_', '-'", 2)
    if name in lab.state["guests"]:
        have = lab.state["guests"][name]
        if kind and have["kind"] != kind:
            raise LabError(f"guest {name} has its disk on {have['kind']}; take another name for one on {kind}", 2)
        return have
    kind = kind or next(k for k in labstore.KINDS if k in lab.kinds())
    if kind != "file" and labstore.KERNEL_KINDS.get(kind, kind) not in labstore.served(lab):
        raise LabError(f"this lab serves no {kind}; bring it up with such a volume or use --disk file", 2)
    d = labstore.guest_disk(lab, kind, name)
    labstore.sparse(d["image"], DISK_BYTES)
    with open(d["image"], "r+b") as f:
        f.write(_program(lab))
    lab.state["guests"][name] = d
    try:
        if "target" in d:
            labstore.add_targets(lab, [d])
        if kind in labstore.KERNEL_KINDS:
            _attach(lab, d)
    except LabError:
        del lab.state["guests"][name]
        raise
    lab.save()
    return d


def _attach(lab, d):
    """By each node's kernel, now and at its next boots."""
    word = f"echo {d['target']} >>{labvm.OWN}/targets" if "target" in d else f">{labvm.OWN}/mount"
    for n in lab.state["nodes"]:
        done = labnode.node_run(lab, n, ["sh", "-c", f"{word} && sync && lab-storage && udevadm settle"], timeout=60)
        if done.returncode != 0:
            raise LabError(f"{n} does not get {d['url']}: {done.stderr.strip()}; all nodes must run when a guest is made")


def qemu_arguments(name, d):
    """With -trace, each time that the guest is paused or goes on is a line of /run/lab-guest-NAME.trace in its node."""
    return ["-machine", "pc,accel=tcg", "-nodefaults", "-display", "none", "-serial", "none", "-trace", "runstate_set", "-D", f"/run/lab-guest-{name}.trace",
            "-drive", f"if=none,id=d0,format=raw,cache=none,file={d['url']}", "-device", "virtio-blk-pci,drive=d0,bootindex=0"]


def vm_file(name, node, d):
    a = qemu_arguments(name, d)
    return (f"[VM]\nName={name}\nMemory=32M\nVCPUs=1\nDisk={d['url']}\n\n[QEMU]\nBinary=/usr/bin/qemu-system-x86_64\n"
            f"Arguments={' '.join(a[:13])}\n  {' '.join(a[13:])}\n\n[HA]\nState=started\nPreferredNodes={node}\n")


def run_by_hand(lab, name, node, d):
    """Without kvm-ha: nothing keeps the same guest from running twice. As libvirt's are: -no-shutdown, and a monitor of its own at /run/lab-guest-NAME.monitor
    in the node beside the one for kvm-ha, /run/lab-guest-NAME.qmp."""
    argv = ["systemd-run", "--quiet", "--slice=lab-guests.slice", f"--unit=lab-guest-{name}", "--collect",
            "/usr/bin/qemu-system-x86_64", "-name", name, "-m", "32M", *qemu_arguments(name, d), "-no-shutdown",
            *(word for end in ("qmp", "monitor") for word in ("-qmp", f"unix:/run/lab-guest-{name}.{end},server=on,wait=off"))]
    done = labnode.node_run(lab, node, argv)
    if done.returncode != 0:
        raise LabError(f"{node}: {done.stderr.strip()}")


def add(lab, name, node, d):
    return labha.add_vm(lab, vm_file(name, node, d), name)


def _stamp(sector):
    magic, token, counter, ticks, prev, prev_counter = STAMP.unpack_from(sector)
    if magic != b"KHLSTAMP":
        return None
    return {"token": f"{token:016x}", "counter": counter, "ticks": ticks, "prev": f"{prev:016x}", "prev_counter": prev_counter}


def read_all(image):
    """Everything the stamps tell about a guest."""
    with open(image, "rb") as f:
        mtime_ns = os.fstat(f.fileno()).st_mtime_ns
        data = f.read()
    sector = [data[i:i + SECTOR] for i in range(0, len(data), SECTOR)]
    header = _stamp(sector[HEADER])
    magic, evidence = struct.unpack_from("<4sH", sector[EVIDENCE])
    log = sorted(filter(None, map(_stamp, sector[LOG_START:LOG_START + LOG_LEN])), key=lambda s: s["counter"])
    lives, interleaved, gap_ticks = [], False, 0
    for i, s in enumerate(log):
        if not lives or lives[-1]["token"] != s["token"]:
            interleaved |= any(life["token"] == s["token"] for life in lives)
            lives.append({"token": s["token"], "first": s["counter"], "last": s["counter"]})
        else:
            gap_ticks = max(gap_ticks, s["ticks"] - log[i - 1]["ticks"])
        lives[-1]["last"] = s["counter"]
    return {"token": header["token"] if header else None, "counter": header["counter"] if header else 0, "lives": lives,
            "evidence": evidence if magic == b"KHLE" else 0, "interleaved": interleaved, "gap_ms": round(gap_ticks * TICK_MS),
            "mtime_ns": mtime_ns}


def check(lab):
    """One line a guest; False if any ever ran twice."""
    good = True
    for name, d in lab.state["guests"].items():
        r = read_all(d["image"])
        twice = r["evidence"] > 0 or r["interleaved"]
        good &= not twice
        lives = r["lives"] if len(r["lives"]) <= 8 else r["lives"][-8:]
        print(f"{name}: {'RAN TWICE' if twice else 'ok'} counter={r['counter']} lives={len(r['lives'])} evidence={r['evidence']} "
              f"interleaved={'yes' if r['interleaved'] else 'no'} biggest_gap_ms={r['gap_ms']}")
        for life in lives:
            print(f"  {life['token']} {life['first']}..{life['last']}")
    return good


def watch(image, seconds):
    """A line for each new stamp: wall clock in ns, counter, token. The file is polled, so a stamp is seen up to 20 ms late."""
    last = None
    end = time.monotonic() + seconds if seconds else None
    with open(image, "rb", buffering=0) as f:
        while end is None or time.monotonic() < end:
            s = _stamp(os.pread(f.fileno(), SECTOR, HEADER * SECTOR))
            if s and (s["token"], s["counter"]) != last:
                last = (s["token"], s["counter"])
                print(f"{time.time_ns()} {s['counter']} {s['token']}", flush=True)
            time.sleep(0.02)
