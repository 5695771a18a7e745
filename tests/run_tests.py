"""What ./test runs, in order; see CONTRIBUTING.md. Every test counts; the last line is "N passed, N failed".

usage: ./test [--long] [--list] [STAGE...]
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

TREE = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
OUT = TREE / "build" / "results"
JOBS = str(os.cpu_count() or 2)


class Tally:
    def __init__(self):
        self.passed, self.failed, self.names = 0, 0, []

    def add(self, name, good, words=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            self.names.append(name)
            print(f"FAILED  {name}")
            for line in words.splitlines()[-40:]:
                print(f"        {line}")


tally = Tally()


def run(*argv, env=None, seconds=1200):
    """(status, output); a time-out is a failure with its words."""
    try:
        p = subprocess.run([str(a) for a in argv], cwd=TREE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds,
                           env=dict(os.environ, **(env or {})))
        return p.returncode, p.stdout
    except subprocess.TimeoutExpired as e:
        out = e.stdout or b""
        return 124, (out.decode(errors="replace") if isinstance(out, bytes) else out) + f"\nnot done in {seconds} s"


def build(name, *options, env=None):
    directory = TREE / name
    if not (directory / "build.ninja").exists():
        status, out = run("meson", "setup", directory, *options, env=env)
        if status != 0:
            tally.add(f"{name}: configure", False, out)
            return False
    status, out = run("ninja", "-C", directory)
    tally.add(f"{name}: build without a warning", status == 0, out)
    return status == 0


def build_plain():
    build("build")


def build_asan():
    build("build-asan", "-Db_sanitize=address,undefined", "-Dbuildtype=debugoptimized")


def build_fuzz():
    build("build-fuzz", "-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dfuzzers=true", "-Dbuildtype=debugoptimized",
          env={"CC": "clang"})


def unit(name):
    log = TREE / name / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    status, out = run("meson", "test", "-C", TREE / name, "--no-rebuild", "--suite", "unit", "--num-processes", JOBS,
                      "--timeout-multiplier", "1" if name == "build" else "8")
    if not log.exists():
        tally.add(f"{name}: unit tests", False, out)
        return
    for line in log.read_text().splitlines():
        test = json.loads(line)
        words = test.get("stdout", "") + test.get("stderr", "")
        # cmocka writes a line a case; a program without such lines counts as one.
        good = len(re.findall(r"^\[       OK \] ", words, re.M))
        bad = re.findall(r"^\[  FAILED  \] (\w+)$", words, re.M)
        if test["result"] == "OK" and good > 0:
            tally.passed += good
        elif test["result"] == "OK":
            tally.add(f"{name}: {test['name']}", True)
        else:
            tally.passed += good
            for case in sorted(set(bad)) or ["(whole)"]:
                tally.add(f"{name}: {test['name']}: {case}", False, words)


def harness(name, long_argument):
    """A program of cases that counts what it went through: its last words are "figures: ...". Long: with the argument."""
    target = TREE / "build" / "src" / name
    status, out = run(target, *([long_argument] if LONG_RUN else []), seconds=6 * 3600 if LONG_RUN else 600)
    good = re.findall(r"^\[       OK \] (\w+)$", out, re.M)
    bad = sorted(set(re.findall(r"^\[  FAILED  \] (\w+)$", out, re.M)))
    tally.passed += len(good)
    for case in bad or ([] if status == 0 else ["(whole)"]):
        tally.add(f"{target.name}: {case}", False, out)
    for line in re.findall(r"^figures: (.*)$", out, re.M):
        print(f"   {line}", flush=True)


def static_tree():
    status, out = run(PYTHON, "tests/check_tree.py")
    tally.add("the tree: includes, manuals, form", status == 0, out)


def static_manuals():
    for page in sorted((TREE / "man").iterdir()):
        status, out = run("mandoc", "-T", "lint", "-W", "warning", page)
        tally.add(f"manual {page.name}", status == 0, out)


def static_cppcheck():
    status, out = run("cppcheck", "--std=c11", "--enable=warning,performance,portability", "--inline-suppr", "--error-exitcode=1",
                      "--suppress=missingIncludeSystem", "--suppress=internalAstError",  # compound literals in ?: are too much
                      "-D_GNU_SOURCE", "-DKIDOBAN_VERSION=\"x\"", "-Isrc", "-Itests/cppcheck", "-j", JOBS, "-q", "src")
    tally.add("cppcheck", status == 0, out)


def static_tidy():
    database = TREE / "build" / "compile_commands.json"
    built = {(TREE / "build" / c["file"]).resolve() for c in json.loads(database.read_text())} if database.exists() else set()
    sources = [p for p in sorted((TREE / "src").rglob("*.c")) if p in built and not re.search(r"_(test|fuzz)\.c$", p.name)]
    if not sources:
        tally.add("clang-tidy", False, "there is no build to read")
        return
    bad = []
    batch = 4
    running = []

    def reap(p, names):
        out = p.communicate()[0]
        if p.returncode != 0:
            bad.append(f"{names}:\n{out}")

    for i in range(0, len(sources), batch):
        names = sources[i:i + batch]
        p = subprocess.Popen(["clang-tidy", "-p", str(TREE / "build"), "--quiet", *map(str, names)], cwd=TREE, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        running.append((p, names))
        if len(running) >= int(JOBS):
            reap(*running.pop(0))
    for r in running:
        reap(*r)
    tally.add("clang-tidy", not bad, "\n".join(bad))


def fuzz_run(target, seconds):
    name = target.name[len("fuzz_"):]
    seeds = TREE / "fuzz" / name
    corpus = OUT / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    return run(target, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1",
               f"-artifact_prefix={OUT}/{name}-", corpus, *([seeds] if seeds.is_dir() else []), seconds=seconds + 300)


def fuzz(seconds):
    """As many targets at once as there are cores."""
    targets = sorted(p for p in (TREE / "build-fuzz").rglob("fuzz_*") if p.is_file() and os.access(p, os.X_OK))
    if not targets:
        tally.add("fuzz targets are there", False)
    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        runs = list(pool.map(lambda target: fuzz_run(target, seconds), targets))
    for target, (status, out) in zip(targets, runs):
        tally.add(f"fuzz {target.name[len('fuzz_'):]}, {seconds} s", status == 0, out)


def rows(name, *options):
    if not (TREE / name / "src/master/kidoband").exists():
        tally.add(f"rows on {name}", False, "there is no build")
        return
    results = OUT / f"rows-{name}{''.join(options)}.json"
    results.unlink(missing_ok=True)
    status, out = run("tests/world.sh", PYTHON, "tests/wire_rows.py", "--results", results, *options, env=environment(name))
    if not results.exists():
        tally.add(f"rows on {name} {' '.join(options)}", False, out)
        return
    r = json.loads(results.read_text())
    tally.passed += r["passed"]
    for row, words in r["failures"].items():
        tally.add(f"{name}: {row}", False, str(words))


def environment(name):
    env = {"KIDOBAN_BUILD": str(TREE / name), "KIDOBAN_DELIVER_HARNESS": str(TREE / name / "src/deliver/deliver_harness")}
    if name != "build":
        env["KIDOBAN_SANITIZED"] = "1"
    return env


# They build and install; there is nothing that sanitizers could see.
NOT_SANITIZED = {"test_install"}


def system_run(name, path):
    results = OUT / f"{name}-{path.stem}.xml"
    results.unlink(missing_ok=True)
    status, out = run("tests/world.sh", PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=300",
                      f"--junitxml={results}", path, env=environment(name))
    return path, results, out


def junit(results, name, out):
    """Counts the cases of a file of tests."""
    if not results.exists():
        tally.add(name, False, out)
        return
    for case in ET.parse(results).getroot().iter("testcase"):
        wrong = [c for c in case if c.tag in ("failure", "error", "skipped")]
        words = "\n".join((c.get("message") or "") + "\n" + (c.text or "") for c in wrong)
        tally.add(f"{name}: {case.get('name')}", not wrong, words)


def system(name):
    """Each file in a world of its own, as many at once as there are cores: they mostly wait. The longest come first."""
    files = [p for p in (TREE / "tests/system").glob("test_*.py") if name == "build" or p.stem not in NOT_SANITIZED]
    files.sort(key=lambda p: p.stat().st_size, reverse=True)
    with concurrent.futures.ThreadPoolExecutor(int(JOBS)) as pool:
        runs = list(pool.map(lambda p: system_run(name, p), files))
    for path, results, out in sorted(runs):
        junit(results, f"{name}: {path.stem}", out)


def lab():
    """./run as somebody types it, and the lab that it leaves up. In a world of its own: also who watches over the machine is alone."""
    path, results, out = system_run("build", TREE / "tests/lab/test_lab.py")
    junit(results, "lab", out)


def build_faults():
    build("build-faults", "-Dfaults=true")


CRASH = {  # stage: what it gets in ./test, and in --long
    "kills": ({"KIDOBAN_CRASH_KILLS": "220"}, {"KIDOBAN_CRASH_KILLS": "5000"}),
    "cuts": ({"KIDOBAN_CRASH_CUTS": "10"}, {"KIDOBAN_CRASH_CUTS": "100"}),
    "errors": ({}, {"KIDOBAN_CRASH_LONG": "1"}),
    "invariants": ({}, {"KIDOBAN_CRASH_LONG": "1"}),
    "soak": ({"KIDOBAN_CRASH_SOAK": "20"}, {"KIDOBAN_CRASH_SOAK": "600"}),
}
crash_runs = {}
chosen = []  # stages of this run


def crash_run(name, results):
    env = dict(environment("build"), **CRASH[name][LONG_RUN])
    return run("tests/world.sh", PYTHON, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"--timeout={3600 if LONG_RUN else 600}",
               f"--junitxml={results}", f"tests/crash/test_{name}.py", env=env, seconds=6 * 3600 if LONG_RUN else 1200)


def crash(name):
    """tests/crash/test_NAME.py. They mostly wait, so those that are still to come run beside the first, two at a time."""
    if name not in crash_runs:
        pool = concurrent.futures.ThreadPoolExecutor(2)
        for one in [n for n in CRASH if n == name or n in chosen and n not in crash_runs]:
            (OUT / f"crash-{one}.xml").unlink(missing_ok=True)
            crash_runs[one] = pool.submit(crash_run, one, OUT / f"crash-{one}.xml")
    status, out = crash_runs[name].result()
    for line in re.findall(rf"^\.*({name}, .*)$", out, re.M):  # seeds and counts
        print(f"   {line}")
    junit(OUT / f"crash-{name}.xml", name, out)


def equivalence():
    """The reference of the gate and its programs in the kernel say the same; a seed that fails is in the words."""
    status, out = run(TREE / "build/tests/gate/gate_equivalence", "--mutations", "10000000" if LONG_RUN else "200000",
                      seconds=7200)
    print(f"   {out.strip().splitlines()[0] if out.strip() else ''}")
    tally.add("gate: reference and kernel agree", status == 0, out)
    status, out = run(TREE / "build/tests/gate/gate_older")
    tally.add("gate: the programs fit the verifier of Linux 6.1", status == 0, out)


def answers():
    status, out = run(TREE / "build/tests/gate/gate_answers")
    last = re.fullmatch(r"(\d+) passed, (\d+) failed", out.strip().splitlines()[-1] if out.strip() else "")
    if last is None or (status == 0) != (last.group(2) == "0"):
        tally.add("gate: answers", False, out)
        return
    tally.passed += int(last.group(1))
    if last.group(2) != "0":
        tally.add(f"gate: {last.group(2)} answers", False, out)


def broken():
    """`kidoban check` on each broken configuration says exactly what its .expect file has."""
    for path in sorted((TREE / "tests/broken").glob("*.yaml")):
        status, out = run(TREE / "build/src/cli/kidoban", "check", path.relative_to(TREE))
        want = path.with_suffix(".expect").read_text()
        tally.add(f"broken configuration {path.name}", status == 1 and out == want, f"exit {status}\n{out}")


def clients():
    """nodemailer, at the version of the lock file; the tests look for it in build/clients."""
    target = TREE / "build" / "clients"
    target.mkdir(parents=True, exist_ok=True)
    for f in ("package.json", "package-lock.json"):
        if (TREE / "tests/clients" / f).exists():
            (target / f).write_text((TREE / "tests/clients" / f).read_text())
    status, out = run("npm", "--prefix", target, "--no-audit", "--no-fund", "ci" if (target / "package-lock.json").exists()
                      else "install")
    tally.add("clients from npm", status == 0, out)


def bench():
    """Each race, and each row of the gate's, once and small: that it completes and nothing is wrong. Nothing is gated on a time."""
    for name in ("race", "gate"):
        results = OUT / f"bench-{name}.json"
        results.unlink(missing_ok=True)
        status, out = run(f"bench/{name}", "--quick", "--json", results, seconds=900)
        if not results.exists():
            tally.add(f"bench/{name}", False, out)
            continue
        for row, found in json.loads(results.read_text())["rows"].items():
            tally.add(f"{name}: {row}", not found["wrong"], "\n".join(found["wrong"]))


STAGES = [
    ("plain", "build with gcc", build_plain),
    ("asan", "build with ASan and UBSan", build_asan),
    ("fuzzers", "build the fuzz targets with clang", build_fuzz),
    ("unit", "unit tests", lambda: unit("build")),
    ("unit-asan", "unit tests, sanitizers", lambda: unit("build-asan")),
    ("power-cut", "power cuts at every step of the spool", lambda: harness("spool/spool_power_test", "20")),
    ("faults", "faults of the disk and of memory in the spool", lambda: harness("spool/spool_fault_test", "8")),
    ("equivalence", "the gate's reference and its programs in the kernel", equivalence),
    ("answers", "what the gate sends back", answers),
    ("simulation", "days of mail in one thread under a seed", lambda: harness("simulation/simulation_test", "2000")),
    ("tree", "the tree itself", static_tree),
    ("manuals", "manuals", static_manuals),
    ("broken", "broken configurations", broken),
    ("cppcheck", "cppcheck", static_cppcheck),
    ("tidy", "clang-tidy", static_tidy),
    ("fuzz", "fuzz targets, a few seconds each", lambda: fuzz(4)),
    ("rows", "wire rows", lambda: rows("build")),
    ("rows6", "wire rows over IPv6", lambda: rows("build", "--ipv6")),
    ("rows-asan", "wire rows, sanitizers", lambda: rows("build-asan")),
    ("rows6-asan", "wire rows over IPv6, sanitizers", lambda: rows("build-asan", "--ipv6")),
    ("clients", "client programs", clients),
    ("system", "the whole system", lambda: system("build")),
    ("lab", "the lab: every row of the promise", lab),
    ("bench", "the races, small and for function only", bench),
    ("system-asan", "the whole system, sanitizers", lambda: system("build-asan")),
    ("faulty", "build with fault points", build_faults),
    ("kills", "every process killed at every step", lambda: crash("kills")),
    ("cuts", "power cuts on ext4 and XFS", lambda: crash("cuts")),
    ("errors", "errors into a running daemon", lambda: crash("errors")),
    ("invariants", "I1 to I12", lambda: crash("invariants")),
    ("soak", "a while of life", lambda: crash("soak")),
]

LONG = {"system-asan", "rows6-asan"}  # only with --long, or when named: with them the whole takes longer than 25 minutes
LONG_RUN = False


def main():
    options = argparse.ArgumentParser(prog="./test", description=__doc__.splitlines()[0])
    options.add_argument("--long", action="store_true",
                         help="an hour for each fuzz target, more of every harness")
    options.add_argument("--list", action="store_true", help="only name the stages")
    options.add_argument("stages", nargs="*", metavar="STAGE")
    args = options.parse_args()
    global LONG_RUN
    LONG_RUN = args.long
    names = [s[0] for s in STAGES]
    for wanted in args.stages:
        if wanted not in names:
            options.error(f"no stage {wanted}; there are {', '.join(names)}")
    if args.list:
        for name, words, _ in STAGES:
            print(f"{name:12} {words}")
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    chosen[:] = args.stages or [n for n in names if args.long or n not in LONG]
    for name, words, act in STAGES:
        if name not in chosen:
            continue
        at, before = time.monotonic(), (tally.passed, tally.failed)
        print(f"-- {words} ...", flush=True)
        fuzz(3600) if name == "fuzz" and args.long else act()
        print(f"-- {words}: {tally.passed - before[0]} passed, {tally.failed - before[1]} failed, "
              f"{time.monotonic() - at:.0f} s", flush=True)
    if tally.names:
        print("\nfailed:")
        for name in tally.names:
            print(f"  {name}")
    print(f"\nin {time.monotonic() - started:.0f} s")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
