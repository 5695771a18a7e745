"""The world that the tests and ./run play in: DNS, certificates, next hops, and kidoband itself.

Everything here runs inside tests/world.sh, as root, with real servers: NSD, Postfix, Dovecot. Nothing is mocked but the
Internet's names. One World is one set of next hops; one Kidoband is one configuration with its daemon.

    with World() as world, Kidoband(world) as kidoban:
        kidoban.account_add("alice", "alice@example.org")
"""

import contextlib
import email
import json
import os
import pathlib
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import threading

import trustme
import yaml

from servers import PATIENCE, SANITIZED, Postfix, Servers, dovecot_passwords, eventually, mailboxes, port_open  # noqa: F401: theirs, too

TREE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
KIDOBAND = BUILD / "src/master/kidoband"
KIDOBAN = BUILD / "src/cli/kidoban"

POSTFIX, SINK, SMARTHOST, DOVECOT, DNS = "127.0.0.25", "127.0.0.26", "127.0.0.27", "127.0.0.28", "127.0.0.53"
POSTFIX6, SINK6 = "fd00::25", "fd00::26"
MAIL, MAIL6 = "127.0.0.1", "fd00::1"

ZONES = {
    "example.org": """
@       IN MX 10 mail.example.org.
mail    IN A 127.0.0.1
        IN AAAA fd00::1
""",
    # Where mail goes. What each name is for stands in its own name.
    "example": f"""
mx.post         IN A {POSTFIX}
                IN AAAA {POSTFIX6}
post            IN MX 10 mx.post
mx4.post        IN A {POSTFIX}
mx6.post        IN AAAA {POSTFIX6}
four            IN MX 10 mx4.post
six             IN MX 10 mx6.post
address         IN A {POSTFIX}
address6        IN AAAA {POSTFIX6}
alias           IN CNAME post
mxalias         IN MX 10 mx.alias
mx.alias        IN CNAME mx4.post
nullmx          IN MX 0 .
deadfirst       IN MX 10 dead
                IN MX 20 mx4.post
dead            IN A 127.0.0.99
down            IN MX 10 dead
nomx            IN TXT "no address, no MX"
loop            IN MX 10 mail.example.org.
mx.sink         IN A {SINK}
                IN AAAA {SINK6}
sink            IN MX 10 mx.sink
smart           IN A {SMARTHOST}
xn--mller-kva   IN MX 10 mx.post
""",
}


class Delivered:
    """One message as Postfix's or Dovecot's last program wrote it to a mailbox."""

    def __init__(self, octets):
        self.octets = octets
        self.message = email.message_from_bytes(octets)
        self.recipients = self.message.get_all("X-Original-To", []) or self.message.get_all("Delivered-To", [])

    def __getitem__(self, name):
        return self.message[name]

    def own_octets(self):
        """The message as it was relayed: without the fields that the next hop and its mailbox put in front."""
        at = self.octets.find(b"Received: ", self.octets.find(b"Received: ") + 1)
        return self.octets[at:] if at >= 0 else self.octets


class Maildir:
    """Files are read once each and kept."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.known = {}
        self.lock = threading.Lock()

    def all(self):
        with self.lock:
            for folder in ("new", "cur"):
                with contextlib.suppress(FileNotFoundError):
                    for entry in os.scandir(self.path / folder):
                        name = entry.name.split(":")[0]
                        if name not in self.known:
                            self.known[name] = Delivered(pathlib.Path(entry.path).read_bytes())
            return list(self.known.values())

    def to(self, part):
        """Messages with a recipient that contains part."""
        return [m for m in self.all() if any(part in r for r in m.recipients)]

    def with_subject(self, part):
        return [m for m in self.all() if part in (m["Subject"] or "")]

    def wait(self, part, count=1, seconds=20):
        return eventually(lambda: (lambda m: m if len(m) >= count else None)(self.to(part)), seconds, f"mail to {part}")


class Sink:
    """A next hop that writes down every command, and answers what it is told: for what real servers do not show.

    `answers` maps the start of a command (or "data": the end of a message) to a reply, or to a function of the command
    that gives one; "250 ..." otherwise.
    """

    def __init__(self, host=SINK, port=25, tls=None):
        self.answers, self.sessions, self.messages, self.tls = {}, [], [], tls
        self.connections = []
        self.lock = threading.Lock()
        self.listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Nobody is there any more, not even on a connection that is kept for the next message."""
        with self.lock:
            ends = [self.listener, *self.connections]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            commands = []
            with self.lock:
                self.sessions.append(commands)
                self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, commands), daemon=True).start()

    def _reply(self, command, default):
        for start, answer in self.answers.items():
            if command.upper().startswith(start.upper()):
                return answer(command) if callable(answer) else answer
        return default

    def _message(self, file):
        lines = []
        for line in file:
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)
        raise ConnectionResetError("the end of data never came")

    def _serve(self, connection, commands):
        with contextlib.suppress(OSError):
            self._dialogue(connection, commands)
        with contextlib.suppress(OSError):
            connection.close()

    def _dialogue(self, connection, commands):
        envelope = {"from": None, "to": []}
        file = connection.makefile("rb")
        connection.sendall(self._reply("connect", "220 mx.sink.example ESMTP").encode() + b"\r\n")
        while line := file.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            commands.append(command)
            verb = command.split(" ")[0].upper()
            if verb == "EHLO":
                offer = ["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"]
                offer += ["STARTTLS"] if self.tls and not isinstance(connection, ssl.SSLSocket) else []
                reply = self._reply(command, "".join(f"250-{w}\r\n" for w in ["mx.sink.example"] + offer) + "250 HELP")
            elif verb == "STARTTLS" and self.tls:
                connection.sendall(b"220 2.0.0 go\r\n")
                connection = self.tls.wrap_socket(connection, server_side=True)
                file = connection.makefile("rb")
                continue
            elif verb == "DATA":
                reply = self._reply(command, "354 go" if envelope["to"] else "503 5.5.1 nobody to send it to")
            else:
                reply = self._reply(command, "221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 OK")
            if reply is None:
                return
            if verb == "MAIL":
                envelope = {"from": command, "to": []}
            elif verb == "RCPT" and reply.startswith("2"):
                envelope["to"].append(command)
            connection.sendall(reply.encode() + b"\r\n")
            if verb == "DATA" and reply.startswith("354"):
                octets = self._message(file)
                reply = self._reply("data", "250 2.0.0 taken")
                if reply is None:
                    return
                with self.lock:  # what is in the list has been answered
                    if reply.startswith("2"):
                        self.messages.append({**envelope, "octets": octets})
                    connection.sendall(reply.encode() + b"\r\n")
            if verb == "QUIT" or reply.startswith("421"):
                return

    def commands(self):
        with self.lock:
            return [c for s in self.sessions for c in s]


class World(Servers):
    """Names, certificates, mailboxes and next hops."""

    def __init__(self, dovecot=True):
        if "KIDOBAN_WORLD" not in os.environ:
            raise SystemExit("this needs a world of its own: tests/world.sh COMMAND...")
        super().__init__(os.environ["KIDOBAN_WORLD"])
        self.with_dovecot = dovecot
        self.post = Maildir(self.dir / "post")
        self.mailbox = {}
        self.mx = Postfix(self.dir / "postfix")

    def __enter__(self):
        self.make_certificates()
        self.start_dns()
        if self.with_dovecot:
            self.start_dovecot()
        self.start_postfix()
        return self

    # Certificates

    def make_certificates(self):
        self.make_authority("Kidoban tests")
        self.other_ca = trustme.CA(organization_name="Somebody else")
        for name in ("mail.example.org", "mail.example.net", "mx.post.example", "smart.example", "mx.sink.example"):
            self.certificate(name, name)
        self.certificate("alice", "alice@example.org")
        self.certificate("stranger", "alice@example.org", ca=self.other_ca)

    def certificate(self, name, *identities, ca=None):
        """Its mail host is known by the names of one family, too."""
        more = ["mail4.example.org", "mail6.example.org"] if name == "mail.example.org" else []
        return super().certificate(name, *identities, *more, ca=ca)

    def client_context(self, version=None, certificate=None):
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if version:
            context.minimum_version = context.maximum_version = version
        if certificate:
            context.load_cert_chain(self.dir / f"tls/{certificate}.pem", self.dir / f"tls/{certificate}.key")
        return context

    def server_context(self, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.dir / f"tls/{name}.pem", self.dir / f"tls/{name}.key")
        return context

    # Servers

    def start_dns(self):
        nsd = self.dir / "nsd"
        nsd.mkdir()
        zones = ""
        for zone, records in ZONES.items():
            (nsd / f"{zone}.zone").write_text(
                f"$TTL 60\n@ IN SOA ns.{zone}. host.{zone}. 1 3600 600 86400 5\n@ IN NS ns.{zone}.\nns IN A {DNS}\n"
                + records)
            zones += f'zone:\n  name: "{zone}"\n  zonefile: "{zone}.zone"\n'
        (nsd / "nsd.conf").write_text(
            f'server:\n  ip-address: {DNS}\n  server-count: 1\n  username: ""\n  zonesdir: "{nsd}"\n'
            f'  pidfile: "{nsd}/nsd.pid"\n  xfrdfile: ""\n  zonelistfile: "{nsd}/zone.list"\n  database: ""\n'
            f'remote-control:\n  control-enable: no\n{zones}')
        self.ready(self.spawn("nsd", "/usr/sbin/nsd", "-c", nsd / "nsd.conf", "-d"), DNS, 53, "nsd")

    USERS = ("alice", "bob", "carol", "dave")

    def start_dovecot(self):
        home = self.dir / "dovecot"
        (home / "run").mkdir(parents=True)
        (home / "mail").mkdir()
        shutil.chown(home / "mail", "kidoban-mailbox", "kidoban-mailbox")
        users = [f"{u}@example.org:{{PLAIN}}mailbox::::::" for u in self.USERS]
        (home / "users").write_text("\n".join(users + ["relay:{PLAIN}relay-secret::::::"]) + "\n")
        (home / "users").chmod(0o644)
        common = dovecot_passwords(home, home / "users", self.dir / "postfix/spool/private/auth")
        (home / "dovecot.conf").write_text(f"""{common}
protocols = lmtp
ssl = no
first_valid_uid = 100
postmaster_address = postmaster@example.org
mail_location = maildir:{home}/mail/%n
mailbox_list_index = no
lmtp_save_to_detail_mailbox = no
recipient_delimiter = +
service lmtp {{
  unix_listener {self.dir}/lmtp.sock {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = {DOVECOT}
    port = 24
  }}
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {home}/users
  override_fields = uid=kidoban-mailbox gid=kidoban-mailbox home={home}/mail/%n
}}
""")
        self.ready(self.spawn("dovecot", "/usr/sbin/dovecot", "-F", "-c", home / "dovecot.conf"), DOVECOT, 24, "dovecot")
        self.mailbox = {u: Maildir(home / "mail" / u) for u in self.USERS}

    def start_postfix(self):
        tls = self.dir / "tls"
        # It asks Dovecot whether a password is right. Without it, kidoband may have all addresses of 587 and 465.
        smarthost = "" if not self.with_dovecot else f"""\
{SMARTHOST}:587 inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_chain_files={tls}/smart.example.key,{tls}/smart.example.pem
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
{SMARTHOST}:465 inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes -o smtpd_tls_wrappermode=yes
  -o smtpd_tls_chain_files={tls}/smart.example.key,{tls}/smart.example.pem
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
"""
        self.mx.make("mx.post.example", f"""\
{POSTFIX}:25 inet n - n - 60 smtpd
[{POSTFIX6}]:25 inet n - n - 60 smtpd
{smarthost}""", mailboxes(self.post.path, "!/^nobody/") + f"""\
virtual_mailbox_domains = static:all
message_size_limit = 104857600
smtpd_recipient_restrictions =
  check_recipient_access regexp:{{
    {{ /^defer/ 450 4.2.1 Come again later }}
    {{ /^refuse/ 550 5.7.1 Not for you }}
  }}
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
header_checks = regexp:{{ {{ /^Subject: refuse me/ REJECT Nobody wants this }} }}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {tls}/mx.post.example.key, {tls}/mx.post.example.pem
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_client_connection_count_limit = 0
smtpd_timeout = 60s
""")
        self.start_postfix_again()

    def start_postfix_again(self):
        postfix = self.mx.start(self, "postfix")
        self.ready(postfix, POSTFIX, 25, "postfix")
        if self.with_dovecot:
            self.ready(postfix, SMARTHOST, 587, "postfix")

    def stop_postfix(self):
        self.mx.stop()
        self.processes.remove(self.mx.process)

    def postfix_queue(self):
        return self.mx.queue()

    def postfix_log(self):
        return self.mx.log()


def merged(base, change):
    """base with what change says; None takes a key away."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    out = {k: v for k, v in base.items() if k not in change}
    for key, value in change.items():
        if value is not None:
            out[key] = merged(base.get(key), value)
    return out


class Kidoband:
    """The daemon with its configuration, accounts and command. `inside` is put before both, as to enter a namespace."""

    PASSWORD = "correct horse battery"

    def __init__(self, world, name="kidoban", settings=None, inside=()):
        self.world, self.name, self.inside = world, name, list(inside)
        self.dir = world.dir / name
        self.dir.mkdir(exist_ok=True)
        self.config_file = self.dir / "kidoban.yaml"
        self.events_file = self.dir / "log/events.jsonl"
        self.settings = merged(self.standard_settings(), settings or {})
        self.process = None
        if not self.config_file.exists():
            self.write_config()

    def standard_settings(self):
        tls = self.world.dir / "tls"
        return {
            "operator": {"name": "Example Internet", "domains": ["example.org"],
                         "help_url": "https://mail.example.org/help"},
            "submission": {
                "hostname": "mail.example.org",
                "listen": ["127.0.0.1:587", "[fd00::1]:587", "127.0.0.1:465", "[fd00::1]:465"],
                "workers": 2,
                "tls": {"certificate": str(tls / "mail.example.org.pem"), "key": str(tls / "mail.example.org.key"),
                        "certificates": [{"certificate": str(tls / "mail.example.net.pem"),
                                          "key": str(tls / "mail.example.net.key")}],
                        "client_ca": str(self.world.ca_file)},
            },
            "accounts": {"workers": 2},
            "limits": [{"name": "daily", "per": "account", "count": "recipients", "windows": ["100000/1d"]}],
            "spool": {"reserve": "16M", "retry": {"first": "1s", "max": "5s"}},
            "delivery": {"workers": 1, "resolver": {"forward": [DNS], "dnssec": False},
                         "timeouts": {"connect": "3s", "command": "20s", "idle": "2s"}},
            "routes": [{"domain": "example.org", "via": "lmtp", "to": f"unix:{self.world.dir}/lmtp.sock"},
                       {"domain": "*", "via": "mx"}],
            "processes": {"runtime_directory": f"/run/{self.name}", "state_directory": str(self.dir / "state"),
                          "log": {"level": "info", "events": str(self.events_file)}},
        }

    def write_config(self, settings=None):
        if settings is not None:
            self.settings = settings
        self.config_file.write_text(yaml.safe_dump(self.settings, default_flow_style=False, sort_keys=False))

    def change(self, **settings):
        self.write_config(merged(self.settings, settings))

    def environment(self):
        env = dict(os.environ, KIDOBAN_CONFIG=str(self.config_file))
        env.setdefault("ASAN_OPTIONS", "abort_on_error=1:detect_leaks=1:strict_string_checks=1")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        return env

    def start(self, wait=True):
        log = open(self.dir / "stderr.log", "ab")
        # A session of its own, as a service has: the scheduler shares by sessions.
        self.process = subprocess.Popen([*self.inside, KIDOBAND, "-c", self.config_file], stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, env=self.environment(), start_new_session=True)
        log.close()
        if wait:
            self.wait_ready()
        return self

    def stderr(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.dir / "stderr.log").read_text("utf-8", "replace")
        return ""

    def wait_ready(self, seconds=20):
        def check():
            if self.process.poll() is not None:
                raise AssertionError(f"kidoband ended with {self.process.returncode}:\n{self.stderr()[-4000:]}")
            status = self.status()
            return status and all(p["state"] == "running" for p in status["processes"])
        eventually(check, seconds, "a running house")

    def stop(self, how=signal.SIGTERM, seconds=20):
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(seconds * PATIENCE)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                if kind is None:
                    raise

    def run(self, *arguments, stdin=None, check=True):
        done = subprocess.run([*self.inside, KIDOBAN, "-c", self.config_file, *[str(a) for a in arguments]], env=self.environment(),
                              input=stdin, capture_output=True, text=True, timeout=60 * PATIENCE,
                              stdin=subprocess.DEVNULL if stdin is None else None)
        if check and done.returncode != 0:
            raise AssertionError(f"kidoban {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}"
                                 f"{done.stderr}")
        return done

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)

    def status(self):
        """The daemon's answer, or None while it has none."""
        done = self.run("status", "--json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None

    def pids(self, role=None):
        return [p["pid"] for p in self.status()["processes"] if role is None or p["role"] == role]

    def account_add(self, name, *identities, password=PASSWORD):
        options = [o for i in identities for o in ("--identity", i)]
        return self.run("account", "add", name, *options, "--password-stdin", stdin=password + "\n")

    def events(self, **fields):
        """Lines of the event file that have these fields; event="a.b", id=..."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.events_file.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if all(event.get(k) == v for k, v in fields.items()):
                        found.append(event)
        return found

    def queue(self):
        return self.json("queue", "list")

    def wait_empty(self, seconds=30):
        try:
            eventually(lambda: not self.queue(), seconds, "an empty queue", 0.2)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.queue()}") from None

    def settle(self, seconds=60):
        """Until nothing is under way, here or at Postfix: what has not arrived then never will."""
        self.wait_empty(seconds)
        eventually(lambda: not self.world.postfix_queue(), seconds, "an empty queue of Postfix", 0.2)

    def connect(self, port=587, host="mail.example.org", login=True, user="alice", password=PASSWORD, source=None,
                context=None, timeout=20):
        """smtplib, through TLS, logged in."""
        context = context or self.world.client_context()
        source = (source, 0) if source else None
        timeout *= PATIENCE
        if port == 465:
            client = smtplib.SMTP_SSL(host, port, "client.example", timeout=timeout, context=context,
                                      source_address=source)
        else:
            client = smtplib.SMTP(host, port, "client.example", timeout=timeout, source_address=source)
            client.starttls(context=context)
        client.ehlo("client.example")
        if login:
            client.login(user, password)
        return client

    def send(self, to, subject="hello", body="a line\r\n", sender="alice@example.org", headers="", client=None,
             mail_options=(), rcpt_options=(), **connection):
        """Sends one message; returns the id that the 250 names, or the reply's words."""
        own = client is None
        client = client or self.connect(**connection)
        to = [to] if isinstance(to, str) else to
        text = f"From: {sender}\r\nTo: {', '.join(to)}\r\nSubject: {subject}\r\n{headers}\r\n{body}"
        code, words = client.mail(sender, list(mail_options))
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, words, sender)
        for recipient in to:
            code, words = client.rcpt(recipient, list(rcpt_options))
            if code != 250:
                raise smtplib.SMTPRecipientsRefused({recipient: (code, words)})
        code, words = client.data(text.encode())
        if code != 250:
            raise smtplib.SMTPDataError(code, words)
        if own:
            client.quit()
        return words.decode()
