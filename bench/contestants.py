"""The servers that race: each at its durable default, with the same certificate, account and next hop, in a world of its own.

A contestant has start(hold), stop(), queued(), pids(); `accept` and `submit` are the ports for mail without and with AUTH.
With hold=True what is accepted stays in the queue; otherwise it goes to a sink on port 2525.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

TREE = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE / "tests"))
import house  # noqa: E402

BENCH = house.BUILD / "bench"
USER, PASSWORD, SENDER, RECIPIENT = "bench", "secret-of-bench", "bench@example.org", "rcpt@dest.example"
SINK_PORT = 2525


def eventually(check, seconds=120, what="it", pause=0.02):
    return house.eventually(check, seconds, what, pause)


def pss(pids):
    """Proportional memory of these processes, in octets; one that ended counts nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def same_share(pids):
    """The scheduler shares the processors by sessions (autogroups); a server's session has the weight that the generator's has."""
    with contextlib.suppress(OSError, IndexError):
        nice = pathlib.Path("/proc/self/autogroup").read_text().split()[-1]
        for pid in pids:
            with contextlib.suppress(OSError):
                pathlib.Path(f"/proc/{pid}/autogroup").write_text(nice)


class Ground:
    """A folder on the disk that is measured, certificates, a sink."""

    def __init__(self):
        self.dir = pathlib.Path(os.environ["KIDOBAN_WORLD"])
        tls = self.dir / "tls"
        tls.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                        "-subj", "/CN=mail.example.org", "-keyout", tls / "mail.example.org.key", "-out", tls / "mail.example.org.pem"],
                       check=True, stderr=subprocess.DEVNULL)
        self.certificate, self.key = tls / "mail.example.org.pem", tls / "mail.example.org.key"
        self.ca_file = self.certificate
        self.sink = None

    def start_sink(self):
        self.sink = subprocess.Popen(["/usr/sbin/smtp-sink", "-u", "nobody", f"127.0.0.1:{SINK_PORT}", "1000"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: house.port_open("127.0.0.1", SINK_PORT), what="the sink")

    def stop_sink(self):
        if self.sink:
            self.sink.terminate()
            self.sink.wait()
            self.sink = None


class Kidoban:
    name = "kidoban"
    accept = submit = 587

    def __init__(self, ground):
        self.ground, self.house = ground, None

    def settings(self, hold):
        out = {
            "submission": {"listen": ["0.0.0.0:587", "0.0.0.0:465"], "workers": None,
                           "relay_networks": [{"name": "generator", "prefixes": ["127.0.0.0/8"]}],
                           "limits": {"connections": 20000, "connections_per_network": 20000},
                           "tls": {"certificates": None, "client_ca": None}},
            "accounts": None,
            "limits": [{"name": "wide", "per": "account", "count": "recipients", "windows": ["100000000/1d"]}],
            "spool": None,
            "delivery": None,
            "routes": [{"domain": "*", "via": "smarthost", "to": f"127.0.0.1:{SINK_PORT}", "tls": "none"}],
        }
        if hold:
            out["limits"] = [{"name": "hold-a", "per": "account", "count": "messages", "windows": ["1/1d"], "action": "hold"},
                             {"name": "hold-n", "per": "network", "count": "messages", "windows": ["1/1d"], "action": "hold"}]
        return out

    def prepare(self, hold, change=None):
        shutil.rmtree(self.ground.dir / self.name, ignore_errors=True)
        self.house = house.Kidoband(self.ground, self.name, house.merged(self.settings(hold), change or {}))

    def start(self, hold, change=None):
        self.prepare(hold, change)
        self.house.start()
        same_share([self.house.process.pid])
        self.house.account_add(USER, SENDER, password=PASSWORD)

    def stop(self):
        if self.house is not None:
            self.house.stop(seconds=120)
            self.house = None
        shutil.rmtree(self.ground.dir / self.name, ignore_errors=True)

    def pids(self):
        master = self.house.process.pid
        return [master] + [int(p) for p in pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def queued(self):
        spool = next(p for p in self.house.status()["processes"] if p["role"] == "spool")
        return spool["figures"]["messages"]

    def empty(self):
        return self.queued() == 0

    def version(self):
        return subprocess.run([house.KIDOBAND, "--version"], capture_output=True, text=True).stdout.strip()


class Postfix:
    """As Debian packages it: its master.cf without the chroots, Cyrus SASL with sasldb (no hashing at a login)."""

    name = "postfix"
    accept, submit = 25, 587

    def __init__(self, ground):
        self.dir, self.ground, self.process = ground.dir / self.name, ground, None

    def write(self, hold, change):
        held = "smtpd_client_restrictions = static:HOLD" if hold else ""
        (self.dir / "etc/main.cf").write_text(f"""
compatibility_level = 3.6
maillog_file = {self.dir}/log
maillog_file_prefixes = {self.dir}
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = no
queue_directory = {self.dir}/spool
data_directory = {self.dir}/data
myhostname = mail.example.org
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{SINK_PORT}
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
message_size_limit = 50000000
smtpd_client_connection_count_limit = 0
smtpd_tls_cert_file = {self.ground.certificate}
smtpd_tls_key_file = {self.ground.key}
smtpd_tls_security_level = may
smtpd_tls_session_cache_database = btree:${{data_directory}}/smtpd_scache
smtp_tls_security_level = may
smtpd_sasl_local_domain = example.org
{held}
{change}
""")
        lines = []
        for line in pathlib.Path("/etc/postfix/master.cf.proto").read_text().splitlines():
            f = line.split()
            if line[:1].isalpha() and len(f) >= 8:
                f[4] = "n"
                line = " ".join(f)
            lines.append(line)
        lines += ["postlog unix-dgram n - n - 1 postlogd", "submission inet n - n - - smtpd",
                  "  -o syslog_name=postfix/submission", "  -o smtpd_tls_security_level=encrypt", "  -o smtpd_sasl_auth_enable=yes",
                  "  -o smtpd_tls_auth_only=yes", "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"]
        (self.dir / "etc/master.cf").write_text("\n".join(lines) + "\n")

    def start(self, hold, change=""):
        shutil.rmtree(self.dir, ignore_errors=True)
        for d in ("etc", "spool", "data", "sasl"):
            (self.dir / d).mkdir(parents=True)
        shutil.chown(self.dir / "data", "postfix", "postfix")
        (self.dir / "sasl/smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN\n")
        subprocess.run(["/usr/sbin/saslpasswd2", "-p", "-c", "-f", self.dir / "sasl/sasldb2", "-u", "example.org", USER],
                       input=PASSWORD, text=True, check=True)
        (self.dir / "sasl/sasldb2").chmod(0o644)
        # Debian's places, in this world only.
        subprocess.run(["mount", "--bind", self.dir / "sasl/sasldb2", "/etc/sasldb2"], check=True)
        subprocess.run(["mount", "--bind", self.dir / "sasl", "/etc/postfix/sasl"], check=True)
        self.write(hold, change)
        self.log = open(self.dir / "start.log", "wb")
        self.process = subprocess.Popen(["/usr/sbin/postfix", "-c", self.dir / "etc", "start-fg"], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, start_new_session=True)
        for port in (self.accept, self.submit):
            eventually(lambda: house.port_open("127.0.0.1", port), what=f"postfix, see {self.dir}/start.log")
        same_share([self.process.pid, int((self.dir / "spool/pid/master.pid").read_text())])

    def stop(self):
        if self.process is None:
            return
        subprocess.run(["/usr/sbin/postfix", "-c", self.dir / "etc", "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None
        self.log.close()
        subprocess.run(["umount", "/etc/sasldb2", "/etc/postfix/sasl"], check=True)
        # Not removed at once: for half a minute after many deletions ext4 makes files much slower.
        self.dir.rename(self.ground.dir / f"postfix-was-{time.monotonic_ns()}")

    def pids(self):
        out = subprocess.run(["pgrep", "-x", "master|smtpd|cleanup|qmgr|pickup|smtp|trivial-rewrite|tlsmgr|anvil|proxymap|scache|"
                              "postlogd|bounce"], capture_output=True, text=True).stdout
        return [int(p) for p in out.split()]

    def queued(self):
        count = 0
        for folder in ("maildrop", "hold", "incoming", "active", "deferred"):
            for _, _, files in os.walk(self.dir / "spool" / folder):
                count += len(files)
        return count

    def empty(self):
        return self.queued() == 0

    def version(self):
        return "Postfix " + subprocess.run(["/usr/sbin/postconf", "-h", "mail_version"], capture_output=True, text=True).stdout.strip()
