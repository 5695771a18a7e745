"""What a taken-over process could do: system calls are made inside the running ones, as its own code would.

Everything is tried from the living daemon's processes, so it is the sandbox that they really are in, at the place where they stand.
"""

import errno
import os
import pathlib
import signal
import socket
import struct
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import SANITIZED, Kidoband, eventually  # noqa: E402
from inject import Inside, Killed  # noqa: E402

ROLES = ("submit", "vault", "guard", "spool", "deliver", "gate")
DIRECTORY = {"vault", "guard", "spool", "gate"}
GATE = {"subscriber_interfaces": ["line*"], "classes": [{"name": "a", "port25": "deny", "prefixes": ["198.51.100.0/24"]}]}
AT_FDCWD, O_RDONLY, O_WRONLY_CREAT, O_DIRECTORY = -100, 0, 0o101, 0o200000
CLONE_NEWUSER, CLONE_NEWNET, CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000


@pytest.fixture(scope="module")
def house(world):
    with Kidoband(world, "walls", {"gate": GATE}) as k:
        k.account_add("alice", "alice@example.org")
        k.send("x@down.example")
        eventually(lambda: k.events(event="message.deferred"), what="something in every state directory")
        yield k


def try_in(house, role, name, *arguments):
    """-errno or a result from every process of the role and, where it has several, from every thread."""
    answers = set()
    for pid in house.pids(role):
        for tid in sorted(int(t) for t in os.listdir(f"/proc/{pid}/task")):
            with Inside(pid, tid) as inside:
                answer = inside.call(name, *arguments)
                if name in ("openat", "socket") and answer >= 0:
                    inside.call("close", answer)
                answers.add(answer if answer < 0 else "done")
    return answers


def read(house, role, path):
    return try_in(house, role, "openat", AT_FDCWD, str(path).encode(), O_RDONLY)


REFUSED = {-errno.EACCES}


@pytest.fixture(scope="module")
def readable(world):
    """A file that any user may read, so that only a sandbox can be in the way."""
    path = pathlib.Path("/run/for-everybody")
    path.write_text("x")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("role", ROLES)
def test_no_foreign_file_is_read(house, readable, role):
    assert os.stat(readable).st_mode & 0o004
    assert read(house, role, readable) == REFUSED
    assert read(house, role, house.config_file) == REFUSED
    assert read(house, role, house.world.dir / "tls/mail.example.org.key") == REFUSED
    assert read(house, role, "/") == REFUSED
    assert read(house, role, house.events_file) == REFUSED


@pytest.mark.parametrize("role", ROLES)
def test_state_is_its_owners(house, role):
    for owner in DIRECTORY:
        expect = {"done"} if owner == role else REFUSED
        assert try_in(house, role, "openat", AT_FDCWD, str(house.dir / "state" / owner).encode(), O_DIRECTORY) == expect, owner


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_written_elsewhere(house, role):
    shared = pathlib.Path("/run/shared")
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    assert try_in(house, role, "openat", AT_FDCWD, str(shared / role).encode(), O_WRONLY_CREAT, 0o644) == REFUSED
    assert not (shared / role).exists()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=lambda f: f.name)
@pytest.mark.parametrize("role", ROLES)
def test_only_deliver_opens_connections(house, role, family):
    expect = {"done"} if role == "deliver" or SANITIZED else REFUSED  # only seccomp knows of sockets
    assert try_in(house, role, "socket", family, socket.SOCK_STREAM, 0) == expect


@pytest.mark.skipif(SANITIZED, reason="only seccomp knows of sockets")
@pytest.mark.parametrize("role", ROLES)
def test_the_gate_speaks_netlink_only(house, role):
    assert try_in(house, role, "socket", socket.AF_NETLINK, socket.SOCK_RAW, 0) == ({"done"} if role in ("deliver", "gate") else REFUSED)


@pytest.mark.parametrize("role", ROLES)
def test_capabilities(house, role):
    """CAP_NET_ADMIN and CAP_BPF for the gate's keeper, none for the others; not to be had again."""
    kept = 1 << 12 | 1 << 39 if role == "gate" else 0
    for pid in house.pids(role):
        status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        for which in ("CapEff", "CapPrm"):
            assert int(status[which], 16) == kept, which
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
        assert "0" not in status["Uid"].split()


def test_deliver_is_no_operator(house):
    """It has sockets, but the control sockets are not for its user."""
    [pid] = house.pids("deliver")
    with Inside(pid) as inside:
        for owner in ("vault", "guard", "spool", "gate", "master"):
            name = struct.pack("=H", socket.AF_UNIX) + f"/run/{house.name}/{owner}.sock".encode() + b"\0"
            fd = inside.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
            assert fd >= 0
            answer = inside.call("connect", fd, name, len(name))
            inside.call("close", fd)
            assert answer == -errno.EACCES, owner


DEADLY = {
    "execve": (b"/bin/sh", 0, 0),
    "fork": (),
    "clone, a process": (signal.SIGCHLD, 0, 0, 0, 0),
    "clone, a thread in a world of its own": (CLONE_THREAD | CLONE_NEWNET, 0, 0, 0, 0),
    "clone, a user of its own": (CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "ptrace": (16, 1, 0, 0),
    "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "pidfd_getfd": (3, 0, 0),
    "kill": (1, signal.SIGKILL),
    "setuid": (0,),
    "chroot": (b"/",),
    "mount": (b"none", b"/run", b"tmpfs", 0, 0),
    "unshare": (CLONE_NEWUSER,),
    "mknod": (b"/run/x", 0o60666, 0),
    "symlink": (b"/etc/passwd", b"/run/x"),
    "chmod": (b"/run", 0o777),
    "bpf": (0, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "io_uring_setup": (8, 0),
    "userfaultfd": (0,),
    "init_module": (0, 0, b""),
    "add_key": (b"user", b"x", b"y", 1, -3),
    "memfd_create": (b"x", 0),
}


if SANITIZED:  # sanitizers need calls that seccomp forbids: users and Landlock are what is left
    @pytest.mark.parametrize("name, arguments", [("setuid", (0,)), ("kill", (1, signal.SIGKILL))], ids=str)
    def test_users_hold_without_seccomp(house, name, arguments):
        for role in ROLES:
            assert try_in(house, role, name, *arguments) == {-errno.EPERM}
else:
    @pytest.mark.parametrize("name", DEADLY)
    def test_what_no_process_needs_ends_it(house, name):
        """Each role in turn; the master starts another one, and mail goes on."""
        others = [r for r in ROLES if not (name == "bpf" and r == "gate")]  # whose work it is
        role = others[sorted(DEADLY).index(name) % len(others)]
        pid = house.pids(role)[0]
        with pytest.raises(Killed) as end, Inside(pid) as inside:
            inside.call(name.split(",")[0], *DEADLY[name])
        assert end.value.args == (signal.SIGSYS,)
        eventually(lambda: (s := house.status()) and pid not in {p["pid"] for p in s["processes"]}
                   and all(p["state"] == "running" for p in s["processes"]), 20, f"another {role}")

    def test_clone3_is_not_there(house):
        """Its flags lie in memory, where no filter sees them; threads are made with clone instead."""
        for role in ROLES:
            assert try_in(house, role, "clone3", 0, 0) == {-errno.ENOSYS}


def test_mail_goes_on_after_all_that(world, house):
    def sent():
        try:
            return house.send("walls@post.example")
        except Exception:  # a part that has just been started again may defer
            return None
    eventually(sent, 30, "a message taken")
    world.post.wait("walls@post.example")
