"""Inside the lab: plays the table and prints it with what happened. See lab/control.py."""

import json
import os
import pathlib
import re
import sys
import textwrap

import place
import table

GREEN, RED, PLAIN = ("\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def title(number, row):
    print(f"{number:2}  {row.where}: {row.does}\n    port {row.port}, {row.result}; {row.whom}", flush=True)


def verdict(family, good, said, saw):
    colour, word = (GREEN, "as promised") if good else (RED, "NOT SO     ")
    text = textwrap.wrap("; ".join([said.strip(), *saw]), 88) or [""]
    print(f"      IPv{family}  {colour}{word}{PLAIN}  " + f"\n{'':25}".join(text), flush=True)


def told(row, family, good, said, saw):
    if family == 4:
        title(table.ROWS.index(row) + 1, row)
    verdict(family, good, said, saw)


def show_trace(lab, rows):
    """What our mail service knows of one of the messages it sent."""
    for row in rows:
        if found := re.search(r"queued as (\w+)", row["ipv6"]["said"]):
            print(f"\nOne of these messages, in the words of kidoban trace {found[1]}:")
            words = lab.mail.run("trace", found[1], check=False).stdout
            print(textwrap.indent(words.rstrip(), "    "))
            return


def main():
    lab = place.Lab()
    as_json = "--json" in sys.argv[1:]
    rows = table.play(lab, *([] if as_json else [told]))
    (pathlib.Path(os.environ["KIDOBAN_LAB"]) / "table.json").write_text(json.dumps(rows))
    failed = sum(not row[family]["as_promised"] for row in rows for family in ("ipv4", "ipv6"))
    if as_json:
        print(json.dumps({"rows": rows, "as_promised": 2 * len(rows) - failed, "failed": failed}, indent=1))
        return 1 if failed else 0
    colour = RED if failed else GREEN
    print(f"{colour}{2 * len(rows) - failed} as promised, {failed} not{PLAIN}: {len(rows)} rows, each over IPv4 and over IPv6")
    if "--trace" in sys.argv[1:]:
        show_trace(lab, rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
