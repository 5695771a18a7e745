"""What ./run shows, inside tests/world.sh: kidoband with a small configuration, one message from swaks into Postfix."""

import re
import shlex
import signal
import subprocess
import sys

import house

PASSWORD = house.Kidoband.PASSWORD


def configuration(world, kidoban):
    """As small as it may be; all that is not here has its default."""
    tls = world.dir / "tls"
    return f"""\
operator:
  name: Example Internet
  domains: [example.org]
  help_url: https://mail.example.org/help
submission:
  hostname: mail.example.org
  # The default is every address; in this world a smart host has a port 587 of its own.
  listen: ["127.0.0.1:587", "[fd00::1]:587", "127.0.0.1:465", "[fd00::1]:465"]
  tls:
    certificate: {tls}/mail.example.org.pem
    key: {tls}/mail.example.org.key
routes:
  - {{domain: "*", via: mx}}
# Only because this is a world of its own: where names are asked, and where files lie.
delivery:
  resolver: {{forward: [{house.DNS}], dnssec: false}}
processes:
  state_directory: {kidoban.dir}/state
  log: {{level: info, events: {kidoban.events_file}}}
"""


def show(words):
    print(words.rstrip() + "\n", flush=True)


def step(words):
    print(f"== {words}", flush=True)


def shown(words):
    return "\n".join("    " + line for line in words.splitlines())


def swaks(world, to):
    return ["swaks", "--server", "mail.example.org:587", "--tls", "--tls-verify", "--tls-ca-path", str(world.ca_file),
            "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", PASSWORD, "--from", "alice@example.org",
            "--to", to, "--header", "Subject: hello from ./run"]


def send(world, kidoban):
    command = swaks(world, "friend@post.example")
    step("a message with swaks, through port 587, STARTTLS and AUTH")
    print(shown(shlex.join(command)))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise SystemExit(f"swaks: exit {done.returncode}\n{done.stdout}{done.stderr}")
    show(shown("\n".join(line for line in done.stdout.splitlines() if re.match(r"<[-~*]* +(235|250) ", line))))
    mail = world.post.wait("friend@post.example")[0]
    step("it is in the mailbox of friend@post.example, at Postfix")
    show(shown(mail.octets.decode("utf-8", "replace")))
    number = re.search(rb"\(Kidoban\) with ESMTPSA .*?\bid (\w+)", mail.octets, re.S)[1].decode()
    house.eventually(lambda: kidoban.events(event="message.delivered", id=number), what="the trace of the delivery")
    step(f"kidoban trace {number}")
    show(shown(kidoban.run("trace", number).stdout))
    step("kidoban status")
    show(shown(kidoban.run("status").stdout))


def bashrc(world, kidoban):
    """For the shell of ./run --enter."""
    return (f"export KIDOBAN_CONFIG={kidoban.config_file} PATH={house.KIDOBAN.parent}:$PATH\n"
            f"PS1='world:\\w\\$ '\n"
            f"echo 'In the world of ./run --stay. Try:'\n"
            f"echo {shlex.quote(shown(shlex.join(swaks(world, 'you@post.example'))))}\n"
            f"echo '    kidoban trace you@post.example'\n"
            f"echo '    cat {world.post.path}/new/*'\n")


def main():
    stay = sys.argv[1:] == ["--stay"]
    # tests/world.sh starts what it holds in the background, and there a shell has Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with house.World() as world:
        kidoban = house.Kidoband(world)
        text = configuration(world, kidoban)
        kidoban.config_file.write_text(text)
        step("the configuration")
        show(shown(text))
        with kidoban:
            step("kidoban account add alice --identity alice@example.org --password-stdin")
            show(shown(kidoban.account_add("alice", "alice@example.org").stdout))
            send(world, kidoban)
            if stay:
                rc = house.BUILD / "world.bashrc"
                rc.write_text(bashrc(world, kidoban))
                show("All of it stays up until Ctrl-C. In another terminal: ./run --enter gives a shell in this world,\n"
                     "with the command to send a message of your own.")
                try:
                    kidoban.process.wait()
                except KeyboardInterrupt:
                    pass
                finally:
                    rc.unlink(missing_ok=True)
                return
    print("""To send one of your own:
    ./run --stay      keeps this world up until Ctrl-C
    ./run --enter     in another terminal: a shell inside it, with the swaks command to change as you like;
                      mail to anything@post.example arrives in its Postfix
Next: README.md, and ./test runs every test.""")


if __name__ == "__main__":
    main()
