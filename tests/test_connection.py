"""connection: every turn that the table allows and every one that it does not, and the recorded exchanges."""

from uuid import UUID

import pytest
import strategies
import vectors
from hypothesis import given
from hypothesis import strategies as st

from builder import codec, framing
from builder.connection import Connection
from builder.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from builder.extension import VERSION, Welcome
from builder.extension.order import ALL
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
from builder.order import OPENING, PROTOCOLS, Protocol, Side, State

UUID_1 = UUID(int=1)
SCRIPT = ScriptJob(name="n", platform="p", script=b"s")
CLIENT = Hello(role=Role.CLIENT, version=13)
WORKER = Hello(role=Role.WORKER, version=5)

# One message of each kind, and of hello one of each role.
CLASSIC = {kind for kind in KINDS.values() if kind.tag < Welcome.tag}

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

# The order of the protocol, written down a second time: who is in which state may send what, and the states after it of
# the sender and of the other side, where that changes.
PEER, SERVER = Side.PEER, Side.SERVER
Turns = dict[tuple[Side, State], dict[type[Message], tuple[State, State | None]]]
ASKED = (State.QUIET, State.ANSWERING)
SAID = (State.QUIET, None)
TURNS: dict[str, Turns] = {
    "nobody": {(PEER, State.OPENING): {Hello: (State.QUIET, State.GREETING)}},
    "client": {
        (SERVER, State.GREETING): {ServerHello: (State.QUIET, State.ASKING)},
        (PEER, State.ASKING): {
            Schedule: ASKED,
            ScheduleOrbBuild: ASKED,
            Unschedule: ASKED,
            Reschedule: ASKED,
            Execute: ASKED,
            DropPlatform: ASKED,
            UndropPlatform: ASKED,
            Info: (State.QUIET, State.INFORMING),
            Observe: (State.QUIET, State.SHOWING),
        },
        (SERVER, State.ANSWERING): {Success: SAID, Failure: SAID},
        (SERVER, State.INFORMING): {InfoReply: (State.ANSWERING, None), Failure: SAID},
        (SERVER, State.SHOWING): {Output: (State.SHOWING, None), Success: SAID, Failure: SAID},
    },
    "worker": {
        (SERVER, State.GREETING): {ServerHello: (State.QUIET, State.REQUESTING)},
        (PEER, State.REQUESTING): {JobRequested: (State.QUIET, State.OFFERING)},
        (SERVER, State.OFFERING): {JobSchedule: (State.QUIET, State.BUILDING)},
        (PEER, State.BUILDING): {Output: (State.BUILDING, None), JobFinished: SAID},
    },
}
DONE = {PEER: State.QUIET, SERVER: State.QUIET}
SPOKEN: dict[str, Protocol] = {
    "nobody": OPENING,
    "client": PROTOCOLS[Role.CLIENT, 13],
    "worker": PROTOCOLS[Role.WORKER, 5],
}


def connection(side: Side, spoken: str, **states: State) -> Connection:
    """Return a connection in the middle of an exchange; a side whose state is not given waits."""
    made = Connection(side)
    made.protocol = SPOKEN[spoken]
    made.states = {each: states.get(each.name.lower(), State.QUIET) for each in Side}
    return made


def other(side: Side) -> Side:
    return SERVER if side is PEER else PEER


def label(value: object) -> str:
    return value.name if isinstance(value, (State, Side)) else value if isinstance(value, str) else type(value).__name__


def after(spoken: str, side: Side, state: State, message: Message) -> dict[Side, State] | None:
    turn = TURNS[spoken].get((side, state), {}).get(type(message))
    return None if turn is None else {side: turn[0], other(side): turn[1] or State.QUIET}


def test_there_is_an_example_of_each_kind() -> None:
    assert {type(message) for message in EXAMPLES} == CLASSIC


@pytest.mark.parametrize("spoken", TURNS)
@pytest.mark.parametrize("state", State, ids=label)
@pytest.mark.parametrize("side", Side, ids=label)
def test_sending(spoken: str, state: State, side: Side) -> None:
    for message in EXAMPLES:
        sender = connection(side, spoken, **{side.name.lower(): state})
        made_elsewhere = connection(side, spoken, **{side.name.lower(): state})
        before = dict(sender.states)
        expected = after(spoken, side, state, message)
        if expected is None:
            with pytest.raises(LocalProtocolError, match=type(message).__name__):
                sender.send(message)
            with pytest.raises(LocalProtocolError, match=type(message).__name__):
                made_elsewhere.send_made(type(message))
            assert sender.states == made_elsewhere.states == before
        else:
            assert sender.send(message) == framing.frame(codec.encode(message))
            made_elsewhere.send_made(type(message))
            assert sender.states == made_elsewhere.states == expected


@pytest.mark.parametrize("spoken", TURNS)
@pytest.mark.parametrize("state", State, ids=label)
@pytest.mark.parametrize("side", Side, ids=label)
def test_receiving(spoken: str, state: State, side: Side) -> None:
    for message in EXAMPLES:
        receiver = connection(other(side), spoken, **{side.name.lower(): state})
        before = dict(receiver.states)
        body = codec.encode(message)
        receiver.receive_data(framing.frame(body))
        expected = after(spoken, side, state, message)
        if expected is None:
            with pytest.raises(RemoteProtocolError, match=f"got {type(message).__name__}"):
                receiver.next_message()
            assert receiver.states == before
        else:
            found = receiver.next_message()
            assert receiver.states == expected
            if isinstance(message, JobFinished):
                assert found == StreamedFrame(kind=JobFinished, length=len(body))
                assert receiver.body_left == len(body)
                assert receiver.read_body() == body
                assert receiver.body_left == 0
            else:
                assert found == message


@pytest.mark.parametrize("hello", [CLIENT, WORKER], ids=["client", "worker"])
def test_a_hello_chooses_the_order(hello: Hello) -> None:
    peer, server = Connection(PEER), Connection(SERVER)
    server.receive_data(peer.send(hello))
    assert server.next_message() == hello
    assert peer.protocol is server.protocol is PROTOCOLS[hello.role, hello.version]


@pytest.mark.parametrize(
    "hello",
    [Hello(role=Role.CLIENT, version=5), Hello(role=Role.WORKER, version=13), Hello(role=Role.CLIENT, version=100)],
)
def test_a_version_that_nobody_speaks(hello: Hello) -> None:
    server = Connection(SERVER)
    server.receive_data(framing.frame(codec.encode(hello)))
    with pytest.raises(RemoteProtocolError, match=f"{hello.role.value} of unknown version {hello.version}"):
        server.next_message()
    with pytest.raises(LocalProtocolError, match="unknown version"):
        Connection(PEER).send(hello)


@pytest.mark.parametrize("role", Role)
def test_a_later_version_is_spoken_as_the_latest_that_is_known(role: Role) -> None:
    server = Connection(SERVER, ALL)
    server.receive_data(framing.frame(codec.encode(Hello(role=role, version=VERSION + 1))))
    assert server.next_message() == Hello(role=role, version=VERSION + 1)
    assert server.protocol is ALL[role, VERSION]


def test_a_wrong_turn_is_refused_before_the_body_arrives() -> None:
    server = connection(SERVER, "client", peer=State.ASKING)
    server.receive_data(framing.frame_header(1000) + b"\xa2")
    with pytest.raises(RemoteProtocolError, match="got JobSchedule"):
        server.next_message()


def test_older_commands_are_read_as_the_newer_ones() -> None:
    server = connection(SERVER, "client", peer=State.ASKING)
    server.receive_data(framing.frame(bytes.fromhex("ab030c0178")))
    assert server.next_message() == Execute(name="x", platform=None)
    client = connection(PEER, "client", server=State.INFORMING)
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
    server = connection(SERVER, "worker", peer=State.BUILDING)
    server.receive_data(framing.frame_header(10) + b"\xa3\x08")
    server.receive_data(b"")
    assert server.next_message() == StreamedFrame(kind=JobFinished, length=10)
    assert server.read_body() == b"\xa3\x08"
    assert server.body_left == 8
    with pytest.raises(RemoteProtocolError, match="within a message"):
        server.read_body()


def test_bytes_after_the_exchange() -> None:
    server = connection(SERVER, "worker", peer=State.BUILDING)
    server.receive_data(framing.frame(codec.encode(EXAMPLES[6])) + framing.frame(codec.encode(Info())))
    server.next_message()
    server.read_body()
    assert server.states == DONE
    with pytest.raises(RemoteProtocolError, match="expected nothing, got Info"):
        server.next_message()


# --- recordings ----------------------------------------------------------------------------------------------------

TRANSCRIPTS = vectors.transcripts()


def test_the_recordings_have_every_kind_of_exchange() -> None:
    tags = {data[8] & 0x1F for frames in TRANSCRIPTS.values() for _, data in frames}
    assert {KINDS[tag] for tag in tags} == CLASSIC


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
        assert sender.states == receiver.states
    assert ends["c2s"].states == DONE
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
        assert found == (StreamedFrame(kind=JobFinished, length=len(body)) if body else codec.decode(recorded[8:]))


@given(
    st.sampled_from(sorted(TURNS)),
    st.sampled_from(State),
    st.sampled_from(Side),
    strategies.mutated(strategies.messages.map(codec.encode)),
)
def test_whatever_a_peer_sends_the_error_is_one_of_the_protocol(
    spoken: str, state: State, side: Side, body: bytes
) -> None:
    receiver = connection(side, spoken, **{other(side).name.lower(): state})
    before = dict(receiver.states)
    receiver.receive_data(framing.frame(body))
    try:
        found = receiver.next_message()
    except ProtocolError:
        assert receiver.states == before
        return
    assert found is not None
