"""Jobs that outlive their worker: adopted by the next one, in real sandboxes, or removed."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from sandbox_runs import (
    DEADLINE,
    MIB,
    Driver,
    cases_in_turn,
    control_groups,
    driver,
    give_up,
    kill_hard,
    processes_with,
    start,
    stop,
    tidy,
    wait_gone,
    work_directory,
)
from test_sandbox_hostile import SUBJECTS, daemons
from worker_sandboxes import PRIVILEGE

from builder.runtime.files import lock_directory
from builder_worker.sandbox import JobTaken, SandboxError
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import Options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of Linux")

ALL = [*SUBJECTS, ("none", "root"), ("none", "user")]
WAITS = "until [ -e go ]; do sleep 0.01; done\n"


@define
class Left:
    """A job that was left by a driver that was killed."""

    first: Driver
    privilege: str
    work_root: Path
    mark: str
    options: dict[str, Any]

    @property
    def place(self) -> Path:
        """The job's directory."""
        (place,) = self.work_root.glob("builder-*")
        return place

    def go(self) -> None:
        """Let the job go on."""
        (self.place / "disk/build/go").touch()

    def wait_ended(self) -> None:
        """Wait until the job has ended."""
        wait_for(self.place / "status")

    @property
    def supervisor(self) -> int:
        """The number of its process."""
        number: int = json.loads((self.place / "record").read_text())["supervisor"]
        return number

    @contextmanager
    def another(self) -> Iterator[Driver]:
        """Another driver in the same place."""
        following = start(
            self.first.backend,
            self.privilege,
            self.work_root,
            delegate=self.first.delegate,
            home=self.first.home,
            **self.options,
        )
        try:
            following.check = following.receive()
            yield following
        finally:
            stop(following, keep=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@cache
def limits_of(backend: str, privilege: str) -> frozenset[str]:
    """Return what is limited here; skip the test if the back end does not work at all."""
    with driver(backend, privilege) as one:
        return frozenset(one.check["limits"])


@contextmanager
def left(backend: str, privilege: str, script: str, *, prefix: Sequence[str] = (), **request: Any) -> Iterator[Left]:
    """A job that has said "ready" and waits, whose driver was killed. Nothing is left of it at the end."""
    options = request.pop("options", {})
    for limit in set(request.get("limits", {})) - limits_of(backend, privilege):
        give_up(backend, f"no limit of {limit}")
    mark = "job-" + secrets.token_hex(8)
    with work_directory(privilege) as work_root:
        first = start(backend, privilege, work_root, prefix=prefix, **options)
        first.receive()
        given = {"grace": DEADLINE} | request
        first.begin(daemons(mark) + "echo ready\n" + WAITS + script, announce="ready", **given)
        kill_hard(first)
        job = Left(first, privilege, work_root, mark, options)
        yield job
        tidy(first)
        assert not list(work_root.glob("builder-*")), "its directory is removed"
        assert not control_groups(first.things), "its control groups are removed"
        assert not processes_with(mark), "its processes are gone"


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(ALL))
def test_a_job_goes_on_with_the_next_worker_and_the_one_after_it(backend: str, privilege: str) -> None:
    with left(backend, privilege, "echo on; echo >file; exit 3", limits={"work_size": 8 * MIB}) as job:
        with job.another() as second:
            assert processes_with(job.mark)
            assert not [line for line in second.check["removed"] if job.place.name in line], "it is not cleaned up"
            number = second.adopt(job.place, announce="ready")
            assert second.leave(number).error is not None
        with job.another() as third:
            third.adopt(job.place, announce="ready")
            job.go()
            outcome = third.outcome()
        assert (outcome.code, outcome.output, outcome.files) == (3, "ready\non\n", ["file", "go"]), outcome


@pytest.mark.parametrize(("backend", "privilege"), cases_in_turn(ALL))
def test_a_job_that_ended_without_a_worker_has_its_files_and_its_end(backend: str, privilege: str) -> None:
    with left(backend, privilege, "echo on; echo >file; kill -9 $$", limits={"work_size": 8 * MIB}) as job:
        job.go()
        job.wait_ended()
        with job.another() as following:
            outcome = following.finish(job.place)
        assert (outcome.signal, outcome.output, outcome.files) == (9, "ready\non\n", ["file", "go"]), outcome


MEMORY = "perl -e 'push @a, q(x) x 1048576 while 1'; exit $?"
LARGE = "head -c 30000000 /dev/zero >large; exit 1"


@pytest.mark.parametrize(
    ("backend", "privilege", "script", "limits", "reason"),
    cases_in_turn(
        [
            ("bubblewrap", "root", LARGE, {"work_size": 8 * MIB}, "work directory full (limit 8 MiB)"),
            ("bubblewrap", "user", LARGE, {"work_size": 8 * MIB}, "work directory full (limit 8 MiB)"),
            ("overlay", "root", MEMORY, {"memory": 64 * MIB}, "out of memory (limit 64 MiB)"),
            ("none", "user", MEMORY, {"memory": 64 * MIB}, "out of memory (limit 64 MiB)"),
            ("podman", "root", MEMORY, {"memory": 64 * MIB}, "out of memory (limit 64 MiB)"),
        ]
    ),
)
def test_its_limits_hold_with_the_next_worker(
    backend: str, privilege: str, script: str, limits: dict[str, float], reason: str
) -> None:
    with left(backend, privilege, script, limits=limits) as job, job.another() as following:
        following.adopt(job.place, announce="ready")
        job.go()
        assert following.outcome().exceeded == reason


KINDS = cases_in_turn([("bubblewrap", "user"), ("overlay", "root"), ("podman", "root"), ("none", "root")])


@pytest.mark.parametrize(("backend", "privilege"), KINDS)
def test_a_job_that_was_adopted_can_be_killed(backend: str, privilege: str) -> None:
    with left(backend, privilege, "") as job, job.another() as following:
        number = following.adopt(job.place, announce="ready")
        assert following.kill(number).code != 0  # its shell may have found that it can't fork any more
        assert not processes_with(job.mark)


@pytest.mark.parametrize(("backend", "privilege"), KINDS)
def test_a_job_whose_supervisor_died_too_is_removed(backend: str, privilege: str) -> None:
    with left(backend, privilege, "") as job:
        place = job.place
        os.kill(job.supervisor, signal.SIGKILL)
        wait_gone([job.supervisor])
        with job.another() as following:
            assert any(place.name in line for line in following.check["removed"])


def test_a_job_that_waited_for_a_worker_for_too_long_is_removed() -> None:
    with left("none", "root", "", grace=0.1) as job:
        wait_gone([job.supervisor])
        assert json.loads((job.place / "status").read_text())["signal"] == signal.SIGKILL
        with job.another() as following:
            assert f"removed the work directory {job.work_root}" in following.check["removed"][-1]


def change(place: Path, **fields: Any) -> None:
    record = place / "record"
    text = json.loads(record.read_text()) | fields
    record.chmod(0o600)
    record.write_text(json.dumps(text))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"supervisor": "x", "groups": [{}]}, "of another release"),
        ({"colour": "blue"}, "of another release"),
        ({"is_mounted": True}, "its disk is not mounted any more"),
    ],
)
def test_a_job_that_can_not_be_adopted_is_ended(fields: dict[str, Any], reason: str) -> None:
    with left("bubblewrap", "root", "") as job:
        place = job.place
        change(place, **fields)
        with job.another() as following:
            error = following.finish(place).error
            assert error is not None
            assert reason in error
            wait_gone(processes_with(job.mark))
            with job.another() as third:  # the second one lives, and holds nothing of it
                assert any(place.name in line for line in third.check["removed"])


def test_what_ended_before_the_machine_was_started_anew_is_no_result() -> None:
    with left("bubblewrap", "root", "") as job:
        place = job.place
        job.go()
        job.wait_ended()
        supervisor = job.supervisor
        os.kill(supervisor, signal.SIGKILL)
        wait_gone([supervisor])
        (place / "attempt").touch()  # so that it is not cleaned up before
        change(place, boot="another one")
        with job.another() as following:
            assert following.finish(place).error == "the machine was started anew since"
        (place / "attempt").unlink()
        with job.another() as following:
            assert any(place.name in line for line in following.check["removed"])


def test_the_limits_that_were_taken_away_to_make_room_are_set_again() -> None:
    with left("bubblewrap", "root", "exit 3", limits={"pids": 77}) as job:
        groups = [path / "pids.max" for path in control_groups(job.place.name) if (path / "pids.max").exists()]
        assert [path.read_text() for path in groups] == ["77\n"]
        groups[0].write_text("max")
        with job.another() as following:
            following.adopt(job.place, announce="ready")
            assert groups[0].read_text() == "77\n"
            job.go()
            assert following.outcome().code == 3


async def test_a_job_that_is_not_started_yet_has_its_worker(tmp_path: Path) -> None:
    """Also where that is in another container, and seems to be gone."""
    backend = NoSandbox(options=Options(work_root=tmp_path))
    place = tmp_path / "builder-1-1-x"
    place.mkdir()
    held = lock_directory(place, shared=True)
    assert held is not None
    with pytest.raises(JobTaken):
        await backend.adopt(place)
    os.close(held)
    with pytest.raises(SandboxError, match="it was not started"):
        await backend.adopt(place)


def test_a_job_has_one_worker() -> None:
    with left("bubblewrap", "root", "exit 3") as job, job.another() as second, job.another() as third:
        second.adopt(job.place, announce="ready")
        assert third.finish(job.place).error == "another worker has it"
        job.go()
        assert second.outcome().code == 3


def test_the_user_of_a_job_is_nobody_elses_while_it_waits_for_a_worker() -> None:
    uids = {"job_uids": [1_900_002_000, 1_900_002_002]}  # one for a job, and one for jobs with caches
    with left("bubblewrap", "root", "exit 3", options=uids) as job, job.another() as following:
        assert "are taken" in (following.run("true").error or "")
        following.adopt(job.place, announce="ready")
        assert "are taken" in (following.run("true").error or "")
        job.go()
        assert following.outcome().code == 3
        assert following.run("exit 4").code == 4


def test_what_only_the_supervisor_sees_mounted_is_found() -> None:
    """A service manager gives each start of a worker mounts of its own; those of its first one are the supervisor's."""
    script = "echo >file; head -c 30000000 /dev/zero >large; exit 1"
    own_mounts = ("unshare", "--mount", "--propagation", "slave")
    with left("bubblewrap", "root", script, limits={"work_size": 8 * MIB}, prefix=own_mounts) as job:
        with job.another() as following:
            following.adopt(job.place, announce="ready")
            Path(f"/proc/{job.supervisor}/root{job.place}/disk/build/go").touch()
            outcome = following.outcome()
        assert outcome.exceeded == "work directory full (limit 8 MiB)", outcome
        assert outcome.files == ["file", "go", "large"]


POINTS = Path(__file__).with_name("adoption_points.py")


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(("backend", "uid"), [("bubblewrap", 1_900_003_000), ("none", 0)])
def test_a_worker_may_be_killed_at_any_place(backend: str, uid: int, every: int) -> None:
    limits_of(backend, PRIVILEGE)
    with work_directory(PRIVILEGE) as work_root:
        done = subprocess.run(
            [sys.executable, str(POINTS), backend, str(work_root), str(uid), str(every)],
            check=False,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        said = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, said
        assert not list(work_root.glob("builder-*"))
    *places, last = said
    ends = dict(zip(places[::2], places[1::2], strict=True))
    assert last == "nothing"
    assert every > 1 or "adopted" in ends.values(), ends
