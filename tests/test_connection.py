"""connection: every turn that the table allows and every one that it does not, and the recorded exchanges."""

from uuid import UUID

import pytest
import strategies
import vectors
from hypothesis import given
from hypothesis import strategies as st

from builder import codec, framing
from builder.connection import Connection, Side, State
from builder.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from builder.framing import StreamedFrame
from builder.messages import (
    KINDS,
    DropPlatform,
    Execute,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Message,
    Observe,
    Output,
    Reschedule,
    Role,
    Schedule,
    ScheduleOrbBuild,
    ServerHello,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import Aborted, Instant, OrbBuildJob, Period, ScriptJob

UUID_1 = UUID(int=1)
SCRIPT = ScriptJob(name="n", platform="p", script=b"s")
CLIENT = Hello(role=Role.CLIENT, version=13)
WORKER = Hello(role=Role.WORKER, version=5)

# One message of each kind, and of hello one of each role.
EXAMPLES: tuple[Message, ...] = (
    CLIENT,
    WORKER,
    ServerHello(),
    JobRequested(platform="p"),
    JobSchedule(uuid=UUID_1, job=SCRIPT),
    Output(uuid=UUID_1, line=b"x"),
    JobFinished(uuid=UUID_1, result=Aborted(message="x"), artifacts=()),
    Schedule(period=Period.DAILY, job=SCRIPT),
    ScheduleOrbBuild(period=Period.DAILY, job=OrbBuildJob(name="n", opam_package="o")),
    Unschedule(name="n"),
    Reschedule(name="n", next=Instant(0)),
    Execute(name="n"),
    Observe(uuid=UUID_1),
    DropPlatform(platform="p"),
    UndropPlatform(platform="p"),
    Info(),
    InfoReply(schedule=(), queues=(), running=(), dropped_platforms=()),
    Success(),
    Failure(message="m"),
)

# The order of the protocol, written down a second time: state, who sends what, state after it.
PEER, SERVER = Side.PEER, Side.SERVER
TURNS: dict[tuple[State, Side], dict[type[Message], State]] = {
    (State.CLIENT_HELLO, SERVER): {ServerHello: State.CLIENT_READY},
    (State.WORKER_HELLO, SERVER): {ServerHello: State.WORKER_READY},
    (State.CLIENT_READY, PEER): {
        Schedule: State.COMMANDED,
        ScheduleOrbBuild: State.COMMANDED,
        Unschedule: State.COMMANDED,
        Reschedule: State.COMMANDED,
        Execute: State.COMMANDED,
        DropPlatform: State.COMMANDED,
        UndropPlatform: State.COMMANDED,
        Info: State.ASKED_INFO,
        Observe: State.OBSERVING,
    },
    (State.COMMANDED, SERVER): {Success: State.DONE, Failure: State.DONE},
    (State.ASKED_INFO, SERVER): {InfoReply: State.COMMANDED, Failure: State.DONE},
    (State.OBSERVING, SERVER): {Output: State.OBSERVING, Success: State.DONE, Failure: State.DONE},
    (State.WORKER_READY, PEER): {JobRequested: State.WAITING},
    (State.WAITING, SERVER): {JobSchedule: State.BUILDING},
    (State.BUILDING, PEER): {Output: State.BUILDING, JobFinished: State.DONE},
}


def state_after(state: State, side: Side, message: Message) -> State | None:
    if isinstance(message, Hello):
        role = State.CLIENT_HELLO if message.role is Role.CLIENT else State.WORKER_HELLO
        return role if (state, side) == (State.OPEN, PEER) else None
    return TURNS.get((state, side), {}).get(type(message))


def connection(side: Side, state: State) -> Connection:
    made = Connection(side)
    made.state = state
    return made


def other(side: Side) -> Side:
    return SERVER if side is PEER else PEER


def label(value: object) -> str:
    return value.name if isinstance(value, (State, Side)) else type(value).__name__


def test_there_is_an_example_of_each_kind() -> None:
    assert {type(message) for message in EXAMPLES} == set(KINDS.values())


@pytest.mark.parametrize("state", State, ids=label)
@pytest.mark.parametrize("side", Side, ids=label)
@pytest.mark.parametrize("message", EXAMPLES, ids=label)
def test_sending(state: State, side: Side, message: Message) -> None:
    sender = connection(side, state)
    streamed = connection(side, state)
    after = state_after(state, side, message)
    if after is None:
        with pytest.raises(LocalProtocolError, match=type(message).__name__):
            sender.send(message)
        with pytest.raises(LocalProtocolError, match=type(message).__name__):
            streamed.send_streamed(type(message))
        assert sender.state is streamed.state is state
    else:
        assert sender.send(message) == framing.frame(codec.encode(message))
        assert sender.state is after
        if not isinstance(message, Hello):  # its role is not known from its kind
            streamed.send_streamed(type(message))
            assert streamed.state is after


@pytest.mark.parametrize("state", State, ids=label)
@pytest.mark.parametrize("side", Side, ids=label)
@pytest.mark.parametrize("message", EXAMPLES, ids=label)
def test_receiving(state: State, side: Side, message: Message) -> None:
    receiver = connection(other(side), state)
    body = codec.encode(message)
    receiver.receive_data(framing.frame(body))
    after = state_after(state, side, message)
    if after is None:
        with pytest.raises(RemoteProtocolError, match=f"got {type(message).__name__}"):
            receiver.next_message()
        assert receiver.state is state
    else:
        found = receiver.next_message()
        assert receiver.state is after
        if isinstance(message, JobFinished):
            assert found == StreamedFrame(length=len(body))
            assert receiver.body_left == len(body)
            assert receiver.read_body() == body
            assert receiver.body_left == 0
        else:
            assert found == message


def test_a_wrong_turn_is_refused_before_the_body_arrives() -> None:
    server = connection(SERVER, State.CLIENT_READY)
    server.receive_data(framing.frame_header(1000) + b"\xa2")
    with pytest.raises(RemoteProtocolError, match="got JobSchedule"):
        server.next_message()


def test_older_commands_are_read_as_the_newer_ones() -> None:
    server = connection(SERVER, State.CLIENT_READY)
    server.receive_data(framing.frame(bytes.fromhex("ab030c0178")))
    assert server.next_message() == Execute(name="x", platform=None)
    client = connection(PEER, State.ASKED_INFO)
    client.receive_data(framing.frame(bytes.fromhex("a7083006300030003000")))
    assert isinstance(client.next_message(), InfoReply)


# --- the end of the stream -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the connection ended$"), (b"\0", "within a message"), (framing.frame(b"\xae\x09")[:9], "within a message")],
)
def test_the_peer_closes_where_a_message_is_due(data: bytes, reason: str) -> None:
    server = Connection(SERVER)
    server.receive_data(data)
    if data:
        assert server.next_message() is None
        server.receive_data(b"")
    with pytest.raises(RemoteProtocolError, match=reason):
        server.next_message()


def test_a_message_before_the_end_still_counts() -> None:
    server = Connection(SERVER)
    server.receive_data(framing.frame(codec.encode(CLIENT)))
    server.receive_data(b"")
    assert server.next_message() == CLIENT
    with pytest.raises(RemoteProtocolError, match="ended"):
        server.next_message()


def test_the_peer_closes_within_a_body() -> None:
    server = connection(SERVER, State.BUILDING)
    server.receive_data(framing.frame_header(10) + b"\xa3\x08")
    server.receive_data(b"")
    assert server.next_message() == StreamedFrame(length=10)
    assert server.read_body() == b"\xa3\x08"
    assert server.body_left == 8
    with pytest.raises(RemoteProtocolError, match="within a message"):
        server.read_body()


def test_bytes_after_the_exchange() -> None:
    server = connection(SERVER, State.BUILDING)
    server.receive_data(framing.frame(codec.encode(EXAMPLES[6])) + framing.frame(codec.encode(Info())))
    server.next_message()
    server.read_body()
    assert server.state is State.DONE
    with pytest.raises(RemoteProtocolError, match="expected nothing, got Info"):
        server.next_message()


# --- recordings ----------------------------------------------------------------------------------------------------

TRANSCRIPTS = vectors.transcripts()


def test_the_recordings_have_every_kind_of_exchange() -> None:
    tags = {data[8] & 0x1F for frames in TRANSCRIPTS.values() for _, data in frames}
    assert {KINDS[tag] for tag in tags} == set(KINDS.values())


@pytest.mark.parametrize("exchange", TRANSCRIPTS, ids=lambda key: f"{key[0]}-{key[1]}")
def test_a_recorded_exchange(exchange: tuple[str, int]) -> None:
    ends = {"c2s": Connection(PEER), "s2c": Connection(SERVER)}
    for direction, recorded in TRANSCRIPTS[exchange]:
        sender = ends[direction]
        receiver = ends["s2c" if direction == "c2s" else "c2s"]
        receiver.receive_data(recorded)
        found = receiver.next_message()
        assert found is not None
        message = codec.decode(receiver.read_body()) if isinstance(found, StreamedFrame) else found
        assert receiver.body_left == 0
        assert sender.send(message) == recorded
        assert sender.state is receiver.state
    assert ends["c2s"].state is State.DONE
    for end in ends.values():
        end.receive_data(b"")
        with pytest.raises(RemoteProtocolError, match=r"the connection ended$"):
            end.next_message()


@pytest.mark.parametrize("exchange", TRANSCRIPTS, ids=lambda key: f"{key[0]}-{key[1]}")
def test_a_recorded_exchange_byte_by_byte(exchange: tuple[str, int]) -> None:
    server = Connection(SERVER)
    for direction, recorded in TRANSCRIPTS[exchange]:
        if direction == "s2c":
            server.send(codec.decode(recorded[8:]))
            continue
        found = None
        body = b""
        for byte in recorded:
            server.receive_data(bytes((byte,)))
            if isinstance(found, StreamedFrame):
                body += server.read_body()
            else:
                found = server.next_message()
                body += server.read_body() if isinstance(found, StreamedFrame) else b""
        assert found == (StreamedFrame(length=len(body)) if body else codec.decode(recorded[8:]))


@given(st.sampled_from(State), st.sampled_from(Side), strategies.mutated(strategies.messages.map(codec.encode)))
def test_whatever_a_peer_sends_the_error_is_one_of_the_protocol(state: State, side: Side, body: bytes) -> None:
    receiver = connection(side, state)
    receiver.receive_data(framing.frame(body))
    try:
        found = receiver.next_message()
    except ProtocolError:
        assert receiver.state is state
        return
    assert found is not None
