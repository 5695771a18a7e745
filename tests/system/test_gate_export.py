"""kidoban export: the same policy in other enforcers' languages, judged with the same packets as the reference.

nft: loaded into the kernel of a router between two namespaces; what arrives behind it is what the reference lets pass.
"""

import ctypes
import json
import os
import pathlib
import random
import select
import socket
import subprocess
import time

import pytest
from scapy.all import IP, TCP, Ether, IPv6, IPv6ExtHdrDestOpt, Raw, fragment, raw, wrpcap

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
KIDOBAN = BUILD / "src/cli/kidoban"
SEED = int(os.environ.get("KIDOBAN_SEED", random.SystemRandom().randrange(1 << 32)))

CLASSES = """
  allow_to: [203.0.112.0/28, "2001:db8:25::/64"]
  classes:
    - {name: dynamic, port25: deny, prefixes: [198.51.100.0/23, 198.51.102.0/24, "2001:db8:100::/40"]}
    - {name: fixed, port25: allow, prefixes: [198.51.100.128/25, "2001:db8:180::/48"]}
    - {name: within fixed, port25: deny, prefixes: [198.51.100.192/26, "2001:db8:180:8000::/49"]}
    - {name: watched, port25: monitor, prefixes: [198.51.103.0/25, "2001:db8:201::/48"]}
    - {name: "scoped: first", port25: deny, prefixes: [198.51.103.128/25, "2001:db8:203::/48"], to: [203.0.115.0/24, "2001:db8:cc::/48"]}
"""
# Edges of prefixes on the lines' side, and what is behind the router.
LINES = ["198.51.100.0", "198.51.100.127", "198.51.100.128", "198.51.100.191", "198.51.100.192", "198.51.100.255", "198.51.101.0",
         "198.51.101.255", "198.51.102.255", "198.51.103.0", "198.51.103.127", "198.51.103.128", "198.51.103.255",
         "198.51.99.255", "2001:db8:ff:ffff::1", "2001:db8:100::", "2001:db8:1ff:ffff:ffff:ffff:ffff:ffff", "2001:db8:180::1",
         "2001:db8:180:8000::1", "2001:db8:181::1", "2001:db8:201::1", "2001:db8:202::1", "2001:db8:203:ffff::1", "2001:db8:200::1"]
WORLD = ["203.0.112.0", "203.0.112.15", "203.0.112.16", "203.0.114.255", "203.0.115.0", "203.0.115.255", "2001:db8:25::25",
         "2001:db8:25:1::25", "2001:db8:cc::1", "2001:db8:cd::1"]


class Export:
    def __init__(self, path, gate):
        self.path, self.config = path, path / "kidoban.yaml"
        self.config.write_text(gate)

    def kidoban(self, *arguments, status=0):
        done = subprocess.run([KIDOBAN, "-c", self.config, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        self.words = done.stderr
        assert done.returncode == status and "Sanitizer" not in done.stderr, (done.returncode, done.stderr)
        return done.stdout

    def export(self, target, *more, status=0):
        return self.kidoban("export", target, *more, status=status)

    def replay(self, packets, side):
        pcap = self.path / f"{side}.pcap"
        wrpcap(str(pcap), [Raw(raw(p)) for p in packets], linktype=101)
        return [json.loads(line) for line in self.kidoban("gate", "replay", "--pcap", pcap, "--side", side).splitlines()]


def tcp(source, destination, sport=1024, dport=25, flags="S", v6=()):
    ip = IPv6(src=source, dst=destination) if ":" in source else IP(src=source, dst=destination)
    for header in v6:
        ip /= header
    return ip / TCP(sport=sport, dport=dport, flags=flags)


def pairs():
    return [(line, far) for line in LINES for far in WORLD if (":" in line) == (":" in far)]


# nft, in a router: "lines" and "world" are namespaces of their own behind it.

CLONE_NEWNET, SO_RCVBUFFORCE = 0x40000000, 33
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*argv, text=None):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, input=text)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


def packet_socket(namespace, device):
    """Opened there, used from here."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert LIBC.setns(there, CLONE_NEWNET) == 0
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        s.bind((device, 0))
        return s
    finally:
        assert LIBC.setns(here, CLONE_NEWNET) == 0
        os.close(here)
        os.close(there)


class Router:
    """Frames go in at one end as if from a line or from the world; what the kernel forwards comes out at the other."""

    def __init__(self):
        for name, mac in (("lines", "02:00:00:00:01"), ("world", "02:00:00:00:02")):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"r-{name}", "address", f"{mac}:01", "type", "veth", "peer", "name", "e0", "address", f"{mac}:02",
                "netns", name)
            run("ip", "link", "set", f"r-{name}", "up")
            run("ip", "-n", name, "link", "set", "e0", "up")
        for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            pathlib.Path("/proc/sys/net", key.replace(".", "/")).write_text("1")
        for device in ("all", "r-lines", "r-world"):
            pathlib.Path(f"/proc/sys/net/ipv4/conf/{device}/rp_filter").write_text("0")
        for name, mac, routes in (("lines", "02:00:00:00:01:02", ["198.51.96.0/21", "2001:db8:0::/37", "2001:db8:100::/39", "2001:db8:200::/47",
                                                                  "2001:db8:202::/47"]),
                                  ("world", "02:00:00:00:02:02", ["203.0.112.0/20", "2001:db8:25::/48", "2001:db8:cc::/47"])):
            for gateway, family in ((f"10.0.{len(name)}.{len(routes)}", "-4"), (f"fe80::{len(routes)}", "-6")):
                run("ip", family, "neigh", "replace", gateway, "lladdr", mac, "dev", f"r-{name}", "nud", "permanent")
                for route in routes:
                    if (":" in route) == (family == "-6"):
                        run("ip", family, "route", "replace", route, "via", gateway, "dev", f"r-{name}", "onlink")
        self.ends = {name: packet_socket(name, "e0") for name in ("lines", "world")}

    def close(self):
        for s in self.ends.values():
            s.close()
        for name in ("lines", "world"):
            run("ip", "link", "del", f"r-{name}")
            run("ip", "netns", "del", name)

    def drain(self, name, until, seconds=60):
        """Frames at an end, up to the one that holds `until`."""
        seen, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.ends[name]], [], [], 1)[0]:
                frame, (_, _, kind, *_) = self.ends[name].recvfrom(65536)
                if kind == socket.PACKET_OUTGOING:
                    continue
                if until in frame:
                    return seen
                seen.append(frame)
        raise AssertionError("the last frame did not come")

    def send(self, source, packets):
        """Those of the packets, numbered by their TCP sequence, that came through whole, and what came back."""
        other = {"lines": "world", "world": "lines"}[source]
        mac = bytes.fromhex("0200000001" if source == "lines" else "0200000002")
        link = {4: b"\x08\x00", 6: b"\x86\xdd"}
        for packet in packets:
            octets = raw(packet)
            self.ends[source].send(mac + b"\x01" + mac + b"\x02" + link[octets[0] >> 4] + octets)
        last = os.urandom(16)
        for _ in range(3):  # an ordinary packet behind them all
            end = raw(IP(src="198.51.99.1", dst="203.0.114.1") / TCP(dport=443) / Raw(last)) if source == "lines" else \
                raw(IP(src="203.0.114.1", dst="198.51.99.1") / TCP(dport=443) / Raw(last))
            self.ends[source].send(mac + b"\x01" + mac + b"\x02" + link[4] + end)
        return self.drain(other, last)


@pytest.fixture
def router():
    r = Router()
    yield r
    r.close()
    subprocess.run(["nft", "flush", "ruleset"], check=True)


NFT_GATE = """gate:
  subscriber_interfaces: [r-lines]
  uplink_interfaces: ["r-wo*"]
""" + CLASSES


def corpus(side):
    """Bare packets of all pairs, ports both ways, each with a number of its own; IPv6 with headers in front of TCP as well."""
    out = []
    for line, far in pairs():
        source, destination = (line, far) if side == "subscriber" else (far, line)
        for sport, dport, flags in ((1024, 25, "S"), (1024, 25, "A"), (25, 1024, "SA"), (1024, 587, "S"), (25, 25, "S")):
            out.append(tcp(source, destination, sport, dport, flags))
        if ":" in line:
            out.append(tcp(source, destination, v6=[IPv6ExtHdrDestOpt()]))
            out.append(tcp(source, destination, 25, 1024, "SA", v6=[IPv6ExtHdrDestOpt(), IPv6ExtHdrDestOpt()]))
    random.Random(SEED).shuffle(out)
    for number, packet in enumerate(out):
        packet[TCP].seq = 0x5EED0000 + number
        packet[TCP].ack = 7 if "A" in packet[TCP].flags else 0
    return out


def arrived(frames):
    numbers = set()
    for frame in frames:
        packet = Ether(frame)
        if TCP in packet and packet[TCP].seq >> 16 == 0x5EED:
            numbers.add(packet[TCP].seq & 0xFFFF)
    return numbers


@pytest.mark.parametrize("switches", ["", "  inbound: deny\n  dynamic_ranges: [203.0.114.0/24, \"2001:db8:cd::/48\"]\n", "  default: deny\n",
                                      "  mode: monitor\n  inbound: deny\n", "  return_path: allow\n  refuse_with: icmp-prohibited\n",
                                      "  default: monitor\n  refuse_with: drop\n"])
def test_nft_judges_as_the_reference(tmp_path, router, switches):
    print("seed", SEED)
    e = Export(tmp_path, NFT_GATE.replace("gate:\n", "gate:\n" + switches))
    run("nft", "-f", "-", text=e.export("nft"))
    for side, source in (("subscriber", "lines"), ("uplink", "world")):
        packets = corpus(side)
        right = {n for n, line in enumerate(e.replay(packets, side)) if line["verdict"] == "pass"}
        is_ = arrived(router.send(source, packets))
        assert is_ == right, (side, [packets[n].summary() for n in sorted(is_ ^ right)][:10])
        assert len(right) > 20


def test_nft_can_be_loaded_again_and_leaves_others_alone(tmp_path, router):
    e = Export(tmp_path, NFT_GATE)
    run("nft", "-f", "-", text="table inet other { chain c { }; }")
    for _ in range(2):
        run("nft", "-f", "-", text=e.export("nft"))
    assert "table inet other" in run("nft", "list", "tables")


def test_nft_puts_fragments_together(tmp_path, router):
    """However the ports are cut in two, or covered by a later piece, nothing that the stack would deliver to port 25 passes."""
    e = Export(tmp_path, NFT_GATE)
    run("nft", "-f", "-", text=e.export("nft"))
    denied = fragment(IP(src="198.51.100.1", dst="203.0.114.1", id=7) / TCP(dport=25, seq=0x5EED0001) / Raw(bytes(64)), 8)
    allowed = fragment(IP(src="198.51.100.129", dst="203.0.114.1", id=8) / TCP(dport=25, seq=0x5EED0002) / Raw(bytes(64)), 24)
    assert len(denied) > 5
    assert arrived(router.send("lines", denied + allowed)) == {2}
    assert arrived(router.send("lines", denied[::-1])) == set()


def test_nft_answers_as_configured(tmp_path, router):
    e = Export(tmp_path, NFT_GATE)
    run("ip", "address", "add", "192.0.2.200/32", "dev", "r-lines")
    run("nft", "-f", "-", text=e.export("nft"))
    router.send("lines", [tcp("198.51.100.1", "203.0.114.1")])
    answers = [Ether(f) for f in read_now(router.ends["lines"])]
    resets = [p for p in answers if TCP in p and p[TCP].flags & 4 and p[TCP].sport == 25]
    assert resets and resets[0][IP].dst == "198.51.100.1"


def read_now(s):
    out, end = [], time.monotonic() + 30
    while time.monotonic() < end and select.select([s], [], [], 2)[0]:
        frame, (_, _, kind, *_) = s.recvfrom(65536)
        if kind != socket.PACKET_OUTGOING:
            out.append(frame)
    return out


def test_nft_rate(tmp_path, router):
    e = Export(tmp_path, "gate:\n  subscriber_interfaces: [r-lines]\n  classes: [{name: new, port25: rate 3/d, prefixes: [198.51.100.0/24, "
                         "\"2001:db8:100::/40\"]}]\n")
    run("nft", "-f", "-", text=e.export("nft"))
    packets = [tcp(line, far) for line, far in (("198.51.100.1", "203.0.114.1"), ("198.51.100.2", "203.0.114.1"),
                                                ("2001:db8:100::1", "2001:db8:cd::1")) for _ in range(6)]
    packets[-2] = tcp("2001:db8:100::2", "2001:db8:cd::1")  # another address of the same /64: the same line
    for number, packet in enumerate(packets):
        packet[TCP].seq = 0x5EED0000 + number
        packet[TCP].sport = 2000 + number
    assert arrived(router.send("lines", packets)) == {n for n in range(18) if n % 6 < 3}
    assert arrived(router.send("lines", packets)) == set()


def test_nft_says_what_it_cannot(tmp_path):
    e = Export(tmp_path, "gate:\n  subscriber_interfaces: [\"a*b\"]\n  tunnel_endpoints: [192.0.2.9]\n" + CLASSES)
    text = e.export("nft")
    assert "not said: interfaces a*b" in text and "not said: tunnel_endpoints" in text
    run("nft", "-c", "-f", "-", text=text)


def test_nft_joins_prefixes(tmp_path):
    text = Export(tmp_path, NFT_GATE).export("nft")
    assert "198.51.101.0-198.51.102.255" in text  # two prefixes of one class, with nothing between
    assert "198.51.100.128-198.51.100.191" in text  # a hole at the upper end


def test_unknown_targets_and_budgets(tmp_path):
    e = Export(tmp_path, NFT_GATE)
    e.export("abacus", status=64)
    e.export("nft", "--budget", "3", status=65)
    assert "--budget" in e.words
    e.export("nft", "--budget", "0", status=64)
    e.export("nft", "--budget", "100")
