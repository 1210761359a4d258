"""The delivery of jobs in our own protocol: by builder-worker as a process, with servers that go away at any moment.

What takes minutes is in tests of its own below, on a clock that is moved.
"""

import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing
from attrs import define, field
from worker_program import (
    OurConnection,
    Server,
    Worker,
    interrupt,
    open_server,
    run_worker,
    wait_gone,
)

from builder.endpoint import Servers, Tls
from builder.errors import BuilderError, ConnectionEnded
from builder.extension.working import (
    ALIVE_INTERVAL,
    SILENCE,
    Alive,
    AskJob,
    Continue,
    GiveJob,
    GiveUp,
    Gone,
    ResultStored,
    Return,
)
from builder.framing import StreamedFrame
from builder.messages import Hello, Output, Role
from builder.model import Aborted, Exited, Result, ScriptJob
from builder.outputs import Outputs
from builder.runtime.dialling import NotConnected
from builder_worker.artifacts import Collection
from builder_worker.assignment import Assignment
from builder_worker.build import BuildEnd
from builder_worker.console import Progress
from builder_worker.delivery import EAGER_PAUSE, GIVE_UP_TIMEOUT, Delivery, Revoked, Silent, give_up
from builder_worker.dial import Dial
from builder_worker.handover import LINES, OUTCOME, Handover, Illegible, read_outcome
from builder_worker.sandbox.job_directory import ATTEMPT
from builder_worker.spool import LineSpool
from builder_worker.trees import TreeChanged
from builder_worker.uplink import Lost, Uplink

COUNT = 300
COUNTING = b"i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); done\n" % COUNT
LINES_OF_IT = [b"%d" % number for number in range(COUNT)]


@asynccontextmanager
async def at_work(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[Server, Worker]]:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, *arguments) as worker:
        yield server, worker


async def read_lines(connection: OurConnection, count: int) -> list[bytes]:
    return [await connection.read_line() for _ in range(count)]


def place(tmp_path: Path) -> Path:
    """The directory of the one job."""
    (found,) = (tmp_path / "work").iterdir()
    return found


# --- a connection that holds ------------------------------------------------------------------------------------------


async def test_one_connection_serves_one_job_after_the_other(tmp_path: Path) -> None:
    async with at_work(tmp_path, "--loop", "--name", "box-1") as (server, worker), server.accept_ours() as connection:
        for number in range(3):
            given = await connection.give(b"ls; echo %d; echo %d > result" % (number, number))
            finished = await connection.finish()
            assert finished.own_lines == [b"%d" % number]
            assert finished.artifacts == {b"result": b"%d\n" % number}
            await connection.channel.send(ResultStored(uuid=given.uuid))
        asked = await connection.hear()
        assert isinstance(asked, AskJob)
        assert (asked.platform, asked.worker) == ("p1", "box-1")
        interrupt(worker)
        assert await worker.wait() == 143
        assert worker.log.count("delivered") == 3


async def test_lines_have_the_time_at_which_they_were_written(tmp_path: Path) -> None:
    """Since the job was given; it is the supervisor that tells."""
    async with at_work(tmp_path) as (server, worker), server.accept_ours() as connection:
        before = time.monotonic_ns()
        given = await connection.give(b"echo one; sleep 0.3; echo two; echo three >&2")
        outputs: list[Output] = []
        while isinstance(message := await connection.next(), Output):
            outputs.append(message)
        took = time.monotonic_ns() - before
        times = [output.timestamp or 0 for output in outputs]
        assert times == sorted(times)
        assert all(0 < at < took for at in times)
        assert times[1] - times[0] >= 290_000_000
        while await connection.channel.receive_body():
            pass
        await connection.channel.send(ResultStored(uuid=given.uuid))
        assert await worker.wait() == 0


async def test_a_result_is_kept_until_it_is_stored(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (server, worker), server.accept_ours() as connection:
        given = await connection.give(b"echo made > artifact; exit 3")
        await connection.finish()
        kept = place(tmp_path)
        assert (kept / "disk" / "build" / "artifact").read_text() == "made\n"
        assert read_outcome(kept) == Exited(code=3)
        assert worker.process.poll() is None
        await connection.channel.send(ResultStored(uuid=given.uuid))
        assert await worker.wait() == 0
    assert not list((tmp_path / "work").iterdir())


async def test_what_a_later_worker_needs_is_written_down(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (server, worker), server.accept_ours() as connection:
        before = time.monotonic_ns()
        given = await connection.give(b"echo begun; exec sleep 1000")
        assert await connection.read_line() == b"begun"
        kept = place(tmp_path)
        handover = Handover.read(kept)
        assert (str(handover.servers), handover.platform, handover.job) == (server.address, "p1", given)
        assert before < handover.begun < time.monotonic_ns()
        assert handover.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert (kept / ATTEMPT).stat().st_mode & 0o077 == 0
        with pytest.raises(FileNotFoundError):
            read_outcome(kept)
        spool = LineSpool.open(kept / LINES)
        assert (spool.lines, spool.progress.offset) == (1, 6)
        spool.close()
        worker.process.kill()


def test_how_tls_is_spoken_is_written_down_too(tmp_path: Path) -> None:
    servers = Servers.of("here:1,there:2", Tls(ca="/a", certificate="/b", key="/c", name="n").options())
    given = GiveJob(uuid=uuid4(), job=ScriptJob(name="j", platform="p1", script=b""), secret=b"s" * 32)
    Handover(servers=servers, platform="p1", job=given).write(tmp_path)
    assert Handover.read(tmp_path).servers == servers
    plain = json.loads((tmp_path / ATTEMPT).read_bytes())
    del plain["tls"]  # as of a worker before
    (tmp_path / ATTEMPT).write_text(json.dumps(plain), "utf-8")
    assert Handover.read(tmp_path).servers == Servers.of("here:1,there:2", {})
    (tmp_path / ATTEMPT).write_text(json.dumps(plain | {"tls": {"tls-ca": "/a"}}), "utf-8")
    with pytest.raises(Illegible):
        Handover.read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"job": "00"}', b'{"job": 1}'])
def test_what_was_damaged_is_said_to_be(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ATTEMPT).write_bytes(data)
    (tmp_path / OUTCOME).write_bytes(data)
    with pytest.raises(Illegible, match="not what a worker writes"):
        Handover.read(tmp_path)
    with pytest.raises(Illegible):
        read_outcome(tmp_path)


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"time_limit": 500}, "time limit of 0.5 s exceeded"), ({"max_silent": 500}, "no output for 0.5 s")],
)
async def test_limits_of_the_job_tighten_those_of_the_worker(tmp_path: Path, limits: dict[str, int], said: str) -> None:
    async with at_work(tmp_path, "--timeout", "1h") as (server, _), server.accept_ours() as connection:
        await connection.give(b"exec sleep 1000", **limits)
        assert (await connection.finish()).result == Aborted(message=said)


# --- connections that break -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, COUNT // 2, COUNT])
async def test_after_a_break_it_goes_on_with_the_line_that_the_server_wants(tmp_path: Path, taken: int) -> None:
    """Also with an earlier one than it has sent: what the server has read, its disk need not have taken."""
    async with at_work(tmp_path) as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(COUNTING + b"until [ -e go ]; do sleep 0.01; done; echo end")
            lines = await read_lines(connection, taken)
        async with server.accept_ours() as connection:
            back = await connection.go_on(given, max(0, taken - 1))
            assert not back.has_ended
            (place(tmp_path) / "disk" / "build" / "go").touch()
            finished = await connection.finish()
            assert [*lines[: max(0, taken - 1)], *finished.own_lines[:-1]] == LINES_OF_IT
            assert finished.own_lines[-1] == b"end"
            await connection.channel.send(ResultStored(uuid=given.uuid))
            assert await worker.wait() == 0
        assert "the job is kept" not in worker.log


async def test_a_break_before_the_result_and_within_it_costs_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"echo made; head -c 3000000 /dev/zero > large")
            assert await connection.read_line() == b"made"
            assert b"1 artifact" in await connection.read_line()
        async with server.accept_ours() as connection:
            assert (await connection.go_on(given, 2)).has_ended
            assert isinstance(await connection.next(), StreamedFrame)
            assert await connection.channel.receive_body()
        async with server.accept_ours() as connection:
            assert (await connection.go_on(given, 2)).has_ended
            finished = await connection.finish()
            assert finished.lines == []
            assert finished.artifacts == {b"large": bytes(3_000_000)}
        async with server.accept_ours() as connection:
            assert isinstance(await connection.hear(), Return)
            await connection.channel.send(ResultStored(uuid=given.uuid))
            assert await worker.wait() == 0
        assert worker.log.count("delivered") == 1
    assert not list((tmp_path / "work").iterdir())


async def test_a_connection_that_is_reset_is_no_other_break(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"echo begun; until [ -e go ]; do sleep 0.01; done")
            assert await connection.read_line() == b"begun"
            reset(connection)
        async with server.accept_ours() as connection:
            await connection.go_on(given, 1)
            (place(tmp_path) / "disk" / "build" / "go").touch()
            assert (await connection.finish()).result == Exited(code=0)
            await connection.channel.send(ResultStored(uuid=given.uuid))
            assert await worker.wait() == 0


def reset(connection: OurConnection) -> None:
    connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.stream.socket.close()


async def test_a_server_that_takes_nothing_does_not_hold_the_job_up(tmp_path: Path) -> None:
    """It writes 20 MiB while nobody reads, more than the sockets hold."""
    async with at_work(tmp_path) as (server, worker), server.accept_ours() as connection:
        given = await connection.give(b"yes %s | head -n 10000; exit 7" % (b"x" * 2000))
        await wait_for((place(tmp_path) / OUTCOME).exists)
        finished = await connection.finish(keep=False)
        assert finished.result == Exited(code=7)
        assert len(finished.lines) == 10_001
        await connection.channel.send(ResultStored(uuid=given.uuid))
        assert await worker.wait() == 0


async def wait_for(found: Callable[[], bool]) -> None:
    while not found():  # noqa: ASYNC110 - another process does it
        await trio.sleep(0.01)


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_job_that_is_gone_is_killed_and_the_next_one_taken(tmp_path: Path, comes_back: bool) -> None:  # noqa: FBT001
    async with at_work(tmp_path, "--loop") as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
            if not comes_back:
                await connection.channel.send(Gone(uuid=given.uuid, reason="cancelled by a person"))
                await wait_gone(pid)  # nothing waits in between
        if comes_back:
            async with server.accept_ours() as connection:
                assert isinstance(await connection.hear(), Return)
                await connection.channel.send(Gone(uuid=given.uuid, reason="cancelled by a person"))
                await wait_gone(pid)  # nothing waits in between
        async with server.accept_ours() as connection:
            await connection.give(b"exit 4")
            assert (await connection.finish()).result == Exited(code=4)
        assert "the server has ended the build: cancelled by a person" in worker.log
        assert "next attempt" not in worker.log


async def test_without_a_loop_a_job_that_is_gone_is_status_5(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (server, worker), server.accept_ours() as connection:
        given = await connection.give(b"sleep 1000")
        await connection.channel.send(Gone(uuid=given.uuid, reason="timeout"))
        assert await worker.wait() == 5
        assert worker.log.endswith("builder-worker: the server has ended the build: timeout\n")


async def test_a_job_ends_where_the_server_is_away_for_too_long(tmp_path: Path) -> None:
    async with at_work(tmp_path, "--reconnect-for", "0") as (server, worker):
        async with server.accept_ours() as connection:
            await connection.give(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
            await server.aclose()
        await wait_gone(pid)
        assert await worker.wait() == 5
        assert "was away for 0 s" in worker.log


async def test_a_server_that_comes_back_is_told_of_a_job_that_was_killed_meanwhile(tmp_path: Path) -> None:
    """Else it would wait for a worker that is there and has nothing to do."""
    async with at_work(tmp_path, "--loop", "--reconnect-for", "0") as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"sleep 1000")
            await server.aclose()
        await wait_for(lambda: "was not told that the job is lost" in worker.log)
        await server.listen_again()
        async with AsyncExitStack() as opened:
            while isinstance(
                await (connection := await opened.enter_async_context(server.accept_ours())).hear(), AskJob
            ):
                pass  # the slot wants its next job on a connection of its own
            await connection.channel.send(Continue(lines=0))
            reason = "the server was away for 0 s"
            assert await connection.channel.receive() == GiveUp(uuid=given.uuid, reason=reason)
            await connection.channel.send(Gone(uuid=given.uuid, reason=reason))
            interrupt(worker)
            assert await worker.wait() == 143
    assert worker.log.count("was not told") == 1


# --- the worker's own end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_stopped_says_that_it_has_the_job_no_more(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with at_work(tmp_path, "--loop") as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
            interrupt(worker, number)
            async with server.accept_ours() as again:
                await again.go_on(given, 1)
                assert await again.channel.receive() == GiveUp(uuid=given.uuid, reason="the worker was stopped")
                await again.channel.send(Gone(uuid=given.uuid, reason="given up"))
                assert await worker.wait() == 128 + number
        await wait_gone(pid)
    assert not list((tmp_path / "work").iterdir())


async def test_a_worker_that_is_stopped_while_the_server_is_away_ends(tmp_path: Path) -> None:
    async with at_work(tmp_path, "--loop") as (server, worker):
        async with server.accept_ours() as connection:
            await connection.give(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
            await server.aclose()
        await wait_for(lambda: "the job is kept" in worker.log)
        interrupt(worker)
        assert await worker.wait() == 143
        await wait_gone(pid)


async def test_a_worker_that_drains_while_the_server_is_away_delivers_first(tmp_path: Path) -> None:
    async with at_work(tmp_path, "--loop", "--drain-timeout", "1h") as (server, worker):
        async with server.accept_ours() as connection:
            given = await connection.give(b"until [ -e go ]; do sleep 0.01; done; echo end")
        await wait_for(lambda: "lost" in worker.log)
        interrupt(worker)
        await wait_for(lambda: "draining" in worker.log)
        (place(tmp_path) / "disk" / "build" / "go").touch()
        await wait_for((place(tmp_path) / OUTCOME).exists)
        async with server.accept_ours() as connection:
            await connection.go_on(given, 0)
            finished = await connection.finish()
            assert finished.own_lines == [b"end"]
            await connection.channel.send(ResultStored(uuid=given.uuid))
            assert await worker.wait() == 0


# --- servers of the classic protocol ------------------------------------------------------------------------------------


async def test_a_server_that_does_not_know_ours_is_asked_in_the_classic_way_for_a_while(tmp_path: Path) -> None:
    async with at_work(tmp_path, "--loop") as (server, worker):
        async with server.accept_ours() as connection:
            assert await connection.channel.receive_expected(Hello) == Hello(role=Role.WORKER, version=100)
        async with server.accept() as classic:
            await classic.hand_out(b"true")
            await classic.finish()
        async with server.accept_ours() as connection:  # takes what comes, whatever it speaks
            assert await connection.channel.receive_expected(Hello) == Hello(role=Role.WORKER, version=5)
        interrupt(worker)
        await worker.wait()


# --- on a clock that is moved -------------------------------------------------------------------------------------------


@define
class Network:
    """What connects a delivery with the test, who plays the server."""

    is_down: bool = False
    tries: int = 0
    _send: trio.MemorySendChannel[trio.abc.HalfCloseableStream] = field(init=False)
    _receive: trio.MemoryReceiveChannel[trio.abc.HalfCloseableStream] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(0)

    async def connect(self) -> trio.abc.HalfCloseableStream:
        self.tries += 1
        if self.is_down:
            raise NotConnected("cannot reach it")
        ours, theirs = trio.testing.memory_stream_pair()
        await self._send.send(theirs)
        return ours

    @asynccontextmanager
    async def accept(self) -> AsyncIterator[OurConnection]:
        async with await self._receive.receive() as stream:
            yield OurConnection(stream)


@define
class Trial:
    """A delivery of a job that a test plays, too."""

    network: Network
    assignment: Assignment
    given: GiveJob
    delivery: Delivery
    uplink: Uplink
    sandbox: SimpleNamespace
    error: BuilderError | None = None
    """What the delivery raised."""

    async def run(self) -> None:
        """Deliver."""
        try:
            await self.delivery.run()
        except BuilderError as error:
            self.error = error

    async def say(self, *lines: bytes) -> None:
        await self.assignment._take(lines)

    def end_job(self) -> None:
        """End the job, of which nothing was found yet."""
        self.sandbox.has_ended = True

    def end(self, result: Result, artifacts: Any = None) -> None:
        self.assignment._conclude(BuildEnd(result=result, artifacts=artifacts or Collection()))

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[OurConnection]:
        """The first connection, on which the job was given."""
        async with AsyncExitStack() as opened:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask)
                connection = await opened.enter_async_context(self.network.accept())
                assert isinstance(await connection.hear(), AskJob)
                await connection.channel.send(self.given)
            yield connection

    async def _ask(self) -> None:
        await self.uplink.open()
        await self.uplink.connection.send(AskJob(platform="p1", worker="w"))
        await self.uplink.connection.receive_expected(GiveJob)


@asynccontextmanager
async def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reconnect_for: float = 900) -> AsyncIterator[Trial]:
    network = Network()
    monkeypatch.setattr(Dial, "_open", lambda *_: network.connect())
    given = GiveJob(uuid=uuid4(), job=ScriptJob(name="job", platform="p1", script=b""), secret=b"s" * 32)
    handover = Handover(servers=Servers.of("here:1", {}), platform="p1", job=given)
    assignment = Assignment(uuid=given.uuid, job=given.job, handover=handover)
    sandbox = SimpleNamespace(place=tmp_path, is_left=False, has_ended=False)
    assignment._begin(sandbox)  # type: ignore[arg-type]  # all that is asked of one
    uplink = Uplink(Servers.of("here:1", {}))
    yield Trial(network, assignment, given, Delivery(uplink, assignment, handover, reconnect_for), uplink, sandbox)
    assignment.close()


async def test_both_sides_show_that_they_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """And a server that does not is left, however much it takes of what it is sent."""
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun() as connection:
            nursery.start_soon(one.run)
            begun = trio.current_time()
            for number in range(10):
                assert isinstance(await connection.channel.receive(), Alive)
                assert trio.current_time() - begun == (number + 1) * ALIVE_INTERVAL
                await connection.channel.send(Alive())
            last = trio.current_time()
            for _ in range(int(SILENCE / ALIVE_INTERVAL) - 1):
                assert isinstance(await connection.channel.receive(), Alive)
            with pytest.raises(ConnectionEnded):
                await connection.channel.receive()
            assert trio.current_time() - last == SILENCE
        async with one.network.accept() as connection:
            await connection.go_on(one.given, 0)
            assert trio.current_time() - last == SILENCE
            await connection.channel.send(Gone(uuid=one.given.uuid, reason="enough"))
            with pytest.raises(ConnectionEnded):
                await connection.channel.receive()
    assert isinstance(one.error, Revoked)


async def test_a_server_that_hangs_is_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that greets, and then says nothing to a worker that comes back."""
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun():
            nursery.start_soon(one.run)
        async with one.network.accept() as connection:
            assert isinstance(await connection.hear(), Return)
            begun = trio.current_time()
            with pytest.raises(ConnectionEnded):
                await connection.channel.receive()
            assert trio.current_time() - begun == SILENCE
        async with one.network.accept() as connection:
            await connection.go_on(one.given, 0)
            assert trio.current_time() - begun <= SILENCE + EAGER_PAUSE
            nursery.cancel_scope.cancel()
    assert "silent for 45 s; the job is kept" in caplog.text


@pytest.mark.parametrize("away", [0.5, 30, 890])
async def test_an_outage_costs_a_build_its_time_and_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, away: float
) -> None:
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun() as connection:
            await one.say(b"before")
            nursery.start_soon(one.run)
            assert await connection.read_line() == b"before"
            one.network.is_down = True
        await trio.sleep(away)
        await one.say(b"meanwhile")
        one.network.is_down = False
        begun = trio.current_time()
        async with one.network.accept() as connection:
            assert trio.current_time() - begun <= EAGER_PAUSE
            assert not (await connection.go_on(one.given, 1)).has_ended
            assert await connection.read_line() == b"meanwhile"
            one.end(Exited(code=0))
            assert (await connection.finish()).result == Exited(code=0)
            await connection.channel.send(ResultStored(uuid=one.given.uuid))
            with trio.move_on_after(1):
                assert not await connection.channel.receive()  # it stays, for the next job
    assert one.error is None


async def test_the_job_of_a_server_that_is_away_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with trial(tmp_path, monkeypatch, reconnect_for=600) as one:
        async with trio.open_nursery() as nursery:
            async with one.begun():
                nursery.start_soon(one.run)
                one.network.is_down = True
            begun = trio.current_time()
        assert 600 <= trio.current_time() - begun <= 600 + EAGER_PAUSE
        assert isinstance(one.error, Lost)
        assert str(one.error) == "here:1 was away for 600 s (cannot reach it); the job was killed"


async def test_a_job_that_has_ended_is_kept_while_its_lines_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """More of them than may wait, or artifacts that are still looked for: there is a result, but not yet for the server."""
    async with trial(tmp_path, monkeypatch, reconnect_for=600) as one, trio.open_nursery() as nursery:
        async with one.begun():
            nursery.start_soon(one.run)
            one.network.is_down = True
        nursery.cancel_scope.deadline = trio.current_time() + 20_000
        await trio.sleep(500)
        one.end_job()
        await trio.sleep(10_000)
        one.network.is_down = False
        async with one.network.accept() as connection:
            assert (await connection.go_on(one.given, 0)).has_ended
            one.end(Exited(code=0))
            assert (await connection.finish()).result == Exited(code=0)
            await connection.channel.send(ResultStored(uuid=one.given.uuid))
    assert one.error is None


async def test_a_result_is_offered_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Less and less often: at most once a minute in the end."""
    async with trial(tmp_path, monkeypatch, reconnect_for=600) as one, trio.open_nursery() as nursery:
        async with one.begun():
            nursery.start_soon(one.run)
            one.network.is_down = True
        await trio.sleep(500)
        one.end(Exited(code=0))
        await trio.sleep(10_000)
        tries = one.network.tries
        await trio.sleep(60_000)
        assert 1000 <= one.network.tries - tries <= 2000
        one.network.is_down = False
        async with one.network.accept() as connection:
            assert (await connection.go_on(one.given, 0)).has_ended
            assert (await connection.finish()).result == Exited(code=0)
            await connection.channel.send(ResultStored(uuid=one.given.uuid))
    assert one.error is None


async def test_a_server_that_breaks_every_connection_is_not_asked_without_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """As one does that has no room for the result."""
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun() as connection:
            one.end(Exited(code=0))
            nursery.start_soon(one.run)
            await connection.finish()
        begun = trio.current_time()
        for _ in range(20):
            async with one.network.accept() as connection:
                await connection.go_on(one.given, 0)
                await connection.finish()
        assert trio.current_time() - begun >= 15
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lines", [1, 2**61])
async def test_a_server_that_wants_a_line_which_there_is_not_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, lines: int
) -> None:
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun():
            nursery.start_soon(one.run)
        async with one.network.accept() as connection:
            await connection.go_on(one.given, lines)
            with pytest.raises(ConnectionEnded):
                await connection.channel.receive()
        nursery.cancel_scope.cancel()


async def test_a_stop_does_not_wait_for_a_server_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with trial(tmp_path, monkeypatch) as one:
        begun = trio.current_time()
        async with trio.open_nursery() as nursery, one.begun():
            nursery.start_soon(one.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - begun == GIVE_UP_TIMEOUT


async def test_a_server_that_takes_no_notice_of_a_lost_job_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def tell() -> None:
        with pytest.raises(Silent):
            await give_up(
                one.uplink, Handover(servers=Servers.of("here:1", {}), platform="p1", job=one.given), "it is lost"
            )

    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        begun = trio.current_time()
        nursery.start_soon(tell)
        async with one.network.accept() as connection:
            await connection.go_on(one.given, 0)
            assert await connection.channel.receive() == GiveUp(uuid=one.given.uuid, reason="it is lost")
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(SILENCE + 1)
            assert not nursery.child_tasks
        assert trio.current_time() - begun <= SILENCE + 2


class Spoiled(Collection):
    """Artifacts of which one can't be read to its end any more."""

    length = 10

    def chunks(self) -> Any:
        yield b"1"
        raise TreeChanged("artifact changed while it was read")


async def test_an_artifact_that_can_not_be_read_is_a_fault_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the server is told: to try it again would help nobody."""
    async with trial(tmp_path, monkeypatch) as one, trio.open_nursery() as nursery:
        async with one.begun() as connection:
            one.end(Exited(code=0), Spoiled())
            nursery.start_soon(one.run)
            with pytest.raises(ConnectionEnded):
                await connection.finish()
        async with one.network.accept() as connection:
            await connection.go_on(one.given, 0)
            result = (await connection.finish()).result
            assert result == Aborted(message="the worker failed: artifact changed while it was read")
            await connection.channel.send(ResultStored(uuid=one.given.uuid))
    assert one.error is None


async def test_times_of_lines_never_go_back_with_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its supervisor says of what one worker has not sent to the end may lie before what that one has measured."""
    async with trial(tmp_path, monkeypatch) as one:
        handover = one.assignment.handover
        assert handover is not None
        for at in (10, 20):
            await one.assignment._take([b"x"], Progress(offset=0, is_begun=False, time=handover.begun + at))
        with contextlib.closing(LineSpool.open(tmp_path / LINES)) as spool:
            next_one = Assignment.adopt(handover, one.sandbox, None, spool)  # type: ignore[arg-type]  # as above
            await next_one._take([b"x"], Progress(offset=0, is_begun=False, time=handover.begun + 15))
            frames = await spool.follow(0).next()
        assert [output.timestamp for output in Outputs(one.given.uuid).read(frames)[0]] == [10, 20, 20]


async def test_times_of_lines_never_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor before the job was given, whatever the clock of its supervisor says."""
    async with trial(tmp_path, monkeypatch) as one:
        begun = one.assignment.handover.begun if one.assignment.handover else 0
        for at in (begun - 5, begun + 10, begun + 7, begun + 20):
            await one.assignment._take([b"x"], Progress(offset=0, is_begun=False, time=at))
        one.end(Exited(code=0))
        frames = await one.assignment.spool.follow(0).next()
        assert [output.timestamp for output in Outputs(one.given.uuid).read(frames)[0]] == [0, 10, 10, 20]
