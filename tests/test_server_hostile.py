"""builder-server and peers that do wrong: one log line each, that connection closed, nothing else disturbed, nothing kept."""

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import trio
from farm import LocalServer, eventually, run_server, start_server
from scripted import (
    CLIENT,
    WORKER,
    Taken,
    build,
    connect,
    do,
    given_job,
    info,
    observe,
    queues,
    schedule,
    take_job,
    waiting_worker,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from builder import codec, der, execution
from builder.framing import frame, frame_header
from builder.messages import (
    DropPlatform,
    Execute,
    Hello,
    Info,
    InfoReply,
    JobRequested,
    JobSchedule,
    Message,
    Output,
    Role,
    ServerHello,
    Success,
)
from builder.model import Aborted, Artifact, Exited, ScriptJob
from builder.runtime import logs
from builder.runtime.sockets import bound_unsent, tune
from builder_server.names import KEYS


def framed(message: Message) -> bytes:
    return frame(codec.encode(message))


def nested(levels: int, tag: int = der.SEQUENCE) -> bytes:
    """Return a value with that many levels in it, made from the inside."""
    headers = [b""]
    length = 0
    for _ in range(levels):
        headers.append(der.header(tag, length))
        length += len(headers[-1])
    return b"".join(reversed(headers))


GIANT = 8 * 2**30
HELLOS = framed(CLIENT), framed(WORKER)
JOB = ScriptJob(name="j", platform="p1", script=b"")
FROM_THE_START = {
    "nothing at all": b"",
    "garbage": bytes(range(255, 0, -1)),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(1000),
    "an empty frame": frame(b""),
    "a frame of one byte": frame(b"\xae"),
    "half a frame": framed(CLIENT)[:-1],
    "half a length": framed(CLIENT)[:5],
    "an endless frame of nothing known": frame_header(GIANT) + b"\x30",
    "an endless hello": frame_header(GIANT) + b"\xae",
    "an endless job finished": frame_header(GIANT) + b"\xa3",
    "the longest length": b"\xff" * 8 + b"\xae",
    "tag 0": frame(b"\xa0\x02\x05\x00"),
    "tag 1": frame(b"\xa1\x02\x05\x00"),
    "tag 8": frame(b"\xa8\x02\x05\x00"),
    "tag 64": frame(b"\xbf\x40\x02\x05\x00"),
    "tag 100": frame(b"\xbf\x64\x02\x05\x00"),
    "version 99 of a client": framed(Hello(role=Role.CLIENT, version=99)),
    "the worker's version from a client": framed(Hello(role=Role.CLIENT, version=5)),
    "the client's version from a worker": framed(Hello(role=Role.WORKER, version=13)),
    "a version below zero": framed(Hello(role=Role.CLIENT, version=-13)),
    "a hello with more in it": frame(bytes.fromhex("ae0c300aa002050002010d020100")),
    "a hello with more behind it": frame(bytes.fromhex("ae093007a002050002010d00")),
    "a command before the hello": framed(Info()),
    "a server's hello": framed(ServerHello()),
    "nested hello": frame(nested(100_000, 0xAE)),
}
AFTER_HELLO = {
    "hello twice": (HELLOS[0], framed(CLIENT)),
    "a worker's message from a client": (HELLOS[0], framed(JobRequested(platform="p1"))),
    "a client's message from a worker": (HELLOS[1], framed(Info())),
    "a result before the job": (HELLOS[1], frame_header(GIANT) + b"\xa3"),
    "a reply to the server": (HELLOS[0], framed(Success())),
    "an info reply": (
        HELLOS[0],
        framed(InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())),
    ),
    "a job for the server": (HELLOS[0], framed(JobSchedule(uuid=UUID(int=1), job=JOB))),
    "garbage": (HELLOS[0], b"\xff" * 1000),
    "half a command": (HELLOS[0], framed(schedule("x"))[:-1]),
    "an endless schedule": (HELLOS[0], frame_header(GIANT) + b"\xa5"),
    "a script that is too large": (HELLOS[0], frame_header(5 * 2**20) + b"\xa5"),
    "100 000 nested values": (HELLOS[0], frame(der.header(0xA5, len(nested(100_000))) + nested(100_000))),
    "100 000 nested tags": (HELLOS[0], frame(nested(100_000, 0xA5))),
    "a million elements": (
        HELLOS[0],
        frame(der.header(0xA5, 2_000_004) + der.header(0x30, 2_000_000) + b"\5\0" * 10**6),
    ),
    "a length beyond the frame": (HELLOS[0], frame(b"\xa9\x84\x7f\xff\xff\xff")),
    "an indefinite length": (HELLOS[0], frame(b"\xa9\x80\x0c\x01x\0\0")),
    "a malformed time": (HELLOS[0], frame(bytes.fromhex("ad0930070c017818022b31"))),
    "tag 64": (HELLOS[0], frame(b"\xbf\x40\x02\x05\x00")),
    "a platform that can't be": (HELLOS[1], framed(JobRequested(platform="../x"))),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with run_server(tmp_path) as found:
        yield found


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    text = logs.Text("")
    return [text.format(record) for record in caplog.records if record.levelno >= logging.WARNING]


async def one_line(caplog: pytest.LogCaptureFixture, begin: str = "closed: ") -> str:
    await eventually(lambda: complaints(caplog), what="a log line")
    (line,) = complaints(caplog)
    assert "\n" not in line
    assert line.isprintable()
    assert f": {begin}" in line
    return line


@pytest.mark.parametrize("what", FROM_THE_START)
async def test_wrong_from_the_start(server: LocalServer, what: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(server) as peer:
        with contextlib.suppress(trio.BrokenResourceError):  # it may have enough before it has all
            await peer.send_raw(FROM_THE_START[what])
        if len(FROM_THE_START[what]) < 20:  # it may be waited for more
            await peer.stream.send_eof()
        assert await peer.wait_closed() == b""  # without a reply
    await one_line(caplog, "not let in: ")
    assert (await info(server)).queues == ()


@pytest.mark.parametrize("what", AFTER_HELLO)
async def test_wrong_after_the_hello(server: LocalServer, what: str, caplog: pytest.LogCaptureFixture) -> None:
    hello, wrong = AFTER_HELLO[what]
    async with connect(server) as peer:
        try:
            await peer.send_raw(hello + wrong)
            await peer.stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # as above
        assert await peer.wait_closed() in (b"", framed(ServerHello()))
    await one_line(caplog)
    found = await info(server)
    assert (found.schedule, found.queues) == ((), ())


async def test_a_worker_that_says_more_while_it_waits(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    async with waiting_worker(server) as worker:
        await worker.send_raw(framed(Output(uuid=UUID(int=1), line=b"x")))
        assert await worker.wait_closed() == b""
    await one_line(caplog)
    await do(server, schedule("a"))
    assert await queues(server) == {"p1": ["a"]}


# --- silence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [b"", framed(CLIENT)[:-1], framed(CLIENT), framed(WORKER), framed(CLIENT) + framed(schedule("x"))[:-1]],
    ids=["nothing", "half a hello", "a client's hello", "a worker's hello", "half a command"],
)
async def test_silence_is_ended_after_30_seconds(
    tmp_path: Path, mock_clock: MockClock, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    mock_clock.rate = 1  # the test's own deadlines are real
    has_greeted = said.startswith((framed(CLIENT), framed(WORKER)))
    async with run_server(tmp_path) as server, connect(server) as peer:
        await peer.send_raw(said)
        if has_greeted:
            assert await peer.stream.receive_some(100) == framed(ServerHello())
        await wait_all_tasks_blocked(0.01)  # the server has seen it all, and its clock for the rest has begun
        mock_clock.jump(27)
        await info(server)
        assert complaints(caplog) == []
        mock_clock.jump(4)
        assert await peer.wait_closed() == b""
        await eventually(lambda: complaints(caplog))
        (line,) = complaints(caplog)
        what = "closed, it was silent for too long" if has_greeted else "not let in: it was silent for too long"
        assert line.split(": ", 1)[1] == what


async def test_a_waiting_worker_may_wait_for_days(tmp_path: Path, mock_clock: MockClock) -> None:
    mock_clock.rate = 1
    async with run_server(tmp_path) as server, waiting_worker(server) as worker:
        await eventually(lambda: server.query("select * from platform"))
        for _ in range(10):
            mock_clock.jump(86_400)
            await info(server)
        await do(server, schedule("a"))
        await (await given_job(worker)).finish()


async def test_artifacts_that_stop_coming_are_a_loss(tmp_path: Path, mock_clock: MockClock) -> None:
    mock_clock.rate = 1
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.peer.send_raw(frame_header(1000) + b"\xa3\x82\x03\xe4")
            await wait_all_tasks_blocked(0.02)
            mock_clock.jump(301)
            assert await taken.peer.wait_closed() == b""
        await eventually(lambda: server.query("select losses from queue") == [(1,)])


def test_keepalive_finds_dead_workers() -> None:
    import socket

    async def check() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        client = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
        accepted = await listeners[0].accept()
        tune(accepted)
        bound_unsent(accepted)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 180_000
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        seconds = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + accepted.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_KEEPINTVL
        ) * accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert seconds <= 180
        for stream in (client, accepted, *listeners):
            await stream.aclose()

    trio.run(check)


# --- artifacts -----------------------------------------------------------------------------------------------------

BAD_PATHS = {
    "absolute": ["/etc/passwd"],
    "above": ["../../state"],
    "above, later": ["a/../../b"],
    "empty": [""],
    "with NUL": ["a\0b"],
    "the directory": ["."],
    "an empty part": ["a//b"],
    "a slash at the end": ["a/"],
    "too long": ["/".join(["x" * 200] * 21)],
    "a part too long": ["x" * 256],
    "twice the same": ["a", "b", "a"],
    "the second": ["good", "../bad", "good too"],
}


def result_bytes(taken: Taken, paths: list[str], content: bytes = b"content") -> bytes:
    files = b"".join(execution.artifact_head(path, len(content)) + content for path in paths)
    head = execution.FinishedHead(uuid=taken.uuid, result=Exited(code=0))
    return frame(execution.finished_head(head, len(files)) + files)


@pytest.mark.parametrize("what", BAD_PATHS)
async def test_a_bad_artifact_path_fails_the_build_alone(server: LocalServer, what: str) -> None:
    await do(server, schedule("a"))
    async with take_job(server) as taken:
        await taken.say(b"one")
        await taken.peer.send_raw(result_bytes(taken, BAD_PATHS[what]))
        assert await taken.peer.wait_end() == "reset"  # its result was not taken
    outputs = await observe(server, taken.uuid)
    record = server.execution("a", taken.uuid)
    assert isinstance(record.result, Aborted)
    assert record.result.message.startswith(("invalid artifact path ", "two artifacts have the path 'a'"))
    assert record.result.message.isprintable()
    assert record.artifacts == ()
    assert [line.line for line in record.console] == [b"one"]
    assert isinstance(outputs, list)
    assert outputs[-1].line == f"execution aborted: {record.result.message}".encode()
    assert await queues(server) == {"p1": []}  # it is the job's fault, and not tried again
    await do(server, Execute(name="a"))
    uuid, _ = await build(server, artifacts=[Artifact(path="ok/x", content=b"1")])
    assert server.execution("a", uuid).result == Exited(code=0)
    assert {path.name for path in server.data_dir.iterdir() if path.is_dir()} - {KEYS} == {"a"}


async def test_a_path_within_another_is_kept_like_any(server: LocalServer) -> None:
    """They are no tree on the server, nor in the original or in builder-web."""
    await do(server, schedule("a"))
    artifacts = tuple(Artifact(path=path, content=path.encode()) for path in ("a/b", "a", "a/b/c"))
    uuid, _ = await build(server, artifacts=artifacts)
    assert server.execution("a", uuid).artifacts == artifacts


async def test_too_many_artifacts_are_the_fault_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_ARTIFACTS", 2)
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        async with take_job(server) as taken:
            await taken.peer.send_raw(result_bytes(taken, ["a", "b", "c"]))
            assert await taken.peer.wait_end() == "reset"
        await observe(server, taken.uuid)
        record = server.execution("a", taken.uuid)
        assert record.result == Aborted(message="more than 2 artifacts")
        assert record.artifacts == ()
        assert await queues(server) == {"p1": []}  # it is not tried again


async def test_paths_that_are_only_strange(server: LocalServer) -> None:
    paths = ["-rf", "a b", "\udcff", "a\nb", "...", "..a/b..", "x" * 255, "/".join(["d"] * 1000), "full", ".hidden"]
    await do(server, schedule("a"))
    uuid, _ = await build(
        server, artifacts=[Artifact(path=path, content=path.encode("utf-8", "surrogateescape")) for path in paths]
    )
    assert [artifact.path for artifact in server.execution("a", uuid).artifacts] == paths


# --- many of them --------------------------------------------------------------------------------------------------


async def test_hundreds_of_hostile_connections_while_a_build_goes_on(tmp_path: Path) -> None:
    wrong = [data for data in FROM_THE_START.values() if data] + [
        a + b for a, b in AFTER_HELLO.values() if len(b) < 10**6
    ]
    async with start_server(tmp_path, "-q") as server:
        await do(server, schedule("warm"), DropPlatform(platform="p1"))
        await do(server, schedule("a", "p2"))
        limiter = trio.CapacityLimiter(100)

        async def attack(number: int) -> None:
            async with limiter, connect(server) as peer:
                try:
                    await peer.send_raw(wrong[number % len(wrong)])
                    if number % 3:
                        await peer.stream.send_eof()
                        await peer.wait_closed()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

        async def wave(count: int) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(attack, number)

        async with take_job(server, "p2") as taken:
            await wave(200)
            await eventually(lambda: server.descriptors() < 40)
            memory, descriptors = server.memory(), server.descriptors()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wave, 400)
                for number in range(200):
                    await taken.say(b"line %d" % number)
            await taken.finish()
        assert [line.line for line in server.execution("a", taken.uuid).console] == [b"line %d" % n for n in range(200)]
        await eventually(lambda: server.descriptors() <= descriptors)
        assert server.memory() < memory + 16 * 2**20  # and what is loaded at the first message of a kind
        assert "Traceback" not in server.log


async def test_what_workers_name_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder_server.store import queues

    monkeypatch.setattr(queues, "MAX_PLATFORMS", 5)
    monkeypatch.setattr(queues, "RESERVED", 0)
    async with run_server(tmp_path) as server:
        closed = 0
        for number in range(20):
            async with waiting_worker(server, f"p{number}") as worker:
                if number >= 5:
                    assert await worker.wait_closed() == b""
                    closed += 1
                else:
                    await eventually(lambda: len(server.query("select * from platform")) > number)  # noqa: B023
        assert closed == 15
        assert len((await info(server)).queues) == 5
