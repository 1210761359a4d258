"""Every attempt has an owner: whatever fails, at whichever step, the build ends, its observers too, and the job goes on.

A fault is put into one step of a server in this process: an error of the disk, one of ours, a stop of the server, or a
worker that is gone when the step is taken.
"""

import contextlib
import errno
import inspect
import os
import signal
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import pytest
import trio
from attrs import define, evolve, field
from farm import LocalServer, eventually, eventually_async, run_server, running_worker, start_server
from scripted import (
    CLIENT,
    ScriptedPeer,
    Taken,
    build,
    connect,
    do,
    given_job,
    info,
    observe,
    queues,
    schedule,
    script,
    take_job,
    waiting_worker,
)

from builder import codec
from builder.errors import ConnectionEnded
from builder.execution import ExecutionEnd, FinishedHead, FinishedReader, artifact_head, finished_head
from builder.messages import Observe, Output, Success
from builder.model import Aborted, Artifact, Exited, Instant
from builder.runtime import grouping
from builder.runtime.channel import BODY_SIZE
from builder.runtime.nurseries import plain_nursery
from builder_server import attempt, console, delivery, events, recorder
from builder_server import server as server_module
from builder_server.attachment import Attachment
from builder_server.console import ConsoleWriter
from builder_server.memory import SharingChannel
from builder_server.owner import Owner
from builder_server.recorder import Recorder
from builder_server.results import ResultWriter
from builder_server.server import wall_clock
from builder_server.store import Build, Store
from builder_server.upload import Uploader

NOWHERE = "http://127.0.0.1:9/upload"
WORKER = ("--sandbox=none",)
ANY: Any = object()

SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))

# --- a fault at a step ---------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[object, str]] = {
    "the job is taken": (Store, "take"),
    "the console is begun": (Recorder, "begin_console"),
    "the job is given to the session": (Attachment, "give"),
    "the job is sent": (SharingChannel, "reset_at_close"),
    "lines are handed in": (Attachment, "hand_in"),
    "lines are written": (ConsoleWriter, "append"),
    "the record is begun": (Recorder, "begin_record"),
    "artifacts are written": (ResultWriter, "add"),
    "the record is committed": (ResultWriter, "commit"),
    "the result goes to the database": (Store, "finish"),
    "the job goes back to the queue": (Store, "lose"),
    "what there is of a record is removed": (ResultWriter, "discard"),
    "the uploader is told": (Uploader, "wake"),
}
"""The steps of an attempt, and what takes each of them. Those of a loss come only with one."""

OF_A_LOSS = ("the job goes back to the queue", "what there is of a record is removed")
FAULTS = ("disk", "ours", "ours, late", "stop", "peer")


@define
class Injected:
    """A fault that happens once, when its step is taken."""

    fault: str
    server: LocalServer | None = None
    worker: ScriptedPeer | None = None
    met: bool = False
    passed: bool = False

    def happen(self) -> None:
        """Let a fault of the surroundings happen."""
        if self.fault == "stop":
            assert self.server
            self.server.stop()
        elif self.fault == "peer":
            assert self.worker
            self.worker.stream.socket.close()

    def fail(self) -> None:
        """Raise, if the fault is an error."""
        if self.fault == "disk":
            raise OSError(errno.EIO, "Input/output error")
        if self.fault.startswith("ours"):
            raise RuntimeError("a fault of ours")

    def put_into(self, patch: pytest.MonkeyPatch, step: str) -> None:
        owner, name = STEPS[step]
        original = getattr(owner, name)

        async def waiting(*arguments: Any, **options: Any) -> Any:
            if self.met:
                return await original(*arguments, **options)
            self.met = True
            try:
                while self.worker is None:  # noqa: ASYNC110 - a moment
                    await trio.sleep(0.001)
                self.happen()
                await trio.testing.wait_all_tasks_blocked(0.01)  # everybody has noticed
                if self.fault == "ours, late":
                    made = await original(*arguments, **options)
                    if isinstance(made, ConsoleWriter):
                        made.close()
                self.fail()
                return await original(*arguments, **options)
            finally:
                self.passed = True

        def direct(*arguments: Any, **options: Any) -> Any:
            if self.met:
                return original(*arguments, **options)
            self.met = self.passed = True
            self.happen()
            if self.fault == "ours, late":
                original(*arguments, **options)
            self.fail()
            return original(*arguments, **options)

        patch.setattr(owner, name, waiting if inspect.iscoroutinefunction(original) else direct)


@asynccontextmanager
async def observer(server: LocalServer, uuid: UUID, ends: list[bytes]) -> AsyncIterator[None]:
    """Watch a build, and note its end."""

    async def watch() -> None:
        # by a stop it may be cut off, or find nobody
        with contextlib.suppress(ConnectionEnded, trio.BrokenResourceError, OSError):
            async with connect(server, CLIENT) as peer:
                await peer.send(Observe(uuid=uuid))
                while isinstance(message := await peer.receive_any(), Output):
                    ends[:] = [message.line]
                assert message == Success()
                ends.append(b"end")

    async with plain_nursery() as nursery:
        nursery.start_soon(watch)
        yield


async def try_a_build(server: LocalServer, injected: Injected, ends: list[bytes], *, lose: bool) -> None:
    """Have a worker take the job and do it, as far as it comes, while somebody observes."""
    gone = contextlib.suppress(ConnectionEnded, trio.BrokenResourceError, trio.ClosedResourceError)
    with gone:
        async with waiting_worker(server) as worker:
            injected.worker = worker
            taken = await given_job(worker)
            async with observer(server, taken.uuid, ends):
                with gone:
                    await send_a_build(server, taken, lose=lose)


async def send_a_build(server: LocalServer, taken: Taken, *, lose: bool) -> None:
    await taken.say(b"one")
    if lose:
        await eventually(lambda: (server.data_dir / "a" / str(taken.uuid) / "console").stat().st_size)
        await taken.peer.channel.aclose()
    else:
        await taken.send_result(artifacts=SOME)
        await taken.peer.wait_end()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_fault_at_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: str) -> None:
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    ends: list[bytes] = []
    injected = Injected(fault)
    injected.put_into(monkeypatch, step)
    async with run_server(tmp_path, upload=NOWHERE if step == "the uploader is told" else ()) as server:
        injected.server = server
        await do(server, schedule("a"))
        await try_a_build(server, injected, ends, lose=step in OF_A_LOSS)
        await eventually(lambda: injected.passed, what=step)
        if fault != "stop":
            await eventually_async(lambda: has_ended(server), what="the end of the build")
            assert not ends or ends[-1] == b"end"
            await check_that_it_goes_on(server)
    if fault == "stop":
        async with run_server(tmp_path) as server:
            assert server.query("select losses from queue") in ([(0,)], []) or step in OF_A_LOSS
            await check_that_it_goes_on(server)


async def has_ended(server: LocalServer) -> bool:
    return (await info(server)).running == ()


async def check_that_it_goes_on(server: LocalServer) -> None:
    """The database and the disk agree, and the job is done or can be."""
    recorded = server.query("select uuid from build where state = 'finished'")
    assert (await info(server)).running == ()
    assert await queues(server) == {"p1": [] if recorded else ["a"]}
    if recorded:
        await do(server, schedule("b"))
    uuid, job = await build(server, lines=[b"two"], artifacts=SOME)
    assert server.execution(job.name, uuid).artifacts == SOME
    found = {path.parent.name for path in server.data_dir.glob("*/*/full")}
    assert found == {str(uuid), *(old for (old,) in recorded)}


async def test_a_worker_that_has_gone_when_its_job_was_taken_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(tmp_path) as server:
        injected = Injected("peer", server)
        await do(server, schedule("a"))
        injected.put_into(monkeypatch, "the job is taken")
        await try_a_build(server, injected, [], lose=False)
        await eventually(lambda: server.query("select state from build") == [("lost",)])
        assert server.query("select losses from queue") == [(0,)]


async def test_faults_of_ours_do_not_repeat_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ConsoleWriter, "append", fail)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        for _ in range(3):
            async with take_job(server) as taken:
                await taken.say(b"one")
                assert await taken.peer.wait_end() == "reset"
        assert await queues(server) == {"p1": []}
        assert server.execution("a", taken.uuid).result == Aborted(message="the server failed")


# --- a worker that is not acknowledged -----------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["the record is committed", "the result goes to the database"])
async def test_our_worker_takes_no_silence_for_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As when the database is locked for too long while a result comes in: it comes back, and sends it again."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server:
        injected = Injected("disk", server, worker=ANY)
        injected.put_into(monkeypatch, step)
        await do(server, schedule("a", text=b"#!/bin/sh\necho one\n"))
        with running_worker(server, "p1", *WORKER) as worker:
            assert await worker.wait_async() == 0
        assert injected.passed
        assert worker.log.count("exited 0") == worker.log.count("delivered") == 1
        assert server.query("select state, outcome, losses from build") == [("finished", "succeeded", 0)]


async def test_a_database_that_is_locked_while_a_result_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process holds it for longer than the server waits. The log says so once, however often it is tried."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    caplog.set_level("DEBUG", "builder_server.owner")
    async with run_server(tmp_path) as server:
        await do(server, schedule("a", text=b"#!/bin/sh\necho one\n"))
        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.1)
        commit = ResultWriter.commit

        async def lock_then_commit(self: ResultWriter) -> None:
            if not other.in_transaction:
                other.execute("begin immediate")
            await commit(self)

        monkeypatch.setattr(ResultWriter, "commit", lock_then_commit)
        with contextlib.closing(sqlite3.connect(server.data_dir / "builder.sqlite3")) as other:
            with running_worker(server, "p1", *WORKER) as worker:
                await eventually(lambda: caplog.text.count("can't be recorded") > 1)
                assert "delivered" not in worker.log
                monkeypatch.setattr(ResultWriter, "commit", commit)
                other.rollback()
                assert await worker.wait_async() == 0
            assert worker.log.count("delivered") == 1
        assert [record.levelname for record in caplog.records if "can't be recorded" in record.message].count(
            "ERROR"
        ) == 1
        assert caplog.text.count("goes on: the disk takes what comes") == 1
        ((uuid,),) = server.query("select uuid from build where state = 'finished' and losses = 0")
        assert [path.parent.name for path in server.data_dir.glob("a/*/full*")] == [uuid]


async def test_a_database_that_is_locked_while_the_result_of_a_classic_worker_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost its build, which is nobody's fault."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        monkeypatch.setattr(grouping, "LOCK_TIMEOUT", 0.1)
        commit = ResultWriter.commit

        async def lock_then_commit(self: ResultWriter) -> None:
            other.execute("begin immediate")
            await commit(self)

        monkeypatch.setattr(ResultWriter, "commit", lock_then_commit)
        with contextlib.closing(sqlite3.connect(server.data_dir / "builder.sqlite3")) as other:
            async with take_job(server) as taken:
                await taken.send_result(artifacts=SOME)
                assert await taken.peer.wait_end() == "reset"
            other.rollback()
        monkeypatch.setattr(ResultWriter, "commit", commit)
        await eventually(lambda: server.query("select losses from queue") == [(0,)])
        uuid, _ = await build(server, artifacts=SOME)
        assert [path.parent.name for path in server.data_dir.glob("a/*/full*")] == [str(uuid)]


async def test_a_fault_in_an_owner_itself_costs_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has thought of: an observer has its end, and the next start puts the job back."""

    async def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b", "p2"))
        async with take_job(server, "p2") as other:
            with monkeypatch.context() as patch:
                patch.setattr(Owner, "_next_event", fail)
                async with waiting_worker(server) as worker:
                    await worker.wait_closed()
            ((uuid,),) = server.query("select uuid from build where name = 'a'")
            assert isinstance(await observe(server, UUID(uuid)), list)
            await other.finish(artifacts=SOME)
    async with run_server(tmp_path) as server:
        await build(server)


async def test_a_killed_server_acknowledges_nothing(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, waiting_worker(server) as idle:
            await taken.say(b"one")
            await eventually(lambda: (server.data_dir / "a" / str(taken.uuid) / "console").stat().st_size)
            server.kill()
            assert await taken.peer.wait_end() == "reset"
            assert await idle.wait_end() == "closed"


async def test_how_a_connection_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order if the result is recorded, or if there was no job; else by a reset."""
    async with run_server(tmp_path, job_timeout=0.5) as server:
        await do(server, schedule("a"), schedule("b"))
        async with take_job(server) as taken:
            await taken.send_result()
            assert await taken.peer.wait_end() == "closed"
        async with take_job(server) as taken:  # it takes too long
            assert await taken.peer.wait_end() == "reset"
        async with waiting_worker(server) as idle:
            await eventually(lambda: server.query("select * from platform"))
            server.stop()
            assert await idle.wait_end() == "closed"


# --- time ----------------------------------------------------------------------------------------------------------


async def test_a_clock_that_is_set_back_during_a_build(tmp_path: Path) -> None:
    ahead = 7_200_000
    offset = ahead

    def now() -> Instant:
        return Instant(wall_clock().ms + offset)

    async with run_server(tmp_path, now=now) as server:
        await do(server, schedule("a"), schedule("b"), schedule("c"))
        async with take_job(server) as taken, take_job(server) as lost:
            offset = 0
            await taken.say(b"one")
            await trio.sleep(0.05)
            await taken.finish()
            await lost.peer.channel.aclose()
            await eventually(lambda: server.query("select * from build where state = 'lost'"))
        record = server.execution("a", taken.uuid)
        assert 50 <= record.finished.ms - record.started.ms < 60_000
        assert record.started.ms > wall_clock().ms + ahead // 2
        for started, finished in server.query("select started, finished from build"):
            assert 50 <= finished - started < 60_000
        outputs = await observe(server, taken.uuid)
        assert isinstance(outputs, list)
        assert [output.timestamp for output in outputs] == sorted(output.timestamp or 0 for output in outputs)


async def test_a_clock_that_was_set_back_between_two_servers(tmp_path: Path) -> None:
    await leave_running(tmp_path, ["a"], now=lambda: Instant(wall_clock().ms + 7_200_000))
    async with run_server(tmp_path) as server:
        ((started, finished),) = server.query("select started, finished from build")
        assert started == finished


# --- a start after a crash -----------------------------------------------------------------------------------------


def has_lines(path: Path) -> bool:
    return path.stat().st_size > 0


async def leave_running(root: Path, names: list[str], **options: Any) -> list[Taken]:
    """Have a server end as in a crash while jobs run."""
    found: list[Taken] = []
    with trio.CancelScope() as scope:
        async with run_server(root, **options) as server, contextlib.AsyncExitStack() as stack:
            await do(server, *map(schedule, names))
            for _ in names:
                taken = await stack.enter_async_context(take_job(server))
                await taken.say(b"one")
                path = server.data_dir / taken.job.name / str(taken.uuid) / "console"
                await eventually(partial(has_lines, path))
                found.append(taken)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    return found


async def test_a_start_does_not_wait_for_consoles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten builds were running, each with a console of 1 GB; one of them must be recorded as failed."""
    names = [f"job{number}" for number in range(10)]
    left = await leave_running(tmp_path, names)
    for taken in left:
        os.truncate(tmp_path / "data" / taken.job.name / str(taken.uuid) / "console", 10**9)
    execute(tmp_path, f"update build set losses = 2 where uuid = '{left[3].uuid}'")
    looked_at: list[Path] = []
    may_repair = threading.Event()
    repair = console.repair

    def slowly(path: Path, *arguments: Any) -> console.Extent:
        looked_at.append(path)
        may_repair.wait(30)
        os.truncate(path, 1000)  # 1 GB of zeros may be read in the bench
        return repair(path, *arguments)

    monkeypatch.setattr(console, "repair", slowly)
    async with run_server(tmp_path) as server:
        try:
            assert [found.uuid for found in (await info(server)).running] == [left[3].uuid]
            assert sorted((await queues(server))["p1"]) == sorted(set(names) - {"job3"})
            for taken in left[:2]:
                outputs = await observe(server, taken.uuid)
                assert isinstance(outputs, list)
                assert [output.line for output in outputs][1:] == [b"execution aborted: worker lost"]
                assert outputs[0].line == b"one"
            assert {path.parent.name for path in looked_at} <= {str(left[3].uuid)}
            await build(server)
        finally:
            may_repair.set()
        await eventually_async(lambda: has_ended(server))
        record = server.execution("job3", left[3].uuid)
        assert [line.line for line in record.console] == [b"one"]
        assert record.result == Aborted(message="worker lost")


@define
class Endless:
    """The blocks of a console that takes for ever, which is until a test has failed."""

    begun: threading.Event = field(factory=threading.Event)
    end: float = field(factory=lambda: time.monotonic() + 30)

    def __reversed__(self) -> Iterator[int]:
        self.begun.set()
        while time.monotonic() < self.end:
            yield 0


async def test_a_stop_does_not_wait_for_consoles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (taken,) = await leave_running(tmp_path, ["a"])
    execute(tmp_path, "update build set losses = 2")
    endless = Endless()
    read = console._read
    with monkeypatch.context() as patch, trio.fail_after(10):
        patch.setattr(
            console, "_read", lambda file, start, size: read(file, next(reversed(endless), start), size)
        )  # it begins anew each time
        async with run_server(tmp_path):
            await eventually(endless.begun.is_set)
    async with run_server(tmp_path) as server:
        await eventually_async(lambda: has_ended(server))
        assert [line.line for line in server.execution("a", taken.uuid).console] == [b"one"]


async def test_a_stop_does_not_wait_for_a_console_that_is_turned_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is not told that its result was recorded, and the next start puts the job back."""
    endless: Any = Endless()
    extent = ConsoleWriter.extent
    with monkeypatch.context() as patch, trio.fail_after(10):
        patch.setattr(server_module, "SHUTDOWN_TIMEOUT", 0.1)
        patch.setattr(ConsoleWriter, "extent", lambda self: evolve(extent(self), blocks=endless))
        async with run_server(tmp_path) as server:
            await do(server, schedule("a"))
            async with take_job(server) as taken:
                await taken.say(b"one")
                await taken.send_result()
                await eventually(endless.begun.is_set)
                server.stop()
                assert await taken.peer.wait_end() == "reset"
    assert server.query("select state from build") == [("running",)]
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": ["a"]}
        assert not list(server.data_dir.glob("a/*/full*"))


async def test_long_consoles_leave_threads_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds that end together, more than there are threads, while a command comes and another build is recorded."""
    monkeypatch.setattr(console, "BLOCK_SIZE", 10)
    names = [f"job{number}" for number in range(server_module.MAX_THREADS + 1)]
    turning: list[Path] = []
    may_turn = threading.Event()
    copy = console.copy_newest_first

    def slowly(path: Path, uuid: UUID, extent: console.Extent, target: BinaryIO) -> None:
        if extent.size:
            turning.append(path)
            may_turn.wait(30)
        copy(path, uuid, extent, target)

    monkeypatch.setattr(console, "copy_newest_first", slowly)
    async with run_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        await do(server, *map(schedule, names))
        ending = [await stack.enter_async_context(take_job(server)) for _ in names]
        try:
            with trio.fail_after(10):
                for taken in ending:
                    await taken.say(b"one")
                    await taken.send_result()
                await eventually(lambda: len(list(server.data_dir.glob("*/*/full.part"))) == len(names))
                await do(server, schedule("another"))
                await build(server)
            assert len(turning) == recorder.CONSOLES_AT_ONCE
        finally:
            may_turn.set()
        for taken in ending:
            assert await taken.peer.wait_end() == "closed"
            assert [line.line for line in server.execution(taken.job.name, taken.uuid).console] == [b"one"]


def execute(root: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(root / "data" / "builder.sqlite3")) as connection, connection:
        connection.execute(sql)


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_many_small_artifacts_take_little_memory(tmp_path: Path) -> None:
    """1.4 MB sent as 100 000 empty artifacts: not much more than that is held, however it comes."""
    count = 100_000
    data = b"".join(artifact_head(str(number), 0) for number in range(count))
    uuid = UUID(int=7)
    body = finished_head(FinishedHead(uuid=uuid, result=Exited(code=0)), len(data)) + data
    unfolding = delivery.Unfolding(uuid)
    reader = FinishedReader()
    writer = ResultWriter(tmp_path)
    some = Build(uuid=uuid, job=script("a"), started=Instant(0), losses=0)
    end = ExecutionEnd(started=Instant(0), finished=Instant(1), result=Exited(code=0))
    await writer.begin(some, end, console.Extent(size=0, encoded_length=0, blocks=()), data_length=len(data))
    codec.decode_result(codec.encode_result(end.result))  # loads what decodes, which is no part of this
    tracemalloc.start()
    try:
        for start in range(0, len(body), BODY_SIZE):
            for event in unfolding.of(reader.feed(body[start : start + BODY_SIZE])):
                match event:
                    case events.Artifacts(pieces=pieces):
                        await writer.add(pieces)
        reader.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await writer.commit()
    writer.close()
    assert (tmp_path / "full").read_bytes().endswith(data)
    assert peak < 6 * 2**20


# --- SIGHUP --------------------------------------------------------------------------------------------------------


async def test_a_hangup_ends_nothing(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            for count in (1, 2):
                os.kill(server.pid, signal.SIGHUP)
                await server.wait_for_log("SIGHUP: nothing to read again", count=count)
            await taken.finish()
        assert server.terminate() == 0
