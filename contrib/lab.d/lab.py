# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's command: a whole cluster on one machine. Started by contrib/lab, which also does `exec`."""
import argparse
import json
import os
import sys
import time

import labguest
import labha
import labnet
import labnode
import labroot
import labstore
import labtime
import labvm
from labcore import MAX_NODES, Lab, LabError

EXIT_CODES = """exit codes: 0 done; 1 it did not work, the message says what to do; 2 used wrongly; exec passes the command's own.
State is in /run/kvm-ha-lab/PREFIX (nN.log: a node's console and journal; events.log: power), images in /var/tmp/kvm-ha-lab/PREFIX."""


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def up(lab, args):
    if lab.load(must=False):
        if lab.state["complete"]:
            say(f"'{lab.prefix}' is up already, as it was asked for then; run: lab down, to change it")
            return 0
        say("removing a lab that did not come up")
        remove(lab)
    started = time.monotonic()
    kinds = args.volumes.split(",")
    if not 1 <= args.nodes <= MAX_NODES:
        raise LabError(f"--nodes takes 1 to {MAX_NODES}", 2)
    if not 1 <= len(kinds) <= 3 or not set(kinds) <= set(labstore.KINDS):
        raise LabError(f"--volumes takes one to three of {', '.join(labstore.KINDS)}, with commas between", 2)
    if any(k in labstore.KERNEL_KINDS for k in kinds) and not args.vm:
        raise LabError("volumes of kind block and mount need a kernel of the node's own; add --vm", 2)
    if args.vm and "file" in kinds:
        raise LabError("virtual machines share no folder with this machine: no volumes of kind file with --vm", 2)
    if args.files and (args.vm or not all(os.path.ismount(f"{args.files}/n{i}") for i in range(1, args.nodes + 1))):
        raise LabError(f"--files takes a folder with a mount for each node, {args.files}/n1 and so on, and no --vm", 2)
    if args.vm:
        labvm.ensure(say)
    else:
        packages = os.environ["KVM_HA_LAB_NODE_PACKAGES"]
        labroot.ensure_root(say, labroot.ROOT, packages, packages)
    for d in (lab.run_dir, lab.image_dir):
        os.makedirs(d, exist_ok=True)
    lab.fresh_state(nodes=[f"n{i}" for i in range(1, args.nodes + 1)], profile=args.profile, bare=args.bare, paths=args.paths, vm=args.vm,
                    files=args.files and os.path.abspath(args.files))
    lab.save()
    tree = None if args.bare else labroot.install_tree(lab)
    supervisor = labroot.build_supervisor(lab)
    labnet.make_switch(lab)
    if args.vm:
        labvm.make_switch(lab)
    labstore.make_volumes(lab, kinds)
    labnode.start_all(lab, supervisor, tree)  # they boot while the servers start
    for kind in labstore.SERVER:
        if kind in labstore.served(lab):
            labstore.start(lab, kind)
    labnode.wait_up(lab, lab.state["nodes"])
    labnode.wait_ring(lab, lab.state["nodes"])
    if not args.bare:
        labha.bring_up(lab, not args.no_arm)
    lab.state["complete"] = True
    lab.save()
    say(f"'{lab.prefix}' is up after {time.monotonic() - started:.1f} s: {', '.join(lab.state['nodes'])}")
    return 0


def remove(lab):
    labnode.stop_all(lab, lab.state["nodes"])
    labstore.stop_all(lab)
    labnet.remove_all(lab)
    labstore.remove_places(lab)
    labnode.remove_files(lab)


def down(lab, args):
    try:
        lab.load(must=False)
    except LabError as e:
        say(str(e))
    if lab.state is None:
        lab.fresh_state()
    remove(lab)
    return 0


def status(lab, args):
    now = {"prefix": lab.prefix, "complete": lab.state["complete"],
           "nodes": {n: labnode.power_state(lab, n) for n in lab.state["nodes"]},
           "storage": {k: labstore.state_of(lab, k) for k in labstore.SERVER if k in labstore.served(lab)}, "net": lab.state["net"],
           "volumes": [v["url"] for v in lab.state["volumes"]], "guests": {g: d["url"] for g, d in lab.state["guests"].items()},
           "watchdogs": {} if lab.state["vm"] else {n: f"{lab.run_dir}/{n}/dev/watchdog.sock" for n in lab.state["nodes"]}}
    if args.output == "json":
        print(json.dumps(now, indent=1))
        return 0
    for n, s in now["nodes"].items():
        flags = [w for k, w in (("down", "ring down"), ("storage_cut", "storage cut")) if n in now["net"][k]]
        dog = f"watchdog armed, {s['left_ms']} ms left" if s["armed"] else "watchdog off"
        print(f"{n}  {s['power']:4}  pid {s['leader']}  boots {s['boots']}  {dog}  {', '.join(flags)}".rstrip())
    for k, s in now["storage"].items():
        print(f"{k}  {s}")
    if now["net"]["groups"]:
        print("split  " + " / ".join(",".join(g) for g in now["net"]["groups"]))
    for a, b in now["net"]["oneway"]:
        print(f"oneway  {a} does not reach {b}")
    for what in (*now["volumes"], *(f"{g}  {u}" for g, u in now["guests"].items())):
        print(what)
    return 0


def node_exec(lab, args):
    """Slow form of what contrib/lab does itself; here for an odd command line."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    argv = labnode.exec_argv(lab, lab.node(args.node), command)
    if not command:
        raise LabError("exec needs a command: lab exec n1 -- COMMAND", 2)
    if argv is None:
        raise LabError(f"{args.node} is not running; run: lab power {args.node} on")
    os.execvp(argv[0], argv)


def power(lab, args):
    labnode.set_power(lab, lab.node(args.node), args.what)
    return 0


def net(lab, args):
    rules, words = lab.state["net"], args.words
    if words == ["heal"]:
        rules.update(down=[], groups=[], oneway=[])
    elif len(words) == 2 and words[0] == "split":
        rules["groups"] = labnet.parse_groups(lab, words[1])
    elif len(words) == 2 and words[1] in ("down", "up"):
        n = lab.node(words[0])
        rules["down"] = [x for x in rules["down"] if x != n] + ([n] if words[1] == "down" else [])
    else:
        raise LabError("say: lab net NODE down|up, lab net split A,B/C or lab net heal", 2)
    labnet.apply_rules(lab)
    lab.save()
    return 0


def oneway(lab, args):
    if args.a == args.b:
        raise LabError("oneway needs two nodes: lab oneway A B", 2)
    pair = [lab.node(args.a), lab.node(args.b)]
    if pair not in lab.state["net"]["oneway"]:
        lab.state["net"]["oneway"].append(pair)
    labnet.apply_rules(lab)
    lab.save()
    return 0


def storage(lab, args):
    if args.what in ("cut", "heal"):
        if not args.which and (args.what == "cut" or args.path):
            raise LabError("say for which node: lab storage cut NODE", 2)
        cut = lab.state["net"]["storage_cut"]
        if args.path:
            rest = [p for p in lab.state["net"]["path_cut"] if p != [args.which, args.path]]
            lab.state["net"]["path_cut"] = rest + ([[lab.node(args.which), args.path]] if args.what == "cut" else [])
            labnet.apply_rules(lab)
            lab.save()
            return 0
        names = [lab.node(args.which)] if args.which else list(cut)
        lab.state["net"]["storage_cut"] = [n for n in cut if n not in names] + (names if args.what == "cut" else [])
        labnet.apply_rules(lab)
        lab.save()
        return 0
    labstore.verb(lab, args.what, args.which)
    return 0


def guest(lab, args):
    node = lab.node(args.node)
    d = labguest.make_disk(lab, args.name, args.disk)
    if args.by_hand:
        labguest.run_by_hand(lab, args.name, node, d)
    elif args.print:
        print(labguest.vm_file(args.name, node, d), end="")
    else:
        say(f"{args.name} added through {labguest.add(lab, args.name, node, d)}")
    return 0


def check(lab, args):
    return 0 if labguest.check(lab) else 1


def stamps(lab, args):
    print(json.dumps(labguest.read_all(labguest.disk(lab, args.name)["image"])))
    return 0


def watch(lab, args):
    labguest.watch(labguest.disk(lab, args.name)["image"], args.seconds)
    return 0


def log(lab, args):
    path = f"{lab.run_dir}/{lab.node(args.node)}.log" if args.node else f"{lab.run_dir}/events.log"
    os.execvp("tail", ["tail", "-n", "+1", *(["-f"] if args.follow else []), path])


def timeline(lab, args):
    for ns, name, program, text in labtime.timeline(lab, args.since):
        print(f"{ns} {name} {program}: {text}")
    return 0


def config_show(lab, args):
    print(labnode.kvm_ha_conf(lab), end="")
    return 0


def parser():
    p = argparse.ArgumentParser(prog="lab",
                                description="A kvm-ha cluster on one machine: containers for nodes, network namespaces for "
                                "the ring and the storage network, real iSCSI and NFS servers, watchdogs that cut the power.",
                                epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prefix", help="comes first; tells labs apart that run side by side (default khl, or $KVM_HA_LAB_PREFIX)")
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, fn, help_text, changes=True, needs_state=True):
        v = verbs.add_parser(name, help=help_text, description=help_text)
        v.set_defaults(fn=fn, changes=changes, needs_state=needs_state)
        return v

    v = verb("up", up, "make the cluster and wait until it works", needs_state=False)
    v.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes (default 3)")
    v.add_argument("--volumes", default="iscsi,nfs,iscsi", metavar="KINDS",
                   help="one to three of iscsi, nfs, file; with --vm also block (iscsi by the kernel's initiator) and mount (nfs by its client), "
                   "not file (default iscsi,nfs,iscsi)")
    v.add_argument("--profile", choices=("fast", "standard", "safe"), default="fast", help="timings (default fast)")
    v.add_argument("--paths", type=int, choices=(1, 2), default=1,
                   help="networks by which iSCSI and NFS volumes are reached; guests' disks always by the first (default 1)")
    v.add_argument("--files", metavar="DIR", help="files of kind file are on a cluster's file system: DIR/n1 is where it is mounted for node n1, and so on; all mounts "
                   "must be there before, and stay (default: a folder of this machine)")
    v.add_argument("--no-arm", action="store_true", help="leave the cluster disarmed")
    v.add_argument("--vm", action="store_true", help="whole virtual machines, emulated, in place of containers: softdog as their watchdog, the kernel's "
                   "iSCSI and NFS; slow, take --profile standard or safe")
    v.add_argument("--bare", action="store_true", help="only machines, ring and storage: install and start nothing of kvm-ha")
    verb("down", down, "end the cluster and remove all of it", needs_state=False)
    v = verb("status", status, "nodes, watchdogs, storage, partitions", changes=False)
    v.add_argument("-o", "--output", choices=("text", "json"), default="text")
    v = verb("exec", node_exec, "run a command in a node: lab exec NODE -- COMMAND...", changes=False)
    v.add_argument("node")
    v.add_argument("command", nargs=argparse.REMAINDER)
    v = verb("power", power, "cut a node's power, or boot it")
    v.add_argument("node")
    v.add_argument("what", choices=("off", "on"))
    v = verb("net", net, "the ring: NODE down|up, split A,B/C, heal (of everything on the ring)")
    v.add_argument("words", nargs="+", metavar="WORD")
    v = verb("oneway", oneway, "ring packets of A no longer reach B, until `lab net heal`")
    v.add_argument("a")
    v.add_argument("b")
    v = verb("storage", storage, "hang, resume, stop (kill) or start [iscsi|nfs]; cut NODE off from all servers, heal [NODE]")
    v.add_argument("what", choices=("hang", "resume", "stop", "start", "cut", "heal"))
    v.add_argument("which", nargs="?", metavar="iscsi|nfs|NODE")
    v.add_argument("--path", type=int, choices=(1, 2), help="cut or heal: only one of NODE's two storage networks")
    v = verb("guest", guest, "make a guest that stamps its disk, and give it to kvm-ha")
    v.add_argument("name")
    v.add_argument("node", help="the node it prefers")
    v.add_argument("--disk", choices=labstore.KINDS, help="where its disk is (default: the first of these that is served)")
    how = v.add_mutually_exclusive_group()
    how.add_argument("--by-hand", action="store_true",
                     help="run it in the node as a plain unit, lab-guest-NAME; kvm-ha knows nothing of it")
    how.add_argument("--print", action="store_true", help="make the disk and print the VM file, add nothing")
    verb("check", check, "did any guest ever run twice? exit 1 if so", changes=False)
    v = verb("stamps", stamps, "a guest's stamps as JSON", changes=False)
    v.add_argument("name")
    v = verb("watch", watch, "a line for each new stamp: CLOCK_REALTIME ns, counter, token", changes=False)
    v.add_argument("name")
    v.add_argument("--seconds", type=float, help="end after so long")
    v = verb("log", log, "a node's console and journal, or without NODE the power events", changes=False)
    v.add_argument("node", nargs="?")
    v.add_argument("-f", "--follow", action="store_true")
    v = verb("timeline", timeline, "all logs and power events in order: CLOCK_REALTIME ns, node, program, text", changes=False)
    v.add_argument("--since", type=int, default=0, metavar="NS", help="leave out what was before")
    verb("config-show", config_show, "the kvm-ha.conf of the nodes", changes=False)
    return p


def main():
    args = parser().parse_args()
    lab = Lab(args.prefix or os.environ["KVM_HA_LAB_PREFIX"])
    try:
        if args.changes:
            with lab.lock():
                if args.needs_state:
                    lab.load()
                return args.fn(lab, args)
        lab.load()
        return args.fn(lab, args)
    except LabError as e:
        say(str(e))
        return e.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
