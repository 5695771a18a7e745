"""The lab: its hosts with their programs. Made once, inside tests/world.sh; whoever comes into that world later can use it.

    with Lab() as lab:             makes all of it, and ends it
    Lab()                          the one that is up in this world
"""

import ipaddress
import json
import os
import pathlib
import subprocess
import sys

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
import house  # noqa: E402
import names  # noqa: E402
import net  # noqa: E402
from servers import Postfix, Servers, dovecot_passwords, mailboxes  # noqa: E402

PASSWORD = house.Kidoband.PASSWORD
OURS = [("alice", "alice@example.ne.jp"), ("shop", "*@server.example.ne.jp")]
THEIRS = ["ume"]
LISTEN = "{port} inet n - n - - smtpd\n"


def classes():
    return [{"name": "dynamic", "port25": "deny", "prefixes": net.DYNAMIC},
            {"name": "fixed", "port25": "deny", "prefixes": net.FIXED}]


class Daemon(house.Kidoband):
    """A kidoband of the lab, on the host of its name. Its configuration is as small as it may be."""

    def __init__(self, lab, host, settings):
        self.own = settings
        super().__init__(lab, host, inside=net.inside(host))

    def standard_settings(self):
        return {
            "operator": {"name": "Example Internet", "domains": ["example.ne.jp"], "help_url": "https://mail.example.ne.jp/help"},
            **self.own,
            "processes": {"runtime_directory": f"/run/kidoban-{self.name}", "state_directory": str(self.dir / "state"),
                          "log": {"level": "info", "events": str(self.events_file)}},
        }


class Lab(Servers):
    def __init__(self):
        if "KIDOBAN_WORLD" not in os.environ:
            raise SystemExit("the lab needs a world of its own: lab/up")
        super().__init__(os.environ["KIDOBAN_WORLD"])
        self.mail = Daemon(self, "mail", self.mail_settings())
        self.edge = Daemon(self, "edge", {"gate": {"subscriber_interfaces": ["line-*"], "uplink_interfaces": ["uplink"],
                                                   "classes": classes()}})
        self.boxes = {host: house.Maildir(self.dir / f"post-{host}") for host in ("mail", "other-mail", "mx")}
        self.postfix = {host: Postfix(self.dir / f"postfix-{host}", net.inside(host)) for host in (*self.boxes, "server")}

    def mail_settings(self):
        tls = self.dir / "tls"
        return {
            "submission": {"hostname": "mail.example.ne.jp",
                           "tls": {"certificate": str(tls / "mail.example.ne.jp.pem"), "key": str(tls / "mail.example.ne.jp.key")}},
            "limits": [{"name": "burst", "per": "account", "count": "recipients", "windows": ["20/1h"], "action": "reject"}],
            "spool": {"reserve": "16M", "retry": {"first": "5s", "max": "30s"}},
            "delivery": {"timeouts": {"connect": "5s"}},
        }

    # Making it

    def make(self, told=lambda words: None):
        for words, act in (("wires: 3 networks, 12 hosts and routers, IPv4 and IPv6", lambda: net.make(names.roots())),
                           ("names: a root of its own, signed", self.start_names),
                           ("certificates", self.make_certificates),
                           ("our edge router: the gate", self.start_edge),
                           ("the other provider's edge router: its gate, from kidoban export nft", self.start_other_edge),
                           ("mail servers: Postfix outside, at the other provider, at ours and at a subscriber", self.start_postfixes),
                           ("our mail service: kidoband", self.start_mail)):
            told(words)
            act()

    def __enter__(self):
        self.make()
        return self

    def __exit__(self, *what):
        for daemon in (self.mail, self.edge):
            daemon.__exit__(*what)
        super().__exit__(*what)

    def start_on(self, host, name, *command, port=None):
        process = self.spawn(name, *net.inside(host), *command)
        if port:
            self.wait_for_port(process, name, port)
        return process

    def wait_for_port(self, process, name, port):
        self.until(process, name, lambda: net.listening(process.pid, port), f"{name} on port {port}")

    def start_names(self):
        folder = self.dir / "names"
        names.make(folder)
        subprocess.run(["mount", "--bind", folder / "root.key", names.ROOT_ANCHOR], check=True)
        # tests/world.sh has laid these over the machine's.
        (self.dir / "resolv.conf").write_text(names.resolver())
        (self.dir / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        self.start_on("dns", "nsd", "/usr/sbin/nsd", "-c", folder / "nsd.conf", "-d", port=53)

    def make_certificates(self):
        self.make_authority("Kidoban lab")
        for name in ("mail.example.ne.jp", "mx.example.ne.jp", "mail.example.org", "mx.example.org", "mx.example.com"):
            host, domain = name.split(".", 1)
            self.certificate(name, name, f"{host}4.{domain}", f"{host}6.{domain}")

    def start_edge(self):
        """What it pins is on the bpffs that tests/world.sh has mounted: seen in this world only, and gone with it."""
        self.edge.start()
        for address in net.HOSTS["fixed"][2:]:
            self.edge.run("gate", "exempt", "add", address, "--reason", "has a mail server of their own, and asked")

    def gate_impact(self, host, family, names=False):
        """What `kidoban gate impact` says of that host's line; None when it names none such. names: DNS is asked who the far ends are,
        since companies that share a network are told apart by their names."""
        address = ipaddress.ip_address(net.address(host, family))
        lines = self.edge.json("gate", "impact", *([] if names else ["--no-names"]))["lines"]
        return next((line for line in lines if address in ipaddress.ip_network(line["line"])), None)

    def gate_exempted(self):
        """Packets that our gate has let through by an exemption."""
        return self.edge.json("gate", "status")["reasons"]["exemption"]

    def gate_refused(self):
        """Packets that our gate says it has refused, of the class of dynamic addresses; it refuses no other here."""
        [row] = [c for c in self.edge.json("gate", "status")["classes"] if c["class"] == "dynamic"]
        return row["refused"]

    def start_other_edge(self):
        """No kidoband there: what it exports is loaded into nftables."""
        config = self.dir / "other-edge.yaml"
        config.write_text(yaml.safe_dump({"gate": {
            "subscriber_interfaces": ["line-*"], "uplink_interfaces": ["uplink"],
            "classes": [{"name": "lines", "port25": "deny", "prefixes": net.OTHER_LINES}]}}))
        rules = subprocess.run([house.KIDOBAN, "-c", config, "export", "nft"], check=True, capture_output=True, text=True).stdout
        net.run("other-edge", "nft", "-f", "-", text=rules)

    def other_gate_refused(self):
        """Packets that the other provider's gate has refused."""
        rules = json.loads(net.run("other-edge", "nft", "-j", "list", "table", "inet", "kidoban").stdout)["nftables"]
        return sum(part["counter"]["packets"] for r in rules if r.get("rule", {}).get("comment", "").endswith(": refused")
                   for part in r["rule"]["expr"] if "counter" in part)

    def start_postfixes(self):
        self.make_exchanger("mx", "example.com")
        self.make_exchanger("mail", "example.ne.jp")
        self.make_other_mail()
        self.make_server()
        started = [(self.postfix[host].start(self, f"postfix-{host}"), host) for host in self.postfix]
        for process, host in started:
            if host != "server":
                self.wait_for_port(process, f"postfix-{host}", 25)
            else:
                self.until(process, host, lambda: "daemon started" in self.postfix["server"].log(), "the subscriber's Postfix")
        self.wait_for_port(self.postfix["other-mail"].process, "postfix-other-mail", 587)

    def exchanger(self, host, domain):
        """Settings of one that takes mail for a domain into one mailbox."""
        tls = self.dir / f"tls/mx.{domain}"
        parts = ["v4", "v6", *(net.COMPANIES if host == "mx" else ())]
        return mailboxes(self.boxes[host].path) + f"""\
virtual_mailbox_domains = {", ".join([domain, *(f"{part}.{domain}" for part in parts)])}
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_tls_security_level = may
smtpd_tls_chain_files = {tls}.key, {tls}.pem
smtp_tls_security_level = may
"""

    def make_exchanger(self, host, domain):
        self.postfix[host].make(f"mx.{domain}", LISTEN.format(port=25), self.exchanger(host, domain))

    def make_other_mail(self):
        """The other provider's: a mail exchanger, and submission with AUTH."""
        users = self.dir / "other-users"
        users.write_text("".join(f"{user}:{{PLAIN}}{PASSWORD}::::::\n" for user in THEIRS))
        users.chmod(0o644)
        postfix = self.postfix["other-mail"]
        tls = self.dir / "tls/mail.example.org"
        submission = LISTEN.format(port=587) + f"""\
  -o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=encrypt -o smtpd_tls_chain_files={tls}.key,{tls}.pem
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
"""
        postfix.make("mx.example.org", LISTEN.format(port=25) + submission, self.exchanger("other-mail", "example.org")
                     + "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n")
        home = self.dir / "dovecot"
        (home / "run").mkdir(parents=True)
        socket = dovecot_passwords(home, users, postfix.home / "spool/private/auth")
        (home / "dovecot.conf").write_text(socket + "protocols =\nssl = no\n")
        self.start_on("other-mail", "dovecot", "/usr/sbin/dovecot", "-F", "-c", home / "dovecot.conf")

    def make_server(self):
        """The subscriber's own: first it delivers itself; relay_through() makes it use our submission service."""
        secret = f"inline:{{ {{ [mail4.example.ne.jp]:587=shop:{PASSWORD} }}, {{ [mail6.example.ne.jp]:587=shop:{PASSWORD} }} }}"
        self.postfix["server"].make("server.example.ne.jp", "", f"""\
smtp_sasl_password_maps = {secret}
smtp_sasl_security_options = noanonymous
smtp_tls_CAfile = {self.ca_file}
smtp_tls_security_level = may
""")

    def relay_through(self, host=None):
        """The subscriber's Postfix: through that host on port 587, or directly."""
        through = [f"relayhost=[{host}]:587", "smtp_sasl_auth_enable=yes", "smtp_tls_security_level=verify"] if host else \
            ["relayhost=", "smtp_sasl_auth_enable=no", "smtp_tls_security_level=may"]
        self.postfix["server"].command("postconf", *through, check=True)
        self.postfix["server"].command("postfix", "reload", check=True)

    def start_mail(self):
        self.mail.start()
        for name, identity in OURS:
            self.mail.account_add(name, identity)
