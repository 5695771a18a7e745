"""The house: its processes, their walls, its configuration, and what happens when a part of it goes."""

import contextlib
import os
import pathlib
import pwd
import re
import signal
import smtplib
import socket
import ssl
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import SANITIZED, Kidoband, eventually  # noqa: E402

ROLES = {"submit": 2, "vault": 1, "guard": 1, "spool": 1, "deliver": 1}


@pytest.fixture(scope="module")
def house(world):
    listen = ["127.0.0.1:587", "[fd00::1]:587", "127.0.0.1:465", "[fd00::1]:465",
              {"address": "127.0.0.1:1587", "proxy_protocol_from": ["127.0.0.7/32"]}]
    settings = {"submission": {"listen": listen, "limits": {"connections_per_network": 30}},
                "routes": [{"domain": "*", "via": "mx"}]}
    with Kidoband(world, "house", settings) as k:
        k.account_add("alice", "alice@example.org")
        yield k


def children(house):
    return house.status()["processes"]


def proc_status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1].split() for line in lines}


# Walls


def test_status(house):
    status = house.status()
    count = {}
    for p in status["processes"]:
        count[p["role"]] = count.get(p["role"], 0) + 1
    assert count == ROLES
    assert status["pid"] == house.process.pid
    assert "127.0.0.1:587" in status["listen"]
    words = house.run("status").stdout
    assert all(role in words for role in ROLES)
    assert re.search(r"^submission  \d+ sessions? open; \d+ messages? taken, \d+ refused; logins: \d+ good, \d+ wrong", words, re.M)
    assert re.search(r"^queue       \d+ messages? for \d+ recipients?: \d+ under way, \d+ held.*; [0-9.]+ GiB free$", words, re.M)
    assert re.search(r"^relay       \d+ delivered, \d+ put off, \d+ failed; \d+ connections? open$", words, re.M)
    taken = sum(p["figures"]["messages"] for p in status["processes"] if p["role"] == "submit")
    house.send("status@post.example", "for the status")
    assert f"; {taken + 1} message" in house.run("status").stdout


@pytest.mark.parametrize("role", ROLES)
def test_walls(house, role):
    for pid in house.pids(role):
        status = proc_status(pid)
        uid = str(pwd.getpwnam(f"kidoban-{role}").pw_uid)
        assert status["Uid"] == [uid] * 4
        assert status["Gid"] == [uid] * 4, "not in the control sockets' group"
        assert status["Groups"] == []
        assert status["Seccomp"] == ["0" if SANITIZED else "2"]  # sanitizers need calls that seccomp forbids
        assert status["NoNewPrivs"] == ["1"]
        assert status["CapEff"] == status["CapPrm"] == ["0" * 16]


# Configuration


def test_reload_refuses_a_bad_file_and_keeps_the_old(house):
    client = house.connect()
    good = house.config_file.read_text()
    lines = good.splitlines()
    at = next(i for i, line in enumerate(lines) if "workers:" in line)
    lines[at] = lines[at].replace("workers:", "wrokers:")
    house.config_file.write_text("\n".join(lines) + "\n")
    done = house.run("reload", check=False)
    column = lines[at].index("wrokers") + 1
    assert done.returncode != 0
    assert f"{house.config_file}:{at + 1}:{column}: " in done.stderr + done.stdout
    assert "workers" in done.stderr + done.stdout
    assert house.send("bad-reload@post.example", "after a bad reload")
    house.config_file.write_text(good)
    assert client.noop()[0] == 250
    house.run("reload")
    assert client.noop()[0] == 250
    house.send("bad-reload@post.example", "in the old session", client=client)
    client.quit()


def test_reload_takes_a_good_file(house):
    client = house.connect()
    before = house.settings
    house.change(submission={"limits": {"recipients": 3}})
    house.run("reload")
    assert client.noop()[0] == 250

    # Every worker has it when reload answers: some connections meet them all.
    clients = [house.connect(login=False) for _ in range(8)]
    assert ["RCPTMAX=3" in c.esmtp_features.get("limits", "") for c in clients] == [True] * 8
    for c in clients:
        c.close()
    fresh = house.connect()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as e:
        house.send([f"r{i}@post.example" for i in range(4)], client=fresh)
    assert list(e.value.recipients.values())[0][0] == 452
    fresh.close()
    loaded = len(house.events(event="config.loaded"))
    house.write_config(before)
    os.kill(house.process.pid, signal.SIGHUP)
    eventually(lambda: len(house.events(event="config.loaded")) > loaded, 10, "SIGHUP")
    house.send([f"r{i}@post.example" for i in range(4)])
    client.quit()


def test_reload_changes_listeners(house):
    before = house.settings
    house.change(submission={"listen": before["submission"]["listen"] + ["127.0.0.1:2587"]})
    house.run("reload")
    client = house.connect(port=2587, host="mail4.example.org")
    house.write_config(before)
    house.run("reload")
    assert client.noop()[0] == 250, "a session outlives its listener"

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 2587), timeout=2)
    client.quit()


# TLS


def peer_certificate(house, name, port=465):
    context = house.world.client_context()
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
        return tls.getpeercert(True)


NAMES = ("mail.example.org", "mail.example.net")


def test_sni(house):
    first, second = (peer_certificate(house, name) for name in NAMES)
    assert first != second


@pytest.mark.parametrize("name", NAMES)
def test_certificate_change_is_seen(house, name):
    """Without a reload, for the name that it is about and no other; open sessions go on."""
    other = next(n for n in NAMES if n != name)
    before, unchanged = peer_certificate(house, name), peer_certificate(house, other)
    client = house.connect()
    loaded = len(house.events(event="config.loaded"))
    house.world.certificate(name, name)
    eventually(lambda: len(house.events(event="config.loaded")) > loaded, 20, "the new certificate")
    seen = {peer_certificate(house, name) for _ in range(8)}  # from every worker
    assert len(seen) == 1 and before not in seen
    assert peer_certificate(house, other) == unchanged
    assert client.noop()[0] == 250
    client.quit()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["pem", "key"])
@pytest.mark.parametrize("what", ["half a file", "another's"])
def test_bad_certificate_change_is_not_taken(house, name, suffix, what):
    """Nor is one half of a new pair before the other is there."""
    before = [peer_certificate(house, n) for n in NAMES]
    path = house.world.dir / f"tls/{name}.{suffix}"
    good = path.read_bytes()
    refused, loaded = len(house.events(event="config.refused")), len(house.events(event="config.loaded"))
    path.write_bytes(what.encode() if what == "half a file" else path.with_stem("mx.sink.example").read_bytes())
    try:
        eventually(lambda: len(house.events(event="config.refused")) > refused, 20, "the refusal of the new one")
        assert f"tls/{name}." in house.events(event="config.refused")[-1]["what"]
        assert [peer_certificate(house, n) for n in NAMES] == before
    finally:
        path.write_bytes(good)
    eventually(lambda: len(house.events(event="config.loaded")) > loaded, 20, "the good one again")
    assert [peer_certificate(house, n) for n in NAMES] == before


def test_reloads_in_mid_flow_refuse_nobody(world, house):
    """Settings, listeners and certificates change while mail comes in; no session and no login may notice."""
    before = house.settings
    with Senders(house, "reloads", threads=4, least=100) as senders:
        for i in range(12):
            house.change(submission={"limits": {"recipients": 50 + i},
                                     "listen": before["submission"]["listen"] + [f"127.0.0.1:{2600 + i}"]})
            house.run("reload")
            here = len(senders.acknowledged)
            eventually(lambda n=here: len(senders.acknowledged) > n, 20, "mail flowing on")
        house.write_config(before)
        house.run("reload")
    assert senders.failures == 0
    senders.all_arrive(world)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(house, version):
    context = house.world.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        house.connect(port=465, context=context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_tls(house, version):
    house.connect(port=465, context=house.world.client_context(version)).quit()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_good_for_its_own_service_only(house, version):
    context = house.world.client_context(version)

    def implicit(session):
        with socket.create_connection(("127.0.0.1", 465)) as raw:
            with context.wrap_socket(raw, server_hostname="mail.example.org", session=session) as tls:
                assert tls.recv(100).startswith(b"220")
                return tls.session, tls.session_reused

    def starttls(session):
        with socket.create_connection(("127.0.0.1", 587)) as raw:
            raw.recv(1000)
            raw.sendall(b"EHLO x\r\n")
            while b"250 " not in raw.recv(5000):
                pass
            raw.sendall(b"STARTTLS\r\n")
            raw.recv(100)
            with context.wrap_socket(raw, server_hostname="mail.example.org", session=session) as tls:
                tls.sendall(b"NOOP\r\n")
                tls.recv(100)
                return tls.session, tls.session_reused

    session, _ = starttls(None)
    assert [starttls(session)[1] for _ in range(4)] == [True] * 4, "whichever process answers"
    session, _ = starttls(None)
    assert not implicit(session)[1]
    session, _ = implicit(None)
    assert implicit(session)[1]
    session, _ = implicit(None)
    assert not starttls(session)[1]


# PROXY

V1 = b"PROXY TCP4 192.0.2.77 192.0.2.1 4000 587\r\n"
V2 = (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("192.0.2.78") + socket.inet_aton("192.0.2.1")
      + b"\x0f\xa0\x02\x4b")


@pytest.mark.parametrize("header, address", [(V1, "192.0.2.77"), (V2, "192.0.2.78")])
def test_proxy_header_from_a_listed_address(house, header, address):
    with socket.create_connection(("127.0.0.1", 1587), source_address=("127.0.0.7", 0), timeout=10) as s:
        s.sendall(header)
        assert s.recv(200).startswith(b"220")
        s.sendall(b"QUIT\r\n")
        s.recv(200)
    eventually(lambda: house.events(event="session.closed", address=address), 5, "the session's end")


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("port", [587, 1587])
def test_proxy_header_from_elsewhere(house, header, port):
    mine = "127.0.0.8"
    before = {a: len(house.events(event="session.closed", address=a)) for a in (mine, "192.0.2.77", "192.0.2.78")}
    with socket.create_connection(("127.0.0.1", port), source_address=(mine, 0), timeout=10) as s:
        s.recv(200)
        s.sendall(header)
        with contextlib.suppress(OSError):
            assert not s.recv(200).startswith(b"250")
    eventually(lambda: len(house.events(event="session.closed", address=mine)) > before[mine], 10, "the session's end")
    for claimed in ("192.0.2.77", "192.0.2.78"):
        assert len(house.events(event="session.closed", address=claimed)) == before[claimed]


def test_listed_address_without_a_header_is_refused(house):
    with socket.create_connection(("127.0.0.1", 1587), source_address=("127.0.0.7", 0), timeout=10) as s:
        s.sendall(b"EHLO client.example\r\n")
        assert b"250" not in s.recv(200)


def test_too_many_connections_of_an_address(house):
    opened = []
    try:
        for _ in range(31):
            s = socket.create_connection(("127.0.0.1", 587), source_address=("127.0.0.9", 0), timeout=10)
            opened.append(s)
        greetings = [s.recv(200)[:3] for s in opened]
        assert greetings.count(b"421") == 1
        with socket.create_connection(("127.0.0.1", 587), source_address=("127.0.1.9", 0), timeout=10) as s:
            assert s.recv(200).startswith(b"220"), "others are not hurt"
    finally:
        for s in opened:
            s.close()


# Kills


class Senders:
    """Threads that send until told to stop; `acknowledged` has the subject of every message that had its 250."""

    def __init__(self, house, name, threads=4, least=200):
        self.house, self.name, self.least = house, name, least
        self.acknowledged, self.failures, self.sent, self.stopping = set(), 0, 0, False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]

    def run(self, number):
        client, i = None, 0
        while not self.stopping or len(self.acknowledged) < self.least:
            subject = f"{self.name}-{number}-{i}-"
            i += 1
            try:
                client = client or self.house.connect(timeout=60)
                self.house.send(f"{self.name}@post.example", subject, client=client)
                with self.lock:
                    self.acknowledged.add(subject)
            except (smtplib.SMTPException, OSError):
                with self.lock:
                    self.failures += 1
                if client:
                    client.close()
                client = None
                time.sleep(0.05)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for t in self.threads:
            t.join(300)

    def all_arrive(self, world):
        def missing():
            have = {m["Subject"] for m in world.post.to(f"{self.name}@")}
            return self.acknowledged - have
        eventually(lambda: not missing(), 40, f"all of {len(self.acknowledged)} acknowledged messages", 0.3)


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_process_comes_back_and_nothing_is_lost(world, house, role):
    restarts = sum(p["restarts"] for p in children(house) if p["role"] == role)
    with Senders(house, f"kill-{role}") as senders:
        eventually(lambda: len(senders.acknowledged) > 50, 20, "50 messages")
        victim = house.pids(role)[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: house.status() and victim not in [p["pid"] for p in children(house)] and
                   all(p["state"] == "running" for p in children(house)), 15, f"a new {role}")
        here = len(senders.acknowledged)
        eventually(lambda: len(senders.acknowledged) > here + 20, 20, "mail flowing again")
    assert sum(p["restarts"] for p in children(house) if p["role"] == role) == restarts + 1
    assert len(senders.acknowledged) >= 200
    senders.all_arrive(world)
    house.wait_empty()


# Ends and beginnings


def test_stop_and_start_keep_the_queue(world, house):
    world.stop_postfix()
    for i in range(20):
        house.send("kept@post.example", f"kept {i}")
    house.stop()
    assert house.process.returncode == 0
    world.start_postfix_again()
    house.start()
    assert len(world.post.wait("kept@post.example", 20, 30)) == 20
    house.wait_empty()


def test_upgrade_refuses_nobody(world, house):
    waiting = house.send("x@down.example", "waits through the upgrade").split()[-1]
    eventually(lambda: house.events(event="message.deferred", id=waiting), 20, "the deferral")
    refused, count, stop = [], [0], threading.Event()

    def knock():
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 587), timeout=100) as s:
                    assert s.recv(100).startswith(b"220"), "no greeting"
                    count[0] += 1
                    s.sendall(b"QUIT\r\n")
                    s.recv(100)
            except (OSError, AssertionError) as e:
                refused.append(e)
            time.sleep(0.005)

    thread = threading.Thread(target=knock)
    before = set(house.pids())
    with Senders(house, "upgrade", threads=2, least=50) as senders:
        thread.start()
        time.sleep(0.5)
        os.kill(house.process.pid, signal.SIGUSR2)

        def fresh():
            status = house.status()
            return status and not before & {p["pid"] for p in status["processes"]} and \
                all(p["state"] == "running" for p in status["processes"])
        eventually(fresh, 30, "new processes")
        time.sleep(1)
        stop.set()
        thread.join(120)
    assert not refused, f"{len(refused)} of {len(refused) + count[0]} were refused: {refused[0]!r}"
    senders.all_arrive(world)
    assert [r["id"] for r in house.json("queue", "list", waiting)] == [waiting]
    house.run("queue", "remove", waiting, check=False)


def test_who_stands_at_the_door_is_greeted_before_the_end(world):
    """The process that takes connections does nothing until many strangers and its own end are there at once."""
    with Kidoband(world, "door", {"submission": {"listen": ["127.0.0.1:4587"], "workers": 1}}) as house:
        submit, = house.pids("submit")
        os.kill(submit, signal.SIGSTOP)
        guests = [socket.create_connection(("127.0.0.1", 4587), source_address=(f"127.0.2.{i + 1}", 0)) for i in range(60)]
        house.process.send_signal(signal.SIGUSR2)
        eventually(lambda: house.events(event="master.stopping"), 20, "the end")
        os.kill(submit, signal.SIGCONT)
        for guest in guests:
            guest.settimeout(100)
            with guest, guest.makefile("rb") as replies:
                lines = replies.read().splitlines()
            assert [line[:10] for line in lines] == [b"220 mail.e", b"421 4.3.2 "], lines
        house.wait_ready()
        assert submit not in house.pids("submit")
        with socket.create_connection(("127.0.0.1", 4587)) as late:
            assert late.recv(100).startswith(b"220")


def test_two_houses_on_one_spool(world, house):
    second = Kidoband(world, "second", {"submission": {"listen": ["127.0.0.1:3587"]},
                                        "routes": [{"domain": "*", "via": "mx"}],
                                        "processes": {"state_directory": str(house.dir / "state")}})
    second.start(wait=False)
    try:
        second.process.wait(15)
        assert second.process.returncode != 0
        assert str(house.dir / "state") in second.stderr() or "spool" in second.stderr()
    finally:
        second.stop(signal.SIGKILL)
    house.send("two-houses@post.example", "still well")
    world.post.wait("two-houses@post.example")


def test_nothing_died_that_was_not_killed(house):
    died = house.events(event="process.died")
    assert [d for d in died if d.get("signal") not in (None, 9)] == []
