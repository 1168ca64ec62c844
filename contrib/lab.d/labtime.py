# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened when: the nodes' logs (CLOCK_MONOTONIC) and the power events (CLOCK_REALTIME) on one clock, CLOCK_REALTIME ns."""
import re
import time

LINE = re.compile(r"\[ *(\d+)\.(\d{6})\] ([^\s\[:]+)(?:\[\d+\])?: (.*)")


def offset_ns():
    """CLOCK_REALTIME minus CLOCK_MONOTONIC; the containers share this machine's clocks. Of twenty readings the one that took the least time."""
    def reading():
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        return after - before, wall - (before + after) // 2
    return min(reading() for _ in range(20))[1]


def _node_lines(lab, name, shift):
    try:
        with open(f"{lab.run_dir}/{name}.log", encoding="utf-8", errors="replace") as f:
            for line in f:
                m = LINE.match(line)
                if m:
                    yield int(m[1]) * 10**9 + int(m[2]) * 1000 + shift, name, m[3], m[4].rstrip()
    except FileNotFoundError:
        return


def _power_lines(lab):
    try:
        with open(f"{lab.run_dir}/events.log", encoding="utf-8") as f:
            for line in f:
                ns, name, what = line.rstrip("\n").split(" ", 2)
                yield int(ns), name, "power", what
    except FileNotFoundError:
        return


def timeline(lab, since_ns=0):
    """[(ns, node, program, text)] in order; program "power" is the lab itself."""
    shift = offset_ns()
    lines = [x for x in _power_lines(lab) if x[0] >= since_ns]
    for name in lab.state["nodes"]:
        lines += (x for x in _node_lines(lab, name, shift) if x[0] >= since_ns)
    return sorted(lines)
