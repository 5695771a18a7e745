"""The table of what the operator promises its users, each row acted by real programs in the lab, over IPv4 and over IPv6.

What happened is read twice: from what the sending program said, and from what arrived (mailboxes, the receivers' logs, the
gates' counters). A row is green when both say what the row promises.
"""

import dataclasses
import json
import pathlib
import re
import subprocess
import time

import net
from place import PASSWORD
from servers import eventually

OUTSIDE = "friend+{tag}@v{family}.example.com"
BOT = pathlib.Path(__file__).with_name("bot.py")
SPAM_LIMIT, SPAM = 20, 24


@dataclasses.dataclass
class Row:
    where: str
    does: str
    port: int
    result: str
    whom: str
    act: object


@dataclasses.dataclass
class Happened:
    said: str  # by the sending program
    saw: list  # what else was found to be so


class Wrong(AssertionError):
    """The row's promise does not hold."""


def promised(true, words):
    if not true:
        raise Wrong(words)


def last_words(output):
    """What a program said in the end, in one line."""
    lines = [re.sub(r"^[*<>= -]*\s*", "", line).strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "nothing")


class Act:
    """One row in one family, with what the acts share."""

    def __init__(self, lab, row, number, family, run):
        self.lab, self.row, self.family = lab, row, family
        self.tag = f"{run}-{number}-{family}"
        self.to = OUTSIDE.format(tag=self.tag, family=family)

    def name(self, host, domain):
        """The host's name that is there in this family only."""
        return f"{host}{self.family}.{domain}"

    # Mail programs. Each returns its CompletedProcess.

    def swaks(self, host, server, *options, sender="alice@example.ne.jp"):
        return net.run(host, "swaks", "--server", server, "--from", sender, "--to", self.to, "--timeout", "60s",
                       "--header", f"Subject: row {self.tag}", "--suppress-data", *options, check=False)

    def swaks_login(self, host, server, user, sender):
        return self.swaks(host, server, "--tls", "--tls-verify", "--tls-ca-path", self.lab.ca_file, "--auth", "PLAIN", "--auth-user",
                          user, "--auth-password", PASSWORD, sender=sender)

    def message(self, sender):
        return f"From: {sender}\r\nTo: {self.to}\r\nSubject: row {self.tag}\r\n\r\nA line.\r\n"

    def msmtp(self, host, server, port, user, sender):
        tls = ["--tls=on", f"--tls-trust-file={self.lab.ca_file}", "--auth=plain", f"--user={user}",
               f"--passwordeval=echo '{PASSWORD}'"] if port == 587 else ["--tls=off", "--auth=off"]
        return net.run(host, "msmtp", "--file=/dev/null", f"--host={server}", f"--port={port}", "--debug", *tls, f"--from={sender}",
                       self.to, text=self.message(sender), check=False)

    def curl(self, host, server, port, user, sender):
        tls = ["--ssl-reqd", "--user", f"{user}:{PASSWORD}"] if port == 587 else []
        return net.run(host, "curl", "-sSv", "--connect-timeout", 60, f"smtp://{server}:{port}/{host}", *tls, "--mail-from", sender,
                       "--mail-rcpt", self.to, "-T", "-", text=self.message(sender), check=False)

    # What is found

    def arrived(self):
        return self.lab.boxes["mx"].to(f"+{self.tag}@")

    def connections(self, host, source):
        """How often the Postfix of that host was connected to by that one."""
        return len(re.findall(rf": connect from \S*\[{re.escape(net.address(source, self.family))}\]", self.lab.postfix[host].log()))

    def refused(self, source, receiver, gate, send):
        """A program on `source` is refused at once by a gate on its way to port 25 of `receiver`."""
        net.run("dns", BOT.parent / "knock", net.address(receiver, self.family))  # it does answer: to others
        counted, connected, started = gate.refused(self.lab), self.connections(receiver, source), time.monotonic()
        done = send()
        took, words = time.monotonic() - started, done.stdout + done.stderr
        promised(done.returncode != 0, f"the program said it was sent: {last_words(words)}")
        promised(re.search("connection refused", words, re.I), f"not refused in words: {last_words(words)}")
        promised(self.connections(receiver, source) == connected, "the receiver's server was reached")
        more = gate.refused(self.lab) - counted
        promised(more > 0, f"{gate.whose} gate counted nothing")
        promised(not self.arrived(), "the message arrived")
        said = next(line for line in words.splitlines() if re.search("connection refused", line, re.I))
        return Happened(last_words(said), [f"in {took:.1f} s", f"{gate.whose} gate counted {more}", "nothing arrived"])

    def sent(self, done, source, *passage):
        """It went, and came by the given Received lines, the first hop first; the first is from `source`."""
        words = done.stdout + done.stderr
        promised(done.returncode == 0, f"exit {done.returncode}: {last_words(words)}")
        taken = re.findall(r"\b250 2\.0\.0 [^\r\n]+", words)
        return self.came(taken[-1] if taken else "taken", source, *passage)

    def came(self, said, source, *passage):
        [mail] = eventually(self.arrived, 60, f"mail for {self.to}")
        hops = list(reversed(mail.message.get_all("Received", [])))
        hops = hops[-len(passage):]  # before these there may be what it did on its own host
        promised(net.address(source, self.family) in hops[0], f"its first hop was not from {source}: {hops[0]}")
        for hop, by in zip(hops, passage, strict=True):
            promised(f"by {by}" in " ".join(hop.split()), f"it did not come by {by}: {' '.join(hop.split())}")
        return Happened(said, [f"arrived at mx.example.com by {passage[-2].split()[0]}" if len(passage) > 1 else
                               "arrived at mx.example.com directly"])


class OurGate:
    whose = "our"

    @staticmethod
    def refused(lab):
        return lab.gate_refused()


class TheirGate:
    whose = "their"

    @staticmethod
    def refused(lab):
        return lab.other_gate_refused()


# The rows


def ours_25(act):
    return act.refused("ordinary", "mail", OurGate,
                       lambda: act.swaks("ordinary", act.name("mx", "example.ne.jp") + ":25"))


def ours_587(act):
    return act.sent(act.msmtp("ordinary", act.name("mail", "example.ne.jp"), 587, "alice", "alice@example.ne.jp"), "ordinary",
                    "mail.example.ne.jp (Kidoban) with ESMTPSA", "mx.example.com (Postfix)")


def theirs_25(act):
    return act.refused("ordinary", "other-mail", OurGate,
                       lambda: act.curl("ordinary", act.name("mx", "example.org"), 25, "ume", "ume@example.org"))


def theirs_587(act):
    return act.sent(act.curl("ordinary", act.name("mail", "example.org"), 587, "ume", "ume@example.org"), "ordinary",
                    "mx.example.org (Postfix) with ESMTPSA", "mx.example.com (Postfix)")


def away_25(act):
    return act.refused("other-user", "mail", TheirGate,
                       lambda: act.msmtp("other-user", act.name("mx", "example.ne.jp"), 25, "alice", "alice@example.ne.jp"))


def away_587(act):
    return act.sent(act.swaks_login("other-user", act.name("mail", "example.ne.jp") + ":587", "alice", "alice@example.ne.jp"),
                    "other-user", "mail.example.ne.jp (Kidoban) with ESMTPSA", "mx.example.com (Postfix)")


def infected(act):
    """Every exchanger there is, and many more addresses that answer, as fast as they refuse."""
    hosts = [net.address(h, act.family) for h in ("mx", "mail", "other-mail")]
    many = [f"192.0.2.{n}" if act.family == 4 else f"2001:db8:300:1::{n:x}" for n in range(129, 166)]
    counted, before = act.lab.gate_refused(), act.lab.gate_impact("infected", act.family)
    reached = sum(act.connections(h, "infected") for h in ("mx", "mail", "other-mail"))
    done = net.run("infected", BOT, "everywhere", "--sender", "win@example.com", "--recipient", act.to, *hosts, *many, check=False)
    promised(done.returncode == 0, f"the bot failed: {last_words(done.stderr)}")
    out = json.loads(done.stdout)
    tried = len(hosts) + len(many)
    promised(out.get("refused") == tried, f"of {tried} tries: {done.stdout.strip()}")
    promised(sum(act.connections(h, "infected") for h in ("mx", "mail", "other-mail")) == reached, "a server was reached")
    more = act.lab.gate_refused() - counted
    promised(more >= tried, f"the gate counted only {more} of {tried}")
    promised(not act.arrived(), "a message arrived")
    line = act.lab.gate_impact("infected", act.family)
    promised(line is not None, "kidoban gate impact does not name the line")
    told = line["refused_connections"] - (before["refused_connections"] if before else 0)
    promised(told >= tried, f"kidoban gate impact has only {told} of {tried}")
    address = net.address("infected", act.family)
    logged = eventually(lambda: [e for e in act.lab.edge.events(event="gate.refused") if e["address"] == address], 60,
                        "the gate's event of the line")
    return Happened(f"{out['refused']} of {tried} connections refused", [f"in {out['seconds']} s",
                    f"our gate counted {more}", f"kidoban gate impact: {line['line']}, {told} more refused, looks like {line['kind']}",
                    f"event gate.refused at {logged[0]['interface']}", "nothing arrived"])


def sendmail(act):
    """On the subscriber's own server: handed to its Postfix. What that says of the message, each time it tries."""
    postfix = act.lab.postfix["server"]
    sender = "owner@server.example.ne.jp"
    net.run("server", "/usr/sbin/sendmail", "-C", postfix.etc, "-f", sender, act.to, text=act.message(sender))
    return lambda status: eventually(
        lambda: re.findall(rf"to=<{re.escape(act.to)}>.* status={status} \((.*)\)", postfix.log()), 60, f"{status}, for {act.to}")


def server_direct(act):
    act.lab.relay_through(None)

    def send():
        return subprocess.CompletedProcess("sendmail", 75, sendmail(act)("deferred")[-1], "")  # as a program that waits would end
    return act.refused("server", "mx", OurGate, send)


def server_relayed(act):
    """And what had to wait in the row before this goes, too."""
    act.lab.relay_through(act.name("mail", "example.ne.jp"))
    said = sendmail(act)("sent")[-1]
    happened = act.came(said, "server", "mail.example.ne.jp (Kidoban) with ESMTPSA", "mx.example.com (Postfix)")
    act.lab.postfix["server"].command("postqueue", "-f", check=True)
    eventually(lambda: not act.lab.postfix["server"].queue(), 60, "an empty queue of the subscriber's server")
    return Happened(happened.said, [*happened.saw, "and so did what had waited"])


def fixed(act):
    counted, exempted = act.lab.gate_refused(), act.lab.gate_exempted()
    happened = act.sent(act.swaks("fixed", act.name("mx", "example.com") + ":25", sender="boss@fixed.example.ne.jp"), "fixed",
                        "mx.example.com (Postfix)")
    promised(act.lab.gate_refused() == counted, "the gate counted a refusal")
    promised(act.lab.gate_exempted() > exempted, "it was not the exemption that let it through")
    return Happened(happened.said, [*happened.saw, "our gate let it through by the exemption"])


def no_auth(act):
    done = act.swaks("other-user", act.name("mail", "example.ne.jp") + ":587", "--tls")
    words = done.stdout + done.stderr
    promised(done.returncode != 0, "it was taken")
    said = re.search(r"\b(530 5\.7\.0 [^\r\n]+)", words)
    promised(said, f"not 530 5.7.0: {last_words(words)}")
    promised(not act.arrived(), "the message arrived")
    return Happened(said[1], ["nothing arrived"])


def spam(act):
    """It sends until its limit stops it; the operator suspends it, and what it left in the queue is held."""
    lab, account = act.lab, f"spam-{act.tag}"
    lab.mail.account_add(account, f"{account}@example.ne.jp")

    def bot(recipients):
        options = [o for r in recipients for o in ("--recipient", r)]
        return json.loads(net.run("ordinary", BOT, "account", "--server", act.name("mail", "example.ne.jp"), "--user", account,
                                  "--password", PASSWORD, "--sender", f"{account}@example.ne.jp", *options).stdout)
    waiting = [f"victim{n}@slow.example.com" for n in range(4)]
    out = bot(waiting + [act.to] * (SPAM - len(waiting)))
    promised(out["sent"] == SPAM_LIMIT, f"{out['sent']} messages were taken: {out['said']}")
    promised(out["said"].startswith("550 5.7.1"), f"not stopped in words: {out['said']}")
    lab.mail.run("account", "suspend", account, "--reason", f"{SPAM} messages at once")
    again = bot([act.to])
    promised(again["sent"] == 0, "a suspended account sent")

    def rest():
        queue = lab.mail.json("queue", "list", "--account", account)
        return queue if all(m["state"] == "suspended" for m in queue) else None
    held = eventually(rest, 60, "a queue in which all of the account is held")
    promised(len(held) >= len(waiting), f"only {len(held)} messages are held")
    return Happened(out["said"], [f"{out['sent']} of {SPAM} taken, then stopped", f"suspended: {again['said']}",
                                  f"its {len(held)} messages still in the queue are held"])


ROWS = [
    Row("on our network", "send with our mail service", 25, "refused", "our gate", ours_25),
    Row("on our network", "send with our mail service", 587, "sent", "the normal case: STARTTLS, SMTP AUTH", ours_587),
    Row("on our network", "send with another provider's mail service", 25, "refused", "our gate", theirs_25),
    Row("on our network", "send with another provider's mail service", 587, "sent", "we do not touch 587", theirs_587),
    Row("on another network that blocks port 25", "send with our mail service", 25, "refused", "their gate", away_25),
    Row("on another network that blocks port 25", "send with our mail service", 587, "sent", "our submission service", away_587),
    Row("an infected computer on our network", "sends straight to mail servers everywhere", 25, "refused, counted, reported",
        "gate and guard", infected),
    Row("a subscriber's own mail server (dynamic address)", "direct to the Internet", 25, "refused", "our gate", server_direct),
    Row("the same server", "relays through us (smart host) with AUTH", 587, "sent", "our submission service", server_relayed),
    Row("a subscriber with a fixed address that was exempted", "direct to the Internet", 25, "sent", "our gate, by policy", fixed),
    Row("anyone, without AUTH", "through our submission service", 587, "refused", "530 5.7.0", no_auth),
    Row("an account of ours that sends spam", "through us", 587, "stopped, the rest of its mail held", "guard", spam),
]


def play(lab, told=lambda row, family, good, said, saw: None):
    """Every row in both families; told of each as it comes. A list of dictionaries, as lab/play --json has them."""
    run = f"{int(time.time()):x}"
    out = []
    for number, row in enumerate(ROWS, 1):
        entry = {k: getattr(row, k) for k in ("where", "does", "port", "result")} | {"by": row.whom}
        for family in (4, 6):
            try:
                happened = row.act(Act(lab, row, number, family, run))
                good, said, saw = True, happened.said, happened.saw
            except AssertionError as e:
                good, said, saw = False, str(e), []
            entry[f"ipv{family}"] = {"as_promised": good, "said": said, "found": saw}
            told(row, family, good, said, saw)
        out.append(entry)
    return out
