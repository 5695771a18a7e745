"""kidoband with its gate's keeper alone, for tests between the namespaces of gate_net.py."""

import json
import os
import pathlib
import platform
import signal
import subprocess

import yaml

from house import KIDOBAN, KIDOBAND, PATIENCE, eventually

PINS = pathlib.Path("/sys/fs/bpf/kidoban")
# What auto takes on a veth and without Ethernet: a link where the kernel has them, else a filter.
AUTO = "tcx" if tuple(map(int, platform.release().split(".")[:2])) >= (6, 6) else "tc"
LINE = ["198.51.100.0/24", "2001:db8:1::/48"]


class Gate:
    """A configuration, and the daemon that has it."""

    def __init__(self, path):
        for parent in path.parents[:2]:
            parent.chmod(0o755)
        path.chmod(0o755)
        (path / "state").mkdir(mode=0o755)
        self.path, self.file, self.daemon = path, path / "kidoban.yaml", None
        self.gate = {"subscriber_interfaces": ["eth1"], "uplink_interfaces": ["eth0"],
                     "classes": [{"name": "line", "port25": "deny", "prefixes": LINE}]}

    def write(self, **changes):
        self.gate.update(changes)
        text = {"gate": self.gate, "processes": {"runtime_directory": f"{self.path}/run", "state_directory": f"{self.path}/state",
                                                 "log": {"events": f"{self.path}/events"}}}
        self.file.write_text(yaml.safe_dump(text))

    def start(self):
        self.errors = open(self.path / "errors", "wb")
        self.daemon = subprocess.Popen([KIDOBAND, "--config", self.file], stderr=self.errors)
        return self

    def ready(self):
        def answers():
            assert self.daemon.poll() is None, self.said()
            done = self.run("gate", "status", "--json")
            return done.returncode == 0
        eventually(answers, 60, "the keeper")
        return self

    def said(self):
        return (self.path / "errors").read_text("utf-8", "replace")

    def run(self, *arguments):
        return subprocess.run([KIDOBAN, "-c", self.file, *arguments], capture_output=True, text=True, timeout=120 * PATIENCE)

    def status(self):
        return json.loads(self.run("gate", "status", "--json").stdout)

    def places(self):
        return {(i["interface"], i["hook"], i["mode"]) for i in self.status()["interfaces"]}

    def counted(self, name="line"):
        return next(c for c in self.status()["classes"] if c["class"] == name)

    def reload(self, **changes):
        self.write(**changes)
        done = self.run("reload")
        assert done.returncode == 0, done.stderr + self.said()

    def keeper(self):
        """Its number, while it serves; else 0."""
        done = self.run("status", "--json")
        processes = json.loads(done.stdout)["processes"] if done.returncode == 0 else []
        return next((p["pid"] for p in processes if p["role"] == "gate" and p["state"] == "running"), 0)

    def another_keeper(self, old):
        eventually(lambda: self.keeper() not in (0, old) and self.run("gate", "status").returncode == 0, 60, "another keeper")

    def kill_keeper(self):
        old = self.keeper()
        os.kill(old, signal.SIGKILL)
        self.another_keeper(old)

    def events(self, *names):
        lines = (self.path / "events").read_text().splitlines()
        return [e for e in map(json.loads, lines) if e["event"] in names]

    def end(self):
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            assert self.daemon.wait(60 * PATIENCE) == 0
        self.daemon = None


def forget_pins():
    """As a boot would: nothing is pinned, nothing sits on an interface."""
    for pin in PINS.glob("*"):
        pin.rmdir() if pin.is_dir() else pin.unlink()
    for name in ("eth0", "eth1"):
        subprocess.run(["tc", "qdisc", "delete", "dev", name, "clsact"], capture_output=True)
