"""What one server hears of another: frames as they come, no more than is taken, and a server that says nothing."""

import socket
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from builder import codec
from builder.extension import Welcome
from builder.extension.builds import ArtifactsPiece, FetchArtifacts
from builder.extension.logs import ConsoleRange, ReadConsole
from builder.extension.order import ALL, CLIENT
from builder.extension.servers import Relay
from builder.framing import frame
from builder.messages import Failure, Hello, Message, Output, Role, Success
from builder.model import Instant
from builder.order import Side, State
from builder.roles import HolderRole, Identity
from builder.runtime.channel import Channel
from builder_server import upstream
from builder_server.aside import Replies
from builder_server.errors import CommandRefused
from builder_server.memory import Memory, SharingChannel
from builder_server.permission import Peer, relayed
from builder_server.store import ServerState
from builder_server.upstream import ANSWER_TIMEOUT, LOOK, PATIENCE, Absent, Upstream, Upstreams, cut

U = uuid4()
ALICE = Peer(address="10.0.0.1:7", name="alice")


def output(line: bytes = b"x", uuid: UUID = U) -> Output:
    return Output(uuid=uuid, line=line, timestamp=1)


def framed(*messages: Message) -> bytes:
    return b"".join(frame(codec.encode(each)) for each in messages)


ANSWERS = st.lists(
    st.one_of(
        st.binary(max_size=300).map(output),
        st.binary(max_size=300).map(lambda data: ArtifactsPiece(data=data)),
        st.just(ConsoleRange(offset=0, size=1)),
    ),
    max_size=5,
)


@given(ANSWERS, st.sampled_from([Success(), Failure(message="no")]), st.integers(0, 3000))
def test_frames_are_cut_up_to_the_end_of_the_answer(answer: list[Message], end: Message, count: int) -> None:
    data = framed(*answer, end, *answer)[:count]
    whole = next(
        framed(*answer[:number]) for number in range(len(answer), -1, -1) if data.startswith(framed(*answer[:number]))
    )
    assert cut(data) == ([whole] if whole else [], len(whole))


def channel(stream: Any, *, as_peer: bool = True) -> SharingChannel:
    memory = Memory(Replies(Path("/nonexistent")))
    found = SharingChannel(stream, memory, upstream._PROTOCOLS if as_peer else None)
    found.connection.protocol = CLIENT  # they have greeted each other
    found.connection.states = {Side.PEER: State.ASKING, Side.SERVER: State.QUIET}
    return found


def other_end(stream: Any) -> Channel:
    found = Channel(stream, Side.SERVER, ALL)
    found.connection.protocol = CLIENT
    found.connection.states = {Side.PEER: State.ASKING, Side.SERVER: State.QUIET}
    return found


class Pair:
    """A connection to another server, and its end there."""

    def __init__(self) -> None:
        here, there = trio.testing.lockstep_stream_pair()
        self.upstream = Upstream(channel(here))
        self.there = other_end(there)

    async def asked(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.upstream.ask, ReadConsole(uuid=U, follow=True))
            await self.there.receive_expected(ReadConsole)


async def test_an_answer_of_one_message_is_read_to_its_end(autojump_clock: trio.testing.MockClock) -> None:
    pair = Pair()
    await pair.asked()
    seconds = 3.0

    async def answer() -> None:
        await pair.there.send(ConsoleRange(offset=0, size=9))
        await trio.sleep(seconds)
        await pair.there.send(Success())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        begin = trio.current_time()
        assert await pair.upstream.only() == ConsoleRange(offset=0, size=9)
        assert trio.current_time() - begin >= seconds


async def test_an_answer_is_heard_as_it_comes() -> None:
    pair = Pair()
    await pair.asked()
    large = output(b"x" * 1_000_000)

    async def answer() -> None:
        await pair.there.send(ConsoleRange(offset=0, size=9))
        await pair.there.send(output(b"1"), output(b"2"))
        await pair.there.send(large)
        await pair.there.send(Success())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await pair.upstream.next() == ConsoleRange(offset=0, size=9)
        assert await pair.upstream.next_frames() == framed(output(b"1"), output(b"2"))
        assert await pair.upstream.next_frames() == large
        assert await pair.upstream.next_frames() is None


async def test_a_refusal_is_one_here_too() -> None:
    pair = Pair()
    await pair.asked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.there.send, Failure(message="there is no build"))
        with pytest.raises(CommandRefused, match=r"^there is no build$"):
            await pair.upstream.next_frames()


async def test_a_connection_that_ends_is_the_servers_fault_and_not_the_clients() -> None:
    pair = Pair()
    await pair.asked()
    await pair.there.aclose()
    with pytest.raises(Absent, match="the connection ended"):
        await pair.upstream.next_frames()


async def test_who_is_silent_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    pair = Pair()
    await pair.asked()
    begun = trio.current_time()
    with pytest.raises(Absent, match=r"^silent for 45 s$"):
        await pair.upstream.next_frames()
    assert trio.current_time() - begun == ANSWER_TIMEOUT


async def test_who_may_be_silent_is_given_up_when_it_is_counted_as_dead(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pair = Pair()
    looks: list[float] = []

    async def lives() -> bool:
        looks.append(trio.current_time())
        return len(looks) < 100

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.upstream.ask, ReadConsole(uuid=U, follow=True), lives)
        await pair.there.receive_expected(ReadConsole)
    begun = trio.current_time()
    with pytest.raises(Absent, match=r"^it is counted as dead$"):
        await pair.upstream.next_frames()
    assert [*looks] == [begun + LOOK * number for number in range(1, 101)]


async def test_no_more_is_read_than_the_client_takes() -> None:
    pair = Pair()
    await pair.asked()
    here, client = trio.testing.lockstep_stream_pair()
    to_client = channel(here, as_peer=False)
    to_client.connection.states[Side.SERVER] = State.ANSWERING
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(20):
            await pair.there.send(ArtifactsPiece(data=bytes(65536)))
            sent += 1
        await pair.there.send(Success())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(pair.upstream.pass_on, to_client, 60)
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 3
        received = 0
        while received < len(framed(*[ArtifactsPiece(data=bytes(65536))] * 20)):
            received += len(await client.receive_some(65536))
        await trio.testing.wait_all_tasks_blocked()
    assert sent == 20


# --- who asks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (None, HolderRole.OPERATOR),
        ({HolderRole.OPERATOR}, HolderRole.OPERATOR),
        ({HolderRole.OBSERVER}, HolderRole.OBSERVER),
        ({HolderRole.OBSERVER, HolderRole.WORKER}, HolderRole.OBSERVER),
    ],
)
def test_a_client_may_do_elsewhere_what_it_may_here(roles: set[HolderRole] | None, role: HolderRole) -> None:
    identity = None
    if roles is not None:
        identity = Identity(name="alice", roles=frozenset(roles), platforms=None, serial=1, expires=Instant(1))
    client = evolve(ALICE, identity=identity)
    there = relayed(Relay(token="t", server="b", holder=client.name, address=client.address, role=client.role))
    assert str(there) == "alice (10.0.0.1:7 by b)"
    there.check(FetchArtifacts)
    assert there.identity
    assert there.identity.roles == {role}


def test_nobody_becomes_a_worker_by_another_server() -> None:
    there = relayed(Relay(token="t", server="b", holder="w", address="1:1", role=HolderRole.WORKER))
    assert there.identity
    assert not there.identity.roles


# --- how it is reached ----------------------------------------------------------------------------------------------


def server(address: str | None) -> ServerState:
    return ServerState(
        name="a",
        incarnation=U,
        address=address,
        version="1",
        token="secret",
        now=Instant(0),
        started=Instant(0),
        expires=None,
        crew="{}",
        is_alive=True,
        keeps_schedule=False,
    )


async def reach(address: str | None) -> None:
    upstreams = Upstreams(memory=Memory(Replies(Path("/nonexistent"))), name=lambda: "b")
    async with upstreams.connected(server(address), ALICE):
        pass


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, r"^it has told no address: start it with --advertise$"),
        ("unix:/nonexistent", r"^No such file or directory$"),
        ("a b", r"^invalid address 'a b'"),
    ],
)
async def test_a_server_that_is_not_reached(address: str | None, why: str) -> None:
    with pytest.raises(Absent, match=why):
        await reach(address)


async def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PATIENCE", 0.05)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(Absent, match=r"^no answer for 0.05 s$"):
            await reach(f"127.0.0.1:{listener.socket.getsockname()[1]}")
    assert PATIENCE > 1


async def test_the_token_is_shown_before_anything_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(reach, f"unix:{path}")
        async with await listener.accept() as stream:
            there = Channel(stream, Side.SERVER, ALL)
            assert await there.receive_expected(Hello) == Hello(role=Role.CLIENT, version=100)
            await there.send(Welcome(version=100))
            assert await there.receive_expected(Relay) == Relay(
                token="secret", server="b", holder="alice", address="10.0.0.1:7", role=HolderRole.OPERATOR
            )
            await there.send(Success())
