"""The names of the lab: a signed root and the zones below it, served by one NSD that has the root servers' real addresses.

So kidoband resolves and validates as it does anywhere: from the root, by the built-in addresses, with the trust anchor of
dns-root-data, over which the lab's own lies in this world. Other programs ask the same NSD as their resolver: it has all there is.
"""

import ipaddress
import pathlib
import subprocess

import net

ROOT_HINTS = pathlib.Path("/usr/share/dns/root.hints")
ROOT_ANCHOR = pathlib.Path("/usr/share/dns/root.key")


def both(name, host):
    """name, name4 and name6: in both families, and in one."""
    four, six = net.address(host, 4), net.address(host, 6)
    return f"{name} A {four}\n{name} AAAA {six}\n{name}4 A {four}\n{name}6 AAAA {six}\n"


def mail_of(name):
    """Mail to the domain, and to its parts v4 and v6, whose mail exchanger is there in one family only."""
    return f"@ MX 10 {name}\nv4 MX 10 {name}4\nv6 MX 10 {name}6\n"


def company(name, address):
    """A domain below example.com with a mail exchanger of its own."""
    return f"{name} MX 10 mx.{name}\nmx.{name} {'AAAA' if ':' in address else 'A'} {address}\n"


def reverse(zone, names):
    """PTR records of those addresses that are in the zone."""
    points = [(ipaddress.ip_address(address).reverse_pointer, name) for address, name in names.items()]
    return "".join(f"{pointer}. PTR {name}.\n" for pointer, name in points if pointer.endswith("." + zone))


MAIL_HOSTS = {net.address(host, family): f"mx.{domain}" for family in (4, 6)
              for host, domain in (("mx", "example.com"), ("other-mail", "example.org"), ("mail", "example.ne.jp"))}
MAIL_HOSTS |= {address: f"mx.{name}.example.com" for name, address in net.COMPANIES.items()}

ZONES = {
    # Ours; "server" is the subscriber's own.
    "example.ne.jp": mail_of("mx") + both("mx", "mail") + both("mail", "mail") + both("server", "server"),
    # The other provider.
    "example.org": mail_of("mx") + both("mx", "other-mail") + both("mail", "other-mail"),
    # The outside. Nobody answers for "slow".
    "example.com": mail_of("mx") + both("mx", "mx") + "slow MX 10 nobody\nnobody A 192.0.2.99\n"
    + "".join(company(*pair) for pair in net.COMPANIES.items()),
    **{zone: reverse(zone, MAIL_HOSTS) for zone in ("2.0.192.in-addr.arpa", "113.0.203.in-addr.arpa", "100.51.198.in-addr.arpa",
                                                    "8.b.d.0.1.0.0.2.ip6.arpa")},
    "jp": "",
    "org": "",
    "com": "",
    ".": "",
}


def roots():
    """The addresses of the root servers."""
    rows = [line.split() for line in ROOT_HINTS.read_text().splitlines() if not line.startswith(";")]
    return [row[3] for row in rows if len(row) == 4 and row[2] in ("A", "AAAA")]


def parent(zone):
    return max((z for z in ZONES if z != zone and (z == "." or zone.endswith("." + z))), key=lambda z: len(z.strip(".")))


def text_of(zone, signers):
    """The zone before it is signed; signers: of those below it, made before, their DS records."""
    server = "a.root-servers.net." if zone == "." else "ns.nic." + zone + "."
    here = net.address("dns", 4), net.address("dns", 6)
    if zone == ".":
        own = [a for a in roots() if a in ("198.41.0.4", "2001:503:ba3e::2:30")] or list(here)
    else:
        own = here
    lines = [f"$ORIGIN {zone if zone == '.' else zone + '.'}", "$TTL 300", f"@ SOA {server} hostmaster.example.com. 1 3600 600 86400 60",
             f"@ NS {server}"] + [f"{server} {'AAAA' if ':' in a else 'A'} {a}" for a in own]
    for child in ZONES:
        if child != "." and parent(child) == zone:
            lines.append(f"{child}. NS ns.nic.{child}.")
            lines += [f"ns.nic.{child}. {'AAAA' if ':' in a else 'A'} {a}" for a in here]
            lines.append(signers[child])
    return "\n".join(lines) + "\n" + ZONES[zone]


def sign(folder, zone, signers):
    """One key for all, as small zones have it."""
    def run(*argv):
        return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    name = "root" if zone == "." else zone
    (folder / f"{name}.zone").write_text(text_of(zone, signers))
    key = run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone)
    run("ldns-signzone", "-n", "-o", zone, "-f", f"{name}.signed", f"{name}.zone", key)
    signers[zone] = run("ldns-key2ds", "-n", "-2", f"{key}.key")
    return f'zone:\n  name: "{zone}"\n  zonefile: "{name}.signed"\n'


def make(folder):
    """Signed zones, the configuration of NSD, and root.key, the trust anchor."""
    folder.mkdir()
    signers, zones = {}, ""
    for zone in ZONES:  # those below come first
        zones += sign(folder, zone, signers)
    (folder / "root.key").write_text(signers["."] + "\n")
    (folder / "root.key").chmod(0o644)
    listen = "".join(f"  ip-address: {a}\n" for a in [net.address("dns", 4), net.address("dns", 6), *roots()])
    (folder / "nsd.conf").write_text(
        f'server:\n{listen}  server-count: 1\n  username: ""\n  zonesdir: "{folder}"\n  pidfile: "{folder}/nsd.pid"\n'
        f'  xfrdfile: ""\n  zonelistfile: "{folder}/zone.list"\n  database: ""\nremote-control:\n  control-enable: no\n{zones}')


def resolver():
    """The text of /etc/resolv.conf for every host."""
    return f"nameserver {net.address('dns', 4)}\nnameserver {net.address('dns', 6)}\n"
