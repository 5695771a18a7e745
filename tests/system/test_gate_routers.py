"""kidoban export junos|iosxr|routeros: the filters are read back by a small reader of each language, and what the first matching rule
says of a packet is what the reference says."""

import collections
import ipaddress
import re

import pytest
from scapy.all import TCP, IPv6

from test_gate_export import CLASSES, Export, pairs, tcp

GATE = "gate:\n  subscriber_interfaces: [eth1]\n  uplink_interfaces: [eth0]\n" + CLASSES


class Filters:
    """lists: (name, family) -> networks; chains: (name, family) -> rules of (source, destination, sport, dport, action)."""

    def __init__(self):
        self.lists, self.chains = collections.defaultdict(list), collections.defaultdict(list)

    def add(self, name, family, network):
        self.lists[name, family].append(ipaddress.ip_network(network))

    def decide(self, chain, packet):
        family = 6 if IPv6 in packet else 4
        ends = [ipaddress.ip_address(a) for a in (packet.getlayer(0).src, packet.getlayer(0).dst)]
        for *lists, sport, dport, action in self.chains[chain, family]:
            # A list that is not there would be an error of the router's.
            assert all(name is None or self.lists[name, family] for name in lists), lists
            if all(name is None or any(end in n for n in self.lists[name, family]) for name, end in zip(lists, ends)) and \
                    sport in (None, packet[TCP].sport) and dport in (None, packet[TCP].dport):
                return action
        raise AssertionError("no last rule")


def read_junos(text):
    f, terms = Filters(), {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if m := re.fullmatch(r"set policy-options prefix-list kidoban-(\S+)-([46]) (\S+)", line):
            f.add(m[1], int(m[2]), m[3])
            continue
        m = re.fullmatch(r"set firewall family (inet6?) filter kidoban-(\S+)-([46]) term (\d+) (.*)", line)
        assert m and (m[1] == "inet6") == (m[3] == "6"), line
        term = terms.setdefault((m[2], int(m[3]), int(m[4])), {})
        key, value = re.fullmatch(r"((?:from )?\S+) (.*)", m[5]).groups()
        assert key not in term
        term[key] = value
    name = re.compile(r"kidoban-(\S+)-[46]")
    for (chain, family, _), t in sorted(terms.items()):
        lists = [name.fullmatch(t[k])[1] if k in t else None for k in ("from source-prefix-list", "from destination-prefix-list")]
        if len(t) > 1:
            assert t["from payload-protocol" if family == 6 else "from protocol"] == "tcp"
        ports = [int(t[k]) if k in t else None for k in ("from source-port", "from destination-port")]
        f.chains[chain, family].append((*lists, *ports, t["then"]))
    return f


def read_iosxr(text):
    f, head = Filters(), None
    side = r" (?:any|net-group kidoban-(\S+)-[46])( eq 25)?"
    for line in text.splitlines():
        if line.startswith("!"):
            head = None
        elif m := re.fullmatch(r"(object-group network|access-list)? ?ipv([46])(?: access-list)? kidoban-(\S+)-([46])", line):
            assert m[2] == m[4]
            head = (m[1], m[3], int(m[2]))
        elif head[0]:
            f.add(head[1], head[2], line.strip())
        else:
            m = re.fullmatch(rf" (\d+) (permit|deny) (?:tcp{side}{side}|ipv[46] any any)", line)
            assert m, line
            assert int(m[1]) == 10 * len(f.chains[head[1:]]) + 10
            f.chains[head[1:]].append((m[3], m[5], 25 if m[4] else None, 25 if m[6] else None, m[2]))
    return f


def read_routeros(text):
    f = Filters()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        m = re.fullmatch(r"/ip(v6)? firewall (address-list|filter) add (.*)", line)
        assert m, line
        family = 6 if m[1] else 4
        words = dict(w.split("=", 1) for w in m[3].split())
        if m[2] == "address-list":
            f.add(words["list"].removeprefix("kidoban-"), family, words["address"])
        elif words["chain"] != "forward":
            lists = [words[k].removeprefix("kidoban-") if k in words else None for k in ("src-address-list", "dst-address-list")]
            ports = [int(words[k]) if k in words else None for k in ("src-port", "dst-port")]
            assert len(words) == 2 or words["protocol"] == "tcp"
            f.chains[words["chain"].removeprefix("kidoban-"), family].append((*lists, *ports, words["action"]))
    return f


READERS = {"junos": read_junos, "iosxr": read_iosxr, "routeros": read_routeros}


@pytest.mark.parametrize("target", READERS)
@pytest.mark.parametrize("switches", ["", "  inbound: deny\n  dynamic_ranges: [203.0.114.0/24, \"2001:db8:cd::/48\"]\n", "  default: deny\n",
                                      "  default: deny\n  inbound: deny\n", "  mode: monitor\n  inbound: deny\n", "  return_path: allow\n",
                                      "  default: monitor\n"])
def test_the_first_match_is_the_reference_s(tmp_path, target, switches):
    e = Export(tmp_path, GATE.replace("gate:\n", "gate:\n" + switches))
    filters = READERS[target](e.export(target))
    for side, chain in (("subscriber", "from-lines"), ("uplink", "to-lines")):
        packets = []
        for line, far in pairs():
            source, destination = (line, far) if side == "subscriber" else (far, line)
            packets += [tcp(source, destination, sport, dport, "A") for sport, dport in ((1024, 25), (25, 1024), (1024, 587), (25, 25))]
        wrong = [(p.summary(), filters.decide(chain, p), line) for p, line in zip(packets, e.replay(packets, side))
                 if (filters.decide(chain, p) in ("accept", "permit", "return")) != (line["verdict"] == "pass")]
        assert not wrong, (side, len(wrong), wrong[:5])


@pytest.mark.parametrize("refuse_with, words", [
    ("tcp-reset", {"junos": "then reject tcp-reset", "routeros": "action=reject reject-with=tcp-reset"}),
    ("icmp-prohibited", {"junos": "then reject administratively-prohibited", "routeros": "action=reject reject-with=icmp-admin-prohibited"}),
    ("drop", {"junos": "then discard", "routeros": "dst-port=25 action=drop"})])
def test_how_a_refusal_is_said(tmp_path, refuse_with, words):
    e = Export(tmp_path, GATE.replace("gate:\n", f"gate:\n  refuse_with: {refuse_with}\n"))
    for target, right in words.items():
        assert right in e.export(target)
    assert "! not said: refuse_with" in e.export("iosxr")


def test_what_they_cannot_say_is_said(tmp_path):
    e = Export(tmp_path, "gate:\n  subscriber_interfaces: [\"tap*\"]\n  tunnel_endpoints: [192.0.2.9]\n  classes:\n"
                         "    - {name: new, port25: rate 5/h, prefixes: [10.0.0.0/8]}\n    - {name: tried, port25: monitor, prefixes: [10.0.0.0/9]}\n")
    for target, comment in (("junos", "#"), ("iosxr", "!"), ("routeros", "#")):
        text = e.export(target)
        for words in ("tunnel_endpoints", "class c1-new: rate", "class c2-tried: monitor", "fragments", "source-routed"):
            assert re.search(f"^{comment} not said: .*{words}", text, re.M), (target, words)
    assert "# not said: interfaces tap*" in e.export("routeros")
