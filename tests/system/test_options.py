"""What an operator can choose: sender rules, relay networks, bare LFs, what a limit does, how guessing is slowed, how long
mail is kept, and what a client is told while a part of the house is away."""

import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import smtplib
import socket
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import MAIL, MAIL6, PATIENCE, SANITIZED, Kidoband, Sink, eventually  # noqa: E402

RELAY, RELAY6 = "127.0.5.7", "fd00:0:5::7"
SETTINGS = {
    "submission": {
        "listen": ["127.0.0.1:587", "[fd00::1]:587", "127.0.0.1:465", "[fd00::1]:465",
                   {"address": "127.0.0.1:2587", "repair_bare_lf": True}],
        "senders": {"mode": "report", "hide_client_address": True, "plus_addressing": False},
        "relay_networks": [{"name": "web servers", "prefixes": ["127.0.5.0/24", "fd00:0:5::/64"]}],
    },
    "accounts": {"guesses_free": 3, "guess_delay": "2s", "guess_delay_max": "4s", "cache": "5m"},
    "limits": [{"name": "standard", "windows": ["1000/1d"]}],
    "spool": {"lifetime": "8s", "delay_warning": "3s", "retry": {"first": "1s", "max": "1s"}},
}


@pytest.fixture(scope="module")
def house(world):
    with Kidoband(world, "options", SETTINGS) as k:
        k.account_add("alice", "alice@example.org")
        yield k


@contextlib.contextmanager
def limited(house, **limit):
    """Only this limit, for a while."""
    before = house.settings
    house.write_config(dict(before, limits=[dict(limit, name="a test")]))
    house.run("reload")
    try:
        yield
    finally:
        house.write_config(before)
        house.run("reload")


@pytest.fixture
def account(house):
    """A fresh account: name and address."""
    account.count = getattr(account, "count", 0) + 1
    name = f"user{account.count}"
    house.account_add(name, f"{name}@example.org")
    return name


def plain(house, user, password, **connection):
    """(code, seconds) of one AUTH PLAIN: those that the vault made it wait, however long all of it took."""
    client = house.connect(login=False, **connection)
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    before, started = len(house.events(event="auth.slowed", account=user)), time.monotonic()
    code, _ = client.docmd("AUTH", f"PLAIN {secret}")
    took = time.monotonic() - started
    client.close()
    waited = sum(e["wait_ms"] for e in house.events(event="auth.slowed", account=user)[before:]) / 1000
    assert took >= waited - 0.1
    return code, waited


def raw(house, world, octets, to, port=2587):
    """One message of exactly these octets; the last reply."""
    client = house.connect(port=port, host="mail4.example.org")
    client.mail("alice@example.org")
    client.rcpt(to)
    assert client.docmd("DATA")[0] == 354
    client.sock.sendall(octets)
    reply = client.getreply()
    client.close()
    return reply


# Sender rules


def test_report_lets_a_foreign_sender_through_and_says_so(world, house):
    house.send("reported@post.example", sender="somebody@elsewhere.example")
    world.post.wait("reported@post.example")
    where = {e["where"] for e in house.events(event="sender.reported", address="somebody@elsewhere.example")}
    assert "MAIL FROM" in where and len(where) == 2, where


def test_without_plus_addressing_a_detail_is_another_address(world, house):
    house.send("plus@post.example", sender="alice+list@example.org")
    world.post.wait("plus@post.example")
    assert house.events(event="sender.reported", address="alice+list@example.org")


def test_the_form_of_a_message_is_refused_all_the_same(house):
    client = house.connect()
    client.mail("alice@example.org")
    client.rcpt("form@post.example")
    code, words = client.data("From: alice@example.org\r\nSubject: grüße\r\n\r\nx\r\n".encode())
    client.close()
    assert code == 550 and words.startswith(b"5.6.7")


def test_the_client_can_be_hidden(world, house):
    house.send("hidden@post.example")
    octets = world.post.wait("hidden@post.example")[0].own_octets()
    received = octets.split(b"Subject:")[0]
    assert b"by mail.example.org" in received
    assert b"client.example" not in received and b"fd00::1" not in received and b"127.0.0.1" not in received


# Networks that relay without AUTH


@pytest.mark.parametrize("host,source", [(MAIL, RELAY), (MAIL6, RELAY6)], ids=["IPv4", "IPv6"])
def test_a_listed_network_relays_without_auth(world, house, host, source):
    to = f"relayed{host.count(':')}@post.example"
    client = smtplib.SMTP(host, 587, "web.example", timeout=20, source_address=(source, 0))
    client.sendmail("www@web.example", [to], f"From: www@web.example\r\nTo: {to}\r\nSubject: relayed\r\n\r\nx\r\n")
    client.quit()
    octets = world.post.wait(to)[0].own_octets()
    assert re.search(rb"with ESMTP\b(?!S?A)", octets), octets


@pytest.mark.parametrize("host,source", [(MAIL, "127.0.6.7"), (MAIL6, "fd00:0:6::7")], ids=["IPv4", "IPv6"])
def test_another_network_does_not(house, host, source):
    with smtplib.SMTP(host, 587, "web.example", timeout=20, source_address=(source, 0)) as client:
        client.ehlo()
        code, words = client.mail("www@web.example")
        assert code == 530 and words.startswith(b"5.7.0")


def test_a_limit_of_networks_rejects_in_words(house):
    def send(source):
        with smtplib.SMTP(MAIL, 587, "web.example", timeout=20, source_address=(source, 0)) as client:
            client.sendmail("www@web.example", ["limited@post.example"],
                            "From: www@web.example\r\nSubject: limited\r\n\r\nx\r\n")
    with limited(house, per="network", count="recipients", windows=["8/1h"], action="reject"):
        for _ in range(8):
            send("127.0.5.8")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send("127.0.5.8")
        assert refused.value.smtp_code == 550
        words = refused.value.smtp_error.decode()
        assert words.startswith("5.7.1") and "is reached: 8 recipients an hour for address 127.0.5.8" in words, words
        assert "https://mail.example.org/help" in words
        send("127.0.5.9")  # counted by address (IPv4 /32): a neighbour pays nothing


# What limits do


def test_a_limit_of_messages_defers_and_says_which_and_until_when(house, account):
    def send():
        house.send("counted@post.example", sender=f"{account}@example.org", user=account)
    with limited(house, per="account", count="messages", windows=["5/1h", "100/1d"]):
        for _ in range(5):
            send()
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send()
        assert refused.value.smtp_code == 450
        words = refused.value.smtp_error.decode()
        assert words.startswith("4.7.1") and f"is reached: 5 messages an hour for account {account}" in words and "free again" in words, words
        assert [row["used"] for row in house.json("limits", account)] == [5, 5]


def test_a_held_message_waits_for_the_operator(world, house, account):
    mine = dict(sender=f"{account}@example.org", user=account)
    with limited(house, per="account", count="messages", windows=["1/1h"], action="hold"):
        house.send(f"first-{account}@post.example", **mine)
        world.post.wait(f"first-{account}")
        held = house.send(f"second-{account}@post.example", **mine).split()[-1]
        [row] = house.json("queue", "list", held)
        assert row["state"] == "held", row
        # What came later to the same destination has gone, so the held one was passed over.
        house.send(f"third-{account}@post.example")
        world.post.wait(f"third-{account}")
        [row] = house.json("queue", "list", held)
        assert row["state"] == "held" and row["attempts"] == 0, row
        assert not world.post.to(f"second-{account}")
        house.run("queue", "release", held)
        world.post.wait(f"second-{account}")


# Bare LF, repaired where the operator said so


def test_a_bare_lf_is_repaired_where_it_is_allowed(world, house):
    octets = b"From: alice@example.org\nSubject: repaired\n\none\ntwo\r\n.\r\n"
    code, words = raw(house, world, octets, "repaired@post.example")
    assert code == 250, words
    assert world.post.wait("repaired@post.example")[0].own_octets().endswith(b"\n\none\ntwo\n")


def test_a_bare_lf_is_refused_where_it_is_not(world, house):
    octets = b"From: alice@example.org\nSubject: x\n\none\ntwo\r\n.\r\n"
    code, words = raw(house, world, octets, "unrepaired@post.example", port=587)
    assert code == 550 and words.startswith(b"5.6.11")


@pytest.mark.parametrize("octets", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n"], ids=repr)
def test_smuggling_is_never_repaired(world, house, octets):
    to = f"smuggled{octets.hex()}@post.example"
    message = (b"From: alice@example.org\r\nSubject: x\r\n\r\none" + octets + b"MAIL FROM:<alice@example.org>\r\n"
               b"RCPT TO:<second-" + to.encode() + b">\r\nDATA\r\nFrom: alice@example.org\r\n\r\ntwo\r\n.\r\n")
    code, words = raw(house, world, message, to)
    assert code == 550 and words.startswith(b"5.6.11")
    house.settle()
    assert not world.post.to(to)


# Guessing


def test_one_stale_password_again_and_again_is_one_guess(house, account):
    """A phone with an old password is no attacker."""
    assert {plain(house, account, "the old one", source="fd00:0:10::7") for _ in range(8)} == {(535, 0)}
    assert plain(house, account, house.PASSWORD, source="fd00:0:10::7") == (235, 0)


def test_many_guesses_are_slowed_and_the_owner_is_not_locked_out(house, account):
    tried = [plain(house, account, f"guess {i}", source="fd00:0:11::7") for i in range(5)]
    assert {code for code, _ in tried} == {535}
    assert max(waited for _, waited in tried[3:]) >= 2, tried
    code, waited = plain(house, account, house.PASSWORD, source="fd00:0:12::7")
    assert code == 235 and waited <= 4
    # Once logged in from there, the owner's own network is known to be good.
    assert plain(house, account, house.PASSWORD, source="fd00:0:12::7") == (235, 0)


def test_a_slowed_guess_slows_nobody_else(house, account):
    for i in range(4):
        plain(house, account, f"guess {i}", source="fd00:0:13::7")
    slow = house.connect(login=False, source="fd00:0:13::7")
    secret = base64.b64encode(f"\0{account}\0another".encode()).decode()
    slow.putcmd("AUTH", f"PLAIN {secret}")
    assert plain(house, "alice", house.PASSWORD, source="fd00:0:14::7") == (235, 0)
    assert slow.getreply()[0] == 535
    slow.close()


def test_unknown_and_known_names_take_the_same_time(house, account):
    """Medians, taken in turn so that other work on the machine falls on both."""
    def seconds(name):
        started = time.monotonic()
        assert plain(house, name, "one wrong word", source="fd00:0:15::7")[0] == 535
        return time.monotonic() - started
    times = [(seconds(account), seconds("nobody-of-that-name")) for _ in range(9)]
    known, unknown = (sorted(t)[4] for t in zip(*times))
    assert abs(known - unknown) < max(0.1, 0.5 * max(known, unknown)) * PATIENCE, times


# While something is away


def test_a_login_without_the_vault_is_no_wrong_password(house):
    """454, for a 535 would make mail programs forget the password."""
    [pid] = house.pids("vault")
    client = house.connect(login=False)
    secret = base64.b64encode(f"\0alice\0{house.PASSWORD}".encode()).decode()
    os.kill(pid, signal.SIGSTOP)
    try:
        client.putcmd("AUTH", f"PLAIN {secret}")
        time.sleep(0.5)
    finally:
        os.kill(pid, signal.SIGKILL)
    code, words = client.getreply()
    assert code == 454 and words.startswith(b"4.7.0"), words
    house.wait_ready()
    assert client.docmd("AUTH", f"PLAIN {secret}")[0] == 235
    client.quit()


@pytest.mark.parametrize("role", ["guard", "spool"])
def test_a_message_without_guard_or_spool_is_deferred_or_taken_never_lost(world, house, role):
    client = house.connect()
    [pid] = house.pids(role)
    os.kill(pid, signal.SIGKILL)
    codes, taken = [], 0
    end = time.monotonic() + 60 * PATIENCE
    while taken < 3 and time.monotonic() < end:
        to = f"without-{role}-{taken}@post.example"
        code = client.mail("alice@example.org")[0]
        if code == 250:
            assert client.rcpt(to)[0] == 250
            try:
                code = client.data(f"From: alice@example.org\r\nSubject: {role}\r\n\r\nx\r\n".encode())[0]
            except smtplib.SMTPDataError as refused:
                code = refused.smtp_code
        taken += code == 250
        codes.append(code)
        client.rset()
        time.sleep(0.1)
    client.quit()
    assert taken == 3 and set(codes) <= {250, 450, 451, 452}, codes
    world.post.wait(f"without-{role}-", 3)


# Time


def test_mail_that_cannot_go_out_is_warned_of_then_given_up(world, house):
    before = len(world.mailbox["alice"].all())
    house.send("late@down.example", subject="too late", headers="X-Kept: yes\r\n")
    reports = eventually(lambda: (lambda m: m if len(m) >= 2 else None)(
        [m for m in world.mailbox["alice"].all()[before:] if "late@down.example" in m.octets.decode()]), 30, "two reports")
    actions = sorted(re.search(rb"(?mi)^Action: (\w+)", m.octets).group(1).decode().lower() for m in reports)
    assert actions == ["delayed", "failed"], actions
    failed = next(m for m in reports if b"Action: failed" in m.octets)
    assert re.search(rb"(?m)^Status: 4\.4\.7|^Status: 5\.4\.7|^Status: 4\.4\.1|^Status: 5\.4\.1", failed.octets)
    assert failed["Return-Path"] == "<>" and failed["Auto-Submitted"] == "auto-replied"
    assert b"X-Kept: yes" in failed.octets
    assert not house.events(event="message.expired", sender="")


def test_a_slow_next_hop_holds_up_nobody_else(world, house):
    stuck, go_on = [], threading.Event()
    with Sink() as sink:
        sink.answers["connect"] = lambda _: (stuck.append(1), go_on.wait(300), "220 at last")[2]
        house.send([f"slow{i}@sink.example" for i in range(5)])
        eventually(lambda: stuck, 10, "a connection to the slow hop")
        house.send("quick@post.example")
        world.post.wait("quick@post.example")
        assert not sink.messages
        go_on.set()
        eventually(lambda: sink.messages, 20, "the slow delivery")


# What programs read


@pytest.mark.parametrize("verb", [["status"], ["account", "list"], ["account", "show", "alice"], ["queue", "list"], ["audit"],
                                  ["limits", "alice"], ["app-password", "list", "alice"], ["trace", "alice@example.org"]],
                         ids=" ".join)
def test_every_table_is_json_as_well(house, verb):
    json.loads(house.run(*verb, "--json").stdout)
    assert house.run(*verb).returncode == 0


@pytest.mark.parametrize("arguments,code", [([], 64), (["nonsense"], 64), (["account", "add"], 64), (["queue", "hold"], 64),
                                            (["account", "show", "nobody"], 1), (["queue", "show", "0000000000000"], 1),
                                            (["trace", "nobody@nowhere.example"], 1), (["--help"], 0), (["version"], 0)])
def test_exit_codes_are_those_of_the_manual(house, arguments, code):
    assert house.run(*arguments, check=False).returncode == code


def test_the_control_socket_is_the_operators(house):
    """Root and the group may; others may not even connect."""
    path = f"/run/{house.name}/vault.sock"
    assert os.stat(path).st_mode & 0o777 == 0o660
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            socket.socket(socket.AF_UNIX).connect(path)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_died_that_was_not_killed(house):
    spoken = [line for line in house.stderr().splitlines() if re.search("Sanitizer|runtime error|process.died", line)]
    killed = [line for line in spoken if '"how":"signal 9"' in line]
    assert len(spoken) == len(killed), spoken


@contextlib.contextmanager
def full(house, connections):
    """So many connections may be, and are; gives a greeting that turned one more away, and the connections."""
    before = house.settings
    submission = dict(before["submission"], limits={"connections": connections})
    house.write_config(dict(before, submission=submission))
    house.run("reload")
    opened = []

    def turned_away():
        """Workers take the new file one by one, and end old connections in their own time."""
        opened.append(socket.create_connection(("127.0.0.1", 587), timeout=20 * PATIENCE))
        greeting = opened[-1].recv(500)
        return greeting if greeting.startswith(b"421") else None

    try:
        yield eventually(turned_away, 30, "the limit"), opened
    finally:
        for s in opened:
            s.close()
        house.write_config(before)
        house.run("reload")


def test_a_full_house_turns_away(house):
    with full(house, 3) as (greeting, opened):
        assert greeting.startswith(b"421 4.7.0 Too many connections to this server") and b"https://" in greeting
        assert opened[-1].recv(500) == b"", "and the connection ends"
        identity = re.search(rb"[0-9a-z]{13}", greeting).group().decode()
        eventually(lambda: house.events(event="session.closed", session=identity), 20, "its event")
        opened.append(socket.create_connection(("127.0.0.1", 465), timeout=20))
        assert opened[-1].recv(500) == b"", "no clear text where TLS is spoken"


def whole(connection):
    """What the server says until it ends the connection."""
    octets = b""
    while more := connection.recv(1000):
        octets += more
    connection.close()
    return octets


def turned_away(count, sources):
    """So many come, a hundred at once, by turns from these addresses: what each is told."""
    told = []
    for i in range(0, count, 100):
        crowd = [socket.create_connection(("127.0.0.1", 587), timeout=20 * PATIENCE, source_address=(sources[k % len(sources)], 0))
                 for k in range(i, min(i + 100, count))]
        told += [whole(c) for c in crowd]
    return told


def submit_memory(house):
    """Proportional octets, and descriptors, of all its processes."""
    folders = [pathlib.Path(f"/proc/{pid}") for pid in house.pids("submit")]
    rollups = [(f / "smaps_rollup").read_text() for f in folders]
    return (sum(int(re.search(r"^Pss:\s+(\d+)", r, re.M).group(1)) * 1024 for r in rollups),
            sum(len(list((f / "fd").iterdir())) for f in folders))


def refused_count(house):
    return sum(p["figures"]["sessions_refused"] for p in house.status()["processes"] if p["role"] == "submit")


def test_a_crowd_at_a_full_house_hurts_nobody_inside(house):
    """Familiar ones and strangers: each is told why and in full, none costs memory, who is inside sends mail on."""
    client = house.connect()
    try:
        assert client.docmd("MAIL FROM:<alice@example.org>")[0] == client.docmd("RCPT TO:<alice@example.org>")[0] == 250
        assert client.docmd("DATA")[0] == 354
        with full(house, 3):
            sources = ("127.0.0.1", *(f"127.0.9.{i}" for i in range(1, 50)))
            turned_away(500, sources)  # what is made once is made
            memory, descriptors = submit_memory(house)
            refused = refused_count(house)
            told = turned_away(3000, sources)
            ids = set()
            for reply in told:
                lines = reply.split(b"\r\n")
                assert lines.pop() == b"" and all(line[:3] == b"421" for line in lines) and lines[-1][3:4] == b" ", reply
                ids.add(re.search(rb"[0-9a-z]{13}", reply).group())
            assert len(ids) == len(told), "each has an id of its own"
            assert refused_count(house) == refused + len(told)
            eventually(lambda: submit_memory(house)[1] <= descriptors, 20, "as few descriptors as before")
            # A leak of one reply each would be twice that. The sanitizer keeps for a while what was freed.
            assert SANITIZED or submit_memory(house)[0] < memory + (400 << 10)
            client.send(b"From: alice@example.org\r\nSubject: the crowd\r\n\r\nbody\r\n.\r\n")
            assert client.getreply()[0] == 250
    finally:
        client.close()
    eventually(lambda: house.connect(login=False).noop()[0] == 250, 20, "a place for one more")
