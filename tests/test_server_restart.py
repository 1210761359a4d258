"""A restart of the server while jobs run: by SIGTERM or by a crash, their workers come back, and nothing is lost."""

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from farm import LocalServer, Server, eventually, eventually_async, run_server, start_server
from scripted import (
    CLIENT,
    OUR_WORKER,
    OURS,
    Given,
    ScriptedPeer,
    ask_job,
    build,
    connect,
    do,
    info,
    observe,
    queues,
    said,
    schedule,
    script,
    take_job,
)

from builder import codec
from builder.extension.builds import CancelBuilds
from builder.extension.schedule import PlanJob
from builder.extension.working import Continue, Gone, ResultStored
from builder.framing import frame
from builder.messages import JobFinished, Observe, Output, Success
from builder.model import Aborted, Artifact, Exited, Period
from builder.planning import JobOptions
from builder_server import console
from builder_server.results import ResultWriter
from builder_server.store import Store

SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))


def console_of(data_dir: Path, given: Given) -> Path:
    return data_dir / given.job.name / str(given.uuid) / "console"


async def console_has(data_dir: Path, given: Given, lines: int) -> None:
    """Wait until so many lines are on the server's disk."""
    await eventually(lambda: console_of(data_dir, given).read_bytes().count(b"line ") >= lines)


def check_record(server: Server | LocalServer, given: Given, lines: int) -> None:
    """All lines are there, once and in their order; and the result once."""
    record = server.execution(given.job.name, given.uuid)
    assert [(line.delta, line.line) for line in record.console] == [
        (1000 * number, b"line %d" % number) for number in range(lines)
    ]
    assert record.artifacts == SOME
    assert server.query(f"select state, outcome, losses, artifacts from build where uuid = '{given.uuid}'") == [
        ("finished", "succeeded", 0, len(SOME))
    ]


async def begin(server: Server | LocalServer, peer: ScriptedPeer, lines: int) -> Given:
    """Have a job, and send lines of it that reach the disk."""
    given = await ask_job(peer)
    await given.say(peer, 0, lines)
    await console_has(server.data_dir, given, lines)
    return given


async def leave(root: Path, lines: int, *, name: str = "a", **options: Any) -> Given:
    """Have a server end as in a crash while a job runs."""
    with trio.CancelScope() as scope:
        async with run_server(root, **options) as server, connect(server, OUR_WORKER) as peer:
            await do(server, schedule(name))
            given = await begin(server, peer, lines)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    return given


ENDS: dict[str, Callable[[Server], object]] = {"SIGTERM": lambda server: server.terminate(), "SIGKILL": Server.kill}


@pytest.mark.parametrize("end", ENDS)
async def test_a_restart_while_lines_come(tmp_path: Path, end: str) -> None:
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await begin(server, peer, 1000)
        await given.say(peer, 1000, 3000)  # they may come or not
        await trio.to_thread.run_sync(ENDS[end], server)
        await peer.wait_closed()
    with console_of(server.data_dir, given).open("ab") as file:
        file.write(b"half a line")  # as a crash of the machine leaves it
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        reached = await given.come_back(peer, elapsed=1000)
        assert isinstance(reached, Continue)
        assert 1000 <= reached.lines <= 3000
        assert [running.uuid for running in (await info(server)).running] == [given.uuid]
        await given.say(peer, reached.lines, 4000)
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 4000)
        assert await queues(server) == {"p1": []}


@pytest.mark.parametrize("end", ENDS)
async def test_a_restart_while_a_result_comes(tmp_path: Path, end: str) -> None:
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await begin(server, peer, 10)
        body = frame(codec.encode(JobFinished(uuid=given.uuid, result=Exited(code=0), artifacts=SOME)))
        await peer.channel.send_bytes(JobFinished, body[:50_000])
        part = server.full("a", given.uuid).with_name("full.part")
        await eventually(part.exists)
        if end == "SIGTERM":  # which waits for a result: this worker is gone meanwhile
            await peer.channel.aclose()
        await trio.to_thread.run_sync(ENDS[end], server)
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer, elapsed=1000, has_ended=True) == Continue(lines=10)
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 10)
        assert not part.exists()
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer, has_ended=True) == ResultStored(uuid=given.uuid)


async def test_a_stop_waits_for_a_result_that_comes(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await begin(server, peer, 10)
        body = frame(codec.encode(JobFinished(uuid=given.uuid, result=Exited(code=0), artifacts=SOME)))
        await peer.channel.send_bytes(JobFinished, body[:50_000])
        await eventually(server.full("a", given.uuid).with_name("full.part").exists)
        server.stop()
        await peer.send_raw(body[50_000:])
        await peer.receive(ResultStored)
        assert await peer.wait_closed() == b""
    check_record(server, given, 10)


@pytest.mark.parametrize("step", ["commit", "add_artifacts", "finish"])
async def test_a_crash_while_a_result_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The record may be on the disk already, and its artifacts in the database."""
    owner: Any = ResultWriter if step == "commit" else Store
    original = getattr(owner, step)
    with monkeypatch.context() as patch, trio.CancelScope() as scope:

        async def crash(*arguments: Any, **options: Any) -> Any:
            if step != "finish":
                await original(*arguments, **options)
            scope.cancel()
            with trio.CancelScope() as inner:
                inner.cancel()
                await trio.lowlevel.checkpoint()
            raise RuntimeError("a crash")

        patch.setattr(owner, step, crash)
        async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
            await do(server, schedule("a"))
            given = await begin(server, peer, 10)
            await given.send_result(peer, artifacts=SOME)
            await trio.sleep_forever()
    assert server.query("select state from build") == [("running",)]
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer, has_ended=True) == Continue(lines=10)
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 10)


@pytest.mark.parametrize("step", ["commit", "add_artifacts", "finish"])
async def test_a_disk_that_does_not_take_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The worker is told nothing, comes back, and sends it again."""
    monkeypatch.setattr("builder_server.attempt.RETRY", 0.02)
    owner: Any = ResultWriter if step == "commit" else Store
    original = getattr(owner, step)
    faults = [2]

    async def fail(*arguments: Any, **options: Any) -> Any:
        if not faults[0]:
            return await original(*arguments, **options)
        if step == "add_artifacts":
            await original(*arguments, **options)
        faults[0] -= 1
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(owner, step, fail)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await begin(server, peer, 10)
            await given.send_result(peer, artifacts=SOME)
            assert await peer.wait_closed() == b""
        async with connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer, has_ended=True) == Continue(lines=10)
            await given.send_result(peer, artifacts=SOME)
            assert await peer.wait_closed() == b""
        async with connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer, has_ended=True) == Continue(lines=10)
            await given.finish(peer, artifacts=SOME)
        check_record(server, given, 10)


async def test_a_classic_worker_beside_it(tmp_path: Path) -> None:
    """Its job is put back at once, as it ever was."""
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await begin(server, peer, 10)
        await do(server, schedule("b"))
        async with take_job(server) as taken:
            server.terminate()
            assert await taken.peer.wait_end() == "reset"
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await queues(server) == {"p1": ["b"]}
        assert isinstance(await given.come_back(peer), Continue)
        uuid, _ = await build(server, lines=[b"one"], artifacts=SOME)
        await given.finish(peer, artifacts=SOME)
        assert {uuid, given.uuid} == {
            UUID(row[0]) for row in server.query("select uuid from build where state = 'finished'")
        }


async def test_a_worker_that_does_not_come_back_after_a_restart(tmp_path: Path) -> None:
    given = await leave(tmp_path, 10)
    async with run_server(tmp_path, grace=0.1) as server, connect(server, OUR_WORKER) as peer:
        await eventually(lambda: server.query("select losses from queue") == [(1,)])
        assert isinstance(await given.come_back(peer), Gone)
        await (await ask_job(peer)).finish(peer)


async def test_without_a_grace_nobody_is_waited_for(tmp_path: Path) -> None:
    given = await leave(tmp_path, 10, grace=0.0)
    async with run_server(tmp_path, grace=0.0) as server, connect(server, OUR_WORKER) as peer:
        assert await queues(server) == {"p1": ["a"]}
        assert isinstance(await given.come_back(peer), Gone)


async def test_the_limits_of_a_job_count_on(tmp_path: Path) -> None:
    options = JobOptions(period=Period.DAILY, time_limit=60_000, max_silent=200)
    with trio.CancelScope() as scope:
        async with run_server(tmp_path) as server:
            for name in ("a", "b", "c"):
                async with connect(server, OURS) as client:
                    plan = PlanJob(job=script(name), options=options, run_now=True)
                    assert await client.request(plan) == [Success()]
            async with contextlib.AsyncExitStack() as stack:
                peers = [await stack.enter_async_context(connect(server, OUR_WORKER)) for _ in range(3)]
                left = [await ask_job(peer) for peer in peers]
                assert {(given.time_limit, given.max_silent) for given in left} == {(60_000, 200)}
                scope.cancel()
                await trio.lowlevel.checkpoint()
    async with run_server(tmp_path) as server:
        for given, elapsed, has_ended, reason in (
            (left[0], 61_000, False, "timeout after 1m (--timeout of the job)"),
            (left[1], 1000, False, "silent for 0.2s (--max-silent of the job)"),
            (left[2], 61_000, True, None),
        ):
            async with connect(server, OUR_WORKER) as peer:
                answer = await given.come_back(peer, elapsed=elapsed, has_ended=has_ended)
                if reason:
                    if answer == Continue(lines=0):  # it came before its time was looked at
                        answer = await said(peer)
                    assert answer == Gone(uuid=given.uuid, reason=reason)
                else:
                    await given.finish(peer)


async def test_how_long_a_build_took_that_was_restarted(tmp_path: Path) -> None:
    given = await leave(tmp_path, 10)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await given.come_back(peer, elapsed=3_000_000)
        await given.finish(peer, artifacts=SOME)
        ((started, finished),) = server.query("select started, finished from build")
        assert 3_000_000 <= finished - started < 3_060_000


async def test_a_build_that_was_cancelled_before_a_crash(tmp_path: Path) -> None:
    """It was noted, and could not be recorded."""
    given = await leave(tmp_path, 10)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "builder.sqlite3")) as connection, connection:
        connection.execute("update build set ended_by = 'a:1'")
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert isinstance(await given.come_back(peer), Gone)
        await eventually(server.full("a", given.uuid).exists)
        assert server.execution("a", given.uuid).result == Aborted(message="cancelled by a:1")


async def test_a_build_that_is_cancelled_after_a_restart(tmp_path: Path) -> None:
    given = await leave(tmp_path, 10)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        async with connect(server, OURS) as client:
            assert (await client.request(CancelBuilds(target="a")))[-1] == Success()
        assert isinstance(await given.come_back(peer), Gone)
        await eventually(server.full("a", given.uuid).exists)
        assert len(server.execution("a", given.uuid).console) == 10


async def test_an_observer_of_a_build_whose_server_was_restarted(tmp_path: Path) -> None:
    """It is sent what there is at once, and the rest when the worker is back."""
    given = await leave(tmp_path, 10)
    async with run_server(tmp_path) as server, connect(server, CLIENT) as observer:
        await observer.send(Observe(uuid=given.uuid))
        for number in range(10):
            assert await observer.receive(Output) == given.line(number)
        async with connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer) == Continue(lines=10)
            await given.say(peer, 10, 11)
            assert await observer.receive(Output) == given.line(10)
        async with connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer) == Continue(lines=11)
            await given.say(peer, 11, 12)
            assert await observer.receive(Output) == given.line(11)
            await given.finish(peer, artifacts=SOME)
        assert (await observer.receive(Output)).line == b"exited 0"
        await observer.receive(Success)
        outputs = await observe(server, given.uuid)
        assert isinstance(outputs, list)
        assert len(outputs) == 13


async def test_a_start_does_not_wait_for_a_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a worker that comes back get its answer before the console is looked through."""
    given = await leave(tmp_path, 10)
    may_repair = threading.Event()
    repaired = console._repaired

    def slowly(*arguments: Any) -> Any:
        may_repair.wait(30)
        return repaired(*arguments)

    monkeypatch.setattr(console, "_repaired", slowly)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        try:
            await do(server, schedule("b"))
            await build(server)
            answers: list[object] = []

            async def come_back() -> None:
                answers.append(await given.come_back(peer))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_back)
                await do(server, schedule("c"))
                assert not answers
                may_repair.set()
            assert answers == [Continue(lines=10)]
        finally:
            may_repair.set()


async def test_a_console_that_can_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker waits, and it is tried again."""
    monkeypatch.setattr("builder_server.attempt.RETRY", 0.02)
    given = await leave(tmp_path, 10)
    repaired = console._repaired
    faults = [4]

    def fail(*arguments: Any) -> Any:
        if faults[0]:
            faults[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return repaired(*arguments)

    monkeypatch.setattr(console, "_repaired", fail)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer) == Continue(lines=10)
        assert not faults[0]
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 10)


async def test_a_console_that_was_removed(tmp_path: Path) -> None:
    given = await leave(tmp_path, 10)
    console_of(tmp_path / "data", given).unlink()
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer) == Continue(lines=0)
        await given.say(peer, 0, 12)
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 12)


async def test_many_restarts(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await begin(server, peer, 1)
        server.kill()
    for number in range(1, 4):
        async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
            assert await given.come_back(peer, elapsed=number) == Continue(lines=number)
            await given.say(peer, number, number + 1)
            await console_has(server.data_dir, given, number + 1)
            server.kill()
    async with start_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        assert await given.come_back(peer, elapsed=9) == Continue(lines=4)
        await given.finish(peer, artifacts=SOME)
        check_record(server, given, 4)

        async def nothing_runs() -> bool:
            return not (await info(server)).running

        await eventually_async(nothing_runs)
