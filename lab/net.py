"""The wires of the lab: hosts and routers, each a network namespace with a host name of its own, and the addresses they have.

All of it is made inside tests/world.sh and belongs to it: the namespaces have names in that world's own /run only, every
interface joins two of them, and no interface, route or setting of the machine is touched.

    ordinary ---+                                  +--- mx   (the outside: a mail exchanger that stands for thousands)
    server   ---|                                  |
    fixed    ---+-- edge (the gate) --- internet --+--- dns  (the root, and everybody's name server)
    infected ---|                           |
    mail     ---+                           +--- other-edge (its own gate) --- other-user, other-mail
"""

import os
import pathlib
import subprocess

ROUTERS = {  # name: its addresses
    "internet": ("192.0.2.1", "2001:db8:300::1"),
    "edge": ("198.51.100.1", "2001:db8:100::1"),
    "other-edge": ("203.0.113.1", "2001:db8:200::1"),
}
LINKS = {  # router: its uplink's far end there, and what is behind it
    "edge": ("to-edge", ("198.51.100.0/24", "2001:db8:100::/40")),
    "other-edge": ("to-other", ("203.0.113.0/24", "2001:db8:200::/40")),
}
HOSTS = {  # name: router, the router's interface towards it, addresses
    "ordinary": ("edge", "line-ordinary", "198.51.100.10", "2001:db8:100:10::10"),
    "server": ("edge", "line-server", "198.51.100.20", "2001:db8:100:20::20"),
    "infected": ("edge", "line-infected", "198.51.100.30", "2001:db8:100:30::30"),
    "fixed": ("edge", "line-fixed", "198.51.100.140", "2001:db8:110:40::40"),
    "mail": ("edge", "servers", "198.51.100.200", "2001:db8:1f0::25"),
    "other-user": ("other-edge", "line-user", "203.0.113.10", "2001:db8:200:10::10"),
    "other-mail": ("other-edge", "servers", "203.0.113.200", "2001:db8:2f0::25"),
    "mx": ("internet", "to-mx", "192.0.2.25", "2001:db8:300::25"),
    "dns": ("internet", "to-dns", "192.0.2.53", "2001:db8:300::53"),
}
# mx answers at all of these: mail servers everywhere, for who tries them.
EVERYWHERE = ("192.0.2.128/25", "2001:db8:300:1::/64")
# Of these, some that have names, each in one family: who runs a mail server writes to many.
COMPANIES = {f"company{n}": f"192.0.2.{199 + n}" if n % 2 else f"2001:db8:300:1::{n:x}" for n in range(1, 17)}
DYNAMIC = ["198.51.100.0/25", "2001:db8:100::/44"]
FIXED = ["198.51.100.128/26", "2001:db8:110::/44"]
OTHER_LINES = ["203.0.113.0/25", "2001:db8:200::/44"]
NAMES = [*ROUTERS, *HOSTS]


def address(host, family):
    """Of a host or router; family: 4 or 6."""
    return (ROUTERS[host] if host in ROUTERS else HOSTS[host][2:])[family == 6]


def inside(name):
    """What to put before a command that runs on that host."""
    return ["nsenter", f"--net=/run/netns/{name}", f"--uts=/run/utsns/{name}"]


def run(name, *argv, text=None, check=True, seconds=120, **options):
    """A command on that host."""
    done = subprocess.run([*inside(name), *map(str, argv)], input=text, capture_output=True, text=True, timeout=seconds,
                          stdin=None if text is not None else subprocess.DEVNULL, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"on {name}: {' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def ip(name, *lines):
    run(name, "ip", "-batch", "-", text="".join(line + "\n" for line in lines))


def make_namespaces():
    for folder in ("netns", "utsns"):
        pathlib.Path("/run", folder).mkdir(exist_ok=True)
    for name in NAMES:
        files = [f"/run/netns/{name}", f"/run/utsns/{name}"]
        for path in files:
            pathlib.Path(path).touch()
        subprocess.run(["unshare", f"--net={files[0]}", f"--uts={files[1]}", "hostname", name], check=True)


def wire(one, one_end, other, other_end):
    subprocess.run(["ip", "link", "add", one_end, "netns", one, "type", "veth", "peer", "name", other_end, "netns", other], check=True)


def settings(name, router):
    """Of the namespace alone. No duplicate address detection: nobody waits for it, and there are no duplicates."""
    values = {"net/ipv6/conf/default/accept_dad": 0, "net/ipv6/conf/all/accept_dad": 0, "net/ipv6/conf/default/accept_ra": 0}
    if router:
        values |= {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
    run(name, "sh", "-c", "".join(f"echo {value} >/proc/sys/{key}\n" for key, value in values.items()))


def make_host(name):
    router, port, v4, v6 = HOSTS[name]
    wire(router, port, name, "eth0")
    gateway = address(router, 4)
    ip(router, f"link set {port} up", f"address add {gateway}/32 dev {port}", f"address add fe80::1/64 dev {port} nodad",
       f"route add {v4}/32 dev {port}", f"route add {v6}/128 via fe80::2 dev {port}")
    ip(name, "link set eth0 up", f"address add {v4}/32 dev eth0", f"address add {v6}/128 dev eth0 nodad",
       "address add fe80::2/64 dev eth0 nodad", f"route add {gateway}/32 dev eth0", f"route add default via {gateway} src {v4}",
       f"route add default via fe80::1 dev eth0 src {v6}")


def make_link(router):
    port, prefixes = LINKS[router]
    wire("internet", port, router, "uplink")
    here, far = address("internet", 4), address(router, 4)
    ip("internet", f"link set {port} up", f"address add {here}/32 dev {port}", f"address add fe80::1/64 dev {port} nodad",
       f"route add {far}/32 dev {port}", f"route add {prefixes[0]} via {far} dev {port} onlink",
       f"route add {prefixes[1]} via fe80::2 dev {port}")
    ip(router, "link set uplink up", f"address add {far}/32 dev uplink", "address add fe80::2/64 dev uplink nodad",
       f"route add {here}/32 dev uplink", f"route add default via {here} dev uplink onlink", "route add default via fe80::1 dev uplink")


def make_everywhere(host, prefixes):
    """What that host is besides its own addresses."""
    port, v4, _ = HOSTS[host][1:]
    ip("internet", *(f"route add {p} via {'fe80::2' if ':' in p else v4} dev {port}" for p in prefixes))
    ip(host, *(f"route add local {p} dev lo" if "/" in p else f"address add {p} dev lo" for p in prefixes))


def make(roots):
    """All wires. roots: addresses at which dns is found besides its own."""
    make_namespaces()
    for name in NAMES:
        settings(name, name in ROUTERS)
        own = [f"address add {a}/{128 if ':' in a else 32} dev lo" for a in ROUTERS.get(name, ())]
        ip(name, "link set lo up", *own)
    for router in LINKS:
        make_link(router)
    for name in HOSTS:
        make_host(name)
    make_everywhere("mx", EVERYWHERE)
    make_everywhere("dns", roots)


def listening(pid, port):
    """Whether somebody listens on that port in the network of that process, in both families."""
    for family in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        if not any(f[1].endswith(f":{port:04X}") and f[3] == "0A" for f in (line.split() for line in lines)):
            return False
    return True


def exists():
    return os.path.exists(f"/run/netns/{NAMES[0]}")
