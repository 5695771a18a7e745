"""Real servers for a world of one's own: what tests/house.py and lab/ both start. Nothing here knows what they are for."""

import contextlib
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import time

import trustme

SANITIZED = os.environ.get("KIDOBAN_SANITIZED") == "1"
# A sanitizer build is several times slower, and two cores are shared by all.
PATIENCE = 4 if SANITIZED else 1


def eventually(check, seconds=15, what="it", pause=0.05):
    """The first true answer of check(), asked again and again; fails when there is none in time.

    How long it should take at most is said for the reader; a machine that does other things gets a minute at least.
    """
    seconds = max(60, seconds * PATIENCE)
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {seconds} s")
        time.sleep(pause)


def port_open(host, port):
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Servers:
    """A folder with certificates, and processes that end with it."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.ca_file = self.dir / "tls/ca.pem"
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    # Certificates

    def make_authority(self, words):
        """tls/ with a certificate authority, which all programs in this world trust."""
        self.ca = trustme.CA(organization_name=words)
        (self.dir / "tls").mkdir()
        self.ca.cert_pem.write_to_path(self.ca_file)
        # Clients and next hops are checked against the system's store, so ours lies over it.
        store = self.dir / "tls/store"
        store.mkdir()
        shutil.copy(self.ca_file, store / "ca-certificates.crt")
        shutil.copy(self.ca_file, store / "kidoban-tests.pem")
        subprocess.run(["openssl", "rehash", store], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["mount", "--bind", store, "/etc/ssl/certs"], check=True)

    def certificate(self, name, *identities, ca=None):
        """A new certificate and key in tls/NAME.pem and .key; those that were there are replaced."""
        leaf = (ca or self.ca).issue_cert(*identities)
        chain, key = self.dir / f"tls/{name}.pem", self.dir / f"tls/{name}.key"
        for path, octets in ((chain, b"".join(b.bytes() for b in leaf.cert_chain_pems)),
                             (key, leaf.private_key_pem.bytes())):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(octets)
            fresh.chmod(0o644 if path is chain else 0o600)
            os.replace(fresh, path)
        return chain, key

    def fingerprint(self, name):
        der = ssl.PEM_cert_to_DER_cert((self.dir / f"tls/{name}.pem").read_text().split("-----END")[0]
                                       + "-----END CERTIFICATE-----\n")
        import hashlib
        return hashlib.sha256(der).hexdigest()

    # Processes

    def spawn(self, name, *command, **options):
        log = open(self.dir / f"{name}.log", "ab")
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   **options)
        log.close()
        self.processes.append(process)
        return process

    def log_of(self, name):
        with contextlib.suppress(FileNotFoundError):
            return (self.dir / f"{name}.log").read_text("utf-8", "replace")
        return ""

    def until(self, process, name, check, what):
        """Waits for check(), as long as the process lives."""
        def alive_and():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log_of(name)}")
            return check()
        eventually(alive_and, 20, what)

    def ready(self, process, host, port, name):
        self.until(process, name, lambda: port_open(host, port), f"{name} on {host}:{port}")


# Where mail goes to be delivered, in a world where tests/world.sh has made this user.
MAILBOX_USER, MAILBOX_ID = "kidoban-mailbox", 64020

POSTFIX_SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One Postfix with all its files below `home`; `inside` is put before its commands."""

    def __init__(self, home, inside=()):
        self.home, self.etc, self.inside = pathlib.Path(home), pathlib.Path(home) / "etc", list(inside)
        self.process = None

    def make(self, hostname, listeners, settings):
        """Folders and configuration. listeners: lines of master.cf before its own services."""
        for folder in ("etc", "spool", "data"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(self.home / "data", "postfix", "postfix")
        (self.etc / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {self.home}/spool
data_directory = {self.home}/data
maillog_file = {self.home}/postfix.log
maillog_file_prefixes = {self.home}
myhostname = {hostname}
mydestination =
mynetworks =
local_header_rewrite_clients =
inet_protocols = all
alias_maps =
alias_database =
local_recipient_maps =
smtpd_peername_lookup = no
{settings}""")
        (self.etc / "master.cf").write_text(listeners + POSTFIX_SERVICES)

    def command(self, program, *arguments, **options):
        return subprocess.run([*self.inside, f"/usr/sbin/{program}", "-c", self.etc, *map(str, arguments)], capture_output=True,
                              text=True, timeout=60 * PATIENCE, **options)

    def start(self, servers, name):
        self.process = servers.spawn(name, *self.inside, "/usr/sbin/postfix", "-c", self.etc, "start-fg")
        return self.process

    def stop(self):
        self.command("postfix", "stop", check=True)
        self.process.wait(20)

    def queue(self):
        return self.command("postqueue", "-j").stdout.splitlines()

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.home / "postfix.log").read_text("utf-8", "replace")
        return ""


def mailboxes(folder, pattern="/./"):
    """Settings of a Postfix that takes mail for all domains into one Maildir, which this makes."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, MAILBOX_USER, MAILBOX_USER)
    folder.chmod(0o755)
    return f"""\
virtual_mailbox_base = {folder.parent}
virtual_mailbox_maps = regexp:{{ {{ {pattern} {folder.name}/ }} }}
virtual_uid_maps = static:{MAILBOX_ID}
virtual_gid_maps = static:{MAILBOX_ID}
virtual_mailbox_limit = 0
mailbox_size_limit = 0
allow_min_user = yes
smtputf8_enable = yes
"""


def dovecot_passwords(home, users, listener):
    """Settings of a Dovecot in `home` that tells Postfix, at the socket `listener` below its private/, whether a password is right."""
    listener.parent.mkdir(parents=True, exist_ok=True)
    listener.parent.chmod(0o700)
    shutil.chown(listener.parent, "postfix")
    return f"""\
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/dovecot.log
disable_plaintext_auth = no
default_internal_user = dovecot
default_login_user = dovenull
service auth {{
  unix_listener {listener} {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {users}
}}
"""
