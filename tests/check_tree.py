"""The tree's own rules: includes point one way, keys, verbs and events agree with the manuals, the formatter agrees.

usage: /usr/bin/python3 tests/check_tree.py     prints FILE:LINE: what, exits 1 when anything is wrong
"""

import pathlib
import re
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent
SRC = TREE / "src"

# A folder may include itself and what stands here.
BASE = {"common", "wire", "config"}
PURE = {"smtp", "message", "policy", "wire"}
MAY = {
    "common": set(),
    "wire": {"common"},
    "config": {"common", "wire"},
    "smtp": {"common", "wire"},
    "message": {"common", "wire"},
    "policy": {"common", "wire"},
    "process": BASE,
    "vault": BASE | {"process"},
    "guard": BASE | {"process"},
    "spool": BASE | {"process", "message"},
    "deliver": BASE | {"process", "smtp", "message"},
    "submit": BASE | {"process", "smtp", "message"},
    "master": BASE | {"process"},
    "cli": BASE,
}
# The command reads a spool whose daemon is down.
ALSO = {("src/cli/offline.c", "spool/offline.h")}
IMPURE = re.compile(r"#include <(uv|sys/socket|netinet/.*|unistd|fcntl|sys/stat|openssl/.*)\.h>")
FORBIDDEN = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|strtok|alloca|system|popen)\s*\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
LINES_MAX = 800
# To be parted: each has become two things.
TOO_LONG = {"src/spool/spool.c", "src/spool/log.c", "src/smtp/server_test.c"}

wrong = []


def complain(path, line, what):
    wrong.append(f"{path.relative_to(TREE)}:{line}: {what}")


def sources():
    return sorted(p for p in SRC.rglob("*") if p.suffix in (".c", ".h"))


def check_source(path):
    folder = path.relative_to(SRC).parts[0]
    test = re.search(r"(_test|_fuzz|_fake|harness|world|memdisk)\.[ch]$", path.name)
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        include = re.match(r'#include "(\w+)/([\w.]+)"', line)
        if include:
            other = include.group(1)
            name = f"{other}/{include.group(2)}"
            allowed = other == folder or other in MAY.get(folder, set()) or (str(path.relative_to(TREE)), name) in ALSO
            if not allowed and not test:
                complain(path, number, f"{folder} may not include {name}")
        if folder in PURE and not test and IMPURE.match(line) and not (folder == "wire" and "arpa" in line):
            complain(path, number, f"{folder} is pure: no {line}")
        if FORBIDDEN.search(line) and not line.lstrip().startswith(("*", "//", "/*")):
            complain(path, number, "a call that is never needed: " + FORBIDDEN.search(line).group(1))
        if UNFINISHED.search(line):
            complain(path, number, "unfinished")
    if len(lines) > LINES_MAX and str(path.relative_to(TREE)) not in TOO_LONG:
        complain(path, len(lines), f"more than {LINES_MAX} lines: it has become two things")


def check_form():
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, sources())], capture_output=True, text=True)
    for line in done.stderr.splitlines():
        m = re.match(r"(.*?):(\d+):\d+: error", line)
        if m:
            complain(pathlib.Path(m.group(1)), m.group(2), "not as clang-format has it")


def compare(what, code, manual, page):
    for name in sorted(code - manual):
        complain(TREE / page, 1, f"{what} {name} is not in the manual")
    for name in sorted(manual - code):
        complain(TREE / page, 1, f"{what} {name} is in the manual, not in the code")


def events_of_code():
    """Names that are logged as they stand, and all literals that could be one: some go through a helper's argument."""
    logged, literal = set(), set()
    for path in sources():
        if re.search(r"(_test|_fuzz|harness|world)\.c$", path.name):
            continue
        text = path.read_text()
        logged |= set(re.findall(r'\blog_(?:debug|info|warn|error)\("([a-z_]+(?:\.[a-z_]+)+)"', text))
        literal |= set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"', text))
    return logged, literal


def manual(page):
    path = TREE / page
    if not path.exists():
        complain(path, 1, "the manual is missing")
        return ""
    return path.read_text()


def check_manuals():
    text = manual("man/kidoban-events.7")
    if text:
        logged, literal = events_of_code()
        told = set(re.findall(r"^\.It (?:Cm |Li |Sy )?([a-z_]+(?:\.[a-z_]+)+)", text, re.M))
        compare("event", logged | (told & literal), told, "man/kidoban-events.7")
    text = manual("man/kidoban.1")
    verbs = set(re.findall(r'^    \{"([a-z -]+)", "', (SRC / "cli/main.c").read_text(), re.M))
    for verb in sorted(verbs):
        if text and not re.search(rf"^\.(It|Ic) .*\b{re.escape(verb)}\b", text, re.M):
            complain(TREE / "man/kidoban.1", 1, f"verb {verb} is not in the manual")


def main():
    for path in sources():
        check_source(path)
    check_form()
    check_manuals()
    for line in wrong:
        print(line)
    print(f"{len(sources())} files read, {len(wrong)} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
