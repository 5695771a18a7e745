"""`meson install` puts everything where Debian looks for it, and what is installed runs from there."""

import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import house  # noqa: E402

PLACES = {
    "usr/bin/kidoban", "usr/sbin/kidoband",
    "usr/share/man/man1/kidoban.1", "usr/share/man/man5/kidoban.yaml.5",
    "usr/share/man/man7/kidoban-events.7", "usr/share/man/man8/kidoband.8",
    "usr/lib/systemd/system/kidoban.service", "usr/lib/sysusers.d/kidoban.conf",
    "usr/share/bash-completion/completions/kidoban", "usr/share/zsh/vendor-completions/_kidoban",
    "usr/share/fish/vendor_completions.d/kidoban.fish", "usr/share/doc/kidoban/examples/kidoban.yaml",
}


def run(*argv, **options):
    return subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **options).stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    destination = tmp_path_factory.mktemp("root")
    run("meson", "install", "-C", house.BUILD, "--no-rebuild", "--destdir", destination)
    return destination


def test_places(root):
    assert {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} == PLACES


def test_all_that_is_written_is_installed():
    sources = {p.name for folder in ("man", "packaging/completion") for p in (house.TREE / folder).iterdir()}
    installed = {pathlib.PurePath(p).name for p in PLACES} | {"kidoban.bash"}  # named after the command there
    assert sources <= installed


@pytest.mark.parametrize("page", sorted(p for p in PLACES if "/man/" in p))
def test_manual_is_read_by_its_name(root, page):
    name = pathlib.PurePath(page)
    text = run("mandoc", "-T", "utf8", root / page)
    assert text.startswith(f"{name.stem.upper()}({name.suffix[1:]})")


def test_programs_run(root):
    assert run(root / "usr/bin/kidoban", "version").split()[-1] == run(root / "usr/sbin/kidoband", "--version").split()[-1]


def test_unit_starts_what_is_installed(root):
    unit = (root / "usr/lib/systemd/system/kidoban.service").read_text()
    assert "@" not in unit
    for name in ("ExecStart", "ExecReload"):
        program = re.search(rf"^{name}=(\S+)", unit, re.M)[1]
        assert (root / program.lstrip("/")).is_file()


def test_users_are_made_each_with_a_group_of_its_own(root):
    users = set(re.findall(r"^u\s+(\S+)", (root / "usr/lib/sysusers.d/kidoban.conf").read_text(), re.M))
    assert users == {f"kidoban-{role}" for role in ("submit", "vault", "guard", "spool", "deliver", "gate")}
    (root / "etc").mkdir()
    run("systemd-sysusers", f"--root={root}", "kidoban.conf")
    made = {line.split(":")[0]: line.split(":")[3] for line in (root / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":")[2] for line in (root / "etc/group").read_text().splitlines()}
    assert set(made) == users
    assert all(group == groups[user] for user, group in made.items()), "none is in the control sockets' group"


def test_example_is_good_but_for_its_files(root):
    """Only the certificate, which an operator has to bring, may be missing."""
    example = root / "usr/share/doc/kidoban/examples/kidoban.yaml"
    done = subprocess.run([root / "usr/bin/kidoban", "check", example], capture_output=True, text=True)
    complaints = (done.stdout + done.stderr).splitlines()
    assert all("/etc/kidoban/tls/" in line for line in complaints), complaints


def test_bash_completes(root):
    completion = root / "usr/share/bash-completion/completions/kidoban"
    words = run("bash", "-c", f"source {completion}; COMP_WORDS=(kidoban acc); COMP_CWORD=1; _kidoban; echo ${{COMPREPLY[*]}}")
    assert words.split() == ["account"]
