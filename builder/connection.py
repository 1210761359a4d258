"""The order of messages on a connection, as one table, for all three programs. No I/O.

A connection is one exchange. Every message, sent or received, is a transition; a pair that the table does not have is
an error: RemoteProtocolError when the peer sent it, LocalProtocolError when this program wanted to.
"""

import enum

from builder import codec
from builder.errors import ConnectionEnded, LocalProtocolError
from builder.framing import FrameReader, StreamedFrame, frame
from builder.messages import (
    DropPlatform,
    Execute,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Kind,
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


class State(enum.Enum):
    """Where an exchange is; the names tell what has happened last."""

    OPEN = enum.auto()
    CLIENT_HELLO = enum.auto()
    WORKER_HELLO = enum.auto()
    CLIENT_READY = enum.auto()
    WORKER_READY = enum.auto()
    COMMANDED = enum.auto()
    ASKED_INFO = enum.auto()
    OBSERVING = enum.auto()
    WAITING = enum.auto()
    BUILDING = enum.auto()
    DONE = enum.auto()


class Side(enum.Enum):
    """Who sends: the program that opened the connection, or the server."""

    PEER = enum.auto()
    SERVER = enum.auto()


_COMMANDS: tuple[Kind, ...] = (
    Schedule,
    ScheduleOrbBuild,
    Unschedule,
    Reschedule,
    Execute,
    DropPlatform,
    UndropPlatform,
)

# (state, who sends) -> what may be sent -> the state after it. The state after a hello depends on its role.
_TABLE: dict[tuple[State, Side], dict[Kind, State]] = {
    (State.OPEN, Side.PEER): {Hello: State.OPEN},
    (State.CLIENT_HELLO, Side.SERVER): {ServerHello: State.CLIENT_READY},
    (State.WORKER_HELLO, Side.SERVER): {ServerHello: State.WORKER_READY},
    (State.CLIENT_READY, Side.PEER): dict.fromkeys(_COMMANDS, State.COMMANDED)
    | {Info: State.ASKED_INFO, Observe: State.OBSERVING},
    (State.COMMANDED, Side.SERVER): {Success: State.DONE, Failure: State.DONE},
    (State.ASKED_INFO, Side.SERVER): {InfoReply: State.COMMANDED, Failure: State.DONE},
    (State.OBSERVING, Side.SERVER): {Output: State.OBSERVING, Success: State.DONE, Failure: State.DONE},
    (State.WORKER_READY, Side.PEER): {JobRequested: State.WAITING},
    (State.WAITING, Side.SERVER): {JobSchedule: State.BUILDING},
    (State.BUILDING, Side.PEER): {Output: State.BUILDING, JobFinished: State.DONE},
}

_AFTER_HELLO = {Role.CLIENT: State.CLIENT_HELLO, Role.WORKER: State.WORKER_HELLO}


class Connection:
    """One exchange, seen from one ``side``: bytes and messages in, messages and bytes out.

    ``receive_data`` takes what came from the network and ``next_message`` returns what it meant. A job finished is
    returned as its StreamedFrame; its body is then taken with ``read_body``.
    """

    def __init__(self, side: Side) -> None:
        self.state = State.OPEN
        self._side = side
        self._other = Side.SERVER if side is Side.PEER else Side.PEER
        self._reader = FrameReader()
        self._ended = False

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; empty ones mean that it has closed its side."""
        if data:
            self._reader.feed(data)
        else:
            self._ended = True

    def next_message(self) -> Message | StreamedFrame | None:
        """Return the peer's next message, or None while bytes are missing.

        Raises ProtocolError for what is no message, RemoteProtocolError for one out of turn, and ConnectionEnded
        when the peer has closed and nothing is left to return.
        """
        allowed = _TABLE.get((self.state, self._other), {})
        found = self._reader.next_frame(allowed)
        if found is None:
            if self._ended:
                raise ConnectionEnded(
                    "the connection ended within a message" if self._reader.in_frame else "the connection ended"
                )
            return None
        if isinstance(found, StreamedFrame):
            self.state = allowed[JobFinished]
            return found
        message = codec.decode(found.body)
        self._advance(message, allowed)
        return message

    @property
    def held(self) -> int:
        """Bytes that have come and were not returned yet."""
        return self._reader.held

    @property
    def awaited(self) -> int:
        """Size of the message that ``next_message`` could not return yet, 0 if it has not seen how long that is."""
        return self._reader.awaited

    def read_body(self) -> bytes:
        """Return what has arrived of a job finished's body; see ``body_left``."""
        data = self._reader.read_body()
        if not data and self._reader.body_left and self._ended:
            raise ConnectionEnded("the connection ended within a message")
        return data

    @property
    def body_left(self) -> int:
        """Bytes of a job finished's body that are still to be read."""
        return self._reader.body_left

    def send(self, message: Message) -> bytes:
        """Return the bytes that send a message. Raises LocalProtocolError when it is not this side's turn for it."""
        self._check_turn(type(message))
        data = frame(codec.encode(message))
        self._advance(message, _TABLE[self.state, self._side])
        return data

    def send_streamed(self, kind: Kind) -> None:
        """Note that this side is sending a message of that kind whose bytes it makes by itself."""
        self._check_turn(kind)
        self.state = _TABLE[self.state, self._side][kind]

    def _check_turn(self, kind: Kind) -> None:
        if kind not in _TABLE.get((self.state, self._side), {}):
            raise LocalProtocolError(f"{kind.__name__} can't be sent in state {self.state.name}")

    def _advance(self, message: Message, allowed: dict[Kind, State]) -> None:
        self.state = _AFTER_HELLO[message.role] if isinstance(message, Hello) else allowed[type(message)]
