"""What lab/up, lab/play, lab/monitor, lab/down and lab/enter do. All are safe to repeat.

usage: lab/up [--fresh] [--brief]    brings the lab up, unless it is, and says how to look around
                                     (--fresh: a new one, even then; --brief: says nothing)
       lab/play [--json] [--trace]   acts every row of the table in it, prints what happened; exits 1 when a promise was broken
       lab/monitor [--json] [MINUTES]  lets its subscribers send for so long (60) with the gate in monitor mode, and prints
                                     kidoban gate impact; exits 1 when it misjudged one
       lab/down                      removes it
       lab/enter HOST [COMMAND...]   a shell, or one command, on a host of the lab

The lab is held by one process in namespaces of its own (tests/world.sh): networks, mounts, processes, names. Whatever runs in
it ends with that process, and nothing of it is to be seen in the machine's own network. Notes are kept in build/lab.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent
BUILD = pathlib.Path(os.environ.get("KIDOBAN_BUILD", TREE / "build")).resolve()
NOTES = pathlib.Path(os.environ.get("KIDOBAN_LAB", TREE / "build/lab")).resolve()
PID, LOG, READY, LOCK = (NOTES / name for name in ("world.pid", "world.log", "ready.json", "lock"))
PYTHON = "/usr/bin/python3"

AROUND = """\
The lab stays up. Its hosts: {hosts}.
    lab/enter edge                                  a shell on our router
    lab/enter edge kidoban gate status              the gate; on mail: kidoban status, kidoban queue list
    lab/enter edge kidoban gate test --from {line} --to {mx} --port 25
    lab/enter mail kidoban trace alice@example.ne.jp
To send a message of your own, as somebody on our network, and to read it where it arrives:
    lab/enter ordinary swaks --server mail.example.ne.jp:587 --tls --auth PLAIN --auth-user alice \\
        --auth-password '{password}' --from alice@example.ne.jp --to you@example.com
    lab/enter mx sh -c 'cat {world}/post-mx/new/*'
The same to port 25, and from an address that may use it:
    lab/enter ordinary swaks --server mx.example.com --from you@example.ne.jp --to you@example.com
    lab/enter fixed swaks --server mx.example.com --from you@example.ne.jp --to you@example.com
Again, and away:
    lab/play
    lab/down"""


def fail(words, status=1):
    sys.exit((print(f"lab: {words}", file=sys.stderr), status)[1])


@contextlib.contextmanager
def alone():
    """Nobody else brings this lab up or takes it down meanwhile."""
    NOTES.mkdir(parents=True, exist_ok=True)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def holder():
    """The process that holds the lab, and process 1 inside; None when it is not up."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        outer = int(PID.read_text())
        command = pathlib.Path(f"/proc/{outer}/cmdline").read_bytes().split(b"\0")
        if command[0] == b"unshare" and str(HERE / "hold.py").encode() in command:
            return outer, int(pathlib.Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
    return None


def notes():
    with contextlib.suppress(OSError, ValueError):
        return json.loads(READY.read_text())
    return {}


def is_up():
    return holder() is not None and bool(notes())


def around():
    known = notes()
    print(AROUND.format(**known))


def follow(process):
    """What the lab says while it comes up, as it comes."""
    shown = 0
    while not is_up():
        ended = process.poll() is not None
        text = LOG.read_text("utf-8", "replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if ended:
            fail(f"it did not come up; see {LOG}")
        time.sleep(0.1)
    print(LOG.read_text("utf-8", "replace")[shown:], end="", flush=True)


def up(*options):
    if os.geteuid() != 0:
        fail("needs root, to make namespaces", 77)
    with alone():
        if is_up() and "--fresh" not in options:
            print("the lab is up")
        else:
            bring_up()
    if "--brief" not in options:
        around()


def bring_up():
    if take_down():
        print("the lab that was up is down", flush=True)
    with open(LOG, "wb") as log:
        process = subprocess.Popen([TREE / "tests/world.sh", "--pid-file", PID, PYTHON, HERE / "hold.py"], cwd=TREE,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   env=dict(os.environ, KIDOBAN_BUILD=str(BUILD), KIDOBAN_LAB=str(NOTES)))
    started = time.monotonic()
    try:
        follow(process)
    except BaseException:
        take_down()
        raise
    print(f"up in {time.monotonic() - started:.0f} s", flush=True)


def take_down():
    """Every process of the lab ends with its process 1; tests/world.sh then removes what it made."""
    held, world = holder(), notes().get("world")
    if held:
        os.kill(held[1], signal.SIGKILL)
    end = time.monotonic() + 60
    while holder() or (held and PID.exists() and time.monotonic() < end):
        time.sleep(0.05)
    if world:  # when the one who would remove it is no more
        shutil.rmtree(world, ignore_errors=True)
    for path in (PID, READY):
        path.unlink(missing_ok=True)
    return held is not None


def down():
    with alone():
        print("the lab is down" if take_down() else "the lab was not up")


def into(host, *command):
    """Becomes that command on that host of the lab."""
    sys.path.insert(0, str(HERE))
    import net
    if not is_up():
        fail("not up; lab/up brings it up")
    if host not in net.NAMES:
        fail(f"no host {host}; there are {', '.join(net.NAMES)}", 64)
    world = notes()["world"]
    env = dict(os.environ, KIDOBAN_WORLD=world, KIDOBAN_BUILD=str(BUILD), KIDOBAN_LAB=str(NOTES),
               PATH=f"{BUILD / 'src/cli'}:{BUILD / 'src/master'}:{os.environ['PATH']}")
    if (config := pathlib.Path(world, host, "kidoban.yaml")).exists():
        env["KIDOBAN_CONFIG"] = str(config)
    inner = ["nsenter", "--target", str(holder()[1]), "--net", "--mount", "--pid", "--uts", "--ipc", f"--wd={os.getcwd()}"]
    os.execvpe("nsenter", inner + net.inside(host) + list(command), env)


def enter(host=None, *command):
    if host is None:
        fail("enter which host?", 64)
    into(host, *(command or ("bash", "--rcfile", notes().get("world", "") + "/bashrc", "-i")))


def play(*options):
    into("internet", PYTHON, str(HERE / "play.py"), *options)


def monitor(*options):
    into("internet", PYTHON, str(HERE / "monitor.py"), *options)


def main():
    act, options = sys.argv[1], sys.argv[2:]
    known = {"up": (up, {"--fresh", "--brief"}), "down": (down, set()), "play": (play, {"--json", "--trace"}),
             "monitor": (monitor, None), "enter": (enter, None)}
    function, allowed = known[act]
    if allowed is not None and not set(options) <= allowed:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        sys.exit(64)
    try:
        function(*options)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
