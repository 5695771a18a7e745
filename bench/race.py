"""Races Kidoban against Debian's Postfix, and against what this machine can do at all, in one run.

    bench/race [--quick] [--runs N] [--json FILE] [ROW...]

Every row alternates its contestants, run by run; what is printed are medians, ranges and the ratio of the medians. Each run starts from
an empty queue and ends with a look at the ledger: what was acknowledged is there. Nothing here passes or fails for being slow: the exit
status tells whether every row completed with its ledger right. --quick does each row once and small, for that alone.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import rows
from contestants import Ground, Kidoban, Postfix


def median_and_range(values):
    return statistics.median(values), min(values), max(values)


def short(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Result:
    """What a row has found: figures by contestant, and how they stand to the bars."""

    def __init__(self, name, what):
        self.name, self.what = name, what
        self.figures, self.units, self.bars, self.wrong, self.notes = {}, {}, [], [], []

    def add(self, who, value, unit, cpu_ms=None):
        self.figures.setdefault(who, []).append(value)
        self.units[who] = unit
        if cpu_ms is not None:
            self.figures.setdefault(f"{who}, its CPU", []).append(cpu_ms)
            self.units[f"{who}, its CPU"] = "ms each"

    def median(self, who):
        return statistics.median(self.figures[who])

    def bar(self, words, value, holds):
        """words: what was asked; value: what came; holds: whether that is enough."""
        self.bars.append({"bar": words, "value": value, "holds": bool(holds)})

    def need(self, good, words):
        """The ledger, or whatever else must hold however slow the machine is."""
        if not good:
            self.wrong.append(words)

    def note(self, words):
        if words not in self.notes:
            self.notes.append(words)

    def print(self):
        print(f"\n{self.name}: {self.what}")
        for who, values in self.figures.items():
            middle, low, high = median_and_range(values)
            span = f"({short(low)} to {short(high)}, {len(values)} runs)" if len(values) > 1 else ""
            print(f"  {who:34} {short(middle):>12} {self.units[who]:14} {span}")
        for b in self.bars:
            print(f"  {'holds ' if b['holds'] else 'missed'}  {b['bar']}: {b['value']}")
        for words in self.notes:
            print(f"  note: {words}")
        for words in self.wrong:
            print(f"  WRONG: {words}")
        sys.stdout.flush()

    def json(self):
        figures = {w: dict(zip(("median", "low", "high"), median_and_range(v)), runs=v, unit=self.units[w])
                   for w, v in self.figures.items()}
        return {"what": self.what, "figures": figures, "bars": self.bars, "notes": self.notes, "wrong": self.wrong}


def markdown(out):
    """The tables of docs/performance.md, from what --json wrote."""
    lines = ["| row | what | median | lowest to highest | unit |", "|---|---|---|---|---|"]
    for name, row in out["rows"].items():
        for who, f in row["figures"].items():
            span = f"{short(f['low'])} to {short(f['high'])}" if len(f["runs"]) > 1 else "one run"
            lines.append(f"| {name} | {who} | {short(f['median'])} | {span} | {f['unit']} |")
    lines += ["", "| row | asked | came | holds |", "|---|---|---|---|"]
    for name, row in out["rows"].items():
        lines += [f"| {name} | {b['bar']} | {b['value']} | {'yes' if b['holds'] else '**no**'} |" for b in row["bars"]]
    return "\n".join(lines)


class Race:
    """What the rows share."""

    def __init__(self, args):
        self.quick, self.runs = args.quick, 1 if args.quick else args.runs
        self.ground = Ground()
        self.kidoban, self.postfix = Kidoban(self.ground), Postfix(self.ground)

    def size(self, full, quick):
        return quick if self.quick else full

    def settle(self):
        """What earlier runs left in memory goes to the disk before the next is timed."""
        subprocess.run(["sync", "-f", self.ground.dir], check=True)


def versions(race):
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "?")
    return {"kidoban": race.kidoban.version(), "postfix": race.postfix.version(), "kernel": platform.release(), "processor": cpu,
            "processors": len(list(pathlib.Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
            "openssl": subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout.strip(),
            "disk": subprocess.run(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "--target", race.ground.dir], capture_output=True,
                                   text=True).stdout.strip(),
            "load before": pathlib.Path("/proc/loadavg").read_text().split()[0]}


def main():
    options = argparse.ArgumentParser(prog="bench/race", description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="each row once and small: does it work")
    options.add_argument("--runs", type=int, default=5, help="of each contestant in a row that is repeated (5)")
    options.add_argument("--json", type=pathlib.Path, metavar="FILE", help="the figures, every run of them")
    options.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="the same as tables")
    options.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(rows.ROWS))
    args = options.parse_args()
    for name in args.rows:
        if name not in rows.ROWS:
            options.error(f"no row {name}; there are {', '.join(rows.ROWS)}")
    race = Race(args)
    out = {"versions": versions(race), "quick": args.quick, "rows": {}}
    for name, value in out["versions"].items():
        print(f"{name:12} {value}")
    for name, (act, what) in rows.ROWS.items():
        if args.rows and name not in args.rows:
            continue
        result, begun = Result(name, what), time.monotonic()
        try:
            act(race, result)
        except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
            result.need(False, f"{type(e).__name__}: {e}")
        finally:
            for contestant in (race.kidoban, race.postfix):
                contestant.stop()
            race.ground.stop_sink()
        result.note(f"took {time.monotonic() - begun:.0f} s")
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
