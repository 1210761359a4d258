"""builder-server whose disk fails at each step that persists something: nothing is acknowledged, everybody else is served.

Most faults are put into the calls of a server in this process, one at a time; the last tests use a file system that is
really full, and the kernel's limit of a file's size.
"""

import contextlib
import datetime as dt
import errno
import os
import resource
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import trio
from attrs import define
from farm import LocalServer, Reachable, eventually, eventually_async, log_lines, run_server, start_server
from scripted import (
    CLIENT,
    OURS,
    ask,
    build,
    connect,
    do,
    given_job,
    info,
    observe,
    queues,
    running,
    schedule,
    take_job,
    waiting_worker,
)

from builder.errors import ConnectionEnded
from builder.extension.builds import BuildCancelled, CancelBuilds
from builder.messages import Failure, Observe, Output, Success
from builder.model import Aborted, Artifact, Exited
from builder_server import attempt, console, recorder
from builder_server.scheduler import MAX_LOSSES
from builder_server.store import Store, StoreError, Undecided, builds

SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))


ALWAYS = 10**9


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job that was lost again run at once: a test would wait for a minute."""
    monkeypatch.setattr(builds, "PAUSE", dt.timedelta())


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@define
class Fault:
    """A step that fails as often as it is told to, and works again after that."""

    patch: pytest.MonkeyPatch
    left: int = 0
    met: int = 0

    def put_into(self, owner: object, name: str, *, when: Callable[..., bool] = lambda *_: True) -> None:
        """Have a function fail instead of being called, where its arguments are those that count."""
        original = getattr(owner, name)

        def replacement(*arguments: object, **options: object) -> object:
            if when(*arguments) and self.left:
                self.left -= 1
                self.met += 1
                no_space()
            return original(*arguments, **options)

        self.patch.setattr(owner, name, replacement)


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Fault:
    return Fault(monkeypatch)


def is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


STEPS: dict[str, Callable[[Fault], None]] = {
    "the build's directory": lambda fault: fault.put_into(recorder, "make_build_dir"),
    "the console's file": lambda fault: fault.put_into(console.ConsoleWriter, "create"),
    "the head of full": lambda fault: fault.put_into(console, "copy_newest_first"),
    "fsync of full": lambda fault: fault.put_into(os, "fsync", when=lambda fd: not is_directory(fd)),
    "rename of full": lambda fault: fault.put_into(Path, "rename", when=lambda path, *_: path.name == "full.part"),
    "fsync of a directory": lambda fault: fault.put_into(os, "fsync", when=is_directory),
}


async def one_build(server: Reachable) -> tuple[UUID, str]:
    """Have a worker do a job, whatever the server does meanwhile."""
    try:
        return (await build(server, lines=[b"one"], artifacts=SOME))[0], "built"
    except (ConnectionEnded, trio.BrokenResourceError):
        return UUID(int=0), "failed"


@contextlib.asynccontextmanager
async def bystanders(server: Reachable) -> AsyncIterator[None]:
    """Keep a build and an observer going that have nothing to do with the fault."""
    await do(server, schedule("other", "p2"))
    async with take_job(server, "p2") as taken, connect(server, CLIENT) as observer:
        await observer.send(Observe(uuid=taken.uuid))
        await taken.say(b"begin")
        assert (await observer.receive(Output)).line == b"begin"
        yield
        await taken.say(b"end")
        assert (await observer.receive(Output)).line == b"end"
        await taken.finish(artifacts=SOME)
        assert (await observer.receive(Output)).line == b"exited 0"
        await observer.receive(Success)
        assert await observer.wait_closed() == b""


@pytest.mark.parametrize("step", STEPS)
async def test_one_fault_of_the_disk(tmp_path: Path, fault: Fault, step: str, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server, bystanders(server):
        await do(server, schedule("a"))
        STEPS[step](fault)
        fault.left = 1
        caplog.clear()
        async with connect_and_fail(server):
            await eventually(lambda: fault.met == 1, what=step)
        await wait_until_queued(server, "a")
        errors = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
        assert len(errors) == 1, errors
        assert "No space left on device" in errors[0]
        assert not list(server.data_dir.glob("a/*/full*"))
        uuid, result = await one_build(server)
        assert result == "built"
        assert server.execution("a", uuid).artifacts == SOME
        assert [path.parent.name for path in server.data_dir.glob("a/*/full*")] == [str(uuid)]


@contextlib.asynccontextmanager
async def connect_and_fail(server: Reachable) -> AsyncIterator[None]:
    """Have a worker try a build, which the server will cut off somewhere."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_build, server)
        yield


async def wait_until_queued(server: Reachable, *names: str) -> None:
    async def check() -> bool:
        return (await queues(server))["p1"] == list(names)

    await eventually_async(check, what=f"a queue of {names}")


@pytest.mark.parametrize("step", STEPS)
async def test_a_fault_that_stays(
    tmp_path: Path, fault: Fault, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is not to blame: it is tried again for as long as that lasts, and then built."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server, bystanders(server):
        await do(server, schedule("a"))
        STEPS[step](fault)
        fault.left = ALWAYS
        for number in range(1, MAX_LOSSES + 2):
            async with connect_and_fail(server):
                await eventually(lambda number=number: fault.met >= number, what=step)  # type: ignore[misc]
            if step == "fsync of a directory":  # which throwing away what was written needs too
                await eventually(lambda: "can't be put back, trying again" in caplog.text)
                break
            await wait_until_queued(server, "a")
            assert server.query("select losses from queue") == [(0,)]
        fault.left = 0
        await wait_until_queued(server, "a")
        assert not list(server.data_dir.glob("a/*/full*"))
        uuid, result = await one_build(server)
        assert result == "built"
        assert server.execution("a", uuid).artifacts == SOME


async def test_lines_are_held_while_the_disk_does_not_take_them(
    tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is thrown away, and it is said once."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    caplog.set_level("INFO")
    fault.put_into(console, "_write_all", when=lambda _file, data, _offset: b"held" in data)
    async with run_server(tmp_path) as server, bystanders(server):
        await do(server, schedule("a"))
        fault.left = ALWAYS
        async with take_job(server) as taken:
            await taken.say(b"before")
            await taken.say(b"held", b"held too")
            await eventually(lambda: fault.met >= 3)
            await taken.say(b"after")
            assert [record.levelname for record in caplog.records].count("ERROR") == 1
            assert "No space left on device" in caplog.text
            fault.left = 0
            await taken.finish(artifacts=SOME)
        record = server.execution("a", taken.uuid)
        assert [line.line for line in record.console] == [b"before", b"held", b"held too", b"after"]
        assert caplog.text.count("goes on") == 1


async def test_a_limit_of_time_counts_on_while_lines_are_held(tmp_path: Path, fault: Fault) -> None:
    fault.put_into(console, "_write_all", when=lambda _file, data, _offset: b"held" in data)
    async with run_server(tmp_path, job_timeout=0.2) as server:
        await do(server, schedule("a"))
        fault.left = ALWAYS
        async with take_job(server) as taken:
            await taken.say(b"before")
            await taken.say(b"held")
            assert await taken.peer.wait_end() == "reset"
        await eventually(server.full("a", taken.uuid).exists)
        # on a machine that is very busy, its time is up before anything has come
        assert [line.line for line in server.execution("a", taken.uuid).console] in ([b"before"], [])


async def test_half_a_console_line_reaches_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an observer is sent are whole messages, and each once."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    original = console._write_all
    unlucky: list[bytes] = []

    class Half:
        def __init__(self, file: object) -> None:
            self.file = file
            self.full = False

        def write(self, data: memoryview) -> int:
            if self.full:
                no_space()
            self.full = True
            return self.file.write(data[: len(data) // 2])  # type: ignore[attr-defined, no-any-return]

        def truncate(self, size: int) -> None:
            if len(unlucky) > 1:
                self.file.truncate(size)  # type: ignore[attr-defined]
            else:
                no_space()

        def seek(self, offset: int) -> None:
            self.file.seek(offset)  # type: ignore[attr-defined]

    def write_all(file: object, data: bytes, offset: int) -> None:
        if is_unlucky := b"unlucky" in data and len(unlucky) < 2:
            unlucky.append(data)
        original(Half(file) if is_unlucky else file, data, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(console, "_write_all", write_all)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.say(b"lucky")
            await eventually(lambda: b"lucky" in (server.data_dir / "a" / str(taken.uuid) / "console").read_bytes())
            await taken.say(b"unlucky")
            await taken.finish()
        outputs = await observe(server, taken.uuid)
        assert isinstance(outputs, list)
        assert [output.line for output in outputs] == [b"lucky", b"unlucky", b"exited 0"]
    assert len(unlucky) == 2


RECORDS = [step for step in STEPS if " of " in step]
"""The steps in which a record becomes durable."""


@pytest.mark.parametrize("step", RECORDS)
@pytest.mark.parametrize("how", ["the disk works again", "the server starts again"])
async def test_a_cancelled_build_stays_cancelled(
    tmp_path: Path, fault: Fault, step: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is answered as soon as nothing can bring the job back."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, OURS) as client:
            await taken.say(b"one")
            STEPS[step](fault)
            fault.left = ALWAYS
            reply, _ = await client.request(CancelBuilds(target="a"))
            assert reply == BuildCancelled(uuid=taken.uuid, name="a", platform="p1")
            assert await taken.peer.wait_end() == "reset"
            by = "{}:{}".format(*client.stream.socket.getsockname())
        assert server.query("select state, ended_by from build") == [("running", by)]
        if how == "the disk works again":
            fault.left = 0
            await wait_until_finished(server)
    fault.left = 0
    async with run_server(tmp_path) as server:
        await wait_until_finished(server)
        assert server.query("select outcome, ended_by from build") == [("aborted", by)]
        assert server.execution("a", taken.uuid).result == Aborted(message=f"cancelled by {by}")
        assert await queues(server) == {"p1": []}


async def wait_until_finished(server: Reachable) -> None:
    await eventually(lambda: server.query("select state from build") == [("finished",)], what="the record")


# --- the database --------------------------------------------------------------------------------------------------


@pytest.fixture
def failing_commits() -> Iterator[Fault]:
    """Have the database's commits fail, as many as are told to."""
    fault = Fault(pytest.MonkeyPatch())

    def commit(_connection: sa.Connection) -> None:
        if fault.left:
            fault.left -= 1
            fault.met += 1
            raise sa.exc.OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))

    sa.event.listen(sa.Engine, "commit", commit)
    yield fault
    sa.event.remove(sa.Engine, "commit", commit)


async def test_a_client_is_told_that_nothing_was_done(tmp_path: Path, failing_commits: Fault) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        before = await info(server)
        failing_commits.left = ALWAYS
        assert await ask(server, schedule("b")) == Failure(
            message="the server failed: the database can't be written: disk I/O error"
        )
        failing_commits.left = 0
        assert await info(server) == before
        await do(server, schedule("b"))


async def test_a_job_is_not_handed_out(tmp_path: Path, failing_commits: Fault) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        failing_commits.left = ALWAYS
        assert (await one_build(server))[1] == "failed"
        failing_commits.left = 0
        assert (await running(server), await queues(server)) == ((), {"p1": ["a"]})
        assert (await one_build(server))[1] == "built"


async def test_a_result_that_the_database_does_not_take(
    tmp_path: Path, failing_commits: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            failing_commits.left = ALWAYS
            await taken.send_result(artifacts=SOME)
            assert await taken.peer.wait_end() == "reset"
        await eventually(lambda: "can't be put back, trying again" in caplog.text)
        failing_commits.left = 0
        await wait_until_queued(server, "a")
        assert not list(server.data_dir.glob("a/*/full*"))
        assert len(log_lines(caplog.text, "can't be recorded: the database can't be written: disk I/O error")) == 1
        uuid, _ = await one_build(server)
        assert server.execution("a", uuid).result == Exited(code=0)


async def test_a_cancel_that_the_database_does_not_take(
    tmp_path: Path, failing_commits: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused: the job goes back to the queue."""
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, OURS) as client:
            failing_commits.left = ALWAYS
            (failure,) = await client.request(CancelBuilds(target="a"))
            assert isinstance(failure, Failure)
            assert failure.message.startswith(f"{taken.uuid} is dead, but the server's disk does not take that")
            failing_commits.left = 0
            await wait_until_queued(server, "a")


async def test_a_loss_that_the_database_does_not_take(
    tmp_path: Path, failing_commits: Fault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    caplog.set_level("DEBUG", "builder_server.owner")
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            failing_commits.left = ALWAYS
        async with connect(server, CLIENT) as observer:
            await eventually(lambda: caplog.text.count("can't be put back, trying again") > 2)
            assert [record.levelname for record in caplog.records if "put back" in record.message].count("ERROR") == 1
            await observer.send(Observe(uuid=taken.uuid))
            failing_commits.left = 0
            await wait_until_queued(server, "a")
            assert (await observer.receive(Output)).line == b"execution aborted: worker lost"
        assert server.query("select losses from queue") == [(1,)]
        assert (await one_build(server))[1] == "built"


# --- real ones -----------------------------------------------------------------------------------------------------


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The kernel refuses to make a file larger: artifacts first, then the database too."""
    async with start_server(tmp_path) as server, bystanders(server):
        await do(server, schedule("a"))
        server.limit(resource.RLIMIT_FSIZE, 1_000_000)
        large = (Artifact(path="large", content=bytes(2_000_000)),)
        for _ in range(3):
            with contextlib.suppress(trio.BrokenResourceError, ConnectionEnded):
                await build(server, artifacts=large)
        await server.wait_for_log("File too large", count=3)
        ((uuid,),) = server.query("select uuid from build where name = 'a' and state = 'finished'")
        assert server.execution("a", UUID(uuid)).result == Aborted(
            message="the server could not record it: File too large"
        )
        reply = await ask(server, schedule("b", text=bytes(1_000_000)))
        assert reply == Failure(message="the server failed: the database can't be written: disk I/O error")
        assert await queues(server) == {"p1": [], "p2": []}
        server.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
        await do(server, schedule("b", text=bytes(1_000_000)))
        uuid_b, _ = await build(server, artifacts=large)
        assert server.execution("b", uuid_b).artifacts == large
        assert "Traceback" not in server.log


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "builder-test", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs rights: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    async with start_server(tmp_path, data_dir=small_disk) as server:
        await do(server, schedule("a"), schedule("b"))
        # a job that leaves more than there is room for fails alone
        large = (Artifact(path="large", content=bytes(6_000_000)),)
        for _ in range(3):
            with contextlib.suppress(trio.BrokenResourceError, ConnectionEnded):
                await build(server, artifacts=large)
        await server.wait_for_log("No space left on device", count=3)
        assert await queues(server) == {"p1": ["b"]}
        ((uuid,),) = server.query("select uuid from build where name = 'a' and state = 'finished'")
        assert server.execution("a", UUID(uuid)).result == Aborted(
            message="the server could not record it: No space left on device"
        )

        # a disk without any room: nothing is acknowledged, and what is known can still be read
        filler = small_disk / "filler"
        fill(filler)
        reply = await ask(server, schedule("c", text=bytes(100_000)))
        assert reply == Failure(message="the server failed: the database can't be written: database or disk is full")
        assert await queues(server) == {"p1": ["b"]}
        async with waiting_worker(server) as worker:
            await server.wait_for_log("is almost full: no job is handed out while less than")
            filler.unlink()
            await (await given_job(worker)).finish(artifacts=SOME)
        await server.wait_for_log("there is room again")
        await do(server, schedule("c"), schedule("d", text=bytes(100_000)))
        for name in "cd":
            uuid_, _ = await build(server, lines=[b"one"], artifacts=SOME)
            assert server.execution(name, uuid_).artifacts == SOME
        assert "Traceback" not in server.log
        assert not list(server.data_dir.glob("*/*/full.part"))


async def test_a_console_that_fills_the_disk_makes_room_again(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "RETRY", 0.1)
    async with run_server(small_disk) as server:
        await do(server, schedule("a"))
        for _ in range(3):
            with contextlib.suppress(trio.BrokenResourceError, ConnectionEnded):
                async with take_job(server) as taken:
                    while True:
                        await taken.say(b"x" * 60_000)
        await eventually_async(lambda: is_recorded(server, "a"))
        await do(server, schedule("b"))
        assert await queues(server) == {"p1": ["b"]}


async def is_recorded(server: Reachable, name: str) -> bool:
    return name not in (await queues(server)).get("p1", []) and not await running(server)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.parametrize("is_done", [True, False], ids=["done", "undone"])
async def test_a_result_of_which_nobody_can_say_whether_it_was_recorded(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    """The database goes away during the commit, and stays away: its record is kept until it is known."""
    finish = Store.finish
    tries: list[str] = []

    async def lost(store: Store, *arguments: Any, **options: Any) -> bool:
        tries.append("")
        match len(tries):
            case 1:
                if is_done:
                    await finish(store, *arguments, **options)
                raise Undecided("lost during a commit")
            case 2:
                raise StoreError("it is away")
            case _:
                return await finish(store, *arguments, **options)

    monkeypatch.setattr(Store, "finish", lost)
    monkeypatch.setattr(recorder, "ASK_AGAIN", 0.01)
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.say(b"said")
        await taken.finish(Exited(code=0), SOME)
    assert len(tries) == 3
    assert server.query("SELECT state, owner FROM build")[0][0] == "finished"
    execution = server.execution("a", taken.uuid)
    assert (execution.result, len(execution.artifacts)) == (Exited(code=0), len(SOME))
    assert await queues(server) == {"p1": []}
