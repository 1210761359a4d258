"""Podman: a job ends also when its end comes before its container is there."""

import secrets

import pytest
from sandbox_runs import driver, processes_with, start, stop, wait_gone, work_directory

pytestmark = pytest.mark.long  # podman, for which each job takes a second

SUBJECTS = [("podman", "root"), ("podman", "user")]


@pytest.mark.parametrize(("backend", "privilege"), SUBJECTS)
def test_a_job_that_is_killed_at_once_ends(backend: str, privilege: str) -> None:
    mark = "daemon-" + secrets.token_hex(8)
    with driver(backend, privilege) as started:
        outcome = started.run(f'exec perl -e "sleep while 1" {mark}', end="kill")
        assert outcome.signal == 9, outcome
        assert not processes_with(mark)


@pytest.mark.parametrize(("backend", "privilege"), SUBJECTS)
def test_a_job_whose_worker_is_killed_at_once_ends(backend: str, privilege: str) -> None:
    with driver(backend, privilege):
        pass  # whether it works here at all
    with work_directory(privilege) as work_root:
        killed = start(backend, privilege, work_root)
        killed.receive()
        killed.send({"id": 1, "script": "exec sleep 1000", "end": "die"})
        killed.process.wait()
        for stream in (killed.process.stdin, killed.process.stdout):
            assert stream is not None
            stream.close()
        name = f"builder-{killed.process.pid}-"
        while left := processes_with(name):
            wait_gone(left)
        following = start(backend, privilege, work_root, delegate=killed.delegate, home=killed.home)
        try:
            removed = following.receive()["removed"]
            assert [line for line in removed if f"work directory {work_root}/{name}" in line]
            assert not [line for line in removed if f"the container {name}" in line], "its supervisor has removed it"
        finally:
            stop(following)
