"""kidoban export flowspec: announced by a real ExaBGP to a real BIRD, and what BIRD then holds is applied to packets in the order
of RFC 8955, section 5.1: it decides as the reference does."""

import functools
import ipaddress
import os
import re
import subprocess
import time

import pytest
from scapy.all import TCP

from test_gate_export import CLASSES, Export, pairs, tcp

BIRD = """
router id 10.0.0.2;
flow4 table f4;
flow6 table f6;
protocol device {{}}
protocol bgp exa {{
  local 127.0.0.1 port 1790 as 65001;
  neighbor 127.0.0.2 as 65001;
  passive on;
  multihop;
  flow4 {{ table f4; import all; export none; }};
  flow6 {{ table f6; import all; export none; }};
}}
"""
EXABGP = """
process policy {{
  run /bin/sh -c "cat {path}/routes; exec sleep 1000";
  encoder text;
}}
neighbor 127.0.0.1 {{
  router-id 10.0.0.1;
  local-address 127.0.0.2;
  local-as 65001;
  peer-as 65001;
  family {{ ipv4 flow; ipv6 flow; }}
  api {{ processes [ policy ]; }}
}}
"""


def announced(path, text):
    """What BIRD holds once ExaBGP has announced all of the text: rules as dictionaries."""
    (path / "routes").write_text(text)
    (path / "bird.conf").write_text(BIRD.format())
    (path / "exabgp.conf").write_text(EXABGP.format(path=path))
    wanted = sum(line.startswith("announce") for line in text.splitlines())
    env = dict(os.environ, **{"exabgp.tcp.port": "1790", "exabgp.daemon.user": "root", "exabgp.api.ack": "false",
                              "exabgp.api.cli": "false"})
    bird = subprocess.Popen(["bird", "-f", "-c", path / "bird.conf", "-s", path / "ctl"])
    log = open(path / "exabgp.log", "w")
    exabgp = subprocess.Popen(["exabgp", path / "exabgp.conf"], env=env, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        rules = []
        while time.monotonic() < end and len(rules) < wanted:
            time.sleep(0.5)
            rules = held(path)
        assert len(rules) == wanted, (path / "exabgp.log").read_text()[-2000:]
        return rules
    finally:
        for p in (exabgp, bird):
            p.terminate()
            p.wait(30)
        log.close()


def held(path):
    rules = []
    for table in ("f4", "f6"):
        out = subprocess.run(["birdc", "-s", path / "ctl", "show", "route", "table", table, "all"], capture_output=True, text=True)
        for body, rest in re.findall(r"^flow[46] \{ (.*?) \}(.*?)(?=^flow|\Z)", out.stdout, re.M | re.S):
            rule = {"discard": "0x80060000, 0x0" in rest, "v6": table == "f6"}
            for part in body.rstrip("; ").split("; "):
                key, value = part.replace("next header", "proto").split(" ", 1)
                rule[key] = ipaddress.ip_network(value) if key in ("src", "dst") else value.replace(" ", "")
            assert rule.pop("proto") == "6"
            rules.append(rule)
    return rules


# Component types, in their order.
TYPES = ("dst", "src", None, None, "dport", "sport")


def components(rule):
    return [(n, rule[key]) for n, key in enumerate(TYPES) if key in rule]


def order(a, b):
    """Negative: a is applied before b."""
    if a["v6"] != b["v6"]:
        return -1 if b["v6"] else 1
    x, y = components(a), components(b)
    for (t, v), (u, w) in zip(x, y):
        if t != u:
            return t - u
        if v == w:
            continue
        if t > 1:
            return -1 if v < w else 1
        if v.overlaps(w):
            return w.prefixlen - v.prefixlen
        return -1 if v.network_address < w.network_address else 1
    return len(y) - len(x)


def port_is(rule, key, port):
    value = rule.get(key)
    return value is None or (str(port) != value[2:] if value.startswith("!=") else str(port) == value)


def decide(rules, packet):
    ip = packet.getlayer(0)
    source, destination = ipaddress.ip_address(ip.src), ipaddress.ip_address(ip.dst)
    for rule in rules:
        if rule["v6"] == (source.version == 6) and all((
                source in rule.get("src", [source]), destination in rule.get("dst", [destination]),
                port_is(rule, "sport", packet[TCP].sport), port_is(rule, "dport", packet[TCP].dport))):
            return "discard" if rule["discard"] else "pass"
    return "pass"


GATE = "gate:\n  subscriber_interfaces: []\n" + CLASSES


@pytest.mark.parametrize("switches", ["", "  inbound: deny\n", "  return_path: allow\n", "  dynamic_ranges: [203.0.114.0/24, \"2001:db8:cd::/48\"]\n",
                                      "  mode: monitor\n"])
def test_bird_holds_what_decides_as_the_reference(tmp_path, switches):
    e = Export(tmp_path, GATE.replace("gate:\n", "gate:\n" + switches))
    rules = sorted(announced(tmp_path, e.export("flowspec")), key=functools.cmp_to_key(order))
    for side in ("subscriber", "uplink"):
        packets = []
        for line, far in pairs():
            source, destination = (line, far) if side == "subscriber" else (far, line)
            for sport, dport in ((1024, 25), (25, 1024), (1024, 587), (25, 25)):
                packets.append(tcp(source, destination, sport, dport, "A"))
        wrong = [(p.summary(), decide(rules, p), line) for p, line in zip(packets, e.replay(packets, side))
                 if (decide(rules, p) == "pass") != (line["verdict"] == "pass")]
        assert not wrong, (side, len(wrong), wrong[:5])
    assert (len(rules) == 0) == ("monitor" in switches)


def test_rules_are_few(tmp_path):
    """Exceptions are said by the longest match where that is shorter, and neighbours are joined."""
    e = Export(tmp_path, "gate:\n  subscriber_interfaces: []\n  return_path: allow\n  classes:\n"
                         "    - {name: a, port25: deny, prefixes: [10.0.0.0/9, 10.128.0.0/9, \"2001:db8::/32\"]}\n"
                         "    - {name: b, port25: allow, prefixes: [10.7.7.7, \"2001:db8:7::7\"]}\n")
    rules = [line for line in e.export("flowspec").splitlines() if line.startswith("announce")]
    assert len(rules) == 4
    assert "source 10.0.0.0/8; protocol =tcp; destination-port =25; } then { discard; }" in rules[0]
    assert "source 10.7.7.7/32; protocol =tcp; destination-port =25; } then { accept; }" in rules[1]


def test_more_than_routers_hold_is_an_error(tmp_path):
    prefixes = ", ".join(f"10.{n >> 7}.{n % 128 * 2}.0/24" for n in range(2000))
    e = Export(tmp_path, f"gate:\n  subscriber_interfaces: []\n  classes: [{{name: a, port25: deny, prefixes: [{prefixes}]}}]\n")
    assert e.export("flowspec", status=65) == ""
    assert e.export("flowspec", "--budget", "4000").count("announce") == 4000


def test_what_it_cannot_say_is_said(tmp_path):
    e = Export(tmp_path, "gate:\n  subscriber_interfaces: []\n  default: deny\n  tunnel_endpoints: [192.0.2.9]\n  classes:\n"
                         "    - {name: new, port25: rate 5/h, prefixes: [10.0.0.0/8]}\n    - {name: tried, port25: monitor, prefixes: [10.0.0.0/9]}\n")
    text = e.export("flowspec")
    for words in ("default: deny", "tunnel_endpoints", "class c1-new: rate", "class c2-tried: monitor", "refuse_with", "fragments", "source-routed"):
        assert re.search(f"^# not said: .*{words}", text, re.M), words
    assert "announce" not in text
