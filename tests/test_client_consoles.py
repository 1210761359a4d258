"""builder-client about parts of a console, against a real server: ranges, times, the end, and a connection that breaks."""

import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from attrs import define, field
from farm import DEADLINE, Server, eventually, run_client, start_server
from scripted import OURS, build, connect, do, schedule, take_job

from builder.endpoint import Servers
from builder.extension.logs import ConsoleRange, ReadConsole
from builder.messages import Failure, Output, Success
from builder.outputs import Outputs
from builder_client import consoles
from builder_client.consoles import RemoteConsole
from builder_client.remote import Remote

SECOND = 10**9


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        await do(running_server, schedule("a"))
        yield running_server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "RETRY", 0.01)
    monkeypatch.setattr(consoles, "_CLOSE", 3_000)
    monkeypatch.setattr(consoles, "_PART", 30_000)


def texts(outputs: Any) -> list[bytes]:
    return [output.line for output in outputs]


async def long_build(server: Server, lines: int = 3_000) -> UUID:
    """Have a build whose console has a line each second."""
    uuid, _ = await build(server)
    frames = Outputs(uuid)
    with (server.data_dir / "a" / str(uuid) / "console").open("wb") as file:
        for number in range(lines):
            file.write(frames.join([b"line %d " % number + b"." * 40], number * SECOND))
    return uuid


# --- ranges on the wire --------------------------------------------------------------------------------------------


async def test_ranges_of_a_console(server: Server) -> None:
    """A line belongs to the range in which it begins."""
    lines = [b"one", b"two", b"three"]
    uuid, _ = await build(server, lines=lines)
    async with connect(server, OURS) as client:
        place, *outputs, _ = await client.request(ReadConsole(uuid=uuid, follow=False))
        sizes = [Outputs(uuid).size(output) for output in outputs if isinstance(output, Output)]
        assert place == ConsoleRange(offset=0, size=sum(sizes))
        begins = [sum(sizes[:number]) for number in range(4)]
        for offset in sorted({place + near for place in begins for near in (-1, 0, 1, 30)} - {-1}):
            for length in (None, 0, 1, sizes[0], 10**6):
                place, *found, end = await client.request(
                    ReadConsole(uuid=uuid, follow=False, offset=offset, length=length)
                )
                first = next((begin for begin in begins if begin >= offset), begins[3])
                assert place == ConsoleRange(offset=first, size=begins[3])
                limit = 10**9 if length is None else offset + length
                assert found == [
                    output for begin, output in zip(begins, outputs, strict=False) if offset <= begin < limit
                ]
                assert end == Success()
        for offset, wanted in ((-1, 0), (-sizes[2], 1), (-sizes[2] - 1, 1), (-begins[3], 3), (-(10**6), 3)):
            _, *found, _ = await client.request(ReadConsole(uuid=uuid, follow=False, offset=offset))
            assert found == outputs[3 - wanted :]


@pytest.mark.parametrize(
    "what",
    [
        {"last": -1},
        {"length": -1},
        {"last": 1, "offset": 1},
        {"last": 1, "length": 1},
        {"follow": True, "length": 1},
    ],
)
async def test_what_is_no_range(server: Server, what: dict[str, Any]) -> None:
    uuid, _ = await build(server)
    async with connect(server, OURS) as client:
        (failure,) = await client.request(ReadConsole(**{"uuid": uuid, "follow": False, **what}))
        assert isinstance(failure, Failure)


# --- what the client makes of them ---------------------------------------------------------------------------------


async def test_a_time_is_found_by_halving(server: Server) -> None:
    uuid = await long_build(server)
    console = RemoteConsole(remote=Remote(servers=Servers.of(f"127.0.0.1:{server.port}", {})), uuid=uuid)
    for since in (0, 1, SECOND, 1_234 * SECOND - 5, 2_999 * SECOND, 3_000 * SECOND):
        offset = await trio.to_thread.run_sync(console.find_time, since)
        found = await trio.to_thread.run_sync(lambda offset: [*console.lines(offset=offset)], offset)
        times = [output.timestamp or 0 for output in found]
        wanted = [number * SECOND for number in range(3_000) if number * SECOND >= since]
        assert times[len(times) - len(wanted) :] == wanted
        assert len(times) - len(wanted) < 50


async def test_the_last_lines_that_are_wanted(server: Server) -> None:
    uuid = await long_build(server)
    console = RemoteConsole(remote=Remote(servers=Servers.of(f"127.0.0.1:{server.port}", {})), uuid=uuid)
    size = (server.data_dir / "a" / str(uuid) / "console").stat().st_size

    def has(pattern: bytes, output: Output) -> bool:
        return re.search(pattern, output.line) is not None

    for pattern, count, wanted in (
        (b"line 7 ", 3, [7]),
        (b"line [0-9]*99 ", 2, [2_899, 2_999]),
        (b"line 1?00 ", 9, [100]),
        (b"line", 0, []),
        (b"", 500, [*range(2_500, 3_000)]),
    ):
        lines, end = await trio.to_thread.run_sync(console.last_wanted, count, partial(has, pattern))
        assert [int(line.split()[1]) for line in texts(lines)] == wanted
        assert end == size


async def run(server: Server, *arguments: str) -> list[str]:
    done = await trio.to_thread.run_sync(partial(run_client, server, *arguments))
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.split()[1] for line in done.stdout.decode().splitlines()]


async def test_options_together(server: Server) -> None:
    uuid = str(await long_build(server))
    assert await run(server, "log", uuid, "--raw", "--since", "2998s") == ["2998", "2999"]
    assert await run(server, "log", uuid, "--raw", "--since", "2990s", "-n", "1") == ["2999"]
    assert await run(server, "log", uuid, "--raw", "--since", "2998s", "-n", "9", "--grep", "8 ") == ["2998"]
    assert await run(server, "log", uuid, "--raw", "-f", "-n", "2", "--grep", "[05] ") == ["2990", "2995"]


async def test_the_end_and_what_follows_of_a_running_build(server: Server) -> None:
    found: list[list[str]] = []
    async with take_job(server) as taken, trio.open_nursery() as nursery:
        await taken.say(b"no 1", b"yes 2", b"yes 3")
        uuid = str(taken.uuid)
        path = server.data_dir / "a" / uuid / "console"
        await eventually(lambda: b"yes 3" in path.read_bytes())

        async def follow() -> None:
            found.append(await run(server, "log", uuid, "--raw", "-f", "-n", "1", "--grep", "yes"))

        nursery.start_soon(follow)
        await taken.say(b"yes 4", b"no 5", b"yes 6")
        await taken.finish()
    assert found[0][-1] == "6"
    assert "5" not in found[0]


# --- a connection that breaks --------------------------------------------------------------------------------------


@define
class Cutter:
    """Stands between client and server, and cuts each connection after so many bytes from the server."""

    port: int
    after: list[int]
    connections: int = 0
    _listener: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _threads: list[threading.Thread] = field(factory=list)

    @property
    def address(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            left = self.after[self.connections] if self.connections < len(self.after) else 2**60
            self.connections += 1
            self._start(self._pass_on, client, left)

    def _start(self, task: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=task, args=arguments)
        self._threads.append(thread)
        thread.start()
        return thread

    def _pass_on(self, client: socket.socket, left: int) -> None:
        with client, socket.create_connection(("127.0.0.1", self.port)) as server:
            asking = self._start(_copy, client, server, 2**60)
            _copy(server, client, left)
            asking.join(DEADLINE)

    def close(self) -> None:
        with self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join(DEADLINE)


def _copy(source: socket.socket, target: socket.socket, left: int) -> None:
    with suppress(OSError):
        while left and (data := source.recv(min(left, 5000))):
            target.sendall(data)
            left -= len(data)
    for sock in (source, target):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting(server: Server, *after: int) -> Iterator[Cutter]:
    cutter = Cutter(server.port, [*after])
    thread = threading.Thread(target=cutter.serve)
    thread.start()
    try:
        yield cutter
    finally:
        cutter.close()
        thread.join(DEADLINE)


@pytest.mark.parametrize("last", [None, 2500])
async def test_it_goes_on_without_gap_or_double(server: Server, last: int | None) -> None:
    """The connection breaks within lines, between them, and before the first one of a new connection has come."""
    lines = [b"line %d" % number for number in range(3000)]
    breaks: list[str] = []
    with cutting(server, 5_000, 3, 5_007, 40, 60_000, 100, 77_777) as cutter:
        remote = Remote(servers=Servers.of(f"127.0.0.1:{cutter.address}", {}))
        async with take_job(server) as taken, trio.open_nursery() as nursery:
            await taken.say(*lines)
            console = RemoteConsole(remote=remote, uuid=taken.uuid)
            path = server.data_dir / "a" / str(taken.uuid) / "console"
            await eventually(lambda: lines[-1] in path.read_bytes())
            found: list[bytes] = []

            def follow() -> None:
                found.extend(texts(console.follow(last=last, on_break=breaks.append)))

            nursery.start_soon(trio.to_thread.run_sync, follow)
            await taken.say(b"more")
            await taken.finish()
    assert found[-1] == b"more"
    expected = [*lines, b"more"]
    assert found == expected[len(expected) - len(found) :]
    assert len(found) == len(expected) if last is None else len(found) in (last, last + 1)
    assert cutter.connections > 4
    assert breaks
    assert all(why.endswith("; trying again") for why in breaks)


async def test_what_was_never_reached_is_an_error(server: Server) -> None:
    uuid, _ = await build(server)
    with cutting(server, 0) as cutter:
        done = await trio.to_thread.run_sync(
            partial(run_client, server, "-r", f"127.0.0.1:{cutter.address}", "log", str(uuid), "-f")
        )
    assert done.returncode != 0


async def test_a_line_as_json(server: Server) -> None:
    uuid = await long_build(server, 10)
    done = await trio.to_thread.run_sync(partial(run_client, server, "log", str(uuid), "-n", "1", "--json"))
    assert json.loads(done.stdout)["timestamp_ns"] == 9 * SECOND
