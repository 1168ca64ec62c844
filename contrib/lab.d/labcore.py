# SPDX-License-Identifier: GPL-2.0-or-later
"""What all parts of the lab share: where things are, the lab's state file, running commands, waiting with a deadline."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import time

PARTS = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(PARTS))
CACHE = "/var/cache/kvm-ha-lab"
STORAGE_IP = "10.77.2.1"
STORAGE_IP2 = "10.77.3.1"  # the same servers on a network of its own: the second path
IQN = "iqn.2026-01.lab.kvm-ha"
MAX_NODES = 16


class LabError(Exception):
    """Something the operator has to know; the text names the remedy."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


def run(argv, check=True, stdin=None, **kwargs):
    """Runs a command to its end; its output is in the result and, if it fails, in the error."""
    done = subprocess.run(argv, input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def wait_for(what, seconds, probe, poll=0.05):
    """Calls probe() until it returns something true, which is returned. A text is not yet the answer, but why not."""
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got and not isinstance(got, str):
            return got
        if time.monotonic() >= end:
            raise LabError(f"{what}: not within {seconds:g} s" + (f"; {got}" if got else ""))
        time.sleep(poll)


def start_time(pid):
    """A pid with its start time names one process for good."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        return None


class Lab:
    def __init__(self, prefix):
        self.prefix = prefix
        self.run_dir = f"/run/kvm-ha-lab/{prefix}"
        self.image_dir = f"/var/tmp/kvm-ha-lab/{prefix}"
        self.switch = f"{prefix}-sw"
        self.state_file = f"{self.run_dir}/state.json"
        self.state = None

    def fresh_state(self, **kwargs):
        self.state = {"nodes": [], "volumes": [], "guests": {}, "pids": {}, "complete": False, "vm": False,
                      "net": {"down": [], "groups": [], "oneway": [], "storage_cut": [], "path_cut": []}, **kwargs}

    def load(self, must=True):
        try:
            with open(self.state_file, encoding="utf-8") as f:
                self.state = json.load(f)
        except FileNotFoundError:
            if must:
                raise LabError(f"no lab '{self.prefix}' is up; run: lab up") from None
        except ValueError as e:
            raise LabError(f"{self.state_file}: {e}; run: lab down") from None
        return self.state is not None

    def save(self):
        with open(self.state_file + ".new", "w", encoding="utf-8") as f:
            json.dump(self.state, f, indent=1)
        os.rename(self.state_file + ".new", self.state_file)

    @contextlib.contextmanager
    def lock(self):
        """One change of the lab at a time. The name of an abstract socket is a lock that leaves no file behind."""
        with socket.socket(socket.AF_UNIX) as s:
            def taken():
                try:
                    s.bind(f"\0kvm-ha-lab-{self.prefix}")
                    return True
                except OSError:
                    return f"another command is changing lab '{self.prefix}'; wait for it or end it"
            wait_for("the lab's lock", 120, taken)
            yield

    def node(self, name):
        if name not in self.state["nodes"]:
            raise LabError(f"there is no node '{name}'; nodes are {', '.join(self.state['nodes'])}", 2)
        return name

    def kinds(self):
        return {v["kind"] for v in self.state["volumes"]}

    def patience(self, n):
        """As much, for machines that are emulated."""
        return 4 * n if self.state["vm"] else n

    # Long-running processes of the lab: started in a session of their own, remembered by pid and start time.

    def daemon(self, key, argv, log, env=None):
        with open(f"{self.run_dir}/{log}", "ab") as out:
            p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/",
                                 env=None if env is None else {**os.environ, **env})
        self.state["pids"][key] = [p.pid, start_time(p.pid)]
        self.save()
        return p

    def pid(self, key):
        pid, started = self.state["pids"].get(key, (0, None))
        return pid if pid and started is not None and start_time(pid) == started else 0

    def kill(self, key, sig=signal.SIGKILL):
        pid = self.pid(key)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        return pid
