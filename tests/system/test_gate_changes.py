"""What an operator changes of the gate at run time: the real keeper between namespaces, a real connection to port 25, the file that
is kept, the log of who did it."""

import concurrent.futures
import ctypes
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from house import KIDOBAN, KIDOBAND, PATIENCE, eventually  # noqa: E402

CLASSES = """
    - {name: shut, port25: deny, prefixes: [10.25.0.0/24, "fd25::/64"]}
    - {name: tried, port25: monitor, prefixes: [10.26.0.0/24]}
    - {name: slow, port25: rate 5/h, prefixes: [10.27.0.0/24]}
"""
FAR = {4: "203.0.113.25", 6: "fd26::25"}
LINE = {4: "10.25.0.2", 6: "fd25::2"}

SINK = """
import socket, threading
def serve(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, 25))
    s.listen(64)
    while True:
        c, _ = s.accept()
        c.sendall(b"220 far")
        c.close()
threading.Thread(target=serve, args=(socket.AF_INET, "%s")).start()
serve(socket.AF_INET6, "%s")
""" % (FAR[4], FAR[6])
CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 25), float(sys.argv[2])) as s:
        print(s.recv(16).decode())
except OSError as e:
    print("no:", e)
"""


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


@pytest.fixture(scope="module")
def wires():
    """A line, the router that we are, and a mail server far away."""
    for name, near, far, near6, far6 in (("line", "10.25.0.1", LINE[4], "fd25::1", LINE[6]),
                                         ("far", "203.0.113.1", FAR[4], "fd26::1", FAR[6])):
        ip(f"netns add {name}")
        ip(f"link add name to-{name} type veth peer name eth0 netns {name}")
        for where, dev, a4, a6 in (([], f"to-{name}", near, near6), (["-n", name], "eth0", far, far6)):
            ip(" ".join([*where, "link", "set", dev, "up"]))
            ip(" ".join([*where, "address", "add", a4 + "/24", "dev", dev]))
            ip(" ".join([*where, "-6", "address", "add", a6 + "/64", "dev", dev, "nodad"]))
        ip(f"-n {name} route add default via {near}")
        ip(f"-n {name} -6 route add default via {near6}")
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        pathlib.Path("/proc/sys/net", switch).write_text("1")
    sink = subprocess.Popen(["ip", "netns", "exec", "far", sys.executable, "-c", SINK])
    yield
    sink.terminate()
    sink.wait()
    for name in ("line", "far"):
        ip(f"link delete to-{name}")
        ip(f"netns delete {name}")


def call(family=4, wait=3):
    """What a program on the line hears when it connects to port 25 far away."""
    done = subprocess.run(["ip", "netns", "exec", "line", sys.executable, "-c", CALL, FAR[family], str(wait)], capture_output=True, text=True)
    return done.stdout.strip()


def is_open(family=4):
    return call(family) == "220 far"


class House:
    def __init__(self, path):
        for parent in [path, *path.parents[:2]]:
            parent.chmod(0o755)
        self.path = path
        self.config = path / "kidoban.yaml"
        self.write()
        (path / "state").mkdir(mode=0o755)
        self.start()

    def write(self, mode="enforce", classes=CLASSES, more=""):
        p = self.path
        self.config.write_text(f"gate:\n  subscriber_interfaces: [to-line]\n  mode: {mode}\n{more}  classes:{classes}"
                               f"processes: {{runtime_directory: {p}/run, state_directory: {p}/state, log: {{events: {p}/events.jsonl}}}}\n")

    def start(self):
        self.daemon = subprocess.Popen([KIDOBAND, "--config", self.config], stderr=subprocess.DEVNULL, start_new_session=True)
        eventually(lambda: self.run("gate", "status").returncode == 0, 60, "the keeper")

    def stop(self):
        self.daemon.terminate()
        assert self.daemon.wait(60 * PATIENCE) == 0

    def kill(self):
        """All of the house, at once."""
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()
        eventually(lambda: self.run("gate", "status").returncode == 69, 60, "the end of the keeper")

    def run(self, *arguments):
        return subprocess.run([KIDOBAN, "-c", self.config, *arguments], capture_output=True, text=True, timeout=120 * PATIENCE)

    def do(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.do(*arguments, "--json"))

    def refused(self, *arguments, status=64):
        done = self.run(*arguments)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stderr

    def events(self, name):
        lines = (self.path / "events.jsonl").read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["event"] == name]

    def deeds(self):
        return [(a["what"], a["subject"], a["reason"], a["by"], a.get("on_behalf_of")) for a in self.json("audit")]


@pytest.fixture
def house(wires, tmp_path):
    h = House(tmp_path)
    yield h
    if h.daemon.poll() is None:
        h.stop()
    # What is pinned would go on into the next test.
    for path in sorted(pathlib.Path("/sys/fs/bpf/kidoban").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    subprocess.run(["tc", "qdisc", "delete", "dev", "to-line", "clsact"], stderr=subprocess.DEVNULL)


def test_an_exemption_opens_at_once_and_is_logged(house):
    for family in (4, 6):
        assert "Connection refused" in call(family)  # the answer passes the program at the device's other place
        house.do("gate", "exempt", "add", LINE[family], "--reason", "asked by letter", "--by", "the help desk")
        assert is_open(family)
    rows = house.json("gate", "exempt", "list")
    assert [(r["prefix"], r["until"], r["by"], r["reason"]) for r in rows] == [
        ("10.25.0.2/32", None, "the help desk", "asked by letter"), ("fd25::2/128", None, "the help desk", "asked by letter")]
    for family, other in ((4, 6), (6, 4)):
        house.do("gate", "exempt", "remove", LINE[family], "--reason", "moved away")
        assert not is_open(family)
    assert house.deeds() == [
        ("gate.exempt.add", "10.25.0.2/32", "asked by letter", "root", "the help desk"),
        ("gate.exempt.add", "fd25::2/128", "asked by letter", "root", "the help desk"),
        ("gate.exempt.remove", "10.25.0.2/32", "moved away", "root", None),
        ("gate.exempt.remove", "fd25::2/128", "moved away", "root", None)]


def test_it_ends_on_time_with_the_daemon_dead(house):
    house.do("gate", "exempt", "add", "10.25.0.0/25", "--until", "20s", "--reason", "a trial")
    house.do("gate", "exempt", "add", LINE[6], "--until", "1h", "--reason", "a trial")
    end = datetime.datetime.fromisoformat(house.json("gate", "exempt", "list")[0]["until"].replace("Z", "+00:00"))
    house.kill()
    eventually(lambda: not is_open(), 60, "the end")
    assert datetime.datetime.now(datetime.timezone.utc) >= end
    assert is_open(6)
    house.start()
    assert not is_open() and is_open(6)
    assert [r["prefix"] for r in house.json("gate", "exempt", "list")] == ["fd25::2/128"]
    assert [e["prefix"] for e in house.events("gate.exemption.ended")] == ["10.25.0.0/25"]


def set_clock_forward_by_a_nanosecond():
    """A step that nobody notices, but the kernel tells of it as of any other. False: this machine's clock is not ours."""
    class Timex(ctypes.Structure):
        _fields_ = [("modes", ctypes.c_uint), ("before", ctypes.c_byte * 68), ("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long),
                    ("after", ctypes.c_byte * 120)]

    step = Timex(modes=0x0100 | 0x2000, nanoseconds=1)  # ADJ_SETOFFSET, ADJ_NANO
    return ctypes.CDLL(None).adjtimex(ctypes.byref(step)) >= 0


def test_the_clock_is_set(house):
    house.do("gate", "exempt", "add", LINE[4], "--until", "1h", "--reason", "kept")
    before = house.json("gate", "exempt", "list")
    if not set_clock_forward_by_a_nanosecond():
        pytest.skip("the clock may not be set here")
    eventually(lambda: house.events("gate.clock"), 60, "word of it")
    assert is_open() and house.json("gate", "exempt", "list") == before


def test_a_restart_keeps_it(house):
    house.do("gate", "exempt", "add", LINE[4], "--until", "1d", "--reason", "kept")
    house.do("gate", "mode", "enforce", "--class", "tried", "--reason", "for good")
    before = house.json("gate", "exempt", "list"), house.json("gate", "mode")
    house.stop()
    assert is_open()
    house.start()
    assert (house.json("gate", "exempt", "list"), house.json("gate", "mode")) == before and is_open()


def test_a_damaged_file_is_set_aside_and_the_gate_is_shut(house):
    house.do("gate", "exempt", "add", LINE[4], "--reason", "kept")
    house.stop()
    kept = house.path / "state/gate/runtime.json"
    kept.write_bytes(kept.read_bytes().replace(b"10.25.0.2", b"10.25.0.3"))
    house.start()
    assert not is_open() and house.json("gate", "exempt", "list") == []
    told = house.events("gate.runtime.damaged")
    assert len(told) == 1 and b"10.25.0.3" in (kept.parent / told[0]["file"]).read_bytes()
    house.do("gate", "exempt", "add", LINE[4], "--reason", "again")
    assert is_open()


def test_what_is_refused_says_why(house):
    for words, why in (
            (["10.25.0.2/24"], "write 10.25.0.0/24 for the network, or 10.25.0.2 for the one address"),
            (["fd25::2/64"], "write fd25::/64 for the network, or fd25::2 for the one address"),
            (["::ffff:10.25.0.2"], "in IPv6 dress"), (["10.25.0.0/33"], "no length from 0 to 32"), (["mail.example.org"], "write it like 192.0.2.7"),
            (["10.0.0.0/7"], "too much for an exemption"), (["fd00::/15"], "too much for an exemption"),
            (["10.25.0.2", "--until", "tomorrow"], "write it like 2026-12-01T00:00:00Z"), (["10.25.0.2", "--until", "2020-01-01T00:00:00Z"], "a time to come"),
            (["10.25.0.2", "--until", "2026-12-01"], "is not a time"), (["10.25.0.2", "--by", ""], "who it is by")):
        assert why in house.refused("gate", "exempt", "add", *words, "--reason", "x"), words
    for words in (["add", "10.25.0.2"], ["add", "10.25.0.2", "--reason"], ["add", "10.25.0.2", "--reason", "x", "--reason", "y"], ["drop"], [],
                  ["remove", "10.25.0.2", "--reason", "x", "--until", "1d"]):
        assert "usage: kidoban gate exempt" in house.refused("gate", "exempt", *words)
    assert "a reason of 1 to 400 octets" in house.refused("gate", "exempt", "add", "10.25.0.2", "--reason", "x" * 401)
    assert "a reason of 1 to 400 octets" in house.refused("gate", "exempt", "add", "10.25.0.2", "--reason", "two\nlines")
    assert "is not exempted" in house.refused("gate", "exempt", "remove", "10.25.0.2", "--reason", "x", status=1)
    house.do("gate", "exempt", "add", "10.25.0.0/24", "--reason", "x")
    assert "but within 10.25.0.0/24" in house.refused("gate", "exempt", "remove", "10.25.0.2", "--reason", "x", status=1)
    assert "no class \"none\"" in house.refused("gate", "mode", "monitor", "--class", "none", "--reason", "x")
    assert "has no mode" in house.refused("gate", "mode", "monitor", "--class", "slow", "--reason", "x")
    assert "enforce or monitor" in house.refused("gate", "mode", "open", "--reason", "x")
    assert "usage: kidoban gate mode" in house.refused("gate", "mode", "monitor")
    assert [d[0] for d in house.deeds()] == ["gate.exempt.add"]


def test_what_cannot_be_saved_is_not_done(house):
    """The folder takes no file: neither the audit log nor the gate says what did not happen."""
    aside = house.path / "state/gate/runtime.json.new"
    aside.mkdir()
    assert "nothing was changed" in house.refused("gate", "exempt", "add", LINE[4], "--reason", "x", status=74)
    assert not is_open() and house.json("gate", "exempt", "list") == []
    aside.rmdir()
    assert [d[0] for d in house.deeds()] == ["gate.exempt.add", "gate.exempt.add failed"]


def test_many_at_once(house):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: house.run("gate", "exempt", "add", f"10.25.0.{n}", "--reason", str(n)), range(1, 25)))
    assert [d.returncode for d in done] == [0] * 24
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: house.run("gate", "exempt", "remove", "10.25.0.7", "--reason", str(n)), range(4)))
    assert sorted(d.returncode for d in done) == [0, 1, 1, 1]
    rows = house.json("gate", "exempt", "list")
    assert sorted(r["prefix"] for r in rows) == sorted(f"10.25.0.{n}/32" for n in range(1, 25) if n != 7)
    assert len({r["id"] for r in rows}) == 23
    assert sorted(r["reason"] for r in house.json("audit") if r["what"] == "gate.exempt.add") == sorted(map(str, range(1, 25)))


def test_a_second_one_replaces_the_first(house):
    house.do("gate", "exempt", "add", LINE[4], "--until", "1h", "--reason", "first")
    assert "in place of" in house.do("gate", "exempt", "add", LINE[4], "--reason", "second")
    assert [(r["reason"], r["until"], r["id"]) for r in house.json("gate", "exempt", "list")] == [("second", None, 2)]


def test_modes(house):
    assert not is_open()
    house.do("gate", "mode", "monitor", "--reason", "a trial", "--by", "the night shift")
    assert is_open()
    modes = {m["class"]: m for m in house.json("gate", "mode")}
    assert set(modes) == {None, "shut", "tried"}
    assert (modes[None]["mode"], modes[None]["from"], modes[None]["by"]) == ("monitor", "run time", "the night shift")
    assert (modes["tried"]["mode"], modes["tried"]["from"]) == ("monitor", "configuration")
    assert house.json("gate", "status")["modes"][0] == modes[None]
    house.do("gate", "mode", "enforce", "--reason", "enough")
    assert not is_open()
    house.do("gate", "mode", "monitor", "--class", "shut", "--reason", "only this")
    assert is_open()
    house.do("reload")  # the file says what it said
    assert "class shut: monitor at run time, since 2" in house.do("gate", "status")
    assert [c["port25"] for c in house.json("gate", "status")["classes"] if c["class"] == "shut"] == ["monitor"]
    assert is_open() and [m["class"] for m in house.json("gate", "mode") if m["from"] == "run time"] == ["shut"]
    house.write(classes=CLASSES.replace("port25: deny", "port25: monitor"))
    house.do("reload")
    house.write()
    house.do("reload")
    assert not is_open() and not [m for m in house.json("gate", "mode") if m["from"] == "run time"]
    deeds = house.deeds()
    assert [d[:3] for d in deeds[:3]] == [("gate.mode", "gate: monitor", "a trial"), ("gate.mode", "gate: enforce", "enough"),
                                          ("gate.mode", "class shut: monitor", "only this")]
    assert [d[0:2] + d[3:4] for d in deeds[3:]] == [("gate.reload", "gate", "kidoband"), ("gate.mode.dropped", "shut", "kidoband"),
                                                   ("gate.reload", "gate", "kidoband")]
    assert deeds[3][2] == "class shut: deny to monitor" and deeds[5][2] == "class shut: monitor to deny"


def test_a_reload_follows_files_and_switches_and_says_so(house):
    ranges = house.path / "ranges"
    ranges.write_text("10.25.0.0/24\nfd25::/64\n")
    house.write(classes=f"\n    - {{name: shut, port25: deny, prefixes_file: {ranges}}}\n")
    house.do("reload")
    assert not is_open()
    ranges.write_text("fd25::/64\n")
    house.do("reload")
    assert is_open() and not is_open(6)
    house.write(classes=f"\n    - {{name: shut, port25: deny, prefixes_file: {ranges}}}\n", more="  inbound: deny\n  dynamic_ranges: [203.0.114.0/24]\n")
    house.do("reload")
    house.do("reload")  # and nothing changed: no line
    assert [d[2] for d in house.deeds()] == ["class tried is gone; class slow is gone", "class shut: 1 prefixes instead of 2",
                                             "inbound: allow to deny; 1 dynamic_ranges instead of 0"]


def test_verbs_see_what_was_changed(house):
    house.do("gate", "exempt", "add", LINE[4], "--until", "1h", "--reason", "asked")
    tested = json.loads(house.run("gate", "test", "--from", LINE[4], "--to", FAR[4], "--json").stdout)
    assert (tested["verdict"], tested["rule"]) == ("pass", "exemption")
    assert tested["kernel"] == {"verdict": "pass", "rule": "exemption", "program": "keeper"}
    assert "10.25.0.2" in house.do("export", "nft")
    assert "10.25.0.2/32; protocol =tcp; destination-port =25; } then { accept; }" in house.do("export", "flowspec")
    house.do("gate", "mode", "monitor", "--reason", "trial")
    assert "announce" not in house.do("export", "flowspec")
    house.stop()
    assert house.run("gate", "test", "--from", LINE[4], "--to", FAR[4]).returncode == 1  # the file alone


