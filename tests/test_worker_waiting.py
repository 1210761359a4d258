"""A worker that waits for a job for some time, and leaves then: what the server tells it, and what it does."""

from pathlib import Path

import pytest
import trio
from farm import eventually, run_server, running_worker
from scripted import OUR_WORKER, ask_job, connect, do, schedule
from worker_program import open_server, run_worker

from builder.errors import ConnectionEnded
from builder.extension.working import AskJob, NoJob
from builder.messages import Failure
from builder_server.store import Build, Store
from builder_server.store.records import Taken

MONTHS = 3 * 30 * 86_400_000


async def test_the_server_says_that_there_was_no_job(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await peer.send(AskJob(platform="p1", worker="w", wait=1))
        await peer.receive(NoJob)
        await do(server, schedule("a"))
        await peer.send(AskJob(platform="p1", worker="w", wait=MONTHS))
        await peer.receive_any()
        assert server.query("select name, losses from build") == [("a", 0)]


@pytest.mark.parametrize("wait", [0, -1, 2**60])
async def test_a_time_that_can_not_be_waited_for(tmp_path: Path, wait: int) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await peer.send(AskJob(platform="p1", worker="w", wait=wait))
        with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
            await peer.receive(Failure)


async def test_a_job_that_is_taken_too_late_is_there_for_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, go = trio.Event(), trio.Event()
    take = Store.take

    async def slow(self: Store, *args: object) -> Taken:
        found = await take(self, *args)  # type: ignore[arg-type]
        if isinstance(found.build, Build):
            taken.set()
            await go.wait()
        return found

    monkeypatch.setattr(Store, "take", slow)
    async with (
        run_server(tmp_path) as server,
        connect(server, OUR_WORKER) as late,
        connect(server, OUR_WORKER) as next_one,
    ):
        await late.send(AskJob(platform="p1", worker="late", wait=200))
        await eventually(lambda: server.query("select * from platform"))
        await do(server, schedule("a"))
        await taken.wait()
        await late.receive(NoJob)
        go.set()
        await (await ask_job(next_one)).finish(next_one)
        assert server.query("select worker_name, losses, state from build order by started") == [
            ("late", 0, "lost"),
            ("w", 0, "finished"),
        ]


# --- the worker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--loop", "--slots=2")])
async def test_a_worker_leaves_when_there_is_nothing_to_do(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with run_server(tmp_path) as server:
        with running_worker(server, "p1", "--wait=0.05", "--sandbox=none", *options) as worker:
            assert await worker.wait_async() == 0
            assert "there was no job for p1 for 0.05s" in worker.log
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            await ask_job(peer)


async def test_in_a_loop_each_job_is_followed_by_as_long_a_wait(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        with running_worker(server, "p1", "--wait=0.5", "--loop", "--sandbox=none") as worker:
            assert await worker.wait_async() == 0
        assert server.query("select name, state from build order by name") == [("a", "finished"), ("b", "finished")]


async def test_of_a_classic_server_it_goes_by_itself(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, "--wait=0.05") as worker:
        async with server.accept() as connection:
            await connection.greet()
            assert await worker.wait() == 0
        assert "there was no job" in worker.log
