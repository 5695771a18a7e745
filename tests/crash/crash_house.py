"""A house for the crash tests: small, fast, watched through its control sockets, with a fault plan if the build has one."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from house import PATIENCE, Kidoband, World, merged  # noqa: E402

SINK = ("127.0.0.26", 2525)
ROLES = ("submit", "vault", "guard", "spool", "deliver")
FAULTS = pathlib.Path(os.environ.get("KIDOBAN_FAULTS_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build-faults"))


class BareWorld(World):
    """Certificates and nothing else: the next hop is the ledger's."""

    def __init__(self):
        super().__init__(dovecot=False)

    def __enter__(self):
        self.make_certificates()
        return self


class CrashHouse(Kidoband):
    """`state`: where the daemon's state goes (a mount point); `daemon`: the program."""

    def __init__(self, world, name, settings=None, plan=None, state=None, daemon=None):
        self.plan_file, self.state, self.daemon, self.variables = plan, state, daemon, {}
        super().__init__(world, name, settings)

    def standard_settings(self):
        small = {
            "submission": {"workers": 2, "listen": ["127.0.0.1:587", "127.0.0.1:465"],
                           "limits": {"connections_per_network": 500},
                           "relay_networks": [{"name": "clients", "prefixes": ["127.0.0.0/8"]}]},
            "accounts": {"workers": 1},
            "spool": {"reserve": "4M", "retry": {"first": "200ms", "max": "500ms"}},
            "delivery": {"workers": 2, "timeouts": {"connect": "3s", "command": "20s", "idle": "2s"}},
            "routes": [{"domain": "*", "via": "smarthost", "to": f"{SINK[0]}:{SINK[1]}", "tls": "none"}],
        }
        if self.state:
            small["processes"] = {"state_directory": str(self.state)}
        return merged(super().standard_settings(), small)

    def environment(self):
        env = dict(super().environment(), **self.variables)
        if self.plan_file:
            env["KIDOBAN_FAULT_PLAN"] = str(self.plan_file)
        return env

    def start(self, wait=True):
        log = open(self.dir / "stderr.log", "ab")
        self.process = subprocess.Popen([self.daemon or FAULTS / "src/master/kidoband", "-c", self.config_file],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        log.close()
        if wait:
            self.wait_ready()
        return self

    # From within the loop

    async def ask(self, owner, **question):
        """One question to a control socket: the lines of the answer, or None when nobody answers."""
        path = f"/run/{self.name}/{owner}.sock"
        with contextlib.suppress(OSError, asyncio.TimeoutError, ValueError):
            reader, writer = await asyncio.open_unix_connection(path, limit=64 << 20)
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                lines = []
                while line := await asyncio.wait_for(reader.readline(), 10 * PATIENCE):
                    lines.append(json.loads(line))
                    if lines[-1].get("done"):
                        return lines
            finally:
                writer.transport.abort()
        return None

    async def processes(self):
        """{(role, instance): (pid, state)}, or None."""
        answer = await self.ask("master", verb="status")
        if not answer:
            return None
        return {(p["role"], p["instance"]): (p["pid"], p["state"]) for p in answer[0]["processes"]}

    async def whole(self, seconds=60):
        """Waits for all processes to be there; {(role, instance): pid}. A master that died is started again."""
        end = asyncio.get_running_loop().time() + seconds * PATIENCE
        while asyncio.get_running_loop().time() < end:
            if self.process.poll() is not None:
                self.start(wait=False)
            there = await self.processes()
            if there and all(state == "running" for _, state in there.values()):
                return {key: pid for key, (pid, _) in there.items()}
            await asyncio.sleep(0.03)
        raise AssertionError(f"the house did not come back in {seconds * PATIENCE} s:\n{self.stderr()[-3000:]}")

    def kill_all(self, pids):
        for pid in [self.process.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


async def until(check, seconds, what, pause=0.02):
    """The first true answer of check(), which may be a coroutine."""
    end = asyncio.get_running_loop().time() + seconds * PATIENCE
    while True:
        answer = check()
        answer = await answer if asyncio.iscoroutine(answer) else answer
        if answer:
            return answer
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"{what() if callable(what) else what} did not come within {seconds * PATIENCE} s")
        await asyncio.sleep(pause)
