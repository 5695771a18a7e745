"""The spool alone: this file plays the master, submit, deliver and the guard over socket pairs, frame by frame.

Nothing else runs: no network, no SMTP. The sandbox is on, so a system call that is not in the role's table kills the process here.
KIDOBAN_ROLES names another program that takes --role (a sanitizer build, say).
"""
import array
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

import pytest

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build"))
ROLES = os.environ.get("KIDOBAN_ROLES", str(BUILD / "src/master/kidoband"))
PATIENCE = 4 if os.environ.get("KIDOBAN_SANITIZED") == "1" else 1

# wire/master.h, wire/spool.h, wire/deliver.h, wire/guard.h
CONFIG, TLS, EVENT_FILE, DIRECTORY, LISTENER, PEER, START, CONFIG_DONE, STOP, SHARED, \
    STATUS, READY, STATUS_REPLY, BROKEN = range(1, 15)
PUT, BEGIN, CHUNK, COMMIT, ABORT, STORED, REFUSED, STATE = range(1, 9)
FILE, FORGET, JOB, OUTCOME = range(1, 5)
DELIVERED, TEMPORARY, PERMANENT, DAMAGED = range(1, 5)
SUSPENDED, RESUMED, TOLD_ALL = 4, 5, 6
SUBMIT, VAULT, GUARD, SPOOL, DELIVER = range(1, 6)

YAML = """
operator: {name: Example, domains: [example.net], help_url: "https://help.example.net/"}
submission:
  hostname: mail.example.net
  tls: {certificate: /nonexistent/c.pem, key: /nonexistent/k.pem}
processes: {user_prefix: kidoban-nobody-}
delivery: {workers: 1}
"""


def octets(b):
    b = b.encode() if isinstance(b, str) else b
    return struct.pack("=I", len(b)) + b


def envelope(sender, recipients, account="alice", flags=0, hold=""):
    out = struct.pack("=QQH", 99, int(time.time() * 1000), flags) + b"\0" * 18
    out += octets(sender) + octets(account) + octets("") + octets("m@example.net") + octets(hold)
    out += struct.pack("=H", len(recipients))
    for i, r in enumerate(recipients):
        out += struct.pack("=HB", i, 0) + octets(r) + octets("")
    return out


class Frames:
    """One end of a channel."""

    def __init__(self, sock):
        self.sock, self.buffer, self.fds = sock, b"", []

    def send(self, kind, ident=0, payload=b"", fd=None):
        head = struct.pack("=IHBBQQ", len(payload), kind, 1, 1 if fd is not None else 0, ident, 0)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.sock.settimeout(100)
        done = self.sock.sendmsg([head + payload], passed)
        if done < len(head) + len(payload):
            self.sock.sendall((head + payload)[done:])

    def receive(self, timeout=100):
        """(type, id, payload, fd or None), or None at the end of the stream."""
        self.sock.settimeout(timeout * PATIENCE)
        while True:
            if len(self.buffer) >= 24:
                length, kind, _, flags, ident, _ = struct.unpack_from("=IHBBQQ", self.buffer)
                if len(self.buffer) >= 24 + length:
                    payload, self.buffer = self.buffer[24:24 + length], self.buffer[24 + length:]
                    return kind, ident, payload, self.fds.pop(0) if flags & 1 else None
            got, passed, _, _ = self.sock.recvmsg(1 << 20, 4096)
            for level, kind, data in passed:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(data)
                    self.fds += fds
            if not got:
                return None
            self.buffer += got

    def expect(self, *kinds):
        while True:
            frame = self.receive()
            assert frame is not None
            if frame[0] in kinds:
                return frame


class Spool:
    def __init__(self, place):
        self.place, self.epoch = place, 0
        ours, theirs = socket.socketpair()
        self.master = Frames(ours)
        self.events = place / "events"
        self.stderr = open(place / "stderr", "ab")
        self.process = subprocess.Popen(
            [ROLES, "--role", "spool", "--instance", "0"], preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
            pass_fds=[3], stderr=self.stderr, stdin=subprocess.DEVNULL)
        theirs.close()
        fd = os.memfd_create("config")
        os.write(fd, YAML.encode())
        self.master.send(CONFIG, payload=b"test.yaml", fd=fd)
        os.close(fd)
        fd = os.open(self.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.master.send(EVENT_FILE, fd=fd)
        os.close(fd)
        (place / "spool").mkdir(exist_ok=True)
        fd = os.open(place / "spool", os.O_PATH | os.O_DIRECTORY)
        self.master.send(DIRECTORY, fd=fd)
        os.close(fd)
        self.control_path = place / "sock"
        self.control_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(self.control_path))
            s.listen()
            self.master.send(LISTENER, payload=struct.pack("=I", 0xffffffff), fd=s.fileno())
        self.submit = self.peer(SUBMIT)
        self.master.send(START)
        assert self.master.expect(READY, BROKEN)[0] == READY

    def peer(self, role, instance=0):
        ours, theirs = socket.socketpair()
        self.epoch += 1
        self.master.send(PEER, payload=struct.pack("=BII", role, instance, self.epoch), fd=theirs.fileno())
        theirs.close()
        return Frames(ours)

    def put(self, ident, body, recipients=("bob@example.org",), sender="alice@example.net", **more):
        self.submit.send(PUT, ident, envelope(sender, recipients, **more) + octets(body))

    def put_large(self, ident, body):
        self.submit.send(BEGIN, ident, envelope("alice@example.net", ["bob@example.org"]) + struct.pack("=Q", len(body)))
        for at in range(0, len(body), 131072):
            self.submit.send(CHUNK, ident, body[at:at + 131072])
        self.submit.send(COMMIT, ident, struct.pack("=Q", len(body)))

    def ask(self, **request):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(self.control_path))
            s.sendall(json.dumps(request).encode() + b"\n")
            lines = []
            for line in s.makefile():
                lines.append(json.loads(line))
                if lines[-1].get("done"):
                    return lines

    def status(self):
        return self.ask(verb="spool.status")[-1]

    def stop(self):
        self.master.send(STOP, payload=struct.pack("=I", 5000))
        assert self.process.wait(20 * PATIENCE) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def event_names(self):
        return [json.loads(line)["event"] for line in self.events.read_text().splitlines()]


class Deliver:
    """Takes jobs; what is in a file is read through the descriptor that came."""

    def __init__(self, spool):
        self.frames, self.files = spool.peer(DELIVER), {}

    def job(self):
        while True:
            kind, ident, payload, fd = self.frames.receive()
            if kind == FILE:
                self.files[struct.unpack("=Q", payload)[0]] = fd
                with pytest.raises(OSError):
                    os.write(fd, b"x")  # it was opened for reading only
            elif kind == FORGET:
                os.close(self.files.pop(struct.unpack("=Q", payload)[0]))
            elif kind == JOB:
                file, offset, length, _, attempt = struct.unpack_from("=QQQQI", payload)
                return ident, os.pread(self.files[file], length, offset), attempt, payload

    def outcome(self, ident, result, numbers=(0,), code=250):
        payload = octets("mx.example.org") + octets("192.0.2.1") + octets("") + struct.pack("=H", len(numbers))
        for n in numbers:
            payload += struct.pack("=HBH3B", n, result, code, code // 100, 0, 0) + octets("as you wish")
        self.frames.send(OUTCOME, ident, payload)


@pytest.fixture
def spool(tmp_path):
    s = Spool(tmp_path)
    yield s
    if s.process.poll() is None:
        s.kill()
    bad = [line for line in (tmp_path / "stderr").read_text(errors="replace").splitlines()
           if "ERROR: AddressSanitizer" in line or "runtime error" in line]
    assert not bad


def wait_for(check, what):
    end = time.monotonic() + 60 * PATIENCE
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_message_all_the_way(spool):
    assert spool.submit.expect(STATE)[2][0] == 1
    spool.put(1001, b"small octets")
    assert spool.submit.expect(STORED, REFUSED)[:2] == (STORED, 1001)
    big = os.urandom(3 << 20)
    spool.put_large(1002, big)
    assert spool.submit.expect(STORED, REFUSED)[:2] == (STORED, 1002)
    assert spool.status()["messages"] == 2
    deliver = Deliver(spool)
    got = {}
    for _ in range(2):
        ident, body, attempt, _ = deliver.job()
        assert attempt == 1
        got[ident] = body
        deliver.outcome(ident, DELIVERED)
    assert got == {1001: b"small octets", 1002: big}
    wait_for(lambda: spool.status()["messages"] == 0, "the end of both")
    wait_for(lambda: not list((spool.place / "spool/large").iterdir()), "the large file's end")
    spool.stop()
    names = spool.event_names()
    assert names.count("message.stored") == 2 and names.count("message.delivered") == 2


def test_bounce(spool):
    spool.put(1, b"Subject: to be returned\r\n\r\nbody\r\n", recipients=["a@example.org", "b@example.org"])
    spool.submit.expect(STORED)
    deliver = Deliver(spool)
    ident, _, _, _ = deliver.job()
    deliver.outcome(ident, PERMANENT, (0, 1), 550)
    ident, body, _, payload = deliver.job()
    assert ident != 1 and b"multipart/report" in body and b"Subject: to be returned" in body
    assert b"alice@example.net" in payload
    deliver.outcome(ident, PERMANENT, (0,), 550)  # nobody is told about that
    wait_for(lambda: spool.status()["messages"] == 0, "the end")
    spool.stop()
    assert spool.event_names().count("dsn.sent") == 1


def test_deliver_dies(spool):
    spool.put(1, b"octets")
    spool.submit.expect(STORED)
    deliver = Deliver(spool)
    assert deliver.job()[0] == 1
    deliver.frames.sock.close()
    assert spool.master.expect(BROKEN)[2][0] == DELIVER
    again = Deliver(spool)
    ident, body, attempt, _ = again.job()
    assert (ident, body, attempt) == (1, b"octets", 1)  # not its fault
    again.outcome(1, DELIVERED)
    wait_for(lambda: spool.status()["messages"] == 0, "the end")


@pytest.mark.parametrize("frame", [(PUT, b"nonsense"), (STORED, b""), (77, b""), (CHUNK, b"x" * 200000)])
def test_nonsense_closes_the_channel(spool, frame):
    spool.submit.send(frame[0], 5, frame[1])
    assert spool.master.expect(BROKEN)[2][0] == SUBMIT
    spool.submit = spool.peer(SUBMIT)
    spool.put(6, b"fine")
    assert spool.submit.expect(STORED)[1] == 6


def test_an_outcome_for_nothing_closes_the_channel(spool):
    deliver = Deliver(spool)
    deliver.outcome(4711, DELIVERED)
    assert spool.master.expect(BROKEN)[2][0] == DELIVER


def test_duplicate_id(spool):
    spool.put(9, b"one")
    spool.submit.expect(STORED)
    spool.put(9, b"two")
    assert spool.submit.expect(REFUSED)[2][-1] == 1


def test_suspension_holds(spool):
    guard = spool.peer(GUARD)
    guard.send(SUSPENDED, 0, octets("alice") + octets("spam"))
    wait_for(lambda: "spool.account.held" in spool.event_names(), "the suspension")
    spool.put(1, b"hers")
    spool.put(2, b"his", account="bob")
    spool.submit.expect(STORED)
    deliver = Deliver(spool)
    assert deliver.job()[0] == 2
    deliver.outcome(2, DELIVERED)
    assert spool.ask(verb="queue.list")[0]["state"] == "suspended"
    guard.send(RESUMED, 0, octets("alice") + octets(""))
    assert deliver.job()[0] == 1


def test_suspension_that_is_not_told_again_ends(spool):
    guard = spool.peer(GUARD)
    for account in ("alice", "bob"):
        guard.send(SUSPENDED, 0, octets(account) + octets("spam"))
    guard.send(TOLD_ALL, 0, b"")
    wait_for(lambda: spool.event_names().count("spool.account.held") == 2, "the suspensions")
    spool.put(1, b"hers")
    spool.put(2, b"his", account="bob")
    spool.submit.expect(STORED)
    spool.submit.expect(STORED)
    guard = spool.peer(GUARD)  # back after a crash, in which alice was resumed
    guard.send(SUSPENDED, 0, octets("bob") + octets("spam"))
    guard.send(TOLD_ALL, 0, b"")
    deliver = Deliver(spool)
    assert deliver.job()[0] == 1
    deliver.outcome(1, DELIVERED)
    [row] = [r for r in spool.ask(verb="queue.list") if r.get("state")]
    assert row["state"] == "suspended" and row["account"] == "bob"


def test_control(spool):
    for i in range(1, 4):
        spool.put(i, b"octets", recipients=[f"r@d{i}.example"], account="alice" if i < 3 else "bob")
        spool.submit.expect(STORED)
    spool.put(4, b"held", flags=16, hold="the guard says so")
    spool.submit.expect(STORED)
    rows = spool.ask(verb="queue.list")
    assert len(rows) == 5 and rows[-1]["count"] == 4
    ids = [row["id"] for row in rows[:-1]]
    assert [r["id"] for r in spool.ask(verb="queue.list", account="bob")[:-1]] == [ids[2]]
    assert [r["id"] for r in spool.ask(verb="queue.list", domain="D1.example")[:-1]] == [ids[0]]
    shown = spool.ask(verb="queue.show", id=ids[3])[0]
    assert shown["state"] == "held" and shown["words"] == "the guard says so"
    assert shown["recipients"][0]["address"] == "bob@example.org"
    assert spool.ask(verb="queue.hold", account="alice")[-1]["count"] == 2  # the held one is hers too
    assert spool.ask(verb="queue.release", ids=ids[:1])[-1]["count"] == 1
    assert spool.ask(verb="queue.remove", ids=[ids[1]])[-1]["count"] == 1
    assert spool.ask(verb="queue.show", id=ids[1])[-1]["status"] == 1
    assert spool.ask(verb="queue.remove", ids=["0000000000zzz"])[-1]["status"] == 1
    assert spool.ask(verb="queue.remove")[-1]["status"] == 64
    assert spool.ask(verb="queue.retry", ids=ids[:1])[-1]["count"] == 1
    assert spool.ask(verb="queue.list", ids="x")[-1]["status"] == 64
    spool.stop()
    again = Spool(spool.place)
    assert len(again.ask(verb="queue.list")) == 4
    again.kill()


def test_kill_9_in_mid_load(tmp_path):
    """Everything that was acknowledged is there, whole, after each of a row of kills."""
    stored, sent, ident = set(), {}, 1 << 33
    for round_ in range(12):
        spool = Spool(tmp_path)
        deadline = time.monotonic() + 0.05 + round_ * 0.02
        while time.monotonic() < deadline:
            for _ in range(20):
                ident += 1
                sent[ident] = os.urandom(50) * (1 + ident % 120)
                spool.put(ident, sent[ident])
            stored.add(spool.submit.expect(STORED)[1])
        spool.kill()
        while True:  # what was written before it died was a promise all the same
            try:
                frame = spool.submit.receive(0.2)
            except OSError:
                break
            if frame is None:
                break
            if frame[0] == STORED:
                stored.add(frame[1])
    spool = Spool(tmp_path)
    deliver, seen = Deliver(spool), {}
    total = spool.status()["messages"]
    for _ in range(total):
        i, body, _, _ = deliver.job()
        assert i not in seen and body == sent[i]
        seen[i] = True
        deliver.outcome(i, DELIVERED)
    assert stored <= set(seen)
    wait_for(lambda: spool.status()["messages"] == 0, "the end")
    spool.stop()
    assert "message.damaged" not in spool.event_names()


def test_two_daemons(spool):
    with pytest.raises((AssertionError, OSError)):
        second = Spool(spool.place)
        second.kill()
    spool.put(1, b"still here")
    assert spool.submit.expect(STORED)[1] == 1
