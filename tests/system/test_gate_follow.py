"""kidoban export flowspec --follow: a real ExaBGP runs it, a real BIRD holds what it says: when an exemption comes, ends or is taken
back, when a mode or the configuration changes, while the keeper is dead."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from house import KIDOBAN, KIDOBAND, PATIENCE, eventually  # noqa: E402
from test_gate_flowspec import BIRD, held  # noqa: E402

EXABGP = """
process policy {{
  run {kidoban} -c {config} export flowspec --follow;
  encoder text;
}}
neighbor 127.0.0.1 {{
  router-id 10.0.0.1;
  local-address 127.0.0.2;
  local-as 65001;
  peer-as 65001;
  family {{ ipv4 flow; ipv6 flow; }}
  api {{ processes [ policy ]; }}
}}
"""
SHUT = "    - {name: shut, port25: deny, prefixes: [10.25.0.0/24, \"fd25::/64\"]}\n"


class House:
    """A gate that only exports: no interface, so nothing is loaded into the kernel."""

    def __init__(self, path):
        for parent in [path, *path.parents[:2]]:
            parent.chmod(0o755)
        self.path = path
        self.config = path / "kidoban.yaml"
        self.write()
        (path / "state").mkdir(mode=0o755)
        self.start()

    def write(self, classes=SHUT):
        p = self.path
        self.config.write_text(f"gate:\n  subscriber_interfaces: []\n  return_path: allow\n  classes:\n{classes}"
                               f"processes: {{runtime_directory: {p}/run, state_directory: {p}/state, log: {{events: {p}/events.jsonl}}}}\n")

    def start(self):
        self.daemon = subprocess.Popen([KIDOBAND, "--config", self.config], stderr=subprocess.DEVNULL, start_new_session=True)
        eventually(lambda: self.run("gate", "status").returncode == 0, 60, "the keeper")

    def stop(self):
        if self.daemon.poll() is None:
            self.daemon.terminate()
            assert self.daemon.wait(60 * PATIENCE) == 0

    def kill(self):
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()

    def run(self, *arguments):
        return subprocess.run([KIDOBAN, "-c", self.config, *arguments], capture_output=True, text=True, timeout=120 * PATIENCE)

    def do(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def house(tmp_path):
    h = House(tmp_path)
    yield h
    h.stop()


def rules(path):
    return sorted((str(r["src"]), "discard" if r["discard"] else "accept") for r in held(path))


BASE = [("10.25.0.0/24", "discard"), ("fd25::/64", "discard")]
OPEN4 = ("10.25.0.7/32", "accept")


def test_bird_follows(house, tmp_path):
    (tmp_path / "bird.conf").write_text(BIRD.format())
    (tmp_path / "exabgp.conf").write_text(EXABGP.format(kidoban=KIDOBAN, config=house.config))
    # Acknowledgements on, as ExaBGP comes: they are read and let go.
    env = dict(os.environ, **{"exabgp.tcp.port": "1790", "exabgp.daemon.user": "root", "exabgp.api.cli": "false"})
    log = open(tmp_path / "exabgp.log", "w")
    bird = subprocess.Popen(["bird", "-f", "-c", tmp_path / "bird.conf", "-s", tmp_path / "ctl"])
    exabgp = subprocess.Popen(["exabgp", tmp_path / "exabgp.conf"], env=env, stdout=log, stderr=log)

    def become(wanted, what):
        try:
            eventually(lambda: rules(tmp_path) == sorted(wanted), 90, what, pause=0.3)
        except AssertionError:
            raise AssertionError(f"{what}: {rules(tmp_path)}\n{(tmp_path / 'exabgp.log').read_text()[-3000:]}") from None

    try:
        become(BASE, "the whole at the start")
        house.do("gate", "exempt", "add", "10.25.0.7", "--until", "20s", "--reason", "a trial")
        house.do("gate", "exempt", "add", "fd25::/64", "--reason", "the whole prefix")
        become([BASE[0], OPEN4], "two exemptions")  # one rule more, one less
        house.do("gate", "exempt", "remove", "fd25::/64", "--reason", "over")
        become([*BASE, OPEN4], "one taken back")
        become(BASE, "the end of the other")
        house.do("gate", "mode", "monitor", "--reason", "a trial")
        become([], "nothing is refused")
        house.do("gate", "mode", "enforce", "--reason", "over")
        become(BASE, "all again")
        house.write(SHUT + "    - {name: fixed, port25: allow, prefixes: [10.25.0.128/25]}\n")
        house.do("reload")
        become([("10.25.0.0/25", "discard"), ("fd25::/64", "discard")], "another configuration")
        house.write()
        house.do("reload")
        house.do("gate", "exempt", "add", "10.25.0.7", "--until", "25s", "--reason", "a trial")
        house.do("gate", "exempt", "add", "10.25.0.8", "--reason", "without end")
        become([*BASE, OPEN4, ("10.25.0.8/32", "accept")], "before the keeper dies")
        house.kill()
        become([*BASE, ("10.25.0.8/32", "accept")], "the end without a keeper")
        house.start()
        house.do("gate", "exempt", "remove", "10.25.0.8", "--reason", "over")
        become(BASE, "the keeper is back")
    finally:
        for p in (exabgp, bird):
            p.terminate()
            p.wait(60)
        log.close()
    followers = subprocess.run(["pgrep", "-f", f"{house.config} export flowspec"], capture_output=True, text=True).stdout
    assert followers == "", "it ends with ExaBGP"


def follow(house, **more):
    return subprocess.Popen([KIDOBAN, "-c", house.config, "export", "flowspec", "--follow"], stdout=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more)


def test_it_ends_when_nobody_reads(house):
    p = follow(house)
    assert [p.stdout.readline().split()[0] for _ in range(2)] == ["announce", "announce"]
    p.stdout.close()
    assert p.wait(60 * PATIENCE) == 0 and p.stderr.read() == ""


def test_without_a_keeper_it_announces_what_is_written(house):
    house.do("gate", "exempt", "add", "10.25.0.7", "--reason", "a trial")
    house.stop()
    p = follow(house)
    lines = [p.stdout.readline() for _ in range(2)]
    assert all("discard" in line for line in lines)
    house.start()
    assert "source 10.25.0.7/32" in p.stdout.readline()
    p.stdout.close()
    assert p.wait(60 * PATIENCE) == 0 and "the gate's keeper" in p.stderr.read()


def test_too_many_rules_leave_what_was_announced(house):
    p = subprocess.Popen([KIDOBAN, "-c", house.config, "export", "flowspec", "--follow", "--budget", "2"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    assert [p.stdout.readline().split()[0] for _ in range(2)] == ["announce", "announce"]
    house.do("gate", "exempt", "add", "10.25.0.7", "--reason", "one too many")
    said = p.stderr.readline() + p.stderr.readline()
    assert "more rules than such a router holds" in said and "stays as it is" in said
    house.do("gate", "exempt", "remove", "10.25.0.7", "--reason", "one too many")
    house.do("gate", "exempt", "add", "10.25.0.0/24", "--reason", "fewer")
    assert p.stdout.readline().startswith("withdraw flow route { match { source 10.25.0.0/24;")
    p.stdout.close()
    assert p.wait(60 * PATIENCE) == 0


def test_only_flowspec_follows(house):
    done = house.run("export", "nft", "--follow")
    assert done.returncode == 64 and "flowspec --follow" in done.stderr
