# SPDX-License-Identifier: GPL-2.0-or-later
"""The nodes' root file system (made once, cached), and the built tree that lies over it."""
import fcntl
import glob
import hashlib
import os
import re
import shutil

from labcore import CACHE, PARTS, TOP, LabError, run

ROOT = f"{CACHE}/rootfs"
SUITE = "bookworm"
DEBIAN = "http://deb.debian.org/debian"


def _entries_of(path):
    """(types, uris, suites, components, options) of one apt source file, of either form."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if path.endswith(".list"):
        for line in text.splitlines():
            m = re.match(r"\s*(deb)\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.split("#")[0])
            if m:
                yield [m[1]], [m[2]], [m[3]], m[4].split()
        return
    for part in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = dict(re.findall(r"(?mi)^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", part))
        fields = {k.lower(): v.split() for k, v in fields.items()}
        if fields.get("enabled", ["yes"])[0].lower() not in ("no", "false", "0"):
            yield fields.get("types", []), fields.get("uris", []), fields.get("suites", []), fields.get("components", [])


def _for_debootstrap(uri):
    """What debootstrap takes in place of an apt source's address, which may be a file with a list of mirrors; None if there is nothing."""
    if uri.startswith("mirror+file:"):
        try:
            with open(re.sub("^mirror[+]file:(//(?=/))?", "", uri), encoding="utf-8") as f:
                listed = [line.split()[0] for line in f if line.strip() and not line.startswith("#")]
        except OSError:
            return None
        return next((u for u in listed if re.match("(https?|file):", u)), None)
    return uri if re.match("(https?|file):", uri) else None


def mirror(apt="/etc/apt"):
    """Where this machine gets its packages from."""
    for path in [f"{apt}/sources.list", *sorted(glob.glob(f"{apt}/sources.list.d/*"))]:
        if not path.endswith((".list", ".sources")) or not os.path.exists(path):
            continue
        for types, uris, suites, components in _entries_of(path):
            if "deb" in types and "main" in components and SUITE in suites:
                for uri in filter(None, map(_for_debootstrap, uris)):
                    return uri
    return DEBIAN


def ensure_root(say, root, packages, made_from, then=None):
    """Makes a root of these packages if there is none or if it was made from something else; then() is called with a new one before it counts."""
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/.lock", "w", encoding="ascii") as lock:  # labs side by side share it
        fcntl.flock(lock, fcntl.LOCK_EX)
        _ensure_root_locked(say, root, packages, made_from, then)


def _ensure_root_locked(say, root, packages, made_from, then):
    want = hashlib.sha256(f"{SUITE} {made_from}\n".encode()).hexdigest()
    stamp = f"{root}.stamp"
    if os.path.isdir(root) and os.path.exists(stamp):
        with open(stamp, encoding="ascii") as f:
            if f.read().strip() == want:
                return
    say("making the nodes' root file system (about a minute, once)")
    os.makedirs(f"{CACHE}/debs", exist_ok=True)
    new = f"{root}.new"
    shutil.rmtree(new, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", f"--cache-dir={CACHE}/debs", f"--include={packages}", SUITE, new, mirror()])
    if then:
        then(new)
    shutil.rmtree(root, ignore_errors=True)
    os.rename(new, root)
    with open(stamp, "w", encoding="ascii") as f:
        f.write(want + "\n")


def _fits(top):
    """Configured for the paths that the nodes use?"""
    try:
        with open(f"{top}/Makefile", encoding="utf-8") as f:
            text = f.read()
    except OSError:
        return False
    return all(re.search(rf"(?m)^{line}$", text) for line in ("prefix = /usr", "sysconfdir = /etc"))


def build_tree():
    """Builds what is not built; returns the folder of the Makefile. `make check` tests what it built, if that fits into a node."""
    top = next((t for t in (os.environ.get("KVM_HA_BUILD_DIR"), TOP) if t and _fits(t)), None)
    if not top:
        top = f"{TOP}/build-lab"
        if not os.path.exists(f"{TOP}/configure"):
            run(["autoreconf", "-fi", TOP])
        if not _fits(top):
            os.makedirs(top, exist_ok=True)
            run([f"{TOP}/configure", "--prefix=/usr", "--sysconfdir=/etc", "--localstatedir=/var"], cwd=top)
    make(top, "-j2")
    return top


def make(top, *args):
    """make that knows nothing of a make we may run under."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR")}
    run(["make", "-C", top, "-s", *args], env=env)


def install_tree(lab):
    tree = f"{lab.image_dir}/tree"
    shutil.rmtree(tree, ignore_errors=True)
    make(build_tree(), "install", f"DESTDIR={tree}")
    for name in os.listdir(tree):
        # Over a merged-/usr root such a folder would hide /bin and /lib with everything in them.
        if os.path.islink(f"{ROOT}/{name}"):
            raise LabError(f"make install writes to /{name}; configure it with --prefix=/usr")
    return tree


def build_supervisor(lab):
    """lab-node, from the build if it has one; built here for a bare lab, which needs nothing of the tree."""
    for top in (os.environ.get("KVM_HA_BUILD_DIR", TOP), TOP, f"{TOP}/build-lab"):
        for path in (f"{top}/contrib/lab.d/lab-node", f"{top}/lab-node"):
            if os.access(path, os.X_OK) and os.path.getmtime(path) >= os.path.getmtime(f"{PARTS}/lab-node.c"):
                return path
    path = f"{lab.image_dir}/lab-node"
    run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-o", path, f"{PARTS}/lab-node.c"])
    return path
