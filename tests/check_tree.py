"""The tree's own rules: includes point one way, pure folders are pure, the manuals and completions name what the code has,
the formatter agrees, nothing is unfinished.

usage: /usr/bin/python3 tests/check_tree.py [--json]

Prints FILE:LINE: what, and at the end how many checks passed and failed; exits 1 when one failed. Reads the sources only:
nothing needs to be built.
"""

import json
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
    "policy": BASE,
    "process": BASE,
    "vault": BASE | {"process"},
    "gate": BASE | {"process", "policy"},
    "guard": BASE | {"process"},
    "spool": BASE | {"process", "message"},
    "deliver": BASE | {"process", "smtp", "message", "policy"},
    "submit": BASE | {"process", "smtp", "message", "policy"},
    "master": BASE | {"process"},
    "simulation": BASE | {"process", "smtp", "message", "spool", "deliver"},  # a test: no part of the daemon
    "cli": BASE | {"policy", "gate"},
}
# The command reads a spool whose daemon is down, and answers of the DNS.
ALSO = {("src/cli/offline.c", "spool/offline.h"), ("src/cli/gate_names.c", "deliver/dns.h")}
# Sockets, files, clocks, event loops, and libraries that have them; <stdio.h> and <time.h> are for snprintf and gmtime_r.
IMPURE = re.compile(
    r'#include (?:<(?:uv|unistd|fcntl|poll|sqlite3|systemd/.*|sys/(?!types|param|cdefs).*|netinet/.*|netdb|openssl/.*)\.h>'
    r'|"common/(?:clock|log|fault)\.h")')
IMPURE_CALL = re.compile(r"\b(v?f?printf|fopen|fdopen|open|f?puts|perror|time|clock|clock_gettime|gettimeofday|localtime(?:_r)?)\s*\(")
FORBIDDEN = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|strtok|alloca|system|popen)\s*\(")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
LINES_MAX = 800
# To be parted: it has become two things.
TOO_LONG = {"src/smtp/server_test.c"}

TEST = re.compile(r"(_test|_fuzz|_fake|_dialogue|harness|world|memdisk(?:_power|_int)?)\.[ch]$")

wrong = []
passed = 0


def complain(path, line, what):
    wrong.append({"file": str(path.relative_to(TREE)), "line": int(line), "what": what})


class check:
    """One check: it has passed when nothing was complained of within."""

    def __enter__(self):
        self.before = len(wrong)

    def __exit__(self, *failure):
        global passed
        passed += len(wrong) == self.before


def sources():
    return sorted(p for p in SRC.rglob("*") if p.suffix in (".c", ".h"))


def formed():
    """All C that clang-format decides the form of: the tests and measurements outside of src too."""
    elsewhere = (p for folder in ("bench", "tests") for p in (TREE / folder).rglob("*.[ch]")
                 if not p.is_relative_to(TREE / "tests/cppcheck"))
    return sources() + sorted(elsewhere)


def code_of(text):
    """The text without comments and what stands in strings; every line keeps its number."""
    kept = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"',
                  lambda m: "\n" * m.group().count("\n") if m.group()[0] == "/" else '""', text, flags=re.S)
    return kept.splitlines()


# Sources.


def check_includes(path, lines, folder, test):
    own = str(path.relative_to(TREE))
    for number, line in enumerate(lines, 1):
        if re.match(r"\s*#\s*include\s*<uthash\.h>", line) and own != "src/common/hash.h":
            complain(path, number, "<uthash.h> ends the process when memory is short: common/hash.h")
        include = re.match(r'\s*#\s*include\s*"(.*)"', line)
        if not include:
            continue
        name = include.group(1)
        other = name.split("/")[0]
        if name.endswith(".skel.h"):
            continue  # made at build, from the folder's own BPF source
        if "/" not in name or ".." in name:
            complain(path, number, f'"{name}" should be written "folder/file.h"')
        elif other != folder and other not in MAY[folder] and (own, name) not in ALSO and not test:
            complain(path, number, f"{folder} may not include {name}")
        elif not (SRC / name).exists():
            complain(path, number, f"there is no src/{name}")


def check_pure(path, lines, code):
    for number, (line, bare) in enumerate(zip(lines, code), 1):
        impure = IMPURE.match(line) or IMPURE_CALL.search(bare)
        if impure:
            complain(path, number, f"{path.relative_to(SRC).parts[0]} is pure: no {impure.group().removeprefix('#include ')}")


def check_words(path, lines, code):
    for number, (line, bare) in enumerate(zip(lines, code), 1):
        forbidden = FORBIDDEN.search(bare)
        if forbidden:
            complain(path, number, f"a call that is never needed: {forbidden.group(1)}")
        if UNFINISHED.search(line):
            complain(path, number, "unfinished: " + UNFINISHED.search(line).group(1))


def check_source(path):
    folder = path.relative_to(SRC).parts[0]
    test = bool(TEST.search(path.name))
    text = path.read_text()
    lines, code = text.splitlines(), code_of(text)
    with check():
        if folder in MAY:
            check_includes(path, lines, folder, test)
        else:
            complain(path, 1, f"what may src/{folder} include? tests/check_tree.py does not know")
    if folder in PURE and not test:
        with check():
            check_pure(path, lines, code)
    with check():
        check_words(path, lines, code)
    with check():
        if len(lines) > LINES_MAX and str(path.relative_to(TREE)) not in TOO_LONG:
            complain(path, len(lines), f"more than {LINES_MAX} lines: it has become two things")


def check_form():
    global passed
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, formed())], capture_output=True, text=True)
    bad = {}
    for line in done.stderr.splitlines():
        m = re.match(r"(.*?):(\d+):\d+: error", line)
        if m:
            bad.setdefault(m.group(1), m.group(2))
    for path, line in bad.items():
        complain(pathlib.Path(path), line, "not as clang-format has it")
    if done.returncode != 0 and not bad:
        complain(TREE / ".clang-format", 1, "clang-format: " + done.stderr.strip()[:200])
    passed += len(formed()) - len(bad)


# Manuals and completions.


def read(name):
    path = TREE / name
    if not path.exists():
        complain(path, 1, "is missing")
        return ""
    return path.read_text()


def compare(what, code, manual, page):
    """code and manual: names, each with the file and line where it stands."""
    global passed
    for name in sorted(set(code) | set(manual)):
        if name not in manual:
            complain(*code[name], f"{what} {name} is not in {page}")
        elif name not in code:
            complain(*manual[name], f"{what} {name} is not in the code")
        else:
            passed += 1


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def found(pattern, name, text=None):
    """Every first group in a file, with its place."""
    text = read(name) if text is None else text
    return {m.group(1): (TREE / name, line_of(text, m.start(1))) for m in re.finditer(pattern, text, re.M)}


EVENT = re.compile(r'"([a-z][a-z_]*(?:\.[a-z_]+)+)"')


def events_of_code():
    """What stands first in a call of a log function, as it is or as one of two, and in tables beside a level."""
    events = {}
    for path in sources():
        if TEST.search(path.name):
            continue
        text = path.read_text()
        for call in re.finditer(r"\b(?:log_(?:debug|info|warn|error|event)|note)\((.*?)(?:\bLF_|;)", text, re.S):
            for name in EVENT.finditer(call.group(1)):
                events.setdefault(name.group(1), (path, line_of(text, call.start(1) + name.start())))
        for row in re.finditer(EVENT.pattern + r",\s*LOG_LEVEL_", text):
            events.setdefault(row.group(1), (path, line_of(text, row.start())))
    return events


def check_events():
    compare("event", events_of_code(), found(r"^\.It Cm ([a-z][a-z_]*(?:\.[a-z_]+)+)$", "man/kidoban-events.7"), "kidoban-events(7)")


class Schema:
    """The tables of src/config, read as text: every key's path with its default."""

    def __init__(self):
        self.tables, self.keys = {}, {}
        for path in sorted((SRC / "config").glob("*.c")):
            text = path.read_text()
            for table in re.finditer(r"const struct schema_field (\w+)\[\] = \{\n(.*?)\n\};", text, re.S):
                rows = re.finditer(r'\{"(\w+)",\s*(\w+),(.*?)\}(?=,\n)', table.group(2), re.S)
                self.tables[table.group(1)] = [(r.group(1), r.group(2), r.group(3), path,
                                                line_of(text, table.start(2) + r.start())) for r in rows]
        self.walk("schema_root", "")

    def walk(self, table, prefix):
        for key, reader, rest, path, line in self.tables.get(table, []):
            members = re.search(r"\.members = (\w+)", rest)
            fallback = re.search(r'^[^"]*?\),\s*"([^"]*)"|^\s*0,\s*"([^"]*)"', rest)
            default = next((g for g in fallback.groups() if g is not None), None) if fallback else None
            self.keys[prefix + key] = (path, line, default)
            if members:
                self.walk(members.group(1), prefix + key + ("." if reader == "schema_map" else "[]."))


def check_keys():
    page = "man/kidoban.yaml.5"
    schema, text = Schema(), read(page)
    code = {name: (path, line) for name, (path, line, _) in schema.keys.items()}
    compare("key", code, found(r"^\.It Va ([\w.\[\]]+)$", page, text), "kidoban.yaml(5)")
    words = {m.group(1): m.group(2) for m in re.finditer(r"^\.It Va (\S+)\n(.*?)(?=^\.It|^\.El|\Z)", text, re.M | re.S)}
    for name, (path, line, default) in schema.keys.items():
        if default and name in words:
            with check():
                if not re.search(r"\bdefault:? " + re.escape(default) + r"(?![\w/-])", words[name], re.I):
                    complain(path, line, f"the default of {name}, {default}, is not in kidoban.yaml(5)")


def verbs_of_code():
    """Each verb with its options."""
    text = read("src/cli/main.c")
    table = re.search(r"\bverbs\[\] = \{\n(.*?)\n\};", text, re.S)
    string = r'"((?:[^"\\]|\\.)*)"'
    rows = re.finditer(rf"\{{{string},\s*{string},\s*{string},\s*\w+,\s*{string}\}}", table.group(1)) if table else []
    return {r.group(1): (TREE / "src/cli/main.c", line_of(text, table.start(1) + r.start()), set(r.group(4).split())) for r in rows}


def check_verbs():
    verbs = verbs_of_code()
    code = {f"{name} {o}".rstrip(): place[:2] for name, place in verbs.items() for o in {""} | place[2]}
    # What only some verbs make use of, all of them take.
    every = {f"{name} --json": place[:2] for name, place in verbs.items()}
    check_manual_verbs(code)
    check_bash(code)
    check_zsh(code)
    check_fish({name: place for name, place in code.items() if name not in every})


def check_manual_verbs(code):
    page = "man/kidoban.1"
    manual = {}
    for number, line in enumerate(read(page).splitlines(), 1):
        item = re.match(r"\.It Ic ([a-z-]+(?: [a-z]+)?)(?= |$)(.*)", line)
        if item:
            name = " ".join(w for w in item.group(1).split())
            manual[name] = (TREE / page, number)
            for option in re.findall(r"\bFl -([a-z-]+)", item.group(2)):
                manual[f"{name} --{option}"] = (TREE / page, number)
    compare("verb or option", code, manual, "kidoban(1)")


def check_bash(code):
    page = "packaging/completion/kidoban.bash"
    text, there = read(page), {}
    for m in re.finditer(r'^    \["([a-z -]+)"\]="(.*)"$', text, re.M):
        for option in {""} | set(m.group(2).split()):
            there[f"{m.group(1)} {option}".rstrip()] = (TREE / page, line_of(text, m.start()))
    compare("verb or option", code, there, page)


def check_zsh(code):
    page = "packaging/completion/_kidoban"
    text, there = read(page), {}
    there |= found(r"^        '([a-z -]+):.*'$", page, text)
    for m in re.finditer(r"^        '([a-z -]+)' '(.*)'$", text, re.M):
        for option in m.group(2).split():
            there[f"{m.group(1)} {option}"] = (TREE / page, line_of(text, m.start()))
    compare("verb or option", code, there, page)


def check_fish(code):
    page = "packaging/completion/kidoban.fish"
    text, there = read(page), {}
    for m in re.finditer(r"^complete -c kidoban -n '__kidoban_before ?([a-z-]*)' -a ([a-z-]+) -d", text, re.M):
        if m.group(2) != "help":
            there[f"{m.group(1)} {m.group(2)}".strip()] = (TREE / page, line_of(text, m.start()))
    for m in re.finditer(r"^complete -c kidoban -n '__kidoban_verb ([a-z -]+)' -l ([a-z-]+)", text, re.M):
        there[f"{m.group(1)} --{m.group(2)}"] = (TREE / page, line_of(text, m.start()))
    compare("verb or option", code, there, page)


def check_daemon_options():
    code = found(r'^    \{"([a-z-]+)", (?:required|no)_argument', "src/master/main.c")
    page = "man/kidoband.8"
    text = read(page)
    manual = {m.group(1): (TREE / page, line_of(text, m.start())) for m in re.finditer(r"\bFl -([a-z]+)", text)}
    compare("option", code, manual, "kidoband(8)")


def check_broken():
    for path in sorted((TREE / "tests/broken").glob("*.*")):
        with check():
            other = path.with_suffix({".yaml": ".expect", ".expect": ".yaml"}.get(path.suffix, ".nothing"))
            if not other.exists():
                complain(path, 1, f"{other.name} is missing")


def main():
    for path in sources():
        check_source(path)
    check_form()
    check_events()
    check_keys()
    check_verbs()
    check_daemon_options()
    check_broken()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"passed": passed, "failed": len(wrong), "complaints": wrong}, indent=1))
    else:
        for one in wrong:
            print(f"{one['file']}:{one['line']}: {one['what']}")
        print(f"{passed} checks passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
