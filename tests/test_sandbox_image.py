"""``--image``: jobs in container images, which say what suits services: a user, volumes, a program to start."""

import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from sandbox_runs import DEADLINE, Driver, driver, plain_user, small_tree, start, stop, work_directory

pytestmark = pytest.mark.long  # podman, for which each job takes a second

SETTINGS = ("USER 12:34", "VOLUME /data", "WORKDIR /nowhere", 'ENTRYPOINT ["/bin/false"]', "ENV FROM_IMAGE=1")


@frozen(kw_only=True)
class Podman:
    """podman as the user that the driver is, whose images are below ``home`` unless it is root."""

    home: Path
    uid: int | None

    def run(self, *arguments: str, stdin: bytes = b"") -> None:
        """Run it to its end."""
        subprocess.run(
            ["podman", *arguments],
            input=stdin,
            check=True,
            capture_output=True,
            timeout=DEADLINE,
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home)},
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
        )


def small_system() -> bytes:
    """Return a tar file of a system of a few programs, without users, homes and settings."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        tree.mkdir(mode=0o755)
        small_tree(tree, "id", "ls")
        return subprocess.run(["tar", "-C", tree, "--create", "."], check=True, stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="module", params=["root", "user"])
def worker(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A driver with an image that nobody else has."""
    privilege = request.param
    with driver("podman", privilege):
        pass  # whether it works here at all
    uid = plain_user() if privilege == "user" and os.geteuid() == 0 else None
    # a short name, see ``sandbox_runs.start``
    podman = Podman(home=Path(tempfile.mkdtemp(prefix="b-", dir="/tmp")), uid=uid)
    if uid is not None:
        os.chown(podman.home, uid, uid)
    image = f"builder-test-{secrets.token_hex(8)}"
    podman.run("import", *(f"--change={setting}" for setting in SETTINGS), "-", image, stdin=small_system())
    with work_directory(privilege) as work_root:
        started = start("podman", privilege, work_root, home=podman.home, root=None, image=image)
        try:
            started.check = started.receive()
            yield started
        finally:
            podman.run("rmi", "--force", image)
            stop(started)


def test_a_job_runs_in_it_and_sees_programs_and_files_of_it_alone(worker: Driver) -> None:
    assert worker.check["works"], worker.check
    outcome = worker.run('id -un; pwd; cd; pwd; echo "$FROM_IMAGE"; [ -e /data ] || echo none; echo >/build/file')
    assert outcome.output.splitlines() == ["builder", "/build", "/home/builder", "", "none"], outcome
    assert (outcome.code, outcome.files) == (0, ["file"])


def test_it_is_read_only(worker: Driver) -> None:
    outcome = worker.run(
        "for d in / /usr /usr/bin /etc; do (echo >$d/planted) 2>/dev/null && echo wrote $d; done; true"
    )
    assert (outcome.code, outcome.output) == (0, ""), outcome


@pytest.mark.parametrize("privilege", ["root", "user"])
def test_one_that_is_not_there_is_told_with_a_remedy(privilege: str) -> None:
    with driver("podman", privilege):
        pass  # whether it works here at all
    refused = pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match=r"not known .*podman pull")
    with refused, driver("podman", privilege, root=None, image=f"builder-test-{secrets.token_hex(8)}"):
        pass
