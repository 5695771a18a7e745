"""Inside the lab: subscribers live for a while with the gate in monitor mode, as an operator lets them before it is switched on;
then, what kidoban gate impact says of them. See lab/control.py.

All of them send to port 25, and get through: a mail program to its one provider, a Postfix to many, a bot to everybody, and a
subscriber with an exemption, of whom nothing is told. The gate refuses again afterwards.
"""

import argparse
import contextlib
import json
import random
import sys
import time

import net
import place
import table

KINDS = {"ordinary": "mail-program", "server": "mail-server", "infected": "bot", "fixed": None}
ROUND_SECONDS = 120
BOT_EVERY, BOT_TRIES = 5, 60  # rounds; addresses


class Life:
    def __init__(self, lab, seed):
        self.lab, self.run, self.random = lab, f"m{int(time.time()):x}", random.Random(seed)
        self.sent, self.failed = {}, []

    def note(self, host, done):
        self.sent[host] = self.sent.get(host, 0) + 1
        if done.returncode != 0:
            self.failed.append(f"{host}: {table.last_words(done.stdout + done.stderr)}")

    def ordinary(self, act):
        self.note("ordinary", act.swaks("ordinary", act.name("mx", "example.org") + ":25", "--to", "ume@example.org"))

    def fixed(self, act):
        self.note("fixed", act.swaks("fixed", act.name("mx", "example.com") + ":25", sender="boss@fixed.example.ne.jp"))

    def server(self, companies):
        """A few letters of its office."""
        sender, etc = "owner@server.example.ne.jp", self.lab.postfix["server"].etc
        for company in companies:
            to = f"desk@{company}.example.com"
            self.note("server", net.run("server", "/usr/sbin/sendmail", "-C", etc, "-f", sender, to, check=False,
                                        text=f"From: {sender}\r\nTo: {to}\r\nSubject: an offer\r\n\r\nA line.\r\n"))

    def infected(self, act):
        some = self.random.sample(range(1, 120), BOT_TRIES)
        addresses = [f"192.0.2.{128 + n}" if act.family == 4 else f"2001:db8:300:1::{n:x}" for n in some]
        done = net.run("infected", table.BOT, "everywhere", "--sender", "win@example.com", "--recipient", act.to, *addresses, check=False)
        self.note("infected", done)
        if "refused" in done.stdout:
            self.failed.append(f"infected: {done.stdout.strip()}")

    def round(self, number):
        for family in (4, 6):
            act = table.Act(self.lab, None, number, family, self.run)
            self.ordinary(act)
            self.fixed(act)
            if number % BOT_EVERY == 0:
                self.infected(act)
        companies = list(net.COMPANIES)
        self.server(companies if number == 0 else self.random.sample(companies, 3))


@contextlib.contextmanager
def monitored(lab):
    lab.edge.run("gate", "mode", "monitor", "--reason", "whom would it touch")
    try:
        yield
    finally:
        lab.edge.run("gate", "mode", "enforce", "--reason", "seen")


def live(lab, minutes, told):
    """Rounds until the time is over, at least one. Who lives, with what was sent and what did not get through."""
    seed = int(time.time())
    told(f"subscribers send for {minutes} minutes; the gate is in monitor mode (seed {seed})")
    life, end, number = Life(lab, seed), time.monotonic() + 60 * minutes, 0
    lab.relay_through(None)
    with monitored(lab):
        while number == 0 or time.monotonic() < end:
            begun = time.monotonic()
            life.round(number)
            number += 1
            time.sleep(max(0, min(begun + ROUND_SECONDS, end) - time.monotonic()))
        table.eventually(lambda: not lab.postfix["server"].queue(), 60, "an empty queue of the subscriber's server")
    told(f"{number} rounds: {', '.join(f'{host} sent {count} times' for host, count in life.sent.items())}")
    return life


def verdicts(lab):
    """Of each subscriber's line in each family: what it is, and what kidoban gate impact took it for."""
    out = []
    for host, kind in KINDS.items():
        for family in (4, 6):
            line = lab.gate_impact(host, family, names=True)
            out.append({"host": host, "family": family, "is": kind, "looks_like": line and line["kind"],
                        "noted_connections": line["noted_connections"] if line else 0})
    return out


def main():
    options = argparse.ArgumentParser(prog="lab/monitor")
    options.add_argument("minutes", type=float, nargs="?", default=60)
    options.add_argument("--json", action="store_true")
    args = options.parse_args()
    lab = place.Lab()
    life = live(lab, args.minutes, (lambda words: None) if args.json else lambda words: print("== " + words, flush=True))
    seen = verdicts(lab)
    wrong = [f"{v['host']} over IPv{v['family']} is {v['is']}, but looks like {v['looks_like']}" for v in seen
             if v["is"] != v["looks_like"]]
    if args.json:
        print(json.dumps({"lines": seen, "sent": life.sent, "failed": life.failed + wrong}, indent=1))
    else:
        print(lab.edge.run("gate", "impact").stdout)
        print("\n".join(life.failed + wrong) or "nobody was refused, and each was taken for what it is")
    return 1 if life.failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
