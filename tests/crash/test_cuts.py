"""Power cuts for real: the daemon's state on ext4 and on XFS, FS_IOC_SHUTDOWN in mid-load, SIGKILL to all, mount again.

The call stops the file system at once: what was not synced is gone, its journal is replayed by the next mount. Only what
was acknowledged before the call began is judged: a sync in flight may yet return 0 after it. In most rounds the receiver
is away until after the cut, so that everything acknowledged must come from the disk.
"""

import asyncio
import fcntl
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from crash_house import SINK, BareWorld, CrashHouse, until  # noqa: E402
from house import KIDOBAND  # noqa: E402
from ledger import Clients, Ledger, Sink  # noqa: E402

SEED = int(os.environ.get("KIDOBAN_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
ROUNDS = int(os.environ.get("KIDOBAN_CRASH_CUTS", "10"))  # of each file system
SHUTDOWN, WITHOUT_LOG = 0x8004587D, 2                     # FS_IOC_SHUTDOWN, FSOP_GOING_FLAGS_NOLOGFLUSH
MEBIBYTES = {"ext4": 96, "xfs": 300}                      # segments of 4 and 16 MiB


class Disk:
    """A file system in a file; in this mount namespace only."""

    def __init__(self, world, kind, mebibytes=None, *options):
        self.kind = kind
        self.image, self.mount_point = world.dir / f"{kind}.image", world.dir / f"{kind}.disk"
        self.mount_point.mkdir()
        self.image.touch()
        os.truncate(self.image, (mebibytes or MEBIBYTES[kind]) << 20)
        quiet = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{kind}", *quiet, *options, self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", "-t", self.kind, self.image, self.mount_point], check=True)
        self.mount_point.chmod(0o755)

    def cut(self):
        fd = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        os.close(fd)

    async def umount(self):
        def gone():
            return subprocess.run(["umount", self.mount_point], stderr=subprocess.DEVNULL).returncode == 0
        await until(gone, 30, "umount", 0.05)


class Cutter:
    def __init__(self, world, kind):
        self.kind, self.disk = kind, Disk(world, kind)
        self.house = CrashHouse(world, f"cuts-{kind}", state=self.disk.mount_point / "state", daemon=KIDOBAND)
        self.ledger = Ledger(f"{kind} {SEED}")
        self.sink = Sink(self.ledger, *SINK)
        self.clients = Clients(self.ledger, f"{kind}{SEED}", context=world.client_context(),
                               login=("alice", CrashHouse.PASSWORD), large=0.03)
        self.rng = random.Random(f"cuts {kind} {SEED}")
        self.cuts, self.accounts, self.sink_up, self.judged = 0, [], False, 0

    async def start(self):
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        await asyncio.to_thread(self.house.account_add, "alice", "alice@example.org")
        self.clients.paused.clear()
        self.clients.start()

    async def stop(self):
        await self.clients.stop()
        self.house.stop()
        if self.sink_up:
            await self.sink.stop()
        await self.disk.umount()

    async def sink_set(self, up):
        if up != self.sink_up:
            await (self.sink.start() if up else self.sink.stop())
            self.sink_up = up

    async def round(self, number):
        rng, away = self.rng, number % 3 != 2
        await self.sink_set(not away)
        before, least = len(self.ledger.promised), rng.randrange(5, 400)
        self.clients.paused.set()
        await until(lambda: len(self.ledger.promised) >= before + least, 60, lambda: f"mail, {self.ledger.story()},", 0.002)
        name = f"account-{number}"
        if number % 4 == 0:
            await asyncio.to_thread(self.house.account_add, name, f"{name}@example.org")
            self.accounts.append(name)
        await asyncio.sleep(rng.uniform(0, 0.1))
        began = time.monotonic()
        await asyncio.to_thread(self.disk.cut)
        await asyncio.sleep(rng.choice([0, 0.05, 0.5]))  # the daemon may see errors first
        self.house.kill_all(self.pids.values())
        await self.clients.pause_all()
        self.ledger.crash(began, time.monotonic(), f"cut {number}", True)
        await self.disk.umount()
        await asyncio.sleep(0.05)
        unsure = self.ledger.doubt(began)
        self.disk.mount()
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        self.cuts += 1
        print(f"{self.kind} {number}: {len(self.ledger.promised) - before} acknowledged, {unsure} too late to judge, "
              f"receiver {'away' if away else 'there'}")
        await self.settle()

    async def settle(self):
        await self.sink_set(True)
        await until(lambda: not self.ledger.missing(), 60,
                    lambda: f"{self.ledger.missing()[:5]} of {self.ledger.story()}", 0.1)

        async def empty():
            answer = await self.house.ask("spool", verb="queue.list")
            return answer is not None and not [row for row in answer if "id" in row]
        await until(empty, 60, "an empty queue", 0.1)
        self.ledger.judge(1000)
        shown = await self.house.ask("vault", verb="account.list")
        names = {row.get("name") for row in shown}
        assert set(self.accounts) | {"alice"} <= names, "an account that was added is gone"


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def world():
    with BareWorld() as w:
        yield w


@pytest.fixture(scope="module", params=["ext4", "xfs"])
def cutter(request, loop, world):
    c = Cutter(world, request.param)
    loop.run(c.start())
    yield c
    loop.run(c.stop())
    print(f"\ncuts, seed {SEED}: {c.kind}, {c.cuts} cuts; {c.ledger.story()}")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_power_cut_loses_nothing(cutter, loop, number):
    print(f"seed {SEED}")
    loop.run(cutter.round(number))
