"""Runs the dialogues of tests/rows/*.rows against a real kidoband, over 587 and 465.

The format is in tests/rows/README.md. A test is a row on a port; around each of them:
  every reply is well-formed (RFC 5321 section 4.2), carries an enhanced code of its own class where RFC 2034 wants one;
  afterwards a new connection is greeted;
  at the end what rows say of deliveries is compared with the mailbox of a real Postfix behind the daemon, no process of
  the family died, and no sanitizer spoke.

usage: tests/world.sh /usr/bin/python3 tests/wire_rows.py [--ipv6] [--results FILE] [--verbose] [PATTERN]
"""

import argparse
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import pathlib
import queue
import re
import select
import socket
import ssl
import struct
import sys
import time
import traceback
import warnings

from house import MAIL, MAIL6, PATIENCE, SANITIZED, Kidoband, World

ROWS = pathlib.Path(__file__).resolve().parent / "rows"
PORTS = {"starttls": 587, "implicit": 465}
AT_ONCE = 20
REPLY_SECONDS = 10 * PATIENCE

# Small limits, so that rows reach them. Rows know these numbers.
SETTINGS = {
    "submission": {
        # All there are; -PLUS is not offered by default.
        "auth": {"mechanisms": ["PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256",
                                "SCRAM-SHA-256-PLUS", "EXTERNAL"]},
        "limits": {"message_size": 65536, "header_size": 8192, "recipients": 5, "session_messages": 6,
                   "bad_commands": 8, "auth_failures": 3, "commands": 60, "connections_per_network": 500},
        "timeouts": {"handshake": f"{5 * PATIENCE}s", "command": f"{5 * PATIENCE}s", "data": f"{5 * PATIENCE}s"},
    },
    # Many rows guess wrong on purpose; how guessing is slowed has tests of its own.
    "accounts": {"guesses_free": 1000, "guess_delay": "1s", "guess_delay_max": "2s"},
}
ACCOUNTS = {
    "alice": ("correct horse battery", ["alice@example.org", "sales@example.org", "*@alice.example"]),
    "bob": ("bob's own words", ["bob@example.org"]),
    "suspended": ("was good once", ["suspended@example.org"]),
    "short": ("x", ["short@example.org"]),
    "josé": ("contraseña", ["josé@example.org", "jose@xn--mller-kva.example"]),
}


class Failure(Exception):
    """A row did not go as written."""


# The files


class Row:
    def __init__(self, file, line, name):
        self.file, self.line, self.name = file, line, name
        self.ports = list(PORTS)
        self.steps = []  # (line number, word, rest)
        self.columns, self.values = [], []

    def expanded(self):
        """One row a line of its table."""
        if not self.columns:
            return [(self.name, {})]
        out = []
        for values in self.values:
            if len(values) != len(self.columns):
                raise SystemExit(f"{self.file}:{self.line}: {len(values)} values for {len(self.columns)} columns")
            out.append((f"{self.name} [{values[0]}]", dict(zip(self.columns, values))))
        return out


STEP = re.compile(r"(C:|C>|P>|S:|S~|S\+|S-)(?: (.*))?$|([A-Z][A-Z0-9]*)(?: (.*))?$")


def read_rows(path):
    rows, names = [], set()
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        line = line.lstrip(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("== "):
            rows.append(Row(path.name, number, line[3:].strip()))
            if rows[-1].name in names:
                raise SystemExit(f"{path}:{number}: there is a row of that name already")
            names.add(rows[-1].name)
        elif not rows:
            raise SystemExit(f"{path}:{number}: a row begins with '== name'")
        elif line.startswith("@ "):
            rows[-1].ports = line[2:].split()
        elif line.startswith("EACH "):
            rows[-1].columns = line.split()[1:]
        elif line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().removesuffix("|")[1:])
            rows[-1].values.append([c.strip() for c in cells])
        else:
            step = STEP.match(line)
            word = step and (step.group(1) or step.group(3))
            if not step or (step.group(3) and not hasattr(Play, "do_" + word.lower())):
                raise SystemExit(f"{path}:{number}: not a step: {line}")
            rows[-1].steps.append((number, word, (step.group(2) or step.group(4) or "")))
    return rows


# Text in rows

ESCAPES = {"r": b"\r", "n": b"\n", "0": b"\0", "t": b"\t", "e": b"\x1b", "\\": b"\\", "s": b" ", "{": b"{", "}": b"}",
           "|": b"|"}
PAUSE = object()


def octets_of(text, variables):
    """The octets of a row's text, as a list of runs: between two of them is a pause on the wire."""
    runs, at = [bytearray()], 0
    while at < len(text):
        c = text[at]
        if c == "\\":
            following = text[at + 1]
            at += 2
            if following == "x":
                runs[-1] += bytes([int(text[at:at + 2], 16)])
                at += 2
            elif following == ",":
                runs.append(bytearray())
            else:
                runs[-1] += ESCAPES[following]
        elif c == "{":
            end, depth = at + 1, 1
            while depth:
                skip = 2 if text[end] == "\\" else 1
                depth += {"{": 1, "}": -1}.get(text[end], 0) if skip == 1 else 0
                end += skip
            inner = variable(text[at + 1:end - 1], variables)
            runs[-1] += inner[0]
            runs += [bytearray(r) for r in inner[1:]]
            at = end
        else:
            runs[-1] += c.encode()
            at += 1
    return [bytes(r) for r in runs]


def filled(head, size):
    """head, then lines of text until there are size octets."""
    out, line = bytearray(head), b"x" * 70 + b"\r\n"
    while size - len(out) >= 2 * len(line):
        out += line
    return bytes(out + b"x" * (size - len(out) - 2) + b"\r\n")


def variable(inner, variables):
    if inner in variables:
        return octets_of(variables[inner], variables)
    if inner.startswith("b64:"):
        return [base64.b64encode(b"".join(octets_of(inner[4:], variables)))]
    inner = re.sub(r"^\{(\w+)\}\*", lambda m: variables[m.group(1)] + "*", inner)
    if m := re.match(r"(\d+)\*(.*)$", inner, re.S):
        return [int(m.group(1)) * b"".join(octets_of(m.group(2), variables))]
    if m := re.match(r"(bdat|last):(.*)$", inner, re.S):
        chunk = b"".join(octets_of(m.group(2), variables))
        return [b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if m.group(1) == "last" else b"") + chunk]
    if m := re.match(r"fill:(\d+):(.*)$", inner, re.S):
        return [filled(b"".join(octets_of(m.group(2), variables)), int(m.group(1)))]
    raise Failure(f"no variable {{{inner}}}")


# The wire


class Wire:
    """A TCP connection, in clear or with TLS over memory buffers, so that a row can write beneath TLS."""

    def __init__(self, host, port, source):
        self.socket = socket.create_connection((host, port), timeout=REPLY_SECONDS, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host, self.tls, self.pending, self.ended, self.why = host, None, b"", False, ""

    def raw(self, octets):
        self.socket.sendall(octets)

    def send(self, octets):
        if self.tls is None:
            self.raw(octets)
        else:
            self.tls.write(octets)
            self.raw(self.outgoing.read())

    def _receive(self, deadline):
        """More octets from the peer's socket, b"" at its end; None when the time is over."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.socket], [], [], left)[0]:
            return None
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            self.why = "reset"
            return b""

    def start_tls(self, context, name):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        deadline = time.monotonic() + REPLY_SECONDS
        while True:
            try:
                self.tls.do_handshake()
                self.raw(self.outgoing.read())
                self.pending += self._decrypt()  # with TLS 1.2 the greeting may have come with the last of it
                return
            except ssl.SSLWantReadError:
                self.raw(self.outgoing.read())
                octets = self._receive(deadline)
                if not octets:
                    raise Failure("the handshake was not finished: " + ("closed" if octets == b"" else "time out"))
                self.incoming.write(octets)

    def _decrypt(self):
        out = b""
        while True:
            try:
                octets = self.tls.read(65536)
                if not octets:
                    self.ended = True
                    return out
                out += octets
            except ssl.SSLWantReadError:
                self.raw_if_open(self.outgoing.read())
                return out
            except ssl.SSLError as error:
                self.ended, self.why = True, self.why or error.reason or str(error)
                return out

    def raw_if_open(self, octets):
        if octets:
            with contextlib.suppress(OSError):
                self.raw(octets)

    def more(self, deadline):
        """Reads once into pending. False: time is over or the peer has ended."""
        if self.ended:
            return False
        octets = self._receive(deadline)
        if octets is None:
            return False
        if self.tls is None:
            self.pending += octets
        else:
            self.incoming.write(octets) if octets else self.incoming.write_eof()
            self.pending += self._decrypt()
        self.ended = self.ended or not octets
        return bool(octets) or bool(self.pending)

    def line(self, deadline):
        while b"\n" not in self.pending:
            if not self.more(deadline):
                raise Failure("the server closed" + (f" ({self.why})" if self.why else "") if self.ended
                              else f"no reply within {REPLY_SECONDS} s")
        line, self.pending = self.pending.split(b"\n", 1)
        return line + b"\n"

    def close(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# SCRAM (RFC 5802, RFC 7677), with a hand for mistakes


class Scram:
    def __init__(self, mechanism, options, wire):
        self.hash = "sha1" if "SHA-1" in mechanism else "sha256"
        self.plus = mechanism.endswith("-PLUS")
        self.options, self.wire = options, wire
        self.nonce = base64.b64encode(os.urandom(18)).decode()

    def gs2(self):
        return self.options.get("gs2", "p=tls-server-end-point,," if self.plus else "n,,")

    def first_bare(self):
        name = self.options.get("user", "alice").replace("=", "=3D").replace(",", "=2C")
        return f"n={name},r={self.nonce}"

    def first(self):
        return self.options.get("first", self.gs2() + self.first_bare()).replace("{nonce}", self.nonce).encode()

    def binding(self):
        if "cbind" in self.options:
            return self.options["cbind"].encode()
        data = b""
        if self.gs2().startswith("p="):
            data = hashlib.sha256(self.wire.tls.getpeercert(True)).digest()
        return base64.b64encode(self.gs2().encode() + data)

    def final(self, server_first):
        fields = dict(f.split("=", 1) for f in server_first.decode().split(","))
        if not fields["r"].startswith(self.nonce) or fields["r"] == self.nonce:
            raise Failure(f"the server's nonce does not go on from ours: {fields['r']}")
        if int(fields["i"]) < 4096:
            raise Failure("fewer than 4096 iterations (RFC 7677 section 4)")
        password = self.options.get("password", ACCOUNTS["alice"][0]).encode()
        salted = hashlib.pbkdf2_hmac(self.hash, password, base64.b64decode(fields["s"]), int(fields["i"]))
        nonce = fields["r"]
        if self.options.get("nonce") == "wrong":
            nonce = nonce[:-1] + ("A" if nonce[-1] != "A" else "B")
        elif self.options.get("nonce") == "ours":
            nonce = self.nonce
        without = b"c=" + self.binding() + b",r=" + nonce.encode() + self.options.get("more", "").encode()
        self.message = self.first_bare().encode() + b"," + server_first + b"," + without

        def mac(key, words):
            return hmac.new(key, words, self.hash).digest()
        key = mac(salted, b"Client Key")
        signature = mac(hashlib.new(self.hash, key).digest(), self.message)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        self.server = mac(mac(salted, b"Server Key"), self.message)
        change = self.options.get("proof")
        proof = {"wrong": bytes([proof[0] ^ 1]) + proof[1:], "short": proof[:-1], "long": proof + b"x",
                 "empty": b""}.get(change, proof)
        tail = b"" if change == "missing" else b",p=" + base64.b64encode(proof)
        return self.options["final"].encode() if "final" in self.options else without + tail

    def check_server(self, final):
        if final != b"v=" + base64.b64encode(self.server):
            raise Failure("the server's signature is wrong")


# A row being played


class Play:
    def __init__(self, house, row, name, values, port_kind, source, host):
        self.house, self.row, self.name, self.kind = house, row, name, port_kind
        self.port, self.source, self.host = PORTS[port_kind], source, host
        self.tag = f"t{next(house.tags):06d}z"
        self.variables = {"tag": self.tag, "from": "alice@example.org", "rcpt": f"r{self.tag}@post.example",
                          "rcpt2": f"s{self.tag}@post.example", "rcpt3": f"u{self.tag}@post.example",
                          "user": "alice", "password": ACCOUNTS["alice"][0],
                          "head": "From: <{from}>\\r\\nTo: <{rcpt}>\\r\\nSubject: row {tag}\\r\\n\\r\\n",
                          "plain": "{b64:\\0alice\\0" + ACCOUNTS["alice"][0] + "}", **values}
        self.transcript, self.wire, self.reply, self.split, self.extended = [], None, None, 0, False
        self.delivered, self.checks, self.asked_at = None, [], 0

    # What happens to a row

    def play(self):
        try:
            for number, word, rest in self.row.steps:
                self.at = number
                self.step(word, rest)
        except Failure as failure:
            return self.told(failure)
        except (OSError, ssl.SSLError, ValueError, KeyError, IndexError) as error:
            return self.told(f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-2)}")
        finally:
            if self.wire:
                self.wire.close()
        try:
            self.at = "after it"
            self.do_open("")
            self.wire.close()
        except (Failure, OSError, ssl.SSLError) as error:
            return self.told(f"a new connection was not greeted: {error}")
        return None

    def told(self, words):
        return f"{self.row.file}:{self.at}: {words}\n" + "\n".join("    " + t for t in self.transcript[-24:])

    def step(self, word, rest):
        if word in ("C:", "C>"):
            self.send(rest, b"\r\n" if word == "C:" else b"")
        elif word == "P>":
            for run in octets_of(rest, self.variables):
                self.transcript.append(f"P> {run!r:.200}")
                self.wire.raw(run)
        elif word == "S:":
            self.read()
            self.match_codes(rest)
        elif word == "S~":
            self.read()
            self.match(rest, True)
        elif word in ("S+", "S-"):
            self.match(rest, word == "S+")
        else:
            getattr(self, "do_" + word.lower())(rest)

    def text(self, rest):
        return b"".join(octets_of(rest, self.variables)).decode("utf-8", "surrogateescape")

    def send(self, text, end):
        runs = octets_of(text, self.variables)
        runs[-1] += end
        if self.split:
            whole = b"".join(runs)
            runs = [whole[i:i + self.split] for i in range(0, len(whole), self.split)]
        for i, run in enumerate(runs):
            if i > 0:
                time.sleep(0.002 if self.split else 0.03)
            if run:
                self.transcript.append(f"C> {run!r:.200}")
                self.wire.send(run)
        self.asked_at = time.monotonic()

    def read(self):
        deadline = time.monotonic() + REPLY_SECONDS
        lines = []
        while True:
            line = self.wire.line(deadline)
            self.transcript.append(f"S  {line!r:.200}")
            lines.append(line)
            if not re.fullmatch(rb"[2-5]\d\d[- ][\t\x20-\x7e]*\r\n", line) or len(line) > 512:
                raise Failure(f"a malformed reply line: {line!r}")
            if line[:3] != lines[0][:3]:
                raise Failure(f"two codes in one reply: {lines!r}")
            if line[3:4] == b" ":
                break
        self.reply = [line.decode().rstrip("\r\n") for line in lines]
        self.check_enhanced()

    def check_enhanced(self):
        """RFC 2034: after EHLO, on every line of 2xx, 4xx, 5xx but greeting and the replies to HELO and EHLO."""
        for line in self.reply:
            m = re.match(r"\d{3}[- ](\d)\.\d{1,3}\.\d{1,3}( |$)", line)
            if m and m.group(1) != line[0]:
                raise Failure(f"enhanced code of another class: {line}")
            if not m and self.extended and line[0] in "45":
                raise Failure(f"a refusal without an enhanced code: {line}")

    def match_codes(self, rest):
        wanted = self.text(rest).split()
        code, *more = self.reply[-1].replace("-", " ", 1).split(" ", 2)
        pattern = wanted[0].replace("x", r"\d")
        if not re.fullmatch(pattern, code):
            raise Failure(f"wanted {' '.join(wanted)}, came {self.reply}")
        if len(wanted) > 1 and not re.fullmatch(wanted[1].replace(".", r"\.").replace("x", r"\d+"),
                                                more[0] if more else ""):
            raise Failure(f"wanted {' '.join(wanted)}, came {self.reply}")

    def match(self, rest, wanted):
        text = "\n".join(self.reply)
        if bool(re.search(self.pattern(rest), text, re.M)) != wanted:
            raise Failure(f"{'wanted' if wanted else 'not wanted:'} /{rest}/, came {self.reply}")

    def pattern(self, rest):
        """A regular expression in which {rcpt}, {tag} and so on are replaced."""
        return re.sub(r"\{([a-z]\w*)\}", lambda m: re.escape(self.variables.get(m.group(1), m.group(0))), rest)

    def expect(self, codes):
        self.read()
        self.match_codes(codes)

    # Steps in words

    def do_connect(self, rest):
        if self.wire:
            self.wire.close()
        self.extended = False
        self.wire = Wire(self.host, self.port, self.source)

    def do_open(self, rest):
        """A new connection, greeted (in TLS on 465)."""
        self.do_connect("")
        if self.kind == "implicit":
            self.do_tls(rest)
        self.expect("220")

    def do_tls(self, rest):
        context = self.house.contexts[self.text(rest) or "plain"]
        self.wire.start_tls(context, "mail.example.org")
        self.extended = False
        self.transcript.append(f"-- {self.wire.tls.version()}")

    def do_notls(self, rest):
        """A handshake that must fail."""
        try:
            self.wire.start_tls(self.house.contexts[rest], "mail.example.org")
        except (Failure, ssl.SSLError, OSError):
            return
        raise Failure(f"the handshake with {rest} went well: {self.wire.tls.version()}")

    def do_ehlo(self, rest):
        self.send("EHLO client.example", b"\r\n")
        self.expect("250")
        self.extended = True

    def do_hello(self, rest):
        """In TLS and greeted: what AUTH needs."""
        if not self.wire or self.wire.ended or self.wire.tls:
            self.do_open(rest)
        if self.kind == "starttls":
            self.do_ehlo("")
            self.send("STARTTLS", b"\r\n")
            self.expect("220")
            self.do_tls(rest)
        self.do_ehlo("")

    def do_auth(self, rest):
        user = rest or "alice"
        self.send("AUTH PLAIN {b64:\\0" + user + "\\0" + ACCOUNTS[user][0] + "}", b"\r\n")
        self.expect("235 2.7.0")

    def do_ready(self, rest):
        self.do_hello("")
        self.do_auth(rest)

    def do_envelope(self, rest):
        self.send("MAIL FROM:<{from}> " + rest if rest else "MAIL FROM:<{from}>", b"\r\n")
        self.expect("250 2.1.0")
        self.send("RCPT TO:<{rcpt}>", b"\r\n")
        self.expect("250 2.1.5")

    def do_data(self, rest):
        self.send("DATA", b"\r\n")
        self.expect("354")

    def do_header(self, rest):
        self.send("{head}", b"")

    def do_message(self, rest):
        """A whole small message after READY."""
        self.do_envelope("")
        self.do_data("")
        self.do_header("")
        self.send("x\\r\\n.\\r\\n", b"")
        self.expect("250 2.0.0")

    def do_split(self, rest):
        self.split = int(rest or 0)

    def do_scram(self, rest):
        mechanism, *words = self.text(rest).split()
        options = dict(w.split("=", 1) for w in words)
        options = {k: v.replace("+", " ") for k, v in options.items()}
        scram = Scram(mechanism, options, self.wire)
        first = base64.b64encode(scram.first()).decode()
        if options.get("initial") == "no":
            self.send(f"AUTH {mechanism}", b"\r\n")
            self.read()
            self.match(r"^334 ?$", True)
            self.send(first, b"\r\n")
        else:
            self.send(f"AUTH {mechanism} {first}", b"\r\n")
        if options.get("until") == "first":
            return
        self.read()
        if not self.reply[0].startswith("334"):
            self.pushed_back()
            return
        server_first = base64.b64decode(self.reply[0][4:])
        self.send(base64.b64encode(scram.final(server_first)).decode(), b"\r\n")
        self.read()
        if not self.reply[0].startswith("334"):
            self.pushed_back()
            return
        scram.check_server(base64.b64decode(self.reply[0][4:]))
        self.send(options.get("last", ""), b"\r\n")

    def pushed_back(self):
        """The reply that was read is the one the row's next S: is about."""
        self.wire.pending = ("\r\n".join(self.reply) + "\r\n").encode() + self.wire.pending

    def do_close(self, rest):
        self.wire.close()

    def do_reset(self, rest):
        self.wire.close(reset=True)

    def do_notify(self, rest):
        """TLS ends by our close_notify; the TCP connection stays."""
        with contextlib.suppress(ssl.SSLError):
            self.wire.tls.unwrap()
        self.wire.raw(self.wire.outgoing.read())

    def do_half(self, rest):
        """We send no more (TCP FIN), and still read."""
        self.wire.socket.shutdown(socket.SHUT_WR)

    def do_closed(self, rest):
        """The server ends the connection; it says nothing more, unless the step has "any"."""
        deadline = time.monotonic() + float(rest if rest and rest != "any" else REPLY_SECONDS)
        while self.wire.more(deadline):
            pass
        if not self.wire.ended:
            raise Failure("the connection is still open")
        if self.wire.pending and rest != "any":
            raise Failure(f"before the end came {self.wire.pending!r}")

    def do_alive(self, rest):
        self.send("NOOP", b"\r\n")
        self.expect("250 2.0.0" if self.extended else "250")

    def do_silent(self, rest):
        if self.wire.more(time.monotonic() + float(rest or 0.3)) or self.wire.pending or self.wire.ended:
            raise Failure(f"something came: {self.wire.pending!r}" if self.wire.pending else "the server closed")

    def do_wait(self, rest):
        time.sleep(float(rest) * PATIENCE)

    def do_within(self, rest):
        took = time.monotonic() - self.asked_at
        if took > float(rest) * PATIENCE:
            raise Failure(f"the reply took {took:.1f} s")

    # What must have arrived, looked at when all rows were played

    def do_delivered(self, rest):
        self.delivered = int(rest)

    def do_nothing(self, rest):
        self.delivered = 0

    def do_has(self, rest):
        self.checks.append((self.at, True, rest))

    def do_lacks(self, rest):
        self.checks.append((self.at, False, rest))

    def do_body(self, rest):
        self.checks.append((self.at, None, rest))

    def judge(self, messages):
        if self.delivered is None and not self.checks:
            return None
        self.at = self.row.line
        if len(messages) != (self.delivered if self.delivered is not None else 1):
            return self.told(f"{len(messages)} messages arrived")
        for self.at, wanted, rest in self.checks:
            octets = messages[0].own_octets()
            if wanted is None:
                want = b"".join(octets_of(rest, self.variables)).replace(b"\r\n", b"\n")
                body = octets.split(b"\n\n", 1)[-1]
                if body != want:
                    return self.told(f"the body is {body!r:.300}, not {want!r:.300}")
            elif bool(re.search(self.pattern(rest), octets.decode("utf-8", "replace"), re.M)) != wanted:
                return self.told(f"/{rest}/ {'is not' if wanted else 'is'} in what arrived:\n{octets.decode('utf-8', 'replace')}")
        return None


class House:
    """The rows' kidoband and what all rows share."""

    def __init__(self, world, kidoband, ipv6):
        self.world, self.kidoband = world, kidoband
        self.tags = itertools.count(1)
        self.contexts = {"plain": world.client_context(), "certificate": world.client_context(certificate="alice"),
                         "stranger": world.client_context(certificate="stranger"),
                         "1.2": world.client_context(ssl.TLSVersion.TLSv1_2),
                         "1.3": world.client_context(ssl.TLSVersion.TLSv1_3)}
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        self.contexts["1.1"] = old
        self.host = MAIL6 if ipv6 else MAIL
        self.sources = queue.SimpleQueue()
        for n in range(1, AT_ONCE + 1):
            self.sources.put(f"fd00:0:{n}::7" if ipv6 else f"127.1.{n}.7")

    def add_accounts(self):
        for name, (password, identities) in ACCOUNTS.items():
            self.kidoband.account_add(name, *identities, password=password)
        self.kidoband.run("account", "certificate", "add", "alice", self.world.fingerprint("alice"))
        self.kidoband.run("account", "suspend", "suspended", "--reason", "a row")

    def play(self, row, name, values, kind):
        source = self.sources.get()
        try:
            play = Play(self, row, name, values, kind, source, self.host)
            return play, play.play()
        finally:
            self.sources.put(source)


def selected(pattern):
    rows = [r for path in sorted(ROWS.glob("*.rows")) for r in read_rows(path)]
    chosen = [(row, name, values, kind) for row in rows for name, values in row.expanded() for kind in row.ports]
    # Rows that wait go first, so that the others fill the time.
    chosen.sort(key=lambda c: not any(w == "WAIT" for _, w, _ in c[0].steps))
    return [c for c in chosen if pattern in f"{c[0].file}: {c[1]} ({PORTS[c[3]]})"]


def after_all(kidoband):
    """What must be true when all rows were played: name -> failure or None."""
    checks = {}
    status = kidoband.status()
    restarts = {f"{p['role']} {p['instance']}": p["restarts"] for p in status["processes"]} if status else None
    checks["no process died"] = None if restarts and not any(restarts.values()) else f"restarts: {restarts}"
    spoken = [line for line in kidoband.stderr().splitlines()
              if re.search(r"Sanitizer|runtime error|assertion|core dumped", line)]
    checks["no sanitizer spoke"] = "\n".join(spoken[:40]) or None
    left = kidoband.queue()
    checks["the queue is empty"] = f"{len(left)} messages are left: {left[:3]}" if left else None
    words = [ACCOUNTS["alice"][0], base64.b64encode(f"\0alice\0{ACCOUNTS['alice'][0]}".encode()).decode()]
    logged = kidoband.stderr() + kidoband.events_file.read_text("utf-8", "replace")
    checks["no password was logged"] = next((f"{w!r} is in a log" for w in words if w in logged), None)
    odd = re.search(r"[\x00-\x08\x0b-\x1f\x7f]", logged)
    checks["no control octet was logged"] = f"{odd.group(0)!r}" if odd else None
    return checks


def main():
    options = argparse.ArgumentParser()
    options.add_argument("pattern", nargs="?", default="")
    options.add_argument("--ipv6", action="store_true")
    options.add_argument("--results", help="a JSON file: passed, failed, failures")
    options.add_argument("--list", action="store_true", help="only say which rows there are")
    options.add_argument("--verbose", action="store_true")
    args = options.parse_args()
    chosen = selected(args.pattern)
    if args.list:
        for row, name, _, kind in chosen:
            print(f"{row.file}: {name} ({PORTS[kind]})")
        return 0
    started, results = time.monotonic(), []
    with World() as world, Kidoband(world, settings=SETTINGS) as kidoband:
        house = House(world, kidoband, args.ipv6)
        house.add_accounts()
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            plays = [f.result() for f in [pool.submit(house.play, *c) for c in chosen]]
        with contextlib.suppress(AssertionError):  # said by the check of the queue below
            kidoband.settle()
        arrived = {}
        for message in world.post.all():
            for tag in set(re.findall(r"t\d{6}z", " ".join(message.recipients))):
                arrived.setdefault(tag, []).append(message)
        for play, failure in plays:
            failure = failure or play.judge(arrived.get(play.tag, []))
            results.append((f"{play.row.file}: {play.name} ({play.port})", failure))
        results += [(f"rows: {name}", failure) for name, failure in after_all(kidoband).items()]
    failures = {name: failure for name, failure in results if failure}
    for name, failure in results:
        if failure or args.verbose:
            print(f"{'FAILED' if failure else 'ok'}  {name}" + (f"\n  {failure}" if failure else ""))
    build = "sanitizer" if SANITIZED else "plain"
    print(f"rows over IPv{6 if args.ipv6 else 4}, {build} build: {len(results) - len(failures)} good, "
          f"{len(failures)} bad, {time.monotonic() - started:.0f} s")
    if args.results:
        pathlib.Path(args.results).write_text(json.dumps(
            {"passed": len(results) - len(failures), "failed": len(failures), "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
