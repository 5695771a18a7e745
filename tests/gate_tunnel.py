"""Devices that no kernel has to have, for tests of the gate: a tun device called line0 in one network namespace, and how what it sends gets
to another one. Run by itself: gate_tunnel.py HOW ARGUMENT... ("-" is the world's own namespace).

    pair NETNS NETNS [FIRST REST ORDER]    straight from one to the other; the second's TCP in fragments of FIRST octets,
                                           then of REST each, "onwards" or "backwards"
    ip NETNS ADDRESS NETNS ADDRESS         in IP packets between the two addresses: IPv4 or IPv6 in IPv4 or IPv6
    link NETNS DEVICE NETNS DEVICE HEX     in Ethernet frames, with HEX (tags, PPPoE) between the addresses and the packet
"""

import ctypes
import fcntl
import itertools
import os
import pathlib
import select
import socket
import struct
import subprocess
import sys

from gate_net import checksum

IFF_TUN, IFF_NO_PI, TUNSETIFF = 1, 0x1000, 0x400454ca
CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 16
IPIP, TCP, IP6IP, FRAGMENT = 4, 6, 41, 44


class Carrier:
    """The process, in a with statement: the devices are there while it lives."""

    def __init__(self, how, *arguments):
        self.process = subprocess.Popen([sys.executable, __file__, how, *map(str, arguments)], text=True, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


# What runs by itself. An end has a descriptor, reads a packet or None, and writes one.


def enter(netns):
    with open("/proc/1/ns/net" if netns == "-" else pathlib.Path("/run/netns", netns)) as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"the namespace {netns}")


class Tun:
    def __init__(self, netns):
        enter(netns)
        self.fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"line0", IFF_TUN | IFF_NO_PI))

    def read(self):
        return os.read(self.fd, 65536)

    def write(self, packet):
        os.write(self.fd, packet)


def fragments(packet, first, rest, ident):
    """The packet itself where it is not TCP, or short."""
    v6 = packet[0] >> 4 == 6
    at = 40 if v6 else 20
    if packet[6 if v6 else 9] != TCP or len(packet) - at <= first:
        return [packet]
    edges = [at, *range(at + first, len(packet), rest), len(packet)]
    out = []
    for begin, end in itertools.pairwise(edges):
        more, size = end < len(packet), end - begin
        if v6:
            head = packet[:4] + struct.pack("!HB", 8 + size, FRAGMENT) + packet[7:40]
            head += struct.pack("!BBHI", TCP, 0, begin - at | more, ident)
        else:
            head = packet[:2] + struct.pack("!HHH", 20 + size, ident & 0xffff, more << 13 | (begin - at) // 8) + packet[8:10] + b"\0\0" + packet[12:20]
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        out.append(head + packet[begin:end])
    return out


class Cutting(Tun):
    def __init__(self, netns, first, rest, order):
        super().__init__(netns)
        self.first, self.rest, self.step, self.idents = int(first), int(rest), -1 if order == "backwards" else 1, itertools.count(1)

    def write(self, packet):
        for f in fragments(packet, self.first, self.rest, next(self.idents))[::self.step]:
            super().write(f)


class Outer:
    """Sockets for what is inside, one for each family."""

    def __init__(self, netns, own, far):
        enter(netns)
        self.far, v6 = (far, 0), ":" in own
        self.header = 0 if v6 else 20  # what IPv4's sockets hand over with it
        self.sockets = {}
        for version, protocol in ((4, IPIP), (6, IP6IP)):
            s = self.sockets[version] = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, protocol)
            s.bind((own, 0))
            s.setblocking(False)
        self.epoll = select.epoll()
        for s in self.sockets.values():
            self.epoll.register(s, select.EPOLLIN)
        self.fd = self.epoll.fileno()

    def read(self):
        for s in self.sockets.values():
            try:
                return s.recv(65536)[self.header:]
            except BlockingIOError:
                pass
        return None

    def write(self, packet):
        self.sockets[packet[0] >> 4].sendto(packet, self.far)


class Link:
    def __init__(self, netns, device, far_mac, between):
        enter(netns)
        self.between = bytes.fromhex(between)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((device, 3))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.macs = far_mac + self.socket.getsockname()[4]
        self.fd = self.socket.fileno()
        self.pppoe = self.between.endswith(bytes.fromhex("886411000001"))

    def read(self):
        frame, more, _, where = self.socket.recvmsg(65536, 256)
        for level, kind, octets in more:  # the kernel takes the outermost tag aside
            status, tci, tpid = struct.unpack_from("=I12xHH", octets)
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & TP_STATUS_VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        at = 12 + len(self.between)
        if where[2] == socket.PACKET_OUTGOING or frame[:6] != self.macs[6:] or frame[12:at] != self.between:
            return None
        if self.pppoe:
            length, = struct.unpack_from("!H", frame, at)
            return frame[at + 4:at + 2 + length]
        return frame[at + 2:]

    def write(self, packet):
        v6 = packet[0] >> 4 == 6
        kind = struct.pack("!HH", 2 + len(packet), 0x57 if v6 else 0x21) if self.pppoe else struct.pack("!H", 0x86dd if v6 else 0x800)
        self.socket.send(self.macs + self.between + kind + packet)


def pair(gate, line, *cut):
    return [(Cutting(gate, *cut) if cut else Tun(gate), Tun(line))]


def outer(line, own, out, far):
    return [(Tun(line), Outer(line, own, far)), (Outer(out, far, own), Tun(out))]


def mac(netns, device):
    enter(netns)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((device, 0))
        return s.getsockname()[4]


def link(line, device, out, far, between):
    return [(Tun(line), Link(line, device, mac(out, far), between)), (Link(out, far, mac(line, device), between), Tun(out))]


def carry(both):
    to = {a.fd: (a, b) for ends in both for a, b in (ends, ends[::-1])}
    print("ready", flush=True)
    while True:
        for fd in select.select(list(to), [], [])[0]:
            a, b = to[fd]
            try:
                packet = a.read()
                if packet:
                    b.write(packet)
            except OSError:
                pass  # a device is down, or the kernel says what became of the last one: as a cable would


if __name__ == "__main__":
    carry({"pair": pair, "ip": outer, "link": link}[sys.argv[1]](*sys.argv[2:]))
