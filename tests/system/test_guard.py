"""Who may send, how much, and what an operator can do about it."""

import base64
import concurrent.futures
import crypt
import os
import pathlib
import re
import signal
import smtplib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import Kidoband, eventually  # noqa: E402

CANARY = "canary in the coal mine 4711"
WRONG = "wrong-canary-0815"


@pytest.fixture(scope="module")
def house(world):
    limits = [{"name": "hourly", "per": "account", "count": "recipients", "windows": ["20/1h"]}]
    routes = [{"domain": "*", "via": "mx"}]
    with Kidoband(world, "guarded", {"limits": limits, "routes": routes}) as k:
        yield k


def message_id(words):
    return words.split()[-1]


def refusal(house, user, password):
    """The reply to a login that must fail."""
    client = house.connect(login=False)
    try:
        client.login(user, password)
    except smtplib.SMTPAuthenticationError as e:
        return e.smtp_code, e.smtp_error.decode()
    finally:
        client.close()
    raise AssertionError("the login was taken")


def plain(house, user, password):
    """One AUTH PLAIN and its reply; smtplib's login() would try every mechanism."""
    client = house.connect(login=False)
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    code, words = client.docmd("AUTH", f"PLAIN {secret}")
    client.close()
    return code, words.decode()


def test_suspend_and_resume(house):
    house.account_add("mallory", "mallory@example.org")
    mine = dict(sender="mallory@example.org", user="mallory")
    waiting = message_id(house.send("x@down.example", "waits", **mine))
    eventually(lambda: house.events(event="message.deferred", id=waiting), 20, "the deferral")
    open_sessions = [house.connect(user="mallory") for _ in range(4)]
    stranger = house.connect(login=False)
    mistyped = house.run("account", "suspend", "malory", "--reason", "phished on Monday", check=False)
    assert mistyped.returncode != 0 and "malory" in mistyped.stderr
    assert not house.events(event="account.suspended", account="malory")
    house.run("account", "suspend", "mallory", "--reason", "phished on Monday")
    end = time.monotonic() + 1
    for client in open_sessions:
        client.sock.settimeout(max(0.01, end - time.monotonic()))
        reply = client.file.readline() if client.file else client.sock.recv(1000)
        assert reply == b"" or reply.startswith(b"421"), reply
    assert stranger.noop()[0] == 250
    stranger.close()

    code, words = plain(house, "mallory", house.PASSWORD)
    assert code == 535 and "https://mail.example.org/help" in words
    [row] = house.json("queue", "list", waiting)
    assert row["state"] == "suspended"
    assert house.json("account", "show", "mallory")["state"] == "suspended"

    house.run("account", "resume", "mallory")
    assert plain(house, "mallory", house.PASSWORD)[0] == 235
    eventually(lambda: house.json("queue", "list", waiting)[0]["state"] != "suspended", 5, "the release")
    house.run("queue", "remove", waiting, check=False)
    deeds = [(a["what"], a["account"], a.get("reason")) for a in house.json("audit")]
    assert any("suspend" in what and account == "mallory" and reason == "phished on Monday"
               for what, account, reason in deeds)
    assert any("resume" in what and account == "mallory" for what, account, _ in deeds)


def test_suspension_outlives_the_guard_and_the_house(house):
    house.account_add("trudy", "trudy@example.org")
    house.run("account", "suspend", "trudy", "--reason", "again")
    [pid] = house.pids("guard")
    os.kill(pid, signal.SIGKILL)
    house.wait_ready()
    assert plain(house, "trudy", house.PASSWORD)[0] == 535
    house.stop()
    house.start()
    assert plain(house, "trudy", house.PASSWORD)[0] == 535
    house.run("account", "resume", "trudy")
    assert plain(house, "trudy", house.PASSWORD)[0] == 235


def flood(house, user, count, threads=8):
    """count messages of one recipient each, over as many sessions at once; the replies to the refused."""
    def one(i):
        try:
            house.send(f"limit-{user}-{i}@post.example", f"limit {user} {i}", sender=f"{user}@example.org", user=user)
        except (smtplib.SMTPDataError, smtplib.SMTPResponseException) as e:
            return e.smtp_code, e.smtp_error.decode()
        return None
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return [r for r in pool.map(one, range(count)) if r is not None]


def test_limit_is_exact_over_workers_and_across_a_kill(world, house):
    house.account_add("bulk", "bulk@example.org")
    refused = flood(house, "bulk", 40)
    assert len(refused) == 20
    for code, words in refused:
        assert code == 450 and words.startswith("4.7.1 ")
        assert 'Limit "hourly" is reached: ' in words and "20 recipients an hour" in words and "free again at" in words
    world.post.wait("limit-bulk-", 20)
    used = {e["process"] + str(e["pid"]) for e in house.events(event="session.closed", account="bulk")}
    assert len(used) == 2, "both workers took part"
    [row] = [r for r in house.json("limits", "bulk") if r["limit"] == "hourly"]
    assert row["used"] == 20 and row["allowed"] == 20

    house.account_add("killed", "killed@example.org")
    assert flood(house, "killed", 12) == []
    [pid] = house.pids("guard")
    os.kill(pid, signal.SIGKILL)
    house.wait_ready()
    assert len(flood(house, "killed", 12)) == 4
    assert len(world.post.wait("limit-killed-", 20)) == 20


def test_recipients_are_counted_and_refused_messages_are_given_back(house):
    house.account_add("many", "many@example.org")
    mine = dict(sender="many@example.org", user="many")
    with pytest.raises(smtplib.SMTPDataError) as e:
        house.send([f"m{i}@down.example" for i in range(21)], "too many", **mine)
    assert e.value.smtp_code in (450, 550)
    # A message that is refused after 354 was none.
    client = house.connect(user="many")
    assert client.mail("many@example.org")[0] == 250
    for i in range(20):
        assert client.rcpt(f"m{i}@post.example")[0] == 250
    code, _ = client.data(b"From: somebody-else@example.net\r\nSubject: forged\r\n\r\nx\r\n")
    assert code in (550, 553)
    client.close()
    eventually(lambda: all(r["used"] == 0 for r in house.json("limits", "many")), 5, "the refund")
    house.send([f"m{i}@post.example" for i in range(20)], "just enough", **mine)


def test_reports_are_not_counted(world, house):
    house.account_add("reported", "reported@example.org")
    mine = dict(sender="reported@example.org", user="reported")
    identity = message_id(house.send(["refuse-counted@post.example"], "refused", **mine))
    eventually(lambda: house.events(event="message.failed", id=identity), 20, "the failure")
    eventually(lambda: house.events(event="dsn.sent", original=identity), 20, "the report")
    [row] = [r for r in house.json("limits", "reported") if r["limit"] == "hourly"]
    assert row["used"] == 1


def test_app_passwords(house):
    house.account_add("frank", "frank@example.org")
    made = house.json("app-password", "add", "frank", "phone")
    secret = (made[0] if isinstance(made, list) else made)["password"]
    other = house.run("app-password", "add", "frank", "laptop").stdout.strip()
    listed = {r["label"]: r for r in house.json("app-password", "list", "frank")}
    assert not listed["phone"]["last_used"]
    assert plain(house, "frank", secret)[0] == 235
    assert plain(house, "frank", other)[0] == 235
    eventually(lambda: {r["label"]: r for r in house.json("app-password", "list", "frank")}["phone"]["last_used"], 5,
               "last use")
    house.run("app-password", "revoke", "frank", "phone")
    assert plain(house, "frank", secret)[0] == 535
    assert plain(house, "frank", other)[0] == 235
    assert plain(house, "frank", house.PASSWORD)[0] == 235


def without_id(words):
    return re.sub(r"\([0-9a-z]{13}\)", "(id)", words)


def test_wrong_and_unknown_sound_the_same(house):
    house.account_add("known", "known@example.org")
    first, second = plain(house, "known", WRONG), plain(house, "unknown-one", WRONG)
    assert first[0] == 535
    assert first[0] == second[0] and without_id(first[1]) == without_id(second[1])


@pytest.mark.parametrize("kind, salt", [("sha512", "$6$rounds=5000$saltsalt$"),
                                        ("bcrypt", "$2b$05$abcdefghijklmnopqrstuu")])
def test_hashes_are_imported(house, kind, salt):
    name = f"import-{kind}"
    done = house.run("account", "add", name, "--identity", f"{name}@example.org", "--hash-stdin",
                     stdin=crypt.crypt(house.PASSWORD, salt) + "\n")
    assert "added" in done.stdout
    assert plain(house, name, WRONG)[0] == 535
    assert plain(house, name, house.PASSWORD)[0] == 235
    house.send("x@post.example", kind, sender=f"{name}@example.org", user=name)


def test_bad_hash_is_refused(house):
    done = house.run("account", "add", "badhash", "--identity", "badhash@example.org", "--hash-stdin",
                     stdin="not a hash\n", check=False)
    assert done.returncode != 0 and done.stderr
    assert house.run("account", "show", "badhash", check=False).returncode != 0


def test_changed_password(house):
    house.account_add("grace", "grace@example.org")
    assert plain(house, "grace", house.PASSWORD)[0] == 235
    house.run("account", "passwd", "grace", "--password-stdin", stdin="a new one 123\n")
    assert plain(house, "grace", house.PASSWORD)[0] == 535
    assert plain(house, "grace", "a new one 123")[0] == 235
    house.run("account", "remove", "grace")
    assert plain(house, "grace", "a new one 123")[0] == 535


def test_passwords_are_nowhere(house):
    house.account_add("canary", "canary@example.org", password=CANARY)
    assert plain(house, "canary", CANARY)[0] == 235
    assert plain(house, "canary", WRONG)[0] == 535
    client = house.connect(login=False)
    client.docmd("AUTH", "LOGIN")
    client.docmd(base64.b64encode(b"canary").decode())
    client.docmd(base64.b64encode(CANARY.encode()).decode())
    client.close()
    with house.connect(user="canary", password=CANARY) as client:
        client.noop()
    client = house.connect(login=False)
    client.docmd(CANARY)  # typed in the wrong place
    client.close()
    secrets = [CANARY, WRONG]
    secrets += [base64.b64encode(s).decode().rstrip("=")[4:-4] for s in
                (CANARY.encode(), f"\0canary\0{CANARY}".encode(), f"\0canary\0{WRONG}".encode())]
    time.sleep(0.5)
    files = [p for p in house.dir.rglob("*") if p.is_file()]
    assert house.events_file in files
    for path in files:
        octets = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in octets, f"{secret} is in {path}"
