# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo: a power cut and its time line. Started by contrib/demo."""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

PARTS = os.path.dirname(os.path.realpath(__file__))
PREFIX = "khd"
VICTIM = "n3"
PATIENCE_S = 120


class DemoError(Exception):
    pass


def lab(*args, check=True):
    done = subprocess.run([f"{PARTS}/../lab", "--prefix", PREFIX, *args], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise DemoError(f"lab {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def say(text):
    print(text, flush=True)


def wait(what, probe):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        got = probe()
        if got:
            return got
        time.sleep(0.05)  # paces the probe
    raise DemoError(f"{what}: not within {PATIENCE_S} s; see contrib/lab --prefix {PREFIX} timeline (with --keep)")


def status():
    done = lab("exec", "n1", "--", "ha-ctl", "status", "-o", "json", check=False)
    return json.loads(done.stdout)["status"] if done.returncode == 0 else None


def vms_run():
    now = status()
    return now and now["vms"] and all(v["state"] == "running" for v in now["vms"]) and now["vms"]


def stamps(guest):
    return json.loads(lab("stamps", guest).stdout)


def first(events, pattern, after=0):
    return next(((int(ns), node, text) for ns, node, text in events if int(ns) >= after and re.search(pattern, text)), None)


def timeline(since):
    out = lab("timeline", "--since", str(since)).stdout
    return [tuple(line.split(" ", 2)) for line in out.splitlines() if line.count(" ") >= 2]


def first_write(guest, old_token):
    """When the guest's first stamp of a new life was on the server: what the watcher saw."""
    with open(f"/run/kvm-ha-lab/{PREFIX}/{guest}.watch", encoding="ascii") as f:
        for line in f:
            ns, _, token = line.split()
            if token != old_token:
                return int(ns)
    return None


def tell(cut, guests, before, conf, written):
    events = timeline(cut)
    timing = {v["key"]: v["value"] for v in conf["values"] if v["section"] == "Timing"}
    rows = [(cut, "power of n3 cut", "SIGKILL of the whole container: all its processes are gone at once")]

    def add(pattern, what, why, after=cut):
        hit = first(events, pattern, after)
        if hit:
            rows.append((hit[0], what + f" ({hit[1]})", why))
        return hit

    stale = f"W counts from its last heartbeat; after {timing['Watchdog']} and the reset delay it must have released itself"
    add(r"ha-keeper: node n3: its heartbeat stands still", "its heartbeat stands still", stale)
    add(r"ha-keeper: node n3 is being fenced", "fence committed on a quorum of the volumes", "should it come back late, it cannot renew its lease any more")
    over = add(r"ha-keeper: node n3: epoch \d+ is proven over", "its epoch is proven over",
               f"W = {timing['W']} have passed since its last heartbeat: its watchdog has reset it for certain")
    for guest in guests:
        uuid = before[guest]["uuid"]
        after = over[0] if over else cut
        add(rf"ha-agent: VM {guest}: claimed", f"{guest}: claimed", "read all claims, wrote, was acknowledged, read all again: nobody else has it", after)
        gate = add(rf"ha-keeper: VM {uuid}: process \d+ passes the gate", f"{guest}: drained, QEMU executed",
                   f"its disk's storage answered, then Drain = {timing['Drain']} for late writes", after)
        add(rf"ha-agent: VM {guest}: QEMU .* answers", f"{guest}: QEMU answers", "QMP is up, the guest boots", gate[0] if gate else after)
        rows.append((written[guest], f"{guest}: first new write", "the guest has booted and its write is on the server"))
    say("\n      t    after   what happened, and why")
    last = cut
    for ns, what, why in sorted(rows):
        say(f"{(ns - cut) / 1e9:7.3f} s {(ns - last) / 1e9:+7.3f}   {what}\n                     {why}")
        last = ns
    executed = [first(events, rf"ha-keeper: VM {before[g]['uuid']}: process \d+ passes the gate", cut)[0] for g in guests]
    say(f"\nPower cut to the last QEMU executed: {(max(executed) - cut) / 1e9:.3f} s; the bound that `ha-ctl config show` prints: "
        f"{conf['failover_bound_ms'] / 1000:.3f} s.")


def run(args):
    began = time.monotonic()
    guests = [f"g{i}" for i in range(1, args.guests + 1)]
    lab("down")
    say(f"Building and starting three nodes with volumes on {args.volumes}, profile {args.profile} ...")
    lab("up", "--profile", args.profile, "--volumes", args.volumes)
    say(f"The cluster is up and armed after {time.monotonic() - began:.1f} s. Starting {', '.join(guests)} on {VICTIM} ...")
    for g in guests:
        lab("guest", g, VICTIM)
    before = {v["name"]: v for v in wait("guests run", vms_run)}
    old = {g: wait(f"{g} writes", lambda g=g: stamps(g)["counter"] > 20 and stamps(g)["token"]) for g in guests}
    conf = json.loads(lab("exec", "n1", "--", "ha-ctl", "-o", "json", "config", "show").stdout)
    say(lab("exec", "n1", "--", "ha-ctl", "status").stdout)
    watchers = []
    for g in guests:
        with open(f"/run/kvm-ha-lab/{PREFIX}/{g}.watch", "w", encoding="ascii") as out:
            watchers.append(subprocess.Popen([f"{PARTS}/../lab", "--prefix", PREFIX, "watch", g], stdout=out))
    try:
        say(f"Cutting the power of {VICTIM} ...")
        lab("power", VICTIM, "off")
        with open(f"/run/kvm-ha-lab/{PREFIX}/events.log", encoding="ascii") as f:
            cut = max(int(x.split()[0]) for x in f if x.split()[1:3] == [VICTIM, "off"])
        written = {g: wait(f"{g} writes again", lambda g=g: first_write(g, old[g])) for g in guests}
    finally:
        for w in watchers:
            w.terminate()
            w.wait()
    wait("guests run", vms_run)
    tell(cut, guests, before, conf, written)
    done = lab("check", check=False)
    say(f"\nDid any guest ever run twice? {'No.' if done.returncode == 0 else 'YES:'}\n{done.stdout.strip()}\n")
    say(lab("exec", "n1", "--", "ha-ctl", "status").stdout)
    say(f"All of it took {time.monotonic() - began:.1f} s.")
    return done.returncode


def main():
    p = argparse.ArgumentParser(prog="demo")
    p.add_argument("--volumes", default="iscsi,nfs,iscsi", help="one to three of iscsi, nfs, file")
    p.add_argument("--profile", default="fast", choices=["fast", "standard", "safe"])
    p.add_argument("--guests", type=int, default=2, choices=range(1, 9))
    p.add_argument("--keep", action="store_true", help="leave the cluster up")
    args = p.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))  # the lab goes in any case
    try:
        return run(args)
    except DemoError as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    finally:
        if args.keep:
            say(f"The cluster stays up: contrib/lab --prefix {PREFIX} status; end it with contrib/lab --prefix {PREFIX} down")
        else:
            lab("down", check=False)


if __name__ == "__main__":
    sys.exit(main())
