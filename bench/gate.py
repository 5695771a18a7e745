"""Measures the gate against an empty XDP program, a longest-prefix trie of the kernel's, nftables, and no gate at all, in one run.

    bench/gate [--quick] [--rounds N] [--json FILE] [--markdown FILE] [ROW...]

In every round each contestant has its turn; what is printed are medians, ranges and how they stand to the bars. Times are processor time of
the thread that does the work, so that a busy machine disturbs them little. Nothing here passes or fails for being slow: the exit status
tells whether every row completed and what had to be refused or forwarded was. --quick does each row small, for that alone.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys

from contestants import BENCH, TREE, house
from race import Result, markdown

MILLION, SETS = 1000000, ["hosts4", "mixed4", "mixed6"]
WHAT = {"hosts4": "random IPv4 addresses", "mixed4": "IPv4 prefixes of /20 to /32", "mixed6": "IPv6 /56 and /64"}
KIDOBAN = house.BUILD / "src/cli/kidoban"
POLICY = """gate:
  subscriber_interfaces: [r-lines]
  refuse_with: drop
  classes:
    - {name: lines, port25: deny, %s}
"""


def run(*argv, text=None):
    done = subprocess.run([str(a) for a in argv], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{argv[0]} {argv[1]}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def policy_file(world, prefixes):
    path = world / "gate.yaml"
    path.write_text(POLICY % prefixes)
    return path


def cost(gate, result):
    """Nanoseconds: what a program adds to the same frame through an empty one."""
    out = json.loads(run(BENCH / "gate-cost", "--rounds", gate.size(gate.rounds, 2), "--runs", gate.size(1 << 20, 20000), "--cold",
                         gate.size(1 << 17, 20000), "--prefixes", gate.size(MILLION, 20000)))
    for one in out["rounds"]:
        for name, floor in out["floors"].items():
            if floor:
                result.add(name, one[name] - one[floor], "ns")
    for family in ("IPv4", "IPv6"):
        plain = result.median(f"not port 25 {family}")
        gate.bar(result, f"{family}, TCP, not port 25: at most 6 ns over an empty program", f"{plain:.1f} ns", plain <= 6)
    for name in SETS:
        few = result.median(f"refused, 10 prefixes, random sources IPv{name[-1]}")
        many = result.median(f"refused, {name}")
        gate.bar(result, f"a million {WHAT[name]}, a million sources, none warm: at most twice 10 prefixes and random sources",
                   f"{many / few:.2f} times ({many:.0f} to {few:.0f} ns)", many <= 2 * few)


def reload(gate, result):
    """Seconds from the file to the policy in force: read, check, compile, fill the map, swap. Each time in a fresh process."""
    for name in SETS:
        prefixes = gate.world / f"{name}.txt"
        run(BENCH / "gate-reload", "write", name, gate.size(MILLION, 20000), 25, prefixes)
        path = policy_file(gate.world, f"prefixes_file: {prefixes}")
        for _ in range(gate.size(gate.rounds, 1)):
            out = json.loads(run(BENCH / "gate-reload", "time", path, 1))
            if out["prefixes"] != gate.size(MILLION, 20000):
                result.need(False, f"{name}: {out['prefixes']} prefixes")
            result.add(f"{name}, whole", out["whole"][0], "s")
            result.add(f"{name}, whole, its CPU", out["whole"][1], "s")
            for step in ("read and check", "make the policy", "compile", "fill and swap"):
                result.add(f"{name}, {step}, its CPU", out[step][1], "s")
        took, busy = result.median(f"{name}, whole"), result.median(f"{name}, whole, its CPU")
        gate.bar(result, f"a million {WHAT[name]}: under two seconds from file to swapped", f"{took:.2f} s ({busy:.2f} s of a processor)",
                   took < 2)
        prefixes.unlink()


def memory(gate, result):
    """MiB of the policy's map in the kernel. Empty, it has four roots of 256 KiB."""
    for name in SETS:
        for count in (0, 100000, MILLION):
            out = json.loads(run(BENCH / "gate-reload", "memory", name, count, 25))
            result.add(f"{name}, {count:,} prefixes", out["octets"] / (1 << 20), "MiB")


class Hand:
    """A process that obeys a line at a time."""

    def __init__(self, *argv):
        self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def order(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        if not said:
            raise OSError(f"no answer to {line}")
        return said

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def router():
    """Two namespaces with a router between, over veth: what comes from "lines" is forwarded to "world"."""
    for name, mac in (("lines", "02:00:00:00:01"), ("world", "02:00:00:00:02")):
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"r-{name}", "address", f"{mac}:01", "type", "veth", "peer", "name", "e0", "address", f"{mac}:02",
            "netns", name)
        run("ip", "link", "set", f"r-{name}", "up")
        run("ip", "-n", name, "link", "set", "e0", "up")
    for key, value in (("ip_forward", 1), ("conf/all/rp_filter", 0), ("conf/r-lines/rp_filter", 0)):
        pathlib.Path("/proc/sys/net/ipv4", key).write_text(str(value))
    run("ip", "address", "add", "203.0.113.1/32", "dev", "r-world")
    run("ip", "neigh", "replace", "203.0.113.2", "lladdr", "02:00:00:00:02:02", "dev", "r-world", "nud", "permanent")
    run("ip", "route", "add", "203.0.112.0/24", "via", "203.0.113.2", "dev", "r-world", "onlink")


def arrived():
    out = json.loads(run("ip", "-n", "world", "-s", "-j", "link", "show", "dev", "e0"))
    return out[0]["stats64"]["rx"]["packets"]


NETDEV = """table netdev rival {
    set lines { type ipv4_addr; flags interval; elements = { 198.51.100.0/22, 10.16.0.0/12 } }
    chain ingress { type filter hook ingress device r-lines priority 0; policy accept; tcp dport 25 ip saddr @lines drop; }
}
"""


def frames(gate, result):
    """Frames a second of one processor, from a namespace through a router to another, none of port 25: 80 octets, 4,096 different ones."""
    router()
    export = run(KIDOBAN, "-c", policy_file(gate.world, "prefixes: [198.51.100.0/22, 10.16.0.0/12]"), "export", "nft")
    contestants = {  # name: the gate's place, nft's rules
        "no gate": ("none", None), "gate, tcx (what auto takes on a veth)": ("tcx", None), "empty program, tcx": ("empty-tcx", None),
        "gate, TC": ("tc", None), "empty program, TC": ("empty-tc", None), "gate, native XDP": ("native", None),
        "gate, generic XDP": ("generic", None), "nftables, netdev set": ("none", NETDEV), "nftables, kidoban export": ("none", export)}
    hand = Hand(BENCH / "gate-frames", "attach", "r-lines")
    sender = Hand("ip", "netns", "exec", "lines", BENCH / "gate-frames", "send", "e0", "02:00:00:00:01:01")
    try:
        turns = list(contestants.items())
        for n in range(gate.size(12 * gate.rounds, 1) + 1):
            for name, (place, rules) in turns[n % len(turns):] + turns[:n % len(turns)]:
                hand.order(place)
                run("nft", "-f", "-", text=f"flush ruleset\n{rules or ''}")
                sender.order(500)
                before = arrived()
                out = json.loads(sender.order(gate.size(20000, 2000)))
                if n == 0:  # warms up
                    continue
                came = arrived() - before
                result.need(came > 0, f"{name}: nothing arrived")
                # What the kernel's own thread forwarded, when the sender was interrupted, is not in the sender's time.
                result.add(name, out["sent"] / out["cpu"], "frames/s")
                result.add("of all, arrived", 100 * came / out["sent"], "%")
    finally:
        hand.end()
        sender.end()
    def off(name, than):
        return 100 * (statistics.median(a / b for a, b in zip(result.figures[name], result.figures[than])) - 1)

    for name in list(contestants)[1:]:
        change = off(name, "no gate")
        if "auto" in name:
            gate.bar(result, "with the gate: no slower than without by more than 3 % (median of the rounds)", f"{change:+.1f} %", change >= -3)
        else:
            result.note(f"{name}: {change:+.1f} % (median of the rounds)")
    for ours, empty in (("gate, tcx (what auto takes on a veth)", "empty program, tcx"), ("gate, TC", "empty program, TC")):
        result.note(f"of that the gate's own, over an {empty}: {off(ours, empty):+.1f} %")


ROWS = {"cost": cost, "frames": frames, "reload": reload, "memory": memory}


class Gate:
    def __init__(self, args, world):
        self.quick, self.rounds, self.world = args.quick, args.rounds, world

    def size(self, full, quick):
        return quick if self.quick else full

    def bar(self, result, words, value, holds):
        if not self.quick:  # small, it says nothing of what was asked
            result.bar(words, value, holds)


def versions():
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "?")
    return {"commit": run("git", "-C", TREE, "rev-parse", "--short", "HEAD").strip(),
            "kernel": platform.release(), "clang": run("clang", "--version").split("\n")[0], "nftables": run("nft", "--version").strip(),
            "processor": cpu, "processors": len(list(pathlib.Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
            "load before": pathlib.Path("/proc/loadavg").read_text().split()[0]}


def main():
    options = argparse.ArgumentParser(prog="bench/gate", description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="each row small: does it work")
    options.add_argument("--rounds", type=int, default=7, help="of every contestant (7)")
    options.add_argument("--json", type=pathlib.Path, metavar="FILE", help="the figures, every one of them")
    options.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="the same as tables")
    options.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    args = options.parse_args()
    for name in args.rows:
        if name not in ROWS:
            options.error(f"no row {name}; there are {', '.join(ROWS)}")
    gate = Gate(args, pathlib.Path(house.os.environ["KIDOBAN_WORLD"]))
    out = {"versions": versions(), "quick": args.quick, "rows": {}}
    for name, value in out["versions"].items():
        print(f"{name:12} {value}")
    for name, act in ROWS.items():
        if args.rows and name not in args.rows:
            continue
        result = Result(name, act.__doc__)
        try:
            act(gate, result)
        except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
            result.need(False, f"{type(e).__name__}: {e}")
        result.print()
        out["rows"][name] = result.json()
    out["load after"] = pathlib.Path("/proc/loadavg").read_text().split()[0]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(out) + "\n")
    wrong = sum(len(r["wrong"]) for r in out["rows"].values())
    missed = sum(not b["holds"] for r in out["rows"].values() for b in r["bars"])
    print(f"\n{len(out['rows'])} rows, {missed} bars missed, {wrong} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
