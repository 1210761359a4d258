"""A connection over a trio stream: the only user of trio here."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from trio.abc import HalfCloseableStream

from builder.connection import Connection
from builder.errors import LocalProtocolError
from builder.framing import StreamedFrame
from builder.messages import Kind, Message
from builder.order import PROTOCOLS, Protocols, Side

M = TypeVar("M", bound=Message)
T = TypeVar("T")

RECEIVE_SIZE = 64 * 1024
"""Most bytes taken from a socket at once."""

BODY_SIZE = 512 * 1024
"""The same for the body of a streamed message, which is copied and not decoded."""


class Channel:
    """Messages over a stream. A method that waits has no deadline of its own: the caller knows the right one.

    Errors are those of the stream (``trio.BrokenResourceError``, ``trio.ClosedResourceError``) and of the protocol.
    """

    def __init__(self, stream: HalfCloseableStream, side: Side, protocols: Protocols = PROTOCOLS) -> None:
        self._stream = stream
        self.connection = Connection(side, protocols)

    async def send(self, *messages: Message) -> None:
        """Send messages in one write."""
        await self._stream.send_all(b"".join(self.connection.send(message) for message in messages))

    async def send_bytes(self, kind: Kind, data: bytes) -> None:
        """Send the bytes of whole frames of that kind, made elsewhere."""
        self.connection.send_made(kind)
        await self._stream.send_all(data)

    async def send_body(self, data: bytes) -> None:
        """Send more of a frame that was begun with ``send_bytes``."""
        await self._stream.send_all(data)

    async def receive(self) -> Message | StreamedFrame:
        """Wait for the next message. A streamed message comes as its StreamedFrame."""
        while (message := self.connection.next_message()) is None:
            await self._receive_some(RECEIVE_SIZE)
        return message

    async def receive_outputs(self, cut: Callable[[bytes], tuple[list[T], int]]) -> list[T] | Message | StreamedFrame:
        """Wait for the next console lines, what a method of ``Outputs`` cuts of all that came; or for another message.

        An Output that it leaves, as one in an unusual form, is another message too.
        """
        while True:
            if lines := self.connection.take_outputs(cut):
                return lines
            if (message := self.connection.next_message()) is not None:
                return message
            await self._receive_some(RECEIVE_SIZE)

    async def receive_expected(self, kind: type[M]) -> M:
        """Wait for the next message where the protocol allows only this kind."""
        message = await self.receive()
        if not isinstance(message, kind):
            raise LocalProtocolError(f"expected only {kind.__name__} here, not {type(message).__name__}")
        return message

    async def receive_body(self) -> bytes:
        """Wait for more of a streamed message's body; empty when it is complete."""
        while not (data := self.connection.read_body()):
            if not self.connection.body_left:
                return b""
            await self._receive_some(BODY_SIZE)
        return data

    async def wait_closed(self) -> NoReturn:
        """Wait for the end of the connection where it is not the peer's turn to send.

        Raises ConnectionEnded, or what the stream or the peer does instead of ending it.
        """
        while (message := self.connection.next_message()) is None:
            await self._receive_some(RECEIVE_SIZE)
        raise LocalProtocolError(f"{type(message).__name__} came while only the end was waited for")

    async def _receive_some(self, size: int) -> int:
        """Wait for more bytes, and return how many came; a subclass may make them wait as well."""
        data = await self._stream.receive_some(size)
        self.connection.receive_data(data)
        return len(data)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
