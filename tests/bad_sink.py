"""bad_sink.py LOG CERTIFICATE SOCKET: next hops that behave badly, each at an address of its own, for the tests of deliver alone.

Says "ready" when all of them listen, writes what they took to LOG as JSON lines, and ends with its standard input.
"""
import json
import os
import socket
import socketserver
import ssl
import sys
import threading
import time

# Address of the sink -> how it behaves. The last octet also is the fd00:: suffix where there is one.
SINKS = {
    "127.0.0.11": {},
    "fd00::11": {},
    "127.0.0.12": {"greeting": "421 4.3.2 busy"},
    "127.0.0.13": {"greeting": "554 5.3.2 not here"},
    "127.0.0.14": {"starttls": "broken"},
    "127.0.0.15": {"starttls": "good"},
    "127.0.0.16": {"drop": "MAIL"},
    "127.0.0.17": {"drop": "dot"},
    "127.0.0.18": {"messages": 2},
    "127.0.0.19": {"drop_after": 1},
    "127.0.0.20": {"pipelining": False},
    "127.0.0.21": {"auth": True, "starttls": "good"},
    "127.0.0.22": {"slow": 0.3},
    "127.0.0.23": {"mail_421": True},
    "127.0.0.24": {"utf8": False},
    "127.0.0.25": {"greeting": "521 5.3.2 no mail at all"},
    "127.0.0.26": {"rcptmax": 2},
    "127.0.0.27": {"silent": True},
    "127.0.0.28": {"dsn": False},
    "127.0.0.31": {"starttls": "good", "messages": 1},
    "127.0.0.32": {"starttls": "good", "messages": 1, "tls12": True},
    "127.0.0.33": {"starttls": "forgets", "messages": 1, "tls12": True},
}


class SinkHandler(socketserver.BaseRequestHandler):
    def line(self):
        while b"\r\n" not in self.buffer:
            got = self.request.recv(65536)
            if not got:
                raise ConnectionError
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def say(self, *lines):
        self.request.sendall("".join(l + "\r\n" for l in lines).encode())

    def data(self):
        while b"\r\n.\r\n" not in b"\r\n" + self.buffer:
            got = self.request.recv(1 << 20)
            if not got:
                raise ConnectionError
            self.buffer += got
        body, self.buffer = (b"\r\n" + self.buffer).split(b"\r\n.\r\n", 1)
        return body[2:].replace(b"\r\n..", b"\r\n.") + b"\r\n" if body else b""

    def ehlo(self):
        how, words = self.server.how, ["sink", "8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES"]
        words += ["DSN"] if how.get("dsn", True) else []
        words += ["PIPELINING"] if how.get("pipelining", True) else []
        words += ["SMTPUTF8"] if how.get("utf8", True) else []
        words += ["STARTTLS"] if how.get("starttls") and not self.tls else []
        words += ["AUTH PLAIN LOGIN"] if how.get("auth") else []
        words += [f"LIMITS RCPTMAX={how['rcptmax']}"] if how.get("rcptmax") else []
        self.say(*[f"250-{w}" for w in words[:-1]], f"250 {words[-1]}")

    def log(self, **what):
        with self.server.lock, open(self.server.log, "a") as f:
            f.write(json.dumps(dict(what, at=self.server.name, session=self.session, tls=self.tls,
                                    resumed=self.resumed, login=self.login)) + "\n")

    def handle(self):
        try:
            self.session = f"{self.server.name}/{self.client_address}"
            self.serve()
        except (ConnectionError, OSError):
            pass

    def start_tls(self, how):
        if how["starttls"] == "forgets":  # a host that breaks when a session is resumed
            if b"\x00\x23\x00\x00" not in self.request.recv(4096, socket.MSG_PEEK):  # the ticket is not empty
                raise ConnectionError
        self.request, self.tls = self.server.tls.wrap_socket(self.request, server_side=True), True
        self.resumed = self.request.session_reused

    def message(self, how):
        lmtp = how.get("lmtp")
        self.say("354 go on")
        body = self.data()
        if how.get("drop") == "dot":
            self.log(event="message", sender=self.sender, to=self.to, octets=len(body))
            raise ConnectionError
        self.log(event="message", sender=self.sender, to=self.to, octets=len(body), start=body[:200].decode("latin1"),
                 end=body[-40:].decode("latin1"))
        replies = [f"{to[5:8]} {to[5:6]}.2.0 {to}" if to.startswith("data-") else f"250 2.0.0 taken {to}"
                   for to in (self.to if lmtp else self.to[:1])]
        self.say(*replies)

    def serve(self):
        how, self.buffer, self.tls, self.login = self.server.how, b"", False, ""
        self.resumed = False
        messages = 0
        if how.get("silent"):
            time.sleep(60)
        self.say(how.get("greeting", "220 sink"))
        if "greeting" in how:
            return
        while True:
            line = self.line().decode("utf8", "replace")
            verb = line.split(" ")[0].split(":")[0].upper()
            time.sleep(how.get("slow", 0))
            if verb in ("EHLO", "LHLO"):
                self.ehlo()
            elif verb == "STARTTLS":
                self.say("220 go")
                if how["starttls"] == "broken":
                    self.request.recv(10)
                    self.request.sendall(b"this is no TLS at all")
                    return
                self.start_tls(how)
            elif verb == "AUTH":
                import base64
                self.login = base64.b64decode(line.split(" ")[2]).decode() if line.count(" ") > 1 else ""
                good = self.login == "\0relay\0secret word"
                self.say("235 2.7.0 welcome" if good else "535 5.7.8 no")
            elif verb == "MAIL":
                if how.get("drop") == "MAIL" or (how.get("drop_after") and messages >= how["drop_after"]):
                    self.log(event="dropped")
                    return
                if how.get("mail_421"):
                    self.say("421 4.7.0 later")
                    return
                self.sender, self.to = line[11:].split(">")[0], []
                self.say("250 2.1.0 ok")
            elif verb == "RCPT":
                to = line[9:].split(">")[0]
                if to.startswith("no-"):
                    self.say(f"{to[3:6]} {to[3:4]}.1.1 {to} refused\x1b[2J")
                else:
                    self.to.append(to)
                    self.say("250 2.1.5 ok")
            elif verb == "DATA":
                if not self.to:
                    self.say("503 5.5.1 no recipients")
                    continue
                self.message(how)
                messages += 1
                if how.get("messages") and messages >= how["messages"]:
                    self.say("421 4.7.0 enough")
                    return
            elif verb == "RSET":
                self.say("250 2.0.0 ok")
            elif verb == "QUIT":
                self.log(event="quit", messages=messages)
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("500 5.5.2 what")


def sink_main(log, pem, unix):
    lock = threading.Lock()

    def serve(address, family, how, name):
        base = socketserver.UnixStreamServer if family == socket.AF_UNIX else socketserver.TCPServer
        cls = type("S", (socketserver.ThreadingMixIn, base), {"address_family": family, "daemon_threads": True,
                                                             "allow_reuse_address": True, "request_queue_size": 128})
        server = cls(address, SinkHandler)
        server.how, server.name, server.log, server.lock = how, name, log, lock
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(pem)
        if how.get("tls12"):
            server.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        threading.Thread(target=server.serve_forever, daemon=True).start()

    for a, how in SINKS.items():
        serve((a, 25), socket.AF_INET6 if ":" in a else socket.AF_INET, how, a)
    serve(("127.0.0.11", 24), socket.AF_INET, {"lmtp": True}, "lmtp")
    serve(unix, socket.AF_UNIX, {"lmtp": True, "dsn": False}, "lmtp-unix")
    os.chmod(unix, 0o777)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    sink_main(*sys.argv[1:])
