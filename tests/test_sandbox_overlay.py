"""The back end ``overlay``: jobs that install packages, and leave no trace of it."""

import gzip
import hashlib
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from sandbox_runs import MIB, Driver, driver, give_up, read_console, root_tree, work_directory
from worker_sandboxes import builder_worker

from builder_worker.sandbox import SandboxError, Task
from builder_worker.sandbox.backends.overlay import USERS, Overlay, first_uid
from builder_worker.sandbox.linux.cgroups import Cgroups
from builder_worker.sandbox.options import JOB_UIDS, Options
from builder_worker.sandbox.processes import rlimits

CONTROL = """\
Package: greeting
Version: 1.0
Architecture: all
Maintainer: Tests <tests@example.org>
Description: says hello
"""

# A package that does what real ones do: a user of its own, files of that user, a set-user-ID program.
POST_INSTALL = """\
#!/bin/sh
set -e
useradd --system --no-create-home greeting
install -d -o greeting -g greeting -m 0750 /var/lib/greeting
chmod 4755 /usr/bin/greeting
"""

INSTALL = """\
set -e
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/packages ./' >/etc/apt/sources.list
apt-get update -q
apt-get install -q -y greeting
greeting
stat -c %U /var/lib/greeting
"""


def make_repository(path: Path) -> None:
    """An apt repository with one package."""
    root = path / "greeting"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(CONTROL)
    (root / "DEBIAN/postinst").write_text(POST_INSTALL)
    (root / "DEBIAN/postinst").chmod(0o755)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/greeting").write_text("#!/bin/sh\necho hello\n")
    (root / "usr/bin/greeting").chmod(0o755)
    package = path / "greeting_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, package], check=True, stdout=subprocess.DEVNULL)
    data = package.read_bytes()
    entry = f"{CONTROL}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (path / "Packages.gz").write_bytes(gzip.compress(entry.encode(), mtime=0))


@pytest.fixture(scope="module")
def worker() -> Iterator[Driver]:
    with work_directory("root") as packages:
        make_repository(packages)
        packages.chmod(0o755)
        with driver("overlay", "root", binds=[f"{packages}:/srv/packages"]) as started:
            yield started


def test_a_job_installs_a_package_and_the_next_one_does_not_see_it(worker: Driver) -> None:
    outcome = worker.run(INSTALL)
    assert outcome.code == 0, outcome
    assert outcome.output.endswith("hello\ngreeting\n"), outcome
    outcome = worker.run(
        "command -v greeting; getent passwd greeting; ls -A /var/lib/greeting; ls /etc/apt/sources.list"
    )
    assert "hello" not in outcome.output
    assert "greeting:" not in outcome.output
    assert outcome.output.endswith("/etc/apt/sources.list\n"), outcome
    assert not (root_tree() / "usr/bin/greeting").exists()


def test_the_tree_is_not_changed(worker: Driver) -> None:
    before = sorted((path.name, path.lstat().st_mtime_ns) for path in (root_tree() / "etc").iterdir())
    outcome = worker.run("echo >/etc/planted; rm -r /etc/apt; chown 1:1 /etc/passwd; mv /usr/bin/perl /usr/bin/lrep")
    assert outcome.code == 0, outcome
    after = sorted((path.name, path.lstat().st_mtime_ns) for path in (root_tree() / "etc").iterdir())
    assert before == after


def test_what_is_installed_counts_as_work_size(worker: Driver) -> None:
    outcome = worker.run("head -c 30000000 /dev/zero >/usr/big", limits={"work_size": 8 * MIB})
    assert outcome.exceeded == "work directory full (limit 8 MiB)", outcome


def test_root_of_the_job_is_nobody_on_the_host(worker: Driver) -> None:
    outcome = worker.run(
        "id -u; cat /proc/self/uid_map; chown 0:0 /build && touch /build/file; grep CapEff /proc/self/status"
    )
    inside, *line, _, capabilities = outcome.output.split()
    assert (inside, line[0], line[2]) == ("0", "0", str(USERS))
    assert int(line[1]) in {first_uid(JOB_UIDS, index) for index in range(len(JOB_UIDS))}  # others run jobs too
    assert not int(capabilities, 16) & (1 << 21 | 1 << 12 | 1 << 27 | 1 << 19), (
        "no SYS_ADMIN, NET_ADMIN, MKNOD, SYS_PTRACE"
    )


def test_users_of_sandboxes_do_not_overlap() -> None:
    firsts = [first_uid(JOB_UIDS, index) for index in range(len(JOB_UIDS))]
    assert firsts[0] > JOB_UIDS[-1]
    assert all(second - first == USERS for first, second in pairwise(firsts))
    assert firsts[-1] + USERS < 2**31, "systemd and others reserve what follows"


def test_a_directory_that_is_no_tree_is_refused_with_a_remedy() -> None:
    refused = pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="root create")
    with work_directory("root") as empty, refused, driver("overlay", "root", root=str(empty)):
        pass


def test_nothing_is_tried_in_a_directory_of_others_and_nothing_is_left(worker: Driver) -> None:
    assert worker.check["works"], "so there is a root tree, and the tests are root"
    with work_directory("root") as place:
        checked = Overlay(options=Options(root=root_tree(), work_root=place))
        if not (check := checked.check()).works:
            give_up(checked.name, check.reason)
        assert not list(place.iterdir())
        place.chmod(0o777)
        with pytest.raises(SandboxError, match="only this user"):
            checked.check()
        assert not list(place.iterdir())


CROWD = """\
#!/usr/bin/perl
print "limited to @{[grep /processes/, `cat /proc/self/limits`]}nice @{[getpriority 0, 0]}\n";
for my $user (1, 2) {
    fork and wait or do {
        $< = $user;
        for (1 .. $ENV{CROWD}) { defined(my $child = fork) or die "no more for user $user\n"; $child or sleep, exit }
        exit;
    };
}
"""
"""A job that is root, and that has processes of two other users, all alive at the same time."""


def test_hard_links_that_the_job_gave_to_another_of_its_users_are_artifacts(worker: Driver) -> None:
    script = "echo x >one; ln one two; chown nobody one; mkdir d; echo y >d/three; ln d/three d/four; chown -R 7:8 d"
    done = builder_worker("run", "--sandbox=overlay", f"--root={root_tree()}", "-", stdin=script)
    assert {line.split()[-1] for line in done.stdout.splitlines() if line[64:65] == " "} == {
        *("one", "two", "d/three", "d/four")
    }, done.stdout


async def test_without_control_groups_the_processes_of_all_users_of_a_job_are_bounded(
    worker: Driver,
) -> None:
    with work_directory("root") as place:
        backend = Overlay(options=Options(root=root_tree(), work_root=place), groups=Cgroups(hierarchies=()))
        crowd = {"CROWD": str(rlimits.PROCESSES * 2 // 3)}
        task = Task(uuid=uuid4(), name="job", platform="p1", script=CROWD.encode(), environment=crowd)
        async with await backend.open(task) as sandbox:
            sandbox.start()
            await sandbox.wait()
            limits, nice, end = (await read_console(sandbox.console)).splitlines()
    assert limits.split()[4:6] == [str(rlimits.PROCESSES)] * 2
    assert (nice, end) == ("nice 10", "no more for user 2")
