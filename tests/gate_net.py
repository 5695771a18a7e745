"""A subscriber, the gate and the outside, each in a network namespace: for tests of the keeper with real sockets.

The gate is the world's own namespace: eth1 leads to `sub` (a line), eth0 to `out` (the Internet). Traffic is made and heard by
this very file, run inside a namespace: gate_net.py send|hear (see the ends).
"""

import hashlib
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

PORTS = (25, 587)
SUB4, SUB6, OUT4, OUT6 = "198.51.100.7", "2001:db8:1::7", "203.0.113.9", "2001:db8:2::9"
ETH_P_ALL = 3


def ip(*arguments, netns=None):
    done = subprocess.run(["ip", *(["-n", netns] if netns else []), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"
    return done.stdout


def python(netns, code, *arguments, **options):
    """Runs code in a namespace: its standard output."""
    return subprocess.run(["ip", "netns", "exec", netns, sys.executable, "-c", code, *map(str, arguments)], check=True, text=True,
                          capture_output=True, timeout=120, **options).stdout


def popen(netns, *arguments):
    return subprocess.Popen(["ip", "netns", "exec", netns, sys.executable, __file__, *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE)


class Net:
    def __enter__(self):
        for host, near, far, net4, net6, gate4, own4, own6 in (
                ("sub", "eth1", "s0", "198.51.100", "2001:db8:1", "198.51.100.1", SUB4, SUB6),
                ("out", "eth0", "o0", "203.0.113", "2001:db8:2", "203.0.113.1", OUT4, OUT6)):
            ip("netns", "add", host)
            ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", host)
            ip("address", "add", f"{gate4}/24", "dev", near)
            ip("address", "add", f"{net6}::1/64", "dev", near, "nodad")
            ip("link", "set", near, "up")
            ip("link", "set", "lo", "up", netns=host)
            ip("address", "add", f"{own4}/24", "dev", far, netns=host)
            ip("address", "add", f"{own6}/64", "dev", far, "nodad", netns=host)
            ip("link", "set", far, "up", netns=host)
            ip("route", "add", "default", "via", gate4, netns=host)
            ip("-6", "route", "add", "default", "via", f"{net6}::1", netns=host)
        for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            pathlib.Path("/proc/sys/net", key).write_text("1")
        python("sub", OFFLOAD, "s0", 0)
        python("out", OFFLOAD, "o0", 0)
        self.servers = {name: popen(name, "serve") for name in ("sub", "out")}
        for server in self.servers.values():
            assert server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.terminate()
            server.wait()
        for name in ("sub", "out"):
            ip("netns", "delete", name)


# Who finishes the checksums of what a device sends: 0, the kernel before it does, as on a wire; 1, the device, which a veth is not.
OFFLOAD = """
import array, fcntl, socket, struct, sys
value = array.array("B", struct.pack("II", 0x17, int(sys.argv[2])))  # ETHTOOL_STXCSUM
fcntl.ioctl(socket.socket(), 0x8946, struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0]))
"""

TRY = """
import socket, sys, time
begun = time.monotonic()
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as s:
        print("open" if s.recv(3) == b"hi\\n" else "mute")
except TimeoutError:
    print("silent")
except OSError as e:
    print(e.__class__.__name__ if e.errno is None else __import__("errno").errorcode[e.errno])
"""


MAIL = """
import hashlib, socket, sys
octets = bytes(i * i % 251 for i in range(20000))
with socket.create_connection((sys.argv[1], 587), timeout=60) as s:
    s.recv(3)
    s.sendall(octets)
    s.shutdown(socket.SHUT_WR)
    print("whole" if s.makefile().read() == hashlib.sha256(octets).hexdigest() else "damaged")
"""


def connect(netns, address, port, seconds=30):
    """"open", "silent", or the errno that a program is told."""
    return python(netns, TRY, address, port, seconds).strip()


# What runs inside the namespaces


def greet(connection):
    """Says hi, and to who sends more and ends, which octets came."""
    digest = hashlib.sha256()
    with connection:
        connection.settimeout(60)
        try:
            connection.send(b"hi\n")
            while octets := connection.recv(65536):
                digest.update(octets)
            connection.send(digest.hexdigest().encode())
        except OSError:
            pass


def serve():
    sockets = []
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for port in PORTS:
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((any_address, port))
            s.listen(64)
            sockets.append(s)
    print("ready", flush=True)
    import select
    while True:
        for s in select.select(sockets, [], [])[0]:
            threading.Thread(target=greet, args=(s.accept()[0],), daemon=True).start()


def checksum(octets):
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frame(macs, v6, port, number):
    """A SYN to that port with a number in it, as Ethernet carries it."""
    source, to = ((SUB6, OUT6) if v6 else (SUB4, OUT4))
    family = socket.AF_INET6 if v6 else socket.AF_INET
    a, b = socket.inet_pton(family, source), socket.inet_pton(family, to)
    tcp = struct.pack("!HHIIBBHHH", 40000, port, number, 0, 5 << 4, 2, 1024, 0, 0)
    pseudo = a + b + (struct.pack("!IxxxB", len(tcp), 6) if v6 else struct.pack("!xBH", 6, len(tcp)))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if v6:
        header = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + a + b
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), number & 0xffff, 0, 64, 6, 0) + a + b
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return macs + struct.pack("!H", 0x86dd if v6 else 0x800) + header + tcp


def send(gate_mac, own_mac):
    """Until SIGTERM: for each number a SYN to 25 and one to 2525, IPv4 and IPv6 in turn. Prints how many numbers."""
    macs = bytes.fromhex(gate_mac.replace(":", "") + own_mac.replace(":", ""))
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("s0", 0))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    print("ready", flush=True)
    number = 0
    while not stop:
        for _ in range(10):
            number += 1
            s.send(frame(macs, number % 2, 25, number))
            s.send(frame(macs, number % 2, 2525, number))
        time.sleep(0.005)
    print(number)


def hear():
    """Until SIGTERM, what arrives of that: prints {"25": how many, "2525": how many different numbers}."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
    s.bind(("o0", ETH_P_ALL))
    s.settimeout(0.2)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    print("ready", flush=True)
    forbidden, numbers, quiet = 0, set(), 0
    while not stop or quiet < 5:  # what is still under way has a second
        try:
            f, where = s.recvfrom(2048)
        except TimeoutError:
            quiet += 1
            continue
        quiet = 0
        if where[2] == 4:  # our own host's, on its way out
            continue
        at = 14 + (20 if f[12:14] == b"\x08\x00" else 40)
        if len(f) < at + 20 or f[23 if f[12:14] == b"\x08\x00" else 20] != 6:
            continue
        source, port, number = struct.unpack("!HHI", f[at:at + 8])
        if port == 25:
            forbidden += 1
        elif port == 2525 and source == 40000:
            numbers.add(number)
    print(json.dumps({"25": forbidden, "2525": len(numbers)}))


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    {"serve": serve, "send": send, "hear": hear}[sys.argv[1]](*sys.argv[2:])
