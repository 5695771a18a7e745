"""`./run`, `./run --stay` and `./run --enter`, as somebody types them at a terminal."""

import contextlib
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

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import house  # noqa: E402

SECONDS = 240  # there may be something to build


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(house.TREE)
            os.execvpe(argv[0], argv, {k: v for k, v in os.environ.items() if not k.startswith("KIDOBAN_")})
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


@pytest.fixture
def terminal():
    opened = []

    def start(*argv):
        opened.append(Terminal(*argv))
        return opened[-1]
    yield start
    for one in opened:
        with contextlib.suppress(ChildProcessError, OSError):
            one.kill()


def test_run(terminal):
    run = terminal("./run")
    run.wait_for(r"== a message with swaks.*\b235 .*\b250 ")
    number = run.wait_for(r"== kidoban trace (\w+)")[1]
    run.wait_for(rf"{number}.*== kidoban status.*To send one of your own:.*--stay")
    assert run.end() == 0


def test_enter_without_a_world():
    done = subprocess.run(["./run", "--enter"], cwd=house.TREE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "./run --stay" in done.stderr


def test_wrong_option():
    done = subprocess.run(["./run", "--nonsense"], cwd=house.TREE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 64 and "usage:" in done.stderr


def test_stay_and_enter(terminal):
    stay = terminal("./run", "--stay")
    folder = stay.wait_for(r"certificate: (\S+)/tls/")[1]
    stay.wait_for(r"stays up until Ctrl-C")
    shell = terminal("./run", "--enter")
    command = shell.wait_for(r"\n +(swaks .*?)\n +kidoban trace")[1].replace("\n", "")
    shell.wait_for(r"world:\S*# ")
    shell.type("stty -echo; PS1=; echo rea''dy\n")
    shell.wait_for("ready\n")
    shell.type(f"{command} >swaks.log 2>&1; echo swaks=$?; rm -f swaks.log\n".replace("swaks.log", f"{folder}/swaks.log"))
    assert shell.wait_for(r"swaks=(\d+)")[1] == "0"
    shell.type(f"until grep -qs 'hello from' {folder}/post/new/*; do sleep 0.1; done; kidoban trace you@post.example; echo trace=$?\n")
    story = shell.wait_for(r"(.*)trace=(\d+)")
    assert story[2] == "0" and "message.stored" in story[1], story[0]
    shell.type("exit 7\n")
    assert shell.end() == 7
    stay.type("\x03")
    assert stay.end() in (0, 130)
    assert not pathlib.Path(folder).exists(), "the world left its folder"
    left = [p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [c for c in left if folder.encode() in c], "the world left a process"
    assert not (house.TREE / "build/world.pid").exists() and not (house.TREE / "build/world.bashrc").exists()
