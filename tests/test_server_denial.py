"""builder-server among crowds that want nothing of it but its time: a worker and a client are served within a second."""

import contextlib
import math
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from authorities import Authority, Issued
from farm import Server, environment, eventually, start_server
from scripted import CLIENT, WORKER, ScriptedPeer, connect, given_job, schedule
from test_scanners import client_hello
from visitors import shown

from builder import codec
from builder.errors import ConnectionEnded
from builder.framing import frame
from builder.messages import Execute, Hello, Info, InfoReply, JobRequested, Success
from builder.roles import HolderRole

CROWD = 2050
"""Some more than there are places."""

ASKING = 200

WITHIN = 1.0
"""Seconds in which both are served: the best of some tries counts, since the machine may be busy with others."""

TRIES = 5

Enter = Callable[[Hello], contextlib.AbstractAsyncContextManager[ScriptedPeer]]


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CROWD:
        pytest.skip("not as many descriptors may be had here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def serving(root: Path, *, is_encrypted: bool) -> AsyncIterator[tuple[Server, Enter]]:
    """Run a server, and yield it with what lets a peer enter that may do everything."""
    if not is_encrypted:
        async with start_server(root, "-qq") as server:
            yield server, lambda hello: connect(server, hello)
        return
    authority = Authority(root / "ca")
    files = authority.server().files
    mine: Issued = authority.issue("alice", uris=[role.uri for role in HolderRole])
    given = [f"--tls-cert={files.certificate}", f"--tls-key={files.key}", f"--tls-client-ca={files.ca}"]
    async with start_server(root, "-qq", *given) as server:
        yield server, lambda hello: shown(server, mine, hello)


async def is_served(enter: Enter, within: float = WITHIN) -> bool:
    """Return whether a client is served in so many seconds, and a worker, in the best of some tries."""
    for _ in range(TRIES):
        if await _serve_one(enter) < within:
            return True
    return False


async def _serve_one(enter: Enter) -> float:
    """Return the seconds of whoever had to wait longest; infinity where a place was taken before anything was asked for."""
    took = []
    try:
        for serve in (_schedule, _execute, _work, _ask):
            begun = time.monotonic()
            await serve(enter)
            took.append(time.monotonic() - begun)
    except (trio.BrokenResourceError, ConnectionEnded, OSError):
        return math.inf
    return max(took)


async def _schedule(enter: Enter) -> None:
    async with enter(CLIENT) as client:
        await client.send(schedule("a"))
        await client.receive_any()  # it may be there already


async def _execute(enter: Enter) -> None:
    async with enter(CLIENT) as client:
        await client.send(Execute(name="a"))
        await client.receive(Success)


async def _work(enter: Enter) -> None:
    async with enter(WORKER) as worker:
        await worker.send(JobRequested(platform="p1"))
        await (await given_job(worker)).finish()


async def _ask(enter: Enter) -> None:
    async with enter(CLIENT) as client:
        await client.send(Info())
        await client.receive(InfoReply)


BEGINS = {
    "plain": frame(codec.encode(CLIENT)),
    "TLS": b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03" + bytes(32),  # what a client's hello begins with
}


@pytest.mark.parametrize(
    ("kind", "is_dripping"),
    [
        ("plain", False),
        ("TLS", True),
        pytest.param("plain", True, marks=pytest.mark.long),
        pytest.param("TLS", False, marks=pytest.mark.long),
    ],
)
async def test_a_crowd_that_says_next_to_nothing(kind: str, tmp_path: Path, *, is_dripping: bool) -> None:
    async with serving(tmp_path, is_encrypted=kind == "TLS") as (server, enter), AsyncExitStack() as guests:
        crowd = [
            await guests.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port)) for _ in range(CROWD)
        ]
        await eventually(lambda: server.descriptors() > CROWD - 50)
        if is_dripping:
            for at in range(3):
                for stream in crowd:
                    with contextlib.suppress(trio.BrokenResourceError):  # its place may have been taken
                        await stream.send_all(BEGINS[kind][at : at + 1])
        assert await is_served(enter)


@pytest.mark.long
@pytest.mark.parametrize("kind", BEGINS)
async def test_a_crowd_that_sends_a_byte_a_second(kind: str, tmp_path: Path) -> None:
    """For longer than a handshake may take, and with others in the place of those that were closed."""
    async with serving(tmp_path, is_encrypted=kind == "TLS") as (server, enter), trio.open_nursery() as nursery:

        async def drip() -> None:
            while True:
                with contextlib.suppress(OSError, trio.BrokenResourceError):
                    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                        for byte in BEGINS[kind]:
                            await stream.send_all(bytes([byte]))
                            await trio.sleep(1)

        for _ in range(CROWD):
            nursery.start_soon(drip)
        end = trio.current_time() + 30
        while trio.current_time() < end:
            assert await is_served(enter, 2 * WITHIN)  # the crowd is in this process, too
            await trio.sleep(1)  # a job has so many attempts a minute, and no more
        nursery.cancel_scope.cancel()


ASKERS = """
import selectors, socket, sys

port, count, request = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
selector = selectors.DefaultSelector()

def ask():
    found = socket.create_connection(("127.0.0.1", port))
    found.sendall(request)
    selector.register(found, selectors.EVENT_READ)

for _ in range(count):
    ask()
print("asking", flush=True)
while True:
    for key, _ in selector.select():
        try:
            ended = not key.fileobj.recv(65536)
        except ConnectionError:
            ended = True
        if ended:
            selector.unregister(key.fileobj)
            key.fileobj.close()
            ask()
"""
"""Clients that ask for info, and then again, until they are killed."""


@contextmanager
def asking(server: Server) -> Iterator[None]:
    request = frame(codec.encode(CLIENT)) + frame(codec.encode(Info()))
    command = [sys.executable, "-c", ASKERS, str(server.port), str(ASKING), request.hex()]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"asking\n"
            yield
        finally:
            process.kill()


async def test_a_crowd_that_asks_for_info_again_and_again(tmp_path: Path) -> None:
    async with serving(tmp_path, is_encrypted=False) as (server, enter):
        async with enter(CLIENT) as client:
            await client.send(schedule("a"))
            await client.receive(Success)
        with asking(server):
            assert await is_served(enter)


async def test_a_crowd_that_sends_garbage_instead_of_a_handshake(tmp_path: Path) -> None:
    """Each garbage ends its connection at once; so does a hello of a version in which keys could be negotiated again."""
    async with serving(tmp_path, is_encrypted=True) as (server, enter), trio.open_nursery() as nursery:

        async def knock(garbage: bytes) -> None:
            while True:
                with contextlib.suppress(OSError, trio.BrokenResourceError):
                    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                    async with stream:
                        await stream.send_all(garbage)
                        while await stream.receive_some():
                            pass
                        ended[garbage] += 1

        ended = Counter[bytes]()
        garbage = b"GET / HTTP/1.0\r\n\r\n", client_hello(b"\3\3")
        for number in range(20):
            nursery.start_soon(knock, garbage[number % 2])
        assert await is_served(enter, 2 * WITHIN)  # those who knock are in this process, too
        await eventually(lambda: all(ended[each] > 20 for each in garbage))
        nursery.cancel_scope.cancel()
