"""What /etc holds in a job: the same in every back end, whatever its system has there."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sandbox_runs import cases_in_turn, driver, small_tree, start, stop, work_directory

from builder_worker.sandbox import diagnosis
from builder_worker.sandbox.linux import etc
from builder_worker.sandbox.linux.cgroups import Cgroups

SUBJECTS = [
    ("bubblewrap", "root"),
    ("bubblewrap", "user"),
    ("overlay", "root"),
    ("podman", "root"),
    ("podman", "user"),
]

FILES = "touch group hosts nsswitch.conf; echo root:x:0:0:root:/:/bin/sh >passwd; echo vm >hostname; ln -s /proc/mounts mtab"

TREES = {
    "files": f"{FILES}; echo nameserver 192.0.2.1 >resolv.conf; echo 'hosts: dns files' >nsswitch.conf",
    "nothing": ":",
    "links": "for name in resolv.conf hosts hostname passwd group nsswitch.conf; do ln -s ../run/x/$name $name; done",
    "no directory": "cd ..; rmdir etc",
}
"""What a root tree has in /etc: commands that are run there."""

LOOK = """
getent hosts localhost builder | tr -s ' '
echo $(hostname) $(hostname -f)
[ $(id -u) = 0 ] || echo $(id -un) $(id -gn) $(getent passwd builder | cut -d: -f6)
getent passwd 0 | cut -d: -f1
cat /etc/hostname
echo '# the resolver'
cat /etc/resolv.conf
"""
"""A script that asks for what programs ask."""


@contextmanager
def tree_with(script: str) -> Iterator[Path]:
    with work_directory("root") as path:
        small_tree(path, "getent", "hostname", "id", "cat", "cut", "tr")
        (path / "etc").mkdir()
        subprocess.run(["sh", "-e", "-c", script], cwd=path / "etc", check=True)
        path.chmod(0o755)
        yield path


CASES = [
    *((*subject, tree) for subject in SUBJECTS if subject[0] != "podman" for tree in TREES),
    *(("podman", "root", tree) for tree in ("links", "no directory")),
    ("podman", "user", "files"),  # it can't make files in a tree of another user, and says so
]


@pytest.mark.parametrize(("backend", "privilege", "tree"), cases_in_turn(CASES))
def test_a_job_finds_itself_and_the_resolver_of_the_host(backend: str, privilege: str, tree: str) -> None:
    with tree_with(TREES[tree]) as root, driver(backend, privilege, root=str(root), network=True) as worker:
        outcome = worker.run(LOOK)
    user = ["builder builder /home/builder"] if backend != "overlay" else []
    assert outcome.output.splitlines() == [
        *("::1 localhost", "::1 builder", "builder builder"),
        *(*user, "root", "builder"),
        *("# the resolver", *Path("/etc/resolv.conf").read_text("utf-8").splitlines()),
    ]


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(SUBJECTS))
def test_without_a_network_there_is_no_resolver_of_anywhere(backend: str, privilege: str) -> None:
    with tree_with(TREES["files"]) as root, driver(backend, privilege, root=str(root)) as worker:
        assert worker.run("cat /etc/resolv.conf; getent hosts builder | tr -s ' '").output == "::1 builder\n"


def test_rootless_podman_names_what_a_tree_of_another_user_lacks() -> None:
    with tree_with(f"{FILES}; rm hosts; ln -s /run/x resolv.conf") as root, work_directory("user") as place:
        started = start("podman", "user", place, root=str(root))
        try:
            check = started.receive()
        finally:
            stop(started)
    assert not check["works"]
    if "podman is not installed" not in check["reason"]:
        assert "has no /etc/hosts, which rootless podman can't make" in check["reason"]
        assert "put empty files there: /etc/hosts, /etc/resolv.conf)" in check["reason"]


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(SUBJECTS))
def test_the_names_of_users_may_be_any_bytes(backend: str, privilege: str) -> None:
    with tree_with(f"{FILES}; touch resolv.conf; printf 'ren\\351:x:5:5:Ren\\351\\205:/:/bin/sh\\n' >>passwd") as root:
        (root / "etc/nsswitch.conf").write_text("passwd: files\n")
        with driver(backend, privilege, root=str(root)) as worker:
            assert worker.run("getent passwd 5 >found; cat found | tr '\\351\\205' 'é!'").output.startswith("ren")
            outcome = worker.run(
                "[ $(id -u) = 0 ] || id -un; [ $(cat /etc/passwd | tr -dc '\\205' | tr '\\205' x) = x ]"
            )
            assert outcome.code == 0, outcome


def test_installed_programs_find_what_they_lead_to_in_etc() -> None:
    script = """
        perl -e 'print join(" ", (getprotobyname("tcp"))[2], (getservbyname("https", "tcp"))[2]), qq(\\n)'
        if [ -e /usr/bin/openssl ]; then
          openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout key -out certificate 2>/dev/null && ls certificate
        fi
        [ ! -e /usr/share/maven ] || ls /usr/share/maven/conf/settings.xml >/dev/null
        ls /etc/shadow /etc/ssl/private /etc/machine-id /etc/fstab 2>/dev/null
        [ -w /etc/hosts ] && echo writable; true
    """
    for network in (False, True):
        with driver("bubblewrap", "user", network=network) as worker:
            outcome = worker.run(script)
        expected = "6 443\n" + ("certificate\n" if Path("/usr/bin/openssl").exists() else "")
        assert (outcome.code, outcome.output) == (0, expected)


def test_what_jobs_see_of_the_hosts_etc_is_a_list(tmp_path: Path) -> None:
    for name in ("ssl/private/key", "ssl/certs/ca.pem", "protocols", "shadow", "os-release", "java-17/x", "pip.conf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "services").symlink_to("nowhere")
    shown = [os.path.relpath(path, tmp_path) for path in etc.shown(str(tmp_path))]
    assert shown == ["os-release", "protocols", "ssl/certs", "java-17"]


def test_links_from_programs_to_what_jobs_do_not_see_are_found(tmp_path: Path) -> None:
    usr, directory = tmp_path / "usr", tmp_path / "etc"
    (usr / "share/tool").mkdir(parents=True)
    for name in ("tool/conf", "maven/settings.xml", "ssl/private/key"):
        (directory / name).parent.mkdir(parents=True)
        (directory / name).touch()
    (usr / "share/tool/conf").symlink_to(directory / "tool")
    (usr / "share/tool/relative").symlink_to("../../../etc/tool/conf")
    (usr / "share/tool/shown").symlink_to(directory / "maven")
    (usr / "share/tool/secret").symlink_to(directory / "ssl/private/key")
    (usr / "share/tool/broken").symlink_to(directory / "nothing")
    (usr / "share/tool/loop").symlink_to(usr)
    assert etc.dangling(usr, directory) == [str(directory / "tool"), str(directory / "tool/conf")]
    assert etc.dangling(usr, directory, timeout=0) == []


def test_a_host_without_a_resolver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etc, "RESOLVER", tmp_path / "resolv.conf")
    groups = Cgroups(hierarchies=())
    (tmp_path / "resolv.conf").symlink_to("stub")
    assert "will look up no names" in diagnosis.notes(groups, network=True)[0]
    (tmp_path / "stub").write_text("# made\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\n")
    assert etc.resolver() == (tmp_path / "stub").read_bytes()
    assert diagnosis.notes(groups, network=True)[0].endswith("127.0.0.53, ::1")
