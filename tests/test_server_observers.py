"""builder-server's observers: every line and the end, at their own pace, and the build waits for none of them."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
import trio
from farm import Reachable, eventually, run_server, start_server
from scripted import CLIENT, Taken, build, connect, do, lose_worker, observe, schedule, take_job

from builder import codec
from builder.framing import frame
from builder.messages import Failure, Observe, Output, Success
from builder.model import Aborted, Exited, Result, Signalled, Stopped
from builder_server import memory
from builder_server.console import ConsoleWriter
from builder_server.recorder import Recorder
from builder_server.requests.logs import OBSERVER_TIMEOUT
from builder_server.store import Build


async def send_lines(taken: Taken, lines: Sequence[bytes]) -> None:
    """Send lines as fast as the server takes them, many in one write."""
    for start in range(0, len(lines), 1000):
        part = lines[start : start + 1000]
        await taken.peer.channel.send_bytes(
            Output, b"".join(frame(codec.encode(Output(uuid=taken.uuid, line=line))) for line in part)
        )


def check(outputs: Sequence[Output] | Failure, lines: Sequence[bytes], end: bytes, uuid: UUID) -> None:
    assert not isinstance(outputs, Failure)
    assert [output.line for output in outputs] == [*lines, end]
    assert {output.uuid for output in outputs} == {uuid}
    times = [output.timestamp for output in outputs]
    assert all(time is not None and time >= 0 for time in times)
    assert times == sorted(time for time in times if time is not None)


async def test_twenty_observers_of_a_burst_get_every_line_and_the_end(tmp_path: Path) -> None:
    lines = [b"line %d" % number for number in range(20_000)]
    expected = b"".join(lines)
    ends: list[bytes] = []

    async def follow(server: Reachable, uuid: UUID) -> None:
        # frames are taken apart here without the codec, which is slow: twenty times 20 000 lines
        async with connect(server, CLIENT) as peer:
            await peer.send(Observe(uuid=uuid))
            data = await peer.wait_closed(60)
        offset, found, last = 0, [], -1
        while offset < len(data):
            size = int.from_bytes(data[offset : offset + 8], "big")
            body = data[offset + 8 : offset + 8 + size]
            offset += 8 + size
            if body[0] != 0xA4:
                assert codec.decode(body) == Success()
                break
            length = body[4 + 18 + 1]
            found.append(body[24 : 24 + length])
            timestamp = int.from_bytes(body[24 + length + 2 :], "big")
            assert timestamp >= last
            last = timestamp
        assert offset == len(data)
        ends.append(found.pop())
        assert len(found) == len(lines)
        assert b"".join(found) == expected

    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(follow, server, taken.uuid)
            await send_lines(taken, lines)
            await taken.finish(Exited(code=3))
    assert ends == [b"exited 3"] * 20


async def test_lines_are_seen_live_and_replayed(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, CLIENT) as early, connect(server, CLIENT) as late:
            await early.send(Observe(uuid=taken.uuid))
            first = []
            for line in (b"one", b"", b"\xff\0\n"):
                await taken.say(line)
                first.append(await early.receive(Output))
                assert first[-1].line == line
            await late.send(Observe(uuid=taken.uuid))
            assert [await late.receive(Output) for _ in first] == first
            await taken.finish()
            for peer in (early, late):
                assert (await peer.receive(Output)).line == b"exited 0"
                await peer.receive(Success)
                assert await peer.wait_closed() == b""


async def test_an_observer_that_stops_reading_slows_nobody(tmp_path: Path) -> None:
    lines = [b"x" * 10_000] * 1000  # 10 MB, more than the sockets hold
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, CLIENT) as stopped:
            await stopped.send(Observe(uuid=taken.uuid))
            await send_lines(taken, lines)
            await taken.finish()
            check(await observe(server, taken.uuid), lines, b"exited 0", taken.uuid)
            found = [await stopped.receive(Output) for _ in range(1001)]  # it reads on, and has missed nothing
            check(found, lines, b"exited 0", taken.uuid)


async def test_an_observer_may_stand_still_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    monkeypatch.setattr(memory, "bound_unsent", lambda _, seconds: bounds.append(seconds))
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, CLIENT) as stopped:
            await stopped.send(Observe(uuid=taken.uuid))
            await taken.say(b"one")
            await stopped.receive(Output)
            assert bounds == [OBSERVER_TIMEOUT]  # by the kernel, too
            await taken.finish()


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Exited(code=0), b"exited 0"),
        (Exited(code=-1), b"exited -1"),
        (Signalled(signal=-7), b"signalled -7"),
        (Stopped(signal=-20), b"stopped -20"),
        (Aborted(message="out of \udcff"), b"execution aborted: out of \xff"),
    ],
)
async def test_a_finished_build(tmp_path: Path, result: Result, text: bytes) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server, lines=[b"one", b"two"], result=result)
        check(await observe(server, uuid), [b"one", b"two"], text, uuid)
        assert server.execution("a", uuid).result == result
    async with run_server(tmp_path) as server:
        check(await observe(server, uuid), [b"one", b"two"], text, uuid)


async def test_a_build_without_lines(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        uuid, _ = await build(server)
        check(await observe(server, uuid), [], b"exited 0", uuid)


async def test_a_lost_build(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with connect(server, CLIENT) as live:
            async with take_job(server) as taken:
                await taken.say(b"one")
                await live.send(Observe(uuid=taken.uuid))
                assert (await live.receive(Output)).line == b"one"
            assert (await live.receive(Output)).line == b"execution aborted: worker lost"
            await live.receive(Success)
        check(await observe(server, taken.uuid), [b"one"], b"execution aborted: worker lost", taken.uuid)
        uuid = await lose_worker(server)
        check(await observe(server, uuid), [], b"execution aborted: worker lost", uuid)


async def test_an_unknown_uuid(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        assert await observe(server, UUID(int=7)) == Failure(message="uuid not found")


async def test_a_build_that_is_about_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the transaction and the console's file it is running already, and not lost."""
    may_begin = trio.Event()
    begin = Recorder.begin_console

    async def slowly(self: Recorder, build: Build) -> ConsoleWriter:
        await may_begin.wait()
        return await begin(self, build)

    monkeypatch.setattr(Recorder, "begin_console", slowly)
    async with run_server(tmp_path) as server, trio.open_nursery() as nursery:
        await do(server, schedule("a"))

        async def work() -> None:
            await build(server, lines=[b"one"])

        nursery.start_soon(work)
        ((uuid,),) = await eventually(lambda: server.query("select uuid from build"))
        async with connect(server, CLIENT) as observer:
            await observer.send(Observe(uuid=UUID(uuid)))
            await trio.testing.wait_all_tasks_blocked(0.05)
            may_begin.set()
            assert (await observer.receive(Output)).line == b"one"
            assert (await observer.receive(Output)).line == b"exited 0"


async def test_an_observer_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            before = server.descriptors()
            for _ in range(50):
                async with connect(server, CLIENT) as observer:
                    await observer.send(Observe(uuid=taken.uuid))
                    await taken.say(b"x")
                    await observer.receive(Output)
            await eventually(lambda: server.descriptors() <= before)
            await taken.finish()


async def test_an_observer_that_says_more_is_closed(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken, connect(server, CLIENT) as observer:
            await observer.send(Observe(uuid=taken.uuid))
            await taken.say(b"x")
            await observer.receive(Output)
            await observer.send_raw(frame(codec.encode(Observe(uuid=taken.uuid))))
            await observer.wait_closed()
            await taken.finish()
