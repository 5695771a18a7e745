#!/usr/bin/python3
"""bot: what a taken-over computer, and a stolen account, do. Written for the lab; speaks SMTP and prints one JSON object.

usage: bot.py everywhere --sender A --recipient A ADDRESS...
       bot.py account --server HOST --user U --password P --sender A --recipient A --recipient A...

everywhere: connects to port 25 of each address and tries to leave a message.
account: logs in on port 587 and sends one message to each recipient, until it is stopped.
"""

import argparse
import json
import smtplib
import socket
import ssl
import time

MESSAGE = "From: {0}\r\nTo: {1}\r\nSubject: You have won\r\n\r\nMore than you think.\r\n"


def leave(address, sender, recipient, seconds):
    """One word for what became of it."""
    try:
        client = smtplib.SMTP(address, 25, "bot", timeout=seconds)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    except OSError as e:
        return f"failed: {e.strerror}"
    with client:
        try:
            client.sendmail(sender, [recipient], MESSAGE.format(sender, recipient))
        except (smtplib.SMTPException, OSError):
            return "connected"
    return "sent"


def everywhere(args):
    socket.setdefaulttimeout(args.seconds)
    out = {}
    for address in args.addresses:
        words = leave(address, args.sender, args.recipient[0], args.seconds)
        out[words] = out.get(words, 0) + 1
    return out


def account(args):
    context = ssl.create_default_context()
    sent, words = 0, ""
    try:
        with smtplib.SMTP(args.server, 587, "bot", timeout=args.seconds) as client:
            client.starttls(context=context)
            client.login(args.user, args.password)
            for recipient in args.recipient:
                client.sendmail(args.sender, [recipient], MESSAGE.format(args.sender, recipient))
                sent += 1
    except smtplib.SMTPAuthenticationError as e:
        words = f"{e.smtp_code} {e.smtp_error.decode()}"
    except smtplib.SMTPRecipientsRefused as e:
        words = " ".join(f"{code} {text.decode()}" for code, text in e.recipients.values())
    except smtplib.SMTPResponseException as e:
        words = f"{e.smtp_code} {e.smtp_error.decode()}"
    except OSError as e:
        words = str(e)
    return {"sent": sent, "said": words}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("act", choices=("everywhere", "account"))
    options.add_argument("addresses", nargs="*")
    options.add_argument("--sender", required=True)
    options.add_argument("--recipient", required=True, action="append")
    options.add_argument("--seconds", type=float, default=20)
    for name in ("server", "user", "password"):
        options.add_argument(f"--{name}")
    args = options.parse_intermixed_args()
    started = time.monotonic()
    out = {"everywhere": everywhere, "account": account}[args.act](args)
    print(json.dumps({**out, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
