"""A house that lives for a while: KIDOBAN_CRASH_SOAK seconds of mail with reloads, new certificates, restarts of the
resolver and of the receiver, and a kill. Memory, descriptors and threads of every process, and the spool's files, are
flat; at any moment accepted = delivered + bounced + queued.
"""

import asyncio
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1])]
import house  # noqa: E402
from crash_house import BareWorld, until  # noqa: E402
from game import Game  # noqa: E402
from house import DNS, SINK  # noqa: E402

SEED = int(os.environ.get("KIDOBAN_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
SECONDS = int(os.environ.get("KIDOBAN_CRASH_SOAK", "20"))
# A minute is not long enough for an allocator to find its level, ten minutes are.
MAY_GROW = {"MiB": 8 if SECONDS >= 300 else 24, "descriptors": 24, "threads": 2}

house.ZONES["sink.example"] = f"""
one     1 IN MX 10 mx.sink.example.
two     1 IN MX 10 mx.sink.example.
mx      1 IN A {SINK}
"""


def sample(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {"MiB": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1])}


class Soak:
    def __init__(self, world):
        self.world, self.state = world, world.dir / "soak-state"
        self.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=0755", "none", self.state], check=True)
        settings = {"routes": [{"domain": "example.org", "via": "smarthost", "to": f"{SINK}:25", "tls": "none"},
                               {"domain": "*", "via": "mx"}],
                    "delivery": {"resolver": {"forward": [DNS], "dnssec": False}}}
        # Slow enough that two processors do not only do this.
        self.game = Game(world, "soak", SEED, settings, state=self.state, sink=(SINK, 25), pause=0.02)
        self.samples, self.segments, self.acts = {}, [], []

    async def reload(self):
        await self.game.call(self.game.house.run, "reload")

    async def certificate(self):
        await self.game.call(self.world.certificate, "mail.example.org", "mail.example.org")

    async def resolver(self):
        self.world.nsd.terminate()
        await self.game.call(self.world.nsd.wait)
        await asyncio.sleep(0.5)
        await self.game.call(self.nsd_start)

    def nsd_start(self):
        conf = self.world.dir / "nsd/nsd.conf"
        self.world.nsd = self.world.spawn("nsd", "/usr/sbin/nsd", "-c", conf, "-d")
        self.world.ready(self.world.nsd, DNS, 53, "nsd")

    async def receiver(self):
        begin = time.monotonic()
        await self.game.receive(False)
        await asyncio.sleep(1)
        await self.game.receive(True)
        self.game.ledger.crash(begin, time.monotonic(), "the receiver", True)

    async def kill(self):
        begin, pid = time.monotonic(), self.game.pids["spool", 0]
        os.kill(pid, signal.SIGKILL)

        async def back():
            self.game.pids = await self.game.house.whole()
            return self.game.pids["spool", 0] != pid
        await until(back, 60, "a new spool")
        self.game.ledger.crash(begin, time.monotonic(), "the spool", True)

    async def accounted(self):
        """The clients pause: each promised recipient is delivered, or bounced, or queued."""
        await self.game.clients.pause_all()

        async def check():
            rows = await self.game.queue()
            queued = {r for row in rows or [] for r in row["recipients"]}
            self.unaccounted = [(k, r) for k, r in self.game.ledger.missing()
                                if r not in queued and f"alice+{k}@example.org" not in queued]
            return rows is not None and not self.unaccounted
        await until(check, 30, lambda: f"an account of {self.unaccounted[:5]}", 0.2)
        self.game.clients.paused.set()

    def look(self):
        for pid in [self.game.house.process.pid, *self.game.pids.values()]:
            self.samples.setdefault(pid, []).append((time.monotonic(), sample(pid)))
        self.segments.append(len(list((self.state / "spool").glob("*.seg"))))

    async def run(self):
        """The kill first, so that what is measured afterwards lives to the end."""
        plan = [self.kill] + [random.Random(f"soak {SEED}").choice(
            [self.reload, self.certificate, self.resolver, self.receiver, self.accounted])
            for _ in range(max(4, SECONDS // 6))]
        plan[1:5] = [self.reload, self.certificate, self.resolver, self.receiver]
        await self.game.progress(50)
        end = time.monotonic() + SECONDS
        every = SECONDS / (len(plan) + 1)
        while plan or time.monotonic() < end:
            turn = time.monotonic() + every
            if plan:
                await plan[0]()
                self.acts.append(plan.pop(0).__name__)
            while time.monotonic() < turn:
                self.look()
                await asyncio.sleep(min(1, max(0.05, turn - time.monotonic())))
            await self.game.progress(1)
        await self.accounted()


@pytest.fixture(scope="module")
def soak():
    with BareWorld() as world:
        world.start_dns()
        world.nsd = world.processes[-1]
        s = Soak(world)

        async def play():
            await s.game.start()
            await s.run()
            await s.game.settle()
            await s.game.stop()
        asyncio.run(play())
        yield s
        print(f"\nsoak, seed {SEED}: {SECONDS} s, {len(s.acts)} acts; {s.game.ledger.story()}")
        for process in world.processes:
            process.terminate()


def test_soak_accounts_for_everything(soak):
    """Each message was accounted for on the way and at the end; this says that there was something to account for."""
    assert len(soak.game.ledger.promised) > 10 * SECONDS / 2
    assert {"kill", "reload", "certificate", "resolver", "receiver"} <= set(soak.acts)


@pytest.mark.parametrize("what", MAY_GROW)
def test_soak_is_flat(soak, what):
    judged = 0
    for pid, samples in soak.samples.items():
        values = [s[what] for _, s in samples]
        if len(values) < 8:
            continue  # it was killed early
        half = len(values) // 2
        early, late = statistics.median(values[half // 2:half]), statistics.median(values[-half // 2:])
        assert late - early <= MAY_GROW[what], f"process {pid}: {what} grew from {early} to {late}"
        judged += 1
    assert judged >= 6


def test_soak_spool_is_flat(soak):
    half = len(soak.segments) // 2
    assert statistics.median(soak.segments[half:]) <= statistics.median(soak.segments[:half]) + 2


def test_soak_nobody_died_but_by_the_kill(soak):
    assert [d["role"] for d in soak.game.house.events(event="process.died")] == ["spool"]
