"""builder-server killed, stopped and left by its workers at every point: what was acknowledged is not lost."""

import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from farm import Reachable, Server, eventually, run_server, start_server
from scripted import (
    CLIENT,
    WORKER,
    Taken,
    build,
    connect,
    do,
    given_job,
    info,
    lose_worker,
    observe,
    queues,
    schedule,
    take_job,
    waiting_worker,
)

from builder import codec
from builder.errors import ConnectionEnded
from builder.execution import FinishedHead, artifact_head, finished_head
from builder.framing import frame, frame_header
from builder.messages import (
    DropPlatform,
    Execute,
    Info,
    JobFinished,
    Message,
    Observe,
    Output,
    Reschedule,
    Success,
    Unschedule,
)
from builder.model import Aborted, Artifact, Exited, Instant, Period
from builder_server import server as server_module
from builder_server.store import Store

LOST = Aborted(message="worker lost")
SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))


# --- kill -9 -------------------------------------------------------------------------------------------------------


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """The server is killed right after each success, and started again."""
    later = Instant(4_102_444_800_000)
    commands: list[list[Message]] = [
        [schedule("a"), schedule("b"), schedule("c", "p2"), Execute(name="b")],
        [Unschedule(name="c"), Reschedule(name="a", next=later, period=Period.WEEKLY)],
        [DropPlatform(platform="p2")],
    ]
    seen: tuple[object, ...] = ()
    for group in commands:
        async with start_server(tmp_path) as server:
            found = await info(server)
            assert (found.schedule, found.queues, found.dropped_platforms) == seen or not seen
            await do(server, *group)
            found = await info(server)
            seen = (found.schedule, found.queues, found.dropped_platforms)
            server.kill()
    async with run_server(tmp_path) as server:
        found = await info(server)
        assert [(item.job.name, item.period, item.next == later) for item in found.schedule] == [
            ("b", Period.DAILY, False),
            ("a", Period.WEEKLY, True),
        ]
        assert await queues(server) == {"p1": ["b", "a"]}
        assert found.dropped_platforms == ("p2",)


def a_result(uuid: UUID) -> bytes:
    """Return a job finished with an artifact of 300 kB, as it is sent."""
    size = 300_000
    head = artifact_head("big", size)
    body = finished_head(FinishedHead(uuid=uuid, result=Exited(code=0)), len(head) + size) + head + bytes(size)
    return frame_header(len(body)) + body


async def half_a_result(taken: Taken, *, sent: int) -> None:
    """Send a job finished up to so many bytes of it."""
    await taken.peer.channel.send_bytes(JobFinished, a_result(taken.uuid)[:sent])


@asynccontextmanager
async def stopping_within_a_result(server: Server) -> AsyncIterator[Taken]:
    """Stop a server that has 200 kB of a job finished of 300 kB."""
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await half_a_result(taken, sent=200_000)
        await eventually((server.data_dir / "a" / str(taken.uuid) / "full.part").exists)
        server.process.terminate()
        await server.wait_for_log("stopping on SIGTERM")
        yield taken


@pytest.mark.parametrize("point", ["begun", "console", "head", "artifacts"])
async def test_a_build_that_runs_when_the_server_is_killed_runs_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, point: str
) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        async with take_job(server) as taken:
            if point == "console":
                await taken.say(b"one", b"two")
                console = server.data_dir / "a" / str(taken.uuid) / "console"
                await eventually(lambda: console.read_bytes().count(b"two") == 1)
            elif point == "head":
                await half_a_result(taken, sent=40)
            elif point == "artifacts":
                await half_a_result(taken, sent=200_000)
                part = server.data_dir / "a" / str(taken.uuid) / "full.part"
                await eventually(part.exists)
            server.kill()
    async with run_server(tmp_path) as server:
        await eventually(lambda: f"build {taken.uuid} of a on p1: interrupted" in caplog.text)
        found = await info(server)
        assert found.running == ()
        assert await queues(server) == {"p1": ["a", "b"]}
        left = sorted(path.name for path in (server.data_dir / "a" / str(taken.uuid)).iterdir())
        assert left == ["console"]
        outputs = await observe(server, taken.uuid)
        assert isinstance(outputs, list)
        lines = [output.line for output in outputs]
        assert lines == ([b"one", b"two"] if point == "console" else []) + [b"execution aborted: worker lost"]
        uuid, job = await build(server, artifacts=SOME)
        assert uuid != taken.uuid
        assert job == taken.job
        assert server.execution("a", uuid).artifacts == SOME


async def test_a_recorded_build_survives_a_kill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, job = await build(server, lines=[b"one"], result=Exited(code=3), artifacts=SOME)
        server.kill()
    async with run_server(tmp_path) as server:
        found = await info(server)
        assert (found.running, await queues(server)) == ((), {"p1": []})
        record = server.execution("a", uuid)
        assert (record.job, record.result, record.artifacts) == (job, Exited(code=3), SOME)
        outputs = await observe(server, uuid)
        assert isinstance(outputs, list)
        assert [output.line for output in outputs] == [b"one", b"exited 3"]
        assert "interrupted" not in caplog.text


@pytest.mark.parametrize("left", ["full.part", "full"])
async def test_what_a_lost_attempt_has_written_is_gone_before_its_job_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Whenever the server is killed: what is not running any more is never looked for."""
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await half_a_result(taken, sent=200_000)
            part = server.data_dir / "a" / str(taken.uuid) / "full.part"
            await eventually(part.exists)
            server.kill()
    part.rename(part.with_name(left))  # as after a crash between the two steps of recording
    found: list[list[str]] = []
    lose = Store.lose

    def noting(store: Store, uuid: UUID, *arguments: Any, **options: Any) -> Any:
        found.append(sorted(path.name for path in part.parent.iterdir()))
        return lose(store, uuid, *arguments, **options)

    monkeypatch.setattr(Store, "lose", noting)
    async with run_server(tmp_path) as again:
        assert found == [["console"]]
        assert await queues(again) == {"p1": ["a"]}


async def test_a_console_that_a_crash_cut_within_a_line(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.say(b"whole")
            console = server.data_dir / "a" / str(taken.uuid) / "console"
            await eventually(lambda: b"whole" in console.read_bytes())
            server.kill()
    with console.open("ab") as file:
        file.write(frame(codec.encode(Output(uuid=taken.uuid, line=b"cut", timestamp=9**15)))[:-12] + b"\0" * 5000)
    async with run_server(tmp_path) as server:
        outputs = await observe(server, taken.uuid)
        assert isinstance(outputs, list)
        assert [output.line for output in outputs] == [b"whole", b"execution aborted: worker lost"]


@pytest.mark.parametrize("delay", [0, 7, 20])
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path, delay: int) -> None:
    """Clients and workers are busy when the server dies; what they were told is true afterwards."""
    scheduled: list[str] = []
    recorded: set[tuple[str, UUID]] = set()
    killed = trio.Event()

    async def client(server: Server, name: str) -> None:
        for number in range(100):
            await do(server, schedule(f"{name}{number}"))
            scheduled.append(f"{name}{number}")

    async def worker(server: Server) -> None:
        while True:
            uuid, job = await build(server, lines=[b"x"], artifacts=SOME)
            if not killed.is_set():  # else the kernel closed the connection, which says nothing
                recorded.add((job.name, uuid))

    async with start_server(tmp_path) as server:
        try:
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(client, server, name)
                    nursery.start_soon(worker, server)
                await eventually(lambda: len(recorded) > delay)
                killed.set()
                server.kill()
        except* (ConnectionEnded, trio.BrokenResourceError, OSError):
            pass
    async with run_server(tmp_path) as following:
        names = {item.job.name for item in (await info(following)).schedule}
        assert set(scheduled) <= names
        assert len(names - set(scheduled)) <= 3  # done, and the client was not told any more
        waiting = set((await queues(following))["p1"])
        done = {name for (name,) in following.query("select name from build where state = 'finished'")}
        assert names == waiting | done
        assert not waiting & done
        for name, uuid in recorded:
            assert following.execution(name, uuid).artifacts == SOME
        on_disk = {(path.parts[-3], path.parts[-2]) for path in following.data_dir.glob("*/*/full*")}
        assert on_disk == {
            (name, uuid) for name, uuid in following.query("select name, uuid from build where state = 'finished'")
        }


# --- losses --------------------------------------------------------------------------------------------------------


async def test_three_lost_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        uuids = [await lose_worker(server) for _ in range(3)]
        assert len(set(uuids)) == 3
        assert await queues(server) == {"p1": ["b"]}
        record = server.execution("a", uuids[2])
        assert (record.result, record.artifacts, record.console) == (LOST, (), ())
        assert not server.full("a", uuids[0]).exists()
        assert not server.full("a", uuids[1]).exists()
        assert server.query("select state from build order by started, losses") == [("lost",), ("lost",), ("finished",)]
        await eventually(lambda: "lost too often: recorded as failed" in caplog.text)


def _has(path: Path, data: bytes) -> bool:
    return data in path.read_bytes()


async def test_three_killed_servers(tmp_path: Path) -> None:
    uuids: list[UUID] = []
    for _ in range(3):
        async with start_server(tmp_path) as server:
            if not uuids:
                await do(server, schedule("a"))
            async with take_job(server) as taken:
                uuids.append(taken.uuid)
                await taken.say(b"I was here")
                console = server.data_dir / "a" / str(taken.uuid) / "console"
                await eventually(partial(_has, console, b"here"))
                server.kill()
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": []}
        await eventually(server.full("a", uuids[2]).exists)  # the server listens before it is recorded
        record = server.execution("a", uuids[2])
        assert record.result == LOST
        assert [line.line for line in record.console] == [b"I was here"]
        assert not server.full("a", uuids[0]).exists()


async def test_a_lost_job_goes_to_the_next_worker_at_once(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, AsyncExitStack() as stack:
        await do(server, schedule("a"))
        first = await stack.enter_async_context(take_job(server))
        second = await stack.enter_async_context(waiting_worker(server))
        await first.peer.channel.aclose()
        taken = await given_job(second)
        assert taken.job == first.job
        assert taken.uuid != first.uuid
        await taken.finish()


WRONG = {
    "garbage": b"\xff" * 100,
    "wrong turn": frame(codec.encode(Info())),
    "hello again": frame(codec.encode(CLIENT)),
    "another build's line": frame(codec.encode(Output(uuid=UUID(int=7), line=b"x"))),
    "another build's result": frame(codec.encode(JobFinished(uuid=UUID(int=7), result=Exited(code=0), artifacts=SOME))),
    "a malformed result": frame(codec.encode(JobFinished(uuid=UUID(int=7), result=Exited(code=0), artifacts=SOME)))[:40]
    + b"\xff" * 100_200,
    "half a frame": frame(codec.encode(Output(uuid=UUID(int=7), line=b"x")))[:-1],
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_workers_wrong_message_is_a_loss(tmp_path: Path, what: str) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.say(b"right")
            await taken.peer.send_raw(WRONG[what])
            with suppress(trio.BrokenResourceError):  # it may have enough before it has all
                await taken.peer.stream.send_eof()
            assert await taken.peer.wait_end() == "reset"
        assert await queues(server) == {"p1": ["a"]}
        assert server.query("select losses from queue") == [(1,)]
        assert not list(server.data_dir.glob("*/*/full*"))
        outputs = await observe(server, taken.uuid)
        assert isinstance(outputs, list)
        assert [output.line for output in outputs] == [b"right", b"execution aborted: worker lost"]


# --- the limit of time ---------------------------------------------------------------------------------------------


async def test_a_job_that_takes_too_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path, job_timeout=0.2) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.say(b"slow")
            assert await taken.peer.wait_closed() == b""
        await observe(server, taken.uuid)
        record = server.execution("a", taken.uuid)
        assert record.result == Aborted(message="timeout after 0.2s (--job-timeout of the server)")
        assert [line.line for line in record.console] == [b"slow"]
        found = await info(server)
        assert (found.running, await queues(server)) == ((), {"p1": []})  # it waits for its next period
        assert len(found.schedule) == 1
        assert "ended: timeout" in caplog.text


# --- SIGTERM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_ends_well(tmp_path: Path, number: int) -> None:
    async with start_server(tmp_path) as server:
        os.kill(server.pid, number)
        assert await server.wait_async(10) == 0
        assert f"stopping on {signal.Signals(number).name}" in server.log


async def test_more_signals_change_nothing(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        async with stopping_within_a_result(server):
            for number in (signal.SIGTERM, signal.SIGINT):
                server.process.send_signal(number)
                await server.wait_for_log(f"{number.name}: stopping already")
        with trio.fail_after(10):
            while server.process.poll() is None:
                server.process.terminate()  # until the very end
                await trio.sleep(0.001)
        assert server.wait() == 0
        assert server.query("select count(*) from build where state = 'running'") == [(0,)]


async def test_a_stop_waits_for_a_lock_a_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt that could not be put back is seen by the next start, and no client is told of success."""
    monkeypatch.setattr(server_module, "LAST_WAIT", 0.5)
    with trio.fail_after(10):
        async with run_server(tmp_path) as server:
            await do(server, schedule("a"))
            other = sqlite3.connect(server.data_dir / "builder.sqlite3", isolation_level=None)
            async with take_job(server), connect(server, CLIENT) as client:
                other.execute("begin immediate")
                await client.send(schedule("b"))
                server.stop()
                assert frame(codec.encode(Success())) not in await client.wait_closed()
    assert server.query("select state from build") == [("running",)]
    other.close()
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": ["a"]}
        assert server.query("select losses from queue") == [(1,)]


async def test_a_stop_is_not_a_loss(tmp_path: Path) -> None:
    for _ in range(4):
        async with run_server(tmp_path) as server:
            if (await info(server)).schedule == ():
                await do(server, schedule("a"))
            async with take_job(server) as taken:
                server.stop()
                await taken.peer.wait_closed()
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": ["a"]}
        assert server.query("select losses from queue") == [(0,)]


@asynccontextmanager
async def in_every_state(server: Reachable) -> AsyncIterator[dict[str, Taken]]:
    """Keep connections open in every state in which a peer can be."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await do(server, *(schedule(name) for name in "abcd"), schedule("z", "p2"))
        silent = await enter(connect(server))
        half_hello = await enter(connect(server))
        await half_hello.send_raw(frame(codec.encode(CLIENT))[:-1])
        client = await enter(connect(server, CLIENT))
        half_command = await enter(connect(server, CLIENT))
        await half_command.send_raw(frame(codec.encode(schedule("x", text=bytes(100_000))))[:50_000])
        worker = await enter(connect(server, WORKER))
        waiting = await enter(waiting_worker(server, "p3"))
        building = await enter(take_job(server))
        sending = await enter(take_job(server))
        await half_a_result(sending, sent=200_000)
        endless = await enter(take_job(server))
        await endless.peer.send_raw(frame(codec.encode(Output(uuid=endless.uuid, line=bytes(100_000))))[:60_000])
        deaf = await enter(take_job(server))
        await deaf.say(b"line" * 1000)
        for observed in (building.uuid, sending.uuid, deaf.uuid):
            observer = await enter(connect(server, CLIENT))
            await observer.send(Observe(uuid=observed))
        assert all(peer.stream for peer in (silent, client, worker, waiting))
        await eventually(lambda: len(server.query("select * from build where state = 'running'")) == 4)
        yield {"sending": sending, "building": building}


async def test_a_stop_with_connections_in_every_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rest = 10 - server_module.SHUTDOWN_TIMEOUT
    monkeypatch.setattr(server_module, "SHUTDOWN_TIMEOUT", 0.5)
    async with AsyncExitStack() as peers:
        async with run_server(tmp_path) as server:
            await peers.enter_async_context(in_every_state(server))
            began = time.monotonic()
        assert time.monotonic() - began < 0.5 + rest
        assert "Traceback" not in caplog.text
        assert server.query("select count(*) from build where state = 'running'") == [(0,)]
        assert sorted(server.query("select losses from queue where platform = 'p1'")) == [(0,)] * 4
        assert not list(server.data_dir.glob("*/*/full*"))


async def test_a_stop_finishes_what_is_being_written(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        async with stopping_within_a_result(server) as taken:
            with pytest.raises(OSError, match="all attempts to connect"):
                async with connect(server):
                    pass
            await taken.peer.send_raw(a_result(taken.uuid)[200_000:])
            assert await taken.peer.wait_closed() == b""
        assert await server.wait_async(10) == 0
    (artifact,) = server.execution("a", taken.uuid).artifacts
    assert artifact == Artifact(path="big", content=bytes(300_000))
    assert server.query("select state from build") == [("finished",)]


async def test_the_library_is_stopped_by_cancelling_it_too(tmp_path: Path) -> None:
    """Cancelled from outside, the server ends, and its running build is found at the next start."""
    with trio.CancelScope() as scope:
        async with run_server(tmp_path) as server:
            await do(server, schedule("a"))
            async with take_job(server):
                scope.cancel()
                await trio.lowlevel.checkpoint()
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": ["a"]}


async def test_the_clients_that_are_told_before_the_stop_are_right(tmp_path: Path) -> None:
    told: list[str] = []

    async def client(server: Server, name: str) -> None:
        for number in range(1000):
            await do(server, schedule(f"{name}{number}"))
            told.append(f"{name}{number}")

    async with start_server(tmp_path) as server:
        try:
            async with trio.open_nursery() as nursery:
                for name in "abcd":
                    nursery.start_soon(client, server, name)
                await eventually(lambda: len(told) > 20)
                server.process.terminate()
                assert await server.wait_async(10) == 0
        except* (ConnectionEnded, trio.BrokenResourceError, OSError):
            pass
        assert set(told) <= {name for (name,) in server.query("select name from job")}
