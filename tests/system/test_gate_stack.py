"""The third judge of the gate: Linux's own stack.

Frames that the gate lets pass are sent to a host in a namespace of its own that listens on port 25. From a line that may not, none
may get through to it, however it is cut into fragments and wrapped into headers; from a line that may, all must.
"""

import json
import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import time

import pytest
from scapy.all import (AH, IP, TCP, Ether, IPOption, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
                       IPv6ExtHdrRouting, PadN, Raw, raw, wrpcap)

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
KIDOBAN = BUILD / "src/cli/kidoban"

DENIED, FREE, HOST = "198.51.100.1", "203.0.113.1", "192.0.2.80"
DENIED6, FREE6, HOST6 = "2001:db8:100::1", "2001:db8:200::1", "2001:db8:80::80"
NEAR_MAC, HOST_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

CONFIG = """
gate:
  subscriber_interfaces: []
  classes:
    - {name: denied, port25: deny, prefixes: [198.51.100.0/24, "2001:db8:100::/40"]}
    - {name: free, port25: allow, prefixes: [203.0.113.0/24, "2001:db8:200::/40"]}
"""


class Attempt:
    """Frames that together begin one connection, told from others by its source port."""

    def __init__(self, name, frames, port):
        self.name, self.frames, self.port = name, frames, port


class Plan:
    def __init__(self, source, source6, seed):
        self.source, self.source6, self.random, self.attempts, self.port = source, source6, random.Random(seed), [], 20000

    def add(self, name, make):
        """make(port): IP packets in the order in which they are sent."""
        self.port += 1
        frames = [Ether(src=NEAR_MAC, dst=HOST_MAC) / p for p in make(self.port)]
        self.attempts.append(Attempt(name, frames, self.port))

    # IPv4

    def segment(self, port, dport=25, data=b""):
        ip = IP(src=self.source, dst=HOST) / TCP(sport=port, dport=dport, flags="S", seq=7, options=[("MSS", 1400)]) / Raw(data)
        return raw(IP(raw(ip))[TCP])

    def v4(self, parts, ident, **more):
        """parts: (offset in octets, octets, more to come)."""
        return [IP(src=self.source, dst=HOST, id=ident, proto=more.get("proto", 6), flags="MF" if mf else 0, frag=at // 8,
                   options=more.get("options", [])) / Raw(octets) for at, octets, mf in parts]

    def cut(self, segment, at):
        edges = [0, *at, len(segment)]
        return [(a, segment[a:b], b < len(segment)) for a, b in zip(edges, edges[1:]) if a < b]

    def plan4(self):
        whole = [(24,), (8,), (16,), (8, 16), (8, 16, 24), (24, 40)]
        self.add("IPv4, whole", lambda port: [IP(src=self.source, dst=HOST) / Raw(self.segment(port))]
                 and self.v4([(0, self.segment(port), False)], 1))
        self.add("IPv4, options", lambda port: self.v4([(0, self.segment(port), False)], 2, options=[IPOption(b"\x01\x01\x01\x01")]))
        for n, at in enumerate(whole):
            for order in ("in order", "backwards"):
                def make(port, at=at, order=order, n=n):
                    parts = self.cut(self.segment(port, data=bytes(64)), at)
                    return self.v4(parts if order == "in order" else parts[::-1], 100 + 2 * n + (order == "backwards"))
                self.add(f"IPv4, cut at {at}, {order}", make)

        def overlap(port, first, second, at=24, ident=300):
            one, two = self.segment(port, first, bytes(40)), self.segment(port, second, bytes(40))
            return self.v4([(0, one[:at], True), (0, two[:at], True), (at, two[at:], False)], ident)
        self.add("IPv4, ports written over", lambda port: overlap(port, 80, 25))
        self.add("IPv4, ports written back", lambda port: overlap(port, 25, 80, ident=301))

        def late(port):
            one, two = self.segment(port, 80, bytes(40)), self.segment(port, 25, bytes(40))
            return self.v4([(24, two[24:], False), (0, one[:24], True), (0, two[:24], True)], 302)
        self.add("IPv4, tail first, then two heads", late)

        def over_flags(port):
            s = self.segment(port, data=bytes(40))
            quiet = bytearray(s)
            quiet[13] = 0x10
            return self.v4([(0, bytes(quiet[:24]), True), (8, s[8:24], True), (24, s[24:], False)], 303)
        self.add("IPv4, flags written over", over_flags)
        self.add("IPv4, a head of four octets", lambda port: self.v4(
            [(0, self.segment(port)[:4], True), (8, self.segment(port)[8:], False)], 304))

        def authenticated(port):
            s = raw(AH(nh=6, payloadlen=4, icv=bytes(12)) / Raw(self.segment(port)))
            return self.v4([(0, s[:24], True), (24, s[24:], False)], 305, proto=51)
        self.add("IPv4, AH cut before the ports", authenticated)

    # IPv6

    def segment6(self, port, dport=25, data=b""):
        ip = IPv6(src=self.source6, dst=HOST6) / TCP(sport=port, dport=dport, flags="S", seq=7, options=[("MSS", 1400)]) / Raw(data)
        return raw(IPv6(raw(ip))[TCP])

    def v6(self, parts, ident, nh, before=None):
        """Fragments of what begins with header nh, behind headers that every fragment has."""
        out = []
        for at, octets, more in parts:
            p = IPv6(src=self.source6, dst=HOST6)
            p = p / before() if before is not None else p
            out.append(p / IPv6ExtHdrFragment(nh=nh, offset=at // 8, m=int(more), id=ident) / Raw(octets))
        return out

    def plan6(self):
        pad = [PadN(optdata=bytes(4))]
        chains = {"": None, "hop-by-hop": lambda: IPv6ExtHdrHopByHop(options=pad), "destination": lambda: IPv6ExtHdrDestOpt(options=pad),
                  "routing": lambda: IPv6ExtHdrRouting(type=4, segleft=0, addresses=[HOST6])}
        for name, header in chains.items():
            def whole(port, header=header):
                p = IPv6(src=self.source6, dst=HOST6)
                p = p / header() if header else p
                p.lastlayer().nh = 6
                return [p / Raw(self.segment6(port))]
            self.add(f"IPv6, whole, {name or 'no header'}", whole)
        self.add("IPv6, many destination options", lambda port: [self.many(port, 30)])
        self.add("IPv6, more headers than the gate reads", lambda port: [self.many(port, 40)])
        self.add("IPv6, atomic fragment", lambda port: self.v6([(0, self.segment6(port), False)], 900, 6))
        for n, at in enumerate([(24,), (8,), (16,), (32,), (8, 24), (24, 40)]):
            for order in ("in order", "backwards"):
                def make(port, at=at, order=order, n=n):
                    parts = self.cut(self.segment6(port, data=bytes(64)), at)
                    return self.v6(parts if order == "in order" else parts[::-1], 1000 + 2 * n + (order == "backwards"), 6)
                self.add(f"IPv6, cut at {at}, {order}", make)
        for at in (8, 16, 24, 32, 40):
            def chain(port, at=at):
                inner = raw(IPv6ExtHdrDestOpt(nh=60, options=pad)) + raw(IPv6ExtHdrDestOpt(nh=6, options=pad)) + self.segment6(port, data=bytes(64))
                return self.v6(self.cut(inner, (at,)), 1100 + at, 60)
            self.add(f"IPv6, a chain cut at {at}", chain)

        def overlap(port):
            one, two = self.segment6(port, 80, bytes(40)), self.segment6(port, 25, bytes(40))
            return self.v6([(0, one[:24], True), (0, two[:24], True), (24, two[24:], False)], 1200, 6)
        self.add("IPv6, ports written over", overlap)

        def over_flags(port):
            s = self.segment6(port, data=bytes(40))
            quiet = bytearray(s)
            quiet[13] = 0x10
            return self.v6([(0, bytes(quiet[:24]), True), (8, s[8:24], True), (24, s[24:], False)], 1201, 6)
        self.add("IPv6, flags written over", over_flags)

        def twice(port):
            inner = raw(IPv6ExtHdrFragment(nh=6, id=77)) + self.segment6(port, data=bytes(40))
            return self.v6(self.cut(inner, (8,)), 1202, 44)
        self.add("IPv6, two fragment headers", twice)
        self.add("IPv6, hop-by-hop of a payload length 0", self.lengthless)

    def many(self, port, count):
        octets = b"".join(bytes([60 if i < count - 1 else 6, 0, 1, 4, 0, 0, 0, 0]) for i in range(count))
        return IPv6(src=self.source6, dst=HOST6, nh=60) / Raw(octets + self.segment6(port))

    def lengthless(self, port):
        return [IPv6(src=self.source6, dst=HOST6, nh=0, plen=0) / Raw(bytes([6, 0, 1, 4, 0, 0, 0, 0]) + self.segment6(port))]


@pytest.fixture(scope="module")
def host():
    """A host behind a veth, which listens on port 25; what it sends is seen at our end."""
    def ip(*words):
        subprocess.run(["ip", *words], check=True)
    ip("netns", "add", "host")
    ip("link", "add", "near", "address", NEAR_MAC, "type", "veth", "peer", "name", "far", "address", HOST_MAC, "netns", "host")
    ip("link", "set", "near", "up")
    for words in (["link", "set", "lo", "up"], ["link", "set", "far", "up"], ["address", "add", HOST + "/32", "dev", "far"],
                  ["-6", "address", "add", HOST6 + "/128", "dev", "far", "nodad"], ["route", "add", "default", "dev", "far"],
                  ["-6", "route", "add", "default", "dev", "far"]):
        ip("-n", "host", *words)
    for source in (DENIED, FREE, DENIED6, FREE6):
        ip("-n", "host", "neigh", "add", source, "lladdr", NEAR_MAC, "dev", "far")
    for knob in ("ipv4/conf/all/rp_filter=0", "ipv4/conf/far/rp_filter=0", "ipv4/conf/all/accept_source_route=1"):
        name, value = knob.split("=")
        subprocess.run(["ip", "netns", "exec", "host", "sh", "-c", f"echo {value} > /proc/sys/net/{name}"], check=True)
    server = subprocess.Popen(["ip", "netns", "exec", "host", "/usr/bin/python3", "-c",
                               "import socket,sys,time; s=socket.create_server(('::',25),family=socket.AF_INET6,dualstack_ipv6=True,"
                               "backlog=4096); print('on',flush=True); time.sleep(3600)"], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "on\n"
    yield
    server.kill()
    server.wait()
    ip("netns", "del", "host")


def let_pass(tmp_path, attempts, engine):
    """The frames that the gate lets pass, attempt by attempt."""
    config, pcap = tmp_path / "kidoban.yaml", tmp_path / "frames.pcap"
    config.write_text(CONFIG)
    wrpcap(str(pcap), [f for a in attempts for f in a.frames])
    done = subprocess.run([KIDOBAN, "-c", config, "gate", "replay", "--pcap", pcap, "--side", "subscriber", "--engine", engine],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = iter(json.loads(line)["verdict"] for line in done.stdout.splitlines())
    return {a.port: [f for f in a.frames if next(verdicts) == "pass"] for a in attempts}


def port_answered(frame):
    """Of a SYN-ACK from port 25 that the host sent: the port it is for."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    at = 34 if kind == 0x0800 and frame[23] == 6 else 54 if kind == 0x86dd and frame[20] == 6 else 0
    if at == 0 or len(frame) < at + 14 or struct.unpack_from("!H", frame, at)[0] != 25 or frame[at + 13] & 0x3f != 0x12:
        return None
    return struct.unpack_from("!H", frame, at + 2)[0]


def send(attempts, frames):
    """Sends them; the ports of the attempts that reached the listener."""
    answered = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        s.bind(("near", 0))
        for a in attempts:
            for f in frames[a.port]:
                s.send(raw(f))
        end = time.monotonic() + 3
        while (left := end - time.monotonic()) > 0:
            s.settimeout(left)
            try:
                octets, address = s.recvfrom(65536)
            except TimeoutError:
                break
            if address[2] != socket.PACKET_OUTGOING and (port := port_answered(octets)) is not None:
                answered.add(port)
    return answered


def plan(source, source6, first_port=20000):
    p = Plan(source, source6, seed=25)
    p.port = first_port
    p.plan4()
    p.plan6()
    return p.attempts


def names(attempts, ports):
    return sorted(a.name for a in attempts if a.port in ports)


# What Linux may not take itself, whoever sends it: overlaps, and (RFC 7112) an IPv6 head without the whole TCP header.
NOT_TAKEN = re.compile(r"IPv4, (ports|flags) written (over|back)|IPv4, tail first, then two heads|IPv4, a head of four octets"
                       r"|IPv4, AH cut before the ports|IPv6, (ports|flags) written over|IPv6, whole, routing"
                       r"|IPv6, cut at \((8|16|8, 24),?\).*|IPv6, a chain cut at (16|24|32)|IPv6, two fragment headers")


def test_the_host_takes_what_is_sent_without_the_gate(host):
    """Or the tests below would prove nothing."""
    attempts = plan(DENIED, DENIED6, 30000)
    answered = names(attempts, send(attempts, {a.port: a.frames for a in attempts}))
    missing = set(a.name for a in attempts) - set(answered)
    assert [name for name in sorted(missing) if not NOT_TAKEN.fullmatch(name)] == []
    # These are the ones that only the gate's law stops: the head ends where another header begins; 40 headers.
    assert {"IPv6, a chain cut at 8", "IPv6, more headers than the gate reads"} <= set(answered)


@pytest.mark.parametrize("engine", ["reference", "kernel"])
def test_nothing_of_a_denied_line_reaches_port_25(host, tmp_path, engine):
    attempts = plan(DENIED, DENIED6, 40000 if engine == "kernel" else 50000)
    frames = let_pass(tmp_path, attempts, engine)
    assert names(attempts, send(attempts, frames)) == []
    # Tails pass: a test in which nothing is sent would prove little.
    assert sum(len(f) for f in frames.values()) > 20


@pytest.mark.parametrize("engine", ["reference", "kernel"])
def test_all_of_a_free_line_reaches_it(host, tmp_path, engine):
    attempts = plan(FREE, FREE6, 10000 if engine == "kernel" else 15000)
    frames = let_pass(tmp_path, attempts, engine)
    assert all(len(frames[a.port]) == len(a.frames) for a in attempts)
