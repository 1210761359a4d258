"""builder-server with all places taken: who says nothing goes for a newcomer, who has asked for something never does."""

import resource
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from farm import LocalServer, Server, environment, eventually, log_lines, run_server, start_server, wait_until_announced
from scripted import (
    CLIENT,
    OURS,
    WORKER,
    ScriptedPeer,
    ask,
    connect,
    do,
    given_job,
    info,
    schedule,
    take_job,
    waiting_worker,
)
from trio.testing import wait_all_tasks_blocked

from builder.extension.schedule import ShowJob
from builder.messages import Failure, Hello, Info, InfoReply, Observe, Success
from builder_server import connections, listening
from builder_server.limits import ServerLimits

LIMIT = 8
STAYING = 6
"""Three quarters of it."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path, limits=ServerLimits(connections=LIMIT)) as found:
        yield found


@pytest.fixture
async def guests() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def enter(server: LocalServer, guests: AsyncExitStack, hello: Hello | None = None) -> ScriptedPeer:
    """Connect a peer that stays until the end of the test, and see to it that the server knows of it."""
    peer = await guests.enter_async_context(connect(server, hello))
    await wait_all_tasks_blocked(0.01)
    return peer


async def is_open(peer: ScriptedPeer) -> bool:
    """Return whether the server has not closed; it has nothing to say to this peer."""
    await wait_all_tasks_blocked(0.01)
    readable, _, _ = select.select([peer.stream.socket.fileno()], [], [], 0)
    return not readable


async def test_the_one_that_was_silent_longest_goes(server: LocalServer, guests: AsyncExitStack) -> None:
    silent = [await enter(server, guests) for _ in range(LIMIT)]
    await info(server)
    assert [await is_open(peer) for peer in silent] == [False] + [True] * (LIMIT - 1)
    await info(server)  # into the place that the first one left
    assert await is_open(silent[1])


async def test_a_crowd_fills_no_log(
    server: LocalServer, guests: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3 * LIMIT):
        await enter(server, guests)
    for length in range(listening.MAX_REASONS + 5):
        garbage = await enter(server, guests)
        await garbage.send_raw((2**50 + length).to_bytes(8, "big") + b"\xae")
        await garbage.wait_closed()
    said = log_lines(caplog.text, "not let in: ")
    assert len(said) == 1 + listening.MAX_REASONS
    assert len(log_lines(caplog.text, "not let in: it had asked for nothing yet")) == 1
    assert "not let in: for one of many reasons" in said[-1]


async def test_who_has_said_hello_goes_last(server: LocalServer, guests: AsyncExitStack) -> None:
    greeted = [await enter(server, guests, CLIENT if number % 2 else WORKER) for number in range(LIMIT - 1)]
    silent = await enter(server, guests)
    newcomer = await enter(server, guests, CLIENT)
    assert not await is_open(silent)
    assert all([await is_open(peer) for peer in greeted])
    await info(server)
    assert [await is_open(peer) for peer in greeted] == [False] + [True] * (LIMIT - 2)
    await newcomer.send(Info())
    await newcomer.receive(InfoReply)


async def test_who_thinks_between_two_requests_goes_after_those_without_hello(
    server: LocalServer, guests: AsyncExitStack
) -> None:
    client = await enter(server, guests, OURS)
    assert isinstance((await client.request(ShowJob(name="a")))[-1], Failure)
    silent = [await enter(server, guests) for _ in range(LIMIT - 1)]
    for _ in silent:
        await enter(server, guests, CLIENT)
    assert [await is_open(peer) for peer in silent] == [False] * (LIMIT - 1)
    assert await is_open(client)


async def test_who_has_asked_for_something_never_goes(
    server: LocalServer, guests: AsyncExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "_STAYING", (1, 1))
    workers = [await guests.enter_async_context(waiting_worker(server)) for _ in range(LIMIT)]
    await wait_all_tasks_blocked(0.01)
    newcomer = await enter(server, guests)
    assert await newcomer.wait_closed() == b""
    assert log_lines(caplog.text, "not let in: there are 8 connections, and all have asked for something")
    await workers[0].stream.aclose()
    await eventually(lambda: "connection ended" in caplog.text)
    await do(server, schedule("a"))
    await (await given_job(workers[1])).finish()


async def test_a_place_stays_for_commands(server: LocalServer, guests: AsyncExitStack) -> None:
    await do(server, schedule("a"))
    taken = await guests.enter_async_context(take_job(server))
    for _ in range(STAYING - 2):
        await guests.enter_async_context(waiting_worker(server))
    observer = await enter(server, guests, CLIENT)
    await observer.send(Observe(uuid=taken.uuid))
    await wait_all_tasks_blocked(0.01)
    refused = await guests.enter_async_context(waiting_worker(server))
    assert await refused.wait_closed() == b""
    too_many = Failure(message=f"there are {STAYING} workers and observers already")
    assert await ask(server, Observe(uuid=taken.uuid)) == too_many
    for _ in range(LIMIT):
        await enter(server, guests, CLIENT)
    assert len((await info(server)).running) == 1
    await observer.stream.aclose()
    await wait_all_tasks_blocked(0.01)
    again = await guests.enter_async_context(waiting_worker(server))
    assert await is_open(again)
    await taken.finish()


async def test_few_descriptors_mean_few_connections(tmp_path: Path) -> None:
    """What builds need is not taken by connections: with 128 descriptors there are 21, each with enough of them."""
    data_dir, config_dir = tmp_path / "data", tmp_path / "etc"
    data_dir.mkdir()
    config_dir.mkdir()
    log_path = tmp_path / "server.log"
    command = [sys.executable, "-m", "builder_server", "--port=0", f"--dir={data_dir}", f"--config-dir={config_dir}"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
    server = Server(name="server", process=process, log_path=log_path, data_dir=data_dir, config_dir=config_dir)
    try:
        await wait_until_announced(server)
        async with AsyncExitStack() as guests:
            await do(server, *(schedule(f"job{number}") for number in range(15)))
            for _ in range(100):
                await guests.enter_async_context(connect(server))
            taken = [await guests.enter_async_context(take_job(server)) for _ in range(15)]
            for one in taken:
                observed = await guests.enter_async_context(connect(server, CLIENT))
                await observed.send(Observe(uuid=one.uuid))
                assert isinstance(await observed.receive_any(), Failure)
            for one in taken:
                await one.say(b"x")
                await one.finish()
            assert await ask(server, schedule("last")) == Success()
        assert "warning 21 connections at most, since there are only 128 file descriptors" in server.log
        assert "Too many open files" not in server.log
        assert "Traceback" not in server.log
    finally:
        server.kill()
        assert process.stdout
        process.stdout.close()


async def test_a_lack_of_descriptors_passes(tmp_path: Path) -> None:
    """Others may take the last one of the machine; the server must be there when they give it back."""
    async with start_server(tmp_path) as server:
        await info(server)
        server.limit(resource.RLIMIT_NOFILE, server.descriptors() + 3)
        async with AsyncExitStack() as guests:
            for _ in range(10):
                await guests.enter_async_context(connect(server))
            await server.wait_for_log("accept returned EMFILE", count=2)
        assert (await info(server)).running == ()
