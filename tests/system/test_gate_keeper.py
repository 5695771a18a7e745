"""The gate's keeper on real interfaces: a line, the gate and the outside as network namespaces, and real sockets.

What is proven: a refused packet does not arrive, an allowed one is not lost, while the keeper, or all of kidoband, is killed, started
again, upgraded and told a new configuration; and what is not ours stays in place.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import platform
import socket
import struct
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from gate_keeper import AUTO, LINE, PINS, Gate, forget_pins  # noqa: E402
from gate_net import OFFLOAD, OUT4, OUT6, SUB4, SUB6, Net, checksum, connect, ip, popen, python  # noqa: E402
from house import KIDOBAN, PATIENCE, eventually  # noqa: E402

tcx_only = pytest.mark.skipif(AUTO != "tcx", reason="this kernel has no tcx")
TCX = pytest.param("tcx", marks=tcx_only)
BOTH = [OUT4, OUT6]


@pytest.fixture(scope="module")
def net():
    with Net() as n:
        yield n


running = []  # the one that stands


@pytest.fixture
def gate(net, tmp_path):
    while running:
        running.pop().end()
    forget_pins()
    house = Gate(tmp_path)
    yield house
    house.end()


@pytest.fixture(scope="module")
def standing(net, tmp_path_factory):
    """One that runs for several tests, which reload it."""
    forget_pins()
    house = Gate(tmp_path_factory.mktemp("gate"))
    house.write()
    running.append(house.start().ready())
    yield house
    house.end()


PLACES = {"tc": {("eth0", "tc", "ingress"), ("eth1", "tc", "ingress")},
          "native": {("eth0", "xdp", "native"), ("eth1", "xdp", "native")},
          "generic": {("eth0", "xdp", "generic"), ("eth1", "xdp", "generic")},
          "tcx": {("eth0", "tcx", "ingress"), ("eth1", "tcx", "ingress")}}
PLACES["auto"] = PLACES[AUTO]


@pytest.mark.parametrize("attach", ["native", TCX, "generic", "tc", "auto"])
def test_a_line_is_refused_at_every_place(standing, attach):
    """Reloaded from one to the next: the programs move, the counters go on."""
    standing.reload(attach=attach)
    assert standing.places() == PLACES[attach]
    before = standing.counted()["refused"]
    for address in BOTH:
        # A veth gives no answer back by native XDP, so auto does not take it there.
        assert connect("sub", address, 25, 2 if attach == "native" else 30) == ("silent" if attach == "native" else "ECONNREFUSED")
        assert connect("sub", address, 587) == "open"
    assert standing.counted()["refused"] >= before + 2


def test_monitor_lets_pass_and_counts(standing):
    standing.reload(mode="monitor")
    before = standing.counted()["would_refuse"]
    for address in BOTH:
        assert connect("sub", address, 25) == "open"
    assert standing.counted()["would_refuse"] > before and standing.status()["policy"]["mode"] == "monitor"
    standing.reload(mode="enforce")
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"


@pytest.mark.parametrize("answer, told", [("tcp-reset", ["ECONNREFUSED", "ECONNREFUSED"]), ("icmp-prohibited", ["EHOSTUNREACH", "EACCES"]),
                                          ("drop", ["silent", "silent"])])
def test_what_a_program_is_told(standing, answer, told):
    standing.reload(refuse_with=answer)
    assert [connect("sub", address, 25, 2 if answer == "drop" else 30) for address in BOTH] == told
    standing.reload(refuse_with="tcp-reset")


# Prints the answer's octets to a connection's SYN, and the SYN's, for each port.
ANSWERS = """
import socket, sys
for port in map(int, sys.argv[2:]):
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tap.bind(("s0", 3))
    tap.settimeout(30)
    try:
        socket.create_connection((sys.argv[1], port), timeout=30)
    except OSError:
        pass
    syn = answer = None
    while not answer:
        packet = tap.recv(2048)
        at = 20 if packet[0] >> 4 == 4 else 40
        if packet[9 if at == 20 else 6] != 6:
            continue
        source, to = int.from_bytes(packet[at:at + 2], "big"), int.from_bytes(packet[at + 2:at + 4], "big")
        syn = packet if to == port else syn
        answer = packet if source == port else None
    print(syn.hex(), answer.hex())
"""


def fields(line):
    """What of a reset does not depend on where it was made and on the connection's numbers."""
    syn, answer = (bytes.fromhex(packet) for packet in line.split())
    v6 = answer[0] >> 4 == 6
    at = 40 if v6 else 20
    addresses = (answer[8:24], answer[24:40]) if v6 else (answer[12:16], answer[16:20])
    asked = (syn[8:24], syn[24:40]) if v6 else (syn[12:16], syn[16:20])
    tcp = answer[at:]
    pseudo = b"".join(addresses) + (struct.pack("!IxxxB", len(tcp), 6) if v6 else struct.pack("!xBH", 6, len(tcp)))
    number = struct.unpack("!I", syn[at + 4:at + 8])[0]
    sequence, acknowledged, offset, flags, window, _, urgent = struct.unpack("!IIBBHHH", tcp[4:20])
    return {"answers it": addresses == asked[::-1] and tcp[:4] == syn[at + 2:at + 4] + syn[at:at + 2],
            "length": (len(answer), struct.unpack("!H", answer[4:6] if v6 else answer[2:4])[0]), "sequence": sequence,
            "acknowledges": (acknowledged - number) % 2**32, "offset": offset, "flags": flags, "window": window, "urgent": urgent,
            "header": v6 or checksum(answer[:20]), "version": answer[0]}, checksum(pseudo + tcp)


@pytest.mark.parametrize("address", BOTH)
def test_a_reset_is_as_the_kernels_own(standing, address):
    """Port 26 is closed at the far end, whose kernel says so itself."""
    own, ours = map(fields, python("sub", ANSWERS, address, 26, 25).splitlines())
    assert ours == (own[0], 0) and own[0]["answers it"]


# Sends each packet, in hex, and prints the ICMP error that comes.
ERRORS = """
import socket, sys
for packet in map(bytes.fromhex, sys.argv[1:]):
    v6 = packet[0] >> 4 == 6
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86dd if v6 else 0x800))
    tap.bind(("s0", 0x86dd if v6 else 0x800))
    tap.settimeout(30)
    to = socket.inet_ntop(*((socket.AF_INET6, packet[24:40]) if v6 else (socket.AF_INET, packet[16:20])))
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(packet, (to, 0))
    while True:
        answer = tap.recv(2048)
        if answer[6 if v6 else 9] == (58 if v6 else 1) and answer[40 if v6 else 20] == (1 if v6 else 3):
            break
    print(answer.hex())
"""


def error_fields(asked, told):
    """All of an ICMP error but what docs/gate.md says is not as the kernel's; its source stands apart."""
    v6 = told[0] >> 4 == 6
    at = 40 if v6 else 20
    ends = (told[24:40], asked[8:24]) if v6 else (told[16:20], asked[12:16])
    icmp = told[at:]
    pseudo = told[8:40] + struct.pack("!IxxxB", len(icmp), 58) if v6 else b""
    return {"to": ends[0] == ends[1], "class": (told[0] << 8 | told[1]) >> (4 if v6 else 0), "length": (len(told), told[4:6] if v6 else told[2:4]),
            "ttl": told[7 if v6 else 8], "header": v6 or checksum(told[:20]), "type, code, unused": (icmp[:2], icmp[4:8]),
            "sum": checksum(pseudo + icmp + bytes(len(icmp) % 2)), "quotes": asked.startswith(icmp[8:])}, told[8:24] if v6 else told[12:16]


@pytest.mark.parametrize("size", [0, 101, 1300])
@pytest.mark.parametrize("family", [4, 6])
def test_an_icmp_error_is_as_the_kernels_own(standing, family, size):
    """Of port 26 the gate host's own stack says no, and quotes the same packet as far."""
    from scapy.all import IP, TCP, IPv6, Raw, raw
    subprocess.run(["nft", "add table inet own; add chain inet own p { type filter hook prerouting priority 0; };"
                    "add rule inet own p tcp dport 26 reject with icmpx admin-prohibited"], check=True)
    head = IPv6(src=SUB6, dst=OUT6, tc=0x48) if family == 6 else IP(src=SUB4, dst=OUT4, tos=0x48, id=77)
    asked = [raw(head / TCP(sport=40000, dport=port, flags="S", seq=9) / Raw((bytes(range(101)) * 13)[:size])) for port in (26, 25)]
    standing.reload(refuse_with="icmp-prohibited")
    try:
        told = [bytes.fromhex(line) for line in python("sub", ERRORS, *(a.hex() for a in asked)).split()]
    finally:
        subprocess.run(["nft", "delete table inet own"], check=True)
        standing.reload(refuse_with="tcp-reset")
    (own, _), (ours, source) = map(error_fields, asked, told)
    assert ours == own and own["to"] and own["quotes"] and own["sum"] == 0
    assert source == (asked[1][24:40] if family == 6 else asked[1][16:20])


# Prints a connection's SYN, and what else arrives that has its destination as source: a reset or an ICMP error.
TOLD = """
import socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.bind(("s0", 3))
tap.settimeout(30)
try:
    socket.create_connection((sys.argv[1], 25), timeout=30)
except OSError:
    pass
syn = answer = None
far = socket.inet_pton(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, sys.argv[1])
while not answer:
    packet, where = tap.recvfrom(2048)
    v6 = packet[0] >> 4 == 6
    source, to = (packet[8:24], packet[24:40]) if v6 else (packet[12:16], packet[16:20])
    if packet[6 if v6 else 9] == 6 and to == far:
        syn = packet
    elif source == far:
        answer = packet
print(syn.hex(), answer.hex())
"""


@pytest.fixture(params=["tc", TCX])
def unfinished(standing, request):
    """A line whose SYNs arrive with a checksum that is left to a device, as a veth's, a tap's or a virtio's do. What the gate
    sends has it finished by the kernel, as before a wire."""
    standing.reload(attach=request.param)
    python("sub", OFFLOAD, "s0", 1)
    subprocess.run([sys.executable, "-c", OFFLOAD, "eth1", "0"], check=True)
    yield standing
    subprocess.run([sys.executable, "-c", OFFLOAD, "eth1", "1"], check=True)
    python("sub", OFFLOAD, "s0", 0)
    standing.reload(attach="auto", refuse_with="tcp-reset")


@pytest.mark.parametrize("address", BOTH)
@pytest.mark.parametrize("answer", ["tcp-reset", "icmp-prohibited"])
def test_an_answer_to_an_unfinished_checksum(unfinished, answer, address):
    unfinished.reload(refuse_with=answer)
    asked, told = (bytes.fromhex(packet) for packet in python("sub", TOLD, address).split())
    at, v6 = (40, True) if ":" in address else (20, False)
    ends = told[8:40] if v6 else told[12:20]

    def total(octets, protocol):
        return checksum(ends + (struct.pack("!IxxxB", len(octets), protocol) if v6 else struct.pack("!xBH", protocol, len(octets))) + octets)

    assert total(asked[at:], 6) != 0  # else this proves nothing
    if answer == "tcp-reset":
        assert told[6 if v6 else 9] == 6 and told[at + 13] == 0x14 and total(told[at:], 6) == 0
        return
    quoted = told[at + 8:]
    assert (total(told[at:], 58) if v6 else checksum(told[at:])) == 0 and quoted[at:at + 16] == asked[at:at + 16]
    assert total(quoted[at:], 6) == 0  # of a SYN, all is quoted


# A SYN-ACK from port 25, which no connection of ours asked for.
BACK = """
import socket, struct, sys
for address in sys.argv[1:]:
    v6 = ":" in address
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    if v6:
        s.setsockopt(socket.IPPROTO_IPV6, 7, 16)  # IPV6_CHECKSUM
    s.sendto(struct.pack("!HHIIBBHHH", 25, 40000, 1, 2, 5 << 4, 0x12, 1024, 0, 0), (address, 0))
    print("sent")
"""


def test_the_way_back(standing):
    """What comes from port 25 towards a denied line is dropped at the uplink."""
    before = standing.counted()["dropped"], standing.status()["reasons"]["return-path"]
    assert python("out", BACK, SUB4, SUB6).split() == ["sent", "sent"]
    eventually(lambda: (standing.counted()["dropped"], standing.status()["reasons"]["return-path"]) == (before[0] + 2, before[1] + 2),
               what="both dropped")


def test_inbound_and_the_default(standing):
    standing.reload(inbound="deny")
    for address in (SUB4, SUB6):
        assert connect("out", address, 25) == "ECONNREFUSED"
        assert connect("out", address, 587) == "open"
    standing.reload(inbound="allow", default="deny", classes=[{"name": "line", "port25": "allow", "prefixes": LINE}])
    assert connect("sub", OUT4, 25) == "open"
    standing.reload(default="allow", classes=[{"name": "line", "port25": "deny", "prefixes": LINE}])
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"


def test_a_file_of_prefixes(standing):
    """It is the master's to open; a bad one keeps the policy as it was."""
    prefixes = standing.path / "prefixes"
    prefixes.write_text("\n".join(LINE))
    prefixes.chmod(0o600)
    standing.reload(classes=[{"name": "line", "port25": "deny", "prefixes_file": str(prefixes)}])
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"]
    prefixes.write_text("203.0.113.0/24\nnonsense\n")
    done = standing.run("reload")
    assert done.returncode == 78 and f"{prefixes}:2:1" in done.stderr
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"]
    prefixes.write_text("192.0.2.0/24\n")
    standing.reload()
    assert connect("sub", OUT4, 25) == "open"
    standing.reload(classes=[{"name": "line", "port25": "deny", "prefixes": LINE}])


def who_reads(pipe):
    """A descriptor to write to it, or None: nobody reads yet."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_the_house_does_not_wait_for_a_file(standing):
    """It is read by a thread: while one is slow, here a pipe that somebody has still to fill, the master answers."""
    slow, whole = standing.path / "slow", standing.path / "whole"
    os.mkfifo(slow)
    whole.write_text("\n".join(LINE))
    standing.write(classes=[{"name": "line", "port25": "deny", "prefixes_file": str(slow)}])
    first = subprocess.Popen([KIDOBAN, "-c", standing.file, "reload"])
    filling = eventually(lambda: who_reads(slow), what="a reader")
    second = subprocess.Popen([KIDOBAN, "-c", standing.file, "reload"])
    assert standing.keeper() != 0 and first.poll() is None and standing.status()["policy"]["prefixes"] == 2
    whole.rename(slow)  # who reads it next finds a file
    os.write(filling, b"198.51.100.0/24\n")
    os.close(filling)
    assert first.wait(60 * PATIENCE) == 0 and second.wait(60 * PATIENCE) == 0
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"]
    standing.reload(classes=[{"name": "line", "port25": "deny", "prefixes": LINE}])


# Interfaces that come and go


def test_interfaces_that_come_later(standing):
    standing.reload(subscriber_interfaces=["eth1", "tap*", "tun*"])
    try:
        ip("link", "add", "tap7", "type", "veth", "peer", "name", "far7")
        eventually(lambda: ("tap7", AUTO, "ingress") in standing.places(), what="tap7")
        ip("tuntap", "add", "tun7", "mode", "tun")
        eventually(lambda: ("tun7", AUTO, "ingress") in standing.places(), what="tun7")
        ip("link", "set", "tap7", "name", "lan7")  # a new name opens nothing
        eventually(lambda: standing.events("gate.interface.renamed"), what="the rename told")
        assert ("lan7", AUTO, "ingress") in standing.places()
        ip("link", "set", "lan7", "up")
        ip("link", "set", "lan7", "down")
        assert ("lan7", AUTO, "ingress") in standing.places()
        ip("link", "delete", "lan7")
        eventually(lambda: not any(p[0] == "lan7" for p in standing.places()), what="lan7 forgotten")
        assert not standing.events("gate.interface.lost")  # its filters went with it
    finally:
        subprocess.run(["ip", "link", "delete", "lan7"], capture_output=True)
        subprocess.run(["ip", "tuntap", "delete", "tun7", "mode", "tun"], capture_output=True)


def test_a_name_that_goes_and_returns(standing):
    ip("link", "add", "named7", "type", "veth", "peer", "name", "far7")
    standing.reload(subscriber_interfaces=["eth1", "named7"], attach="native")
    assert ("named7", "xdp", "native") in standing.places()
    ip("link", "delete", "named7")
    eventually(lambda: not any(p[0] == "named7" for p in standing.places()), what="named7 forgotten")
    standing.reload(mode="enforce")  # it was there before: the house goes on without
    ip("link", "add", "named7", "type", "veth", "peer", "name", "far7")
    eventually(lambda: ("named7", "xdp", "native") in standing.places(), what="named7 again")
    ip("link", "delete", "named7")
    standing.reload(subscriber_interfaces=["eth1"], attach="auto")
    standing.write(subscriber_interfaces=["eth1", "nowhere7"])
    assert standing.run("reload").returncode != 0 and standing.events("gate.interface.missing")
    standing.reload(subscriber_interfaces=["eth1"])


def test_the_house_ends_while_a_file_is_awaited(gate):
    gate.write()
    gate.start().ready()
    os.mkfifo(gate.path / "slow")
    gate.write(classes=[{"name": "line", "port25": "deny", "prefixes_file": str(gate.path / "slow")}])
    with subprocess.Popen([KIDOBAN, "-c", gate.file, "reload"], stderr=subprocess.DEVNULL) as waits:
        filling = eventually(lambda: who_reads(gate.path / "slow"), what="a reader")
        gate.end()  # and looks at its exit status
        os.close(filling)
        assert waits.wait(60 * PATIENCE) != 0


# Starts that fail


def test_a_missing_interface_ends_the_start(gate):
    gate.write(subscriber_interfaces=["eth1", "nowhere7"])
    gate.start()
    assert gate.daemon.wait(60 * PATIENCE) == 69
    assert "nowhere7" in gate.said() and "no such interface" in gate.said()
    gate.daemon = None
    assert not any(f.name.startswith("link-") for f in PINS.glob("*"))
    assert connect("sub", OUT4, 25) == "open"


@pytest.fixture
def foreign(gate, tmp_path):
    """An XDP program that is not ours, on eth1."""
    (tmp_path / "foreign.c").write_text('int pass(void *c) { return 2; } __asm__("");'.replace("int pass", '__attribute__((section("xdp"))) int pass'))
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", tmp_path / "foreign.c", "-o", tmp_path / "foreign.o"], check=True)
    ip("link", "set", "dev", "eth1", "xdpgeneric", "object", tmp_path / "foreign.o", "section", "xdp")
    yield lambda: [link["xdp"] for link in json.loads(ip("-j", "-d", "link", "show", "eth1"))]
    ip("link", "set", "dev", "eth1", "xdpgeneric", "off")


def test_a_foreign_program_stays(gate, foreign):
    there = foreign()
    gate.write(attach="generic")
    gate.start()
    assert gate.daemon.wait(60 * PATIENCE) == 69 and "another XDP program" in gate.said()
    gate.daemon = None
    assert foreign() == there and not list(PINS.glob("link-*"))  # what came to eth0 before went again
    gate.write(attach="auto")
    gate.start().ready()
    assert ("eth1", AUTO, "ingress") in gate.places() and foreign() == there
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"
    gate.end()
    assert foreign() == there


def swap(*names):
    """What is pinned under two names changes places."""
    first, second = (next(PINS.glob(name)) for name in names)
    aside = PINS / "between"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("names", [("map-rows-*", "map-sources-*"), ("map-policy-*", "program-xdp-uplink-*"), ("map-judgement-*", "map-events-*"),
                                   ("program-tc-subscriber-*", "program-xdp-subscriber-*"), ("program-tc-uplink-*", "map-reasons-*")])
def test_what_is_not_ours_under_our_names(gate, names):
    """The next keeper makes what is missing anew, and the gate stays shut over it."""
    gate.write()
    gate.start().ready()
    swap(*names)
    gate.kill_keeper()
    assert gate.places() == PLACES["auto"]
    before = gate.counted()["refused"]
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"] and connect("sub", OUT4, 587) == "open"
    assert gate.counted()["refused"] >= before + 2


def test_only_a_folder_is_the_mark_of_an_open_gate(gate):
    gate.write()
    gate.start().ready()
    (PINS / "open").symlink_to("program")
    gate.kill_keeper()
    assert gate.places() == PLACES["auto"] and connect("sub", OUT4, 25) == "ECONNREFUSED"


@pytest.mark.parametrize("by", ["qdisc delete dev eth1 clsact", "filter delete dev eth1 ingress"])
def test_a_filter_that_somebody_takes_away(gate, by):
    """While the keeper looks it comes back by itself."""
    gate.write(attach="tc")
    gate.start().ready()
    subprocess.run(["tc", *by.split()], check=True)
    eventually(lambda: gate.events("gate.interface.lost"), what="the loss told")
    eventually(lambda: connect("sub", OUT4, 25) == "ECONNREFUSED", what="the filter again")
    assert gate.places() == PLACES["tc"] and connect("sub", OUT6, 25) == "ECONNREFUSED" and connect("sub", OUT4, 587) == "open"


@tcx_only
def test_a_link_that_somebody_takes_off(gate):
    """Of that the kernel does not tell: the keeper looks now and then."""
    gate.write()
    gate.start().ready()
    index = socket.if_nametoindex("eth1")
    subprocess.run(["bpftool", "link", "detach", "pinned", PINS / f"program-at-{index}-ingress"], check=True)
    eventually(lambda: gate.events("gate.interface.lost"), 60, "the loss told")
    eventually(lambda: connect("sub", OUT4, 25) == "ECONNREFUSED", what="the link again")
    assert gate.places() == PLACES["tcx"] and connect("sub", OUT6, 25) == "ECONNREFUSED" and connect("sub", OUT4, 587) == "open"
    gate.kill_keeper()
    assert gate.places() == PLACES["tcx"] and connect("sub", OUT4, 25) == "ECONNREFUSED"


@pytest.mark.parametrize("attach", ["tc", TCX])
@pytest.mark.parametrize("uplink", [True, False])
def test_one_interface_does_the_work_of_both(gate, uplink, attach):
    """The other direction is judged where packets leave it; and what was there goes when both sides are named again."""
    gate.write(attach=attach, **({"subscriber_interfaces": []} if uplink else {"uplink_interfaces": []}))
    gate.start().ready()
    name = "eth0" if uplink else "eth1"
    assert gate.places() == {(name, attach, "ingress"), (name, attach, "egress")}
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"] and connect("sub", OUT4, 587) == "open"
    before = gate.status()["reasons"]["return-path"]
    assert python("out", BACK, SUB4, SUB6).split() == ["sent", "sent"]
    eventually(lambda: gate.status()["reasons"]["return-path"] == before + 2, what="both dropped")
    gate.end()
    gate.write(subscriber_interfaces=["eth1"], uplink_interfaces=["eth0"])
    gate.start().ready()
    assert gate.places() == PLACES[attach]


def test_a_foreign_filter_stays(gate, tmp_path):
    """In the very place that ours take; and the gate has another one."""
    (tmp_path / "foreign.c").write_text('__attribute__((section("tc"))) int pass(void *c) { return -1; }')
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", tmp_path / "foreign.c", "-o", tmp_path / "foreign.o"], check=True)
    for words in ("qdisc add dev eth1 clsact", f"filter add dev eth1 ingress prio 1 handle 0x4b44424e bpf da obj {tmp_path}/foreign.o sec tc"):
        subprocess.run(["tc", *words.split()], check=True)
    gate.write(attach="tc")
    gate.start()
    assert gate.daemon.wait(60 * PATIENCE) == 69 and "not ours" in gate.said()
    gate.daemon = None
    gate.write(attach="auto")
    gate.start().ready()
    assert ("eth1", *(("tcx", "ingress") if AUTO == "tcx" else ("xdp", "generic"))) in gate.places()
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"
    assert "foreign.o" in subprocess.run(["tc", "filter", "show", "dev", "eth1", "ingress"], capture_output=True, text=True).stdout


def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes, 128)
    number = {"x86_64": 321}.get(platform.machine(), 280)
    done = ctypes.CDLL(None, use_errno=True).syscall(number, command, room, 128)
    assert done >= 0, os.strerror(ctypes.get_errno())
    return done


class Foreign:
    """A TC program that is not ours and ends the judgement of all behind it (TCX_PASS), by a link in front of eth1's ingress."""

    def __init__(self, path):
        (path / "foreign.c").write_text('__attribute__((section("tc"))) int pass(void *c) { return 0; }')
        subprocess.run(["clang", "-O2", "-target", "bpf", "-c", path / "foreign.c", "-o", path / "foreign.o"], check=True)
        self.pin = PINS.with_name("foreign")
        subprocess.run(["bpftool", "prog", "load", path / "foreign.o", self.pin], check=True)
        name = ctypes.create_string_buffer(str(self.pin).encode())
        self.program = bpf(7, struct.pack("QII", ctypes.addressof(name), 0, 0))  # BPF_OBJ_GET
        self.link = bpf(28, struct.pack("IIII", self.program, socket.if_nametoindex("eth1"), 46, 1 << 3))  # BPF_LINK_CREATE

    def stands(self):
        info = ctypes.create_string_buffer(64)
        bpf(15, struct.pack("IIQ", self.link, 64, ctypes.addressof(info)))  # BPF_OBJ_GET_INFO_BY_FD
        return struct.unpack("I", info[16:20])[0] == socket.if_nametoindex("eth1")

    def end(self):
        for fd in (self.link, self.program):
            os.close(fd)
        self.pin.unlink()


@tcx_only
def test_a_foreign_link_stays(gate, tmp_path):
    """Ours comes before it; and who comes before ours later is left there, and the log tells of it."""
    foreign = Foreign(tmp_path)
    try:
        gate.write(attach="tc", return_path="allow")
        gate.start().ready()
        assert connect("sub", OUT4, 25) == "open"  # no filter is asked behind a program that lets pass
        gate.reload(attach="auto")
        assert gate.places() == PLACES["tcx"] and [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"]
        assert connect("sub", OUT4, 587) == "open" and foreign.stands()
        assert gate.run("gate", "detach", "--reason", "to see who stays").returncode == 0
        assert gate.places() == set() and foreign.stands()
        assert gate.run("gate", "attach", "--reason", "seen").returncode == 0
        assert connect("sub", OUT4, 25) == "ECONNREFUSED" and not gate.events("gate.interface.preceded")
    finally:
        foreign.end()
    later = Foreign(tmp_path)
    try:
        eventually(lambda: gate.events("gate.interface.preceded"), 60, "it is told")
        assert gate.events("gate.interface.preceded")[0]["interface"] == "eth1" and later.stands()
    finally:
        later.end()


# Under traffic


def of_another_build():
    """Pinned programs look as if another build had pinned them: the next keeper loads its own and exchanges them."""
    for pin in set(PINS.glob("program-*")) - set(PINS.glob("program-at-*")):
        pin.rename(pin.with_name(pin.name[:-16] + "0123456789abcdef"))


def links():
    """The kernel's numbers of our links. One that is taken off and made anew, be it ever so quickly, has another."""
    pins = (*PINS.glob("link-*"), *PINS.glob("program-at-*"))
    shown = (subprocess.run(["bpftool", "-j", "link", "show", "pinned", pin], check=True, capture_output=True).stdout for pin in pins)
    return {json.loads(text)["id"] for text in shown}


@contextlib.contextmanager
def traffic():
    """Packets all the while; afterwards what was sent and heard of them is in what it gives."""
    counted = {}
    mac = {n: json.loads(ip("-j", "link", "show", d, netns=s))[0]["address"] for n, d, s in (("gate", "eth1", None), ("own", "s0", "sub"))}
    assert connect("sub", OUT4, 587) == "open" and connect("sub", OUT6, 587) == "open"  # neighbours are known
    hearer = popen("out", "hear")
    assert hearer.stdout.readline() == "ready\n"
    sender = popen("sub", "send", mac["gate"], mac["own"])
    assert sender.stdout.readline() == "ready\n"
    try:
        yield counted
    finally:
        sender.terminate()
        counted["sent"] = int(sender.stdout.read())
        hearer.terminate()
        counted |= json.loads(hearer.stdout.read())


@pytest.mark.parametrize("attach", ["tc", TCX, "native"])
def test_nothing_is_open_and_nothing_is_lost(gate, attach):
    gate.write(attach=attach)
    gate.start().ready()
    with traffic() as counted:
        gate.kill_keeper()
        gate.reload(classes=[{"name": "line", "port25": "deny", "prefixes": LINE}, {"name": "other", "port25": "allow", "prefixes": ["192.0.2.0/24"]}])
        of_another_build()
        before, held = {i["program"] for i in gate.status()["interfaces"]}, links()
        gate.kill_keeper()
        after = {i["program"] for i in gate.status()["interfaces"]}
        assert len(before) == len(after) == 2 and not before & after and gate.places() == PLACES[attach]
        assert links() == held and len(held) == (0 if attach == "tc" else 2)  # exchanged in one step
        assert not list(PINS.glob("program-*0123456789abcdef"))
        old = gate.keeper()
        assert gate.run("upgrade").returncode == 0
        gate.another_keeper(old)
        refused = gate.counted()["refused"] + gate.counted()["dropped"]
        gate.daemon.kill()
        gate.daemon.wait()
        time.sleep(1)
        gate.start().ready()
        assert gate.counted()["refused"] + gate.counted()["dropped"] > refused > 0
        gate.reload(mode="enforce")
    assert counted == {"25": 0, "2525": counted["sent"], "sent": counted["sent"]}


@tcx_only
def test_nothing_is_open_between_filters_and_links(gate):
    """As an upgrade from filters to links, and back. The kernel stops a device's queue while clsact comes or goes, and may drop what passes then."""
    gate.write(attach="tc")
    gate.start().ready()
    with traffic() as counted:
        for place in ("tcx", "tc", AUTO):
            seen = len(gate.events("gate.attached", "gate.detached"))
            gate.reload(attach=place)
            assert gate.places() == PLACES[place]
            moved = gate.events("gate.attached", "gate.detached")[seen:]
            for name in ("eth0", "eth1"):  # the new one comes before the old one goes
                assert [e["event"] for e in moved if e["interface"] == name] == ["gate.attached", "gate.detached"]
    assert counted["25"] == 0 and counted["2525"] > 0


# Opening it


def test_only_detach_opens(gate):
    gate.write()
    gate.start().ready()
    gate.end()
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"  # kidoband is not there at all
    gate.start().ready()
    assert gate.run("gate", "detach").returncode == 64
    done = gate.run("gate", "detach", "--reason", "the mail of a hospital")
    assert done.returncode == 0, done.stderr
    assert [connect("sub", a, 25) for a in BOTH] == ["open", "open"] and gate.places() == set()
    assert "open" in gate.run("gate", "status").stdout
    gate.kill_keeper()
    gate.reload(mode="enforce")
    assert connect("sub", OUT4, 25) == "open" and gate.places() == set()
    assert gate.run("gate", "attach", "--reason", "it is over").returncode == 0
    assert [connect("sub", a, 25) for a in BOTH] == ["ECONNREFUSED", "ECONNREFUSED"]
    audit = (gate.path / "state/gate/audit.jsonl").read_text()
    assert "gate.detach" in audit and "the mail of a hospital" in audit and "gate.attach" in audit
    assert gate.run("gate", "detach", "--reason", "again").returncode == 0
    gate.end()
    gate.start().ready()  # a house that starts anew shuts the gate
    assert connect("sub", OUT4, 25) == "ECONNREFUSED"
