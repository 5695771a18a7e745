"""What the gate saw, told to the operator: real senders of three kinds over namespaces, and a flood of forged sources."""

import csv
import datetime
import io
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import textwrap
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from house import KIDOBAN, KIDOBAND, PATIENCE, eventually, port_open  # noqa: E402

PROGRAM, SERVER, BOT, FIXED = "198.51.100.10", "198.51.100.20", "198.51.100.30", "198.51.100.200"
PROGRAM6 = "2001:db8:100::10"
FORGED = 300000  # more than the kernel remembers

CONFIG = """
gate:
  subscriber_interfaces: [lan]
  uplink_interfaces: [wan]
  mode: {mode}
  default: deny
  return_path: allow
  resets_per_second: 100000
  pins: {pins}
  history: {{retention: 3d, lines: 1000}}
  classes:
    - {{name: dynamic, port25: deny, prefixes: [198.51.100.0/25, "2001:db8:100::/40"]}}
    - {{name: fixed, port25: allow, prefixes: [198.51.100.128/25]}}
operator: {{help_url: "https://help.example.net/"}}
delivery: {{resolver: {{forward: ["203.0.113.53"]}}}}
processes: {{runtime_directory: {path}/run, state_directory: {path}/state, log: {{events: {path}/log/events.jsonl}}}}
"""

# Listens on port 25 of every address it has.
OUTSIDE = textwrap.dedent("""
    import selectors, socket
    all_of_them = selectors.DefaultSelector()
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        s = socket.socket(family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, 25))
        s.listen(1024)
        all_of_them.register(s, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in all_of_them.select(): key.fileobj.accept()[0].close()
""")

# "source destination..." a line on standard input; one connection to each; prints how many were made.
SEND = textwrap.dedent("""
    import socket, sys
    made = 0
    for line in sys.stdin:
        source, *destinations = line.split()
        for to in destinations:
            s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
            s.settimeout(60)
            s.bind((source, 0))
            try: s.connect((to, 25)); made += 1
            except ConnectionRefusedError: pass
            s.close()
    print(made)
""")


def ip(command):
    subprocess.run(["ip", "-batch", "-"], input=textwrap.dedent(command), text=True, check=True)


def within(namespace, *command):
    return ["ip", "netns", "exec", namespace, *command]


class House:
    """The world is the router; `lines` has the senders, `outside` the mail servers of everywhere."""

    def __init__(self, path):
        self.path, self.config = path, path / "kidoban.yaml"
        self.pins = pathlib.Path("/sys/fs/bpf") / path.name.replace(".", "-")
        self.daemon = self.listener = None
        for parent in [path, *path.parents[:2]]:
            parent.chmod(0o755)
        (path / "state").mkdir(mode=0o755)
        self.network()
        self.listener = subprocess.Popen(within("outside", sys.executable, "-c", OUTSIDE), stdout=subprocess.PIPE, text=True)
        assert self.listener.stdout.readline() == "ready\n"
        self.mode("monitor")
        self.start()

    def network(self):
        ip(f"""\
            netns add lines
            netns add outside
            link add lan type veth peer name line0 netns lines
            link add wan type veth peer name host0 netns outside
            address add 198.51.100.1/24 dev lan
            address add 2001:db8:100::1/64 dev lan nodad
            address add 10.9.0.1/24 dev wan
            address add fd09::1/64 dev wan nodad
            link set lan up
            link set wan up
            route add 203.0.113.0/24 via 10.9.0.2
            route add 100.64.0.0/16 via 10.9.0.2
            route add 198.18.0.0/15 dev lan
            route add 2001:db8:80::/48 via fd09::2
        """)
        for name, device, lines in (
                ("lines", "line0", [f"address add {a}/24 dev line0" for a in (PROGRAM, SERVER, BOT, FIXED)] +
                 [f"address add {PROGRAM6}/64 dev line0 nodad", "route add default via 198.51.100.1", "route add default via 2001:db8:100::1"]),
                ("outside", "host0", ["address add 10.9.0.2/24 dev host0", "address add fd09::2/64 dev host0 nodad", "route add local 203.0.113.0/24 dev lo", "route add local 100.64.0.0/16 dev lo",
                                   "route add local 2001:db8:80::/48 dev lo", "route add default via 10.9.0.1", "route add default via fd09::1"])):
            up = ["link set lo up", f"link set {device} up"]
            subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(up + lines), text=True, check=True)
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0"):
            subprocess.run(["sysctl", "-qw", setting], check=True)

    def mode(self, mode):
        self.config.write_text(CONFIG.format(mode=mode, path=self.path, pins=self.pins))

    def start(self):
        self.daemon = subprocess.Popen([KIDOBAND, "--config", self.config])
        eventually(lambda: self.run("gate", "status").returncode == 0, 60 * PATIENCE, "the keeper")

    def stop(self):
        self.daemon.terminate()
        assert self.daemon.wait(60 * PATIENCE) == 0

    def run(self, *arguments):
        return subprocess.run([KIDOBAN, "-c", self.config, *arguments], capture_output=True, text=True, timeout=60 * PATIENCE)

    def send(self, *senders):
        """How many connections were made, of all."""
        done = subprocess.run(within("lines", sys.executable, "-c", SEND), input="\n".join(senders), capture_output=True, text=True, check=True)
        return int(done.stdout)

    def impact(self):
        done = self.run("gate", "impact", "--json", "--no-names")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        return {line["line"]: line for line in report["lines"]}, report

    def keeper(self):
        processes = json.loads(self.run("status", "--json").stdout)["processes"]
        return next(p["pid"] for p in processes if p["role"] == "gate")

    def events(self, name):
        lines = (self.path / "log/events.jsonl").read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["event"] == name]

    def end(self):
        for process in (self.daemon, self.listener):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(60 * PATIENCE)
        for name in ("lines", "outside"):
            subprocess.run(["ip", "netns", "delete", name], check=False)
        for name in ("lan", "wan"):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        shutil.rmtree(self.pins, ignore_errors=True)


@pytest.fixture
def house(tmp_path):
    made = House.__new__(House)
    made.daemon = made.listener = None
    try:
        made.__init__(tmp_path)
        yield made
    finally:
        made.end()


def everybody():
    many = [f"100.64.{i}.25" for i in range(1, 251)]
    return [f"{PROGRAM} " + " ".join(["203.0.113.5"] * 5), f"{PROGRAM6} " + " ".join(["2001:db8:80::5"] * 5),
            f"{SERVER} " + " ".join(many[10:90:10] * 3), f"{BOT} " + " ".join(many), f"{FIXED} 203.0.113.5"]


def test_impact(house):
    """Monitored, all get through, and the report says who would not; enforced, none does, and the report goes on over kills."""
    assert house.send(*everybody()) == 5 + 5 + 24 + 250 + 1
    lines, report = house.impact()
    assert set(lines) == {PROGRAM, SERVER, BOT, "2001:db8:100::/64"}
    kinds = {name: (line["kind"], line["noted_connections"], line["refused_connections"], line["class"]) for name, line in lines.items()}
    assert kinds == {PROGRAM: ("mail-program", 5, 0, "dynamic"), "2001:db8:100::/64": ("mail-program", 5, 0, "dynamic"),
                     SERVER: ("mail-server", 24, 0, "dynamic"), BOT: ("bot", 250, 0, "dynamic")}
    assert lines[SERVER]["destinations"] in range(7, 10) and lines[BOT]["destinations"] in range(180, 330)
    assert [(f["address"], f["network"]) for f in lines[PROGRAM]["to"]] == [("203.0.113.5", "203.0.113.0/24")]
    assert [f["address"] for f in lines["2001:db8:100::/64"]["to"]] == ["2001:db8:80::5"]
    assert all(line["why"] and line["first"] <= line["last"] for line in lines.values())
    assert set(report["notices"]) == {"mail-program", "mail-server", "bot"} and all("https://help.example.net/" in n for n in report["notices"].values())

    house.mode("enforce")
    assert house.run("reload").returncode == 0
    assert house.send(*everybody()) == 1
    before = house.keeper()
    os.kill(before, 9)
    assert house.send(*everybody()) == 1  # with the keeper dead, or hardly born
    eventually(lambda: house.run("gate", "status").returncode == 0 and house.keeper() not in (0, before), 60 * PATIENCE, "another keeper")
    house.stop()
    lines, _ = house.impact()  # with the daemon down
    counts = {name: (line["noted_connections"], line["refused_connections"]) for name, line in lines.items()}
    assert counts == {PROGRAM: (5, 10), "2001:db8:100::/64": (5, 10), SERVER: (24, 48), BOT: (250, 500)}


def test_forms(house):
    """Text in both languages, CSV, the live list, the events."""
    nothing = house.run("gate", "impact", "--no-names", "--lang", "en")
    assert nothing.returncode == 0 and "nothing was refused" in nothing.stdout
    assert "nobody" in house.run("gate", "top", "--once").stdout
    house.send(*everybody())
    words = house.run("gate", "impact", "--lang", "en", "--no-names").stdout
    for part in (f"{BOT}: bot", f"{SERVER}: mail server", "many destinations: about", "587", "exemption", "disconnect"):
        assert part.lower() in words.lower()
    assert max(map(len, words.split("\n\n")[1].splitlines())) <= 80
    japanese = house.run("gate", "impact", "--lang", "ja", "--no-names").stdout
    assert f"{BOT}: ボット" in japanese and "迷惑メール" in japanese and "587" in japanese
    rows = list(csv.DictReader(io.StringIO(house.run("gate", "impact", "--csv", "--no-names").stdout)))
    assert {(r["line"], r["kind"], r["noted_connections"]) for r in rows} >= {(BOT, "bot", "250"), (PROGRAM, "mail-program", "5")}
    named = house.run("gate", "impact", "--json")  # whom it asks does not answer: it says so after a while, without names
    assert named.returncode == 0 and json.loads(named.stdout)["lines"][0]["to"][0]["name"] is None
    top = json.loads(house.run("gate", "top", "--json").stdout)
    assert {(t["address"], t["class"], t["would"], t["verdict"]) for t in top} >= {(BOT, "dynamic", "refuse", "pass")}
    assert next(t for t in top if t["address"] == BOT)["connections"] == 250
    shown = house.run("gate", "top", "--once").stdout
    assert BOT in shown and "noted" in shown
    eventually(lambda: {e["address"] for e in house.events("gate.refused")} >= {PROGRAM, SERVER, BOT}, 60 * PATIENCE, "events")
    told = next(e for e in house.events("gate.refused") if e["address"] == PROGRAM)
    assert (told["class"], told["verdict"], told["would"], told["rule"], told["side"], told["interface"], told["far"], told["port"]) == (
        "dynamic", "pass", "refuse", "class", "subscriber", "lan", "203.0.113.5", 25)
    assert len(house.events("gate.refused")) <= 8  # lines are told, not packets


LONG = ".".join(["x" * 60] * 3) + ".example.net"
ZONES = {  # of NSD, outside: who is confirmed forward, who lies, and names that terminals and spreadsheets would obey
    "113.0.203.in-addr.arpa": "5 PTR mx.example.net.\n",
    "64.100.in-addr.arpa": f"25.10 PTR liar.example.net.\n25.20 PTR \\027[2Jred.example.net.\n25.30 PTR {LONG}.\n25.40 PTR .\n",
    "8.b.d.0.1.0.0.2.ip6.arpa": f"{'.'.join(f'{0x80:04x}{0:016x}{5:04x}'[::-1])} PTR -2-3.example.co.jp.\n",
    "example.net": f"@ MX 10 mx\nmx A 203.0.113.5\nliar A 203.0.113.6\n{LONG}. A 100.64.30.25\n",
    "example.co.jp": "@ MX 10 -2-3\n-2-3 AAAA 2001:db8:80::5\n",
}


@pytest.fixture
def names(house):
    home = house.path / "nsd"
    home.mkdir()
    text = (f'server:\n  ip-address: 203.0.113.53\n  server-count: 1\n  username: ""\n  zonesdir: "{home}"\n  pidfile: "{home}/pid"\n'
            f'  xfrdfile: ""\n  zonelistfile: "{home}/zone.list"\n  database: ""\nremote-control:\n  control-enable: no\n')
    for zone, records in ZONES.items():
        (home / zone).write_text(f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns.example.net. host.example.net. 1 3600 600 86400 5\n@ NS ns.example.net.\n{records}")
        text += f'zone:\n  name: "{zone}"\n  zonefile: "{zone}"\n'
    (home / "conf").write_text(text)
    with open(home / "log", "wb") as log:
        nsd = subprocess.Popen(within("outside", "/usr/sbin/nsd", "-d", "-c", home / "conf"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: port_open("203.0.113.53", 53), 60 * PATIENCE, "NSD")
        yield
    finally:
        nsd.terminate()
        nsd.wait(60 * PATIENCE)


def test_names(house, names):
    """Names of far ends from a real name server: only those that DNS confirms, and none that does harm where it is shown."""
    others = {f"198.51.100.{i + 1}": f"100.64.{i}.25" for i in (10, 20, 30, 40)}  # a line each: of one, not every far end is told at once
    subprocess.run(["ip", "-n", "lines", "-batch", "-"], input="".join(f"address add {a}/24 dev line0\n" for a in others), text=True, check=True)
    house.send(f"{PROGRAM} 203.0.113.5", f"{PROGRAM6} 2001:db8:80::5", *(f"{line} {to}" for line, to in others.items()))
    report = json.loads(house.run("gate", "impact", "--json").stdout)
    found = {far["address"]: (far["name"], far["mx_of"]) for line in report["lines"] for far in line["to"]}
    assert found == {"203.0.113.5": ("mx.example.net", "example.net"), "2001:db8:80::5": ("-2-3.example.co.jp", "example.co.jp"),
                     "100.64.10.25": (None, None), "100.64.20.25": (None, None), "100.64.30.25": (LONG, None), "100.64.40.25": (None, None)}
    unnamed = json.loads(house.run("gate", "impact", "--json", "--no-names").stdout)
    assert {far["name"] for line in unnamed["lines"] for far in line["to"]} == {None}
    shown = house.run("gate", "impact", "--lang", "en").stdout
    assert "mx.example.net (mail host of example.net) 1x" in shown and LONG in shown and "liar" not in shown and "\x1b" not in shown
    assert "mx.example.net (MX: example.net) 1x" in house.run("gate", "impact", "--lang", "ja").stdout
    rows = {r["line"]: r["to"] for r in csv.DictReader(io.StringIO(house.run("gate", "impact", "--csv", "--lang", "en").stdout, newline=""))}
    assert rows["2001:db8:100::/64"] == "'-2-3.example.co.jp (mail host of example.co.jp) 1x"  # no formula
    assert rows[PROGRAM] == "mx.example.net (mail host of example.net) 1x"


def test_days(house):
    """Days beside one another: those asked for, those that are damaged, and what is no file."""
    house.send(f"{PROGRAM} 203.0.113.5")
    lines, report = house.impact()
    assert set(lines) == {PROGRAM} and report["days_damaged"] == 0
    house.stop()
    today, state = datetime.datetime.now(datetime.timezone.utc).date(), house.path / "state/gate"
    day = [state / f"day-{today - datetime.timedelta(n)}" for n in range(5)]
    whole = day[0].read_bytes() if day[0].exists() else (state / f"day-{report['to']}").read_bytes()
    os.mkfifo(day[1])
    day[2].symlink_to("/etc/passwd")
    day[3].write_bytes(whole[:-1] + b"?")
    day[4].mkdir()
    for days, damaged in ((1, 0), (2, 1), (3, 2), (5, 4)):
        done = house.run("gate", "impact", "--no-names", "--json", "--days", str(days))
        assert (done.returncode, json.loads(done.stdout)["days_damaged"]) == (0, damaged), (days, done.stderr)
    shown = house.run("gate", "impact", "--no-names", "--days", "5", "--lang", "en").stdout
    assert "days that could not be read: 4" in shown and PROGRAM in shown
    assert "読めなかった日: 4" in house.run("gate", "impact", "--no-names", "--days", "5", "--lang", "ja").stdout
    for wrong in (["--days", "0"], ["--days", "3661"], ["--days", "x"], ["--days"], ["--lang", "fr"], ["--count", "-1"], ["more"]):
        assert house.run("gate", "impact", *wrong).returncode == 64, wrong


def forged_frames(mac, router, count):
    head = mac + router + b"\x08\x00"
    tcp = struct.pack("!HHIIBBHHH", 40000, 25, 1, 0, 5 << 4, 2, 65535, 0, 0)
    for i in range(count):
        source = struct.pack("!I", (198 << 24 | 18 << 16) + i)
        packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, i & 0xFFFF, 0, 64, 6, 0, source, bytes([203, 0, 113, i % 250 + 1]))
        total = sum(struct.unpack("!10H", packet))
        total = (total & 0xFFFF) + (total >> 16)
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        yield head + packet[:10] + struct.pack("!H", total) + packet[12:] + tcp


FLOOD = textwrap.dedent("""
    import socket, sys
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("line0", 0))
    frames = sys.stdin.buffer.read()
    for i in range(0, len(frames), 54):
        while True:
            try: s.send(frames[i:i + 54]); break
            except OSError: pass
""")


def mac_of(namespace, device):
    shown = subprocess.run(["ip", *(["-n", namespace] if namespace else []), "-j", "link", "show", device], capture_output=True, text=True, check=True)
    return bytes.fromhex(json.loads(shown.stdout)[0]["address"].replace(":", ""))


def memory_kib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_flood(house):
    """More forged sources than the kernel remembers: verdicts, memory and log keep their bounds, and who is real stands out."""
    house.mode("enforce")
    assert house.run("reload").returncode == 0
    keeper = house.keeper()
    before, began = memory_kib(keeper), time.monotonic()
    frames = b"".join(forged_frames(mac_of("lines", "line0"), mac_of("", "lan"), FORGED))
    flood = subprocess.Popen(within("lines", sys.executable, "-c", FLOOD), stdin=subprocess.PIPE)
    flood.stdin.write(frames)
    flood.stdin.close()
    rounds = 0
    while flood.poll() is None or rounds == 0:
        assert house.send(f"{BOT} 203.0.113.7 203.0.113.8", f"{FIXED} 203.0.113.7") == 1
        rounds += 1
    assert flood.returncode == 0
    lines, report = house.impact()
    assert house.keeper() == keeper and memory_kib(keeper) - before < 64 * 1024
    assert lines[BOT]["refused_connections"] >= rounds  # the kernel may have forgotten it once, between two readings
    assert len(lines) == 1000 and report["rest"]["lines"] > 1000
    turns = (time.monotonic() - began) / 10 + 2
    assert len(house.events("gate.refused")) <= 100 * turns
    eventually(lambda: house.events("gate.refused.more"), 60 * PATIENCE, "the number of the others")
    files = list((house.path / "state/gate").glob("day-*"))
    assert len(files) == 1 and files[0].stat().st_size < 2 << 20
