"""Clients that are slow, or stop in the middle: they cost nobody else anything, and each has an end."""

import contextlib
import pathlib
import socket
import ssl
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import PATIENCE, Kidoband, eventually  # noqa: E402

EACH = 25
SECONDS = 8 * PATIENCE  # every limit of time here


def timeouts(seconds):
    return {"handshake": f"{seconds}s", "command": f"{seconds}s", "data": f"{seconds}s"}


@pytest.fixture(scope="module")
def house(world):
    settings = {"submission": {"timeouts": timeouts(SECONDS), "limits": {"connections_per_network": 500, "commands": 10000000}}}
    with Kidoband(world, "slow", settings) as k:
        k.account_add("alice", "alice@example.org")
        yield k


class Slow:
    """A connection that has come to some point, and what it would still send if it ever went on."""

    def __init__(self, connection, rest):
        self.connection, self.rest = connection, rest

    def step(self):
        """One octet more; False when there is nobody left to take it."""
        try:
            self.connection.send(self.rest[:1])
        except OSError:
            return False
        self.rest = self.rest[1:] or b"x"
        return True

    def closed(self):
        """Whether the server has ended it; what it said first is its own affair."""
        self.connection.settimeout(0.01)
        try:
            while self.connection.recv(4096):
                pass
            return True
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True


def tcp(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20 * PATIENCE)


def silent(house):
    return Slow(tcp(465), b"\x16")


def in_handshake(house):
    context, incoming, outgoing = house.world.client_context(), ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing, server_hostname="mail.example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    octets = outgoing.read()
    connection = tcp(465)
    connection.sendall(octets[:50])
    return Slow(connection, octets[50:])


def in_a_command(house):
    connection = tcp(587)
    connection.recv(1000)
    connection.sendall(b"EHLO cli")
    return Slow(connection, b"e" * 1500)


def in_a_message(house):
    client = house.connect(host="mail4.example.org")
    client.mail("alice@example.org")
    client.rcpt("slow@post.example")
    assert client.docmd("DATA")[0] == 354
    client.sock.sendall(b"From: alice@example.org\r\nSubject: half\r\n\r\nhal")
    return Slow(client.sock, b"f" * 400)


STAGES = [silent, in_handshake, in_a_command, in_a_message]


@pytest.fixture
def unhurried(house):
    """Nobody's time is over, however long a busy machine takes for the test."""
    house.change(submission={"timeouts": timeouts(600)})
    house.run("reload")
    yield
    house.change(submission={"timeouts": timeouts(SECONDS)})
    house.run("reload")


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.__name__)
def test_who_stops_is_ended(house, stage):
    slow = [stage(house) for _ in range(EACH)]
    eventually(lambda: all(s.closed() for s in slow), SECONDS + 10, "the end of all that stopped")
    assert not house.world.post.to("slow@post.example")


def test_a_command_that_trickles_in_is_ended(house):
    """An octet now and then is no progress: the limit is on the command."""
    slow = [in_a_command(house) for _ in range(5)]
    began = time.monotonic()

    def all_ended():
        return all([not s.step() or s.closed() for s in slow])
    eventually(all_ended, SECONDS + 10, "the end", pause=0.5)
    assert time.monotonic() - began >= SECONDS - 1, "before the limit"


@pytest.mark.usefixtures("unhurried")
def test_the_slow_hold_up_nobody(world, house):
    """All kinds at once, trickling; what others send goes through meanwhile, and a slow message that ends is taken."""
    slow = [stage(house) for stage in STAGES for _ in range(EACH)]
    messages = [s for s in slow if s.rest.startswith(b"f")]
    began = time.monotonic()
    for i in range(20):
        house.send(f"quick{i}@post.example")
        for s in slow:
            s.step()
    print(f"20 messages beside {len(slow)} slow clients: {time.monotonic() - began:.1f} s")
    finished = messages[0].connection
    finished.settimeout(20 * PATIENCE)
    finished.sendall(b"\r\n.\r\n")
    assert finished.recv(1000).startswith(b"250")
    world.post.wait("quick", 20)
    assert world.post.wait("slow@post.example")[0].own_octets().rstrip().endswith(b"\nhal" + b"f" * 20)
    for s in slow:
        s.connection.close()
    house.settle()


def test_a_client_that_does_not_read_is_ended(house):
    """It asks and asks, and never takes an answer: the server stops reading it, and lets go when its time is over."""
    connection = tcp(587)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    asked = b"HELP\r\n" * 1000

    def refused():
        try:
            while connection.send(asked):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
    eventually(refused, 2 * SECONDS + 10, "the end", pause=0.5)
    house.send("after@post.example")
