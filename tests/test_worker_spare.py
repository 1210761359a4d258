"""What a worker has ready for a job that it waits for: it makes a job faster, and is gone when there is none."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from sandbox_runs import control_groups, processes_with
from worker_program import DEADLINE, interrupt, open_server, run_worker, wait_gone
from worker_sandboxes import need, reachable_directory

from builder.model import Exited
from builder_worker.sandbox import ExitStatus, Limits, SandboxError, Task
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.linux.prepared import ReadyMade
from builder_worker.sandbox.options import Options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are none elsewhere")


@pytest.fixture
def backend(tmp_path: Path) -> NoSandbox:
    return NoSandbox(options=Options(work_root=tmp_path / "work"))


@asynccontextmanager
async def spare(backend: NoSandbox) -> AsyncIterator[ReadyMade]:
    with trio.fail_after(DEADLINE):
        place = await backend.spare()
        assert isinstance(place, ReadyMade)
        try:
            yield place
        finally:
            await place.aclose()
    assert not left(place)
    assert not list(backend.options.work_root.iterdir())


def left(place: ReadyMade) -> list[object]:
    """What there is of a place."""
    name = place.directory.path.name
    return [*processes_with(name), *control_groups(name)]


async def both(place: ReadyMade) -> list[int]:
    """Wait until a supervisor has forked the process that becomes the job's first one, and return both."""
    while len(found := processes_with(place.directory.path.name)) < 2:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.001)
    return found


async def run(backend: NoSandbox, place: ReadyMade, script: bytes, limits: Limits | None = None) -> ExitStatus:
    task = Task(uuid=uuid4(), name="job", platform="p1", script=script, limits=limits or Limits())
    async with await backend.open(task, place) as sandbox:
        sandbox.start()
        return await sandbox.wait()


async def test_a_job_takes_what_is_there_and_nothing_is_left(backend: NoSandbox) -> None:
    async with spare(backend) as place:
        processes = await both(place)
        assert await run(backend, place, b'[ "${PWD%%/disk/build}" = "$(dirname "$(dirname "$PWD")")" ]; exit 3') == (
            ExitStatus(code=3)
        )
        for pid in processes:
            await wait_gone(pid)
        assert not left(place)


async def test_what_no_job_takes_is_removed(backend: NoSandbox) -> None:
    async with spare(backend) as place:
        assert left(place)


async def test_limits_hold_that_come_after_the_first_process(backend: NoSandbox) -> None:
    need("none", "pids")
    async with spare(backend) as place:
        await both(place)
        while not place.group.processes():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.001)
        script = b"i=0; while [ $i -lt 30 ]; do sleep 9 & i=$((i+1)); done; exit 0"
        assert (await run(backend, place, script, Limits(pids=20))).code == 2, "the shell can't fork"


async def test_a_limit_that_can_not_be_had_is_refused(backend: NoSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spare(backend) as place:
        backend.groups = type(backend.groups)(hierarchies=())
        with pytest.raises(SandboxError, match="no control group to limit pids"):
            await run(backend, place, b"true", Limits(pids=20))


@pytest.mark.parametrize("which", [0, 1], ids=["supervisor", "first process"])
async def test_what_was_killed_costs_no_job_but_its_own(backend: NoSandbox, which: int) -> None:
    async with spare(backend) as place:
        supervisor = place.supervision._process.pid
        first = next(pid for pid in await both(place) if pid != supervisor)
        os.kill((supervisor, first)[which], signal.SIGKILL)
        await wait_gone(first)  # with its supervisor
        if which == 0:
            place.supervision._process.wait()
            assert await run(backend, place, b"exit 4") == ExitStatus(code=4), "of another place"


@pytest.mark.parametrize("how", ["removed", "moved"])
async def test_a_directory_that_is_gone_is_made_anew(backend: NoSandbox, how: str) -> None:
    async with spare(backend) as place:
        path = place.directory.path
        for file in path.iterdir():
            file.unlink()
        if how == "removed":
            path.rmdir()
        else:
            path.rename(path.with_name("elsewhere"))
        assert await run(backend, place, b"exit 5") == ExitStatus(code=5)
        if how == "moved":
            path.with_name("elsewhere").rmdir()


async def waiting(directory: Path) -> list[int]:
    """Wait until a worker has all for its next job, and return the processes: of the one before, one may be there yet."""
    while True:
        for path in directory.iterdir():
            if len(found := processes_with(path.name)) == 2:
                return found
        await trio.sleep(0.01)


@pytest.mark.parametrize("sandbox", ["none", "bubblewrap"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_worker_that_ends_while_it_waits_leaves_no_process(sandbox: str, number: signal.Signals) -> None:
    need(sandbox)
    with reachable_directory() as directory:
        work = directory / "work"
        async with open_server() as server:
            async with (
                run_worker(directory, "-r", server.address, sandbox=sandbox) as worker,
                server.accept() as connection,
            ):
                await connection.greet()
                processes = await waiting(work)
                interrupt(worker, number)
                await worker.wait()
                for pid in processes:
                    await wait_gone(pid)
            assert bool(list(work.iterdir())) == (number == signal.SIGKILL)
            async with run_worker(directory, "-r", server.address, sandbox=sandbox) as worker:
                async with server.accept() as connection:
                    await connection.hand_out(b"exit 6")
                    assert (await connection.finish()).result == Exited(code=6)
                assert await worker.wait() == 0
        assert not list(work.iterdir())


async def test_a_worker_is_ready_again_for_each_job(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, "--loop") as worker:
        seen: set[int] = set()
        for code in (1, 2):
            async with server.accept() as connection:
                await connection.greet()
                processes = await waiting(tmp_path / "work")
                assert seen.isdisjoint(processes)
                seen.update(processes)
                await connection.hand_out(b"exit %d" % code)
                assert (await connection.finish()).result == Exited(code=code)
        interrupt(worker)
        await worker.wait()
    assert not list((tmp_path / "work").iterdir())


async def test_a_worker_is_ready_before_the_result_is_recorded(tmp_path: Path) -> None:
    """Where jobs wait, the next one comes as soon as the worker asks."""
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, "--loop") as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"exit 1")
            assert (await connection.finish()).result == Exited(code=1)
            ready = await waiting(tmp_path / "work")
        async with server.accept() as connection:
            await connection.greet()
            assert set(await waiting(tmp_path / "work")) == set(ready)
            interrupt(worker)
            await worker.wait()
    assert not list((tmp_path / "work").iterdir())
