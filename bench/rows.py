"""The rows of bench/race. Each is a function of (race, result); see the table at the end for what it measures."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import threading
import time

from contestants import BENCH, PASSWORD, RECIPIENT, SENDER, USER, cpu_seconds, eventually, house, pss, same_share

CONCURRENCY, SIZE, THREADS = 50, 4096, 2
MIB = 1 << 20


def load_command(port, **options):
    out = [str(BENCH / "load"), "--port", str(port)]
    given = {"from": SENDER, "to": RECIPIENT, "concurrency": CONCURRENCY, "threads": THREADS, "size": SIZE, **options}
    for name, value in given.items():
        out += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return out


def load(port, **options):
    done = subprocess.run(load_command(port, **options), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise AssertionError(f"load: {done.stderr}")
    return json.loads(done.stdout)


def last_answer(process):
    """The report of a generator that was started with Popen."""
    out, err = process.communicate()
    lines = out.strip().splitlines()
    if not lines:
        raise AssertionError(f"load: {err}")
    return json.loads(lines[-1])


AUTH = {"tls": "starttls", "user": USER, "pass": PASSWORD}


def timed(contestant, port, result, **options):
    """A run of the generator: its answer, with what the server's processes used of the CPU."""
    before = cpu_seconds(contestant.pids())
    answer = load(port, **options)
    answer["server_cpu_s"] = cpu_seconds(contestant.pids()) - before
    result.need(not answer["errors"], f"{contestant.name}: {answer['errors']} {answer['first_error']}")
    return answer


# ---- acceptance

def acceptance(race, result, messages, kidoban_count, postfix_count):
    counts = {race.kidoban: race.size(kidoban_count, 200), race.postfix: race.size(postfix_count, 100)}
    for _ in range(race.runs):
        for contestant, count in counts.items():
            contestant.start(hold=True)
            race.settle()
            answer = timed(contestant, contestant.accept, result, sessions=count // messages, messages=messages)
            result.add(contestant.name, answer["messages_s"], "messages/s", answer["server_cpu_s"] * 1000 / count)
            queued = contestant.queued()
            result.need(queued == count == answer["messages"],
                        f"{contestant.name}: {answer['messages']} acknowledged of {count}, {queued} in the queue")
            contestant.stop()
    ratio_bar(result, "kidoban", "postfix", 10)


def ratio_bar(result, ours, theirs, least):
    ratio = result.median(ours) / result.median(theirs)
    result.bar(f"at least {least} times {theirs}", f"{ratio:.1f} times", ratio >= least)


def accept_1(race, result):
    acceptance(race, result, 1, 10000, 1000)


def accept_20(race, result):
    acceptance(race, result, 20, 15000, 1000)


# ---- TLS and AUTH

def vault_hits(race):
    """AUTH answers a second of a vault alone that has the password in its cache, asked over one socket."""
    import importlib.util
    import struct
    import tempfile
    spec = importlib.util.spec_from_file_location("alone", house.TREE / "tests/system/test_vault_guard_alone.py")
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    count = race.size(50000, 2000)
    with alone.Role("vault", pathlib.Path(tempfile.mkdtemp(dir=race.ground.dir))) as vault:
        vault.do("account.add", name="alice", identities=["a@b.example"], password="pw")
        peer = vault.peer(alone.SUBMIT)
        if alone.login(peer, "alice", "pw")["status"] != 1:
            raise AssertionError("the vault does not know its account")
        words = struct.pack("=Q", 77) + alone.address("192.0.2.1") + b"".join(alone.octets(w) for w in ("alice", "pw", "PLAIN"))
        frames = b"".join(struct.pack("=IHBBQQ", len(words), 1, 1, 0, i + 1, 0) + words for i in range(count))
        begun = time.monotonic()
        threading.Thread(target=peer.sock.sendall, args=(frames,), daemon=True).start()
        got = b""
        answers = 0
        while answers < count:
            got += peer.sock.recv(1 << 20)
            while len(got) >= 24 and len(got) >= 24 + struct.unpack("=I", got[:4])[0]:
                got = got[24 + struct.unpack("=I", got[:4])[0]:]
                answers += 1
        return count / (time.monotonic() - begun)


FLOOR_PORT = 4650


@contextlib.contextmanager
def floor_tls(race, *mode):
    """A server that does nothing but TLS, with the same certificate; see bench/floor_tls.c."""
    server = subprocess.Popen([BENCH / "floor-tls", str(FLOOR_PORT), race.ground.certificate, race.ground.key,
                               str(os.cpu_count() or 2), *mode], start_new_session=True)
    try:
        eventually(lambda: house.port_open("127.0.0.1", FLOOR_PORT), what="the floor")
        same_share([server.pid])
        yield
    finally:
        server.terminate()
        server.wait()


def bare_handshakes(race):
    """Full TLS 1.3 handshakes a second of a server that does nothing else, with the same generator and certificate."""
    with floor_tls(race):
        return load(FLOOR_PORT, handshake_only=True, sessions=race.size(3000, 200))["sessions_s"]


def submission(race, result):
    counts = {race.kidoban: race.size(2000, 100), race.postfix: race.size(400, 50)}
    hits = vault_hits(race)
    for _ in range(race.runs):
        for contestant, count in counts.items():
            contestant.start(hold=True)
            timed(contestant, contestant.submit, result, sessions=1, messages=0, **AUTH)  # the first login of all is not in the cache
            race.settle()
            answer = timed(contestant, contestant.submit, result, sessions=count, messages=1, **AUTH)
            result.add(f"{contestant.name}, one message", answer["sessions_s"], "sessions/s", answer["server_cpu_s"] * 1000 / count)
            result.need(contestant.queued() == count == answer["messages"], f"{contestant.name}: {answer['messages']} acknowledged "
                        f"of {count}, {contestant.queued()} in the queue")
            result.need("TLSv1.3" in answer["tls"] and answer["resumed"] == 0, f"{contestant.name}: {answer['tls']}")
            answer = timed(contestant, contestant.submit, result, sessions=count, messages=0, **AUTH)
            result.add(f"{contestant.name}, login only", answer["sessions_s"], "sessions/s", answer["server_cpu_s"] * 1000 / count)
            contestant.stop()
        result.add("floor: bare handshakes", bare_handshakes(race), "handshakes/s")
    result.add("floor: AUTH from the cache", hits, "answers/s")
    ratio_bar(result, "kidoban, one message", "postfix, one message", 5)
    floor = 1 / (1 / result.median("floor: bare handshakes") + 1 / hits)
    share = result.median("kidoban, login only") / floor
    result.bar("login only: at least 80 % of bare handshakes and AUTH cache hits together", f"{share:.0%} of {floor:.0f}", share >= 0.8)


# ---- relay

def relay(race, result):
    counts = {race.kidoban: race.size(8000, 200), race.postfix: race.size(600, 100)}
    for _ in range(race.runs):
        for contestant, count in counts.items():
            race.ground.start_sink()
            contestant.start(hold=False)
            race.settle()
            cpu, begun = cpu_seconds(contestant.pids()), time.monotonic()
            answer = timed(contestant, contestant.accept, result, sessions=count // 20, messages=20)
            eventually(contestant.empty, 300, f"{contestant.name}'s empty queue", 0.05)
            elapsed = time.monotonic() - begun
            result.add(contestant.name, count / elapsed, "messages/s", (cpu_seconds(contestant.pids()) - cpu) * 1000 / count)
            result.add(f"{contestant.name}, taking meanwhile", answer["messages_s"], "messages/s")
            result.need(answer["messages"] == count, f"{contestant.name}: {answer['messages']} acknowledged of {count}")
            if contestant is race.kidoban:
                spool = figures(contestant, "spool")
                result.need(spool["delivered"] == count, f"kidoban: {spool['delivered']} delivered of {count}")
            contestant.stop()
            race.ground.stop_sink()
    ratio_bar(result, "kidoban", "postfix", 10)


def figures(kidoban, role):
    return next(p for p in kidoban.house.status()["processes"] if p["role"] == role)["figures"]


# ---- idle sessions

def idle(race, result):
    """In turns, without and with them: the machine's noise is of minutes, as long as a turn."""
    count, kidoban = race.size(10000, 300), race.kidoban
    kidoban.start(hold=True)
    probe = {"sessions": race.size(200, 20), "concurrency": 1, "threads": 1, "messages": 1, **AUTH}
    timed(kidoban, kidoban.submit, result, **probe)
    slower = []

    def serve(where):
        answers = [timed(kidoban, kidoban.submit, result, **probe) for _ in range(race.size(3, 1))]
        for answer in answers:
            result.add(f"a new session, {where}", answer["session_p50_ms"], "ms, median", answer["server_cpu_s"] * 1000 / probe["sessions"])
        return statistics.median(answer["session_p50_ms"] for answer in answers)

    alone = serve("alone")
    for turn in range(min(race.runs, 3)):
        before = pss(kidoban.pids())
        with held_idle(kidoban, result, count):
            time.sleep(race.size(5, 1))  # what is given back after a while is given back
            if turn == 0:
                idle_memory(kidoban, result, count, before)
            beside = serve("beside them")
        eventually(lambda: figures_sum(kidoban, "submit", "sessions_open") == 0, 120, "the end of the idle ones")
        again = serve("alone")
        slower.append(beside / ((alone + again) / 2))
        alone = again
    each = result.median("each session's share")
    result.bar("at most 32 KiB of proportional memory a session, all processes", f"{each:.1f} KiB", each <= 32)
    middle = statistics.median(slower)
    result.bar("a new session served as fast as without them",
               f"{middle:.2f} times the time ({min(slower):.2f} to {max(slower):.2f})", middle <= 1.1)


@contextlib.contextmanager
def held_idle(kidoban, result, count):
    """So many sessions, logged in, that say nothing more."""
    holder = subprocess.Popen(load_command(kidoban.submit, sessions=count, hold=86400, spread=200, max_time=600, **AUTH),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ready = json.loads(holder.stdout.readline() or "{}")
        result.need(ready.get("held") == count, f"{ready.get('held')} sessions held of {count}")
        yield
    finally:
        holder.send_signal(signal.SIGTERM)
        end = holder.communicate()[0].splitlines()
    result.need(end and json.loads(end[0]).get("dropped") == 0, f"sessions were dropped: {end[:1]}")


def idle_memory(kidoban, result, count, before):
    after = pss(kidoban.pids())
    for role in ("submit", "vault", "guard", "spool", "deliver"):
        result.add(f"{role}, PSS", pss(kidoban.house.pids(role)) / MIB, "MiB")
    result.add("all processes before", before / MIB, "MiB")
    result.add("all processes with them", after / MIB, "MiB")
    result.add("each session's share", after / 1024 / count, "KiB")
    result.add("each session's growth", (after - before) / 1024 / count, "KiB")


def figures_sum(kidoban, role, name):
    return sum(p["figures"][name] for p in kidoban.house.status()["processes"] if p["role"] == role)


# ---- large messages

class Watch:
    """The most memory that a house has held, looked at all the time."""

    def __init__(self, pids, every=0.05):
        self.pids, self.every, self.most, self.over = pids, every, pss(pids), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over.wait(self.every):
            self.most = max(self.most, pss(self.pids))

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.most


def disk_floor(race):
    done = subprocess.run([BENCH / "floor-disk", race.ground.dir, str(race.size(2, 0.2))], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def large(race, result):
    octets, kidoban = race.size(25, 2) * MIB, race.kidoban
    for _ in range(race.runs):
        kidoban.start(hold=True)
        timed(kidoban, kidoban.accept, result, sessions=2, messages=1)
        race.settle()
        pids = kidoban.pids()
        before, watch = pss(pids), Watch(pids)
        answer = timed(kidoban, kidoban.accept, result, sessions=20, concurrency=20, size=octets)
        grown = watch.stop() - before
        result.need(answer["messages"] == 20 and kidoban.queued() == 22, f"{kidoban.queued()} queued")
        result.add("kidoban", answer["mb_s"], "MB/s", answer["server_cpu_s"] * 1000 / 20)
        result.add("memory grows by", grown / MIB, "MiB")
        kidoban.stop()
        race.settle()
        result.add("floor: disk, written in order", disk_floor(race)["write_mb"], "MB/s")
    share = result.median("kidoban") / result.median("floor: disk, written in order")
    result.bar("at least half of the disk's sequential write", f"{share:.0%}", share >= 0.5)
    result.bar("memory of all processes grows by less than 16 MiB", f"{result.median('memory grows by'):.1f} MiB",
               result.median("memory grows by") < 16)


# ---- start with a million

def million(race, result):
    count, kidoban = race.size(1000000, 3000), race.kidoban
    full = race.ground.dir / "full"
    subprocess.run([BENCH / "spool-start", "fill", full, str(count), "1024"], check=True, stdout=subprocess.DEVNULL)
    for path in [full, *full.rglob("*")]:
        shutil.chown(path, "kidoban-spool", "kidoban")
    kidoban.start(hold=True, change={"spool": {"directory": str(full)}})
    kidoban.stop()  # the account is made again below; what recovery wrote stays
    for _ in range(1 if race.quick else 3):
        race.settle()
        subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], stderr=subprocess.DEVNULL, check=False)
        kidoban.prepare(hold=True, change={"spool": {"directory": str(full)}})
        begun = time.monotonic()
        kidoban.house.start(wait=False)
        same_share([kidoban.house.process.pid])
        first = None
        while first is None and time.monotonic() - begun < 300:
            if load(kidoban.accept, sessions=1, concurrency=1, threads=1, step_timeout=60)["messages"]:
                first = time.monotonic() - begun
            else:
                time.sleep(0.01)
        result.need(first is not None, "no 250 came")
        result.add("first 250 after the start", first or 300, "s")
        result.add("the spool's own part", kidoban.house.events(event="spool.recovered")[-1]["ms"] / 1000, "s")
        begun = time.monotonic()
        lister = subprocess.Popen([house.KIDOBAN, "-c", kidoban.house.config_file, "queue", "list", "--json"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        lister.stdout.read(2)
        result.add("listing begins after", time.monotonic() - begun, "s")
        lister.stdout.close()
        lister.kill()
        lister.wait()
        result.need(kidoban.queued() >= count, f"{kidoban.queued()} in the queue of {count}")
        result.add("memory of the spool", pss(kidoban.house.pids("spool")) / MIB, "MiB")
        kidoban.house.stop(signal.SIGKILL)
        time.sleep(1)
        kidoban.stop()
    shutil.rmtree(full)
    result.bar("first 250 within 5 seconds", f"{result.median('first 250 after the start'):.2f} s",
               result.median("first 250 after the start") <= 5)
    result.bar("listing answers at once (within 1 second)", f"{result.median('listing begins after'):.2f} s",
               result.median("listing begins after") <= 1)


# ---- guessing

def guessing(race, result):
    kidoban, users, seconds = race.kidoban, 50, race.size(20, 3)
    kidoban.start(hold=True)
    for i in range(users):
        kidoban.house.account_add(f"user{i}", f"user{i}@example.org", password=PASSWORD)
    honest = {"tls": "starttls", "user": "user", "pass": PASSWORD, "users": users, "from": "x@example.org", "spread": users}
    timed(kidoban, kidoban.submit, result, sessions=users, messages=1, **honest)
    honest.update(sessions=1000000, rate=users, max_time=seconds, concurrency=500)
    attack = {"sessions": 1000000, "rate": 500, "wrong": 1, "user": "user", "users": users, "pass": PASSWORD, "tls": "implicit",
              "resume": True, "concurrency": 15000, "max_time": seconds + 4, "step_timeout": 60, "spread": 20000}

    def beside(port):
        """The honest users beside the guesses at that port."""
        guesser = subprocess.Popen(load_command(port, **attack), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        honest_ones = timed(kidoban, kidoban.submit, result, **honest)
        return honest_ones, last_answer(guesser)

    for _ in range(min(race.runs, 3)):  # a minute and a half each
        quiet = timed(kidoban, kidoban.submit, result, **honest)
        with floor_tls(race, "535"):
            floor, _ = beside(FLOOR_PORT)
        loud, guesses = beside(465)
        for name, answer in ("quiet", quiet), ("floor: guesses at another server", floor), ("beside the guesses", loud):
            result.add(f"{name}, 99th percentile", answer["session_p99_ms"], "ms a session")
            result.add(f"{name}, median", answer["session_p50_ms"], "ms a session")
            result.add(f"{name}, CPU", answer["server_cpu_s"] / seconds, "processors")
        result.add("guesses offered", guesses["started"] / (seconds + 4), "a second")
        result.add("guesses answered 535", guesses["refused_logins"], "in all")
        result.need(guesses["messages"] == 0 and guesses["started"] > 0, "a guess got in")
        result.note(f"guesses answered otherwise: {guesses['codes']} {guesses['errors']}")
    loud, quiet, floor = (result.median(f"{name}, 99th percentile") for name in
                          ("beside the guesses", "quiet", "floor: guesses at another server"))
    result.bar("99th percentile less than twice the quiet one", f"{loud / quiet:.2f} times", loud < 2 * quiet)
    result.bar("the same, beside the floor: the guesses made at a server that does nothing for them",
               f"{loud / floor:.2f} times; the floor itself is {floor / quiet:.2f} times the quiet one", loud < 2 * floor)


# ---- overload

def overload(race, result):
    """The peak before and after each minute of twice as much: what else the machine does changes from minute to minute."""
    kidoban, seconds = race.kidoban, race.size(60, 4)
    kidoban.start(hold=True, change={"submission": {"limits": {"connections": 200}}})
    timed(kidoban, kidoban.accept, result, sessions=race.size(2000, 100))
    shares, refused, otherwise = [], 0, 0

    def peak():
        answer = timed(kidoban, kidoban.accept, result, sessions=race.size(20000, 300))
        result.add("peak", answer["messages_s"], "messages/s", answer["server_cpu_s"] * 1000 / answer["messages"])
        result.add("peak, the generator's CPU", answer["cpu_s"] * 1000 / answer["messages"], "ms each")
        return answer["messages_s"]

    before = peak()
    for _ in range(min(race.runs, 3)):  # more than a minute each
        queued, spool = kidoban.queued(), kidoban.house.pids("spool")
        others = [p for p in kidoban.pids() if p not in spool]
        held, index, used = pss(others), pss(spool), cpu_seconds(kidoban.pids())
        watch = Watch(others, 0.5)
        answer = load(kidoban.accept, sessions=100000000, rate=before * 2, max_time=seconds, concurrency=2000, spread=50)
        result.add("memory grows by, without the spool", (watch.stop() - held) / MIB, "MiB")
        taken, codes = answer["messages"], answer["codes"]
        result.add("offered", answer["started"] / seconds, "sessions/s")
        result.add("taken", taken / seconds, "messages/s")
        result.add("all processes, their CPU", (cpu_seconds(kidoban.pids()) - used) / seconds, "processors")
        result.add("the generator, its CPU", answer["cpu_s"] / seconds, "processors")
        result.add("the spool, for each message queued", (pss(spool) - index) / max(taken, 1), "octets")
        result.note(f"replies that refused: {codes}; errors {answer['errors']}, no place for {answer['unoffered']}")
        result.need(kidoban.queued() - queued == taken, f"{taken} acknowledged, {kidoban.queued() - queued} in the queue")
        result.need(set(codes) <= {"421", "451", "452"}, f"refused with {codes}")
        refused += sum(codes.values())
        otherwise += sum(answer["errors"].values()) - sum(codes.values())
        after = peak()
        peaks = (before + after) / 2
        shares.append(taken / seconds / peaks)
        result.add("offered, of the peak", answer["started"] / seconds / peaks * 100, "%")
        result.add("share of the peak", shares[-1] * 100, "%")
        before = after
    share = statistics.median(shares)
    result.bar("throughput above 80 % of the peak", f"{share:.0%} ({min(shares):.0%} to {max(shares):.0%})", share > 0.8)
    result.bar("the rest gets 421 or 452", f"{refused} did, {otherwise} met something else", otherwise == 0)
    grown, each = max(result.figures["memory grows by, without the spool"]), result.median("the spool, for each message queued")
    result.bar("memory is flat: the sessions' less than 32 MiB, the queue's index below 1 KiB each",
               f"{grown:.0f} MiB, {each:.0f} octets each", grown < 32 and each < 1024)


def floors(race, result):
    for _ in range(race.runs):
        found = disk_floor(race)
        result.add("one 4 KiB record a fdatasync", found["sync_1"], "records/s")
        result.add("fifty a fdatasync", found["sync_50"], "records/s")
        result.add("written in order", found["write_mb"], "MB/s")
        result.add("full TLS 1.3 handshakes", bare_handshakes(race), "handshakes/s")


ROWS = {
    "floors": (floors, "what this disk and these processors do at best"),
    "accept-1": (accept_1, f"durable acceptance, one message a session, {CONCURRENCY} sessions, {SIZE} octets"),
    "accept-20": (accept_20, f"durable acceptance, 20 messages a session, {CONCURRENCY} sessions, {SIZE} octets"),
    "submission": (submission, f"STARTTLS, full TLS 1.3 handshake, AUTH PLAIN each session, {CONCURRENCY} sessions"),
    "relay": (relay, "from the first acceptance to an empty queue, through smtp-sink"),
    "idle": (idle, "idle sessions, STARTTLS and logged in"),
    "large": (large, "one 25 MiB message from each of 20 clients at once"),
    "million": (million, "start with 1,000,000 queued messages"),
    "guessing": (guessing, "500 wrong passwords a second beside 50 users"),
    "overload": (overload, "twice the capacity offered, for a minute"),
}
