"""./run and the lab that it leaves up, as somebody types it at a terminal; every row of the table; the gate without its keeper."""

import contextlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parents[2] / "lab")]
import house  # noqa: E402
import net  # noqa: E402

SECONDS = 280  # there may be something to build


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, environment, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(house.TREE)
            os.execvpe(argv[0], argv, environment)
        self.seen, self.at = "", 0

    def wait_for(self, pattern, seconds=SECONDS):
        """The match, in what came since the last one."""
        end = time.monotonic() + seconds
        while not (found := re.compile(pattern, re.S).search(self.seen, self.at)):
            assert time.monotonic() < end, f"{pattern} did not come in:\n{self.seen[-3000:]}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.read(pattern)
        self.at = found.end()
        return found

    def read(self, awaited):
        try:
            octets = os.read(self.fd, 65536)
        except OSError:  # Linux's way to say that nobody holds the other end
            octets = b""
        assert octets or not awaited, f"ended before {awaited} came:\n{self.seen[-3000:]}"
        self.seen += octets.decode("utf-8", "replace").replace("\r\n", "\n")
        return octets

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Its exit status, when it has said all."""
        while self.read(""):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class TheLab:
    """The lab of one ./run, with notes of its own, so that another that is up stays as it is."""

    def __init__(self, notes):
        self.notes = notes
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KIDOBAN_")}
        self.environment = kept | {"KIDOBAN_LAB": str(notes)}

    def verb(self, *argv, status=0, seconds=SECONDS):
        """lab/NAME with arguments; what it printed."""
        done = subprocess.run([house.TREE / "lab" / argv[0], *map(str, argv[1:])], cwd=house.TREE, capture_output=True, text=True,
                              timeout=seconds, env=self.environment, stdin=subprocess.DEVNULL)
        assert status is None or done.returncode == status, (argv, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def on(self, host, *command, status=0):
        return self.verb("enter", host, *command, status=status)

    def json(self, host, *command):
        return json.loads(self.on(host, *command, "--json"))


def of_the_machine():
    """What the lab must leave alone."""
    shown = [subprocess.run(["ip", "-details", *what], capture_output=True, text=True, check=True).stdout
             for what in (("link",), ("address",), ("route", "show", "table", "all"), ("-6", "route", "show", "table", "all"), ("netns",))]
    return shown + [pathlib.Path("/proc/sys/net", key).read_text() for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """./run, once; its words are in lab.said."""
    one = TheLab(tmp_path_factory.mktemp("lab"))
    before = of_the_machine()
    terminal = Terminal(one.environment, "./run")
    try:
        terminal.wait_for(r"lab/down\s")
        one.status, one.said = terminal.end(), terminal.seen
        one.machine_before, one.machine_after = before, of_the_machine()
        yield one
    finally:
        terminal.kill()
        one.verb("down", status=None)


def test_run(lab):
    assert lab.status == 0, lab.said[-6000:]
    assert "\x1b[32m24 as promised, 0 not" in lab.said  # in colour: it is a terminal
    number = re.search(r"in the words of kidoban trace (\w+):", lab.said)[1]
    assert re.search(rf"{number} .*message\.stored", lab.said) and re.search(rf"{number} .*message\.delivered", lab.said)


def test_run_takes_no_options():
    done = subprocess.run(["./run", "--nonsense"], cwd=house.TREE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 64 and "usage:" in done.stderr


def test_it_touches_nothing_of_the_machine(lab):
    assert lab.machine_before == lab.machine_after


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("number", range(1, 13))
def test_row(lab, number, family):
    """The table of the promise, row by row."""
    rows = json.loads((lab.notes / "table.json").read_text())
    assert len(rows) == 12
    assert rows[number - 1][family]["as_promised"], rows[number - 1]


def test_what_it_says_to_type(lab):
    """The commands that ./run names at its end, as they stand there."""
    commands = re.findall(r"\n +(lab/enter (?:.*\\\n)*.*)", lab.said.split("The lab stays up", 1)[1])
    assert len(commands) >= 7
    for command in commands:
        if command.split() == ["lab/enter", "edge", "a", "shell", "on", "our", "router"]:
            continue
        command = re.split(r"  +(?=the gate;)", command)[0]
        done = subprocess.run(["bash", "-c", command], cwd=house.TREE, env=lab.environment, capture_output=True, text=True, timeout=SECONDS,
                              stdin=subprocess.DEVNULL)
        refused = "ordinary swaks --server mx" in command or "gate test" in command
        assert (done.returncode != 0) == refused, (command, done.stdout, done.stderr)
        assert not refused or re.search("connection refused|refuse", done.stdout + done.stderr, re.I), (command, done.stdout)


def test_shell(lab):
    shell = Terminal(lab.environment, "lab/enter", "edge")
    try:
        shell.wait_for(r"edge:\S*# ")
        shell.type("stty -echo; PS1=; kidoban gate status >/dev/null; echo sta''tus=$?; exit 7\n")
        assert shell.wait_for(r"status=(\d+)")[1] == "0"
        assert shell.end() == 7
    finally:
        shell.kill()


def test_up_again_changes_nothing(lab):
    before = (lab.notes / "world.pid").read_text()
    assert "the lab is up" in lab.verb("up", "--brief")
    assert (lab.notes / "world.pid").read_text() == before


def classes(lab):
    return {c["class"]: c for c in lab.json("edge", "kidoban", "gate", "status")["classes"]}


def noted(lab):
    """Whom the gate cuts off, or would cut off, by line."""
    return {line["line"]: line for line in lab.json("edge", "kidoban", "gate", "impact", "--no-names")["lines"]}


def test_monitor_mode_lets_pass_and_counts(lab):
    """What an operator runs for weeks before the gate is switched on: the same traffic passes, and is told as what it would have been."""
    lab.on("edge", "kidoban", "gate", "mode", "monitor", "--reason", "to see whom it would touch")
    try:
        before, noted_before = classes(lab)["dynamic"], noted(lab)
        for family in (4, 6):
            done = lab.on("ordinary", "swaks", "--server", f"mx{family}.example.com", "--from", "ume@example.org", "--to",
                          f"watched@v{family}.example.com")
            assert re.search(r"250 2\.0\.0 Ok: queued", done), done
        after = classes(lab)["dynamic"]
        assert after["refused"] == before["refused"] and after["would_refuse"] > before["would_refuse"]
        # ordinary's lines are in the impact, with what was let through, and where it went.
        now = noted(lab)
        for line in ("198.51.100.10", "2001:db8:100:10::/64"):
            assert now[line]["noted_connections"] == noted_before.get(line, {"noted_connections": 0})["noted_connections"] + 1, now[line]
            assert {to["address"] for to in now[line]["to"]} & {"192.0.2.25", "2001:db8:300::25"}, now[line]
    finally:
        lab.on("edge", "kidoban", "gate", "mode", "enforce", "--reason", "seen")
    for family in (4, 6):
        assert knocks(lab, "ordinary", family) == "Connection refused"


def test_monitor_judges_whom_it_watched(lab):
    """One round of lab/monitor, of which an operator takes many: everybody gets through, and gate impact takes each for what it is."""
    out = json.loads(lab.verb("monitor", "0", "--json"))
    assert out["failed"] == [] and out["sent"] == {"ordinary": 2, "fixed": 2, "infected": 2, "server": 16}
    assert {(v["host"], v["family"]): v["looks_like"] for v in out["lines"]} == {
        (host, family): kind for family in (4, 6) for host, kind in
        (("ordinary", "mail-program"), ("server", "mail-server"), ("infected", "bot"), ("fixed", None))}
    for family in (4, 6):
        assert knocks(lab, "ordinary", family) == "Connection refused"


def kill_kidoband(lab, host):
    """Every process of it, at once."""
    family = {p["pid"] for p in lab.json(host, "kidoban", "status")["processes"]}
    master = int(lab.on(host, "ps", "-o", "ppid=", "-p", min(family)).split()[0])
    lab.on(host, "kill", "-KILL", master, *family)
    house.eventually(lambda: lab.on(host, "kidoban", "status", status=None) == "", what="a dead house")


def knocks(lab, host, family):
    """What a program on that host meets at port 25 of the outside: "" for a greeting."""
    done = lab.on(host, "sh", "-c", f"lab/knock {net.address('mx', family)} 2>&1", status=None)
    return re.search(r"Connection \w+|$", done)[0]


@pytest.mark.parametrize("how", ["as it dies", "dead"])
def test_killed_gate_stays_shut(lab, how):
    """With kidoband of the edge killed by SIGKILL nothing comes through, nor while it dies and is started again."""
    bot = ["lab/bot.py", "everywhere", "--sender", "win@example.com", "--recipient", f"killed-{how.replace(' ', '-')}@example.com"]
    counted = classes(lab)["dynamic"]["refused"]
    addresses = [f"192.0.2.{n}" for n in range(129, 250)] + [f"2001:db8:300:1::{n:x}" for n in range(129, 250)]
    if how == "as it dies":
        running = subprocess.Popen([house.TREE / "lab/enter", "infected", *bot, *addresses], cwd=house.TREE, env=lab.environment,
                                   stdout=subprocess.PIPE, text=True)
        kill_kidoband(lab, "edge")
    else:
        kill_kidoband(lab, "edge")
        running = None
    try:
        for family in (4, 6):
            assert knocks(lab, "ordinary", family) == "Connection refused"
            assert knocks(lab, "fixed", family) == ""
    finally:
        lab.on("edge", "sh", "-c", 'setsid kidoband -c "$KIDOBAN_CONFIG" </dev/null >/dev/null 2>&1 &')
        house.eventually(lambda: lab.on("edge", "kidoban", "gate", "status", status=None), what="the keeper, started again")
    if running:
        out = json.loads(running.communicate(timeout=SECONDS)[0])
        out.pop("seconds")
        assert out == {"refused": len(addresses)}, "something got through"
    assert classes(lab)["dynamic"]["refused"] > counted, "the counters did not go on"
    for family in (4, 6):
        assert knocks(lab, "ordinary", family) == "Connection refused"


def test_down(lab):
    """The last of the lab: nothing is left, and again is no error."""
    world = json.loads((lab.notes / "ready.json").read_text())["world"]
    assert "is down" in lab.verb("down")
    assert not pathlib.Path(world).exists(), "the lab left its folder"
    left = [p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [c for c in left if world.encode() in c], "the lab left a process"
    assert of_the_machine() == lab.machine_before
    assert "was not up" in lab.verb("down")
    for verb in (["play"], ["enter", "edge"]):
        lab.verb(*verb, status=1)
    lab.verb("up", "--nonsense", status=64)
