"""The deliver process alone: a harness plays master and spool; NSD, a badly behaved SMTP sink and Postfix play the world.

All of it in a network namespace of its own. KIDOBAN_DELIVER_HARNESS names the harness (built as src/deliver/deliver_harness).
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest

TREE = pathlib.Path(__file__).resolve().parents[2]
HARNESS = os.environ.get("KIDOBAN_DELIVER_HARNESS", "")
NETNS = f"kdeliver{os.getpid()}"

ZONE = """
$ORIGIN test.
$TTL 300
@ IN SOA ns.test. hostmaster.test. 1 3600 600 86400 60
@ IN NS ns.test.
ns IN A 127.0.0.53
good IN MX 10 mx11
both IN MX 10 mxboth
mxboth IN A 127.0.0.11
mxboth IN AAAA fd00::11
implicit IN A 127.0.0.11
alias IN CNAME good.test.
null IN MX 0 .
noaddr IN TXT "nothing here"
noaddress IN MX 10 nowhere
busy IN MX 10 mx12
busythengood IN MX 10 mx12
busythengood IN MX 20 mx11
refusedthengood IN MX 10 mx29
refusedthengood IN MX 20 mx11
nomail IN MX 10 mx25
notlsgood IN MX 10 mx14
tls IN MX 10 mx15
tlsmust IN MX 10 mx11
tlsverify IN MX 10 mx15
tlsverified IN MX 10 mx15
dropmail IN MX 10 mx16
dropdot IN MX 10 mx17
two IN MX 10 mx18
dropafter IN MX 10 mx19
serial IN MX 10 mx20
slow IN MX 10 mx22
mail421 IN MX 10 mx23
noutf8 IN MX 10 mx24
rcptmax IN MX 10 mx26
silent IN MX 10 mx27
nodsn IN MX 10 mx28
again13 IN MX 10 mx31
verified13 IN MX 10 mx31
again12 IN MX 10 mx32
verified12 IN MX 10 mx32
forgets IN MX 10 mx33
loop IN MX 10 us
loopthengood IN MX 10 mx11
loopthengood IN MX 20 us
us IN A 127.0.0.99
dead IN MX 10 mx29
postfix IN MX 10 mx30
""" + "".join(f"mx{n} IN A 127.0.0.{n}\n" for n in range(11, 34))


def in_netns(*argv, **kw):
    return subprocess.Popen(["ip", "netns", "exec", NETNS, *argv], **kw)


def run_ns(*argv):
    subprocess.run(["ip", "netns", "exec", NETNS, *argv], check=True)


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        r = what()
        if r:
            return r
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def world():
    if os.geteuid() != 0 or not HARNESS or not shutil.which("nsd"):
        pytest.skip("needs root, nsd and KIDOBAN_DELIVER_HARNESS")
    import trustme
    d = pathlib.Path(tempfile.mkdtemp(prefix="kidoban-deliver."))  # pytest's own folders are closed to Postfix's user
    os.chmod(d, 0o755)
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    started = []
    try:
        run_ns("ip", "link", "set", "lo", "up")
        run_ns("ip", "addr", "add", "fd00::11/128", "dev", "lo", "nodad")
        run_ns("ip", "addr", "add", "127.0.0.30/32", "dev", "lo")  # Postfix wants to see it there
        run_ns("sysctl", "-q", "net.ipv4.ip_unprivileged_port_start=0")
        (d / "zone").write_text(ZONE)
        (d / "nsd.conf").write_text(f"""
server:
  ip-address: 127.0.0.53@5353
  username: ""
  chroot: ""
  zonesdir: "{d}"
  pidfile: "{d}/nsd.pid"
  database: ""
  zonelistfile: "{d}/nsd.list"
  xfrdfile: "{d}/nsd.xfrd"
remote-control:
  control-enable: no
zone:
  name: test
  zonefile: "{d}/zone"
""")
        started.append(in_netns("nsd", "-d", "-c", str(d / "nsd.conf"), stderr=open(d / "nsd.err", "w")))
        ca = trustme.CA()
        cert = ca.issue_cert("mx15.test", "mx21.test", "mx31.test", "mx32.test")
        pem = d / "sink.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(str(pem))
        ca.cert_pem.write_to_path(str(d / "ca.pem"))
        sink = in_netns(sys.executable, str(TREE / "tests/bad_sink.py"), str(d / "sink.log"), str(pem), str(d / "lmtp.sock"),
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(sink)
        assert sink.stdout.readline() == "ready\n"
        yield d
    finally:
        for p in started:
            p.terminate()
            p.wait(10)
        subprocess.run(["ip", "netns", "delete", NETNS])
        shutil.rmtree(d, ignore_errors=True)


def config(d, routes="", delivery="", name="kidoban.yaml"):
    f = d / name
    f.write_text(f"""
submission:
  hostname: us.test
  tls: {{certificate: /nowhere/cert.pem, key: /nowhere/key.pem}}
  listen: ["[::]:587"]
delivery:
  resolver: {{forward: ["127.0.0.53@5353"], dnssec: false}}
  timeouts: {{connect: 2s, command: 5s, data: 5s, idle: 2s}}
{delivery}
routes:
{routes}
  - {{domain: "*", via: mx}}
""")
    return f


class Deliver:
    def __init__(self, path):
        self.p = in_netns(HARNESS, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.heard, self.new = [], threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()
        self.wait(lambda e: e["event"] == "ready")

    def listen(self):
        for line in self.p.stdout:
            with self.new:
                self.heard.append(json.loads(line))
                self.new.notify_all()

    def tell(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()

    def wait(self, pick, count=1, seconds=60):
        with self.new:
            assert self.new.wait_for(lambda: len([e for e in self.heard if pick(e)]) >= count, seconds), \
                [e for e in self.heard if e["event"] != "outcome"] + self.heard[-5:]
            return [e for e in self.heard if pick(e)]

    def outcomes(self, n, count=1, seconds=60):
        return sorted(self.wait(lambda e: e["event"] == "outcome" and e["id"] == n, count, seconds),
                      key=lambda e: e["number"])

    def status(self):
        before = len([e for e in self.heard if e["event"] == "status"])
        self.tell("status")
        return self.wait(lambda e: e["event"] == "status", before + 1)[-1]["figures"]

    def stop(self, ms=3000):
        self.tell(f"stop {ms}")
        e = self.wait(lambda e: e["event"] == "exit", seconds=ms / 1000 + 5)[0]
        self.p.wait(5)
        return e


@pytest.fixture(scope="module")
def messages(world):
    (world / "small").write_bytes(b"Subject: small\r\n\r\n.dot\r\n..two\r\nend\r\n")
    (world / "large").write_bytes(b"Subject: large\r\n\r\n" + b"".join(b".%075d\r\n" % i for i in range(40000)))
    return world


@pytest.fixture(scope="module")
def deliver(world, messages):
    (world / "password").write_text("secret word\n")
    (world / "wrong").write_text("wrong\n")
    d = Deliver(config(world, routes=f"""
  - {{domain: lmtp.test, via: lmtp, to: "127.0.0.11:24"}}
  - {{domain: lmtpunix.test, via: lmtp, to: "unix:{world}/lmtp.sock"}}
  - {{domain: .smart.test, via: smarthost, to: "mx11.test:25"}}
  - {{domain: smartmx.test, via: smarthost, to: "busythengood.test:25", lookup_mx: true}}
  - {{domain: closed.test, via: error, words: "This domain was closed"}}
  - {{domain: login.test, via: smarthost, to: "mx21.test:25", tls: must, username: relay,
      password_file: "{world}/password"}}
  - {{domain: badlogin.test, via: smarthost, to: "mx21.test:25", tls: must, username: relay,
      password_file: "{world}/wrong"}}
  - {{domain: tlsmust.test, via: mx, tls: must}}
  - {{domain: tlsverify.test, via: mx, tls: verify}}
"""))
    d.world, d.id = world, 1000
    yield d
    e = d.stop()
    assert e["status"] == 0 and e["signal"] == 0


def send(d, to, file="small", words="", sender="from@us.test"):
    d.id += 1
    d.tell(f"job {d.id} {sender} {d.world}/{file} {to} {words}")
    return d.id


def sunk(d, to):
    """What the sink has of messages to that recipient."""
    log = d.world / "sink.log"
    lines = [json.loads(l) for l in log.read_text().splitlines()] if log.exists() else []
    return [m for m in lines if m["event"] == "message" and to in m["to"]]


# domain -> result, code, enhanced, some words, address
ROWS = [
    ("good.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("both.test", "delivered", 250, "2.0.0", "taken", "fd00::11"),
    ("implicit.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("alias.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("[127.0.0.11]", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("[ipv6:fd00::11]", "delivered", 250, "2.0.0", "taken", "fd00::11"),
    ("[tag:x]", "permanent", 553, "5.1.2", "is none", ""),
    ("null.test", "permanent", 556, "5.1.10", "takes no mail", ""),
    ("nxdomain.test", "permanent", 550, "5.1.2", "does not exist", ""),
    ("noaddr.test", "permanent", 550, "5.4.4", "neither", ""),
    ("noaddress.test", "permanent", 550, "5.4.4", "no address", ""),
    ("outside.example", "temporary", 451, "4.4.3", "cannot be looked up", ""),
    ("busy.test", "temporary", 421, "4.3.2", "busy", ""),
    ("busythengood.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("refusedthengood.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("nomail.test", "permanent", 521, "5.3.2", "no mail at all", ""),
    ("dead.test", "temporary", 0, "4.4.1", "refused", ""),
    ("silent.test", "temporary", 0, "4.4.2", "time-out", ""),
    ("loop.test", "permanent", 554, "5.4.6", "loop", ""),
    ("loopthengood.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("notlsgood.test", "delivered", 250, "2.0.0", "taken", "127.0.0.14"),
    ("tls.test", "delivered", 250, "2.0.0", "taken", "127.0.0.15"),
    ("tlsmust.test", "temporary", None, None, "", None),
    ("tlsverify.test", "temporary", 0, "4.7.5", "certificate", ""),
    ("dropmail.test", "temporary", 0, "4.4.2", "", ""),
    ("dropdot.test", "temporary", 0, None, "", "127.0.0.17"),
    ("serial.test", "delivered", 250, "2.0.0", "taken", "127.0.0.20"),
    ("slow.test", "delivered", 250, "2.0.0", "taken", "127.0.0.22"),
    ("mail421.test", "temporary", 421, "4.7.0", "later", "127.0.0.23"),
    ("lmtp.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("lmtpunix.test", "delivered", 250, "2.0.0", "taken", ""),
    ("a.smart.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("smartmx.test", "delivered", 250, "2.0.0", "taken", "127.0.0.11"),
    ("closed.test", "permanent", 550, "5.7.1", "was closed", ""),
    ("login.test", "delivered", 250, "2.0.0", "taken", "127.0.0.21"),
    ("badlogin.test", "temporary", 535, None, "", None),
]


@pytest.mark.parametrize("domain,result,code,enhanced,words,address", ROWS, ids=[r[0] for r in ROWS])
def test_row(deliver, domain, result, code, enhanced, words, address):
    n = send(deliver, f"to@{domain}")
    (o,) = deliver.outcomes(n)
    assert o["result"] == result, o
    assert code is None or o["code"] == code, o
    assert enhanced is None or o["enhanced"] == enhanced, o
    assert words in o["text"], o
    assert address is None or o["address"] == address, o
    if result == "delivered":
        (m,) = sunk(deliver, f"to@{domain}")
        assert m["octets"] == (deliver.world / "small").stat().st_size
        assert m["sender"] == "from@us.test"
        assert m["start"].endswith("\r\n\r\n.dot\r\n..two\r\nend\r\n")


@pytest.mark.parametrize("version", ["12", "13"])
def test_session_is_resumed(deliver, version):
    """The host ends each connection after a message; the next one begins with what the one before left."""
    told = [deliver.outcomes(send(deliver, f"to{i}@again{version}.test"))[0]["tls"] for i in range(4)]
    assert [t.endswith(" resumed") for t in told] == [False, True, True, True], told
    assert all(t.startswith(f"TLSv1.{version[1]} ") for t in told)
    assert [sunk(deliver, f"to{i}@again{version}.test")[0]["resumed"] for i in range(4)] == [False, True, True, True]


def test_host_that_breaks_on_resumption_gets_a_full_handshake(deliver):
    """Never clear text, nor a minute of rest, because of our memory."""
    told = [deliver.outcomes(send(deliver, f"to{i}@forgets.test"))[0] for i in range(3)]
    assert [o["result"] for o in told] == ["delivered"] * 3
    assert all(o["tls"].startswith("TLSv1.2 ") and "resumed" not in o["tls"] for o in told), told


def test_tls_is_told(deliver):
    (o,) = deliver.outcomes(send(deliver, "told@tls.test"))
    assert o["tls"].startswith("TLSv1.3 ")
    assert sunk(deliver, "told@tls.test")[0]["tls"]
    (o,) = deliver.outcomes(send(deliver, "told@notlsgood.test"))
    assert o["tls"] == "" and o["result"] == "delivered"


def test_recipients_each_get_their_answer(deliver):
    n = send(deliver, "a@good.test,no-550@good.test,no-450@good.test,b@good.test")
    o = deliver.outcomes(n, 4)
    assert [x["result"] for x in o] == ["delivered", "permanent", "temporary", "delivered"]
    assert [x["code"] for x in o] == [250, 550, 450, 250]
    assert all("\x1b" not in x["text"] for x in o)
    assert sunk(deliver, "a@good.test")[-1]["to"] == ["a@good.test", "b@good.test"]


@pytest.mark.parametrize("domain,who", [("good.test", "the next hop"), ("nodsn.test", "we, relayed"),
                                        ("lmtpunix.test", "we, delivered"), ("lmtp.test", "the next hop")])
def test_who_tells_of_a_success(deliver, domain, who):
    """RFC 3461 section 5.2.2: a host that offers DSN was given the NOTIFY with the recipient, and the duty."""
    n = send(deliver, f"a@{domain},no-550@{domain}")
    assert [x["tells"] for x in deliver.outcomes(n, 2)] == [who, "nobody"]


def test_lmtp_answers_one_by_one(deliver):
    n = send(deliver, "data-550@lmtp.test,a@lmtp.test,data-452@lmtp.test,no-551@lmtp.test")
    o = deliver.outcomes(n, 4)
    assert [x["result"] for x in o] == ["permanent", "delivered", "temporary", "permanent"]


def test_message_refused_at_its_end(deliver):
    (o,) = deliver.outcomes(send(deliver, "data-554@good.test"))
    assert (o["result"], o["code"]) == ("permanent", 554)


def test_damaged_is_never_sent(deliver):
    for file in ("small", "large"):
        (o,) = deliver.outcomes(send(deliver, f"damaged-{file}@good.test", file, "damaged"))
        assert o["result"] == "damaged", o
        assert sunk(deliver, f"damaged-{file}@good.test") == []
    (o,) = deliver.outcomes(send(deliver, "whole@good.test"))
    assert o["result"] == "delivered"


def test_large(deliver):
    for domain in ("good.test", "tls.test"):
        (o,) = deliver.outcomes(send(deliver, f"large@{domain}", "large"))
        assert o["result"] == "delivered", o
        (m,) = sunk(deliver, f"large@{domain}")
        assert m["octets"] == (deliver.world / "large").stat().st_size
        assert m["end"].endswith("000039999\r\n")


def test_smtputf8_never_without(deliver):
    ids = [send(deliver, f"u{i}@noutf8.test", words="smtputf8") for i in range(30)]
    for n in ids:
        (o,) = deliver.outcomes(n)
        assert o["result"] == "permanent", o
    (o,) = deliver.outcomes(send(deliver, "plain@noutf8.test"))
    assert o["result"] == "delivered"


def test_more_recipients_than_the_host_takes(deliver):
    n = send(deliver, ",".join(f"r{i}@rcptmax.test" for i in range(5)))
    assert [o["result"] for o in deliver.outcomes(n, 5)] == ["delivered"] * 5
    assert all(len(sunk(deliver, f"r{i}@rcptmax.test")[0]["to"]) <= 2 for i in range(5))


def test_connection_is_used_again(deliver):
    ids = [send(deliver, f"again{i}@good.test") for i in range(40)]
    for n in ids:
        assert deliver.outcomes(n)[0]["result"] == "delivered"
    sessions = {sunk(deliver, f"again{i}@good.test")[0]["session"] for i in range(40)}
    assert 1 <= len(sessions) <= 20


@pytest.mark.parametrize("domain", ["two.test", "dropafter.test"])
def test_connection_that_ends_between_messages(deliver, domain):
    """The host closes after some messages, with 421 or without a word: nobody's mail is late for it, none goes twice."""
    ids = [send(deliver, f"m{i}@{domain}") for i in range(7)]
    for n in ids:
        (o,) = deliver.outcomes(n)
        assert o["result"] == "delivered", o
    assert all(len(sunk(deliver, f"m{i}@{domain}")) == 1 for i in range(7))


def test_dead_host_does_not_hold_up_others(deliver):
    """All that waits for a dead destination is told at once, and a good one is not slower."""
    deliver.outcomes(send(deliver, "first@dead.test"))
    begun = time.monotonic()
    dead = [send(deliver, f"d{i}@dead.test") for i in range(50)]
    good = send(deliver, "beside@good.test")
    assert deliver.outcomes(good)[0]["result"] == "delivered"
    assert all(deliver.outcomes(n)[0]["result"] == "temporary" for n in dead)
    assert time.monotonic() - begun < 3


def test_waiting_is_cancelled_at_once(deliver):
    """Nothing was sent, and the connection that it waited for serves the next one."""
    n, other = send(deliver, "first@slow.test"), send(deliver, "second@slow.test")
    deliver.tell(f"cancel {n}")
    (o,) = deliver.outcomes(n)
    assert o["result"] == "cancelled"
    assert deliver.outcomes(other)[0]["result"] == "delivered"
    assert not sunk(deliver, "first@slow.test") and len(sunk(deliver, "second@slow.test")) == 1


def test_large_is_cancelled(deliver):
    n = send(deliver, "to@slow.test", file="large")
    deliver.tell(f"cancel {n}")
    (o,) = deliver.outcomes(n)
    assert o["result"] == "cancelled" and not [m for m in sunk(deliver, "to@slow.test") if m["octets"] > 100000]


def test_too_late_to_cancel(deliver):
    n = send(deliver, "late@good.test")
    (o,) = deliver.outcomes(n)
    deliver.tell(f"cancel {n}")
    assert o["result"] == "delivered"
    assert deliver.outcomes(send(deliver, "later@good.test"))[0]["result"] == "delivered"


def test_anew_forgets_a_host_that_was_down(deliver):
    """An operator's wish is not answered from memory."""
    assert deliver.outcomes(send(deliver, "to@dead.test"))[0]["result"] == "temporary"
    listener = in_netns(sys.executable, "-c", """
import socket
s = socket.create_server(("127.0.0.29", 25))
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"554 5.3.2 awake now\\r\\n")
    c.close()
""", stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout.readline() == "ready\n"
        assert "refused" in deliver.outcomes(send(deliver, "to@dead.test"))[0]["text"]
        assert "awake now" in deliver.outcomes(send(deliver, "to@dead.test", words="anew"))[0]["text"]
    finally:
        listener.terminate()
        listener.wait(10)


def test_null_sender(deliver):
    (o,) = deliver.outcomes(send(deliver, "null@good.test", sender="-"))
    assert o["result"] == "delivered"
    assert sunk(deliver, "null@good.test")[0]["sender"] == ""


def test_many_at_once(deliver):
    ids = [send(deliver, f"many{i}@{'good' if i % 2 else 'tls'}.test", words=f"account=a{i % 7}") for i in range(400)]
    assert all(deliver.outcomes(n)[0]["result"] == "delivered" for n in ids)
    assert deliver.status()["waiting"] == 0


def test_new_channel(deliver):
    deliver.tell("respool")
    (o,) = deliver.outcomes(send(deliver, "respool@good.test"))
    assert o["result"] == "delivered"
    figures = deliver.status()
    assert figures["files"] == 0 and figures["memory"] == 0


def test_reload(deliver):
    path = config(deliver.world, name="next.yaml", routes="""
  - {domain: good.test, via: error, words: "Closed by reload"}
""")
    assert deliver.outcomes(send(deliver, "before@good.test"))[0]["result"] == "delivered"
    deliver.tell(f"reload {path}")
    (o,) = deliver.outcomes(send(deliver, "after@good.test"))
    assert o["result"] == "permanent" and "Closed by reload" in o["text"]
    deliver.tell(f"reload {deliver.world}/kidoban.yaml")
    assert deliver.outcomes(send(deliver, "then@good.test"))[0]["result"] == "delivered"


def test_idle_connections_go(deliver):
    deliver.outcomes(send(deliver, "idle@good.test"))
    assert deliver.status()["connections"] > 0
    wait_for(lambda: deliver.status()["connections"] == 0, 10)
    assert deliver.status()["destinations"] == 0


def test_stop_finishes_what_it_began(world, messages):
    d = Deliver(config(world, name="stop.yaml"))
    d.world, d.id = world, 5000
    n = send(d, "last@slow.test")
    time.sleep(0.7)
    e = d.stop(5000)
    assert e["status"] == 0
    assert d.outcomes(n)[0]["result"] == "delivered"


def test_resolving_from_the_root(world, messages):
    """Without forwarders and with DNSSEC, in a network that leads nowhere: nothing is known, so nothing bounces."""
    text = config(world, name="root.yaml").read_text()
    (world / "root.yaml").write_text("\n".join(l for l in text.split("\n") if "resolver:" not in l))
    d = Deliver(world / "root.yaml")
    d.world, d.id = world, 7000
    (o,) = d.outcomes(send(d, "to@example.org"), seconds=40)
    assert (o["result"], o["enhanced"]) == ("temporary", "4.4.3"), o
    assert d.stop()["status"] == 0


POSTFIX_MASTER = """
smtp      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
virtual   unix  -       n       n       -       -       virtual
postlog   unix-dgram n  -       n       -       1       postlogd
"""


@pytest.fixture(scope="module")
def postfix(world):
    if not shutil.which("postfix"):
        pytest.skip("needs postfix")
    d = world / "postfix"
    for sub in ("etc", "spool", "data", "mail"):
        (d / sub).mkdir(parents=True)
    subprocess.run(["chown", "postfix", str(d / "data")], check=True)
    os.chmod(d / "mail", 0o777)
    (d / "etc/master.cf").write_text(POSTFIX_MASTER)
    (d / "etc/main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {d}/spool
data_directory = {d}/data
maillog_file = {d}/log
maillog_file_prefixes = {d}
myhostname = mx30.test
inet_interfaces = 127.0.0.30
mydestination =
virtual_mailbox_domains = postfix.test
virtual_mailbox_base = {d}/mail
virtual_mailbox_maps = inline:{{ to@postfix.test=to, second@postfix.test=second }}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_tls_cert_file = {world}/sink.pem
smtpd_tls_key_file = {world}/sink.pem
smtpd_tls_security_level = may
smtpd_recipient_restrictions = reject_unauth_destination
message_size_limit = 1000000
""")
    begun = subprocess.run(["ip", "netns", "exec", NETNS, "postfix", "-c", str(d / "etc"), "start"],
                           capture_output=True, text=True, timeout=60)
    assert begun.returncode == 0, begun.stderr
    yield d
    subprocess.run(["ip", "netns", "exec", NETNS, "postfix", "-c", str(d / "etc"), "stop"], capture_output=True)


def test_postfix(deliver, postfix):
    greeted = ["ip", "netns", "exec", NETNS, "/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.30/25"]
    wait_for(lambda: subprocess.run(greeted, capture_output=True).returncode == 0)
    o = deliver.outcomes(send(deliver, "to@postfix.test,nobody@postfix.test,second@postfix.test"), 3)
    assert [x["result"] for x in o] == ["delivered", "permanent", "delivered"], o
    assert o[1]["code"] == 550 and o[1]["enhanced"] == "5.1.1"
    assert o[0]["tls"].startswith("TLSv1.3")
    for i in range(20):
        deliver.outcomes(send(deliver, "to@postfix.test"))
    (o,) = deliver.outcomes(send(deliver, "to@postfix.test", "large"))
    assert (o["result"], o["enhanced"][:4]) == ("permanent", "5.3."), o  # its SIZE is smaller than that
    wait_for(lambda: (postfix / "mail/to").exists() and
             (postfix / "mail/to").read_bytes().count(b"Subject: small") == 21)
    text = (postfix / "mail/second").read_bytes()
    assert b"Subject: small" in text and b"\n.dot\n..two\nend\n" in text


@pytest.mark.parametrize("version", ["12", "13"])
def test_session_never_stands_for_a_certificate_not_verified(world, messages, version):
    """A host that was not verified by one route is verified by another, though its session would be at hand; nor does a
    session outlive a reload, which may have changed what is trusted."""
    yaml = config(world, routes=f"""
  - {{domain: verified{version}.test, via: mx, tls: verify}}
  - {{domain: .smart.test, via: smarthost, to: "mx{44 - int(version)}.test:25", tls: verify}}
""", name="resume.yaml")
    d = Deliver(yaml)
    d.world, d.id = world, 7000

    def result(domain):
        return d.outcomes(send(d, f"to@{domain}"))[0]

    result(f"again{version}.test")
    assert result(f"again{version}.test")["tls"].endswith(" resumed")
    for domain in (f"verified{version}.test", "a.smart.test"):
        o = result(domain)
        assert o["result"] == "temporary" and "certificate" in o["text"], o
    d.tell(f"reload {yaml}")
    assert "resumed" not in result(f"again{version}.test")["tls"]
    assert result(f"again{version}.test")["tls"].endswith(" resumed")
    assert d.stop()["status"] == 0


def test_verified_certificate(world, messages):
    """The right CA in place of the system's, in a mount namespace of its own: smart host by name and implicit TLS."""
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    path = config(world, name="verify.yaml", routes="""
  - {domain: tlsverified.test, via: mx, tls: verify}
  - {domain: wrongname.test, via: smarthost, to: "127.0.0.15:25", tls: verify}
""")
    script = f'mount --bind {world}/ca.pem {bundle} && exec "$0" "$1"'
    wrapper = world / "verify-harness"
    wrapper.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{script}' {HARNESS} \"$1\"\n")
    wrapper.chmod(0o755)
    global_harness = globals()["HARNESS"]
    globals()["HARNESS"] = str(wrapper)
    try:
        d = Deliver(path)
    finally:
        globals()["HARNESS"] = global_harness
    d.world, d.id = world, 6000
    (o,) = d.outcomes(send(d, "to@tlsverified.test"))
    assert o["result"] == "delivered" and o["tls"], o
    (o,) = d.outcomes(send(d, "to@wrongname.test"))
    assert o["result"] == "temporary" and "mismatch" in o["text"], o
    assert d.stop()["status"] == 0
