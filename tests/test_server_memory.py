"""builder-server and many large messages at once: memory for all of them together, and nobody shut out by halves."""

import contextlib
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from farm import DEADLINE, LocalServer, Reachable, eventually, eventually_async, log_lines, run_server, start_server
from scripted import CLIENT, OURS, ScriptedPeer, Taken, build, connect, do, info, queues, schedule, take_job
from trio.testing import MockClock, wait_all_tasks_blocked

from builder import codec
from builder.errors import ConnectionEnded
from builder.extension import Request
from builder.extension.applying import JobsListed, ListJobs
from builder.extension.builds import FetchArtifacts, ShowHistory
from builder.extension.logs import ReadConsole
from builder.extension.schedule import JobShown, ShowJob
from builder.framing import frame
from builder.messages import KIB, MAX_SCRIPT, MIB, Failure, Info, JobFinished, Message, Output, Schedule, Success
from builder.model import Artifact, Exited
from builder_server import aside, console, memory
from builder_server.aside import Replies
from builder_server.delivery import SLOWEST_RESULT
from builder_server.server import MAX_THREADS, SHUTDOWN_TIMEOUT

STALLERS = 100


def large(name: str, size: int = 512 * KIB) -> Schedule:
    return schedule(name, text=b"x" * size)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock) -> AsyncIterator[LocalServer]:
    """A server with memory for two large messages, whose clock the test may let jump."""
    mock_clock.rate = 1
    monkeypatch.setattr(memory, "TOTAL", MIB + 1 * KIB)
    async with run_server(tmp_path) as found:
        yield found


async def begin(server: Reachable, guests: AsyncExitStack, command: Schedule) -> ScriptedPeer:
    """Have a client send a command but for its last byte, as far as it is read."""
    peer = await guests.enter_async_context(connect(server, CLIENT))
    with trio.move_on_after(0.1):
        await peer.send_raw(frame(codec.encode(command))[:-1])
    await wait_all_tasks_blocked(0.01)
    return peer


@pytest.mark.long
async def test_a_stalling_crowd_takes_bounded_memory(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, AsyncExitStack() as guests:
        await do(server, large("warm"))
        before = server.memory()
        data = frame(codec.encode(large("never", MAX_SCRIPT)))[:-1]

        async def stall(peer: ScriptedPeer) -> None:
            with trio.move_on_after(DEADLINE):
                await peer.stream.send_all(data)

        async with trio.open_nursery() as nursery:
            for _ in range(STALLERS):
                nursery.start_soon(stall, await guests.enter_async_context(connect(server, CLIENT)))
            await eventually(lambda: server.memory() > before + memory.TOTAL / 2)
            await do(server, large("honest", MAX_SCRIPT), large("small", 100 * KIB))
            nursery.cancel_scope.cancel()
        # twice, for what the allocator rounds up; without a bound it were 400 MiB
        assert server.memory("VmHWM") < before + 2 * memory.TOTAL
        assert await queues(server) == {"p1": ["warm", "honest", "small"]}


async def test_who_sends_on_is_waited_for(server: LocalServer) -> None:
    """As many as there may be, and as many again: all are served in turn."""
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(do, server, large(f"job{number:02}"))
    assert sorted((await queues(server))["p1"]) == [f"job{number:02}" for number in range(20)]


async def test_who_stalls_is_cut_off_when_another_needs_the_memory(
    server: LocalServer, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as guests, trio.open_nursery() as nursery:
        stalled = [await begin(server, guests, large(f"never{number}")) for number in range(2)]
        mock_clock.rate = 0  # however long the machine takes, nobody is slow until it jumps
        mock_clock.jump(2 * memory.GRACE)
        await do(server, schedule("small"))
        assert "too slow" not in caplog.text  # nobody needs it yet
        nursery.start_soon(do, server, large("honest"))
        await wait_all_tasks_blocked(0.05)
        assert await queues(server) == {"p1": ["small"]}
        mock_clock.jump(memory.GRACE + 0.1)
        for peer in stalled:
            assert await peer.wait_closed() == b""
    assert await queues(server) == {"p1": ["small", "honest"]}
    assert len(log_lines(caplog.text, "closed: a large message was too slow while others waited")) == 2


async def test_who_waits_for_memory_keeps_its_deadline(server: LocalServer, mock_clock: MockClock) -> None:
    async with AsyncExitStack() as guests:
        peers = [await begin(server, guests, large(f"never{number}")) for number in range(3)]
        mock_clock.jump(31)
        for peer in peers:
            assert await peer.wait_closed() == b""
        await do(server, large("honest"))


async def test_a_worker_that_is_cut_off_is_not_to_blame(server: LocalServer, mock_clock: MockClock) -> None:
    await do(server, schedule("a"))
    line = bytes(MIB)

    async def say_slowly(taken: Taken) -> None:
        await taken.peer.send_raw(frame(codec.encode(Output(uuid=taken.uuid, line=line)))[:-1])
        assert await taken.peer.wait_closed() == b""

    async with take_job(server) as taken, trio.open_nursery() as nursery:
        nursery.start_soon(say_slowly, taken)
        await wait_all_tasks_blocked(0.1)
        nursery.start_soon(do, server, large("honest"))
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(memory.GRACE + 0.1)
    await eventually(lambda: server.query("select losses from queue join job on job.id = job_id where name = 'a'"))
    assert server.query("select losses from queue join job on job.id = job_id where name = 'a'") == [(0,)]


async def test_memory_is_given_back_by_whoever_goes_away(server: LocalServer) -> None:
    for number in range(5):
        async with AsyncExitStack() as guests:
            for _ in range(3):
                await begin(server, guests, large(f"never{number}"))
        await do(server, large(f"job{number}"))


async def test_memory_is_given_back_message_by_message(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        for number in range(10):
            await taken.say(b"%d" % number * (900 * KIB))
        await do(server, large("b"))
        await taken.finish()
    assert len(server.execution("a", taken.uuid).console) == 10


async def test_artifacts_on_their_way_hold_no_memory(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        line = frame(codec.encode(Output(uuid=taken.uuid, line=b"x" * (900 * KIB))))
        finished = JobFinished(uuid=taken.uuid, result=Exited(code=0), artifacts=(Artifact(path="a", content=b"abc"),))
        result = frame(codec.encode(finished))
        await taken.peer.stream.send_all(line + result[:-1])
        await do(server, large("b"))
        await taken.peer.stream.send_all(result[-1:])
        assert await taken.peer.wait_closed() == b""
    assert server.execution("a", taken.uuid).artifacts == finished.artifacts


async def test_the_newest_is_served_first() -> None:
    """Whoever came before it may be a crowd that never sends what it announced."""
    shared = memory.Memory(Replies(Path()), 1000 * KIB)
    first = await shared.grant(600 * KIB)
    served: list[str] = []

    async def ask(name: str, size: int) -> None:
        grant = await shared.grant(size)
        served.append(name)
        shared.give_back(grant)

    async with trio.open_nursery() as nursery:
        for name, size in (("old", 500 * KIB), ("new", 1000 * KIB)):
            nursery.start_soon(ask, name, size)
            await wait_all_tasks_blocked()
        assert served == []
        shared.give_back(first)
    assert served == ["new", "old"]
    assert shared.free == 1000 * KIB


async def test_who_stops_waiting_takes_nothing() -> None:
    shared = memory.Memory(Replies(Path()), 1000 * KIB)
    first = await shared.grant(600 * KIB)
    with trio.move_on_after(0.01):
        await shared.grant(500 * KIB)
    shared.give_back(first)
    assert shared.free == 1000 * KIB


async def test_the_memory_of_a_line_is_held_until_it_is_on_the_disk(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, writes = threading.Event(), threading.Event()
    write_all = console._write_all

    def wait_and_write(*arguments: Any) -> None:
        writes.set()
        may_write.wait(DEADLINE)
        write_all(*arguments)

    monkeypatch.setattr(console, "_write_all", wait_and_write)
    await do(server, schedule("a"))
    async with take_job(server) as taken, trio.open_nursery() as nursery:
        await taken.say(bytes(900 * KIB))
        await eventually(writes.is_set)
        nursery.start_soon(do, server, large("b"))
        await wait_all_tasks_blocked(0.1)
        waiting = await queues(server)
        may_write.set()
        await eventually_async(lambda: is_queued(server, "b"))
        await taken.finish()
    assert waiting == {"p1": []}


async def is_queued(server: Reachable, name: str) -> bool:
    return name in (await queues(server))["p1"]


@pytest.mark.parametrize(("size", "seconds"), [(512 * KIB, 8.0), (4 * MIB, 15.0), (16 * MIB, 15.0)])
async def test_the_largest_have_to_be_the_fastest(mock_clock: MockClock, size: int, seconds: float) -> None:
    grant = await memory.Memory(Replies(Path()), 16 * MIB).grant(size)
    mock_clock.jump(60)
    grant.note(size // 2)
    assert grant.deadline == pytest.approx(trio.current_time() - 60 + seconds / 2 + memory.GRACE)


@pytest.mark.long
async def test_long_lines_of_many_workers_take_bounded_memory(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, AsyncExitStack() as guests:
        workers = []
        for number in range(12):
            await do(server, schedule(f"job{number}", f"p{number}"))
            workers.append(await guests.enter_async_context(take_job(server, f"p{number}")))
        await workers[0].say(b"warm")
        before = server.memory()
        async with trio.open_nursery() as nursery:
            for taken in workers:
                nursery.start_soon(say_long_lines, taken)
        # twice, since a line is received and written, and what makes one message of one; without a bound it were 5 times
        assert server.memory("VmHWM") < before + 3.5 * memory.TOTAL
        assert server.memory() < before + memory.TOTAL / 4  # it goes back to the system


async def say_long_lines(taken: Taken) -> None:
    with contextlib.suppress(trio.BrokenResourceError, ConnectionEnded):  # on a slow machine some are cut off
        for _ in range(2):
            await taken.say(bytes(16 * MIB - KIB))
        await taken.finish()


@pytest.mark.parametrize(("size", "is_taken"), [(1, False), (SLOWEST_RESULT * 100, True)])
async def test_a_result_that_drips_is_cut_off(
    server: LocalServer, mock_clock: MockClock, size: int, *, is_taken: bool
) -> None:
    """A byte now and then is not enough; what is slow, but comes on, may take any time."""
    await do(server, schedule("a"))
    steps = 8
    async with take_job(server) as taken:
        artifacts = (Artifact(path="a", content=bytes(size * steps)),)
        data = frame(codec.encode(JobFinished(uuid=taken.uuid, result=Exited(code=0), artifacts=artifacts)))
        with contextlib.suppress(trio.BrokenResourceError):
            await taken.peer.stream.send_all(data[: -size * steps])
            for step in range(steps, 0, -1):
                await wait_all_tasks_blocked(0.05)
                mock_clock.jump(100)
                await taken.peer.stream.send_all(data[-size * step : -size * (step - 1) or None])
        await taken.peer.wait_end()
    assert server.full("a", taken.uuid).exists() is is_taken
    assert await queues(server) == {"p1": [] if is_taken else ["a"]}


async def ask_info(server: Reachable, guests: AsyncExitStack) -> None:
    """Have a client ask for a reply that it never reads."""
    peer = await guests.enter_async_context(connect(server, CLIENT))
    await peer.send(Info())


async def ask_ours(server: Reachable, guests: AsyncExitStack, request: Request) -> None:
    """The same for a request of our own protocol."""
    peer = await guests.enter_async_context(connect(server, OURS))
    await peer.send(request)


@pytest.mark.long
async def test_whoever_reads_of_a_build_does_not_hold_its_script(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, AsyncExitStack() as guests:
        await do(server, large("a", MAX_SCRIPT))
        uuid, _ = await build(
            server, lines=[bytes(4 * MIB)] * 2, artifacts=[Artifact(path="a", content=bytes(8 * MIB))]
        )
        before = server.memory("VmHWM")
        for _ in range(50):
            await ask_ours(server, guests, FetchArtifacts(uuid=uuid))
            await ask_ours(server, guests, ReadConsole(uuid=uuid, follow=False))
        await info(server)
        # the scripts were 400 MiB
        assert server.memory("VmHWM") < before + 100 * MIB


@pytest.mark.long
async def test_a_page_of_jobs_is_made_without_holding_their_scripts(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, connect(server, OURS) as client:
        await do(server, *(large(f"job{number}", MAX_SCRIPT) for number in range(30)))
        before = server.memory("VmHWM")
        page, _ = await client.request(ListJobs())
        assert isinstance(page, JobsListed)
        assert len(page.jobs) == 30
        assert server.memory("VmHWM") < before + 60 * MIB  # the scripts are 120


@pytest.mark.long
async def test_replies_that_nobody_reads_take_bounded_memory(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, AsyncExitStack() as guests:
        await do(server, *(large(f"job{number}", MIB) for number in range(10)))
        found = await info(server)
        before = server.memory()
        for _ in range(50):
            await ask_info(server, guests)
        assert await info(server) == found
        # the reply has 20 MiB; without a bound it were 1000
        assert server.memory("VmHWM") < before + 2 * memory.TOTAL


async def test_replies_that_nobody_reads_hold_nobody_up(server: LocalServer, mock_clock: MockClock) -> None:
    await do(server, large("a", 4 * MIB))
    mock_clock.rate = 0  # so nobody can be too slow
    async with AsyncExitStack() as guests:
        for _ in range(10):
            await ask_ours(server, guests, ShowJob(name="a"))
            await ask_info(server, guests)
        await wait_all_tasks_blocked(0.1)
        async with connect(server, OURS) as client:
            shown, end = await client.request(ShowJob(name="a"))
        assert (isinstance(shown, JobShown), end) == (True, Success())
        await do(server, large("b"))
        assert await queues(server) == {"p1": ["a", "b"]}


async def test_whoever_takes_a_reply_for_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aside, "TOTAL", 9 * MIB)
    async with run_server(tmp_path) as server, AsyncExitStack() as guests:
        await do(server, large("a", 4 * MIB))
        for _ in range(2):
            await ask_ours(server, guests, ShowJob(name="a"))
            await wait_all_tasks_blocked(0.1)
        assert "too slowly" not in caplog.text
        async with connect(server, OURS) as client:
            _, end = await client.request(ShowJob(name="a"))
        assert end == Success()
        assert len(log_lines(caplog.text, "a large reply was taken too slowly while others waited")) == 1


async def test_what_is_small_waits_for_nothing_large(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Event(), threading.Event()
    framed = memory._framed

    def wait_and_frame(message: Message) -> bytes:
        if isinstance(message, JobShown) and message.job.name == "a":
            begun.set()
            assert may_end.wait(DEADLINE)
        return framed(message)

    await do(server, large("a"), schedule("b"))
    monkeypatch.setattr(memory, "_framed", wait_and_frame)
    async with AsyncExitStack() as guests:
        for _ in range(2 * MAX_THREADS):
            await ask_ours(server, guests, ShowJob(name="a"))
        await eventually(begun.is_set)
        async with connect(server, OURS) as client:
            for request in (ShowJob(name="b"), ShowHistory(count=20)):
                _, end = await client.request(request)
                assert end == Success()
        may_end.set()


async def test_a_disk_that_takes_no_reply(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await do(server, large("a"), schedule("b"))

    def refuse(*_arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(aside, "_written", refuse)
    async with connect(server, OURS) as client:
        (failure,) = await client.request(ShowJob(name="a"))
        assert isinstance(failure, Failure)
        assert failure.message.startswith("the reply is large, and the server's disk does not take it: ")
        assert failure.message.endswith("No space left on device")
        _, end = await client.request(ShowJob(name="b"))
        assert end == Success()


async def test_a_large_message_is_decoded_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of jobs that takes a second, in which nobody else would be served."""
    threads: dict[str, int] = {}
    decode = codec.decode

    def noting(data: bytes) -> object:
        message = decode(data)
        if isinstance(message, Schedule):
            threads[message.job.name] = threading.get_ident()
        return message

    monkeypatch.setattr(codec, "decode", noting)
    async with run_server(tmp_path) as server:
        await do(server, large("large"), schedule("small"))
    assert threads["small"] == threading.get_ident() != threads["large"]


async def test_a_stop_does_not_wait_for_who_reads_nothing(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, AsyncExitStack() as guests:
        await do(server, *(large(f"job{number}", 4 * MIB) for number in range(5)))
        for _ in range(5):
            await ask_info(server, guests)
        begin = trio.current_time()
        server.process.terminate()
        assert await server.wait_async() == 0
        assert trio.current_time() - begin < SHUTDOWN_TIMEOUT - 2
