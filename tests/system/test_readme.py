"""Every command and configuration that the two READMEs show works as it stands there."""

import os
import pathlib
import pty
import re
import select
import shlex
import sys
import time

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import house  # noqa: E402

PAGES = ("README.md", "README.ja.md")


def text_of(page):
    return (house.TREE / page).read_text("utf-8")


def blocks(page):
    """What is indented by four, block by block."""
    return [re.sub(r"(?m)^    ", "", b) for b in re.findall(r"(?m)(?:^    .*\n)+", text_of(page))]


def configuration(page):
    [block] = [b for b in blocks(page) if b.startswith("operator:")]
    return yaml.safe_load(block)


def commands(page):
    """kidoban's, from the blocks and from between backticks, in the order of the page."""
    words = re.findall(r"(?m)^    (kidoban .*)$|`(kidoban [a-z][^`]*)`", text_of(page))
    typed = [shlex.split(block or inline)[1:] for block, inline in words]
    return [c for c in typed if c[0] not in ("gate", "export")]  # only named there, without what they need


@pytest.fixture(scope="module")
def world():
    with house.World() as w:
        yield w


@pytest.fixture(scope="module", params=PAGES)
def page(request):
    return request.param


@pytest.fixture(scope="module")
def kidoban(world, page):
    """With the page's configuration; only certificates, listeners and where names are asked belong to this world."""
    ours = house.Kidoband(world, page.replace(".", "-"))
    of_the_world = {"submission": {key: ours.settings["submission"][key] for key in ("listen", "tls")},
                    "delivery": ours.settings["delivery"], "processes": ours.settings["processes"]}
    ours.write_config(house.merged(configuration(page), of_the_world))
    with ours:
        yield ours


def at_a_terminal(kidoban, arguments, answers):
    """Types the answers, each when something is asked; what came, and the exit status."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(house.KIDOBAN, ["kidoban", *arguments], kidoban.environment())
    seen, end = "", time.monotonic() + 60 * house.PATIENCE
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        try:
            octets = os.read(fd, 4096)
        except OSError:
            break
        seen += octets.decode("utf-8", "replace")
        if answers and seen.rstrip(" ").endswith(":"):
            os.write(fd, (answers.pop(0) + "\n").encode())
            seen += "\n"
    os.close(fd)
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_configuration_is_the_example(page):
    example = yaml.safe_load((house.TREE / "packaging/kidoban.yaml.example").read_text())
    ours = configuration(page)
    assert set(ours) == set(example)
    assert ours["limits"] == example["limits"] and ours["routes"] == example["routes"]


def test_commands(kidoban, page):
    done = commands(page)
    verbs = [" ".join(c[:2]) for c in done]
    assert "account add" in verbs and any(v.startswith("trace") for v in verbs), verbs
    for arguments in sorted(done, key=lambda c: c[:2] != ["account", "add"]):  # nothing can be said of alice before
        if arguments[:2] == ["account", "add"]:
            said, status = at_a_terminal(kidoban, arguments, [kidoban.PASSWORD] * 2)
            assert status == 0, said
            assert kidoban.PASSWORD not in said, "echoed"
            kidoban.send("friend@post.example")
            kidoban.world.post.wait("friend@post.example")
        else:
            said = kidoban.run(*arguments).stdout
            assert arguments[0] != "trace" or "friend@post.example" in said, said


def test_what_it_says_of_a_domain_and_of_a_device(kidoban, page):
    """The pages differ in what they show; the promises are the same."""
    kidoban.run("account", "identity", "add", "alice", "*@example.org", check=False)
    kidoban.send("friend@post.example", sender="anybody@example.org")


def test_linked_files_are_there(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", text_of(page)):
        assert (house.TREE / target).exists(), target


def test_stages_named_are_there():
    for command in re.findall(r"(?m)^    (\./\w+)", "".join(text_of(p) for p in PAGES)):
        assert os.access(house.TREE / command, os.X_OK), command
