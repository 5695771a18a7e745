"""Real mail programs send through TLS and AUTH, on 587 and 465, over IPv4 and IPv6; what they sent arrives at Postfix."""

import itertools
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import urllib.parse

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import house  # noqa: E402

SENDER, USER, PASSWORD = "alice@example.org", "alice", house.Kidoband.PASSWORD
NODE_CLIENTS = pathlib.Path(os.environ.get("KIDOBAN_CLIENTS", house.TREE / "build/clients"))
HOSTS = {"IPv4": "mail4.example.org", "IPv6": "mail6.example.org"}
# For those that look up no name in a network that has only a loopback device.
ADDRESSES = {"IPv4": house.MAIL, "IPv6": house.MAIL6}
# What SMTP must hide and bring back: lines of one dot and two, and a long one.
LINES = ["First line.", ".", "..", ".a dot in front", "x" * 900, "Last line."]
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def world():
    with house.World() as w:
        yield w


@pytest.fixture(scope="module")
def kidoban(world):
    with house.Kidoband(world) as k:
        k.account_add(USER, SENDER)
        yield k


class Letter:
    """One message to be sent, and how."""

    def __init__(self, world, folder, port, host, to=None, password=PASSWORD):
        self.world, self.folder, self.port, self.host, self.password = world, folder, port, host, password
        self.tag = f"letter{next(numbers)}"
        self.to = to or f"{self.tag}@post.example"
        self.subject = f"the {self.tag}"
        self.lines = [f"This is {self.tag}."] + LINES
        self.body = "\n".join(self.lines) + "\n"
        self.text = f"From: {SENDER}\nTo: {self.to}\nSubject: {self.subject}\n\n{self.body}"
        self.ca = world.ca_file
        self.implicit = port == 465

    def run(self, *argv, stdin=None, **env):
        """The program's exit status; its words are kept for a failing test to show."""
        env = dict(os.environ, HOME=str(self.folder), LC_ALL="C.UTF-8", **env)
        done = subprocess.run([str(a) for a in argv], input=stdin, text=True, cwd=self.folder, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60 * house.PATIENCE,
                              **({} if stdin is not None else {"stdin": subprocess.DEVNULL}))
        print(done.stdout)
        return done.returncode

    def file(self, name, text, mode=0o600):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path


def swaks(letter):
    # Swaks makes lines and dots itself from what --data has.
    return letter.run("swaks", "--server", letter.host, "--port", letter.port, "--tlsc" if letter.implicit else "--tls",
                      "--tls-verify", "--tls-ca-path", letter.ca, "--auth", "PLAIN", "--auth-user", USER,
                      "--auth-password", letter.password, "--from", SENDER, "--to", letter.to, "--ehlo", "client.example",
                      "-6" if letter.host == HOSTS["IPv6"] else "-4",
                      "--data", "@" + str(letter.file("data", letter.text)))


def curl(letter, *options):
    return letter.run("curl", "-sS", "-v", "--url", f"{'smtps' if letter.implicit else 'smtp'}://{letter.host}:{letter.port}",
                      "--ssl-reqd", "--cacert", letter.ca, "--user", f"{USER}:{letter.password}", "--mail-from", SENDER,
                      "--mail-rcpt", letter.to, "--crlf", "--upload-file", letter.file("data", letter.text), *options)


def msmtp(letter):
    config = letter.file("msmtprc", f"""
account default
host {letter.host}
port {letter.port}
from {SENDER}
domain client.example
tls on
tls_starttls {"off" if letter.implicit else "on"}
tls_trust_file {letter.ca}
auth on
user {USER}
password "{letter.password}"
""")
    return letter.run("msmtp", "-C", config, letter.to, stdin=letter.text)


def mutt(letter):
    config = letter.file("muttrc", f"""
set smtp_url = "{'smtps' if letter.implicit else 'smtp'}://{USER}@{letter.host}:{letter.port}/"
set smtp_pass = "{letter.password}"
set ssl_force_tls = yes
set ssl_starttls = yes
set ssl_ca_certificates_file = "{letter.ca}"
set from = "{SENDER}"
set use_from = yes
set copy = no
set folder = "{letter.folder}"
""")
    return letter.run("mutt", "-n", "-F", config, "-s", letter.subject, "--", letter.to, stdin=letter.body)


def s_nail(letter):
    scheme = "smtps" if letter.implicit else "smtp"
    url = f"{scheme}://{USER}:{urllib.parse.quote(letter.password)}@{letter.host}:{letter.port}"
    return letter.run("s-nail", "-:/", "-S", "v15-compat=yes", "-S", f"mta={url}", "-S", "smtp-auth=plain",
                      *([] if letter.implicit else ["-S", "smtp-use-starttls"]), "-S", f"DEAD={letter.folder}/dead",
                      "-S", f"tls-ca-file={letter.ca}", "-S", "tls-verify=strict", "-S", f"from={SENDER}",
                      "-S", "sendwait", "-S", "hostname=client.example", "-s", letter.subject, letter.to, stdin=letter.body)


NODE_PROGRAM = """
const nodemailer = require("nodemailer");
const { transport, mail } = JSON.parse(require("fs").readFileSync(0, "utf8"));
nodemailer.createTransport(transport).sendMail(mail).then(
    sent => console.log(sent.response),
    error => { console.error(error.message); process.exit(3); });
"""


def nodemailer(letter):
    if not (NODE_CLIENTS / "node_modules/nodemailer").is_dir():
        pytest.fail(f"nodemailer is not in {NODE_CLIENTS}: run ./test clients")
    address = ADDRESSES[next(f for f, h in HOSTS.items() if h == letter.host)]
    transport = {"host": address, "port": letter.port, "secure": letter.implicit, "requireTLS": True,
                 "tls": {"servername": letter.host}, "auth": {"user": USER, "pass": letter.password}}
    mail = {"from": SENDER, "to": letter.to, "subject": letter.subject, "text": letter.body}
    return letter.run("node", letter.file("send.js", NODE_PROGRAM), stdin=json.dumps({"transport": transport, "mail": mail}),
                      NODE_PATH=str(NODE_CLIENTS / "node_modules"), NODE_EXTRA_CA_CERTS=str(letter.ca))


PYTHON_PROGRAM = """
import json, smtplib, ssl, sys
p = json.load(sys.stdin)
context = ssl.create_default_context(cafile=p["ca"])
if p["port"] == 465:
    client = smtplib.SMTP_SSL(p["host"], p["port"], context=context, timeout=30)
else:
    client = smtplib.SMTP(p["host"], p["port"], timeout=30)
    client.starttls(context=context)
try:
    client.login(p["user"], p["password"])
except smtplib.SMTPAuthenticationError as e:
    sys.exit(f"refused: {e}")
client.sendmail(p["sender"], [p["to"]], p["text"])
client.quit()
"""


def python_smtplib(letter):
    given = {"ca": str(letter.ca), "host": letter.host, "port": letter.port, "user": USER, "password": letter.password,
             "sender": SENDER, "to": letter.to, "text": letter.text}
    return letter.run("/usr/bin/python3", letter.file("send.py", PYTHON_PROGRAM), stdin=json.dumps(given))


def git_send_email(letter):
    def git(*words, stdin=None):
        names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                 for what, value in (("NAME", "Alice"), ("EMAIL", SENDER))}
        return letter.run("git", *words, stdin=stdin, GIT_CONFIG_NOSYSTEM="1", **names)

    assert git("init", "-q") == 0
    letter.file("file", "content\n")
    assert git("add", "file") == 0
    assert git("commit", "-q", "-F", "-", stdin=f"{letter.subject}\n\n{letter.body}") == 0
    assert git("format-patch", "-q", "-1", "-o", letter.folder / "patches") == 0
    patch = next((letter.folder / "patches").iterdir())
    # Its own check of the password asks a credential helper on failure; given on the command line there is none.
    return git("send-email", "--confirm=never", "--quiet", f"--smtp-server={letter.host}", f"--smtp-server-port={letter.port}",
               f"--smtp-encryption={'ssl' if letter.implicit else 'tls'}", f"--smtp-user={USER}",
               f"--smtp-pass={letter.password}", f"--smtp-ssl-cert-path={letter.ca}", "--smtp-domain=client.example",
               f"--from=Alice <{SENDER}>", f"--to={letter.to}", "--suppress-cc=all", patch)


CLIENTS = [swaks, curl, msmtp, mutt, s_nail, nodemailer, python_smtplib, git_send_email]


def body_lines(delivered):
    message = delivered.message
    text = message.get_payload(decode=True).decode("utf-8")
    if message.get("Content-Type", "").replace(" ", "").lower().find("format=flowed") >= 0:
        text = re.sub(r"(?m)^ (?=[ >F])", "", text)
    return text.rstrip("\r\n").splitlines()


def check_events(kidoban, letter, id_text):
    """The events of the message are all there, and `kidoban trace` shows them from session to next hop."""
    stored = kidoban.events(event="message.stored", id=id_text)
    assert len(stored) == 1 and stored[0]["account"] == USER and stored[0]["sender"] == SENDER
    # The outcome is written when the next hop has answered, and the mailbox may be quicker.
    sent = house.eventually(lambda: kidoban.events(event="message.delivered", id=id_text), what="message.delivered")
    assert sent[0]["recipient"] == letter.to
    session = stored[0]["session"]
    entered = kidoban.events(event="auth.succeeded", session=session)
    assert len(entered) == 1 and entered[0]["account"] == USER
    closed = house.eventually(lambda: kidoban.events(event="session.closed", session=session), what="session.closed")
    assert closed[0]["service"] == str(letter.port) and closed[0]["tls"].startswith("TLSv1.")
    trace = kidoban.run("trace", id_text).stdout
    for name in ("auth.succeeded", "message.stored", "session.closed", "message.delivered"):
        assert name in trace
    return closed[0]


def id_of(delivered):
    return re.search(rb"by mail\.example\.org \(Kidoban\) with ESMTPSA .*?\bid (\w+)", delivered.octets, re.S)[1].decode()


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize("port", (587, 465))
@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.__name__)
def test_client_sends(world, kidoban, tmp_path, client, port, family):
    letter = Letter(world, tmp_path, port, HOSTS[family])
    assert client(letter) == 0
    mail, = world.post.wait(letter.to)
    assert letter.subject in mail["Subject"] and mail["Message-ID"] and mail["Date"]
    got, more = body_lines(mail)[:len(letter.lines)], body_lines(mail)[len(letter.lines):]
    assert got == letter.lines
    if client is git_send_email:  # what format-patch puts behind the words
        assert more[0] == "---" and "+content" in more
    else:
        assert not more
    closed = check_events(kidoban, letter, id_of(mail))
    assert (":" in closed["address"]) == (family == "IPv6")


@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.__name__)
def test_client_is_refused_with_a_wrong_password(world, kidoban, tmp_path, client):
    # The same wrong password each time: no second guess, so nothing is slowed.
    letter = Letter(world, tmp_path, 587, HOSTS["IPv4"], password="not this one")
    before, stored = len(kidoban.events(event="auth.failed")), len(kidoban.events(event="message.stored"))
    assert client(letter) != 0
    failed = house.eventually(lambda: kidoban.events(event="auth.failed")[before:], what="auth.failed")
    assert {e["account"] for e in failed} == {USER}
    for session in {e["session"] for e in failed}:
        closed = house.eventually(lambda s=session: kidoban.events(event="session.closed", session=s), what="session.closed")
        assert closed[0]["messages"] == 0 and not kidoban.events(event="auth.succeeded", session=session)
    assert len(kidoban.events(event="message.stored")) == stored


@pytest.mark.parametrize("port", (587, 465))
def test_delivery_through_dovecot(world, kidoban, tmp_path, port):
    letter = Letter(world, tmp_path, port, "mail.example.org", to="bob@example.org")
    assert swaks(letter) == 0
    mail = house.eventually(lambda: world.mailbox["bob"].with_subject(letter.subject), what="bob's mail")[0]
    assert body_lines(mail) == letter.lines
    check_events(kidoban, letter, id_of(mail))


@pytest.mark.parametrize("mechanism", ("PLAIN", "LOGIN"))
def test_curl_mechanisms(world, kidoban, tmp_path, mechanism):
    letter = Letter(world, tmp_path, 587, "mail.example.org")
    assert curl(letter, "--login-options", f"AUTH={mechanism}") == 0
    world.post.wait(letter.to)
    assert kidoban.events(event="auth.succeeded", mechanism=mechanism)


@pytest.fixture(scope="module")
def binding(world):
    """A house that offers channel binding as well, on port 1587."""
    listen = [f"{house.MAIL}:1587", f"[{house.MAIL6}]:1587"]
    mechanisms = ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
    with house.Kidoband(world, "binding", {"submission": {"listen": listen, "auth": {"mechanisms": mechanisms}}}) as k:
        k.account_add(USER, SENDER)
        yield k


def gsasl(letter, mechanism, *options):
    """GNU SASL knows nothing of us: proof, server signature and the exporter's binding are its own.

    Its program always has the channel's octets, and its SCRAM without -PLUS (2.2.0) gives up before a first message when
    there are any; --no-cb keeps them away.
    """
    options += ("--no-cb",) if mechanism and mechanism.startswith("SCRAM") and not mechanism.endswith("PLUS") else ()
    mechanism = [f"--mechanism={mechanism}"] if mechanism else []
    return letter.run("gsasl", "--smtp", f"--connect={letter.host}:{letter.port}", "--starttls",
                      f"--x509-ca-file={letter.ca}", *mechanism, f"--authentication-id={USER}",
                      f"--password={letter.password}", "--verbose", *options, stdin="")


def succeeded(kidoban, mechanism):
    return len(kidoban.events(event="auth.succeeded", mechanism=mechanism))


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize("mechanism", ("SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN", "LOGIN"))
def test_gsasl_agrees(world, kidoban, tmp_path, mechanism, family):
    letter = Letter(world, tmp_path, 587, HOSTS[family])
    before = succeeded(kidoban, mechanism)
    assert gsasl(letter, mechanism) == 0
    assert succeeded(kidoban, mechanism) == before + 1


@pytest.mark.parametrize("family", HOSTS)
@pytest.mark.parametrize("mechanism", ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", None), ids=str)
def test_gsasl_binds_where_it_is_offered(world, binding, tmp_path, mechanism, family):
    letter = Letter(world, tmp_path, 1587, HOSTS[family])
    chosen = mechanism or "SCRAM-SHA-256-PLUS"
    before = succeeded(binding, chosen)
    assert gsasl(letter, mechanism) == 0
    assert succeeded(binding, chosen) == before + 1


def test_gsasl_without_binding_where_it_is_offered(world, binding, tmp_path):
    letter = Letter(world, tmp_path, 1587, HOSTS["IPv4"])
    before = succeeded(binding, "SCRAM-SHA-256")
    assert gsasl(letter, "SCRAM-SHA-256") == 0
    assert succeeded(binding, "SCRAM-SHA-256") == before + 1


@pytest.mark.parametrize("mechanism", ("SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN", "LOGIN"))
def test_gsasl_is_refused_with_a_wrong_password(world, kidoban, tmp_path, mechanism):
    letter = Letter(world, tmp_path, 587, HOSTS["IPv4"], password="not this one")
    before = len(kidoban.events(event="auth.succeeded")), len(kidoban.events(event="auth.failed", mechanism=mechanism))
    assert gsasl(letter, mechanism) != 0
    failed = house.eventually(lambda: kidoban.events(event="auth.failed", mechanism=mechanism)[before[1]:], what="auth.failed")
    assert [e["account"] for e in failed] == [USER]
    assert len(kidoban.events(event="auth.succeeded")) == before[0]


def test_gsasl_is_refused_with_a_wrong_password_bound(world, binding, tmp_path):
    letter = Letter(world, tmp_path, 1587, HOSTS["IPv4"], password="not this one")
    before = len(binding.events(event="auth.succeeded"))
    assert gsasl(letter, "SCRAM-SHA-256-PLUS") != 0
    house.eventually(lambda: binding.events(event="auth.failed", mechanism="SCRAM-SHA-256-PLUS"), what="auth.failed")
    assert len(binding.events(event="auth.succeeded")) == before


@pytest.fixture(scope="module")
def certificate(world, kidoban):
    kidoban.run("account", "certificate", "add", USER, world.fingerprint("alice"))
    return world.dir / "tls/alice.pem", world.dir / "tls/alice.key"


@pytest.mark.parametrize("port", (587, 465))
@pytest.mark.parametrize("family", HOSTS)
def test_openssl_external(world, kidoban, tmp_path, certificate, port, family):
    letter = Letter(world, tmp_path, port, HOSTS[family])
    chain, key = certificate
    argv = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", letter.ca, "-cert", chain, "-key", key,
            "-connect", f"[{ADDRESSES[family]}]:{port}" if family == "IPv6" else f"{ADDRESSES[family]}:{port}",
            "-servername", letter.host, "-verify_hostname", letter.host, "-crlf"]
    argv += [] if letter.implicit else ["-starttls", "smtp", "-name", "client.example"]
    commands = [["EHLO client.example"], ["AUTH EXTERNAL ="], [f"MAIL FROM:<{SENDER}>"], [f"RCPT TO:<{letter.to}>"], ["DATA"],
                [("." if line.startswith(".") else "") + line for line in letter.text.splitlines()] + ["."], ["QUIT"]]
    client = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=(tmp_path / "stderr").open("w"), text=True, bufsize=1)
    try:
        if letter.implicit:  # With -starttls, the greeting was the program's own to read.
            read_reply(client, "220")
        for lines, code in zip(commands, ("250", "235", "250", "250", "354", "250", "221")):
            client.stdin.write("\n".join(lines) + "\n")
            read_reply(client, code)
    finally:
        print((tmp_path / "stderr").read_text())
        client.kill()
        client.wait()
    mail, = world.post.wait(letter.to)
    assert body_lines(mail) == letter.lines
    session = kidoban.events(event="message.stored", id=id_of(mail))[0]["session"]
    assert kidoban.events(event="auth.succeeded", session=session)[0]["mechanism"] == "EXTERNAL"


def read_reply(client, code):
    lines = []
    while True:
        line = client.stdout.readline()
        assert line, f"the connection ended after {lines}"
        lines.append(line)
        if line[3:4] == " ":
            assert line.startswith(code), lines
            return lines


def external(client):
    return client.docmd("AUTH", "EXTERNAL =")


@pytest.mark.parametrize("version", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), ids=lambda v: v.name)
@pytest.mark.parametrize("port", (587, 465))
def test_python_external(world, kidoban, certificate, port, version):
    tag = f"letter{next(numbers)}@post.example"
    client = kidoban.connect(port, login=False, context=world.client_context(version, "alice"))
    assert external(client)[0] == 235
    assert kidoban.send(tag, client=client)
    client.quit()
    world.post.wait(tag)


def test_external_without_a_certificate_of_ours(world, kidoban, certificate):
    client = kidoban.connect(login=False)
    assert "EXTERNAL" not in client.esmtp_features["auth"].split()
    assert external(client)[0] in (504, 535)
    client.close()
