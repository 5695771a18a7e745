"""SIGKILL to every process, at random moments and at every named step of the write path, while mail flows.

The plan is drawn from KIDOBAN_CRASH_SEED (printed), KIDOBAN_CRASH_KILLS says how many. After each batch of kills the
clients pause, and everything promised so far must have arrived, whole; a delivery may have been repeated only across a
kill of the spool, of deliver or of the whole house.
"""

import asyncio
import errno
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import faults  # noqa: E402
from crash_house import ROLES, SINK, BareWorld, CrashHouse, until  # noqa: E402
from ledger import Clients, Ledger, Sink  # noqa: E402

SEED = int(os.environ.get("KIDOBAN_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("KIDOBAN_CRASH_KILLS", "220"))
BATCH = 22
WINDOW = 1000  # jobs that the spool lets be out for one domain: that many deliveries can be in flight

# Points that are no step of their own but let others come to pass.
AIDS = {"master.delay", "spool.snapshot.due"}
CHANNEL = [f"{role}/{point}" for role in (*ROLES, "master") for point in ("channel.flush", "channel.flushed")]
POINTS = [p for p in faults.points() if p not in AIDS and not p.startswith("channel.")] + CHANNEL
RANDOM = [f"random {role}" for role in (*ROLES, "master", "all", "spool+deliver", "receiver")]

# What has to happen first so that a rare point is reached soon: another fault, or another death.
SNAPSHOT = [("spool.snapshot.due", errno.EAGAIN)]
FRESH = [("spool.segment.recycle", errno.ENOENT)]
FIRST = {p: SNAPSHOT for p in POINTS if p.startswith("spool.snapshot.")}
FIRST |= {"spool.segment.create": FRESH, "spool.segment.sync": FRESH}
DEATH_FIRST = {p: "spool" for p in POINTS if p.startswith("spool.recover.")}
DEATH_FIRST |= {"master.reaped": "guard", "master.start": "vault", "spool.segment.remove": "deliver"}


def plan_of(seed, count):
    """Each kind once, the rest by lot, in any order: (kind, hit, wait in seconds)."""
    rng = random.Random(f"kills {seed}")
    kinds = (POINTS + RANDOM)[:count]
    kinds += [rng.choice(POINTS + RANDOM * 2) for _ in range(count - len(kinds))]
    rng.shuffle(kinds)
    return [(kind, rng.choice([1, 1, 2, 3, 5, 8]), rng.uniform(0, 0.1)) for kind in kinds]


class Killer:
    def __init__(self, world):
        self.state = world.dir / "small"
        self.state.mkdir()
        self.state.chmod(0o755)
        # So small that segments are of 2 MiB: they are recycled all the time.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "none", self.state], check=True)
        self.plan = faults.Plan(world.dir / "faults", [p for p in faults.points() if not p.startswith("channel.")] + CHANNEL)
        self.house = CrashHouse(world, "kills", plan=world.dir / "faults", state=self.state)
        self.ledger = Ledger(SEED)
        self.sink = Sink(self.ledger, *SINK)
        self.clients = Clients(self.ledger, SEED, context=world.client_context(), login=("alice", CrashHouse.PASSWORD))
        self.killed = {}

    async def start(self):
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        await asyncio.to_thread(self.house.account_add, "alice", "alice@example.org")
        self.plan.arm("master.delay", faults.ERROR, errno.EAGAIN, times=faults.FOREVER)
        await self.sink.start()
        self.clients.start()

    async def progress(self, count=3):
        before = len(self.ledger.promised)
        await until(lambda: len(self.ledger.promised) >= before + count, 60, lambda: f"mail, {self.ledger.story()},")

    async def kill_at(self, point, hit):
        for aid, error in FIRST.get(point, []):
            if aid != point:
                self.plan.arm(aid, faults.ERROR, error, times=5)
        hit = 1 if point in FIRST or point in DEATH_FIRST else hit
        self.plan.arm(point, faults.KILL, after=hit)
        if point in DEATH_FIRST:
            role = DEATH_FIRST[point]
            self.kill_pid(self.pids[role, 0])

        async def reached():
            if point.startswith("master") and self.plan.left(point) > 0:
                await self.house.ask("master", verb="status")  # it has little to say of itself
            return self.plan.left(point) == 0
        await until(reached, 60, f"a hit of {point}", 0.005)

    def kill_pid(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    async def kill_random(self, who):
        if who == "receiver":
            await self.sink.stop()
            await asyncio.sleep(0.2)
            await self.sink.start()
        elif who == "all":
            self.house.kill_all(self.pids.values())
        elif who == "master":
            self.kill_pid(self.house.process.pid)
            self.house.process.wait()
        else:
            for role in who.split("+"):
                count = sum(r == role for r, _ in self.pids)
                self.kill_pid(self.pids[role, random.randrange(count)])

    async def kill(self, kind, hit, wait):
        await asyncio.sleep(wait)
        begin, before = time.monotonic(), self.pids
        if kind.startswith("random "):
            await self.kill_random(kind.split()[1])
        else:
            await self.kill_at(kind, hit)

        async def changed():
            self.pids = await self.house.whole()
            return self.pids != before
        if kind != "random receiver":
            await until(changed, 60, f"a new process after {kind}", 0.03)
        gone = {role for (role, n), pid in self.pids.items() if before.get((role, n)) != pid}
        repeats = bool(gone & {"spool", "deliver"}) or kind == "random receiver"
        self.ledger.crash(begin, time.monotonic(), f"{kind} at hit {hit}", repeats)
        self.killed[kind] = self.killed.get(kind, 0) + 1
        await self.progress()

    async def settle(self):
        """Everything promised arrives, and nothing stays behind."""
        await self.clients.pause_all()
        await until(lambda: not self.ledger.missing(), 90,
                    lambda: f"{self.ledger.missing()[:5]} of {self.ledger.story()}", 0.2)

        async def empty():
            answer = await self.house.ask("spool", verb="queue.list")
            return answer is not None and not [row for row in answer if "id" in row]
        await until(empty, 60, "an empty queue", 0.2)
        self.ledger.judge(WINDOW)
        self.clients.paused.set()


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def killer(loop):
    with BareWorld() as world:
        k = Killer(world)
        loop.run(k.start())
        yield k
        loop.run(k.clients.stop())
        k.house.stop()
        print(f"\nkills, seed {SEED}: {sum(k.killed.values())} kills; {k.ledger.story()}")


PLAN = plan_of(SEED, KILLS)


@pytest.mark.parametrize("batch", range((KILLS + BATCH - 1) // BATCH))
def test_kills_lose_nothing(killer, loop, batch):
    print(f"seed {SEED}, batch {batch}")

    async def run():
        for step in PLAN[batch * BATCH:(batch + 1) * BATCH]:
            at = time.monotonic()
            await killer.kill(*step)
            print(f"{step[0]:32} {time.monotonic() - at:6.2f} s")
        await killer.settle()
        print(killer.ledger.story())
    loop.run(run())


def test_every_step_was_killed_at(killer):
    if KILLS >= len(POINTS + RANDOM):
        assert not [k for k in POINTS + RANDOM if not killer.killed.get(k)]


def test_nothing_died_that_was_not_killed(killer):
    died = killer.house.events(event="process.died")
    assert len(died) > 0
    assert [d for d in died if d["how"] != "signal 9"] == []
