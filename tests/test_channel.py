"""channel: a whole exchange over a stream of trio, in both directions."""

from uuid import UUID

import pytest
import trio
from trio.testing import memory_stream_pair

from builder import codec, framing
from builder.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from builder.framing import StreamedFrame
from builder.messages import (
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Output,
    Role,
    ServerHello,
    Success,
)
from builder.model import Artifact, Exited, ScriptJob
from builder.order import PROTOCOLS, Side, State
from builder.outputs import Outputs
from builder.runtime.channel import Channel

UUID_1 = UUID(int=1)
CLIENT = Hello(role=Role.CLIENT, version=13)
WORKER = Hello(role=Role.WORKER, version=5)
EMPTY = InfoReply(schedule=(), queues=(), running=(), dropped_platforms=())
JOB = JobSchedule(uuid=UUID_1, job=ScriptJob(name="n", platform="p", script=b"s"))
LINES = [Output(uuid=UUID_1, line=b"%d" % number) for number in range(100)]
FINISHED = JobFinished(
    uuid=UUID_1, result=Exited(code=0), artifacts=(Artifact(path="a", content=bytes(range(256)) * 4096),)
)


def channels() -> tuple[Channel, Channel]:
    """Return the two ends of a connection: of who opened it, and of the server."""
    peer, server = memory_stream_pair()
    return Channel(peer, Side.PEER), Channel(server, Side.SERVER)


async def test_a_client_asks() -> None:
    client, server = channels()
    with trio.fail_after(5):
        await client.send(CLIENT)
        assert await server.receive_expected(Hello) == CLIENT
        await server.send(ServerHello())
        await client.receive_expected(ServerHello)
        await client.send(Info())
        assert await server.receive() == Info()
        await server.send(EMPTY, Success())
        assert await client.receive() == EMPTY
        assert client.connection.next_message() == Success()
        await server.aclose()
        with pytest.raises(RemoteProtocolError, match="ended"):
            await client.wait_closed()
        await client.aclose()


async def test_a_worker_works() -> None:
    worker, server = channels()
    body = codec.encode(FINISHED)

    async def work() -> None:
        await worker.send(WORKER)
        await worker.receive_expected(ServerHello)
        await worker.send(JobRequested(platform="p"))
        assert await worker.receive_expected(JobSchedule) == JOB
        await worker.send(*LINES)
        await worker.send_bytes(JobFinished, framing.frame_header(len(body)) + body[:100])
        for start in range(100, len(body), 1000):
            await worker.send_body(body[start : start + 1000])
        assert set(worker.connection.states.values()) == {State.QUIET}

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            assert await server.receive() == WORKER
            await server.send(ServerHello())
            assert await server.receive() == JobRequested(platform="p")
            await server.send(JOB)
            assert [await server.receive() for _ in LINES] == LINES
            assert await server.receive() == StreamedFrame(kind=JobFinished, length=len(body))
            found = b""
            while piece := await server.receive_body():
                found += piece
            assert found == body
            assert await server.receive_body() == b""
            assert set(server.connection.states.values()) == {State.QUIET}


async def test_the_peer_goes_away_within_a_body() -> None:
    worker, server = channels()
    for channel in (server, worker):
        channel.connection.protocol = PROTOCOLS[Role.WORKER, 5]
        channel.connection.states[Side.PEER] = State.BUILDING
    with trio.fail_after(5):
        await worker.send_bytes(JobFinished, framing.frame_header(10) + b"\xa3\x08")
        await worker.aclose()
        assert await server.receive() == StreamedFrame(kind=JobFinished, length=10)
        assert await server.receive_body() == b"\xa3\x08"
        with pytest.raises(RemoteProtocolError, match="within a message"):
            await server.receive_body()


@pytest.mark.parametrize("data", [b"\0" * 8, b"GET / HTTP/1.1\r\n\r\n", framing.frame(b"\xae\x00"), b"\xff" * 100])
async def test_garbage_is_an_error_of_the_protocol(data: bytes) -> None:
    peer, end = memory_stream_pair()
    server = Channel(end, Side.SERVER)
    with trio.fail_after(5):
        await peer.send_all(data)
        await peer.aclose()
        with pytest.raises(ProtocolError):
            await server.receive()


async def test_nothing_may_come_while_the_end_is_awaited() -> None:
    peer, end = memory_stream_pair()
    client = Channel(end, Side.PEER)
    client.connection.states[Side.PEER] = State.QUIET
    with trio.fail_after(5):
        await peer.send_all(framing.frame(codec.encode(Success())))
        with pytest.raises(RemoteProtocolError, match="expected nothing, got Success"):
            await client.wait_closed()


async def test_what_is_out_of_turn_is_not_sent() -> None:
    peer, end = memory_stream_pair()
    client = Channel(end, Side.PEER)
    with trio.fail_after(5):
        with pytest.raises(LocalProtocolError):
            await client.send(CLIENT, Info())
        with pytest.raises(LocalProtocolError):
            await client.send_bytes(JobFinished, b"")
        await client.aclose()
        assert await peer.receive_some() == b""


async def test_a_wait_that_is_cancelled_loses_no_bytes(autojump_clock: trio.testing.MockClock) -> None:
    peer, end = memory_stream_pair()
    server = Channel(end, Side.SERVER)
    whole = framing.frame(codec.encode(CLIENT))
    await peer.send_all(whole[:10])
    with trio.move_on_after(1) as waiting:
        await server.receive()
    assert waiting.cancelled_caught
    await peer.send_all(whole[10:])
    with trio.fail_after(5):
        assert await server.receive() == CLIENT


async def test_lines_that_came_together_are_received_together() -> None:
    worker, server = channels()
    with trio.fail_after(5):
        await worker.send(WORKER)
        await server.receive_expected(Hello)
        await server.send(ServerHello())
        await worker.receive_expected(ServerHello)
        await worker.send(JobRequested(platform="p"))
        await server.receive_expected(JobRequested)
        await server.send(JOB)
        await worker.receive_expected(JobSchedule)
        outputs = Outputs(UUID_1)
        other = Output(uuid=UUID(int=2), line=b"x")
        body = codec.encode(FINISHED)
        await worker.send(*LINES, other, LINES[0])
        assert await server.receive_outputs(outputs.cut) == [output.line for output in LINES]
        assert await server.receive_outputs(outputs.cut) == other
        assert await server.receive_outputs(outputs.cut) == [LINES[0].line]
        await worker.send_bytes(JobFinished, framing.frame(body))
        assert await server.receive_outputs(outputs.cut) == StreamedFrame(kind=JobFinished, length=len(body))


async def test_no_lines_are_received_where_none_may_be_sent() -> None:
    worker, server = channels()
    with trio.fail_after(5):
        await worker.send(WORKER)
        await server.receive_expected(Hello)
        await worker._stream.send_all(Outputs(UUID_1).join([b"x"]))
        with pytest.raises(RemoteProtocolError, match="expected nothing, got Output"):
            await server.receive_outputs(Outputs(UUID_1).cut)
