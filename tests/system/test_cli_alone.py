"""kidoban(1) alone: files of events, and unix sockets on which this file answers as the daemon would."""

import contextlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
KIDOBAN = BUILD / "src/cli/kidoban"

# Ids: 13 characters of Crockford's base 32.
SESSION, MESSAGE, OTHER, REPORT, LONE = (f"0cm5c9dn2400{c}" for c in "12345")


@pytest.fixture
def place(tmp_path):
    """A configuration, its event file's path, a directory for sockets."""
    return Place(tmp_path)


class Place:
    def __init__(self, path):
        self.path, self.events, self.config = path, path / "events.jsonl", path / "kidoban.yaml"
        self.requests = []
        self.config.write_text(f"""
submission:
  hostname: mail.example.net
  tls: {{certificate: {path}/c.pem, key: {path}/k.pem}}
processes:
  runtime_directory: {path}
  log: {{events: {self.events}, events_kept: 2}}
""")

    def run(self, *arguments, text="", config=True):
        head = ["-c", self.config] if config else []
        done = subprocess.run([KIDOBAN, *head, *arguments], input=text, capture_output=True, text=True, timeout=30,
                              env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
        assert done.returncode >= 0 and "Sanitizer" not in done.stderr, done.stderr
        return done

    def write(self, *events, path=None):
        with open(path or self.events, "a") as f:
            for n, e in enumerate(events):
                head = {"time": f"2026-11-24T10:00:0{n}.000Z", "level": "info", "process": "spool", "pid": 1}
                f.write(json.dumps(head | e, separators=(",", ":"), ensure_ascii=False) + "\n")

    @contextlib.contextmanager
    def owner(self, name, *answers):
        """Listens as the owner of a fact; each question gets the next answer, a list of lines."""
        path = self.path / f"{name}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        left = list(answers)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rw") as f:
                    line = f.readline()
                    if line:
                        self.requests.append(json.loads(line))
                        f.write("".join(a if isinstance(a, str) else json.dumps(a) + "\n" for a in left.pop(0)))

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            path.unlink()


STORY = [
    {"event": "auth.succeeded", "process": "vault", "session": SESSION, "account": "alice", "address": "192.0.2.7",
     "mechanism": "PLAIN"},
    {"event": "message.stored", "id": MESSAGE, "session": SESSION, "account": "alice", "sender": "alice@example.net",
     "recipients": 2, "octets": 900, "message_id": "m1@client.example"},
    {"event": "message.delivered", "id": MESSAGE, "recipient": "bob@example.org", "remote": "mx.example.org",
     "address": "198.51.100.25", "tls": "TLSv1.3", "code": 250, "words": "2.0.0 taken"},
    {"event": "message.failed", "level": "warn", "id": MESSAGE, "recipient": "carol@example.org", "attempt": 1, "code": 550,
     "words": "5.1.1 nobody"},
    {"event": "dsn.sent", "id": REPORT, "original": MESSAGE, "kind": "failure", "recipients": 1, "to": "alice@example.net"},
    {"event": "message.delivered", "id": REPORT, "recipient": "alice@example.net", "remote": "lmtp", "code": 250},
    {"event": "message.stored", "id": OTHER, "session": SESSION, "account": "alice", "sender": "alice@example.net",
     "recipients": 1, "octets": 10, "message_id": "m2@client.example"},
    {"event": "session.closed", "process": "submit", "session": SESSION, "account": "alice", "address": "192.0.2.7",
     "service": "587", "messages": 2, "reason": "quit"},
    {"event": "auth.failed", "process": "vault", "session": LONE, "account": "mallory", "address": "203.0.113.9",
     "mechanism": "PLAIN", "reason": "wrong password"},
]
OF_MESSAGE = [("auth.succeeded", None), ("message.stored", MESSAGE), ("message.delivered", MESSAGE),
              ("message.failed", MESSAGE), ("dsn.sent", REPORT), ("message.delivered", REPORT), ("session.closed", None)]


@pytest.mark.parametrize("word", [MESSAGE, MESSAGE.upper(), REPORT, "m1@client.example", "<m1@client.example>",
                                  "bob@example.org", "carol@example.org", "Carol@Example.ORG"])
def test_trace_follows(place, word):
    place.write(*STORY[:2], path=f"{place.events}.2")
    place.write(*STORY[2:4], path=f"{place.events}.1")
    place.write(*STORY[4:])
    done = place.run("trace", word, "--json")
    assert done.returncode == 0
    assert [(e["event"], e.get("id")) for e in json.loads(done.stdout)] == OF_MESSAGE


def test_trace_of_a_session_has_all_its_messages(place):
    place.write(*STORY)
    names = [(e["event"], e.get("id")) for e in json.loads(place.run("trace", SESSION, "--json").stdout)]
    assert sorted(map(str, names)) == sorted(map(str, [*OF_MESSAGE, ("message.stored", OTHER)]))


def test_trace_of_a_failed_login(place):
    place.write(*STORY)
    assert [e["session"] for e in json.loads(place.run("trace", "mallory", "--json").stdout)] == [LONE]


def test_trace_for_people(place):
    place.write(*STORY)
    done = place.run("trace", MESSAGE)
    assert "message.delivered     <bob@example.org> to mx.example.org 198.51.100.25, TLSv1.3: 250 2.0.0 taken\n" in done.stdout
    assert "message.failed        <carol@example.org> try 1: 550 5.1.1 nobody\n" in done.stdout
    assert f"  {REPORT}  spool    dsn.sent " in done.stdout
    assert "kidoband does not answer" in done.stdout
    assert "\033" not in done.stdout


def test_trace_says_what_is_next(place):
    place.write(*STORY)
    waits = {"id": MESSAGE, "state": "waiting", "next": "2026-11-24T12:00:00Z", "recipients": ["carol@example.org"]}
    with place.owner("spool", [waits, {"count": 1, "busy": 0, "missing": 1, "done": True}]):
        done = place.run("trace", MESSAGE)
    assert done.stdout.endswith(f"{MESSAGE} is in the queue, waiting, next try 2026-11-24T12:00:00Z; 1 recipients left\n")
    assert sorted(place.requests[-1]["ids"]) == [MESSAGE, REPORT]
    with place.owner("spool", [{"count": 0, "busy": 0, "missing": 2, "done": True}]):
        assert place.run("trace", MESSAGE).stdout.endswith("nothing of it is in the queue any more\n")


def test_trace_of_words_of_a_stranger(place):
    """What an event quotes moves no terminal, and is no id."""
    bad = "a\u001b]0;x\u0007\u009b1m\u202eevil"
    place.write({"event": "message.deferred", "id": MESSAGE, "recipient": bad, "words": f'","id":"{OTHER}","x":"'},
                {"event": "some.other", "id": MESSAGE, "words": bad})
    out = place.run("trace", MESSAGE).stdout
    assert not re.search("[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]", out) and out.count("evil") == 2
    assert place.run("trace", OTHER).returncode == 1
    assert place.run("trace", f'","id":"{OTHER}","x":"', "--json").returncode == 0


def test_trace_survives_odd_files(place):
    place.events.write_bytes(b'\n{"id":"\n{"id":"' + MESSAGE.encode() + b'","event":1}\n[1]\n\xff\xfe\n{"id":"' + MESSAGE.encode())
    done = place.run("trace", MESSAGE, "--json")
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 1


def test_trace_of_nothing(place):
    assert place.run("trace", "x@y.example").returncode == 66  # no file
    place.events.write_text("")
    done = place.run("trace", "x@y.example")
    assert done.returncode == 1 and "nothing is known of x@y.example" in done.stderr
    assert place.run("trace").returncode == place.run("trace", "").returncode == place.run("trace", "a", "b").returncode == 64


# The control protocol


def test_error_of_the_owner(place):
    with place.owner("vault", [{"error": "there is no account bob\u001b[2J", "status": 1, "done": True}]):
        done = place.run("account", "show", "bob")
    assert done.returncode == 1 and done.stderr == "kidoban: there is no account bob?[2J\n"


@pytest.mark.parametrize("answer,status", [([], 69), (["not json\n"], 76), (["[1]\n"], 76),
                                           ([{"error": "x", "status": 0, "done": True}], 70),
                                           ([{"error": "x", "status": -1, "done": True}], 70),
                                           ([{"error": "x", "done": True}], 70)])
def test_owner_that_misbehaves(place, answer, status):
    with place.owner("vault", answer):
        assert place.run("account", "show", "bob").returncode == status


def test_nobody_there(place):
    done = place.run("status")
    assert done.returncode == 69 and "is kidoband running?" in done.stderr


def test_reload_prints_complaints_as_they_are(place):
    words = "kidoban.yaml:3:5: a\nkidoban.yaml:4:1: b\n"
    with place.owner("master", [{"error": words, "status": 78, "done": True}]):
        done = place.run("reload")
    assert done.returncode == 78 and done.stderr == words


def test_account_list(place):
    rows = [{"name": "alice", "state": "active", "app_passwords": 1, "identities": ["alice@example.net", "*@a.example"]}]
    with place.owner("vault", [*rows, {"done": True}], [*rows, {"done": True}], [{"done": True}]):
        assert "alice@example.net, *@a.example" in place.run("account", "list").stdout
        assert json.loads(place.run("account", "list", "--json").stdout) == rows
        assert json.loads(place.run("--json", "account", "list").stdout) == []


@pytest.mark.parametrize("form", [["--identity", "a@b.example"], ["--identity=a@b.example"]])
def test_account_add(place, form):
    with place.owner("vault", [{"done": True}]):
        done = place.run("account", "add", "bob", *form, "--password-stdin", text="s3cret pass\nrest\n")
    assert done.returncode == 0
    assert place.requests == [{"verb": "account.add", "name": "bob", "identities": ["a@b.example"], "password": "s3cret pass"}]


@pytest.mark.parametrize("text", ["", "\n", "x" * 1025 + "\n", "a\0b\n"])
def test_password_that_is_none(place, text):
    assert place.run("account", "passwd", "bob", "--password-stdin", text=text).returncode == 64


def test_password_needs_a_terminal_or_the_option(place):
    assert "--password-stdin" in place.run("account", "passwd", "bob", text="x\n").stderr


def at_terminal(place, *arguments):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(KIDOBAN, ["kidoban", "-c", str(place.config), *arguments])
    return pid, fd


def read_until(fd, word):
    seen, end = b"", time.monotonic() + 20
    while word not in seen and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 4096)
            except OSError:
                break
    return seen


def test_password_at_the_terminal(place):
    with place.owner("vault", [{"done": True}]):
        pid, fd = at_terminal(place, "account", "passwd", "bob")
        shown = read_until(fd, b"Password: ")
        os.write(fd, b"hush\n")
        shown += read_until(fd, b"Once more: ")
        os.write(fd, b"hush\n")
        shown += read_until(fd, b"never there")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(fd)
    assert b"hush" not in shown and place.requests[0]["password"] == "hush"


def test_the_two_are_not_the_same(place):
    pid, fd = at_terminal(place, "account", "passwd", "bob")
    for prompt, word in ((b"Password: ", b"one\n"), (b"Once more: ", b"two\n")):
        read_until(fd, prompt)
        os.write(fd, word)
    assert b"not the same" in read_until(fd, b"changed")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 64
    os.close(fd)


def test_interrupt_at_the_prompt_gives_the_echo_back(place):
    import termios
    pid, fd = at_terminal(place, "account", "passwd", "bob")
    read_until(fd, b"Password: ")
    assert not termios.tcgetattr(fd)[3] & termios.ECHO
    os.write(fd, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT
    assert termios.tcgetattr(fd)[3] & termios.ECHO
    os.close(fd)


def test_import(place):
    good = [{"name": f"u{i}", "hash": "$y$x", "identities": [f"u{i}@a.example"]} for i in range(1500)]
    lines = [json.dumps(a) for a in good]
    lines[3:3] = ["", "not json", "[]"]
    with place.owner("vault", [{"index": 4, "name": "u4", "error": "there is one already"}, {"added": 999, "refused": 1, "done": True}],
                     [{"added": 500, "refused": 0, "done": True}]):
        done = place.run("account", "import", "--json", text="\n".join(lines))
    assert done.returncode == 1 and "1499 accounts added" in done.stderr
    assert [(r["line"], r["name"]) for r in json.loads(done.stdout)] == [(5, ""), (6, ""), (8, "u4")]
    assert [a for r in place.requests for a in r["accounts"]] == good


def test_queue_acts(place):
    whole = {"count": 2, "delivering": 0, "missing": 0, "done": True}
    part = {"count": 2, "delivering": 1, "missing": 1, "done": True}
    with place.owner("spool", [whole], [part]):
        done = place.run("queue", "hold", "--account", "alice", "--domain", "b.example")
        assert (done.returncode, done.stdout) == (0, "2 messages held\n")
        done = place.run("queue", "remove", MESSAGE, OTHER, REPORT)
        assert done.returncode == 1 and "2 messages removed, 1 of them when" in done.stdout and "1 not in the queue" in done.stdout
    assert place.requests == [{"verb": "queue.hold", "account": "alice", "domain": "b.example"},
                              {"verb": "queue.remove", "ids": [MESSAGE, OTHER, REPORT]}]
    assert place.run("queue", "remove").returncode == 64


def test_audit_options(place):
    with place.owner("guard", [{"done": True}]):
        assert place.run("audit", "--account", "alice", "--count", "5").returncode == 0
    assert place.requests == [{"verb": "audit.list", "account": "alice", "count": 5}]
    assert place.run("audit", "--count", "five").returncode == 64


# The configuration


def test_check(place, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("submision: {}\n")
    done = place.run("check", bad, "--json")
    complaints = json.loads(done.stdout)
    assert done.returncode == 1 and not done.stderr
    assert complaints[0] == {"file": str(bad), "line": 1, "column": 1, "text": 'unknown key "submision"; did you mean "submission"?'} \
        or any("did you mean" in c["text"] for c in complaints)
    assert place.run("check", "--json").returncode == 1  # no certificate
    assert place.run("check", tmp_path / "nowhere").returncode == 66
    assert place.run("check", tmp_path).returncode == 66  # a directory
    assert place.run("trace", "x", config=False).returncode in (66, 78)


def test_help(place):
    text = place.run("--help").stdout
    verbs = re.findall(r"^  ((?:account |app-password |gate |queue |spool )?[a-z]+)", text, re.M)
    assert len(verbs) > 25
    for verb in verbs:
        done = place.run(*verb.split(), "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: kidoban {verb}")
        assert place.run("help", *verb.split()).stdout == done.stdout
    assert place.run().returncode == place.run("nonsense").returncode == place.run("queue", "nonsense").returncode == 64
    assert "kidoban queue list" in place.run("queue", "nonsense").stderr
