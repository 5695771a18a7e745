"""What was promised and what arrived: clients that note every 250, a receiver that notes every message, and the judge.

Everything runs in one thread with asyncio. A message names itself (X-Ledger) and its octets' length and hash, so that
the receiver can tell a torn or mixed one. Each attempt has a name of its own: an attempt without its 250 is no
obligation, and what arrives of it must only be whole.
"""

import asyncio
import base64
import bisect
import collections
import contextlib
import hashlib
import random
import re
import ssl
import time

HEADER = re.compile(rb"^(X-[A-Za-z]+): (\S+)\r$", re.M)
LINE = 66  # octets of each line of a body

# What the receiver does with a recipient is the start of its local part.
OK, LATER, NEVER = "ok", "later", "never"


class Message:
    """One attempt of a client."""

    def __init__(self, key, sender, recipients, octets):
        self.key, self.sender, self.recipients, self.octets = key, sender, recipients, octets
        self.acknowledged = None  # time of the 250
        self.id = None


class Texts:
    """Bodies of any length, all different, for little work: stretches of one random text behind the message's key."""

    def __init__(self, seed, size=2 << 20):
        lines = size // LINE
        raw = random.Random(f"text {seed}").randbytes(lines * 48)
        self.text = b"".join(base64.b64encode(raw[i:i + 48]) + b"\r\n" for i in range(0, len(raw), 48))
        self.lines = lines

    def body(self, rng, key, octets):
        count = max(1, octets // LINE)
        at = rng.randrange(max(1, self.lines - count)) * LINE
        return key.encode() + b"\r\n" + self.text[at:at + count * LINE]


class Ledger:
    """Both sides of the account. Times are monotonic."""

    def __init__(self, seed=0):
        self.texts = Texts(seed)
        self.promised = {}                               # key -> Message, acknowledged ones, without their octets
        self.owed = set()                                # keys of those that were not seen to be settled yet
        self.offered = 0
        self.arrived = collections.defaultdict(list)     # (key, recipient) -> times
        self.bounced = collections.defaultdict(list)     # key -> times
        self.deferred = set()                            # (key, recipient) that had their 450
        self.ids = {}
        self.damaged = set()                             # keys of which the sender was told that the disk lost them
        self.wrong = []                                  # torn, foreign, impossible
        self.crashes = []                                # (from, until, what, may repeat deliveries)
        self.refusals = collections.Counter()

    def make(self, rng, key, sender, recipients, octets):
        body = self.texts.body(rng, key, octets)
        digest = hashlib.sha256(key.encode() + body).hexdigest()
        head = (f"From: {sender}\r\nTo: undisclosed:;\r\nSubject: ledger\r\nX-Ledger: {key}\r\n"
                f"X-Octets: {len(body)}\r\nX-Hash: {digest}\r\n\r\n")
        self.offered += 1
        return Message(key, sender, recipients, head.encode() + body)

    def promise(self, message, words):
        message.acknowledged = time.monotonic()
        message.id = words.split()[-1]
        if self.ids.setdefault(message.id, message.key) != message.key:
            self.wrong.append(f"id {message.id} was given to two messages")
        message.octets = None
        self.promised[message.key] = message
        self.owed.add(message.key)

    def arrive(self, sender, recipients, octets):
        now = time.monotonic()
        if sender == "":
            self.arrive_bounce(recipients, octets, now)
            return
        head, _, body = octets.partition(b"\r\n\r\n")
        fields = dict(HEADER.findall(head + b"\r\n"))
        key = fields.get(b"X-Ledger", b"?").decode()
        digest = hashlib.sha256(key.encode() + body).hexdigest()
        if fields.get(b"X-Octets") != str(len(body)).encode() or fields.get(b"X-Hash") != digest.encode():
            self.wrong.append(f"torn: {key}, {len(body)} octets of {fields.get(b'X-Octets')}")
        if key not in sender:
            self.wrong.append(f"{key} came from {sender}")
        message = self.promised.get(key)
        if message is not None and f" id {message.id};".encode() not in b" ".join(head.split()):
            self.wrong.append(f"{key} was promised as {message.id} and came as another")
        for recipient in recipients:
            if key not in recipient:
                self.wrong.append(f"{key} came for {recipient}")
            self.arrived[key, recipient].append(now)

    def arrive_bounce(self, recipients, octets, now):
        if not octets.rstrip().endswith(b"--") or b"Final-Recipient:" not in octets:
            self.wrong.append(f"a torn bounce for {recipients}")
        for recipient in recipients:
            key = recipient.partition("+")[2].partition("@")[0]
            of = rb"^Final-Recipient: *rfc822; *%s\+" + re.escape(key.encode()) + rb"\."
            if b"damaged on our disk" in octets and re.search(of % b"[a-z]+", octets, re.M | re.I):
                self.damaged.add(key)
                continue
            if not re.search(of % b"never", octets, re.M | re.I):
                self.wrong.append(f"a bounce for {recipient} is about another message")
            self.bounced[key].append(now)

    def doubt(self, since):
        """What was acknowledged from then on is no promise any more: how many."""
        late = [k for k, m in self.promised.items() if m.acknowledged >= since]
        for key in late:
            del self.promised[key]
            self.owed.discard(key)
        return len(late)

    def forget_deliveries(self):
        """Everything promised is to come once more: the state of the disk is an old one again."""
        self.arrived.clear()
        self.bounced.clear()
        self.owed = set(self.promised)

    def crash(self, begin, end, what, repeats):
        """A process died between begin and end. repeats: deliveries in flight may be made once more."""
        self.crashes.append((begin, end, what, repeats))

    # The judge

    def missing(self):
        """What was promised and neither delivered nor bounced."""
        out = []
        for key in sorted(self.owed):
            recipients = self.promised[key].recipients
            of_it = [(key, r) for r in recipients if (key not in self.bounced if r.startswith(NEVER) else (key, r) not in self.arrived)]
            out += of_it
            if not of_it:
                self.owed.discard(key)
        return out

    def cause(self, first, second):
        """The last crash that may have made a second delivery of it: its number, or None. Crashes come one after the other."""
        i = bisect.bisect_right(self.crashes, second, key=lambda crash: crash[0]) - 1
        while i >= 0 and self.crashes[i][1] >= first:
            if self.crashes[i][3]:
                return i
            i -= 1
        return None

    def repeats(self):
        """What was delivered again because of each crash: {number of the crash: [(what, first, second)]}; None: of none."""
        found = collections.defaultdict(list)
        for what, times in [*self.arrived.items(), *self.bounced.items()]:
            for first, second in zip(times, times[1:]):
                found[self.cause(first, second)].append((what, first, second))
        return found

    def judge(self, concurrent):
        """Raises what is wrong. concurrent: deliveries that can be in flight at once."""
        missing, repeats = self.missing(), self.repeats()
        assert not self.damaged, f"damaged on disk: {self.damaged}"
        assert not self.wrong, f"{len(self.wrong)} wrong: {self.wrong[:5]}"
        assert not missing, f"{len(missing)} of {len(self.promised)} promised messages are missing: " + ", ".join(
            f"{k} ({self.promised[k].id}) for {r}" for k, r in missing[:5])
        for index, again in repeats.items():
            near = "".join(f"\n{w} at {f:.3f} and {s:.3f}" for w, f, s in again[:5])
            assert index is not None, (f"{len(again)} deliveries were repeated without a crash:{near}\n" +
                                       "\n".join(f"{b:.3f} to {e:.3f} {w}" for b, e, w, _ in self.crashes))
            assert len(again) <= concurrent, f"{len(again)} deliveries repeated by {self.crashes[index]}:{near}"

    def story(self):
        repeats = self.repeats()
        return (f"{len(self.promised)} promised of {self.offered} offered, {len(self.arrived)} deliveries, "
                f"{len(self.bounced)} bounced, {sum(map(len, repeats.values()))} repeated "
                f"(at most {max(map(len, repeats.values()), default=0)} by one crash), refusals {dict(self.refusals)}")


class Sink:
    """The next hop of everything. What it answers stands in the recipient."""

    def __init__(self, ledger, host, port):
        self.ledger, self.host, self.port = ledger, host, port
        self.server, self.open, self.most_open, self.transactions, self.delay = None, set(), 0, 0, 0.0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.host, self.port, limit=64 << 20, backlog=500)

    async def stop(self):
        """Cuts everything, as a host does that dies."""
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.open.add(writer)
        self.most_open = max(self.most_open, len(self.open))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.dialogue(reader, writer)
        self.open.discard(writer)
        with contextlib.suppress(OSError):
            writer.close()

    def recipient(self, key_recipient, recipients):
        kind = key_recipient.partition("+")[0]
        if kind == NEVER:
            return b"550 5.1.1 nobody here\r\n"
        if kind == LATER and key_recipient not in self.ledger.deferred:
            self.ledger.deferred.add(key_recipient)
            return b"450 4.2.1 come again\r\n"
        recipients.append(key_recipient)
        return b"250 2.1.5 ok\r\n"

    async def dialogue(self, reader, writer):
        sender, recipients = None, []
        writer.write(b"220 mx.sink.example ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"MAIL":
                sender, recipients = re.search(rb"<(.*?)>", line)[1].decode(), []
                writer.write(b"250 2.1.0 ok\r\n")
            elif verb == b"RCPT":
                writer.write(self.recipient(re.search(rb"<(.*?)>", line)[1].decode(), recipients))
            elif verb == b"DATA" and not recipients:
                writer.write(b"554 5.5.1 nobody to deliver to\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                octets = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                if self.delay:
                    await asyncio.sleep(self.delay)
                self.ledger.arrive(sender, recipients, octets.replace(b"\r\n..", b"\r\n."))
                self.transactions += 1
                writer.write(b"250 2.0.0 taken\r\n")
            elif verb == b"EHLO":
                writer.write(b"250-mx.sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-DSN\r\n"
                             b"250-ENHANCEDSTATUSCODES\r\n250 SIZE 100000000\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                return
            else:
                writer.write(b"250 2.0.0 ok\r\n")


class Refused(Exception):
    pass


class Clients:
    """Sessions that send and send. Every message is drawn from the seed; what becomes of it is not."""

    def __init__(self, ledger, seed, host="127.0.0.1", port=587, sessions=8, tls_port=465, tls_sessions=2, context=None,
                 login=None, large=0.02, pause=0.0):
        self.ledger, self.seed, self.host, self.port = ledger, seed, host, port
        self.sessions, self.tls_port, self.tls_sessions = sessions, tls_port, tls_sessions
        self.context, self.login, self.large, self.pause = context, login, large, pause
        self.stopping, self.tasks, self.paused, self.busy = False, [], asyncio.Event(), 0
        self.paused.set()

    def start(self):
        for i in range(self.sessions + self.tls_sessions):
            self.tasks.append(asyncio.create_task(self.session(i, i >= self.sessions)))

    async def stop(self):
        self.stopping = True
        self.paused.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 120)

    async def pause_all(self):
        """Returns when nobody is within a transaction, so that no promise comes after it."""
        self.paused.clear()
        while self.busy > 0:
            await asyncio.sleep(0.02)

    def message(self, rng, number, count):
        key = f"{self.seed}-{number}-{count}"
        kinds, draw = [OK], rng.random()
        if draw < 0.04:
            kinds = [NEVER]
        elif draw < 0.08:
            kinds = [LATER]
        elif draw < 0.16:
            kinds = rng.choice([[OK, OK], [OK, LATER], [OK, NEVER], [LATER, OK, OK]])
        recipients = [f"{kind}+{key}.{i}@{'one' if i % 2 == 0 else 'two'}.sink.example"
                      for i, kind in enumerate(kinds)]
        octets = rng.randrange(300_000, 700_000) if rng.random() < self.large else rng.randrange(200, 9000)
        return self.ledger.make(rng, key, f"alice+{key}@example.org", recipients, octets)

    async def session(self, number, tls):
        rng, count = random.Random(f"{self.seed} {number}"), 0
        while not self.stopping:
            writer = None
            try:
                reader, writer = await asyncio.wait_for(self.connect(tls), 60)
                for _ in range(rng.randrange(1, 60)):
                    await self.paused.wait()
                    if self.stopping:
                        break
                    count += 1
                    self.busy += 1
                    try:
                        await asyncio.wait_for(self.send(reader, writer, self.message(rng, number, count)), 120)
                    finally:
                        self.busy -= 1
                    if self.pause:
                        await asyncio.sleep(self.pause)
                writer.write(b"QUIT\r\n")
            except Refused as e:
                self.ledger.refusals[str(e)[:9]] += 1
                await asyncio.sleep(0.02)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ssl.SSLError) as e:
                self.ledger.refusals[type(e).__name__] += 1
                await asyncio.sleep(0.02)
            if writer is not None:
                writer.transport.abort()

    async def reply(self, reader, want):
        while True:
            line = await reader.readuntil(b"\n")
            if line[3:4] != b"-":
                break
        if not line.startswith(want):
            raise Refused(line.decode("utf-8", "replace").strip())
        return line.decode("utf-8", "replace").strip()

    async def connect(self, tls):
        port = self.tls_port if tls else self.port
        reader, writer = await asyncio.open_connection(
            self.host, port, ssl=self.context if tls else None,
            server_hostname="mail.example.org" if tls else None, limit=1 << 20)
        await self.reply(reader, b"220")
        writer.write(b"EHLO client.example\r\n")
        await self.reply(reader, b"250")
        if tls and self.login:
            token = base64.b64encode(b"\0" + self.login[0].encode() + b"\0" + self.login[1].encode())
            writer.write(b"AUTH PLAIN " + token + b"\r\n")
            await self.reply(reader, b"235")
        return reader, writer

    async def send(self, reader, writer, message):
        commands = [f"MAIL FROM:<{message.sender}>"] + [f"RCPT TO:<{r}>" for r in message.recipients] + ["DATA"]
        writer.write("".join(c + "\r\n" for c in commands).encode())
        for _ in commands[:-1]:
            await self.reply(reader, b"250")
        await self.reply(reader, b"354")
        writer.write(message.octets + b".\r\n")
        await writer.drain()
        self.ledger.promise(message, await self.reply(reader, b"250"))
