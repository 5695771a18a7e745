"""The gate where there is no Ethernet: on the devices of tunnels, which carry bare IP packets, with real sockets."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from gate_keeper import AUTO, LINE, Gate, forget_pins  # noqa: E402
from gate_net import OUT4, OUT6, SUB4, SUB6, Net, connect, ip  # noqa: E402
from gate_tunnel import Carrier  # noqa: E402
from house import PATIENCE  # noqa: E402

GATE4 = {"sub": ("198.51.100.1", SUB4), "out": ("203.0.113.1", OUT4)}
GATE6 = {"sub": ("2001:db8:1::1", SUB6), "out": ("2001:db8:2::1", OUT6)}
FAR4, FAR6 = "100.64.9.2", "2001:db8:9::2"  # the tunnel's address in the other namespace


@pytest.fixture(scope="module")
def net():
    with Net() as n:
        yield n


@pytest.fixture
def gate(net, tmp_path):
    """Judges the lines of sub, and those behind its tunnel."""
    forget_pins()
    house = Gate(tmp_path)
    house.write(classes=[{"name": "line", "port25": "deny", "prefixes": [*LINE, "100.64.9.0/24", "2001:db8:9::/48"]}])
    yield house
    house.end()


# The kernel's own kinds, where it has them: words, the ends of the outer packets, and the families inside.
KINDS = {"ipip": ("ipip", GATE4, "4"), "sit": ("sit", GATE4, "6"), "ip6tnl": ("ip6tnl mode any", GATE6, "46"), "gre": ("gre", GATE4, "46"),
         "ip6gre": ("ip6gre", GATE6, "46")}


def has(kind):
    made = subprocess.run(["ip", "link", "add", "probe0", "type", *KINDS[kind][0].split(), "local", KINDS[kind][1]["sub"][0]], capture_output=True)
    subprocess.run(["ip", "link", "delete", "probe0"], capture_output=True)
    return made.returncode == 0


HERE = ["tun", *filter(has, KINDS)]


class Tunnel:
    """From the gate's "line0" to the same in another namespace, which reaches the rest of the other side by it."""

    def __init__(self, kind, host):
        self.host, self.process = host, None
        self.families = KINDS[kind][2] if kind in KINDS else "46"
        if kind == "tun":
            self.process = Carrier("pair", "-", host).__enter__()
        else:
            words, ends, _ = KINDS[kind]
            for netns, (local, remote) in ((None, ends[host]), (host, ends[host][::-1])):
                ip("link", "add", "line0", "type", *words.split(), "local", local, "remote", remote, netns=netns)
        targets = (OUT4, OUT6, SUB4, SUB6)[0 if host == "sub" else 2:][:2]
        for netns in (None, host):
            ip("link", "set", "line0", "mtu", 1280, "up", netns=netns)
        for far, target in zip((FAR4, FAR6), targets):
            if ("6" if ":" in far else "4") in self.families:
                ip("address", "add", far, "dev", "line0", *(["nodad"] if ":" in far else []), netns=host)
                ip("route", "add", target, "dev", "line0", "src", far, netns=host)
                ip("route", "add", far, "dev", "line0")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.__exit__()
        else:
            ip("link", "delete", "line0")
            ip("link", "delete", "line0", netns=self.host)

    def of(self, *both):
        return [one for one in both if ("6" if ":" in one else "4") in self.families]


TOLD = {"tcp-reset": ("ECONNREFUSED", "ECONNREFUSED"), "icmp-prohibited": ("EHOSTUNREACH", "EACCES"), "drop": ("silent", "silent")}


@pytest.mark.parametrize("kind", HERE)
def test_a_line_that_is_a_tunnel(gate, kind):
    with Tunnel(kind, "sub") as line:
        gate.write(subscriber_interfaces=["line0"])
        gate.start().ready()
        assert ("line0", AUTO, "ingress") in gate.places()
        for answer, told in TOLD.items():
            gate.reload(refuse_with=answer)
            before = gate.counted()["refused"]
            for address in line.of(OUT4, OUT6):
                assert connect("sub", address, 25, 2 if answer == "drop" else 30) == told[":" in address]
                assert connect("sub", address, 587) == "open"
            assert gate.counted()["refused"] >= before + len(line.families)
        gate.reload(mode="monitor")
        assert {connect("sub", a, 25) for a in line.of(OUT4, OUT6)} == {"open"}


@pytest.mark.parametrize("kind", HERE)
def test_an_uplink_that_is_a_tunnel(gate, kind):
    """What leaves by it is judged where no subscriber interface is named, and the answer turns back inwards."""
    with Tunnel(kind, "out") as line:
        gate.write(subscriber_interfaces=[], uplink_interfaces=["line0"], attach="tc")
        gate.start().ready()
        assert {("line0", "tc", "ingress"), ("line0", "tc", "egress")} <= gate.places()
        for answer, told in TOLD.items():
            gate.reload(refuse_with=answer)
            for address in line.of(FAR4, FAR6):
                assert connect("sub", address, 25, 2 if answer == "drop" else 30) == told[":" in address]
                assert connect("sub", address, 587) == "open"
        gate.reload(refuse_with="icmp-prohibited", inbound="deny")
        for address in line.of(SUB4, SUB6):
            assert connect("out", address, 25) == TOLD["icmp-prohibited"][":" in address]
            assert connect("out", address, 587) == "open"


# How the device is made, and what the start ends with.
REFUSED = {"xdp": (["tuntap", "add", "line0", "mode", "tun"], "generic", "bare IP packets: only TC"),
           **{kind: (["link", "add", "line0", "type", kind, "local", KINDS[kind][1]["sub"][0]], "auto", "GRE without one remote address")
              for kind in HERE if "gre" in kind}}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_program_can_judge_is_refused_in_words(gate, what):
    """XDP's answer would lack its Ethernet header; GRE to anybody shows TC the outer packet."""
    make, attach, words = REFUSED[what]
    ip(*make)
    try:
        gate.write(subscriber_interfaces=["line0"], attach=attach)
        gate.start()
        assert gate.daemon.wait(60 * PATIENCE) == 69
        assert "line0" in gate.said() and words in gate.said()
    finally:
        ip("link", "delete", "line0")
