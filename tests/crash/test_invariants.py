"""The twelve invariants, each by name. Some are proven at more length elsewhere; docs/reliability.md says where."""

import asyncio
import contextlib
import datetime
import errno
import os
import pathlib
import random
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import faults  # noqa: E402
from crash_house import FAULTS, SINK, BareWorld, until  # noqa: E402
from game import Play  # noqa: E402
from house import BUILD  # noqa: E402
from test_cuts import Disk  # noqa: E402

SEED = int(os.environ.get("KIDOBAN_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = os.environ.get("KIDOBAN_CRASH_LONG") == "1"


@pytest.fixture(scope="module")
def world():
    with BareWorld() as w:
        yield w
    print(f"\ninvariants, seed {SEED}")


@pytest.fixture
def small(world, request):
    """A file system so small that segments are recycled all the time."""
    path = world.dir / f"small-{request.node.name}"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m,mode=0755", "none", path], check=True)
    return path


def test_I1_a_250_survives_death_at_each_system_call(world, small):
    """SIGKILL at the n-th write, sync, rename and message of the spool, as strace counts them."""
    async def run():
        plan = faults.Plan(world.dir / "faults", ["master.delay"])  # or its back-off would have us wait
        plan.arm("master.delay", faults.ERROR, errno.EAGAIN, times=faults.FOREVER)
        async with Play(world, "i1", SEED, state=small, daemon=FAULTS / "src/master/kidoband",
                        plan=world.dir / "faults") as game:
            for call in ("pwritev", "fdatasync", "sendmsg", "renameat", "openat"):
                for nth in range(1, 20 if LONG else 4):
                    pid, begin = game.pids["spool", 0], time.monotonic()
                    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                                               f"inject={call}:signal=SIGKILL:when={nth}", "-p", str(pid)],
                                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

                    async def died():
                        game.pids = await game.house.whole()
                        return game.pids["spool", 0] != pid
                    await until(died, 60, f"death at {call} {nth}")
                    tracer.kill()
                    tracer.wait()
                    game.ledger.crash(begin, time.monotonic(), f"{call} {nth}", True)
                    await game.progress(3)
            await game.settle()
    asyncio.run(run())


def test_I2_without_a_250_nothing_torn_is_sent(world):
    """Clients that break off anywhere: what still arrives is whole, and nothing arrives that had not ended."""
    async def run():
        rng = random.Random(f"i2 {SEED}")
        async with Play(world, "i2", SEED, clients=False) as game:
            unfinished = set()
            for i in range(300 if LONG else 60):
                m = game.clients.message(rng, 99, i)
                chunk = rng.random() < 0.5
                commands = f"EHLO x\r\nMAIL FROM:<{m.sender}>\r\n" + "".join(f"RCPT TO:<{r}>\r\n" for r in m.recipients)
                head = commands.encode() + (f"BDAT {len(m.octets)} LAST\r\n".encode() if chunk else b"DATA\r\n")
                stream = head + m.octets + (b"" if chunk else b".\r\n")
                cut = rng.randrange(len(head), len(stream) + 1)
                reader, writer = await asyncio.open_connection("127.0.0.1", 587)
                await reader.readline()
                writer.write(stream[:cut])
                if cut < len(stream):
                    unfinished.add(m.key)
                await asyncio.wait_for(writer.drain(), 60)
                await asyncio.sleep(rng.choice([0, 0.01]))
                writer.transport.abort()
            game.send()
            await game.progress(20)
            await game.settle()
            assert not [key for key, _ in game.ledger.arrived if key in unfinished]
            assert not unfinished & set(game.ledger.bounced)
    asyncio.run(run())


def used(path):
    """Offset behind the last octet that is not zero."""
    return len(path.read_bytes().rstrip(b"\0"))


def test_I3_a_rotten_octet_is_never_sent_and_stops_nothing(world, small):
    """One bit of a spool's segments or large files is turned at a time: at most the message it hit is set aside."""
    async def run():
        rng = random.Random(f"i3 {SEED}")
        async with Play(world, "i3", SEED, state=small, sink=False, large=0.1, clients=False) as game:
            game.send()
            await game.progress(60)
            await game.clients.pause_all()
            await asyncio.sleep(0.3)
            house, spool, good = game.house, small / "spool", world.dir / "i3-good"
            told, hit = [], 0
            house.kill_all(game.pids.values())
            subprocess.run(["cp", "-a", spool, good], check=True)
            for turn in range(100 if LONG else 6):
                shutil.rmtree(spool)
                subprocess.run(["cp", "-a", good, spool], check=True)
                files = [p for p in (*spool.glob("*.seg"), *spool.glob("large/*")) if used(p) > 0]
                path = rng.choice(files if turn % 2 else [f for f in files if f.suffix == ".seg"])
                at, bit = rng.randrange(used(path)), 1 << rng.randrange(8)
                with open(path, "r+b") as f:
                    f.seek(at)
                    octet = f.read(1)[0]
                    f.seek(at)
                    f.write(bytes([octet ^ bit]))
                game.ledger.forget_deliveries()
                house.start(wait=False)
                game.pids = await house.whole()
                await game.receive(True)

                async def rest():
                    rows = await game.queue()
                    return rows is not None and all(r.get("state") == "damaged" or r.get("held") for r in rows)
                await until(lambda: len({k for k, _ in game.ledger.missing()}) <= 1, 60,
                            lambda: f"{game.ledger.missing()[:9]} after bit {bit} of {path.name}:{at}", 0.05)
                await until(rest, 30, "a queue without anything to do", 0.1)
                lost = {k for k, _ in game.ledger.missing()}
                events = house.events(event="message.damaged") + house.events(event="spool.torn")
                fresh = [e for e in events if e not in told]
                # Where its envelope was hit nobody knows the sender any more; what is left of it is set aside.
                assert lost <= game.ledger.damaged or any("aside" in e for e in fresh), (
                    f"nobody was told of {lost} ({path.name}:{at} {bit}): {fresh}")
                told, hit = events, hit + len(lost)
                game.ledger.damaged.clear()
                await game.receive(False)
                house.kill_all(game.pids.values())
            assert not game.ledger.wrong, game.ledger.wrong[:5]
            print(f"invariants, one bit turned {turn + 1} times: {hit} messages lost, each told")
            house.start(wait=False)
            game.pids = await house.whole()
    asyncio.run(run())


def test_I4_stop_reload_and_upgrade_repeat_nothing(world):
    async def run():
        async with Play(world, "i4", SEED) as game:
            for _ in range(10 if LONG else 2):
                await game.progress(30)
                await game.call(game.house.stop)
                assert game.house.process.returncode == 0
                game.house.start(wait=False)
                await game.house.whole()
                await game.progress(30)
                for _ in range(3):
                    await game.call(game.house.run, "reload")
                    await game.progress(10)
                before = await game.house.whole()
                os.kill(game.house.process.pid, signal.SIGUSR2)

                async def fresh():
                    there = await game.house.whole()
                    return not set(there.values()) & set(before.values())
                await until(fresh, 60, "new processes")
            await game.settle(concurrent=0)
    asyncio.run(run())


def test_I4_results_that_wait_for_the_disk_are_few(world, small):
    """While nothing can be recorded, only so many deliveries are made: all of them would be made again."""
    async def run():
        plan = faults.Plan(world.dir / "faults-i4", ["spool.batch.write"])
        async with Play(world, "i4disk", SEED, state=small, daemon=FAULTS / "src/master/kidoband",
                        plan=world.dir / "faults-i4", sink=False, large=0.0) as game:
            await game.progress(1500)
            await game.clients.pause_all()
            await asyncio.sleep(0.5)
            plan.arm("spool.batch.write", faults.ERROR, errno.EIO, times=faults.FOREVER)
            await game.receive(True)
            seen, since = 0, time.monotonic()
            while seen == 0 or time.monotonic() - since < 4:
                if len(game.ledger.arrived) != seen:
                    seen, since = len(game.ledger.arrived), time.monotonic()
                await asyncio.sleep(0.05)
            plan.disarm_all()
            await game.crash("nothing was recorded")
            await game.settle(concurrent=1200)
            print(f"invariants, results that wait for the disk: {game.ledger.story()}")
    asyncio.run(run())


def test_I5_a_failed_sync_is_no_proof(world, small):
    """Every fourth fdatasync fails: those waiters get 451, and the same file is never synced again as if it had not."""
    async def run():
        async with Play(world, "i5", SEED, {"processes": {"sandbox": False}}, state=small) as game:
            log = world.dir / "i5.strace"
            tracer = subprocess.Popen(["strace", "-f", "-y", "-qq", "-o", log, "-e", "trace=fdatasync", "-e",
                                       "inject=fdatasync:error=EIO:when=3+4", "-p", str(game.pids["spool", 0])],
                                      stdin=subprocess.DEVNULL)
            await until(lambda: log.exists() and log.read_text().count("INJECTED") >= 12, 90, "failed syncs", 0.1)
            tracer.terminate()
            tracer.wait()
            await game.progress(50)
            await game.settle(concurrent=0)
            assert game.ledger.refusals["451 4.3.0"] > 0
            synced, judged = {}, 0
            for path, result in re.findall(r"fdatasync\(\d+<(\S+?)>\) *= (-?\d+)", log.read_text()):
                good = synced.setdefault(path, [])
                # A segment whose first sync failed is replaced by another file of its name; next.tmp begins anew.
                if True in good and False in good and not path.endswith("next.tmp"):
                    assert False, f"{path} was synced again after a sync of it had failed"
                good.append(result == "0")
                judged += good[-1] is False and True in good and path.endswith(".seg")
            assert judged > 0
    asyncio.run(run())


def test_I6_poison_stops_nobody(world):
    """A message without its octets, a host that never speaks, a recipient that is deferred for ever."""
    async def run():
        hole = socket.create_server(("127.0.0.27", 2526), backlog=50)
        settings = {"routes": [{"domain": "hole.example", "via": "smarthost", "to": "127.0.0.27:2526", "tls": "none"},
                               {"domain": "*", "via": "smarthost", "to": f"{SINK[0]}:{SINK[1]}", "tls": "none"}],
                    "spool": {"retry": {"first": "1s", "max": "5s"}}, "delivery": {"timeouts": {"command": "1s"}}}
        async with Play(world, "i6", SEED, settings, sink=False, clients=False, large=0.0) as game:
            house = game.house
            large = (await game.call(house.send, "ok+x.0@one.sink.example", "large", "x" * 70 + "\r\n" * 2 +
                                     ("y" * 70 + "\r\n") * 6000)).split()[-1]
            holes = [(await game.call(house.send, f"h{i}@hole.example", "hole")).split()[-1] for i in range(20)]
            os.unlink(house.dir / "state/spool/large" / large)
            game.send()
            await game.progress(100)
            await game.clients.pause_all()
            await game.receive(True)
            await until(lambda: not game.ledger.missing(), 60, lambda: f"{game.ledger.missing()[:5]}", 0.1)
            await until(lambda: house.events(event="message.damaged", id=large), 30, "the damaged one is told")
            rows = {r["id"]: r for r in await game.queue()}
            assert set(holes) <= set(rows), "they are waiting, not lost"
            bound = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=10)
            for row in rows.values():  # what waits, waits for a moment no further away than the longest retry
                assert row["id"] == large or row["state"] in ("waiting", "ready", "delivering"), row
                if row["state"] == "waiting":
                    assert datetime.datetime.fromisoformat(row["next"].replace("Z", "+00:00")) < bound, row

            def tries():
                return sum(len(house.events(event="message.deferred", id=i)) for i in holes)
            before = tries()
            await until(lambda: tries() >= before + 3, 60, "further attempts at the host that never speaks", 0.2)
            assert (await house.ask("spool", verb="spool.status"))[-1]["damaged"] == 1, "it is counted"
            again = await game.call(house.send, "ok+after.0@one.sink.example", "after all that")
            assert again
            for i in holes + [large]:
                await game.call(house.run, "queue", "remove", i, check=False)
            game.ledger.wrong.clear()  # what house.send() sent keeps no ledger
        hole.close()
    asyncio.run(run())


def test_I7_a_full_disk_refuses_and_recovers(world):
    """8 MiB of ext4 with 64 inodes, filled from outside: 452 before DATA; what is queued still goes; room is noticed."""
    async def run():
        disk = Disk(world, "ext4", 8, "-N", "64")
        disk.mount_point.joinpath("spool").mkdir()
        shutil.chown(disk.mount_point / "spool", "kidoban-spool", "kidoban")
        settings = {"spool": {"directory": str(disk.mount_point / "spool")}}
        game = None
        try:
            async with Play(world, "i7", SEED, settings, sink=False, clients=False, large=0.0) as game:
                game.send()
                await game.progress(50)
                filler = disk.mount_point / "filler"
                for what in ("octets", "inodes", "octets"):
                    before = game.ledger.refusals["452 4.3.1"]
                    if what == "octets":
                        with contextlib.suppress(OSError), open(filler, "wb") as f:
                            while True:
                                f.write(bytes(65536))
                                f.flush()
                    else:
                        with contextlib.suppress(OSError):
                            for i in range(100):
                                (disk.mount_point / f"inode-{i}").touch()
                    await until(lambda: game.ledger.refusals["452 4.3.1"] > before + 5, 60, f"452 without {what}")
                    client = await game.call(game.house.connect)
                    code, _ = await game.call(client.mail, "alice@example.org")
                    assert code == 452, "refused before DATA"
                    client.close()
                    await game.receive(True)
                    await until(lambda: not game.ledger.missing(), 60, lambda: f"{game.ledger.missing()[:5]}", 0.1)
                    for path in disk.mount_point.glob("inode-*"):
                        path.unlink()
                    filler.unlink(missing_ok=True)
                    await game.progress(20)
                    await game.receive(False)
                await game.settle(concurrent=0)
                assert not game.house.events(event="process.died")
        finally:
            await disk.umount()
    asyncio.run(run())


def test_I8_a_big_spool_starts_soon_and_has_one_owner(world):
    count = 500_000 if LONG else 100_000

    async def run():
        game = Play(world, "i8", SEED, sink=False, clients=False).game
        spool = game.house.dir / "state/spool"
        spool.parent.mkdir()
        spool.parent.chmod(0o755)
        start = BUILD / "bench/spool-start"

        def reads():
            """(calls, octets read) of a start; it takes one message more."""
            log = world.dir / "i8.strace"
            subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=pread64", start, "open", spool], check=True,
                           stdout=subprocess.DEVNULL)
            found = [int(n) for n in re.findall(r"\) += ([0-9]+)$", log.read_text(), re.MULTILINE)]
            return len(found), sum(found)
        subprocess.run([start, "fill", spool, str(count // 4), "400"], check=True, stdout=subprocess.DEVNULL)
        quarter = reads()
        subprocess.run([start, "fill", spool, str(count - count // 4 - 2), "400"], check=True, stdout=subprocess.DEVNULL)
        whole = reads()
        print(f"invariants, reads of a start (calls, octets): {quarter} with {count // 4} messages, {whole} with {count}")
        more = count - count // 4  # beside what a start reads of any spool (the head is searched to its end)
        assert whole[0] - quarter[0] < more / 20 and whole[1] - quarter[1] < more * 4096, f"{quarter}, then {whole}"
        subprocess.run(["chown", "-R", "kidoban-spool:kidoban", spool], check=True)
        began = time.monotonic()
        game.house.start(wait=False)
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", 587), timeout=30).close()
                break
            await asyncio.sleep(0.02)
        game.send()
        await game.progress(1)
        took = time.monotonic() - began
        recovered = game.house.events(event="spool.recovered")[0]
        print(f"invariants, {count} messages queued: {recovered['ms']} ms of recovery, first 250 after {took:.1f} s")
        assert recovered["messages"] == count
        assert recovered["ms"] < 20_000 * count / 100_000  # ten times what is promised: the machine has other work
        assert subprocess.run([start, "open", spool], capture_output=True).returncode != 0, "two owners"
        await game.stop()
        shutil.rmtree(spool)
    asyncio.run(run())


FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def test_I9_steps_of_the_clock_change_nothing(world):
    """The wall clock steps by a day and by ten years, both ways, under a queue that waits: it goes on at its pace."""
    async def run():
        clock = world.dir / "clock"
        clock.write_text("+0\n")
        settings = {"processes": {"sandbox": False}, "spool": {"retry": {"first": "300ms", "max": "300ms"}}}
        play = Play(world, "i9", SEED, settings, clients=False)
        play.game.house.variables = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(clock),
                                     "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                                     "FAKETIME_DONT_RESET": "1"}
        async with play as game:
            game.ledger.deferred = NeverEnough()
            house = game.house
            ids = [(await game.call(house.send, f"later+i9-{i}.0@one.sink.example", f"waits {i}")).split()[-1]
                   for i in range(5)]

            def attempts():
                return len(house.events(event="message.deferred"))
            for step in ("+1d", "-1d", "+3650d", "-3650d", "+0"):
                clock.write_text(step + "\n")
                before, at = attempts(), time.monotonic()
                await until(lambda: attempts() >= before + 15, 60, f"attempts after a step to {step}", 0.1)
                most = 5 * (time.monotonic() - at + 1) / 0.15  # half the wait is the jitter's
                assert attempts() - before <= most, f"{attempts() - before} attempts after a step to {step}: a storm"
                assert len(await game.queue()) == 5
            await game.crash("a restart ten years later")
            clock.write_text("+3650d\n")
            await game.crash("again")
            assert {r["id"] for r in await game.queue()} == set(ids)
            assert not house.events(event="message.expired")
            game.ledger.deferred = Everything()
            await game.empty()
            game.ledger.wrong.clear()
    asyncio.run(run())


class NeverEnough(set):
    """Nobody has had his deferral yet."""

    def __contains__(self, _):
        return False


class Everything(set):
    def __contains__(self, _):
        return True


def test_I10_counters_and_blocks_survive(world):
    """What an account has used, that it is suspended, and what was guessed at it is there after everything died."""
    async def run():
        settings = {"limits": [{"name": "few", "per": "account", "count": "recipients", "windows": ["10/1h"]}],
                    "accounts": {"guesses_free": 2, "guess_delay": "5s", "guess_delay_max": "10s"}}
        async with Play(world, "i10", SEED, settings, clients=False) as game:
            house = game.house
            await game.call(house.account_add, "bob", "bob@example.org")

            def send(user="alice"):
                try:
                    house.send("ok+i10.0@one.sink.example", sender=f"{user}@example.org", user=user, port=465)
                except smtplib.SMTPDataError as e:
                    return e.smtp_code
                return 250
            for _ in range(6):
                assert await game.call(send) == 250
            await game.crash("six of ten used")
            assert [await game.call(send) for _ in range(5)] == [250] * 4 + [450]
            await game.crash("all used")
            assert await game.call(send) == 450
            assert await game.call(send, "bob") == 250

            await game.call(house.run, "account", "suspend", "bob", "--reason", "test")
            await game.crash("suspended")
            with pytest.raises((smtplib.SMTPException, AssertionError)):
                assert await game.call(send, "bob") == 250
            game.ledger.wrong.clear()

            def guess(password):
                begun = time.monotonic()
                with (house.connect(port=465, login=False, timeout=30) as client,
                      pytest.raises(smtplib.SMTPAuthenticationError) as refused):
                    client.login("alice", password)
                assert refused.value.smtp_code == 535
                return time.monotonic() - begun
            for i in range(3):
                await game.call(guess, f"wrong {i}")
            await game.crash("three guesses, two of them free")
            assert await game.call(guess, "wrong 3") >= 10
    asyncio.run(run())


def resident(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) >> 10


def test_I11_memory_is_bounded_whatever_peers_do(world):
    """Half messages below the size that streams, endless headers, unread replies: bounded, and others are served."""
    async def run():
        most = 740
        settings = {"submission": {"workers": 1, "limits": {"connections": most, "connections_per_network": 2000}}}
        async with Play(world, "i11", SEED, settings, clients=False) as game:
            pid = game.pids["submit", 0]
            before, held = resident(pid), []
            line = b"z" * 76 + b"\r\n"

            async def half(i, octets, header):
                reader, writer = await asyncio.open_connection("127.0.0.1", 587)
                await reader.readline()
                writer.write(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<ok+half.0@one.sink.example>\r\nDATA\r\n")
                writer.write(b"Subject: half\r\n" + (b"X: " if header else b"\r\n") + line * (octets // len(line)))
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(writer.drain(), 5)
                held.append((reader, writer))
            for i in range(0, 600, 50):
                await asyncio.gather(*(half(i + k, 240_000, False) for k in range(50)))
            await asyncio.gather(*(half(i, 100_000, True) for i in range(100)))
            peak = resident(pid)

            async def greeted():
                reader, writer = await asyncio.open_connection("127.0.0.1", 587)
                more.append(writer)
                return (await asyncio.wait_for(reader.readline(), 60))[:4]
            more, greetings = [], []
            while greetings.count(b"421 ") < 10:
                greetings.append(await greeted())
                assert len(greetings) <= most - len(held) + 10, greetings
            assert set(greetings) == {b"220 ", b"421 "}, "whom there is no room for is told so"
            for writer in more:
                writer.transport.abort()
            game.send()
            await game.progress(50)
            await game.settle()
            peak = max(peak, resident(pid))
            for _, writer in held:
                writer.transport.abort()
            spool = resident(game.pids["spool", 0])
            print(f"invariants, 600 half messages of 240 kB: submit {before} to {peak} MiB, spool {spool} MiB")
            assert peak < 128 + 64 + before, "more than the bound of the messages, the sessions, and some"
            assert spool < 128
            assert not game.house.events(event="process.died")
    asyncio.run(run())


def test_I12_reload_and_new_certificates_lose_nothing(world):
    """A reload every second and a new certificate every other, while sessions go on: none is cut, nothing is refused."""
    async def run():
        async with Play(world, "i12", SEED) as game:
            await game.progress(10)
            for i in range(60 if LONG else 6):
                if i % 2:
                    await game.call(world.certificate, "mail.example.org", "mail.example.org")
                await game.call(game.house.run, "reload")
                await asyncio.sleep(1)
            await game.settle(concurrent=0)
            assert not game.ledger.refusals, dict(game.ledger.refusals)
            assert len(game.house.events(event="config.loaded")) >= 6
    asyncio.run(run())
