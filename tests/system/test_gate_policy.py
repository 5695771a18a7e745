"""The gate's policy by the command: kidoban gate test, replay and diff, on captures written by scapy and tcpdump's forms."""

import json
import os
import pathlib
import struct
import subprocess

import pytest
from scapy.all import (IP, TCP, UDP, CookedLinux, Dot1Q, Ether, IPv6, IPv6ExtHdrFragment, PPP, PPPoE, Raw, raw, wrpcap)
from scapy.utils import PcapNgWriter

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
KIDOBAN = BUILD / "src/cli/kidoban"

GATE = """
gate:
  subscriber_interfaces: []
  allow_to: [192.0.2.25, "2001:db8:25::25"]
  tunnel_endpoints: ["2001:db8:9::9"]
  classes:
    - {name: dynamic, port25: deny, prefixes: [198.51.100.0/24, "2001:db8:100::/40"]}
    - {name: fixed, port25: allow, prefixes: [198.51.100.128/25]}
    - {name: watched, port25: monitor, prefixes: [198.51.101.0/24]}
    - {name: metered, port25: rate 2/h, prefixes: [198.51.102.0/24]}
"""

DENY, FIXED, WATCHED, METERED, DENY6 = "198.51.100.1", "198.51.100.129", "198.51.101.1", "198.51.102.1", "2001:db8:100::1"
WORLD, WORLD6, MX, NOBODY = "203.0.113.80", "2001:db8:8080::1", "192.0.2.25", "203.0.113.1"


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


class Gate:
    def __init__(self, path):
        self.path, self.config, self.pcap = path, path / "kidoban.yaml", path / "capture.pcap"
        self.config.write_text(GATE)

    def run(self, *arguments, status=0, text=None):
        done = subprocess.run([KIDOBAN, "-c", self.config, *map(str, arguments)], capture_output=True, timeout=120, input=text,
                              env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
        self.words = done.stderr.decode()
        assert done.returncode == status and "Sanitizer" not in self.words, (done.returncode, self.words, done.stdout[:500])
        return done.stdout.decode()

    def replay(self, side="subscriber", status=0, path=None, engine="reference"):
        lines = self.run("gate", "replay", "--pcap", path or self.pcap, "--side", side, "--engine", engine,
                         status=status).splitlines()
        return [json.loads(line) for line in lines]


def tcp(source, destination, sport=1024, dport=25, flags="S"):
    ip = IPv6(src=source, dst=destination) if ":" in source else IP(src=source, dst=destination)
    return ip / TCP(sport=sport, dport=dport, flags=flags)


# Frame, and what is said of it on the subscriber side.
CORPUS = [
    (Ether() / tcp(DENY, WORLD), "refuse", "class", "dynamic"),
    (Ether() / tcp(DENY6, WORLD6), "refuse", "class", "dynamic"),
    (Ether() / tcp(DENY, WORLD, dport=587), "pass", "other", None),
    (Ether() / tcp(DENY, MX), "pass", "allow-to", "dynamic"),
    (Ether() / tcp(FIXED, WORLD), "pass", "class", "fixed"),
    (Ether() / tcp(NOBODY, WORLD), "pass", "default", None),
    (Ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / tcp(DENY, WORLD), "refuse", "class", "dynamic"),
    (Ether() / PPPoE(sessionid=7) / PPP() / tcp(DENY, WORLD), "refuse", "class", "dynamic"),
    (Ether() / IPv6(src=DENY6, dst="2001:db8:9::9") / tcp(NOBODY, WORLD), "refuse", "class", "dynamic"),
    (Ether() / IP(src=DENY, dst=WORLD, flags="MF", proto=6) / Raw(b"\x04\x00\x00"), "drop", "first-fragment", "dynamic"),
    (Ether() / IP(src=DENY, dst=WORLD, frag=1, proto=6) / Raw(bytes(12)), "drop", "overwrite", "dynamic"),
    (Ether() / IP(src=DENY, dst=WORLD, frag=3, proto=6) / Raw(bytes(12)), "pass", "tail", None),
    (Ether() / IPv6(src=DENY6, dst=WORLD6) / IPv6ExtHdrFragment(m=1, nh=6) / Raw(bytes(16)), "drop", "first-fragment", "dynamic"),
    (Ether() / IP(src=DENY, dst=WORLD) / UDP(dport=25), "pass", "other", None),
]


def said(lines):
    return [(line["verdict"], line["rule"], line["class"]) for line in lines]


def test_replay_says_what_is_so(gate):
    wrpcap(str(gate.pcap), [frame for frame, *_ in CORPUS])
    lines = gate.replay()
    assert said(lines) == [tuple(right) for _, *right in CORPUS]
    assert [line["packet"] for line in lines] == list(range(1, len(CORPUS) + 1))
    assert all(set(line) == {"packet", "verdict", "rule", "class"} for line in lines)


def test_replay_of_the_return_path(gate):
    wrpcap(str(gate.pcap), [Ether() / tcp(WORLD, DENY, sport=25, dport=1024, flags="SA"),
                            Ether() / tcp(WORLD, FIXED, sport=25, dport=1024, flags="SA"),
                            Ether() / tcp(WORLD, DENY, sport=443, dport=1024, flags="SA")])
    assert said(gate.replay("uplink")) == [("drop", "return-path", "dynamic"), ("pass", "class", "fixed"), ("pass", "other", None)]


def test_would_is_said_only_where_it_differs(gate):
    wrpcap(str(gate.pcap), [Ether() / tcp(WATCHED, WORLD), Ether() / tcp(DENY, WORLD)])
    assert gate.replay() == [{"packet": 1, "verdict": "pass", "rule": "class", "class": "watched", "would": "refuse"},
                             {"packet": 2, "verdict": "refuse", "rule": "class", "class": "dynamic"}]


def test_rates_run_by_the_capture(gate):
    frames = []
    for minute in (0, 1, 2, 30, 31, 61):
        frame = Ether() / tcp(METERED, WORLD)
        frame.time = 1_700_000_000 + 60 * minute
        frames.append(frame)
    wrpcap(str(gate.pcap), frames)
    assert [line["verdict"] for line in gate.replay()] == ["pass", "pass", "refuse", "pass", "refuse", "pass"]


def pcap(frames, order="<", nanoseconds=False, link=1, snap=262144, cut=None):
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)
    for n, frame in enumerate(frames):
        octets = raw(frame)
        kept = octets[:cut]
        out += struct.pack(order + "IIII", 1_700_000_000 + n, 7, len(kept), len(octets)) + kept
    return out


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_every_form_of_pcap(gate, order, nanoseconds):
    gate.pcap.write_bytes(pcap([frame for frame, *_ in CORPUS], order, nanoseconds))
    assert said(gate.replay()) == [tuple(right) for _, *right in CORPUS]


@pytest.mark.parametrize("link", [101, 12, 14, 228, 229])
def test_bare_ip(gate, link):
    gate.pcap.write_bytes(pcap([tcp(DENY6, WORLD6) if link == 229 else tcp(DENY, WORLD), tcp(NOBODY, WORLD)], link=link))
    assert said(gate.replay()) == [("refuse", "class", "dynamic"), ("pass", "default", None)]


def test_linux_cooked(gate):
    cooked = [CookedLinux(proto=0x0800) / tcp(DENY, WORLD), CookedLinux(proto=0x86DD) / tcp(DENY6, WORLD6),
              CookedLinux(proto=0x8100) / Raw(raw(Dot1Q(vlan=7, type=0x0800) / tcp(DENY, WORLD)))]
    gate.pcap.write_bytes(pcap(cooked, link=113))
    assert [line["verdict"] for line in gate.replay()] == ["refuse"] * 3
    second = struct.pack("!HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8)) + raw(tcp(DENY, WORLD))
    gate.pcap.write_bytes(pcap([Raw(second), Raw(second[:19])], link=276))
    assert said(gate.replay()) == [("refuse", "class", "dynamic"), ("pass", "other", None)]


def test_frames_of_any_length(gate):
    long = raw(Ether() / IP(src=DENY, dst=WORLD) / TCP(dport=25) / Raw(bytes(65000)))
    frames = [Raw(long[:n]) for n in range(1, 80)] + [Raw(long), Raw(long + bytes(300_000))]
    gate.pcap.write_bytes(pcap(frames, snap=1 << 20) + struct.pack("<IIII", 1, 1, 0, 0))
    lines = gate.replay()
    assert len(lines) == len(frames) + 1
    assert lines[-1]["rule"] == "other" and lines[-2]["verdict"] == lines[-3]["verdict"] == "refuse"


def test_what_was_cut_is_marked(gate):
    gate.pcap.write_bytes(pcap([Ether() / tcp(DENY, WORLD) / Raw(bytes(100))], cut=60))
    assert gate.replay() == [{"packet": 1, "verdict": "drop", "rule": "malformed", "class": "dynamic", "truncated": True}]


def block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def test_pcapng(gate):
    writer = PcapNgWriter(str(gate.pcap))
    for frame, *_ in CORPUS:
        writer.write(frame)
    writer.close()
    assert said(gate.replay()) == [tuple(right) for _, *right in CORPUS]


def test_pcapng_of_many_sections(gate):
    out = b""
    bare, frame = raw(tcp(DENY, WORLD)), raw(Ether() / tcp(DENY, WORLD))
    for order in "<>":
        out += section(order)
        out += block(1, struct.pack(order + "HHI", 1, 0, 0) + struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0), order)
        out += block(1, struct.pack(order + "HHI", 101, 0, 0), order)
        out += block(4, b"names, whatever they are", order)
        out += block(6, struct.pack(order + "IIIII", 1, 0, 5, len(bare), len(bare)) + bare, order)
        out += block(6, struct.pack(order + "IIIII", 0, 0, 5, len(frame), len(frame)) + frame, order)
        out += block(2, struct.pack(order + "HHIIII", 1, 0, 0, 5, len(bare), len(bare)) + bare, order)
        out += block(3, struct.pack(order + "I", len(frame)) + frame, order)
    gate.pcap.write_bytes(out)
    assert said(gate.replay()) == [("refuse", "class", "dynamic")] * 8


@pytest.mark.parametrize("resolution", [3, 6, 9, 12, 0x80 | 10, 0x80 | 32])
def test_pcapng_clocks(gate, resolution):
    per = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10 ** resolution
    bare, out = raw(tcp(METERED, WORLD)), section("<")
    out += block(1, struct.pack("<HHI", 101, 0, 0) + struct.pack("<HHB3xHHqHH", 9, 1, resolution, 14, 8, 1_000_000, 0, 0))
    for second in (0, 1, 2, 1799, 1801):
        ticks = (700_000 + second) * per
        out += block(6, struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(bare), len(bare)) + bare)
    gate.pcap.write_bytes(out)
    assert [line["verdict"] for line in gate.replay()] == ["pass", "pass", "refuse", "refuse", "pass"]


def test_a_pipe_will_do(gate):
    out = gate.run("gate", "replay", "--pcap", "-", "--side", "subscriber", text=pcap([Ether() / tcp(DENY, WORLD)]))
    assert json.loads(out)["verdict"] == "refuse"


GOOD = pcap([Ether() / tcp(DENY, WORLD)])


@pytest.mark.parametrize("octets, before", [
    (b"", 0), (b"abc", 0), (b"not a capture at all", 0), (GOOD[:23], 0), (GOOD[:30], 0), (GOOD[:-1], 0), (GOOD + b"x", 1),
    (GOOD[:4] + b"\x01\x00" + GOOD[6:], 0), (pcap([tcp(DENY, WORLD)], link=147), 0),
    (GOOD + struct.pack("<IIII", 1, 1, 0xFFFFFFFF, 0xFFFFFFFF), 1),
    (section("<")[:-1], 0), (section("<") + b"1234", 0), (section("<") + struct.pack("<III", 6, 13, 13), 0),
    (section("<") + struct.pack("<III", 6, 12, 16), 0), (section("<") + struct.pack("<II", 6, 0xFFFFFFFC), 0),
    (section("<") + block(6, bytes(20)), 0), (section("<") + block(1, bytes(4)), 0),
])
def test_broken_captures(gate, octets, before):
    gate.pcap.write_bytes(octets)
    assert len(gate.replay(status=65)) == before
    assert str(gate.pcap) in gate.words


def test_errors_by_their_status(gate):
    gate.replay(status=66, path=gate.path / "nothing")
    gate.run("gate", "replay", "--pcap", gate.pcap, status=64)
    gate.run("gate", "replay", "--pcap", gate.pcap, "--side", "left", status=64)
    gate.run("gate", "replay", "--pcap", gate.pcap, "--side", "uplink", "--engine", "steam", status=64)
    gate.config.write_text("submission: {hostname: mail.example.net, tls: {certificate: /c, key: /k}}\n")
    gate.pcap.write_bytes(GOOD)
    gate.replay(status=78)
    assert "gate" in gate.words
    gate.config.write_text("gate: {}\n")
    gate.replay(status=78)


def test_gate_test(gate):
    def ask(*arguments, status):
        judged = json.loads(gate.run("gate", "test", "--json", *arguments, status=status))
        kernel = judged.pop("kernel")
        assert kernel.pop("program") == "own" and kernel == {k: judged[k] for k in ("verdict", "rule", "would") if k in judged}
        return judged

    assert ask("--from", DENY, "--to", WORLD, status=1) == {"verdict": "refuse", "rule": "class", "class": "dynamic", "line": DENY,
                                                            "port25": "deny", "prefix": "198.51.100.0/24"}
    assert ask("--from", FIXED, "--to", WORLD, status=0)["prefix"] == "198.51.100.128/25"
    assert ask("--from", DENY6, "--to", WORLD6, status=1)["rule"] == "class"
    assert ask("--from", DENY, "--to", WORLD, "--port", "587", status=0) == {"verdict": "pass", "rule": "other", "class": None}
    assert ask("--from", NOBODY, "--to", WORLD, status=0)["rule"] == "default"
    assert ask("--from", WATCHED, "--to", WORLD, status=0)["would"] == "refuse"
    back = ["--from", WORLD, "--to", DENY, "--source-port", "25", "--port", "1024", "--side", "uplink"]
    assert ask(*back, status=1)["rule"] == "return-path"
    for wrong in (["--from", DENY], ["--from", DENY, "--to", WORLD6], ["--from", "x", "--to", WORLD],
                  ["--from", DENY, "--to", WORLD, "--port", "65536"], ["--from", DENY, "--to", WORLD, "--port", "-1"]):
        gate.run("gate", "test", *wrong, status=64)


def test_gate_test_with_a_file_of_prefixes(gate):
    homes = gate.path / "homes.prefixes"
    homes.write_text("# towns\n" + "".join(f"10.{n >> 8}.{n & 255}.0/24 # {n}\n" for n in range(20000)) + "2001:db8:77::/48\n")
    gate.config.write_text(GATE + f"    - {{name: homes, port25: deny, prefixes_file: {homes}}}\n")
    out = json.loads(gate.run("gate", "test", "--json", "--from", "10.77.3.9", "--to", WORLD, status=1))
    assert (out["class"], out["prefix"]) == ("homes", "10.77.3.0/24")
    homes.write_text("10.0.0.0/24\n10.0.0.1/24\n")
    gate.run("gate", "test", "--from", DENY, "--to", WORLD, status=78)
    assert f"{homes}:2:1:" in gate.words


def test_gate_diff(gate):
    other = gate.path / "other.yaml"
    other.write_text(GATE.replace("dynamic, port25: deny", "dynamic, port25: allow"))
    frames = [Ether() / tcp(NOBODY, WORLD), Ether() / tcp(DENY, WORLD), Ether() / tcp(DENY, WORLD, dport=80), Ether() / tcp(DENY6, WORLD6)]
    wrpcap(str(gate.pcap), frames)
    rows = json.loads(gate.run("gate", "diff", gate.config, other, "--pcap", gate.pcap, "--side", "subscriber", "--json", status=1))
    assert rows == [{"packet": 2, "from": DENY, "to": WORLD, "old": "refuse (class dynamic)", "new": "pass (class dynamic)"},
                    {"packet": 4, "from": DENY6, "to": WORLD6, "old": "refuse (class dynamic)", "new": "pass (class dynamic)"}]
    assert "PACKET" in gate.run("gate", "diff", gate.config, other, "--pcap", gate.pcap, "--side", "subscriber", status=1)
    assert gate.run("gate", "diff", gate.config, gate.config, "--pcap", gate.pcap, "--side", "subscriber") == ""
    gate.run("gate", "diff", gate.config, "--pcap", gate.pcap, "--side", "subscriber", status=64)
    gate.run("gate", "diff", gate.config, gate.path / "none", "--pcap", gate.pcap, "--side", "subscriber", status=66)


@pytest.mark.parametrize("side", ["subscriber", "uplink"])
def test_replay_by_the_kernel(gate, side):
    """The program in the kernel says the same, of frames of any length."""
    frames = [Ether() / tcp(DENY, WORLD), Ether() / tcp(DENY6, WORLD6), Ether() / Dot1Q() / Dot1Q() / tcp(DENY, WORLD),
              Ether() / PPPoE(sessionid=7) / PPP() / tcp(DENY, WORLD), Ether() / tcp(FIXED, WORLD), Ether() / tcp(WATCHED, WORLD),
              Ether() / tcp(METERED, WORLD), Ether() / tcp(METERED, WORLD), Ether() / tcp(DENY, MX),
              Ether() / tcp(DENY, WORLD, dport=587), Ether() / tcp(WORLD, DENY, sport=25, dport=1024, flags="SA"),
              Ether() / tcp(DENY, WORLD) / Raw(bytes(8900)), Ether() / tcp(DENY, WORLD) / Raw(bytes(60000)),
              Ether() / IPv6(src=DENY6, dst=WORLD6) / IPv6ExtHdrFragment(m=1) / Raw(b"ab"), Raw(b"short")]
    wrpcap(str(gate.pcap), frames)
    reference = gate.replay(side)
    if side == "subscriber":
        assert [j["verdict"] for j in reference].count("refuse") == 6
    kernel = gate.replay(side, engine="kernel")
    assert gate.replay(side, engine="both") == [j for j in reference]
    for ours, theirs in zip(reference, kernel, strict=True):
        assert ours == theirs or (theirs["rule"], theirs["verdict"], ours["verdict"]) == ("other", "pass", "pass")


def test_replay_by_the_kernel_of_bare_ip(gate):
    wrpcap(str(gate.pcap), [tcp(DENY, WORLD), tcp(DENY6, WORLD6), tcp(FIXED, WORLD)], linktype=101)
    assert [j["verdict"] for j in gate.replay(engine="kernel")] == ["refuse", "refuse", "pass"]
    gate.replay(engine="both")
