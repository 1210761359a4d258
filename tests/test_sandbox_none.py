"""Jobs without a sandbox, which have all rights of their worker and use them against it: what holds nevertheless."""

import secrets
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from forked import FIRST
from sandbox_runs import processes_with
from worker_program import open_server, run_script, run_worker, wait_gone
from worker_sandboxes import need

from builder.messages import Hello
from builder.model import Aborted, Exited
from builder_worker.sandbox import SandboxError, Task
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import Options

STOPPERS = b"""
supervisor=$PPID
echo $supervisor
until grep -qx $supervisor ../../console; do :; done
for i in 1 2 3; do
  env -i /usr/bin/setsid /bin/sh -c 'while :; do kill -STOP '$supervisor' 2>/dev/null || exit; done' MARK &
done
until grep -q '^State:.*stopped' /proc/$supervisor/status; do :; done
echo going on
sleep 1000
"""
"""A job that lets its supervisor do nothing, by processes that have nothing of the job's environment."""

ORPHAN = b"""
env -i /usr/bin/setsid /bin/sh -c 'echo ready; echo >there; exec perl -e "sleep while 1" MARK' &
until [ -e there ]; do :; done
kill -9 $PPID
sleep 1000
"""
"""A job that kills its supervisor and leaves a process that is nobody's child and has nothing of its environment."""


def _marked(script: bytes) -> tuple[bytes, str]:
    mark = "mark-" + secrets.token_hex(8)
    return script.replace(b"MARK", mark.encode()), mark


@pytest.mark.parametrize("first", ["impatient", "impatient,without_groups"])
async def test_a_job_that_stops_its_supervisor_for_ever_ends_in_time(tmp_path: Path, first: str) -> None:
    script, mark = _marked(STOPPERS)
    finished = await run_script(tmp_path, script, "--timeout=1s", environment={FIRST: first})
    assert finished.result == Aborted(message="time limit of 1 s exceeded")
    assert finished.own_lines[1:] == [b"going on"]
    assert not processes_with(mark)


async def _stopped(pid: int) -> None:
    """Wait until a process is stopped, though whoever stops it can tell nobody."""
    while "stopped" not in Path(f"/proc/{pid}/status").read_text():  # noqa: ASYNC110
        await trio.sleep(0.01)


@pytest.mark.parametrize("first", ["impatient", "impatient,without_groups"])
async def test_what_stops_its_supervisor_ends_when_the_next_worker_starts(tmp_path: Path, first: str) -> None:
    script, mark = _marked(STOPPERS)
    environment = {FIRST: first}
    async with open_server() as server:
        async with (
            run_worker(tmp_path, "-r", server.address, environment=environment) as worker,
            server.accept() as connection,
        ):
            await connection.hand_out(script)
            await _stopped(int(await connection.read_line()))
            worker.process.kill()
        left, directories = processes_with(mark), set((tmp_path / "work").iterdir())
        assert left, "else there is nothing to clean up"
        assert directories
        async with (
            run_worker(tmp_path, "-r", server.address, environment=environment),
            server.accept() as connection,
        ):
            await connection.channel.receive_expected(Hello)
            for pid in left:
                await wait_gone(pid)
            assert not processes_with(mark)
            assert directories.isdisjoint((tmp_path / "work").iterdir())


async def test_nothing_survives_a_job_that_kills_its_supervisor_and_hides(tmp_path: Path) -> None:
    need("none", "pids")
    script, mark = _marked(ORPHAN)
    finished = await run_script(tmp_path, script)
    assert finished.result == Aborted(message="the process that watched over the job was killed")
    assert finished.own_lines in ([], [b"ready"])  # what the supervisor had not read is gone with it
    assert not processes_with(mark)


async def test_a_fork_bomb_that_leaves_every_session_is_killed(tmp_path: Path) -> None:
    need("none", "pids")
    script, mark = _marked(
        b"f() { perl -e 'use POSIX; while (1) { fork and POSIX::setsid() }' MARK & f; }; f 2>/dev/null"
    )
    finished = await run_script(tmp_path, script, "--timeout=1s", "--pids=300")
    assert isinstance(finished.result, Aborted)
    assert not processes_with(mark)


async def test_a_job_that_can_not_enter_its_groups_does_not_run(tmp_path: Path) -> None:
    need("none", "pids")
    task = Task(uuid=uuid4(), name="job", platform="p1", script=b"touch ran", environment={"PATH": "/usr/bin:/bin"})
    async with await NoSandbox(options=Options(work_root=tmp_path / "work")).open(task) as sandbox:
        for directory in sandbox.group.directories:  # type: ignore[attr-defined]
            directory.rmdir()
        sandbox.start()
        with pytest.raises(SandboxError, match=r"the sandbox did not start: .*/cgroup\.procs: No such file"):
            await sandbox.wait()
        assert not (sandbox.work / "ran").exists()
    assert not list((tmp_path / "work").iterdir())


async def test_a_deleted_file_that_is_open_takes_room(tmp_path: Path) -> None:
    script = b"exec 3>gone; rm gone; head -c 9000000 /dev/zero >&3; echo written; sleep 1000"
    finished = await run_script(tmp_path, script, "--work-size=4M")
    assert finished.own_lines == [b"written"]
    assert finished.result == Aborted(message="work directory full (limit 4 MiB)")


async def test_a_job_within_its_limits_is_left_alone(tmp_path: Path) -> None:
    need("none", "memory", "pids")
    finished = await run_script(
        tmp_path, b"head -c 900000 /dev/zero >f; exit 3", "--work-size=4M", "--memory=64M", "--pids=20"
    )
    assert finished.result == Exited(code=3)
    assert finished.artifacts == {b"f": bytes(900000)}
