"""Errors into a running daemon, while mail flows: every fault point that can fail, and system calls by strace.

While the fault lasts no process may spin; when it is over service comes back by itself; nothing acknowledged is lost, and
as long as nobody died nothing is delivered twice.
"""

import asyncio
import contextlib
import errno
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import faults  # noqa: E402
from crash_house import SINK, BareWorld, CrashHouse, until  # noqa: E402
from ledger import Clients, Ledger, Sink  # noqa: E402

SEED = int(os.environ.get("KIDOBAN_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = os.environ.get("KIDOBAN_CRASH_LONG") == "1"
TICKS = os.sysconf("SC_CLK_TCK")
SPIN = 0.6      # of one processor, without anything to do
ASK_AGAIN = 50  # a second: how often a process may try what fails, without anything to do

# Points whose step can fail: what they return is looked at.
POINTS = sorted(p for p in faults.points() if p not in ("master.delay", "spool.snapshot.due") and any(
    re.search(rf'(?<!\(void\))FAULT_POINT\("{re.escape(p)}"\)', path.read_text())
    for path in (faults.TREE / "src").rglob("*.c")))
ERRORS = [errno.EIO, errno.ENOSPC, errno.ENOMEM]
AIDS = {p: [("spool.snapshot.due", errno.EAGAIN)] for p in POINTS if p.startswith("spool.snapshot.")}
AIDS |= {"spool.segment.create": [("spool.segment.recycle", errno.ENOENT)]}
AIDS |= {"spool.segment.sync": AIDS["spool.segment.create"]}

# Of these each message makes one whenever its turn comes: their number says nothing of spinning.
OF_A_MESSAGE = {("spool", "openat"), ("spool", "pread64"), ("deliver", "pread64"), ("deliver", "socket"),
                ("deliver", "connect")}
CALLS = [
    ("spool", "fdatasync", "EIO"), ("spool", "pwritev", "EIO"), ("spool", "pwritev", "ENOSPC"),
    ("spool", "fallocate", "ENOSPC"), ("spool", "openat", "EMFILE"), ("spool", "openat", "EIO"),
    ("spool", "mmap", "ENOMEM"), ("spool", "pread64", "EIO"),
    ("deliver", "pread64", "EIO"), ("deliver", "socket", "EMFILE"), ("deliver", "connect", "ENETUNREACH"),
    ("deliver", "mmap", "ENOMEM"), ("submit", "accept4", "EMFILE"), ("submit", "mmap", "ENOMEM"),
    ("guard", "mmap", "ENOMEM"), ("vault", "pwrite64", "EIO"), ("vault", "mmap", "ENOMEM"),
]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Patient:
    def __init__(self, world):
        self.state = world.dir / "small"
        self.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "none", self.state], check=True)
        self.plan = faults.Plan(world.dir / "faults", [p for p in faults.points() if not p.startswith("channel.")])
        # strace makes a call fail by asking for none, which the walls answer with death.
        self.house = CrashHouse(world, "errors", {"processes": {"sandbox": False}}, plan=world.dir / "faults",
                                state=self.state)
        self.ledger = Ledger(SEED)
        self.sink = Sink(self.ledger, *SINK)
        self.clients = Clients(self.ledger, SEED, context=world.client_context(), login=("alice", CrashHouse.PASSWORD),
                               large=0.05)
        self.cases = 0

    async def start(self):
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        await asyncio.to_thread(self.house.account_add, "alice", "alice@example.org")
        await self.sink.start()
        self.clients.start()

    async def progress(self, count):
        before = len(self.ledger.promised)
        await until(lambda: len(self.ledger.promised) >= before + count, 60, lambda: f"mail, {self.ledger.story()},")

    async def judge_idle(self, what, failed):
        """The clients are quiet but for one that knocks: nobody has a reason to work. failed(): calls failed so far."""
        self.clients.paused.clear()
        knock = socket.socket()
        knock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            knock.connect(("127.0.0.1", 587))
        await asyncio.sleep(0.3)
        before = {pid: cpu_seconds(pid) for pid in self.pids.values() if os.path.exists(f"/proc/{pid}")}
        at, failures = time.monotonic(), failed()
        await asyncio.sleep(0.7)
        took = time.monotonic() - at
        assert failed() - failures <= ASK_AGAIN * took, f"{failed() - failures} tries in {took:.1f} s while {what}"
        for (role, _), pid in self.pids.items():
            if pid in before and os.path.exists(f"/proc/{pid}"):
                used = (cpu_seconds(pid) - before[pid]) / took
                assert used < SPIN, f"{role} spins ({used:.0%} of a processor) while {what}"
        knock.close()

    async def fault(self, what, on, off, may_die=False, failed=lambda: 0):
        """on() begins the fault, off() ends it."""
        begin = time.monotonic()
        await self.progress(5)
        await on()
        try:
            await self.judge_idle(what, failed)
        finally:
            await off()
            self.clients.paused.set()
        before = self.pids
        self.pids = await self.house.whole()
        gone = {role for (role, n), pid in self.pids.items() if before[role, n] != pid}
        assert may_die or not gone, f"{gone} died of {what}"
        self.ledger.crash(begin, time.monotonic(), what, bool(gone & {"spool", "deliver"}))
        await self.progress(20)
        self.cases += 1

    async def settle(self):
        await self.clients.pause_all()
        await until(lambda: not self.ledger.missing(), 60,
                    lambda: f"{self.ledger.missing()[:5]} of {self.ledger.story()}", 0.1)
        self.clients.paused.set()
        self.ledger.judge(1000)


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def patient(loop):
    with BareWorld() as world:
        p = Patient(world)
        loop.run(p.start())
        yield p
        loop.run(p.clients.stop())
        p.house.stop()
        print(f"\nerrors, seed {SEED}: {p.cases} faults; {p.ledger.story()}")


@pytest.mark.parametrize("point", POINTS)
def test_a_step_that_fails(patient, loop, point):
    rng = random.Random(f"errors {SEED} {point}")
    for error in ERRORS if LONG else [rng.choice(ERRORS)]:
        async def on():
            for aid, number in AIDS.get(point, []):
                patient.plan.arm(aid, faults.ERROR, number, times=faults.FOREVER)
            patient.plan.arm(point, faults.ERROR, error, times=faults.FOREVER)
            reached = patient.plan.hits(point)
            await until(lambda: patient.plan.hits(point) > reached, 60, f"a hit of {point}", 0.005)

        async def off():
            patient.plan.disarm_all()
        loop.run(patient.fault(f"{point} fails with {errno.errorcode[error]}", on, off))
    loop.run(patient.settle())


@pytest.mark.parametrize("role, call, error", CALLS)
def test_a_system_call_that_fails(patient, loop, role, call, error):
    tracers, logs = [], []

    async def on():
        for (name, _), pid in patient.pids.items():
            if name == role:
                log = patient.house.dir / f"strace-{pid}-{call}-{error}"
                logs.append(log)
                tracers.append(subprocess.Popen(
                    ["strace", "-f", "-qq", "-o", log, "-e", f"trace={call}", "-e", f"inject={call}:error={error}",
                     "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE))
        if call == "fallocate":
            patient.plan.arm("spool.segment.recycle", faults.ERROR, errno.ENOENT, times=faults.FOREVER)
        if role == "vault":
            await asyncio.sleep(0.3)
            added = await asyncio.to_thread(account_add, f"bob-{call}", False)
            assert call == "mmap" or added.returncode != 0
        await (asyncio.sleep(0.7) if call == "mmap" else until(lambda: failures(), 60, f"{call} of {role}"))
        for t in tracers:
            assert t.poll() is None or not os.path.exists(f"/proc/{t.args[-1]}"), t.stderr.read()

    async def off():
        for t in tracers:
            t.terminate()
            t.wait()
        patient.plan.disarm_all()

    def failures():
        return sum(log.read_bytes().count(b"(INJECTED)") for log in logs if log.exists())

    def account_add(name, check):
        return patient.house.run("account", "add", name, "--identity", f"{name}@example.org", "--password-stdin",
                                 stdin="secret\n", check=check)
    loop.run(patient.fault(f"{call} of {role} fails with {error}", on, off, error == "ENOMEM",
                           (lambda: 0) if (role, call) in OF_A_MESSAGE else failures))
    if role == "vault":
        account_add(f"bob-again-{call}", True)
    loop.run(patient.settle())


def test_nothing_died_of_a_bug(patient):
    died = patient.house.events(event="process.died")
    assert [d for d in died if d["how"] != "exit 111"] == []
