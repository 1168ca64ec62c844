# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch: a network namespace with three bridges, ring and two storage networks, and the drop rules that partition them."""
import itertools
import os

from labcore import STORAGE_IP, STORAGE_IP2, LabError, run

HOOK = """#!/bin/sh
# Run by lab-node: plugs the node in before each boot and unplugs it after. The namespace is new each time, or what a dead boot
# left in a socket buffer could be sent by the next one.
ip -n {switch} link del r{id} 2>/dev/null
ip -n {switch} link del s{id} 2>/dev/null
ip -n {switch} link del u{id} 2>/dev/null
ip netns del {netns} 2>/dev/null
[ "$1" = up ] || exit 0
ip netns add {netns} &&
ip -n {switch} -batch - <<END && ip -n {netns} -batch - <<END
link add r{id} type veth peer name ring0 address 02:77:01:00:00:{id:02x} netns {netns}
link set r{id} master ring up
link add s{id} type veth peer name stor0 address 02:77:02:00:00:{id:02x} netns {netns}
link set s{id} master stor up
link add u{id} type veth peer name stor1 address 02:77:03:00:00:{id:02x} netns {netns}
link set u{id} master spar up
END
addr add {ring_ip}/24 dev ring0
addr add {storage_ip}/24 dev stor0
addr add {storage_ip2}/24 dev stor1
link set lo up
link set ring0 up
link set stor0 up
link set stor1 up
END
"""


PATH_PORTS = "su"  # of the first and the second storage network


def node_id(name):
    return int(name[1:])


def ring_ip(name):
    return f"10.77.1.{10 + node_id(name)}"


def storage_ip(name):
    return f"10.77.2.{10 + node_id(name)}"


def make_switch(lab):
    run(["ip", "netns", "add", lab.switch])
    # The storage host's ports must not learn of a node's new address late: nodes keep theirs, see HOOK.
    # And the bridges have addresses of their own: one taken from a port would change, and be unknown to all, when that port goes with its node.
    run(["ip", "-n", lab.switch, "-batch", "-"],
        stdin=f"link add ring address 02:77:01:00:00:ff type bridge\nlink add stor address 02:77:02:00:00:ff type bridge\naddr add {STORAGE_IP}/24 dev stor\n"
              f"link add spar address 02:77:03:00:00:ff type bridge\naddr add {STORAGE_IP2}/24 dev spar\n"
              "link set lo up\nlink set ring up\nlink set stor up\nlink set spar up\n")
    apply_rules(lab)


def write_hook(lab, name):
    path = f"{lab.run_dir}/{name}/net"
    with open(path, "w", encoding="ascii") as f:
        f.write(HOOK.format(switch=lab.switch, netns=f"{lab.prefix}-{name}", id=node_id(name), ring_ip=ring_ip(name),
                            storage_ip=storage_ip(name), storage_ip2=storage_ip(name).replace("10.77.2.", "10.77.3.")))
    os.chmod(path, 0o755)
    return path


def blocked_pairs(net):
    """Ring pairs (from, to) that a split or a one-way cut silences."""
    pairs = {tuple(p) for p in net["oneway"]}
    for a, b in itertools.permutations(net["groups"], 2):
        pairs |= {(x, y) for x in a for y in b}
    return sorted(pairs)


def apply_rules(lab):
    """Puts all rules in force at once, from the state. Silent drops: a cable carries no reset."""
    net = lab.state["net"]
    forward = [f'iifname "r{node_id(a)}" oifname "r{node_id(b)}" drop' for a, b in blocked_pairs(net)]
    for n in net["down"]:
        forward += [f'iifname "r{node_id(n)}" drop', f'oifname "r{node_id(n)}" drop']
    cut = [f"{port}{node_id(n)}" for n in net["storage_cut"] for port in PATH_PORTS]
    cut += [f"{PATH_PORTS[path - 1]}{node_id(n)}" for n, path in net["path_cut"]]
    chains = {"forward": forward + [f'{d} "{p}" drop' for p in cut for d in ("iifname", "oifname")],
              "input": [f'iifname "{p}" drop' for p in cut], "output": [f'oifname "{p}" drop' for p in cut]}
    text = "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n"
    for hook, rules in chains.items():
        text += f"chain at_{hook} {{\ntype filter hook {hook} priority 0; policy accept;\n" + "".join(r + "\n" for r in rules) + "}\n"
    run(["ip", "netns", "exec", lab.switch, "nft", "-f", "-"], stdin=text + "}\n")


def parse_groups(lab, text):
    groups = [[lab.node(n) for n in g.split(",") if n] for g in text.split("/")]
    names = [n for g in groups for n in g]
    if len(groups) < 2 or not all(groups) or len(set(names)) != len(names):
        raise LabError(f"bad groups '{text}'; write for example n1,n2/n3, each node once", 2)
    rest = [n for n in lab.state["nodes"] if n not in names]
    if rest:
        raise LabError(f"in no group: {', '.join(rest)}; name every node once", 2)
    return groups


def remove_all(lab):
    """Namespaces of this lab by name, so that a half-made lab goes too."""
    for line in run(["ip", "netns", "list"], check=False).stdout.splitlines():
        name = line.split()[0]
        if name == lab.switch or (name.startswith(f"{lab.prefix}-n") and name[len(lab.prefix) + 2:].isdigit()):
            run(["ip", "netns", "del", name], check=False)
    if os.path.isdir("/run/netns") and not os.listdir("/run/netns"):
        run(["umount", "/run/netns"], check=False)  # iproute2 mounts it on itself with the first namespace
