# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps with kvm-ha itself: volumes, services, arming."""
import json
import time

import labnode
from labcore import LabError, wait_for


def status(lab, name):
    """`ha-ctl status` of one node as an object, or a text that says why not."""
    done = labnode.node_run(lab, name, ["ha-ctl", "status", "-o", "json"], timeout=10)
    if done.returncode != 0:
        return f"ha-ctl on {name}: {(done.stderr or done.stdout).strip() or done.returncode}"
    try:
        now = json.loads(done.stdout)
        return now.get("status", now)
    except ValueError as e:
        return f"ha-ctl on {name} printed no JSON: {e}"


def _ha_ctl(lab, name, *args):
    done = labnode.node_run(lab, name, ["ha-ctl", *args], timeout=120)
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip()
        raise LabError(f"ha-ctl {' '.join(args)} on {name}: exit {done.returncode}: {why}; see lab log {name}")


EX_TEMPFAIL = 75


def _arm(lab, name):
    """The nodes are online a moment before one of them leads."""
    def probe():
        done = labnode.node_run(lab, name, ["ha-ctl", "arm"], timeout=120)
        if done.returncode not in (0, EX_TEMPFAIL):
            raise LabError(f"ha-ctl arm on {name}: exit {done.returncode}: {done.stderr.strip()}; see lab log {name}")
        return done.returncode == 0 or f"{done.stderr.strip()}; see lab log {name}"
    wait_for("ha-ctl arm is taken", lab.patience(60), probe)


def bring_up(lab, arm):
    nodes = lab.state["nodes"]
    _ha_ctl(lab, nodes[0], "volume", "init")
    labnode.enable_services(lab)
    for n in nodes:
        done = labnode.node_run(lab, n, ["systemctl", "start", "--no-block", *labnode.SERVICES])
        if done.returncode != 0:
            raise LabError(f"{n}: {done.stderr.strip()}")

    def all_have(key, value, remedy):
        def probe():
            now = status(lab, nodes[0])
            if isinstance(now, str):
                return f"{now}; {remedy}"
            bad = [n["name"] for n in now.get("nodes", []) if n.get(key) != value]
            missing = [n for n in nodes if n not in [x["name"] for x in now.get("nodes", [])]]
            return f"not {key}={value}: {', '.join(bad + missing)}; {remedy}" if bad or missing else True
        return probe

    wait_for("all nodes online", lab.patience(60), all_have("state", "online", f"see lab log {nodes[0]}"))
    if arm:
        _arm(lab, nodes[0])
        wait_for("all nodes armed", lab.patience(60), all_have("armed", True, "see ha-ctl status"))


def add_vm(lab, text, name):
    """Hands a VM file to the first node that takes it. One that says "try again later" is asked again: the others know no better who leads."""
    why = "no node runs"
    for n in lab.state["nodes"]:
        path = f"/tmp/{name}.vm"
        end = time.monotonic() + lab.patience(30)
        while True:
            done = labnode.node_run(lab, n, ["sh", "-c", f"cat >{path} && exec ha-ctl vm add {path}"], stdin=text, timeout=120)
            if done.returncode != EX_TEMPFAIL or time.monotonic() >= end:
                break
            time.sleep(0.5)
        if done.returncode == 0:
            return n
        why = f"{n}: {(done.stderr or done.stdout).strip()}"
    raise LabError(f"vm add {name}: {why}")
