"""A worker that may come back: one connection for many jobs, and builds that outlive their connection."""

import contextlib
import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
import trio
from farm import LocalServer, Server, eventually, run_server, start_server
from scripted import (
    OUR_WORKER,
    OURS,
    Given,
    ask_job,
    build,
    connect,
    do,
    observe,
    queues,
    said,
    schedule,
    take_job,
)

from builder import codec
from builder.errors import ConnectionEnded
from builder.extension.builds import CancelBuilds
from builder.extension.working import (
    MAX_FACT_VALUE,
    MAX_FACTS,
    SECRET_SIZE,
    Alive,
    AskJob,
    Continue,
    Fact,
    GiveJob,
    GiveUp,
    Gone,
    ResultStored,
    Return,
)
from builder.framing import frame
from builder.messages import MAX_SCRIPT, JobFinished, Message, Output, Success
from builder.model import Aborted, Artifact, Execution, Exited
from builder_server import attempt, working
from builder_server.console import MAX_LINE, ConsoleWriter
from builder_server.recorder import Recorder
from builder_server.results import ResultWriter
from builder_server.store import Build
from builder_server.working import MAX_ELAPSED

SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))


def lines_of(record: Execution) -> list[bytes]:
    return [line.line for line in record.console]


# --- one connection ------------------------------------------------------------------------------------------------


async def test_one_job_after_the_other(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"), schedule("b"))
        secrets = set()
        for name in ("a", "b"):
            given = await ask_job(peer)
            assert given.job.name == name
            assert len(given.secret) == SECRET_SIZE
            secrets.add(given.secret)
            await given.say(peer, 0, 3)
            await peer.send(Alive())
            await given.say(peer, 3, 5)
            await given.finish(peer, Exited(code=3), SOME)
            record = server.execution(name, given.uuid)
            assert (record.result, record.artifacts) == (Exited(code=3), SOME)
            assert [(line.delta, line.line) for line in record.console] == [
                (1000 * number, b"line %d" % number) for number in range(5)
            ]
        assert len(secrets) == 2
        assert server.query("select worker_name from build") == [("w",), ("w",)]
        assert given.secret not in b"".join(path.read_bytes() for path in tmp_path.glob("data/*.sqlite3*"))


async def test_a_worker_that_says_first_that_it_lives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await peer.send(Alive(), Alive())
        await do(server, schedule("a"))
        await (await ask_job(peer)).finish(peer)
    assert "internal error" not in caplog.text


async def test_a_stop_closes_who_has_no_job(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        waiting, idle = [await stack.enter_async_context(connect(server, OUR_WORKER)) for _ in range(2)]
        await do(server, schedule("a"))
        await (await ask_job(idle)).finish(idle)
        await waiting.send(AskJob(platform="p1", worker="w"))
        await do(server, schedule("b", "p2"))
        server.stop()
        assert [await peer.wait_end() for peer in (waiting, idle)] == ["closed", "closed"]
        assert server.query("select state from build") == [("finished",)]


async def test_a_worker_that_goes_while_it_waits(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        async with connect(server, OUR_WORKER) as peer:
            await peer.send(AskJob(platform="p1", worker="w"))
            await eventually(lambda: server.query("select * from platform"))
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            await (await ask_job(peer)).finish(peer)
        assert server.query("select losses, state from build") == [(0, "finished")]


MOST = tuple(Fact(name=f"{number:064}", value="\N{GRINNING FACE}" * MAX_FACT_VALUE) for number in range(MAX_FACTS))


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        (MOST, None),
        ((*MOST, Fact(name="one", value="")), "the number of a worker's facts must lie between 0 and 64"),
        (MOST[:1] * 2, "a worker tells each fact once"),
        ((Fact(name="", value=""),), "the characters of a fact's name must lie between 1 and 64"),
        ((Fact(name="n" * 65, value=""),), "the characters of a fact's name must lie between 1 and 64"),
        ((Fact(name="n", value="v" * 257),), "the characters of a fact's value must lie between 0 and 256"),
    ],
)
async def test_what_a_worker_tells_of_itself_is_bounded(
    tmp_path: Path, facts: tuple[Fact, ...], complaint: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        await peer.send(AskJob(platform="p1", worker="w", facts=facts))
        if complaint is None:
            assert isinstance(await peer.receive_any(), GiveJob)
        else:
            assert await peer.wait_end() == "closed"
            await eventually(lambda: complaint in caplog.text)


async def test_a_classic_worker_beside_it(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await given.say(peer, 0, 1)
        await do(server, schedule("b"))
        uuid, job = await build(server, lines=[b"one"], artifacts=SOME)
        assert job.name == "b"
        assert lines_of(server.execution("b", uuid)) == [b"one"]
        await given.finish(peer)
        assert lines_of(server.execution("a", given.uuid)) == [b"line 0"]
        assert await queues(server) == {"p1": []}
        outputs = await observe(server, given.uuid)
        assert isinstance(outputs, list)
        assert outputs[0] == Output(uuid=given.uuid, line=b"line 0", timestamp=0)


# --- a connection that breaks --------------------------------------------------------------------------------------


async def console_has(server: Server | LocalServer, given: Given, lines: int) -> None:
    """Wait until so many lines are on the server's disk."""
    path = server.data_dir / given.job.name / str(given.uuid) / "console"
    await eventually(lambda: path.read_bytes().count(b"line ") >= lines)


def check_lines(server: Server | LocalServer, given: Given, count: int) -> None:
    """All lines are there, once and in their order; and there is one record."""
    record = server.execution(given.job.name, given.uuid)
    assert [(line.delta, line.line) for line in record.console] == [
        (1000 * number, b"line %d" % number) for number in range(count)
    ]
    assert server.query("select state, outcome from build") == [("finished", "succeeded")]


@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_worker_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_noticed: bool) -> None:
    """Whether the server has noticed that the old connection is broken, or not yet."""
    async with run_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        await do(server, schedule("a"))
        first = await stack.enter_async_context(connect(server, OUR_WORKER))
        given = await ask_job(first)
        await given.say(first, 0, 5)
        await console_has(server, given, 5)
        if is_noticed:
            await first.channel.aclose()
            await eventually(lambda: "is away: the connection ended" in caplog.text)
        second = await stack.enter_async_context(connect(server, OUR_WORKER))
        assert await given.come_back(second) == Continue(lines=5)
        if not is_noticed:
            await first.wait_closed()
        await given.say(second, 5, 9)
        await given.finish(second, artifacts=SOME)
        check_lines(server, given, 9)
        assert server.execution("a", given.uuid).artifacts == SOME
        assert await queues(server) == {"p1": []}


async def test_a_worker_comes_back_while_its_result_came(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as first:
            given = await ask_job(first)
            await given.say(first, 0, 5)
            body = frame(codec.encode(JobFinished(uuid=given.uuid, result=Exited(code=0), artifacts=SOME)))
            await first.channel.send_bytes(JobFinished, body[:50_000])
            await eventually((server.data_dir / "a" / str(given.uuid) / "full.part").exists)
        async with connect(server, OUR_WORKER) as second:
            assert await given.come_back(second, has_ended=True) == Continue(lines=5)
            await given.finish(second, artifacts=SOME)
            check_lines(server, given, 5)
        async with connect(server, OUR_WORKER) as third:  # the answer was lost on its way
            assert await given.come_back(third, has_ended=True) == ResultStored(uuid=given.uuid)
            assert await given.come_back(third, has_ended=True) == ResultStored(uuid=given.uuid)
            await do(server, schedule("b"))
            await (await ask_job(third)).finish(third)


async def test_a_worker_comes_back_while_its_result_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit = trio.Event()
    commit = ResultWriter.commit
    committing: list[ResultWriter] = []

    async def slowly(self: ResultWriter) -> None:
        committing.append(self)
        await may_commit.wait()
        await commit(self)

    monkeypatch.setattr(ResultWriter, "commit", slowly)
    async with run_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as first:
            given = await ask_job(first)
            await given.say(first, 0, 2)
            await given.send_result(first, artifacts=SOME)
            await eventually(lambda: committing)
        second, third = [await stack.enter_async_context(connect(server, OUR_WORKER)) for _ in range(2)]
        back = Return(uuid=given.uuid, secret=given.secret, elapsed=0, has_ended=True)
        await second.send(back)
        await third.send(back)
        may_commit.set()
        answers = [await second.wait_closed(0.5), await third.receive(ResultStored)]
        assert answers == [b"", ResultStored(uuid=given.uuid)]
        check_lines(server, given, 2)
        assert len(committing) == 1


async def test_a_worker_comes_back_while_its_result_can_not_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed as that of the one before it, and nobody takes it for one that works."""
    may_fail = trio.Event()
    committing: list[ResultWriter] = []

    async def fail(self: ResultWriter) -> None:
        committing.append(self)
        await may_fail.wait()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ResultWriter, "commit", fail)
    monkeypatch.setattr(attempt, "RETRY", 0.01)
    async with run_server(tmp_path, grace=0.05) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as first, connect(server, OUR_WORKER) as second:
            given = await ask_job(first)
            await given.send_result(first, artifacts=SOME)
            await eventually(lambda: committing)
            await second.send(Return(uuid=given.uuid, secret=given.secret, elapsed=0, has_ended=True))
            assert await first.wait_closed() == b""
            may_fail.set()
            assert await second.wait_end() == "closed"
        await eventually(lambda: server.query("select state from build") == [("lost",)])  # it does not come back
        assert await queues(server) == {"p1": ["a"]}


async def test_a_server_that_can_not_open_the_console_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "ALIVE_INTERVAL", 0.02)
    monkeypatch.setattr(attempt, "RETRY", 0.02)
    is_broken = True
    reopen = Recorder.reopen_console

    async def fail(self: Recorder, build: Build) -> ConsoleWriter:
        if is_broken:
            raise OSError(errno.EROFS, "Read-only file system")
        return await reopen(self, build)

    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)
            await given.say(peer, 0, 3)
            await console_has(server, given, 3)
            server.kill()
    monkeypatch.setattr(Recorder, "reopen_console", fail)
    async with run_server(tmp_path) as local, connect(local, OUR_WORKER) as peer:
        await peer.send(Return(uuid=given.uuid, secret=given.secret, elapsed=0))
        for _ in range(10):
            await peer.receive(Alive)
        is_broken = False
        assert await said(peer) == Continue(lines=3)
        await given.finish(peer)
        check_lines(local, given, 3)


async def test_two_come_back_at_once(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as first:
            given = await ask_job(first)
            await given.say(first, 0, 3)
            await console_has(server, given, 3)
        peers = [await stack.enter_async_context(connect(server, OUR_WORKER)) for _ in range(2)]
        for peer in peers:
            assert await given.come_back(peer) == Continue(lines=3)
        with contextlib.suppress(trio.BrokenResourceError):
            await given.say(peers[0], 3, 100)  # which counts no more
        await peers[0].wait_closed()
        await given.say(peers[1], 3, 6)
        await given.finish(peers[1])
        check_lines(server, given, 6)


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_wrong_secret_and_an_unknown_attempt(tmp_path: Path, *, is_running: bool) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        if not is_running:
            await given.finish(peer)
        async with connect(server, OUR_WORKER) as other:
            for uuid, secret in (
                (given.uuid, bytes(SECRET_SIZE)),
                (given.uuid, b""),
                (given.uuid, hashlib.sha256(given.secret).digest()),
                (UUID(int=1), given.secret),
            ):
                await other.send(Return(uuid=uuid, secret=secret, elapsed=0))
                assert (await other.receive(Gone)).uuid == uuid
        if is_running:
            await given.finish(peer)
        assert server.query("select state from build") == [("finished",)]


async def test_nobody_comes_back_to_a_classic_build(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            for secret in (b"", hashlib.sha256(b"").digest(), bytes(SECRET_SIZE)):
                await peer.send(Return(uuid=taken.uuid, secret=secret, elapsed=0))
                await peer.receive(Gone)
            await taken.finish()


# --- a build that ends without its worker --------------------------------------------------------------------------


async def test_a_worker_that_is_away_for_too_long(tmp_path: Path) -> None:
    async with run_server(tmp_path, grace=0.05) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as first:
            given = await ask_job(first)
            await given.say(first, 0, 5)
        await eventually(lambda: server.query("select losses from queue") == [(1,)])
        async with connect(server, OUR_WORKER) as second:
            answer = await given.come_back(second)
            assert isinstance(answer, Gone)
            assert answer.reason in ("worker lost", "its job went back to the queue"), (
                "by its owner, or by the database"
            )
            again = await ask_job(second)
            assert again.uuid != given.uuid
            await again.finish(second)
        assert sorted(server.query("select state from build")) == [("finished",), ("lost",)]


async def test_a_build_that_is_cancelled(tmp_path: Path) -> None:
    """The worker is told at once, whatever it is sending, and reads it."""
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await given.say(peer, 0, 3)
        async with connect(server, OURS) as client:
            await client.request(CancelBuilds(target=str(given.uuid)))
        await given.say(peer, 3, 5000)  # it did not know
        gone = await said(peer)
        assert isinstance(gone, Gone)
        assert gone.reason.startswith("cancelled by ")
        assert await peer.wait_end() == "closed"
        async with connect(server, OUR_WORKER) as again:
            assert await given.come_back(again) == Gone(uuid=given.uuid, reason=f"execution aborted: {gone.reason}")


async def test_a_build_that_is_cancelled_while_its_worker_is_away(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)
        async with connect(server, OURS) as client:
            assert (await client.request(CancelBuilds(target="a")))[-1] == Success()
        async with connect(server, OUR_WORKER) as again:
            gone = await given.come_back(again)
            assert isinstance(gone, Gone)
            assert "cancelled by" in gone.reason


async def test_a_build_that_is_cancelled_while_its_job_is_sent(tmp_path: Path) -> None:
    """Nothing can follow half a message: the connection is closed."""
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, *(schedule(name, text=b"x" * MAX_SCRIPT) for name in "ab"))
        await peer.send(AskJob(platform="p1", worker="w"))
        await eventually(lambda: server.query("select * from build"))
        async with connect(server, OURS) as client:
            assert (await client.request(CancelBuilds(target="a")))[-1] == Success()
        with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
            await peer.receive(GiveJob)
        await eventually(lambda: server.query("select outcome from build") == [("aborted",)])


async def test_a_limit_of_time(tmp_path: Path) -> None:
    async with run_server(tmp_path, job_timeout=0.2) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        gone = await said(peer)
        assert gone == Gone(uuid=given.uuid, reason="timeout after 0.2s (--job-timeout of the server)")
        assert await peer.wait_end() == "closed"


async def test_a_worker_gives_up(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await given.say(peer, 0, 3)
        await peer.send(GiveUp(uuid=given.uuid, reason="drained"))
        await peer.send(Alive())
        assert await said(peer) == Gone(uuid=given.uuid, reason="the worker gave it up: drained")
        assert server.query("select losses from queue") == [(0,)]
        async with connect(server, OUR_WORKER) as again:
            assert isinstance(await given.come_back(again), Gone)
            await (await ask_job(again)).finish(again)


async def test_artifacts_that_are_refused(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await given.send_result(peer, artifacts=[Artifact(path="../x", content=b"y" * 10**6)])
        gone = await said(peer)
        assert isinstance(gone, Gone)
        await eventually(server.full("a", given.uuid).exists)
        assert isinstance(server.execution("a", given.uuid).result, Aborted)


# --- what a worker does wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda given: Output(uuid=given.uuid, line=b"x"),
        lambda given: Output(uuid=given.uuid, line=b"x", timestamp=1999),
        lambda _given: Output(uuid=UUID(int=9), line=b"x", timestamp=3000),
        lambda given: Output(uuid=given.uuid, line=b"x" * (MAX_LINE + 1), timestamp=3000),
        lambda _given: GiveUp(uuid=UUID(int=9), reason=""),
        lambda _given: JobFinished(uuid=UUID(int=9), result=Exited(code=0), artifacts=()),
    ],
    ids=["no time", "a time that goes back", "another build", "too long", "another build is given up", "its result"],
)
async def test_a_mistake_costs_a_worker_its_build(tmp_path: Path, wrong: Callable[[Given], Message]) -> None:
    """It would make it again, so that it may not come back."""
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, OUR_WORKER) as peer:
            given = await ask_job(peer)
            await given.say(peer, 0, 3)
            await peer.send_raw(frame(codec.encode(wrong(given))))
            await peer.wait_closed()
        await eventually(lambda: server.query("select losses from queue") == [(1,)])
        async with connect(server, OUR_WORKER) as again:
            assert isinstance(await given.come_back(again), Gone)


@pytest.mark.parametrize("elapsed", [-1, MAX_ELAPSED + 1])
async def test_an_age_that_can_not_be(tmp_path: Path, elapsed: int) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await peer.send(Return(uuid=UUID(int=1), secret=b"", elapsed=elapsed))
        assert await peer.wait_closed() == b""


# --- signs of life -------------------------------------------------------------------------------------------------


async def test_a_worker_that_says_nothing_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "SILENCE", 0.1)
    async with run_server(tmp_path, grace=0.1) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        await ask_job(peer)
        await peer.wait_closed()
        await eventually(lambda: server.query("select losses from queue") == [(1,)])


async def test_both_sides_say_that_they_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "SILENCE", 0.5)
    monkeypatch.setattr(working, "ALIVE_INTERVAL", 0.05)
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        for _ in range(15):  # for longer than it may be silent
            await peer.send(Alive())
            await peer.receive(Alive)
        await given.finish(peer)
        await peer.send(Alive())  # it has crossed with the answer
        await do(server, schedule("b"))
        await (await ask_job(peer)).finish(peer)
