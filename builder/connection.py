"""One connection without its socket: bytes and messages in, messages and bytes out, in the order of the protocol.

What may be sent when is in ``builder.order``. A message that its table does not have is an error: RemoteProtocolError
when the other side sent it, LocalProtocolError when this program wanted to. To send and to receive are independent: a
program may do both at once, from two tasks.
"""

from collections.abc import Callable
from typing import TypeVar

from builder import codec
from builder.errors import ConnectionEnded, LocalProtocolError, ProtocolError, RemoteProtocolError
from builder.framing import FrameReader, StreamedFrame, frame
from builder.messages import Hello, Kind, Message, Output
from builder.order import OPENING, PROTOCOLS, Protocol, Protocols, Side, State, Turn, spoken

T = TypeVar("T")


class Connection:
    """A connection, seen from one ``side``. ``protocols`` are those that it may turn out to speak.

    ``receive_data`` takes what came from the network and ``next_message`` returns what it meant. A message of a kind
    that is streamed is returned as its StreamedFrame; its body is then taken with ``read_body``.
    """

    __slots__ = ("_ended", "_other", "_protocols", "_reader", "_side", "protocol", "states")  # a server has thousands

    def __init__(self, side: Side, protocols: Protocols = PROTOCOLS) -> None:
        self.states = {Side.PEER: State.OPENING, Side.SERVER: State.QUIET}
        self.protocol: Protocol = OPENING
        self._side = side
        self._other = Side.SERVER if side is Side.PEER else Side.PEER
        self._protocols = protocols
        self._reader = FrameReader()
        self._ended = False

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the other side; empty ones mean that it has closed its side."""
        if data:
            self._reader.feed(data)
        else:
            self._ended = True

    def next_message(self) -> Message | StreamedFrame | None:
        """Return the other side's next message, or None while bytes are missing.

        Raises ProtocolError for what is no message, RemoteProtocolError for one out of turn or for a version that is not
        spoken here, and ConnectionEnded when the other side has closed and nothing is left to return.
        """
        allowed = self.protocol.allowed(self._other, self.states[self._other])
        found = self._reader.next_frame(allowed)
        if found is None:
            if self._ended:
                raise ConnectionEnded(
                    "the connection ended within a message" if self._reader.in_frame else "the connection ended"
                )
            return None
        if isinstance(found, StreamedFrame):
            self._turn(self._other, allowed[found.kind])
            return found
        message = codec.decode(found.body)
        if isinstance(message, Hello):
            self._choose(message, RemoteProtocolError)
        self._turn(self._other, allowed[type(message)])
        return message

    def take_outputs(self, read: Callable[[bytes], tuple[list[T], int]]) -> list[T]:
        """Return what a method of ``Outputs`` reads at the front of what has come.

        Where that is nothing, ``next_message`` tells what there is.
        """
        allowed = self.protocol.allowed(self._other, self.states[self._other])
        return self._reader.take(read) if Output in allowed else []

    @property
    def held(self) -> int:
        """Bytes that have come and were not returned yet."""
        return self._reader.held

    @property
    def awaited(self) -> int:
        """Size of the message that ``next_message`` could not return yet, 0 if it has not seen how long that is."""
        return self._reader.awaited

    def read_body(self) -> bytes:
        """Return what has arrived of a streamed message's body; see ``body_left``."""
        data = self._reader.read_body()
        if not data and self._reader.body_left and self._ended:
            raise ConnectionEnded("the connection ended within a message")
        return data

    @property
    def body_left(self) -> int:
        """Bytes of a streamed message's body that are still to be read."""
        return self._reader.body_left

    def send(self, message: Message) -> bytes:
        """Return the bytes that send a message. Raises LocalProtocolError when it is not this side's turn for it."""
        turn = self._own_turn(type(message))
        data = frame(codec.encode(message))
        if isinstance(message, Hello):
            self._choose(message, LocalProtocolError)
        self._turn(self._side, turn)
        return data

    def may_send(self, kind: Kind) -> bool:
        """Return whether it is this side's turn for a message of that kind."""
        return kind in self.protocol.allowed(self._side, self.states[self._side])

    def send_made(self, kind: Kind) -> None:
        """Note that this side is sending a message of that kind whose bytes were made elsewhere."""
        self._turn(self._side, self._own_turn(kind))

    def _own_turn(self, kind: Kind) -> Turn:
        state = self.states[self._side]
        turn = self.protocol.allowed(self._side, state).get(kind)
        if turn is None:
            raise LocalProtocolError(f"{kind.__name__} can't be sent in state {state.name}")
        return turn

    def _choose(self, hello: Hello, fault: type[ProtocolError]) -> None:
        protocol = self._protocols.get((hello.role, spoken(hello.role, hello.version, self._protocols)))
        if protocol is None:
            raise fault(f"{hello.role.value} of unknown version {hello.version}")
        self.protocol = protocol

    def _turn(self, side: Side, turn: Turn) -> None:
        self.states[side] = turn.own
        if turn.other is not None:
            self.states[Side.SERVER if side is Side.PEER else Side.PEER] = turn.other
