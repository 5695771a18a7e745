"""Port 25 in fragments, in tunnels, behind tags and in PPPoE, between real sockets through the gate.

A refused connection is seen from both of its ends: what its program is told, and that the far host's stack never had anything for
port 25. A mail to port 587 in the same wrapping arrives whole.
"""

import json
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from gate_keeper import LINE, Gate, forget_pins  # noqa: E402
from gate_net import MAIL, OUT4, OUT6, SUB4, SUB6, Net, connect, ip, python  # noqa: E402
from gate_tunnel import Carrier  # noqa: E402
from house import eventually  # noqa: E402

FAR4, FAR6, NEAR4, NEAR6 = "100.64.9.2", "2001:db8:9::2", "100.64.10.2", "2001:db8:a::2"  # of line0 in sub, and in out


@pytest.fixture(scope="module")
def net():
    with Net() as n:
        subprocess.run(["ip", "netns", "exec", "out", "nft", "-f", "-"], text=True, check=True, input="""
            table inet heard {
                counter smtp { }
                chain local {
                    type filter hook input priority 0
                    tcp dport 25 counter name smtp
                }
            }""")
        yield n


@pytest.fixture(scope="module")
def standing(net, tmp_path_factory):
    forget_pins()
    house = Gate(tmp_path_factory.mktemp("gate"))
    house.write(subscriber_interfaces=["eth1", "line*"],
                classes=[{"name": "line", "port25": "deny", "prefixes": [*LINE, "100.64.9.0/24", "2001:db8:9::/48"]}])
    house.start().ready()
    yield house
    house.end()


def heard():
    """Packets that the far host's stack had, put together again, for a listener on port 25."""
    shown = subprocess.run(["ip", "netns", "exec", "out", "nft", "-j", "list", "counters"], capture_output=True, text=True, check=True).stdout
    return next(c["counter"]["packets"] for c in json.loads(shown)["nftables"] if "counter" in c)


def up(netns, addresses, routes):
    ip("link", "set", "line0", "mtu", 1280, "up", netns=netns)
    for a in addresses:
        ip("address", "add", a, "dev", "line0", *(["nodad"] if ":" in a else []), netns=netns)
    for to, source in routes:
        ip("route", "add", to, "dev", "line0", *(["src", source] if source else []), netns=netns)


def shut(address, told="silent", mailed=True):
    before = heard()
    assert connect("sub", address, 25, 3 if told == "silent" else 30) == told
    assert heard() == before
    assert not mailed or python("sub", MAIL, address).strip() == "whole"


def open_(address):
    """Or the rest would prove nothing."""
    before = heard()
    assert connect("sub", address, 25) == "open" and heard() > before


# Octets of the first fragment and of the others, and where a mail gets through. In IPv6 no denied line may send a first one without
# the whole TCP header (RFC 7112), nor in IPv4 a second one eight octets behind the first (RFC 3128).
@pytest.mark.parametrize("first, rest, order, mailed", [(8, 8, "backwards", ()), (16, 512, "onwards", (OUT4,)),
                                                        (24, 24, "backwards", (OUT4, OUT6)), (32, 256, "onwards", (OUT4, OUT6))])
def test_fragments(standing, first, rest, order, mailed):
    with Carrier("pair", "-", "sub", first, rest, order):
        up("sub", (FAR4, FAR6), ((OUT4, FAR4), (OUT6, FAR6)))
        up(None, (), ((FAR4, None), (FAR6, None)))
        eventually(lambda: any(p[0] == "line0" for p in standing.places()), what="line0")
        standing.reload(mode="monitor")
        for address in mailed or (OUT4,):
            open_(address)
        standing.reload(mode="enforce")
        for address in mailed or (OUT4,):
            shut(address, mailed=address in mailed)


# The addresses of the outer packets (of MAP-E and DS-Lite as of a tunnel broker's), and what is inside.
TUNNELS = {"6in4": (SUB4, OUT4, 6), "4in4": (SUB4, OUT4, 4), "4in6": (SUB6, OUT6, 4), "6in6": (SUB6, OUT6, 6)}


@pytest.mark.parametrize("kind", TUNNELS)
def test_tunnels(standing, kind):
    own, far, inside = TUNNELS[kind]
    to = NEAR6 if inside == 6 else NEAR4
    with Carrier("ip", "sub", own, "out", far):
        both_up()
        standing.reload(tunnel_endpoints=[])
        open_(to)
        standing.reload(tunnel_endpoints=[f"{OUT4}/32", f"{OUT6}/128"])
        shut(to)  # an answer would not find back into the tunnel
        standing.reload(tunnel_endpoints=["192.0.2.0/24"])
        open_(to)


def both_up():
    up("sub", (FAR4, FAR6), ((NEAR4, FAR4), (NEAR6, FAR6)))
    up("out", (NEAR4, NEAR6), ((FAR4, None), (FAR6, None)))


# Between Ethernet's addresses and the packet; PPPoE's own length and protocol follow.
BETWEEN = {"tag": "81000064", "QinQ": "88a80064" "81000007", "PPPoE": "8864" "11000001", "PPPoE in QinQ": "91000064" "81000007" "8864" "11000001"}


@pytest.fixture(scope="module")
def bridge(standing):
    """Frames of a line go by the gate as through a switch."""
    ip("link", "add", "br0", "type", "bridge")
    for near, host, far in (("line1", "sub", "s1"), ("up1", "out", "o1")):
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", host)
        ip("link", "set", near, "master", "br0", "up")
        ip("link", "set", far, "up", netns=host)
    ip("link", "set", "br0", "up")
    eventually(lambda: any(p[0] == "line1" for p in standing.places()), what="line1")
    yield
    ip("link", "delete", "line1")
    ip("link", "delete", "up1")
    ip("link", "delete", "br0")


@pytest.mark.parametrize("between", BETWEEN)
def test_tags_and_sessions(standing, bridge, between):
    with Carrier("link", "sub", "s1", "out", "o1", BETWEEN[between]):
        both_up()
        standing.reload(mode="monitor")
        open_(NEAR4)
        open_(NEAR6)
        standing.reload(mode="enforce")
        for attach in ("generic", "auto"):
            standing.reload(attach=attach)
            shut(NEAR4, "ECONNREFUSED")
            shut(NEAR6, "ECONNREFUSED")
        standing.reload(refuse_with="icmp-prohibited")
        shut(NEAR4, "EHOSTUNREACH")
        shut(NEAR6, "EACCES")
        standing.reload(refuse_with="tcp-reset")
