"""A house with clients and a receiver that keep a ledger: what the tests of invariants and the soak play with."""

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from crash_house import SINK, CrashHouse, until  # noqa: E402
from house import KIDOBAND  # noqa: E402
from ledger import Clients, Ledger, Sink  # noqa: E402

IN_FLIGHT = 1000  # jobs that the spool lets be out for one domain


class Game:
    def __init__(self, world, name, seed, settings=None, state=None, daemon=KIDOBAND, plan=None, sink=SINK,
                 **clients):
        self.house = CrashHouse(world, name, settings, plan=plan, state=state, daemon=daemon)
        self.ledger = Ledger(seed)
        self.sink, self.sink_up = Sink(self.ledger, *sink), False
        self.clients = Clients(self.ledger, f"{name}{seed}", context=world.client_context(),
                               login=("alice", CrashHouse.PASSWORD), **clients)
        self.pids, self.sending = {}, False

    async def start(self, sink=True, clients=True):
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        await self.call(self.house.account_add, "alice", "alice@example.org")
        await self.receive(sink)
        if clients:
            self.send()

    def send(self):
        if not self.sending:
            self.clients.start()
        self.sending = True
        self.clients.paused.set()

    async def call(self, function, *arguments, **named):
        """What blocks, while the loop goes on."""
        return await asyncio.to_thread(function, *arguments, **named)

    async def receive(self, up):
        if up != self.sink_up:
            await (self.sink.start() if up else self.sink.stop())
            self.sink_up = up

    async def progress(self, count):
        before = len(self.ledger.promised)
        await until(lambda: len(self.ledger.promised) >= before + count, 90, lambda: f"mail, {self.ledger.story()},")

    async def crash(self, what):
        """Everything dies and comes back."""
        begin = asyncio.get_running_loop().time()
        self.house.kill_all(self.pids.values())
        self.house.start(wait=False)
        self.pids = await self.house.whole()
        self.ledger.crash(begin, asyncio.get_running_loop().time(), what, True)

    async def queue(self):
        answer = await self.house.ask("spool", verb="queue.list")
        return None if answer is None else [row for row in answer if "id" in row]

    async def empty(self, seconds=60):
        async def check():
            return await self.queue() == []
        await until(check, seconds, "an empty queue", 0.1)

    async def settle(self, concurrent=IN_FLIGHT):
        """The clients wait until everything promised has arrived and the queue is empty."""
        await self.clients.pause_all()
        await self.receive(True)
        try:
            await until(lambda: not self.ledger.missing(), 90,
                        lambda: f"{self.ledger.missing()[:5]} of {self.ledger.story()}", 0.1)
            await self.empty()
        finally:
            self.clients.paused.set()
        self.ledger.judge(concurrent)

    async def stop(self):
        if self.sending:
            await self.clients.stop()
        await self.call(self.house.stop)
        await self.receive(False)


class Play:
    """async with Play(world, name, seed, ...) as game: started and stopped."""

    def __init__(self, *arguments, sink=True, clients=True, **named):
        self.game, self.sink, self.clients = Game(*arguments, **named), sink, clients

    async def __aenter__(self):
        await self.game.start(self.sink, self.clients)
        return self.game

    async def __aexit__(self, *_):
        await self.game.stop()
