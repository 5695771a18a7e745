"""Mail all the way: from a client's session to Postfix's and Dovecot's mailboxes, and back as a report."""

import email.utils
import hashlib
import os
import pathlib
import random
import signal
import sys
import threading
import time

import flufl.bounce
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import Kidoband, Sink, eventually  # noqa: E402


@pytest.fixture(scope="module")
def house(world):
    secret = world.dir / "relay.password"
    secret.write_text("relay-secret\n")
    secret.chmod(0o600)
    login = {"via": "smarthost", "username": "relay", "password_file": str(secret)}
    routes = [
        {"domain": "example.org", "via": "lmtp", "to": f"unix:{world.dir}/lmtp.sock"},
        {"domain": "smart587.example", "to": "smart.example:587", **login},
        {"domain": "smart465.example", "to": "smart.example:465", **login},
        {"domain": "unverified.example", "to": "mx.post.example:587", **login},
        {"domain": "closed.example", "via": "error", "words": "This domain takes no mail"},
        {"domain": "*", "via": "mx"},
    ]
    with Kidoband(world, "delivery", {"routes": routes}) as k:
        k.account_add("alice", "alice@example.org")
        k.account_add("bob", "bob@example.org")
        yield k


def message_id(words):
    return words.split()[-1]


def report_of(world, to, about):
    """The report on the address that came to the user."""
    def found():
        for m in world.mailbox[to].all():
            status = [p for p in m.message.walk() if p.get_content_type() == "message/delivery-status"]
            if any(about in (r["Final-Recipient"] or "") for p in status for r in p.get_payload()):
                return m
        return None
    return eventually(found, 20, f"a report about {about}")


def reports_about(world, to, about):
    return [m for m in world.mailbox[to].all()
            if m.message.get_content_type() == "multipart/report" and about.encode() in m.octets]


def read_by_mailman(report):
    """What the bounce parser of Mailman makes of it: addresses that may yet be reached, and those that will not."""
    temporary, permanent = flufl.bounce.all_failures(report.message)
    return {a.decode() for a in temporary}, {a.decode() for a in permanent}


def fields_of_recipient(report):
    status = [p for p in report.message.walk() if p.get_content_type() == "message/delivery-status"]
    assert len(status) == 1
    about, *recipients = status[0].get_payload()
    assert about["Reporting-MTA"] == "dns; mail.example.org"
    return recipients


def event(house, name, identity):
    return eventually(lambda: house.events(event=name, id=identity), 20, f"{name} of {identity}")[0]


# Ways


@pytest.mark.parametrize("domain", ["post", "four", "six", "address", "address6", "alias", "mxalias", "deadfirst"])
def test_reaches(world, house, domain):
    identity = message_id(house.send(f"way-{domain}@{domain}.example", f"by {domain}"))
    [mail] = world.post.wait(f"way-{domain}@")
    assert mail["Subject"] == f"by {domain}"
    delivered = event(house, "message.delivered", identity)
    assert delivered["code"] == 250
    assert (":" in delivered["address"]) == (domain in ("six", "address6")) or domain in ("post", "alias")


def test_null_mx_fails_at_once(world, house):
    identity = message_id(house.send("x@nullmx.example", "null mx"))
    assert event(house, "message.failed", identity)["status"] in ("5.1.10", "5.7.27")
    [about] = fields_of_recipient(report_of(world, "alice", "x@nullmx.example"))
    assert about["Action"] == "failed" and about["Status"] == "5.1.10"


def test_no_such_domain_and_no_address(world, house):
    for domain in ("nowhere.example", "nomx.example"):
        identity = message_id(house.send(f"x@{domain}", domain))
        assert event(house, "message.failed", identity)["status"].startswith("5.")


def test_error_route(world, house):
    identity = message_id(house.send("x@closed.example", "closed"))
    assert "takes no mail" in event(house, "message.failed", identity)["words"]


@pytest.mark.parametrize("port", [587, 465])
def test_smart_host_with_login(world, house, port):
    house.send(f"smart@smart{port}.example", f"smart {port}")
    [mail] = world.post.wait(f"smart@smart{port}.example")
    assert "ESMTPSA" in mail.message.get_all("Received")[0]


def test_smart_host_with_the_wrong_name_gets_no_password(world, house):
    # Port 587 of mx.post.example is closed; nothing may be sent, and the mail must wait.
    identity = message_id(house.send("x@unverified.example", "unverified"))
    event(house, "message.deferred", identity)
    house.run("queue", "remove", identity)


def test_lmtp_answers_each_recipient(world, house):
    client = house.connect()
    identity = message_id(house.send(["carol@example.org", "nobody-here@example.org", "dave@example.org"],
                                     "three at once", client=client))
    client.quit()
    for user in ("carol", "dave"):
        eventually(lambda u=user: world.mailbox[u].with_subject("three at once"), 20, user)
    [about] = fields_of_recipient(report_of(world, "alice", "nobody-here@example.org"))
    assert about["Final-Recipient"] == "rfc822; nobody-here@example.org"
    assert about["Status"].startswith("5.")
    assert len(house.events(event="message.delivered", id=identity)) == 2


# Reports


def test_failure_report(world, house):
    identity = message_id(house.send(["refuse-me@post.example", "good@post.example"], "half good"))
    world.post.wait("good@post.example")
    report = report_of(world, "alice", "refuse-me@post.example")
    assert report.message.get_param("report-type") == "delivery-status"
    assert report["Return-Path"] == "<>"
    assert read_by_mailman(report) == (set(), {"refuse-me@post.example"})
    assert report["To"] in ("alice@example.org", "<alice@example.org>")
    assert report["Auto-Submitted"].startswith("auto-")
    [about] = fields_of_recipient(report)
    assert about["Final-Recipient"] == "rfc822; refuse-me@post.example"
    assert about["Action"] == "failed"
    assert about["Status"] == "5.7.1"
    assert about["Remote-MTA"] == "dns; mx.post.example"
    assert about["Diagnostic-Code"].startswith("smtp; 550") and "Not for you" in about["Diagnostic-Code"]
    returned = report.message.get_payload()[2]
    assert returned.get_content_type() in ("message/rfc822", "text/rfc822-headers")
    assert b"Subject: half good" in report.octets
    assert event(house, "message.failed", identity)["code"] == 550


def test_refused_after_data(world, house):
    identity = message_id(house.send("data@post.example", "refuse me now"))
    failed = event(house, "message.failed", identity)
    assert failed["code"] == 550 and "Nobody wants this" in failed["words"]


def test_no_report_for_the_null_sender(world, house):
    before = len(house.events(event="dsn.sent"))
    client = house.connect()
    assert client.docmd("MAIL FROM:<>")[0] == 250
    assert client.rcpt("refuse-null@post.example")[0] == 250
    code, words = client.data(b"From: alice@example.org\r\nSubject: from nobody\r\n\r\nx\r\n")
    assert code == 250
    client.quit()
    event(house, "message.failed", message_id(words.decode()))
    house.wait_empty()
    assert len(house.events(event="dsn.sent")) == before


def test_dsn_parameters(world, house):
    client = house.connect()
    assert client.mail("alice@example.org", ["RET=HDRS", "ENVID=envelope+2Bone"])[0] == 250
    assert client.rcpt("refuse-never@post.example", ["NOTIFY=NEVER"])[0] == 250
    assert client.rcpt("refuse-orcpt@post.example", ["NOTIFY=FAILURE", "ORCPT=rfc822;first@example.com"])[0] == 250
    code, _ = client.data(b"From: alice@example.org\r\nSubject: headers only\r\n\r\nnot to come back\r\n")
    assert code == 250
    client.quit()
    report = report_of(world, "alice", "refuse-orcpt@post.example")
    [about] = fields_of_recipient(report)
    assert about["Original-Recipient"] == "rfc822; first@example.com" or about["Original-Recipient"] == \
        "rfc822;first@example.com"
    assert b"Original-Envelope-Id: envelope+one" in report.octets
    assert b"refuse-never" not in report.octets
    assert b"not to come back" not in report.octets
    assert report.message.get_payload()[2].get_content_type() == "text/rfc822-headers"


def send_with_notify(house, to, notify, subject):
    client = house.connect()
    words = house.send(to, subject, client=client, rcpt_options=[f"NOTIFY={notify}"])
    client.quit()
    return message_id(words)


def test_success_is_told_by_who_has_the_duty(world, house):
    """RFC 3461 section 5.2.2: by us for a mailbox or a host without DSN, by the next hop when it offers DSN."""
    mailbox = send_with_notify(house, "carol+told@example.org", "SUCCESS,FAILURE", "told when there")
    [about] = fields_of_recipient(report_of(world, "alice", "carol+told@example.org"))
    assert about["Action"] == "delivered" and about["Status"].startswith("2.")
    assert about["Final-Recipient"] == "rfc822; carol+told@example.org"
    with Sink() as sink:
        sink.answers["EHLO"] = "250-mx.sink.example\r\n250-PIPELINING\r\n250 8BITMIME"
        plain = send_with_notify(house, "plain@sink.example", "SUCCESS", "told when handed on")
        [about] = fields_of_recipient(report_of(world, "alice", "plain@sink.example"))
        assert about["Action"] == "relayed" and about["Status"].startswith("2.")
        assert about["Remote-MTA"] == "dns; mx.sink.example"
        assert "RCPT TO:<plain@sink.example>" in sink.commands()
        assert len(house.events(event="dsn.sent", original=plain, kind="success")) == 1
    assert len(house.events(event="dsn.sent", original=mailbox, kind="success")) == 1

    theirs = send_with_notify(house, "theirs@post.example", "SUCCESS", "told by Postfix")
    event(house, "message.delivered", theirs)
    # Postfix has the duty, and to it our sender's domain is its own: its report is in its mailbox.
    def postfix_reports():
        return [m for m in world.post.to("alice@example.org") if b"theirs@post.example" in m.octets]
    [report] = eventually(postfix_reports, 30, "Postfix's report")
    assert b"Reporting-MTA: dns; mx.post.example" in report.octets and b"Action: delivered" in report.octets
    house.wait_empty()
    assert not house.events(event="dsn.sent", original=theirs)


# Waiting


def test_deferred_then_delivered(world, house):
    identity = message_id(house.send("later@down.example", "later"))
    first = event(house, "message.deferred", identity)
    assert first["attempt"] == 1
    [row] = house.json("queue", "list", identity)
    assert row["state"] != "held" and row["attempts"] >= 1
    with Sink(host="127.0.0.99") as sink:
        eventually(lambda: house.events(event="message.delivered", id=identity), 25, "a second try")
        assert b"Subject: later" in sink.messages[0]["octets"]
    assert not house.json("queue", "list", identity)


def no_connections(house):
    """A connection kept for the next message would still reach the sink of another test."""
    return all(p["figures"]["connections"] == 0 for p in house.status()["processes"] if p["role"] == "deliver")


def test_4xx_is_tried_again(world, house):
    eventually(lambda: no_connections(house), 30, "the end of idle connections")
    house.send("again@sink.example", "before", sender="alice@example.org")  # nobody listens yet
    with Sink() as sink:
        sink.answers["RCPT"] = "450 4.2.0 not now"
        eventually(lambda: any(c.startswith("RCPT") for c in sink.commands()), 25, "a try")
        del sink.answers["RCPT"]
        eventually(lambda: sink.messages, 25, "another")
    house.wait_empty()


def test_next_hop_restarts(world, house):
    world.stop_postfix()
    words = [house.send(f"restart-{i}@post.example", f"restart {i}") for i in range(5)]
    event(house, "message.deferred", message_id(words[-1]))
    world.start_postfix_again()
    for i in range(5):
        world.post.wait(f"restart-{i}@post.example", seconds=30)
    house.wait_empty()


def test_loop_is_cut(world, house):
    # The header has been through us too many times.
    trail = "".join(f"Received: from a by mail.example.org with ESMTP id {i}; Tue, 1 Jan 2030 00:00:00 +0000\r\n"
                    for i in range(120))
    client = house.connect()
    assert client.mail("alice@example.org")[0] == 250
    assert client.rcpt("looped@post.example")[0] == 250
    code, words = client.data(f"{trail}From: alice@example.org\r\nSubject: loop\r\n\r\nx\r\n".encode())
    client.quit()
    if code == 250:
        assert event(house, "message.failed", message_id(words.decode()))["status"] == "5.4.6"
    else:
        assert code == 554 and b"5.4.6" in words
    house.settle()
    assert not world.post.with_subject("loop")


def test_large_message_is_the_same(world, house):
    random.seed(20)
    lines = [bytes(random.choices(b"abcdefghij.=+/ ", k=76)) for _ in range(4096)]
    body = b"".join(lines[i % 4096] + b"\r\n" if i % 97 else b".dot first\r\n..\r\n" for i in range(280000))
    assert len(body) > 20 << 20
    client = house.connect(timeout=120)
    assert client.mail("alice@example.org", [f"SIZE={len(body) + 200}"])[0] == 250
    assert client.rcpt("large@post.example")[0] == 250
    assert client.data(b"From: alice@example.org\r\nSubject: large\r\n\r\n" + body)[0] == 250
    client.quit()
    [mail] = world.post.wait("large@post.example", seconds=60)
    got = mail.octets.split(b"\n\n", 1)[1].replace(b"\n", b"\r\n")
    assert (len(got), hashlib.sha256(got).digest()) == (len(body), hashlib.sha256(body).digest())


def seconds_of(text):
    return email.utils.parsedate_to_datetime(text).timestamp()


def test_delay_is_told_once_and_the_end_of_life_is_told(world):
    settings = {"submission": {"listen": ["127.0.0.1:4587"]},
                "spool": {"lifetime": "12s", "delay_warning": "4s", "retry": {"first": "1s", "max": "3s"}}}
    with Kidoband(world, "mortal", settings) as k:
        k.account_add("bob", "bob@example.org")
        before = time.time()
        ids = {}
        for who, options in (("plain", []), ("failure", ["NOTIFY=FAILURE"]), ("delay", ["NOTIFY=DELAY"]),
                             ("never", ["NOTIFY=NEVER"])):
            ids[who] = message_id(k.send(f"{who}-late@dead.example", f"late {who}", sender="bob@example.org", user="bob",
                                         port=4587, host="mail4.example.org", rcpt_options=options))
        for identity in ids.values():
            assert eventually(lambda i=identity: k.events(event="message.expired", id=i), 60, "the end")
        k.wait_empty()
        wanted = {"plain": ["delayed", "failed"], "failure": ["failed"], "delay": ["delayed"], "never": []}
        for who, actions in wanted.items():
            address = f"{who}-late@dead.example"
            eventually(lambda a=address, n=len(actions): len(reports_about(world, "bob", a)) >= n, 20, "the reports")
            told = {about["Action"]: (report, about) for report in reports_about(world, "bob", address)
                    for about in fields_of_recipient(report)}
            assert sorted(told) == actions and len(reports_about(world, "bob", address)) == len(actions), who
            for action, (report, about) in told.items():
                check_late(report, about, action, address, before)


def check_late(report, about, action, address, sent):
    assert about["Final-Recipient"] == f"rfc822; {address}"
    assert report["Return-Path"] == "<>" and report["Auto-Submitted"].startswith("auto-")
    [status] = [p for p in report.message.walk() if p.get_content_type() == "message/delivery-status"]
    assert sent - 2 <= seconds_of(status.get_payload()[0]["Arrival-Date"]) <= time.time()
    if action == "delayed":
        assert about["Status"].startswith("4.")
        assert 8 <= seconds_of(about["Will-Retry-Until"]) - sent <= 60
        assert read_by_mailman(report) == ({address}, set())
    else:
        assert about["Status"] == "5.4.7" and about["Will-Retry-Until"] is None
        assert read_by_mailman(report) == (set(), {address})


# The operator's hands


def test_queue_verbs(world, house):
    one = message_id(house.send("hands@down.example", "one"))
    two = message_id(house.send("hands@down.example", "two", sender="bob@example.org", user="bob"))
    event(house, "message.deferred", one)
    event(house, "message.deferred", two)
    assert {r["id"] for r in house.json("queue", "list", "--domain", "down.example")} == {one, two}
    assert [r["id"] for r in house.json("queue", "list", "--account", "bob")] == [two]
    assert "hands@down.example" in house.run("queue", "show", one).stdout
    shown = house.json("queue", "show", one)
    assert shown["id"] == one and shown["sender"] == "alice@example.org"
    assert one in house.run("queue", "list").stdout

    eventually(lambda: house.run("queue", "hold", one, check=False).returncode == 0, 10, "hold")
    eventually(lambda: house.json("queue", "list", one)[0]["state"] == "held", 10, "held")
    with Sink(host="127.0.0.99") as sink:
        house.run("queue", "retry", "--account", "bob")
        eventually(lambda: any(b"Subject: two" in m["octets"] for m in sink.messages), 20, "retried")
        assert [r["id"] for r in house.json("queue", "list", "--domain", "down.example")] == [one]
        house.run("queue", "release", one)
        eventually(lambda: any(b"Subject: one" in m["octets"] for m in sink.messages), 20, "released")
    house.wait_empty()


def test_queue_remove(house):
    gone = message_id(house.send("x@dead.example", "gone"))  # no connection of the test before is left there
    event(house, "message.deferred", gone)
    before = len(house.events(event="dsn.sent"))
    eventually(lambda: house.run("queue", "remove", gone, check=False).returncode == 0, 15, "remove")
    assert not house.json("queue", "list", gone)
    assert house.run("queue", "show", gone, check=False).returncode == 1
    assert house.events(event="message.removed", id=gone)
    house.settle()
    assert len(house.events(event="dsn.sent")) == before


@pytest.fixture(scope="module")
def slow_house(world):
    """One that leaves a host that was down alone for a minute, and tries again in ten."""
    settings = {"submission": {"listen": ["127.0.0.1:3587"]}, "spool": {"retry": {"first": "10m", "max": "1h"}},
                "delivery": {"messages_per_connection": 1}}  # each test has a sink of its own
    with Kidoband(world, "slow", settings) as k:
        k.account_add("alice", "alice@example.org")
        yield k


def send_slow(house, to, subject):
    return message_id(house.send(to, subject, port=3587, host="mail4.example.org"))


class Gate:
    """An answer of the sink that comes when it is opened."""

    def __init__(self, answer):
        self.answer, self.reached, self.opened = answer, threading.Event(), threading.Event()

    def __call__(self, _):
        self.reached.set()
        assert self.opened.wait(60)
        return self.answer


def test_retry_ends_the_memory_of_a_host_that_was_down(world, slow_house):
    identity = send_slow(slow_house, "x@dead.example", "until told")
    event(slow_house, "message.deferred", identity)
    with Sink(host="127.0.0.99") as sink:
        slow_house.run("queue", "retry", identity)
        event(slow_house, "message.delivered", identity)
        assert len(sink.messages) == 1
    assert len(slow_house.events(event="message.deferred", id=identity)) == 1


@pytest.mark.parametrize("what", ["remove", "hold"])
def test_called_off_before_the_data(world, slow_house, what):
    """The next hop thinks about the recipient; the message is not wanted any more; its data is never sent."""
    gate = Gate("250 2.1.5 yes")
    with Sink() as sink:
        sink.answers["RCPT"] = gate
        identity = send_slow(slow_house, f"off-{what}@sink.example", f"call off {what}")
        assert gate.reached.wait(30)
        done = slow_house.run("queue", what, identity)
        assert "1 messages" in done.stdout and "1 of them when the attempt" in done.stdout
        gate.opened.set()
        event(slow_house, "message.cancelled", identity)
        assert not slow_house.events(event="message.deferred", id=identity)
        if what == "remove":
            eventually(lambda: not slow_house.json("queue", "list", identity), 10, "its end")
        else:
            eventually(lambda: slow_house.json("queue", "list", identity)[0]["state"] == "held", 10, "a hold")
            del sink.answers["RCPT"]
            assert not sink.messages
            slow_house.run("queue", "release", identity)
            event(slow_house, "message.delivered", identity)
        slow_house.wait_empty()
        assert len(sink.messages) == (what == "hold")


def test_trace_finds_a_recipient_before_the_first_attempt(world, slow_house):
    gate = Gate("250 2.1.5 yes")
    with Sink() as sink:
        sink.answers["RCPT"] = gate
        to = [f"r{i}@sink.example" for i in range(45)]
        identity = send_slow(slow_house, to, "to many")
        assert gate.reached.wait(30)
        for address in (to[0], to[19], to[20], to[44]):
            story = slow_house.json("trace", address)
            assert identity in {e.get("id") for e in story}, address
            assert not [e for e in story if e["event"] == "message.delivered"]
        assert f"<{to[44]}>" in slow_house.run("trace", to[44]).stdout
        gate.opened.set()
        eventually(lambda: len(slow_house.events(event="message.delivered", id=identity)) == 45, 20, "all of them")


def test_removed_too_late_is_not_tried_again(world, slow_house):
    gate = Gate("451 4.3.0 not now")
    with Sink() as sink:
        sink.answers["data"] = gate
        identity = send_slow(slow_house, "late@sink.example", "too late")
        assert gate.reached.wait(30)
        assert "1 of them when the attempt" in slow_house.run("queue", "remove", identity).stdout
        assert slow_house.json("queue", "list", identity)[0]["state"] == "removing"
        assert slow_house.run("queue", "retry", identity, check=False).returncode == 1
        gate.opened.set()
        event(slow_house, "message.deferred", identity)
        slow_house.wait_empty()
        del sink.answers["data"]
        slow_house.run("queue", "retry", "--domain", "sink.example")
        other = send_slow(slow_house, "other@sink.example", "another")
        event(slow_house, "message.delivered", other)
        assert [c for c in sink.commands() if c.startswith("RCPT")] == ["RCPT TO:<late@sink.example>",
                                                                        "RCPT TO:<other@sink.example>"]
        assert not slow_house.events(event="dsn.sent", original=identity)


def test_removed_while_delivered_stays_removed_after_a_crash(world, slow_house):
    def figures():
        return next(p for p in slow_house.status()["processes"] if p["role"] == "spool")["figures"]
    gate = Gate("451 4.3.0 not now")
    with Sink() as sink:
        sink.answers["data"] = gate
        identity = send_slow(slow_house, "crash@sink.example", "removed, then a crash")
        assert gate.reached.wait(30)
        commits = figures()["commits"]
        assert "1 of them when the attempt" in slow_house.run("queue", "remove", identity).stdout
        eventually(lambda: figures()["commits"] > commits, 20, "a durable removal")
        recovered = len(slow_house.events(event="spool.recovered"))
        os.kill(slow_house.pids("spool")[0], signal.SIGKILL)
        eventually(lambda: len(slow_house.events(event="spool.recovered")) > recovered, 30, "a new spool")
        del sink.answers["data"]
        gate.opened.set()
        other = send_slow(slow_house, "after@sink.example", "another")
        event(slow_house, "message.delivered", other)
        assert slow_house.run("queue", "show", identity, check=False).returncode == 1
        assert [c for c in sink.commands() if c.startswith("RCPT")] == ["RCPT TO:<crash@sink.example>",
                                                                        "RCPT TO:<after@sink.example>"]


def test_suspension_calls_off_what_is_being_delivered(world, slow_house):
    gate = Gate("250 2.1.5 yes")
    with Sink() as sink:
        sink.answers["RCPT"] = gate
        identity = send_slow(slow_house, "suspended@sink.example", "of a spammer")
        assert gate.reached.wait(30)
        slow_house.run("account", "suspend", "alice", "--reason", "spam")
        eventually(lambda: slow_house.events(event="spool.account.held", account="alice"), 10, "the spool's word")
        gate.opened.set()
        event(slow_house, "message.cancelled", identity)
        eventually(lambda: slow_house.json("queue", "list", identity)[0]["state"] == "suspended", 10, "suspended")
        assert not sink.messages
        del sink.answers["RCPT"]
        slow_house.run("account", "resume", "alice")
        event(slow_house, "message.delivered", identity)
        assert len(sink.messages) == 1


@pytest.mark.parametrize("by", ["id", "message-id", "address"])
def test_trace_shows_the_way(world, house, by):
    address, good = f"refuse-trace-{by}@post.example", f"traced-{by}@post.example"
    identity = message_id(house.send([address, good], "trace me",
                                     headers=f"Message-ID: <trace-{by}@client.example>\r\n"))
    event(house, "message.failed", identity)
    report_of(world, "alice", address)
    word = {"id": identity, "message-id": f"<trace-{by}@client.example>", "address": address}[by]
    def whole():
        names = {(e["event"], e.get("recipient")) for e in house.json("trace", word)}
        return names >= {("auth.succeeded", None), ("message.stored", None), ("message.delivered", good),
                         ("message.failed", address), ("dsn.sent", None), ("session.closed", None),
                         ("message.delivered", "alice@example.org")}
    eventually(whole, 10, "the whole story, with the report's own delivery")
    assert identity in house.run("trace", word).stdout


def test_trace_of_nothing(house):
    assert house.run("trace", "never@heard.example", check=False).returncode == 1


def test_spool_verify_and_export_with_the_daemon_down(world, tmp_path):
    with Kidoband(world, "offline", {"submission": {"listen": ["127.0.0.1:2587"]}}) as k:
        k.account_add("alice", "alice@example.org")
        at = {"port": 2587, "host": "mail4.example.org"}
        ids = {message_id(k.send("x@down.example", f"export {i}", body=f"body {i}\r\n", **at)) for i in range(3)}
        large = message_id(k.send("x@down.example", "export large", body="0123456789abcdef\r\n" * 100000, **at))
        for identity in ids | {large}:
            event(k, "message.deferred", identity)
        k.stop()
        assert "4 messages" in k.run("spool", "verify").stdout
        target = world.dir / "export"
        assert "4 written" in k.run("spool", "export", "--to", target).stdout
        mails = {p.stem: p.read_bytes() for p in target.glob("*.eml")}
        assert set(mails) == ids | {large}
        assert mails[large].endswith(b"0123456789abcdef\r\n" * 100000)
        assert all(b"Subject: export " in m for m in mails.values())

        # One flipped octet in a body is found.
        spool = pathlib.Path(k.dir / "state/spool")
        victim = next(p for p in spool.rglob("*") if p.is_file() and b"body 1\r\n" in p.read_bytes())
        octets = victim.read_bytes()
        victim.write_bytes(octets.replace(b"body 1\r\n", b"bodY 1\r\n"))
        found = k.run("spool", "verify", check=False)
        assert found.returncode == 1 and "1 findings" in found.stdout
        victim.write_bytes(octets)
        k.start()
        assert len(k.queue()) == 4
