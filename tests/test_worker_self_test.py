"""Whether a release works where it was installed: what is told to whoever is about to restart a worker with it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from worker_program import open_server, run_worker
from worker_sandboxes import builder_worker

from builder import __version__
from builder.extension.working import ResultStored
from builder.model import Exited
from builder_worker import self_test
from builder_worker.sandbox.job_directory import ATTEMPT
from builder_worker.sandbox.record import NAME

ROOT = Path(__file__).parent.parent

LINGER = b"echo begins; while ! test -e ../../../go; do sleep 0.01; done\n"


def test_a_release_that_works() -> None:
    done = builder_worker("self-test", "--sandbox", "none", "--label", "gpu", "--slots", "auto", "--loop", "debian-12")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"builder-worker {__version__} works here, with the sandbox none\n"


def test_with_the_best_sandbox_that_there_is() -> None:
    if json.loads(builder_worker("check", "--json").stdout)["auto"] is None:
        pytest.skip("no sandbox works here")
    done = builder_worker("self-test")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--sandbox", "none", "--max-artifact-bytes", "1"), 1, "a build that should succeed ended so: "),
        (("--sandbox", "unheard-of"), 2, "unheard-of"),
        (("--sandbox", "none", "--root", "/"), 7, "without a sandbox there is no --root"),
        (("--sandbox", "none", "--max-pressures", "1"), 2, "No such option"),
    ],
)
def test_what_does_not_work_is_told(arguments: tuple[str, ...], status: int, complaint: str) -> None:
    done = builder_worker("self-test", *arguments)
    assert done.returncode == status
    assert complaint in done.stderr
    assert done.stdout == ""


async def test_jobs_that_run_are_left_alone_and_counted(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--sandbox", "none", "--reconnect-for", "5m") as worker,
        server.accept_ours() as connection,
    ):
        given = await connection.give(LINGER)
        assert await connection.read_line() == b"begins"
        assert self_test.check_left(tmp_path / "work") == 1
        (place,) = (tmp_path / "work").glob(f"*/{ATTEMPT}")
        assert place.exists()
        (tmp_path / "work" / "go").touch()
        assert (await connection.finish()).result == Exited(code=0)
        await connection.channel.send(ResultStored(uuid=given.uuid))
        assert await worker.wait() == 0
        assert self_test.check_left(tmp_path / "work") == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: (place / ATTEMPT).write_text("{}"),
        lambda place: (place / NAME).write_text('{"groups": [], "colour": "green"}'),
    ],
)
async def test_jobs_that_would_be_lost_are_told(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--sandbox", "none", "--reconnect-for", "5m"),
        server.accept_ours() as connection,
    ):
        await connection.give(LINGER)
        assert await connection.read_line() == b"begins"
        copy = tmp_path / "copy" / uuid4().hex
        copy.mkdir(parents=True)
        (attempt,) = (tmp_path / "work").glob(f"*/{ATTEMPT}")
        for name in (ATTEMPT, NAME):
            (copy / name).write_bytes((attempt.parent / name).read_bytes())
        assert self_test.check_left(copy.parent) == 1
        spoil(copy)
        with pytest.raises(self_test.SelfTestFailed, match=r"1 of 1 jobs that run would be lost.*let them end first"):
            self_test.check_left(copy.parent)


def test_the_package_asks_as_the_unit_would_start_it(tmp_path: Path) -> None:
    fakes = {"systemctl": "echo root", "systemd-run": 'printf "%s\\n" "$@"'}
    for name, does in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    script = f". {ROOT}/debian/builder-worker/postinst; self_test builder-worker@debian-12.service"
    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    given = done.stdout.splitlines()
    assert "--property=User=root" in given
    assert "--property=EnvironmentFile=-/etc/builder/worker-debian-12.env" in given
    assert given[-6:] == [
        "/usr/bin/builder-worker", "self-test", "--work-dir", "/var/lib/builder-worker/jobs", "$BUILDER_WORKER_OPTIONS",
        "debian-12",
    ]  # fmt: skip
    unit = (ROOT / "systemd/builder-worker@.service").read_text()
    for line in ("HOME=/var/lib/builder-worker/home", "EnvironmentFile=-/etc/builder/worker.env", "Delegate=yes"):
        assert line in unit
        assert any(line in argument for argument in given)
