"""A house that is a gate only: what starts, what answers, and that mail comes and goes with a restart."""

import json
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from house import KIDOBAN, KIDOBAND, PATIENCE, eventually  # noqa: E402

GATE = "gate: {subscriber_interfaces: [], classes: [{name: a, port25: deny, prefixes: [198.51.100.0/24]}]}\n"


class House:
    def __init__(self, path):
        path.chmod(0o755)
        self.config = path / "kidoban.yaml"
        self.rest = f"processes: {{runtime_directory: {path}/run, state_directory: {path}/state, log: {{events: {path}/log/events.jsonl}}}}\n"
        self.config.write_text(GATE + self.rest)
        (path / "state").mkdir(mode=0o755)
        self.daemon = subprocess.Popen([KIDOBAND, "--config", self.config])

    def run(self, *arguments):
        return subprocess.run([KIDOBAN, "-c", self.config, *arguments], capture_output=True, text=True, timeout=60 * PATIENCE)


@pytest.fixture
def gate(tmp_path):
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    house = House(tmp_path)
    yield house
    house.daemon.terminate()
    assert house.daemon.wait(60 * PATIENCE) == 0


def test_it_starts_what_it_needs(gate):
    eventually(lambda: gate.run("status").returncode == 0, 60 * PATIENCE, "the master")
    status = json.loads(gate.run("status", "--json").stdout)
    assert [p["role"] for p in status["processes"]] == ["guard", "gate"] and status["listen"] == []
    words = gate.run("status").stdout
    assert "guard" in words and not any(mail in words for mail in ("listens on", "submission", "queue", "relay"))
    eventually(lambda: gate.run("audit").returncode == 0, 60 * PATIENCE, "the guard")
    for verb in (["queue", "list"], ["account", "list"]):
        done = gate.run(*verb)
        assert done.returncode == 69 and ".sock" in done.stderr  # at once, and not by a time-out


def test_mail_comes_with_a_restart(gate):
    eventually(lambda: gate.run("reload").returncode == 0, 60 * PATIENCE, "a reload")
    key, certificate = gate.config.with_name("k.pem"), gate.config.with_name("c.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mail.example.org", "-keyout", key, "-out",
                    certificate], check=True, capture_output=True)
    mail = f"submission: {{hostname: mail.example.org, listen: [\"127.0.0.1:5587\"], tls: {{certificate: {certificate}, key: {key}}}}}\n"
    gate.config.write_text(GATE + mail + gate.rest)
    done = gate.run("reload")
    assert done.returncode == 78 and "\"submission\" is new; that takes a restart" in done.stderr
    assert gate.run("check").returncode == 0
    gate.config.write_text(GATE + gate.rest)
    assert gate.run("reload").returncode == 0
