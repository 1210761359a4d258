"""The core carries another protocol beside the classic one: a small one, as an extension would be, is written down here.

A client asks as often as it likes, and for several things at once; a server may take back what it offers while a worker
hands in what it has: the two cross.
"""

from collections.abc import Iterator
from typing import ClassVar

import pytest
import trio
import trio.testing
from attrs import field, frozen

from builder import codec, der, framing
from builder.connection import Connection
from builder.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from builder.framing import StreamedFrame
from builder.messages import KINDS, Hello, Kind, Message, Role, ServerHello, Success, message
from builder.model import Instant
from builder.order import PROTOCOLS, Protocol, Protocols, Side, State, Turn
from builder.runtime.channel import Channel


@pytest.fixture(autouse=True)
def _only_here() -> Iterator[None]:
    """Keep these kinds of messages from the other tests."""
    before = dict(KINDS)
    for kind in (Ask, Answer, Cancel, Work):
        message(kind)
    codec._form.cache_clear()
    yield
    KINDS.clear()
    KINDS.update(before)
    codec._form.cache_clear()


@frozen(kw_only=True)
class Ask(Message):
    tag: ClassVar[int] = 64
    number: int
    since: Instant | None = None


@frozen(kw_only=True)
class Answer(Message):
    tag: ClassVar[int] = 127
    number: int
    names: tuple[str, ...] = field(default=())


@frozen(kw_only=True)
class Cancel(Message):
    tag: ClassVar[int] = 128
    max_size: ClassVar[int] = 100


@frozen(kw_only=True)
class Work(Message):
    tag: ClassVar[int] = 16383
    max_size: ClassVar[int] = 10**9
    streamed: ClassVar[bool] = True
    content: bytes


MOMENT = Instant(1_795_000_000_000)

CLIENT_100 = Protocol(
    peer={State.ASKING: {Ask: Turn(State.ASKING)}},
    server={
        State.GREETING: {ServerHello: Turn(State.ANSWERING, State.ASKING)},
        State.ANSWERING: {Answer: Turn(State.ANSWERING)},
    },
)
WORKER_100 = Protocol(
    peer={State.BUILDING: {Work: Turn(State.QUIET)}},
    server={
        State.GREETING: {ServerHello: Turn(State.OFFERING, State.BUILDING)},
        State.OFFERING: {Cancel: Turn(State.QUIET)},
    },
)
BOTH: Protocols = {**PROTOCOLS, (Role.CLIENT, 100): CLIENT_100, (Role.WORKER, 100): WORKER_100}


def greeted(role: Role, version: int) -> tuple[Connection, Connection]:
    peer, server = Connection(Side.PEER, BOTH), Connection(Side.SERVER, BOTH)
    server.receive_data(peer.send(Hello(role=role, version=version)))
    server.next_message()
    peer.receive_data(server.send(ServerHello()))
    peer.next_message()
    return peer, server


@pytest.mark.parametrize(
    ("sent", "encoded"),
    [
        (Ask(number=1), "bf40 03 020101"),
        (Ask(number=1, since=MOMENT), None),
        (Answer(number=2, names=("a", "b")), "bf7f 0d 300b 020102 3006 0c0161 0c0162"),
        (Cancel(), "bf8100 02 0500"),
        (Work(content=b"xyz"), "bfff7f 05 0c0378797a"),
    ],
)
def test_tags_from_64_up(sent: Message, encoded: str | None) -> None:
    data = codec.encode(sent)
    assert codec.decode(data) == sent
    if encoded is not None and not isinstance(sent, Ask):
        assert data == bytes.fromhex(encoded)
    peer, server = greeted(Role.CLIENT, 100)
    if type(sent) in (Ask, Answer):
        sender, receiver = (peer, server) if isinstance(sent, Ask) else (server, peer)
        for byte in sender.send(sent):
            receiver.receive_data(bytes((byte,)))
        assert receiver.next_message() == sent


def test_many_exchanges_at_once() -> None:
    client, server = greeted(Role.CLIENT, 100)
    server.receive_data(b"".join(client.send(Ask(number=number)) for number in range(3)))
    client.receive_data(server.send(Answer(number=7)))
    assert [server.next_message() for _ in range(4)] == [*(Ask(number=number) for number in range(3)), None]
    assert client.next_message() == Answer(number=7)


def test_messages_that_cross_are_no_error() -> None:
    worker, server = greeted(Role.WORKER, 100)
    cancelled = server.send(Cancel())
    worker.send_made(Work)
    finished = framing.frame(codec.encode(Work(content=b"done")))
    server.receive_data(finished)
    assert server.next_message() == StreamedFrame(kind=Work, length=len(finished) - 8)
    assert server.read_body() == finished[8:]
    worker.receive_data(cancelled)
    assert worker.next_message() == Cancel()


def test_a_kind_is_streamed_or_bounded_as_it_says() -> None:
    worker, server = greeted(Role.WORKER, 100)
    server.receive_data(framing.frame_header(10**9) + b"\xbf\xff\x7f")
    assert server.next_message() == StreamedFrame(kind=Work, length=10**9)
    worker.receive_data(framing.frame_header(101) + b"\xbf\x81\x00")
    with pytest.raises(ProtocolError, match="Cancel of 101 bytes, more than the 100 allowed"):
        worker.next_message()


@pytest.mark.parametrize("kind", [Ask, Answer, Cancel, Work, Success])
def test_nothing_new_reaches_a_classic_peer(kind: Kind) -> None:
    for role, version in PROTOCOLS:
        for end in greeted(role, version):
            if kind is not Success:
                with pytest.raises(LocalProtocolError):
                    end.send_made(kind)
                end.receive_data(framing.frame_header(4) + der.context(kind.tag).to_bytes(3, "big").lstrip(b"\0"))
                with pytest.raises(RemoteProtocolError, match=f"got {kind.__name__}"):
                    end.next_message()


def test_a_classic_message_is_none_of_another_protocol() -> None:
    client, server = greeted(Role.CLIENT, 100)
    with pytest.raises(LocalProtocolError):
        server.send(Success())
    client.receive_data(framing.frame(codec.encode(Success())))
    with pytest.raises(RemoteProtocolError, match="expected Answer, got Success"):
        client.next_message()


def test_a_release_that_does_not_speak_it_refuses_it() -> None:
    server = Connection(Side.SERVER)
    server.receive_data(Connection(Side.PEER, BOTH).send(Hello(role=Role.WORKER, version=100)))
    with pytest.raises(RemoteProtocolError, match="worker of unknown version 100"):
        server.next_message()


async def test_a_channel_sends_while_it_receives() -> None:
    one, other = trio.testing.memory_stream_pair()
    client, server = Channel(one, Side.PEER, BOTH), Channel(other, Side.SERVER, BOTH)
    asked: list[Message | StreamedFrame] = []
    answered: list[Message | StreamedFrame] = []

    async def ask() -> None:
        for number in range(20):
            await client.send(Ask(number=number))

    async def answer() -> None:
        for number in range(20):
            await server.send(Answer(number=number))

    async def take(channel: Channel, taken: list[Message | StreamedFrame]) -> None:
        while len(taken) < 20:
            taken.append(await channel.receive())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await client.send(Hello(role=Role.CLIENT, version=100))
            await server.receive()
            await server.send(ServerHello())
            await client.receive()
            for action in (ask, answer):
                nursery.start_soon(action)
            nursery.start_soon(take, server, asked)
            nursery.start_soon(take, client, answered)
    assert asked == [Ask(number=number) for number in range(20)]
    assert answered == [Answer(number=number) for number in range(20)]
