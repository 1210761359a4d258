"""Several jobs at once in one worker, and the end of a worker that lets them finish."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from worker_program import Server, Worker, WorkerConnection, interrupt, open_server, run_worker, wait_gone
from worker_sandboxes import need, reachable_directory

from builder.errors import ConnectionEnded
from builder.model import Exited

WAIT = b"echo $$; while ! test -e ../../../go; do sleep 0.01; done; echo done > result"
"""A job that ends when a file appears beside the directories of all jobs."""


@asynccontextmanager
async def busy(
    tmp_path: Path, *arguments: str, slots: int = 3, jobs: int = 3
) -> AsyncIterator[tuple[Server, Worker, list[WorkerConnection], list[int]]]:
    """A worker whose first slots have a job; the others wait for one. Also the process ids of the jobs."""
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--slots", str(slots), *arguments) as worker,
        AsyncExitStack() as stack,
    ):
        connections = [await stack.enter_async_context(server.accept()) for _ in range(slots)]
        for connection in connections:
            await connection.greet()
        for connection in connections[:jobs]:
            await connection.hand_out(WAIT)
        pids = [int(await connection.read_line()) for connection in connections[:jobs]]
        yield server, worker, connections, pids


def _go(tmp_path: Path) -> None:
    (tmp_path / "work" / "go").touch()


async def _assert_lost(connection: WorkerConnection) -> None:
    with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
        await connection.finish()


async def test_jobs_run_at_once_each_with_a_connection_and_a_directory(tmp_path: Path) -> None:
    async with busy(tmp_path) as (_, worker, connections, pids):
        assert len(set(pids)) == 3
        _go(tmp_path)
        for connection in connections:
            finished = await connection.finish()
            assert finished.result == Exited(code=0)
            assert finished.artifacts == {b"result": b"done\n"}
            await connection.stream.aclose()
        assert await worker.wait() == 0
        assert worker.log.count("delivered") == 3


async def test_a_slot_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    async with busy(tmp_path) as (_, worker, connections, pids):
        await connections[0].stream.aclose()
        await connections[1].stream.send_all(b"\xff" * 100)
        await wait_gone(pids[0])
        await wait_gone(pids[1])
        _go(tmp_path)
        assert (await connections[2].finish()).result == Exited(code=0)
        await connections[2].stream.aclose()
        assert await worker.wait() in {4, 5}, worker.log


async def test_in_a_loop_a_slot_that_failed_comes_back(tmp_path: Path) -> None:
    async with busy(tmp_path, "--loop", slots=2, jobs=2) as (server, worker, connections, pids):
        await connections[0].stream.aclose()
        await wait_gone(pids[0])
        async with server.accept() as again:
            await again.hand_out(b"echo again")
            assert (await again.finish()).own_lines == [b"again"]
        _go(tmp_path)
        assert (await connections[1].finish()).result == Exited(code=0)
        assert worker.process.poll() is None


async def test_on_a_signal_all_jobs_are_killed(tmp_path: Path) -> None:
    async with busy(tmp_path, "--loop") as (_, worker, connections, pids):
        interrupt(worker)
        for pid in pids:
            await wait_gone(pid)
        assert await worker.wait() == 143
        for connection in connections:
            await _assert_lost(connection)
        assert not list((tmp_path / "work").iterdir())


async def test_a_worker_that_drains_ends_what_waits_and_finishes_what_runs(tmp_path: Path) -> None:
    async with busy(tmp_path, "--loop", "--drain-timeout", "1h", slots=2, jobs=1) as (_, worker, connections, _pids):
        interrupt(worker)
        await _assert_lost(connections[1])
        assert worker.process.poll() is None
        _go(tmp_path)
        finished = await connections[0].finish()
        assert finished.artifacts == {b"result": b"done\n"}
        await connections[0].stream.aclose()
        assert await worker.wait() == 0
        assert "draining" in worker.log


async def test_sighup_drains_however_long_it_takes_and_is_said_once(tmp_path: Path) -> None:
    async with busy(tmp_path, "--loop", slots=2, jobs=1) as (_, worker, connections, _pids):
        interrupt(worker, signal.SIGHUP)
        await _assert_lost(connections[1])
        interrupt(worker, signal.SIGHUP)
        _go(tmp_path)
        assert (await connections[0].finish()).artifacts == {b"result": b"done\n"}
        await connections[0].stream.aclose()
        assert await worker.wait() == 0
        assert worker.log.count("draining on SIGHUP: no more jobs are taken, running ones may end") == 1


async def test_after_sighup_a_worker_can_be_ended(tmp_path: Path) -> None:
    async with busy(tmp_path, "--loop", "--drain-timeout", "0.2", slots=2, jobs=1) as (_, worker, connections, pids):
        interrupt(worker, signal.SIGHUP)
        await _assert_lost(connections[1])
        interrupt(worker)
        await wait_gone(pids[0])
        assert await worker.wait() == 143
        assert "what was not done within 0.2 s was killed" in worker.log


async def test_a_worker_under_nohup_goes_on_after_sighup(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, prefix=("nohup",)) as worker,
        server.accept() as connection,
    ):
        await connection.greet()
        interrupt(worker, signal.SIGHUP)
        await connection.hand_out(b"exit 3")
        assert (await connection.finish()).result == Exited(code=3)
        await connection.stream.aclose()
        assert await worker.wait() == 0
        assert "draining" not in worker.log


async def test_a_worker_that_drains_does_not_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--loop", "--drain-timeout=1h") as worker,
    ):
        async with server.accept() as connection:
            await connection.greet()
        while "next attempt" not in worker.log:  # noqa: ASYNC110 - a log tells nobody when it grows
            await trio.sleep(0.01)
        interrupt(worker)
        assert await worker.wait() == 0


async def test_what_is_not_done_in_time_is_killed(tmp_path: Path) -> None:
    async with busy(tmp_path, "--drain-timeout", "0.2", slots=1, jobs=1) as (_, worker, connections, pids):
        interrupt(worker)
        await wait_gone(pids[0])
        assert await worker.wait() == 143
        assert "what was not done within 0.2 s was killed" in worker.log
        await _assert_lost(connections[0])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_a_worker_that_drains(tmp_path: Path, number: signal.Signals, status: int) -> None:
    async with busy(tmp_path, "--drain-timeout", "1h", slots=2, jobs=1) as (_, worker, connections, pids):
        interrupt(worker)
        await _assert_lost(connections[1])
        interrupt(worker, number)
        await wait_gone(pids[0])
        assert await worker.wait() == status
        await _assert_lost(connections[0])


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


async def test_each_slot_has_a_sandbox_of_its_own(place: Path) -> None:
    """Jobs at the same time see neither processes nor files of each other, and count their memory alone."""
    need("bubblewrap", "memory")
    script = b"""# builder: memory=100M
touch /tmp/mine mine; ls /proc | grep -c '^[0-9]'; ls -A . /tmp /home/builder
perl -e '$x = q(x) x 30_000_000; print length $x'
"""
    async with (
        open_server() as server,
        run_worker(place, "-r", server.address, "--slots=2", sandbox=None) as worker,
        server.accept() as one,
        server.accept() as other,
    ):
        for connection in (one, other):
            await connection.hand_out(script)
        for connection in (one, other):
            finished = await connection.finish()
            assert finished.result == Exited(code=0), finished
            assert int(finished.own_lines[0]) < 10
            assert finished.own_lines[1:-1] == [
                b".:",
                b".builder-script",
                b"mine",
                b"",
                b"/home/builder:",
                b"",
                b"/tmp:",
                b"mine",
            ]
            await connection.stream.aclose()
        assert await worker.wait() == 0
        assert "sandbox: bubblewrap" in worker.log
